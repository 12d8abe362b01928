//! e^x, the logistic function and tanh in CLIF: the operations of [`crate::graph::evaluate::math`], one by one and in
//! its order, on one `f32` or four lanes, so that compiled code and evaluator agree bit for bit.

use super::emit::Emitter;
use super::lanes::Splat;
use crate::graph::evaluate::math::constant::{
    BIAS, EXP, EXP_MAX, EXP_MIN, EXPONENT_SHIFT, LN2_HI, LN2_LO, LOG2_E, ROUND, SIGN, TANH, TANH_SMALL,
};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};

/// Constants of [`exp`](Exp::emit), made once outside of the loop.
pub struct Exp {
    min: Splat,
    max: Splat,
    log2_e: Splat,
    round: Splat,
    round_bits: Splat,
    ln2_hi: Splat,
    ln2_lo: Splat,
    poly: [Splat; 5],
    one: Splat,
    bias: Splat,
}

/// The integers of the same lanes as the floats `x`.
fn bits_of(e: &Emitter, x: Value) -> Type {
    if e.b.func.dfg.value_type(x).is_vector() {
        types::I32X4
    } else {
        types::I32
    }
}

/// The floats of the same lanes as the integers `x`.
fn floats_of(e: &Emitter, x: Value) -> Type {
    if e.b.func.dfg.value_type(x).is_vector() {
        types::F32X4
    } else {
        types::F32
    }
}

/// c₄ x⁴ + … + c₀ by Horner's rule.
fn horner(e: &mut Emitter, x: Value, coefficients: &[Splat; 5]) -> Value {
    let [low @ .., highest] = coefficients;
    low.iter().rev().fold(highest.like(e, x), |sum, coefficient| {
        let product = e.b.ins().fmul(sum, x);
        let coefficient = coefficient.like(e, x);
        e.b.ins().fadd(product, coefficient)
    })
}

impl Exp {
    /// Makes the constants.
    pub fn new(e: &mut Emitter) -> Self {
        Exp {
            min: e.spread_f32(EXP_MIN),
            max: e.spread_f32(EXP_MAX),
            log2_e: e.spread_f32(LOG2_E),
            round: e.spread_f32(ROUND),
            round_bits: e.spread_i32(ROUND.to_bits() as i32),
            ln2_hi: e.spread_f32(LN2_HI),
            ln2_lo: e.spread_f32(LN2_LO),
            poly: EXP.map(|c| e.spread_f32(c)),
            one: e.spread_f32(1.0),
            bias: e.spread_i32(BIAS),
        }
    }

    /// e^x.
    pub fn emit(&self, e: &mut Emitter, x: Value) -> Value {
        let like = |s: Splat, e: &Emitter| s.like(e, x);
        let max = like(self.max, e);
        let x = e.at_most(x, max);
        let min = like(self.min, e);
        let x = e.at_least(x, min);
        let log2_e = like(self.log2_e, e);
        let round = like(self.round, e);
        let shifted = e.b.ins().fmul(x, log2_e);
        let shifted = e.b.ins().fadd(shifted, round);
        let n = e.b.ins().fsub(shifted, round);
        let ty = bits_of(e, x);
        let exponent = e.cast(ty, shifted);
        let round_bits = like(self.round_bits, e);
        let exponent = e.b.ins().isub(exponent, round_bits);
        let ln2_hi = like(self.ln2_hi, e);
        let high = e.b.ins().fmul(n, ln2_hi);
        let high = e.b.ins().fsub(x, high);
        let ln2_lo = like(self.ln2_lo, e);
        let low = e.b.ins().fmul(n, ln2_lo);
        let r = e.b.ins().fsub(high, low);
        let lost = e.b.ins().fsub(high, r);
        let lost = e.b.ins().fsub(lost, low);
        let q = horner(e, r, &self.poly);
        let y = e.b.ins().fmul(r, r);
        let y = e.b.ins().fmul(y, q);
        let y = e.b.ins().fadd(y, lost);
        let unit = like(self.one, e);
        let one = e.b.ins().fadd(r, unit);
        let part = e.b.ins().fsub(one, unit);
        let part = e.b.ins().fsub(r, part);
        let y = e.b.ins().fadd(y, part);
        let y = e.b.ins().fadd(y, one);
        let half = e.sar(exponent, 1);
        let rest = e.b.ins().isub(exponent, half);
        let half = self.power_of_two(e, half);
        let rest = self.power_of_two(e, rest);
        let y = e.b.ins().fmul(y, half);
        e.b.ins().fmul(y, rest)
    }

    fn power_of_two(&self, e: &mut Emitter, n: Value) -> Value {
        let bias = self.bias.like(e, n);
        let biased = e.b.ins().iadd(n, bias);
        let bits = e.shl(biased, EXPONENT_SHIFT);
        let ty = floats_of(e, n);
        e.cast(ty, bits)
    }
}

/// Constants of the [logistic function](Logistic::emit).
pub struct Logistic {
    exp: Exp,
    sign: Splat,
    zero: Splat,
}

impl Logistic {
    /// Makes the constants.
    pub fn new(e: &mut Emitter) -> Self {
        Logistic {
            exp: Exp::new(e),
            sign: e.spread_i32(SIGN as i32),
            zero: e.spread_f32(0.0),
        }
    }

    /// 1 / (1 + e^−x).
    pub fn emit(&self, e: &mut Emitter, x: Value) -> Value {
        let ty = bits_of(e, x);
        let bits = e.cast(ty, x);
        let sign = self.sign.like(e, bits);
        let bits = e.b.ins().bor(bits, sign);
        let ty = floats_of(e, bits);
        let negative = e.cast(ty, bits);
        let exp = self.exp.emit(e, negative);
        let one = self.exp.one.like(e, x);
        let sum = e.b.ins().fadd(exp, one);
        let w = e.b.ins().fdiv(exp, sum);
        let zero = self.zero.like(e, x);
        let a = e.select_less(x, zero, exp, one);
        let aw = e.b.ins().fmul(a, w);
        e.b.ins().fsub(a, aw)
    }
}

/// Constants of [tanh](Tanh::emit).
pub struct Tanh {
    exp: Exp,
    sign: Splat,
    magnitude: Splat,
    poly: [Splat; 5],
    two: Splat,
    small: Splat,
}

impl Tanh {
    /// Makes the constants.
    pub fn new(e: &mut Emitter) -> Self {
        Tanh {
            exp: Exp::new(e),
            sign: e.spread_i32(SIGN as i32),
            magnitude: e.spread_i32(!SIGN as i32),
            poly: TANH.map(|c| e.spread_f32(c)),
            two: e.spread_f32(2.0),
            small: e.spread_f32(TANH_SMALL),
        }
    }

    /// tanh x.
    pub fn emit(&self, e: &mut Emitter, x: Value) -> Value {
        let ty = bits_of(e, x);
        let bits = e.cast(ty, x);
        let mask = self.sign.like(e, bits);
        let sign = e.b.ins().band(bits, mask);
        let mask = self.magnitude.like(e, bits);
        let a = e.b.ins().band(bits, mask);
        let float = floats_of(e, bits);
        let a = e.cast(float, a);
        let z = e.b.ins().fmul(a, a);
        let p = horner(e, z, &self.poly);
        let p = e.b.ins().fmul(p, z);
        let p = e.b.ins().fmul(p, a);
        let small = e.b.ins().fadd(p, a);
        let twice = e.b.ins().fadd(a, a);
        let exp = self.exp.emit(e, twice);
        let one = self.exp.one.like(e, x);
        let two = self.two.like(e, x);
        let sum = e.b.ins().fadd(exp, one);
        let quotient = e.b.ins().fdiv(two, sum);
        let large = e.b.ins().fsub(one, quotient);
        let bound = self.small.like(e, x);
        let magnitude = e.select_less(a, bound, small, large);
        let magnitude = e.cast(ty, magnitude);
        let result = e.b.ins().bor(magnitude, sign);
        e.cast(float, result)
    }
}
