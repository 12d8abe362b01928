//! Allocated instructions of Thumb-2 → bytes.

use super::SP;
use super::branch::Condition;
use super::encode::{self, Alu, Cond, Encode, Memory, Shift};
use super::inst::{Address, Callee, Inst, PairAddress, PairRhs, Rhs, Source, Test};
use crate::codegen::native::emit::{Assembler, Frame};
use regalloc2::{Allocation, RegClass};

/// Emits one instruction; the condition of a branch is left to the layout.
pub(super) fn emit(inst: &Inst, allocations: &[Allocation], frame: &Frame, asm: &mut Assembler) -> Option<Condition> {
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
        Inst::Max8 { .. } => {
            for bits in [encode::SSUB8, encode::SEL] {
                asm.wide(bits | reg(1) << 16 | reg(0) << 8 | reg(2));
            }
        }
        Inst::R4 { bits, .. } | Inst::R4Tied { bits, .. } => {
            asm.wide(bits | reg(1) << 16 | reg(3) << 12 | reg(0) << 8 | reg(2))
        }
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
        Inst::Load { memory, address, .. } => access(asm, true, *memory, address, frame, reg),
        Inst::Store { memory, address, .. } => access(asm, false, *memory, address, frame, reg),
        Inst::LoadPair { address, .. } => access_pair(asm, true, *address, frame, reg),
        Inst::StorePair { address, .. } => access_pair(asm, false, *address, frame, reg),
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
            return Some(Condition::new(*cond, zero));
        }
        Inst::Trap => asm.half(0xde00),
    }
    None
}

/// A word at an offset of at most 4000 from the stack pointer. Flags stay as they are.
pub(super) fn stack_access(asm: &mut Assembler, load: bool, class: RegClass, register: u32, offset: u32) {
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
pub(super) const PUSH_ONE: u32 = 0xf84d_0d04;
/// LDR r0, [sp], #4.
pub(super) const POP_ONE: u32 = 0xf85d_0b04;

/// Moves the stack pointer, in several steps where one cannot encode the distance.
pub(super) fn move_stack(asm: &mut Assembler, op: Alu, mut bytes: u32) {
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

fn access(
    asm: &mut Assembler,
    load: bool,
    memory: Memory,
    address: &Address,
    frame: &Frame,
    reg: impl Fn(usize) -> u32,
) {
    match address {
        Address::Slot(offset) => asm.memory(load, memory, reg(0), SP, (frame.slots + offset) as i32),
        Address::Offset(_, offset) => asm.memory(load, memory, reg(0), reg(1), *offset),
        Address::Index(_, _, amount) => asm.memory_index(load, memory, reg(0), reg(1), reg(2), *amount),
        Address::Post(_, _, step) => asm.memory_post(load, memory, reg(0), reg(1), *step),
    }
}

fn access_pair(asm: &mut Assembler, load: bool, address: PairAddress, frame: &Frame, reg: impl Fn(usize) -> u32) {
    let rt = [reg(0), reg(1)];
    match address {
        PairAddress::Slot(offset) => match frame.slots + offset {
            near @ 0..=1020 => asm.memory_pair(load, rt, SP, PairAddress::Slot(near)),
            far => {
                for (rt, at) in rt.into_iter().zip([far, far + 4]) {
                    asm.memory(load, Memory::Word, rt, SP, at as i32);
                }
            }
        },
        _ => asm.memory_pair(load, rt, reg(2), address),
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
