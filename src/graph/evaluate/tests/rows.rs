//! Softmax and means.

use super::*;

#[test]
fn int8_softmax() {
    let run = |scale, values: &[i8], row: usize| {
        let shape = [values.len() / row, row];
        let tensors = vec![i8(&shape, scale, 3), i8(&shape, 1.0 / 256.0, -128)];
        run_i8(OpKind::Softmax { beta: 1.0 }, tensors, &[&q(values)])
    };
    assert_eq!(run(0.1, &[7], 1), [127]);
    assert_eq!(run(0.1, &[5, 5, 5, 5], 4), [-64; 4]);
    // Rows are independent; e^1 / (1 + e^1) = 0.731.
    assert_eq!(run(0.1, &[0, 10, 10, 0], 2), [-59, 59, 59, -59]);
    assert_eq!(run(1.0, &[127, -128], 2), [127, -128]);
}

#[test]
fn softmax_table_ends_at_the_radius() {
    // The radius counts with the power of two above the scale: 1 for 0.5.
    let table = softmax_table(1.0, 0.5);
    assert_eq!(table[0], i32::MAX);
    assert!(table.is_sorted_by(|a, b| a >= b));
    assert!(table[31] > 0 && table[32..].iter().all(|e| *e == 0));
    // A scale so large that any difference counts as infinite.
    assert!(softmax_table(100.0, 1e30)[1..].iter().all(|e| *e == 0));
}

#[test]
fn softmax_of_a_row_that_is_too_even() {
    // 512 equal terms reach the sum at which every quotient becomes 0.
    let table = softmax_table(1.0, 0.1);
    for (n, expected) in [(256, -127), (511, -127), (512, -128), (10_000, -128)] {
        let mut output = vec![0; n];
        softmax_row(&table, &vec![0; n], &mut output);
        assert_eq!(output, vec![expected as u8; n], "{n}");
    }
}

#[test]
fn float_softmax() {
    let kind = OpKind::Softmax { beta: 2.0 };
    let result = run_f32(kind, vec![f32(&[2, 2]); 2], &[&[1.0, 1.5, 1000.0, 1000.0]]);
    let e = math::exp(-1.0);
    assert_eq!(result, [e / (e + 1.0), 1.0 / (e + 1.0), 0.5, 0.5]);
}

fn mean(axes: &[usize]) -> OpKind {
    OpKind::Mean {
        axes: axes.to_vec(),
        keep_dims: false,
    }
}

#[test]
fn means_over_axes() {
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let run = |axes: &[usize], out: &[usize]| run_f32(mean(axes), vec![f32(&[2, 3]), f32(out)], &[&values]);
    assert_eq!(run(&[0], &[3]), [2.5, 3.5, 4.5]);
    assert_eq!(run(&[1], &[2]), [2.0, 5.0]);
    assert_eq!(run(&[0, 1], &[]), [3.5]);
    // Scale 0.5 → 0.25, zero points 1 → −1: twice the mean of (q − 1).
    let tensors = vec![i8(&[2, 3], 0.5, 1), i8(&[2], 0.25, -1)];
    assert_eq!(run_i8(mean(&[1]), tensors, &[&q(&[1, 2, 6, -5, -6, -10])]), [3, -17]);
}

#[test]
fn mean_multiplier_folds_the_count_in() {
    // 1 is 2^30 × 2^(1 − 31); of 1 / 3 the mantissa is 2^30 × 2 / 3, truncated.
    let multiplier = mean_multiplier(1.0, 1.0, 3);
    assert_eq!((multiplier.mantissa, multiplier.shift), (715_827_882, 0));
}
