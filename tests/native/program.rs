//! Random programs as data, so that a failing one can be made smaller by leaving steps out.
//!
//! A step names its operands by how recently they were defined ([`Pick`]), never by identity: any subset of the steps is
//! a program again.

use corerope::intrinsic::Intrinsic;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{Opcode, Type};

/// Bytes that every program works on.
pub const BUFFER: usize = 512;
/// Where in the buffer the arguments of a program lie, 8 bytes each.
pub const ARGUMENTS: i32 = 0;
/// Where the results go.
pub const RESULTS: i32 = 128;
/// Where loads and stores go, to the end.
pub const SCRATCH: i32 = 192;
/// Words of the constant table that programs read through a symbol.
pub const TABLE: [u32; 16] = [
    0,
    1,
    0xffff_ffff,
    0x8000_0000,
    0x7fff_ffff,
    127,
    0xffff_ff80,
    0x0000_8000,
    0x3f80_0000,
    0xbf00_0000,
    0x7f80_0000,
    0x1234_5678,
    0x00ff_00ff,
    0x4b00_0000,
    0xc2f7_0000,
    0x0001_0000,
];

/// An operand: the value defined this many definitions of its type ago, modulo how many there are.
pub type Pick = u32;

/// What a branch or a select depends on.
#[derive(Clone, Debug)]
pub enum Condition {
    Integers { ty: Type, cond: IntCC, a: Pick, b: Pick },
    Constant { ty: Type, cond: IntCC, a: Pick, b: i64 },
    Floats { cond: FloatCC, a: Pick, b: Pick },
    Value { ty: Type, a: Pick },
}

/// An address within one of the areas that a program may access.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which area.
    pub area: Pick,
    /// Offset in bytes, modulo what the area allows.
    pub offset: u32,
    /// An index, masked to 0 to 7, and its shift.
    pub index: Option<(Pick, u32)>,
    /// Added to the pointer before and subtracted from the offset, so that offsets of any size occur.
    pub bias: i32,
    /// Whether the access is at a multiple of its size and says so, where the area allows.
    pub aligned: bool,
}

/// A pointer that moves in a loop.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// The area that it walks through.
    pub area: Pick,
    /// Bytes that it moves in each round.
    pub step: i32,
    /// Whether the loop ends when the pointer is where it should end; else a counter runs.
    pub counts: bool,
}

#[derive(Clone, Debug)]
pub enum Step {
    Constant {
        ty: Type,
        bits: i64,
    },
    Unary {
        op: Opcode,
        ty: Type,
        a: Pick,
    },
    Convert {
        op: Opcode,
        from: Type,
        to: Type,
        a: Pick,
    },
    Binary {
        op: Opcode,
        ty: Type,
        a: Pick,
        b: Pick,
    },
    /// The constant is the second operand, or the first.
    Immediate {
        op: Opcode,
        ty: Type,
        a: Pick,
        constant: i64,
        first: bool,
    },
    /// The amount has a type of its own.
    Shift {
        op: Opcode,
        ty: Type,
        a: Pick,
        by: Type,
        amount: Pick,
    },
    Ternary {
        op: Opcode,
        ty: Type,
        picks: [Pick; 3],
    },
    Select {
        condition: Condition,
        ty: Type,
        yes: Pick,
        no: Pick,
    },
    Set {
        condition: Condition,
    },
    Load {
        op: Opcode,
        ty: Type,
        place: Place,
    },
    Store {
        op: Opcode,
        ty: Type,
        value: Pick,
        place: Place,
    },
    /// A word of the constant table: the symbol's own offset, and the word's.
    Table {
        ty: Type,
        symbol: i32,
        offset: u32,
    },
    Call {
        callee: usize,
        indirect: bool,
        args: Vec<Pick>,
    },
    Intrinsic {
        which: Intrinsic,
        args: [Pick; 3],
    },
    /// Carried values are named by what they are before the loop and after each round.
    Loop {
        count: u32,
        walk: Option<Walk>,
        carried: Vec<(Type, Pick, Pick)>,
        body: Vec<Step>,
    },
    If {
        condition: Condition,
        then: Vec<Step>,
        or: Vec<Step>,
        joined: Vec<(Type, Pick, Pick)>,
    },
}

/// A function: a pointer to the buffer and arguments in, results out.
#[derive(Clone, Debug)]
pub struct Program {
    pub seed: u64,
    /// The function's text instead of steps; `ptr` stands for the pointer type.
    pub text: Option<String>,
    pub params: Vec<Type>,
    pub results: Vec<Type>,
    /// Bytes of each stack slot.
    pub slots: Vec<u32>,
    pub steps: Vec<Step>,
    /// How many values of each type the results depend on: they are live to the end.
    pub mixed: usize,
    /// Whether floats are computed with, not only moved.
    pub floats: bool,
    /// Steps that a call runs, about.
    pub cost: u64,
}

impl Program {
    /// Number of steps, nested ones included.
    pub fn len(&self) -> usize {
        count(&self.steps)
    }

    /// The program without the steps that `keep` refuses, by their position in program order; a refused loop or branch
    /// leaves its body behind if `splice` says so.
    pub fn filtered(&self, keep: &dyn Fn(usize) -> bool, splice: bool) -> Program {
        let mut position = 0;
        Program {
            steps: filter(&self.steps, keep, splice, &mut position),
            ..self.clone()
        }
    }

    /// Functions that it calls itself.
    pub fn callees(&self) -> Vec<usize> {
        let mut found = Vec::new();
        callees(&self.steps, &mut found);
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Replaces the numbers of the functions it calls.
    pub fn renumber(&mut self, number: &dyn Fn(usize) -> usize) {
        renumber(&mut self.steps, number);
    }
}

fn count(steps: &[Step]) -> usize {
    steps
        .iter()
        .map(|step| {
            1 + match step {
                Step::Loop { body, .. } => count(body),
                Step::If { then, or, .. } => count(then) + count(or),
                _ => 0,
            }
        })
        .sum()
}

fn filter(steps: &[Step], keep: &dyn Fn(usize) -> bool, splice: bool, position: &mut usize) -> Vec<Step> {
    let mut kept = Vec::new();
    for step in steps {
        let wanted = keep(*position);
        *position += 1;
        match step {
            Step::Loop {
                count,
                walk,
                carried,
                body,
            } => {
                let body = filter(body, keep, splice, position);
                match (wanted, splice) {
                    (true, _) => kept.push(Step::Loop {
                        count: *count,
                        walk: *walk,
                        carried: carried.clone(),
                        body,
                    }),
                    (false, true) => kept.extend(body),
                    (false, false) => {}
                }
            }
            Step::If {
                condition,
                then,
                or,
                joined,
            } => {
                let then = filter(then, keep, splice, position);
                let or = filter(or, keep, splice, position);
                match (wanted, splice) {
                    (true, _) => kept.push(Step::If {
                        condition: condition.clone(),
                        then,
                        or,
                        joined: joined.clone(),
                    }),
                    (false, true) => kept.extend(then),
                    (false, false) => {}
                }
            }
            other if wanted => kept.push(other.clone()),
            _ => {}
        }
    }
    kept
}

fn callees(steps: &[Step], found: &mut Vec<usize>) {
    for step in steps {
        match step {
            Step::Call { callee, .. } => found.push(*callee),
            Step::Loop { body, .. } => callees(body, found),
            Step::If { then, or, .. } => {
                callees(then, found);
                callees(or, found);
            }
            _ => {}
        }
    }
}

fn renumber(steps: &mut [Step], number: &dyn Fn(usize) -> usize) {
    for step in steps {
        match step {
            Step::Call { callee, .. } => *callee = number(*callee),
            Step::Loop { body, .. } => renumber(body, number),
            Step::If { then, or, .. } => {
                renumber(then, number);
                renumber(or, number);
            }
            _ => {}
        }
    }
}
