//! Elementwise operators, with and without broadcasting, and conversions between types.

use super::{Call, clamp, f32_bytes, f32s, fixed, i8s, math, offsets, saturate, strides};
use crate::error::Result;
use crate::graph::quant::{Multiplier, activation_range, activation_range_f32, range, rounding_divide_by_pot};
use crate::graph::{Activation, BinaryOp, DType, Quantization, Shape, Tensor, UnaryOp};

/// Left shift of the operands of an int8 sum or difference before they are rescaled.
pub const ADD_LEFT_SHIFT: u32 = 20;

/// Multipliers of an int8 sum or difference: both operands are brought to twice the larger scale, then the result to
/// the output's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddScaling {
    /// Of (a − zero point) << [`ADD_LEFT_SHIFT`], and of the same for b.
    pub inputs: [Multiplier; 2],
    /// Of the sum or difference.
    pub output: Multiplier,
}

impl AddScaling {
    /// The multipliers for these scales.
    pub fn new(a: f32, b: f32, output: f32) -> Self {
        let twice_max = 2.0 * f64::from(a.max(b));
        let left = f64::from(1u32 << ADD_LEFT_SHIFT);
        AddScaling {
            inputs: [a, b].map(|scale| Multiplier::new(f64::from(scale) / twice_max)),
            output: Multiplier::new(twice_max / (left * f64::from(output))),
        }
    }
}

/// Multiplier of an int8 product.
pub fn mul_multiplier(a: f32, b: f32, output: f32) -> Multiplier {
    Multiplier::new(f64::from(a) * f64::from(b) / f64::from(output))
}

/// Index into an operand of `shape` for every element of `output`, by numpy's broadcasting rules.
fn broadcast(shape: &Shape, output: &Shape) -> Vec<usize> {
    let missing = output.rank() - shape.rank();
    let along = strides(shape);
    let along: Vec<usize> = (0..output.rank())
        .map(|i| match i.checked_sub(missing) {
            Some(i) if shape.0[i] != 1 => along[i],
            _ => 0,
        })
        .collect();
    offsets(&output.0, &along)
}

/// `f` of each pair of elements.
fn pairs<T: Copy>(call: &Call, a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> Vec<T> {
    let output = &call.output().shape;
    let [i, j] = [0, 1].map(|operand| broadcast(&call.input(operand).shape, output));
    i.into_iter().zip(j).map(|(i, j)| f(a[i], b[j])).collect()
}

pub(super) fn binary(call: &Call, op: BinaryOp, activation: Activation) -> Result<Vec<u8>> {
    let [a, b] = [call.inputs[0], call.inputs[1]];
    match call.dtype(0..2)? {
        DType::I8 => {
            let ((s_a, z_a), (s_b, z_b)) = (call.input(0).affine(), call.input(1).affine());
            let (s_out, z_out) = call.output().affine();
            let quantization = call.output().quantization.as_ref().ok_or_else(|| call.unsupported())?;
            let range = activation_range(activation, DType::I8, quantization);
            let (a, b) = (i8s(a, z_a), i8s(b, z_b));
            let results = if op == BinaryOp::Mul {
                let multiplier = mul_multiplier(s_a, s_b, s_out);
                pairs(call, &a, &b, |a, b| multiplier.apply(a.wrapping_mul(b)))
            } else {
                let scaling = AddScaling::new(s_a, s_b, s_out);
                pairs(call, &a, &b, |a, b| {
                    let a = scaling.inputs[0].apply(a << ADD_LEFT_SHIFT);
                    let b = scaling.inputs[1].apply(b << ADD_LEFT_SHIFT);
                    let sum = if op == BinaryOp::Add {
                        a.wrapping_add(b)
                    } else {
                        a.wrapping_sub(b)
                    };
                    scaling.output.apply(sum)
                })
            };
            Ok(results
                .into_iter()
                .map(|q| saturate(q.wrapping_add(z_out), range))
                .collect())
        }
        DType::F32 => {
            let range = activation_range_f32(activation);
            let results = pairs(call, &f32s(a), &f32s(b), |a, b| match op {
                BinaryOp::Add => clamp(a + b, range),
                BinaryOp::Sub => clamp(a - b, range),
                BinaryOp::Mul => clamp(a * b, range),
            });
            Ok(f32_bytes(results))
        }
        _ => Err(call.unsupported()),
    }
}

/// An int8 operator with one operand as a table: entry `q + 128` is the result for `q`.
///
/// The logistic function and tanh are TFLM's fixed-point ones, whose results have the scales 1/256 (zero point −128)
/// and 1/128 (zero point 0). The others requantize and clamp. TFLM's RELU6 does not requantize; where input and output
/// are quantized alike, as TFLM takes for granted, both are the same.
pub fn unary_table(op: UnaryOp, input: &Quantization, output: &Quantization) -> [i8; 256] {
    let (s_in, z_in) = (input.scale[0], input.zero_point[0]);
    let activation = match op {
        UnaryOp::Relu => Activation::Relu,
        UnaryOp::Relu6 => Activation::Relu6,
        UnaryOp::ReluN1To1 => Activation::ReluN1To1,
        UnaryOp::Logistic => {
            let logistic = |x| rounding_divide_by_pot(fixed::logistic(x), 31 - 8) - 128;
            return saturating_table(s_in, z_in, logistic);
        }
        UnaryOp::Tanh => {
            let tanh = |x| rounding_divide_by_pot(fixed::tanh(x), 31 - 7);
            return saturating_table(s_in, z_in, tanh);
        }
    };
    let multiplier = Multiplier::new(f64::from(s_in) / f64::from(output.scale[0]));
    let range = activation_range(activation, DType::I8, output);
    table(|q| {
        let real = multiplier.apply(q.wrapping_sub(z_in));
        real.wrapping_add(output.zero_point[0]).max(range.0).min(range.1)
    })
}

fn table(f: impl Fn(i32) -> i32) -> [i8; 256] {
    std::array::from_fn(|i| f(i as i32 - 128).clamp(-128, 127) as i8)
}

/// A function of Q4 that has reached its limits where |x| ≥ 15 or a little less.
fn saturating_table(scale: f32, zero_point: i32, f: impl Fn(i32) -> i32) -> [i8; 256] {
    let one = 2f64.powi(31 - 4);
    let multiplier = Multiplier::new(f64::from(scale) * one);
    let radius = (15.0 * one / 2f64.powi(multiplier.shift)).floor() as i32;
    table(|q| match q.wrapping_sub(zero_point) {
        x if x <= -radius => -128,
        x if x >= radius => 127,
        x => f(multiplier.apply(x)),
    })
}

pub(super) fn unary(call: &Call, op: UnaryOp) -> Result<Vec<u8>> {
    match (
        call.dtype(0..1)?,
        &call.input(0).quantization,
        &call.output().quantization,
    ) {
        (DType::I8, Some(input), Some(output)) => {
            let table = unary_table(op, input, output);
            Ok(look_up(call.inputs[0], &table.map(|q| q as u8)))
        }
        (DType::F32, ..) => {
            let f = |x: f32| match op {
                UnaryOp::Relu => clamp(x, activation_range_f32(Activation::Relu)),
                UnaryOp::Relu6 => clamp(x, activation_range_f32(Activation::Relu6)),
                UnaryOp::ReluN1To1 => clamp(x, activation_range_f32(Activation::ReluN1To1)),
                UnaryOp::Logistic => math::logistic(x),
                UnaryOp::Tanh => math::tanh(x),
            };
            Ok(f32_bytes(f32s(call.inputs[0]).into_iter().map(f)))
        }
        _ => Err(call.unsupported()),
    }
}

/// `table[q + 128]` for every int8 `q`.
fn look_up(input: &[u8], table: &[u8]) -> Vec<u8> {
    // Adding 128 to an int8 flips its top bit.
    input.iter().map(|q| table[usize::from(q ^ 0x80)]).collect()
}

pub(super) fn lookup(call: &Call) -> Result<Vec<u8>> {
    match (call.dtype(0..2)?, call.inputs[1].len()) {
        (DType::I8, 256) => Ok(look_up(call.inputs[0], call.inputs[1])),
        _ => Err(call.unsupported()),
    }
}

/// x / scale, rounded to nearest with halves away from zero, plus the zero point, saturated. A NaN gives the zero point.
pub fn quantize(x: f32, scale: f32, zero_point: i32, dtype: DType) -> i32 {
    let (min, max) = range(dtype);
    // Saturates at the ends of i32 and turns a NaN into 0.
    let q = (x / scale).round() as i32;
    q.saturating_add(zero_point).max(min).min(max)
}

/// One quantized number under another quantization.
pub fn requantize(q: i32, input: &Tensor, output: &Tensor) -> i32 {
    let ((s_in, z_in), (s_out, z_out)) = (input.affine(), output.affine());
    let (min, max) = range(output.dtype);
    let multiplier = Multiplier::new(f64::from(s_in) / f64::from(s_out));
    let real = multiplier.apply(q.wrapping_sub(z_in));
    real.wrapping_add(z_out).max(min).min(max)
}

/// scale × (q − zero point).
pub fn dequantize(q: i32, scale: f32, zero_point: i32) -> f32 {
    scale * q.wrapping_sub(zero_point) as f32
}

/// The numbers of an 8-bit operand.
fn bytes_of(call: &Call) -> Option<Vec<i32>> {
    match call.input(0).dtype {
        DType::I8 => Some(i8s(call.inputs[0], 0)),
        DType::U8 => Some(call.inputs[0].iter().map(|q| i32::from(*q)).collect()),
        _ => None,
    }
}

pub(super) fn quantize_op(call: &Call) -> Result<Vec<u8>> {
    let (input, output) = (call.input(0), call.output());
    let (scale, zero_point) = output.affine();
    if !matches!(output.dtype, DType::I8 | DType::U8) {
        return Err(call.unsupported());
    }
    if input.dtype == DType::F32 {
        let quantized = |x| quantize(x, scale, zero_point, output.dtype) as u8;
        return Ok(f32s(call.inputs[0]).into_iter().map(quantized).collect());
    }
    let values = bytes_of(call).ok_or_else(|| call.unsupported())?;
    Ok(values.into_iter().map(|q| requantize(q, input, output) as u8).collect())
}

pub(super) fn dequantize_op(call: &Call) -> Result<Vec<u8>> {
    let (scale, zero_point) = call.input(0).affine();
    match (bytes_of(call), call.output().dtype) {
        (Some(values), DType::F32) => Ok(f32_bytes(values.into_iter().map(|q| dequantize(q, scale, zero_point)))),
        _ => Err(call.unsupported()),
    }
}
