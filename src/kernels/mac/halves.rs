//! Convolutions and dense layers with Arm's DSP instructions: int16 halves of words, two products summed by one SMLAD.
//!
//! The patches of a tile's positions are widened to int16 once and serve all channels: for each pair of elements of the
//! sum a word for each position. SXTB16 takes every other byte of a word, so that pairs are elements 0 and 2, 1 and 3.
//!
//! Two output channels A and B share a weight: a half holds 256·a + b. A SMLAD with it sums 256·A + B; SXTB16 leaves b
//! in every half, and a second SMLAD sums B. So a word feeds four products, in no more flash than int8. It is exact
//! where |A| < 2^23 and every 256·a + b fits 16 bits; other layers have weights of four elements of one channel a word.

use super::super::emit::{Emitter, Parked};
use super::super::overlap::{self, Unit};
use super::super::schedule::{Block, Tile};
use super::conv::{After, Kernel, round_places, rounds};
use super::smlad::{paired_step, paired_sums, plain_step, plain_sums};
use super::table::{Source, Table, divisor};
use super::words::{Head, PAIRED, PLAIN, Scales, Words};
use crate::intrinsic::Intrinsic;
use crate::target::Effort;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Bytes of scratch from which on a window is cut into its rows.
const CUT: usize = 512;

/// How weights are laid out.
#[derive(Clone, Debug)]
pub(super) struct Halves {
    /// The elements of the sum in the order in which words hold them.
    pub pairs: Vec<[Option<usize>; 2]>,
    /// Whether two channels share a half.
    pub paired: bool,
    /// Words of a patch that are widened without a loop around them.
    pub straight: usize,
    /// Whether the last elements of odd runs are pairs behind all others.
    pub across: bool,
    /// How rows are read that a table points at.
    pub table: Option<Table>,
    /// Whether the only position is widened again for every block of channels, which needs no scratch.
    pub lean: bool,
}

/// The elements of a sum of `segments` runs of `length` each, in the order in which words hold them. Where runs are odd
/// and `across`, the last elements of two runs are a pair, behind all others.
pub(super) fn pairs(segments: usize, length: usize, across: bool) -> Vec<[Option<usize>; 2]> {
    let across = across && length % 2 == 1;
    let mut pairs = Vec::with_capacity(segments * length.div_ceil(2));
    for first in (0..segments).map(|segment| segment * length) {
        let whole = length / 4 * 4;
        for k in (0..whole).step_by(4) {
            pairs.extend([0, 1].map(|i| [Some(first + k + i), Some(first + k + i + 2)]));
        }
        for k in (whole..length - usize::from(across)).step_by(2) {
            pairs.push([Some(first + k), (k + 1 < length).then_some(first + k + 1)]);
        }
    }
    if across {
        let last = |segment: usize| (segment < segments).then_some(segment * length + length - 1);
        pairs.extend(
            (0..segments)
                .step_by(2)
                .map(|segment| [last(segment), last(segment + 1)]),
        );
    }
    pairs
}

impl Halves {
    pub fn new(segments: usize, length: usize, paired: bool, effort: Effort) -> Self {
        // Many short runs cost more in loops around them than a long one.
        let straight = match (effort, segments) {
            (Effort::Size, _) => 3,
            (_, 1) => 12,
            _ => 20,
        };
        let across = segments * length.div_ceil(4) <= straight && length % 2 == 1;
        let mut pairs = pairs(segments, length, across);
        // A word of one channel's weights takes two pairs.
        if !paired && pairs.len() % 2 == 1 {
            pairs.push([None, None]);
        }
        Halves {
            pairs,
            paired,
            straight,
            across,
            table: None,
            lean: false,
        }
    }

    /// How sums are scaled.
    pub fn scales(&self) -> Scales {
        if self.paired { PAIRED } else { PLAIN }
    }

    /// Bytes of one channel's weights.
    pub fn weights(&self) -> usize {
        2 * self.pairs.len()
    }

    /// Pairs of elements that a step takes.
    fn step_pairs(&self) -> usize {
        if self.paired && !self.lean { 1 } else { 2 }
    }

    /// Bytes of the patches of a step.
    fn step_bytes(&self, pixels: usize) -> usize {
        let bytes = if self.lean { 2 } else { 4 };
        bytes * pixels * self.step_pairs()
    }

    /// How `pairs` pairs are summed up: steps of a round, rounds, steps that are left.
    fn rounds(&self, kernel: &Kernel, pairs: usize) -> [usize; 3] {
        let unroll = kernel.blocks.first().map_or(1, |block| block.tile.k_unroll);
        // A step of paired weights is two where activations are not widened yet.
        let unroll = if self.paired && self.lean {
            unroll.div_ceil(2)
        } else {
            unroll
        };
        rounds_of(pairs / self.step_pairs(), unroll)
    }

    /// Where the patches of all rounds end, at hand for the loop over them.
    fn end(&self, kernel: &Kernel, e: &mut Emitter, patches: Value, pairs: usize, pixels: usize) -> Option<Parked> {
        let [unroll, rounds, _] = self.rounds(kernel, pairs);
        (rounds > 1).then(|| {
            let end = e.offset(patches, (rounds * unroll * self.step_bytes(pixels)) as i64);
            e.park(&[end])
        })
    }

    fn parts(&self) -> usize {
        self.table.as_ref().map_or(1, |table| table.parts)
    }

    /// Bytes of the widened patches of a tile: of a part of them.
    fn patches(&self, positions: usize) -> usize {
        if self.lean {
            return 0;
        }
        4 * positions * (self.pairs.len() / self.parts())
    }

    /// How far behind the beginning of the widened patches the patch that is put together may begin: widening it does
    /// not overwrite what has not been widened.
    fn behind(&self, positions: usize) -> usize {
        let Some(table) = self.table.as_ref().filter(|table| table.padded) else {
            return 0;
        };
        let run = table.window * table.pixel;
        // Taps that do not adjoin are widened one by one, and last elements after all others: then the patch lies behind
        // everything.
        let pairs = self.pairs.len() / table.rows;
        if pairs != run.div_ceil(2) || self.across {
            return self.patches(positions);
        }
        let mut units = Vec::new();
        for row in 0..table.part_rows() {
            let (from, to) = (row * table.patch(positions), row * pairs);
            let words = run / 4 * 4;
            for k in (0..words).step_by(4) {
                units.push(Unit {
                    reads: (from + k) as u64,
                    written: (4 * positions * (to + k / 2 + 2)) as u64,
                });
            }
            // What is less than a word is widened position by position.
            for k in (words..run).step_by(2) {
                units.extend((0..positions).map(|p| Unit {
                    reads: (from + k + p * table.stride * table.pixel) as u64,
                    written: (4 * (positions * (to + k / 2) + p + 1)) as u64,
                }));
            }
        }
        let gap = (overlap::gap(&units, true) as usize).next_multiple_of(4);
        // The table behind the patch serves all tiles: nothing is widened over it.
        let patch = table.part_rows() * table.patch(positions);
        gap.max(self.patches(positions).saturating_sub(patch))
    }

    /// Bytes of the sums that wait for the next part.
    fn waiting(&self, blocks: &[Block]) -> usize {
        let channels: usize = blocks.iter().map(|block| block.count * block.tile.channels).sum();
        let pixels = blocks.iter().map(|block| block.tile.pixels).max().unwrap_or(1);
        if self.parts() == 1 { 0 } else { 4 * channels * pixels }
    }

    /// Bytes of scratch for widening.
    fn widening(&self, positions: usize) -> usize {
        let aside = self.table.as_ref().map_or(0, |table| table.bytes(positions));
        let behind = if aside > 0 { self.behind(positions) + aside } else { 0 };
        self.patches(positions).max(behind).next_multiple_of(4)
    }

    /// Bytes of scratch: the widened patches of a tile, what they are made from at the sides, sums that wait.
    pub fn bytes(&self, blocks: &[Block]) -> usize {
        let pixels = blocks.iter().map(|block| block.tile.pixels).max().unwrap_or(1);
        self.widening(pixels) + self.waiting(blocks)
    }

    /// Cuts the window into its rows, if that makes scratch much smaller.
    pub fn cut(mut self, blocks: &[Block]) -> Self {
        let whole = self.bytes(blocks);
        let Some(table) = &mut self.table else { return self };
        let pairs = self.pairs.len() / table.rows;
        // Whole words of one channel's weights, and no pairs of elements of different rows.
        if whole < CUT || self.across || table.rows == 1 || !self.paired && pairs % 2 == 1 {
            return self;
        }
        let rows = table.rows;
        table.parts = rows;
        if 4 * self.bytes(blocks) > 3 * whole
            && let Some(table) = &mut self.table
        {
            table.parts = 1;
        }
        self
    }

    /// The least distance of a row of the output below those that a table points at: the patches of a tile are read
    /// before any channel of it is written.
    pub fn gap(&self, kernel: &Kernel) -> u64 {
        let layer = kernel.layer;
        let each = kernel.blocks.iter().map(|block| block.tile.pixels).max().unwrap_or(1);
        let left = layer.window.padding.left;
        let unit = |(first, count): (usize, usize)| Unit {
            reads: ((first * layer.window.stride[1]).saturating_sub(left) * layer.channels) as u64,
            written: ((first + count) * layer.out_channels()) as u64,
        };
        let places = round_places(layer.out_width, each.min(layer.out_width));
        let units: Vec<Unit> = places.into_iter().map(unit).collect();
        overlap::gap(&units, true)
    }

    /// All channels of a group for `positions` of a row.
    #[allow(clippy::too_many_arguments)]
    pub fn group(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        base: Value,
        weights: Value,
        constants: Value,
        output: Value,
        positions: usize,
        head: Head,
    ) {
        let patches = match self.lean {
            true => base,
            false => e.offset(e.args[4], kernel.staged_bytes() as i64),
        };
        let each = kernel.blocks.iter().map(|block| block.tile.pixels).max();
        let most = each.unwrap_or(1);
        let each = most.min(positions);
        let aside = e.offset(patches, self.behind(most) as i64);
        let start = match &self.table {
            Some(table) => {
                table.prepare(e, aside, most);
                e.int(e.pointer, 0)
            }
            None => base,
        };
        let places = round_places(positions, each);
        let steps = [
            (start, kernel.sum.position_bytes as i64),
            (output, kernel.layer.out_channels() as i64),
        ];
        rounds(e, positions, each, &steps, |e, p, pixels| {
            if self.parts() > 1 {
                let pointers = [base, p[0], patches, weights, constants, p[1]];
                return self.in_parts(kernel, e, pointers, head, &places, pixels, most);
            }
            let from = match &self.table {
                Some(table) => {
                    let edges = table.edges(&places, pixels);
                    let [rows, x] = table.patch_at(e, [base, p[0], aside], pixels, most, edges);
                    Source {
                        base: rows,
                        x: Some((x, table.left as i32)),
                    }
                }
                None => Source { base: p[0], x: None },
            };
            if !self.lean {
                self.widen(kernel, e, from, patches, pixels);
            }
            // Constants and output of the present block. The sums need all registers.
            let moving = e.park(&[constants, p[1]]);
            let end = self.end(kernel, e, patches, self.pairs.len(), pixels);
            let mut weights = weights;
            for block in &kernel.blocks {
                let bytes = (block.tile.channels * self.weights()) as i64;
                let tile = |e: &mut Emitter, weights: Value| {
                    self.tile(kernel, e, patches, end, weights, moving, head, block, pixels)
                };
                if block.count == 1 {
                    weights = tile(e, weights);
                    continue;
                }
                let end = e.offset(weights, block.count as i64 * bytes);
                let end = e.park(&[end]);
                weights = e.repeat(block.count as u64, &[weights], |e, p| {
                    let next = tile(e, p[0]);
                    let end = e.fetch_pointer(end);
                    (vec![next], e.b.ins().icmp(IntCC::NotEqual, next, end))
                })[0];
            }
        });
    }

    /// A tile whose patches are widened a part at a time. Its first row is row 0 of `table`, at `x`.
    #[allow(clippy::too_many_arguments)]
    fn in_parts(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        [table, x, patches, weights, constants, output]: [Value; 6],
        head: Head,
        places: &[(usize, usize)],
        pixels: usize,
        most: usize,
    ) {
        let Some(rows) = &self.table else {
            unreachable!("parts are of a table");
        };
        let aside = e.offset(patches, self.behind(most) as i64);
        let memory = e.offset(patches, self.widening(most) as i64);
        let pairs = self.pairs.len() / rows.parts;
        let edges = rows.edges(places, pixels);
        let end = self.end(kernel, e, patches, pairs, pixels);
        let constants_bytes = |block: &Block| requantize(kernel).block_bytes(block.tile.channels) as i64;
        let sums_bytes = |block: &Block| (4 * block.tile.channels * pixels) as i64;
        // Sums wait from their starts on.
        let (mut to, mut from) = (memory, constants);
        for block in &kernel.blocks {
            let steps = [(to, sums_bytes(block)), (from, constants_bytes(block))];
            let (_, ends) = e.counted(block.count as u64, &steps, &[], |e, p, _| {
                let starts = starts(kernel, e, p[1], block, pixels);
                for (i, start) in starts.into_iter().enumerate() {
                    e.store_word(start, p[0], 4 * i as i32);
                }
                vec![]
            });
            (to, from) = (ends[0], ends[1]);
        }
        // The weights of each kind of block.
        let mut kinds = Vec::with_capacity(kernel.blocks.len());
        let mut first = 0;
        for block in &kernel.blocks {
            kinds.push((e.offset(weights, first), (2 * pairs * block.tile.channels) as i64));
            first += (block.count * block.tile.channels * self.weights()) as i64;
        }
        let part = |e: &mut Emitter, table: Value, kinds: &[Value], edges: u64, last: bool| {
            let [table, x] = rows.patch_at(e, [table, x, aside], pixels, most, edges);
            let from = Source {
                base: table,
                x: Some((x, rows.left as i32)),
            };
            self.widen(kernel, e, from, patches, pixels);
            let (mut memory, mut constants, mut output) = (memory, constants, output);
            for (block, weights) in kernel.blocks.iter().zip(kinds) {
                let channels = block.tile.channels;
                let mut steps = vec![
                    (*weights, (channels * self.weights()) as i64),
                    (memory, sums_bytes(block)),
                ];
                if last {
                    steps.extend([(constants, constants_bytes(block)), (output, block.filters as i64)]);
                }
                let (_, ends) = e.counted(block.count as u64, &steps, &[], |e, p, _| {
                    let count = (channels * pixels) as i32;
                    let sums = (0..count).map(|i| e.load_word(p[1], 4 * i)).collect();
                    let (sums, _) = self.sums(kernel, e, [patches, p[0]], end, sums, block, pixels, pairs);
                    if last {
                        self.finish(kernel, e, [p[2], p[3]], head, sums, block, pixels);
                    } else {
                        for (i, sum) in sums.into_iter().enumerate() {
                            e.store_word(sum, p[1], 4 * i as i32);
                        }
                    }
                    vec![]
                });
                memory = ends[1];
                if last {
                    (constants, output) = (ends[2], ends[3]);
                }
            }
        };
        let mut pointers = vec![(table, (rows.part_rows() * rows.pointer) as i64)];
        pointers.extend(kinds.iter().copied());
        let rounds = rows.parts as u64 - 1;
        let (_, ends) = e.counted(rounds, &pointers, &[], |e, p, _| {
            part(e, p[0], &p[1..], rounds * edges, false);
            vec![]
        });
        part(e, ends[0], &ends[1..], edges, true);
    }

    /// Widens the patches of `pixels` positions.
    fn widen(&self, kernel: &Kernel, e: &mut Emitter, from: Source, patches: Value, pixels: usize) {
        let sum = kernel.sum;
        let pair_bytes = 4 * pixels;
        let words = sum.length / 4;
        let own = sum.length - usize::from(self.across);
        let run_bytes = own.div_ceil(2) * pair_bytes;
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
            let left = own - 4 * words;
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
        let count = sum.rows / self.parts();
        if count * sum.runs * sum.length.div_ceil(4) <= self.straight {
            for row in 0..count {
                let (base, first) = from.row(e, row, sum.row_bytes);
                for run in 0..sum.runs {
                    let at = first + (run * sum.run_bytes) as i32;
                    straight(e, base, at, patches, ((row * sum.runs + run) * run_bytes) as i32);
                }
            }
            if self.across {
                self.widen_last(kernel, e, from, patches, pixels, run_bytes);
            }
            return;
        }
        let step = self.table.as_ref().map_or(sum.row_bytes, |table| table.pointer);
        let rows = [(from.base, step as i64), (patches, (sum.runs * run_bytes) as i64)];
        e.counted(count as u64, &rows, &[], |e, p, _| {
            let (base, at) = Source { base: p[0], ..from }.row(e, 0, 0);
            let base = e.offset(base, i64::from(at));
            let runs = [(base, sum.run_bytes as i64), (p[1], run_bytes as i64)];
            e.counted(sum.runs as u64, &runs, &[], |e, p, _| {
                let unroll = divisor(words, if pixels == 1 { 4 } else { 2 });
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

    /// Widens the last elements of all runs, two runs' in a word.
    fn widen_last(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        from: Source,
        patches: Value,
        pixels: usize,
        run_bytes: usize,
    ) {
        let sum = kernel.sum;
        let segments = sum.rows * sum.runs;
        for first in (0..segments).step_by(2) {
            let places: Vec<(Value, i32)> = (first..(first + 2).min(segments))
                .map(|segment| {
                    let (base, at) = from.row(e, segment / sum.runs, sum.row_bytes);
                    (base, at + (segment % sum.runs * sum.run_bytes + sum.length - 1) as i32)
                })
                .collect();
            for p in 0..pixels {
                let bytes: Vec<Value> = places
                    .iter()
                    .map(|(base, at)| e.load_i8(*base, at + (p * sum.position_bytes) as i32))
                    .collect();
                let value = match bytes[..] {
                    [low, high] => e.intrinsic(Intrinsic::Pkhbt, &[low, high]),
                    _ => bytes[0],
                };
                let at = segments * run_bytes + first / 2 * 4 * pixels + 4 * p;
                e.store_word(value, patches, at as i32);
            }
        }
    }

    /// A block of channels for the widened patches. Returns where its weights end.
    #[allow(clippy::too_many_arguments)]
    fn tile(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        patches: Value,
        end: Option<Parked>,
        weights: Value,
        moving: Parked,
        head: Head,
        block: &Block,
        pixels: usize,
    ) -> Value {
        let constants = e.fetch_pointer(moving);
        let starts = starts(kernel, e, constants, block, pixels);
        let pairs = self.pairs.len();
        let (sums, weights) = self.sums(kernel, e, [patches, weights], end, starts, block, pixels, pairs);
        let behind = e.fetch(moving, e.pointer, 0, 2);
        let (constants, output) = (behind[0], behind[1]);
        self.finish(kernel, e, [constants, output], head, sums, block, pixels);
        let constants = e.offset(constants, requantize(kernel).block_bytes(block.tile.channels) as i64);
        let output = e.offset(output, block.filters as i64);
        e.repark(moving, &[constants, output]);
        weights
    }

    /// Adds `pairs` pairs of the patches to the sums of a block of channels. Returns where the weights end.
    #[allow(clippy::too_many_arguments)]
    fn sums(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        [patches, weights]: [Value; 2],
        end: Option<Parked>,
        starts: Vec<Value>,
        block: &Block,
        pixels: usize,
        pairs: usize,
    ) -> (Vec<Value>, Value) {
        let tile = Tile { pixels, ..block.tile };
        let channels = tile.channels;
        let patch_bytes = self.step_bytes(pixels);
        let weight_bytes = 2 * channels * self.step_pairs();
        let run = |e: &mut Emitter, a: Value, w: Value, steps: usize, sums: &mut [Value]| {
            let mut k = 0;
            while k < steps {
                let (at, w_at) = ((k * patch_bytes) as i32, (k * weight_bytes) as i32);
                let taken = if self.paired && pixels == 1 && !self.lean {
                    (steps - k).min(2)
                } else {
                    1
                };
                if self.lean {
                    self.lean_step(e, &tile, a, at, w, w_at, sums);
                } else if self.paired {
                    paired_step(e, &tile, a, at, w, w_at, taken, sums);
                } else {
                    plain_step(e, &tile, a, at, w, w_at, sums);
                }
                k += taken;
            }
        };
        let [unroll, rounds, rest] = self.rounds(kernel, pairs);
        let moved = [
            (patches, (unroll * patch_bytes) as i64),
            (weights, (unroll * weight_bytes) as i64),
        ];
        let (mut sums, ends) = if let Some(end) = end {
            let carried = [&starts[..], &[patches, weights]].concat();
            let all = e.repeat(rounds as u64, &carried, |e, all| {
                let (sums, p) = all.split_at(channels * pixels);
                let mut sums = sums.to_vec();
                run(e, p[0], p[1], unroll, &mut sums);
                let next = [0, 1].map(|i| e.offset(p[i], moved[i].1));
                sums.extend(next);
                let end = e.fetch_pointer(end);
                (sums, e.b.ins().icmp(IntCC::NotEqual, next[0], end))
            });
            let (sums, p) = all.split_at(channels * pixels);
            (sums.to_vec(), [p[0], p[1]])
        } else {
            let mut sums = starts;
            run(e, patches, weights, unroll * rounds, &mut sums);
            (sums, moved.map(|(start, step)| e.offset(start, step * rounds as i64)))
        };
        run(e, ends[0], ends[1], rest, &mut sums);
        let weights = e.offset(ends[1], (rest * weight_bytes) as i64);
        (sums, weights)
    }

    /// Four elements of the only position, which are not widened yet, in all sums.
    #[allow(clippy::too_many_arguments)]
    fn lean_step(&self, e: &mut Emitter, tile: &Tile, a: Value, at: i32, w: Value, w_at: i32, sums: &mut [Value]) {
        let raw = e.load(I32, a, at);
        let x = [Intrinsic::Sxtb16, Intrinsic::Sxtb16Ror8].map(|take| e.intrinsic(take, &[raw]));
        if !self.paired {
            return plain_sums(e, tile, &x, w, w_at, sums);
        }
        for (i, x) in x.iter().enumerate() {
            paired_sums(e, tile, &[*x], w, w_at + (2 * i * tile.channels) as i32, sums);
        }
    }

    /// Stores the results of a block of channels.
    #[allow(clippy::too_many_arguments)]
    fn finish(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        [constants, output]: [Value; 2],
        head: Head,
        mut sums: Vec<Value>,
        block: &Block,
        pixels: usize,
    ) {
        let requantize = requantize(kernel);
        let channels = block.tile.channels;
        let shared = requantize.shared(e, head);
        for c in 0..block.filters {
            let ready = requantize.load(e, head, &shared, constants, channels, c);
            for p in 0..pixels {
                if self.paired && c % 2 == 0 {
                    sums[c * pixels + p] = e.b.ins().isub(sums[c * pixels + p], sums[(c + 1) * pixels + p]);
                }
                let result = requantize.result(e, sums[c * pixels + p], c, &ready);
                e.store_i8(result, output, (p * kernel.layer.out_channels() + c) as i32);
            }
        }
    }
}

fn requantize<'k>(kernel: &'k Kernel) -> &'k Words {
    let After::Words(requantize) = &kernel.after else {
        unreachable!("halves are for int8 on 32-bit machines");
    };
    requantize
}

/// What the sums of a block of channels start from.
fn starts(kernel: &Kernel, e: &mut Emitter, constants: Value, block: &Block, pixels: usize) -> Vec<Value> {
    let requantize = requantize(kernel);
    let channels = block.tile.channels;
    // Two at a time are one instruction, and cheaper than copies.
    let mut starts = vec![constants; channels * pixels];
    for first in (0..channels).step_by(2) {
        for p in 0..pixels {
            for c in first..(first + 2).min(channels) {
                starts[c * pixels + p] = requantize.start(e, constants, c);
            }
        }
    }
    starts
}

/// How `steps` are cut: steps of a round, rounds, what is left.
fn rounds_of(steps: usize, unroll: usize) -> [usize; 3] {
    if steps <= unroll + unroll / 4 {
        return [steps, 1, 0];
    }
    let whole = divisor(steps, unroll);
    let unroll = if 2 * whole > unroll { whole } else { unroll };
    [unroll, steps / unroll, steps % unroll]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_in_the_order_of_sxtb16() {
        let pair = |a, b| [Some(a), Some(b)];
        assert_eq!(pairs(1, 4, false), [pair(0, 2), pair(1, 3)]);
        assert_eq!(
            pairs(2, 7, false),
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
        assert_eq!(
            pairs(3, 3, true),
            [pair(0, 1), pair(3, 4), pair(6, 7), pair(2, 5), [Some(8), None]]
        );
        assert_eq!(Halves::new(3, 1, false, Effort::Balanced).pairs.len(), 2);
        assert_eq!(Halves::new(3, 1, true, Effort::Balanced).pairs.len(), 2);
    }
}
