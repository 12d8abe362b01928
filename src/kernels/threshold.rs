//! Requantization as a step function: constants searched at build time, and proven.
//!
//! A channel's result, clamped, is a step function of the accumulator x with at most 255 thresholds. A high product,
//! an addition and a shift, ⌊(⌊((x + d) m + c 2^32) / 2^32⌋) / 2^s⌋, is one too; where it has the same thresholds within
//! the accumulator's reach, both are the same function. With D = d m + c 2^32 a threshold T of the value v asks for
//!
//! - T m + D ≥ v 2^(32+s), and (T − 1) m + D < v 2^(32+s),
//!
//! so that for each m the admissible D are an interval, in which d and c must find a number.

use crate::graph::quant::Multiplier;

/// A channel's constants: its sum starts `bias` greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// d.
    pub bias: i32,
    /// m.
    pub factor: i32,
    /// c.
    pub add: i32,
}

/// Factors that are tried around the nearest.
const FACTORS: i64 = 8;
/// Values of c that are tried around the middle.
const ADDS: i64 = 400;

/// The least x whose product with `multiplier` is at least `n`.
fn threshold(multiplier: Multiplier, n: i64) -> i64 {
    let (e, n) = (multiplier.right(), i128::from(n));
    // Halves are rounded away from zero: see `requantize`.
    let numerator = if e == 0 {
        (n << 31) - (1 << 30)
    } else {
        let negative = if n <= 0 { 1 << 31 } else { 0 };
        (n << (31 + e)) - (1 << 30) - (1 << (30 + e)) + negative
    };
    let denominator = i128::from(multiplier.mantissa) << multiplier.left();
    // Beyond 32 bits it is out of every reach.
    i64::try_from(-(-numerator).div_euclid(denominator)).unwrap_or(i64::MAX)
}

impl Step {
    /// Constants that are exact for every x in `low ..= high`, for a shift of `shift`; `None` if none are found.
    pub fn find(
        multiplier: Multiplier,
        (low, high): (i64, i64),
        zero_point: i32,
        (min, max): (i32, i32),
        shift: u32,
    ) -> Option<Step> {
        let e = multiplier.right();
        if multiplier.left() > 7 || shift > 20 || i32::try_from(low).is_err() || i32::try_from(high).is_err() {
            return None;
        }
        let at = |x: i64| (multiplier.apply(x as i32) + zero_point).clamp(min, max);
        let (least, most) = (at(low), at(high));
        // No wrapping in the left shift.
        if (low.abs().max(high)) << multiplier.left() >= 1 << 31 {
            return None;
        }
        // Where values change, within reach; the value before is proven by monotony.
        let mut thresholds = Vec::new();
        for value in least + 1..=most {
            let x = threshold(multiplier, i64::from(value - zero_point));
            if x <= low || x > high || at(x) < value || at(x - 1) >= value {
                return None;
            }
            thresholds.push((i64::from(value) << (32 + shift), x));
        }
        let exponent = 1 + shift as i32 + multiplier.left() as i32 - e as i32;
        let nearest = if exponent >= 0 {
            i64::from(multiplier.mantissa) << exponent
        } else {
            let half = 1i64 << (-exponent - 1);
            (i64::from(multiplier.mantissa) + half) >> -exponent
        };
        let beyond = (i64::from(least) << (32 + shift), i64::from(most + 1) << (32 + shift));
        for factor in around(nearest, FACTORS) {
            if !(1..1 << 31).contains(&factor) {
                continue;
            }
            // The ends must not leave the clamp's reach unless the clamp catches them.
            let mut from = thresholds.iter().map(|(goal, x)| goal - x * factor).max()?;
            let mut to = thresholds.iter().map(|(goal, x)| goal - (x - 1) * factor).min()?;
            if least > min {
                from = from.max(beyond.0 - low * factor);
            }
            if most < max {
                to = to.min(beyond.1 - high * factor);
            }
            if from >= to {
                continue;
            }
            for add in around((from + (to - from) / 2) >> 32, ADDS) {
                let rest = from - (add << 32);
                let bias = -(-rest).div_euclid(factor);
                if bias.abs() >= 1 << 28 || bias * factor + (add << 32) >= to {
                    continue;
                }
                let fits = |x: i64| {
                    let high = ((x + bias) * factor) >> 32;
                    i32::try_from(x + bias).is_ok() && i32::try_from(high + add).is_ok()
                };
                if fits(low) && fits(high) {
                    return Some(Step {
                        bias: bias as i32,
                        factor: factor as i32,
                        add: i32::try_from(add).ok()?,
                    });
                }
            }
        }
        None
    }
}

/// `middle`, and numbers on either side of it, nearest first.
fn around(middle: i64, reach: i64) -> impl Iterator<Item = i64> {
    (0..=2 * reach).map(move |i| {
        if i % 2 == 0 {
            middle + i / 2
        } else {
            middle - (i + 1) / 2
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(step: Step, x: i64, shift: u32, (min, max): (i32, i32)) -> i32 {
        let sum = x as i32 + step.bias;
        let high = ((i64::from(sum) * i64::from(step.factor)) >> 32) as i32;
        (high.wrapping_add(step.add) >> shift).clamp(min, max)
    }

    /// Every accumulator of a small reach, around all thresholds of a larger one.
    #[test]
    fn found_steps_are_exact() {
        let mut found = 0;
        let mut tried = 0;
        for mantissa in [1 << 30, 0x5a5a_5a5a, 0x7fff_ffff, 0x4000_0001] {
            for right in 0..16 {
                for (zero_point, range) in [(-128, (-128, 127)), (-5, (-128, 127)), (3, (3, 100))] {
                    let multiplier = Multiplier {
                        mantissa,
                        shift: -right,
                    };
                    let reach = (400i64 << right).min(1 << 21);
                    for shift in [0, 4, 8] {
                        tried += 1;
                        let Some(step) = Step::find(multiplier, (-reach, reach + 3), zero_point, range, shift) else {
                            continue;
                        };
                        found += 1;
                        let every = (-reach..=reach + 3).step_by(1 + reach as usize / 5000);
                        let near = (-130..=130).flat_map(|n| {
                            let t = threshold(multiplier, n);
                            t - 2..t + 3
                        });
                        for x in every.chain(near).chain([-reach, reach + 3]) {
                            if !(-reach..=reach + 3).contains(&x) {
                                continue;
                            }
                            let wanted = (multiplier.apply(x as i32) + zero_point).clamp(range.0, range.1);
                            assert_eq!(
                                value(step, x, shift, range),
                                wanted,
                                "{multiplier:?} {x} {step:?} {shift}"
                            );
                        }
                    }
                }
            }
        }
        assert!(found * 3 > tried, "{found} of {tried}");
    }
}
