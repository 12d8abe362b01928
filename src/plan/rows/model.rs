//! The calls in their order as what streaming sees of them: rows of storages, and which of them a step reads.

use super::super::storage::{Over, Storages, lcm};
use super::super::{ALIGN, Place};
use crate::graph::{Graph, TensorId};
use crate::kernels::rows::{Steps, Taps};
use crate::kernels::{Call, Lowering, Operand};
use std::collections::BTreeMap;

/// A storage as rows.
#[derive(Clone, Debug)]
pub(in super::super) struct Store {
    /// Bytes of it that are in the arena: none or all.
    pub bytes: u64,
    /// Rows; 1 if no operator sees several.
    pub rows: u32,
    /// Bytes of a row, wherever it is.
    pub unit: u64,
    /// Whether a model input or output.
    pub input: bool,
    pub output: bool,
    /// Positions of the operators that write and read it.
    pub producer: Option<usize>,
    pub users: Vec<usize>,
}

impl Store {
    /// Bytes of a row that are in the arena.
    pub fn arena_unit(&self) -> u64 {
        if self.bytes == 0 { 0 } else { self.unit }
    }

    /// Whether something outside positions `first .. end` that runs before them makes it.
    pub fn enters(&self, first: usize) -> bool {
        self.producer.is_none_or(|producer| producer < first)
    }

    /// Whether it is needed from position `end` on.
    pub fn leaves(&self, end: usize) -> bool {
        self.output || self.users.iter().any(|user| *user >= end)
    }
}

/// What an operator reads row by row.
#[derive(Clone, Debug)]
pub(in super::super) struct Source {
    pub storage: usize,
    /// The window, if a row of the result needs several; the row of the same number otherwise.
    pub taps: Option<Taps>,
    /// Rows of the storage.
    pub rows: u32,
}

impl Source {
    /// First and last row that step `row` reads.
    pub fn interval(&self, row: u32) -> (u32, u32) {
        match self.taps {
            None => (row, row),
            Some(taps) => {
                let (start, last) = (row * taps.stride, self.rows - 1);
                let end = start + (taps.count - 1) * taps.dilation;
                (
                    start.saturating_sub(taps.top).min(last),
                    end.saturating_sub(taps.top).min(last),
                )
            }
        }
    }
}

/// An operator that can run row by row.
#[derive(Clone, Debug)]
pub(in super::super) struct Rows {
    /// Rows of the result, or of the input if it is summed up.
    pub steps: u32,
    pub accumulates: bool,
    pub sources: Vec<Source>,
    pub scratch: u64,
    pub state: u64,
    /// How a row of the result may lie over a row of a source.
    pub overlaps: Vec<Over>,
    /// Instructions that it costs more than the whole.
    pub cost: u64,
    /// Its calls, by index.
    pub calls: Vec<usize>,
}

/// An operator, at its position.
#[derive(Clone, Debug)]
pub(in super::super) struct Op {
    pub reads: Vec<usize>,
    pub writes: Vec<usize>,
    pub scratch: u64,
    pub overlaps: Vec<Over>,
    pub rows: Option<Rows>,
}

impl Op {
    /// First and last row of a storage that step `row` reads.
    pub fn reads_of(&self, storage: usize, row: u32) -> (u32, u32) {
        let sources = self.rows.iter().flat_map(|rows| &rows.sources);
        let source = sources.into_iter().find(|source| source.storage == storage);
        source.map_or((row, row), |source| source.interval(row))
    }
}

/// All operators, by position, and all storages.
#[derive(Clone, Debug)]
pub(in super::super) struct Model {
    pub ops: Vec<Op>,
    pub stores: Vec<Store>,
    /// Position of the operator whose rows the application gives, in their order.
    pub feed: Option<usize>,
}

impl Model {
    /// `cost` is what the rows of an operator cost, by its index in the graph.
    pub fn new(
        graph: &Graph,
        lowering: &Lowering,
        storages: &Storages,
        order: &[usize],
        places: &[Option<Place>],
        cost: &dyn Fn(usize) -> Option<u64>,
    ) -> Self {
        let mut stores: Vec<Store> = (storages.list.iter().zip(places))
            .map(|(storage, place)| Store {
                bytes: if place.is_none() { storage.bytes } else { 0 },
                rows: 1,
                unit: storage.bytes,
                input: storage.input.is_some(),
                output: storage.output.is_some(),
                producer: None,
                users: Vec::new(),
            })
            .collect();
        let mut by_op: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (i, call) in lowering.row_calls.iter().enumerate() {
            by_op.entry(call.op.0).or_default().push(i);
        }
        // How many rows the operators see in a storage: those that see others cannot run by rows.
        let mut seen: Vec<Option<u32>> = vec![None; stores.len()];
        let mut ops = Vec::with_capacity(order.len());
        for (at, call) in order.iter().enumerate() {
            let step = &storages.steps[*call];
            for s in &step.reads {
                stores[*s].users.push(at);
            }
            for s in &step.writes {
                stores[*s].producer = Some(at);
            }
            let op = lowering.calls[*call].op;
            let rows = by_op.get(&op.0).and_then(|calls| {
                let cost = cost(op.index())?;
                let list: Vec<&Call> = calls.iter().map(|i| &lowering.row_calls[*i]).collect();
                by_rows(graph, &list, storages, &mut seen, calls.clone(), cost)
            });
            ops.push(Op {
                reads: step.reads.clone(),
                writes: step.writes.clone(),
                scratch: step.scratch.map_or(0, |scratch| scratch.size),
                overlaps: step.overlaps.clone(),
                rows,
            });
        }
        for (store, seen) in stores.iter_mut().zip(seen) {
            if let Some(rows) = seen.filter(|rows| *rows > 0) {
                store.rows = rows;
                store.unit /= u64::from(rows);
            }
        }
        let feed = order
            .iter()
            .position(|call| Some(lowering.calls[*call].op) == lowering.feed);
        Model { ops, stores, feed }
    }
}

/// An operator's rows, if all operators before it see the same rows in what it touches.
fn by_rows(
    graph: &Graph,
    calls: &[&Call],
    storages: &Storages,
    seen: &mut [Option<u32>],
    indices: Vec<usize>,
    cost: u64,
) -> Option<Rows> {
    let first = calls.first()?;
    let form = first.rows?;
    let op = graph.op(first.op);
    let height = |id: &TensorId| graph.tensor(*id).shape.0.get(1).map_or(1, |rows| *rows as u32);
    let activations: Vec<TensorId> = {
        let mut list: Vec<TensorId> = calls
            .iter()
            .flat_map(|call| &call.operands)
            .filter_map(|operand| match operand {
                Operand::Row(id) | Operand::Window(id) => Some(*id),
                _ => None,
            })
            .collect();
        list.sort_unstable();
        list.dedup();
        list
    };
    let fits = |id: &TensorId| {
        let storage = storages.of[id.index()];
        let rows = height(id);
        let bytes = storages.list[storage].bytes;
        rows > 0 && bytes.is_multiple_of(u64::from(rows)) && seen[storage].is_none_or(|seen| seen == rows)
    };
    if !activations.iter().all(fits) {
        return None;
    }
    for id in &activations {
        seen[storages.of[id.index()]] = Some(height(id));
    }
    let sources = activations
        .iter()
        .filter(|id| !op.outputs.contains(id))
        .map(|id| Source {
            storage: storages.of[id.index()],
            taps: form.taps,
            rows: height(id),
        });
    let sources: Vec<Source> = sources.collect();
    let overlaps = sources
        .iter()
        .filter_map(|source| over(calls, storages, source.storage));
    let overlaps = overlaps.collect();
    let turns = matches!(form.steps, Steps::Turns { .. });
    Some(Rows {
        steps: form.count,
        accumulates: turns,
        sources,
        scratch: calls
            .iter()
            .filter_map(|call| call.scratch)
            .map(|s| s.size)
            .max()
            .unwrap_or(0),
        state: form.state.map_or(0, |state| state.size),
        overlaps,
        cost,
        calls: indices,
    })
}

/// How a row of the result may lie over one of a storage, if all calls that read it allow it.
fn over(calls: &[&Call], storages: &Storages, storage: usize) -> Option<Over> {
    let mut all: Option<Over> = None;
    let operands = calls
        .iter()
        .flat_map(|call| call.operands.iter().map(move |operand| (call, operand)));
    for (call, operand) in operands {
        let (Operand::Row(id) | Operand::Window(id)) = operand else {
            continue;
        };
        if storages.of[id.index()] == storage {
            let overlap = call.overlaps.iter().find(|overlap| overlap.input == *id)?;
            let over = all.get_or_insert(Over {
                storage,
                gap: 0,
                modulus: 1,
            });
            over.gap = over.gap.max(overlap.gap);
            over.modulus = lcm(over.modulus, overlap.modulus.max(1));
        }
    }
    all
}

/// Alignment of rows that have a place of their own.
pub(in super::super) const ROW_ALIGN: u64 = 4;
const _: () = assert!(ALIGN.is_multiple_of(ROW_ALIGN));
