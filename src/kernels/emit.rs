//! What every kernel is written with: pointers, memory accesses and loops with constant trip counts.
//!
//! Program order is the schedule: the e-graph stays off, so instructions run in the order in which they are emitted.

use super::schedule::Layouts;
use crate::intrinsic::{self, Intrinsic};
use crate::target::Target;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block, BlockArg, ExtFuncData, ExternalName, FuncRef, Function, InstBuilder, MemFlagsData, Signature,
    StackSlot, StackSlotData, StackSlotKind, Type, UserExternalName, UserFuncName, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use std::collections::BTreeMap;

/// The type of a pointer on `target`.
pub fn pointer_type(target: &Target) -> Type {
    if target.machine().pointer_bytes == 8 {
        types::I64
    } else {
        types::I32
    }
}

/// A signature with `parameters` pointers and, if `status`, an `int32_t` result, in the target's C convention.
pub fn signature(target: &Target, parameters: usize, status: bool) -> Signature {
    let mut signature = Signature::new(CallConv::triple_default(&target.triple));
    signature.params = vec![AbiParam::new(pointer_type(target)); parameters];
    if status {
        signature.returns.push(AbiParam::new(types::I32));
    }
    signature
}

/// A kernel under construction.
pub struct Emitter<'f> {
    /// Cranelift's builder, for everything that has no shorthand here.
    pub b: FunctionBuilder<'f>,
    /// What the kernel is built for.
    pub target: &'f Target,
    /// The type of pointers.
    pub pointer: Type,
    /// The kernel's arguments.
    pub args: Vec<Value>,
    /// How often the block that is being filled runs in one call.
    trips: u64,
    executions: Vec<(Block, u64)>,
    /// Declared intrinsics.
    intrinsics: BTreeMap<u32, FuncRef>,
}

/// Values on the stack.
#[derive(Clone, Copy, Debug)]
pub struct Parked {
    slot: StackSlot,
    /// Bytes of each.
    size: u32,
}

/// A finished body and how often each of its blocks runs in one call.
pub struct Built {
    /// The body.
    pub function: Function,
    /// Executions of each block in one call: exact, or an upper bound for blocks of data-dependent paths.
    pub executions: Vec<(Block, u64)>,
    /// How its operands lie, where it is a multiply-accumulate layer's.
    pub layouts: Option<Layouts>,
}

/// Builds a function of `parameters` pointers and no result. `body` emits everything but the return.
pub fn build(target: &Target, parameters: usize, body: impl FnOnce(&mut Emitter)) -> Built {
    let mut function = Function::with_name_signature(UserFuncName::default(), signature(target, parameters, false));
    let mut context = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut function, &mut context);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    let args = builder.block_params(block).to_vec();
    let mut emitter = Emitter {
        b: builder,
        target,
        pointer: pointer_type(target),
        args,
        trips: 1,
        executions: vec![(block, 1)],
        intrinsics: BTreeMap::new(),
    };
    body(&mut emitter);
    emitter.b.ins().return_(&[]);
    let Emitter {
        mut b,
        executions,
        pointer,
        ..
    } = emitter;
    b.seal_all_blocks();
    let config = TargetFrontendConfig {
        default_call_conv: CallConv::triple_default(&target.triple),
        pointer_width: if pointer == types::I64 {
            target_lexicon::PointerWidth::U64
        } else {
            target_lexicon::PointerWidth::U32
        },
        page_size_align_log2: 12,
    };
    b.finalize(config);
    Built {
        function,
        executions,
        layouts: None,
    }
}

impl Emitter<'_> {
    /// Flags of an access that cannot trap. Not `readonly` or `can_move`: streaming loads stay where they are written.
    pub fn flags() -> MemFlagsData {
        MemFlagsData::new().with_notrap()
    }

    /// Integer constant of any integer type.
    pub fn int(&mut self, ty: Type, value: i64) -> Value {
        let bits = ty.bits();
        let masked = if bits < 64 { value & ((1i64 << bits) - 1) } else { value };
        self.b.ins().iconst(ty, masked)
    }

    /// 32-bit constant.
    pub fn i32(&mut self, value: i32) -> Value {
        self.int(types::I32, i64::from(value))
    }

    /// `pointer + bytes`.
    pub fn offset(&mut self, pointer: Value, bytes: i64) -> Value {
        if bytes == 0 {
            return pointer;
        }
        let bytes = self.int(self.pointer, bytes);
        self.b.ins().iadd(pointer, bytes)
    }

    /// Load of `ty` at `base + offset`; no alignment is assumed.
    pub fn load(&mut self, ty: Type, base: Value, offset: i32) -> Value {
        self.b.ins().load(ty, Self::flags(), base, offset)
    }

    /// Sign-extending load of an 8-bit element to 32 bits.
    pub fn load_i8(&mut self, base: Value, offset: i32) -> Value {
        self.b.ins().sload8(types::I32, Self::flags(), base, offset)
    }

    /// Load of a word at a multiple of 4 bytes.
    pub fn load_word(&mut self, base: Value, offset: i32) -> Value {
        self.b
            .ins()
            .load(types::I32, Self::flags().with_aligned(), base, offset)
    }

    /// Store of a word at a multiple of 4 bytes.
    pub fn store_word(&mut self, value: Value, base: Value, offset: i32) {
        self.b.ins().store(Self::flags().with_aligned(), value, base, offset);
    }

    /// The type of a register, in which scalar integer code computes.
    pub fn integer(&self) -> Type {
        if self.target.machine().integer_bytes == 8 {
            types::I64
        } else {
            types::I32
        }
    }

    /// Sign-extending load of an 8-bit element to a register.
    pub fn load_integer8(&mut self, base: Value, offset: i32) -> Value {
        let ty = self.integer();
        self.b.ins().sload8(ty, Self::flags(), base, offset)
    }

    /// Stores words (or pointers of 32 or 64 bits) to a place on the stack of their own. Register allocation decides by
    /// how often a value is used; this decides for it, where a loop needs all registers.
    pub fn park(&mut self, values: &[Value]) -> Parked {
        let size = values
            .first()
            .map_or(4, |value| self.b.func.dfg.value_type(*value).bytes());
        let slot = self.b.create_sized_stack_slot(StackSlotData::new(
            StackSlotKind::ExplicitSlot,
            size * values.len() as u32,
            if size == 8 { 3 } else { 2 },
        ));
        let parked = Parked { slot, size };
        self.repark(parked, values);
        parked
    }

    /// Stores other values to the same place.
    pub fn repark(&mut self, parked: Parked, values: &[Value]) {
        let address = self.b.ins().stack_addr(self.pointer, parked.slot, 0);
        for (i, value) in values.iter().enumerate() {
            let at = i as i32 * parked.size as i32;
            self.b.ins().store(Self::flags().with_aligned(), *value, address, at);
        }
    }

    /// Loads `count` parked values of type `ty`, from the one with index `first` on.
    pub fn fetch(&mut self, parked: Parked, ty: Type, first: usize, count: usize) -> Vec<Value> {
        let address = self.b.ins().stack_addr(self.pointer, parked.slot, 0);
        let flags = Self::flags().with_aligned();
        (first..first + count)
            .map(|i| self.b.ins().load(ty, flags, address, i as i32 * parked.size as i32))
            .collect()
    }

    /// Where parked values are.
    pub fn address_of(&mut self, parked: Parked) -> Value {
        self.b.ins().stack_addr(self.pointer, parked.slot, 0)
    }

    /// A parked pointer.
    pub fn fetch_pointer(&mut self, parked: Parked) -> Value {
        self.fetch(parked, self.pointer, 0, 1)[0]
    }

    /// A loop like [`Emitter::counted`] of one pointer in a register, whose end is on the stack.
    pub fn counted_to(
        &mut self,
        count: u64,
        (start, step): (Value, i64),
        carried: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> (Vec<Value>, Value) {
        let one = [start];
        if count <= 1 {
            let (carried, ends) = self.counted(count, &[(start, step)], carried, |e, p, c| body(e, p[0], c));
            return (carried, ends[0]);
        }
        let end = self.offset(start, step * count as i64);
        let end = self.park(&[end]);
        self.repeat(count, &[&one, carried].concat(), |e, all| {
            let mut results = body(e, all[0], &all[1..]);
            let next = e.offset(all[0], step);
            results.insert(0, next);
            let end = e.fetch_pointer(end);
            (results, e.b.ins().icmp(IntCC::NotEqual, next, end))
        })
        .split_first()
        .map_or((vec![], start), |(end, carried)| (carried.to_vec(), *end))
    }

    /// How often what comes next runs in one call.
    pub fn trips(&self) -> u64 {
        self.trips
    }

    /// A loop of `count` rounds, at least two: `body(emitter, carried) -> (carried, whether to go on)`. What goes on is
    /// the body's own affair, `count` is for the counts. Returns what is carried out of the last round.
    pub fn repeat(
        &mut self,
        count: u64,
        carried: &[Value],
        body: impl FnOnce(&mut Self, &[Value]) -> (Vec<Value>, Value),
    ) -> Vec<Value> {
        self.repeat_in_all(self.trips.saturating_mul(count), carried, body)
    }

    /// The same of at least one round each time, `total` rounds in one call of the kernel.
    pub fn repeat_in_all(
        &mut self,
        total: u64,
        carried: &[Value],
        body: impl FnOnce(&mut Self, &[Value]) -> (Vec<Value>, Value),
    ) -> Vec<Value> {
        let header = self.b.create_block();
        let exit = self.b.create_block();
        let inside: Vec<Value> = (carried.iter())
            .map(|value| {
                let ty = self.b.func.dfg.value_type(*value);
                self.b.append_block_param(header, ty)
            })
            .collect();
        let args: Vec<BlockArg> = carried.iter().map(|value| BlockArg::from(*value)).collect();
        self.b.ins().jump(header, &args);
        self.b.switch_to_block(header);
        let outer = self.trips;
        self.trips = total;
        self.executions.push((header, self.trips));
        let (results, again) = body(self, &inside);
        let args: Vec<BlockArg> = results.iter().map(|value| BlockArg::from(*value)).collect();
        self.b.ins().brif(again, header, &args, exit, &[]);
        self.b.switch_to_block(exit);
        self.trips = outer;
        self.executions.push((exit, outer));
        results
    }

    /// An instruction that CLIF cannot say; the target has it.
    pub fn intrinsic(&mut self, intrinsic: Intrinsic, operands: &[Value]) -> Value {
        #[cfg(test)]
        if self.target.arch() != crate::target::Arch::Thumb2 {
            return super::testing::intrinsic::expand(&mut self.b, intrinsic, operands);
        }
        debug_assert!(self.target.machine().dsp);
        let callee = *self.intrinsics.entry(intrinsic.index()).or_insert_with(|| {
            let mut signature = Signature::new(CallConv::triple_default(&self.target.triple));
            signature.params = vec![AbiParam::new(types::I32); intrinsic.operands()];
            signature.returns.push(AbiParam::new(types::I32));
            let signature = self.b.import_signature(signature);
            let name = self.b.func.declare_imported_user_function(UserExternalName {
                namespace: intrinsic::NAMESPACE,
                index: intrinsic.index(),
            });
            self.b.import_function(ExtFuncData {
                name: ExternalName::user(name),
                signature,
                colocated: true,
                patchable: false,
            })
        });
        let call = self.b.ins().call(callee, operands);
        self.b.inst_results(call)[0]
    }

    /// Pointer number `index` of a table.
    pub fn entry(&mut self, table: Value, index: usize) -> Value {
        let (pointer, bytes) = (self.pointer, self.pointer.bytes());
        self.load(pointer, table, index as i32 * bytes as i32)
    }

    /// Store at `base + offset`; no alignment is assumed.
    pub fn store(&mut self, value: Value, base: Value, offset: i32) {
        self.b.ins().store(Self::flags(), value, base, offset);
    }

    /// Store of the low 8 bits.
    pub fn store_i8(&mut self, value: Value, base: Value, offset: i32) {
        self.b.ins().istore8(Self::flags(), value, base, offset);
    }

    /// A loop of `count` rounds: `body(emitter, pointers, carried) -> carried`. Each pointer advances by its step
    /// every round; with no pointer, an internal counter runs. Returns the carried values and the pointers after the
    /// last round. `count` 1 emits the body straight, 0 nothing.
    pub fn counted(
        &mut self,
        count: u64,
        pointers: &[(Value, i64)],
        carried: &[Value],
        body: impl FnOnce(&mut Self, &[Value], &[Value]) -> Vec<Value>,
    ) -> (Vec<Value>, Vec<Value>) {
        let starts: Vec<Value> = pointers.iter().map(|(start, _)| *start).collect();
        if count == 0 {
            return (carried.to_vec(), starts);
        }
        if count == 1 {
            let carried = body(self, &starts, carried);
            let ends = pointers
                .iter()
                .map(|(start, step)| self.offset(*start, *step))
                .collect();
            return (carried, ends);
        }
        // The loop ends when one pointer reaches its end: the first that moves. Without one, count down.
        let driver = pointers.iter().position(|(_, step)| *step != 0);
        let end = match driver {
            Some(i) => self.offset(starts[i], pointers[i].1 * count as i64),
            None => self.int(self.pointer, count as i64),
        };
        let header = self.b.create_block();
        let exit = self.b.create_block();
        let mut inside = Vec::with_capacity(carried.len());
        for value in carried {
            let ty = self.b.func.dfg.value_type(*value);
            inside.push(self.b.append_block_param(header, ty));
        }
        let current: Vec<Value> = starts
            .iter()
            .map(|_| self.b.append_block_param(header, self.pointer))
            .collect();
        let counter = driver
            .is_none()
            .then(|| self.b.append_block_param(header, self.pointer));
        let mut args: Vec<BlockArg> = carried
            .iter()
            .chain(&starts)
            .map(|value| BlockArg::from(*value))
            .collect();
        if counter.is_some() {
            args.push(end.into());
        }
        self.b.ins().jump(header, &args);
        self.b.switch_to_block(header);
        let outer = self.trips;
        self.trips = outer.saturating_mul(count);
        self.executions.push((header, self.trips));

        let results = body(self, &current, &inside);
        let next: Vec<Value> = current
            .iter()
            .zip(pointers)
            .map(|(pointer, (_, step))| self.offset(*pointer, *step))
            .collect();
        let mut args: Vec<BlockArg> = results
            .iter()
            .chain(&next)
            .map(|value| BlockArg::from(*value))
            .collect();
        let again = match (driver, counter) {
            (Some(i), _) => self.b.ins().icmp(IntCC::NotEqual, next[i], end),
            (None, Some(counter)) => {
                let left = self.offset(counter, -1);
                args.push(left.into());
                let zero = self.int(self.pointer, 0);
                self.b.ins().icmp(IntCC::NotEqual, left, zero)
            }
            (None, None) => unreachable!("a loop without a moving pointer has a counter"),
        };
        self.b.ins().brif(again, header, &args, exit, &[]);
        self.b.switch_to_block(exit);
        self.trips = outer;
        self.executions.push((exit, outer));
        (results, next)
    }

    /// `body` if `condition` holds, else `otherwise`. It holds `runs` times in one call, exactly.
    pub fn sometimes(
        &mut self,
        condition: Value,
        runs: u64,
        otherwise: &[Value],
        body: impl FnOnce(&mut Self) -> Vec<Value>,
    ) -> Vec<Value> {
        if runs == 0 {
            return otherwise.to_vec();
        }
        let (then, join) = (self.b.create_block(), self.b.create_block());
        let results: Vec<Value> = otherwise
            .iter()
            .map(|value| {
                let ty = self.b.func.dfg.value_type(*value);
                self.b.append_block_param(join, ty)
            })
            .collect();
        let args = |values: &[Value]| values.iter().map(|value| BlockArg::from(*value)).collect::<Vec<_>>();
        self.b.ins().brif(condition, then, &[], join, &args(otherwise));
        self.b.switch_to_block(then);
        let outer = std::mem::replace(&mut self.trips, runs);
        self.executions.push((then, runs));
        let values = body(self);
        self.b.ins().jump(join, &args(&values));
        self.b.switch_to_block(join);
        self.trips = outer;
        self.executions.push((join, outer));
        results
    }

    /// Records a block that the kernel makes itself (a data-dependent path), run at most `trips` times for each run of
    /// the current block.
    pub fn record_block(&mut self, block: Block, trips: u64) {
        self.executions.push((block, self.trips.saturating_mul(trips)));
    }
}
