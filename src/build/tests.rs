use super::*;
use crate::error;
use crate::graph::verify::verify as verify_graph;
use crate::output::linker::Dialect;
use crate::output::report;

/// Two equal convolutions with equal weights, one of other size, and a constant that nothing reads.
const MODEL: &str = r#"
graph "net"
input %0 "image" : int8[1,8,8,4] q(0.5,0)
const %1 "conv1/filter" : int8[4,3,3,4] q(0.25,0) = lcg(1, -127, 127)
const %2 "conv1/bias" : int32[4] q(0.125,0) = lcg(2, -100, 100)
%3 "conv1" : int8[1,8,8,4] q(8.0,0) = conv2d(%0, %1, %2) pad=1,1,1,1 act=relu
const %4 "conv2/filter" : int8[4,3,3,4] q(0.25,0) = lcg(1, -127, 127)
const %5 "conv2/bias" : int32[4] q(2.0,0) = lcg(3, -100, 100)
%6 "conv2" : int8[1,8,8,4] q(32.0,0) = conv2d(%3, %4, %5) pad=1,1,1,1 act=relu
const %7 "fc/weights" : int8[10,256] q(0.25,0) = lcg(4, -127, 127)
const %8 "fc/bias" : int32[10] q(8.0,0) = lcg(5, -100, 100)
%9 "fc" : int8[1,10] q(256.0,0) = fully_connected(%6, %7, %8)
tensor %10 "unused" : int8[1]
output %9
"#;

fn options() -> Options {
    let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
    Options::new(target, "net")
}

fn try_build(options: &Options) -> Result<Option<Build>> {
    let graph = text::parse(MODEL).unwrap();
    verify_graph(&graph).unwrap();
    compile_graph(graph, 1000, options, &mut |_, _| {})
}

fn build(options: &Options) -> Build {
    try_build(options).unwrap().unwrap()
}

#[test]
fn every_stage_is_seen_once_and_in_order() {
    let mut seen = Vec::new();
    let graph = text::parse(MODEL).unwrap();
    compile_graph(graph, 0, &options(), &mut |stage, text| {
        assert!(!text().is_empty(), "{stage}");
        seen.push(stage.to_owned());
    })
    .unwrap();
    assert_eq!(seen, stages());
}

#[test]
fn stopping_ends_after_each_stage() {
    let all = stages();
    for (i, stage) in all.iter().enumerate() {
        let mut options = options();
        options.stop_after = Some((*stage).to_owned());
        let mut seen = 0;
        let graph = text::parse(MODEL).unwrap();
        let build = compile_graph(graph, 0, &options, &mut |_, _| seen += 1).unwrap();
        assert_eq!((build.is_none(), seen), (true, i + 1), "{stage}");
    }
}

#[test]
fn two_builds_are_equal() {
    let bytes = || {
        let build = build(&options());
        let mut object = Vec::new();
        crate::object::write(&build.object, &build.options.target, &mut object).unwrap();
        let texts = [
            build.header("net.h").unwrap(),
            build.fragment("net.ld", Dialect::Gnu).unwrap(),
            build.report().json(),
        ];
        (object, texts)
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn the_report_adds_up() {
    let build = build(&options());
    let report = build.report();
    assert_eq!(report.layers.len(), 3);
    assert_eq!(
        report.model.macs,
        report.layers.iter().map(|layer| layer.macs).sum::<u64>()
    );
    assert_eq!(report.model.macs, 2 * 8 * 8 * 4 * 9 * 4 + 2560);
    assert_eq!(
        report.ram.arena,
        report.layers.iter().map(|layer| layer.live).max().unwrap()
    );
    let bytes = |kind: &str| -> u64 {
        let sections = report.sections.iter().filter(|section| section.kind == kind);
        sections.map(|section| section.bytes).sum()
    };
    assert_eq!(bytes("code"), report.flash.code);
    assert_eq!(bytes("constant"), report.flash.weights + report.flash.other);
    assert_eq!(bytes("zero"), report.ram.arena);
    assert!(report.ram.stack > 0);
}

#[test]
fn what_is_left_out_has_a_reason() {
    let extended = MODEL
        .replace("graph \"net\"", "graph \"net\"\nconst %11 \"idle\" : int8[3] = fill(1)")
        .replace(
            "output %9",
            "const %12 \"shift\" : float32[2] = fill(1.0)\n\
             const %13 \"more\" : float32[2] = fill(2.0)\n\
             %14 \"folded\" : float32[2] = add(%12, %13)\n\
             input %15 \"real\" : float32[2]\n\
             %16 \"sum\" : float32[2] = add(%15, %14)\n\
             output %9, %16",
        );
    let graph = text::parse(&extended).unwrap();
    verify_graph(&graph).unwrap();
    let build = compile_graph(graph, 0, &options(), &mut |_, _| {}).unwrap().unwrap();
    let lines: Vec<String> = build
        .dropped
        .iter()
        .map(|d| format!("{} {}: {}", d.name, d.bytes, d.reason))
        .collect();
    assert_eq!(
        lines,
        [
            "conv2/filter 144: equal to \"conv1/filter\"",
            "idle 3: no operator reads it",
            "shift 8: what depends on it is computed when compiling, or needed by no output",
            "more 8: what depends on it is computed when compiling, or needed by no output",
        ]
    );
}

#[test]
fn rules_move_tensors_kernels_and_the_arena() {
    let sections = |rules: &[&str]| -> Vec<String> {
        let mut options = options();
        options.place = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let build = build(&options);
        build
            .object
            .sections
            .iter()
            .map(|section| section.name.clone())
            .collect()
    };
    let default = sections(&[]);
    assert!(
        default.iter().all(|name| name.split('.').nth(2) == Some("net")),
        "{default:?}"
    );
    let count = |names: &[String], section: &str| names.iter().filter(|name| *name == section).count();
    let placed = sections(&["fc/weights=.qspi>QSPI", "arena=.dtcm", "net_run=.itcm"]);
    assert_eq!(
        ["qspi", "dtcm", "itcm"].map(|name| count(&placed, &format!(".{name}"))),
        [1, 1, 1]
    );
    // The first rule that matches wins.
    let first = sections(&["fc*=.a", "arena=.b", "*=.a"]);
    assert!(count(&first, ".a") >= 1 && count(&first, ".b") >= 1);
    assert_eq!(count(&first, ".a") + count(&first, ".b"), first.len());
    assert_eq!(count(&first, ".b"), 1);
}

#[test]
fn rules_by_kind_with_memories_and_alignments() {
    let mut options = options();
    options.place = [
        "kind=weights&size>1K=.qspi>QSPI,align=64",
        "kind=code=.itcm",
        "arena=.sdram>SDRAM",
    ]
    .map(|rule| rule.parse().unwrap())
    .to_vec();
    options.memory = ["QSPI=0x90000000:16M", "SDRAM=0xc0000000:8M:rw"]
        .map(|region| region.parse().unwrap())
        .to_vec();
    let build = build(&options);
    let of = |section: &str| {
        build
            .object
            .sections
            .iter()
            .filter(|s| s.name == section)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(".qspi").iter().map(|s| s.align).collect::<Vec<_>>(), [64]);
    assert!(of(".itcm").len() > 2 && of(".sdram").len() == 1);
    let taken: Vec<(usize, Option<&str>)> = (build.placement.taken.iter())
        .map(|taken| (taken.items.len(), taken.memory.as_deref()))
        .collect();
    assert_eq!(
        taken,
        [(1, Some("QSPI")), (of(".itcm").len(), None), (1, Some("SDRAM"))]
    );
    let report = build.report();
    let named: Vec<&str> = report.sections.iter().filter_map(|s| s.memory.as_deref()).collect();
    assert_eq!(named, ["QSPI", "SDRAM"]);
    assert!(
        build
            .fragment("net.ld", Dialect::Gnu)
            .unwrap()
            .contains("> QSPI AT> QSPI")
    );
}

#[test]
fn places_that_cannot_be_are_refused() {
    let refused = |rules: &[&str], memory: &[&str]| {
        let mut options = options();
        options.place = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        options.memory = memory.iter().map(|region| region.parse().unwrap()).collect();
        let error = try_build(&options).unwrap_err();
        assert_eq!(error.code, error::Code::Usage);
        error.message
    };
    for (rules, memory, expected) in [
        (&["*=.a"][..], &[][..], "would hold both the arena and net_"),
        (
            &["arena=.a>A"],
            &["A=0:1M"],
            "the arena cannot lie in A, which is not written",
        ),
        (&["kind=code=.a>A"], &["A=0:1M:rw"], "cannot run from A"),
        (
            &["fc/weights=.a>A"],
            &["A=0:1K"],
            "bytes into A (0x0..0x400), which has 1024",
        ),
        (&["fc/weights=.bss.a"], &[], "what has contents cannot be in .bss.a"),
        (&["arena=.rodata.a"], &[], "the arena cannot be in .rodata.a"),
        (&["fc*=.a>A", "conv1*=.a>B"], &[], "into B, and another rule into A"),
        (&["fc*=.a"], &["A=0:1K", "B=0x200:1K"], "overlap"),
    ] {
        let message = refused(rules, memory);
        assert!(message.contains(expected), "{rules:?}: {message}");
    }
}

#[test]
fn rules_that_take_nothing_are_refused() {
    let refused = |rules: &[&str]| {
        let mut options = options();
        options.place = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        try_build(&options).unwrap_err()
    };
    let error = refused(&["dense*/weights=.qspi", "size>1M=.sdram"]);
    assert_eq!(error.code, error::Code::Usage);
    assert_eq!(error.message, "--place \"dense*/weights=.qspi\" matches nothing");
    assert!(error.help.as_ref().unwrap().contains("fc_weights"), "{error}");
    assert_eq!(error.more.len(), 1);
    let shadowed = refused(&["f*=.a", "fc*=.b"]);
    assert_eq!(
        shadowed.help.as_deref(),
        Some("an earlier rule takes all that it matches")
    );
}

/// For every layer exactly one candidate is the one that the build has, with what the report says that it takes.
#[test]
fn chosen_schedules_are_among_the_candidates() {
    for (triple, goal) in [
        ("thumbv7em-none-eabihf", Goal::Balanced),
        ("thumbv7em-none-eabihf", Goal::Ram),
        ("thumbv7em-none-eabi", Goal::Size),
        ("thumbv7m-none-eabi", Goal::Speed),
        ("riscv32imc-unknown-none-elf", Goal::Balanced),
        ("riscv64gc-unknown-linux-gnu", Goal::Balanced),
        ("x86_64-unknown-linux-gnu", Goal::Balanced),
    ] {
        let target = Target::new(Some(triple), None, None).unwrap();
        let own = build(&Options {
            goal,
            ..Options::new(target.clone(), "net")
        });
        let report = own.report_with_schedules().unwrap();
        let counted = schedules::counts_instructions(&target);
        for layer in &report.layers {
            let at = format!("{triple} {goal:?} {}", layer.name);
            let chosen: Vec<_> = layer.candidates.iter().filter(|candidate| candidate.chosen).collect();
            let [chosen] = chosen[..] else {
                panic!("{at}: {} chosen", chosen.len());
            };
            assert_eq!(chosen.schedule, layer.schedule, "{at}");
            assert!(chosen.asked_by[0].ends_with(goal.name()), "{at}");
            assert_eq!(chosen.instructions.is_some(), counted, "{at}");
            assert_eq!(chosen.estimate.is_some(), !counted, "{at}");
            if layer.rows == 0 {
                let most = |count: report::Instructions| count.most;
                assert_eq!(chosen.instructions.map(most), layer.instructions.map(most), "{at}");
                assert_eq!((chosen.cycles, chosen.code), (layer.cycles, layer.code), "{at}");
            }
            assert!(layer.candidates.len() > 1, "{at}: nothing to compare with");
            assert!(layer.layout.is_some(), "{at}");
        }
        let text = report.schedules();
        assert_eq!(text.contains("cycles (modelled)"), report.cycles.is_some(), "{triple}");
        assert!(text.contains("activations  ") && text.contains("chosen"), "{text}");
        // What is compared changes nothing about what is built.
        assert_eq!(own.report().json(), build(&own.options).report().json());
    }
}

/// A convolution to many channels and a dense layer.
const WIDE: &str = r#"
graph "wide"
input %0 "image" : int8[1,8,8,8] q(0.5,0)
const %1 "conv/filter" : int8[16,3,3,8] q(0.25,0) = lcg(1, -40, 40)
const %2 "conv/bias" : int32[16] q(0.125,0) = lcg(2, -100, 100)
%3 "conv" : int8[1,8,8,16] q(8.0,0) = conv2d(%0, %1, %2) pad=1,1,1,1 act=relu
const %4 "fc/weights" : int8[12,1024] q(0.25,0) = lcg(4, -40, 40)
const %5 "fc/bias" : int32[12] q(2.0,0) = lcg(5, -100, 100)
%6 "fc" : int8[1,12] q(256.0,0) = fully_connected(%3, %4, %5)
output %6
"#;

/// Restrictions are for comparisons: none has effects on a layer that does not have the form, all have one where it does.
#[test]
fn forms_can_be_left_out() {
    use crate::target::{LoopForm, Without};
    for (triple, form, schedule) in [
        ("thumbv7em-none-eabi", LoopForm::Paired, "paired"),
        ("riscv32imc-unknown-none-elf", LoopForm::Packed, "packed"),
        ("riscv32imc-unknown-none-elf", LoopForm::Quads, "quads"),
        ("riscv64gc-unknown-linux-gnu", LoopForm::Lanes16, "lanes16"),
        ("riscv64gc-unknown-linux-gnu", LoopForm::Rows21, "rows21"),
    ] {
        let schedules = |without: Without| -> Vec<String> {
            let target = Target {
                without,
                ..Target::new(Some(triple), None, None).unwrap()
            };
            // Weights as small as trained ones are, and channels enough to pack for.
            let graph = text::parse(WIDE).unwrap();
            let lowering = crate::kernels::lower::lower(&graph, &target).unwrap();
            lowering.kernels.into_iter().map(|kernel| kernel.schedule).collect()
        };
        let has = |schedules: &[String]| schedules.iter().any(|own| own.starts_with(schedule));
        assert_eq!(form.name(), schedule);
        assert!(has(&schedules(Without::Nothing)), "{triple} {schedule}");
        assert!(!has(&schedules(Without::Form(form))), "{triple} {schedule}");
        let others = LoopForm::ALL.into_iter().filter(|other| *other != form);
        assert!(
            others.into_iter().any(|other| has(&schedules(Without::Form(other)))),
            "{triple} {schedule}"
        );
        for schedule in schedules(Without::TilesAbove(2)) {
            let channels = schedule.split("px x ").nth(1).and_then(|rest| rest.split("ch").next());
            let channels: Option<usize> = channels.map(|channels| channels.parse().unwrap());
            assert!(channels.is_none_or(|channels| channels <= 4), "{schedule}");
        }
    }
}
