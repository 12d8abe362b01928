//! Functions through every back end.

use super::*;
use crate::kernels::emit::build;
use cranelift_codegen::ir::{InstBuilder, StackSlotData, StackSlotKind, types};

const TRIPLES: [&str; 4] = [
    "x86_64-unknown-linux-gnu",
    "x86_64-pc-windows-msvc",
    "aarch64-unknown-none",
    "riscv64gc-unknown-none-elf",
];

fn target(triple: &str) -> Target {
    Target::new(Some(triple), None, None).unwrap()
}

fn input(name: &str, function: Function) -> Input {
    Input {
        name: name.into(),
        exported: false,
        function,
        symbols: Vec::new(),
    }
}

fn one(input: Input, target: &Target) -> Result<Code> {
    compile(vec![input], target).map(|mut codes| codes.remove(0))
}

/// Fills and sums a stack slot of `bytes`, so that the slot is needed.
fn with_slot(target: &Target, bytes: u32) -> Function {
    build(target, 1, |e| {
        let slot =
            e.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3));
        let at = e.b.ins().stack_addr(e.pointer, slot, 0);
        e.store(at, e.args[0], 0);
    })
    .function
}

#[test]
fn every_cpu_compiles() {
    for target in crate::target::every_cpu() {
        let code = one(input("f", with_slot(&target, 16)), &target).unwrap();
        assert!(!code.bytes.is_empty(), "{target}");
        assert!(code.relocations.is_empty() && code.labels.is_empty(), "{target}");
    }
}

#[test]
fn frames_count_slots_and_return_address() {
    for target in TRIPLES.map(target) {
        let frame = one(input("f", with_slot(&target, 4096)), &target).unwrap().frame;
        // The slot, frame pointer and return address; nothing else is kept here.
        assert_eq!(frame, 4096 + 16, "{target}");
        let leaf = build(&target, 1, |_| ()).function;
        let leaf = one(input("leaf", leaf), &target).unwrap().frame;
        let pushed = if target.arch() == crate::target::Arch::X86_64 {
            16
        } else {
            0
        };
        assert_eq!(leaf, pushed, "{target}");
    }
}

#[test]
fn the_same_bytes_in_any_number_of_threads() {
    for target in TRIPLES.map(target) {
        let inputs: Vec<Input> = (1..40)
            .map(|i| input(&format!("f{i}"), with_slot(&target, 16 * i)))
            .collect();
        let alone: Vec<Code> = inputs
            .iter()
            .map(|input| one(input.clone(), &target).unwrap())
            .collect();
        assert_eq!(compile(inputs, &target).unwrap(), alone);
    }
}

#[test]
fn constants_are_marked() {
    let target = target("aarch64-unknown-none");
    let function = build(&target, 1, |e| {
        let bytes: Vec<u8> = (1..17).collect();
        let constant = e.b.func.dfg.constants.insert(bytes.into());
        let vector = e.b.ins().vconst(types::I8X16, constant);
        e.store(vector, e.args[0], 0);
    })
    .function;
    let code = one(input("f", function), &target).unwrap();
    let at = code.bytes.windows(4).position(|bytes| bytes == [1, 2, 3, 4]).unwrap() as u64;
    assert_eq!((code.labels.len(), code.labels[0].name.as_str()), (1, "$d"));
    // Padding up to the constant's alignment belongs to it.
    assert!(
        (at - 15..=at).contains(&code.labels[0].offset),
        "{:?} {at}",
        code.labels
    );
    // The instruction before is the return.
    let end = code.labels[0].offset as usize;
    assert_eq!(code.bytes[end - 4..end], 0xd65f_03c0u32.to_le_bytes());
}

#[test]
fn library_calls_are_refused() {
    let target = target("x86_64-unknown-linux-gnu");
    let function = build(&target, 1, |e| {
        let x = e.load(types::F32, e.args[0], 0);
        let x = e.b.ins().fma(x, x, x);
        e.store(x, e.args[0], 0);
    })
    .function;
    let error = one(input("square", function), &target).unwrap_err();
    assert!(
        error
            .message
            .contains("cannot compile square: it needs the library routine fmaf"),
        "{error}"
    );
}

#[test]
fn the_verifier_speaks() {
    let target = target("aarch64-unknown-none");
    let mut function = with_slot(&target, 16);
    function.signature.params.clear();
    let error = one(input("wrong", function), &target).unwrap_err();
    assert_eq!(error.code, crate::error::Code::Internal);
    assert!(error.message.contains("entry block parameters"), "{error}");
}

/// A back end that fails as Cranelift does.
struct Panics;

impl Backend for Panics {
    fn compile(&self, input: &Input) -> Result<Code> {
        panic!("no rule matched in {}", input.name)
    }
}

#[test]
fn panics_become_errors() {
    let target = target("aarch64-unknown-none");
    let inputs = [input("odd", with_slot(&target, 16))];
    let error = compile_with(&Panics, &inputs).unwrap_err();
    assert_eq!(
        error.message,
        "cannot compile odd: the code generator panicked: no rule matched in odd"
    );
}

#[test]
fn stack_of_the_deepest_path() {
    let code = |name: &str, frame: u32, calls: &[&str]| Code {
        name: name.into(),
        exported: false,
        bytes: Vec::new(),
        align: 1,
        relocations: Vec::new(),
        labels: Vec::new(),
        frame,
        calls: calls.iter().map(|call| (*call).to_owned()).collect(),
        costs: Vec::new(),
        float: false,
        debug: Default::default(),
    };
    let codes = [
        code("run", 100, &["a", "b"]),
        code("a", 10, &["c"]),
        code("b", 15, &[]),
        code("c", 7, &["outside"]),
        code("loop", 1, &["loop"]),
    ];
    assert_eq!(stack(&codes, "run"), Some(117));
    assert_eq!(stack(&codes, "b"), Some(15));
    assert_eq!(stack(&codes, "loop"), None);
    assert_eq!(stack(&codes, "missing"), None);
}
