//! Options that several subcommands share.

use super::input;
use super::place::PlaceArgs;
use super::progress::Progress;
use crate::build::{self, Build, Options};
use crate::data::Source;
use crate::error::{Code, Error, Result};
use crate::harness::default_runner;
use crate::kernels::entry::ArenaKind;
use crate::limits;
use crate::names;
use crate::plan::Io;
use crate::target::Target;
use clap::{Args, ValueEnum};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The model.
#[derive(Args, Clone)]
pub(super) struct ModelArgs {
    /// The model: a TensorFlow Lite file, or `-` for standard input
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// Prefix of all symbols, types and macros [default: the model's file name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Fix the shape of an input, for models that leave dimensions open: --shape input=1,96,96,3
    #[arg(long = "shape", value_name = "INPUT=DIMS", value_parser = shape)]
    shapes: Vec<(String, Vec<usize>)>,
}

/// What to build for.
#[derive(Args)]
#[command(next_help_heading = "Target")]
pub(super) struct TargetArgs {
    /// What to build for; `corerope targets` lists what there is [default: this machine]
    #[arg(long, value_name = "TRIPLE")]
    pub target: Option<String>,

    /// The least CPU that the code has to run on [default: the first of the target's list]
    #[arg(long, value_name = "CPU")]
    cpu: Option<String>,

    /// The RISC-V float ABI of the application: lp64, lp64f or lp64d [default: lp64d]
    #[arg(long, value_name = "ABI")]
    abi: Option<String>,
}

/// What runs the code of other machines.
#[derive(Args)]
#[command(next_help_heading = "Target")]
pub(super) struct RunnerArgs {
    /// What runs programs for the target, with its arguments [default: nothing, or QEMU's user mode for others]
    #[arg(long, value_name = "COMMAND")]
    runner: Option<String>,
}

/// How the model uses memory.
#[derive(Args)]
#[command(next_help_heading = "Memory")]
pub(super) struct MemoryArgs {
    /// Who provides the arena, the memory for everything between the layers
    #[arg(long, value_enum, value_name = "WHO", default_value_t)]
    arena: Arena,

    /// How inputs and outputs are passed
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    io: InputOutput,

    #[command(flatten)]
    place: PlaceArgs,

    /// Keep what matches when a linker drops what nothing refers to; patterns as in --place
    #[arg(long, value_name = "PATTERN")]
    keep: Vec<String>,

    /// What to prefer where there is a choice
    ///
    /// There is none in this version: all four give the same code, which is tuned for speed and needs no more memory
    /// for it.
    #[arg(long, value_enum, value_name = "GOAL", default_value_t)]
    optimize: Goal,
}

/// For those who work on corerope or debug a model.
#[derive(Args)]
#[command(next_help_heading = "Stages")]
pub(super) struct StageArgs {
    /// Print the text form of the result of a stage, or of `all`
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    pub print_after: Vec<String>,

    /// End after a stage, and write nothing
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    stop_after: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Arena {
    /// A static buffer in .bss
    #[default]
    Static,
    /// The caller, who passes a pointer to each run
    Caller,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum InputOutput {
    /// By pointer: read and written in place, not counted in the arena
    #[default]
    Pointers,
    /// At fixed offsets of the arena: less memory in all, and a run consumes its inputs
    Arena,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Goal {
    /// Few instructions
    Speed,
    /// A balance of all
    #[default]
    Balanced,
    /// A small arena
    Ram,
    /// Little code
    Size,
}

fn shape(text: &str) -> std::result::Result<(String, Vec<usize>), String> {
    let (name, dims) = text.rsplit_once('=').ok_or("it is not of the form INPUT=1,96,96,3")?;
    let dims: Option<Vec<usize>> = dims.split(',').map(|dim| dim.trim().parse().ok()).collect();
    let dims = dims.ok_or("the dimensions are not numbers with commas between them")?;
    Ok((name.to_owned(), dims))
}

fn stage(text: &str) -> std::result::Result<String, String> {
    let stages = build::stages();
    if text == "all" || stages.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("the stages are: {}", stages.join(", ")))
}

impl TargetArgs {
    pub fn target(&self) -> Result<Target> {
        Target::new(self.target.as_deref(), self.cpu.as_deref(), self.abi.as_deref())
    }
}

impl RunnerArgs {
    /// The command and its arguments; `None` if this machine runs the target's programs itself.
    pub fn command(&self, target: &Target) -> Option<Vec<String>> {
        let words = |command: &String| command.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let given = self.runner.as_ref().map(words).filter(|words| !words.is_empty());
        given.or_else(|| default_runner(target))
    }
}

impl ModelArgs {
    /// Options for `target` with everything else at its default.
    pub fn options(&self, target: Target) -> Result<Options> {
        let stem = match self.model.file_stem() {
            Some(stem) if self.model != Path::new("-") => stem.to_string_lossy().into_owned(),
            _ => "model".into(),
        };
        let name = match &self.name {
            None => stem,
            Some(name) if *name == names::prefix(name) || name.to_ascii_lowercase() == names::prefix(name) => {
                name.clone()
            }
            Some(name) => {
                let message = format!("--name {name:?} cannot be the prefix of identifiers in C");
                return Err(Error::new(Code::Usage, message).help(format!("choose one like {:?}", names::prefix(name))));
            }
        };
        let mut options = Options::new(target, name);
        options.file = match self.model.file_name() {
            Some(name) if self.model != Path::new("-") => name.to_string_lossy().into_owned(),
            _ => "standard input".into(),
        };
        options.shapes = self.shapes.clone();
        Ok(options)
    }

    /// This model and others of the same library.
    pub fn with(&self, more: &[PathBuf]) -> Result<Vec<ModelArgs>> {
        let one = self.name.is_some() || !self.shapes.is_empty();
        if one && !more.is_empty() {
            return Err(Error::new(
                Code::Usage,
                "--name and --shape are about one model, and there are several",
            )
            .help("name the files as the networks are to be called"));
        }
        let others = more.iter().map(|model| ModelArgs {
            model: model.clone(),
            name: None,
            shapes: Vec::new(),
        });
        Ok([self.clone()].into_iter().chain(others).collect())
    }

    /// Opens and maps the model.
    pub fn source(&self) -> Result<Arc<Source>> {
        if self.model == Path::new("-") {
            return Ok(Arc::new(Source::Memory(stream(
                std::io::stdin().lock(),
                limits::STREAM_BYTES,
            )?)));
        }
        input::map(&self.model).map(Arc::new)
    }
}

/// A model from standard input, of `limit` bytes at most.
fn stream(input: impl Read, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = input.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::io("read", Path::new("-"), &error))?;
    if bytes.len() as u64 > limit {
        let message = format!("there are more than {limit} bytes on standard input");
        return Err(Error::new(Code::Limit, message).help("give the model as a file: files are not held in memory"));
    }
    Ok(bytes)
}

impl MemoryArgs {
    /// Sets what these options say.
    ///
    /// # Errors
    /// Those of [`PlaceArgs::read`].
    pub fn apply(&self, options: &mut Options) -> Result<()> {
        options.arena = match self.arena {
            Arena::Static => ArenaKind::Static,
            Arena::Caller => ArenaKind::Caller,
        };
        options.io = match self.io {
            InputOutput::Pointers => Io::Pointers,
            InputOutput::Arena => Io::Arena,
        };
        (options.memory, options.place) = self.place.read()?;
        options.keep.clone_from(&self.keep);
        // All goals give the same code in this version; the option is accepted so that build files need not change.
        let _ = self.optimize;
        Ok(())
    }

    /// Files that are read beside the model.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.place.file.as_deref().into_iter()
    }
}

impl StageArgs {
    /// Compiles, printing what was asked for. `None` if `--stop-after` ended it.
    pub fn compile(&self, source: Arc<Source>, options: &mut Options, progress: &Progress) -> Result<Option<Build>> {
        options.stop_after = self.stop_after.clone().filter(|stage| stage != "all");
        let mut printed = Ok(());
        let all = self.print_after.iter().any(|stage| stage == "all");
        let build = build::compile(source, options, &mut |stage, text| {
            progress.say(format!("{} after {stage}", options.file));
            if printed.is_ok() && (all || self.print_after.iter().any(|asked| asked == stage)) {
                printed = super::print(&format!("# {stage}\n{}", text()));
            }
        })?;
        printed.map(|()| build)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_an_end() {
        assert_eq!(stream(&[1, 2, 3][..], 3).unwrap(), [1, 2, 3]);
        let error = stream(std::io::repeat(0), 3).unwrap_err();
        assert_eq!(error.code, Code::Limit);
        assert_eq!(error.message, "there are more than 3 bytes on standard input");
    }
}
