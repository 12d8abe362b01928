//! Drops conversions to float32 and straight back to the same quantization.
//!
//! `round(s·(q − z) / s) + z` is `q`: two roundings move the quotient by less than 2^-22 of itself, and it is at most
//! 255. Only an overflow of the product would spoil that.

use super::edit::{Rewriter, rewrite};
use crate::error::Result;
use crate::graph::evaluate::Arithmetic;
use crate::graph::{Graph, OpId, OpKind, TensorId};

pub(super) fn run(graph: &mut Graph, _: Arithmetic) -> Result<()> {
    rewrite(graph, |rewriter, id| {
        if let Some(source) = round_trip(rewriter, id) {
            rewriter.forward(id, source);
        }
        Ok(())
    })
}

/// The tensor that operator `id` gives back unchanged.
fn round_trip(rewriter: &Rewriter, id: OpId) -> Option<TensorId> {
    let op = rewriter.graph.op(id);
    let dequantize = rewriter.producer(op.inputs[0])?;
    if op.kind != OpKind::Quantize || dequantize.kind != OpKind::Dequantize {
        return None;
    }
    let source = dequantize.inputs[0];
    let (from, to) = (rewriter.graph.tensor(source), rewriter.graph.tensor(op.output()));
    let same = from.dtype == to.dtype && from.quantization == to.quantization;
    (same && (from.affine().0 * 255.0).is_finite()).then_some(source)
}
