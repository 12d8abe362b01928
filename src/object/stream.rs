//! What the object crate's low-level writers write through: nothing is held, errors are kept until the end.

use crate::data::{CHUNK, Contents};
use crate::error::{Code, Error, Result};
use ::object::write::{StreamingBuffer, WritableBuffer};
use std::io::{self, BufWriter, Write};

/// Buffered output that the writers see as a [`WritableBuffer`].
pub(super) type Stream<'a> = StreamingBuffer<BufWriter<&'a mut dyn Write>>;

/// A stream into `out`.
pub(super) fn stream(out: &mut dyn Write) -> Stream<'_> {
    StreamingBuffer::new(BufWriter::with_capacity(CHUNK, out))
}

/// Ends the stream: the first failure of a write, if any.
pub(super) fn finish(mut stream: Stream) -> Result<()> {
    stream.flush().map_err(|error| failed("write", &error))
}

/// A failed read or write; the caller knows the file.
pub(super) fn failed(action: &str, error: &io::Error) -> Error {
    Error::new(Code::Io, format!("cannot {action} the object: {error}"))
}

/// What the object crate refuses although the plan was checked.
pub(super) fn refused(error: &::object::write::Error) -> Error {
    Error::internal(format!("cannot lay out the object: {error}"))
}

/// Nothing is written: for sizes.
pub(super) struct Nothing;

impl WritableBuffer for Nothing {
    fn reserve(&mut self, _: u64) -> std::result::Result<(), ()> {
        Ok(())
    }
    fn write_bytes(&mut self, _: &[u8]) {}
    fn write_zeros(&mut self, _: u64) {}
}

/// Passes written bytes on to a closure.
struct Each<F>(F, u64);

impl<F: FnMut(&[u8])> Write for Each<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes);
        self.1 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Streams `contents` to `each`, and checks that they have the length that they promised: offsets depend on it.
pub(super) fn copy(contents: &Contents, name: &str, each: impl FnMut(&[u8])) -> Result<()> {
    let mut out = Each(each, 0);
    (contents.write_to(&mut out)).map_err(|error| failed("read the model for", &error).at(name))?;
    let promised = if matches!(contents, Contents::Zero(_)) {
        0
    } else {
        contents.len()
    };
    if out.1 != promised {
        let what = format!("the contents of {name} are {} bytes long instead of {promised}", out.1);
        return Err(Error::internal(what));
    }
    Ok(())
}
