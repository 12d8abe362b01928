//! 128-bit idioms in the forms that Cranelift's instruction selection knows.

use super::emit::Emitter;
use crate::target::{Arch, Dot};
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::{F32, F32X4, I8X16, I16, I16X8, I32, I32X4, I64X2};
use cranelift_codegen::ir::{ConstantData, Endianness, InstBuilder, MemFlagsData, Type, Value};

/// Byte order of a shuffle that takes the odd 32-bit lanes of two vectors: the high halves of 64-bit products.
const ODD_DWORDS: [u8; 16] = [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31];
/// Interleaves the low four 16-bit lanes of two vectors (x86 `punpcklwd`, AArch64 `zip1`).
const ZIP_LOW_16: [u8; 16] = [0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23];
/// Interleaves the high four 16-bit lanes (x86 `punpckhwd`, AArch64 `zip2`).
const ZIP_HIGH_16: [u8; 16] = [8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31];
/// Interleaves the low eight bytes of two vectors.
const ZIP_LOW_8: [u8; 16] = [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23];
/// Interleaves the high eight bytes.
const ZIP_HIGH_8: [u8; 16] = [8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31];

impl Emitter<'_> {
    /// The same 128 bits as another type.
    pub fn cast(&mut self, ty: Type, value: Value) -> Value {
        if self.b.func.dfg.value_type(value) == ty {
            return value;
        }
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        self.b.ins().bitcast(ty, flags, value)
    }

    /// `bytes` of the pair (x, y), by index; the result has x's type.
    pub fn shuffle(&mut self, x: Value, y: Value, bytes: [u8; 16]) -> Value {
        let ty = self.b.func.dfg.value_type(x);
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(&bytes[..]));
        let (x, y) = (self.cast(I8X16, x), self.cast(I8X16, y));
        let shuffled = self.b.ins().shuffle(x, y, mask);
        self.cast(ty, shuffled)
    }

    /// A vector of equal integers.
    pub fn splat_int(&mut self, ty: Type, value: i64) -> Value {
        if self.target.arch() == Arch::X86_64 {
            let lane = ty.lane_type().bytes() as usize;
            let bytes: Vec<u8> = value.to_le_bytes()[..lane].repeat(16 / lane);
            return self.constant(ty, &bytes);
        }
        let value = self.int(ty.lane_type(), value);
        self.b.ins().splat(ty, value)
    }

    /// A vector of equal floats.
    pub fn splat_f32(&mut self, value: f32) -> Value {
        if self.target.arch() == Arch::X86_64 {
            return self.constant(F32X4, &value.to_le_bytes().repeat(4));
        }
        let value = self.b.ins().f32const(value);
        self.b.ins().splat(F32X4, value)
    }

    fn constant(&mut self, ty: Type, bytes: &[u8]) -> Value {
        let constant = self.b.func.dfg.constants.insert(ConstantData::from(bytes));
        self.b.ins().vconst(ty, constant)
    }

    /// Four bytes at `base + offset` in every 32-bit lane, as `ty`.
    pub fn load_splat(&mut self, ty: Type, base: Value, offset: i32) -> Value {
        // On x86 a float load and a shuffle are one instruction less than an integer load, a move and a shuffle.
        let (scalar, vector) = match self.target.arch() {
            Arch::X86_64 => (F32, F32X4),
            _ if ty == F32X4 => (F32, F32X4),
            _ => (I32, I32X4),
        };
        let value = self.load(scalar, base, offset);
        let value = self.b.ins().splat(vector, value);
        self.cast(ty, value)
    }

    /// Eight int8 at `base + offset`, widened to `int16x8`.
    pub fn load_i8x8(&mut self, base: Value, offset: i32) -> Value {
        self.b.ins().sload8x8(Self::flags(), base, offset)
    }

    /// `acc[i] + x[2i]·y[2i] + x[2i+1]·y[2i+1]` on `int16x8`; x86 `pmaddwd`.
    pub fn pairs(&mut self, acc: Value, x: Value, y: Value) -> Value {
        let (xl, yl) = (self.b.ins().swiden_low(x), self.b.ins().swiden_low(y));
        let (xh, yh) = (self.b.ins().swiden_high(x), self.b.ins().swiden_high(y));
        let (low, high) = (self.b.ins().imul(xl, yl), self.b.ins().imul(xh, yh));
        let sum = self.b.ins().iadd_pairwise(low, high);
        self.b.ins().iadd(sum, acc)
    }

    /// `acc[i] + Σ w[4i+j]·a[4i+j]` on 16 bytes; `vpdpbusd` (unsigned `a`) or `sdot`.
    pub fn dot(&mut self, kind: Dot, acc: Value, w: Value, a: Value) -> Value {
        let (wl, wh) = (self.b.ins().swiden_low(w), self.b.ins().swiden_high(w));
        let (al, ah) = match kind {
            Dot::Unsigned => (self.b.ins().uwiden_low(a), self.b.ins().uwiden_high(a)),
            Dot::Signed => (self.b.ins().swiden_low(a), self.b.ins().swiden_high(a)),
        };
        let (low, high) = (self.b.ins().imul(wl, al), self.b.ins().imul(wh, ah));
        let (low, high) = (self.pair_sums(low), self.pair_sums(high));
        let sum = self.b.ins().iadd_pairwise(low, high);
        self.b.ins().iadd(sum, acc)
    }

    /// Sums of neighbouring int16 lanes, in 32 bits.
    fn pair_sums(&mut self, x: Value) -> Value {
        let (low, high) = (self.b.ins().swiden_low(x), self.b.ins().swiden_high(x));
        self.b.ins().iadd_pairwise(low, high)
    }

    /// Two vectors of 16-bit lanes, interleaved: low and high half.
    pub fn zip16(&mut self, x: Value, y: Value) -> [Value; 2] {
        [self.shuffle(x, y, ZIP_LOW_16), self.shuffle(x, y, ZIP_HIGH_16)]
    }

    /// Two vectors of bytes, interleaved: low and high half.
    pub fn zip8(&mut self, x: Value, y: Value) -> [Value; 2] {
        [self.shuffle(x, y, ZIP_LOW_8), self.shuffle(x, y, ZIP_HIGH_8)]
    }

    /// The signed high 32 bits of the lanes' 64-bit products after `prepare` on each half of the products.
    pub fn high_products(&mut self, x: Value, y: Value, mut prepare: impl FnMut(&mut Self, Value) -> Value) -> Value {
        let (xl, yl) = (self.b.ins().swiden_low(x), self.b.ins().swiden_low(y));
        let low = self.b.ins().imul(xl, yl);
        let low = prepare(self, low);
        let (xh, yh) = (self.b.ins().swiden_high(x), self.b.ins().swiden_high(y));
        let high = self.b.ins().imul(xh, yh);
        let high = prepare(self, high);
        let odd = self.shuffle(low, high, ODD_DWORDS);
        self.cast(I32X4, odd)
    }

    /// ⌊(x·y + 2^30) / 2^31⌋ in every lane: gemmlowp's SaturatingRoundingDoublingHighMul, but for −2^31 · −2^31.
    pub fn rounding_doubling_high_multiply(&mut self, x: Value, y: Value) -> Value {
        if self.target.arch() == Arch::Aarch64 {
            return self.b.ins().sqmul_round_sat(x, y);
        }
        self.high_products(x, y, |e, product| {
            let half = e.splat_int(I64X2, 1 << 30);
            let rounded = e.b.ins().iadd(product, half);
            e.b.ins().iadd(rounded, rounded)
        })
    }

    /// Stores the first `bytes` (1 to 16) bytes of a vector.
    pub fn store_bytes(&mut self, value: Value, bytes: usize, base: Value, offset: i32) {
        if bytes == 16 {
            self.store(value, base, offset);
            return;
        }
        let mut done = 0;
        for (ty, size) in [(I64X2, 8), (I32X4, 4), (I16X8, 2), (I8X16, 1)] {
            if bytes - done >= size {
                let lanes = self.cast(ty, value);
                let lane = self.b.ins().extractlane(lanes, (done / size) as u8);
                self.store(lane, base, offset + done as i32);
                done += size;
            }
        }
    }

    /// Four (or fewer) `int32x4` narrowed to bytes in order, saturating twice; `between` works on the 16-bit halves.
    pub fn narrow(&mut self, values: &[Value], mut between: impl FnMut(&mut Self, Value) -> Value) -> Value {
        let pick = |i: usize| *values.get(i).unwrap_or(&values[values.len() - 1]);
        let low = self.b.ins().snarrow(pick(0), pick(1));
        let low = between(self, low);
        let high = if values.len() > 2 {
            let high = self.b.ins().snarrow(pick(2), pick(3));
            between(self, high)
        } else {
            low
        };
        self.b.ins().snarrow(low, high)
    }

    /// Arithmetic right shift of lanes or a scalar by a constant.
    pub fn shift_right(&mut self, value: Value, by: u32) -> Value {
        if by == 0 {
            return value;
        }
        let by = self.int(I32, i64::from(by));
        self.b.ins().sshr(value, by)
    }

    /// `value` between two bounds: `value < min ? min : value`, then `value > max ? max : value`, so NaN stays. Infinite
    /// bounds cost nothing.
    pub fn clamp_f32(&mut self, value: Value, min: f32, max: f32) -> Value {
        let vector = self.b.func.dfg.value_type(value) == F32X4;
        let mut value = value;
        for (condition, bound) in [(FloatCC::LessThan, min), (FloatCC::GreaterThan, max)] {
            if bound.is_infinite() {
                continue;
            }
            if vector {
                let bound = self.splat_f32(bound);
                let outside = self.b.ins().fcmp(condition, value, bound);
                let outside = self.cast(F32X4, outside);
                value = self.b.ins().bitselect(outside, bound, value);
            } else {
                let bound = self.b.ins().f32const(bound);
                let outside = self.b.ins().fcmp(condition, value, bound);
                value = self.b.ins().select(outside, bound, value);
            }
        }
        value
    }

    /// `value` of 16-bit lanes plus a constant, saturating.
    pub fn add_saturating_i16(&mut self, value: Value, constant: i16) -> Value {
        if constant == 0 {
            return value;
        }
        let constant = self.splat_int(I16.by(8).expect("int16x8"), i64::from(constant));
        self.b.ins().sadd_sat(value, constant)
    }
}
