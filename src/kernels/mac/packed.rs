//! Convolutions on 32-bit machines without DSP instructions: two positions in one word.
//!
//! A word holds a0 + a1·2^16. Its product with a weight is w·a0 + w·a1·2^16, so that a multiplication and an addition
//! serve two positions. Sums of [`Groups`] of elements fit 16 bits each: starting from 2^15, the low half neither borrows
//! from the upper half nor carries into it, and the upper half is the second position's sum exactly. At the end of a
//! group it is added to H, and the word to S, modulo 2^32. After n groups H is the second sum, S − H·2^16 − n·2^15 the
//! first; what S starts from has the bias twice and n·2^15 less.
//!
//! The words of a tile's positions are packed once and serve all channels, in the order of the groups: by a table of
//! offsets, or by code where the sum is short.

use super::super::Parameter;
use super::super::emit::Emitter;
use super::super::requantize::{Accumulator, Channel, Requantize};
use super::super::schedule::{Block, Tile};
use super::conv::{After, Kernel, Sum, round_places, rounds};
use super::groups::Groups;
use super::lanes16::Lanes16;
use super::layer::Layer;
use crate::data::{Bytes, Contents, Layout, Scalar};
use crate::error::Result;
use crate::graph::DType;
use crate::target::{Effort, Target};
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Most steps of a group, and of a round of groups.
const STEPS: usize = 8;
/// Elements of a sum that are packed without a loop around them.
const STRAIGHT: usize = 40;
/// Scratch that is worth its instructions wherever it is.
const SMALL: usize = 2 << 10;

/// How positions are packed and sums are cut.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub groups: Groups,
    /// Words of two positions that share a weight.
    pairs: usize,
    /// Bytes of an offset in the table at the head of the biases; 0 if there is none.
    offset: usize,
}

/// A tile: words of two positions, channels.
type Shape = (usize, usize);

/// Tiles whose sums stay in registers: three for each word and channel, beside a word and the weights.
const SHAPES: [Shape; 8] = [(3, 2), (2, 3), (2, 2), (1, 4), (1, 5), (4, 1), (5, 1), (1, 2)];

impl Packed {
    /// The form and its blocks, if it takes fewer instructions than `plain` blocks of single products.
    ///
    /// # Errors
    /// Those of reading the model.
    pub fn new(layer: &Layer, target: &Target, plain: &[Block]) -> Result<Option<(Self, Vec<Block>)>> {
        let word = target.machine().integer_bytes == 4;
        if !word || !Lanes16::possible(target) || layer.dtype != DType::I8 || layer.out_width == 1 {
            return Ok(None);
        }
        let most = if target.effort == Effort::Size {
            STEPS / 2
        } else {
            STEPS
        };
        let sum = layer.weights.sum();
        let positions = layer.out_width;
        let tensors = layer.height * layer.width * layer.channels + layer.out_height * positions * layer.out_channels();
        let room = match target.effort {
            Effort::Speed | Effort::Balanced => SMALL.max(tensors),
            Effort::Ram => (SMALL / 2).max(tensors / 4),
            Effort::Size => SMALL,
        };
        let scalar: u64 = cost_plain(plain, positions, sum);
        let least = |groups: &Groups| -> Option<(u64, Shape)> {
            let shapes = SHAPES.into_iter().filter(|(pairs, channels)| {
                let fits = 4 * pairs * groups.order.len() <= room;
                fits && *pairs <= positions.div_ceil(2) && *channels <= layer.filters
            });
            shapes
                .map(|shape| (cost(groups, shape, positions, layer.filters), shape))
                .min()
        };
        let read = |channel: usize, out: &mut Vec<u8>| layer.read(channel, out);
        let compared = |groups: &Groups| least(groups).map_or(u64::MAX, |(cost, _)| cost);
        let Some(groups) = Groups::new(sum, layer.out_channels(), [most, 1], read, compared)? else {
            return Ok(None);
        };
        let Some((least, (pairs, channels))) = least(&groups) else {
            return Ok(None);
        };
        if least >= scalar {
            return Ok(None);
        }
        let straight = groups.order.len() <= STRAIGHT && target.effort != Effort::Size;
        let offset = if straight { 0 } else { 2 };
        let tile = |channels: usize| Tile {
            pixels: (2 * pairs).min(positions),
            channels,
            k_unroll: 1,
        };
        let block = |count: usize, channels: usize| Block {
            count,
            filters: channels,
            tile: tile(channels),
        };
        let whole = block(layer.filters / channels, channels);
        let rest = layer.filters % channels;
        let blocks = [whole].into_iter().chain((rest > 0).then(|| block(1, rest))).collect();
        Ok(Some((Packed { groups, pairs, offset }, blocks)))
    }

    /// With offsets that hold the places of all elements.
    pub fn placed(mut self, sum: &Sum, elements: usize) -> Self {
        if self.offset > 0 && place(sum, elements.max(1) - 1) >= 1 << 15 {
            self.offset = 4;
        }
        self
    }

    /// Bytes of the table.
    pub fn head(&self) -> usize {
        (self.offset * self.groups.order.len()).next_multiple_of(4)
    }

    /// Bytes of scratch: the packed words of a tile.
    pub fn bytes(&self) -> usize {
        4 * self.pairs * self.groups.order.len()
    }

    /// Weights in the order of the groups.
    pub fn weights(&self, layer: &Layer, blocks: &[Block]) -> Parameter {
        layer.filter_parameter(layer.weights.ordered(layer.groups, blocks, &self.groups.order))
    }

    /// The table, and for each channel the constants of its requantization and what S starts from. Also the bytes of a
    /// channel.
    ///
    /// # Errors
    /// Those of reading the model.
    pub fn parameter(
        &self,
        layer: &Layer,
        target: &Target,
        blocks: &[Block],
        sum: &Sum,
    ) -> Result<(Parameter, Requantize, usize)> {
        let (channels, zero_point, range) = layer.channels_and_range()?;
        let requantize = Requantize::new(target, Accumulator::Word, &channels, zero_point, range);
        let mut bytes = Vec::new();
        if self.offset > 0 {
            for k in &self.groups.order {
                let at = k.map_or(0, |k| place(sum, k)) as u32;
                bytes.extend(&at.to_le_bytes()[..self.offset]);
            }
            bytes.resize(self.head(), 0);
        }
        let less = (self.groups.count() as i32).wrapping_mul(1 << 15);
        let mut left = &channels[..];
        for block in (0..layer.groups).flat_map(|_| blocks) {
            for _ in 0..block.count {
                let (exist, behind) = left.split_at(block.filters);
                left = behind;
                for index in 0..block.tile.channels {
                    let at = bytes.len();
                    match exist.get(index) {
                        Some(channel) => requantize.entry(&[*channel], 1, &mut bytes),
                        None => requantize.entry(&[Channel::NONE], 1, &mut bytes),
                    }
                    let start = &bytes[at + requantize.start_at()..][..4];
                    let start = i32::from_le_bytes([start[0], start[1], start[2], start[3]]);
                    let both = start.wrapping_mul(0x10001).wrapping_sub(less);
                    bytes.extend(both.to_le_bytes());
                }
            }
        }
        let count: usize = blocks.iter().map(|block| block.count * block.tile.channels).sum();
        let entry = Layout::Struct(vec![
            ("entry".to_owned(), requantize.layout(1)),
            ("both".to_owned(), Layout::Scalar(Scalar::I32)),
        ]);
        let entries = Layout::array(&[("channel", layer.groups * count)], entry);
        let layout = match self.offset {
            0 => entries,
            size => table_before(entries, size, self.head()),
        };
        let parameter = layer.constants_parameter(Contents::Bytes(Bytes::from_vec(bytes)).described(layout));
        let entry = requantize.entry_bytes() + 4;
        Ok((parameter, requantize, entry))
    }

    /// All channels of a group of the convolution for `positions` of a row; `table` is the head of the parameter.
    pub fn group(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        [base, weights, biases, output, table]: [Value; 5],
        positions: usize,
    ) {
        let words = e.offset(e.args[4], kernel.staged_bytes() as i64);
        let each = (2 * self.pairs).min(positions);
        let steps = [
            (base, kernel.sum.position_bytes as i64),
            (output, kernel.layer.out_channels() as i64),
        ];
        rounds(e, positions, each, &steps, |e, p, pixels| {
            self.pack(kernel, e, [p[0], table, words], pixels);
            let (mut weights, mut biases, mut output) = (weights, biases, p[1]);
            for block in &kernel.blocks {
                let steps = [
                    (output, block.filters as i64),
                    (biases, (block.tile.channels * kernel.entry) as i64),
                ];
                let (carried, ends) = e.counted(block.count as u64, &steps, &[weights], |e, p, carried| {
                    vec![self.tile(kernel, e, [words, carried[0], p[1], p[0]], block, pixels)]
                });
                (weights, output, biases) = (carried[0], ends[0], ends[1]);
            }
        });
    }

    /// Packs the patches of `pixels` positions: for each element of the sum in the order of the groups, one word for
    /// every two.
    fn pack(&self, kernel: &Kernel, e: &mut Emitter, [base, table, words]: [Value; 3], pixels: usize) {
        let step = kernel.sum.position_bytes;
        let pairs = pixels.div_ceil(2);
        let one = |e: &mut Emitter, from: Value, at: usize, to: Value, to_at: usize| {
            for pair in 0..pairs {
                let mut word = e.load_i8(from, (at + 2 * pair * step) as i32);
                if 2 * pair + 1 < pixels {
                    let second = e.load_i8(from, (at + (2 * pair + 1) * step) as i32);
                    let by = e.i32(16);
                    let second = e.b.ins().ishl(second, by);
                    word = e.b.ins().iadd(second, word);
                }
                e.store_word(word, to, (to_at + 4 * pair) as i32);
            }
        };
        let order = &self.groups.order;
        if self.offset == 0 {
            for (i, k) in order.iter().enumerate() {
                one(e, base, k.map_or(0, |k| place(&kernel.sum, k)), words, 4 * pairs * i);
            }
            return;
        }
        let unroll = [4, 3, 2]
            .into_iter()
            .find(|n| order.len().is_multiple_of(*n))
            .unwrap_or(1);
        let steps = [
            (words, (4 * pairs * unroll) as i64),
            (table, (self.offset * unroll) as i64),
        ];
        e.counted((order.len() / unroll) as u64, &steps, &[], |e, p, _| {
            for i in 0..unroll {
                let at = (i * self.offset) as i32;
                let offset = match self.offset {
                    2 => e.b.ins().uload16(I32, Emitter::flags().with_aligned(), p[1], at),
                    _ => e.load_word(p[1], at),
                };
                let offset = if e.pointer == I32 {
                    offset
                } else {
                    e.b.ins().uextend(e.pointer, offset)
                };
                let from = e.b.ins().iadd(base, offset);
                one(e, from, 0, p[0], 4 * pairs * i);
            }
            vec![]
        });
    }

    /// A block of channels for the packed positions. Returns where its weights end.
    fn tile(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        [words, weights, biases, output]: [Value; 4],
        block: &Block,
        pixels: usize,
    ) -> Value {
        let After::Requantize(requantize) = &kernel.after else {
            unreachable!("words are for int8");
        };
        let channels = block.tile.channels;
        let pairs = pixels.div_ceil(2);
        // H and S of each word and channel.
        let mut starts = Vec::with_capacity(channels);
        for c in 0..channels {
            let at = (c * kernel.entry) as i32;
            let both = e.load_word(biases, at + kernel.entry as i32 - 4);
            starts.push([requantize.start(e, biases, at), both]);
        }
        let mut sums: Vec<Value> = (0..pairs).flat_map(|_| starts.iter().flatten().copied()).collect();
        let (mut words, mut weights) = (words, weights);
        let half = e.i32(1 << 15);
        for (length, count) in &self.groups.runs {
            let round = (STEPS / length).clamp(1, *count);
            // Rather rounds of equal length than some groups left over.
            let round = (round.div_ceil(2)..=round)
                .rev()
                .find(|n| count.is_multiple_of(*n))
                .unwrap_or(round);
            let steps = [
                (words, (4 * pairs * length * round) as i64),
                (weights, (channels * length * round) as i64),
            ];
            let shape = (pairs, channels);
            let (carried, ends) = e.counted((count / round) as u64, &steps, &sums, |e, p, sums| {
                let mut sums = sums.to_vec();
                for i in 0..round {
                    one_group(e, [p[0], p[1], half], i * length, *length, shape, &mut sums);
                }
                sums
            });
            sums = carried;
            let rest = count % round;
            for i in 0..rest {
                one_group(e, [ends[0], ends[1], half], i * length, *length, shape, &mut sums);
            }
            words = e.offset(ends[0], (4 * pairs * length * rest) as i64);
            weights = e.offset(ends[1], (channels * length * rest) as i64);
        }
        let stride = kernel.layer.out_channels();
        let bounds = requantize.bounds(e);
        for c in 0..block.filters {
            let constants = requantize.load(e, biases, (c * kernel.entry) as i32).within(bounds);
            for pair in 0..pairs {
                let i = 2 * (pair * channels + c);
                let (high, both) = (sums[i], sums[i + 1]);
                let by = e.i32(16);
                let upper = e.b.ins().ishl(high, by);
                let low = e.b.ins().isub(both, upper);
                let result = requantize.apply(e, low, &constants);
                e.store_i8(result, output, (2 * pair * stride + c) as i32);
                if 2 * pair + 1 < pixels {
                    let result = requantize.apply(e, high, &constants);
                    e.store_i8(result, output, ((2 * pair + 1) * stride + c) as i32);
                }
            }
        }
        weights
    }
}

/// A group of `length` elements, the `first` from the pointers on, added to H and S of all words and channels.
fn one_group(
    e: &mut Emitter,
    [words, weights, half]: [Value; 3],
    first: usize,
    length: usize,
    (pairs, channels): Shape,
    sums: &mut [Value],
) {
    let mut group = vec![half; pairs * channels];
    for k in first..first + length {
        let w: Vec<Value> = (0..channels)
            .map(|c| e.load_i8(weights, (k * channels + c) as i32))
            .collect();
        for pair in 0..pairs {
            let a = e.load_word(words, (4 * (k * pairs + pair)) as i32);
            for (c, w) in w.iter().enumerate() {
                let i = pair * channels + c;
                let product = e.b.ins().imul(a, *w);
                group[i] = e.b.ins().iadd(product, group[i]);
                if k + 1 == first + length {
                    let high = e.shift_right(group[i], 16);
                    sums[2 * i] = e.b.ins().iadd(sums[2 * i], high);
                    sums[2 * i + 1] = e.b.ins().iadd(sums[2 * i + 1], group[i]);
                }
            }
        }
    }
}

/// What `bytes` of offsets of `size` bytes before `entries` mean.
pub(super) fn table_before(entries: Layout, size: usize, bytes: usize) -> Layout {
    let scalar = if size == 2 { Scalar::I16 } else { Scalar::U32 };
    let table = Layout::array(&[("offset of an element", bytes / size)], Layout::Scalar(scalar));
    Layout::Struct(vec![("offsets".to_owned(), table), ("channels".to_owned(), entries)])
}

/// How far element `k` of a patch is from its first.
pub(super) fn place(sum: &Sum, k: usize) -> usize {
    let (run, element) = (k / sum.length, k % sum.length);
    run / sum.runs * sum.row_bytes + run % sum.runs * sum.run_bytes + element
}

/// Instructions of a row of `positions` and `filters` channels.
fn cost(groups: &Groups, (pairs, channels): Shape, positions: usize, filters: usize) -> u64 {
    let steps = groups.order.len();
    let tile = |pixels: usize, channels: usize| {
        let pairs = pixels.div_ceil(2);
        let sums = pairs * channels;
        let loops: usize = (groups.runs.iter())
            .map(|(length, count)| 3 * count / (STEPS / length).max(1) + 2 * sums)
            .sum();
        steps * (pairs + channels + 2 * sums) + 3 * sums * groups.count() + loops + 7 * channels + 17 * sums + 8
    };
    let place = |(_, pixels): (usize, usize)| {
        let pack = steps * (3 + 5 * pixels.div_ceil(2));
        let rest = filters % channels;
        let rest = if rest > 0 { tile(pixels, rest) } else { 0 };
        (pack + filters / channels * tile(pixels, channels) + rest) as u64
    };
    let each = (2 * pairs).min(positions);
    round_places(positions, each).into_iter().map(place).sum()
}

/// The same for the plain form: a multiplication and an addition for each product.
pub(super) fn cost_plain(blocks: &[Block], positions: usize, sum: usize) -> u64 {
    let tile = |pixels: usize, channels: usize| {
        let sums = pixels * channels;
        sum * (pixels + channels + 2 * sums) + sum + 6 * channels + 9 * sums + 8
    };
    let of = |block: &Block| -> u64 {
        let each = block.tile.pixels.min(positions);
        let places = round_places(positions, each).into_iter();
        places
            .map(|(_, pixels)| (block.count * tile(pixels, block.tile.channels)) as u64)
            .sum()
    };
    blocks.iter().map(of).sum()
}
