//! Equal inputs give equal bytes, wherever and however they are built.

use crate::cases::root;
use crate::text::snapshot;
use crate::tools::{self, COREROPE, command, installed};
use std::collections::BTreeMap;
use std::fs::{self, File};

/// Builds `model` with `program`, in a fresh directory and another environment: all files.
fn build(
    directory: &str,
    model: &str,
    target: &str,
    program: &[&str],
    environment: &[(&str, &str)],
) -> BTreeMap<String, Vec<u8>> {
    let directory = tools::directory(directory);
    let copy = directory.join("model.tflite");
    fs::copy(root().join("fixtures").join(model), &copy).unwrap();
    let mut command = command(program[0]);
    command.current_dir(&directory).args(&program[1..]);
    command.args(["build", "model.tflite", "-o", "m.a", "-g", "--target", target]);
    let output = command.envs(environment.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", tools::text(&output));
    fs::remove_file(copy).unwrap();
    snapshot(&directory)
}

#[test]
fn two_directories() {
    // Kernels are compiled by as many threads as there are processors.
    let one_processor: &[&str] = match installed("builds on one processor", &["taskset"]) {
        true => &["taskset", "-c", "0", COREROPE],
        false => &[COREROPE],
    };
    for model in ["digits.tflite", "wide_float.tflite", "resnet8.tflite"] {
        for target in [
            "x86_64-unknown-linux-gnu",
            "aarch64-unknown-linux-gnu",
            "riscv64gc-unknown-linux-gnu",
            "x86_64-pc-windows-gnu",
        ] {
            let here = [("TZ", "UTC"), ("HOME", "/")];
            let elsewhere = [("TZ", "Asia/Tokyo"), ("LC_ALL", "C"), ("TMPDIR", "/var/tmp")];
            let one = build("reproducible-1", model, target, &[COREROPE], &here);
            let two = build("reproducible-2/deeper/down", model, target, one_processor, &elsewhere);
            assert!(one.contains_key("m.a") && one.contains_key("m.h"), "{:?}", one.keys());
            assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
            for (name, bytes) in &one {
                assert!(
                    two[name] == *bytes,
                    "{model} for {target}: {name} differs between two builds"
                );
            }
        }
    }
}

/// A model from standard input gives the same object as the file.
#[test]
fn standard_input() {
    let directory = tools::directory("standard-input");
    let model = root().join("fixtures/digits.tflite");
    for (input, output) in [(model.to_str().unwrap(), "file.o"), ("-", "input.o")] {
        let mut command = command(COREROPE);
        command.current_dir(&directory).stdin(File::open(&model).unwrap());
        let output = command
            .args(["build", input, "-o", output, "--name", "digits"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", tools::text(&output));
    }
    let read = |name: &str| fs::read(directory.join(name)).unwrap();
    assert!(read("file.o") == read("input.o"));
}
