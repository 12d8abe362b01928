//! Dense layers on 32-bit machines without DSP instructions: two channels' weights 16 bits apart in a word.
//!
//! A word of parameters holds four bytes w + 128: two elements of the sum for two channels, so that a mask, and a shift
//! and a mask, make b0 + b1·2^16. Products with the activations sum to L + H·2^16, for both channels at once. As all is
//! modulo 2^32, the 128s come off at the end of a group of elements: what a group starts from is 2^15 less 128·(1 + 2^16)
//! times the group's activations, made once for all channels. A group is short enough that L fits 16 bits, then the
//! upper half is H exactly. Adding up halves in one register, and whole words in another, gives both sums at the end.

use super::super::emit::Emitter;
use super::conv::{After, Kernel};
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Elements of a group that are tried, longest first. Shorter ones cost more than they save.
pub(super) const GROUPS: [usize; 3] = [8, 6, 4];
/// Greatest sum of magnitudes of weights in a group: 128 times as much fits 16 bits.
pub(super) const MAGNITUDE: i32 = 255;
const MASK: i32 = 0x00ff_00ff;

/// How sums are cut.
pub(super) struct Lanes16 {
    /// Elements of a group; they divide the sum.
    pub group: usize,
}

impl Lanes16 {
    fn groups(&self, kernel: &Kernel) -> usize {
        kernel.layer.weights.sum() / self.group
    }

    /// Bytes of scratch: what each group starts from.
    pub fn bytes(&self, length: usize) -> usize {
        4 * (length / self.group)
    }

    /// All channels of the only position.
    pub fn group(&self, kernel: &Kernel, e: &mut Emitter, base: Value, weights: Value, biases: Value, output: Value) {
        let starts = e.offset(e.args[4], kernel.staged_bytes() as i64);
        let groups = self.groups(kernel) as u64;
        e.counted(groups, &[(base, self.group as i64), (starts, 4)], &[], |e, p, _| {
            let mut sum = e.load_i8(p[0], 0);
            for k in 1..self.group as i32 {
                let a = e.load_i8(p[0], k);
                sum = e.b.ins().iadd(sum, a);
            }
            let factor = e.i32(-128 * 0x10001);
            let less = e.b.ins().imul(sum, factor);
            let half = e.i32(1 << 15);
            let start = e.b.ins().iadd(less, half);
            e.store_word(start, p[1], 0);
            vec![]
        });
        let (mut weights, mut biases, mut output) = (weights, biases, output);
        for block in &kernel.blocks {
            let channels = block.tile.channels;
            let steps = [
                (weights, (channels * kernel.weights) as i64),
                (biases, (channels * kernel.entry) as i64),
                (output, block.filters as i64),
            ];
            let (_, ends) = e.counted(block.count as u64, &steps, &[], |e, p, _| {
                self.tile(kernel, e, [base, starts, p[0], p[1], p[2]], channels, block.filters);
                vec![]
            });
            (weights, biases, output) = (ends[0], ends[1], ends[2]);
        }
    }

    fn tile(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        [base, starts, weights, biases, output]: [Value; 5],
        channels: usize,
        filters: usize,
    ) {
        let After::Requantize(requantize) = &kernel.after else {
            unreachable!("lanes are for int8");
        };
        let groups = self.groups(kernel);
        // For every two channels, halves and words.
        let mut sums = Vec::with_capacity(channels);
        for c in (0..channels).step_by(2) {
            let [low, high] = [c, c + 1].map(|c| requantize.start(e, biases, (c * kernel.entry) as i32));
            let scaled = shift_left(e, high, 16);
            let both = e.b.ins().iadd(low, scaled);
            let excess = e.i32((groups as i32).wrapping_mul(-(1 << 15)));
            sums.extend([high, e.b.ins().iadd(both, excess)]);
        }
        let mask = e.i32(MASK);
        let steps = [
            (base, self.group as i64),
            (starts, 4),
            (weights, (self.group * channels) as i64),
        ];
        let (sums, _) = e.counted(groups as u64, &steps, &sums, |e, p, sums| {
            let a: Vec<Value> = (0..self.group as i32).map(|k| e.load_i8(p[0], k)).collect();
            let start = e.load_word(p[1], 0);
            let mut sums = sums.to_vec();
            for (pair, sums) in sums.chunks_mut(2).enumerate() {
                let mut sum = start;
                for (step, a) in a.chunks(2).enumerate() {
                    let four = e.load_word(p[2], (step * channels + 2 * pair) as i32 * 2);
                    let first = e.b.ins().band(four, mask);
                    let by = e.i32(8);
                    let second = e.b.ins().ushr(four, by);
                    let second = e.b.ins().band(second, mask);
                    for (w, a) in [first, second].into_iter().zip(a) {
                        let product = e.b.ins().imul(w, *a);
                        sum = e.b.ins().iadd(sum, product);
                    }
                }
                let half = e.shift_right(sum, 16);
                sums[0] = e.b.ins().iadd(sums[0], half);
                sums[1] = e.b.ins().iadd(sums[1], sum);
            }
            sums
        });
        for c in 0..filters {
            let constants = requantize.load(e, biases, (c * kernel.entry) as i32);
            let (high, both) = (sums[c / 2 * 2], sums[c / 2 * 2 + 1]);
            let x = if c % 2 == 0 {
                let scaled = shift_left(e, high, 16);
                e.b.ins().isub(both, scaled)
            } else {
                high
            };
            let result = requantize.apply(e, x, &constants);
            e.store_i8(result, output, c as i32);
        }
    }
}

fn shift_left(e: &mut Emitter, value: Value, by: i64) -> Value {
    let by = e.int(I32, by);
    e.b.ins().ishl(value, by)
}
