//! Runs kernels on this machine in unit tests, between unmapped pages.
//!
//! The only unsafe code of the tests is here: calling machine code, and page protection.
#![allow(unsafe_code)]

pub mod emulator;
pub mod intrinsic;

use super::emit::Built;
use super::lowered::{Lowered, LoweredOperand};
use super::rows::{RowForm, Steps};
use super::{Overlap, Parameter};
use crate::codegen::{self, Input};
use crate::graph::{Graph, OpId, TensorId};
use crate::target::{Arch, Cpu, Dot, Machine, Target};
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, ir::Function};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module};
use emulator::Kind;
use std::collections::BTreeMap;

/// Fills whatever a kernel must not touch, and outputs before the call.
const CANARY: u8 = 0xa5;

/// A target of the host's architecture with `cpu`, or `None` (said on standard error) if this machine lacks it.
pub fn host(cpu: &str) -> Option<Target> {
    let target = Target::new(None, Some(cpu), None).ok()?;
    let here = target.arch() == Arch::X86_64 && x86_has(cpu) || cfg!(target_arch = "aarch64") && cpu == "generic-a64";
    if !here {
        eprintln!("this machine cannot run {cpu}: not tested");
    }
    here.then_some(target)
}

/// Every CPU of the target table that this machine can run.
pub fn hosts() -> Vec<Target> {
    let target = Target::new(None, None, None).expect("tests run on a supported host");
    crate::target::CPUS
        .iter()
        .filter(|cpu| cpu.arch == target.arch())
        .filter_map(|cpu| host(cpu.name))
        .collect()
}

/// [`hosts`], and CPUs that exist only for tests: this machine's, with less than it has or in other schedules, so that
/// the code for other architectures runs here too.
pub fn hosts_and_others() -> Vec<Target> {
    let mut targets = hosts();
    let Some(base) = targets.first().cloned() else {
        return targets;
    };
    let machine = *base.machine();
    let others = [
        (
            "scalar",
            Machine {
                simd128: false,
                vector_registers: 0,
                ..machine
            },
        ),
        (
            "scalar, 32 bits",
            Machine {
                simd128: false,
                vector_registers: 0,
                integer_registers: 13,
                integer_bytes: 4,
                ..machine
            },
        ),
        (
            "DSP instructions, 32 bits",
            Machine {
                simd128: false,
                vector_registers: 0,
                integer_registers: 13,
                integer_bytes: 4,
                dsp: true,
                ..machine
            },
        ),
        (
            "signed dot products",
            Machine {
                dot: Some(Dot::Signed),
                ..machine
            },
        ),
        (
            "many registers",
            Machine {
                vector_registers: 32,
                ..machine
            },
        ),
    ];
    targets.extend(others.map(|(name, machine)| Target {
        // A few bytes for each test process.
        cpu: Box::leak(Box::new(Cpu {
            name,
            machine,
            arch: base.cpu.arch,
            about: "",
            features: base.cpu.features,
        })),
        ..base.clone()
    }));
    targets
}

/// One target for each CPU of the table, on any triple, for tests that only compile.
pub fn all_targets() -> Vec<Target> {
    crate::target::every_cpu()
}

#[cfg(target_arch = "x86_64")]
fn x86_has(cpu: &str) -> bool {
    let v2 = is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("ssse3");
    let v3 = v2 && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    // CPUID leaf 7, subleaf 1: EAX bit 4 is AVX-VNNI.
    let vnni = std::arch::x86_64::__cpuid_count(7, 1).eax & 1 << 4 != 0;
    match cpu {
        "x86-64-v2" => v2,
        "x86-64-v3" => v3,
        "x86-64-v3-vnni" => v3 && vnni,
        _ => false,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn x86_has(_: &str) -> bool {
    false
}

/// Cranelift's instruction set for `target`, as kernels are compiled: no e-graph, verifier on.
pub fn isa(target: &Target) -> OwnedTargetIsa {
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", "none"),
        ("enable_verifier", "true"),
        ("regalloc_checker", "true"),
        ("is_pic", "false"),
    ] {
        flags.set(name, value).expect("a setting of this Cranelift");
    }
    let mut builder = isa::lookup(target.triple.clone()).expect("a triple of the table");
    for feature in target.cpu.features {
        builder.enable(feature).expect("a feature of the table");
    }
    builder
        .finish(settings::Flags::new(flags))
        .expect("consistent settings")
}

/// Compiles for `target` without running: size in bytes, and the selected instructions as text.
pub fn assemble(function: &Function, target: &Target) -> (usize, String) {
    if matches!(target.arch(), Arch::Thumb2 | Arch::Riscv32) {
        // These back ends have no text form; what they lack they refuse.
        let mut inputs = vec![Input {
            name: "kernel".to_owned(),
            exported: false,
            function: function.clone(),
            symbols: Vec::new(),
        }];
        codegen::soften(&mut inputs, target, |routine| routine.name().to_owned()).expect("routines for all floats");
        return match codegen::compile(inputs, target) {
            Ok(codes) => (codes[0].bytes.len(), String::new()),
            Err(error) => panic!("{target}: {error}\n{}", function.display()),
        };
    }
    let mut context = Context::for_function(function.clone());
    context.want_disasm = true;
    let isa = isa(target);
    let code = match context.compile(&*isa, &mut ControlPlane::default()) {
        Ok(code) => code,
        Err(error) => panic!("{:?}\n{}", error.inner, function.display()),
    };
    (code.code_buffer().len(), code.vcode.clone().unwrap_or_default())
}

/// Machine code for `target`; kernels refer to no symbols.
pub fn machine_code(function: &Function, target: &Target) -> Vec<u8> {
    if matches!(target.arch(), Arch::Thumb2 | Arch::Riscv32) {
        let input = Input {
            name: "kernel".to_owned(),
            exported: false,
            function: function.clone(),
            symbols: Vec::new(),
        };
        let mut codes = codegen::compile(vec![input], target).unwrap_or_else(|error| panic!("{target}: {error}"));
        let code = codes.remove(0);
        assert!(code.relocations.is_empty(), "a kernel refers to symbols");
        return code.bytes;
    }
    let mut context = Context::for_function(function.clone());
    let isa = isa(target);
    let code = match context.compile(&*isa, &mut ControlPlane::default()) {
        Ok(code) => code,
        Err(error) => panic!("{:?}\n{}", error.inner, function.display()),
    };
    assert!(code.buffer.relocs().is_empty(), "a kernel refers to symbols");
    code.code_buffer().to_vec()
}

/// The default CPU and the dot-product CPU of other architectures that can be emulated here.
pub fn emulated() -> Vec<Target> {
    let host = Target::new(None, None, None).expect("tests run on a supported host");
    let mut targets = all_targets();
    targets.retain(|target| target.arch() != host.arch() && emulator::available(target));
    // Of CPUs whose kernels are the same, one.
    let same = |cpu: &str| {
        ["cortex-m7", "cortex-m33", "rv32im", "rv32imac", "rv32imafc"]
            .iter()
            .any(|name| {
                cpu == *name || *name != "rv32im" && cpu.strip_prefix(name).is_some_and(|rest| rest.starts_with('+'))
            })
    };
    targets.retain(|target| !same(target.cpu.name));
    targets
}

/// A kernel as machine code in this process.
pub struct Compiled {
    module: Option<JITModule>,
    code: *const u8,
    arguments: usize,
}

impl Compiled {
    /// Compiles `built` for `target`, which must be this machine ([`host`]).
    pub fn new(built: &Built, target: &Target) -> Self {
        let mut module = JITModule::new(JITBuilder::with_isa(
            isa(target),
            cranelift_module::default_libcall_names(),
        ));
        let mut context = Context::for_function(built.function.clone());
        let arguments = context.func.signature.params.len();
        let id = module
            .declare_function("kernel", Linkage::Local, &context.func.signature)
            .expect("a fresh module");
        if let Err(error) = module.define_function(id, &mut context) {
            panic!("{error:?}\n{}", built.function.display());
        }
        module.finalize_definitions().expect("nothing to resolve");
        let code = module.get_finalized_function(id);
        Compiled {
            module: Some(module),
            code,
            arguments,
        }
    }

    /// Calls the kernel. The pointers must be what it expects.
    pub fn call(&self, p: &[*mut u8]) {
        assert_eq!(p.len(), self.arguments);
        type P = *mut u8;
        // SAFETY: the code was just compiled with a signature of exactly these pointers in the C convention.
        unsafe {
            use std::mem::transmute as t;
            match *p {
                [a] => t::<*const u8, extern "C" fn(P)>(self.code)(a),
                [a, b] => t::<*const u8, extern "C" fn(P, P)>(self.code)(a, b),
                [a, b, c] => t::<*const u8, extern "C" fn(P, P, P)>(self.code)(a, b, c),
                [a, b, c, d] => t::<*const u8, extern "C" fn(P, P, P, P)>(self.code)(a, b, c, d),
                [a, b, c, d, e] => t::<*const u8, extern "C" fn(P, P, P, P, P)>(self.code)(a, b, c, d, e),
                [a, b, c, d, e, f] => t::<*const u8, extern "C" fn(P, P, P, P, P, P)>(self.code)(a, b, c, d, e, f),
                _ => panic!("kernels of {} pointers are not callable from tests yet", p.len()),
            }
        }
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: the only pointer to the code is in `self`.
            unsafe { module.free_memory() };
        }
    }
}

/// Which end of a [`Guarded`] buffer touches an unmapped page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The first byte follows an unmapped page.
    Start,
    /// The last byte precedes one (but for alignment).
    End,
}

/// A buffer in pages of its own, unmapped pages on either side, canaries in what is left of them.
pub struct Guarded {
    pages: region::Allocation,
    offset: usize,
    len: usize,
}

impl Guarded {
    /// A buffer that holds `bytes`, at an address aligned to `align`, read-only if `constant`.
    pub fn new(bytes: &[u8], align: usize, edge: Edge, constant: bool) -> Self {
        let page = region::page::size();
        let inner = bytes.len().next_multiple_of(page).max(page);
        let mut pages = region::alloc(inner + 2 * page, region::Protection::READ_WRITE).expect("memory for a test");
        let offset = match edge {
            Edge::Start => page,
            Edge::End => (page + inner - bytes.len()) / align * align,
        };
        let base = pages.as_mut_ptr::<u8>();
        // SAFETY: all of it lies within the allocation made above, and nothing else refers to it.
        unsafe {
            std::slice::from_raw_parts_mut(base, inner + 2 * page).fill(CANARY);
            std::slice::from_raw_parts_mut(base.add(offset), bytes.len()).copy_from_slice(bytes);
            region::protect(base, page, region::Protection::NONE).expect("own pages");
            region::protect(base.add(page + inner), page, region::Protection::NONE).expect("own pages");
            if constant {
                region::protect(base.add(page), inner, region::Protection::READ).expect("own pages");
            }
        }
        Guarded {
            pages,
            offset,
            len: bytes.len(),
        }
    }

    /// The buffer's address.
    pub fn pointer(&self) -> *mut u8 {
        // SAFETY: `offset` is within the allocation.
        unsafe { self.pages.as_ptr::<u8>().cast_mut().add(self.offset) }
    }

    /// The buffer's contents; panics if something around it was written.
    pub fn bytes(&self) -> Vec<u8> {
        let page = region::page::size();
        let inner = self.pages.len() - 2 * page;
        // SAFETY: the pages between the guards are readable.
        let all = unsafe { std::slice::from_raw_parts(self.pages.as_ptr::<u8>().add(page), inner) };
        let start = self.offset - page;
        let outside = all[..start].iter().chain(&all[start + self.len..]);
        assert!(
            outside.clone().all(|byte| *byte == CANARY),
            "written outside the buffer"
        );
        all[start..start + self.len].to_vec()
    }
}

/// A parameter's bytes; checks their promised length and that they are the same twice.
pub fn contents(parameter: &Parameter) -> Vec<u8> {
    let mut bytes = Vec::new();
    parameter.contents.write_to(&mut bytes).expect("constants in memory");
    assert_eq!(bytes.len() as u64, parameter.contents.len(), "{}", parameter.name);
    let mut again = Vec::new();
    parameter.contents.write_to(&mut again).expect("constants in memory");
    assert_eq!(bytes, again, "{}", parameter.name);
    bytes
}

/// Runs the kernel of operator `op` on `values` (little-endian elements of each activation that it reads) and returns
/// its output's bytes. Runs with all buffers against a guard page before and after, and requires equal outputs. Targets
/// of another architecture must be from [`emulated`].
pub fn run(
    graph: &Graph,
    op: OpId,
    lowered: &Lowered,
    target: &Target,
    values: &BTreeMap<TensorId, Vec<u8>>,
) -> Vec<u8> {
    let output = graph.op(op).output();
    let buffers = buffers(graph, op, lowered, values);
    let edges = [Edge::End, Edge::Start];
    let host = Target::new(None, None, None).expect("tests run on a supported host");
    let [first, second] = if target.arch() == host.arch() {
        let compiled = Compiled::new(&lowered.built, target);
        edges.map(|edge| {
            let guarded: Vec<Guarded> = buffers
                .iter()
                .map(|(align, kind, bytes)| Guarded::new(bytes, *align as usize, edge, *kind == Kind::Constant))
                .collect();
            let pointers: Vec<*mut u8> = guarded.iter().map(Guarded::pointer).collect();
            compiled.call(&pointers);
            let bytes: Vec<Vec<u8>> = guarded.iter().map(Guarded::bytes).collect();
            let result = buffers.iter().position(|(_, kind, _)| *kind == Kind::Output);
            bytes[result.expect("a kernel has an output")].clone()
        })
    } else {
        let code = machine_code(&lowered.built.function, target);
        edges.map(|edge| emulator::call(target, &code, &buffers, edge))
    };
    assert_eq!(first, second, "the output depends on addresses");
    if target.arch() == host.arch() {
        for overlap in &lowered.overlaps {
            let found = run_overlapping(lowered, output, overlap, &buffers, target);
            assert_eq!(found, first, "{}: over the input, {overlap:?}", lowered.schedule);
        }
    }
    first
}

/// The same for targets from [`emulated`], once, and how many instructions that took, where they can be counted.
pub fn run_counted(
    graph: &Graph,
    op: OpId,
    lowered: &Lowered,
    target: &Target,
    values: &BTreeMap<TensorId, Vec<u8>>,
) -> (Vec<u8>, Option<u64>) {
    let code = machine_code(&lowered.built.function, target);
    emulator::call_counted(target, &code, &buffers(graph, op, lowered, values), Edge::End)
}

/// What the kernel's pointers point at: alignment, kind, bytes.
fn buffers(
    graph: &Graph,
    op: OpId,
    lowered: &Lowered,
    values: &BTreeMap<TensorId, Vec<u8>>,
) -> Vec<(u64, Kind, Vec<u8>)> {
    let output = graph.op(op).output();
    lowered
        .operands
        .iter()
        .map(|operand| match operand {
            LoweredOperand::Tensor(id) => {
                let tensor = graph.tensor(*id);
                let (kind, bytes) = match &tensor.data {
                    _ if *id == output => (Kind::Output, vec![CANARY; tensor.bytes()]),
                    Some(data) => (Kind::Constant, data.as_slice().to_vec()),
                    None => (Kind::Constant, values[id].clone()),
                };
                assert_eq!(bytes.len(), tensor.bytes(), "{}", tensor.describe());
                (tensor.dtype.bytes() as u64, kind, bytes)
            }
            LoweredOperand::Parameter(parameter) => (parameter.align, Kind::Constant, contents(parameter)),
            LoweredOperand::Row(_) | LoweredOperand::Window(_) | LoweredOperand::State => {
                panic!("a kernel of rows")
            }
            LoweredOperand::Scratch => {
                let scratch = lowered.scratch.expect("an operand asks for scratch");
                (scratch.align, Kind::Scratch, vec![CANARY; scratch.size as usize])
            }
        })
        .collect()
}

/// The result of the only operator of `graph`, made row by row: every row in pages of its own. Panics if it is another
/// where each row of the result begins as close below one of the input's as the call allows.
pub fn run_rows(
    graph: &Graph,
    op: OpId,
    form: &RowForm,
    target: &Target,
    values: &BTreeMap<TensorId, Vec<u8>>,
) -> Vec<u8> {
    let compiled: Vec<Compiled> = form
        .calls
        .iter()
        .map(|(_, call)| Compiled::new(&call.built, target))
        .collect();
    let apart = run_rows_at(graph, op, form, &compiled, values, None);
    for further in 0..2 {
        let over = run_rows_at(graph, op, form, &compiled, values, Some(further));
        assert!(
            over == apart,
            "{:?}: rows that lie over one another, on {target}",
            graph.op(op).kind
        );
    }
    apart
}

/// Each row of the result `over` steps further below a row of the input than it must be; apart from it if there is none.
fn run_rows_at(
    graph: &Graph,
    op: OpId,
    form: &RowForm,
    compiled: &[Compiled],
    values: &BTreeMap<TensorId, Vec<u8>>,
    over: Option<usize>,
) -> Vec<u8> {
    let output = graph.op(op).output();
    let mut result = vec![CANARY; graph.tensor(output).bytes()];
    let state = Guarded::new(
        &vec![CANARY; form.state.map_or(0, |state| state.size as usize)],
        16,
        Edge::Start,
        false,
    );
    let outside = form
        .outside
        .as_ref()
        .map(|outside| Guarded::new(&contents(outside), 4, Edge::End, true));
    let unit = |id: TensorId| graph.tensor(id).bytes() / graph.tensor(id).shape.nhwc()[1];
    for turn in 0..form.steps {
        let row = turn;
        let find = |(steps, _): &(Steps, Lowered)| steps.contains(row, turn);
        let number = form.calls.iter().position(find).expect("a call for every step");
        let call = &form.calls[number].1;
        let row_bytes = |id: TensorId, row: usize| &values[&id][row * unit(id)..(row + 1) * unit(id)];
        let mut held: Vec<Guarded> = Vec::new();
        let mut made = None;
        // The row of the input that the result lies over, and where.
        let mut shared: Option<(TensorId, usize, *mut u8)> = None;
        let by_rows = call
            .operands
            .iter()
            .any(|operand| matches!(operand, LoweredOperand::Row(id) if *id == output));
        let overlap = call.overlaps.first().filter(|_| by_rows);
        if let (Some(further), Some(overlap)) = (over, overlap) {
            let step = overlap.modulus.max(1) as usize * graph.tensor(output).dtype.bytes();
            let gap = (overlap.gap as usize).next_multiple_of(step) + further * step;
            let height = graph.tensor(overlap.input).shape.nhwc()[1] as i64;
            let all = match form.taps {
                Some(taps) => (0..taps.count)
                    .map(|tap| i64::from(row * taps.stride + tap * taps.dilation) - i64::from(taps.top))
                    .filter(|row| (0..height).contains(row))
                    .collect(),
                None => vec![i64::from(row)],
            };
            if let Some(below) = all.get(turn as usize % all.len().max(1)) {
                let bytes = row_bytes(overlap.input, *below as usize);
                let mut both = vec![CANARY; unit(output).max(gap + bytes.len())];
                both[gap..gap + bytes.len()].copy_from_slice(bytes);
                held.push(Guarded::new(&both, 4, Edge::Start, false));
                shared = Some((overlap.input, *below as usize, held[0].pointer().wrapping_add(gap)));
            }
        }
        let input_row = |held: &mut Vec<Guarded>, id: TensorId, row: usize| match shared {
            Some((input, below, pointer)) if (input, below) == (id, row) => pointer,
            _ => {
                let bytes = row_bytes(id, row);
                held.push(Guarded::new(bytes, graph.tensor(id).dtype.bytes(), Edge::End, true));
                held[held.len() - 1].pointer()
            }
        };
        let pointers: Vec<*mut u8> = (call.operands.iter())
            .map(|operand| {
                let guarded = match operand {
                    LoweredOperand::Row(id) if *id == output && shared.is_some() => {
                        made = Some((0, row as usize * unit(output)));
                        return held[0].pointer();
                    }
                    LoweredOperand::Row(id) if *id == output => {
                        made = Some((held.len(), row as usize * unit(output)));
                        Guarded::new(&vec![CANARY; unit(output)], 4, Edge::End, false)
                    }
                    LoweredOperand::Tensor(id) if *id == output => {
                        made = Some((held.len(), 0));
                        Guarded::new(&result, 16, Edge::Start, false)
                    }
                    LoweredOperand::Row(id) => {
                        let row = form.taps.map_or(row, |taps| row * taps.stride - taps.top);
                        return input_row(&mut held, *id, row as usize);
                    }
                    LoweredOperand::Window(id) => {
                        let taps = form.taps.expect("a window has taps");
                        let height = graph.tensor(*id).shape.nhwc()[1] as i64;
                        let mut table = Vec::new();
                        for tap in 0..taps.count {
                            let y = i64::from(row * taps.stride + tap * taps.dilation) - i64::from(taps.top);
                            let pointer = if (0..height).contains(&y) {
                                input_row(&mut held, *id, y as usize)
                            } else {
                                // Nothing reads what has no row that stands for it.
                                outside.as_ref().map_or(std::ptr::null_mut(), Guarded::pointer)
                            };
                            table.extend((pointer as usize).to_le_bytes());
                        }
                        Guarded::new(&table, 8, Edge::End, true)
                    }
                    LoweredOperand::Tensor(id) => {
                        let data = graph.tensor(*id).data.as_ref().expect("a constant");
                        Guarded::new(data.as_slice(), 16, Edge::End, true)
                    }
                    LoweredOperand::Parameter(parameter) => {
                        Guarded::new(&contents(parameter), parameter.align as usize, Edge::End, true)
                    }
                    LoweredOperand::Scratch => {
                        let scratch = call.scratch.expect("an operand asks for scratch");
                        Guarded::new(
                            &vec![CANARY; scratch.size as usize],
                            scratch.align as usize,
                            Edge::End,
                            false,
                        )
                    }
                    LoweredOperand::State => return state.pointer(),
                };
                held.push(guarded);
                held[held.len() - 1].pointer()
            })
            .collect();
        compiled[number].call(&pointers);
        if let Some((index, at)) = made {
            let len = if by_rows { unit(output) } else { result.len() };
            result[at..at + len].copy_from_slice(&held[index].bytes()[..len]);
        }
        held.iter().for_each(|guarded| drop(guarded.bytes()));
        state.bytes();
    }
    result
}

/// The output if it begins as close below an input as `overlap` allows.
fn run_overlapping(
    lowered: &Lowered,
    output: TensorId,
    overlap: &Overlap,
    buffers: &[(u64, Kind, Vec<u8>)],
    target: &Target,
) -> Vec<u8> {
    let place = |id: TensorId| {
        let same = |operand: &LoweredOperand| matches!(operand, LoweredOperand::Tensor(found) if *found == id);
        lowered.operands.iter().position(same).expect("an operand")
    };
    let (from, to) = (place(overlap.input), place(output));
    let step = overlap.modulus.max(1) * buffers[to].0.max(buffers[from].0);
    let gap = overlap.gap.next_multiple_of(step) as usize;
    let (input, len) = (&buffers[from].2, buffers[to].2.len());
    let mut both = vec![CANARY; len.max(gap + input.len())];
    both[gap..gap + input.len()].copy_from_slice(input);
    let guarded: Vec<Guarded> = (buffers.iter().enumerate())
        .map(|(i, (align, kind, bytes))| match i {
            _ if i == to => Guarded::new(&both, 16, Edge::Start, false),
            _ => Guarded::new(bytes, *align as usize, Edge::Start, *kind == Kind::Constant),
        })
        .collect();
    let input_pointer = guarded[to].pointer().wrapping_add(gap);
    let pointers: Vec<*mut u8> = (guarded.iter().zip(&lowered.operands))
        .map(|(guarded, operand)| match operand {
            LoweredOperand::Tensor(id) if *id == overlap.input => input_pointer,
            _ => guarded.pointer(),
        })
        .collect();
    Compiled::new(&lowered.built, target).call(&pointers);
    guarded[to].bytes()[..len].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::emit::build;
    use cranelift_codegen::ir::types;

    #[test]
    fn a_kernel_runs() {
        for target in hosts() {
            let built = build(&target, 2, |e| {
                let (from, to) = (e.args[0], e.args[1]);
                e.counted(5, &[(from, 1), (to, 1)], &[], |e, p, _| {
                    let x = e.load(types::I8, p[0], 0);
                    e.store(x, p[1], 0);
                    vec![]
                });
            });
            let from = Guarded::new(b"words", 1, Edge::End, true);
            let to = Guarded::new(b".....", 1, Edge::Start, false);
            Compiled::new(&built, &target).call(&[from.pointer(), to.pointer()]);
            assert_eq!(to.bytes(), b"words");
        }
    }

    #[test]
    #[should_panic(expected = "written outside the buffer")]
    fn a_write_outside_is_seen() {
        let guarded = Guarded::new(b"abc", 1, Edge::Start, false);
        // SAFETY: still inside the page that the buffer lives in.
        unsafe { guarded.pointer().add(3).write(0) };
        guarded.bytes();
    }
}
