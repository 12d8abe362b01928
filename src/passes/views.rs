//! Collapses reshapes, and inserts copies so that every model output has storage of its own that an operator writes.
//!
//! A reshape has no code: its result is its operand's storage. So a model output that is a model input or a constant,
//! or that shares its storage with another output, needs a copy.

use super::edit::rewrite;
use crate::error::Result;
use crate::graph::evaluate::Arithmetic;
use crate::graph::{Graph, Op, OpId, OpKind, Tensor, TensorId};

pub(super) fn run(graph: &mut Graph, _: Arithmetic) -> Result<()> {
    collapse(graph)?;
    let mut producers = graph.producers();
    let mut claimed = vec![false; graph.tensors.len()];
    for index in 0..graph.outputs.len() {
        let output = graph.outputs[index];
        let mut storage = root(graph, &producers, output);
        if producers[storage.index()].is_none() || claimed[storage.index()] {
            copy(graph, index, producers[output.index()]);
            producers = graph.producers();
            claimed.resize(graph.tensors.len(), false);
            storage = root(graph, &producers, graph.outputs[index]);
        }
        claimed[storage.index()] = true;
    }
    Ok(())
}

/// The tensor whose storage `id` is: behind all reshapes.
fn root(graph: &Graph, producers: &[Option<OpId>], mut id: TensorId) -> TensorId {
    while let Some(op) = producers[id.index()]
        .map(|op| graph.op(op))
        .filter(|op| op.kind == OpKind::Reshape)
    {
        id = op.inputs[0];
    }
    id
}

/// Reshapes read what is not a reshape, and those that change nothing disappear.
fn collapse(graph: &mut Graph) -> Result<()> {
    rewrite(graph, |rewriter, id| {
        let op = rewriter.graph.op(id);
        if op.kind != OpKind::Reshape {
            return Ok(());
        }
        let mut source = op.inputs[0];
        // Reshapes before this one are collapsed: one step is enough.
        if let Some(before) = rewriter.producer(source).filter(|op| op.kind == OpKind::Reshape) {
            source = before.inputs[0];
        }
        let (from, to) = (rewriter.graph.tensor(source), rewriter.graph.tensor(op.output()));
        if from.shape == to.shape && from.quantization == to.quantization {
            rewriter.forward(id, source);
        } else {
            rewriter.replace(id, OpKind::Reshape, vec![source]);
        }
        Ok(())
    })
}

/// Gives model output `index` storage of its own. `producer` is the operator that it comes from.
fn copy(graph: &mut Graph, index: usize, producer: Option<OpId>) {
    let output = graph.outputs[index];
    let twice = graph.outputs[..index].contains(&output);
    let reshape = producer.filter(|op| graph.op(*op).kind == OpKind::Reshape && !twice);
    let name = graph.tensor(output).name.clone();
    // Where a reshape makes the output, it reads a copy, and the output keeps its tensor. Anything else is copied at
    // the end.
    let source = reshape.map_or(output, |op| graph.op(op).inputs[0]);
    if let Some(reshape) = reshape
        && graph.tensor(source).shape == graph.tensor(output).shape
    {
        graph.ops[reshape.index()].kind = OpKind::Copy;
        return;
    }
    let copied = graph.add_tensor(Tensor {
        name: name.clone(),
        data: None,
        ..graph.tensor(source).clone()
    });
    let op = Op {
        name,
        source: producer.map_or(0, |op| graph.op(op).source),
        kind: OpKind::Copy,
        inputs: vec![source],
        outputs: vec![copied],
    };
    match reshape {
        Some(reshape) => {
            graph.ops[reshape.index()].inputs[0] = copied;
            graph.ops.insert(reshape.index(), op);
        }
        None => {
            graph.outputs[index] = copied;
            graph.ops.push(op);
        }
    }
}
