//! Depthwise convolutions on machines without vectors or DSP instructions: one channel at a time.
//!
//! A channel's rows are copied into a plane with borders, a band of them at a time, so that one pointer reaches a whole
//! window. A block of outputs goes through the plane's columns: each element is loaded once for all windows that it is
//! in, and the weights stay in registers.

use super::super::emit::{Emitter, Parked};
use super::super::lowered::Lowered;
use super::super::overlap::{self, Unit};
use super::super::requantize::{Accumulator, Constants, Requantize};
use super::super::schedule::{Block, Inner, Tile};
use super::conv::{round_places, rounds};
use super::layer::Layer;
use crate::error::Result;
use crate::graph::DType;
use crate::target::{Arch, Effort, Target};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I8;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Weights that stay in registers.
const KEPT: usize = 9;
/// Most weights of a window.
const MOST: usize = 49;
/// Products of a block, which is written out without a loop.
const PRODUCTS: usize = 80;
/// Elements of a row that are copied without a loop around them.
const COPIED: usize = 8;
/// Offsets that fit an instruction.
const REACH: usize = 2048;

struct Kernel<'a> {
    layer: &'a Layer<'a>,
    requantize: Requantize,
    entry: usize,
    /// Rows and columns of a block of outputs.
    block: [usize; 2],
    /// Rows of outputs of a band.
    band: usize,
    /// Columns of the plane.
    columns: usize,
}

/// What serves all outputs of a channel.
struct Channel {
    weights: Vec<Value>,
    /// What sums start from, if not from zero.
    start: Option<Value>,
    constants: Constants,
}

/// The kernel, if the layer has the shape for it.
///
/// # Errors
/// Those of reading the model.
pub(super) fn lower(layer: &Layer, target: &Target, stem: &'static str) -> Result<Option<Lowered>> {
    let machine = target.machine();
    let window = &layer.window;
    let taps = window.size[0] * window.size[1];
    let columns = layer.columns();
    let fits = layer.dtype == DType::I8
        && !machine.simd128
        && !machine.dsp
        && target.arch() != Arch::Thumb2
        && layer.depth == 1
        && taps <= MOST
        // Else most of what is copied is in no window.
        && taps >= window.stride[0] * window.stride[1]
        && !(layer.table && window.dilation[0] > 1)
        && columns * rows(layer, 1) <= REACH;
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
    let word = machine.integer_bytes == 4;
    let accumulator = if word { Accumulator::Word } else { Accumulator::Scalar };
    let (bias, requantize) = flat.bias_parameter(target, &blocks, Inner::Scalar, accumulator, 0)?;
    let Some(requantize) = requantize else {
        return Ok(None);
    };
    let weights = flat.weights_parameter(&blocks, Inner::Scalar, 1);
    let (bytes, outputs) = match target.effort {
        Effort::Speed => (4 << 10, 12),
        Effort::Balanced => (2 << 10, 8),
        Effort::Ram => (1 << 10, 8),
        Effort::Size => (1 << 10, 4),
    };
    // The greatest band that fits, in equal shares.
    let fitting = (1..=layer.out_height)
        .rev()
        .find(|n| columns * rows(layer, *n) <= bytes);
    let bands = layer.out_height.div_ceil(fitting.unwrap_or(1));
    let band = layer.out_height.div_ceil(bands);
    let kernel = Kernel {
        layer,
        entry: requantize.entry_bytes(),
        requantize,
        block: block(layer, band, columns, outputs),
        band,
        columns,
    };
    let schedule = format!("planes {}x{}, bands of {band}", kernel.block[0], kernel.block[1]);
    let scratch = (columns * rows(layer, band)).next_multiple_of(4);
    let lowered = layer.lowered(target, stem, schedule, [weights, bias], scratch, |e| kernel.emit(e));
    if layer.filters > 1 {
        return Ok(Some(lowered));
    }
    Ok(Some(lowered.overlapping(layer.input(), kernel.gap(), channels as u64)))
}

/// Rows of the input for `outputs` rows of the result.
fn rows(layer: &Layer, outputs: usize) -> usize {
    let window = &layer.window;
    (outputs - 1) * window.stride[0] + (window.size[0] - 1) * window.dilation[0] + 1
}

/// Rows and columns of a block of at most `outputs`, for the fewest instructions.
fn block(layer: &Layer, band: usize, columns: usize, outputs: usize) -> [usize; 2] {
    let window = &layer.window;
    let taps = window.size[0] * window.size[1];
    let most = (PRODUCTS / taps).clamp(1, outputs);
    let mut best: Option<(usize, [usize; 2])> = None;
    for height in 1..=2.min(band).min(most) {
        if columns * rows(layer, height) > REACH {
            continue;
        }
        for width in 1..=(most / height).min(layer.out_width) {
            let of = |(_, n): (usize, usize)| {
                let across = (n - 1) * window.stride[1] + window.size[1].min(window.stride[1] * window.size[1]);
                let weights = if taps > KEPT { taps } else { 0 };
                across * rows(layer, height) + weights + n * height * (2 * taps + 8) + 4
            };
            let row: usize = round_places(layer.out_width, width).into_iter().map(of).sum();
            let cost = (row + 8) * band.div_ceil(height);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, [height, width]));
            }
        }
    }
    best.map_or([1, 1], |(_, block)| block)
}

impl Kernel<'_> {
    /// Bytes of a row of the input, and of the output.
    fn row_bytes(&self) -> (usize, usize) {
        let layer = self.layer;
        (layer.width * layer.channels, layer.out_width * layer.out_channels())
    }

    /// The least distance of the output below the input. Each channel goes through all rows, which touches no byte of the
    /// other channels where output and input are whole pixels apart.
    fn gap(&self) -> u64 {
        let layer = self.layer;
        if layer.table {
            // All of a channel is copied first.
            return 0;
        }
        let (row, written) = self.row_bytes();
        let top = layer.window.padding.top;
        let places = round_places(layer.out_height, self.band);
        let units: Vec<Unit> = (0..layer.batch)
            .flat_map(|image| places.iter().map(move |place| (image, *place)))
            .map(|(image, (first, count))| Unit {
                reads: ((image * layer.height + (first * layer.window.stride[0]).saturating_sub(top)) * row) as u64,
                written: ((image * layer.out_height + first + count) * written) as u64,
            })
            .collect();
        overlap::gap(&units, true)
    }

    fn emit(&self, e: &mut Emitter) {
        let layer = self.layer;
        let [input, weights, biases, output, plane] = e.args[..5] else {
            unreachable!("there is scratch");
        };
        if layer.padded() {
            self.fill(e, plane, rows(layer, self.band) * self.columns);
        }
        let parked = self.requantize.keep_bounds(e);
        let (row, written) = self.row_bytes();
        let taps = (layer.window.size[0] * layer.window.size[1]) as i64;
        let filters = layer.filters as i64;
        let image = |bytes: usize| if layer.table { 0 } else { bytes as i64 };
        let images = [
            (input, image(layer.height * row)),
            (output, (layer.out_height * written) as i64),
        ];
        e.counted(layer.batch as u64, &images, &[], |e, p, _| {
            // Rows of a table begin where it says: the channel is an offset in them.
            let first = if layer.table { e.int(e.pointer, 0) } else { p[0] };
            let channels = [
                (p[1], filters),
                (first, 1),
                (weights, filters * taps),
                (biases, filters * self.entry as i64),
            ];
            let table = p[0];
            e.counted(layer.channels as u64, &channels, &[], |e, p, _| {
                self.channel(e, [table, p[1], p[2], p[3], p[0], plane], parked);
                vec![]
            });
            vec![]
        });
    }

    /// Bytes outside the input.
    fn fill(&self, e: &mut Emitter, to: Value, bytes: usize) {
        let zero = e.i32(i32::from_le_bytes([self.layer.zero_point as u8; 4]));
        e.counted(bytes.div_ceil(4) as u64, &[(to, 4)], &[], |e, p, _| {
            e.store_word(zero, p[0], 0);
            vec![]
        });
    }

    fn channel(
        &self,
        e: &mut Emitter,
        [table, first, weights, biases, output, plane]: [Value; 6],
        parked: Option<Parked>,
    ) {
        let layer = self.layer;
        let window = &layer.window;
        let (row, written) = self.row_bytes();
        if layer.table {
            let left = window.padding.left;
            let inside = e.offset(plane, left as i64);
            let steps = [(table, i64::from(e.pointer.bytes())), (inside, self.columns as i64)];
            e.counted(window.size[0] as u64, &steps, &[], |e, p, _| {
                let row = e.entry(p[0], 0);
                let from = e.b.ins().iadd(row, first);
                self.copy_row(e, from, p[1]);
                vec![]
            });
            return self.filters(e, [plane, weights, biases, output], parked, 1);
        }
        let [stride, _] = window.stride;
        let top = window.padding.top as i64;
        let source = e.offset(first, -top * row as i64);
        let y = e.int(e.pointer, -top);
        let steps = [
            (output, written as i64),
            (source, (stride * row) as i64),
            (y, stride as i64),
        ];
        rounds(e, layer.out_height, self.band, &steps, |e, p, count| {
            self.copy(e, p[1], p[2], plane, count);
            self.filters(e, [plane, weights, biases, p[0]], parked, count);
        });
    }

    /// `count` rows of outputs of all filters of a channel from its plane.
    fn filters(
        &self,
        e: &mut Emitter,
        [plane, weights, biases, output]: [Value; 4],
        parked: Option<Parked>,
        count: usize,
    ) {
        let window = &self.layer.window;
        let taps = window.size[0] * window.size[1];
        let kept = if taps <= KEPT { taps } else { 0 };
        let steps = [(output, 1), (weights, taps as i64), (biases, self.entry as i64)];
        e.counted(self.layer.filters as u64, &steps, &[], |e, p, _| {
            let (output, weights, biases) = (p[0], p[1], p[2]);
            let values = (0..kept).map(|tap| e.load_integer8(weights, tap as i32)).collect();
            let start = (!self.requantize.from_zero()).then(|| self.requantize.start(e, biases, 0));
            let constants = self.requantize.load(e, biases, 0);
            let bounds = match parked {
                None => Some(self.requantize.bounds(e)),
                parked => Requantize::kept_bounds(e, parked),
            };
            let constants = constants.maybe_within(bounds);
            let channel = Channel {
                weights: values,
                start,
                constants,
            };
            self.strips(e, plane, weights, output, &channel, count);
            vec![]
        });
    }

    /// The rows for `count` rows of outputs; the first is row `y` of the input, at `source`.
    fn copy(&self, e: &mut Emitter, source: Value, y: Value, plane: Value, count: usize) {
        let layer = self.layer;
        let window = &layer.window;
        let (row, _) = self.row_bytes();
        let needed = rows(layer, count);
        let inside = e.offset(plane, window.padding.left as i64);
        let dilated = window.dilation[0] > 1 && window.stride[0] == 1 && count == 1;
        let step = if dilated { window.dilation[0] } else { 1 };
        let steps = [
            (inside, (step * self.columns) as i64),
            (source, (step * row) as i64),
            (plane, (step * self.columns) as i64),
        ];
        let rounds = needed.div_ceil(step) as u64;
        if self.band == layer.out_height {
            // Rows outside are never written.
            let top = window.padding.top;
            let within = |i: &usize| (top..top + layer.height).contains(&(i * step));
            let first = (0..rounds as usize).find(within).unwrap_or(0);
            let held = (0..rounds as usize).filter(within).count();
            let moved = steps[..2].iter().map(|(p, by)| (e.offset(*p, by * first as i64), *by));
            let moved: Vec<(Value, i64)> = moved.collect();
            e.counted(held as u64, &moved, &[], |e, p, _| {
                self.copy_row(e, p[1], p[0]);
                vec![]
            });
            return;
        }
        if window.padding.top + window.padding.bottom == 0 {
            e.counted(rounds, &steps[..2], &[], |e, p, _| {
                self.copy_row(e, p[1], p[0]);
                vec![]
            });
            return;
        }
        // How often, in all bands and channels.
        let places = round_places(layer.out_height, self.band);
        let tops = places.iter().filter(|(_, n)| *n == count);
        let rows_of = |(first, _): &(usize, usize)| {
            let top = (first * window.stride[0]) as i64 - window.padding.top as i64;
            let all = (0..rounds as i64).map(|i| top + i * step as i64);
            all.filter(|y| (0..layer.height as i64).contains(y)).count() as u64
        };
        let (mut held, mut all) = (0, 0);
        for place in tops {
            held += rows_of(place);
            all += rounds;
        }
        let times = (layer.channels * layer.batch) as u64;
        let height = e.int(e.pointer, layer.height as i64);
        e.counted(rounds, &steps, &[y], |e, p, y| {
            let inside = e.b.ins().icmp(IntCC::UnsignedLessThan, y[0], height);
            e.sometimes(inside, held * times, &[], |e| {
                self.copy_row(e, p[1], p[0]);
                vec![]
            });
            let outside = e.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, y[0], height);
            e.sometimes(outside, (all - held) * times, &[], |e| {
                let zero = e.int(I8, i64::from(self.layer.zero_point as i8));
                e.counted(self.columns as u64, &[(p[2], 1)], &[], |e, p, _| {
                    e.store(zero, p[0], 0);
                    vec![]
                });
                vec![]
            });
            vec![e.offset(y[0], step as i64)]
        });
    }

    /// A row of the channel.
    fn copy_row(&self, e: &mut Emitter, from: Value, to: Value) {
        let layer = self.layer;
        let left = layer.window.padding.left.min(self.columns);
        let count = layer.width.min(self.columns - left);
        let most = (REACH / layer.channels).clamp(1, COPIED);
        // Rounds of equal length if there are any.
        let unroll = (most.div_ceil(2)..=most)
            .rev()
            .find(|n| count.is_multiple_of(*n))
            .unwrap_or(most);
        let copy = |e: &mut Emitter, p: &[Value], n: usize| {
            for i in 0..n {
                let value = e.load(I8, p[0], (i * layer.channels) as i32);
                e.store(value, p[1], i as i32);
            }
        };
        let steps = [(from, (unroll * layer.channels) as i64), (to, unroll as i64)];
        let (_, ends) = e.counted((count / unroll) as u64, &steps, &[], |e, p, _| {
            copy(e, p, unroll);
            vec![]
        });
        copy(e, &ends, count % unroll);
    }

    /// `count` rows of outputs from the plane.
    fn strips(&self, e: &mut Emitter, plane: Value, weights: Value, output: Value, channel: &Channel, count: usize) {
        let layer = self.layer;
        let [down, across] = layer.window.stride;
        let (_, written) = self.row_bytes();
        let steps = [(output, written as i64), (plane, (down * self.columns) as i64)];
        rounds(e, count, self.block[0].min(count), &steps, |e, p, height| {
            let steps = [(p[0], layer.out_channels() as i64), (p[1], across as i64)];
            rounds(e, layer.out_width, self.block[1], &steps, |e, p, width| {
                self.outputs(e, [p[1], weights, p[0]], channel, [height, width]);
            });
        });
    }

    /// A block of outputs.
    fn outputs(
        &self,
        e: &mut Emitter,
        [plane, weights, output]: [Value; 3],
        channel: &Channel,
        [height, width]: [usize; 2],
    ) {
        let layer = self.layer;
        let window = &layer.window;
        let (_, written) = self.row_bytes();
        let mut loaded: Vec<Option<Value>> = channel.weights.iter().copied().map(Some).collect();
        loaded.resize(window.size[0] * window.size[1], None);
        let mut sums = vec![channel.start; height * width];
        // Which windows an element is in, along one axis: which of `n`, and which weight.
        let within = |axis: usize, at: usize, n: usize| -> Vec<(usize, usize)> {
            let tap = |i: usize| {
                let from = at.checked_sub(i * window.stride[axis])?;
                let tap = from / window.dilation[axis];
                let hit = from.is_multiple_of(window.dilation[axis]) && tap < window.size[axis];
                hit.then_some((i, tap))
            };
            (0..n).filter_map(tap).collect()
        };
        let span = (window.size[1] - 1) * window.dilation[1];
        for column in 0..=(width - 1) * window.stride[1] + span {
            let columns = within(1, column, width);
            if columns.is_empty() {
                continue;
            }
            for row in 0..rows(layer, height) {
                let rows = within(0, row, height);
                if rows.is_empty() {
                    continue;
                }
                let value = e.load_integer8(plane, (row * self.columns + column) as i32);
                for (y, ky) in &rows {
                    for (x, kx) in &columns {
                        let tap = ky * window.size[1] + kx;
                        let weight = *loaded[tap].get_or_insert_with(|| e.load_integer8(weights, tap as i32));
                        let product = e.b.ins().imul(value, weight);
                        let sum = &mut sums[y * width + x];
                        *sum = Some(match *sum {
                            Some(sum) => e.b.ins().iadd(product, sum),
                            None => product,
                        });
                    }
                }
            }
            for (x, kx) in columns {
                if kx + 1 < window.size[1] {
                    continue;
                }
                for y in 0..height {
                    let sum = sums[y * width + x].expect("a window has elements");
                    let result = self.requantize.apply(e, sum, &channel.constants);
                    e.store_i8(result, output, (y * written + x * layer.out_channels()) as i32);
                }
            }
        }
    }
}
