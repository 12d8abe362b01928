//! Options that several subcommands share.

use super::input;
use super::place::{PlaceArgs, Placed};
use super::progress::Progress;
use crate::build::{self, Build, Options};
use crate::data::{Bytes, Source};
use crate::error::{Code, Error, Result};
use crate::frontend::tvm;
use crate::graph::external::Object;
use crate::harness::default_runner;
use crate::kernels::entry::ArenaKind;
use crate::limits;
use crate::modules::Module;
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
    /// The model: a TensorFlow Lite file, a TVM model library (.tar), or `-` for standard input
    #[arg(value_name = "MODEL", required_unless_present = "graph")]
    model: Option<PathBuf>,

    /// Prefix of all symbols, types and macros [default: the model's file name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Fix the shape of an input, for models that leave dimensions open: --shape input=1,96,96,3
    #[arg(long = "shape", value_name = "INPUT=DIMS", value_parser = shape)]
    shapes: Vec<(String, Vec<usize>)>,

    #[command(flatten)]
    tvm: TvmArgs,
}

const TVM: &str = "Models of TVM";

/// Models of TVM.
#[derive(Args, Clone)]
struct TvmArgs {
    /// The graph executor's graph.json, instead of MODEL
    #[arg(long, help_heading = TVM, id = "graph", value_name = "FILE", conflicts_with = "model")]
    graph: Option<PathBuf>,

    /// The parameters that belong to a graph.json
    #[arg(long, help_heading = TVM, value_name = "FILE")]
    tvm_params: Option<PathBuf>,

    /// Which module of a model library that holds several
    #[arg(long, help_heading = TVM, value_name = "NAME")]
    tvm_module: Option<String>,

    /// Workspace of every kernel whose need is not known: a graph.json says nothing about it
    #[arg(long, help_heading = TVM, value_name = "BYTES")]
    tvm_workspace: Option<u64>,

    /// Call symbols and sections as TVM calls them: tvmgen_*, .rodata.tvm, .bss.noinit.tvm
    #[arg(long, help_heading = TVM)]
    tvm_names: bool,
}

/// Objects of others.
#[derive(Args)]
#[command(next_help_heading = "External code")]
pub(super) struct ExternalArgs {
    /// Put the kernels that the model calls into the library: an object or a static library, compiled for the target
    #[arg(long, value_name = "FILE")]
    kernels: Vec<PathBuf>,

    /// Let an external module compute a part of the model: its manifest (README.md shows one)
    #[arg(long = "module", value_name = "MANIFEST")]
    modules: Vec<PathBuf>,
}

impl ExternalArgs {
    /// Every file that these options name, and those that the manifests name: `modules` are the manifests' own.
    pub fn files(&self, modules: &[Module]) -> Vec<(PathBuf, &'static str)> {
        let kernels = self.kernels.iter().map(|path| (path.clone(), "file of --kernels"));
        let mut files: Vec<_> = kernels.collect();
        for (path, module) in self.modules.iter().zip(modules) {
            files.push((path.clone(), "manifest"));
            let own = module.files().map(|name| (folder(path).join(name), "file of a module"));
            files.extend(own);
        }
        files
    }

    /// Whether there is a module.
    pub fn has_modules(&self) -> bool {
        !self.modules.is_empty()
    }

    /// Sets what these options say.
    pub fn apply(&self, options: &mut Options) -> Result<()> {
        for path in &self.kernels {
            options.kernels.push(Object {
                name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                bytes: Bytes::whole(source(path)?),
                origin: "--kernels".into(),
            });
        }
        for path in &self.modules {
            let bytes = source(path)?;
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::str::from_utf8(bytes.bytes());
            let text = text.map_err(|_| Error::model(format!("{file} is not UTF-8")))?;
            let read = |name: &str| source(&folder(path).join(name)).map(Bytes::whole);
            options.modules.push(Module::load(text, &file, &read)?);
        }
        Ok(())
    }
}

/// Files are named from where the manifest is.
fn folder(manifest: &Path) -> &Path {
    manifest.parent().unwrap_or(Path::new(""))
}

/// Opens and maps a file; `-` is standard input.
fn source(path: &Path) -> Result<Arc<Source>> {
    if path == Path::new("-") {
        let bytes = stream(std::io::stdin().lock(), limits::STREAM_BYTES)?;
        return Ok(Arc::new(Source::Memory(bytes)));
    }
    input::map(path).map(Arc::new)
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

/// How the model gets its input.
#[derive(Args)]
#[command(next_help_heading = "Memory")]
pub(super) struct InputArgs {
    /// How the application gives the input
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    input: Input,
}

impl InputArgs {
    /// Sets what this option says.
    pub fn apply(&self, options: &mut Options) {
        options.input_rows = self.input == Input::Rows;
    }
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
    /// `ram` runs chains of layers row by row wherever that makes the arena smaller: rows are freed as they are read,
    /// and no whole tensor exists between the layers. `balanced` does so where it costs at most 2% more instructions,
    /// on targets whose instructions are counted (Cortex-M, RISC-V 32). `speed` keeps whole tensors, and scratch that
    /// saves instructions. With --step, --hooks or --params streamed, all layers run as wholes.
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
enum Input {
    /// As a whole
    #[default]
    Whole,
    /// Row by row, from a callback that is asked for each row when it is needed: for cameras and microphones
    Rows,
}

/// What to prefer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Goal {
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

impl From<Goal> for build::Goal {
    fn from(goal: Goal) -> Self {
        match goal {
            Goal::Speed => build::Goal::Speed,
            Goal::Balanced => build::Goal::Balanced,
            Goal::Ram => build::Goal::Ram,
            Goal::Size => build::Goal::Size,
        }
    }
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
        let stem = match self.path().file_stem() {
            Some(stem) if self.path() != Path::new("-") => stem.to_string_lossy().into_owned(),
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
        options.file = match self.path().file_name() {
            Some(name) if self.path() != Path::new("-") => name.to_string_lossy().into_owned(),
            _ => "standard input".into(),
        };
        options.shapes = self.shapes.clone();
        options.tvm = tvm::Options {
            params: self.tvm.tvm_params.as_deref().map(source).transpose()?,
            module: self.tvm.tvm_module.clone(),
            workspace: self.tvm.tvm_workspace,
            names: self.tvm.tvm_names,
        };
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
        let parts = self.tvm.graph.is_some() || self.tvm.tvm_params.is_some() || self.tvm.tvm_module.is_some();
        if parts && !more.is_empty() {
            let message = "--graph, --tvm-params and --tvm-module are about one model, and there are several";
            return Err(Error::new(Code::Usage, message).help("build a library of each: they link together"));
        }
        let others = more.iter().map(|model| ModelArgs {
            model: Some(model.clone()),
            name: None,
            shapes: Vec::new(),
            tvm: TvmArgs {
                graph: None,
                tvm_params: None,
                ..self.tvm.clone()
            },
        });
        Ok([self.clone()].into_iter().chain(others).collect())
    }

    /// Opens and maps the model.
    pub fn source(&self) -> Result<Arc<Source>> {
        source(self.path())
    }

    /// The model's file.
    pub fn path(&self) -> &Path {
        let given = self.model.as_deref().or(self.tvm.graph.as_deref());
        given.unwrap_or(Path::new("-"))
    }

    /// Every file that belongs to the model.
    pub fn files(&self) -> Vec<&Path> {
        [Some(self.path()), self.tvm.tvm_params.as_deref()]
            .into_iter()
            .flatten()
            .collect()
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
        let Placed { regions, rules, pools } = self.place.read()?;
        (options.memory, options.place, options.pools) = (regions, rules, pools);
        options.keep.clone_from(&self.keep);
        options.goal = self.optimize.into();
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
