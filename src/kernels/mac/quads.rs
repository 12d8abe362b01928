//! Dense layers on 32-bit machines without vectors or DSP instructions: four channels' weights in a word.
//!
//! W = E + O·2^8, with E = e0 + e2·2^16 and O = o1 + o3·2^16: of four channels' weights all but the last, which is in the
//! top byte, have 128 added. A mask makes O·2^8, whose product with an activation that is shifted to the top byte has O·a
//! as its upper half. E need not be taken out of W: W·a summed up, modulo 2^32, is Σ E·a + 2^8·Σ O·a, and the second
//! sum is known exactly. So four products take five instructions and a load.
//!
//! Lanes of 16 bits hold 128 times a sum of magnitudes of at most 255. Elements come in units that fit in all channels
//! ([`Groups`](super::groups::Groups) of equal length); a tile goes through as many units at a time, an interval, as fit in its own channels: most
//! channels have far smaller weights than the greatest. What the 128s add, 128·Σ a, comes off where an interval starts:
//! a running sum is kept before each unit.
//!
//! Tiles are of channels whose weights are about as large, so that few channels make the intervals of others short: then
//! results are stored by a table.
//!
//! At the end of an interval, upper lanes are added to H, and words to S. Then H is one channel's sum and S − H·2^16 the
//! other's. What S starts from has 2^15 less for each interval of the tile.

mod plan;

use super::super::emit::{Emitter, Parked};
use super::super::lowered::Lowered;
use super::super::overlap::{self, Unit};
use super::super::requantize::Requantize;
use super::super::schedule::Block;
use super::lanes16::Lanes16;
use super::layer::Layer;
use crate::error::Result;
use crate::graph::DType;
use crate::target::Target;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Value};
use plan::{Plan, plan, skipped};

/// Channels of a word.
const CHANNELS: usize = 4;
/// H and S of each of a word's two sums.
const SUMS: usize = 4;

struct Kernel {
    requantize: Requantize,
    plan: Plan,
}

/// The kernel, if the layer has the shape for it and it takes less than `other` instructions.
///
/// # Errors
/// Those of reading the model.
pub(super) fn lower(layer: &Layer, target: &Target, stem: &'static str, other: u64) -> Result<Option<Lowered>> {
    let word = Lanes16::possible(target) && target.machine().integer_bytes == 4;
    let one = layer.pointwise() && layer.out_width == 1 && !layer.table && !layer.lean;
    if !word || !one || layer.dtype != DType::I8 || layer.filters < CHANNELS {
        return Ok(None);
    }
    let Some((_, plan)) = plan(layer, target)?.filter(|(cost, _)| *cost < other) else {
        return Ok(None);
    };
    let (constants, requantize) = plan.constants(layer, target)?;
    let elements = &plan.units.groups.order;
    let weights = layer.filter_parameter(layer.weights.quads(&plan.blocks, elements, plan.order.as_deref()));
    let kernel = Kernel { requantize, plan };
    let Plan { units, blocks, .. } = &kernel.plan;
    let tiles: Vec<String> = blocks
        .iter()
        .map(|block| format!("{}ch", block.tile.channels))
        .collect();
    let each = kernel
        .plan
        .intervals
        .iter()
        .map(|tile| units.count as f64 / tile.len() as f64);
    let schedule = format!(
        "quads {}{}, {} units of {}, {:.1} at a time, {}",
        tiles.join(", "),
        if kernel.plan.order.is_some() {
            " by magnitude"
        } else {
            ""
        },
        units.count,
        units.length,
        each.sum::<f64>() / kernel.plan.intervals.len() as f64,
        kernel.requantize.name(),
    );
    let lowered = layer.lowered(target, stem, schedule, [weights, constants], units.all(), |e| {
        kernel.emit(e)
    });
    // All activations are copied before the first result is written.
    let unit = Unit {
        reads: 0,
        written: layer.filters as u64,
    };
    Ok(Some(lowered.overlapping(layer.input(), overlap::gap(&[unit], true), 1)))
}

/// Where a tile is, and its constants.
#[derive(Clone, Copy)]
struct Place {
    words: Value,
    lengths: Value,
    weights: Value,
    starts: Value,
    output: Value,
}

impl Kernel {
    fn emit(&self, e: &mut Emitter) {
        let [input, weights, constants, output, words] = e.args[..5] else {
            unreachable!("there is scratch");
        };
        self.gather(e, [input, constants, words]);
        let plan = &self.plan;
        let mut lengths = e.offset(constants, plan.units.table() as i64);
        let mut starts = e.offset(constants, plan.head() as i64);
        let (mut weights, mut output) = (weights, output);
        let end = e.offset(words, (plan.units.count * plan.units.bytes()) as i64);
        let end = e.park(&[end]);
        for (index, block) in plan.blocks.iter().enumerate() {
            let moved = if plan.order.is_some() { 0 } else { block.filters };
            let steps = [(starts, self.constants_bytes(block) as i64), (output, moved as i64)];
            let total = [plan.intervals_of(index), block.count * plan.units.count].map(|all| e.trips() * all as u64);
            let (carried, ends) = e.counted(block.count as u64, &steps, &[weights, lengths], |e, p, carried| {
                let place = Place {
                    words,
                    lengths: carried[1],
                    weights: carried[0],
                    starts: p[0],
                    output: p[1],
                };
                self.tile(e, place, block, end, total)
            });
            (weights, lengths) = (carried[0], carried[1]);
            (starts, output) = (ends[0], ends[1]);
        }
    }

    /// Bytes of the constants of a tile.
    fn constants_bytes(&self, block: &Block) -> usize {
        let channels = block.tile.channels;
        4 * SUMS * channels / CHANNELS + channels * self.entry() + self.plan.places(block)
    }

    /// Bytes of the constants of a channel.
    fn entry(&self) -> usize {
        self.requantize.entry_bytes() - skipped(&self.requantize)
    }

    /// Puts the activations in order, −128 times the sum of all before a unit before that.
    fn gather(&self, e: &mut Emitter, [input, table, words]: [Value; 3]) {
        let units = &self.plan.units;
        let zero = e.i32(0);
        let from = match units.offset {
            0 => (input, units.length as i64),
            bytes => (table, (bytes * units.length) as i64),
        };
        let steps = [(words, units.bytes() as i64), from];
        let (less, ends) = e.counted(units.count as u64, &steps, &[zero], |e, p, less| {
            e.store_word(less[0], p[0], 0);
            let mut sum: Option<Value> = None;
            for k in 0..units.length {
                let a = match units.offset {
                    0 => e.load_i8(p[1], k as i32),
                    bytes => {
                        let at = (bytes * k) as i32;
                        let offset = match bytes {
                            2 => e.b.ins().uload16(I32, Emitter::flags().with_aligned(), p[1], at),
                            _ => e.load_word(p[1], at),
                        };
                        let from = displaced(e, input, offset);
                        e.load_i8(from, 0)
                    }
                };
                e.store_i8(a, p[0], (4 + k) as i32);
                sum = Some(match sum {
                    None => a,
                    Some(sum) => e.b.ins().iadd(sum, a),
                });
            }
            let sum = sum.expect("units have elements");
            let more = shift_left(e, sum, 7);
            vec![e.b.ins().isub(less[0], more)]
        });
        e.store_word(less[0], ends[0], 0);
    }

    /// A tile of channels. Returns where its weights and its intervals' lengths end. `total`: intervals and units of all
    /// tiles of the block in one call.
    fn tile(&self, e: &mut Emitter, place: Place, block: &Block, end: Parked, total: [u64; 2]) -> Vec<Value> {
        let words_of = block.tile.channels / CHANNELS;
        let requantize = &self.requantize;
        let units = &self.plan.units;
        let unit = units.bytes() as i64;
        let row = CHANNELS * words_of;
        let sums: Vec<Value> = (0..SUMS * words_of)
            .map(|i| e.load_word(place.starts, 4 * i as i32))
            .collect();
        let carried: Vec<Value> = [place.words, place.weights, place.lengths]
            .into_iter()
            .chain(sums)
            .collect();
        let carried = e.repeat_in_all(total[0], &carried, |e, carried| {
            let [words, weights, lengths] = carried[..3] else {
                unreachable!("three pointers are carried");
            };
            let length = e.b.ins().uload16(I32, Emitter::flags().with_aligned(), lengths, 0);
            let until = displaced(e, words, length);
            let [before, after] = [words, until].map(|at| e.load_word(at, 0));
            // Of the odd lanes and, with these 2^8 times, of the even ones.
            let less = e.b.ins().isub(after, before);
            let half = e.i32(1 << 15);
            let odd = e.b.ins().iadd(less, half);
            let upper = shift_left(e, less, 16);
            let even = e.b.ins().iadd(odd, upper);
            let scaled = shift_left(e, odd, 8);
            let even = e.b.ins().iadd(even, scaled);
            let starts = (0..words_of).flat_map(|_| [even, odd]);
            let inside: Vec<Value> = [words, weights].into_iter().chain(starts).collect();
            let inside = e.repeat_in_all(total[1], &inside, |e, inside| {
                let (words, weights) = (inside[0], inside[1]);
                let mut sums = inside[2..].to_vec();
                let mask = e.i32(0xff00_ff00u32 as i32);
                for k in 0..units.length {
                    let a = e.load_i8(words, (4 + k) as i32);
                    let top = shift_left(e, a, 24);
                    for (index, sums) in sums.chunks_mut(2).enumerate() {
                        let all = e.load_word(weights, (k * row + CHANNELS * index) as i32);
                        let product = e.b.ins().imul(all, a);
                        sums[0] = e.b.ins().iadd(product, sums[0]);
                        let odd = e.b.ins().band(all, mask);
                        let product = e.b.ins().smulhi(odd, top);
                        sums[1] = e.b.ins().iadd(product, sums[1]);
                    }
                }
                let next = e.offset(words, unit);
                let mut results = vec![next, e.offset(weights, (units.length * row) as i64)];
                results.extend(sums);
                (results, e.b.ins().icmp(IntCC::NotEqual, next, until))
            });
            let mut sums = carried[3..].to_vec();
            for (index, both) in inside[2..].chunks(2).enumerate() {
                let odd = both[1];
                let scaled = shift_left(e, odd, 8);
                let even = e.b.ins().isub(both[0], scaled);
                for (i, sum) in [even, odd].into_iter().enumerate() {
                    let at = SUMS * index + 2 * i;
                    let upper = e.shift_right(sum, 16);
                    sums[at] = e.b.ins().iadd(sums[at], upper);
                    sums[at + 1] = e.b.ins().iadd(sums[at + 1], sum);
                }
            }
            let mut results = vec![inside[0], inside[1], e.offset(lengths, 2)];
            results.extend(sums);
            let end = e.fetch_pointer(end);
            (results, e.b.ins().icmp(IntCC::NotEqual, inside[0], end))
        });
        let bounds = requantize.bounds(e);
        let entries = 4 * SUMS * words_of;
        for channel in 0..block.filters {
            let at = entries + channel * self.entry() - skipped(requantize);
            let constants = requantize.load(e, place.starts, at as i32).within(bounds);
            // Even lanes are of channels 0 and 2 of a word, odd ones of 1 and 3.
            let (word, lane) = (channel / CHANNELS, channel % CHANNELS);
            let at = 3 + SUMS * word + 2 * (lane % 2);
            let (upper, both) = (carried[at], carried[at + 1]);
            let x = if lane < 2 {
                let scaled = shift_left(e, upper, 16);
                e.b.ins().isub(both, scaled)
            } else {
                upper
            };
            let result = requantize.apply(e, x, &constants);
            if self.plan.order.is_none() {
                e.store_i8(result, place.output, channel as i32);
                continue;
            }
            let at = entries + block.tile.channels * self.entry() + 2 * channel;
            let offset =
                e.b.ins()
                    .uload16(I32, Emitter::flags().with_aligned(), place.starts, at as i32);
            let to = displaced(e, place.output, offset);
            e.store_i8(result, to, 0);
        }
        vec![carried[1], carried[2]]
    }
}

/// `pointer + offset`, an unsigned word.
fn displaced(e: &mut Emitter, pointer: Value, offset: Value) -> Value {
    let offset = if e.pointer == I32 {
        offset
    } else {
        e.b.ins().uextend(e.pointer, offset)
    };
    e.b.ins().iadd(pointer, offset)
}

fn shift_left(e: &mut Emitter, value: Value, by: i32) -> Value {
    let by = e.i32(by);
    e.b.ins().ishl(value, by)
}
