//! Convolutions and dense layers.

use super::*;

fn conv(window: Window) -> OpKind {
    OpKind::Conv2d {
        window,
        activation: Activation::None,
    }
}

const DENSE: OpKind = OpKind::FullyConnected {
    activation: Activation::None,
};

#[test]
fn weights_of_a_dense_layer_may_have_a_zero_point() {
    // (3 - 1)(2 - -4) + (5 - 1)(-6 - -4) = 4, then 0.25 for 1.
    let tensors = vec![i8(&[1, 2], 0.5, 1), i8(&[1, 2], 0.5, -4), i8(&[1, 1], 0.25, 7)];
    assert_eq!(run_i8(DENSE, tensors, &[&q(&[3, 5]), &q(&[2, -6])]), [11]);
}

#[test]
fn conv2d_runs_over_rows_columns_and_channels() {
    // 3x3 input, 2x2 kernel that weights its corners 1, 10, 100, 1000; bias 0.5.
    let input: Vec<f32> = (1..=9).map(|x| x as f32).collect();
    let tensors = vec![f32(&[1, 3, 3, 1]), f32(&[1, 2, 2, 1]), f32(&[1]), f32(&[1, 2, 2, 1])];
    let result = run_f32(
        conv(window([2, 2])),
        tensors,
        &[&input, &[1.0, 10.0, 100.0, 1000.0], &[0.5]],
    );
    assert_eq!(result, [5421.5, 6532.5, 8754.5, 9865.5]);
}

#[test]
fn conv2d_padding_stride_and_dilation() {
    // Taps at −1 and 1 around each second column of a row.
    let window = Window {
        size: [1, 2],
        stride: [1, 2],
        dilation: [1, 2],
        padding: Padding {
            left: 1,
            right: 1,
            ..Padding::default()
        },
    };
    assert_eq!(window.output([1, 4]), Some([1, 2]));
    let tensors = vec![f32(&[1, 1, 4, 1]), f32(&[1, 1, 2, 1]), f32(&[1, 1, 2, 1])];
    let result = run_f32(conv(window), tensors, &[&[1.0, 2.0, 3.0, 4.0], &[1.0, 10.0]]);
    assert_eq!(result, [20.0, 42.0]);
}

#[test]
fn conv2d_groups_read_their_own_channels() {
    let tensors = vec![f32(&[1, 1, 1, 4]), f32(&[2, 1, 1, 2]), f32(&[1, 1, 1, 2])];
    let result = run_f32(
        conv(window([1, 1])),
        tensors,
        &[&[1.0, 2.0, 3.0, 4.0], &[1.0, 10.0, 100.0, 1000.0]],
    );
    assert_eq!(result, [21.0, 4300.0]);
}

#[test]
fn conv2d_int8_requantizes_each_channel() {
    // Scales 0.5 × {0.5, 0.25} / 0.25: channel multipliers 1 and 1/2.
    let mut filter = i8(&[2, 1, 1, 2], 1.0, 0);
    filter.quantization = Some(Quantization {
        scale: vec![0.5, 0.25],
        zero_point: vec![0, 0],
        axis: Some(0),
    });
    let tensors = vec![
        i8(&[1, 1, 2, 2], 0.5, -1),
        filter,
        i32(&[2]),
        i8(&[1, 1, 2, 2], 0.25, 3),
    ];
    let input = q(&[1, 2, -3, 4]);
    let weights = q(&[1, 2, 3, -4]);
    let result = run_i8(conv(window([1, 1])), tensors, &[&input, &weights, &ints(&[7, 1])]);
    // Without zero point the pixels are (2, 3) and (−2, 5); sums 8+7, −6+1, 8+7, −26+1. The high multiplication rounds
    // halves up, the shift after it (here 0) away from zero.
    assert_eq!(result, [15 + 3, -2 + 3, 15 + 3, -12 + 3]);
}

#[test]
fn conv2d_int8_saturates_and_clamps() {
    let tensors = || {
        vec![
            i8(&[1, 1, 1, 1], 1.0, 0),
            i8(&[1, 1, 1, 1], 1.0, 0),
            i8(&[1, 1, 1, 1], 1.0, -10),
        ]
    };
    let run = |x, activation| {
        let kind = OpKind::Conv2d {
            window: window([1, 1]),
            activation,
        };
        run_i8(kind, tensors(), &[&q(&[x]), &q(&[100])])[0]
    };
    assert_eq!([run(100, Activation::None), run(-100, Activation::None)], [127, -128]);
    assert_eq!([run(1, Activation::Relu), run(-1, Activation::Relu)], [90, -10]);
    assert_eq!([run(1, Activation::Relu6), run(-1, Activation::ReluN1To1)], [-4, -11]);
}

#[test]
fn depthwise_multiplies_channels() {
    // Two channels with multiplier 2: outputs 0, 1 read channel 0; outputs 2, 3 read channel 1.
    let kind = OpKind::DepthwiseConv2d {
        window: window([1, 2]),
        multiplier: 2,
        activation: Activation::None,
    };
    let tensors = vec![f32(&[1, 1, 2, 2]), f32(&[1, 1, 2, 4]), f32(&[4]), f32(&[1, 1, 1, 4])];
    let weights = [1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0];
    let result = run_f32(kind, tensors, &[&[1.0, 2.0, 3.0, 4.0], &weights, &[0.0, 0.0, 0.0, 1.0]]);
    assert_eq!(result, [31.0, 62.0, 126.0, 169.0]);
}

#[test]
fn depthwise_int8_skips_the_padding() {
    // The zero point is 5: an element of the padding would count −5 if it were read as 0.
    let kind = OpKind::DepthwiseConv2d {
        window: Window {
            padding: Padding {
                top: 1,
                left: 1,
                ..Padding::default()
            },
            ..window([2, 2])
        },
        multiplier: 1,
        activation: Activation::None,
    };
    let tensors = vec![
        i8(&[1, 1, 1, 1], 1.0, 5),
        i8(&[1, 2, 2, 1], 1.0, 0),
        i8(&[1, 1, 1, 1], 1.0, 0),
    ];
    assert_eq!(run_i8(kind, tensors, &[&q(&[8]), &q(&[100, 100, 100, 2])]), [6]);
}

#[test]
fn dense_layers() {
    let tensors = vec![f32(&[2, 2]), f32(&[3, 2]), f32(&[3]), f32(&[2, 3])];
    let result = run_f32(
        DENSE,
        tensors,
        &[
            &[1.0, 2.0, 3.0, 4.0],
            &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0],
            &[0.0, 0.0, 10.0],
        ],
    );
    assert_eq!(result, [1.0, 2.0, 13.0, 3.0, 4.0, 17.0]);
    let tensors = vec![i8(&[1, 2], 0.5, 1), i8(&[1, 2], 1.0, 0), i8(&[1, 1], 1.0, 0)];
    assert_eq!(run_i8(DENSE, tensors, &[&q(&[3, 5]), &q(&[3, 4])]), [11]);
}

#[test]
fn dense_multiplier_is_formed_from_a_float_product() {
    let scale = |s| i8(&[1, 1], s, 0);
    let (a, w, out) = (0.1f32, 0.3f32, 0.7f32);
    let of = |kind: &OpKind| multipliers(kind, &scale(a), &scale(w), &scale(out))[0];
    let product = f64::from(a) * f64::from(w);
    assert_eq!(
        of(&DENSE),
        crate::graph::quant::Multiplier::new(f64::from(a * w) / f64::from(out))
    );
    assert_eq!(
        of(&conv(window([1, 1]))),
        crate::graph::quant::Multiplier::new(product / f64::from(out))
    );
    assert_ne!(of(&DENSE), of(&conv(window([1, 1]))));
}

#[test]
fn fused_multiply_add_rounds_once() {
    // (1 + 2^-12)² = 1 + 2^-11 + 2^-24: the last term survives only without an intermediate rounding.
    let a = 1.0 + 2f32.powi(-12);
    let inputs = [floats(&[1.0, a]), floats(&[-1.0, a])];
    let run = |fused_multiply_add| {
        let tensors = vec![f32(&[1, 2]), f32(&[1, 2]), f32(&[1, 1])];
        let result = run(
            DENSE,
            tensors,
            &[&inputs[0], &inputs[1]],
            Arithmetic { fused_multiply_add },
        );
        f32s(&result.expect("dense layers of floats are defined"))[0]
    };
    assert_eq!(run(false), 2f32.powi(-11));
    assert_eq!(run(true), 2f32.powi(-11) + 2f32.powi(-24));
}
