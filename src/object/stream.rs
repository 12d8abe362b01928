//! What the object crate's low-level writers write through: small pieces are gathered, large ones pass, nothing else is
//! held, and the first error is kept until the end.

use crate::data::{CHUNK, Contents};
use crate::error::{Code, Error, Result};
use ::object::write::WritableBuffer;
use std::cell::RefCell;
use std::io::{self, Write};

/// Pieces from this size on are not copied once more.
const DIRECT: usize = 32 << 10;

/// Output that several writers, one for each member of an archive, write through in turn.
pub(super) struct Output<'a>(RefCell<Inner<'a>>);

struct Inner<'a> {
    out: &'a mut dyn Write,
    /// Small pieces that wait, at most [`CHUNK`] bytes.
    waiting: Vec<u8>,
    error: Option<io::Error>,
    /// For reading contents.
    scratch: Vec<u8>,
}

impl<'a> Output<'a> {
    pub fn new(out: &'a mut dyn Write) -> Self {
        Output(RefCell::new(Inner {
            out,
            waiting: Vec::new(),
            error: None,
            scratch: Vec::new(),
        }))
    }

    pub fn write(&self, bytes: &[u8]) {
        let inner = &mut *self.0.borrow_mut();
        if inner.error.is_some() {
            return;
        }
        if bytes.len() < DIRECT {
            if inner.waiting.len() + bytes.len() > CHUNK {
                inner.empty();
            }
            inner.waiting.extend_from_slice(bytes);
            return;
        }
        inner.empty();
        if inner.error.is_none() {
            inner.error = inner.out.write_all(bytes).err();
        }
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
        let mut scratch = std::mem::take(&mut self.0.borrow_mut().scratch);
        let mut to = Each {
            each,
            output: self,
            done: 0,
        };
        let read = match contents {
            Contents::Bytes(bytes) => bytes.write_through(&mut scratch, &mut to),
            other => other.write_to(&mut to),
        };
        let done = to.done;
        self.0.borrow_mut().scratch = scratch;
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
    fn empty(&mut self) {
        if self.error.is_none() && !self.waiting.is_empty() {
            self.error = self.out.write_all(&self.waiting).err();
        }
        self.waiting.clear();
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
