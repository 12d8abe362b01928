//! Rules of RV32 for calls.

use super::encode;
use super::inst::{Callee, Inst};
use super::select::Rules;
use crate::codegen::native::Place;
use crate::codegen::native::select::{CallResults, Refused};
use cranelift_codegen::ir::{self, AbiParam, ExternalName, Value};
use regalloc2::RegClass;

impl Rules<'_, '_> {
    pub fn call(&mut self, inst: ir::Inst, callee: ir::FuncRef) -> Result<bool, Refused> {
        let func = self.s.func;
        let external = &func.dfg.ext_funcs[callee];
        let ExternalName::User(name) = &external.name else {
            return Ok(false);
        };
        let symbol = func.params.user_named_funcs()[*name].index;
        let args = func.dfg.inst_args(inst).to_vec();
        self.emit_call(Callee::Symbol(symbol), inst, external.signature, &args)
    }

    pub fn call_indirect(&mut self, inst: ir::Inst, signature: ir::SigRef) -> Result<bool, Refused> {
        let args = self.s.func.dfg.inst_args(inst).to_vec();
        let Some((target, args)) = args.split_first() else {
            return Ok(false);
        };
        let target = self.s.reg(*target);
        self.emit_call(Callee::Register(target), inst, signature, args)
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
        let (places, stack) = self.isa.places(&signature.params, 8)?;
        self.s.note_call(stack);
        let mut uses = Vec::new();
        for (value, places) in args.iter().zip(&places) {
            for (register, place) in self.s.parts(*value).into_iter().zip(places) {
                match *place {
                    Place::Register(fixed) => {
                        uses.push((self.isa.in_class(self.s, register, fixed.class()), fixed));
                    }
                    Place::Stack(offset) => {
                        let float = register.class() == RegClass::Float;
                        let bits = if float { encode::FSW } else { encode::SW };
                        self.s.emit(Inst::StoreArgument {
                            bits,
                            rs: register,
                            offset,
                        });
                    }
                }
            }
        }
        let returns: Vec<AbiParam> = signature.returns.clone();
        let (places, stack) = self.isa.places(&returns, 2)?;
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
        for (rd, rs1) in moves {
            let bits = if rd.class() == RegClass::Int {
                encode::FMV_X_W
            } else {
                encode::FMV_W_X
            };
            self.s.emit(Inst::R {
                bits,
                rd,
                rs1,
                rs2: None,
            });
        }
        Ok(true)
    }
}
