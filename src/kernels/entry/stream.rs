//! Runs of rows: a loop over a tape of steps.
//!
//! A step on the tape is the number of a call and the number of a row. The loop branches to the call's block, which makes
//! the pointers to the rows and calls the kernel. Where the rows of a tensor have places of their own, a table has their
//! offsets in the arena, or in the part of it that is in one memory; rows above and below a tensor have an entry that stands for a row of constants.

use super::Location;
use super::body::Body;
use crate::data::{Bytes, Contents};
use crate::error::{Error, Result};
use crate::graph::{Graph, TensorId};
use crate::kernels::emit::Emitter;
use crate::kernels::{Call, Lowering, Operand, Parameter, ParameterId, ParameterKind};
use crate::plan::{Place, Plan, Step};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, StackSlotData, StackSlotKind, Value, types};
use std::ops::Range;

/// What runs of rows need beside kernels.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// Steps that a loop makes, in execution order.
    pub runs: Vec<Run>,
    /// For each tensor at [`Place::Rows`], by its index.
    pub tables: Vec<Table>,
}

/// Steps that a loop makes.
#[derive(Clone, Debug)]
pub struct Run {
    /// They are these of [`Plan::steps`].
    pub steps: Range<usize>,
    /// The tape.
    pub tape: ParameterId,
    /// Whether numbers on the tape take two bytes.
    pub wide: bool,
    /// The calls by their numbers on the tape (indices of [`Lowering::row_calls`]), and how often each is made.
    pub calls: Vec<(usize, u64)>,
}

/// The offsets of a tensor's rows.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The entries.
    pub entries: ParameterId,
    /// Entries before that of row 0.
    pub before: u32,
    /// Whether an entry takes four bytes, or two.
    pub wide: bool,
}

/// Makes the tapes and tables of a plan, as parameters of `lowering`.
pub fn prepare(plan: &Plan, lowering: &mut Lowering) {
    let mut streams = Streams::default();
    let add = |lowering: &mut Lowering, name: String, align: u64, bytes: Vec<u8>| {
        lowering.parameters.push(Parameter {
            name,
            kind: ParameterKind::Table,
            tensors: vec![],
            align,
            contents: Contents::Bytes(Bytes::from_vec(bytes)),
        });
        ParameterId(lowering.parameters.len() as u32 - 1)
    };
    for (index, rows) in plan.rows.iter().enumerate() {
        let (start, bytes) = plan.areas()[plan.pool_of_rows(index)];
        let wide = bytes >= u64::from(u16::MAX);
        // How far windows reach beyond the rows.
        let (mut before, mut after) = (0, 0);
        for call in &lowering.row_calls {
            let taps = call.rows.and_then(|rows| rows.taps);
            let reads = |operand: &Operand| match operand {
                Operand::Window(id) | Operand::Row(id) => plan.places[id.index()] == Place::Rows(index as u32),
                _ => false,
            };
            if let (Some(taps), true) = (taps, call.operands.iter().any(reads)) {
                let count = call.rows.map_or(0, |rows| rows.count);
                let end = count.saturating_sub(1) * taps.stride + (taps.count - 1) * taps.dilation;
                before = before.max(taps.top);
                after = after.max((end + 1).saturating_sub(taps.top + rows.len() as u32));
            }
        }
        let mut bytes = Vec::new();
        let missing = std::iter::repeat_n(None, before as usize);
        for entry in missing
            .chain(rows.iter().map(|at| at.map(|at| at - start)))
            .chain(std::iter::repeat_n(None, after as usize))
        {
            // All ones where there is no row.
            match (entry, wide) {
                (Some(at), true) => bytes.extend((at as u32).to_le_bytes()),
                (Some(at), false) => bytes.extend((at as u16).to_le_bytes()),
                (None, _) => bytes.extend(std::iter::repeat_n(0xff, if wide { 4 } else { 2 })),
            }
        }
        let entries = add(lowering, format!("rows.{index}"), if wide { 4 } else { 2 }, bytes);
        streams.tables.push(Table { entries, before, wide });
    }
    let mut first = 0;
    while first < plan.steps.len() {
        let len = plan.steps[first..]
            .iter()
            .take_while(|step| step.rows.is_some())
            .count();
        if len == 0 {
            first += 1;
            continue;
        }
        let mut calls: Vec<(usize, u64)> = Vec::new();
        let mut numbers = Vec::new();
        for rows in plan.steps[first..first + len].iter().filter_map(|step| step.rows) {
            let number = match calls.iter().position(|(call, _)| *call == rows.call) {
                Some(number) => number,
                None => {
                    calls.push((rows.call, 0));
                    calls.len() - 1
                }
            };
            calls[number].1 += 1;
            numbers.push((number as u32, rows.row));
        }
        let wide = numbers.iter().any(|(number, row)| *number > 255 || *row > 255);
        let mut bytes = Vec::new();
        for n in numbers.into_iter().flat_map(|(number, row)| [number, row]) {
            bytes.extend(&n.to_le_bytes()[..if wide { 2 } else { 1 }]);
        }
        let tape = add(
            lowering,
            format!("tape.{}", streams.runs.len()),
            if wide { 2 } else { 1 },
            bytes,
        );
        streams.runs.push(Run {
            steps: first..first + len,
            tape,
            wide,
            calls,
        });
        first += len;
    }
    lowering.streams = streams;
}

/// The bytes of the operator's result that a step makes.
pub fn result(graph: &Graph, lowering: &Lowering, step: &Step) -> Range<usize> {
    let output = graph.op(step.op).output();
    let bytes = graph.tensor(output).bytes();
    let Some(rows) = step.rows else { return 0..bytes };
    let operands = &lowering.row_calls[rows.call].operands;
    if operands.contains(&Operand::Row(output)) {
        let unit = bytes / graph.tensor(output).shape.nhwc()[1].max(1);
        return rows.row as usize * unit..(rows.row as usize + 1) * unit;
    }
    // A sum is there after the last row.
    0..if operands.contains(&Operand::Tensor(output)) {
        bytes
    } else {
        0
    }
}

impl Body<'_, '_, '_> {
    /// The loop over a tape.
    pub fn rows(&mut self, run: &Run, trace: Option<&str>) -> Result<()> {
        let lowering = self.f.model.lowering;
        if self.f.model.hooks {
            return Err(Error::internal(
                "operators that run row by row have no hooks around them",
            ));
        }
        self.f.b.set_srcloc(Location::Checks.source());
        let pointer = self.f.pointer;
        let width: i32 = if run.wide { 2 } else { 1 };
        let steps = run.steps.len();
        let taps = run
            .calls
            .iter()
            .filter_map(|(call, _)| lowering.row_calls[*call].rows?.taps);
        let taps = taps.map(|taps| taps.count).max().unwrap_or(0);
        if taps > 1 && self.window.is_none() {
            let most = lowering.row_calls.iter().filter_map(|call| call.rows?.taps);
            let most = most.map(|taps| taps.count).max().unwrap_or(taps);
            let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, most * pointer.bytes(), 3);
            self.window = Some(self.f.b.create_sized_stack_slot(slot));
        }
        let start = self.parameter(run.tape)?;
        let end = self.plus(start, i64::from(2 * width) * steps as i64);
        let header = self.f.b.create_block();
        let latch = self.f.b.create_block();
        let exit = self.f.b.create_block();
        let at = self.f.b.append_block_param(header, pointer);
        self.f.b.ins().jump(header, &[BlockArg::from(start)]);
        self.f.switch(header, steps as u64);
        let load = |builder: &mut Self, offset: i32| {
            let flags = Emitter::flags();
            if run.wide {
                builder.f.b.ins().uload16(pointer, flags, at, offset)
            } else {
                builder.f.b.ins().uload8(pointer, flags, at, offset)
            }
        };
        let number = load(self, 0);
        let row = load(self, width);
        // The call is found by halving; the ranges that are left, with their blocks.
        let mut left: Vec<(Option<Block>, Range<usize>)> = vec![(None, 0..run.calls.len())];
        while let Some((block, range)) = left.pop() {
            let runs: u64 = run.calls[range.clone()].iter().map(|(_, runs)| runs).sum();
            if let Some(block) = block {
                self.f.switch(block, runs);
            }
            if let [(call, _)] = run.calls[range.clone()] {
                let call = &lowering.row_calls[call];
                self.f.b.set_srcloc(Location::Op(call.op).source());
                self.row_call(call, row, runs)
                    .map_err(|error| error.at(self.f.model.graph.op(call.op).describe()))?;
                if let Some(trace) = trace {
                    self.row_trace(trace, run, (at, start, 2 * width), call, row)?;
                }
                self.f.b.ins().jump(latch, &[]);
                self.f.b.set_srcloc(Location::Checks.source());
                continue;
            }
            let middle = range.start + range.len() / 2;
            let (low, high) = (self.f.b.create_block(), self.f.b.create_block());
            let bound = self.f.b.ins().iconst(pointer, middle as i64);
            let less = self.f.b.ins().icmp(IntCC::UnsignedLessThan, number, bound);
            self.f.b.ins().brif(less, low, &[], high, &[]);
            left.push((Some(high), middle..range.end));
            left.push((Some(low), range.start..middle));
        }
        self.f.switch(latch, steps as u64);
        let next = self.plus(at, i64::from(2 * width));
        let more = self.f.b.ins().icmp(IntCC::NotEqual, next, end);
        self.f.b.ins().brif(more, header, &[BlockArg::from(next)], exit, &[]);
        self.f.switch(exit, 1);
        Ok(())
    }

    fn plus(&mut self, value: Value, bytes: i64) -> Value {
        self.f.offset(value, bytes as u64)
    }

    fn times(&mut self, value: Value, factor: i64) -> Value {
        if factor == 1 {
            return value;
        }
        let factor = self.f.b.ins().iconst(self.f.pointer, factor);
        self.f.b.ins().imul(value, factor)
    }

    /// Calls what makes a row, in a block that runs so often.
    fn row_call(&mut self, call: &Call, row: Value, runs: u64) -> Result<()> {
        let model = self.f.model;
        if self.feeds(call) {
            let to = self.row(model.graph.op(call.op).output(), row, None)?;
            return self.feed_row(call, row, to, runs);
        }
        let missing = |what: &str| Error::internal(format!("the plan has no {what} for a kernel"));
        let rows = call.rows.ok_or_else(|| missing("rows"))?;
        let kernel = call.kernel.ok_or_else(|| missing("kernel"))?;
        let signature = &model.lowering.kernel(kernel).function.signature;
        if *signature != super::super::emit::signature(model.target, call.operands.len(), false) {
            return Err(Error::internal("a kernel's signature does not fit its call"));
        }
        let output = model.graph.op(call.op).output();
        let mut args = Vec::with_capacity(call.operands.len());
        for operand in &call.operands {
            args.push(match operand {
                Operand::Row(id) if *id == output => self.row(*id, row, None)?,
                Operand::Row(id) => {
                    let (row, above) = match rows.taps {
                        Some(taps) => (self.times(row, taps.stride.into()), i64::from(taps.top)),
                        None => (row, 0),
                    };
                    self.near_row(*id, row, -above, None)?
                }
                Operand::Window(id) => {
                    let taps = rows.taps.ok_or_else(|| missing("window"))?;
                    let slot = self.window.ok_or_else(|| missing("table"))?;
                    let outside = rows.outside.map(|outside| self.parameter(outside)).transpose()?;
                    let height = model.graph.tensor(*id).shape.nhwc()[1] as u32;
                    let end = (rows.count - 1) * taps.stride + (taps.count - 1) * taps.dilation;
                    let reaches = taps.top > 0 || end >= height + taps.top;
                    let first = self.times(row, taps.stride.into());
                    let pointers = self.f.b.ins().stack_addr(self.f.pointer, slot, 0);
                    for tap in 0..taps.count {
                        let distance = i64::from(tap * taps.dilation) - i64::from(taps.top);
                        let from = self.near_row(*id, first, distance, outside.filter(|_| reaches))?;
                        let place = (tap * self.f.pointer.bytes()) as i32;
                        self.f.b.ins().store(Emitter::flags(), from, pointers, place);
                    }
                    pointers
                }
                Operand::Tensor(id) => self.tensor(*id)?,
                Operand::Parameter(id) => self.parameter(*id)?,
                Operand::Scratch => self.scratch(call)?,
                Operand::State => self.arena(model.plan.state(call.op).ok_or_else(|| missing("state"))?),
            });
        }
        let symbol = &model.names.kernel(kernel).symbol;
        self.f.symbols.call(&mut self.f.b, symbol, signature, &args);
        Ok(())
    }

    fn row(&mut self, id: TensorId, row: Value, outside: Option<Value>) -> Result<Value> {
        self.near_row(id, row, 0, outside)
    }

    /// The address of row `row + distance` of a tensor, or `outside` if it has no such row.
    fn near_row(&mut self, id: TensorId, row: Value, distance: i64, outside: Option<Value>) -> Result<Value> {
        let tensor = self.f.model.graph.tensor(id);
        let height = tensor.shape.nhwc()[1] as i64;
        let unit = tensor.bytes() as i64 / height.max(1);
        let Some(Place::Rows(index)) = self.f.model.plan.places.get(id.index()).copied() else {
            let base = self.tensor(id)?;
            let there = self.times(row, unit);
            let there = self.f.b.ins().iadd(base, there);
            let there = self.plus(there, distance * unit);
            let Some(outside) = outside else { return Ok(there) };
            let row = self.plus(row, distance);
            let height = self.f.b.ins().iconst(self.f.pointer, height);
            let inside = self.f.b.ins().icmp(IntCC::UnsignedLessThan, row, height);
            return Ok(self.f.b.ins().select(inside, there, outside));
        };
        let table = self.f.model.lowering.streams.tables.get(index as usize).copied();
        let table = table.ok_or_else(|| Error::internal("the rows of a tensor have no table"))?;
        let bytes = if table.wide { 4 } else { 2 };
        let entries = self.parameter(table.entries)?;
        let place = self.times(row, bytes);
        let entry = self.f.b.ins().iadd(entries, place);
        let at = ((distance + i64::from(table.before)) * bytes) as i32;
        let flags = Emitter::flags();
        let (pointer, wide) = (self.f.pointer, table.wide);
        let offset = match (wide, pointer) {
            (false, _) => self.f.b.ins().uload16(pointer, flags, entry, at),
            (true, types::I64) => self.f.b.ins().uload32(flags, entry, at),
            (true, _) => self.f.b.ins().load(pointer, flags, entry, at),
        };
        let plan = self.f.model.plan;
        let (start, _) = plan.areas()[plan.pool_of_rows(index as usize)];
        let arena = self.arena(start);
        let there = self.f.b.ins().iadd(arena, offset);
        let Some(outside) = outside else { return Ok(there) };
        let none = if wide { i64::from(u32::MAX) } else { i64::from(u16::MAX) };
        let none = self.f.b.ins().iconst(pointer, none);
        let inside = self.f.b.ins().icmp(IntCC::NotEqual, offset, none);
        Ok(self.f.b.ins().select(inside, there, outside))
    }

    /// Reports what a step of `run` has made; `tape` is where the tape is, where it begins, and the bytes of a step.
    fn row_trace(&mut self, trace: &str, run: &Run, tape: (Value, Value, i32), call: &Call, row: Value) -> Result<()> {
        let output = self.f.model.graph.op(call.op).output();
        let tensor = self.f.model.graph.tensor(output);
        let (data, len) = if call.operands.contains(&Operand::Row(output)) {
            let rows = tensor.shape.nhwc()[1].max(1);
            (self.row(output, row, None)?, tensor.bytes() / rows)
        } else if call.operands.contains(&Operand::Tensor(output)) {
            (self.tensor(output)?, tensor.bytes())
        } else {
            (self.arena(0), 0)
        };
        let (at, start, width) = tape;
        let passed = self.f.b.ins().isub(at, start);
        let by = self.f.b.ins().iconst(types::I32, i64::from(width.trailing_zeros()));
        let step = self.f.b.ins().ushr(passed, by);
        let step = self.plus(step, run.steps.start as i64);
        let step = match self.f.pointer {
            types::I32 => step,
            _ => self.f.b.ins().ireduce(types::I32, step),
        };
        let len = self.f.b.ins().iconst(types::I64, len as i64);
        let signature = super::trace_signature(self.f.model.target);
        self.f
            .symbols
            .call(&mut self.f.b, trace, &signature, &[step, data, len]);
        Ok(())
    }
}
