//! All files of one build, together or not at all.
//!
//! Every file is written under a temporary name in its target's folder and synchronised with the disk; only then are the
//! files renamed, each at once in the place of the old one, and old ones are kept under second names until all are in
//! place. Whatever fails before the last rename is undone. A program that is killed leaves every file whole, old or
//! new, and temporary names beside them; one that is asked to end (Ctrl-C) removes those.

mod system;

use crate::data::CHUNK;
use crate::error::{Code, Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use system::{Disk, System};

/// Writes the contents of one file.
pub type Writer<'a> = Box<dyn FnOnce(&mut dyn Write) -> Result<()> + 'a>;

/// A file to be written.
pub struct OutFile<'a> {
    /// Where.
    pub path: PathBuf,
    /// Its contents, streamed.
    pub write: Writer<'a>,
    /// How many bytes will come at least; 0 if that is not known.
    pub expected: u64,
}

impl<'a> OutFile<'a> {
    /// A file whose contents `write` streams.
    pub fn new(path: impl Into<PathBuf>, write: impl FnOnce(&mut dyn Write) -> Result<()> + 'a) -> Self {
        OutFile {
            path: path.into(),
            write: Box::new(write),
            expected: 0,
        }
    }

    /// The same file with room made for `bytes` before it is written.
    pub fn expecting(mut self, bytes: u64) -> Self {
        self.expected = bytes;
        self
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
struct Pending<'s> {
    /// As the caller named it.
    path: PathBuf,
    /// Links resolved.
    target: PathBuf,
    temporary: Temporary<'s>,
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
    write_with(&Disk, files)
}

fn write_with(system: &dyn System, files: Vec<OutFile>) -> Result<Vec<Written>> {
    let mut pending: Vec<Pending> = Vec::with_capacity(files.len());
    for file in files {
        let next = prepare(system, file)?;
        if let Some(other) = pending.iter().find(|other| other.target == next.target) {
            let message = format!("{} and {} are the same file", other.path.display(), next.path.display());
            return Err(Error::new(Code::Usage, message).help("give the outputs different names"));
        }
        pending.push(next);
    }
    commit(system, pending)
}

/// Writes one file under a temporary name in its target's folder.
fn prepare<'s>(system: &'s dyn System, file: OutFile) -> Result<Pending<'s>> {
    let OutFile { path, write, expected } = file;
    let fail = |error: io::Error| Error::io("write", &path, &error);
    let target = resolve(&path);
    let known = match fs::metadata(&target) {
        Ok(metadata) if metadata.is_dir() => return Err(fail(io::ErrorKind::IsADirectory.into())),
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(fail(error)),
    };
    let device = known.as_ref().is_some_and(|metadata| !metadata.is_file());
    let folder = if device {
        std::env::temp_dir()
    } else {
        folder(&target).to_owned()
    };
    let (temporary, mut file) = Temporary::create(system, &folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if !folder.exists() => {
            fail(error).help(format!("the folder {} does not exist", folder.display()))
        }
        _ => fail(error),
    })?;
    file.reserve(expected).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => fail(error).help(format!("{expected} bytes are needed")),
        _ => fail(error),
    })?;
    let mut out = Counted {
        out: &mut *file,
        bytes: 0,
    };
    write(&mut out).map_err(|error| match error.code {
        Code::Io => error.at(path.display().to_string()),
        _ => error,
    })?;
    out.flush().map_err(fail)?;
    let bytes = out.bytes;
    file.end(bytes).map_err(fail)?;
    let kind = match known {
        None => Kind::New,
        Some(_) if device => Kind::Device,
        Some(known) if known.len() == bytes && equal(system, &temporary.path, &target).map_err(fail)? => Kind::Equal,
        Some(_) => Kind::Different,
    };
    // Before anything is replaced.
    if kind != Kind::Equal {
        file.sync().map_err(fail)?;
    }
    Ok(Pending {
        path,
        target,
        temporary,
        bytes,
        kind,
    })
}

/// Counts what is written.
struct Counted<'a> {
    out: &'a mut dyn system::NewFile,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The file that a path means, links resolved, whether it is there or not.
fn resolve(path: &Path) -> PathBuf {
    let missing = || {
        let folder = fs::canonicalize(folder(path)).ok()?;
        Some(folder.join(path.file_name()?))
    };
    let target = fs::canonicalize(path).ok().or_else(missing);
    target.unwrap_or_else(|| path.to_owned())
}

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// The temporary names that there are. Whoever puts files in place holds the lock, so that nobody ends the program in
/// between.
static TEMPORARIES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn temporaries() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all temporary files, for a program that is about to end. Files that are just being put in place are waited
/// for; nothing is put in place afterwards.
pub fn abandon() {
    let temporaries = temporaries();
    for path in temporaries.iter() {
        // There is nobody left to tell.
        let _ = fs::remove_file(path);
    }
    std::mem::forget(temporaries);
}

/// A temporary name; removed when dropped.
struct Temporary<'s> {
    system: &'s dyn System,
    path: PathBuf,
}

impl<'s> Temporary<'s> {
    /// A new file with the permissions of an ordinary one.
    fn create(system: &'s dyn System, folder: &Path) -> io::Result<(Self, Box<dyn system::NewFile>)> {
        loop {
            let temporary = Temporary::name(system, folder);
            match system.create(&temporary.path) {
                Ok(file) => return Ok((temporary, file)),
                // Another program's, perhaps of the same number long ago.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => temporary.forget(),
                Err(error) => {
                    temporary.forget();
                    return Err(error);
                }
            }
        }
    }

    /// A name that is probably free.
    fn name(system: &'s dyn System, folder: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".corerope-{}-{number}.tmp", std::process::id()));
        temporaries().insert(path.clone());
        Temporary { system, path }
    }

    /// The name is not this program's, or no more.
    fn forget(self) {
        temporaries().remove(&self.path);
        std::mem::forget(self);
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // A name that cannot be removed stays; what led here is what the user has to know.
        let _ = self.system.remove(&self.path);
        temporaries().remove(&self.path);
    }
}

/// Whether two files hold the same bytes, in bounded memory.
fn equal(system: &dyn System, a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (system.open(a)?, system.open(b)?);
    let (mut x, mut y) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let (n, m) = (fill(&mut *a, &mut x)?, fill(&mut *b, &mut y)?);
        if x[..n] != y[..m] {
            return Ok(false);
        }
        if n < CHUNK {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
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
struct Undo<'s> {
    target: PathBuf,
    /// The old file, `None` if there was none.
    old: Option<Temporary<'s>>,
}

/// Puts the files in place, or all old ones back.
fn commit<'s>(system: &'s dyn System, pending: Vec<Pending<'s>>) -> Result<Vec<Written>> {
    let mut undo: Vec<Undo> = Vec::new();
    // Second names of the old files first: nothing is replaced before all of them are there. Nothing can fail after the
    // last rename, so it needs none.
    let replaced = |p: &Pending| matches!(p.kind, Kind::New | Kind::Different);
    let last = pending.iter().rposition(replaced);
    let devices = pending.iter().any(|p| p.kind == Kind::Device);
    let mut old: Vec<Option<Temporary>> = Vec::with_capacity(pending.len());
    for (i, file) in pending.iter().enumerate() {
        let needed = file.kind == Kind::Different && (Some(i) != last || devices);
        let kept = if needed {
            keep(system, &file.target).map(Some)
        } else {
            Ok(None)
        };
        old.push(kept.map_err(|error| Error::io("write", &file.path, &error))?);
    }
    let mut folders = BTreeSet::new();
    let mut written = Vec::new();
    let mut through = Vec::new();
    let mut names = temporaries();
    for (file, old) in pending.into_iter().zip(old) {
        let Pending {
            path,
            target,
            temporary,
            bytes,
            kind,
        } = file;
        written.push(Written {
            path: path.clone(),
            bytes,
            changed: kind != Kind::Equal,
        });
        match kind {
            Kind::Equal => {
                drop(names);
                drop(temporary);
                names = temporaries();
            }
            Kind::Device => through.push((target, temporary)),
            Kind::New | Kind::Different => {
                if let Err(error) = system.rename(&temporary.path, &target) {
                    drop(names);
                    roll_back(system, undo);
                    return Err(Error::io("write", &path, &error));
                }
                names.remove(&temporary.path);
                std::mem::forget(temporary);
                folders.insert(folder(&target).to_owned());
                undo.push(Undo { target, old });
            }
        }
    }
    drop(names);
    for (target, temporary) in through {
        let copy = || -> io::Result<()> {
            let mut device = system.device(&target)?;
            io::copy(&mut system.open(&temporary.path)?, &mut device)?;
            device.flush()
        };
        if let Err(error) = copy() {
            roll_back(system, undo);
            return Err(Error::io("write", &target, &error));
        }
    }
    // All files are in place; this only says whether they will be after a power failure.
    for folder in folders {
        system
            .sync_folder(&folder)
            .map_err(|error| Error::io("synchronise", &folder, &error))?;
    }
    Ok(written)
}

/// A second name for the old file, so that it can come back.
fn keep<'s>(system: &'s dyn System, target: &Path) -> io::Result<Temporary<'s>> {
    loop {
        let place = Temporary::name(system, folder(target));
        match system.link(target, &place.path) {
            Ok(()) => return Ok(place),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => place.forget(),
            // File systems without links get a copy.
            Err(_) => {
                system.copy(target, &place.path)?;
                return Ok(place);
            }
        }
    }
}

/// Puts the old files back, last first. There is nothing better to do with a failure here than to go on.
fn roll_back(system: &dyn System, undo: Vec<Undo>) {
    for Undo { target, old } in undo.into_iter().rev() {
        match old {
            Some(old) => {
                if system.rename(&old.path, &target).is_ok() {
                    old.forget();
                }
            }
            None => drop(system.remove(&target)),
        }
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
