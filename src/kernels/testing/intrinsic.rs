//! Intrinsics as plain operations, so that schedules of machines that have them run on this one.

use crate::intrinsic::Intrinsic;
use cranelift_codegen::ir::types::{I8, I16, I32, I64};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use cranelift_frontend::FunctionBuilder;

/// What `intrinsic` computes.
pub fn expand(b: &mut FunctionBuilder, intrinsic: Intrinsic, operands: &[Value]) -> Value {
    let mut e = Expand(b);
    let (x, y, a) = (
        operands[0],
        operands.get(1).copied().unwrap_or(operands[0]),
        operands.get(2).copied().unwrap_or(operands[0]),
    );
    let product = |e: &mut Expand, x: Value, y: Value| e.0.ins().imul(x, y);
    match intrinsic {
        Intrinsic::Sxtb16 => e.bytes(x, 0),
        Intrinsic::Sxtb16Ror8 => e.bytes(x, 8),
        Intrinsic::Smax8 => {
            let mut all = e.0.ins().iconst(I32, 0);
            for shift in [0, 8, 16, 24] {
                let (x, y) = (e.part(x, shift, I8), e.part(y, shift, I8));
                let most = e.0.ins().smax(x, y);
                let most = e.0.ins().band_imm_s(most, 0xff);
                let most = e.0.ins().ishl_imm_s(most, shift);
                all = e.0.ins().bor(all, most);
            }
            all
        }
        Intrinsic::Sxtab16 | Intrinsic::Sxtab16Ror8 => {
            let y = e.bytes(y, if intrinsic == Intrinsic::Sxtab16 { 0 } else { 8 });
            let (xl, yl, xh, yh) = (e.low(x), e.low(y), e.high(x), e.high(y));
            let low = e.0.ins().iadd(xl, yl);
            let high = e.0.ins().iadd(xh, yh);
            e.pack(low, high)
        }
        Intrinsic::Smlad => {
            let (xl, yl, xh, yh) = (e.low(x), e.low(y), e.high(x), e.high(y));
            let (low, high) = (product(&mut e, xl, yl), product(&mut e, xh, yh));
            let sum = e.0.ins().iadd(low, high);
            e.0.ins().iadd(sum, a)
        }
        Intrinsic::Smlabb | Intrinsic::Smlabt | Intrinsic::Smlatb | Intrinsic::Smlatt => {
            let x = match intrinsic {
                Intrinsic::Smlabb | Intrinsic::Smlabt => e.low(x),
                _ => e.high(x),
            };
            let y = match intrinsic {
                Intrinsic::Smlabb | Intrinsic::Smlatb => e.low(y),
                _ => e.high(y),
            };
            let product = product(&mut e, x, y);
            e.0.ins().iadd(product, a)
        }
        Intrinsic::Smlawb | Intrinsic::Smlawt => {
            let y = if intrinsic == Intrinsic::Smlawb {
                e.low(y)
            } else {
                e.high(y)
            };
            let product = e.long(x, y);
            let top = e.0.ins().sshr_imm_s(product, 16);
            let top = e.0.ins().ireduce(I32, top);
            e.0.ins().iadd(top, a)
        }
        Intrinsic::Smmul | Intrinsic::Smmulr | Intrinsic::Smmla | Intrinsic::Smmlar => {
            let mut sum = e.long(x, y);
            if matches!(intrinsic, Intrinsic::Smmla | Intrinsic::Smmlar) {
                let a = e.0.ins().sextend(I64, a);
                let a = e.0.ins().ishl_imm_s(a, 32);
                sum = e.0.ins().iadd(sum, a);
            }
            if matches!(intrinsic, Intrinsic::Smmulr | Intrinsic::Smmlar) {
                sum = e.0.ins().iadd_imm_s(sum, 1 << 31);
            }
            let top = e.0.ins().sshr_imm_s(sum, 32);
            e.0.ins().ireduce(I32, top)
        }
        Intrinsic::Pkhbt => {
            let high = e.low(y);
            e.pack(x, high)
        }
        Intrinsic::Pkhtb => {
            let (low, high) = (e.high(y), e.high(x));
            e.pack(low, high)
        }
        Intrinsic::Qadd | Intrinsic::Qsub => {
            let (x, y) = (e.0.ins().sextend(I64, x), e.0.ins().sextend(I64, y));
            let sum = if intrinsic == Intrinsic::Qadd {
                e.0.ins().iadd(x, y)
            } else {
                e.0.ins().isub(x, y)
            };
            let least = e.0.ins().iconst(I64, i64::from(i32::MIN));
            let most = e.0.ins().iconst(I64, i64::from(i32::MAX));
            let sum = e.0.ins().smax(sum, least);
            let sum = e.0.ins().smin(sum, most);
            e.0.ins().ireduce(I32, sum)
        }
    }
}

struct Expand<'e, 'f>(&'e mut FunctionBuilder<'f>);

impl Expand<'_, '_> {
    fn part(&mut self, x: Value, shift: i64, ty: Type) -> Value {
        let x = self.0.ins().ushr_imm_s(x, shift);
        let x = self.0.ins().ireduce(ty, x);
        self.0.ins().sextend(I32, x)
    }

    fn low(&mut self, x: Value) -> Value {
        self.part(x, 0, I16)
    }

    fn high(&mut self, x: Value) -> Value {
        self.part(x, 16, I16)
    }

    fn pack(&mut self, low: Value, high: Value) -> Value {
        let low = self.0.ins().band_imm_s(low, 0xffff);
        let high = self.0.ins().ishl_imm_s(high, 16);
        self.0.ins().bor(low, high)
    }

    fn bytes(&mut self, x: Value, shift: i64) -> Value {
        let low = self.part(x, shift, I8);
        let high = self.part(x, shift + 16, I8);
        self.pack(low, high)
    }

    fn long(&mut self, x: Value, y: Value) -> Value {
        let (x, y) = (self.0.ins().sextend(I64, x), self.0.ins().sextend(I64, y));
        self.0.ins().imul(x, y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intrinsic::ALL;
    use crate::kernels::emit::build;
    use crate::kernels::testing::{Compiled, Edge, Guarded, hosts};

    #[test]
    fn expansions_are_what_intrinsics_compute() {
        let words = [
            0,
            1,
            -1,
            0x7fff_8000,
            i32::MIN,
            i32::MAX,
            0x1280_84ff,
            -0x7f01_0203,
            0x8000_8000u32 as i32,
        ];
        let Some(target) = hosts().into_iter().next() else {
            return;
        };
        for intrinsic in ALL {
            let built = build(&target, 2, |e| {
                let (from, to) = (e.args[0], e.args[1]);
                let operands: Vec<Value> = (0..3).map(|i| e.load(I32, from, 4 * i)).collect();
                let result = expand(&mut e.b, *intrinsic, &operands[..intrinsic.operands()]);
                e.store(result, to, 0);
            });
            let compiled = Compiled::new(&built, &target);
            for x in words {
                for y in words {
                    for a in words {
                        let bytes: Vec<u8> = [x, y, a].iter().flat_map(|v| v.to_le_bytes()).collect();
                        let from = Guarded::new(&bytes, 4, Edge::End, true);
                        let to = Guarded::new(&[0; 4], 4, Edge::End, false);
                        compiled.call(&[from.pointer(), to.pointer()]);
                        let found = i32::from_le_bytes(to.bytes().try_into().expect("four bytes"));
                        let wanted = intrinsic.evaluate(&[x, y, a][..intrinsic.operands()]);
                        assert_eq!(found, wanted, "{intrinsic:?} {x:#x} {y:#x} {a:#x}");
                    }
                }
            }
        }
    }
}
