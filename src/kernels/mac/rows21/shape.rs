//! What a window and weights ask of words of three rows: which rows and columns are read, how sums are cut, and what tiles
//! cost.

use super::super::conv::round_places;
use super::super::layer::Layer;
use super::{LANES, REACH, START};
use crate::error::Result;

/// Parts of a sum.
const PARTS: usize = 64;
/// Taps of a round of the innermost loop.
const TAPS: [usize; 2] = [4, 9];

/// What follows from a layer's window and weights.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Rows and columns of a window.
    pub size: [usize; 2],
    /// Input channels of a part of the sum, and parts.
    pub depth: usize,
    pub parts: usize,
    /// Rows and columns of the input between those that are read, from one output to the next and from one tap to the
    /// next, counted in such steps.
    pub unit: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// The taps of a row in the order in which the fewest words are live.
    pub taps: Vec<usize>,
}

impl Shape {
    pub fn new(layer: &Layer, depth: usize) -> Self {
        let window = &layer.window;
        let unit = [0, 1].map(|axis| match window.size[axis] {
            1 => window.stride[axis],
            _ => gcd(window.stride[axis], window.dilation[axis]),
        });
        let parts = layer.depth.div_ceil(depth);
        Shape::of(window.size, unit, window.stride, window.dilation, [depth, parts])
    }

    fn of(
        size: [usize; 2],
        unit: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        [depth, parts]: [usize; 2],
    ) -> Self {
        let stride = [0, 1].map(|axis| stride[axis] / unit[axis]);
        let dilation = [0, 1].map(|axis| (dilation[axis] / unit[axis]).max(1));
        let mut taps: Vec<usize> = (0..size[1]).collect();
        taps.sort_by_key(|tap| (tap * dilation[1] % stride[1], *tap));
        Shape {
            size,
            depth,
            parts,
            unit,
            stride,
            dilation,
            taps,
        }
    }

    /// Rows that the windows of three rows of outputs see.
    pub fn rows(&self) -> usize {
        (LANES - 1) * self.stride[0] + (self.size[0] - 1) * self.dilation[0] + 1
    }

    /// Columns that the windows of `outputs` see.
    pub fn columns(&self, outputs: usize) -> usize {
        (outputs - 1) * self.stride[1] + (self.size[1] - 1) * self.dilation[1] + 1
    }

    /// The column of a tap of an output.
    pub fn column(&self, output: usize, tap: usize) -> usize {
        output * self.stride[1] + tap * self.dilation[1]
    }

    /// Rows of weights of a part.
    pub fn steps(&self) -> usize {
        self.depth * self.size[0]
    }

    /// Rows of weights in a round of the innermost loop.
    pub fn unroll(&self) -> usize {
        let [least, most] = TAPS.map(|taps| (taps / self.size[1]).max(1));
        let least = least.max(2).min(most);
        let dividing = |n: &usize| self.steps().is_multiple_of(*n);
        let more = (least..=most).find(dividing);
        more.or_else(|| (1..least).rev().find(dividing)).unwrap_or(1)
    }

    /// Instructions of a tile of `columns` words and `channels`.
    fn tile(&self, columns: usize, channels: usize) -> usize {
        let mut seen: Vec<usize> = (0..columns)
            .flat_map(|i| self.taps.iter().map(move |tap| self.column(i, *tap)))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        let sums = columns * channels;
        let step = self.size[1] * (channels + 2 * sums) + seen.len();
        let part = self.steps() * step + self.steps() / self.unroll() * 4 + sums + 8;
        let join = if self.parts > 1 { 7 * self.parts + 2 } else { 6 };
        self.parts * part + 5 * channels + sums * (join + 8 * LANES) + 12
    }

    /// Instructions of a row of `filters` channels in panels of `panel` columns.
    pub fn row(&self, [panel, columns, channels]: [usize; 3], width: usize, filters: usize, depth: usize) -> usize {
        let pack = self.columns(panel) * (depth * (8 + 4 * self.size[0]) + 6);
        let tiles = |channels: usize| -> usize {
            let places = round_places(panel, columns.min(panel)).into_iter();
            places.map(|(_, n)| self.tile(n, channels)).sum()
        };
        let rest = filters % channels;
        let rest = if rest > 0 { tiles(rest) } else { 0 };
        width.div_ceil(panel) * (pack + filters / channels * tiles(channels) + rest)
    }

    /// Bytes of the words of a panel.
    pub fn words_bytes(&self, panel: usize) -> usize {
        8 * self.parts * self.steps() * self.columns(panel)
    }

    /// A panel of tiles of `columns`: as large as `room` allows, in equal shares.
    pub fn panel(&self, columns: usize, width: usize, room: usize) -> usize {
        let tiles = width.div_ceil(columns);
        let fits = |n: &usize| {
            let panel = (n * columns).min(width);
            self.words_bytes(panel) <= room && 8 * self.size[0] * self.columns(panel) <= REACH
        };
        let most = (1..=tiles).rev().find(fits).unwrap_or(1);
        (tiles.div_ceil(tiles.div_ceil(most)) * columns).min(width)
    }
}

/// Input channels of the equal parts into which every sum is cut, such that each fits a lane; the last part may be
/// filled up with zeros. `None` if the taps of one channel do not fit.
pub(super) fn depth_of_parts(layer: &Layer) -> Result<Option<usize>> {
    let parts = 1..=layer.depth.min(PARTS);
    let mut depths: Vec<usize> = parts.map(|parts| layer.depth.div_ceil(parts)).collect();
    depths.dedup();
    let mut buffer = Vec::new();
    for channel in 0..layer.out_channels() {
        layer.read(channel, &mut buffer)?;
        let mut magnitudes = vec![0u64; layer.depth];
        for (k, weight) in buffer.iter().enumerate() {
            magnitudes[k % layer.depth] += u64::from((*weight as i8).unsigned_abs());
        }
        depths.retain(|depth| {
            let mut parts = magnitudes.chunks(*depth);
            parts.all(|part| part.iter().sum::<u64>() * 128 < START as u64)
        });
    }
    let [rows, columns] = layer.window.size;
    // Of a word's sum: a multiplication, an addition and a part of the loads for each tap, and what joins parts.
    let cost = |depth: &usize| {
        let parts = layer.depth.div_ceil(*depth);
        parts * (5 * depth * rows * columns + 16)
    };
    Ok(depths.into_iter().min_by_key(cost))
}

/// The elements of a sum in the order in which they are read, zeros where parts are longer than what is left.
pub(super) fn order(layer: &Layer, shape: &Shape) -> Vec<Option<usize>> {
    let mut order = Vec::with_capacity(shape.parts * shape.steps() * shape.size[1]);
    for channel in 0..shape.parts * shape.depth {
        for row in 0..shape.size[0] {
            for tap in &shape.taps {
                let k = (row * shape.size[1] + tap) * layer.depth + channel;
                order.push((channel < layer.depth).then_some(k));
            }
        }
    }
    order
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(size: [usize; 2], stride: [usize; 2], dilation: [usize; 2]) -> Shape {
        let unit = [0, 1].map(|axis| match size[axis] {
            1 => stride[axis],
            _ => gcd(stride[axis], dilation[axis]),
        });
        Shape::of(size, unit, stride, dilation, [8, 2])
    }

    /// Every tap of every output reads the row and the column that it is to read.
    #[test]
    fn taps_are_where_they_are() {
        for size in [[1, 1], [3, 3], [1, 4], [5, 2]] {
            for stride in [[1, 1], [2, 2], [3, 1], [2, 4]] {
                for dilation in [[1, 1], [2, 2], [1, 3]] {
                    let shape = shape(size, stride, dilation);
                    let mut taps = shape.taps.clone();
                    taps.sort_unstable();
                    assert_eq!(taps, (0..size[1]).collect::<Vec<_>>());
                    for output in 0..4 {
                        for tap in 0..size[1] {
                            let column = shape.column(output, tap);
                            assert_eq!(column * shape.unit[1], output * stride[1] + tap * dilation[1]);
                            assert!(column < shape.columns(4));
                        }
                    }
                    let last = (LANES - 1) * stride[0] + (size[0] - 1) * dilation[0];
                    assert_eq!((shape.rows() - 1) * shape.unit[0], last);
                }
            }
        }
    }

    #[test]
    fn rounds_divide_sums() {
        for columns in 1..12 {
            for rows in 1..12 {
                for depth in 1..20 {
                    let shape = Shape::of([rows, columns], [1, 1], [1, 1], [1, 1], [depth, 1]);
                    assert!(shape.steps().is_multiple_of(shape.unroll()));
                    assert!(shape.unroll() * columns <= TAPS[1].max(columns));
                }
            }
        }
        let unroll = |depth: usize| Shape::of([3, 3], [1, 1], [1, 1], [1, 1], [depth, 1]).unroll();
        assert_eq!([unroll(16), unroll(3)], [2, 3]);
    }
}
