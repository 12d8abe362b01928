//! Fixed-point requantization as TensorFlow Lite Micro defines it: double rounding everywhere.
//!
//! Source: the behaviour of TFLM's reference kernels (`MultiplyByQuantizedMultiplier` without
//! `TFLITE_SINGLE_ROUNDING`, gemmlowp's `SaturatingRoundingDoublingHighMul` and `RoundingDivideByPOT`).

use super::{Activation, DType, Quantization};

/// A real multiplier as `mantissa × 2^(shift − 31)`, mantissa in [2^30, 2^31) or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Multiplier {
    /// Q31 mantissa.
    pub mantissa: i32,
    /// Positive: left shift before the multiplication; negative: rounding right shift after it. −31 to 31.
    pub shift: i32,
}

impl Multiplier {
    /// The nearest fixed-point form of a non-negative finite `real` (TFLite's `QuantizeMultiplier`).
    pub fn new(real: f64) -> Self {
        if real == 0.0 || !real.is_finite() {
            return Multiplier { mantissa: 0, shift: 0 };
        }
        let (fraction, mut shift) = frexp(real);
        let mut mantissa = (fraction * (1i64 << 31) as f64).round() as i64;
        if mantissa == 1 << 31 {
            mantissa /= 2;
            shift += 1;
        }
        if shift < -31 {
            return Multiplier { mantissa: 0, shift: 0 };
        }
        Multiplier {
            mantissa: mantissa as i32,
            shift,
        }
    }

    /// Left shift, 0 if the multiplier is below one.
    pub fn left(self) -> u32 {
        self.shift.max(0) as u32
    }

    /// Rounding right shift, 0 if the multiplier is at least one.
    pub fn right(self) -> u32 {
        (-self.shift).max(0) as u32
    }

    /// x × multiplier with double rounding (`MultiplyByQuantizedMultiplier`). The left shift wraps as in TFLM.
    pub fn apply(self, x: i32) -> i32 {
        let shifted = if self.left() < 32 {
            x.wrapping_shl(self.left())
        } else {
            0
        };
        rounding_divide_by_pot(
            saturating_rounding_doubling_high_mul(shifted, self.mantissa),
            self.right(),
        )
    }
}

/// `fraction × 2^exponent = x`, fraction in [0.5, 1), for finite x > 0.
fn frexp(x: f64) -> (f64, i32) {
    let bits = x.to_bits();
    let biased = ((bits >> 52) & 0x7ff) as i32;
    if biased == 0 {
        // Subnormal: normalise first.
        let (fraction, exponent) = frexp(x * (1u64 << 54) as f64);
        return (fraction, exponent - 54);
    }
    (f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52)), biased - 1022)
}

/// Rounded high half of the doubled product; saturates only for −2^31 × −2^31.
pub fn saturating_rounding_doubling_high_mul(a: i32, b: i32) -> i32 {
    if a == i32::MIN && b == i32::MIN {
        return i32::MAX;
    }
    // floor((ab + 2^30) / 2^31) equals gemmlowp's sign-dependent nudge with truncating division.
    ((i64::from(a) * i64::from(b) + (1 << 30)) >> 31) as i32
}

/// x / 2^exponent, rounded to nearest, halves away from zero. `exponent` is 0 to 31.
pub fn rounding_divide_by_pot(x: i32, exponent: u32) -> i32 {
    let mask = ((1i64 << exponent) - 1) as i32;
    let remainder = x & mask;
    let threshold = (mask >> 1) + i32::from(x < 0);
    (x >> exponent) + i32::from(remainder > threshold)
}

/// Range of `dtype`'s values.
pub fn range(dtype: DType) -> (i32, i32) {
    match dtype {
        DType::I8 => (i32::from(i8::MIN), i32::from(i8::MAX)),
        DType::U8 => (0, i32::from(u8::MAX)),
        DType::I16 => (i32::from(i16::MIN), i32::from(i16::MAX)),
        _ => (i32::MIN, i32::MAX),
    }
}

/// Quantized clamp of an activation for an output type (`CalculateActivationRangeQuantized`).
pub fn activation_range(activation: Activation, dtype: DType, output: &Quantization) -> (i32, i32) {
    let (min, max) = range(dtype);
    let quantize = |x: f32| {
        let q = (x / output.scale[0]).round();
        output.zero_point[0].saturating_add(q as i32)
    };
    match activation {
        Activation::None => (min, max),
        Activation::Relu => (min.max(quantize(0.0)), max),
        Activation::Relu6 => (min.max(quantize(0.0)), max.min(quantize(6.0))),
        Activation::ReluN1To1 => (min.max(quantize(-1.0)), max.min(quantize(1.0))),
    }
}

/// Clamp of an activation on floats.
pub fn activation_range_f32(activation: Activation) -> (f32, f32) {
    match activation {
        Activation::None => (f32::NEG_INFINITY, f32::INFINITY),
        Activation::Relu => (0.0, f32::INFINITY),
        Activation::Relu6 => (0.0, 6.0),
        Activation::ReluN1To1 => (-1.0, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplier_of_powers_of_two() {
        assert_eq!(
            Multiplier::new(1.0),
            Multiplier {
                mantissa: 1 << 30,
                shift: 1
            }
        );
        assert_eq!(
            Multiplier::new(0.25),
            Multiplier {
                mantissa: 1 << 30,
                shift: -1
            }
        );
        assert_eq!(Multiplier::new(0.0), Multiplier { mantissa: 0, shift: 0 });
        assert_eq!(
            Multiplier::new(f64::MIN_POSITIVE / 4.0),
            Multiplier { mantissa: 0, shift: 0 }
        );
        // A fraction that rounds up to one moves into the exponent.
        assert_eq!(
            Multiplier::new(1.0 - 1e-12),
            Multiplier {
                mantissa: 1 << 30,
                shift: 1
            }
        );
    }

    #[test]
    fn halves_round_away_from_zero() {
        assert_eq!(
            [5, 6, 7, -5, -6, -7].map(|x| rounding_divide_by_pot(x, 2)),
            [1, 2, 2, -1, -2, -2]
        );
        assert_eq!(rounding_divide_by_pot(i32::MIN, 31), -1);
        assert_eq!(rounding_divide_by_pot(i32::MAX, 31), 1);
        assert_eq!(rounding_divide_by_pot(-7, 0), -7);
    }

    #[test]
    fn high_mul_matches_the_sign_dependent_nudge() {
        let gemmlowp = |a: i32, b: i32| {
            let ab = i64::from(a) * i64::from(b);
            let nudge = if ab >= 0 { 1 << 30 } else { 1 - (1 << 30) };
            ((ab + nudge) / (1i64 << 31)) as i32
        };
        let values = [
            0,
            1,
            -1,
            2,
            -2,
            12345,
            -54321,
            1 << 30,
            -(1 << 30),
            (1 << 30) + 1,
            i32::MAX,
            i32::MIN + 1,
        ];
        for a in values {
            for b in values {
                assert_eq!(saturating_rounding_doubling_high_mul(a, b), gemmlowp(a, b), "{a} {b}");
            }
        }
        assert_eq!(saturating_rounding_doubling_high_mul(i32::MIN, i32::MIN), i32::MAX);
    }
}
