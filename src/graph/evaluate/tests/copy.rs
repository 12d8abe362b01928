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
fn copies_keep_the_bytes() {
    for kind in [OpKind::Reshape, OpKind::Copy] {
        assert_eq!(
            run_i8(kind, vec![i8(&[2, 1], 1.0, 0), i8(&[2], 1.0, 0)], &[&q(&[1, -2])]),
            [1, -2]
        );
    }
}
