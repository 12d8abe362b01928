//! What the ordinary tools make of objects and libraries: every linker takes them and every reader reads them, without
//! a warning.

use crate::cases::root;
use crate::tools::{self, COREROPE, command, installed, run};
use std::path::Path;

/// A target, the prefix of its GNU tools, what its compiler is told, and the linkers' emulation.
const TARGETS: [(&str, &str, &[&str], &str); 5] = [
    ("x86_64-unknown-linux-gnu", "x86_64-linux-gnu-", &[], "elf_x86_64"),
    ("aarch64-unknown-linux-gnu", "aarch64-linux-gnu-", &[], "aarch64linux"),
    ("riscv64gc-unknown-linux-gnu", "riscv64-linux-gnu-", &[], "elf64lriscv"),
    (
        "riscv32imc-unknown-none-elf",
        "riscv64-unknown-elf-",
        &["-march=rv32imc", "-mabi=ilp32"],
        "elf32lriscv",
    ),
    (
        "thumbv7em-none-eabihf",
        "arm-none-eabi-",
        &["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"],
        "armelf",
    ),
];

/// A program without a C library.
const START: &str = "#include \"digits.h\"\nint start(void);\n\
                     int start(void) { return digits_run((const struct digits_inputs *)0, (const struct digits_outputs *)0); }\n";

fn build(directory: &Path, output: &str, arguments: &[&str]) {
    let model = root().join("fixtures/digits.tflite");
    let line = ["build", model.to_str().unwrap(), "-q", "-o", output];
    run(directory, COREROPE, &[&line[..], arguments].concat());
}

/// Runs a tool that may print no warning.
fn quiet(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let output = command(program).current_dir(directory).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = tools::text(&output);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    assert!(
        !text.to_lowercase().contains("warning"),
        "{program} {arguments:?}: {text}"
    );
    text
}

#[test]
fn every_linker_and_reader() {
    for (triple, prefix, flags, emulation) in TARGETS {
        let tool = |name: &str| format!("{prefix}{name}");
        if !installed(
            &format!("objects for {triple}"),
            &[&tool("gcc"), &tool("ld"), &tool("objcopy")],
        ) {
            continue;
        }
        let directory = &tools::directory(&format!("objects-{triple}"));
        for output in ["digits.a", "digits.o"] {
            build(directory, output, &["--target", triple, "--name", "digits"]);
        }
        std::fs::write(directory.join("start.c"), START).unwrap();
        run(
            directory,
            &tool("gcc"),
            &[&["-std=c99", "-O1", "-ffreestanding", "-c", "start.c"], flags].concat(),
        );
        quiet(directory, &tool("objcopy"), &["digits.o", "copied.o"]);
        quiet(directory, &tool("ar"), &["x", "digits.a"]);
        let members: Vec<String> = quiet(directory, &tool("ar"), &["t", "digits.a"])
            .lines()
            .map(str::to_owned)
            .collect();
        assert_eq!(members, ["digits.o", "digits-parameters.o"], "{triple}");
        for linker in [&*tool("ld"), "ld.lld", "mold"] {
            if !installed(&format!("linking with {linker}"), &[linker]) {
                continue;
            }
            // mold reads no emulation of bare metal's and takes the machine from the first object.
            let machine: &[&str] = if linker == "mold" { &[] } else { &["-m", emulation] };
            for files in [
                &["digits.a"][..],
                &["digits.o"],
                &["copied.o"],
                &["digits.o", "digits-parameters.o"],
            ] {
                // `ar x` has put the library's own member in the place of the object.
                let files = if files == ["digits.o"] { &["copied.o"] } else { files };
                let line = [
                    "--fatal-warnings",
                    "--gc-sections",
                    "-e",
                    "start",
                    "-o",
                    "start",
                    "start.o",
                ];
                quiet(directory, linker, &[machine, &line, files].concat());
                let names = run(directory, &tool("nm"), &["start"]);
                assert!(
                    names.contains(" digits_run\n") && names.contains("digits_run_build_"),
                    "{names}"
                );
            }
        }
        for file in ["digits.a", "copied.o", "start"] {
            quiet(directory, &tool("readelf"), &["-aW", file]);
            quiet(directory, &tool("objdump"), &["-d", file]);
            quiet(directory, &tool("size"), &[file]);
            if installed(
                "reading with LLVM's tools",
                &["llvm-readobj", "llvm-objdump", "llvm-nm"],
            ) {
                quiet(directory, "llvm-readobj", &["--all", file]);
                quiet(directory, "llvm-objdump", &["-h", file]);
                quiet(directory, "llvm-nm", &[file]);
            }
        }
        quiet(directory, &tool("nm"), &["-s", "digits.a"]);
    }
}

/// A header and a library of different builds do not link, and the linker names what is missing.
#[test]
fn header_of_another_build() {
    if !installed("linking", &["gcc", "g++"]) || !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return;
    }
    let directory = &tools::directory("another-build");
    build(directory, "digits.a", &[]);
    std::fs::rename(directory.join("digits.a"), directory.join("old.a")).unwrap();
    build(directory, "digits.a", &["--arena", "caller"]);
    build(directory, "digits.a", &[]);
    // Equal builds are one.
    assert!(std::fs::read(directory.join("old.a")).unwrap() == std::fs::read(directory.join("digits.a")).unwrap());
    let main = START.replace("start", "main").replace("int main(void);\n", "");
    std::fs::write(directory.join("main.c"), main).unwrap();
    for compiler in [&["gcc", "-std=c99"][..], &["g++", "-x", "c++"]] {
        for level in ["-O0", "-O2"] {
            for linker in ["-fuse-ld=bfd", "-fuse-ld=lld"] {
                if linker.ends_with("lld") && !installed("linking with lld", &["ld.lld"]) {
                    continue;
                }
                let line = [
                    &compiler[1..],
                    &[level, linker, "-Wl,--gc-sections", "main.c", "-x", "none", "-o", "main"],
                ];
                let link = |library: &str| {
                    let mut command = command(compiler[0]);
                    command
                        .current_dir(directory)
                        .args(line.concat())
                        .arg(library)
                        .output()
                        .unwrap()
                };
                build(directory, "digits.a", &[]);
                assert!(link("old.a").status.success());
                build(directory, "digits.a", &["--io", "pointers", "--cpu", "x86-64-v3"]);
                let output = link("old.a");
                let text = tools::text(&output);
                assert!(!output.status.success(), "{level} {linker}");
                assert!(
                    text.contains("undefined") && text.contains("digits_run_build_"),
                    "{text}"
                );
            }
        }
    }
}

/// Windows' linkers name it too.
#[test]
fn coff_members() {
    if !installed("COFF with MinGW", &["x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-ld"]) {
        return;
    }
    let directory = &tools::directory("objects-coff");
    for environment in ["gnu", "msvc"] {
        let target = format!("x86_64-pc-windows-{environment}");
        for output in ["digits.lib", "digits.obj"] {
            build(
                directory,
                output,
                &["--target", &target, "--name", "digits", "--keep", "*"],
            );
        }
        std::fs::write(directory.join("start.c"), START).unwrap();
        run(
            directory,
            "x86_64-w64-mingw32-gcc",
            &["-std=c99", "-O1", "-c", "start.c", "-o", "start.obj"],
        );
        for file in ["digits.lib", "digits.obj"] {
            if environment == "gnu" {
                let line = [
                    "--fatal-warnings",
                    "--gc-sections",
                    "-e",
                    "start",
                    "start.obj",
                    file,
                    "-o",
                    "start.exe",
                ];
                quiet(directory, "x86_64-w64-mingw32-ld", &line);
            }
            if installed("COFF with lld-link", &["lld-link"]) {
                let line = [
                    "/entry:start",
                    "/subsystem:console",
                    "/nodefaultlib",
                    "/opt:ref",
                    "/WX",
                    "start.obj",
                    file,
                ];
                quiet(directory, "lld-link", &line);
            }
            quiet(directory, "x86_64-w64-mingw32-objdump", &["-x", file]);
            quiet(directory, "x86_64-w64-mingw32-nm", &["-s", file]);
            if installed("reading with LLVM's tools", &["llvm-readobj"]) {
                quiet(directory, "llvm-readobj", &["--all", file]);
            }
        }
    }
}

/// macOS: a whole model through lld's linker for Mach-O.
#[test]
fn macho() {
    let directory = &tools::directory("objects-macho");
    for (triple, arch) in [("x86_64-apple-darwin", "x86_64"), ("aarch64-apple-darwin", "arm64")] {
        for output in ["digits.a", "digits.o"] {
            build(directory, output, &["--target", triple, "--name", "digits"]);
            if installed(
                "reading with LLVM's tools",
                &["llvm-readobj", "llvm-objdump", "llvm-nm"],
            ) {
                quiet(directory, "llvm-readobj", &["--all", output]);
                quiet(directory, "llvm-objdump", &["-dr", output]);
                quiet(directory, "llvm-nm", &[output]);
            }
            if installed("Mach-O with lld", &["ld64.lld-14"]) {
                let version = ["-platform_version", "macos", "11.0", "11.0", "-fatal_warnings"];
                let line = [
                    "-arch",
                    arch,
                    "-dylib",
                    "-dead_strip",
                    "-u",
                    "_digits_run",
                    "-o",
                    "out.dylib",
                    output,
                ];
                quiet(directory, "ld64.lld-14", &[&version[..], &line].concat());
            }
        }
    }
}
