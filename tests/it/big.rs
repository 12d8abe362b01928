//! A model that is larger than the memory the build may use.

use crate::tools::{self, COREROPE, command};
use std::fs::File;
use std::io::BufWriter;

#[path = "../support/big_model.rs"]
pub mod big_model;

/// 131 MB of parameters, built with 64 MB for everything that is not the mapped file.
#[test]
fn parameters_are_streamed() {
    if !tools::installed("a bound on memory", &["sh"]) {
        return;
    }
    let directory = tools::directory("big");
    let widths = [4096, 4000, 4096, 4000, 4096, 4000, 4096, 4000, 4096];
    let mut file = BufWriter::new(File::create(directory.join("big.tflite")).unwrap());
    big_model::write(&mut file, &widths).unwrap();
    let mut shell = command("sh");
    shell
        .current_dir(&directory)
        .args(["-c", "ulimit -d 65536; exec \"$0\" \"$@\"", COREROPE]);
    let output = shell.args(["build", "big.tflite", "-o", "big.a"]).output().unwrap();
    assert!(output.status.success(), "{}", tools::text(&output));
    let size = directory.join("big.a").metadata().unwrap().len();
    assert!(
        (131_072_000..132_500_000).contains(&size),
        "the archive has {size} bytes"
    );
    std::fs::remove_dir_all(directory).unwrap();
}
