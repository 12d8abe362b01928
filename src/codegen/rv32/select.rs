//! Rules of RV32: one CLIF instruction at a time, on values of at most 32 bits and on floats. Pairs are in `wide`.
//!
//! A value narrower than 32 bits has anything in the upper bits of its register; who looks at them extends first.

use super::encode::{self, branch};
use super::inst::{Callee, Compare, Inst};
use super::{Rv32, wide};
use crate::codegen::native::Place;
use crate::codegen::native::select::{Refused, Select};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{
    self, AbiParam, ExternalName, GlobalValueData, InstructionData, Opcode, Type, Value, types,
};
use regalloc2::{RegClass, VReg};

/// Selection state with the shorthands that the rules share.
pub(super) struct Rules<'s, 'f> {
    pub s: &'s mut Select<'f, Inst>,
    pub isa: &'s Rv32,
}

pub(super) fn select(isa: &Rv32, state: &mut Select<Inst>, inst: ir::Inst) -> Result<(), Refused> {
    let mut rules = Rules { s: state, isa };
    if rules.select(inst)? {
        Ok(())
    } else {
        Err(Refused(rules.s.func.dfg.display_inst(inst).to_string()))
    }
}

pub(super) fn branch(isa: &Rv32, state: &mut Select<Inst>, condition: Value) -> Result<Inst, Refused> {
    let mut rules = Rules { s: state, isa };
    Ok(Inst::Branch(rules.truth(condition)))
}

impl Rules<'_, '_> {
    pub fn r(&mut self, bits: u32, rs1: VReg, rs2: VReg) -> VReg {
        let rd = self.s.int();
        self.s.emit(Inst::R {
            bits,
            rd,
            rs1,
            rs2: Some(rs2),
        });
        rd
    }

    pub fn i(&mut self, bits: u32, rs1: VReg, imm: i32) -> VReg {
        let rd = self.s.int();
        self.s.emit(Inst::I { bits, rd, rs1, imm });
        rd
    }

    pub fn li(&mut self, value: i32) -> VReg {
        let rd = self.s.int();
        self.s.emit(Inst::Li { rd, value });
        rd
    }

    pub fn put_r(&mut self, bits: u32, rd: VReg, rs1: VReg, rs2: VReg) {
        self.s.emit(Inst::R {
            bits,
            rd,
            rs1,
            rs2: Some(rs2),
        });
    }

    pub fn put_i(&mut self, bits: u32, rd: VReg, rs1: VReg, imm: i32) {
        self.s.emit(Inst::I { bits, rd, rs1, imm });
    }

    pub fn mv(&mut self, rd: VReg, rs: VReg) {
        self.s.emit(if rd.class() == RegClass::Float {
            Inst::R {
                bits: encode::FSGNJ,
                rd,
                rs1: rs,
                rs2: Some(rs),
            }
        } else {
            Inst::Move { rd, rs }
        });
    }

    /// Whether floats live in integer registers here.
    fn soft(&self) -> bool {
        !self.isa.extensions.float
    }

    fn constant(&self, value: Value) -> Option<i32> {
        self.s.constant(value).map(|value| value as i32)
    }

    /// A constant that an I-type immediate holds.
    fn immediate(&self, value: Value) -> Option<i32> {
        self.constant(value).filter(|value| (-2048..2048).contains(value))
    }

    /// The value extended to 32 bits.
    pub fn extended(&mut self, value: Value, signed: bool) -> VReg {
        let ty = self.s.ty(value);
        if ty == types::I32 {
            return self.s.reg(value);
        }
        if let Some(constant) = self.constant(value) {
            let mask = (1i32 << ty.bits()) - 1;
            return self.li(if signed { constant } else { constant & mask });
        }
        let rd = self.s.int();
        let register = self.s.reg(value);
        self.extend(rd, register, ty, signed);
        rd
    }

    pub fn extend(&mut self, rd: VReg, rs: VReg, ty: Type, signed: bool) {
        match (signed, ty) {
            (false, types::I8) => self.put_i(encode::ANDI, rd, rs, 255),
            (_, types::I8 | types::I16) => {
                let shift = 32 - ty.bits() as i32;
                let high = self.i(encode::SLLI, rs, shift);
                self.put_i(if signed { encode::SRAI } else { encode::SRLI }, rd, high, shift);
            }
            _ => self.mv(rd, rs),
        }
    }

    /// Base and immediate of an address.
    pub fn address(&mut self, address: Value, offset: i32) -> (VReg, i32) {
        let fits = |offset: &i32| (-2048..2044).contains(offset);
        if let Some((
            _,
            InstructionData::Binary {
                opcode: Opcode::Iadd,
                args,
            },
        )) = self.s.def(address)
            && let Some(constant) = self.constant(args[1])
            && let Some(sum) = offset.checked_add(constant).filter(fits)
        {
            return (self.s.reg(args[0]), sum);
        }
        let base = self.s.reg(address);
        if fits(&offset) {
            return (base, offset);
        }
        let low = (offset << 20) >> 20;
        let high = self.li(offset.wrapping_sub(low));
        (self.r(encode::ADD, base, high), low)
    }

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

    fn compare(&mut self, a: Value, b: Value, cond: IntCC) -> Compare {
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
    fn set(&mut self, rd: VReg, compare: Compare) {
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

    /// `false` if there is no rule.
    fn select(&mut self, inst: ir::Inst) -> Result<bool, Refused> {
        let func = self.s.func;
        let data = func.dfg.insts[inst];
        let results = func.dfg.inst_results(inst);
        let result = results.first().copied();
        let ty = result.map_or(types::INVALID, |value| self.s.ty(value));
        let opcode = data.opcode();
        if ty.is_vector() || ty == types::F64 || ty == types::I128 {
            return Ok(false);
        }
        let wide = ty == types::I64 || data_is_wide(self, inst);
        match data {
            InstructionData::Call { func_ref, .. } => return self.call(inst, func_ref),
            InstructionData::CallIndirect { sig_ref, .. } => return self.call_indirect(inst, sig_ref),
            _ if wide => return Ok(wide::select(self, inst)),
            _ => {}
        }
        let Some(result) = result else {
            return Ok(match data {
                InstructionData::Store {
                    opcode,
                    args: [value, address],
                    offset,
                    ..
                } => self.store(opcode, value, address, offset.into()),
                InstructionData::NullAry { opcode: Opcode::Nop } => true,
                _ => false,
            });
        };
        let rd = self.s.reg(result);
        let float = ty == types::F32;
        Ok(match data {
            InstructionData::UnaryImm { .. } => {
                let value = self.constant(result).unwrap_or(0);
                self.s.emit(Inst::Li { rd, value });
                true
            }
            InstructionData::UnaryIeee32 { imm, .. } => {
                self.float_constant(rd, imm.bits());
                true
            }
            InstructionData::UnaryGlobalValue { global_value, .. } => match &func.global_values[global_value] {
                GlobalValueData::Symbol {
                    name: ExternalName::User(name),
                    offset,
                    ..
                } => {
                    let symbol = func.params.user_named_funcs()[*name].index;
                    self.s.emit(Inst::Address {
                        rd,
                        symbol,
                        offset: offset.bits(),
                    });
                    true
                }
                _ => false,
            },
            InstructionData::FuncAddr { func_ref, .. } => match &func.dfg.ext_funcs[func_ref].name {
                ExternalName::User(name) => {
                    let symbol = func.params.user_named_funcs()[*name].index;
                    self.s.emit(Inst::Address { rd, symbol, offset: 0 });
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
            } => self.load(opcode, ty, rd, arg, offset.into()),
            InstructionData::Unary { opcode, arg } => self.unary(opcode, ty, rd, arg),
            InstructionData::LoadNoOffset {
                opcode: Opcode::Bitcast,
                arg,
                ..
            } => self.bitcast(ty, rd, arg),
            InstructionData::Binary { opcode, args: [a, b] } if float => self.float_binary(opcode, rd, a, b),
            InstructionData::Binary { opcode, args: [a, b] } => self.binary(opcode, ty, rd, a, b),
            InstructionData::Ternary {
                opcode: Opcode::Select,
                args: [condition, yes, no],
            } => {
                self.choose(rd, condition, yes, no);
                true
            }
            InstructionData::Ternary {
                opcode: Opcode::Fma,
                args,
            } if !self.soft() => {
                let [rs1, rs2, rs3] = args.map(|value| self.s.reg(value));
                self.s.emit(Inst::R4 {
                    bits: encode::FMADD,
                    rd,
                    rs1,
                    rs2,
                    rs3,
                });
                true
            }
            InstructionData::Ternary {
                opcode: Opcode::Bitselect,
                args: [mask, yes, no],
            } if !float => {
                // no ^ ((yes ^ no) & mask)
                let [mask, yes, no] = [mask, yes, no].map(|value| self.s.reg(value));
                let differ = self.r(encode::XOR, yes, no);
                let chosen = self.r(encode::AND, differ, mask);
                self.put_r(encode::XOR, rd, no, chosen);
                true
            }
            InstructionData::IntCompare { args: [a, b], cond, .. } => {
                if self.s.ty(a) == types::I64 {
                    return Ok(wide::select(self, inst));
                }
                let compare = self.compare(a, b, cond);
                self.set(rd, compare);
                true
            }
            InstructionData::FloatCompare { args: [a, b], cond, .. } if !self.soft() => {
                self.float_compare(rd, a, b, cond)
            }
            _ => opcode == Opcode::Nop,
        })
    }

    pub fn choose(&mut self, rd: VReg, condition: Value, yes: Value, no: Value) {
        let compare = self.truth(condition);
        let [yes, no] = [yes, no].map(|value| self.s.reg(value));
        self.s.emit(Inst::Select { compare, rd, yes, no });
    }

    fn float_constant(&mut self, rd: VReg, bits: u32) {
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

    fn load(&mut self, opcode: Opcode, ty: Type, rd: VReg, address: Value, offset: i32) -> bool {
        let bits = match (opcode, ty) {
            (Opcode::Load, types::F32) if rd.class() == RegClass::Float => encode::FLW,
            (Opcode::Load, types::I32 | types::F32) => encode::LW,
            (Opcode::Load, types::I16) | (Opcode::Uload16, _) => encode::LHU,
            (Opcode::Load, types::I8) | (Opcode::Uload8, _) => encode::LBU,
            (Opcode::Sload16, _) => encode::LH,
            (Opcode::Sload8, _) => encode::LB,
            _ => return false,
        };
        let (rs1, imm) = self.address(address, offset);
        self.put_i(bits, rd, rs1, imm);
        true
    }

    fn store(&mut self, opcode: Opcode, value: Value, address: Value, offset: i32) -> bool {
        let ty = self.s.ty(value);
        let bits = match (opcode, ty) {
            (Opcode::Store, types::F32) if !self.soft() => encode::FSW,
            (Opcode::Store, types::I32 | types::F32) => encode::SW,
            (Opcode::Store, types::I16) | (Opcode::Istore16, _) => encode::SH,
            (Opcode::Store, types::I8) | (Opcode::Istore8, _) => encode::SB,
            _ => return false,
        };
        let zero = bits != encode::FSW && self.constant(value) == Some(0);
        let rs = (!zero).then(|| self.s.reg(value));
        let (base, imm) = self.address(address, offset);
        self.s.emit(Inst::S { bits, rs, base, imm });
        true
    }

    fn bitcast(&mut self, ty: Type, rd: VReg, arg: Value) -> bool {
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

    fn unary(&mut self, opcode: Opcode, ty: Type, rd: VReg, arg: Value) -> bool {
        let from = self.s.ty(arg);
        match opcode {
            Opcode::Sextend | Opcode::Uextend => {
                let signed = opcode == Opcode::Sextend;
                if let Some((
                    _,
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
                    return self.load(opcode, types::I32, rd, arg, offset.into());
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

    fn binary(&mut self, opcode: Opcode, ty: Type, rd: VReg, a: Value, b: Value) -> bool {
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

    fn float_binary(&mut self, opcode: Opcode, rd: VReg, a: Value, b: Value) -> bool {
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

    fn float_compare(&mut self, rd: VReg, a: Value, b: Value, cond: FloatCC) -> bool {
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

    fn call(&mut self, inst: ir::Inst, callee: ir::FuncRef) -> Result<bool, Refused> {
        let func = self.s.func;
        let external = &func.dfg.ext_funcs[callee];
        let ExternalName::User(name) = &external.name else {
            return Ok(false);
        };
        let symbol = func.params.user_named_funcs()[*name].index;
        let args = func.dfg.inst_args(inst).to_vec();
        self.emit_call(Callee::Symbol(symbol), inst, external.signature, &args)
    }

    fn call_indirect(&mut self, inst: ir::Inst, signature: ir::SigRef) -> Result<bool, Refused> {
        let args = self.s.func.dfg.inst_args(inst).to_vec();
        let Some((target, args)) = args.split_first() else {
            return Ok(false);
        };
        let target = self.s.reg(*target);
        self.emit_call(Callee::Register(target), inst, signature, args)
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
        let (places, stack) = self.isa.places(&signature.params, 8)?;
        self.s.note_call(stack);
        let mut uses = Vec::new();
        for (value, places) in args.iter().zip(&places) {
            for (register, place) in self.s.parts(*value).into_iter().zip(places) {
                match *place {
                    Place::Register(fixed) => {
                        uses.push((self.isa.in_class(self.s, register, fixed.class()), fixed));
                    }
                    Place::Stack(offset) => {
                        let float = register.class() == RegClass::Float;
                        let bits = if float { encode::FSW } else { encode::SW };
                        self.s.emit(Inst::StoreArgument {
                            bits,
                            rs: register,
                            offset,
                        });
                    }
                }
            }
        }
        let returns: Vec<AbiParam> = signature.returns.clone();
        let (places, stack) = self.isa.places(&returns, 2)?;
        if stack != 0 {
            return Ok(false);
        }
        let mut defs = Vec::new();
        let mut moves = Vec::new();
        for (value, places) in func.dfg.inst_results(inst).iter().zip(&places) {
            for (part, place) in self.s.parts(*value).into_iter().zip(places) {
                let Place::Register(fixed) = *place else { continue };
                if fixed.class() == part.class() {
                    defs.push((part, fixed));
                } else {
                    let bits = self.s.temp(fixed.class());
                    defs.push((bits, fixed));
                    moves.push((part, bits));
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
        for (rd, rs1) in moves {
            let bits = if rd.class() == RegClass::Int {
                encode::FMV_X_W
            } else {
                encode::FMV_W_X
            };
            self.s.emit(Inst::R {
                bits,
                rd,
                rs1,
                rs2: None,
            });
        }
        Ok(true)
    }
}

/// Whether an instruction with a narrow result (or none) works on 64-bit operands.
fn data_is_wide(rules: &Rules, inst: ir::Inst) -> bool {
    let func = rules.s.func;
    match func.dfg.insts[inst] {
        InstructionData::Store { args: [value, _], .. } => rules.s.ty(value) == types::I64,
        InstructionData::IntCompare { args: [a, _], .. } => rules.s.ty(a) == types::I64,
        InstructionData::Unary { arg, .. } => rules.s.ty(arg) == types::I64,
        _ => false,
    }
}
