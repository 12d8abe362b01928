use super::*;
use crate::build::{Options, compile_graph};
use crate::error::Code;
use crate::graph::{Quantization, Shape, TensorId, text};
use crate::target::Target;
use cranelift_codegen::ir::{Function, InstBuilder};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

fn tensor(dtype: DType, shape: &[usize]) -> Tensor {
    Tensor {
        name: "x".into(),
        dtype,
        shape: Shape(shape.to_vec()),
        quantization: None,
        data: None,
    }
}

fn graph(tensor: Tensor) -> Graph {
    Graph {
        tensors: vec![tensor],
        inputs: vec![TensorId(0)],
        ..Graph::default()
    }
}

#[test]
fn sets_are_the_same_at_every_run_and_differ_from_one_another() {
    let graph = graph(tensor(DType::I8, &[64]));
    let all = sets(&graph, 2);
    assert_eq!(all, sets(&graph, 2));
    let names: Vec<&str> = all.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["zero", "lowest", "highest", "extremes", "random 1", "random 2"]);
    for (i, set) in all.iter().enumerate() {
        assert_eq!(set.inputs[0].len(), 64);
        assert!(all[..i].iter().all(|other| other.inputs != set.inputs), "{}", set.name);
    }
}

#[test]
fn zero_is_the_zero_point_and_extremes_are_the_types() {
    let mut quantized = tensor(DType::I8, &[1]);
    quantized.quantization = Some(Quantization::per_tensor(0.5, -7));
    let first = |tensor: Tensor, set: usize| sets(&graph(tensor), 0)[set].inputs[0].clone();
    assert_eq!(first(quantized, 0), (-7i8).to_le_bytes());
    for (dtype, lowest, highest) in [
        (DType::I8, -128.0, 127.0),
        (DType::U8, 0.0, 255.0),
        (DType::I16, -32768.0, 32767.0),
        (DType::I32, -2147483648.0, 2147483647.0),
        (DType::Bool, 0.0, 1.0),
        (DType::F32, -1000.0, 1000.0),
    ] {
        assert_eq!(element(dtype, &first(tensor(dtype, &[1]), 1)), lowest);
        assert_eq!(element(dtype, &first(tensor(dtype, &[1]), 2)), highest);
    }
}

#[test]
fn random_floats_are_finite_and_on_both_sides_of_zero() {
    let graph = graph(tensor(DType::F32, &[256]));
    let set = &sets(&graph, 1)[4].inputs[0];
    let values: Vec<f32> = set
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert!(values.iter().all(|x| x.abs() <= FLOAT_RANDOM));
    assert!(values.iter().any(|x| *x < -1.0) && values.iter().any(|x| *x > 1.0));
}

#[test]
fn the_first_difference_is_named_by_its_index() {
    let x = tensor(DType::I8, &[2, 3]);
    assert_eq!(difference(&x, &[0; 6], &[0; 6], "s"), None);
    let found = difference(&x, &[0, 0, 0, 0, 5, 0], &[0, 0, 0, 0, 0xff, 9], "s").unwrap();
    assert_eq!((found.index, found.expected, found.got), (vec![1, 1], 5.0, -1.0));
    assert_eq!((found.differing, found.elements), (2, 6));
}

#[test]
fn nans_are_equal_and_zeros_have_signs() {
    let x = tensor(DType::F32, &[1]);
    let bytes = |bits: u32| bits.to_le_bytes();
    assert_eq!(difference(&x, &bytes(0x7fc0_0000), &bytes(0xffc0_0001), "s"), None);
    assert!(difference(&x, &bytes(0), &bytes(0x8000_0000), "s").is_some());
}

#[test]
fn results_are_in_order_and_errors_are_kept() {
    let squares = parallel(100, &|_| {}, |i| Ok(i * i)).unwrap();
    assert_eq!(squares, (0..100).map(|i| i * i).collect::<Vec<_>>());
    let failed = parallel(
        3,
        &|_| {},
        |i| if i == 1 { Err(Error::internal("one")) } else { Ok(()) },
    );
    assert_eq!(failed.unwrap_err().message, "one");
}

const CHAIN: &str = r#"
graph "chain"
input %0 "x" : float32[1,4]
const %1 "a/w" : float32[4,4] = lcg(1, -1.0, 1.0)
%2 "a" : float32[1,4] = fully_connected(%0, %1)
const %3 "b/w" : float32[6,4] = lcg(2, -1.0, 1.0)
%4 "b" : float32[1,6] = fully_connected(%2, %3)
%5 "c" : float32[1,6] = softmax(%4)
output %5
"#;

/// A kernel that does nothing.
fn empty(function: &mut Function) {
    *function = Function::with_name_signature(function.name.clone(), function.signature.clone());
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(function, &mut context);
    let block = b.create_block();
    b.append_block_params_for_function_params(block);
    b.switch_to_block(block);
    b.ins().return_(&[]);
    b.seal_all_blocks();
    let target = Target::new(None, None, None).unwrap();
    b.finalize(crate::kernels::entry::frontend_config(&target));
}

fn verified(mutate: Option<fn(&str, &mut Function)>) -> Findings {
    let mut options = Options::new(Target::new(None, None, None).unwrap(), "chain");
    options.mutate = mutate;
    let graph = text::parse(CHAIN).unwrap();
    let build = compile_graph(graph, 0, &options, &mut |_, _| {}).unwrap().unwrap();
    let sets = sets(&build.graph, 2);
    verify(&build, &sets, None, &|_| {}).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn compiled_code_equals_the_evaluator() {
    let findings = verified(None);
    assert!(findings.ok && findings.error().is_none(), "{findings:?}");
    let compared: Vec<(&str, u64)> = findings.layers.iter().map(|l| (l.operator, l.elements)).collect();
    assert_eq!(
        compared,
        [("fully_connected", 24), ("fully_connected", 36), ("softmax", 36)]
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_broken_kernel_is_named() {
    // Every kernel but the first, so that the first layer that differs is neither the first nor the only one.
    let findings = verified(Some(|name, function| {
        if !name.ends_with("_0") {
            empty(function);
        }
    }));
    assert!(!findings.ok && findings.passes.is_empty());
    assert!(findings.layers[0].difference.is_none());
    let error = findings.error().unwrap();
    assert_eq!(error.code, Code::Mismatch);
    assert!(
        error.message.starts_with("layer 1 is the first that differs"),
        "{error}"
    );
    assert!(
        error.location.as_ref().unwrap().contains("fully_connected \"b\""),
        "{error}"
    );
}
