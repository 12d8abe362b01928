//! The VGG case on the STM32F746G-Discovery: `vgg32` of the shared models and `vgg` of the fixtures, linked with the
//! board's script and run on a Cortex-M7.
//!
//! QEMU has no machine of this board. The program is linked twice. With `linker-scripts/boards/stm32f746g-discovery.ld`, and
//! the memories of the `.toml` beside it, as they are: everything fits and lies where it should, says `check-link`. And
//! with the same script in which three memories begin where mps2-an500, QEMU's Cortex-M7, has some: flash at 0, serial
//! flash and SDRAM in its 16 MB at 0x60000000. DTCM and SRAM are where the board has them. That program runs.
//!
//! `cargo test --test it discovery -- --nocapture` prints the table.

use crate::cases::{self, Case, root};
use crate::firmware::{ARM, Board, whole_ticks};
use crate::matrix::{self, Built};
use crate::tools::{self, COREROPE, command, run};
use std::fmt::Write;
use std::fs;
use std::path::Path;

const BOARD: Board = Board {
    name: "stm32f746g-discovery",
    flags: &["-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
    qemu: &["qemu-system-arm", "-M", "mps2-an500"],
    ..ARM
};

/// A way to build: what it is called, its options, and what may be used of DTCM and flash.
const WAYS: [(&str, &[&str], &str, &str); 4] = [
    ("balanced", &[], "64K", "768K"),
    ("speed", &["--optimize", "speed"], "64K", "768K"),
    ("ram", &["--optimize", "ram"], "64K", "768K"),
    ("divided", &[], "8K", "24K"),
];

/// What peers take for `vgg32`: instructions, code, constants, memory, stack. Measured on the same emulator and core.
const PEERS: [(&str, u64, u64, u64, &str, u64); 6] = [
    ("TVM AOT -O2", 117_281_221, 7052, 83_565, "110260 + I/O 3082", 380),
    ("TVM AOT -O3", 64_604_528, 7052, 83_565, "110260 + I/O 3082", 380),
    (
        "TVM AOT hill-climb -O3",
        64_183_973,
        6424,
        84_205,
        "109696 + I/O 3082",
        180,
    ),
    ("TVM static runtime", 117_485_978, 6836, 84_209, "113408", 852),
    ("TFLM reference", 129_322_133, 32_434, 53_667, "68564 + 520", 676),
    ("TFLM + CMSIS-NN", 32_567_582, 64_562, 53_667, "69812 + 520", 1220),
];

/// The most instructions, bytes of the arena and of code and constants together that a build of `vgg32` may take: what
/// the best peer needs, in each column.
const BOUNDS: (u64, u64, u64) = (32_567_582, 68_564, 53_667 + 32_434);

#[test]
fn vgg_on_its_board() {
    if !BOARD.available() {
        return;
    }
    let memories = fs::read_to_string(root().join("linker-scripts/boards/stm32f746g-discovery.toml")).unwrap();
    let cases: Vec<Case> = (cases::fixtures().into_iter().filter(|case| case.name == "vgg"))
        .chain(cases::shared().into_iter().filter(|case| case.name == "vgg32"))
        .collect();
    let mut table = String::new();
    let mut line = |row: [&str; 7]| {
        let [name, instructions, code, constants, arena, io, stack] = row;
        writeln!(
            table,
            "{name:<30} {instructions:>12} {code:>7} {constants:>10} {arena:>22} {io:>6} {stack:>6}"
        )
        .unwrap();
    };
    line(["", "instructions", "code", "constants", "arena", "I/O", "stack"]);
    for case in cases {
        for (way, options, dtcm, flash) in WAYS {
            let found = Way {
                options,
                memories: (memories.replace("use = \"64K\"", &format!("use = {dtcm:?}")))
                    .replace("use = \"768K\"", &format!("use = {flash:?}")),
            }
            .check(&format!("{}-{way}", case.name), &case);
            let Found {
                instructions,
                code,
                constants,
                ref arena,
                ref parts,
                io,
                stack,
            } = found;
            if case.name == "vgg32" {
                let (most, memory, flash) = BOUNDS;
                assert!(
                    instructions <= most && *arena <= memory && code + constants <= flash,
                    "{way}: {found:?}"
                );
            }
            assert_eq!(parts.contains('+'), way == "divided", "{}: {parts}", case.name);
            line([
                &format!("{} {way}", case.name),
                &instructions.to_string(),
                &code.to_string(),
                &constants.to_string(),
                parts,
                &io.to_string(),
                &stack.to_string(),
            ]);
        }
    }
    for (name, instructions, code, constants, memory, stack) in PEERS {
        line([
            &format!("vgg32 {name}"),
            &instructions.to_string(),
            &code.to_string(),
            &constants.to_string(),
            memory,
            "",
            &stack.to_string(),
        ]);
    }
    println!("{table}");
}

struct Way<'a> {
    options: &'a [&'a str],
    memories: String,
}

#[derive(Debug)]
struct Found {
    instructions: u64,
    code: u64,
    constants: u64,
    arena: u64,
    /// The arena's parts.
    parts: String,
    io: u64,
    stack: u64,
}

impl Way<'_> {
    /// Builds, links for the board, runs where QEMU can, and measures.
    fn check(&self, name: &str, case: &Case) -> Found {
        let directory = tools::directory(&format!("discovery-{name}"));
        fs::write(directory.join("board.toml"), &self.memories).unwrap();
        let model = case.model.to_str().unwrap();
        let build = [
            "build", model, "-o", "m.a", "--name", "m", "--report", "m.json", "--quiet",
        ];
        let target = [
            "--target",
            "thumbv7em-none-eabihf",
            "--cpu",
            "cortex-m7",
            "--place-file",
            "board.toml",
        ];
        run(&directory, COREROPE, &[&build[..], &target, self.options].concat());
        let report: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(directory.join("m.json")).unwrap()).unwrap();
        let parts = report["ram"]["pools"].as_array().unwrap();
        let parts: Vec<(&str, &str, u64)> = (parts.iter())
            .filter_map(|part| {
                Some((
                    part["name"].as_str()?,
                    part["symbol"].as_str()?,
                    part["bytes"].as_u64()?,
                ))
            })
            .collect();
        compile(&directory, case, &parts);

        let script = fs::read_to_string(root().join("linker-scripts/boards/stm32f746g-discovery.ld")).unwrap();
        let stand_in = [
            ("ORIGIN = 0x08000000", "ORIGIN = 0x00000000"),
            ("ORIGIN = 0x90000000, LENGTH = 16M", "ORIGIN = 0x60000000, LENGTH = 8M"),
            ("ORIGIN = 0xc0000000", "ORIGIN = 0x60800000"),
        ];
        let stand_in = stand_in.iter().fold(script.clone(), |script, (from, to)| {
            assert!(script.contains(from), "the board's script has no {from}");
            script.replace(from, to)
        });
        link(&directory, &script, "board");
        let said = run(&directory, COREROPE, &["check-link", "board", "m.json"]);
        assert!(!said.contains("WRONG") && !said.contains("dropped"), "{said}");
        for (memory, symbol, _) in &parts {
            let line = said
                .lines()
                .find(|line| line.split_whitespace().any(|word| word == *symbol));
            assert!(
                line.is_some_and(|line| line.contains(memory)),
                "{symbol} is not in {memory}: {said}"
            );
        }

        link(&directory, &stand_in, "program");
        let shift = format!("shift={}", BOARD.shift);
        let output = command(BOARD.qemu[0])
            .current_dir(&directory)
            .args(&BOARD.qemu[1..])
            .args([
                "-display", "none", "-serial", "none", "-monitor", "none", "-icount", &shift,
            ])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel", "program"])
            .output()
            .unwrap();
        let built = [Built {
            case: case.clone(),
            id: "m".to_owned(),
        }];
        let failures = matrix::judge(&directory, &built, &output);
        matrix::report(name, 1, &failures);
        let (mut instructions, mut stack) = (0, 0);
        for line in tools::text(&output).lines() {
            if let ["RUN", _, ticks, coarse, rest, used] = line.split(' ').collect::<Vec<_>>()[..] {
                let ticks = whole_ticks(ticks.parse().unwrap(), coarse.parse().unwrap());
                let count =
                    ((ticks * BOARD.tick + (1 << BOARD.shift) / 2) >> BOARD.shift) + rest.parse::<u64>().unwrap();
                instructions = instructions.max(count);
                stack = stack.max(used.parse().unwrap());
            }
        }
        let number = |path: [&str; 2]| report[path[0]][path[1]].as_u64().unwrap();
        let bounds = number(["instructions", "least"])..=number(["instructions", "most"]);
        assert!(
            bounds.contains(&instructions),
            "{name}: {instructions}, predicted {bounds:?}"
        );
        let set = &case.sets[0];
        Found {
            instructions,
            code: number(["flash", "code"]),
            constants: number(["flash", "total"]) - number(["flash", "code"]),
            arena: parts.iter().map(|(_, _, bytes)| bytes).sum(),
            parts: (parts.iter().map(|(memory, _, bytes)| format!("{bytes} {memory}")))
                .collect::<Vec<_>>()
                .join(" + "),
            io: set
                .inputs
                .iter()
                .chain(&set.outputs)
                .map(|bytes| bytes.len() as u64)
                .sum(),
            stack,
        }
    }
}

/// The firmware of all models, around one with a static arena: beside the arena's parts, patterns must survive.
fn compile(directory: &Path, case: &Case, parts: &[(&str, &str, u64)]) {
    let built = [Built {
        case: case.clone(),
        id: "m".to_owned(),
    }];
    BOARD.compile_with(directory, &built, &["-DPOOL_BYTES=32768"], &|glue| {
        let glue = glue
            .replace("return m_run", "(void)arena; return m_run")
            .replace(", arena);\n}\n", ");\n}\n");
        let mut glue = glue.replace("M_ARENA_SIZE", "0").replace("M_ARENA_ALIGN", "16");
        // In SRAM are the firmware's own data and stack.
        let alone = parts.iter().filter(|(memory, _, _)| *memory != "RAM");
        let mut guards = Vec::new();
        for (memory, symbol, bytes) in alone {
            let length: u64 = 64 << 10;
            writeln!(glue, "extern unsigned char {symbol}[];").unwrap();
            assert!(*bytes <= length, "{memory} is not as large");
            guards.push(format!("{{{symbol} + {bytes}, {}}}", length - bytes));
        }
        (glue, guards)
    });
}

/// With the script's memories in front of the fragment, which names them, and its sections behind.
fn link(directory: &Path, script: &str, program: &str) {
    let (memory, sections) = script.split_at(script.find("ENTRY(").expect("the script has an entry"));
    fs::write(directory.join("memory.ld"), memory).unwrap();
    fs::write(directory.join("sections.ld"), sections).unwrap();
    let scripts = ["-T", "memory.ld", "-T", "m.ld", "-T", "sections.ld"];
    let arguments = ["-m", BOARD.emulation, "--fatal-warnings", "--gc-sections"];
    let files = ["start.o", "watch.o", "models.o", "glue.o", "m.a", "-o", program];
    run(
        directory,
        "arm-none-eabi-ld",
        &[&arguments[..], &scripts, &files].concat(),
    );
}
