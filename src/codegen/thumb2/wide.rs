//! Rules of Thumb-2 for 64-bit integers, which live in two registers, low half first.

use super::encode::{self, Alu, Cond, Memory, Shift};
use super::inst::{Address, Inst, Rhs, Test};
use super::select::{Rules, condition};
use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::{self, InstructionData, Opcode, Value, types};
use regalloc2::VReg;

type Pair = [VReg; 2];

/// Whether an instruction with a narrow result, or none, works on 64-bit operands.
pub(super) fn on_pairs(rules: &Rules, inst: ir::Inst) -> bool {
    match rules.s.func.dfg.insts[inst] {
        InstructionData::Store { args: [value, _], .. } => rules.s.ty(value) == types::I64,
        InstructionData::Unary { arg, .. } => rules.s.ty(arg) == types::I64,
        _ => false,
    }
}

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
            let memory = match opcode {
                Opcode::Store | Opcode::Istore32 => Memory::Word,
                Opcode::Istore16 => Memory::Half,
                Opcode::Istore8 => Memory::Byte,
                _ => return false,
            };
            let both = opcode == Opcode::Store;
            let low = rules.s.half(value, 0);
            let address = rules.address(address, offset.into(), memory, if both { 4 } else { 0 });
            rules.s.emit(Inst::Store {
                memory,
                rs: low,
                address,
            });
            if let (true, Address::Offset(base, offset)) = (both, address) {
                let high = rules.s.half(value, 1);
                rules.s.emit(Inst::Store {
                    memory,
                    rs: high,
                    address: Address::Offset(base, offset + 4),
                });
            }
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
        let [low_wanted, high_wanted] = [0, 1].map(|half| self.s.wanted(result, half));
        if let InstructionData::Binary { opcode, args: [a, b] } = data {
            if !high_wanted && self.low_half(opcode, result, a, b) {
                return true;
            }
            if !low_wanted
                && opcode == Opcode::Imul
                && self.isa.core.dsp
                && let Some((true, [rn, rm])) = self.extended_factors(a, b)
            {
                let rd = self.s.half(result, 1);
                self.s.emit(Inst::R3 {
                    bits: encode::SMMUL,
                    rd,
                    rn,
                    rm,
                });
                return true;
            }
        }
        let rd = self.s.pair(result);
        match data {
            InstructionData::UnaryImm { .. } => {
                let value = self.s.constant(result).unwrap_or(0);
                self.s.emit(Inst::Imm {
                    rd: rd[0],
                    value: value as u32,
                });
                self.s.emit(Inst::Imm {
                    rd: rd[1],
                    value: (value >> 32) as u32,
                });
            }
            InstructionData::Load {
                opcode, arg, offset, ..
            } => {
                let memory = match opcode {
                    Opcode::Load | Opcode::Uload32 | Opcode::Sload32 => Memory::Word,
                    Opcode::Uload16 => Memory::Half,
                    Opcode::Sload16 => Memory::SignedHalf,
                    Opcode::Uload8 => Memory::Byte,
                    Opcode::Sload8 => Memory::SignedByte,
                    _ => return false,
                };
                let both = opcode == Opcode::Load;
                let address = self.address(arg, offset.into(), memory, if both { 4 } else { 0 });
                self.s.emit(Inst::Load {
                    memory,
                    rd: rd[0],
                    address,
                });
                match (opcode, address) {
                    (Opcode::Load, Address::Offset(base, offset)) => {
                        self.s.emit(Inst::Load {
                            memory,
                            rd: rd[1],
                            address: Address::Offset(base, offset + 4),
                        });
                    }
                    (Opcode::Sload32 | Opcode::Sload16 | Opcode::Sload8, _) => {
                        self.shift_imm(Shift::Asr, rd[1], rd[0], 31);
                    }
                    _ => self.s.emit(Inst::Imm { rd: rd[1], value: 0 }),
                }
            }
            InstructionData::Unary { opcode, arg } => return self.wide_unary(opcode, rd, arg),
            InstructionData::Binary { opcode, args: [a, b] } => return self.wide_binary(opcode, rd, a, b),
            InstructionData::Ternary {
                opcode: Opcode::Select,
                args: [condition, yes, no],
            } => {
                let (test, cond) = self.truth(condition);
                let [yes, no] = [yes, no].map(|value| self.s.pair(value));
                self.select_pair(rd, test, cond, yes, no);
            }
            _ => return false,
        }
        true
    }

    /// The flags are set once for each half.
    fn select_pair(&mut self, rd: Pair, test: Test, cond: Cond, yes: Pair, no: Pair) {
        for half in 0..2 {
            let test = match test {
                Test::Pairs(a, b, _) => Test::Pairs(a, b, self.s.int()),
                other => other,
            };
            self.s.emit(Inst::Select {
                test,
                cond,
                rd: rd[half],
                yes: yes[half],
                no: no[half],
            });
        }
    }

    /// The low half of a result of which nobody reads the high one: low halves of the operands are enough.
    fn low_half(&mut self, opcode: Opcode, result: Value, a: Value, b: Value) -> bool {
        let op = match opcode {
            Opcode::Iadd => Some(Alu::Add),
            Opcode::Isub => Some(Alu::Sub),
            Opcode::Band => Some(Alu::And),
            Opcode::Bor => Some(Alu::Orr),
            Opcode::Bxor => Some(Alu::Eor),
            Opcode::Imul => None,
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
                let shift = if opcode == Opcode::Sshr { Shift::Asr } else { Shift::Lsr };
                self.shift_imm(shift, rd, high, amount as u32 & 31);
                return true;
            }
            _ => return false,
        };
        let rd = self.s.half(result, 0);
        let [rn, rm] = [a, b].map(|value| self.s.half(value, 0));
        match op {
            Some(op) => self.alu(op, rd, rn, rm),
            None => self.s.emit(Inst::R3 {
                bits: encode::MUL,
                rd,
                rn,
                rm,
            }),
        }
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

    fn wide_unary(&mut self, opcode: Opcode, rd: Pair, arg: Value) -> bool {
        match opcode {
            Opcode::Sextend | Opcode::Uextend => {
                let from = self.s.ty(arg);
                let rm = self.s.reg(arg);
                let signed = opcode == Opcode::Sextend;
                self.extend(rd[0], rm, from, signed);
                if signed {
                    self.shift_imm(Shift::Asr, rd[1], rd[0], 31);
                } else {
                    self.s.emit(Inst::Imm { rd: rd[1], value: 0 });
                }
            }
            Opcode::Bnot => {
                let a = self.s.pair(arg);
                for half in 0..2 {
                    self.s.emit(Inst::Not {
                        rd: rd[half],
                        rm: a[half],
                    });
                }
            }
            Opcode::Ineg => {
                let a = self.s.pair(arg);
                let zero = self.imm(0);
                self.s.emit(Inst::Pairs {
                    subtract: true,
                    rd,
                    a: [zero, zero],
                    b: a,
                });
            }
            _ => return false,
        }
        true
    }

    fn wide_binary(&mut self, opcode: Opcode, rd: Pair, a: Value, b: Value) -> bool {
        match opcode {
            Opcode::Iadd | Opcode::Isub => {
                if opcode == Opcode::Iadd && (self.multiply_add(rd, a, b) || self.multiply_add(rd, b, a)) {
                    return true;
                }
                let [a, b] = [a, b].map(|value| self.s.pair(value));
                self.s.emit(Inst::Pairs {
                    subtract: opcode == Opcode::Isub,
                    rd,
                    a,
                    b,
                });
            }
            Opcode::Band | Opcode::Bor | Opcode::Bxor => {
                let op = match opcode {
                    Opcode::Band => Alu::And,
                    Opcode::Bor => Alu::Orr,
                    _ => Alu::Eor,
                };
                let [a, b] = [a, b].map(|value| self.s.pair(value));
                for half in 0..2 {
                    self.alu(op, rd[half], a[half], b[half]);
                }
            }
            Opcode::Imul => match self.extended_factors(a, b) {
                Some((signed, [rn, rm])) => {
                    let bits = if signed { encode::SMULL } else { encode::UMULL };
                    self.s.emit(Inst::MulLong { bits, rd, rn, rm });
                }
                None => {
                    let [a, b] = [a, b].map(|value| self.s.pair(value));
                    let (high, cross) = (self.s.int(), self.s.int());
                    self.s.emit(Inst::MulLong {
                        bits: encode::UMULL,
                        rd: [rd[0], high],
                        rn: a[0],
                        rm: b[0],
                    });
                    self.s.emit(Inst::R4 {
                        bits: encode::MLA,
                        rd: cross,
                        rn: a[0],
                        rm: b[1],
                        ra: high,
                    });
                    self.s.emit(Inst::R4 {
                        bits: encode::MLA,
                        rd: rd[1],
                        rn: a[1],
                        rm: b[0],
                        ra: cross,
                    });
                }
            },
            Opcode::Ishl | Opcode::Ushr | Opcode::Sshr => match self.s.constant(b) {
                Some(amount) => {
                    let a = self.s.pair(a);
                    self.shift_constant(opcode, rd, a, amount as u32 & 63);
                }
                None => {
                    let a = self.s.pair(a);
                    let amount = self.amount(b, types::I64);
                    self.shift_pair(opcode, rd, a, amount);
                }
            },
            Opcode::Smin | Opcode::Smax | Opcode::Umin | Opcode::Umax => {
                let cond = match opcode {
                    Opcode::Smin => IntCC::SignedLessThan,
                    Opcode::Umin => IntCC::UnsignedLessThan,
                    Opcode::Smax => IntCC::SignedGreaterThan,
                    _ => IntCC::UnsignedGreaterThan,
                };
                let (test, cond) = self.compare_pairs(a, b, cond);
                let [a, b] = [a, b].map(|value| self.s.pair(value));
                self.select_pair(rd, test, cond, a, b);
            }
            _ => return false,
        }
        true
    }

    /// acc + x × y of extended words that nobody else reads: SMLAL or UMLAL.
    fn multiply_add(&mut self, rd: Pair, acc: Value, product: Value) -> bool {
        let Some((
            _,
            InstructionData::Binary {
                opcode: Opcode::Imul,
                args: [x, y],
            },
        )) = self.s.def(product)
        else {
            return false;
        };
        if !self.s.only_use(product) {
            return false;
        }
        let Some((signed, [rn, rm])) = self.extended_factors(x, y) else {
            return false;
        };
        let acc = self.s.pair(acc);
        let bits = if signed { encode::SMLAL } else { encode::UMLAL };
        self.s.emit(Inst::MulAddLong { bits, rd, acc, rn, rm });
        true
    }

    fn shift_constant(&mut self, opcode: Opcode, rd: Pair, a: Pair, amount: u32) {
        let (n, far) = (amount & 31, amount >= 32);
        let down = if opcode == Opcode::Sshr { Shift::Asr } else { Shift::Lsr };
        match (opcode, far) {
            (_, false) if n == 0 => {
                self.mv(rd[0], a[0]);
                self.mv(rd[1], a[1]);
            }
            (Opcode::Ishl, true) => {
                self.shift_imm(Shift::Lsl, rd[1], a[0], n);
                self.s.emit(Inst::Imm { rd: rd[0], value: 0 });
            }
            (Opcode::Ishl, false) => {
                let high = self.s.int();
                self.shift_imm(Shift::Lsl, high, a[1], n);
                self.s.emit(Inst::Alu {
                    op: Alu::Orr,
                    rd: rd[1],
                    rn: high,
                    rm: a[0],
                    shift: Shift::Lsr,
                    amount: 32 - n,
                });
                self.shift_imm(Shift::Lsl, rd[0], a[0], n);
            }
            (_, true) => {
                self.shift_imm(down, rd[0], a[1], n);
                if opcode == Opcode::Sshr {
                    self.shift_imm(Shift::Asr, rd[1], a[1], 31);
                } else {
                    self.s.emit(Inst::Imm { rd: rd[1], value: 0 });
                }
            }
            (_, false) => {
                let low = self.s.int();
                self.shift_imm(Shift::Lsr, low, a[0], n);
                self.s.emit(Inst::Alu {
                    op: Alu::Orr,
                    rd: rd[0],
                    rn: low,
                    rm: a[1],
                    shift: Shift::Lsl,
                    amount: 32 - n,
                });
                self.shift_imm(down, rd[1], a[1], n);
            }
        }
    }

    /// A shift by 0 to 63. The instructions give 0 (or the sign) for amounts from 32 to 255, so both forms can be ORed:
    /// the word that crosses over comes from a shift by 32 − n or by n − 32, of which one is out of range.
    fn shift_pair(&mut self, opcode: Opcode, rd: Pair, a: Pair, amount: VReg) {
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
                rd: rd[0],
                yes: far,
                no: near,
            });
            self.s.emit(Inst::ShiftReg {
                shift: Shift::Asr,
                rd: rd[1],
                rn: a[1],
                rm: amount,
            });
        }
    }

    pub fn compare_pairs(&mut self, a: Value, b: Value, cond: IntCC) -> (Test, Cond) {
        if matches!(cond, IntCC::Equal | IntCC::NotEqual) {
            let [a, b] = [a, b].map(|value| self.s.pair(value));
            let [low, high, any] = [self.s.int(), self.s.int(), self.s.int()];
            self.alu(Alu::Eor, low, a[0], b[0]);
            self.alu(Alu::Eor, high, a[1], b[1]);
            self.alu(Alu::Orr, any, low, high);
            return (Test::Words(any, Rhs::Imm(0)), condition(cond));
        }
        // CMP and SBCS decide < and ≥; the others are these with the operands exchanged.
        let exchange = matches!(
            cond,
            IntCC::SignedGreaterThan
                | IntCC::SignedLessThanOrEqual
                | IntCC::UnsignedGreaterThan
                | IntCC::UnsignedLessThanOrEqual
        );
        let (a, b, cond) = if exchange {
            (b, a, cond.swap_args())
        } else {
            (a, b, cond)
        };
        let [a, b] = [a, b].map(|value| self.s.pair(value));
        (Test::Pairs(a, b, self.s.int()), condition(cond))
    }
}
