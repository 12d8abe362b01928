//! Operators that only move elements.

use super::*;

#[test]
fn pad_puts_the_value_around() {
    let kind = OpKind::Pad {
        amounts: vec![[1, 0], [0, 2]],
        value: 0x85,
    };
    let tensors = vec![i8(&[1, 2], 1.0, -123), i8(&[2, 4], 1.0, -123)];
    assert_eq!(
        run_i8(kind, tensors, &[&q(&[1, 2])]),
        [-123, -123, -123, -123, 1, 2, -123, -123]
    );
    let kind = OpKind::Pad {
        amounts: vec![[1, 1]],
        value: u64::from(1.5f32.to_bits()),
    };
    assert_eq!(run_f32(kind, vec![f32(&[1]), f32(&[3])], &[&[7.0]]), [1.5, 7.0, 1.5]);
}

#[test]
fn concat_along_any_axis() {
    let concat = |axis, out: &[usize]| {
        let tensors = vec![i8(&[2, 1], 1.0, 0), i8(&[2, 1], 1.0, 0), i8(out, 1.0, 0)];
        run_i8(OpKind::Concat { axis }, tensors, &[&q(&[1, 2]), &q(&[3, 4])])
    };
    assert_eq!(concat(0, &[4, 1]), [1, 2, 3, 4]);
    assert_eq!(concat(1, &[2, 2]), [1, 3, 2, 4]);
}

#[test]
fn transposes_of_any_rank() {
    let transpose = |permutation: &[usize], from: &[usize], to: &[usize]| {
        let elements: usize = from.iter().product();
        let values: Vec<i8> = (0..elements as i8).collect();
        let permutation = permutation.to_vec();
        let tensors = vec![i8(from, 1.0, 0), i8(to, 1.0, 0)];
        run_i8(OpKind::Transpose { permutation }, tensors, &[&q(&values)])
    };
    assert_eq!(transpose(&[], &[], &[]), [0]);
    assert_eq!(transpose(&[1, 0], &[2, 3], &[3, 2]), [0, 3, 1, 4, 2, 5]);
    // Rows of two stay together.
    assert_eq!(transpose(&[1, 0, 2], &[2, 2, 2], &[2, 2, 2]), [0, 1, 4, 5, 2, 3, 6, 7]);
    // Not its own inverse: [i,j,k] comes from [j,k,i].
    assert_eq!(transpose(&[2, 0, 1], &[1, 2, 3], &[3, 1, 2]), [0, 3, 1, 4, 2, 5]);
    let kind = OpKind::Transpose {
        permutation: vec![1, 0],
    };
    let tensors = vec![f32(&[2, 2]), f32(&[2, 2])];
    assert_eq!(run_f32(kind, tensors, &[&[1.0, 2.0, 3.0, 4.0]]), [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn copies_keep_the_bytes() {
    for kind in [OpKind::Reshape, OpKind::Copy] {
        assert_eq!(
            run_i8(kind, vec![i8(&[2, 1], 1.0, 0), i8(&[2], 1.0, 0)], &[&q(&[1, -2])]),
            [1, -2]
        );
    }
}
