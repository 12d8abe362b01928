//! How small the arenas of real models are on Cortex-M4 and M7, and what that costs in instructions.
//!
//! `cargo test --test it arenas -- --nocapture` prints the table. That such builds compute the same is for the boards'
//! tests (`cortex_m4_ram`, `cortex_m4_rows`), which also hold the counts against what QEMU executes.

use crate::cases;
use crate::tools;

/// A model, further options, the most bytes of the arena, the most instructions for each thousand of a build for speed.
/// Inputs and outputs are in the arena, scratch is too.
const BOUNDS: &[(&str, &[&str], u64, u64)] = &[
    ("kws", &[], 16_000, 1_020),
    ("vww", &[], 55_296, 1_020),
    ("resnet", &[], 49_152, 1_020),
    ("ad", &[], 768, 1_080),
    ("kws", &["--optimize", "ram"], 4_300, 1_080),
    ("vww", &["--optimize", "ram"], 28_500, 1_080),
    ("resnet", &["--optimize", "ram"], 10_400, 1_080),
    ("vgg32", &["--optimize", "ram"], 11_000, 1_080),
    ("vww", &["--optimize", "ram", "--input", "rows"], 10_500, 1_080),
];

/// Bytes of the arena, the bound below which no placement gets, instructions.
fn figures(model: &str, options: &[&str]) -> Option<[u64; 3]> {
    let cases = cases::shared();
    let case = cases.iter().find(|case| case.name == model)?;
    let cpu = if model == "vgg32" {
        "cortex-m7+fp"
    } else {
        "cortex-m4+fp"
    };
    let target = ["--target", "thumbv7em-none-eabihf", "--cpu", cpu, "--io", "arena"];
    let file = case.model.to_str().unwrap();
    let report = tools::run(
        cases::root(),
        tools::COREROPE,
        &[&["inspect", "--json", file], &target[..], options].concat(),
    );
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let number = |path: [&str; 2]| report[path[0]][path[1]].as_u64().expect("a number of the report");
    Some([
        number(["ram", "arena"]),
        number(["ram", "lower_bound"]),
        number(["instructions", "most"]),
    ])
}

#[test]
fn are_small_for_few_instructions() {
    println!(
        "{:<8} {:<30} {:>7} {:>7} {:>7} {:>12} {:>7}",
        "model", "options", "arena", "at most", "bound", "instructions", "percent"
    );
    let mut failures = Vec::new();
    for (model, options, most, thousandths) in BOUNDS {
        let Some([arena, bound, instructions]) = figures(model, options) else {
            continue;
        };
        let input = options.iter().position(|option| *option == "--input");
        let input = input.map_or(&[][..], |at| &options[at..]);
        let speed = [&["--optimize", "speed"], input].concat();
        let [_, _, speed] = figures(model, &speed).expect("it was there before");
        let options = options.join(" ");
        println!(
            "{model:<8} {options:<30} {arena:>7} {most:>7} {bound:>7} {instructions:>12} {:>+7.2}",
            100.0 * (instructions as f64 / speed as f64 - 1.0)
        );
        if arena > *most || instructions * 1000 > speed * thousandths {
            failures.push(format!(
                "{model} {options}: {arena} bytes, {instructions} for {speed} instructions"
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
