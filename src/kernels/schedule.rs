//! Which loop a multiply-accumulate layer becomes: data, chosen from the machine and the layer's shape.
//!
//! The kernels in [`mac`](super::mac) are generators over these values; a machine with other instructions adds an
//! [`Inner`] and its lines here, not another kernel.

use crate::graph::DType;
use crate::target::{Arch, Dot, Effort, Machine, Target};
use std::fmt;

/// The innermost step: which elements of the sum one instruction takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inner {
    /// int16 activations and weights (widened from int8 on load), two of a channel's products summed by one
    /// instruction: x86 `pmaddwd`.
    Pairs16,
    /// Four 8-bit products of a channel summed by one instruction, or by AArch64's widening multiplies and pairwise
    /// adds (six instructions for four channels).
    Dot4(Dot),
    /// One int8 product at a time, accumulators of a register.
    Scalar,
    /// int16 activations, weights of two channels in a half-word (256·a + b), two products of each summed by one
    /// instruction: Arm's SMLAD.
    Paired,
    /// The same with int8 weights, four of a channel in a word.
    Halves,
    /// One weight times three positions' activations, 21 bits apart in a 64-bit word: a multiplication takes three
    /// products, an addition sums them. Exact while each sum stays within 21 bits; longer sums are cut into parts.
    Lanes21,
    /// Several output channels' weights, 16 bits apart in a word, times one activation: a multiplication and an addition
    /// for all of them. Sums are cut into groups that fit 16 bits.
    Lanes16,
    /// Four output channels of float32.
    Float4,
    /// One float32 product at a time.
    Float1,
}

/// How activations are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// As they are.
    I8,
    /// With 128 added, unsigned.
    U8,
    /// Widened.
    I16,
    /// float32.
    F32,
}

impl Element {
    /// Size in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Element::I8 | Element::U8 => 1,
            Element::I16 => 2,
            Element::F32 => 4,
        }
    }
}

impl Inner {
    /// The best that `target` has for `dtype`.
    pub fn new(target: &Target, dtype: DType) -> Self {
        let machine = target.machine();
        match (dtype, machine.simd128, machine.dot) {
            (DType::F32, true, _) => Inner::Float4,
            (DType::F32, false, _) => Inner::Float1,
            (_, true, Some(dot)) => Inner::Dot4(dot),
            (_, true, None) if target.arch() == Arch::Aarch64 => Inner::Dot4(Dot::Signed),
            (_, true, None) => Inner::Pairs16,
            (_, false, _) if machine.dsp => Inner::Paired,
            (_, false, _) => Inner::Scalar,
        }
    }

    /// The same for a depthwise convolution of `channels`: a few channels leave most of a 16-byte vector empty.
    pub fn depthwise(target: &Target, dtype: DType, channels: usize) -> Self {
        match Inner::new(target, dtype) {
            Inner::Dot4(_) if channels <= 8 => Inner::Pairs16,
            Inner::Paired => Inner::Scalar,
            inner => inner,
        }
    }

    /// Output channels of one accumulator.
    pub fn lanes(self) -> usize {
        match self {
            Inner::Pairs16 | Inner::Dot4(_) | Inner::Float4 => 4,
            Inner::Scalar | Inner::Lanes16 | Inner::Lanes21 | Inner::Paired | Inner::Halves | Inner::Float1 => 1,
        }
    }

    /// Elements of a channel's sum that one step takes.
    pub fn group(self) -> usize {
        match self {
            Inner::Pairs16 => 2,
            Inner::Dot4(_) => 4,
            Inner::Paired
            | Inner::Halves
            | Inner::Scalar
            | Inner::Lanes16
            | Inner::Lanes21
            | Inner::Float4
            | Inner::Float1 => 1,
        }
    }

    /// What activations must look like.
    pub fn element(self) -> Element {
        match self {
            Inner::Pairs16 => Element::I16,
            Inner::Dot4(Dot::Unsigned) => Element::U8,
            Inner::Dot4(Dot::Signed)
            | Inner::Scalar
            | Inner::Lanes16
            | Inner::Lanes21
            | Inner::Paired
            | Inner::Halves => Element::I8,
            Inner::Float4 | Inner::Float1 => Element::F32,
        }
    }

    /// Size of a weight in bytes.
    pub fn weight_bytes(self) -> usize {
        match self {
            Inner::Float4 | Inner::Float1 => 4,
            _ => 1,
        }
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Inner::Pairs16 => "pairs16",
            Inner::Dot4(Dot::Signed) => "sdot4",
            Inner::Dot4(Dot::Unsigned) => "udot4",
            Inner::Scalar => "scalar",
            Inner::Paired => "paired",
            Inner::Lanes16 => "lanes16",
            Inner::Halves => "halves",
            Inner::Lanes21 => "lanes21",
            Inner::Float4 => "float4",
            Inner::Float1 => "float1",
        })
    }
}

/// How a kernel's operands lie, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layouts {
    /// What its loop reads of the input.
    pub activations: &'static str,
    /// What it reads of the filter.
    pub weights: &'static str,
    /// What is kept in registers, of the largest block.
    pub tile: Option<Tile>,
}

impl Layouts {
    /// Of a depthwise convolution over [`Strips`].
    pub const ROW_PAIRS: Layouts = Layouts {
        activations: "int16, an element and the one below it in a word, one plane of scratch for each channel",
        weights: "int16, 256 times two rows' weights of a column in a word",
        tile: None,
    };
    /// Of a row of a depthwise convolution over three rows in place.
    pub const COLUMNS: Layouts = Layouts {
        activations: "int8, three rows in place; the upper two elements of a column become a pair",
        weights: "int16, 256 times two weights of a column in a word, and the third ones of two columns",
        tile: None,
    };
    /// Of a convolution with three rows of outputs in a word.
    pub const ROWS21: Layouts = Layouts {
        activations: "three rows' elements, 21 bits apart, in a double word of scratch",
        weights: "int8, the channels of a tile side by side",
        tile: None,
    };
    /// Of a dense layer with four channels in a word.
    pub const QUADS: Layouts = Layouts {
        activations: "int8 widened to words of scratch, as it is and in the top byte",
        weights: "an element of four channels in a word, all but the last with 128 added",
        tile: None,
    };
    /// Of a depthwise convolution over planes of single channels.
    pub const PLANES: Layouts = Layouts {
        activations: "int8, a plane of scratch with borders for one channel",
        weights: "int8, a channel's window in registers",
        tile: None,
    };

    /// Of a loop.
    pub fn new(inner: Inner, tile: Option<Tile>) -> Self {
        let (activations, weights) = match inner {
            Inner::Pairs16 => (
                "int16, two elements of the sum in each lane",
                "int8, two elements of the sum for each of four channels, widened as they are loaded",
            ),
            Inner::Dot4(Dot::Signed) => (
                "int8, four elements of the sum in each lane",
                "int8, four elements of the sum for each of four channels",
            ),
            Inner::Dot4(Dot::Unsigned) => (
                "uint8 (128 added), four elements of the sum in each lane",
                "int8, four elements of the sum for each of four channels",
            ),
            Inner::Scalar => (
                "int8, in place or rows with borders",
                "int8, the channels of a tile side by side",
            ),
            Inner::Paired => (
                "int16, two elements of the sum in a word of scratch, positions of a tile side by side",
                "int16, 256 a + b of two channels, two elements of the sum in a word",
            ),
            Inner::Halves => (
                "int16, two elements of the sum in a word of scratch, positions of a tile side by side",
                "int8, four elements of the sum of one channel in a word",
            ),
            Inner::Lanes21 => (
                "three positions' elements, 21 bits apart, in a double word of scratch",
                "int8, the channels of a tile side by side",
            ),
            Inner::Lanes16 => (
                "int8 widened to words of scratch, as it is and in the top byte",
                "two elements of the sum of several channels, 16 bits apart, in a word",
            ),
            Inner::Float4 => (
                "float32, in place or rows with borders",
                "float32, four channels in a vector",
            ),
            Inner::Float1 => (
                "float32, in place or rows with borders",
                "float32, the channels of a tile side by side",
            ),
        };
        Layouts {
            activations,
            weights,
            tile,
        }
    }
}

/// What is kept in registers while the sum runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Output positions.
    pub pixels: usize,
    /// Output channels; a multiple of [`Inner::lanes`].
    pub channels: usize,
    /// Steps of the sum in one round of the loop.
    pub k_unroll: usize,
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}px x {}ch", self.pixels, self.channels)
    }
}

/// Equal blocks of output channels, each computed by one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// How many.
    pub count: usize,
    /// Channels of each that exist; the tile's are rounded up to whole vectors.
    pub filters: usize,
    /// The registers it takes.
    pub tile: Tile,
}

/// `pairs16 2px x 16ch, 4px x 8ch`.
pub fn describe(inner: Inner, blocks: &[Block]) -> String {
    let tiles: Vec<String> = blocks.iter().map(|block| block.tile.to_string()).collect();
    format!("{inner} {}", tiles.join(", "))
}

/// Accumulators that a tile may hold. Half of the registers: the rest are for weights, activations and pointers.
fn accumulators(machine: &Machine, inner: Inner) -> usize {
    match inner {
        Inner::Pairs16 | Inner::Dot4(_) | Inner::Float4 => machine.vector_registers / 2,
        // Beside them a weight, a product, an activation, pointers.
        Inner::Scalar | Inner::Lanes21 => (machine.integer_registers / 2 + 3).min(16),
        // The rest are two positions' activations, a weight, two pointers and their end.
        Inner::Paired => 8,
        // Two for each two channels, beside a group of activations.
        Inner::Lanes16 => 8,
        // Four words of activations at a time.
        Inner::Halves => 4,
        Inner::Float1 => 16,
    }
}

/// Splits `filters` output channels of a dense layer or convolution into blocks: as few different ones as possible,
/// since each is code of its own. `pixels` is the number of output positions in a row.
pub fn blocks(machine: &Machine, inner: Inner, filters: usize, pixels: usize) -> Vec<Block> {
    let lanes = inner.lanes();
    let budget = accumulators(machine, inner);
    // Channels come in twos.
    let lanes = if matches!(inner, Inner::Paired | Inner::Halves | Inner::Lanes16) {
        2
    } else {
        lanes
    };
    let budget = budget / if lanes == 2 { 2 } else { 1 };
    let vectors = filters.div_ceil(lanes);
    // Thumb-2 without DSP: beside the sums of four positions and two channels there is room for what a step loads.
    let few = inner == Inner::Scalar && machine.integer_bytes == 4 && machine.integer_registers < 16 && pixels > 1;
    // With one position there is nothing to share a weight with: all accumulators go to channels.
    let most = match inner {
        _ if pixels == 1 => budget,
        Inner::Paired | Inner::Halves => budget / 2,
        // x86 fused multiply-adds overwrite a factor: with few channels the activation is what is copied least.
        Inner::Float4 if machine.fused_multiply_add && machine.vector_registers == 16 => 2,
        Inner::Scalar if few => 2,
        _ => 4.min(budget),
    };
    let budget = if few { 8 } else { budget };
    let least = most.div_ceil(2);
    let width = if vectors <= most {
        vectors
    } else {
        (least..=most)
            .rev()
            .find(|width| vectors.is_multiple_of(*width))
            .unwrap_or(most)
    };
    let block = |count: usize, filters: usize| {
        let vectors = filters.div_ceil(lanes);
        let most = (budget / vectors).max(1);
        // Positions in equal shares: 5 as 3 + 2, not 4 + 1.
        let pixels = pixels.div_ceil(pixels.div_ceil(most));
        let k_unroll = match inner {
            Inner::Scalar => 4,
            // Code for every shape of layer: rounds that are long enough.
            Inner::Paired if pixels == 1 => 16,
            Inner::Paired => 8,
            Inner::Halves if pixels == 1 => 8,
            Inner::Halves => 4,
            Inner::Float4 if machine.fused_multiply_add => 4,
            _ if pixels == 1 => 4,
            _ => 2,
        };
        Block {
            count,
            filters,
            tile: Tile {
                pixels,
                channels: vectors * lanes,
                k_unroll,
            },
        }
    };
    let full = filters / (width * lanes);
    let rest = filters % (width * lanes);
    let mut blocks = Vec::new();
    if full > 0 {
        blocks.push(block(full, width * lanes));
    }
    if rest > 0 {
        blocks.push(block(1, rest));
    }
    blocks
}

/// Channels that are computed together at least.
pub fn least_channels(inner: Inner) -> usize {
    match inner {
        Inner::Paired | Inner::Halves => 2,
        Inner::Lanes16 => 4,
        inner => inner.lanes(),
    }
}

/// Blocks of at most `widest` channels, a multiple of [`least_channels`], instead of `blocks`.
pub fn narrowed(blocks: &[Block], inner: Inner, filters: usize, widest: usize) -> Vec<Block> {
    let Some(tile) = blocks.first().map(|block| block.tile) else {
        return Vec::new();
    };
    if tile.channels <= widest {
        return blocks.to_vec();
    }
    let least = least_channels(inner);
    let block = |count: usize, filters: usize| Block {
        count,
        filters,
        tile: Tile {
            channels: filters.next_multiple_of(least),
            ..tile
        },
    };
    let whole = (filters / widest > 0).then(|| block(filters / widest, widest));
    let rest = (!filters.is_multiple_of(widest)).then(|| block(1, filters % widest));
    whole.into_iter().chain(rest).collect()
}

/// Blocks with rounds of the length that `effort` asks for, of tiles whose code is long.
pub fn unrolled(mut blocks: Vec<Block>, inner: Inner, effort: Effort) -> Vec<Block> {
    for tile in blocks.iter_mut().map(|block| &mut block.tile) {
        match (inner, effort) {
            (Inner::Paired, Effort::Speed | Effort::Ram) => tile.k_unroll = 16,
            (Inner::Paired | Inner::Halves, Effort::Size) => tile.k_unroll = if tile.pixels == 1 { 4 } else { 2 },
            _ => {}
        }
    }
    blocks
}

/// The same for [`Inner::Lanes21`], where `words` of three positions share a weight: as many as fit beside `sum` packed
/// words each in [`WORDS_BYTES`].
pub fn lane_blocks(machine: &Machine, filters: usize, positions: usize, sum: usize) -> Vec<Block> {
    let budget = accumulators(machine, Inner::Lanes21);
    let most = (WORDS_BYTES / (8 * sum)).clamp(1, 4) * 3;
    let pixels = positions.div_ceil(positions.div_ceil(most));
    let words = pixels.div_ceil(3);
    // One word leaves room for more channels, but each takes a register for its weight's product as well.
    let most = (budget / words).min(12);
    let width = if filters <= most {
        filters
    } else {
        (most.div_ceil(2)..=most)
            .rev()
            .find(|width| filters.is_multiple_of(*width))
            .unwrap_or(most)
    };
    let block = |count: usize, filters: usize| Block {
        count,
        filters,
        tile: Tile {
            pixels: (3 * words).min(positions),
            channels: filters,
            k_unroll: 4,
        },
    };
    let mut blocks = vec![block(filters / width, width)];
    if !filters.is_multiple_of(width) {
        blocks.push(block(1, filters % width));
    }
    blocks
}

/// Bytes of packed activations of one tile that [`Inner::Lanes21`] aims at.
const WORDS_BYTES: usize = 16 << 10;

/// The same for a depthwise convolution: a block is one vector load of channels.
pub fn depthwise_blocks(machine: &Machine, inner: Inner, channels: usize, pixels: usize) -> Vec<Block> {
    let width = depthwise_width(inner);
    let vectors = width / inner.lanes();
    let most = (accumulators(machine, inner) / 2 / vectors).max(1);
    let tile = Tile {
        pixels: pixels.div_ceil(pixels.div_ceil(most)),
        channels: width,
        k_unroll: 1,
    };
    let mut blocks = Vec::new();
    if channels / width > 0 {
        blocks.push(Block {
            count: channels / width,
            filters: width,
            tile,
        });
    }
    if !channels.is_multiple_of(width) {
        blocks.push(Block {
            count: 1,
            filters: channels % width,
            tile,
        });
    }
    blocks
}

/// How a depthwise convolution goes through pairs of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Strips {
    /// Rows of outputs of a strip.
    pub rows: usize,
    /// Columns of outputs in registers.
    pub columns: usize,
    /// Strips that are taken apart together.
    pub strips: usize,
}

impl fmt::Display for Strips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row pairs {}x{}, {} strips", self.rows, self.columns, self.strips)
    }
}

/// Bytes of pairs of rows that are held at once, if one strip needs no more.
fn strips_bytes(effort: Effort) -> usize {
    if effort == Effort::Speed { 2 << 10 } else { 1 << 10 }
}

/// For `height` rows of `width` outputs, from `columns` columns of inputs, in strips of `rows` rows, `shared` pairs of
/// rows of which the next needs as well. Taking a pair of rows
/// apart costs about half of what a strip does, and neighbouring bands have a pair in common.
pub fn strips(rows: usize, height: usize, width: usize, [columns, shared]: [usize; 2], effort: Effort) -> Strips {
    let most = (strips_bytes(effort) / (16 * columns))
        .saturating_sub(shared)
        .clamp(1, height / rows);
    let cost = |held: &usize| height.div_ceil(rows * held) * (3 * held + shared);
    let held = (1..=most).min_by_key(cost).unwrap_or(1);
    // Four sums at a time.
    let columns = match rows {
        2 => 2,
        // As few blocks as possible, and the least different ones.
        _ => [4, 3].into_iter().find(|n| width.is_multiple_of(*n)).unwrap_or(3),
    };
    Strips {
        rows,
        columns: columns.min(width),
        strips: held,
    }
}

/// Channels of a depthwise block: a vector of activations.
pub fn depthwise_width(inner: Inner) -> usize {
    match inner {
        Inner::Pairs16 => 8,
        Inner::Dot4(_) => 16,
        Inner::Float4 => 4,
        Inner::Scalar | Inner::Lanes16 | Inner::Lanes21 | Inner::Paired | Inner::Halves | Inner::Float1 => 1,
    }
}

/// Bytes of staged activations that a band of a pointwise layer aims at: within a first-level cache, with the weights.
const BAND_BYTES: usize = 8 << 10;

/// Positions of a pointwise layer that are staged together: a multiple of the tile, a divisor of all if there is a large
/// one (what is left over is computed twice).
pub fn band(pixels: usize, tile_pixels: usize, bytes_per_pixel: usize) -> usize {
    let most = (BAND_BYTES / bytes_per_pixel.max(1)).clamp(tile_pixels, pixels.max(tile_pixels));
    let whole = most / tile_pixels * tile_pixels;
    if pixels <= most {
        return pixels;
    }
    (1..=most / tile_pixels)
        .rev()
        .map(|tiles| tiles * tile_pixels)
        .take_while(|band| *band * 2 > whole)
        .find(|band| pixels.is_multiple_of(*band))
        .unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::all_targets;

    #[test]
    fn blocks_cover_all_channels() {
        for target in all_targets() {
            for dtype in [DType::I8, DType::F32] {
                let inner = Inner::new(&target, dtype);
                for filters in 1..=150 {
                    for pixels in [1, 2, 5, 16, 125] {
                        for blocks in [
                            blocks(target.machine(), inner, filters, pixels),
                            depthwise_blocks(target.machine(), inner, filters, pixels),
                        ] {
                            assert_eq!(blocks.iter().map(|b| b.count * b.filters).sum::<usize>(), filters);
                            assert!(blocks.len() <= 2);
                            for block in blocks {
                                assert!(block.filters <= block.tile.channels);
                                let whole = if inner == Inner::Paired { 2 } else { inner.lanes() };
                                assert!(block.tile.channels < block.filters + depthwise_width(inner).max(whole));
                                assert!((1..=pixels).contains(&block.tile.pixels));
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn positions_are_shared_out_evenly() {
        let target = crate::target::Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
        let tiles = |filters, pixels| -> Vec<String> {
            blocks(target.machine(), Inner::Pairs16, filters, pixels)
                .iter()
                .map(|b| format!("{} of {}: {}", b.count, b.filters, b.tile))
                .collect()
        };
        assert_eq!(tiles(64, 125), ["4 of 16: 2px x 16ch"]);
        assert_eq!(tiles(24, 10), ["2 of 12: 2px x 12ch"]);
        assert_eq!(tiles(8, 5), ["1 of 8: 3px x 8ch"]);
        assert_eq!(tiles(70, 4), ["5 of 12: 2px x 12ch", "1 of 10: 2px x 12ch"]);
        assert_eq!(tiles(10, 1), ["1 of 10: 1px x 12ch"]);
        assert_eq!(tiles(128, 1), ["4 of 32: 1px x 32ch"]);
    }

    #[test]
    fn bands_divide_where_they_can() {
        assert_eq!(band(125, 2, 128), 64);
        assert_eq!(band(144, 2, 128), 48);
        assert_eq!(band(3, 3, 100), 3);
        assert_eq!(band(9, 2, 1 << 20), 2);
    }
}
