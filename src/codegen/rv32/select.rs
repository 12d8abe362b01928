//! Rules of RV32: one CLIF instruction at a time. Here is what chooses among the rules and what they share; they are in
//! `integer`, `compare`, `memory`, `float` and `call`, those for 64-bit integers in `wide`.
//!
//! A value narrower than 32 bits has anything in the upper bits of its register; who looks at them extends first.

use super::encode;
use super::inst::Inst;
use super::{Rv32, wide};
use crate::codegen::native::select::{Refused, Select};
use cranelift_codegen::ir::{self, ExternalName, GlobalValueData, InstructionData, Opcode, Type, Value, types};
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
    pub fn soft(&self) -> bool {
        !self.isa.extensions.float
    }

    pub fn constant(&self, value: Value) -> Option<i32> {
        self.s.constant(value).map(|value| value as i32)
    }

    /// A constant that an I-type immediate holds.
    pub fn immediate(&self, value: Value) -> Option<i32> {
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
