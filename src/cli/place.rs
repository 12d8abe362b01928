//! Options of placement: rules and memories, on the command line and in a file.

use crate::error::{Code, Error, Result};
use crate::limits;
use crate::place::{PlaceFile, Region, Rule};
use clap::Args;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where things go.
#[derive(Args)]
pub(super) struct PlaceArgs {
    /// Put what matches PATTERN into a section of your own
    ///
    /// PATTERN is a glob (* ? [a-z]) on the names of tensors and kernels or the word `arena`; a comparison of the
    /// size, `size>64K`; a kind, `kind=weights` (bias, table, constant, code, arena); or several of these with `&`
    /// between them. The first rule that matches wins; a rule that matches nothing is an error. With
    /// `SECTION>MEMORY` the linker-script fragment sends the section to that memory; with `,align=N` behind it, what
    /// it takes is aligned to N bytes. Quote rules for the shell: --place 'kind=weights&size>4K=.qspi>QSPI,align=64'
    #[arg(long = "place", value_name = "PATTERN=SECTION", value_parser = parse::<Rule>)]
    rules: Vec<Rule>,

    /// Read rules and memories from a TOML file; rules on the command line come before those of the file
    ///
    /// A table [memory] describes memories: QSPI = { origin = 0x90000000, length = "16M", access = "rx" }, with
    /// existing = true for those that your linker script has already. Each [[place]] is a rule: name, kind and size
    /// (all that are given must hold), section, and, where wanted, memory and align.
    #[arg(long = "place-file", value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Describe a memory that rules name: the fragment defines it, and what goes there must fit
    ///
    /// ACCESS is some of rwx, and rx if not given: --region QSPI=0x90000000:16M --region SDRAM=0xc0000000:8M:rw
    #[arg(
        long = "region",
        value_name = "NAME=ORIGIN:LENGTH[:ACCESS]",
        value_parser = parse::<Region>
    )]
    regions: Vec<Region>,
}

/// For clap: what the user gave, or why it is none.
pub(super) fn parse<T: std::str::FromStr<Err = Error>>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|error: Error| match error.help {
        Some(help) => format!("{}; {help}", error.message),
        None => error.message,
    })
}

impl PlaceArgs {
    /// Memories and rules, those of the command line first.
    ///
    /// # Errors
    /// [`Code::Io`] for a file that cannot be read, [`Code::Limit`] for one that is too large, [`Code::Usage`] for what
    /// it should not say.
    pub fn read(&self) -> Result<(Vec<Region>, Vec<Rule>)> {
        let (mut regions, mut rules) = (self.regions.clone(), self.rules.clone());
        if let Some(path) = &self.file {
            let file = place_file(path)?;
            regions.extend(file.memory);
            rules.extend(file.rules);
        }
        Ok((regions, rules))
    }
}

/// Reads a file of rules and memories.
///
/// # Errors
/// As [`PlaceArgs::read`].
pub(super) fn place_file(path: &Path) -> Result<PlaceFile> {
    let fail = |error: &io::Error| Error::io("read", path, error);
    let mut text = Vec::new();
    let mut file = File::open(path)
        .map_err(|error| fail(&error))?
        .take(limits::PLACE_FILE_BYTES + 1);
    file.read_to_end(&mut text).map_err(|error| fail(&error))?;
    if text.len() as u64 > limits::PLACE_FILE_BYTES {
        let message = format!("{} is larger than {} bytes", path.display(), limits::PLACE_FILE_BYTES);
        return Err(Error::new(Code::Limit, message).help("use patterns instead of one rule for each name"));
    }
    let text = String::from_utf8(text)
        .map_err(|_| Error::new(Code::Usage, format!("{} is not text in UTF-8", path.display())))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    PlaceFile::parse(&name, &text)
}
