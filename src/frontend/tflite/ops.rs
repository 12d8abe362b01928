//! One operator of the file → one operator of the graph.

use super::schema::{self, BuiltinOperator, TensorType};
use super::tensors::{Declared, elements};
use crate::error::{Code, Error, Result};
use crate::graph::{Activation, BinaryOp, OpKind, Padding, PoolOp, Shape, UnaryOp, Window};
use crate::limits;
use std::sync::Arc;

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

/// What an operator becomes.
pub(super) struct Translated {
    /// What it computes.
    pub kind: OpKind,
    /// The operands that stay: those that became attributes are gone.
    pub inputs: Vec<usize>,
    /// The result's shape, where it does not follow from `kind` and the operands' shapes.
    pub shape: Option<Shape>,
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

impl Operator<'_> {
    /// `CONV_2D`, or `custom operator "X"`.
    pub fn title(&self) -> String {
        match (&self.custom, self.code.variant_name()) {
            (Some(name), _) => format!("custom operator {name:?}"),
            (None, Some(name)) => name.to_owned(),
            (None, None) => format!("operator code {}", self.code.0),
        }
    }
}

const FLOAT: TensorType = TensorType::FLOAT32;
const INT8: TensorType = TensorType::INT8;

/// Translates an operator. `Ok(None)`: an operand's shape is unknown because its producer was refused already.
///
/// # Errors
/// The operator, its types or its options are not supported, or they contradict one another.
pub(super) fn translate(view: &View) -> Result<Option<Translated>> {
    use BuiltinOperator as B;
    let unary = |op| view.elementwise(OpKind::Unary { op });
    // The types decide first: they are what a user can change by converting again.
    let Some(arity) = arity(view.op.code) else {
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
        B::RESHAPE => view.reshape(),
        B::SQUEEZE => view.squeeze(),
        B::EXPAND_DIMS => view.expand_dims(),
        _ => Err(view.unknown_operator()),
    }
    .map(Some)
}

/// How many operands an operator takes, at least and at most; `None` if it is not supported. An operand beyond the
/// least of two or more is optional (a bias).
fn arity(code: BuiltinOperator) -> Option<(usize, usize)> {
    use BuiltinOperator as B;
    Some(match code {
        B::CONV_2D | B::DEPTHWISE_CONV_2D | B::FULLY_CONNECTED => (2, 3),
        B::ADD | B::SUB | B::MUL | B::MEAN | B::PAD | B::EXPAND_DIMS => (2, 2),
        B::PADV2 => (3, 3),
        B::RESHAPE => (1, 2),
        B::CONCATENATION => (1, limits::OPERANDS),
        B::AVERAGE_POOL_2D | B::MAX_POOL_2D | B::SOFTMAX | B::SQUEEZE | B::QUANTIZE | B::DEQUANTIZE => (1, 1),
        B::RELU | B::RELU6 | B::RELU_N1_TO_1 | B::LOGISTIC | B::TANH => (1, 1),
        _ => return None,
    })
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

    fn unknown_operator(&self) -> Error {
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
            _ if self.op.custom.is_some() => error.help("convert without custom operators"),
            _ => error.help("express this part of the network with supported operators (README.md lists them)"),
        }
    }

    fn supported_arity(&self, (least, most): (usize, usize)) -> Result<()> {
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
    fn supported_types(&self) -> Result<()> {
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
        let first = types[0].unwrap_or(FLOAT);
        let result = self.tensors[op.outputs[0]].dtype;
        let plain = |dtype| dtype == FLOAT || dtype == INT8;
        let supported = match op.code {
            B::CONV_2D | B::DEPTHWISE_CONV_2D | B::FULLY_CONNECTED => {
                let accumulator = if first == INT8 { T::INT32 } else { FLOAT };
                plain(first)
                    && types[1] == Some(first)
                    && result == first
                    && types.get(2).copied().flatten().is_none_or(|bias| bias == accumulator)
            }
            B::ADD | B::SUB | B::MUL | B::CONCATENATION => {
                plain(first) && result == first && types.iter().all(|&dtype| dtype == Some(first))
            }
            B::PADV2 => plain(first) && result == first && types[2] == Some(first),
            B::QUANTIZE => match first {
                FLOAT => result == INT8,
                INT8 | T::UINT8 => result == INT8 || result == T::UINT8,
                _ => false,
            },
            B::DEQUANTIZE => (first == INT8 || first == T::UINT8) && result == FLOAT,
            _ => plain(first) && result == first,
        };
        if supported {
            return Ok(());
        }
        let data = match op.code {
            // Further operands are shapes and axes.
            B::MEAN | B::PAD | B::PADV2 | B::EXPAND_DIMS | B::RESHAPE => &types[..1],
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
        if first == FLOAT && types.get(1) == Some(&Some(INT8)) {
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

    /// The window over an input of `[height, width]`, with its padding made explicit. All sizes are those of `[y, x]`.
    ///
    /// SAME: ⌈input / stride⌉ results; what is missing is padded, the odd element after. VALID: no padding.
    fn window(
        &self,
        input: [usize; 2],
        size: [usize; 2],
        stride: [i32; 2],
        dilation: [i32; 2],
        padding: schema::Padding,
    ) -> Result<Window> {
        let title = self.op.title();
        let positive = |what: &str, values: [i32; 2]| -> Result<[usize; 2]> {
            let mut out = [0; 2];
            for (out, value) in out.iter_mut().zip(values) {
                *out = match usize::try_from(value) {
                    Ok(value) if value > limits::WINDOW as usize => return Err(too_large(&title, what, value)),
                    Ok(value) if value > 0 => value,
                    _ => return Err(Error::model(format!("the {what} of {title} is {value}, not positive"))),
                };
            }
            Ok(out)
        };
        let stride = positive("stride", stride)?;
        let dilation = positive("dilation", dilation)?;
        if let Some(&size) = size.iter().find(|&&size| size > limits::WINDOW as usize) {
            return Err(too_large(&title, "window", size));
        }
        if size.contains(&0) {
            return Err(Error::model(format!("the window of {title} is empty")));
        }
        let mut pads = [[0; 2]; 2];
        match padding {
            schema::Padding::VALID => {}
            schema::Padding::SAME => {
                for i in 0..2 {
                    // No overflow: sizes and dilations are below 2^14, inputs below 2^33.
                    let extent = (size[i] - 1) * dilation[i] + 1;
                    let last = (input[i].div_ceil(stride[i]).max(1) - 1) * stride[i];
                    let total = (last + extent).saturating_sub(input[i]);
                    pads[i] = [total / 2, total - total / 2];
                }
            }
            other => {
                return Err(Error::model(format!(
                    "the padding of {title} is {}, neither SAME nor VALID",
                    other.0
                )));
            }
        }
        let window = Window {
            size,
            stride,
            dilation,
            padding: Padding {
                top: pads[0][0],
                bottom: pads[0][1],
                left: pads[1][0],
                right: pads[1][1],
            },
        };
        if window.output(input).is_none() {
            return Err(Error::model(format!(
                "the window of {title}, {}x{}, does not fit the input, {}x{}",
                size[0], size[1], input[0], input[1]
            )));
        }
        Ok(window)
    }

    fn conv(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_conv_2_doptions();
        let options = self.required(schema::BuiltinOptions::Conv2DOptions, table)?;
        let [_, height, width, _] = self.ranked(0, "input")?;
        let [_, filter_height, filter_width, _] = self.ranked(1, "filter")?;
        let window = self.window(
            [height, width],
            [filter_height, filter_width],
            [options.stride_h(), options.stride_w()],
            [options.dilation_h_factor(), options.dilation_w_factor()],
            options.padding(),
        )?;
        let activation = self.activation(options.fused_activation_function())?;
        self.with_all(OpKind::Conv2d { window, activation })
    }

    fn depthwise(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_depthwise_conv_2_doptions();
        let options = self.required(schema::BuiltinOptions::DepthwiseConv2DOptions, table)?;
        let [_, height, width, channels] = self.ranked(0, "input")?;
        let [_, filter_height, filter_width, results] = self.ranked(1, "filter")?;
        let window = self.window(
            [height, width],
            [filter_height, filter_width],
            [options.stride_h(), options.stride_w()],
            [options.dilation_h_factor(), options.dilation_w_factor()],
            options.padding(),
        )?;
        let multiplier = results.checked_div(channels).unwrap_or(0);
        if multiplier == 0 || multiplier * channels != results {
            return Err(Error::model(format!(
                "DEPTHWISE_CONV_2D makes {results} channels of {channels}, which is no multiple"
            )));
        }
        // 0 where the converter left it to the shapes.
        let stated = options.depth_multiplier();
        if stated != 0 && usize::try_from(stated) != Ok(multiplier) {
            return Err(Error::model(format!(
                "the depth multiplier of DEPTHWISE_CONV_2D is {stated}, but its shapes say {multiplier}"
            )));
        }
        let activation = self.activation(options.fused_activation_function())?;
        self.with_all(OpKind::DepthwiseConv2d {
            window,
            multiplier,
            activation,
        })
    }

    fn fully_connected(&self) -> Result<Translated> {
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

    fn pool(&self, op: PoolOp) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_pool_2_doptions();
        let options = self.required(schema::BuiltinOptions::Pool2DOptions, table)?;
        let [_, height, width, _] = self.ranked(0, "input")?;
        let size = [options.filter_height(), options.filter_width()].map(|size| usize::try_from(size).unwrap_or(0));
        let stride = [options.stride_h(), options.stride_w()];
        let window = self.window([height, width], size, stride, [1, 1], options.padding())?;
        let activation = self.activation(options.fused_activation_function())?;
        self.with_all(OpKind::Pool2d { op, window, activation })
    }

    fn binary(&self, op: BinaryOp) -> Result<Translated> {
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

    fn softmax(&self) -> Result<Translated> {
        let table = self.op.table.builtin_options_as_softmax_options();
        let beta = self.required(schema::BuiltinOptions::SoftmaxOptions, table)?.beta();
        if !(beta.is_finite() && beta > 0.0) {
            return Err(Error::model(format!(
                "the beta of SOFTMAX is {beta}, not a positive number"
            )));
        }
        self.with_all(OpKind::Softmax { beta })
    }

    fn mean(&self) -> Result<Translated> {
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

    fn pad(&self) -> Result<Translated> {
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
        } else if self.tensors[self.input(0)?].dtype == INT8 {
            let output = &self.tensors[self.op.outputs[0]];
            let zero = output.quantization(&Shape(padded))?.map_or(0, |q| q.zero_point[0]);
            u64::from(zero as i8 as u8)
        } else {
            0
        };
        self.with_first(OpKind::Pad { amounts, value })
    }

    fn concat(&self) -> Result<Translated> {
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

    fn reshape(&self) -> Result<Translated> {
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

    fn squeeze(&self) -> Result<Translated> {
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

    fn expand_dims(&self) -> Result<Translated> {
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
            kind,
            inputs: self.op.inputs.iter().copied().flatten().collect(),
            shape: None,
        })
    }

    /// Only the first operand stays.
    fn with_first(&self, kind: OpKind) -> Result<Translated> {
        Ok(Translated {
            kind,
            inputs: vec![self.input(0)?],
            shape: None,
        })
    }

    fn view_as(&self, shape: Vec<usize>) -> Result<Translated> {
        Ok(Translated {
            shape: Some(Shape(shape)),
            ..self.with_first(OpKind::Reshape)?
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
