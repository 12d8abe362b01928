//! Writes TensorFlow Lite files, right or wrong in exactly one place.

use super::schema::{self, ActivationFunctionType, BuiltinOperator, BuiltinOptions, Padding, TensorType};
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

/// A model with one subgraph (and empty further ones).
#[derive(Clone)]
pub struct Model {
    pub version: u32,
    pub tensors: Vec<Tensor>,
    pub operators: Vec<Operator>,
    pub inputs: Vec<i32>,
    pub outputs: Vec<i32>,
    pub subgraphs: usize,
    /// Bytes behind the flatbuffer.
    pub tail: Vec<u8>,
}

#[derive(Clone)]
pub struct Tensor {
    name: Option<Vec<u8>>,
    dtype: TensorType,
    dims: Vec<i32>,
    signature: Option<Vec<i32>>,
    data: Vec<u8>,
    /// Another index than that of its own buffer.
    buffer: Option<u32>,
    place: Option<(u64, u64)>,
    quantization: Option<Quantization>,
    variable: bool,
    sparse: bool,
    external: u32,
}

#[derive(Clone)]
struct Quantization {
    scale: Vec<f32>,
    zero: Vec<i64>,
    dimension: i32,
    details: u8,
}

#[derive(Clone)]
pub struct Operator {
    pub code: i32,
    pub custom: Option<&'static str>,
    pub inputs: Vec<i32>,
    pub outputs: Vec<i32>,
    pub options: Options,
}

/// Options of an operator.
#[derive(Clone, Copy)]
pub enum Options {
    None,
    /// Stride and dilation as `[y, x]`.
    Conv(Padding, [i32; 2], [i32; 2], ActivationFunctionType),
    /// And the depth multiplier.
    Depthwise(Padding, [i32; 2], i32, ActivationFunctionType),
    /// Size and stride.
    Pool(Padding, [i32; 2], [i32; 2], ActivationFunctionType),
    /// Shuffled weights; keep_num_dims.
    FullyConnected(bool, bool),
    Softmax(f32),
    Concat(i32, ActivationFunctionType),
    Add(ActivationFunctionType),
    Sub(ActivationFunctionType),
    Mul(ActivationFunctionType),
    Reshape(&'static [i32]),
    Reducer(bool),
    Squeeze(&'static [i32]),
    /// adj_x and adj_y.
    BatchMatMul(bool, bool),
    /// A type that corerope does not know, with an empty table.
    Unknown(u8),
}

/// A tensor of floats.
pub fn float(name: &str, dims: &[i32]) -> Tensor {
    tensor(name, TensorType::FLOAT32, dims)
}

/// A tensor of int8 with scale 0.5 and zero point −1.
pub fn int8(name: &str, dims: &[i32]) -> Tensor {
    tensor(name, TensorType::INT8, dims).quantized(&[0.5], &[-1], 0)
}

/// A constant of int32.
pub fn ints(name: &str, dims: &[i32], values: &[i32]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, TensorType::INT32, dims).data(&bytes)
}

/// Int8 weights of zeros with `n` scales along `dimension`.
pub fn weights(name: &str, dims: &[i32], n: usize, dimension: i32) -> Tensor {
    let scale: Vec<f32> = (1..=n).map(|i| i as f32 / 64.0).collect();
    let count: i32 = dims.iter().product();
    tensor(name, TensorType::INT8, dims)
        .data(&vec![0; count as usize])
        .quantized(&scale, &vec![0; n], dimension)
}

pub fn tensor(name: &str, dtype: TensorType, dims: &[i32]) -> Tensor {
    Tensor {
        name: Some(name.as_bytes().to_vec()),
        dtype,
        dims: dims.to_vec(),
        signature: None,
        data: Vec::new(),
        buffer: None,
        place: None,
        quantization: None,
        variable: false,
        sparse: false,
        external: 0,
    }
}

impl Tensor {
    pub fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }
    /// As many zero bytes as `elements` floats have.
    pub fn zeros(self, elements: usize) -> Self {
        self.data(&vec![0; 4 * elements])
    }
    pub fn quantized(mut self, scale: &[f32], zero: &[i64], dimension: i32) -> Self {
        self.quantization = Some(Quantization {
            scale: scale.to_vec(),
            zero: zero.to_vec(),
            dimension,
            details: 0,
        });
        self
    }
    pub fn details(mut self, details: u8) -> Self {
        self.quantization.as_mut().expect("the tensor is quantized").details = details;
        self
    }
    pub fn signature(mut self, dims: &[i32]) -> Self {
        self.signature = Some(dims.to_vec());
        self
    }
    pub fn buffer(mut self, buffer: u32) -> Self {
        self.buffer = Some(buffer);
        self
    }
    /// Data outside the flatbuffer: offset and size.
    pub fn placed(mut self, offset: u64, size: u64) -> Self {
        self.place = Some((offset, size));
        self
    }
    pub fn named(mut self, name: Option<&[u8]>) -> Self {
        self.name = name.map(<[u8]>::to_vec);
        self
    }
    pub fn variable(mut self) -> Self {
        self.variable = true;
        self
    }
    pub fn sparse(mut self) -> Self {
        self.sparse = true;
        self
    }
    pub fn external(mut self, buffer: u32) -> Self {
        self.external = buffer;
        self
    }
}

pub fn op(code: BuiltinOperator, inputs: &[i32], outputs: &[i32], options: Options) -> Operator {
    Operator {
        code: code.0,
        custom: None,
        inputs: inputs.to_vec(),
        outputs: outputs.to_vec(),
        options,
    }
}

impl Model {
    /// Tensor 0 is the input, the last one the output.
    pub fn new(tensors: impl IntoIterator<Item = Tensor>, operators: impl IntoIterator<Item = Operator>) -> Self {
        let tensors: Vec<Tensor> = tensors.into_iter().collect();
        Model {
            version: 3,
            outputs: vec![tensors.len() as i32 - 1],
            tensors,
            operators: operators.into_iter().collect(),
            inputs: vec![0],
            subgraphs: 1,
            tail: Vec::new(),
        }
    }

    /// One operator that reads all tensors but the last and makes the last.
    pub fn of(code: BuiltinOperator, options: Options, tensors: impl IntoIterator<Item = Tensor>) -> Self {
        let mut model = Model::new(tensors, []);
        let last = model.tensors.len() as i32 - 1;
        let inputs: Vec<i32> = (0..last).collect();
        model.operators.push(op(code, &inputs, &[last], options));
        model
    }

    pub fn inputs(mut self, inputs: &[i32]) -> Self {
        self.inputs = inputs.to_vec();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut b = FlatBufferBuilder::new();
        // Buffer 0 is the empty one; each tensor has its own.
        let mut buffers = vec![schema::Buffer::create(&mut b, &schema::BufferArgs::default())];
        for tensor in &self.tensors {
            let data = (!tensor.data.is_empty()).then(|| b.create_vector(&tensor.data));
            let (offset, size) = tensor.place.unwrap_or_default();
            buffers.push(schema::Buffer::create(
                &mut b,
                &schema::BufferArgs { data, offset, size },
            ));
        }
        let tensors: Vec<_> = self
            .tensors
            .iter()
            .enumerate()
            .map(|(i, tensor)| tensor.write(&mut b, i))
            .collect();
        let codes: Vec<_> = self
            .operators
            .iter()
            .map(|operator| {
                let custom_code = operator.custom.map(|name| b.create_string(name));
                let args = schema::OperatorCodeArgs {
                    deprecated_builtin_code: operator.code.min(127) as i8,
                    custom_code,
                    builtin_code: BuiltinOperator(operator.code),
                };
                schema::OperatorCode::create(&mut b, &args)
            })
            .collect();
        let operators: Vec<_> = self
            .operators
            .iter()
            .enumerate()
            .map(|(i, operator)| operator.write(&mut b, i))
            .collect();
        let args = schema::SubGraphArgs {
            tensors: Some(b.create_vector(&tensors)),
            inputs: Some(b.create_vector(&self.inputs)),
            outputs: Some(b.create_vector(&self.outputs)),
            operators: Some(b.create_vector(&operators)),
        };
        let mut subgraphs = vec![schema::SubGraph::create(&mut b, &args)];
        for _ in 1..self.subgraphs {
            subgraphs.push(schema::SubGraph::create(&mut b, &schema::SubGraphArgs::default()));
        }
        subgraphs.truncate(self.subgraphs);
        let args = schema::ModelArgs {
            version: self.version,
            operator_codes: Some(b.create_vector(&codes)),
            subgraphs: Some(b.create_vector(&subgraphs)),
            buffers: Some(b.create_vector(&buffers)),
        };
        let model = schema::Model::create(&mut b, &args);
        b.finish(model, Some("TFL3"));
        [b.finished_data(), &self.tail].concat()
    }
}

impl Tensor {
    fn write<'b>(&self, b: &mut FlatBufferBuilder<'b>, index: usize) -> WIPOffset<schema::Tensor<'b>> {
        // A string is a vector of bytes; this one may hold anything.
        let name = self
            .name
            .as_ref()
            .map(|name| WIPOffset::<&str>::new(b.create_vector(name).value()));
        let shape = Some(b.create_vector(&self.dims));
        let shape_signature = self.signature.as_ref().map(|dims| b.create_vector(dims));
        let quantization = self.quantization.as_ref().map(|q| {
            let scale = Some(b.create_vector(&q.scale));
            let zero_point = Some(b.create_vector(&q.zero));
            let args = schema::QuantizationParametersArgs {
                scale,
                zero_point,
                details_type: q.details,
                quantized_dimension: q.dimension,
            };
            schema::QuantizationParameters::create(b, &args)
        });
        let sparsity = self
            .sparse
            .then(|| schema::SparsityParameters::create(b, &schema::SparsityParametersArgs::default()));
        let args = schema::TensorArgs {
            shape,
            type_: self.dtype,
            buffer: self.buffer.unwrap_or(index as u32 + 1),
            name,
            quantization,
            is_variable: self.variable,
            sparsity,
            shape_signature,
            external_buffer: self.external,
        };
        schema::Tensor::create(b, &args)
    }
}

impl Operator {
    fn write<'b>(&self, b: &mut FlatBufferBuilder<'b>, index: usize) -> WIPOffset<schema::Operator<'b>> {
        let (builtin_options_type, builtin_options) = self.options.write(b);
        let args = schema::OperatorArgs {
            opcode_index: index as u32,
            inputs: Some(b.create_vector(&self.inputs)),
            outputs: Some(b.create_vector(&self.outputs)),
            builtin_options_type,
            builtin_options,
        };
        schema::Operator::create(b, &args)
    }
}

impl Options {
    fn write(self, b: &mut FlatBufferBuilder) -> (BuiltinOptions, Option<WIPOffset<UnionWIPOffset>>) {
        type O = BuiltinOptions;
        let (tag, table) = match self {
            Options::None => return (O::NONE, None),
            Options::Conv(padding, [stride_h, stride_w], [dilation_h_factor, dilation_w_factor], activation) => {
                let args = schema::Conv2DOptionsArgs {
                    padding,
                    stride_w,
                    stride_h,
                    fused_activation_function: activation,
                    dilation_w_factor,
                    dilation_h_factor,
                };
                (
                    O::Conv2DOptions,
                    schema::Conv2DOptions::create(b, &args).as_union_value(),
                )
            }
            Options::Depthwise(padding, [stride_h, stride_w], depth_multiplier, activation) => {
                let args = schema::DepthwiseConv2DOptionsArgs {
                    padding,
                    stride_w,
                    stride_h,
                    depth_multiplier,
                    fused_activation_function: activation,
                    ..Default::default()
                };
                (
                    O::DepthwiseConv2DOptions,
                    schema::DepthwiseConv2DOptions::create(b, &args).as_union_value(),
                )
            }
            Options::Pool(padding, [filter_height, filter_width], [stride_h, stride_w], activation) => {
                let args = schema::Pool2DOptionsArgs {
                    padding,
                    stride_w,
                    stride_h,
                    filter_width,
                    filter_height,
                    fused_activation_function: activation,
                };
                (
                    O::Pool2DOptions,
                    schema::Pool2DOptions::create(b, &args).as_union_value(),
                )
            }
            Options::FullyConnected(shuffled, keep_num_dims) => {
                let args = schema::FullyConnectedOptionsArgs {
                    weights_format: schema::FullyConnectedOptionsWeightsFormat(shuffled.into()),
                    keep_num_dims,
                    ..Default::default()
                };
                (
                    O::FullyConnectedOptions,
                    schema::FullyConnectedOptions::create(b, &args).as_union_value(),
                )
            }
            Options::Softmax(beta) => {
                let args = schema::SoftmaxOptionsArgs { beta };
                (
                    O::SoftmaxOptions,
                    schema::SoftmaxOptions::create(b, &args).as_union_value(),
                )
            }
            Options::Concat(axis, fused_activation_function) => {
                let args = schema::ConcatenationOptionsArgs {
                    axis,
                    fused_activation_function,
                };
                (
                    O::ConcatenationOptions,
                    schema::ConcatenationOptions::create(b, &args).as_union_value(),
                )
            }
            Options::Add(fused_activation_function) => {
                let args = schema::AddOptionsArgs {
                    fused_activation_function,
                };
                (O::AddOptions, schema::AddOptions::create(b, &args).as_union_value())
            }
            Options::Sub(fused_activation_function) => {
                let args = schema::SubOptionsArgs {
                    fused_activation_function,
                };
                (O::SubOptions, schema::SubOptions::create(b, &args).as_union_value())
            }
            Options::Mul(fused_activation_function) => {
                let args = schema::MulOptionsArgs {
                    fused_activation_function,
                };
                (O::MulOptions, schema::MulOptions::create(b, &args).as_union_value())
            }
            Options::Reshape(new_shape) => {
                let new_shape = Some(b.create_vector(new_shape));
                let args = schema::ReshapeOptionsArgs { new_shape };
                (
                    O::ReshapeOptions,
                    schema::ReshapeOptions::create(b, &args).as_union_value(),
                )
            }
            Options::Reducer(keep_dims) => {
                let args = schema::ReducerOptionsArgs { keep_dims };
                (
                    O::ReducerOptions,
                    schema::ReducerOptions::create(b, &args).as_union_value(),
                )
            }
            Options::Squeeze(dims) => {
                let squeeze_dims = Some(b.create_vector(dims));
                let args = schema::SqueezeOptionsArgs { squeeze_dims };
                (
                    O::SqueezeOptions,
                    schema::SqueezeOptions::create(b, &args).as_union_value(),
                )
            }
            Options::BatchMatMul(adj_x, adj_y) => {
                let args = schema::BatchMatMulOptionsArgs { adj_x, adj_y };
                (
                    O::BatchMatMulOptions,
                    schema::BatchMatMulOptions::create(b, &args).as_union_value(),
                )
            }
            Options::Unknown(tag) => {
                let table = schema::AddOptions::create(b, &schema::AddOptionsArgs::default());
                (BuiltinOptions(tag), table.as_union_value())
            }
        };
        (tag, Some(table))
    }
}
