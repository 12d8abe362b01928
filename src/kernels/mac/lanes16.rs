//! Dense layers on machines without vectors or DSP instructions: several channels' weights 16 bits apart in a word, two
//! in 32 bits, four in 64.
//!
//! A word of parameters holds two elements of the sum for its channels. Of the first element, bytes 0, 2, … are w + 128:
//! a mask makes E = e0 + e1·2^16 + … of them. What is left is O·2^8 with O = o0 + o1·2^16 + …, where all but the last are
//! w + 128, and the last, in the top byte, is w, signed. The upper half of its product with an activation that is shifted
//! to the top byte is O·a. So E·a and O·a' sum up L0 + L1·2^16 + …, for all channels at once.
//!
//! The 128s come off at the end of a group of elements: what a group starts from is 2^15 in each lane, less 128 times its
//! activations, made once for all channels. [`Groups`] are short enough that lanes fit 16 bits, which none then leaves.
//! In 32 bits, adding up upper halves in one register, and whole words in another, gives both sums at the end. In 64, even
//! and odd lanes are added up in two registers of two 32-bit lanes each; their sums are 2^15 too great for each group.
//!
//! Activations are put in the order of the groups once, as the words that multiply: as they are, and in the top byte.

use super::super::Parameter;
use super::super::emit::{Emitter, Parked};
use super::super::requantize::Requantize;
use super::super::schedule::{self, Block, Inner, Tile};
use super::conv::{After, Kernel, Sum};
use super::groups::Groups;
use super::layer::Layer;
use super::packed::{place, table_before};
use crate::data::{Bytes, Contents};
use crate::error::{Error, Result};
use crate::graph::DType;
use crate::target::{Arch, Effort, Target};
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};

/// Selects the first element's weights.
const MASK: i64 = 0x00ff_00ff_00ff_00ff;
/// Selects even lanes.
const EVEN: i64 = 0x0000_ffff_0000_ffff;
/// One in each lane.
const ONES: i64 = 0x0001_0001_0001_0001;
/// Instructions after the sum of a channel, about.
const CHANNEL: usize = 15;
/// Words of weights that share activations.
const WORDS: usize = 4;

/// How sums are cut.
#[derive(Clone, Debug)]
pub(super) struct Lanes16 {
    pub groups: Groups,
    /// Channels of a word.
    pub lanes: usize,
    /// Bytes of an offset in the table at the head of the biases; 0 if elements stay in order.
    offset: usize,
}

impl Lanes16 {
    /// Whether the machine is one that the form is for: with registers enough, and nothing better.
    pub fn possible(target: &Target) -> bool {
        let machine = target.machine();
        !machine.simd128 && !machine.dsp && target.arch() != Arch::Thumb2
    }

    /// The form, if it takes fewer instructions than single products.
    ///
    /// # Errors
    /// Those of reading the model.
    pub fn new(layer: &Layer, target: &Target) -> Result<Option<Self>> {
        let machine = target.machine();
        if !Self::possible(target) || layer.dtype != DType::I8 || layer.out_width != 1 || layer.lean {
            return Ok(None);
        }
        let lanes = machine.integer_bytes / 2;
        let most = match target.effort {
            Effort::Speed | Effort::Balanced => 16,
            Effort::Ram => 12,
            Effort::Size => 8,
        };
        let sum = layer.weights.sum();
        let own = |groups: &Groups| cost(groups, lanes, layer.filters);
        let read = |channel: usize, out: &mut Vec<u8>| layer.read(channel, out);
        let Some(groups) = Groups::new(sum, layer.out_channels(), [most, 2], read, own)? else {
            return Ok(None);
        };
        let plain: usize = (schedule::blocks(machine, Inner::Scalar, layer.filters, 1).iter())
            .map(|block| block.count * (sum * (2 + 3 * block.tile.channels) + 14 * block.tile.channels))
            .sum();
        // Sums of lanes stay below 2^31.
        if own(&groups) as usize >= plain || layer.filters == 1 || groups.count() >= 1 << 15 {
            return Ok(None);
        }
        // Zeros read an element as well: one that is there.
        let in_order = groups.order.iter().enumerate().all(|(i, k)| *k == Some(i));
        let offset = if in_order { 0 } else { 2 };
        Ok(Some(Lanes16 { groups, lanes, offset }))
    }

    /// Instructions of `filters` channels.
    pub fn cost(&self, filters: usize) -> u64 {
        cost(&self.groups, self.lanes, filters)
    }

    /// The blocks of `filters` channels.
    pub fn blocks(&self, filters: usize) -> Vec<Block> {
        blocks(self.lanes, filters)
    }

    /// What 64-bit sums are too great by.
    pub fn excess(&self) -> i32 {
        (self.groups.count() as i32) << 15
    }

    /// With offsets that hold the places of all elements.
    pub fn placed(mut self, sum: &Sum, elements: usize) -> Self {
        let one_run = sum.rows * sum.runs == 1;
        if self.offset > 0 || !one_run {
            let wide = place(sum, elements.max(1) - 1) >= 1 << 15;
            self.offset = if wide { 4 } else { 2 };
        }
        self
    }

    /// Bytes of the table: whole words, as those that follow are to be aligned.
    pub fn head(&self) -> usize {
        (self.offset * self.groups.order.len()).next_multiple_of(2 * self.lanes)
    }

    /// `biases` behind the table.
    ///
    /// # Errors
    /// None: what was made in memory is copied.
    pub fn parameter(&self, biases: Parameter, sum: &Sum) -> Result<Parameter> {
        if self.offset == 0 {
            return Ok(biases);
        }
        let offset = |k: &Option<usize>| k.map_or(0, |k| place(sum, k)) as u32;
        let mut bytes: Vec<u8> = (self.groups.order.iter())
            .flat_map(|k| offset(k).to_le_bytes().into_iter().take(self.offset))
            .collect();
        bytes.resize(self.head(), 0);
        let copied = biases.contents.write_to(&mut bytes);
        copied.map_err(|error| Error::internal(format!("cannot copy biases: {error}")))?;
        let layout = biases
            .contents
            .layout()
            .map(|entries| table_before(entries, self.offset, self.head()));
        let contents = Contents::Bytes(Bytes::from_vec(bytes));
        Ok(Parameter {
            contents: match layout {
                Some(layout) => contents.described(layout),
                None => contents,
            },
            ..biases
        })
    }

    /// Bytes of scratch: activations, and what each group starts from.
    pub fn bytes(&self) -> usize {
        2 * self.lanes * (self.groups.order.len() + self.groups.count())
    }

    /// All channels of the only position; `table` is the head of the parameter.
    pub fn group(&self, kernel: &Kernel, e: &mut Emitter, [base, weights, biases, output, table]: [Value; 5]) {
        let words = e.offset(e.args[4], kernel.staged_bytes() as i64);
        let starts = e.offset(words, (2 * self.lanes * self.groups.order.len()) as i64);
        self.gather(e, [base, table, words, starts]);
        let kept = match &kernel.after {
            After::Requantize(requantize) => requantize.keep_bounds(e),
            _ => unreachable!("lanes are for int8"),
        };
        let (mut weights, mut biases, mut output) = (weights, biases, output);
        for block in &kernel.blocks {
            let channels = block.tile.channels;
            let steps = [
                (output, block.filters as i64),
                (biases, (channels * kernel.entry) as i64),
            ];
            let (carried, ends) = e.counted(block.count as u64, &steps, &[weights], |e, p, carried| {
                let pointers = [words, starts, carried[0], p[1], p[0]];
                vec![self.tile(kernel, e, pointers, (channels, block.filters), kept)]
            });
            (weights, output, biases) = (carried[0], ends[0], ends[1]);
        }
    }

    /// Puts the activations in order.
    fn gather(&self, e: &mut Emitter, [base, table, words, starts]: [Value; 4]) {
        let (mut words, mut starts, mut table, mut base) = (words, starts, table, base);
        let ordered = self.offset == 0;
        for (length, count) in &self.groups.runs {
            let from = if ordered {
                (base, *length as i64)
            } else {
                (table, (self.offset * length) as i64)
            };
            let word = 2 * self.lanes;
            let steps = [(words, (word * length) as i64), (starts, word as i64), from];
            let (_, ends) = e.counted(*count as u64, &steps, &[], |e, p, _| {
                let mut sums: [Option<Value>; 2] = [None; 2];
                for k in 0..*length {
                    let a = if ordered {
                        e.load_integer8(p[2], k as i32)
                    } else {
                        let at = (k * self.offset) as i32;
                        let offset = match self.offset {
                            2 => e.b.ins().uload16(I32, Emitter::flags().with_aligned(), p[2], at),
                            _ => e.load_word(p[2], at),
                        };
                        let offset = if e.pointer == I32 {
                            offset
                        } else {
                            e.b.ins().uextend(e.pointer, offset)
                        };
                        let from = e.b.ins().iadd(base, offset);
                        e.load_integer8(from, 0)
                    };
                    let sum = &mut sums[k % 2];
                    *sum = Some(match *sum {
                        None => a,
                        Some(sum) => e.b.ins().iadd(sum, a),
                    });
                    let value = if k % 2 == 0 {
                        a
                    } else {
                        shift_left(e, a, 8 * word as i64 - 8)
                    };
                    e.store_word(value, p[0], (word * k) as i32);
                }
                let [Some(first), Some(second)] = sums else {
                    unreachable!("groups have even lengths");
                };
                // Of the second elements, the last lane's weights have nothing added.
                let top = 16 * (self.lanes as i64 - 1);
                let upper = shift_left(e, first, top);
                let mut all = e.b.ins().iadd(first, second);
                if self.lanes > 2 {
                    let ones = e.int(I64, ONES & ((1 << top) - 1));
                    all = e.b.ins().imul(all, ones);
                }
                let all = e.b.ins().iadd(all, upper);
                let less = shift_left(e, all, 7);
                let half = match self.lanes {
                    2 => e.i32(1 << 15),
                    _ => e.int(I64, ONES.wrapping_shl(15)),
                };
                let start = e.b.ins().isub(half, less);
                e.store_word(start, p[1], 0);
                vec![]
            });
            (words, starts) = (ends[0], ends[1]);
            if ordered {
                base = ends[2];
            } else {
                table = ends[2];
            }
        }
    }

    /// A block of channels. Returns where its weights end.
    fn tile(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        [words, starts, weights, biases, output]: [Value; 5],
        (channels, filters): (usize, usize),
        kept: Option<Parked>,
    ) -> Value {
        let After::Requantize(requantize) = &kernel.after else {
            unreachable!("lanes are for int8");
        };
        let (lanes, word) = (self.lanes, 2 * self.lanes);
        let words_of = channels / lanes;
        let wide = lanes > 2;
        // For every word, upper halves and words, or even and odd lanes.
        let mut sums = Vec::with_capacity(2 * words_of);
        for c in (0..channels).step_by(lanes) {
            if wide {
                let zero = e.int(I64, 0);
                sums.extend([zero, zero]);
                continue;
            }
            let [low, high] = [c, c + 1].map(|c| requantize.start(e, biases, (c * kernel.entry) as i32));
            let scaled = shift_left(e, high, 16);
            let both = e.b.ins().iadd(low, scaled);
            let excess = e.i32(self.excess().wrapping_neg());
            sums.extend([high, e.b.ins().iadd(both, excess)]);
        }
        let (mask, even) = masks(e, wide);
        let (mut words, mut starts, mut weights) = (words, starts, weights);
        for (length, count) in &self.groups.runs {
            let steps = [
                (weights, (length * channels) as i64),
                (words, (word * length) as i64),
                (starts, word as i64),
            ];
            let (carried, ends) = e.counted(*count as u64, &steps, &sums, |e, p, sums| {
                let mut sums = sums.to_vec();
                let ty = e.integer();
                let load = |e: &mut Emitter, from: Value, at: usize| {
                    e.b.ins().load(ty, Emitter::flags().with_aligned(), from, at as i32)
                };
                let start = load(e, p[2], 0);
                let mut group = vec![start; words_of];
                for k in (0..*length).step_by(2) {
                    let [first, second] = [k, k + 1].map(|k| load(e, p[1], word * k));
                    for (index, sum) in group.iter_mut().enumerate() {
                        let all = load(e, p[0], k * channels + word * index);
                        let evens = e.b.ins().band(all, mask);
                        let odds = e.b.ins().isub(all, evens);
                        let product = e.b.ins().imul(evens, first);
                        *sum = e.b.ins().iadd(product, *sum);
                        let product = e.b.ins().smulhi(odds, second);
                        *sum = e.b.ins().iadd(product, *sum);
                        if k + 2 < *length {
                            continue;
                        }
                        let added = match even {
                            None => [e.shift_right(*sum, 16), *sum],
                            Some(even) => {
                                let low = e.b.ins().band(*sum, even);
                                let by = e.i32(16);
                                let high = e.b.ins().ushr(*sum, by);
                                [low, e.b.ins().band(high, even)]
                            }
                        };
                        for (sum, added) in sums[2 * index..].iter_mut().zip(added) {
                            *sum = e.b.ins().iadd(*sum, added);
                        }
                    }
                }
                sums
            });
            sums = carried;
            (weights, words, starts) = (ends[0], ends[1], ends[2]);
        }
        let bounds = match kept {
            None => Some(requantize.bounds(e)),
            kept => Requantize::kept_bounds(e, kept),
        };
        for c in 0..filters {
            let constants = requantize
                .load(e, biases, (c * kernel.entry) as i32)
                .maybe_within(bounds);
            let (first, second) = (sums[c / lanes * 2], sums[c / lanes * 2 + 1]);
            let x = match c % lanes {
                0 if !wide => {
                    let scaled = shift_left(e, first, 16);
                    e.b.ins().isub(second, scaled)
                }
                _ if !wide => first,
                lane => {
                    let sum = if lane % 2 == 0 { first } else { second };
                    if lane < 2 {
                        let low = e.b.ins().ireduce(I32, sum);
                        e.b.ins().sextend(I64, low)
                    } else {
                        let by = e.i32(32);
                        e.b.ins().ushr(sum, by)
                    }
                }
            };
            let result = requantize.apply(e, x, &constants);
            e.store_i8(result, output, c as i32);
        }
        weights
    }
}

/// Instructions of `filters` channels, `lanes` to a word.
fn cost(groups: &Groups, lanes: usize, filters: usize) -> u64 {
    let (steps, count) = (groups.order.len(), groups.count());
    let block = |block: &Block| {
        let words = block.tile.channels / lanes;
        let flushed = if lanes == 2 { 3 } else { 5 };
        block.count * (steps * (2 + 7 * words) / 2 + count * (flushed * words + 4) + CHANNEL * block.tile.channels)
    };
    (8 * steps + 5 * count + blocks(lanes, filters).iter().map(block).sum::<usize>()) as u64
}

/// As few different blocks as possible of up to [`WORDS`] words of `lanes` channels.
fn blocks(lanes: usize, filters: usize) -> Vec<Block> {
    let words = filters.div_ceil(lanes);
    let dividing = (2..=WORDS).rev().find(|n| words.is_multiple_of(*n));
    let width = lanes
        * if words <= WORDS {
            words
        } else {
            dividing.unwrap_or(WORDS)
        };
    let block = |count: usize, filters: usize| Block {
        count,
        filters,
        tile: Tile {
            pixels: 1,
            channels: filters.next_multiple_of(lanes),
            k_unroll: 1,
        },
    };
    let whole = (filters / width > 0).then(|| block(filters / width, width));
    let rest = (!filters.is_multiple_of(width)).then(|| block(1, filters % width));
    whole.into_iter().chain(rest).collect()
}

/// [`MASK`], and [`EVEN`] for 64 bits, in registers: on 64-bit machines, constants would be made anew at each use.
fn masks(e: &mut Emitter, wide: bool) -> (Value, Option<Value>) {
    if !wide {
        return (e.i32(MASK as i32), None);
    }
    let constants = [MASK, EVEN].map(|mask| e.int(I64, mask));
    let parked = e.park(&constants);
    let loaded = e.fetch(parked, I64, 0, 2);
    (loaded[0], Some(loaded[1]))
}

fn shift_left(e: &mut Emitter, value: Value, by: i64) -> Value {
    let by = e.int(I32, by);
    e.b.ins().ishl(value, by)
}
