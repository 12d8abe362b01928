//! Spans of bytes: what moves, and maps that change nothing, copy and fill.

use super::emit::Emitter;
use cranelift_codegen::ir::{Type, Value, types};

/// The integer of `bytes` bytes, or the vector of 16.
pub(super) fn piece(bytes: usize) -> Type {
    match bytes {
        1 => types::I8,
        2 => types::I16,
        4 => types::I32,
        8 => types::I64,
        _ => types::I8X16,
    }
}

/// Widths of a step, in elements of `unit` bytes.
fn widths(unit: usize) -> Vec<usize> {
    [16, 8, 4, 2]
        .into_iter()
        .map(|bytes| bytes / unit)
        .filter(|n| *n > 1)
        .collect()
}

/// Copies `count` elements of `unit` bytes. No alignment is known: targets without vectors, most of which want it, copy
/// every element by itself.
pub fn copy_bytes(e: &mut Emitter, from: Value, to: Value, count: u64, unit: usize) {
    let streams = [(from, unit as i64), (to, unit as i64)];
    e.sweep(count, &streams, &widths(unit), &mut |e, p, at, width| {
        let at = at as i32 * unit as i32;
        let x = e.load(piece(width * unit), p[0], at);
        e.store(x, p[1], at);
    });
}

/// Stores `count` elements of `unit` bytes with the bits `value`.
pub fn fill_bytes(e: &mut Emitter, to: Value, count: u64, unit: usize, value: u64) {
    if count == 0 {
        return;
    }
    let mut pattern = value;
    let mut bits = 8 * unit as u32;
    while bits < 64 {
        pattern = pattern & ((1 << bits) - 1) | pattern << bits;
        bits *= 2;
    }
    let word = e.int(types::I64, pattern as i64);
    let vector = e.spread(types::I64X2, word);
    e.sweep(count, &[(to, unit as i64)], &widths(unit), &mut |e, p, at, width| {
        let x = match width * unit {
            16 => vector.of(width),
            8 => word,
            bytes => e.int(piece(bytes), pattern as i64),
        };
        e.store(x, p[0], at as i32 * unit as i32);
    });
}
