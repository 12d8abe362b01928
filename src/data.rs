//! Bytes of parameters: where they come from, without holding them.
//!
//! A constant is a range of the model file or a few bytes made at build time. Large ones are streamed:
//! [`Bytes::read_at`] reads through the file descriptor, so resident memory does not grow with the model.

mod layout;

pub use layout::{Layout, Scalar};

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The model file, mapped, or a model in memory (tests, standard input).
#[derive(Debug)]
pub enum Source {
    /// A mapped file and its descriptor.
    Mapped {
        /// The whole file.
        map: memmap2::Mmap,
        /// For reads that must not make pages of the map resident.
        file: File,
        /// Beginnings of ranges that were asked for, by offset: several stages want the same.
        samples: Mutex<HashMap<u64, Sample>>,
    },
    /// Bytes in memory.
    Memory(Vec<u8>),
}

impl Source {
    /// Maps a file.
    ///
    /// # Errors
    /// The operating system's, if the file cannot be mapped.
    pub fn map(file: File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Source::Memory(Vec::new()));
        }
        // SAFETY: the map is read-only and private to this process. Another process that truncates or rewrites the
        // file meanwhile can make reads fault or change; every tool that maps its input shares that condition, and
        // the alternative is a copy of the whole model.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Source::Mapped {
            map,
            file,
            samples: Mutex::default(),
        })
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Source::Mapped { map, .. } => map,
            Source::Memory(bytes) => bytes,
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Source::Mapped { file, .. } => read_exact_at(file, offset, buffer),
            Source::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        let n = file.seek_read(buffer, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[n..];
        offset += n as u64;
    }
    Ok(())
}

/// A range of a [`Source`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct Bytes {
    source: Arc<Source>,
    start: u64,
    len: u64,
}

impl Bytes {
    /// A range of `source`, or `None` if it is not inside.
    pub fn new(source: Arc<Source>, range: Range<u64>) -> Option<Self> {
        let len = range.end.checked_sub(range.start)?;
        (range.end <= source.bytes().len() as u64).then_some(Bytes {
            source,
            start: range.start,
            len,
        })
    }

    /// Bytes made at build time.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let len = bytes.len() as u64;
        Bytes {
            source: Arc::new(Source::Memory(bytes)),
            start: 0,
            len,
        }
    }

    /// All of `source`.
    pub fn whole(source: Arc<Source>) -> Self {
        let len = source.bytes().len() as u64;
        Bytes { source, start: 0, len }
    }

    /// A range of these bytes, or `None` if it is not inside.
    pub fn slice(&self, range: Range<u64>) -> Option<Self> {
        let len = range.end.checked_sub(range.start)?;
        (range.end <= self.len).then(|| Bytes {
            source: self.source.clone(),
            start: self.start + range.start,
            len,
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether both are the same range of the same source.
    pub fn is_same(&self, other: &Bytes) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && (self.start, self.len) == (other.start, other.len)
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes themselves. For a mapped file this makes their pages resident: for small constants and for the
    /// evaluator. Writers of objects use [`Bytes::read_at`].
    pub fn as_slice(&self) -> &[u8] {
        // In range by construction; a mapped file's length is usize.
        &self.source.bytes()[self.start as usize..(self.start + self.len) as usize]
    }

    /// The bytes, if they were made at build time or came through standard input.
    pub fn in_memory(&self) -> Option<&[u8]> {
        matches!(*self.source, Source::Memory(_)).then(|| self.as_slice())
    }

    /// Reads `buffer.len()` bytes from `offset` within this range, without making pages of the map resident.
    ///
    /// # Errors
    /// The operating system's, and `UnexpectedEof` outside the range.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match offset.checked_add(buffer.len() as u64) {
            Some(end) if end <= self.len => self.source.read_at(self.start + offset, buffer),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The first bytes: as many as there are, at most [`SAMPLE`].
    ///
    /// # Errors
    /// Those of reading.
    pub fn sample(&self) -> io::Result<Sample> {
        let known = match &*self.source {
            Source::Mapped { samples, .. } if self.len >= SAMPLE as u64 => Some(samples),
            _ => None,
        };
        let known = known.map(|known| known.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(sample) = known.as_ref().and_then(|known| known.get(&self.start)) {
            return Ok(*sample);
        }
        let mut sample = [0; SAMPLE];
        let len = self.len.min(SAMPLE as u64);
        self.read_at(0, &mut sample[..len as usize])?;
        if let Some(mut known) = known {
            known.insert(self.start, sample);
        }
        Ok(sample)
    }

    /// Whether two ranges hold the same bytes, in bounded memory. Reads no further than the first difference.
    ///
    /// # Errors
    /// Those of reading.
    pub fn equal(&self, other: &Bytes) -> io::Result<bool> {
        if self.len != other.len {
            return Ok(false);
        }
        // Most of what differs does so at once.
        let mut size = 4096;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let mut done = 0;
        while done < self.len {
            let n = (self.len - done).min(size as u64) as usize;
            a.resize(n, 0);
            b.resize(n, 0);
            self.read_at(done, &mut a)?;
            other.read_at(done, &mut b)?;
            if a != b {
                return Ok(false);
            }
            done += n as u64;
            size = CHUNK;
        }
        Ok(true)
    }

    /// Writes the bytes to `out` in chunks.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        if let Source::Memory(_) = &*self.source {
            return out.write_all(self.as_slice());
        }
        let mut buffer = vec![0; self.len.min(CHUNK as u64) as usize];
        let mut done = 0;
        while done < self.len {
            let n = (self.len - done).min(CHUNK as u64) as usize;
            self.read_at(done, &mut buffer[..n])?;
            out.write_all(&buffer[..n])?;
            done += n as u64;
        }
        Ok(())
    }
}

/// Bytes of a [`Sample`].
pub const SAMPLE: usize = 64;

/// What tells most different contents apart at the cost of one small read: their first bytes, or those of what they are
/// made from. Short ones are filled up with zeros.
pub type Sample = [u8; SAMPLE];

/// Size in bytes of the pieces in which parameters are streamed.
pub const CHUNK: usize = 256 << 10;

/// A layout transform whose result is streamed: packed weights, folded biases.
pub trait Transform: Send + Sync + std::fmt::Debug {
    /// Exact size of the result in bytes.
    fn len(&self) -> u64;
    /// Whether the result is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Writes exactly [`Transform::len`] bytes, the same at every call, holding only a bounded piece in memory.
    ///
    /// # Errors
    /// Those of reading the source and of writing.
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()>;
    /// The bytes, if they were made at build time.
    fn in_memory(&self) -> Option<&[u8]> {
        None
    }

    /// What the bytes mean, for debuggers; as long as the bytes. Without it they are bytes.
    fn layout(&self) -> Option<Layout> {
        None
    }

    /// A cheap sample: transforms of equal results and of one kind must have equal samples. Without one of its own, a
    /// transform is told apart by its length alone.
    ///
    /// # Errors
    /// Those of reading the source.
    fn sample(&self) -> io::Result<Sample> {
        Ok([0; SAMPLE])
    }
}

/// Where the bytes of a section or a parameter come from.
#[derive(Clone, Debug)]
pub enum Contents {
    /// A range of the model file, or bytes in memory, unchanged.
    Bytes(Bytes),
    /// A streamed transform.
    Transform(Arc<dyn Transform>),
    /// Zeros that take no space in the file (`.bss`).
    Zero(u64),
}

impl Contents {
    /// The bytes, if they were made at build time.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match self {
            Contents::Bytes(bytes) => bytes.in_memory(),
            Contents::Transform(transform) => transform.in_memory(),
            Contents::Zero(_) => None,
        }
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Contents::Bytes(bytes) => bytes.len(),
            Contents::Transform(transform) => transform.len(),
            Contents::Zero(len) => *len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its [`Sample`].
    ///
    /// # Errors
    /// Those of reading.
    pub fn sample(&self) -> io::Result<Sample> {
        match self {
            Contents::Bytes(bytes) => bytes.sample(),
            Contents::Transform(transform) => transform.sample(),
            Contents::Zero(_) => Ok([0; SAMPLE]),
        }
    }

    /// Streams the bytes; nothing for [`Contents::Zero`].
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Contents::Bytes(bytes) => bytes.write_to(out),
            Contents::Transform(transform) => transform.write_to(out),
            Contents::Zero(_) => Ok(()),
        }
    }
}
