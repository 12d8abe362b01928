//! `corerope verify`: compiled code against the evaluator, layer by layer.

use crate::cases::{self, root};
use crate::tools::{self, COREROPE, command};

/// Every fixture, and the shared models where they are.
#[test]
fn every_model() {
    let mut failures = Vec::new();
    let shared = cases::shared()
        .into_iter()
        .filter(|case| case.model.parent().is_some_and(|p| p.ends_with("models")));
    for case in cases::fixtures().into_iter().chain(shared) {
        let output = command(COREROPE)
            .current_dir(root())
            .arg("verify")
            .arg(&case.model)
            .output()
            .unwrap();
        if !output.status.success() {
            failures.push(format!("{}: {}\n{}", case.name, output.status, tools::text(&output)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
