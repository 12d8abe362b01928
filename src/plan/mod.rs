//! Where every activation and scratch buffer lives: order, lifetimes and one arena, in one memory or divided between
//! several ([`Plan::divide`]).
//!
//! [`plan`] decides, [`check()`] proves the result on its own, in every build.

mod access;
mod check;
mod offsets;
mod order;
mod pools;
mod rows;
mod storage;

pub use access::Accesses;
pub use check::check;
pub use pools::{Memory, Pool, Staged};

use crate::error::{Code, Error, Result};
use crate::graph::{Graph, OpId, TensorId};
use crate::kernels::Lowering;
use crate::limits;
use storage::Storages;

/// Alignment in bytes of every buffer of the arena.
pub const ALIGN: u64 = 16;

/// Where a tensor lives while the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// At this offset of the arena.
    Arena(u64),
    /// Row by row in the arena, at the offsets of [`Plan::rows`] with this index.
    Rows(u32),
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// The tensors that live in it (views share it); empty for scratch.
    pub tensors: Vec<TensorId>,
    /// The operator whose scratch it is, if it is scratch.
    pub scratch_of: Option<OpId>,
    /// The operator that keeps something in it from row to row, if it is that.
    pub state_of: Option<OpId>,
    /// The row of the tensors that it is, if their rows have places of their own.
    pub row: Option<u32>,
    /// Whether it is a part of something that is in one place, with a life of its own.
    pub part: bool,
    /// Size in bytes.
    pub size: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// First step (index into [`Plan::steps`]) at which it is live. Model inputs are live from step 0.
    pub first: usize,
    /// Last step at which it is live, inclusive. Model outputs are live to the last step.
    pub last: usize,
    /// Offset in the arena.
    pub offset: u64,
}

/// Two buffers beside all others, live throughout, that pieces of parameters are read into in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staging {
    /// Offset of the first in the arena.
    pub offset: u64,
    /// Bytes of each.
    pub size: u64,
}

/// A step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The operator.
    pub op: OpId,
    /// Which of its rows; all of its result if there is none.
    pub rows: Option<RowStep>,
}

/// One row of an operator that runs row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowStep {
    /// The call, an index into [`Lowering::row_calls`] after [`Lowering::choose`].
    pub call: usize,
    /// The row of the result; of the input for an operator that sums up.
    pub row: u32,
}

/// Which operators run row by row. The function says how many instructions that costs an operator more than it takes
/// as a whole; `None` keeps it whole.
#[derive(Clone, Copy)]
pub enum Streaming<'a> {
    /// None.
    Never,
    /// Those that make the arena as small as it can be.
    Least(&'a dyn Fn(OpId) -> Option<u64>),
    /// Those that make the arena smallest for at most so many instructions.
    Within(&'a dyn Fn(OpId) -> Option<u64>, u64),
}

/// The result of planning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// How inputs and outputs are passed.
    pub io: Io,
    /// All operators that have a call, in the order of their first steps; views are left out.
    pub order: Vec<OpId>,
    /// All steps, in execution order: one for each operator, or one for each row of those that run row by row.
    pub steps: Vec<Step>,
    /// For every tensor of the graph.
    pub places: Vec<Place>,
    /// All buffers of the arena.
    pub buffers: Vec<Buffer>,
    /// Outputs that are in the arena although they are passed by pointer, as nothing may be written through a pointer
    /// before all parameters have been read.
    pub kept: Vec<usize>,
    /// Where streamed parameters are read to, if there are any.
    pub staging: Option<Staging>,
    /// Offsets in the arena of the rows of tensors at [`Place::Rows`]; none for rows that are never made.
    pub rows: Vec<Vec<Option<u64>>>,
    /// Bytes of the arena that are live at each step.
    pub live: Vec<u64>,
    /// The parts of the arena in their memories, by offset; none where the arena is one.
    pub pools: Vec<Pool>,
    /// What may be moved, and what may lie over what.
    pub(crate) layout: pools::Layout,
    /// Bytes of the arena, of all pools together.
    pub arena_size: u64,
    /// Its alignment.
    pub arena_align: u64,
    /// The least that any placement of these buffers in this order can take: the peak of live bytes, where a result lies
    /// over what it is made of as far as it may.
    pub lower_bound: u64,
    /// Whether the arena is proven to be the smallest for these buffers in this order; of several pools, each for what is
    /// in it.
    pub optimal: bool,
}

impl Plan {
    /// Puts two buffers of `size` bytes behind the others, in one arena.
    fn stage(&mut self, size: u64, align: u64) {
        self.arena_align = self.arena_align.max(align);
        let offset = self.arena_size.next_multiple_of(align);
        let size = size.next_multiple_of(align);
        self.lower_bound = self.lower_bound.next_multiple_of(align) + 2 * size;
        self.arena_size = offset + 2 * size;
        self.staging = Some(Staging { offset, size });
    }

    /// Offset of an operator's scratch.
    pub fn scratch(&self, op: OpId) -> Option<u64> {
        self.buffers
            .iter()
            .find(|buffer| buffer.scratch_of == Some(op))
            .map(|buffer| buffer.offset)
    }

    /// Offset of what an operator keeps from row to row.
    pub fn state(&self, op: OpId) -> Option<u64> {
        let found = self.buffers.iter().find(|buffer| buffer.state_of == Some(op));
        found.map(|buffer| buffer.offset)
    }

    /// Whether an operator runs row by row.
    pub fn by_rows(&self, op: OpId) -> bool {
        self.steps.iter().any(|step| step.op == op && step.rows.is_some())
    }
}

/// Orders the calls of `lowering` and places every buffer.
///
/// # Errors
/// [`Code::Limit`] if the buffers are larger than [`limits::ARENA_BYTES`]; [`Code::Internal`] if the graph asks for
/// something that no plan can give (one run of bytes as two outputs).
pub fn plan(graph: &Graph, lowering: &Lowering, io: Io, streaming: Streaming) -> Result<Plan> {
    plan_with(graph, lowering, io, streaming, &[])
}

/// [`plan`], with the outputs `kept` in the arena.
///
/// # Errors
/// As [`plan`].
pub fn plan_with(graph: &Graph, lowering: &Lowering, io: Io, streaming: Streaming, kept: &[usize]) -> Result<Plan> {
    let storages = Storages::new(graph, lowering)?;
    let places: Vec<Option<Place>> = storages.list.iter().map(|s| s.outside(io, kept)).collect();
    let size = |s: usize| match places[s] {
        None => storages.list[s].bytes.next_multiple_of(ALIGN),
        Some(_) => 0,
    };
    let total = (0..storages.list.len()).map(size).chain(scratch_sizes(lowering));
    if total.fold(0, u64::saturating_add) > limits::ARENA_BYTES {
        return Err(Error::new(
            Code::Limit,
            format!("the activations take more than {} bytes", limits::ARENA_BYTES),
        ));
    }
    let scratch = |call: usize| {
        let scratch = storages.steps[call].scratch;
        scratch.map_or(0, |scratch| scratch.size.next_multiple_of(ALIGN))
    };
    let order = order::order(&storages, &size, &scratch);
    let mut buffers = buffers(lowering, &storages, &order, &places);
    let pairs = pairs(&storages, &order, &buffers);
    let lower_bound = offsets::lower_bound(&buffers, &pairs, order.len());
    let placed = offsets::place(&mut buffers, &pairs, lower_bound);

    let mut arena: Vec<Option<u64>> = vec![None; graph.tensors.len()];
    for buffer in &buffers {
        buffer
            .tensors
            .iter()
            .for_each(|id| arena[id.index()] = Some(buffer.offset));
    }
    let place = |i: usize| match (places[storages.of[i]], arena[i]) {
        (Some(place), _) => place,
        (None, Some(offset)) => Place::Arena(offset),
        (None, None) => Place::None,
    };
    let live = offsets::live(&buffers, &pairs, order.len());
    let whole = Plan {
        io,
        live,
        steps: (order.iter())
            .map(|call| Step {
                op: lowering.calls[*call].op,
                rows: None,
            })
            .collect(),
        rows: Vec::new(),
        order: order.iter().map(|call| lowering.calls[*call].op).collect(),
        places: (0..graph.tensors.len()).map(place).collect(),
        arena_size: placed.size,
        arena_align: buffers.iter().map(|buffer| buffer.align).fold(ALIGN, u64::max),
        pools: Vec::new(),
        layout: pools::Layout::whole(&buffers, &pairs),
        buffers,
        kept: kept.to_vec(),
        staging: None,
        lower_bound,
        optimal: placed.proven,
    };
    let streamed = rows::plan(graph, lowering, &storages, &order, &places, &streaming, &whole);
    Ok(streamed.unwrap_or(whole))
}

fn scratch_sizes(lowering: &Lowering) -> impl Iterator<Item = u64> {
    lowering
        .calls
        .iter()
        .filter_map(|call| call.scratch.map(|scratch| scratch.size))
}

impl storage::Storage {
    /// Where it is, if that is not the arena.
    fn outside(&self, io: Io, kept: &[usize]) -> Option<Place> {
        match (io, self.constant, self.input, self.output) {
            (_, true, _, _) => Some(Place::Constant),
            (_, _, Some(i), None) if self.fed => Some(Place::Input(i)),
            (Io::Pointers, _, None, Some(i)) if kept.contains(&i) => None,
            (Io::Pointers, _, _, Some(i)) => Some(Place::Output(i)),
            (Io::Pointers, _, Some(i), None) => Some(Place::Input(i)),
            _ => None,
        }
    }
}

/// The buffers of the arena with their lifetimes, by first step.
fn buffers(lowering: &Lowering, storages: &Storages, order: &[usize], places: &[Option<Place>]) -> Vec<Buffer> {
    let end = order.len().saturating_sub(1);
    let mut lives: Vec<Option<(usize, usize)>> = storages
        .list
        .iter()
        .map(|s| match (s.input, s.output) {
            (Some(_), None) => Some((0, 0)),
            (Some(_), Some(_)) => Some((0, end)),
            _ => None,
        })
        .collect();
    let mut buffers = Vec::new();
    for (at, call) in order.iter().enumerate() {
        let step = &storages.steps[*call];
        for s in step.reads.iter().chain(&step.writes) {
            let last = if storages.list[*s].output.is_some() { end } else { at };
            let life = lives[*s].get_or_insert((at, last));
            life.1 = life.1.max(last);
        }
        if let Some(scratch) = step.scratch {
            buffers.push(Buffer {
                scratch_of: Some(lowering.calls[*call].op),
                size: scratch.size,
                align: scratch.align.max(ALIGN),
                first: at,
                last: at,
                ..Buffer::default()
            });
        }
    }
    for (s, life) in lives.into_iter().enumerate() {
        if let (None, Some((first, last))) = (&places[s], life) {
            buffers.push(Buffer {
                tensors: storages.list[s].tensors.clone(),
                size: storages.list[s].bytes,
                align: ALIGN,
                first,
                last,
                ..Buffer::default()
            });
        }
    }
    buffers.sort_by_key(|buffer| {
        (
            buffer.first,
            buffer.scratch_of.is_some(),
            buffer.tensors.first().copied(),
        )
    });
    buffers
}

/// A result that may lie over what it is made of, which is read for the last time. Indices are of [`Plan::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    /// What is read.
    input: usize,
    /// What is written.
    output: usize,
    /// The output begins at least this many bytes below the input, unless they have no byte in common.
    gap: u64,
    /// The distance is a multiple of this, unless they have no byte in common.
    modulus: u64,
}

/// Results and what they may lie over, where it is read for the last time.
fn pairs(storages: &Storages, order: &[usize], buffers: &[Buffer]) -> Vec<Pair> {
    let mut of = vec![None; storages.list.len()];
    for (i, buffer) in buffers.iter().enumerate() {
        if let Some(id) = buffer.tensors.first() {
            of[storages.of[id.index()]] = Some(i);
        }
    }
    let mut pairs = Vec::new();
    for (at, call) in order.iter().enumerate() {
        let step = &storages.steps[*call];
        for over in &step.overlaps {
            if let ([write], Some(input)) = (step.writes.as_slice(), of[over.storage])
                && let Some(output) = of[*write].filter(|output| buffers[*output].first == at)
                && buffers[input].last == at
                && over.gap < buffers[output].size
            {
                pairs.push(Pair {
                    input,
                    output,
                    gap: over.gap,
                    modulus: over.modulus,
                });
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests;
