//! Makes one transpose of those that follow one another; one that moves no element becomes a view, or disappears.

use super::edit::{Rewriter, rewrite};
use crate::error::Result;
use crate::graph::evaluate::Arithmetic;
use crate::graph::{Graph, OpId, OpKind, TensorId};

pub(super) fn run(graph: &mut Graph, _: Arithmetic) -> Result<()> {
    rewrite(graph, |rewriter, id| {
        if let Some((permutation, source)) = composed(rewriter, id) {
            rewriter.replace(id, OpKind::Transpose { permutation }, vec![source]);
        }
        Ok(())
    })?;
    // Views last: one in between would keep two transposes apart.
    rewrite(graph, |rewriter, id| {
        let op = rewriter.graph.op(id);
        let (source, result) = (op.inputs.first().copied(), op.output());
        let (OpKind::Transpose { permutation }, Some(source)) = (&op.kind, source) else {
            return Ok(());
        };
        let (from, to) = (rewriter.graph.tensor(source), rewriter.graph.tensor(result));
        // Elements keep their order where the dimensions do that have more than one.
        let moving = permutation.iter().filter(|axis| from.shape.0[**axis] != 1);
        if !moving.is_sorted() {
            return Ok(());
        }
        if from.shape == to.shape && from.quantization == to.quantization {
            rewriter.forward(id, source);
        } else {
            rewriter.replace(id, OpKind::Reshape, vec![source]);
        }
        Ok(())
    })
}

/// The permutation and the operand of the one transpose that `id` and the one before it are.
fn composed(rewriter: &Rewriter, id: OpId) -> Option<(Vec<usize>, TensorId)> {
    let op = rewriter.graph.op(id);
    let OpKind::Transpose { permutation: second } = &op.kind else {
        return None;
    };
    let before = rewriter.producer(op.inputs[0])?;
    let OpKind::Transpose { permutation: first } = &before.kind else {
        return None;
    };
    // The verifier lets scales differ a little; twice a little may be too much.
    let source = before.inputs[0];
    if rewriter.graph.tensor(source).quantization != rewriter.graph.tensor(op.inputs[0]).quantization {
        return None;
    }
    Some((second.iter().map(|&axis| first[axis]).collect(), source))
}
