//! Rules of Thumb-2 for single-precision floats in the registers of an FPU. Without one, arithmetic on floats is calls
//! of routines that were put in before; only moves of bits get here.

use super::encode::{self, Cond};
use super::inst::{Inst, Test};
use super::select::Rules;
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{self, InstructionData, Opcode, Value, types};
use regalloc2::{RegClass, VReg};

/// The condition code after VCMP and VMRS; `None` where one condition is not enough.
pub(super) fn condition(cond: FloatCC) -> Option<Cond> {
    Some(match cond {
        FloatCC::Equal => Cond::Eq,
        FloatCC::NotEqual => Cond::Ne,
        FloatCC::LessThan => Cond::Mi,
        FloatCC::LessThanOrEqual => Cond::Ls,
        FloatCC::GreaterThan => Cond::Gt,
        FloatCC::GreaterThanOrEqual => Cond::Ge,
        FloatCC::Ordered => Cond::Vc,
        FloatCC::Unordered => Cond::Vs,
        FloatCC::UnorderedOrLessThan => Cond::Lt,
        FloatCC::UnorderedOrLessThanOrEqual => Cond::Le,
        FloatCC::UnorderedOrGreaterThan => Cond::Hi,
        FloatCC::UnorderedOrGreaterThanOrEqual => Cond::Pl,
        FloatCC::OrderedNotEqual | FloatCC::UnorderedOrEqual => return None,
    })
}

/// Whether an instruction without a float result works on floats.
pub(super) fn on_floats(rules: &Rules, inst: ir::Inst) -> bool {
    let dfg = &rules.s.func.dfg;
    dfg.inst_args(inst)
        .iter()
        .any(|value| dfg.value_type(*value) == types::F32)
}

/// `false` if there is no rule.
pub(super) fn select(rules: &mut Rules, data: InstructionData, result: Value, rd: VReg) -> bool {
    let fpu = rules.isa.core.fpu;
    match data {
        InstructionData::UnaryIeee32 { imm, .. } => {
            if rd.class() == RegClass::Int {
                rules.s.emit(Inst::Imm { rd, value: imm.bits() });
            } else {
                let core = rules.imm(imm.bits());
                rules.mv(rd, core);
            }
        }
        InstructionData::LoadNoOffset {
            opcode: Opcode::Bitcast,
            arg,
            ..
        } => {
            let rm = rules.s.reg(arg);
            rules.mv(rd, rm);
        }
        InstructionData::Unary {
            opcode: opcode @ (Opcode::Fneg | Opcode::Fabs),
            arg,
        } if !fpu => {
            let rn = rules.s.reg(arg);
            let (op, imm) = match opcode {
                Opcode::Fneg => (encode::Alu::Eor, 1 << 31),
                _ => (encode::Alu::Bic, 1 << 31),
            };
            rules.s.emit(Inst::AluImm { op, rd, rn, imm });
        }
        _ if !fpu => return false,
        InstructionData::Unary { opcode, arg } => {
            let bits = match opcode {
                Opcode::Fneg => encode::VNEG,
                Opcode::Fabs => encode::VABS,
                Opcode::Sqrt => encode::VSQRT,
                Opcode::FcvtFromSint | Opcode::FcvtFromUint => {
                    let signed = opcode == Opcode::FcvtFromSint;
                    let core = rules.extended(arg, signed);
                    let rm = rules.s.temp(RegClass::Float);
                    rules.mv(rm, core);
                    let bits = if signed {
                        encode::VCVT_F32_S32
                    } else {
                        encode::VCVT_F32_U32
                    };
                    rules.s.emit(Inst::Float2 { bits, rd, rm });
                    return true;
                }
                Opcode::FcvtToSintSat | Opcode::FcvtToUintSat if rules.s.ty(result) == types::I32 => {
                    // The instruction saturates and turns a NaN into 0, as CLIF wants.
                    let bits = if opcode == Opcode::FcvtToSintSat {
                        encode::VCVT_S32_F32
                    } else {
                        encode::VCVT_U32_F32
                    };
                    let rm = rules.s.reg(arg);
                    let whole = rules.s.temp(RegClass::Float);
                    rules.s.emit(Inst::Float2 { bits, rd: whole, rm });
                    rules.mv(rd, whole);
                    return true;
                }
                _ => return false,
            };
            let rm = rules.s.reg(arg);
            rules.s.emit(Inst::Float2 { bits, rd, rm });
        }
        InstructionData::Binary { opcode, args } => {
            let bits = match opcode {
                Opcode::Fadd => encode::VADD,
                Opcode::Fsub => encode::VSUB,
                Opcode::Fmul => encode::VMUL,
                Opcode::Fdiv => encode::VDIV,
                _ => return false,
            };
            let [rn, rm] = args.map(|value| rules.s.reg(value));
            rules.s.emit(Inst::Float3 { bits, rd, rn, rm });
        }
        InstructionData::Ternary {
            opcode: Opcode::Fma,
            args,
        } => {
            let [rn, rm, acc] = args.map(|value| rules.s.reg(value));
            rules.s.emit(Inst::FloatMulAdd {
                bits: encode::VFMA,
                rd,
                acc,
                rn,
                rm,
            });
        }
        InstructionData::FloatCompare { args, cond, .. } => {
            let Some(cond) = condition(cond) else { return false };
            let [a, b] = args.map(|value| rules.s.reg(value));
            rules.s.emit(Inst::Set {
                test: Test::Floats(a, b),
                cond,
                rd,
            });
        }
        _ => return false,
    }
    true
}
