//! Inputs that come row by row, from a callback that may fail. That the outputs are right is for the boards' tests.

use crate::cases::root;
use crate::linking::{build, host};
use crate::matrix::WARNINGS;
use crate::tools::{installed, run};

#[test]
fn rows_that_fail() {
    if !host() || !installed("inputs by rows", &["gcc"]) {
        return;
    }
    let source = root().join("tests/c/feed.c");
    let files = ["-std=c99", "-I.", source.to_str().unwrap(), "digits.a", "-o", "feed"];
    for goal in ["ram", "speed"] {
        let directory = build(&format!("feed-{goal}"), "a", &["--input", "rows", "--optimize", goal]);
        run(&directory, "gcc", &[&files[..], WARNINGS].concat());
        run(&directory, directory.join("feed").to_str().unwrap(), &[] as &[&str]);
    }
}
