//! [`Backend`] over our own instruction sets: what a function of a model is called and refers to, in ELF's terms.

use super::{Machine, compile, expand, select};
use crate::codegen::rv32::{Extensions, Rv32};
use crate::codegen::thumb2::{Core, Thumb2};
use crate::codegen::timing::Timing;
use crate::codegen::{Backend, Code, Input, Relocation, calls, failed};
use crate::error::{Error, Result};
use crate::target::{Arch, Target};
use cranelift_codegen::ir::Function;
use cranelift_codegen::settings;
use object::{RelocationFlags, elf};

/// A 32-bit target.
#[derive(Debug)]
enum Isa {
    Thumb2(Thumb2),
    Rv32(Rv32),
}

/// The back end for Cortex-M and RISC-V 32.
#[derive(Debug)]
pub struct Native {
    isa: Isa,
    fpu: bool,
}

/// Functions start at whole words: the first instructions of a loop are then fetched together.
const ALIGN: u64 = 4;

impl Native {
    /// A back end for `target`.
    ///
    /// # Errors
    /// [`Code::Internal`](crate::error::Code::Internal) for an architecture that is not ours.
    pub fn new(target: &Target) -> Result<Self> {
        let (isa, fpu) = match target.arch() {
            Arch::Thumb2 => {
                let core = Core {
                    dsp: target.has("dsp"),
                    fpu: target.has("vfpv4") || target.has("fpv5"),
                    timing: Timing::of(target),
                };
                (Isa::Thumb2(Thumb2::new(core)), core.fpu)
            }
            Arch::Riscv32 => {
                let extensions = Extensions {
                    compressed: target.has("c"),
                    float: target.has("f"),
                    float_abi: target.abi != Some("ilp32"),
                };
                (Isa::Rv32(Rv32::new(extensions)), extensions.float)
            }
            _ => return Err(Error::internal(format!("{target} has no code generator of our own"))),
        };
        Ok(Native { isa, fpu })
    }

    fn machine(&self, function: &Function) -> std::result::Result<Machine, String> {
        cranelift_codegen::verify_function(function, &settings::Flags::new(settings::builder()))
            .map_err(|errors| errors.to_string())?;
        let mut function = select::without_unreachable(function.clone());
        expand::expand(&mut function, matches!(self.isa, Isa::Thumb2(_)));
        let machine = match &self.isa {
            Isa::Thumb2(isa) => compile(isa, &function),
            Isa::Rv32(isa) => compile(isa, &function),
        };
        machine.map_err(|refused| refused.0)
    }
}

impl Backend for Native {
    fn compile(&self, input: &Input) -> Result<Code> {
        let failed = |reason: &str| failed(input, reason);
        let machine = self.machine(&input.function).map_err(|reason| failed(&reason))?;
        // On Arm the addend is in the instruction already.
        let implicit = matches!(self.isa, Isa::Thumb2(_));
        let relocations = (machine.relocations.iter())
            .map(|fixup| {
                let symbol = input.symbols.get(fixup.symbol as usize);
                Ok(Relocation {
                    offset: fixup.offset.into(),
                    symbol: symbol
                        .ok_or_else(|| failed("it refers to a symbol without a name"))?
                        .clone(),
                    addend: if implicit { 0 } else { fixup.addend },
                    flags: RelocationFlags::Elf {
                        r_type: elf::RelocationType(fixup.kind),
                    },
                })
            })
            .collect::<Result<_>>()?;
        Ok(Code {
            name: input.name.clone(),
            exported: input.exported,
            bytes: machine.bytes,
            align: ALIGN,
            relocations,
            labels: Vec::new(),
            frame: machine.frame,
            calls: calls(input),
            costs: machine.costs,
            float: self.fpu && computes_floats(&input.function),
            debug: machine.debug,
        })
    }
}

/// Whether a function has float values: then it has float instructions.
fn computes_floats(function: &Function) -> bool {
    function
        .dfg
        .values()
        .any(|value| function.dfg.value_type(value).is_float())
}
