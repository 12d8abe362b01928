//! The file system, as far as a build writes to it. Tests put one in its place whose operations fail.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Operations on files.
pub(super) trait System: Sync {
    /// Creates a file that must not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>>;
    /// Opens a device or a pipe for writing.
    fn device(&self, path: &Path) -> io::Result<Box<dyn Write>>;
    /// Replaces `to` by `from`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    fn link(&self, file: &Path, name: &Path) -> io::Result<()>;
    /// Copies a file, for file systems without links.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes sure that the names in a folder are on the disk.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// A file that is being written.
pub(super) trait NewFile: Write {
    /// Asks for room for `bytes`: a full disk says so at once, and blocks are found in one go instead of one by one. The
    /// file may be that long afterwards.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;
    /// Cuts the file behind what was written.
    fn end(&mut self, bytes: u64) -> io::Result<()>;
    /// Makes sure that its bytes are on the disk. Errors that the system delays (full disks, quotas, network shares) come
    /// here.
    fn sync(&mut self) -> io::Result<()>;
}

/// The real one.
pub(super) struct Disk;

impl System for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(File::options().write(true).create_new(true).open(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(path)?))
    }
    fn device(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        Ok(Box::new(File::options().write(true).open(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        fs::hard_link(file, name)
    }
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::copy(from, to).map(drop)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        if cfg!(not(unix)) {
            return Ok(());
        }
        match File::open(path)?.sync_all() {
            // Some file systems have nothing to do.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            result => result,
        }
    }
}

impl NewFile for File {
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if bytes > 0 {
            use rustix::{fs::FallocateFlags, io::Errno};
            return match rustix::fs::fallocate(&*self, FallocateFlags::empty(), 0, bytes) {
                // What cannot be promised may still be possible.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => Ok(()),
                result => Ok(result?),
            };
        }
        let _ = bytes;
        Ok(())
    }
    fn end(&mut self, bytes: u64) -> io::Result<()> {
        if self.metadata()?.len() != bytes {
            self.set_len(bytes)?;
        }
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
