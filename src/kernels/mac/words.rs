//! Requantization of 32-bit sums with Arm's DSP instructions: SMMLA and SSAT where constants are found with which they are
//! exact, else one of the forms of every machine.
//!
//! Sums may come 2^8 times too great, where the kernel has them so for nothing: the constants are then found in steps of
//! 1/256 of a product. That is fine enough for all channels of a layer to share the constant that is added.
//!
//! A block of n channels has n words from which its sums start, and then, channel by channel, a factor and what is added,
//! unless the layer shares them. A layer with one multiplier for all channels has one pair of constants, at the beginning.

use super::super::emit::{Emitter, Parked};
use super::super::requantize::{Accumulator, Channel, Constants, Requantize};
use super::super::threshold::{Search, Step};
use crate::intrinsic::Intrinsic;
use crate::target::Target;
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Values of the shared addend that are tried.
const ADDS: i32 = 1000;

/// How a layer's sums are scaled, channel by channel in turn.
pub(super) type Scales = &'static [u32];
/// Sums as they are.
pub(super) const PLAIN: Scales = &[0];
/// All sums 2^8 times.
pub(super) const FINE: Scales = &[8];
/// 2^8 times for the first of two channels. The start of the first then holds that of the second as well.
pub(super) const PAIRED: Scales = &[8, 0];

/// Requantization of a layer.
#[derive(Clone)]
pub(super) struct Words {
    form: Form,
    scales: Scales,
    range: (i32, i32),
}

#[derive(Clone)]
enum Form {
    /// ⌊(⌊x m / 2^32⌋ + c) / 2^shift⌋, for the channels of each scale.
    Step(Vec<Class>),
    /// One of the others, whose constants all channels may have in common.
    General { requantize: Requantize, common: bool },
}

/// Constants that channels of the same scale have in common.
#[derive(Clone)]
struct Class {
    shift: u32,
    add: Option<i32>,
    /// All constants: of a layer with one multiplier. `bias` is in the starts.
    all: Option<Step>,
}

/// What results are made with.
pub(super) enum Ready {
    Step { factor: Value, add: Value, shift: u32 },
    General(Constants),
}

/// The constants of one channel, on the stack if they are few.
pub(super) enum Kept {
    Step { parked: Parked, shift: u32 },
    General(Value, Head),
}

/// The constants at the head of a layer's parameter, on the stack.
#[derive(Clone, Copy)]
pub(super) struct Head(Option<Parked>);

impl Words {
    /// Chooses a form that is exact for all `channels`, in groups of `filters`.
    pub fn new(
        target: &Target,
        channels: &[Channel],
        filters: usize,
        zero_point: i32,
        range: (i32, i32),
        scales: Scales,
    ) -> Self {
        let classes = (0..scales.len()).map(|class| {
            let of_class = channels
                .chunks(filters)
                .flat_map(|group| group.iter().skip(class).step_by(scales.len()));
            let of_class: Vec<Channel> = of_class.copied().collect();
            Class::new(&of_class, zero_point, range, scales[class])
        });
        let form = match classes.collect::<Option<Vec<Class>>>() {
            Some(classes) => Form::Step(classes),
            None => {
                let requantize = Requantize::new(target, Accumulator::Word, channels, zero_point, range);
                let mut entries = Vec::new();
                requantize.entry_all(channels, &mut entries);
                let mut constants = entries.chunks_exact(requantize.entry_bytes()).map(|entry| &entry[4..]);
                let first = constants.next();
                let common = requantize.start_at() == 0 && channels.len() > 1 && constants.all(|c| Some(c) == first);
                Form::General { requantize, common }
            }
        };
        Words { form, scales, range }
    }

    /// For the schedule's name.
    pub fn name(&self) -> &'static str {
        match &self.form {
            Form::Step(classes) if classes.iter().any(|class| class.all.is_some()) => "one step",
            Form::Step(_) => "steps",
            Form::General { requantize, .. } => requantize.name(),
        }
    }

    fn class(&self, channel: usize) -> usize {
        channel % self.scales.len()
    }

    /// Bytes at the head of the parameter.
    pub fn head_bytes(&self) -> usize {
        match &self.form {
            Form::Step(classes) => 4 * classes.iter().map(|class| class.head().len()).sum::<usize>(),
            Form::General {
                requantize,
                common: true,
            } => requantize.entry_bytes(),
            Form::General { .. } => 0,
        }
    }

    /// Bytes of the constants of a block of `n` channels.
    pub fn block_bytes(&self, n: usize) -> usize {
        match &self.form {
            Form::Step(_) => self.place(n, n),
            Form::General { common: true, .. } => 4 * n,
            Form::General { requantize, .. } => n * requantize.entry_bytes(),
        }
    }

    /// Where the constants of a channel of a block are.
    fn place(&self, n: usize, channel: usize) -> usize {
        let Form::Step(classes) = &self.form else { return 0 };
        let own = |class: &Class| match class {
            Class { all: Some(_), .. } => 0,
            Class { add: Some(_), .. } => 4,
            _ => 8,
        };
        4 * n + (0..channel).map(|c| own(&classes[self.class(c)])).sum::<usize>()
    }

    /// Appends what stands before all blocks.
    pub fn head(&self, channels: &[Channel], out: &mut Vec<u8>) {
        let classes = match &self.form {
            Form::Step(classes) => classes,
            Form::General {
                requantize,
                common: true,
            } => return requantize.entry_all(&channels[..1], out),
            Form::General { .. } => return,
        };
        let words = classes.iter().flat_map(Class::head);
        out.extend(words.flat_map(i32::to_le_bytes));
    }

    /// Appends a block of `n` channels, of which `channels` exist.
    pub fn block(&self, channels: &[Channel], n: usize, zero_point: i32, out: &mut Vec<u8>) {
        let exist = channels.len();
        let channels: Vec<Channel> = (0..n)
            .map(|i| channels.get(i).copied().unwrap_or(Channel::NONE))
            .collect();
        let from = out.len();
        let mut starts: Vec<i32>;
        match &self.form {
            Form::Step(classes) => {
                let steps: Vec<Step> = (0..n)
                    .map(|c| {
                        if c >= exist {
                            return Step {
                                bias: 0,
                                factor: 0,
                                add: 0,
                            };
                        }
                        let (class, scale) = (self.class(c), self.scales[self.class(c)]);
                        let found = classes[class].step(&channels[c], zero_point, self.range, scale);
                        found.expect("the form was chosen for all channels")
                    })
                    .collect();
                let start = |c: usize| (channels[c].bias << self.scales[self.class(c)]).wrapping_add(steps[c].bias);
                starts = (0..n).map(start).collect();
                out.extend(vec![0; 4 * n]);
                for (c, step) in steps.iter().enumerate() {
                    match &classes[self.class(c)] {
                        Class { all: Some(_), .. } => {}
                        Class { add: Some(_), .. } => out.extend(step.factor.to_le_bytes()),
                        _ => out.extend([step.factor, step.add].iter().flat_map(|word| word.to_le_bytes())),
                    }
                }
            }
            Form::General { requantize, common } => {
                let mut entries = Vec::new();
                requantize.entry_all(&channels, &mut entries);
                // Some forms have starts of their own.
                let start = |(c, entry): (usize, &[u8])| {
                    let word = &entry[requantize.start_at()..][..4];
                    i32::from_le_bytes([word[0], word[1], word[2], word[3]]) << self.scales[self.class(c)]
                };
                starts = entries
                    .chunks_exact(requantize.entry_bytes())
                    .enumerate()
                    .map(start)
                    .collect();
                if *common {
                    out.extend(vec![0; 4 * n]);
                } else {
                    out.extend(entries);
                }
            }
        }
        if self.scales.len() == 2 {
            for pair in starts.chunks_exact_mut(2) {
                pair[0] = pair[0].wrapping_add(pair[1]);
            }
        }
        for (c, start) in starts.iter().enumerate() {
            let at = from + self.start_at(c);
            out[at..at + 4].copy_from_slice(&start.to_le_bytes());
        }
    }

    fn start_at(&self, channel: usize) -> usize {
        match &self.form {
            Form::Step(_) | Form::General { common: true, .. } => 4 * channel,
            Form::General { requantize, .. } => channel * requantize.entry_bytes() + requantize.start_at(),
        }
    }

    /// Loads what the sum of a channel of a block starts from.
    pub fn start(&self, e: &mut Emitter, block: Value, channel: usize) -> Value {
        e.load_word(block, self.start_at(channel) as i32)
    }

    /// Keeps the constants at the head of the parameter at hand.
    pub fn keep(&self, e: &mut Emitter, parameter: Value) -> Head {
        let words = self.head_bytes() / 4;
        let values: Vec<Value> = (0..words).map(|i| e.load_word(parameter, 4 * i as i32)).collect();
        Head((words > 0).then(|| e.park(&values)))
    }

    /// Loads what all channels add, where they share that and nothing else.
    pub fn shared(&self, e: &mut Emitter, head: Head) -> Vec<Option<Value>> {
        let Form::Step(classes) = &self.form else {
            return vec![None; self.scales.len()];
        };
        let load = |class: usize| {
            let add = classes[class].add.and(head.0);
            add.map(|parked| e.fetch(parked, I32, self.head_at(class), 1)[0])
        };
        (0..classes.len()).map(load).collect()
    }

    /// Words at the head before those of a class.
    fn head_at(&self, class: usize) -> usize {
        match &self.form {
            Form::Step(classes) => classes[..class].iter().map(|class| class.head().len()).sum(),
            Form::General { .. } => 0,
        }
    }

    /// Loads the constants of a channel of a block of `n`.
    pub fn load(
        &self,
        e: &mut Emitter,
        head: Head,
        shared: &[Option<Value>],
        block: Value,
        n: usize,
        channel: usize,
    ) -> Ready {
        let class = self.class(channel);
        match (&self.form, head.0) {
            (Form::Step(classes), Some(parked)) if classes[class].all.is_some() => {
                let loaded = e.fetch(parked, I32, self.head_at(class), 2);
                Ready::Step {
                    factor: loaded[0],
                    add: loaded[1],
                    shift: classes[class].shift,
                }
            }
            (Form::Step(classes), _) => {
                let at = self.place(n, channel) as i32;
                let factor = e.load_word(block, at);
                Ready::Step {
                    factor,
                    add: shared[class].unwrap_or_else(|| e.load_word(block, at + 4)),
                    shift: classes[class].shift,
                }
            }
            (
                Form::General {
                    requantize,
                    common: true,
                },
                Some(parked),
            ) => {
                let head = e.address_of(parked);
                Ready::General(requantize.load(e, head, 0))
            }
            (Form::General { requantize, .. }, _) => {
                Ready::General(requantize.load(e, block, (channel * requantize.entry_bytes()) as i32))
            }
        }
    }

    /// Keeps the constants of a block's only channel at hand.
    pub fn keep_channel(&self, e: &mut Emitter, head: Head, block: Value) -> Kept {
        let shared = self.shared(e, head);
        match self.load(e, head, &shared, block, 1, 0) {
            Ready::Step { factor, add, shift } => {
                let start = self.start(e, block, 0);
                Kept::Step {
                    parked: e.park(&[factor, add, start]),
                    shift,
                }
            }
            Ready::General(_) => Kept::General(block, head),
        }
    }

    /// What the sum of the channel that was kept starts from.
    pub fn kept_start(&self, e: &mut Emitter, kept: &Kept) -> Value {
        match kept {
            Kept::Step { parked, .. } => e.fetch(*parked, I32, 2, 1)[0],
            Kept::General(block, _) => self.start(e, *block, 0),
        }
    }

    /// The constants of the channel that was kept.
    pub fn kept(&self, e: &mut Emitter, kept: &Kept) -> Ready {
        match (kept, &self.form) {
            (Kept::Step { parked, shift }, _) => {
                let loaded = e.fetch(*parked, I32, 0, 2);
                Ready::Step {
                    factor: loaded[0],
                    add: loaded[1],
                    shift: *shift,
                }
            }
            (Kept::General(block, head), Form::General { .. }) => self.load(e, *head, &[None], *block, 1, 0),
            (Kept::General(..), Form::Step(_)) => unreachable!("constants are of the form"),
        }
    }

    /// The result of a complete sum.
    pub fn result(&self, e: &mut Emitter, sum: Value, channel: usize, ready: &Ready) -> Value {
        match (&self.form, ready) {
            (_, Ready::Step { factor, add, shift }) => {
                let high = e.intrinsic(Intrinsic::Smmla, &[sum, *factor, *add]);
                let z = e.shift_right(high, *shift);
                let (min, max) = (e.i32(self.range.0), e.i32(self.range.1));
                let z = e.b.ins().smax(z, min);
                e.b.ins().smin(z, max)
            }
            (Form::General { requantize, .. }, Ready::General(constants)) => {
                let scale = self.scales[self.class(channel)];
                let sum = if scale > 0 { e.shift_right(sum, scale) } else { sum };
                requantize.apply(e, sum, constants)
            }
            (Form::Step(_), Ready::General(_)) => unreachable!("constants are of the form"),
        }
    }
}

impl Class {
    fn new(channels: &[Channel], zero_point: i32, range: (i32, i32), scale: u32) -> Option<Class> {
        let live = || {
            channels
                .iter()
                .filter(|channel| channel.constant(zero_point, range).is_none())
        };
        let least = live().map(|channel| channel.multiplier.right()).min().unwrap_or(1);
        let most = (least + scale).saturating_sub(1).min(14);
        // Few different ones, for layers of equal shape.
        let usual: &[u32] = if scale > 0 { &[12, 10, 8] } else { &[4, 2] };
        let mut shifts: Vec<u32> = usual.iter().copied().filter(|shift| *shift <= most).collect();
        shifts.push(most);
        let one = live().next().copied().filter(|first| {
            live().count() > 1 && channels.iter().all(|channel| channel.multiplier == first.multiplier)
        });
        if let Some(mut all) = one {
            // What holds for every reach holds for each.
            all.low = live().map(|channel| channel.low).min().unwrap_or(0);
            all.high = live().map(|channel| channel.high).max().unwrap_or(0);
            for &shift in &shifts {
                let class = Class {
                    shift,
                    add: None,
                    all: None,
                };
                if let Some(found) = class.step(&all, zero_point, range, scale)
                    && channels
                        .iter()
                        .all(|channel| agrees(channel, found, shift, scale, zero_point, range))
                {
                    return Some(Class {
                        all: Some(found),
                        ..class
                    });
                }
            }
        }
        if scale > 0 {
            let shared = shifts
                .iter()
                .find_map(|&shift| Class::sharing(channels, zero_point, range, scale, shift));
            if shared.is_some() {
                return shared;
            }
        }
        let holds = |class: &Class| {
            channels
                .iter()
                .all(|channel| class.step(channel, zero_point, range, scale).is_some())
        };
        shifts.into_iter().find_map(|shift| {
            let class = Class {
                shift,
                add: None,
                all: None,
            };
            holds(&class).then_some(class)
        })
    }

    /// The same where all channels can share what is added.
    fn sharing(channels: &[Channel], zero_point: i32, range: (i32, i32), scale: u32, shift: u32) -> Option<Class> {
        let middle = (zero_point << shift) + (1 << shift >> 1);
        // Channels that no input changes are to end at their value.
        let mut candidates = Vec::new();
        let mut values = Vec::new();
        for channel in channels {
            match channel.constant(zero_point, range) {
                Some(value) => values.push(value),
                None => candidates.push(search(channel, zero_point, range, scale, shift).candidates()?),
            }
        }
        let near = (0..ADDS).map(|i| middle + if i % 2 == 0 { i / 2 } else { -(i + 1) / 2 });
        let found = near.into_iter().find(|add| {
            values.iter().all(|value| add >> shift == *value)
                && candidates.iter().all(|candidates| candidates.with(*add).is_some())
        });
        found.map(|add| Class {
            shift,
            add: Some(add),
            all: None,
        })
    }

    /// The words at the layer's head.
    fn head(&self) -> Vec<i32> {
        match self.all {
            Some(step) => vec![step.factor, step.add],
            None => self.add.into_iter().collect(),
        }
    }

    /// The constants of a channel.
    fn step(&self, channel: &Channel, zero_point: i32, range: (i32, i32), scale: u32) -> Option<Step> {
        if let Some(all) = self.all {
            return Some(all);
        }
        if let Some(value) = channel.constant(zero_point, range) {
            let add = self.add.unwrap_or(value << self.shift);
            return (add >> self.shift == value).then_some(Step {
                bias: 0,
                factor: 0,
                add,
            });
        }
        let candidates = search(channel, zero_point, range, scale, self.shift).candidates()?;
        match self.add {
            Some(add) => candidates.with(add),
            None => candidates.any(),
        }
    }
}

fn search(channel: &Channel, zero_point: i32, range: (i32, i32), scale: u32, shift: u32) -> Search {
    Search {
        multiplier: channel.multiplier,
        reach: (channel.low, channel.high),
        zero_point,
        range,
        shift,
        scale,
    }
}

/// Whether constants that hold between the ends of the reach of all channels hold for one that no input changes.
fn agrees(channel: &Channel, step: Step, shift: u32, scale: u32, zero_point: i32, (min, max): (i32, i32)) -> bool {
    let Some(value) = channel.constant(zero_point, (min, max)) else {
        return true;
    };
    [channel.low, channel.high].into_iter().all(|x| {
        let Some(sum) = i32::try_from((x << scale) + i64::from(step.bias)).ok() else {
            return false;
        };
        let high = (i64::from(sum) * i64::from(step.factor)) >> 32;
        let add = i32::try_from(high + i64::from(step.add));
        add.is_ok_and(|sum| (sum >> shift).clamp(min, max) == value)
    })
}
