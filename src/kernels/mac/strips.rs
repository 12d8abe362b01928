//! Depthwise 3x3 convolutions with Arm's DSP instructions: rows in pairs, one channel at a time.
//!
//! Four channels are taken apart at once, into a plane each, in which a word holds an element and the one below it.
//! SMLAD then sums two rows of a window's column, and the words (w0, w1) and (w1, w2) of a column of weights serve two
//! rows of outputs:
//!
//! - even: (w0, w1)·P0 + w2 × low of P1
//! - odd: w0 × high of P0 + (w1, w2)·P1
//!
//! Planes hold a band: a few strips of two rows of outputs (one where the stride is 2). The last band overlaps the one
//! before if it must, also by an odd number of rows.

use super::super::emit::Emitter;
use super::super::lowered::Lowered;
use super::super::requantize::{Accumulator, Requantize};
use super::super::schedule::{self, Block, Inner, Strips, Tile};
use super::layer::Layer;
use crate::data::{Bytes, Contents, Layout, Scalar};
use crate::error::{Error, Result};
use crate::graph::DType;
use crate::intrinsic::Intrinsic;
use crate::target::Target;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Channels that are taken apart at once.
const GROUP: usize = 4;
/// Bytes of a channel's weights: two words for each column.
const WEIGHTS: usize = 24;

struct Kernel<'a> {
    layer: &'a Layer<'a>,
    schedule: Strips,
    requantize: Requantize,
    entry: usize,
    /// Columns of a plane, borders included.
    columns: usize,
}

/// The kernel, if the layer has the shape for it.
pub(super) fn lower(layer: &Layer, target: &Target, stem: &'static str) -> Result<Option<Lowered>> {
    let window = &layer.window;
    let fits = target.machine().dsp
        && layer.dtype == DType::I8
        && layer.depth == 1
        && layer.filters == 1
        && layer.groups.is_multiple_of(GROUP)
        && window.size == [3, 3]
        && window.dilation == [1, 1]
        && window.stride[0] <= 2;
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
    let (bias, requantize) = flat.bias_parameter(target, &blocks, Inner::Scalar, Accumulator::Word, 0)?;
    let requantize =
        requantize.ok_or_else(|| Error::internal("int8 without requantization").at(layer.op().describe()))?;
    let mut bytes = Vec::with_capacity(channels * WEIGHTS);
    let mut taps = Vec::new();
    for channel in 0..channels {
        flat.read(channel, &mut taps)?;
        let half = |row: usize, column: usize| i16::from(taps[3 * row + column] as i8).to_le_bytes();
        for row in 0..2 {
            for column in 0..3 {
                bytes.extend(half(row, column));
                bytes.extend(half(row + 1, column));
            }
        }
    }
    let axes = [
        ("channel", channels),
        ("row", 2),
        ("column", 3),
        ("weight of this row, of the next", 2),
    ];
    let layout = Layout::array(&axes, Layout::Scalar(Scalar::I16));
    let weights = layer.filter_parameter(Contents::Bytes(Bytes::from_vec(bytes)).described(layout));
    let rows = if window.stride[0] == 1 { 2 } else { 1 };
    // Where the height is odd, the last band begins one row higher.
    let rows = rows.min(layer.out_height);
    let columns = (layer.out_width - 1) * window.stride[1] + 3;
    let kernel = Kernel {
        layer,
        schedule: schedule::strips(rows, layer.out_height, layer.out_width, columns),
        entry: requantize.entry_bytes(),
        requantize,
        columns,
    };
    let schedule = kernel.schedule.to_string();
    let scratch = kernel.plane() * GROUP + 4;
    Ok(Some(layer.lowered(
        target,
        stem,
        schedule,
        [weights, bias],
        scratch,
        |e| kernel.emit(e),
    )))
}

impl Kernel<'_> {
    /// Pairs of rows of a band.
    fn pairs(&self) -> usize {
        self.schedule.strips + 1
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

    fn emit(&self, e: &mut Emitter) {
        let layer = self.layer;
        let [input, weights, biases, output, scratch] = e.args[..] else {
            unreachable!("there is scratch");
        };
        self.borders(e, scratch);
        let (row, written) = self.row_bytes();
        let image = [
            (input, (layer.height * row) as i64),
            (output, (layer.out_height * written) as i64),
        ];
        e.counted(layer.batch as u64, &image, &[], |e, p, _| {
            let group = GROUP as i64;
            let groups = [
                (p[0], group),
                (weights, group * WEIGHTS as i64),
                (biases, group * self.entry as i64),
                (p[1], group),
            ];
            e.counted((layer.channels / GROUP) as u64, &groups, &[], |e, p, _| {
                self.bands(e, [p[0], p[1], p[2], p[3]], scratch);
                vec![]
            });
            vec![]
        });
    }

    /// Once in a call: columns outside the input, and the word that stands for rows outside it.
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
        let bytes = e.i32((zero & 0xff).wrapping_mul(0x0101_0101) as i32);
        e.store_word(bytes, scratch, (GROUP * self.plane()) as i32);
    }

    /// All of four channels.
    fn bands(&self, e: &mut Emitter, [input, weights, biases, output]: [Value; 4], scratch: Value) {
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
            self.take_apart(e, source, y, scratch);
            let down = scaled(e, written);
            let output = e.b.ins().iadd(output, down);
            let channels = [
                (scratch, self.plane() as i64),
                (weights, WEIGHTS as i64),
                (biases, self.entry as i64),
                (output, 1),
            ];
            e.counted(GROUP as u64, &channels, &[], |e, p, _| {
                self.channel(e, [p[0], p[1], p[2], p[3]]);
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

    /// A band's pairs of rows into planes; the first is `y` of the input, at `source`.
    fn take_apart(&self, e: &mut Emitter, source: Value, y: Value, scratch: Value) {
        let layer = self.layer;
        let (row, _) = self.row_bytes();
        let left = layer.window.padding.left;
        // The last pair of the last band may be needed for its first row only.
        let last = layer.window.stride[0] * (layer.out_height - self.rows()) + 2 * self.pairs();
        let outside = layer.window.padding.top > 0 || last > layer.height;
        let absent = e.offset(scratch, (GROUP * self.plane()) as i64);
        let inner = e.offset(scratch, (left * self.column()) as i64);
        let columns = layer.width.min(self.columns - left.min(self.columns));
        let height = e.int(e.pointer, layer.height as i64);
        let step = e.int(e.pointer, layer.channels as i64);
        let none = e.int(e.pointer, 0);
        let pairs = [(source, 2 * row as i64), (inner, 4)];
        e.counted(self.pairs() as u64, &pairs, &[y], |e, p, y| {
            let mut ends = [0, 1].map(|i| {
                let from = e.offset(p[0], (i * row) as i64);
                if !outside {
                    return (from, step);
                }
                let y = e.offset(y[0], i as i64);
                let inside = e.b.ins().icmp(IntCC::UnsignedLessThan, y, height);
                (
                    e.b.ins().select(inside, from, absent),
                    e.b.ins().select(inside, step, none),
                )
            });
            let steps = [(p[1], self.column() as i64)];
            let carried = [ends[0].0, ends[1].0];
            e.counted(columns as u64, &steps, &carried, |e, p, from| {
                (ends[0].0, ends[1].0) = (from[0], from[1]);
                let [a, b] = ends.map(|(from, _)| e.load(I32, from, 0));
                for (from, step) in &mut ends {
                    *from = e.b.ins().iadd(*from, *step);
                }
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
                vec![ends[0].0, ends[1].0]
            });
            vec![e.offset(y[0], 2)]
        });
    }

    /// One channel's strips of a band.
    fn channel(&self, e: &mut Emitter, [plane, weights, biases, output]: [Value; 4]) {
        let layer = self.layer;
        let (_, written) = self.row_bytes();
        let taps: Vec<Value> = (0..6).map(|i| e.load_word(weights, 4 * i)).collect();
        let strips = [(plane, 4), (output, (self.schedule.rows * written) as i64)];
        e.counted(self.schedule.strips as u64, &strips, &[], |e, p, _| {
            let columns = self.schedule.columns;
            let steps = [
                (p[0], (columns * layer.window.stride[1] * self.column()) as i64),
                (p[1], (columns * layer.channels) as i64),
            ];
            let (_, ends) = e.counted((layer.out_width / columns) as u64, &steps, &[], |e, p, _| {
                self.block(e, p[0], &taps, biases, p[1], columns);
                vec![]
            });
            let rest = layer.out_width % columns;
            if rest > 0 {
                self.block(e, ends[0], &taps, biases, ends[1], rest);
            }
            vec![]
        });
    }

    /// A few columns of a strip.
    fn block(&self, e: &mut Emitter, plane: Value, taps: &[Value], biases: Value, output: Value, columns: usize) {
        let layer = self.layer;
        let stride = layer.window.stride[1];
        let start = self.requantize.start(e, biases, 0);
        let mut sums = vec![[start; 2]; columns];
        let odd = self.schedule.rows == 2;
        for x in 0..(columns - 1) * stride + 3 {
            let at = (x * self.column()) as i32;
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
        let constants = self.requantize.load(e, biases, 0);
        let (_, written) = self.row_bytes();
        for row in 0..self.schedule.rows {
            for (column, sums) in sums.iter().enumerate() {
                let result = self.requantize.apply(e, sums[row], &constants);
                e.store_i8(result, output, (row * written + column * layer.channels) as i32);
            }
        }
    }
}
