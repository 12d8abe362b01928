//! `corerope verify`.

use super::options::{MemoryArgs, ModelArgs, RunnerArgs, TargetArgs};
use super::outside::ParamsArgs;
use super::progress::Progress;
use super::run::read_inputs;
use crate::build::compile;
use crate::error::{Error, Result};
use crate::verify::{Findings, Set, sets, verify};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  corerope verify kws.tflite
      Run the compiled code on this machine with zeros, extremes and random inputs, and compare every element of
      every layer with the evaluator, which is TensorFlow Lite Micro's arithmetic bit for bit. Also checks that the
      passes did not change what the model computes.

  corerope verify kws.tflite --input audio.npy
      The same with inputs of your own.

  corerope verify kws.tflite --target riscv64gc-unknown-linux-gnu
      The same for the code of another machine, under QEMU's user mode.";

/// Arguments of `corerope verify`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,

    /// An input instead of those made here: raw elements or .npy; once for each input of the model, in its order. The
    /// word `rows` is not a file, but what it is for `corerope build`
    #[arg(short, long = "input", value_name = "FILE")]
    inputs: Vec<PathBuf>,

    /// How many sets of random inputs to try
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "inputs")]
    random: u16,

    /// Print JSON, with a stable schema, instead of text
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    params: ParamsArgs,

    #[command(flatten)]
    runner: RunnerArgs,

    #[command(flatten)]
    memory: MemoryArgs,
}

impl Arguments {
    /// Compiles, compares, and says what differs first.
    pub fn run(self) -> Result<()> {
        let mut options = self.model.options(self.target.target()?)?;
        self.params.apply(&mut options);
        self.memory.apply(&mut options)?;
        let (rows, files): (Vec<_>, Vec<_>) = self.inputs.iter().cloned().partition(|file| file.as_os_str() == "rows");
        options.input_rows = !rows.is_empty();
        let progress = Progress::new();
        progress.say(format!("reading {}", options.file));
        let build = compile(self.model.source()?, &options, &mut |stage, _| {
            progress.say(format!("{} after {stage}", options.file));
        })?;
        let build = build.ok_or_else(|| Error::internal("the pipeline ended early"))?;
        crate::assemble::external::refuse(&build.graph)?;
        let sets = match files.as_slice() {
            [] => sets(&build.graph, self.random.into()),
            files => vec![Set {
                name: "given".into(),
                inputs: read_inputs(&build.graph, files)?,
            }],
        };
        let target = &build.options.target;
        progress.say(format!("running {}", options.file));
        let findings = verify(&build, &sets, self.runner.command(target).as_deref(), &|done| {
            progress.say(format!(
                "{}: {done} of {} input sets compared",
                options.file,
                sets.len()
            ));
        })?;
        drop(progress);
        if self.json {
            let value = json!({
                "schema": 1,
                "corerope": env!("CARGO_PKG_VERSION"),
                "model": options.file,
                "target": target.name,
                "cpu": target.cpu.name,
                "ok": findings.ok,
                "sets": findings.sets,
                "passes": findings.passes,
                "layers": findings.layers,
            });
            super::print(&format!("{value:#}\n"))?;
        }
        match findings.error() {
            Some(error) => Err(error),
            None if self.json => Ok(()),
            None => super::print(&text(&findings, &options.file, &target.to_string())),
        }
    }
}

fn text(findings: &Findings, file: &str, target: &str) -> String {
    let good = anstyle::AnsiColor::Green.on_default().bold();
    let elements: u64 = findings.layers.iter().map(|layer| layer.elements).sum();
    format!(
        "{good}ok{good:#} {file}: {} layers, {elements} elements compared on {} sets of inputs ({})\n  \
         the passes leave every output as it was in the model\n  \
         the code for {target} equals the evaluator in every element of every layer\n",
        findings.layers.len(),
        findings.sets.len(),
        findings.sets.join(", "),
    )
}
