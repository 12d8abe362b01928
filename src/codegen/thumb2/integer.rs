//! Rules of Thumb-2 for arithmetic on integers of at most 32 bits.

use super::compare::{comparable, condition};
use super::encode::{self, Alu, Shift, modified_immediate};
use super::inst::{Choice, Inst, Rhs, Source, Test};
use super::select::Rules;
use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::{InstructionData, Opcode, Type, Value, types};
use regalloc2::VReg;

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

impl Rules<'_, '_> {
    pub fn unary(&mut self, opcode: Opcode, ty: Type, rd: VReg, arg: Value) -> bool {
        let from = self.s.ty(arg);
        match opcode {
            Opcode::Sextend | Opcode::Uextend => {
                let signed = opcode == Opcode::Sextend;
                if let Some((load, opcode, arg, offset)) = self.s.extending_load(arg, signed) {
                    return self.load(load, opcode, types::I32, rd, arg, offset);
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

    pub fn binary(&mut self, opcode: Opcode, ty: Type, rd: VReg, a: Value, b: Value) -> bool {
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
    pub fn arithmetic(&mut self, opcode: Opcode, rd: VReg, a: Value, b: Value) {
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

    pub fn shift(&mut self, opcode: Opcode, ty: Type, rd: VReg, a: Value, b: Value) {
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

    pub fn divide(&mut self, opcode: Opcode, rd: VReg, a: Value, b: Value) -> bool {
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
    pub fn saturate(&mut self, opcode: Opcode, rd: VReg, a: Value, b: Value) -> bool {
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

    pub fn extreme(&mut self, opcode: Opcode, rd: VReg, a: Value, b: Value) {
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
}
