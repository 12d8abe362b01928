//! `corerope verify`: compiled code against the evaluator, layer by layer.

use crate::cases::{self, root};
use crate::tools::{self, COREROPE, command};
use corerope::build::{Options, compile};
use corerope::data::Source;
use corerope::target::Target;
use corerope::verify::{sets, verify};
use cranelift_codegen::ir::{Function, InstructionData, Opcode};
use std::fs::File;
use std::sync::Arc;

/// Every fixture, and the shared models where they are.
#[test]
fn every_model() {
    let mut failures = Vec::new();
    let shared = cases::shared()
        .into_iter()
        .filter(|case| case.model.parent().is_some_and(|p| p.ends_with("models")));
    for case in cases::fixtures().into_iter().chain(shared) {
        let output = command(COREROPE)
            .current_dir(root())
            .arg("verify")
            .arg(&case.model)
            .output()
            .unwrap();
        if !output.status.success() {
            failures.push(format!("{}: {}\n{}", case.name, output.status, tools::text(&output)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Compiles `digits` with one kind of instruction of one kernel replaced by another, and returns what verify says.
fn broken(mutate: fn(&str, &mut Function)) -> String {
    let file = File::open(root().join("fixtures/digits.tflite")).unwrap();
    let mut options = Options::new(Target::new(None, None, None).unwrap(), "digits");
    options.mutate = Some(mutate);
    let build = compile(Arc::new(Source::map(file).unwrap()), &options, &mut |_, _| {})
        .unwrap()
        .unwrap();
    let findings = verify(&build, &sets(&build.graph, 1), None, &|_| {}).unwrap();
    findings.error().map_or("nothing".to_owned(), |error| error.to_string())
}

/// Replaces the first instruction `from` of a function by `to`.
fn replace(function: &mut Function, from: Opcode, to: Opcode) {
    let blocks: Vec<_> = function.layout.blocks().collect();
    let all: Vec<_> = blocks
        .into_iter()
        .flat_map(|block| function.layout.block_insts(block))
        .collect();
    let inst = all
        .into_iter()
        .find(|inst| function.dfg.insts[*inst].opcode() == from)
        .expect("the kernel has one");
    let InstructionData::Binary { args, .. } = function.dfg.insts[inst] else {
        panic!("{from} is binary")
    };
    function.dfg.insts[inst] = InstructionData::Binary { opcode: to, args };
}

/// One wrong instruction in a kernel, and verify names the layer.
#[test]
fn a_broken_kernel_is_named() {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return tools::skip("broken kernels: instructions are chosen for x86-64");
    }
    assert_eq!(broken(|_, _| {}), "nothing");
    let said = broken(|name, function| {
        if name == "max_pool_2" {
            replace(function, Opcode::Smax, Opcode::Smin);
        }
    });
    assert!(
        said.starts_with("layer 2 is the first that differs from the evaluator: element ["),
        "{said}"
    );
    assert!(
        said.contains("max_pool2d") && said.contains("kernel max_pool_2"),
        "{said}"
    );
    let said = broken(|name, function| {
        if name.starts_with("softmax") {
            replace(function, Opcode::Isub, Opcode::Iadd);
        }
    });
    assert!(
        said.starts_with("layer 5 is the first that differs from the evaluator: element ["),
        "{said}"
    );
}
