//! Layers whose parameters come piece by piece: a kernel for each kind of piece, which computes some output channels.
//!
//! A piece holds the weights of a few blocks of channels and, behind them at a multiple of 16 bytes, their biases. Both
//! follow one another in the order in which the whole kernel would read them, so that pieces are runs of either. What the
//! whole kernel finds before all biases is before those of each piece.

use super::super::emit::{Built, Emitter};
use super::super::lowered::LoweredOperand;
use super::super::schedule::{Block, least_channels};
use super::super::{Parameter, Scratch};
use super::layer::Layer;
use super::{conv, depthwise};
use crate::data::{Contents, Transform};
use crate::error::{Code, Error, Result};
use crate::target::Target;
use std::io::{self, Write};
use std::sync::Arc;

/// Alignment of a piece's biases, and of pieces.
const ALIGN: usize = 16;

/// A layer in pieces.
pub struct Cut {
    /// The kernel's shape, the first part of its name.
    pub stem: &'static str,
    /// Which schedule was chosen.
    pub schedule: String,
    /// All pieces.
    pub parameter: Parameter,
    /// What the pointers point at; for parameters it is [`Cut::parameter`].
    pub operands: Vec<LoweredOperand>,
    /// Scratch, if an operand asks for it.
    pub scratch: Option<Scratch>,
    /// Runs of equal pieces.
    pub runs: Vec<Run>,
}

/// Equal pieces.
pub struct Run {
    /// The kernel.
    pub built: Built,
    /// How many.
    pub count: u64,
    /// Where the first begins in the parameter, and how far it is from one to the next.
    pub start: u64,
    pub piece: u64,
    /// Bytes that the kernel reads.
    pub bytes: u64,
    /// For each operand, the first pointer's offset and how far it moves; parameters count from the piece.
    pub offsets: Vec<(u64, u64)>,
}

/// A kind of piece.
struct Kind {
    block: Block,
    count: usize,
}

/// What pieces are cut from: the whole layer's parameters and how they are measured.
struct Whole<'a> {
    /// Bytes at the head of the biases.
    head: usize,
    layer: &'a Layer<'a>,
    target: &'a Target,
    stem: &'static str,
    schedule: String,
    scratch: usize,
    filter: Parameter,
    bias: Parameter,
    /// Bytes of an element of the output.
    element: usize,
}

/// Cuts a convolution or a dense layer into pieces of at most `most` bytes. `None` if it is none that can be cut.
///
/// # Errors
/// [`Code::Limit`] if the channels that are computed together take more, and those of reading the model.
pub(super) fn dense(layer: &Layer, target: &Target, stem: &'static str, most: u64) -> Result<Option<Cut>> {
    if layer.groups != 1 {
        return Ok(None);
    }
    let (kernel, parameters) = conv::prepare(layer, target, None)?;
    let whole = kernel.sizes();
    let least = least_channels(kernel.inner);
    let tile = |channels: usize| {
        let mut block = kernel.blocks.first().copied();
        if let Some(block) = &mut block {
            (block.count, block.tile.channels) = (1, channels);
        }
        block.map_or(0, |block| bytes(whole.head(), whole.of(&block)))
    };
    let widest = kernel
        .blocks
        .iter()
        .map(|block| block.tile.channels)
        .max()
        .unwrap_or(least);
    let width = (1..=widest / least)
        .rev()
        .map(|n| n * least)
        .find(|width| tile(*width) <= most);
    let width = width.ok_or_else(|| too_wide(layer, least, tile(least), most))?;
    let (mut kernel, [filter, bias]) = match width < widest {
        true => conv::prepare(layer, target, Some(width))?,
        false => (kernel, parameters),
    };
    let measured = kernel.sizes();
    let head = measured.head();
    let sizes = |block: &Block| measured.of(block);
    let whole = Whole {
        head,
        layer,
        target,
        stem,
        schedule: kernel.schedule(),
        scratch: kernel.scratch(),
        filter,
        bias,
        element: kernel.output_bytes(),
    };
    let kinds = kernel
        .blocks
        .iter()
        .flat_map(|block| kinds(block, most, head, &sizes))
        .collect();
    Ok(Some(whole.cut(kinds, &sizes, |kind, _, e| {
        kernel.blocks = vec![kind.block];
        kernel.emit(e);
    })))
}

/// The same for a depthwise convolution. Each piece has a kernel of its own, that knows its channels.
///
/// # Errors
/// As [`dense`].
pub(super) fn depthwise(layer: &Layer, target: &Target, most: u64) -> Result<Option<Cut>> {
    let (mut kernel, [filter, bias]) = depthwise::prepare(layer, target)?;
    let (inner, entry) = (kernel.inner, kernel.entry);
    let weights = |block: &Block, kernel: &depthwise::Kernel| block.count * kernel.block_weights(block);
    let each: Vec<usize> = kernel
        .blocks
        .iter()
        .map(|block| weights(&Block { count: 1, ..*block }, &kernel))
        .collect();
    // All blocks have one tile.
    let each = each.first().copied().unwrap_or(0);
    let sizes = |block: &Block| {
        let vectors = block.count * block.tile.channels / inner.lanes();
        (block.count * each, vectors * entry)
    };
    if let Some(block) = kernel.blocks.first() {
        let tile = bytes(0, sizes(&Block { count: 1, ..*block }));
        if tile > most {
            return Err(too_wide(layer, block.tile.channels, tile, most));
        }
    }
    let whole = Whole {
        head: 0,
        layer,
        target,
        stem: "depthwise",
        schedule: kernel.schedule(),
        scratch: kernel.scratch(),
        filter,
        bias,
        element: kernel.element_bytes(),
    };
    let equal = kernel.blocks.iter().flat_map(|block| kinds(block, most, 0, &sizes));
    let single = equal.flat_map(|kind| (0..kind.count).map(move |_| Kind { count: 1, ..kind }));
    let kinds = single.collect();
    Ok(Some(whole.cut(kinds, &sizes, |kind, first, e| {
        kernel.blocks = vec![kind.block];
        kernel.first = first;
        kernel.emit(e);
    })))
}

/// Bytes of a piece of weights and, behind a head, biases.
fn bytes(head: usize, (weights, biases): (usize, usize)) -> u64 {
    (weights.next_multiple_of(ALIGN) + head + biases) as u64
}

fn too_wide(layer: &Layer, channels: usize, bytes: u64, most: u64) -> Error {
    let what = format!(
        "{channels} channels of {} weights are computed together and take {bytes} bytes of parameters, more than {most}",
        layer.weights.sum(),
    );
    Error::new(Code::Limit, what)
        .at(layer.op().describe())
        .help(format!("give --stream-buffer {}", bytes.next_multiple_of(1024)))
}

impl Whole<'_> {
    /// The pieces; `emit` writes the kernel of a kind that begins with a channel.
    fn cut(
        self,
        kinds: Vec<Kind>,
        sizes: &impl Fn(&Block) -> (usize, usize),
        mut emit: impl FnMut(&Kind, usize, &mut Emitter),
    ) -> Cut {
        let (mut start, mut channel) = (0, 0);
        let (mut runs, mut cuts) = (Vec::new(), Vec::new());
        let mut operands = Vec::new();
        let mut scratch = None;
        for kind in &kinds {
            let (weights, biases) = sizes(&kind.block);
            let behind = weights.next_multiple_of(ALIGN);
            let piece = (behind + self.head + biases).next_multiple_of(ALIGN) as u64;
            let channels = kind.block.count * kind.block.filters;
            let parameters = [self.filter.clone(), self.bias.clone()];
            let lowered = self
                .layer
                .lowered(self.target, self.stem, String::new(), parameters, self.scratch, |e| {
                    emit(kind, channel, e);
                });
            let mut offsets = vec![(0, 0); lowered.operands.len()];
            offsets[1] = (0, piece);
            offsets[2] = (behind as u64, piece);
            offsets[3] = ((channel * self.element) as u64, (channels * self.element) as u64);
            runs.push(Run {
                built: lowered.built,
                count: kind.count as u64,
                start,
                piece,
                bytes: (behind + self.head + biases) as u64,
                offsets,
            });
            cuts.extend(std::iter::repeat_n((weights, biases), kind.count));
            start += piece * kind.count as u64;
            channel += channels * kind.count;
            operands = lowered.operands;
            scratch = lowered.scratch;
        }
        let Whole { filter, bias, head, .. } = self;
        let others = bias.tensors.iter().filter(|id| !filter.tensors.contains(id));
        let tensors = filter.tensors.iter().chain(others).copied().collect();
        Cut {
            stem: self.stem,
            schedule: self.schedule,
            parameter: Parameter {
                tensors,
                contents: Contents::Transform(Arc::new(Pieces {
                    weights: filter.contents,
                    biases: bias.contents,
                    head,
                    cuts,
                })),
                ..filter
            },
            operands,
            scratch,
            runs,
        }
    }
}

/// Pieces of a block, as equal as may be.
fn kinds(block: &Block, most: u64, head: usize, sizes: &impl Fn(&Block) -> (usize, usize)) -> Vec<Kind> {
    let of = |count: usize| Block { count, ..*block };
    let fitting = (1..=block.count)
        .rev()
        .find(|count| bytes(head, sizes(&of(*count))) <= most);
    let pieces = block.count.div_ceil(fitting.unwrap_or(1));
    let each = block.count.div_ceil(pieces.max(1)).max(1);
    let kind = |tiles: usize, count: usize| Kind {
        block: of(tiles),
        count,
    };
    let whole = (block.count / each > 0).then(|| kind(each, block.count / each));
    let rest = (!block.count.is_multiple_of(each)).then(|| kind(block.count % each, 1));
    whole.into_iter().chain(rest).collect()
}

/// Runs of weights, each followed by its biases.
#[derive(Debug)]
struct Pieces {
    weights: Contents,
    biases: Contents,
    /// Bytes at the head of the biases, that every piece has.
    head: usize,
    /// Bytes of weights and of biases of each piece.
    cuts: Vec<(usize, usize)>,
}

impl Transform for Pieces {
    fn len(&self) -> u64 {
        let piece = |(weights, biases): &(usize, usize)| {
            weights.next_multiple_of(ALIGN) + (self.head + biases).next_multiple_of(ALIGN)
        };
        self.cuts.iter().map(|cut| piece(cut) as u64).sum()
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut biases = Vec::new();
        self.biases.write_to(&mut biases)?;
        let (head, biases) = (biases.split_at_checked(self.head)).ok_or(io::ErrorKind::InvalidData)?;
        let mut writer = Interleaved {
            out,
            head,
            biases,
            cuts: self.cuts.iter(),
            left: 0,
            behind: None,
        };
        writer.next()?;
        self.weights.write_to(&mut writer)?;
        match writer.behind {
            None => Ok(()),
            Some(_) => Err(io::Error::other("a layer has less weights than its pieces")),
        }
    }
}

/// Puts biases between runs of weights.
struct Interleaved<'a, I> {
    out: &'a mut dyn Write,
    head: &'a [u8],
    biases: &'a [u8],
    cuts: I,
    /// Bytes of weights that the piece lacks.
    left: usize,
    /// Its padding and biases, if there is a piece.
    behind: Option<(usize, usize)>,
}

impl<'a, I: Iterator<Item = &'a (usize, usize)>> Interleaved<'a, I> {
    fn next(&mut self) -> io::Result<()> {
        self.behind = self.cuts.next().map(|(weights, biases)| {
            self.left = *weights;
            (weights.next_multiple_of(ALIGN) - weights, *biases)
        });
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        let (padding, biases) = self.behind.ok_or(io::ErrorKind::InvalidData)?;
        self.out.write_all(&[0; ALIGN][..padding])?;
        let (these, rest) = self.biases.split_at_checked(biases).ok_or(io::ErrorKind::InvalidData)?;
        self.biases = rest;
        self.out.write_all(self.head)?;
        self.out.write_all(these)?;
        let bytes = self.head.len() + biases;
        self.out
            .write_all(&[0; ALIGN][..bytes.next_multiple_of(ALIGN) - bytes])?;
        self.next()
    }
}

impl<'a, I: Iterator<Item = &'a (usize, usize)>> Write for Interleaved<'a, I> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.left);
        self.out.write_all(&bytes[..n])?;
        self.left -= n;
        if self.left == 0 {
            self.end()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::schedule::Tile;
    use super::*;
    use crate::data::Bytes;

    #[test]
    fn biases_follow_their_weights() {
        let bytes = |list: Vec<u8>| Contents::Bytes(Bytes::from_vec(list));
        let pieces = Pieces {
            weights: bytes((1..=20).collect()),
            biases: bytes((101..=106).collect()),
            cuts: vec![(8, 2), (8, 3), (4, 1)],
            head: 0,
        };
        let mut found = Vec::new();
        pieces.write_to(&mut found).unwrap();
        assert_eq!(found.len() as u64, pieces.len());
        let piece = |weights: std::ops::RangeInclusive<u8>, biases: std::ops::RangeInclusive<u8>| {
            let mut piece: Vec<u8> = weights.collect();
            piece.resize(ALIGN, 0);
            piece.extend(biases);
            piece.resize(2 * ALIGN, 0);
            piece
        };
        let expected = [
            piece(1..=8, 101..=102),
            piece(9..=16, 103..=105),
            piece(17..=20, 106..=106),
        ];
        assert_eq!(found, expected.concat());
        let short = Pieces {
            weights: bytes(vec![1; 7]),
            biases: bytes(vec![1; 2]),
            cuts: vec![(8, 2)],
            head: 0,
        };
        assert!(short.write_to(&mut Vec::new()).is_err());
    }

    #[test]
    fn pieces_are_as_equal_as_may_be() {
        let cut = |count: usize| -> Vec<(usize, usize)> {
            let block = Block {
                count,
                filters: 4,
                tile: Tile {
                    pixels: 1,
                    channels: 4,
                    k_unroll: 1,
                },
            };
            let sizes = |block: &Block| (100 * block.count, 10 * block.count);
            let kinds = kinds(&block, 450, 0, &sizes);
            kinds.iter().map(|kind| (kind.count, kind.block.count)).collect()
        };
        assert_eq!(cut(10), [(2, 4), (1, 2)]);
        assert_eq!(cut(9), [(3, 3)]);
        assert_eq!(cut(4), [(1, 4)]);
        assert_eq!(cut(1), [(1, 1)]);
    }
}
