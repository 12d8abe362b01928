//! The programs that the tests run, and what to do where they are not installed.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program under test.
pub const COREROPE: &str = env!("CARGO_BIN_EXE_corerope");

/// Notes that something was not tested, for `tests/run.sh` to print.
pub fn skip(what: &str) {
    eprintln!("skipped: {what}");
    if let Some(path) = std::env::var_os("COREROPE_SKIPPED") {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{what}").unwrap();
    }
}

/// Whether all `programs` are installed; skips `what` if not.
pub fn installed(what: &str, programs: &[&str]) -> bool {
    let paths: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| !Path::new(program).is_absolute() && !paths.iter().any(|path| path.join(program).is_file()))
        .collect();
    if !missing.is_empty() {
        skip(&format!("{what}: not installed: {}", missing.join(", ")));
    }
    missing.is_empty()
}

/// An empty directory for one test, kept afterwards for who has to look.
pub fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// A command without what the caller's environment would change in its output.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("RUST_LOG")
        .env_remove("RUST_BACKTRACE")
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100");
    command.env("LC_ALL", "C.UTF-8").env("SOURCE_DATE_EPOCH", "0");
    command
}

/// Runs a command and returns what it printed; panics with everything if it fails.
pub fn run<A: AsRef<OsStr> + Debug>(directory: &Path, program: &str, arguments: &[A]) -> String {
    let output = command(program).current_dir(directory).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "in {}: {program} {arguments:?}: {}\n{}",
        directory.display(),
        output.status,
        text(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Both streams, standard output first.
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
