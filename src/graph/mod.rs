//! The model: tensors, types, quantization and operators.
//!
//! A graph is a list of tensors and a list of operators in a topological order. Shapes are static. After
//! [`verify`](verify::verify) every index, shape, window and quantization is proven; nothing later checks again.

pub mod evaluate;
pub mod external;
pub mod quant;
pub mod shape;
pub mod text;
pub mod verify;

use crate::data::Bytes;
use external::{External, Foreign};
use std::fmt;

/// Index of a tensor in [`Graph::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorId(pub u32);

/// Index of an operator in [`Graph::ops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

impl TensorId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl OpId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Type of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 8-bit signed.
    I8,
    /// 8-bit unsigned (only as the input or output of a quantize operator).
    U8,
    /// 16-bit signed.
    I16,
    /// 32-bit signed.
    I32,
    /// 64-bit signed.
    I64,
    /// IEEE 754 binary32.
    F32,
    /// One byte, 0 or 1.
    Bool,
    /// 16-bit unsigned; like the types below, only between external functions.
    U16,
    /// 32-bit unsigned.
    U32,
    /// 64-bit unsigned.
    U64,
    /// IEEE 754 binary16.
    F16,
    /// IEEE 754 binary64.
    F64,
}

impl DType {
    /// Size of an element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::I16 | DType::U16 | DType::F16 => 2,
            DType::I32 | DType::U32 | DType::F32 => 4,
            DType::I64 | DType::U64 | DType::F64 => 8,
        }
    }

    /// Name in the text form and in reports: `int8`, `float32`, …
    pub fn name(self) -> &'static str {
        match self {
            DType::I8 => "int8",
            DType::U8 => "uint8",
            DType::I16 => "int16",
            DType::I32 => "int32",
            DType::I64 => "int64",
            DType::F32 => "float32",
            DType::Bool => "bool",
            DType::U16 => "uint16",
            DType::U32 => "uint32",
            DType::U64 => "uint64",
            DType::F16 => "float16",
            DType::F64 => "float64",
        }
    }

    /// The type's name in C99: `int8_t`, `float`, …
    pub fn c_name(self) -> &'static str {
        match self {
            DType::I8 => "int8_t",
            DType::U8 => "uint8_t",
            DType::I16 => "int16_t",
            DType::I32 => "int32_t",
            DType::I64 => "int64_t",
            DType::F32 => "float",
            DType::Bool => "uint8_t",
            // C has no type for half floats: their bits.
            DType::U16 | DType::F16 => "uint16_t",
            DType::U32 => "uint32_t",
            DType::U64 => "uint64_t",
            DType::F64 => "double",
        }
    }

    /// The inverse of [`DType::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [
            DType::I8,
            DType::U8,
            DType::I16,
            DType::I32,
            DType::I64,
            DType::F32,
            DType::Bool,
            DType::U16,
            DType::U32,
            DType::U64,
            DType::F16,
            DType::F64,
        ]
        .into_iter()
        .find(|dtype| dtype.name() == name)
    }
}

/// Dimensions, outermost first. Activations are NHWC.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Shape(pub Vec<usize>);

impl Shape {
    /// Number of elements. The product is checked by the verifier (at most [`crate::limits::ELEMENTS`]).
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Dimension `i` from the end: `last(0)` is the innermost, 1 if there is none.
    pub fn last(&self, i: usize) -> usize {
        self.0.len().checked_sub(i + 1).map_or(1, |i| self.0[i])
    }

    /// The four NHWC dimensions, padded with ones in front. Meaningful for rank ≤ 4.
    pub fn nhwc(&self) -> [usize; 4] {
        [self.last(3), self.last(2), self.last(1), self.last(0)]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            write!(f, "{}{dim}", if i == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}

/// Affine quantization: real = scale × (q − zero point).
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    /// One scale, or one for each index of `axis`; finite and positive.
    pub scale: Vec<f32>,
    /// As many zero points.
    pub zero_point: Vec<i32>,
    /// The quantized dimension, if there is more than one scale.
    pub axis: Option<usize>,
}

impl Quantization {
    /// Per-tensor quantization.
    pub fn per_tensor(scale: f32, zero_point: i32) -> Self {
        Quantization {
            scale: vec![scale],
            zero_point: vec![zero_point],
            axis: None,
        }
    }
}

/// A tensor: an activation, or a constant if it has `data`.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The model's name for it; need not be unique nor an identifier.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Shape,
    /// Quantization, if the elements are quantized.
    pub quantization: Option<Quantization>,
    /// Little-endian elements of a constant, unaligned.
    pub data: Option<Bytes>,
}

impl Tensor {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.shape.elements() * self.dtype.bytes()
    }

    /// Per-tensor scale and zero point. (1, 0) where the tensor has none: the verifier has refused operators that
    /// need them.
    pub fn affine(&self) -> (f32, i32) {
        self.quantization
            .as_ref()
            .map_or((1.0, 0), |q| (q.scale[0], q.zero_point[0]))
    }

    /// `"name" int8[1,3,3,8]`, for messages.
    pub fn describe(&self) -> String {
        format!("{:?} {}{}", self.name, self.dtype.name(), self.shape)
    }
}

/// Activation that an operator applies to its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// None.
    #[default]
    None,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// min(max(x, −1), 1).
    ReluN1To1,
}

/// Padding of the two spatial dimensions, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns before.
    pub left: usize,
    /// Columns after.
    pub right: usize,
}

/// A two-dimensional window: `[height, width]` pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Kernel size.
    pub size: [usize; 2],
    /// Stride, at least 1.
    pub stride: [usize; 2],
    /// Dilation, at least 1.
    pub dilation: [usize; 2],
    /// Explicit padding. Positions outside the input do not contribute (their value is the zero point).
    pub padding: Padding,
}

impl Window {
    /// Output size for an input of `[height, width]`, or `None` if the window does not fit.
    pub fn output(&self, input: [usize; 2]) -> Option<[usize; 2]> {
        let pads = [
            self.padding.top + self.padding.bottom,
            self.padding.left + self.padding.right,
        ];
        let mut out = [0; 2];
        for i in 0..2 {
            let extent = (self.size[i].checked_sub(1)?)
                .checked_mul(self.dilation[i])?
                .checked_add(1)?;
            out[i] = input[i]
                .checked_add(pads[i])?
                .checked_sub(extent)?
                .checked_div(self.stride[i])?
                + 1;
        }
        Some(out)
    }
}

/// Elementwise operators with two operands, with broadcasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// a + b.
    Add,
    /// a − b.
    Sub,
    /// a × b.
    Mul,
}

/// Elementwise operators with one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// min(max(x, −1), 1).
    ReluN1To1,
    /// 1 / (1 + e^−x).
    Logistic,
    /// tanh x.
    Tanh,
}

/// How a window is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolOp {
    /// Mean of the elements inside the input (padding is not counted).
    Average,
    /// Maximum.
    Max,
}

/// What an operator computes. Operands and results are in [`Op::inputs`] and [`Op::outputs`].
#[derive(Clone, Debug, PartialEq)]
pub enum OpKind {
    /// Inputs: activation `[n,h,w,ci]`, filter `[co,kh,kw,ci/groups]`, optional bias `[co]`.
    Conv2d {
        /// The window; `size` equals the filter's.
        window: Window,
        /// Applied to the result.
        activation: Activation,
    },
    /// Inputs: activation `[n,h,w,c]`, filter `[1,kh,kw,c×m]`, optional bias `[c×m]`. Output channel `i` reads input
    /// channel `i / m`.
    DepthwiseConv2d {
        /// The window; `size` equals the filter's.
        window: Window,
        /// Channel multiplier m.
        multiplier: usize,
        /// Applied to the result.
        activation: Activation,
    },
    /// Inputs: activation with `b×k` elements, weights `[n,k]` (constant or not), optional bias `[n]`. Output `b×n` elements.
    FullyConnected {
        /// Applied to the result.
        activation: Activation,
    },
    /// Window reduction of `[n,h,w,c]`; `dilation` is 1.
    Pool2d {
        /// How.
        op: PoolOp,
        /// The window.
        window: Window,
        /// Applied to the result.
        activation: Activation,
    },
    /// Elementwise with broadcasting (numpy's rules).
    Binary {
        /// Which.
        op: BinaryOp,
        /// Applied to the result.
        activation: Activation,
    },
    /// Elementwise. For int8, input and output may be quantized differently.
    Unary {
        /// Which.
        op: UnaryOp,
    },
    /// int8 → int8 through a constant table: `out[i] = table[in[i] + 128]`. Inputs: activation, table `[256]`.
    /// Made by the passes from unary operators; front ends do not produce it.
    Lookup,
    /// Softmax over the last dimension.
    Softmax {
        /// Factor of the logits.
        beta: f32,
    },
    /// Mean over `axes` (sorted, distinct).
    Mean {
        /// The reduced dimensions of the input.
        axes: Vec<usize>,
        /// Whether reduced dimensions stay with size 1.
        keep_dims: bool,
    },
    /// Constant padding: `[before, after]` for each dimension.
    Pad {
        /// One pair for each dimension of the input.
        amounts: Vec<[usize; 2]>,
        /// The value as the bits of one output element in the low bytes (the zero point for PAD on int8).
        value: u64,
    },
    /// Concatenation of all inputs along `axis`. For int8, inputs have the output's quantization (TFLM requires it).
    Concat {
        /// The joined dimension.
        axis: usize,
    },
    /// The same elements with their dimensions in another order. For int8, the output has the input's quantization.
    Transpose {
        /// Dimension `i` of the output is dimension `permutation[i]` of the input.
        permutation: Vec<usize>,
    },
    /// The same elements under another shape: reshape, flatten, squeeze, expand_dims. Always a view: plans give the
    /// output the input's place.
    Reshape,
    /// A copy of the elements, where a view is impossible (a model input that is a model output). Made by the passes.
    Copy,
    /// float32 → int8, or int8/uint8 → int8/uint8 with another quantization.
    Quantize,
    /// int8/uint8 → float32.
    Dequantize,
    /// A function of others, with any operands and at least one result. Its shapes are as declared.
    External(Box<External>),
}

/// An operator.
#[derive(Clone, Debug)]
pub struct Op {
    /// Name for messages, kernels and reports: the first output's name in the source model.
    pub name: String,
    /// Index of the operator in the source model; passes keep that of the operator that did most of the work.
    pub source: usize,
    /// What it computes.
    pub kind: OpKind,
    /// Operands.
    pub inputs: Vec<TensorId>,
    /// Results; one, but for external functions.
    pub outputs: Vec<TensorId>,
}

impl Op {
    /// The first result: the only one, but for external functions.
    pub fn output(&self) -> TensorId {
        self.outputs[0]
    }

    /// `operator 3 CONV_2D "conv1"`, for messages.
    pub fn describe(&self) -> String {
        format!("operator {} {} {:?}", self.source, self.kind.name(), self.name)
    }
}

impl OpKind {
    /// Name in the text form and in reports.
    pub fn name(&self) -> &'static str {
        match self {
            OpKind::Conv2d { .. } => "conv2d",
            OpKind::DepthwiseConv2d { .. } => "depthwise_conv2d",
            OpKind::FullyConnected { .. } => "fully_connected",
            OpKind::Pool2d {
                op: PoolOp::Average, ..
            } => "average_pool2d",
            OpKind::Pool2d { op: PoolOp::Max, .. } => "max_pool2d",
            OpKind::Binary { op: BinaryOp::Add, .. } => "add",
            OpKind::Binary { op: BinaryOp::Sub, .. } => "sub",
            OpKind::Binary { op: BinaryOp::Mul, .. } => "mul",
            OpKind::Unary { op: UnaryOp::Relu } => "relu",
            OpKind::Unary { op: UnaryOp::Relu6 } => "relu6",
            OpKind::Unary { op: UnaryOp::ReluN1To1 } => "relu_n1_to_1",
            OpKind::Unary { op: UnaryOp::Logistic } => "logistic",
            OpKind::Unary { op: UnaryOp::Tanh } => "tanh",
            OpKind::Lookup => "lookup",
            OpKind::Softmax { .. } => "softmax",
            OpKind::Mean { .. } => "mean",
            OpKind::Pad { .. } => "pad",
            OpKind::Concat { .. } => "concat",
            OpKind::Transpose { .. } => "transpose",
            OpKind::Reshape => "reshape",
            OpKind::Copy => "copy",
            OpKind::Quantize => "quantize",
            OpKind::Dequantize => "dequantize",
            OpKind::External(_) => "external",
        }
    }
}

/// A model.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The model's name (the file's stem unless the user gave one): the prefix of symbols.
    pub name: String,
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// All operators, each after the producers of its inputs.
    pub ops: Vec<Op>,
    /// The model's inputs, in its order; never constants, all distinct.
    pub inputs: Vec<TensorId>,
    /// The model's outputs, in its order.
    pub outputs: Vec<TensorId>,
    /// Objects, constants and facts that come with external functions.
    pub foreign: Foreign,
}

impl Graph {
    /// The tensor.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.index()]
    }

    /// The operator.
    pub fn op(&self, id: OpId) -> &Op {
        &self.ops[id.index()]
    }

    /// Identifiers of all operators, in order.
    pub fn op_ids(&self) -> impl Iterator<Item = OpId> + use<> {
        (0..self.ops.len() as u32).map(OpId)
    }

    /// Adds a tensor.
    pub fn add_tensor(&mut self, tensor: Tensor) -> TensorId {
        self.tensors.push(tensor);
        TensorId(self.tensors.len() as u32 - 1)
    }

    /// For every tensor, the operator that produces it.
    pub fn producers(&self) -> Vec<Option<OpId>> {
        let mut producers = vec![None; self.tensors.len()];
        for id in self.op_ids() {
            for output in &self.op(id).outputs {
                producers[output.index()] = Some(id);
            }
        }
        producers
    }

    /// For every tensor, the operators that read it, in order, without repetition.
    pub fn users(&self) -> Vec<Vec<OpId>> {
        let mut users = vec![Vec::new(); self.tensors.len()];
        for id in self.op_ids() {
            for input in &self.op(id).inputs {
                let list: &mut Vec<OpId> = &mut users[input.index()];
                if list.last() != Some(&id) {
                    list.push(id);
                }
            }
        }
        users
    }

    /// Multiply-accumulates of an operator (0 for those that have none).
    pub fn macs(&self, id: OpId) -> u64 {
        let op = self.op(id);
        let elements = |id: TensorId| self.tensor(id).shape.elements() as u64;
        match &op.kind {
            OpKind::Conv2d { .. } => {
                let filter = &self.tensor(op.inputs[1]).shape;
                elements(op.output()) * (filter.elements() / filter.0[0].max(1)) as u64
            }
            OpKind::DepthwiseConv2d { window, .. } => elements(op.output()) * (window.size[0] * window.size[1]) as u64,
            OpKind::FullyConnected { .. } => elements(op.output()) * self.tensor(op.inputs[1]).shape.last(0) as u64,
            _ => 0,
        }
    }
}
