//! Steps of a sum with Arm's DSP instructions: words of two int16 activations, words of weights.

use super::super::emit::Emitter;
use super::super::schedule::Tile;
use crate::intrinsic::Intrinsic;
use cranelift_codegen::ir::Value;

/// `taken` pairs of elements in all sums, two channels a word of weights.
#[allow(clippy::too_many_arguments)]
pub(super) fn paired_step(
    e: &mut Emitter,
    tile: &Tile,
    a: Value,
    at: i32,
    w: Value,
    w_at: i32,
    taken: usize,
    sums: &mut [Value],
) {
    // Activations of all steps first: two words at a time are one instruction.
    let all: Vec<Value> = (0..(taken * tile.pixels) as i32)
        .map(|p| e.load_word(a, at + 4 * p))
        .collect();
    for (k, x) in all.chunks(tile.pixels).enumerate() {
        paired_sums(e, tile, x, w, w_at + (2 * k * tile.channels) as i32, sums);
    }
}

/// One pair of elements `x` of each position in all sums, two channels a word of weights.
pub(super) fn paired_sums(e: &mut Emitter, tile: &Tile, x: &[Value], w: Value, w_at: i32, sums: &mut [Value]) {
    let mut loaded = Vec::new();
    for c in (0..tile.channels).step_by(2) {
        // Two words at a time are one instruction.
        if c % 4 == 0 {
            let words = (tile.channels - c).min(4) / 2;
            loaded = (0..words)
                .map(|i| e.load_word(w, w_at + 2 * c as i32 + 4 * i as i32))
                .collect();
        }
        let both = loaded[c / 2 % 2];
        for (p, x) in x.iter().enumerate() {
            let sum = &mut sums[c * tile.pixels + p];
            *sum = e.intrinsic(Intrinsic::Smlad, &[both, *x, *sum]);
        }
        let second = e.intrinsic(Intrinsic::Sxtb16, &[both]);
        for (p, x) in x.iter().enumerate() {
            let sum = &mut sums[(c + 1) * tile.pixels + p];
            *sum = e.intrinsic(Intrinsic::Smlad, &[second, *x, *sum]);
        }
    }
}

/// Two pairs of elements in all sums, one channel a word of weights.
pub(super) fn plain_step(e: &mut Emitter, tile: &Tile, a: Value, at: i32, w: Value, w_at: i32, sums: &mut [Value]) {
    let pixels = tile.pixels;
    let x: Vec<Value> = (0..2 * pixels as i32).map(|i| e.load_word(a, at + 4 * i)).collect();
    plain_sums(e, tile, &x, w, w_at, sums);
}

/// Two pairs of elements `x` of each position in all sums, one channel a word of weights.
pub(super) fn plain_sums(e: &mut Emitter, tile: &Tile, x: &[Value], w: Value, w_at: i32, sums: &mut [Value]) {
    let pixels = tile.pixels;
    for c in 0..tile.channels {
        let four = e.load_word(w, w_at + 4 * c as i32);
        for (i, intrinsic) in [Intrinsic::Sxtb16, Intrinsic::Sxtb16Ror8].into_iter().enumerate() {
            let two = e.intrinsic(intrinsic, &[four]);
            for p in 0..pixels {
                let sum = &mut sums[c * pixels + p];
                *sum = e.intrinsic(Intrinsic::Smlad, &[two, x[i * pixels + p], *sum]);
            }
        }
    }
}
