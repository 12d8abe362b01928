use super::{verify, verify_outputs};
use crate::data::Bytes;
use crate::graph::text::parse;
use crate::graph::{Graph, OpId, TensorId};

/// What the verifier says about a graph in the text form: `ok`, or every finding as `place: message`.
fn check(text: &str) -> String {
    show(&parse(text).unwrap())
}

fn show(graph: &Graph) -> String {
    let Err(error) = verify(graph) else {
        return "ok".into();
    };
    let line = |error: &crate::error::Error| format!("{}: {}", error.location.as_deref().unwrap_or("?"), error.message);
    std::iter::once(&error)
        .chain(&error.more)
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A convolution, with parts of the text replaced.
fn conv(replace: &[(&str, &str)]) -> String {
    let mut text = r#"
input %0 "x" : int8[1,4,4,2] q(0.5,-1)
const %1 "w" : int8[2,3,3,2] q(axis=0, 0.25:0, 0.5:0) = fill(-3)
const %2 "b" : int32[2] = [1, 2]
%3 "y" : int8[1,2,2,2] q(0.25,-128) = conv2d(%0, %1, %2) stride=2x2 pad=1,0,1,0
output %3
"#
    .to_owned();
    for (from, to) in replace {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    check(&text)
}

#[test]
fn convolution() {
    let at = |message: &str| format!("operator 0 conv2d \"y\": {message}");
    assert_eq!(conv(&[]), "ok");
    assert_eq!(conv(&[("q(axis=0, 0.25:0, 0.5:0)", "q(0.5,0)")]), "ok");
    assert_eq!(
        conv(&[("q(axis=0, 0.25:0, 0.5:0)", "q(0.5,1)")]),
        at("\"w\" int8[2,3,3,2] has the zero points [1]: int8 filters must be symmetric")
    );
    assert_eq!(
        conv(&[("axis=0", "axis=3")]),
        at("\"w\" int8[2,3,3,2] is quantized along another dimension than 0")
    );
    assert_eq!(
        conv(&[("axis=0", "axis=1")]),
        "tensor 1 \"w\" int8[2,3,3,2]: 2 scales do not fit the quantized dimension 1"
    );
    assert_eq!(
        conv(&[(" q(axis=0, 0.25:0, 0.5:0)", "")]),
        at("\"w\" int8[2,3,3,2] has no scale and zero point")
    );
    assert_eq!(
        conv(&[(" q(0.5,-1)", "")]),
        at("\"x\" int8[1,4,4,2] has no scale and zero point")
    );
    assert_eq!(
        conv(&[("int32[2]", "int16[2]")]),
        at(
            "conv2d from \"x\" int8[1,4,4,2], \"w\" int8[2,3,3,2], \"b\" int16[2] to \"y\" int8[1,2,2,2] is not supported"
        )
    );
    assert_eq!(
        conv(&[("int8[1,2,2,2]", "int8[1,3,2,2]")]),
        at("the result has the shape [1,2,2,2], but the model declares \"y\" int8[1,3,2,2]")
    );
    assert_eq!(
        conv(&[("q(0.25,-128)", "q(1e-12,-128)")]),
        at("the scales of operands and result differ by a factor of 2.500e11: results would not fit 32 bits")
    );
    assert_eq!(
        conv(&[("const %2 \"b\" : int32[2] = [1, 2]", "input %2 \"b\" : int32[2]")]),
        at("the bias \"b\" int32[2] is not a constant")
    );
}

#[test]
fn tensors() {
    let tensor = |ty: &str| check(&format!("input %0 \"x\" : {ty}\noutput %0"));
    let at = |ty: &str, message: &str| format!("tensor 0 \"x\" {ty}: {message}");
    assert_eq!(tensor("int8[1]"), "ok");
    assert_eq!(
        tensor("int8[1] q(0.0,0)"),
        at("int8[1]", "scale 0 is not a positive number")
    );
    assert_eq!(
        tensor("int8[1] q(nan,0)"),
        at("int8[1]", "scale NaN is not a positive number")
    );
    assert_eq!(
        tensor("int8[1] q(inf,0)"),
        at("int8[1]", "scale inf is not a positive number")
    );
    assert_eq!(
        tensor("int8[1] q(1.0,128)"),
        at("int8[1]", "zero point 128 is outside the range of int8")
    );
    assert_eq!(
        tensor("uint8[1] q(1.0,-1)"),
        at("uint8[1]", "zero point -1 is outside the range of uint8")
    );
    assert_eq!(
        tensor("int8[2] q(axis=0, 1.0:0)"),
        at("int8[2]", "1 scales do not fit the quantized dimension 0")
    );
    assert_eq!(
        tensor("int8[2] q(axis=0)"),
        at("int8[2]", "0 scales with 0 zero points")
    );
    let empty = at("int8[0]", "a model input or output has no elements");
    assert_eq!(tensor("int8[0]"), format!("{empty}\n{empty}"));
    assert_eq!(
        tensor("int8[65536,65537]"),
        at(
            "int8[65536,65537]",
            "[65536,65537] has more than the 4294967296 elements that a tensor may have"
        )
    );
    assert_eq!(
        tensor("int8[4294967296,4294967296]"),
        at(
            "int8[4294967296,4294967296]",
            "[4294967296,4294967296] has more than the 4294967296 elements that a tensor may have"
        )
    );
    assert_eq!(
        tensor("int8[1,1,1,1,1,1,1,1,1]"),
        at("int8[1,1,1,1,1,1,1,1,1]", "9 dimensions, at most 8 are supported")
    );
}

const RELU: &str = "input %0 \"x\" : float32[2]\n%1 \"y\" : float32[2] = relu(%0)\noutput %1\n";

/// RELU after a change that the text form cannot say.
fn broken(change: impl FnOnce(&mut Graph)) -> String {
    let mut graph = parse(RELU).unwrap();
    change(&mut graph);
    show(&graph)
}

#[test]
fn structure() {
    let op = "operator 0 relu \"y\"";
    assert_eq!(broken(|_| ()), "ok");
    assert_eq!(
        broken(|graph| graph.ops[0].inputs[0] = TensorId(7)),
        format!("{op}: tensor 7 does not exist: there are 2")
    );
    assert_eq!(
        broken(|graph| graph.ops[0].outputs[0] = TensorId(u32::MAX)),
        format!(
            "{op}: tensor 4294967295 does not exist: there are 2\ntensor 1 \"y\" float32[2]: nothing produces this model output"
        )
    );
    assert_eq!(
        broken(|graph| graph.inputs[0] = TensorId(9)),
        format!(
            "the model's inputs: tensor 9 does not exist: there are 2\n{op}: operand tensor 0 \"x\" float32[2] has no value yet: no operator before this one produces it"
        )
    );
    assert_eq!(
        broken(|graph| graph.outputs[0] = TensorId(9)),
        "the model's outputs: tensor 9 does not exist: there are 2"
    );
    assert_eq!(broken(|graph| graph.outputs.clear()), "?: the model has no outputs");
    assert_eq!(
        broken(|graph| graph.inputs.push(TensorId(0))),
        "tensor 0 \"x\" float32[2]: the same tensor is a model input twice"
    );
    assert_eq!(
        broken(|graph| graph.tensors[0].data = Some(Bytes::from_vec(vec![0; 8]))),
        "tensor 0 \"x\" float32[2]: a constant cannot be a model input"
    );
    assert_eq!(
        broken(|graph| graph.tensors[1].data = Some(Bytes::from_vec(vec![0; 8]))),
        format!("{op}: result tensor 1 \"y\" float32[2] is already a constant")
    );
    assert_eq!(
        broken(|graph| graph.tensors[1].data = Some(Bytes::from_vec(vec![0; 7]))),
        "tensor 1 \"y\" float32[2]: the constant has 7 bytes, its shape and type need 8"
    );
    assert_eq!(
        broken(|graph| graph.ops[0].outputs[0] = TensorId(0)),
        format!(
            "{op}: result tensor 0 \"x\" float32[2] is already a model input\ntensor 1 \"y\" float32[2]: nothing produces this model output"
        )
    );
    assert_eq!(
        broken(|graph| graph.ops.push(graph.op(OpId(0)).clone())),
        format!("{op}: result tensor 1 \"y\" float32[2] is already the result of another operator")
    );
    assert_eq!(
        broken(|graph| graph.ops[0].inputs[0] = TensorId(1)),
        format!("{op}: operand tensor 1 \"y\" float32[2] has no value yet: no operator before this one produces it")
    );
    assert_eq!(
        broken(|graph| graph.ops[0].outputs.clear()),
        format!("{op}: relu has one result, not 0\ntensor 1 \"y\" float32[2]: nothing produces this model output")
    );
    assert_eq!(
        broken(|graph| graph.ops[0].inputs.clear()),
        format!("{op}: relu takes 1 operands, not 0")
    );
    assert_eq!(
        broken(|graph| graph.ops[0].inputs = vec![TensorId(0); 1025]),
        format!("{op}: 1025 operands, at most 1024 are supported")
    );
}

/// One int8 operator from `x` (scale 0.5, zero point 3) to `y`.
fn int8(output: &str, op: &str) -> String {
    let text = format!("input %0 \"x\" : int8[1,4,4,2] q(0.5,3)\n%1 \"y\" : {output} = {op}\noutput %1");
    check(&text).replace("operator 0 ", "")
}

#[test]
fn quantization_by_operator() {
    let moved = |op: &str, ty: &str, y: &str| {
        format!(
            "{op} \"y\": {op} keeps the quantization, but \"x\" int8[1,4,4,2] has scale 0.5 and zero point 3, and \"y\" {ty} has {y}"
        )
    };
    assert_eq!(int8("int8[1,3,3,2] q(0.5,3)", "max_pool2d(%0) window=2x2"), "ok");
    // Within what LiteRT takes for equal.
    assert_eq!(int8("int8[1,3,3,2] q(0.5000005,3)", "max_pool2d(%0) window=2x2"), "ok");
    assert_eq!(
        int8("int8[1,3,3,2] q(0.51,3)", "max_pool2d(%0) window=2x2"),
        moved("max_pool2d", "int8[1,3,3,2]", "0.51 and 3")
    );
    assert_eq!(
        int8("int8[1,4,4,4] q(0.5,4)", "concat(%0, %0) axis=3"),
        moved("concat", "int8[1,4,4,4]", "0.5 and 4")
    );
    assert_eq!(int8("int8[32]", "reshape(%0)"), "ok");
    assert_eq!(
        int8("float32[32]", "reshape(%0)"),
        "reshape \"y\": reshape from \"x\" int8[1,4,4,2] to \"y\" float32[32] is not supported"
    );
    assert_eq!(int8("int8[1,4,4,2] q(0.00390625,-128)", "softmax(%0)"), "ok");
    assert_eq!(
        int8("int8[1,4,4,2] q(0.5,3)", "softmax(%0)"),
        "softmax \"y\": softmax on int8 has results of scale 0.00390625 and zero point -128, but \"y\" int8[1,4,4,2] has 0.5 and 3"
    );
    assert_eq!(
        int8("int8[1,4,4,2] q(0.00390625,-128)", "softmax(%0) beta=inf"),
        "softmax \"y\": beta inf is not a number"
    );
    assert_eq!(int8("int8[1,4,4,2] q(0.0078125,0)", "tanh(%0)"), "ok");
    assert_eq!(int8("int8[1,4,4,2] q(0.1,-128)", "relu(%0)"), "ok");
    assert_eq!(int8("float32[1,4,4,2]", "dequantize(%0)"), "ok");
    assert_eq!(int8("uint8[1,4,4,2] q(0.5,131)", "quantize(%0)"), "ok");
    assert_eq!(
        int8("int8[1,4,4,2]", "quantize(%0)"),
        "quantize \"y\": \"y\" int8[1,4,4,2] has no scale and zero point"
    );
    assert_eq!(
        int8("int8[1,4,4,2] q(1e-8,0)", "add(%0, %0)"),
        "add \"y\": the scales of the operands are 5.000e7 times that of the result: sums would not fit 32 bits"
    );
    assert_eq!(
        int8("int8[1,4,4,2] q(1.0,0)", "lookup(%0, %0)"),
        "lookup \"y\": table [1,4,4,2] is not [256]"
    );
}

#[test]
fn several_findings_at_once() {
    let text =
        "input %0 \"x\" : float32[2]\n%1 \"a\" : float32[3] = relu(%0)\n%2 \"b\" : int8[2] = relu(%0)\noutput %1, %2";
    assert_eq!(
        check(text),
        "operator 0 relu \"a\": the result has the shape [2], but the model declares \"a\" float32[3]\n\
         operator 1 relu \"b\": relu from \"x\" float32[2] to \"b\" int8[2] is not supported"
    );
}

#[test]
fn empty_tensors_are_refused_where_they_are_used() {
    let text =
        "input %0 \"x\" : float32[2]\nconst %1 \"c\" : float32[0] = []\n%2 \"a\" : float32[2] = relu(%0)\noutput %2";
    assert_eq!(check(text), "ok");
    let text = "input %0 \"x\" : float32[2]\nconst %1 \"c\" : float32[0] = []\n%2 \"a\" : float32[2] = concat(%0, %1) axis=0\noutput %2";
    assert_eq!(check(text), "operator 0 concat \"a\": \"c\" float32[0] has no elements");
}

#[test]
fn dense_layers_have_zero_points_and_computed_weights() {
    let dense = |weights: &str| {
        check(&format!(
            "input %0 \"x\" : int8[1,2] q(0.5,3)\n{weights}\n%3 \"y\" : int8[1,2] q(0.5,0) = fully_connected(%0, %2)\noutput %3\nconst %1 : int8[4] q(0.5,0) = fill(1)"
        ))
    };
    assert_eq!(dense("const %2 \"w\" : int8[2,2] q(0.5,7) = fill(1)"), "ok");
    assert_eq!(
        dense("const %2 \"w\" : int8[2,2] q(axis=0, 0.5:0, 0.25:0) = fill(1)"),
        "ok"
    );
    assert_eq!(
        dense("const %2 \"w\" : int8[2,2] q(axis=0, 0.5:0, 0.25:1) = fill(1)"),
        "operator 0 fully_connected \"y\": \"w\" int8[2,2] has the zero points [0, 1]: int8 filters must be symmetric"
    );
    assert_eq!(dense("input %2 \"w\" : int8[2,2] q(0.5,7)"), "ok");
    assert_eq!(
        dense("input %2 \"w\" : int8[2,2] q(axis=0, 0.5:0, 0.25:0)"),
        "operator 0 fully_connected \"y\": \"w\" int8[2,2] is quantized per axis: only constant weights of convolutions and dense layers can be"
    );
}

#[test]
fn filters_are_constant_or_computed_from_constants() {
    let conv = |filter: &str| {
        check(&format!(
            "input %0 \"x\" : float32[1,2,2,1]\nconst %1 \"c\" : float32[4] = fill(1.0)\n{filter}\n%3 \"y\" : float32[1,1,1,1] = conv2d(%0, %2)\noutput %3"
        ))
    };
    assert_eq!(conv("%2 \"w\" : float32[1,2,2,1] = reshape(%1)"), "ok");
    assert_eq!(
        conv("%2 \"w\" : float32[1,2,2,1] = relu(%0)"),
        "operator 1 conv2d \"y\": the filter \"w\" float32[1,2,2,1] is not a constant"
    );
    // Copies are never folded.
    assert_eq!(
        conv("const %4 : float32[1,2,2,1] = fill(1.0)\n%2 \"w\" : float32[1,2,2,1] = copy(%4)"),
        "operator 1 conv2d \"y\": the filter \"w\" float32[1,2,2,1] is not a constant"
    );
}

#[test]
fn other_types() {
    let op = |ty: &str, op: &str| check(&format!("input %0 \"x\" : {ty}\n%1 \"y\" : {op}\noutput %1"));
    assert_eq!(op("int32[2]", "int32[2] = add(%0, %0) act=relu"), "ok");
    assert_eq!(op("int32[2]", "int32[3] = pad(%0) amounts=0:1"), "ok");
    assert_eq!(op("uint8[2] q(0.5,1)", "uint8[4] q(0.5,1) = concat(%0, %0)"), "ok");
    assert_eq!(op("float32[2]", "uint8[2] q(0.5,1) = quantize(%0)"), "ok");
    assert_eq!(
        op("int64[2]", "int64[2] = add(%0, %0)"),
        "operator 0 add \"y\": add from \"x\" int64[2], \"x\" int64[2] to \"y\" int64[2] is not supported"
    );
    assert_eq!(
        op("int16[2] q(0.5,0)", "int16[2] q(0.5,0) = relu(%0)"),
        "operator 0 relu \"y\": relu from \"x\" int16[2] to \"y\" int16[2] is not supported"
    );
}

#[test]
fn transposes_keep_type_and_quantization() {
    let turn = |from: &str, to: &str| {
        check(&format!(
            "input %0 \"x\" : {from}\n%1 \"y\" : {to} = transpose(%0) permutation=1,0\noutput %1"
        ))
    };
    assert_eq!(turn("int64[2,3]", "int64[3,2]"), "ok");
    assert_eq!(turn("int8[2,3] q(0.5,1)", "int8[3,2] q(0.5,1)"), "ok");
    let at = |message: &str| format!("operator 0 transpose \"y\": {message}");
    assert_eq!(
        turn("int8[2,3] q(0.5,1)", "int8[3,2] q(0.5,2)"),
        at(
            "transpose keeps the quantization, but \"x\" int8[2,3] has scale 0.5 and zero point 1, and \"y\" int8[3,2] has 0.5 and 2"
        )
    );
    assert_eq!(
        turn(
            "int8[2,3] q(axis=0, 0.5:0, 0.25:0)",
            "int8[3,2] q(axis=1, 0.5:0, 0.25:0)"
        ),
        at("\"x\" int8[2,3] is quantized per axis: only constant weights of convolutions and dense layers can be")
    );
    assert_eq!(
        turn("int16[2,3]", "int32[3,2]"),
        at("transpose from \"x\" int16[2,3] to \"y\" int32[3,2] is not supported")
    );
    assert_eq!(
        turn("float32[2,3]", "float32[2,3]"),
        at("the result has the shape [3,2], but the model declares \"y\" float32[2,3]")
    );
}

#[test]
fn outputs_have_storage_of_their_own() {
    let outputs = |text: &str| match verify_outputs(&parse(text).unwrap()) {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.location.unwrap(),
    };
    let two = "input %0 : int8[2]\n%1 \"a\" : int8[2] = copy(%0)\n%2 \"b\" : int8[1,2] = reshape(%1)\n";
    assert_eq!(outputs(&format!("{two}output %2")), "ok");
    assert_eq!(outputs(&format!("{two}output %1, %2")), "tensor 2 \"b\" int8[1,2]");
    assert_eq!(outputs(&format!("{two}output %2, %2")), "tensor 2 \"b\" int8[1,2]");
    assert_eq!(outputs("input %0 \"x\" : int8[2]\noutput %0"), "tensor 0 \"x\" int8[2]");
    assert_eq!(
        outputs("const %0 \"c\" : int8[2] = fill(1)\noutput %0"),
        "tensor 0 \"c\" int8[2]"
    );
}

#[test]
fn numbers_of_things_are_bounded() {
    assert_eq!(
        broken(|graph| graph.outputs = vec![TensorId(1); 1025]),
        "?: 1025 model outputs, at most 1024 are supported"
    );
    assert_eq!(
        broken(|graph| graph.inputs = vec![TensorId(0); 1025]),
        "?: 1025 model inputs, at most 1024 are supported"
    );
}
