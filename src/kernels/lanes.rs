//! Elements as lanes: runs of contiguous elements in steps of a vector or of one element, loads that widen to 32 bits,
//! stores that narrow, constants that stay in registers.
//!
//! A step's `width` is the number of elements that it handles. 8-bit elements are widened to 32 bits: a step of 16 is
//! four `i32x4`, a step of 8 two, a step of 1 an `i32`. On targets without vectors the only width is 1.

use super::emit::Emitter;
use super::requantize;
use crate::graph::quant::{self, Multiplier};
use crate::graph::{Activation, DType};
use crate::target::Target;
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};

/// Widths in which 8-bit elements are handled, widest first.
pub const BYTES: &[usize] = &[16, 8];
/// Widths in which 32-bit elements are handled.
pub const WORDS: &[usize] = &[4];

/// A constant as a scalar and, on targets with vectors, in all lanes. Made outside of loops, it stays in a register;
/// the half that no step uses costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Splat {
    scalar: Value,
    vector: Option<Value>,
}

impl Splat {
    /// The scalar, and what it is in all lanes.
    pub fn new(scalar: Value, vector: Option<Value>) -> Self {
        Splat { scalar, vector }
    }

    /// The constant for lanes like those of `like`.
    pub fn like(self, e: &Emitter, like: Value) -> Value {
        match self.vector {
            Some(vector) if e.b.func.dfg.value_type(like).is_vector() => vector,
            _ => self.scalar,
        }
    }

    /// The constant for a step of `width` elements.
    pub fn of(self, width: usize) -> Value {
        match self.vector {
            Some(vector) if width > 1 => vector,
            _ => self.scalar,
        }
    }
}

/// Nested loops over `dims`, outermost first; each has a trip count and the step in bytes of every pointer.
pub fn nest(
    e: &mut Emitter,
    dims: &[(u64, Vec<i64>)],
    pointers: &[Value],
    body: &mut dyn FnMut(&mut Emitter, &[Value]),
) {
    // Recursion as deep as a tensor has dimensions.
    let Some(((count, steps), inner)) = dims.split_first() else {
        return body(e, pointers);
    };
    let moving: Vec<(Value, i64)> = pointers.iter().copied().zip(steps.iter().copied()).collect();
    e.counted(*count, &moving, &[], |e, pointers, _| {
        nest(e, inner, pointers, body);
        vec![]
    });
}

/// One step of a [sweep](Emitter::sweep): `step(emitter, pointers, at, width)`.
pub type Step<'s> = &'s mut dyn FnMut(&mut Emitter, &[Value], i64, usize);

impl Emitter<'_> {
    /// Runs `body(emitter, pointers, at, width)` over `count` contiguous elements, in steps as wide as `widths` allows.
    /// `streams` are pointers with the bytes of one of their elements (0 for a pointer that stays); a step handles the
    /// elements `at .. at + width` behind its pointers. The last step may overlap the one before, so `body` must give
    /// the same for an element each time, which it does where outputs do not alias inputs.
    pub fn sweep(&mut self, count: u64, streams: &[(Value, i64)], widths: &[usize], body: Step) {
        let unroll = if widths.is_empty() || !self.target.machine().simd128 {
            4
        } else {
            2
        };
        self.sweep_unrolled(unroll, count, streams, widths, body);
    }

    /// [`Emitter::sweep`] with `unroll` steps in a round of the loop.
    pub fn sweep_unrolled(&mut self, unroll: u64, count: u64, streams: &[(Value, i64)], widths: &[usize], body: Step) {
        let starts: Vec<Value> = streams.iter().map(|(start, _)| *start).collect();
        let fitting = widths.iter().copied().find(|width| *width as u64 <= count);
        let width = fitting.filter(|_| self.target.machine().simd128).unwrap_or(1);
        let steps = count / width as u64;
        let tail = (count % width as u64) as i64;
        let mut at = 0;
        let mut pointers = starts;
        if steps >= 2 * unroll {
            let chunk = width as i64 * unroll as i64;
            let moving: Vec<(Value, i64)> = streams.iter().map(|(p, bytes)| (*p, bytes * chunk)).collect();
            let (_, ends) = self.counted(steps / unroll, &moving, &[], |e, pointers, _| {
                for i in 0..unroll as i64 {
                    body(e, pointers, i * width as i64, width);
                }
                vec![]
            });
            pointers = ends;
            for _ in 0..steps % unroll {
                body(self, &pointers, at, width);
                at += width as i64;
            }
        } else {
            for _ in 0..steps {
                body(self, &pointers, at, width);
                at += width as i64;
            }
        }
        if tail > 0 {
            body(self, &pointers, at + tail - width as i64, width);
        }
    }

    /// The same value in all lanes of `ty`.
    pub fn spread(&mut self, ty: Type, scalar: Value) -> Splat {
        let vector = self.target.machine().simd128.then(|| self.b.ins().splat(ty, scalar));
        Splat { scalar, vector }
    }

    /// `i32` or `i32x4` constant.
    pub fn spread_i32(&mut self, value: i32) -> Splat {
        let scalar = self.i32(value);
        self.spread(types::I32X4, scalar)
    }

    /// `f32` or `f32x4` constant.
    pub fn spread_f32(&mut self, value: f32) -> Splat {
        let scalar = self.b.ins().f32const(value);
        self.spread(types::F32X4, scalar)
    }

    /// The low 32 bits of the lanes of two `i64x2`, as `i32x4`.
    pub fn low_words(&mut self, low: Value, high: Value) -> Value {
        let words = self.shuffle(low, high, [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27]);
        self.cast(types::I32X4, words)
    }

    /// x × multiplier with double rounding in 32-bit lanes, as [`Multiplier::apply`]; the product must be below 2^30 in
    /// magnitude if the multiplier shifts right.
    pub fn multiply(&mut self, x: Value, multiplier: Multiplier, mantissa: Splat) -> Value {
        let x = if multiplier.left() > 0 {
            self.shl(x, multiplier.left())
        } else {
            x
        };
        let right = multiplier.right();
        if self.b.func.dfg.value_type(x).is_vector() {
            let m = mantissa.like(self, x);
            let product = self.rounding_doubling_high_multiply(x, m);
            self.round_shift(product, right)
        } else {
            let wide = self.b.ins().sextend(types::I64, x);
            let m = self.int(types::I64, i64::from(multiplier.mantissa));
            let product = self.b.ins().imul(wide, m);
            let half = self.int(types::I64, 1 << 30);
            let product = self.b.ins().iadd(product, half);
            let product = self.sar(product, 31);
            let product = self.round_shift(product, right);
            self.b.ins().ireduce(types::I32, product)
        }
    }

    /// x / 2^bits, rounded to nearest, halves away from zero.
    fn round_shift(&mut self, x: Value, bits: u32) -> Value {
        if bits == 0 {
            return x;
        }
        let ty = self.b.func.dfg.value_type(x);
        let sign = self.sar(x, ty.lane_bits() - 1);
        let half = if ty.is_vector() {
            self.splat_int(ty, 1 << (bits - 1))
        } else {
            self.int(ty, 1 << (bits - 1))
        };
        let x = self.b.ins().iadd(x, sign);
        let x = self.b.ins().iadd(x, half);
        self.sar(x, bits)
    }

    /// `base + offset` as a pointer and an offset that fits an access, with room for a few elements more.
    pub fn near(&mut self, base: Value, offset: i64) -> (Value, i32) {
        if offset.abs() < 1 << 30 {
            (base, offset as i32)
        } else {
            (self.offset(base, offset), 0)
        }
    }

    /// 8 bytes into the low half of a vector of 16.
    pub fn load_half(&mut self, base: Value, offset: i32) -> Value {
        let low = self.load(types::F64, base, offset);
        let vector = self.b.ins().scalar_to_vector(types::F64X2, low);
        self.cast(types::I8X16, vector)
    }

    /// The low half of a vector to 8 bytes.
    pub fn store_half(&mut self, vector: Value, base: Value, offset: i32) {
        let vector = self.cast(types::F64X2, vector);
        let low = self.b.ins().extractlane(vector, 0);
        self.store(low, base, offset);
    }

    /// int8 elements as they are: a vector of 16, the low half of one, or one in 32 bits.
    pub fn load_raw(&mut self, base: Value, offset: i32, width: usize) -> Value {
        match width {
            1 => self.load_i8(base, offset),
            8 => self.load_half(base, offset),
            _ => self.load(types::I8X16, base, offset),
        }
    }

    /// Stores what [`Emitter::load_raw`] loads, clamped to `[min, max]`.
    pub fn store_raw(&mut self, mut value: Value, (min, max): (i32, i32), base: Value, offset: i32, width: usize) {
        if width == 1 {
            return self.store_narrow(&[value], DType::I8, (min, max), base, offset, 1);
        }
        value = self.limit(value, DType::I8, (min, max));
        if width == 8 {
            self.store_half(value, base, offset);
        } else {
            self.store(value, base, offset);
        }
    }

    /// `width` 8-bit elements widened to 16 bits: one `i16x8` for each eight. Not for width 1.
    pub fn load_i16(&mut self, dtype: DType, base: Value, offset: i32, width: usize) -> Vec<Value> {
        (0..width / 8)
            .map(|i| {
                let offset = offset + 8 * i as i32;
                if dtype == DType::U8 {
                    self.b.ins().uload8x8(Self::flags(), base, offset)
                } else {
                    self.b.ins().sload8x8(Self::flags(), base, offset)
                }
            })
            .collect()
    }

    /// An `i16x8` as two `i32x4`.
    pub fn widen_i16(&mut self, value: Value) -> [Value; 2] {
        [self.b.ins().swiden_low(value), self.b.ins().swiden_high(value)]
    }

    /// `width` 8-bit elements widened to 32 bits.
    pub fn load_bytes(&mut self, dtype: DType, base: Value, offset: i32, width: usize) -> Vec<Value> {
        if width == 1 {
            return vec![if dtype == DType::U8 {
                self.b.ins().uload8(types::I32, Self::flags(), base, offset)
            } else {
                self.load_i8(base, offset)
            }];
        }
        let halves = self.load_i16(dtype, base, offset, width);
        halves.into_iter().flat_map(|half| self.widen_i16(half)).collect()
    }

    /// Stores `width` 32-bit values as 8-bit elements, clamped to `[min, max]` within the range of `dtype`.
    pub fn store_narrow(
        &mut self,
        values: &[Value],
        dtype: DType,
        (min, max): (i32, i32),
        base: Value,
        offset: i32,
        width: usize,
    ) {
        if width == 1 {
            let clamped = self.clamp_i32(values[0], min, max);
            return self.store_i8(clamped, base, offset);
        }
        let pairs: Vec<Value> = values
            .chunks_exact(2)
            .map(|pair| self.b.ins().snarrow(pair[0], pair[1]))
            .collect();
        self.store_i16(&pairs, dtype, (min, max), base, offset);
    }

    /// Stores `i16x8` values as 8-bit elements, clamped to `[min, max]` within the range of `dtype`.
    pub fn store_i16(&mut self, values: &[Value], dtype: DType, (min, max): (i32, i32), base: Value, offset: i32) {
        let (low, high) = (values[0], *values.last().unwrap_or(&values[0]));
        let bytes = if dtype == DType::U8 {
            self.b.ins().unarrow(low, high)
        } else {
            self.b.ins().snarrow(low, high)
        };
        let bytes = self.limit(bytes, dtype, (min, max));
        if values.len() == 1 {
            self.store_half(bytes, base, offset);
        } else {
            self.store(bytes, base, offset);
        }
    }

    /// Bytes clamped to `[min, max]`; bounds that do not bound cost nothing.
    pub fn limit(&mut self, mut bytes: Value, dtype: DType, (min, max): (i32, i32)) -> Value {
        let range = quant::range(dtype);
        if min > range.0 {
            let min = self.splat_int(types::I8X16, i64::from(min));
            bytes = if dtype == DType::U8 {
                self.b.ins().umax(bytes, min)
            } else {
                self.b.ins().smax(bytes, min)
            };
        }
        if max < range.1 {
            let max = self.splat_int(types::I8X16, i64::from(max));
            bytes = if dtype == DType::U8 {
                self.b.ins().umin(bytes, max)
            } else {
                self.b.ins().smin(bytes, max)
            };
        }
        bytes
    }

    /// Arithmetic right shift of every lane.
    pub fn sar(&mut self, value: Value, bits: u32) -> Value {
        self.b.ins().sshr_imm_u(value, i64::from(bits))
    }

    /// Logical right shift of every lane.
    pub fn shr(&mut self, value: Value, bits: u32) -> Value {
        self.b.ins().ushr_imm_u(value, i64::from(bits))
    }

    /// Left shift of every lane.
    pub fn shl(&mut self, value: Value, bits: u32) -> Value {
        self.b.ins().ishl_imm_u(value, i64::from(bits))
    }

    /// Scalar clamp; the result may be 64 bits wide.
    fn clamp_i32(&mut self, value: Value, min: i32, max: i32) -> Value {
        // SSAT clamps in one instruction, other 32-bit machines in a branch for each bound.
        let word = self.target.machine().integer_bytes == 4 && self.b.func.dfg.value_type(value) == types::I32;
        if !self.target.machine().simd128 && !word {
            let wide = match self.b.func.dfg.value_type(value) {
                types::I64 => value,
                _ => self.b.ins().sextend(types::I64, value),
            };
            return requantize::clamp(self, wide, min, max);
        }
        let min = self.i32(min);
        let max = self.i32(max);
        let value = self.b.ins().smax(value, min);
        self.b.ins().smin(value, max)
    }

    /// `width` binary32 elements.
    pub fn load_f32(&mut self, base: Value, offset: i32, width: usize) -> Value {
        self.load(if width == 1 { types::F32 } else { types::F32X4 }, base, offset)
    }

    /// `a < b ? yes : no` in each lane of floats; false for a NaN.
    pub fn select_less(&mut self, a: Value, b: Value, yes: Value, no: Value) -> Value {
        let less = self.b.ins().fcmp(FloatCC::LessThan, a, b);
        let ty = self.b.func.dfg.value_type(yes);
        if ty.is_vector() {
            let mask = self.cast(ty, less);
            self.b.ins().bitselect(mask, yes, no)
        } else {
            self.b.ins().select(less, yes, no)
        }
    }

    /// max(x, least) as `x < least ? least : x`: a NaN stays.
    pub fn at_least(&mut self, x: Value, least: Value) -> Value {
        self.select_less(x, least, least, x)
    }

    /// min(x, most) as `most < x ? most : x`: a NaN stays.
    pub fn at_most(&mut self, x: Value, most: Value) -> Value {
        self.select_less(most, x, most, x)
    }
}

/// The bounds of an activation on binary32, in registers; bounds that do not bound are left out.
pub struct Clamp {
    least: Option<Splat>,
    most: Option<Splat>,
}

impl Clamp {
    /// Makes the constants.
    pub fn new(e: &mut Emitter, activation: Activation) -> Self {
        let (min, max) = quant::activation_range_f32(activation);
        Clamp {
            least: min.is_finite().then(|| e.spread_f32(min)),
            most: max.is_finite().then(|| e.spread_f32(max)),
        }
    }

    /// min(max(x, least), most); a NaN stays.
    pub fn emit(&self, e: &mut Emitter, mut x: Value) -> Value {
        if let Some(least) = self.least {
            let least = least.like(e, x);
            x = e.at_least(x, least);
        }
        if let Some(most) = self.most {
            let most = most.like(e, x);
            x = e.at_most(x, most);
        }
        x
    }
}

/// `x16` or `scalar`, for the names of schedules.
pub fn name(target: &Target, widest: usize) -> &'static str {
    match (target.machine().simd128, widest) {
        (true, 16) => "x16",
        (true, _) => "x4",
        (false, _) => "scalar",
    }
}
