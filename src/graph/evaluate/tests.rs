//! Small cases of every operator, computed by hand, and the run of a whole graph.

use super::*;
use crate::data::Bytes;
use crate::graph::{Activation, BinaryOp, Padding, PoolOp, Quantization, Tensor, UnaryOp, Window};

mod copy;
mod elementwise;
mod multiply;
mod pool;
mod rows;

const PLAIN: Arithmetic = Arithmetic {
    fused_multiply_add: false,
};

fn tensor(dtype: DType, shape: &[usize], quantization: Option<(f32, i32)>) -> Tensor {
    Tensor {
        name: String::new(),
        dtype,
        shape: Shape(shape.to_vec()),
        quantization: quantization.map(|(scale, zero_point)| Quantization::per_tensor(scale, zero_point)),
        data: None,
    }
}

fn i8(shape: &[usize], scale: f32, zero_point: i32) -> Tensor {
    tensor(DType::I8, shape, Some((scale, zero_point)))
}

fn f32(shape: &[usize]) -> Tensor {
    tensor(DType::F32, shape, None)
}

fn i32(shape: &[usize]) -> Tensor {
    tensor(DType::I32, shape, None)
}

/// The result of one operator whose operands are the first tensors and whose result is the last.
fn run(kind: OpKind, tensors: Vec<Tensor>, inputs: &[&[u8]], arithmetic: Arithmetic) -> Result<Vec<u8>> {
    let ids: Vec<_> = (0..tensors.len() as u32).map(TensorId).collect();
    let (output, operands) = ids.split_last().expect("there is a result");
    let op = Op {
        name: "op".into(),
        source: 0,
        kind,
        inputs: operands.to_vec(),
        outputs: vec![*output],
    };
    let graph = Graph {
        tensors,
        ..Graph::default()
    };
    evaluate_op(&graph, &op, inputs, arithmetic).map(|mut results| results.remove(0))
}

fn q(values: &[i8]) -> Vec<u8> {
    values.iter().map(|q| *q as u8).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    f32_bytes(values.iter().copied())
}

fn ints(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Result of an int8 operator.
#[track_caller]
fn run_i8(kind: OpKind, tensors: Vec<Tensor>, inputs: &[&[u8]]) -> Vec<i8> {
    let result = run(kind, tensors, inputs, PLAIN).expect("the operator is defined");
    result.into_iter().map(|byte| byte as i8).collect()
}

/// Result of a float operator.
#[track_caller]
fn run_f32(kind: OpKind, tensors: Vec<Tensor>, inputs: &[&[f32]]) -> Vec<f32> {
    let bytes: Vec<_> = inputs.iter().map(|values| floats(values)).collect();
    let bytes: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    f32s(&run(kind, tensors, &bytes, PLAIN).expect("the operator is defined"))
}

fn window(size: [usize; 2]) -> Window {
    Window {
        size,
        stride: [1, 1],
        dilation: [1, 1],
        padding: Padding::default(),
    }
}

#[test]
fn undefined_types_are_an_error() {
    let dense = OpKind::FullyConnected {
        activation: Activation::None,
    };
    let result = run(dense, vec![i32(&[1, 1]); 3], &[&ints(&[1]), &ints(&[1])], PLAIN);
    let error = result.expect_err("dense layers of int32 are not defined");
    assert_eq!(
        error.to_string(),
        "fully_connected is not defined for int32, int32 → int32 (at operator 0 fully_connected \"op\")"
    );
}

/// x → relu → y; y + c → z; outputs z, x, y.
fn chain() -> Graph {
    let mut graph = Graph::default();
    let [x, y, c, z] = [(); 4].map(|()| graph.add_tensor(f32(&[2])));
    graph.tensors[c.index()].data = Some(Bytes::from_vec(floats(&[10.0, 20.0])));
    let op = |kind, inputs: &[TensorId], output| Op {
        name: String::new(),
        source: 0,
        kind,
        inputs: inputs.to_vec(),
        outputs: vec![output],
    };
    graph.ops = vec![
        op(OpKind::Unary { op: UnaryOp::Relu }, &[x], y),
        op(elementwise::binary(BinaryOp::Add), &[y, c], z),
    ];
    graph.inputs = vec![x];
    graph.outputs = vec![z, x, y];
    graph
}

#[test]
fn graphs_run_in_order_and_show_each_result() {
    let mut seen = Vec::new();
    let input = floats(&[-1.0, 2.0]);
    let outputs = evaluate_with(&chain(), &[&input], PLAIN, &mut |id, bytes| {
        seen.push((id, f32s(bytes)))
    });
    let outputs: Vec<_> = outputs
        .expect("the graph is valid")
        .iter()
        .map(|bytes| f32s(bytes))
        .collect();
    assert_eq!(outputs, [[10.0, 22.0], [-1.0, 2.0], [0.0, 2.0]]);
    assert_eq!(seen, [(OpId(0), vec![0.0, 2.0]), (OpId(1), vec![10.0, 22.0])]);
}

#[test]
fn wrong_inputs_are_refused() {
    let error = evaluate(&chain(), &[], PLAIN).expect_err("an input is missing");
    assert_eq!(error.to_string(), "the model has 1 inputs, but 0 are given");
    let error = evaluate(&chain(), &[&[0; 4]], PLAIN).expect_err("the input is too short");
    assert_eq!(
        error.to_string(),
        "an input of 4 bytes is given, but 8 bytes are needed (at input \"\" float32[2])"
    );
}
