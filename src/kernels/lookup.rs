//! Functions of one 8-bit element: tables, and the arithmetic that replaces most of them.

use super::affine::{self, Affine, Point};
use super::emit::{self, Emitter};
use super::lanes::{self, Splat};
use super::lowered::{Lowered, LoweredOperand};
use super::overlap;
use super::span::copy_bytes;
use super::{Parameter, ParameterKind};
use crate::data::{Bytes, Contents, Layout, Scalar};
use crate::error::{Error, Result};
use crate::graph::{DType, Graph, OpId, UnaryOp, evaluate, quant};
use crate::target::Target;
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// `out[i] = table[in[i] + 128]`.
///
/// # Errors
/// An internal one if the table is not 256 constant bytes.
pub fn lookup(graph: &Graph, op: OpId, target: &Target) -> Result<Lowered> {
    let inputs = &graph.op(op).inputs;
    let table = graph.tensor(inputs[1]);
    let data = table.data.as_ref().filter(|data| data.len() == 256);
    let data = data.ok_or_else(|| Error::internal(format!("the table {} is not 256 constants", table.describe())))?;
    let map = Map {
        from: DType::I8,
        to: DType::I8,
        results: data.as_slice().iter().map(|byte| i32::from(*byte as i8)).collect(),
    };
    Ok(map.lower(graph, op, target, LoweredOperand::Tensor(inputs[1]), "lookup"))
}

/// An int8 function that the passes have left as it is; `None` if a tensor is not quantized.
pub fn unary(graph: &Graph, op: OpId, target: &Target, kind: UnaryOp) -> Option<Lowered> {
    let (input, output) = (
        graph.tensor(graph.op(op).inputs[0]),
        graph.tensor(graph.op(op).output()),
    );
    let table = evaluate::unary_table(kind, input.quantization.as_ref()?, output.quantization.as_ref()?);
    let map = Map {
        from: DType::I8,
        to: DType::I8,
        results: table.iter().map(|y| i32::from(*y)).collect(),
    };
    let table = map.table(&output.name);
    Some(map.lower(graph, op, target, table, "lookup"))
}

/// An 8-bit type to another 8-bit type or quantization.
pub fn requantize(graph: &Graph, op: OpId, target: &Target) -> Lowered {
    let (input, output) = (
        graph.tensor(graph.op(op).inputs[0]),
        graph.tensor(graph.op(op).output()),
    );
    let (least, _) = quant::range(input.dtype);
    let results: Vec<i32> = (least..least + 256)
        .map(|q| evaluate::requantize(q, input, output))
        .collect();
    let map = Map {
        from: input.dtype,
        to: output.dtype,
        results,
    };
    let table = map.table(&output.name);
    map.lower(graph, op, target, table, "requantize")
}

/// A function of all 256 values of an 8-bit type, least first.
struct Map {
    from: DType,
    to: DType,
    results: Vec<i32>,
}

/// How a [`Map`] is computed.
enum Form {
    /// The bytes stay.
    Identity,
    /// The sign bit flips: another type, the same real values.
    Flip,
    /// A clamp of the bytes.
    Clamp(i32, i32),
    /// A multiply-add and shift.
    Affine(Affine),
    /// A table in memory.
    Table,
}

impl Map {
    fn form(&self, target: &Target) -> Form {
        let (min, max) = (self.min(), self.max());
        let (least, _) = quant::range(self.from);
        let points: Vec<Point> = (least..)
            .zip(&self.results)
            .map(|(x, result)| Point {
                x,
                y: 0,
                result: *result,
            })
            .collect();
        if points.iter().all(|p| p.x as u8 == p.result as u8) {
            Form::Identity
        } else if points.iter().all(|p| p.x as u8 ^ 0x80 == p.result as u8) {
            Form::Flip
        } else if !target.machine().simd128 {
            // A load beats the arithmetic.
            Form::Table
        } else if self.from == self.to && points.iter().all(|p| p.x.clamp(min, max) == p.result) {
            Form::Clamp(min, max)
        } else {
            affine::of_table(&points, (min, max)).map_or(Form::Table, Form::Affine)
        }
    }

    /// The results as a parameter for the tensor called `name`.
    fn table(&self, name: &str) -> LoweredOperand {
        let result = if self.to == DType::U8 { Scalar::U8 } else { Scalar::I8 };
        LoweredOperand::Parameter(Parameter {
            name: format!("{name}.table"),
            kind: ParameterKind::Table,
            tensors: vec![],
            align: 1,
            contents: Contents::Bytes(Bytes::from_vec(self.results.iter().map(|y| *y as u8).collect())).described(
                Layout::array(&[("input - least", self.results.len())], Layout::Scalar(result)),
            ),
        })
    }

    fn min(&self) -> i32 {
        self.results.iter().copied().min().unwrap_or(0)
    }

    fn max(&self) -> i32 {
        self.results.iter().copied().max().unwrap_or(0)
    }

    fn lower(&self, graph: &Graph, op: OpId, target: &Target, table: LoweredOperand, stem: &'static str) -> Lowered {
        let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
        let count = graph.tensor(output).shape.elements() as u64;
        let form = self.form(target);
        let mut operands = vec![LoweredOperand::Tensor(input), LoweredOperand::Tensor(output)];
        let schedule = match form {
            Form::Identity => "copy",
            Form::Flip => "flip x16",
            Form::Clamp(..) => "clamp x16",
            Form::Affine(_) => "affine x16",
            Form::Table => {
                operands.push(table);
                "table"
            }
        };
        let (from, to, clamp) = (self.from, self.to, (self.min(), self.max()));
        let built = emit::build(target, operands.len(), |e| {
            let (x, y) = (e.args[0], e.args[1]);
            let streams = [(x, 1), (y, 1)];
            match form {
                Form::Identity => copy_bytes(e, x, y, count, 1),
                Form::Flip => flip(e, streams, count),
                Form::Clamp(min, max) => limit(e, streams, count, from, (min, max)),
                Form::Affine(form) => {
                    let form = Loaded::new(e, &form);
                    e.sweep(count, &streams, lanes::BYTES, &mut |e, p, at, width| {
                        let x = e.load_bytes(from, p[0], at as i32, width);
                        let t: Vec<Value> = x.iter().map(|x| form.apply(e, *x)).collect();
                        e.store_narrow(&t, to, clamp, p[1], at as i32, width);
                    });
                }
                Form::Table => {
                    // The middle of the table for signed indices.
                    let (least, _) = quant::range(from);
                    let table = e.offset(e.args[2], i64::from(-least));
                    let pointer = e.pointer;
                    e.sweep(count, &streams, &[], &mut |e, p, at, _| {
                        let x = if from == DType::U8 {
                            e.b.ins().uload8(pointer, Emitter::flags(), p[0], at as i32)
                        } else {
                            e.b.ins().sload8(pointer, Emitter::flags(), p[0], at as i32)
                        };
                        let place = e.b.ins().iadd(table, x);
                        let y = e.load(types::I8, place, 0);
                        e.store(y, p[1], at as i32);
                    });
                }
            }
        });
        Lowered {
            built,
            stem,
            schedule: schedule.to_owned(),
            operands,
            scratch: None,
            // A plain copy may be done in large pieces.
            overlaps: match form {
                Form::Identity => vec![],
                _ => vec![overlap::elementwise(input, target)],
            },
        }
    }
}

/// The constants of an [`Affine`] on [32-bit products](affine::Lanes::Word) in registers.
pub struct Loaded {
    a: Splat,
    b: Splat,
    c: Splat,
    round: Splat,
    zero: Splat,
    form: Affine,
}

impl Loaded {
    /// Loads the constants.
    pub fn new(e: &mut Emitter, form: &Affine) -> Self {
        Loaded {
            a: e.spread_i32(form.a as i32),
            b: e.spread_i32(form.b as i32),
            c: e.spread_i32(form.c as i32),
            round: e.spread_i32(1 << form.shift.saturating_sub(1)),
            zero: e.spread_i32(form.ties_away.unwrap_or(0)),
            form: *form,
        }
    }

    /// The form of one operand on 32-bit lanes, before the clamp.
    pub fn apply(&self, e: &mut Emitter, x: Value) -> Value {
        let t = self.product(e, x);
        let c = self.c.like(e, x);
        let t = e.b.ins().iadd(t, c);
        self.finish(e, t)
    }

    /// `a x` on 32-bit lanes.
    pub fn product(&self, e: &mut Emitter, x: Value) -> Value {
        self.times(e, x, self.a, self.form.a)
    }

    /// `b y + c` on 32-bit lanes.
    pub fn partial(&self, e: &mut Emitter, y: Value) -> Value {
        let t = self.times(e, y, self.b, self.form.b);
        let c = self.c.like(e, y);
        e.b.ins().iadd(t, c)
    }

    /// The result before the clamp for `t = a x + b y + c`.
    pub fn finish(&self, e: &mut Emitter, mut t: Value) -> Value {
        let Some(zero) = self.form.ties_away else {
            return e.sar(t, self.form.shift);
        };
        let sign = e.sar(t, 31);
        t = e.b.ins().iadd(t, sign);
        let round = self.round.like(e, t);
        t = e.b.ins().iadd(t, round);
        t = e.sar(t, self.form.shift);
        if zero != 0 {
            let zero = self.zero.like(e, t);
            t = e.b.ins().iadd(t, zero);
        }
        t
    }

    /// Product with a constant; powers of two by a shift.
    fn times(&self, e: &mut Emitter, x: Value, factor: Splat, value: i64) -> Value {
        if value > 0 && value.count_ones() == 1 {
            return e.shl(x, value.trailing_zeros());
        }
        let factor = factor.like(e, x);
        e.b.ins().imul(x, factor)
    }
}

fn flip(e: &mut Emitter, streams: [(Value, i64); 2], count: u64) {
    let scalar = e.int(types::I8, 0x80);
    let sign = e.spread(types::I8X16, scalar);
    e.sweep(count, &streams, &[16], &mut |e, p, at, width| {
        let x = e.load(if width == 1 { types::I8 } else { types::I8X16 }, p[0], at as i32);
        let y = e.b.ins().bxor(x, sign.of(width));
        e.store(y, p[1], at as i32);
    });
}

fn limit(e: &mut Emitter, streams: [(Value, i64); 2], count: u64, dtype: DType, clamp: (i32, i32)) {
    e.sweep(count, &streams, &[16], &mut |e, p, at, width| {
        if width == 1 {
            let x = e.load_bytes(dtype, p[0], at as i32, 1);
            return e.store_narrow(&x, dtype, clamp, p[1], at as i32, 1);
        }
        let x = e.load(types::I8X16, p[0], at as i32);
        let x = e.limit(x, dtype, clamp);
        e.store(x, p[1], at as i32);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::OpKind;
    use crate::kernels::checks::{Random, check, check_on, compile, constant, graph, int8, tensor};

    fn table(count: usize, f: &dyn Fn(i32) -> i32) -> Graph {
        let table = (-128..128).map(|x| f(x).clamp(-128, 127) as u8).collect();
        let inputs = vec![int8(&[count], 1.0, 0), constant(int8(&[256], 1.0, 0), table)];
        graph(OpKind::Lookup, inputs, int8(&[count], 1.0, 0))
    }

    #[test]
    fn every_form_agrees_with_the_evaluator() {
        let mut random = Random::new(6);
        let forms: [(&str, &dyn Fn(i32) -> i32); 9] = [
            ("copy", &|x| x),
            ("clamp", &|x| x.max(-3)),
            ("clamp", &|x| x.clamp(-10, 90)),
            ("clamp", &|_| 17),
            ("affine", &|x| -x),
            ("affine", &|x| ((x + 128) as f32 * 0.71 - 128.0).round() as i32),
            ("affine", &|x| ((x - 3) as f32 * 2.3).round() as i32),
            ("table", &|x| x * x / 64 - 128),
            ("table", &|x| ((x as f32 / 50.0).tanh() * 128.0) as i32),
        ];
        for (name, f) in forms {
            for count in [1, 7, 8, 15, 16, 17, 33, 300] {
                let schedules = check(&table(count, f), &mut random);
                assert!(schedules[0].starts_with(name), "{name}: {}", schedules[0]);
            }
            let graph = table(256, f);
            check_on(&graph, &[(graph.inputs[0], (0..=255).collect())].into());
            assert!(compile(&graph) < 2000);
        }
    }

    #[test]
    fn requantization_agrees_with_the_evaluator() {
        for (from, to) in [
            (DType::U8, DType::I8),
            (DType::I8, DType::U8),
            (DType::I8, DType::I8),
            (DType::U8, DType::U8),
        ] {
            for (input, output) in [
                ((0.5, 128), (0.5, 0)),
                ((0.5, 0), (0.5, 0)),
                ((0.013, 7), (0.04, -90)),
                ((0.7, 100), (0.01, 5)),
                ((1.0, 0), (2.0, 0)),
            ] {
                let graph = graph(
                    OpKind::Quantize,
                    vec![tensor(from, &[256], Some(input))],
                    tensor(to, &[256], Some(output)),
                );
                check_on(&graph, &[(graph.inputs[0], (0..=255).collect())].into());
            }
        }
    }

    #[test]
    fn int8_functions_need_no_pass() {
        for kind in [
            UnaryOp::Relu,
            UnaryOp::Relu6,
            UnaryOp::ReluN1To1,
            UnaryOp::Logistic,
            UnaryOp::Tanh,
        ] {
            let output = match kind {
                UnaryOp::Logistic => int8(&[256], 1.0 / 256.0, -128),
                UnaryOp::Tanh => int8(&[256], 1.0 / 128.0, 0),
                _ => int8(&[256], 0.04, -100),
            };
            let graph = graph(OpKind::Unary { op: kind }, vec![int8(&[256], 0.05, -4)], output);
            check_on(&graph, &[(graph.inputs[0], (0..=255).collect())].into());
        }
    }
}
