//! Weights tile by tile, in words of a kernel's own.

use super::super::schedule::Block;
use super::halves::Halves;
use super::pack::Weights;
use crate::data::{Layout, Sample, Scalar, Transform};
use std::fmt::Debug;
use std::io::{self, Write};

/// How the weights of the channels of a tile are put together.
pub(super) trait Words: Debug + Send + Sync {
    /// Bytes of one channel's weights.
    fn bytes(&self) -> usize;

    /// Appends the words of a tile; `elements` has those of each channel's sum, and none where there is no channel.
    fn pack(&self, elements: &[Vec<u8>], out: &mut Vec<u8>);

    /// What the bytes of a tile of so many channels mean, if that can be told.
    fn layout(&self, channels: usize) -> Option<Layout>;
}

/// Weights in the order of groups, blocks and tiles.
#[derive(Debug)]
pub(super) struct Tiles<W> {
    pub weights: Weights,
    pub groups: usize,
    pub blocks: Vec<Block>,
    pub words: W,
}

impl<W: Words> Transform for Tiles<W> {
    fn sample(&self) -> io::Result<Sample> {
        self.weights.sample()
    }

    fn len(&self) -> u64 {
        let channels: usize = self.blocks.iter().map(|block| block.count * block.tile.channels).sum();
        (self.groups * channels * self.words.bytes()) as u64
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut channel = 0;
        let mut packed = Vec::new();
        for block in (0..self.groups).flat_map(|_| &self.blocks) {
            let mut elements = vec![Vec::new(); block.tile.channels];
            for _ in 0..block.count {
                for (lane, elements) in elements.iter_mut().enumerate().take(block.filters) {
                    self.weights.channel(channel + lane, elements)?;
                }
                packed.clear();
                self.words.pack(&elements, &mut packed);
                out.write_all(&packed)?;
                channel += block.filters;
            }
        }
        Ok(())
    }

    fn layout(&self) -> Option<Layout> {
        in_blocks(self.groups, &self.blocks, |channels| self.words.layout(channels))
    }
}

/// What weights mean that follow each other group by group and block by block; `of` describes one block of so many
/// channels.
pub(super) fn in_blocks(groups: usize, blocks: &[Block], of: impl Fn(usize) -> Option<Layout>) -> Option<Layout> {
    let of = |block: &Block| Some(Layout::array(&[("block", block.count)], of(block.tile.channels)?));
    let group = match blocks {
        [block] => of(block)?,
        several => {
            let members = several.iter().enumerate();
            let members = members.map(|(i, block)| Some((format!("blocks_{i}"), of(block)?)));
            Layout::Struct(members.collect::<Option<_>>()?)
        }
    };
    if groups == 1 {
        return Some(group);
    }
    Some(Layout::array(&[("group", groups)], group))
}

/// The byte of an element, zero where there is none.
fn byte(elements: &[u8], k: Option<usize>) -> u8 {
    k.and_then(|k| elements.get(k)).copied().unwrap_or(0)
}

/// The words of [`Lanes16`](super::lanes16::Lanes16).
#[derive(Debug)]
pub(super) struct Lanes {
    pub order: Vec<Option<usize>>,
    /// Channels of a word.
    pub lanes: usize,
}

impl Words for Lanes {
    fn bytes(&self) -> usize {
        self.order.len()
    }

    fn pack(&self, elements: &[Vec<u8>], out: &mut Vec<u8>) {
        for two in self.order.chunks(2) {
            for lanes in elements.chunks(self.lanes) {
                for (channel, elements) in lanes.iter().enumerate() {
                    for (element, k) in two.iter().enumerate() {
                        let weight = byte(elements, *k);
                        let top = channel + element == self.lanes;
                        out.push(if top { weight } else { weight ^ 0x80 });
                    }
                }
            }
        }
    }

    fn layout(&self, channels: usize) -> Option<Layout> {
        if !channels.is_multiple_of(self.lanes) {
            return None;
        }
        let axes = [
            ("pair of elements", self.order.len() / 2),
            ("word", channels / self.lanes),
        ];
        let names = (0..self.lanes).flat_map(|lane| ["first", "second"].map(|name| (lane, name)));
        let word = names.map(|(lane, name)| {
            if lane + 1 == self.lanes && name == "second" {
                (format!("channel_{lane}_{name}"), Layout::Scalar(Scalar::I8))
            } else {
                (format!("channel_{lane}_{name}_plus_128"), Layout::Scalar(Scalar::U8))
            }
        });
        Some(Layout::array(&axes, Layout::Struct(word.collect())))
    }
}

/// The words of [`quads`](super::quads).
#[derive(Debug)]
pub(super) struct Quads {
    pub order: Vec<Option<usize>>,
}

impl Words for Quads {
    fn bytes(&self) -> usize {
        self.order.len()
    }

    fn pack(&self, elements: &[Vec<u8>], out: &mut Vec<u8>) {
        for k in &self.order {
            for (channel, elements) in elements.iter().enumerate() {
                let weight = byte(elements, *k);
                out.push(if channel % 4 == 3 { weight } else { weight ^ 0x80 });
            }
        }
    }

    fn layout(&self, channels: usize) -> Option<Layout> {
        if !channels.is_multiple_of(4) {
            return None;
        }
        let axes = [
            ("element in the order of the sum", self.order.len()),
            ("word", channels / 4),
        ];
        let word = (0..4).map(|lane| match lane {
            3 => (format!("lane_{lane}"), Layout::Scalar(Scalar::I8)),
            _ => (format!("lane_{lane}_plus_128"), Layout::Scalar(Scalar::U8)),
        });
        Some(Layout::array(&axes, Layout::Struct(word.collect())))
    }
}

/// Bytes with the elements in an order of the kernel's own.
#[derive(Debug)]
pub(super) struct Ordered {
    pub order: Vec<Option<usize>>,
}

impl Words for Ordered {
    fn bytes(&self) -> usize {
        self.order.len()
    }

    fn pack(&self, elements: &[Vec<u8>], out: &mut Vec<u8>) {
        for k in &self.order {
            out.extend(elements.iter().map(|elements| byte(elements, *k)));
        }
    }

    fn layout(&self, channels: usize) -> Option<Layout> {
        let axes = [
            ("element in the order of the sum", self.order.len()),
            ("channel", channels),
        ];
        Some(Layout::array(&axes, Layout::Scalar(Scalar::I8)))
    }
}

impl Words for Halves {
    fn bytes(&self) -> usize {
        self.weights()
    }

    fn pack(&self, elements: &[Vec<u8>], out: &mut Vec<u8>) {
        if self.paired {
            for pair in &self.pairs {
                for lane in (0..elements.len()).step_by(2) {
                    for k in pair {
                        let weight = |lane: usize| i32::from(byte(&elements[lane], *k) as i8);
                        let both = 256 * weight(lane) + weight(lane + 1);
                        out.extend((both as i16).to_le_bytes());
                    }
                }
            }
            return;
        }
        for two in self.pairs.chunks(2) {
            for elements in elements {
                let order = [two[0][0], two[1][0], two[0][1], two[1][1]];
                out.extend(order.map(|k| byte(elements, k)));
            }
        }
    }

    fn layout(&self, channels: usize) -> Option<Layout> {
        if !self.paired {
            let axes = [
                ("four elements", self.pairs.len() / 2),
                ("channel", channels),
                ("element", 4),
            ];
            return Some(Layout::array(&axes, Layout::Scalar(Scalar::I8)));
        }
        if !channels.is_multiple_of(2) {
            return None;
        }
        let axes = [
            ("pair of elements", self.pairs.len()),
            ("pair of channels a, b", channels / 2),
            ("element: 256*a + b", 2),
        ];
        Some(Layout::array(&axes, Layout::Scalar(Scalar::I16)))
    }
}
