//! The example firmware, built by CMake and by Make in a folder with spaces, and run under QEMU; and what is built again
//! when something has changed.

use crate::cases::root;
use crate::tools::{self, COREROPE, command, installed};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::SystemTime;

const TOOLS: [&str; 3] = ["arm-none-eabi-gcc", "arm-none-eabi-objcopy", "qemu-system-arm"];

/// The example with all that it refers to, in a folder of its own; where it is.
fn copy(name: &str) -> PathBuf {
    let directory = tools::directory(name);
    for folder in ["examples", "linker-scripts", "cmake", "make"] {
        copy_all(&root().join(folder), &directory.join(folder));
    }
    fs::create_dir(directory.join("fixtures")).unwrap();
    fs::copy(
        root().join("fixtures/digits.tflite"),
        directory.join("fixtures/digits.tflite"),
    )
    .unwrap();
    directory.join("examples/mps2-an500")
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// Runs a program, with corerope on its path.
fn output(directory: &Path, program: &str, arguments: &[&str]) -> Output {
    let programs = Path::new(COREROPE).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = command(program);
    command.current_dir(directory).args(arguments).env("PATH", path);
    command.env_remove("MAKEFLAGS").env_remove("CARGO_MAKEFLAGS");
    command.output().unwrap()
}

/// The same for one that must succeed; what it says.
fn said(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let output = output(directory, program, arguments);
    let text = tools::text(&output);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{text}",
        output.status
    );
    text
}

/// Makes a file newer than all that was built from it.
fn touch(path: &Path) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now()).unwrap();
}

/// Builds by `build`, which returns what it says, until nothing is left to do, with changes in between.
fn rebuild(example: &Path, build: &dyn Fn() -> String, compiled: &str, linked: &str, idle: &str) {
    let does = |what: &str| {
        let text = build();
        assert!(!text.to_lowercase().contains("warning"), "{what}: {text}");
        (text.contains(compiled), text.contains(linked), text)
    };
    let (network, program, text) = does("first");
    assert!(network && program, "{text}");
    let nothing = |when: &str| {
        let (network, program, text) = does(when);
        assert!(!network && !program && text.contains(idle), "{when}: {text}");
    };
    nothing("nothing changed");
    // The model is newer and the same: it is compiled, and nothing is linked for it.
    let model = example.join("../../fixtures/digits.tflite");
    touch(&model);
    let (network, program, text) = does("the model was touched");
    assert!(network && !program, "{text}");
    nothing("behind a touched model");
    // The place file is another: the weights are aligned otherwise.
    let rules = example.join("memory.toml");
    let text = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, text.replace("align = 32", "align = 64")).unwrap();
    let (network, program, text) = does("the place file was changed");
    assert!(network && program, "{text}");
    nothing("behind a changed place file");
}

#[test]
fn cmake() {
    for (generator, program, idle) in [
        ("Ninja", "ninja", "no work to do"),
        ("Unix Makefiles", "make", "Built target"),
    ] {
        if !installed(
            &format!("the CMake package with {generator}"),
            &[&TOOLS[..], &["cmake", program]].concat(),
        ) {
            continue;
        }
        let example = copy(&format!("cmake with {program}"));
        let configure = [
            "-S",
            ".",
            "-B",
            "b d",
            "-G",
            generator,
            "--toolchain",
            "toolchain.cmake",
        ];
        said(
            &example,
            "cmake",
            &[&configure[..], &["-Dcorerope_DIR=../../cmake"]].concat(),
        );
        let build = || said(&example, "cmake", &["--build", "b d"]);
        rebuild(&example, &build, "Compiling the network", "Linking", idle);
        let run = said(&example, "cmake", &["--build", "b d", "--target", "run"]);
        assert!(run.contains("it is a 7"), "{run}");
    }
}

/// Found where `cmake --install` puts it, and refusing what it cannot build.
#[test]
fn cmake_package() {
    if !installed("the CMake package", &["cmake", "ninja", "gcc"]) || !cfg!(target_os = "linux") {
        return;
    }
    let example = copy("cmake package");
    let top = example.join("../..");
    said(&top, "cmake", &["-S", "cmake", "-B", "package", "-G", "Ninja"]);
    said(&top, "cmake", &["--install", "package", "--prefix", "installed here"]);
    assert!(top.join("installed here/share/corerope/corerope.mk").exists());
    let prefix = format!("-DCMAKE_PREFIX_PATH={}", top.join("installed here").display());
    let project = top.join("project");
    fs::create_dir(&project).unwrap();
    fs::write(
        project.join("main.c"),
        "#include \"digits.h\"\nint main(void) { return DIGITS_OK; }\n",
    )
    .unwrap();
    let lists = |arguments: &str| {
        let text = format!(
            "cmake_minimum_required(VERSION 3.20)\nproject(p C)\nfind_package(corerope 0.1 REQUIRED)\n\
             corerope_add_model(net ../fixtures/digits.tflite {arguments})\n\
             add_executable(p main.c)\ntarget_link_libraries(p net)\ncorerope_check_link(p net)\n"
        );
        fs::write(project.join("CMakeLists.txt"), text).unwrap();
    };
    lists("PLACE kind=weights&size>1K=.big IO pointers OPTIONS --optimize speed");
    said(&project, "cmake", &["-S", ".", "-B", "b", "-G", "Ninja", &prefix]);
    // Nothing of the model is called: the check says so, and the build fails.
    let failed = output(&project, "cmake", &["--build", "b"]);
    assert!(
        tools::text(&failed).contains("nothing of what was built is in the program"),
        "{}",
        tools::text(&failed)
    );
    assert!(!failed.status.success());
    let call = "#include \"digits.h\"\nint main(void) { return digits_run(0, 0) == DIGITS_OK; }\n";
    fs::write(project.join("main.c"), call).unwrap();
    said(&project, "cmake", &["--build", "b"]);

    for (arguments, expected) in [
        ("PLCAE x", "unknown argument"),
        ("NAME", "no value for NAME"),
        ("NAME a-b", "is no identifier"),
        ("LINKER gold", "is not one of gnu, iar, keil, ti"),
    ] {
        lists(arguments);
        let refused = output(&project, "cmake", &["-S", ".", "-B", "b2", "-G", "Ninja", &prefix]);
        assert!(
            !refused.status.success() && tools::text(&refused).contains(expected),
            "{arguments}: {}",
            tools::text(&refused)
        );
    }
}

#[test]
fn make() {
    if !installed("the fragment for Make", &[&TOOLS[..], &["make"]].concat()) {
        return;
    }
    let example = copy("make with spaces");
    // The model's path has one too.
    let spaced = example.join("../../my models");
    fs::create_dir(&spaced).unwrap();
    std::os::unix::fs::symlink("../fixtures/digits.tflite", spaced.join("my digits.tflite")).unwrap();
    let model = "MODEL=../../my models/my digits.tflite";
    rebuild(
        &example,
        &|| said(&example, "make", &["--no-print-directory", model]),
        "corerope build",
        "-nostartfiles",
        "",
    );
    assert!(said(&example, "make", &["run", model]).contains("it is a 7"));
    // Other options: another build.
    let options = "digits_OPTIONS=--target thumbv7em-none-eabihf --cpu cortex-m7 --place-file memory.toml --io arena";
    let dry = said(&example, "make", &["build-make/digits.a", model, options]);
    assert!(dry.contains("corerope build") && dry.contains("--io arena"), "{dry}");
}
