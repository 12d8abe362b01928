//! The graph, operator by operator.

use super::ops::{self, Operand, Step, Translated, View};
use super::structure::{Operator, Structure};
use super::tensors::{self, Declared};
use super::{Findings, ReadOptions};
use crate::error::{Code, Error, Result};
use crate::graph::external::External;
use crate::graph::{Graph, Op, OpKind, Shape, Tensor, TensorId, shape};
use crate::limits;
use std::collections::BTreeSet;

/// Makes the graph, operator by operator.
pub(super) struct Builder<'a> {
    tensors: &'a [Declared<'a>],
    /// Shapes of the constants, of the model's inputs, and of what has been produced so far.
    shapes: Vec<Option<Shape>>,
    /// The graph's tensors, made when they are first needed; `Some(None)` if that failed, which is reported once.
    ids: Vec<Option<Option<TensorId>>>,
    /// An input was given another shape: declared shapes behind it are void.
    reshaped: bool,
    /// Custom operators that have an implementation.
    custom: &'a BTreeSet<String>,
    graph: Graph,
    findings: Findings,
}

impl<'a> Builder<'a> {
    /// Fixes the shapes of the model's inputs.
    ///
    /// # Errors
    /// `--shape` fits no input; an input's shape is not static.
    pub fn new(tensors: &'a [Declared<'a>], structure: &Structure, options: &'a ReadOptions) -> Result<Self> {
        let shapes = tensors
            .iter()
            .map(|tensor| tensor.data.as_ref().and_then(|_| tensor.shape().ok()));
        let mut builder = Builder {
            tensors,
            shapes: shapes.collect(),
            ids: vec![None; tensors.len()],
            reshaped: false,
            custom: &options.custom,
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

    /// Translates everything.
    ///
    /// # Errors
    /// All operators and tensors that are not supported or not right.
    pub fn build(mut self, structure: &Structure) -> Result<Graph> {
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
        if let Some(name) = &operator.custom
            && self.custom.contains(&**name)
        {
            return self.custom_operator(operator, name);
        }
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
        let mut results = Vec::new();
        for step in translated.steps {
            let result = self.step(operator, step, &results);
            results.push(result);
        }
        let inputs = self.operands(&translated.inputs, &results);
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

    /// A custom operator that an external module implements: its shapes and types are as declared.
    fn custom_operator(&mut self, operator: &Operator, name: &str) -> Result<()> {
        for &id in &operator.outputs {
            let shape = self.tensors[id].shape();
            self.shapes[id] = Some(shape.map_err(|error| error.at(operator.location(self.tensors)))?);
        }
        let operands: Vec<Operand> = operator
            .inputs
            .iter()
            .flatten()
            .map(|id| Operand::Tensor(*id))
            .collect();
        let inputs = self.operands(&operands, &[]);
        let outputs: Vec<Option<TensorId>> = operator.outputs.iter().map(|id| self.tensor(*id)).collect();
        let outputs: Option<Vec<TensorId>> = outputs.into_iter().collect();
        if let (Some(inputs), Some(outputs)) = (inputs, outputs) {
            self.graph.ops.push(Op {
                name: operator.name(self.tensors).to_owned(),
                source: operator.index,
                kind: OpKind::External(Box::new(External::unbound(name))),
                inputs,
                outputs,
            });
        }
        Ok(())
    }

    /// Adds an operator that the file does not have, named after the one that it belongs to and what it does.
    fn step(&mut self, operator: &Operator, step: Step, results: &[Option<TensorId>]) -> Option<TensorId> {
        let inputs = self.operands(&step.inputs, results)?;
        let name = tensors::keep_name(&format!("{}/{}", operator.name(self.tensors), step.kind.name()));
        let result = Tensor {
            name: name.clone(),
            shape: step.shape,
            data: None,
            ..self.graph.tensor(*inputs.first()?).clone()
        };
        let result = self.graph.add_tensor(result);
        self.graph.ops.push(Op {
            name,
            source: operator.index,
            kind: step.kind,
            inputs,
            outputs: vec![result],
        });
        Some(result)
    }

    /// The graph's tensors for operands; `None` if one cannot be had, which is reported once.
    fn operands(&mut self, operands: &[Operand], results: &[Option<TensorId>]) -> Option<Vec<TensorId>> {
        // All are made, so that all that is wrong is reported.
        let ids: Vec<Option<TensorId>> = operands
            .iter()
            .map(|operand| match *operand {
                Operand::Tensor(id) => self.tensor(id),
                Operand::Step(index) => results.get(index).copied().flatten(),
            })
            .collect();
        ids.into_iter().collect()
    }

    /// The shape of an operator's result: the declared one, as long as it is static and no input was given another.
    /// Then it has as many elements as the operator makes; [`verify`] compares the rest.
    fn result(&self, translated: &Translated, output: usize) -> Result<Shape> {
        let declared = &self.tensors[output];
        let inputs: Vec<&Shape> = translated
            .inputs
            .iter()
            .filter_map(|operand| match *operand {
                Operand::Tensor(id) => self.shapes[id].as_ref(),
                Operand::Step(index) => translated.steps.get(index).map(|step| &step.shape),
            })
            .collect();
        let stated = translated.shape.clone();
        if self.reshaped || !declared.is_static() {
            let stated = stated.unwrap_or_default();
            return shape::infer(&translated.kind, &inputs, &stated);
        }
        let shape = declared.shape()?;
        match stated {
            Some(stated) if tensors::elements(&stated.0)? != shape.elements() as u64 => Err(Error::model(format!(
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
