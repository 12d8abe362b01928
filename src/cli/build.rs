//! `corerope build`.

use super::options::{MemoryArgs, ModelArgs, StageArgs, TargetArgs};
use super::progress::Progress;
use crate::build::Build;
use crate::debug::{self, Version};
use crate::error::{Code, Error, Result};
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

  corerope build kws.tflite -o kws.a -MD
      Also kws.d, from which Make and Ninja know that kws.a depends on kws.tflite.";

/// Arguments of `corerope build`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,

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

    /// Do not print the report
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    memory: MemoryArgs,

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
        let mut options = self.model.options(self.target.target()?)?;
        self.memory.apply(&mut options);
        options.debug = self.debug.map(|version| debug::Options {
            version,
            file: name(&self.output.with_extension("lst")),
        });
        let source = self.model.source()?;
        let progress = Progress::new();
        progress.say(format!("reading {}", options.file));
        let Some(build) = self.stages.compile(source, &mut options, &progress)? else {
            return Ok(());
        };
        progress.say(format!("writing {}", self.output.display()));
        let written = write_all(self.files(&build, kind)?)?;
        drop(progress);
        if self.quiet {
            return Ok(());
        }
        super::print(&format!("{}\n{}", build.report().text(), list(&written)))
    }

    fn files<'a>(&self, build: &'a Build, kind: Kind) -> Result<Vec<OutFile<'a>>> {
        let target = &build.options.target;
        let beside = |extension: &str| self.output.with_extension(extension);
        let member = name(&beside(if target.format() == Format::Coff { "obj" } else { "o" }));
        let write = move |out: &mut dyn std::io::Write| match kind {
            Kind::Object => object::write(&build.object, target, out),
            Kind::Archive => archive::library(&member, &build.object, target, out),
        };
        let (header, fragment) = (beside("h"), beside("ld"));
        let mut files = vec![
            OutFile::new(&self.output, write).expecting(build.object.bytes()),
            OutFile::text(&header, build.header(&name(&header))?),
            OutFile::text(&fragment, build.fragment(&name(&fragment))?),
        ];
        if let Some(listing) = &build.listing {
            files.push(OutFile::text(beside("lst"), listing.clone()));
        }
        let depfile = &self.depfile;
        if depfile.enabled || depfile.file.is_some() {
            let path = depfile.file.clone().unwrap_or_else(|| beside("d"));
            files.push(OutFile::text(path, self.rule().text()));
        }
        let model = std::fs::canonicalize(&self.model.model).ok();
        for file in &files {
            if model.is_some() && std::fs::canonicalize(&file.path).ok() == model {
                let message = format!("{} is the model itself", file.path.display());
                return Err(Error::new(Code::Usage, message).help("give the output another name"));
            }
        }
        Ok(files)
    }

    fn rule(&self) -> Depfile {
        let file = |path: &Path| path.to_string_lossy().into_owned();
        let targets = match self.depfile.targets.as_slice() {
            [] => vec![depfile::Target::File(file(&self.output))],
            given => given.iter().cloned().map(depfile::Target::Literal).collect(),
        };
        let from_file = self.model.model != Path::new("-");
        Depfile {
            targets,
            prerequisites: from_file.then(|| file(&self.model.model)).into_iter().collect(),
            phony: self.depfile.phony,
        }
    }
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
