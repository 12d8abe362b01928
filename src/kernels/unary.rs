//! Functions of one binary32 element.

use super::emit::{self, Emitter};
use super::lanes::{self, Clamp};
use super::lowered::{Lowered, LoweredOperand};
use super::math::{Logistic, Tanh};
use super::overlap;
use crate::graph::{Activation, Graph, OpId, UnaryOp};
use crate::target::Target;
use cranelift_codegen::ir::Value;

/// An elementwise function on binary32.
pub fn unary(graph: &Graph, op: OpId, target: &Target, kind: UnaryOp) -> Lowered {
    let (input, output) = (graph.op(op).inputs[0], graph.op(op).output());
    let count = graph.tensor(output).shape.elements() as u64;
    let built = emit::build(target, 2, |e| match kind {
        UnaryOp::Relu => clamp(e, count, Activation::Relu),
        UnaryOp::Relu6 => clamp(e, count, Activation::Relu6),
        UnaryOp::ReluN1To1 => clamp(e, count, Activation::ReluN1To1),
        UnaryOp::Logistic => {
            let logistic = Logistic::new(e);
            map(e, count, |e, x| logistic.emit(e, x));
        }
        UnaryOp::Tanh => {
            let tanh = Tanh::new(e);
            map(e, count, |e, x| tanh.emit(e, x));
        }
    });
    Lowered {
        built,
        stem: match kind {
            UnaryOp::Relu | UnaryOp::Relu6 | UnaryOp::ReluN1To1 => "relu",
            UnaryOp::Logistic => "logistic",
            UnaryOp::Tanh => "tanh",
        },
        schedule: lanes::name(target, 4).to_owned(),
        operands: vec![LoweredOperand::Tensor(input), LoweredOperand::Tensor(output)],
        scratch: None,
        overlaps: vec![overlap::elementwise(input, target)],
    }
}

fn clamp(e: &mut Emitter, count: u64, activation: Activation) {
    let clamp = Clamp::new(e, activation);
    map(e, count, |e, x| clamp.emit(e, x));
}

fn map(e: &mut Emitter, count: u64, f: impl Fn(&mut Emitter, Value) -> Value) {
    let streams = [(e.args[0], 4), (e.args[1], 4)];
    e.sweep(count, &streams, lanes::WORDS, &mut |e, p, at, width| {
        let x = e.load_f32(p[0], 4 * at as i32, width);
        let y = f(e, x);
        e.store(y, p[1], 4 * at as i32);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::OpKind;
    use crate::kernels::checks::{Random, check, check_on, compile, float, graph};

    const KINDS: [UnaryOp; 5] = [
        UnaryOp::Relu,
        UnaryOp::Relu6,
        UnaryOp::ReluN1To1,
        UnaryOp::Logistic,
        UnaryOp::Tanh,
    ];

    #[test]
    fn all_sizes_agree_with_the_evaluator() {
        let mut random = Random::new(12);
        for op in KINDS {
            for n in [1, 2, 3, 4, 5, 8, 15, 64, 129] {
                check(
                    &graph(OpKind::Unary { op }, vec![float(&[n])], float(&[n])),
                    &mut random,
                );
            }
            assert!(compile(&graph(OpKind::Unary { op }, vec![float(&[100])], float(&[100]))) < 4000);
        }
    }

    #[test]
    fn all_magnitudes_agree_with_the_evaluator() {
        let values: Vec<u32> = (0..=u32::MAX).step_by(262_139).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        for op in KINDS {
            let graph = graph(
                OpKind::Unary { op },
                vec![float(&[values.len()])],
                float(&[values.len()]),
            );
            check_on(&graph, &[(graph.inputs[0], bytes.clone())].into());
        }
    }
}
