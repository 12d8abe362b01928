//! Pooling.

use super::*;

fn pool(op: PoolOp, window: Window) -> OpKind {
    OpKind::Pool2d {
        op,
        window,
        activation: Activation::None,
    }
}

#[test]
fn average_pool_rounds_halves_away_from_zero_and_ignores_padding() {
    let tensors = || vec![i8(&[1, 1, 4, 1], 1.0, 0), i8(&[1, 1, 2, 1], 1.0, 0)];
    let halves = Window {
        stride: [1, 2],
        ..window([1, 2])
    };
    let average = |window, values: &[i8]| run_i8(pool(PoolOp::Average, window), tensors(), &[&q(values)]);
    assert_eq!(average(halves, &[1, 2, -1, -2]), [2, -2]);
    assert_eq!(average(halves, &[1, 0, -1, 0]), [1, -1]);
    let padded = Window {
        size: [1, 3],
        stride: [1, 3],
        padding: Padding {
            left: 1,
            right: 1,
            ..Padding::default()
        },
        ..halves
    };
    assert_eq!(average(padded, &[10, 20, 30, 50]), [15, 40]);
    let result = run_f32(
        pool(PoolOp::Average, halves),
        vec![f32(&[1, 1, 4, 1]), f32(&[1, 1, 2, 1])],
        &[&[1.0, 2.0, 3.0, 5.0]],
    );
    assert_eq!(result, [1.5, 4.0]);
}

#[test]
fn max_pool_of_each_channel() {
    let tensors = vec![i8(&[1, 2, 1, 2], 1.0, 0), i8(&[1, 1, 1, 2], 1.0, 0)];
    assert_eq!(
        run_i8(pool(PoolOp::Max, window([2, 1])), tensors, &[&q(&[-128, 5, -7, 4])]),
        [-7, 5]
    );
    let tensors = vec![f32(&[1, 2, 1, 2]), f32(&[1, 1, 1, 2])];
    let result = run_f32(pool(PoolOp::Max, window([2, 1])), tensors, &[&[-2.0, 5.0, -1.0, 4.0]]);
    assert_eq!(result, [-1.0, 5.0]);
}

#[test]
fn pool_window_in_the_padding_is_an_error() {
    let lost = Window {
        padding: Padding {
            left: 1,
            ..Padding::default()
        },
        ..window([1, 1])
    };
    let result = run(
        pool(PoolOp::Max, lost),
        vec![f32(&[1, 1, 1, 1]), f32(&[1, 1, 2, 1])],
        &[&floats(&[1.0])],
        PLAIN,
    );
    let error = result.expect_err("the first window holds no element");
    assert_eq!(
        error.to_string(),
        "a pooling window lies wholly in the padding (at operator 0 max_pool2d \"op\")"
    );
}
