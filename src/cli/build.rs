//! `corerope build`.

use super::options::{MemoryArgs, ModelArgs, StageArgs, TargetArgs};
use super::outside::{InterfaceArgs, ParamsArgs};
use super::progress::Progress;
use crate::build::several::{Library, prefix};

use crate::error::{Code, Error, Result};
use crate::kernels::entry::ArenaKind;
use crate::object::{self, archive};
use crate::output::depfile::{self, Depfile};
use crate::output::{OutFile, Written, write_all};
use crate::target::Format;
use clap::Args;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Dependency file, for Make and Ninja:
  -MD                      Write one: the output's name with .d
  -MF <FILE>               Write it to FILE
  -MT <TARGET>             The target of its rule, as it is to stand there [default: the output]
  -MP                      Also an empty rule for the model, so that its removal is no error

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

    /// Do not print the report
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    memory: MemoryArgs,

    #[command(flatten)]
    params: ParamsArgs,

    #[command(flatten)]
    interface: InterfaceArgs,

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

    /// -MP: an empty rule for each dependency
    #[arg(id = "MP", long = "MP", hide = true)]
    phony: bool,
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
        let library = prefix(&self.output.file_stem().unwrap_or_default().to_string_lossy());
        let shared = self.share_arena.then_some(library.as_str());
        let progress = Progress::new();
        let mut builds = Vec::new();
        for model in self.model.with(&self.more)? {
            let mut options = model.options(self.target.target()?)?;
            self.memory.apply(&mut options);
            self.params.apply(&mut options);
            self.interface.apply(&mut options);
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
        if self.quiet {
            return Ok(());
        }
        let reports: Vec<String> = library.builds.iter().map(|build| build.report().text()).collect();
        let arena = library
            .arena
            .as_ref()
            .map(|arena| format!("one arena of {} bytes\n", arena.size));
        let arena = arena.unwrap_or_default();
        super::print(&format!("{}\n{arena}{}", reports.join("\n"), list(&written)))
    }

    fn files<'a>(&self, library: &'a Library, several: bool, kind: Kind) -> Result<Vec<OutFile<'a>>> {
        let [first, ..] = library.builds.as_slice() else {
            return Err(Error::internal("a library of no models"));
        };
        let beside = |extension: &str| self.output.with_extension(extension);
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (header, fragment) = (beside("h"), beside("ld"));
        let mut files = if several {
            vec![
                OutFile::new(&self.output, |out| library.write(out)),
                OutFile::text(&header, library.header(&name(&header))?),
                OutFile::text(&fragment, library.fragment(&name(&fragment))?),
            ]
        } else {
            let target = &first.options.target;
            let member = name(&beside(if target.format() == Format::Coff { "obj" } else { "o" }));
            let write = move |out: &mut dyn std::io::Write| match kind {
                Kind::Object => object::write(&first.object, target, out),
                Kind::Archive => {
                    let member = archive::Member {
                        name: &member,
                        plan: &first.object,
                    };
                    archive::write(&[member], target, out)
                }
            };
            vec![
                OutFile::new(&self.output, write),
                OutFile::text(&header, first.header(&name(&header))?),
                OutFile::text(&fragment, first.fragment(&name(&fragment))?),
            ]
        };
        for build in &library.builds {
            let Some(image) = &build.image else { continue };
            let path = match several {
                true => self.output.with_file_name(format!("{}.params", build.names.model)),
                false => beside("params"),
            };
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
            files.push(OutFile::text(path, self.rule().text()));
        }
        for model in self.models() {
            let model = std::fs::canonicalize(model).ok();
            for file in &files {
                if model.is_some() && std::fs::canonicalize(&file.path).ok() == model {
                    let message = format!("{} is the model itself", file.path.display());
                    return Err(Error::new(Code::Usage, message).help("give the output another name"));
                }
            }
        }
        Ok(files)
    }

    fn models(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.model.model].into_iter().chain(&self.more)
    }

    fn rule(&self) -> Depfile {
        let file = |path: &Path| path.to_string_lossy().into_owned();
        let targets = match self.depfile.targets.as_slice() {
            [] => vec![depfile::Target::File(file(&self.output))],
            given => given.iter().cloned().map(depfile::Target::Literal).collect(),
        };
        let from_files = self.models().filter(|model| *model != Path::new("-"));
        Depfile {
            targets,
            prerequisites: from_files.map(|model| file(model)).collect(),
            phony: self.depfile.phony,
        }
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
