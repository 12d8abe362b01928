//! Executed instructions of one inference of every model on 32-bit machines, against bounds.
//!
//! `cargo test --test it instructions -- --include-ignored --nocapture --test-threads 1` prints all tables, those for
//! 64-bit machines included.

use crate::cases;
use crate::firmware::{ARM, Board, RISCV};
use crate::matrix;
use crate::tools;
use std::collections::BTreeMap;

/// A model, its most instructions, a peer's; 0 where there is none.
type Bound = (&'static str, u64, u64);

/// A board, and for models the most instructions that they may take on it, and what a peer takes: on Cortex-M4 and M7
/// TFLite Micro with CMSIS-NN (float: its own kernels), on rv32imc TFLite Micro's reference kernels, on rv32gc TVM's static
/// runtime.
const BOUNDS: &[(Board, &[Bound])] = &[
    (
        Board {
            name: "cortex-m4",
            arguments: &["--target", "thumbv7em-none-eabihf"],
            flags: &["-mcpu=cortex-m4", "-mfloat-abi=hard"],
            qemu: &["qemu-system-arm", "-M", "mps2-an386"],
            ..ARM
        },
        &[
            ("kws", 2_700_000, 7_696_410),
            ("vww", 8_200_000, 24_101_963),
            ("resnet", 11_500_000, 29_863_363),
            ("ad", 260_000, 582_943),
            ("micro_speech", 360_000, 1_495_411),
            ("hello_int8", 3_526, 3_526),
            ("cifar10_float", 10_000_000, 39_700_000),
            ("sine_float", 1_400, 0),
        ],
    ),
    (
        Board {
            name: "cortex-m7",
            arguments: &["--target", "thumbv7em-none-eabihf", "--cpu", "cortex-m7+fp"],
            flags: &["-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
            qemu: &["qemu-system-arm", "-M", "mps2-an500"],
            ..ARM
        },
        &[("vgg32", 13_600_000, 32_567_582)],
    ),
    (
        Board {
            name: "cortex-m3",
            arguments: &["--target", "thumbv7m-none-eabi"],
            flags: &["-mcpu=cortex-m3"],
            qemu: &["qemu-system-arm", "-M", "mps2-an385"],
            ..ARM
        },
        &[
            ("kws", u64::MAX, 0),
            ("vww", u64::MAX, 0),
            ("resnet", u64::MAX, 0),
            ("ad", u64::MAX, 0),
            ("micro_speech", u64::MAX, 0),
            ("hello_int8", u64::MAX, 0),
        ],
    ),
    (
        Board {
            name: "rv32imc",
            arguments: &["--target", "riscv32imc-unknown-none-elf"],
            flags: &["-march=rv32imc_zicsr", "-mabi=ilp32"],
            ..RISCV
        },
        &[
            ("kws", 7_200_000, 44_300_000),
            ("vww", 19_000_000, 109_900_000),
            ("resnet", 28_000_000, 125_500_000),
            ("ad", 570_000, 2_480_000),
            ("micro_speech", u64::MAX, 0),
            ("hello_int8", u64::MAX, 0),
        ],
    ),
    (
        Board {
            name: "rv32gc",
            arguments: &["--target", "riscv32gc-unknown-none-elf"],
            flags: &["-march=rv32gc", "-mabi=ilp32d"],
            ..RISCV
        },
        &[("sine_float", 1_400, 2_784)],
    ),
];

/// Cycles of TFLite Micro with CMSIS-NN on Cortex-M4 by the same table, from a trace of every instruction that ran.
const PEER_CYCLES: &[(&str, u64)] = &[
    ("kws", 9_156_412),
    ("vww", 29_001_902),
    ("resnet", 36_431_024),
    ("ad", 722_439),
    ("micro_speech", 2_032_451),
];

/// On Cortex-M4, by a table of what each kind of instruction takes, a run takes at most half of CMSIS-NN's cycles.
#[test]
fn half_of_the_cycles() {
    println!(
        "{:<14} {:>18} {:>14} {:>6}",
        "model", "cycles (modelled)", "CMSIS-NN's", "ratio"
    );
    for case in cases::shared() {
        let Some((name, peer)) = PEER_CYCLES.iter().find(|(name, _)| *name == case.name) else {
            continue;
        };
        let model = case.model.to_str().unwrap();
        let arguments = ["inspect", "--json", model, "--target", "thumbv7em-none-eabihf"];
        let report = tools::run(cases::root(), tools::COREROPE, &arguments);
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["cycles"]["core"], "Cortex-M4");
        let cycles = report["cycles"]["most"].as_u64().expect("cycles");
        println!(
            "{name:<14} {cycles:>18} {peer:>14} {:>6.2}",
            cycles as f64 / *peer as f64
        );
        let instructions = report["instructions"]["most"].as_u64().expect("a count");
        assert!(instructions < cycles && cycles * 2 <= *peer, "{name}: {cycles}");
        let layers = report["layers"].as_array().expect("layers").iter();
        let sum: u64 = layers.map(|layer| layer["cycles"].as_u64().expect("cycles")).sum();
        // What is left is the function that calls the kernels.
        assert!(
            sum < cycles && (cycles - sum) * 50 < cycles,
            "{name}: {sum} of {cycles}"
        );
    }
}

/// A balanced build takes at most 2% more instructions than one for speed, by the counts that `inspect` prints.
#[test]
fn balanced_builds_are_nearly_as_fast() {
    let names = ["ad", "kws", "resnet", "vgg32", "vww"];
    for case in cases::shared()
        .into_iter()
        .filter(|case| names.contains(&case.name.as_str()))
    {
        let (model, cpu) = (
            case.model.to_str().unwrap(),
            if case.name == "vgg32" {
                "cortex-m7+fp"
            } else {
                "cortex-m4+fp"
            },
        );
        let count = |goal: &str| {
            let target = ["--target", "thumbv7em-none-eabihf", "--cpu", cpu, "--optimize", goal];
            let report = tools::run(
                cases::root(),
                tools::COREROPE,
                &[&["inspect", "--json", model], &target[..]].concat(),
            );
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            report["instructions"]["most"].as_u64().expect("a count")
        };
        let (speed, balanced) = (count("speed"), count("balanced"));
        assert!(balanced * 100 <= speed * 102, "{}: {balanced} for {speed}", case.name);
    }
}

/// What each goal costs and gives on Cortex-M4 (vgg32: M7). Wanted are at most 8% more instructions for the smallest arena
/// than by default, and 1.4 times for the least code in at most 10 KiB beside weights, biases and scales.
#[test]
fn goals() {
    println!(
        "{:<14} {:<9} {:>12} {:>7} {:>9} {:>7} {:>7}",
        "model", "optimize", "instructions", "ratio", "arena", "code", "tables"
    );
    let models = BOUNDS[0].1.iter().chain(BOUNDS[1].1).map(|(name, ..)| *name);
    for (name, case) in
        models.filter_map(|name| Some((name, cases::shared().into_iter().find(|case| case.name == name)?)))
    {
        let cpu = if name == "vgg32" {
            "cortex-m7+fp"
        } else {
            "cortex-m4+fp"
        };
        let mut usual = 0;
        for goal in ["balanced", "speed", "ram", "size"] {
            let model = case.model.to_str().unwrap();
            let target = ["--target", "thumbv7em-none-eabihf", "--cpu", cpu, "--optimize", goal];
            let report = tools::run(
                cases::root(),
                tools::COREROPE,
                &[&["inspect", "--json", model], &target[..]].concat(),
            );
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            let number = |part: &str, of: &str| report[part][of].as_u64().expect("a number of the report");
            let instructions = number("instructions", "most");
            if goal == "balanced" {
                usual = instructions;
            }
            let ratio = instructions as f64 / usual as f64;
            println!(
                "{name:<14} {goal:<9} {instructions:>12} {ratio:>7.3} {:>9} {:>7} {:>7}",
                number("ram", "arena"),
                number("flash", "code"),
                number("flash", "tables"),
            );
            assert!(
                ratio <= 1.4,
                "{name} for {goal}: {ratio:.3} times the instructions of a balanced build"
            );
        }
    }
}

/// What common shapes of operators get, on a machine of each kind.
#[test]
#[ignore = "prints tables; tests of the library hold what they say"]
fn shapes() {
    for target in [
        &["thumbv7em-none-eabihf"][..],
        &["thumbv7m-none-eabi"],
        &["riscv32imc-unknown-none-elf"],
        &["riscv64gc-unknown-none-elf"],
        &["aarch64-unknown-none", "--cpu", "a64-dotprod"],
        &["x86_64-unknown-linux-gnu"],
    ] {
        let arguments = [&["targets", "--shapes", "--target"], target].concat();
        println!("{}", tools::run(cases::root(), tools::COREROPE, &arguments));
    }
}

/// What lies in flash beside the weights on Cortex-M4, by default and with `--optimize size`, where code and tables stay
/// under 16 KiB. Biases and the factors of requantization, four bytes each for every channel or less, are the model's own.
#[test]
fn beside_the_weights() {
    let names = ["kws", "vww", "resnet", "ad"];
    println!(
        "{:<8} {:<9} {:>7} {:>7} {:>7} {:>7} {:>7} {:>12}",
        "model", "optimize", "code", "tables", "biases", "scales", "all", "instructions"
    );
    for case in cases::shared() {
        if !names.contains(&case.name.as_str()) {
            continue;
        }
        for goal in ["balanced", "size"] {
            let target = ["--target", "thumbv7em-none-eabihf", "--optimize", goal];
            let model = case.model.to_str().unwrap();
            let arguments = [&["inspect", "--json", model], &target[..]].concat();
            let report = tools::run(cases::root(), tools::COREROPE, &arguments);
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            let flash = |part: &str| report["flash"][part].as_u64().expect("bytes");
            let [code, tables, biases, scales] = ["code", "tables", "biases", "scales"].map(flash);
            println!(
                "{:<8} {goal:<9} {code:>7} {tables:>7} {biases:>7} {scales:>7} {:>7} {:>12}",
                case.name,
                code + tables + biases + scales,
                report["instructions"]["most"].as_u64().expect("a count"),
            );
            assert_eq!(flash("other"), tables + biases + scales);
            assert!(code + tables <= 24 << 10, "{}", case.name);
            assert!(goal != "size" || code + tables <= 16 << 10, "{}", case.name);
        }
    }
}

/// Columns: what a run executed at most, the bound, the part of a peer's instructions that this is; what `inspect` says
/// that a run may execute at most; bytes of stack that a run used; bytes of code, and of constants beside the weights.
#[test]
#[ignore = "prints a table; every model also runs on its board in the tests of firmware"]
fn instructions() {
    let mut failures = Vec::new();
    println!(
        "{:<10} {:<14} {:>12} {:>12} {:>6} {:>12} {:>7} {:>7} {:>10}",
        "board", "model", "instructions", "at most", "peer", "predicted", "stack", "code", "constants"
    );
    for (board, bounds) in BOUNDS {
        if !board.available() {
            continue;
        }
        let directory = tools::directory(&format!("instructions-{}", board.name));
        let picked = |name: &str| bounds.iter().find(|(model, _, _)| *model == name);
        let (built, wrong) = matrix::build(&directory, board.arguments, "a", |case| picked(&case.name).is_some());
        failures.extend(wrong);
        if built.is_empty() {
            continue;
        }
        let (wrong, lines) = board.batch(&directory, &built);
        failures.extend(wrong);
        // The most of all sets of inputs.
        let mut most: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for line in lines.lines() {
            if let [model, instructions, stack] = line.split(' ').collect::<Vec<_>>()[..] {
                let entry = most.entry(model).or_default();
                entry.0 = entry.0.max(instructions.parse().unwrap());
                entry.1 = entry.1.max(stack.parse().unwrap());
            }
        }
        for (model, bound, peer) in *bounds {
            let Some((instructions, stack)) = most.get(model) else {
                continue;
            };
            let built = built.iter().find(|built| built.case.name == *model);
            let report = board.report(&directory, built.expect("what ran was built"));
            let number = |path: [&str; 2]| report[path[0]][path[1]].as_u64().expect("a number of the report");
            let at_most = Some(bound).filter(|bound| **bound < u64::MAX).map(u64::to_string);
            let at_most = at_most.unwrap_or_default();
            let ratio = match *peer {
                0 => String::new(),
                peer => format!("{:.2}", *instructions as f64 / peer as f64),
            };
            println!(
                "{:<10} {model:<14} {instructions:>12} {at_most:>12} {ratio:>6} {:>12} {stack:>7} {:>7} {:>10}",
                board.name,
                number(["instructions", "most"]),
                number(["flash", "code"]),
                number(["flash", "other"]),
            );
            if instructions > bound {
                failures.push(format!(
                    "{model} on {}: {instructions} instructions, at most {bound}",
                    board.name
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
