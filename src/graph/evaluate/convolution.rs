//! Convolutions and dense layers.

use super::{Call, clamp, f32_bytes, f32s, i8s, i32s, saturate};
use crate::error::Result;
use crate::graph::quant::{Multiplier, activation_range, activation_range_f32};
use crate::graph::{Activation, DType, OpKind, Tensor, Window};

/// Requantization multiplier of each output channel of a convolution or dense layer, or a single one for all.
///
/// Convolutions: s_in × s_w / s_out in doubles. Dense layers: the product is rounded to a float first, as TFLM does.
pub fn multipliers(kind: &OpKind, input: &Tensor, weights: &Tensor, output: &Tensor) -> Vec<Multiplier> {
    let (s_in, s_out) = (input.affine().0, f64::from(output.affine().0));
    let scales = weights.quantization.as_ref().map_or(&[1.0][..], |q| &q.scale);
    let real = |s_w: &f32| match kind {
        OpKind::FullyConnected { .. } => f64::from(s_in * s_w) / s_out,
        _ => f64::from(s_in) * f64::from(*s_w) / s_out,
    };
    scales.iter().map(|s_w| Multiplier::new(real(s_w))).collect()
}

/// Positions of the window that lie inside an input of `[height, width]` for the output element at `[y, x]`:
/// (index in the kernel, index of the pixel), rows first.
pub(super) fn taps(window: &Window, [height, width]: [usize; 2], [y, x]: [usize; 2]) -> Vec<(usize, usize)> {
    let inside = |out: usize, axis: usize, before: usize, size: usize| {
        (0..window.size[axis]).filter_map(move |k| {
            let i = (out * window.stride[axis] + k * window.dilation[axis]).checked_sub(before)?;
            (i < size).then_some((k, i))
        })
    };
    inside(y, 0, window.padding.top, height)
        .flat_map(|(ky, iy)| {
            inside(x, 1, window.padding.left, width).map(move |(kx, ix)| (ky * window.size[1] + kx, iy * width + ix))
        })
        .collect()
}

/// All positions `[y, x]` of a plane, rows first.
pub(super) fn positions([height, width]: [usize; 2]) -> impl Iterator<Item = [usize; 2]> {
    (0..height).flat_map(move |y| (0..width).map(move |x| [y, x]))
}

/// What a sum of products is made of. `step` adds one product.
trait Sum: Copy {
    const ZERO: Self;
}

impl Sum for i32 {
    const ZERO: Self = 0;
}

impl Sum for f32 {
    const ZERO: Self = 0.0;
}

fn step_i32(sum: i32, a: i32, w: i32) -> i32 {
    sum.wrapping_add(a.wrapping_mul(w))
}

fn step_f32(sum: f32, a: f32, w: f32) -> f32 {
    sum + a * w
}

fn step_fused(sum: f32, a: f32, w: f32) -> f32 {
    a.mul_add(w, sum)
}

/// A multiply-accumulate operator on operands of one type: the sums of all outputs, output channels innermost.
trait Sums {
    fn run<T: Sum>(&self, input: &[T], weights: &[T], step: impl Fn(T, T, T) -> T) -> Vec<T>;
}

struct Conv<'a> {
    window: &'a Window,
    input: [usize; 4],
    output: [usize; 4],
    /// Input channels that one filter reads.
    depth: usize,
}

impl Sums for Conv<'_> {
    fn run<T: Sum>(&self, input: &[T], weights: &[T], step: impl Fn(T, T, T) -> T) -> Vec<T> {
        let [batches, h, w, channels] = self.input;
        let [_, oh, ow, filters] = self.output;
        let depth = self.depth;
        let size = self.window.size[0] * self.window.size[1] * depth;
        let filters_per_group = (filters * depth / channels.max(1)).max(1);
        let mut sums = Vec::with_capacity(batches * oh * ow * filters);
        for image in input.chunks_exact((h * w * channels).max(1)).take(batches) {
            for at in positions([oh, ow]) {
                let taps = taps(self.window, [h, w], at);
                for (i, filter) in weights.chunks_exact(size.max(1)).enumerate() {
                    let group = i / filters_per_group * depth;
                    let mut sum = T::ZERO;
                    for &(k, pixel) in &taps {
                        let a = &image[pixel * channels + group..][..depth];
                        let w = &filter[k * depth..][..depth];
                        sum = a.iter().zip(w).fold(sum, |sum, (a, w)| step(sum, *a, *w));
                    }
                    sums.push(sum);
                }
            }
        }
        sums
    }
}

struct Depthwise<'a> {
    window: &'a Window,
    input: [usize; 4],
    output: [usize; 4],
    multiplier: usize,
}

impl Sums for Depthwise<'_> {
    fn run<T: Sum>(&self, input: &[T], weights: &[T], step: impl Fn(T, T, T) -> T) -> Vec<T> {
        let [batches, h, w, channels] = self.input;
        let [_, oh, ow, filters] = self.output;
        let mut sums = Vec::with_capacity(batches * oh * ow * filters);
        for image in input.chunks_exact((h * w * channels).max(1)).take(batches) {
            for at in positions([oh, ow]) {
                let start = sums.len();
                sums.resize(start + filters, T::ZERO);
                for (k, pixel) in taps(self.window, [h, w], at) {
                    let a = &image[pixel * channels..][..channels];
                    let w = &weights[k * filters..][..filters];
                    let sums = sums[start..].chunks_exact_mut(self.multiplier);
                    for ((sums, w), a) in sums.zip(w.chunks_exact(self.multiplier)).zip(a) {
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum = step(*sum, *a, *w);
                        }
                    }
                }
            }
        }
        sums
    }
}

struct Dense {
    /// Elements of a row of the weights.
    depth: usize,
}

impl Sums for Dense {
    fn run<T: Sum>(&self, input: &[T], weights: &[T], step: impl Fn(T, T, T) -> T) -> Vec<T> {
        let depth = self.depth.max(1);
        let dot = |a: &[T], w: &[T]| a.iter().zip(w).fold(T::ZERO, |sum, (a, w)| step(sum, *a, *w));
        input
            .chunks_exact(depth)
            .flat_map(|a| weights.chunks_exact(depth).map(move |w| dot(a, w)))
            .collect()
    }
}

pub(super) fn conv2d(call: &Call, window: &Window, activation: Activation) -> Result<Vec<u8>> {
    let conv = Conv {
        window,
        input: call.input(0).shape.nhwc(),
        output: call.output().shape.nhwc(),
        depth: call.input(1).shape.last(0),
    };
    finish(call, &conv, activation)
}

pub(super) fn depthwise_conv2d(
    call: &Call,
    window: &Window,
    multiplier: usize,
    activation: Activation,
) -> Result<Vec<u8>> {
    let depthwise = Depthwise {
        window,
        input: call.input(0).shape.nhwc(),
        output: call.output().shape.nhwc(),
        multiplier,
    };
    finish(call, &depthwise, activation)
}

pub(super) fn fully_connected(call: &Call, activation: Activation) -> Result<Vec<u8>> {
    let dense = Dense {
        depth: call.input(1).shape.last(0),
    };
    finish(call, &dense, activation)
}

/// Sums, bias, requantization and clamp. The zero point of int8 weights is 0 but for those of a dense layer.
fn finish(call: &Call, sums: &impl Sums, activation: Activation) -> Result<Vec<u8>> {
    let (input, weights, output) = (call.input(0), call.input(1), call.output());
    let filters = match call.op.kind {
        OpKind::DepthwiseConv2d { .. } => weights.shape.last(0),
        _ => weights.shape.0[0],
    };
    match (call.dtype(0..2)?, call.inputs.get(2)) {
        (DType::I8, bias) => {
            let mut sums = sums.run(
                &i8s(call.inputs[0], input.affine().1),
                &i8s(call.inputs[1], weights.affine().1),
                step_i32,
            );
            let bias = match bias {
                Some(bytes) if call.input(2).dtype == DType::I32 => i32s(bytes),
                Some(_) => return Err(call.unsupported()),
                None => vec![0; filters],
            };
            let multipliers = multipliers(&call.op.kind, input, weights, output);
            let quantization = output.quantization.as_ref().ok_or_else(|| call.unsupported())?;
            let range = activation_range(activation, DType::I8, quantization);
            let zero_point = output.affine().1;
            for pixel in sums.chunks_exact_mut(filters.max(1)) {
                for ((sum, bias), multiplier) in pixel.iter_mut().zip(&bias).zip(multipliers.iter().cycle()) {
                    *sum = multiplier.apply(sum.wrapping_add(*bias)).saturating_add(zero_point);
                }
            }
            Ok(sums.into_iter().map(|q| saturate(q, range)).collect())
        }
        (DType::F32, bias) => {
            let (a, w) = (f32s(call.inputs[0]), f32s(call.inputs[1]));
            let sums = if call.arithmetic.fused_multiply_add {
                sums.run(&a, &w, step_fused)
            } else {
                sums.run(&a, &w, step_f32)
            };
            let bias = match bias {
                Some(bytes) if call.input(2).dtype == DType::F32 => f32s(bytes),
                Some(_) => return Err(call.unsupported()),
                None => vec![0.0; filters],
            };
            let range = activation_range_f32(activation);
            let biased = sums.iter().zip(bias.iter().cycle()).map(|(sum, bias)| sum + bias);
            Ok(f32_bytes(biased.map(|x| clamp(x, range))))
        }
        _ => Err(call.unsupported()),
    }
}
