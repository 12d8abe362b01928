//! The linker scripts of real boards: linked with a model by both linkers, and what the boot ROMs look for is where they
//! look.

use crate::cases::root;
use crate::tools::{self, COREROPE, installed, run};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol};
use std::fs;
use std::path::PathBuf;

/// A board.
struct Board {
    /// Name of its script.
    script: &'static str,
    /// For `corerope build`.
    arguments: &'static [&'static str],
    /// Prefix of the tools.
    prefix: &'static str,
    /// Of the C compiler.
    flags: &'static [&'static str],
    /// Emulation of the linkers.
    emulation: &'static str,
    startup: &'static str,
}

const STM32: Board = Board {
    script: "stm32f746g-discovery",
    arguments: &["--target", "thumbv7em-none-eabihf", "--cpu", "cortex-m7"],
    prefix: "arm-none-eabi-",
    flags: &["-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
    emulation: "armelf",
    startup: "cortex-m.S",
};
const RP2350_ARM: Board = Board {
    script: "rp2350-arm",
    arguments: &["--target", "thumbv8m.main-none-eabihf"],
    flags: &["-mcpu=cortex-m33", "-mfloat-abi=hard"],
    ..STM32
};
const RP2350_RISCV: Board = Board {
    script: "rp2350-riscv",
    arguments: &["--target", "riscv32imac-unknown-none-elf"],
    prefix: "riscv64-unknown-elf-",
    flags: &["-march=rv32imac_zicsr", "-mabi=ilp32"],
    emulation: "elf32lriscv",
    startup: "riscv.S",
};
const ESP32_C3: Board = Board {
    script: "esp32-c3",
    arguments: &["--target", "riscv32imc-unknown-none-elf"],
    flags: &["-march=rv32imc_zicsr", "-mabi=ilp32"],
    ..RP2350_RISCV
};
const K210: Board = Board {
    script: "kendryte-k210",
    arguments: &["--target", "riscv64gc-unknown-none-elf", "--abi", "lp64f"],
    flags: &["-march=rv64imafc_zicsr", "-mabi=lp64f", "-mcmodel=medany"],
    emulation: "elf64lriscv",
    ..RP2350_RISCV
};

const MAIN: &str = "\
#include \"digits.h\"
static int8_t image[DIGITS_INPUT_1_SIZE] = {1, 2, 3};
static int8_t scores[DIGITS_OUTPUT_1_SIZE];
int main(void) {
    const struct digits_inputs inputs = {image};
    const struct digits_outputs outputs = {scores};
    return digits_run(&inputs, &outputs);
}
";

/// A linked program and its flash image.
struct Linked {
    bytes: Vec<u8>,
    directory: PathBuf,
    prefix: &'static str,
}

impl Board {
    /// The program as both linkers make it, with further arguments for the build.
    fn link(&self, place: &[&str]) -> Vec<Linked> {
        let tool = |name: &str| format!("{}{name}", self.prefix);
        if !installed(self.script, &[&tool("gcc"), &tool("ld"), &tool("objcopy")]) {
            return Vec::new();
        }
        let script = root().join(format!("linker-scripts/boards/{}.ld", self.script));
        let startup = root().join("linker-scripts/startup").join(self.startup);
        let mut linked = Vec::new();
        for linker in [tool("ld"), "ld.lld".to_owned()] {
            if !installed(&format!("{} with {linker}", self.script), &[&linker]) {
                continue;
            }
            let directory = tools::directory(&format!("board-{}-{linker}", self.script));
            let model = root().join("fixtures/digits.tflite");
            let build = ["build", model.to_str().unwrap(), "-o", "digits.a"];
            run(&directory, COREROPE, &[&build[..], self.arguments, place].concat());
            fs::write(
                directory.join("main.c"),
                MAIN.replace("INPUT_1", &port(&directory, "inputs"))
                    .replace("OUTPUT_1", &port(&directory, "outputs")),
            )
            .unwrap();
            for (source, object) in [(startup.to_str().unwrap(), "start.o"), ("main.c", "main.o")] {
                let files = [
                    "-O1",
                    "-ffreestanding",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                    "-c",
                    source,
                    "-o",
                    object,
                ];
                run(&directory, &tool("gcc"), &[self.flags, &files[..]].concat());
            }
            let mut arguments = vec!["-m", self.emulation, "--fatal-warnings", "--gc-sections", "-T"];
            arguments.extend([
                script.to_str().unwrap(),
                "start.o",
                "main.o",
                "digits.a",
                "-o",
                "program",
            ]);
            run(&directory, &linker, &arguments);
            linked.push(Linked {
                bytes: fs::read(directory.join("program")).unwrap(),
                directory,
                prefix: self.prefix,
            });
        }
        linked
    }
}

/// The macro's part that names the only member of `struct digits_inputs` or `_outputs`.
fn port(directory: &std::path::Path, which: &str) -> String {
    let header = fs::read_to_string(directory.join("digits.h")).unwrap();
    let structure = header.split(&format!("struct digits_{which} {{\n")).nth(1).unwrap();
    let member = structure.split(';').next().unwrap().rsplit('*').next().unwrap();
    member.to_uppercase()
}

impl Linked {
    fn address(&self, symbol: &str) -> u64 {
        let file = object::File::parse(&*self.bytes).unwrap();
        let found = file.symbols().find(|s| s.name() == Ok(symbol));
        found.unwrap_or_else(|| panic!("no symbol {symbol}")).address()
    }

    /// The words that are loaded at an address.
    fn words(&self, address: u64, count: usize) -> Vec<u32> {
        let file = object::File::parse(&*self.bytes).unwrap();
        let at = |s: &object::Segment| {
            s.data_range(address, 4 * count as u64)
                .ok()
                .flatten()
                .map(<[u8]>::to_vec)
        };
        let bytes = file.segments().find_map(|segment| at(&segment)).expect("loaded bytes");
        bytes
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect()
    }

    fn section(&self, name: &str) -> (u64, u64) {
        let file = object::File::parse(&*self.bytes).unwrap();
        let section = file
            .section_by_name(name)
            .unwrap_or_else(|| panic!("no section {name}"));
        (section.address(), section.size())
    }

    /// `objcopy -O binary`.
    fn image(&self, arguments: &[&str]) -> Vec<u8> {
        let all = [&["-O", "binary"], arguments, &["program", "image"]].concat();
        run(&self.directory, &format!("{}objcopy", self.prefix), &all);
        fs::read(self.directory.join("image")).unwrap()
    }
}

/// Stack, reset vector, and where code, constants and memory are.
fn cortex_m(linked: &Linked, flash: u64, stack: u64, ram: std::ops::Range<u64>) {
    assert_eq!(
        linked.words(flash, 2),
        [stack as u32, linked.address("reset") as u32 | 1]
    );
    assert!(linked.address("digits_run") & !1 > flash);
    assert!(ram.contains(&linked.address("digits_arena")));
    assert!(ram.contains(&linked.address("image")));
    assert!(linked.image(&[]).len() < 64 << 10);
}

#[test]
fn stm32f746g_discovery() {
    for linked in STM32.link(&["--place", "*arena*=.dtcm", "--place", "size>1K=.qspi"]) {
        assert_eq!(linked.words(0x0800_0000, 1), [0x2005_0000]);
        let (address, size) = linked.section(".qspi");
        assert_eq!(address, 0x9000_0000);
        assert_eq!(linked.image(&["-j", ".qspi"]).len() as u64, size);
        assert_eq!(linked.address("digits_arena"), 0x2000_0000);
        assert!(linked.image(&["-R", ".qspi"]).len() < 64 << 10);
    }
    for linked in STM32.link(&[]) {
        cortex_m(&linked, 0x0800_0000, 0x2005_0000, 0x2001_0000..0x2005_0000);
    }
}

#[test]
fn rp2350_arm() {
    for linked in RP2350_ARM.link(&[]) {
        cortex_m(&linked, 0x1000_0000, 0x2008_2000, 0x2000_0000..0x2008_2000);
        let block = [0xffff_ded3, 0x1021_0142, 0x0000_01ff, 0, 0xab12_3579];
        assert_eq!(linked.words(0x1000_0040, 5), block);
    }
}

#[test]
fn rp2350_riscv() {
    for linked in RP2350_RISCV.link(&[]) {
        assert_eq!(linked.address("reset"), 0x1000_0000);
        let image = linked.image(&[]);
        let block = [0xffff_ded3u32, 0x1101_0142, 0x0000_01ff, 0, 0xab12_3579]
            .map(u32::to_le_bytes)
            .concat();
        assert_eq!(
            image[..4096]
                .windows(20)
                .step_by(4)
                .filter(|bytes| **bytes == block)
                .count(),
            1
        );
    }
}

#[test]
fn esp32_c3() {
    for linked in ESP32_C3.link(&[]) {
        assert_eq!(linked.address("reset"), 0x4200_0008);
        let image = linked.image(&[]);
        assert_eq!(image[..8], [0x1d, 0x04, 0xdb, 0xae].repeat(2));
        // Constants are in the image where the second map of the flash shows them, and so is what fills `.data`.
        let (rodata, size) = linked.section(".rodata");
        let offset = (rodata - 0x3c00_0000) as usize;
        let (code, length) = linked.section(".text");
        assert_eq!(code + length - 0x4200_0000, offset as u64);
        assert_eq!(linked.address("data_load"), rodata + size);
        assert_eq!(image[offset + size as usize..][..3], [1, 2, 3]);
    }
}

#[test]
fn kendryte_k210() {
    for linked in K210.link(&[]) {
        assert_eq!(linked.address("reset"), 0x8000_0000);
        assert_eq!(linked.address("data_start"), 0x8040_0000);
        assert!(linked.image(&[]).len() < 64 << 10);
    }
}
