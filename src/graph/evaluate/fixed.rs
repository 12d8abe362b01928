//! Fixed-point exponential, logistic function, tanh and reciprocal on 32 bits.
//!
//! Source: the behaviour of gemmlowp's fixed-point functions, which TFLM's int8 softmax, logistic and tanh are made of.
//! `Qm` is a signed number of 32 bits with m integer bits: raw × 2^(m − 31). All sums wrap.

use crate::graph::quant::{rounding_divide_by_pot, saturating_rounding_doubling_high_mul as mul};

/// One in Q0: the largest number.
const ONE: i32 = i32::MAX;
/// 1/2 in Q0.
const HALF: i32 = 1 << 30;
/// One in Q2.
const ONE_Q2: i32 = 1 << 29;
/// 48/17 and −32/17 in Q2: the first guess at a reciprocal of a number in [1/2, 1].
const GUESS: [i32; 2] = [1_515_870_810, -1_010_580_540];
/// e^(−1/8) and 1/3 in Q0.
const EXP_EIGHTH: i32 = 1_895_147_668;
const THIRD: i32 = 715_827_883;
/// e^(−2^k) in Q0 for k = −2 to 4.
const EXP_POWERS: [i32; 7] = [
    1_672_461_947,
    1_302_514_674,
    790_015_084,
    290_630_308,
    39_332_535,
    720_401,
    242,
];

/// x × 2^exponent, saturating, for a non-negative exponent.
fn shift_left(x: i32, exponent: u32) -> i32 {
    (i64::from(x) << exponent).clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

/// (a + b) / 2, halves away from zero.
fn half_sum(a: i32, b: i32) -> i32 {
    let sum = i64::from(a) + i64::from(b);
    ((sum + if sum >= 0 { 1 } else { -1 }) / 2) as i32
}

/// e^x for x in [−1/4, 0), Q0 → Q0: a Taylor polynomial around −1/8.
fn exp_quarter(x: i32) -> i32 {
    let x = x.wrapping_add(1 << 28);
    let x2 = mul(x, x);
    let x3 = mul(x2, x);
    let x4 = mul(x2, x2);
    let tail = mul(rounding_divide_by_pot(x4, 2).wrapping_add(x3), THIRD).wrapping_add(x2);
    let sum = x.wrapping_add(rounding_divide_by_pot(tail, 1));
    EXP_EIGHTH.wrapping_add(mul(EXP_EIGHTH, sum))
}

/// e^x for x ≤ 0 in Q`integer_bits` (1 to 5) → Q0.
pub fn exp_on_negative_values(x: i32, integer_bits: u32) -> i32 {
    if x == 0 {
        return ONE;
    }
    let quarter = 1 << (29 - integer_bits);
    let fraction = (x & (quarter - 1)).wrapping_sub(quarter);
    // A multiple of 1/4: what remains, as a sum of powers of two.
    let remainder = fraction.wrapping_sub(x);
    let mut result = exp_quarter(shift_left(fraction, integer_bits));
    for (k, power) in EXP_POWERS.iter().enumerate().take(integer_bits as usize + 2) {
        if remainder & (quarter << k) != 0 {
            result = mul(result, *power);
        }
    }
    result
}

/// 2 / (1 + x) in Q2 for x in [0, 1) in Q0: three Newton–Raphson steps.
fn twice_one_over_one_plus(x: i32) -> i32 {
    let half_denominator = half_sum(x, ONE);
    let mut r = GUESS[0].wrapping_add(mul(half_denominator, GUESS[1]));
    for _ in 0..3 {
        let error = ONE_Q2.wrapping_sub(mul(half_denominator, r));
        r = r.wrapping_add(shift_left(mul(r, error), 2));
    }
    r
}

/// 1 / (1 + x) for x in [0, 1), Q0 → Q0.
pub fn one_over_one_plus_x(x: i32) -> i32 {
    shift_left(twice_one_over_one_plus(x), 1)
}

/// (1 − x) / (1 + x) for x in [0, 1), Q0 → Q0.
fn one_minus_x_over_one_plus_x(x: i32) -> i32 {
    shift_left(twice_one_over_one_plus(x).wrapping_sub(ONE_Q2), 2)
}

/// Logistic function, Q4 → Q0.
pub fn logistic(x: i32) -> i32 {
    let positive = one_over_one_plus_x(exp_on_negative_values(x.wrapping_abs().wrapping_neg(), 4));
    match x {
        0 => HALF,
        1.. => positive,
        _ => ONE.wrapping_sub(positive),
    }
}

/// tanh, Q4 → Q0.
pub fn tanh(x: i32) -> i32 {
    // −2|x| in Q5 has the bits of −|x| in Q4.
    let positive = one_minus_x_over_one_plus_x(exp_on_negative_values(x.wrapping_abs().wrapping_neg(), 5));
    match x {
        0 => 0,
        1.. => positive,
        _ => positive.wrapping_neg(),
    }
}

/// 1 / x for x > 0 in Q`integer_bits`, as (mantissa in Q0, shift): mantissa × 2^−shift (TFLM's `GetReciprocal`).
pub fn reciprocal(x: i32, integer_bits: i32) -> (i32, i32) {
    let headroom = x.leading_zeros();
    // x = (1 + fraction) × 2^shift: normalised, without its leading one, doubled.
    let fraction = ((x as u32).wrapping_shl(headroom)).wrapping_sub(1 << 31) as i32;
    (one_over_one_plus_x(fraction), integer_bits - headroom as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(x: f64, integer_bits: i32) -> i32 {
        (x * 2f64.powi(31 - integer_bits)).round() as i32
    }

    fn real(x: i32) -> f64 {
        f64::from(x) / 2f64.powi(31)
    }

    #[test]
    fn exponential() {
        assert_eq!(exp_on_negative_values(0, 5), i32::MAX);
        for i in 1..3000 {
            let x = -f64::from(i) / 100.0;
            let got = real(exp_on_negative_values(q(x, 5), 5));
            assert!((got - x.exp()).abs() < 3e-7, "{x}: {got}");
        }
        // Fewer integer bits are the same function of another number.
        assert_eq!(
            exp_on_negative_values(q(-1.3, 4), 4),
            exp_on_negative_values(q(-1.3, 5), 5)
        );
    }

    #[test]
    fn logistic_and_tanh() {
        for i in -1500..=1500 {
            let x = f64::from(i) / 100.0;
            let got = real(logistic(q(x, 4)));
            assert!((got - 1.0 / (1.0 + (-x).exp())).abs() < 3e-7, "logistic {x}: {got}");
            let got = real(tanh(q(x, 4)));
            assert!((got - x.tanh()).abs() < 3e-7, "tanh {x}: {got}");
        }
        assert_eq!(logistic(0), 1 << 30);
        assert_eq!(tanh(0), 0);
    }

    #[test]
    fn reciprocals() {
        for (x, expected) in [
            (1.0, 1.0),
            (1.5, 2.0 / 3.0),
            (2.0, 0.5),
            (100.0, 0.01),
            (0.75, 4.0 / 3.0),
        ] {
            let (mantissa, shift) = reciprocal(q(x, 12), 12);
            let got = real(mantissa) * 2f64.powi(-shift);
            assert!((got - expected).abs() < 1e-8, "1 / {x}: {got}");
        }
    }
}
