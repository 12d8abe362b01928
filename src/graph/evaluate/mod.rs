//! The plain meaning of every operator: the oracle for compiled code, and what folds constants.
//!
//! Integer results are those of TensorFlow Lite Micro's reference kernels bit for bit: double rounding, accumulators of
//! 32 bits that wrap. Float results are defined here to the last bit, by the order of the operations: sums run over
//! kernel rows, kernel columns and input channels in this order from +0, then the bias is added (+0 if there is none),
//! then the result is clamped. With [`Arithmetic::fused_multiply_add`] each step of these sums, and nothing else, is
//! one fused multiply-add. Clamps and maxima are ordered comparisons with a select ([`clamp`]), so a NaN passes.
//!
//! Everything here takes a graph that [`verify`](super::verify) has accepted.

mod convolution;
mod copy;
mod elementwise;
pub mod fixed;
pub mod math;
mod pool;
mod reduce;
mod softmax;

pub use convolution::multipliers;
pub use elementwise::{ADD_LEFT_SHIFT, AddScaling, dequantize, mul_multiplier, quantize, requantize, unary_table};
pub use reduce::mean_multiplier;
pub use softmax::{SoftmaxTable, softmax_row, softmax_table};

use super::{DType, Graph, Op, OpId, OpKind, Shape, Tensor, TensorId};
use crate::error::{Error, Result};
use std::borrow::Cow;

/// What the machine that is imitated does with floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arithmetic {
    /// Whether a step of a sum of products is rounded once ([`crate::target::Machine::fused_multiply_add`]).
    pub fused_multiply_add: bool,
}

/// Results of `op` for the little-endian, unaligned bytes of each operand in order, constants included.
///
/// # Errors
/// Where the operator has no meaning for these types, where a pooling window lies wholly in the padding, and where
/// the operands do not have the sizes that the graph says (an error of the caller).
pub fn evaluate_op(graph: &Graph, op: &Op, inputs: &[&[u8]], arithmetic: Arithmetic) -> Result<Vec<Vec<u8>>> {
    let call = Call {
        graph,
        op,
        inputs,
        arithmetic,
    };
    let result = call.check().and_then(|()| match &op.kind {
        OpKind::Conv2d { window, activation } => convolution::conv2d(&call, window, *activation),
        OpKind::DepthwiseConv2d {
            window,
            multiplier,
            activation,
        } => convolution::depthwise_conv2d(&call, window, *multiplier, *activation),
        OpKind::FullyConnected { activation } => convolution::fully_connected(&call, *activation),
        OpKind::Pool2d { op, window, activation } => pool::pool2d(&call, *op, window, *activation),
        OpKind::Binary { op, activation } => elementwise::binary(&call, *op, *activation),
        OpKind::Unary { op } => elementwise::unary(&call, *op),
        OpKind::Lookup => elementwise::lookup(&call),
        OpKind::Softmax { beta } => softmax::softmax(&call, *beta),
        OpKind::Mean { axes, .. } => reduce::mean(&call, axes),
        OpKind::Pad { amounts, value } => copy::pad(&call, amounts, *value),
        OpKind::Concat { axis } => copy::concat(&call, *axis),
        OpKind::Transpose { permutation } => copy::transpose(&call, permutation),
        OpKind::Reshape | OpKind::Copy => Ok(inputs[0].to_vec()),
        OpKind::Quantize => elementwise::quantize_op(&call),
        OpKind::Dequantize => elementwise::dequantize_op(&call),
        OpKind::External(external) => Err(Error::unsupported(format!(
            "what {} computes is known to its object alone",
            external.symbol
        ))
        .help("build the library and run it in a program of yours")),
    });
    Ok(vec![result.map_err(|error| error.at(op.describe()))?])
}

/// Runs the model on `inputs` (bytes, in the model's order) and returns its outputs, in the model's order.
///
/// # Errors
/// Where the number or the sizes of the inputs are not the model's, and those of [`evaluate_op`].
pub fn evaluate(graph: &Graph, inputs: &[&[u8]], arithmetic: Arithmetic) -> Result<Vec<Vec<u8>>> {
    evaluate_with(graph, inputs, arithmetic, &mut |_, _| {})
}

/// Like [`evaluate`], and shows every operator's result to `observe`, in order. Intermediate results are freed after
/// their last use.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_with(
    graph: &Graph,
    inputs: &[&[u8]],
    arithmetic: Arithmetic,
    observe: &mut dyn FnMut(OpId, &[u8]),
) -> Result<Vec<Vec<u8>>> {
    if inputs.len() != graph.inputs.len() {
        return Err(Error::model(format!(
            "the model has {} inputs, but {} are given",
            graph.inputs.len(),
            inputs.len()
        )));
    }
    let mut values: Vec<Option<Cow<[u8]>>> = vec![None; graph.tensors.len()];
    for (id, bytes) in graph.inputs.iter().zip(inputs) {
        let tensor = graph.tensor(*id);
        if bytes.len() != tensor.bytes() {
            return Err(Error::model(format!(
                "an input of {} bytes is given, but {} bytes are needed",
                bytes.len(),
                tensor.bytes()
            ))
            .at(format!("input {}", tensor.describe())));
        }
        values[id.index()] = Some(Cow::Borrowed(bytes));
    }
    // The operator after which a tensor's value is not read any more; outputs stay.
    let mut last_use = vec![None; graph.tensors.len()];
    for id in graph.op_ids() {
        for operand in graph.op(id).inputs.iter().chain(&graph.op(id).outputs) {
            last_use[operand.index()] = Some(id);
        }
    }
    for id in &graph.outputs {
        last_use[id.index()] = None;
    }
    for id in graph.op_ids() {
        let op = graph.op(id);
        let operands = op
            .inputs
            .iter()
            .map(|id| value(graph, &values, *id))
            .collect::<Result<Vec<_>>>()?;
        let results = evaluate_op(graph, op, &operands, arithmetic)?;
        for (tensor, result) in op.outputs.iter().zip(results) {
            observe(id, &result);
            values[tensor.index()] = Some(Cow::Owned(result));
        }
        for operand in op.inputs.iter().chain(&op.outputs) {
            if last_use[operand.index()] == Some(id) {
                values[operand.index()] = None;
            }
        }
    }
    graph
        .outputs
        .iter()
        .map(|id| value(graph, &values, *id).map(<[u8]>::to_vec))
        .collect()
}

/// Bytes of a constant or of a tensor that has been computed.
fn value<'a>(graph: &'a Graph, values: &'a [Option<Cow<[u8]>>], id: TensorId) -> Result<&'a [u8]> {
    let tensor = graph.tensor(id);
    match (&tensor.data, &values[id.index()]) {
        (Some(data), _) => Ok(data.as_slice()),
        (None, Some(value)) => Ok(value),
        (None, None) => Err(Error::internal("a tensor is read before it is computed").at(tensor.describe())),
    }
}

/// One evaluation of one operator.
struct Call<'a> {
    graph: &'a Graph,
    op: &'a Op,
    inputs: &'a [&'a [u8]],
    arithmetic: Arithmetic,
}

impl<'a> Call<'a> {
    fn check(&self) -> Result<()> {
        let sizes = self.op.inputs.iter().map(|id| self.graph.tensor(*id).bytes());
        if sizes.eq(self.inputs.iter().map(|bytes| bytes.len())) {
            Ok(())
        } else {
            Err(Error::internal("operands do not have the sizes of their tensors"))
        }
    }

    /// Operand `i`'s tensor.
    fn input(&self, i: usize) -> &'a Tensor {
        self.graph.tensor(self.op.inputs[i])
    }

    /// The result's tensor.
    fn output(&self) -> &'a Tensor {
        self.graph.tensor(self.op.output())
    }

    /// The error of an operator that does not exist for these types.
    fn unsupported(&self) -> Error {
        let inputs: Vec<_> = (0..self.inputs.len()).map(|i| self.input(i).dtype.name()).collect();
        Error::unsupported(format!(
            "{} is not defined for {} → {}",
            self.op.kind.name(),
            inputs.join(", "),
            self.output().dtype.name()
        ))
    }

    /// The common type of the operands in `operands` and of the result; the error where they differ.
    fn dtype(&self, operands: std::ops::Range<usize>) -> Result<DType> {
        let dtype = self.output().dtype;
        if operands.into_iter().all(|i| self.input(i).dtype == dtype) {
            Ok(dtype)
        } else {
            Err(self.unsupported())
        }
    }
}

/// `x` limited to `[min, max]` by ordered comparisons: a NaN passes, and so does a zero of either sign.
pub fn clamp(x: f32, (min, max): (f32, f32)) -> f32 {
    let x = if x < min { min } else { x };
    if x > max { max } else { x }
}

/// int8 elements minus `zero_point`.
fn i8s(bytes: &[u8], zero_point: i32) -> Vec<i32> {
    bytes
        .iter()
        .map(|byte| i32::from(*byte as i8).wrapping_sub(zero_point))
        .collect()
}

fn i32s(bytes: &[u8]) -> Vec<i32> {
    let (chunks, _) = bytes.as_chunks();
    chunks.iter().map(|chunk| i32::from_le_bytes(*chunk)).collect()
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks();
    chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

fn f32_bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// `value` in the range of an 8-bit type, as its byte.
fn saturate(value: i32, (min, max): (i32, i32)) -> u8 {
    value.max(min).min(max) as u8
}

/// Distances in elements between neighbours along each dimension, row-major.
fn strides(shape: &Shape) -> Vec<usize> {
    let mut strides = vec![1; shape.rank()];
    for i in (1..shape.rank()).rev() {
        strides[i - 1] = strides[i] * shape.0[i];
    }
    strides
}

/// Σ index × stride for all indices below `dims`, in row-major order.
fn offsets(dims: &[usize], strides: &[usize]) -> Vec<usize> {
    dims.iter().zip(strides).fold(vec![0], |bases, (dim, stride)| {
        let along = |base| (0..*dim).map(move |i| base + i * stride);
        bases.into_iter().flat_map(along).collect()
    })
}

#[cfg(test)]
mod tests;
