//! Lets an operator apply the activation function that follows it.
//!
//! Exact: the result is clamped once instead of twice. For int8 both tensors have to be quantized alike, then the
//! stand-alone function multiplies by one.

use super::edit::{Uses, remove_ops};
use crate::error::Result;
use crate::graph::evaluate::Arithmetic;
use crate::graph::{Activation, Graph, OpId, OpKind, UnaryOp};

pub(super) fn run(graph: &mut Graph, _: Arithmetic) -> Result<()> {
    let mut uses = Uses::new(graph);
    let mut absorbed = vec![false; graph.ops.len()];
    for id in graph.op_ids() {
        let Some((producer, activation)) = fusion(graph, &uses, id) else {
            continue;
        };
        let result = graph.op(id).output();
        let op = &mut graph.ops[producer.index()];
        if let Some(own) = activation_mut(&mut op.kind) {
            *own = activation;
            op.outputs = vec![result];
            uses.producers[result.index()] = Some(producer);
            absorbed[id.index()] = true;
        }
    }
    remove_ops(graph, &absorbed);
    Ok(())
}

/// The operator that can take over activation function `id`, and its activation then.
fn fusion(graph: &Graph, uses: &Uses, id: OpId) -> Option<(OpId, Activation)> {
    let op = graph.op(id);
    let activation = match op.kind {
        OpKind::Unary { op: UnaryOp::Relu } => Activation::Relu,
        OpKind::Unary { op: UnaryOp::Relu6 } => Activation::Relu6,
        OpKind::Unary { op: UnaryOp::ReluN1To1 } => Activation::ReluN1To1,
        _ => return None,
    };
    let producer = uses.private_producer(op.inputs[0], id)?;
    if graph.tensor(op.inputs[0]).quantization != graph.tensor(op.output()).quantization {
        return None;
    }
    let own = *activation_mut(&mut graph.op(producer).kind.clone())?;
    let both = match (own, activation) {
        (Activation::None, activation) => activation,
        (own, activation) if own == activation => own,
        (Activation::Relu, Activation::Relu6) | (Activation::Relu6, Activation::Relu) => Activation::Relu6,
        _ => return None,
    };
    Some((producer, both))
}

fn activation_mut(kind: &mut OpKind) -> Option<&mut Activation> {
    match kind {
        OpKind::Conv2d { activation, .. }
        | OpKind::DepthwiseConv2d { activation, .. }
        | OpKind::FullyConnected { activation }
        | OpKind::Pool2d { activation, .. }
        | OpKind::Binary { activation, .. } => Some(activation),
        _ => None,
    }
}
