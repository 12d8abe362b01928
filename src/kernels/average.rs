//! Averages of int8 sums: division by a constant, rounded to nearest with halves away from zero, by a multiplication.
//!
//! sum / n rounded is ⌊(sum + ⌊n/2⌋ − [n even and sum < 0]) / n⌋. With 128 n added the dividend is not negative, and
//! ⌊dividend / n⌋ is dividend × magic >> shift with constants that are checked on every quotient's bounds.

use super::emit::Emitter;
use super::lanes::Splat;
use crate::data::{Layout, Scalar};
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// `dividend / n` for all dividends below 256 n, as `dividend × magic >> shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Magic {
    magic: u32,
    shift: u32,
    /// Whether products fit 32 bits.
    narrow: bool,
}

/// Most elements that are averaged: beyond it the sums of 32 bits overflow.
pub const MOST: u64 = 1 << 23;

impl Magic {
    /// Where there is none: for no n up to [`MOST`].
    const NONE: Magic = Magic {
        magic: 1,
        shift: 0,
        narrow: true,
    };

    fn new(n: u64) -> Option<Self> {
        let most = 256 * n - 1;
        // A product with the ceiling of 2^shift / n is monotone: exact if exact at both ends of every quotient.
        let exact = |magic: u64, shift: u32| {
            (1..=256).all(|q| {
                let quotient = |x: u64| (u128::from(x) * u128::from(magic)) >> shift;
                quotient(q * n - 1) == u128::from(q) - 1 && (q == 256 || quotient(q * n) == u128::from(q))
            })
        };
        (0..63).find_map(|shift| {
            let magic = (1u64 << shift).div_ceil(n);
            let narrow = most
                .checked_mul(magic)
                .is_some_and(|product| product <= u64::from(u32::MAX));
            let magic = u32::try_from(magic).ok()?;
            exact(u64::from(magic), shift).then_some(Magic { magic, shift, narrow })
        })
    }
}

/// The constants of an average of `n` elements, in registers.
pub struct Average {
    n: u64,
    magic: Magic,
    factor: Splat,
    bias: Splat,
    offset: Splat,
}

impl Average {
    /// Makes the constants. `n` is 1 to [`MOST`].
    pub fn new(e: &mut Emitter, n: u64) -> Self {
        let magic = Magic::new(n).unwrap_or(Magic::NONE);
        Average {
            n,
            magic,
            factor: e.spread_i32(magic.magic as i32),
            bias: e.spread_i32((128 * n + n / 2) as i32),
            offset: e.spread_i32(-128),
        }
    }

    /// The average for 32-bit lanes of sums.
    pub fn emit(&self, e: &mut Emitter, sum: Value) -> Value {
        if self.n == 1 {
            return sum;
        }
        let bias = self.bias.like(e, sum);
        let mut dividend = e.b.ins().iadd(sum, bias);
        if self.n.is_multiple_of(2) {
            let sign = e.sar(sum, 31);
            dividend = e.b.ins().iadd(dividend, sign);
        }
        let factor = self.factor.like(e, sum);
        let quotient = if self.magic.magic == 1 {
            e.shr(dividend, self.magic.shift)
        } else if self.magic.narrow {
            let product = e.b.ins().imul(dividend, factor);
            e.shr(product, self.magic.shift)
        } else {
            wide_product(e, dividend, factor, &|e, product| e.shr(product, self.magic.shift))
        };
        let offset = self.offset.like(e, sum);
        e.b.ins().iadd(quotient, offset)
    }
}

/// Bytes of the constants of one divisor in [`table`].
pub const ENTRY: usize = 16;

/// Constants of all divisors up to `most`, for windows whose size is known only when the kernel runs.
pub fn table(most: u64) -> Vec<u8> {
    let mut table = Vec::with_capacity(most as usize * ENTRY);
    for n in 1..=most {
        let magic = Magic::new(n).unwrap_or(Magic::NONE);
        // The last word selects the sign of the sum, which matters for even divisors.
        let even = if n.is_multiple_of(2) { u32::MAX } else { 0 };
        for word in [magic.magic, magic.shift, (128 * n + n / 2) as u32, even] {
            table.extend(word.to_le_bytes());
        }
    }
    table
}

/// What the bytes of a [`table`] mean.
pub fn layout(most: u64) -> Layout {
    let members = ["magic", "shift", "bias", "even"];
    let entry = members.map(|name| (name.to_owned(), Layout::Scalar(Scalar::U32)));
    Layout::array(&[("divisor - 1", most as usize)], Layout::Struct(entry.to_vec()))
}

/// The constants of one divisor, read from a [`table`].
pub struct Loaded {
    factor: Splat,
    bias: Splat,
    even: Splat,
    offset: Splat,
    shift: Value,
}

impl Loaded {
    /// Reads the entry at `place`.
    pub fn new(e: &mut Emitter, place: Value) -> Self {
        let words = [0, 8, 12].map(|offset| {
            let word = e.load(types::I32, place, offset);
            e.spread(types::I32X4, word)
        });
        Loaded {
            factor: words[0],
            bias: words[1],
            even: words[2],
            offset: e.spread_i32(-128),
            shift: e.b.ins().uload32(Emitter::flags(), place, 4),
        }
    }

    /// The average for 32-bit lanes of sums.
    pub fn emit(&self, e: &mut Emitter, sum: Value) -> Value {
        let sign = e.sar(sum, 31);
        let even = self.even.like(e, sum);
        let sign = e.b.ins().band(sign, even);
        let bias = self.bias.like(e, sum);
        let dividend = e.b.ins().iadd(sum, bias);
        let dividend = e.b.ins().iadd(dividend, sign);
        let factor = self.factor.like(e, sum);
        let quotient = wide_product(e, dividend, factor, &|e, product| e.b.ins().ushr(product, self.shift));
        let offset = self.offset.like(e, sum);
        e.b.ins().iadd(quotient, offset)
    }
}

/// The low words of `shift` of the 64-bit products of unsigned 32-bit lanes.
fn wide_product(e: &mut Emitter, x: Value, y: Value, shift: &dyn Fn(&mut Emitter, Value) -> Value) -> Value {
    if e.b.func.dfg.value_type(x).is_vector() {
        let low = [e.b.ins().uwiden_low(x), e.b.ins().uwiden_low(y)];
        let low = e.b.ins().imul(low[0], low[1]);
        let low = shift(e, low);
        let high = [e.b.ins().uwiden_high(x), e.b.ins().uwiden_high(y)];
        let high = e.b.ins().imul(high[0], high[1]);
        let high = shift(e, high);
        e.low_words(low, high)
    } else {
        let x = e.b.ins().uextend(types::I64, x);
        let y = e.b.ins().uextend(types::I64, y);
        let product = e.b.ins().imul(x, y);
        let quotient = shift(e, product);
        e.b.ins().ireduce(types::I32, quotient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_divisor_has_a_magic_number() {
        for n in (1..600).chain([1000, 4095, 4096, 4097, 65_535, 1 << 20, MOST - 1, MOST]) {
            let magic = Magic::new(n).unwrap_or_else(|| panic!("{n}"));
            assert!(magic.narrow || n > 100, "{n}: {magic:?}");
            let dividends = (0..256 * n).step_by((n as usize / 64).max(1));
            for x in dividends {
                assert_eq!(
                    (u128::from(x) * u128::from(magic.magic)) >> magic.shift,
                    u128::from(x / n)
                );
            }
        }
    }
}
