//! Weights in the order in which a kernel reads them, streamed.

use super::super::schedule::{Block, Inner};
use super::halves::Halves;
use super::tiles::{Lanes, Ordered, Quads, Tiles, Words, in_blocks};
use super::transpose::transpose;
use crate::data::{Bytes, Contents, Layout, Sample, Scalar, Transform};
use std::cell::Cell;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

/// The order of a filter's elements in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// An output channel's elements are contiguous: `[channel][sum]`.
    ChannelFirst,
    /// `[sum][channel]`: depthwise filters.
    ChannelLast,
}

/// A constant filter.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    bytes: Bytes,
    element: usize,
    channels: usize,
    /// Elements of one channel's sum.
    sum: usize,
    order: Order,
    /// Which channel comes where, if not in the order of the model.
    reordered: Option<Arc<[usize]>>,
}

impl Weights {
    pub fn new(bytes: Bytes, element: usize, channels: usize, sum: usize, order: Order) -> Self {
        Weights {
            bytes,
            element,
            channels,
            sum,
            order,
            reordered: None,
        }
    }

    /// The beginning of the model's bytes.
    pub fn sample(&self) -> io::Result<Sample> {
        self.bytes.sample()
    }

    /// Elements of one channel's sum.
    pub fn sum(&self) -> usize {
        self.sum
    }

    /// One channel's elements in the order of its sum.
    pub fn channel(&self, channel: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let size = self.element;
        let channel = self.reordered.as_ref().map_or(channel, |order| order[channel]);
        out.clear();
        match self.order {
            Order::ChannelFirst => {
                out.resize(self.sum * size, 0);
                self.bytes.read_at((channel * self.sum * size) as u64, out)
            }
            Order::ChannelLast => {
                // Depthwise filters are small.
                let all = self.bytes.as_slice();
                for k in 0..self.sum {
                    let at = (k * self.channels + channel) * size;
                    out.extend_from_slice(&all[at..at + size]);
                }
                Ok(())
            }
        }
    }

    /// Several channels' elements, one channel after another.
    fn rows(&self, first: usize, count: usize, out: &mut Vec<u8>) -> io::Result<()> {
        self.columns(first, count, 0..self.sum * self.element, out)
    }

    /// The bytes `range` of several channels' elements, one channel after another.
    fn columns(&self, first: usize, count: usize, range: Range<usize>, out: &mut Vec<u8>) -> io::Result<()> {
        let row = self.sum * self.element;
        out.resize(count * range.len(), 0);
        if range.is_empty() {
            return Ok(());
        }
        match self.order {
            Order::ChannelFirst if range.len() == row => self.bytes.read_at((first * row) as u64, out),
            Order::ChannelFirst => {
                for (channel, out) in out.chunks_exact_mut(range.len()).enumerate() {
                    self.bytes
                        .read_at(((first + channel) * row + range.start) as u64, out)?;
                }
                Ok(())
            }
            Order::ChannelLast => {
                let mut all = Vec::new();
                for (channel, out) in out.chunks_exact_mut(range.len()).enumerate() {
                    self.channel(first + channel, &mut all)?;
                    out.copy_from_slice(&all[range.clone()]);
                }
                Ok(())
            }
        }
    }

    /// `[group][block][segment][step][channel][element of the step]`, steps and blocks filled up with zeros. The sum is
    /// cut into `segments` equal runs, each rounded up to whole steps.
    pub fn packed(&self, groups: usize, blocks: &[Block], inner: Inner, segments: usize) -> Contents {
        Contents::Transform(Arc::new(Packed {
            weights: self.clone(),
            groups,
            blocks: blocks.to_vec(),
            group: inner.group(),
            segments,
        }))
    }

    /// Words of [`Lanes16`](super::lanes16::Lanes16): `[group][block][two elements][two channels]`, all bytes but the top
    /// ones with 128 added; the number of elements in `order` is even.
    pub fn lanes16(&self, groups: usize, blocks: &[Block], order: &[Option<usize>], lanes: usize) -> Contents {
        self.tiles(
            groups,
            blocks,
            Lanes {
                order: order.to_vec(),
                lanes,
            },
        )
    }

    /// Words of [`quads`](super::quads): `[block][element][four channels]`, all but every fourth with 128 added.
    /// The channels are in an order of their own if there is one.
    pub fn quads(&self, blocks: &[Block], order: &[Option<usize>], channels: Option<&[usize]>) -> Contents {
        let weights = Weights {
            reordered: channels.map(Arc::from),
            ..self.clone()
        };
        let order = order.to_vec();
        weights.tiles(1, blocks, Quads { order })
    }

    /// Bytes of [`Packed`](super::packed::Packed): `[group][block][element][channel]`, the elements in any order and
    /// with zeros where there is none.
    pub fn ordered(&self, groups: usize, blocks: &[Block], order: &[Option<usize>]) -> Contents {
        self.tiles(groups, blocks, Ordered { order: order.to_vec() })
    }

    /// Words of [`Halves`]: `[group][block][pair or two][channel or two]`.
    pub fn halves(&self, groups: usize, blocks: &[Block], halves: &Halves) -> Contents {
        self.tiles(groups, blocks, halves.clone())
    }

    fn tiles(&self, groups: usize, blocks: &[Block], words: impl Words + 'static) -> Contents {
        Contents::Transform(Arc::new(Tiles {
            weights: self.clone(),
            groups,
            blocks: blocks.to_vec(),
            words,
        }))
    }
}

/// Weights and the blocks that read them.
#[derive(Debug)]
struct Packed {
    weights: Weights,
    groups: usize,
    blocks: Vec<Block>,
    /// Elements of a step.
    group: usize,
    segments: usize,
}

impl Packed {
    fn segment(&self) -> usize {
        self.weights.sum / self.segments
    }

    fn steps(&self) -> usize {
        self.segment().div_ceil(self.group)
    }

    /// One tile's weights, or several equal tiles' that are short: as much as caches hold. `from` is a buffer.
    fn tiles(
        &self,
        channel: usize,
        block: &Block,
        tiles: usize,
        from: &mut Vec<u8>,
        to: &mut Pieces,
    ) -> io::Result<()> {
        let (size, wide) = (self.weights.element, block.tile.channels);
        let (segment, step) = (self.segment() * size, self.group * size);
        let row = self.weights.sum * size;
        // Rows are read whole where a tile's fit the cache; otherwise columns of them, in fewer and larger pieces.
        let whole = tiles > 1 || row * wide <= WHOLE;
        let piece = if whole { PIECE } else { WHOLE };
        let at_once = (piece / (step * wide)).clamp(1, self.steps());
        if whole {
            self.weights.rows(channel, tiles * block.filters, from)?;
        }
        for tile in 0..tiles {
            for run in 0..self.segments {
                for first in (0..self.steps()).step_by(at_once) {
                    let steps = at_once.min(self.steps() - first);
                    let start = run * segment + first * step;
                    let end = (start + steps * step).min((run + 1) * segment);
                    let rows: Vec<&[u8]> = if whole {
                        let rows = from.chunks_exact(row).skip(tile * block.filters);
                        rows.take(block.filters).map(|row| &row[start..end]).collect()
                    } else {
                        self.weights.columns(channel, block.filters, start..end, from)?;
                        from.chunks_exact(end - start).collect()
                    };
                    let filled = rows.len() == wide && end - start == steps * step;
                    transpose(to.next(steps * wide * step, filled)?, &rows, wide, step);
                }
            }
        }
        Ok(())
    }
}

thread_local! {
    /// What weights were read into and packed into, for the next ones: of a thousand small layers, each would have its
    /// own filled with zeros first.
    static BUFFERS: Cell<[Vec<u8>; 2]> = Cell::default();
}

/// Packed weights on their way out, several tiles at once.
struct Pieces<'o> {
    bytes: Vec<u8>,
    /// How many of them are to be written.
    len: usize,
    out: &'o mut dyn Write,
}

impl Pieces<'_> {
    /// The next `len` bytes; zeros, if not all will be `filled`.
    fn next(&mut self, len: usize, filled: bool) -> io::Result<&mut [u8]> {
        if self.len + len > 2 * PIECE {
            self.flush()?;
        }
        let start = self.len;
        self.len += len;
        if self.bytes.len() < self.len {
            self.bytes.resize(self.len, 0);
        }
        let piece = &mut self.bytes[start..self.len];
        if !filled {
            piece.fill(0);
        }
        Ok(piece)
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = &self.bytes[..std::mem::take(&mut self.len)];
        self.out.write_all(bytes)
    }
}

/// Bytes of weights that are packed at once: source and result fit a processor's second cache.
const PIECE: usize = 128 << 10;
/// Bytes of a tile's weights that are read at once.
const WHOLE: usize = 512 << 10;

impl Transform for Packed {
    fn len(&self) -> u64 {
        let channels: usize = self.blocks.iter().map(|block| block.count * block.tile.channels).sum();
        (self.groups * channels * self.segments * self.steps() * self.group * self.weights.element) as u64
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut channel = 0;
        let [mut from, bytes] = BUFFERS.take();
        let mut to = Pieces { bytes, len: 0, out };
        for block in (0..self.groups).flat_map(|_| &self.blocks) {
            let bytes = self.weights.sum * self.weights.element * block.tile.channels;
            let at_once = (PIECE / bytes.max(1)).max(1);
            let mut left = block.count;
            while left > 0 {
                let tiles = left.min(at_once);
                self.tiles(channel, block, tiles, &mut from, &mut to)?;
                channel += tiles * block.filters;
                left -= tiles;
            }
        }
        to.flush()?;
        BUFFERS.set([from, to.bytes]);
        Ok(())
    }

    fn layout(&self) -> Option<Layout> {
        let element = if self.weights.element == 1 {
            Scalar::I8
        } else {
            Scalar::F32
        };
        in_blocks(self.groups, &self.blocks, |channels| {
            let axes = [
                ("segment", self.segments),
                ("step", self.steps()),
                ("channel", channels),
                ("element", self.group),
            ];
            let axes: Vec<_> = axes
                .into_iter()
                .filter(|(axis, len)| *axis == "step" || *len > 1)
                .collect();
            Some(Layout::array(&axes, Layout::Scalar(element)))
        })
    }

    fn sample(&self) -> io::Result<Sample> {
        self.weights.sample()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::schedule::Tile;
    use crate::target::Effort;

    fn packed(
        weights: &Weights,
        groups: usize,
        blocks: &[(usize, usize, usize)],
        inner: Inner,
        segments: usize,
    ) -> Vec<i8> {
        let blocks: Vec<Block> = blocks
            .iter()
            .map(|(count, filters, channels)| Block {
                count: *count,
                filters: *filters,
                tile: Tile {
                    pixels: 1,
                    channels: *channels,
                    k_unroll: 1,
                },
            })
            .collect();
        let contents = weights.packed(groups, &blocks, inner, segments);
        let mut bytes = Vec::new();
        contents.write_to(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, contents.len());
        bytes.into_iter().map(|byte| byte as i8).collect()
    }

    fn weights(values: &[i8], channels: usize, order: Order) -> Weights {
        let bytes = values.iter().map(|v| *v as u8).collect();
        Weights::new(Bytes::from_vec(bytes), 1, channels, values.len() / channels, order)
    }

    /// Index along each axis.
    type Place = [(&'static str, usize)];

    /// The innermost numbers of a layout and where each is.
    fn numbers(layout: &Layout, bytes: &[u8]) -> Vec<(Vec<(&'static str, usize)>, i64)> {
        match layout {
            Layout::Scalar(Scalar::I8) => vec![(Vec::new(), i64::from(bytes[0] as i8))],
            Layout::Scalar(Scalar::U8) => vec![(Vec::new(), i64::from(bytes[0]))],
            Layout::Scalar(Scalar::I16) => vec![(Vec::new(), i64::from(i16::from_le_bytes([bytes[0], bytes[1]])))],
            Layout::Scalar(other) => panic!("{other:?}"),
            Layout::Array { axis, of, .. } => {
                let elements = bytes.chunks(of.bytes() as usize).enumerate();
                let indexed = elements.flat_map(|(i, bytes)| {
                    let inner = numbers(of, bytes).into_iter();
                    inner.map(move |(mut at, number)| {
                        at.insert(0, (*axis, i));
                        (at, number)
                    })
                });
                indexed.collect()
            }
            Layout::Struct(members) => {
                let mut rest = bytes;
                let all = members.iter().flat_map(|(_, layout)| {
                    let (own, behind) = rest.split_at(layout.bytes() as usize);
                    rest = behind;
                    numbers(layout, own)
                });
                all.collect()
            }
        }
    }

    /// Every packing says of each byte which channel's and which element's weight it is.
    #[test]
    fn layouts_are_true() {
        let (channels, sum) = (6, 8);
        let values: Vec<i8> = (0..channels * sum).map(|i| (i * 5 % 90) as i8 - 40).collect();
        let weights = weights(&values, channels, Order::ChannelFirst);
        let value = |channel: usize, k: usize| i64::from(values[channel * sum + k]);
        let blocks = [Block {
            count: 3,
            filters: 2,
            tile: Tile {
                pixels: 1,
                channels: 2,
                k_unroll: 1,
            },
        }];
        let check = |contents: Contents, expected: &dyn Fn(&Place) -> i64| {
            let mut bytes = Vec::new();
            contents.write_to(&mut bytes).unwrap();
            let layout = contents.layout().expect("a layout of the right size");
            for (at, number) in numbers(&layout, &bytes) {
                assert_eq!(number, expected(&at), "{at:?}");
            }
        };
        let index = |at: &Place, axis: &str| at.iter().find(|(name, _)| *name == axis).map_or(0, |(_, i)| *i);
        check(weights.packed(1, &blocks, Inner::Pairs16, 1), &|at| {
            let channel = 2 * index(at, "block") + index(at, "channel");
            value(channel, 2 * index(at, "step") + index(at, "element"))
        });
        check(weights.packed(1, &blocks, Inner::Pairs16, 2), &|at| {
            let channel = 2 * index(at, "block") + index(at, "channel");
            value(
                channel,
                4 * index(at, "segment") + 2 * index(at, "step") + index(at, "element"),
            )
        });
        let order: Vec<Option<usize>> = [3, 1, 7].into_iter().map(Some).chain([None]).collect();
        check(weights.ordered(1, &blocks, &order), &|at| {
            let k = order[index(at, "element in the order of the sum")];
            k.map_or(0, |k| value(2 * index(at, "block") + index(at, "channel"), k))
        });
        check(
            weights.halves(1, &blocks, &Halves::new(1, sum, false, Effort::Balanced)),
            &|at| {
                let channel = 2 * index(at, "block") + index(at, "channel");
                value(channel, 4 * index(at, "four elements") + index(at, "element"))
            },
        );
        let halves = Halves::new(1, sum, true, Effort::Balanced);
        check(weights.halves(1, &blocks, &halves), &|at| {
            let k = halves.pairs[index(at, "pair of elements")][index(at, "element: 256*a + b")].unwrap();
            let channel = 2 * index(at, "block") + 2 * index(at, "pair of channels a, b");
            256 * value(channel, k) + value(channel + 1, k)
        });
    }

    /// Two channels' first and second elements; channels and elements that are not there are zero.
    #[test]
    fn lanes_have_signed_tops() {
        let weights = weights(&[1, 2, 3, -4, -5, -6, 7, 8, 9], 3, Order::ChannelFirst);
        let block = |count: usize, filters: usize| Block {
            count,
            filters,
            tile: Tile {
                pixels: 1,
                channels: 2,
                k_unroll: 1,
            },
        };
        let contents = weights.lanes16(1, &[block(1, 2), block(1, 1)], &[Some(2), Some(0), Some(1), None], 2);
        assert_eq!(contents.layout().map(|layout| layout.bytes()), Some(16));
        let mut bytes = Vec::new();
        contents.write_to(&mut bytes).unwrap();
        let found: Vec<i32> = (bytes.iter().enumerate())
            .map(|(i, byte)| {
                if i % 4 == 3 {
                    i32::from(*byte as i8)
                } else {
                    i32::from(*byte) - 128
                }
            })
            .collect();
        assert_eq!(found, [3, 1, -6, -4, 2, 0, -5, 0, 9, 7, 0, 0, 8, 0, 0, 0]);
    }

    /// Four channels in a word, in an order of their own; what is not there is zero.
    #[test]
    fn quads_are_of_channels_in_any_order() {
        let weights = weights(&[1, 2, 3, -4, -5, -6, 7, 8, 9, 10], 5, Order::ChannelFirst);
        let blocks = [4, 1].map(|filters| Block {
            count: 1,
            filters,
            tile: Tile {
                pixels: 1,
                channels: 4,
                k_unroll: 1,
            },
        });
        let contents = weights.quads(&blocks, &[Some(1), None, Some(0)], Some(&[4, 1, 0, 3, 2]));
        assert_eq!(contents.layout().map(|layout| layout.bytes()), Some(24));
        let mut bytes = Vec::new();
        contents.write_to(&mut bytes).unwrap();
        let found: Vec<i32> = (bytes.iter().enumerate())
            .map(|(i, byte)| match i % 4 {
                3 => i32::from(*byte as i8),
                _ => i32::from(*byte) - 128,
            })
            .collect();
        let first = [10, -4, 2, 8, 0, 0, 0, 0, 9, 3, 1, 7];
        let second = [-6, 0, 0, 0, 0, 0, 0, 0, -5, 0, 0, 0];
        assert_eq!(found, [first, second].concat());
    }

    #[test]
    fn pairs_are_padded_to_steps_and_blocks() {
        let weights = weights(&[1, 2, 3, -1, -2, -3], 2, Order::ChannelFirst);
        let found = packed(&weights, 1, &[(1, 2, 4)], Inner::Pairs16, 1);
        assert_eq!(found, [1, 2, -1, -2, 0, 0, 0, 0, 3, 0, -3, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn every_run_starts_a_step() {
        let weights = weights(&[1, 2, 3, 4, 5, 6], 1, Order::ChannelFirst);
        let found = packed(&weights, 1, &[(1, 1, 1)], Inner::Pairs16, 2);
        assert_eq!(found, [1, 2, 3, 0, 4, 5, 6, 0]);
    }

    #[test]
    fn groups_follow_each_other() {
        let weights = weights(&[1, 2, 3, 4, 5, 6], 6, Order::ChannelFirst);
        let found = packed(&weights, 2, &[(1, 2, 2), (1, 1, 2)], Inner::Scalar, 1);
        assert_eq!(found, [1, 2, 3, 0, 4, 5, 6, 0]);
    }

    #[test]
    fn depthwise_filters_are_transposed() {
        let weights = weights(&[1, 10, 2, 20, 3, 30, 4, 40, 5, 50], 2, Order::ChannelLast);
        let found = packed(&weights, 1, &[(1, 2, 2)], Inner::Dot4(crate::target::Dot::Signed), 1);
        assert_eq!(found, [1, 2, 3, 4, 10, 20, 30, 40, 5, 0, 0, 0, 50, 0, 0, 0]);
    }
}
