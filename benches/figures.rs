//! `cargo bench --bench figures`: what an inference costs against the evaluator.

#[path = "figures/xnnpack.rs"]
mod xnnpack;

use corerope::data::Source;
use corerope::frontend::{self, ReadOptions};
use corerope::graph::evaluate::{Arithmetic, evaluate};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const COREROPE: &str = env!("CARGO_BIN_EXE_corerope");

fn main() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("figures");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("the target directory can be written");
    inference(&directory);
    xnnpack::compare(&directory.join("xnnpack"));
    fs::remove_dir_all(directory).expect("the directory was just made");
}

/// The shared data, where it is.
fn shared() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    std::env::var_os("COREROPE_DATA").map_or(default, PathBuf::from)
}

/// A model and its first set of inputs.
struct Model {
    name: String,
    path: PathBuf,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<usize>,
}

fn models() -> Vec<Model> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let named = |directory: &Path, names: &[&str]| -> Vec<Model> {
        let there = names
            .iter()
            .map(|name| directory.join(format!("{name}.json")))
            .filter(|path| path.is_file());
        there.map(|path| model(&path)).collect()
    };
    let mut list = named(
        &fixtures,
        &[
            "sine_int8",
            "digits",
            "dscnn",
            "resnet8",
            "mobilenet025",
            "autoencoder",
            "vgg",
        ],
    );
    list.extend(named(
        &shared().join("models"),
        &["kws", "vww", "resnet", "ad", "cifar10_float", "vgg32"],
    ));
    list
}

fn model(path: &Path) -> Model {
    let about: Value = serde_json::from_slice(&fs::read(path).expect("just found")).expect("our own JSON");
    let text = |key: &str| about[key].as_str().expect("a name").to_owned();
    let blob = fs::read(path.with_file_name(text("data"))).expect("beside its JSON");
    let set = &about["sets"][0];
    let number = |piece: &Value, key: &str| piece[key].as_u64().expect("a number") as usize;
    let list = |key: &str| set[key].as_array().expect("a list").iter();
    Model {
        name: text("name"),
        path: path.with_file_name(text("model")),
        inputs: list("inputs")
            .map(|p| blob[number(p, "offset")..][..number(p, "len")].to_vec())
            .collect(),
        outputs: list("outputs").map(|p| number(p, "len")).collect(),
    }
}

/// Builds `models`, each under a name of its own and with options of its own, links them with a program of `tests/c` and
/// writes their inputs to `in`. `None` if there is no gcc.
fn program(directory: &Path, models: &[(&Model, String, &[&str])], source: &str) -> Option<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
    let mut glue = "#include \"harness.h\"\n".to_owned();
    let mut table = String::new();
    let mut inputs = Vec::new();
    let mut archives = Vec::new();
    for (i, (model, id, options)) in models.iter().enumerate() {
        let Model {
            name,
            path,
            inputs: ins,
            outputs,
        } = model;
        let archive = format!("{id}.a");
        let path = path.to_str().expect("UTF-8");
        let arguments = ["build", path, "-o", &archive, "--name", id, "--arena", "caller"];
        run(directory, COREROPE, &[&arguments[..], options].concat());
        let sizes: Vec<String> = ins
            .iter()
            .map(Vec::len)
            .chain(outputs.iter().copied())
            .map(|n| n.to_string())
            .collect();
        let p = id.to_uppercase();
        write!(
            glue,
            "#include \"{id}.h\"\nstatic int32_t run_{i}(const void *const *inputs, void *const *outputs, void *arena) {{\n    \
             return {id}_run((const struct {id}_inputs *)(const void *)inputs, (const struct {id}_outputs *)(const void *)outputs, arena);\n}}\n\
             static const size_t sizes_{i}[] = {{{}}};\n",
            sizes.join(", ")
        )
        .expect("strings can be written to");
        let (ins, outs) = (ins.len(), outputs.len());
        writeln!(
            table,
            "    {{\"{name}\", {p}_ARENA_SIZE, {p}_ARENA_ALIGN, {p}_STACK_SIZE, {ins}, {outs}, 1, sizes_{i}, run_{i}}},"
        )
        .expect("strings can be written to");
        model.inputs.iter().for_each(|bytes| inputs.extend_from_slice(bytes));
        archives.push(archive);
    }
    write!(
        glue,
        "const struct model models[] = {{\n{table}}};\nconst unsigned model_count = {};\n",
        models.len()
    )
    .expect("strings can be written to");
    fs::write(directory.join("glue.c"), glue).expect("the directory can be written");
    fs::write(directory.join("in"), inputs).expect("the directory can be written");
    let include = format!("-I{}", sources.display());
    let bench = sources.join(source);
    let mut arguments = vec![
        "-O1",
        "-std=c99",
        &include,
        bench.to_str().expect("UTF-8"),
        "glue.c",
        "-o",
        "bench",
    ];
    arguments.extend(archives.iter().map(String::as_str));
    run(directory, "gcc", &arguments)?;
    Some(directory.join("bench"))
}

fn inference(directory: &Path) {
    let models = models();
    let named: Vec<(&Model, String, &[&str])> = models
        .iter()
        .map(|model| (model, format!("b_{}", model.name), &[][..]))
        .collect();
    let Some(bench) = program(directory, &named, "bench.c") else {
        return println!("gcc is not installed: no inference times");
    };
    let text = run(directory, bench.to_str().expect("UTF-8"), &["in"]).expect("just linked");
    println!(
        "{:<14} {:>14} {:>14} {:>10}",
        "model", "compiled", "evaluator", "speed-up"
    );
    for (line, model) in text.lines().zip(&models) {
        let nanoseconds: f64 = line
            .split(' ')
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("the program's own output");
        let evaluator = evaluator(model).as_secs_f64() * 1e9;
        let micros = |n: f64| format!("{:.2} us", n / 1e3);
        println!(
            "{:<14} {:>14} {:>14} {:>10.0}",
            model.name,
            micros(nanoseconds),
            micros(evaluator),
            evaluator / nanoseconds
        );
    }
}

/// The best time of the evaluator on the model's inputs.
fn evaluator(model: &Model) -> Duration {
    let file = File::open(&model.path).expect("just built");
    let source = Arc::new(Source::map(file).expect("a plain file"));
    let options = ReadOptions {
        name: model.name.clone(),
        ..ReadOptions::default()
    };
    let graph = frontend::read(source, &options).expect("just built");
    let inputs: Vec<&[u8]> = model.inputs.iter().map(Vec::as_slice).collect();
    let once = || {
        let start = Instant::now();
        evaluate(&graph, &inputs, Arithmetic::default()).expect("a verified model and its own inputs");
        start.elapsed()
    };
    (0..3).map(|_| once()).min().expect("three times")
}

/// What a command prints; `None` if it is not installed.
fn run(directory: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .current_dir(directory)
        .args(arguments)
        .output()
        .ok()?;
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
