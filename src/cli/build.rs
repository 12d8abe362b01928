//! `corerope build`.

use super::options::{ExternalArgs, InputArgs, MemoryArgs, ModelArgs, StageArgs, TargetArgs};
use super::outside::{InterfaceArgs, ParamsArgs};
use super::progress::Progress;
use crate::build::several::{Library, prefix};
use crate::debug::{self, Version};
use crate::error::{Code, Error, Result};
use crate::kernels::entry::ArenaKind;
use crate::object::{self, archive};
use crate::output::depfile::{self, Depfile};
use crate::output::linker::Dialect;
use crate::output::{OutFile, Written, write_all};
use crate::target::Format;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Dependency file, for Make and Ninja:
  -MD                      Write one: the output's name with .d
  -MF <FILE>               Write it to FILE
  -MT <TARGET>             The target of its rule, as it is to stand there [default: the output]
  -MQ <TARGET>             The same, with what Make would take for its own quoted
  -MP                      Also an empty rule for the model, so that its removal is no error

Debug information:
  -gdwarf-4, -gdwarf-5     As -g, in this version of DWARF [default: 5]

Examples:
  corerope build kws.tflite -o kws.a
      A static library for this machine, with kws.h and kws.ld beside it. Use it from C:
      gcc main.c kws.a

  corerope build kws.tflite -o kws.a --target aarch64-unknown-none
      The same for bare-metal AArch64.

  corerope build kws.tflite -o build/kws.o --arena caller --io arena
      An object; the caller passes one buffer that holds everything, inputs and outputs included.

  corerope build vww.tflite -o vww.a --place 'size>64K=.qspi>QSPI'
      Everything larger than 64 KiB goes to the section .qspi, in the memory QSPI of your linker script.

  corerope build kws.tflite -o kws.a -g
      Also debug information, and kws.lst: in gdb, `break kws_run`, then `next` runs layer by layer.

  corerope build model.tar --kernels kernels.o -o kws.a
      A model library of TVM with its kernels, as your compiler compiled their C.

  corerope build kws.tflite --module kpu.toml -o kws.a
      Some layers by code of others: an accelerator's, say, with its own constants.

  corerope build kws.tflite vww.tflite --share-arena -o both.a
      Two networks in one library, with one arena that is large enough for either.

  corerope build big.tflite -o big.a --params streamed --step
      The parameters in big.params, read piece by piece through a callback; and a function that runs one operator.

  corerope build kws.tflite -o kws.a -MD
      Also kws.d, from which Make and Ninja know that kws.a depends on kws.tflite.";

/// Arguments of `corerope build`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,

    /// Further models, for the same library
    #[arg(value_name = "MORE")]
    more: Vec<PathBuf>,

    /// One arena for all models of the library, of the size of the largest: they run one at a time
    #[arg(long)]
    share_arena: bool,

    /// What to write: a static library (.a, .lib) or an object (.o, .obj), the header and the linker-script fragment
    /// beside it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Add debug information: step the model layer by layer and print its tensors in gdb
    ///
    /// The model is written as a text beside the output, with .lst: the source file that debuggers show, an operator a
    /// line. What is loaded on the device is the same with and without.
    #[arg(short = 'g', long = "debug", value_name = "DWARF", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "5", value_parser = version)]
    debug: Option<Version>,
    /// Whose linker the fragment is for: .ld for GNU ld and lld, .icf for IAR, .sct for Keil, .cmd for TI
    #[arg(
        long,
        value_enum,
        value_name = "LINKER",
        value_delimiter = ',',
        default_value = "gnu"
    )]
    linker: Vec<Linker>,

    /// Also write the report as JSON, which `corerope check-link` reads
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Do not print the report
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    memory: MemoryArgs,

    #[command(flatten)]
    input: InputArgs,

    #[command(flatten)]
    params: ParamsArgs,

    #[command(flatten)]
    interface: InterfaceArgs,

    #[command(flatten)]
    external: ExternalArgs,

    #[command(flatten)]
    depfile: DepfileArgs,

    #[command(flatten)]
    stages: StageArgs,
}

/// Dependency files, with the names that compilers gave these options; [`super::arguments`] turns `-MF` into `--MF`.
#[derive(Args)]
struct DepfileArgs {
    /// -MD: write a dependency file
    #[arg(id = "MD", long = "MD", hide = true)]
    enabled: bool,

    /// -MF: where to
    #[arg(id = "MF", long = "MF", value_name = "FILE", hide = true)]
    file: Option<PathBuf>,

    /// -MT: the target of its rule
    #[arg(id = "MT", long = "MT", value_name = "TARGET", hide = true)]
    targets: Vec<String>,

    /// -MQ: the target of its rule, quoted for Make
    #[arg(id = "MQ", long = "MQ", value_name = "TARGET", hide = true)]
    quoted: Vec<String>,

    /// -MP: an empty rule for each dependency
    #[arg(id = "MP", long = "MP", hide = true)]
    phony: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Linker {
    /// GNU ld and lld
    Gnu,
    /// IAR's ILINK
    Iar,
    /// Arm's armlink, of Keil MDK
    Keil,
    /// TI's linkers
    Ti,
}

impl Linker {
    fn dialect(self) -> Dialect {
        match self {
            Linker::Gnu => Dialect::Gnu,
            Linker::Iar => Dialect::Iar,
            Linker::Keil => Dialect::Keil,
            Linker::Ti => Dialect::Ti,
        }
    }
}

/// What an output file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Object,
    Archive,
}

impl Kind {
    fn of(path: &Path) -> Result<Kind> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("o" | "obj") => Ok(Kind::Object),
            Some("a" | "lib") => Ok(Kind::Archive),
            _ => {
                let message = format!("cannot tell what to write from the name {}", path.display());
                Err(Error::new(Code::Usage, message)
                    .help("end it with .a or .lib for a static library, with .o or .obj for an object"))
            }
        }
    }
}

impl Arguments {
    /// Builds, writes all files, and prints the report.
    pub fn run(self) -> Result<()> {
        let kind = Kind::of(&self.output)?;
        let several = !self.more.is_empty() || self.share_arena;
        if several && kind == Kind::Object {
            let message = "several models, or an arena of its own object, do not fit one object";
            return Err(Error::new(Code::Usage, message).help("end the output's name with .a or .lib"));
        }
        if several && self.report.is_some() {
            let message = "a report is about one model, and there are several";
            return Err(Error::new(Code::Usage, message).help(
                "`corerope check-link` reads the library itself as well, `corerope inspect --json` reports on a model",
            ));
        }
        if !self.more.is_empty() && self.external.has_modules() {
            let message = "a module is about one model, and there are several";
            return Err(Error::new(Code::Usage, message).help("build a library of each: they link together"));
        }
        let library = prefix(&self.output.file_stem().unwrap_or_default().to_string_lossy());
        let shared = self.share_arena.then_some(library.as_str());
        let progress = Progress::new();
        let mut builds = Vec::new();
        for model in self.model.with(&self.more)? {
            let mut options = model.options(self.target.target()?)?;
            self.memory.apply(&mut options)?;
            self.input.apply(&mut options);
            self.params.apply(&mut options);
            self.interface.apply(&mut options);
            self.external.apply(&mut options)?;
            let own = several.then(|| prefix(&options.name));
            options.debug = self.debug.map(|version| debug::Options {
                version,
                file: name(&self.own(own.as_deref(), "lst")),
            });
            options.some_rules = several;
            if options.arena == ArenaKind::Static {
                options.shared_arena = shared.map(str::to_owned);
            }
            let source = model.source()?;
            progress.say(format!("reading {}", options.file));
            builds.extend(self.stages.compile(source, &mut options, &progress)?);
        }
        if builds.len() < 1 + self.more.len() {
            return Ok(());
        }
        progress.say(format!("writing {}", self.output.display()));
        let library = Library::new(builds, shared)?;
        let written = write_all(self.files(&library, several, kind)?)?;
        drop(progress);
        let report = match self.quiet {
            true => String::new(),
            false => report(&library, &written),
        };
        // The program ends here: a large graph need not be taken apart first.
        std::mem::forget(library);
        super::print(&report)
    }

    fn files<'a>(&self, library: &'a Library, several: bool, kind: Kind) -> Result<Vec<OutFile<'a>>> {
        let [first, ..] = library.builds.as_slice() else {
            return Err(Error::internal("a library of no models"));
        };
        if kind == Kind::Object
            && let Some(extra) = first.extras.first()
        {
            let message = format!("{} of {} cannot go into an object", extra.name, extra.origin);
            return Err(Error::new(Code::Usage, message).help("write a static library: end the output's name with .a"));
        }
        let beside = |extension: &str| self.output.with_extension(extension);
        let target = &first.options.target;
        let member = name(&beside(if target.format() == Format::Coff { "obj" } else { "o" }));
        let header = beside("h");
        let write = move |out: &mut dyn std::io::Write| match kind {
            Kind::Object => object::write(&first.object, target, out),
            Kind::Archive if several => library.write(out),
            Kind::Archive => {
                let member = archive::Member {
                    name: &member,
                    plan: &first.object,
                };
                archive::library_with(&[member], &first.extras, target, out)
            }
        };
        let bytes = library.builds.iter().map(|build| build.object.bytes()).sum();
        let mut files = vec![OutFile::new(&self.output, write).expecting(bytes)];
        let text = match several {
            true => library.header(&name(&header))?,
            false => first.header(&name(&header))?,
        };
        files.push(OutFile::text(&header, text));
        for linker in &self.linker {
            let dialect = linker.dialect();
            let path = beside(dialect.extension());
            let text = match several {
                true => library.fragment(&name(&path), dialect)?,
                false => first.fragment(&name(&path), dialect)?,
            };
            files.push(OutFile::text(&path, text));
        }
        if let Some(report) = &self.report {
            files.push(OutFile::text(report, first.report().json()));
        }
        for build in &library.builds {
            let own = |extension| self.own(several.then_some(&build.names.model), extension);
            if let Some(listing) = &build.listing {
                files.push(OutFile::text(own("lst"), listing.clone()));
            }
            let Some(image) = &build.image else { continue };
            let path = own("params");
            let name = path.clone();
            files.push(OutFile::new(path, move |out| {
                let contents = image.contents(&build.lowering);
                contents
                    .write_to(out)
                    .map_err(|error| Error::io("write", &name, &error))
            }));
        }
        let depfile = &self.depfile;
        if depfile.enabled || depfile.file.is_some() {
            let path = depfile.file.clone().unwrap_or_else(|| beside("d"));
            files.push(OutFile::text(path, self.rule(library).text()?));
        }
        for (input, what) in self.inputs(library) {
            let Ok(input) = std::fs::canonicalize(input) else {
                continue;
            };
            for file in &files {
                if std::fs::canonicalize(&file.path).is_ok_and(|path| path == input) {
                    let message = format!("{} is the {what} itself", file.path.display());
                    return Err(Error::new(Code::Usage, message).help("give the output another name"));
                }
            }
        }
        Ok(files)
    }

    /// A file of one model's beside the output: called after it where there are several.
    fn own(&self, model: Option<&str>, extension: &str) -> PathBuf {
        match model {
            Some(model) => self.output.with_file_name(format!("{model}.{extension}")),
            None => self.output.with_extension(extension),
        }
    }

    fn rule(&self, library: &Library) -> Depfile {
        let file = |path: &Path| path.to_string_lossy().into_owned();
        let literal = self.depfile.targets.iter().cloned().map(depfile::Target::Literal);
        let quoted = self.depfile.quoted.iter().cloned().map(depfile::Target::File);
        let mut targets: Vec<_> = literal.chain(quoted).collect();
        if targets.is_empty() {
            targets.push(depfile::Target::File(file(&self.output)));
        }
        Depfile {
            targets,
            prerequisites: self.inputs(library).iter().map(|(path, _)| file(path)).collect(),
            phony: self.depfile.phony,
        }
    }

    /// The files that were read, and what they are.
    fn inputs(&self, library: &Library) -> Vec<(PathBuf, &'static str)> {
        let named = |what| move |path: &Path| (path.to_owned(), what);
        let models = self
            .model
            .files()
            .into_iter()
            .chain(self.more.iter().map(PathBuf::as_path));
        let models = models.filter(|path| *path != Path::new("-"));
        // All models have the same modules.
        let modules = library.builds.first().map_or(&[][..], |build| &build.options.modules);
        (models.map(named("model")))
            .chain(self.external.files(modules))
            .chain(self.memory.files().map(named("place file")))
            .collect()
    }
}

/// The reports of all models, and which files there are.
fn report(library: &Library, written: &[Written]) -> String {
    let reports: Vec<String> = library.builds.iter().map(|build| build.report().text()).collect();
    let arena = library.arena.as_ref();
    let arena = arena.map(|arena| format!("one arena of {} bytes\n", arena.size));
    format!("{}\n{}{}", reports.join("\n"), arena.unwrap_or_default(), list(written))
}

/// A file's name without its folder.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn version(text: &str) -> std::result::Result<Version, String> {
    match text {
        "4" => Ok(Version::Dwarf4),
        "5" => Ok(Version::Dwarf5),
        _ => Err("the versions of DWARF are 4 and 5".into()),
    }
}

/// `wrote kws.a (52,112 bytes), kws.h, kws.ld`, and what was left as it is.
fn list(written: &[Written]) -> String {
    let names = |changed: bool| {
        let files = written.iter().filter(|file| file.changed == changed);
        files
            .map(|file| file.path.display().to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut text = String::new();
    for (word, files) in [("wrote", names(true)), ("unchanged", names(false))] {
        if !files.is_empty() {
            text += &format!("{word} {files}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_decides() {
        for (name, kind) in [
            ("kws.a", Some(Kind::Archive)),
            ("kws.lib", Some(Kind::Archive)),
            ("a.b/kws.o", Some(Kind::Object)),
            ("kws.obj", Some(Kind::Object)),
            ("kws", None),
            ("kws.elf", None),
            (".a", None),
        ] {
            assert_eq!(Kind::of(Path::new(name)).ok(), kind, "{name}");
        }
    }

    #[test]
    fn what_was_written_is_listed() {
        let file = |path: &str, changed| Written {
            path: path.into(),
            bytes: 1,
            changed,
        };
        assert_eq!(
            list(&[file("a", true), file("b", false), file("c", true)]),
            "wrote a, c\nunchanged b\n"
        );
    }
}
