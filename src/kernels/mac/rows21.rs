//! Convolutions on 64-bit machines without vectors: three rows of outputs in one word.
//!
//! A word holds a0 + a1·2^21 + a2·2^42: activations of one column, a stride of rows apart, which the same tap of three
//! outputs below each other multiplies. Its product with a weight, summed, is S0 + S1·2^21 + S2·2^42 as long as every
//! sum lies in −2^20 .. 2^20, starting from 2^20 in each lane. What [`Lanes`](super::lanes::Lanes) does along a row, this
//! does across rows: words of a row are then packed once for all taps of a window's row, and stay in registers from one
//! tap to the next.
//!
//! A column is packed from its last row upwards: P(r) = a(r) + P(r + stride)·2^21. The fourth row leaves one bit at the
//! top, which is shifted out at the end. Sums that are longer are cut into parts of some input channels; of the sums of
//! n parts, U, shifted left by one, S = Σ U, H = Σ ⌊U / 2^22⌋ and T = Σ ⌊U / 2^43⌋ give all lanes: T, H − T·2^21 and
//! (S − H·2^22) / 2.

mod shape;

use super::super::emit::{Emitter, Parked};
use super::super::lowered::Lowered;
use super::super::overlap::{self, Unit};
use super::super::requantize::{Accumulator, Requantize};
use super::super::schedule::{Block, Element, Inner, Tile};
use super::conv::{overlapped, rounds};
use super::layer::Layer;
use super::stage::Stage;
use crate::error::Result;
use crate::graph::DType;
use crate::target::{Effort, Target};
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use shape::{Shape, depth_of_parts, order};

/// Rows of a word.
const LANES: usize = 3;
/// Bits of a lane.
const BITS: u32 = 21;
/// What a lane starts from.
const START: i32 = 1 << (BITS - 1);
/// Words and sums of a tile that stay in registers, beside a weight, a product and two pointers: with more, Cranelift
/// has 24 for them, some are spilled, which costs more than larger tiles save.
const REGISTERS: usize = 16;
/// Parts whose sums are put together without a loop.
const STRAIGHT: usize = 4;
/// Offsets that fit an instruction.
const REACH: usize = 2040;

struct Kernel<'a> {
    layer: &'a Layer<'a>,
    requantize: Requantize,
    entry: usize,
    blocks: Vec<Block>,
    shape: Shape,
    /// Columns of outputs whose activations are packed together.
    panel: usize,
    stage: Option<Stage>,
    /// Bytes from one row to the next, of those that windows of three rows of outputs see.
    row_bytes: usize,
}

/// The kernel, if the layer has the shape for it and it takes less than `other` instructions.
///
/// # Errors
/// Those of reading the model.
pub(super) fn lower(layer: &Layer, target: &Target, stem: &'static str, other: u64) -> Result<Option<Lowered>> {
    let word = Inner::new(target, layer.dtype) == Inner::Scalar && target.machine().integer_bytes == 8;
    let fits = word && layer.dtype == DType::I8 && !layer.table && !layer.pointwise() && layer.out_height >= LANES;
    if !fits || target.effort == Effort::Size {
        return Ok(None);
    }
    let Some(depth) = depth_of_parts(layer)? else {
        return Ok(None);
    };
    let shape = Shape::new(layer, depth);
    let room = match target.effort {
        Effort::Speed => 8 << 10,
        Effort::Balanced => 4 << 10,
        Effort::Ram | Effort::Size => 0,
    };
    let mut best: Option<(u64, [usize; 3])> = None;
    for columns in 1..=(REGISTERS / 2).min(layer.out_width) {
        let panel = shape.panel(columns, layer.out_width, room);
        for channels in 1..=(REGISTERS / columns).saturating_sub(1).min(layer.filters) {
            let row = shape.row([panel, columns, channels], layer.out_width, layer.filters, layer.depth) as u64;
            // Code for what is left over is worth something.
            let more = u64::from(!layer.filters.is_multiple_of(channels));
            let cost = row + row * more / 32;
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, [panel, columns, channels]));
            }
        }
    }
    let Some((row, [panel, columns, channels])) = best else {
        return Ok(None);
    };
    let copied = layer.padded().then(|| 3 * shape.rows() * layer.width * layer.channels);
    let triple = row * layer.groups as u64 + copied.unwrap_or(0) as u64;
    let all = triple * (layer.batch * layer.out_height.div_ceil(LANES)) as u64;
    if all >= other {
        return Ok(None);
    }
    let block = |count: usize, channels: usize| Block {
        count,
        filters: channels,
        tile: Tile {
            pixels: columns,
            channels,
            k_unroll: shape.unroll(),
        },
    };
    let whole = block(layer.filters / channels, channels);
    let rest = layer.filters % channels;
    let blocks: Vec<Block> = [whole].into_iter().chain((rest > 0).then(|| block(1, rest))).collect();
    let excess = Accumulator::Biased(shape.parts as i32 * START);
    let (bias, requantize) = layer.bias_parameter(target, &blocks, Inner::Lanes21, excess, 0)?;
    let Some(requantize) = requantize else {
        return Ok(None);
    };
    let stage = layer.padded().then(|| {
        let stage = Stage::new(layer, Element::I8, layer.width * layer.channels, 1, 0);
        stage.of_rows(shape.rows(), shape.unit[0] * layer.width * layer.channels)
    });
    let weights = layer.filter_parameter(layer.weights.ordered(layer.groups, &blocks, &order(layer, &shape)));
    let row_bytes = match &stage {
        Some(stage) => stage.row_bytes(),
        None => shape.unit[0] * layer.width * layer.channels,
    };
    let kernel = Kernel {
        layer,
        entry: requantize.entry_bytes(),
        requantize,
        blocks,
        shape,
        panel,
        stage,
        row_bytes,
    };
    let tiles: Vec<String> = (kernel.blocks.iter())
        .map(|block| format!("{LANES}x{}px x {}ch", block.tile.pixels, block.tile.channels))
        .collect();
    let schedule = format!("rows21 {}", tiles.join(", "));
    let lowered = layer.lowered(target, stem, schedule, [weights, bias], kernel.scratch(), |e| {
        kernel.emit(e)
    });
    Ok(Some(lowered.overlapping(layer.input(), kernel.gap(), 1)))
}

impl Kernel<'_> {
    /// Words from one row of a channel's to the next.
    fn pitch(&self) -> usize {
        self.shape.columns(self.panel)
    }

    /// Sums of the largest tile.
    fn sums(&self) -> usize {
        let of = |block: &Block| block.tile.pixels * block.tile.channels;
        self.blocks.iter().map(of).max().unwrap_or(0)
    }

    fn staged_bytes(&self) -> usize {
        self.stage.as_ref().map_or(0, Stage::bytes).next_multiple_of(16)
    }

    /// Bytes of scratch: rows with borders, the words of a panel, the sums of parts of a tile.
    fn scratch(&self) -> usize {
        let sums = if self.shape.parts > 1 {
            8 * self.shape.parts * self.sums()
        } else {
            0
        };
        self.staged_bytes() + self.shape.words_bytes(self.panel) + sums
    }

    /// The least distance of the output below the input.
    fn gap(&self) -> u64 {
        let layer = self.layer;
        let (row, written) = self.image_rows();
        let [stride, _] = layer.window.stride;
        let mut places: Vec<usize> = (0..layer.out_height / LANES).map(|i| i * LANES).collect();
        places.push(layer.out_height - LANES);
        let units: Vec<Unit> = (0..layer.batch)
            .flat_map(|image| places.iter().map(move |first| (image, *first)))
            .map(|(image, first)| Unit {
                reads: ((image * layer.height + (first * stride).saturating_sub(layer.window.padding.top)) * row)
                    as u64,
                written: ((image * layer.out_height + first + LANES) * written) as u64,
            })
            .collect();
        overlap::gap(&units, self.stage.is_some())
    }

    /// Bytes of a row of the input, and of the output.
    fn image_rows(&self) -> (usize, usize) {
        let layer = self.layer;
        (layer.width * layer.channels, layer.out_width * layer.out_channels())
    }

    fn emit(&self, e: &mut Emitter) {
        let layer = self.layer;
        let [input, weights, biases, output, scratch] = e.args[..5] else {
            unreachable!("there is scratch");
        };
        let words = e.offset(scratch, self.staged_bytes() as i64);
        if let Some(stage) = &self.stage {
            stage.borders(e, scratch);
        }
        let kept = self.requantize.keep_bounds(e);
        let (row, written) = self.image_rows();
        let images = [
            (input, (layer.height * row) as i64),
            (output, (layer.out_height * written) as i64),
        ];
        let [stride, _] = layer.window.stride;
        let channels: usize = self.blocks.iter().map(|block| block.count * block.tile.channels).sum();
        e.counted(layer.batch as u64, &images, &[], |e, p, _| {
            let top = layer.window.padding.top as i64;
            let source = e.offset(p[0], -top * row as i64);
            let y = e.int(e.pointer, -top);
            let steps = [
                (source, (stride * row) as i64),
                (p[1], written as i64),
                (y, stride as i64),
            ];
            overlapped(e, layer.out_height, LANES, &steps, |e, p| {
                let base = match &self.stage {
                    Some(stage) => {
                        stage.copy(e, scratch, p[0], p[2], row, self.shape.unit[0]);
                        scratch
                    }
                    None => p[0],
                };
                let groups = [
                    (base, layer.depth as i64),
                    (weights, (channels * self.weights()) as i64),
                    (biases, (channels * self.entry) as i64),
                    (p[1], layer.filters as i64),
                ];
                e.counted(layer.groups as u64, &groups, &[], |e, p, _| {
                    self.group(e, [p[0], words, p[1], p[2], p[3]], kept);
                    vec![]
                });
            });
            vec![]
        });
    }

    /// Weights of a channel.
    fn weights(&self) -> usize {
        self.shape.parts * self.shape.steps() * self.shape.size[1]
    }

    /// Three rows of the outputs of a group.
    fn group(&self, e: &mut Emitter, [base, words, weights, biases, output]: [Value; 5], kept: Option<Parked>) {
        let layer = self.layer;
        let position = (layer.window.stride[1] * layer.channels) as i64;
        let steps = [(base, position), (output, layer.out_channels() as i64)];
        overlapped(e, layer.out_width, self.panel, &steps, |e, p| {
            self.pack(e, p[0], words);
            let (mut weights, mut biases, mut output) = (weights, biases, p[1]);
            for block in &self.blocks {
                let channels = block.tile.channels;
                let steps = [
                    (weights, (channels * self.weights()) as i64),
                    (biases, (channels * self.entry) as i64),
                    (output, channels as i64),
                ];
                let (_, ends) = e.counted(block.count as u64, &steps, &[], |e, p, _| {
                    let (weights, biases) = (p[0], p[1]);
                    let steps = [
                        (words, 8 * self.shape.stride[1] as i64),
                        (p[2], layer.out_channels() as i64),
                    ];
                    let columns = block.tile.pixels.min(self.panel);
                    rounds(e, self.panel, columns, &steps, |e, p, columns| {
                        self.tile(e, [p[0], weights, biases, p[1]], block, columns, kept);
                    });
                    vec![]
                });
                (weights, biases, output) = (ends[0], ends[1], ends[2]);
            }
        });
    }

    /// Packs the columns of a panel: `[input channel][row of the window][column]`.
    fn pack(&self, e: &mut Emitter, base: Value, words: Value) {
        let layer = self.layer;
        let row = 8 * self.pitch();
        let element = self.shape.size[0] * row;
        let unroll = match layer.depth {
            depth @ ..=4 => depth,
            _ => [4, 2].into_iter().find(|n| n * element <= REACH).unwrap_or(1),
        };
        // Pointers to rows, each for as many as offsets reach.
        let each = ((REACH - unroll) / self.row_bytes.max(1)).max(1);
        let bases: Vec<Value> = (0..self.shape.rows().div_ceil(each))
            .map(|i| e.offset(base, (i * each * self.row_bytes) as i64))
            .collect();
        let moved = |words: Value, bases: &[Value], [by, step]: [usize; 2]| -> Vec<(Value, i64)> {
            let bases = bases.iter().map(|base| (*base, step as i64));
            [(words, by as i64)].into_iter().chain(bases).collect()
        };
        let one = |e: &mut Emitter, p: &[Value], channel: usize| {
            let load = |e: &mut Emitter, row: usize| {
                let at = row % each * self.row_bytes + channel;
                e.load_integer8(p[1 + row / each], at as i32)
            };
            let below = |e: &mut Emitter, word: Value| {
                let by = e.i32(BITS as i32);
                e.b.ins().ishl(word, by)
            };
            let [stride, _] = self.shape.stride;
            let [dilation, _] = self.shape.dilation;
            let mut packed: Vec<Option<Value>> = vec![None; self.shape.size[0]];
            for tap in (0..self.shape.size[0]).rev() {
                let first = tap * dilation;
                let next =
                    (stride.is_multiple_of(dilation)).then(|| packed.get(tap + stride / dilation).copied().flatten());
                let word = match next.flatten() {
                    Some(next) => next,
                    None => {
                        let last = load(e, first + 2 * stride);
                        let last = below(e, last);
                        let middle = load(e, first + stride);
                        e.b.ins().iadd(middle, last)
                    }
                };
                let word = below(e, word);
                let a = load(e, first);
                let word = e.b.ins().iadd(a, word);
                e.store(word, p[0], (channel * element + tap * row) as i32);
                packed[tap] = Some(word);
            }
        };
        let column = self.shape.unit[1] * layer.channels;
        let steps = moved(words, &bases, [8, column]);
        e.counted(self.pitch() as u64, &steps, &[], |e, p, _| {
            let steps = moved(p[0], &p[1..], [unroll * element, unroll]);
            let (_, ends) = e.counted((layer.depth / unroll) as u64, &steps, &[], |e, p, _| {
                for channel in 0..unroll {
                    one(e, p, channel);
                }
                vec![]
            });
            for channel in 0..layer.depth % unroll {
                one(e, &ends, channel);
            }
            vec![]
        });
    }

    /// A block of channels for `columns` columns of three rows.
    fn tile(
        &self,
        e: &mut Emitter,
        [words, weights, biases, output]: [Value; 4],
        block: &Block,
        columns: usize,
        kept: Option<Parked>,
    ) {
        let channels = block.tile.channels;
        let parts = self.shape.parts;
        if parts == 1 {
            let sums = self.part(e, [words, weights], block, columns);
            self.finish(e, [biases, output], [channels, columns], kept, |e, i| {
                let lane = |e: &mut Emitter, lane: u32| {
                    let above = e.i32((64 - BITS * (lane + 1)) as i32);
                    let high = e.b.ins().ishl(sums[i], above);
                    let below = e.i32((64 - BITS) as i32);
                    e.b.ins().ushr(high, below)
                };
                [lane(e, 0), lane(e, 1), lane(e, 2)]
            });
            return;
        }
        let memory = e.offset(
            e.args[4],
            (self.staged_bytes() + self.shape.words_bytes(self.panel)) as i64,
        );
        let count = columns * channels;
        let steps = [
            (memory, 8 * count as i64),
            (words, (8 * self.shape.steps() * self.pitch()) as i64),
            (weights, (self.shape.steps() * self.shape.size[1] * channels) as i64),
        ];
        e.counted(parts as u64, &steps, &[], |e, p, _| {
            let sums = self.part(e, [p[1], p[2]], block, columns);
            for (i, sum) in sums.into_iter().enumerate() {
                e.store(sum, p[0], 8 * i as i32);
            }
            vec![]
        });
        self.finish(e, [biases, output], [channels, columns], kept, |e, i| {
            let at = |part: usize| 8 * (part * count + i) as i32;
            let [s, h, t] = if parts <= STRAIGHT {
                let first = split(e, memory, at(0));
                (1..parts).fold(first, |sums, part| {
                    let next = split(e, memory, at(part));
                    [0, 1, 2].map(|i| e.b.ins().iadd(sums[i], next[i]))
                })
            } else {
                let zero = e.int(I64, 0);
                let from = e.offset(memory, i64::from(at(0)));
                let steps = [(from, 8 * count as i64)];
                let (sums, _) = e.counted(parts as u64, &steps, &[zero; 3], |e, p, sums| {
                    let next = split(e, p[0], 0);
                    (0..3).map(|i| e.b.ins().iadd(sums[i], next[i])).collect()
                });
                [sums[0], sums[1], sums[2]]
            };
            let shifted = |e: &mut Emitter, value: Value, by: u32| {
                let by = e.i32(by as i32);
                e.b.ins().ishl(value, by)
            };
            let above = shifted(e, t, BITS);
            let middle = e.b.ins().isub(h, above);
            let above = shifted(e, h, BITS + 1);
            let twice = e.b.ins().isub(s, above);
            let one = e.i32(1);
            [e.b.ins().ushr(twice, one), middle, t]
        });
    }

    /// The sums of a part, word by word for each channel.
    fn part(&self, e: &mut Emitter, [words, weights]: [Value; 2], block: &Block, columns: usize) -> Vec<Value> {
        let channels = block.tile.channels;
        let start = e.int(
            I64,
            (0..LANES as u32).map(|lane| i64::from(START) << (BITS * lane)).sum(),
        );
        let starts = vec![start; columns * channels];
        let unroll = block.tile.k_unroll;
        let row = 8 * self.pitch();
        let row_weights = self.shape.size[1] * channels;
        let (step, moved) = ((unroll * row) as i64, (unroll * row_weights) as i64);
        let count = (self.shape.steps() / unroll) as u64;
        let carried: Vec<Value> = [words].into_iter().chain(starts).collect();
        let (mut carried, _) = e.counted_to(count, (weights, moved), &carried, |e, weights, carried| {
            let mut next = carried.to_vec();
            for i in 0..unroll {
                let at = [i * row, i * row_weights];
                self.step(e, [carried[0], weights], at, [channels, columns], &mut next[1..]);
            }
            next[0] = e.offset(carried[0], step);
            next
        });
        carried.split_off(1)
    }

    /// A row of taps.
    fn step(
        &self,
        e: &mut Emitter,
        [words, weights]: [Value; 2],
        [at, weights_at]: [usize; 2],
        [channels, columns]: [usize; 2],
        sums: &mut [Value],
    ) {
        let mut loaded: Vec<Option<Value>> = vec![None; self.shape.columns(columns)];
        for (index, tap) in self.shape.taps.iter().enumerate() {
            let a: Vec<Value> = (0..columns)
                .map(|i| {
                    let column = self.shape.column(i, *tap);
                    *loaded[column].get_or_insert_with(|| e.load(I64, words, (at + 8 * column) as i32))
                })
                .collect();
            for channel in 0..channels {
                let w = e.load_integer8(weights, (weights_at + index * channels + channel) as i32);
                for (i, a) in a.iter().enumerate() {
                    let product = e.b.ins().imul(w, *a);
                    let sum = &mut sums[channel * columns + i];
                    *sum = e.b.ins().iadd(*sum, product);
                }
            }
        }
    }

    /// Stores the results; `lanes` gives the three sums of a word.
    fn finish(
        &self,
        e: &mut Emitter,
        [biases, output]: [Value; 2],
        [channels, columns]: [usize; 2],
        kept: Option<Parked>,
        mut lanes: impl FnMut(&mut Emitter, usize) -> [Value; 3],
    ) {
        let (_, written) = self.image_rows();
        let outputs = [0, 1, 2].map(|lane| e.offset(output, (lane * written) as i64));
        let bounds = Requantize::kept_bounds(e, kept);
        for channel in 0..channels {
            let constants = self.requantize.load(e, biases, (channel * self.entry) as i32);
            let constants = constants.maybe_within(bounds);
            for column in 0..columns {
                let sums = lanes(e, channel * columns + column);
                for (sum, to) in sums.into_iter().zip(outputs) {
                    let result = self.requantize.apply(e, sum, &constants);
                    e.store_i8(result, to, (column * self.layer.out_channels() + channel) as i32);
                }
            }
        }
    }
}

/// A sum of a part, shifted left by one; without its lowest lane, and without the two lowest.
fn split(e: &mut Emitter, from: Value, at: i32) -> [Value; 3] {
    let sum = e.load(I64, from, at);
    let [one, two, three] = [1, BITS + 1, 2 * BITS + 1].map(|by| e.i32(by as i32));
    let all = e.b.ins().ishl(sum, one);
    [all, e.b.ins().ushr(all, two), e.b.ins().ushr(all, three)]
}
