//! Random small graphs in which the passes find something to do.

use crate::data::Bytes;
use crate::graph::{
    Activation, BinaryOp, DType, Graph, Op, OpKind, Padding, PoolOp, Quantization, Shape, Tensor, TensorId, UnaryOp,
    Window, shape,
};

/// Pseudo-random choices.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e3779b97f4a7c15));
        for _ in 0..20 {
            random.below(2);
        }
        random
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n as u64) as usize
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn bytes(&mut self, dtype: DType, elements: usize) -> Vec<u8> {
        match dtype {
            // Floats of many magnitudes and both zeros.
            DType::F32 => (0..elements)
                .flat_map(|_| {
                    let x = (self.below(2001) as f32 - 1000.0) / 250.0;
                    match self.below(20) {
                        0 => 0.0f32,
                        1 => -0.0,
                        2 => x * 1e-30,
                        _ => x,
                    }
                    .to_le_bytes()
                })
                .collect(),
            _ => (0..elements * dtype.bytes()).map(|_| self.below(256) as u8).collect(),
        }
    }
}

struct Generator {
    graph: Graph,
    random: Random,
    /// Activations so far.
    values: Vec<TensorId>,
}

/// A verified graph and bytes for its inputs.
pub fn graph(seed: u64) -> (Graph, Vec<Vec<u8>>) {
    let mut g = Generator {
        graph: Graph {
            name: "random".into(),
            ..Graph::default()
        },
        random: Random::new(seed),
        values: Vec::new(),
    };
    let mut inputs = Vec::new();
    for i in 0..1 + g.random.below(2) {
        let dtype = g.random.pick(&[DType::I8, DType::F32]);
        let dims = vec![1, 2 + g.random.below(3), 2 + g.random.below(3), 1 + g.random.below(3)];
        let quantization = g.quantization(dtype);
        let id = g.tensor(&format!("input{i}"), dtype, Shape(dims), quantization, None);
        g.graph.inputs.push(id);
        let bytes = g.graph.tensor(id).shape.elements();
        inputs.push(g.random.bytes(dtype, bytes));
        g.values.push(id);
    }
    if g.random.chance(40) {
        let dtype = g.random.pick(&[DType::I8, DType::F32]);
        let quantization = g.quantization(dtype);
        let data = g.random.bytes(dtype, 12);
        let id = g.tensor("constant", dtype, Shape(vec![1, 2, 2, 3]), quantization, Some(data));
        g.values.push(id);
    }
    for _ in 0..3 + g.random.below(10) {
        g.operator();
        let last = g.values[g.values.len() - 1];
        if g.random.chance(25) {
            let dtype = g.graph.tensor(last).dtype;
            let quantization = g.like(last, dtype);
            let op = g.random.pick(&[UnaryOp::Relu, UnaryOp::Relu6, UnaryOp::ReluN1To1]);
            g.add(OpKind::Unary { op }, vec![last], dtype, quantization, Shape::default());
        }
    }
    for _ in 0..1 + g.random.below(4) {
        // Late values mostly.
        let back = g.random.below(g.values.len()).min(g.random.below(g.values.len()));
        let id = g.values[g.values.len() - 1 - back];
        g.graph.outputs.push(id);
    }
    (g.graph, inputs)
}

impl Generator {
    fn tensor(
        &mut self,
        name: &str,
        dtype: DType,
        shape: Shape,
        quantization: Option<Quantization>,
        data: Option<Vec<u8>>,
    ) -> TensorId {
        self.graph.add_tensor(Tensor {
            name: name.into(),
            dtype,
            shape,
            quantization,
            data: data.map(Bytes::from_vec),
        })
    }

    fn quantization(&mut self, dtype: DType) -> Option<Quantization> {
        let scale = self.random.pick(&[0.5, 0.25, 0.1, 0.03]);
        let zero = self.random.pick(&[0, -128, 7, 127, -5]);
        (dtype == DType::I8).then(|| Quantization::per_tensor(scale, zero))
    }

    /// Quantization of a result: often that of the operand, so that something can be fused.
    fn like(&mut self, id: TensorId, dtype: DType) -> Option<Quantization> {
        let source = self.graph.tensor(id).clone();
        match source.dtype == dtype && self.random.chance(60) {
            true => source.quantization,
            false => self.quantization(dtype),
        }
    }

    /// Adds an operator with the result `dtype`, unless its operands do not fit.
    fn add(
        &mut self,
        kind: OpKind,
        inputs: Vec<TensorId>,
        dtype: DType,
        quantization: Option<Quantization>,
        declared: Shape,
    ) {
        let shapes: Vec<&Shape> = inputs.iter().map(|id| &self.graph.tensor(*id).shape).collect();
        let Ok(shape) = shape::infer(&kind, &shapes, &declared) else {
            return;
        };
        if shape.elements() > 2000 {
            return;
        }
        let index = self.graph.ops.len();
        let name = format!("{}{index}", kind.name());
        let id = self.tensor(&name, dtype, shape, quantization, None);
        self.graph.ops.push(Op {
            name,
            source: index,
            kind,
            inputs,
            outputs: vec![id],
        });
        self.values.push(id);
    }

    fn window(&mut self) -> Window {
        let size = [1 + self.random.below(3), 1 + self.random.below(3)];
        let pad = |random: &mut Random, size: usize| if random.chance(30) { random.below(size) } else { 0 };
        Window {
            size,
            stride: [1 + self.random.below(2), 1 + self.random.below(2)],
            dilation: [1, 1],
            padding: Padding {
                top: pad(&mut self.random, size[0]),
                bottom: pad(&mut self.random, size[0]),
                left: pad(&mut self.random, size[1]),
                right: pad(&mut self.random, size[1]),
            },
        }
    }

    fn activation(&mut self) -> Activation {
        self.random.pick(&[
            Activation::None,
            Activation::None,
            Activation::Relu,
            Activation::Relu6,
            Activation::ReluN1To1,
        ])
    }

    fn operator(&mut self) {
        let back = self
            .random
            .below(self.values.len())
            .min(self.random.below(self.values.len()));
        let x = self.values[self.values.len() - 1 - back];
        let Tensor {
            dtype,
            shape,
            quantization,
            ..
        } = self.graph.tensor(x).clone();
        let same = quantization.clone();
        match self.random.below(23) {
            0..=2 => self.convolution(x),
            3 => {
                let window = self.window();
                let op = self.random.pick(&[PoolOp::Average, PoolOp::Max]);
                let activation = self.activation();
                let kind = OpKind::Pool2d { op, window, activation };
                self.add(kind, vec![x], dtype, same, Shape::default());
            }
            4 => {
                let y = self.random.pick(&self.values);
                if self.graph.tensor(y).dtype == dtype {
                    let op = self.random.pick(&[BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul]);
                    let activation = self.activation();
                    let q = self.like(x, dtype);
                    self.add(
                        OpKind::Binary { op, activation },
                        vec![x, y],
                        dtype,
                        q,
                        Shape::default(),
                    );
                }
            }
            5..=7 => {
                let op = self.random.pick(&[
                    UnaryOp::Relu,
                    UnaryOp::Relu,
                    UnaryOp::Relu6,
                    UnaryOp::ReluN1To1,
                    UnaryOp::Logistic,
                    UnaryOp::Tanh,
                ]);
                let q = match op {
                    _ if dtype == DType::F32 => None,
                    UnaryOp::Logistic => Some(Quantization::per_tensor(1.0 / 256.0, -128)),
                    UnaryOp::Tanh => Some(Quantization::per_tensor(1.0 / 128.0, 0)),
                    _ => self.like(x, dtype),
                };
                self.add(OpKind::Unary { op }, vec![x], dtype, q, Shape::default());
            }
            8 | 18..=20 => {
                let amounts = match shape.rank() {
                    4 if self.random.chance(80) => {
                        vec![
                            [0, 0],
                            [self.random.below(2), self.random.below(3)],
                            [self.random.below(2), self.random.below(2)],
                            [0, 0],
                        ]
                    }
                    rank => (0..rank)
                        .map(|_| [self.random.below(2), self.random.below(2)])
                        .collect(),
                };
                let zero = self.graph.tensor(x).affine().1;
                let value = match dtype {
                    DType::F32 => u64::from(self.random.pick(&[0.0f32, 0.0, 0.0, -0.0, 1.5]).to_bits()),
                    _ => u64::from(self.random.pick(&[zero, zero, zero, zero, 3]) as u8),
                };
                self.add(OpKind::Pad { amounts, value }, vec![x], dtype, same, Shape::default());
                let padded = self.values[self.values.len() - 1];
                if self.random.chance(70) {
                    self.convolution(padded);
                }
            }
            9 => {
                let elements = shape.elements();
                let dims = self
                    .random
                    .pick(&[vec![elements], vec![1, elements], vec![1, 1, elements, 1], shape.0]);
                self.add(OpKind::Reshape, vec![x], dtype, same, Shape(dims));
            }
            10 | 11 | 16 if dtype == DType::F32 => {
                let q = self.quantization(DType::I8);
                self.add(OpKind::Quantize, vec![x], DType::I8, q, Shape::default());
            }
            10 => self.add(OpKind::Dequantize, vec![x], DType::F32, None, Shape::default()),
            11 | 16 | 17 if dtype == DType::I8 => {
                // There and back again, with something in between or not.
                self.add(OpKind::Dequantize, vec![x], DType::F32, None, Shape::default());
                let mut real = self.values[self.values.len() - 1];
                if self.random.chance(50) {
                    let op = self.random.pick(&[UnaryOp::Tanh, UnaryOp::Logistic, UnaryOp::Relu]);
                    self.add(OpKind::Unary { op }, vec![real], DType::F32, None, Shape::default());
                    real = self.values[self.values.len() - 1];
                }
                let q = if self.random.chance(70) {
                    same
                } else {
                    self.quantization(DType::I8)
                };
                self.add(OpKind::Quantize, vec![real], DType::I8, q, Shape::default());
            }
            12 if dtype == DType::I8 => {
                let q = self.like(x, dtype);
                self.add(OpKind::Quantize, vec![x], DType::I8, q, Shape::default());
            }
            12 => self.add(OpKind::Softmax { beta: 1.0 }, vec![x], dtype, None, Shape::default()),
            13 => {
                // The same operator again, and both read.
                if let Some(op) = self.graph.ops.last().cloned() {
                    let first = op.output();
                    let Tensor {
                        dtype,
                        shape,
                        quantization,
                        ..
                    } = self.graph.tensor(first).clone();
                    self.add(op.kind, op.inputs, dtype, quantization.clone(), shape);
                    let both = vec![first, self.values[self.values.len() - 1]];
                    self.add(OpKind::Concat { axis: 0 }, both, dtype, quantization, Shape::default());
                }
            }
            14 => {
                let axis = self.random.below(shape.rank().max(1));
                self.add(OpKind::Concat { axis }, vec![x, x], dtype, same, Shape::default());
            }
            21 | 22 => {
                // One or a few in a row, in any orders.
                let mut from = x;
                for _ in 0..1 + self.random.below(3) {
                    let mut left: Vec<usize> = (0..shape.rank()).collect();
                    let permutation = (0..shape.rank())
                        .map(|_| left.remove(self.random.below(left.len())))
                        .collect();
                    let kind = OpKind::Transpose { permutation };
                    self.add(kind, vec![from], dtype, same.clone(), Shape::default());
                    from = self.values[self.values.len() - 1];
                }
            }
            _ => {
                let axes = vec![self.random.below(shape.rank().max(1))];
                let keep_dims = self.random.chance(50);
                let q = self.like(x, dtype);
                self.add(OpKind::Mean { axes, keep_dims }, vec![x], dtype, q, Shape::default());
            }
        }
    }

    /// A convolution, depthwise or not, or a dense layer.
    fn convolution(&mut self, x: TensorId) {
        let Tensor { dtype, shape, .. } = self.graph.tensor(x).clone();
        let window = self.window();
        let [kh, kw] = window.size;
        let activation = self.activation();
        let out = 1 + self.random.below(3);
        let channels = shape.last(0);
        let (kind, dims) = match self.random.below(3) {
            0 => (OpKind::Conv2d { window, activation }, vec![out, kh, kw, channels]),
            1 => {
                let kind = OpKind::DepthwiseConv2d {
                    window,
                    multiplier: 2,
                    activation,
                };
                (kind, vec![1, kh, kw, 2 * channels])
            }
            _ => (OpKind::FullyConnected { activation }, vec![out, shape.elements()]),
        };
        let declared = Shape(vec![1, dims[0]]);
        let n = match kind {
            OpKind::DepthwiseConv2d { .. } => 2 * channels,
            _ => out,
        };
        let fixed = self.random.chance(30);
        // Equal weights now and then.
        let bytes = |g: &mut Self, dtype: DType, elements: usize| match fixed {
            true => vec![0; elements * dtype.bytes()],
            false => g.random.bytes(dtype, elements),
        };
        let data = bytes(self, dtype, dims.iter().product());
        let scale = (dtype == DType::I8).then(|| Quantization::per_tensor(0.02, 0));
        let weights = self.tensor("weights", dtype, Shape(dims), scale, Some(data));
        let mut inputs = vec![x, weights];
        if self.random.chance(70) {
            let dtype = if dtype == DType::I8 { DType::I32 } else { DType::F32 };
            let mut data = bytes(self, dtype, n);
            if dtype == DType::I32 {
                // Small enough to matter.
                for bias in data.chunks_mut(4) {
                    let sign = if bias[1] >= 128 { 255 } else { 0 };
                    bias[2..].fill(sign);
                }
            }
            inputs.push(self.tensor("bias", dtype, Shape(vec![n]), None, Some(data)));
        }
        let q = self.quantization(dtype);
        self.add(kind, inputs, dtype, q, declared);
    }
}
