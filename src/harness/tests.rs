//! Programs of the hand-made model, on every architecture that can run here.

use super::fixture::{self, LEN, Model};
use super::{Kind, Program, default_runner, program};
use crate::assemble;
use crate::codegen;
use crate::graph::TensorId;
use crate::kernels::entry::{self, ArenaKind};
use crate::names::Names;
use crate::object::SectionKind;
use crate::plan::{Buffer, Io, Place};
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

/// A plan that ends a buffer's life before its last read is seen: what is read is garbage.
#[test]
fn reads_of_dead_buffers_differ() {
    for triple in TRIPLES {
        for (last, right) in [(1, true), (0, false)] {
            let Some((target, runner)) = runnable(triple) else {
                continue;
            };
            let mut model = fixture::model(&target, Io::Pointers);
            model.plan.buffers = vec![Buffer {
                tensors: vec![TensorId(1)],
                size: LEN as u64,
                last,
                offset: 16,
                ..Buffer::default()
            }];
            let program = build(&target, model, Kind::Trace);
            let run = &program.run(runner.as_deref(), &[vec![input(5)]]).unwrap()[0];
            let same = run.outputs == [fixture::expected(&input(5))];
            assert_eq!(same, right, "{triple}, dead after step {last}");
        }
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

/// The page of macOS on Apple's processors.
const PAGE: u64 = 16384;

/// A Mach-O library as lld links it, in a file that Linux starts: the same bytes at the same distances.
fn as_elf(library: &[u8], machine: u16) -> Vec<u8> {
    use object::{Object, ObjectSegment, ObjectSymbol};
    let file = object::File::parse(library).unwrap();
    let named = |name| {
        file.symbols()
            .find(|symbol| symbol.name() == Ok(name))
            .unwrap()
            .address()
    };
    let segments: Vec<_> = file.segments().filter(|segment| segment.size() > 0).collect();
    let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_DYN, entry, program headers behind this header.
    head.extend([3u16, machine].map(u16::to_le_bytes).concat());
    head.extend(1u32.to_le_bytes());
    head.extend(
        [named(&*format!("_{}", super::START)), 64, 0]
            .map(u64::to_le_bytes)
            .concat(),
    );
    head.extend(0u32.to_le_bytes());
    head.extend([64, 56, segments.len() as u16, 64, 0, 0].map(u16::to_le_bytes).concat());
    let mut body = Vec::new();
    for segment in &segments {
        let data = segment.data().unwrap();
        let offset = PAGE + body.len() as u64;
        // PT_LOAD, readable, writable, executable.
        head.extend([1u32, 7].map(u32::to_le_bytes).concat());
        let [start, len] = [segment.address(), data.len() as u64];
        head.extend(
            [offset, start, start, len, segment.size(), 4096]
                .map(u64::to_le_bytes)
                .concat(),
        );
        body.extend_from_slice(data);
        body.resize(body.len().next_multiple_of(PAGE as usize), 0);
    }
    head.resize(PAGE as usize, 0);
    head.append(&mut body);
    head
}

/// Code in Mach-O objects computes what it computes elsewhere.
#[test]
fn macho_objects_link_and_run() {
    for (triple, arch, machine) in [
        ("x86_64-apple-darwin", "x86_64", 62),
        ("aarch64-apple-darwin", "arm64", 183),
    ] {
        let Some((target, runner)) = runnable(triple) else {
            continue;
        };
        // With buffers of its own a program makes inputs read-only, in larger pages than Mach-O aligns to on AArch64.
        let io = if arch == "arm64" { Io::Arena } else { Io::Pointers };
        let program = build(&target, fixture::model(&target, io), Kind::Run);
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let mut bytes = Vec::new();
        let mut plan = program.plan.clone();
        // Inputs become read-only page by page: no two buffers share one. Mach-O has a limit, the largest page of any
        // Linux is above it.
        for section in &mut plan.sections {
            section.align = match section.kind {
                SectionKind::Zero => PAGE,
                _ => section.align.min(PAGE),
            };
        }
        crate::object::write(&plan, &target, &mut bytes).unwrap();
        std::fs::write(path("m.o"), bytes).unwrap();
        let linked = std::process::Command::new("ld64.lld-14")
            .current_dir(folder.path())
            .args([
                "-arch",
                arch,
                "-dylib",
                "-platform_version",
                "macos",
                "11.0",
                "11.0",
                "-o",
                "m.dylib",
                "m.o",
            ])
            .output();
        let Ok(output) = linked else {
            eprintln!("skipped: ld64.lld-14 is not installed");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let elf = as_elf(&std::fs::read(path("m.dylib")).unwrap(), machine);
        std::fs::write(path("m"), elf).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(path("m"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let runs: Vec<_> = (0..3).map(|seed| vec![input(seed)]).collect();
        let results = program.execute(&path("m"), runner.as_deref(), &runs).unwrap();
        for (run, result) in runs.iter().zip(&results) {
            assert_eq!(result.outputs, [fixture::expected(&run[0])], "{triple}");
        }
    }
}
