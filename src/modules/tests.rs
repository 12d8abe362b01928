//! Modules over graphs in their text form.

use super::*;
use crate::graph::text;

const GRAPH: &str = r#"graph "m"
input %0 "x" : int8[1,4]
const %1 "w" : int8[4] = [1,2,3,4]
const %2 "b" : int8[4] = [5,6,7,8]
%3 "mid" : int8[1,4] = external(%0, %1) call="KPU" args=in0,in1,out0 status
%4 "side" : int8[1,4] = reshape(%3)
%5 "y" : int8[1,4] = external(%4, %2, %1) call="other" args=in0,in1,in2,out0 status
output %5
"#;

fn module(text: &str) -> Result<Module> {
    Module::load(text, "kpu.toml", &|name| match name {
        "w.bin" => Ok(Bytes::from_vec(vec![1, 2, 3, 4])),
        "empty.bin" => Ok(Bytes::from_vec(Vec::new())),
        _ => Err(Error::model(format!("there is no file {name}"))),
    })
}

fn applied(modules: &[&str]) -> Result<Graph> {
    let modules = modules.iter().map(|text| module(text)).collect::<Result<Vec<_>>>()?;
    let mut graph = text::parse(GRAPH)?;
    apply(&mut graph, &modules)?;
    Ok(graph)
}

fn refused(modules: &[&str]) -> String {
    applied(modules).unwrap_err().to_string()
}

/// The lines of the calls, without types.
fn calls(graph: &Graph) -> Vec<String> {
    let text = text::print(graph);
    let lines = text
        .lines()
        .filter_map(|line| line.split_once(" = external").map(|(_, call)| call.to_owned()));
    lines.collect()
}

#[test]
fn an_operator_is_called_by_its_manifest() {
    let graph = applied(&[
        "module = \"kpu\"\n[[constant]]\nsymbol = \"kpu_w\"\nfile = \"w.bin\"\nbytes = 4\nalign = 64\nsection = \".kpu\"\n\
         [[function]]\noperator = \"KPU\"\nsymbol = \"kpu_run\"\narguments = [\"in0\", \"out0\", \"&kpu_w\", 7, \"workspace\"]\n\
         workspace = { bytes = 100, align = 32 }\nreturns = \"nothing\"\nowns = [\"w\"]\n",
    ])
    .unwrap();
    assert_eq!(
        calls(&graph)[0],
        "(%0) call=\"kpu_run\" args=in0,out0,&kpu_w,7,workspace workspace=100 align=32"
    );
    let blob = &graph.foreign.blobs[0];
    assert_eq!(
        (blob.symbol.as_str(), blob.align, blob.section.as_deref()),
        ("kpu_w", 64, Some(".kpu"))
    );
    // The other operator still reads the parameter: it stays.
    assert!(graph.foreign.owned.is_empty());
}

#[test]
fn nodes_become_one_call() {
    let graph = applied(&[
        "module = \"kpu\"\n[[function]]\nnodes = [\"mid\", \"s*\", \"y\"]\nsymbol = \"all\"\narguments = [\"in0\", \"in1\", \"out0\"]\nowns = [\"w\"]\n",
    ])
    .unwrap();
    assert_eq!(
        calls(&graph),
        ["(%0, %2) call=\"all\" args=in0,in1,out0 status name=\"y\""]
            .map(str::to_owned)
            .map(|s| s.replace(" name=\"y\"", ""))
    );
    assert_eq!(graph.foreign.owned[0].name, "w");
    assert_eq!(graph.foreign.owned[0].owner, "stored by module kpu");
    assert_eq!(graph.foreign.owned[0].bytes, 4);
}

#[test]
fn constants_that_no_argument_passes_are_left_out() {
    let graph = applied(&[
        "module = \"k\"\n[[function]]\noperator = \"other\"\nsymbol = \"f\"\narguments = [\"out0\", \"in0\", \"in2\"]\n",
    ])
    .unwrap();
    assert_eq!(calls(&graph)[1], "(%4, %1) call=\"f\" args=out0,in0,in1 status");
    assert_eq!(graph.foreign.owned[0].owner, "f does not take it");
}

/// A graph that lists constants of which its parameters lack the values: the module has those.
#[test]
fn owned_parameters_may_be_missing() {
    let open = GRAPH.replace("const %1 \"w\" : int8[4] = [1,2,3,4]", "input %1 \"w\" : int8[4]");
    let alone = open.replace(
        "(%4, %2, %1) call=\"other\" args=in0,in1,in2",
        "(%4, %2) call=\"other\" args=in0,in1",
    );
    let applied = |text: &str, owns: &str| {
        let function = "[[function]]\noperator = \"KPU\"\nsymbol = \"f\"\nowns";
        let mut graph = text::parse(text).unwrap();
        apply(
            &mut graph,
            &[module(&format!("module = \"k\"\n{function} = [\"{owns}\"]\n"))?],
        )
        .map(|()| graph)
    };
    let graph = applied(&alone, "w*").unwrap();
    assert_eq!(calls(&graph)[0], "(%0) call=\"f\" args=in0,out0 status");
    assert_eq!(graph.inputs.len(), 1);
    let error = applied(&open, "w").unwrap_err().to_string();
    assert!(
        error.contains("another operator reads it, and the model lacks it"),
        "{error}"
    );
    // All constants are no inputs.
    let error = applied(&alone, "*").unwrap_err().to_string();
    assert!(error.contains("the operators read no such parameter"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let function = |rest: &str| format!("module = \"k\"\n[[function]]\nsymbol = \"f\"\n{rest}\n");
    for (text, message) in [
        (
            function("operator = \"NPU\""),
            "has no operator \"NPU\" (at function \"f\" of module k); it has KPU, other",
        ),
        (function("nodes = [\"z*\"]"), "no operator named \"z*\""),
        (function("nodes = [\"mid\", \"y\"]"), "cannot be one call"),
        (
            function("operator = \"KPU\"\nowns = [\"nothing\"]"),
            "read no such parameter",
        ),
        (
            function("operator = \"KPU\"\narguments = [\"in2\", \"out0\"]"),
            "the argument in2 does not exist",
        ),
        (
            function("operator = \"KPU\"\narguments = [\"in0\"]"),
            "no argument takes the result out0",
        ),
        (
            function("operator = \"KPU\"\narguments = [\"in0\", \"out0\", \"workspace\"]"),
            "workspace does not exist",
        ),
        (
            function("operator = \"KPU\"\narguments = [\"in0\", \"out0\"]\nworkspace = { bytes = 4 }"),
            "no argument passes it",
        ),
        (
            function("operator = \"KPU\"\narguments = [\"x\"]"),
            "\"x\" is not an argument",
        ),
        (
            function("operator = \"KPU\"\nconvention = \"fast\""),
            "no convention \"fast\"",
        ),
        (
            function("operator = \"KPU\"\nreturns = \"int\""),
            "cannot return \"int\"",
        ),
        (
            function("operator = \"KPU\"\nnodes = [\"mid\"]"),
            "for one operator, or for nodes",
        ),
        (function(""), "for one operator, or for nodes"),
        (
            function("operator = \"KPU\"\nworkspace = { bytes = 4, align = 3 }"),
            "3 is not an alignment",
        ),
        (function("operator = \"KPU\"\nsize = 3"), "unknown field `size`"),
        (
            "module = \"k\"\n[[function]]\noperator = \"KPU\"\nsymbol = \"a b\"\n".into(),
            "cannot be a symbol",
        ),
        ("module = \"k\"\nobjects = [\"no.o\"]\n".into(), "there is no file no.o"),
        ("module = \"\"\n".into(), "has no name"),
        ("modul = \"k\"\n".into(), "unknown field `modul`"),
        ("module = \n".into(), "kpu.toml"),
    ] {
        let error = refused(&[&text]);
        assert!(error.contains(message), "{text}\n{error}");
    }
}

#[test]
fn constants_are_checked() {
    let constant = |rest: &str| format!("module = \"k\"\n[[constant]]\nsymbol = \"c\"\n{rest}\n");
    for (text, message) in [
        (constant("file = \"gone.bin\""), "there is no file gone.bin"),
        (
            constant("file = \"w.bin\"\nbytes = 5"),
            "w.bin has 4 bytes, 5 are announced",
        ),
        (constant("file = \"empty.bin\""), "empty.bin is empty"),
        (constant("file = \"w.bin\"\nalign = 0"), "an alignment of 0"),
        (constant("file = \"w.bin\"\nalign = 48"), "48 is not an alignment"),
        (constant("file = \"w.bin\"\nsection = \"a b\""), "name of a section"),
        (
            constant("file = \"w.bin\"\n[[constant]]\nsymbol = \"c\"\nfile = \"w.bin\""),
            "the constant is there twice",
        ),
    ] {
        let error = refused(&[&text]);
        assert!(error.contains(message), "{text}\n{error}");
    }
}

#[test]
fn two_modules_do_not_claim_the_same() {
    let owner = |module: &str, operator: &str| {
        format!("module = {module:?}\n[[function]]\noperator = {operator:?}\nsymbol = \"f_{module}\"\nowns = [\"w\"]\n")
    };
    let error = refused(&[&owner("a", "KPU"), &owner("b", "other")]);
    assert!(
        error.contains("both f_a of module a and f_b of module b own \"w\""),
        "{error}"
    );
    let constant = "module = \"a\"\n[[constant]]\nsymbol = \"c\"\nfile = \"w.bin\"\n";
    assert!(refused(&[constant, constant]).contains("two modules have a constant c"));
    let twice = owner("a", "KPU");
    assert!(refused(&[&twice, &twice]).contains("no operator \"KPU\""));
}

/// Any text is refused or read.
#[test]
fn damaged_manifests_never_panic() {
    let whole = "module = \"kpu\"\nobjects = []\n[[constant]]\nsymbol = \"kpu_w\"\nfile = \"w.bin\"\nbytes = 4\n\
        [[function]]\noperator = \"KPU\"\nsymbol = \"kpu_run\"\narguments = [\"in0\", \"out0\", \"&kpu_w\", 7]\n\
        workspace = { bytes = 100, align = 32 }\nowns = [\"w\"]\n";
    let mut state = 1u64;
    for _ in 0..2000 {
        let mut below = |n: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let mut bytes = whole.as_bytes().to_vec();
        for _ in 0..1 + below(3) {
            let at = below(bytes.len());
            match below(3) {
                0 => bytes[at] = b" \n\"[]{}=.,-90axk&+*"[below(19)],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\n\"[9"[below(4)]),
            }
        }
        let text = String::from_utf8(bytes).unwrap();
        let _ = applied(&[&text]);
    }
}
