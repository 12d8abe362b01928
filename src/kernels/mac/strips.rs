//! Depthwise convolutions with Arm's DSP instructions: rows in pairs, one channel at a time.
//!
//! Four channels are taken apart at once, into a plane each, in which a word holds an element and the one below it.
//! SMLAD then sums two rows of a window's column. Of 3x3 windows all weights stay in registers: the words (w0, w1) and
//! (w1, w2) of a column of weights serve two rows of outputs:
//!
//! - even: (w0, w1)·P0 + w2 × low of P1
//! - odd: w0 × high of P0 + (w1, w2)·P1
//!
//! Of other windows they are read for each block, in words for the even and the odd row: (w0, w1)·P0 + (w2, w3)·P1 + …
//! and (0, w0)·P0 + (w1, w2)·P1 + …
//!
//! Channels that four does not divide are the last of a group that begins within the one before.
//!
//! Planes hold a band: a few strips of two rows of outputs (one where the stride is 2). The last band overlaps the one
//! before if it must, also by an odd number of rows.

use super::super::emit::{Emitter, Parked};
use super::super::lowered::Lowered;
use super::super::overlap::{self, Unit};
use super::super::schedule::{self, Block, Strips, Tile};
use super::layer::Layer;
use super::words::{FINE, Head, Kept, Words};
use crate::data::{Bytes, Contents, Layout, Scalar};
use crate::error::Result;
use crate::graph::DType;
use crate::intrinsic::Intrinsic;
use crate::target::{Effort, Target};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Channels that are taken apart at once.
const GROUP: usize = 4;
/// Most rows and columns of a window.
const MOST: usize = 16;
/// Words of weights that are used without a loop around them.
const UNROLL: usize = 12;

struct Kernel<'a> {
    layer: &'a Layer<'a>,
    schedule: Strips,
    requantize: Words,
    entry: usize,
    /// Columns of a plane, borders included.
    columns: usize,
    /// Whether weights stay in registers.
    narrow: bool,
    /// Pairs of rows of a window.
    steps: usize,
    /// Blocks of a strip that are written out without a loop around them.
    straight: usize,
}

/// The kernel, if the layer has the shape for it.
pub(super) fn lower(layer: &Layer, target: &Target, stem: &'static str) -> Result<Option<Lowered>> {
    let window = &layer.window;
    let narrow = window.size == [3, 3] && window.dilation == [1, 1];
    let fits = target.machine().dsp
        && layer.dtype == DType::I8
        && layer.depth == 1
        && layer.filters == 1
        && layer.groups >= GROUP
        && window.size.iter().all(|size| *size <= MOST)
        && window.dilation[0] == 1
        && window.stride[0] <= 2
        && !layer.table;
    if !fits {
        return Ok(None);
    }
    let channels = layer.out_channels();
    let flat = layer.flattened();
    let blocks = [Block {
        count: channels,
        filters: 1,
        tile: Tile {
            pixels: 1,
            channels: 1,
            k_unroll: 1,
        },
    }];
    let (bias, requantize) = flat.words_parameter(target, &blocks, FINE)?;
    // Words for a column of weights.
    let steps = match window.stride[0] {
        1 => window.size[0] / 2 + 1,
        _ => window.size[0].div_ceil(2),
    };
    let mut bytes = Vec::new();
    let mut taps = Vec::new();
    for channel in 0..channels {
        flat.read(channel, &mut taps)?;
        // 256 times, which costs nothing here.
        let half = |row: Option<usize>, column: usize| {
            let row = row.filter(|row| *row < window.size[0]);
            [0, row.map_or(0, |row| taps[row * window.size[1] + column])]
        };
        if narrow {
            for (row, column) in [0, 1].into_iter().flat_map(|row| [0, 1, 2].map(|column| (row, column))) {
                bytes.extend(half(Some(row), column));
                bytes.extend(half(Some(row + 1), column));
            }
            continue;
        }
        for (column, step) in (0..window.size[1]).flat_map(|column| (0..steps).map(move |step| (column, 2 * step))) {
            for row in [Some(step), Some(step + 1), step.checked_sub(1), Some(step)] {
                bytes.extend(half(row, column));
            }
        }
    }
    let of_rows = ("256 times the weight of this row, of the next", 2);
    let axes = match narrow {
        true => vec![("channel", channels), ("row", 2), ("column", 3), of_rows],
        false => vec![
            ("channel", channels),
            ("column", window.size[1]),
            ("two rows", steps),
            ("from the first of them, from the one before", 2),
            of_rows,
        ],
    };
    let layout = Layout::array(&axes, Layout::Scalar(Scalar::I16));
    let weights = layer.filter_parameter(Contents::Bytes(Bytes::from_vec(bytes)).described(layout));
    let rows = if window.stride[0] == 1 { 2 } else { 1 };
    // Where the height is odd, the last band begins one row higher.
    let rows = rows.min(layer.out_height);
    let columns = layer.columns();
    let kernel = Kernel {
        layer,
        schedule: schedule::strips(
            rows,
            layer.out_height,
            layer.out_width,
            [columns, steps - 1],
            target.effort,
        ),
        entry: requantize.block_bytes(1),
        requantize,
        columns,
        narrow,
        steps,
        straight: if target.effort == Effort::Size { 0 } else { 2 },
    };
    let schedule = format!("{}, {}", kernel.schedule, kernel.requantize.name());
    let scratch = kernel.plane() * GROUP;
    let lowered = layer.lowered(target, stem, schedule, [weights, bias], scratch, |e| kernel.emit(e));
    Ok(Some(lowered.overlapping(layer.input(), kernel.gap(), channels as u64)))
}

impl Kernel<'_> {
    /// Pairs of rows of a band.
    fn pairs(&self) -> usize {
        self.schedule.strips + self.steps - 1
    }

    /// Bytes of a channel's weights.
    fn weights(&self) -> usize {
        if self.narrow {
            24
        } else {
            8 * self.steps * self.layer.window.size[1]
        }
    }

    /// Bytes of a column of a plane.
    fn column(&self) -> usize {
        4 * self.pairs()
    }

    /// Bytes of a plane.
    fn plane(&self) -> usize {
        self.column() * self.columns
    }

    /// Rows of outputs of a band.
    fn rows(&self) -> usize {
        self.schedule.strips * self.schedule.rows
    }

    /// Bytes of a row of the input, and of the output.
    fn row_bytes(&self) -> (usize, usize) {
        let layer = self.layer;
        (layer.width * layer.channels, layer.out_width * layer.channels)
    }

    /// The least distance of the output below the input. Each group of channels goes through all rows, which touches no
    /// byte of the other channels where output and input are whole pixels apart.
    fn gap(&self) -> u64 {
        let layer = self.layer;
        let (row, written) = self.row_bytes();
        let top = layer.window.padding.top;
        let last = layer.out_height - self.rows();
        let bands = (0..layer.out_height).step_by(self.rows()).map(|first| first.min(last));
        let units: Vec<Unit> = (0..layer.batch)
            .flat_map(|image| bands.clone().map(move |first| (image, first)))
            .map(|(image, first)| Unit {
                reads: ((image * layer.height + (first * layer.window.stride[0]).saturating_sub(top)) * row) as u64,
                written: ((image * layer.out_height + first + self.rows()) * written) as u64,
            })
            .collect();
        overlap::gap(&units, true)
    }

    fn emit(&self, e: &mut Emitter) {
        let layer = self.layer;
        let [input, weights, biases, output, scratch] = e.args[..] else {
            unreachable!("there is scratch");
        };
        self.borders(e, scratch);
        let head = self.requantize.keep(e, biases);
        let biases = e.offset(biases, self.requantize.head_bytes() as i64);
        let (row, written) = self.row_bytes();
        let image = [
            (input, (layer.height * row) as i64),
            (output, (layer.out_height * written) as i64),
        ];
        e.counted(layer.batch as u64, &image, &[], |e, p, _| {
            let group = GROUP as i64;
            let groups = [
                (p[0], group),
                (weights, group * self.weights() as i64),
                (biases, group * self.entry as i64),
                (p[1], group),
            ];
            let whole = (layer.channels / GROUP) as u64;
            let (_, ends) = e.counted(whole, &groups, &[], |e, p, _| {
                self.bands(e, [p[0], p[1], p[2], p[3]], scratch, head, (whole, 0));
                vec![]
            });
            let rest = layer.channels % GROUP;
            if rest > 0 {
                let skipped = GROUP - rest;
                let input = e.offset(ends[0], -(skipped as i64));
                self.bands(e, [input, ends[1], ends[2], ends[3]], scratch, head, (1, skipped));
            }
            vec![]
        });
    }

    /// Once in a call: columns outside the input.
    fn borders(&self, e: &mut Emitter, scratch: Value) {
        let layer = self.layer;
        let left = layer.window.padding.left.min(self.columns);
        let end = (left + layer.width).min(self.columns);
        let zero = layer.zero_point as u32;
        let pair = e.i32((zero & 0xffff | zero << 16) as i32);
        for columns in [0..left, end..self.columns] {
            if columns.is_empty() {
                continue;
            }
            let words = (columns.len() * self.pairs()) as u64;
            let start = e.offset(scratch, (columns.start * self.column()) as i64);
            e.counted(GROUP as u64, &[(start, self.plane() as i64)], &[], |e, p, _| {
                e.counted(words, &[(p[0], 4)], &[], |e, p, _| {
                    e.store_word(pair, p[0], 0);
                    vec![]
                });
                vec![]
            });
        }
    }

    /// All of four channels, of which the first `skipped` are left out; in one of `groups` runs of this code.
    fn bands(
        &self,
        e: &mut Emitter,
        [input, weights, biases, output]: [Value; 4],
        scratch: Value,
        head: Head,
        (groups, skipped): (u64, usize),
    ) {
        let layer = self.layer;
        let (row, written) = self.row_bytes();
        let top = layer.window.padding.top as i64;
        let stride = layer.window.stride[0];
        let first = e.int(e.pointer, 0);
        let bands = layer.out_height.div_ceil(self.rows());
        e.counted(bands as u64, &[], &[first], |e, _, first| {
            let first = first[0];
            let scaled = |e: &mut Emitter, by: usize| {
                let by = e.int(e.pointer, by as i64);
                e.b.ins().imul(first, by)
            };
            let down = scaled(e, stride * row);
            let source = e.b.ins().iadd(input, down);
            let source = e.offset(source, -top * row as i64);
            let y = scaled(e, stride);
            let y = e.offset(y, -top);
            self.take_apart(e, [input, source], y, scratch, groups);
            let down = scaled(e, written);
            let output = e.b.ins().iadd(output, down);
            let planes = e.offset(scratch, (skipped * self.plane()) as i64);
            let channels = [
                (planes, self.plane() as i64),
                (weights, self.weights() as i64),
                (biases, self.entry as i64),
                (output, 1),
            ];
            e.counted((GROUP - skipped) as u64, &channels, &[], |e, p, _| {
                self.channel(e, [p[0], p[1], p[2], p[3]], head);
                vec![]
            });
            let mut next = e.offset(first, self.rows() as i64);
            if !layer.out_height.is_multiple_of(self.rows()) {
                let last = e.int(e.pointer, (layer.out_height - self.rows()) as i64);
                let past = e.b.ins().icmp(IntCC::SignedGreaterThan, next, last);
                next = e.b.ins().select(past, last, next);
            }
            vec![next]
        });
    }

    /// How many pairs of rows there are in a call, for a group of channels, whose row `i` is outside the input.
    fn outside(&self, i: usize) -> u64 {
        let layer = self.layer;
        let last = layer.out_height - self.rows();
        let firsts = (0..layer.out_height).step_by(self.rows()).map(|first| first.min(last));
        let rows =
            firsts.flat_map(|first| (0..self.pairs()).map(move |pair| first * layer.window.stride[0] + 2 * pair + i));
        let (top, height) = (layer.window.padding.top, layer.height);
        let outside = rows.filter(|row| !(top..top + height).contains(row)).count();
        (layer.batch * outside) as u64
    }

    /// A band's pairs of rows into planes; the first is `y` of the input, at `source`.
    fn take_apart(&self, e: &mut Emitter, [input, source]: [Value; 2], y: Value, scratch: Value, groups: u64) {
        let layer = self.layer;
        let (row, _) = self.row_bytes();
        let left = layer.window.padding.left;
        let inner = e.offset(scratch, (left * self.column()) as i64);
        let columns = layer.width.min(self.columns - left.min(self.columns));
        let outside = [0, 1].map(|i| groups * self.outside(i));
        let pairs = [(source, 2 * row as i64), (inner, 4)];
        e.counted(self.pairs() as u64, &pairs, &[y], |e, p, y| {
            // What lies outside is read from the first row, and overwritten then.
            let mut from = [0, 1].map(|i| e.offset(p[0], (i * row) as i64));
            let mut absent = [None; 2];
            for i in 0..2 {
                if outside[i] > 0 {
                    let y = e.offset(y[0], i as i64);
                    let height = e.int(e.pointer, layer.height as i64);
                    let inside = e.b.ins().icmp(IntCC::UnsignedLessThan, y, height);
                    from[i] = e.b.ins().select(inside, from[i], input);
                    absent[i] = Some(e.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, y, height));
                }
            }
            let channels = layer.channels as i64;
            let steps = [(p[1], self.column() as i64), (from[0], channels), (from[1], channels)];
            e.counted(columns as u64, &steps, &[], |e, p, _| {
                let [a, b] = [p[1], p[2]].map(|from| e.load(I32, from, 0));
                let low = e.intrinsic(Intrinsic::Pkhbt, &[a, b]);
                let high = e.intrinsic(Intrinsic::Pkhtb, &[b, a]);
                for (channel, (both, take)) in [
                    (low, Intrinsic::Sxtb16),
                    (low, Intrinsic::Sxtb16Ror8),
                    (high, Intrinsic::Sxtb16),
                    (high, Intrinsic::Sxtb16Ror8),
                ]
                .into_iter()
                .enumerate()
                {
                    let value = e.intrinsic(take, &[both]);
                    e.store_word(value, p[0], (channel * self.plane()) as i32);
                }
                vec![]
            });
            for i in 0..2 {
                let Some(absent) = absent[i] else { continue };
                e.sometimes(absent, outside[i], &[], |e| {
                    let zero = e.i32(layer.zero_point);
                    e.counted(columns as u64, &[(p[1], self.column() as i64)], &[], |e, p, _| {
                        for channel in 0..GROUP {
                            let at = (channel * self.plane() + 2 * i) as i32;
                            e.b.ins().istore16(Emitter::flags(), zero, p[0], at);
                        }
                        vec![]
                    });
                    vec![]
                });
            }
            vec![e.offset(y[0], 2)]
        });
    }

    /// One channel's strips of a band. Weights, sums and activations take all registers; what else is needed waits on the
    /// stack.
    fn channel(&self, e: &mut Emitter, [plane, weights, constants, output]: [Value; 4], head: Head) {
        let layer = self.layer;
        let (_, written) = self.row_bytes();
        let kept = self.requantize.keep_channel(e, head, constants);
        let taps: Vec<Value> = match self.narrow {
            true => (0..6).map(|i| e.load_word(weights, 4 * i)).collect(),
            false => vec![weights],
        };
        let columns = self.schedule.columns;
        let (whole, rest) = (layer.out_width / columns, layer.out_width % columns);
        let across = columns * layer.window.stride[1] * self.column();
        let strips = [(plane, 4), (output, (self.schedule.rows * written) as i64)];
        e.counted(self.schedule.strips as u64, &strips, &[], |e, p, _| {
            let to = e.park(&[p[1]]);
            if whole <= self.straight {
                for i in 0..whole {
                    let at = [i * across, i * columns * layer.channels];
                    self.block(e, p[0], &taps, &kept, to, at, columns);
                }
                if rest > 0 {
                    let at = [whole * across, whole * columns * layer.channels];
                    self.block(e, p[0], &taps, &kept, to, at, rest);
                }
                return vec![];
            }
            let end = e.offset(p[0], (whole * across) as i64);
            let end = e.park(&[end]);
            let p = e.repeat(whole as u64, &[p[0]], |e, p| {
                let output = self.block(e, p[0], &taps, &kept, to, [0, 0], columns);
                let output = e.offset(output, (columns * layer.channels) as i64);
                e.repark(to, &[output]);
                let next = e.offset(p[0], across as i64);
                let end = e.fetch_pointer(end);
                (vec![next], e.b.ins().icmp(IntCC::NotEqual, next, end))
            });
            if rest > 0 {
                self.block(e, p[0], &taps, &kept, to, [0, 0], rest);
            }
            vec![]
        });
    }

    /// A few columns of a strip, `at` bytes from `plane` and from what is parked in `to`. Returns the latter.
    #[allow(clippy::too_many_arguments)]
    fn block(
        &self,
        e: &mut Emitter,
        plane: Value,
        taps: &[Value],
        kept: &Kept,
        to: Parked,
        [from_at, to_at]: [usize; 2],
        columns: usize,
    ) -> Value {
        let layer = self.layer;
        let start = self.requantize.kept_start(e, kept);
        let sums = match self.narrow {
            true => self.narrow_sums(e, plane, taps, start, from_at, columns),
            false => self.wide_sums(e, plane, taps[0], start, from_at, columns),
        };
        let ready = self.requantize.kept(e, kept);
        let output = e.fetch_pointer(to);
        let (_, written) = self.row_bytes();
        for row in 0..self.schedule.rows {
            for (column, sums) in sums.iter().enumerate() {
                let result = self.requantize.result(e, sums[row], 0, &ready);
                e.store_i8(result, output, (to_at + row * written + column * layer.channels) as i32);
            }
        }
        output
    }

    /// The sums of the columns of an even and an odd row, with weights in registers.
    fn narrow_sums(
        &self,
        e: &mut Emitter,
        plane: Value,
        taps: &[Value],
        start: Value,
        from_at: usize,
        columns: usize,
    ) -> Vec<[Value; 2]> {
        let stride = self.layer.window.stride[1];
        let mut sums = vec![[start; 2]; columns];
        let odd = self.schedule.rows == 2;
        for x in 0..(columns - 1) * stride + 3 {
            let at = (from_at + x * self.column()) as i32;
            let (above, below) = (e.load_word(plane, at), e.load_word(plane, at + 4));
            for (column, [even, second]) in sums.iter_mut().enumerate() {
                let Some(tap) = x.checked_sub(column * stride).filter(|tap| *tap < 3) else {
                    continue;
                };
                let (upper, lower) = (taps[tap], taps[3 + tap]);
                *even = e.intrinsic(Intrinsic::Smlad, &[upper, above, *even]);
                *even = e.intrinsic(Intrinsic::Smlatb, &[lower, below, *even]);
                if odd {
                    *second = e.intrinsic(Intrinsic::Smlabt, &[upper, above, *second]);
                    *second = e.intrinsic(Intrinsic::Smlad, &[lower, below, *second]);
                }
            }
        }
        sums
    }

    /// The same with weights from memory.
    fn wide_sums(
        &self,
        e: &mut Emitter,
        plane: Value,
        weights: Value,
        start: Value,
        from_at: usize,
        columns: usize,
    ) -> Vec<[Value; 2]> {
        let window = &self.layer.window;
        let rows = self.schedule.rows;
        // One column of weights.
        let step = |e: &mut Emitter, plane: Value, at: usize, weights: Value, w_at: usize, sums: &mut [Value]| {
            for i in 0..self.steps {
                let words = [0, 4].map(|odd| e.load_word(weights, (w_at + 8 * i + odd) as i32));
                for (column, sums) in sums.chunks_mut(rows).enumerate() {
                    let at = at + column * window.stride[1] * self.column() + 4 * i;
                    let pair = e.load_word(plane, at as i32);
                    for (sum, word) in sums.iter_mut().zip(words) {
                        *sum = e.intrinsic(Intrinsic::Smlad, &[word, pair, *sum]);
                    }
                }
            }
        };
        let (from_step, weight_step) = (window.dilation[1] * self.column(), 8 * self.steps);
        let mut sums = vec![start; columns * rows];
        if window.size[1] * self.steps <= UNROLL {
            for tap in 0..window.size[1] {
                step(
                    e,
                    plane,
                    from_at + tap * from_step,
                    weights,
                    tap * weight_step,
                    &mut sums,
                );
            }
        } else {
            let moving = [(plane, from_step as i64), (weights, weight_step as i64)];
            sums = e
                .counted(window.size[1] as u64, &moving, &sums, |e, p, sums| {
                    let mut sums = sums.to_vec();
                    step(e, p[0], from_at, p[1], 0, &mut sums);
                    sums
                })
                .0;
        }
        sums.chunks(rows).map(|sums| [sums[0], sums[rows - 1]]).collect()
    }
}
