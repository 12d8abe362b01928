//! `corerope params`.

use super::input;
use super::options::{InputArgs, MemoryArgs, ModelArgs, TargetArgs};
use super::outside::ParamsArgs;
use super::progress::Progress;
use crate::build::{Build, Options, compile};
use crate::data::Source;
use crate::error::{Code, Error, Result};
use crate::graph::OpKind;
use crate::image::{Image, Wanted};
use crate::kernels::{Call, Operand};
use crate::output::{OutFile, write_all};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EXAMPLES: &str = "\
Examples:
  corerope params kws2.tflite --name kws --params external --for kws.a -o kws2.params
      Write an image of new weights for code that is already there, or say why they do not fit it.

  corerope params kws2.tflite --name kws --params external --for firmware.bin
      Only say whether they fit. FILE is whatever knows the code: the header, the object or the library that the build
      wrote, a linked program, the contents of a flash, or an image that fits.

  corerope params kws2.tflite --name kws --params external --for kws.a --was kws.tflite
      Where they do not fit, name the layers that differ from the model that the code was built from.

Give the options of the build: --target, --cpu, --params, --place and so on decide what the code is.";

/// Arguments of `corerope params`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,

    /// What the image has to fit
    #[arg(long = "for", value_name = "FILE")]
    code: PathBuf,

    /// Where the image goes [default: nowhere]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The model that the code was built from, to name the layers that differ
    #[arg(long, value_name = "MODEL")]
    was: Option<PathBuf>,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    memory: MemoryArgs,

    #[command(flatten)]
    input: InputArgs,

    #[command(flatten)]
    params: ParamsArgs,
}

impl Arguments {
    /// Compiles, compares with the code, and writes the image.
    pub fn run(self) -> Result<()> {
        let mut options = self.model.options(self.target.target()?)?;
        self.memory.apply(&mut options)?;
        self.input.apply(&mut options);
        self.params.apply(&mut options);
        let wanted = wanted(&self.code)?;
        let progress = Progress::new();
        let build = build(self.model.source()?, &options, &progress)?;
        let image = outside(&build)?;
        let fitting = wanted.iter().any(|wanted| image.misfits(wanted).is_empty());
        if !fitting {
            let was = self.was.as_deref().map(|path| build_old(path, &options, &progress));
            return Err(misfit(&build, image, &wanted, &self.code, was.transpose()?.as_ref()));
        }
        let what = format!("{} bytes of parameters that fit {}", image.size, self.code.display());
        let Some(output) = &self.output else {
            drop(progress);
            return super::print(&format!("{what}\n"));
        };
        let contents = image.contents(&build.lowering);
        write_all(vec![OutFile::new(output, move |out| {
            contents
                .write_to(out)
                .map_err(|error| Error::io("write", output, &error))
        })])?;
        drop(progress);
        super::print(&format!("{what}\nwrote {}\n", output.display()))
    }
}

fn build(source: Arc<Source>, options: &Options, progress: &Progress) -> Result<Build> {
    let build = compile(source, options, &mut |stage, _| {
        progress.say(format!("{} after {stage}", options.file));
    })?;
    build.ok_or_else(|| Error::internal("the pipeline ended early"))
}

fn build_old(path: &Path, options: &Options, progress: &Progress) -> Result<Build> {
    let source = input::map(path)?;
    let options = Options {
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        ..options.clone()
    };
    build(Arc::new(source), &options, progress)
}

fn wanted(path: &Path) -> Result<Vec<Wanted>> {
    let source = input::map(path)?;
    let wanted = Wanted::find(source.bytes());
    if wanted.is_empty() {
        let message = format!("{} names no parameters outside the object", path.display());
        return Err(Error::new(Code::Usage, message)
            .help("give a file of a build with --params external or streamed by this version of corerope"));
    }
    Ok(wanted)
}

fn outside(build: &Build) -> Result<&Image> {
    build.image.as_ref().ok_or_else(|| {
        Error::new(Code::Usage, "no parameters are outside the object")
            .help("give the options of the build: --params external or streamed, or its --place")
    })
}

/// Why an image does not fit.
fn misfit(build: &Build, image: &Image, wanted: &[Wanted], code: &Path, was: Option<&Build>) -> Error {
    // Where a file has the code of several models, the most similar one is meant.
    let nearest = wanted.iter().map(|wanted| image.misfits(wanted)).min_by_key(Vec::len);
    let what = nearest.unwrap_or_default().join("; ");
    let file = &build.options.file;
    let message = format!(
        "the parameters of {file} do not fit {}: different are {what}",
        code.display()
    );
    let error = Error::new(Code::Mismatch, message);
    let Some(old) = was else {
        return error.help(
            "give the options of that build, all of them; if they are the same, the model needs code of its own: \
             build it (--was OLD names the layers)",
        );
    };
    let own = old
        .image
        .as_ref()
        .is_some_and(|image| wanted.iter().any(|wanted| image.misfits(wanted).is_empty()));
    if !own {
        return error.help(format!(
            "{} is not what {} was built from, or its options were others",
            old.options.file,
            code.display()
        ));
    }
    error.help(format!(
        "{}: the model needs code of its own, build it",
        differences(old, build).join("; ")
    ))
}

/// The first layers that differ, in words.
fn differences(old: &Build, new: &Build) -> Vec<String> {
    const SHOWN: usize = 4;
    let (a, b) = (&old.lowering, &new.lowering);
    if a.calls.len() != b.calls.len() {
        return vec![format!(
            "there are {} layers instead of {}",
            b.calls.len(),
            a.calls.len()
        )];
    }
    let mut found = Vec::new();
    for (x, y) in a.calls.iter().zip(&b.calls) {
        let code = |build: &Build, call: &Call| match (call.kernel, &build.graph.op(call.op).kind) {
            (Some(kernel), _) => build.kernels[kernel.0 as usize].bytes.clone(),
            (None, OpKind::External(external)) => external.symbol.clone().into_bytes(),
            (None, _) => Vec::new(),
        };
        let sizes = |build: &Build, operands: &[Operand]| -> Vec<u64> {
            let ids = operands.iter().filter_map(|operand| match operand {
                Operand::Parameter(id) => Some(*id),
                _ => None,
            });
            ids.map(|id| build.lowering.parameter(id).contents.len()).collect()
        };
        let what = if old.graph.op(x.op).kind.name() != new.graph.op(y.op).kind.name() {
            "is another operator"
        } else if sizes(old, &x.operands) != sizes(new, &y.operands) {
            "has parameters of another size"
        } else if code(old, x) != code(new, y) {
            "has other code, as its shape, quantization or range of weights is another"
        } else {
            continue;
        };
        found.push(format!("{} {what}", new.graph.op(y.op).describe()));
    }
    let more = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    if found.is_empty() {
        found.push("the layers are the same, which parameters they share or what surrounds them is not".into());
    }
    found
}
