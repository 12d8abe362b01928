use super::*;
use crate::build::{self, compile_graph};
use crate::graph::text;
use crate::object::SectionKind;
use crate::target::Target;

/// Two convolutions that share a kernel, a view, and a table.
const MODEL: &str = r#"graph "twins"
input %0 "x" : int8[1,4,4,4] q(0.5,0)
const %1 "w" : int8[4,1,1,4] q(axis=0, 0.5:0, 0.5:0, 0.5:0, 0.5:0) = lcg(1, -100, 100)
const %2 "b" : int32[4] q(axis=0, 0.25:0, 0.25:0, 0.25:0, 0.25:0) = [1, 2, 3, 4]
%3 "one" : int8[1,4,4,4] q(0.5,0) = conv2d(%0, %1, %2)
%4 "two" : int8[1,4,4,4] q(0.5,0) = conv2d(%3, %1, %2)
%5 "flat" : int8[1,64] q(0.5,0) = reshape(%4)
%6 "y" : int8[1,64] q(0.00390625,-128) = softmax(%5)
output %6
"#;

fn built(target: &str, debug: Option<Options>) -> build::Build {
    let mut options = build::Options::new(Target::new(Some(target), None, None).unwrap(), "twins");
    options.debug = debug;
    let graph = text::parse(MODEL).unwrap();
    compile_graph(graph, 0, &options, &mut |_, _| {}).unwrap().unwrap()
}

fn options(version: Version) -> Option<Options> {
    Some(Options {
        version,
        file: "twins.lst".into(),
    })
}

#[test]
fn a_listing() {
    let build = built("x86_64-unknown-linux-gnu", options(Version::Dwarf5));
    crate::output::assert_golden("src/debug/golden/twins.lst", &build.listing.unwrap());
}

/// The model and the debug information that is added to it are apart.
#[test]
fn only_sections_and_symbols_are_added() {
    for target in [
        "x86_64-unknown-linux-gnu",
        "thumbv7em-none-eabi",
        "x86_64-pc-windows-gnu",
    ] {
        let plain = built(target, None).object;
        for version in [Version::Dwarf4, Version::Dwarf5] {
            let with = built(target, options(version)).object;
            let (loaded, debug) = with.sections.split_at(plain.sections.len());
            assert!(
                loaded
                    .iter()
                    .zip(&plain.sections)
                    .all(|(a, b)| a.name == b.name && a.kind == b.kind)
            );
            assert!(debug.len() > 5 && debug.iter().all(|section| section.kind == SectionKind::Debug));
            assert_eq!(with.symbols[..plain.symbols.len()], plain.symbols);
            assert_eq!(with.size(SectionKind::Text), plain.size(SectionKind::Text));
        }
    }
}

/// Offsets of locations and of frames are those of instructions, in order, and the entry point has a location for every
/// call.
#[test]
fn code_is_mapped() {
    for target in [
        "x86_64-unknown-linux-gnu",
        "aarch64-unknown-none",
        "riscv64gc-unknown-none-elf",
        "riscv32imc-unknown-none-elf",
        "thumbv7m-none-eabi",
    ] {
        let build = built(target, None);
        for code in build.kernels.iter().chain([&build.entry]) {
            let end = code.bytes.len() as u32;
            let map = &code.debug;
            assert!(map.body < end, "{target} {}", code.name);
            assert!(
                map.locations.is_sorted_by_key(|(offset, _)| offset),
                "{target} {}",
                code.name
            );
            assert!(
                map.frame.is_sorted_by_key(|(offset, _)| offset),
                "{target} {}",
                code.name
            );
            assert!(
                map.frame.iter().all(|(offset, _)| *offset < end),
                "{target} {}",
                code.name
            );
        }
        let found: Vec<u32> = build.entry.debug.locations.iter().map(|(_, bits)| *bits).collect();
        let calls = build
            .plan
            .order
            .iter()
            .map(|op| crate::kernels::entry::Location::Op(*op).source().bits());
        assert!(calls.clone().all(|bits| found.contains(&bits)), "{target}: {found:?}");
        assert_eq!(calls.count(), 3);
    }
}
