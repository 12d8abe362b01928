//! `cargo bench`: what a build costs against a plain copy of the model, and what an inference costs against the
//! evaluator. Prints two tables.
//!
//! Each build and each copy runs in a process of its own, in turn, several times; the table shows medians. Peak memory
//! is the resident set, the part of the mapped model file included. The model of 131 MB is generated
//! (`tests/support/big_model.rs`).

use corerope::data::Source;
use corerope::frontend::{self, ReadOptions};
use corerope::graph::evaluate::{Arithmetic, evaluate};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "../tests/support/big_model.rs"]
mod big_model;

const COREROPE: &str = env!("CARGO_BIN_EXE_corerope");
/// Measurements of each build and each copy.
const ROUNDS: usize = 9;
/// The argument that makes this program measure one command.
const MEASURE: &str = "--measure-one";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == MEASURE) {
        return measure_one(&arguments[at + 1..]);
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("figures");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("the target directory can be written");
    builds(&directory);
    inference(&directory);
    fs::remove_dir_all(directory).expect("the directory was just made");
}

/// Runs a command and prints its wall-clock time in nanoseconds and the peak of its resident set in KiB.
fn measure_one(command: &[String]) {
    let start = Instant::now();
    let status = Command::new(&command[0])
        .args(&command[1..])
        .stdout(Stdio::null())
        .status();
    let time = start.elapsed();
    assert!(status.is_ok_and(|status| status.success()), "{command:?} failed");
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).expect("always available");
    println!("{} {}", time.as_nanos(), usage.max_rss());
}

/// Time and peak memory in KiB of one command, run by a fresh copy of this program.
fn measure(directory: &Path, command: &[&str]) -> (Duration, u64) {
    let own = std::env::current_exe().expect("this program's path is known");
    let output = Command::new(own)
        .current_dir(directory)
        .arg(MEASURE)
        .args(command)
        .output()
        .expect("this program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("two numbers");
    let (time, memory) = text.trim().split_once(' ').expect("two numbers");
    (
        Duration::from_nanos(time.parse().expect("a number")),
        memory.parse().expect("a number"),
    )
}

fn median<T: Copy + Ord>(mut values: Vec<T>) -> T {
    values.sort();
    values[values.len() / 2]
}

/// The shared data, where it is.
fn shared() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    std::env::var_os("COREROPE_DATA").map_or(default, PathBuf::from)
}

fn builds(directory: &Path) {
    let big = directory.join("big.tflite");
    let mut file = BufWriter::new(File::create(&big).expect("the target directory can be written"));
    big_model::write(&mut file, big_model::Kind::Int8, &[4096, 4000, 4096, 4000, 4096, 4000, 4096, 4000, 4096])
        .expect("there is room for 131 MB");
    drop(file);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/mobilenet025.tflite");
    let vww = shared().join("models/vww.tflite");
    println!(
        "{:<14} {:>12} {:>10} {:>10} {:>9} {:>12} {:>12}",
        "model", "bytes", "cp", "build", "build/cp", "cp memory", "build memory"
    );
    for (name, model) in [("mobilenet025", fixture), ("vww", vww), ("131 MB dense", big)] {
        if !model.is_file() {
            println!("{name:<14} (not there)");
            continue;
        }
        let path = model.to_str().expect("paths here are UTF-8");
        let (mut copies, mut builds, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            for name in ["copy", "m.a"] {
                let _ = fs::remove_file(directory.join(name));
            }
            let copy = measure(directory, &["cp", path, "copy"]);
            let build = measure(directory, &[COREROPE, "build", path, "-o", "m.a"]);
            // Per mille, to be sortable.
            ratios.push(build.0.as_nanos() * 1000 / copy.0.as_nanos().max(1));
            copies.push(copy);
            builds.push(build);
        }
        let milliseconds = |list: &[(Duration, u64)]| median(list.iter().map(|m| m.0).collect()).as_secs_f64() * 1e3;
        let mebibytes = |list: &[(Duration, u64)]| median(list.iter().map(|m| m.1).collect()) as f64 / 1024.0;
        println!(
            "{name:<14} {:>12} {:>7.1} ms {:>7.1} ms {:>9.2} {:>8.1} MiB {:>8.1} MiB",
            model.metadata().map_or(0, |m| m.len()),
            milliseconds(&copies),
            milliseconds(&builds),
            median(ratios) as f64 / 1e3,
            mebibytes(&copies),
            mebibytes(&builds)
        );
    }
    println!();
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

fn inference(directory: &Path) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
    let models = models();
    let mut glue = "#include \"harness.h\"\n".to_owned();
    let mut table = String::new();
    let mut inputs = Vec::new();
    let mut archives = Vec::new();
    for (
        i,
        Model {
            name,
            path,
            inputs: ins,
            outputs,
        },
    ) in models.iter().enumerate()
    {
        let archive = format!("b_{name}.a");
        let id = format!("b_{name}");
        run(
            directory,
            COREROPE,
            &[
                "build",
                path.to_str().expect("UTF-8"),
                "-o",
                &archive,
                "--name",
                &id,
                "--arena",
                "caller",
            ],
        );
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
        models[i]
            .inputs
            .iter()
            .for_each(|bytes| inputs.extend_from_slice(bytes));
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
    let bench = sources.join("bench.c");
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
    if run(directory, "gcc", &arguments).is_none() {
        return println!("gcc is not installed: no inference times");
    }
    let text = run(directory, directory.join("bench").to_str().expect("UTF-8"), &["in"]).expect("just linked");
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
