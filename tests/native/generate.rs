//! A program for every seed.

use crate::program::{Condition, Pick, Place, Program, Step, Walk};
use crate::random::Random;
use corerope::intrinsic;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{Opcode, Type, types};

/// What programs for a target may contain.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Arithmetic on floats.
    pub floats: bool,
    /// Fused multiply-add and square roots.
    pub fused: bool,
    /// Two 64-bit results.
    pub quads: bool,
    /// Nothing that depends on data but selects and what they turn into, and no calls through pointers: how often each
    /// block runs is known.
    pub straight: bool,
}

const NARROW: &[Type] = &[types::I8, types::I16];
const INTEGERS: &[Type] = &[
    types::I32,
    types::I32,
    types::I32,
    types::I32,
    types::I32,
    types::I32,
    types::I8,
    types::I16,
    types::I64,
    types::I64,
];
const CONDITIONS: &[IntCC] = &[
    IntCC::Equal,
    IntCC::NotEqual,
    IntCC::SignedLessThan,
    IntCC::SignedLessThanOrEqual,
    IntCC::SignedGreaterThan,
    IntCC::SignedGreaterThanOrEqual,
    IntCC::UnsignedLessThan,
    IntCC::UnsignedLessThanOrEqual,
    IntCC::UnsignedGreaterThan,
    IntCC::UnsignedGreaterThanOrEqual,
];
const FLOAT_CONDITIONS: &[FloatCC] = &[
    FloatCC::Equal,
    FloatCC::NotEqual,
    FloatCC::LessThan,
    FloatCC::LessThanOrEqual,
    FloatCC::GreaterThan,
    FloatCC::GreaterThanOrEqual,
    FloatCC::Ordered,
    FloatCC::Unordered,
    FloatCC::UnorderedOrLessThan,
    FloatCC::UnorderedOrLessThanOrEqual,
    FloatCC::OrderedNotEqual,
    FloatCC::UnorderedOrEqual,
    FloatCC::UnorderedOrGreaterThan,
    FloatCC::UnorderedOrGreaterThanOrEqual,
];
/// Steps that one call may run, about.
const BUDGET: u64 = 6000;

/// The program of a seed. It calls some of `earlier`, which have the numbers 0 and up.
pub fn program(seed: u64, options: Options, earlier: &[Program]) -> Program {
    let mut random = Random::new(seed);
    let ty = |random: &mut Random| {
        if random.one_in(4) {
            types::F32
        } else {
            random.among(INTEGERS)
        }
    };
    let params = (0..random.among(&[0, 1, 2, 3, 4, 5, 6, 8, 11]))
        .map(|_| ty(&mut random))
        .collect();
    let results = match random.below(7) {
        0 => vec![],
        1 if options.quads => vec![types::I64; 2],
        2 => vec![types::F32],
        5 => vec![types::I64],
        3 => vec![random.among(&[types::I8, types::I16, types::I32])],
        4 => vec![
            random.among(&[types::I8, types::I16, types::I32]),
            random.among(&[types::I32, types::F32]),
        ],
        _ => vec![types::I32],
    };
    let slots = (0..random.below(3))
        .map(|_| random.among(&[8, 12, 24, 64, 160, 160, 1300, 5000]))
        .collect();
    let size = random.among(&[3, 8, 15, 15, 30, 30, 60, 120]) * if random.one_in(25) { 4 } else { 1 };
    let mixed = random.among(&[1, 4, 8, 16, 40]);
    let mut maker = Maker {
        random,
        options,
        earlier,
        runs: 1,
        spent: 0,
    };
    let steps = maker.steps(size, 0);
    Program {
        seed,
        text: None,
        params,
        results,
        slots,
        steps,
        mixed,
        floats: options.floats,
        cost: maker.spent + 10,
    }
}

struct Maker<'a> {
    random: Random,
    options: Options,
    earlier: &'a [Program],
    /// How often the steps at hand run.
    runs: u64,
    spent: u64,
}

impl Maker<'_> {
    fn pick(&mut self) -> Pick {
        match self.random.below(4) {
            0 => 0,
            1 | 2 => self.random.below(8) as u32,
            _ => self.random.next() as u32 & 0xffff,
        }
    }

    fn picks<const N: usize>(&mut self) -> [Pick; N] {
        std::array::from_fn(|_| self.pick())
    }

    fn steps(&mut self, size: usize, depth: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        while steps.len() < size {
            if depth < 3 && self.random.one_in(14) {
                let inner = 1 + self.random.below(size.min(20));
                let step = if self.options.straight || self.random.one_in(2) {
                    self.repeat(inner, depth)
                } else {
                    self.branch(inner, depth)
                };
                steps.push(step);
            } else if self.random.one_in(8) {
                self.idiom(&mut steps);
            } else {
                steps.extend(self.step());
            }
            self.spent += self.runs;
        }
        steps
    }

    fn joined(&mut self) -> Vec<(Type, Pick, Pick)> {
        (0..self.random.among(&[0, 1, 2, 3, 6, 12]))
            .map(|_| {
                let ty = if self.random.one_in(4) {
                    types::F32
                } else {
                    self.random.among(INTEGERS)
                };
                (ty, self.pick(), self.pick())
            })
            .collect()
    }

    fn repeat(&mut self, size: usize, depth: usize) -> Step {
        let count = self.random.among(&[1, 2, 3, 5, 8]);
        let runs = self.runs;
        self.runs *= u64::from(count);
        let body = self.steps(size, depth + 1);
        self.runs = runs;
        let walk = self.random.one_in(2).then(|| Walk {
            area: self.pick(),
            step: match self.random.below(3) {
                0 => self.random.among(&[1, 2, 3, 5, -1, -3]),
                1 => self.random.among(&[4, 8, 12, 16, -4, -8]),
                _ => self.random.among(&[8, 16, -16]),
            },
            counts: self.random.one_in(2),
        });
        Step::Loop {
            count,
            walk,
            carried: self.joined(),
            body,
        }
    }

    fn branch(&mut self, size: usize, depth: usize) -> Step {
        let condition = self.condition();
        let then = self.steps(size, depth + 1);
        let or = if self.random.one_in(3) {
            Vec::new()
        } else {
            self.steps(size, depth + 1)
        };
        Step::If {
            condition,
            then,
            or,
            joined: self.joined(),
        }
    }

    fn condition(&mut self) -> Condition {
        let [a, b] = self.picks();
        let ty = self.random.among(INTEGERS);
        let cond = self.random.among(CONDITIONS);
        match self.random.below(8) {
            0 => Condition::Value { ty, a },
            1 | 2 if self.options.floats => Condition::Floats {
                cond: self.random.among(FLOAT_CONDITIONS),
                a,
                b,
            },
            3 | 4 => Condition::Constant {
                ty,
                cond,
                a,
                b: self.random.interesting(),
            },
            _ => Condition::Integers { ty, cond, a, b },
        }
    }

    fn place(&mut self) -> Place {
        let index = self
            .random
            .one_in(4)
            .then(|| (self.pick(), self.random.below(4) as u32));
        let bias = match self.random.below(8) {
            0 => self.random.interesting() as i32 >> 4,
            1 => self.random.among(&[
                -4, 255, -255, 256, -256, 1020, 1024, -1020, 2047, 2048, -2048, 4095, 4096, -4096,
            ]),
            _ => 0,
        };
        Place {
            area: self.pick(),
            offset: self.random.next() as u32,
            index,
            bias,
            aligned: self.random.one_in(2),
        }
    }

    /// Steps that belong together, so that rules that fold several instructions meet their pattern.
    fn idiom(&mut self, steps: &mut Vec<Step>) {
        let signed = self.random.one_in(2);
        let extend = if signed { Opcode::Sextend } else { Opcode::Uextend };
        let [a, b] = self.picks();
        let widened = |a| Step::Convert {
            op: extend,
            from: types::I32,
            to: types::I64,
            a,
        };
        let immediate = |op, ty, constant| Step::Immediate {
            op,
            ty,
            a: 0,
            constant,
            first: false,
        };
        match self.random.below(6) {
            // Words side by side.
            5 => {
                let place = Place {
                    index: None,
                    aligned: true,
                    ..self.place()
                };
                let offset = place.offset & 0xfff8;
                let load = self.random.one_in(2);
                let second = if self.random.one_in(2) { [0, 4] } else { [4, 0] };
                for at in second {
                    // The first access may wait for the second while others run.
                    if at != second[0] && self.random.one_in(2) {
                        for _ in 0..1 + self.random.below(4) {
                            steps.extend(self.step());
                        }
                    }
                    let place = Place {
                        offset: offset + at,
                        ..place.clone()
                    };
                    steps.push(if load {
                        Step::Load {
                            op: Opcode::Load,
                            ty: types::I32,
                            place,
                        }
                    } else {
                        Step::Store {
                            op: Opcode::Store,
                            ty: types::I32,
                            value: self.pick(),
                            place,
                        }
                    });
                }
            }
            // A fixed-point product.
            0 => {
                let amount = self.random.below(64) as i64;
                steps.extend([
                    widened(a),
                    widened(b),
                    Step::Binary {
                        op: Opcode::Imul,
                        ty: types::I64,
                        a: 0,
                        b: 1,
                    },
                ]);
                if self.random.one_in(2) {
                    steps.push(immediate(Opcode::Iadd, types::I64, 1 << self.random.below(62)));
                }
                let op = self.random.among(&[Opcode::Sshr, Opcode::Ushr]);
                steps.push(immediate(op, types::I64, amount));
                steps.push(Step::Convert {
                    op: Opcode::Ireduce,
                    from: types::I64,
                    to: types::I32,
                    a: 0,
                });
            }
            // A wide multiply-accumulate.
            1 => steps.extend([
                widened(a),
                widened(b),
                Step::Binary {
                    op: Opcode::Imul,
                    ty: types::I64,
                    a: 0,
                    b: 1,
                },
                Step::Binary {
                    op: Opcode::Iadd,
                    ty: types::I64,
                    a: if signed { 0 } else { 3 },
                    b: if signed { 3 } else { 0 },
                },
            ]),
            // A clamp.
            2 => {
                if self.random.one_in(2) {
                    steps.push(Step::Immediate {
                        op: Opcode::Sshr,
                        ty: types::I32,
                        a,
                        constant: self.random.below(32) as i64,
                        first: false,
                    });
                }
                let high = (1i64 << (1 + self.random.below(31))) - 1;
                let low = if signed { -high - 1 } else { 0 };
                let (first, second) = ((Opcode::Smax, low), (Opcode::Smin, high));
                let (first, second) = if self.random.one_in(2) {
                    (second, first)
                } else {
                    (first, second)
                };
                steps.extend([
                    immediate(first.0, types::I32, first.1),
                    immediate(second.0, types::I32, second.1),
                ]);
            }
            // A product added or subtracted.
            3 => {
                let ty = self.random.among(INTEGERS);
                let op = self.random.among(&[Opcode::Iadd, Opcode::Isub]);
                let (a2, b2) = if self.random.one_in(2) { (0, b) } else { (b, 0) };
                steps.extend([
                    Step::Binary {
                        op: Opcode::Imul,
                        ty,
                        a,
                        b,
                    },
                    Step::Binary { op, ty, a: a2, b: b2 },
                ]);
            }
            // A shifted operand.
            _ => {
                let ty = self.random.among(INTEGERS);
                let shift = self.random.among(&[Opcode::Ishl, Opcode::Ushr, Opcode::Sshr]);
                let op = self
                    .random
                    .among(&[Opcode::Iadd, Opcode::Isub, Opcode::Band, Opcode::Bor, Opcode::Bxor]);
                let constant = self.random.below(64) as i64;
                let (a2, b2) = if self.random.one_in(2) { (0, b) } else { (b, 0) };
                steps.extend([
                    Step::Immediate {
                        op: shift,
                        ty,
                        a,
                        constant,
                        first: false,
                    },
                    Step::Binary { op, ty, a: a2, b: b2 },
                ]);
            }
        }
    }

    fn step(&mut self) -> Option<Step> {
        let [a, b, c] = self.picks();
        let ty = self.random.among(INTEGERS);
        Some(match self.random.below(40) {
            0 => Step::Constant {
                ty,
                bits: self.random.interesting(),
            },
            1 => Step::Constant {
                ty: types::F32,
                bits: i64::from(self.random.float()),
            },
            2..=8 => {
                let op = self.random.among(&[
                    Opcode::Iadd,
                    Opcode::Iadd,
                    Opcode::Isub,
                    Opcode::Imul,
                    Opcode::Band,
                    Opcode::Bor,
                    Opcode::Bxor,
                    Opcode::Smin,
                    Opcode::Smax,
                    Opcode::Umin,
                    Opcode::Umax,
                ]);
                Step::Binary { op, ty, a, b }
            }
            9..=13 => {
                let op = self.random.among(&[
                    Opcode::Iadd,
                    Opcode::Isub,
                    Opcode::Imul,
                    Opcode::Band,
                    Opcode::Bor,
                    Opcode::Bxor,
                    Opcode::Smin,
                    Opcode::Smax,
                    Opcode::Umin,
                    Opcode::Umax,
                    Opcode::Ishl,
                    Opcode::Ushr,
                    Opcode::Sshr,
                    Opcode::Ishl,
                    Opcode::Ushr,
                    Opcode::Sshr,
                ]);
                let shift = matches!(op, Opcode::Ishl | Opcode::Ushr | Opcode::Sshr);
                let constant = if shift {
                    self.random.below(72) as i64
                } else {
                    self.random.interesting()
                };
                Step::Immediate {
                    op,
                    ty,
                    a,
                    constant,
                    first: self.random.one_in(4),
                }
            }
            14 | 15 => {
                let op = self.random.among(&[Opcode::Ishl, Opcode::Ushr, Opcode::Sshr]);
                Step::Shift {
                    op,
                    ty,
                    a,
                    by: self.random.among(INTEGERS),
                    amount: b,
                }
            }
            16 => {
                let op = self.random.among(&[Opcode::Rotl, Opcode::Rotr]);
                let ty = if self.random.one_in(2) { types::I32 } else { ty };
                if self.random.one_in(2) {
                    Step::Immediate {
                        op,
                        ty,
                        a,
                        constant: self.random.below(72) as i64,
                        first: false,
                    }
                } else {
                    Step::Binary { op, ty, a, b }
                }
            }
            17 => Step::Binary {
                op: self.random.among(&[Opcode::Smulhi, Opcode::Umulhi]),
                ty: self
                    .random
                    .among(&[types::I32, types::I32, types::I32, types::I16, types::I64]),
                a,
                b,
            },
            18 => {
                let op = self
                    .random
                    .among(&[Opcode::Sdiv, Opcode::Udiv, Opcode::Srem, Opcode::Urem]);
                let ty = self.random.among(&[types::I32, types::I32, types::I16, types::I8]);
                let divisor = self.random.interesting();
                // Neither 0 nor −1 in any type.
                Step::Immediate {
                    op,
                    ty,
                    a,
                    constant: ((divisor & 0x7f) + 1) | (divisor & !0xff),
                    first: false,
                }
            }
            19 | 20 => {
                let op = self.random.among(&[
                    Opcode::Ineg,
                    Opcode::Ineg,
                    Opcode::Bnot,
                    Opcode::Bnot,
                    Opcode::Iabs,
                    Opcode::Iabs,
                    Opcode::Clz,
                    Opcode::Clz,
                    Opcode::Bitrev,
                    Opcode::Ctz,
                    Opcode::Cls,
                    Opcode::Popcnt,
                    Opcode::Bswap,
                    Opcode::Bmask,
                ]);
                let ty = match op {
                    Opcode::Bswap if ty == types::I8 => types::I16,
                    // Cranelift's x86-64 has no rule for narrow ones.
                    Opcode::Cls => self.random.among(&[types::I32, types::I64]),
                    _ => ty,
                };
                Step::Unary { op, ty, a }
            }
            21 | 22 => {
                let op = self.random.among(&[Opcode::Sextend, Opcode::Uextend]);
                let from = self.random.among(&[types::I8, types::I16, types::I32]);
                let to = match from {
                    types::I8 => self.random.among(&[types::I16, types::I32, types::I32, types::I64]),
                    types::I16 => self.random.among(&[types::I32, types::I32, types::I64]),
                    _ => types::I64,
                };
                Step::Convert { op, from, to, a }
            }
            23 => {
                let from = self.random.among(&[types::I64, types::I64, types::I32, types::I16]);
                let to = match from {
                    types::I64 => self.random.among(&[types::I32, types::I32, types::I16, types::I8]),
                    types::I32 => self.random.among(NARROW),
                    _ => types::I8,
                };
                Step::Convert {
                    op: Opcode::Ireduce,
                    from,
                    to,
                    a,
                }
            }
            24 => Step::Set {
                condition: self.condition(),
            },
            25 | 26 => {
                let ty = if self.random.one_in(4) { types::F32 } else { ty };
                Step::Select {
                    condition: self.condition(),
                    ty,
                    yes: a,
                    no: b,
                }
            }
            27 => Step::Ternary {
                op: Opcode::Bitselect,
                ty: self.random.among(&[types::I32, types::I16, types::I8, types::I64]),
                picks: [a, b, c],
            },
            28 | 29 => {
                let place = self.place();
                let (op, ty) = match self.random.below(10) {
                    0 => (Opcode::Load, types::F32),
                    1..=4 => (Opcode::Load, ty),
                    5 => (self.random.among(&[Opcode::Sload32, Opcode::Uload32]), types::I64),
                    _ => (
                        self.random
                            .among(&[Opcode::Sload8, Opcode::Uload8, Opcode::Sload16, Opcode::Uload16]),
                        self.random.among(&[types::I32, types::I32, types::I64]),
                    ),
                };
                Step::Load { op, ty, place }
            }
            30 | 31 => {
                let place = self.place();
                let (op, ty) = match self.random.below(8) {
                    0 => (Opcode::Store, types::F32),
                    1..=4 => (Opcode::Store, ty),
                    5 => (Opcode::Istore32, types::I64),
                    _ => (
                        self.random.among(&[Opcode::Istore8, Opcode::Istore16]),
                        self.random.among(&[types::I32, types::I32, types::I64]),
                    ),
                };
                Step::Store {
                    op,
                    ty,
                    value: a,
                    place,
                }
            }
            32 => Step::Table {
                ty: self
                    .random
                    .among(&[types::I32, types::I32, types::F32, types::I64, types::I8]),
                symbol: match self.random.below(4) {
                    0 => self
                        .random
                        .among(&[32764, 32768, 32772, 100_000, -32768, -32772, -100_000]),
                    _ => self.random.below(6) as i32 * 4,
                },
                offset: self.random.below(8) as u32 * 4,
            },
            33 => {
                if self.earlier.is_empty() {
                    return None;
                }
                let callee = self.random.below(self.earlier.len());
                let cost = self.runs * self.earlier[callee].cost;
                if self.spent + cost > BUDGET {
                    return None;
                }
                self.spent += cost;
                let args = self.earlier[callee].params.iter().map(|_| self.pick()).collect();
                let indirect = !self.options.straight && self.random.one_in(4);
                Step::Call { callee, indirect, args }
            }
            34 | 35 => Step::Intrinsic {
                which: self.random.among(intrinsic::ALL),
                args: [a, b, c],
            },
            36 => match self.random.below(4) {
                0 => Step::Unary {
                    op: self.random.among(&[Opcode::Fneg, Opcode::Fabs]),
                    ty: types::F32,
                    a,
                },
                1 => Step::Convert {
                    op: Opcode::Bitcast,
                    from: types::I32,
                    to: types::F32,
                    a,
                },
                _ => Step::Convert {
                    op: Opcode::Bitcast,
                    from: types::F32,
                    to: types::I32,
                    a,
                },
            },
            _ if !self.options.floats => return None,
            37 => match self.random.below(4) {
                0 => Step::Unary {
                    op: self.random.among(&[
                        if self.options.fused { Opcode::Sqrt } else { Opcode::Fneg },
                        Opcode::Trunc,
                        Opcode::Floor,
                        Opcode::Ceil,
                        Opcode::Nearest,
                    ]),
                    ty: types::F32,
                    a,
                },
                1 | 2 => Step::Convert {
                    op: self.random.among(&[Opcode::FcvtFromSint, Opcode::FcvtFromUint]),
                    from: self.random.among(&[types::I32, types::I32, types::I16, types::I8]),
                    to: types::F32,
                    a,
                },
                _ => Step::Convert {
                    op: self.random.among(&[Opcode::FcvtToSintSat, Opcode::FcvtToUintSat]),
                    from: types::F32,
                    to: self.random.among(&[types::I32, types::I32, types::I16, types::I8]),
                    a,
                },
            },
            38 if self.options.fused => Step::Ternary {
                op: Opcode::Fma,
                ty: types::F32,
                picks: [a, b, c],
            },
            _ => {
                let op = self.random.among(&[
                    Opcode::Fadd,
                    Opcode::Fadd,
                    Opcode::Fsub,
                    Opcode::Fsub,
                    Opcode::Fmul,
                    Opcode::Fmul,
                    Opcode::Fdiv,
                    Opcode::Fmin,
                    Opcode::Fmax,
                    Opcode::Fcopysign,
                ]);
                Step::Binary {
                    op,
                    ty: types::F32,
                    a,
                    b,
                }
            }
        })
    }
}
