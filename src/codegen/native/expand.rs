//! Operations that a 32-bit core has no instruction for, in terms of those that it has.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{Function, Inst, InstBuilder, InstructionData, MemFlagsData, Opcode, Type, Value, types};

/// Replaces what has no rule of selection. `bits` says whether there are instructions that count the leading zeros of a
/// word and reverse its bits.
pub fn expand(function: &mut Function, bits: bool) {
    let insts: Vec<Inst> = (function.layout.blocks())
        .flat_map(|block| function.layout.block_insts(block))
        .collect();
    for inst in insts {
        let Some(result) = function.dfg.inst_results(inst).first().copied() else {
            continue;
        };
        let cursor = FuncCursor::new(function).at_inst(inst);
        let mut writer = Writer { cursor, bits };
        if let Some(value) = writer.replacement(inst, result) {
            let dfg = &mut writer.cursor.func.dfg;
            dfg.clear_results(inst);
            dfg.change_to_alias(result, value);
            writer.cursor.remove_inst();
        }
    }
}

/// Writes instructions before the one that is replaced.
struct Writer<'f> {
    cursor: FuncCursor<'f>,
    bits: bool,
}

impl Writer<'_> {
    fn int(&mut self, ty: Type, value: i64) -> Value {
        let bits = ty.bits();
        let value = if bits < 64 { value & ((1 << bits) - 1) } else { value };
        self.cursor.ins().iconst(ty, value)
    }

    fn ty(&self, value: Value) -> Type {
        self.cursor.func.dfg.value_type(value)
    }

    fn and(&mut self, x: Value, mask: i64) -> Value {
        let mask = self.int(self.ty(x), mask);
        self.cursor.ins().band(x, mask)
    }

    fn add(&mut self, x: Value, constant: i64) -> Value {
        let constant = self.int(self.ty(x), constant);
        self.cursor.ins().iadd(x, constant)
    }

    fn left(&mut self, x: Value, by: i64) -> Value {
        let by = self.int(types::I32, by);
        self.cursor.ins().ishl(x, by)
    }

    fn right(&mut self, x: Value, by: i64) -> Value {
        let by = self.int(types::I32, by);
        self.cursor.ins().ushr(x, by)
    }

    /// The halves of a 64-bit value, the low one first.
    fn halves(&mut self, x: Value) -> [Value; 2] {
        let high = self.right(x, 32);
        [x, high].map(|half| self.cursor.ins().ireduce(types::I32, half))
    }

    /// A 64-bit value of two halves.
    fn join(&mut self, [low, high]: [Value; 2]) -> Value {
        let low = self.cursor.ins().uextend(types::I64, low);
        let high = self.cursor.ins().uextend(types::I64, high);
        let high = self.left(high, 32);
        self.cursor.ins().bor(low, high)
    }

    /// `x` as a word, zero-extended.
    fn word(&mut self, x: Value) -> Value {
        match self.ty(x) {
            types::I32 => x,
            types::I64 => self.cursor.ins().ireduce(types::I32, x),
            _ => self.cursor.ins().uextend(types::I32, x),
        }
    }

    /// A word as `ty`.
    fn narrowed(&mut self, ty: Type, word: Value) -> Value {
        match ty {
            types::I32 => word,
            types::I64 => self.cursor.ins().uextend(ty, word),
            _ => self.cursor.ins().ireduce(ty, word),
        }
    }

    /// What computes the same as `inst`, if it has to be replaced.
    fn replacement(&mut self, inst: Inst, result: Value) -> Option<Value> {
        let dfg = &self.cursor.func.dfg;
        let data = dfg.insts[inst];
        let args = dfg.inst_args(inst).to_vec();
        let (ty, opcode) = (dfg.value_type(result), data.opcode());
        if ty.is_vector() || args.iter().any(|arg| dfg.value_type(*arg).is_vector()) {
            return None;
        }
        let whole = ty == types::I32;
        Some(match (opcode, &args[..]) {
            (Opcode::Clz, &[x]) if !whole || !self.bits => self.leading_zeros(ty, x),
            (Opcode::Ctz, &[x]) => self.trailing_zeros(ty, x),
            (Opcode::Cls, &[x]) => {
                // Leading bits that are like the sign, without it.
                let last = self.int(types::I32, i64::from(ty.bits()) - 1);
                let sign = self.cursor.ins().sshr(x, last);
                let differ = self.cursor.ins().bxor(x, sign);
                let zeros = self.leading_zeros(ty, differ);
                self.add(zeros, -1)
            }
            (Opcode::Popcnt, &[x]) => self.ones(ty, x),
            (Opcode::Bitrev, &[x]) if !whole || !self.bits => self.reversed(ty, x),
            (Opcode::Bswap, &[x]) => self.swapped(ty, x),
            (Opcode::Rotl | Opcode::Rotr, &[x, by]) if !whole => self.rotated(opcode, ty, x, by),
            (Opcode::Iabs, &[x]) if ty == types::I64 => {
                let last = self.int(types::I32, 63);
                let sign = self.cursor.ins().sshr(x, last);
                let flipped = self.cursor.ins().bxor(x, sign);
                self.cursor.ins().isub(flipped, sign)
            }
            (Opcode::Bmask, &[x]) => {
                let zero = self.int(self.ty(x), 0);
                let any = self.cursor.ins().icmp(IntCC::NotEqual, x, zero);
                let [ones, none] = [-1, 0].map(|value| self.int(ty, value));
                self.cursor.ins().select(any, ones, none)
            }
            (Opcode::Bitselect, &[mask, yes, no]) if ty == types::I64 => {
                let differ = self.cursor.ins().bxor(yes, no);
                let chosen = self.cursor.ins().band(differ, mask);
                self.cursor.ins().bxor(no, chosen)
            }
            (Opcode::Umulhi, &[a, b]) if ty == types::I64 => self.high_product(a, b),
            (Opcode::Smulhi, &[a, b]) if ty == types::I64 => {
                // A negative factor counts 2^64 too much.
                let mut high = self.high_product(a, b);
                for (factor, other) in [(a, b), (b, a)] {
                    let last = self.int(types::I32, 63);
                    let sign = self.cursor.ins().sshr(factor, last);
                    let excess = self.cursor.ins().band(sign, other);
                    high = self.cursor.ins().isub(high, excess);
                }
                high
            }
            (Opcode::FcvtToSintSat | Opcode::FcvtToUintSat, &[x]) if ty.bits() < 32 => {
                let one = 1i64 << (ty.bits() - 1);
                let clamped = if opcode == Opcode::FcvtToSintSat {
                    let word = self.cursor.ins().fcvt_to_sint_sat(types::I32, x);
                    let [least, most] = [-one, one - 1].map(|bound| self.int(types::I32, bound));
                    let word = self.cursor.ins().smax(word, least);
                    self.cursor.ins().smin(word, most)
                } else {
                    let word = self.cursor.ins().fcvt_to_uint_sat(types::I32, x);
                    let most = self.int(types::I32, 2 * one - 1);
                    self.cursor.ins().umin(word, most)
                };
                self.cursor.ins().ireduce(ty, clamped)
            }
            (Opcode::Fcmp, &[a, b]) => {
                let InstructionData::FloatCompare { cond, .. } = data else {
                    return None;
                };
                let either = match cond {
                    FloatCC::OrderedNotEqual => [FloatCC::LessThan, FloatCC::GreaterThan],
                    FloatCC::UnorderedOrEqual => [FloatCC::Unordered, FloatCC::Equal],
                    _ => return None,
                };
                let [one, other] = either.map(|cond| self.cursor.ins().fcmp(cond, a, b));
                self.cursor.ins().bor(one, other)
            }
            _ if ty != types::F32 => return None,
            (Opcode::Fcopysign, &[x, y]) => self.with_sign(x, y),
            (Opcode::Fmin | Opcode::Fmax, &[a, b]) => self.extreme(opcode, a, b),
            (Opcode::Trunc | Opcode::Floor | Opcode::Ceil | Opcode::Nearest, &[x]) => self.rounded(opcode, x),
            _ => return None,
        })
    }

    fn leading_zeros(&mut self, ty: Type, x: Value) -> Value {
        if ty == types::I64 {
            let [low, high] = self.halves(x);
            let below = self.leading_zeros(types::I32, low);
            let below = self.add(below, 32);
            let above = self.leading_zeros(types::I32, high);
            return self.of_half(high, below, above);
        }
        let word = self.word(x);
        let zeros = if self.bits {
            self.cursor.ins().clz(word)
        } else {
            self.count_by_halving(word)
        };
        let zeros = self.add(zeros, i64::from(ty.bits()) - 32);
        self.narrowed(ty, zeros)
    }

    /// `none` if a half is 0, else `some`, as 64 bits.
    fn of_half(&mut self, half: Value, none: Value, some: Value) -> Value {
        let zero = self.int(types::I32, 0);
        let empty = self.cursor.ins().icmp(IntCC::Equal, half, zero);
        let chosen = self.cursor.ins().select(empty, none, some);
        self.cursor.ins().uextend(types::I64, chosen)
    }

    /// Leading zeros of a word, without an instruction for it.
    fn count_by_halving(&mut self, mut x: Value) -> Value {
        let mut count = self.int(types::I32, 0);
        for step in [16i64, 8, 4, 2, 1] {
            // If the upper `step` bits are clear, they count and go.
            let bound = self.int(types::I32, 1 << (32 - step));
            let clear = self.cursor.ins().icmp(IntCC::UnsignedLessThan, x, bound);
            let clear = self.cursor.ins().uextend(types::I32, clear);
            let by = self.left(clear, i64::from(step.trailing_zeros()));
            x = self.cursor.ins().ishl(x, by);
            count = self.cursor.ins().iadd(count, by);
        }
        // Of a zero, the last bit remains to be counted.
        let zero = self.int(types::I32, 0);
        let rest = self.cursor.ins().icmp(IntCC::Equal, x, zero);
        let rest = self.cursor.ins().uextend(types::I32, rest);
        self.cursor.ins().iadd(count, rest)
    }

    fn trailing_zeros(&mut self, ty: Type, x: Value) -> Value {
        if ty == types::I64 {
            let [low, high] = self.halves(x);
            let below = self.trailing_zeros(types::I32, low);
            let above = self.trailing_zeros(types::I32, high);
            let above = self.add(above, 32);
            return self.of_half(low, above, below);
        }
        let mut word = self.word(x);
        if ty.bits() < 32 {
            let end = self.int(types::I32, 1 << ty.bits());
            word = self.cursor.ins().bor(word, end);
        }
        // The ones below the lowest one, counted from the top.
        let less = self.add(word, -1);
        let inverse = self.cursor.ins().bnot(word);
        let below = self.cursor.ins().band(inverse, less);
        let above = self.leading_zeros(types::I32, below);
        let all = self.int(types::I32, 32);
        let zeros = self.cursor.ins().isub(all, above);
        self.narrowed(ty, zeros)
    }

    /// Ones, added up in ever wider fields.
    fn ones(&mut self, ty: Type, x: Value) -> Value {
        if ty == types::I64 {
            let [low, high] = self.halves(x).map(|half| self.ones(types::I32, half));
            let sum = self.cursor.ins().iadd(low, high);
            return self.cursor.ins().uextend(ty, sum);
        }
        let word = self.word(x);
        let odd = self.right(word, 1);
        let odd = self.and(odd, 0x5555_5555);
        let pairs = self.cursor.ins().isub(word, odd);
        let upper = self.right(pairs, 2);
        let upper = self.and(upper, 0x3333_3333);
        let lower = self.and(pairs, 0x3333_3333);
        let fours = self.cursor.ins().iadd(lower, upper);
        let upper = self.right(fours, 4);
        let eights = self.cursor.ins().iadd(fours, upper);
        let eights = self.and(eights, 0x0f0f_0f0f);
        let factor = self.int(types::I32, 0x0101_0101);
        let sums = self.cursor.ins().imul(eights, factor);
        let count = self.right(sums, 24);
        self.narrowed(ty, count)
    }

    fn reversed(&mut self, ty: Type, x: Value) -> Value {
        if ty == types::I64 {
            let [low, high] = self.halves(x).map(|half| self.reversed(types::I32, half));
            return self.join([high, low]);
        }
        let mut word = self.word(x);
        if self.bits {
            word = self.cursor.ins().bitrev(word);
        } else {
            for (by, mask) in [(1, 0x5555_5555), (2, 0x3333_3333), (4, 0x0f0f_0f0f)] {
                let lower = self.and(word, mask);
                let lower = self.left(lower, by);
                let upper = self.right(word, by);
                let upper = self.and(upper, mask);
                word = self.cursor.ins().bor(lower, upper);
            }
            word = self.swapped(types::I32, word);
        }
        let word = self.right(word, 32 - i64::from(ty.bits()));
        self.narrowed(ty, word)
    }

    fn swapped(&mut self, ty: Type, x: Value) -> Value {
        if ty == types::I64 {
            let [low, high] = self.halves(x).map(|half| self.swapped(types::I32, half));
            return self.join([high, low]);
        }
        let word = self.word(x);
        let upper = self.right(word, 8);
        let upper = self.and(upper, 0x00ff_00ff);
        let lower = self.and(word, 0x00ff_00ff);
        let lower = self.left(lower, 8);
        let swapped = self.cursor.ins().bor(lower, upper);
        if ty == types::I16 {
            return self.narrowed(ty, swapped);
        }
        let by = self.int(types::I32, 16);
        self.cursor.ins().rotl(swapped, by)
    }

    fn rotated(&mut self, opcode: Opcode, ty: Type, x: Value, by: Value) -> Value {
        let by = self.word(by);
        if ty == types::I64 {
            let zero = self.int(types::I32, 0);
            let rest = self.cursor.ins().isub(zero, by);
            let (up, down) = if opcode == Opcode::Rotl { (by, rest) } else { (rest, by) };
            let up = self.cursor.ins().ishl(x, up);
            let down = self.cursor.ins().ushr(x, down);
            return self.cursor.ins().bor(up, down);
        }
        // Copies side by side in a word turn as one does.
        let word = self.word(x);
        let copies = self.int(types::I32, if ty == types::I8 { 0x0101_0101 } else { 0x0001_0001 });
        let copies = self.cursor.ins().imul(word, copies);
        let turned = if opcode == Opcode::Rotl {
            self.cursor.ins().rotl(copies, by)
        } else {
            self.cursor.ins().rotr(copies, by)
        };
        self.narrowed(ty, turned)
    }

    /// The upper half of an unsigned product of 64-bit factors, from four products of words.
    fn high_product(&mut self, a: Value, b: Value) -> Value {
        let [a, b] = [a, b].map(|factor| {
            self.halves(factor)
                .map(|half| self.cursor.ins().uextend(types::I64, half))
        });
        let mut product = |x: Value, y: Value| self.cursor.ins().imul(x, y);
        let (lowest, cross, other, highest) = (
            product(a[0], b[0]),
            product(a[0], b[1]),
            product(a[1], b[0]),
            product(a[1], b[1]),
        );
        let mut middle = self.right(lowest, 32);
        let mut high = highest;
        for cross in [cross, other] {
            let low = self.and(cross, 0xffff_ffff);
            middle = self.cursor.ins().iadd(middle, low);
            let above = self.right(cross, 32);
            high = self.cursor.ins().iadd(high, above);
        }
        let carried = self.right(middle, 32);
        self.cursor.ins().iadd(high, carried)
    }

    fn as_word(&mut self, x: Value) -> Value {
        self.cursor.ins().bitcast(types::I32, MemFlagsData::new(), x)
    }

    fn as_float(&mut self, x: Value) -> Value {
        self.cursor.ins().bitcast(types::F32, MemFlagsData::new(), x)
    }

    /// The magnitude of `x` with the sign of `y`.
    fn with_sign(&mut self, x: Value, y: Value) -> Value {
        let [x, y] = [x, y].map(|value| self.as_word(value));
        let magnitude = self.and(x, 0x7fff_ffff);
        let sign = self.and(y, 0x8000_0000);
        let bits = self.cursor.ins().bor(magnitude, sign);
        self.as_float(bits)
    }

    /// The lesser or greater value; a NaN if one is, and −0 below 0.
    fn extreme(&mut self, opcode: Opcode, a: Value, b: Value) -> Value {
        let least = opcode == Opcode::Fmin;
        let cond = if least { FloatCC::LessThan } else { FloatCC::GreaterThan };
        let first = self.cursor.ins().fcmp(cond, a, b);
        let second = self.cursor.ins().fcmp(cond, b, a);
        // Equal ones differ in nothing but the sign of 0.
        let [x, y] = [a, b].map(|value| self.as_word(value));
        let equal = if least {
            self.cursor.ins().bor(x, y)
        } else {
            self.cursor.ins().band(x, y)
        };
        let equal = self.as_float(equal);
        let sum = self.cursor.ins().fadd(a, b);
        let same = self.cursor.ins().fcmp(FloatCC::Equal, a, b);
        let rest = self.cursor.ins().select(same, equal, sum);
        let rest = self.cursor.ins().select(second, b, rest);
        self.cursor.ins().select(first, a, rest)
    }

    /// A whole number beside `x`, with its sign. From 2^23 on all are whole.
    fn rounded(&mut self, opcode: Opcode, x: Value) -> Value {
        let magnitude = self.cursor.ins().fabs(x);
        let bound = self.cursor.ins().f32const(8_388_608.0);
        let whole = if opcode == Opcode::Nearest {
            // The sum has no room for a fraction.
            let sum = self.cursor.ins().fadd(magnitude, bound);
            self.cursor.ins().fsub(sum, bound)
        } else {
            let word = self.cursor.ins().fcvt_to_sint_sat(types::I32, x);
            let towards_zero = self.cursor.ins().fcvt_from_sint(types::F32, word);
            let beyond = match opcode {
                Opcode::Floor => Some((FloatCC::GreaterThan, -1.0)),
                Opcode::Ceil => Some((FloatCC::LessThan, 1.0)),
                _ => None,
            };
            match beyond {
                Some((cond, step)) => {
                    let beyond = self.cursor.ins().fcmp(cond, towards_zero, x);
                    let step = self.cursor.ins().f32const(step);
                    let next = self.cursor.ins().fadd(towards_zero, step);
                    self.cursor.ins().select(beyond, next, towards_zero)
                }
                None => towards_zero,
            }
        };
        let whole = self.with_sign(whole, x);
        let fraction = self.cursor.ins().fcmp(FloatCC::LessThan, magnitude, bound);
        // A NaN becomes a quiet one.
        let zero = self.cursor.ins().f32const(0.0);
        let quiet = self.cursor.ins().fadd(x, zero);
        let rest = self.cursor.ins().fcmp(FloatCC::Unordered, x, x);
        let rest = self.cursor.ins().select(rest, quiet, x);
        self.cursor.ins().select(fraction, whole, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::emit::build;
    use crate::kernels::testing;
    use crate::kernels::testing::{Compiled, Edge, Guarded};

    #[test]
    fn leading_zeros_of_words_and_pairs() {
        let Some(target) = testing::hosts().into_iter().next() else {
            return;
        };
        for (ty, bits) in [(types::I32, 32u32), (types::I64, 64)] {
            for has_clz in [false, true] {
                let mut built = build(&target, 2, |e| {
                    let x = e.load(ty, e.args[0], 0);
                    let zeros = e.b.ins().clz(x);
                    e.store(zeros, e.args[1], 0);
                });
                expand(&mut built.function, has_clz);
                let code = Compiled::new(&built, &target);
                for shift in 0..=bits {
                    for noise in [0u64, 0x5555_5555_5555_5555, u64::MAX] {
                        let x = (noise | 1 << 63).checked_shr(shift + 64 - bits).unwrap_or(0);
                        let input = Guarded::new(&x.to_le_bytes(), 8, Edge::End, true);
                        let output = Guarded::new(&[0; 8], 8, Edge::End, false);
                        code.call(&[input.pointer(), output.pointer()]);
                        assert_eq!(output.bytes()[0], shift as u8, "{ty} {x:#x}");
                    }
                }
            }
        }
    }
}
