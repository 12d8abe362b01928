//! What becomes of TVM's libraries beside their results: every interface, names, several models, and what is refused.

use crate::cases::{Case, root};
use crate::matrix::{self, Built};
use crate::tools::{self, COREROPE, command, installed, run};
use crate::tvm::{FIXTURES, file_of, libraries};
use object::{Object, ObjectSection, ObjectSymbol};
use std::fs;
use std::path::Path;

/// What `inspect --json` says.
pub fn report(directory: &Path, arguments: &[&str]) -> serde_json::Value {
    let text = run(directory, COREROPE, &[&["inspect", "--json"], arguments].concat());
    serde_json::from_str(&text).unwrap()
}

/// What the program says about an archive, a manifest or kernels that are wrong in one place.
pub fn said(directory: &Path, arguments: &[&str]) -> String {
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
            "((uint8_t*)&global_workspace)",
            "           devices->ethos_u  ",
            "code for the device ethos_u is not supported",
        ),
        (
            "tiny.aot",
            "\"outputs\": {",
            "\"outpots\": {",
            "the types of inputs and outputs are not known",
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

/// Two models of TVM in one program share the allocator of their kernels; a library of several models has the kernels
/// that were given for all of them once.
#[test]
fn several_models_with_kernels() {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) || !installed("several models", &["gcc"]) {
        return;
    }
    let directory = tools::directory("tvm-several");
    let archive = root().join("fixtures/tvm/two.graph.tar");
    let include = format!("-I{}", root().join("tests/tvm/include").display());
    let tiny = libraries().into_iter().find(|library| library.name() == "tiny.graph");
    let tiny = tiny.unwrap();
    let mut built = Vec::new();
    for module in ["tiny", "twin"] {
        let (source, object) = (format!("{module}.c"), format!("{module}-kernels.o"));
        let kernels = file_of(&archive, &format!("{module}_lib1.c"));
        fs::write(directory.join(&source), kernels).unwrap();
        run(
            &directory,
            "gcc",
            &["-O2", "-w", "-c", &source, "-o", &object, &include],
        );
        let (model, library) = (archive.to_str().unwrap(), format!("{module}.a"));
        let build = ["build", model, "--tvm-module", module, "--name", module, "-o", &library];
        let with = ["--kernels", &object, "--arena", "caller"];
        run(&directory, COREROPE, &[&build[..], &with].concat());
        built.push(Built {
            id: module.to_owned(),
            case: Case {
                name: module.to_owned(),
                identifier: module.to_owned(),
                model: archive.clone(),
                float: false,
                sets: tiny.sets.clone(),
            },
        });
    }
    matrix::write_glue(&directory, &built);
    let glue = directory.join("glue.c");
    let text = fs::read_to_string(&glue).unwrap();
    fs::write(glue, text.replace("_STACK_SIZE", "_STACK_SIZE + 4096")).unwrap();
    let program = directory.join(matrix::link(
        &directory,
        "",
        &["tiny.a".to_owned(), "twin.a".to_owned()],
    ));
    let output = command(program)
        .current_dir(&directory)
        .args(["in", "out"])
        .output()
        .unwrap();
    matrix::report("two models of TVM", 2, &matrix::judge(&directory, &built, &output));

    let (first, second) = (tiny.path, root().join("fixtures/sine_int8.tflite"));
    let models = ["build", first.to_str().unwrap(), second.to_str().unwrap()];
    let library = ["--kernels", "tiny-kernels.o", "--share-arena", "-o", "both.a"];
    run(&directory, COREROPE, &[&models[..], &library].concat());
    let bytes = fs::read(directory.join("both.a")).unwrap();
    let file = object::read::archive::ArchiveFile::parse(&*bytes).unwrap();
    let kernels = file
        .members()
        .filter(|member| member.as_ref().unwrap().name() == b"tiny-kernels.o");
    assert_eq!(kernels.count(), 1);
}

/// Every executor through every interface: steps, hooks, parameters outside, debug information, TVM's names.
#[test]
fn executors_and_interfaces() {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) || !installed("interfaces", &["gcc"]) {
        return;
    }
    let main = root().join("tests/tvm/interfaces.c");
    for library in libraries()
        .into_iter()
        .filter(|library| library.name().starts_with("tiny."))
    {
        let name = library.name();
        let directory = tools::directory(&format!("tvm-interfaces-{name}"));
        fs::write(directory.join("k.c"), file_of(&library.path, library.kernels.unwrap())).unwrap();
        let include = format!("-I{}", root().join("tests/tvm/include").display());
        run(&directory, "gcc", &["-O2", "-w", "-c", "k.c", &include]);
        for (options, define) in [
            (&["-g"][..], ""),
            (&["--step"], "-DSTEP=TINY_MORE"),
            (&["--hooks"], "-DHOOKS=TINY_STEPS"),
            (&["--params", "external"], "-DEXTERNAL"),
            (&["--tvm-names"], ""),
        ] {
            // Kernels that hold their constants leave nothing to put outside.
            if define == "-DEXTERNAL" && name == "tiny.aot-alloc" {
                continue;
            }
            let prefix = if options == ["--tvm-names"] {
                "tvmgen_tiny"
            } else {
                "tiny"
            };
            let file = format!("{prefix}.a");
            let model = library.path.to_str().unwrap();
            let build = ["build", model, "--kernels", "k.o", "-o", &file, "--name", "tiny"];
            run(&directory, COREROPE, &[&build[..], options].concat());
            let header = format!("-DMODEL_H=\"{prefix}.h\"");
            let functions = format!("-DPREFIX(x)={prefix}_##x");
            let files = ["-std=c11", "-Wall", "-Werror", "-I.", &header, &functions];
            let link = [main.to_str().unwrap(), &file, "-o", "program"];
            let define = if define.is_empty() { "-DPLAIN" } else { define };
            run(&directory, "gcc", &[&files[..], &[define], &link].concat());
            for (k, set) in library.sets.iter().enumerate() {
                fs::write(directory.join("in"), &set.inputs[0]).unwrap();
                run(
                    &directory,
                    directory.join("program").to_str().unwrap(),
                    &["in", "out", "tiny.params"],
                );
                let out = fs::read(directory.join("out")).unwrap();
                assert_eq!(out, set.outputs[0], "{name} {options:?}, set {k}");
            }
        }
    }
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

/// A graph.json with its parameters is the same model as the library that holds both.
#[test]
fn parts_are_the_library() {
    let directory = tools::directory("tvm-parts");
    let archive = root().join("fixtures/tvm/tiny.graph.tar");
    fs::write(directory.join("graph.json"), file_of(&archive, "tiny.graph")).unwrap();
    fs::write(directory.join("params.bin"), file_of(&archive, "tiny.params")).unwrap();
    let parts = [
        "build",
        "--graph",
        "graph.json",
        "--tvm-params",
        "params.bin",
        "--tvm-workspace",
        "256",
    ];
    run(
        &directory,
        COREROPE,
        &[&parts[..], &["--name", "tiny", "-o", "parts.o"]].concat(),
    );
    let whole = ["build", archive.to_str().unwrap(), "--name", "tiny", "-o", "whole.o"];
    run(&directory, COREROPE, &whole);
    let sections = |name: &str| {
        let bytes = fs::read(directory.join(name)).unwrap();
        use object::read::{Object, ObjectSection};
        let file = object::File::parse(&*bytes).unwrap();
        let constants = file
            .sections()
            .filter(|section| section.kind() == object::SectionKind::ReadOnlyData);
        let mut all: Vec<Vec<u8>> = constants.map(|section| section.data().unwrap().to_vec()).collect();
        all.sort();
        all
    };
    assert_eq!(sections("parts.o"), sections("whole.o"));
}

/// Damaged libraries through the whole pipeline: an error or an object, never a panic. `COREROPE_MUTANTS` asks for more.
#[test]
fn damaged_libraries_never_panic() {
    use corerope::build::{Options, compile};
    use corerope::data::Source;
    use corerope::target::Target;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    let count = std::env::var("COREROPE_MUTANTS").map_or(250, |n| n.parse().unwrap());
    let (mut accepted, mut refused) = (0, 0);
    for (name, ..) in FIXTURES {
        let whole = fs::read(root().join(format!("fixtures/tvm/{name}.tar"))).unwrap();
        for seed in 0..count {
            let mut state = seed as u64 + 1;
            let mut below = |bound: usize| {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (state >> 33) as usize % bound
            };
            let mut bytes = whole.clone();
            for _ in 0..1 + below(3) {
                let at = below(bytes.len());
                match below(6) {
                    0 => bytes[at] = below(256) as u8,
                    1 => bytes[at] ^= 1 << below(8),
                    2 => bytes[at] = b"0123456789-,[]{}\"();*"[below(21)],
                    3 => bytes[at] = [0, 0xff, 0x7f, 0x80][below(4)],
                    // Digits become other digits: counts, indices, offsets.
                    4 => {
                        let digit = (at..bytes.len()).find(|i| bytes[*i].is_ascii_digit());
                        if let Some(i) = digit {
                            bytes[i] = b'0' + below(10) as u8;
                        }
                    }
                    _ => bytes.truncate(at.max(512)),
                }
            }
            let target = [
                "x86_64-unknown-linux-gnu",
                "thumbv7em-none-eabi",
                "riscv32imc-unknown-none-elf",
            ];
            let options = Options::new(Target::new(Some(target[seed % 3]), None, None).unwrap(), "m");
            let source = Arc::new(Source::Memory(bytes));
            let result = catch_unwind(AssertUnwindSafe(|| compile(source, &options, &mut |_, _| {}).map(drop)));
            match result {
                Ok(Ok(())) => accepted += 1,
                Ok(Err(error)) => {
                    let internal = error.code == corerope::error::Code::Internal;
                    assert!(!internal && !error.message.is_empty(), "{name}, seed {seed}: {error}");
                    refused += 1;
                }
                Err(_) => panic!("mutant {seed} of {name} made the pipeline panic"),
            }
        }
    }
    println!("{accepted} mutants accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}
