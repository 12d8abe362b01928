//! Equal inputs give equal bytes, wherever and however they are built.

use crate::cases::root;
use crate::text::snapshot;
use crate::tools::{self, COREROPE, command};
use std::collections::BTreeMap;
use std::fs;

/// Builds `model` in a fresh directory and environment; all files but the depfile, which holds paths.
fn build(directory: &str, model: &str, target: &str, environment: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    let directory = tools::directory(directory);
    let copy = directory.join("model.tflite");
    fs::copy(root().join("fixtures").join(model), &copy).unwrap();
    let mut command = command(COREROPE);
    command
        .current_dir(&directory)
        .args(["build", "model.tflite", "-o", "m.a", "--target", target]);
    let output = command.envs(environment.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", tools::text(&output));
    fs::remove_file(copy).unwrap();
    let mut files = snapshot(&directory);
    files.remove("m.d");
    files
}

#[test]
fn two_directories() {
    for model in ["digits.tflite", "wide_float.tflite", "resnet8.tflite"] {
        for target in [
            "x86_64-unknown-linux-gnu",
            "aarch64-unknown-linux-gnu",
            "riscv64gc-unknown-linux-gnu",
            "x86_64-pc-windows-gnu",
        ] {
            let one = build(
                "reproducible-1",
                model,
                target,
                &[("RAYON_NUM_THREADS", "1"), ("TZ", "UTC"), ("HOME", "/")],
            );
            let elsewhere = [
                ("RAYON_NUM_THREADS", "7"),
                ("TZ", "Asia/Tokyo"),
                ("LC_ALL", "C"),
                ("TMPDIR", "/var/tmp"),
            ];
            let two = build("reproducible-2/deeper/down", model, target, &elsewhere);
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
