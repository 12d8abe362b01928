//! Convolutions on 64-bit machines without vectors: three positions in one word.
//!
//! A word holds a0 + a1·2^21 + a2·2^42. Its product with a weight, summed, is S0 + S1·2^21 + S2·2^42 as long as every
//! sum lies in −2^20 .. 2^20: starting from 2^20 in each lane, no lane borrows from the next, and the lanes come apart
//! by shifts. The words of a tile are packed once and serve all channels. Longer sums are cut into parts, whose lanes
//! are added up in memory.

use super::super::emit::{Emitter, Parked};
use super::super::requantize::Requantize;
use super::super::schedule::Block;
use super::conv::{After, Kernel, round_places, rounds};
use super::layer::Layer;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};

/// Positions of a word.
const LANES: usize = 3;
/// Bits of a lane.
const BITS: u32 = 21;
/// What a lane starts from.
const START: i32 = 1 << (BITS - 1);
/// Offsets that fit an instruction.
const REACH: usize = 2048;

/// How sums are cut.
pub(super) struct Lanes {
    /// Equal parts of the sum.
    pub parts: usize,
}

impl Lanes {
    /// Instructions of a row of a group.
    pub fn cost(&self, layer: &Layer, blocks: &[Block]) -> u64 {
        let sum = layer.weights.sum();
        let most = blocks.iter().map(|block| block.tile.pixels).max().unwrap_or(1);
        let place = |(_, pixels): (usize, usize)| {
            let words = pixels.div_ceil(LANES);
            let tile = |block: &Block| {
                let sums = words * block.filters;
                let steps = sum * (2 * sums + words + block.filters) + sum * 5 / block.tile.k_unroll;
                let parts = if self.parts > 1 { 5 * self.parts + 4 } else { 0 };
                block.count * (steps + pixels * block.filters * (9 + parts) + 30)
            };
            (sum * (3 + 8 * words) + blocks.iter().map(tile).sum::<usize>()) as u64
        };
        let places = round_places(layer.out_width, most.min(layer.out_width)).into_iter();
        places.map(place).sum()
    }

    /// What a sum is too great by at its end.
    pub fn excess(&self) -> i32 {
        self.parts as i32 * START
    }

    fn words(&self, kernel: &Kernel) -> usize {
        let pixels = kernel.blocks.iter().map(|block| block.tile.pixels).max().unwrap_or(1);
        pixels.div_ceil(LANES)
    }

    /// Bytes of the packed words of a tile.
    fn packed_bytes(&self, kernel: &Kernel) -> usize {
        (8 * self.words(kernel) * kernel.layer.weights.sum()).next_multiple_of(16)
    }

    /// Bytes of scratch: the packed words of a tile, and its sums where there are parts.
    pub fn bytes(&self, kernel: &Kernel) -> usize {
        let tile = |block: &Block| block.tile.pixels * block.tile.channels;
        let sums = match self.parts {
            1 => 0,
            _ => 4 * kernel.blocks.iter().map(tile).max().unwrap_or(0),
        };
        self.packed_bytes(kernel) + sums
    }

    /// All channels of a group for `positions` of a row.
    #[allow(clippy::too_many_arguments)]
    pub fn group(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        base: Value,
        weights: Value,
        biases: Value,
        output: Value,
        positions: usize,
    ) {
        let scratch = e.args[4];
        let packed = e.offset(scratch, kernel.staged_bytes() as i64);
        let sums = e.offset(packed, self.packed_bytes(kernel) as i64);
        let each = kernel
            .blocks
            .iter()
            .map(|block| block.tile.pixels)
            .max()
            .unwrap_or(1)
            .min(positions);
        let steps = [
            (base, kernel.sum.position_bytes as i64),
            (output, kernel.layer.out_channels() as i64),
        ];
        let After::Requantize(requantize) = &kernel.after else {
            unreachable!("lanes are for int8");
        };
        let bounds = requantize.keep_bounds(e);
        rounds(e, positions, each, &steps, |e, p, pixels| {
            self.pack(kernel, e, p[0], packed, pixels);
            let (mut weights, mut biases, mut output) = (weights, biases, p[1]);
            for block in &kernel.blocks {
                let steps = [
                    (weights, (block.filters * kernel.weights) as i64),
                    (biases, (block.filters * kernel.entry) as i64),
                    (output, block.filters as i64),
                ];
                let (_, ends) = e.counted(block.count as u64, &steps, &[], |e, p, _| {
                    self.tile(kernel, e, packed, sums, [p[0], p[1], p[2]], (block, pixels), bounds);
                    vec![]
                });
                (weights, biases, output) = (ends[0], ends[1], ends[2]);
            }
        });
    }

    /// Packs the patches of `pixels` positions: for each element of the sum, one word for every three.
    fn pack(&self, kernel: &Kernel, e: &mut Emitter, base: Value, packed: Value, pixels: usize) {
        let sum = kernel.sum;
        let words = pixels.div_ceil(LANES);
        let element = 8 * words as i64;
        // A pointer for all positions, or, where offsets would not fit, for each word.
        let split = if pixels * sum.position_bytes > REACH { words } else { 1 };
        let bases: Vec<Value> = (0..split)
            .map(|i| e.offset(base, (i * LANES * sum.position_bytes) as i64))
            .collect();
        let moved = |packed: Value, elements: usize, bases: &[Value], step: usize| -> Vec<(Value, i64)> {
            let mut pointers = vec![(packed, elements as i64 * element)];
            pointers.extend(bases.iter().map(|base| (*base, step as i64)));
            pointers
        };
        let one = |e: &mut Emitter, p: &[Value], k: usize| {
            for word in 0..words {
                let (from, first) = match split {
                    1 => (p[1], word * LANES),
                    _ => (p[1 + word], 0),
                };
                let mut value = None;
                for lane in 0..LANES.min(pixels - word * LANES) {
                    let at = ((first + lane) * sum.position_bytes + k) as i32;
                    let a = e.b.ins().sload8(I64, Emitter::flags(), from, at);
                    value = Some(match value {
                        None => a,
                        Some(value) => {
                            let by = e.int(I32, lane as i64 * i64::from(BITS));
                            let a = e.b.ins().ishl(a, by);
                            e.b.ins().iadd(value, a)
                        }
                    });
                }
                let value = value.expect("a word has at least one position");
                e.store(value, p[0], (k * words * 8 + word * 8) as i32);
            }
        };
        let rows = moved(packed, sum.runs * sum.length, &bases, sum.row_bytes);
        e.counted(sum.rows as u64, &rows, &[], |e, p, _| {
            let runs = moved(p[0], sum.length, &p[1..], sum.run_bytes);
            e.counted(sum.runs as u64, &runs, &[], |e, p, _| {
                let unroll = if words > 2 { 1 } else { 2 };
                let steps = moved(p[0], unroll, &p[1..], unroll);
                let (_, ends) = e.counted((sum.length / unroll) as u64, &steps, &[], |e, p, _| {
                    for k in 0..unroll {
                        one(e, p, k);
                    }
                    vec![]
                });
                if !sum.length.is_multiple_of(unroll) {
                    one(e, &ends, 0);
                }
                vec![]
            });
            vec![]
        });
    }

    /// A block of channels for the packed positions.
    #[allow(clippy::too_many_arguments)]
    fn tile(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        packed: Value,
        memory: Value,
        [weights, biases, output]: [Value; 3],
        (block, pixels): (&Block, usize),
        bounds: Option<Parked>,
    ) {
        let After::Requantize(requantize) = &kernel.after else {
            unreachable!("lanes are for int8");
        };
        let channels = block.filters;
        let words = pixels.div_ceil(LANES);
        let length = kernel.layer.weights.sum() / self.parts;
        let part = |e: &mut Emitter, packed: Value, weights: Value| {
            let start = e.int(
                I64,
                (0..LANES as u32).map(|lane| i64::from(START) << (BITS * lane)).sum(),
            );
            let starts = vec![start; words * channels];
            let unroll = block.tile.k_unroll.min(length);
            let steps = [
                (packed, (8 * words * unroll) as i64),
                (weights, (channels * unroll) as i64),
            ];
            let step = |e: &mut Emitter, p: &[Value], k: usize, sums: &mut [Value]| {
                let a: Vec<Value> = (0..words)
                    .map(|i| e.load(I64, p[0], (8 * (k * words + i)) as i32))
                    .collect();
                for c in 0..channels {
                    let w = e.b.ins().sload8(I64, Emitter::flags(), p[1], (k * channels + c) as i32);
                    for (i, a) in a.iter().enumerate() {
                        let product = e.b.ins().imul(w, *a);
                        sums[c * words + i] = e.b.ins().iadd(sums[c * words + i], product);
                    }
                }
            };
            let (mut sums, ends) = e.counted((length / unroll) as u64, &steps, &starts, |e, p, sums| {
                let mut sums = sums.to_vec();
                for k in 0..unroll {
                    step(e, p, k, &mut sums);
                }
                sums
            });
            for k in 0..length % unroll {
                step(e, &ends, k, &mut sums);
            }
            sums
        };
        // Each word's outputs from a pointer of their own: offsets stay small.
        let stride = kernel.layer.out_channels();
        let finish = |e: &mut Emitter, value: &mut dyn FnMut(&mut Emitter, usize, usize) -> Value| {
            let outputs: Vec<Value> = (0..words)
                .map(|i| e.offset(output, (i * LANES * stride) as i64))
                .collect();
            let bounds = Requantize::kept_bounds(e, bounds);
            for c in 0..channels {
                let constants = requantize
                    .load(e, biases, (c * kernel.entry) as i32)
                    .maybe_within(bounds);
                for pixel in 0..pixels {
                    let x = value(e, c, pixel);
                    let result = requantize.apply(e, x, &constants);
                    e.store_i8(result, outputs[pixel / LANES], (pixel % LANES * stride + c) as i32);
                }
            }
        };
        if self.parts == 1 {
            let sums = part(e, packed, weights);
            finish(e, &mut |e, c, pixel| {
                lane(e, sums[c * words + pixel / LANES], pixel % LANES)
            });
            return;
        }
        let place = |c: usize, pixel: usize| (4 * (c * pixels + pixel)) as i32;
        let zero = e.i32(0);
        e.counted((pixels * channels) as u64, &[(memory, 4)], &[], |e, p, _| {
            e.store(zero, p[0], 0);
            vec![]
        });
        let steps = [
            (packed, (8 * words * length) as i64),
            (weights, (channels * length) as i64),
        ];
        e.counted(self.parts as u64, &steps, &[], |e, p, _| {
            let sums = part(e, p[0], p[1]);
            for c in 0..channels {
                for pixel in 0..pixels {
                    let value = lane(e, sums[c * words + pixel / LANES], pixel % LANES);
                    let before = e.b.ins().sload32(Emitter::flags(), memory, place(c, pixel));
                    let after = e.b.ins().iadd(before, value);
                    e.b.ins().istore32(Emitter::flags(), after, memory, place(c, pixel));
                }
            }
            vec![]
        });
        finish(e, &mut |e, c, pixel| {
            e.b.ins().sload32(Emitter::flags(), memory, place(c, pixel))
        });
    }
}

/// A lane of a sum, as a non-negative number.
fn lane(e: &mut Emitter, sum: Value, lane: usize) -> Value {
    let above = 64 - BITS * (lane as u32 + 1);
    let shift = |e: &mut Emitter, value: Value, by: u32, left: bool| {
        let by = e.int(I32, i64::from(by));
        if left {
            e.b.ins().ishl(value, by)
        } else {
            e.b.ins().ushr(value, by)
        }
    };
    // The last lane has the word's spare bit above it, which is zero.
    let high = if lane + 1 < LANES {
        shift(e, sum, above, true)
    } else {
        sum
    };
    let below = if lane + 1 < LANES {
        64 - BITS
    } else {
        BITS * lane as u32
    };
    shift(e, high, below, false)
}
