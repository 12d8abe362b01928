//! Means over any dimensions.
//!
//! Neighbouring dimensions that are both kept or both reduced are one. If the innermost is kept, its elements are the
//! lanes; else each result is a sum over runs of contiguous elements.

use super::emit::{self, Emitter};
use super::lanes::{self, Splat, nest};
use super::lowered::{Lowered, LoweredOperand};
use super::pool::{Patch, sums};
use crate::error::{Error, Result};
use crate::graph::evaluate::mean_multiplier;
use crate::graph::quant::Multiplier;
use crate::graph::{DType, Graph, OpId, Tensor};
use crate::target::Target;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Most elements of an int8 mean: products of their sums stay below 2^30.
pub(super) const MOST: u64 = 1 << 22;

/// A joined dimension of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dim {
    size: usize,
    reduced: bool,
}

fn join(dims: &[usize], axes: &[usize]) -> Vec<Dim> {
    let mut joined: Vec<Dim> = Vec::new();
    for (i, &size) in dims.iter().enumerate().filter(|(_, size)| **size != 1) {
        let reduced = axes.contains(&i);
        match joined.last_mut() {
            Some(dim) if dim.reduced == reduced => dim.size *= size,
            _ => joined.push(Dim { size, reduced }),
        }
    }
    joined
}

/// Mean over `axes`.
///
/// # Errors
/// Where the element type has no kernel or too many elements are averaged.
pub fn mean(graph: &Graph, op: OpId, target: &Target, axes: &[usize]) -> Result<Lowered> {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let (from, to) = (graph.tensor(input), graph.tensor(output));
    let dims = join(&from.shape.0, axes);
    let count: u64 = axes.iter().map(|axis| from.shape.0[*axis] as u64).product();
    if !matches!(from.dtype, DType::I8 | DType::F32) {
        return Err(Error::unsupported(format!(
            "MEAN of {} is not implemented",
            from.describe()
        )));
    }
    if from.dtype == DType::I8 && count > MOST {
        return Err(Error::unsupported(format!(
            "means of more than {MOST} int8 elements are not implemented, here {count}"
        )));
    }
    let unit = from.dtype.bytes() as i64;
    // Strides in bytes of input and output along each dimension.
    let (mut stride, mut out_stride) = (unit, unit);
    let mut kept = Vec::new();
    let mut reduced = Vec::new();
    for dim in dims.iter().rev() {
        if dim.reduced {
            reduced.push((dim.size as u64, stride));
        } else {
            kept.push((dim.size as u64, vec![stride, out_stride]));
            out_stride *= dim.size as i64;
        }
        stride *= dim.size as i64;
    }
    reduced.reverse();
    // The innermost dimension, if it is kept, is swept.
    let lanes = match dims.last() {
        Some(dim) if !dim.reduced => kept.remove(0).0,
        _ => 1,
    };
    kept.reverse();
    let built = emit::build(target, 2, |e| {
        let args = e.args.clone();
        if from.dtype == DType::F32 {
            let divisor = e.spread_f32(count as f32);
            let zero = e.spread_f32(0.0);
            nest(e, &kept, &args, &mut |e, p| {
                e.sweep_unrolled(
                    1,
                    lanes,
                    &[(p[0], 4), (p[1], 4)],
                    lanes::WORDS,
                    &mut |e, p, at, width| {
                        let at = 4 * at as i32;
                        let sum = accumulate(e, &reduced, p[0], vec![zero.of(width)], &|e, p, inner, acc| {
                            let mut acc = acc[0];
                            // In order, from +0: no second accumulator.
                            let (count, step) = inner;
                            let (quads, rest) = (count / 4, count % 4);
                            let add = |e: &mut Emitter, p: Value, offset: i64, acc: Value| {
                                let (p, offset) = e.near(p, offset + i64::from(at));
                                let x = e.load_f32(p, offset, width);
                                e.b.ins().fadd(acc, x)
                            };
                            let (sums, ends) = e.counted(quads, &[(p, 4 * step)], &[acc], |e, p, acc| {
                                vec![(0..4).fold(acc[0], |acc, i| add(e, p[0], i * step, acc))]
                            });
                            acc = sums[0];
                            for i in 0..rest as i64 {
                                acc = add(e, ends[0], i * step, acc);
                            }
                            vec![acc]
                        });
                        let divisor = divisor.like(e, sum[0]);
                        let mean = e.b.ins().fdiv(sum[0], divisor);
                        e.store(mean, p[1], at);
                    },
                );
            });
            return;
        }
        let rescale = Rescale::new(e, from, to, count);
        let none = e.spread_i32(0);
        nest(e, &kept, &args, &mut |e, p| {
            e.sweep_unrolled(
                1,
                lanes,
                &[(p[0], 1), (p[1], 1)],
                lanes::BYTES,
                &mut |e, p, at, width| {
                    let zero = vec![none.of(width); (width / 4).max(1)];
                    let sum = accumulate(e, &reduced, p[0], zero, &|e, p, (count, step), acc| {
                        let more = if step == 1 && width == 1 {
                            vec![run(e, p, count)]
                        } else {
                            let patch = Patch {
                                rows: 1,
                                columns: count,
                                row: 0,
                                column: step,
                            };
                            sums(e, p, at as i32, patch, width)
                        };
                        acc.iter()
                            .zip(more)
                            .map(|(acc, more)| e.b.ins().iadd(*acc, more))
                            .collect()
                    });
                    let means: Vec<Value> = sum.into_iter().map(|sum| rescale.emit(e, sum)).collect();
                    e.store_narrow(&means, DType::I8, (-128, 127), p[1], at as i32, width);
                },
            );
        });
    });
    Ok(Lowered {
        built,
        stem: "mean",
        schedule: lanes::name(target, if from.dtype == DType::I8 { 16 } else { 4 }).to_owned(),
        operands: vec![LoweredOperand::Tensor(input), LoweredOperand::Tensor(output)],
        scratch: None,
        overlaps: vec![],
    })
}

/// How a sum of int8 elements becomes their mean in the output's scale.
pub(super) struct Rescale {
    multiplier: Multiplier,
    mantissa: Splat,
    zeros: Splat,
    output_zero: Splat,
}

impl Rescale {
    /// Makes the constants, for sums of `count` elements of `from`.
    pub fn new(e: &mut Emitter, from: &Tensor, to: &Tensor, count: u64) -> Self {
        let ((input_scale, input_zero), (output_scale, output_zero)) = (from.affine(), to.affine());
        let multiplier = mean_multiplier(input_scale, output_scale, count as usize);
        Rescale {
            multiplier,
            mantissa: e.spread_i32(multiplier.mantissa),
            zeros: e.spread_i32(input_zero.wrapping_mul(count as i32)),
            output_zero: e.spread_i32(output_zero),
        }
    }

    /// The mean for 32-bit lanes of sums, not clamped.
    pub fn emit(&self, e: &mut Emitter, sum: Value) -> Value {
        let zeros = self.zeros.like(e, sum);
        let sum = e.b.ins().isub(sum, zeros);
        let mean = e.multiply(sum, self.multiplier, self.mantissa);
        let zero = self.output_zero.like(e, mean);
        e.b.ins().iadd(mean, zero)
    }
}

/// Adds what is at one place of the outer reduced dimensions: `leaf(emitter, pointer, (count, step), sums)`.
type Leaf<'l> = &'l dyn Fn(&mut Emitter, Value, (u64, i64), Vec<Value>) -> Vec<Value>;

/// Sums over `dims` (trip count and step in bytes, outermost first); the innermost is the leaf's.
fn accumulate(e: &mut Emitter, dims: &[(u64, i64)], from: Value, acc: Vec<Value>, leaf: Leaf) -> Vec<Value> {
    // Recursion as deep as a tensor has dimensions.
    match dims {
        [] => leaf(e, from, (1, 0), acc),
        [inner] => leaf(e, from, *inner, acc),
        [(count, step), inner @ ..] => {
            let (acc, _) = e.counted(*count, &[(from, *step)], &acc, |e, p, acc| {
                accumulate(e, inner, p[0], acc.to_vec(), leaf)
            });
            acc
        }
    }
}

/// Sum of `count` contiguous int8 elements.
fn run(e: &mut Emitter, from: Value, count: u64) -> Value {
    if count < 16 || !e.target.machine().simd128 {
        let patch = Patch {
            rows: 1,
            columns: count,
            row: 0,
            column: 1,
        };
        return sums(e, from, 0, patch, 1)[0];
    }
    // Sums of neighbours in lanes of 32 bits; integer sums may be taken in any order.
    let zero = e.spread_i32(0).of(4);
    let (acc, ends) = e.counted(count / 16, &[(from, 16)], &[zero], |e, p, acc| {
        let x = e.load_i16(DType::I8, p[0], 0, 16);
        let pairs = e.b.ins().iadd(x[0], x[1]);
        let [low, high] = e.widen_i16(pairs);
        let sum = e.b.ins().iadd_pairwise(low, high);
        vec![e.b.ins().iadd(acc[0], sum)]
    });
    let lanes: Vec<Value> = (0..4).map(|i| e.b.ins().extractlane(acc[0], i)).collect();
    let mut sum = lanes[1..].iter().fold(lanes[0], |sum, lane| e.b.ins().iadd(sum, *lane));
    for i in 0..(count % 16) as i32 {
        let x = e.load_i8(ends[0], i);
        sum = e.b.ins().iadd(sum, x);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_the_same_kind_join() {
        let dim = |size, reduced| Dim { size, reduced };
        assert_eq!(join(&[1, 5, 6, 7], &[1, 2]), [dim(30, true), dim(7, false)]);
        assert_eq!(join(&[2, 3, 1, 4], &[1, 3]), [dim(2, false), dim(12, true)]);
        assert_eq!(join(&[1, 1], &[0]), []);
    }

    use crate::graph::OpKind;
    use crate::kernels::checks::{Random, check, check_on, compile, float, graph, int8};

    fn case(dims: &[usize], axes: &[usize], keep_dims: bool, dtype: DType, output: (f32, i32)) -> Graph {
        let kept = (0..dims.len()).filter(|i| keep_dims || !axes.contains(i));
        let out: Vec<usize> = kept.map(|i| if axes.contains(&i) { 1 } else { dims[i] }).collect();
        let kind = OpKind::Mean {
            axes: axes.to_vec(),
            keep_dims,
        };
        match dtype {
            DType::I8 => graph(kind, vec![int8(dims, 0.03, -11)], int8(&out, output.0, output.1)),
            _ => graph(kind, vec![float(dims)], float(&out)),
        }
    }

    #[test]
    fn all_axes_agree_with_the_evaluator() {
        let mut random = Random::new(15);
        for dims in [[2, 3, 4, 5], [1, 7, 5, 19], [3, 1, 9, 33], [2, 17, 2, 1]] {
            for mask in 0..16usize {
                let axes: Vec<usize> = (0..4).filter(|i| mask >> i & 1 == 1).collect();
                for dtype in [DType::I8, DType::F32] {
                    check(&case(&dims, &axes, mask % 3 == 0, dtype, (0.03, -11)), &mut random);
                    check(&case(&dims, &axes, mask % 3 == 1, dtype, (0.017, 20)), &mut random);
                }
            }
        }
    }

    #[test]
    fn alternating_axes_agree_with_the_evaluator() {
        let mut random = Random::new(16);
        for dtype in [DType::I8, DType::F32] {
            for axes in [vec![0, 2, 4, 6], vec![1, 3, 5, 7]] {
                check(
                    &case(&[2, 3, 2, 3, 2, 3, 2, 9], &axes, false, dtype, (0.02, 0)),
                    &mut random,
                );
            }
        }
    }

    #[test]
    fn long_sums_agree_with_the_evaluator() {
        for (dims, axis) in [([700, 16], 0), ([1000, 3], 0), ([3, 1000], 1), ([2, 70_000], 1)] {
            let graph = case(&dims, &[axis], false, DType::I8, (0.03, -11));
            for byte in [0x80, 0x7f, 3] {
                let values = [(graph.inputs[0], vec![byte; dims[0] * dims[1]])].into();
                check_on(&graph, &values);
            }
        }
    }

    #[test]
    fn code_exists_for_every_target() {
        for dtype in [DType::I8, DType::F32] {
            for axes in [vec![1, 2], vec![3], vec![0, 3]] {
                assert!(compile(&case(&[2, 7, 7, 40], &axes, false, dtype, (0.02, 0))) < 4000);
            }
        }
    }
}
