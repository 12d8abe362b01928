//! A thousand names that would break a header, a symbol table, a script, a shell or a makefile; and models whose files
//! are named like that.

use crate::big::big_model;
use crate::cases::root;
use crate::tools::{self, COREROPE, command, installed, run};
use object::{Object, ObjectSection, ObjectSymbol};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What names are made of.
const PIECES: &[&str] = &[
    "",
    " ",
    "\"",
    "'",
    "`",
    "\\",
    "\n",
    "\r\n",
    "\t",
    "\x1b[31m",
    "$",
    "$$",
    "$(touch pwned)",
    "`touch pwned`",
    "${HOME}",
    "$(shell touch pwned)",
    "; touch pwned;",
    "| touch pwned",
    "&& touch pwned",
    "> pwned",
    "!",
    "#",
    "#error",
    "#include </etc/passwd>",
    "%s%n",
    "*/",
    "/*",
    "//",
    "??/",
    "\\\n",
    "{",
    "}",
    "{{ 7*7 }}",
    "{% raw %}",
    "(",
    ")",
    "[",
    "]",
    "*",
    "?",
    "~",
    "=",
    ":=",
    ":",
    ",",
    "@",
    "^",
    "<",
    ">",
    "$<",
    "$@",
    "$<TARGET_FILE:x>",
    "@CMAKE@",
    "KEEP(*(.x))",
    "INSERT AFTER .text;",
    "SECTIONS {",
    "MEMORY",
    "/DISCARD/",
    "define region x",
    "place in ROM",
    "LR_1 0",
    "-o",
    "--",
    "-Wl,-T",
    "../../../etc/passwd",
    "/dev/null",
    "CON",
    "nul",
    "while",
    "class",
    "int",
    "int8_t",
    "NULL",
    "main",
    "INT8_MIN",
    "_Bool",
    "errno",
    "asm",
    "template",
    "operator",
    "__cplusplus",
    "__attribute__((x))",
    "defined",
    "extern \"C\" {",
    "run",
    "arena",
    "inputs",
    "outputs",
    "kernel_dense_0",
    "hostile_run",
    "HOSTILE_H",
    "h",
    "size",
    "input",
    "INPUT",
    "Input",
    "input_2",
    "input_3",
    "x",
    "x_2",
    "X",
    "x;y",
    ";",
    ";;",
    "é",
    "ß",
    "日本語",
    "🙂",
    "\u{202e}",
    "\u{feff}",
    "\u{2028}",
    "ﬁ",
    "İ",
    "ı",
    "１",
    "a\u{301}",
    "0",
    "7",
    "0x7",
    "1e9",
    ".",
    "..",
    ".text",
    ".qspi",
    "_",
    "__",
    "___",
];

/// `count` names, all pieces alone and then together.
fn hostile(count: usize) -> Vec<String> {
    let mut names: Vec<String> = PIECES.iter().map(|piece| (*piece).to_owned()).collect();
    names.extend(["a".repeat(4000), "a".repeat(4001), "é".repeat(2000), "\"".repeat(300)]);
    let mut i = 0;
    while names.len() < count {
        let [a, b, c] = [7, 31, 101].map(|step| PIECES[i * step % PIECES.len()]);
        names.push(match i % 3 {
            0 => format!("{a}{b}"),
            1 => format!("{a}layer{b}/{c}"),
            _ => format!("{c}{a}{b}{}", i % 10),
        });
        i += 1;
    }
    names.truncate(count);
    names
}

/// What was made contains no more than names, and no command that a name held was run.
#[test]
fn of_tensors() {
    if !installed("hostile names", &["gcc", "g++"]) || !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return;
    }
    let directory = tools::directory("names of tensors");
    let names = hostile(1000);
    let quads: Vec<[String; 4]> = names
        .chunks_exact(4)
        .map(|four| four.to_vec().try_into().unwrap())
        .collect();
    fs::write(directory.join("hostile.tflite"), big_model::named(&quads)).unwrap();
    let build = |arguments: &[&str]| {
        let output = command(COREROPE)
            .current_dir(&directory)
            .args([
                "build",
                "hostile.tflite",
                "-o",
                "hostile.a",
                "--quiet",
                "-MD",
                "--report",
                "hostile.json",
            ])
            .args(["--linker", "gnu,iar,keil,ti"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", tools::text(&output));
    };
    build(&["--place", "kind=bias=.q"]);

    let archive = fs::read(directory.join("hostile.a")).unwrap();
    let file = object::read::archive::ArchiveFile::parse(&*archive).unwrap();
    let (mut symbols, mut parameters) = (BTreeSet::new(), 0);
    for member in file.members() {
        let object = object::File::parse(member.unwrap().data(&*archive).unwrap()).unwrap();
        for symbol in object.symbols().filter(|symbol| symbol.size() > 0) {
            let name = symbol.name().unwrap();
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.starts_with("hostile_") && name.chars().all(plain), "{name:?}");
            assert!(symbols.insert(name.to_owned()), "{name} is there twice");
        }
        for section in object.sections() {
            let name = section.name().unwrap();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            assert!(name.chars().all(plain), "{name:?}");
            parameters += usize::from(name.starts_with(".rodata.hostile.") || name == ".q");
        }
    }
    assert_eq!(parameters, 500, "weights and biases");

    // The header: 500 members and their macros, all of them distinct.
    let header = fs::read_to_string(directory.join("hostile.h")).unwrap();
    assert_eq!(header.matches("_ZERO_POINT ").count(), 500);
    fs::write(
        directory.join("main.c"),
        "#include \"hostile.h\"\n#include \"hostile.h\"\nint main(void) { return hostile_run(0, 0) == HOSTILE_OK; }\n",
    )
    .unwrap();
    let strict = ["-pedantic", "-Wall", "-Wextra", "-Werror"];
    run(
        &directory,
        "gcc",
        &[&["-std=c99", "-c", "main.c", "-o", "main.o"], &strict[..]].concat(),
    );
    run(
        &directory,
        "g++",
        &[&["-std=c++17", "-x", "c++", "-fsyntax-only", "main.c"], &strict[..]].concat(),
    );
    for linker in ["bfd", "lld"] {
        if linker == "lld" && !installed("hostile names with lld", &["ld.lld"]) {
            continue;
        }
        let select = format!("-fuse-ld={linker}");
        let arguments = [
            "main.o",
            "hostile.a",
            "-no-pie",
            "-static",
            &select,
            "-Wl,-T,hostile.ld",
            "-o",
            "main",
        ];
        run(&directory, "gcc", &arguments);
        run(&directory, COREROPE, &["check-link", "main", "hostile.json"]);
    }
    build(&["--place", "kind=bias=.q>Q", "--region", "Q=0x600000:64K"]);
    // In the other dialects: what is neither blank nor a comment is made of few characters.
    for extension in ["icf", "sct", "cmd"] {
        let text = fs::read_to_string(directory.join(format!("hostile.{extension}"))).unwrap();
        let code = if extension == "sct" {
            text.lines()
                .filter(|line| !line.starts_with(';'))
                .collect::<Vec<_>>()
                .join("\n")
        } else {
            let mut code = String::new();
            for (i, part) in text.split("/*").enumerate() {
                code += if i == 0 { part } else { part.split_once("*/").unwrap().1 };
            }
            code
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || " \n_.(){}[]:;=,*>+".contains(c);
        assert!(code.contains(".q") && code.chars().all(plain), "{extension}: {code}");
    }

    // Names are found by rules, whatever is in them, and one that is not there is told without harm.
    let glob = |name: &str| -> String {
        let quote = |c: char| {
            if "*?[&".contains(c) {
                format!("[{c}]")
            } else {
                c.to_string()
            }
        };
        name.chars().map(quote).collect()
    };
    let rules: Vec<String> = quads
        .iter()
        .skip(2)
        .step_by(25)
        .map(|[_, weights, ..]| weights)
        .map(|name| format!("name={}=.r", glob(name)))
        .collect();
    for rule in rules.iter().filter(|rule| !rule.starts_with("name==")) {
        build(&["--place", rule]);
    }
    let output = command(COREROPE)
        .current_dir(&directory)
        .args([
            "inspect",
            "hostile.tflite",
            "--place",
            "\x1b\x07$(touch pwned) `touch pwned` none*=.r",
        ])
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!tools::text(&output).contains('\x1b'), "{}", tools::text(&output));
    nothing_was_run(&directory);
}

fn nothing_was_run(directory: &Path) {
    let entries = fs::read_dir(directory).unwrap();
    for entry in entries {
        let name = entry.unwrap().file_name();
        assert!(name != "pwned", "a name was run as a command");
    }
}

/// Names of files: what a path may hold.
fn files() -> Vec<String> {
    let pieces = PIECES.iter().filter(|piece| !piece.contains('/'));
    pieces
        .enumerate()
        .map(|(i, piece)| format!("{piece}{i}{piece}.tflite"))
        .collect()
}

/// Characters that the makefile of a user, too, has no way to name.
fn unknown_to_make(name: &str) -> bool {
    name.contains(['\t', '\n', '\r', ';', '|', '=', '%']) || name.contains("))") || name.starts_with('~')
}

/// The dependency file that Make reads names the model, whatever it is called, or is refused.
#[test]
fn of_files_in_make() {
    if !installed("hostile names in Make", &["make", "sh"]) {
        return;
    }
    let directory = tools::directory("names of files");
    let model = fs::read(root().join("fixtures/sine_int8.tflite")).unwrap();
    let fragment = root().join("make/corerope.mk");
    let mut tried = 0;
    // Each takes a build and four runs of Make.
    for (i, name) in files().iter().enumerate().filter(|(i, _)| i % 3 != 2) {
        let folder = directory.join(format!("{i}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(name), &model).unwrap();
        // By the compiler's option alone.
        let output = command(COREROPE)
            .current_dir(&folder)
            .args(["build", "-o", "m.a", "-MD", "-MP", "--quiet", "--", name])
            .output()
            .unwrap();
        let refused = name.contains(['\n', '\r', ';']);
        assert_eq!(
            output.status.code(),
            Some(if refused { 2 } else { 0 }),
            "{name:?}: {}",
            tools::text(&output)
        );
        if refused || unknown_to_make(name) {
            nothing_was_run(&folder);
            continue;
        }
        // By the fragment, with the name as a user writes it in a makefile.
        let written = name.replace('$', "$$").replace('#', "\\#");
        let written = if name.starts_with([' ', '\t']) {
            format!("$(empty){written}")
        } else {
            written
        };
        let makefile = format!(
            "include m.d\nempty :=\nCOREROPE := {COREROPE}\nCOREROPE_DIR := out\nnet_MODEL := ./{written}\n\
             include {}\n$(eval $(call corerope_model,net))\n",
            fragment.display()
        );
        fs::write(folder.join("Makefile"), makefile).unwrap();
        let make = |target: &str| {
            let output = command("make")
                .current_dir(&folder)
                .args(["-r", target])
                .output()
                .unwrap();
            assert!(output.status.success(), "{name:?}: {}", tools::text(&output));
            tools::text(&output)
        };
        assert!(make("out/net.a").contains("build"), "{name:?}");
        assert!(!make("out/net.a").contains("build"), "{name:?}: built twice");
        let later = std::time::SystemTime::now();
        fs::File::options()
            .append(true)
            .open(folder.join(name))
            .unwrap()
            .set_modified(later)
            .unwrap();
        let dry = command("make")
            .current_dir(&folder)
            .args(["-rn", "out/net.a"])
            .output()
            .unwrap();
        assert!(tools::text(&dry).contains("build"), "{name:?}: not built again");
        tried += 1;
        nothing_was_run(&folder);
    }
    assert!(tried > 60, "{tried} names were tried");
}

/// CMake names all of them, but those that it has no way to hold in a list or in a dependency.
#[test]
fn of_files_in_cmake() {
    if !installed("hostile names in CMake", &["cmake", "ninja", "make", "gcc"]) {
        return;
    }
    let directory = tools::directory("names in cmake");
    let model = fs::read(root().join("fixtures/sine_int8.tflite")).unwrap();
    let mut lists = format!(
        "cmake_minimum_required(VERSION 3.20)\nproject(names C)\nset(COREROPE_EXECUTABLE [==[{COREROPE}]==])\n\
         find_package(corerope REQUIRED)\nadd_library(net STATIC main.c)\n"
    );
    let mut count = 0;
    for (i, name) in files().iter().enumerate().step_by(3) {
        if unknown_to_make(name)
            || name.contains(['[', ']', '\\', '"', '<', '>', '$', '#', '\t', '\x1b', '*', '?', ':'])
        {
            continue;
        }
        fs::write(directory.join(name), &model).unwrap();
        lists += &format!(
            "corerope_add_model(m{i} [==[{name}]==] NAME m{i} PLACE kind=weights=.q [==[kind=code|bias=.r]==])\n"
        );
        count += 1;
    }
    assert!(count > 20, "{count} names were tried");
    let names: Vec<&str> = lists
        .lines()
        .filter_map(|line| line.strip_prefix("corerope_add_model(")?.split(' ').next())
        .collect();
    let lists = format!("{lists}target_link_libraries(net PRIVATE {})\n", names.join(" "));
    fs::write(directory.join("CMakeLists.txt"), &lists).unwrap();
    let includes: String = names.iter().map(|name| format!("#include \"{name}.h\"\n")).collect();
    fs::write(directory.join("main.c"), includes).unwrap();
    let package = format!("-Dcorerope_DIR={}", root().join("cmake").display());
    for generator in ["Ninja", "Unix Makefiles"] {
        run(
            &directory,
            "cmake",
            &["-S", ".", "-B", generator, "-G", generator, &package],
        );
        run(&directory, "cmake", &["--build", generator]);
        let again = run(&directory, "cmake", &["--build", generator]);
        assert!(!again.contains("Compiling the network"), "{generator}: {again}");
    }
    nothing_was_run(&directory);
}
