//! Windows of int8 elements with Arm's DSP instructions: four channels in a word.

use super::emit::Emitter;
use super::pool::Patch;
use crate::graph::DType;
use crate::intrinsic::Intrinsic;
use crate::target::Target;
use cranelift_codegen::ir::types::I32;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Most elements whose sum fits 16 bits.
const SHORT: u64 = 256;
/// Elements of a row that are written out without a loop.
const UNROLL: u64 = 8;

/// Whether windows can be reduced so.
pub fn fits(target: &Target, dtype: DType, patch: Patch) -> bool {
    target.machine().dsp && dtype == DType::I8 && rows(patch).1 <= SHORT
}

/// Rows and columns; one row where they adjoin.
fn rows(patch: Patch) -> (u64, u64) {
    if patch.row == patch.columns as i64 * patch.column && patch.rows * patch.columns <= SHORT {
        (1, patch.rows * patch.columns)
    } else {
        (patch.rows, patch.columns)
    }
}

/// What one element adds to the values so far.
type Step = dyn Fn(&mut Emitter, &[Value], Value) -> Vec<Value>;

/// Runs `step` for the four channels at `from` of all elements of `count` rows.
fn fold(
    e: &mut Emitter,
    from: Value,
    (count, columns): (u64, u64),
    patch: Patch,
    start: &[Value],
    step: &Step,
) -> (Vec<Value>, Value) {
    let next = |e: &mut Emitter, so_far: &[Value], p: Value, at: i64| {
        let (p, at) = e.near(p, at);
        let four = e.load(I32, p, at);
        step(e, so_far, four)
    };
    let (results, ends) = e.counted(count, &[(from, patch.row)], start, |e, p, so_far| {
        let each = (2..=UNROLL.min(columns))
            .rev()
            .find(|n| columns.is_multiple_of(*n))
            .unwrap_or(1);
        let each = if columns <= UNROLL { columns } else { each };
        let (results, _) = e.counted(
            columns / each,
            &[(p[0], each as i64 * patch.column)],
            so_far,
            |e, p, so_far| (0..each as i64).fold(so_far.to_vec(), |so_far, x| next(e, &so_far, p[0], x * patch.column)),
        );
        results
    });
    (results, ends[0])
}

/// The sums of the four channels at `from`.
pub fn sums(e: &mut Emitter, from: Value, patch: Patch) -> [Value; 4] {
    let (count, columns) = rows(patch);
    let add = |e: &mut Emitter, so_far: &[Value], four: Value| {
        vec![
            e.intrinsic(Intrinsic::Sxtab16, &[so_far[0], four]),
            e.intrinsic(Intrinsic::Sxtab16Ror8, &[so_far[1], four]),
        ]
    };
    // As many rows at a time as 16 bits can hold.
    let rows = (SHORT / columns).min(count);
    let block = |e: &mut Emitter, from: Value, rows: u64| -> ([Value; 4], Value) {
        let zero = e.i32(0);
        let (halves, end) = fold(e, from, (rows, columns), patch, &[zero, zero], &add);
        (widened(e, [halves[0], halves[1]]), end)
    };
    let (first, next) = block(e, from, rows);
    let more = |e: &mut Emitter, p: Value, rows: u64, so_far: &[Value]| -> Vec<Value> {
        let (sums, _) = block(e, p, rows);
        so_far.iter().zip(sums).map(|(a, b)| e.b.ins().iadd(*a, b)).collect()
    };
    let step = rows as i64 * patch.row;
    let (mut all, ends) = e.counted(count / rows - 1, &[(next, step)], &first, |e, p, so_far| {
        more(e, p[0], rows, so_far)
    });
    if count % rows > 0 {
        all = more(e, ends[0], count % rows, &all);
    }
    [0, 1, 2, 3].map(|i| all[i])
}

/// The sums of the four channels at each of `places`, at most [`SHORT`] of them.
pub fn sums_at(e: &mut Emitter, places: &[(Value, i32)]) -> [Value; 4] {
    let mut halves = [e.i32(0); 2];
    for (from, at) in places {
        let four = e.load(I32, *from, *at);
        halves[0] = e.intrinsic(Intrinsic::Sxtab16, &[halves[0], four]);
        halves[1] = e.intrinsic(Intrinsic::Sxtab16Ror8, &[halves[1], four]);
    }
    widened(e, halves)
}

/// The greatest elements of the four channels at each of `places`.
pub fn most_at(e: &mut Emitter, places: &[(Value, i32)]) -> Option<Value> {
    places.iter().fold(None, |so_far, (from, at)| {
        let four = e.load(I32, *from, *at);
        Some(match so_far {
            Some(so_far) => e.intrinsic(Intrinsic::Smax8, &[so_far, four]),
            None => four,
        })
    })
}

/// The halves of two words as four.
fn widened(e: &mut Emitter, halves: [Value; 2]) -> [Value; 4] {
    let wide = halves.map(|half| {
        let up = e.shl(half, 16);
        [e.sar(up, 16), e.sar(half, 16)]
    });
    [wide[0][0], wide[1][0], wide[0][1], wide[1][1]]
}

/// The greatest elements of the four channels at `from`.
pub fn most(e: &mut Emitter, from: Value, patch: Patch) -> Value {
    let first = e.load(I32, from, 0);
    let greater =
        |e: &mut Emitter, so_far: &[Value], four: Value| vec![e.intrinsic(Intrinsic::Smax8, &[so_far[0], four])];
    if patch.rows * patch.columns > UNROLL {
        return fold(e, from, rows(patch), patch, &[first], &greater).0[0];
    }
    let mut most = vec![first];
    for i in 1..(patch.rows * patch.columns) as i64 {
        let (y, x) = (i / patch.columns as i64, i % patch.columns as i64);
        let (p, at) = e.near(from, y * patch.row + x * patch.column);
        let four = e.load(I32, p, at);
        most = greater(e, &most, four);
    }
    most[0]
}

/// The signed bytes of a word.
pub fn bytes(e: &mut Emitter, word: Value) -> [Value; 4] {
    [0, 1, 2, 3].map(|i| {
        let up = e.shl(word, 24 - 8 * i);
        e.sar(up, 24)
    })
}
