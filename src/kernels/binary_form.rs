//! Which steps give the int8 result of a sum, difference or product: the cheapest that the machine has and that are
//! proven on all 65,536 pairs of operands, or else TFLM's own.

use super::affine::{self, Affine, Estimate, Lanes, Point};
use crate::graph::evaluate::{ADD_LEFT_SHIFT, AddScaling, mul_multiplier};
use crate::graph::quant::Multiplier;
use crate::graph::{BinaryOp, Tensor};
use crate::target::{Arch, Target};
use std::collections::BTreeSet;

/// Left shift that brings an int8 to the top of 32 bits.
pub const TOP: u32 = 24;
/// Left shift of a product of two differences of int8, which has 17 bits, for a high product.
pub const PRODUCT_LEFT: u32 = 14;

/// How int8 results are computed.
#[derive(Clone, Debug)]
pub enum Form {
    /// a x + b y + c, shifted.
    Sum(Affine),
    /// a ((x − zx) (y − zy)) + c, shifted.
    Product {
        /// Zero points of the operands.
        zeros: [i32; 2],
        /// The function of the product.
        form: Affine,
    },
    /// The operands requantized, their sum or difference requantized.
    ExactSum {
        /// Zero points of the operands.
        zeros: [i32; 2],
        /// The three multipliers.
        scaling: AddScaling,
        /// Whether it is a difference.
        subtract: bool,
        /// Zero point of the result.
        zero: i32,
    },
    /// The product requantized.
    ExactProduct {
        /// Zero points of the operands.
        zeros: [i32; 2],
        /// The multiplier.
        multiplier: Multiplier,
        /// Zero point of the result.
        zero: i32,
    },
}

impl Form {
    /// The cheapest form for `target` that gives TFLM's result, clamped to `range`, for all pairs.
    pub fn new(target: &Target, a: &Tensor, b: &Tensor, y: &Tensor, kind: BinaryOp, range: (i32, i32)) -> Self {
        if kind == BinaryOp::Mul {
            Form::product(target, a, b, y, range)
        } else {
            Form::sum(target, a, b, y, kind == BinaryOp::Sub, range)
        }
    }

    fn product(target: &Target, a: &Tensor, b: &Tensor, y: &Tensor, range: (i32, i32)) -> Self {
        let ((sa, za), (sb, zb), (sy, zero)) = (a.affine(), b.affine(), y.affine());
        let zeros = [za, zb];
        let multiplier = mul_multiplier(sa, sb, sy);
        let products: BTreeSet<i32> = (-128..128)
            .flat_map(|x| (-128..128).map(move |y| (x - za) * (y - zb)))
            .collect();
        let points: Vec<Point> = products
            .into_iter()
            .map(|x| Point {
                x,
                y: 0,
                result: multiplier.apply(x).wrapping_add(zero).max(range.0).min(range.1),
            })
            .collect();
        let estimate = Estimate {
            a: f64::from(sa) * f64::from(sb) / f64::from(sy),
            b: 0.0,
            zeros: [0, 0],
            zero,
        };
        let lanes = lanes(target, PRODUCT_LEFT);
        let lanes = if lanes == Lanes::Long16 { Lanes::Wide } else { lanes };
        let form = affine::search(&points, range, &estimate, lanes).or_else(|| match lanes {
            // TFLM's own steps are as cheap.
            Lanes::High { .. } => None,
            _ => affine::search_signed(&points, range, &estimate, lanes),
        });
        match form {
            Some(form) => Form::Product { zeros, form },
            None => Form::ExactProduct {
                zeros,
                multiplier,
                zero,
            },
        }
    }

    fn sum(target: &Target, a: &Tensor, b: &Tensor, y: &Tensor, subtract: bool, range: (i32, i32)) -> Self {
        let ((sa, za), (sb, zb), (sy, zero)) = (a.affine(), b.affine(), y.affine());
        let zeros = [za, zb];
        let scaling = AddScaling::new(sa, sb, sy);
        let terms = [0, 1].map(|i| {
            let term = |x: i32| scaling.inputs[i].apply((x - zeros[i]) << ADD_LEFT_SHIFT);
            (-128..128).map(|x| (x, term(x))).collect::<Vec<(i32, i32)>>()
        });
        let result = |a: i32, b: i32| {
            let sum = if subtract { a.wrapping_sub(b) } else { a.wrapping_add(b) };
            scaling.output.apply(sum).wrapping_add(zero).max(range.0).min(range.1)
        };
        let points: Vec<Point> = terms[0]
            .iter()
            .flat_map(|(x, a)| {
                terms[1].iter().map(move |(y, b)| Point {
                    x: *x,
                    y: *y,
                    result: result(*a, *b),
                })
            })
            .collect();
        let sign = if subtract { -1.0 } else { 1.0 };
        let estimate = Estimate {
            a: f64::from(sa) / f64::from(sy),
            b: sign * f64::from(sb) / f64::from(sy),
            zeros,
            zero,
        };
        // 64-bit products are many instructions on 32-bit machines.
        let machine = target.machine();
        let narrow = !machine.simd128 && machine.integer_bytes == 4;
        let search = |lanes| affine::search(&points, range, &estimate, lanes);
        let found = match lanes(target, TOP) {
            Lanes::Wide if narrow => search(Lanes::Word).or_else(|| search(Lanes::Long16)),
            lanes => search(lanes),
        };
        found
            .or_else(|| affine::symmetric(&points, range, &estimate))
            .or_else(|| narrow.then(|| search(Lanes::Wide))?)
            .map_or(
                Form::ExactSum {
                    zeros,
                    scaling,
                    subtract,
                    zero,
                },
                Form::Sum,
            )
    }

    /// For the name of the schedule.
    pub fn name(&self) -> &'static str {
        match self {
            Form::Sum(form) | Form::Product { form, .. } => match form.lanes {
                Lanes::Word => "affine32",
                Lanes::Wide => "affine64",
                Lanes::Split => "affine split",
                Lanes::High { .. } => "affine high",
                Lanes::Long16 => "affine 32x16",
            },
            Form::ExactSum { .. } | Form::ExactProduct { .. } => "exact",
        }
    }
}

/// The products that `target` is good at.
fn lanes(target: &Target, left: u32) -> Lanes {
    match target.arch() {
        _ if target.machine().dsp => Lanes::Long16,
        _ if !target.machine().simd128 => Lanes::Wide,
        Arch::Aarch64 => Lanes::High { left },
        _ => Lanes::Split,
    }
}
