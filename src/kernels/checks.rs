//! Holds kernels against the evaluator: every case runs on each CPU that this machine has and once without vectors,
//! between guard pages, and is compiled for every target.

use super::lower::lower_op;
use super::rows::row_form;
use super::testing;
use crate::data::Bytes;
use crate::graph::evaluate::{Arithmetic, evaluate_op};
use crate::graph::{DType, Graph, Op, OpId, OpKind, Quantization, Shape, Tensor, TensorId};
use crate::target::{Cpu, Machine, Target};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// A tensor, quantized if `affine` is given.
pub fn tensor(dtype: DType, dims: &[usize], affine: Option<(f32, i32)>) -> Tensor {
    Tensor {
        name: format!("{}x{}", dtype.name(), dims.len()),
        dtype,
        shape: Shape(dims.to_vec()),
        quantization: affine.map(|(scale, zero)| Quantization::per_tensor(scale, zero)),
        data: None,
    }
}

/// An int8 tensor.
pub fn int8(dims: &[usize], scale: f32, zero: i32) -> Tensor {
    tensor(DType::I8, dims, Some((scale, zero)))
}

/// A binary32 tensor.
pub fn float(dims: &[usize]) -> Tensor {
    tensor(DType::F32, dims, None)
}

/// `tensor` as a constant.
pub fn constant(mut tensor: Tensor, bytes: Vec<u8>) -> Tensor {
    assert_eq!(bytes.len(), tensor.bytes());
    tensor.data = Some(Bytes::from_vec(bytes));
    tensor
}

/// A graph of one operator.
pub fn graph(kind: OpKind, inputs: Vec<Tensor>, output: Tensor) -> Graph {
    let mut graph = Graph {
        name: "case".to_owned(),
        ..Graph::default()
    };
    let inputs: Vec<TensorId> = inputs.into_iter().map(|tensor| graph.add_tensor(tensor)).collect();
    let output = graph.add_tensor(output);
    graph.inputs = inputs
        .iter()
        .copied()
        .filter(|id| graph.tensor(*id).data.is_none())
        .collect();
    graph.outputs = vec![output];
    graph.ops.push(Op {
        name: "op".to_owned(),
        source: 0,
        kind,
        inputs,
        outputs: vec![output],
    });
    graph
}

/// The host without vectors: the code that scalar targets get, on a machine that can run it.
fn scalar() -> Target {
    static CPU: OnceLock<Cpu> = OnceLock::new();
    let host = Target::new(None, None, None).expect("tests run on a supported host");
    let cpu = CPU.get_or_init(|| Cpu {
        arch: host.cpu.arch,
        name: "scalar",
        about: "",
        features: host.cpu.features,
        machine: Machine {
            simd128: false,
            ..host.cpu.machine
        },
    });
    Target { cpu, ..host }
}

/// Numbers that look random, the same in every run.
pub struct Random(u64);

impl Random {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next 32 bits.
    pub fn word(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// Elements of `tensor`: all bytes, or floats of a few magnitudes with both zeros.
    pub fn fill(&mut self, tensor: &Tensor) -> Vec<u8> {
        match tensor.dtype {
            DType::F32 => (0..tensor.shape.elements())
                .flat_map(|_| {
                    let x = self.word() as i32 as f32 / 2f32.powi(31);
                    let x = match self.word() % 16 {
                        0 => 0.0,
                        1 => -0.0,
                        2..5 => x * 100.0,
                        _ => x * 8.0,
                    };
                    x.to_le_bytes()
                })
                .collect(),
            _ => (0..tensor.bytes()).map(|_| (self.word() >> 8) as u8).collect(),
        }
    }
}

/// Bytes with every NaN as one and the same.
pub fn canonical(bytes: &[u8], dtype: DType) -> Vec<u8> {
    if dtype != DType::F32 {
        return bytes.to_vec();
    }
    let (words, _) = bytes.as_chunks();
    let one = |word: &[u8; 4]| {
        let x = f32::from_le_bytes(*word);
        if x.is_nan() { f32::NAN } else { x }.to_le_bytes()
    };
    words.iter().flat_map(one).collect()
}

/// Runs the only operator of `graph` on `values` everywhere and compares; returns the schedules used.
pub fn check_on(graph: &Graph, values: &BTreeMap<TensorId, Vec<u8>>) -> Vec<String> {
    let id = OpId(0);
    let op = graph.op(id);
    let inputs: Vec<Vec<u8>> = op
        .inputs
        .iter()
        .map(|id| match &graph.tensor(*id).data {
            Some(data) => data.as_slice().to_vec(),
            None => values[id].clone(),
        })
        .collect();
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let dtype = graph.tensor(op.output()).dtype;
    let mut schedules = Vec::new();
    let describe = || {
        let tensors: Vec<String> = graph.tensors.iter().map(Tensor::describe).collect();
        format!("{:?} {tensors:?}", op.kind)
    };
    for target in testing::hosts().into_iter().chain([scalar()]) {
        let arithmetic = Arithmetic {
            fused_multiply_add: target.machine().fused_multiply_add,
        };
        let want = evaluate_op(graph, op, &inputs, arithmetic).expect("a valid case");
        let lowered = lower_op(graph, id, &target).expect("a kernel").expect("not a view");
        let got = testing::run(graph, id, &lowered, &target, values);
        let (got, want) = (canonical(&got, dtype), canonical(&want[0], dtype));
        if let Some(i) = (0..want.len()).find(|i| got[*i] != want[*i]) {
            panic!(
                "{} on {target}, {}: byte {i} is {} instead of {}\n{}",
                describe(),
                lowered.schedule,
                got[i],
                want[i],
                lowered.built.function.display()
            );
        }
        if let Some(form) = row_form(graph, id, &target).expect("a kernel") {
            let rows = canonical(&testing::run_rows(graph, id, &form, &target, values), dtype);
            assert!(rows == want, "{} row by row on {target}", describe());
        }
        schedules.push(lowered.schedule);
    }
    schedules
}

/// [`check_on`] random values.
pub fn check(graph: &Graph, random: &mut Random) -> Vec<String> {
    let values = graph
        .inputs
        .iter()
        .map(|id| (*id, random.fill(graph.tensor(*id))))
        .collect();
    check_on(graph, &values)
}

/// Compiles the only operator of `graph` for every target; the largest code size in bytes.
pub fn compile(graph: &Graph) -> usize {
    testing::all_targets()
        .iter()
        .map(|target| {
            let lowered = lower_op(graph, OpId(0), target).expect("a kernel").expect("not a view");
            let (bytes, text) = testing::assemble(&lowered.built.function, target);
            // The instructions and pseudo-instructions with which a library function would be called.
            for call in ["call", "bl ", "blr", "load_ext_name"] {
                let found = text.lines().find(|line| line.trim_start().starts_with(call));
                assert_eq!(found, None, "{target}");
            }
            bytes
        })
        .max()
        .unwrap_or(0)
}
