//! The back end for x86-64, AArch64 and RISC-V 64.
//!
//! Cranelift numbers its relocations for itself; cranelift-object knows what they are in each object format. So every
//! function goes through a small object in memory and is read back from it, in the format's own terms.

use super::debug::{self, DebugMap};
use super::{Backend, Code, Input, Label, Relocation, call_sites, calls, failed};
use crate::error::{Error, Result};
use crate::target::{Format, Target};
use ::object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};
use cranelift_codegen::Context;
use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::{self, CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::verify_function;
use cranelift_module::{Linkage, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use std::collections::{BTreeMap, HashSet};
use target_lexicon::BinaryFormat;

/// Whether Cranelift's middle end may rearrange a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Optimize {
    /// Program order is the schedule.
    #[default]
    None,
    /// Through the e-graph, which simplifies but sinks pure operations to their first use.
    Speed,
}

/// Cranelift for one target.
pub struct Cranelift {
    isa: OwnedTargetIsa,
    /// The same with registers allocated in one pass, for functions of more than [`MANY_CALLS`].
    quick: OwnedTargetIsa,
}

/// From so many calls on, registers are allocated in one pass: hardly a value lives from one call to the next, so there is
/// nothing to gain from looking again, and time and memory go a third of the way. Only entry points of long models have so
/// many.
const MANY_CALLS: usize = 200;

/// Frame pointer and return address: what the prologue saves before the frame itself on all three machines.
const SETUP: u32 = 16;

impl Cranelift {
    /// A back end for `target`.
    ///
    /// # Errors
    /// [`Code::Internal`](crate::error::Code::Internal) if the target table names what Cranelift does not know.
    pub fn new(target: &Target, optimize: Optimize) -> Result<Self> {
        Self::with(target, optimize, false)
    }

    /// The same, with all addresses of symbols taken from a global offset table.
    ///
    /// # Errors
    /// As [`Cranelift::new`].
    pub fn through_table(target: &Target) -> Result<Self> {
        Self::with(target, Optimize::None, true)
    }

    fn with(target: &Target, optimize: Optimize, table: bool) -> Result<Self> {
        let unknown = |what: &str, error: &dyn std::fmt::Display| {
            Error::internal(format!(
                "cannot set up the code generator for {target}: {what}: {error}"
            ))
        };
        let mut flags = settings::builder();
        let level = match optimize {
            Optimize::None => "none",
            Optimize::Speed => "speed",
        };
        // On Windows a frame larger than the guard page must touch every page in order; elsewhere nothing asks for it.
        let probe = if target.format() == Format::Coff {
            "true"
        } else {
            "false"
        };
        for (name, value) in [
            ("opt_level", level),
            // Symbols are marked colocated, so their addresses are relative to the program counter all the same; `is_pic`
            // would send every one through a global offset table.
            ("is_pic", if table { "true" } else { "false" }),
            // Once, in front: it would verify between its own steps, too, and again for every step of the legalizer.
            ("enable_verifier", "false"),
            // Only describes the prologue.
            ("unwind_info", "true"),
            ("enable_probestack", probe),
            ("probestack_strategy", "inline"),
        ] {
            flags.set(name, value).map_err(|error| unknown(name, &error))?;
        }
        let mut triple = target.triple.clone();
        triple.binary_format = match target.format() {
            // The writer of Mach-O translates: ELF's relocations say more.
            Format::Elf | Format::MachO => BinaryFormat::Elf,
            Format::Coff => BinaryFormat::Coff,
        };
        let finish = |algorithm| {
            let mut flags = flags.clone();
            (flags.set("regalloc_algorithm", algorithm)).map_err(|error| unknown(algorithm, &error))?;
            let mut builder = isa::lookup(triple.clone()).map_err(|error| unknown("instruction set", &error))?;
            for feature in target.cpu.features {
                builder.enable(feature).map_err(|error| unknown(feature, &error))?;
            }
            (builder.finish(settings::Flags::new(flags))).map_err(|error| unknown("features", &error))
        };
        Ok(Cranelift {
            isa: finish("backtracking")?,
            quick: finish("single_pass")?,
        })
    }
}

impl Backend for Cranelift {
    fn compile(&self, input: &Input) -> Result<Code> {
        let fail = |reason: &dyn std::fmt::Display| failed(input, &reason.to_string());
        let isa = if call_sites(input).count() > MANY_CALLS {
            &self.quick
        } else {
            &self.isa
        };
        let builder = ObjectBuilder::new(isa.clone(), "", default_libcall_names()).map_err(|e| fail(&e))?;
        let mut module = ObjectModule::new(builder);
        // External names are indices into `symbols`, and these become the module's first functions: the same indices.
        let any = Signature::new(CallConv::SystemV);
        for (i, symbol) in input.symbols.iter().enumerate() {
            let id = (module.declare_function(symbol, Linkage::Import, &any)).map_err(|e| fail(&e))?;
            if id.as_u32() as usize != i || *symbol == input.name {
                return Err(fail(&format_args!("symbol {symbol} is listed twice")));
            }
        }
        let id = module
            .declare_function(&input.name, Linkage::Export, &input.function.signature)
            .map_err(|e| fail(&e))?;
        verify_function(&input.function, &**isa).map_err(|errors| fail(&errors))?;
        let mut context = Context::for_function(input.function.clone());
        module
            .define_function(id, &mut context)
            .map_err(|error| fail(&format_args!("{error:#}")))?;
        let compiled = (context.compiled_code()).ok_or_else(|| fail(&"there is no code"))?;
        let calls = calls(input);
        let frame = match compiled.buffer.frame_layout().map(|layout| layout.frame_to_fp_offset) {
            Some(0) if calls.is_empty() && !self.sets_up(&input.function.signature) => 0,
            Some(bytes) => bytes + SETUP,
            None => return Err(fail(&"the code generator does not say how large the frame is")),
        };
        let align = u64::from(compiled.buffer.alignment.max(isa.function_alignment().preferred));

        // Every instruction lies in a range with a source location, even an empty one; constants follow the last.
        let end = (compiled.buffer.get_srclocs_sorted().iter())
            .map(|range| range.end)
            .max();

        let compiled_locations: Vec<_> = (compiled.buffer.get_srclocs_sorted().iter())
            .map(|range| (range.start, range.loc))
            .collect();
        let unwind = compiled.buffer.unwind_info.to_vec();
        drop(context);
        let bytes = module.finish().emit().map_err(|e| fail(&e))?;
        let file = ::object::File::parse(&*bytes).map_err(|e| fail(&e))?;
        let mut code = read_back(&file, input).map_err(|reason| failed(input, &reason))?;
        code.align = align;
        code.frame = frame;
        code.calls = calls;
        for range in compiled_locations {
            debug::locate(&mut code.debug.locations, range.0, range.1);
        }
        code.debug.body = unwind.last().map_or(0, |(offset, _)| *offset);
        code.debug.frame = debug::prologue(&**isa, &unwind);
        let end = u64::from(end.unwrap_or(0));
        if self.maps_data() && end < code.bytes.len() as u64 {
            code.labels.push(Label {
                name: "$d".into(),
                offset: end,
            });
        }
        Ok(code)
    }
}

impl Cranelift {
    /// Whether even a leaf function without a frame has a return address and a frame pointer on the stack: always on
    /// x86-64, to reach stack arguments elsewhere.
    fn sets_up(&self, signature: &Signature) -> bool {
        let x86_64 = matches!(self.isa.triple().architecture, target_lexicon::Architecture::X86_64);
        x86_64 || signature.params.len() > 8
    }

    /// Whether objects say which bytes of a section are data: on AArch64 linkers patch what looks like an instruction
    /// sequence with an erratum, and must not do so to constants.
    fn maps_data(&self) -> bool {
        matches!(self.isa.triple().architecture, target_lexicon::Architecture::Aarch64(_))
    }
}

/// The only function of an object, with its relocations and the labels that they refer to.
fn read_back(file: &::object::File, input: &Input) -> std::result::Result<Code, String> {
    let named = |name: &str| {
        file.symbols()
            .find(|symbol| symbol.name() == Ok(name) && symbol.is_definition())
    };
    let symbol = named(&input.name).ok_or("its symbol is missing")?;
    let section = (symbol.section_index())
        .and_then(|index| file.section_by_index(index).ok())
        .ok_or("its section is missing")?;
    let start = symbol.address();
    let bytes = section.data().map_err(|e| e.to_string())?;
    // COFF symbols have no size; the function is all that the section holds.
    let end = if symbol.size() == 0 {
        bytes.len() as u64
    } else {
        start + symbol.size()
    };
    let bytes = usize::try_from(start)
        .ok()
        .and_then(|start| bytes.get(start..usize::try_from(end).ok()?))
        .ok_or("its code lies outside its section")?;

    let implicit = file.format() == ::object::BinaryFormat::Coff;
    let mut labels = BTreeMap::new();
    let mut relocations = Vec::new();
    let known: HashSet<&str> = input.symbols.iter().map(String::as_str).collect();
    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(index) = relocation.target() else {
            return Err(format!("the relocation at {offset} has no symbol"));
        };
        let target = file.symbol_by_index(index).map_err(|e| e.to_string())?;
        let name = target.name().map_err(|e| e.to_string())?;
        let symbol = if target.is_local() && target.is_definition() {
            // RISC-V: the low part of an address refers to the instruction that has the high part.
            if target.section_index() != Some(section.index()) {
                return Err(format!(
                    "the relocation at {offset} refers to {name}, which is data of its own"
                ));
            }
            let label = format!(".L{}_{}", input.name, target.address() - start);
            labels.insert(target.address() - start, label.clone());
            label
        } else if name == input.name || known.contains(name) {
            name.to_owned()
        } else {
            return Err(format!(
                "it needs the library routine {name}: the target has no instruction for one of its operations"
            ));
        };
        relocations.push(Relocation {
            offset: offset - start,
            symbol,
            addend: if implicit { 0 } else { relocation.addend() },
            flags: relocation.flags(),
        });
    }
    relocations.sort_by_key(|relocation| relocation.offset);
    Ok(Code {
        name: input.name.clone(),
        exported: input.exported,
        bytes: bytes.to_vec(),
        align: 1,
        relocations,
        labels: (labels.into_iter())
            .map(|(offset, name)| Label { name, offset })
            .collect(),
        frame: 0,
        calls: Vec::new(),
        costs: Vec::new(),
        float: false,
        debug: DebugMap::default(),
    })
}
