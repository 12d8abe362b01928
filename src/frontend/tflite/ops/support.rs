//! Which operators there are, on which element types.

use super::View;
use crate::error::{Error, Result};
use crate::frontend::tflite::schema::{BuiltinOperator, TensorType};
use crate::frontend::tflite::structure::Operator;
use crate::frontend::tflite::tensors::Declared;
use crate::limits;

/// How many operands an operator takes, at least and at most; `None` if it is not supported. An operand beyond the
/// least of two or more is optional (a bias).
pub(super) fn arity(code: BuiltinOperator) -> Option<(usize, usize)> {
    use BuiltinOperator as B;
    Some(match code {
        B::CONV_2D | B::DEPTHWISE_CONV_2D | B::FULLY_CONNECTED => (2, 3),
        B::ADD | B::SUB | B::MUL | B::MEAN | B::PAD | B::EXPAND_DIMS | B::TRANSPOSE | B::BATCH_MATMUL => (2, 2),
        B::PADV2 => (3, 3),
        B::RESHAPE => (1, 2),
        B::CONCATENATION | B::ADD_N => (1, limits::OPERANDS),
        B::AVERAGE_POOL_2D | B::MAX_POOL_2D | B::SOFTMAX | B::SQUEEZE | B::QUANTIZE | B::DEQUANTIZE => (1, 1),
        B::RELU | B::RELU6 | B::RELU_N1_TO_1 | B::LOGISTIC | B::TANH => (1, 1),
        _ => return None,
    })
}

impl View<'_> {
    pub(super) fn unknown_operator(&self) -> Error {
        use BuiltinOperator as B;
        let title = self.op.title();
        if self.op.custom.is_none() && self.op.code.variant_name().is_none() {
            return Error::unsupported(format!("{title} is unknown"))
                .help("the model was made by a newer converter: convert it with an older one");
        }
        let error = Error::unsupported(format!("{title} is not supported"));
        match self.op.code {
            B::IF | B::WHILE | B::CALL | B::CALL_ONCE => error.help(
                "corerope compiles one graph without control flow: unroll loops and fix branches before conversion",
            ),
            _ if self.op.custom.is_some() => error.help(self.entry()),
            _ => error.help("express this part of the network with supported operators (README.md lists them)"),
        }
    }

    /// The entry of a manifest that a custom operator lacks.
    fn entry(&self) -> String {
        let name = self.op.custom.as_deref().unwrap_or_default();
        let ports = |prefix: &'static str, count: usize| (0..count).map(move |i| format!("\"{prefix}{i}\""));
        let operands = self.op.inputs.iter().flatten().count();
        let arguments: Vec<String> = ports("in", operands)
            .chain(ports("out", self.op.outputs.len()))
            .collect();
        let word = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        };
        let symbol: String = name.chars().map(word).collect();
        format!(
            "give code for it with --module MANIFEST, and this in the manifest:\n\nmodule = \"…\"\nobjects = [\"….o\"]\n\n\
             [[function]]\noperator = {name:?}\nsymbol = \"{symbol}\"\narguments = [{}]",
            arguments.join(", ")
        )
    }

    pub(super) fn supported_arity(&self, (least, most): (usize, usize)) -> Result<()> {
        let Operator { inputs, outputs, .. } = self.op;
        let title = self.op.title();
        if outputs.len() != 1 {
            return Err(Error::model(format!(
                "{title} has {} results instead of one",
                outputs.len()
            )));
        }
        let count = inputs.len();
        if count < least || count > most {
            let takes = if least == most {
                least.to_string()
            } else {
                format!("{least} to {most}")
            };
            return Err(Error::model(format!("{title} takes {takes} operands, not {count}")));
        }
        match inputs.iter().position(Option::is_none) {
            Some(i) if i < least || least == 1 => Err(Error::model(format!("operand {i} of {title} is absent"))),
            _ => Ok(()),
        }
    }

    /// Refuses element types for which there is no kernel, for the most telling reason.
    pub(super) fn supported_types(&self) -> Result<()> {
        use BuiltinOperator as B;
        use TensorType as T;
        let op = self.op;
        let inputs: Vec<Option<&Declared>> = op.inputs.iter().map(|id| id.map(|id| &self.tensors[id])).collect();
        for tensor in inputs.iter().flatten() {
            if tensor.is_sparse() {
                return Err(Error::unsupported("sparse tensors are not supported").help("convert without sparsity"));
            }
            if tensor.is_external() {
                return Err(Error::unsupported("data in external buffer files are not supported")
                    .help("convert with the data inside the model file"));
            }
            if tensor.is_variable() {
                return Err(
                    Error::unsupported("variables that keep their value between runs are not supported")
                        .help("make the state an input and an output of the model"),
                );
            }
        }
        let types: Vec<Option<T>> = inputs.iter().map(|tensor| tensor.map(|tensor| tensor.dtype)).collect();
        let first = types[0].unwrap_or(T::FLOAT32);
        let result = self.tensors[op.outputs[0]].dtype;
        let plain = |dtype| dtype == T::FLOAT32 || dtype == T::INT8;
        let supported = match op.code {
            B::CONV_2D | B::DEPTHWISE_CONV_2D | B::FULLY_CONNECTED => {
                let accumulator = if first == T::INT8 { T::INT32 } else { T::FLOAT32 };
                plain(first)
                    && types[1] == Some(first)
                    && result == first
                    && types.get(2).copied().flatten().is_none_or(|bias| bias == accumulator)
            }
            B::ADD | B::SUB | B::MUL | B::CONCATENATION | B::ADD_N | B::BATCH_MATMUL => {
                plain(first) && result == first && types.iter().all(|&dtype| dtype == Some(first))
            }
            B::PADV2 => plain(first) && result == first && types[2] == Some(first),
            B::QUANTIZE => match first {
                T::FLOAT32 => result == T::INT8,
                T::INT8 | T::UINT8 => result == T::INT8 || result == T::UINT8,
                _ => false,
            },
            B::DEQUANTIZE => (first == T::INT8 || first == T::UINT8) && result == T::FLOAT32,
            _ => plain(first) && result == first,
        };
        if supported {
            return Ok(());
        }
        let data = match op.code {
            // Further operands are shapes and axes.
            B::MEAN | B::PAD | B::PADV2 | B::EXPAND_DIMS | B::RESHAPE | B::TRANSPOSE => &types[..1],
            _ => &types[..],
        };
        let any = |dtypes: &[T]| {
            data.iter()
                .flatten()
                .chain([&result])
                .any(|dtype| dtypes.contains(dtype))
        };
        let title = op.title();
        let error =
            |what: &str, help: &str| Err(Error::unsupported(format!("{title} {what} is not supported")).help(help));
        const FULL: &str =
            "convert with full integer quantization (int8, with a representative data set) or without quantization";
        if any(&[T::FLOAT16, T::BFLOAT16]) {
            return error("of 16-bit floating-point numbers", FULL);
        }
        if any(&[T::INT4, T::INT2, T::UINT4]) {
            return error("of elements of less than 8 bits", FULL);
        }
        if any(&[T::INT16]) {
            return error("of 16-bit integers", "convert with int8 activations instead of int16");
        }
        if first == T::FLOAT32 && types.get(1) == Some(&Some(T::INT8)) {
            return error(
                "of float32 activations and int8 weights (dynamic-range quantization)",
                FULL,
            );
        }
        if any(&[T::UINT8]) && !matches!(op.code, B::QUANTIZE | B::DEQUANTIZE) {
            return error("of uint8 (the former quantization scheme)", FULL);
        }
        error("of these element types", "use float32 or int8")
    }
}
