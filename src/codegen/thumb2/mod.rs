//! Thumb-2 for Cortex-M3, M4, M7 and M33: registers, calling convention, frames, branch forms.
//!
//! Source: the Arm procedure call standard (AAPCS32), base variant: floats travel in core registers between our own
//! functions, so that one archive serves soft, softfp and hard-float applications.

mod encode;
mod float;
mod inst;
mod select;
#[cfg(test)]
mod tests;
mod wide;

use super::debug::FrameRule;
use super::native::emit::{Assembler, Frame};
use super::native::select::{Refused, Select};
use super::native::{Form, FrameNeeds, Isa, Place};
use cranelift_codegen::ir::{self, Signature, types};
use encode::{Alu, Cond, Encode, Memory, Shift};
use inst::{Address, Callee, Inst, PairRhs, Rhs, Source, Test, r, s};
use regalloc2::{Allocation, MachineEnv, PReg, PRegSet, RegClass, VReg};

const SP: u32 = 13;
/// Number of the first double-word register in DWARF.
const D0: u16 = 256;

/// What the core has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// The DSP extension (Armv7E-M; optional in Armv8-M).
    pub dsp: bool,
    /// Single-precision floating point.
    pub fpu: bool,
}

/// The Thumb-2 target.
#[derive(Debug)]
pub struct Thumb2 {
    core: Core,
    registers: MachineEnv,
}

impl Thumb2 {
    /// A target for this core.
    pub fn new(core: Core) -> Self {
        let set = |make: fn(usize) -> PReg, numbers: &[usize]| {
            numbers
                .iter()
                .fold(PRegSet::empty(), |set, number| set.with(make(*number)))
        };
        let floats: Vec<usize> = (0..32).collect();
        let (near, far) = if core.fpu {
            floats.split_at(16)
        } else {
            floats[..0].split_at(0)
        };
        // Low registers first: short encodings. Saving r4 to r7 is one instruction for all of them.
        let registers = MachineEnv {
            preferred_regs_by_class: [set(r, &[0, 1, 2, 3, 4, 5, 6, 7]), set(s, near), PRegSet::empty()],
            non_preferred_regs_by_class: [set(r, &[12, 8, 9, 10, 11, 14]), set(s, far), PRegSet::empty()],
            scratch_by_class: [None; 3],
            fixed_stack_slots: Vec::new(),
        };
        Thumb2 { core, registers }
    }

    /// Registers that a callee may overwrite.
    fn caller_saved(&self) -> PRegSet {
        let mut set = PRegSet::empty();
        [0, 1, 2, 3, 12, 14]
            .map(r)
            .into_iter()
            .for_each(|register| set.add(register));
        if self.core.fpu {
            (0..16).map(s).for_each(|register| set.add(register));
        }
        set
    }

    /// Places of a list of types: r0 to r3, then the stack; 64-bit integers are aligned to even registers.
    fn places(&self, params: &[ir::AbiParam]) -> Result<(Vec<Vec<Place>>, u32), Refused> {
        let (mut next, mut stack) = (0usize, 0u32);
        let mut places = Vec::with_capacity(params.len());
        for param in params {
            let words = match param.value_type {
                types::I8 | types::I16 | types::I32 | types::F32 => 1,
                types::I64 => 2,
                other => return Err(Refused(format!("a parameter of type {other}"))),
            };
            if words == 2 {
                next = next.next_multiple_of(2);
            }
            // A pair is never split between registers and stack.
            if next + words > 4 {
                next = 4;
                stack = stack.next_multiple_of(4 * words as u32);
            }
            let mut value = Vec::with_capacity(words);
            for _ in 0..words {
                if next < 4 {
                    value.push(Place::Register(r(next)));
                    next += 1;
                } else {
                    value.push(Place::Stack(stack));
                    stack += 4;
                }
            }
            places.push(value);
        }
        Ok((places, stack.next_multiple_of(8)))
    }

    /// `register` in a core register.
    fn in_core(&self, state: &mut Select<Inst>, register: VReg) -> VReg {
        if register.class() == RegClass::Int {
            return register;
        }
        let rd = state.int();
        state.emit(Inst::Move { rd, rm: register });
        rd
    }
}

impl Isa for Thumb2 {
    type Inst = Inst;
    type Condition = Condition;

    fn registers(&self) -> &MachineEnv {
        &self.registers
    }

    fn float_class(&self) -> Option<RegClass> {
        self.core.fpu.then_some(RegClass::Float)
    }

    fn abi_params(&self, signature: &Signature) -> Result<(Vec<Vec<Place>>, u32), Refused> {
        self.places(&signature.params)
    }

    fn entry(&self, state: &mut Select<Inst>, arguments: &[(VReg, Place)]) {
        let mut registers = Vec::new();
        let mut later = Vec::new();
        for (register, place) in arguments {
            let float = register.class() == RegClass::Float;
            let core = if float { state.int() } else { *register };
            match *place {
                Place::Register(fixed) => registers.push((core, fixed)),
                Place::Stack(offset) => later.push(Inst::LoadArgument { rd: core, offset }),
            }
            if float {
                later.push(Inst::Move {
                    rd: *register,
                    rm: core,
                });
            }
        }
        state.emit(Inst::Entry(registers));
        later.into_iter().for_each(|inst| state.emit(inst));
    }

    fn select(&self, state: &mut Select<Inst>, inst: ir::Inst) -> Result<(), Refused> {
        select::select(self, state, inst)
    }

    fn branch(&self, state: &mut Select<Inst>, condition: ir::Value) -> Result<Inst, Refused> {
        Ok(select::branch(self, state, condition))
    }

    fn ret(&self, state: &mut Select<Inst>, values: &[ir::Value]) -> Result<Inst, Refused> {
        let params: Vec<ir::AbiParam> = values.iter().map(|value| ir::AbiParam::new(state.ty(*value))).collect();
        let (places, stack) = self.places(&params)?;
        if stack != 0 {
            return Err(Refused("results beyond r0 to r3".into()));
        }
        let mut registers = Vec::new();
        for (value, places) in values.iter().zip(&places) {
            for (register, place) in state.parts(*value).into_iter().zip(places) {
                if let Place::Register(fixed) = *place {
                    registers.push((self.in_core(state, register), fixed));
                }
            }
        }
        Ok(Inst::Return(registers))
    }

    fn trap(&self, _state: &mut Select<Inst>) -> Result<Inst, Refused> {
        Ok(Inst::Trap)
    }

    fn frame(&self, needs: &FrameNeeds) -> Result<Frame, Refused> {
        let mut saved: Vec<PReg> = (4..12)
            .map(r)
            .filter(|register| needs.used.contains(*register))
            .collect();
        if needs.calls || needs.used.contains(r(14)) {
            saved.push(r(14));
        }
        // Callees may expect the stack pointer to be a multiple of 8.
        if needs.calls && saved.len() % 2 == 1 {
            let filler = (4..12)
                .map(r)
                .find(|register| !saved.contains(register))
                .unwrap_or(r(12));
            saved.push(filler);
            saved.sort_unstable_by_key(|register| register.hw_enc());
        }
        // VPUSH takes a contiguous range.
        let highest = (16..32).filter(|number| needs.used.contains(s(*number))).max();
        if let Some(highest) = highest {
            saved.extend((16..(highest + 1).next_multiple_of(2)).map(s));
        }
        let spills = needs.outgoing;
        let slots = spills + 4 * needs.spills;
        let locals = (slots + needs.slots).next_multiple_of(8);
        let incoming = locals + 4 * saved.len() as u32;
        if slots > 4000 || incoming > 1 << 24 {
            return Err(Refused(format!(
                "a frame of {incoming} bytes is out of reach of its accesses"
            )));
        }
        Ok(Frame {
            saved,
            locals,
            spills,
            slots,
            incoming,
            total: incoming,
        })
    }

    fn prologue(&self, frame: &Frame, asm: &mut Assembler) {
        let (list, floats) = saved(frame);
        match list {
            0 => {}
            _ if list & !0x40ff == 0 => asm.half((0xb400 | (list >> 14) << 8 | (list & 0xff)) as u16),
            // PUSH of one register has a form of its own: STR rt, [sp, #-4]!
            _ if list.is_power_of_two() => asm.wide(PUSH_ONE | list.trailing_zeros() << 12),
            _ => asm.wide(0xe92d_0000 | list),
        }
        let core = (0..16).filter(|number| list & 1 << number != 0);
        let pushed = 4 * list.count_ones();
        if list != 0 {
            asm.rule(FrameRule::CfaOffset(pushed));
            core.zip(0..)
                .for_each(|(number, place)| asm.rule(FrameRule::Saved(number, 4 * place - pushed as i32)));
        }
        if floats != 0 {
            asm.wide(0xed2d_8a00 | floats);
            let pushed = pushed + 4 * floats;
            asm.rule(FrameRule::CfaOffset(pushed));
            // Pairs have numbers in DWARF, D8 the first of them.
            let pairs = 0..(floats / 2) as u16;
            pairs.for_each(|pair| asm.rule(FrameRule::Saved(D0 + 8 + pair, 8 * i32::from(pair) - pushed as i32)));
        }
        if frame.locals != 0 {
            move_stack(asm, Alu::Sub, frame.locals);
            asm.rule(FrameRule::CfaOffset(frame.total));
        }
    }

    fn epilogue(&self, frame: &Frame, asm: &mut Assembler) {
        let (list, floats) = saved(frame);
        let pushed = 4 * list.count_ones();
        asm.rule(FrameRule::Remember);
        if frame.locals != 0 {
            move_stack(asm, Alu::Add, frame.locals);
            asm.rule(FrameRule::CfaOffset(pushed + 4 * floats));
        }
        if floats != 0 {
            asm.wide(0xecbd_8a00 | floats);
            asm.rule(FrameRule::CfaOffset(pushed));
            (0..(floats / 2) as u16).for_each(|pair| asm.rule(FrameRule::Same(D0 + 8 + pair)));
        }
        // The return address goes straight to the program counter.
        let returns = list & 1 << 14 != 0;
        let list = if returns { list & !(1 << 14) | 1 << 15 } else { list };
        match list {
            0 => {}
            _ if list & !0x80ff == 0 => asm.half((0xbc00 | (list >> 15) << 8 | (list & 0xff)) as u16),
            // LDR rt, [sp], #4
            _ if list.is_power_of_two() => asm.wide(POP_ONE | list.trailing_zeros() << 12),
            _ => asm.wide(0xe8bd_0000 | list),
        }
        if !returns {
            if list != 0 {
                asm.rule(FrameRule::CfaOffset(0));
                let core = (0..16).filter(|number| list & 1 << number != 0);
                core.for_each(|number| asm.rule(FrameRule::Same(number)));
            }
            asm.half(0x4770);
        }
        asm.rule(FrameRule::Restore);
    }

    fn emit(&self, inst: &Inst, allocations: &[Allocation], frame: &Frame, asm: &mut Assembler) -> Option<Condition> {
        let reg = |index: usize| {
            allocations[index]
                .as_reg()
                .map_or(0, |register| register.hw_enc() as u32)
        };
        match inst {
            Inst::Entry(_) | Inst::Return(_) => {}
            Inst::LoadArgument { offset, .. } => match frame.incoming + offset {
                near @ 0..4096 => asm.memory(true, Memory::Word, reg(0), SP, near as i32),
                far => {
                    asm.imm(reg(0), far);
                    asm.memory_index(true, Memory::Word, reg(0), SP, reg(0), 0);
                }
            },
            Inst::StoreArgument { rs, offset } => {
                stack_access(asm, false, rs.class(), reg(0), *offset);
            }
            Inst::Imm { value, .. } => asm.imm(reg(0), *value),
            Inst::Symbol { symbol, offset, .. } => {
                // The addend stands in both instructions, as 16 bits with a sign.
                for (kind, bits) in [
                    (encode::reloc::THM_MOVW_ABS_NC, 0xf240_0000),
                    (encode::reloc::THM_MOVT_ABS, 0xf2c0_0000),
                ] {
                    asm.fixup(*symbol, kind, 0);
                    asm.mov16(bits, reg(0), *offset as u32 & 0xffff);
                }
            }
            Inst::SlotAddress { offset, .. } => {
                let offset = frame.slots + offset;
                if offset < 4096 || encode::modified_immediate(offset).is_some() {
                    asm.alu_imm(Alu::Add, reg(0), SP, offset);
                } else {
                    asm.imm(reg(0), offset);
                    asm.alu(Alu::Add, false, reg(0), SP, reg(0), Shift::Lsl, 0);
                }
            }
            Inst::Move { rd, rm } => match (rd.class(), rm.class()) {
                (RegClass::Int, RegClass::Int) => {
                    if reg(0) != reg(1) {
                        asm.mov(reg(0), reg(1));
                    }
                }
                (RegClass::Int, _) => asm.move_between(false, reg(0), reg(1)),
                (_, RegClass::Int) => asm.move_between(true, reg(1), reg(0)),
                _ => {
                    if reg(0) != reg(1) {
                        asm.float2(encode::VMOV, reg(0), reg(1));
                    }
                }
            },
            Inst::Alu { op, shift, amount, .. } => asm.alu(*op, false, reg(0), reg(1), reg(2), *shift, *amount),
            Inst::AluImm { op, imm, .. } => asm.alu_imm(*op, reg(0), reg(1), *imm),
            Inst::AluImmFlags { op, imm, .. } => asm.alu_imm_flags(*op, reg(0), reg(1), *imm),
            Inst::Not { .. } => {
                if reg(0) < 8 && reg(1) < 8 {
                    asm.half((0x43c0 | reg(1) << 3 | reg(0)) as u16);
                } else {
                    asm.alu(Alu::Orn, false, reg(0), 15, reg(1), Shift::Lsl, 0);
                }
            }
            Inst::ShiftImm { shift, amount, .. } => {
                if reg(0) < 8 && reg(1) < 8 && *shift != Shift::Ror {
                    asm.half(((*shift as u32) << 11 | amount << 6 | reg(1) << 3 | reg(0)) as u16);
                } else {
                    asm.alu(Alu::Orr, false, reg(0), 15, reg(1), *shift, *amount);
                }
            }
            Inst::ShiftReg { shift, .. } => {
                if reg(0) == reg(1) && reg(0) < 8 && reg(2) < 8 {
                    let code = [2, 3, 4, 7][*shift as usize];
                    asm.half((0x4000 | code << 6 | reg(2) << 3 | reg(0)) as u16);
                } else {
                    asm.wide(0xfa00_f000 | (*shift as u32) << 21 | reg(1) << 16 | reg(0) << 8 | reg(2));
                }
            }
            Inst::R3 { bits, .. } => {
                let (rd, rn, rm) = (reg(0), reg(1), reg(2));
                if *bits == encode::MUL && rd < 8 && rn < 8 && rm < 8 && (rd == rm || rd == rn) {
                    let other = if rd == rm { rn } else { rm };
                    asm.half((0x4340 | other << 3 | rd) as u16);
                } else {
                    asm.wide(bits | rn << 16 | rd << 8 | rm);
                }
            }
            Inst::R4 { bits, .. } => asm.wide(bits | reg(1) << 16 | reg(3) << 12 | reg(0) << 8 | reg(2)),
            Inst::R2 { bits, .. } => {
                let narrow = match *bits {
                    encode::SXTH => Some(0xb200),
                    encode::SXTB => Some(0xb240),
                    encode::UXTH => Some(0xb280),
                    encode::UXTB => Some(0xb2c0),
                    _ => None,
                };
                match narrow {
                    Some(narrow) if reg(0) < 8 && reg(1) < 8 => asm.half((narrow | reg(1) << 3 | reg(0)) as u16),
                    _ => asm.wide(bits | reg(0) << 8 | reg(1)),
                }
            }
            Inst::Field { bits, .. } => asm.wide(bits | reg(1) << 16 | reg(0) << 8),
            Inst::MulLong { bits, .. } => asm.wide(bits | reg(2) << 16 | reg(0) << 12 | reg(1) << 8 | reg(3)),
            Inst::MulAddLong { bits, .. } => {
                asm.mov(reg(1), reg(3));
                asm.wide(bits | reg(4) << 16 | reg(0) << 12 | reg(1) << 8 | reg(5));
            }
            Inst::Pairs { subtract, b, .. } => {
                let (first, second) = if *subtract {
                    (Alu::Sub, Alu::Sbc)
                } else {
                    (Alu::Add, Alu::Adc)
                };
                match *b {
                    PairRhs::Regs(_) => {
                        asm.alu(first, true, reg(0), reg(2), reg(4), Shift::Lsl, 0);
                        asm.alu(second, false, reg(1), reg(3), reg(5), Shift::Lsl, 0);
                    }
                    PairRhs::Imm([low, high]) => {
                        asm.alu_imm_flags(first, reg(0), reg(2), low);
                        asm.alu_imm(second, reg(1), reg(3), high);
                    }
                }
            }
            Inst::Load { memory, address, .. } => access(asm, true, *memory, address, reg),
            Inst::Store { memory, address, .. } => access(asm, false, *memory, address, reg),
            Inst::LoadPair { address, .. } => asm.memory_pair(true, [reg(0), reg(1)], reg(2), *address),
            Inst::StorePair { address, .. } => asm.memory_pair(false, [reg(0), reg(1)], reg(2), *address),
            Inst::Set { test, cond, .. } => {
                compare(asm, test, 1, reg);
                // ITE cond; MOV rd, #1; MOV rd, #0
                asm.half(0xbf00 | (*cond as u16) << 4 | ((*cond as u16 & 1) ^ 1) << 3 | 4);
                for value in [1, 0] {
                    if reg(0) < 8 {
                        asm.half((0x2000 | reg(0) << 8 | value) as u16);
                    } else {
                        asm.wide(0xf04f_0000 | reg(0) << 8 | value);
                    }
                }
            }
            Inst::Select { test, cond, moves } => {
                let registers = moves.iter().filter(|choice| matches!(choice.yes, Source::Reg(_)));
                let mut yes = 2 * moves.len();
                compare(asm, test, yes + registers.count(), reg);
                // IT, or ITTE: the second result takes either.
                let odd = *cond as u16 & 1;
                let mask = if moves.len() == 1 {
                    8
                } else {
                    odd << 3 | (odd ^ 1) << 2 | 2
                };
                asm.half(0xbf00 | (*cond as u16) << 4 | mask);
                for (at, choice) in moves.iter().enumerate() {
                    let rd = reg(2 * at);
                    match choice.yes {
                        Source::Imm(value) => asm.imm_keeping_flags(rd, value),
                        Source::Reg(_) => {
                            if choice.rd.class() == RegClass::Float {
                                asm.float2(encode::VMOV, rd, reg(yes));
                            } else {
                                asm.mov(rd, reg(yes));
                            }
                            yes += 1;
                        }
                    }
                }
                if moves.len() == 2 {
                    asm.mov(reg(2), reg(3));
                }
            }
            Inst::Float3 { bits, .. } => asm.float3(*bits, reg(0), reg(1), reg(2)),
            Inst::FloatMulAdd { bits, .. } => asm.float3(*bits, reg(0), reg(2), reg(3)),
            Inst::Float2 { bits, .. } => asm.float2(*bits, reg(0), reg(1)),
            Inst::Call { callee, .. } => match callee {
                Callee::Symbol(symbol) => {
                    asm.fixup(*symbol, encode::reloc::THM_CALL, 0);
                    asm.wide(0xf7ff_fffe);
                }
                Callee::Register(_) => asm.half((0x4780 | reg(0) << 3) as u16),
            },
            Inst::Branch { test, cond } => {
                // A comparison with 0 may become a part of the branch.
                let zero = match (test, cond) {
                    (Test::Words(_, Rhs::Imm(0)), Cond::Eq | Cond::Ne) => Some(reg(0)).filter(|register| *register < 8),
                    _ => None,
                };
                if zero.is_none() {
                    compare(asm, test, 0, reg);
                }
                return Some(Condition { cond: *cond, zero });
            }
            Inst::Trap => asm.half(0xde00),
        }
        None
    }

    fn emit_move(&self, from: Allocation, to: Allocation, frame: &Frame, asm: &mut Assembler) {
        let slot = |allocation: Allocation| {
            allocation
                .as_stack()
                .map_or(0, |slot| frame.spills + 4 * slot.index() as u32)
        };
        match (from.as_reg(), to.as_reg()) {
            (Some(from), Some(to)) if from.class() == RegClass::Int => {
                asm.mov(to.hw_enc() as u32, from.hw_enc() as u32)
            }
            (Some(from), Some(to)) => asm.float2(encode::VMOV, to.hw_enc() as u32, from.hw_enc() as u32),
            (Some(from), None) => stack_access(asm, false, from.class(), from.hw_enc() as u32, slot(to)),
            (None, Some(to)) => stack_access(asm, true, to.class(), to.hw_enc() as u32, slot(from)),
            // regalloc2 resolves these through a register of its own.
            (None, None) => unreachable!("a move between two spill slots"),
        }
    }

    fn invert(&self, condition: Condition) -> Condition {
        Condition {
            cond: condition.cond.invert(),
            ..condition
        }
    }

    fn forms(&self, condition: Option<Condition>) -> &'static [Form] {
        match condition {
            Some(Condition { zero: Some(_), .. }) => &[CB, CMP_B_COND, CMP_B_COND_WIDE, CMP_B_OVER_B],
            Some(_) => &[B_COND, B_COND_WIDE, B_OVER_B],
            None => &[B, B_WIDE],
        }
    }

    fn encode_branch(&self, condition: Option<Condition>, form: usize, displacement: i64) -> Vec<u8> {
        let condition = match condition {
            Some(Condition {
                cond,
                zero: Some(register),
            }) => {
                if form == 0 {
                    let bits = encode::encode_cb(cond == Cond::Ne, register, displacement);
                    return bits.to_le_bytes().to_vec();
                }
                let mut bytes = (0x2800 | (register as u16) << 8).to_le_bytes().to_vec();
                let condition = Some(Condition { cond, zero: None });
                bytes.extend(self.encode_branch(condition, form - 1, displacement - 2));
                return bytes;
            }
            condition => condition.map(|condition| condition.cond),
        };
        let wide = |word: u32| [((word >> 16) as u16).to_le_bytes(), (word as u16).to_le_bytes()].concat();
        match (condition, form) {
            (condition, 0) => encode::encode_b_narrow(condition, displacement).to_le_bytes().to_vec(),
            (Some(condition), 2) => {
                let mut bytes = encode::encode_b_narrow(Some(condition.invert()), 6)
                    .to_le_bytes()
                    .to_vec();
                bytes.extend(wide(encode::encode_b_wide(None, displacement - 2)));
                bytes
            }
            (condition, _) => wide(encode::encode_b_wide(condition, displacement)),
        }
    }
}

/// What a branch depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    cond: Cond,
    /// A low register that is compared with 0 first, for = and ≠.
    zero: Option<u32>,
}

/// A form behind a comparison with 0.
const fn compared(form: Form) -> Form {
    Form {
        bytes: form.bytes + 2,
        min: form.min + 2,
        max: form.max + 2,
        taken: form.taken + 1,
        not_taken: form.not_taken + 1,
    }
}

const CB: Form = Form {
    bytes: 2,
    min: 4,
    max: 130,
    taken: 1,
    not_taken: 1,
};
const CMP_B_COND: Form = compared(B_COND);
const CMP_B_COND_WIDE: Form = compared(B_COND_WIDE);
const CMP_B_OVER_B: Form = compared(B_OVER_B);
const B_COND: Form = Form {
    bytes: 2,
    min: -252,
    max: 258,
    taken: 1,
    not_taken: 1,
};
const B_COND_WIDE: Form = Form {
    bytes: 4,
    min: 4 - (1 << 20),
    max: (1 << 20) + 2,
    taken: 1,
    not_taken: 1,
};
const B_OVER_B: Form = Form {
    bytes: 6,
    min: 6 - (1 << 24),
    max: (1 << 24) + 4,
    taken: 2,
    not_taken: 1,
};
const B: Form = Form {
    bytes: 2,
    min: -2044,
    max: 2050,
    taken: 1,
    not_taken: 0,
};
const B_WIDE: Form = Form {
    bytes: 4,
    min: 4 - (1 << 24),
    max: (1 << 24) + 2,
    taken: 1,
    not_taken: 0,
};

/// The list of saved core registers as a mask, and the number of saved float registers from s16.
fn saved(frame: &Frame) -> (u32, u32) {
    let core = frame.saved.iter().filter(|register| register.class() == RegClass::Int);
    let list = core.fold(0, |list, register| list | 1 << register.hw_enc());
    (
        list,
        frame
            .saved
            .iter()
            .filter(|register| register.class() == RegClass::Float)
            .count() as u32,
    )
}

/// A word at an offset of at most 4000 from the stack pointer. Flags stay as they are.
fn stack_access(asm: &mut Assembler, load: bool, class: RegClass, register: u32, offset: u32) {
    match (class, load) {
        (RegClass::Int, _) => asm.memory(load, Memory::Word, register, SP, offset as i32),
        _ if offset <= 1020 => asm.memory(load, Memory::Float, register, SP, offset as i32),
        // Out of reach of VLDR and VSTR: through r0, which is put aside.
        (_, load) => {
            asm.wide(PUSH_ONE);
            if load {
                asm.memory(true, Memory::Word, 0, SP, offset as i32 + 4);
                asm.move_between(true, 0, register);
            } else {
                asm.move_between(false, 0, register);
                asm.memory(false, Memory::Word, 0, SP, offset as i32 + 4);
            }
            asm.wide(POP_ONE);
        }
    }
}

/// STR r0, [sp, #-4]!, with the register in bits 12 to 15.
const PUSH_ONE: u32 = 0xf84d_0d04;
/// LDR r0, [sp], #4.
const POP_ONE: u32 = 0xf85d_0b04;

/// Moves the stack pointer, in several steps where one cannot encode the distance.
fn move_stack(asm: &mut Assembler, op: Alu, mut bytes: u32) {
    while bytes != 0 {
        let step = if bytes < 4096 || encode::modified_immediate(bytes).is_some() {
            bytes
        } else {
            bytes & 0xff00_0000 >> bytes.leading_zeros()
        };
        asm.alu_imm(op, SP, SP, step);
        bytes -= step;
    }
}

fn access(asm: &mut Assembler, load: bool, memory: Memory, address: &Address, reg: impl Fn(usize) -> u32) {
    match address {
        Address::Offset(_, offset) => asm.memory(load, memory, reg(0), reg(1), *offset),
        Address::Index(_, _, amount) => asm.memory_index(load, memory, reg(0), reg(1), reg(2), *amount),
        Address::Post(_, _, step) => asm.memory_post(load, memory, reg(0), reg(1), *step),
    }
}

/// Sets the flags of a test whose operands start at index `first`.
fn compare(asm: &mut Assembler, test: &Test, first: usize, reg: impl Fn(usize) -> u32) {
    match test {
        Test::Words(_, Rhs::Reg(_)) => asm.cmp(reg(first), Ok(reg(first + 1))),
        Test::Words(_, Rhs::Imm(imm)) => asm.cmp(reg(first), Err(*imm)),
        Test::Pairs(_, PairRhs::Regs(_), _) => {
            asm.cmp(reg(first), Ok(reg(first + 2)));
            asm.alu(
                Alu::Sbc,
                true,
                reg(first + 4),
                reg(first + 1),
                reg(first + 3),
                Shift::Lsl,
                0,
            );
        }
        Test::Pairs(_, PairRhs::Imm([low, high]), _) => {
            asm.cmp(reg(first), Err(*low as i32));
            asm.alu_imm_flags(Alu::Sbc, reg(first + 2), reg(first + 1), *high);
        }
        Test::PairsEqual(_, b) => {
            // The high halves are compared if the low ones are equal: CMP, IT EQ, CMPEQ.
            let rhs = |half: usize| match b {
                PairRhs::Regs(_) => Ok(reg(first + 2 + half)),
                PairRhs::Imm(halves) => Err(halves[half] as i32),
            };
            asm.cmp(reg(first), rhs(0));
            asm.half(0xbf08 | (Cond::Eq as u16) << 4);
            asm.cmp(reg(first + 1), rhs(1));
        }
        Test::Floats(..) => {
            asm.float2(encode::VCMP, reg(first), reg(first + 1));
            asm.wide(encode::VMRS);
        }
        Test::Flags => {}
    }
}
