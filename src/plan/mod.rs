//! Where every activation and scratch buffer lives: order, lifetimes and one arena.

use crate::graph::{OpId, TensorId};

/// Where a tensor lives while the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// At this offset of the arena.
    Arena(u64),
    /// Behind the pointer of this model input.
    Input(usize),
    /// Behind the pointer of this model output.
    Output(usize),
    /// A constant symbol.
    Constant,
    /// Nowhere: no operator that remains reads or writes it.
    None,
}

/// How inputs and outputs reach the model (`--io`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Io {
    /// By pointer: read and written in place, not counted in the arena.
    #[default]
    Pointers,
    /// At fixed offsets of the arena; a run consumes its inputs.
    Arena,
}

/// A buffer of the arena, for reports and the checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// The tensors that live in it (views share it); empty for scratch.
    pub tensors: Vec<TensorId>,
    /// The operator whose scratch it is, if it is scratch.
    pub scratch_of: Option<OpId>,
    /// Size in bytes.
    pub size: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// First step (index into [`Plan::order`]) at which it is live. Model inputs are live from step 0.
    pub first: usize,
    /// Last step at which it is live, inclusive. Model outputs are live to the last step.
    pub last: usize,
    /// Offset in the arena.
    pub offset: u64,
}

/// The result of planning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// How inputs and outputs are passed.
    pub io: Io,
    /// All operators that have a call, in execution order; views are left out.
    pub order: Vec<OpId>,
    /// For every tensor of the graph.
    pub places: Vec<Place>,
    /// All buffers of the arena.
    pub buffers: Vec<Buffer>,
    /// Bytes of the arena.
    pub arena_size: u64,
    /// Its alignment.
    pub arena_align: u64,
    /// The least that any placement of these buffers in this order can take: the peak of live bytes.
    pub lower_bound: u64,
}

impl Plan {
    /// Offset of an operator's scratch.
    pub fn scratch(&self, op: OpId) -> Option<u64> {
        self.buffers
            .iter()
            .find(|buffer| buffer.scratch_of == Some(op))
            .map(|buffer| buffer.offset)
    }
}
