//! RV32 instructions over virtual registers.

use crate::codegen::native::vcode::MachineInst;
use regalloc2::{Operand, PReg, PRegSet, RegClass, VReg};

/// A comparison that a branch or a select tests: `a <funct3> b`, `b` absent is zero.
#[derive(Clone, Copy, Debug)]
pub struct Compare {
    /// funct3 of the branch instruction.
    pub funct3: u32,
    /// Left operand.
    pub a: VReg,
    /// Right operand; `None` is x0.
    pub b: Option<VReg>,
}

/// An instruction. Word fields hold the opcode and function bits of the encoding, registers and immediates clear.
#[derive(Clone, Debug)]
pub enum Inst {
    /// Arguments arrive in registers.
    Entry(Vec<(VReg, PReg)>),
    /// Incoming stack argument, by the bits of its load.
    LoadArgument { bits: u32, rd: VReg, offset: u32 },
    /// Outgoing stack argument, by the bits of its store.
    StoreArgument { bits: u32, rs: VReg, offset: u32 },
    /// 32-bit constant: one or two instructions.
    Li { rd: VReg, value: i32 },
    /// Address of a symbol: LUI and ADDI with relocations.
    Address { rd: VReg, symbol: u32, offset: i64 },
    /// Address within the stack slots.
    SlotAddress { rd: VReg, offset: u32 },
    /// Copy of an integer register.
    Move { rd: VReg, rs: VReg },
    /// rd = rs1 op rs2; `rs2` absent is x0 (or a field of `bits`).
    R {
        bits: u32,
        rd: VReg,
        rs1: VReg,
        rs2: Option<VReg>,
    },
    /// rd = 0 op rs2.
    FromZero { bits: u32, rd: VReg, rs2: VReg },
    /// rd = ±(rs1 × rs2) ± rs3 in one rounding.
    R4 {
        bits: u32,
        rd: VReg,
        rs1: VReg,
        rs2: VReg,
        rs3: VReg,
    },
    /// rd = rs1 op imm, and loads.
    I { bits: u32, rd: VReg, rs1: VReg, imm: i32 },
    /// Stores of `rs` (`None` is x0).
    S {
        bits: u32,
        rs: Option<VReg>,
        base: VReg,
        imm: i32,
    },
    /// rd = compare ? yes : no, by a branch over a move.
    Select {
        compare: Compare,
        rd: VReg,
        yes: VReg,
        no: VReg,
    },
    /// Call of a symbol, or through a register.
    Call {
        callee: Callee,
        uses: Vec<(VReg, PReg)>,
        defs: Vec<(VReg, PReg)>,
        clobbers: PRegSet,
    },
    /// Branch if the comparison holds.
    Branch(Compare),
    /// Return with values in registers.
    Return(Vec<(VReg, PReg)>),
    /// EBREAK.
    Trap,
}

/// What is called.
#[derive(Clone, Copy, Debug)]
pub enum Callee {
    /// Index of the symbol.
    Symbol(u32),
    /// An address.
    Register(VReg),
}

impl Compare {
    fn operands(&self, operands: &mut Vec<Operand>) {
        operands.push(Operand::reg_use(self.a));
        operands.extend(self.b.map(Operand::reg_use));
    }
}

impl MachineInst for Inst {
    fn operands(&self, operands: &mut Vec<Operand>) {
        let (r#use, def) = (Operand::reg_use, Operand::reg_def);
        match self {
            Inst::Entry(args) => operands.extend(args.iter().map(|(v, p)| Operand::reg_fixed_def(*v, *p))),
            Inst::LoadArgument { rd, .. }
            | Inst::Li { rd, .. }
            | Inst::Address { rd, .. }
            | Inst::SlotAddress { rd, .. } => operands.push(def(*rd)),
            Inst::StoreArgument { rs, .. } => operands.push(r#use(*rs)),
            Inst::Move { rd, rs } => operands.extend([def(*rd), r#use(*rs)]),
            Inst::R { rd, rs1, rs2, .. } => {
                operands.extend([def(*rd), r#use(*rs1)]);
                operands.extend(rs2.map(r#use));
            }
            Inst::FromZero { rd, rs2, .. } => operands.extend([def(*rd), r#use(*rs2)]),
            Inst::R4 { rd, rs1, rs2, rs3, .. } => {
                operands.extend([def(*rd), r#use(*rs1), r#use(*rs2), r#use(*rs3)]);
            }
            Inst::I { rd, rs1, .. } => operands.extend([def(*rd), r#use(*rs1)]),
            Inst::S { rs, base, .. } => {
                operands.push(r#use(*base));
                operands.extend(rs.map(r#use));
            }
            Inst::Select { compare, rd, yes, no } => {
                // rd starts as `no`; everything else must outlive its definition.
                operands.extend([
                    Operand::reg_reuse_def(*rd, 1),
                    r#use(*no),
                    Operand::reg_use_at_end(*yes),
                ]);
                operands.push(Operand::reg_use(compare.a));
                operands.extend(compare.b.map(Operand::reg_use));
            }
            Inst::Call { callee, uses, defs, .. } => {
                if let Callee::Register(register) = callee {
                    operands.push(r#use(*register));
                }
                operands.extend(uses.iter().map(|(v, p)| Operand::reg_fixed_use(*v, *p)));
                operands.extend(defs.iter().map(|(v, p)| Operand::reg_fixed_def(*v, *p)));
            }
            Inst::Branch(compare) => compare.operands(operands),
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

/// Integer register.
pub const fn x(number: usize) -> PReg {
    PReg::new(number, RegClass::Int)
}

/// Float register.
pub const fn f(number: usize) -> PReg {
    PReg::new(number, RegClass::Float)
}
