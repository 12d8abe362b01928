//! Parameters outside the object, single steps and hooks.

use crate::cases::{self, root};
use crate::firmware::{ARM, Board, RISCV};
use crate::linking::{build, host};
use crate::matrix::WARNINGS;
use crate::tools::{self, COREROPE, installed, run};
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const CALLED: &[&str] = &["--step", "--hooks"];

/// Compiles `tests/c/outside.c`, links it and runs it.
fn outside(directory: &Path, compiler: &[&str], defines: &[&str]) {
    let source = root().join("tests/c/outside.c");
    let [program, rest @ ..] = compiler else {
        panic!("no compiler")
    };
    let files = [
        "-O1",
        "-I.",
        source.to_str().unwrap(),
        "-x",
        "none",
        "digits.a",
        "-o",
        "outside",
    ];
    run(directory, program, &[rest, &files[..], WARNINGS, defines].concat());
    run(directory, directory.join("outside").to_str().unwrap(), &[] as &[&str]);
}

/// Every error of images and callbacks, and a good run after each.
#[test]
fn every_error_of_images_and_callbacks() {
    if !host() || !installed("parameters outside", &["gcc", "g++"]) {
        return;
    }
    for (arena, caller) in [("static", &[][..]), ("caller", &["-DCALLER"])] {
        let external = ["--arena", arena, "--params", "external"];
        let streamed = ["--arena", arena, "--params", "streamed", "--stream-buffer", "2200"];
        for (arguments, defines) in [(&external[..], &[][..]), (&streamed[..], &["-DSTREAMED"])] {
            let directory = build("outside", "a", &[arguments, CALLED].concat());
            let defines = [defines, caller].concat();
            outside(&directory, &["gcc", "-std=c99"], &defines);
            outside(&directory, &["g++", "-std=c++17", "-x", "c++"], &defines);
        }
    }
}

/// Bytes of every section of an object.
fn sections(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    // Relocations name symbols by their numbers.
    let named = |section: &object::Section| {
        section
            .name()
            .is_ok_and(|name| name.contains("digits") && !name.starts_with(".rela"))
    };
    let sections = file.sections().filter(named);
    sections
        .map(|section| (section.name().unwrap().to_owned(), section.data().unwrap().to_vec()))
        .collect()
}

/// What is not asked for costs nothing: `--step` adds a section and changes none, and with parameters outside, the
/// kernels are the same.
#[test]
fn what_is_not_asked_for_costs_nothing() {
    if !host() {
        return;
    }
    let plain = sections(&build("free-plain", "o", &[]).join("digits.o"));
    let mut steps = sections(&build("free-steps", "o", &["--step"]).join("digits.o"));
    assert!(steps.remove(".text.digits.step").is_some(), "{:?}", steps.keys());
    assert!(plain == steps);
    let outside = sections(&build("free-outside", "o", &["--params", "external"]).join("digits.o"));
    let kernels = |all: &BTreeMap<String, Vec<u8>>| -> Vec<Vec<u8>> {
        let kernels = all
            .iter()
            .filter(|(name, _)| name.starts_with(".text.digits.") && !name.ends_with(".run"));
        kernels.map(|(_, bytes)| bytes.clone()).collect()
    };
    let outside = kernels(&outside);
    assert!(kernels(&plain).iter().all(|kernel| outside.contains(kernel)));
}

/// Rules decide for single tensors.
#[test]
fn rules_say_what_is_outside() {
    let size = |arguments: &[&str]| {
        let directory = build("outside-rules", "o", arguments);
        let image = fs::metadata(directory.join("digits.params")).map_or(0, |file| file.len());
        let all = sections(&directory.join("digits.o"));
        let inside = all.iter().filter(|(name, _)| name.starts_with(".rodata.digits."));
        (image, inside.map(|(_, bytes)| bytes.len() as u64).sum::<u64>())
    };
    let (none, all) = size(&[]);
    assert_eq!(none, 0);
    let (image, rest) = size(&["--params", "external"]);
    // The header that is expected, and the table of the checksum.
    assert_eq!(rest, 128);
    assert!(image > all && image < all + 300, "{image} bytes for {all}");
    let (large, small) = size(&["--place", "size>2K=external"]);
    assert!(
        large > 13_000 && large + small < all + 400,
        "{large} + {small} of {all}"
    );
    assert_eq!(
        (large, small),
        size(&["--params", "external", "--place", "size<=2K=embedded"])
    );
}

const CORTEX_M7: Board = Board {
    name: "cortex-m7-streamed",
    arguments: &["--target", "thumbv7em-none-eabi", "--cpu", "cortex-m7+fp"],
    flags: &["-mcpu=cortex-m7", "-mfloat-abi=softfp", "-mfpu=fpv5-sp-d16"],
    qemu: &["qemu-system-arm", "-M", "mps2-an500"],
    ..ARM
};
const RV32: Board = Board {
    name: "rv32-streamed",
    arguments: &["--target", "riscv32imc-unknown-none-elf"],
    flags: &["-march=rv32imc_zicsr", "-mabi=ilp32"],
    ..RISCV
};

/// Builds `model` for a board, with its parameters streamed, and runs it on `inputs`: the outputs, and what each run
/// read: times, KiB, bytes at most.
fn on_board(board: &Board, model: &Path, buffer: &str, inputs: &[&[u8]], outputs: usize) -> (Vec<u8>, [u64; 3]) {
    let directory = tools::directory(&format!(
        "{}-{}",
        board.name,
        model.file_stem().unwrap().to_str().unwrap()
    ));
    let build = [
        "build",
        model.to_str().unwrap(),
        "-o",
        "net.a",
        "--name",
        "net",
        "-q",
        "--step",
    ];
    let streamed = ["--params", "streamed", "--stream-buffer", buffer];
    run(&directory, COREROPE, &[&build[..], &streamed, board.arguments].concat());
    fs::write(directory.join("in"), inputs.concat()).unwrap();
    let defines = [
        format!("-DINPUT_BYTES={}", inputs[0].len()),
        format!("-DOUTPUT_BYTES={outputs}"),
    ];
    let output = board.program(&directory, "streamed.c", &defines, "net.a");
    let text = tools::text(&output);
    assert!(
        output.status.success() && !text.contains("FAIL"),
        "{}: {text}",
        output.status
    );
    let numbers = |line: &str| -> Option<[u64; 3]> {
        let numbers: Vec<u64> = line
            .strip_prefix("READ ")?
            .split(' ')
            .map(|n| n.parse().unwrap())
            .collect();
        numbers.try_into().ok()
    };
    let read = text.lines().find_map(numbers).unwrap_or_else(|| panic!("{text}"));
    let results = fs::read(directory.join("out")).unwrap();
    fs::remove_dir_all(directory).unwrap();
    (results, read)
}

/// Real networks, streamed on 32-bit machines in pieces that no layer fits.
#[test]
fn streamed_on_boards() {
    for board in [CORTEX_M7, RV32] {
        if !board.available() {
            continue;
        }
        for (name, buffer, most) in [
            ("digits", "1100", 1100),
            ("dscnn", "1K", 1024),
            ("mobilenet025", "4K", 4096),
        ] {
            let case = cases::fixtures().into_iter().find(|case| case.name == name).unwrap();
            let inputs: Vec<&[u8]> = case.sets.iter().map(|set| set.inputs[0].as_slice()).collect();
            let expected = case
                .sets
                .iter()
                .flat_map(|set| set.outputs[0].clone())
                .collect::<Vec<u8>>();
            let (results, [reads, _, largest]) =
                on_board(&board, &case.model, buffer, &inputs, case.sets[0].outputs[0].len());
            assert!(results == expected, "{name} on {}", board.name);
            assert!(
                largest <= most && reads > 10,
                "{name} on {}: {reads} reads of {largest}",
                board.name
            );
        }
    }
}
