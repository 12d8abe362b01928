//! Operators and their operands by index, proven to fit one another.

use super::Findings;
use super::schema::{self, BuiltinOperator};
use super::tensors::{self, Declared};
use crate::data::Bytes;
use crate::error::{Code, Error, Result};
use crate::limits;
use std::sync::Arc;

/// A subgraph whose indices are proven: inputs are no constants, every operand is defined before it is read, and
/// everything is defined once.
pub(super) struct Structure<'a> {
    /// In the order of the file.
    pub operators: Vec<Operator<'a>>,
    /// The model's inputs, all distinct.
    pub inputs: Vec<usize>,
    /// The model's outputs.
    pub outputs: Vec<usize>,
}

/// Proves the structure of a subgraph.
///
/// # Errors
/// All that is wrong with it: indices first; then order and aliasing.
pub(super) fn read<'a>(
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

/// An operator as the file declares it; its operands are proven to exist.
pub(super) struct Operator<'a> {
    /// Index in the subgraph.
    pub index: usize,
    /// Which.
    pub code: BuiltinOperator,
    /// Name of a custom operator.
    pub custom: Option<Arc<str>>,
    /// Operands; `None` for an optional one that is absent.
    pub inputs: Vec<Option<usize>>,
    /// Results.
    pub outputs: Vec<usize>,
    /// Its options.
    pub table: schema::Operator<'a>,
}

impl Operator<'_> {
    /// `CONV_2D`, or `custom operator "X"`.
    pub fn title(&self) -> String {
        match (&self.custom, self.code.variant_name()) {
            (Some(name), _) => format!("custom operator {name:?}"),
            (None, Some(name)) => name.to_owned(),
            (None, None) => format!("operator code {}", self.code.0),
        }
    }

    /// The name of the first result.
    pub fn name<'t>(&self, tensors: &'t [Declared]) -> &'t str {
        self.outputs.first().map_or("", |&id| tensors[id].name.as_str())
    }

    /// `operator 3 CONV_2D "conv1"`.
    pub fn location(&self, tensors: &[Declared]) -> String {
        format!("operator {} {} {:?}", self.index, self.title(), self.name(tensors))
    }
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
