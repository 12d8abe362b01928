//! int8 sums, differences and products in CLIF, in the [`Form`] that was chosen for them.

use super::affine::{Affine, Lanes};
use super::binary_form::{Form, PRODUCT_LEFT, TOP};
use super::emit::Emitter;
use super::lanes::Splat;
use super::lookup::Loaded;
use crate::graph::DType;
use crate::graph::evaluate::{ADD_LEFT_SHIFT, AddScaling};
use crate::graph::quant::Multiplier;
use crate::intrinsic::Intrinsic;
use crate::target::Target;
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// An operand that stays, in the form in which a [`Ready`] takes operands.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    splat: Splat,
    /// Elements of one vector.
    lanes: usize,
}

impl Fixed {
    /// The operand for a step of `width` elements.
    pub fn of(&self, width: usize) -> Vec<Value> {
        vec![self.splat.of(width); (width / self.lanes).max(1)]
    }
}

/// A [`Form`] with its constants in registers. Operands come in by [`Ready::load`] or [`Ready::fixed`], in vectors of
/// the form's own, and go to [`Ready::join`].
pub enum Ready {
    /// 32-bit products.
    Words(Loaded),
    /// 64-bit products, scalar.
    Wide(Wide),
    /// Pairs of 16-bit factors, high and low.
    Pairs {
        /// Low and high parts of a and b, in turn.
        factors: [Splat; 2],
        /// Low and high part of c.
        added: [Splat; 2],
        /// The form.
        form: Affine,
    },
    /// Products with 16 bits of a word: both operands' factors, c.
    Long16 {
        /// The factors.
        factors: [Value; 2],
        /// c.
        added: Value,
        /// What leaves the upper bytes of 16 bits.
        mask: Value,
        /// The form.
        form: Affine,
    },
    /// High words of products with an operand in the top byte: both operands' factors, c.
    Top {
        /// The factors.
        factors: [Value; 2],
        /// c.
        added: Value,
        /// The form.
        form: Affine,
    },
    /// High products of each operand.
    High {
        /// The factors.
        factors: [Splat; 2],
        /// c.
        added: Splat,
        /// The form.
        form: Affine,
    },
    /// The operands requantized.
    ExactSum {
        /// Zero points of the operands.
        zeros: [Splat; 2],
        /// The multipliers.
        scaling: AddScaling,
        /// Their mantissas.
        mantissas: [Splat; 3],
        /// Whether it is a difference.
        subtract: bool,
        /// Zero point of the result.
        zero: Splat,
    },
    /// A function of the product of the operands without their zero points.
    Product {
        /// Zero points of the operands, for scalars.
        zeros: [Splat; 2],
        /// Zero points of the operands, for vectors.
        short_zeros: [Splat; 2],
        /// The function.
        function: OfProduct,
    },
}

/// A form of 64-bit products, and both factors and c in registers where every use would load them anew.
pub struct Wide {
    form: Affine,
    kept: Option<[Value; 3]>,
}

impl Wide {
    fn new(e: &mut Emitter, form: Affine) -> Self {
        let machine = e.target.machine();
        let kept = (!machine.simd128 && machine.integer_bytes == 8).then(|| {
            let constants = [form.a, form.b, form.c].map(|constant| e.int(types::I64, constant));
            let parked = e.park(&constants);
            let loaded = e.fetch(parked, types::I64, 0, 3);
            [loaded[0], loaded[1], loaded[2]]
        });
        Wide { form, kept }
    }

    /// `a x`, or `b y + c`.
    fn term(&self, e: &mut Emitter, i: usize, x: Value) -> Value {
        let Some(kept) = self.kept else {
            return wide_term(e, &self.form, i, x);
        };
        let term = e.b.ins().imul(x, kept[i]);
        if i == 0 {
            return term;
        }
        e.b.ins().iadd(term, kept[2])
    }
}

/// A function of a product.
pub enum OfProduct {
    /// Factors high and low.
    Split {
        /// The parts of a.
        factors: [Splat; 2],
        /// The parts of c.
        added: [Splat; 2],
        /// The high part of what is added to negative products.
        negative: Splat,
        /// The form.
        form: Affine,
    },
    /// High products.
    High {
        /// a.
        factor: Splat,
        /// c.
        added: Splat,
        /// The form.
        form: Affine,
    },
    /// 64-bit products, scalar.
    Wide(Affine),
    /// TFLM's steps.
    Exact {
        /// The multiplier.
        multiplier: Multiplier,
        /// Its mantissa.
        mantissa: Splat,
        /// Zero point of the result.
        zero: Splat,
    },
}

/// High and low part of a factor or an added constant.
fn parts(x: i64) -> [i32; 2] {
    [(x & ((1 << Lanes::LOW) - 1)) as i32, (x >> Lanes::LOW) as i32]
}

impl Ready {
    /// Loads the constants.
    pub fn new(e: &mut Emitter, form: &Form) -> Self {
        match form {
            Form::Sum(form) => match form.lanes {
                Lanes::Word => Ready::Words(Loaded::new(e, form)),
                Lanes::Wide => Ready::Wide(Wide::new(e, *form)),
                Lanes::Split => {
                    let (a, b) = (parts(form.a), parts(form.b));
                    let pair = |i: usize| (a[i] & 0xffff) | b[i] << 16;
                    Ready::Pairs {
                        factors: [e.spread_i32(pair(0)), e.spread_i32(pair(1))],
                        added: parts(form.c).map(|c| e.spread_i32(c)),
                        form: *form,
                    }
                }
                Lanes::Long16 if !e.target.machine().dsp => Ready::Top {
                    factors: [form.a, form.b].map(|factor| e.i32(factor as i32)),
                    added: e.i32(form.c as i32),
                    form: *form,
                },
                Lanes::Long16 => {
                    // Two halves put together are no constant that every use would make anew.
                    let half = e.i32(0xff00);
                    Ready::Long16 {
                        factors: [form.a, form.b].map(|factor| e.i32(factor as i32)),
                        added: e.i32(form.c as i32),
                        mask: e.intrinsic(Intrinsic::Pkhbt, &[half, half]),
                        form: *form,
                    }
                }
                Lanes::High { .. } => Ready::High {
                    factors: [form.a, form.b].map(|factor| e.spread_i32(factor as i32)),
                    added: e.spread_i32(form.c as i32),
                    form: *form,
                },
            },
            Form::ExactSum {
                zeros,
                scaling,
                subtract,
                zero,
            } => Ready::ExactSum {
                zeros: zeros.map(|z| e.spread_i32(z)),
                scaling: *scaling,
                mantissas: [scaling.inputs[0], scaling.inputs[1], scaling.output].map(|m| e.spread_i32(m.mantissa)),
                subtract: *subtract,
                zero: e.spread_i32(*zero),
            },
            Form::Product { zeros, form } => {
                let function = match form.lanes {
                    Lanes::Word | Lanes::Wide | Lanes::Long16 => OfProduct::Wide(*form),
                    Lanes::Split => OfProduct::Split {
                        factors: parts(form.a).map(|a| e.spread_i32(a)),
                        added: parts(form.c).map(|c| e.spread_i32(c)),
                        negative: e.spread_i32(parts(form.negative)[1]),
                        form: *form,
                    },
                    Lanes::High { .. } => OfProduct::High {
                        factor: e.spread_i32(form.a as i32),
                        added: e.spread_i32(form.c as i32),
                        form: *form,
                    },
                };
                Ready::of_product(e, zeros, function)
            }
            Form::ExactProduct {
                zeros,
                multiplier,
                zero,
            } => {
                let function = OfProduct::Exact {
                    multiplier: *multiplier,
                    mantissa: e.spread_i32(multiplier.mantissa),
                    zero: e.spread_i32(*zero),
                };
                Ready::of_product(e, zeros, function)
            }
        }
    }

    fn of_product(e: &mut Emitter, zeros: &[i32; 2], function: OfProduct) -> Self {
        Ready::Product {
            zeros: zeros.map(|z| e.spread_i32(z)),
            short_zeros: zeros.map(|z| {
                let short = e.int(types::I16, i64::from(z));
                e.spread(types::I16X8, short)
            }),
            function,
        }
    }

    /// Steps in a round of the loop.
    pub fn unroll(&self, target: &Target) -> u64 {
        match self {
            _ if !target.machine().simd128 => 4,
            Ready::ExactSum { .. }
            | Ready::Product {
                function: OfProduct::Exact { .. },
                ..
            } => 1,
            _ => 2,
        }
    }

    /// Operand `i`, one element for all lanes.
    pub fn fixed(&self, e: &mut Emitter, i: usize, from: Value) -> Fixed {
        let scalar = self.load(e, i, from, 0, 1)[0];
        match self {
            Ready::Pairs { .. } | Ready::Product { .. } => {
                let vector = e.target.machine().simd128.then(|| {
                    let short = e.b.ins().ireduce(types::I16, scalar);
                    e.b.ins().splat(types::I16X8, short)
                });
                Fixed {
                    splat: Splat::new(scalar, vector),
                    lanes: 8,
                }
            }
            Ready::Wide(_) | Ready::Long16 { .. } | Ready::Top { .. } => Fixed {
                splat: Splat::new(scalar, None),
                lanes: 1,
            },
            _ => Fixed {
                splat: e.spread(types::I32X4, scalar),
                lanes: 4,
            },
        }
    }

    /// `width` elements of operand `i` and what depends on it alone.
    pub fn load(&self, e: &mut Emitter, i: usize, from: Value, offset: i32, width: usize) -> Vec<Value> {
        let words = |e: &mut Emitter| e.load_bytes(DType::I8, from, offset, width);
        match self {
            Ready::Words(form) => {
                let x = words(e);
                x.into_iter()
                    .map(|x| if i == 1 { form.partial(e, x) } else { form.product(e, x) })
                    .collect()
            }
            Ready::Wide(wide) => {
                let x = e.b.ins().sload8(types::I64, Emitter::flags(), from, offset);
                vec![wide.term(e, i, x)]
            }
            Ready::Top { factors, added, .. } => {
                let x = e.load_i8(from, offset);
                let x = e.shl(x, TOP);
                let high = e.b.ins().smulhi(x, factors[i]);
                vec![if i == 1 { e.b.ins().iadd(high, *added) } else { high }]
            }
            Ready::Long16 { factors, added, .. } => {
                let x = e.load_i8(from, offset);
                let x = e.shl(x, 8);
                let start = if i == 1 { *added } else { e.i32(0) };
                vec![e.intrinsic(Intrinsic::Smlawb, &[factors[i], x, start])]
            }
            Ready::Pairs { .. } if width == 1 => words(e),
            Ready::Pairs { .. } => e.load_i16(DType::I8, from, offset, width),
            Ready::High { form, factors, added } => {
                if width == 1 {
                    let x = e.b.ins().sload8(types::I64, Emitter::flags(), from, offset);
                    let term = rounded_term(e, if i == 1 { form.b } else { form.a }, 31 - TOP, x);
                    let mut term = e.b.ins().ireduce(types::I32, term);
                    if i == 1 {
                        term = e.b.ins().iadd(term, added.of(1));
                    }
                    return vec![term];
                }
                let x = e.load_raw(from, offset, width);
                top_words(e, x, width)
                    .into_iter()
                    .map(|x| {
                        let term = e.b.ins().sqmul_round_sat(x, factors[i].of(4));
                        if i == 1 {
                            e.b.ins().iadd(term, added.of(4))
                        } else {
                            term
                        }
                    })
                    .collect()
            }
            Ready::ExactSum {
                zeros,
                scaling,
                mantissas,
                ..
            } => {
                let x = words(e);
                x.into_iter()
                    .map(|x| {
                        let zero = zeros[i].like(e, x);
                        let x = e.b.ins().isub(x, zero);
                        let x = e.shl(x, ADD_LEFT_SHIFT);
                        e.multiply(x, scaling.inputs[i], mantissas[i])
                    })
                    .collect()
            }
            Ready::Product { zeros, short_zeros, .. } => {
                if width == 1 {
                    let x = e.load_i8(from, offset);
                    return vec![e.b.ins().isub(x, zeros[i].of(1))];
                }
                let x = e.load_i16(DType::I8, from, offset, width);
                x.into_iter().map(|x| e.b.ins().isub(x, short_zeros[i].of(8))).collect()
            }
        }
    }

    /// Results of four elements of both operands at once, before the clamp, if the form has steps of its own for them.
    pub fn four(&self, e: &mut Emitter, pointers: [Value; 2], offset: i32) -> Option<[Value; 4]> {
        let Ready::Long16 {
            factors,
            added,
            mask,
            form,
        } = self
        else {
            return None;
        };
        let halves = pointers.map(|from| {
            let four = e.load(types::I32, from, offset);
            let odd = e.b.ins().band(four, *mask);
            let up = e.shl(four, 8);
            [e.b.ins().band(*mask, up), odd]
        });
        Some([0, 1, 2, 3].map(|i| {
            let product = [Intrinsic::Smlawb, Intrinsic::Smlawt][i / 2];
            let t = e.intrinsic(product, &[factors[0], halves[0][i % 2], *added]);
            let t = e.intrinsic(product, &[factors[1], halves[1][i % 2], t]);
            e.sar(t, form.shift)
        }))
    }

    /// Results of two operands, before the clamp, in lanes of 32 bits.
    pub fn join(&self, e: &mut Emitter, a: &[Value], b: &[Value]) -> Vec<Value> {
        let pairs = a.iter().copied().zip(b.iter().copied());
        match self {
            Ready::Words(form) => pairs
                .map(|(a, b)| {
                    let t = e.b.ins().iadd(a, b);
                    form.finish(e, t)
                })
                .collect(),
            Ready::Wide(wide) => pairs
                .map(|(a, b)| {
                    let t = e.b.ins().iadd(a, b);
                    e.sar(t, wide.form.shift)
                })
                .collect(),
            Ready::Pairs { factors, added, form } => pairs
                .flat_map(|(x, y)| {
                    if !e.b.func.dfg.value_type(x).is_vector() {
                        let x = e.b.ins().sextend(types::I64, x);
                        let y = e.b.ins().sextend(types::I64, y);
                        let (x, y) = (wide_term(e, form, 0, x), wide_term(e, form, 1, y));
                        let t = e.b.ins().iadd(x, y);
                        let t = e.sar(t, form.shift);
                        return vec![e.b.ins().ireduce(types::I32, t)];
                    }
                    let factors = factors.map(|pair| e.cast(types::I16X8, pair.of(4)));
                    let both = e.zip16(x, y);
                    both.into_iter()
                        .map(|both| {
                            let low = e.pairs(added[0].of(4), both, factors[0]);
                            let low = e.sar(low, Lanes::LOW);
                            let t = e.pairs(low, both, factors[1]);
                            let t = e.b.ins().iadd(t, added[1].of(4));
                            e.sar(t, form.shift - Lanes::LOW)
                        })
                        .collect()
                })
                .collect(),
            Ready::High { form, .. } | Ready::Long16 { form, .. } | Ready::Top { form, .. } => pairs
                .map(|(a, b)| {
                    let t = e.b.ins().iadd(a, b);
                    e.sar(t, form.shift)
                })
                .collect(),
            Ready::ExactSum {
                scaling,
                mantissas,
                subtract,
                zero,
                ..
            } => pairs
                .map(|(a, b)| {
                    let sum = if *subtract {
                        e.b.ins().isub(a, b)
                    } else {
                        e.b.ins().iadd(a, b)
                    };
                    let y = e.multiply(sum, scaling.output, mantissas[2]);
                    let zero = zero.like(e, y);
                    e.b.ins().iadd(y, zero)
                })
                .collect(),
            Ready::Product { function, .. } => pairs
                .flat_map(|(x, y)| {
                    let products = if e.b.func.dfg.value_type(x).is_vector() {
                        let low = [e.b.ins().swiden_low(x), e.b.ins().swiden_low(y)];
                        let low = e.b.ins().imul(low[0], low[1]);
                        let high = [e.b.ins().swiden_high(x), e.b.ins().swiden_high(y)];
                        vec![low, e.b.ins().imul(high[0], high[1])]
                    } else {
                        vec![e.b.ins().imul(x, y)]
                    };
                    products
                        .into_iter()
                        .map(|p| function.apply(e, p))
                        .collect::<Vec<Value>>()
                })
                .collect(),
        }
    }
}

impl OfProduct {
    fn apply(&self, e: &mut Emitter, p: Value) -> Value {
        let vector = e.b.func.dfg.value_type(p).is_vector();
        match self {
            OfProduct::Split {
                factors,
                added,
                negative,
                form,
            } if vector => {
                let low = e.b.ins().imul(p, factors[0].of(4));
                let low = e.b.ins().iadd(low, added[0].of(4));
                let low = e.sar(low, Lanes::LOW);
                let t = e.b.ins().imul(p, factors[1].of(4));
                let t = e.b.ins().iadd(t, low);
                let mut t = e.b.ins().iadd(t, added[1].of(4));
                if form.negative != 0 {
                    let sign = e.sar(p, 31);
                    let more = e.b.ins().band(sign, negative.of(4));
                    t = e.b.ins().iadd(t, more);
                }
                e.sar(t, form.shift - Lanes::LOW)
            }
            OfProduct::High { factor, added, form } if vector => {
                let p = e.shl(p, PRODUCT_LEFT);
                let t = e.b.ins().sqmul_round_sat(p, factor.of(4));
                let t = e.b.ins().iadd(t, added.of(4));
                e.sar(t, form.shift)
            }
            OfProduct::Split { form, .. } | OfProduct::Wide(form) => {
                let p = e.b.ins().sextend(types::I64, p);
                let t = wide_term(e, form, 0, p);
                let c = e.int(types::I64, form.c);
                let mut t = e.b.ins().iadd(t, c);
                if form.negative != 0 {
                    let sign = e.sar(p, 63);
                    let negative = e.int(types::I64, form.negative);
                    let more = e.b.ins().band(sign, negative);
                    t = e.b.ins().iadd(t, more);
                }
                let t = e.sar(t, form.shift);
                narrow(e, t)
            }
            OfProduct::High { form, .. } => {
                let p = e.b.ins().sextend(types::I64, p);
                let t = rounded_term(e, form.a, 31 - PRODUCT_LEFT, p);
                let c = e.int(types::I64, form.c);
                let t = e.b.ins().iadd(t, c);
                let t = e.sar(t, form.shift);
                narrow(e, t)
            }
            OfProduct::Exact {
                multiplier,
                mantissa,
                zero,
            } => {
                let y = e.multiply(p, *multiplier, *mantissa);
                let zero = zero.like(e, y);
                e.b.ins().iadd(y, zero)
            }
        }
    }
}

/// A 64-bit result as 32 bits where the clamp works on those.
fn narrow(e: &mut Emitter, t: Value) -> Value {
    if e.target.machine().simd128 {
        e.b.ins().ireduce(types::I32, t)
    } else {
        t
    }
}

/// `a x`, or `b y + c`, in 64 bits.
fn wide_term(e: &mut Emitter, form: &Affine, i: usize, x: Value) -> Value {
    let factor = e.int(types::I64, if i == 1 { form.b } else { form.a });
    let term = e.b.ins().imul(x, factor);
    if i == 0 {
        return term;
    }
    let c = e.int(types::I64, form.c);
    e.b.ins().iadd(term, c)
}

/// `factor × x / 2^bits` rounded, in 64 bits.
fn rounded_term(e: &mut Emitter, factor: i64, bits: u32, x: Value) -> Value {
    let factor = e.int(types::I64, factor);
    let term = e.b.ins().imul(x, factor);
    let half = e.int(types::I64, 1 << (bits - 1));
    let term = e.b.ins().iadd(term, half);
    e.sar(term, bits)
}

/// int8 elements at the top of lanes of 32 bits.
fn top_words(e: &mut Emitter, x: Value, width: usize) -> Vec<Value> {
    let zero = e.splat_int(types::I8X16, 0);
    let shorts = e.zip8(zero, x);
    shorts[..width / 8]
        .iter()
        .flat_map(|short| {
            let zero = e.cast(types::I16X8, zero);
            let short = e.cast(types::I16X8, *short);
            e.zip16(zero, short).map(|word| e.cast(types::I32X4, word))
        })
        .collect()
}
