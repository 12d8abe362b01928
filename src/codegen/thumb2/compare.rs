//! Rules of Thumb-2 for conditions: comparisons, the flags that counters set, and what depends on them.

use super::encode::{self, Alu, Cond, modified_immediate};
use super::float;
use super::inst::{Choice, Inst, Rhs, Source, Test};
use super::select::Rules;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, InstructionData, Opcode, Value, types};
use regalloc2::VReg;

/// The condition code of an integer comparison.
pub(super) fn condition(cond: IntCC) -> Cond {
    match cond {
        IntCC::Equal => Cond::Eq,
        IntCC::NotEqual => Cond::Ne,
        IntCC::SignedLessThan => Cond::Lt,
        IntCC::SignedGreaterThanOrEqual => Cond::Ge,
        IntCC::SignedGreaterThan => Cond::Gt,
        IntCC::SignedLessThanOrEqual => Cond::Le,
        IntCC::UnsignedLessThan => Cond::Lo,
        IntCC::UnsignedGreaterThanOrEqual => Cond::Hs,
        IntCC::UnsignedGreaterThan => Cond::Hi,
        IntCC::UnsignedLessThanOrEqual => Cond::Ls,
    }
}

/// Whether CMP or CMN takes it.
pub(super) fn comparable(value: u32) -> bool {
    modified_immediate(value).is_some() || (value != 0 && modified_immediate(value.wrapping_neg()).is_some())
}

impl Rules<'_, '_> {
    /// The condition after SUBS or ADDS for a branch that depends on what a counter becomes in this block, if nothing
    /// else here looks at it before the branch. Emits the instruction.
    pub fn counted(&mut self, condition: Value) -> Option<Cond> {
        let terminator = self.s.current()?;
        let block = self.s.func.layout.inst_block(terminator)?;
        let here = |rules: &Self, inst: ir::Inst| rules.s.func.layout.inst_block(inst) == Some(block);
        let (counter, cond) = match self.s.def(condition)? {
            (inst, InstructionData::IntCompare { args: [a, b], cond, .. })
                if self.s.constant(b) == Some(0) && here(self, inst) && self.s.only_use(condition) =>
            {
                let cond = match cond {
                    IntCC::Equal => Cond::Eq,
                    IntCC::NotEqual => Cond::Ne,
                    IntCC::SignedLessThan => Cond::Mi,
                    IntCC::SignedGreaterThanOrEqual => Cond::Pl,
                    _ => return None,
                };
                (a, cond)
            }
            _ => (condition, Cond::Ne),
        };
        let compare = self
            .s
            .func
            .dfg
            .value_def(self.s.func.dfg.resolve_aliases(condition))
            .inst();
        let (inst, InstructionData::Binary { opcode, args: [a, b] }) = self.s.def(counter)? else {
            return None;
        };
        let op = match opcode {
            Opcode::Iadd => Alu::Add,
            Opcode::Isub => Alu::Sub,
            _ => return None,
        };
        if self.s.ty(counter) != types::I32 || !here(self, inst) {
            return None;
        }
        // Other uses in this block must be those of the edges.
        let others = self.s.uses_here(counter);
        if others
            .into_iter()
            .any(|user| user != terminator && Some(user) != compare)
        {
            return None;
        }
        let constant = self.constant(b)?;
        let (op, imm) = if (constant as i32) < 0 && modified_immediate(constant.wrapping_neg()).is_some() {
            (
                if op == Alu::Add { Alu::Sub } else { Alu::Add },
                constant.wrapping_neg(),
            )
        } else {
            (op, constant)
        };
        modified_immediate(imm)?;
        self.s.consume(inst);
        let [rd, rn] = [counter, a].map(|value| self.s.reg(value));
        self.s.emit(Inst::AluImmFlags { op, rd, rn, imm });
        Some(cond)
    }

    /// The test and condition that hold if an integer is not zero.
    pub fn truth(&mut self, value: Value) -> (Test, Cond) {
        match self.s.def(value) {
            Some((_, InstructionData::IntCompare { args: [a, b], cond, .. })) => self.compare(a, b, cond),
            Some((_, InstructionData::FloatCompare { args: [a, b], cond, .. }))
                if self.isa.core.fpu && float::condition(cond).is_some() =>
            {
                let condition = float::condition(cond).unwrap_or(Cond::Eq);
                let [a, b] = [a, b].map(|value| self.s.reg(value));
                (Test::Floats(a, b), condition)
            }
            _ if self.s.ty(value) == types::I64 => {
                let [low, high] = self.s.pair(value);
                let any = self.s.int();
                self.alu(Alu::Orr, any, low, high);
                (Test::Words(any, Rhs::Imm(0)), Cond::Ne)
            }
            _ => {
                let register = self.extended(value, false);
                (Test::Words(register, Rhs::Imm(0)), Cond::Ne)
            }
        }
    }

    pub fn compare(&mut self, a: Value, b: Value, cond: IntCC) -> (Test, Cond) {
        if self.s.ty(a) == types::I64 {
            return self.compare_pairs(a, b, cond);
        }
        let signed = !matches!(
            cond,
            IntCC::UnsignedLessThan
                | IntCC::UnsignedGreaterThanOrEqual
                | IntCC::UnsignedGreaterThan
                | IntCC::UnsignedLessThanOrEqual
        );
        let left = self.extended(a, signed);
        let mask = if self.s.ty(b) == types::I32 || signed {
            u32::MAX
        } else {
            (1 << self.s.ty(b).bits()) - 1
        };
        let right = match self
            .constant(b)
            .map(|constant| constant & mask)
            .filter(|c| comparable(*c))
        {
            Some(constant) => Rhs::Imm(constant as i32),
            None => Rhs::Reg(self.extended(b, signed)),
        };
        (Test::Words(left, right), condition(cond))
    }

    /// rd = test holds ? yes : no. A constant is moved in from the instruction.
    pub fn choose(&mut self, rd: VReg, test: Test, cond: Cond, yes: Value, no: Value) {
        let movable = |rules: &Self, value: Value| rules.constant(value).filter(|c| encode::one_instruction(*c));
        let (cond, yes, no) = if movable(self, no).is_some() && movable(self, yes).is_none() {
            (cond.invert(), no, yes)
        } else {
            (cond, yes, no)
        };
        let yes = match movable(self, yes) {
            Some(constant) => Source::Imm(constant),
            None => Source::Reg(self.s.reg(yes)),
        };
        let no = self.s.reg(no);
        self.s.emit(Inst::Select {
            test,
            cond,
            moves: vec![Choice { rd, yes, no }],
        });
    }
}
