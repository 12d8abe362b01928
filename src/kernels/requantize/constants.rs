//! The constants of each output channel, and how they lie in a layer's parameter.

use super::{Channel, Fold, Form, Requantize, fold, power, shifted, start, step};
use crate::data::{Layout, Scalar};
use crate::graph::quant::Multiplier;
use cranelift_codegen::ir::types::I32;

impl Requantize {
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
    pub(super) fn fixed(&self, channel: &Channel) -> Option<i32> {
        let word = self.scalar == Some(I32);
        word.then(|| channel.constant(self.zero_point, (self.min, self.max)))
            .flatten()
    }
}
