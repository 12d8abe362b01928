use super::{parse, print, print_full};
use crate::data::Bytes;
use crate::graph::{DType, Graph, Quantization, Shape, Tensor};

/// Every operator and attribute, in the form in which it is printed.
const EVERYTHING: &str = r#"graph "a \"name\"\n\u{7f}é"
input %0 "in" : int8[1,4,4,2] q(0.5,-1)
input %1 "u" : uint8[2] q(0.1,128)
const %2 "w" : int8[2,3,3,2] q(axis=0, 0.25:0, 1e-7:0) = fill(-3)
const %3 "b" : int32[2] = [-2147483648, 7]
%4 "conv" : int8[1,2,2,2] q(0.25,-128) = conv2d(%0, %2, %3) stride=2x2 pad=1,0,1,0 act=relu
const %5 "dw" : int8[1,2,2,4] q(axis=3, 0.5:0, 0.5:0, 0.5:0, 0.5:0) = fill(1)
%6 "depthwise" : int8[1,3,3,4] q(0.25,0) = depthwise_conv2d(%4, %5) dilation=1x2 pad=1,1,2,1 multiplier=2 act=relu_n1_to_1
%7 "max" : int8[1,2,2,4] q(0.25,0) = max_pool2d(%6) window=2x2
%8 "avg" : int8[1,1,1,4] q(0.25,0) = average_pool2d(%7) window=2x2 stride=2x2 act=relu6
%9 "pad" : int8[1,2,3,4] q(0.25,0) = pad(%8) amounts=0:0,1:0,1:1,0:0 value=-7
%10 "sum" : int8[1,2,3,4] q(0.3,1) = add(%9, %8) act=relu
%11 "difference" : int8[1,2,3,4] q(0.3,1) = sub(%10, %9)
%12 "product" : int8[1,2,3,4] q(0.3,1) = mul(%11, %9)
const %13 "table" : int8[256] = fill(5)
%14 "t" : int8[1,2,3,4] q(0.3,1) = lookup(%12, %13) source=3 name="gelu"
%15 "joined" : int8[1,2,3,8] q(0.3,1) = concat(%14, %14) axis=3
%16 "flat" : int8[48] q(0.3,1) = reshape(%15)
%17 "real" : float32[48] = dequantize(%16)
%18 "row" : float32[48] = softmax(%17) beta=0.1
%19 "again" : int8[48] q(0.00390625,-128) = quantize(%18)
%20 "mean" : float32[1] = mean(%17) axes=0 keep
%21 "logistic" : float32[1] = logistic(%20)
%22 "tanh" : float32[1] = tanh(%21)
%23 "relu" : float32[1] = relu(%22)
%24 "relu6" : float32[1] = relu6(%23)
%25 "n1" : float32[1] = relu_n1_to_1(%24)
%26 "copy" : float32[1] = copy(%25)
const %27 "fc" : float32[2,1] = [-0.0, 1e38]
%28 "dense" : float32[1,2] = fully_connected(%26, %27) act=relu6
%29 "border" : float32[2,2] = pad(%28) amounts=0:1,0:0 value=-0.0
%30 "turned" : float32[2,2] = transpose(%29) permutation=1,0
tensor %31 "" : bool[]
output %28, %19, %28, %29
"#;

#[test]
fn everything_is_printed_as_it_was_parsed() {
    let graph = parse(EVERYTHING).unwrap();
    assert_eq!(print(&graph), EVERYTHING);
    assert_eq!(print_full(&graph), EVERYTHING);
    crate::graph::verify::verify(&graph).unwrap();
}

#[test]
fn defaults_are_filled_in() {
    let graph =
        parse("input %0:int8[2] q( 0.5 , 3 ) # a comment\n\n %1 : int8[2]q(0.5,3)=copy ( %0 )\noutput %1").unwrap();
    let printed =
        "graph \"\"\ninput %0 \"t0\" : int8[2] q(0.5,3)\n%1 \"t1\" : int8[2] q(0.5,3) = copy(%0)\noutput %1\n";
    assert_eq!(print(&graph), printed);
}

fn constant(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Graph {
    Graph {
        tensors: vec![Tensor {
            name: "c".into(),
            dtype,
            shape: Shape(shape.to_vec()),
            quantization: None,
            data: Some(Bytes::from_vec(bytes)),
        }],
        ..Graph::default()
    }
}

fn bytes(graph: &Graph) -> &[u8] {
    graph.tensors[0].data.as_ref().unwrap().as_slice()
}

#[test]
fn every_float_survives() {
    let patterns: Vec<u32> = [
        0.0,
        -0.0,
        1.0,
        0.1,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ]
    .map(f32::to_bits)
    .into_iter()
    .chain([1, 0x7fff_ffff, 0x7f80_0001, 0xffc0_0000, 0x3eaa_aaab, 0x0080_0001])
    .chain((0..1000u32).map(|i| i.wrapping_mul(0x9e37_79b9)))
    .collect();
    let data: Vec<u8> = patterns.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let graph = constant(DType::F32, &[patterns.len()], data.clone());
    let text = print_full(&graph);
    assert!(
        text.contains("= [0.0, -0.0, 1.0, 0.1, 1.1754944e-38, 3.4028235e38, inf, -inf, nan, 1e-45, 0x7fffffff"),
        "{text}"
    );
    assert_eq!(bytes(&parse(&text).unwrap()), data);
}

#[test]
fn every_integer_type_survives() {
    for dtype in [DType::I8, DType::U8, DType::I16, DType::I32, DType::I64] {
        let data: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(77) ^ 0x80).collect();
        let graph = constant(dtype, &[64 / dtype.bytes()], data.clone());
        assert_eq!(bytes(&parse(&print_full(&graph)).unwrap()), data, "{}", dtype.name());
    }
}

#[test]
fn large_constants_are_hashed_for_people_and_hexadecimal_in_full() {
    let data: Vec<u8> = (0..2000u32).map(|i| (i * i) as u8).collect();
    let graph = constant(DType::I8, &[2000], data.clone());
    let listing = print(&graph);
    assert!(
        listing.starts_with("graph \"\"\nconst %0 \"c\" : int8[2000] = blake3:"),
        "{listing}"
    );
    assert!(listing.ends_with(" bytes=2000\n"), "{listing}");
    assert_eq!(bytes(&parse(&print_full(&graph)).unwrap()), data);
    let error = parse(&listing).unwrap_err();
    assert!(
        error
            .message
            .starts_with("this listing leaves the bytes out: print it in full\n"),
        "{error}"
    );
}

#[test]
fn long_lists_of_scales_are_hashed_for_people() {
    let mut graph = constant(DType::I8, &[9], vec![1; 9]);
    graph.tensors[0].quantization = Some(Quantization {
        scale: (1..10).map(|i| i as f32 / 8.0).collect(),
        zero_point: vec![0; 9],
        axis: Some(0),
    });
    let listing = print(&graph);
    assert!(listing.contains("q(axis=0, 9 of 1.25e-1..1.125e0 blake3:"), "{listing}");
    let error = parse(&listing).unwrap_err();
    assert!(
        error.message.starts_with("this listing leaves the scales out"),
        "{error}"
    );
    let again = parse(&print_full(&graph)).unwrap();
    assert_eq!(again.tensors[0].quantization, graph.tensors[0].quantization);
}

#[test]
fn generators() {
    let made = |ty: &str, data: &str| bytes(&parse(&format!("const %0 : {ty} = {data}")).unwrap()).to_vec();
    assert_eq!(made("int8[4]", "fill(-1)"), [255; 4]);
    assert_eq!(made("int8[4]", "ramp(126, 1)"), [126, 127, 128, 129]);
    assert_eq!(made("int32[2]", "ramp(-1, 2)"), [255, 255, 255, 255, 1, 0, 0, 0]);
    assert_eq!(
        made("float32[2]", "ramp(1.5, -0.5)"),
        [1.5f32.to_le_bytes(), 1f32.to_le_bytes()].concat()
    );
    assert_eq!(made("int8[2]", "hex ff00"), [255, 0]);
    let random = made("int8[1000]", "lcg(1, -3, 4)");
    assert!((-3..=4).all(|x: i8| random.contains(&(x as u8))));
    assert!(random.iter().all(|x| (-3..=4).contains(&(*x as i8))));
    assert_ne!(random, made("int8[1000]", "lcg(2, -3, 4)"));
    let floats = made("float32[100]", "lcg(1, -1.0, 1.0)");
    assert!(
        floats
            .chunks(4)
            .all(|x| f32::from_le_bytes(x.try_into().unwrap()).abs() <= 1.0)
    );
}

#[test]
fn errors_show_the_place() {
    let text = "graph \"g\"\ninput %0 \"x\" : int8[1,4] q(0.5,0)\n%1 : int8[4] = reshape(%0) axis=1\noutput %1\n";
    let expected = "graph \"g\"\n";
    assert!(text.starts_with(expected));
    let error = parse(text).unwrap_err();
    assert_eq!(
        error.message,
        "reshape has no attribute `axis`\n \
         --> listing:3:28\n  \
         |\n\
         3 | %1 : int8[4] = reshape(%0) axis=1\n  \
         |                            ^^^^"
    );
}

/// First line of the message for a text that is wrong in one place.
fn fault(text: &str) -> String {
    let error = parse(text).unwrap_err();
    let mut lines = error.message.lines();
    let message = lines.next().unwrap();
    let place = lines.next().unwrap().trim().trim_start_matches("--> listing:");
    format!("{place} {message}")
}

#[test]
fn faults() {
    for (text, expected) in [
        (
            "inptu %0",
            "1:1 expected `graph`, `input`, `const`, `tensor`, `output` or an operator's `%` result",
        ),
        ("input 0", "1:7 expected `%`"),
        ("input %x", "1:8 expected a tensor's index, found `x`"),
        (
            "input %0 : int9[1]",
            "1:12 expected a type: int8, uint8, int16, int32, int64, float32 or bool",
        ),
        ("input %0 : int8[1", "1:18 expected `]`"),
        ("input %0 : int8[1,]", "1:19 expected an integer"),
        ("input %0 : int8[-1]", "1:17 expected an integer, found `-1`"),
        ("input %0 \"x : int8[1]", "1:10 the string does not end on this line"),
        ("input %0 \"\\q\" : int8[1]", "1:11 unknown escape"),
        ("input %0 : int8[1] q(0.5)", "1:25 expected `,`"),
        (
            "input %0 : int8[1] nonsense",
            "1:20 unexpected text after the statement",
        ),
        ("input %0 : int8[1]\ninput %0 : int8[1]", "2:7 %0 is defined already"),
        ("input %99999999 : int8[1]", "1:7 at most 131072 tensors are supported"),
        (
            "input %1 : int8[1]",
            "1:1 %0 is not defined: tensors are numbered without gaps",
        ),
        ("%0 : int8[1] = foo()", "1:16 unknown operator `foo`"),
        ("%0 : int8[1] = copy(%1)", "1:21 %1 is not defined"),
        ("output %1", "1:8 %1 is not defined"),
        ("%0 : int8[1] = relu(%0) act=relu", "1:25 relu has no attribute `act`"),
        (
            "%0 : int8[1] = conv2d(%0) act=gelu",
            "1:31 expected relu, relu6 or relu_n1_to_1",
        ),
        (
            "%0 : int8[1] = conv2d(%0) stride=2",
            "1:34 expected height x width, as in 3x3",
        ),
        (
            "%0 : int8[1] = conv2d(%0) stride=2x2 stride=2x2",
            "1:38 `stride` is given twice",
        ),
        (
            "%0 : int8[1] = conv2d(%0) pad=1,2",
            "1:31 expected pad=TOP,BOTTOM,LEFT,RIGHT",
        ),
        ("const %0 : int8[2] = [1]", "1:22 1 elements for the shape [2]"),
        ("const %0 : int8[1] = [128]", "1:23 128 is not a value of int8"),
        (
            "const %0 : int8[1] = [0x100]",
            "1:23 expected the bits of one int8 element",
        ),
        (
            "const %0 : int8[1] = 5",
            "1:22 expected `[`, `fill(`, `ramp(`, `lcg(` or `hex`",
        ),
        ("const %0 : int8[2] = hex 0", "1:22 1 hexadecimal digits for int8[2]"),
        (
            "const %0 : int8[9999999999] = fill(0)",
            "1:31 a generated constant has at most 268435456 bytes",
        ),
        (
            "const %0 : int8[99999999999,99999999999] = fill(0)",
            "1:44 a generated constant has at most 268435456 bytes",
        ),
    ] {
        assert_eq!(fault(text), expected, "{text}");
    }
}

#[test]
fn one_finding_for_each_line() {
    let error = parse("inptu %0\n%1 : int8[1] = foo()\noutput %1").unwrap_err();
    assert_eq!(error.more.len(), 1);
}
