//! What compilers and linkers of applications for Cortex-M make of a build: one archive serves every float ABI, and a
//! lesser core is refused when the header is included.

use crate::cases::root;
use crate::tools::{self, COREROPE, command, installed, run};
use std::fs;
use std::path::{Path, PathBuf};

const MAIN: &str = "\
#include \"model.h\"
static float input, output;
volatile float scale;
int main(void) {
    const struct model_inputs inputs = {&input};
    const struct model_outputs outputs = {&output};
    scale *= 2.5f;
    return model_run(&inputs, &outputs);
}
";

/// A directory with a float model built for a target, and a program that runs it.
fn build(name: &str, arguments: &[&str]) -> PathBuf {
    let directory = tools::directory(name);
    let model = root().join("fixtures/sine_float.tflite");
    let build = ["build", model.to_str().unwrap(), "-o", "model.a", "--name", "model"];
    run(&directory, COREROPE, &[&build[..], arguments].concat());
    fs::write(directory.join("main.c"), MAIN).unwrap();
    directory
}

fn compile(directory: &Path, flags: &[&str]) -> std::process::Output {
    command("arm-none-eabi-gcc")
        .current_dir(directory)
        .args([
            "-O2",
            "-ffreestanding",
            "-Wall",
            "-Wextra",
            "-Wundef",
            "-Werror",
            "-c",
            "main.c",
        ])
        .args(flags)
        .output()
        .unwrap()
}

#[test]
fn one_archive_for_every_float_abi() {
    if !installed("float ABIs", &["arm-none-eabi-gcc", "ld.lld"]) {
        return;
    }
    let startup = root().join("linker-scripts/startup/cortex-m.S");
    let script = root().join("linker-scripts/qemu/mps2.ld");
    for (target, cpu, core) in [
        ("thumbv7m-none-eabi", "cortex-m3", "cortex-m3"),
        ("thumbv7em-none-eabihf", "cortex-m4", "cortex-m4"),
        ("thumbv7em-none-eabi", "cortex-m4", "cortex-m4"),
        ("thumbv7em-none-eabihf", "cortex-m7", "cortex-m7"),
        ("thumbv8m.main-none-eabihf", "cortex-m33", "cortex-m33"),
    ] {
        let directory = build(&format!("abi-{target}-{cpu}"), &["--target", target, "--cpu", cpu]);
        let core = format!("-mcpu={core}");
        for abi in ["soft", "softfp", "hard"] {
            if cpu == "cortex-m3" && abi != "soft" {
                continue;
            }
            // Only an application that is compiled without the FPU has to say that it turns it on.
            let abi = format!("-mfloat-abi={abi}");
            let mut flags = vec![&*core, &*abi];
            if abi.ends_with("soft") && target.ends_with("hf") {
                let refused = compile(&directory, &flags);
                assert!(
                    tools::text(&refused).contains("define MODEL_FPU"),
                    "{}",
                    tools::text(&refused)
                );
                flags.push("-DMODEL_FPU");
            }
            let compiled = compile(&directory, &flags);
            assert!(
                compiled.status.success(),
                "{target} {flags:?}: {}",
                tools::text(&compiled)
            );
            let whole = [
                startup.to_str().unwrap(),
                "main.o",
                "model.a",
                "-nostartfiles",
                "-T",
                script.to_str().unwrap(),
            ];
            let checks = ["-Wl,--fatal-warnings", "-Wl,--gc-sections", "-o", "program"];
            run(&directory, "arm-none-eabi-gcc", &[&flags, &whole[..], &checks].concat());
            // The library for soft floats is GCC's, which its driver finds.
            let library = run(
                &directory,
                "arm-none-eabi-gcc",
                &[&flags[..], &["-print-libgcc-file-name"]].concat(),
            );
            run(
                &directory,
                "arm-none-eabi-gcc",
                &[&flags[..], &["-c", whole[0], "-o", "start.o"]].concat(),
            );
            let lld = [
                "-m",
                "armelf",
                "--fatal-warnings",
                "--gc-sections",
                "-T",
                whole[5],
                "start.o",
            ];
            let files = ["main.o", "model.a", library.trim(), "-o", "program-lld"];
            run(&directory, "ld.lld", &[&lld[..], &files].concat());
            for program in ["program", "program-lld"] {
                let code = run(&directory, "arm-none-eabi-objdump", &["-d", program]);
                assert!(code.contains("<model_run>:") && !code.contains("UNDEFINED"), "{code}");
            }
        }
    }
}

#[test]
fn lesser_cores_are_refused() {
    if !installed("header guards", &["arm-none-eabi-gcc", "riscv64-unknown-elf-gcc"]) {
        return;
    }
    for (target, cpu, flags, why) in [
        ("thumbv7m-none-eabi", None, "-mcpu=cortex-m0", "-mcpu asks for less"),
        ("thumbv7em-none-eabi", None, "-mcpu=cortex-m3", "-mcpu asks for less"),
        (
            "thumbv8m.main-none-eabi",
            None,
            "-mcpu=cortex-m4",
            "-mcpu asks for less",
        ),
        (
            "thumbv8m.main-none-eabi",
            None,
            "-mcpu=cortex-m33+nodsp",
            "-mcpu asks for less",
        ),
        (
            "thumbv8m.main-none-eabi",
            Some("cortex-m33+nodsp"),
            "-mcpu=cortex-m23",
            "-mcpu asks for less",
        ),
        (
            "riscv32imc-unknown-none-elf",
            None,
            "-mcpu=cortex-m4",
            "the code is for RISC-V 32",
        ),
    ] {
        let mut arguments = vec!["--target", target];
        arguments.extend(cpu.iter().flat_map(|cpu| ["--cpu", cpu]));
        let directory = build(&format!("guards-{target}"), &arguments);
        let output = compile(&directory, &[flags]);
        assert!(!output.status.success(), "{target} {flags}");
        assert!(tools::text(&output).contains(why), "{}", tools::text(&output));
    }
    let directory = build("guards-riscv", &["--target", "riscv32imafc-unknown-none-elf"]);
    for (march, abi, why) in [
        ("rv32imac", "ilp32", "needs the F extension"),
        ("rv32imaf", "ilp32f", "compressed"),
        ("rv32imafc", "ilp32", "-mabi=ilp32f"),
        ("rv64imafc", "lp64f", "the code is for RISC-V 32"),
        ("rv32imafc", "ilp32f", ""),
    ] {
        let output = command("riscv64-unknown-elf-gcc")
            .current_dir(&directory)
            .args([
                "-O2",
                "-ffreestanding",
                "-Wall",
                "-Wextra",
                "-Wundef",
                "-Werror",
                "-c",
                "main.c",
            ])
            .args([format!("-march={march}"), format!("-mabi={abi}")])
            .output()
            .unwrap();
        assert_eq!(
            output.status.success(),
            why.is_empty(),
            "{march}: {}",
            tools::text(&output)
        );
        assert!(tools::text(&output).contains(why), "{march}: {}", tools::text(&output));
    }
}
