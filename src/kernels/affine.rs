//! Requantization as one multiply-add and shift, found at build time and proven on every input.
//!
//! TensorFlow Lite Micro rounds two or three times on the way from quantized operands to a quantized result. The
//! result is still a step function of a sum of scaled operands, and mostly the same as `(a x + b y + c) >> shift` for
//! the right constants. Given a and b, every operand pair bounds c from below and above, so the best c is computed,
//! not searched; the form is used only if the bounds of all pairs agree.

/// One pair of operands and the exact result, clamped.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// First operand.
    pub x: i32,
    /// Second operand.
    pub y: i32,
    /// Result within the clamp.
    pub result: i32,
}

/// `clamp(((t + (t >> 31 if ties_away) + round) >> shift) + zero)` with `t = a x + b y + c` in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// Factor of the first operand.
    pub a: i32,
    /// Factor of the second operand.
    pub b: i32,
    /// Added to the products.
    pub c: i32,
    /// Arithmetic right shift.
    pub shift: u32,
    /// Halves are rounded away from zero: needed where results fall on halves exactly ("nice" scales).
    pub ties_away: bool,
    /// Added before the shift, after the correction for ties.
    pub round: i32,
    /// Added after the shift.
    pub zero: i32,
}

impl Affine {
    /// The result before the clamp, or `None` if 32 bits overflow.
    fn apply(&self, x: i32, y: i32) -> Option<i32> {
        let t = i64::from(self.a) * i64::from(x) + i64::from(self.b) * i64::from(y) + i64::from(self.c);
        let t = i32::try_from(t).ok()?;
        let t = if self.ties_away { t.checked_add(t >> 31)? } else { t };
        (t.checked_add(self.round)? >> self.shift).checked_add(self.zero)
    }

    /// Whether the form gives the result of every point, `[min, max]` being the clamp.
    pub fn holds(&self, points: &[Point], (min, max): (i32, i32)) -> bool {
        points.iter().all(|point| {
            self.apply(point.x, point.y)
                .is_some_and(|t| t.clamp(min, max) == point.result)
        })
    }
}

/// Real factors of the operands and their zero points: the result is near `a (x − zx) + b (y − zy) + zero`.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// Factor of the first operand.
    pub a: f64,
    /// Factor of the second operand.
    pub b: f64,
    /// Zero points of the operands.
    pub zeros: [i32; 2],
    /// Zero point of the result.
    pub zero: i32,
}

/// An affine form that holds for all `points`, if one was found.
pub fn search(points: &[Point], clamp: (i32, i32), estimate: &Estimate) -> Option<Affine> {
    let reach = points
        .iter()
        .map(|point| {
            let x = f64::from(point.x - estimate.zeros[0]);
            let y = f64::from(point.y - estimate.zeros[1]);
            (estimate.a * x + estimate.b * y).abs()
        })
        .fold(0.0, f64::max);
    // The largest shift for which every t, and its parts relative to the zero points, fit 31 bits.
    let room = f64::from(1u32 << 30) / (reach + f64::from(estimate.zero.abs()) + 1.0);
    let most = room.log2().floor().clamp(0.0, 30.0) as u32;
    let fits = |x: f64| x.abs() < f64::from(i32::MAX);
    for shift in [most, most.saturating_sub(1)] {
        let scale = f64::from(1u32 << shift);
        let (a, b) = ((estimate.a * scale).round(), (estimate.b * scale).round());
        if shift == 0 || !fits(a) || !fits(b) {
            continue;
        }
        let (a, b) = (a as i32, b as i32);
        // The nearest factors, then their neighbours.
        for (da, db) in [
            (0, 0),
            (0, 1),
            (0, -1),
            (1, 0),
            (-1, 0),
            (1, 1),
            (1, -1),
            (-1, 1),
            (-1, -1),
        ] {
            if (estimate.b == 0.0 && db != 0) || (estimate.a == 0.0 && da != 0) {
                continue;
            }
            let (a, b) = (a.checked_add(da)?, b.checked_add(db)?);
            if let Some(form) = with_factors(points, clamp, a, b, shift) {
                return Some(form);
            }
        }
    }
    // Exact halves: symmetric about the zero points.
    for shift in [most.saturating_sub(1), 20.min(most.saturating_sub(1))] {
        let scale = f64::from(1u32 << shift);
        let (a, b) = ((estimate.a * scale).round(), (estimate.b * scale).round());
        if shift == 0 || !fits(a) || !fits(b) {
            continue;
        }
        let (a, b) = (a as i32, b as i32);
        let c = -(i64::from(a) * i64::from(estimate.zeros[0]) + i64::from(b) * i64::from(estimate.zeros[1]));
        let form = Affine {
            a,
            b,
            c: i32::try_from(c).ok()?,
            shift,
            ties_away: true,
            round: 1 << (shift - 1),
            zero: estimate.zero,
        };
        if form.holds(points, clamp) {
            return Some(form);
        }
    }
    None
}

/// The form with these factors, if some c satisfies all points.
fn with_factors(points: &[Point], (min, max): (i32, i32), a: i32, b: i32, shift: u32) -> Option<Affine> {
    let (mut least, mut most) = (i64::MIN, i64::MAX);
    for point in points {
        let product = i64::from(a) * i64::from(point.x) + i64::from(b) * i64::from(point.y);
        let step = i64::from(point.result) << shift;
        if point.result > min {
            least = least.max(step - product);
        }
        if point.result < max {
            most = most.min(step + (1 << shift) - 1 - product);
        }
        if least > most {
            return None;
        }
    }
    // In the middle of what is allowed; all results are one value if a side is open.
    let c = match (least, most) {
        (i64::MIN, i64::MAX) => 0,
        (i64::MIN, most) => most,
        (least, i64::MAX) => least,
        (least, most) => least + (most - least) / 2,
    };
    let form = Affine {
        a,
        b,
        c: i32::try_from(c).ok()?,
        shift,
        ties_away: false,
        round: 0,
        zero: 0,
    };
    form.holds(points, (min, max)).then_some(form)
}

/// An affine form of a function of one 8-bit operand (`b` is 0), if there is one: all slopes that the points allow
/// are known from their pairs.
pub fn of_table(points: &[Point], clamp: (i32, i32)) -> Option<Affine> {
    let (min, max) = clamp;
    for shift in [20, 16, 12, 8, 4] {
        let scale = 1i64 << shift;
        let low = |p: &Point| (p.result > min).then(|| i64::from(p.result) * scale);
        let high = |p: &Point| (p.result < max).then(|| i64::from(p.result) * scale + scale - 1);
        let (mut least, mut most) = (i64::MIN, i64::MAX);
        for (i, p) in points.iter().enumerate() {
            for q in &points[i + 1..] {
                let run = i64::from(q.x - p.x);
                if let (Some(low), Some(high)) = (low(q), high(p)) {
                    least = least.max((low - high + run - 1).div_euclid(run));
                }
                if let (Some(high), Some(low)) = (high(q), low(p)) {
                    most = most.min((high - low).div_euclid(run));
                }
            }
        }
        if least > most {
            // A finer scale allows no more slopes than the coarser ones do, but for rounding.
            return None;
        }
        let a = match (least, most) {
            (i64::MIN, i64::MAX) => 0,
            (i64::MIN, most) => most.min(0),
            (least, i64::MAX) => least.max(0),
            (least, most) => least + (most - least) / 2,
        };
        if let Some(form) = i32::try_from(a)
            .ok()
            .and_then(|a| with_factors(points, clamp, a, 0, shift))
        {
            return Some(form);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(f: impl Fn(i32, i32) -> i32) -> Vec<Point> {
        let range = -128..128;
        range
            .clone()
            .flat_map(|x| range.clone().map(move |y| (x, y)))
            .map(|(x, y)| Point { x, y, result: f(x, y) })
            .collect()
    }

    #[test]
    fn a_rounded_sum_is_found() {
        let f = |x: i32, y: i32| {
            (f64::from(x - 3) * 0.712_345_67 + f64::from(y + 9) * 0.271_828_18 - 5.0 + 0.5).floor() as i32
        };
        let points = points(|x, y| f(x, y).clamp(-128, 127));
        let estimate = Estimate {
            a: 0.712_345_67,
            b: 0.271_828_18,
            zeros: [3, -9],
            zero: -5,
        };
        let form = search(&points, (-128, 127), &estimate).expect("an affine function is affine");
        assert!(!form.ties_away);
        assert!(form.holds(&points, (-128, 127)));
    }

    #[test]
    fn halves_away_from_zero_are_found() {
        for (a, b, ties_away) in [(0.5, 0.5, false), (0.5, -0.25, true), (0.25, 0.5, true)] {
            let points = points(|x, y| ((f64::from(x) * a + f64::from(y) * b).round() as i32 + 7).clamp(-128, 127));
            let estimate = Estimate {
                a,
                b,
                zeros: [0, 0],
                zero: 7,
            };
            let form = search(&points, (-128, 127), &estimate).expect("representable");
            // With equal factors, factors a little too large push halves away from zero.
            assert_eq!(form.ties_away, ties_away);
            assert!(form.holds(&points, (-128, 127)));
        }
    }

    #[test]
    fn what_is_not_affine_is_refused() {
        let estimate = Estimate {
            a: 1.0,
            b: 1.0,
            zeros: [0, 0],
            zero: 0,
        };
        let points = points(|x, y| (x * y / 100).clamp(-128, 127));
        assert_eq!(search(&points, (-128, 127), &estimate), None);
    }

    #[test]
    fn tables() {
        let of = |f: &dyn Fn(i32) -> i32| {
            let points: Vec<Point> = (-128..128)
                .map(|x| Point {
                    x,
                    y: 0,
                    result: f(x).clamp(-128, 127),
                })
                .collect();
            of_table(&points, (-128, 127)).inspect(|form| assert!(form.holds(&points, (-128, 127))))
        };
        assert!(of(&|x| x).is_some());
        assert!(of(&|x| -x).is_some());
        assert!(of(&|_| -128).is_some());
        assert!(of(&|_| 3).is_some());
        assert!(of(&|x| (f64::from(x + 128) * 1.7 - 128.0).round() as i32).is_some());
        assert!(of(&|x| (f64::from(x) * 0.003).round() as i32).is_some());
        assert_eq!(of(&|x| x * x / 100), None);
        assert_eq!(of(&|x| (127.0 * (f64::from(x) / 40.0).tanh()) as i32), None);
    }
}
