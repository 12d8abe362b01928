//! Rules of Thumb-2 for shifts of 64-bit integers.

use super::encode::{Alu, Cond, Shift};
use super::inst::{Choice, Inst, Rhs, Source, Test};
use super::select::Rules;
use cranelift_codegen::ir::{Opcode, Value};
use regalloc2::VReg;

impl Rules<'_, '_> {
    pub fn shift_constant(&mut self, opcode: Opcode, rd: [Option<VReg>; 2], a: Value, amount: u32) {
        let (n, far) = (amount & 31, amount >= 32);
        // The half that is only shifted, and the one that also takes bits from the other.
        let left = opcode == Opcode::Ishl;
        let (alone, mixed) = if left { (0, 1) } else { (1, 0) };
        let (towards, back) = if left {
            (Shift::Lsl, Shift::Lsr)
        } else {
            (Shift::Lsr, Shift::Lsl)
        };
        let last = if opcode == Opcode::Sshr { Shift::Asr } else { towards };
        if let Some(rd) = rd[mixed] {
            let from_alone = self.s.half(a, alone);
            if far {
                self.shift_imm(last, rd, from_alone, n);
            } else if n == 0 {
                let same = self.s.half(a, mixed);
                self.mv(rd, same);
            } else {
                let own = self.s.half(a, mixed);
                let shifted = self.s.int();
                self.shift_imm(towards, shifted, own, n);
                self.s.emit(Inst::Alu {
                    op: Alu::Orr,
                    rd,
                    rn: shifted,
                    rm: from_alone,
                    shift: back,
                    amount: 32 - n,
                });
            }
        }
        if let Some(rd) = rd[alone] {
            if !far {
                let own = self.s.half(a, alone);
                self.shift_imm(last, rd, own, n);
            } else if opcode == Opcode::Sshr {
                let own = self.s.half(a, alone);
                self.shift_imm(Shift::Asr, rd, own, 31);
            } else {
                self.s.emit(Inst::Imm { rd, value: 0 });
            }
        }
    }

    /// A shift by 0 to 63. The instructions give 0 (or the sign) for amounts from 32 to 255, so both forms can be ORed:
    /// the word that crosses over comes from a shift by 32 − n or by n − 32, of which one is out of range.
    pub fn shift_pair(&mut self, opcode: Opcode, rd: [VReg; 2], a: [VReg; 2], amount: VReg) {
        let shift_reg = |rules: &mut Self, shift, rn, rm| {
            let rd = rules.s.int();
            rules.s.emit(Inst::ShiftReg { shift, rd, rn, rm });
            rd
        };
        let (back, beyond) = (self.s.int(), self.s.int());
        self.s.emit(Inst::AluImm {
            op: Alu::Rsb,
            rd: back,
            rn: amount,
            imm: 32,
        });
        self.s.emit(Inst::AluImm {
            op: Alu::Sub,
            rd: beyond,
            rn: amount,
            imm: 32,
        });
        if opcode == Opcode::Ishl {
            let high = shift_reg(self, Shift::Lsl, a[1], amount);
            let over = shift_reg(self, Shift::Lsr, a[0], back);
            let far = shift_reg(self, Shift::Lsl, a[0], beyond);
            let near = self.s.int();
            self.alu(Alu::Orr, near, high, over);
            self.alu(Alu::Orr, rd[1], near, far);
            self.s.emit(Inst::ShiftReg {
                shift: Shift::Lsl,
                rd: rd[0],
                rn: a[0],
                rm: amount,
            });
            return;
        }
        let low = shift_reg(self, Shift::Lsr, a[0], amount);
        let over = shift_reg(self, Shift::Lsl, a[1], back);
        let near = self.s.int();
        self.alu(Alu::Orr, near, low, over);
        if opcode == Opcode::Ushr {
            let far = shift_reg(self, Shift::Lsr, a[1], beyond);
            self.alu(Alu::Orr, rd[0], near, far);
            self.s.emit(Inst::ShiftReg {
                shift: Shift::Lsr,
                rd: rd[1],
                rn: a[1],
                rm: amount,
            });
        } else {
            // An arithmetic shift out of range gives the sign, not 0: choose.
            let far = shift_reg(self, Shift::Asr, a[1], beyond);
            let test = Test::Words(amount, Rhs::Imm(32));
            self.s.emit(Inst::Select {
                test,
                cond: Cond::Hs,
                moves: vec![Choice {
                    rd: rd[0],
                    yes: Source::Reg(far),
                    no: near,
                }],
            });
            self.s.emit(Inst::ShiftReg {
                shift: Shift::Asr,
                rd: rd[1],
                rn: a[1],
                rm: amount,
            });
        }
    }
}
