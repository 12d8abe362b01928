//! Merges equal constants, and operators that compute the same from the same.

use super::edit::rewrite;
use crate::data::Bytes;
use crate::error::{Error, Result};
use crate::graph::evaluate::Arithmetic;
use crate::graph::{Graph, OpId, OpKind, Tensor, TensorId};
use std::collections::HashMap;

pub(super) fn run(graph: &mut Graph, _: Arithmetic) -> Result<()> {
    constants(graph)?;
    let mut known: HashMap<String, OpId> = HashMap::new();
    rewrite(graph, |rewriter, id| {
        let op = rewriter.graph.op(id);
        // Copies are wanted for their storage.
        if op.kind == OpKind::Copy {
            return Ok(());
        }
        let result = rewriter.graph.tensor(op.output());
        let key = format!("{:?} {:?} {}", op.kind, op.inputs, signature(result));
        let first = *known.entry(key).or_insert(id);
        if first != id {
            rewriter.forward(id, rewriter.graph.op(first).output());
        }
        Ok(())
    })
}

/// Type, shape and quantization, exactly.
fn signature(tensor: &Tensor) -> String {
    format!("{} {} {:?}", tensor.dtype.name(), tensor.shape, tensor.quantization)
}

/// Makes operators read the first of several equal constants. Bytes are hashed only where everything else is equal.
fn constants(graph: &mut Graph) -> Result<()> {
    let mut groups: HashMap<String, Vec<TensorId>> = HashMap::new();
    let mut seen = vec![false; graph.tensors.len()];
    for &id in graph.ops.iter().flat_map(|op| &op.inputs) {
        let tensor = graph.tensor(id);
        if tensor.data.is_some() && !std::mem::replace(&mut seen[id.index()], true) {
            groups.entry(signature(tensor)).or_default().push(id);
        }
    }
    let mut merged: HashMap<TensorId, TensorId> = HashMap::new();
    // The order of the groups does not matter: they are disjoint, and a group is in the order of first use.
    for group in groups.values().filter(|group| group.len() > 1) {
        let mut first: HashMap<blake3::Hash, TensorId> = HashMap::new();
        for &id in group {
            if let Some(data) = &graph.tensor(id).data {
                let kept = *first.entry(hash(data)?).or_insert(id);
                merged.insert(id, kept);
            }
        }
    }
    for id in graph.ops.iter_mut().flat_map(|op| &mut op.inputs) {
        *id = merged.get(id).copied().unwrap_or(*id);
    }
    Ok(())
}

fn hash(data: &Bytes) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let written = data.write_to(&mut hasher);
    written.map_err(|error| Error::io("read constants of", "the model".as_ref(), &error))?;
    Ok(hasher.finalize())
}
