//! Every form against the definition.

use super::*;
use crate::kernels::emit::{Emitter, build};
use crate::kernels::testing::{Compiled, Edge, Guarded, hosts_and_others};
use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::types::I32X4;

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
