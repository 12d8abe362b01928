//! All files of one build, together or not at all.

use crate::data::CHUNK;
use crate::error::{Code, Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile};

/// Writes the contents of one file.
pub type Writer<'a> = Box<dyn FnOnce(&mut dyn Write) -> Result<()> + 'a>;

/// A file to be written.
pub struct OutFile<'a> {
    /// Where.
    pub path: PathBuf,
    /// Its contents, streamed.
    pub write: Writer<'a>,
}

impl<'a> OutFile<'a> {
    /// A file whose contents `write` streams.
    pub fn new(path: impl Into<PathBuf>, write: impl FnOnce(&mut dyn Write) -> Result<()> + 'a) -> Self {
        OutFile {
            path: path.into(),
            write: Box::new(write),
        }
    }

    /// A file of text.
    pub fn text(path: impl Into<PathBuf>, text: String) -> Self {
        let path = path.into();
        let name = path.clone();
        OutFile::new(path, move |out| {
            out.write_all(text.as_bytes())
                .map_err(|error| Error::io("write", &name, &error))
        })
    }
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it was new or different; an equal file is left alone, with its time stamps.
    pub changed: bool,
}

/// A finished file that waits under another name.
struct Pending {
    /// As the caller named it.
    path: PathBuf,
    /// Links resolved.
    target: PathBuf,
    temporary: NamedTempFile,
    bytes: u64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing is there.
    New,
    /// A regular file with the same bytes.
    Equal,
    /// A regular file with other bytes.
    Different,
    /// A device or a pipe: written through, never replaced.
    Device,
}

/// Writes all files beside their targets, then puts them in place. On any failure the old files stay as they were and
/// nothing else is left.
///
/// # Errors
/// [`Code::Io`] if a file cannot be written, [`Code::Usage`] if two of them are the same file; what the writers report.
pub fn write_all(files: Vec<OutFile>) -> Result<Vec<Written>> {
    let mut pending: Vec<Pending> = Vec::with_capacity(files.len());
    for file in files {
        let next = prepare(file)?;
        if let Some(other) = pending.iter().find(|other| other.target == next.target) {
            let message = format!("{} and {} are the same file", other.path.display(), next.path.display());
            return Err(Error::new(Code::Usage, message).help("give the outputs different names"));
        }
        pending.push(next);
    }
    commit(pending)
}

/// Writes one file under a temporary name in its target's folder.
fn prepare(file: OutFile) -> Result<Pending> {
    let OutFile { path, write } = file;
    let fail = |error: io::Error| Error::io("write", &path, &error);
    let target = resolve(&path);
    let known = match fs::metadata(&target) {
        Ok(metadata) if metadata.is_dir() => return Err(fail(io::ErrorKind::IsADirectory.into())),
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(fail(error)),
    };
    let device = known.as_ref().is_some_and(|metadata| !metadata.is_file());
    let folder = match target.parent() {
        _ if device => std::env::temp_dir(),
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut temporary = temporary(&folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if !folder.exists() => {
            fail(error).help(format!("the folder {} does not exist", folder.display()))
        }
        _ => fail(error),
    })?;
    let mut out = BufWriter::with_capacity(CHUNK, temporary.as_file_mut());
    write(&mut out)?;
    out.flush().map_err(fail)?;
    drop(out);
    let bytes = temporary.as_file().metadata().map_err(fail)?.len();
    let kind = match known {
        None => Kind::New,
        Some(_) if device => Kind::Device,
        Some(known) if known.len() == bytes && equal(temporary.path(), &target).map_err(fail)? => Kind::Equal,
        Some(_) => Kind::Different,
    };
    // Errors that the system delays (full disks, quotas, network shares) come here, before anything is replaced.
    if kind != Kind::Equal {
        temporary.as_file().sync_all().map_err(fail)?;
    }
    Ok(Pending {
        path,
        target,
        temporary,
        bytes,
        kind,
    })
}

/// The file that a path means, links resolved, whether it is there or not.
fn resolve(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let missing = || {
        let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()?;
        Some(folder.join(path.file_name()?))
    };
    let target = fs::canonicalize(path).ok().or_else(missing);
    target.unwrap_or_else(|| path.to_owned())
}

/// A temporary file with the permissions of an ordinary new file; removed when dropped.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(".corerope-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(plain)
}

/// The operating system's own error. What wraps it adds the temporary name, which differs at every run.
fn plain(error: io::Error) -> io::Error {
    let text = error.to_string();
    match text.split_once(" at path ") {
        Some((text, _)) => io::Error::new(error.kind(), text),
        None => error,
    }
}

/// Whether two files hold the same bytes, in bounded memory.
fn equal(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut x, mut y) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let (n, m) = (fill(&mut a, &mut x)?, fill(&mut b, &mut y)?);
        if x[..n] != y[..m] {
            return Ok(false);
        }
        if n < CHUNK {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

/// What has to be undone if a later file fails.
struct Undo {
    target: PathBuf,
    /// The old file, `None` if there was none. Removes itself when dropped.
    old: Option<tempfile::TempPath>,
}

/// Puts the files in place, or all old ones back.
fn commit(pending: Vec<Pending>) -> Result<Vec<Written>> {
    let mut undo: Vec<Undo> = Vec::new();
    let mut written = Vec::new();
    let mut devices = Vec::new();
    let last = pending
        .iter()
        .rposition(|p| matches!(p.kind, Kind::New | Kind::Different));
    for (i, file) in pending.into_iter().enumerate() {
        let changed = file.kind != Kind::Equal;
        let Pending {
            path,
            target,
            temporary,
            bytes,
            kind,
        } = file;
        let result = match kind {
            Kind::Equal => Ok(()),
            Kind::Device => {
                devices.push((target, temporary));
                Ok(())
            }
            // Nothing can fail after the last: its rename alone decides, and no old file need be kept for it.
            _ if Some(i) == last => temporary.persist(&target).map(drop).map_err(|error| error.error),
            _ => keep(&target, kind).and_then(|old| {
                temporary.persist(&target).map_err(|error| error.error)?;
                undo.push(Undo { target, old });
                Ok(())
            }),
        };
        if let Err(error) = result {
            roll_back(undo);
            return Err(Error::io("write", &path, &error));
        }
        written.push(Written { path, bytes, changed });
    }
    for (target, mut temporary) in devices {
        let mut copy = || -> io::Result<()> {
            io::Seek::rewind(&mut temporary)?;
            let mut device = fs::OpenOptions::new().write(true).open(&target)?;
            io::copy(&mut temporary, &mut device)?;
            device.flush()
        };
        if let Err(error) = copy() {
            roll_back(undo);
            return Err(Error::io("write", &target, &error));
        }
    }
    Ok(written)
}

/// A second name for the old file, so that it can come back.
fn keep(target: &Path, kind: Kind) -> io::Result<Option<tempfile::TempPath>> {
    if kind == Kind::New {
        return Ok(None);
    }
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    let place = temporary(folder.unwrap_or(Path::new(".")))?.into_temp_path();
    // A link is made under a free name; file systems without links get a copy.
    fs::remove_file(&place)?;
    if fs::hard_link(target, &place).is_err() {
        fs::copy(target, &place)?;
    }
    Ok(Some(place))
}

/// Puts the old files back, last first. There is nothing better to do with a failure here than to go on.
fn roll_back(undo: Vec<Undo>) {
    for Undo { target, old } in undo.into_iter().rev() {
        match old {
            Some(old) => drop(old.persist(&target)),
            None => drop(fs::remove_file(&target)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn read(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join(name)).unwrap()
    }

    fn text<'a>(folder: &Path, name: &str, text: &str) -> OutFile<'a> {
        OutFile::text(folder.join(name), text.to_owned())
    }

    #[test]
    fn new_files_appear_together() {
        let folder = tempfile::tempdir().unwrap();
        let written = write_all(vec![text(folder.path(), "a", "1"), text(folder.path(), "b", "22")]).unwrap();
        assert_eq!(names(folder.path()), ["a", "b"]);
        assert_eq!(read(folder.path(), "b"), "22");
        assert!(written.iter().all(|file| file.changed));
        assert_eq!(written[1].bytes, 2);
    }

    #[test]
    fn a_writer_that_fails_leaves_the_old_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("a"), "old").unwrap();
        let broken = OutFile::new(path.join("b"), |out| {
            out.write_all(b"half").unwrap();
            Err(Error::internal("broken"))
        });
        let error = write_all(vec![text(path, "a", "new"), broken]).unwrap_err();
        assert_eq!(error.message, "broken");
        assert_eq!(names(path), ["a"]);
        assert_eq!(read(path, "a"), "old");
    }

    #[test]
    fn a_rename_that_fails_brings_the_old_files_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("a"), "old").unwrap();
        let mut pending: Vec<Pending> = ["a", "new", "c", "d"]
            .into_iter()
            .map(|name| prepare(text(path, name, "fresh")).unwrap())
            .collect();
        // A folder that appears between writing and renaming.
        fs::create_dir(path.join("c")).unwrap();
        fs::write(path.join("c/inside"), "").unwrap();
        assert!(pending.iter_mut().all(|file| file.bytes == 5));
        let error = commit(pending).unwrap_err();
        assert_eq!(error.code, Code::Io);
        assert_eq!(names(path), ["a", "c"]);
        assert_eq!(read(path, "a"), "old");
    }

    #[test]
    fn unchanged_files_keep_their_time_stamps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write_all(vec![text(path, "a", "same"), text(path, "b", "old")]).unwrap();
        let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        for name in ["a", "b"] {
            File::options()
                .write(true)
                .open(path.join(name))
                .unwrap()
                .set_modified(past)
                .unwrap();
        }
        let written = write_all(vec![text(path, "a", "same"), text(path, "b", "new")]).unwrap();
        assert_eq!(
            written.iter().map(|file| file.changed).collect::<Vec<_>>(),
            [false, true]
        );
        let time = |name: &str| fs::metadata(path.join(name)).unwrap().modified().unwrap();
        assert_eq!(time("a"), past);
        assert_ne!(time("b"), past);
        assert_eq!(names(path), ["a", "b"]);
    }

    #[test]
    fn files_of_many_chunks_are_compared_to_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        let bytes = |last: u8| {
            let mut bytes = vec![7; 2 * CHUNK];
            *bytes.last_mut().unwrap() = last;
            bytes
        };
        let put = |last: u8| {
            let write = OutFile::new(&path, move |out| {
                out.write_all(&bytes(last)).unwrap();
                Ok(())
            });
            write_all(vec![write]).unwrap()[0].changed
        };
        assert_eq!([put(1), put(1), put(2)], [true, false, true]);
    }

    #[test]
    fn one_file_twice_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_all(vec![text(folder.path(), "a", "1"), text(folder.path(), "./a", "2")]).unwrap_err();
        assert_eq!(error.code, Code::Usage, "{error}");
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn folders_that_are_missing_or_in_the_way_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_all(vec![text(folder.path(), "missing/a", "")]).unwrap_err();
        assert!(
            error.help.as_ref().unwrap().contains("missing does not exist"),
            "{error}"
        );
        assert!(!error.message.contains(".corerope"), "{error}");
        fs::create_dir(folder.path().join("d")).unwrap();
        let error = write_all(vec![text(folder.path(), "d", "")]).unwrap_err();
        assert!(error.message.contains("is a directory"), "{error}");
        assert_eq!(names(folder.path()), ["d"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_devices_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("real"), "old").unwrap();
        std::os::unix::fs::symlink("real", path.join("link")).unwrap();
        std::os::unix::fs::symlink("/dev/null", path.join("null")).unwrap();
        write_all(vec![text(path, "link", "new"), text(path, "null", "gone")]).unwrap();
        assert!(fs::symlink_metadata(path.join("link")).unwrap().is_symlink());
        assert_eq!(read(path, "real"), "new");
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert_eq!(names(path), ["link", "null", "real"]);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_ordinary_files() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("plain"), "").unwrap();
        write_all(vec![text(path, "out", "")]).unwrap();
        let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("out"), mode("plain"));
    }
}
