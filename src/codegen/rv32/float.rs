//! Rules of RV32 for single-precision floats. Without F, arithmetic on floats is calls of routines that were put in before;
//! only moves of bits get here.

use super::encode;
use super::inst::Inst;
use super::select::Rules;
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{Opcode, Type, Value};
use regalloc2::{RegClass, VReg};

impl Rules<'_, '_> {
    pub fn float_constant(&mut self, rd: VReg, bits: u32) {
        if rd.class() == RegClass::Int {
            return self.s.emit(Inst::Li { rd, value: bits as i32 });
        }
        if bits == 0 {
            // The source field of x0 is already clear.
            let zero = self.li(0);
            return self.s.emit(Inst::R {
                bits: encode::FMV_W_X,
                rd,
                rs1: zero,
                rs2: None,
            });
        }
        let value = self.li(bits as i32);
        self.s.emit(Inst::R {
            bits: encode::FMV_W_X,
            rd,
            rs1: value,
            rs2: None,
        });
    }

    pub fn bitcast(&mut self, ty: Type, rd: VReg, arg: Value) -> bool {
        let from = self.s.ty(arg);
        let rs1 = self.s.reg(arg);
        match (rs1.class(), rd.class()) {
            (a, b) if a == b && from.bits() == ty.bits() => self.mv(rd, rs1),
            (RegClass::Float, RegClass::Int) => self.s.emit(Inst::R {
                bits: encode::FMV_X_W,
                rd,
                rs1,
                rs2: None,
            }),
            (RegClass::Int, RegClass::Float) => self.s.emit(Inst::R {
                bits: encode::FMV_W_X,
                rd,
                rs1,
                rs2: None,
            }),
            _ => return false,
        }
        true
    }

    pub fn float_binary(&mut self, opcode: Opcode, rd: VReg, a: Value, b: Value) -> bool {
        if self.soft() {
            return false;
        }
        let bits = match opcode {
            Opcode::Fadd => encode::FADD,
            Opcode::Fsub => encode::FSUB,
            Opcode::Fmul => encode::FMUL,
            Opcode::Fdiv => encode::FDIV,
            Opcode::Fcopysign => encode::FSGNJ,
            _ => return false,
        };
        let [rs1, rs2] = [a, b].map(|value| self.s.reg(value));
        self.put_r(bits, rd, rs1, rs2);
        true
    }

    pub fn float_compare(&mut self, rd: VReg, a: Value, b: Value, cond: FloatCC) -> bool {
        // The instructions are false for a NaN; unordered conditions are their opposites' complements.
        let (bits, swap, complement) = match cond {
            FloatCC::Equal => (encode::FEQ, false, false),
            FloatCC::NotEqual => (encode::FEQ, false, true),
            FloatCC::LessThan => (encode::FLT, false, false),
            FloatCC::LessThanOrEqual => (encode::FLE, false, false),
            FloatCC::GreaterThan => (encode::FLT, true, false),
            FloatCC::GreaterThanOrEqual => (encode::FLE, true, false),
            FloatCC::UnorderedOrGreaterThanOrEqual => (encode::FLT, false, true),
            FloatCC::UnorderedOrGreaterThan => (encode::FLE, false, true),
            FloatCC::UnorderedOrLessThanOrEqual => (encode::FLT, true, true),
            FloatCC::UnorderedOrLessThan => (encode::FLE, true, true),
            FloatCC::Ordered | FloatCC::Unordered => {
                let [x, y] = [a, b].map(|value| self.s.reg(value));
                let x = self.r(encode::FEQ, x, x);
                let y = self.r(encode::FEQ, y, y);
                if cond == FloatCC::Ordered {
                    self.put_r(encode::AND, rd, x, y);
                } else {
                    let both = self.r(encode::AND, x, y);
                    self.put_i(encode::XORI, rd, both, 1);
                }
                return true;
            }
            _ => return false,
        };
        let [x, y] = [a, b].map(|value| self.s.reg(value));
        let (x, y) = if swap { (y, x) } else { (x, y) };
        if complement {
            let holds = self.r(bits, x, y);
            self.put_i(encode::XORI, rd, holds, 1);
        } else {
            self.put_r(bits, rd, x, y);
        }
        true
    }
}
