//! Transcripts of the command line: `tests/cli/*.txt`.
//!
//! A line `$ corerope …` is run in the crate's root; what follows is what it prints, standard output first, and the
//! exit code where that is not 0. `OUT` is a directory for the file's outputs: a command that fails must leave nothing
//! new in it. `COREROPE_BLESS=1` rewrites the transcripts.

use crate::cases::root;
use crate::tools::{self, COREROPE, command};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Every file of a directory, recursively, with its contents.
pub fn snapshot(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Runs all commands of a transcript and returns what it should say.
fn replay(name: &str, transcript: &str) -> String {
    let out = tools::directory(&format!("cli-{name}"));
    let path = out.to_str().unwrap();
    let mut text = String::new();
    let mut in_output = false;
    for line in transcript.lines() {
        let Some(arguments) = line.strip_prefix("$ ") else {
            if !in_output {
                text.push_str(line);
                text.push('\n');
            }
            in_output &= !(line.starts_with('[') && line.ends_with(']') && line.len() == 3);
            continue;
        };
        in_output = true;
        if !text.is_empty() && !text.ends_with("\n\n") {
            text.push('\n');
        }
        let mut words = arguments.split(' ').map(|word| match word.strip_prefix("OUT") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{path}{rest}"),
            _ => word.to_owned(),
        });
        assert_eq!(words.next().as_deref(), Some("corerope"), "{line}");
        let before = snapshot(&out);
        let output = command(COREROPE).current_dir(root()).args(words).output().unwrap();
        let said = tools::text(&output).replace(path, "OUT");
        let code = output.status.code();
        assert!(
            matches!(code, Some(0..=2)) && !said.contains("panicked"),
            "{line}: {:?}\n{said}",
            output.status
        );
        if code != Some(0) {
            assert!(snapshot(&out) == before, "{line} failed and left files behind");
            assert!(output.stdout.is_empty(), "{line} failed and wrote to standard output");
        }
        text.push_str(&format!("$ {arguments}\n"));
        for line in said.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push_str(&format!("[{}]\n", code.unwrap_or(-1)));
    }
    text
}

fn check(name: &str) {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return tools::skip(
            "transcripts of the command line: they were made on x86-64 Linux, the default target there",
        );
    }
    let path = root().join(format!("tests/cli/{name}.txt"));
    let expected = fs::read_to_string(&path).unwrap();
    let actual = replay(name, &expected);
    if std::env::var_os("COREROPE_BLESS").is_some() {
        fs::write(path, actual).unwrap();
    } else if actual != expected {
        let mut message = String::new();
        for line in diff(&expected, &actual) {
            message.push_str(&line);
            message.push('\n');
        }
        panic!("tests/cli/{name}.txt differs (COREROPE_BLESS=1 rewrites it):\n{message}");
    }
}

/// Lines that are only in one of two texts, `-` or `+`, by the longest common subsequence.
fn diff(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let mut common = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            let skip = common[i + 1][j].max(common[i][j + 1]);
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                skip
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            lines.push(format!("-{}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+{}", new[j]));
            j += 1;
        }
    }
    lines
}

/// What is on the command line, and what cannot be written.
#[test]
fn usage() {
    check("usage");
}

/// What newcomers read.
#[test]
fn params() {
    check("params");
}

#[test]
fn help() {
    check("help");
}

/// Every broken model, with the exact message.
#[test]
fn malformed() {
    let transcript = fs::read_to_string(root().join("tests/cli/malformed.txt")).unwrap();
    for entry in fs::read_dir(root().join("fixtures/malformed")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            transcript.contains(&format!("fixtures/malformed/{name} ")),
            "malformed.txt does not build {name}"
        );
    }
    check("malformed");
}

/// Reports of builds and inspections.
#[test]
fn takeovers() {
    check("tvm");
}

#[test]
fn reports() {
    check("reports");
}

#[test]
fn schedules() {
    check("schedules");
}

/// A disk that is full half way: the error says so, nothing new is left, and what was there stays.
#[test]
fn full_disk() {
    if !tools::installed("a full disk", &["sh"]) {
        return;
    }
    let out = tools::directory("full-disk");
    for (name, old) in [("new.a", None), ("old.a", Some("what was there"))] {
        if let Some(text) = old {
            fs::write(out.join(name), text).unwrap();
        }
        let before = snapshot(&out);
        let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"";
        let model = root().join("fixtures/mobilenet025.tflite");
        let mut shell = command("sh");
        shell
            .current_dir(&out)
            .args(["-c", script, COREROPE, "build"])
            .arg(model)
            .args(["-o", name]);
        let output = shell.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", tools::text(&output));
        assert!(
            tools::text(&output).contains("File too large"),
            "{}",
            tools::text(&output)
        );
        assert!(snapshot(&out) == before, "{name}: files were left behind or changed");
    }
}

/// Standard output that nobody reads to its end is no failure of the program's.
#[test]
fn closed_pipe() {
    if !tools::installed("a closed pipe", &["bash", "true"]) {
        return;
    }
    let script = format!("'{COREROPE}' inspect fixtures/mobilenet025.tflite | true; exit ${{PIPESTATUS[0]}}");
    let output = command("bash")
        .current_dir(root())
        .args(["-c", &script])
        .output()
        .unwrap();
    assert!(!tools::text(&output).contains("panicked"), "{}", tools::text(&output));
}

/// Colours are for terminals.
#[test]
fn no_colours_in_pipes() {
    for arguments in [
        &["inspect", "fixtures/sine_int8.tflite"][..],
        &["build", "missing.tflite", "-o", "x.a"],
        &["--help"],
    ] {
        let output = command(COREROPE)
            .env_remove("NO_COLOR")
            .current_dir(root())
            .args(arguments)
            .output()
            .unwrap();
        assert!(!tools::text(&output).contains('\x1b'), "{arguments:?}");
    }
}
