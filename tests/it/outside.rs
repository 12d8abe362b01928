//! Parameters outside the object, single steps and hooks.

use crate::cases::root;
use crate::linking::{build, host};
use crate::matrix::WARNINGS;
use crate::tools::{installed, run};
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
