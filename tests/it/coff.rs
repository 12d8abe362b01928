//! The Windows archive: linked by MinGW's ld and by lld, run under wine.

use crate::cases;
use crate::matrix;
use crate::tools::{self, command, installed, run};
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::{Mutex, PoisonError};

const MINGW: &str = "x86_64-w64-mingw32-";

/// Runs a program under wine, with a prefix of its own, one at a time: the first makes the prefix.
fn wine(directory: &Path, arguments: &[&str]) -> Output {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut wine = command("wine");
    wine.current_dir(directory)
        .env("WINEDEBUG", "-all")
        .env("WINEDLLOVERRIDES", "mscoree,mshtml=");
    wine.env("WINEPREFIX", Path::new(env!("CARGO_TARGET_TMPDIR")).join("wine"))
        .env_remove("DISPLAY");
    wine.args(arguments).output().unwrap()
}

/// Every model, linked by MinGW's gcc and ld.
#[test]
fn mingw() {
    if !installed(
        "COFF with MinGW",
        &[
            "x86_64-w64-mingw32-gcc",
            "x86_64-w64-mingw32-g++",
            "x86_64-w64-mingw32-nm",
        ],
    ) {
        return;
    }
    let directory = tools::directory("coff-mingw");
    let (built, mut failures) = matrix::build_all(&directory, &["--target", "x86_64-pc-windows-gnu"], "lib");
    let archives: Vec<String> = built.iter().map(|b| format!("{}.lib", b.id)).collect();
    let symbols = run(
        &directory,
        "x86_64-w64-mingw32-nm",
        &[&["-A".to_owned()], &archives[..]].concat(),
    );
    failures.extend(matrix::undefined(&symbols));
    matrix::write_glue(&directory, &built);
    let program = matrix::link(&directory, MINGW, &archives);
    if installed("COFF programs", &["wine"]) {
        let output = wine(&directory, &[&program, "in", "out"]);
        failures.extend(matrix::judge(&directory, &built, &output));
    }
    matrix::report("coff", built.len(), &failures);
}

/// A program without a C library, linked by lld-link: its exit code says whether the result is right.
#[test]
fn lld_link() {
    if !installed("COFF with lld-link", &["x86_64-w64-mingw32-gcc", "lld-link"]) {
        return;
    }
    let directory = tools::directory("coff-lld");
    let case = cases::fixtures()
        .into_iter()
        .find(|case| case.name == "digits")
        .unwrap();
    let set = &case.sets[0];
    let model = case.model.to_str().unwrap();
    let target = ["--target", "x86_64-pc-windows-msvc"];
    run(
        &directory,
        tools::COREROPE,
        &[&["build", model, "-o", "digits.lib", "--name", "digits"], &target[..]].concat(),
    );
    let list = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|&b| (b as i8).to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let source = format!(
        "#include \"digits.h\"\n\
         int _fltused;\n\
         static const int8_t image[] = {{{}}}, expected[] = {{{}}};\n\
         static int8_t result[sizeof expected];\n\
         int start(void);\n\
         int start(void) {{\n    \
             const void *in[] = {{image}};\n    \
             void *out[] = {{result}};\n    \
             unsigned i;\n    \
             if (digits_run((const struct digits_inputs *)(const void *)in, (const struct digits_outputs *)(const void *)out))\n        \
                 return 3;\n    \
             for (i = 0; i < sizeof expected; i++)\n        \
                 if (result[i] != expected[i])\n            \
                     return 4;\n    \
             return 42;\n}}\n",
        list(&set.inputs[0]),
        list(&set.outputs[0])
    );
    fs::write(directory.join("start.c"), source).unwrap();
    run(
        &directory,
        "x86_64-w64-mingw32-gcc",
        &["-std=c99", "-O1", "-c", "start.c", "-o", "start.obj"],
    );
    let options = [
        "/entry:start",
        "/subsystem:console",
        "/nodefaultlib",
        "/out:start.exe",
        "start.obj",
        "digits.lib",
    ];
    run(&directory, "lld-link", &options);
    if installed("COFF programs", &["wine"]) {
        let output = wine(&directory, &["start.exe"]);
        assert_eq!(output.status.code(), Some(42), "{}", tools::text(&output));
    }
}
