//! Proof of a plan, derived from the graph and the calls alone: the plan is carried out with tagged bytes.
//!
//! Every byte of the arena and of the model's outputs carries the tensor that was last written to it. Each read must
//! see the bytes of the tensor that it means. Nothing of the planner's own derivation is used.

use super::{Io, Place, Plan};
use crate::error::{Error, Result};
use crate::graph::{Graph, OpId, OpKind, TensorId};
use crate::kernels::{Call, Lowering, Operand};
use std::collections::BTreeMap;

/// Who wrote a byte: a tensor that a call produced (views count as what they view), or a call's scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Value(TensorId),
    Scratch(OpId),
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
}

impl Range {
    fn overlaps(&self, other: &Range) -> bool {
        self.memory == other.memory && self.start < other.end && other.start < self.end
    }
}

struct Machine<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    arena: Memory,
    outputs: Vec<Memory>,
    /// For every tensor, the one that it is a view of, or itself.
    value: Vec<TensorId>,
    /// Where the plan says that scratch is.
    scratch: BTreeMap<OpId, u64>,
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
    let mut calls: Vec<Option<&Call>> = vec![None; graph.ops.len()];
    for call in &lowering.calls {
        if calls[call.op.index()].replace(call).is_some() {
            return bad(format!("two calls for {}", graph.op(call.op).describe()));
        }
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
        arena: Memory::default(),
        outputs: graph.outputs.iter().map(|_| Memory::default()).collect(),
        value,
        scratch: plan
            .buffers
            .iter()
            .filter_map(|buffer| Some((buffer.scratch_of?, buffer.offset)))
            .collect(),
    };
    machine.inputs().or_else(bad)?;
    let mut done = vec![false; graph.ops.len()];
    for op in &plan.order {
        let Some(call) = calls.get(op.index()).copied().flatten() else {
            return bad(format!("operator {} has no call", op.0));
        };
        if std::mem::replace(&mut done[op.index()], true) {
            return bad(format!("{} runs twice", graph.op(*op).describe()));
        }
        machine
            .call(call)
            .or_else(|message| bad(message).map_err(|error| error.at(graph.op(*op).describe())))?;
    }
    if plan.order.len() != lowering.calls.len() {
        return bad(format!("{} of {} calls run", plan.order.len(), lowering.calls.len()));
    }
    machine.results().or_else(bad)?;
    if let Some(staging) = plan.staging
        && staging
            .size
            .checked_mul(2)
            .and_then(|both| both.checked_add(staging.offset))
            != Some(plan.arena_size)
    {
        return bad(format!("{staging:?} does not end the arena"));
    }
    if plan.lower_bound > plan.arena_size {
        return bad(format!(
            "{} bytes are below the bound {}",
            plan.arena_size, plan.lower_bound
        ));
    }
    Ok(())
}

type Check<T> = std::result::Result<T, String>;

impl Machine<'_> {
    fn name(&self, id: TensorId) -> String {
        self.graph.tensor(id).describe()
    }

    /// The bytes of a tensor that is not a constant.
    fn range(&self, id: TensorId) -> Check<Range> {
        let bytes = self.graph.tensor(id).bytes() as u64;
        let (memory, start, size, align) = match self.plan.places[id.index()] {
            Place::Arena(offset) => (Where::Arena, offset, self.end(), super::ALIGN),
            Place::Input(i) => (Where::Input(i), 0, self.boundary(&self.graph.inputs, i)?, 1),
            Place::Output(i) => (Where::Output(i), 0, self.boundary(&self.graph.outputs, i)?, 1),
            place => return Err(format!("{} is at {place:?}", self.name(id))),
        };
        match start.checked_add(bytes) {
            Some(end) if end <= size && start % align == 0 => Ok(Range { memory, start, end }),
            _ => Err(format!(
                "{} does not lie aligned inside its {size} bytes",
                self.name(id)
            )),
        }
    }

    /// Where the arena ends for everything but streamed parameters.
    fn end(&self) -> u64 {
        self.plan.staging.map_or(self.plan.arena_size, |staging| staging.offset)
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
        let tag = Tag::Value(value);
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
                (Io::Arena, Place::Arena(_)) => {
                    let range = self.range(*id)?;
                    self.write(range, Tag::Value(*id))?;
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

    fn call(&mut self, call: &Call) -> Check<()> {
        let op = self.graph.op(call.op);
        let mut reads = Vec::new();
        for operand in &call.operands {
            match operand {
                Operand::Tensor(id) if op.outputs.contains(id) => {}
                Operand::Tensor(id) if self.graph.tensor(self.value[id.index()]).data.is_some() => {
                    if self.plan.places[id.index()] != Place::Constant {
                        return Err(format!("the constant {} is not placed as one", self.name(*id)));
                    }
                }
                Operand::Tensor(id) => {
                    let range = self.range(*id)?;
                    if !self.holds(range, *id) {
                        return Err(format!("{} is overwritten before it is read", self.name(*id)));
                    }
                    reads.push(range);
                }
                Operand::Scratch if call.scratch.is_none() => {
                    return Err("scratch of an unknown size".into());
                }
                Operand::Parameter(_) | Operand::Scratch => {}
            }
        }
        let mut writes = Vec::new();
        if let Some(scratch) = call.scratch.filter(|scratch| scratch.size > 0) {
            let start = *self.scratch.get(&call.op).ok_or("scratch has no place")?;
            let end = start.checked_add(scratch.size).filter(|end| *end <= self.end());
            let end = end
                .filter(|_| start.is_multiple_of(scratch.align) && self.plan.arena_align.is_multiple_of(scratch.align));
            let range = Range {
                memory: Where::Arena,
                start,
                end: end.ok_or("scratch does not lie aligned inside the arena")?,
            };
            writes.push((range, Tag::Scratch(call.op)));
        }
        for id in &op.outputs {
            writes.push((self.range(*id)?, Tag::Value(*id)));
        }
        for (i, (range, tag)) in writes.iter().enumerate() {
            let others = writes[..i].iter().map(|(range, _)| range);
            if reads.iter().chain(others).any(|other| range.overlaps(other)) {
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
