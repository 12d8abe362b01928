//! What rewrites have in common.

use crate::error::Result;
use crate::graph::{Graph, Op, OpId, OpKind, Tensor, TensorId};

/// Who writes and reads every tensor.
pub(super) struct Uses {
    /// The operator that produces it.
    pub producers: Vec<Option<OpId>>,
    /// The operators that read it, in order, without repetition.
    pub readers: Vec<Vec<OpId>>,
    /// Whether it is a model output.
    pub outputs: Vec<bool>,
}

impl Uses {
    pub fn new(graph: &Graph) -> Self {
        Uses {
            producers: graph.producers(),
            readers: graph.users(),
            outputs: outputs(graph),
        }
    }

    /// The operator that produces `id`, if `reader` alone sees the result.
    pub fn private_producer(&self, id: TensorId, reader: OpId) -> Option<OpId> {
        let private = self.readers[id.index()] == [reader] && !self.outputs[id.index()];
        self.producers[id.index()].filter(|_| private)
    }
}

/// For every tensor, whether it is a model output.
pub(super) fn outputs(graph: &Graph) -> Vec<bool> {
    let mut outputs = vec![false; graph.tensors.len()];
    for id in &graph.outputs {
        outputs[id.index()] = true;
    }
    outputs
}

/// Drops the operators for which `drop` holds.
pub(super) fn remove_ops(graph: &mut Graph, drop: &[bool]) {
    let mut drop = drop.iter();
    graph.ops.retain(|_| !drop.next().is_some_and(|drop| *drop));
}

/// Rewrites operators one after the other; see [`rewrite`].
pub(super) struct Rewriter<'g> {
    pub graph: &'g mut Graph,
    /// For every tensor, the operator that produces it.
    pub producers: Vec<Option<OpId>>,
    outputs: Vec<bool>,
    /// For every tensor, the one that is read in its place.
    alias: Vec<TensorId>,
    dropped: Vec<bool>,
}

/// Calls `visit` for every operator in order, with operands that reflect what was rewritten before.
pub(super) fn rewrite(graph: &mut Graph, mut visit: impl FnMut(&mut Rewriter<'_>, OpId) -> Result<()>) -> Result<()> {
    let mut rewriter = Rewriter {
        producers: graph.producers(),
        outputs: outputs(graph),
        alias: (0..graph.tensors.len() as u32).map(TensorId).collect(),
        dropped: vec![false; graph.ops.len()],
        graph,
    };
    for id in rewriter.graph.op_ids() {
        rewriter.resolve(id);
        visit(&mut rewriter, id)?;
    }
    // What took over a tensor's place is read by operators before it, too.
    for id in rewriter.graph.op_ids() {
        rewriter.resolve(id);
    }
    let Rewriter { graph, dropped, .. } = rewriter;
    remove_ops(graph, &dropped);
    Ok(())
}

impl Rewriter<'_> {
    fn resolve(&mut self, id: OpId) {
        for input in &mut self.graph.ops[id.index()].inputs {
            while self.alias[input.index()] != *input {
                *input = self.alias[input.index()];
            }
        }
    }

    /// The operator that produces `id`.
    pub fn producer(&self, id: TensorId) -> Option<&Op> {
        self.producers[id.index()].map(|op| self.graph.op(op))
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, tensor: Tensor) -> TensorId {
        let id = self.graph.add_tensor(tensor);
        self.producers.push(None);
        self.outputs.push(false);
        self.alias.push(id);
        id
    }

    /// Drops operator `op`, whose result is the same value as `source`: equal in bytes, type, shape and quantization,
    /// and produced before.
    ///
    /// Names of model outputs stay: where the result is one, the producer of `source` takes it over, or `op` becomes a
    /// view of `source`.
    pub fn forward(&mut self, op: OpId, mut source: TensorId) {
        // Operands of earlier operators may be what another result has taken the place of since.
        while self.alias[source.index()] != source {
            source = self.alias[source.index()];
        }
        let result = self.graph.op(op).output();
        if !self.outputs[result.index()] {
            self.alias[result.index()] = source;
            self.dropped[op.index()] = true;
            return;
        }
        match self.producers[source.index()] {
            Some(producer) if !self.outputs[source.index()] => {
                for output in &mut self.graph.ops[producer.index()].outputs {
                    if *output == source {
                        *output = result;
                    }
                }
                self.producers[result.index()] = Some(producer);
                self.alias[source.index()] = result;
                self.dropped[op.index()] = true;
            }
            _ => self.replace(op, OpKind::Reshape, vec![source]),
        }
    }

    /// Makes `op` another operator with the same result.
    pub fn replace(&mut self, op: OpId, kind: OpKind, inputs: Vec<TensorId>) {
        let op = &mut self.graph.ops[op.index()];
        (op.kind, op.inputs) = (kind, inputs);
    }
}
