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

use super::emit::Emitter;
use super::threshold::{Search, Step};
use crate::data::{Layout, Scalar};
use crate::graph::quant::Multiplier;
use crate::graph::{Graph, OpId, OpKind};
use crate::intrinsic::Intrinsic;
use crate::target::{Arch, Target};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8X16, I32, I32X4, I64};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use cranelift_codegen::packed_option::ReservedValue;

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

/// The constants of one accumulator (a vector of channels, or a channel), loaded.
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    values: [Value; 4],
    /// What is to be added to sums that do not start from the biases.
    start: Option<Value>,
    /// The clamp, where it is in registers.
    bounds: Option<[Value; 2]>,
}

impl Constants {
    /// With the clamp of [`Requantize::bounds`].
    #[must_use]
    pub fn within(self, bounds: [Value; 2]) -> Self {
        Constants {
            bounds: Some(bounds),
            ..self
        }
    }
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

    /// Bytes of constants of one accumulator.
    pub fn entry_bytes(&self) -> usize {
        match self.form {
            Form::Product { started, .. } => 16 + if started { 0 } else { 8 },
            Form::Folded { .. } => 4 * self.lanes() * (4 + usize::from(self.sign)),
            Form::Step { .. } => 12,
            Form::Shifted => 16 + if self.sign && self.unit { 4 } else { 0 },
            Form::Doubled { left } => 16 * (3 + usize::from(left) + usize::from(self.unit)),
        }
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

    /// Where in the entry of a channel of 32-bit sums its start is.
    pub fn start_at(&self) -> usize {
        if matches!(self.form, Form::Product { .. }) {
            16
        } else {
            0
        }
    }

    /// Appends the constants of scalar accumulators.
    pub fn entry_all(&self, channels: &[Channel], out: &mut Vec<u8>) {
        for channel in channels.chunks(1) {
            self.entry(channel, 1, out);
        }
    }

    /// Appends the constants of `lanes` channels, of which `channels` exist.
    pub fn entry(&self, channels: &[Channel], lanes: usize, out: &mut Vec<u8>) {
        let lanes: Vec<Channel> = (0..lanes)
            .map(|i| match channels.get(i) {
                // A dead channel has e = 1 and m = 0: it asks for no special form.
                Some(channel) if channel.dead() => Channel {
                    bias: channel.bias,
                    ..Channel::NONE
                },
                Some(channel) => *channel,
                None => Channel::NONE,
            })
            .collect();
        let mut words = |f: &dyn Fn(&Channel) -> i32| {
            for lane in &lanes {
                out.extend(f(lane).to_le_bytes());
            }
        };
        match self.form {
            Form::Product {
                folded,
                excess,
                started,
                ..
            } => {
                for c in &lanes {
                    let Multiplier { mantissa, .. } = c.multiplier;
                    let e = c.multiplier.right();
                    let mut sum = if e == 0 {
                        1 << 30
                    } else {
                        (1 << 30) + (1i64 << (30 + e))
                    };
                    if folded {
                        sum += i64::from(self.zero_point) << (31 + e);
                    }
                    if started {
                        sum += start(c, excess) * i64::from(mantissa);
                    }
                    out.extend(sum.to_le_bytes());
                    out.extend(mantissa.to_le_bytes());
                    out.extend((31 + e).to_le_bytes());
                    if !started {
                        out.extend((start(c, excess) as i32).to_le_bytes());
                        out.extend(power(c.multiplier.left()).to_le_bytes());
                    }
                }
            }
            Form::Folded { shift } => {
                let folded = |c: &Channel| match self.fixed(c) {
                    Some(value) => Fold {
                        scale: 0,
                        add: value << (shift + 1),
                        sign: 0,
                    },
                    None => fold(c, shift, self.zero_point).expect("the form was chosen for all channels"),
                };
                words(&|c| c.bias);
                words(&|c| folded(c).scale);
                words(&|c| c.multiplier.mantissa);
                words(&|c| folded(c).add);
                if self.sign {
                    words(&|c| folded(c).sign);
                }
            }
            Form::Step { shift } => {
                for c in &lanes {
                    let range = (self.min, self.max);
                    let found = step(c, self.zero_point, range, shift).expect("the form was chosen for all channels");
                    for word in [c.bias.wrapping_add(found.bias), found.factor, found.add] {
                        out.extend(word.to_le_bytes());
                    }
                }
            }
            Form::Shifted => {
                for c in &lanes {
                    let e = c.multiplier.right();
                    let sign = if e == 0 { 0 } else { -2 };
                    let [factor, add, shift, sign] = match self.fixed(c) {
                        Some(value) => [0, value << 1, 1, 0],
                        None => {
                            let add = shifted(c, self.zero_point).expect("the form was chosen for all channels");
                            [c.multiplier.mantissa, add, e as i32 + 1, sign]
                        }
                    };
                    let words = [c.bias, factor, add, shift, sign];
                    let count = self.entry_bytes() / 4;
                    out.extend(words[..count].iter().flat_map(|word| word.to_le_bytes()));
                }
            }
            Form::Doubled { left } => {
                words(&|c| c.bias);
                if left {
                    words(&|c| power(c.multiplier.left()));
                }
                words(&|c| c.multiplier.mantissa);
                words(&|c| match c.multiplier.right() {
                    0 => 0,
                    e => 1 << (31 - e),
                });
                if self.unit {
                    words(&|c| -i32::from(c.multiplier.right() == 0));
                }
            }
        }
    }

    /// What the bytes of [`Requantize::entry`] mean.
    pub fn layout(&self, lanes: usize) -> Layout {
        let word = || {
            let axes: &[_] = if lanes == 1 { &[] } else { &[("channel", lanes)] };
            Layout::array(axes, Layout::Scalar(Scalar::I32))
        };
        let words = |names: &[(&str, bool)]| {
            let there = names.iter().filter(|(_, there)| *there);
            Layout::Struct(there.map(|(name, _)| ((*name).to_owned(), word())).collect())
        };
        match self.form {
            Form::Product { started, .. } => {
                let mut members = vec![
                    ("add".to_owned(), Layout::Scalar(Scalar::I64)),
                    ("multiplier".to_owned(), word()),
                    ("shift".to_owned(), word()),
                ];
                if !started {
                    members.extend(["start", "left"].map(|name| (name.to_owned(), word())));
                }
                let entry = Layout::Struct(members);
                if lanes == 1 {
                    entry
                } else {
                    Layout::array(&[("channel", lanes)], entry)
                }
            }
            Form::Folded { .. } => words(&[
                ("bias", true),
                ("scale", true),
                ("multiplier", true),
                ("add", true),
                ("sign", self.sign),
            ]),
            Form::Step { .. } => words(&[("bias", true), ("factor", true), ("add", true)]),
            Form::Shifted => words(&[
                ("bias", true),
                ("factor", true),
                ("add", true),
                ("shift", true),
                ("sign", self.sign && self.unit),
            ]),
            Form::Doubled { left } => words(&[
                ("bias", true),
                ("left", left),
                ("multiplier", true),
                ("rounding", true),
                ("unit", self.unit),
            ]),
        }
    }

    /// The result of a channel of 32-bit sums that no input changes.
    fn fixed(&self, channel: &Channel) -> Option<i32> {
        let word = self.scalar == Some(I32);
        word.then(|| channel.constant(self.zero_point, (self.min, self.max)))
            .flatten()
    }

    /// What the sums of one accumulator start from: the biases as `int32x4`, or an integer.
    pub fn start(&self, e: &mut Emitter, entry: Value, offset: i32) -> Value {
        match (self.form, self.scalar) {
            (Form::Product { started: true, .. }, _) => e.int(I64, 0),
            (Form::Product { .. }, Some(I32)) => e.load_word(entry, offset + 16),
            (Form::Product { .. }, _) => e.b.ins().sload32(Emitter::flags(), entry, offset + 16),
            (_, Some(_)) => e.load_word(entry, offset),
            (_, None) => e.load(I32X4, entry, offset),
        }
    }

    /// Loads the constants of one accumulator.
    pub fn load(&self, e: &mut Emitter, entry: Value, offset: i32) -> Constants {
        let size = if self.scalar.is_some() { 4 } else { 16 };
        let mut at = offset;
        let mut next = |e: &mut Emitter, wanted: bool| {
            if !wanted {
                return Value::reserved_value();
            }
            at += size;
            if size == 4 {
                e.load_word(entry, at)
            } else {
                e.load(I32X4, entry, at)
            }
        };
        let values = match self.form {
            Form::Product { left, .. } => [
                e.b.ins().sload32(Emitter::flags(), entry, offset + 8),
                e.load(I64, entry, offset),
                e.load(I32, entry, offset + 12),
                if left {
                    e.load(I32, entry, offset + 20)
                } else {
                    Value::reserved_value()
                },
            ],
            Form::Folded { .. } => [next(e, true), next(e, true), next(e, true), next(e, self.sign)],
            Form::Step { .. } => [next(e, true), next(e, true), next(e, false), next(e, false)],
            Form::Shifted => [
                next(e, true),
                next(e, true),
                next(e, true),
                next(e, self.sign && self.unit),
            ],
            Form::Doubled { left } => [next(e, left), next(e, true), next(e, true), next(e, self.unit)],
        };
        let late = matches!(
            self.form,
            Form::Product {
                excess: Some(_),
                started: false,
                ..
            }
        );
        Constants {
            values,
            start: late.then(|| self.start(e, entry, offset)),
            bounds: None,
        }
    }

    /// One accumulator to its result: for vectors before narrowing ([`Requantize::narrow`]), for scalars complete.
    pub fn apply(&self, e: &mut Emitter, x: Value, constants: &Constants) -> Value {
        let c = constants.values;
        match self.form {
            Form::Product {
                left, wraps, folded, ..
            } => {
                let mut x = x;
                if self.scalar == Some(I32) {
                    if left {
                        x = e.b.ins().imul(x, c[3]);
                    }
                    x = e.b.ins().sextend(I64, x);
                }
                if let Some(start) = constants.start {
                    x = e.b.ins().iadd(x, start);
                }
                if left && self.scalar == Some(I64) {
                    let low = e.b.ins().ireduce(I32, x);
                    let shifted = e.b.ins().imul(low, c[3]);
                    x = e.b.ins().sextend(I64, shifted);
                } else if wraps {
                    let low = e.b.ins().ireduce(I32, x);
                    x = e.b.ins().sextend(I64, low);
                }
                let mut sum = e.b.ins().imul(x, c[0]);
                sum = e.b.ins().iadd(sum, c[1]);
                if self.sign {
                    let mut negative = e.shift_right(x, 63);
                    if self.unit {
                        // Only where e ≥ 1, that is where the shift is above 31.
                        let bound = e.i32(31);
                        let applies = e.b.ins().icmp(IntCC::NotEqual, c[2], bound);
                        let applies = e.b.ins().uextend(I64, applies);
                        negative = e.b.ins().imul(negative, applies);
                    }
                    let by = e.i32(31);
                    let negative = e.b.ins().ishl(negative, by);
                    sum = e.b.ins().iadd(sum, negative);
                }
                let mut z = e.b.ins().sshr(sum, c[2]);
                if !folded && self.zero_point != 0 {
                    let zero_point = e.int(I64, i64::from(self.zero_point));
                    z = e.b.ins().iadd(z, zero_point);
                }
                let z = clamp(e, z, self.min, self.max);
                if self.scalar == Some(I32) {
                    e.b.ins().ireduce(I32, z)
                } else {
                    z
                }
            }
            Form::Folded { shift } if self.scalar.is_some() => {
                let scaled = e.b.ins().imul(x, c[0]);
                let mut sum = high_product(e, scaled, c[1], c[2]);
                if self.sign {
                    let negative = e.shift_right(x, 31);
                    let negative = e.b.ins().band(negative, c[3]);
                    sum = e.b.ins().iadd(sum, negative);
                }
                let z = e.shift_right(sum, shift + 1);
                self.clamp32(e, z, constants)
            }
            Form::Step { shift } => {
                let sum = high_product(e, x, c[0], c[1]);
                let z = e.shift_right(sum, shift);
                self.clamp32(e, z, constants)
            }
            Form::Shifted => {
                let two = e.i32(2);
                let scaled = e.b.ins().ishl(x, two);
                let mut sum = high_product(e, scaled, c[0], c[1]);
                if self.sign {
                    let negative = e.shift_right(x, 31);
                    let twice = if self.unit {
                        e.b.ins().band(negative, c[3])
                    } else {
                        let one = e.i32(1);
                        e.b.ins().ishl(negative, one)
                    };
                    sum = e.b.ins().iadd(sum, twice);
                }
                let z = e.b.ins().sshr(sum, c[2]);
                self.clamp32(e, z, constants)
            }
            Form::Folded { shift } => {
                let scaled = e.b.ins().imul(x, c[0]);
                let high = e.high_products(scaled, c[1], |_, product| product);
                let mut sum = e.b.ins().iadd(high, c[2]);
                if self.sign {
                    let negative = e.shift_right(x, 31);
                    let negative = e.b.ins().band(negative, c[3]);
                    sum = e.b.ins().iadd(sum, negative);
                }
                e.shift_right(sum, shift + 1)
            }
            Form::Doubled { left } => {
                let x = if left { e.b.ins().imul(x, c[0]) } else { x };
                let y = e.rounding_doubling_high_multiply(x, c[1]);
                let a = if self.sign {
                    let negative = e.shift_right(y, 31);
                    e.b.ins().iadd(y, negative)
                } else {
                    y
                };
                let z = e.rounding_doubling_high_multiply(a, c[2]);
                if self.unit { e.b.ins().bitselect(c[3], y, z) } else { z }
            }
        }
    }

    /// A 32-bit result between the bounds.
    fn clamp32(&self, e: &mut Emitter, z: Value, constants: &Constants) -> Value {
        let [min, max] = constants.bounds.unwrap_or_else(|| self.bounds(e));
        let z = e.b.ins().smax(z, min);
        e.b.ins().smin(z, max)
    }

    /// The clamp of 32-bit results, for several of them.
    pub fn bounds(&self, e: &mut Emitter) -> [Value; 2] {
        [e.i32(self.min), e.i32(self.max)]
    }

    /// Up to four results of [`Requantize::apply`] as bytes, clamped.
    pub fn narrow(&self, e: &mut Emitter, results: &[Value]) -> Value {
        let zero_point = match self.form {
            Form::Doubled { .. } => self.zero_point as i16,
            _ => 0,
        };
        let mut bytes = e.narrow(results, |e, half| e.add_saturating_i16(half, zero_point));
        if self.min > i32::from(i8::MIN) {
            let min = e.splat_int(I8X16, i64::from(self.min));
            bytes = e.b.ins().smax(bytes, min);
        }
        if self.max < i32::from(i8::MAX) {
            let max = e.splat_int(I8X16, i64::from(self.max));
            bytes = e.b.ins().smin(bytes, max);
        }
        bytes
    }
}

/// High half of `x` × `m`, plus `c`.
fn high_product(e: &mut Emitter, x: Value, m: Value, c: Value) -> Value {
    if e.target.machine().dsp {
        return e.intrinsic(Intrinsic::Smmla, &[x, m, c]);
    }
    let high = e.b.ins().smulhi(x, m);
    e.b.ins().iadd(high, c)
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

/// A 64-bit integer between two constants, by branches: without minimum and maximum instructions they are the cheapest,
/// and seldom taken.
pub fn clamp(e: &mut Emitter, value: Value, min: i32, max: i32) -> Value {
    let mut value = value;
    for (condition, bound) in [(IntCC::SignedLessThan, min), (IntCC::SignedGreaterThan, max)] {
        let bound = e.int(I64, i64::from(bound));
        let outside = e.b.ins().icmp(condition, value, bound);
        let next = e.b.create_block();
        e.b.append_block_param(next, I64);
        e.b.ins().brif(outside, next, &[bound.into()], next, &[value.into()]);
        e.b.switch_to_block(next);
        e.record_block(next, 1);
        value = e.b.block_params(next)[0];
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::emit::build;
    use crate::kernels::testing::{Compiled, Edge, Guarded, hosts_and_others};

    /// What the form computes for `values`, each of which is an accumulator of all `channels` (up to four).
    fn compiled(requantize: &Requantize, channels: &[Channel], values: &[i32], target: &Target) -> Vec<i8> {
        let lanes = if target.machine().simd128 { 4 } else { 1 };
        let mut constants = Vec::new();
        for four in channels.chunks(lanes) {
            requantize.entry(four, lanes, &mut constants);
        }
        let size = requantize.entry_bytes();
        assert_eq!(constants.len(), channels.len().div_ceil(lanes) * size);
        let built = build(target, 3, |e| {
            let (input, entry, output) = (e.args[0], e.args[1], e.args[2]);
            let steps = [(input, 4), (output, channels.len() as i64)];
            e.counted(values.len() as u64, &steps, &[], |e, p, _| {
                for i in (0..channels.len()).step_by(lanes) {
                    let constants = requantize.load(e, entry, (i / lanes * size) as i32);
                    if lanes == 4 {
                        let x = e.load(I32, p[0], 0);
                        let x = e.b.ins().splat(I32X4, x);
                        let result = requantize.apply(e, x, &constants);
                        let bytes = requantize.narrow(e, &[result]);
                        e.store_bytes(bytes, (channels.len() - i).min(4), p[1], i as i32);
                    } else {
                        let x = match target.machine().integer_bytes {
                            4 => e.load(I32, p[0], 0),
                            _ => e.b.ins().sload32(Emitter::flags(), p[0], 0),
                        };
                        // These channels have no biases, but searched constants may.
                        let x = if requantize.scalar == Some(I32) {
                            let start = requantize.start(e, entry, (i * size) as i32);
                            e.b.ins().iadd(x, start)
                        } else {
                            x
                        };
                        let result = requantize.apply(e, x, &constants);
                        e.store_i8(result, p[1], i as i32);
                    }
                }
                vec![]
            });
        });
        let input: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let input = Guarded::new(&input, 4, Edge::End, true);
        let constants = Guarded::new(&constants, 16, Edge::End, true);
        let output = Guarded::new(&vec![0; values.len() * channels.len()], 1, Edge::End, false);
        Compiled::new(&built, target).call(&[input.pointer(), constants.pointer(), output.pointer()]);
        output.bytes().into_iter().map(|byte| byte as i8).collect()
    }

    fn channel(mantissa: i32, shift: i32, reach: i64) -> Channel {
        Channel {
            bias: 0,
            multiplier: Multiplier { mantissa, shift },
            low: -reach,
            high: reach,
        }
    }

    /// Accumulators within ±reach: the ends, around zero, and around every threshold of the result.
    fn values(channels: &[Channel]) -> Vec<i32> {
        let reach = channels
            .iter()
            .map(|c| c.high)
            .min()
            .unwrap_or(0)
            .min(i64::from(i32::MAX));
        let mut values: Vec<i64> = (-70..=70).collect();
        for c in channels {
            let real = f64::from(c.multiplier.mantissa) / 2f64.powi(31 - c.multiplier.shift);
            for quantum in -260..=260 {
                let threshold = ((f64::from(quantum) + 0.5) / real) as i64;
                values.extend((-2..=2).map(|d| threshold.saturating_add(d)));
            }
        }
        for k in 0..3 {
            values.extend([reach - k, k - reach]);
        }
        let mut state = 12345u64;
        for _ in 0..200 {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            values.push((state >> 20) as i64 % (reach + 1));
        }
        values.retain(|x| (-reach..=reach).contains(x));
        values.into_iter().map(|x| x as i32).collect()
    }

    fn check(channels: &[Channel], forms: &mut Vec<String>) {
        for target in hosts_and_others() {
            for (zero_point, range) in [(-128, (-128, 127)), (5, (-128, 80)), (127, (127, 127))] {
                let accumulator = match (target.machine().simd128, target.machine().integer_bytes) {
                    (true, _) => Accumulator::Vector,
                    (false, 4) => Accumulator::Word,
                    (false, _) => Accumulator::Scalar,
                };
                let requantize = Requantize::new(&target, accumulator, channels, zero_point, range);
                let values = values(channels);
                let found = compiled(&requantize, channels, &values, &target);
                for (i, x) in values.iter().enumerate() {
                    for (j, c) in channels.iter().enumerate() {
                        let wanted = i64::from(c.multiplier.apply(*x)) + i64::from(zero_point);
                        let wanted = wanted.clamp(range.0.into(), range.1.into()) as i8;
                        let found = found[i * channels.len() + j];
                        assert_eq!(found, wanted, "{target} {requantize:?} {c:?} of {x}");
                    }
                }
                let name = format!("{:?}", requantize.form);
                if !forms.contains(&name) {
                    forms.push(name);
                }
            }
        }
    }

    #[test]
    fn every_shift_is_exact() {
        let mut forms = Vec::new();
        for shift in -31..=8 {
            for reach in [1 << 20, i64::from(i32::MAX)] {
                let channels = [1 << 30, i32::MAX, 0x5a5a_5a5a].map(|mantissa| channel(mantissa, shift, reach));
                check(&channels, &mut forms);
            }
        }
        assert!(forms.iter().any(|form| form.starts_with("Folded")), "{forms:?}");
        assert!(forms.iter().any(|form| form.starts_with("Doubled")), "{forms:?}");
        assert!(forms.iter().any(|form| form.starts_with("Product")), "{forms:?}");
    }

    #[test]
    fn channels_keep_their_own_shifts() {
        let mut forms = Vec::new();
        let reach = 1 << 16;
        let mixed = [
            channel(1 << 30, -9, reach),
            channel(0x7abc_def0, -4, reach),
            channel(0x6000_0001, 0, reach),
            channel(0, 0, reach),
            channel(0x4000_0001, -12, reach),
            channel(0x7fff_ffff, -30, reach),
            channel(0x7fff_ffff, 2, 1 << 12),
        ];
        check(&mixed[..2], &mut forms);
        check(&mixed[..5], &mut forms);
        check(&mixed, &mut forms);
        check(&mixed[4..6], &mut forms);
    }

    /// A channel whose real multiplier is nearly zero must not force its neighbours into the general form.
    #[test]
    fn dead_channels_are_left_out() {
        let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
        let channels = [channel(1 << 30, -9, 1 << 18), channel(1 << 30, -25, 1 << 18)];
        let requantize = Requantize::new(&target, Accumulator::Vector, &channels, -128, (-128, 127));
        assert_eq!(requantize.form, Form::Folded { shift: 12 });
        assert!(!requantize.sign && !requantize.unit);
    }
}
