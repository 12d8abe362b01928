//! The passes on real models: the same bytes come out, and the graph is what kernels expect.

use crate::cases;
use corerope::data::Source;
use corerope::frontend::{ReadOptions, read};
use corerope::graph::evaluate::{Arithmetic, evaluate};
use corerope::graph::text::{parse, print, print_full};
use corerope::graph::{Graph, OpKind};
use corerope::passes;
use std::fs;
use std::sync::Arc;

fn each(mut check: impl FnMut(&str, &Graph, &[Vec<Vec<u8>>])) {
    let exceptions = cases::exceptions();
    for case in cases::fixtures().into_iter().chain(cases::shared()) {
        if exceptions.contains_key(&case.name) {
            continue;
        }
        let source = Arc::new(Source::Memory(fs::read(&case.model).unwrap()));
        let options = ReadOptions {
            name: case.name.clone(),
            ..ReadOptions::default()
        };
        let graph = read(source, &options).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let inputs: Vec<_> = case.sets.into_iter().map(|set| set.inputs).collect();
        check(&case.name, &graph, &inputs);
    }
}

#[test]
fn passes_change_no_result() {
    let mut models = 0;
    each(|name, graph, sets| {
        for fused_multiply_add in [false, true] {
            let arithmetic = Arithmetic { fused_multiply_add };
            let mut rewritten = graph.clone();
            passes::run(&mut rewritten, arithmetic, None, &mut |_, _| ())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            for inputs in sets.iter().take(2) {
                let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
                let [before, after] =
                    [graph, &rewritten].map(|graph| evaluate(graph, &inputs, arithmetic).expect("legal graphs"));
                assert!(before == after, "{name}:\n{}\n{}", print(graph), print(&rewritten));
            }
            for op in &rewritten.ops {
                let input = op.inputs.first().map(|id| rewritten.tensor(*id).dtype.name());
                let unary = matches!(op.kind, OpKind::Unary { .. }) && input == Some("int8");
                assert!(!unary, "{name}: {} is no table", op.describe());
            }
        }
        models += 1;
    });
    println!("{models} models");
    assert!(models > 0);
}

#[test]
fn listings_of_real_models_parse_back() {
    each(|name, graph, _| {
        let text = print_full(graph);
        let again = parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(print_full(&again) == text, "{name}");
        assert!(print(&again) == print(graph), "{name}");
    });
}
