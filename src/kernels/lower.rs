//! Every operator to a call of a kernel; equal kernels and equal parameters are merged.

use super::alike::Alike;
use super::emit::Built;
use super::lowered::{Lowered, LoweredOperand, Operands};
use super::{Call, Kernel, KernelId, Launch, Lowering, Operand, Parameter, ParameterId, ParameterKind};
use super::{binary, copy, lookup, mac, pool, quantize, reduce, softmax, unary};
use crate::data::{Contents, Sample};
use crate::error::{Code, Error, Result};
use crate::graph::{DType, Graph, OpId, OpKind, TensorId};
use crate::target::Target;
use cranelift_codegen::ir::Function;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

/// Kernels, parameters and calls for all operators but views.
///
/// # Errors
/// All operators that have no kernel, and failures of reading the model's constants.
pub fn lower(graph: &Graph, target: &Target) -> Result<Lowering> {
    lower_in_pieces(graph, target, &BTreeSet::new(), 0)
}

/// [`lower`], with the operators of `cut` in pieces of at most `most` bytes of parameters where they can be cut.
///
/// # Errors
/// As [`lower`], and [`Code::Limit`] for operators that can be cut, but not so small.
pub fn lower_in_pieces(graph: &Graph, target: &Target, cut: &BTreeSet<OpId>, most: u64) -> Result<Lowering> {
    let mut lowering = Lowering::default();
    let mut kernels = Kernels::default();
    let mut alike = Alike::default();
    let mut parameters = Parameters::default();
    let mut errors = Vec::new();
    for op in graph.op_ids() {
        let described = || graph.op(op).describe();
        if cut.contains(&op) {
            match mac::cut(graph, op, target, most) {
                Ok(Some(cut)) => {
                    let parameter = parameters.add(cut.parameter.clone());
                    lowering.calls.push(in_pieces(op, cut, parameter, &mut kernels));
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            }
        }
        let lowered = match alike.find(graph, op) {
            Some(kernel) => operands_of(graph, op, target).map(|operands| Some((kernel, operands))),
            None => lower_op(graph, op, target).map(|lowered| {
                let Lowered {
                    built,
                    stem,
                    schedule,
                    operands,
                    scratch,
                } = lowered?;
                let kernel = kernels.add(built, format!("{stem}_{}", op.0), schedule);
                alike.add(graph, op, kernel);
                Some((kernel, Operands { operands, scratch }))
            }),
        };
        let (kernel, Operands { operands, scratch }) = match lowered {
            Ok(Some(lowered)) => lowered,
            Ok(None) => continue,
            Err(error) => {
                errors.push(error.at(described()));
                continue;
            }
        };
        let operands = operands
            .into_iter()
            .map(|operand| {
                Ok(match operand {
                    LoweredOperand::Tensor(id) => match constant(graph, op, id) {
                        Some(parameter) => Operand::Parameter(parameters.add(parameter)),
                        None => Operand::Tensor(id),
                    },
                    LoweredOperand::Parameter(parameter) => Operand::Parameter(parameters.add(parameter)),
                    LoweredOperand::Scratch => Operand::Scratch,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        lowering.calls.push(Call {
            op,
            kernel,
            operands,
            scratch,
            launches: Vec::new(),
        });
    }
    lowering.kernels = kernels.all;
    match Error::collect(errors) {
        Some(error) => Err(error),
        None => {
            let (merged, places) = parameters.merge()?;
            lowering.parameters = merged;
            for operand in lowering.calls.iter_mut().flat_map(|call| &mut call.operands) {
                if let Operand::Parameter(id) = operand {
                    *id = places[id.0 as usize];
                }
            }
            Ok(lowering)
        }
    }
}

/// The same for equal functions.
fn fingerprint(function: &Function) -> u64 {
    let mut hasher = DefaultHasher::new();
    function.stencil.hash(&mut hasher);
    hasher.finish()
}

/// Whether two functions are the same code with the same references.
fn equal(a: &Function, b: &Function) -> bool {
    a.stencil == b.stencil && a.params.user_named_funcs() == b.params.user_named_funcs()
}

/// Distinct kernels.
#[derive(Default)]
struct Kernels {
    all: Vec<Kernel>,
    known: HashMap<u64, Vec<KernelId>>,
}

impl Kernels {
    /// The kernel, under `name` if there is none that is equal.
    fn add(&mut self, built: Built, name: String, schedule: String) -> KernelId {
        let alike = self.known.entry(fingerprint(&built.function)).or_default();
        let same = |id: &&KernelId| equal(&self.all[id.0 as usize].function, &built.function);
        if let Some(id) = alike.iter().find(same) {
            return *id;
        }
        let id = KernelId(self.all.len() as u32);
        self.all.push(Kernel {
            name,
            function: built.function,
            executions: built.executions,
            schedule,
        });
        alike.push(id);
        id
    }
}

/// The call of an operator whose parameters are in pieces.
fn in_pieces(op: OpId, cut: mac::Cut, parameter: ParameterId, kernels: &mut Kernels) -> Call {
    let several = cut.runs.len() > 1;
    let launches: Vec<Launch> = (cut.runs.into_iter().enumerate())
        .map(|(i, run)| {
            let part = if several { format!("_part_{i}") } else { String::new() };
            let name = format!("{}_{}{part}", cut.stem, op.0);
            Launch {
                kernel: kernels.add(run.built, name, cut.schedule.clone()),
                count: run.count,
                start: run.start,
                piece: run.piece,
                bytes: run.bytes,
                offsets: run.offsets,
            }
        })
        .collect();
    let operand = |operand: &LoweredOperand| match operand {
        LoweredOperand::Tensor(id) => Operand::Tensor(*id),
        LoweredOperand::Parameter(_) => Operand::Parameter(parameter),
        LoweredOperand::Scratch => Operand::Scratch,
    };
    Call {
        op,
        kernel: launches.first().map_or(KernelId(0), |launch| launch.kernel),
        operands: cut.operands.iter().map(operand).collect(),
        scratch: cut.scratch,
        launches,
    }
}

/// The kernel of one operator and its operands; `None` for a view.
///
/// # Errors
/// Where there is no kernel for the operator on these types.
pub fn lower_op(graph: &Graph, op: OpId, target: &Target) -> Result<Option<Lowered>> {
    let input = graph.op(op).inputs.first().map(|id| graph.tensor(*id).dtype);
    let output = graph.tensor(graph.op(op).output()).dtype;
    let missing = || {
        let inputs = graph.op(op).inputs.iter().map(|id| graph.tensor(*id).describe());
        let inputs: Vec<String> = inputs.collect();
        Error::unsupported(format!(
            "no kernel for {} of {} to {}",
            graph.op(op).kind.name(),
            inputs.join(", "),
            output.name()
        ))
        .help("int8 and float32 are implemented; quantize the model fully, or not at all")
    };
    let real = matches!(
        (input, output),
        (Some(DType::I8), DType::I8) | (Some(DType::F32), DType::F32)
    );
    Ok(Some(match &graph.op(op).kind {
        OpKind::Reshape => return Ok(None),
        OpKind::Conv2d { .. } => mac::conv2d(graph, op, target)?,
        OpKind::DepthwiseConv2d { .. } => mac::depthwise_conv2d(graph, op, target)?,
        OpKind::FullyConnected { .. } => mac::fully_connected(graph, op, target)?,
        OpKind::Pool2d {
            op: kind,
            window,
            activation,
        } if real => pool::pool(graph, op, target, *kind, window, *activation)?,
        OpKind::Binary { op: kind, activation } => binary::binary(graph, op, target, *kind, *activation)?,
        OpKind::Unary { op: kind } => match (input, output) {
            (Some(DType::F32), DType::F32) => unary::unary(graph, op, target, *kind),
            (Some(DType::I8), DType::I8) => lookup::unary(graph, op, target, *kind).ok_or_else(missing)?,
            _ => return Err(missing()),
        },
        OpKind::Lookup if input == Some(DType::I8) && output == DType::I8 => lookup::lookup(graph, op, target)?,
        OpKind::Softmax { beta } if real => softmax::softmax(graph, op, target, *beta)?,
        OpKind::Mean { axes, .. } if real => reduce::mean(graph, op, target, axes)?,
        OpKind::Pad { amounts, value } => copy::pad(graph, op, target, amounts, *value),
        OpKind::Concat { axis } => copy::concat(graph, op, target, *axis),
        OpKind::Transpose { permutation } => copy::transpose(graph, op, target, permutation),
        OpKind::Copy => copy::copy(graph, op, target),
        OpKind::Quantize => match (input, output) {
            (Some(DType::F32), DType::I8 | DType::U8) => quantize::quantize(graph, op, target),
            (Some(DType::I8 | DType::U8), DType::I8 | DType::U8) => lookup::requantize(graph, op, target),
            _ => return Err(missing()),
        },
        OpKind::Dequantize => match (input, output) {
            (Some(DType::I8 | DType::U8), DType::F32) => quantize::dequantize(graph, op, target),
            _ => return Err(missing()),
        },
        OpKind::Pool2d { .. } | OpKind::Lookup | OpKind::Softmax { .. } | OpKind::Mean { .. } => return Err(missing()),
    }))
}

/// What [`lower_op`] gives for an operator beside its kernel, for one of those that [`Alike`] knows.
fn operands_of(graph: &Graph, op: OpId, target: &Target) -> Result<Operands> {
    match &graph.op(op).kind {
        OpKind::Conv2d { .. } | OpKind::FullyConnected { .. } => mac::operands(graph, op, target),
        _ => Ok(binary::operands(graph, op)),
    }
}

/// A constant of the graph as a parameter, unchanged.
fn constant(graph: &Graph, op: OpId, id: TensorId) -> Option<Parameter> {
    let tensor = graph.tensor(id);
    let data = tensor.data.as_ref()?;
    let op = graph.op(op);
    let place = op.inputs.iter().position(|input| *input == id);
    let kind = match (&op.kind, place) {
        (OpKind::Lookup, _) => ParameterKind::Table,
        (OpKind::Conv2d { .. } | OpKind::DepthwiseConv2d { .. } | OpKind::FullyConnected { .. }, Some(2)) => {
            ParameterKind::Bias
        }
        _ => ParameterKind::Weights,
    };
    Some(Parameter {
        name: tensor.name.clone(),
        kind,
        tensors: vec![id],
        align: if data.len() >= 64 {
            16
        } else {
            tensor.dtype.bytes() as u64
        },
        contents: Contents::Bytes(data.clone()),
    })
}

/// Parameters in the order in which calls ask for them.
#[derive(Default)]
struct Parameters {
    all: Vec<Parameter>,
}

impl Parameters {
    /// A provisional index.
    fn add(&mut self, parameter: Parameter) -> ParameterId {
        self.all.push(parameter);
        ParameterId(self.all.len() as u32 - 1)
    }

    /// Distinct parameters with distinct names, and the new index of each old one. Whole contents are read only where
    /// length and beginning are those of another parameter.
    fn merge(self) -> Result<(Vec<Parameter>, Vec<ParameterId>)> {
        let fail = |error: io::Error, parameter: &Parameter| {
            Error::new(
                Code::Io,
                format!("cannot read the constant {:?}: {error}", parameter.name),
            )
        };
        let mut groups: HashMap<(u64, Sample), u32> = HashMap::new();
        let mut keys = Vec::with_capacity(self.all.len());
        for parameter in &self.all {
            let sample = parameter.contents.sample().map_err(|error| fail(error, parameter))?;
            let key = (parameter.contents.len(), sample);
            *groups.entry(key).or_default() += 1;
            keys.push(key);
        }
        let mut places = Vec::with_capacity(keys.len());
        let mut merged: Vec<Parameter> = Vec::new();
        let mut known: HashMap<blake3::Hash, ParameterId> = HashMap::new();
        let mut first: HashMap<(u64, Sample), ParameterId> = HashMap::new();
        let mut made_from: HashSet<(ParameterId, TensorId)> = HashSet::new();
        let mut names = BTreeSet::new();
        for (mut parameter, key) in self.all.into_iter().zip(keys) {
            let next = ParameterId(merged.len() as u32);
            // Most that are equal are short and in memory: biases of zeros.
            let bytes = parameter.contents.in_memory();
            let same = |id: &&ParameterId| bytes.is_some() && bytes == merged[id.0 as usize].contents.in_memory();
            let place = match first.get(&key).filter(same) {
                Some(id) => *id,
                None if groups[&key] > 1 => {
                    let mut hasher = blake3::Hasher::new();
                    let read = parameter.contents.write_to(&mut hasher);
                    read.map_err(|error| fail(error, &parameter))?;
                    *known.entry(hasher.finalize()).or_insert(next)
                }
                None => next,
            };
            if place == next {
                parameter.name = unique(&parameter.name, &mut names);
                first.entry(key).or_insert(next);
                made_from.extend(parameter.tensors.iter().map(|id| (place, *id)));
                merged.push(parameter);
            } else {
                let same = &mut merged[place.0 as usize];
                same.align = same.align.max(parameter.align);
                parameter.tensors.retain(|id| made_from.insert((place, *id)));
                same.tensors.append(&mut parameter.tensors);
            }
            places.push(place);
        }
        Ok((merged, places))
    }
}

/// `name`, or with the least number behind it that makes it new.
fn unique(name: &str, names: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|i| format!("{name}.{i}"));
    std::iter::once(name.to_owned())
        .chain(numbered)
        .find(|name| names.insert(name.clone()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SAMPLE;
    use crate::graph::{Activation, BinaryOp, Op, OpKind, Shape};
    use crate::kernels::checks::{constant, float, int8};

    fn add(graph: &mut Graph, kind: OpKind, inputs: &[TensorId], output: crate::graph::Tensor) -> TensorId {
        let output = graph.add_tensor(output);
        graph.ops.push(Op {
            name: "op".to_owned(),
            source: 0,
            kind,
            inputs: inputs.to_vec(),
            outputs: vec![output],
        });
        output
    }

    fn sum() -> OpKind {
        OpKind::Binary {
            op: BinaryOp::Add,
            activation: Activation::None,
        }
    }

    fn target() -> Target {
        Target::new(Some("x86_64-unknown-linux-gnu"), None, None).expect("a known target")
    }

    #[test]
    fn equal_kernels_and_parameters_are_shared() {
        let mut graph = Graph::default();
        let x = graph.add_tensor(int8(&[20], 0.1, 0));
        let y = graph.add_tensor(constant(int8(&[20], 0.1, 0), vec![7; 20]));
        let z = graph.add_tensor(constant(int8(&[20], 0.1, 0), vec![7; 20]));
        let other = graph.add_tensor(constant(int8(&[20], 0.1, 0), vec![8; 20]));
        let a = add(&mut graph, sum(), &[x, y], int8(&[20], 0.1, 0));
        let b = add(&mut graph, sum(), &[a, z], int8(&[20], 0.1, 0));
        let flat = add(&mut graph, OpKind::Reshape, &[b], int8(&[4, 5], 0.1, 0));
        graph.tensors[flat.index()].shape = Shape(vec![20]);
        add(&mut graph, sum(), &[flat, other], int8(&[20], 0.2, 0));
        let lowering = lower(&graph, &target()).expect("kernels");
        let names: Vec<&str> = lowering.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
        assert_eq!(names, ["add_0", "add_3"]);
        assert_eq!(lowering.parameters.len(), 2);
        assert_eq!(lowering.parameters[0].tensors, [y, z]);
        assert_ne!(lowering.parameters[0].name, lowering.parameters[1].name);
        let calls: Vec<(u32, u32)> = lowering.calls.iter().map(|call| (call.op.0, call.kernel.0)).collect();
        assert_eq!(calls, [(0, 0), (1, 0), (3, 1)]);
        assert_eq!(
            lowering.calls[1].operands,
            [
                Operand::Tensor(a),
                Operand::Parameter(ParameterId(0)),
                Operand::Tensor(b)
            ]
        );
    }

    /// Whatever is taken over from an operator of the same shape is what lowering the operator itself gives.
    #[test]
    fn operators_of_one_shape_are_lowered_alike() {
        let mut graph = Graph::default();
        let dense = |activation| OpKind::FullyConnected { activation };
        let mut x = graph.add_tensor(float(&[2, 8]));
        for i in 0..6 {
            let weights = graph.add_tensor(constant(float(&[8, 8]), vec![i; 256]));
            let bias = graph.add_tensor(constant(float(&[8]), vec![i + 1; 32]));
            let row = graph.add_tensor(constant(float(&[8]), vec![i + 2; 32]));
            let activation = if i == 3 { Activation::Relu } else { Activation::None };
            let inputs = [x, weights, bias];
            let inputs = if i == 4 { &inputs[..2] } else { &inputs };
            let y = add(&mut graph, dense(activation), inputs, float(&[2, 8]));
            let other = if i % 2 == 0 { y } else { row };
            x = add(&mut graph, sum(), &[y, other], float(&[2, 8]));
        }
        for target in ["x86_64-unknown-linux-gnu", "thumbv7em-none-eabihf"] {
            let target = Target::new(Some(target), None, None).expect("a known target");
            let lowering = lower(&graph, &target).expect("kernels");
            assert_eq!(lowering.kernels.len(), 4);
            for call in &lowering.calls {
                let own = lower_op(&graph, call.op, &target)
                    .expect("a kernel")
                    .expect("not a view");
                let kernel = lowering.kernel(call.kernel);
                assert!(equal(&kernel.function, &own.built.function), "{:?}", call.op);
                assert_eq!(
                    (kernel.executions.clone(), &kernel.schedule),
                    (own.built.executions, &own.schedule)
                );
                let operands = operands_of(&graph, call.op, &target).expect("operands");
                assert_eq!(operands.scratch, own.scratch);
                assert_eq!(format!("{:?}", operands.operands), format!("{:?}", own.operands));
            }
        }
    }

    #[test]
    fn long_parameters_differ_behind_their_beginning() {
        let mut graph = Graph::default();
        let n = 3 * SAMPLE;
        let x = graph.add_tensor(int8(&[n], 0.1, 0));
        let mut bytes = vec![1; n];
        let y = graph.add_tensor(constant(int8(&[n], 0.1, 0), bytes.clone()));
        let same = graph.add_tensor(constant(int8(&[n], 0.1, 0), bytes.clone()));
        bytes[n - 1] = 2;
        let z = graph.add_tensor(constant(int8(&[n], 0.1, 0), bytes));
        for constant in [y, z, same] {
            add(&mut graph, sum(), &[x, constant], int8(&[n], 0.1, 0));
        }
        let lowering = lower(&graph, &target()).expect("kernels");
        assert_eq!(lowering.parameters.len(), 2);
        assert_eq!(lowering.calls[0].operands[1], lowering.calls[2].operands[1]);
    }

    #[test]
    fn all_missing_kernels_are_reported() {
        let mut graph = Graph::default();
        let x = graph.add_tensor(float(&[4]));
        for _ in 0..2 {
            add(&mut graph, OpKind::Lookup, &[x], float(&[4]));
        }
        let error = lower(&graph, &target()).expect_err("no lookup on floats");
        assert_eq!(error.code, Code::Unsupported);
        assert_eq!(error.more.len(), 1);
        assert!(error.location.is_some());
    }

    #[test]
    fn lowering_is_deterministic() {
        let mut graph = Graph::default();
        let x = graph.add_tensor(float(&[4]));
        add(&mut graph, OpKind::Softmax { beta: 1.0 }, &[x], float(&[4]));
        let [one, two] = [(); 2].map(|()| format!("{:?}", lower(&graph, &target()).expect("kernels")));
        assert_eq!(one, two);
    }
}
