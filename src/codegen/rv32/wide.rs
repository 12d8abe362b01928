//! Rules of RV32 for 64-bit integers, which live in two registers, low half first.

use super::encode::{self, branch};
use super::inst::{Compare, Inst};
use super::select::Rules;
use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::{self, InstructionData, Opcode, Value, types};
use regalloc2::VReg;

type Pair = [VReg; 2];

/// `false` if there is no rule.
pub(super) fn select(rules: &mut Rules, inst: ir::Inst) -> bool {
    let func = rules.s.func;
    let data = func.dfg.insts[inst];
    let result = func.dfg.inst_results(inst).first().copied();
    match (data, result) {
        (
            InstructionData::Store {
                opcode,
                args: [value, address],
                offset,
                ..
            },
            None,
        ) => {
            let [low, high] = rules.s.pair(value);
            let (bits, words): (u32, &[(VReg, i32)]) = match opcode {
                Opcode::Store => (encode::SW, &[(low, 0), (high, 4)]),
                Opcode::Istore32 => (encode::SW, &[(low, 0)]),
                Opcode::Istore16 => (encode::SH, &[(low, 0)]),
                Opcode::Istore8 => (encode::SB, &[(low, 0)]),
                _ => return false,
            };
            let (base, imm) = rules.address(address, offset.into());
            for (rs, at) in words {
                rules.s.emit(Inst::S {
                    bits,
                    rs: Some(*rs),
                    base,
                    imm: imm + at,
                });
            }
            true
        }
        (InstructionData::IntCompare { args: [a, b], cond, .. }, Some(result)) => {
            let rd = rules.s.reg(result);
            let [a, b] = [a, b].map(|value| rules.s.pair(value));
            rules.compare_pairs(rd, a, b, cond);
            true
        }
        (
            InstructionData::Unary {
                opcode: Opcode::Ireduce,
                arg,
            },
            Some(result),
        ) => {
            let rd = rules.s.reg(result);
            let low = rules.s.half(arg, 0);
            rules.mv(rd, low);
            true
        }
        (_, Some(result)) if rules.s.ty(result) == types::I64 => rules.wide_result(data, result),
        _ => false,
    }
}

impl Rules<'_, '_> {
    fn wide_result(&mut self, data: InstructionData, result: Value) -> bool {
        let high_wanted = self.s.wanted(result, 1);
        if let (false, InstructionData::Binary { opcode, args: [a, b] }) = (high_wanted, data)
            && self.low_half(opcode, result, a, b)
        {
            return true;
        }
        let low_wanted = self.s.wanted(result, 0);
        let rd = self.s.pair(result);
        if let (
            false,
            InstructionData::Binary {
                opcode: Opcode::Imul,
                args: [a, b],
            },
        ) = (low_wanted, data)
            && let Some((signed, [x, y])) = self.extended_factors(a, b)
        {
            self.put_r(if signed { encode::MULH } else { encode::MULHU }, rd[1], x, y);
            return true;
        }
        match data {
            InstructionData::UnaryImm { .. } => {
                let value = self.s.constant(result).unwrap_or(0);
                self.s.emit(Inst::Li {
                    rd: rd[0],
                    value: value as i32,
                });
                self.s.emit(Inst::Li {
                    rd: rd[1],
                    value: (value >> 32) as i32,
                });
            }
            InstructionData::Load {
                opcode, arg, offset, ..
            } => {
                let bits = match opcode {
                    Opcode::Load | Opcode::Uload32 | Opcode::Sload32 => encode::LW,
                    Opcode::Uload16 => encode::LHU,
                    Opcode::Sload16 => encode::LH,
                    Opcode::Uload8 => encode::LBU,
                    Opcode::Sload8 => encode::LB,
                    _ => return false,
                };
                let (base, imm) = self.address(arg, offset.into());
                self.put_i(bits, rd[0], base, imm);
                match opcode {
                    Opcode::Load => self.put_i(encode::LW, rd[1], base, imm + 4),
                    Opcode::Sload32 | Opcode::Sload16 | Opcode::Sload8 => self.put_i(encode::SRAI, rd[1], rd[0], 31),
                    _ => self.s.emit(Inst::Li { rd: rd[1], value: 0 }),
                }
            }
            InstructionData::Unary { opcode, arg } => return self.wide_unary(opcode, rd, arg),
            InstructionData::Binary { opcode, args: [a, b] } => return self.wide_binary(opcode, rd, a, b),
            InstructionData::Ternary {
                opcode: Opcode::Select,
                args: [condition, yes, no],
            } => {
                let compare = self.truth(condition);
                let [yes, no] = [yes, no].map(|value| self.s.pair(value));
                for part in 0..2 {
                    self.s.emit(Inst::Select {
                        compare,
                        rd: rd[part],
                        yes: yes[part],
                        no: no[part],
                    });
                }
            }
            _ => return false,
        }
        true
    }

    fn wide_unary(&mut self, opcode: Opcode, rd: Pair, arg: Value) -> bool {
        match opcode {
            Opcode::Sextend => {
                let from = self.s.ty(arg);
                let rs = self.s.reg(arg);
                self.extend(rd[0], rs, from, true);
                self.put_i(encode::SRAI, rd[1], rd[0], 31);
            }
            Opcode::Uextend => {
                let from = self.s.ty(arg);
                let rs = self.s.reg(arg);
                self.extend(rd[0], rs, from, false);
                self.s.emit(Inst::Li { rd: rd[1], value: 0 });
            }
            Opcode::Bnot => {
                let a = self.s.pair(arg);
                for part in 0..2 {
                    self.put_i(encode::XORI, rd[part], a[part], -1);
                }
            }
            Opcode::Ineg => {
                let a = self.s.pair(arg);
                let borrow = self.s.int();
                self.s.emit(Inst::FromZero {
                    bits: encode::SLTU,
                    rd: borrow,
                    rs2: a[0],
                });
                self.s.emit(Inst::FromZero {
                    bits: encode::SUB,
                    rd: rd[0],
                    rs2: a[0],
                });
                let sum = self.r(encode::ADD, a[1], borrow);
                self.s.emit(Inst::FromZero {
                    bits: encode::SUB,
                    rd: rd[1],
                    rs2: sum,
                });
            }
            _ => return false,
        }
        true
    }

    fn wide_binary(&mut self, opcode: Opcode, rd: Pair, a: Value, b: Value) -> bool {
        match opcode {
            Opcode::Iadd => {
                let [a, b] = [a, b].map(|value| self.s.pair(value));
                self.put_r(encode::ADD, rd[0], a[0], b[0]);
                let carry = self.r(encode::SLTU, rd[0], b[0]);
                let high = self.r(encode::ADD, a[1], b[1]);
                self.put_r(encode::ADD, rd[1], high, carry);
            }
            Opcode::Isub => {
                let [a, b] = [a, b].map(|value| self.s.pair(value));
                let borrow = self.r(encode::SLTU, a[0], b[0]);
                self.put_r(encode::SUB, rd[0], a[0], b[0]);
                let high = self.r(encode::SUB, a[1], b[1]);
                self.put_r(encode::SUB, rd[1], high, borrow);
            }
            Opcode::Band | Opcode::Bor | Opcode::Bxor => {
                let bits = match opcode {
                    Opcode::Band => encode::AND,
                    Opcode::Bor => encode::OR,
                    _ => encode::XOR,
                };
                let [a, b] = [a, b].map(|value| self.s.pair(value));
                for part in 0..2 {
                    self.put_r(bits, rd[part], a[part], b[part]);
                }
            }
            Opcode::Imul => self.multiply(rd, a, b),
            Opcode::Ishl | Opcode::Ushr | Opcode::Sshr => match self.s.constant(b) {
                Some(amount) => {
                    let a = self.s.pair(a);
                    self.shift_constant(opcode, rd, a, amount as u32 & 63);
                }
                None => {
                    let a = self.s.pair(a);
                    let amount = self.amount(b, types::I32);
                    self.shift(opcode, rd, a, amount);
                }
            },
            Opcode::Smin | Opcode::Smax | Opcode::Umin | Opcode::Umax => {
                let [a, b] = [a, b].map(|value| self.s.pair(value));
                let cond = match opcode {
                    Opcode::Smin => IntCC::SignedLessThan,
                    Opcode::Umin => IntCC::UnsignedLessThan,
                    Opcode::Smax => IntCC::SignedGreaterThan,
                    _ => IntCC::UnsignedGreaterThan,
                };
                let holds = self.s.int();
                self.compare_pairs(holds, a, b, cond);
                let compare = Compare {
                    funct3: branch::NE,
                    a: holds,
                    b: None,
                };
                for part in 0..2 {
                    self.s.emit(Inst::Select {
                        compare,
                        rd: rd[part],
                        yes: a[part],
                        no: b[part],
                    });
                }
            }
            _ => return false,
        }
        true
    }

    /// The low half of a result of which nobody reads the high one: low halves of the operands are enough.
    fn low_half(&mut self, opcode: Opcode, result: Value, a: Value, b: Value) -> bool {
        let bits = match opcode {
            Opcode::Iadd => encode::ADD,
            Opcode::Isub => encode::SUB,
            Opcode::Imul => encode::MUL,
            Opcode::Band => encode::AND,
            Opcode::Bor => encode::OR,
            Opcode::Bxor => encode::XOR,
            Opcode::Ushr | Opcode::Sshr => {
                // Of a shift by at least 32 only the high half of the operand remains.
                let Some(amount) = self
                    .s
                    .constant(b)
                    .map(|amount| amount & 63)
                    .filter(|amount| *amount >= 32)
                else {
                    return false;
                };
                let rd = self.s.half(result, 0);
                let high = self.s.half(a, 1);
                let bits = if opcode == Opcode::Sshr {
                    encode::SRAI
                } else {
                    encode::SRLI
                };
                self.put_i(bits, rd, high, amount as i32 & 31);
                return true;
            }
            _ => return false,
        };
        let rd = self.s.half(result, 0);
        let [x, y] = [a, b].map(|value| self.s.half(value, 0));
        self.put_r(bits, rd, x, y);
        true
    }

    /// The 32-bit factors of a product of two words extended the same way; true if signed.
    fn extended_factors(&mut self, a: Value, b: Value) -> Option<(bool, [VReg; 2])> {
        let extended = |value: Value| match self.s.def(value)?.1 {
            InstructionData::Unary {
                opcode: opcode @ (Opcode::Sextend | Opcode::Uextend),
                arg,
            } if self.s.ty(arg) == types::I32 => Some((opcode == Opcode::Sextend, arg)),
            _ => None,
        };
        let ((signed, x), (also, y)) = (extended(a)?, extended(b)?);
        (signed == also).then(|| (signed, [x, y].map(|value| self.s.reg(value))))
    }

    /// A product; of two extended words it is one MUL and one MULH.
    fn multiply(&mut self, rd: Pair, a: Value, b: Value) {
        if let Some((signed, [x, y])) = self.extended_factors(a, b) {
            self.put_r(encode::MUL, rd[0], x, y);
            self.put_r(if signed { encode::MULH } else { encode::MULHU }, rd[1], x, y);
            return;
        }
        let [a, b] = [a, b].map(|value| self.s.pair(value));
        let high = self.r(encode::MULHU, a[0], b[0]);
        let cross = self.r(encode::MUL, a[0], b[1]);
        let high = self.r(encode::ADD, high, cross);
        let cross = self.r(encode::MUL, a[1], b[0]);
        self.put_r(encode::MUL, rd[0], a[0], b[0]);
        self.put_r(encode::ADD, rd[1], high, cross);
    }

    fn shift_constant(&mut self, opcode: Opcode, rd: Pair, a: Pair, amount: u32) {
        let (n, far) = ((amount & 31) as i32, amount >= 32);
        let arithmetic = opcode == Opcode::Sshr;
        let down = if arithmetic { encode::SRAI } else { encode::SRLI };
        match (opcode, far, n) {
            (_, false, 0) => {
                self.mv(rd[0], a[0]);
                self.mv(rd[1], a[1]);
            }
            (Opcode::Ishl, true, _) => {
                self.put_i(encode::SLLI, rd[1], a[0], n);
                self.s.emit(Inst::Li { rd: rd[0], value: 0 });
            }
            (Opcode::Ishl, false, _) => {
                let over = self.i(encode::SRLI, a[0], 32 - n);
                let high = self.i(encode::SLLI, a[1], n);
                self.put_i(encode::SLLI, rd[0], a[0], n);
                self.put_r(encode::OR, rd[1], high, over);
            }
            (_, true, _) => {
                self.put_i(down, rd[0], a[1], n);
                if arithmetic {
                    self.put_i(encode::SRAI, rd[1], a[1], 31);
                } else {
                    self.s.emit(Inst::Li { rd: rd[1], value: 0 });
                }
            }
            (_, false, _) => {
                let over = self.i(encode::SLLI, a[1], 32 - n);
                let low = self.i(encode::SRLI, a[0], n);
                self.put_r(encode::OR, rd[0], low, over);
                self.put_i(down, rd[1], a[1], n);
            }
        }
    }

    /// A shift by a variable amount modulo 64: both the near and the far form, chosen by bit 5 of the amount as a mask.
    fn shift(&mut self, opcode: Opcode, rd: Pair, a: Pair, amount: VReg) {
        let top = self.i(encode::SLLI, amount, 26);
        let far = self.i(encode::SRAI, top, 31);
        let opposite = self.i(encode::XORI, amount, -1);
        // `moved` is the half that both forms shift; `over` crosses from it into the other half.
        let (moved, other) = if opcode == Opcode::Ishl {
            (a[0], a[1])
        } else {
            (a[1], a[0])
        };
        let (towards, back) = if opcode == Opcode::Ishl {
            (encode::SLL, encode::SRLI)
        } else {
            (encode::SRL, encode::SLLI)
        };
        let back_variable = if opcode == Opcode::Ishl {
            encode::SRL
        } else {
            encode::SLL
        };
        let once = self.i(back, moved, 1);
        let over = self.r(back_variable, once, opposite);
        let shifted = self.r(
            if opcode == Opcode::Sshr { encode::SRA } else { towards },
            moved,
            amount,
        );
        let rest = self.r(towards, other, amount);
        let near = self.r(encode::OR, rest, over);
        let (rd_moved, rd_other) = if opcode == Opcode::Ishl {
            (rd[0], rd[1])
        } else {
            (rd[1], rd[0])
        };
        // other' = far ? shifted : near; moved' = far ? fill : shifted
        let differ = self.r(encode::XOR, shifted, near);
        let chosen = self.r(encode::AND, differ, far);
        self.put_r(encode::XOR, rd_other, near, chosen);
        if opcode == Opcode::Sshr {
            let fill = self.i(encode::SRAI, moved, 31);
            let differ = self.r(encode::XOR, fill, shifted);
            let chosen = self.r(encode::AND, differ, far);
            self.put_r(encode::XOR, rd_moved, shifted, chosen);
        } else {
            let keep = self.i(encode::XORI, far, -1);
            self.put_r(encode::AND, rd_moved, shifted, keep);
        }
    }

    fn compare_pairs(&mut self, rd: VReg, a: Pair, b: Pair, cond: IntCC) {
        let (a, b, cond) = match cond {
            IntCC::SignedGreaterThan | IntCC::SignedLessThanOrEqual => (b, a, cond.swap_args()),
            IntCC::UnsignedGreaterThan | IntCC::UnsignedLessThanOrEqual => (b, a, cond.swap_args()),
            _ => (a, b, cond),
        };
        let low = self.r(encode::XOR, a[0], b[0]);
        let high = self.r(encode::XOR, a[1], b[1]);
        if matches!(cond, IntCC::Equal | IntCC::NotEqual) {
            let any = self.r(encode::OR, low, high);
            if cond == IntCC::Equal {
                self.put_i(encode::SLTIU, rd, any, 1);
            } else {
                self.s.emit(Inst::FromZero {
                    bits: encode::SLTU,
                    rd,
                    rs2: any,
                });
            }
            return;
        }
        // less = high halves differ ? high less : low less (unsigned)
        let signed = matches!(cond, IntCC::SignedLessThan | IntCC::SignedGreaterThanOrEqual);
        let low_less = self.r(encode::SLTU, a[0], b[0]);
        let high_less = self.r(if signed { encode::SLT } else { encode::SLTU }, a[1], b[1]);
        let compare = Compare {
            funct3: branch::EQ,
            a: high,
            b: None,
        };
        let negate = matches!(
            cond,
            IntCC::SignedGreaterThanOrEqual | IntCC::UnsignedGreaterThanOrEqual
        );
        let less = if negate { self.s.int() } else { rd };
        self.s.emit(Inst::Select {
            compare,
            rd: less,
            yes: low_less,
            no: high_less,
        });
        if negate {
            self.put_i(encode::XORI, rd, less, 1);
        }
    }
}
