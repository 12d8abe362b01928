//! Weights in the order in which a kernel reads them, streamed.

use super::super::schedule::{Block, Inner};
use crate::data::{Bytes, Contents, Transform};
use std::io::{self, Write};
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
}

impl Weights {
    pub fn new(bytes: Bytes, element: usize, channels: usize, sum: usize, order: Order) -> Self {
        Weights {
            bytes,
            element,
            channels,
            sum,
            order,
        }
    }

    /// One channel's elements in the order of its sum.
    pub fn channel(&self, channel: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let size = self.element;
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
}

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
}

impl Transform for Packed {
    fn len(&self) -> u64 {
        let channels: usize = self.blocks.iter().map(|block| block.count * block.tile.channels).sum();
        (self.groups * channels * self.segments * self.steps() * self.group * self.weights.element) as u64
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let size = self.weights.element;
        let (segment, steps) = (self.segment(), self.steps());
        let mut channel = 0;
        let mut elements = Vec::new();
        let mut packed = Vec::new();
        for block in (0..self.groups).flat_map(|_| &self.blocks) {
            let wide = block.tile.channels;
            for _ in 0..block.count {
                packed.clear();
                packed.resize(self.segments * steps * wide * self.group * size, 0);
                for lane in 0..block.filters {
                    self.weights.channel(channel + lane, &mut elements)?;
                    for (k, element) in elements.chunks_exact(size).enumerate() {
                        let (run, k) = (k / segment, k % segment);
                        let step = run * steps + k / self.group;
                        let at = ((step * wide + lane) * self.group + k % self.group) * size;
                        packed[at..at + size].copy_from_slice(element);
                    }
                }
                out.write_all(&packed)?;
                channel += block.filters;
            }
        }
        Ok(())
    }
}
