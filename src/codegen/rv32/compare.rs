//! Rules of RV32 for comparisons: what branches and selects test, and conditions as values.

use super::encode::{self, branch};
use super::inst::{Compare, Inst};
use super::select::Rules;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstructionData, Value, types};
use regalloc2::VReg;

impl Rules<'_, '_> {
    /// The comparison that holds if an integer is not zero.
    pub fn truth(&mut self, value: Value) -> Compare {
        match self.s.def(value) {
            Some((_, InstructionData::IntCompare { args: [a, b], cond, .. })) if self.s.ty(a) != types::I64 => {
                self.compare(a, b, cond)
            }
            _ => {
                let a = if self.s.ty(value) == types::I64 {
                    let [low, high] = self.s.pair(value);
                    self.r(encode::OR, low, high)
                } else {
                    self.extended(value, false)
                };
                Compare {
                    funct3: branch::NE,
                    a,
                    b: None,
                }
            }
        }
    }

    pub fn compare(&mut self, a: Value, b: Value, cond: IntCC) -> Compare {
        let (funct3, swap) = match cond {
            IntCC::Equal => (branch::EQ, false),
            IntCC::NotEqual => (branch::NE, false),
            IntCC::SignedLessThan => (branch::LT, false),
            IntCC::SignedGreaterThanOrEqual => (branch::GE, false),
            IntCC::UnsignedLessThan => (branch::LTU, false),
            IntCC::UnsignedGreaterThanOrEqual => (branch::GEU, false),
            IntCC::SignedGreaterThan => (branch::LT, true),
            IntCC::SignedLessThanOrEqual => (branch::GE, true),
            IntCC::UnsignedGreaterThan => (branch::LTU, true),
            IntCC::UnsignedLessThanOrEqual => (branch::GEU, true),
        };
        let signed = !matches!(funct3, branch::LTU | branch::GEU);
        let (a, b) = if swap { (b, a) } else { (a, b) };
        let left = self.extended(a, signed);
        let right = if self.constant(b) == Some(0) {
            None
        } else {
            Some(self.extended(b, signed))
        };
        Compare {
            funct3,
            a: left,
            b: right,
        }
    }

    /// rd = the comparison as 0 or 1.
    pub fn set(&mut self, rd: VReg, compare: Compare) {
        let Compare { funct3, a, b } = compare;
        let less = if matches!(funct3, branch::LTU | branch::GEU) {
            encode::SLTU
        } else {
            encode::SLT
        };
        match funct3 {
            branch::EQ | branch::NE => {
                let difference = b.map_or(a, |b| self.r(encode::XOR, a, b));
                if funct3 == branch::EQ {
                    self.put_i(encode::SLTIU, rd, difference, 1);
                } else {
                    self.s.emit(Inst::FromZero {
                        bits: encode::SLTU,
                        rd,
                        rs2: difference,
                    });
                }
            }
            branch::LT | branch::LTU => self.s.emit(Inst::R {
                bits: less,
                rd,
                rs1: a,
                rs2: b,
            }),
            _ => {
                let t = self.s.int();
                self.s.emit(Inst::R {
                    bits: less,
                    rd: t,
                    rs1: a,
                    rs2: b,
                });
                self.put_i(encode::XORI, rd, t, 1);
            }
        }
    }
}
