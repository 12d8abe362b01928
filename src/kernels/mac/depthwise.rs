//! Depthwise convolution: vectors of channels, the window innermost.

use super::super::Parameter;
use super::super::emit::Emitter;
use super::super::lowered::Lowered;
use super::super::overlap;
use super::super::requantize::Accumulator;
use super::super::schedule::{self, Block, Element, Inner, Layouts};
use super::columns;
use super::conv::{After, load_weights, multiply_accumulate, rounds};
use super::layer::Layer;
use super::planes;
use super::stage::Stage;
use super::strips;
use crate::error::Result;
use crate::target::{Dot, LoopForm, Target};
use cranelift_codegen::ir::Value;
use cranelift_codegen::ir::types::{F32, F32X4, I8X16};

/// Steps of a window that are written out without a loop around them.
const STRAIGHT: usize = 8;

pub(super) struct Kernel<'a> {
    layer: &'a Layer<'a>,
    pub inner: Inner,
    pub blocks: Vec<Block>,
    /// The channel that the first block begins with.
    pub first: usize,
    stage: Option<Stage>,
    after: After,
    pub entry: usize,
    /// Bytes from one row of a window to the next, from one tap to the next, from one output position to the next.
    row_bytes: usize,
    tap_bytes: usize,
    position_bytes: usize,
    /// Taps that steps may span: the whole window, or a row of it.
    run: usize,
}

pub(super) fn lower(layer: &Layer, target: &Target, stem: &'static str) -> Result<Lowered> {
    if target.allows(LoopForm::Columns)
        && let Some(mut lowered) = columns::lower(layer, target, stem)?
    {
        lowered.built.layouts = Some(Layouts::COLUMNS);
        return Ok(lowered);
    }
    if target.allows(LoopForm::RowPairs)
        && let Some(mut lowered) = strips::lower(layer, target, stem)?
    {
        lowered.built.layouts = Some(Layouts::ROW_PAIRS);
        return Ok(lowered);
    }
    if target.allows(LoopForm::Planes)
        && let Some(mut lowered) = planes::lower(layer, target, stem)?
    {
        lowered.built.layouts = Some(Layouts::PLANES);
        return Ok(lowered);
    }
    let (kernel, parameters) = prepare(layer, target)?;
    let schedule = kernel.schedule();
    let mut lowered = layer.lowered(target, stem, schedule, parameters, kernel.scratch(), |e| kernel.emit(e));
    lowered.built.layouts = Some(Layouts::new(
        kernel.inner,
        kernel.blocks.first().map(|block| block.tile),
    ));
    Ok(lowered.overlapping(layer.input(), kernel.gap(), 1))
}

/// The kernel, its weights and its biases.
pub(super) fn prepare<'a>(layer: &'a Layer, target: &Target) -> Result<(Kernel<'a>, [Parameter; 2])> {
    let machine = target.machine();
    // A step sums neighbouring taps; in dot products, four vectors of 16 channels transposed.
    let channels = layer.out_channels();
    let inner = Inner::depthwise(target, layer.dtype, channels);
    let blocks = schedule::depthwise_blocks(machine, inner, channels, layer.out_width);
    let width = schedule::depthwise_width(inner);
    let repeat = layer.filters;
    // A block's vector may reach past the last channel, which only scratch allows.
    let in_place = !layer.padded()
        && !layer.table
        && repeat == 1
        && channels.is_multiple_of(width)
        && !matches!(inner, Inner::Dot4(Dot::Unsigned));
    let staged = match inner.element() {
        // Widened on load, eight at a time.
        Element::I16 => Element::I8,
        element => element,
    };
    let window = &layer.window;
    let stage = (!in_place).then(|| Stage::new(layer, staged, layer.width * layer.channels, repeat, width - 1));
    let pixel = channels * staged.bytes();
    let taps = window.size[0] * window.size[1];
    let whole = taps.div_ceil(inner.group()) <= STRAIGHT;
    let run = if whole { taps } else { window.size[1] };
    // To the weights and biases, channels are one group: the repeated inputs are channels of their own.
    let flat = layer.flattened();
    let weights = flat.weights_parameter(&blocks, inner, taps / run);
    let offset = if staged == Element::U8 { 128 } else { 0 };
    let accumulator = match (inner.lanes(), machine.integer_bytes) {
        (1, 4) => Accumulator::Word,
        (1, _) => Accumulator::Scalar,
        _ => Accumulator::Vector,
    };
    let (bias, requantize) = flat.bias_parameter(target, &blocks, inner, accumulator, offset)?;
    let (after, entry) = After::new(layer, requantize, inner);
    let kernel = Kernel {
        layer,
        inner,
        after,
        entry,
        row_bytes: match &stage {
            Some(stage) => stage.row_bytes(),
            None => window.dilation[0] * layer.width * pixel,
        },
        tap_bytes: window.dilation[1] * pixel,
        position_bytes: window.stride[1] * pixel,
        run,
        stage,
        blocks,
        first: 0,
    };
    Ok((kernel, [weights, bias]))
}

impl Kernel<'_> {
    /// Which schedule it has, in words.
    pub fn schedule(&self) -> String {
        schedule::describe(self.inner, &self.blocks)
    }

    /// Bytes of scratch.
    pub fn scratch(&self) -> usize {
        self.stage.as_ref().map_or(0, Stage::bytes)
    }

    /// The least distance of the output below the input.
    fn gap(&self) -> u64 {
        let layer = self.layer;
        let element = self.element_bytes();
        let rows = overlap::rows(
            layer.batch,
            [layer.height, layer.out_height],
            [
                layer.width * layer.channels * element,
                layer.out_width * layer.out_channels() * element,
            ],
            layer.window.stride[0],
            layer.window.padding.top,
        );
        overlap::gap(&rows, self.stage.is_some())
    }

    pub fn emit(&self, e: &mut Emitter) {
        let layer = self.layer;
        let (input, weights, biases, output) = (e.args[0], e.args[1], e.args[2], e.args[3]);
        let scratch = e.args.get(4).copied();
        if let (Some(stage), Some(scratch)) = (&self.stage, scratch) {
            stage.borders(e, scratch);
        }
        let element = self.element_bytes();
        let row = (layer.width * layer.channels * element) as i64;
        let written = (layer.out_width * layer.out_channels() * element) as i64;
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
                let base = match (&self.stage, scratch) {
                    (Some(stage), Some(scratch)) => {
                        let copied = layer.width * layer.channels;
                        stage.copy(e, scratch, p[0], y[0], copied, layer.window.dilation[0]);
                        scratch
                    }
                    _ => p[0],
                };
                self.row(e, base, weights, biases, p[1]);
                vec![e.offset(y[0], stride as i64)]
            });
            vec![]
        });
    }

    /// Bytes of an element of the input and the output.
    pub fn element_bytes(&self) -> usize {
        if matches!(self.after, After::Float { .. }) {
            4
        } else {
            1
        }
    }

    /// Bytes of a block's weights.
    pub fn block_weights(&self, block: &Block) -> usize {
        self.runs() * self.steps() * block.tile.channels * self.inner.group() * self.inner.weight_bytes()
    }

    fn runs(&self) -> usize {
        self.layer.window.size[0] * self.layer.window.size[1] / self.run
    }

    fn steps(&self) -> usize {
        self.run.div_ceil(self.inner.group())
    }

    fn row(&self, e: &mut Emitter, base: Value, weights: Value, biases: Value, output: Value) {
        let layer = self.layer;
        let element = self.element_bytes();
        let positions = layer.out_width;
        let base = e.offset(base, (self.first * element) as i64);
        let (mut base, mut weights, mut biases, mut output) = (base, weights, biases, output);
        for block in &self.blocks {
            let vectors = block.tile.channels / self.inner.lanes();
            let steps = [
                (base, (block.filters * element) as i64),
                (weights, self.block_weights(block) as i64),
                (biases, (vectors * self.entry) as i64),
                (output, (block.filters * element) as i64),
            ];
            let (_, ends) = e.counted(block.count as u64, &steps, &[], |e, p, _| {
                let (weights, biases) = (p[1], p[2]);
                let pixels = block.tile.pixels;
                let steps = [
                    (p[0], self.position_bytes as i64),
                    (p[3], (layer.out_channels() * element) as i64),
                ];
                rounds(e, positions, pixels, &steps, |e, p, pixels| {
                    self.tile(e, p[0], weights, biases, p[1], block, pixels);
                });
                vec![]
            });
            (base, weights, biases, output) = (ends[0], ends[1], ends[2], ends[3]);
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
        let group = self.inner.group();
        let step_weights = (block.tile.channels * group * self.inner.weight_bytes()) as i32;
        let taps = self.layer.window.size[1];
        // Offset of a tap that is counted through the rows of the window.
        let place = |tap: usize| ((tap / taps) * self.row_bytes + (tap % taps) * self.tap_bytes) as i32;
        let mut sums = if self.runs() == 1 {
            let mut sums = starts;
            for step in 0..self.steps() {
                let at: Vec<i32> = (step * group..((step + 1) * group).min(self.run)).map(place).collect();
                self.step(
                    e,
                    base,
                    &at,
                    weights,
                    step as i32 * step_weights,
                    vectors,
                    pixels,
                    &mut sums,
                );
            }
            sums
        } else {
            let rows = [
                (base, self.row_bytes as i64),
                (weights, self.steps() as i64 * i64::from(step_weights)),
            ];
            let (sums, _) = e.counted(self.runs() as u64, &rows, &starts, |e, p, sums| {
                let moved = [(p[0], (group * self.tap_bytes) as i64), (p[1], i64::from(step_weights))];
                let tap = |i: usize| (i * self.tap_bytes) as i32;
                let whole = self.run / group;
                let (mut sums, ends) = if whole <= STRAIGHT / 2 {
                    let mut sums = sums.to_vec();
                    for step in 0..whole {
                        let at: Vec<i32> = (step * group..(step + 1) * group).map(tap).collect();
                        self.step(
                            e,
                            p[0],
                            &at,
                            p[1],
                            step as i32 * step_weights,
                            vectors,
                            pixels,
                            &mut sums,
                        );
                    }
                    let ends = moved
                        .iter()
                        .map(|(p, step)| e.offset(*p, *step * whole as i64))
                        .collect();
                    (sums, ends)
                } else {
                    e.counted(whole as u64, &moved, sums, |e, p, sums| {
                        let mut sums = sums.to_vec();
                        let at: Vec<i32> = (0..group).map(tap).collect();
                        self.step(e, p[0], &at, p[1], 0, vectors, pixels, &mut sums);
                        sums
                    })
                };
                let rest = self.run % group;
                if rest > 0 {
                    let at: Vec<i32> = (0..rest).map(tap).collect();
                    self.step(e, ends[0], &at, ends[1], 0, vectors, pixels, &mut sums);
                }
                sums
            });
            sums
        };
        let stride = self.layer.out_channels() * self.element_bytes();
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

    /// The taps at offsets `at` (up to [`Inner::group`]; absent ones have zero weights), for all positions.
    #[allow(clippy::too_many_arguments)]
    fn step(
        &self,
        e: &mut Emitter,
        base: Value,
        at: &[i32],
        weights: Value,
        w_at: i32,
        vectors: usize,
        pixels: usize,
        sums: &mut [Value],
    ) {
        let inner = self.inner;
        let bytes = (inner.lanes() * inner.group() * inner.weight_bytes()) as i32;
        let weights: Vec<Value> = (0..vectors)
            .map(|c| load_weights(e, inner, weights, w_at + c as i32 * bytes))
            .collect();
        for p in 0..pixels {
            let at: Vec<i32> = at.iter().map(|at| at + (p * self.position_bytes) as i32).collect();
            let taps: Vec<Value> = at
                .iter()
                .map(|at| match inner {
                    Inner::Pairs16 => e.load_i8x8(base, *at),
                    Inner::Dot4(_) => e.load(I8X16, base, *at),
                    Inner::Scalar | Inner::Lanes16 | Inner::Lanes21 | Inner::Paired | Inner::Halves => {
                        e.load_integer8(base, *at)
                    }
                    Inner::Float4 => e.load(F32X4, base, *at),
                    Inner::Float1 => e.load(F32, base, *at),
                })
                .collect();
            // Any value may stand for an absent tap.
            let tap = |i: usize| taps[i.min(taps.len() - 1)];
            let columns: Vec<Value> = match inner {
                Inner::Pairs16 => e.zip16(tap(0), tap(1)).to_vec(),
                Inner::Dot4(_) => {
                    let [a, b] = e.zip8(tap(0), tap(1));
                    let [c, d] = e.zip8(tap(2), tap(3));
                    let (low, high) = (e.zip16(a, c), e.zip16(b, d));
                    low.into_iter().chain(high).collect()
                }
                _ => taps,
            };
            for (c, column) in columns.iter().enumerate() {
                let sum = &mut sums[p * vectors + c];
                *sum = multiply_accumulate(e, inner, *sum, weights[c], *column);
            }
        }
    }
}
