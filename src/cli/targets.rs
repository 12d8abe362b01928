//! `corerope targets`.

use super::options::{Goal, TargetArgs};
use crate::build::shapes::Shapes;
use crate::error::Result;
use crate::target::{CPUS, TRIPLES, Target};
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  corerope build kws.tflite -o kws.a --target aarch64-unknown-none --cpu a64-dotprod
  corerope build kws.tflite -o kws.a --target thumbv7em-none-eabihf --cpu cortex-m7
  corerope targets --json
  corerope targets --shapes --target riscv32imc-unknown-none-elf";

/// Arguments of `corerope targets`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,

    /// For one target, what common shapes of operators get: schedule, instructions for each MAC or element
    #[arg(long)]
    shapes: bool,

    #[command(flatten)]
    target: TargetArgs,

    /// What to prefer where there is a choice, with --shapes
    #[arg(long, value_enum, value_name = "GOAL", default_value_t)]
    optimize: Goal,
}

impl Arguments {
    /// Prints the tables.
    pub fn run(self) -> Result<()> {
        if self.shapes {
            let shapes = Shapes::new(&self.target.target()?, self.optimize.into())?;
            return super::print(&if self.json { shapes.json() } else { shapes.text() });
        }
        super::print(&if self.json { json() } else { text() })
    }
}

fn text() -> String {
    let bold = anstyle::Style::new().bold();
    let mut text = format!("{bold}--target{bold:#} (others of these architectures work as well)\n");
    for (triple, about) in TRIPLES {
        text += &format!("  {triple:<30} {about}\n");
    }
    text += &format!("\n{bold}--cpu{bold:#}\n");
    for cpu in CPUS {
        text += &format!("  {:<21} {:<10} {}\n", cpu.name, cpu.arch.name(), cpu.about);
    }
    text += &format!(
        "\n  cortex-m4, m7, m33 alone have the FPU if the target ends in eabihf. What is built with it still links with \
         soft-float\n  applications. Thumb-1 is not supported (Cortex-M0, M0+, M23).\n\
         \n{bold}--abi{bold:#} (as the application is compiled)\n\
         \x20 lp64, lp64f, lp64d     RISC-V 64  lp64d by default\n\
         \x20 ilp32, ilp32f, ilp32d  RISC-V 32  by default the one of the most float registers that the CPU has\n"
    );
    text
}

fn json() -> String {
    let triples = TRIPLES.iter().map(|(triple, about)| {
        let default = Target::new(Some(triple), None, None);
        serde_json::json!({
            "triple": triple,
            "about": about,
            "arch": default.as_ref().ok().map(|target| target.arch().name()),
            "default_cpu": default.as_ref().ok().map(|target| target.cpu.name),
        })
    });
    let cpus = CPUS
        .iter()
        .map(|cpu| serde_json::json!({ "cpu": cpu.name, "arch": cpu.arch.name(), "about": cpu.about }));
    let value =
        serde_json::json!({ "schema": 1, "targets": triples.collect::<Vec<_>>(), "cpus": cpus.collect::<Vec<_>>() });
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_one() {
        for (triple, _) in TRIPLES {
            Target::new(Some(triple), None, None).unwrap();
            assert!(text().contains(triple));
        }
    }

    #[test]
    fn json_parses() {
        let value: serde_json::Value = serde_json::from_str(&json()).unwrap();
        assert_eq!(value["cpus"].as_array().unwrap().len(), CPUS.len());
        assert!(
            value["targets"]
                .as_array()
                .unwrap()
                .iter()
                .all(|target| target["arch"].is_string())
        );
    }
}
