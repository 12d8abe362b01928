//! Which tensors share bytes, and who writes and reads them.

use super::ALIGN;
use crate::error::{Error, Result};
use crate::graph::{Graph, OpKind, TensorId};
use crate::kernels::{Call, Lowering, Scratch};

/// A tensor with all its views: one run of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Storage {
    /// The tensor that is written, then its views.
    pub tensors: Vec<TensorId>,
    /// Size in bytes.
    pub bytes: u64,
    /// The model input it is.
    pub input: Option<usize>,
    /// The first model output it is.
    pub output: Option<usize>,
    /// Whether it is a constant.
    pub constant: bool,
    /// Whether it is a model input that the application gives row by row.
    pub fed: bool,
}

/// What a call does to storages, by index; constants are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Read, without repetition.
    pub reads: Vec<usize>,
    /// Written.
    pub writes: Vec<usize>,
    /// Scratch while it runs.
    pub scratch: Option<Scratch>,
    /// Storages over which the one written may lie.
    pub overlaps: Vec<Over>,
}

/// How a result may lie over a storage that is read for the last time, in whole steps of the arena's alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over {
    /// What is read.
    pub storage: usize,
    /// Least distance of the result below it.
    pub gap: u64,
    /// The distance is a multiple of this.
    pub modulus: u64,
}

impl Over {
    /// Bytes that need not be there twice, of `input` and `output`.
    pub fn saved(&self, input: u64, output: u64) -> u64 {
        input.min(output.saturating_sub(self.gap))
    }
}

/// All storages and the calls over them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Storages {
    /// For every tensor, its storage.
    pub of: Vec<usize>,
    /// All storages.
    pub list: Vec<Storage>,
    /// One for each call of the lowering.
    pub steps: Vec<Step>,
}

impl Storages {
    /// Follows the views, in the graph's topological order.
    pub fn new(graph: &Graph, lowering: &Lowering) -> Result<Self> {
        let mut source: Vec<usize> = (0..graph.tensors.len()).collect();
        for op in &graph.ops {
            if op.kind == OpKind::Reshape {
                source[op.output().index()] = source[op.inputs[0].index()];
            }
        }
        let mut of = vec![usize::MAX; graph.tensors.len()];
        let mut list: Vec<Storage> = Vec::new();
        // Written tensors come first in their storage, whatever their numbers are.
        for (i, tensor) in graph.tensors.iter().enumerate().filter(|(i, _)| source[*i] == *i) {
            of[i] = list.len();
            list.push(Storage {
                tensors: vec![TensorId(i as u32)],
                bytes: tensor.bytes() as u64,
                constant: tensor.data.is_some(),
                ..Storage::default()
            });
        }
        for i in (0..graph.tensors.len()).filter(|i| source[*i] != *i) {
            of[i] = of[source[i]];
            list[of[i]].tensors.push(TensorId(i as u32));
        }
        for (i, id) in graph.inputs.iter().enumerate() {
            list[of[id.index()]].input.get_or_insert(i);
        }
        for (i, id) in graph.outputs.iter().enumerate() {
            list[of[id.index()]].output.get_or_insert(i);
        }
        if let Some(op) = lowering.feed {
            list[of[graph.op(op).inputs[0].index()]].fed = true;
        }
        let steps = lowering
            .calls
            .iter()
            .map(|call| step(graph, call, &of, &list))
            .collect::<Result<_>>()?;
        Ok(Storages { of, list, steps })
    }
}

fn step(graph: &Graph, call: &Call, of: &[usize], list: &[Storage]) -> Result<Step> {
    let op = graph.op(call.op);
    if op.kind == OpKind::Reshape {
        return Err(Error::internal("a view has a kernel").at(op.describe()));
    }
    let mut reads: Vec<usize> = op.inputs.iter().map(|id| of[id.index()]).collect();
    reads.retain(|storage| !list[*storage].constant);
    reads.sort_unstable();
    reads.dedup();
    let writes = op.outputs.iter().map(|id| of[id.index()]).collect();
    let scratch = call.scratch.filter(|scratch| scratch.size > 0);
    let mut overlaps: Vec<Over> = Vec::new();
    for overlap in &call.overlaps {
        let storage = of[overlap.input.index()];
        // All that is read of it must be read in order.
        let mut readers = op.inputs.iter().filter(|id| of[id.index()] == storage);
        let read = readers.all(|id| call.overlaps.iter().any(|overlap| overlap.input == *id));
        if !read || list[storage].constant || list[storage].output.is_some() || op.outputs.len() != 1 {
            continue;
        }
        let modulus = lcm(ALIGN, overlap.modulus.max(1));
        let gap = overlap.gap.next_multiple_of(modulus);
        match overlaps.iter_mut().find(|over| over.storage == storage) {
            Some(over) => over.gap = over.gap.max(gap),
            None => overlaps.push(Over { storage, gap, modulus }),
        }
    }
    Ok(Step {
        reads,
        writes,
        scratch,
        overlaps,
    })
}

pub(super) fn lcm(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}
