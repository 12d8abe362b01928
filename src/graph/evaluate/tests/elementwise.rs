//! Elementwise operators and conversions.

use super::*;

pub(super) fn binary(op: BinaryOp) -> OpKind {
    OpKind::Binary {
        op,
        activation: Activation::None,
    }
}

#[test]
fn int8_add_sub_mul() {
    // Scales 0.5, 0.25 → 0.5, zero points 1, 2, −3.
    let tensors = || vec![i8(&[2], 0.5, 1), i8(&[2], 0.25, 2), i8(&[2], 0.5, -3)];
    let run = |op, a: [i8; 2], b: [i8; 2]| run_i8(binary(op), tensors(), &[&q(&a), &q(&b)]);
    // Reals (2, −2) and (1, 0.5): 3 / 0.5 − 3; −1.5 / 0.5 − 3.
    assert_eq!(run(BinaryOp::Add, [5, -3], [6, 4]), [3, -6]);
    assert_eq!(run(BinaryOp::Sub, [5, -3], [6, 4]), [-1, -8]);
    assert_eq!(run(BinaryOp::Mul, [5, -3], [6, 4]), [1, -5]);
    assert_eq!(run(BinaryOp::Add, [127, -128], [127, -128]), [127, -128]);
}

#[test]
fn broadcasting() {
    let add = |a: &[usize], b: &[usize], out: &[usize], x: &[f32], y: &[f32]| {
        run_f32(binary(BinaryOp::Add), vec![f32(a), f32(b), f32(out)], &[x, y])
    };
    assert_eq!(
        add(&[2, 2], &[2], &[2, 2], &[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0]),
        [11.0, 22.0, 13.0, 24.0]
    );
    assert_eq!(
        add(&[2, 1], &[1, 2], &[2, 2], &[1.0, 2.0], &[10.0, 20.0]),
        [11.0, 21.0, 12.0, 22.0]
    );
    assert_eq!(add(&[], &[2], &[2], &[1.0], &[10.0, 20.0]), [11.0, 21.0]);
}

#[test]
fn float_binaries_clamp() {
    let relu6 = OpKind::Binary {
        op: BinaryOp::Sub,
        activation: Activation::Relu6,
    };
    let result = run_f32(relu6, vec![f32(&[3]); 3], &[&[1.0, 10.0, 4.5], &[2.0, 3.0, 1.0]]);
    assert_eq!(result, [0.0, 6.0, 3.5]);
}

#[test]
fn int8_activations_requantize() {
    let run = |op, out: (f32, i32), values: &[i8]| {
        let n = [values.len()];
        run_i8(
            OpKind::Unary { op },
            vec![i8(&n, 0.5, 0), i8(&n, out.0, out.1)],
            &[&q(values)],
        )
    };
    assert_eq!(
        run(UnaryOp::Relu, (0.25, -128), &[-3, 0, 3, 127]),
        [-128, -128, -122, 126]
    );
    assert_eq!(run(UnaryOp::Relu6, (0.5, -10), &[-3, 3, 12, 13]), [-10, -7, 2, 2]);
    assert_eq!(run(UnaryOp::ReluN1To1, (0.5, 0), &[-3, -1, 1, 3]), [-2, -1, 1, 2]);
}

#[test]
fn int8_logistic_and_tanh() {
    let run = |op, out: (f32, i32), values: &[i8]| {
        let n = [values.len()];
        run_i8(
            OpKind::Unary { op },
            vec![i8(&n, 0.25, 0), i8(&n, out.0, out.1)],
            &[&q(values)],
        )
    };
    // 256 / (1 + e^−x) − 128 for x = 0, ±1, ±2.5 and beyond.
    let logistic = run(UnaryOp::Logistic, (1.0 / 256.0, -128), &[0, 4, -4, 10, -10, 127, -128]);
    assert_eq!(logistic, [0, 59, -59, 109, -109, 127, -128]);
    let tanh = run(UnaryOp::Tanh, (1.0 / 128.0, 0), &[0, 2, -2, 4, -4, 127, -128]);
    assert_eq!(tanh, [0, 59, -59, 97, -97, 127, -128]);
}

#[test]
fn int8_tables_stay_near_the_function() {
    let out = |scale, zero_point| Quantization::per_tensor(scale, zero_point);
    for scale in [0.003f32, 0.02, 0.1, 0.7] {
        let input = Quantization::per_tensor(scale, 11);
        let logistic = unary_table(UnaryOp::Logistic, &input, &out(1.0 / 256.0, -128));
        let tanh = unary_table(UnaryOp::Tanh, &input, &out(1.0 / 128.0, 0));
        for (i, (logistic, tanh)) in logistic.into_iter().zip(tanh).enumerate() {
            let x = f64::from(scale) * (i as f64 - 128.0 - 11.0);
            let expected = (256.0 / (1.0 + (-x).exp()) - 128.0).min(127.0);
            assert!(
                (f64::from(logistic) - expected).abs() < 0.51,
                "logistic {x}: {logistic}"
            );
            let expected = (128.0 * x.tanh()).min(127.0);
            assert!((f64::from(tanh) - expected).abs() < 0.51, "tanh {x}: {tanh}");
        }
    }
}

#[test]
fn float_unaries() {
    let run = |op| run_f32(OpKind::Unary { op }, vec![f32(&[4]); 2], &[&[-2.0, -0.5, 0.5, 7.0]]);
    assert_eq!(run(UnaryOp::Relu), [0.0, 0.0, 0.5, 7.0]);
    assert_eq!(run(UnaryOp::Relu6), [0.0, 0.0, 0.5, 6.0]);
    assert_eq!(run(UnaryOp::ReluN1To1), [-1.0, -0.5, 0.5, 1.0]);
    assert_eq!(run(UnaryOp::Tanh)[3], math::tanh(7.0));
    assert_eq!(run(UnaryOp::Logistic)[3], math::logistic(7.0));
}

#[test]
fn lookup_starts_at_minus_128() {
    let table: Vec<u8> = (0..=255).rev().collect();
    let tensors = vec![i8(&[3], 1.0, 0), i8(&[256], 1.0, 0), i8(&[3], 1.0, 0)];
    assert_eq!(
        run_i8(OpKind::Lookup, tensors, &[&q(&[-128, 0, 127]), &table]),
        [-1, 127, 0]
    );
}

#[test]
fn quantize_rounds_halves_away_and_saturates() {
    let values = [
        0.25,
        -0.25,
        0.2,
        100.0,
        -100.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    let n = [values.len()];
    let result = run(
        OpKind::Quantize,
        vec![f32(&n), i8(&n, 0.5, -3)],
        &[&floats(&values)],
        PLAIN,
    );
    assert_eq!(
        result.expect("float to int8 is defined"),
        q(&[-2, -4, -3, 127, -128, 127, -128, -3])
    );
}

#[test]
fn requantize_between_8_bit_types() {
    let run = |from: DType, to: DType, s: (f32, i32), t: (f32, i32), values: &[u8]| {
        let n = [values.len()];
        let tensors = vec![tensor(from, &n, Some(s)), tensor(to, &n, Some(t))];
        run(OpKind::Quantize, tensors, &[values], PLAIN).expect("8-bit types are defined")
    };
    assert_eq!(
        run(DType::U8, DType::I8, (0.5, 128), (0.5, 0), &[0, 128, 255]),
        q(&[-128, 0, 127])
    );
    assert_eq!(
        run(DType::I8, DType::U8, (0.5, 0), (0.5, 128), &q(&[-128, 0, 127])),
        [0, 128, 255]
    );
    assert_eq!(
        run(DType::I8, DType::I8, (0.5, 0), (1.0, 1), &q(&[3, -3, 127])),
        q(&[3, 0, 65])
    );
}

#[test]
fn dequantize_scales() {
    let run = |dtype, values: &[u8]| {
        let tensors = vec![tensor(dtype, &[2], Some((0.5, 10))), f32(&[2])];
        f32s(&run(OpKind::Dequantize, tensors, &[values], PLAIN).expect("8-bit types are defined"))
    };
    assert_eq!(run(DType::I8, &q(&[-128, 12])), [-69.0, 1.0]);
    assert_eq!(run(DType::U8, &[0, 255]), [-5.0, 122.5]);
}
