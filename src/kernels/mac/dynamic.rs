//! Dense layers whose weights are computed at run time, or have a zero point: both operands read as they are.

use super::super::emit::{Emitter, build};
use super::super::lowered::{Lowered, LoweredOperand};
use super::super::requantize::{self, Accumulator, Channel, Requantize};
use super::super::{Parameter, ParameterKind};
use super::layer::supported;
use crate::data::{Bytes, Contents};
use crate::error::{Error, Result};
use crate::graph::quant::{activation_range, activation_range_f32};
use crate::graph::{DType, Graph, OpId, OpKind, Tensor, TensorId};
use crate::target::Target;
use cranelift_codegen::ir::types::{F32, I16X8, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};

pub(super) fn lower(graph: &Graph, id: OpId, target: &Target) -> Result<Lowered> {
    let op = graph.op(id);
    supported(graph, op)?;
    let OpKind::FullyConnected { activation } = op.kind else {
        return Err(Error::internal("a dense kernel for another operator").at(op.describe()));
    };
    let (input, weights) = (graph.tensor(op.inputs[0]), graph.tensor(op.inputs[1]));
    let output = graph.tensor(op.output());
    let (channels, depth) = (weights.shape.last(1), weights.shape.last(0));
    let rows = output.shape.elements() / channels.max(1);
    let bias = op.inputs.get(2).copied();
    let mut operands = vec![
        LoweredOperand::Tensor(op.inputs[0]),
        LoweredOperand::Tensor(op.inputs[1]),
        LoweredOperand::Tensor(op.output()),
    ];
    operands.extend(bias.map(LoweredOperand::Tensor));
    let has_bias = bias.is_some();
    let (built, schedule) = if input.dtype == DType::F32 {
        let (min, max) = activation_range_f32(activation);
        let built = build(target, operands.len(), |e| {
            let bias = has_bias.then(|| e.args[3]);
            each(e, rows, channels, depth, 4, bias, |e, x, w, bias| {
                let zero = e.b.ins().f32const(0.0);
                let (sums, _) = e.counted(depth as u64, &[(x, 4), (w, 4)], &[zero], |e, p, sums| {
                    let (x, w) = (e.load(F32, p[0], 0), e.load(F32, p[1], 0));
                    vec![if e.target.machine().fused_multiply_add {
                        e.b.ins().fma(x, w, sums[0])
                    } else {
                        let product = e.b.ins().fmul(x, w);
                        e.b.ins().fadd(sums[0], product)
                    }]
                });
                let bias = bias.map_or(zero, |bias| e.load(F32, bias, 0));
                let sum = e.b.ins().fadd(sums[0], bias);
                e.clamp_f32(sum, min, max)
            });
        });
        (built, "float1 1px x 1ch")
    } else {
        let zeros = (input.affine().1, weights.affine().1);
        let per_channel = weights.quantization.as_ref().is_some_and(|q| q.scale.len() > 1);
        if per_channel {
            return Err(
                Error::unsupported("fully_connected with per-channel weights that are not constant")
                    .at(op.describe())
                    .help("quantize the weights per tensor, or make them constant"),
            );
        }
        let (parameter, requantize) = constants(graph, id, weights, depth, output, bias, target)?;
        operands.push(LoweredOperand::Parameter(parameter));
        let last = operands.len() - 1;
        let built = build(target, operands.len(), |e| {
            let bias = has_bias.then(|| e.args[3]);
            let entry = e.args[last];
            each(e, rows, channels, depth, 1, bias, |e, x, w, bias| {
                let sum = dot(e, x, w, depth, zeros);
                let sum = match bias {
                    Some(bias) => {
                        let bias = e.b.ins().sload32(Emitter::flags(), bias, 0);
                        e.b.ins().iadd(sum, bias)
                    }
                    None => sum,
                };
                let constants = requantize.load(e, entry, 0);
                requantize.apply(e, sum, &constants)
            });
        });
        (
            built,
            if target.machine().simd128 {
                "pairs16 along k"
            } else {
                "scalar 1px x 1ch"
            },
        )
    };
    Ok(Lowered {
        built,
        stem: "dense",
        schedule: schedule.to_owned(),
        operands,
        scratch: None,
        overlaps: vec![],
    })
}

/// The requantization of the one multiplier, and its constants.
fn constants(
    graph: &Graph,
    id: OpId,
    weights: &Tensor,
    depth: usize,
    output: &Tensor,
    bias: Option<TensorId>,
    target: &Target,
) -> Result<(Parameter, Requantize)> {
    let op = graph.op(id);
    let OpKind::FullyConnected { activation } = op.kind else {
        return Err(Error::internal("a dense kernel for another operator").at(op.describe()));
    };
    let quantization = output
        .quantization
        .as_ref()
        .ok_or_else(|| Error::internal(format!("{} is not quantized", output.describe())))?;
    // Weights are unknown: 255 × 255 at most for each product.
    let mut reach = depth as i64 * 255 * 255;
    if bias.is_some() {
        reach += 1 << 31;
    }
    let multiplier = requantize::multipliers(graph, id).first().copied();
    let channel = Channel {
        bias: 0,
        multiplier: multiplier.ok_or_else(|| Error::internal("a dense layer without outputs").at(op.describe()))?,
        low: -reach,
        high: reach,
    };
    let range = activation_range(activation, output.dtype, quantization);
    let requantize = Requantize::new(
        target,
        Accumulator::Scalar,
        &[channel],
        quantization.zero_point[0],
        range,
    );
    let mut bytes = Vec::new();
    requantize.entry(&[channel], 1, &mut bytes);
    let parameter = Parameter {
        name: format!("{}_multiplier", weights.name),
        kind: ParameterKind::Bias,
        tensors: vec![],
        align: 16,
        contents: Contents::Bytes(Bytes::from_vec(bytes)).described(requantize.layout(1)),
    };
    Ok((parameter, requantize))
}

/// For every row and channel, stores what `body(emitter, row, weights, bias)` gives.
#[allow(clippy::too_many_arguments)]
fn each(
    e: &mut Emitter,
    rows: usize,
    channels: usize,
    depth: usize,
    element: usize,
    bias: Option<Value>,
    body: impl FnOnce(&mut Emitter, Value, Value, Option<Value>) -> Value,
) {
    let (x, w, to) = (e.args[0], e.args[1], e.args[2]);
    let vector = (depth * element) as i64;
    let steps = [(x, vector), (to, (channels * element) as i64)];
    e.counted(rows as u64, &steps, &[], |e, p, _| {
        let x = p[0];
        let mut steps = vec![(p[1], element as i64), (w, vector)];
        steps.extend(bias.map(|bias| (bias, 4)));
        e.counted(channels as u64, &steps, &[], |e, p, _| {
            let value = body(e, x, p[1], p.get(2).copied());
            if element == 4 {
                e.store(value, p[0], 0);
            } else {
                e.store_i8(value, p[0], 0);
            }
            vec![]
        });
        vec![]
    });
}

/// Σ (x − zx)(w − zw) in 64 bits, of which the low 32 count.
fn dot(e: &mut Emitter, x: Value, w: Value, depth: usize, (zx, zw): (i32, i32)) -> Value {
    let whole = if e.target.machine().simd128 { depth / 8 } else { 0 };
    let mut sum = e.int(I64, 0);
    let mut ends = vec![x, w];
    if whole > 0 {
        let start = e.splat_int(I32X4, 0);
        let (lanes, after) = e.counted(whole as u64, &[(x, 8), (w, 8)], &[start], |e, p, sums| {
            let operand = |e: &mut Emitter, from: Value, zero: i32| {
                let value = e.load_i8x8(from, 0);
                if zero == 0 {
                    return value;
                }
                let zero = e.splat_int(I16X8, i64::from(zero));
                e.b.ins().isub(value, zero)
            };
            let (x, w) = (operand(e, p[0], zx), operand(e, p[1], zw));
            vec![e.pairs(sums[0], x, w)]
        });
        ends = after;
        for lane in 0..4 {
            let lane = e.b.ins().extractlane(lanes[0], lane);
            let lane = e.b.ins().sextend(I64, lane);
            sum = e.b.ins().iadd(sum, lane);
        }
    }
    let (sums, _) = e.counted(
        (depth - 8 * whole) as u64,
        &[(ends[0], 1), (ends[1], 1)],
        &[sum],
        |e, p, sums| {
            let operand = |e: &mut Emitter, from: Value, zero: i32| {
                let value = e.b.ins().sload8(I64, Emitter::flags(), from, 0);
                if zero == 0 {
                    value
                } else {
                    let zero = e.int(I64, -i64::from(zero));
                    e.b.ins().iadd(value, zero)
                }
            };
            let (x, w) = (operand(e, p[0], zx), operand(e, p[1], zw));
            let product = e.b.ins().imul(x, w);
            vec![e.b.ins().iadd(sums[0], product)]
        },
    );
    sums[0]
}
