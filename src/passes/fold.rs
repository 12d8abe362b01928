//! Computes operators whose operands are all constant.

use crate::data::Bytes;
use crate::error::{Code, Error, Result};
use crate::graph::evaluate::{Arithmetic, evaluate_op};
use crate::graph::{Graph, Op, OpId, OpKind};
use crate::limits;

use super::edit::remove_ops;

pub(super) fn run(graph: &mut Graph, arithmetic: Arithmetic) -> Result<()> {
    let mut folded = vec![false; graph.ops.len()];
    let mut left = limits::FOLD_WORK;
    for id in graph.op_ids() {
        let op = graph.op(id);
        // A copy is there because storage is needed, not a value.
        if matches!(op.kind, OpKind::Copy | OpKind::External(_)) {
            continue;
        }
        let operands: Option<Vec<&Bytes>> = op.inputs.iter().map(|id| graph.tensor(*id).data.as_ref()).collect();
        let work = work(graph, id);
        let Some(operands) = operands.filter(|_| work <= left) else {
            continue;
        };
        left -= work;
        let output = op.output();
        let data = match op.kind {
            // The same bytes: nothing is read or held.
            OpKind::Reshape => operands[0].clone(),
            _ => {
                let operands: Vec<&[u8]> = operands.into_iter().map(Bytes::as_slice).collect();
                let results = evaluate_op(graph, op, &operands, arithmetic)?;
                let result = results.into_iter().next();
                Bytes::from_vec(result.ok_or_else(|| Error::internal("an operator without a result"))?)
            }
        };
        graph.tensors[output.index()].data = Some(data);
        folded[id.index()] = true;
    }
    remove_ops(graph, &folded);
    let unfolded = graph.ops.iter().filter_map(|op| computed_weights(graph, op));
    Error::collect(unfolded.collect()).map_or(Ok(()), Err)
}

/// Upper bound of the elementary steps that an operator takes; none for a view.
fn work(graph: &Graph, id: OpId) -> u64 {
    let op = graph.op(id);
    if op.kind == OpKind::Reshape {
        return 0;
    }
    let elements = |id: &crate::graph::TensorId| graph.tensor(*id).shape.elements() as u64;
    let results: u64 = op.outputs.iter().map(elements).sum();
    let window = match &op.kind {
        OpKind::Pool2d { window, .. } => (window.size[0] * window.size[1]) as u64,
        _ => 1,
    };
    let operands = op.inputs.iter().map(elements).sum::<u64>();
    graph.macs(id).max(results.saturating_mul(window)).max(operands)
}

/// The verifier allows filters that are computed from constants; kernels need the constants themselves.
fn computed_weights(graph: &Graph, op: &Op) -> Option<Error> {
    if !matches!(op.kind, OpKind::Conv2d { .. } | OpKind::DepthwiseConv2d { .. }) {
        return None;
    }
    let computed = op.inputs[1..].iter().find(|id| graph.tensor(**id).data.is_none())?;
    let message = format!(
        "{} is computed from constants, but that takes more than the {} steps that may be spent",
        graph.tensor(*computed).describe(),
        limits::FOLD_WORK
    );
    Some(
        Error::new(Code::Limit, message)
            .at(op.describe())
            .help("store the weights as a constant in the model"),
    )
}
