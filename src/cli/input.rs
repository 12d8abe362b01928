//! Files that are read.

use crate::data::Source;
use crate::error::{Error, Result};
use std::fs::File;
use std::io;
use std::path::Path;

/// Opens and maps a file.
///
/// # Errors
/// [`Code::Io`](crate::error::Code::Io) if it cannot be read.
pub(super) fn map(path: &Path) -> Result<Source> {
    let fail = |error| Error::io("read", path, &error);
    let file = File::open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.is_dir() {
        return Err(fail(io::ErrorKind::IsADirectory.into()).help("give a file"));
    }
    Source::map(file).map_err(fail)
}
