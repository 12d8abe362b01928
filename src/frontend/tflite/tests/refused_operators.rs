//! Operators that are refused, with the message.

use super::build::{Model, Options, Tensor, float, int8, ints, op, tensor};
use super::schema::{ActivationFunctionType as A, BuiltinOperator as B, Padding as P, TensorType as T};
use super::*;

const CONV: Options = Options::Conv(P::VALID, [1, 1], [1, 1], A::NONE);
const POOL: Options = Options::Pool(P::VALID, [2, 2], [1, 1], A::NONE);
const FULL: &str =
    "convert with full integer quantization (int8, with a representative data set) or without quantization";

#[test]
fn unsupported_operators_are_reported_all_at_once() {
    let mut custom = op(B::CUSTOM, &[2], &[3], Options::None);
    custom.custom = Some("Magic");
    let mut newer = op(B::CUSTOM, &[3], &[4], Options::None);
    newer.code = 4711;
    let model = Model::new(
        [
            float("x", &[1, 2]),
            float("a", &[1, 2]),
            float("b", &[1, 2]),
            float("c", &[1, 2]),
            float("y", &[1, 2]),
        ],
        [
            op(B::EXP, &[0], &[1], Options::Unknown(33)),
            op(B::WHILE, &[1], &[2], Options::Unknown(93)),
            custom,
            newer,
        ],
    );
    assert_eq!(
        refused(&model),
        r#"EXP is not supported (at operator 0 EXP "a" (float32[1,2]) -> float32[1,2]); express this part of the network with supported operators (README.md lists them)
WHILE is not supported (at operator 1 WHILE "b" (float32[1,2]) -> float32[1,2]); corerope compiles one graph without control flow: unroll loops and fix branches before conversion
custom operator "Magic" is not supported (at operator 2 custom operator "Magic" "c" (float32[1,2]) -> float32[1,2]); give code for it with --module MANIFEST, and this in the manifest:

module = "…"
objects = ["….o"]

[[function]]
operator = "Magic"
symbol = "magic"
arguments = ["in0", "out0"]
operator code 4711 is unknown (at operator 3 operator code 4711 "y" (float32[1,2]) -> float32[1,2]); the model was made by a newer converter: convert it with an older one"#
    );
}

/// With a module for it, a custom operator has any operands and results.
#[test]
fn custom_operators_with_a_module_are_read() {
    let mut custom = op(B::CUSTOM, &[0, -1, 1], &[2, 3], Options::None);
    custom.custom = Some("Magic");
    let model = Model::new(
        [
            float("x", &[1, 2]),
            float("w", &[1, 3]).data(&[0; 12]),
            float("a", &[1, 4]),
            float("y", &[2, 2]),
        ],
        [custom],
    );
    let options = ReadOptions {
        name: "m".to_owned(),
        custom: ["Magic".to_owned()].into(),
        ..ReadOptions::default()
    };
    let mut model = model;
    model.outputs = vec![2, 3];
    let graph = read(Arc::new(Source::Memory(model.bytes())), &options).unwrap();
    let text = crate::graph::text::print(&graph);
    assert!(
        text.contains("\"a\" : float32[1,4], %3 \"y\" : float32[2,2] = external(%0, %1) call=\"Magic\" status"),
        "{text}"
    );
    assert_eq!(
        crate::graph::text::print(&crate::graph::text::parse(&crate::graph::text::print_full(&graph)).unwrap()),
        text
    );
}

#[test]
fn the_number_of_findings_is_bounded() {
    let tensors = (0..=300).map(|i| float(&format!("t{i}"), &[1]));
    let model = Model::new(tensors, (0..300).map(|i| op(B::EXP, &[i], &[i + 1], Options::None)));
    let message = refused(&model);
    assert_eq!(message.lines().count(), 257);
    assert_eq!(message.lines().last(), Some("and 44 more findings"));
}

#[test]
fn element_types_without_kernels() {
    let i8 = |name| int8(name, &[1, 1, 1, 2]);
    let of = |name, dtype| tensor(name, dtype, &[1, 1, 1, 2]);
    let case = |code, options, tensors: Vec<Tensor>| {
        let mut model = Model::of(code, options, tensors);
        let all = model.tensors.len() as i32 - 1;
        model.inputs = (0..all).collect();
        refused(&model)
    };
    for (message, expect) in [
        (
            case(B::CONV_2D, CONV, vec![float("x", &[1, 1, 1, 2]), i8("w"), float("y", &[1, 1, 1, 1])]),
            format!(
                "CONV_2D of float32 activations and int8 weights (dynamic-range quantization) is not supported (at operator 0 CONV_2D \"y\" (float32[1,1,1,2], int8[1,1,1,2]) -> float32[1,1,1,1]); {FULL}"
            ),
        ),
        (
            {
                let model = Model::of(B::DEQUANTIZE, Options::None, [of("x", T::FLOAT16).data(&[0; 4]), of("y", T::FLOAT32)]);
                refused(&model.inputs(&[]))
            },
            format!(
                "DEQUANTIZE of 16-bit floating-point numbers is not supported (at operator 0 DEQUANTIZE \"y\" (float16[1,1,1,2]) -> float32[1,1,1,2]); {FULL}"
            ),
        ),
        (
            case(B::ADD, Options::None, vec![of("a", T::INT16), of("b", T::INT16), of("y", T::INT16)]),
            "ADD of 16-bit integers is not supported (at operator 0 ADD \"y\" (int16[1,1,1,2], int16[1,1,1,2]) -> int16[1,1,1,2]); convert with int8 activations instead of int16".to_owned(),
        ),
        (
            case(B::MAX_POOL_2D, POOL, vec![of("x", T::UINT8), of("y", T::UINT8)]),
            format!(
                "MAX_POOL_2D of uint8 (the former quantization scheme) is not supported (at operator 0 MAX_POOL_2D \"y\" (uint8[1,1,1,2]) -> uint8[1,1,1,2]); {FULL}"
            ),
        ),
        (
            case(B::FULLY_CONNECTED, CONV, vec![i8("x"), of("w", T::INT4), i8("y")]),
            format!(
                "FULLY_CONNECTED of elements of less than 8 bits is not supported (at operator 0 FULLY_CONNECTED \"y\" (int8[1,1,1,2], int4[1,1,1,2]) -> int8[1,1,1,2]); {FULL}"
            ),
        ),
        (
            case(B::MUL, Options::None, vec![of("a", T::INT32), of("b", T::INT32), of("y", T::INT32)]),
            "MUL of these element types is not supported (at operator 0 MUL \"y\" (int32[1,1,1,2], int32[1,1,1,2]) -> int32[1,1,1,2]); use float32 or int8".to_owned(),
        ),
        (
            case(B::RELU, Options::None, vec![of("x", T(99)), i8("y")]),
            "RELU of these element types is not supported (at operator 0 RELU \"y\" (type 99[1,1,1,2]) -> int8[1,1,1,2]); use float32 or int8".to_owned(),
        ),
    ] {
        assert_eq!(message, expect);
    }
}

/// One operator; the message without its location.
fn operator(code: B, options: Options, tensors: impl IntoIterator<Item = Tensor>) -> String {
    let error = read_with(&Model::of(code, options, tensors), &[]).expect_err("the model should be refused");
    assert!(error.location.is_some(), "{error}");
    assert!(error.more.is_empty(), "{error}");
    match error.help {
        Some(help) => format!("{}; {help}", error.message),
        None => error.message,
    }
}

#[test]
fn operands() {
    let x = || float("x", &[2]);
    assert_eq!(
        operator(B::ADD, Options::None, [x(), x()]),
        "ADD takes 2 operands, not 1"
    );
    let model = Model::of(B::CONV_2D, CONV, [x(), x(), x(), x(), float("y", &[2])]);
    assert_eq!(
        refused(&model.inputs(&[0, 1, 2, 3])),
        r#"CONV_2D takes 2 to 3 operands, not 4 (at operator 0 CONV_2D "y" (float32[2], float32[2], float32[2], float32[2]) -> float32[2])"#
    );
    let mut model = Model::of(B::ADD, Options::None, [x(), float("y", &[2])]);
    model.operators[0].inputs = vec![0, -1];
    assert_eq!(
        refused(&model),
        r#"operand 1 of ADD is absent (at operator 0 ADD "y" (float32[2], none) -> float32[2])"#
    );
    let mut model = Model::of(B::RELU, Options::None, [x(), float("y", &[2]), float("z", &[2])]);
    model.operators[0].inputs = vec![0];
    model.operators[0].outputs = vec![1, 2];
    assert_eq!(
        refused(&model),
        r#"RELU has 2 results instead of one (at operator 0 RELU "y" (float32[2]) -> float32[2], float32[2])"#
    );
}

#[test]
fn options() {
    let tensors = || [float("x", &[1, 4, 4, 1]), float("y", &[1, 3, 3, 1])];
    assert_eq!(
        operator(B::MAX_POOL_2D, Options::None, tensors()),
        "MAX_POOL_2D has no options"
    );
    assert_eq!(
        operator(B::MAX_POOL_2D, CONV, tensors()),
        "the options of MAX_POOL_2D are Conv2DOptions, not Pool2DOptions"
    );
    assert_eq!(
        operator(B::MAX_POOL_2D, Options::Unknown(42), tensors()),
        "the options of MAX_POOL_2D are type 42, not Pool2DOptions"
    );
    let pool = |padding, size, stride, activation| {
        operator(
            B::MAX_POOL_2D,
            Options::Pool(padding, size, stride, activation),
            tensors(),
        )
    };
    assert_eq!(
        pool(P::VALID, [2, 2], [0, 1], A::NONE),
        "the stride of MAX_POOL_2D is 0, not positive"
    );
    assert_eq!(
        pool(P::VALID, [2, 2], [1, i32::MIN], A::NONE),
        "the stride of MAX_POOL_2D is -2147483648, not positive"
    );
    assert_eq!(
        pool(P::VALID, [2, 2], [1, i32::MAX], A::NONE),
        "the stride of MAX_POOL_2D is 2147483647, more than is accepted"
    );
    assert_eq!(
        pool(P::VALID, [-1, 2], [1, 1], A::NONE),
        "the window of MAX_POOL_2D is empty"
    );
    assert_eq!(
        pool(P::VALID, [5, 2], [1, 1], A::NONE),
        "the window of MAX_POOL_2D, 5x2, does not fit the input, 4x4"
    );
    assert_eq!(
        pool(P(2), [2, 2], [1, 1], A::NONE),
        "the padding of MAX_POOL_2D is 2, neither SAME nor VALID"
    );
    assert_eq!(
        pool(P::VALID, [2, 2], [1, 1], A::TANH),
        "MAX_POOL_2D with the fused activation function TANH is not supported; make the activation function an operator of its own"
    );
}

#[test]
fn convolutions() {
    let conv = |x: &[i32], w: &[i32]| {
        let elements: i32 = w.iter().product();
        let tensors = [
            float("x", x),
            float("w", w).zeros(elements as usize),
            float("y", &[1, 4, 4, 2]),
        ];
        operator(B::CONV_2D, CONV, tensors)
    };
    assert_eq!(
        conv(&[4, 4, 1], &[2, 1, 1, 1]),
        "the input of CONV_2D has shape [4,4,1], not 4 dimensions"
    );
    assert_eq!(
        conv(&[1, 4, 4, 1], &[2, 1, 1]),
        "the filter of CONV_2D has shape [2,1,1], not 4 dimensions"
    );
    let depthwise = |channels, stated| {
        let tensors = [
            float("x", &[1, 4, 4, 2]),
            float("w", &[1, 1, 1, channels]).zeros(channels as usize),
            float("y", &[1, 4, 4, channels]),
        ];
        operator(
            B::DEPTHWISE_CONV_2D,
            Options::Depthwise(P::SAME, [1, 1], stated, A::NONE),
            tensors,
        )
    };
    assert_eq!(
        depthwise(3, 1),
        "DEPTHWISE_CONV_2D makes 3 channels of 2, which is no multiple"
    );
    assert_eq!(
        depthwise(4, 3),
        "the depth multiplier of DEPTHWISE_CONV_2D is 3, but its shapes say 2"
    );
}

#[test]
fn fully_connected() {
    let fully_connected = |x: &[i32], shuffled, keep| {
        let tensors = [float("x", x), float("w", &[3, 4]).zeros(12), float("y", &[2, 3])];
        operator(B::FULLY_CONNECTED, Options::FullyConnected(shuffled, keep), tensors)
    };
    let mismatch = |x: &str| format!("FULLY_CONNECTED cannot multiply an input of shape {x} by weights of shape [3,4]");
    assert_eq!(fully_connected(&[2, 5], false, false), mismatch("[2,5]"));
    assert_eq!(fully_connected(&[4, 2], false, true), mismatch("[4,2]"));
    assert_eq!(
        fully_connected(&[1, 4], false, false),
        "the result has shape [1,3], but the model declares [2,3]"
    );
    let tensors = [float("x", &[1 << 30]), float("w", &[1 << 30, 1]), float("y", &[1])];
    let model = Model::of(B::FULLY_CONNECTED, Options::FullyConnected(false, false), tensors).inputs(&[0, 1]);
    assert_eq!(
        read_with(&model, &[]).unwrap_err().message,
        "shape [1073741824,1073741824] has more than 4294967296 elements"
    );
    assert_eq!(
        fully_connected(&[2, 4], true, false),
        "FULLY_CONNECTED with shuffled weights is not supported; convert without shuffled weights"
    );
}

#[test]
fn attributes_must_be_constants_of_integers() {
    let x = || float("x", &[2, 3]);
    let model = |axes: Tensor| Model::of(B::MEAN, Options::None, [x(), axes, float("y", &[2])]);
    assert_eq!(
        refused(&model(tensor("axes", T::INT32, &[1])).inputs(&[0, 1])),
        r#"MEAN with axes computed at run time is not supported (at operator 0 MEAN "y" (float32[2,3], int32[1]) -> float32[2]); make it a constant: convert with static shapes"#
    );
    let mean = |axes: Tensor| operator(B::MEAN, Options::None, [x(), axes, float("y", &[2])]);
    assert_eq!(
        mean(float("axes", &[1]).zeros(1)),
        "the axes operand of MEAN is float32, not int32 or int64"
    );
    assert_eq!(
        mean(ints("axes", &[40], &[0; 40])),
        "the axes operand of MEAN has more than 32 values"
    );
    assert_eq!(
        mean(ints("axes", &[1], &[2])),
        "axis 2 of MEAN does not exist in 2 dimensions"
    );
    assert_eq!(
        mean(ints("axes", &[1], &[-3])),
        "axis -3 of MEAN does not exist in 2 dimensions"
    );
    assert_eq!(
        mean(ints("axes", &[1], &[i32::MIN])),
        "axis -2147483648 of MEAN does not exist in 2 dimensions"
    );
}

#[test]
fn paddings() {
    let pad = |dims: &[i32], values: &[i32]| {
        operator(
            B::PAD,
            Options::None,
            [float("x", &[3]), ints("amounts", dims, values), float("y", &[2])],
        )
    };
    assert_eq!(pad(&[1, 2], &[-1, 0]), "the paddings of PAD are negative");
    assert_eq!(pad(&[2, 2], &[0; 4]), "the paddings of PAD have shape [2,2], not [1,2]");
    assert_eq!(
        pad(&[1, 2], &[i32::MAX, i32::MAX]),
        "shape [4294967297] has more than 4294967296 elements"
    );
    let value = float("value", &[2]).zeros(2);
    assert_eq!(
        operator(
            B::PADV2,
            Options::None,
            [float("x", &[1]), ints("p", &[1, 2], &[1, 0]), value, float("y", &[2])]
        ),
        "the value operand of PADV2 is not a single element"
    );
}

#[test]
fn reshapes() {
    let reshape = |dims: &[i32]| {
        let shape = ints("shape", &[dims.len() as i32], dims);
        operator(
            B::RESHAPE,
            Options::None,
            [float("x", &[2, 3]), shape, float("y", &[6])],
        )
    };
    assert_eq!(reshape(&[-1, -1]), "RESHAPE cannot make [-1,-1] of [2,3]");
    assert_eq!(reshape(&[4, -1]), "RESHAPE cannot make [4,-1] of [2,3]");
    assert_eq!(reshape(&[7]), "RESHAPE cannot make [7] of [2,3]");
    assert_eq!(reshape(&[6, 0]), "RESHAPE cannot make [6,0] of [2,3]");
    assert_eq!(reshape(&[1; 9]), "RESHAPE makes 9 dimensions, more than 8");
    assert_eq!(
        reshape(&[i32::MAX, i32::MAX, i32::MAX]),
        "shape [2147483647,2147483647,2147483647] has more than 4294967296 elements"
    );
    assert_eq!(
        operator(B::RESHAPE, Options::None, [float("x", &[6]), float("y", &[6])]),
        "RESHAPE has neither a shape operand nor a shape option"
    );
    assert_eq!(
        operator(
            B::SQUEEZE,
            Options::Squeeze(&[1]),
            [float("x", &[1, 6]), float("y", &[1, 6])]
        ),
        "SQUEEZE cannot drop dimension 1 of [1,6]"
    );
    assert_eq!(
        operator(
            B::EXPAND_DIMS,
            Options::None,
            [float("x", &[6]), ints("a", &[2], &[0, 0]), float("y", &[1, 6])]
        ),
        "EXPAND_DIMS has 2 axes instead of one"
    );
}

#[test]
fn the_rest() {
    assert_eq!(
        operator(
            B::SOFTMAX,
            Options::Softmax(f32::NAN),
            [float("x", &[2]), float("y", &[2])]
        ),
        "the beta of SOFTMAX is NaN, not a positive number"
    );
    let concat = |axis, activation| {
        let tensors = [float("a", &[2]), float("b", &[2]).zeros(2), float("y", &[4])];
        operator(B::CONCATENATION, Options::Concat(axis, activation), tensors)
    };
    assert_eq!(
        concat(1, A::NONE),
        "axis 1 of CONCATENATION does not exist in 1 dimensions"
    );
    assert_eq!(
        concat(0, A::RELU),
        "CONCATENATION with a fused activation function is not supported; make the activation function an operator of its own"
    );
}

#[test]
fn transposes() {
    let transpose = |axes: &[i32], output: build::Tensor| {
        let axes = ints("axes", &[axes.len() as i32], axes);
        operator(B::TRANSPOSE, Options::None, [int8("x", &[2, 3]), axes, output])
    };
    let y = || int8("y", &[3, 2]);
    for axes in [&[1][..], &[1, 1], &[1, 0, 0]] {
        assert_eq!(
            transpose(axes, y()),
            format!("the permutation of TRANSPOSE, {axes:?}, is not an order of the 2 dimensions of [2,3]")
        );
    }
    assert_eq!(
        transpose(&[1, 2], y()),
        "axis 2 of TRANSPOSE does not exist in 2 dimensions"
    );
    assert_eq!(
        transpose(&[1, 0], y().quantized(&[0.25], &[-1], 0)),
        "transpose keeps the quantization, but \"x\" int8[2,3] has scale 0.5 and zero point -1, and \"y\" int8[3,2] has 0.25 and -1; insert a quantize operator between them, or convert the model again with a current converter"
    );
}

#[test]
fn sums_of_many() {
    let add_n = |tensors: Vec<Tensor>| {
        let mut model = Model::of(B::ADD_N, Options::None, tensors);
        model.inputs = (0..model.tensors.len() as i32 - 1).collect();
        let error = read_with(&model, &[]).expect_err("the model should be refused");
        format!("{}; {}", error.message, error.help.unwrap_or_default())
    };
    let x = |name| float(name, &[2, 3]);
    assert_eq!(add_n(vec![x("a"), x("y")]), "ADD_N takes 2 operands at least, not 1; ");
    assert_eq!(
        add_n(vec![x("a"), x("b"), float("c", &[3]), x("y")]),
        "ADD_N adds tensors of one shape, not [2,3] and [3]; "
    );
    let q = |name| int8(name, &[2]);
    assert_eq!(
        add_n(vec![q("a"), q("b"), q("c"), q("y")]),
        "ADD_N of int8, which rounds once for all operands, is not supported; use ADD, or ADD_N of float32 between DEQUANTIZE and QUANTIZE"
    );
}

#[test]
fn products_of_matrices() {
    let product = |x: &[i32], y: Tensor, output: &[i32]| {
        let tensors = [int8("x", x), y, int8("y", output)];
        let model = Model::of(B::BATCH_MATMUL, Options::BatchMatMul(false, true), tensors).inputs(&[0, 1]);
        let error = read_with(&model, &[]).expect_err("the model should be refused");
        format!("{}; {}", error.message, error.help.unwrap_or_default())
    };
    assert_eq!(
        product(&[2, 3, 4], int8("w", &[2, 5, 4]), &[2, 3, 5]),
        "BATCH_MATMUL by the matrices of [2,5,4] is not supported: the second operand may hold only one; split it into one BATCH_MATMUL for each matrix"
    );
    assert_eq!(
        product(&[3, 4], int8("w", &[4, 5]), &[3, 5]),
        "BATCH_MATMUL cannot multiply [3,4] by [4,5] transposed; "
    );
    assert_eq!(
        product(&[4], int8("w", &[5, 4]), &[5]),
        "BATCH_MATMUL cannot multiply [4] by [5,4] transposed; "
    );
    assert_eq!(
        product(&[3, 4], int8("w", &[5, 4]), &[3, 4]),
        "the result has shape [3,5], but the model declares [3,4]; "
    );
    assert_eq!(
        product(&[3, 4], int8("w", &[2, 4]).quantized(&[0.5, 0.25], &[0, 0], 0), &[3, 2]),
        "BATCH_MATMUL with operand 1 quantized per axis is not supported; quantize its operands per tensor"
    );
}
