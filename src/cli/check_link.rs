//! `corerope check-link`.

use super::input;
use super::place::{parse, place_file};
use crate::error::{Code, Error, Result};
use crate::link::{self, Built, Checked};
use crate::place::Region;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  corerope build kws.tflite -o kws.a --place-file board.toml --report kws.json
  corerope check-link firmware.elf kws.json
      Whether every parameter, every kernel and the arena of kws are there once, where the rules
      want them, aligned, and not copied at start-up; and what the linker dropped.

  corerope check-link firmware.map kws.a --region RAM=0x20000000:320K:rw
      The same from the linker's map and the library itself, which knows no memories.

  corerope check-link firmware.elf kws.json vww.json --json | jq .findings
      Two models in one program, for scripts.

Exit codes: 0 all is well, 1 something is wrong, 2 wrong usage.";

/// Arguments of `corerope check-link`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The linked program (ELF, with symbols), or the map that GNU ld or lld wrote (-Map)
    #[arg(value_name = "PROGRAM")]
    program: PathBuf,

    /// What was built: the report of `corerope build --report`, or the library (.a, .o); one for each model
    #[arg(value_name = "BUILT", required = true)]
    built: Vec<PathBuf>,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,

    /// Print only what is wrong
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,

    /// Describe a memory of the machine, in front of those of the report: its name says what it is in the rules
    ///
    /// ACCESS is some of rwx, and rx if not given. Constants in a memory that is not written are read in place,
    /// wherever the image has them: flash may be mapped.
    #[arg(
        long = "region",
        visible_alias = "memory",
        value_name = "NAME=ORIGIN:LENGTH[:ACCESS]",
        value_parser = parse::<Region>
    )]
    regions: Vec<Region>,

    /// Take memories from the table [memory] of a place file, and the memory of each section from its rules
    #[arg(long = "place-file", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Arguments {
    /// Reads, compares and prints.
    pub fn run(self) -> Result<()> {
        let mut built = Vec::new();
        for path in &self.built {
            let at = |error: Error| error.at(path.display().to_string());
            built.push(link::built::read(input::map(path)?.bytes()).map_err(at)?);
        }
        let mut regions = self.regions.clone();
        if let Some(path) = &self.file {
            let file = place_file(path)?;
            regions.extend(file.memory);
            let named = file
                .rules
                .iter()
                .filter_map(|rule| Some((&rule.section, rule.memory.as_ref()?)));
            for (section, memory) in named {
                let items = built.iter_mut().flat_map(|built: &mut Built| &mut built.items);
                for item in items.filter(|item| item.memory.is_none() && item.section == *section) {
                    item.memory = Some(memory.clone());
                }
            }
        }
        let program = input::map(&self.program)?;
        let linked = link::read(program.bytes(), &built).map_err(|e| e.at(self.program.display().to_string()))?;
        let checked = link::check(&built, &linked, &regions);
        if !self.quiet {
            super::print(&if self.json { checked.json() } else { checked.text() })?;
        }
        failure(&checked).map_or(Ok(()), Err)
    }
}

/// All findings as one error.
fn failure(checked: &Checked) -> Option<Error> {
    let error = |finding: &link::Finding| {
        Error::new(Code::Link, format!("{} {}", finding.symbol, finding.message)).help(&finding.help)
    };
    Error::collect(checked.findings.iter().map(error).collect())
}
