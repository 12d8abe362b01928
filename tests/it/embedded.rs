//! What compilers and linkers of applications for Cortex-M and RISC-V 32 make of a build: every linker, every ABI, whole
//! and partial links; and a lesser core is refused when the header is included.

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
    input = scale;
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

fn compile(directory: &Path, gcc: &str, flags: &[&str]) -> std::process::Output {
    command(gcc)
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

/// What an archive is built for, and the applications that it is linked into.
struct Family {
    /// Prefix of the tools.
    prefix: &'static str,
    /// Emulation of the linkers.
    emulation: &'static str,
    startup: &'static str,
    script: &'static str,
    /// Whether code has no data in it: what is disassembled as data is no instruction then.
    data_is_wrong: bool,
}

const ARM: Family = Family {
    prefix: "arm-none-eabi-",
    emulation: "armelf",
    startup: "cortex-m.S",
    script: "mps2.ld",
    data_is_wrong: false,
};
const RISCV: Family = Family {
    prefix: "riscv64-unknown-elf-",
    emulation: "elf32lriscv",
    startup: "riscv.S",
    script: "riscv-virt.ld",
    data_is_wrong: true,
};

impl Family {
    fn tool(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn available(&self) -> bool {
        let tools = ["gcc", "ld", "objdump"].map(|name| self.tool(name));
        installed(self.script, &[&tools[0], &tools[1], &tools[2], "ld.lld"])
    }

    /// Links the archive in `directory` into an application of `flags` in every way, and disassembles what comes out.
    fn link(&self, directory: &Path, flags: &[&str]) {
        let gcc = self.tool("gcc");
        let startup = root().join("linker-scripts/startup").join(self.startup);
        let script = root().join("linker-scripts/qemu").join(self.script);
        let compiled = compile(directory, &gcc, flags);
        assert!(compiled.status.success(), "{flags:?}: {}", tools::text(&compiled));
        let assemble = ["-c", startup.to_str().unwrap(), "-o", "start.o"];
        run(directory, &gcc, &[flags, &assemble].concat());
        for linker in [self.tool("ld"), "ld.lld".to_owned()] {
            let link = |what: &[&str]| {
                run(
                    directory,
                    &linker,
                    &[&["-m", self.emulation, "--fatal-warnings"], what].concat(),
                );
            };
            let whole = ["--gc-sections", "-T", script.to_str().unwrap(), "start.o"];
            link(&[&whole[..], &["main.o", "model.a", "-o", "program"]].concat());
            link(&["-r", "main.o", "model.a", "-o", "part.o"]);
            link(&[&whole[..], &["part.o", "-o", "partial"]].concat());
            for program in ["program", "partial"] {
                let code = run(directory, &self.tool("objdump"), &["-d", program]);
                assert!(code.contains("<model_run>:"), "{linker}: {program} of {flags:?}");
                let undefined = code.lines().find(|line| {
                    let text = line.splitn(3, '\t').nth(2).unwrap_or_default();
                    text.contains("UNDEFINED") || self.data_is_wrong && text.starts_with(['.', '0'])
                });
                assert_eq!(undefined, None, "{linker}: {program} of {flags:?}");
            }
        }
    }
}

/// One archive of every kind of Cortex-M core in applications of every float ABI that the core has.
#[test]
fn cortex_m_archives_link_into_every_application() {
    if !ARM.available() {
        return;
    }
    for (target, cpu) in [
        ("thumbv7m-none-eabi", "cortex-m3"),
        ("thumbv7em-none-eabi", "cortex-m4"),
        ("thumbv7em-none-eabihf", "cortex-m4"),
        ("thumbv7em-none-eabi", "cortex-m7"),
        ("thumbv7em-none-eabihf", "cortex-m7"),
        ("thumbv8m.main-none-eabi", "cortex-m33"),
        ("thumbv8m.main-none-eabihf", "cortex-m33"),
        ("thumbv8m.main-none-eabihf", "cortex-m33+nodsp"),
    ] {
        let directory = build(&format!("link-{target}-{cpu}"), &["--target", target, "--cpu", cpu]);
        let core = format!("-mcpu={cpu}");
        for abi in ["soft", "softfp", "hard"] {
            if cpu == "cortex-m3" && abi != "soft" {
                continue;
            }
            // Only an application that is compiled without the FPU has to say that it turns it on.
            let abi = format!("-mfloat-abi={abi}");
            let mut flags = vec![&*core, &*abi];
            if abi.ends_with("soft") && target.ends_with("hf") {
                let refused = compile(&directory, &ARM.tool("gcc"), &flags);
                let said = tools::text(&refused);
                assert!(said.contains("define MODEL_FPU"), "{said}");
                flags.push("-DMODEL_FPU");
            }
            ARM.link(&directory, &flags);
        }
    }
}

/// Archives of RISC-V for every ABI, each in an application of that ABI.
#[test]
fn riscv_archives_link_into_their_applications() {
    if !RISCV.available() {
        return;
    }
    for (arch, abi) in [
        ("rv32im", "ilp32"),
        ("rv32imc", "ilp32"),
        ("rv32imac", "ilp32"),
        ("rv32imafc", "ilp32f"),
        ("rv32imafc", "ilp32"),
        ("rv32gc", "ilp32d"),
        ("rv32gc", "ilp32f"),
        ("rv32gc", "ilp32"),
    ] {
        let target = arch.replace("rv32", "riscv32") + "-unknown-none-elf";
        let directory = build(&format!("link-{arch}-{abi}"), &["--target", &target, "--abi", abi]);
        let flags = [format!("-march={arch}_zicsr"), format!("-mabi={abi}")];
        RISCV.link(&directory, &[&*flags[0], &*flags[1]]);
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
        let output = compile(&directory, &ARM.tool("gcc"), &[flags]);
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
        let flags = [format!("-march={march}"), format!("-mabi={abi}")];
        let output = compile(&directory, &RISCV.tool("gcc"), &[&*flags[0], &*flags[1]]);
        assert_eq!(
            output.status.success(),
            why.is_empty(),
            "{march}: {}",
            tools::text(&output)
        );
        assert!(tools::text(&output).contains(why), "{march}: {}", tools::text(&output));
    }
}
