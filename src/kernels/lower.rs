//! Every operator to a call of a kernel; equal kernels and equal parameters are merged.

use super::alike::Alike;
use super::emit::Built;
use super::entry::feed;
use super::lowered::{Lowered, LoweredOperand, Operands};
use super::rows::{Steps, row_form};
use super::{
    Call, Form, Kernel, KernelId, Launch, Lowering, Operand, Parameter, ParameterId, ParameterKind, RowCall, Scratch,
};
use super::{binary, copy, lookup, mac, pool, quantize, reduce, softmax, unary};
use crate::data::{Contents, Sample};
use crate::error::{Code, Error, Result};
use crate::graph::external::External;
use crate::graph::{DType, Graph, OpId, OpKind, TensorId};
use crate::target::{Effort, Target};
use cranelift_codegen::ir::Function;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

impl Form {
    /// The target that asks for this form.
    fn target(self, target: &Target) -> Target {
        let effort = match self {
            Form::Speed => Effort::Speed,
            Form::Long => Effort::Ram,
            Form::Lean => target.effort,
        };
        Target {
            effort,
            ..target.clone()
        }
    }
}

/// Which forms of kernels are wanted beside the usual ones.
#[derive(Clone, Debug, Default)]
pub struct Forms {
    /// Calls that make results row by row, beside the others.
    pub rows: bool,
    /// Dense layers that do without scratch.
    pub lean: BTreeSet<OpId>,
    /// Operators whose code may be long where it takes fewer instructions.
    pub long: BTreeSet<OpId>,
    /// The operator that copies the model's input row by row from the application.
    pub feed: Option<OpId>,
    /// All [`Form`]s beside the usual ones, as alternatives.
    pub alternatives: bool,
    /// Operators in pieces of at most [`Forms::most`] bytes of parameters, where they can be cut.
    pub cut: BTreeSet<OpId>,
    /// Bytes of parameters in a piece.
    pub most: u64,
}

/// Kernels, parameters and calls for all operators but views.
///
/// # Errors
/// All operators that have no kernel, and failures of reading the model's constants.
pub fn lower(graph: &Graph, target: &Target) -> Result<Lowering> {
    lower_with(graph, target, &Forms::default())
}

/// [`lower`] in other forms.
///
/// # Errors
/// As [`lower`], and [`Code::Limit`] for operators that can be cut, but not so small.
pub fn lower_with(graph: &Graph, target: &Target, forms: &Forms) -> Result<Lowering> {
    let mut merger = Merger::default();
    merger.lowering.feed = forms.feed;
    let mut errors = Vec::new();
    for op in graph.op_ids() {
        let described = || graph.op(op).describe();
        if let OpKind::External(external) = &graph.op(op).kind {
            let call = external_call(graph, op, external, &mut merger.parameters);
            merger.lowering.calls.push(call);
            continue;
        }
        if forms.feed == Some(op) {
            merger.feed(graph, op, target, forms.rows);
            continue;
        }
        if forms.cut.contains(&op) {
            match mac::cut(graph, op, target, forms.most) {
                Ok(Some(cut)) => {
                    let call = merger.in_pieces(op, cut);
                    merger.lowering.calls.push(call);
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            }
        }
        let call = match (forms.lean.contains(&op), forms.long.contains(&op)) {
            (true, _) => {
                mac::fully_connected_lean(graph, op, target).map(|lowered| Some(merger.call(graph, op, lowered, None)))
            }
            (false, true) => lower_op(graph, op, &Form::Long.target(target))
                .map(|lowered| Some(merger.call(graph, op, lowered?, None))),
            (false, false) => merger.usual(graph, op, target),
        };
        match call {
            Ok(Some(call)) => merger.lowering.calls.push(call),
            Ok(None) => {}
            Err(error) => errors.push(error.at(described())),
        }
        if forms.alternatives {
            merger
                .alternatives(graph, op, target)
                .map_err(|error| error.at(described()))?;
        }
        if !forms.rows {
            continue;
        }
        if let Some(form) = row_form(graph, op, target).map_err(|error| error.at(described()))? {
            let outside = form.outside.map(|outside| merger.parameters.add(outside));
            for (steps, lowered) in form.calls {
                let rows = RowCall {
                    steps,
                    count: form.steps,
                    taps: form.taps,
                    outside,
                    state: form.state,
                };
                let call = merger.call(graph, op, lowered, Some(rows));
                merger.lowering.row_calls.push(call);
            }
        }
    }
    match Error::collect(errors) {
        Some(error) => Err(error),
        None => merger.finish(),
    }
}

/// Merges equal kernels and equal parameters.
#[derive(Default)]
struct Merger {
    lowering: Lowering,
    kernels: Kernels,
    alike: Alike,
    parameters: Parameters,
}

impl Merger {
    /// The call of the usual form of an operator; `None` for a view.
    fn usual(&mut self, graph: &Graph, op: OpId, target: &Target) -> Result<Option<Call>> {
        if let Some(kernel) = self.alike.find(graph, op) {
            let operands = operands_of(graph, op, target)?;
            return Ok(Some(self.call_of(graph, op, kernel, operands, None)));
        }
        let Some(lowered) = lower_op(graph, op, target)? else {
            return Ok(None);
        };
        let call = self.call(graph, op, lowered, None);
        if let Some(kernel) = call.kernel {
            self.alike.add(graph, op, kernel);
        }
        Ok(Some(call))
    }

    fn call(&mut self, graph: &Graph, op: OpId, lowered: Lowered, rows: Option<RowCall>) -> Call {
        let Lowered {
            built,
            stem,
            schedule,
            operands,
            scratch,
            overlaps,
        } = lowered;
        let kernel = self.kernels.add(built, format!("{stem}_{}", op.0), schedule);
        let operands = Operands {
            operands,
            scratch,
            overlaps,
        };
        self.call_of(graph, op, kernel, operands, rows)
    }

    fn call_of(
        &mut self,
        graph: &Graph,
        op: OpId,
        kernel: KernelId,
        operands: Operands,
        rows: Option<RowCall>,
    ) -> Call {
        let operand = |operand| {
            let constant = match operand {
                LoweredOperand::Tensor(id) => constant(graph, op, id),
                _ => None,
            };
            let operand = constant.map_or(operand, LoweredOperand::Parameter);
            operand.placed(|parameter| self.parameters.add(parameter))
        };
        Call {
            op,
            kernel: Some(kernel),
            operands: operands.operands.into_iter().map(operand).collect(),
            scratch: operands.scratch,
            launches: Vec::new(),
            overlaps: operands.overlaps,
            rows,
        }
    }

    /// The calls that ask the application for the input.
    fn feed(&mut self, graph: &Graph, op: OpId, target: &Target, rows: bool) {
        let call = self.call(graph, op, feed::lower(graph, op, target, false), None);
        self.lowering.calls.push(call);
        let count = graph.tensor(graph.op(op).output()).shape.nhwc()[1] as u32;
        if rows && count > 1 {
            let rows = RowCall {
                steps: Steps::Rows { first: 0, end: count },
                count,
                taps: None,
                outside: None,
                state: None,
            };
            let call = self.call(graph, op, feed::lower(graph, op, target, true), Some(rows));
            self.lowering.row_calls.push(call);
        }
    }

    /// The other forms of the operator whose call was added last.
    fn alternatives(&mut self, graph: &Graph, op: OpId, target: &Target) -> Result<()> {
        for form in [Form::Speed, Form::Long, Form::Lean] {
            let target = &form.target(target);
            let lowered = match form {
                Form::Lean if !mac::has_lean_form(graph, op, target) => None,
                Form::Lean => Some(mac::fully_connected_lean(graph, op, target)?),
                _ => lower_op(graph, op, target)?,
            };
            let Some(lowered) = lowered else { continue };
            let call = self.call(graph, op, lowered, None);
            let usual = self.lowering.calls.last().filter(|usual| usual.op == op);
            if usual.is_none_or(|usual| (usual.kernel, usual.scratch) != (call.kernel, call.scratch)) {
                self.lowering.alternatives.push((form, call));
            }
        }
        Ok(())
    }

    /// The call of an operator whose parameters are in pieces.
    fn in_pieces(&mut self, op: OpId, cut: mac::Cut) -> Call {
        let parameter = self.parameters.add(cut.parameter);
        let several = cut.runs.len() > 1;
        let launches: Vec<Launch> = (cut.runs.into_iter().enumerate())
            .map(|(i, run)| {
                let part = if several { format!("_part_{i}") } else { String::new() };
                let name = format!("{}_{}{part}", cut.stem, op.0);
                Launch {
                    kernel: self.kernels.add(run.built, name, cut.schedule.clone()),
                    count: run.count,
                    start: run.start,
                    piece: run.piece,
                    bytes: run.bytes,
                    offsets: run.offsets,
                }
            })
            .collect();
        let operand = |operand: LoweredOperand| operand.placed(|_| parameter);
        Call {
            op,
            kernel: launches.first().map(|launch| launch.kernel),
            operands: cut.operands.into_iter().map(operand).collect(),
            scratch: cut.scratch,
            launches,
            overlaps: Vec::new(),
            rows: None,
        }
    }

    fn finish(self) -> Result<Lowering> {
        let mut lowering = self.lowering;
        lowering.kernels = self.kernels.all;
        let (merged, places) = self.parameters.merge()?;
        lowering.parameters = merged;
        let place = |id: &mut ParameterId| *id = places[id.0 as usize];
        let alternatives = lowering.alternatives.iter_mut().map(|(_, call)| call);
        for call in lowering
            .calls
            .iter_mut()
            .chain(&mut lowering.row_calls)
            .chain(alternatives)
        {
            if let Some(outside) = call.rows.as_mut().and_then(|rows| rows.outside.as_mut()) {
                place(outside);
            }
            for operand in &mut call.operands {
                if let Operand::Parameter(id) = operand {
                    place(id);
                }
            }
        }
        Ok(lowering)
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
            layouts: built.layouts,
        });
        alike.push(id);
        id
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
        OpKind::Reshape | OpKind::External(_) => return Ok(None),
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

/// Functions of others may load constants of any size with the widest instructions.
const EXTERNAL_ALIGN: u64 = 16;

/// The call of an external function: its operands, then its results, then its workspace.
fn external_call(graph: &Graph, op: OpId, external: &External, parameters: &mut Parameters) -> Call {
    let operand = |id: &TensorId| match constant(graph, op, *id) {
        Some(parameter) => Operand::Parameter(parameters.add(Parameter {
            align: EXTERNAL_ALIGN,
            ..parameter
        })),
        None => Operand::Tensor(*id),
    };
    let mut operands: Vec<Operand> = graph.op(op).inputs.iter().map(operand).collect();
    operands.extend(graph.op(op).outputs.iter().map(|id| Operand::Tensor(*id)));
    let workspace = external.workspace;
    let scratch = (workspace.size > 0).then(|| {
        operands.push(Operand::Scratch);
        Scratch {
            size: workspace.size,
            align: workspace.align.max(EXTERNAL_ALIGN),
        }
    });
    Call {
        op,
        kernel: None,
        operands,
        scratch,
        launches: Vec::new(),
        overlaps: Vec::new(),
        rows: None,
    }
}

/// What [`lower_op`] gives for an operator beside its kernel, for one of those that [`Alike`] knows.
fn operands_of(graph: &Graph, op: OpId, target: &Target) -> Result<Operands> {
    match &graph.op(op).kind {
        OpKind::Conv2d { .. } | OpKind::FullyConnected { .. } => mac::operands(graph, op, target),
        _ => Ok(binary::operands(graph, op, target)),
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
        let calls: Vec<(u32, u32)> = lowering
            .calls
            .iter()
            .map(|call| (call.op.0, call.kernel.unwrap().0))
            .collect();
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
                let kernel = lowering.kernel(call.kernel.expect("a kernel"));
                assert!(equal(&kernel.function, &own.built.function), "{:?}", call.op);
                assert_eq!(
                    (kernel.executions.clone(), &kernel.schedule),
                    (own.built.executions, &own.schedule)
                );
                let operands = operands_of(&graph, call.op, &target).expect("operands");
                assert_eq!((operands.scratch, &operands.overlaps), (own.scratch, &own.overlaps));
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
