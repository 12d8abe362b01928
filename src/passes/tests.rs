//! Textual cases in `cases/PASS.txt`, and random graphs.
//!
//! A case is a title, a graph and what the pass of the file's name makes of it:
//! ```text
//! === title
//! graph
//! ---
//! graph
//! ```
//! A title that ends in `(fma)` asks for fused multiply-add. `COREROPE_BLESS=1` rewrites the results.

use super::{PASSES, run};
use crate::graph::evaluate::{Arithmetic, evaluate};
use crate::graph::text::{parse, print};
use crate::graph::verify::{verify, verify_outputs};
use crate::graph::{Graph, OpKind};
use std::fs;
use std::path::Path;

mod random;

fn check_cases(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/passes/cases/{name}.txt"));
    let text = fs::read_to_string(&path).unwrap();
    let pass = PASSES.iter().find(|pass| pass.name == name).unwrap();
    let mut blessed = String::new();
    let mut count = 0;
    for case in text.split("=== ").skip(1) {
        let (title, graphs) = case.split_once('\n').unwrap();
        let before = graphs.split_once("---\n").map_or(graphs, |(before, _)| before);
        let mut graph = parse(before).unwrap_or_else(|error| panic!("{name}: {title}: {error}"));
        verify(&graph).unwrap_or_else(|error| panic!("{name}: {title}: {error}"));
        let arithmetic = Arithmetic {
            fused_multiply_add: title.ends_with("(fma)"),
        };
        let after = match (pass.run)(&mut graph, arithmetic) {
            Ok(()) => {
                verify(&graph).unwrap_or_else(|error| panic!("{name}: {title}: {error}\n{}", print(&graph)));
                print(&graph)
            }
            Err(error) => format!("{error}\n"),
        };
        blessed += &format!("=== {title}\n{before}---\n{after}\n");
        count += 1;
    }
    assert!(count > 0, "{name}: no cases");
    let blessed = blessed.trim_end().to_owned() + "\n";
    if std::env::var_os("COREROPE_BLESS").is_some() {
        fs::write(&path, blessed).unwrap();
    } else {
        assert_eq!(text, blessed, "{name}: COREROPE_BLESS=1 accepts the new results");
    }
}

macro_rules! cases {
    ($($test:ident: $name:literal,)*) => {
        $(#[test] fn $test() { check_cases($name); })*

        #[test]
        fn every_pass_has_cases() {
            let names = [$($name),*];
            // These two are `dead` and `dedupe` again.
            let again = ["compact", "share"];
            assert!(PASSES.iter().all(|pass| again.contains(&pass.name) || names.contains(&pass.name)));
        }
    };
}

cases! {
    fold: "fold",
    transpose: "transpose",
    dead: "dead",
    fuse_quantize: "fuse-quantize",
    fuse_activation: "fuse-activation",
    fuse_pad: "fuse-pad",
    lookup: "lookup",
    dedupe: "dedupe",
    views: "views",
}

#[test]
fn unknown_passes_are_refused() {
    let mut graph = parse("input %0 : int8[1]\noutput %0").unwrap();
    let error = run(&mut graph, Arithmetic::default(), Some("fuse"), &mut |_, _| ()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("there is no pass \"fuse\"; the passes are: fold, transpose, dead, dedupe,"),
        "{error}"
    );
}

#[test]
fn stops_and_shows_after_each_pass() {
    let mut graph = parse("input %0 : int8[1]\noutput %0").unwrap();
    let mut seen = Vec::new();
    run(
        &mut graph,
        Arithmetic::default(),
        Some("fuse-quantize"),
        &mut |name, _| seen.push(name.to_owned()),
    )
    .unwrap();
    assert_eq!(seen, ["fold", "transpose", "dead", "dedupe", "fuse-quantize"]);
}

/// Results with and without the passes are the same bytes.
fn check_unchanged(seed: u64, graph: &Graph, inputs: &[Vec<u8>], arithmetic: Arithmetic) {
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let expected = evaluate(graph, &inputs, arithmetic).unwrap();
    for pass in PASSES {
        let mut rewritten = graph.clone();
        (pass.run)(&mut rewritten, arithmetic).unwrap();
        let shown = || format!("seed {seed}, {}:\n{}\n{}", pass.name, print(graph), print(&rewritten));
        verify(&rewritten).unwrap_or_else(|error| panic!("{error}: {}", shown()));
        assert!(
            evaluate(&rewritten, &inputs, arithmetic).unwrap() == expected,
            "{}",
            shown()
        );
    }
    let mut rewritten = graph.clone();
    run(&mut rewritten, arithmetic, None, &mut |_, _| ()).unwrap();
    verify_outputs(&rewritten).unwrap();
    let shown = || format!("seed {seed}:\n{}\n{}", print(graph), print(&rewritten));
    assert!(
        evaluate(&rewritten, &inputs, arithmetic).unwrap() == expected,
        "{}",
        shown()
    );
    let names =
        |graph: &Graph| -> Vec<String> { graph.outputs.iter().map(|id| graph.tensor(*id).name.clone()).collect() };
    assert_eq!(names(&rewritten), names(graph), "{}", shown());
    // Again: legal, and nothing grows. It may shrink, where one pass made way for another.
    let kernels = |graph: &Graph| graph.ops.iter().filter(|op| op.kind != OpKind::Reshape).count();
    let mut again = rewritten.clone();
    run(&mut again, arithmetic, None, &mut |_, _| ()).unwrap();
    assert!(kernels(&again) <= kernels(&rewritten), "{}", shown());
}

#[test]
fn random_graphs_compute_the_same() {
    for seed in 0..1000 {
        let (graph, inputs) = random::graph(seed);
        verify(&graph).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{}", print(&graph)));
        check_unchanged(
            seed,
            &graph,
            &inputs,
            Arithmetic {
                fused_multiply_add: seed % 2 == 0,
            },
        );
    }
}

#[test]
fn random_graphs_take_part_in_every_rewrite() {
    let mut changed = vec![0; PASSES.len()];
    for seed in 0..200 {
        let (mut graph, _) = random::graph(seed);
        let mut before = print(&graph);
        let mut index = 0;
        run(&mut graph, Arithmetic::default(), None, &mut |_, graph| {
            let after = print(graph);
            changed[index] += usize::from(after != before);
            before = after;
            index += 1;
        })
        .unwrap();
    }
    println!("graphs that each pass changed: {changed:?}");
    for (pass, changed) in PASSES.iter().zip(changed) {
        assert!(changed >= 3, "{} changed {changed} graphs of 200", pass.name);
    }
}

#[test]
fn random_graphs_print_and_parse() {
    for seed in 0..100 {
        let (graph, _) = random::graph(seed);
        let text = crate::graph::text::print_full(&graph);
        assert_eq!(
            crate::graph::text::print_full(&parse(&text).unwrap()),
            text,
            "seed {seed}"
        );
    }
}

/// Listings of random graphs with a few characters changed: whatever is legal stays so, and nothing panics.
#[test]
fn changed_listings() {
    let mut legal = 0;
    for seed in 0..3000 {
        let (graph, _) = random::graph(seed % 100);
        let text = crate::graph::text::print_full(&graph);
        let mut random = random::Random::new(seed);
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..1 + random.below(3) {
            let (at, from) = (random.below(chars.len()), random.below(chars.len()));
            match random.below(4) {
                0 => {
                    chars.remove(at);
                }
                1 => chars.insert(at, chars[from]),
                2 => chars[at] = random.pick(&['0', '1', '9', '-', '%', ',', '"', '\\', 'é', '\n']),
                _ => {
                    // One number for another.
                    let digits: Vec<usize> = (0..chars.len()).filter(|i| chars[*i].is_ascii_digit()).collect();
                    chars[random.pick(&digits)] = random.pick(&['0', '1', '2', '3', '4', '7']);
                }
            }
        }
        let text: String = chars.into_iter().collect();
        let Ok(mut graph) = parse(&text) else {
            continue;
        };
        let size: usize = graph
            .tensors
            .iter()
            .map(|tensor| tensor.shape.0.iter().sum::<usize>())
            .sum();
        if verify(&graph).is_err() || size > 10_000 {
            continue;
        }
        legal += 1;
        let inputs: Vec<Vec<u8>> = graph
            .inputs
            .iter()
            .map(|id| vec![0; graph.tensor(*id).bytes()])
            .collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let arithmetic = Arithmetic::default();
        let expected = evaluate(&graph, &inputs, arithmetic).unwrap_or_else(|error| panic!("{error}\n{text}"));
        run(&mut graph, arithmetic, None, &mut |_, _| ()).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(evaluate(&graph, &inputs, arithmetic).unwrap() == expected, "{text}");
    }
    println!("{legal} of 3000 are legal");
    assert!(legal > 300);
}

/// Time and stack do not grow out of hand with the number of operators.
#[test]
fn long_chains() {
    let count = 20_000;
    for (ty, ops) in [
        ("int8[2] q(0.5,0)", &["relu", "quantize"][..]),
        ("float32[2]", &["relu", "tanh"]),
        ("float32[2]", &["reshape"]),
    ] {
        let mut text = format!("input %0 : {ty}\n");
        for i in 1..=count {
            text += &format!("%{i} : {ty} = {}(%{})\n", ops[i % ops.len()], i - 1);
        }
        let outputs: Vec<String> = (0..1000).map(|i| format!("%{}", count - i % 700)).collect();
        let mut graph = parse(&format!("{text}output {}\n", outputs.join(","))).unwrap();
        verify(&graph).unwrap();
        run(&mut graph, Arithmetic::default(), None, &mut |_, _| ()).unwrap();
    }
}
