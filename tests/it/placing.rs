//! Firmware with a second memory: what `--place-file` says is what both linkers do, what `objcopy` carves out, and what
//! the Cortex-M7 reads while it runs; and what `check-link` says when it is otherwise.

use crate::cases::root;
use crate::firmware::{ARM, Board, RISCV};
use crate::matrix::{self, Built};
use crate::tools::{self, COREROPE, command, installed, run};
use object::{Object, ObjectSection, ObjectSymbol};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// A board with a second memory.
struct Memories {
    board: Board,
    /// For `corerope build`.
    target: &'static [&'static str],
    /// Where that memory is.
    origin: u64,
}

/// 16 MB of the board's own.
const CORTEX_M7: Memories = Memories {
    board: Board {
        name: "cortex-m7-memories",
        flags: &["-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
        qemu: &["qemu-system-arm", "-M", "mps2-an500"],
        ..ARM
    },
    target: &["--target", "thumbv7em-none-eabihf", "--cpu", "cortex-m7"],
    origin: 0x6000_0000,
};
/// A part of its memory that is far from the rest.
const RV32: Memories = Memories {
    board: Board {
        name: "rv32-memories",
        // lld 14 does not relax.
        flags: &["-march=rv32imc_zicsr", "-mabi=ilp32", "-mno-relax"],
        qemu: &["qemu-system-riscv32", "-M", "virt", "-bios", "none", "-m", "512M"],
        ..RISCV
    },
    target: &["--target", "riscv32imc-unknown-none-elf"],
    origin: 0x9000_0000,
};

/// Bytes of every symbol with a section of its own in an archive or an object.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = fs::read(path).unwrap();
    let mut members = Vec::new();
    if path.extension().is_some_and(|extension| extension == "a") {
        let archive = object::read::archive::ArchiveFile::parse(&*file).unwrap();
        members.extend(archive.members().map(|member| member.unwrap().data(&*file).unwrap()));
    } else {
        members.push(&file);
    }
    let mut contents = BTreeMap::new();
    for member in members {
        let object = object::File::parse(member).unwrap();
        for symbol in object.symbols().filter(|symbol| symbol.size() > 0) {
            let section = object.section_by_index(symbol.section_index().unwrap()).unwrap();
            contents.insert(symbol.name().unwrap().to_owned(), section.data().unwrap().to_vec());
        }
    }
    contents
}

/// Models, firmware and start-up code, compiled; two models that run, and `sine`, which nothing calls.
fn firmware(name: &str, memories: &Memories) -> (PathBuf, Vec<Built>) {
    let directory = tools::directory(name);
    let rules = format!(
        "[memory]\nQSPI = {{ origin = {:#x}, length = \"16M\" }}\n\
         [[place]]\nkind = \"weights\"\nsection = \".qspi\"\nmemory = \"QSPI\"\nalign = 32\n",
        memories.origin
    );
    fs::write(directory.join("digits.toml"), &rules).unwrap();
    // A memory is defined by one fragment.
    fs::write(
        directory.join("more.toml"),
        rules.replace("\"16M\"", "\"16M\", existing = true"),
    )
    .unwrap();
    let mut built = Vec::new();
    for (model, file) in [("digits", "digits.toml"), ("dscnn", "more.toml")] {
        let report = format!("{model}.json");
        let arguments = [memories.target, &["--place-file", file, "--report", &report]].concat();
        let (one, failures) = matrix::build(&directory, &arguments, "a", |case| case.name == model);
        assert!(failures.is_empty() && one.len() == 1, "{failures:?}");
        built.extend(one);
    }
    let sine = root().join("fixtures/sine_int8.tflite");
    let unused = [
        "build",
        sine.to_str().unwrap(),
        "-o",
        "sine.o",
        "--place-file",
        "more.toml",
        "--quiet",
    ];
    run(&directory, COREROPE, &[&unused[..], memories.target].concat());

    memories.board.compile(&directory, &built);
    (directory, built)
}

/// Links the firmware with scripts in this order.
fn link(directory: &Path, board: &Board, linker: &str, scripts: &[&str], built: &[Built]) {
    let mut arguments = vec![
        "-m",
        board.emulation,
        "--fatal-warnings",
        "--gc-sections",
        "-Map=program.map",
    ];
    arguments.extend(scripts.iter().flat_map(|script| ["-T", script]));
    arguments.extend(["start.o", "watch.o", "models.o", "glue.o", "sine.o"]);
    let archives: Vec<String> = built.iter().map(|built| format!("{}.a", built.id)).collect();
    arguments.extend(archives.iter().map(String::as_str));
    arguments.extend(["-o", "program"]);
    run(directory, linker, &arguments);
}

/// The QEMU script, or a change of it, in the directory.
fn script(directory: &Path, board: &Board, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(root().join("linker-scripts/qemu").join(board.script)).unwrap();
    let changed = change(&text);
    fs::write(directory.join("board.ld"), changed).unwrap();
}

#[test]
fn weights_run_from_a_second_memory() {
    CORTEX_M7.check();
}

#[test]
fn weights_run_from_a_far_memory() {
    RV32.check();
}

impl Memories {
    fn check(&self) {
        let board = &self.board;
        let (ld, objcopy) = (format!("{}ld", board.prefix), format!("{}objcopy", board.prefix));
        if !board.available() || !installed(board.name, &[&objcopy]) {
            return;
        }
        let (directory, built) = firmware(board.name, self);
        let directory = directory.as_path();
        script(directory, board, str::to_owned);
        let reports: Vec<String> = built.iter().map(|built| format!("{}.json", built.case.name)).collect();
        let libraries: BTreeMap<String, Vec<u8>> = (built.iter())
            .flat_map(|built| contents(&directory.join(format!("{}.a", built.id))))
            .collect();
        for linker in [&*ld, "ld.lld"] {
            if !installed(&format!("{} with {linker}", board.name), &[linker]) {
                continue;
            }
            let fragments: Vec<String> = built.iter().map(|built| format!("{}.ld", built.id)).collect();
            let scripts = [&fragments[0], &fragments[1], "sine.ld", "board.ld"];
            link(directory, board, linker, &scripts, &built);
            for file in ["program", "program.map"] {
                let check: Vec<&str> = ["check-link", file]
                    .into_iter()
                    .chain(reports.iter().map(String::as_str))
                    .collect();
                let said = run(directory, COREROPE, &check);
                assert!(
                    said.contains("QSPI") && !said.contains("WRONG") && !said.contains("dropped"),
                    "{said}"
                );
            }

            self.carve(directory, &libraries);
            let failures = matrix::judge(directory, &built, &self.emulate(directory));
            matrix::report(&format!("{} with {linker}", board.name), built.len(), &failures);
        }
    }

    /// Carves the program into the images of both memories. That of the second is the parameters of `libraries`, where
    /// their symbols are, and nothing else; what nothing calls is in neither.
    fn carve(&self, directory: &Path, libraries: &BTreeMap<String, Vec<u8>>) {
        let program = fs::read(directory.join("program")).unwrap();
        let program = object::File::parse(&*program).unwrap();
        let section = program.section_by_name(".qspi").unwrap();
        assert_eq!(section.address(), self.origin);
        let mut expected = vec![0; section.size() as usize];
        let mut weights = 0;
        for symbol in program.symbols().filter(|symbol| symbol.size() > 0) {
            let name = symbol.name().unwrap();
            assert!(!name.starts_with("sine_"), "{name} is there, and nothing calls it");
            if symbol.section_index() != Some(section.index()) {
                continue;
            }
            assert!(symbol.address().is_multiple_of(32), "{name}");
            let bytes = libraries
                .get(name)
                .unwrap_or_else(|| panic!("{name} is of neither model"));
            let at = (symbol.address() - self.origin) as usize;
            expected[at..at + bytes.len()].copy_from_slice(bytes);
            weights += 1;
        }
        assert!(weights > 10, "{weights} parameters are in the second memory");

        let objcopy = format!("{}objcopy", self.board.prefix);
        for (select, image) in [("-j", "qspi.bin"), ("-R", "main.bin")] {
            let arguments = ["-O", "binary", select, ".qspi", "program", image];
            run(directory, &objcopy, &arguments);
        }
        assert!(
            fs::read(directory.join("qspi.bin")).unwrap() == expected,
            "the image is another"
        );
        assert!(fs::metadata(directory.join("main.bin")).unwrap().len() < 256 << 10);
    }

    /// Runs the two images, loaded apart, as they are flashed apart.
    fn emulate(&self, directory: &Path) -> Output {
        let loader = format!("loader,file=qspi.bin,addr={:#x},force-raw=on", self.origin);
        let shift = format!("shift={}", self.board.shift);
        let quiet = ["-display", "none", "-serial", "none", "-monitor", "none"];
        let semihosting = ["-semihosting-config", "enable=on,target=native"];
        let images = ["-kernel", "main.bin", "-device", &loader];
        let mut qemu = command(self.board.qemu[0]);
        qemu.current_dir(directory).args(&self.board.qemu[1..]).args(quiet);
        qemu.args(["-icount", &shift]).args(semihosting).args(images);
        qemu.output().unwrap()
    }
}

/// What the linkers do without a word.
#[test]
fn what_went_wrong_is_told() {
    let Memories { board, .. } = &CORTEX_M7;
    if !board.available() {
        return;
    }
    let (directory, built) = firmware("placing-wrong", &CORTEX_M7);
    let directory = directory.as_path();
    let check = |program: &str| {
        let arguments = ["check-link", program, "digits.json", "--json"];
        let output = command(COREROPE)
            .current_dir(directory)
            .args(arguments)
            .output()
            .unwrap();
        let said = tools::text(&output);
        let json = String::from_utf8_lossy(&output.stdout).into_owned();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(
            output.status.code() == Some(0),
            json["findings"].as_array().unwrap().is_empty(),
            "{said}"
        );
        said
    };
    // Without the fragment the section is an orphan, in the main flash.
    script(directory, board, str::to_owned);
    link(directory, board, "arm-none-eabi-ld", &["board.ld"], &built);
    for file in ["program", "program.map"] {
        let said = check(file);
        assert!(
            said.contains("in .qspi, not in QSPI (0x60000000..0x61000000)"),
            "{said}"
        );
        assert!(said.contains("give the fragment first"), "{said}");
    }
    // A rule of the main script's takes the section into .data: it is copied to RAM.
    script(directory, board, |text| {
        text.replace("*(.data .data.*)", "*(.data .data.* .qspi)")
    });
    link(directory, board, "arm-none-eabi-ld", &["board.ld"], &built);
    for file in ["program", "program.map"] {
        assert!(check(file).contains("is in .data, which is writable: it takes RAM and is copied at start-up"));
    }
    // In RAM, loaded from flash, in a section that says it is read-only.
    script(directory, board, |text| {
        let fast = "    .fast : { *(.rodata.f_digits.*) . = ALIGN(8); } > RAM AT > FLASH\n    .rodata :";
        text.replace("    .rodata :", fast)
    });
    link(
        directory,
        board,
        "arm-none-eabi-ld",
        &[&format!("{}.ld", built[0].id), "board.ld"],
        &built,
    );
    let of_data = check("program");
    // With the fragment in front it is right again: the fragment's rules are the first.
    assert!(!of_data.contains("is stored at"), "{of_data}");
    link(directory, board, "arm-none-eabi-ld", &["board.ld"], &built);
    let said = check("program");
    assert!(
        said.contains("is stored at") && said.contains("the start-up code would have to copy it"),
        "{said}"
    );
    // Another build of the same model.
    let text = fs::read_to_string(directory.join("digits.json")).unwrap();
    fs::write(
        directory.join("digits.json"),
        text.replace("\"bytes\": 5120", "\"bytes\": 5124"),
    )
    .unwrap();
    assert!(check("program").contains("has 5120 bytes, 5124 were built"));
}
