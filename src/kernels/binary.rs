//! Sums, differences and products with broadcasting.
//!
//! Dimensions along which both operands move alike are joined, so that most shapes become one run of elements, or runs
//! against one element.

use super::binary_form::Form;
use super::binary_int8::{Fixed, Ready};
use super::emit::{self, Emitter};
use super::lanes::{self, Clamp, Splat, nest};
use super::lowered::{Lowered, LoweredOperand, Operands};
use super::overlap;
use crate::error::{Error, Result};
use crate::graph::quant::activation_range;
use crate::graph::{Activation, BinaryOp, DType, Graph, OpId, TensorId};
use crate::target::Target;
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// Elementwise operator with two operands.
///
/// # Errors
/// Where the element types have no kernel.
pub fn binary(graph: &Graph, op: OpId, target: &Target, kind: BinaryOp, activation: Activation) -> Result<Lowered> {
    let (inputs, output) = (&graph.op(op).inputs, graph.op(op).output());
    let (a, b, y) = (graph.tensor(inputs[0]), graph.tensor(inputs[1]), graph.tensor(output));
    let dims = join(&y.shape.0, &a.shape.0, &b.shape.0);
    let walk = Walk::new(&dims, y.dtype.bytes() as i64);
    let (built, form) = match y.dtype {
        DType::F32 => {
            let built = emit::build(target, 3, |e| {
                let clamp = Clamp::new(e, activation);
                walk.floats(e, &|e, a, b| {
                    let y = match kind {
                        BinaryOp::Add => e.b.ins().fadd(a, b),
                        BinaryOp::Sub => e.b.ins().fsub(a, b),
                        BinaryOp::Mul => e.b.ins().fmul(a, b),
                    };
                    clamp.emit(e, y)
                });
            });
            (built, "float")
        }
        DType::I8 => {
            let range = y
                .quantization
                .as_ref()
                .map_or((-128, 127), |q| activation_range(activation, DType::I8, q));
            let form = Form::new(target, a, b, y, kind, range);
            let built = emit::build(target, 3, |e| {
                let form = Ready::new(e, &form);
                walk.bytes(e, range, &form);
            });
            (built, form.name())
        }
        other => {
            return Err(Error::unsupported(format!(
                "{kind:?} of {} elements is not implemented",
                other.name()
            )));
        }
    };
    let widest = if y.dtype == DType::I8 { 16 } else { 4 };
    let Operands {
        operands,
        scratch,
        overlaps,
    } = operands(graph, op, target);
    Ok(Lowered {
        built,
        stem: match kind {
            BinaryOp::Add => "add",
            BinaryOp::Sub => "sub",
            BinaryOp::Mul => "mul",
        },
        schedule: format!("{form} {}", lanes::name(target, widest)),
        operands,
        scratch,
        overlaps,
    })
}

/// What the pointers of [`binary`]'s kernel point at.
pub fn operands(graph: &Graph, op: OpId, target: &Target) -> Operands {
    let op = graph.op(op);
    let elements = |id: TensorId| graph.tensor(id).shape.elements();
    let whole = op.inputs.iter().filter(|id| elements(**id) == elements(op.output()));
    Operands {
        operands: [op.inputs[0], op.inputs[1], op.output()]
            .map(LoweredOperand::Tensor)
            .into(),
        scratch: None,
        overlaps: whole.map(|id| overlap::elementwise(*id, target)).collect(),
    }
}

/// A joined dimension of the output and which operands move along it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dim {
    size: usize,
    moves: [bool; 2],
}

/// The dimensions of `output`, those of the same kind joined, those of size 1 dropped.
fn join(output: &[usize], a: &[usize], b: &[usize]) -> Vec<Dim> {
    let size = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(output.len()).map_or(1, |i| dims[i]);
    let mut joined: Vec<Dim> = Vec::new();
    for (i, &out) in output.iter().enumerate().filter(|(_, out)| **out != 1) {
        let moves = [size(a, i) == out, size(b, i) == out];
        match joined.last_mut() {
            Some(dim) if dim.moves == moves => dim.size *= out,
            _ => joined.push(Dim { size: out, moves }),
        }
    }
    joined
}

/// Loops over the outer joined dimensions and a run along the innermost.
struct Walk {
    outer: Vec<(u64, Vec<i64>)>,
    inner: Dim,
    unit: i64,
}

impl Walk {
    fn new(dims: &[Dim], unit: i64) -> Self {
        let mut strides = [unit; 3];
        let mut all = Vec::new();
        for dim in dims.iter().rev() {
            let moves = [dim.moves[0], dim.moves[1], true];
            let mut steps = vec![0; 3];
            for i in 0..3 {
                if moves[i] {
                    steps[i] = strides[i];
                    strides[i] *= dim.size as i64;
                }
            }
            all.push((dim.size as u64, steps));
        }
        let inner = dims.last().copied().unwrap_or(Dim {
            size: 1,
            moves: [true, true],
        });
        Walk {
            outer: all.into_iter().skip(1).rev().collect(),
            inner,
            unit,
        }
    }

    /// Runs `body(emitter, pointers)` for each run.
    fn runs(&self, e: &mut Emitter, body: &mut dyn FnMut(&mut Emitter, &[Value])) {
        let args = e.args.clone();
        nest(e, &self.outer, &args, body);
    }

    fn streams(&self, p: &[Value]) -> [(Value, i64); 3] {
        let step = |i: usize| if self.inner.moves[i] { self.unit } else { 0 };
        [(p[0], step(0)), (p[1], step(1)), (p[2], self.unit)]
    }

    /// binary32 elements.
    fn floats(&self, e: &mut Emitter, f: &dyn Fn(&mut Emitter, Value, Value) -> Value) {
        self.runs(e, &mut |e, p| {
            // The operand that stays is read once for each run.
            let fixed: Vec<Option<Splat>> = (0..2)
                .map(|i| {
                    (!self.inner.moves[i]).then(|| {
                        let scalar = e.load_f32(p[i], 0, 1);
                        e.spread(types::F32X4, scalar)
                    })
                })
                .collect();
            e.sweep(
                self.inner.size as u64,
                &self.streams(p),
                lanes::WORDS,
                &mut |e, p, at, width| {
                    let at = 4 * at as i32;
                    let load = |e: &mut Emitter, i: usize| match fixed[i] {
                        Some(splat) => splat.of(width),
                        None => e.load_f32(p[i], at, width),
                    };
                    let (a, b) = (load(e, 0), load(e, 1));
                    let y = f(e, a, b);
                    e.store(y, p[2], at);
                },
            );
        });
    }

    /// int8 elements.
    fn bytes(&self, e: &mut Emitter, range: (i32, i32), form: &Ready) {
        self.runs(e, &mut |e, p| {
            let fixed: Vec<Option<Fixed>> = (0..2)
                .map(|i| (!self.inner.moves[i]).then(|| form.fixed(e, i, p[i])))
                .collect();
            let mut streams = self.streams(p);
            let mut left = self.inner.size as u64;
            if matches!(form, Ready::Long16 { .. }) && self.inner.moves == [true, true] && left >= 4 {
                let unroll = if left.is_multiple_of(8) { 2 } else { 1 };
                let steps = streams.map(|(start, _)| (start, 4 * unroll as i64));
                let (_, ends) = e.counted(left / 4 / unroll, &steps, &[], |e, p, _| {
                    for first in (0..4 * unroll as i32).step_by(4) {
                        let results = form.four(e, [p[0], p[1]], first).into_iter().flatten();
                        for (i, result) in results.enumerate() {
                            e.store_narrow(&[result], DType::I8, range, p[2], first + i as i32, 1);
                        }
                    }
                    vec![]
                });
                streams = [0, 1, 2].map(|i| (ends[i], streams[i].1));
                left %= 4;
            }
            e.sweep_unrolled(
                form.unroll(e.target),
                left,
                &streams,
                lanes::BYTES,
                &mut |e, p, at, width| {
                    let at = at as i32;
                    let load = |e: &mut Emitter, i: usize| match fixed[i] {
                        Some(fixed) => fixed.of(width),
                        None => form.load(e, i, p[i], at, width),
                    };
                    let (a, b) = (load(e, 0), load(e, 1));
                    let y = form.join(e, &a, &b);
                    e.store_narrow(&y, DType::I8, range, p[2], at, width);
                },
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(output: &[usize], a: &[usize], b: &[usize]) -> Vec<(usize, [bool; 2])> {
        join(output, a, b)
            .into_iter()
            .map(|dim| (dim.size, dim.moves))
            .collect()
    }

    #[test]
    fn dimensions_of_the_same_kind_join() {
        let both = [true, true];
        assert_eq!(joined(&[2, 3, 4], &[2, 3, 4], &[2, 3, 4]), [(24, both)]);
        assert_eq!(joined(&[2, 3, 4], &[2, 3, 4], &[4]), [(6, [true, false]), (4, both)]);
        assert_eq!(
            joined(&[2, 3, 4], &[2, 1, 4], &[1, 3, 1]),
            [(2, [true, false]), (3, [false, true]), (4, [true, false])]
        );
        assert_eq!(joined(&[5, 6], &[], &[5, 6]), [(30, [false, true])]);
        assert_eq!(joined(&[1, 1], &[1], &[1, 1]), []);
    }

    use crate::graph::OpKind;
    use crate::kernels::checks::{Random, check, check_on, compile, constant, float, graph, int8};

    fn out(a: &[usize], b: &[usize]) -> Vec<usize> {
        let rank = a.len().max(b.len());
        let size = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
        (0..rank).map(|i| size(a, i).max(size(b, i))).collect()
    }

    const KINDS: [BinaryOp; 3] = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul];

    fn kind(op: BinaryOp, activation: Activation) -> OpKind {
        OpKind::Binary { op, activation }
    }

    #[test]
    fn shapes_agree_with_the_evaluator() {
        let mut random = Random::new(3);
        let shapes: [(&[usize], &[usize]); 14] = [
            (&[1], &[1]),
            (&[], &[]),
            (&[3], &[3]),
            (&[9], &[9]),
            (&[67], &[67]),
            (&[2, 5, 7], &[2, 5, 7]),
            (&[2, 3, 19], &[19]),
            (&[19], &[2, 3, 19]),
            (&[3, 33], &[1]),
            (&[1], &[3, 33]),
            (&[4, 1, 6], &[1, 5, 1]),
            (&[2, 3, 1], &[2, 3, 21]),
            (&[2, 1, 3, 1, 20], &[1, 4, 1, 5, 20]),
            (&[2, 1, 2, 1, 2, 1, 2, 1], &[1, 2, 1, 2, 1, 2, 1, 17]),
        ];
        for op in KINDS {
            for (a, b) in shapes {
                let y = out(a, b);
                check(
                    &graph(kind(op, Activation::Relu), vec![float(a), float(b)], float(&y)),
                    &mut random,
                );
                let inputs = vec![int8(a, 0.031, 5), int8(b, 0.0172, -20)];
                check(
                    &graph(kind(op, Activation::None), inputs, int8(&y, 0.04, 3)),
                    &mut random,
                );
            }
        }
    }

    #[test]
    fn constants_are_operands() {
        let mut random = Random::new(4);
        for op in KINDS {
            let table = (0..12).map(|i| (i * 21) as u8).collect();
            let inputs = vec![int8(&[3, 12], 0.02, 1), constant(int8(&[12], 0.01, -7), table)];
            check(
                &graph(kind(op, Activation::Relu), inputs, int8(&[3, 12], 0.03, 0)),
                &mut random,
            );
        }
    }

    /// All 65,536 pairs, each operand along its own dimension.
    fn all_pairs(op: BinaryOp, activation: Activation, scales: [f32; 3], zeros: [i32; 3]) -> Vec<String> {
        let graph = graph(
            kind(op, activation),
            vec![
                int8(&[256, 1], scales[0], zeros[0]),
                int8(&[1, 256], scales[1], zeros[1]),
            ],
            int8(&[256, 256], scales[2], zeros[2]),
        );
        let all: Vec<u8> = (0..=255).collect();
        check_on(&graph, &graph.inputs.iter().map(|id| (*id, all.clone())).collect())
    }

    #[test]
    fn all_pairs_agree_with_the_evaluator() {
        let mut random = Random::new(5);
        let mut affine = 0;
        for op in KINDS {
            for i in 0..8 {
                let mut unit = || random.word() as f32 / 2f32.powi(32) + 0.001;
                let scales = [unit(), unit(), unit()].map(|x| x * 0.1);
                // Products have a scale of their own.
                let scales = if op == BinaryOp::Mul {
                    [scales[0], scales[1], scales[2] * 2.0]
                } else {
                    scales
                };
                let zeros = std::array::from_fn(|_| (random.word() % 256) as i32 - 128);
                let activation = [
                    Activation::None,
                    Activation::Relu,
                    Activation::Relu6,
                    Activation::ReluN1To1,
                ][i % 4];
                let schedules = all_pairs(op, activation, scales, zeros);
                affine += usize::from(schedules[0].starts_with("affine"));
            }
        }
        assert!(affine >= 22, "{affine} of 24 proven");
    }

    #[test]
    fn nice_scales_agree_with_the_evaluator() {
        for op in KINDS {
            for (scales, zeros) in [
                ([1.0, 1.0, 1.0], [0, 0, 0]),
                ([0.5, 0.25, 1.0], [0, 0, 0]),
                ([0.5, 0.5, 1.0], [-128, 127, 3]),
                ([1.0, 1.0, 2.0], [7, -9, -128]),
                ([0.1, 0.1, 0.2], [0, 0, 0]),
                ([1.0, 0.001, 1.0], [0, 0, 0]),
                ([0.01, 0.01, 0.000_09], [1, 2, 3]),
                ([1.0, 1.0, 100.0], [-128, -128, -128]),
                ([0.1, 3.0, 0.05], [100, -100, 0]),
            ] {
                all_pairs(op, Activation::None, scales, zeros);
            }
        }
    }

    #[test]
    fn code_exists_for_every_target() {
        for op in KINDS {
            let inputs = vec![int8(&[8, 33], 0.02, 1), int8(&[33], 0.01, -7)];
            assert!(compile(&graph(kind(op, Activation::Relu), inputs, int8(&[8, 33], 0.03, 0))) < 4000);
            let inputs = vec![float(&[8, 33]), float(&[1])];
            assert!(compile(&graph(kind(op, Activation::Relu6), inputs, float(&[8, 33]))) < 2000);
        }
    }
}
