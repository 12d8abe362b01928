//! Damaged models through the whole pipeline: an error or an object, never a panic. What is accepted also runs through
//! the passes, the planner's checker and Cranelift's verifier.

use crate::cases::root;
use corerope::build::{Options, compile};
use corerope::data::Source;
use corerope::target::Target;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const TARGETS: [&str; 4] = [
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "riscv64gc-unknown-linux-gnu",
    "x86_64-pc-windows-gnu",
];

/// Mutants of each model. `COREROPE_MUTANTS` asks for more.
const MUTANTS: u64 = 600;

/// Knuth's MMIX generator: the high half of the state.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}

#[test]
fn never_a_panic() {
    let count = std::env::var("COREROPE_MUTANTS").map_or(MUTANTS, |n| n.parse().unwrap());
    let mut accepted = 0;
    let mut refused = 0;
    for model in ["sine_int8", "clip_float", "views_int8", "ports", "names"] {
        let whole = fs::read(root().join(format!("fixtures/{model}.tflite"))).unwrap();
        for seed in 0..count {
            let mut random = Random(seed);
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(bytes.len());
                match random.below(5) {
                    0 => bytes[at] = random.below(256) as u8,
                    1 => bytes[at] ^= 1 << random.below(8),
                    2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                    // A word: offsets, indices, dimensions.
                    3 => {
                        let at = at.min(bytes.len() - 4) / 4 * 4;
                        let word = [0, 1, u32::MAX, i32::MAX as u32, 1 << 16, 7][random.below(6)];
                        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
                    }
                    _ => bytes.truncate(at.max(8)),
                }
                if bytes.len() < 16 {
                    break;
                }
            }
            let target = Target::new(Some(TARGETS[seed as usize % TARGETS.len()]), None, None).unwrap();
            let options = Options::new(target, model);
            let source = Arc::new(Source::Memory(bytes));
            let result = catch_unwind(AssertUnwindSafe(|| {
                compile(source, &options, &mut |_, _| {}).map(|_| ())
            }));
            match result {
                Ok(Ok(())) => accepted += 1,
                Ok(Err(error)) => {
                    assert!(
                        error.code != corerope::error::Code::Internal,
                        "{model}, seed {seed}: {error}"
                    );
                    assert!(
                        !error.message.is_empty() && !error.message.ends_with('.'),
                        "{model}, seed {seed}: {error}"
                    );
                    refused += 1;
                }
                Err(_) => panic!("mutant {seed} of {model} made the pipeline panic"),
            }
        }
    }
    println!("{accepted} mutants accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}
