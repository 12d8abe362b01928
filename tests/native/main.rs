//! Our own back ends, held against Cranelift's on this machine, on emulated boards.
//!
//! What is not installed is skipped, and said so.

mod board;
mod build;
mod cases;
mod costs;
mod differential;
mod generate;
mod host;
mod program;
mod random;
mod spell;
mod text;

/// Whether a board can be emulated here.
fn installed(board: &board::Board) -> bool {
    let missing = board.missing();
    if missing.is_empty() {
        return true;
    }
    let text = format!("skipped: {}: not installed: {}", board.name, missing.join(", "));
    eprintln!("{text}");
    if let Ok(path) = std::env::var("COREROPE_SKIPPED") {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .expect("a writable list");
        writeln!(file, "{text}").expect("a writable list");
    }
    false
}
