//! From 32-bit accumulators to int8: the exact double rounding of [`crate::graph::quant`], in forms that are cheap on
//! each machine, with one set of constants for each output channel.
//!
//! Notation: x accumulator, m mantissa, e right shift, l left shift, y = ⌊(2^l x m + 2^30) / 2^31⌋ the rounded high
//! product, z = ⌊(y + 2^(e−1) − [y < 0]) / 2^e⌋ for e ≥ 1 (halves away from zero), z = y for e = 0.
//!
//! - The term [y < 0] can be dropped where the result is clamped below at the zero point: without it a negative y still
//!   gives z ≤ 0.
//! - Nested floors collapse, so z = ⌊(x m + 2^30 + 2^31 (2^(e−1) − [x < 0])) / 2^(31+e)⌋: one 64-bit product and shift.
//!   ([x < 0] may stand for [y < 0]: where they differ y = 0, and z = 0 either way.)
//! - With h = ⌊2^(2+d) 2^l x m / 2^32⌋, the high half of a product, z = ⌊(h + 2^d (1 + 2^e − 2 [x < 0])) / 2^(1+e+d)⌋
//!   for any d ≥ 0 such that 2^(2+d+l) x fits 32 bits (for e = 0 the bracket is 1): with e + d the same in all
//!   channels, lanes need no shifts of their own.

mod code;
mod constants;
#[cfg(test)]
mod tests;

pub use code::{Constants, clamp};

use super::threshold::{Search, Step};
use crate::graph::quant::Multiplier;
use crate::graph::{Graph, OpId, OpKind};
use crate::target::{Arch, Target};
use cranelift_codegen::ir::Type;
use cranelift_codegen::ir::types::{I32, I64};

/// One output channel of an int8 layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// What the sum over weights × raw inputs starts from: the bias with the input's zero point folded in.
    pub bias: i32,
    /// The real multiplier.
    pub multiplier: Multiplier,
    /// Least value that the complete accumulator can take.
    pub low: i64,
    /// Greatest value that it can take.
    pub high: i64,
}

impl Channel {
    /// A lane beyond the last channel.
    pub const NONE: Channel = Channel {
        bias: 0,
        multiplier: Multiplier { mantissa: 0, shift: -1 },
        low: 0,
        high: 0,
    };

    /// Whether the result is zero (before the zero point) whatever the input.
    pub fn dead(&self) -> bool {
        let e = self.multiplier.right();
        let reach = self.high.max(-self.low);
        self.multiplier.mantissa == 0 || e >= 1 && reach < 1 << (e - 1)
    }

    /// The result, if it is the same whatever the input.
    pub fn constant(&self, zero_point: i32, (min, max): (i32, i32)) -> Option<i32> {
        if self.dead() {
            return Some(zero_point.clamp(min, max));
        }
        let reach = self.low.abs().max(self.high.abs());
        if reach > i64::from(i32::MAX) >> self.multiplier.left().min(31) {
            return None;
        }
        let [least, most] = [self.low, self.high].map(|x| {
            let result = self.multiplier.apply(x as i32).saturating_add(zero_point);
            result.clamp(min, max)
        });
        (least == most).then_some(least)
    }

    fn wraps(&self) -> bool {
        self.low < i64::from(i32::MIN) || self.high > i64::from(i32::MAX)
    }
}

/// How the result is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One 64-bit product for each channel.
    Product {
        /// Some channel has a left shift.
        left: bool,
        /// Accumulators may wrap in 32 bits.
        wraps: bool,
        /// The zero point is in the rounding constant.
        folded: bool,
        /// What sums of [`Accumulator::Biased`] are too great by; those have no bias yet.
        excess: Option<i32>,
        /// Bias and excess are in the rounding constant, times m: sums start from zero or from the excess alone.
        started: bool,
    },
    /// A high product and a shift by `shift`, the same for all channels: for vectors, and for scalars of 32 bits.
    Folded { shift: u32 },
    /// 32 bits: the same with constants that were searched for, and proven.
    Step { shift: u32 },
    /// 32 bits: a high product of 4x, and shifts of the channels' own.
    Shifted,
    /// Vectors: two rounded doubling high products, the second by 2^(31−e).
    Doubled {
        /// Some channel has a left shift.
        left: bool,
    },
}

/// What a kernel's sums are held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulator {
    /// 32-bit integers that start from the biases.
    Word,
    /// 64-bit integers that start from the biases.
    Scalar,
    /// 64-bit integers that start from this, and have no bias yet.
    Biased(i32),
    /// `int32x4` that start from the biases.
    Vector,
}

/// The requantization of a layer: code and the layout of its constants.
#[derive(Clone, Debug)]
pub struct Requantize {
    form: Form,
    /// What the sums and the results are held in, if not vectors.
    scalar: Option<Type>,
    /// Some channel has e = 0, where the others' rounding does not apply.
    unit: bool,
    /// Negative values need [y < 0].
    sign: bool,
    zero_point: i32,
    min: i32,
    max: i32,
}

/// The real multipliers of a convolution or dense operator, one for each output channel.
pub fn multipliers(graph: &Graph, op: OpId) -> Vec<Multiplier> {
    let op = graph.op(op);
    let (input, _) = graph.tensor(op.inputs[0]).affine();
    let (output, _) = graph.tensor(op.output()).affine();
    let filter = graph.tensor(op.inputs[1]);
    let single = [1.0];
    let scales = filter.quantization.as_ref().map_or(&single[..], |q| &q.scale);
    let channels = graph.tensor(op.output()).shape.last(0);
    (0..channels)
        .map(|channel| {
            let scale = scales[if scales.len() == 1 { 0 } else { channel }];
            let product = match op.kind {
                // TFLite forms this product in float32, and those of convolutions in double.
                OpKind::FullyConnected { .. } => f64::from(input * scale),
                _ => f64::from(input) * f64::from(scale),
            };
            Multiplier::new(product / f64::from(output))
        })
        .collect()
}

impl Requantize {
    /// Chooses a form that is exact for all `channels`. `min` and `max` are the clamp.
    pub fn new(
        target: &Target,
        accumulator: Accumulator,
        channels: &[Channel],
        zero_point: i32,
        (min, max): (i32, i32),
    ) -> Self {
        let word = accumulator == Accumulator::Word;
        let range = (min, max);
        let fixed = |channel: &Channel| channel.dead() || word && channel.constant(zero_point, range).is_some();
        let live = || channels.iter().filter(|channel| !fixed(channel));
        let left = live().any(|channel| channel.multiplier.left() > 0);
        let greatest = live().map(|channel| channel.multiplier.right()).max().unwrap_or(1);
        let sign = min < zero_point;
        // A few common shifts, so that layers of equal shape share code; else exactly what is needed.
        let shift = || {
            [12, 16, 20, greatest]
                .into_iter()
                .filter(|shift| *shift >= greatest)
                .find(|shift| {
                    let mut all = channels.iter().chain([&Channel::NONE]);
                    all.all(|channel| {
                        let fixed = word.then(|| channel.constant(zero_point, range)).flatten();
                        fixed.is_some() || fold(channel, *shift, zero_point).is_some()
                    })
                })
        };
        let step = || {
            let least = live().map(|channel| channel.multiplier.right()).min().unwrap_or(1);
            let most = least.saturating_sub(1).min(10);
            // Few different ones, for layers of equal shape.
            [4, 2, most].into_iter().filter(|shift| *shift <= most).find(|shift| {
                let mut all = channels.iter();
                all.all(|channel| step(channel, zero_point, range, *shift).is_some())
            })
        };
        let narrow = if word {
            step()
                .map(|shift| Form::Step { shift })
                .or_else(|| shift().map(|shift| Form::Folded { shift }))
                .or_else(|| {
                    live()
                        .all(|channel| shifted(channel, zero_point).is_some())
                        .then_some(Form::Shifted)
                })
        } else {
            None
        };
        let form = if let Some(form) = narrow {
            form
        } else if accumulator != Accumulator::Vector {
            let wraps = !word && live().any(Channel::wraps);
            let excess = match accumulator {
                Accumulator::Biased(excess) => Some(excess),
                _ => None,
            };
            // 2^29 · 2^31 leaves room for the rounding and the zero point.
            let near = |channel: &Channel| start(channel, excess).abs() < 1 << 29;
            Form::Product {
                left,
                wraps,
                folded: greatest <= 23,
                excess,
                started: !word && !left && !wraps && !sign && live().all(near),
            }
        } else if target.arch() == Arch::Aarch64 {
            // Two instructions: nothing to fold.
            Form::Doubled { left }
        } else {
            shift().map_or(Form::Doubled { left }, |shift| Form::Folded { shift })
        };
        Requantize {
            form,
            scalar: match accumulator {
                Accumulator::Vector => None,
                Accumulator::Word => Some(I32),
                Accumulator::Scalar | Accumulator::Biased(_) => Some(I64),
            },
            unit: live().any(|channel| channel.multiplier.right() == 0),
            sign,
            zero_point,
            min,
            max,
        }
    }

    /// Output channels of one accumulator.
    fn lanes(&self) -> usize {
        if self.scalar.is_some() { 1 } else { 4 }
    }

    /// For the schedule's name.
    pub fn name(&self) -> &'static str {
        match self.form {
            Form::Product { .. } => "products",
            Form::Folded { .. } => "folded",
            Form::Step { .. } => "steps",
            Form::Shifted => "shifted",
            Form::Doubled { .. } => "doubled",
        }
    }
}

/// A channel's constants in [`Form::Step`].
fn step(channel: &Channel, zero_point: i32, range: (i32, i32), shift: u32) -> Option<Step> {
    if let Some(value) = channel.constant(zero_point, range) {
        return Some(Step {
            bias: 0,
            factor: 0,
            add: value << shift,
        });
    }
    let search = Search {
        multiplier: channel.multiplier,
        reach: (channel.low, channel.high),
        zero_point,
        range,
        shift,
        scale: 0,
    };
    search.find()
}

/// The rounding constant of a channel in [`Form::Shifted`], if nothing overflows on the way.
fn shifted(channel: &Channel, zero_point: i32) -> Option<i32> {
    let e = channel.multiplier.right();
    if channel.multiplier.left() > 0 || e > 20 || channel.low <= -(1 << 29) || channel.high >= 1 << 29 {
        return None;
    }
    let bracket = if e == 0 { 1 } else { 1 + (1i64 << e) };
    let add = bracket + (i64::from(zero_point) << (e + 1));
    for x in [channel.low, channel.high] {
        let high = (4 * x * i64::from(channel.multiplier.mantissa)) >> 32;
        i32::try_from(high + add).ok()?;
        i32::try_from(high + add - 2).ok()?;
    }
    i32::try_from(add).ok()
}

/// What is missing in a sum that starts from `excess`, or from nothing.
fn start(channel: &Channel, excess: Option<i32>) -> i64 {
    i64::from(channel.bias) - i64::from(excess.unwrap_or(0))
}

/// 2^left in 32 bits, where a multiplication by it is TFLM's wrapping left shift.
fn power(left: u32) -> i32 {
    1i32.checked_shl(left).unwrap_or(0)
}

/// A channel's constants in [`Form::Folded`].
struct Fold {
    scale: i32,
    add: i32,
    sign: i32,
}

/// The constants for a shift of `shift` after rounding, if nothing overflows on the way.
fn fold(channel: &Channel, shift: u32, zero_point: i32) -> Option<Fold> {
    let zero = i32::try_from(i64::from(zero_point) << (shift + 1)).ok()?;
    if channel.dead() {
        return Some(Fold {
            scale: 0,
            add: zero,
            sign: 0,
        });
    }
    let e = channel.multiplier.right();
    let d = shift.checked_sub(e)?;
    let scale = 1i64.checked_shl(2 + d + channel.multiplier.left())?;
    let scale32 = i32::try_from(scale).ok()?;
    let bracket = if e == 0 { 1 } else { 1 + (1i64 << e) };
    let add = (bracket << d) + i64::from(zero);
    let sign = if e == 0 { 0 } else { -(2i64 << d) };
    for x in [channel.low, channel.high] {
        let scaled = i64::from(i32::try_from(x.checked_mul(scale)?).ok()?);
        let high = (scaled * i64::from(channel.multiplier.mantissa)) >> 32;
        i32::try_from(high + add).ok()?;
        i32::try_from(high + add + sign).ok()?;
    }
    Some(Fold {
        scale: scale32,
        add: i32::try_from(add).ok()?,
        sign: i32::try_from(sign).ok()?,
    })
}
