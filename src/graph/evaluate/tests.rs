//! Small cases of every operator, computed by hand, and the run of a whole graph.

use super::*;
use crate::data::Bytes;
use crate::graph::{Activation, BinaryOp, Padding, PoolOp, Quantization, Tensor, UnaryOp, Window};

const PLAIN: Arithmetic = Arithmetic {
    fused_multiply_add: false,
};

fn tensor(dtype: DType, shape: &[usize], quantization: Option<(f32, i32)>) -> Tensor {
    Tensor {
        name: String::new(),
        dtype,
        shape: Shape(shape.to_vec()),
        quantization: quantization.map(|(scale, zero_point)| Quantization::per_tensor(scale, zero_point)),
        data: None,
    }
}

fn i8(shape: &[usize], scale: f32, zero_point: i32) -> Tensor {
    tensor(DType::I8, shape, Some((scale, zero_point)))
}

fn f32(shape: &[usize]) -> Tensor {
    tensor(DType::F32, shape, None)
}

fn i32(shape: &[usize]) -> Tensor {
    tensor(DType::I32, shape, None)
}

/// The result of one operator whose operands are the first tensors and whose result is the last.
fn run(kind: OpKind, tensors: Vec<Tensor>, inputs: &[&[u8]], arithmetic: Arithmetic) -> Result<Vec<u8>> {
    let ids: Vec<_> = (0..tensors.len() as u32).map(TensorId).collect();
    let (output, operands) = ids.split_last().expect("there is a result");
    let op = Op {
        name: "op".into(),
        source: 0,
        kind,
        inputs: operands.to_vec(),
        outputs: vec![*output],
    };
    let graph = Graph {
        tensors,
        ..Graph::default()
    };
    evaluate_op(&graph, &op, inputs, arithmetic).map(|mut results| results.remove(0))
}

fn q(values: &[i8]) -> Vec<u8> {
    values.iter().map(|q| *q as u8).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    f32_bytes(values.iter().copied())
}

fn ints(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Result of an int8 operator.
#[track_caller]
fn run_i8(kind: OpKind, tensors: Vec<Tensor>, inputs: &[&[u8]]) -> Vec<i8> {
    let result = run(kind, tensors, inputs, PLAIN).expect("the operator is defined");
    result.into_iter().map(|byte| byte as i8).collect()
}

/// Result of a float operator.
#[track_caller]
fn run_f32(kind: OpKind, tensors: Vec<Tensor>, inputs: &[&[f32]]) -> Vec<f32> {
    let bytes: Vec<_> = inputs.iter().map(|values| floats(values)).collect();
    let bytes: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    f32s(&run(kind, tensors, &bytes, PLAIN).expect("the operator is defined"))
}

fn window(size: [usize; 2]) -> Window {
    Window {
        size,
        stride: [1, 1],
        dilation: [1, 1],
        padding: Padding::default(),
    }
}

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
    // Weights may have a zero point.
    let tensors = vec![i8(&[1, 2], 0.5, 1), i8(&[1, 2], 1.0, -2), i8(&[1, 1], 1.0, 0)];
    assert_eq!(run_i8(DENSE, tensors, &[&q(&[3, 5]), &q(&[1, 2])]), [11]);
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

fn binary(op: BinaryOp) -> OpKind {
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
fn float_and_int32_binaries_clamp() {
    let relu6 = OpKind::Binary {
        op: BinaryOp::Sub,
        activation: Activation::Relu6,
    };
    let result = run_f32(
        relu6.clone(),
        vec![f32(&[3]); 3],
        &[&[1.0, 10.0, 4.5], &[2.0, 3.0, 1.0]],
    );
    assert_eq!(result, [0.0, 6.0, 3.5]);
    let result = run(
        relu6,
        vec![i32(&[3]); 3],
        &[&ints(&[1, 10, 5]), &ints(&[2, 3, 1])],
        PLAIN,
    );
    assert_eq!(result.expect("int32 is defined"), ints(&[0, 6, 4]));
    let result = run(
        binary(BinaryOp::Mul),
        vec![i32(&[1]); 3],
        &[&ints(&[1 << 20]), &ints(&[1 << 20])],
        PLAIN,
    );
    assert_eq!(result.expect("int32 is defined"), ints(&[0]));
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

#[test]
fn copies_keep_the_bytes() {
    for kind in [OpKind::Reshape, OpKind::Copy] {
        assert_eq!(
            run_i8(kind, vec![i8(&[2, 1], 1.0, 0), i8(&[2], 1.0, 0)], &[&q(&[1, -2])]),
            [1, -2]
        );
    }
}

#[test]
fn undefined_types_are_an_error() {
    let result = run(DENSE, vec![i32(&[1, 1]); 3], &[&ints(&[1]), &ints(&[1])], PLAIN);
    let error = result.expect_err("dense layers of int32 are not defined");
    assert_eq!(
        error.to_string(),
        "fully_connected is not defined for int32, int32 → int32 (at operator 0 fully_connected \"op\")"
    );
}

/// x → relu → y; y + c → z; outputs z, x, y.
fn chain() -> Graph {
    let mut graph = Graph::default();
    let [x, y, c, z] = [(); 4].map(|()| graph.add_tensor(f32(&[2])));
    graph.tensors[c.index()].data = Some(Bytes::from_vec(floats(&[10.0, 20.0])));
    let op = |kind, inputs: &[TensorId], output| Op {
        name: String::new(),
        source: 0,
        kind,
        inputs: inputs.to_vec(),
        outputs: vec![output],
    };
    graph.ops = vec![
        op(OpKind::Unary { op: UnaryOp::Relu }, &[x], y),
        op(binary(BinaryOp::Add), &[y, c], z),
    ];
    graph.inputs = vec![x];
    graph.outputs = vec![z, x, y];
    graph
}

#[test]
fn graphs_run_in_order_and_show_each_result() {
    let mut seen = Vec::new();
    let input = floats(&[-1.0, 2.0]);
    let outputs = evaluate_with(&chain(), &[&input], PLAIN, &mut |id, bytes| {
        seen.push((id, f32s(bytes)))
    });
    let outputs: Vec<_> = outputs
        .expect("the graph is valid")
        .iter()
        .map(|bytes| f32s(bytes))
        .collect();
    assert_eq!(outputs, [[10.0, 22.0], [-1.0, 2.0], [0.0, 2.0]]);
    assert_eq!(seen, [(OpId(0), vec![0.0, 2.0]), (OpId(1), vec![10.0, 22.0])]);
}

#[test]
fn wrong_inputs_are_refused() {
    let error = evaluate(&chain(), &[], PLAIN).expect_err("an input is missing");
    assert_eq!(error.to_string(), "the model has 1 inputs, but 0 are given");
    let error = evaluate(&chain(), &[&[0; 4]], PLAIN).expect_err("the input is too short");
    assert_eq!(
        error.to_string(),
        "an input of 4 bytes is given, but 8 bytes are needed (at input \"\" float32[2])"
    );
}
