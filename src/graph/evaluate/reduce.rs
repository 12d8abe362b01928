//! Reductions over dimensions.

use super::{Call, f32_bytes, f32s, i8s, offsets, saturate, strides};
use crate::error::Result;
use crate::graph::quant::{Multiplier, range};
use crate::graph::{DType, Shape};

/// The multiplier of an int8 mean of `count` elements: s_in / s_out, then 1 / count folded into the mantissa as TFLM
/// does it, truncated.
pub fn mean_multiplier(input_scale: f32, output_scale: f32, count: usize) -> Multiplier {
    let scale = Multiplier::new(f64::from(input_scale) / f64::from(output_scale));
    let count = count.max(1) as i64;
    let shift = (count.ilog2() as i32).min(32).min(31 + scale.shift);
    Multiplier {
        mantissa: ((i64::from(scale.mantissa) << shift) / count) as i32,
        shift: scale.shift - shift,
    }
}

/// Sums run over the input in row-major order; a float mean is the sum divided by the count.
pub(super) fn mean(call: &Call, axes: &[usize]) -> Result<Vec<u8>> {
    let input = call.input(0);
    let output = call.output();
    let dims = &input.shape.0;
    let count: usize = axes.iter().map(|axis| dims[*axis]).product();
    // Strides of the result as if reduced dimensions stayed; along those it does not move.
    let kept = Shape(
        (0..dims.len())
            .map(|i| if axes.contains(&i) { 1 } else { dims[i] })
            .collect(),
    );
    let mut strides = strides(&kept);
    for axis in axes {
        strides[*axis] = 0;
    }
    let offsets = offsets(dims, &strides);
    match call.dtype(0..1)? {
        DType::I8 => {
            let mut sums = vec![0i32; output.shape.elements()];
            for (q, offset) in i8s(call.inputs[0], 0).into_iter().zip(offsets) {
                sums[offset] = sums[offset].wrapping_add(q);
            }
            let ((input_scale, input_zero), (output_scale, output_zero)) = (input.affine(), output.affine());
            let multiplier = mean_multiplier(input_scale, output_scale, count);
            let zeros = input_zero.wrapping_mul(count as i32);
            let requantize = |sum: i32| multiplier.apply(sum.wrapping_sub(zeros)).wrapping_add(output_zero);
            Ok(sums
                .into_iter()
                .map(|sum| saturate(requantize(sum), range(DType::I8)))
                .collect())
        }
        DType::F32 => {
            let mut sums = vec![0f32; output.shape.elements()];
            for (x, offset) in f32s(call.inputs[0]).into_iter().zip(offsets) {
                sums[offset] += x;
            }
            Ok(f32_bytes(sums.into_iter().map(|sum| sum / count as f32)))
        }
        _ => Err(call.unsupported()),
    }
}
