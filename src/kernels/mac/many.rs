//! Thousands of layers that nobody tuned, bit for bit on every architecture, and what they cost: an ignored test.

use super::super::testing::{emulated, hosts, run, run_counted};
use super::tests::{Case, Random, lower, random_layer, reference};
use crate::graph::{DType, OpId, TensorId};
use crate::target::Target;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Products from which on a layer's instructions are compared.
const COUNTED: u64 = 10_000;
/// How many of the worst are named.
const WORST: usize = 8;

/// `COREROPE_LAYERS=2000 COREROPE_SEED=1 cargo test --lib many_layers -- --ignored --nocapture`: random layers (channels
/// 1 to 300, windows 1 to 11, strides, dilations, odd sizes, spread exponents) against the plain definition, on this
/// machine and in emulators, and the distribution of instructions for each product on those that count them.
/// `COREROPE_CPUS=rv32imc,rv64gc` for some of them.
#[test]
#[ignore = "takes minutes; random_layers and other_architectures are short"]
fn many_layers() {
    let number = |name: &str, default: u64| {
        let value = std::env::var(name).ok().and_then(|value| value.parse().ok());
        value.unwrap_or(default)
    };
    let (count, seed) = (number("COREROPE_LAYERS", 200), number("COREROPE_SEED", 1));
    let mut random = Random(seed);
    let targets: Vec<(Target, bool)> = (hosts().into_iter().map(|target| (target, true)))
        .chain(emulated().into_iter().map(|target| (target, false)))
        // Int8 kernels are the same as those of rv64gc, rv32imc, cortex-m4+fp.
        .filter(|(target, _)| !["rv64g", "rv32gc", "cortex-m4+nofp"].contains(&target.cpu.name))
        .filter(|(target, _)| {
            let only = std::env::var("COREROPE_CPUS").ok();
            only.is_none_or(|only| only.split(',').any(|name| name == target.cpu.name))
        })
        .collect();
    let mut costs: BTreeMap<String, Vec<(f64, Case, String)>> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut layers = 0;
    while layers < count {
        let case = random_layer(&mut random);
        let Some((graph, input)) = case.graph(DType::I8, &mut random) else {
            continue;
        };
        layers += 1;
        let values = BTreeMap::from([(TensorId(0), input.clone())]);
        let wanted = reference(&graph, &input, &values, false);
        let products = wanted.len() as u64 * (graph.tensor(TensorId(1)).bytes() / case.channels()) as u64;
        for (target, here) in &targets {
            let lowered = lower(&graph, target);
            // Kernels that go wrong are named, and the others go on.
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                if *here {
                    (run(&graph, OpId(0), &lowered, target, &values), None)
                } else {
                    run_counted(&graph, OpId(0), &lowered, target, &values)
                }
            }));
            let (found, instructions) = outcome.unwrap_or_default();
            if found != wanted {
                wrong.push(format!("{target}: {case:?} {}", lowered.schedule));
            }
            if let Some(instructions) = instructions.filter(|_| products >= COUNTED) {
                let each = instructions as f64 / products as f64;
                let costs = costs.entry(target.to_string()).or_default();
                costs.push((each, case, lowered.schedule.clone()));
            }
        }
    }
    println!("{layers} layers from seed {seed}");
    for (target, mut costs) in costs {
        costs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let deciles: Vec<String> = (0..=10)
            .map(|tenth| format!("{:.2}", costs[(costs.len() - 1) * tenth / 10].0))
            .collect();
        println!(
            "{target}: {} layers; instructions for each product, from the least by tenths to the most: {}",
            costs.len(),
            deciles.join(" "),
        );
        for (each, case, schedule) in costs.iter().rev().take(WORST) {
            println!("  {each:.2} {case} — {schedule}");
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
