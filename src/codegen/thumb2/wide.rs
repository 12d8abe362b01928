//! Rules of Thumb-2 for 64-bit integers, which live in two registers, low half first.

use super::compare::{comparable, condition};
use super::encode::{self, Alu, Cond, Memory, Shift, modified_immediate};
use super::inst::{Address, Choice, Inst, PairAddress, PairRhs, Rhs, Source, Test};
use super::integer::immediate;
use super::select::Rules;
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
            if both && let Some(address) = rules.aligned_pair(inst, address, offset.into()) {
                let high = rules.s.half(value, 1);
                let rs = [low, high];
                rules.s.emit(Inst::StorePair { rs, address });
                return true;
            }
            let address = rules.address(inst, address, offset.into(), memory, if both { 4 } else { 0 });
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
        (_, Some(result)) if rules.s.ty(result) == types::I64 => rules.wide_result(inst, data, result),
        _ => false,
    }
}

/// How a 64-bit value follows from its low word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// It is the word, sign-extended.
    Signed,
    /// It is the word, zero-extended.
    Unsigned,
    /// Both: the word's sign bit is clear.
    Both,
}

impl Word {
    /// How a multiplication may take both: signed or not.
    fn common(self, other: Word) -> Option<bool> {
        match (self, other) {
            (Word::Signed | Word::Both, Word::Signed | Word::Both) => Some(true),
            (Word::Unsigned | Word::Both, Word::Unsigned | Word::Both) => Some(false),
            _ => None,
        }
    }
}

/// The halves of a constant.
fn halves(constant: i64) -> [u32; 2] {
    [constant as u32, (constant >> 32) as u32]
}

impl Rules<'_, '_> {
    /// The halves of a result that somebody asked for.
    fn outputs(&mut self, result: Value) -> [Option<VReg>; 2] {
        [0, 1].map(|half| self.s.wanted(result, half).then(|| self.s.half(result, half)))
    }

    /// A register for a half, whether it was asked for or not.
    fn or_temp(&mut self, output: Option<VReg>) -> VReg {
        output.unwrap_or_else(|| self.s.int())
    }

    fn wide_result(&mut self, inst: ir::Inst, data: InstructionData, result: Value) -> bool {
        let rd = self.outputs(result);
        match data {
            InstructionData::UnaryImm { .. } => {
                let values = halves(self.s.constant(result).unwrap_or(0));
                for (rd, value) in rd.into_iter().zip(values) {
                    if let Some(rd) = rd {
                        self.s.emit(Inst::Imm { rd, value });
                    }
                }
                true
            }
            InstructionData::Load {
                opcode, arg, offset, ..
            } => self.wide_load(inst, opcode, rd, arg, offset.into()),
            InstructionData::Unary { opcode, arg } => self.wide_unary(opcode, rd, arg),
            InstructionData::Binary { opcode, args: [a, b] } => match rd {
                [Some(low), None] if self.low_half(opcode, low, a, b) => true,
                _ => self.wide_binary(opcode, rd, a, b),
            },
            InstructionData::Ternary {
                opcode: Opcode::Select,
                args: [condition, yes, no],
            } => {
                let (test, cond) = self.truth(condition);
                self.select_pair(rd, test, cond, yes, no);
                true
            }
            _ => false,
        }
    }

    /// The address of a plain access for LDRD and STRD, if it is known to be aligned.
    fn aligned_pair(&mut self, inst: ir::Inst, pointer: Value, offset: i32) -> Option<PairAddress> {
        let dfg = &self.s.func.dfg;
        let flags = match dfg.insts[inst] {
            InstructionData::Load { flags, .. } | InstructionData::Store { flags, .. } => flags,
            _ => return None,
        };
        if !dfg.mem_flags[flags].aligned() {
            return None;
        }
        match self.s.exchanged_pointer(inst) {
            None => self.pair_address(pointer, offset),
            Some(access) if !access.moves => self.pair_beside(access.base, offset - access.step),
            Some(_) => None,
        }
    }

    fn wide_load(&mut self, inst: ir::Inst, opcode: Opcode, rd: [Option<VReg>; 2], base: Value, offset: i32) -> bool {
        let memory = match opcode {
            Opcode::Load | Opcode::Uload32 | Opcode::Sload32 => Memory::Word,
            Opcode::Uload16 => Memory::Half,
            Opcode::Sload16 => Memory::SignedHalf,
            Opcode::Uload8 => Memory::Byte,
            Opcode::Sload8 => Memory::SignedByte,
            _ => return false,
        };
        if opcode == Opcode::Load {
            if let [Some(low), Some(high)] = rd
                && let Some(address) = self.aligned_pair(inst, base, offset)
            {
                self.load_pair([low, high], address);
                return true;
            }
            let address = self.address(inst, base, offset, memory, 4);
            let Address::Offset(base, offset) = address else {
                return false;
            };
            for (rd, offset) in rd.into_iter().zip([offset, offset + 4]) {
                if let Some(rd) = rd {
                    let address = Address::Offset(base, offset);
                    self.s.emit(Inst::Load { memory, rd, address });
                }
            }
            return true;
        }
        let low = self.or_temp(rd[0]);
        let address = self.address(inst, base, offset, memory, 0);
        self.s.emit(Inst::Load {
            memory,
            rd: low,
            address,
        });
        let signed = matches!(opcode, Opcode::Sload32 | Opcode::Sload16 | Opcode::Sload8);
        self.upper(rd[1], low, signed);
        true
    }

    /// The high half of an extended word.
    fn upper(&mut self, rd: Option<VReg>, low: VReg, signed: bool) {
        match rd {
            Some(rd) if signed => self.shift_imm(Shift::Asr, rd, low, 31),
            Some(rd) => self.s.emit(Inst::Imm { rd, value: 0 }),
            None => {}
        }
    }

    /// One test, and a conditional move for each half that is wanted.
    fn select_pair(&mut self, rd: [Option<VReg>; 2], test: Test, cond: Cond, yes: Value, no: Value) {
        // A constant can be moved in from the instruction, not stand in its place before.
        let movable = |rules: &Self, value: Value| {
            rules
                .s
                .constant(value)
                .is_some_and(|constant| halves(constant).into_iter().all(encode::one_instruction))
        };
        let (cond, yes, no) = if movable(self, no) && !movable(self, yes) {
            (cond.invert(), no, yes)
        } else {
            (cond, yes, no)
        };
        let constant = self.s.constant(yes).filter(|_| movable(self, yes)).map(halves);
        let mut moves = Vec::new();
        for (half, rd) in rd.into_iter().enumerate() {
            let Some(rd) = rd else { continue };
            let yes = match constant {
                Some(constant) => Source::Imm(constant[half]),
                None => Source::Reg(self.s.half(yes, half)),
            };
            let no = self.s.half(no, half);
            moves.push(Choice { rd, yes, no });
        }
        self.s.emit(Inst::Select { test, cond, moves });
    }

    /// The low half of a result of which nobody reads the high one: low halves of the operands are enough.
    fn low_half(&mut self, opcode: Opcode, rd: VReg, a: Value, b: Value) -> bool {
        let op = match opcode {
            Opcode::Iadd => Alu::Add,
            Opcode::Isub => Alu::Sub,
            Opcode::Band => Alu::And,
            Opcode::Bor => Alu::Orr,
            Opcode::Bxor => Alu::Eor,
            Opcode::Imul => {
                let [rn, rm] = [a, b].map(|value| self.s.half(value, 0));
                let bits = encode::MUL;
                self.s.emit(Inst::R3 { bits, rd, rn, rm });
                return true;
            }
            Opcode::Ishl | Opcode::Ushr | Opcode::Sshr => {
                let Some(amount) = self.s.constant(b).map(|amount| amount as u32 & 63) else {
                    return false;
                };
                // Of a shift to the right by at least 32 only the high half of the operand remains.
                let (half, shift) = match opcode {
                    Opcode::Ishl if amount < 32 => (0, Shift::Lsl),
                    Opcode::Ushr if amount >= 32 => (1, Shift::Lsr),
                    Opcode::Sshr if amount >= 32 => (1, Shift::Asr),
                    _ => return false,
                };
                let rm = self.s.half(a, half);
                self.shift_imm(shift, rd, rm, amount & 31);
                return true;
            }
            _ => return false,
        };
        let (a, b) = if op != Alu::Sub && self.s.constant(a).is_some() {
            (b, a)
        } else {
            (a, b)
        };
        if let Some((op, imm)) = self.constant(b).and_then(|constant| immediate(op, constant)) {
            let rn = self.s.half(a, 0);
            self.s.emit(Inst::AluImm { op, rd, rn, imm });
            return true;
        }
        if matches!(op, Alu::Add | Alu::Sub) {
            let product = self.folded(b, Opcode::Imul).map(|factors| (factors, a));
            let other = || self.folded(a, Opcode::Imul).map(|factors| (factors, b));
            if let Some((factors, ra)) = product.or_else(|| if op == Alu::Add { other() } else { None }) {
                let [rn, rm, ra] = [factors[0], factors[1], ra].map(|value| self.s.half(value, 0));
                let bits = if op == Alu::Add { encode::MLA } else { encode::MLS };
                self.s.emit(Inst::R4 { bits, rd, rn, rm, ra });
                return true;
            }
        }
        let [rn, rm] = [a, b].map(|value| self.s.half(value, 0));
        self.alu(op, rd, rn, rm);
        true
    }

    /// How a value follows from its low word, if it does.
    fn word(&self, value: Value) -> Option<Word> {
        let (_, data) = self.s.def(value)?;
        Some(match data {
            InstructionData::UnaryImm { .. } => match self.s.constant(value)? {
                0..=0x7fff_ffff => Word::Both,
                0x8000_0000..=0xffff_ffff => Word::Unsigned,
                -0x8000_0000..=-1 => Word::Signed,
                _ => return None,
            },
            InstructionData::Unary {
                opcode: Opcode::Sextend,
                ..
            } => Word::Signed,
            InstructionData::Unary {
                opcode: Opcode::Uextend,
                arg,
            } if self.s.ty(arg) == types::I32 => Word::Unsigned,
            InstructionData::Unary {
                opcode: Opcode::Uextend,
                ..
            } => Word::Both,
            InstructionData::Load { opcode, .. } => match opcode {
                Opcode::Sload8 | Opcode::Sload16 | Opcode::Sload32 => Word::Signed,
                Opcode::Uload8 | Opcode::Uload16 => Word::Both,
                Opcode::Uload32 => Word::Unsigned,
                _ => return None,
            },
            InstructionData::Binary { opcode, args: [_, b] } => {
                let constant = self.s.constant(b)?;
                match (opcode, constant & 63) {
                    (Opcode::Sshr, 32..) => Word::Signed,
                    (Opcode::Ushr, 32) => Word::Unsigned,
                    (Opcode::Ushr, 33..) => Word::Both,
                    (Opcode::Band, _) if (0..=0x7fff_ffff).contains(&constant) => Word::Both,
                    (Opcode::Band, _) if (0..=0xffff_ffff).contains(&constant) => Word::Unsigned,
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    /// The low word of a value that follows from it.
    fn word_register(&mut self, value: Value) -> VReg {
        match self.s.def(value) {
            Some((
                _,
                InstructionData::Unary {
                    opcode: Opcode::Sextend | Opcode::Uextend,
                    arg,
                },
            )) if self.s.ty(arg) == types::I32 => self.s.reg(arg),
            _ => self.s.half(value, 0),
        }
    }

    /// The factors of a product of two extended words; true if signed.
    fn words(&mut self, a: Value, b: Value) -> Option<(bool, [VReg; 2])> {
        let signed = self.word(a)?.common(self.word(b)?)?;
        Some((signed, [a, b].map(|value| self.word_register(value))))
    }

    fn wide_unary(&mut self, opcode: Opcode, rd: [Option<VReg>; 2], arg: Value) -> bool {
        match opcode {
            Opcode::Sextend | Opcode::Uextend => {
                let from = self.s.ty(arg);
                let signed = opcode == Opcode::Sextend;
                let low = self.or_temp(rd[0]);
                let rm = self.s.reg(arg);
                self.extend(low, rm, from, signed);
                self.upper(rd[1], low, signed);
            }
            Opcode::Bnot => {
                for (half, rd) in rd.into_iter().enumerate() {
                    if let Some(rd) = rd {
                        let rm = self.s.half(arg, half);
                        self.s.emit(Inst::Not { rd, rm });
                    }
                }
            }
            Opcode::Ineg => {
                let rn = self.s.half(arg, 0);
                let [Some(low), None] = rd else {
                    let rd = rd.map(|rd| self.or_temp(rd));
                    let b = self.s.pair(arg);
                    let zero = self.imm(0);
                    self.s.emit(Inst::Pairs {
                        subtract: true,
                        rd,
                        a: [zero, zero],
                        b: PairRhs::Regs(b),
                    });
                    return true;
                };
                self.s.emit(Inst::AluImm {
                    op: Alu::Rsb,
                    rd: low,
                    rn,
                    imm: 0,
                });
            }
            _ => return false,
        }
        true
    }

    fn wide_binary(&mut self, opcode: Opcode, rd: [Option<VReg>; 2], a: Value, b: Value) -> bool {
        match opcode {
            Opcode::Iadd | Opcode::Isub => {
                let rd = rd.map(|rd| self.or_temp(rd));
                if opcode == Opcode::Iadd && (self.multiply_add(rd, a, b) || self.multiply_add(rd, b, a)) {
                    return true;
                }
                let (a, b) = if opcode == Opcode::Iadd && self.s.constant(a).is_some() {
                    (b, a)
                } else {
                    (a, b)
                };
                let a = self.s.pair(a);
                let subtract = opcode == Opcode::Isub;
                let (subtract, b) = match self.s.constant(b).and_then(|constant| addend(subtract, constant)) {
                    Some((subtract, imm)) => (subtract, PairRhs::Imm(imm)),
                    None => (subtract, PairRhs::Regs(self.s.pair(b))),
                };
                self.s.emit(Inst::Pairs { subtract, rd, a, b });
            }
            Opcode::Band | Opcode::Bor | Opcode::Bxor => {
                let op = match opcode {
                    Opcode::Band => Alu::And,
                    Opcode::Bor => Alu::Orr,
                    _ => Alu::Eor,
                };
                let (a, b) = if self.s.constant(a).is_some() { (b, a) } else { (a, b) };
                let constant = self.s.constant(b).map(halves);
                for (half, rd) in rd.into_iter().enumerate() {
                    let Some(rd) = rd else { continue };
                    let rn = self.s.half(a, half);
                    match constant.and_then(|constant| immediate(op, constant[half])) {
                        Some((op, imm)) => self.s.emit(Inst::AluImm { op, rd, rn, imm }),
                        None => {
                            let rm = self.s.half(b, half);
                            self.alu(op, rd, rn, rm);
                        }
                    }
                }
            }
            Opcode::Imul => self.multiply(rd, a, b),
            Opcode::Ishl | Opcode::Ushr | Opcode::Sshr => match self.s.constant(b) {
                Some(amount) => self.shift_constant(opcode, rd, a, amount as u32 & 63),
                None => {
                    let rd = rd.map(|rd| self.or_temp(rd));
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
                self.select_pair(rd, test, cond, a, b);
            }
            _ => return false,
        }
        true
    }

    fn multiply(&mut self, rd: [Option<VReg>; 2], a: Value, b: Value) {
        if let Some((signed, [rn, rm])) = self.words(a, b) {
            if let ([None, Some(rd)], true, true) = (rd, signed, self.isa.core.dsp) {
                let bits = encode::SMMUL;
                return self.s.emit(Inst::R3 { bits, rd, rn, rm });
            }
            let bits = if signed { encode::SMULL } else { encode::UMULL };
            let rd = rd.map(|rd| self.or_temp(rd));
            return self.s.emit(Inst::MulLong { bits, rd, rn, rm });
        }
        let unsigned = |word: Option<Word>| matches!(word, Some(Word::Unsigned | Word::Both));
        let (a, b) = if unsigned(self.word(a)) { (b, a) } else { (a, b) };
        let narrow = unsigned(self.word(b));
        let rd = rd.map(|rd| self.or_temp(rd));
        let a = self.s.pair(a);
        let low = if narrow {
            self.word_register(b)
        } else {
            self.s.half(b, 0)
        };
        let high = self.s.int();
        self.s.emit(Inst::MulLong {
            bits: encode::UMULL,
            rd: [rd[0], high],
            rn: a[0],
            rm: low,
        });
        let high = if narrow {
            high
        } else {
            let cross = self.s.int();
            let rm = self.s.half(b, 1);
            self.s.emit(Inst::R4 {
                bits: encode::MLA,
                rd: cross,
                rn: a[0],
                rm,
                ra: high,
            });
            cross
        };
        self.s.emit(Inst::R4 {
            bits: encode::MLA,
            rd: rd[1],
            rn: a[1],
            rm: low,
            ra: high,
        });
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
        let Some((signed, [rn, rm])) = self.words(x, y) else {
            return false;
        };
        let acc = self.s.pair(acc);
        let bits = if signed { encode::SMLAL } else { encode::UMLAL };
        self.s.emit(Inst::MulAddLong { bits, rd, acc, rn, rm });
        true
    }

    pub fn compare_pairs(&mut self, a: Value, b: Value, cond: IntCC) -> (Test, Cond) {
        let (a, b, cond) = if self.s.constant(a).is_some() {
            (b, a, cond.swap_args())
        } else {
            (a, b, cond)
        };
        let constant = self.s.constant(b);
        if matches!(cond, IntCC::Equal | IntCC::NotEqual) {
            let pair = self.s.pair(a);
            if constant == Some(0) {
                let any = self.s.int();
                self.alu(Alu::Orr, any, pair[0], pair[1]);
                return (Test::Words(any, Rhs::Imm(0)), condition(cond));
            }
            let rhs = match constant
                .map(halves)
                .filter(|halves| halves.iter().all(|half| comparable(*half)))
            {
                Some(halves) => PairRhs::Imm(halves),
                None => PairRhs::Regs(self.s.pair(b)),
            };
            return (Test::PairsEqual(pair, rhs), condition(cond));
        }
        // CMP and SBCS decide < and ≥. Of > and ≤ a constant grows by one, or the operands are exchanged.
        let (cond, constant) = match (cond, constant) {
            (IntCC::SignedGreaterThan, Some(c)) if c != i64::MAX => (IntCC::SignedGreaterThanOrEqual, Some(c + 1)),
            (IntCC::SignedLessThanOrEqual, Some(c)) if c != i64::MAX => (IntCC::SignedLessThan, Some(c + 1)),
            (IntCC::UnsignedGreaterThan, Some(c)) if c != -1 => {
                (IntCC::UnsignedGreaterThanOrEqual, Some(c.wrapping_add(1)))
            }
            (IntCC::UnsignedLessThanOrEqual, Some(c)) if c != -1 => (IntCC::UnsignedLessThan, Some(c.wrapping_add(1))),
            other => other,
        };
        let exchange = matches!(
            cond,
            IntCC::SignedGreaterThan
                | IntCC::SignedLessThanOrEqual
                | IntCC::UnsignedGreaterThan
                | IntCC::UnsignedLessThanOrEqual
        );
        if exchange {
            let [a, b] = [a, b].map(|value| self.s.pair(value));
            return (
                Test::Pairs(b, PairRhs::Regs(a), self.s.int()),
                condition(cond.swap_args()),
            );
        }
        if constant == Some(0) && matches!(cond, IntCC::SignedLessThan | IntCC::SignedGreaterThanOrEqual) {
            let high = self.s.half(a, 1);
            return (Test::Words(high, Rhs::Imm(0)), condition(cond));
        }
        let pair = self.s.pair(a);
        let encodable = |halves: &[u32; 2]| comparable(halves[0]) && modified_immediate(halves[1]).is_some();
        let rhs = match constant.map(halves) {
            Some(halves) if encodable(&halves) => PairRhs::Imm(halves),
            Some(changed) if self.s.constant(b).map(halves) != Some(changed) => {
                PairRhs::Regs(changed.map(|half| self.imm(half)))
            }
            _ => PairRhs::Regs(self.s.pair(b)),
        };
        (Test::Pairs(pair, rhs, self.s.int()), condition(cond))
    }
}

/// A 64-bit addition or subtraction of a constant as one that the instructions can encode: whether it subtracts, and
/// what.
fn addend(subtract: bool, constant: i64) -> Option<(bool, [u32; 2])> {
    let encodable = |halves: &[u32; 2]| halves.iter().all(|half| modified_immediate(*half).is_some());
    [(subtract, constant), (!subtract, constant.wrapping_neg())]
        .into_iter()
        .map(|(subtract, constant)| (subtract, halves(constant)))
        .find(|(_, halves)| encodable(halves))
}
