//! The routines' bodies. binary32: sign, 8 bits of exponent with bias 127, 23 bits of significand (IEEE 754).

use super::Routine;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Function, InstBuilder, MemFlagsData, Signature, Type, UserFuncName, Value, types};
use cranelift_codegen::isa::TargetFrontendConfig;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

const SIGN: i64 = 0x8000_0000;
const MAGNITUDE: i64 = 0x7fff_ffff;
const INFINITY: i64 = 0x7f80_0000;
const NAN: i64 = 0x7fc0_0000;
const FRACTION: i64 = 0x007f_ffff;
const HIDDEN: i64 = 0x0080_0000;
/// Bits of a quotient that division computes, one a round: 24 are kept, one is for rounding, one stands beside the
/// remainder.
pub(super) const QUOTIENT: u64 = 26;

pub(super) fn build(routine: Routine, signature: Signature, has_clz: bool) -> Function {
    let config = TargetFrontendConfig {
        default_call_conv: signature.call_conv,
        pointer_width: target_lexicon::PointerWidth::U32,
        page_size_align_log2: 12,
    };
    let mut function = Function::with_name_signature(UserFuncName::default(), signature);
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut function, &mut context);
    let block = b.create_block();
    b.append_block_params_for_function_params(block);
    b.switch_to_block(block);
    let params = b.block_params(block).to_vec();
    let mut code = Code { b, has_clz };
    let bits: Vec<Value> = params
        .into_iter()
        .map(|value| match code.b.func.dfg.value_type(value) {
            types::F32 => code.cast(types::I32, value),
            _ => value,
        })
        .collect();
    match (routine, &bits[..]) {
        (Routine::Add, [a, b]) => code.add(*a, *b),
        (Routine::Sub, [a, b]) => {
            let b = code.xor(*b, SIGN);
            code.add(*a, b);
        }
        (Routine::Mul, [a, b]) => code.mul(*a, *b),
        (Routine::Div, [a, b]) => code.div(*a, *b),
        (Routine::Compare, [a, b]) => code.compare(*a, *b),
        (Routine::FromSigned | Routine::FromUnsigned, [x]) => code.integer_to_float(*x, routine == Routine::FromSigned),
        (Routine::ToSigned | Routine::ToUnsigned, [x]) => code.float_to_integer(*x, routine == Routine::ToSigned),
        _ => unreachable!("the signature has the routine's operands"),
    }
    code.b.seal_all_blocks();
    code.b.finalize(config);
    function
}

/// A routine under construction; all values are 32-bit words.
struct Code<'f> {
    b: FunctionBuilder<'f>,
    has_clz: bool,
}

impl Code<'_> {
    fn c(&mut self, value: i64) -> Value {
        self.b.ins().iconst(types::I32, value & 0xffff_ffff)
    }

    fn cast(&mut self, ty: Type, value: Value) -> Value {
        self.b.ins().bitcast(ty, MemFlagsData::new(), value)
    }

    fn and(&mut self, x: Value, constant: i64) -> Value {
        let constant = self.c(constant);
        self.b.ins().band(x, constant)
    }

    fn or(&mut self, x: Value, constant: i64) -> Value {
        let constant = self.c(constant);
        self.b.ins().bor(x, constant)
    }

    fn xor(&mut self, x: Value, constant: i64) -> Value {
        let constant = self.c(constant);
        self.b.ins().bxor(x, constant)
    }

    fn add_constant(&mut self, x: Value, constant: i64) -> Value {
        let constant = self.c(constant);
        self.b.ins().iadd(x, constant)
    }

    fn shl(&mut self, x: Value, by: i64) -> Value {
        let by = self.c(by);
        self.b.ins().ishl(x, by)
    }

    fn shr(&mut self, x: Value, by: i64) -> Value {
        let by = self.c(by);
        self.b.ins().ushr(x, by)
    }

    fn is(&mut self, cond: IntCC, x: Value, constant: i64) -> Value {
        let constant = self.c(constant);
        self.b.ins().icmp(cond, x, constant)
    }

    /// 1 if the condition holds, else 0, as a word.
    fn word(&mut self, condition: Value) -> Value {
        self.b.ins().uextend(types::I32, condition)
    }

    /// Code that runs only if the condition holds, and returns.
    fn when(&mut self, condition: Value, then: impl FnOnce(&mut Self)) {
        let (yes, no) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(condition, yes, &[], no, &[]);
        self.b.switch_to_block(yes);
        then(self);
        self.b.switch_to_block(no);
    }

    /// Returns these bits as the routine's result.
    fn ret(&mut self, bits: Value) {
        let result = match self.b.func.signature.returns[0].value_type {
            types::F32 => self.cast(types::F32, bits),
            _ => bits,
        };
        self.b.ins().return_(&[result]);
    }

    fn ret_constant(&mut self, bits: i64) {
        let bits = self.c(bits);
        self.ret(bits);
    }

    /// x >> by, with bit 0 set if a bit was lost; `by` is at most 31.
    fn shift_sticky(&mut self, x: Value, by: Value) -> Value {
        let shifted = self.b.ins().ushr(x, by);
        let back = self.b.ins().ishl(shifted, by);
        let lost = self.b.ins().icmp(IntCC::NotEqual, back, x);
        let lost = self.word(lost);
        self.b.ins().bor(shifted, lost)
    }

    /// Leading zeros of a word that is not zero.
    fn leading_zeros(&mut self, x: Value) -> Value {
        if self.has_clz {
            return self.b.ins().clz(x);
        }
        let mut x = x;
        let mut count = self.c(0);
        for step in [16i64, 8, 4, 2, 1] {
            // If the upper `step` bits are clear, they count and go.
            let clear = self.is(IntCC::UnsignedLessThan, x, 1 << (32 - step));
            let clear = self.word(clear);
            let by = self.shl(clear, i64::from(step.trailing_zeros()));
            x = self.b.ins().ishl(x, by);
            count = self.b.ins().iadd(count, by);
        }
        count
    }

    /// Exponent and significand with its highest bit at 23 of a magnitude that is neither zero nor infinite.
    fn normalized(&mut self, magnitude: Value) -> (Value, Value) {
        let exponent = self.shr(magnitude, 23);
        let fraction = self.and(magnitude, FRACTION);
        let with_hidden = self.or(fraction, HIDDEN);
        let zeros = self.leading_zeros(magnitude);
        let up = self.add_constant(zeros, -8);
        let raised = self.b.ins().ishl(fraction, up);
        let one = self.c(1);
        let lowered = self.b.ins().isub(one, up);
        let subnormal = self.is(IntCC::Equal, exponent, 0);
        (
            self.b.ins().select(subnormal, lowered, exponent),
            self.b.ins().select(subnormal, raised, with_hidden),
        )
    }

    /// Rounds and returns sign × m / 2^31 × 2^(e − 127): `m` has bit 31 set and its lost bits in bit 0. Exponents out
    /// of range give infinity, or a subnormal or zero.
    fn ret_rounded(&mut self, sign: Value, e: Value, m: Value) {
        // Below the normal range the significand moves down instead of the exponent.
        let one = self.c(1);
        let below = self.b.ins().isub(one, e);
        let (zero, most) = (self.c(0), self.c(31));
        let below = self.b.ins().smax(below, zero);
        let below = self.b.ins().smin(below, most);
        let m = self.shift_sticky(m, below);
        let e = self.b.ins().smax(e, one);
        let kept = self.shr(m, 8);
        let rest = self.and(m, 0xff);
        // Up beyond a half, and at a half if the result would be odd.
        let odd = self.and(kept, 1);
        let up = self.b.ins().iadd(rest, odd);
        let up = self.add_constant(up, 127);
        let up = self.shr(up, 8);
        // The hidden bit adds one to the exponent.
        let e = self.add_constant(e, -1);
        let e = self.shl(e, 23);
        let bits = self.b.ins().iadd(e, kept);
        let bits = self.b.ins().iadd(bits, up);
        let infinity = self.c(INFINITY);
        let bits = self.b.ins().umin(bits, infinity);
        let bits = self.b.ins().bor(bits, sign);
        self.ret(bits);
    }

    fn add(&mut self, a: Value, b: Value) {
        // x has the greater magnitude.
        let (ma, mb) = (self.and(a, MAGNITUDE), self.and(b, MAGNITUDE));
        let less = self.b.ins().icmp(IntCC::UnsignedLessThan, ma, mb);
        let x = self.b.ins().select(less, b, a);
        let y = self.b.ins().select(less, a, b);
        let mx = self.b.ins().umax(ma, mb);
        let my = self.b.ins().umin(ma, mb);
        let signs = self.b.ins().bxor(x, y);
        let special = self.is(IntCC::UnsignedGreaterThanOrEqual, mx, INFINITY);
        self.when(special, |s| {
            // A NaN, or infinities of opposite signs; else x.
            let nan = s.is(IntCC::UnsignedGreaterThan, mx, INFINITY);
            let both = s.is(IntCC::Equal, my, INFINITY);
            let opposite = s.is(IntCC::SignedLessThan, signs, 0);
            let invalid = s.b.ins().band(both, opposite);
            let invalid = s.b.ins().bor(nan, invalid);
            let quiet = s.c(NAN);
            let result = s.b.ins().select(invalid, quiet, x);
            s.ret(result);
        });
        let nothing = self.is(IntCC::Equal, my, 0);
        self.when(nothing, |s| {
            // Zeros of opposite signs add to +0.
            let both = s.b.ins().band(x, y);
            let zero = s.is(IntCC::Equal, mx, 0);
            let result = s.b.ins().select(zero, both, x);
            s.ret(result);
        });

        // Significands with the hidden bit at 26: three bits below for rounding.
        let significand = |s: &mut Self, magnitude: Value| {
            let exponent = s.shr(magnitude, 23);
            let fraction = s.and(magnitude, FRACTION);
            let normal = s.is(IntCC::NotEqual, exponent, 0);
            let normal = s.word(normal);
            let hidden = s.shl(normal, 23);
            let one = s.c(1);
            let exponent = s.b.ins().umax(exponent, one);
            let whole = s.b.ins().bor(fraction, hidden);
            (exponent, s.shl(whole, 3))
        };
        let (ex, sx) = significand(self, mx);
        let (ey, sy) = significand(self, my);
        let distance = self.b.ins().isub(ex, ey);
        let most = self.c(31);
        let distance = self.b.ins().umin(distance, most);
        let sy = self.shift_sticky(sy, distance);
        let sum = self.b.ins().iadd(sx, sy);
        let difference = self.b.ins().isub(sx, sy);
        let opposite = self.is(IntCC::SignedLessThan, signs, 0);
        let sum = self.b.ins().select(opposite, difference, sum);
        let cancelled = self.is(IntCC::Equal, sum, 0);
        self.when(cancelled, |s| s.ret_constant(0));
        // To bit 31 for rounding: the value is sum / 2^26 × 2^(ex − 127).
        let zeros = self.leading_zeros(sum);
        let m = self.b.ins().ishl(sum, zeros);
        let e = self.b.ins().isub(ex, zeros);
        let e = self.add_constant(e, 5);
        let sign = self.and(x, SIGN);
        self.ret_rounded(sign, e, m);
    }

    fn mul(&mut self, a: Value, b: Value) {
        let signs = self.b.ins().bxor(a, b);
        let sign = self.and(signs, SIGN);
        let (ma, mb) = (self.and(a, MAGNITUDE), self.and(b, MAGNITUDE));
        let most = self.b.ins().umax(ma, mb);
        let least = self.b.ins().umin(ma, mb);
        let special = self.is(IntCC::UnsignedGreaterThanOrEqual, most, INFINITY);
        self.when(special, |s| {
            let nan = s.is(IntCC::UnsignedGreaterThan, most, INFINITY);
            let zero = s.is(IntCC::Equal, least, 0);
            let invalid = s.b.ins().bor(nan, zero);
            let (quiet, infinite) = (s.c(NAN), s.or(sign, INFINITY));
            let result = s.b.ins().select(invalid, quiet, infinite);
            s.ret(result);
        });
        let zero = self.is(IntCC::Equal, least, 0);
        self.when(zero, |s| s.ret(sign));
        let (ea, fa) = self.normalized(ma);
        let (eb, fb) = self.normalized(mb);
        let e = self.b.ins().iadd(ea, eb);
        // The product of two 32-bit fractions below one; its lost half only matters as a whole.
        let (fa, fb) = (self.shl(fa, 8), self.shl(fb, 8));
        let high = self.b.ins().umulhi(fa, fb);
        let low = self.b.ins().imul(fa, fb);
        let lost = self.is(IntCC::NotEqual, low, 0);
        let lost = self.word(lost);
        let m = self.b.ins().bor(high, lost);
        // In [2^30, 2^32): one doubling, or none.
        let large = self.shr(m, 31);
        let small = self.xor(large, 1);
        let m = self.b.ins().ishl(m, small);
        let e = self.b.ins().iadd(e, large);
        let e = self.add_constant(e, -127);
        self.ret_rounded(sign, e, m);
    }

    fn div(&mut self, a: Value, b: Value) {
        let signs = self.b.ins().bxor(a, b);
        let sign = self.and(signs, SIGN);
        let (ma, mb) = (self.and(a, MAGNITUDE), self.and(b, MAGNITUDE));
        let most = self.b.ins().umax(ma, mb);
        let special = self.is(IntCC::UnsignedGreaterThanOrEqual, most, INFINITY);
        self.when(special, |s| {
            let nan = s.is(IntCC::UnsignedGreaterThan, most, INFINITY);
            let same = s.b.ins().icmp(IntCC::Equal, ma, mb);
            let invalid = s.b.ins().bor(nan, same);
            let infinite = s.is(IntCC::Equal, ma, INFINITY);
            let (quiet, large) = (s.c(NAN), s.or(sign, INFINITY));
            let result = s.b.ins().select(infinite, large, sign);
            let result = s.b.ins().select(invalid, quiet, result);
            s.ret(result);
        });
        let by_zero = self.is(IntCC::Equal, mb, 0);
        self.when(by_zero, |s| {
            let invalid = s.is(IntCC::Equal, ma, 0);
            let (quiet, infinite) = (s.c(NAN), s.or(sign, INFINITY));
            let result = s.b.ins().select(invalid, quiet, infinite);
            s.ret(result);
        });
        let zero = self.is(IntCC::Equal, ma, 0);
        self.when(zero, |s| s.ret(sign));
        let (ea, fa) = self.normalized(ma);
        let (eb, fb) = self.normalized(mb);
        let e = self.b.ins().isub(ea, eb);
        // A quotient in [1, 2).
        let small = self.b.ins().icmp(IntCC::UnsignedLessThan, fa, fb);
        let small = self.word(small);
        let fa = self.b.ins().ishl(fa, small);
        let e = self.b.ins().isub(e, small);
        let e = self.add_constant(e, 127);
        let (head, exit) = (self.b.create_block(), self.b.create_block());
        let quotient = self.b.append_block_param(head, types::I32);
        let rest = self.b.append_block_param(head, types::I32);
        let left = self.b.append_block_param(head, types::I32);
        let (start, rounds) = (self.c(0), self.c(QUOTIENT as i64));
        self.b.ins().jump(head, &[start.into(), fa.into(), rounds.into()]);
        self.b.switch_to_block(head);
        let fits = self.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, rest, fb);
        let reduced = self.b.ins().isub(rest, fb);
        let rest = self.b.ins().select(fits, reduced, rest);
        let rest = self.shl(rest, 1);
        let quotient = self.shl(quotient, 1);
        let fits = self.word(fits);
        let quotient = self.b.ins().bor(quotient, fits);
        let left = self.add_constant(left, -1);
        self.b
            .ins()
            .brif(left, head, &[quotient.into(), rest.into(), left.into()], exit, &[]);
        self.b.switch_to_block(exit);
        let lost = self.is(IntCC::NotEqual, rest, 0);
        let lost = self.word(lost);
        let m = self.shl(quotient, 6);
        let m = self.b.ins().bor(m, lost);
        self.ret_rounded(sign, e, m);
    }

    fn compare(&mut self, a: Value, b: Value) {
        let (ma, mb) = (self.and(a, MAGNITUDE), self.and(b, MAGNITUDE));
        let most = self.b.ins().umax(ma, mb);
        let nan = self.is(IntCC::UnsignedGreaterThan, most, INFINITY);
        self.when(nan, |s| s.ret_constant(3));
        // Sign and magnitude to two's complement: both zeros become 0.
        let key = |s: &mut Self, bits: Value, magnitude: Value| {
            let negative = s.is(IntCC::SignedLessThan, bits, 0);
            let opposite = s.b.ins().ineg(magnitude);
            s.b.ins().select(negative, opposite, magnitude)
        };
        let (ka, kb) = (key(self, a, ma), key(self, b, mb));
        let greater = self.b.ins().icmp(IntCC::SignedGreaterThan, ka, kb);
        let less = self.b.ins().icmp(IntCC::SignedLessThan, ka, kb);
        let (greater, less) = (self.word(greater), self.word(less));
        let order = self.b.ins().isub(greater, less);
        let order = self.add_constant(order, 1);
        self.ret(order);
    }

    fn integer_to_float(&mut self, x: Value, signed: bool) {
        let (sign, magnitude) = if signed {
            let sign = self.and(x, SIGN);
            let negative = self.is(IntCC::SignedLessThan, x, 0);
            let opposite = self.b.ins().ineg(x);
            (sign, self.b.ins().select(negative, opposite, x))
        } else {
            (self.c(0), x)
        };
        let zero = self.is(IntCC::Equal, magnitude, 0);
        self.when(zero, |s| s.ret_constant(0));
        let zeros = self.leading_zeros(magnitude);
        let m = self.b.ins().ishl(magnitude, zeros);
        let top = self.c(127 + 31);
        let e = self.b.ins().isub(top, zeros);
        self.ret_rounded(sign, e, m);
    }

    fn float_to_integer(&mut self, x: Value, signed: bool) {
        let magnitude = self.and(x, MAGNITUDE);
        let negative = self.is(IntCC::SignedLessThan, x, 0);
        let nan = self.is(IntCC::UnsignedGreaterThan, magnitude, INFINITY);
        let exponent = self.shr(magnitude, 23);
        // Below one, a NaN, or negative where there is no sign.
        let tiny = self.is(IntCC::UnsignedLessThan, exponent, 127);
        let mut nothing = self.b.ins().bor(tiny, nan);
        if !signed {
            nothing = self.b.ins().bor(nothing, negative);
        }
        self.when(nothing, |s| s.ret_constant(0));
        let top = if signed { 127 + 31 } else { 127 + 32 };
        let beyond = self.is(IntCC::UnsignedGreaterThanOrEqual, exponent, top);
        self.when(beyond, |s| {
            let result = if signed {
                let (least, greatest) = (s.c(SIGN), s.c(MAGNITUDE));
                s.b.ins().select(negative, least, greatest)
            } else {
                s.c(0xffff_ffff)
            };
            s.ret(result);
        });
        let fraction = self.and(magnitude, FRACTION);
        let significand = self.or(fraction, HIDDEN);
        let m = self.shl(significand, 8);
        let units = self.c(127 + 31);
        let by = self.b.ins().isub(units, exponent);
        let whole = self.b.ins().ushr(m, by);
        let result = if signed {
            let opposite = self.b.ins().ineg(whole);
            self.b.ins().select(negative, opposite, whole)
        } else {
            whole
        };
        self.ret(result);
    }
}
