//! Executed instructions of one inference on 64-bit machines, under QEMU's user mode, against bounds.
//!
//! `cargo test --test it instructions -- --include-ignored --nocapture --test-threads 1` prints the table among others.

use crate::cases::root;
use crate::matrix;
use crate::tools::{self, command, installed, run};
use object::{Object, ObjectSymbol, SymbolKind};
use std::fs;
use std::path::Path;

struct Machine {
    name: &'static str,
    arguments: &'static [&'static str],
    prefix: &'static str,
    emulator: &'static [&'static str],
    /// The most that a run of a model may take.
    bounds: &'static [(&'static str, u64)],
}

const MACHINES: &[Machine] = &[
    Machine {
        name: "rv64gc",
        arguments: &["--target", "riscv64gc-unknown-linux-gnu"],
        prefix: "riscv64-linux-gnu-",
        emulator: &["qemu-riscv64"],
        bounds: &[
            ("kws", 3_900_000),
            ("vww", 11_300_000),
            ("resnet", 14_500_000),
            ("ad", 340_000),
        ],
    },
    Machine {
        name: "a64-dotprod",
        arguments: &["--target", "aarch64-unknown-linux-gnu", "--cpu", "a64-dotprod"],
        prefix: "aarch64-linux-gnu-",
        emulator: &["qemu-aarch64", "-cpu", "max"],
        bounds: &[
            ("kws", 800_000),
            ("vww", 2_000_000),
            ("resnet", 2_200_000),
            ("ad", 60_000),
        ],
    },
];

#[test]
#[ignore = "prints a table; every model also runs in the tests of matrix"]
fn instructions64() {
    let mut failures = Vec::new();
    println!(
        "{:<12} {:<8} {:>12} {:>12} {:>6}",
        "machine", "model", "instructions", "at most", "ratio"
    );
    for machine in MACHINES {
        let compiler = format!("{}gcc", machine.prefix);
        if !installed(
            machine.name,
            &[&compiler, &format!("{}g++", machine.prefix), machine.emulator[0], "cc"],
        ) {
            continue;
        }
        for (model, bound) in machine.bounds {
            let directory = tools::directory(&format!("instructions64-{}-{model}", machine.name));
            let (built, wrong) = matrix::build(&directory, machine.arguments, "a", |case| case.name == *model);
            failures.extend(wrong);
            let [one] = &built[..] else { continue };
            let counter = directory.join("counter.so");
            let source = root().join("src/kernels/testing/counter.c");
            let arguments = ["-O1", "-shared", "-fPIC", "-o"].map(Path::new);
            run(
                &directory,
                "cc",
                &[&arguments[..], &[counter.as_path(), source.as_path()]].concat(),
            );
            matrix::write_glue(&directory, &built);
            let program = matrix::link(&directory, machine.prefix, &[format!("{}.a", one.id)]);
            let path = directory.join(&program);
            let count = |(from, to): (u64, u64)| {
                let plugin = format!("{},from={from},to={to}", counter.display());
                let output = command(machine.emulator[0])
                    .args(&machine.emulator[1..])
                    .args(["-plugin", &plugin])
                    .arg(&path)
                    .args(["in", "out"])
                    .current_dir(&directory)
                    .output()
                    .unwrap();
                let wrong = matrix::judge(&directory, &built, &output);
                let messages = String::from_utf8_lossy(&output.stderr).into_owned();
                let count = messages.lines().find_map(|line| line.strip_prefix("instructions "));
                (wrong, count.and_then(|count| count.parse::<u64>().ok()))
            };
            let own = format!("{}_", one.id);
            let (wrong, all) = count(code(&path, |name| name.starts_with(&own)));
            failures.extend(wrong);
            // The harness runs some inputs twice, and some runs are refused: the first kernel, which no other layer of
            // these models has, says how often.
            let kernel = format!("{own}kernel_");
            let (entry, _) = code(&path, |name| name.starts_with(&kernel) && name.ends_with("_0"));
            let (_, runs) = count((entry, entry + 1));
            let (Some(all), Some(runs)) = (all, runs) else {
                tools::skip(&format!("{}: this emulator takes no plug-ins", machine.name));
                continue;
            };
            let each = all / runs.max(1);
            let ratio = each as f64 / *bound as f64;
            println!("{:<12} {model:<8} {each:>12} {bound:>12} {ratio:>6.2}", machine.name);
            if each > *bound {
                failures.push(format!(
                    "{model} on {}: {each} instructions, at most {bound}",
                    machine.name
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// From the first to the last of the functions that are `wanted`.
fn code(program: &Path, wanted: impl Fn(&str) -> bool) -> (u64, u64) {
    let bytes = fs::read(program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let own = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.name().is_ok_and(&wanted));
    let (mut from, mut to) = (u64::MAX, 0);
    for symbol in own {
        from = from.min(symbol.address());
        to = to.max(symbol.address() + symbol.size());
    }
    assert!(from < to, "no function of the model");
    (from, to)
}
