//! The evaluator against the expected outputs: integers bit for bit, floats within the tolerance.

use crate::cases::{self, Case};
use corerope::data::Source;
use corerope::frontend::{ReadOptions, read};
use corerope::graph::evaluate::{Arithmetic, evaluate};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

/// Greatest distance in units in the last place, by the start of the names. Results that are small beside the model's
/// greatest one are left out: cancellation leaves them few digits in any order of summation.
#[derive(Default)]
struct Distances(BTreeMap<String, u32>);

impl Distances {
    fn add(&mut self, name: &str, got: &[u8], expected: &[u8]) {
        let floats = |bytes: &[u8]| -> Vec<f32> {
            let (chunks, _) = bytes.as_chunks();
            chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
        };
        let (got, expected) = (floats(got), floats(expected));
        let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        let ordered = |x: f32| x.to_bits().cast_signed() ^ ((x.to_bits().cast_signed() >> 31) & i32::MAX);
        let family = name.split(['_', '.']).next().unwrap().to_owned();
        let greatest = self.0.entry(family).or_default();
        for (a, b) in got.into_iter().zip(expected) {
            if b.abs() > most / 16.0 {
                *greatest = (*greatest).max(ordered(a).abs_diff(ordered(b)));
            }
        }
    }
}

fn differences(case: &Case, arithmetic: Arithmetic, distances: &mut Distances) -> Vec<String> {
    let source = Arc::new(Source::Memory(fs::read(&case.model).unwrap()));
    let options = ReadOptions {
        name: case.name.clone(),
        ..ReadOptions::default()
    };
    let graph = match read(source, &options) {
        Ok(graph) => graph,
        Err(error) => return vec![format!("{}: {error}", case.name)],
    };
    let mut differences = Vec::new();
    for set in &case.sets {
        let inputs: Vec<&[u8]> = set.inputs.iter().map(Vec::as_slice).collect();
        let outputs = match evaluate(&graph, &inputs, arithmetic) {
            Ok(outputs) => outputs,
            Err(error) => return vec![format!("{}: {error}", case.name)],
        };
        let outputs: Vec<&[u8]> = outputs.iter().map(Vec::as_slice).collect();
        differences.extend(case.difference(set, &outputs));
        if case.float {
            for (got, expected) in outputs.iter().zip(&set.outputs) {
                distances.add(&case.name, got, expected);
            }
        }
    }
    differences
}

#[test]
fn evaluator_gives_the_expected_outputs() {
    let exceptions = cases::exceptions();
    for fused_multiply_add in [false, true] {
        let mut distances = Distances::default();
        let mut failures = Vec::new();
        let mut sets = 0;
        for case in cases::fixtures().into_iter().chain(cases::shared()) {
            // Integers do not depend on the machine: once is enough.
            if exceptions.contains_key(&case.name) || fused_multiply_add && !case.float {
                continue;
            }
            sets += case.sets.len();
            failures.extend(differences(&case, Arithmetic { fused_multiply_add }, &mut distances));
        }
        println!("{sets} sets; greatest distances of floats (ULP): {:?}", distances.0);
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
