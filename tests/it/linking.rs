//! What linkers make of a build: every mode of the interface, placement, dropped sections, lld.

use crate::cases::{self, root};
use crate::matrix::WARNINGS;
use crate::tools::{self, COREROPE, command, installed, run};
use object::{Object, ObjectSection, ObjectSymbol};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A directory with `digits` built into `extension` with `arguments`, and an image with its expected scores in `data.h`.
pub fn build(name: &str, extension: &str, arguments: &[&str]) -> PathBuf {
    let directory = tools::directory(name);
    let case = cases::fixtures()
        .into_iter()
        .find(|case| case.name == "digits")
        .unwrap();
    let list = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|&b| (b as i8).to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let array =
        |name: &str, bytes: &[u8]| format!("static const int8_t {name}[{}] = {{{}}};\n", bytes.len(), list(bytes));
    let [image, expected] = [&case.sets[0].inputs[0], &case.sets[0].outputs[0]];
    let data = format!(
        "#include <stdint.h>\n{}{}",
        array("image", image),
        array("expected", expected)
    );
    fs::write(directory.join("data.h"), data).unwrap();
    let output = format!("digits.{extension}");
    run(
        &directory,
        COREROPE,
        &[&["build", case.model.to_str().unwrap(), "-o", &output][..], arguments].concat(),
    );
    directory
}

/// Compiles `tests/c/modes.c` with `arguments`, links it and runs it.
fn modes(directory: &Path, compiler: &[&str], arguments: &[&str]) {
    let source = root().join("tests/c/modes.c");
    let [program, rest @ ..] = compiler else {
        panic!("no compiler")
    };
    let all = [
        rest,
        &["-O1", "-I.", source.to_str().unwrap(), "-x", "none", "-o", "modes"],
        WARNINGS,
        arguments,
    ]
    .concat();
    run(directory, program, &all);
    run(directory, directory.join("modes").to_str().unwrap(), &[] as &[&str]);
}

pub fn host() -> bool {
    cfg!(all(target_arch = "x86_64", target_os = "linux"))
}

#[test]
fn every_mode_of_the_interface() {
    if !host() || !installed("linking", &["gcc", "g++"]) {
        return;
    }
    for (arena, io, defines) in [
        ("static", "pointers", &[][..]),
        ("caller", "pointers", &["-DCALLER"]),
        ("static", "arena", &["-DIO_ARENA"]),
        ("caller", "arena", &["-DCALLER", "-DIO_ARENA"]),
    ] {
        for extension in ["a", "o"] {
            let directory = build("modes", extension, &["--arena", arena, "--io", io]);
            let library = format!("digits.{extension}");
            modes(
                &directory,
                &["gcc", "-std=c99"],
                &[&[library.as_str()], defines].concat(),
            );
            modes(
                &directory,
                &["g++", "-std=c++17", "-x", "c++"],
                &[&[library.as_str()], defines].concat(),
            );
        }
    }
}

/// Position-independent, fixed, and with lld.
#[test]
fn every_kind_of_program() {
    if !host() || !installed("linking", &["gcc"]) {
        return;
    }
    let directory = build("kinds", "a", &[]);
    for arguments in [
        &["-pie"][..],
        &["-no-pie"],
        &["-static"],
        &["-static-pie"],
        &["-Wl,-z,text"],
        &["-Wl,--fatal-warnings"],
    ] {
        modes(&directory, &["gcc", "-std=c99"], &[&["digits.a"], arguments].concat());
    }
    if installed("linking with lld", &["ld.lld"]) {
        modes(
            &directory,
            &["gcc", "-std=c99"],
            &["digits.a", "-fuse-ld=lld", "-Wl,--fatal-warnings"],
        );
    }
}

/// Symbols of a linked program and the sections they are in.
fn symbols(program: &Path) -> BTreeMap<String, String> {
    let bytes = fs::read(program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let named = file.symbols().filter_map(|symbol| {
        let section = file.section_by_index(symbol.section_index()?).ok()?;
        Some((symbol.name().ok()?.to_owned(), section.name().ok()?.to_owned()))
    });
    named.filter(|(name, _)| name.starts_with("digits_")).collect()
}

/// A program that does not run the model carries nothing of it.
#[test]
fn what_is_not_used_is_dropped() {
    if !host() || !installed("linking", &["gcc"]) {
        return;
    }
    let directory = build("dropped", "o", &[]);
    fs::write(directory.join("none.c"), "int main(void) { return 0; }\n").unwrap();
    run(
        &directory,
        "gcc",
        &["none.c", "digits.o", "-Wl,--gc-sections", "-o", "none"],
    );
    assert_eq!(symbols(&directory.join("none")), BTreeMap::new());
}

/// `--place` puts what it matches into its section, the fragment places that, and the program still works.
#[test]
fn placement() {
    if !host() || !installed("linking", &["gcc"]) {
        return;
    }
    let directory = build(
        "placement",
        "a",
        &["--place", "size>4K=.qspi", "--place", "*arena*=.sdram"],
    );
    let directory = directory.as_path();
    for linker in ["bfd", "lld"] {
        if linker == "lld" && !installed("linking with lld", &["ld.lld"]) {
            continue;
        }
        let select = format!("-fuse-ld={linker}");
        modes(
            directory,
            &["gcc", "-std=c99"],
            &["digits.a", "-no-pie", &select, "-Wl,-T,digits.ld"],
        );
        let symbols = symbols(&directory.join("modes"));
        let of = |section: &str| {
            symbols
                .iter()
                .filter(|(_, of)| *of == section)
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(".sdram"), ["digits_arena"], "{linker}: {symbols:?}");
        assert!(!of(".qspi").is_empty(), "{linker}: {symbols:?}");
    }
}

/// Entries are re-entrant: runs with arenas of their own overlap in time.
#[test]
fn runs_overlap_in_time() {
    if !host() || !installed("threads", &["gcc"]) {
        return;
    }
    for (name, arguments, defines) in [
        ("threads", &["--arena", "caller"][..], &[][..]),
        ("threads-rows", &["--arena", "caller", "--optimize", "ram"], &[]),
        (
            "threads-memories",
            &["--arena", "caller", "--memory", "a=1K,b=1M"],
            &["-DDIVIDED"],
        ),
    ] {
        let directory = build(name, "a", arguments);
        let source = root().join("tests/c/threads.c");
        let files = [
            "-std=c99",
            "-O1",
            "-I.",
            source.to_str().unwrap(),
            "digits.a",
            "-pthread",
            "-o",
            "threads",
        ];
        run(&directory, "gcc", &[&files[..], WARNINGS, defines].concat());
        run(&directory, directory.join("threads").to_str().unwrap(), &[] as &[&str]);
    }
}

/// Make builds again when the model has changed, and not when it has not.
#[test]
fn dependency_file() {
    if !installed("a dependency file", &["make"]) {
        return;
    }
    let directory = tools::directory("depfile with space");
    fs::copy(root().join("fixtures/digits.tflite"), directory.join("model.tflite")).unwrap();
    let rule = format!("m.a:\n\t'{COREROPE}' build model.tflite -o m.a -MD >/dev/null && echo built\n-include m.d\n");
    fs::write(directory.join("Makefile"), rule).unwrap();
    let make = || {
        let output = command("make")
            .current_dir(&directory)
            .args(["-s", "m.a"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", tools::text(&output));
        tools::text(&output).contains("built")
    };
    assert!(make());
    assert!(!make());
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(10);
    fs::File::options()
        .append(true)
        .open(directory.join("model.tflite"))
        .unwrap()
        .set_modified(later)
        .unwrap();
    assert!(make());
}
