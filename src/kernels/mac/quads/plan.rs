//! How a layer is computed in quads: units, intervals, tiles, and what they cost; its constants.

use super::super::super::Parameter;
use super::super::super::requantize::{Accumulator, Channel, Requantize};
use super::super::super::schedule::{Block, Tile};
use super::super::groups::{Groups, MAGNITUDE};
use super::super::layer::Layer;
use super::CHANNELS;
use crate::data::{Bytes, Contents, Layout, Scalar};
use crate::error::Result;
use crate::target::{Effort, Target};

/// Registers of RV32.
const REGISTERS: usize = 27;
/// Lengths of units.
const LENGTHS: [usize; 5] = [16, 12, 8, 6, 4];
/// Words of a tile.
const WORDS: [usize; 3] = [4, 3, 2];

/// How a layer is computed.
pub(super) struct Plan {
    pub units: Units,
    pub blocks: Vec<Block>,
    /// The channels in the order of tiles, if that is not their own.
    pub order: Option<Vec<usize>>,
    /// For each tile, how many units are in each of its intervals.
    pub intervals: Vec<Vec<usize>>,
}

/// The elements of a sum in units.
#[derive(Clone, Debug)]
pub(super) struct Units {
    pub groups: Groups,
    /// Elements of a unit.
    pub length: usize,
    pub count: usize,
    /// Bytes of an offset in the table at the head of the constants; 0 if elements stay in order.
    pub offset: usize,
}

impl Units {
    /// Bytes of a unit of activations: what is added before it, and its elements.
    pub fn bytes(&self) -> usize {
        4 + self.length.next_multiple_of(4)
    }

    /// Bytes of all activations.
    pub fn all(&self) -> usize {
        self.count * self.bytes() + 4
    }

    /// Bytes of the table of offsets.
    pub fn table(&self) -> usize {
        (self.offset * self.groups.order.len()).next_multiple_of(4)
    }
}

/// The plan of the fewest instructions, and how many they are.
pub(super) fn plan(layer: &Layer, target: &Target) -> Result<Option<(u64, Plan)>> {
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
    pub fn intervals_of(&self, index: usize) -> usize {
        let first = self.blocks[..index].iter().map(|block| block.count).sum::<usize>();
        let own = &self.intervals[first..first + self.blocks[index].count];
        own.iter().map(Vec::len).sum()
    }

    /// Bytes before the constants of the first tile.
    pub fn head(&self) -> usize {
        let count: usize = self.intervals.iter().map(Vec::len).sum();
        self.units.table() + (2 * count).next_multiple_of(4)
    }

    /// Bytes of the places of a tile's channels.
    pub fn places(&self, block: &Block) -> usize {
        self.order.as_ref().map_or(0, |_| 2 * block.tile.channels)
    }

    /// Offsets of elements, lengths of intervals in bytes of activations, and for each tile what its sums start from, the
    /// constants of its channels and where their results go.
    pub fn constants(&self, layer: &Layer, target: &Target) -> Result<(Parameter, Requantize)> {
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
pub(super) fn skipped(requantize: &Requantize) -> usize {
    if requantize.start_at() == 0 { 4 } else { 0 }
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
