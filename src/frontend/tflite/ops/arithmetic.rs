//! Dense layers, products of matrices, elementwise operators, reductions.

use super::{Operand, Step, Translated, View};
use crate::error::{Error, Result};
use crate::frontend::tflite::schema::{self, TensorType};
use crate::graph::{Activation, BinaryOp, OpKind, Shape};

impl View<'_> {
    pub(super) fn fully_connected(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_fully_connected_options();
        let options = self.required(schema::BuiltinOptions::FullyConnectedOptions, table)?;
        if options.weights_format() != schema::FullyConnectedOptionsWeightsFormat::DEFAULT {
            return Err(
                Error::unsupported("FULLY_CONNECTED with shuffled weights is not supported")
                    .help("convert without shuffled weights"),
            );
        }
        let [results, depth] = self.ranked(1, "weights")?;
        let input = self.shape(0)?;
        let mismatch = || {
            Error::model(format!(
                "FULLY_CONNECTED cannot multiply an input of shape {input} by weights of shape [{results},{depth}]"
            ))
        };
        let elements = input.elements();
        let rows = elements.checked_div(depth).ok_or_else(mismatch)?;
        if rows == 0 || rows * depth != elements {
            return Err(mismatch());
        }
        let mut shape = vec![rows];
        if options.keep_num_dims() {
            if input.rank() == 0 || input.last(0) != depth {
                return Err(mismatch());
            }
            shape = input.0[..input.rank() - 1].to_vec();
        }
        shape.push(results);
        let activation = self.activation(options.fused_activation_function())?;
        Ok(Translated {
            shape: Some(Shape(shape)),
            ..self.with_all(OpKind::FullyConnected { activation })?
        })
    }

    pub(super) fn binary(&self, op: BinaryOp) -> Result<Translated> {
        use schema::BuiltinOptions as O;
        let table = self.op.table;
        let activation = match op {
            BinaryOp::Add => self
                .options(O::AddOptions, table.builtin_options_as_add_options())?
                .map(|options| options.fused_activation_function()),
            BinaryOp::Sub => self
                .options(O::SubOptions, table.builtin_options_as_sub_options())?
                .map(|options| options.fused_activation_function()),
            BinaryOp::Mul => self
                .options(O::MulOptions, table.builtin_options_as_mul_options())?
                .map(|options| options.fused_activation_function()),
        };
        let activation = self.activation(activation.unwrap_or_default())?;
        self.with_all(OpKind::Binary { op, activation })
    }

    /// A product by one matrix is a dense layer, whose weights are that matrix transposed. TensorFlow Lite Micro forms
    /// the multiplier of both in the same way, and subtracts both zero points.
    pub(super) fn batch_matmul(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_batch_mat_mul_options();
        let options = self.options(schema::BuiltinOptions::BatchMatMulOptions, table)?;
        let (adj_x, adj_y) = options.map_or((false, false), |options| (options.adj_x(), options.adj_y()));
        let (x, y) = (self.shape(0)?, self.shape(1)?);
        let mismatch = || {
            let adjoint = |adj| if adj { " transposed" } else { "" };
            let (a, b) = (adjoint(adj_x), adjoint(adj_y));
            Error::model(format!("BATCH_MATMUL cannot multiply {x}{a} by {y}{b}"))
        };
        let ([x_batch @ .., x_rows, x_columns], [y_batch @ .., y_rows, y_columns]) = (&x.0[..], &y.0[..]) else {
            return Err(mismatch());
        };
        let swapped = |swap, a: &usize, b: &usize| if swap { [*b, *a] } else { [*a, *b] };
        let [rows, depth] = swapped(adj_x, x_rows, x_columns);
        let [y_depth, columns] = swapped(adj_y, y_rows, y_columns);
        if depth != y_depth {
            return Err(mismatch());
        }
        if y_batch.iter().any(|&batch| batch != 1) {
            return Err(Error::unsupported(format!(
                "BATCH_MATMUL by the matrices of {y} is not supported: the second operand may hold only one"
            ))
            .help("split it into one BATCH_MATMUL for each matrix"));
        }
        for i in 0..2 {
            let quantization = self.tensors[self.input(i)?].quantization(self.shape(i)?)?;
            if quantization.is_some_and(|quantization| quantization.axis.is_some()) {
                return Err(Error::unsupported(format!(
                    "BATCH_MATMUL with operand {i} quantized per axis is not supported"
                ))
                .help("quantize its operands per tensor"));
            }
        }
        let mut steps = Vec::new();
        let mut step = |kind, operand, shape| {
            steps.push(Step {
                kind,
                inputs: vec![operand],
                shape: Shape(shape),
            });
            Operand::Step(steps.len() - 1)
        };
        let mut left = Operand::Tensor(self.input(0)?);
        if adj_x {
            let mut permutation: Vec<usize> = (0..x.rank()).collect();
            permutation.swap(x.rank() - 2, x.rank() - 1);
            left = step(
                OpKind::Transpose { permutation },
                left,
                [x_batch, &[rows, depth]].concat(),
            );
        }
        let mut weights = Operand::Tensor(self.input(1)?);
        if !y_batch.is_empty() {
            weights = step(OpKind::Reshape, weights, vec![*y_rows, *y_columns]);
        }
        if !adj_y {
            let permutation = vec![1, 0];
            weights = step(OpKind::Transpose { permutation }, weights, vec![columns, depth]);
        }
        let mut shape = vec![1; y_batch.len().saturating_sub(x_batch.len())];
        shape.extend([x_batch, &[rows, columns]].concat());
        Ok(Translated {
            steps,
            kind: OpKind::FullyConnected {
                activation: Activation::None,
            },
            inputs: vec![left, weights],
            shape: Some(Shape(shape)),
        })
    }

    /// A chain of additions. TensorFlow Lite Micro adds the operands in order to +0: the same, but for the sign of a
    /// zero that is the sum of negative ones.
    pub(super) fn add_n(&self) -> Result<Translated> {
        let title = self.op.title();
        if self.tensors[self.input(0)?].dtype == TensorType::INT8 {
            // A chain would round to int8 after every addition. TensorFlow Lite Micro subtracts the zero point once more
            // than there are operands, too.
            return Err(Error::unsupported(format!(
                "{title} of int8, which rounds once for all operands, is not supported"
            ))
            .help("use ADD, or ADD_N of float32 between DEQUANTIZE and QUANTIZE"));
        }
        let shape = self.shape(0)?;
        for i in 1..self.op.inputs.len() {
            let other = self.shape(i)?;
            if other != shape {
                return Err(Error::model(format!(
                    "{title} adds tensors of one shape, not {shape} and {other}"
                )));
            }
        }
        let kind = || OpKind::Binary {
            op: BinaryOp::Add,
            activation: Activation::None,
        };
        let Translated { inputs, .. } = self.with_all(kind())?;
        let [first, between @ .., last] = &inputs[..] else {
            return Err(Error::model(format!("{title} takes 2 operands at least, not 1")));
        };
        let mut sum = *first;
        let mut steps = Vec::new();
        for operand in between {
            steps.push(Step {
                kind: kind(),
                inputs: vec![sum, *operand],
                shape: shape.clone(),
            });
            sum = Operand::Step(steps.len() - 1);
        }
        Ok(Translated {
            steps,
            kind: kind(),
            inputs: vec![sum, *last],
            shape: Some(shape.clone()),
        })
    }

    pub(super) fn softmax(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_softmax_options();
        let beta = self.required(schema::BuiltinOptions::SoftmaxOptions, table)?.beta();
        if !(beta.is_finite() && beta > 0.0) {
            return Err(Error::model(format!(
                "the beta of SOFTMAX is {beta}, not a positive number"
            )));
        }
        self.with_all(OpKind::Softmax { beta })
    }

    pub(super) fn mean(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_reducer_options();
        let options = self.options(schema::BuiltinOptions::ReducerOptions, table)?;
        let rank = self.shape(0)?.rank();
        let axes = self.integers(1, "axes")?;
        let mut axes = axes
            .into_iter()
            .map(|axis| self.axis(axis, rank))
            .collect::<Result<Vec<_>>>()?;
        axes.sort_unstable();
        axes.dedup();
        let keep_dims = options.is_some_and(|options| options.keep_dims());
        self.with_first(OpKind::Mean { axes, keep_dims })
    }
}
