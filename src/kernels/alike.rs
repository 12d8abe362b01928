//! Which operators get the same kernel because they are of one shape: such a kernel is emitted once.

use super::{KernelId, mac};
use crate::graph::{Graph, OpId, OpKind, TensorId};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Operators whose kernels are known, by what their kernels depend on.
#[derive(Default)]
pub(super) struct Alike {
    known: HashMap<u64, Vec<(OpId, KernelId)>>,
}

impl Alike {
    /// The kernel of an operator of the same shape.
    pub fn find(&self, graph: &Graph, op: OpId) -> Option<KernelId> {
        if !by_shape(graph, op) {
            return None;
        }
        let candidates = self.known.get(&hash(graph, op))?;
        let (_, kernel) = candidates.iter().find(|(other, _)| alike(graph, *other, op))?;
        Some(*kernel)
    }

    /// The kernel of an operator that [`Alike::find`] did not know.
    pub fn add(&mut self, graph: &Graph, op: OpId, kernel: KernelId) {
        if by_shape(graph, op) {
            self.known.entry(hash(graph, op)).or_default().push((op, kernel));
        }
    }
}

/// Whether the kernel depends on the operator's attributes and the types of its operands alone, not on the values of
/// constants. int8 layers do: sums that are known to be small have shorter code.
fn by_shape(graph: &Graph, op: OpId) -> bool {
    matches!(graph.op(op).kind, OpKind::Binary { .. }) || mac::by_shape(graph, op)
}

fn operands(graph: &Graph, op: OpId) -> impl Iterator<Item = TensorId> {
    let op = graph.op(op);
    op.inputs.iter().chain(&op.outputs).copied()
}

/// Equal where [`alike`] is true.
fn hash(graph: &Graph, op: OpId) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(&graph.op(op).kind).hash(&mut hasher);
    for tensor in operands(graph, op).map(|id| graph.tensor(id)) {
        (tensor.dtype, &tensor.shape, tensor.data.is_some()).hash(&mut hasher);
        if let Some(quantization) = &tensor.quantization {
            let scale = quantization.scale.first().copied().unwrap_or_default();
            (scale.to_bits(), quantization.zero_point.first()).hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn alike(graph: &Graph, a: OpId, b: OpId) -> bool {
    let (x, y) = (graph.op(a), graph.op(b));
    let types = operands(graph, a).zip(operands(graph, b)).all(|(a, b)| {
        let (a, b) = (graph.tensor(a), graph.tensor(b));
        a.dtype == b.dtype
            && a.shape == b.shape
            && a.quantization == b.quantization
            && a.data.is_some() == b.data.is_some()
    });
    x.kind == y.kind && x.inputs.len() == y.inputs.len() && x.outputs.len() == y.outputs.len() && types
}
