//! The README's commands and files, as a reader would use them.
//!
//! A block whose language is followed by a file name is that file. A `console` block is a transcript: commands after
//! `$ `, then what they print; `COREROPE_BLESS=1` rewrites it. The commands of an `sh` block must succeed. All run in one
//! directory, which holds a copy of the fixtures and of what Make and CMake read; a heading of the third level starts a
//! new one with the same files.

use crate::cases::root;
use crate::tools::{self, COREROPE, command, installed};
use std::fs;
use std::path::Path;
use std::process::Output;

/// Commands of `sh` blocks that would run these tests from within themselves, or change the machine.
const NOT_HERE: &[&str] = &["tests/run.sh", "cargo bench", "cargo test", "cargo install"];

fn shell(directory: &Path, line: &str) -> Output {
    let line = line.replace("cargo run --release --", "corerope");
    let programs = Path::new(COREROPE).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = command("sh");
    shell
        .current_dir(directory)
        .args(["-c", &line])
        .env("PATH", format!("{}:{path}", programs.display()));
    shell
        .env_remove("MAKEFLAGS")
        .env_remove("CARGO_MAKEFLAGS")
        .output()
        .unwrap()
}

#[test]
fn commands_do_what_it_says() {
    let needed = ["sh", "gcc", "make", "cmake", "aarch64-linux-gnu-gcc", "qemu-aarch64"];
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) || !installed("the README's commands", &needed) {
        return;
    }
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for folder in ["fixtures", "fixtures/tvm", "tests/tvm/include/tvm/runtime"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.file_name().unwrap().to_str().unwrap();
                files.push((format!("{folder}/{name}"), fs::read(&path).unwrap()));
            }
        }
    }
    files.push((
        "digits.tflite".to_owned(),
        fs::read(root().join("fixtures/digits.tflite")).unwrap(),
    ));
    for file in [
        "make/corerope.mk",
        "cmake/corerope-config.cmake",
        "cmake/corerope-config-version.cmake",
    ] {
        files.push((file.to_owned(), fs::read(root().join(file)).unwrap()));
    }
    let fresh = |files: &[(String, Vec<u8>)]| {
        let directory = tools::directory("readme");
        for folder in ["fixtures/tvm", "tests/tvm/include/tvm/runtime", "make", "cmake"] {
            fs::create_dir_all(directory.join(folder)).unwrap();
        }
        files
            .iter()
            .for_each(|(name, bytes)| fs::write(directory.join(name), bytes).unwrap());
        directory
    };
    let directory = fresh(&files);

    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut actual = String::new();
    let mut lines = readme.lines().peekable();
    let mut commands = 0;
    while let Some(line) = lines.next() {
        actual.push_str(line);
        actual.push('\n');
        if line.starts_with("### ") {
            fresh(&files);
        }
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else {
            continue;
        };
        let mut block = Vec::new();
        while let Some(line) = lines.next_if(|line| *line != "```") {
            block.push(line);
        }
        let mut words = info.split(' ');
        match (words.next(), words.next()) {
            (Some("console"), None) => {
                for line in block.iter().filter_map(|line| line.strip_prefix("$ ")) {
                    let output = shell(&directory, line);
                    assert!(
                        output.status.success(),
                        "{line}: {}\n{}",
                        output.status,
                        tools::text(&output)
                    );
                    actual.push_str(&format!("$ {line}\n{}", tools::text(&output)));
                    commands += 1;
                }
                continue;
            }
            (Some("sh"), None) => {
                for line in block
                    .iter()
                    .filter(|line| !NOT_HERE.iter().any(|command| line.starts_with(command)))
                {
                    let output = shell(&directory, line);
                    assert!(
                        output.status.success(),
                        "{line}: {}\n{}",
                        output.status,
                        tools::text(&output)
                    );
                    commands += 1;
                }
            }
            (Some(_), Some(file)) => {
                let text: String = block.iter().map(|line| format!("{line}\n")).collect();
                fs::write(directory.join(file), &text).unwrap();
                files.push((file.to_owned(), text.into_bytes()));
            }
            _ => {}
        }
        block.iter().for_each(|line| actual.push_str(&format!("{line}\n")));
    }
    assert!(
        commands > 5,
        "the README has {commands} commands: its blocks are not found"
    );
    if std::env::var_os("COREROPE_BLESS").is_some() {
        fs::write(root().join("README.md"), actual).unwrap();
    } else {
        let line = (0..).zip(readme.lines().zip(actual.lines())).find(|(_, (a, b))| a != b);
        assert!(
            readme == actual,
            "README.md is not what its commands print (COREROPE_BLESS=1 rewrites it): {line:?}"
        );
    }
}

/// Every file and folder that the README's code map names is there.
#[test]
fn code_map_is_current() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut rooms = 0;
    for path in readme.split('`').skip(1).step_by(2).filter(|path| {
        ["src/", "tests/", "cmake/", "make/", "examples/"]
            .iter()
            .any(|top| path.starts_with(top))
    }) {
        assert!(root().join(path).exists(), "README.md names {path}, which is not there");
        rooms += 1;
    }
    assert!(rooms > 5, "README.md names {rooms} paths: its code map is not found");
}
