//! Average and max pooling: window reductions with constant trip counts.
//!
//! Where a window reaches over an edge it has fewer rows or columns, a different number for each place. Outputs whose
//! windows have equal shapes form a [`Span`]; each pair of a row span and a column span gets its own code.

use super::average::{self, Average};
use super::emit::{self, Emitter};
use super::lanes::{self, Clamp, Splat};
use super::lowered::{Lowered, LoweredOperand};
use super::{Overlap, overlap, pool_dsp, pool_runtime};
use crate::error::{Error, Result};
use crate::graph::quant::{self, activation_range};
use crate::graph::{Activation, DType, Graph, OpId, PoolOp, Window};
use crate::target::Target;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Most elements of a window that are written out without a loop.
const UNROLL: u64 = 16;
/// Most pairs of spans with code of their own; beyond it windows are measured at run time.
const MOST_SPANS: usize = 25;
/// Most int8 values whose sum fits 16 bits.
const SHORT: u64 = 256;

/// Consecutive outputs along one dimension whose windows have the same number of elements inside the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Number of outputs.
    pub count: u64,
    /// First input element of the first output's window.
    pub start: u64,
    /// From one output's first input element to the next's.
    pub step: u64,
    /// Elements of the window inside the input.
    pub taken: u64,
}

/// The outputs of a dimension by the number of elements of their windows.
pub fn spans(input: usize, output: usize, size: usize, stride: usize, before: usize) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for o in 0..output {
        let start = (o * stride).saturating_sub(before);
        let end = (o * stride + size).saturating_sub(before).min(input);
        let taken = end.saturating_sub(start) as u64;
        let start = start as u64;
        match spans.last_mut() {
            Some(span) if span.taken == taken && span.count == 1 => {
                span.step = start - span.start;
                span.count = 2;
            }
            Some(span) if span.taken == taken && span.start + span.count * span.step == start => span.count += 1,
            _ => spans.push(Span {
                count: 1,
                start,
                step: 0,
                taken,
            }),
        }
    }
    spans
}

/// One window position: the number of rows and columns inside the input, and the input's strides in elements.
#[derive(Clone, Copy, Debug)]
pub struct Patch {
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub columns: u64,
    /// From row to row.
    pub row: i64,
    /// From column to column: the number of channels.
    pub column: i64,
}

impl Patch {
    fn elements(&self) -> u64 {
        self.rows * self.columns
    }
}

/// Reduction over windows.
///
/// # Errors
/// Where a window lies wholly in the padding, or has more elements than a sum of 32 bits can hold.
pub fn pool(
    graph: &Graph,
    op: OpId,
    target: &Target,
    kind: PoolOp,
    window: &Window,
    activation: Activation,
) -> Result<Lowered> {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let (from, to) = (graph.tensor(input), graph.tensor(output));
    let [batches, h, w, channels] = from.shape.nhwc();
    let [_, oh, ow, _] = to.shape.nhwc();
    let rows = spans(h, oh, window.size[0], window.stride[0], window.padding.top);
    let columns = spans(w, ow, window.size[1], window.stride[1], window.padding.left);
    let taken = rows
        .iter()
        .flat_map(|row| columns.iter().map(|column| row.taken * column.taken));
    if taken.clone().any(|taken| taken == 0) {
        return Err(Error::model("a pooling window lies wholly in the padding"));
    }
    if taken.clone().any(|taken| taken > average::MOST) {
        return Err(Error::unsupported(format!(
            "pooling windows of more than {} elements are not implemented",
            average::MOST
        )));
    }
    if rows.len() * columns.len() > MOST_SPANS {
        return Ok(pool_runtime::pool(graph, op, target, kind, window, activation));
    }
    let unit = from.dtype.bytes() as i64;
    let (row, column) = ((w * channels) as i64, channels as i64);
    let out_row = ow as i64 * column;
    let built = emit::build(target, 2, |e| {
        let reducer = Reducer::new(e, from.dtype, kind, activation, to);
        let images = [
            (e.args[0], h as i64 * row * unit),
            (e.args[1], oh as i64 * out_row * unit),
        ];
        e.counted(batches as u64, &images, &[], |e, image, _| {
            let mut to = image[1];
            for rows in &rows {
                let from = e.offset(image[0], rows.start as i64 * row * unit);
                let lines = [(from, rows.step as i64 * row * unit), (to, out_row * unit)];
                let (_, ends) = e.counted(rows.count, &lines, &[], |e, line, _| {
                    let mut to = line[1];
                    for columns in &columns {
                        let from = e.offset(line[0], columns.start as i64 * column * unit);
                        let places = [(from, columns.step as i64 * column * unit), (to, column * unit)];
                        let patch = Patch {
                            rows: rows.taken,
                            columns: columns.taken,
                            row,
                            column,
                        };
                        let reducer = reducer.with_count(e, patch.elements());
                        let (_, ends) = e.counted(columns.count, &places, &[], |e, place, _| {
                            reducer.patch(e, place[0], place[1], patch);
                            vec![]
                        });
                        to = ends[1];
                    }
                    vec![]
                });
                to = ends[1];
            }
            vec![]
        });
    });
    Ok(Lowered {
        built,
        stem: match kind {
            PoolOp::Average => "average_pool",
            PoolOp::Max => "max_pool",
        },
        schedule: format!(
            "{} {}x{} spans",
            lanes::name(target, if from.dtype == DType::I8 { 16 } else { 4 }),
            rows.len(),
            columns.len()
        ),
        operands: vec![LoweredOperand::Tensor(input), LoweredOperand::Tensor(output)],
        scratch: None,
        overlaps: vec![overlap(graph, op, window)],
    })
}

/// Rows in rising order, the columns of one in rising order after one another.
pub fn overlap(graph: &Graph, op: OpId, window: &Window) -> Overlap {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let (from, to) = (graph.tensor(input), graph.tensor(output));
    let [batch, height, width, channels] = from.shape.nhwc();
    let [_, out_height, out_width, _] = to.shape.nhwc();
    let pixel = channels * from.dtype.bytes();
    let rows = overlap::rows(
        batch,
        [height, out_height],
        [width * pixel, out_width * pixel],
        window.stride[0],
        window.padding.top,
    );
    Overlap {
        input,
        gap: overlap::gap(&rows, false),
        modulus: 1,
    }
}

/// How a window becomes one element, without what depends on the window's size.
struct Reducer {
    kind: PoolOp,
    dtype: DType,
    /// Clamp of int8 results.
    range: (i32, i32),
    /// Clamp of binary32 results.
    clamp: Clamp,
}

impl Reducer {
    fn new(e: &mut Emitter, dtype: DType, kind: PoolOp, activation: Activation, output: &crate::graph::Tensor) -> Self {
        let range = output
            .quantization
            .as_ref()
            .map_or((i32::MIN, i32::MAX), |q| activation_range(activation, dtype, q));
        Reducer {
            kind,
            dtype,
            range,
            clamp: Clamp::new(e, activation),
        }
    }

    fn with_count(&self, e: &mut Emitter, count: u64) -> Sized<'_> {
        Sized {
            reducer: self,
            average: Average::new(e, count),
            count: e.spread_f32(count as f32),
        }
    }
}

/// A [`Reducer`] for windows of one size.
struct Sized<'r> {
    reducer: &'r Reducer,
    average: Average,
    count: Splat,
}

impl Sized<'_> {
    /// One output pixel: all channels of the window at `from` to `to`.
    fn patch(&self, e: &mut Emitter, from: Value, to: Value, patch: Patch) {
        let channels = patch.column as u64;
        let (dtype, range) = (self.reducer.dtype, self.reducer.range);
        // Four channels in a word.
        let fours = if pool_dsp::fits(e.target, dtype, patch) {
            channels / 4
        } else {
            0
        };
        let (_, ends) = e.counted(fours, &[(from, 4), (to, 4)], &[], |e, p, _| {
            match self.reducer.kind {
                PoolOp::Max => {
                    let most = pool_dsp::most(e, p[0], patch);
                    if range == quant::range(dtype) {
                        e.store(most, p[1], 0);
                    } else {
                        for (at, byte) in pool_dsp::bytes(e, most).into_iter().enumerate() {
                            e.store_narrow(&[byte], dtype, range, p[1], at as i32, 1);
                        }
                    }
                }
                PoolOp::Average => {
                    for (at, sum) in pool_dsp::sums(e, p[0], patch).into_iter().enumerate() {
                        let mean = self.average.emit(e, sum);
                        e.store_narrow(&[mean], dtype, range, p[1], at as i32, 1);
                    }
                }
            }
            vec![]
        });
        let (from, to, done) = (ends[0], ends[1], 4 * fours);
        match (dtype, self.reducer.kind) {
            (DType::F32, kind) => e.sweep_unrolled(
                1,
                channels,
                &[(from, 4), (to, 4)],
                lanes::WORDS,
                &mut |e, p, at, width| {
                    let at = 4 * at as i32;
                    let load = |e: &mut Emitter, p: Value, offset: i64| {
                        let (p, offset) = e.near(p, offset + i64::from(at));
                        vec![e.load_f32(p, offset, width)]
                    };
                    let sums = fold(e, p[0], patch, 4, &load, &|e, acc, x| match kind {
                        PoolOp::Average => e.b.ins().fadd(acc, x),
                        // x > acc ? x : acc: a NaN is passed over unless it is the first.
                        PoolOp::Max => e.select_less(acc, x, x, acc),
                    });
                    let mut y = sums[0];
                    if kind == PoolOp::Average {
                        let count = self.count.like(e, y);
                        y = e.b.ins().fdiv(y, count);
                    }
                    let y = self.reducer.clamp.emit(e, y);
                    e.store(y, p[1], at);
                },
            ),
            (_, PoolOp::Max) => e.sweep_unrolled(
                1,
                channels - done,
                &[(from, 1), (to, 1)],
                lanes::BYTES,
                &mut |e, p, at, width| {
                    let at = at as i32;
                    let load = |e: &mut Emitter, p: Value, offset: i64| {
                        let (p, offset) = e.near(p, offset + i64::from(at));
                        vec![e.load_raw(p, offset, width)]
                    };
                    let most = fold(e, p[0], patch, 1, &load, &|e, acc, x| e.b.ins().smax(acc, x));
                    e.store_raw(most[0], range, p[1], at, width);
                },
            ),
            (_, PoolOp::Average) => e.sweep_unrolled(
                1,
                channels - done,
                &[(from, 1), (to, 1)],
                lanes::BYTES,
                &mut |e, p, at, width| {
                    let at = at as i32;
                    let sums = sums(e, p[0], at, patch, width);
                    let means: Vec<Value> = sums.into_iter().map(|sum| self.average.emit(e, sum)).collect();
                    e.store_narrow(&means, dtype, range, p[1], at, width);
                },
            ),
        }
    }
}

/// 32-bit sums of the int8 elements of a window, `width` channels from `at`.
pub fn sums(e: &mut Emitter, from: Value, at: i32, patch: Patch, width: usize) -> Vec<Value> {
    if patch.rows == 1 && patch.columns > SHORT && width > 1 {
        // A long row as a block of rows and what is left of it.
        let block = Patch {
            rows: patch.columns / SHORT,
            columns: SHORT,
            row: patch.column * SHORT as i64,
            column: patch.column,
        };
        let acc = sums(e, from, at, block, width);
        let rest = Patch {
            columns: patch.columns % SHORT,
            ..patch
        };
        if rest.columns == 0 {
            return acc;
        }
        let from = e.offset(from, block.rows as i64 * block.row);
        let more = sums(e, from, at, rest, width);
        return acc
            .iter()
            .zip(more)
            .map(|(acc, more)| e.b.ins().iadd(*acc, more))
            .collect();
    }
    let add = |e: &mut Emitter, acc: Value, x: Value| e.b.ins().iadd(acc, x);
    let words = |e: &mut Emitter, p: Value, offset: i64| {
        let (p, offset) = e.near(p, offset + i64::from(at));
        e.load_bytes(DType::I8, p, offset, width)
    };
    if width == 1 || patch.columns > SHORT {
        return fold(e, from, patch, 1, &words, &add);
    }
    let shorts = |e: &mut Emitter, p: Value, offset: i64| {
        let (p, offset) = e.near(p, offset + i64::from(at));
        e.load_i16(DType::I8, p, offset, width)
    };
    let widen = |e: &mut Emitter, sums: Vec<Value>| -> Vec<Value> {
        sums.into_iter().flat_map(|sum| e.widen_i16(sum)).collect()
    };
    if patch.elements() <= SHORT {
        let sums = fold(e, from, patch, 1, &shorts, &add);
        return widen(e, sums);
    }
    // As many rows at a time as 16 bits can hold.
    let rows = SHORT / patch.columns;
    let block = |rows| Patch { rows, ..patch };
    let first = fold(e, from, block(rows), 1, &shorts, &add);
    let first = widen(e, first);
    let step = rows as i64 * patch.row;
    let next = e.offset(from, step);
    let more = |e: &mut Emitter, p: Value, rows: u64, acc: &[Value]| -> Vec<Value> {
        let sums = fold(e, p, block(rows), 1, &shorts, &add);
        let sums = widen(e, sums);
        acc.iter()
            .zip(sums)
            .map(|(acc, sum)| e.b.ins().iadd(*acc, sum))
            .collect()
    };
    let (acc, ends) = e.counted(patch.rows / rows - 1, &[(next, step)], &first, |e, p, acc| {
        more(e, p[0], rows, acc)
    });
    match patch.rows % rows {
        0 => acc,
        rest => more(e, ends[0], rest, &acc),
    }
}

/// Reads what one window position needs: `load(emitter, pointer, byte offset)`.
type Load<'l> = &'l dyn Fn(&mut Emitter, Value, i64) -> Vec<Value>;
/// One more element: `step(emitter, so far, element)`.
type Step<'s> = &'s dyn Fn(&mut Emitter, Value, Value) -> Value;

/// `step(… step(first, second) …)` over a window, rows first.
fn fold(e: &mut Emitter, from: Value, patch: Patch, unit: i64, load: Load, step: Step) -> Vec<Value> {
    let (row, column) = (patch.row * unit, patch.column * unit);
    let add = |e: &mut Emitter, acc: &[Value], p: Value, offset: i64| -> Vec<Value> {
        let x = load(e, p, offset);
        acc.iter().zip(x).map(|(acc, x)| step(e, *acc, x)).collect()
    };
    let reach = (patch.rows as i64).saturating_mul(row);
    if patch.elements() <= UNROLL && reach < 1 << 30 {
        let mut acc = load(e, from, 0);
        for i in 1..patch.elements() as i64 {
            let (y, x) = (i / patch.columns as i64, i % patch.columns as i64);
            acc = add(e, &acc, from, y * row + x * column);
        }
        return acc;
    }
    // The rest of a row that starts with `acc` and continues at column `first`.
    let line = |e: &mut Emitter, acc: Vec<Value>, p: Value, first: u64| -> Vec<Value> {
        let left = patch.columns - first;
        if left <= UNROLL && (patch.columns as i64).saturating_mul(column) < 1 << 30 {
            return (first..patch.columns).fold(acc, |acc, x| add(e, &acc, p, x as i64 * column));
        }
        let start = e.offset(p, first as i64 * column);
        let quads = left / 4;
        let (mut acc, ends) = e.counted(quads, &[(start, 4 * column)], &acc, |e, p, acc| {
            (0..4).fold(acc.to_vec(), |acc, x| add(e, &acc, p[0], x * column))
        });
        for x in 0..(left % 4) as i64 {
            acc = add(e, &acc, ends[0], x * column);
        }
        acc
    };
    let acc = load(e, from, 0);
    let acc = line(e, acc, from, 1);
    let next = e.offset(from, row);
    let (acc, _) = e.counted(patch.rows - 1, &[(next, row)], &acc, |e, p, acc| {
        line(e, acc.to_vec(), p[0], 0)
    });
    acc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(count: u64, start: u64, step: u64, taken: u64) -> Span {
        Span {
            count,
            start,
            step,
            taken,
        }
    }

    #[test]
    fn spans_of_a_border_and_an_interior() {
        assert_eq!(
            spans(7, 7, 3, 1, 1),
            [span(1, 0, 0, 2), span(5, 0, 1, 3), span(1, 5, 0, 2)]
        );
        assert_eq!(spans(8, 4, 2, 2, 0), [span(4, 0, 2, 2)]);
        assert_eq!(spans(5, 1, 5, 5, 0), [span(1, 0, 0, 5)]);
        assert_eq!(spans(4, 2, 3, 2, 0), [span(1, 0, 0, 3), span(1, 2, 0, 2)]);
    }

    #[test]
    fn a_window_over_both_edges_stays() {
        assert_eq!(spans(3, 3, 7, 1, 3), [span(3, 0, 0, 3)]);
    }

    use crate::graph::{OpKind, Padding};
    use crate::kernels::checks::{Random, check, compile, float, graph, int8};

    fn case(
        kind: PoolOp,
        dtype: DType,
        input: [usize; 4],
        size: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 4],
        activation: Activation,
    ) -> Graph {
        let [top, bottom, left, right] = padding;
        let window = Window {
            size,
            stride,
            dilation: [1, 1],
            padding: Padding {
                top,
                bottom,
                left,
                right,
            },
        };
        let [oh, ow] = window.output([input[1], input[2]]).expect("fits");
        let output = [input[0], oh, ow, input[3]];
        let tensor = |dims: &[usize]| {
            if dtype == DType::I8 {
                int8(dims, 0.05, -3)
            } else {
                float(dims)
            }
        };
        let kind = OpKind::Pool2d {
            op: kind,
            window,
            activation,
        };
        graph(kind, vec![tensor(&input)], tensor(&output))
    }

    #[test]
    fn windows_agree_with_the_evaluator() {
        let mut random = Random::new(1);
        for kind in [PoolOp::Average, PoolOp::Max] {
            for dtype in [DType::I8, DType::F32] {
                for channels in [1, 3, 8, 13, 16, 24, 35] {
                    for (input, size, stride, padding) in [
                        ([4, 4], [2, 2], [2, 2], [0; 4]),
                        ([5, 7], [3, 3], [1, 1], [1; 4]),
                        ([7, 6], [3, 2], [2, 3], [1, 1, 0, 1]),
                        ([1, 9], [1, 4], [1, 2], [0; 4]),
                        ([5, 5], [5, 5], [5, 5], [0; 4]),
                    ] {
                        let activation = match channels % 3 {
                            0 => Activation::None,
                            1 => Activation::Relu,
                            _ => Activation::Relu6,
                        };
                        let input = [2, input[0], input[1], channels];
                        check(
                            &case(kind, dtype, input, size, stride, padding, activation),
                            &mut random,
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn large_windows_agree_with_the_evaluator() {
        let mut random = Random::new(2);
        for kind in [PoolOp::Average, PoolOp::Max] {
            for channels in [1, 8, 17] {
                for size in [[16, 16], [17, 23], [3, 300], [300, 3], [1, 257]] {
                    let input = [1, size[0], size[1], channels];
                    check(
                        &case(kind, DType::I8, input, size, [1, 1], [0; 4], Activation::None),
                        &mut random,
                    );
                    check(
                        &case(kind, DType::F32, input, size, [1, 1], [0; 4], Activation::None),
                        &mut random,
                    );
                }
            }
        }
    }

    #[test]
    fn windows_measured_at_run_time_agree_with_the_evaluator() {
        let mut random = Random::new(17);
        for kind in [PoolOp::Average, PoolOp::Max] {
            for dtype in [DType::I8, DType::F32] {
                for channels in [1, 8, 21] {
                    for (input, size, stride, padding) in [
                        ([14, 15], [13, 13], [1, 1], [6; 4]),
                        ([13, 9], [7, 8], [1, 1], [3, 3, 4, 3]),
                        ([20, 21], [17, 18], [2, 1], [8, 8, 9, 8]),
                    ] {
                        let input = [2, input[0], input[1], channels];
                        let graph = case(kind, dtype, input, size, stride, padding, Activation::Relu);
                        let schedules = check(&graph, &mut random);
                        assert!(schedules[0].contains("run time"), "{}", schedules[0]);
                        assert!(compile(&graph) < 3000);
                    }
                }
            }
        }
    }

    #[test]
    fn extreme_sums_do_not_overflow() {
        for size in [[16, 16], [31, 33]] {
            let graph = case(
                PoolOp::Average,
                DType::I8,
                [1, size[0], size[1], 16],
                size,
                [1, 1],
                [0; 4],
                Activation::None,
            );
            for byte in [0x80, 0x7f] {
                let values = [(graph.inputs[0], vec![byte; graph.tensor(graph.inputs[0]).bytes()])].into();
                crate::kernels::checks::check_on(&graph, &values);
            }
        }
    }

    #[test]
    fn code_exists_for_every_target() {
        for kind in [PoolOp::Average, PoolOp::Max] {
            for dtype in [DType::I8, DType::F32] {
                for channels in [1, 8, 64] {
                    let bytes = compile(&case(
                        kind,
                        dtype,
                        [1, 9, 9, channels],
                        [3, 3],
                        [2, 2],
                        [1; 4],
                        Activation::Relu,
                    ));
                    assert!(bytes < 6000, "{bytes}");
                }
            }
        }
    }

    #[test]
    fn a_window_in_the_padding_is_refused() {
        let graph = case(
            PoolOp::Max,
            DType::I8,
            [1, 2, 2, 1],
            [2, 2],
            [2, 2],
            [2, 0, 0, 0],
            Activation::None,
        );
        let target = Target::new(None, None, None).expect("a supported host");
        assert!(crate::kernels::lower::lower_op(&graph, OpId(0), &target).is_err());
    }
}
