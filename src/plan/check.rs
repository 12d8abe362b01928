//! Proof of a plan, derived from the graph and the calls alone: the plan is carried out with tagged bytes.
//!
//! Every byte of the arena and of the model's outputs carries which byte of which tensor was last written to it. Each
//! read must see the bytes that it means: of whole tensors, or of the rows that a window sees. Nothing of the planner's
//! own derivation is used. Where the arena is divided between memories, nothing lies in two of them, and each memory has
//! room for what is in it.

use super::{Io, Place, Plan, Staging};
use crate::error::{Error, Result};
use crate::graph::{Graph, OpId, OpKind, TensorId};
use crate::kernels::rows::Steps;
use crate::kernels::{Call, Lowering, Operand, Overlap, Scratch};
use std::collections::{BTreeMap, BTreeSet};

/// What a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    /// Of a tensor that a call produced (views count as what they view), and the address that its first byte has if its
    /// bytes adjoin there as in the tensor.
    Value(TensorId, i128),
    /// Of a call's scratch.
    Scratch(OpId),
    /// Of what an operator keeps from row to row.
    State(OpId),
}

/// A memory whose bytes are tagged: start → (end, tag), without overlaps.
#[derive(Default)]
struct Memory(BTreeMap<u64, (u64, Tag)>);

impl Memory {
    fn write(&mut self, start: u64, end: u64, tag: Tag) {
        // What lies across the borders keeps its outer parts.
        let overlapping: Vec<u64> = self
            .0
            .range(..end)
            .rev()
            .take_while(|(_, (stop, _))| *stop > start)
            .map(|(from, _)| *from)
            .collect();
        for from in overlapping {
            if let Some((stop, old)) = self.0.remove(&from) {
                if from < start {
                    self.0.insert(from, (start, old));
                }
                if stop > end {
                    self.0.insert(end, (stop, old));
                }
            }
        }
        if start < end {
            self.0.insert(start, (end, tag));
        }
    }

    fn holds(&self, start: u64, end: u64, tag: Tag) -> bool {
        let mut at = start;
        while at < end {
            match self.0.range(..=at).next_back() {
                Some((_, (stop, found))) if *stop > at && *found == tag => at = *stop,
                _ => return false,
            }
        }
        true
    }
}

/// The memories that a plan names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Arena,
    Input(usize),
    Output(usize),
}

/// A range of bytes.
#[derive(Clone, Copy, Debug)]
struct Range {
    memory: Where,
    start: u64,
    end: u64,
    /// Which bytes of the tensor they are: the first.
    first: u64,
}

impl Range {
    /// What its bytes are if they are of `value`.
    fn tag(&self, value: TensorId) -> Tag {
        Tag::Value(value, i128::from(self.start) - i128::from(self.first))
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.memory == other.memory && self.start < other.end && other.start < self.end
    }
}

struct Machine<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    /// The input that the application gives row by row.
    fed: Option<TensorId>,
    arena: Memory,
    outputs: Vec<Memory>,
    /// For every tensor, the one that it is a view of, or itself.
    value: Vec<TensorId>,
    /// Where the plan says that scratch is.
    scratch: BTreeMap<OpId, u64>,
    /// And what is kept from row to row.
    states: BTreeMap<OpId, u64>,
    /// Steps of each operator that are done, and which rows.
    done: Vec<BTreeSet<Option<u32>>>,
}

/// Carries out `plan` and holds every read against what was written.
///
/// # Errors
/// [`Code::Internal`](crate::error::Code::Internal), at the operator where the plan breaks.
pub fn check(graph: &Graph, lowering: &Lowering, plan: &Plan) -> Result<()> {
    let bad = |message: String| Err(Error::internal(format!("the memory plan is wrong: {message}")));
    if plan.places.len() != graph.tensors.len() {
        return bad(format!(
            "{} places for {} tensors",
            plan.places.len(),
            graph.tensors.len()
        ));
    }
    pools(plan).or_else(bad)?;
    let mut calls: Vec<Option<&Call>> = vec![None; graph.ops.len()];
    for call in &lowering.calls {
        if calls[call.op.index()].replace(call).is_some() {
            return bad(format!("two calls for {}", graph.op(call.op).describe()));
        }
    }
    for call in &lowering.row_calls {
        if call.rows.is_none() || lowering.calls.iter().any(|whole| whole.op == call.op) {
            return bad(format!("calls of two kinds for {}", graph.op(call.op).describe()));
        }
        calls[call.op.index()] = Some(call);
    }
    let mut value: Vec<TensorId> = (0..graph.tensors.len() as u32).map(TensorId).collect();
    for (op, call) in graph.ops.iter().zip(&calls) {
        match (&op.kind, call) {
            (OpKind::Reshape, None) => value[op.output().index()] = value[op.inputs[0].index()],
            (OpKind::Reshape, Some(_)) => return bad(format!("a call for the view {}", op.describe())),
            (_, None) => return bad(format!("no call for {}", op.describe())),
            _ => {}
        }
    }
    let mut machine = Machine {
        graph,
        plan,
        fed: lowering.feed.map(|op| graph.op(op).inputs[0]),
        arena: Memory::default(),
        outputs: graph.outputs.iter().map(|_| Memory::default()).collect(),
        value,
        scratch: plan
            .buffers
            .iter()
            .filter_map(|buffer| Some((buffer.scratch_of?, buffer.offset)))
            .collect(),
        states: (plan.buffers.iter())
            .filter_map(|buffer| Some((buffer.state_of?, buffer.offset)))
            .collect(),
        done: vec![BTreeSet::new(); graph.ops.len()],
    };
    machine.inputs().or_else(bad)?;
    for step in &plan.steps {
        let found = match step.rows {
            None => calls
                .get(step.op.index())
                .copied()
                .flatten()
                .filter(|call| call.rows.is_none()),
            Some(rows) => lowering.row_calls.get(rows.call).filter(|call| call.op == step.op),
        };
        let Some(call) = found else {
            return bad(format!("operator {} has no call", step.op.0));
        };
        machine
            .call(call, step.rows.map(|rows| rows.row))
            .or_else(|message| bad(message).map_err(|error| error.at(graph.op(step.op).describe())))?;
    }
    for (op, call) in graph.ops.iter().zip(&calls) {
        let Some(call) = call else { continue };
        let done = machine.done[call.op.index()].len();
        // Windows may skip rows, sums may not.
        let all = match call.rows {
            Some(rows) if matches!(rows.steps, Steps::Turns { .. }) => done == rows.count as usize,
            _ => done > 0,
        };
        if !all {
            return bad(format!("{} does not run to its end", op.describe()));
        }
    }
    machine.results().or_else(bad)?;
    if plan.lower_bound > plan.arena_size {
        return bad(format!(
            "{} bytes are below the bound {}",
            plan.arena_size, plan.lower_bound
        ));
    }
    Ok(())
}

type Check<T> = std::result::Result<T, String>;

/// The pools follow one another, aligned, none is larger than its memory, and buffers for streamed parameters are in one.
fn pools(plan: &Plan) -> Check<()> {
    let mut end: u64 = 0;
    for pool in &plan.pools {
        if pool.start != end.next_multiple_of(plan.arena_align.max(1)) || pool.size > pool.capacity {
            return Err(format!("{pool:?} follows {end} bytes"));
        }
        end = pool.start.checked_add(pool.size).ok_or("the pools do not end")?;
    }
    if !plan.pools.is_empty() && end != plan.arena_size {
        return Err(format!("the pools have {end} bytes, the arena {}", plan.arena_size));
    }
    for index in 0..plan.rows.len() {
        let pool = plan.pool_of_rows(index);
        if plan.rows[index]
            .iter()
            .flatten()
            .any(|offset| plan.pool_of(*offset) != pool)
        {
            return Err(format!("rows of one tensor are in {pool} and in another pool"));
        }
    }
    match plan.staging {
        Some(staging) => {
            let end = staging
                .size
                .checked_mul(2)
                .and_then(|both| both.checked_add(staging.offset));
            match end {
                Some(end) if in_one_area(plan, staging.offset, end) => Ok(()),
                _ => Err(format!("{staging:?} is not in the arena")),
            }
        }
        None => Ok(()),
    }
}

/// Whether bytes are in one memory.
fn in_one_area(plan: &Plan, start: u64, end: u64) -> bool {
    let holds = |(first, bytes): (u64, u64)| first <= start && first.checked_add(bytes).is_some_and(|last| end <= last);
    plan.areas().into_iter().any(holds)
}

impl Machine<'_> {
    fn name(&self, id: TensorId) -> String {
        self.graph.tensor(id).describe()
    }

    /// The bytes of a tensor that is not a constant.
    fn range(&self, id: TensorId) -> Check<Range> {
        self.bytes(id, 0, self.graph.tensor(id).bytes() as u64, None)
    }

    /// The bytes of one row of a tensor.
    fn row(&self, id: TensorId, row: u32) -> Check<Range> {
        let tensor = self.graph.tensor(id);
        let rows = match tensor.shape.0.as_slice() {
            [1, rows, _, _] if u64::from(row) < *rows as u64 => *rows as u64,
            _ => return Err(format!("{} has no row {row}", self.name(id))),
        };
        let unit = tensor.bytes() as u64 / rows;
        self.bytes(id, u64::from(row) * unit, unit, Some(row))
    }

    /// Bytes of a tensor from `first` on.
    fn bytes(&self, id: TensorId, first: u64, bytes: u64, row: Option<u32>) -> Check<Range> {
        let (memory, start, size, align) = match self.plan.places[id.index()] {
            Place::Arena(offset) => (
                Where::Arena,
                offset.saturating_add(first),
                self.plan.arena_size,
                super::ALIGN,
            ),
            Place::Rows(index) => {
                let rows = self.plan.rows.get(index as usize);
                let at = rows.and_then(|rows| rows.get(row? as usize).copied().flatten());
                let at = at.ok_or_else(|| format!("row {row:?} of {} has no place", self.name(id)))?;
                (
                    Where::Arena,
                    at,
                    self.plan.arena_size,
                    self.graph.tensor(id).dtype.bytes() as u64,
                )
            }
            Place::Input(i) => (Where::Input(i), first, self.boundary(&self.graph.inputs, i)?, 1),
            Place::Output(i) => (Where::Output(i), first, self.boundary(&self.graph.outputs, i)?, 1),
            place => return Err(format!("{} is at {place:?}", self.name(id))),
        };
        let aligned = if row.is_none() { start % align == 0 } else { true };
        match start.checked_add(bytes) {
            Some(end) if end <= size && aligned && (memory != Where::Arena || self.free(start, end)) => Ok(Range {
                memory,
                start,
                end,
                first,
            }),
            _ => Err(format!(
                "{} does not lie aligned inside its {size} bytes",
                self.name(id)
            )),
        }
    }

    /// Whether bytes of the arena are in one memory, and none of them is for streamed parameters.
    fn free(&self, start: u64, end: u64) -> bool {
        let apart = |staging: Staging| end <= staging.offset || staging.offset + 2 * staging.size <= start;
        in_one_area(self.plan, start, end) && self.plan.staging.is_none_or(apart)
    }

    /// Bytes of model input or output `i`.
    fn boundary(&self, list: &[TensorId], i: usize) -> Check<u64> {
        let id = list.get(i).ok_or_else(|| format!("there is no input or output {i}"))?;
        Ok(self.graph.tensor(*id).bytes() as u64)
    }

    fn write(&mut self, range: Range, tag: Tag) -> Check<()> {
        match range.memory {
            Where::Arena => self.arena.write(range.start, range.end, tag),
            Where::Output(i) => self.outputs[i].write(range.start, range.end, tag),
            Where::Input(i) => return Err(format!("model input {i} is written")),
        }
        Ok(())
    }

    fn holds(&self, range: Range, id: TensorId) -> bool {
        let value = self.value[id.index()];
        let tag = range.tag(value);
        match range.memory {
            Where::Arena => self.arena.holds(range.start, range.end, tag),
            Where::Output(i) => self.outputs[i].holds(range.start, range.end, tag),
            Where::Input(i) => self.graph.inputs[i] == value,
        }
    }

    /// The application has written the inputs.
    fn inputs(&mut self) -> Check<()> {
        for (i, id) in self.graph.inputs.iter().enumerate() {
            let place = self.plan.places[id.index()];
            match (self.plan.io, place) {
                (Io::Pointers, Place::Input(at)) if at == i => {}
                (Io::Arena, Place::Input(at)) if at == i && self.fed == Some(*id) => {}
                (Io::Arena, Place::Arena(_)) => {
                    let range = self.range(*id)?;
                    self.write(range, range.tag(*id))?;
                }
                _ => return Err(format!("model input {} is at {place:?}", self.name(*id))),
            }
        }
        // One input must not have overwritten another.
        for id in &self.graph.inputs {
            if !self.holds(self.range(*id)?, *id) {
                return Err(format!("model input {} overlaps another", self.name(*id)));
            }
        }
        Ok(())
    }

    /// The rows of `id` that step `row` of a call with windows reads.
    fn window(&self, call: &Call, id: TensorId, row: u32) -> Check<Vec<u32>> {
        let taps = call
            .rows
            .and_then(|rows| rows.taps)
            .ok_or("a window of an unknown size")?;
        let [count, stride, dilation, top] = match &self.graph.op(call.op).kind {
            OpKind::Conv2d { window, .. } | OpKind::DepthwiseConv2d { window, .. } | OpKind::Pool2d { window, .. } => {
                [window.size[0], window.stride[0], window.dilation[0], window.padding.top].map(|n| n as i64)
            }
            OpKind::Pad { amounts, .. } if amounts.len() == 4 => [1, 1, 1, amounts[1][0] as i64],
            kind => return Err(format!("{} has no window", kind.name())),
        };
        let height = self.graph.tensor(id).shape.nhwc()[1] as i64;
        let known = [taps.count, taps.stride, taps.dilation, taps.top].map(i64::from);
        if known != [count, stride, dilation, top] {
            return Err("the window is not the operator's".into());
        }
        let all = (0..count).map(|tap| i64::from(row) * stride - top + tap * dilation);
        Ok(all
            .filter(|row| (0..height).contains(row))
            .map(|row| row as u32)
            .collect())
    }

    fn call(&mut self, call: &Call, row: Option<u32>) -> Check<()> {
        let op = self.graph.op(call.op);
        let turn = self.done[call.op.index()].len() as u32;
        if !self.done[call.op.index()].insert(row) {
            return Err(match row {
                Some(row) => format!("row {row} is made twice"),
                None => "it runs twice".into(),
            });
        }
        if row.is_some() != call.rows.is_some()
            || call
                .rows
                .is_some_and(|rows| !rows.steps.contains(row.unwrap_or(0), turn))
        {
            return Err(format!("row {row:?} is none of the call's"));
        }
        let number = row.unwrap_or(0);
        // Ranges that are read, with how the output may lie over them; and ranges that are written.
        let mut reads: Vec<(Range, Option<Overlap>)> = Vec::new();
        let mut writes: Vec<(Range, Tag)> = Vec::new();
        let overlap = |id: &TensorId| call.overlaps.iter().find(|overlap| overlap.input == *id).copied();
        for operand in &call.operands {
            let (id, ranges) = match operand {
                Operand::Tensor(id) if op.outputs.contains(id) => {
                    let range = self.range(*id)?;
                    writes.push((range, range.tag(*id)));
                    continue;
                }
                Operand::Row(id) if op.outputs.contains(id) => {
                    let range = self.row(*id, number)?;
                    writes.push((range, range.tag(*id)));
                    continue;
                }
                Operand::Tensor(id) if self.graph.tensor(self.value[id.index()]).data.is_some() => {
                    if self.plan.places[id.index()] != Place::Constant {
                        return Err(format!("the constant {} is not placed as one", self.name(*id)));
                    }
                    continue;
                }
                Operand::Tensor(id) => (id, vec![self.range(*id)?]),
                // One tap may still step over rows.
                Operand::Row(id) if call.rows.is_some_and(|rows| rows.taps.is_some()) => {
                    let rows = self.window(call, *id, number)?;
                    if rows.len() != 1 {
                        return Err(format!("a window of {} rows is read as one", rows.len()));
                    }
                    (id, vec![self.row(*id, rows[0])?])
                }
                Operand::Row(id) => (id, vec![self.row(*id, number)?]),
                Operand::Window(id) => {
                    let rows = self.window(call, *id, number)?;
                    (id, rows.iter().map(|row| self.row(*id, *row)).collect::<Check<_>>()?)
                }
                Operand::Scratch if call.scratch.is_none() => {
                    return Err("scratch of an unknown size".into());
                }
                Operand::State if call.rows.is_none_or(|rows| rows.state.is_none()) => {
                    return Err("a state of an unknown size".into());
                }
                Operand::Parameter(_) | Operand::Scratch | Operand::State => continue,
            };
            for range in ranges {
                if !self.holds(range, *id) {
                    return Err(format!(
                        "{} is overwritten before it is read, or not written yet, from byte {}",
                        self.name(*id),
                        range.first
                    ));
                }
                reads.push((range, overlap(id)));
            }
        }
        let plan = self.plan;
        let area = |start: Option<&u64>, scratch: Scratch| -> Check<Range> {
            let start = *start.ok_or("scratch has no place")?;
            let end = start.checked_add(scratch.size).filter(|end| self.free(start, *end));
            let aligned = start.is_multiple_of(scratch.align) && plan.arena_align.is_multiple_of(scratch.align);
            Ok(Range {
                memory: Where::Arena,
                start,
                end: end
                    .filter(|_| aligned)
                    .ok_or("scratch does not lie aligned inside the arena")?,
                first: 0,
            })
        };
        if let Some(scratch) = call.scratch.filter(|scratch| scratch.size > 0) {
            let range = area(self.scratch.get(&call.op), scratch)?;
            writes.push((range, Tag::Scratch(call.op)));
        }
        if let Some(state) = call.rows.and_then(|rows| rows.state) {
            let range = area(self.states.get(&call.op), state)?;
            if turn > 0 && !self.arena.holds(range.start, range.end, Tag::State(call.op)) {
                return Err("what is kept from row to row is overwritten".into());
            }
            writes.push((range, Tag::State(call.op)));
        }
        if call.rows.is_none()
            && op.outputs.len() != writes.iter().filter(|(_, tag)| matches!(tag, Tag::Value(..))).count()
        {
            return Err("an output is not written".into());
        }
        for (i, (range, tag)) in writes.iter().enumerate() {
            let mut others = writes[..i].iter().map(|(range, _)| range);
            let mut inputs = reads.iter().filter(|(read, _)| range.overlaps(read));
            let allowed = |overlap: &Option<Overlap>, read: &Range| {
                let distance = read.start.checked_sub(range.start);
                matches!((overlap, distance, tag), (Some(overlap), Some(distance), Tag::Value(..))
                    if distance >= overlap.gap && distance.is_multiple_of(overlap.modulus.max(1)))
            };
            if others.any(|other| range.overlaps(other)) || inputs.any(|(read, overlap)| !allowed(overlap, read)) {
                return Err("an input, an output or scratch of one call overlap".into());
            }
            self.write(*range, *tag)?;
        }
        Ok(())
    }

    /// The application reads the outputs.
    fn results(&self) -> Check<()> {
        for (i, id) in self.graph.outputs.iter().enumerate() {
            let place = self.plan.places[id.index()];
            match (self.plan.io, place) {
                (Io::Pointers, Place::Output(at)) if at == i => {}
                (Io::Pointers, Place::Arena(_)) if self.plan.kept.contains(&i) => {}
                (Io::Arena, Place::Arena(_)) => {}
                _ => return Err(format!("model output {} is at {place:?}", self.name(*id))),
            }
            if !self.holds(self.range(*id)?, *id) {
                return Err(format!("model output {} does not survive the run", self.name(*id)));
            }
        }
        Ok(())
    }
}
