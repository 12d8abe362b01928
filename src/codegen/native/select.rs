//! CLIF → [`VCode`]: what is the same for every target of our own.
//!
//! Blocks are walked against the flow and instructions backwards, so that an instruction is selected only if something
//! asked for its result: what was folded into a user disappears by itself. Program order is kept otherwise; it is the
//! kernel generators' schedule.

use super::vcode::{MachineInst, Origin, Terminator, VBlock, VCode};
use super::{Isa, Place};
use crate::intrinsic;
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::flowgraph::ControlFlowGraph;
use cranelift_codegen::ir::{
    self, BlockCall, ExternalName, Function, Inst, InstructionData, Opcode, StackSlot, Type, Value, types,
};
use regalloc2::{PReg, RegClass, VReg};
use std::collections::{HashMap, HashSet};

/// What selection cannot do: the CLIF instruction, as text.
#[derive(Clone, Debug)]
pub struct Refused(pub String);

/// The state of selection in one function; the target's rules work on it.
pub struct Select<'f, I> {
    /// The function.
    pub func: &'f Function,
    /// Instructions for the CLIF instruction at hand, in program order.
    insts: Vec<I>,
    registers: SecondaryMap<Value, [Option<VReg>; 2]>,
    uses: SecondaryMap<Value, u32>,
    slots: SecondaryMap<StackSlot, u32>,
    current: Option<Inst>,
    consumed: HashSet<Inst>,
    accesses: HashMap<Inst, Access>,
    float: Option<RegClass>,
    vregs: usize,
    outgoing: u32,
    calls: bool,
}

/// An access whose pointer a rule has exchanged for one that is `step` further.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The pointer to use.
    pub base: Value,
    /// How far it is from the one in the instruction.
    pub step: i32,
    /// Whether this access moves the pointer.
    pub moves: bool,
}

/// What a call defines.
#[derive(Clone, Debug)]
pub struct CallResults {
    /// Registers, and where the call leaves them.
    pub defs: Vec<(VReg, PReg)>,
    /// Moves behind the call, to and from, for results that are passed in a register of another class.
    pub moves: Vec<(VReg, VReg)>,
}

impl<I: MachineInst> Select<'_, I> {
    /// Appends a target instruction.
    pub fn emit(&mut self, inst: I) {
        self.insts.push(inst);
    }

    /// A fresh virtual register.
    pub fn temp(&mut self, class: RegClass) -> VReg {
        self.vregs += 1;
        VReg::new(self.vregs - 1, class)
    }

    /// A fresh integer register.
    pub fn int(&mut self) -> VReg {
        self.temp(RegClass::Int)
    }

    /// The CLIF type of a value.
    pub fn ty(&self, value: Value) -> Type {
        self.func.dfg.value_type(value)
    }

    /// How many registers hold a type: two for 64-bit integers.
    pub fn registers_of(ty: Type) -> usize {
        if ty == types::I64 { 2 } else { 1 }
    }

    fn part(&mut self, value: Value, part: usize) -> VReg {
        let value = self.func.dfg.resolve_aliases(value);
        if let Some(register) = self.registers[value][part] {
            return register;
        }
        let class = if self.ty(value).is_float() {
            self.float.unwrap_or(RegClass::Int)
        } else {
            RegClass::Int
        };
        let register = self.temp(class);
        self.registers[value][part] = Some(register);
        register
    }

    /// The register of a value of at most 32 bits, as an operand or a result.
    pub fn reg(&mut self, value: Value) -> VReg {
        self.part(value, 0)
    }

    /// The register of one half of a 64-bit value, 0 the low one.
    pub fn half(&mut self, value: Value, half: usize) -> VReg {
        self.part(value, half)
    }

    /// The registers of a 64-bit value, low half first.
    pub fn pair(&mut self, value: Value) -> [VReg; 2] {
        [self.part(value, 0), self.part(value, 1)]
    }

    /// All registers of a value, low half first.
    pub fn parts(&mut self, value: Value) -> Vec<VReg> {
        (0..Self::registers_of(self.ty(value)))
            .map(|part| self.part(value, part))
            .collect()
    }

    /// Whether somebody asked for this half of a result.
    pub fn wanted(&self, value: Value, part: usize) -> bool {
        self.registers[self.func.dfg.resolve_aliases(value)][part].is_some()
    }

    /// The instruction that defines a value, if it is not a block parameter.
    pub fn def(&self, value: Value) -> Option<(Inst, InstructionData)> {
        let inst = self.func.dfg.value_def(self.func.dfg.resolve_aliases(value)).inst()?;
        Some((inst, self.func.dfg.insts[inst]))
    }

    /// The value of an integer constant, sign-extended from its type.
    pub fn constant(&self, value: Value) -> Option<i64> {
        match self.def(value)?.1 {
            InstructionData::UnaryImm {
                opcode: Opcode::Iconst,
                imm,
            } => {
                let unused = 64 - self.ty(value).bits();
                Some((imm.bits() << unused) >> unused)
            }
            _ => None,
        }
    }

    /// Whether the instruction at hand is the only user of a value, which may then be folded into it.
    pub fn only_use(&self, value: Value) -> bool {
        self.uses[self.func.dfg.resolve_aliases(value)] == 1
    }

    /// Whether an instruction stores, calls, or has another effect that loads may not move across. Intrinsics have none.
    pub fn writes(&self, inst: Inst) -> bool {
        let opcode = self.func.dfg.insts[inst].opcode();
        !is_intrinsic(self.func, inst) && (opcode.can_store() || opcode.is_call() || opcode.other_side_effects())
    }

    /// A load that only the instruction at hand uses and that may be done there: same block, nothing that stores or
    /// calls in between.
    pub fn foldable_load(&self, value: Value) -> Option<(Inst, InstructionData)> {
        let (load, data) = self.def(value)?;
        let here = self.current?;
        let layout = &self.func.layout;
        if !data.opcode().can_load() || !self.only_use(value) || layout.inst_block(load) != layout.inst_block(here) {
            return None;
        }
        let mut next = layout.next_inst(load);
        while let Some(inst) = next {
            if inst == here {
                return Some((load, data));
            }
            if self.writes(inst) {
                return None;
            }
            next = layout.next_inst(inst);
        }
        None
    }

    /// A load whose value is only extended to 32 bits, as the one load that extends it: the load, that operation, and
    /// the pointer and offset. Where a load is [foldable](Select::foldable_load).
    pub fn extending_load(&self, value: Value, signed: bool) -> Option<(Inst, Opcode, Value, i32)> {
        let (load, data) = self.foldable_load(value)?;
        let InstructionData::Load {
            opcode: Opcode::Load,
            arg,
            offset,
            ..
        } = data
        else {
            return None;
        };
        let opcode = match (signed, self.ty(value)) {
            (true, types::I8) => Opcode::Sload8,
            (false, types::I8) => Opcode::Uload8,
            (true, _) => Opcode::Sload16,
            (false, _) => Opcode::Uload16,
        };
        Some((load, opcode, arg, offset.into()))
    }

    /// What a call defines whose results are at `places`.
    pub fn call_results(&mut self, inst: Inst, places: &[Vec<Place>]) -> CallResults {
        let (mut defs, mut moves) = (Vec::new(), Vec::new());
        for (value, places) in self.func.dfg.inst_results(inst).iter().zip(places) {
            for (part, place) in self.parts(*value).into_iter().zip(places) {
                let Place::Register(fixed) = *place else { continue };
                if part.class() == fixed.class() {
                    defs.push((part, fixed));
                } else {
                    let passed = self.temp(fixed.class());
                    defs.push((passed, fixed));
                    moves.push((part, passed));
                }
            }
        }
        CallResults { defs, moves }
    }

    /// Notes that an instruction earlier in the block needs no code: a rule has covered it.
    pub fn consume(&mut self, inst: Inst) {
        self.consumed.insert(inst);
    }

    /// Whether a rule has covered it.
    pub fn is_consumed(&self, inst: Inst) -> bool {
        self.consumed.contains(&inst)
    }

    /// The instruction at hand. For a branch it is the terminator.
    pub fn current(&self) -> Option<Inst> {
        self.current
    }

    /// The instructions of the current block that use a value, in program order, once for each use.
    pub fn uses_here(&self, value: Value) -> Vec<Inst> {
        let value = self.func.dfg.resolve_aliases(value);
        let block = self.current.and_then(|inst| self.func.layout.inst_block(inst));
        let insts = block.into_iter().flat_map(|block| self.func.layout.block_insts(block));
        insts
            .flat_map(|inst| self.func.dfg.inst_values(inst).map(move |used| (inst, used)))
            .filter(|(_, used)| self.func.dfg.resolve_aliases(*used) == value)
            .map(|(inst, _)| inst)
            .collect()
    }

    /// Whether nothing outside the current block uses a value.
    pub fn is_local(&self, value: Value) -> bool {
        self.uses_here(value).len() == self.uses[self.func.dfg.resolve_aliases(value)] as usize
    }

    /// Exchanges the pointer of an access.
    pub fn exchange_pointer(&mut self, inst: Inst, access: Access) {
        self.accesses.insert(inst, access);
    }

    /// What the pointer of an access was exchanged for.
    pub fn exchanged_pointer(&self, inst: Inst) -> Option<Access> {
        self.accesses.get(&inst).copied()
    }

    /// Offset in bytes of a stack slot within the slot area.
    pub fn slot(&self, slot: StackSlot) -> u32 {
        self.slots[slot]
    }

    /// Notes a call that passes `bytes` of arguments on the stack.
    pub fn note_call(&mut self, bytes: u32) {
        self.calls = true;
        self.outgoing = self.outgoing.max(bytes);
    }
}

/// Selects target instructions for a whole function.
///
/// # Errors
/// [`Refused`] names what the target has no rule for.
pub fn select<T: Isa>(isa: &T, func: &Function) -> Result<VCode<T::Inst>, Refused> {
    let mut cfg = ControlFlowGraph::new();
    cfg.compute(func);
    let order: Vec<ir::Block> = reachable(func);
    let position: HashMap<ir::Block, usize> = order.iter().enumerate().map(|(i, block)| (*block, i)).collect();

    let (slots, slot_bytes) = place_slots(func)?;
    let mut state = Select {
        func,
        insts: Vec::new(),
        registers: SecondaryMap::new(),
        uses: count_uses(func, &order),
        slots,
        current: None,
        consumed: HashSet::new(),
        accesses: HashMap::new(),
        float: isa.float_class(),
        vregs: 0,
        outgoing: 0,
        calls: false,
    };

    // Edges that need a block of their own: those that pass values, and critical ones. Numbered behind the CLIF blocks
    // in their final layout order: each behind the block it leaves.
    let mut blocks: Vec<Option<VBlock<T::Inst>>> = Vec::new();
    let mut number: HashMap<ir::Block, usize> = HashMap::new();
    let mut edges: HashMap<(ir::Block, usize), usize> = HashMap::new();
    for block in &order {
        number.insert(*block, blocks.len());
        blocks.push(None);
        let calls = successors(func, *block);
        if calls.len() > 1 {
            for (index, call) in calls.iter().enumerate() {
                let target = call.block(&func.dfg.value_lists);
                let shared = cfg.pred_iter(target).count() > 1
                    || calls
                        .iter()
                        .filter(|c| c.block(&func.dfg.value_lists) == target)
                        .count()
                        > 1;
                if shared || call.len(&func.dfg.value_lists) > 0 {
                    edges.insert((*block, index), blocks.len());
                    blocks.push(None);
                }
            }
        }
    }

    for block in postorder(func, &position) {
        let terminator_inst = func
            .layout
            .last_inst(block)
            .ok_or_else(|| Refused(format!("{block} is empty")))?;
        let mut reversed: Vec<T::Inst> = Vec::new();
        let calls = successors(func, block);
        let mut succs = Vec::new();
        state.current = Some(terminator_inst);
        for (index, call) in calls.iter().enumerate() {
            let target = regalloc2::Block::new(number[&call.block(&func.dfg.value_lists)]);
            match edges.get(&(block, index)) {
                None => succs.push(target),
                Some(edge) => {
                    let args = arguments(&mut state, call)?;
                    blocks[*edge] = Some(VBlock {
                        origin: Origin::Edge { from: block, index },
                        insts: Vec::new(),
                        locations: Vec::new(),
                        terminator: Terminator::Jump(args),
                        params: Vec::new(),
                        succs: vec![target],
                    });
                    succs.push(regalloc2::Block::new(*edge));
                }
            }
        }
        let terminator = match (&func.dfg.insts[terminator_inst], &calls[..]) {
            (InstructionData::Jump { .. }, [call]) => Terminator::Jump(arguments(&mut state, call)?),
            (InstructionData::Brif { arg, .. }, [_, _]) => Terminator::Branch(isa.branch(&mut state, *arg)?),
            (
                InstructionData::MultiAry {
                    opcode: Opcode::Return,
                    args,
                },
                [],
            ) => {
                let values = args.as_slice(&func.dfg.value_lists).to_vec();
                Terminator::Return(isa.ret(&mut state, &values)?)
            }
            (InstructionData::Trap { .. }, []) => Terminator::Trap(isa.trap(&mut state)?),
            _ => return Err(Refused(func.dfg.display_inst(terminator_inst).to_string())),
        };
        reversed.extend(state.insts.drain(..).rev());
        let mut locations = vec![func.srcloc(terminator_inst); reversed.len() + 1];

        let mut inst = func.layout.prev_inst(terminator_inst);
        while let Some(at) = inst {
            let opcode = func.dfg.insts[at].opcode();
            let effect = state.writes(at) || (opcode.can_trap() && !opcode.can_load() && !is_intrinsic(func, at));
            let wanted = func
                .dfg
                .inst_results(at)
                .iter()
                .any(|value| state.wanted(*value, 0) || state.wanted(*value, 1));
            let moves = state.exchanged_pointer(at).is_some_and(|access| access.moves);
            if (effect || wanted || moves) && !state.consumed.contains(&at) {
                state.current = Some(at);
                isa.select(&mut state, at)?;
                reversed.extend(state.insts.drain(..).rev());
                locations.resize(reversed.len() + 1, func.srcloc(at));
            }
            inst = func.layout.prev_inst(at);
        }

        let mut params = Vec::new();
        if Some(block) == func.layout.entry_block() {
            let values = func.dfg.block_params(block).to_vec();
            let (places, _) = isa.abi_params(&func.signature)?;
            let mut arguments: Vec<(VReg, Place)> = Vec::new();
            for (value, places) in values.iter().zip(&places) {
                for (part, place) in places.iter().enumerate() {
                    // Arguments nobody reads still occupy their registers.
                    arguments.push((state.part(*value, part), *place));
                }
            }
            isa.entry(&mut state, &arguments);
            reversed.extend(state.insts.drain(..).rev());
        } else {
            for value in func.dfg.block_params(block) {
                params.extend(state.parts(*value));
            }
        }
        locations.resize(reversed.len() + 1, ir::SourceLoc::default());
        reversed.reverse();
        locations.reverse();
        let number = number[&block];
        blocks[number] = Some(VBlock {
            origin: Origin::Block(block),
            insts: reversed,
            locations,
            terminator,
            params,
            succs,
        });
    }

    let blocks = blocks
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Refused("a block was not reached".into()))?;
    Ok(VCode::new(blocks, state.vregs, slot_bytes, state.outgoing, state.calls))
}

/// Whether an instruction is a call that stands for one of the target's.
fn is_intrinsic(func: &Function, inst: Inst) -> bool {
    let InstructionData::Call { func_ref, .. } = func.dfg.insts[inst] else {
        return false;
    };
    match func.dfg.ext_funcs[func_ref].name {
        ExternalName::User(name) => func.params.user_named_funcs()[name].namespace == intrinsic::NAMESPACE,
        _ => false,
    }
}

/// The registers that a branch passes to its target.
fn arguments<I: MachineInst>(state: &mut Select<I>, call: &BlockCall) -> Result<Vec<VReg>, Refused> {
    let pool = &state.func.dfg.value_lists;
    let mut registers = Vec::new();
    for arg in call.args(pool).collect::<Vec<_>>() {
        let value = arg
            .as_value()
            .ok_or_else(|| Refused(format!("block argument {arg:?}")))?;
        registers.extend(state.parts(value));
    }
    Ok(registers)
}

/// The branch targets of a block, with their arguments.
pub fn successors(func: &Function, block: ir::Block) -> Vec<BlockCall> {
    match func.layout.last_inst(block).map(|inst| &func.dfg.insts[inst]) {
        Some(InstructionData::Jump { destination, .. }) => vec![*destination],
        Some(InstructionData::Brif { blocks, .. }) => blocks.to_vec(),
        _ => Vec::new(),
    }
}

/// Reachable blocks in layout order.
fn reachable(func: &Function) -> Vec<ir::Block> {
    let mut seen = HashSet::new();
    let mut stack: Vec<ir::Block> = func.layout.entry_block().into_iter().collect();
    while let Some(block) = stack.pop() {
        if seen.insert(block) {
            stack.extend(
                successors(func, block)
                    .iter()
                    .map(|call| call.block(&func.dfg.value_lists)),
            );
        }
    }
    func.layout.blocks().filter(|block| seen.contains(block)).collect()
}

/// Blocks so that each comes before those that dominate it.
fn postorder(func: &Function, known: &HashMap<ir::Block, usize>) -> Vec<ir::Block> {
    let mut done = Vec::with_capacity(known.len());
    let mut seen = HashSet::new();
    let mut stack: Vec<(ir::Block, bool)> = func
        .layout
        .entry_block()
        .map(|block| (block, false))
        .into_iter()
        .collect();
    while let Some((block, finished)) = stack.pop() {
        if finished {
            done.push(block);
        } else if seen.insert(block) {
            stack.push((block, true));
            stack.extend(
                successors(func, block)
                    .iter()
                    .map(|call| (call.block(&func.dfg.value_lists), false)),
            );
        }
    }
    done
}

fn count_uses(func: &Function, order: &[ir::Block]) -> SecondaryMap<Value, u32> {
    let mut uses: SecondaryMap<Value, u32> = SecondaryMap::new();
    for block in order {
        for inst in func.layout.block_insts(*block) {
            for value in func.dfg.inst_values(inst) {
                uses[func.dfg.resolve_aliases(value)] += 1;
            }
        }
    }
    uses
}

fn place_slots(func: &Function) -> Result<(SecondaryMap<StackSlot, u32>, u32), Refused> {
    let mut offsets = SecondaryMap::new();
    let mut end = 0u32;
    for (slot, data) in func.sized_stack_slots.iter() {
        let align = 1u32
            .checked_shl(u32::from(data.align_shift))
            .filter(|align| *align <= 8);
        let align = align
            .ok_or_else(|| Refused(format!("alignment of stack slot {slot}")))?
            .max(4);
        let start = end
            .checked_next_multiple_of(align)
            .ok_or_else(|| Refused("stack slots too large".into()))?;
        offsets[slot] = start;
        end = start
            .checked_add(data.size)
            .ok_or_else(|| Refused("stack slots too large".into()))?;
    }
    Ok((offsets, end.next_multiple_of(4)))
}

/// A copy of `func` with unreachable blocks removed, which the verifier of register allocation insists on.
pub fn without_unreachable(mut func: Function) -> Function {
    let keep: HashSet<ir::Block> = reachable(&func).into_iter().collect();
    let drop: Vec<ir::Block> = func.layout.blocks().filter(|block| !keep.contains(block)).collect();
    for block in drop {
        let mut cursor = FuncCursor::new(&mut func).at_first_insertion_point(block);
        while cursor.current_inst().is_some() {
            cursor.remove_inst();
        }
        func.layout.remove_block(block);
    }
    func
}
