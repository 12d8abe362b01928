//! `corerope inspect`.

use super::options::{ExternalArgs, InputArgs, MemoryArgs, ModelArgs, StageArgs, TargetArgs};
use super::outside::{InterfaceArgs, ParamsArgs};
use super::progress::Progress;
use crate::error::Result;
use crate::output::{OutFile, write_all};
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  corerope inspect kws.tflite
      Flash, RAM and stack, and for each layer its kernel, code, parameters and live bytes.

  corerope inspect kws.tflite --target riscv64gc-unknown-none-elf --abi lp64f --io arena
      The same for another target and another way to pass inputs.

  corerope inspect kws.tflite --target thumbv7em-none-eabi --schedules
      For each layer the schedule it has and its runners-up: instructions, modelled cycles, code, scratch.

  corerope inspect model.tar
      A model library of TVM: its kernels and what they need, parameters, and memory beside TVM's.

  corerope inspect kws.tflite --json | jq .ram.arena
      The same for scripts.

  corerope inspect kws.tflite --print-after fuse-activation --stop-after fuse-activation
      The graph after one of the passes.";

/// Arguments of `corerope inspect`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,

    /// Print JSON, with a stable schema, instead of tables
    #[arg(long)]
    json: bool,

    /// For each layer also the schedules that it could have had, compiled and counted, and how its operands lie
    #[arg(long)]
    schedules: bool,

    /// Draw the arena over time, every buffer and row, as a picture
    #[arg(long, value_name = "FILE.svg")]
    timeline: Option<PathBuf>,

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
    stages: StageArgs,
}

impl Arguments {
    /// Compiles and prints the report.
    pub fn run(self) -> Result<()> {
        let mut options = self.model.options(self.target.target()?)?;
        self.memory.apply(&mut options)?;
        self.input.apply(&mut options);
        self.params.apply(&mut options);
        self.interface.apply(&mut options);
        self.external.apply(&mut options)?;
        let progress = Progress::new();
        progress.say(format!("reading {}", options.file));
        let Some(build) = self.stages.compile(self.model.source()?, &mut options, &progress)? else {
            return Ok(());
        };
        drop(progress);
        if let Some(path) = &self.timeline {
            write_all(vec![OutFile::text(path, build.timeline())])?;
        }
        let report = match self.schedules {
            true => build.report_with_schedules()?,
            false => build.report(),
        };
        super::print(&match (self.json, self.schedules) {
            (true, _) => report.json(),
            (false, false) => report.text(),
            (false, true) => report.text() + &report.schedules(),
        })
    }
}
