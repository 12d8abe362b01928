//! Rules of Thumb-2: one CLIF instruction at a time. Here is what chooses among the rules and what they share; they are
//! in `integer`, `compare`, `memory` and `call`, those for 64-bit integers in `wide`, for floats in `float`.
//!
//! A value narrower than 32 bits has anything in the upper bits of its register; who looks at them extends first.

use super::encode::{self, Alu, Shift};
use super::inst::{Callee, Inst, Test};
use super::{Thumb2, float, wide};
use crate::codegen::native::select::{Refused, Select};
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
}
