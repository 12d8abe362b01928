//! RV32 with M, and A, C, F, D as the target has them: registers, calling convention, frames, branch forms.
//!
//! Source: the RISC-V psABI (ilp32, ilp32f, ilp32d).

mod call;
mod compare;
mod cycles;
mod encode;
mod float;
mod inst;
mod integer;
mod memory;
mod select;
#[cfg(test)]
mod tests;
mod wide;

use super::debug::FrameRule;
use super::native::emit::{Assembler, Frame};
use super::native::select::{Refused, Select};
use super::native::{Form, FrameNeeds, Isa, Place};
use cranelift_codegen::ir::{self, Signature, types};
use encode::{ADDI, branch, compress, encode_b, encode_c_b, encode_c_j, encode_i, encode_jal, encode_r, encode_s};
use inst::{Callee, Inst, f, x};
use regalloc2::{Allocation, MachineEnv, PReg, PRegSet, RegClass, VReg};

/// Stack pointer.
const SP: u32 = 2;
/// Return address.
const RA: u32 = 1;
/// t6: not allocated, for frame offsets that do not fit an immediate.
const SCRATCH: u32 = 31;

/// What the target's architecture and ABI strings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// 16-bit instructions.
    pub compressed: bool,
    /// Single-precision instructions and registers.
    pub float: bool,
    /// Whether floats are passed in float registers (ilp32f, ilp32d).
    pub float_abi: bool,
}

/// The RV32 target.
#[derive(Debug)]
pub struct Rv32 {
    extensions: Extensions,
    registers: MachineEnv,
}

impl Rv32 {
    /// A target with these extensions.
    pub fn new(extensions: Extensions) -> Self {
        let ints = |numbers: &[usize]| numbers.iter().fold(PRegSet::empty(), |set, n| set.with(x(*n)));
        let floats = |numbers: &[usize]| numbers.iter().fold(PRegSet::empty(), |set, n| set.with(f(*n)));
        let (preferred, others) = if extensions.float {
            (
                floats(&[10, 11, 12, 13, 14, 15]),
                floats(&[16, 17, 0, 1, 2, 3, 4, 5, 6, 7, 28, 29, 30, 31]),
            )
        } else {
            (PRegSet::empty(), PRegSet::empty())
        };
        // Registers that 16-bit instructions reach come first; those that need no saving before those that do. The return
        // address is saved like any of these.
        let registers = MachineEnv {
            preferred_regs_by_class: [
                ints(&[10, 11, 12, 13, 14, 15, 16, 17, 5, 6, 7, 28, 29, 30]),
                preferred,
                PRegSet::empty(),
            ],
            non_preferred_regs_by_class: [
                ints(&[8, 9, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, RA as usize]),
                others,
                PRegSet::empty(),
            ],
            scratch_by_class: [None; 3],
            fixed_stack_slots: Vec::new(),
        };
        Rv32 { extensions, registers }
    }

    /// Registers that a callee may overwrite.
    fn caller_saved(&self) -> PRegSet {
        let mut set = PRegSet::empty();
        for number in [1, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17, 28, 29, 30, 31] {
            set.add(x(number));
        }
        if self.extensions.float {
            for number in (0..8).chain(10..18).chain(28..32) {
                set.add(f(number));
            }
        }
        set
    }

    /// Places of a list of types in argument or result registers: a0…, fa0…, then the stack.
    fn places(&self, params: &[ir::AbiParam], limit: usize) -> Result<(Vec<Vec<Place>>, u32), Refused> {
        let (mut ints, mut floats, mut stack) = (0, 0, 0u32);
        let mut places = Vec::with_capacity(params.len());
        for param in params {
            let ty = param.value_type;
            if ty == types::F32 && self.extensions.float_abi && floats < limit {
                places.push(vec![Place::Register(f(10 + floats))]);
                floats += 1;
                continue;
            }
            let words = match ty {
                types::I8 | types::I16 | types::I32 | types::F32 => 1,
                types::I64 => 2,
                _ => return Err(Refused(format!("a parameter of type {ty}"))),
            };
            if words == 2 && ints >= limit {
                stack = stack.next_multiple_of(8);
            }
            let mut value = Vec::with_capacity(words);
            for _ in 0..words {
                if ints < limit {
                    value.push(Place::Register(x(10 + ints)));
                    ints += 1;
                } else {
                    value.push(Place::Stack(stack));
                    stack += 4;
                }
            }
            places.push(value);
        }
        Ok((places, stack.next_multiple_of(16)))
    }
}

impl Isa for Rv32 {
    type Inst = Inst;
    /// funct3, rs1, rs2 of the branch.
    type Condition = (u32, u32, u32);

    fn registers(&self) -> &MachineEnv {
        &self.registers
    }

    fn float_class(&self) -> Option<RegClass> {
        self.extensions.float.then_some(RegClass::Float)
    }

    fn abi_params(&self, signature: &Signature) -> Result<(Vec<Vec<Place>>, u32), Refused> {
        self.places(&signature.params, 8)
    }

    fn entry(&self, state: &mut Select<Inst>, arguments: &[(VReg, Place)]) {
        let mut registers = Vec::new();
        let mut later = Vec::new();
        for (register, place) in arguments {
            match (*place, register.class()) {
                (Place::Register(fixed), class) if fixed.class() == class => registers.push((*register, fixed)),
                // A float in an integer register (ilp32 on a core with F).
                (Place::Register(fixed), _) => {
                    let bits = state.int();
                    registers.push((bits, fixed));
                    later.push(Inst::R {
                        bits: encode::FMV_W_X,
                        rd: *register,
                        rs1: bits,
                        rs2: None,
                    });
                }
                (Place::Stack(offset), class) => {
                    let bits = if class == RegClass::Float {
                        encode::FLW
                    } else {
                        encode::LW
                    };
                    later.push(Inst::LoadArgument {
                        bits,
                        rd: *register,
                        offset,
                    });
                }
            }
        }
        state.emit(Inst::Entry(registers));
        later.into_iter().for_each(|inst| state.emit(inst));
    }

    fn select(&self, state: &mut Select<Inst>, inst: ir::Inst) -> Result<(), Refused> {
        select::select(self, state, inst)
    }

    fn branch(&self, state: &mut Select<Inst>, condition: ir::Value) -> Result<Inst, Refused> {
        select::branch(self, state, condition)
    }

    fn ret(&self, state: &mut Select<Inst>, values: &[ir::Value]) -> Result<Inst, Refused> {
        let params: Vec<ir::AbiParam> = values.iter().map(|value| ir::AbiParam::new(state.ty(*value))).collect();
        let (places, stack) = self.places(&params, 2)?;
        if stack != 0 {
            return Err(Refused("results beyond a0 and a1".into()));
        }
        let mut registers = Vec::new();
        for (value, places) in values.iter().zip(&places) {
            for (register, place) in state.parts(*value).into_iter().zip(places) {
                let Place::Register(fixed) = *place else { continue };
                registers.push((self.in_class(state, register, fixed.class()), fixed));
            }
        }
        Ok(Inst::Return(registers))
    }

    fn trap(&self, _state: &mut Select<Inst>) -> Result<Inst, Refused> {
        Ok(Inst::Trap)
    }

    fn frame(&self, needs: &FrameNeeds) -> Result<Frame, Refused> {
        let mut saved: Vec<PReg> = Vec::new();
        if needs.calls || needs.used.contains(x(RA as usize)) {
            saved.push(x(RA as usize));
        }
        saved.extend(
            [8, 9, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27]
                .map(x)
                .into_iter()
                .filter(|r| needs.used.contains(*r)),
        );
        let spills = needs.outgoing;
        let slots = spills + 4 * needs.spills;
        let end = u64::from(slots) + u64::from(needs.slots) + 4 * saved.len() as u64;
        let total = u32::try_from(end.next_multiple_of(16)).map_err(|_| Refused("a frame over 4 GiB".into()))?;
        Ok(Frame {
            saved,
            locals: total,
            spills,
            slots,
            incoming: total,
            total,
        })
    }

    fn cycles(&self, code: &[u8]) -> Option<u32> {
        (!self.extensions.float).then(|| cycles::straight(code))
    }

    fn refill(&self) -> u32 {
        cycles::REFILL
    }

    fn prologue(&self, frame: &Frame, asm: &mut Assembler) {
        let mut code = Encoder {
            asm,
            compressed: self.extensions.compressed,
        };
        if frame.total == 0 {
            return;
        }
        code.adjust_stack(-i64::from(frame.total), frame);
        code.asm.rule(FrameRule::CfaOffset(frame.total));
        for (offset, register) in frame.saved_slots() {
            code.store(encode::SW, register.hw_enc() as u32, offset);
            let place = offset as i32 - frame.total as i32;
            code.asm.rule(FrameRule::Saved(register.hw_enc() as u16, place));
        }
    }

    fn epilogue(&self, frame: &Frame, asm: &mut Assembler) {
        let mut code = Encoder {
            asm,
            compressed: self.extensions.compressed,
        };
        for (offset, register) in frame.saved_slots() {
            code.load(encode::LW, register.hw_enc() as u32, offset);
        }
        if frame.total != 0 {
            code.asm.rule(FrameRule::Remember);
            code.adjust_stack(i64::from(frame.total), frame);
            code.asm.rule(FrameRule::CfaOffset(0));
            for (_, register) in frame.saved_slots() {
                code.asm.rule(FrameRule::Same(register.hw_enc() as u16));
            }
        }
        code.word(encode_i(encode::JALR, 0, RA, 0));
        if frame.total != 0 {
            code.asm.rule(FrameRule::Restore);
        }
    }

    fn emit(
        &self,
        inst: &Inst,
        allocations: &[Allocation],
        frame: &Frame,
        asm: &mut Assembler,
    ) -> Option<Self::Condition> {
        let mut code = Encoder {
            asm,
            compressed: self.extensions.compressed,
        };
        let reg = |index: usize| {
            allocations[index]
                .as_reg()
                .map_or(0, |register| register.hw_enc() as u32)
        };
        let mv = |rd, rs| encode_i(ADDI, rd, rs, 0);
        match inst {
            Inst::Entry(_) | Inst::Return(_) => {}
            Inst::LoadArgument { bits, offset, .. } => code.load(*bits, reg(0), frame.incoming + offset),
            Inst::StoreArgument { bits, offset, .. } => code.store(*bits, reg(0), *offset),
            Inst::Li { value, .. } => code.li(reg(0), *value),
            Inst::Address { symbol, offset, .. } => {
                code.asm.fixup(*symbol, encode::reloc::HI20, *offset);
                code.asm.word(encode::LUI | reg(0) << 7);
                code.asm.fixup(*symbol, encode::reloc::LO12_I, *offset);
                code.asm.word(encode_i(ADDI, reg(0), reg(0), 0));
            }
            Inst::SlotAddress { offset, .. } => code.add_large(reg(0), SP, frame.slots + offset),
            Inst::Move { .. } => {
                if reg(0) != reg(1) {
                    code.word(mv(reg(0), reg(1)));
                }
            }
            Inst::R { bits, rs2, .. } => {
                code.word(encode_r(*bits, reg(0), reg(1), if rs2.is_some() { reg(2) } else { 0 }));
            }
            Inst::FromZero { bits, .. } => code.word(encode_r(*bits, reg(0), 0, reg(1))),
            Inst::R4 { bits, .. } => code.word(encode_r(*bits, reg(0), reg(1), reg(2)) | reg(3) << 27),
            Inst::I { bits, imm, .. } => code.word(encode_i(*bits, reg(0), reg(1), *imm)),
            Inst::S { bits, rs, imm, .. } => {
                code.word(encode_s(*bits, if rs.is_some() { reg(1) } else { 0 }, reg(0), *imm));
            }
            Inst::Select { compare, rd, .. } => {
                let [rd_reg, yes] = [reg(0), reg(2)];
                if rd_reg != yes {
                    let word = if rd.class() == RegClass::Float {
                        encode_r(encode::FSGNJ, rd_reg, yes, yes)
                    } else {
                        mv(rd_reg, yes)
                    };
                    let size = if self.extensions.compressed && compress(word).is_some() {
                        2
                    } else {
                        4
                    };
                    let b = if compare.b.is_some() { reg(4) } else { 0 };
                    code.asm.word(encode_b(compare.funct3 ^ 1, reg(3), b, 4 + size));
                    code.word(word);
                    code.asm.may_skip(1);
                }
            }
            Inst::Call { callee, .. } => match callee {
                Callee::Symbol(symbol) => {
                    code.asm.fixup(*symbol, encode::reloc::CALL_PLT, 0);
                    code.asm.word(encode::AUIPC | RA << 7);
                    code.asm.word(encode_i(encode::JALR, RA, RA, 0));
                }
                Callee::Register(_) => code.word(encode_i(encode::JALR, RA, reg(0), 0)),
            },
            Inst::Branch(compare) => {
                return Some((compare.funct3, reg(0), if compare.b.is_some() { reg(1) } else { 0 }));
            }
            Inst::Trap => code.word(encode::EBREAK),
        }
        None
    }

    fn emit_move(&self, from: Allocation, to: Allocation, frame: &Frame, asm: &mut Assembler) {
        let mut code = Encoder {
            asm,
            compressed: self.extensions.compressed,
        };
        let slot = |allocation: Allocation| {
            allocation
                .as_stack()
                .map_or(0, |slot| frame.spills + 4 * slot.index() as u32)
        };
        let float = |register: PReg| register.class() == RegClass::Float;
        match (from.as_reg(), to.as_reg()) {
            (Some(from), Some(to)) => {
                let (rd, rs) = (to.hw_enc() as u32, from.hw_enc() as u32);
                code.word(if float(to) {
                    encode_r(encode::FSGNJ, rd, rs, rs)
                } else {
                    encode_i(ADDI, rd, rs, 0)
                });
            }
            (Some(from), None) => {
                code.store(
                    if float(from) { encode::FSW } else { encode::SW },
                    from.hw_enc() as u32,
                    slot(to),
                );
            }
            (None, Some(to)) => {
                code.load(
                    if float(to) { encode::FLW } else { encode::LW },
                    to.hw_enc() as u32,
                    slot(from),
                );
            }
            // regalloc2 resolves these through a register of its own.
            (None, None) => unreachable!("a move between two spill slots"),
        }
    }

    fn invert(&self, (funct3, rs1, rs2): Self::Condition) -> Self::Condition {
        (funct3 ^ 1, rs1, rs2)
    }

    fn forms(&self, condition: Option<Self::Condition>) -> &'static [Form] {
        let compressed = self.extensions.compressed;
        match condition {
            None if compressed => &[C_J, JAL],
            None => &[JAL],
            Some((funct3, rs1, 0)) if compressed && funct3 <= branch::NE && (8..16).contains(&rs1) => {
                &[C_BRANCH, BRANCH, BRANCH_OVER_JAL]
            }
            Some(_) => &[BRANCH, BRANCH_OVER_JAL],
        }
    }

    fn encode_branch(&self, condition: Option<Self::Condition>, form: usize, displacement: i64) -> Vec<u8> {
        let form = self.forms(condition)[form];
        let displacement = displacement as i32;
        match condition {
            None if form == C_J => encode_c_j(displacement).to_le_bytes().to_vec(),
            None => encode_jal(0, displacement).to_le_bytes().to_vec(),
            Some((funct3, rs1, _)) if form == C_BRANCH => encode_c_b(funct3 == branch::NE, rs1, displacement)
                .to_le_bytes()
                .to_vec(),
            Some((funct3, rs1, rs2)) if form == BRANCH => {
                encode_b(funct3, rs1, rs2, displacement).to_le_bytes().to_vec()
            }
            Some((funct3, rs1, rs2)) => {
                let mut bytes = encode_b(funct3 ^ 1, rs1, rs2, 8).to_le_bytes().to_vec();
                bytes.extend(encode_jal(0, displacement - 4).to_le_bytes());
                bytes
            }
        }
    }
}

const C_J: Form = Form {
    bytes: 2,
    min: -2048,
    max: 2046,
    taken: 1,
    not_taken: 0,
};
const JAL: Form = Form {
    bytes: 4,
    min: -(1 << 20),
    max: (1 << 20) - 2,
    taken: 1,
    not_taken: 0,
};
const C_BRANCH: Form = Form {
    bytes: 2,
    min: -256,
    max: 254,
    taken: 1,
    not_taken: 1,
};
const BRANCH: Form = Form {
    bytes: 4,
    min: -4096,
    max: 4094,
    taken: 1,
    not_taken: 1,
};
const BRANCH_OVER_JAL: Form = Form {
    bytes: 8,
    min: 4 - (1 << 20),
    max: (1 << 20) + 2,
    taken: 2,
    not_taken: 1,
};

impl Rv32 {
    /// `register` in the class that a calling convention wants it in.
    fn in_class(&self, state: &mut Select<Inst>, register: VReg, class: RegClass) -> VReg {
        if register.class() == class {
            return register;
        }
        let bits = if class == RegClass::Int {
            encode::FMV_X_W
        } else {
            encode::FMV_W_X
        };
        let rd = state.temp(class);
        state.emit(Inst::R {
            bits,
            rd,
            rs1: register,
            rs2: None,
        });
        rd
    }
}

impl Frame {
    /// Offsets of the saved registers: the top of the frame.
    fn saved_slots(&self) -> impl Iterator<Item = (u32, PReg)> + '_ {
        let base = self.locals - 4 * self.saved.len() as u32;
        self.saved
            .iter()
            .enumerate()
            .map(move |(index, register)| (base + 4 * index as u32, *register))
    }
}

/// Writes instructions in their shortest form.
struct Encoder<'a> {
    asm: &'a mut Assembler,
    compressed: bool,
}

impl Encoder<'_> {
    fn word(&mut self, word: u32) {
        match compress(word).filter(|_| self.compressed) {
            Some(half) => self.asm.half(half),
            None => self.asm.word(word),
        }
    }

    fn li(&mut self, rd: u32, value: i32) {
        let low = (value << 20) >> 20;
        let high = value.wrapping_sub(low);
        if high == 0 {
            return self.word(encode_i(ADDI, rd, 0, low));
        }
        self.word(encode::LUI | high as u32 | rd << 7);
        if low != 0 {
            self.word(encode_i(ADDI, rd, rd, low));
        }
    }

    /// rd = rs + offset.
    fn add_large(&mut self, rd: u32, rs: u32, offset: u32) {
        if offset < 2048 {
            return self.word(encode_i(ADDI, rd, rs, offset as i32));
        }
        self.li(SCRATCH, offset as i32);
        self.word(encode_r(encode::ADD, rd, rs, SCRATCH));
    }

    fn adjust_stack(&mut self, bytes: i64, frame: &Frame) {
        match bytes {
            0 => {}
            -2048..2048 => self.word(encode_i(ADDI, SP, SP, bytes as i32)),
            _ => {
                debug_assert_eq!(bytes.unsigned_abs(), u64::from(frame.total));
                self.li(SCRATCH, bytes as i32);
                self.word(encode_r(encode::ADD, SP, SP, SCRATCH));
            }
        }
    }

    /// Base and immediate of a stack access; far ones go through the scratch register.
    fn stack(&mut self, offset: u32) -> (u32, i32) {
        if offset < 2048 {
            return (SP, offset as i32);
        }
        let low = ((offset as i32) << 20) >> 20;
        self.li(SCRATCH, offset as i32 - low);
        self.word(encode_r(encode::ADD, SCRATCH, SP, SCRATCH));
        (SCRATCH, low)
    }

    fn load(&mut self, bits: u32, rd: u32, offset: u32) {
        let (base, imm) = self.stack(offset);
        self.word(encode_i(bits, rd, base, imm));
    }

    fn store(&mut self, bits: u32, rs: u32, offset: u32) {
        let (base, imm) = self.stack(offset);
        self.word(encode_s(bits, rs, base, imm));
    }
}
