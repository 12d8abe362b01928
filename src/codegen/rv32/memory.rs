//! Rules of RV32 for loads and stores.

use super::encode;
use super::inst::Inst;
use super::select::Rules;
use cranelift_codegen::ir::{InstructionData, Opcode, Type, Value, types};
use regalloc2::{RegClass, VReg};

impl Rules<'_, '_> {
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

    pub fn load(&mut self, opcode: Opcode, ty: Type, rd: VReg, address: Value, offset: i32) -> bool {
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

    pub fn store(&mut self, opcode: Opcode, value: Value, address: Value, offset: i32) -> bool {
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
}
