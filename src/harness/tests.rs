//! Programs of the hand-made model, on every architecture that can run here.

use super::fixture::{self, LEN, Model};
use super::{Kind, Program, default_runner, program};
use crate::assemble;
use crate::codegen;
use crate::kernels::entry::{self, ArenaKind};
use crate::names::Names;
use crate::plan::{Io, Place};
use crate::target::Target;

fn build(target: &Target, model: Model, kind: Kind) -> Program {
    let Model { graph, lowering, plan } = model;
    let names = Names::new(&graph, &lowering);
    let kernels = codegen::compile(assemble::kernels(&lowering, &names), target).unwrap();
    let model = entry::Model::new(&graph, &lowering, &plan, target, &names, ArenaKind::Static);
    program(&model, kernels, kind).unwrap()
}

/// The target and its runner, if programs for it run here.
fn runnable(triple: &str) -> Option<(Target, Option<Vec<String>>)> {
    let target = Target::new(Some(triple), None, None).unwrap();
    let runner = default_runner(&target);
    if let Some(runner) = &runner
        && std::process::Command::new(&runner[0])
            .arg("--version")
            .output()
            .is_err()
    {
        eprintln!("skipped: {} is not installed", runner[0]);
        return None;
    }
    Some((target, runner))
}

const TRIPLES: [&str; 5] = [
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "aarch64-unknown-none",
    "riscv64gc-unknown-linux-gnu",
    "riscv64gc-unknown-none-elf",
];

fn input(seed: usize) -> Vec<u8> {
    (0..LEN).map(|i| (i * 31 + seed) as u8).collect()
}

#[test]
fn runs_many_inputs() {
    for (triple, io) in TRIPLES
        .iter()
        .flat_map(|triple| [(triple, Io::Pointers), (triple, Io::Arena)])
    {
        let Some((target, runner)) = runnable(triple) else {
            continue;
        };
        let program = build(&target, fixture::model(&target, io), Kind::Run);
        let runs: Vec<_> = (0..3).map(|seed| vec![input(seed)]).collect();
        let results = program.run(runner.as_deref(), &runs).unwrap();
        for (run, result) in runs.iter().zip(&results) {
            assert_eq!(result.outputs, [fixture::expected(&run[0])], "{triple} {io:?}");
        }
        assert_eq!(results.len(), 3);
    }
}

#[test]
fn more_than_the_pipes_hold() {
    let (target, runner) = runnable(TRIPLES[0]).unwrap();
    let program = build(&target, fixture::model(&target, Io::Pointers), Kind::Run);
    let runs = vec![vec![input(1)]; 20_000];
    let results = program.run(runner.as_deref(), &runs).unwrap();
    assert!(results.iter().all(|run| run.outputs[0] == fixture::expected(&input(1))));
    assert_eq!(program.run(runner.as_deref(), &[]).unwrap(), []);
}

#[test]
fn traces_every_step() {
    for triple in TRIPLES {
        let Some((target, runner)) = runnable(triple) else {
            continue;
        };
        let program = build(&target, fixture::model(&target, Io::Pointers), Kind::Trace);
        let run = &program.run(runner.as_deref(), &[vec![input(5)]]).unwrap()[0];
        let once: Vec<u8> = input(5)
            .iter()
            .zip(fixture::parameter())
            .map(|(x, w)| x.wrapping_add(w))
            .collect();
        assert_eq!(run.trace, [once, fixture::expected(&input(5))], "{triple}");
        assert_eq!(run.outputs, [fixture::expected(&input(5))]);
    }
}

/// Runs a model that was broken on purpose; the error's text.
fn broken(triple: &str, change: impl Fn(&mut Model)) -> Option<String> {
    let (target, runner) = runnable(triple)?;
    let mut model = fixture::model(&target, Io::Pointers);
    change(&mut model);
    let program = build(&target, model, Kind::Run);
    Some(
        program
            .run(runner.as_deref(), &[vec![input(0)]])
            .unwrap_err()
            .to_string(),
    )
}

#[test]
fn one_byte_outside_is_a_fault() {
    for triple in TRIPLES {
        for (place, what) in [
            (Place::Arena(64 - LEN as u64 + 1), "behind the arena"),
            (Place::Constant, "into a parameter"),
            (Place::Input(0), "into an input"),
        ] {
            let message = broken(triple, |model| {
                // Constants need a name, and get one if the tensor has data.
                if place == Place::Constant {
                    model.graph.tensors[1].data = Some(crate::data::Bytes::from_vec(vec![0; LEN]));
                }
                model.plan.places[1] = place;
            });
            let Some(message) = message else { continue };
            assert!(
                message.contains("memory that is not its own"),
                "{triple}, {what}: {message}"
            );
        }
    }
}

#[test]
fn inputs_of_another_size_are_refused() {
    let (target, _) = runnable(TRIPLES[0]).unwrap();
    let program = build(&target, fixture::model(&target, Io::Pointers), Kind::Run);
    let message = program.run(None, &[vec![vec![0; LEN - 1]]]).unwrap_err().to_string();
    assert_eq!(message, "the inputs have [36] bytes, the model takes [37]");
}

#[test]
fn a_missing_runner_is_named() {
    let (target, _) = runnable(TRIPLES[0]).unwrap();
    let program = build(&target, fixture::model(&target, Io::Pointers), Kind::Run);
    let message = program
        .run(Some(&["no-such-runner".into()]), &[vec![input(0)]])
        .unwrap_err()
        .to_string();
    assert!(message.contains("cannot start no-such-runner"), "{message}");
}
