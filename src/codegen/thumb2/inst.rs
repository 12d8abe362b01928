//! Thumb-2 instructions over virtual registers.
//!
//! Flags are never live from one instruction to the next: what sets them and what reads them are one [`Inst`].

use super::encode::{Alu, Cond, Memory, Shift};
use crate::codegen::native::vcode::MachineInst;
use regalloc2::{Operand, PReg, PRegSet, RegClass, VReg};

/// The second operand of a comparison.
#[derive(Clone, Copy, Debug)]
pub enum Rhs {
    /// A register.
    Reg(VReg),
    /// A constant that CMP or CMN can encode.
    Imm(i32),
}

/// The second operand of an operation on pairs, low half first.
#[derive(Clone, Copy, Debug)]
pub enum PairRhs {
    /// Registers.
    Regs([VReg; 2]),
    /// Constants that the instructions can encode.
    Imm([u32; 2]),
}

/// What a conditional move takes.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// A register.
    Reg(VReg),
    /// A constant that one instruction makes.
    Imm(u32),
}

/// What sets the flags.
#[derive(Clone, Copy, Debug)]
pub enum Test {
    /// CMP of words.
    Words(VReg, Rhs),
    /// CMP and SBCS of pairs, for < and ≥; the last is overwritten.
    Pairs([VReg; 2], PairRhs, VReg),
    /// CMP of both halves, for = and ≠.
    PairsEqual([VReg; 2], PairRhs),
    /// VCMP.
    Floats(VReg, VReg),
    /// Nothing: the instruction before has set them.
    Flags,
}

/// An address.
#[derive(Clone, Copy, Debug)]
pub enum Address {
    /// Base and constant.
    Offset(VReg, i32),
    /// Base and index shifted left by 0 to 3.
    Index(VReg, VReg, u32),
    /// Base, which is moved by −255 to 255 afterwards: before, after, by how much.
    Post(VReg, VReg, i32),
    /// Within the area of stack slots.
    Slot(u32),
}

/// The address of two words.
#[derive(Clone, Copy, Debug)]
pub enum PairAddress {
    /// Base and constant.
    Offset(VReg, i32),
    /// Base, which is moved by a multiple of 4 afterwards: before, after, by how much.
    Post(VReg, VReg, i32),
    /// Within the area of stack slots.
    Slot(u32),
}

/// An instruction. `bits` fields hold an encoding with register fields clear.
#[derive(Clone, Debug)]
pub enum Inst {
    /// Arguments arrive in registers.
    Entry(Vec<(VReg, PReg)>),
    /// Incoming stack argument.
    LoadArgument { rd: VReg, offset: u32 },
    /// Outgoing stack argument.
    StoreArgument { rs: VReg, offset: u32 },
    /// 32-bit constant.
    Imm { rd: VReg, value: u32 },
    /// Address of a symbol: MOVW and MOVT with relocations.
    Symbol { rd: VReg, symbol: u32, offset: i16 },
    /// Address within the stack slots.
    SlotAddress { rd: VReg, offset: u32 },
    /// Copy, within a register class or between them.
    Move { rd: VReg, rm: VReg },
    /// rd = rn op (rm shifted).
    Alu {
        op: Alu,
        rd: VReg,
        rn: VReg,
        rm: VReg,
        shift: Shift,
        amount: u32,
    },
    /// rd = rn op imm; the immediate can be encoded.
    AluImm { op: Alu, rd: VReg, rn: VReg, imm: u32 },
    /// The same with a modified immediate, setting the flags for the branch that follows.
    AluImmFlags { op: Alu, rd: VReg, rn: VReg, imm: u32 },
    /// rd = NOT rm.
    Not { rd: VReg, rm: VReg },
    /// rd = rm shifted by 1 to 31.
    ShiftImm {
        shift: Shift,
        rd: VReg,
        rm: VReg,
        amount: u32,
    },
    /// rd = rn shifted by the low byte of rm.
    ShiftReg { shift: Shift, rd: VReg, rn: VReg, rm: VReg },
    /// bits | rn << 16 | rd << 8 | rm.
    R3 { bits: u32, rd: VReg, rn: VReg, rm: VReg },
    /// bits | rn << 16 | ra << 12 | rd << 8 | rm.
    R4 {
        bits: u32,
        rd: VReg,
        rn: VReg,
        rm: VReg,
        ra: VReg,
    },
    /// The greater of four signed bytes each: SSUB8, SEL.
    Max8 { rd: VReg, rn: VReg, rm: VReg },
    /// R4 where `ra` has no other use: the result takes its register, so that a chain of sums has one.
    R4Tied {
        bits: u32,
        rd: VReg,
        rn: VReg,
        rm: VReg,
        ra: VReg,
    },
    /// bits | rd << 8 | rm.
    R2 { bits: u32, rd: VReg, rm: VReg },
    /// bits | rn << 16 | rd << 8: saturation and bit fields.
    Field { bits: u32, rd: VReg, rn: VReg },
    /// bits | rn << 16 | low << 12 | high << 8 | rm.
    MulLong {
        bits: u32,
        rd: [VReg; 2],
        rn: VReg,
        rm: VReg,
    },
    /// The same, added to a pair.
    MulAddLong {
        bits: u32,
        rd: [VReg; 2],
        acc: [VReg; 2],
        rn: VReg,
        rm: VReg,
    },
    /// 64-bit sum (ADDS, ADC) or difference (SUBS, SBC).
    Pairs {
        subtract: bool,
        rd: [VReg; 2],
        a: [VReg; 2],
        b: PairRhs,
    },
    /// Load.
    Load { memory: Memory, rd: VReg, address: Address },
    /// Store.
    Store { memory: Memory, rs: VReg, address: Address },
    /// LDRD: two words at a multiple of 4. Early Cortex-M3 must not load over the base: `keep`.
    LoadPair {
        rd: [VReg; 2],
        address: PairAddress,
        keep: bool,
    },
    /// STRD.
    StorePair { rs: [VReg; 2], address: PairAddress },
    /// rd = test holds ? 1 : 0.
    Set { test: Test, cond: Cond, rd: VReg },
    /// rd = test holds ? yes : no, for one register or two.
    Select { test: Test, cond: Cond, moves: Vec<Choice> },
    /// Float operation on three registers; `accumulate` also reads rd.
    Float3 { bits: u32, rd: VReg, rn: VReg, rm: VReg },
    /// rd = acc ± rn × rm in one rounding.
    FloatMulAdd {
        bits: u32,
        rd: VReg,
        acc: VReg,
        rn: VReg,
        rm: VReg,
    },
    /// Float operation on two registers.
    Float2 { bits: u32, rd: VReg, rm: VReg },
    /// Call of a symbol, or through a register.
    Call {
        callee: Callee,
        uses: Vec<(VReg, PReg)>,
        defs: Vec<(VReg, PReg)>,
        clobbers: PRegSet,
    },
    /// Branch if the test holds.
    Branch { test: Test, cond: Cond },
    /// Return with values in registers.
    Return(Vec<(VReg, PReg)>),
    /// UDF.
    Trap,
}

/// rd = yes or no.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    pub rd: VReg,
    pub yes: Source,
    pub no: VReg,
}

/// What is called.
#[derive(Clone, Copy, Debug)]
pub enum Callee {
    /// Index of the symbol.
    Symbol(u32),
    /// An address with the Thumb bit.
    Register(VReg),
}

impl Test {
    fn operands(&self, operands: &mut Vec<Operand>) {
        let r#use = Operand::reg_use;
        match *self {
            Test::Words(a, rhs) => {
                operands.push(r#use(a));
                if let Rhs::Reg(b) = rhs {
                    operands.push(r#use(b));
                }
            }
            Test::Pairs(a, b, scratch) => {
                operands.extend(a.map(r#use));
                if let PairRhs::Regs(b) = b {
                    operands.extend(b.map(r#use));
                }
                operands.push(Operand::reg_temp(scratch));
            }
            Test::PairsEqual(a, b) => {
                operands.extend(a.map(r#use));
                if let PairRhs::Regs(b) = b {
                    operands.extend(b.map(r#use));
                }
            }
            Test::Floats(a, b) => operands.extend([a, b].map(r#use)),
            Test::Flags => {}
        }
    }
}

impl Address {
    fn operands(&self, operands: &mut Vec<Operand>) {
        match *self {
            Address::Offset(base, _) => operands.push(Operand::reg_use(base)),
            Address::Index(base, index, _) => operands.extend([base, index].map(Operand::reg_use)),
            // The value that is loaded or stored is operand 0.
            Address::Post(base, moved, _) => {
                operands.extend([Operand::reg_reuse_def(moved, 2), Operand::reg_use(base)]);
            }
            Address::Slot(_) => {}
        }
    }
}

impl MachineInst for Inst {
    fn operands(&self, operands: &mut Vec<Operand>) {
        let (r#use, def, late) = (Operand::reg_use, Operand::reg_def, Operand::reg_use_at_end);
        match self {
            Inst::Entry(args) => operands.extend(args.iter().map(|(v, p)| Operand::reg_fixed_def(*v, *p))),
            Inst::LoadArgument { rd, .. }
            | Inst::Imm { rd, .. }
            | Inst::Symbol { rd, .. }
            | Inst::SlotAddress { rd, .. } => operands.push(def(*rd)),
            Inst::StoreArgument { rs, .. } => operands.push(r#use(*rs)),
            Inst::Move { rd, rm }
            | Inst::Not { rd, rm }
            | Inst::ShiftImm { rd, rm, .. }
            | Inst::R2 { rd, rm, .. }
            | Inst::Float2 { rd, rm, .. } => operands.extend([def(*rd), r#use(*rm)]),
            Inst::AluImm { rd, rn, .. } | Inst::AluImmFlags { rd, rn, .. } | Inst::Field { rd, rn, .. } => {
                operands.extend([def(*rd), r#use(*rn)])
            }
            Inst::Alu { rd, rn, rm, .. }
            | Inst::ShiftReg { rd, rn, rm, .. }
            | Inst::R3 { rd, rn, rm, .. }
            | Inst::Float3 { rd, rn, rm, .. } => operands.extend([def(*rd), r#use(*rn), r#use(*rm)]),
            Inst::R4 { rd, rn, rm, ra, .. } => operands.extend([def(*rd), r#use(*rn), r#use(*rm), r#use(*ra)]),
            // SEL reads them again.
            Inst::Max8 { rd, rn, rm } => operands.extend([def(*rd), late(*rn), late(*rm)]),
            Inst::R4Tied { rd, rn, rm, ra, .. } => {
                operands.extend([Operand::reg_reuse_def(*rd, 3), r#use(*rn), r#use(*rm), r#use(*ra)]);
            }
            Inst::MulLong { rd, rn, rm, .. } => {
                operands.extend([def(rd[0]), def(rd[1]), r#use(*rn), r#use(*rm)]);
            }
            // The high half is moved first, as only one result can reuse a register.
            Inst::MulAddLong { rd, acc, rn, rm, .. } => operands.extend([
                Operand::reg_reuse_def(rd[0], 2),
                def(rd[1]),
                r#use(acc[0]),
                late(acc[1]),
                late(*rn),
                late(*rm),
            ]),
            // The low half is written before the high operands are read.
            Inst::Pairs { rd, a, b, .. } => {
                operands.extend([def(rd[0]), def(rd[1]), r#use(a[0]), late(a[1])]);
                if let PairRhs::Regs(b) = b {
                    operands.extend([r#use(b[0]), late(b[1])]);
                }
            }
            Inst::Load { rd, address, .. } => {
                operands.push(def(*rd));
                address.operands(operands);
            }
            Inst::Store { rs, address, .. } => {
                operands.push(r#use(*rs));
                address.operands(operands);
            }
            Inst::LoadPair { rd, address, keep } => {
                operands.extend(rd.map(def));
                match *address {
                    PairAddress::Offset(base, _) if *keep => operands.push(late(base)),
                    PairAddress::Offset(base, _) => operands.push(r#use(base)),
                    PairAddress::Post(base, moved, _) => {
                        operands.extend([Operand::reg_reuse_def(moved, 3), r#use(base)]);
                    }
                    PairAddress::Slot(_) => {}
                }
            }
            Inst::StorePair { rs, address } => {
                operands.extend(rs.map(r#use));
                match *address {
                    PairAddress::Offset(base, _) => operands.push(r#use(base)),
                    PairAddress::Post(base, moved, _) => {
                        operands.extend([Operand::reg_reuse_def(moved, 3), r#use(base)]);
                    }
                    PairAddress::Slot(_) => {}
                }
            }
            // rd may be written only after the flags are set: its definition is late already.
            Inst::Set { test, rd, .. } => {
                operands.push(def(*rd));
                test.operands(operands);
            }
            Inst::Select { test, moves, .. } => {
                // The second result cannot reuse a register as well: regalloc2 keeps track of one.
                for (at, Choice { rd, no, .. }) in moves.iter().enumerate() {
                    if at == 0 {
                        operands.extend([Operand::reg_reuse_def(*rd, 1), r#use(*no)]);
                    } else {
                        operands.extend([def(*rd), late(*no)]);
                    }
                }
                for Choice { yes, .. } in moves {
                    if let Source::Reg(yes) = yes {
                        operands.push(late(*yes));
                    }
                }
                test.operands(operands);
            }
            Inst::FloatMulAdd { rd, acc, rn, rm, .. } => {
                operands.extend([Operand::reg_reuse_def(*rd, 1), r#use(*acc), late(*rn), late(*rm)]);
            }
            Inst::Call { callee, uses, defs, .. } => {
                if let Callee::Register(register) = callee {
                    operands.push(r#use(*register));
                }
                operands.extend(uses.iter().map(|(v, p)| Operand::reg_fixed_use(*v, *p)));
                operands.extend(defs.iter().map(|(v, p)| Operand::reg_fixed_def(*v, *p)));
            }
            Inst::Branch { test, .. } => test.operands(operands),
            Inst::Return(values) => operands.extend(values.iter().map(|(v, p)| Operand::reg_fixed_use(*v, *p))),
            Inst::Trap => {}
        }
    }

    fn clobbers(&self) -> PRegSet {
        match self {
            Inst::Call { clobbers, defs, .. } => {
                let mut clobbers = *clobbers;
                for (_, register) in defs {
                    clobbers.remove(*register);
                }
                clobbers
            }
            _ => PRegSet::empty(),
        }
    }
}

/// Core register.
pub const fn r(number: usize) -> PReg {
    PReg::new(number, RegClass::Int)
}

/// Single-precision register.
pub const fn s(number: usize) -> PReg {
    PReg::new(number, RegClass::Float)
}
