//! TensorFlow Lite models.
//!
//! The file is a flatbuffer: it is verified once, with explicit limits, and then read in place. Parameters stay where
//! they are: a constant is a range of the file. Reading takes four steps, and each reports all that it finds at once:
//! the flatbuffer, the tensors, the structure (operands, order, aliasing), the operators.

mod ops;
mod tensors;

#[cfg(test)]
mod tests;

/// Accessors of the format, generated from schema.fbs (which has the command).
#[rustfmt::skip]
#[allow(unsafe_code, missing_docs, unused, clippy::all, clippy::pedantic)]
mod generated {
    include!("schema.rs");
}
use generated::tflite as schema;

use super::ReadOptions;
use crate::data::{Bytes, Source};
use crate::error::{Code, Error, Result};
use crate::graph::{Graph, Op, Shape, Tensor, TensorId, shape, verify};
use crate::limits;
use flatbuffers::{ErrorTraceDetail, InvalidFlatbuffer, VerifierOptions};
use ops::{Operator, Translated, View};
use schema::BuiltinOperator;
use std::sync::Arc;
use tensors::Declared;

/// Most findings that are reported at once.
const FINDINGS: usize = 256;

/// Reads a TensorFlow Lite model.
///
/// # Errors
/// See [`super::read`].
pub fn read(source: &Arc<Source>, options: &ReadOptions) -> Result<Graph> {
    let model = flatbuffer(source.bytes())?;
    if model.version() != 3 {
        return Err(Error::unsupported(format!(
            "version {} of the TensorFlow Lite format is not supported",
            model.version()
        ))
        .help("convert the model again: current converters write version 3"));
    }
    let subgraphs = model.subgraphs().unwrap_or_default();
    let Some(subgraph) = subgraphs.iter().next() else {
        return Err(Error::model("the model has no subgraph"));
    };
    if subgraphs.len() > 1 {
        tracing::warn!("the model has {} subgraphs; the first is compiled", subgraphs.len());
    }
    let limited = |count: usize, most: usize, what: &str| {
        let message = || format!("the model has {count} {what}, more than {most}");
        if count > most {
            Err(Error::new(Code::Limit, message()))
        } else {
            Ok(())
        }
    };
    limited(
        subgraph.tensors().map_or(0, |list| list.len()),
        limits::TENSORS,
        "tensors",
    )?;
    limited(
        subgraph.operators().map_or(0, |list| list.len()),
        limits::OPERATORS,
        "operators",
    )?;
    limited(
        subgraph.inputs().map_or(0, |list| list.len()),
        limits::OPERANDS,
        "inputs",
    )?;
    limited(
        subgraph.outputs().map_or(0, |list| list.len()),
        limits::OPERANDS,
        "outputs",
    )?;

    let mut tensors = tensors::read(source, model, subgraph)?;
    let structure = structure(model, subgraph, &mut tensors)?;
    let graph = Builder::new(&tensors, &structure, options)?.build(&structure)?;
    verify::verify(&graph)?;
    Ok(graph)
}

/// Verifies the flatbuffer within [`limits`].
fn flatbuffer(bytes: &[u8]) -> Result<schema::Model<'_>> {
    let options = VerifierOptions {
        max_depth: limits::NESTING,
        max_tables: limits::TABLES,
        max_apparent_size: bytes.len().saturating_mul(limits::SHARING).saturating_add(1 << 16),
        ignore_missing_null_terminator: true,
    };
    schema::root_as_model_with_opts(&options, bytes).map_err(|error| {
        let damaged = |what: String, trace: &[ErrorTraceDetail]| {
            let error = Error::model(format!("the model file is damaged: {what}"))
                .help("it may be cut short or changed on its way: fetch or convert it again");
            if trace.is_empty() { error } else { error.at(path(trace)) }
        };
        match &error {
            InvalidFlatbuffer::TooManyTables => Error::new(
                Code::Limit,
                format!("the model file has more than {} tables", limits::TABLES),
            ),
            InvalidFlatbuffer::DepthLimitReached => Error::new(
                Code::Limit,
                format!("the model file nests tables more than {} deep", limits::NESTING),
            ),
            InvalidFlatbuffer::ApparentSizeTooLarge => Error::new(
                Code::Limit,
                "the model file shares so much that it would be unreasonably large when expanded",
            ),
            InvalidFlatbuffer::Utf8Error { error_trace, .. } => {
                Error::model("a name in the model is not valid UTF-8").at(path(error_trace.as_ref()))
            }
            InvalidFlatbuffer::MissingRequiredField { required, error_trace } => {
                damaged(format!("{required} is missing"), error_trace.as_ref())
            }
            InvalidFlatbuffer::InconsistentUnion { field, error_trace, .. } => damaged(
                format!("{field} has a type without a value or a value without a type"),
                error_trace.as_ref(),
            ),
            InvalidFlatbuffer::MissingNullTerminator { error_trace, .. } => {
                damaged("a string does not end".to_owned(), error_trace.as_ref())
            }
            InvalidFlatbuffer::Unaligned {
                position, error_trace, ..
            } => damaged(format!("the value at {position} is not aligned"), error_trace.as_ref()),
            InvalidFlatbuffer::RangeOutOfBounds { range, error_trace } => damaged(
                format!(
                    "bytes {} to {} lie outside of its {}",
                    range.start,
                    range.end,
                    bytes.len()
                ),
                error_trace.as_ref(),
            ),
            InvalidFlatbuffer::SignedOffsetOutOfBounds {
                position, error_trace, ..
            } => damaged(format!("the offset at {position} points outside"), error_trace.as_ref()),
        }
    })
}

/// `subgraphs[0].tensors[3].name`.
fn path(trace: &[ErrorTraceDetail]) -> String {
    // The innermost comes first.
    let mut path = String::new();
    for detail in trace.iter().rev() {
        match detail {
            ErrorTraceDetail::VectorElement { index, .. } => path += &format!("[{index}]"),
            ErrorTraceDetail::TableField { field_name: name, .. } => {
                path += if path.is_empty() { "" } else { "." };
                path += name;
            }
            ErrorTraceDetail::UnionVariant { .. } => {}
        }
    }
    path
}

/// A subgraph whose indices are proven: inputs are no constants, every operand is defined before it is read, and
/// everything is defined once.
struct Structure<'a> {
    operators: Vec<Operator<'a>>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

fn structure<'a>(
    model: schema::Model<'a>,
    subgraph: schema::SubGraph<'a>,
    tensors: &mut [Declared],
) -> Result<Structure<'a>> {
    let mut findings = Findings::default();
    let count = tensors.len();
    let index = move |id: i32, what: &str| match usize::try_from(id) {
        Ok(id) if id < count => Ok(id),
        _ => Err(Error::model(format!(
            "{what} refers to tensor {id}, but there are {count}"
        ))),
    };
    let ends = |ids: Option<flatbuffers::Vector<'_, i32>>, what: &str, findings: &mut Findings| {
        let ids = ids.into_iter().flatten().enumerate();
        let ids = ids.filter_map(|(i, id)| findings.keep(index(id, &format!("{what} {i}"))));
        ids.collect::<Vec<usize>>()
    };
    let inputs = ends(subgraph.inputs(), "model input", &mut findings);
    let outputs = ends(subgraph.outputs(), "model output", &mut findings);
    let codes: Vec<OperatorCode> = model
        .operator_codes()
        .into_iter()
        .flatten()
        .map(OperatorCode::new)
        .collect();
    let tables = subgraph.operators().into_iter().flatten().enumerate();
    let operators: Vec<Operator> = tables
        .filter_map(|(i, table)| {
            let operator = operator(&codes, i, table, &index).map_err(|error| error.at(format!("operator {i}")));
            findings.keep(operator)
        })
        .collect();
    findings.check()?;

    // Which operator makes a tensor, and what has a value from the start.
    let mut producer: Vec<Option<usize>> = vec![None; count];
    let mut defined: Vec<bool> = tensors
        .iter()
        .map(|tensor| tensor.data.is_some() || tensor.is_variable() || tensor.is_external())
        .collect();
    let mut is_input = vec![false; count];
    let tensor =
        |id: usize, tensors: &[Declared]| format!("tensor {id} {:?} {}", tensors[id].name, tensors[id].describe());
    for &id in &inputs {
        if is_input[id] {
            findings.push(Error::model("the tensor is a model input twice").at(tensor(id, tensors)));
        } else if tensors[id].data.is_some() {
            findings.push(Error::model("a model input is a constant").at(tensor(id, tensors)));
        }
        is_input[id] = true;
        defined[id] = true;
    }
    for operator in &operators {
        for &id in &operator.outputs {
            let what = match producer[id] {
                _ if is_input[id] => "a model input".to_owned(),
                _ if tensors[id].data.is_some() => "a constant".to_owned(),
                Some(other) if other == operator.index => "another result of the same operator".to_owned(),
                Some(other) => format!("already the result of operator {other}"),
                None => {
                    producer[id] = Some(operator.index);
                    continue;
                }
            };
            let message = format!("the result {} of {} is {what}", tensor(id, tensors), operator.title());
            findings.push(Error::model(message).at(operator.location(tensors)));
        }
    }
    for operator in &operators {
        for &id in operator.inputs.iter().flatten() {
            if defined[id] {
                continue;
            }
            let what = match producer[id] {
                Some(other) if other == operator.index => "its own result".to_owned(),
                Some(other) => format!("the result of operator {other}, which runs later"),
                // Nothing needs to store a list of no elements.
                None if tensors[id].dims.contains(&0) => {
                    tensors[id].data = Some(Bytes::from_vec(Vec::new()));
                    defined[id] = true;
                    continue;
                }
                None => "neither a constant nor a model input, and nothing produces it".to_owned(),
            };
            let message = format!("the operand {} of {} is {what}", tensor(id, tensors), operator.title());
            findings.push(Error::model(message).at(operator.location(tensors)));
        }
        operator.outputs.iter().for_each(|&id| defined[id] = true);
    }
    if outputs.is_empty() {
        findings.push(Error::model("the model has no outputs"));
    }
    for &id in outputs.iter().filter(|&&id| !defined[id]) {
        findings.push(Error::model("nothing produces this model output").at(tensor(id, tensors)));
    }
    findings.check()?;
    Ok(Structure {
        operators,
        inputs,
        outputs,
    })
}

/// Which operator it is.
struct OperatorCode {
    builtin: BuiltinOperator,
    custom: Option<Arc<str>>,
}

impl OperatorCode {
    fn new(code: schema::OperatorCode) -> Self {
        // Codes up to 127 were once stored in a byte; newer files have both.
        let builtin = BuiltinOperator(code.builtin_code().0.max(code.deprecated_builtin_code().into()));
        let name = || tensors::keep_name(code.custom_code().unwrap_or_default()).into();
        OperatorCode {
            builtin,
            custom: (builtin == BuiltinOperator::CUSTOM).then(name),
        }
    }
}

/// An operator whose operands exist.
fn operator<'a>(
    codes: &[OperatorCode],
    number: usize,
    table: schema::Operator<'a>,
    index: &dyn Fn(i32, &str) -> Result<usize>,
) -> Result<Operator<'a>> {
    let opcode = table.opcode_index() as usize;
    let Some(code) = codes.get(opcode) else {
        let message = format!(
            "the operator refers to operator code {opcode}, but there are {}",
            codes.len()
        );
        return Err(Error::model(message));
    };
    let operands = table
        .inputs()
        .map_or(0, |list| list.len())
        .max(table.outputs().map_or(0, |list| list.len()));
    if operands > limits::OPERANDS {
        let message = format!("the operator has {operands} operands, more than {}", limits::OPERANDS);
        return Err(Error::new(Code::Limit, message));
    }
    let inputs = table.inputs().into_iter().flatten().enumerate();
    let inputs = inputs.map(|(i, id)| match id {
        -1 => Ok(None),
        id => index(id, &format!("operand {i}")).map(Some),
    });
    let outputs = table.outputs().into_iter().flatten().enumerate();
    let outputs = outputs.map(|(i, id)| index(id, &format!("result {i}")));
    Ok(Operator {
        index: number,
        code: code.builtin,
        custom: code.custom.clone(),
        inputs: inputs.collect::<Result<_>>()?,
        outputs: outputs.collect::<Result<_>>()?,
        table,
    })
}

impl Operator<'_> {
    /// The name of the first result.
    fn name<'t>(&self, tensors: &'t [Declared]) -> &'t str {
        self.outputs.first().map_or("", |&id| tensors[id].name.as_str())
    }

    fn location(&self, tensors: &[Declared]) -> String {
        format!("operator {} {} {:?}", self.index, self.title(), self.name(tensors))
    }
}

/// Findings of one step.
#[derive(Default)]
struct Findings {
    errors: Vec<Error>,
    more: usize,
}

impl Findings {
    fn push(&mut self, error: Error) {
        if self.errors.len() < FINDINGS {
            self.errors.push(error);
        } else {
            self.more += 1;
        }
    }

    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    fn check(&mut self) -> Result<()> {
        let mut errors = std::mem::take(&mut self.errors);
        if self.more > 0 {
            errors.push(Error::new(errors[0].code, format!("and {} more findings", self.more)));
        }
        Error::collect(errors).map_or(Ok(()), Err)
    }
}

/// Makes the graph, operator by operator.
struct Builder<'a> {
    tensors: &'a [Declared<'a>],
    /// Shapes of the constants, of the model's inputs, and of what has been produced so far.
    shapes: Vec<Option<Shape>>,
    /// The graph's tensors, made when they are first needed; `Some(None)` if that failed, which is reported once.
    ids: Vec<Option<Option<TensorId>>>,
    /// An input was given another shape: declared shapes behind it are void.
    reshaped: bool,
    graph: Graph,
    findings: Findings,
}

impl<'a> Builder<'a> {
    fn new(tensors: &'a [Declared<'a>], structure: &Structure, options: &ReadOptions) -> Result<Self> {
        let shapes = tensors
            .iter()
            .map(|tensor| tensor.data.as_ref().and_then(|_| tensor.shape().ok()));
        let mut builder = Builder {
            tensors,
            shapes: shapes.collect(),
            ids: vec![None; tensors.len()],
            reshaped: false,
            graph: Graph {
                name: options.name.clone(),
                ..Graph::default()
            },
            findings: Findings::default(),
        };
        builder.input_shapes(structure, options)?;
        Ok(builder)
    }

    /// Fixes the shapes of the model's inputs.
    fn input_shapes(&mut self, structure: &Structure, options: &ReadOptions) -> Result<()> {
        for (i, (name, dims)) in options.shapes.iter().enumerate() {
            let usage = |message: String| Err(Error::new(Code::Usage, message));
            let mut named = structure.inputs.iter().filter(|&&id| self.tensors[id].name == *name);
            let Some(&id) = named.next() else {
                let names: Vec<String> = structure
                    .inputs
                    .iter()
                    .map(|&id| format!("{:?}", self.tensors[id].name))
                    .collect();
                let error = Error::new(Code::Usage, format!("--shape: the model has no input {name:?}"));
                return Err(error.help(format!("its inputs are {}", names.join(", "))));
            };
            if options.shapes[..i].iter().any(|(other, _)| other == name) {
                return usage(format!("--shape: input {name:?} is given twice"));
            }
            let tensor = &self.tensors[id];
            if dims.contains(&0) {
                return usage(format!("--shape: dimensions of input {name:?} must be at least 1"));
            }
            if !tensor.dims.is_empty() && tensor.dims.len() != dims.len() || dims.len() > limits::RANK {
                return usage(format!(
                    "--shape: input {name:?} is {} and cannot get {} dimensions",
                    tensor.describe(),
                    dims.len()
                ));
            }
            tensors::elements(dims).map_err(|error| error.at(format!("--shape of input {name:?}")))?;
            let declared = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok());
            self.reshaped |= !declared.eq(dims.iter().map(|&dim| Some(dim)));
            self.shapes[id] = Some(Shape(dims.clone()));
        }
        let mut findings = Findings::default();
        for &id in &structure.inputs {
            let tensor = &self.tensors[id];
            if self.shapes[id].is_some() {
                continue;
            }
            if tensor.is_static() {
                self.shapes[id] = findings.keep(
                    tensor
                        .shape()
                        .map_err(|error| error.at(format!("input {:?}", tensor.name))),
                );
                continue;
            }
            let dims: Vec<String> = tensor.dims.iter().map(|dim| dim.max(&1).to_string()).collect();
            findings.push(
                Error::unsupported(format!(
                    "the shape of input {:?}, {}, is not static",
                    tensor.name,
                    tensor.describe()
                ))
                .help(format!(
                    "fix it, for example with --shape {}={}",
                    tensor.name,
                    dims.join(",")
                )),
            );
        }
        findings.check()
    }

    fn build(mut self, structure: &Structure) -> Result<Graph> {
        let mut read = vec![false; self.tensors.len()];
        for id in structure.operators.iter().flat_map(|operator| &operator.inputs) {
            id.iter().for_each(|&id| read[id] = true);
        }
        for &id in &structure.inputs {
            if self.tensors[id].graph_type().is_none() && read[id] {
                // Its readers are refused for its type.
                self.ids[id] = Some(None);
            }
            let id = self.tensor(id);
            self.graph.inputs.extend(id);
        }
        for operator in &structure.operators {
            let result = self.operator(operator);
            if result.is_err() {
                // So that what follows can be judged too.
                for &id in &operator.outputs {
                    let declared = Some(&self.tensors[id]).filter(|tensor| tensor.is_static() && !self.reshaped);
                    self.shapes[id] = declared.and_then(|tensor| tensor.shape().ok());
                }
            }
            self.findings.keep(result);
        }
        for &id in &structure.outputs {
            if self.shapes[id].is_some() {
                let id = self.tensor(id);
                self.graph.outputs.extend(id);
            } else if self.findings.is_empty() {
                // Else its producer was refused.
                let error = Error::unsupported("a model output that no operator computes is not supported");
                self.findings
                    .push(error.at(format!("tensor {id} {:?}", self.tensors[id].name)));
            }
        }
        self.findings.check()?;
        Ok(self.graph)
    }

    fn operator(&mut self, operator: &Operator) -> Result<()> {
        let view = View {
            op: operator,
            tensors: self.tensors,
            shapes: &self.shapes,
        };
        let at = |error: Error| error.at(view.describe());
        let Some(translated) = ops::translate(&view).map_err(at)? else {
            return Ok(());
        };
        let output = operator.outputs[0];
        let shape = self.result(&translated, output).map_err(at)?;
        self.shapes[output] = Some(shape);
        let inputs: Option<Vec<TensorId>> = translated.inputs.iter().map(|&id| self.tensor(id)).collect();
        if let (Some(inputs), Some(output)) = (inputs, self.tensor(output)) {
            self.graph.ops.push(Op {
                name: operator.name(self.tensors).to_owned(),
                source: operator.index,
                kind: translated.kind,
                inputs,
                outputs: vec![output],
            });
        }
        Ok(())
    }

    /// The shape of an operator's result: the declared one, as long as it is static and no input was given another.
    /// Then it has as many elements as the operator makes; [`verify`] compares the rest.
    fn result(&self, translated: &Translated, output: usize) -> Result<Shape> {
        let declared = &self.tensors[output];
        let inputs: Vec<&Shape> = translated
            .inputs
            .iter()
            .filter_map(|&id| self.shapes[id].as_ref())
            .collect();
        let stated = translated.shape.clone();
        if self.reshaped || !declared.is_static() {
            let stated = stated.unwrap_or_default();
            return shape::infer(&translated.kind, &inputs, &stated);
        }
        let shape = declared.shape()?;
        match stated {
            Some(stated) if stated.elements() != shape.elements() => Err(Error::model(format!(
                "the result has shape {stated}, but the model declares {shape}"
            ))),
            _ => Ok(shape),
        }
    }

    /// The graph's tensor for a tensor of the file whose shape is known; `None` if it cannot be had, which is reported
    /// once.
    fn tensor(&mut self, id: usize) -> Option<TensorId> {
        if let Some(known) = self.ids[id] {
            return known;
        }
        let declared = &self.tensors[id];
        let tensor = self
            .make(id)
            .map_err(|error| error.at(format!("tensor {id} {:?} {}", declared.name, declared.describe())));
        let made = self.findings.keep(tensor).map(|tensor| self.graph.add_tensor(tensor));
        self.ids[id] = Some(made);
        made
    }

    fn make(&self, id: usize) -> Result<Tensor> {
        let declared = &self.tensors[id];
        let shape = self.shapes[id].clone().map_or_else(|| declared.shape(), Ok)?;
        let dtype = declared.graph_type().ok_or_else(|| {
            Error::unsupported(format!("tensors of {} are not supported", declared.type_name()))
                .help("use float32 or int8")
        })?;
        Ok(Tensor {
            name: declared.name.clone(),
            dtype,
            quantization: declared.quantization(&shape)?,
            shape,
            data: declared.data.clone(),
        })
    }
}
