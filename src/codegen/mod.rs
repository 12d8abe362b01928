//! CLIF → machine code.
//!
//! A [`Backend`] turns one function into bytes, relocations and a frame size. Nothing else is asked of it, so that a
//! back end of our own, or one that lands in Cranelift later, fits behind the same trait.

pub mod counts;
mod cranelift;
pub mod debug;
pub mod native;
pub mod rv32;
pub mod soft_float;
#[cfg(test)]
mod tests;
pub mod thumb2;
pub mod timing;

pub use self::cranelift::{Cranelift, Optimize};

use crate::error::{Error, Result};
use crate::target::{Arch, Target};
use ::object::RelocationFlags;
use cranelift_codegen::ir::{Block, ExternalName, Function, InstructionData};
use cranelift_codegen::isa::CallConv;
use native::backend::Native;
use native::layout::Cost;
use soft_float::Routine;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A function to compile.
#[derive(Clone, Debug)]
pub struct Input {
    /// Symbol.
    pub name: String,
    /// Whether applications see it.
    pub exported: bool,
    /// Body; external names are resolved through `symbols`.
    pub function: Function,
    /// Symbols that the body refers to: `UserExternalName { namespace: 0, index }` is the one at that index.
    pub symbols: Vec<String>,
}

/// A relocation within a piece of code or data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Offset in bytes of the place.
    pub offset: u64,
    /// What it refers to.
    pub symbol: String,
    /// Addend (already in the instruction for COFF and Arm, where it is 0).
    pub addend: i64,
    /// The format's own type.
    pub flags: RelocationFlags,
}

/// A label inside a function: one that a relocation refers to (RISC-V's `PCREL_LO12`), or a mapping symbol (`$d` where
/// AArch64's constants begin), whose name need not be unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Local symbol.
    pub name: String,
    /// Offset in bytes in the function.
    pub offset: u64,
}

/// Machine code of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Symbol.
    pub name: String,
    /// Whether applications see it.
    pub exported: bool,
    /// Machine code.
    pub bytes: Vec<u8>,
    /// Alignment in bytes.
    pub align: u64,
    /// Relocations, by offset.
    pub relocations: Vec<Relocation>,
    /// Labels that relocations refer to, and mapping symbols.
    pub labels: Vec<Label>,
    /// Bytes of stack that the function itself uses, its return address and saved registers included.
    pub frame: u32,
    /// Symbols it calls, sorted, without repetition.
    pub calls: Vec<String>,
    /// Instructions for each run of a block or an edge of the input; empty where the back end does not count.
    pub costs: Vec<Cost>,
    /// Whether it has instructions of a floating-point unit that the target's architecture has as an option.
    pub float: bool,
    /// What a debugger asks of it.
    pub debug: debug::DebugMap,
}

/// Machine code for one instruction set.
pub trait Backend: Sync {
    /// Compiles one function. The result depends on the input alone.
    ///
    /// # Errors
    /// [`Code::Internal`](crate::error::Code::Internal) where the function cannot be compiled: kernels are written for
    /// the target's machine, so this is never the model's fault.
    fn compile(&self, input: &Input) -> Result<Code>;
}

/// The back end for a target.
///
/// # Errors
/// [`Code::Internal`](crate::error::Code::Internal) if the target table names what the back end does not know.
pub fn backend(target: &Target) -> Result<Box<dyn Backend>> {
    Ok(match target.arch() {
        Arch::Thumb2 | Arch::Riscv32 => Box::new(Native::new(target)?),
        Arch::X86_64 | Arch::Aarch64 | Arch::Riscv64 => Box::new(Cranelift::new(target, Optimize::None)?),
    })
}

/// [`backend`]; with `far`, symbols may lie anywhere in the address space.
///
/// # Errors
/// As [`backend`].
pub fn backend_with(target: &Target, far: bool) -> Result<Box<dyn Backend>> {
    if far && target.arch() == Arch::X86_64 {
        return Ok(Box::new(Cranelift::through_table(target)?));
    }
    backend(target)
}

/// Whether float operations are calls of routines on `target`.
pub fn has_soft_float(target: &Target) -> bool {
    match target.arch() {
        Arch::Thumb2 => !(target.has("vfpv4") || target.has("fpv5")),
        Arch::Riscv32 => !target.has("f"),
        Arch::X86_64 | Arch::Aarch64 | Arch::Riscv64 => false,
    }
}

/// Prepares functions for a target without floating point: their float operations become calls of routines. Returns
/// the routines that they need, hidden, each once; `symbol` names them.
///
/// # Errors
/// [`Code::Internal`](crate::error::Code::Internal) for an operation without a routine.
pub fn soften(
    inputs: &mut [Input],
    target: &Target,
    symbol: impl Fn(Routine) -> String,
) -> Result<Vec<(Routine, Input)>> {
    if !has_soft_float(target) {
        return Ok(Vec::new());
    }
    let mut needed = BTreeSet::new();
    for input in inputs {
        // What there is no routine for becomes what there is one for.
        native::expand::expand(&mut input.function, target.arch() == Arch::Thumb2);
        let symbols = &mut input.symbols;
        let softened = soft_float::legalize(&mut input.function, |routine| {
            needed.insert(routine);
            symbols.push(symbol(routine));
            symbols.len() as u32 - 1
        });
        softened.map_err(|operation| failed(input, &format!("there is no routine for {operation}")))?;
    }
    // Counting leading zeros is an instruction of Thumb-2, and a loop on RISC-V.
    let has_clz = target.arch() == Arch::Thumb2;
    let convention = CallConv::triple_default(&target.triple);
    let input = |routine: Routine| Input {
        name: symbol(routine),
        exported: false,
        function: routine.function(convention, has_clz),
        symbols: Vec::new(),
    };
    Ok(needed.into_iter().map(|routine| (routine, input(routine))).collect())
}

/// Compiles functions, in parallel where there are several; results are in the order of the inputs.
///
/// # Errors
/// That of the first input that fails. A panic of the back end is reported the same way, with the function's name.
pub fn compile(inputs: Vec<Input>, target: &Target) -> Result<Vec<Code>> {
    let backend = backend(target)?;
    compile_with(&*backend, &inputs)
}

/// [`compile`] with a given back end.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(backend: &dyn Backend, inputs: &[Input]) -> Result<Vec<Code>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(inputs.len() / 4).max(1);
    if threads == 1 {
        return inputs.iter().map(|input| isolated(backend, input)).collect();
    }
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(inputs.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((i, input)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    inputs.get(i).map(|input| (i, input))
                } {
                    let result = isolated(backend, input);
                    results
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push((i, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_unstable_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Code generators fail by panicking; here that becomes an error with the function's name.
fn isolated(backend: &dyn Backend, input: &Input) -> Result<Code> {
    catch_unwind(AssertUnwindSafe(|| backend.compile(input))).unwrap_or_else(|panic| {
        let reason = (panic.downcast_ref::<&str>().copied())
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no reason given");
        Err(failed(input, &format!("the code generator panicked: {reason}")))
    })
}

/// A function that cannot be compiled, with its text.
fn failed(input: &Input, reason: &str) -> Error {
    Error::internal(format!("cannot compile {}: {reason}", input.name))
        .at(format!("function {}", input.name))
        .attach(format!("{}.clif", input.name), input.function.display().to_string())
}

/// The symbols that a function calls, sorted, without repetition.
fn calls(input: &Input) -> Vec<String> {
    let calls: BTreeSet<&str> = call_sites(input).map(|(_, name)| name).collect();
    calls.into_iter().map(str::to_owned).collect()
}

/// Every call of a symbol, with its block. Intrinsics are no calls.
fn call_sites(input: &Input) -> impl Iterator<Item = (Block, &str)> {
    let function = &input.function;
    let instructions = |block| function.layout.block_insts(block).map(move |inst| (block, inst));
    let name = |(block, inst)| {
        let InstructionData::Call { func_ref, .. } = function.dfg.insts[inst] else {
            return None;
        };
        let ExternalName::User(name) = function.dfg.ext_funcs[func_ref].name else {
            return None;
        };
        let name = &function.params.user_named_funcs()[name];
        let symbol = (name.namespace == 0).then(|| input.symbols.get(name.index as usize))??;
        Some((block, symbol.as_str()))
    };
    function.layout.blocks().flat_map(instructions).filter_map(name)
}

/// The most bytes of stack that a call of `entry` uses, its callees included. Symbols that are not among `codes` count
/// nothing. `None` if `entry` is not there or calls itself.
pub fn stack(codes: &[Code], entry: &str) -> Option<u64> {
    let index: BTreeMap<&str, usize> = codes
        .iter()
        .enumerate()
        .map(|(i, code)| (code.name.as_str(), i))
        .collect();
    let mut depths: Vec<Option<u64>> = vec![None; codes.len()];
    let mut open = vec![false; codes.len()];
    let root = *index.get(entry)?;
    let mut work = vec![root];
    while let Some(&i) = work.last() {
        let callees = || {
            codes[i]
                .calls
                .iter()
                .filter_map(|name| index.get(name.as_str()).copied())
        };
        if open[i] {
            let deepest = callees().map(|callee| depths[callee]).max().flatten().unwrap_or(0);
            depths[i] = Some(u64::from(codes[i].frame) + deepest);
            open[i] = false;
            work.pop();
        } else if depths[i].is_some() {
            work.pop();
        } else {
            open[i] = true;
            for callee in callees() {
                if open[callee] {
                    return None;
                }
                work.push(callee);
            }
        }
    }
    depths[root]
}
