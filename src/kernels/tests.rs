//! Every operator of real models: kernel against evaluator, each on the values that the evaluator gives its operands.

use super::lower::lower;
use super::lowered::{Lowered, LoweredOperand};
use super::{Operand, testing};
use crate::data::Source;
use crate::frontend::{self, ReadOptions};
use crate::graph::evaluate::{Arithmetic, evaluate_with};
use crate::graph::{DType, Graph, TensorId};
use crate::kernels::checks::{Random, canonical};
use crate::kernels::emit::Built;
use crate::passes;
use crate::target::Target;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The shared data, or `None` (said on standard error) where it is absent.
fn data(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("COREROPE_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let folder = root.join(folder);
    if !folder.is_dir() {
        eprintln!("{} is absent: its models are not tested", folder.display());
        return None;
    }
    Some(folder)
}

/// The models of a folder, by name.
fn models(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut models: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "tflite"))
        .collect();
    models.sort();
    models
}

/// The model after all passes; `None` if it is not supported.
fn read(path: &Path, target: &Target) -> Option<Graph> {
    let bytes = std::fs::read(path).expect("a model");
    let options = ReadOptions {
        name: "model".to_owned(),
        ..ReadOptions::default()
    };
    let mut graph = frontend::read(Arc::new(Source::Memory(bytes)), &options).ok()?;
    passes::run(&mut graph, arithmetic(target), None, &mut |_, _| {}).expect("passes keep graphs legal");
    Some(graph)
}

fn arithmetic(target: &Target) -> Arithmetic {
    Arithmetic {
        fused_multiply_add: target.machine().fused_multiply_add,
    }
}

/// Runs every call of the lowered model; the number of calls.
fn check(path: &Path, target: &Target, random: &mut Random) -> usize {
    let Some(graph) = read(path, target) else { return 0 };
    let lowering = lower(&graph, target).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let inputs: Vec<Vec<u8>> = graph.inputs.iter().map(|id| random.fill(graph.tensor(*id))).collect();
    let mut values: BTreeMap<TensorId, Vec<u8>> = graph.inputs.iter().copied().zip(inputs.iter().cloned()).collect();
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    evaluate_with(&graph, &inputs, arithmetic(target), &mut |id, result| {
        values.insert(graph.op(id).output(), result.to_vec());
    })
    .expect("inputs of the right sizes");
    for call in &lowering.calls {
        let op = graph.op(call.op);
        let kernel = lowering.kernel(call.kernel.unwrap());
        let lowered = Lowered {
            built: Built {
                function: kernel.function.clone(),
                executions: kernel.executions.clone(),
                layouts: None,
            },
            stem: "",
            schedule: kernel.schedule.clone(),
            operands: call
                .operands
                .iter()
                .map(|operand| match operand {
                    Operand::Tensor(id) => LoweredOperand::Tensor(*id),
                    Operand::Parameter(id) => LoweredOperand::Parameter(lowering.parameter(*id).clone()),
                    Operand::Scratch => LoweredOperand::Scratch,
                    Operand::Row(_) | Operand::Window(_) | Operand::State => unreachable!("calls are of wholes"),
                })
                .collect(),
            scratch: call.scratch,
            overlaps: call.overlaps.clone(),
        };
        let got = testing::run(&graph, call.op, &lowered, target, &values);
        let dtype: DType = graph.tensor(op.output()).dtype;
        let want = canonical(&values[&op.output()], dtype);
        let differ = canonical(&got, dtype)
            .iter()
            .zip(&want)
            .filter(|(got, want)| got != want)
            .count();
        assert_eq!(
            differ,
            0,
            "{} on {target}: {} by {} ({}): bytes that differ",
            path.display(),
            op.describe(),
            kernel.name,
            kernel.schedule
        );
    }
    lowering.calls.len()
}

#[test]
fn operator_cases() {
    let Some(folder) = data("tflite-ops") else { return };
    let mut random = Random::new(21);
    for target in testing::hosts() {
        let calls: usize = models(&folder)
            .iter()
            .map(|path| check(path, &target, &mut random))
            .sum();
        assert!(calls > 150, "{calls} calls on {target}");
    }
}

#[test]
fn real_models() {
    let Some(folder) = data("models") else { return };
    let mut random = Random::new(22);
    for target in testing::hosts() {
        for path in models(&folder) {
            assert!(
                check(&path, &target, &mut random) > 0,
                "{} is supported",
                path.display()
            );
        }
    }
}

#[test]
fn every_target_has_code_for_the_real_models() {
    let Some(folder) = data("models") else { return };
    for target in testing::all_targets() {
        for path in models(&folder) {
            let graph = read(&path, &target).expect("supported");
            let lowering = lower(&graph, &target).expect("kernels");
            for kernel in &lowering.kernels {
                let (bytes, _) = testing::assemble(&kernel.function, &target);
                assert!(bytes < 32 << 10, "{} of {}: {bytes} bytes", kernel.name, path.display());
            }
        }
    }
}
