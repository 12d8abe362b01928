//! Intrinsics in plain CLIF, for machines without the instructions.

use corerope::intrinsic::Intrinsic;
use cranelift_codegen::ir::{InstBuilder, Opcode, Value, types};
use cranelift_frontend::FunctionBuilder;

/// An intrinsic in plain CLIF.
pub fn spell_out(b: &mut FunctionBuilder, which: Intrinsic, args: &[Value]) -> Value {
    let at = |index: usize| args.get(index).copied().unwrap_or(args[0]);
    let (x, y, a) = (at(0), at(1), at(2));
    let shift = |b: &mut FunctionBuilder, op: Opcode, value: Value, amount: i64| {
        let amount = b.ins().iconst(types::I32, amount);
        match op {
            Opcode::Ishl => b.ins().ishl(value, amount),
            Opcode::Ushr => b.ins().ushr(value, amount),
            _ => b.ins().sshr(value, amount),
        }
    };
    let low = |b: &mut FunctionBuilder, value: Value| {
        let half = b.ins().ireduce(types::I16, value);
        b.ins().sextend(types::I32, half)
    };
    let high = |b: &mut FunctionBuilder, value: Value| shift(b, Opcode::Sshr, value, 16);
    let pack = |b: &mut FunctionBuilder, low: Value, high: Value| {
        let mask = b.ins().iconst(types::I32, 0xffff);
        let low = b.ins().band(low, mask);
        let high = shift(b, Opcode::Ishl, high, 16);
        b.ins().bor(low, high)
    };
    let byte = |b: &mut FunctionBuilder, value: Value| {
        let byte = b.ins().ireduce(types::I8, value);
        b.ins().sextend(types::I32, byte)
    };
    let bytes = |b: &mut FunctionBuilder, value: Value| {
        let up = shift(b, Opcode::Ushr, value, 16);
        let parts = [byte(b, value), byte(b, up)];
        pack(b, parts[0], parts[1])
    };
    let wide = |b: &mut FunctionBuilder, value: Value| b.ins().sextend(types::I64, value);
    let top = |b: &mut FunctionBuilder, value: Value, amount: i64| {
        let amount = b.ins().iconst(types::I64, amount);
        let value = b.ins().sshr(value, amount);
        b.ins().ireduce(types::I32, value)
    };
    match which {
        Intrinsic::Sxtb16 => bytes(b, x),
        Intrinsic::Sxtb16Ror8 => {
            let x = shift(b, Opcode::Ushr, x, 8);
            bytes(b, x)
        }
        Intrinsic::Sxtab16 => {
            let y = bytes(b, y);
            let (xl, yl, xh, yh) = (low(b, x), low(b, y), high(b, x), high(b, y));
            let (l, h) = (b.ins().iadd(xl, yl), b.ins().iadd(xh, yh));
            pack(b, l, h)
        }
        Intrinsic::Smlad | Intrinsic::Smlabb | Intrinsic::Smlabt | Intrinsic::Smlatb | Intrinsic::Smlatt => {
            let product = |b: &mut FunctionBuilder, top: [bool; 2]| {
                let x = if top[0] { high(b, x) } else { low(b, x) };
                let y = if top[1] { high(b, y) } else { low(b, y) };
                b.ins().imul(x, y)
            };
            let product = match which {
                Intrinsic::Smlabb => product(b, [false, false]),
                Intrinsic::Smlabt => product(b, [false, true]),
                Intrinsic::Smlatb => product(b, [true, false]),
                Intrinsic::Smlatt => product(b, [true, true]),
                _ => {
                    let (l, h) = (product(b, [false, false]), product(b, [true, true]));
                    b.ins().iadd(l, h)
                }
            };
            b.ins().iadd(a, product)
        }
        Intrinsic::Smlawb | Intrinsic::Smlawt => {
            let y = if which == Intrinsic::Smlawt {
                high(b, y)
            } else {
                low(b, y)
            };
            let (x, y) = (wide(b, x), wide(b, y));
            let product = b.ins().imul(x, y);
            let product = top(b, product, 16);
            b.ins().iadd(a, product)
        }
        Intrinsic::Smmul | Intrinsic::Smmulr | Intrinsic::Smmla | Intrinsic::Smmlar => {
            let (x, y) = (wide(b, x), wide(b, y));
            let mut sum = b.ins().imul(x, y);
            if matches!(which, Intrinsic::Smmla | Intrinsic::Smmlar) {
                let a = wide(b, a);
                let by = b.ins().iconst(types::I64, 32);
                let a = b.ins().ishl(a, by);
                sum = b.ins().iadd(sum, a);
            }
            if matches!(which, Intrinsic::Smmulr | Intrinsic::Smmlar) {
                let half = b.ins().iconst(types::I64, 1 << 31);
                sum = b.ins().iadd(sum, half);
            }
            top(b, sum, 32)
        }
        Intrinsic::Sxtab16Ror8 => {
            let by = b.ins().iconst(types::I32, 8);
            let y = b.ins().rotr(y, by);
            spell_out(b, Intrinsic::Sxtab16, &[x, y])
        }
        Intrinsic::Smax8 => {
            let mut all = b.ins().iconst(types::I32, 0);
            for at in [0, 8, 16, 24] {
                let by = b.ins().iconst(types::I32, at);
                let [x, y] = [x, y].map(|value| {
                    let value = b.ins().ushr(value, by);
                    let value = b.ins().ireduce(types::I8, value);
                    b.ins().sextend(types::I32, value)
                });
                let most = b.ins().smax(x, y);
                let mask = b.ins().iconst(types::I32, 0xff);
                let most = b.ins().band(most, mask);
                let most = b.ins().ishl(most, by);
                all = b.ins().bor(all, most);
            }
            all
        }
        Intrinsic::Pkhbt => pack(b, x, y),
        Intrinsic::Pkhtb => {
            let (h, l) = (high(b, x), high(b, y));
            pack(b, l, h)
        }
        Intrinsic::Qadd | Intrinsic::Qsub => {
            let (x, y) = (wide(b, x), wide(b, y));
            let sum = if which == Intrinsic::Qadd {
                b.ins().iadd(x, y)
            } else {
                b.ins().isub(x, y)
            };
            let most = b.ins().iconst(types::I64, i64::from(i32::MAX));
            let least = b.ins().iconst(types::I64, i64::from(i32::MIN));
            let clamped = b.ins().smin(sum, most);
            let clamped = b.ins().smax(clamped, least);
            b.ins().ireduce(types::I32, clamped)
        }
    }
}
