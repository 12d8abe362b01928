//! What each operator becomes.

use super::build::{Model, Options, float, int8, ints, op, tensor, weights};
use super::schema::{ActivationFunctionType as A, BuiltinOperator as B, Padding as P, TensorType as T};
use super::*;

fn conv(input: &[i32], filter: &[i32], output: &[i32], padding: P, stride: [i32; 2], dilation: [i32; 2]) -> Model {
    let elements: i32 = filter.iter().product();
    let tensors = [
        float("x", input),
        float("w", filter).zeros(elements as usize),
        float("y", output),
    ];
    Model::of(B::CONV_2D, Options::Conv(padding, stride, dilation, A::NONE), tensors)
}

#[test]
fn same_padding_puts_the_odd_element_after() {
    let model = conv(&[1, 5, 4, 1], &[2, 3, 2, 1], &[1, 3, 2, 2], P::SAME, [2, 2], [1, 1]);
    assert_eq!(
        accepted(&model),
        r#"%2 "y" : float32[1,3,2,2] = conv2d(%0, %1) stride=2x2 pad=1,1,0,0"#
    );
    let model = conv(&[1, 4, 4, 1], &[2, 2, 2, 1], &[1, 4, 4, 2], P::SAME, [1, 1], [1, 1]);
    assert_eq!(
        accepted(&model),
        r#"%2 "y" : float32[1,4,4,2] = conv2d(%0, %1) pad=0,1,0,1"#
    );
}

#[test]
fn same_padding_of_a_window_below_its_stride_is_none() {
    let model = conv(&[1, 5, 7, 1], &[2, 1, 1, 1], &[1, 2, 3, 2], P::SAME, [3, 3], [1, 1]);
    assert_eq!(
        accepted(&model),
        r#"%2 "y" : float32[1,2,3,2] = conv2d(%0, %1) stride=3x3"#
    );
}

#[test]
fn dilation_widens_the_padding() {
    let model = conv(&[1, 8, 8, 1], &[2, 3, 3, 1], &[1, 8, 8, 2], P::SAME, [1, 1], [2, 3]);
    assert_eq!(
        accepted(&model),
        r#"%2 "y" : float32[1,8,8,2] = conv2d(%0, %1) dilation=2x3 pad=2,2,3,3"#
    );
    let model = conv(&[1, 8, 8, 1], &[2, 3, 3, 1], &[1, 4, 2, 2], P::VALID, [1, 1], [2, 3]);
    assert_eq!(
        accepted(&model),
        r#"%2 "y" : float32[1,4,2,2] = conv2d(%0, %1) dilation=2x3"#
    );
}

#[test]
fn int8_convolution_keeps_bias_and_activation() {
    let tensors = [
        int8("x", &[1, 4, 4, 4]),
        weights("w", &[6, 1, 1, 2], 6, 0),
        ints("b", &[6], &[0; 6]).quantized(
            &[0.5 / 64.0, 1.0 / 64.0, 1.5 / 64.0, 2.0 / 64.0, 2.5 / 64.0, 3.0 / 64.0],
            &[0; 6],
            0,
        ),
        int8("y", &[1, 4, 4, 6]),
    ];
    let model = Model::of(B::CONV_2D, Options::Conv(P::VALID, [1, 1], [1, 1], A::RELU6), tensors);
    assert_eq!(
        accepted(&model),
        r#"%3 "y" : int8[1,4,4,6] q(0.5,-1) = conv2d(%0, %1, %2) act=relu6"#
    );
}

#[test]
fn depth_multiplier_follows_from_the_shapes() {
    for stated in [0, 2] {
        let tensors = [
            int8("x", &[1, 4, 4, 3]),
            weights("w", &[1, 3, 3, 6], 6, 3),
            int8("y", &[1, 2, 2, 6]),
        ];
        let model = Model::of(
            B::DEPTHWISE_CONV_2D,
            Options::Depthwise(P::VALID, [1, 1], stated, A::RELU),
            tensors,
        );
        assert_eq!(
            accepted(&model),
            r#"%2 "y" : int8[1,2,2,6] q(0.5,-1) = depthwise_conv2d(%0, %1) multiplier=2 act=relu"#
        );
    }
}

fn fully_connected(inputs: Vec<i32>, output: &[i32], keep: bool) -> Model {
    let tensors = [
        float("x", &[2, 3, 4]),
        float("w", &[5, 4]).zeros(20),
        float("b", &[5]).zeros(5),
        float("y", output),
    ];
    let operator = op(B::FULLY_CONNECTED, &inputs, &[3], Options::FullyConnected(false, keep));
    Model::new(tensors, [operator])
}

#[test]
fn an_absent_bias_is_dropped() {
    let expect = r#"%2 "y" : float32[6,5] = fully_connected(%0, %1)"#;
    assert_eq!(accepted(&fully_connected(vec![0, 1, -1], &[6, 5], false)), expect);
    assert_eq!(accepted(&fully_connected(vec![0, 1], &[6, 5], false)), expect);
}

#[test]
fn fully_connected_can_keep_its_dimensions() {
    assert_eq!(
        accepted(&fully_connected(vec![0, 1, 2], &[2, 3, 5], true)),
        r#"%3 "y" : float32[2,3,5] = fully_connected(%0, %1, %2)"#
    );
}

#[test]
fn weights_may_be_computed() {
    let tensors = [float("x", &[3, 4]), float("w", &[5, 4]), float("y", &[3, 5])];
    let model = Model::of(B::FULLY_CONNECTED, Options::FullyConnected(false, false), tensors).inputs(&[0, 1]);
    assert_eq!(accepted(&model), r#"%2 "y" : float32[3,5] = fully_connected(%0, %1)"#);
}

#[test]
fn pools() {
    let pool = |code| {
        let tensors = [float("x", &[1, 5, 5, 2]), float("y", &[1, 3, 2, 2])];
        accepted(&Model::of(
            code,
            Options::Pool(P::SAME, [3, 2], [2, 3], A::RELU),
            tensors,
        ))
    };
    let window = r#"window=3x2 stride=2x3 pad=1,1,0,0 act=relu"#;
    assert_eq!(
        pool(B::AVERAGE_POOL_2D),
        format!(r#"%1 "y" : float32[1,3,2,2] = average_pool2d(%0) {window}"#)
    );
    assert_eq!(
        pool(B::MAX_POOL_2D),
        format!(r#"%1 "y" : float32[1,3,2,2] = max_pool2d(%0) {window}"#)
    );
}

#[test]
fn elementwise() {
    for (code, options, expect) in [
        (B::ADD, Options::Add(A::RELU), "add(%0, %1) act=relu"),
        (B::ADD, Options::None, "add(%0, %1)"),
        (B::SUB, Options::Sub(A::RELU_N1_TO_1), "sub(%0, %1) act=relu_n1_to_1"),
        (B::MUL, Options::Mul(A::RELU6), "mul(%0, %1) act=relu6"),
    ] {
        let tensors = [
            float("a", &[2, 1, 3]),
            float("b", &[4, 1]).zeros(4),
            float("y", &[2, 4, 3]),
        ];
        assert_eq!(
            accepted(&Model::of(code, options, tensors)),
            format!(r#"%2 "y" : float32[2,4,3] = {expect}"#)
        );
    }
    for (code, expect) in [
        (B::RELU, "relu(%0)"),
        (B::RELU6, "relu6(%0)"),
        (B::RELU_N1_TO_1, "relu_n1_to_1(%0)"),
        (B::LOGISTIC, "logistic(%0)"),
        (B::TANH, "tanh(%0)"),
    ] {
        let model = Model::of(code, Options::None, [float("x", &[2, 3]), float("y", &[2, 3])]);
        assert_eq!(accepted(&model), format!(r#"%1 "y" : float32[2,3] = {expect}"#));
    }
}

#[test]
fn add_n_adds_in_order() {
    let model = |n: i32| {
        let operands = (0..n).map(|i| float(&format!("x{i}"), &[2, 3]));
        let inputs: Vec<i32> = (0..n).collect();
        accepted(&Model::of(B::ADD_N, Options::None, operands.chain([float("y", &[2, 3])])).inputs(&inputs))
    };
    assert_eq!(model(2), r#"%2 "y" : float32[2,3] = add(%0, %1)"#);
    assert_eq!(
        model(4),
        r#"%4 "y/add" : float32[2,3] = add(%0, %1) source=0
%5 "y/add" : float32[2,3] = add(%4, %2) source=0
%6 "y" : float32[2,3] = add(%5, %3) source=0"#
            .replacen(" source=0", "", 1)
    );
}

fn batch_matmul(x: &[i32], y: &[i32], output: &[i32], (adj_x, adj_y): (bool, bool)) -> String {
    let tensors = [int8("x", x), int8("w", y), int8("y", output)];
    let model = Model::of(B::BATCH_MATMUL, Options::BatchMatMul(adj_x, adj_y), tensors);
    accepted(&model.inputs(&[0, 1])).replace(" q(0.5,-1)", "")
}

#[test]
fn a_product_by_one_matrix_is_a_dense_layer() {
    assert_eq!(
        batch_matmul(&[3, 4], &[4, 5], &[3, 5], (false, false)),
        r#"%2 "y/transpose" : int8[5,4] = transpose(%1) permutation=1,0
%3 "y" : int8[3,5] = fully_connected(%0, %2) source=0"#
    );
    assert_eq!(
        batch_matmul(&[3, 4], &[5, 4], &[3, 5], (false, true)),
        r#"%2 "y" : int8[3,5] = fully_connected(%0, %1)"#
    );
    assert_eq!(
        batch_matmul(&[4, 3], &[5, 4], &[3, 5], (true, true)),
        r#"%2 "y/transpose" : int8[3,4] = transpose(%0) permutation=1,0
%3 "y" : int8[3,5] = fully_connected(%2, %1) source=0"#
    );
}

#[test]
fn products_keep_the_batches_of_the_first_operand() {
    // Only the second operand must be one matrix.
    assert_eq!(
        batch_matmul(&[2, 4, 3], &[1, 1, 4, 5], &[1, 2, 3, 5], (true, false)),
        r#"%2 "y/transpose" : int8[2,3,4] = transpose(%0) permutation=0,2,1
%3 "y/reshape" : int8[4,5] = reshape(%1) source=0
%4 "y/transpose" : int8[5,4] = transpose(%3) permutation=1,0 source=0
%5 "y" : int8[1,2,3,5] = fully_connected(%2, %4) source=0"#
    );
    // Without options, and with a result whose shape follows from the operands'.
    let tensors = [float("x", &[-1, 4]), float("w", &[4, 2]).zeros(8), float("y", &[-1, 2])];
    let model = Model::of(B::BATCH_MATMUL, Options::None, tensors);
    let graph = read_with(&model, &[("x", &[3, 4])]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        listing(&graph),
        r#"%2 "y/transpose" : float32[2,4] = transpose(%1) permutation=1,0
%3 "y" : float32[3,2] = fully_connected(%0, %2) source=0"#
    );
}

#[test]
fn transpose_counts_its_axes_from_either_end() {
    for axes in [[2, 0, 1], [-1, 0, -2]] {
        let tensors = [int8("x", &[2, 3, 4]), ints("axes", &[3], &axes), int8("y", &[4, 2, 3])];
        assert_eq!(
            accepted(&Model::of(B::TRANSPOSE, Options::None, tensors)),
            r#"%1 "y" : int8[4,2,3] q(0.5,-1) = transpose(%0) permutation=2,0,1"#
        );
    }
}

#[test]
fn quantize_and_dequantize() {
    let u8 = |name| tensor(name, T::UINT8, &[3]).quantized(&[0.25], &[128], 0);
    for (code, from, to, expect) in [
        (
            B::QUANTIZE,
            float("x", &[3]),
            int8("y", &[3]),
            "int8[3] q(0.5,-1) = quantize(%0)",
        ),
        (
            B::QUANTIZE,
            u8("x"),
            int8("y", &[3]),
            "int8[3] q(0.5,-1) = quantize(%0)",
        ),
        (
            B::QUANTIZE,
            int8("x", &[3]),
            u8("y"),
            "uint8[3] q(0.25,128) = quantize(%0)",
        ),
        (
            B::DEQUANTIZE,
            int8("x", &[3]),
            float("y", &[3]),
            "float32[3] = dequantize(%0)",
        ),
        (B::DEQUANTIZE, u8("x"), float("y", &[3]), "float32[3] = dequantize(%0)"),
    ] {
        assert_eq!(
            accepted(&Model::of(code, Options::None, [from, to])),
            format!(r#"%1 "y" : {expect}"#)
        );
    }
}

#[test]
fn softmax() {
    let output = int8("y", &[2, 3]).quantized(&[1.0 / 256.0], &[-128], 0);
    let model = Model::of(B::SOFTMAX, Options::Softmax(0.5), [int8("x", &[2, 3]), output]);
    assert_eq!(
        accepted(&model),
        r#"%1 "y" : int8[2,3] q(0.00390625,-128) = softmax(%0) beta=0.5"#
    );
}

#[test]
fn axes_of_mean_are_counted_from_either_end_and_once() {
    let mean = |axes: &[i32], keep, output: &[i32]| {
        let axes = ints("axes", &[axes.len() as i32], axes);
        let tensors = [float("x", &[2, 3, 4]), axes, float("y", output)];
        accepted(&Model::of(B::MEAN, Options::Reducer(keep), tensors))
    };
    assert_eq!(
        mean(&[-1, 1, 2], false, &[2]),
        r#"%1 "y" : float32[2] = mean(%0) axes=1,2"#
    );
    assert_eq!(
        mean(&[0], true, &[1, 3, 4]),
        r#"%1 "y" : float32[1,3,4] = mean(%0) axes=0 keep"#
    );
}

#[test]
fn padding_of_int8_is_its_zero_point() {
    let amounts = || ints("amounts", &[2, 2], &[1, 0, 0, 2]);
    let model = Model::of(
        B::PAD,
        Options::None,
        [int8("x", &[2, 3]), amounts(), int8("y", &[3, 5])],
    );
    assert_eq!(
        accepted(&model),
        r#"%1 "y" : int8[3,5] q(0.5,-1) = pad(%0) amounts=1:0,0:2 value=-1"#
    );
    let model = Model::of(
        B::PAD,
        Options::None,
        [float("x", &[2, 3]), amounts(), float("y", &[3, 5])],
    );
    assert_eq!(accepted(&model), r#"%1 "y" : float32[3,5] = pad(%0) amounts=1:0,0:2"#);
}

#[test]
fn padv2_has_a_value() {
    let amounts = tensor("amounts", T::INT64, &[1, 2]).data(&[1_i64, 2].map(i64::to_le_bytes).concat());
    let value = float("value", &[]).data(&(-2.5_f32).to_le_bytes());
    let model = Model::of(
        B::PADV2,
        Options::None,
        [float("x", &[3]), amounts, value, float("y", &[6])],
    );
    assert_eq!(
        accepted(&model),
        r#"%1 "y" : float32[6] = pad(%0) amounts=1:2 value=-2.5"#
    );
}

#[test]
fn concatenation_counts_its_axis_from_either_end() {
    for axis in [1, -1] {
        let tensors = [float("a", &[2, 3]), float("b", &[2, 1]).zeros(2), float("y", &[2, 4])];
        let model = Model::of(B::CONCATENATION, Options::Concat(axis, A::NONE), tensors);
        assert_eq!(accepted(&model), r#"%2 "y" : float32[2,4] = concat(%0, %1) axis=1"#);
    }
}

#[test]
fn views() {
    let view = |code, options, more: Option<build::Tensor>, output: &[i32]| {
        let tensors = [float("x", &[1, 6, 1])]
            .into_iter()
            .chain(more)
            .chain([float("y", output)]);
        accepted(&Model::of(code, options, tensors))
    };
    let expect = |shape: &str| format!(r#"%1 "y" : float32{shape} = reshape(%0)"#);
    let operand = |dims: &[i32]| Some(ints("shape", &[dims.len() as i32], dims));
    assert_eq!(
        view(B::RESHAPE, Options::None, operand(&[2, -1]), &[2, 3]),
        expect("[2,3]")
    );
    assert_eq!(
        view(B::RESHAPE, Options::Reshape(&[3, 2]), None, &[3, 2]),
        expect("[3,2]")
    );
    // The operand wins over the option.
    assert_eq!(
        view(B::RESHAPE, Options::Reshape(&[5]), operand(&[6]), &[6]),
        expect("[6]")
    );
    assert_eq!(
        view(B::SQUEEZE, Options::Squeeze(&[-1]), None, &[1, 6]),
        expect("[1,6]")
    );
    assert_eq!(view(B::SQUEEZE, Options::None, None, &[6]), expect("[6]"));
    assert_eq!(
        view(B::EXPAND_DIMS, Options::None, operand(&[-1]), &[1, 6, 1, 1]),
        expect("[1,6,1,1]")
    );
}

#[test]
fn a_scalar_is_a_shape_without_dimensions() {
    // An empty list has no buffer; old converters wrote [0].
    for shape in [ints("shape", &[0], &[]), ints("shape", &[1], &[0])] {
        let model = Model::of(B::RESHAPE, Options::None, [float("x", &[1, 1]), shape, float("y", &[])]);
        assert_eq!(accepted(&model), r#"%1 "y" : float32[] = reshape(%0)"#);
    }
}

#[test]
fn names_and_positions_are_kept() {
    let tensors = [float("x", &[2]), float("h", &[2]), float("y", &[2]).named(None)];
    let model = Model::new(
        tensors,
        [
            op(B::TANH, &[0], &[1], Options::None),
            op(B::RELU, &[1], &[2], Options::None),
        ],
    );
    let graph = read_with(&model, &[]).unwrap();
    assert_eq!(graph.name, "m");
    let ops: Vec<_> = graph.ops.iter().map(|op| (op.source, op.name.as_str())).collect();
    assert_eq!(ops, [(0, "h"), (1, "tensor2")]);
}

#[test]
fn long_names_are_cut_with_a_hash() {
    let long = |end: &str| "é".repeat(3000) + end;
    let tensors = [float(&long("a"), &[2]), float(&long("b"), &[2])];
    let graph = read_with(&Model::of(B::RELU, Options::None, tensors), &[]).unwrap();
    let names: Vec<&str> = graph.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert!(
        names
            .iter()
            .all(|name| name.len() <= crate::limits::NAME_BYTES && name.starts_with("éé"))
    );
    assert_ne!(names[0], names[1]);
}

#[test]
fn unused_tensors_are_not_looked_at() {
    let model = Model::new(
        [
            float("x", &[2]),
            tensor("s", T::STRING, &[-1]).data(b"..."),
            float("y", &[2]),
        ],
        [op(B::RELU, &[0], &[2], Options::None)],
    );
    assert_eq!(accepted(&model), r#"%1 "y" : float32[2] = relu(%0)"#);
}

#[test]
fn constants_are_ranges_of_the_file() {
    let tensors = [
        float("x", &[2]),
        float("c", &[2]).data(&[1, 2, 3, 4, 5, 6, 7, 8]),
        float("y", &[2]),
    ];
    let model = Model::of(B::ADD, Options::None, tensors);
    let graph = read_with(&model, &[]).unwrap();
    let data = graph.tensors[1].data.as_ref().unwrap();
    assert_eq!(data.as_slice(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn data_may_lie_behind_the_flatbuffer() {
    let make = |offset| {
        let tensors = [float("x", &[2]), float("c", &[2]).placed(offset, 8), float("y", &[2])];
        let mut model = Model::of(B::ADD, Options::None, tensors);
        model.tail = vec![1, 2, 3, 4, 5, 6, 7, 8];
        model
    };
    let end = make(1 << 20).bytes().len() as u64;
    let graph = read_with(&make(end - 8), &[]).unwrap();
    assert_eq!(
        graph.tensors[1].data.as_ref().unwrap().as_slice(),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
    assert_eq!(
        refused(&make(end - 7)),
        format!(
            "buffer 2 holds 8 bytes from {} of the file, which has {end} (at tensor 1 \"c\")",
            end - 7
        )
    );
    assert_eq!(
        refused(&make(u64::MAX)),
        format!(
            "buffer 2 holds 8 bytes from {} of the file, which has {end} (at tensor 1 \"c\")",
            u64::MAX
        )
    );
}

#[test]
fn quantization_of_a_wrong_dimension_is_repaired_where_all_scales_are_equal() {
    let weights = |scale: &[f32], dimension| {
        let constant = tensor("w", T::INT8, &[2, 3])
            .data(&[0; 6])
            .quantized(scale, &vec![0; scale.len()], dimension);
        let tensors = [int8("x", &[1, 3]), constant, int8("y", &[1, 2])];
        let model = Model::of(B::FULLY_CONNECTED, Options::FullyConnected(false, false), tensors);
        read_with(&model, &[]).map(|graph| graph.tensors[1].quantization.clone().unwrap())
    };
    let whole = crate::graph::Quantization::per_tensor(0.25, 0);
    assert_eq!(weights(&[0.25; 2], 7).unwrap(), whole);
    assert_eq!(weights(&[0.25; 2], 1).unwrap(), whole);
    assert_eq!(weights(&[0.25], 7).unwrap(), whole);
    assert_eq!(weights(&[0.25, 0.5], 0).unwrap().axis, Some(0));
    assert_eq!(
        weights(&[0.25, 0.5], -1).unwrap_err().to_string(),
        "the quantization has 2 different scales along dimension -1, but the shape is [2,3] (at tensor 1 \"w\" int8[2,3])"
    );
}

/// A network that can take any batch and any size: convolution, mean over the pixels, dense layer, reshape.
fn flexible() -> Model {
    Model::new(
        [
            float("x", &[1, 4, 4, 1]).signature(&[-1, -1, -1, 1]),
            float("w", &[2, 3, 3, 1]).zeros(18),
            float("h", &[1, 2, 2, 2]),
            ints("axes", &[2], &[1, 2]),
            float("m", &[1, 2]),
            float("k", &[3, 2]).zeros(6),
            float("d", &[1, 3]),
            ints("shape", &[2], &[-1, 1]),
            float("y", &[3, 1]),
        ],
        [
            op(
                B::CONV_2D,
                &[0, 1],
                &[2],
                Options::Conv(P::SAME, [2, 2], [1, 1], A::NONE),
            ),
            op(B::MEAN, &[2, 3], &[4], Options::Reducer(false)),
            op(
                B::FULLY_CONNECTED,
                &[4, 5, -1],
                &[6],
                Options::FullyConnected(false, false),
            ),
            op(B::RESHAPE, &[6, 7], &[8], Options::None),
        ],
    )
}

#[test]
fn a_shape_of_the_user_goes_through_the_whole_model() {
    assert_eq!(
        accepted(&flexible()),
        r#"%2 "h" : float32[1,2,2,2] = conv2d(%0, %1) stride=2x2 pad=0,1,0,1
%3 "m" : float32[1,2] = mean(%2) axes=1,2
%5 "d" : float32[1,3] = fully_connected(%3, %4)
%6 "y" : float32[3,1] = reshape(%5)"#
    );
    assert_eq!(
        listing(&read_with(&flexible(), &[("x", &[2, 7, 5, 1])]).unwrap()),
        r#"%2 "h" : float32[2,4,3,2] = conv2d(%0, %1) stride=2x2 pad=1,1,1,1
%3 "m" : float32[2,2] = mean(%2) axes=1,2
%5 "d" : float32[2,3] = fully_connected(%3, %4)
%6 "y" : float32[6,1] = reshape(%5)"#
    );
}

#[test]
fn dynamic_dimensions_are_inferred_where_the_inputs_are_static() {
    let mut model = flexible();
    model.tensors[4] = float("m", &[-1, 2]);
    assert!(accepted(&model).contains(r#""m" : float32[1,2]"#));
}
