//! What the object crate's low-level writers write through: everything passes one buffer, nothing else is held, and the
//! first error is kept until the end.
//!
//! Every write begins at a multiple of a grain: file systems keep such pieces in whole large pages, and that is a third
//! of the time of a large file. Ranges of the model are read straight into the buffer.

use crate::data::{Bytes, CHUNK, Contents};
use crate::error::{Code, Error, Result};
use ::object::write::WritableBuffer;
use std::cell::RefCell;
use std::io::{self, Write};

/// What writes begin and end at multiples of, a divisor of the buffer's size; the last ends anywhere.
const GRAIN: usize = 64 << 10;

/// Output that several writers, one for each member of an archive, write through in turn.
pub(super) struct Output<'a>(RefCell<Inner<'a>>);

struct Inner<'a> {
    out: &'a mut dyn Write,
    /// [`CHUNK`] bytes, or none before the first write.
    buffer: Vec<u8>,
    /// How many of them wait.
    filled: usize,
    /// How many behind these are there already and wait only for a writer to name them: see [`Output::read`].
    placed: usize,
    error: Option<io::Error>,
}

impl<'a> Output<'a> {
    pub fn new(out: &'a mut dyn Write) -> Self {
        Output(RefCell::new(Inner {
            out,
            buffer: Vec::new(),
            filled: 0,
            placed: 0,
            error: None,
        }))
    }

    pub fn write(&self, bytes: &[u8]) {
        let inner = &mut *self.0.borrow_mut();
        if inner.placed > 0 {
            // Writers pass on what they are given: `read` looks whether this one did.
            inner.filled += bytes.len();
            inner.placed = 0;
            return;
        }
        inner.take(bytes);
    }

    /// Ends the output: the first failure of a write, if any.
    pub fn finish(&self) -> Result<()> {
        let inner = &mut *self.0.borrow_mut();
        inner.empty();
        match inner.error.take() {
            None => inner.out.flush().map_err(|error| failed("write", &error)),
            Some(error) => Err(failed("write", &error)),
        }
    }

    /// Streams `contents` to `each`, which passes them on to a writer of this output, and checks that they have the
    /// length that they promised: offsets depend on it.
    ///
    /// After a failed write nothing more is read; [`Output::finish`] says what failed.
    pub fn copy(&self, contents: &Contents, name: &str, each: impl FnMut(&[u8])) -> Result<()> {
        let mut to = Each {
            each,
            output: self,
            done: 0,
        };
        let read = match contents {
            Contents::Bytes(bytes) if bytes.in_memory().is_none() => self.read(bytes, &mut to),
            other => other.write_to(&mut to),
        };
        let done = to.done;
        if self.0.borrow().error.is_some() {
            return Err(Error::new(Code::Io, "the object was not written to its end"));
        }
        read.map_err(|error| failed("read the model for", &error).at(name))?;
        let promised = if matches!(contents, Contents::Zero(_)) {
            0
        } else {
            contents.len()
        };
        if done != promised {
            let what = format!("the contents of {name} are {done} bytes long instead of {promised}");
            return Err(Error::internal(what));
        }
        Ok(())
    }

    /// Reads a range of a file into the buffer, piece by piece, and shows each piece to the writer, whose own write of it
    /// then is what counts it.
    fn read(&self, bytes: &Bytes, to: &mut dyn Write) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let (mut buffer, start) = {
                let inner = &mut *self.0.borrow_mut();
                inner.make_room();
                (std::mem::take(&mut inner.buffer), inner.filled)
            };
            let n = (bytes.len() - done).min((CHUNK - start) as u64) as usize;
            let piece = &mut buffer[start..start + n];
            let read = bytes.read_at(done, piece);
            self.0.borrow_mut().placed = n;
            let written = read.and_then(|()| to.write_all(piece));
            let inner = &mut *self.0.borrow_mut();
            (inner.buffer, inner.placed) = (buffer, 0);
            written?;
            if inner.filled != start + n {
                return Err(io::Error::other("the writer did not pass on what was read"));
            }
            done += n as u64;
        }
        Ok(())
    }

    /// The error of a write, if one failed, instead of what followed from it.
    pub fn cause(&self, result: Result<()>) -> Result<()> {
        let finished = self.finish();
        match result {
            Ok(()) => finished,
            Err(error) => Err(finished.err().unwrap_or(error)),
        }
    }
}

impl Inner<'_> {
    /// Into the buffer; the middle of what is large passes by, in whole grains.
    fn take(&mut self, mut bytes: &[u8]) {
        if bytes.len() >= 2 * GRAIN {
            let (first, rest) = bytes.split_at(self.filled.next_multiple_of(GRAIN) - self.filled);
            self.gather(first);
            self.empty();
            let (whole, last) = rest.split_at(rest.len() / GRAIN * GRAIN);
            if self.error.is_none() {
                self.error = self.out.write_all(whole).err();
            }
            bytes = last;
        }
        self.gather(bytes);
    }

    /// Into the buffer, which is written when it is full.
    fn gather(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.error.is_none() {
            self.make_room();
            let n = bytes.len().min(CHUNK - self.filled);
            let (now, rest) = bytes.split_at(n);
            self.buffer[self.filled..][..n].copy_from_slice(now);
            self.filled += n;
            bytes = rest;
        }
    }

    /// Leaves room for at least one byte.
    fn make_room(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = vec![0; CHUNK];
        }
        if self.filled == CHUNK {
            self.empty();
        }
    }

    fn empty(&mut self) {
        if self.error.is_none() && self.filled > 0 {
            self.error = self.out.write_all(&self.buffer[..self.filled]).err();
        }
        self.filled = 0;
    }
}

/// What a writer of the object crate sees: an output, or nothing where only sizes are asked for.
pub(super) struct Pipe<'a>(pub Option<&'a Output<'a>>);

impl WritableBuffer for Pipe<'_> {
    fn reserve(&mut self, _: u64) -> std::result::Result<(), ()> {
        Ok(())
    }
    fn write_bytes(&mut self, bytes: &[u8]) {
        if let Some(output) = self.0 {
            output.write(bytes);
        }
    }
}

/// Passes written bytes on to a closure.
struct Each<'a, 'o, F> {
    each: F,
    output: &'a Output<'o>,
    done: u64,
}

impl<F: FnMut(&[u8])> Write for Each<'_, '_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.each)(bytes);
        self.done += bytes.len() as u64;
        if self.output.0.borrow().error.is_some() {
            return Err(io::Error::other("the output has failed"));
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A failed read or write; the caller knows the file.
pub(super) fn failed(action: &str, error: &io::Error) -> Error {
    Error::new(Code::Io, format!("cannot {action} the object: {error}"))
}

/// What the object crate refuses although the plan was checked.
pub(super) fn refused(error: &::object::write::Error) -> Error {
    Error::internal(format!("cannot lay out the object: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Source, Transform};
    use std::sync::Arc;

    /// What arrives, and where each write begins.
    #[derive(Default)]
    struct Recorded {
        bytes: Vec<u8>,
        starts: Vec<usize>,
    }

    impl Write for Recorded {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.starts.push(self.bytes.len());
            self.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Bytes that come in pieces of a size.
    #[derive(Debug)]
    struct Made(Vec<u8>, usize);

    impl Transform for Made {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
            self.0.chunks(self.1).try_for_each(|piece| out.write_all(piece))
        }
    }

    #[test]
    fn every_write_begins_at_a_grain() {
        let bytes = |seed: usize, len: usize| (0..len).map(|i| (i * 7 + i / 251 + seed) as u8).collect::<Vec<u8>>();
        let all = bytes(1, 3 << 20);
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&all).expect("room");
        let source = Arc::new(Source::map(file).expect("a file can be mapped"));
        let range = |start: u64, len: u64| Contents::Bytes(Bytes::new(source.clone(), start..start + len).unwrap());
        let made = |seed, len, piece| Contents::Transform(Arc::new(Made(bytes(seed, len), piece)));
        let contents = [
            range(5, 100),
            made(2, 300_000, 100_000),
            range(0, 1_000_000),
            Contents::Bytes(Bytes::from_vec(bytes(3, 70_000))),
            made(4, 1_000_000, 400_000),
            range(77, 70_000),
            range(78, 2_000_000),
            made(5, 131_072, 131_072),
        ];
        let (mut recorded, mut expected) = (Recorded::default(), Vec::new());
        let output = Output::new(&mut recorded);
        for contents in &contents {
            output.write(b"head");
            expected.extend_from_slice(b"head");
            output
                .copy(contents, "it", |bytes| output.write(bytes))
                .expect("copied");
            contents.write_to(&mut expected).expect("a vector");
        }
        output.finish().expect("written");
        assert!(recorded.bytes == expected);
        let whole = recorded
            .starts
            .iter()
            .filter(|start| start.is_multiple_of(GRAIN))
            .count();
        assert_eq!(whole, recorded.starts.len(), "{:?}", recorded.starts);
    }
}
