//! `corerope`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    corerope::cli::main()
}
