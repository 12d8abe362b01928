//! External modules, worked out: an accelerator's object and blob in place of a layer of TVM's, a custom operator, and
//! code in C in place of layers of a TensorFlow Lite model.

use crate::cases::{self, Case, root};
use crate::firmware::Board;
use crate::matrix::{self, Built};
use crate::takeover::{report, said};
use crate::tools::{self, COREROPE, command, installed, run};
use crate::tvm::{Library, cortex_m7, file_of, fits, libraries, on_board, rv32imc};
use corerope::data::Source;
use corerope::frontend::{self, ReadOptions};
use corerope::graph::OpKind;
use object::{Object, ObjectSection, ObjectSymbol};
use std::fs;
use std::path::{Path, PathBuf};
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

/// The same on a K210's ISA: the accelerator's layer and TVM's other kernels give TVM's results, bit for bit.
#[test]
fn an_accelerator_on_rv64() {
    if !installed("an accelerator on RV64", &[&RV64.gcc(), "qemu-riscv64"]) {
        return;
    }
    let directory = tools::directory("module-rv64");
    let manifest = kpu(&directory, &RV64.gcc(), &[]);
    let tiny = libraries().into_iter().find(|library| library.name() == "tiny.graph");
    let tiny = tiny.unwrap();
    fs::write(directory.join("kernels.c"), file_of(&tiny.path, "tiny_lib1.c")).unwrap();
    let include = format!("-I{}", root().join("tests/tvm/include").display());
    run(&directory, &RV64.gcc(), &["-O2", "-w", "-c", "kernels.c", &include]);
    let case = Case {
        name: "tiny".to_owned(),
        identifier: "m".to_owned(),
        model: tiny.path,
        float: false,
        sets: tiny.sets,
    };
    RV64.check(&directory, case, &["--kernels", "kernels.o", "--module", &manifest]);
}

/// The same on the board, with TVM's other kernels: TVM's results, bit for bit.
#[test]
fn an_accelerator_in_firmware() {
    let board = Board {
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
    HOST.check(&directory, case, &["--module", "tail.toml"]);
}

/// Where Linux programs run.
struct Linux {
    arguments: &'static [&'static str],
    prefix: &'static str,
    emulator: Option<&'static str>,
}

const HOST: Linux = Linux {
    arguments: &[],
    prefix: "",
    emulator: None,
};

/// The ISA of a Kendryte K210.
const RV64: Linux = Linux {
    arguments: &["--target", "riscv64gc-unknown-linux-gnu"],
    prefix: "riscv64-linux-gnu-",
    emulator: Some("qemu-riscv64"),
};

impl Linux {
    fn gcc(&self) -> String {
        format!("{}gcc", self.prefix)
    }

    /// Builds a model with the caller's arena, links it and runs it between unmapped pages.
    fn check(&self, directory: &Path, case: Case, arguments: &[&str]) {
        let model = case.model.to_str().unwrap();
        let build = ["build", model, "-o", "m.a", "--name", "m", "--arena", "caller"];
        run(directory, COREROPE, &[&build[..], self.arguments, arguments].concat());
        let name = case.name.clone();
        let built = [Built {
            id: "m".to_owned(),
            case,
        }];
        matrix::write_glue(directory, &built);
        let glue = directory.join("glue.c");
        let text = fs::read_to_string(&glue).unwrap();
        // The functions' own stack.
        fs::write(glue, text.replace("M_STACK_SIZE", "M_STACK_SIZE + 4096")).unwrap();
        let program = directory.join(matrix::link(directory, self.prefix, &["m.a".to_owned()]));
        let mut command = match self.emulator {
            None => command(&program),
            Some(emulator) => {
                let mut command = command(emulator);
                command.arg(&program);
                command
            }
        };
        let output = command.current_dir(directory).args(["in", "out"]).output().unwrap();
        let failures = matrix::judge(directory, &built, &output);
        matrix::report(&format!("{}module of {name}", self.prefix), 1, &failures);
    }
}

/// The custom operator of `fixtures/modules`: a layer of another fixture, whose outputs are expected.
fn accel() -> Library {
    let case = cases::fixtures().into_iter().find(|case| case.name == "sine_int8");
    Library {
        path: root().join("fixtures/modules/accel.tflite"),
        kernels: None,
        beside: "",
        sets: case.unwrap().sets,
    }
}

/// Its module, compiled, in a directory.
fn accelerator(directory: &Path, gcc: &str, flags: &[&str]) -> PathBuf {
    let of = |name: &str| root().join("tests/modules").join(name);
    fs::copy(of("accel.toml"), directory.join("accel.toml")).unwrap();
    let blob = root().join("fixtures/modules/accel_dense.bin");
    fs::copy(blob, directory.join("accel_dense.bin")).unwrap();
    let source = of("accel.c");
    let files = [
        "-O2",
        "-Wall",
        "-Werror",
        "-c",
        source.to_str().unwrap(),
        "-o",
        "accel.o",
    ];
    run(directory, gcc, &[flags, &files[..]].concat());
    directory.join("accel.toml")
}

/// A custom operator: refused without a manifest, with the entry to write; with that entry, and with the worked-out one,
/// the model computes what it did before the layer was a custom operator.
#[test]
fn a_custom_operator() {
    let library = accel();
    let directory = tools::directory("module-custom");
    let model = library.path.to_str().unwrap();
    let text = said(&directory, &[model]);
    let (message, entry) = text.split_once("module = ").unwrap_or_else(|| panic!("{text}"));
    assert!(
        message.contains("custom operator \"ACCEL_DENSE\" is not supported"),
        "{text}"
    );
    // The entry is a manifest, but for the names that only its author knows.
    let entry = format!("module = {entry}")
        .replace("…\"", "accel\"")
        .replace("….o", "accel.o");
    let entry: String = (entry.lines().map(str::trim))
        .take_while(|line| !line.starts_with("error"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(directory.join("entry.toml"), &entry).unwrap();
    fs::write(directory.join("accel.o"), "").unwrap();
    let inspected = run(
        &directory,
        COREROPE,
        &[
            "inspect",
            "--json",
            model,
            "--module",
            "entry.toml",
            "--stop-after",
            "plan",
        ],
    );
    assert_eq!(inspected, "", "{entry}");
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) || !installed("custom operators", &["gcc"]) {
        return;
    }
    accelerator(&directory, "gcc", &[]);
    let case = Case {
        name: "accel".to_owned(),
        identifier: "m".to_owned(),
        model: library.path,
        float: false,
        sets: library.sets,
    };
    HOST.check(&directory, case, &["--module", "accel.toml"]);
}

#[test]
fn a_custom_operator_in_firmware() {
    let arm = Board {
        name: "custom-cortex-m7",
        ..cortex_m7()
    };
    let riscv = Board {
        name: "custom-rv32imc",
        ..rv32imc()
    };
    for (board, gcc) in [(arm, "arm-none-eabi-gcc"), (riscv, "riscv64-unknown-elf-gcc")] {
        if fits(&board) {
            let directory = tools::directory(board.name);
            let manifest = accelerator(&directory, gcc, board.flags);
            on_board(&board, &[accel()], &["--module", manifest.to_str().unwrap()]);
        }
    }
}
