//! External modules, worked out: an accelerator's object and blob in place of a layer of TVM's, and code in C in place
//! of layers of a TensorFlow Lite model. And what is wrong with modules, kernels and libraries, as the program says it.

use crate::cases::{self, root};
use crate::matrix::{self, Built};
use crate::tools::{self, COREROPE, command, installed, run};
use crate::tvm::{cortex_m7, file_of, fits, libraries, on_board};
use corerope::data::Source;
use corerope::frontend::{self, ReadOptions};
use corerope::graph::OpKind;
use object::{Object, ObjectSection, ObjectSymbol};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The module of `tests/tvm` in a directory, its object compiled.
fn kpu(directory: &Path, gcc: &str, flags: &[&str]) -> String {
    let of = |name: &str| root().join("tests/tvm").join(name);
    fs::copy(of("kpu.toml"), directory.join("kpu.toml")).unwrap();
    fs::copy(
        root().join("fixtures/tvm/kpu_layers.bin"),
        directory.join("kpu_layers.bin"),
    )
    .unwrap();
    let source = of("kpu.c");
    let files = ["-O2", "-Wall", "-Werror", "-c", source.to_str().unwrap(), "-o", "kpu.o"];
    run(directory, gcc, &[flags, &files[..]].concat());
    "kpu.toml".to_owned()
}

fn report(directory: &Path, arguments: &[&str]) -> serde_json::Value {
    let text = run(directory, COREROPE, &[&["inspect", "--json"], arguments].concat());
    serde_json::from_str(&text).unwrap()
}

/// The layer's weights are in the blob and nowhere else; the report names what was left out.
#[test]
fn an_accelerator_owns_its_weights() {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) || !installed("external modules", &["gcc"]) {
        return;
    }
    let directory = tools::directory("module-kpu");
    let manifest = kpu(&directory, "gcc", &[]);
    let archive = root().join("fixtures/tvm/tiny.graph.tar");
    let model = archive.to_str().unwrap();
    let before = report(&directory, &[model]);
    let after = report(&directory, &[model, "--module", &manifest]);
    let dropped = |report: &serde_json::Value| -> Vec<(String, String)> {
        let list = report["dropped"].as_array().unwrap().iter();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        list.map(|dropped| (text(&dropped["name"]), text(&dropped["reason"])))
            .collect()
    };
    let entry = |name: &str, reason: &str| (name.to_owned(), reason.to_owned());
    assert_eq!(
        dropped(&before),
        [entry("p2", "equal to \"p1\""), entry("p3", "no operator reads it")]
    );
    assert_eq!(
        dropped(&after),
        [
            entry("p0", "stored by module kpu"),
            entry("p1", "stored by module kpu"),
            entry("p3", "no operator reads it"),
        ]
    );

    run(
        &directory,
        COREROPE,
        &["build", model, "--module", &manifest, "-o", "tiny.a", "--name", "tiny"],
    );
    let bytes = fs::read(directory.join("tiny.a")).unwrap();
    let file = object::read::archive::ArchiveFile::parse(&*bytes).unwrap();
    let members: Vec<_> = (file.members())
        .map(|member| {
            let member = member.unwrap();
            let name = String::from_utf8_lossy(member.name()).into_owned();
            (name, object::File::parse(member.data(&*bytes).unwrap()).unwrap())
        })
        .collect();
    let [(first, _), .., (last, _)] = &members[..] else {
        panic!("{} members", members.len())
    };
    assert_eq!((first.as_str(), last.as_str()), ("tiny.o", "kpu.o"));
    let constants: Vec<_> = (members.iter())
        .flat_map(|(_, file)| file.sections())
        .filter(|section| section.kind() == object::SectionKind::ReadOnlyData && section.size() > 0)
        .filter(|section| section.name().unwrap().starts_with(".rodata.") || section.name() == Ok(".kpu"))
        .collect();
    let (blob, others): (Vec<_>, Vec<_>) = constants.iter().partition(|section| section.name() == Ok(".kpu"));
    let [blob] = blob[..] else {
        panic!("{} sections .kpu", blob.len())
    };
    assert_eq!((blob.align(), blob.size()), (64, 80));
    assert_eq!(
        blob.data().unwrap(),
        fs::read(directory.join("kpu_layers.bin")).unwrap()
    );
    let symbols = members.iter().flat_map(|(_, file)| file.symbols());
    let named = symbols.filter(|symbol| symbol.name() == Ok("kpu_layers") && symbol.is_definition());
    assert_eq!(named.map(|symbol| symbol.size()).collect::<Vec<_>>(), [80]);
    let total: u64 = others.iter().map(|section| section.size()).sum();
    assert_eq!(total, 16, "p2 alone is stored beside the blob");
}

/// The same on the board, with TVM's other kernels: TVM's results, bit for bit.
#[test]
fn an_accelerator_in_firmware() {
    let board = crate::firmware::Board {
        name: "module-cortex-m7",
        ..cortex_m7()
    };
    if !fits(&board) {
        return;
    }
    let directory = tools::directory("module-cortex-m7");
    kpu(&directory, "arm-none-eabi-gcc", board.flags);
    let manifest = directory.join("kpu.toml");
    let tiny: Vec<_> = libraries()
        .into_iter()
        .filter(|library| library.name() == "tiny.graph")
        .collect();
    let arguments = ["--module", manifest.to_str().unwrap()];
    on_board(&board, &tiny, &arguments);
}

/// The last two layers of a float model, computed by C that reads its own copy of their weights.
const LAYERS: &str = "\
#include <stdint.h>
extern const float tail_weights[];
int32_t tail(const float *x, float *y) {
    const float *w2 = tail_weights, *b2 = w2 + 256, *w3 = b2 + 16, *b3 = w3 + 16;
    float h[16], sum;
    int i, k;
    for (i = 0; i < 16; i++) {
        for (sum = 0, k = 0; k < 16; k++)
            sum += x[k] * w2[16 * i + k];
        sum += b2[i];
        h[i] = sum > 0 ? sum : 0;
    }
    for (sum = 0, k = 0; k < 16; k++)
        sum += h[k] * w3[k];
    y[0] = sum + b3[0];
    return 0;
}
";

#[test]
fn layers_of_a_tflite_model() {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) || !installed("external modules", &["gcc"]) {
        return;
    }
    let directory = tools::directory("module-tflite");
    let case = cases::fixtures()
        .into_iter()
        .find(|case| case.name == "sine_float")
        .unwrap();
    let source = Arc::new(Source::Memory(fs::read(&case.model).unwrap()));
    let graph = frontend::read(source, &ReadOptions::default()).unwrap();
    let dense: Vec<_> = graph
        .ops
        .iter()
        .filter(|op| matches!(op.kind, OpKind::FullyConnected { .. }))
        .collect();
    let [_, second, third] = dense[..] else {
        panic!("sine_float has {} dense layers", dense.len())
    };
    let mut blob = Vec::new();
    let mut owns = Vec::new();
    for id in second.inputs[1..].iter().chain(&third.inputs[1..]) {
        let tensor = graph.tensor(*id);
        blob.extend_from_slice(tensor.data.as_ref().unwrap().as_slice());
        owns.push(format!("{:?}", tensor.name));
    }
    fs::write(directory.join("tail.bin"), &blob).unwrap();
    fs::write(directory.join("tail.c"), LAYERS).unwrap();
    run(&directory, "gcc", &["-O2", "-ffp-contract=off", "-c", "tail.c"]);
    let manifest = format!(
        "module = \"tail\"\nobjects = [\"tail.o\"]\n[[constant]]\nsymbol = \"tail_weights\"\nfile = \"tail.bin\"\n\
         [[function]]\nnodes = [{:?}, {:?}]\nsymbol = \"tail\"\narguments = [\"in0\", \"out0\"]\nowns = [{}]\n",
        second.name,
        third.name,
        owns.join(", ")
    );
    fs::write(directory.join("tail.toml"), manifest).unwrap();
    let model = case.model.to_str().unwrap();
    let build = [
        "build",
        model,
        "--module",
        "tail.toml",
        "-o",
        "m.a",
        "--name",
        "m",
        "--arena",
        "caller",
    ];
    run(&directory, COREROPE, &build);
    let built = [Built {
        id: "m".to_owned(),
        case,
    }];
    matrix::write_glue(&directory, &built);
    let glue = directory.join("glue.c");
    let text = fs::read_to_string(&glue)
        .unwrap()
        .replace("m_STACK_SIZE", "M_STACK_SIZE");
    fs::write(glue, text.replace("M_STACK_SIZE", "M_STACK_SIZE + 4096")).unwrap();
    let program = matrix::link(&directory, "", &["m.a".to_owned()]);
    let output = command(directory.join(program))
        .current_dir(&directory)
        .args(["in", "out"])
        .output()
        .unwrap();
    matrix::report("module-tflite", 1, &matrix::judge(&directory, &built, &output));
}

/// What the program says about an archive, a manifest or kernels that are wrong in one place.
fn said(directory: &Path, arguments: &[&str]) -> String {
    let output = command(COREROPE)
        .current_dir(directory)
        .args(["build", "-o", "m.a"])
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", tools::text(&output));
    assert!(!directory.join("m.a").exists());
    tools::text(&output)
}

/// The archive with one text in place of another of the same length.
fn patched(directory: &Path, archive: &str, from: &str, to: &str) -> String {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(root().join(format!("fixtures/tvm/{archive}.tar"))).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes());
    let at = at.unwrap_or_else(|| panic!("{archive} does not hold {from:?}"));
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(directory.join("patched.tar"), bytes).unwrap();
    "patched.tar".to_owned()
}

#[test]
fn broken_libraries_are_refused() {
    let directory = tools::directory("tvm-broken");
    for (archive, from, to, message) in [
        (
            "tiny.graph",
            "\"version\": 7",
            "\"version\": 8",
            "version 8 of the model library format is not supported",
        ),
        (
            "tiny.graph-v5",
            "\"version\": 5",
            "\"version\": 4",
            "version 4 of the model library format",
        ),
        (
            "tiny.graph",
            "\"num_inputs\": \"3\"",
            "\"num_inputs\": \"4\"",
            "num_inputs is 4, but there are 3",
        ),
        (
            "tiny.graph",
            "\"name\": \"p0\"",
            "\"name\": \"p3\"",
            "the parameter is int16[3], the graph wants int16[4,8]",
        ),
        ("tiny.graph", "\"__nop\"", "\"__np\" ", "graph.json"),
        ("tiny.graph", "\u{9c}\u{4}", "\u{9d}\u{4}", ""),
        (
            "tiny.graph",
            "int32_t tvmgen_tiny_fused_cast(void* args, int32_t* arg_type_ids, int32_t num_args, void* out_ret_value, int32_t* out_ret_tcode, void* resource_handle) {",
            "int32_t tvmgen_tiny_fused_cast(int8_t* p0, int16_t* T_cast                                                                                            ) {",
            "does not take packed arguments",
        ),
        (
            "tiny.graph",
            "((TVMValue*)args)[1]",
            "((TVMValue*)args)[9]",
            "reads 10 arguments, but the graph passes",
        ),
        (
            "tiny.aot",
            "aligned offset: 64",
            "aligned offset: 60",
            "overlaps another",
        ),
        (
            "tiny.aot",
            "global_workspace[208]",
            "global_workspice[208]",
            "the pool global_workspace is not defined",
        ),
        (
            "tiny.aot",
            "int8_t* x_buffer_var, int8_t* y_buffer_var, uint8_t* global_const_workspace_0_var",
            "int8_t* x_buffer_var, int8_t* y_buffer_var  uint8_t* global_const_workspace_0_var",
            "has 3 parameters",
        ),
    ] {
        if !from.is_ascii() {
            continue;
        }
        let archive = patched(&directory, archive, from, to);
        let text = said(&directory, &[&archive]);
        assert!(text.contains(message), "{from} -> {to}:\n{text}");
        assert!(!text.contains("bug in corerope"), "{text}");
    }
    // One bit of the parameters' magic, a count, and a cut.
    let whole = root().join("fixtures/tvm/tiny.graph.tar");
    let params = file_of(&whole, "tiny.params");
    let graph = file_of(&whole, "tiny.graph");
    fs::write(directory.join("graph.json"), graph).unwrap();
    let parts = ["--graph", "graph.json", "--tvm-params", "p", "--tvm-workspace", "0"];
    for (at, message) in [(0, "begins with"), (16, "parameters"), (params.len(), "")] {
        let mut bytes = params.clone();
        match bytes.get_mut(at) {
            Some(byte) => *byte ^= 1,
            None => bytes.truncate(at - 1),
        }
        fs::write(directory.join("p"), bytes).unwrap();
        let text = said(&directory, &parts);
        assert!(text.contains(message) && text.contains("error[model]"), "{text}");
    }
    fs::write(directory.join("p"), &params).unwrap();
    let text = said(&directory, &parts[..4]);
    assert!(
        text.contains("nothing says how much workspace") && text.contains("--tvm-workspace"),
        "{text}"
    );
}

#[test]
fn modules_of_a_library_are_chosen() {
    let directory = tools::directory("tvm-two");
    let archive = root().join("fixtures/tvm/two.graph.tar");
    let archive = archive.to_str().unwrap();
    let output = command(COREROPE)
        .current_dir(&directory)
        .args(["inspect", archive])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        tools::text(&output).contains("holds 2 modules: tiny, twin"),
        "{}",
        tools::text(&output)
    );
    let twin = report(&directory, &[archive, "--tvm-module", "twin"]);
    let symbol = twin["external"]["functions"][0]["symbol"].as_str().unwrap();
    assert_eq!(symbol, "tvmgen_twin_fused_cast");
}

#[test]
fn names_as_tvm_has_them() {
    let directory = tools::directory("tvm-names");
    let archive = root().join("fixtures/tvm/tiny.aot.tar");
    let target = ["--target", "riscv32imc-unknown-none-elf"];
    let build = ["build", archive.to_str().unwrap(), "--tvm-names", "-o", "tvmgen_tiny.o"];
    run(&directory, COREROPE, &[&build[..], &target].concat());
    let bytes = fs::read(directory.join("tvmgen_tiny.o")).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    assert!(
        file.symbols()
            .any(|symbol| symbol.name() == Ok("tvmgen_tiny_run") && symbol.is_definition())
    );
    for (name, writable) in [(".rodata.tvm", false), (".bss.noinit.tvm", true)] {
        let section = file.section_by_name(name).unwrap();
        let object::SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            panic!("not an ELF file")
        };
        assert_eq!(sh_flags.0 & object::elf::SHF_WRITE.0 != 0, writable, "{name}");
    }
    let header = fs::read_to_string(directory.join("tvmgen_tiny.h")).unwrap();
    assert!(
        header.contains("struct tvmgen_tiny_inputs {\n    const int8_t *x;"),
        "{header}"
    );
}

#[test]
fn kernels_are_checked() {
    if !installed("kernels that do not fit", &["gcc", "arm-none-eabi-gcc"]) {
        return;
    }
    let directory = tools::directory("tvm-kernels");
    let archive = root().join("fixtures/tvm/tiny.graph.tar");
    let archive = archive.to_str().unwrap();
    fs::write(
        directory.join("k.c"),
        "int tvmgen_tiny_fused_cast(void) { return 0; }\n",
    )
    .unwrap();
    run(&directory, "gcc", &["-c", "k.c", "-o", "k.o"]);
    run(
        &directory,
        "arm-none-eabi-gcc",
        &["-mcpu=cortex-m7", "-c", "k.c", "-o", "arm.o"],
    );
    fs::write(directory.join("text.o"), "hello").unwrap();
    let host = ["--target", "x86_64-unknown-linux-gnu"];
    let text = said(&directory, &[&[archive, "--kernels", "k.o"], &host[..]].concat());
    assert!(
        text.contains("no object defines tvmgen_tiny_fused_dense, which the model calls"),
        "{text}"
    );
    let text = said(&directory, &[&[archive, "--kernels", "arm.o"], &host[..]].concat());
    assert!(text.contains("does not fit x86_64-unknown-linux-gnu"), "{text}");
    let text = said(&directory, &[&[archive, "--kernels", "text.o"], &host[..]].concat());
    assert!(text.contains("neither an object file nor a static library"), "{text}");
    let text = said(
        &directory,
        &[&[archive, "--kernels", "k.o", "--kernels", "k.o"], &host[..]].concat(),
    );
    assert!(text.contains("define tvmgen_tiny_fused_cast"), "{text}");
    // A module whose object lacks the symbol, and one whose blob is not there.
    fs::copy(root().join("tests/tvm/kpu.toml"), directory.join("kpu.toml")).unwrap();
    fs::copy(directory.join("k.o"), directory.join("kpu.o")).unwrap();
    let module = [&[archive, "--module", "kpu.toml"], &host[..]].concat();
    let output = command(COREROPE)
        .current_dir(&directory)
        .args(["build", "-o", "m.a"])
        .args(&module)
        .output()
        .unwrap();
    assert!(
        tools::text(&output).contains("kpu_layers.bin"),
        "{}",
        tools::text(&output)
    );
    fs::copy(
        root().join("fixtures/tvm/kpu_layers.bin"),
        directory.join("kpu_layers.bin"),
    )
    .unwrap();
    let text = said(&directory, &module);
    assert!(text.contains("no object defines kpu_run"), "{text}");
    fs::write(directory.join("kpu_layers.bin"), [0; 79]).unwrap();
    let text = said(&directory, &module);
    assert!(text.contains("kpu_layers.bin has 79 bytes, 80 are announced"), "{text}");
}
