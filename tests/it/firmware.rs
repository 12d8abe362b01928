//! Every model on every 32-bit target: built as an archive, linked with the firmware under `tests/firmware` by GNU ld,
//! and run on an emulated board, with its instructions counted.

use crate::alignment;
use crate::cases::root;
use crate::matrix::{self, Built};
use crate::tools::{self, command, installed, run};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// An emulated board and how an application for it is compiled.
pub struct Board {
    /// Name of the test's directory.
    pub name: &'static str,
    /// For `corerope build`.
    pub arguments: &'static [&'static str],
    /// Prefix of the tools.
    pub prefix: &'static str,
    /// Of the C compiler.
    pub flags: &'static [&'static str],
    /// Emulation of GNU ld.
    pub emulation: &'static str,
    pub script: &'static str,
    pub qemu: &'static [&'static str],
    /// An instruction takes 2^shift nanoseconds.
    pub shift: u32,
    /// Nanoseconds of a tick of the firmware's clock.
    pub tick: u64,
    /// Addresses of memories for the parts of an arena that is divided.
    pub memories: &'static [u64],
}

pub const ARM: Board = Board {
    name: "",
    arguments: &[],
    prefix: "arm-none-eabi-",
    flags: &[],
    emulation: "armelf",
    script: "mps2.ld",
    qemu: &[],
    // So that a tick is a fraction of an instruction.
    shift: 10,
    tick: 40,
    memories: &[],
};
pub const RISCV: Board = Board {
    name: "",
    arguments: &[],
    prefix: "riscv64-unknown-elf-",
    flags: &[],
    emulation: "elf32lriscv",
    script: "riscv-virt.ld",
    qemu: &["qemu-system-riscv32", "-M", "virt", "-bios", "none"],
    shift: 0,
    tick: 1,
    memories: &[],
};

#[test]
fn cortex_m3() {
    Board {
        name: "cortex-m3",
        arguments: &["--target", "thumbv7m-none-eabi"],
        flags: &["-mcpu=cortex-m3"],
        qemu: &["qemu-system-arm", "-M", "mps2-an385"],
        ..ARM
    }
    .check();
}

#[test]
fn cortex_m4_hard() {
    Board {
        name: "cortex-m4-hard",
        arguments: &["--target", "thumbv7em-none-eabihf"],
        flags: &["-mcpu=cortex-m4", "-mfloat-abi=hard"],
        qemu: &["qemu-system-arm", "-M", "mps2-an386"],
        ..ARM
    }
    .check();
}

/// Operators that run row by row.
#[test]
fn cortex_m4_ram() {
    Board {
        name: "cortex-m4-ram",
        arguments: &["--target", "thumbv7em-none-eabihf", "--optimize", "ram"],
        flags: &["-mcpu=cortex-m4", "-mfloat-abi=hard"],
        qemu: &["qemu-system-arm", "-M", "mps2-an386"],
        ..ARM
    }
    .check();
}

/// Models whose input comes row by row.
const IMAGES: [&str; 6] = ["kws", "vww", "resnet", "vgg32", "digits", "vgg"];

#[test]
fn cortex_m4_rows() {
    Board {
        name: "cortex-m4-rows",
        arguments: &[
            "--target",
            "thumbv7em-none-eabihf",
            "--optimize",
            "ram",
            "--input",
            "rows",
        ],
        flags: &["-mcpu=cortex-m4", "-mfloat-abi=hard"],
        qemu: &["qemu-system-arm", "-M", "mps2-an386"],
        ..ARM
    }
    .check_images();
}

/// Without the FPU, in an application that does not use it either.
#[test]
fn cortex_m4_soft() {
    Board {
        name: "cortex-m4-soft",
        arguments: &["--target", "thumbv7em-none-eabi"],
        flags: &["-mcpu=cortex-m4", "-mfloat-abi=soft"],
        qemu: &["qemu-system-arm", "-M", "mps2-an386"],
        ..ARM
    }
    .check();
}

#[test]
fn cortex_m7_softfp() {
    Board {
        name: "cortex-m7-softfp",
        arguments: &["--target", "thumbv7em-none-eabi", "--cpu", "cortex-m7+fp"],
        flags: &["-mcpu=cortex-m7", "-mfloat-abi=softfp", "-mfpu=fpv5-sp-d16"],
        qemu: &["qemu-system-arm", "-M", "mps2-an500"],
        ..ARM
    }
    .check();
}

#[test]
fn cortex_m33() {
    Board {
        name: "cortex-m33",
        arguments: &["--target", "thumbv8m.main-none-eabihf"],
        flags: &["-mcpu=cortex-m33", "-mfloat-abi=hard"],
        qemu: &["qemu-system-arm", "-M", "mps2-an505"],
        script: "mps2-an505.ld",
        // This board's clock is slower.
        tick: 50,
        ..ARM
    }
    .check();
}

/// Arenas in three memories: the end of that for code, the board's fast one of the firmware, and the slow one.
#[test]
fn cortex_m7_memories() {
    Board {
        name: "cortex-m7-memories-all",
        arguments: &[
            "--target",
            "thumbv7em-none-eabihf",
            "--cpu",
            "cortex-m7",
            "--memory",
            "a=2K,b=24K,c=8M",
        ],
        flags: &["-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
        qemu: &["qemu-system-arm", "-M", "mps2-an500"],
        memories: &[0x003f_0000, 0x6000_0000, 0x6080_0000],
        ..ARM
    }
    .check();
}

/// The same row by row, in two.
#[test]
fn cortex_m33_memories() {
    Board {
        name: "cortex-m33-memories",
        arguments: &[
            "--target",
            "thumbv8m.main-none-eabihf",
            "--optimize",
            "ram",
            "--memory",
            "a=6K,b=8M",
        ],
        flags: &["-mcpu=cortex-m33", "-mfloat-abi=hard"],
        qemu: &["qemu-system-arm", "-M", "mps2-an505"],
        script: "mps2-an505.ld",
        tick: 50,
        memories: &[0x3000_0000, 0x8000_0000],
        ..ARM
    }
    .check();
}

#[test]
fn rv32imc() {
    Board {
        name: "rv32imc",
        arguments: &["--target", "riscv32imc-unknown-none-elf"],
        flags: &["-march=rv32imc_zicsr", "-mabi=ilp32"],
        ..RISCV
    }
    .check();
}

#[test]
fn rv32imc_ram() {
    Board {
        name: "rv32imc-ram",
        arguments: &["--target", "riscv32imc-unknown-none-elf", "--optimize", "ram"],
        flags: &["-march=rv32imc_zicsr", "-mabi=ilp32"],
        ..RISCV
    }
    .check();
}

#[test]
fn rv32gc() {
    Board {
        name: "rv32gc",
        arguments: &["--target", "riscv32gc-unknown-none-elf"],
        flags: &["-march=rv32gc", "-mabi=ilp32d"],
        ..RISCV
    }
    .check();
}

/// Bytes of archives that fit a board's flash together, beside the firmware.
const BATCH: u64 = 3 << 20;

/// A function that calls another like those that call models: what that costs is taken off.
const EMPTY: &str = "\
int32_t empty_run(const void *, const void *, void *);
int32_t run_empty(const void *const *, void *const *, void *);
int32_t run_empty(const void *const *inputs, void *const *outputs, void *arena) {
    return empty_run(inputs, outputs, arena);
}
";

impl Board {
    /// Whether the tools are here.
    pub fn available(&self) -> bool {
        let (gcc, ld, nm) = (self.tool("gcc"), self.tool("ld"), self.tool("nm"));
        installed(self.name, &[&gcc, &ld, &nm, self.qemu[0]])
    }

    /// Compiles the program of one source file of `tests/firmware`, links it with an archive and runs it.
    pub fn program(&self, directory: &Path, source: &str, defines: &[String], archive: &str) -> std::process::Output {
        let [startup, watch] = self.assembly();
        let source = root().join("tests/firmware").join(source);
        for (source, object) in [(&startup, "start.o"), (&watch, "watch.o"), (&source, "main.o")] {
            let files = [
                "-O2",
                "-ffreestanding",
                "-I.",
                "-c",
                source.to_str().unwrap(),
                "-o",
                object,
            ];
            let defines: Vec<&str> = defines.iter().map(String::as_str).collect();
            run(
                directory,
                &self.tool("gcc"),
                &[self.flags, &files[..], matrix::WARNINGS, &defines].concat(),
            );
        }
        let script = root().join("linker-scripts/qemu").join(self.script);
        let arguments = [
            "-m",
            self.emulation,
            "--fatal-warnings",
            "--gc-sections",
            "-T",
            script.to_str().unwrap(),
        ];
        let files = ["start.o", "watch.o", "main.o", archive, "-o", "program"];
        run(directory, &self.tool("ld"), &[&arguments[..], &files].concat());
        let mut qemu = command(self.qemu[0]);
        qemu.current_dir(directory).args(&self.qemu[1..]);
        qemu.args(["-display", "none", "-serial", "none", "-monitor", "none"]);
        qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel", "program"]);
        qemu.output().unwrap()
    }

    /// What starts a program, and what calls functions for it and the emulator's host.
    fn assembly(&self) -> [PathBuf; 2] {
        let [startup, watch] = if self.emulation == "armelf" {
            ["cortex-m.S", "arm/watch.S"]
        } else {
            ["riscv.S", "riscv/watch.S"]
        };
        [
            root().join("linker-scripts/startup").join(startup),
            root().join("tests/firmware").join(watch),
        ]
    }

    fn tool(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn check(&self) {
        if !self.available() {
            return;
        }
        let directory = tools::directory(&format!("firmware-{}", self.name));
        let (built, mut failures) = matrix::build_all(&directory, self.arguments, "a");
        failures.extend(self.needless_floats(&directory, &built));
        let count = built.len();
        let mut batches: Vec<Vec<Built>> = Vec::new();
        let mut bytes = BATCH;
        for one in built {
            let size = fs::metadata(directory.join(format!("{}.a", one.id))).unwrap().len();
            if bytes + size > BATCH {
                batches.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            batches.last_mut().unwrap().push(one);
        }
        let mut counts = String::new();
        for batch in &batches {
            let (more, table) = self.batch(&directory, batch);
            failures.extend(more);
            counts += &table;
        }
        fs::write(directory.join("instructions.txt"), counts).unwrap();
        matrix::report(self.name, count, &failures);
    }

    /// The models that have images for inputs.
    fn check_images(&self) {
        if !self.available() {
            return;
        }
        let directory = tools::directory(&format!("firmware-{}", self.name));
        let (built, mut failures) = matrix::build(&directory, self.arguments, "a", |case| {
            IMAGES.contains(&case.name.as_str())
        });
        assert!(built.len() > 1, "{failures:?}");
        failures.extend(self.batch(&directory, &built).0);
        matrix::report(self.name, built.len(), &failures);
    }

    /// Models without floats whose archives have routines for soft floats, on one board that has no FPU.
    fn needless_floats(&self, directory: &Path, built: &[Built]) -> Vec<String> {
        let mut failures = Vec::new();
        for one in built.iter().filter(|_| self.name == "rv32imc") {
            let symbols = run(directory, &self.tool("nm"), &[format!("{}.a", one.id)]);
            if !symbols.contains("_soft_") {
                continue;
            }
            let model = one.case.model.to_str().unwrap();
            let stop = ["--print-after", "read", "--stop-after", "read"];
            let text = run(directory, tools::COREROPE, &[&["inspect", model], &stop[..]].concat());
            if !text.contains(": float32[") {
                failures.push(format!("{}: an integer model with soft floats", one.case.name));
            }
        }
        failures
    }

    /// What `inspect` says about a model that was built.
    pub fn report(&self, directory: &Path, built: &Built) -> serde_json::Value {
        let model = built.case.model.to_str().unwrap();
        let arguments = ["inspect", "--json", model, "--name", &built.id, "--arena", "caller"];
        let report = run(directory, tools::COREROPE, &[&arguments, self.arguments].concat());
        serde_json::from_str(&report).unwrap()
    }

    /// The bounds of instructions that `inspect` prints for one run.
    fn predicted(&self, directory: &Path, built: &Built) -> std::ops::RangeInclusive<u64> {
        let report = self.report(directory, built);
        let bound = |which: &str| {
            let bound = report["instructions"][which].as_u64();
            bound.unwrap_or_else(|| panic!("{}: no count of instructions", built.case.name))
        };
        bound("least")..=bound("most")
    }

    /// Compiles the start-up code, the firmware and its table of models.
    pub fn compile(&self, directory: &Path, built: &[Built]) {
        self.compile_with(directory, built, &[], &|glue| (glue, Vec::new()));
    }

    /// The same with further flags for the firmware, a change of the table, and memory (C's address and bytes) that must
    /// keep a pattern while a model runs.
    pub fn compile_with(
        &self,
        directory: &Path,
        built: &[Built],
        flags: &[&str],
        change: &dyn Fn(String) -> (String, Vec<String>),
    ) {
        matrix::write_glue(directory, built);
        let path = directory.join("glue.c");
        let (glue, guards) = change(fs::read_to_string(&path).unwrap());
        fs::write(&path, glue).unwrap();
        let count = guards.len();
        let guards: Vec<String> = guards.into_iter().chain(["{0, 0}".to_owned()]).collect();
        let glue = fs::OpenOptions::new().append(true).open(&path);
        let memories = self.memories.iter().map(|at| format!("(unsigned char *){at:#x}"));
        let memories: Vec<String> = memories.chain(["0".to_owned()]).collect();
        let table = format!(
            "extern unsigned char *const memories[];\nextern const unsigned memory_count;\n\
             unsigned char *const memories[] = {{{}}};\nconst unsigned memory_count = {};\n\
             extern const struct guard guards[];\nextern const unsigned guard_count;\n\
             const struct guard guards[] = {{{}}};\nconst unsigned guard_count = {count};\n",
            memories.join(", "),
            self.memories.len(),
            guards.join(", ")
        );
        glue.unwrap().write_all((EMPTY.to_owned() + &table).as_bytes()).unwrap();
        let firmware = root().join("tests/firmware");
        let [startup, watch] = self.assembly();
        let include = format!("-I{}", root().join("tests/c").display());
        for (source, object) in [
            (startup, "start.o"),
            (watch, "watch.o"),
            (firmware.join("models.c"), "models.o"),
            (directory.join("glue.c"), "glue.o"),
        ] {
            let files = [
                "-O2",
                "-ffreestanding",
                "-c",
                source.to_str().unwrap(),
                "-o",
                object,
                &include,
            ];
            run(
                directory,
                &self.tool("gcc"),
                &[self.flags, &files[..], flags, matrix::WARNINGS].concat(),
            );
        }
    }

    /// Links and runs some models: failures, and a line `model instructions stack` for each set.
    pub fn batch(&self, directory: &Path, built: &[Built]) -> (Vec<String>, String) {
        let archives: Vec<String> = built.iter().map(|b| format!("{}.a", b.id)).collect();
        let symbols = run(
            directory,
            &self.tool("nm"),
            &[&["-A".to_owned()], &archives[..]].concat(),
        );
        let mut failures = matrix::undefined(&symbols);

        self.compile(directory, built);
        let script = root().join("linker-scripts/qemu").join(self.script);
        let mut arguments = ["-m", self.emulation, "--fatal-warnings", "--gc-sections", "-T"]
            .map(str::to_owned)
            .to_vec();
        arguments.push(script.to_str().unwrap().to_owned());
        arguments.extend(["start.o", "watch.o", "models.o", "glue.o"].map(str::to_owned));
        arguments.extend(archives);
        arguments.extend(["-o", "program"].map(str::to_owned));
        run(directory, &self.tool("ld"), &arguments);

        let shift = format!("shift={}", self.shift);
        let riscv = self.emulation != ARM.emulation;
        let plugin = riscv.then(|| alignment::plugin(directory, self.qemu[0])).flatten();
        let output = command(self.qemu[0])
            .current_dir(directory)
            .args(plugin.iter().flat_map(|plugin| ["-plugin", plugin]))
            .args(&self.qemu[1..])
            .args([
                "-display", "none", "-serial", "none", "-monitor", "none", "-icount", &shift,
            ])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel", "program"])
            .output()
            .unwrap();
        if plugin.is_some() {
            failures.extend(alignment::misaligned(directory, "program", &tools::text(&output)));
        }
        let mut table = String::new();
        let mut sets = built
            .iter()
            .flat_map(|built| built.case.sets.iter().map(move |_| built));
        let mut predicted = ("", 0..=u64::MAX);
        for line in tools::text(&output).lines() {
            if let ["RUN", model, ticks, coarse, rest, stack] = line.split(' ').collect::<Vec<_>>()[..] {
                let ticks = whole_ticks(ticks.parse().unwrap(), coarse.parse().unwrap());
                let instructions =
                    ((ticks * self.tick + (1 << self.shift) / 2) >> self.shift) + rest.parse::<u64>().unwrap();
                table += &format!("{model} {instructions} {stack}\n");
                // After a failure the rest are not told apart.
                let Some(built) = sets.next().filter(|built| built.case.name == model) else {
                    continue;
                };
                if predicted.0 != built.id {
                    predicted = (&built.id, self.predicted(directory, built));
                }
                // What the application's callbacks take comes on top.
                let fed = self.arguments.contains(&"rows") && instructions > *predicted.1.end();
                if !fed && !predicted.1.contains(&instructions) {
                    failures.push(format!(
                        "{model}: {instructions} instructions, predicted {:?}",
                        predicted.1
                    ));
                }
            }
        }
        failures.extend(matrix::judge(directory, built, &output));
        (failures, table)
    }
}

/// Ticks of a clock of 32 bits, which wraps, made whole by one that counts 256 of them.
pub fn whole_ticks(fine: u32, coarse: u32) -> u64 {
    let about = u64::from(coarse) << 8;
    let wraps = (about.saturating_sub(u64::from(fine)) + (1 << 31)) >> 32;
    u64::from(fine) + (wraps << 32)
}

#[test]
fn clocks_that_wrap_are_whole() {
    for ticks in [
        0u64,
        5,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        (1 << 32) + 7,
        (7 << 32) - 3,
        9 << 32,
    ] {
        for off in [0, 1, -1] {
            let coarse = ((ticks >> 8) as i64 + off).max(0) as u32;
            assert_eq!(whole_ticks(ticks as u32, coarse), ticks, "{ticks} {off}");
        }
    }
}
