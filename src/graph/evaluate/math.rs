//! e^x, the logistic function and tanh on binary32, as fixed sequences of operations.
//!
//! Evaluator and compiled code run the same operations in the same order on the same [constants](constant), so they
//! agree bit for bit. Every function is straight-line: unfused additions, subtractions, multiplications and divisions,
//! ordered comparisons with selects, and additions, shifts and masks on the bits. There is no conversion between float
//! and integer and no minimum or maximum of floats: those are where machines differ. What machines do not agree on
//! remains unspecified: the payload and sign of a NaN result.
//!
//! | | largest error over all finite arguments | at −∞, +∞ |
//! |--|--|--|
//! | [`exp`] | 0.78 ULP | 0, +∞ |
//! | [`logistic`] | 1.69 ULP | 0, 1 |
//! | [`tanh`] | 1.35 ULP | −1, 1 |
//!
//! The errors are against f64, measured on every binary32; a NaN gives a NaN; results too small for a normal number
//! are subnormal with the same bound. The polynomials are minimax fits (Remez) made for these functions.

/// The constants of all three functions: compiled kernels use these and no others.
pub mod constant {
    /// Below this, e^x is 0: less than half of the smallest subnormal.
    pub const EXP_MIN: f32 = -104.0;
    /// Above this, e^x is +∞.
    pub const EXP_MAX: f32 = 89.0;
    /// log2 e.
    pub const LOG2_E: f32 = std::f32::consts::LOG2_E;
    /// 1.5 × 2^23: adding it rounds |x| < 2^22 to an integer, which stands in the low bits of the sum.
    pub const ROUND: f32 = 12_582_912.0;
    /// High part of ln 2, with so few bits that its products with |n| ≤ 150 are exact.
    pub const LN2_HI: f32 = 355.0 / 512.0;
    /// ln 2 − [`LN2_HI`].
    pub const LN2_LO: f32 = -2.121_944_4e-4;
    /// q of e^r = 1 + (r + r² q(r)) for |r| ≤ 0.347, ascending: relative error 2^−28.
    pub const EXP: [f32; 5] = [0.499_999_94, 0.166_665_2, 0.041_668_396, 0.008_368_797, 0.001_381_443];
    /// Bias of the exponent.
    pub const BIAS: i32 = 127;
    /// Bits of the significand: where the exponent starts.
    pub const EXPONENT_SHIFT: u32 = 23;
    /// The sign bit.
    pub const SIGN: u32 = 0x8000_0000;
    /// Below this magnitude tanh is its polynomial, from it on 1 − 2 / (e^2a + 1).
    pub const TANH_SMALL: f32 = 0.625;
    /// p of tanh a = a + a × (z × p(z)), z = a², for a ≤ [`TANH_SMALL`], ascending: relative error 2^−27.
    pub const TANH: [f32; 5] = [
        -0.333_332_8,
        0.133_314_42,
        -0.053_739_715,
        0.020_639_088,
        -0.005_704_988,
    ];
}

use constant::{BIAS, EXP, EXP_MAX, EXP_MIN, EXPONENT_SHIFT, LN2_HI, LN2_LO, LOG2_E, ROUND, SIGN, TANH, TANH_SMALL};

/// e^x: x = n ln 2 + r with |r| ≤ 0.347, then 2^n × e^r. The scaling is in two steps, 2^⌊n/2⌋ and the rest, so that
/// results beyond the normal range overflow and underflow in the last multiplication, as IEEE 754 rounds them.
pub fn exp(x: f32) -> f32 {
    // Clamp. The comparisons are false for a NaN, which so goes through to the result.
    let x = if x > EXP_MAX { EXP_MAX } else { x };
    let x = if x < EXP_MIN { EXP_MIN } else { x };
    // n, as a float and from the bits. For a NaN these bits are any integer; the result is a NaN all the same.
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let high = x - n * LN2_HI;
    let low = n * LN2_LO;
    let r = high - low;
    // What the rounding of r lost.
    let lost = high - r;
    let lost = lost - low;
    let q = EXP[4];
    let q = q * r + EXP[3];
    let q = q * r + EXP[2];
    let q = q * r + EXP[1];
    let q = q * r + EXP[0];
    let y = r * r;
    let y = y * q;
    let y = y + lost;
    // 1 + r, and what its rounding lost: exact, as |r| < 1. With both losses the error falls from 0.96 ULP.
    let one = r + 1.0;
    let part = one - 1.0;
    let part = r - part;
    let y = y + part;
    let y = y + one;
    let half = exponent >> 1;
    let rest = exponent.wrapping_sub(half);
    y * power_of_two(half) * power_of_two(rest)
}

/// 2^n for −126 ≤ n ≤ 127.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(BIAS) as u32) << EXPONENT_SHIFT)
}

/// 1 / (1 + e^−x) = a − a w with e = e^−|x|, w = e / (1 + e), a = e where x is negative and 1 elsewhere: e cannot
/// overflow, small results keep all their digits, and the rounding of 1 + e hardly matters where w is small.
pub fn logistic(x: f32) -> f32 {
    let e = exp(f32::from_bits(x.to_bits() | SIGN));
    let w = e / (e + 1.0);
    let a = if x < 0.0 { e } else { 1.0 };
    let aw = a * w;
    a - aw
}

/// tanh x on a = |x|, with the sign of x put back on the bits. Both forms are computed and one is selected.
pub fn tanh(x: f32) -> f32 {
    let sign = x.to_bits() & SIGN;
    let a = f32::from_bits(x.to_bits() & !SIGN);
    let z = a * a;
    let p = TANH[4];
    let p = p * z + TANH[3];
    let p = p * z + TANH[2];
    let p = p * z + TANH[1];
    let p = p * z + TANH[0];
    let p = p * z;
    let p = p * a;
    let small = p + a;
    let large = 1.0 - 2.0 / (exp(a + a) + 1.0);
    let magnitude = if a < TANH_SMALL { small } else { large };
    f32::from_bits(magnitude.to_bits() | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One function of this module, its meaning in f64, and the bound that the table above states.
    type Case = (&'static str, fn(f32) -> f32, fn(f64) -> f64, f64);
    const CASES: [Case; 3] = [
        ("exp", exp, f64::exp, 0.78),
        ("logistic", logistic, |x| 1.0 / (1.0 + (-x).exp()), 1.69),
        ("tanh", tanh, f64::tanh, 1.35),
    ];

    /// Distance of `got` from `want` in units in the last place of the binary32 nearest to `want`.
    fn ulp(got: f32, want: f64) -> f64 {
        let nearest = want as f32;
        if got == nearest && nearest.is_infinite() {
            return 0.0;
        }
        let exponent = ((nearest.to_bits() & !SIGN) >> EXPONENT_SHIFT).max(1) as i32 - BIAS;
        (f64::from(got) - want).abs() / 2f64.powi(exponent - EXPONENT_SHIFT as i32)
    }

    fn largest_errors(step: usize) -> [f64; 3] {
        CASES.map(|(_, f, reference, _)| {
            (0..=u32::MAX)
                .step_by(step)
                .map(f32::from_bits)
                .filter(|x| x.is_finite())
                .map(|x| ulp(f(x), reference(f64::from(x))))
                .fold(0.0, f64::max)
        })
    }

    #[test]
    fn errors_stay_in_their_bounds_on_a_sample() {
        for (error, (name, _, _, bound)) in largest_errors(4093).into_iter().zip(CASES) {
            assert!(error <= bound, "{name}: {error} ULP");
        }
    }

    #[test]
    #[ignore = "all 2^32 arguments take minutes; the sample above runs always"]
    fn errors_stay_in_their_bounds_everywhere() {
        for (error, (name, _, _, bound)) in largest_errors(1).into_iter().zip(CASES) {
            assert!(error <= bound, "{name}: {error} ULP");
        }
    }

    #[test]
    fn ends_and_special_values() {
        let inf = f32::INFINITY;
        assert_eq!(
            [-inf, -104.0, -0.0, 0.0, 89.0, inf].map(exp),
            [0.0, 0.0, 1.0, 1.0, inf, inf]
        );
        assert_eq!(exp(88.722_83), 3.402_798_5e38);
        assert!(exp(-103.9) > 0.0, "the smallest subnormal");
        assert_eq!(
            [-inf, -200.0, -0.0, 0.0, 20.0, inf].map(logistic),
            [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
        );
        assert_eq!([-inf, -20.0, 20.0, inf].map(tanh), [-1.0, -1.0, 1.0, 1.0]);
        assert_eq!(tanh(-0.0).to_bits(), SIGN);
        assert_eq!(tanh(0.0).to_bits(), 0);
        assert_eq!(tanh(-1e-40), -1e-40);
        for f in [exp, logistic, tanh] {
            assert!(f(f32::NAN).is_nan() && f(-f32::NAN).is_nan());
        }
    }

    #[test]
    fn the_functions_are_monotone_where_it_shows() {
        for (name, f, _, _) in CASES {
            let values: Vec<f32> = (-2000..2000).map(|i| f(i as f32 / 64.0)).collect();
            assert!(values.is_sorted(), "{name}");
        }
    }
}
