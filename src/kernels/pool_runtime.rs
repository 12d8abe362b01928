//! Pooling with windows measured at run time: for the many window shapes of a large window that is padded, where code
//! for each would take kilobytes.

use super::average::{self, ENTRY, Loaded};
use super::emit::{self, Emitter};
use super::lanes::{self, Clamp};
use super::lowered::{Lowered, LoweredOperand};
use super::{Parameter, ParameterKind};
use crate::data::{Bytes, Contents};
use crate::graph::quant::activation_range;
use crate::graph::{Activation, DType, Graph, OpId, PoolOp, Window};
use crate::target::Target;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{BlockArg, InstBuilder, Value, types};

/// The part of a window inside the input: where it starts and ends along one dimension, in elements.
struct Extent {
    start: Value,
    count: Value,
}

/// Reduction over windows, every one of which reaches into the input.
pub fn pool(
    graph: &Graph,
    op: OpId,
    target: &Target,
    kind: PoolOp,
    window: &Window,
    activation: Activation,
) -> Lowered {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let (from, to) = (graph.tensor(input), graph.tensor(output));
    let dtype = from.dtype;
    let [batches, h, w, channels] = from.shape.nhwc();
    let [_, oh, ow, _] = to.shape.nhwc();
    let unit = dtype.bytes() as i64;
    let (column, out_row) = (channels as i64 * unit, (ow * channels) as i64 * unit);
    let row = w as i64 * column;
    let range = to
        .quantization
        .as_ref()
        .map_or((-128, 127), |q| activation_range(activation, DType::I8, q));
    let most = [window.size[0].min(h) as u64, window.size[1].min(w) as u64];
    let divides = kind == PoolOp::Average && dtype == DType::I8;
    let mut operands = vec![LoweredOperand::Tensor(input), LoweredOperand::Tensor(output)];
    if divides {
        operands.push(LoweredOperand::Parameter(Parameter {
            name: format!("{}.reciprocals", to.name),
            kind: ParameterKind::Table,
            tensors: vec![],
            align: 4,
            contents: Contents::Bytes(Bytes::from_vec(average::table(most[0] * most[1])))
                .described(average::layout(most[0] * most[1])),
        }));
    }
    let built = emit::build(target, operands.len(), |e| {
        let clamp = Clamp::new(e, activation);
        let table = e.args.get(2).copied();
        let images = [(e.args[0], h as i64 * row), (e.args[1], oh as i64 * out_row)];
        let top = e.int(e.pointer, -(window.padding.top as i64));
        let left = e.int(e.pointer, -(window.padding.left as i64));
        e.counted(batches as u64, &images, &[], |e, image, _| {
            let image_start = image[0];
            e.counted(oh as u64, &[(image[1], out_row)], &[top], |e, line, y| {
                let rows = extent(e, y[0], window.size[0], h);
                let first_row = scaled(e, image_start, rows.start, row);
                let last_row = scaled(e, first_row, rows.count, row);
                e.counted(ow as u64, &[(line[0], column)], &[left], |e, place, x| {
                    let columns = extent(e, x[0], window.size[1], w);
                    let first = scaled(e, first_row, columns.start, column);
                    let last = scaled(e, last_row, columns.start, column);
                    let patch = Patch {
                        first,
                        last,
                        width: scaled_only(e, columns.count, column),
                        row,
                        column,
                        most,
                    };
                    let reducer = match (dtype, kind) {
                        (DType::F32, PoolOp::Average) => {
                            let n = e.b.ins().imul(rows.count, columns.count);
                            let n = e.b.ins().fcvt_from_sint(types::F32, n);
                            Reducer::Mean(n)
                        }
                        (DType::F32, PoolOp::Max) => Reducer::Most,
                        (_, PoolOp::Max) => Reducer::MostBytes,
                        (_, PoolOp::Average) => {
                            let n = e.b.ins().imul(rows.count, columns.count);
                            let n = e.offset(n, -1);
                            let place = match table {
                                Some(table) => scaled(e, table, n, ENTRY as i64),
                                None => n,
                            };
                            Reducer::MeanBytes(Loaded::new(e, place))
                        }
                    };
                    reducer.channels(e, &patch, place[0], channels as u64, &clamp, range);
                    vec![e.offset(x[0], window.stride[1] as i64)]
                });
                vec![e.offset(y[0], window.stride[0] as i64)]
            });
            vec![]
        });
    });
    Lowered {
        built,
        stem: match kind {
            PoolOp::Average => "average_pool",
            PoolOp::Max => "max_pool",
        },
        schedule: format!(
            "{} windows at run time",
            lanes::name(target, if dtype == DType::I8 { 16 } else { 4 })
        ),
        operands,
        scratch: None,
        overlaps: vec![],
    }
}

/// What of `size` elements from `position` on lies within `[0, limit)`.
fn extent(e: &mut Emitter, position: Value, size: usize, limit: usize) -> Extent {
    let zero = e.int(e.pointer, 0);
    let start = e.b.ins().smax(position, zero);
    let end = e.offset(position, size as i64);
    let limit = e.int(e.pointer, limit as i64);
    let end = e.b.ins().smin(end, limit);
    let count = e.b.ins().isub(end, start);
    Extent { start, count }
}

/// `index × bytes`.
fn scaled_only(e: &mut Emitter, index: Value, bytes: i64) -> Value {
    let bytes = e.int(e.pointer, bytes);
    e.b.ins().imul(index, bytes)
}

/// `base + index × bytes`.
fn scaled(e: &mut Emitter, base: Value, index: Value, bytes: i64) -> Value {
    let offset = scaled_only(e, index, bytes);
    e.b.ins().iadd(base, offset)
}

/// One window inside the input.
struct Patch {
    /// Its first element.
    first: Value,
    /// The element below the first of its last row.
    last: Value,
    /// Bytes of one of its rows.
    width: Value,
    /// Bytes from row to row and from column to column.
    row: i64,
    column: i64,
    /// The most rows and columns that a window has.
    most: [u64; 2],
}

/// How a window becomes one element.
enum Reducer {
    /// binary32, by the number of elements.
    Mean(Value),
    /// binary32.
    Most,
    /// int8.
    MeanBytes(Loaded),
    /// int8.
    MostBytes,
}

impl Reducer {
    fn channels(&self, e: &mut Emitter, patch: &Patch, to: Value, channels: u64, clamp: &Clamp, range: (i32, i32)) {
        let (unit, widths) = match self {
            Reducer::Mean(_) | Reducer::Most => (4, lanes::WORDS),
            _ => (1, lanes::BYTES),
        };
        let count = match self {
            Reducer::Mean(n) => Some(e.spread(types::F32X4, *n)),
            _ => None,
        };
        let streams = [(patch.first, unit), (to, unit)];
        let last = e.b.ins().isub(patch.last, patch.first);
        e.sweep_unrolled(1, channels, &streams, widths, &mut |e, p, at, width| {
            let at = (at * unit) as i32;
            let from = e.offset(p[0], i64::from(at));
            let (start, step): (Vec<Value>, Fold) = match self {
                // −0 + x is x, −0 included.
                Reducer::Mean(_) => (vec![e.spread_f32(-0.0).of(width)], &|e, acc, p| {
                    let x = e.load_f32(p, 0, width);
                    vec![e.b.ins().fadd(acc[0], x)]
                }),
                // The first element is compared with itself once.
                Reducer::Most => (vec![e.load_f32(from, 0, width)], &|e, acc, p| {
                    let x = e.load_f32(p, 0, width);
                    vec![e.select_less(acc[0], x, x, acc[0])]
                }),
                Reducer::MostBytes => (vec![e.load_raw(from, 0, width)], &|e, acc, p| {
                    let x = e.load_raw(p, 0, width);
                    vec![e.b.ins().smax(acc[0], x)]
                }),
                Reducer::MeanBytes(_) => (vec![e.spread_i32(0).of(width); (width / 4).max(1)], &|e, acc, p| {
                    let x = e.load_bytes(DType::I8, p, 0, width);
                    acc.iter().zip(x).map(|(acc, x)| e.b.ins().iadd(*acc, x)).collect()
                }),
            };
            let end = e.b.ins().iadd(from, last);
            let reduced = each_row(e, patch, from, end, start, step);
            match self {
                Reducer::Mean(_) | Reducer::Most => {
                    let mut y = reduced[0];
                    if let Some(count) = count {
                        y = e.b.ins().fdiv(y, count.of(width));
                    }
                    let y = clamp.emit(e, y);
                    e.store(y, p[1], at);
                }
                Reducer::MostBytes => e.store_raw(reduced[0], range, p[1], at, width),
                Reducer::MeanBytes(average) => {
                    let means: Vec<Value> = reduced.into_iter().map(|sum| average.emit(e, sum)).collect();
                    e.store_narrow(&means, DType::I8, range, p[1], at, width);
                }
            }
        });
    }
}

/// One more element: `fold(emitter, so far, pointer)`.
type Fold<'f> = &'f dyn Fn(&mut Emitter, &[Value], Value) -> Vec<Value>;

/// Folds the elements of a window, rows first.
fn each_row(e: &mut Emitter, patch: &Patch, from: Value, end: Value, start: Vec<Value>, fold: Fold) -> Vec<Value> {
    let [rows, columns] = patch.most;
    until(e, from, end, patch.row, [rows, 1], &start, &mut |e, line, acc| {
        let end = e.b.ins().iadd(line, patch.width);
        let most = [rows.saturating_mul(columns), rows];
        until(e, line, end, patch.column, most, acc, &mut |e, place, acc| {
            fold(e, acc, place)
        })
    })
}

/// One round of a loop: `body(emitter, pointer, carried) -> carried`.
type Body<'b> = &'b mut dyn FnMut(&mut Emitter, Value, &[Value]) -> Vec<Value>;

/// A loop from `start` to `end`, which differ, by `step`; its rounds and its ends are at most `most` for each run of
/// the block that the outermost such loop is in.
fn until(
    e: &mut Emitter,
    start: Value,
    end: Value,
    step: i64,
    most: [u64; 2],
    carried: &[Value],
    body: Body,
) -> Vec<Value> {
    let header = e.b.create_block();
    let exit = e.b.create_block();
    let inside: Vec<Value> = carried
        .iter()
        .map(|value| {
            let ty = e.b.func.dfg.value_type(*value);
            e.b.append_block_param(header, ty)
        })
        .collect();
    let current = e.b.append_block_param(header, e.pointer);
    let args: Vec<BlockArg> = carried
        .iter()
        .chain([&start])
        .map(|value| BlockArg::from(*value))
        .collect();
    e.b.ins().jump(header, &args);
    e.b.switch_to_block(header);
    e.record_block(header, most[0]);
    let results = body(e, current, &inside);
    let next = e.offset(current, step);
    let args: Vec<BlockArg> = results
        .iter()
        .chain([&next])
        .map(|value| BlockArg::from(*value))
        .collect();
    let again = e.b.ins().icmp(IntCC::NotEqual, next, end);
    e.b.ins().brif(again, header, &args, exit, &[]);
    e.b.switch_to_block(exit);
    e.record_block(exit, most[1]);
    results
}
