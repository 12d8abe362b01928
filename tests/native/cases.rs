//! Functions in text under `tests/native/cases`: each on every board, against this machine. Those that once came out
//! wrong, and one for each rule that takes several instructions together.
//!
//! A file holds functions `u0:0`, `u0:1`, … that may call one another. The first parameter is a pointer to the buffer
//! (`ptr`), whose bytes from 192 are for loads and stores. A line `; boards: PREFIX` keeps to boards of that prefix.

use crate::board::{BOARDS, Board, Isa};
use crate::differential::{difference, inputs};
use crate::program::Program;
use crate::{installed, text};
use corerope::codegen::thumb2::Core;
use std::path::Path;

/// A file's functions as programs.
fn programs(text: &str) -> Vec<Program> {
    let mut functions: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("function") {
            functions.push(String::new());
        }
        if let Some(function) = functions.last_mut() {
            function.push_str(line);
            function.push('\n');
        }
    }
    functions
        .into_iter()
        .map(|text| {
            let (params, results) = text::types_of(&text);
            Program {
                seed: 0,
                params,
                results,
                text: Some(text),
                slots: Vec::new(),
                steps: Vec::new(),
                mixed: 0,
                floats: true,
                cost: 0,
            }
        })
        .collect()
}

/// Whether a board has what a file needs.
fn fits(board: &Board, text: &str) -> bool {
    let prefixes: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("; boards: "))
        .collect();
    let intrinsics = text.contains("= %") && text.contains("fn0");
    let dsp = matches!(board.isa, Isa::Thumb2(Core { dsp: true, .. }));
    let fused = text.contains("= fma") || text.contains("= sqrt");
    (prefixes.is_empty() || prefixes.iter().any(|prefix| board.name.starts_with(prefix)))
        && (dsp || !intrinsics)
        && (board.isa.options().fused || !fused)
}

#[test]
fn functions_in_text() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/cases");
    let entries = std::fs::read_dir(directory).expect("the cases");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let inputs: Vec<_> = (0..8).flat_map(inputs).collect();
    for board in BOARDS.iter().filter(|board| installed(board)) {
        let mut names = Vec::new();
        let mut all: Vec<Program> = Vec::new();
        for file in &files {
            let text = std::fs::read_to_string(file).expect("a readable case");
            if !fits(board, &text) {
                continue;
            }
            // Functions are numbered from 0 in each file.
            let start = all.len();
            for mut program in programs(&text) {
                let text = program.text.take().expect("a function in text");
                program.text = Some(renumbered(&text, start));
                names.push(file.file_name().expect("a file").to_string_lossy().into_owned());
                all.push(program);
            }
        }
        if let Some((program, input, what)) = difference(board, &all, &inputs) {
            panic!("{}: {}, input {input}: {what}", board.name, names[program]);
        }
    }
}

/// The text with `start` added to the numbers of functions.
fn renumbered(text: &str, start: usize) -> String {
    let mut parts = text.split("u0:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let number: usize = part[..digits].parse().expect("the number of a function");
        out += &format!("u0:{}{}", number + start, &part[digits..]);
    }
    out
}
