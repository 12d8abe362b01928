//! The code from accumulators to results.

use super::super::emit::{Emitter, Parked};
use super::{Form, Requantize};
use crate::intrinsic::Intrinsic;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8X16, I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_codegen::packed_option::ReservedValue;

/// The constants of one accumulator (a vector of channels, or a channel), loaded.
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    values: [Value; 4],
    /// What is to be added to sums that do not start from the biases.
    start: Option<Value>,
    /// The clamp, where it is in registers.
    bounds: Option<[Value; 2]>,
}

impl Constants {
    /// With the clamp of [`Requantize::bounds`].
    #[must_use]
    pub fn within(self, bounds: [Value; 2]) -> Self {
        self.maybe_within(Some(bounds))
    }

    /// With the clamp of [`Requantize::kept_bounds`].
    #[must_use]
    pub fn maybe_within(self, bounds: Option<[Value; 2]>) -> Self {
        Constants { bounds, ..self }
    }
}

impl Requantize {
    /// What the sums of one accumulator start from: the biases as `int32x4`, or an integer.
    pub fn start(&self, e: &mut Emitter, entry: Value, offset: i32) -> Value {
        match (self.form, self.scalar) {
            (Form::Product { started: true, .. }, _) => e.int(I64, 0),
            (Form::Product { .. }, Some(I32)) => e.load_word(entry, offset + 16),
            (Form::Product { .. }, _) => e.b.ins().sload32(Emitter::flags(), entry, offset + 16),
            (_, Some(_)) => e.load_word(entry, offset),
            (_, None) => e.load(I32X4, entry, offset),
        }
    }

    /// Whether all sums start from zero.
    pub fn from_zero(&self) -> bool {
        let started = matches!(self.form, Form::Product { started: true, .. });
        started && self.scalar == Some(I64)
    }

    /// Loads the constants of one accumulator.
    pub fn load(&self, e: &mut Emitter, entry: Value, offset: i32) -> Constants {
        let size = if self.scalar.is_some() { 4 } else { 16 };
        let mut at = offset;
        let mut next = |e: &mut Emitter, wanted: bool| {
            if !wanted {
                return Value::reserved_value();
            }
            at += size;
            if size == 4 {
                e.load_word(entry, at)
            } else {
                e.load(I32X4, entry, at)
            }
        };
        let values = match self.form {
            Form::Product { left, .. } => [
                e.b.ins().sload32(Emitter::flags(), entry, offset + 8),
                e.load(I64, entry, offset),
                e.load(I32, entry, offset + 12),
                if left {
                    e.load(I32, entry, offset + 20)
                } else {
                    Value::reserved_value()
                },
            ],
            Form::Folded { .. } => [next(e, true), next(e, true), next(e, true), next(e, self.sign)],
            Form::Step { .. } => [next(e, true), next(e, true), next(e, false), next(e, false)],
            Form::Shifted => [
                next(e, true),
                next(e, true),
                next(e, true),
                next(e, self.sign && self.unit),
            ],
            Form::Doubled { left } => [next(e, left), next(e, true), next(e, true), next(e, self.unit)],
        };
        let late = matches!(
            self.form,
            Form::Product {
                excess: Some(_),
                started: false,
                ..
            }
        );
        Constants {
            values,
            start: late.then(|| self.start(e, entry, offset)),
            bounds: None,
        }
    }

    /// One accumulator to its result: for vectors before narrowing ([`Requantize::narrow`]), for scalars complete.
    pub fn apply(&self, e: &mut Emitter, x: Value, constants: &Constants) -> Value {
        let c = constants.values;
        match self.form {
            Form::Product {
                left, wraps, folded, ..
            } => {
                let mut x = x;
                if self.scalar == Some(I32) {
                    if left {
                        x = e.b.ins().imul(x, c[3]);
                    }
                    x = e.b.ins().sextend(I64, x);
                }
                if let Some(start) = constants.start {
                    x = e.b.ins().iadd(x, start);
                }
                if left && self.scalar == Some(I64) {
                    let low = e.b.ins().ireduce(I32, x);
                    let shifted = e.b.ins().imul(low, c[3]);
                    x = e.b.ins().sextend(I64, shifted);
                } else if wraps {
                    let low = e.b.ins().ireduce(I32, x);
                    x = e.b.ins().sextend(I64, low);
                }
                let mut sum = e.b.ins().imul(x, c[0]);
                sum = e.b.ins().iadd(sum, c[1]);
                if self.sign {
                    let mut negative = e.shift_right(x, 63);
                    if self.unit {
                        // Only where e ≥ 1, that is where the shift is above 31.
                        let bound = e.i32(31);
                        let applies = e.b.ins().icmp(IntCC::NotEqual, c[2], bound);
                        let applies = e.b.ins().uextend(I64, applies);
                        negative = e.b.ins().imul(negative, applies);
                    }
                    let by = e.i32(31);
                    let negative = e.b.ins().ishl(negative, by);
                    sum = e.b.ins().iadd(sum, negative);
                }
                let mut z = e.b.ins().sshr(sum, c[2]);
                if !folded && self.zero_point != 0 {
                    let zero_point = e.int(I64, i64::from(self.zero_point));
                    z = e.b.ins().iadd(z, zero_point);
                }
                let z = match constants.bounds {
                    Some(bounds) if self.scalar == Some(I64) => clamp_within(e, z, bounds),
                    _ => clamp(e, z, self.min, self.max),
                };
                if self.scalar == Some(I32) {
                    e.b.ins().ireduce(I32, z)
                } else {
                    z
                }
            }
            Form::Folded { shift } if self.scalar.is_some() => {
                let scaled = e.b.ins().imul(x, c[0]);
                let mut sum = high_product(e, scaled, c[1], c[2]);
                if self.sign {
                    let negative = e.shift_right(x, 31);
                    let negative = e.b.ins().band(negative, c[3]);
                    sum = e.b.ins().iadd(sum, negative);
                }
                let z = e.shift_right(sum, shift + 1);
                self.clamp32(e, z, constants)
            }
            Form::Step { shift } => {
                let sum = high_product(e, x, c[0], c[1]);
                let z = e.shift_right(sum, shift);
                self.clamp32(e, z, constants)
            }
            Form::Shifted => {
                let two = e.i32(2);
                let scaled = e.b.ins().ishl(x, two);
                let mut sum = high_product(e, scaled, c[0], c[1]);
                if self.sign {
                    let negative = e.shift_right(x, 31);
                    let twice = if self.unit {
                        e.b.ins().band(negative, c[3])
                    } else {
                        let one = e.i32(1);
                        e.b.ins().ishl(negative, one)
                    };
                    sum = e.b.ins().iadd(sum, twice);
                }
                let z = e.b.ins().sshr(sum, c[2]);
                self.clamp32(e, z, constants)
            }
            Form::Folded { shift } => {
                let scaled = e.b.ins().imul(x, c[0]);
                let high = e.high_products(scaled, c[1], |_, product| product);
                let mut sum = e.b.ins().iadd(high, c[2]);
                if self.sign {
                    let negative = e.shift_right(x, 31);
                    let negative = e.b.ins().band(negative, c[3]);
                    sum = e.b.ins().iadd(sum, negative);
                }
                e.shift_right(sum, shift + 1)
            }
            Form::Doubled { left } => {
                let x = if left { e.b.ins().imul(x, c[0]) } else { x };
                let y = e.rounding_doubling_high_multiply(x, c[1]);
                let a = if self.sign {
                    let negative = e.shift_right(y, 31);
                    e.b.ins().iadd(y, negative)
                } else {
                    y
                };
                let z = e.rounding_doubling_high_multiply(a, c[2]);
                if self.unit { e.b.ins().bitselect(c[3], y, z) } else { z }
            }
        }
    }

    /// A 32-bit result between the bounds.
    fn clamp32(&self, e: &mut Emitter, z: Value, constants: &Constants) -> Value {
        let [min, max] = constants.bounds.unwrap_or_else(|| self.bounds(e));
        let z = e.b.ins().smax(z, min);
        e.b.ins().smin(z, max)
    }

    /// The clamp of 32-bit results, for several of them.
    pub fn bounds(&self, e: &mut Emitter) -> [Value; 2] {
        [e.i32(self.min), e.i32(self.max)]
    }

    /// Keeps the clamp of 64-bit results at hand for [`Requantize::kept_bounds`]: where constants are made anew at each
    /// use, as Cranelift does, those of registers are loaded.
    pub fn keep_bounds(&self, e: &mut Emitter) -> Option<Parked> {
        (self.scalar == Some(I64)).then(|| {
            let bounds = [self.min, self.max].map(|bound| e.int(I64, i64::from(bound)));
            e.park(&bounds)
        })
    }

    /// The clamp that was kept, for several results.
    pub fn kept_bounds(e: &mut Emitter, kept: Option<Parked>) -> Option<[Value; 2]> {
        kept.map(|kept| {
            let loaded = e.fetch(kept, I64, 0, 2);
            [loaded[0], loaded[1]]
        })
    }

    /// Up to four results of [`Requantize::apply`] as bytes, clamped.
    pub fn narrow(&self, e: &mut Emitter, results: &[Value]) -> Value {
        let zero_point = match self.form {
            Form::Doubled { .. } => self.zero_point as i16,
            _ => 0,
        };
        let mut bytes = e.narrow(results, |e, half| e.add_saturating_i16(half, zero_point));
        if self.min > i32::from(i8::MIN) {
            let min = e.splat_int(I8X16, i64::from(self.min));
            bytes = e.b.ins().smax(bytes, min);
        }
        if self.max < i32::from(i8::MAX) {
            let max = e.splat_int(I8X16, i64::from(self.max));
            bytes = e.b.ins().smin(bytes, max);
        }
        bytes
    }
}

/// High half of `x` × `m`, plus `c`.
fn high_product(e: &mut Emitter, x: Value, m: Value, c: Value) -> Value {
    if e.target.machine().dsp {
        return e.intrinsic(Intrinsic::Smmla, &[x, m, c]);
    }
    let high = e.b.ins().smulhi(x, m);
    e.b.ins().iadd(high, c)
}

/// A 64-bit integer between two constants, by branches: without minimum and maximum instructions they are the cheapest,
/// and seldom taken.
pub fn clamp(e: &mut Emitter, value: Value, min: i32, max: i32) -> Value {
    let min = e.int(I64, i64::from(min));
    let value = bounded(e, value, IntCC::SignedLessThan, min);
    let max = e.int(I64, i64::from(max));
    bounded(e, value, IntCC::SignedGreaterThan, max)
}

/// The same between two values.
fn clamp_within(e: &mut Emitter, value: Value, [min, max]: [Value; 2]) -> Value {
    let value = bounded(e, value, IntCC::SignedLessThan, min);
    bounded(e, value, IntCC::SignedGreaterThan, max)
}

/// `bound` where `value` is outside it, by `condition`.
fn bounded(e: &mut Emitter, value: Value, condition: IntCC, bound: Value) -> Value {
    let outside = e.b.ins().icmp(condition, value, bound);
    let next = e.b.create_block();
    e.b.append_block_param(next, I64);
    e.b.ins().brif(outside, next, &[bound.into()], next, &[value.into()]);
    e.b.switch_to_block(next);
    e.record_block(next, 1);
    e.b.block_params(next)[0]
}
