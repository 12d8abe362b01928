//! Merges equal constants, and operators that compute the same from the same.

use super::edit::rewrite;
use crate::data::{Bytes, Sample};
use crate::error::{Error, Result};
use crate::graph::evaluate::Arithmetic;
use crate::graph::{DType, Graph, OpId, OpKind, Shape, Tensor, TensorId};
use std::collections::HashMap;
use std::io;

pub(super) fn run(graph: &mut Graph, _: Arithmetic) -> Result<()> {
    constants(graph)?;
    // Most operators are the only ones that read what they read; among others, the first of each text counts.
    let mut known: HashMap<Vec<TensorId>, (OpId, HashMap<String, OpId>)> = HashMap::new();
    rewrite(graph, |rewriter, id| {
        let op = rewriter.graph.op(id);
        // Copies are wanted for their storage.
        if matches!(op.kind, OpKind::Copy | OpKind::External(_)) {
            return Ok(());
        }
        let Some((first, readers)) = known.get_mut(&op.inputs) else {
            known.insert(op.inputs.clone(), (id, HashMap::new()));
            return Ok(());
        };
        let text = |id: OpId| {
            let op = rewriter.graph.op(id);
            let result = rewriter.graph.tensor(op.output());
            format!("{:?} {:?}", op.kind, signature(result))
        };
        if readers.is_empty() {
            readers.insert(text(*first), *first);
        }
        let first = *readers.entry(text(id)).or_insert(id);
        if first != id {
            rewriter.forward(id, rewriter.graph.op(first).output());
        }
        Ok(())
    })
}

/// Scales bit for bit, zero points, axis.
type Numbers<'a> = (Vec<u32>, &'a [i32], Option<usize>);

/// Type, shape and quantization, exactly.
fn signature(tensor: &Tensor) -> (DType, &Shape, Option<Numbers<'_>>) {
    let numbers = tensor.quantization.as_ref().map(|quantization| {
        let scale = quantization.scale.iter().map(|scale| scale.to_bits()).collect();
        (scale, quantization.zero_point.as_slice(), quantization.axis)
    });
    (tensor.dtype, &tensor.shape, numbers)
}

/// Makes operators read the first of several equal constants. Bytes are compared only where everything else is equal,
/// and their beginnings.
fn constants(graph: &mut Graph) -> Result<()> {
    let mut groups: HashMap<_, Vec<TensorId>> = HashMap::new();
    let mut seen = vec![false; graph.tensors.len()];
    for &id in graph.ops.iter().flat_map(|op| &op.inputs) {
        let tensor = graph.tensor(id);
        if tensor.data.is_some() && !std::mem::replace(&mut seen[id.index()], true) {
            groups.entry(signature(tensor)).or_default().push(id);
        }
    }
    let failed = |error| Error::io("read constants of", "the model".as_ref(), &error);
    let mut merged: HashMap<TensorId, TensorId> = HashMap::new();
    // The order of the groups does not matter: they are disjoint, and a group is in the order of first use.
    for group in groups.values().filter(|group| group.len() > 1) {
        let mut alike: HashMap<Sample, Vec<(TensorId, &Bytes)>> = HashMap::new();
        for &id in group {
            if let Some(data) = &graph.tensor(id).data {
                alike
                    .entry(data.sample().map_err(failed)?)
                    .or_default()
                    .push((id, data));
            }
        }
        for alike in alike.values().filter(|alike| alike.len() > 1) {
            merge(alike, &mut merged).map_err(failed)?;
        }
    }
    for id in graph.ops.iter_mut().flat_map(|op| &mut op.inputs) {
        *id = merged.get(id).copied().unwrap_or(*id);
    }
    Ok(())
}

/// Constants that are compared in pairs; among more, hashes are.
const PAIRS: usize = 4;

/// Finds equal constants among those that begin alike.
fn merge(alike: &[(TensorId, &Bytes)], merged: &mut HashMap<TensorId, TensorId>) -> io::Result<()> {
    if alike.len() <= PAIRS {
        for (i, (id, data)) in alike.iter().enumerate().skip(1) {
            for (first, other) in &alike[..i] {
                if !merged.contains_key(first) && other.equal(data)? {
                    merged.insert(*id, *first);
                    break;
                }
            }
        }
        return Ok(());
    }
    let mut known: HashMap<blake3::Hash, TensorId> = HashMap::new();
    for (id, data) in alike {
        let mut hasher = blake3::Hasher::new();
        data.write_to(&mut hasher)?;
        let first = *known.entry(hasher.finalize()).or_insert(*id);
        if first != *id {
            merged.insert(*id, first);
        }
    }
    Ok(())
}
