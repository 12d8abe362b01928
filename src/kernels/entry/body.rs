//! What `<model>_run` and `<model>_step` have in common: the checks of their arguments, and the operators.

use super::super::emit;
use super::super::{Call, Launch, Operand, ParameterId};
use super::external::Shared;
use super::frame::{Frame, function};
use super::parameters::Layout;
use super::{Argument, ERROR_ARENA_ALIGNMENT, Location, Model};
use crate::codegen::Input;
use crate::error::{Error, Result};
use crate::graph::{OpId, TensorId};
use crate::image::Access;
use crate::names::Helper;
use crate::plan::{Io, Place};
use cranelift_codegen::ir::{InstBuilder, StackSlot, Value, types};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Where everything is, in values of the function under construction.
pub(super) struct Body<'b, 'm, 'f> {
    pub f: &'b mut Frame<'m, 'f>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    /// `struct <model>_rows`.
    rows: Option<Value>,
    /// The caller's arena, or its parts in their memories; none if it is static, and for a part of no bytes.
    arenas: Vec<Option<Value>>,
    /// `struct <model>_parameters`.
    parameters: Option<Value>,
    /// The image, if it is in memory.
    image: Option<Value>,
    hooks: Option<Value>,
    /// Offset of each operator's scratch.
    pub(super) scratch: BTreeMap<OpId, u64>,
    calls: BTreeMap<OpId, &'m Call>,
    pieces: Pieces,
    /// The table of the rows that a window sees.
    pub(super) window: Option<StackSlot>,
    /// For external functions.
    pub(super) shared: Shared,
}

/// Pieces of parameters that one launch after the other reads.
#[derive(Clone, Copy)]
struct Group {
    /// Where the first is in the image.
    offset: u64,
    /// From one to the next.
    stride: u64,
    bytes: u64,
    /// The staging buffer of the first.
    buffer: u64,
}

/// All pieces of a run: a launch that reads none has no group.
struct Pieces {
    groups: Vec<Group>,
    /// By step, the group of each launch.
    steps: Vec<Vec<Option<usize>>>,
}

impl<'b, 'm, 'f> Body<'b, 'm, 'f> {
    /// Takes the arguments of `<model>_run`, and returns an error where they cannot be used.
    pub fn new(f: &'b mut Frame<'m, 'f>, arguments: &[Value]) -> Result<Self> {
        let model = f.model;
        let (graph, lowering, plan) = (model.graph, model.lowering, model.plan);
        let mut body = Body {
            f,
            inputs: Vec::new(),
            outputs: Vec::new(),
            rows: None,
            arenas: Vec::new(),
            parameters: None,
            image: None,
            hooks: None,
            scratch: (plan.buffers.iter())
                .filter_map(|buffer| Some((buffer.scratch_of?, buffer.offset)))
                .collect(),
            calls: lowering.calls.iter().map(|call| (call.op, call)).collect(),
            pieces: Pieces {
                groups: Vec::new(),
                steps: Vec::new(),
            },
            window: None,
            shared: Shared::new(model)?,
        };
        for (argument, value) in model.arguments().into_iter().zip(arguments.iter().copied()) {
            match argument {
                Argument::Inputs => body.inputs = body.read_struct(value, graph.inputs.len()),
                Argument::Outputs => body.outputs = body.read_struct(value, graph.outputs.len()),
                Argument::Rows => {
                    body.read_struct(value, 1);
                    body.rows = Some(value);
                }
                Argument::Parameters => body.bound(value),
                Argument::Arena => body.check_arena(value, plan.arena_size),
                Argument::Arenas => body.read_arenas(value),
                Argument::Hooks => body.hooks = Some(value),
            }
        }
        body.pieces = body.pieces()?;
        Ok(body)
    }

    /// The pointers of a struct; leaves with an error if one is null.
    fn read_struct(&mut self, structure: Value, count: usize) -> Vec<Value> {
        if count == 0 {
            return Vec::new();
        }
        self.f.refuse_null(structure);
        let (pointer, width) = (self.f.pointer, self.f.pointer.bytes() as i32);
        let member = |i: usize| {
            let value = self.f.load(pointer, structure, i as i32 * width);
            self.f.refuse_null(value);
            value
        };
        (0..count).map(member).collect()
    }

    /// Leaves with an error if no image is bound.
    fn bound(&mut self, parameters: Value) {
        let Some(image) = self.f.model.image else { return };
        let layout = Layout::new(self.f.model, image);
        layout.require_bound(self.f, parameters);
        self.parameters = Some(parameters);
        if image.access == Access::External {
            self.image = Some(self.f.load(self.f.pointer, parameters, layout.image));
        }
    }

    /// A caller's arena is neither null nor misaligned. One of no bytes may be anything.
    fn check_arena(&mut self, arena: Value, size: u64) {
        self.arenas.push(Some(arena));
        let plan = self.f.model.plan;
        if size == 0 {
            return;
        }
        self.f.refuse_null(arena);
        if plan.arena_align > 1 {
            let mask = self.f.int(self.f.pointer, plan.arena_align as i64 - 1);
            let low = self.f.b.ins().band(arena, mask);
            self.f.refuse(low, ERROR_ARENA_ALIGNMENT);
        }
    }

    /// A caller's arenas, one pointer for each memory.
    fn read_arenas(&mut self, structure: Value) {
        let plan = self.f.model.plan;
        if plan.arena_size > 0 {
            self.f.refuse_null(structure);
        }
        let width = self.f.pointer.bytes() as i32;
        for (i, pool) in plan.pools.iter().enumerate() {
            if pool.size == 0 {
                self.arenas.push(None);
                continue;
            }
            let arena = self.f.load(self.f.pointer, structure, i as i32 * width);
            self.check_arena(arena, pool.size);
        }
    }

    /// The address of an offset of the arena, in the memory where that is.
    pub(super) fn arena(&mut self, offset: u64) -> Value {
        let (pool, offset) = self.f.model.plan.locate(offset);
        match self.arenas.get(pool).copied().flatten() {
            None => {
                let Frame {
                    b,
                    symbols,
                    model,
                    pointer,
                    ..
                } = &mut *self.f;
                symbols.address(b, *pointer, &model.names.pool(pool).symbol, offset as i64)
            }
            Some(arena) => self.f.offset(arena, offset),
        }
    }

    pub(super) fn tensor(&mut self, id: TensorId) -> Result<Value> {
        let model = self.f.model;
        let place = model.plan.places.get(id.index()).copied().unwrap_or(Place::None);
        let missing = || {
            Error::internal(format!("a kernel uses a tensor that the plan puts nowhere ({place:?})")).at(format!(
                "tensor {} {}",
                id.0,
                model.graph.tensor(id).describe()
            ))
        };
        match place {
            Place::Arena(offset) => Ok(self.arena(offset)),
            Place::Input(i) => self.inputs.get(i).copied().ok_or_else(missing),
            Place::Output(i) => self.outputs.get(i).copied().ok_or_else(missing),
            Place::Constant => {
                let named = model.names.constants.get(&id).ok_or_else(missing)?;
                Ok(self.f.symbol(&named.symbol))
            }
            Place::Rows(_) | Place::None => Err(missing()),
        }
    }

    /// The address of a byte of the image.
    pub(super) fn outside(&mut self, offset: u64) -> Result<Value> {
        let base = self.image;
        let base = base.ok_or_else(|| Error::internal("a parameter that nothing reads"))?;
        Ok(self.f.offset(base, offset))
    }

    /// What gives the rows of the input.
    pub(super) fn rows_of_input(&self) -> Result<Value> {
        self.rows
            .ok_or_else(|| Error::internal("nothing to read the input with"))
    }

    fn call_of(&self, step: usize) -> Result<&'m Call> {
        let op = self.f.model.plan.order[step];
        self.calls.get(&op).copied().ok_or_else(|| {
            Error::internal("the plan runs an operator that was not lowered").at(self.f.model.graph.op(op).describe())
        })
    }

    /// The pieces that a run reads, in order.
    fn pieces(&self) -> Result<Pieces> {
        let model = self.f.model;
        let image = model.image.filter(|image| image.access == Access::Streamed);
        let mut pieces = Pieces {
            groups: Vec::new(),
            steps: Vec::new(),
        };
        let mut buffer = 0;
        let by_rows = model.plan.steps.iter().filter(|step| step.rows.is_some());
        let by_rows: BTreeSet<OpId> = by_rows.map(|step| step.op).collect();
        for step in 0..model.plan.order.len() {
            if by_rows.contains(&model.plan.order[step]) {
                pieces.steps.push(Vec::new());
                continue;
            }
            let call = self.call_of(step)?;
            let mut of_step = Vec::new();
            for launch in launches(call).iter() {
                let outside = |operand: &Operand| model.is_outside(operand);
                let Some(image) = image.filter(|_| call.operands.iter().any(outside)) else {
                    of_step.push(None);
                    continue;
                };
                let (offset, bytes) = image.piece(call, launch)?;
                of_step.push(Some(pieces.groups.len()));
                pieces.groups.push(Group {
                    offset,
                    stride: launch.piece,
                    bytes,
                    buffer,
                });
                buffer = (buffer + launch.count) % 2;
            }
            pieces.steps.push(of_step);
        }
        Ok(pieces)
    }

    /// Address of a staging buffer.
    fn staging(&mut self, buffer: u64) -> Result<Value> {
        let staging = self.f.model.plan.staging;
        let staging = staging.ok_or_else(|| Error::internal("the plan has no buffers for streamed parameters"))?;
        Ok(self.arena(staging.offset + buffer * staging.size))
    }

    /// Waits for the piece of `length` bytes at `present` and then asks for the next: where to, how much, from where.
    fn fetch(&mut self, [present, length]: [Value; 2], [next, bytes, offset]: [Value; 3]) -> Result<()> {
        let parameters = self.parameters;
        let parameters = parameters.ok_or_else(|| Error::internal("nothing to read parameters with"))?;
        let pointer = self.f.pointer;
        let symbol = self.f.model.helper(Helper::Fetch);
        let types = [pointer, pointer, types::I32, pointer, types::I32, types::I64];
        let args = [parameters, present, length, next, bytes, offset];
        let status = self.f.call(symbol, &types, Some(types::I32), &args)[0];
        self.f.leave_on(status);
        Ok(())
    }

    /// Where the first piece of a group goes, its length and where it is; zeros for no group.
    fn request(&mut self, group: Option<usize>) -> Result<[Value; 3]> {
        let group = group.and_then(|group| self.pieces.groups.get(group)).copied();
        let at = match group {
            Some(group) => self.staging(group.buffer)?,
            None => self.f.int(self.f.pointer, 0),
        };
        let (bytes, offset) = group.map_or((0, 0), |group| (group.bytes, group.offset));
        Ok([
            at,
            self.f.int(types::I32, bytes as i64),
            self.f.int(types::I64, offset as i64),
        ])
    }

    /// Asks for the first piece of a run.
    pub fn begin(&mut self) -> Result<()> {
        if self.pieces.groups.is_empty() {
            return Ok(());
        }
        let first = self.request(Some(0))?;
        let none = [self.f.int(self.f.pointer, 0), self.f.int(types::I32, 0)];
        self.fetch(none, first)
    }

    /// Runs the operator of a step of the plan, and the hooks around it.
    pub fn operator(&mut self, step: usize) -> Result<()> {
        let call = self.call_of(step)?;
        let op = self.f.model.graph.op(call.op);
        self.f.b.set_srcloc(Location::Op(call.op).source());
        self.hook(0, step);
        if call.kernel.is_none() {
            self.external(call).map_err(|error| error.at(op.describe()))?;
        }
        if self.feeds(call) {
            self.feed(call).map_err(|error| error.at(op.describe()))?;
            self.hook(1, step);
            return Ok(());
        }
        for (i, launch) in launches(call).iter().enumerate() {
            self.launch(call, launch, self.pieces.steps[step][i])
                .map_err(|error| error.at(op.describe()))?;
        }
        self.hook(1, step);
        Ok(())
    }

    fn hook(&mut self, member: i32, step: usize) {
        let Some(hooks) = self.hooks else { return };
        let pointer = self.f.pointer;
        let symbol = self.f.model.helper(Helper::Hook);
        let args = [
            hooks,
            self.f.int(pointer, i64::from(member) * i64::from(pointer.bytes())),
            self.f.int(types::I32, step as i64),
        ];
        self.f.call(symbol, &[pointer, pointer, types::I32], None, &args);
    }

    /// Where the operands of a launch are, `present` being its piece of the parameters, and how far they move.
    fn operands(&mut self, call: &Call, launch: &Launch, present: Option<Value>) -> Result<Vec<(Value, u64)>> {
        let model = self.f.model;
        let mut args = Vec::with_capacity(call.operands.len());
        for (operand, (start, step)) in call.operands.iter().zip(&launch.offsets) {
            let (base, start, step) = match operand {
                Operand::Tensor(id) => (self.tensor(*id)?, *start, *step),
                Operand::Scratch => (self.scratch(call)?, *start, *step),
                Operand::Row(_) | Operand::Window(_) | Operand::State => {
                    return Err(Error::internal("a kernel of rows is called for the whole"));
                }
                Operand::Parameter(id) => match (model.image.filter(|image| image.holds(*id)), present, self.image) {
                    (None, ..) => {
                        let symbol = &model.names.parameter(*id).symbol;
                        (self.f.symbol(symbol), launch.start + start, *step)
                    }
                    (Some(image), Some(present), _) => (present, image.within(call, *id) + start, 0),
                    (Some(image), None, Some(base)) => (base, image.place(*id)? + launch.start + start, *step),
                    (Some(_), None, None) => return Err(Error::internal("a parameter that nothing reads")),
                },
            };
            args.push((self.f.offset(base, start), step));
        }
        Ok(args)
    }

    /// Where the scratch of a call is.
    pub(super) fn scratch(&mut self, call: &Call) -> Result<Value> {
        let offset = self.scratch.get(&call.op).copied();
        let offset = offset.ok_or_else(|| Error::internal("the plan has no scratch for a kernel"))?;
        Ok(self.arena(offset))
    }

    /// Where a parameter is that is not streamed.
    pub(super) fn parameter(&mut self, id: ParameterId) -> Result<Value> {
        let model = self.f.model;
        match (model.image.filter(|image| image.holds(id)), self.image) {
            (None, _) => Ok(self.f.symbol(&model.names.parameter(id).symbol)),
            (Some(image), Some(base)) => Ok(self.f.offset(base, image.place(id)?)),
            (Some(_), None) => Err(Error::internal("a parameter that nothing reads")),
        }
    }

    /// The launches of a kernel for equal pieces of its parameters.
    fn launch(&mut self, call: &Call, launch: &Launch, group: Option<usize>) -> Result<()> {
        let model = self.f.model;
        let kernel = &model.lowering.kernel(launch.kernel).function.signature;
        let fits = launch.offsets.len() == call.operands.len()
            && *kernel == emit::signature(model.target, call.operands.len(), false);
        if !fits {
            return Err(Error::internal("a kernel's signature does not fit its call"));
        }
        let symbol = &model.names.kernel(launch.kernel).symbol;
        let run = |body: &mut Self, args: &[Value]| {
            body.f.symbols.call(&mut body.f.b, symbol, kernel, args);
        };
        let Some(index) = group else {
            let args = self.operands(call, launch, None)?;
            let (starts, steps): (Vec<Value>, Vec<u64>) = args.into_iter().unzip();
            if launch.count == 1 {
                run(self, &starts);
                return Ok(());
            }
            let count = self.f.int(self.f.pointer, launch.count as i64);
            return self
                .rounds(count, &starts, |body, args| {
                    run(body, args);
                    Ok(body.moved(args, &steps))
                })
                .map(drop);
        };
        let group = self.pieces.groups[index];
        let zero = self.f.int(self.f.pointer, 0);
        // What is not in a piece keeps its place or moves; a piece is in one of two buffers.
        let args = self.operands(call, launch, Some(zero))?;
        let streamed: Vec<bool> = call.operands.iter().map(|operand| model.is_outside(operand)).collect();
        let (starts, steps): (Vec<Value>, Vec<u64>) = args.into_iter().unzip();
        let arguments = |body: &mut Self, present: Value, places: &[Value]| -> Vec<Value> {
            let all = places.iter().zip(&streamed);
            all.map(|(place, streamed)| match streamed {
                true => body.f.b.ins().iadd(present, *place),
                false => *place,
            })
            .collect()
        };
        let length = self.f.int(types::I32, group.bytes as i64);
        let (mut present, mut places) = (self.staging(group.buffer)?, starts);
        if launch.count > 1 {
            let other = self.staging(1 - group.buffer)?;
            let count = self.f.int(self.f.pointer, launch.count as i64 - 1);
            let offset = self.f.int(types::I64, (group.offset + group.stride) as i64);
            let mut carried = vec![present, other, offset];
            carried.extend(&places);
            let ends = self.rounds(count, &carried, |body, carried| {
                let (present, other, offset) = (carried[0], carried[1], carried[2]);
                body.fetch([present, length], [other, length, offset])?;
                let args = arguments(body, present, &carried[3..]);
                run(body, &args);
                let stride = body.f.int(types::I64, group.stride as i64);
                let next = body.f.b.ins().iadd(offset, stride);
                let mut results = vec![other, present, next];
                results.extend(body.moved(&carried[3..], &steps));
                Ok(results)
            })?;
            present = ends[0];
            places = ends[3..].to_vec();
        }
        let next = self.request(Some(index + 1))?;
        self.fetch([present, length], next)?;
        let args = arguments(self, present, &places);
        run(self, &args);
        Ok(())
    }

    fn moved(&mut self, places: &[Value], steps: &[u64]) -> Vec<Value> {
        let moved = places.iter().zip(steps);
        moved.map(|(place, step)| self.f.offset(*place, *step)).collect()
    }

    /// A loop over `count` rounds.
    fn rounds(
        &mut self,
        count: Value,
        carried: &[Value],
        round: impl FnOnce(&mut Self, &[Value]) -> Result<Vec<Value>>,
    ) -> Result<Vec<Value>> {
        let open = self.f.open(count, carried);
        let results = round(self, &open.carried)?;
        self.f.close(open, &results);
        Ok(results)
    }

    /// Copies the outputs that were kept in the arena until nothing can fail any more.
    pub fn end(&mut self) -> Result<()> {
        let model = self.f.model;
        self.f.b.set_srcloc(Location::Return.source());
        for (i, id) in model.graph.outputs.iter().enumerate() {
            let tensor = model.graph.tensor(*id);
            let place = model.plan.places.get(id.index());
            let (Io::Pointers, Some(Place::Arena(_)), true) = (model.plan.io, place, tensor.bytes() > 0) else {
                continue;
            };
            let (from, to) = (self.tensor(*id)?, self.outputs[i]);
            let (ty, size) = match tensor.dtype.bytes() {
                4 => (types::I32, 4),
                _ => (types::I8, 1),
            };
            let count = self.f.int(self.f.pointer, tensor.bytes() as i64 / i64::from(size));
            self.f.rounds(count, &[from, to], |f, p| {
                let value = f.load(ty, p[0], 0);
                f.store(value, p[1], 0);
                p.iter().map(|p| f.offset(*p, size as u64)).collect()
            });
        }
        Ok(())
    }

    /// Calls `void trace(uint32_t step, const void *data, uint64_t len)` with the result of an operator.
    pub fn trace(&mut self, trace: &str, step: usize, op: OpId) -> Result<()> {
        let model = self.f.model;
        let output = model.graph.op(op).output();
        let args = [
            self.f.int(types::I32, step as i64),
            self.tensor(output)?,
            self.f.int(types::I64, model.graph.tensor(output).bytes() as i64),
        ];
        let signature = super::trace_signature(model.target);
        self.f.symbols.call(&mut self.f.b, trace, &signature, &args);
        Ok(())
    }
}

/// The launches of a call: one, if it is not cut into pieces; none for an external function.
fn launches(call: &Call) -> Cow<'_, [Launch]> {
    if !call.launches.is_empty() {
        return Cow::Borrowed(&call.launches);
    }
    Cow::Owned(Launch::whole(call).into_iter().collect())
}

/// `void hook(const struct <model>_hooks *hooks, size_t member, uint32_t step)`: calls the function at a member of
/// `hooks`, if both are there.
pub(super) fn hook(model: &Model) -> Result<Input> {
    let pointer = model.pointer();
    let params = [pointer, pointer, types::I32];
    function(model, model.helper(Helper::Hook), false, &params, None, |f| {
        let (hooks, member, step) = (f.params[0], f.params[1], f.params[2]);
        let end = f.b.create_block();
        f.require(hooks, end);
        let at = f.b.ins().iadd(hooks, member);
        let address = f.load(pointer, at, 0);
        f.require(address, end);
        let context = f.load(pointer, hooks, 2 * pointer.bytes() as i32);
        f.call_at(address, &[pointer, types::I32], None, &[context, step]);
        f.b.ins().jump(end, &[]);
        f.b.switch_to_block(end);
        f.b.ins().return_(&[]);
        Ok(())
    })
}
