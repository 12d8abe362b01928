//! Whatever a file holds, reading it ends with a graph that is proven or with an error: no panic, no endless loop.

use super::build::{Model, Options, float, int8, ints, op, weights};
use super::schema::{ActivationFunctionType as A, BuiltinOperator as B, Padding as P};
use super::*;
use crate::graph::verify;

/// A model with most kinds of operators.
fn model() -> Model {
    Model::new(
        [
            int8("x", &[1, 6, 6, 2]),
            weights("w", &[4, 3, 3, 2], 4, 0),
            ints("b", &[4], &[0; 4]).quantized(&[1.0 / 128.0, 2.0 / 128.0, 3.0 / 128.0, 4.0 / 128.0], &[0; 4], 0),
            int8("conv", &[1, 3, 3, 4]),
            weights("dw", &[1, 2, 2, 4], 4, 3),
            int8("depthwise", &[1, 3, 3, 4]),
            int8("pool", &[1, 2, 2, 4]),
            int8("sum", &[1, 2, 2, 4]),
            ints("amounts", &[4, 2], &[0, 0, 0, 1, 1, 0, 0, 0]),
            int8("pad", &[1, 3, 3, 4]),
            int8("concat", &[1, 3, 3, 8]),
            ints("axes", &[2], &[1, 2]),
            int8("mean", &[1, 8]),
            weights("fc", &[3, 8], 3, 0),
            int8("dense", &[1, 3]),
            ints("shape", &[2], &[3, -1]),
            int8("reshape", &[3, 1]),
            int8("softmax", &[3, 1]).quantized(&[1.0 / 256.0], &[-128], 0),
            float("real", &[3, 1]),
            ints("order", &[2], &[1, 0]),
            float("turned", &[1, 3]),
            float("sum", &[1, 3]),
            float("y", &[1, 1]),
        ],
        [
            op(
                B::CONV_2D,
                &[0, 1, 2],
                &[3],
                Options::Conv(P::SAME, [2, 2], [1, 1], A::RELU6),
            ),
            op(
                B::DEPTHWISE_CONV_2D,
                &[3, 4, -1],
                &[5],
                Options::Depthwise(P::SAME, [1, 1], 1, A::NONE),
            ),
            op(
                B::MAX_POOL_2D,
                &[5],
                &[6],
                Options::Pool(P::VALID, [2, 2], [1, 1], A::NONE),
            ),
            op(B::ADD, &[6, 6], &[7], Options::Add(A::RELU)),
            op(B::PAD, &[7, 8], &[9], Options::None),
            op(B::CONCATENATION, &[9, 5], &[10], Options::Concat(-1, A::NONE)),
            op(B::MEAN, &[10, 11], &[12], Options::Reducer(false)),
            op(
                B::FULLY_CONNECTED,
                &[12, 13],
                &[14],
                Options::FullyConnected(false, true),
            ),
            op(B::RESHAPE, &[14, 15], &[16], Options::Reshape(&[3, 1])),
            op(B::SOFTMAX, &[16], &[17], Options::Softmax(1.0)),
            op(B::DEQUANTIZE, &[17], &[18], Options::None),
            op(B::TRANSPOSE, &[18, 19], &[20], Options::None),
            op(B::ADD_N, &[20, 20, 20], &[21], Options::None),
            op(B::BATCH_MATMUL, &[21, 18], &[22], Options::BatchMatMul(false, false)),
        ],
    )
}

/// Values that break programs.
const WORDS: [u32; 12] = [
    0,
    1,
    2,
    4,
    127,
    255,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_ffff,
    0x7fc0_0000,
];

struct Tally {
    accepted: usize,
    refused: usize,
}

impl Tally {
    fn take(&mut self, bytes: Vec<u8>) {
        // A user's shape makes every shape behind it inferred: the other half of the code.
        for shapes in [&[][..], &[("x", &[2_usize, 7, 5, 2][..])]] {
            match read_bytes(bytes.clone(), shapes) {
                Ok(graph) => {
                    self.accepted += 1;
                    verify::verify(&graph).expect("what is read is verified");
                    text::print(&graph);
                }
                Err(error) => {
                    self.refused += 1;
                    assert_ne!(error.code, crate::error::Code::Internal, "{error}");
                    assert!(!error.message.is_empty());
                }
            }
        }
    }

    /// Every byte and every word once, and `pairs` times two words at random places.
    fn all(&mut self, good: &[u8], step: usize, pairs: usize) {
        let change = |bytes: &mut Vec<u8>, at: usize, word: u32| {
            let at = at.min(bytes.len() - 4);
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        };
        for at in (0..good.len()).step_by(step) {
            for bit in [0x01, 0x80, 0xff] {
                let mut bytes = good.to_vec();
                bytes[at] ^= bit;
                self.take(bytes);
            }
        }
        for at in (0..good.len() - 4).step_by(4 * step) {
            for word in WORDS {
                let mut bytes = good.to_vec();
                change(&mut bytes, at, word);
                self.take(bytes);
            }
        }
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..pairs {
            let mut bytes = good.to_vec();
            for _ in 0..2 {
                // Another word of the file is more often a sensible value.
                let at = random(good.len() / 4 - 1) * 4;
                let from = random(good.len() / 4 - 1) * 4;
                let word = u32::from_le_bytes([good[from], good[from + 1], good[from + 2], good[from + 3]]);
                change(
                    &mut bytes,
                    at,
                    if random(4) == 0 {
                        WORDS[random(WORDS.len())]
                    } else {
                        word
                    },
                );
            }
            self.take(bytes);
        }
    }
}

#[test]
fn changed_files_never_panic() {
    let model = model();
    read_with(&model, &[]).expect("unchanged, it is read");
    read_with(&model, &[("x", &[1, 8, 8, 2])]).expect("with another shape too");
    let mut tally = Tally {
        accepted: 0,
        refused: 0,
    };
    tally.all(&model.bytes(), 1, 4000);
    // Both must happen, or nothing was tested.
    assert!(
        tally.accepted > 1000 && tally.refused > 10_000,
        "{} {}",
        tally.accepted,
        tally.refused
    );
}

#[test]
fn changed_real_models_never_panic() {
    let mut tally = Tally {
        accepted: 0,
        refused: 0,
    };
    for (_, path) in corpus::models("models") {
        let bytes = std::fs::read(path).expect("the file was listed");
        // The large ones are parameters, which nothing looks at.
        if bytes.len() < 1 << 16 {
            tally.all(&bytes, (bytes.len() / 500) | 1, 500);
        }
    }
}
