//! Rules of RV32 for integers of at most 32 bits.

use super::encode::{self, branch};
use super::inst::{Compare, Inst};
use super::select::Rules;
use cranelift_codegen::ir::{Opcode, Type, Value, types};
use regalloc2::VReg;

impl Rules<'_, '_> {
    pub fn unary(&mut self, opcode: Opcode, ty: Type, rd: VReg, arg: Value) -> bool {
        let from = self.s.ty(arg);
        match opcode {
            Opcode::Sextend | Opcode::Uextend => {
                let signed = opcode == Opcode::Sextend;
                if let Some((_, opcode, arg, offset)) = self.s.extending_load(arg, signed) {
                    return self.load(opcode, types::I32, rd, arg, offset);
                }
                let rs = self.s.reg(arg);
                self.extend(rd, rs, from, signed);
            }
            Opcode::Ireduce => {
                let rs = self.s.reg(arg);
                self.mv(rd, rs);
            }
            Opcode::Ineg => {
                let rs2 = self.s.reg(arg);
                self.s.emit(Inst::FromZero {
                    bits: encode::SUB,
                    rd,
                    rs2,
                });
            }
            Opcode::Bnot => {
                let rs = self.s.reg(arg);
                self.put_i(encode::XORI, rd, rs, -1);
            }
            Opcode::Iabs => {
                let value = self.extended(arg, true);
                let sign = self.i(encode::SRAI, value, 31);
                let flipped = self.r(encode::XOR, value, sign);
                self.put_r(encode::SUB, rd, flipped, sign);
            }
            Opcode::Fneg | Opcode::Fabs if self.soft() => {
                let rs = self.s.reg(arg);
                let sign = self.li(i32::MIN);
                if opcode == Opcode::Fneg {
                    self.put_r(encode::XOR, rd, rs, sign);
                } else {
                    let mask = self.i(encode::XORI, sign, -1);
                    self.put_r(encode::AND, rd, rs, mask);
                }
            }
            Opcode::Fneg | Opcode::Fabs => {
                let rs = self.s.reg(arg);
                let bits = if opcode == Opcode::Fneg {
                    encode::FSGNJN
                } else {
                    encode::FSGNJX
                };
                self.put_r(bits, rd, rs, rs);
            }
            Opcode::Sqrt if !self.soft() => {
                let rs1 = self.s.reg(arg);
                self.s.emit(Inst::R {
                    bits: encode::FSQRT,
                    rd,
                    rs1,
                    rs2: None,
                });
            }
            Opcode::FcvtFromSint | Opcode::FcvtFromUint if !self.soft() => {
                let signed = opcode == Opcode::FcvtFromSint;
                let rs1 = self.extended(arg, signed);
                let bits = if signed { encode::FCVT_S_W } else { encode::FCVT_S_WU };
                self.s.emit(Inst::R {
                    bits,
                    rd,
                    rs1,
                    rs2: None,
                });
            }
            Opcode::FcvtToSintSat | Opcode::FcvtToUintSat if !self.soft() && ty == types::I32 => {
                // The instruction saturates; only a NaN differs: it gives the largest integer, CLIF wants 0.
                let signed = opcode == Opcode::FcvtToSintSat;
                let rs1 = self.s.reg(arg);
                let bits = if signed { encode::FCVT_W_S } else { encode::FCVT_WU_S };
                let raw = self.s.int();
                self.s.emit(Inst::R {
                    bits,
                    rd: raw,
                    rs1,
                    rs2: None,
                });
                let ordered = self.r(encode::FEQ, rs1, rs1);
                let mask = self.s.int();
                self.s.emit(Inst::FromZero {
                    bits: encode::SUB,
                    rd: mask,
                    rs2: ordered,
                });
                self.put_r(encode::AND, rd, raw, mask);
            }
            _ => return false,
        }
        true
    }

    pub fn binary(&mut self, opcode: Opcode, ty: Type, rd: VReg, a: Value, b: Value) -> bool {
        // Immediate forms. Shift amounts are taken modulo the width.
        let shift_mask = ty.bits() as i32 - 1;
        if let Some(imm) = self.immediate(b) {
            let (bits, rs1, imm) = match opcode {
                Opcode::Iadd => (encode::ADDI, self.s.reg(a), imm),
                Opcode::Isub if imm != -2048 => (encode::ADDI, self.s.reg(a), -imm),
                Opcode::Band => (encode::ANDI, self.s.reg(a), imm),
                Opcode::Bor => (encode::ORI, self.s.reg(a), imm),
                Opcode::Bxor => (encode::XORI, self.s.reg(a), imm),
                Opcode::Ishl => (encode::SLLI, self.s.reg(a), imm & shift_mask),
                Opcode::Ushr => (encode::SRLI, self.extended(a, false), imm & shift_mask),
                Opcode::Sshr => (encode::SRAI, self.extended(a, true), imm & shift_mask),
                _ => (0, self.s.int(), 0),
            };
            if bits != 0 {
                self.put_i(bits, rd, rs1, imm);
                return true;
            }
        }
        if let (Opcode::Iadd | Opcode::Band | Opcode::Bor | Opcode::Bxor, Some(imm)) = (opcode, self.immediate(a)) {
            let bits = match opcode {
                Opcode::Iadd => encode::ADDI,
                Opcode::Band => encode::ANDI,
                Opcode::Bor => encode::ORI,
                _ => encode::XORI,
            };
            let rs1 = self.s.reg(b);
            self.put_i(bits, rd, rs1, imm);
            return true;
        }
        // Operations that do not look at upper bits.
        let plain = match opcode {
            Opcode::Iadd => Some(encode::ADD),
            Opcode::Isub => Some(encode::SUB),
            Opcode::Imul => Some(encode::MUL),
            Opcode::Band => Some(encode::AND),
            Opcode::Bor => Some(encode::OR),
            Opcode::Bxor => Some(encode::XOR),
            _ => None,
        };
        if let Some(bits) = plain {
            let [rs1, rs2] = [a, b].map(|value| self.s.reg(value));
            self.put_r(bits, rd, rs1, rs2);
            return true;
        }
        match opcode {
            Opcode::Ishl | Opcode::Ushr | Opcode::Sshr => {
                let (bits, value) = match opcode {
                    Opcode::Ishl => (encode::SLL, self.s.reg(a)),
                    Opcode::Ushr => (encode::SRL, self.extended(a, false)),
                    _ => (encode::SRA, self.extended(a, true)),
                };
                let amount = self.amount(b, ty);
                self.put_r(bits, rd, value, amount);
            }
            Opcode::Rotl | Opcode::Rotr if ty == types::I32 => {
                let value = self.s.reg(a);
                let amount = self.amount(b, ty);
                let opposite = self.s.int();
                self.s.emit(Inst::FromZero {
                    bits: encode::SUB,
                    rd: opposite,
                    rs2: amount,
                });
                let (up, down) = if opcode == Opcode::Rotl {
                    (amount, opposite)
                } else {
                    (opposite, amount)
                };
                let high = self.r(encode::SLL, value, up);
                let low = self.r(encode::SRL, value, down);
                self.put_r(encode::OR, rd, high, low);
            }
            Opcode::Smulhi | Opcode::Umulhi => {
                let signed = opcode == Opcode::Smulhi;
                let [rs1, rs2] = [a, b].map(|value| self.extended(value, signed));
                if ty == types::I32 {
                    self.put_r(if signed { encode::MULH } else { encode::MULHU }, rd, rs1, rs2);
                } else {
                    let product = self.r(encode::MUL, rs1, rs2);
                    self.put_i(encode::SRLI, rd, product, ty.bits() as i32);
                }
            }
            Opcode::Sdiv | Opcode::Udiv | Opcode::Srem | Opcode::Urem => {
                // CLIF traps on zero (and on overflow), the instructions do not.
                let signed = matches!(opcode, Opcode::Sdiv | Opcode::Srem);
                if self
                    .constant(b)
                    .is_none_or(|divisor| divisor == 0 || (signed && divisor == -1))
                {
                    return false;
                }
                let [rs1, rs2] = [a, b].map(|value| self.extended(value, signed));
                let bits = match opcode {
                    Opcode::Sdiv => encode::DIV,
                    Opcode::Udiv => encode::DIVU,
                    Opcode::Srem => encode::REM,
                    _ => encode::REMU,
                };
                self.put_r(bits, rd, rs1, rs2);
            }
            Opcode::Smin | Opcode::Smax | Opcode::Umin | Opcode::Umax => {
                let signed = matches!(opcode, Opcode::Smin | Opcode::Smax);
                let [x, y] = [a, b].map(|value| self.extended(value, signed));
                let less = if signed { branch::LT } else { branch::LTU };
                // y replaces x where it is the wanted one.
                let compare = if matches!(opcode, Opcode::Smin | Opcode::Umin) {
                    Compare {
                        funct3: less,
                        a: y,
                        b: Some(x),
                    }
                } else {
                    Compare {
                        funct3: less,
                        a: x,
                        b: Some(y),
                    }
                };
                self.s.emit(Inst::Select {
                    compare,
                    rd,
                    yes: y,
                    no: x,
                });
            }
            _ => return false,
        }
        true
    }

    /// A shift amount within the width; the instructions look at five bits.
    pub fn amount(&mut self, value: Value, ty: Type) -> VReg {
        let register = if self.s.ty(value) == types::I64 {
            self.s.pair(value)[0]
        } else {
            self.s.reg(value)
        };
        if ty.bits() == 32 {
            register
        } else {
            self.i(encode::ANDI, register, ty.bits() as i32 - 1)
        }
    }
}
