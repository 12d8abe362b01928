//! One row of a depthwise convolution with Arm's DSP instructions, straight from three rows that a table points at.
//!
//! One channel at a time, and nothing is taken apart in memory: a row of outputs uses an element in one row of its window
//! only. Of a column the upper two elements become a pair for SMLAD, the third is multiplied alone. All weights of a
//! channel stay in registers, as five words: (w0, w1) of each column, and the lower weights w2 of two columns.
//!
//! What a block of outputs reads is read before any of them is written, so the row may lie over one that ends here, a
//! whole number of pixels below it.

use super::super::emit::{Emitter, Parked};
use super::super::lowered::Lowered;
use super::super::overlap::{self, Unit};
use super::super::schedule::{Block, Tile};
use super::layer::Layer;
use super::words::{FINE, Head, Kept, Ready, Words};
use crate::data::{Bytes, Contents, Layout, Scalar};
use crate::error::Result;
use crate::graph::DType;
use crate::intrinsic::Intrinsic;
use crate::target::{Effort, Target};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Rows and columns of the window.
const TAPS: usize = 3;
/// Words of a channel's weights.
const WORDS: usize = 5;
/// Most outputs of a block: with three rows, the weights and a column they take all registers.
const MOST: usize = 4;
/// Equal blocks that are written out without a loop around them.
const STRAIGHT: usize = 2;

struct Kernel<'a> {
    layer: &'a Layer<'a>,
    requantize: Words,
    entry: usize,
    runs: Vec<Run>,
}

/// Where a channel begins: in three rows, in the output, in the constants and in the weights.
#[derive(Clone, Copy)]
enum At<'v> {
    Held(&'v [Value]),
    Parked(Parked),
}

impl At<'_> {
    fn get(self, e: &mut Emitter, first: usize, count: usize) -> Vec<Value> {
        match self {
            At::Held(values) => values[first..first + count].to_vec(),
            At::Parked(parked) => e.fetch(parked, e.pointer, first, count),
        }
    }
}

/// Blocks of outputs that are alike: a loop, where they are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// First output.
    first: usize,
    /// Outputs of a block.
    each: usize,
    /// Blocks.
    count: usize,
}

/// The kernel, if the layer has the shape for it.
///
/// # Errors
/// Those of reading the model.
pub(super) fn lower(layer: &Layer, target: &Target, stem: &'static str) -> Result<Option<Lowered>> {
    let window = &layer.window;
    let fits = layer.table
        && target.machine().dsp
        && layer.dtype == DType::I8
        && layer.depth == 1
        && layer.filters == 1
        && layer.batch == 1
        && window.size == [TAPS, TAPS]
        && window.dilation == [1, 1];
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
    let (mut bytes, mut taps) = (Vec::new(), Vec::new());
    for channel in 0..channels {
        flat.read(channel, &mut taps)?;
        let halves = [0, 3, 1, 4, 2, 5, 6, 7, 8].map(|tap| taps[tap]);
        // 256 times, which costs nothing here.
        bytes.extend(halves.iter().chain([&0]).flat_map(|weight| [0, *weight]));
    }
    let axes = [
        ("channel", channels),
        ("256 times: upper two of each column, lower ones", 2 * WORDS),
    ];
    let layout = Layout::array(&axes, Layout::Scalar(Scalar::I16));
    let weights = layer.filter_parameter(Contents::Bytes(Bytes::from_vec(bytes)).described(layout));
    let kernel = Kernel {
        layer,
        entry: requantize.block_bytes(1),
        requantize,
        runs: runs(layer, target.effort),
    };
    let schedule = format!("columns 1x{}, {}", kernel.most(), kernel.requantize.name());
    let lowered = layer.lowered(target, stem, schedule, [weights, bias], 0, |e| kernel.emit(e));
    Ok(Some(lowered.overlapping(layer.input(), kernel.gap(), channels as u64)))
}

/// All outputs of a row in blocks. Those that reach over a side are code of their own.
fn runs(layer: &Layer, effort: Effort) -> Vec<Run> {
    let width = layer.out_width;
    // As few blocks as possible, and the least different ones.
    let each = [4, 3].into_iter().find(|n| width.is_multiple_of(*n));
    let each = each.unwrap_or(if width <= MOST { width } else { 3 }).min(width);
    let straight = if effort == Effort::Size { 1 } else { STRAIGHT };
    let mut runs: Vec<Run> = Vec::new();
    for first in (0..width).step_by(each) {
        let count = each.min(width - first);
        let alike =
            |run: &&mut Run| run.each == count && inside(layer, run.first, count) && inside(layer, first, count);
        match runs.last_mut().filter(alike) {
            Some(run) => run.count += 1,
            None => runs.push(Run {
                first,
                each: count,
                count: 1,
            }),
        }
    }
    let written_out = |run: Run| -> Vec<Run> {
        match run.count {
            count if count > straight => vec![run],
            count => (0..count)
                .map(|i| Run {
                    first: run.first + i * run.each,
                    count: 1,
                    ..run
                })
                .collect(),
        }
    };
    runs.into_iter().flat_map(written_out).collect()
}

/// Whether `count` outputs from `first` on read nothing outside the rows.
fn inside(layer: &Layer, first: usize, count: usize) -> bool {
    let (left, stride) = (layer.window.padding.left, layer.window.stride[1]);
    first * stride >= left && (first + count - 1) * stride + TAPS <= layer.width + left
}

impl Kernel<'_> {
    fn most(&self) -> usize {
        self.runs.iter().map(|run| run.each).max().unwrap_or(1)
    }

    /// The least distance of the row below one of the input. Each channel goes through all columns, which touches no byte
    /// of the other channels where the rows are whole pixels apart.
    fn gap(&self) -> u64 {
        let layer = self.layer;
        let (left, stride) = (layer.window.padding.left, layer.window.stride[1]);
        let blocks =
            (self.runs.iter()).flat_map(|run| (0..run.count).map(move |i| (run.first + i * run.each, run.each)));
        let units: Vec<Unit> = blocks
            .map(|(first, count)| Unit {
                reads: ((first * stride).saturating_sub(left) * layer.channels) as u64,
                written: ((first + count) * layer.channels) as u64,
            })
            .collect();
        overlap::gap(&units, true)
    }

    fn emit(&self, e: &mut Emitter) {
        let [table, weights, biases, output] = e.args[..] else {
            unreachable!("there is no scratch");
        };
        let head = self.requantize.keep(e, biases);
        let biases = e.offset(biases, self.requantize.head_bytes() as i64);
        let rows = [0, 1, 2].map(|row| e.entry(table, row));
        let channels = self.layer.channels as u64;
        let steps = [1, 1, 1, 1, self.entry as i64, 4 * WORDS as i64];
        let starts = [rows[0], rows[1], rows[2], output, biases, weights];
        if self.runs.iter().all(|run| run.count == 1) {
            let moving: Vec<(Value, i64)> = starts.into_iter().zip(steps).collect();
            e.counted(channels, &moving, &[], |e, p, _| {
                self.channel(e, At::Held(p), head);
                vec![]
            });
            return;
        }
        // The sums of a loop need all registers: what a channel begins with waits on the stack.
        let pointers = e.park(&starts);
        if channels == 1 {
            return self.channel(e, At::Parked(pointers), head);
        }
        let end = e.offset(weights, steps[5] * channels as i64);
        let end = e.park(&[end]);
        e.repeat(channels, &[], |e, _| {
            self.channel(e, At::Parked(pointers), head);
            let now = e.fetch(pointers, e.pointer, 0, steps.len());
            let next: Vec<Value> = now.into_iter().zip(steps).map(|(p, step)| e.offset(p, step)).collect();
            e.repark(pointers, &next);
            let end = e.fetch_pointer(end);
            (vec![], e.b.ins().icmp(IntCC::NotEqual, next[5], end))
        });
    }

    /// All outputs of a channel, from where its rows, output, constants and weights begin.
    fn channel(&self, e: &mut Emitter, pointers: At, head: Head) {
        let layer = self.layer;
        let pixel = layer.channels as i64;
        let stride = layer.window.stride[1] as i64;
        let left = layer.window.padding.left as i64;
        let constants = pointers.get(e, 4, 2);
        let kept = self.requantize.keep_channel(e, head, constants[0]);
        let taps: Vec<Value> = (0..WORDS as i32).map(|i| e.load_word(constants[1], 4 * i)).collect();
        for run in &self.runs {
            let first = run.first as i64 * stride - left;
            let written = run.first as i64 * pixel;
            let rows = pointers.get(e, 0, 3);
            if run.count == 1 {
                let sums = self.sums(e, [rows[0], rows[1], rows[2]], first, run, &taps, &kept);
                let ready = self.requantize.kept(e, &kept);
                let output = pointers.get(e, 3, 1)[0];
                self.finish(e, sums, &ready, (output, written));
                continue;
            }
            // What is read first is where the pointers begin.
            let start: Vec<Value> = rows.into_iter().map(|row| e.offset(row, first * pixel)).collect();
            let step = run.each as i64 * stride * pixel;
            let end = e.offset(start[0], step * run.count as i64);
            let end = e.park(&[end]);
            let output = pointers.get(e, 3, 1)[0];
            let output = e.offset(output, written);
            let to = e.park(&[output]);
            e.repeat(run.count as u64, &start, |e, p| {
                let sums = self.sums(e, [p[0], p[1], p[2]], 0, run, &taps, &kept);
                let ready = self.requantize.kept(e, &kept);
                let output = e.fetch_pointer(to);
                self.finish(e, sums, &ready, (output, 0));
                let output = e.offset(output, run.each as i64 * pixel);
                e.repark(to, &[output]);
                let next: Vec<Value> = p.iter().map(|p| e.offset(*p, step)).collect();
                let end = e.fetch_pointer(end);
                let again = e.b.ins().icmp(IntCC::NotEqual, next[0], end);
                (next, again)
            });
        }
    }

    /// Requantizes and stores a block, `at` bytes behind `output`.
    fn finish(&self, e: &mut Emitter, sums: Vec<Value>, ready: &Ready, (output, at): (Value, i64)) {
        for (i, sum) in sums.into_iter().enumerate() {
            let result = self.requantize.result(e, sum, 0, ready);
            e.store_i8(result, output, at as i32 + (i * self.layer.channels) as i32);
        }
    }

    /// The sums of a block of outputs from `column` of the rows on.
    fn sums(
        &self,
        e: &mut Emitter,
        rows: [Value; 3],
        column: i64,
        run: &Run,
        taps: &[Value],
        kept: &Kept,
    ) -> Vec<Value> {
        let layer = self.layer;
        let stride = layer.window.stride[1];
        let (first, left) = (run.first * stride, layer.window.padding.left);
        let zero = layer.zero_point as u32;
        let start = self.requantize.kept_start(e, kept);
        let mut sums = vec![start; run.each];
        let mut outside = None;
        for x in 0..(run.each - 1) * stride + TAPS {
            let within = |output: usize| x.checked_sub(output * stride).filter(|tap| *tap < TAPS);
            if !(0..run.each).any(|output| within(output).is_some()) {
                continue;
            }
            let inside = (left..left + layer.width).contains(&(first + x));
            let place = ((column + x as i64) * layer.channels as i64) as i32;
            let pair = match inside {
                true => {
                    let [a, b] = [0, 1].map(|row| e.load_i8(rows[row], place));
                    e.intrinsic(Intrinsic::Pkhbt, &[a, b])
                }
                false => *outside.get_or_insert_with(|| e.i32((zero & 0xffff | zero << 16) as i32)),
            };
            let used = |sums: &mut Vec<Value>, add: &mut dyn FnMut(usize, Value) -> Value| {
                for (output, sum) in sums.iter_mut().enumerate() {
                    if let Some(tap) = within(output) {
                        *sum = add(tap, *sum);
                    }
                }
            };
            used(&mut sums, &mut |tap, sum| {
                e.intrinsic(Intrinsic::Smlad, &[taps[tap], pair, sum])
            });
            // Not before, which would take one register more.
            let third = if inside { e.load_i8(rows[2], place) } else { pair };
            used(&mut sums, &mut |tap, sum| {
                let half = if tap == 1 { Intrinsic::Smlatb } else { Intrinsic::Smlabb };
                e.intrinsic(half, &[taps[TAPS + tap / 2], third, sum])
            });
        }
        sums
    }
}
