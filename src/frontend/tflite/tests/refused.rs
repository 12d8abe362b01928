//! Files, tensors and structures that are refused, with the message.

use super::build::{Model, Operator, Options, Tensor, float, int8, ints, op, tensor, weights};
use super::schema::{BuiltinOperator as B, TensorType as T};
use super::*;

/// x → RELU → y, with these tensors.
fn relu(x: Tensor, y: Tensor) -> Model {
    Model::of(B::RELU, Options::None, [x, y])
}

fn simple() -> Model {
    relu(float("x", &[2]), float("y", &[2]))
}

#[test]
fn tensors_that_cannot_be_had() {
    let mut model = simple();
    model.tensors.push(tensor("s", T::STRING, &[1]));
    assert_eq!(
        refused(&model.inputs(&[0, 2])),
        r#"tensors of string are not supported (at tensor 2 "s" string[1]); use float32 or int8"#
    );
    for (w, expect) in [
        (
            float("w", &[2]).zeros(2).sparse(),
            "sparse tensors are not supported; convert without sparsity",
        ),
        (
            float("w", &[2]).external(1),
            "data in external buffer files are not supported; convert with the data inside the model file",
        ),
        (
            float("w", &[2]).variable(),
            "variables that keep their value between runs are not supported; make the state an input and an output of the model",
        ),
    ] {
        let (what, help) = expect.split_once("; ").unwrap();
        let model = Model::of(B::ADD, Options::None, [float("x", &[2]), w, float("y", &[2])]);
        let at = "operator 0 ADD \"y\" (float32[2], float32[2]) -> float32[2]";
        assert_eq!(refused(&model), format!("{what} (at {at}); {help}"));
    }
    let mut model = relu(float("x", &[2]), float("y", &[2]));
    model.tensors.push(float("v", &[2]).variable());
    model.outputs = vec![2];
    assert_eq!(
        refused(&model),
        "a model output that no operator computes is not supported (at tensor 2 \"v\")"
    );
}

#[test]
fn broken_files() {
    let good = simple().bytes();
    let help = "; it may be cut short or changed on its way: fetch or convert it again";
    let cut = |n: usize| read_bytes(good[..n].to_vec(), &[]).unwrap_err().to_string();
    assert_eq!(
        cut(8),
        format!("the model file is damaged: bytes 24 to 28 lie outside of its 8{help}")
    );
    for n in 8..good.len() {
        // The last bytes are strings or padding, of which a few may be missing.
        if read_bytes(good[..n].to_vec(), &[]).is_ok() {
            assert!(
                n + 8 > good.len(),
                "a model without its last {} bytes is read",
                good.len() - n
            );
        }
    }
    let mut wild = good.clone();
    wild[0..4].copy_from_slice(&0xfff0_u32.to_le_bytes());
    assert_eq!(
        read_bytes(wild, &[]).unwrap_err().to_string(),
        format!(
            "the model file is damaged: bytes 65520 to 65524 lie outside of its {}{help}",
            good.len()
        )
    );
}

#[test]
fn versions_and_subgraphs() {
    let mut model = simple();
    model.version = 2;
    assert_eq!(
        refused(&model),
        "version 2 of the TensorFlow Lite format is not supported; convert the model again: current converters write version 3"
    );
    let mut model = simple();
    model.subgraphs = 0;
    assert_eq!(refused(&model), "the model has no subgraph");
    model.subgraphs = 3;
    assert!(read_with(&model, &[]).is_ok());
}

#[test]
fn names() {
    let model = relu(float("a\0b", &[2]), float("y", &[2]));
    assert_eq!(
        refused(&model),
        r#"the tensor's name contains a NUL character (at tensor 0 "a\0b")"#
    );
    let model = relu(float("x", &[2]), float("", &[2]).named(Some(b"\xff\xfe")));
    assert_eq!(
        refused(&model),
        "a name in the model is not valid UTF-8 (at subgraphs[0].tensors[1].name)"
    );
}

#[test]
fn indices() {
    let change = |change: &dyn Fn(&mut Model)| {
        let mut model = simple();
        change(&mut model);
        refused(&model)
    };
    let expect = "(at operator 0)";
    assert_eq!(
        change(&|model| model.operators[0].inputs = vec![2]),
        format!("operand 0 refers to tensor 2, but there are 2 {expect}")
    );
    assert_eq!(
        change(&|model| model.operators[0].inputs = vec![-2]),
        format!("operand 0 refers to tensor -2, but there are 2 {expect}")
    );
    assert_eq!(
        change(&|model| model.operators[0].outputs = vec![i32::MAX]),
        format!("result 0 refers to tensor 2147483647, but there are 2 {expect}")
    );
    assert_eq!(
        change(&|model| (model.inputs, model.outputs) = (vec![-1], vec![9])),
        "model input 0 refers to tensor -1, but there are 2\nmodel output 0 refers to tensor 9, but there are 2"
    );
    assert_eq!(
        change(&|model| model.tensors[1] = float("y", &[2]).buffer(17)),
        "the tensor refers to buffer 17, but the model has 3 (at tensor 1 \"y\")"
    );
    assert_eq!(change(&|model| model.outputs.clear()), "the model has no outputs");
}

#[test]
fn order_and_aliasing() {
    let tensors = || {
        [
            float("x", &[2]),
            float("a", &[2]),
            float("c", &[2]).zeros(2),
            float("y", &[2]),
        ]
    };
    let relu = |from: i32, to: i32| op(B::RELU, &[from], &[to], Options::None);
    let case = |operators: Vec<Operator>| refused(&Model::new(tensors(), operators));
    assert_eq!(
        case(vec![relu(1, 3), relu(0, 1)]),
        r#"the operand tensor 1 "a" float32[2] of RELU is the result of operator 1, which runs later (at operator 0 RELU "y")"#
    );
    assert_eq!(
        case(vec![relu(3, 1), relu(1, 3)]),
        r#"the operand tensor 3 "y" float32[2] of RELU is the result of operator 1, which runs later (at operator 0 RELU "a")"#
    );
    assert_eq!(
        case(vec![relu(3, 3)]),
        r#"the operand tensor 3 "y" float32[2] of RELU is its own result (at operator 0 RELU "y")"#
    );
    assert_eq!(
        case(vec![relu(1, 3)]),
        r#"the operand tensor 1 "a" float32[2] of RELU is neither a constant nor a model input, and nothing produces it (at operator 0 RELU "y")"#
    );
    assert_eq!(
        case(vec![relu(0, 3), relu(0, 3)]),
        r#"the result tensor 3 "y" float32[2] of RELU is already the result of operator 0 (at operator 1 RELU "y")"#
    );
    assert_eq!(
        case(vec![relu(0, 3), relu(0, 2)]),
        r#"the result tensor 2 "c" float32[2] of RELU is a constant (at operator 1 RELU "c")"#
    );
    assert_eq!(
        case(vec![relu(0, 3), relu(3, 0)]),
        r#"the result tensor 0 "x" float32[2] of RELU is a model input (at operator 1 RELU "x")"#
    );
    assert_eq!(
        case(vec![relu(0, 1)]),
        r#"nothing produces this model output (at tensor 3 "y" float32[2])"#
    );
    let model = Model::new(tensors(), [relu(0, 3)]);
    assert_eq!(
        refused(&model.clone().inputs(&[0, 0])),
        r#"the tensor is a model input twice (at tensor 0 "x" float32[2])"#
    );
    assert_eq!(
        refused(&model.inputs(&[0, 2])),
        r#"a model input is a constant (at tensor 2 "c" float32[2])"#
    );
}

#[test]
fn sizes() {
    let with = |w: Tensor| {
        refused(&Model::of(
            B::ADD,
            Options::None,
            [float("x", &[2]), w, float("y", &[2])],
        ))
    };
    assert_eq!(
        with(float("w", &[3]).zeros(2)),
        r#"the tensor's data have 8 bytes, but float32[3] has 12 (at tensor 1 "w")"#
    );
    assert_eq!(
        with(float("w", &[-1]).zeros(2)),
        r#"float32[-1] has a negative dimension (at tensor 1 "w")"#
    );
    assert_eq!(
        with(float("w", &[65536, 65537]).zeros(2)),
        r#"shape [65536,65537] has more than 4294967296 elements (at tensor 1 "w")"#
    );
    // The zero must not hide what other sizes come to.
    assert_eq!(
        with(float("w", &[i32::MAX, 0, i32::MAX, i32::MAX]).zeros(2)),
        r#"shape [2147483647,0,2147483647,2147483647] has more than 4294967296 elements (at tensor 1 "w")"#
    );
    assert_eq!(
        with(float("w", &[1; 9]).zeros(1)),
        r#"the tensor has 9 dimensions, more than 8 (at tensor 1 "w")"#
    );
}

#[test]
fn dynamic_shapes() {
    let model = relu(float("x", &[-1, 0, 3]), float("y", &[-1, 2, 3]));
    assert_eq!(
        refused(&model),
        r#"the shape of input "x", float32[-1,0,3], is not static; fix it, for example with --shape x=1,1,3"#
    );
    assert_eq!(
        listing(&read_with(&model, &[("x", &[4, 2, 3])]).unwrap()),
        r#"%1 "y" : float32[4,2,3] = relu(%0)"#
    );
    for (shapes, expect) in [
        (
            &[("z", &[1_usize][..])][..],
            r#"--shape: the model has no input "z"; its inputs are "x""#,
        ),
        (
            &[("x", &[1, 2])],
            r#"--shape: input "x" is float32[-1,0,3] and cannot get 2 dimensions"#,
        ),
        (
            &[("x", &[1, 2, 0])],
            r#"--shape: dimensions of input "x" must be at least 1"#,
        ),
        (
            &[("x", &[1, 2, 3]), ("x", &[1, 2, 3])],
            r#"--shape: input "x" is given twice"#,
        ),
        (
            &[("x", &[usize::MAX, usize::MAX, 3])],
            r#"shape [18446744073709551615,18446744073709551615,3] has more than 4294967296 elements (at --shape of input "x")"#,
        ),
    ] {
        assert_eq!(read_with(&model, shapes).unwrap_err().to_string(), expect);
    }
}

#[test]
fn a_shape_that_the_model_cannot_take() {
    let tensors = [float("x", &[1, 6]), ints("shape", &[2], &[2, 3]), float("y", &[2, 3])];
    let model = Model::of(B::RESHAPE, Options::None, tensors);
    assert_eq!(
        read_with(&model, &[("x", &[2, 6])]).unwrap_err().to_string(),
        r#"RESHAPE cannot make [2,3] of [2,6] (at operator 0 RESHAPE "y" (float32[2,6], int32[2]) -> float32[2,3])"#
    );
}

#[test]
fn quantization() {
    let with = |x: Tensor| refused(&Model::of(B::RELU, Options::None, [x, int8("y", &[2])]));
    let x = || tensor("x", T::INT8, &[2]);
    let at = "(at tensor 0 \"x\" int8[2])";
    for (scale, expect) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (0.0, "0"), (-0.5, "-0.5")] {
        assert_eq!(
            with(x().quantized(&[scale], &[0], 0)),
            format!("quantization scale 0 is {expect}, not a positive number {at}")
        );
    }
    assert_eq!(
        with(x().quantized(&[1.0, 2.0], &[0, 0, 0], 0)),
        format!("the quantization has 2 scales but 3 zero points {at}")
    );
    assert_eq!(
        with(x().quantized(&[1.0], &[i64::MIN], 0)),
        format!("zero point -9223372036854775808 is not a value of int8 {at}")
    );
    assert_eq!(
        with(x().quantized(&[1.0], &[128], 0)),
        format!("zero point 128 is not a value of int8 {at}")
    );
    assert_eq!(
        with(x().quantized(&[1.0], &[0], 0).details(2)),
        format!("custom and blockwise quantization are not supported {at}; quantize weights per tensor or per channel")
    );
}

#[test]
fn what_the_verifier_finds_is_reported_too() {
    let tensors = [
        int8("x", &[1, 2]),
        weights("w", &[3, 2], 3, 0),
        tensor("y", T::INT8, &[1, 3]),
    ];
    let model = Model::of(B::FULLY_CONNECTED, Options::FullyConnected(false, false), tensors);
    assert!(
        refused(&model).contains("has no scale and zero point"),
        "{}",
        refused(&model)
    );
}
