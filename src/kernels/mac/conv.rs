//! Convolution and dense layers: tiles of positions × channels, the sum innermost.

use super::super::emit::Emitter;
use super::super::lowered::{Lowered, Operands};
use super::super::overlap::{self, Unit};
use super::super::requantize::{Accumulator, Requantize};
use super::super::schedule::{self, Block, Element, Inner, Layouts, Tile};
use super::super::{Overlap, Parameter};
use super::halves::Halves;
use super::lanes::Lanes;
use super::lanes16::Lanes16;
use super::layer::Layer;
use super::packed::{self, Packed};
use super::quads;
use super::rows21;
use super::stage::Stage;
use super::table::Table;
use super::words::Words;
use crate::error::Result;
use crate::target::{Dot, LoopForm, Target, Without};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F32X4, I8X16, I16X8};
use cranelift_codegen::ir::{InstBuilder, Value};

/// Steps of a sum that are written out without a loop around them.
const STRAIGHT: usize = 8;

/// Bytes of the rows of a window that are copied rather than read wherever they are, if there are borders.
const SMALL: usize = 192;

/// A convolution with its schedule.
pub(super) struct Kernel<'a> {
    pub layer: &'a Layer<'a>,
    pub inner: Inner,
    pub blocks: Vec<Block>,
    /// Output positions of a row; of a band of a pointwise layer.
    positions: usize,
    stage: Option<Stage>,
    lanes: Option<Lanes>,
    halves: Option<Halves>,
    lanes16: Option<Lanes16>,
    packed: Option<Packed>,
    pub sum: Sum,
    pub after: After,
    /// Bytes of weights and of biases of one accumulator.
    pub weights: usize,
    pub entry: usize,
}

/// The loops over one channel's sum: `rows` × `runs` × `length` elements.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    pub rows: usize,
    /// Runs of contiguous elements in a row: one where the taps of a row adjoin.
    pub runs: usize,
    /// Elements of a run.
    pub length: usize,
    /// Bytes from one row to the next.
    pub row_bytes: usize,
    /// Bytes from one run to the next.
    pub run_bytes: usize,
    /// Bytes from one output position to the next.
    pub position_bytes: usize,
}

/// What follows the sum.
#[derive(Clone)]
pub(super) enum After {
    /// To int8.
    Requantize(Requantize),
    /// To int8, by [`Halves`].
    Words(Words),
    /// Bias and clamp.
    Float { min: f32, max: f32 },
}

/// How large the parameters of blocks are.
pub(super) struct Sizes {
    lanes: usize,
    weights: usize,
    entry: usize,
    words: Option<Words>,
    table: usize,
}

impl Sizes {
    /// Bytes before the biases of the first block, that all blocks read.
    pub fn head(&self) -> usize {
        self.table + self.words.as_ref().map_or(0, Words::head_bytes)
    }

    /// Bytes of weights and of biases of `block.count` blocks.
    pub fn of(&self, block: &Block) -> (usize, usize) {
        let vectors = block.count * block.tile.channels / self.lanes;
        let biases = match &self.words {
            Some(words) => block.count * words.block_bytes(block.tile.channels),
            None => vectors * self.entry,
        };
        (vectors * self.weights, biases)
    }
}

pub(super) fn lower(layer: &Layer, target: &Target, stem: &'static str) -> Result<Lowered> {
    let (kernel, parameters) = prepare(layer, target, None)?;
    if target.allows(LoopForm::Rows21)
        && let Some(mut lowered) = rows21::lower(layer, target, stem, kernel.cost())?
    {
        lowered.built.layouts = Some(Layouts::ROWS21);
        return Ok(lowered);
    }
    if target.allows(LoopForm::Quads)
        && let Some(mut lowered) = quads::lower(layer, target, stem, kernel.cost())?
    {
        lowered.built.layouts = Some(Layouts::QUADS);
        return Ok(lowered);
    }
    let schedule = kernel.schedule();
    let mut lowered = layer.lowered(target, stem, schedule, parameters, kernel.scratch(), |e| kernel.emit(e));
    lowered.built.layouts = Some(kernel.layouts());
    Ok(lowered.overlapping(layer.input(), kernel.gap(), 1))
}

/// What the pointers of [`lower`]'s kernel point at.
pub(super) fn operands(layer: &Layer, target: &Target) -> Result<Operands> {
    let (kernel, parameters) = prepare(layer, target, None)?;
    let mut operands = layer.operands(parameters, kernel.scratch());
    operands.overlaps.push(Overlap {
        input: layer.input(),
        gap: kernel.gap(),
        modulus: 1,
    });
    Ok(operands)
}

/// The kernel, its weights and its biases; with tiles of at most `widest` channels if that is given.
pub(super) fn prepare<'a>(
    layer: &'a Layer,
    target: &Target,
    widest: Option<usize>,
) -> Result<(Kernel<'a>, [Parameter; 2])> {
    let machine = target.machine();
    let mut inner = Inner::new(target, layer.dtype);
    let mut lanes = None;
    if inner == Inner::Scalar && machine.integer_bytes == 8 && layer.out_width >= 3 && target.allows(LoopForm::Lanes21)
    {
        // Words serve few channels.
        let packed = |lanes: &Lanes| {
            let blocks = schedule::lane_blocks(machine, layer.filters, layer.out_width, layer.weights.sum());
            let plain = schedule::blocks(machine, inner, layer.filters, layer.out_width);
            lanes.cost(layer, &blocks) <= packed::cost_plain(&plain, layer.out_width, layer.weights.sum())
        };
        lanes = layer.lane_parts()?.map(|parts| Lanes { parts }).filter(packed);
        inner = if lanes.is_some() { Inner::Lanes21 } else { inner };
    }
    let mut lanes16 = None;
    if inner == Inner::Scalar && target.allows(LoopForm::Lanes16) {
        lanes16 = Lanes16::new(layer, target)?;
        inner = if lanes16.is_some() { Inner::Lanes16 } else { inner };
    }
    if inner == Inner::Paired && !(target.allows(LoopForm::Paired) && layer.pairable()?) {
        inner = Inner::Halves;
    }
    let blocks = match lanes {
        Some(_) => schedule::lane_blocks(machine, layer.filters, layer.out_width, layer.weights.sum()),
        None => schedule::blocks(machine, inner, layer.filters, layer.out_width),
    };
    let blocks = lanes16.as_ref().map_or(blocks, |lanes| lanes.blocks(layer.filters));
    let (packed, blocks) = match inner {
        Inner::Scalar if target.allows(LoopForm::Packed) => {
            Packed::new(layer, target, &blocks)?.map_or((None, blocks), |(packed, own)| (Some(packed), own))
        }
        _ => (None, blocks),
    };
    let widest = match target.without {
        Without::TilesAbove(channels) => {
            let least = schedule::least_channels(inner);
            let channels = (channels / least * least).max(least);
            Some(widest.map_or(channels, |widest| widest.min(channels)))
        }
        _ => widest,
    };
    let blocks = match widest {
        Some(widest) => schedule::narrowed(&blocks, inner, layer.filters, widest),
        None => blocks,
    };
    let blocks = schedule::unrolled(blocks, inner, target.effort);
    let element = inner.element();
    let window = &layer.window;
    let adjoining = layer.groups == 1 && window.dilation[1] == 1;
    let (runs, length) = if adjoining {
        (1, window.size[1] * layer.depth)
    } else {
        (window.size[1], layer.depth)
    };
    // In place where elements need no conversion, there are no borders, and a last step cannot read too far.
    let in_place = match inner {
        Inner::Scalar
        | Inner::Lanes16
        | Inner::Lanes21
        | Inner::Paired
        | Inner::Halves
        | Inner::Float4
        | Inner::Float1 => !layer.padded(),
        Inner::Dot4(Dot::Signed) => !layer.padded() && length % inner.group() == 0,
        Inner::Dot4(Dot::Unsigned) | Inner::Pairs16 => false,
    };
    // Tiles of halves take their patches from wherever the rows are.
    let halved = matches!(inner, Inner::Paired | Inner::Halves);
    let row = (layer.width + layer.window.size[1]) * layer.channels;
    let direct = layer.table && layer.groups == 1 && halved && (!layer.padded() || layer.window.size[0] * row > SMALL);
    let in_place = if layer.table { direct } else { in_place };
    let pixel = layer.channels * element.bytes();
    let positions = if layer.pointwise() && !in_place {
        let tile = blocks.iter().map(|block| block.tile.pixels).max().unwrap_or(1);
        schedule::band(layer.out_width, tile, pixel)
    } else {
        layer.out_width
    };
    let copied = if layer.pointwise() {
        positions * layer.channels
    } else {
        layer.width * layer.channels
    };
    let stage = (!in_place).then(|| Stage::new(layer, element, copied, 1, inner.group() - 1));
    let sum = Sum {
        rows: window.size[0],
        runs,
        length,
        row_bytes: match &stage {
            Some(stage) => stage.row_bytes(),
            None => window.dilation[0] * layer.width * pixel,
        },
        run_bytes: window.dilation[1] * pixel,
        position_bytes: window.stride[1] * pixel,
    };
    let steps = sum.rows * sum.runs * sum.length.div_ceil(inner.group());
    let halves = matches!(inner, Inner::Paired | Inner::Halves).then(|| Halves {
        table: direct.then(|| Table::new(layer, target)),
        lean: layer.lean
            && in_place
            && layer.out_width == 1
            && sum.length.is_multiple_of(4)
            && sum.rows * sum.runs == 1,
        ..Halves::new(sum.rows * sum.runs, sum.length, inner == Inner::Paired, target.effort)
    });
    let halves = halves.map(|halves| halves.cut(&blocks));
    let packed = packed.map(|packed| packed.placed(&sum, layer.weights.sum()));
    let lanes16 = lanes16.map(|lanes| lanes.placed(&sum, layer.weights.sum()));
    let weights = match (&packed, &halves, &lanes16) {
        (Some(packed), ..) => packed.weights(layer, &blocks),
        (_, _, Some(lanes)) => layer.filter_parameter(layer.weights.lanes16(
            layer.groups,
            &blocks,
            &lanes.groups.order,
            lanes.lanes,
        )),
        (_, Some(halves), _) => layer.filter_parameter(layer.weights.halves(layer.groups, &blocks, halves)),
        _ => layer.weights_parameter(&blocks, inner, sum.rows * sum.runs),
    };
    let offset = if element == Element::U8 { 128 } else { 0 };
    let accumulator = match (&lanes, &lanes16) {
        (Some(lanes), _) => Accumulator::Biased(lanes.excess()),
        (_, Some(lanes)) if machine.integer_bytes == 8 => Accumulator::Biased(lanes.excess()),
        _ if inner.lanes() > 1 => Accumulator::Vector,
        _ if machine.integer_bytes == 4 => Accumulator::Word,
        _ => Accumulator::Scalar,
    };
    let (bias, after, entry) = match (&packed, &halves) {
        (Some(packed), _) => {
            let (bias, requantize, entry) = packed.parameter(layer, target, &blocks, &sum)?;
            (bias, After::Requantize(requantize), entry)
        }
        (_, Some(halves)) => {
            let (bias, words) = layer.words_parameter(target, &blocks, halves.scales())?;
            (bias, After::Words(words), 0)
        }
        (None, None) => {
            let (bias, requantize) = layer.bias_parameter(target, &blocks, inner, accumulator, offset)?;
            let (after, entry) = After::new(layer, requantize, inner);
            let bias = match &lanes16 {
                Some(lanes) => lanes.parameter(bias, &sum)?,
                None => bias,
            };
            (bias, after, entry)
        }
    };
    let kernel = Kernel {
        layer,
        inner,
        positions,
        sum,
        after,
        weights: match (&packed, &halves, &lanes16) {
            (Some(packed), ..) => packed.groups.order.len(),
            (_, Some(halves), _) => halves.weights(),
            (_, _, Some(lanes)) => lanes.groups.order.len(),
            _ => steps * inner.lanes() * inner.group() * inner.weight_bytes(),
        },
        entry,
        stage,
        blocks,
        lanes,
        halves,
        lanes16,
        packed,
    };
    Ok((kernel, [weights, bias]))
}

impl Kernel<'_> {
    /// Which schedule it has, in words.
    pub fn schedule(&self) -> String {
        let schedule = schedule::describe(self.inner, &self.blocks);
        match (&self.after, &self.packed) {
            _ if self.lanes16.is_some() => {
                let groups = self.lanes16.as_ref().map(|lanes| lanes.groups.to_string());
                format!("{schedule}, {}", groups.unwrap_or_default())
            }
            (After::Words(words), _) => format!("{schedule}, {}", words.name()),
            (After::Requantize(requantize), Some(packed)) => {
                let schedule = schedule.replacen(Inner::Scalar.to_string().as_str(), "packed", 1);
                format!("{schedule}, {}, {}", packed.groups, requantize.name())
            }
            _ => schedule,
        }
    }

    /// Instructions of an int8 layer without vectors, about, where more than one form is possible.
    fn cost(&self) -> u64 {
        let layer = self.layer;
        let sum = layer.weights.sum();
        if let Some(lanes) = &self.lanes16 {
            return lanes.cost(layer.filters);
        }
        let row = match &self.lanes {
            Some(lanes) => lanes.cost(layer, &self.blocks),
            None => packed::cost_plain(&self.blocks, layer.out_width, sum),
        };
        let copied = match &self.stage {
            Some(_) if !layer.pointwise() => 3 * layer.window.size[0] * layer.width * layer.channels,
            _ => 0,
        };
        (row * layer.groups as u64 + copied as u64) * (layer.batch * layer.out_height) as u64
    }

    /// How its operands lie.
    fn layouts(&self) -> Layouts {
        let tile = self.blocks.first().map(|block| block.tile);
        match (&self.packed, &self.halves) {
            (Some(_), _) => Layouts {
                activations: "two positions' elements, 16 bits apart, in a word of scratch",
                ..Layouts::new(self.inner, tile)
            },
            (_, Some(halves)) if halves.lean => Layouts {
                activations: "int8, in place",
                ..Layouts::new(self.inner, tile)
            },
            _ => Layouts::new(self.inner, tile),
        }
    }

    /// How large the parameters of blocks are.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            lanes: self.inner.lanes(),
            weights: self.weights,
            entry: self.entry,
            words: match &self.after {
                After::Words(words) => Some(words.clone()),
                _ => None,
            },
            table: self.table(),
        }
    }

    /// Bytes of scratch.
    pub fn scratch(&self) -> usize {
        let lanes = self.lanes.as_ref().map_or(0, |lanes| lanes.bytes(self));
        let halves = self.halves.as_ref().map_or(0, |halves| halves.bytes(&self.blocks));
        let lanes16 = self.lanes16.as_ref().map_or(0, Lanes16::bytes);
        let packed = self.packed.as_ref().map_or(0, Packed::bytes);
        self.staged_bytes() + lanes + halves + lanes16 + packed
    }

    /// Bytes of the table of elements before all biases.
    fn table(&self) -> usize {
        match (&self.packed, &self.lanes16) {
            (Some(packed), _) => packed.head(),
            (_, Some(lanes)) => lanes.head(),
            _ => 0,
        }
    }

    /// Bytes of scratch that rows take.
    pub fn staged_bytes(&self) -> usize {
        self.stage.as_ref().map_or(0, Stage::bytes)
    }

    /// The least distance of the output below the input.
    fn gap(&self) -> u64 {
        let layer = self.layer;
        let element = self.output_bytes();
        let (read, written) = (layer.channels * element, layer.out_channels() * element);
        if let Some(halves) = self.halves.as_ref().filter(|halves| halves.table.is_some()) {
            return halves.gap(self);
        }
        if !layer.pointwise() {
            let rows = overlap::rows(
                layer.batch,
                [layer.height, layer.out_height],
                [layer.width * read, layer.out_width * written],
                layer.window.stride[0],
                layer.window.padding.top,
            );
            return overlap::gap(&rows, self.stage.is_some());
        }
        // Patches of a tile are copied before any channel of it is written.
        let tile = self.blocks.iter().map(|block| block.tile.pixels).max();
        let packed =
            self.halves.as_ref().is_some_and(|halves| !halves.lean) || self.lanes.is_some() || self.packed.is_some();
        let (each, staged) = match tile {
            Some(tile) if packed && self.stage.is_none() => (tile.min(layer.out_width), true),
            _ => (self.positions, self.stage.is_some()),
        };
        let unit = |(first, count): (usize, usize)| Unit {
            reads: (first * read) as u64,
            written: ((first + count) * written) as u64,
        };
        let units: Vec<Unit> = round_places(layer.out_width, each).into_iter().map(unit).collect();
        overlap::gap(&units, staged)
    }

    pub fn emit(&self, e: &mut Emitter) {
        let layer = self.layer;
        let (input, weights, biases, output) = (e.args[0], e.args[1], e.args[2], e.args[3]);
        let scratch = e.args.get(4).copied();
        if let (Some(stage), Some(scratch)) = (&self.stage, scratch) {
            stage.borders(e, scratch);
        }
        let element = if self.inner.weight_bytes() == 4 { 4 } else { 1 };
        let row = (layer.width * layer.channels * element) as i64;
        let all = layer.out_channels();
        let base = |e: &mut Emitter, source: Value, y: Value, copied: usize| match (&self.stage, scratch) {
            (Some(stage), Some(scratch)) => {
                stage.copy(e, scratch, source, y, copied, layer.window.dilation[0]);
                scratch
            }
            _ => source,
        };
        if layer.pointwise() {
            let top = e.int(e.pointer, 0);
            let steps = [
                (input, (layer.channels * element) as i64),
                (output, (all * element) as i64),
            ];
            rounds(e, layer.out_width, self.positions, &steps, |e, p, positions| {
                let base = base(e, p[0], top, positions * layer.channels);
                self.row(e, base, weights, biases, p[1], positions);
            });
            return;
        }
        let written = (layer.out_width * all * element) as i64;
        let image = [
            (input, layer.height as i64 * row),
            (output, layer.out_height as i64 * written),
        ];
        let [stride, _] = layer.window.stride;
        e.counted(layer.batch as u64, &image, &[], |e, p, _| {
            let top = layer.window.padding.top as i64;
            let source = e.offset(p[0], -top * row);
            let y = e.int(e.pointer, -top);
            let rows = [(source, stride as i64 * row), (p[1], written)];
            e.counted(layer.out_height as u64, &rows, &[y], |e, p, y| {
                let base = base(e, p[0], y[0], layer.width * layer.channels);
                self.row(e, base, weights, biases, p[1], layer.out_width);
                vec![e.offset(y[0], stride as i64)]
            });
            vec![]
        });
    }

    /// All channels of a row's (or band's) output positions.
    fn row(&self, e: &mut Emitter, base: Value, weights: Value, biases: Value, output: Value, positions: usize) {
        let layer = self.layer;
        let element = self.output_bytes();
        let accumulators: usize =
            self.blocks.iter().map(|b| b.count * b.tile.channels).sum::<usize>() / self.inner.lanes();
        let (mut biases, mut constants) = (biases, (accumulators * self.entry) as i64);
        let mut head = None;
        if let After::Words(words) = &self.after {
            constants = (self.blocks.iter())
                .map(|block| (block.count * words.block_bytes(block.tile.channels)) as i64)
                .sum();
            head = Some(words.keep(e, biases));
            biases = e.offset(biases, words.head_bytes() as i64);
        }
        let table = biases;
        biases = e.offset(biases, self.table() as i64);
        let groups = [
            (base, (layer.depth * self.inner.element().bytes()) as i64),
            (weights, (accumulators * self.weights) as i64),
            (biases, constants),
            (output, (layer.filters * element) as i64),
        ];
        e.counted(layer.groups as u64, &groups, &[], |e, p, _| {
            if let Some(lanes) = &self.lanes {
                lanes.group(self, e, p[0], p[1], p[2], p[3], positions);
                return vec![];
            }
            if let Some(packed) = &self.packed {
                packed.group(self, e, [p[0], p[1], p[2], p[3], table], positions);
                return vec![];
            }
            if let Some(lanes) = &self.lanes16 {
                lanes.group(self, e, [p[0], p[1], p[2], p[3], table]);
                return vec![];
            }
            if let (Some(halves), Some(head)) = (&self.halves, head) {
                halves.group(self, e, p[0], p[1], p[2], p[3], positions, head);
                return vec![];
            }
            let base = p[0];
            let (mut weights, mut biases, mut output) = (p[1], p[2], p[3]);
            for block in &self.blocks {
                let vectors = block.tile.channels / self.inner.lanes();
                let steps = [
                    (weights, (vectors * self.weights) as i64),
                    (biases, (vectors * self.entry) as i64),
                    (output, (block.filters * element) as i64),
                ];
                let (_, ends) = e.counted(block.count as u64, &steps, &[], |e, p, _| {
                    let (weights, biases) = (p[0], p[1]);
                    let pixels = block.tile.pixels.min(positions);
                    let steps = [
                        (base, self.sum.position_bytes as i64),
                        (p[2], (layer.out_channels() * element) as i64),
                    ];
                    rounds(e, positions, pixels, &steps, |e, p, pixels| {
                        self.tile(e, p[0], weights, biases, p[1], block, pixels);
                    });
                    vec![]
                });
                (weights, biases, output) = (ends[0], ends[1], ends[2]);
            }
            vec![]
        });
    }

    /// Bytes of an element of the output.
    pub fn output_bytes(&self) -> usize {
        if matches!(self.after, After::Float { .. }) {
            4
        } else {
            1
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn tile(
        &self,
        e: &mut Emitter,
        base: Value,
        weights: Value,
        biases: Value,
        output: Value,
        block: &Block,
        pixels: usize,
    ) {
        let vectors = block.tile.channels / self.inner.lanes();
        let starts: Vec<Value> = (0..vectors)
            .map(|c| self.after.start(e, self.inner, biases, (c * self.entry) as i32))
            .collect();
        let starts: Vec<Value> = (0..pixels * vectors).map(|i| starts[i % vectors]).collect();
        let tile = Tile { pixels, ..block.tile };
        let mut sums = self.sums(e, base, weights, &tile, starts);
        let stride = self.layer.out_channels() * self.output_bytes();
        self.after.finish(
            e,
            self.inner,
            biases,
            self.entry,
            &mut sums,
            vectors,
            |p| (output, p * stride),
            block.filters,
        );
    }

    /// The complete sums of a tile.
    fn sums(&self, e: &mut Emitter, base: Value, weights: Value, tile: &Tile, starts: Vec<Value>) -> Vec<Value> {
        let sum = self.sum;
        let inner = self.inner;
        let group = inner.group();
        let steps = sum.length.div_ceil(group);
        let step_bytes = (group * inner.element().bytes()) as i32;
        // All channels of the block.
        let weight_bytes = (tile.channels * group * inner.weight_bytes()) as i32;
        let straight = |e: &mut Emitter, a: Value, at: i32, w: Value, w_at: i32, steps: usize, mut sums: Vec<Value>| {
            for k in 0..steps as i32 {
                let (a_at, w_at) = (at + k * step_bytes, w_at + k * weight_bytes);
                self.step(e, tile, a, a_at, w, w_at, &mut sums);
            }
            sums
        };
        if sum.rows * sum.runs * steps <= STRAIGHT {
            let mut sums = starts;
            for row in 0..sum.rows {
                for run in 0..sum.runs {
                    let at = (row * sum.row_bytes + run * sum.run_bytes) as i32;
                    let w_at = ((row * sum.runs + run) * steps) as i32 * weight_bytes;
                    sums = straight(e, base, at, weights, w_at, steps, sums);
                }
            }
            return sums;
        }
        let run_weights = (steps as i32 * weight_bytes) as i64;
        let rows = [(base, sum.row_bytes as i64), (weights, sum.runs as i64 * run_weights)];
        let (sums, _) = e.counted(sum.rows as u64, &rows, &starts, |e, p, sums| {
            let runs = [(p[0], sum.run_bytes as i64), (p[1], run_weights)];
            let (sums, _) = e.counted(sum.runs as u64, &runs, sums, |e, p, sums| {
                if steps <= STRAIGHT {
                    return straight(e, p[0], 0, p[1], 0, steps, sums.to_vec());
                }
                let unroll = tile.k_unroll;
                let moved = [
                    (p[0], unroll as i64 * i64::from(step_bytes)),
                    (p[1], unroll as i64 * i64::from(weight_bytes)),
                ];
                let (sums, ends) = e.counted((steps / unroll) as u64, &moved, sums, |e, p, sums| {
                    straight(e, p[0], 0, p[1], 0, unroll, sums.to_vec())
                });
                straight(e, ends[0], 0, ends[1], 0, steps % unroll, sums)
            });
            sums
        });
        sums
    }

    /// One step of the sum in all accumulators of a tile: weights loaded once, shared by the positions.
    #[allow(clippy::too_many_arguments)]
    fn step(&self, e: &mut Emitter, tile: &Tile, a: Value, a_at: i32, w: Value, w_at: i32, sums: &mut [Value]) {
        let inner = self.inner;
        let vectors = tile.channels / inner.lanes();
        let bytes = (inner.lanes() * inner.group() * inner.weight_bytes()) as i32;
        let weight = |e: &mut Emitter, c: usize| load_weights(e, inner, w, w_at + c as i32 * bytes);
        // For one position a load next to its only use becomes an operand of that instruction.
        let shared: Vec<Value> = if tile.pixels > 1 {
            (0..vectors).map(|c| weight(e, c)).collect()
        } else {
            Vec::new()
        };
        for p in 0..tile.pixels {
            let at = a_at + (p * self.sum.position_bytes) as i32;
            let x = match inner {
                Inner::Pairs16 => e.load_splat(I16X8, a, at),
                Inner::Dot4(_) => e.load_splat(I8X16, a, at),
                Inner::Scalar | Inner::Lanes16 | Inner::Lanes21 | Inner::Paired | Inner::Halves => {
                    e.load_integer8(a, at)
                }
                Inner::Float4 => e.load_splat(F32X4, a, at),
                Inner::Float1 => e.load(F32, a, at),
            };
            for c in 0..vectors {
                let w = if tile.pixels > 1 { shared[c] } else { weight(e, c) };
                let sum = &mut sums[p * vectors + c];
                *sum = multiply_accumulate(e, inner, *sum, w, x);
            }
        }
    }
}

/// `body(emitter, pointers, count)` for every `each` of `total` positions, with pointers that advance by their step for
/// each position. Where `total` is no multiple, the last round overlaps the one before and computes some positions
/// again, the same values in the same piece of code; unless that were more than an eighth of the work: then what is left
/// is code of its own. `each` is at most `total`.
pub(super) fn rounds(
    e: &mut Emitter,
    total: usize,
    each: usize,
    pointers: &[(Value, i64)],
    mut body: impl FnMut(&mut Emitter, &[Value], usize),
) {
    let rest = total % each;
    let moved: Vec<(Value, i64)> = pointers
        .iter()
        .map(|(start, step)| (*start, step * each as i64))
        .collect();
    if rest == 0 || (each - rest) * 8 > total {
        let (_, ends) = e.counted((total / each) as u64, &moved, &[], |e, p, _| {
            body(e, p, each);
            vec![]
        });
        if rest > 0 {
            body(e, &ends, rest);
        }
        return;
    }
    overlapped(e, total, each, pointers, |e, p| body(e, p, each));
}

/// The same where the last round always overlaps the one before.
pub(super) fn overlapped(
    e: &mut Emitter,
    total: usize,
    each: usize,
    pointers: &[(Value, i64)],
    mut body: impl FnMut(&mut Emitter, &[Value]),
) {
    let moved: Vec<(Value, i64)> = pointers
        .iter()
        .map(|(start, step)| (*start, step * each as i64))
        .collect();
    if total.is_multiple_of(each) {
        e.counted((total / each) as u64, &moved, &[], |e, p, _| {
            body(e, p);
            vec![]
        });
        return;
    }
    let last: Vec<Value> = pointers
        .iter()
        .map(|(start, step)| e.offset(*start, step * (total - each) as i64))
        .collect();
    let starts: Vec<Value> = pointers.iter().map(|(start, _)| *start).collect();
    e.counted(total.div_ceil(each) as u64, &[], &starts, |e, _, p| {
        body(e, p);
        let next: Vec<Value> = p.iter().zip(&moved).map(|(p, (_, step))| e.offset(*p, *step)).collect();
        let past = e.b.ins().icmp(IntCC::UnsignedGreaterThan, next[0], last[0]);
        next.iter()
            .zip(&last)
            .map(|(next, last)| e.b.ins().select(past, *last, *next))
            .collect()
    });
}

/// First position and number of positions of each round of [`rounds`].
pub(super) fn round_places(total: usize, each: usize) -> Vec<(usize, usize)> {
    let rest = total % each;
    let last = match rest {
        0 => None,
        _ if (each - rest) * 8 > total => Some((total - rest, rest)),
        _ => Some((total - each, each)),
    };
    (0..total / each).map(|i| (i * each, each)).chain(last).collect()
}

/// The weights of one accumulator and step.
pub(super) fn load_weights(e: &mut Emitter, inner: Inner, from: Value, at: i32) -> Value {
    match inner {
        Inner::Pairs16 => e.load_i8x8(from, at),
        Inner::Dot4(_) => e.load(I8X16, from, at),
        Inner::Scalar | Inner::Lanes16 | Inner::Lanes21 | Inner::Paired | Inner::Halves => e.load_integer8(from, at),
        Inner::Float4 => e.load(F32X4, from, at),
        Inner::Float1 => e.load(F32, from, at),
    }
}

/// `sum + w·x`, for all elements of a step.
pub(super) fn multiply_accumulate(e: &mut Emitter, inner: Inner, sum: Value, w: Value, x: Value) -> Value {
    match inner {
        Inner::Pairs16 => e.pairs(sum, w, x),
        Inner::Dot4(kind) => e.dot(kind, sum, w, x),
        Inner::Scalar | Inner::Lanes16 | Inner::Lanes21 | Inner::Paired | Inner::Halves => {
            let product = e.b.ins().imul(w, x);
            e.b.ins().iadd(sum, product)
        }
        Inner::Float4 | Inner::Float1 => {
            if e.target.machine().fused_multiply_add {
                e.b.ins().fma(x, w, sum)
            } else {
                let product = e.b.ins().fmul(x, w);
                e.b.ins().fadd(sum, product)
            }
        }
    }
}

impl After {
    /// What follows the sums of `layer`, and the bytes of its constants for one accumulator.
    pub fn new(layer: &Layer, requantize: Option<Requantize>, inner: Inner) -> (Self, usize) {
        match requantize {
            Some(requantize) => {
                let entry = requantize.entry_bytes();
                (After::Requantize(requantize), entry)
            }
            None => {
                let (min, max) = layer.float_range();
                (After::Float { min, max }, 4 * inner.lanes())
            }
        }
    }

    /// What a sum starts from.
    pub fn start(&self, e: &mut Emitter, inner: Inner, biases: Value, at: i32) -> Value {
        match self {
            After::Requantize(requantize) => requantize.start(e, biases, at),
            After::Words(_) => unreachable!("the kernels of words have starts of their own"),
            After::Float { .. } if inner == Inner::Float4 => e.splat_f32(0.0),
            After::Float { .. } => e.b.ins().f32const(0.0),
        }
    }

    /// Completes and stores `sums`: `vectors` accumulators for each position, the first `filters` channels of them at
    /// `output(position)` (pointer and offset). `entry` is the size of an accumulator's constants.
    #[allow(clippy::too_many_arguments)]
    pub fn finish(
        &self,
        e: &mut Emitter,
        inner: Inner,
        biases: Value,
        entry: usize,
        sums: &mut [Value],
        vectors: usize,
        output: impl Fn(usize) -> (Value, usize),
        filters: usize,
    ) {
        // An accumulator's constants serve all positions.
        for c in 0..vectors {
            let at = (c * entry) as i32;
            match self {
                After::Requantize(requantize) => {
                    let constants = requantize.load(e, biases, at);
                    for sum in sums.iter_mut().skip(c).step_by(vectors) {
                        *sum = requantize.apply(e, *sum, &constants);
                    }
                }
                After::Words(_) => unreachable!("the kernels of words have an end of their own"),
                After::Float { min, max } => {
                    let bias = load_weights(e, inner, biases, at);
                    for sum in sums.iter_mut().skip(c).step_by(vectors) {
                        let value = e.b.ins().fadd(*sum, bias);
                        *sum = e.clamp_f32(value, *min, *max);
                    }
                }
            }
        }
        for (position, results) in sums.chunks(vectors).enumerate() {
            let (to, at) = output(position);
            match (self, inner.lanes()) {
                (After::Requantize(requantize), 4) => {
                    for (i, four) in results.chunks(4).enumerate() {
                        let bytes = requantize.narrow(e, four);
                        let live = (filters - 16 * i).min(4 * four.len());
                        e.store_bytes(bytes, live, to, (at + 16 * i) as i32);
                    }
                }
                (After::Requantize(_) | After::Words(_), _) => {
                    for (i, result) in results.iter().enumerate() {
                        e.store_i8(*result, to, (at + i) as i32);
                    }
                }
                (After::Float { .. }, 4) => {
                    for (i, result) in results.iter().enumerate() {
                        let live = 4 * (filters - 4 * i).min(4);
                        e.store_bytes(*result, live, to, (at + 16 * i) as i32);
                    }
                }
                (After::Float { .. }, _) => {
                    for (i, result) in results.iter().enumerate() {
                        e.store(*result, to, (at + 4 * i) as i32);
                    }
                }
            }
        }
    }
}
