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
/// Values of c that are tried on either side of the middle.
const ADDS: i64 = 1 << 14;

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

/// What a [`Step`] must agree with.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The real multiplier.
    pub multiplier: Multiplier,
    /// The least and the greatest x.
    pub reach: (i64, i64),
    /// Zero point of the result.
    pub zero_point: i32,
    /// The clamp.
    pub range: (i32, i32),
    /// s.
    pub shift: u32,
    /// Sums are 2^scale x: d can be finer then.
    pub scale: u32,
}

/// Factors with which there are constants, if d and c can be found.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// The least and the greatest sum.
    reach: (i64, i64),
    /// Factors, and the bounds of D.
    factors: Vec<(i64, i64, i64)>,
}

impl Search {
    /// Constants that are exact for every x within reach; `None` if none are found.
    pub fn find(&self) -> Option<Step> {
        self.candidates()?.any()
    }

    /// The factors that may do; `None` if there are none.
    pub fn candidates(&self) -> Option<Candidates> {
        let Search {
            multiplier,
            reach: (low, high),
            zero_point,
            range: (min, max),
            shift,
            scale,
        } = *self;
        let e = multiplier.right();
        let fits = |x: i64| i32::try_from(x << scale).is_ok();
        if multiplier.left() > 7 || shift > 20 || !fits(low) || !fits(high) {
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
            thresholds.push((i64::from(value) << (32 + shift), x << scale));
        }
        let unit = 1 << scale;
        let (low, high) = (low << scale, high << scale);
        let exponent = 1 + shift as i32 + multiplier.left() as i32 - e as i32 - scale as i32;
        let nearest = if exponent >= 0 {
            i64::from(multiplier.mantissa).checked_shl(exponent as u32)?
        } else {
            let half = 1i64.checked_shl((-exponent - 1) as u32)?;
            (i64::from(multiplier.mantissa) + half).checked_shr(-exponent as u32)?
        };
        let beyond = (i64::from(least) << (32 + shift), i64::from(most + 1) << (32 + shift));
        let mut factors = Vec::new();
        for factor in around(nearest, FACTORS) {
            if !(1..1 << 31).contains(&factor) {
                continue;
            }
            // The ends must not leave the clamp's reach unless the clamp catches them.
            let mut from = thresholds.iter().map(|(goal, x)| goal - x * factor).max()?;
            let mut to = thresholds.iter().map(|(goal, x)| goal - (x - unit) * factor).min()?;
            if least > min {
                from = from.max(beyond.0 - low * factor);
            }
            if most < max {
                to = to.min(beyond.1 - high * factor);
            }
            if from < to {
                factors.push((factor, from, to));
            }
        }
        let reach = (low, high);
        (!factors.is_empty()).then_some(Candidates { reach, factors })
    }
}

impl Candidates {
    /// Constants with any c.
    pub fn any(&self) -> Option<Step> {
        self.factors.iter().find_map(|(factor, from, to)| {
            let middle = (from + (to - from) / 2) >> 32;
            // How far d m is above the bound with this c and the least d that is not below it; each c moves it.
            let above = (middle << 32).wrapping_sub(*from).rem_euclid(*factor);
            let step = (1i64 << 32).rem_euclid(*factor);
            let (mut up, mut down) = (above, above);
            for i in 0..ADDS {
                for (above, add) in [(up, middle + i), (down, middle - i)] {
                    if above < to - from
                        && let Some(step) = self.fitting(*factor, *from, *to, add)
                    {
                        return Some(step);
                    }
                }
                up = (up + step) % factor;
                down = (down + factor - step) % factor;
            }
            None
        })
    }

    /// Constants with this c.
    pub fn with(&self, add: i32) -> Option<Step> {
        let fits = |(factor, from, to): &(i64, i64, i64)| self.fitting(*factor, *from, *to, i64::from(add));
        self.factors.iter().find_map(fits)
    }

    fn fitting(&self, factor: i64, from: i64, to: i64, add: i64) -> Option<Step> {
        let rest = from - (add << 32);
        let bias = -(-rest).div_euclid(factor);
        if bias.abs() >= 1 << 28 || bias * factor + (add << 32) >= to {
            return None;
        }
        let fits = |x: i64| {
            let high = ((x + bias) * factor) >> 32;
            i32::try_from(x + bias).is_ok() && i32::try_from(high + add).is_ok()
        };
        (fits(self.reach.0) && fits(self.reach.1)).then_some(Step {
            bias: bias as i32,
            factor: factor as i32,
            add: i32::try_from(add).ok()?,
        })
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

    fn value(step: Step, x: i64, (shift, scale): (u32, u32), (min, max): (i32, i32)) -> i32 {
        let sum = ((x as i32) << scale) + step.bias;
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
                    for (shift, scale, given) in [
                        (0, 0, false),
                        (4, 0, false),
                        (8, 0, false),
                        (8, 8, false),
                        (10, 8, true),
                    ] {
                        tried += 1;
                        let search = Search {
                            multiplier,
                            reach: (-reach, reach + 3),
                            zero_point,
                            range,
                            shift,
                            scale,
                        };
                        let given = given.then(|| (zero_point << shift) + (1 << (shift.max(1) - 1)));
                        let constants = search.candidates().and_then(|candidates| match given {
                            Some(add) => candidates.with(add),
                            None => candidates.any(),
                        });
                        let Some(step) = constants else { continue };
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
                                value(step, x, (shift, scale), range),
                                wanted,
                                "{multiplier:?} {x} {step:?} {shift} {scale}"
                            );
                        }
                    }
                }
            }
        }
        assert!(found * 3 > tried, "{found} of {tried}");
    }
}
