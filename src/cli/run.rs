//! `corerope run`.

use super::options::{ModelArgs, RunnerArgs, TargetArgs};
use super::outside::ParamsArgs;
use super::progress::Progress;
use super::tensors;
use crate::build::compile;
use crate::error::{Code, Error, Result};
use crate::graph::{DType, Graph, Tensor};
use crate::harness::{self, Kind};
use crate::output::{OutFile, write_all};
use clap::Args;
use std::fs::File;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  corerope run kws.tflite --input audio.npy
      Run once and print the outputs.

  corerope run kws.tflite --input audio.bin --output scores.npy
      Inputs and outputs are raw little-endian elements, or NumPy files if their names end with .npy.

  corerope run kws.tflite --target aarch64-unknown-linux-gnu --runner 'qemu-aarch64 -cpu max' --input audio.bin
      Run the code for another machine under an emulator. QEMU's user mode is found without --runner.";

/// Arguments of `corerope run`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,

    /// An input: raw elements or .npy; once for each input of the model, in its order
    #[arg(short, long = "input", value_name = "FILE")]
    inputs: Vec<PathBuf>,

    /// Where an output goes: raw elements or .npy; once for each output of the model [default: print them]
    #[arg(short, long = "output", value_name = "FILE")]
    outputs: Vec<PathBuf>,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    params: ParamsArgs,

    #[command(flatten)]
    runner: RunnerArgs,
}

impl Arguments {
    /// Compiles, runs once, and writes or prints the outputs.
    pub fn run(self) -> Result<()> {
        let mut options = self.model.options(self.target.target()?)?;
        self.params.apply(&mut options);
        let progress = Progress::new();
        progress.say(format!("reading {}", options.file));
        let source = self.model.source()?;
        let graph = crate::build::read(source.clone(), &options)?;
        crate::assemble::external::refuse(&graph)?;
        let inputs = read_inputs(&graph, &self.inputs)?;
        if !self.outputs.is_empty() && self.outputs.len() != graph.outputs.len() {
            return Err(count("output", &graph, &graph.outputs, self.outputs.len()));
        }
        let say = |stage: &str| progress.say(format!("{} after {stage}", options.file));
        let build = compile(source, &options, &mut |stage, _| say(stage))?;
        let build = build.ok_or_else(|| Error::internal("the pipeline ended early"))?;
        let target = &build.options.target;
        let program = harness::program(&build.model_code(), build.kernels.clone(), Kind::Run)?;
        progress.say(format!("running {}", options.file));
        let runs = program.run(self.runner.command(target).as_deref(), &[inputs])?;
        let results = runs.into_iter().next().map(|run| run.outputs).unwrap_or_default();
        drop(progress);

        let tensors = build.graph.outputs.iter().map(|id| build.graph.tensor(*id));
        if self.outputs.is_empty() {
            let members = build.names.outputs.iter();
            let lines = tensors
                .zip(&results)
                .zip(members)
                .map(|((tensor, data), name)| show(tensor, data, name));
            return super::print(&lines.collect::<String>());
        }
        let files = tensors.zip(results).zip(&self.outputs).map(|((tensor, data), path)| {
            let npy = path.extension().is_some_and(|extension| extension == "npy");
            let bytes = if npy { tensors::encode(tensor, &data) } else { data };
            OutFile::new(path, move |out| {
                out.write_all(&bytes).map_err(|error| Error::io("write", path, &error))
            })
        });
        write_all(files.collect()).map(drop)
    }
}

/// The inputs of the model from files.
pub(super) fn read_inputs(graph: &Graph, files: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    if files.len() != graph.inputs.len() {
        return Err(count("input", graph, &graph.inputs, files.len()));
    }
    let read = |(path, id): (&PathBuf, &crate::graph::TensorId)| {
        let file = File::open(path).map_err(|error| Error::io("read", path, &error))?;
        tensors::read(file, path, graph.tensor(*id))
    };
    files.iter().zip(&graph.inputs).map(read).collect()
}

fn count(what: &str, graph: &Graph, ids: &[crate::graph::TensorId], given: usize) -> Error {
    let list: Vec<String> = ids.iter().map(|id| graph.tensor(*id).describe()).collect();
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let n = ids.len();
    let message = format!(
        "the model has {n} {what}{}, but --{what} names {given} file{}",
        plural(n),
        plural(given)
    );
    Error::new(Code::Usage, message).help(match n {
        0 => format!("leave --{what} out"),
        _ => format!("give --{what} FILE for each of: {}", list.join(", ")),
    })
}

/// `identity int8[1,12]: -128 -128 127 …`, and the real values where there are others.
fn show(tensor: &Tensor, data: &[u8], name: &str) -> String {
    const SHOWN: usize = 64;
    let width = tensor.dtype.bytes();
    let values: Vec<f64> = (data.chunks_exact(width).take(SHOWN))
        .map(|bytes| crate::verify::element(tensor.dtype, bytes))
        .collect();
    let more = if tensor.shape.elements() > SHOWN { " …" } else { "" };
    let line = |values: &[f64]| values.iter().map(|x| format!(" {x}")).collect::<String>();
    let mut text = format!(
        "{name} {}{}:{}{more}\n",
        tensor.dtype.name(),
        tensor.shape,
        line(&values)
    );
    if tensor.dtype != DType::F32 && tensor.quantization.is_some() {
        let (scale, zero) = tensor.affine();
        let real: String = values
            .iter()
            .map(|q| format!(" {}", scale * (*q as f32 - zero as f32)))
            .collect();
        text += &format!("  real values:{real}{more}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Quantization, Shape};

    #[test]
    fn outputs_are_shown_with_their_real_values() {
        let mut tensor = Tensor {
            name: "y".into(),
            dtype: DType::I8,
            shape: Shape(vec![1, 2]),
            quantization: Some(Quantization::per_tensor(0.5, -128)),
            data: None,
        };
        assert_eq!(
            show(&tensor, &[0x80, 0x7f], "y"),
            "y int8[1,2]: -128 127\n  real values: 0 127.5\n"
        );
        tensor.shape = Shape(vec![65]);
        assert!(show(&tensor, &[0; 65], "y").contains(" …\n"));
    }
}
