//! Operators that move elements, or only name them by another shape.

use super::{Translated, View, too_large};
use crate::error::{Code, Error, Result};
use crate::frontend::tflite::schema::{self, BuiltinOperator, TensorType};
use crate::frontend::tflite::tensors::elements;
use crate::graph::{Activation, OpKind, Shape};
use crate::limits;

impl View<'_> {
    pub(super) fn pad(&self) -> Result<Translated> {
        let title = self.op.title();
        let shape = self.shape(0)?;
        let values = self.integers(1, "paddings")?;
        let wrong = |why: &str| Error::model(format!("the paddings of {title} {why}"));
        let expect = Shape(vec![shape.rank(), 2]);
        if self.shape(1)? != &expect {
            return Err(wrong(&format!("have shape {}, not {expect}", self.shape(1)?)));
        }
        let mut amounts = Vec::new();
        let mut padded = Vec::new();
        for (pair, &dim) in values.chunks_exact(2).zip(&shape.0) {
            let amount = |value: i64| match usize::try_from(value) {
                Ok(value) if value as u64 <= limits::ELEMENTS => Ok(value),
                Ok(value) => Err(too_large(&title, "padding", value)),
                Err(_) => Err(wrong("are negative")),
            };
            let [before, after] = [amount(pair[0])?, amount(pair[1])?];
            amounts.push([before, after]);
            padded.push(dim + before + after);
        }
        elements(&padded)?;
        let value = if self.op.code == BuiltinOperator::PADV2 {
            let tensor = &self.tensors[self.input(2)?];
            let Some(data) = &tensor.data else {
                return Err(
                    Error::unsupported("PADV2 with a value computed at run time is not supported")
                        .help("make the padding value a constant"),
                );
            };
            // At most 4 bytes: the types are float32 and int8, and the tensor has one element.
            if self.shape(2)?.elements() != 1 {
                return Err(Error::model("the value operand of PADV2 is not a single element"));
            }
            data.as_slice()
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u64::from(byte))
        } else if self.tensors[self.input(0)?].dtype == TensorType::INT8 {
            let output = &self.tensors[self.op.outputs[0]];
            let zero = output.quantization(&Shape(padded))?.map_or(0, |q| q.zero_point[0]);
            u64::from(zero as i8 as u8)
        } else {
            0
        };
        self.with_first(OpKind::Pad { amounts, value })
    }

    pub(super) fn concat(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_concatenation_options();
        let options = self.required(schema::BuiltinOptions::ConcatenationOptions, table)?;
        if self.activation(options.fused_activation_function())? != Activation::None {
            return Err(
                Error::unsupported("CONCATENATION with a fused activation function is not supported")
                    .help("make the activation function an operator of its own"),
            );
        }
        let axis = self.axis(options.axis().into(), self.shape(0)?.rank())?;
        self.with_all(OpKind::Concat { axis })
    }

    pub(super) fn transpose(&self) -> Result<Translated> {
        let shape = self.shape(0)?;
        let axes = self.integers(1, "permutation")?;
        let permutation = axes
            .into_iter()
            .map(|axis| self.axis(axis, shape.rank()))
            .collect::<Result<Vec<_>>>()?;
        let mut sorted = permutation.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..shape.rank()) {
            return Err(Error::model(format!(
                "the permutation of TRANSPOSE, {permutation:?}, is not an order of the {} dimensions of {shape}",
                shape.rank()
            )));
        }
        self.with_first(OpKind::Transpose { permutation })
    }

    pub(super) fn reshape(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_reshape_options();
        let options = self.options(schema::BuiltinOptions::ReshapeOptions, table)?;
        let input = self.shape(0)?;
        let target: Vec<i64> = if self.op.inputs.len() == 2 {
            self.integers(1, "shape")?
        } else {
            let shape = options.and_then(|options| options.new_shape());
            let shape = shape.ok_or_else(|| Error::model("RESHAPE has neither a shape operand nor a shape option"))?;
            // Longer ones than limits::RANK are refused below.
            shape.iter().take(limits::RANK + 1).map(i64::from).collect()
        };
        if target.len() > limits::RANK {
            let message = format!("RESHAPE makes {} dimensions, more than {}", target.len(), limits::RANK);
            return Err(Error::new(Code::Limit, message));
        }
        let text: Vec<String> = target.iter().map(i64::to_string).collect();
        let mismatch = || Error::model(format!("RESHAPE cannot make [{}] of {input}", text.join(",")));
        // Old converters wrote [0] for a scalar.
        let target = if target == [0] { Vec::new() } else { target };
        let mut shape = Vec::new();
        let mut open = None;
        for (i, &dim) in target.iter().enumerate() {
            shape.push(match dim {
                -1 if open.is_none() => {
                    open = Some(i);
                    1
                }
                1.. => usize::try_from(dim).map_err(|_| mismatch())?,
                _ => return Err(mismatch()),
            });
        }
        let known = elements(&shape)?;
        let total = input.elements() as u64;
        if let Some(open) = open {
            shape[open] = (total / known) as usize;
        }
        if elements(&shape)? != total {
            return Err(mismatch());
        }
        self.view_as(shape)
    }

    pub(super) fn squeeze(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_squeeze_options();
        let options = self.options(schema::BuiltinOptions::SqueezeOptions, table)?;
        let input = self.shape(0)?;
        let listed = options.and_then(|options| options.squeeze_dims());
        let mut drop = vec![false; input.rank()];
        for axis in listed.into_iter().flatten().take(limits::RANK) {
            let axis = self.axis(axis.into(), input.rank())?;
            if input.0[axis] != 1 {
                return Err(Error::model(format!("SQUEEZE cannot drop dimension {axis} of {input}")));
            }
            drop[axis] = true;
        }
        if listed.is_none_or(|listed| listed.is_empty()) {
            drop = input.0.iter().map(|&dim| dim == 1).collect();
        }
        let kept = input.0.iter().zip(drop).filter(|(_, drop)| !drop);
        self.view_as(kept.map(|(&dim, _)| dim).collect())
    }

    pub(super) fn expand_dims(&self) -> Result<Translated> {
        let mut shape = self.shape(0)?.0.clone();
        let values = self.integers(1, "axis")?;
        let [axis] = values[..] else {
            return Err(Error::model(format!(
                "EXPAND_DIMS has {} axes instead of one",
                values.len()
            )));
        };
        let axis = self.axis(axis, shape.len() + 1)?;
        shape.insert(axis, 1);
        self.view_as(shape)
    }

    fn view_as(&self, shape: Vec<usize>) -> Result<Translated> {
        Ok(Translated {
            shape: Some(Shape(shape)),
            ..self.with_first(OpKind::Reshape)?
        })
    }
}
