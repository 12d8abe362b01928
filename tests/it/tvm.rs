//! Models of TVM, taken over: their own kernels compiled by the ordinary compilers, our object around them, and outputs
//! that are TVM's bit for bit: on this machine, on an emulated Cortex-M7 and on 32-bit RISC-V.

use crate::cases::{Case, Set, root};
use crate::firmware::{ARM, Board, RISCV};
use crate::matrix::{self, Built};
use crate::tools::{self, COREROPE, command, installed, run};
use std::fs;
use std::path::{Path, PathBuf};

/// A model that calls functions of others, with expected outputs.
pub struct Library {
    /// TVM's archive, or another model.
    pub path: PathBuf,
    /// The file of its kernels' C in the archive; `None` if it brings objects.
    pub kernels: Option<&'static str>,
    /// C that the application has beside it.
    pub beside: &'static str,
    pub sets: Vec<Set>,
}

/// The archives of `data/tvm`, and the part of their C that has the kernels.
const SHARED: &[(&str, &str, Option<&str>)] = &[
    ("sine_fp32.host.graph", "sine_fp32", Some("default_lib1.c")),
    ("sine_fp32.host.aot_c", "sine_fp32", Some("default_lib1.c")),
    ("kws_int8.host.graph", "kws_int8", Some("default_lib1.c")),
    ("kws_int8.host.aot_c_usmp_hc", "kws_int8", Some("default_lib1.c")),
    ("kws_int8.host.aot_c_poolsio", "kws_int8", Some("default_lib1.c")),
    ("kws_int8.host.aot_packed", "kws_int8", Some("default_lib2.c")),
    ("kws_int8.llvm-armv7em.graph", "kws_int8", None),
    ("resnet_int8.host.graph", "resnet_int8", Some("default_lib1.c")),
];

/// Archives made by `fixtures/tvm.py`.
pub const FIXTURES: &[(&str, &str, Option<&str>)] = &[
    ("tiny.graph", "tiny", Some("tiny_lib1.c")),
    ("tiny.graph-v5", "tiny", Some("tiny_lib1.c")),
    ("tiny.graph-v6", "tiny", Some("tiny_lib1.c")),
    ("tiny.aot", "tiny", Some("tiny_lib1.c")),
    ("tiny.aot-pools", "tiny", Some("tiny_lib1.c")),
    ("tiny.aot-alloc", "tiny", Some("tiny_lib1.c")),
    ("tiny.aot-packed", "tiny", Some("tiny_lib2.c")),
];

fn shared() -> Option<PathBuf> {
    let data = std::env::var_os("COREROPE_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from);
    let data = data.join("tvm");
    if !data.is_dir() {
        tools::skip(&format!("{} is not there: model libraries of TVM", data.display()));
        return None;
    }
    Some(data)
}

/// The fixtures and, where they are, the shared archives.
pub fn libraries() -> Vec<Library> {
    let of = |directory: &Path, list: &[(&str, &'static str, Option<&'static str>)]| {
        let library = |(name, case, kernels): &(&str, &'static str, Option<&'static str>)| Library {
            path: directory.join(format!("{name}.tar")),
            kernels: *kernels,
            // LLVM does not compile the C that TVM's schedules for Cortex-M bring along: the application does.
            beside: if kernels.is_none() { GEMM } else { "" },
            sets: sets(directory, case),
        };
        list.iter().map(library).collect::<Vec<_>>()
    };
    let mut libraries = of(&root().join("fixtures/tvm"), FIXTURES);
    if let Some(shared) = shared() {
        libraries.extend(of(&shared, SHARED));
    }
    libraries
}

impl Library {
    pub fn name(&self) -> String {
        self.path.file_stem().unwrap().to_str().unwrap().to_owned()
    }
}

/// Inputs and what TVM's own kernels made of them.
fn sets(directory: &Path, case: &str) -> Vec<Set> {
    let read = |k: usize, kind: &str| fs::read(directory.join(format!("{case}.{k}.{kind}.bin")));
    let set = |k| {
        Some(Set {
            kind: format!("set {k}"),
            inputs: vec![read(k, "in").ok()?],
            outputs: vec![read(k, "tvm_out").ok()?],
        })
    };
    let sets: Vec<Set> = (0..).map_while(set).collect();
    assert!(!sets.is_empty(), "{case} has no expected outputs");
    sets
}

/// A file of a tar archive; names here are short, and so is this reader.
pub fn file_of(archive: &Path, name: &str) -> Vec<u8> {
    let bytes = fs::read(archive).unwrap();
    let mut at = 0;
    while bytes[at] != 0 {
        let text = |from: usize, to: usize| {
            let text = String::from_utf8_lossy(&bytes[at + from..at + to]).into_owned();
            text.trim_matches('\0').trim().to_owned()
        };
        let size = usize::from_str_radix(&text(124, 136), 8).unwrap();
        if text(0, 100).rsplit('/').next() == Some(name) {
            return bytes[at + 512..at + 512 + size].to_vec();
        }
        at += 512 + size.next_multiple_of(512);
    }
    panic!("{} holds no {name}", archive.display());
}

/// How the kernels are compiled. Products and sums must not be contracted: TVM's outputs were not.
const KERNEL_FLAGS: &[&str] = &["-O2", "-ffp-contract=off", "-w", "-c"];

/// Compiles a library's kernels and builds it as `id.a`; returns the case that it is.
fn build(directory: &Path, library: &Library, gcc: &str, flags: &[&str], id: &str, arguments: &[&str]) -> Built {
    let mut all = vec!["build".to_owned(), library.path.to_str().unwrap().to_owned()];
    all.extend(["-o", &format!("{id}.a"), "--name", id].map(str::to_owned));
    if let Some(name) = library.kernels {
        fs::write(directory.join(format!("{id}-kernels.c")), file_of(&library.path, name)).unwrap();
        let include = format!("-I{}", root().join("tests/tvm/include").display());
        let (source, object) = (format!("{id}-kernels.c"), format!("{id}-kernels.o"));
        run(
            directory,
            gcc,
            &[flags, KERNEL_FLAGS, &[&include, &source, "-o", &object]].concat(),
        );
        all.extend(["--kernels".to_owned(), object]);
    }
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    run(directory, COREROPE, &all);
    Built {
        case: Case {
            name: format!("{}-{id}", library.name()),
            identifier: id.to_owned(),
            model: library.path.clone(),
            float: false,
            sets: library.sets.clone(),
        },
        id: id.to_owned(),
    }
}

/// Bytes of stack that kernels may take beside ours.
const KERNEL_STACK: &str = "16384";

/// The harness's table, with the kernels' own stack allowed and a static arena passed on to nobody. On this machine the
/// harness tries illegal arenas, which a static one cannot be.
fn glue(directory: &Path, built: &[Built], static_arena: bool, checked: bool) {
    matrix::write_glue(directory, built);
    let path = directory.join("glue.c");
    let mut text = fs::read_to_string(&path).unwrap();
    for Built { id, .. } in built {
        let size = format!("{}_STACK_SIZE", id.to_uppercase());
        text = text.replace(&size, &format!("{size} + {KERNEL_STACK}"));
    }
    if static_arena {
        let check = "if (!arena || (uintptr_t)arena % 16) return -1; return ";
        text = text.replace("return ", if checked { check } else { "(void)arena; return " });
        text = text.replace(", arena);", ");");
    }
    fs::write(path, text).unwrap();
}

/// Every library with the static arena and with the caller's, linked by gcc and run between unmapped pages.
#[test]
fn on_this_machine() {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) || !installed("TVM's models", &["gcc"]) {
        return;
    }
    for (name, arguments) in [
        ("tvm-host-static", &[][..]),
        ("tvm-host-caller", &["--arena", "caller"]),
    ] {
        let directory = tools::directory(name);
        let mut built = Vec::new();
        for (i, library) in libraries().iter().enumerate().filter(|(_, l)| l.kernels.is_some()) {
            built.push(build(&directory, library, "gcc", &[], &format!("t{i}"), arguments));
            // The kernels of different archives have the same names.
            localize(&directory, &format!("t{i}"));
        }
        glue(&directory, &built, arguments.is_empty(), true);
        let archives: Vec<String> = built.iter().map(|b| format!("{}.o", b.id)).collect();
        let sources = root().join("tests/c");
        let include = format!("-I{}", sources.display());
        let harness = sources.join("harness.c");
        let mut files = vec!["-O2", harness.to_str().unwrap(), "glue.c", &include, "-o", "program"];
        files.extend(archives.iter().map(String::as_str));
        files.push("-lm");
        run(&directory, "gcc", &files);
        let output = command(directory.join("program"))
            .current_dir(&directory)
            .args(["in", "out"])
            .output()
            .unwrap();
        let failures = matrix::judge(&directory, &built, &output);
        matrix::report(name, built.len(), &failures);
    }
}

/// The archive as one object whose only global symbol is the entry point.
fn localize(directory: &Path, id: &str) {
    let (archive, object) = (format!("{id}.a"), format!("{id}.o"));
    run(directory, "ld", &["-r", "--whole-archive", &archive, "-o", &object]);
    // The entry point, and its name in this build.
    let keep = format!("--keep-global-symbol={id}_run*");
    run(directory, "objcopy", &["--wildcard", &keep, &object]);
}

/// The product of a row and a column of one element, which the schedule of a dense layer calls.
const GEMM: &str = "\
int32_t gemm_1x1x1_reset_HTFCKBFM(int32_t *c, int32_t stride);
int32_t gemm_1x1x1_reset_HTFCKBFM(int32_t *c, int32_t stride) { (void)stride; *c = 0; return 0; }
int32_t gemm_1x1x1_update_HTFCKBFM(const int8_t *a, const int8_t *b, int32_t *c, int32_t, int32_t, int32_t);
int32_t gemm_1x1x1_update_HTFCKBFM(const int8_t *a, const int8_t *b, int32_t *c, int32_t i, int32_t j, int32_t k) {
    (void)i, (void)j, (void)k;
    *c += *a * *b;
    return 0;
}
";

/// One library on a board: linked by gcc with the C library of the target, for the functions that kernels call.
pub fn on_board(board: &Board, libraries: &[Library], arguments: &[&str]) -> Vec<(String, u64)> {
    let tool = |name: &str| format!("{}{name}", board.prefix);
    let mut counts = Vec::new();
    for (i, library) in libraries.iter().enumerate() {
        let directory = tools::directory(&format!("{}-{}", board.name, library.name()));
        let id = format!("t{i}");
        let options = [board.arguments, arguments].concat();
        let built = [build(&directory, library, &tool("gcc"), board.flags, &id, &options)];
        glue(&directory, &built, !arguments.contains(&"caller"), false);
        let firmware = root().join("tests/firmware");
        let [startup, watch] = if board.emulation == "armelf" {
            ["cortex-m.S", "arm/watch.S"]
        } else {
            ["riscv.S", "riscv/watch.S"]
        };
        let empty = "int32_t empty_run(const void *, const void *, void *);\n\
             int32_t run_empty(const void *const *, void *const *, void *);\n\
             int32_t run_empty(const void *const *i, void *const *o, void *a) { return empty_run(i, o, a); }\n\
             extern unsigned char *const memories[];\nextern const unsigned memory_count;\n\
             extern const struct guard guards[];\nextern const unsigned guard_count;\n\
             unsigned char *const memories[] = {0};\nconst unsigned memory_count = 0;\n\
             const struct guard guards[] = {{0, 0}};\nconst unsigned guard_count = 0;\n";
        let glued = fs::read_to_string(directory.join("glue.c")).unwrap() + empty;
        fs::write(directory.join("glue.c"), glued + library.beside).unwrap();
        let include = format!("-I{}", root().join("tests/c").display());
        let script = root().join("linker-scripts/qemu").join(board.script);
        let start = root().join("linker-scripts/startup").join(startup);
        let paths = [start, firmware.join(watch), firmware.join("models.c")];
        let mut files: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        let archive = format!("{id}.a");
        let script = format!("-T{}", script.display());
        files.extend(["glue.c", &archive, "-O2", "-nostartfiles", "-Wl,--gc-sections", &script]);
        files.extend(["-Wl,-Map,map", &include, "-lm", "-lc", "-lgcc", "-o", "program"]);
        run(&directory, &tool("gcc"), &[board.flags, &files].concat());
        parameters_in_flash(&directory, &id);

        let shift = format!("shift={}", board.shift);
        let output = command(board.qemu[0])
            .current_dir(&directory)
            .args(&board.qemu[1..])
            .args([
                "-display", "none", "-serial", "none", "-monitor", "none", "-icount", &shift,
            ])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel", "program"])
            .output()
            .unwrap();
        let failures = matrix::judge(&directory, &built, &output);
        matrix::report(&format!("{} {}", board.name, library.name()), 1, &failures);
        for line in tools::text(&output).lines() {
            if let ["RUN", _, ticks, rest, _] = line.split(' ').collect::<Vec<_>>()[..] {
                let ticks: u64 = ticks.parse().unwrap();
                let count =
                    ((ticks * board.tick + (1 << board.shift) / 2) >> board.shift) + rest.parse::<u64>().unwrap();
                counts.push((library.name(), count));
            }
        }
    }
    counts
}

/// In the linked program every parameter lies in flash, and what holds them is not writable.
fn parameters_in_flash(directory: &Path, id: &str) {
    use object::read::{Object, ObjectSection, ObjectSymbol};
    let archive = fs::read(directory.join(format!("{id}.a"))).unwrap();
    let file = object::read::archive::ArchiveFile::parse(&*archive).unwrap();
    let mut constants: Vec<String> = Vec::new();
    for member in file.members() {
        let member = object::File::parse(member.unwrap().data(&*archive).unwrap()).unwrap();
        let sized = member.symbols().filter(|symbol| symbol.size() > 0);
        constants.extend(sized.filter_map(|symbol| {
            let section = member.section_by_index(symbol.section_index()?).ok()?;
            let constant = section.kind() == object::SectionKind::ReadOnlyData;
            constant.then(|| symbol.name().unwrap().to_owned())
        }));
    }
    let program = fs::read(directory.join("program")).unwrap();
    let program = object::File::parse(&*program).unwrap();
    let writable = |section: &object::Section| {
        let object::SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            panic!("not an ELF file")
        };
        sh_flags.0 & object::elf::SHF_WRITE.0 != 0
    };
    let mut found = 0;
    for name in &constants {
        // What the linker dropped is nowhere.
        let Some(symbol) = program.symbols().find(|symbol| symbol.name() == Ok(name)) else {
            continue;
        };
        let section = program.section_by_index(symbol.section_index().unwrap()).unwrap();
        let place = section.name().unwrap();
        assert!(!writable(&section), "{name} is in the writable section {place}");
        found += 1;
    }
    assert!(found > 0, "{id}: none of {constants:?} is in the program");
    assert!(!writable(&program.section_by_name(".rodata").unwrap()));
    // RAM holds the arena and what the harness has, and no copy of a parameter.
    let data = program.section_by_name(".data").map_or(0, |section| section.size());
    assert!(data < 2048, "{data} bytes of initialised data");
}

pub fn cortex_m7() -> Board {
    Board {
        name: "tvm-cortex-m7",
        arguments: &["--target", "thumbv7em-none-eabihf", "--cpu", "cortex-m7"],
        flags: &["-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
        qemu: &["qemu-system-arm", "-M", "mps2-an500"],
        ..ARM
    }
}

pub fn fits(board: &Board) -> bool {
    let gcc = format!("{}gcc", board.prefix);
    installed(board.name, &[&gcc, board.qemu[0]])
}

#[test]
fn on_cortex_m7() {
    let board = cortex_m7();
    if !fits(&board) {
        return;
    }
    let (own, theirs): (Vec<_>, Vec<_>) = libraries().into_iter().partition(|library| library.kernels.is_some());
    let counts = on_board(&board, &own, &[]);
    for (name, count) in &counts {
        println!("{name} {count}");
    }
    // Objects of the archive itself: compiled by TVM for softfp.
    let softfp = Board {
        name: "tvm-cortex-m7-softfp",
        flags: &["-mcpu=cortex-m7", "-mfloat-abi=softfp", "-mfpu=fpv5-d16"],
        ..cortex_m7()
    };
    on_board(&softfp, &theirs, &[]);
}

#[test]
fn on_cortex_m7_with_the_callers_arena() {
    let board = Board {
        name: "tvm-cortex-m7-caller",
        ..cortex_m7()
    };
    if fits(&board) {
        let own: Vec<_> = libraries()
            .into_iter()
            .filter(|library| library.kernels.is_some())
            .collect();
        on_board(&board, &own, &["--arena", "caller"]);
    }
}

pub fn rv32gc() -> Board {
    Board {
        name: "tvm-rv32gc",
        arguments: &["--target", "riscv32gc-unknown-none-elf"],
        flags: &["-march=rv32gc", "-mabi=ilp32d", "--specs=picolibc.specs"],
        ..RISCV
    }
}

/// Without a floating-point unit: the soft-float ABI.
pub fn rv32imc() -> Board {
    Board {
        name: "tvm-rv32imc",
        arguments: &["--target", "riscv32imc-unknown-none-elf"],
        // The name of the ISA chooses the C library; the assembler is to know control registers beside it.
        flags: &[
            "-march=rv32imc",
            "-mabi=ilp32",
            "-Wa,-march=rv32imc_zicsr",
            "--specs=picolibc.specs",
        ],
        ..RISCV
    }
}

#[test]
fn on_rv32() {
    for board in [rv32gc(), rv32imc()] {
        if fits(&board) {
            let own: Vec<_> = libraries()
                .into_iter()
                .filter(|library| library.kernels.is_some())
                .collect();
            for (name, count) in on_board(&board, &own, &[]) {
                println!("{} {name} {count}", board.name);
            }
        }
    }
}

/// The sine model on Cortex-M7 as the static runtime that came before ran it: inputs and outputs at fixed places, kernels
/// compiled with -O2. That took 2,560 instructions, with two of each kernel's six arguments.
#[test]
fn the_sine_models_instructions() {
    let board = cortex_m7();
    let Some(data) = shared().filter(|_| fits(&board)) else {
        return;
    };
    let directory = tools::directory("tvm-sine");
    let archive = data.join("sine_fp32.host.graph.tar");
    fs::write(directory.join("k.c"), file_of(&archive, "default_lib1.c")).unwrap();
    let include = format!("-I{}", root().join("tests/tvm/include").display());
    let gcc = "arm-none-eabi-gcc";
    run(
        &directory,
        gcc,
        &[board.flags, &["-O2", "-w", "-c", "k.c", &include]].concat(),
    );
    let model = archive.to_str().unwrap();
    let build = [
        "build",
        model,
        "--kernels",
        "k.o",
        "-o",
        "sine.a",
        "--io",
        "arena",
        "--name",
        "sine",
    ];
    run(&directory, COREROPE, &[&build[..], board.arguments].concat());
    let text = "#include \"sine.h\"\n#define RUN sine_run\n#define SETS 5\n\
         #define INPUT (sine_arena + SINE_DENSE_2_INPUT_OFFSET)\n#define INPUT_BYTES SINE_DENSE_2_INPUT_BYTES\n\
         #define OUTPUT (sine_arena + SINE_IDENTITY_OFFSET)\n#define OUTPUT_BYTES SINE_IDENTITY_BYTES\n";
    fs::write(directory.join("takeover.h"), text).unwrap();
    let inputs: Vec<u8> = (0..5)
        .flat_map(|k| fs::read(data.join(format!("sine_fp32.{k}.in.bin"))).unwrap())
        .collect();
    fs::write(directory.join("in"), inputs).unwrap();
    let start = root().join("linker-scripts/startup/cortex-m.S");
    let firmware = root().join("tests/firmware");
    let script = format!("-T{}", root().join("linker-scripts/qemu").join(board.script).display());
    let (watch, main) = (firmware.join("arm/watch.S"), firmware.join("takeover.c"));
    let mut files: Vec<&str> = [&start, &watch, &main].map(|path| path.to_str().unwrap()).to_vec();
    files.extend([
        "sine.a",
        "-O2",
        "-nostartfiles",
        "-Wl,--gc-sections",
        &script,
        "-I.",
        "-lm",
        "-lc",
        "-lgcc",
    ]);
    files.extend(["-o", "program"]);
    run(&directory, gcc, &[board.flags, &files].concat());
    let shift = format!("shift={}", board.shift);
    let output = command(board.qemu[0])
        .current_dir(&directory)
        .args(&board.qemu[1..])
        .args([
            "-display", "none", "-serial", "none", "-monitor", "none", "-icount", &shift,
        ])
        .args(["-semihosting-config", "enable=on,target=native", "-kernel", "program"])
        .output()
        .unwrap();
    let said = tools::text(&output);
    let ticks: u64 = said
        .trim()
        .strip_prefix("TICKS ")
        .unwrap_or_else(|| panic!("{said}"))
        .parse()
        .unwrap();
    let count = ((ticks * board.tick + (1 << board.shift) / 2) >> board.shift) + 2;
    println!("sine_fp32 on Cortex-M7: {count} instructions");
    // With fused multiply-adds the last bit differs from TVM's on the host.
    let results = fs::read(directory.join("out")).unwrap();
    for (k, result) in results.chunks(4).enumerate() {
        let expected = fs::read(data.join(format!("sine_fp32.{k}.tvm_out.bin"))).unwrap();
        let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        assert!((float(result) - float(&expected)).abs() < 1e-6, "set {k}");
    }
    assert!(count <= 2_560, "{count} instructions");
    // With our own kernels, from the TensorFlow Lite file.
    let own = inspect(
        &data.with_file_name("models").join("sine_float.tflite"),
        board.arguments,
    );
    let own = own["instructions"]["most"].as_u64().unwrap();
    println!("sine_float with our own kernels: at most {own} instructions");
    assert!(own < count);
}

/// What `inspect --json` says.
fn inspect(model: &Path, arguments: &[&str]) -> serde_json::Value {
    let model = model.to_str().unwrap();
    let text = run(root(), COREROPE, &[&["inspect", "--json", model], arguments].concat());
    serde_json::from_str(&text).unwrap()
}

/// The arena that holds everything, kernels' workspaces included, is at most what a planner over these graphs found.
#[test]
fn memory_is_planned_anew() {
    let Some(data) = shared() else { return };
    for (name, most) in [("kws_int8", 88_192), ("resnet_int8", 118_928)] {
        let report = inspect(&data.join(format!("{name}.host.graph.tar")), &["--io", "arena"]);
        let arena = report["ram"]["arena"].as_u64().unwrap();
        assert!(arena <= most, "{name}: {arena} bytes");
        assert_eq!(report["ram"]["optimal"], true);
        let peer = report["external"]["peer"]["arena"].as_u64().unwrap();
        assert!(peer > arena, "{name}: {arena} bytes, TVM {peer}");
    }
}
