//! Rules of Thumb-2 for calls and for intrinsics.

use super::encode;
use super::inst::{Callee, Inst};
use super::select::Rules;
use crate::codegen::native::Place;
use crate::codegen::native::select::{CallResults, Refused};
use crate::intrinsic::{self, Intrinsic};
use cranelift_codegen::ir::{self, ExternalName, Value};
use regalloc2::VReg;

impl Rules<'_, '_> {
    pub fn call(&mut self, inst: ir::Inst, callee: ir::FuncRef) -> Result<bool, Refused> {
        let func = self.s.func;
        let external = &func.dfg.ext_funcs[callee];
        let ExternalName::User(name) = &external.name else {
            return Ok(false);
        };
        let name = &func.params.user_named_funcs()[*name];
        let args = func.dfg.inst_args(inst).to_vec();
        if name.namespace == intrinsic::NAMESPACE {
            return Ok(self.intrinsic(inst, name.index, &args));
        }
        self.emit_call(Callee::Symbol(name.index), inst, external.signature, &args)
    }

    pub fn intrinsic(&mut self, inst: ir::Inst, index: u32, args: &[Value]) -> bool {
        let Some(intrinsic) = Intrinsic::from_index(index).filter(|_| self.isa.core.dsp) else {
            return false;
        };
        let Some(result) = self.s.func.dfg.inst_results(inst).first().copied() else {
            return false;
        };
        if args.len() != intrinsic.operands() {
            return false;
        }
        let rd = self.s.reg(result);
        let tied = args.last().is_some_and(|value| self.s.only_use(*value));
        let args: Vec<VReg> = args.iter().map(|value| self.s.reg(*value)).collect();
        let bits = match intrinsic {
            Intrinsic::Sxtb16 => encode::SXTB16,
            Intrinsic::Sxtb16Ror8 => encode::SXTB16_ROR8,
            Intrinsic::Sxtab16 => encode::SXTAB16,
            Intrinsic::Smlad => encode::SMLAD,
            Intrinsic::Smlabb => encode::SMLABB,
            Intrinsic::Smlabt => encode::SMLABT,
            Intrinsic::Smlatb => encode::SMLATB,
            Intrinsic::Smlatt => encode::SMLATT,
            Intrinsic::Smlawb => encode::SMLAWB,
            Intrinsic::Smlawt => encode::SMLAWT,
            Intrinsic::Smmul => encode::SMMUL,
            Intrinsic::Smmulr => encode::SMMULR,
            Intrinsic::Smmla => encode::SMMLA,
            Intrinsic::Smmlar => encode::SMMLAR,
            Intrinsic::Pkhbt => encode::PKHBT_LSL16,
            Intrinsic::Pkhtb => encode::PKHTB_ASR16,
            Intrinsic::Qadd => encode::QADD,
            Intrinsic::Qsub => encode::QSUB,
            Intrinsic::Sxtab16Ror8 => encode::SXTAB16_ROR8,
            Intrinsic::Smax8 => encode::SSUB8,
        };
        self.s.emit(match (intrinsic, &args[..]) {
            // QADD and QSUB name their operands the other way round.
            (Intrinsic::Qadd | Intrinsic::Qsub, [x, y]) => Inst::R3 {
                bits,
                rd,
                rn: *y,
                rm: *x,
            },
            (Intrinsic::Smax8, [x, y]) => Inst::Max8 { rd, rn: *x, rm: *y },
            (_, [x]) => Inst::R2 { bits, rd, rm: *x },
            (_, [x, y]) => Inst::R3 {
                bits,
                rd,
                rn: *x,
                rm: *y,
            },
            (_, [x, y, a]) if tied => Inst::R4Tied {
                bits,
                rd,
                rn: *x,
                rm: *y,
                ra: *a,
            },
            (_, [x, y, a]) => Inst::R4 {
                bits,
                rd,
                rn: *x,
                rm: *y,
                ra: *a,
            },
            _ => return false,
        });
        true
    }

    pub fn emit_call(
        &mut self,
        callee: Callee,
        inst: ir::Inst,
        signature: ir::SigRef,
        args: &[Value],
    ) -> Result<bool, Refused> {
        let func = self.s.func;
        let signature = &func.dfg.signatures[signature];
        let (places, stack) = self.isa.places(&signature.params)?;
        self.s.note_call(stack);
        let mut uses = Vec::new();
        for (value, places) in args.iter().zip(&places) {
            for (register, place) in self.s.parts(*value).into_iter().zip(places) {
                match *place {
                    Place::Register(fixed) => uses.push((self.isa.in_core(self.s, register), fixed)),
                    Place::Stack(offset) => self.s.emit(Inst::StoreArgument { rs: register, offset }),
                }
            }
        }
        let (places, stack) = self.isa.places(&signature.returns)?;
        if stack != 0 {
            return Ok(false);
        }
        let CallResults { defs, moves } = self.s.call_results(inst, &places);
        let clobbers = self.isa.caller_saved();
        self.s.emit(Inst::Call {
            callee,
            uses,
            defs,
            clobbers,
        });
        for (rd, rm) in moves {
            self.s.emit(Inst::Move { rd, rm });
        }
        Ok(true)
    }
}
