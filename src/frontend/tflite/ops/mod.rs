//! One operator of the file → one operator of the graph, or a few.

mod arithmetic;
mod layout;
mod support;
mod windows;

use super::schema::{self, BuiltinOperator, TensorType};
use super::structure::Operator;
use super::tensors::Declared;
use crate::error::{Code, Error, Result};
use crate::graph::{Activation, BinaryOp, OpKind, PoolOp, Shape, UnaryOp};
use crate::limits;

/// What an operator becomes.
pub(super) struct Translated {
    /// Operators in front of the one that makes the result.
    pub steps: Vec<Step>,
    /// What it computes.
    pub kind: OpKind,
    /// The operands that stay: those that became attributes are gone.
    pub inputs: Vec<Operand>,
    /// The result's shape, where it does not follow from `kind` and the operands' shapes.
    pub shape: Option<Shape>,
}

/// An operator that the file does not have, in front of one that it has.
pub(super) struct Step {
    /// What it computes.
    pub kind: OpKind,
    /// Its operands; results of earlier steps only.
    pub inputs: Vec<Operand>,
    /// Its result's shape; type and quantization are those of its first operand.
    pub shape: Shape,
}

/// An operand of the graph's operators.
#[derive(Clone, Copy)]
pub(super) enum Operand {
    /// A tensor of the file.
    Tensor(usize),
    /// The result of [`Translated::steps`] at this index.
    Step(usize),
}

/// An operator among the tensors of its subgraph.
pub(super) struct View<'a> {
    /// The operator.
    pub op: &'a Operator<'a>,
    /// All tensors.
    pub tensors: &'a [Declared<'a>],
    /// Shapes of the constants, of the model's inputs, and of what earlier operators produced.
    pub shapes: &'a [Option<Shape>],
}

/// Translates an operator. `Ok(None)`: an operand's shape is unknown because its producer was refused already.
///
/// # Errors
/// The operator, its types or its options are not supported, or they contradict one another.
pub(super) fn translate(view: &View) -> Result<Option<Translated>> {
    use BuiltinOperator as B;
    let unary = |op| view.elementwise(OpKind::Unary { op });
    // The types decide first: they are what a user can change by converting again.
    let Some(arity) = support::arity(view.op.code) else {
        return Err(view.unknown_operator());
    };
    view.supported_arity(arity)?;
    view.supported_types()?;
    if view.op.inputs.iter().flatten().any(|&i| view.shapes[i].is_none()) {
        return Ok(None);
    }
    match view.op.code {
        B::CONV_2D => view.conv(),
        B::DEPTHWISE_CONV_2D => view.depthwise(),
        B::FULLY_CONNECTED => view.fully_connected(),
        B::AVERAGE_POOL_2D => view.pool(PoolOp::Average),
        B::MAX_POOL_2D => view.pool(PoolOp::Max),
        B::ADD => view.binary(BinaryOp::Add),
        B::SUB => view.binary(BinaryOp::Sub),
        B::MUL => view.binary(BinaryOp::Mul),
        B::ADD_N => view.add_n(),
        B::BATCH_MATMUL => view.batch_matmul(),
        B::RELU => unary(UnaryOp::Relu),
        B::RELU6 => unary(UnaryOp::Relu6),
        B::RELU_N1_TO_1 => unary(UnaryOp::ReluN1To1),
        B::LOGISTIC => unary(UnaryOp::Logistic),
        B::TANH => unary(UnaryOp::Tanh),
        B::QUANTIZE => view.elementwise(OpKind::Quantize),
        B::DEQUANTIZE => view.elementwise(OpKind::Dequantize),
        B::SOFTMAX => view.softmax(),
        B::MEAN => view.mean(),
        B::PAD | B::PADV2 => view.pad(),
        B::CONCATENATION => view.concat(),
        B::TRANSPOSE => view.transpose(),
        B::RESHAPE => view.reshape(),
        B::SQUEEZE => view.squeeze(),
        B::EXPAND_DIMS => view.expand_dims(),
        _ => Err(view.unknown_operator()),
    }
    .map(Some)
}

impl View<'_> {
    /// `operator 3 CONV_2D "conv1" (float32[1,8,8,3], int8[8,3,3,3], none) -> float32[1,8,8,8]`.
    pub fn describe(&self) -> String {
        const SHOWN: usize = 12;
        let list = |ids: &mut dyn Iterator<Item = Option<usize>>, total: usize| {
            let mut text: Vec<String> = ids
                .take(SHOWN)
                .map(|id| id.map_or_else(|| "none".to_owned(), |id| self.tensor(id)))
                .collect();
            if total > SHOWN {
                text.push(format!("and {} more", total - SHOWN));
            }
            text.join(", ")
        };
        let Operator { inputs, outputs, .. } = self.op;
        let name = outputs.first().map_or("", |&id| self.tensors[id].name.as_str());
        format!(
            "operator {} {} {name:?} ({}) -> {}",
            self.op.index,
            self.op.title(),
            list(&mut inputs.iter().copied(), inputs.len()),
            list(&mut outputs.iter().map(|&id| Some(id)), outputs.len()),
        )
    }

    /// Type and shape of a tensor: as inferred so far, else as declared.
    fn tensor(&self, id: usize) -> String {
        match &self.shapes[id] {
            Some(shape) => format!("{}{shape}", self.tensors[id].type_name()),
            None => self.tensors[id].describe(),
        }
    }

    /// Tensor of operand `i`, which [`View::supported_types`] has proven present.
    fn input(&self, i: usize) -> Result<usize> {
        let missing = || Error::model(format!("{} lacks operand {i}", self.op.title()));
        self.op.inputs.get(i).copied().flatten().ok_or_else(missing)
    }

    fn shape(&self, i: usize) -> Result<&Shape> {
        let unknown = || Error::internal("an operand's shape is not known");
        self.shapes[self.input(i)?].as_ref().ok_or_else(unknown)
    }

    /// The shape of operand `i`, which must have `rank` dimensions.
    fn ranked<const RANK: usize>(&self, i: usize, what: &str) -> Result<[usize; RANK]> {
        let shape = self.shape(i)?;
        <[usize; RANK]>::try_from(shape.0.as_slice()).map_err(|_| {
            Error::model(format!(
                "the {what} of {} has shape {shape}, not {RANK} dimensions",
                self.op.title()
            ))
        })
    }

    /// The values of operand `i`, a constant of a few integers.
    fn integers(&self, i: usize, what: &str) -> Result<Vec<i64>> {
        const MOST: usize = 4 * limits::RANK;
        let tensor = &self.tensors[self.input(i)?];
        let title = self.op.title();
        let Some(data) = &tensor.data else {
            return Err(
                Error::unsupported(format!("{title} with {what} computed at run time is not supported"))
                    .help("make it a constant: convert with static shapes"),
            );
        };
        let width = match tensor.dtype {
            TensorType::INT32 => 4,
            TensorType::INT64 => 8,
            _ => {
                let kind = tensor.type_name();
                return Err(Error::model(format!(
                    "the {what} operand of {title} is {kind}, not int32 or int64"
                )));
            }
        };
        if data.len() > (MOST * width) as u64 {
            return Err(Error::model(format!(
                "the {what} operand of {title} has more than {MOST} values"
            )));
        }
        let values = data.as_slice().chunks_exact(width).map(|bytes| match bytes {
            [a, b, c, d] => i64::from(i32::from_le_bytes([*a, *b, *c, *d])),
            _ => i64::from_le_bytes(bytes.try_into().expect("the width is 4 or 8")),
        });
        Ok(values.collect())
    }

    /// The operator's options; an error if they are those of another operator.
    fn options<T>(&self, expected: schema::BuiltinOptions, table: Option<T>) -> Result<Option<T>> {
        let tag = self.op.table.builtin_options_type();
        if table.is_none() && tag != schema::BuiltinOptions::NONE {
            let found = tag
                .variant_name()
                .map_or_else(|| format!("type {}", tag.0), str::to_owned);
            return Err(Error::model(format!(
                "the options of {} are {found}, not {}",
                self.op.title(),
                expected.variant_name().unwrap_or_default()
            )));
        }
        Ok(table)
    }

    fn required<T>(&self, expected: schema::BuiltinOptions, table: Option<T>) -> Result<T> {
        let missing = || Error::model(format!("{} has no options", self.op.title()));
        self.options(expected, table)?.ok_or_else(missing)
    }

    fn activation(&self, activation: schema::ActivationFunctionType) -> Result<Activation> {
        use schema::ActivationFunctionType as A;
        Ok(match activation {
            A::NONE => Activation::None,
            A::RELU => Activation::Relu,
            A::RELU6 => Activation::Relu6,
            A::RELU_N1_TO_1 => Activation::ReluN1To1,
            other => {
                let name = other.variant_name().map_or_else(|| other.0.to_string(), str::to_owned);
                return Err(Error::unsupported(format!(
                    "{} with the fused activation function {name} is not supported",
                    self.op.title()
                ))
                .help("make the activation function an operator of its own"));
            }
        })
    }

    /// An axis, counted from the end if it is negative.
    fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let from_start = if axis < 0 {
            axis.checked_add(rank as i64)
        } else {
            Some(axis)
        };
        from_start
            .and_then(|axis| usize::try_from(axis).ok())
            .filter(|&axis| axis < rank)
            .ok_or_else(|| {
                Error::model(format!(
                    "axis {axis} of {} does not exist in {rank} dimensions",
                    self.op.title()
                ))
            })
    }

    /// All operands that are present stay.
    fn with_all(&self, kind: OpKind) -> Result<Translated> {
        Ok(Translated {
            steps: Vec::new(),
            kind,
            inputs: self.op.inputs.iter().copied().flatten().map(Operand::Tensor).collect(),
            shape: None,
        })
    }

    /// Only the first operand stays.
    fn with_first(&self, kind: OpKind) -> Result<Translated> {
        Ok(Translated {
            steps: Vec::new(),
            kind,
            inputs: vec![Operand::Tensor(self.input(0)?)],
            shape: None,
        })
    }

    fn elementwise(&self, kind: OpKind) -> Result<Translated> {
        Ok(Translated {
            shape: Some(self.shape(0)?.clone()),
            ..self.with_first(kind)?
        })
    }
}

fn too_large(title: &str, what: &str, value: usize) -> Error {
    Error::new(
        Code::Limit,
        format!("the {what} of {title} is {value}, more than is accepted"),
    )
}
