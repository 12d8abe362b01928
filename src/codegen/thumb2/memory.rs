//! Rules of Thumb-2 for loads and stores: addresses, two words in one access, accesses that move their pointer.

use super::encode::{Alu, Memory};
use super::inst::{Address, Inst, PairAddress};
use super::select::Rules;
use crate::codegen::native::select::Access;
use cranelift_codegen::ir::{self, InstructionData, Opcode, Type, Value, types};
use regalloc2::VReg;

/// Instructions that a store waits for its neighbour at most: its value takes a register as long.
const WAITING: usize = 4;

/// Whether an access reaches an offset.
fn fits(memory: Memory, span: i32, offset: i32) -> bool {
    match memory {
        Memory::Float => (-1020..=1020 - span).contains(&offset) && offset % 4 == 0,
        _ => (-255..=4095 - span).contains(&offset),
    }
}

impl Rules<'_, '_> {
    /// The address of the access `inst`; `span` is what it needs beyond the offset's reach (4 for pairs).
    pub fn address(&mut self, inst: ir::Inst, address: Value, offset: i32, memory: Memory, span: i32) -> Address {
        let fits = |offset: i32| fits(memory, span, offset);
        if let Some(access) = self.s.exchanged_pointer(inst) {
            let moved = self.s.reg(access.base);
            if access.moves {
                return Address::Post(self.s.reg(address), moved, access.step);
            }
            return Address::Offset(moved, offset - access.step);
        }
        if let Some(slot) = self.slot(address, offset)
            && memory != Memory::Float
            && span == 0
        {
            return Address::Slot(slot);
        }
        if let Some((
            _,
            InstructionData::Binary {
                opcode: Opcode::Iadd,
                args: [base, index],
            },
        )) = self.s.def(address)
        {
            if let Some(sum) = self
                .constant(index)
                .and_then(|constant| offset.checked_add(constant as i32))
                && fits(sum)
            {
                return Address::Offset(self.s.reg(base), sum);
            }
            if offset == 0 && span == 0 && memory != Memory::Float && self.s.only_use(address) {
                let shifted = self.folded(index, Opcode::Ishl);
                if let Some([value, amount]) = shifted
                    && let Some(amount @ 0..=3) = self.constant(amount)
                {
                    return Address::Index(self.s.reg(base), self.s.reg(value), amount);
                }
                return Address::Index(self.s.reg(base), self.s.reg(index), 0);
            }
        }
        let base = self.s.reg(address);
        if fits(offset) {
            return Address::Offset(base, offset);
        }
        let far = self.imm(offset as u32);
        let sum = self.s.int();
        self.alu(Alu::Add, sum, base, far);
        Address::Offset(sum, 0)
    }

    /// Where in the area of stack slots an address is, near enough for LDRD behind all spilled registers.
    fn slot(&self, address: Value, offset: i32) -> Option<u32> {
        const REACH: u32 = 256;
        let (
            _,
            InstructionData::StackAddr {
                stack_slot, offset: at, ..
            },
        ) = self.s.def(address)?
        else {
            return None;
        };
        let offset = i32::from(at).checked_add(offset)?;
        let slot = self.s.slot(stack_slot).checked_add_signed(offset)?;
        (slot < REACH).then_some(slot)
    }

    /// The address of two words at `pointer + offset` for LDRD and STRD, if they reach it.
    pub fn pair_address(&mut self, pointer: Value, offset: i32) -> Option<PairAddress> {
        if let Some(slot) = self.slot(pointer, offset) {
            return (slot % 4 == 0).then_some(PairAddress::Slot(slot));
        }
        if let Some((
            _,
            InstructionData::Binary {
                opcode: Opcode::Iadd,
                args: [base, index],
            },
        )) = self.s.def(pointer)
            && let Some(sum) = self
                .constant(index)
                .and_then(|constant| offset.checked_add(constant as i32))
            && let Some(address) = self.pair_beside(base, sum)
        {
            return Some(address);
        }
        self.pair_beside(pointer, offset)
    }

    /// The same with the pointer as it is: one that an access has moved is not an addition to one that is gone.
    pub fn pair_beside(&mut self, pointer: Value, offset: i32) -> Option<PairAddress> {
        let reaches = (-1020..=1020).contains(&offset) && offset % 4 == 0;
        reaches.then(|| PairAddress::Offset(self.s.reg(pointer), offset))
    }

    /// A plain access of a word that is known to be aligned: its pointer, its value, its offset.
    pub fn aligned_word(&self, inst: ir::Inst) -> Option<(Value, Value, i32)> {
        let dfg = &self.s.func.dfg;
        let (pointer, value, flags, offset) = match dfg.insts[inst] {
            InstructionData::Load {
                opcode: Opcode::Load,
                arg,
                flags,
                offset,
            } => (arg, dfg.first_result(inst), flags, offset),
            InstructionData::Store {
                opcode: Opcode::Store,
                args: [value, pointer],
                flags,
                offset,
            } => (pointer, value, flags, offset),
            _ => return None,
        };
        let usable = self.s.ty(value) == types::I32 && dfg.mem_flags[flags].aligned();
        usable.then(|| (dfg.resolve_aliases(pointer), value, offset.into()))
    }

    /// The access before the one at hand, if the two are one of LDRD or STRD: the values, the lower word first, and the
    /// address. The access before it needs no code then.
    pub fn pair(&mut self, inst: ir::Inst) -> Option<([Value; 2], PairAddress)> {
        if self.s.current() != Some(inst) {
            return None;
        }
        let opcode = |inst: ir::Inst| self.s.func.dfg.insts[inst].opcode();
        let mut before = self.s.func.layout.prev_inst(inst)?;
        if opcode(inst) == Opcode::Store {
            // The earlier store may wait while the later one's value is computed.
            for _ in 0..WAITING {
                if !opcode(before).can_load() && !self.s.writes(before) {
                    before = self.s.func.layout.prev_inst(before)?;
                }
            }
        }
        let (pointer, value, offset) = self.aligned_word(inst)?;
        let (other, second, at) = self.aligned_word(before)?;
        let load = opcode(inst) == Opcode::Load;
        let needed = !load || self.s.wanted(second, 0) || self.s.exchanged_pointer(before).is_some();
        if opcode(before) != opcode(inst)
            || other != pointer
            || at.abs_diff(offset) != 4
            || !needed
            || self.s.is_consumed(before)
            // A load over its own pointer.
            || (load && self.s.func.dfg.resolve_aliases(second) == pointer)
        {
            return None;
        }
        let low = offset.min(at);
        let address = match [before, inst].map(|inst| self.s.exchanged_pointer(inst)) {
            [None, None] => self.pair_address(pointer, low)?,
            [Some(one), Some(two)] if !one.moves && !two.moves => self.pair_beside(one.base, low - one.step)?,
            [Some(mover), _] | [_, Some(mover)] if mover.moves && low == 0 && mover.step % 4 == 0 => {
                let [base, moved] = [pointer, mover.base].map(|value| self.s.reg(value));
                PairAddress::Post(base, moved, mover.step)
            }
            _ => return None,
        };
        self.s.consume(before);
        Some((if at < offset { [second, value] } else { [value, second] }, address))
    }

    pub fn load(&mut self, inst: ir::Inst, opcode: Opcode, ty: Type, rd: VReg, address: Value, offset: i32) -> bool {
        let memory = match (opcode, ty) {
            (Opcode::Load, types::F32) if self.isa.core.fpu => Memory::Float,
            (Opcode::Load, types::I32 | types::F32) => Memory::Word,
            (Opcode::Load, types::I16) | (Opcode::Uload16, _) => Memory::Half,
            (Opcode::Load, types::I8) | (Opcode::Uload8, _) => Memory::Byte,
            (Opcode::Sload16, _) => Memory::SignedHalf,
            (Opcode::Sload8, _) => Memory::SignedByte,
            _ => return false,
        };
        if let Some((values, address)) = self.pair(inst) {
            let rd = values.map(|value| self.s.reg(value));
            self.load_pair(rd, address);
            return true;
        }
        let address = self.address(inst, address, offset, memory, 0);
        self.s.emit(Inst::Load { memory, rd, address });
        true
    }

    pub fn store(&mut self, inst: ir::Inst, opcode: Opcode, value: Value, address: Value, offset: i32) -> bool {
        let memory = match (opcode, self.s.ty(value)) {
            (Opcode::Store, types::F32) if self.isa.core.fpu => Memory::Float,
            (Opcode::Store, types::I32 | types::F32) => Memory::Word,
            (Opcode::Store, types::I16) | (Opcode::Istore16, _) => Memory::Half,
            (Opcode::Store, types::I8) | (Opcode::Istore8, _) => Memory::Byte,
            _ => return false,
        };
        if let Some((values, address)) = self.pair(inst) {
            let rs = values.map(|value| self.s.reg(value));
            self.s.emit(Inst::StorePair { rs, address });
            return true;
        }
        let rs = self.s.reg(value);
        let address = self.address(inst, address, offset, memory, 0);
        self.s.emit(Inst::Store { memory, rs, address });
        true
    }

    pub fn load_pair(&mut self, rd: [VReg; 2], address: PairAddress) {
        let keep = !self.isa.core.dsp;
        self.s.emit(Inst::LoadPair { rd, address, keep });
    }

    /// Lets the last access at a pointer move it, instead of the addition at hand. Accesses behind that one use the
    /// moved pointer. Nothing but accesses may use the pointer.
    pub fn post_index(&mut self, pointer: Value, step: i32) -> bool {
        if !(-255..=255).contains(&step) || step == 0 || !self.s.is_local(pointer) {
            return false;
        }
        let Some(addition) = self.s.current() else { return false };
        let mut uses = self.s.uses_here(pointer);
        if uses.pop() != Some(addition) {
            return false;
        }
        let dfg = &self.s.func.dfg;
        let same = |value: Value| dfg.resolve_aliases(value) == dfg.resolve_aliases(pointer);
        // What each access needs: its offset, its memory and span, and whether it could move the pointer.
        let mut accesses = Vec::with_capacity(uses.len());
        for inst in &uses {
            let (opcode, ty, offset) = match dfg.insts[*inst] {
                InstructionData::Load { opcode, offset, .. } => {
                    (opcode, self.s.ty(dfg.first_result(*inst)), i32::from(offset))
                }
                InstructionData::Store {
                    opcode,
                    args: [value, _],
                    offset,
                    ..
                } if !same(value) => (opcode, self.s.ty(value), i32::from(offset)),
                _ => return false,
            };
            let plain = matches!(opcode, Opcode::Load | Opcode::Store);
            let float = ty == types::F32 && self.isa.core.fpu;
            let memory = if float { Memory::Float } else { Memory::Word };
            let span = if plain && ty == types::I64 { 4 } else { 0 };
            // Loads that extensions take along stand where those do.
            let folded = opcode == Opcode::Load && ty.bits() < 32;
            accesses.push((*inst, offset, memory, span, !float && span == 0 && !folded));
        }
        let behind = |at: usize| accesses[at + 1..].iter();
        let mover = (0..accesses.len()).rev().find(|at| {
            let (_, offset, _, _, could) = accesses[*at];
            could && offset == 0 && behind(*at).all(|(_, offset, memory, span, _)| fits(*memory, *span, offset - step))
        });
        let Some(mover) = mover else { return false };
        let base = dfg.first_result(addition);
        for (at, (inst, ..)) in accesses.iter().enumerate().skip(mover) {
            let moves = at == mover;
            self.s.exchange_pointer(*inst, Access { base, step, moves });
        }
        true
    }
}
