//! One row of a pool's result, from rows that a table points at.

use super::average::Average;
use super::emit;
use super::lanes::{self, Clamp};
use super::lowered::{Lowered, LoweredOperand};
use super::overlap::{self, Unit};
use super::pool::spans;
use super::pool_dsp;
use crate::graph::quant::activation_range;
use crate::graph::{Activation, DType, Graph, OpId, PoolOp, Window};
use crate::target::Target;
use cranelift_codegen::ir::{InstBuilder, Value};
use std::ops::Range;

/// Most elements of a window, which are written out.
const ELEMENTS: u64 = 16;
/// Most rows of a window: each is a pointer in a register.
const ROWS: usize = 4;
/// Most spans of columns.
const SPANS: usize = 5;

/// The kernel, where the windows are small: the input is as high as a window, of which the rows `taken` are there; the
/// result is one row.
pub fn pool(
    graph: &Graph,
    op: OpId,
    target: &Target,
    (kind, activation): (PoolOp, Activation),
    window: &Window,
    taken: Range<usize>,
) -> Option<Lowered> {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let (from, to) = (graph.tensor(input), graph.tensor(output));
    let [_, _, w, channels] = from.shape.nhwc();
    let height = taken.len();
    let [_, _, ow, _] = to.shape.nhwc();
    let columns = spans(w, ow, window.size[1], window.stride[1], window.padding.left);
    let small = columns
        .iter()
        .all(|span| (1..=ELEMENTS).contains(&(span.taken * height as u64)));
    if !small || height > ROWS || columns.len() > SPANS || !matches!(from.dtype, DType::I8 | DType::F32) {
        return None;
    }
    let dsp = target.machine().dsp && from.dtype == DType::I8;
    let unit = from.dtype.bytes() as i64;
    let column = channels as i64 * unit;
    let range = to
        .quantization
        .as_ref()
        .map_or((-128, 127), |q| activation_range(activation, DType::I8, q));
    // A column's channels are gone through once, but for vectors, of which the last overlaps the one before.
    let units: Vec<Unit> = (columns.iter())
        .flat_map(|span| (0..span.count as usize).map(move |i| span.start as usize + i * span.step as usize))
        .enumerate()
        .map(|(x, from)| Unit {
            reads: (from as i64 * column) as u64,
            written: ((x as i64 + 1) * column) as u64,
        })
        .collect();
    let gap = overlap::gap(&units, !target.machine().simd128);
    let built = emit::build(target, 2, |e| {
        let clamp = Clamp::new(e, activation);
        let rows: Vec<Value> = taken.map(|y| e.entry(e.args[0], y)).collect();
        let mut to = e.args[1];
        for span in &columns {
            let elements = span.taken * height as u64;
            let average = Average::new(e, elements);
            let count = e.spread_f32(elements as f32);
            let mut places: Vec<(Value, i64)> = rows
                .iter()
                .map(|row| (e.offset(*row, span.start as i64 * column), span.step as i64 * column))
                .collect();
            places.push((to, column));
            let (_, ends) = e.counted(span.count, &places, &[], |e, place, _| {
                let taken = span.taken as i32;
                let taps = |p: &[Value], at: i32| -> Vec<(Value, i32)> {
                    let of = |row: &Value| (0..taken).map(|x| (*row, at + x * column as i32)).collect::<Vec<_>>();
                    p[..height].iter().flat_map(of).collect()
                };
                // Four channels in a word.
                let fours = if dsp { channels / 4 } else { 0 };
                let moving: Vec<(Value, i64)> = place.iter().map(|p| (*p, 4)).collect();
                let (_, place) = e.counted(fours as u64, &moving, &[], |e, p, _| {
                    let (taps, to) = (taps(p, 0), p[height]);
                    match kind {
                        PoolOp::Max => {
                            let Some(most) = pool_dsp::most_at(e, &taps) else {
                                return vec![];
                            };
                            if range == (-128, 127) {
                                e.store(most, to, 0);
                            } else {
                                for (at, byte) in pool_dsp::bytes(e, most).into_iter().enumerate() {
                                    e.store_narrow(&[byte], DType::I8, range, to, at as i32, 1);
                                }
                            }
                        }
                        PoolOp::Average => {
                            for (at, sum) in pool_dsp::sums_at(e, &taps).into_iter().enumerate() {
                                let mean = average.emit(e, sum);
                                e.store_narrow(&[mean], DType::I8, range, to, at as i32, 1);
                            }
                        }
                    }
                    vec![]
                });
                let rest = (channels - 4 * fours) as u64;
                let streams: Vec<(Value, i64)> = place.iter().map(|p| (*p, unit)).collect();
                let widths = if unit == 1 { lanes::BYTES } else { lanes::WORDS };
                e.sweep_unrolled(1, rest, &streams, widths, &mut |e, p, at, width| {
                    let at = (at * unit) as i32;
                    let taps = taps(p, at);
                    let to = p[height];
                    match (from.dtype, kind) {
                        (DType::F32, kind) => {
                            let mut y = e.load_f32(taps[0].0, taps[0].1, width);
                            for (row, at) in &taps[1..] {
                                let x = e.load_f32(*row, *at, width);
                                y = match kind {
                                    PoolOp::Average => e.b.ins().fadd(y, x),
                                    PoolOp::Max => e.select_less(y, x, x, y),
                                };
                            }
                            if kind == PoolOp::Average {
                                let count = count.like(e, y);
                                y = e.b.ins().fdiv(y, count);
                            }
                            let y = clamp.emit(e, y);
                            e.store(y, to, at);
                        }
                        (_, PoolOp::Max) => {
                            let mut most = e.load_raw(taps[0].0, taps[0].1, width);
                            for (row, at) in &taps[1..] {
                                let x = e.load_raw(*row, *at, width);
                                most = e.b.ins().smax(most, x);
                            }
                            e.store_raw(most, range, to, at, width);
                        }
                        (_, PoolOp::Average) => {
                            let mut sums = e.load_bytes(DType::I8, taps[0].0, taps[0].1, width);
                            for (row, at) in &taps[1..] {
                                let x = e.load_bytes(DType::I8, *row, *at, width);
                                for (sum, x) in sums.iter_mut().zip(x) {
                                    *sum = e.b.ins().iadd(*sum, x);
                                }
                            }
                            let means: Vec<Value> = sums.into_iter().map(|sum| average.emit(e, sum)).collect();
                            e.store_narrow(&means, DType::I8, range, to, at, width);
                        }
                    }
                });
                vec![]
            });
            to = ends[height];
        }
    });
    let lowered = Lowered {
        built,
        stem: match kind {
            PoolOp::Average => "average_pool_row",
            PoolOp::Max => "max_pool_row",
        },
        schedule: format!("{} {height} rows", lanes::name(target, if unit == 1 { 16 } else { 4 })),
        operands: vec![LoweredOperand::Tensor(input), LoweredOperand::Tensor(output)],
        scratch: None,
        overlaps: vec![],
    };
    Some(lowered.overlapping(input, gap, 1))
}
