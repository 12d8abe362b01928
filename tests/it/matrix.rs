//! Every model on every target: built as an archive, linked into one C program by the ordinary compiler, and run
//! between unmapped pages (`tests/c/harness.c`).

use crate::alignment;
use crate::cases::{self, Case};
use crate::tools::{self, COREROPE, command, installed, run};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SectionKind, SegmentFlags};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// A way to build and run.
struct Target<'a> {
    /// Name of the test's directory.
    name: &'static str,
    /// For `corerope build`.
    arguments: &'a [&'static str],
    /// Prefix of the C compiler's and binutils' names.
    prefix: &'static str,
    /// What runs the program, if not this machine.
    emulator: &'static [&'static str],
}

#[test]
fn x86_64() {
    Target {
        name: "x86-64",
        arguments: &["--target", "x86_64-unknown-linux-gnu"],
        prefix: "",
        emulator: host_or(&["qemu-x86_64"], cfg!(target_arch = "x86_64")),
    }
    .check();
}

/// Arenas in three memories, each between unmapped pages, as wholes and row by row.
#[test]
fn x86_64_memories() {
    for (name, arguments) in [
        ("x86-64-memories", &["--memory", "a=2K,b=24K,c=8M"][..]),
        ("x86-64-memories-ram", &["--memory", "a=2K,b=8M", "--optimize", "ram"]),
    ] {
        Target {
            name,
            arguments: &[&["--target", "x86_64-unknown-linux-gnu"], arguments].concat(),
            prefix: "",
            emulator: host_or(&["qemu-x86_64"], cfg!(target_arch = "x86_64")),
        }
        .check();
    }
}

#[test]
fn x86_64_v3() {
    #[cfg(target_arch = "x86_64")]
    if !std::arch::is_x86_feature_detected!("avx2") || !std::arch::is_x86_feature_detected!("fma") {
        return tools::skip("x86-64-v3: this machine has no AVX2");
    }
    Target {
        name: "x86-64-v3",
        arguments: &["--target", "x86_64-unknown-linux-gnu", "--cpu", "x86-64-v3"],
        prefix: "",
        emulator: host_or(&["qemu-x86_64", "-cpu", "max"], cfg!(target_arch = "x86_64")),
    }
    .check();
}

#[test]
fn x86_64_vnni() {
    #[cfg(target_arch = "x86_64")]
    if !std::arch::is_x86_feature_detected!("avxvnni") {
        return tools::skip("x86-64-v3-vnni: this machine has no AVX-VNNI");
    }
    Target {
        name: "x86-64-vnni",
        arguments: &["--target", "x86_64-unknown-linux-gnu", "--cpu", "x86-64-v3-vnni"],
        prefix: "",
        emulator: host_or(&["qemu-x86_64", "-cpu", "max"], cfg!(target_arch = "x86_64")),
    }
    .check();
}

#[test]
fn aarch64() {
    Target {
        name: "aarch64",
        arguments: &["--target", "aarch64-unknown-linux-gnu"],
        prefix: "aarch64-linux-gnu-",
        emulator: &["qemu-aarch64", "-cpu", "cortex-a53"],
    }
    .check();
}

#[test]
fn aarch64_dotprod() {
    Target {
        name: "aarch64-dotprod",
        arguments: &["--target", "aarch64-unknown-linux-gnu", "--cpu", "a64-dotprod"],
        prefix: "aarch64-linux-gnu-",
        emulator: &["qemu-aarch64", "-cpu", "max"],
    }
    .check();
}

#[test]
fn riscv64() {
    Target {
        name: "riscv64",
        arguments: &["--target", "riscv64gc-unknown-linux-gnu"],
        prefix: "riscv64-linux-gnu-",
        emulator: &["qemu-riscv64"],
    }
    .check();
}

fn host_or(emulator: &'static [&'static str], host: bool) -> &'static [&'static str] {
    if host { &[] } else { emulator }
}

/// A case that was built.
pub struct Built {
    pub case: Case,
    /// Prefix of its symbols and name of its files.
    pub id: String,
}

impl Target<'_> {
    fn check(&self) {
        let tool = |name: &str| format!("{}{name}", self.prefix);
        let mut needed = vec![tool("gcc"), tool("g++"), tool("nm")];
        needed.extend(self.emulator.first().map(|name| (*name).to_owned()));
        if !installed(self.name, &needed.iter().map(String::as_str).collect::<Vec<_>>()) {
            return;
        }
        let directory = tools::directory(&format!("matrix-{}", self.name));
        let (built, mut failures) = build_all(&directory, self.arguments, "a");
        let archives: Vec<String> = built.iter().map(|b| format!("{}.a", b.id)).collect();

        let symbols = run(&directory, &tool("nm"), &[&["-A".to_owned()], &archives[..]].concat());
        failures.extend(undefined(&symbols));

        write_glue(&directory, &built);
        let program = link(&directory, self.prefix, &archives);
        failures.extend(writable_parameters(&directory, &program, &built));

        let riscv = self.emulator.first().filter(|name| name.contains("riscv"));
        let plugin = riscv.and_then(|emulator| alignment::plugin(&directory, emulator));
        let mut command = match self.emulator {
            [] => command(directory.join(&program)),
            [emulator, arguments @ ..] => {
                let mut command = command(emulator);
                command.args(arguments);
                command.args(plugin.iter().flat_map(|plugin| ["-plugin", plugin]));
                command.arg(directory.join(&program));
                command
            }
        };
        let output = command.current_dir(&directory).args(["in", "out"]).output().unwrap();
        if plugin.is_some() {
            failures.extend(alignment::misaligned(&directory, &program, &tools::text(&output)));
        }
        failures.extend(judge(&directory, &built, &output));
        report(self.name, built.len(), &failures);
    }
}

/// Builds every case with `arguments` into `directory`, with what went wrong. Cases that `exceptions.txt` says are
/// refused must be.
pub fn build_all(directory: &Path, arguments: &[&str], extension: &str) -> (Vec<Built>, Vec<String>) {
    // For whoever works on one of them: COREROPE_CASES=kws,vgg.
    let only = std::env::var("COREROPE_CASES").unwrap_or_default();
    let wanted = |case: &Case| only.is_empty() || only.split(',').any(|part| case.name.contains(part));
    build(directory, arguments, extension, wanted)
}

/// The same for the cases that `wanted` picks.
pub fn build(
    directory: &Path,
    arguments: &[&str],
    extension: &str,
    wanted: impl Fn(&Case) -> bool,
) -> (Vec<Built>, Vec<String>) {
    let exceptions = cases::exceptions();
    let (mut built, mut failures) = (Vec::new(), Vec::new());
    for case in cases::fixtures().into_iter().chain(cases::shared()) {
        if !wanted(&case) {
            continue;
        }
        let id = case.identifier.clone();
        let file = format!("{id}.{extension}");
        let mut command = command(COREROPE);
        command
            .current_dir(directory)
            .arg("build")
            .arg(&case.model)
            .args(["-o", &file, "--name", &id]);
        let output = command.args(["--arena", "caller"]).args(arguments).output().unwrap();
        let refused = exceptions.get(&case.name).is_some_and(|(what, _)| what == "refused");
        match output.status.code() {
            Some(0) if refused => failures.push(format!("{}: exceptions.txt says refused, but it builds", case.name)),
            Some(0) => built.push(Built { case, id }),
            Some(1) if refused => {}
            _ => failures.push(format!(
                "{}: build: {}\n{}",
                case.name,
                output.status,
                tools::text(&output)
            )),
        }
    }
    (built, failures)
}

/// Writes the harness's table for `built` as `glue.c`, and the inputs of all their sets as `in`.
pub fn write_glue(directory: &Path, built: &[Built]) {
    let mut glue = "#include \"harness.h\"\n".to_owned();
    let mut table = String::new();
    let mut inputs = Vec::new();
    for (i, Built { case, id }) in built.iter().enumerate() {
        let macros = id.to_uppercase();
        let [set, ..] = &case.sets[..] else {
            panic!("{} has no sets", case.name)
        };
        let sizes: Vec<String> = set
            .inputs
            .iter()
            .chain(&set.outputs)
            .map(|bytes| bytes.len().to_string())
            .collect();
        let (ins, outs) = (set.inputs.len(), set.outputs.len());
        let header = fs::read_to_string(directory.join(format!("{id}.h"))).unwrap();
        let macros_of_parts = parts_of(&header, id);
        let parts = macros_of_parts.len();
        let arena = match parts {
            0 => "arena".to_owned(),
            _ => format!("(const struct {id}_arenas *)arena"),
        };
        // What the glue and its callback have on the stack comes on top of what the model declares.
        let mut own_stack = 0;
        if header.contains(&format!("struct {id}_rows {{")) {
            own_stack = 128;
            write!(glue, "{}", fed(i, id, outs, &arena)).unwrap();
        } else {
            // A header that is included twice, and structures of pointers only, in the model's order.
            write!(
                glue,
                "#include \"{id}.h\"\n#include \"{id}.h\"\n\
                 typedef char {id}_inputs_are_pointers[sizeof(struct {id}_inputs) == {ins} * sizeof(void *) ? 1 : -1];\n\
                 typedef char {id}_outputs_are_pointers[sizeof(struct {id}_outputs) == {outs} * sizeof(void *) ? 1 : -1];\n\
                 static int32_t run_{i}(const void *const *inputs, void *const *outputs, void *arena) {{\n    \
                 return {id}_run((const struct {id}_inputs *)(const void *)inputs, (const struct {id}_outputs *)(const void *)outputs, {arena});\n}}\n"
            )
            .unwrap();
        }
        let whole = if parts > 0 {
            writeln!(
                glue,
                "static const size_t parts_{i}[] = {{{}}};",
                macros_of_parts.join(", ")
            )
            .unwrap();
            "0".to_owned()
        } else {
            format!("{macros}_ARENA_SIZE")
        };
        let table_of_parts = if parts > 0 {
            format!("parts_{i}")
        } else {
            "0".to_owned()
        };
        writeln!(glue, "static const size_t sizes_{i}[] = {{{}}};", sizes.join(", ")).unwrap();
        writeln!(
            table,
            "    {{\"{}\", {whole}, {macros}_ARENA_ALIGN, {macros}_STACK_SIZE + {own_stack}, {ins}, {outs}, {}, sizes_{i}, run_{i}, {parts}, {table_of_parts}}},",
            case.name,
            case.sets.len()
        )
        .unwrap();
        case.sets
            .iter()
            .flat_map(|set| &set.inputs)
            .for_each(|bytes| inputs.extend_from_slice(bytes));
    }
    write!(
        glue,
        "const struct model models[] = {{\n{table}}};\nconst unsigned model_count = {};\n",
        built.len()
    )
    .unwrap();
    fs::write(directory.join("glue.c"), glue).unwrap();
    fs::write(directory.join("in"), inputs).unwrap();
}

/// The macros with the sizes of the parts of an arena that is divided between memories, in the order of its struct.
fn parts_of(header: &str, id: &str) -> Vec<String> {
    let structure = header.split(&format!("struct {id}_arenas {{\n")).nth(1);
    let members = structure.and_then(|rest| rest.split("};").next()).unwrap_or_default();
    let macros = members
        .lines()
        .filter_map(|line| line.split("/* ").nth(1)?.split(' ').next());
    macros.map(str::to_owned).collect()
}

/// Glue for a model whose input comes row by row, in rising order.
fn fed(i: usize, id: &str, outs: usize, arena: &str) -> String {
    let macros = id.to_uppercase();
    format!(
        "#include \"{id}.h\"\n#include \"{id}.h\"\n\
         typedef char {id}_outputs_are_pointers[sizeof(struct {id}_outputs) == {outs} * sizeof(void *) ? 1 : -1];\n\
         struct rows_{i} {{ const unsigned char *data; uint32_t next; }};\n\
         static int32_t read_{i}(void *context, uint32_t row, void *destination) {{\n    \
         struct rows_{i} *rows = (struct rows_{i} *)context;\n    \
         const unsigned char *from = rows->data + (size_t)row * {macros}_INPUT_ROW_BYTES;\n    \
         unsigned char *to = (unsigned char *)destination;\n    \
         size_t k;\n    \
         if (row < rows->next || row >= {macros}_INPUT_ROWS)\n        return -1;\n    \
         rows->next = row + 1;\n    \
         for (k = 0; k < {macros}_INPUT_ROW_BYTES; k++)\n        to[k] = from[k];\n    \
         return 0;\n}}\n\
         static int32_t run_{i}(const void *const *inputs, void *const *outputs, void *arena) {{\n    \
         struct rows_{i} given;\n    \
         struct {id}_rows rows;\n    \
         given.data = (const unsigned char *)inputs[0];\n    given.next = 0;\n    \
         rows.read = read_{i};\n    rows.context = &given;\n    \
         return {id}_run(&rows, (const struct {id}_outputs *)(const void *)outputs, {arena});\n}}\n"
    )
}

/// Flags under which headers, and the harness, compile without a warning.
pub const WARNINGS: &[&str] = &["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// Compiles the harness and its table as C99, the table also as C++17, and links everything. Returns the program's
/// name.
pub fn link(directory: &Path, prefix: &str, archives: &[String]) -> String {
    let sources = cases::root().join("tests/c");
    let include = format!("-I{}", sources.display());
    let gcc = format!("{prefix}gcc");
    for (source, object) in [
        (sources.join("harness.c"), "harness.o"),
        (directory.join("glue.c"), "glue.o"),
    ] {
        let files = [
            "-O2",
            "-c",
            source.to_str().unwrap(),
            "-o",
            object,
            "-std=c99",
            &include,
        ];
        run(directory, &gcc, &[&files[..], WARNINGS].concat());
    }
    let files = ["-x", "c++", "-std=c++17", "-fsyntax-only", "glue.c", &include];
    run(directory, &format!("{prefix}g++"), &[&files[..], WARNINGS].concat());
    let mut arguments = vec!["harness.o".to_owned(), "glue.o".to_owned()];
    arguments.extend_from_slice(archives);
    arguments.extend(["-o", "program"].map(str::to_owned));
    if !prefix.is_empty() {
        // The emulator then needs no libraries of the target's.
        arguments.push("-static".to_owned());
    }
    run(directory, &gcc, &arguments);
    let exe = directory.join("program.exe");
    if exe.exists() { "program.exe" } else { "program" }.to_owned()
}

/// Parameters that are not in read-only memory: in a writable section of an archive, or in a writable segment of the
/// program.
fn writable_parameters(directory: &Path, program: &str, built: &[Built]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut parameters = Vec::new();
    for Built { id, .. } in built {
        let archive = fs::read(directory.join(format!("{id}.a"))).unwrap();
        let file = object::read::archive::ArchiveFile::parse(&*archive).unwrap();
        for member in file.members() {
            let member = member.unwrap();
            let object = object::File::parse(member.data(&*archive).unwrap()).unwrap();
            for section in object.sections() {
                match section.kind() {
                    SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => {}
                    SectionKind::Data | SectionKind::UninitializedData if section.size() > 0 => {
                        wrong.push(format!(
                            "{id}.a: writable section {:?} without --arena static",
                            section.name()
                        ));
                    }
                    _ => continue,
                }
                let here = object
                    .symbols()
                    .filter(|s| s.section_index() == Some(section.index()) && s.size() > 0);
                parameters.extend(here.map(|symbol| symbol.name().unwrap().to_owned()));
            }
        }
    }
    assert!(!parameters.is_empty(), "no archive has a parameter symbol");
    parameters.sort();
    let program = fs::read(directory.join(program)).unwrap();
    let program = object::File::parse(&*program).unwrap();
    let mut found = 0;
    for symbol in program.symbols() {
        let Ok(name) = symbol.name() else { continue };
        if parameters
            .binary_search_by(|parameter| parameter.as_str().cmp(name))
            .is_err()
        {
            continue;
        }
        found += 1;
        let segment = program
            .segments()
            .find(|s| (s.address()..s.address() + s.size()).contains(&symbol.address()));
        let writable = match segment.map(|segment| segment.flags()) {
            Some(SegmentFlags::Elf { p_flags, .. }) => p_flags.0 & object::elf::PF_W.0 != 0,
            _ => true,
        };
        if writable {
            wrong.push(format!("parameter {name} is in writable memory"));
        }
    }
    if found == 0 {
        wrong.push("no parameter symbol in the linked program".to_owned());
    }
    wrong
}

/// Compares `out` with what the cases expect, and gathers what the harness said.
pub fn judge(directory: &Path, built: &[Built], output: &std::process::Output) -> Vec<String> {
    let said = tools::text(output);
    let mut failures: Vec<String> = said
        .lines()
        .filter_map(|line| line.strip_prefix("FAIL "))
        .map(str::to_owned)
        .collect();
    if !said.contains(&format!("{} models, ", built.len())) {
        failures.push(format!("the program ended early: {}\n{said}", output.status));
        return failures;
    }
    let exceptions = cases::exceptions();
    let results = fs::read(directory.join("out")).unwrap();
    let mut rest = &results[..];
    for Built { case, .. } in built {
        let mut differences = Vec::new();
        for set in &case.sets {
            let mut outputs = Vec::new();
            for expected in &set.outputs {
                let (head, tail) = rest.split_at(expected.len());
                outputs.push(head);
                rest = tail;
            }
            differences.extend(case.difference(set, &outputs));
        }
        match exceptions.get(&case.name) {
            Some((what, _)) if what == "differs" => {
                if differences.is_empty() {
                    failures.push(format!(
                        "{}: exceptions.txt says it differs, but it does not",
                        case.name
                    ));
                }
            }
            _ => failures.extend(differences),
        }
    }
    failures
}

/// Panics with all failures.
pub fn report(target: &str, models: usize, failures: &[String]) {
    println!("{target}: {models} models, {} exceptions", cases::exceptions().len());
    assert!(models > 0, "{target}: nothing was built");
    assert!(
        failures.is_empty(),
        "{target}: {} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// `archive: symbol` of what the members of an archive need and none of them has, from `nm -A`.
pub fn undefined(symbols: &str) -> Vec<String> {
    let mut defined = BTreeSet::new();
    let mut needed = BTreeSet::new();
    for line in symbols.lines() {
        // COFF's libraries end with .lib.
        let split = line.split_once(".a:").or_else(|| line.split_once(".lib:"));
        let (Some((archive, rest)), Some(symbol)) = (split, line.split_whitespace().next_back()) else {
            continue;
        };
        match rest.contains(" U ") {
            true => needed.insert((archive, symbol)),
            false => defined.insert((archive, symbol)),
        };
    }
    (needed.difference(&defined))
        .map(|(archive, symbol)| format!("undefined symbol in an archive: {archive} {symbol}"))
        .collect()
}
