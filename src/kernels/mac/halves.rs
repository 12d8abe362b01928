//! Convolutions and dense layers with Arm's DSP instructions: int16 halves of words, two products summed by one SMLAD.
//!
//! The patches of a tile's positions are widened to int16 once and serve all channels: for each pair of elements of the
//! sum a word for each position. SXTB16 takes every other byte of a word, so that pairs are elements 0 and 2, 1 and 3.
//!
//! Two output channels A and B share a weight: a half holds 256·a + b. A SMLAD with it sums 256·A + B; SXTB16 leaves b
//! in every half, and a second SMLAD sums B. So a word feeds four products, in no more flash than int8. It is exact
//! where |A| < 2^23 and every 256·a + b fits 16 bits; other layers have weights of four elements of one channel a word.

use super::super::emit::Emitter;
use super::super::schedule::{Block, Tile};
use super::conv::{After, Kernel, rounds};
use crate::codegen::intrinsic::Intrinsic;
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Words of a patch that are widened without a loop around them.
const STRAIGHT: usize = 12;

/// How weights are laid out.
#[derive(Clone, Debug)]
pub(super) struct Halves {
    /// The elements of the sum in the order in which words hold them.
    pub pairs: Vec<[Option<usize>; 2]>,
    /// Whether two channels share a half.
    pub paired: bool,
}

/// The elements of a sum of `segments` runs of `length` each, in the order in which words hold them.
pub(super) fn pairs(segments: usize, length: usize) -> Vec<[Option<usize>; 2]> {
    let mut pairs = Vec::with_capacity(segments * length.div_ceil(2));
    for first in (0..segments).map(|segment| segment * length) {
        let whole = length / 4 * 4;
        for k in (0..whole).step_by(4) {
            pairs.extend([0, 1].map(|i| [Some(first + k + i), Some(first + k + i + 2)]));
        }
        for k in (whole..length).step_by(2) {
            pairs.push([Some(first + k), (k + 1 < length).then_some(first + k + 1)]);
        }
    }
    pairs
}

impl Halves {
    pub fn new(segments: usize, length: usize, paired: bool) -> Self {
        let mut pairs = pairs(segments, length);
        // A word of one channel's weights takes two pairs.
        if !paired && pairs.len() % 2 == 1 {
            pairs.push([None, None]);
        }
        Halves { pairs, paired }
    }

    /// Bytes of one channel's weights.
    pub fn weights(&self) -> usize {
        2 * self.pairs.len()
    }

    /// Bytes of the widened patches of a tile.
    pub fn bytes(&self, blocks: &[Block]) -> usize {
        let pixels = blocks.iter().map(|block| block.tile.pixels).max().unwrap_or(1);
        4 * pixels * self.pairs.len()
    }

    /// All channels of a group for `positions` of a row.
    #[allow(clippy::too_many_arguments)]
    pub fn group(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        base: Value,
        weights: Value,
        biases: Value,
        output: Value,
        positions: usize,
    ) {
        let patches = e.offset(e.args[4], kernel.staged_bytes() as i64);
        let each = kernel.blocks.iter().map(|block| block.tile.pixels).max();
        let each = each.unwrap_or(1).min(positions);
        let steps = [
            (base, kernel.sum.position_bytes as i64),
            (output, kernel.layer.out_channels() as i64),
        ];
        rounds(e, positions, each, &steps, |e, p, pixels| {
            self.widen(kernel, e, p[0], patches, pixels);
            let (mut weights, mut biases, mut output) = (weights, biases, p[1]);
            for block in &kernel.blocks {
                let channels = block.tile.channels;
                let steps = [
                    (weights, (channels * self.weights()) as i64),
                    (biases, (channels * kernel.entry) as i64),
                    (output, block.filters as i64),
                ];
                let (_, ends) = e.counted(block.count as u64, &steps, &[], |e, p, _| {
                    self.tile(kernel, e, patches, [p[0], p[1], p[2]], block, pixels);
                    vec![]
                });
                (weights, biases, output) = (ends[0], ends[1], ends[2]);
            }
        });
    }

    /// Widens the patches of `pixels` positions.
    fn widen(&self, kernel: &Kernel, e: &mut Emitter, base: Value, patches: Value, pixels: usize) {
        let sum = kernel.sum;
        let pair_bytes = 4 * pixels;
        let words = sum.length / 4;
        let run_bytes = sum.length.div_ceil(2) * pair_bytes;
        let place = |p: usize| (p * sum.position_bytes) as i32;
        let word = |e: &mut Emitter, from: Value, at: i32, to: Value, to_at: i32| {
            let raw: Vec<Value> = (0..pixels).map(|p| e.load(I32, from, at + place(p))).collect();
            for (i, intrinsic) in [Intrinsic::Sxtb16, Intrinsic::Sxtb16Ror8].into_iter().enumerate() {
                for (p, raw) in raw.iter().enumerate() {
                    let value = e.intrinsic(intrinsic, &[*raw]);
                    e.store_word(value, to, to_at + (i * pair_bytes + 4 * p) as i32);
                }
            }
        };
        let rest = |e: &mut Emitter, from: Value, at: i32, to: Value, to_at: i32| {
            let left = sum.length % 4;
            for k in (0..left).step_by(2) {
                for p in 0..pixels {
                    let at = at + k as i32 + place(p);
                    let mut value = e.load_i8(from, at);
                    if k + 1 < left {
                        let second = e.load_i8(from, at + 1);
                        value = e.intrinsic(Intrinsic::Pkhbt, &[value, second]);
                    }
                    e.store_word(value, to, to_at + (k / 2 * pair_bytes + 4 * p) as i32);
                }
            }
        };
        let straight = |e: &mut Emitter, from: Value, at: i32, to: Value, to_at: i32| {
            for i in 0..words as i32 {
                word(e, from, at + 4 * i, to, to_at + i * 2 * pair_bytes as i32);
            }
            rest(
                e,
                from,
                at + 4 * words as i32,
                to,
                to_at + (words * 2 * pair_bytes) as i32,
            );
        };
        if sum.rows * sum.runs * sum.length.div_ceil(4) <= STRAIGHT {
            for row in 0..sum.rows {
                for run in 0..sum.runs {
                    let at = (row * sum.row_bytes + run * sum.run_bytes) as i32;
                    straight(e, base, at, patches, ((row * sum.runs + run) * run_bytes) as i32);
                }
            }
            return;
        }
        let rows = [(base, sum.row_bytes as i64), (patches, (sum.runs * run_bytes) as i64)];
        e.counted(sum.rows as u64, &rows, &[], |e, p, _| {
            let runs = [(p[0], sum.run_bytes as i64), (p[1], run_bytes as i64)];
            e.counted(sum.runs as u64, &runs, &[], |e, p, _| {
                let unroll = divisor(words, 2);
                let steps = [(p[0], 4 * unroll as i64), (p[1], (unroll * 2 * pair_bytes) as i64)];
                let (_, ends) = e.counted((words / unroll) as u64, &steps, &[], |e, p, _| {
                    for i in 0..unroll as i32 {
                        word(e, p[0], 4 * i, p[1], i * 2 * pair_bytes as i32);
                    }
                    vec![]
                });
                rest(e, ends[0], 0, ends[1], 0);
                vec![]
            });
            vec![]
        });
    }

    /// A block of channels for the widened patches.
    fn tile(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        patches: Value,
        [weights, biases, output]: [Value; 3],
        block: &Block,
        pixels: usize,
    ) {
        let After::Requantize(requantize) = &kernel.after else {
            unreachable!("halves are for int8");
        };
        let tile = Tile { pixels, ..block.tile };
        let starts: Vec<Value> = (0..tile.channels)
            .map(|c| requantize.start(e, biases, (c * kernel.entry) as i32))
            .collect();
        let starts = starts.chunks(2).flat_map(|start| {
            let [a, b] = [start[0], start[start.len() - 1]];
            let first = if self.paired {
                let by = e.i32(8);
                let scaled = e.b.ins().ishl(a, by);
                e.b.ins().iadd(b, scaled)
            } else {
                a
            };
            [first, b]
        });
        let starts: Vec<Value> = starts.flat_map(|start| vec![start; pixels]).collect();
        let each = if self.paired { 1 } else { 2 };
        let steps = self.pairs.len() / each;
        let unroll = divisor(steps, tile.k_unroll);
        let patch_bytes = 4 * pixels * each;
        let weight_bytes = 2 * tile.channels * each;
        let moved = [
            (patches, (unroll * patch_bytes) as i64),
            (weights, (unroll * weight_bytes) as i64),
        ];
        let (mut sums, _) = e.counted((steps / unroll) as u64, &moved, &starts, |e, p, sums| {
            let mut sums = sums.to_vec();
            for k in 0..unroll {
                let (at, w_at) = ((k * patch_bytes) as i32, (k * weight_bytes) as i32);
                if self.paired {
                    paired_step(e, &tile, p[0], at, p[1], w_at, &mut sums);
                } else {
                    plain_step(e, &tile, p[0], at, p[1], w_at, &mut sums);
                }
            }
            sums
        });
        for c in 0..block.filters {
            let constants = requantize.load(e, biases, (c * kernel.entry) as i32);
            for p in 0..pixels {
                if self.paired && c % 2 == 0 {
                    let difference = e.b.ins().isub(sums[c * pixels + p], sums[(c + 1) * pixels + p]);
                    sums[c * pixels + p] = e.shift_right(difference, 8);
                }
                let result = requantize.apply(e, sums[c * pixels + p], &constants);
                e.store_i8(result, output, (p * kernel.layer.out_channels() + c) as i32);
            }
        }
    }
}

/// One pair of elements in all sums, two channels a word of weights.
fn paired_step(e: &mut Emitter, tile: &Tile, a: Value, at: i32, w: Value, w_at: i32, sums: &mut [Value]) {
    let x: Vec<Value> = (0..tile.pixels as i32).map(|p| e.load_word(a, at + 4 * p)).collect();
    let mut loaded = Vec::new();
    for c in (0..tile.channels).step_by(2) {
        // Two words at a time are one instruction.
        if c % 4 == 0 {
            let words = (tile.channels - c).min(4) / 2;
            loaded = (0..words)
                .map(|i| e.load_word(w, w_at + 2 * c as i32 + 4 * i as i32))
                .collect();
        }
        let both = loaded[c / 2 % 2];
        for (p, x) in x.iter().enumerate() {
            let sum = &mut sums[c * tile.pixels + p];
            *sum = e.intrinsic(Intrinsic::Smlad, &[both, *x, *sum]);
        }
        let second = e.intrinsic(Intrinsic::Sxtb16, &[both]);
        for (p, x) in x.iter().enumerate() {
            let sum = &mut sums[(c + 1) * tile.pixels + p];
            *sum = e.intrinsic(Intrinsic::Smlad, &[second, *x, *sum]);
        }
    }
}

/// Two pairs of elements in all sums, one channel a word of weights.
fn plain_step(e: &mut Emitter, tile: &Tile, a: Value, at: i32, w: Value, w_at: i32, sums: &mut [Value]) {
    let pixels = tile.pixels;
    let x: Vec<Value> = (0..2 * pixels as i32).map(|i| e.load_word(a, at + 4 * i)).collect();
    for c in 0..tile.channels {
        let four = e.load_word(w, w_at + 4 * c as i32);
        for (i, intrinsic) in [Intrinsic::Sxtb16, Intrinsic::Sxtb16Ror8].into_iter().enumerate() {
            let two = e.intrinsic(intrinsic, &[four]);
            for p in 0..pixels {
                let sum = &mut sums[c * pixels + p];
                *sum = e.intrinsic(Intrinsic::Smlad, &[two, x[i * pixels + p], *sum]);
            }
        }
    }
}

/// The largest divisor of `n` up to `most`.
fn divisor(n: usize, most: usize) -> usize {
    (1..=most.min(n)).rev().find(|d| n.is_multiple_of(*d)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_in_the_order_of_sxtb16() {
        let pair = |a, b| [Some(a), Some(b)];
        assert_eq!(pairs(1, 4), [pair(0, 2), pair(1, 3)]);
        assert_eq!(
            pairs(2, 7),
            [
                pair(0, 2),
                pair(1, 3),
                pair(4, 5),
                [Some(6), None],
                pair(7, 9),
                pair(8, 10),
                pair(11, 12),
                [Some(13), None]
            ]
        );
        assert_eq!(Halves::new(3, 1, false).pairs.len(), 4);
        assert_eq!(Halves::new(3, 1, true).pairs.len(), 3);
    }
}
