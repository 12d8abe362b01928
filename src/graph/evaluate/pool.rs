//! Pooling.

use super::convolution::{positions, taps};
use super::{Call, clamp, f32_bytes, f32s, i8s, saturate};
use crate::error::{Error, Result};
use crate::graph::quant::{activation_range, activation_range_f32};
use crate::graph::{Activation, DType, PoolOp, Window};

/// int8 averages are rounded to nearest, halves away from zero, in quantized units without the zero point. A float
/// average is the sum, rows first, divided by the count. A maximum starts from the window's first element.
pub(super) fn pool2d(call: &Call, op: PoolOp, window: &Window, activation: Activation) -> Result<Vec<u8>> {
    let output = call.output();
    match (call.dtype(0..1)?, op) {
        (DType::I8, _) => {
            let quantization = output.quantization.as_ref().ok_or_else(|| call.unsupported())?;
            let range = activation_range(activation, DType::I8, quantization);
            let input = i8s(call.inputs[0], 0);
            let pooled = match op {
                PoolOp::Max => reduce(call, window, &input, i32::max, |max, _| max)?,
                PoolOp::Average => reduce(call, window, &input, i32::wrapping_add, |sum, count| {
                    let half = if sum > 0 { count / 2 } else { -(count / 2) };
                    sum.wrapping_add(half) / count
                })?,
            };
            Ok(pooled.into_iter().map(|q| saturate(q, range)).collect())
        }
        (DType::F32, _) => {
            let range = activation_range_f32(activation);
            let input = f32s(call.inputs[0]);
            let pooled = match op {
                PoolOp::Max => reduce(
                    call,
                    window,
                    &input,
                    |max, x| if x > max { x } else { max },
                    |max, _| max,
                )?,
                PoolOp::Average => reduce(call, window, &input, |sum, x| sum + x, |sum, count| sum / count as f32)?,
            };
            Ok(f32_bytes(pooled.into_iter().map(|x| clamp(x, range))))
        }
        _ => Err(call.unsupported()),
    }
}

/// `finish(step(…step(first, second)…), count)` over the elements of every window.
fn reduce<T: Copy>(
    call: &Call,
    window: &Window,
    input: &[T],
    step: impl Fn(T, T) -> T,
    finish: impl Fn(T, i32) -> T,
) -> Result<Vec<T>> {
    let [batches, h, w, channels] = call.input(0).shape.nhwc();
    let [_, oh, ow, _] = call.output().shape.nhwc();
    let mut results = Vec::with_capacity(batches * oh * ow * channels);
    for image in input.chunks_exact((h * w * channels).max(1)).take(batches) {
        for at in positions([oh, ow]) {
            let taps = taps(window, [h, w], at);
            let pixel = |(_, pixel): (usize, usize)| &image[pixel * channels..][..channels];
            let Some((first, rest)) = taps.split_first() else {
                return Err(Error::model("a pooling window lies wholly in the padding"));
            };
            let start = results.len();
            results.extend_from_slice(pixel(*first));
            for tap in rest {
                for (result, x) in results[start..].iter_mut().zip(pixel(*tap)) {
                    *result = step(*result, *x);
                }
            }
            for result in &mut results[start..] {
                *result = finish(*result, taps.len() as i32);
            }
        }
    }
    Ok(results)
}
