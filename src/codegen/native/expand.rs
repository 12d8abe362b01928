//! Operations that a 32-bit core has no instruction for, in terms of those that it has.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Function, Inst, InstBuilder, Opcode, Value, types};

/// Replaces what has no rule of selection. `has_clz` says whether leading zeros of a word are counted by an instruction.
pub fn expand(function: &mut Function, has_clz: bool) {
    let insts: Vec<Inst> = (function.layout.blocks())
        .flat_map(|block| function.layout.block_insts(block))
        .filter(|inst| function.dfg.insts[*inst].opcode() == Opcode::Clz)
        .collect();
    for inst in insts {
        let result = function.dfg.first_result(inst);
        let ty = function.dfg.value_type(result);
        let x = function.dfg.inst_args(inst)[0];
        let mut cursor = FuncCursor::new(function).at_inst(inst);
        match ty {
            types::I64 => {
                let low = cursor.ins().ireduce(types::I32, x);
                let thirty_two = cursor.ins().iconst(types::I32, 32);
                let high = cursor.ins().ushr(x, thirty_two);
                let high = cursor.ins().ireduce(types::I32, high);
                let below = leading_zeros(&mut cursor, low, has_clz);
                let below = cursor.ins().iadd(below, thirty_two);
                let above = leading_zeros(&mut cursor, high, has_clz);
                let zero = cursor.ins().iconst(types::I32, 0);
                let empty = cursor.ins().icmp(IntCC::Equal, high, zero);
                let zeros = cursor.ins().select(empty, below, above);
                cursor.func.replace(inst).uextend(types::I64, zeros);
            }
            types::I32 if !has_clz => {
                let zeros = leading_zeros(&mut cursor, x, false);
                let zero = cursor.ins().iconst(types::I32, 0);
                cursor.func.replace(inst).iadd(zeros, zero);
            }
            _ => {}
        }
    }
}

/// Leading zeros of a word; without an instruction, by halving.
fn leading_zeros(cursor: &mut FuncCursor, x: Value, has_clz: bool) -> Value {
    if has_clz {
        return cursor.ins().clz(x);
    }
    let mut x = x;
    let mut count = cursor.ins().iconst(types::I32, 0);
    for step in [16i64, 8, 4, 2, 1] {
        // If the upper `step` bits are clear, they count and go.
        let bound = cursor.ins().iconst(types::I32, 1 << (32 - step));
        let clear = cursor.ins().icmp(IntCC::UnsignedLessThan, x, bound);
        let clear = cursor.ins().uextend(types::I32, clear);
        let shift = cursor.ins().iconst(types::I32, i64::from(step.trailing_zeros()));
        let by = cursor.ins().ishl(clear, shift);
        x = cursor.ins().ishl(x, by);
        count = cursor.ins().iadd(count, by);
    }
    // Of a zero, the last bit remains to be counted.
    let zero = cursor.ins().iconst(types::I32, 0);
    let rest = cursor.ins().icmp(IntCC::Equal, x, zero);
    let rest = cursor.ins().uextend(types::I32, rest);
    cursor.ins().iadd(count, rest)
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
