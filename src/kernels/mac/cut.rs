//! Layers whose parameters come piece by piece: a kernel for each kind of piece, which computes some output channels.
//!
//! A piece holds the weights of a few blocks of channels and, behind them at a multiple of 16 bytes, their biases. Both
//! follow one another in the order in which the whole kernel would read them, so that pieces are runs of either.

use super::super::emit::Built;
use super::super::lowered::LoweredOperand;
use super::super::schedule::{Block, least_channels};
use super::super::{Parameter, Scratch};
use super::conv;
use super::layer::Layer;
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

/// Cuts a layer into pieces of at most `most` bytes. `None` if it is none that can be cut.
///
/// # Errors
/// [`Code::Limit`] if the channels that are computed together take more, and those of reading the model.
pub(super) fn cut(layer: &Layer, target: &Target, stem: &'static str, most: u64) -> Result<Option<Cut>> {
    if layer.groups != 1 {
        return Ok(None);
    }
    let (kernel, parameters) = conv::prepare(layer, target, None)?;
    let (inner, weights, entry) = (kernel.inner, kernel.weights, kernel.entry);
    let sizes = |channels: usize| {
        let vectors = channels / inner.lanes();
        (vectors * weights, vectors * entry)
    };
    let bytes = |channels: usize| {
        let (weights, biases) = sizes(channels);
        (weights.next_multiple_of(ALIGN) + biases) as u64
    };
    let least = least_channels(inner);
    let widest = kernel.blocks.iter().map(|block| block.tile.channels).max().unwrap_or(least);
    let width = (1..=widest / least).rev().map(|n| n * least).find(|width| bytes(*width) <= most);
    let Some(width) = width else {
        let what = format!(
            "{least} channels of {} weights are computed together and take {} bytes of parameters, more than {most}",
            layer.weights.sum(),
            bytes(least)
        );
        return Err(Error::new(Code::Limit, what)
            .at(layer.op().describe())
            .help(format!("give --stream-buffer {}", bytes(least).next_multiple_of(1024))));
    };
    let (mut kernel, [filter, bias]) = match width < widest {
        true => conv::prepare(layer, target, Some(width))?,
        false => (kernel, parameters),
    };
    let schedule = kernel.schedule();
    let scratch = kernel.scratch();
    let kinds: Vec<Kind> = kernel.blocks.iter().flat_map(|block| kinds(block, most, &bytes)).collect();

    let (mut start, mut output) = (0, 0);
    let (mut runs, mut cuts) = (Vec::new(), Vec::new());
    let mut operands = Vec::new();
    let mut reserved = None;
    for Kind { block, count } in &kinds {
        let (weights, biases) = sizes(block.count * block.tile.channels);
        let behind = weights.next_multiple_of(ALIGN);
        let piece = (behind + biases).next_multiple_of(ALIGN) as u64;
        let channels = (block.count * block.filters * kernel.output_bytes()) as u64;
        kernel.blocks = vec![*block];
        let parameters = [filter.clone(), bias.clone()];
        let lowered = layer.lowered(target, stem, String::new(), parameters, scratch, |e| kernel.emit(e));
        let mut offsets = vec![(0, 0); lowered.operands.len()];
        offsets[1] = (0, piece);
        offsets[2] = (behind as u64, piece);
        offsets[3] = (output, channels);
        runs.push(Run {
            built: lowered.built,
            count: *count as u64,
            start,
            piece,
            bytes: (behind + biases) as u64,
            offsets,
        });
        cuts.extend(std::iter::repeat_n((weights, biases), *count));
        start += piece * *count as u64;
        output += channels * *count as u64;
        operands = lowered.operands;
        reserved = lowered.scratch;
    }
    let tensors = filter.tensors.iter().chain(bias.tensors.iter().filter(|id| !filter.tensors.contains(id)));
    let parameter = Parameter {
        tensors: tensors.copied().collect(),
        contents: Contents::Transform(Arc::new(Pieces {
            weights: filter.contents,
            biases: bias.contents,
            cuts,
        })),
        ..filter
    };
    Ok(Some(Cut {
        stem,
        schedule,
        parameter,
        operands,
        scratch: reserved,
        runs,
    }))
}

/// Pieces of a block, as equal as may be.
fn kinds(block: &Block, most: u64, bytes: &impl Fn(usize) -> u64) -> Vec<Kind> {
    let fitting = (1..=block.count).rev().find(|count| bytes(count * block.tile.channels) <= most);
    let pieces = block.count.div_ceil(fitting.unwrap_or(1));
    let each = block.count.div_ceil(pieces.max(1)).max(1);
    let kind = |tiles: usize, count: usize| Kind {
        block: Block {
            count: tiles,
            ..*block
        },
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
    /// Bytes of weights and of biases of each piece.
    cuts: Vec<(usize, usize)>,
}

impl Transform for Pieces {
    fn len(&self) -> u64 {
        let piece = |(weights, biases): &(usize, usize)| weights.next_multiple_of(ALIGN) + biases.next_multiple_of(ALIGN);
        self.cuts.iter().map(|cut| piece(cut) as u64).sum()
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut biases = Vec::new();
        self.biases.write_to(&mut biases)?;
        let mut writer = Interleaved {
            out,
            biases: &biases,
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
        self.out.write_all(these)?;
        self.out.write_all(&[0; ALIGN][..biases.next_multiple_of(ALIGN) - biases])?;
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
