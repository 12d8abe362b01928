//! Moving elements without changing them: copy, concatenation, padding.

use super::emit::{self, Emitter};
use super::lowered::{Lowered, LoweredOperand};
use crate::graph::{Graph, OpId};
use crate::target::Target;
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};

/// The integer of `bytes` bytes, or the vector of 16.
fn piece(bytes: usize) -> Type {
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

/// Copies `count` elements of `unit` bytes. Targets without vectors may not allow unaligned accesses, so there every
/// element is copied by itself.
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
    let vector = e.splat(types::I64X2, word);
    e.sweep(count, &[(to, unit as i64)], &widths(unit), &mut |e, p, at, width| {
        let x = match width * unit {
            16 => vector.of(width),
            8 => word,
            bytes => e.int(piece(bytes), pattern as i64),
        };
        e.store(x, p[0], at as i32 * unit as i32);
    });
}

/// A copy of the elements.
pub fn copy(graph: &Graph, op: OpId, target: &Target) -> Lowered {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let tensor = graph.tensor(output);
    let built = emit::build(target, 2, |e| {
        let (from, to) = (e.args[0], e.args[1]);
        copy_bytes(e, from, to, tensor.shape.elements() as u64, tensor.dtype.bytes());
    });
    Lowered {
        built,
        stem: "copy",
        schedule: "copy".to_owned(),
        operands: vec![LoweredOperand::Tensor(input), LoweredOperand::Tensor(output)],
        scratch: None,
    }
}

/// Concatenation along `axis`: each input's rows into their column of the output.
pub fn concat(graph: &Graph, op: OpId, target: &Target, axis: usize) -> Lowered {
    let inputs = &graph.op(op).inputs;
    let output = graph.op(op).output();
    let tensor = graph.tensor(output);
    let unit = tensor.dtype.bytes();
    let row = |dims: &[usize]| dims[axis..].iter().product::<usize>();
    let outer: usize = tensor.shape.0[..axis].iter().product();
    let stride = (row(&tensor.shape.0) * unit) as i64;
    let built = emit::build(target, inputs.len() + 1, |e| {
        let mut column = 0;
        for (i, input) in inputs.iter().enumerate() {
            let elements = row(&graph.tensor(*input).shape.0);
            let bytes = (elements * unit) as i64;
            let to = e.offset(e.args[inputs.len()], column);
            e.counted(
                outer as u64,
                &[(e.args[i], bytes), (to, stride)],
                &[],
                |e, p, _| {
                    copy_bytes(e, p[0], p[1], elements as u64, unit);
                    vec![]
                },
            );
            column += bytes;
        }
    });
    let operands = inputs.iter().chain([&output]);
    Lowered {
        built,
        stem: "concat",
        schedule: format!("{outer} rows"),
        operands: operands.map(|id| LoweredOperand::Tensor(*id)).collect(),
        scratch: None,
    }
}

/// Constant padding.
pub fn pad(graph: &Graph, op: OpId, target: &Target, amounts: &[[usize; 2]], value: u64) -> Lowered {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let tensor = graph.tensor(input);
    let unit = tensor.dtype.bytes();
    let levels = levels(&tensor.shape.0, amounts);
    let built = emit::build(target, 2, |e| {
        let (from, to) = (e.args[0], e.args[1]);
        pad_levels(e, &levels, from, to, unit, value);
    });
    Lowered {
        built,
        stem: "pad",
        schedule: format!("{} levels", levels.len()),
        operands: vec![LoweredOperand::Tensor(input), LoweredOperand::Tensor(output)],
        scratch: None,
    }
}

/// A dimension with padding; inner dimensions without any are folded into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    count: usize,
    before: usize,
    after: usize,
}

fn levels(dims: &[usize], amounts: &[[usize; 2]]) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::new();
    for (count, [before, after]) in dims.iter().zip(amounts) {
        match levels.last_mut() {
            Some(outer) if *before == 0 && *after == 0 => {
                outer.count *= count;
                outer.before *= count;
                outer.after *= count;
            }
            _ => levels.push(Level {
                count: *count,
                before: *before,
                after: *after,
            }),
        }
    }
    levels
}

fn pad_levels(e: &mut Emitter, levels: &[Level], from: Value, to: Value, unit: usize, value: u64) {
    // Recursion as deep as a tensor has dimensions.
    let Some((level, inner)) = levels.split_first() else {
        return copy_bytes(e, from, to, 1, unit);
    };
    let row: usize = inner.iter().map(|l| l.before + l.count + l.after).product();
    let bytes = |n: usize| (n * row * unit) as i64;
    fill_bytes(e, to, (level.before * row) as u64, unit, value);
    let to = e.offset(to, bytes(level.before));
    if inner.is_empty() {
        copy_bytes(e, from, to, level.count as u64, unit);
    } else {
        let taken: usize = inner.iter().map(|l| l.count).product();
        let pointers = [(from, (taken * unit) as i64), (to, bytes(1))];
        e.counted(level.count as u64, &pointers, &[], |e, p, _| {
            pad_levels(e, inner, p[0], p[1], unit, value);
            vec![]
        });
    }
    let to = e.offset(to, bytes(level.count));
    fill_bytes(e, to, (level.after * row) as u64, unit, value);
}


#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_dimensions_without_padding_fold() {
        let level = |count, before, after| Level { count, before, after };
        assert_eq!(
            levels(&[2, 3, 4, 5], &[[0, 0], [0, 0], [1, 2], [0, 0]]),
            [level(6, 0, 0), level(20, 5, 10)]
        );
        assert_eq!(levels(&[7], &[[0, 0]]), [level(7, 0, 0)]);
        assert_eq!(levels(&[2, 2], &[[0, 1], [1, 0]]), [level(2, 0, 1), level(2, 1, 0)]);
        assert_eq!(levels(&[], &[]), []);
    }
}
