//! Drops operators and tensors that no model output depends on, and numbers the tensors that are left without gaps.
//! Model inputs stay: they are part of the interface.

use crate::error::Result;
use crate::graph::evaluate::Arithmetic;
use crate::graph::{Graph, TensorId};

pub(super) fn run(graph: &mut Graph, _: Arithmetic) -> Result<()> {
    let mut live = vec![false; graph.tensors.len()];
    for id in &graph.outputs {
        live[id.index()] = true;
    }
    let mut keep = vec![false; graph.ops.len()];
    for (op, keep) in graph.ops.iter().zip(&mut keep).rev() {
        *keep = op.outputs.iter().any(|id| live[id.index()]);
        if *keep {
            for id in op.inputs.iter().chain(&op.outputs) {
                live[id.index()] = true;
            }
        }
    }
    for id in &graph.inputs {
        live[id.index()] = true;
    }
    let mut kept = keep.iter();
    graph.ops.retain(|_| kept.next() == Some(&true));

    let mut next = 0;
    let renumbered: Vec<TensorId> = live
        .iter()
        .map(|live| {
            let id = TensorId(next);
            next += u32::from(*live);
            id
        })
        .collect();
    let mut kept = live.iter();
    graph.tensors.retain(|_| kept.next() == Some(&true));
    let operands = graph
        .ops
        .iter_mut()
        .flat_map(|op| op.inputs.iter_mut().chain(&mut op.outputs));
    for id in operands.chain(&mut graph.inputs).chain(&mut graph.outputs) {
        *id = renumbered[id.index()];
    }
    Ok(())
}
