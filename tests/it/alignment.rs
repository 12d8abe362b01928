//! Accesses to memory that are not at a multiple of their size: emulators of RISC-V allow them, small cores trap or
//! emulate them slowly. A plugin of QEMU reports them.

use crate::cases::root;
use crate::tools::{installed, run, skip};
use object::Object;
use std::fs;
use std::path::Path;

/// Builds the plugin in `directory` for an emulator; its path, if there can be one.
pub fn plugin(directory: &Path, qemu: &str) -> Option<String> {
    if !run(directory, qemu, &["-help"]).contains("-plugin ") {
        skip(&format!("alignment of accesses: {qemu} is built without plugins"));
        return None;
    }
    if !installed("alignment of accesses", &["gcc"]) {
        return None;
    }
    let source = root().join("tests/firmware/aligned.c");
    let flags = [
        "-shared",
        "-fPIC",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        "aligned.so",
    ];
    run(directory, "gcc", &[&flags[..], &[source.to_str().unwrap()]].concat());
    Some("./aligned.so".to_owned())
}

/// What the plugin reported of `program`, by function. The program makes one such access itself, in `misalign`, so that
/// silence is known to be no failure of the plugin.
pub fn misaligned(directory: &Path, program: &str, text: &str) -> Vec<String> {
    let bytes = fs::read(directory.join(program)).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbols = file.symbol_map();
    let mut failures = Vec::new();
    let mut provoked = false;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("MISALIGNED 0x") else {
            continue;
        };
        let (address, function) = rest.split_once(' ').unwrap();
        let address = u64::from_str_radix(address, 16).unwrap();
        let known = symbols.containing(address).map(|symbol| symbol.name());
        let function = if function == "?" {
            known.unwrap_or("?")
        } else {
            function
        };
        if function == "misalign" {
            provoked = true;
        } else {
            failures.push(format!("{function}: an access that is not aligned at {address:#x}"));
        }
    }
    if !provoked {
        failures.push("the plugin does not see the access that is made for it".to_owned());
    }
    failures
}
