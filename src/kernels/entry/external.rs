//! Calls of functions of others, in their own conventions.

use super::backend::STATE;
use super::body::Body;
use super::tables::{DEVICE_CPU, Described, Packed, PackedCall, Tables, TensorLayout, VALUE, operand};
use super::{ERROR_EXTERNAL, Model, c_signature};
use crate::error::{Error, Result};
use crate::graph::external::{Argument, Convention, External, Port, WORKSPACE_ALIGN};
use crate::graph::{Graph, Op, OpKind};
use crate::kernels::emit::Emitter;
use crate::kernels::{Call, Operand};
use crate::target::{Arch, Format};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, ArgumentPurpose, BlockArg, InstBuilder, Signature, StackSlot, StackSlotData, StackSlotKind, Value, types,
};
use cranelift_frontend::FunctionBuilder;

/// What the present call may allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// Not set in this run.
    Unset,
    /// `size` bytes at an offset of the arena.
    Set { offset: u64, size: u64 },
}

impl Pool {
    /// Before the first call: nothing need be set if no call allocates.
    pub(super) fn new(graph: &Graph) -> Self {
        let allocates = |op: &Op| match &op.kind {
            OpKind::External(external) => external.workspace.size > 0 && external.workspace.allocated,
            _ => false,
        };
        if graph.ops.iter().any(allocates) {
            Pool::Unset
        } else {
            Pool::Set { offset: 0, size: 0 }
        }
    }
}

/// What the calls of a function under construction share.
pub(super) struct Shared {
    /// Constant arguments.
    tables: Tables,
    /// Where those are, once that is known.
    base: Option<Value>,
    pool: Pool,
    slots: Slots,
}

impl Shared {
    pub(super) fn new(model: &Model) -> Result<Self> {
        Ok(Shared {
            tables: Tables::new(model)?,
            base: None,
            pool: Pool::new(model.graph),
            slots: Slots::default(),
        })
    }

    /// Forgets what code before this operator has done: it may not have run.
    pub(super) fn forget(&mut self, model: &Model) {
        self.base = None;
        self.pool = Pool::new(model.graph);
    }
}

/// Memory of the function's frame for packed calls: one set, which all calls share.
#[derive(Default)]
struct Slots {
    result: Option<StackSlot>,
    values: Option<StackSlot>,
    tensors: Option<StackSlot>,
}

impl Body<'_, '_, '_> {
    /// Calls the operator's function and leaves with an error if it fails.
    pub(super) fn external(&mut self, call: &Call) -> Result<()> {
        let op = self.f.model.graph.op(call.op);
        let OpKind::External(external) = &op.kind else {
            return Err(Error::internal("a call has no kernel"));
        };
        let inputs = op.inputs.len();
        for (port, offset) in &external.resident {
            if let Port::Input(i) = port {
                let from = self.operand(operand(call, *port, inputs)?, call)?;
                let to = self.workspace(call, *offset)?;
                self.copy(to, from, self.f.model.graph.tensor(op.inputs[*i]).bytes() as u64);
            }
        }
        if external.workspace.allocated {
            self.set_pool(call, external)?;
        }
        let (signature, arguments) = match external.convention {
            Convention::Packed => {
                let packed = self.shared.tables.calls.get(&call.op).cloned();
                let packed = packed.ok_or_else(|| Error::internal("a packed call has no tables"))?;
                self.packed(call, &packed, external.brief)?
            }
            Convention::Plain => self.plain(call, external)?,
        };
        let results = self
            .f
            .symbols
            .call(&mut self.f.b, &external.symbol, &signature, &arguments);
        if let Some(status) = results.first() {
            self.f.abandon(*status, ERROR_EXTERNAL);
        }
        for (port, offset) in &external.resident {
            if let Port::Output(i) = port {
                let to = self.operand(operand(call, *port, inputs)?, call)?;
                let from = self.workspace(call, *offset)?;
                self.copy(to, from, self.f.model.graph.tensor(op.outputs[*i]).bytes() as u64);
            }
        }
        Ok(())
    }

    fn workspace(&mut self, call: &Call, offset: u64) -> Result<Value> {
        let at = self.scratch.get(&call.op).copied();
        let at = at.ok_or_else(|| Error::internal("the plan has no workspace for an external function"))?;
        Ok(self.arena(at + offset))
    }

    fn operand(&mut self, operand: Operand, call: &Call) -> Result<Value> {
        let model = self.f.model;
        match operand {
            Operand::Tensor(id) => self.tensor(id),
            Operand::Parameter(id) => match model.image.filter(|image| image.holds(id)) {
                None => Ok(self.f.symbol(&model.names.parameter(id).symbol)),
                Some(image) => self.outside(image.place(id)?),
            },
            Operand::Scratch => self.workspace(call, 0),
            Operand::Row(_) | Operand::Window(_) | Operand::State => {
                Err(Error::internal("an external function is called row by row"))
            }
        }
    }

    /// `bytes` from one place to another that does not overlap it. Neither is known to be aligned.
    fn copy(&mut self, to: Value, from: Value, bytes: u64) {
        let (body, next) = (self.f.b.create_block(), self.f.b.create_block());
        let i = self.f.b.append_block_param(body, self.f.pointer);
        let zero = self.f.b.ins().iconst(self.f.pointer, 0);
        self.f.b.ins().jump(body, &[BlockArg::Value(zero)]);
        self.f.switch(body, bytes);
        let (source, target) = (self.f.b.ins().iadd(from, i), self.f.b.ins().iadd(to, i));
        let byte = self.f.b.ins().load(types::I8, Emitter::flags(), source, 0);
        self.f.b.ins().store(Emitter::flags(), byte, target, 0);
        let i = self.f.b.ins().iadd_imm_s(i, 1);
        let more = self.f.b.ins().icmp_imm_u(IntCC::UnsignedLessThan, i, bytes as i64);
        self.f.b.ins().brif(more, body, &[BlockArg::Value(i)], next, &[]);
        self.f.switch(next, 1);
    }

    /// What the call may allocate, unless that is so already.
    fn set_pool(&mut self, call: &Call, external: &External) -> Result<()> {
        let size = external.workspace.size.next_multiple_of(WORKSPACE_ALIGN);
        let offset = match size {
            0 => 0,
            _ => self.scratch.get(&call.op).copied().unwrap_or(0),
        };
        let pool = Pool::Set { offset, size };
        let empty = |pool: Pool| matches!(pool, Pool::Set { size: 0, .. });
        if self.shared.pool == pool || empty(pool) && empty(self.shared.pool) {
            return Ok(());
        }
        self.shared.pool = pool;
        let (start, end) = if size == 0 {
            let zero = self.f.b.ins().iconst(self.f.pointer, 0);
            (zero, zero)
        } else {
            let start = self.workspace(call, 0)?;
            (start, self.workspace(call, size)?)
        };
        let state = self.f.symbol(STATE);
        let width = self.f.pointer.bytes() as i32;
        self.f.b.ins().store(Emitter::flags(), start, state, 0);
        self.f.b.ins().store(Emitter::flags(), end, state, width);
        Ok(())
    }

    fn plain(&mut self, call: &Call, external: &External) -> Result<(Signature, Vec<Value>)> {
        let inputs = self.f.model.graph.op(call.op).inputs.len();
        let mut params = Vec::with_capacity(external.arguments.len());
        let mut arguments = Vec::with_capacity(external.arguments.len());
        for argument in &external.arguments {
            let value = match argument {
                Argument::Port(port) => match external.resident.iter().find(|(resident, _)| resident == port) {
                    Some((_, offset)) => self.workspace(call, *offset)?,
                    None => self.operand(operand(call, *port, inputs)?, call)?,
                },
                Argument::Workspace(_) if external.workspace.size == 0 => self.f.b.ins().iconst(self.f.pointer, 0),
                Argument::Workspace(offset) => self.workspace(call, *offset)?,
                Argument::Symbol(symbol) => self.f.symbol(symbol),
                Argument::Integer(value) => self.f.b.ins().iconst(types::I32, i64::from(*value as u32)),
            };
            arguments.push(value);
            params.push(match argument {
                Argument::Integer(_) => types::I32,
                _ => self.f.pointer,
            });
        }
        let result = external.status.then_some(types::I32);
        Ok((c_signature(self.f.model.target, &params, result), arguments))
    }

    fn packed(&mut self, call: &Call, packed: &PackedCall, brief: bool) -> Result<(Signature, Vec<Value>)> {
        let (target, pointer) = (self.f.model.target, self.f.pointer);
        // Six arguments are passed in registers but for two machines.
        if brief && target.format() == Format::Elf {
            let mut signature = c_signature(target, &[pointer, pointer], Some(types::I32));
            let values = match packed.values {
                Some(offset) => self.table(offset),
                None => self.values(call, packed)?,
            };
            let codes = self.table(packed.codes);
            let mut arguments = vec![values, codes];
            if target.arch() == Arch::Thumb2 {
                // The callee may use the room of the two that the stack would hold.
                let room = ArgumentPurpose::StructArgument(2 * self.f.pointer.bytes());
                signature.params.push(AbiParam::special(self.f.pointer, room));
                arguments.push(values);
            }
            return Ok((signature, arguments));
        }
        let params = [pointer, pointer, types::I32, pointer, pointer, pointer];
        let signature = c_signature(target, &params, Some(types::I32));
        let values = match packed.values {
            Some(offset) => self.table(offset),
            None => self.values(call, packed)?,
        };
        let codes = self.table(packed.codes);
        let count = self.f.b.ins().iconst(types::I32, packed.arguments.len() as i64);
        let result = Self::slot(&mut self.f.b, &mut self.shared.slots.result, 2 * VALUE);
        let value = self.f.b.ins().stack_addr(self.f.pointer, result, 0);
        let code = self.f.b.ins().stack_addr(self.f.pointer, result, VALUE as i32);
        let handle = self.f.b.ins().iconst(self.f.pointer, 0);
        Ok((signature, vec![values, codes, count, value, code, handle]))
    }

    /// An address in the tables. That of their beginning is computed once.
    fn table(&mut self, offset: u64) -> Value {
        let base = match self.shared.base {
            Some(base) => base,
            None => {
                let base = self.f.symbol(&self.f.model.names.tables.symbol);
                *self.shared.base.insert(base)
            }
        };
        match offset {
            0 => base,
            _ => self.f.b.ins().iadd_imm_s(base, offset as i64),
        }
    }

    /// The slot, at least so large.
    fn slot(b: &mut FunctionBuilder, slot: &mut Option<StackSlot>, size: u64) -> StackSlot {
        let size = size as u32;
        let slot = *slot
            .get_or_insert_with(|| b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, size, 3)));
        let data = &mut b.func.sized_stack_slots[slot];
        data.size = data.size.max(size);
        slot
    }

    /// The arguments in the frame: those whose address only this run knows are described there, too.
    fn values(&mut self, call: &Call, packed: &PackedCall) -> Result<Value> {
        let layout = TensorLayout::new(u64::from(self.f.pointer.bytes()));
        let dynamic = packed
            .arguments
            .iter()
            .filter(|argument| matches!(argument, Packed::Dynamic(..)));
        let tensors = dynamic.count() as u64 * layout.size;
        let tensors = Self::slot(&mut self.f.b, &mut self.shared.slots.tensors, tensors);
        let values = Self::slot(
            &mut self.f.b,
            &mut self.shared.slots.values,
            packed.arguments.len() as u64 * VALUE,
        );
        let mut next = 0;
        for (i, argument) in packed.arguments.iter().enumerate() {
            let at = (i as u64 * VALUE) as i32;
            let value = match argument {
                Packed::Constant(offset) => self.table(*offset),
                Packed::Symbol(symbol) => self.f.symbol(symbol),
                Packed::Integer(value) => self.f.b.ins().iconst(types::I64, i64::from(*value)),
                Packed::Dynamic(operand, described) => {
                    let offset = next;
                    next += layout.size;
                    let base = self.f.b.ins().stack_addr(self.f.pointer, tensors, offset as i32);
                    self.describe(base, &layout, *operand, described, call)?;
                    base
                }
            };
            let base = self.f.b.ins().stack_addr(self.f.pointer, values, 0);
            self.f.b.ins().store(Emitter::flags(), value, base, at);
        }
        Ok(self.f.b.ins().stack_addr(self.f.pointer, values, 0))
    }

    /// Fills in a `DLTensor`.
    fn describe(
        &mut self,
        base: Value,
        layout: &TensorLayout,
        operand: Operand,
        described: &Described,
        call: &Call,
    ) -> Result<()> {
        let data = self.operand(operand, call)?;
        let store = |builder: &mut Self, value: Value, at: u64| {
            builder.f.b.ins().store(Emitter::flags(), value, base, at as i32);
        };
        store(self, data, 0);
        let zero = self.f.b.ins().iconst(types::I32, 0);
        let device = self.f.b.ins().iconst(types::I32, i64::from(DEVICE_CPU));
        store(self, device, layout.device_type);
        store(self, zero, layout.device_id);
        let ndim = self.f.b.ins().iconst(types::I32, i64::from(described.ndim));
        store(self, ndim, layout.ndim);
        let dtype = self.f.b.ins().iconst(types::I32, i64::from(described.dtype));
        store(self, dtype, layout.dtype);
        let none = self.f.b.ins().iconst(self.f.pointer, 0);
        let shape = match described.shape {
            Some(offset) => self.table(offset),
            None => none,
        };
        store(self, shape, layout.shape);
        store(self, none, layout.strides);
        store(self, zero, layout.byte_offset);
        store(self, zero, layout.byte_offset + 4);
        Ok(())
    }
}
