//! Rules of Thumb-2: one CLIF instruction at a time, on values of at most 32 bits. Pairs are in `wide`, floats in
//! `float`.
//!
//! A value narrower than 32 bits has anything in the upper bits of its register; who looks at them extends first.

use super::encode::{self, Alu, Cond, Memory, Shift, modified_immediate};
use super::inst::{Address, Callee, Choice, Inst, PairAddress, Rhs, Source, Test};
use super::wide::comparable;
use super::{Thumb2, float, wide};
use crate::codegen::native::Place;
use crate::codegen::native::select::{Access, Refused, Select};
use crate::intrinsic::{self, Intrinsic};
use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::{self, ExternalName, GlobalValueData, InstructionData, Opcode, Type, Value, types};
use regalloc2::VReg;

/// Selection state with the shorthands that the rules share.
pub(super) struct Rules<'s, 'f> {
    pub s: &'s mut Select<'f, Inst>,
    pub isa: &'s Thumb2,
}

pub(super) fn select(isa: &Thumb2, state: &mut Select<Inst>, inst: ir::Inst) -> Result<(), Refused> {
    let mut rules = Rules { s: state, isa };
    if rules.select(inst)? {
        Ok(())
    } else {
        Err(Refused(rules.s.func.dfg.display_inst(inst).to_string()))
    }
}

pub(super) fn branch(isa: &Thumb2, state: &mut Select<Inst>, condition: Value) -> Inst {
    let mut rules = Rules { s: state, isa };
    let (test, cond) = match rules.counted(condition) {
        Some(cond) => (Test::Flags, cond),
        None => rules.truth(condition),
    };
    Inst::Branch { test, cond }
}

/// The condition code of an integer comparison.
pub(super) fn condition(cond: IntCC) -> Cond {
    match cond {
        IntCC::Equal => Cond::Eq,
        IntCC::NotEqual => Cond::Ne,
        IntCC::SignedLessThan => Cond::Lt,
        IntCC::SignedGreaterThanOrEqual => Cond::Ge,
        IntCC::SignedGreaterThan => Cond::Gt,
        IntCC::SignedLessThanOrEqual => Cond::Le,
        IntCC::UnsignedLessThan => Cond::Lo,
        IntCC::UnsignedGreaterThanOrEqual => Cond::Hs,
        IntCC::UnsignedGreaterThan => Cond::Hi,
        IntCC::UnsignedLessThanOrEqual => Cond::Ls,
    }
}

impl Rules<'_, '_> {
    pub fn alu(&mut self, op: Alu, rd: VReg, rn: VReg, rm: VReg) {
        self.s.emit(Inst::Alu {
            op,
            rd,
            rn,
            rm,
            shift: Shift::Lsl,
            amount: 0,
        });
    }

    pub fn shift_imm(&mut self, shift: Shift, rd: VReg, rm: VReg, amount: u32) {
        self.s.emit(match amount {
            0 => Inst::Move { rd, rm },
            _ => Inst::ShiftImm { shift, rd, rm, amount },
        });
    }

    pub fn imm(&mut self, value: u32) -> VReg {
        let rd = self.s.int();
        self.s.emit(Inst::Imm { rd, value });
        rd
    }

    pub fn mv(&mut self, rd: VReg, rm: VReg) {
        self.s.emit(Inst::Move { rd, rm });
    }

    pub fn constant(&self, value: Value) -> Option<u32> {
        self.s.constant(value).map(|value| value as u32)
    }

    /// A binary instruction whose result nobody else reads, as its operands.
    pub fn folded(&self, value: Value, opcode: Opcode) -> Option<[Value; 2]> {
        match self.s.def(value)?.1 {
            InstructionData::Binary { opcode: found, args } if found == opcode && self.s.only_use(value) => Some(args),
            _ => None,
        }
    }

    /// The value extended to 32 bits.
    pub fn extended(&mut self, value: Value, signed: bool) -> VReg {
        let ty = self.s.ty(value);
        if ty == types::I32 {
            return self.s.reg(value);
        }
        if let Some(constant) = self.constant(value) {
            let mask = (1u32 << ty.bits()) - 1;
            return self.imm(if signed { constant } else { constant & mask });
        }
        let rd = self.s.int();
        let rm = self.s.reg(value);
        self.extend(rd, rm, ty, signed);
        rd
    }

    pub fn extend(&mut self, rd: VReg, rm: VReg, ty: Type, signed: bool) {
        let bits = match (signed, ty) {
            (true, types::I8) => encode::SXTB,
            (true, types::I16) => encode::SXTH,
            (false, types::I8) => encode::UXTB,
            (false, types::I16) => encode::UXTH,
            _ => return self.mv(rd, rm),
        };
        self.s.emit(Inst::R2 { bits, rd, rm });
    }

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

    /// The condition after SUBS or ADDS for a branch that depends on what a counter becomes in this block, if nothing
    /// else here looks at it before the branch. Emits the instruction.
    fn counted(&mut self, condition: Value) -> Option<Cond> {
        let terminator = self.s.current()?;
        let block = self.s.func.layout.inst_block(terminator)?;
        let here = |rules: &Self, inst: ir::Inst| rules.s.func.layout.inst_block(inst) == Some(block);
        let (counter, cond) = match self.s.def(condition)? {
            (inst, InstructionData::IntCompare { args: [a, b], cond, .. })
                if self.s.constant(b) == Some(0) && here(self, inst) && self.s.only_use(condition) =>
            {
                let cond = match cond {
                    IntCC::Equal => Cond::Eq,
                    IntCC::NotEqual => Cond::Ne,
                    IntCC::SignedLessThan => Cond::Mi,
                    IntCC::SignedGreaterThanOrEqual => Cond::Pl,
                    _ => return None,
                };
                (a, cond)
            }
            _ => (condition, Cond::Ne),
        };
        let compare = self
            .s
            .func
            .dfg
            .value_def(self.s.func.dfg.resolve_aliases(condition))
            .inst();
        let (inst, InstructionData::Binary { opcode, args: [a, b] }) = self.s.def(counter)? else {
            return None;
        };
        let op = match opcode {
            Opcode::Iadd => Alu::Add,
            Opcode::Isub => Alu::Sub,
            _ => return None,
        };
        if self.s.ty(counter) != types::I32 || !here(self, inst) {
            return None;
        }
        // Other uses in this block must be those of the edges.
        let others = self.s.uses_here(counter);
        if others
            .into_iter()
            .any(|user| user != terminator && Some(user) != compare)
        {
            return None;
        }
        let constant = self.constant(b)?;
        let (op, imm) = if (constant as i32) < 0 && modified_immediate(constant.wrapping_neg()).is_some() {
            (
                if op == Alu::Add { Alu::Sub } else { Alu::Add },
                constant.wrapping_neg(),
            )
        } else {
            (op, constant)
        };
        modified_immediate(imm)?;
        self.s.consume(inst);
        let [rd, rn] = [counter, a].map(|value| self.s.reg(value));
        self.s.emit(Inst::AluImmFlags { op, rd, rn, imm });
        Some(cond)
    }

    /// The test and condition that hold if an integer is not zero.
    pub fn truth(&mut self, value: Value) -> (Test, Cond) {
        match self.s.def(value) {
            Some((_, InstructionData::IntCompare { args: [a, b], cond, .. })) => self.compare(a, b, cond),
            Some((_, InstructionData::FloatCompare { args: [a, b], cond, .. }))
                if self.isa.core.fpu && float::condition(cond).is_some() =>
            {
                let condition = float::condition(cond).unwrap_or(Cond::Eq);
                let [a, b] = [a, b].map(|value| self.s.reg(value));
                (Test::Floats(a, b), condition)
            }
            _ if self.s.ty(value) == types::I64 => {
                let [low, high] = self.s.pair(value);
                let any = self.s.int();
                self.alu(Alu::Orr, any, low, high);
                (Test::Words(any, Rhs::Imm(0)), Cond::Ne)
            }
            _ => {
                let register = self.extended(value, false);
                (Test::Words(register, Rhs::Imm(0)), Cond::Ne)
            }
        }
    }

    pub fn compare(&mut self, a: Value, b: Value, cond: IntCC) -> (Test, Cond) {
        if self.s.ty(a) == types::I64 {
            return self.compare_pairs(a, b, cond);
        }
        let signed = !matches!(
            cond,
            IntCC::UnsignedLessThan
                | IntCC::UnsignedGreaterThanOrEqual
                | IntCC::UnsignedGreaterThan
                | IntCC::UnsignedLessThanOrEqual
        );
        let left = self.extended(a, signed);
        let mask = if self.s.ty(b) == types::I32 || signed {
            u32::MAX
        } else {
            (1 << self.s.ty(b).bits()) - 1
        };
        let right = match self
            .constant(b)
            .map(|constant| constant & mask)
            .filter(|c| comparable(*c))
        {
            Some(constant) => Rhs::Imm(constant as i32),
            None => Rhs::Reg(self.extended(b, signed)),
        };
        (Test::Words(left, right), condition(cond))
    }

    /// `false` if there is no rule.
    fn select(&mut self, inst: ir::Inst) -> Result<bool, Refused> {
        let func = self.s.func;
        let data = func.dfg.insts[inst];
        let result = func.dfg.inst_results(inst).first().copied();
        let ty = result.map_or(types::INVALID, |value| self.s.ty(value));
        if ty.is_vector() || ty == types::F64 || ty == types::I128 {
            return Ok(false);
        }
        match data {
            InstructionData::Call { func_ref, .. } => return self.call(inst, func_ref),
            InstructionData::CallIndirect { sig_ref, .. } => {
                let args = func.dfg.inst_args(inst).to_vec();
                let Some((target, args)) = args.split_first() else {
                    return Ok(false);
                };
                let target = self.s.reg(*target);
                return self.emit_call(Callee::Register(target), inst, sig_ref, args);
            }
            InstructionData::IntCompare { args: [a, b], cond, .. } => {
                let Some(result) = result else { return Ok(false) };
                let (test, cond) = self.compare(a, b, cond);
                let rd = self.s.reg(result);
                self.s.emit(Inst::Set { test, cond, rd });
                return Ok(true);
            }
            _ if ty == types::I64 || wide::on_pairs(self, inst) => return Ok(wide::select(self, inst)),
            _ => {}
        }
        let Some(result) = result else {
            return Ok(match data {
                InstructionData::Store {
                    opcode,
                    args: [value, address],
                    offset,
                    ..
                } => self.store(inst, opcode, value, address, offset.into()),
                InstructionData::NullAry { opcode: Opcode::Nop } => true,
                _ => false,
            });
        };
        let rd = self.s.reg(result);
        Ok(match data {
            InstructionData::UnaryImm { .. } => {
                let value = self.constant(result).unwrap_or(0);
                self.s.emit(Inst::Imm { rd, value });
                true
            }
            InstructionData::UnaryGlobalValue { global_value, .. } => match &func.global_values[global_value] {
                GlobalValueData::Symbol {
                    name: ExternalName::User(name),
                    offset,
                    ..
                } => {
                    let symbol = func.params.user_named_funcs()[*name].index;
                    match i16::try_from(offset.bits()) {
                        Ok(offset) => self.s.emit(Inst::Symbol { rd, symbol, offset }),
                        Err(_) => {
                            let start = self.s.int();
                            self.s.emit(Inst::Symbol {
                                rd: start,
                                symbol,
                                offset: 0,
                            });
                            let far = self.imm(offset.bits() as u32);
                            self.alu(Alu::Add, rd, start, far);
                        }
                    }
                    true
                }
                _ => false,
            },
            InstructionData::FuncAddr { func_ref, .. } => match &func.dfg.ext_funcs[func_ref].name {
                ExternalName::User(name) => {
                    let symbol = func.params.user_named_funcs()[*name].index;
                    self.s.emit(Inst::Symbol { rd, symbol, offset: 0 });
                    true
                }
                _ => false,
            },
            InstructionData::StackAddr { stack_slot, offset, .. } => {
                let offset = self.s.slot(stack_slot).wrapping_add(i32::from(offset) as u32);
                self.s.emit(Inst::SlotAddress { rd, offset });
                true
            }
            InstructionData::Load {
                opcode, arg, offset, ..
            } => self.load(inst, opcode, ty, rd, arg, offset.into()),
            InstructionData::Ternary {
                opcode: Opcode::Select,
                args: [condition, yes, no],
            } => {
                let (test, cond) = self.truth(condition);
                self.choose(rd, test, cond, yes, no);
                true
            }
            _ if ty == types::F32 || float::on_floats(self, inst) => float::select(self, data, result, rd),
            InstructionData::Unary { opcode, arg } => self.unary(opcode, ty, rd, arg),
            InstructionData::Binary { opcode, args: [a, b] } => self.binary(opcode, ty, rd, a, b),
            InstructionData::Ternary {
                opcode: Opcode::Bitselect,
                args: [mask, yes, no],
            } => {
                // no ^ ((yes ^ no) & mask)
                let [mask, yes, no] = [mask, yes, no].map(|value| self.s.reg(value));
                let (differ, chosen) = (self.s.int(), self.s.int());
                self.alu(Alu::Eor, differ, yes, no);
                self.alu(Alu::And, chosen, differ, mask);
                self.alu(Alu::Eor, rd, no, chosen);
                true
            }
            _ => false,
        })
    }

    /// The address of two words at `pointer + offset` for LDRD and STRD, if they reach it.
    pub fn pair_address(&mut self, pointer: Value, offset: i32) -> Option<PairAddress> {
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
    fn aligned_word(&self, inst: ir::Inst) -> Option<(Value, Value, i32)> {
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
    fn pair(&mut self, inst: ir::Inst) -> Option<([Value; 2], PairAddress)> {
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

    fn store(&mut self, inst: ir::Inst, opcode: Opcode, value: Value, address: Value, offset: i32) -> bool {
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

    fn unary(&mut self, opcode: Opcode, ty: Type, rd: VReg, arg: Value) -> bool {
        let from = self.s.ty(arg);
        match opcode {
            Opcode::Sextend | Opcode::Uextend => {
                let signed = opcode == Opcode::Sextend;
                if let Some((
                    load,
                    InstructionData::Load {
                        opcode: Opcode::Load,
                        arg,
                        offset,
                        ..
                    },
                )) = self.s.foldable_load(arg)
                {
                    let opcode = match (signed, from) {
                        (true, types::I8) => Opcode::Sload8,
                        (false, types::I8) => Opcode::Uload8,
                        (true, _) => Opcode::Sload16,
                        (false, _) => Opcode::Uload16,
                    };
                    return self.load(load, opcode, types::I32, rd, arg, offset.into());
                }
                let rm = self.s.reg(arg);
                self.extend(rd, rm, from, signed);
            }
            Opcode::Ireduce => {
                let rm = self.s.reg(arg);
                self.mv(rd, rm);
            }
            Opcode::Ineg => {
                let rn = self.s.reg(arg);
                self.s.emit(Inst::AluImm {
                    op: Alu::Rsb,
                    rd,
                    rn,
                    imm: 0,
                });
            }
            Opcode::Bnot => {
                let rm = self.s.reg(arg);
                self.s.emit(Inst::Not { rd, rm });
            }
            Opcode::Iabs => {
                let value = self.extended(arg, true);
                let (sign, flipped) = (self.s.int(), self.s.int());
                self.shift_imm(Shift::Asr, sign, value, 31);
                self.alu(Alu::Eor, flipped, value, sign);
                self.alu(Alu::Sub, rd, flipped, sign);
            }
            Opcode::Clz if ty == types::I32 => {
                let rm = self.s.reg(arg);
                self.s.emit(Inst::R3 {
                    bits: encode::CLZ,
                    rd,
                    rn: rm,
                    rm,
                });
            }
            Opcode::Bitrev if ty == types::I32 => {
                let rm = self.s.reg(arg);
                self.s.emit(Inst::R3 {
                    bits: encode::RBIT,
                    rd,
                    rn: rm,
                    rm,
                });
            }
            _ => return false,
        }
        true
    }

    fn binary(&mut self, opcode: Opcode, ty: Type, rd: VReg, a: Value, b: Value) -> bool {
        match opcode {
            Opcode::Iadd | Opcode::Isub | Opcode::Band | Opcode::Bor | Opcode::Bxor => {
                self.arithmetic(opcode, rd, a, b);
                true
            }
            Opcode::Imul => {
                let [rn, rm] = [a, b].map(|value| self.s.reg(value));
                self.s.emit(Inst::R3 {
                    bits: encode::MUL,
                    rd,
                    rn,
                    rm,
                });
                true
            }
            Opcode::Ishl | Opcode::Ushr | Opcode::Sshr => {
                self.shift(opcode, ty, rd, a, b);
                true
            }
            Opcode::Rotr if ty == types::I32 => {
                let rn = self.s.reg(a);
                match self.constant(b) {
                    Some(amount) => self.shift_imm(Shift::Ror, rd, rn, amount & 31),
                    None => {
                        let amount = self.amount(b, ty);
                        self.s.emit(Inst::ShiftReg {
                            shift: Shift::Ror,
                            rd,
                            rn,
                            rm: amount,
                        });
                    }
                }
                true
            }
            Opcode::Rotl if ty == types::I32 => {
                let rn = self.s.reg(a);
                match self.constant(b) {
                    Some(amount) => self.shift_imm(Shift::Ror, rd, rn, amount.wrapping_neg() & 31),
                    None => {
                        let amount = self.amount(b, ty);
                        let opposite = self.s.int();
                        self.s.emit(Inst::AluImm {
                            op: Alu::Rsb,
                            rd: opposite,
                            rn: amount,
                            imm: 32,
                        });
                        self.s.emit(Inst::ShiftReg {
                            shift: Shift::Ror,
                            rd,
                            rn,
                            rm: opposite,
                        });
                    }
                }
                true
            }
            Opcode::Smulhi | Opcode::Umulhi => {
                let signed = opcode == Opcode::Smulhi;
                let [rn, rm] = [a, b].map(|value| self.extended(value, signed));
                if ty != types::I32 {
                    let product = self.s.int();
                    self.s.emit(Inst::R3 {
                        bits: encode::MUL,
                        rd: product,
                        rn,
                        rm,
                    });
                    self.shift_imm(Shift::Lsr, rd, product, ty.bits());
                } else if signed && self.isa.core.dsp {
                    self.s.emit(Inst::R3 {
                        bits: encode::SMMUL,
                        rd,
                        rn,
                        rm,
                    });
                } else {
                    let low = self.s.int();
                    let bits = if signed { encode::SMULL } else { encode::UMULL };
                    self.s.emit(Inst::MulLong {
                        bits,
                        rd: [low, rd],
                        rn,
                        rm,
                    });
                }
                true
            }
            Opcode::Sdiv | Opcode::Udiv | Opcode::Srem | Opcode::Urem => self.divide(opcode, rd, a, b),
            Opcode::Smin | Opcode::Smax | Opcode::Umin | Opcode::Umax => {
                if !self.saturate(opcode, rd, a, b) {
                    self.extreme(opcode, rd, a, b);
                }
                true
            }
            _ => false,
        }
    }

    /// Sums, differences and bitwise operations: immediates, multiply-accumulate, shifted operands.
    fn arithmetic(&mut self, opcode: Opcode, rd: VReg, a: Value, b: Value) {
        let op = match opcode {
            Opcode::Iadd => Alu::Add,
            Opcode::Isub => Alu::Sub,
            Opcode::Band => Alu::And,
            Opcode::Bor => Alu::Orr,
            _ => Alu::Eor,
        };
        let commutes = op != Alu::Sub;
        // Constants last; rsb takes one first.
        let (a, b) = if commutes && self.s.constant(a).is_some() {
            (b, a)
        } else {
            (a, b)
        };
        if let Some(constant) = self.constant(b)
            && let Some((op, imm)) = immediate(op, constant)
        {
            let step = match op {
                Alu::Add => imm as i32,
                Alu::Sub => (imm as i32).wrapping_neg(),
                _ => 0,
            };
            if self.s.ty(a) == types::I32 && self.post_index(a, step) {
                return;
            }
            let rn = self.s.reg(a);
            return self.s.emit(Inst::AluImm { op, rd, rn, imm });
        }
        if let (Alu::Sub, Some(constant)) = (op, self.constant(a))
            && modified_immediate(constant).is_some()
        {
            let rn = self.s.reg(b);
            return self.s.emit(Inst::AluImm {
                op: Alu::Rsb,
                rd,
                rn,
                imm: constant,
            });
        }
        if matches!(op, Alu::Add | Alu::Sub) {
            let product = self.folded(b, Opcode::Imul).map(|factors| (factors, a));
            let product = product.or_else(|| {
                (op == Alu::Add)
                    .then(|| self.folded(a, Opcode::Imul).map(|factors| (factors, b)))
                    .flatten()
            });
            if let Some((factors, ra)) = product {
                let [rn, rm] = factors.map(|value| self.s.reg(value));
                let ra = self.s.reg(ra);
                let bits = if op == Alu::Add { encode::MLA } else { encode::MLS };
                return self.s.emit(Inst::R4 { bits, rd, rn, rm, ra });
            }
        }
        let narrow = self.s.ty(a) != types::I32;
        for (x, y) in [(a, b), (b, a)].into_iter().take(if commutes { 2 } else { 1 }) {
            for (opcode, shift) in [
                (Opcode::Ishl, Shift::Lsl),
                (Opcode::Ushr, Shift::Lsr),
                (Opcode::Sshr, Shift::Asr),
            ] {
                // Right shifts of narrow values look at bits that nobody defined.
                if narrow && shift != Shift::Lsl {
                    continue;
                }
                if let Some([value, amount]) = self.folded(y, opcode)
                    && let Some(amount) = self.constant(amount).map(|amount| amount & (self.s.ty(y).bits() - 1))
                    && amount != 0
                {
                    let [rn, rm] = [x, value].map(|value| self.s.reg(value));
                    return self.s.emit(Inst::Alu {
                        op,
                        rd,
                        rn,
                        rm,
                        shift,
                        amount,
                    });
                }
            }
        }
        if op == Alu::And
            && let Some((
                _,
                InstructionData::Unary {
                    opcode: Opcode::Bnot,
                    arg,
                },
            )) = self.s.def(b)
            && self.s.only_use(b)
        {
            let [rn, rm] = [a, arg].map(|value| self.s.reg(value));
            return self.alu(Alu::Bic, rd, rn, rm);
        }
        let [rn, rm] = [a, b].map(|value| self.s.reg(value));
        self.alu(op, rd, rn, rm);
    }

    /// Lets the last access at a pointer move it, instead of the addition at hand. Accesses behind that one use the
    /// moved pointer. Nothing but accesses may use the pointer.
    fn post_index(&mut self, pointer: Value, step: i32) -> bool {
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

    fn shift(&mut self, opcode: Opcode, ty: Type, rd: VReg, a: Value, b: Value) {
        let shift = match opcode {
            Opcode::Ishl => Shift::Lsl,
            Opcode::Ushr => Shift::Lsr,
            _ => Shift::Asr,
        };
        if let Some(amount) = self.constant(b) {
            let amount = amount & (ty.bits() - 1);
            if ty != types::I32 && shift != Shift::Lsl && amount != 0 {
                // Extension and shift are one bit field.
                let rn = self.s.reg(a);
                let bits = encode::bit_field(shift == Shift::Asr, amount, ty.bits() - amount);
                return self.s.emit(Inst::Field { bits, rd, rn });
            }
            let rm = self.s.reg(a);
            return self.shift_imm(shift, rd, rm, amount);
        }
        let rn = match shift {
            Shift::Lsl => self.s.reg(a),
            _ => self.extended(a, shift == Shift::Asr),
        };
        let amount = self.amount(b, ty);
        self.s.emit(Inst::ShiftReg {
            shift,
            rd,
            rn,
            rm: amount,
        });
    }

    /// A shift amount within the width: the instructions look at eight bits.
    pub fn amount(&mut self, value: Value, ty: Type) -> VReg {
        let register = if self.s.ty(value) == types::I64 {
            self.s.half(value, 0)
        } else {
            self.s.reg(value)
        };
        let rd = self.s.int();
        self.s.emit(Inst::AluImm {
            op: Alu::And,
            rd,
            rn: register,
            imm: ty.bits() - 1,
        });
        rd
    }

    fn divide(&mut self, opcode: Opcode, rd: VReg, a: Value, b: Value) -> bool {
        // CLIF traps on zero (and on overflow), the instructions do not.
        let signed = matches!(opcode, Opcode::Sdiv | Opcode::Srem);
        if self
            .s
            .constant(b)
            .is_none_or(|divisor| divisor == 0 || (signed && divisor == -1))
        {
            return false;
        }
        let [rn, rm] = [a, b].map(|value| self.extended(value, signed));
        let bits = if signed { encode::SDIV } else { encode::UDIV };
        if matches!(opcode, Opcode::Sdiv | Opcode::Udiv) {
            self.s.emit(Inst::R3 { bits, rd, rn, rm });
        } else {
            let quotient = self.s.int();
            self.s.emit(Inst::R3 {
                bits,
                rd: quotient,
                rn,
                rm,
            });
            self.s.emit(Inst::R4 {
                bits: encode::MLS,
                rd,
                rn: quotient,
                rm,
                ra: rn,
            });
        }
        true
    }

    /// A clamp to a range that SSAT or USAT knows, with the arithmetic shift before it folded in.
    fn saturate(&mut self, opcode: Opcode, rd: VReg, a: Value, b: Value) -> bool {
        if self.s.ty(a) != types::I32 {
            return false;
        }
        let (outer, inner) = match opcode {
            Opcode::Smin => (opcode, Opcode::Smax),
            Opcode::Smax => (opcode, Opcode::Smin),
            _ => return false,
        };
        let Some(bound) = self.s.constant(b) else { return false };
        let Some([value, other]) = self.folded(a, inner) else {
            return false;
        };
        let Some(other) = self.s.constant(other) else {
            return false;
        };
        let (low, high) = if outer == Opcode::Smin {
            (other, bound)
        } else {
            (bound, other)
        };
        let width = 64 - (high as u64).leading_zeros();
        if high < 1 || high + 1 != 1 << width || width > 30 {
            return false;
        }
        let signed = match low {
            0 => false,
            low if low == -high - 1 => true,
            _ => return false,
        };
        let shifted = self.folded(value, Opcode::Sshr).and_then(|[value, amount]| {
            let amount = self.constant(amount)? & 31;
            (amount != 0).then_some((value, amount))
        });
        let (value, amount) = shifted.unwrap_or((value, 0));
        let rn = self.s.reg(value);
        let bits = if signed {
            encode::ssat(width + 1, amount)
        } else {
            encode::usat(width, amount)
        };
        self.s.emit(Inst::Field { bits, rd, rn });
        true
    }

    fn extreme(&mut self, opcode: Opcode, rd: VReg, a: Value, b: Value) {
        let signed = matches!(opcode, Opcode::Smin | Opcode::Smax);
        let cond = match opcode {
            Opcode::Smin => IntCC::SignedLessThan,
            Opcode::Umin => IntCC::UnsignedLessThan,
            Opcode::Smax => IntCC::SignedGreaterThan,
            _ => IntCC::UnsignedGreaterThan,
        };
        let (a, b) = if self.s.constant(a).is_some() { (b, a) } else { (a, b) };
        let ty = self.s.ty(a);
        let mask = if signed || ty == types::I32 {
            u32::MAX
        } else {
            (1 << ty.bits()) - 1
        };
        if let Some(bound) = self.constant(b).map(|bound| bound & mask)
            && comparable(bound)
            && encode::one_instruction(bound)
        {
            let no = self.extended(a, signed);
            return self.s.emit(Inst::Select {
                test: Test::Words(no, Rhs::Imm(bound as i32)),
                cond: condition(cond.complement()),
                moves: vec![Choice {
                    rd,
                    yes: Source::Imm(bound),
                    no,
                }],
            });
        }
        let [x, y] = [a, b].map(|value| self.extended(value, signed));
        self.s.emit(Inst::Select {
            test: Test::Words(y, Rhs::Reg(x)),
            cond: condition(cond),
            moves: vec![Choice {
                rd,
                yes: Source::Reg(y),
                no: x,
            }],
        });
    }

    /// rd = test holds ? yes : no. A constant is moved in from the instruction.
    fn choose(&mut self, rd: VReg, test: Test, cond: Cond, yes: Value, no: Value) {
        let movable = |rules: &Self, value: Value| rules.constant(value).filter(|c| encode::one_instruction(*c));
        let (cond, yes, no) = if movable(self, no).is_some() && movable(self, yes).is_none() {
            (cond.invert(), no, yes)
        } else {
            (cond, yes, no)
        };
        let yes = match movable(self, yes) {
            Some(constant) => Source::Imm(constant),
            None => Source::Reg(self.s.reg(yes)),
        };
        let no = self.s.reg(no);
        self.s.emit(Inst::Select {
            test,
            cond,
            moves: vec![Choice { rd, yes, no }],
        });
    }

    fn call(&mut self, inst: ir::Inst, callee: ir::FuncRef) -> Result<bool, Refused> {
        let func = self.s.func;
        let external = &func.dfg.ext_funcs[callee];
        let ExternalName::User(name) = &external.name else {
            return Ok(false);
        };
        let name = &func.params.user_named_funcs()[*name];
        let args = func.dfg.inst_args(inst).to_vec();
        if name.namespace == intrinsic::NAMESPACE {
            return Ok(self.intrinsic(inst, name.index, &args));
        }
        self.emit_call(Callee::Symbol(name.index), inst, external.signature, &args)
    }

    fn intrinsic(&mut self, inst: ir::Inst, index: u32, args: &[Value]) -> bool {
        let Some(intrinsic) = Intrinsic::from_index(index).filter(|_| self.isa.core.dsp) else {
            return false;
        };
        let Some(result) = self.s.func.dfg.inst_results(inst).first().copied() else {
            return false;
        };
        if args.len() != intrinsic.operands() {
            return false;
        }
        let rd = self.s.reg(result);
        let args: Vec<VReg> = args.iter().map(|value| self.s.reg(*value)).collect();
        let bits = match intrinsic {
            Intrinsic::Sxtb16 => encode::SXTB16,
            Intrinsic::Sxtb16Ror8 => encode::SXTB16_ROR8,
            Intrinsic::Sxtab16 => encode::SXTAB16,
            Intrinsic::Smlad => encode::SMLAD,
            Intrinsic::Smlabb => encode::SMLABB,
            Intrinsic::Smlabt => encode::SMLABT,
            Intrinsic::Smlatb => encode::SMLATB,
            Intrinsic::Smlatt => encode::SMLATT,
            Intrinsic::Smlawb => encode::SMLAWB,
            Intrinsic::Smlawt => encode::SMLAWT,
            Intrinsic::Smmul => encode::SMMUL,
            Intrinsic::Smmulr => encode::SMMULR,
            Intrinsic::Smmla => encode::SMMLA,
            Intrinsic::Smmlar => encode::SMMLAR,
            Intrinsic::Pkhbt => encode::PKHBT_LSL16,
            Intrinsic::Pkhtb => encode::PKHTB_ASR16,
            Intrinsic::Qadd => encode::QADD,
            Intrinsic::Qsub => encode::QSUB,
        };
        self.s.emit(match (intrinsic, &args[..]) {
            // QADD and QSUB name their operands the other way round.
            (Intrinsic::Qadd | Intrinsic::Qsub, [x, y]) => Inst::R3 {
                bits,
                rd,
                rn: *y,
                rm: *x,
            },
            (_, [x]) => Inst::R2 { bits, rd, rm: *x },
            (_, [x, y]) => Inst::R3 {
                bits,
                rd,
                rn: *x,
                rm: *y,
            },
            (_, [x, y, a]) => Inst::R4 {
                bits,
                rd,
                rn: *x,
                rm: *y,
                ra: *a,
            },
            _ => return false,
        });
        true
    }

    fn emit_call(
        &mut self,
        callee: Callee,
        inst: ir::Inst,
        signature: ir::SigRef,
        args: &[Value],
    ) -> Result<bool, Refused> {
        let func = self.s.func;
        let signature = &func.dfg.signatures[signature];
        let (places, stack) = self.isa.places(&signature.params)?;
        self.s.note_call(stack);
        let mut uses = Vec::new();
        for (value, places) in args.iter().zip(&places) {
            for (register, place) in self.s.parts(*value).into_iter().zip(places) {
                match *place {
                    Place::Register(fixed) => uses.push((self.isa.in_core(self.s, register), fixed)),
                    Place::Stack(offset) => self.s.emit(Inst::StoreArgument { rs: register, offset }),
                }
            }
        }
        let (places, stack) = self.isa.places(&signature.returns)?;
        if stack != 0 {
            return Ok(false);
        }
        let mut defs = Vec::new();
        let mut moves = Vec::new();
        for (value, places) in func.dfg.inst_results(inst).iter().zip(&places) {
            for (part, place) in self.s.parts(*value).into_iter().zip(places) {
                let Place::Register(fixed) = *place else { continue };
                if part.class() == fixed.class() {
                    defs.push((part, fixed));
                } else {
                    let core = self.s.int();
                    defs.push((core, fixed));
                    moves.push(Inst::Move { rd: part, rm: core });
                }
            }
        }
        let clobbers = self.isa.caller_saved();
        self.s.emit(Inst::Call {
            callee,
            uses,
            defs,
            clobbers,
        });
        moves.into_iter().for_each(|inst| self.s.emit(inst));
        Ok(true)
    }
}

/// Instructions that a store waits for its neighbour at most: its value takes a register as long.
const WAITING: usize = 4;

/// Whether an access reaches an offset.
fn fits(memory: Memory, span: i32, offset: i32) -> bool {
    match memory {
        Memory::Float => (-1020..=1020 - span).contains(&offset) && offset % 4 == 0,
        _ => (-255..=4095 - span).contains(&offset),
    }
}

/// An operation with a constant in the form that the machine has, if any.
pub(super) fn immediate(op: Alu, constant: u32) -> Option<(Alu, u32)> {
    let negated = constant.wrapping_neg();
    match op {
        Alu::Add | Alu::Sub => {
            let other = if op == Alu::Add { Alu::Sub } else { Alu::Add };
            let encodable = |value: u32| value < 4096 || modified_immediate(value).is_some();
            if encodable(constant) {
                Some((op, constant))
            } else {
                encodable(negated).then_some((other, negated))
            }
        }
        Alu::And if modified_immediate(constant).is_none() => {
            modified_immediate(!constant).map(|_| (Alu::Bic, !constant))
        }
        Alu::Orr if modified_immediate(constant).is_none() => {
            modified_immediate(!constant).map(|_| (Alu::Orn, !constant))
        }
        _ => modified_immediate(constant).map(|_| (op, constant)),
    }
}
