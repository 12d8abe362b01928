//! Dense layers on 32-bit machines without DSP instructions: two channels' weights 16 bits apart in a word.
//!
//! A word of parameters holds two elements of the sum for two channels. Of the first element, bytes 0 and 2 are w + 128:
//! a mask makes E = e0 + e1·2^16 of them. What is left is O·2^8 with O = o0 + o1·2^16, o0 = w + 128 of the first channel
//! and o1 = w of the second, signed, as it is the top byte; the upper half of its product with a·2^24 is O·a. So both
//! products with the activations sum up to L + H·2^16, for both channels at once.
//!
//! As all is modulo 2^32, the 128s come off at the end of a group of elements: what a group starts from is 2^15 less 128
//! times its activations (and 2^16 times that for first elements), made once for all channels. [`Groups`] are short
//! enough that L fits 16 bits, then the upper half is H exactly. Adding up halves in one register, and whole words in
//! another, gives both sums at the end.
//!
//! Activations are put in the order of the groups once, as the words that multiply: a, a·2^24 in turn.

use super::super::Parameter;
use super::super::emit::Emitter;
use super::super::schedule::{self, Inner};
use super::conv::{After, Kernel, Sum};
use super::groups::Groups;
use super::layer::Layer;
use super::packed::{place, table_before};
use crate::data::{Bytes, Contents};
use crate::error::{Error, Result};
use crate::graph::DType;
use crate::target::{Arch, Effort, Target};
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Selects the first element's weights.
const MASK: i32 = 0x00ff_00ff;

/// How sums are cut.
#[derive(Clone, Debug)]
pub(super) struct Lanes16 {
    pub groups: Groups,
    /// Bytes of an offset in the table at the head of the biases; 0 if elements stay in order.
    offset: usize,
}

impl Lanes16 {
    /// Whether the machine is one that the form is for: with registers enough, and nothing better.
    pub fn possible(target: &Target) -> bool {
        let machine = target.machine();
        machine.integer_bytes == 4 && !machine.simd128 && !machine.dsp && target.arch() != Arch::Thumb2
    }

    /// The form, if it takes fewer instructions than single products.
    ///
    /// # Errors
    /// Those of reading the model.
    pub fn new(layer: &Layer, target: &Target) -> Result<Option<Self>> {
        let machine = target.machine();
        if !Self::possible(target) || layer.dtype != DType::I8 || layer.out_width != 1 || layer.lean {
            return Ok(None);
        }
        let most = match target.effort {
            Effort::Speed | Effort::Balanced => 16,
            Effort::Ram => 12,
            Effort::Size => 8,
        };
        let (sum, channels) = (layer.weights.sum(), layer.filters);
        let blocks = |inner: Inner| schedule::blocks(machine, inner, layer.filters, 1);
        let own = |groups: &Groups| {
            let (steps, count) = (groups.order.len(), groups.count());
            let block = |block: &schedule::Block| {
                let pairs = block.tile.channels / 2;
                block.count * (steps * (2 + 7 * pairs) / 2 + count * (3 * pairs + 4) + 20 * block.tile.channels)
            };
            (8 * steps + 5 * count + blocks(Inner::Lanes16).iter().map(block).sum::<usize>()) as u64
        };
        let read = |channel: usize, out: &mut Vec<u8>| layer.read(channel, out);
        let Some(groups) = Groups::new(sum, layer.out_channels(), [most, 2], read, own)? else {
            return Ok(None);
        };
        let plain: usize = (blocks(Inner::Scalar).iter())
            .map(|block| block.count * (sum * (2 + 3 * block.tile.channels) + 14 * block.tile.channels))
            .sum();
        let own = own(&groups) as usize;
        if own >= plain || channels == 1 {
            return Ok(None);
        }
        let in_order = groups.order.iter().enumerate().all(|(i, k)| k.is_none_or(|k| k == i));
        let offset = if in_order { 0 } else { 2 };
        Ok(Some(Lanes16 { groups, offset }))
    }

    /// With offsets that hold the places of all elements.
    pub fn placed(mut self, sum: &Sum, elements: usize) -> Self {
        let one_run = sum.rows * sum.runs == 1;
        if self.offset > 0 || !one_run {
            let wide = place(sum, elements.max(1) - 1) >= 1 << 15;
            self.offset = if wide { 4 } else { 2 };
        }
        self
    }

    /// Bytes of the table.
    pub fn head(&self) -> usize {
        (self.offset * self.groups.order.len()).next_multiple_of(4)
    }

    /// `biases` behind the table.
    ///
    /// # Errors
    /// None: what was made in memory is copied.
    pub fn parameter(&self, biases: Parameter, sum: &Sum) -> Result<Parameter> {
        if self.offset == 0 {
            return Ok(biases);
        }
        let offset = |k: &Option<usize>| k.map_or(0, |k| place(sum, k)) as u32;
        let mut bytes: Vec<u8> = (self.groups.order.iter())
            .flat_map(|k| offset(k).to_le_bytes().into_iter().take(self.offset))
            .collect();
        bytes.resize(self.head(), 0);
        let copied = biases.contents.write_to(&mut bytes);
        copied.map_err(|error| Error::internal(format!("cannot copy biases: {error}")))?;
        let layout = biases
            .contents
            .layout()
            .map(|entries| table_before(entries, self.offset, self.head()));
        let contents = Contents::Bytes(Bytes::from_vec(bytes));
        Ok(Parameter {
            contents: match layout {
                Some(layout) => contents.described(layout),
                None => contents,
            },
            ..biases
        })
    }

    /// Bytes of scratch: activations, and what each group starts from.
    pub fn bytes(&self) -> usize {
        4 * (self.groups.order.len() + self.groups.count())
    }

    /// All channels of the only position; `table` is the head of the parameter.
    pub fn group(&self, kernel: &Kernel, e: &mut Emitter, [base, weights, biases, output, table]: [Value; 5]) {
        let words = e.offset(e.args[4], kernel.staged_bytes() as i64);
        let starts = e.offset(words, 4 * self.groups.order.len() as i64);
        self.gather(e, [base, table, words, starts]);
        let (mut weights, mut biases, mut output) = (weights, biases, output);
        for block in &kernel.blocks {
            let channels = block.tile.channels;
            let steps = [
                (output, block.filters as i64),
                (biases, (channels * kernel.entry) as i64),
            ];
            let (carried, ends) = e.counted(block.count as u64, &steps, &[weights], |e, p, carried| {
                let pointers = [words, starts, carried[0], p[1], p[0]];
                vec![self.tile(kernel, e, pointers, channels, block.filters)]
            });
            (weights, output, biases) = (carried[0], ends[0], ends[1]);
        }
    }

    /// Puts the activations in order.
    fn gather(&self, e: &mut Emitter, [base, table, words, starts]: [Value; 4]) {
        let (mut words, mut starts, mut table, mut base) = (words, starts, table, base);
        let ordered = self.offset == 0;
        for (length, count) in &self.groups.runs {
            let from = if ordered {
                (base, *length as i64)
            } else {
                (table, (self.offset * length) as i64)
            };
            let steps = [(words, 4 * *length as i64), (starts, 4), from];
            let (_, ends) = e.counted(*count as u64, &steps, &[], |e, p, _| {
                let mut sums: [Option<Value>; 2] = [None; 2];
                for k in 0..*length {
                    let a = if ordered {
                        e.load_i8(p[2], k as i32)
                    } else {
                        let at = (k * self.offset) as i32;
                        let offset = match self.offset {
                            2 => e.b.ins().uload16(I32, Emitter::flags().with_aligned(), p[2], at),
                            _ => e.load_word(p[2], at),
                        };
                        let offset = if e.pointer == I32 {
                            offset
                        } else {
                            e.b.ins().uextend(e.pointer, offset)
                        };
                        let from = e.b.ins().iadd(base, offset);
                        e.load_i8(from, 0)
                    };
                    let sum = &mut sums[k % 2];
                    *sum = Some(match *sum {
                        None => a,
                        Some(sum) => e.b.ins().iadd(sum, a),
                    });
                    let word = if k % 2 == 0 { a } else { shift_left(e, a, 24) };
                    e.store_word(word, p[0], 4 * k as i32);
                }
                let [Some(first), Some(second)] = sums else {
                    unreachable!("groups have even lengths");
                };
                let upper = shift_left(e, first, 16);
                let all = e.b.ins().iadd(first, second);
                let all = e.b.ins().iadd(all, upper);
                let less = shift_left(e, all, 7);
                let half = e.i32(1 << 15);
                let start = e.b.ins().isub(half, less);
                e.store_word(start, p[1], 0);
                vec![]
            });
            (words, starts) = (ends[0], ends[1]);
            if ordered {
                base = ends[2];
            } else {
                table = ends[2];
            }
        }
    }

    /// A block of channels. Returns where its weights end.
    fn tile(
        &self,
        kernel: &Kernel,
        e: &mut Emitter,
        [words, starts, weights, biases, output]: [Value; 5],
        channels: usize,
        filters: usize,
    ) -> Value {
        let After::Requantize(requantize) = &kernel.after else {
            unreachable!("lanes are for int8");
        };
        // For every two channels, halves and words.
        let mut sums = Vec::with_capacity(channels);
        for c in (0..channels).step_by(2) {
            let [low, high] = [c, c + 1].map(|c| requantize.start(e, biases, (c * kernel.entry) as i32));
            let scaled = shift_left(e, high, 16);
            let both = e.b.ins().iadd(low, scaled);
            let excess = e.i32((self.groups.count() as i32).wrapping_mul(-(1 << 15)));
            sums.extend([high, e.b.ins().iadd(both, excess)]);
        }
        let mask = e.i32(MASK);
        let (mut words, mut starts, mut weights) = (words, starts, weights);
        for (length, count) in &self.groups.runs {
            let steps = [
                (weights, (length * channels) as i64),
                (words, 4 * *length as i64),
                (starts, 4),
            ];
            let (carried, ends) = e.counted(*count as u64, &steps, &sums, |e, p, sums| {
                let mut sums = sums.to_vec();
                let start = e.load_word(p[2], 0);
                let mut group = vec![start; channels / 2];
                for k in (0..*length).step_by(2) {
                    let [first, second] = [k, k + 1].map(|k| e.load_word(p[1], 4 * k as i32));
                    for (pair, sum) in group.iter_mut().enumerate() {
                        let four = e.load_word(p[0], (k * channels + 4 * pair) as i32);
                        let even = e.b.ins().band(four, mask);
                        let odd = e.b.ins().isub(four, even);
                        let product = e.b.ins().imul(even, first);
                        *sum = e.b.ins().iadd(product, *sum);
                        let product = e.b.ins().smulhi(odd, second);
                        *sum = e.b.ins().iadd(product, *sum);
                        if k + 2 == *length {
                            let half = e.shift_right(*sum, 16);
                            sums[2 * pair] = e.b.ins().iadd(sums[2 * pair], half);
                            sums[2 * pair + 1] = e.b.ins().iadd(sums[2 * pair + 1], *sum);
                        }
                    }
                }
                sums
            });
            sums = carried;
            (weights, words, starts) = (ends[0], ends[1], ends[2]);
        }
        let bounds = requantize.bounds(e);
        for c in 0..filters {
            let constants = requantize.load(e, biases, (c * kernel.entry) as i32).within(bounds);
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
        weights
    }
}

fn shift_left(e: &mut Emitter, value: Value, by: i64) -> Value {
    let by = e.int(I32, by);
    e.b.ins().ishl(value, by)
}
