//! Options of placement: rules and memories, on the command line and in a file.

use crate::error::{Code, Error, Result};
use crate::limits;
use crate::place::{Given, PlaceFile, Pool, Region, Rule, pools};
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
    /// existing = true for those that your linker script has already, and speed = 1 (2, …) for those of --memory, use = "48K"
    /// where the model may not have all of it. Each [[place]] is a rule: name, kind and size
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

    /// Divide the arena between memories, the fastest first: --memory dtcm=64K,sram=256K,sdram=8M
    ///
    /// What lies between the layers goes to the first memory that has room while it is needed, what is accessed most for
    /// each byte before the rest; rows of one tensor stay together. Each memory has an arena of its own, MODEL_arena_dtcm
    /// in .bss.MODEL.arena.dtcm and so on; with --arena caller, a run takes a pointer to each. BYTES are those that the
    /// model may use; they may be left out where --region describes a memory of that name, and the fragment then sends
    /// the arena there. What does not fit is an error.
    ///
    /// With :r behind the bytes, a memory is for parameters: --memory flash=1M:r,qspi=16M:r puts those that are read
    /// most for each byte into flash and what does not fit there into qspi, where they are read in place. Parameters
    /// are never copied into memories that are written: that is the start-up code's to do, --place 'NAME=.data.x'
    /// asks for it.
    #[arg(
        long = "memory",
        value_name = "NAME=BYTES[:r]",
        value_delimiter = ',',
        value_parser = parse::<Given>
    )]
    memories: Vec<Given>,
}

/// What these options say together.
pub(super) struct Placed {
    /// Memories that are described.
    pub regions: Vec<Region>,
    /// Rules, those of the command line first.
    pub rules: Vec<Rule>,
    /// Memories that buffers and parameters are divided between.
    pub pools: Vec<Pool>,
}

/// For clap: what the user gave, or why it is none.
pub(super) fn parse<T: std::str::FromStr<Err = Error>>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|error: Error| match error.help {
        Some(help) => format!("{}; {help}", error.message),
        None => error.message,
    })
}

impl PlaceArgs {
    /// Memories and rules, those of the command line first. Memories with a speed in the file count where the command
    /// line names none.
    ///
    /// # Errors
    /// [`Code::Io`] for a file that cannot be read, [`Code::Limit`] for one that is too large, [`Code::Usage`] for what
    /// it should not say.
    pub fn read(&self) -> Result<Placed> {
        let (mut regions, mut rules) = (self.regions.clone(), self.rules.clone());
        let mut memories = self.memories.clone();
        if let Some(path) = &self.file {
            let file = place_file(path)?;
            regions.extend(file.memory);
            rules.extend(file.rules);
            if memories.is_empty() {
                memories = file.pools;
            }
        }
        let pools = pools(&memories, &regions)?;
        Ok(Placed { regions, rules, pools })
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
