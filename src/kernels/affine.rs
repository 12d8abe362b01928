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

/// How a machine computes `a x + b y`, to which c is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// 32-bit products: factors of few bits.
    Word,
    /// 64-bit products.
    Wide,
    /// 32-bit products with the factors' high and low [`Lanes::LOW`] bits: the result of 64-bit products.
    Split,
    /// The high halves of doubled 64-bit products, rounded one by one, of operands shifted left by `left`.
    High {
        /// Left shift of the operands.
        left: u32,
    },
    /// 32-bit factors times operands in the upper byte of 16 bits, each product without its lower 16 bits: SMLAW. Or in
    /// the upper byte of 32 bits, without the lower 32 bits.
    Long16,
}

impl Lanes {
    /// Bits of the low part of a factor of [`Lanes::Split`].
    pub const LOW: u32 = 14;

    /// Bits of the fraction of products that is rounded away before c is added.
    fn fraction(self) -> u32 {
        match self {
            Lanes::High { left } => 31 - left,
            Lanes::Long16 => 8,
            _ => 0,
        }
    }

    /// Bits below which factors must stay.
    fn factor_bits(self) -> u32 {
        match self {
            Lanes::Word | Lanes::High { .. } | Lanes::Long16 => 31,
            // High parts of 16 bits with their sign.
            Lanes::Split => 15 + Lanes::LOW,
            Lanes::Wide => 40,
        }
    }

    /// Bits of the sum below which it must stay.
    fn sum_bits(self) -> u32 {
        match self {
            Lanes::Word | Lanes::High { .. } | Lanes::Long16 => 30,
            Lanes::Split => 30 + Lanes::LOW,
            Lanes::Wide => 60,
        }
    }

    /// The least shift of a sum.
    fn least_shift(self) -> u32 {
        if self == Lanes::Split { Lanes::LOW } else { 1 }
    }

    /// `a x + b y` without the bits of the fraction.
    fn products(self, a: i64, b: i64, point: &Point) -> i64 {
        let (x, y) = (a * i64::from(point.x), b * i64::from(point.y));
        match self.fraction() {
            0 => x + y,
            bits if self == Lanes::Long16 => (x >> bits) + (y >> bits),
            bits => {
                let half = 1 << (bits - 1);
                ((x + half) >> bits) + ((y + half) >> bits)
            }
        }
    }

    /// Whether sums of this size stay exact.
    fn holds(self, sum: i64) -> bool {
        let sum = if self == Lanes::Split { sum >> Lanes::LOW } else { sum };
        self == Lanes::Wide || i32::try_from(sum).is_ok()
    }
}

/// `clamp((t >> shift) + zero)` with `t = a x + b y + c`, or, to round halves away from zero, with `round + (t >> 63)`
/// added to t.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// How the products are computed.
    pub lanes: Lanes,
    /// Factor of the first operand.
    pub a: i64,
    /// Factor of the second operand.
    pub b: i64,
    /// Added to the products.
    pub c: i64,
    /// Added as well where the first operand is negative: TFLM's halves away from zero, where the product has too few
    /// bits for them not to matter. With [`Lanes::Split`] a multiple of 2^[`Lanes::LOW`].
    pub negative: i64,
    /// Arithmetic right shift, at least [`Lanes::LOW`] for [`Lanes::Split`].
    pub shift: u32,
    /// Halves are rounded away from zero: needed where results fall on halves exactly ("nice" scales). Then the zero
    /// point is added after the shift. Only with [`Lanes::Word`].
    pub ties_away: Option<i32>,
}

impl Affine {
    /// The result before the clamp, or `None` if an intermediate result overflows.
    fn apply(&self, point: &Point) -> Option<i32> {
        let negative = if point.x < 0 { self.negative } else { 0 };
        let t = self.lanes.products(self.a, self.b, point) + self.c + negative;
        if !self.lanes.holds(t) {
            return None;
        }
        let result = match self.ties_away {
            None => t >> self.shift,
            Some(zero) => {
                let t = t + (t >> 63) + (1 << (self.shift - 1));
                if !self.lanes.holds(t) {
                    return None;
                }
                (t >> self.shift) + i64::from(zero)
            }
        };
        i32::try_from(result).ok()
    }

    /// Whether the form gives the result of every point, `[min, max]` being the clamp.
    pub fn holds(&self, points: &[Point], (min, max): (i32, i32)) -> bool {
        points
            .iter()
            .all(|point| self.apply(point).is_some_and(|t| t.clamp(min, max) == point.result))
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

impl Estimate {
    /// The largest magnitude of the result and of a part of it.
    fn reach(&self, points: &[Point]) -> f64 {
        let of = |point: &Point| {
            let x = self.a * f64::from(point.x - self.zeros[0]);
            let y = self.b * f64::from(point.y - self.zeros[1]);
            (x.abs() + y.abs()).max((self.a * f64::from(point.x)).abs() + (self.b * f64::from(point.y)).abs())
        };
        points.iter().map(of).fold(0.0, f64::max) + f64::from(self.zero.abs()) + 1.0
    }
}

/// The largest shift that the sizes of sums and factors allow.
fn room(points: &[Point], estimate: &Estimate, lanes: Lanes) -> Option<u32> {
    let sums = f64::from(lanes.sum_bits()) - estimate.reach(points).log2();
    let largest = estimate.a.abs().max(estimate.b.abs());
    let factors = f64::from(lanes.factor_bits() - lanes.fraction()) - (largest * 1.001).log2();
    let most = sums.min(factors).floor();
    (f64::from(lanes.least_shift())..=62.0)
        .contains(&most)
        .then_some(most as u32)
}

/// An affine form on `lanes` that holds for all `points`, if one was found.
pub fn search(points: &[Point], clamp: (i32, i32), estimate: &Estimate, lanes: Lanes) -> Option<Affine> {
    let most = room(points, estimate, lanes)?;
    for shift in [most, most.saturating_sub(1)] {
        if shift < lanes.least_shift() {
            continue;
        }
        let scale = 2f64.powi((shift + lanes.fraction()) as i32);
        let (a, b) = ((estimate.a * scale).round() as i64, (estimate.b * scale).round() as i64);
        // The nearest factors, then near ones: a slope a little off decides exact halves.
        for step in [0, 1, 2, 8, 64] {
            for (da, db) in [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)] {
                let (da, db) = (da * step, db * step);
                if (b == 0 && db != 0) || (a == 0 && da != 0) {
                    continue;
                }
                if let Some(form) = with_factors(points, clamp, lanes, [a + da, b + db], shift) {
                    return Some(form);
                }
                if step == 0 {
                    break;
                }
            }
        }
    }
    None
}

/// A form with 32-bit products that rounds exact halves away from zero, if it holds for all `points`.
pub fn symmetric(points: &[Point], clamp: (i32, i32), estimate: &Estimate) -> Option<Affine> {
    let room = f64::from(Lanes::Word.sum_bits()) - estimate.reach(points).log2();
    [room.floor() as u32, 20].into_iter().find_map(|shift| {
        if !(1..=30).contains(&shift) || f64::from(shift) > room {
            return None;
        }
        let scale = f64::from(1u32 << shift);
        let (a, b) = ((estimate.a * scale).round() as i64, (estimate.b * scale).round() as i64);
        let form = Affine {
            lanes: Lanes::Word,
            a,
            b,
            c: -(a * i64::from(estimate.zeros[0]) + b * i64::from(estimate.zeros[1])),
            negative: 0,
            shift,
            ties_away: Some(estimate.zero),
        };
        let fits = [form.a, form.b, form.c].iter().all(|x| i32::try_from(*x).is_ok());
        (fits && form.holds(points, clamp)).then_some(form)
    })
}

/// The form with these factors, if some c satisfies all points.
fn with_factors(
    points: &[Point],
    (min, max): (i32, i32),
    lanes: Lanes,
    [a, b]: [i64; 2],
    shift: u32,
) -> Option<Affine> {
    let limit = 1i64 << lanes.factor_bits();
    if a.abs() >= limit || b.abs() >= limit {
        return None;
    }
    let c = middle(bounds(points.iter(), (min, max), lanes, [a, b], shift)?);
    let form = Affine {
        lanes,
        a,
        b,
        c,
        negative: 0,
        shift,
        ties_away: None,
    };
    (lanes.holds(c) && form.holds(points, (min, max))).then_some(form)
}

/// The least and the greatest c that satisfy all points.
fn bounds<'p>(
    points: impl Iterator<Item = &'p Point>,
    (min, max): (i32, i32),
    lanes: Lanes,
    [a, b]: [i64; 2],
    shift: u32,
) -> Option<(i64, i64)> {
    let (mut least, mut most) = (i64::MIN, i64::MAX);
    for point in points {
        let products = lanes.products(a, b, point);
        let step = i64::from(point.result) << shift;
        if point.result > min {
            least = least.max(step - products);
        }
        if point.result < max {
            most = most.min(step + (1 << shift) - 1 - products);
        }
        if least > most {
            return None;
        }
    }
    Some((least, most))
}

/// The middle of what is allowed; if a side is open all results are one value.
fn middle(bounds: (i64, i64)) -> i64 {
    match bounds {
        (i64::MIN, i64::MAX) => 0,
        (i64::MIN, most) => most,
        (least, i64::MAX) => least,
        (least, most) => least + (most - least) / 2,
    }
}

/// An affine form of one operand with another c where it is negative.
pub fn search_signed(points: &[Point], clamp: (i32, i32), estimate: &Estimate, lanes: Lanes) -> Option<Affine> {
    let most = room(points, estimate, lanes)?;
    let (negatives, others): (Vec<Point>, Vec<Point>) = points.iter().partition(|point| point.x < 0);
    [most, most.saturating_sub(1)].into_iter().find_map(|shift| {
        if shift < lanes.least_shift() {
            return None;
        }
        let a = (estimate.a * 2f64.powi((shift + lanes.fraction()) as i32)).round() as i64;
        let c = middle(bounds(others.iter(), clamp, lanes, [a, 0], shift)?);
        let (least, most) = bounds(negatives.iter(), clamp, lanes, [a, 0], shift)?;
        let difference = middle((least, most)).saturating_sub(c);
        let form = Affine {
            lanes,
            a,
            b: 0,
            c,
            negative: difference >> Lanes::LOW << Lanes::LOW,
            shift,
            ties_away: None,
        };
        (lanes.holds(c) && lanes.holds(form.negative) && form.holds(points, clamp)).then_some(form)
    })
}

/// An affine form of a function of one 8-bit operand (`b` is 0) on 32-bit products, if there is one: all slopes that
/// the points allow are known from their pairs.
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
            // A coarser scale allows no more slopes, but for rounding.
            return None;
        }
        let a = match (least, most) {
            (i64::MIN, i64::MAX) => 0,
            (i64::MIN, most) => most.min(0),
            (least, i64::MAX) => least.max(0),
            (least, most) => least + (most - least) / 2,
        };
        if let Some(form) = with_factors(points, clamp, Lanes::Word, [a, 0], shift) {
            return Some(form);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Lanes; 5] = [
        Lanes::Word,
        Lanes::Wide,
        Lanes::Split,
        Lanes::High { left: 24 },
        Lanes::Long16,
    ];

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
        for lanes in &ALL[1..] {
            let form = search(&points, (-128, 127), &estimate, *lanes).expect("an affine function is affine");
            assert_eq!(form.ties_away, None);
            assert!(form.holds(&points, (-128, 127)));
        }
    }

    #[test]
    fn halves_away_from_zero_are_found() {
        for (a, b) in [(0.5, -0.25), (0.25, 0.5), (1.0, 0.5)] {
            let points = points(|x, y| ((f64::from(x) * a + f64::from(y) * b).round() as i32 + 7).clamp(-128, 127));
            let estimate = Estimate {
                a,
                b,
                zeros: [0, 0],
                zero: 7,
            };
            let form = symmetric(&points, (-128, 127), &estimate).expect("representable");
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
        for lanes in ALL {
            assert_eq!(search(&points, (-128, 127), &estimate, lanes), None);
        }
        assert_eq!(symmetric(&points, (-128, 127), &estimate), None);
    }

    #[test]
    fn two_roundings_of_a_product_are_found() {
        // To an integer, then by 2^5: halves away from zero both times.
        let twice = |x: i32| ((f64::from(x) * 0.731_234_5).round() / 32.0).round() as i32;
        let points: Vec<Point> = (-5000..5000)
            .map(|x| Point {
                x,
                y: 0,
                result: twice(x).clamp(-100, 127),
            })
            .collect();
        let estimate = Estimate {
            a: 0.731_234_5 / 32.0,
            b: 0.0,
            zeros: [0, 0],
            zero: 0,
        };
        for lanes in [Lanes::Wide, Lanes::Split] {
            assert_eq!(search(&points, (-100, 127), &estimate, lanes), None);
            let form = search_signed(&points, (-100, 127), &estimate, lanes).expect("an affine function on each side");
            assert!(form.negative < 0);
        }
    }

    #[test]
    fn a_wrong_constant_does_not_hold() {
        let points = points(|x, y| (x + y).clamp(-128, 127));
        let estimate = Estimate {
            a: 1.0,
            b: 1.0,
            zeros: [0, 0],
            zero: 0,
        };
        for lanes in ALL {
            let mut form = search(&points, (-128, 127), &estimate, lanes).expect("representable");
            form.c += 1 << form.shift;
            assert!(!form.holds(&points, (-128, 127)));
        }
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
