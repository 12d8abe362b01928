//! Softmax over the last dimension.

use super::emit::{self, Emitter};
use super::lanes;
use super::lowered::{Lowered, LoweredOperand};
use super::math::Exp;
use super::{Parameter, ParameterKind};
use crate::data::{Bytes, Contents, Layout, Scalar};
use crate::error::{Error, Result};
use crate::graph::evaluate::softmax_table;
use crate::graph::{DType, Graph, OpId};
use crate::target::Target;
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// Softmax of every row.
///
/// # Errors
/// Where the element type has no kernel.
pub fn softmax(graph: &Graph, op: OpId, target: &Target, beta: f32) -> Result<Lowered> {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let tensor = graph.tensor(input);
    let depth = tensor.shape.last(0) as u64;
    let rows = (tensor.shape.elements() as u64).checked_div(depth).unwrap_or(0);
    let step = (depth * tensor.dtype.bytes() as u64) as i64;
    let mut operands = vec![LoweredOperand::Tensor(input), LoweredOperand::Tensor(output)];
    let built = match tensor.dtype {
        DType::I8 => {
            let table = softmax_table(beta, tensor.affine().0);
            operands.push(LoweredOperand::Parameter(Parameter {
                name: format!("{}.exp", graph.tensor(output).name),
                kind: ParameterKind::Table,
                tensors: vec![],
                align: 4,
                contents: Contents::Bytes(Bytes::from_vec(
                    table.iter().flat_map(|entry| entry.to_le_bytes()).collect(),
                ))
                .described(Layout::array(
                    &[("distance from the greatest", table.len())],
                    Layout::Scalar(Scalar::I32),
                )),
            }));
            emit::build(target, 3, |e| {
                let [from, to, table] = [e.args[0], e.args[1], e.args[2]];
                e.counted(rows, &[(from, step), (to, step)], &[], |e, p, _| {
                    bytes_row(e, p[0], p[1], table, depth);
                    vec![]
                });
            })
        }
        DType::F32 => emit::build(target, 2, |e| {
            let exp = Exp::new(e);
            let (from, to) = (e.args[0], e.args[1]);
            e.counted(rows, &[(from, step), (to, step)], &[], |e, p, _| {
                floats_row(e, &exp, p[0], p[1], depth, beta);
                vec![]
            });
        }),
        _ => {
            return Err(Error::unsupported(format!(
                "SOFTMAX of {} is not implemented",
                tensor.describe()
            )));
        }
    };
    Ok(Lowered {
        built,
        stem: "softmax",
        schedule: format!("{rows} rows"),
        operands,
        scratch: None,
        overlaps: vec![],
    })
}

/// One int8 row, as [`crate::graph::evaluate::softmax_row`]. All in 64 bits: nothing overflows.
fn bytes_row(e: &mut Emitter, from: Value, to: Value, table: Value, depth: u64) {
    let most = bytes_max(e, from, depth);
    let most = e.b.ins().sextend(types::I64, most);
    let pointer = e.pointer;
    let exp = |e: &mut Emitter, p: Value, at: i64| {
        let x = e.b.ins().sload8(types::I64, Emitter::flags(), p, at as i32);
        let d = e.b.ins().isub(most, x);
        let d = if pointer == types::I64 {
            d
        } else {
            e.b.ins().ireduce(pointer, d)
        };
        let d = e.shl(d, 2);
        let place = e.b.ins().iadd(table, d);
        e.b.ins().uload32(Emitter::flags(), place, 0)
    };
    // Σ exp / 2^12, rounded; not negative, so the halves need no care.
    let zero = e.int(types::I64, 0);
    let add = |e: &mut Emitter, p: Value, at: i64, sum: Value| {
        let x = exp(e, p, at);
        let half = e.int(types::I64, 1 << 11);
        let x = e.b.ins().iadd(x, half);
        let x = e.shr(x, 12);
        e.b.ins().iadd(sum, x)
    };
    // Where 64 bits are two registers, code is long beside what a jump costs.
    let unroll = if pointer == types::I64 { 4 } else { 1 };
    let (sums, ends) = e.counted(depth / unroll, &[(from, unroll as i64)], &[zero], |e, p, sum| {
        vec![(0..unroll as i64).fold(sum[0], |sum, i| add(e, p[0], i, sum))]
    });
    let mut sum = (0..(depth % unroll) as i64).fold(sums[0], |sum, i| add(e, ends[0], i, sum));
    if depth >= 1 << 12 {
        let largest = e.int(types::I64, i64::from(i32::MAX));
        sum = e.b.ins().smin(sum, largest);
    }
    let (mantissa, shift) = reciprocal(e, sum);
    let one = e.int(types::I64, 1);
    let below = e.b.ins().isub(shift, one);
    let half = e.b.ins().ishl(one, below);
    e.sweep_unrolled(unroll, depth, &[(from, 1), (to, 1)], &[], &mut |e, p, at, _| {
        let x = exp(e, p[0], at);
        let x = high_product(e, mantissa, x);
        let x = e.b.ins().iadd(x, half);
        let x = e.b.ins().ushr(x, shift);
        let largest = e.int(types::I64, 255);
        let x = e.b.ins().umin(x, largest);
        let offset = e.int(types::I64, -128);
        let q = e.b.ins().iadd(x, offset);
        e.store_i8(q, p[1], at as i32);
    });
}

/// The largest of `count` int8 elements, as `i32`.
fn bytes_max(e: &mut Emitter, from: Value, count: u64) -> Value {
    if count < 16 || !e.target.machine().simd128 {
        let first = e.load_i8(from, 0);
        let next = e.offset(from, 1);
        let (most, _) = e.counted(count - 1, &[(next, 1)], &[first], |e, p, most| {
            let x = e.load_i8(p[0], 0);
            vec![e.b.ins().smax(most[0], x)]
        });
        return most[0];
    }
    let first = e.load(types::I8X16, from, 0);
    let next = e.offset(from, 16);
    let (most, ends) = e.counted(count / 16 - 1, &[(next, 16)], &[first], |e, p, most| {
        let x = e.load(types::I8X16, p[0], 0);
        vec![e.b.ins().smax(most[0], x)]
    });
    let mut most = most[0];
    if !count.is_multiple_of(16) {
        // The last 16 elements: some a second time.
        let x = e.load(types::I8X16, ends[0], (count % 16) as i32 - 16);
        most = e.b.ins().smax(most, x);
    }
    for distance in [8, 4, 2, 1] {
        let mask = std::array::from_fn(|i| (i as u8 + distance) % 16);
        let moved = e.shuffle(most, most, mask);
        most = e.b.ins().smax(most, moved);
    }
    let most = e.b.ins().extractlane(most, 0);
    e.b.ins().sextend(types::I32, most)
}

/// Rounded high half of the doubled product of numbers of 32 bits in 64.
fn high_product(e: &mut Emitter, a: Value, b: Value) -> Value {
    let product = e.b.ins().imul(a, b);
    let half = e.int(types::I64, 1 << 30);
    let product = e.b.ins().iadd(product, half);
    e.sar(product, 31)
}

/// Mantissa and shift of 1 / sum as [`crate::graph::evaluate::fixed::reciprocal`] with the shift's 23 added: three
/// Newton–Raphson steps, all in 64 bits. Positive sums of 31 bits only.
fn reciprocal(e: &mut Emitter, sum: Value) -> (Value, Value) {
    let constant = |e: &mut Emitter, value: i64| e.int(types::I64, value);
    // The sum's leading one moves to bit 31; half of 1 + fraction in Q0 is then the sum as it stands, halved.
    let zeros = e.b.ins().clz(sum);
    let thirty_two = constant(e, 32);
    let headroom = e.b.ins().isub(zeros, thirty_two);
    let normal = e.b.ins().ishl(sum, headroom);
    let half_denominator = e.shr(normal, 1);
    let guess = [1_515_870_810, -1_010_580_540].map(|x| constant(e, x));
    let x = high_product(e, half_denominator, guess[1]);
    let mut r = e.b.ins().iadd(guess[0], x);
    let step = |e: &mut Emitter, r: Value| {
        let one = constant(e, 1 << 29);
        let x = high_product(e, half_denominator, r);
        let error = e.b.ins().isub(one, x);
        let x = high_product(e, r, error);
        let x = e.shl(x, 2);
        e.b.ins().iadd(r, x)
    };
    if e.pointer == types::I64 {
        for _ in 0..3 {
            r = step(e, r);
        }
    } else {
        r = e.counted(3, &[], &[r], |e, _, r| vec![step(e, r[0])]).0[0];
    }
    let mantissa = e.shl(r, 1);
    let largest = constant(e, i64::from(i32::MAX));
    let mantissa = e.b.ins().smin(mantissa, largest);
    let offset = constant(e, 12 + 23);
    let shift = e.b.ins().isub(offset, headroom);
    (mantissa, shift)
}

/// One binary32 row: e^((x − max) × beta), summed in order from +0, then divided by the sum.
fn floats_row(e: &mut Emitter, exp: &Exp, from: Value, to: Value, depth: u64, beta: f32) {
    let most = floats_max(e, from, depth);
    let most = e.spread(types::F32X4, most);
    let beta = (beta != 1.0).then(|| e.spread_f32(beta));
    e.sweep(depth, &[(from, 4), (to, 4)], lanes::WORDS, &mut |e, p, at, width| {
        let at = 4 * at as i32;
        let x = e.load_f32(p[0], at, width);
        let mut x = e.b.ins().fsub(x, most.of(width));
        if let Some(beta) = beta {
            x = e.b.ins().fmul(x, beta.of(width));
        }
        let y = exp.emit(e, x);
        e.store(y, p[1], at);
    });
    let zero = e.b.ins().f32const(0.0);
    let add = |e: &mut Emitter, p: Value, at: i64, sum: Value| {
        let x = e.load_f32(p, 4 * at as i32, 1);
        e.b.ins().fadd(sum, x)
    };
    let (sums, ends) = e.counted(depth / 4, &[(to, 16)], &[zero], |e, p, sum| {
        vec![(0..4).fold(sum[0], |sum, i| add(e, p[0], i, sum))]
    });
    let sum = (0..(depth % 4) as i64).fold(sums[0], |sum, i| add(e, ends[0], i, sum));
    let sum = e.spread(types::F32X4, sum);
    // In place, so steps must not overlap: whole vectors, then single elements.
    let vectors = if e.target.machine().simd128 { depth / 4 * 4 } else { 0 };
    let mut p = to;
    for (count, widths) in [(vectors, lanes::WORDS), (depth - vectors, &[])] {
        e.sweep(count, &[(p, 4)], widths, &mut |e, p, at, width| {
            let x = e.load_f32(p[0], 4 * at as i32, width);
            let y = e.b.ins().fdiv(x, sum.of(width));
            e.store(y, p[0], 4 * at as i32);
        });
        p = e.offset(to, 4 * vectors as i64);
    }
}

/// The largest of `count` binary32 elements. A row with a NaN has NaN results whichever element this gives.
fn floats_max(e: &mut Emitter, from: Value, count: u64) -> Value {
    if count < 4 || !e.target.machine().simd128 {
        let first = e.load_f32(from, 0, 1);
        let next = e.offset(from, 4);
        let (most, _) = e.counted(count - 1, &[(next, 4)], &[first], |e, p, most| {
            let x = e.load_f32(p[0], 0, 1);
            vec![e.select_less(most[0], x, x, most[0])]
        });
        return most[0];
    }
    let first = e.load_f32(from, 0, 4);
    let next = e.offset(from, 16);
    let (most, ends) = e.counted(count / 4 - 1, &[(next, 16)], &[first], |e, p, most| {
        let x = e.load_f32(p[0], 0, 4);
        vec![e.select_less(most[0], x, x, most[0])]
    });
    let mut most = most[0];
    if !count.is_multiple_of(4) {
        let x = e.load_f32(ends[0], 4 * ((count % 4) as i32 - 4), 4);
        most = e.select_less(most, x, x, most);
    }
    let lanes: Vec<Value> = (0..4).map(|i| e.b.ins().extractlane(most, i)).collect();
    lanes[1..]
        .iter()
        .fold(lanes[0], |most, x| e.select_less(most, *x, *x, most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::OpKind;
    use crate::kernels::checks::{Random, check, check_on, compile, float, graph, int8};

    fn bytes(dims: &[usize], scale: f32, beta: f32) -> Graph {
        graph(
            OpKind::Softmax { beta },
            vec![int8(dims, scale, 12)],
            int8(dims, 1.0 / 256.0, -128),
        )
    }

    #[test]
    fn int8_rows_agree_with_the_evaluator() {
        let mut random = Random::new(13);
        for depth in [1, 2, 3, 4, 7, 10, 16, 17, 33, 100, 600] {
            for (scale, beta) in [(0.1, 1.0), (0.003, 1.0), (1.3, 1.0), (0.06, 2.5)] {
                check(&bytes(&[3, depth], scale, beta), &mut random);
            }
        }
        check(&bytes(&[2, 1, 3, 5], 0.1, 1.0), &mut random);
    }

    #[test]
    fn int8_sums_of_any_size_agree_with_the_evaluator() {
        for depth in [1, 2, 255, 511, 512, 513, 1024, 4095, 4096, 5000] {
            let graph = bytes(&[depth], 0.1, 1.0);
            for byte in [0x80, 0, 0x7f] {
                check_on(&graph, &[(graph.inputs[0], vec![byte; depth])].into());
            }
        }
    }

    #[test]
    fn float_rows_agree_with_the_evaluator() {
        let mut random = Random::new(14);
        for depth in [1, 2, 3, 4, 5, 8, 11, 16, 101] {
            for beta in [1.0, 0.3] {
                let graph = graph(OpKind::Softmax { beta }, vec![float(&[3, depth])], float(&[3, depth]));
                check(&graph, &mut random);
            }
        }
    }

    #[test]
    fn special_values() {
        for at in 0..6 {
            for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
                let mut row = [1.0f32, -2.0, 0.5, 3.0, -0.0, 0.0];
                row[at] = special;
                let graph = graph(OpKind::Softmax { beta: 1.0 }, vec![float(&[6])], float(&[6]));
                check_on(
                    &graph,
                    &[(graph.inputs[0], row.iter().flat_map(|x| x.to_le_bytes()).collect())].into(),
                );
            }
        }
    }

    #[test]
    fn code_exists_for_every_target() {
        assert!(compile(&bytes(&[2, 40], 0.1, 1.0)) < 3000);
        assert!(
            compile(&graph(
                OpKind::Softmax { beta: 1.0 },
                vec![float(&[2, 40])],
                float(&[2, 40])
            )) < 3000
        );
    }
}
