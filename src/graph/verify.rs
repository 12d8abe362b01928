//! Proves what the rest relies on: after [`verify`] every index, shape, window and quantization of a graph is legal,
//! and nothing later checks again.
//!
//! In order, each only if the ones before found nothing:
//! 1. tensors: rank, number of elements, length of constants, quantization;
//! 2. structure: indices, one producer for each tensor, topological order, inputs and outputs;
//! 3. operators: shapes as [inferred](shape::infer), element types, quantization, multipliers that fixed-point
//!    requantization can express.
//!
//! What is *legal* is what TensorFlow Lite Micro computes: its own checks are named where one stems from it.

use super::external::{Argument, External, Port};
use super::{BinaryOp, DType, Graph, Op, OpKind, Quantization, Tensor, TensorId, UnaryOp, quant, shape};
use crate::error::{Code, Error, Result};
use crate::limits;
use smallvec::SmallVec;

/// Most findings that are reported at once.
const FINDINGS: usize = 64;

/// Verifies a whole graph.
///
/// # Errors
/// All findings of the first of the three steps that has any: [`Code::Model`] for what is wrong,
/// [`Code::Unsupported`] for what is legal but has no implementation, [`Code::Limit`].
pub fn verify(graph: &Graph) -> Result<()> {
    for (count, most, what) in [
        (graph.tensors.len(), limits::TENSORS, "tensors"),
        (graph.ops.len(), limits::OPERATORS, "operators"),
        (graph.inputs.len(), limits::OPERANDS, "model inputs"),
        (graph.outputs.len(), limits::OPERANDS, "model outputs"),
    ] {
        if count > most {
            let message = format!("{count} {what}, at most {most} are supported");
            return Err(Error::new(Code::Limit, message));
        }
    }
    report(graph.tensors.iter().enumerate().filter_map(|(id, tensor)| {
        let at = |error: Error| error.at(format!("tensor {id} {}", tensor.describe()));
        check_tensor(tensor).map_err(at).err()
    }))?;
    structure(graph)?;
    let known = known(graph);
    let check = |op: &Op| check_op(graph, op, &known).map_err(|error| error.at(op.describe()));
    report(graph.ops.iter().filter_map(|op| check(op).err()))
}

/// Proves what plans rely on, of a graph that is verified: every model output is produced, through views only, by an
/// operator, and no two share their storage.
///
/// # Errors
/// [`Code::Internal`]: the passes see to it.
pub fn verify_outputs(graph: &Graph) -> Result<()> {
    let producers = graph.producers();
    let mut claimed = vec![false; graph.tensors.len()];
    for &output in &graph.outputs {
        let mut root = output;
        let made = loop {
            match producers[root.index()].map(|id| graph.op(id)) {
                Some(op) if op.kind == OpKind::Reshape => root = op.inputs[0],
                made => break made.is_some(),
            }
        };
        if !made || std::mem::replace(&mut claimed[root.index()], true) {
            let location = format!("tensor {} {}", output.0, graph.tensor(output).describe());
            return Err(Error::internal("a model output has no storage of its own").at(location));
        }
    }
    Ok(())
}

fn report(findings: impl Iterator<Item = Error>) -> Result<()> {
    Error::collect(findings.take(FINDINGS).collect()).map_or(Ok(()), Err)
}

fn check_tensor(tensor: &Tensor) -> Result<()> {
    let elements = shape::elements(&tensor.shape)? as u64;
    if let Some(data) = &tensor.data {
        let bytes = elements * tensor.dtype.bytes() as u64;
        if data.len() != bytes {
            return Err(Error::model(format!(
                "the constant has {} bytes, its shape and type need {bytes}",
                data.len()
            )));
        }
    }
    let Some(quantization) = &tensor.quantization else {
        return Ok(());
    };
    let Quantization {
        scale,
        zero_point,
        axis,
    } = quantization;
    if scale.is_empty() || scale.len() != zero_point.len() {
        return Err(Error::model(format!(
            "{} scales with {} zero points",
            scale.len(),
            zero_point.len()
        )));
    }
    if let Some(bad) = scale.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
        return Err(Error::model(format!("scale {bad} is not a positive number")));
    }
    let (least, most) = quant::range(tensor.dtype);
    if let Some(bad) = zero_point.iter().find(|zero| !(least..=most).contains(zero)) {
        return Err(Error::model(format!(
            "zero point {bad} is outside the range of {}",
            tensor.dtype.name()
        )));
    }
    match axis {
        None if scale.len() > 1 => Err(Error::model(format!(
            "{} scales, but no quantized dimension",
            scale.len()
        ))),
        Some(axis) if tensor.shape.0.get(*axis) != Some(&scale.len()) => Err(Error::model(format!(
            "{} scales do not fit the quantized dimension {axis}",
            scale.len()
        ))),
        _ => Ok(()),
    }
}

fn structure(graph: &Graph) -> Result<()> {
    let mut findings = Vec::new();
    let mut find = |error: Error| {
        if findings.len() < FINDINGS {
            findings.push(error);
        }
    };
    let in_range = |id: &TensorId| id.index() < graph.tensors.len();
    let missing = |id: TensorId| {
        Error::model(format!(
            "tensor {} does not exist: there are {}",
            id.0,
            graph.tensors.len()
        ))
    };
    let name = |id: TensorId| format!("tensor {} {}", id.0, graph.tensor(id).describe());

    // Who defines a tensor: defined while the operators before the present one have run.
    let mut defined: Vec<bool> = graph.tensors.iter().map(|tensor| tensor.data.is_some()).collect();
    let mut produced = vec![false; graph.tensors.len()];
    let mut is_input = vec![false; graph.tensors.len()];
    for &id in &graph.inputs {
        if !in_range(&id) {
            find(missing(id).at("the model's inputs"));
        } else if graph.tensor(id).data.is_some() {
            find(Error::model("a constant cannot be a model input").at(name(id)));
        } else if is_input[id.index()] {
            find(Error::model("the same tensor is a model input twice").at(name(id)));
        } else {
            is_input[id.index()] = true;
            defined[id.index()] = true;
        }
    }
    for op in &graph.ops {
        if op.outputs.is_empty() || op.outputs.len() > most_results(&op.kind) {
            let message = format!("{} has one result, not {}", op.kind.name(), op.outputs.len());
            find(Error::model(message).at(op.describe()));
        }
        if op.inputs.len() > limits::OPERANDS {
            let message = format!(
                "{} operands, at most {} are supported",
                op.inputs.len(),
                limits::OPERANDS
            );
            find(Error::new(Code::Limit, message).at(op.describe()));
        }
        for &id in &op.inputs {
            if !in_range(&id) {
                find(missing(id).at(op.describe()));
            } else if !defined[id.index()] {
                let message = format!(
                    "operand {} has no value yet: no operator before this one produces it",
                    name(id)
                );
                find(Error::model(message).at(op.describe()));
            }
        }
        for &id in &op.outputs {
            if !in_range(&id) {
                find(missing(id).at(op.describe()));
                continue;
            }
            let taken = match graph.tensor(id) {
                tensor if tensor.data.is_some() => "a constant",
                _ if is_input[id.index()] => "a model input",
                _ if produced[id.index()] => "the result of another operator",
                _ => {
                    produced[id.index()] = true;
                    defined[id.index()] = true;
                    continue;
                }
            };
            find(Error::model(format!("result {} is already {taken}", name(id))).at(op.describe()));
        }
    }
    if graph.outputs.is_empty() {
        find(Error::model("the model has no outputs"));
    }
    for &id in &graph.outputs {
        if !in_range(&id) {
            find(missing(id).at("the model's outputs"));
        } else if !defined[id.index()] {
            find(Error::model("nothing produces this model output").at(name(id)));
        }
    }
    let ends = graph.inputs.iter().chain(&graph.outputs).filter(|id| in_range(id));
    for &id in ends {
        if graph.tensor(id).shape.elements() == 0 {
            find(Error::model("a model input or output has no elements").at(name(id)));
        }
    }
    Error::collect(findings).map_or(Ok(()), Err)
}

fn most_results(kind: &OpKind) -> usize {
    match kind {
        OpKind::External(_) => limits::OPERANDS,
        _ => 1,
    }
}

/// What is called has the operands and results that its arguments name.
fn check_external(op: &Op, external: &External) -> Result<()> {
    let (inputs, outputs) = (op.inputs.len(), op.outputs.len());
    let ports = external.arguments.iter().filter_map(|argument| match argument {
        Argument::Port(port) => Some(port),
        _ => None,
    });
    for port in ports.chain(external.resident.iter().map(|(port, _)| port)) {
        let known = match port {
            Port::Input(i) => *i < inputs,
            Port::Output(i) => *i < outputs,
        };
        if !known {
            return Err(Error::model(format!(
                "the argument {port} does not exist: there are {inputs} operands and {outputs} results"
            )));
        }
    }
    if external.arguments.len() > limits::OPERANDS {
        let message = format!(
            "{} arguments, at most {} are supported",
            external.arguments.len(),
            limits::OPERANDS
        );
        return Err(Error::new(Code::Limit, message));
    }
    let workspace = &external.workspace;
    let beyond = |argument: &&Argument| matches!(argument, Argument::Workspace(offset) if *offset > workspace.size);
    if let Some(argument) = external.arguments.iter().find(beyond) {
        return Err(Error::model(format!(
            "the argument {argument} lies outside the workspace of {} bytes",
            workspace.size
        )));
    }
    if workspace.size > limits::ARENA_BYTES || workspace.align > limits::ALIGNMENT {
        let message = format!(
            "a workspace of {} bytes, aligned to {}",
            workspace.size, workspace.align
        );
        return Err(Error::new(Code::Limit, message));
    }
    if workspace.align != 0 && !workspace.align.is_power_of_two() {
        return Err(Error::model(format!("{} is not an alignment", workspace.align)));
    }
    Ok(())
}

/// What lies in the workspace lies inside it.
fn check_resident(graph: &Graph, op: &Op, external: &External) -> Result<()> {
    for (port, offset) in &external.resident {
        let id = match port {
            Port::Input(i) => op.inputs[*i],
            Port::Output(i) => op.outputs[*i],
        };
        let end = offset.checked_add(graph.tensor(id).bytes() as u64);
        if end.is_none_or(|end| end > external.workspace.size) {
            return Err(Error::model(format!(
                "{} does not fit at {offset} of a workspace of {} bytes",
                graph.tensor(id).describe(),
                external.workspace.size
            )));
        }
    }
    Ok(())
}

/// For every tensor, whether it is a constant or computed from constants alone: what folding makes a constant.
fn known(graph: &Graph) -> Vec<bool> {
    let mut known: Vec<bool> = graph.tensors.iter().map(|tensor| tensor.data.is_some()).collect();
    for op in &graph.ops {
        let computed = !matches!(op.kind, OpKind::Copy | OpKind::External(_)) && !op.inputs.is_empty();
        known[op.output().index()] = computed && op.inputs.iter().all(|id| known[id.index()]);
    }
    known
}

/// One operator of a graph whose tensors and structure are proven.
fn check_op(graph: &Graph, op: &Op, known: &[bool]) -> Result<()> {
    // Every pass is followed by this: most operators take no memory.
    let inputs: SmallVec<[&Tensor; 4]> = op.inputs.iter().map(|id| graph.tensor(*id)).collect();
    if let OpKind::External(external) = &op.kind {
        check_external(op, external)?;
        check_resident(graph, op, external)?;
    }
    let output = graph.tensor(op.output());
    let shapes: SmallVec<[_; 4]> = inputs.iter().map(|tensor| &tensor.shape).collect();
    let shape = shape::infer(&op.kind, &shapes, &output.shape)?;
    if shape != output.shape {
        return Err(Error::model(format!(
            "the result has the shape {shape}, but the model declares {}",
            output.describe()
        )));
    }
    if let Some(empty) = inputs
        .iter()
        .chain([&output])
        .find(|tensor| tensor.shape.elements() == 0)
    {
        return Err(Error::model(format!("{} has no elements", empty.describe())));
    }
    let checked = Checked {
        op,
        inputs: &inputs,
        output,
        known,
    };
    match &op.kind {
        OpKind::Conv2d { .. } => checked.accumulate(0),
        OpKind::DepthwiseConv2d { .. } => checked.accumulate(3),
        OpKind::FullyConnected { .. } => checked.accumulate(0),
        OpKind::Binary { op, .. } => checked.binary(*op),
        OpKind::Unary { op } => checked.unary(*op),
        OpKind::Pool2d { .. } => {
            checked.arithmetic()?;
            checked.same_grid()
        }
        OpKind::Pad { .. } | OpKind::Concat { .. } => {
            checked.same_type()?;
            checked.same_grid()
        }
        OpKind::Transpose { .. } => {
            checked.same_type()?;
            let mut quantized = checked.all().filter(|tensor| tensor.quantization.is_some());
            quantized.try_for_each(|tensor| checked.per_tensor(tensor))?;
            checked.same_grid()
        }
        OpKind::Reshape | OpKind::Copy => checked.same_type(),
        OpKind::Lookup => {
            checked.types(&[DType::I8])?;
            checked.constant(1, "table")
        }
        OpKind::Softmax { beta } => {
            if !beta.is_finite() {
                return Err(Error::model(format!("beta {beta} is not a number")));
            }
            checked.arithmetic()?;
            checked.fixed_output(1.0 / 256.0, -128)
        }
        OpKind::Mean { .. } => {
            checked.arithmetic()?;
            checked.ratio(f64::from(inputs[0].affine().0) / f64::from(output.affine().0))
        }
        OpKind::Quantize => match (inputs[0].dtype, output.dtype) {
            (DType::F32, DType::I8 | DType::U8) => checked.per_tensor(output),
            (DType::I8 | DType::U8, DType::I8 | DType::U8) => {
                checked.per_tensor(inputs[0])?;
                checked.per_tensor(output)?;
                checked.ratio(f64::from(inputs[0].affine().0) / f64::from(output.affine().0))
            }
            _ => Err(checked.unsupported_types()),
        },
        OpKind::Dequantize => match (inputs[0].dtype, output.dtype) {
            (DType::I8 | DType::U8, DType::F32) => checked.per_tensor(inputs[0]),
            _ => Err(checked.unsupported_types()),
        },
        OpKind::External(_) => Ok(()),
    }
}

/// An operator with its operands, for the rules below.
struct Checked<'g> {
    op: &'g Op,
    inputs: &'g [&'g Tensor],
    output: &'g Tensor,
    known: &'g [bool],
}

impl Checked<'_> {
    fn all(&self) -> impl Iterator<Item = &Tensor> {
        self.inputs.iter().copied().chain([self.output])
    }

    fn unsupported_types(&self) -> Error {
        let list: Vec<String> = self.inputs.iter().map(|tensor| tensor.describe()).collect();
        Error::unsupported(format!(
            "{} from {} to {} is not supported",
            self.op.kind.name(),
            list.join(", "),
            self.output.describe()
        ))
        .help("supported are float32 and int8 activations, with int8 weights and int32 biases")
    }

    fn same_type(&self) -> Result<()> {
        if self.all().any(|tensor| tensor.dtype != self.output.dtype) {
            return Err(self.unsupported_types());
        }
        Ok(())
    }

    fn types(&self, allowed: &[DType]) -> Result<()> {
        self.same_type()?;
        if !allowed.contains(&self.output.dtype) {
            return Err(self.unsupported_types());
        }
        Ok(())
    }

    /// All float32, or all int8 with a scale and zero point each.
    fn arithmetic(&self) -> Result<()> {
        self.types(&[DType::I8, DType::F32])?;
        if self.output.dtype == DType::I8 {
            self.all().try_for_each(|tensor| self.per_tensor(tensor))?;
        }
        Ok(())
    }

    fn per_tensor(&self, tensor: &Tensor) -> Result<()> {
        match &tensor.quantization {
            Some(quantization) if quantization.scale.len() == 1 => Ok(()),
            Some(_) => Err(Error::unsupported(format!(
                "{} is quantized per axis: only constant weights of convolutions and dense layers can be",
                tensor.describe()
            ))),
            None => Err(
                Error::model(format!("{} has no scale and zero point", tensor.describe()))
                    .help("quantize the whole model: every int8 activation needs its parameters"),
            ),
        }
    }

    fn constant(&self, input: usize, what: &str) -> Result<()> {
        match self.op.inputs.get(input) {
            Some(id) if !self.known[id.index()] => Err(Error::unsupported(format!(
                "the {what} {} is not a constant",
                self.inputs[input].describe()
            ))),
            _ => Ok(()),
        }
    }

    /// Operators that move elements or keep their scale. TFLM reads one of the two quantizations and ignores the
    /// other; LiteRT refuses scales that differ by more than 1e-6. So do we, and by more than 1/256 of them: within
    /// that no element is off by a step.
    fn same_grid(&self) -> Result<()> {
        let (scale, zero) = self.output.affine();
        let differs = |tensor: &&&Tensor| {
            let (s, z) = tensor.affine();
            z != zero || (s - scale).abs() > (scale / 256.0).min(1e-6)
        };
        match self.inputs.iter().find(differs) {
            None => Ok(()),
            Some(input) => Err(Error::unsupported(format!(
                "{} keeps the quantization, but {} has scale {} and zero point {}, and {} has {scale} and {zero}",
                self.op.kind.name(),
                input.describe(),
                input.affine().0,
                input.affine().1,
                self.output.describe()
            ))
            .help("insert a quantize operator between them, or convert the model again with a current converter")),
        }
    }

    /// The scale and zero point that the reference kernel of an operator assumes for int8.
    fn fixed_output(&self, scale: f32, zero: i32) -> Result<()> {
        if self.output.dtype != DType::I8 || self.output.affine() == (scale, zero) {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "{} on int8 has results of scale {scale} and zero point {zero}, but {} has {} and {}",
            self.op.kind.name(),
            self.output.describe(),
            self.output.affine().0,
            self.output.affine().1
        )))
    }

    /// Requantization shifts left by at most 30.
    fn ratio(&self, real: f64) -> Result<()> {
        if self.output.dtype == DType::F32 || real < f64::from(1u32 << 30) {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "the scales of operands and result differ by a factor of {real:.3e}: results would not fit 32 bits"
        )))
    }

    /// Convolutions and dense layers: activation, weights with their quantized dimension, bias.
    fn accumulate(&self, axis: usize) -> Result<()> {
        let (input, weights, output) = (self.inputs[0], self.inputs[1], self.output);
        let dense = matches!(self.op.kind, OpKind::FullyConnected { .. });
        if !dense {
            self.constant(1, "filter")?;
        }
        self.constant(2, "bias")?;
        let bias = self.inputs.get(2).map(|tensor| tensor.dtype);
        match (input.dtype, weights.dtype, bias, output.dtype) {
            (DType::F32, DType::F32, None | Some(DType::F32), DType::F32) => return Ok(()),
            (DType::I8, DType::I8, None | Some(DType::I32), DType::I8) => {}
            _ => return Err(self.unsupported_types()),
        }
        self.per_tensor(input)?;
        self.per_tensor(output)?;
        let Some(quantization) = &weights.quantization else {
            return self.per_tensor(weights);
        };
        if quantization.axis.is_some_and(|found| found != axis) {
            return Err(Error::unsupported(format!(
                "{} is quantized along another dimension than {axis}",
                weights.describe()
            )));
        }
        // TFLM subtracts the zero point of a dense layer's weights, but never that of a filter or of a row.
        let symmetric = quantization.zero_point.iter().all(|zero| *zero == 0);
        if !symmetric && (!dense || quantization.scale.len() > 1) {
            return Err(Error::unsupported(format!(
                "{} has the zero points {:?}: int8 filters must be symmetric",
                weights.describe(),
                quantization.zero_point
            )));
        }
        if weights.data.is_none() && !self.known[self.op.inputs[1].index()] {
            self.per_tensor(weights)?;
        }
        let largest = quantization.scale.iter().copied().fold(0.0, f32::max);
        self.ratio(f64::from(input.affine().0) * f64::from(largest) / f64::from(output.affine().0))
    }

    fn binary(&self, op: BinaryOp) -> Result<()> {
        // int32 is not quantized and wraps.
        self.types(&[DType::I8, DType::F32, DType::I32])?;
        if self.output.dtype != DType::I8 {
            return Ok(());
        }
        self.all().try_for_each(|tensor| self.per_tensor(tensor))?;
        let [a, b, out] = [self.inputs[0], self.inputs[1], self.output].map(|tensor| f64::from(tensor.affine().0));
        if op == BinaryOp::Mul {
            return self.ratio(a * b / out);
        }
        // TFLM brings both operands to twice the larger scale, shifted left by 20, and asserts that the way back is
        // below one.
        let back = 2.0 * a.max(b) / (f64::from(1 << 20) * out);
        if back >= 1.0 {
            return Err(Error::unsupported(format!(
                "the scales of the operands are {:.3e} times that of the result: sums would not fit 32 bits",
                a.max(b) / out
            )));
        }
        Ok(())
    }

    fn unary(&self, op: UnaryOp) -> Result<()> {
        self.arithmetic()?;
        match op {
            UnaryOp::Logistic => self.fixed_output(1.0 / 256.0, -128),
            UnaryOp::Tanh => self.fixed_output(1.0 / 128.0, 0),
            UnaryOp::Relu | UnaryOp::Relu6 | UnaryOp::ReluN1To1 => {
                self.ratio(f64::from(self.inputs[0].affine().0) / f64::from(self.output.affine().0))
            }
        }
    }
}

#[cfg(test)]
mod tests;
