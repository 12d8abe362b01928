//! Dense layers, elementwise operators, reductions.

use super::{Translated, View};
use crate::error::{Error, Result};
use crate::frontend::tflite::schema;
use crate::graph::{BinaryOp, OpKind, Shape};

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
