//! Moving elements without changing them: copy, concatenation, padding, transpose.

use super::emit::{self, Emitter};
use super::lanes::nest;
use super::lowered::{Lowered, LoweredOperand};
use super::span::{copy_bytes, fill_bytes, piece};
use crate::graph::{Graph, OpId};
use crate::target::Target;
use cranelift_codegen::ir::Value;

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
        overlaps: vec![],
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
            e.counted(outer as u64, &[(e.args[i], bytes), (to, stride)], &[], |e, p, _| {
                copy_bytes(e, p[0], p[1], elements as u64, unit);
                vec![]
            });
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
        overlaps: vec![],
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
        overlaps: vec![],
    }
}

/// A row of the result of constant padding that nothing of the input is in.
pub fn pad_row(graph: &Graph, op: OpId, target: &Target, value: u64) -> Lowered {
    let output = graph.op(op).output();
    let tensor = graph.tensor(output);
    let unit = tensor.dtype.bytes();
    let elements: usize = tensor.shape.0[2..].iter().product();
    let built = emit::build(target, 1, |e| {
        let to = e.args[0];
        fill_bytes(e, to, elements as u64, unit, value);
    });
    Lowered {
        built,
        stem: "pad_row",
        schedule: "a constant".to_owned(),
        operands: vec![LoweredOperand::Row(output)],
        scratch: None,
        overlaps: vec![],
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

/// A transpose: contiguous spans where the innermost dimension stays innermost, else element by element.
pub fn transpose(graph: &Graph, op: OpId, target: &Target, permutation: &[usize]) -> Lowered {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let tensor = graph.tensor(input);
    let unit = tensor.dtype.bytes();
    let loops = loops(&tensor.shape.0, permutation);
    // Without any loop there is one element, next to itself.
    let (inner, outer) = loops
        .split_last()
        .map_or((Loop::ONE, &[][..]), |(l, outer)| (*l, outer));
    let bytes = |elements: usize| (elements * unit) as i64;
    let outer: Vec<(u64, Vec<i64>)> = outer
        .iter()
        .map(|l| (l.count as u64, vec![bytes(l.from), bytes(l.to)]))
        .collect();
    let built = emit::build(target, 2, |e| {
        let pointers = e.args.clone();
        nest(e, &outer, &pointers, &mut |e, p| {
            if inner.from == 1 {
                return copy_bytes(e, p[0], p[1], inner.count as u64, unit);
            }
            // Stores are contiguous, loads are not: one element at a time.
            let streams = [(p[0], bytes(inner.from)), (p[1], bytes(inner.to))];
            e.sweep(inner.count as u64, &streams, &[], &mut |e, p, at, _| {
                let (from, offset) = e.near(p[0], at * bytes(inner.from));
                let x = e.load(piece(unit), from, offset);
                e.store(x, p[1], (at * bytes(inner.to)) as i32);
            });
        });
    });
    let schedule = match inner.from {
        1 => format!("spans of {}", inner.count),
        _ => format!("gathers of {}", inner.count),
    };
    Lowered {
        built,
        stem: "transpose",
        schedule,
        operands: vec![LoweredOperand::Tensor(input), LoweredOperand::Tensor(output)],
        scratch: None,
        overlaps: vec![],
    }
}

/// A loop of a transpose: its trip count, and how many elements it moves on in the input and in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loop {
    count: usize,
    from: usize,
    to: usize,
}

impl Loop {
    const ONE: Loop = Loop {
        count: 1,
        from: 1,
        to: 1,
    };
}

/// The loops over the output, outermost first. Dimensions of one element have none, and those that stay neighbours
/// share one.
fn loops(dims: &[usize], permutation: &[usize]) -> Vec<Loop> {
    let step = |axis: usize| dims[axis + 1..].iter().product::<usize>();
    let mut loops: Vec<Loop> = Vec::new();
    for &axis in permutation.iter().filter(|axis| dims[**axis] != 1) {
        let (count, from) = (dims[axis], step(axis));
        match loops.last_mut() {
            Some(outer) if outer.from == count * from => {
                outer.count *= count;
                outer.from = from;
            }
            _ => loops.push(Loop { count, from, to: 1 }),
        }
    }
    let mut to = 1;
    for l in loops.iter_mut().rev() {
        l.to = to;
        to *= l.count;
    }
    loops
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

    use crate::graph::{DType, OpKind};
    use crate::kernels::checks::{Random, check, compile, constant, graph, tensor};

    const TYPES: [DType; 5] = [DType::I8, DType::I16, DType::F32, DType::I64, DType::Bool];

    #[test]
    fn copies() {
        let mut random = Random::new(7);
        for dtype in TYPES {
            for n in [0, 1, 2, 3, 5, 8, 15, 16, 17, 31, 64, 65, 1000] {
                let t = || tensor(dtype, &[n], None);
                check(&graph(OpKind::Copy, vec![t()], t()), &mut random);
            }
        }
    }

    #[test]
    fn concatenations() {
        let mut random = Random::new(8);
        for dtype in TYPES {
            for axis in 0..3 {
                for sizes in [vec![3], vec![1, 2], vec![5, 1, 17], vec![4, 4, 4, 33]] {
                    let dims = |n: usize| {
                        let mut dims = [2, 3, 5];
                        dims[axis] = n;
                        dims
                    };
                    let mut inputs: Vec<_> = sizes.iter().map(|n| tensor(dtype, &dims(*n), None)).collect();
                    if axis == 1 {
                        let bytes = random.fill(&inputs[0]);
                        inputs[0] = constant(inputs[0].clone(), bytes);
                    }
                    let output = tensor(dtype, &dims(sizes.iter().sum()), None);
                    let graph = graph(OpKind::Concat { axis }, inputs, output);
                    check(&graph, &mut random);
                }
            }
        }
    }

    #[test]
    fn an_operand_may_repeat() {
        let mut graph = graph(
            OpKind::Concat { axis: 0 },
            vec![tensor(DType::I8, &[5], None)],
            tensor(DType::I8, &[10], None),
        );
        graph.ops[0].inputs = vec![graph.inputs[0]; 2];
        check(&graph, &mut Random::new(9));
    }

    #[test]
    fn paddings() {
        let mut random = Random::new(10);
        let cases: [(&[usize], &[[usize; 2]]); 8] = [
            (&[], &[]),
            (&[3], &[[0, 0]]),
            (&[3], &[[2, 5]]),
            (&[2, 3, 4], &[[0, 0], [1, 1], [0, 0]]),
            (&[1, 5, 7, 3], &[[0, 0], [1, 2], [3, 0], [0, 0]]),
            (&[2, 3, 4, 17], &[[1, 0], [0, 1], [2, 2], [3, 20]]),
            (
                &[2, 2, 2, 2, 2, 2, 2, 2],
                &[[0, 1], [1, 0], [0, 0], [1, 1], [0, 0], [0, 0], [2, 0], [0, 3]],
            ),
            (&[0, 3], &[[1, 1], [0, 2]]),
        ];
        for dtype in TYPES {
            for (dims, amounts) in cases {
                let output: Vec<usize> = dims.iter().zip(amounts).map(|(n, [a, b])| a + n + b).collect();
                let mask = if dtype == DType::I64 {
                    u64::MAX
                } else {
                    (1 << (8 * dtype.bytes())) - 1
                };
                let kind = OpKind::Pad {
                    amounts: amounts.to_vec(),
                    value: 0x8182_8384_8586_8788 & mask,
                };
                let graph = graph(kind, vec![tensor(dtype, dims, None)], tensor(dtype, &output, None));
                check(&graph, &mut random);
            }
        }
    }

    #[test]
    fn loops_of_transposes_collapse() {
        let of = |dims: &[usize], permutation: &[usize]| -> Vec<[usize; 3]> {
            let loops = loops(dims, permutation).into_iter();
            loops.map(|l| [l.count, l.from, l.to]).collect()
        };
        assert_eq!(of(&[], &[]), [[0; 3]; 0]);
        assert_eq!(of(&[1, 1], &[1, 0]), [[0; 3]; 0]);
        assert_eq!(of(&[2, 3, 4], &[0, 1, 2]), [[24, 1, 1]]);
        assert_eq!(of(&[5, 7], &[1, 0]), [[7, 1, 5], [5, 7, 1]]);
        // Neighbours stay so over a dimension of one element.
        assert_eq!(of(&[1, 3, 1, 4, 5], &[4, 1, 2, 3, 0]), [[5, 1, 12], [12, 5, 1]]);
        assert_eq!(of(&[2, 3, 4, 5], &[1, 0, 2, 3]), [[3, 20, 40], [2, 60, 20], [20, 1, 1]]);
        assert_eq!(
            of(&[2, 3, 4, 5], &[0, 2, 1, 3]),
            [[2, 60, 60], [4, 5, 15], [3, 20, 5], [5, 1, 1]]
        );
    }

    #[test]
    fn transposes() {
        let mut random = Random::new(11);
        let cases: [(&[usize], &[usize]); 12] = [
            (&[], &[]),
            (&[1, 1], &[1, 0]),
            (&[2, 3, 4], &[0, 1, 2]),
            (&[5, 7], &[1, 0]),
            (&[33, 3], &[1, 0]),
            (&[3, 70], &[1, 0]),
            (&[1, 5, 4], &[0, 2, 1]),
            (&[4, 3, 17], &[1, 0, 2]),
            (&[2, 3, 40], &[1, 0, 2]),
            (&[2, 3, 4, 5], &[3, 2, 1, 0]),
            (&[1, 3, 4, 5], &[0, 3, 1, 2]),
            (&[2, 3, 2, 1, 2, 3, 2, 2], &[7, 1, 0, 3, 6, 2, 5, 4]),
        ];
        for dtype in TYPES {
            for (dims, permutation) in cases {
                let output: Vec<usize> = permutation.iter().map(|axis| dims[*axis]).collect();
                let kind = OpKind::Transpose {
                    permutation: permutation.to_vec(),
                };
                let graph = graph(kind, vec![tensor(dtype, dims, None)], tensor(dtype, &output, None));
                check(&graph, &mut random);
            }
        }
    }

    #[test]
    fn code_exists_for_every_target() {
        for dtype in TYPES {
            let kind = OpKind::Pad {
                amounts: vec![[0, 0], [1, 1], [1, 1], [0, 5]],
                value: 0x80,
            };
            let graph = graph(
                kind,
                vec![tensor(dtype, &[1, 5, 5, 40], None)],
                tensor(dtype, &[1, 7, 7, 45], None),
            );
            assert!(compile(&graph) < 3000);
        }
    }
}
