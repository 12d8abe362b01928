//! Dense layers on 32-bit machines without vectors or DSP instructions: four channels' weights in a word.
//!
//! W = E + O·2^8, with E = e0 + e2·2^16 and O = o1 + o3·2^16: of four channels' weights all but the last, which is in the
//! top byte, have 128 added. A mask makes O·2^8, whose product with an activation that is shifted to the top byte has O·a
//! as its upper half. E need not be taken out of W: W·a summed up, modulo 2^32, is Σ E·a + 2^8·Σ O·a, and the second
//! sum is known exactly. So four products take five instructions and a load.
//!
//! Lanes of 16 bits hold 128 times a sum of magnitudes of at most 255. Elements come in units that fit in all channels
//! ([`Groups`] of equal length); a tile goes through as many units at a time, an interval, as fit in its own channels: most
//! channels have far smaller weights than the greatest. What the 128s add, 128·Σ a, comes off where an interval starts:
//! a running sum is kept before each unit.
//!
//! Tiles are of channels whose weights are about as large, so that few channels make the intervals of others short: then
//! results are stored by a table.
//!
//! At the end of an interval, upper lanes are added to H, and words to S. Then H is one channel's sum and S − H·2^16 the
//! other's. What S starts from has 2^15 less for each interval of the tile.

use super::super::Parameter;
use super::super::emit::{Emitter, Parked};
use super::super::lowered::Lowered;
use super::super::overlap::{self, Unit};
use super::super::requantize::{Accumulator, Channel, Requantize};
use super::super::schedule::{Block, Tile};
use super::groups::{Groups, MAGNITUDE};
use super::lanes16::Lanes16;
use super::layer::Layer;
use crate::data::{Bytes, Contents, Layout, Scalar};
use crate::error::Result;
use crate::graph::DType;
use crate::target::{Effort, Target};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Channels of a word.
const CHANNELS: usize = 4;
/// H and S of each of a word's two sums.
const SUMS: usize = 4;
/// Registers of RV32.
const REGISTERS: usize = 27;
/// Lengths of units.
const LENGTHS: [usize; 5] = [16, 12, 8, 6, 4];
/// Words of a tile.
const WORDS: [usize; 3] = [4, 3, 2];

struct Kernel {
    requantize: Requantize,
    plan: Plan,
}

/// How a layer is computed.
struct Plan {
    units: Units,
    blocks: Vec<Block>,
    /// The channels in the order of tiles, if that is not their own.
    order: Option<Vec<usize>>,
    /// For each tile, how many units are in each of its intervals.
    intervals: Vec<Vec<usize>>,
}

/// The elements of a sum in units.
#[derive(Clone, Debug)]
struct Units {
    groups: Groups,
    /// Elements of a unit.
    length: usize,
    count: usize,
    /// Bytes of an offset in the table at the head of the constants; 0 if elements stay in order.
    offset: usize,
}

impl Units {
    /// Bytes of a unit of activations: what is added before it, and its elements.
    fn bytes(&self) -> usize {
        4 + self.length.next_multiple_of(4)
    }

    /// Bytes of all activations.
    fn all(&self) -> usize {
        self.count * self.bytes() + 4
    }

    /// Bytes of the table of offsets.
    fn table(&self) -> usize {
        (self.offset * self.groups.order.len()).next_multiple_of(4)
    }
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

/// The plan of the fewest instructions, and how many they are.
fn plan(layer: &Layer, target: &Target) -> Result<Option<(u64, Plan)>> {
    let sum = layer.weights.sum();
    let longest = match target.effort {
        Effort::Speed | Effort::Balanced => 16,
        Effort::Ram => 12,
        Effort::Size => 8,
    };
    let lengths: Vec<usize> = LENGTHS.into_iter().filter(|length| *length <= longest).collect();
    let read = |channel: usize, out: &mut Vec<u8>| layer.read(channel, out);
    let mut best: Option<(u64, Plan)> = None;
    for groups in Groups::equal(sum, layer.filters, &lengths, read)? {
        let (length, count) = groups.runs[0];
        let in_order = groups.order.iter().enumerate().all(|(i, k)| *k == Some(i));
        let offset = match in_order {
            true => 0,
            false if sum < 1 << 15 => 2,
            false => 4,
        };
        let units = Units {
            groups,
            length,
            count,
            offset,
        };
        // Lengths of intervals are 16 bits.
        if units.all() >= 1 << 16 {
            continue;
        }
        let magnitudes = magnitudes(layer, &units)?;
        let mut order: Vec<usize> = (0..layer.filters).collect();
        order.sort_by_key(|channel| magnitudes[*channel].iter().map(|unit| u64::from(*unit)).sum::<u64>());
        for words in WORDS {
            let blocks = blocks(words, layer.filters);
            for order in [None, (layer.filters < 1 << 16).then(|| order.clone())] {
                let plan = Plan {
                    units: units.clone(),
                    blocks: blocks.clone(),
                    intervals: intervals(&magnitudes, &blocks, order.as_deref()),
                    order,
                };
                let cost = plan.cost();
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, plan));
                }
            }
        }
    }
    Ok(best)
}

/// As few different blocks as possible of up to `words` words.
fn blocks(words: usize, filters: usize) -> Vec<Block> {
    let width = CHANNELS * words;
    let block = |count: usize, filters: usize| Block {
        count,
        filters,
        tile: Tile {
            pixels: 1,
            channels: filters.next_multiple_of(CHANNELS),
            k_unroll: 1,
        },
    };
    let whole = (filters / width > 0).then(|| block(filters / width, width));
    let rest = (!filters.is_multiple_of(width)).then(|| block(1, filters % width));
    whole.into_iter().chain(rest).collect()
}

/// Sums of magnitudes of the units, channel by channel.
fn magnitudes(layer: &Layer, units: &Units) -> Result<Vec<Vec<u16>>> {
    let mut buffer = Vec::new();
    let channels = (0..layer.filters).map(|channel| {
        layer.read(channel, &mut buffer)?;
        let magnitude = |k: &Option<usize>| k.map_or(0, |k| u16::from((buffer[k] as i8).unsigned_abs()));
        let of_units = units.groups.order.chunks(units.length);
        Ok(of_units.map(|unit| unit.iter().map(magnitude).sum()).collect())
    });
    channels.collect()
}

/// For each tile, how many units are in each of its intervals; the channels of tiles in `order` or in their own.
fn intervals(magnitudes: &[Vec<u16>], blocks: &[Block], order: Option<&[usize]>) -> Vec<Vec<usize>> {
    let mut tiles = Vec::new();
    let mut first = 0;
    for block in blocks {
        for _ in 0..block.count {
            let own = first..first + block.filters;
            let own: Vec<&[u16]> = match order {
                Some(order) => order[own].iter().map(|channel| &magnitudes[*channel][..]).collect(),
                None => magnitudes[own].iter().map(Vec::as_slice).collect(),
            };
            let mut held = vec![0u16; own.len()];
            let mut tile: Vec<usize> = Vec::new();
            for unit in 0..own.first().map_or(0, |channel| channel.len()) {
                let fits = held.iter().zip(&own).all(|(held, own)| held + own[unit] <= MAGNITUDE);
                match tile.last_mut().filter(|_| fits) {
                    Some(units) => *units += 1,
                    None => {
                        tile.push(1);
                        held.fill(0);
                    }
                }
                held.iter_mut().zip(&own).for_each(|(held, own)| *held += own[unit]);
            }
            tiles.push(tile);
            first += block.filters;
        }
    }
    tiles
}

impl Plan {
    /// Instructions of the layer.
    fn cost(&self) -> u64 {
        let units = &self.units;
        let gather = units.count * (5 * units.length + 6);
        let channel = if self.order.is_some() { 14 } else { 12 };
        let tiles = self.blocks.iter().flat_map(|block| vec![block; block.count]);
        let tile = |(block, intervals): (&Block, &Vec<usize>)| {
            let words = block.tile.channels / CHANNELS;
            let unit = units.length * (2 + 6 * words) + 3;
            // Sums that registers do not hold are loaded and stored.
            let spilled = (6 * words + 11).saturating_sub(REGISTERS);
            let held = 10 * words + 3 * spilled;
            units.count * unit + intervals.len() * (14 + held) + block.tile.channels * channel + 12
        };
        (gather + tiles.zip(&self.intervals).map(tile).sum::<usize>()) as u64
    }

    /// Intervals of all tiles of block `index`.
    fn intervals_of(&self, index: usize) -> usize {
        let first = self.blocks[..index].iter().map(|block| block.count).sum::<usize>();
        let own = &self.intervals[first..first + self.blocks[index].count];
        own.iter().map(Vec::len).sum()
    }

    /// Bytes before the constants of the first tile.
    fn head(&self) -> usize {
        let count: usize = self.intervals.iter().map(Vec::len).sum();
        self.units.table() + (2 * count).next_multiple_of(4)
    }

    /// Bytes of the places of a tile's channels.
    fn places(&self, block: &Block) -> usize {
        self.order.as_ref().map_or(0, |_| 2 * block.tile.channels)
    }

    /// Offsets of elements, lengths of intervals in bytes of activations, and for each tile what its sums start from, the
    /// constants of its channels and where their results go.
    fn constants(&self, layer: &Layer, target: &Target) -> Result<(Parameter, Requantize)> {
        let units = &self.units;
        let (mut channels, zero_point, range) = layer.channels_and_range()?;
        let requantize = Requantize::new(target, Accumulator::Word, &channels, zero_point, range);
        if let Some(order) = &self.order {
            channels = order.iter().map(|channel| channels[*channel]).collect();
        }
        let mut bytes = Vec::new();
        if units.offset > 0 {
            for k in &units.groups.order {
                bytes.extend(&(k.unwrap_or(0) as u32).to_le_bytes()[..units.offset]);
            }
            bytes.resize(units.table(), 0);
        }
        for interval in self.intervals.iter().flatten() {
            bytes.extend(((interval * units.bytes()) as u16).to_le_bytes());
        }
        bytes.resize(self.head(), 0);
        let (mut first, mut tiles) = (0, self.intervals.iter());
        for block in &self.blocks {
            for _ in 0..block.count {
                let own = first..first + block.filters;
                first = own.end;
                let exist = &channels[own.clone()];
                let less = (tiles.next().map_or(0, Vec::len) as i32).wrapping_shl(15);
                let (mut entries, mut entry): (Vec<u8>, Vec<u8>) = Default::default();
                let starts: Vec<i32> = (0..block.tile.channels)
                    .map(|index| {
                        let channel = exist.get(index).copied().unwrap_or(Channel::NONE);
                        entry.clear();
                        requantize.entry(&[channel], 1, &mut entry);
                        let start = &entry[requantize.start_at()..][..4];
                        let start = i32::from_le_bytes([start[0], start[1], start[2], start[3]]);
                        entries.extend(&entry[skipped(&requantize)..]);
                        start
                    })
                    .collect();
                for four in starts.chunks(CHANNELS) {
                    for [low, high] in [[four[0], four[2]], [four[1], four[3]]] {
                        let both = low.wrapping_add(high.wrapping_shl(16)).wrapping_sub(less);
                        bytes.extend([high, both].iter().flat_map(|word| word.to_le_bytes()));
                    }
                }
                bytes.extend(entries);
                if let Some(order) = &self.order {
                    let end = bytes.len() + self.places(block);
                    bytes.extend(order[own].iter().flat_map(|channel| (*channel as u16).to_le_bytes()));
                    bytes.resize(end, 0);
                }
            }
        }
        let layout = self.layout(&requantize);
        let contents = Contents::Bytes(Bytes::from_vec(bytes)).described(layout);
        Ok((layer.constants_parameter(contents), requantize))
    }

    fn layout(&self, requantize: &Requantize) -> Layout {
        let units = &self.units;
        let half = |axis: &'static str, count: usize| Layout::array(&[(axis, count)], Layout::Scalar(Scalar::U16));
        let mut members = Vec::new();
        if units.offset > 0 {
            let scalar = if units.offset == 2 { Scalar::U16 } else { Scalar::U32 };
            let axes = [("offset of an element", units.table() / units.offset)];
            members.push(("offsets".to_owned(), Layout::array(&axes, Layout::Scalar(scalar))));
        }
        let mut entry = requantize.layout(1);
        if let (Layout::Struct(members), 4) = (&mut entry, skipped(requantize)) {
            members.remove(0);
        }
        let lengths = (self.head() - units.table()) / 2;
        members.push(("intervals".to_owned(), half("bytes of an interval", lengths)));
        for (i, block) in self.blocks.iter().enumerate() {
            let channels = block.tile.channels;
            let sum = ["upper", "both"].map(|name| (name.to_owned(), Layout::Scalar(Scalar::I32)));
            let axes = [("word", channels / CHANNELS), ("lanes", 2)];
            let mut tile = vec![
                ("starts".to_owned(), Layout::array(&axes, Layout::Struct(sum.into()))),
                (
                    "entries".to_owned(),
                    Layout::array(&[("channel", channels)], entry.clone()),
                ),
            ];
            if self.order.is_some() {
                tile.push(("places".to_owned(), half("place of a channel", channels)));
            }
            let tiles = Layout::array(&[("tile", block.count)], Layout::Struct(tile));
            members.push((format!("blocks_{i}"), tiles));
        }
        Layout::Struct(members)
    }
}

/// Bytes of an entry that tiles have no use for: sums start from words of their own.
fn skipped(requantize: &Requantize) -> usize {
    if requantize.start_at() == 0 { 4 } else { 0 }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Each tile goes as far as all of its channels allow.
    #[test]
    fn intervals_end_where_a_channel_is_full() {
        let light = vec![100; 6];
        let heavy = vec![130, 120, 10, 255, 1, 1];
        let magnitudes: Vec<Vec<u16>> = (0..16)
            .map(|i| if i == 5 { heavy.clone() } else { light.clone() })
            .collect();
        let own = blocks(2, 16);
        assert_eq!(intervals(&magnitudes, &own, None), [vec![2, 1, 1, 2], vec![2, 2, 2]]);
        let order: Vec<usize> = (0..16).rev().collect();
        assert_eq!(
            intervals(&magnitudes, &own, Some(&order)),
            [vec![2, 2, 2], vec![2, 1, 1, 2]]
        );
    }

    #[test]
    fn blocks_cover_all_channels() {
        for filters in 4..70 {
            for words in WORDS {
                let blocks = blocks(words, filters);
                assert!(blocks.len() <= 2);
                assert_eq!(
                    blocks.iter().map(|block| block.count * block.filters).sum::<usize>(),
                    filters
                );
                assert!(
                    blocks
                        .iter()
                        .all(|block| block.tile.channels < block.filters + CHANNELS)
                );
            }
        }
    }
}
