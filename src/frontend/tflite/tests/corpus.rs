//! Real models and operator cases from `../shared/data` (or `$COREROPE_DATA`), where they are present.

use super::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// All TensorFlow Lite models of a directory with their names, sorted; says so where there are none.
pub fn models(directory: &str) -> Vec<(String, PathBuf)> {
    files(directory, "tflite")
}

fn files(directory: &str, extension: &str) -> Vec<(String, PathBuf)> {
    let data = std::env::var_os("COREROPE_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(data.join(directory)) else {
        eprintln!("skipped: {} is absent", data.join(directory).display());
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let paths = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    let mut files: Vec<_> = paths
        .map(|path| {
            (
                path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
                path,
            )
        })
        .collect();
    files.sort();
    files
}

fn load(path: &PathBuf) -> crate::error::Result<Graph> {
    let file = std::fs::File::open(path).expect("the file was listed");
    let source = Source::map(file).expect("a regular file can be mapped");
    read(Arc::new(source), &ReadOptions::default())
}

#[test]
fn every_real_model_is_read() {
    for (name, path) in models("models") {
        if let Err(error) = load(&path) {
            panic!("{name}: {error}");
        }
    }
}

/// Families of which every float32 and int8 case must be read.
const FAMILIES: &[&str] = &[
    "conv_",
    "dw_",
    "fc_",
    "avgpool_",
    "maxpool_",
    "add_",
    "addbatch5d",
    "sub_",
    "mul_",
    "softmax",
    "mean_",
    "pad",
    "concat_",
    "transpose_",
    "batch_matmul_bcast",
    "reshape",
    "flatten",
    "squeeze",
    "expand_dims",
    "relu",
    "sigmoid",
    "logistic",
    "tanh",
    "quantize",
    "dequantize",
    "g_lenet",
    "g_dscnn",
    "g_resblock",
    "g_autoenc",
    "g_mlp_sine",
    "g_inv_residual",
];

#[test]
fn every_named_operator_case_is_read() {
    let mut read = 0;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, path) in models("tflite-ops") {
        let (case, kind) = name.rsplit_once('.').unwrap_or((&name, ""));
        let named = FAMILIES.iter().any(|family| case.starts_with(family));
        match load(&path) {
            Ok(_) => read += 1,
            Err(error) => {
                if named && matches!(kind, "f32" | "i8") || error.code != crate::error::Code::Unsupported {
                    wrong.push(format!("{name}: {error}"));
                }
                *reasons.entry(error.message).or_default() += 1;
            }
        }
    }
    eprintln!("{read} read; refused:");
    for (reason, count) in &reasons {
        eprintln!("{count:4} {reason}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn other_formats_are_recognized() {
    for (name, path) in files("onnx-qdq", "onnx") {
        let error = load(&path).expect_err("this format is not supported");
        assert_eq!(
            error.message, "this looks like an ONNX model, which is not supported yet",
            "{name}"
        );
    }
    for (name, path) in files("tvm", "tar") {
        load(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
