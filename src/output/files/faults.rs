//! A file system whose n-th operation fails, or at whose n-th operation the program is killed.

use super::system::NewFile;
use super::*;
use std::cell::Cell;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// No space left on the device.
    Full,
    /// An error of the device.
    Broken,
    /// A write takes half of what it is given, once, and the next one fails.
    Short,
    /// The program is gone at once.
    Killed,
}

/// Operations are counted from 1; removing names is not one, because a program that cannot do that cannot clean up.
#[derive(Clone)]
struct Faulty {
    fault: Fault,
    at: usize,
    count: Arc<AtomicUsize>,
}

impl Faulty {
    fn new(fault: Fault, at: usize) -> Self {
        Faulty {
            fault,
            at,
            count: Arc::default(),
        }
    }

    /// Counts an operation; whether it is the one.
    fn is_it(&self) -> bool {
        let it = self.count.fetch_add(1, Ordering::Relaxed) + 1 == self.at;
        if it && self.fault == Fault::Killed {
            std::process::abort();
        }
        it
    }

    fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(if self.fault == Fault::Broken { 5 } else { 28 })
    }

    fn operation(&self) -> io::Result<()> {
        if self.is_it() { Err(self.error()) } else { Ok(()) }
    }
}

struct FaultyFile {
    file: Box<dyn NewFile>,
    system: Faulty,
    failing: Cell<bool>,
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failing.get() {
            return Err(self.system.error());
        }
        if self.system.is_it() {
            if self.system.fault != Fault::Short {
                return Err(self.system.error());
            }
            self.failing.set(true);
            return self.file.write(&bytes[..bytes.len().div_ceil(2)]);
        }
        // Several writes for each file.
        self.file.write(&bytes[..bytes.len().min(3)])
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for FaultyFile {
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.system.operation()?;
        self.file.reserve(bytes)
    }
    fn end(&mut self, bytes: u64) -> io::Result<()> {
        self.system.operation()?;
        self.file.end(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.system.operation()?;
        self.file.sync()
    }
}

struct FaultyRead(Box<dyn Read>, Faulty);

impl Read for FaultyRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.operation()?;
        self.0.read(buffer)
    }
}

impl System for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.operation()?;
        Ok(Box::new(FaultyFile {
            file: Disk.create(path)?,
            system: self.clone(),
            failing: Cell::new(false),
        }))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        self.operation()?;
        Ok(Box::new(FaultyRead(Disk.open(path)?, self.clone())))
    }
    fn device(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        self.operation()?;
        Disk.device(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation()?;
        Disk.rename(from, to)
    }
    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        self.operation()?;
        Disk.link(file, name)
    }
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation()?;
        Disk.copy(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.operation()?;
        Disk.sync_folder(path)
    }
}

/// One file of each kind: replaced, new, equal, replaced again.
const FILES: [(&str, Option<&str>, &str); 4] = [
    ("m.a", Some("old library"), "new library"),
    ("m.h", None, "new header"),
    ("m.ld", Some("same"), "same"),
    ("m.d", Some("old rule"), "new rule"),
];

fn before() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, old, _) in FILES {
        if let Some(old) = old {
            fs::write(folder.path().join(name), old).unwrap();
        }
    }
    folder
}

fn write(system: &dyn System, folder: &Path) -> Result<Vec<Written>> {
    let files =
        FILES.map(|(name, _, new)| OutFile::text(folder.join(name), new.to_owned()).expecting(new.len() as u64 + 3));
    write_with(system, files.into())
}

/// What is in the folder: whether all files are old, whether all are new, and what else there is.
fn state(folder: &Path) -> (bool, bool, Vec<String>) {
    let (mut old, mut new) = (true, true);
    for (name, before, after) in FILES {
        let now = fs::read_to_string(folder.join(name)).ok();
        assert!(
            now.as_deref() == before || now.as_deref() == Some(after),
            "{name} is {now:?}"
        );
        old &= now.as_deref() == before;
        new &= now.as_deref() == Some(after);
    }
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let others = names
        .filter(|name| FILES.iter().all(|(known, ..)| known != name))
        .collect();
    (old, new, others)
}

/// Operations of an undisturbed run.
fn operations() -> usize {
    let (system, folder) = (Faulty::new(Fault::Full, 0), before());
    write(&system, folder.path()).unwrap();
    assert_eq!(state(folder.path()), (false, true, Vec::new()));
    system.count.load(Ordering::Relaxed)
}

#[test]
fn every_operation_fails_in_turn() {
    let operations = operations();
    assert!(operations > 30, "{operations}");
    for fault in [Fault::Full, Fault::Broken, Fault::Short] {
        for at in 1..=operations {
            let (system, folder) = (Faulty::new(fault, at), before());
            let result = write(&system, folder.path());
            let (old, new, others) = state(folder.path());
            assert_eq!(others, [""; 0], "{fault:?} at {at}");
            match result {
                // A link that fails becomes a copy.
                Ok(_) => assert!(new, "{fault:?} at {at}"),
                Err(error) => {
                    assert_eq!(error.code, Code::Io);
                    assert!(error.message.starts_with("cannot write") || at == operations, "{error}");
                    let reason = if fault == Fault::Broken {
                        "Input/output error"
                    } else {
                        "No space left"
                    };
                    assert!(error.message.contains(reason), "{error}");
                    // The last operation synchronises the folder: the files are in place.
                    assert_eq!((old, new), (at != operations, at == operations), "{fault:?} at {at}");
                }
            }
        }
    }
}

/// Another process, killed at one of its operations: every file is whole.
#[test]
fn killed_at_every_operation() {
    let own = std::env::current_exe().unwrap();
    let mut mixed = 0;
    for at in 1..=operations() {
        let folder = before();
        let status = Command::new(&own)
            .args([
                "--exact",
                "output::files::faults::victim",
                "--ignored",
                "--test-threads=1",
            ])
            .env("COREROPE_KILLED_AT", at.to_string())
            .env("COREROPE_FOLDER", folder.path())
            .output()
            .unwrap()
            .status;
        assert!(!status.success(), "operation {at} killed nobody");
        let (old, new, others) = state(folder.path());
        mixed += usize::from(!old && !new);
        assert!(others.iter().all(|name| name.starts_with(".corerope-")), "{others:?}");
        // The next build succeeds all the same.
        write(&Disk, folder.path()).unwrap();
        assert!(state(folder.path()).1);
    }
    // Between the renames alone.
    assert_eq!(mixed, 2);
}

#[test]
#[ignore = "it is killed"]
fn victim() {
    let at = std::env::var("COREROPE_KILLED_AT").unwrap().parse().unwrap();
    let folder = PathBuf::from(std::env::var_os("COREROPE_FOLDER").unwrap());
    write(&Faulty::new(Fault::Killed, at), &folder).unwrap();
}

/// A program that is asked to end leaves nothing.
#[test]
fn abandoned_files_are_removed() {
    let folder = before();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "output::files::faults::quitter",
            "--ignored",
            "--test-threads=1",
        ])
        .env("COREROPE_FOLDER", folder.path())
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(7),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(state(folder.path()), (true, false, Vec::new()));
}

#[test]
#[ignore = "it ends"]
fn quitter() {
    let folder = PathBuf::from(std::env::var_os("COREROPE_FOLDER").unwrap());
    let file = OutFile::text(folder.join("m.a"), "new library".to_owned());
    let pending = prepare(&Disk, file).unwrap();
    assert!(pending.temporary.path.exists());
    abandon();
    std::process::exit(7);
}
