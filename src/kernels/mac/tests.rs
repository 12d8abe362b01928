//! Compiled kernels against the plain definition, on every CPU of the table that this machine can run.

use super::super::lowered::Lowered;
use super::super::testing::{all_targets, assemble, emulated, hosts_and_others, run};
use super::{conv2d, depthwise_conv2d, fully_connected};
use crate::data::Bytes;
use crate::graph::quant::{activation_range, activation_range_f32};
use crate::graph::{
    Activation, DType, Graph, Op, OpId, OpKind, Padding, Quantization, Shape, Tensor, TensorId, Window,
};
use crate::kernels::requantize::multipliers;
use crate::target::Target;
use std::collections::BTreeMap;

/// xorshift64*: the same numbers everywhere.
pub(super) struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn unit(&mut self) -> f64 {
        (self.next() & 0xffff_ffff) as f64 / f64::from(u32::MAX)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Conv,
    Depthwise,
    Dense,
}

/// A layer; `outputs` is the channel multiplier of a depthwise one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    kind: Kind,
    batch: usize,
    input: [usize; 3],
    outputs: usize,
    groups: usize,
    window: Window,
    activation: Activation,
    bias: bool,
    zero_points: [i32; 2],
    /// Binary logarithm of the factor on a sensible multiplier.
    gain: i32,
    extreme: bool,
    /// Weights of at most 16.
    small: bool,
    /// Weights as they are in trained models: mostly small.
    trained: bool,
    /// Binary logarithm of the greatest ratio of channels' scales.
    spread: i32,
}

const PLAIN: Window = Window {
    size: [1, 1],
    stride: [1, 1],
    dilation: [1, 1],
    padding: Padding {
        top: 0,
        bottom: 0,
        left: 0,
        right: 0,
    },
};

pub(super) fn case(kind: Kind, input: [usize; 3], outputs: usize, size: [usize; 2]) -> Case {
    Case {
        kind,
        batch: 1,
        input,
        outputs,
        groups: 1,
        window: Window { size, ..PLAIN },
        activation: Activation::None,
        bias: true,
        zero_points: [3, -5],
        gain: 0,
        extreme: false,
        small: false,
        trained: false,
        spread: 4,
    }
}

impl Case {
    /// Channels of the filter.
    pub fn channels(&self) -> usize {
        match self.kind {
            Kind::Depthwise => self.input[2] * self.outputs,
            _ => self.outputs,
        }
    }

    pub fn stride(mut self, h: usize, w: usize) -> Self {
        self.window.stride = [h, w];
        self
    }

    fn dilation(mut self, h: usize, w: usize) -> Self {
        self.window.dilation = [h, w];
        self
    }

    /// Top, bottom, left, right.
    fn pad(mut self, pads: [usize; 4]) -> Self {
        let [top, bottom, left, right] = pads;
        self.window.padding = Padding {
            top,
            bottom,
            left,
            right,
        };
        self
    }

    pub fn same(self) -> Self {
        let mut pads = [0; 4];
        for i in 0..2 {
            let size = self.input[i];
            let out = size.div_ceil(self.window.stride[i]);
            let extent = (self.window.size[i] - 1) * self.window.dilation[i] + 1;
            let total = ((out - 1) * self.window.stride[i] + extent).saturating_sub(size);
            pads[2 * i] = total / 2;
            pads[2 * i + 1] = total - total / 2;
        }
        self.pad(pads)
    }

    pub fn relu(mut self) -> Self {
        self.activation = Activation::Relu;
        self.zero_points[1] = -128;
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The graph, its one operator's input values, and the output's size.
    pub fn graph(&self, dtype: DType, random: &mut Random) -> Option<(Graph, Vec<u8>)> {
        let [h, w, c] = self.input;
        let [kh, kw] = self.window.size;
        let [oh, ow] = self.window.output([h, w])?;
        let (filter, channels, sum, axis) = match self.kind {
            Kind::Conv => {
                let depth = c / self.groups;
                (vec![self.outputs, kh, kw, depth], self.outputs, kh * kw * depth, 0)
            }
            Kind::Depthwise => (vec![1, kh, kw, c * self.outputs], c * self.outputs, kh * kw, 3),
            Kind::Dense => (vec![self.outputs, h * w * c], self.outputs, h * w * c, 0),
        };
        let output = match self.kind {
            Kind::Dense => vec![self.batch, channels],
            _ => vec![self.batch, oh, ow, channels],
        };
        let mut values = |n: usize, weights: bool| -> Vec<u8> {
            (0..n)
                .flat_map(|_| match (dtype, self.extreme) {
                    (DType::F32, _) => ((random.unit() * 4.0 - 2.0) as f32).to_le_bytes().to_vec(),
                    (_, true) if weights => vec![random.pick(&[-128i8, -128, -127, 127]) as u8],
                    (_, true) => vec![random.pick(&[-128i8, -128, 127]) as u8],
                    _ if weights && self.trained => {
                        let four = (0..4).map(|_| i32::from(random.next() as i8)).sum::<i32>();
                        vec![(four / 5).clamp(-127, 127) as u8]
                    }
                    _ if weights && self.small => vec![(random.next() as i8 >> 3) as u8],
                    _ => vec![random.next() as u8],
                })
                .collect()
        };
        let weights = values(filter.iter().product(), true);
        let input = values(self.batch * h * w * c, false);
        let bias: Vec<u8> = (0..channels)
            .flat_map(|_| match dtype {
                DType::F32 => ((random.unit() * 4.0 - 2.0) as f32).to_le_bytes(),
                _ => (random.below(40000) as i32 - 20000).to_le_bytes(),
            })
            .collect();
        let spread = (sum as f64).sqrt() * 5400.0;
        let target = 40.0 / spread * 2f64.powi(self.gain);
        let scales: Vec<f32> = match self.kind {
            Kind::Dense => vec![(target * (0.5 + random.unit())) as f32],
            _ => (0..channels)
                .map(|_| (target * 2f64.powf(f64::from(self.spread) * (random.unit() - 0.5))) as f32)
                .collect(),
        };
        let int = |q: Quantization| (dtype == DType::I8).then_some(q);
        let mut graph = Graph::default();
        let mut add = |name: &str, dtype, shape: Vec<usize>, quantization, data: Option<Vec<u8>>| {
            graph.add_tensor(Tensor {
                name: name.into(),
                dtype,
                shape: Shape(shape),
                quantization,
                data: data.map(Bytes::from_vec),
            })
        };
        let [zero_in, zero_out] = self.zero_points;
        let x = add(
            "x",
            dtype,
            vec![self.batch, h, w, c],
            int(Quantization::per_tensor(0.5, zero_in)),
            None,
        );
        let quantization = Quantization {
            zero_point: vec![0; scales.len()],
            axis: (scales.len() > 1).then_some(axis),
            scale: scales,
        };
        let f = add("w", dtype, filter, int(quantization), Some(weights));
        let bias_type = if dtype == DType::F32 { DType::F32 } else { DType::I32 };
        let b = self.bias.then(|| add("b", bias_type, vec![channels], None, Some(bias)));
        let y = add("y", dtype, output, int(Quantization::per_tensor(0.5, zero_out)), None);
        let kind = match self.kind {
            Kind::Conv => OpKind::Conv2d {
                window: self.window,
                activation: self.activation,
            },
            Kind::Depthwise => OpKind::DepthwiseConv2d {
                window: self.window,
                multiplier: self.outputs,
                activation: self.activation,
            },
            Kind::Dense => OpKind::FullyConnected {
                activation: self.activation,
            },
        };
        graph.ops.push(Op {
            name: "y".into(),
            source: 0,
            kind,
            inputs: [x, f].into_iter().chain(b).collect(),
            outputs: vec![y],
        });
        Some((graph, input))
    }
}

fn element(bytes: &[u8], dtype: DType, i: usize) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap())),
        DType::I32 => f64::from(i32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap())),
        _ => f64::from(bytes[i] as i8),
    }
}

/// The plain definition.
pub(super) fn reference(graph: &Graph, input: &[u8], values: &BTreeMap<TensorId, Vec<u8>>, fused: bool) -> Vec<u8> {
    let op = graph.op(OpId(0));
    let (x, f, y) = (
        graph.tensor(op.inputs[0]),
        graph.tensor(op.inputs[1]),
        graph.tensor(op.output()),
    );
    let bytes = |id: TensorId| match &graph.tensor(id).data {
        Some(data) => data.as_slice().to_vec(),
        None => values[&id].clone(),
    };
    let weights = bytes(op.inputs[1]);
    let dtype = x.dtype;
    let bias_type = if dtype == DType::F32 { DType::F32 } else { DType::I32 };
    let biases: Vec<f64> = match op.inputs.get(2) {
        Some(id) => (0..y.shape.last(0))
            .map(|o| element(&bytes(*id), bias_type, o))
            .collect(),
        None => vec![0.0; y.shape.last(0)],
    };
    let multipliers = if dtype == DType::I8 {
        multipliers(graph, OpId(0))
    } else {
        vec![]
    };
    let (window, activation) = match op.kind {
        OpKind::Conv2d { window, activation } | OpKind::DepthwiseConv2d { window, activation, .. } => {
            (window, activation)
        }
        OpKind::FullyConnected { activation } => (PLAIN, activation),
        _ => unreachable!("a test of other operators"),
    };
    let dense = matches!(op.kind, OpKind::FullyConnected { .. });
    let depthwise = matches!(op.kind, OpKind::DepthwiseConv2d { .. });
    let [n, h, w, c] = if dense {
        [y.shape.last(1), 1, 1, f.shape.last(0)]
    } else {
        x.shape.nhwc()
    };
    let [_, oh, ow, oc] = if dense {
        [0, 1, 1, y.shape.last(0)]
    } else {
        y.shape.nhwc()
    };
    let depth = if depthwise { 1 } else { f.shape.last(0) };
    let per_group = oc / (c / depth);
    let [kh, kw] = window.size;
    let (zx, zw, zy) = (x.affine().1, f.affine().1, y.affine().1);
    let mut out = Vec::new();
    for b in 0..n {
        for oy in 0..oh {
            for ox in 0..ow {
                for (o, bias) in biases.iter().enumerate() {
                    let (mut int, mut float) = (0i32, 0f32);
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let iy =
                                (oy * window.stride[0] + ky * window.dilation[0]) as i64 - window.padding.top as i64;
                            let ix =
                                (ox * window.stride[1] + kx * window.dilation[1]) as i64 - window.padding.left as i64;
                            if !(0..h as i64).contains(&iy) || !(0..w as i64).contains(&ix) {
                                continue;
                            }
                            for k in 0..depth {
                                let channel = o / per_group * depth + k;
                                let at = ((b * h + iy as usize) * w + ix as usize) * c + channel;
                                let tap = if depthwise {
                                    (ky * kw + kx) * oc + o
                                } else {
                                    ((o * kh + ky) * kw + kx) * depth + k
                                };
                                let (a, wt) = (element(input, dtype, at), element(&weights, dtype, tap));
                                if dtype == DType::F32 {
                                    let (a, wt) = (a as f32, wt as f32);
                                    float = if fused { a.mul_add(wt, float) } else { float + a * wt };
                                } else {
                                    int = int.wrapping_add((a as i32 - zx) * (wt as i32 - zw));
                                }
                            }
                        }
                    }
                    if dtype == DType::F32 {
                        let mut value = float + *bias as f32;
                        let (min, max) = activation_range_f32(activation);
                        value = if value < min { min } else { value };
                        value = if value > max { max } else { value };
                        out.extend(value.to_le_bytes());
                    } else {
                        let scaled = multipliers[o].apply(int.wrapping_add(*bias as i32));
                        let (min, max) = activation_range(activation, DType::I8, y.quantization.as_ref().unwrap());
                        out.push((i64::from(scaled) + i64::from(zy)).clamp(min.into(), max.into()) as i8 as u8);
                    }
                }
            }
        }
    }
    out
}

pub(super) fn lower(graph: &Graph, target: &Target) -> Lowered {
    let lowered = match graph.op(OpId(0)).kind {
        OpKind::Conv2d { .. } => conv2d(graph, OpId(0), target),
        OpKind::DepthwiseConv2d { .. } => depthwise_conv2d(graph, OpId(0), target),
        _ => fully_connected(graph, OpId(0), target),
    };
    lowered.unwrap_or_else(|error| panic!("{error}"))
}

fn check(case: &Case, dtype: DType, random: &mut Random, targets: &[Target]) {
    let Some((graph, input)) = case.graph(dtype, random) else {
        return;
    };
    for target in targets {
        // Float operations would be calls.
        if dtype == DType::F32 && crate::codegen::has_soft_float(target) {
            continue;
        }
        let lowered = lower(&graph, target);
        let values = BTreeMap::from([(TensorId(0), input.clone())]);
        let found = run(&graph, OpId(0), &lowered, target, &values);
        let form = crate::kernels::rows::row_form(&graph, OpId(0), target).expect("a kernel");
        if let Some(form) = form.filter(|_| target.arch() == hosts_and_others()[0].arch()) {
            let rows = super::super::testing::run_rows(&graph, OpId(0), &form, target, &values);
            assert!(rows == found, "{target} {dtype:?} {case:?} row by row");
        }
        let wanted = reference(&graph, &input, &values, target.machine().fused_multiply_add);
        if found != wanted {
            let size = dtype.bytes();
            let at = (0..wanted.len() / size).find(|i| found[i * size..][..size] != wanted[i * size..][..size]);
            let at = at.unwrap();
            panic!(
                "{target} {dtype:?} {case:?}\n{}: element {at} of {} is {}, not {}",
                lowered.schedule,
                wanted.len() / size,
                element(&found, dtype, at),
                element(&wanted, dtype, at),
            );
        }
    }
}

fn check_all(cases: &[Case]) {
    let targets = hosts_and_others();
    let mut random = Random(7);
    for case in cases {
        for dtype in [DType::I8, DType::F32] {
            check(case, dtype, &mut random, &targets);
        }
    }
}

use Kind::{Conv, Dense, Depthwise};

#[test]
fn every_number_of_channels() {
    for channels in (1..=35).chain([47, 63, 64, 65, 70]) {
        check_all(&[
            case(Conv, [2, 3, channels], 5, [1, 1]),
            case(Conv, [1, 3, 5], channels, [1, 1]).relu(),
            case(Dense, [1, 1, channels], channels, [1, 1]),
            case(Depthwise, [4, 5, channels], 1, [3, 3]).same(),
        ]);
    }
}

#[test]
fn every_number_of_positions() {
    for width in 1..=20 {
        check_all(&[
            case(Conv, [1, width, 9], 19, [1, 1]),
            case(Conv, [2, width, 3], 6, [2, 3]).same(),
            case(Depthwise, [2, width, 8], 1, [1, 2]).same(),
            case(Depthwise, [3, width, 16], 1, [1, 1]),
        ]);
    }
}

#[test]
fn layers_of_real_models() {
    check_all(&[
        case(Conv, [49, 10, 1], 64, [10, 4]).stride(2, 2).same().relu(),
        case(Depthwise, [25, 5, 64], 1, [3, 3]).same().relu(),
        case(Conv, [25, 5, 64], 64, [1, 1]).relu(),
        case(Conv, [20, 20, 3], 8, [3, 3]).stride(2, 2).same().relu(),
        case(Depthwise, [12, 12, 16], 1, [3, 3]).stride(2, 2).same().relu(),
        case(Conv, [3, 3, 256], 256, [1, 1]).relu(),
        case(Conv, [16, 16, 16], 32, [3, 3]).stride(2, 2).same(),
        case(Conv, [16, 16, 16], 32, [1, 1]).stride(2, 2),
        case(Depthwise, [49, 40, 1], 8, [10, 8]).stride(2, 2).same().relu(),
        case(Dense, [1, 1, 640], 128, [1, 1]).relu(),
        case(Dense, [1, 1, 128], 8, [1, 1]),
        case(Dense, [25, 20, 8], 4, [1, 1]),
    ]);
}

#[test]
fn windows() {
    check_all(&[
        case(Conv, [7, 9, 5], 6, [5, 5]).same(),
        case(Conv, [7, 9, 5], 6, [7, 9]),
        case(Conv, [9, 9, 5], 6, [3, 3]).dilation(2, 3).same(),
        case(Conv, [9, 9, 4], 6, [3, 2]).dilation(3, 1).stride(1, 2),
        case(Conv, [6, 7, 8], 6, [3, 3]).pad([2, 0, 0, 5]).stride(3, 2),
        case(Conv, [4, 4, 3], 4, [1, 1]).pad([1, 1, 1, 1]).stride(2, 2),
        case(Conv, [3, 3, 3], 4, [1, 1]).pad([0, 0, 1, 1]).stride(1, 2),
        case(Conv, [12, 1, 6], 4, [5, 1]).same(),
        case(Conv, [1, 30, 6], 4, [1, 9]).same(),
        case(Depthwise, [9, 9, 5], 1, [3, 3]).dilation(2, 3).same(),
        case(Depthwise, [12, 12, 8], 1, [7, 5]).same(),
        case(Depthwise, [12, 20, 8], 1, [2, 19]),
        case(Depthwise, [12, 9, 8], 1, [12, 9]),
        case(Depthwise, [6, 7, 24], 1, [4, 4]).pad([2, 0, 0, 5]).stride(3, 2),
    ]);
}

/// Shapes for which 32-bit machines have schedules of their own: rows in pairs, halves, lanes of 16 bits.
#[test]
fn schedules_of_32_bits() {
    let mut cases = Vec::new();
    for height in 1..=9 {
        for stride in [1, 2] {
            let square = case(Depthwise, [height, 7, 8], 1, [3, 3]).stride(stride, stride).same();
            cases.extend([square, square.relu()]);
            cases.push(case(Depthwise, [height + 2, 5, 4], 1, [3, 3]).stride(stride, 1));
        }
    }
    for depth in [1, 2, 3, 5, 6, 7, 11] {
        cases.push(case(Conv, [5, 6, depth], 5, [3, 3]).same().relu());
    }
    for depth in [4, 6, 8, 12, 24, 48] {
        for outputs in [1, 2, 7, 16, 18] {
            let dense = case(Dense, [1, 1, depth], outputs, [1, 1]);
            cases.extend([dense, dense.with(|case| case.small = true)]);
            cases.push(dense.with(|case| case.trained = true).relu());
        }
    }
    check_all(&cases);
}

/// Windows that three rows of outputs share, and sums in one, a few and many parts.
#[test]
fn three_rows_in_a_word() {
    let mut cases = Vec::new();
    for height in 3..=7 {
        let square = case(Conv, [height, 9, 5], 7, [3, 3]).same();
        cases.extend([square, square.relu()]);
        cases.push(case(Conv, [2 * height, 7, 3], 5, [3, 3]).stride(2, 2).same().relu());
    }
    for (size, stride, dilation) in [
        ([5, 1], [1, 1], [1, 1]),
        ([1, 5], [1, 2], [1, 1]),
        ([3, 3], [1, 1], [2, 2]),
        ([2, 4], [3, 3], [1, 1]),
        ([3, 2], [2, 1], [4, 3]),
        ([1, 1], [2, 2], [1, 1]),
    ] {
        let one = case(Conv, [19, 15, 6], 9, size).stride(stride[0], stride[1]);
        let one = one.dilation(dilation[0], dilation[1]);
        cases.extend([one, one.with(|c| c.batch = 2).same()]);
    }
    for depth in [9, 30, 70] {
        let long = case(Conv, [4, 6, depth], 6, [3, 3]).same();
        cases.extend([long.with(|c| c.extreme = true), long.with(|c| c.trained = true).relu()]);
    }
    cases.push(case(Conv, [6, 6, 12], 9, [3, 3]).same().with(|c| c.groups = 3));
    check_all(&cases);
}

#[test]
fn batches_groups_and_multipliers() {
    check_all(&[
        case(Conv, [5, 4, 3], 7, [3, 2]).same().with(|c| c.batch = 3),
        case(Conv, [5, 4, 3], 7, [1, 1]).with(|c| c.batch = 3),
        case(Dense, [1, 1, 33], 7, [1, 1]).with(|c| c.batch = 5),
        case(Depthwise, [5, 4, 3], 1, [3, 2]).same().with(|c| c.batch = 3),
        case(Conv, [5, 6, 8], 12, [3, 3]).same().with(|c| c.groups = 2),
        case(Conv, [5, 6, 9], 6, [3, 3]).with(|c| c.groups = 3),
        case(Conv, [5, 6, 8], 8, [1, 1]).with(|c| c.groups = 4),
        case(Conv, [5, 6, 8], 8, [3, 3]).same().with(|c| c.groups = 8),
        case(Conv, [5, 6, 6], 12, [3, 3]).same().with(|c| c.groups = 6),
        case(Depthwise, [5, 6, 1], 1, [3, 3]).same(),
        case(Depthwise, [5, 6, 1], 9, [3, 3]).same(),
        case(Depthwise, [5, 6, 3], 8, [3, 3]).same(),
        case(Depthwise, [5, 16, 8], 2, [3, 3]).same(),
        case(Depthwise, [5, 7, 5], 3, [3, 3]).stride(2, 2),
        case(Depthwise, [3, 3, 2], 5, [2, 2]),
    ]);
}

#[test]
fn quantization() {
    let mut cases = Vec::new();
    let zero_points = [[0, 0], [127, 127], [-128, 5], [17, -128]];
    for (i, gain) in [-40, -24, -16, -8, -2, 4, 6, 8, 10, 20, 27].into_iter().enumerate() {
        for activation in [Activation::None, Activation::Relu6] {
            let change = |c: &mut Case| {
                (c.gain, c.activation, c.zero_points, c.bias) = (gain, activation, zero_points[i % 4], i % 3 != 0);
            };
            cases.push(case(Conv, [3, 4, 3], 5, [2, 2]).same().with(change));
            cases.push(case(Dense, [1, 1, 20], 18, [1, 1]).with(change));
            cases.push(case(Depthwise, [3, 4, 9], 1, [2, 2]).same().with(change));
        }
    }
    check_all(&cases);
}

/// Weights and inputs at the ends of their range, where 16-bit sums would overflow.
#[test]
fn extremes() {
    let mut cases = Vec::new();
    for zero_points in [[0, 0], [-128, -128], [127, 0]] {
        for gain in [-6, 0, 12] {
            let change = |c: &mut Case| (c.extreme, c.zero_points, c.gain) = (true, zero_points, gain);
            cases.push(case(Conv, [4, 5, 7], 9, [3, 3]).same().with(change));
            cases.push(case(Conv, [4, 5, 64], 9, [1, 1]).with(change));
            cases.push(case(Dense, [1, 1, 3000], 9, [1, 1]).with(change));
            cases.push(case(Depthwise, [5, 5, 17], 1, [3, 3]).same().with(change));
        }
    }
    check_all(&cases);
}

fn random_case(random: &mut Random) -> Case {
    let kind = random.pick(&[Conv, Conv, Depthwise, Depthwise, Dense]);
    let groups = if kind == Conv { random.pick(&[1, 1, 1, 2, 3]) } else { 1 };
    let channels = groups * (1 + random.below(if kind == Depthwise { 40 } else { 12 }));
    let input = [1 + random.below(10), 1 + random.below(12), channels];
    let outputs = match kind {
        Depthwise => random.pick(&[1, 1, 1, 2, 3, 4, 7]),
        _ => groups * (1 + random.below(24)),
    };
    let size = if kind == Dense {
        [1, 1]
    } else {
        [1 + random.below(5), 1 + random.below(5)]
    };
    let mut case = case(kind, input, outputs, size).with(|c| {
        c.batch = random.pick(&[1, 1, 2]);
        c.groups = groups;
        c.gain = random.below(10) as i32 - 6;
        c.bias = random.below(4) > 0;
        c.activation = random.pick(&[
            Activation::None,
            Activation::Relu,
            Activation::Relu6,
            Activation::ReluN1To1,
        ]);
        c.zero_points = [random.below(256) as i32 - 128, random.pick(&[-128, 0, 3, 127])];
    });
    if kind != Dense {
        case = case.stride(1 + random.below(3), 1 + random.below(3));
        case = case.dilation(1 + random.below(2), 1 + random.below(2));
        case = match random.below(3) {
            0 => case,
            1 => case.same(),
            _ => {
                let mut pad = || random.below(4);
                let pads = [pad(), pad(), pad(), pad()];
                case.pad(pads)
            }
        };
    }
    case
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Window {
            size: [kh, kw],
            stride: [sh, sw],
            dilation: [dh, dw],
            padding,
        } = self.window;
        let [h, w, c] = self.input;
        let kind = format!("{:?}", self.kind).to_lowercase();
        write!(f, "{kind} {h}x{w}x{c} to {}, {kh}x{kw}", self.outputs)?;
        if self.groups > 1 {
            write!(f, " in {} groups", self.groups)?;
        }
        write!(f, ", stride {sh}x{sw}, dilation {dh}x{dw}, padding {padding:?}")
    }
}

/// A layer of any shape: channels 1 to 300, windows 1 to 11, at most a few million products.
pub(super) fn random_layer(random: &mut Random) -> Case {
    // Small numbers as often as large ones.
    let any = |random: &mut Random, most: usize| {
        let real = (most as f64).powf(random.unit());
        (real as usize).clamp(1, most)
    };
    loop {
        let kind = random.pick(&[Conv, Conv, Conv, Depthwise, Depthwise, Dense]);
        let groups = if kind == Conv {
            random.pick(&[1, 1, 1, 1, 1, 2, 3])
        } else {
            1
        };
        let channels = match kind {
            Conv => groups * any(random, 300 / groups),
            _ => any(random, 300),
        };
        let outputs = match kind {
            Depthwise => random.pick(&[1, 1, 1, 1, 2, 3]),
            _ => groups * any(random, 300 / groups),
        };
        let size = match kind {
            Dense => [1, 1],
            _ => {
                let square = 1 + random.below(11);
                let other = 1 + random.below(11);
                random.pick(&[[1, 1], [3, 3], [3, 3], [square, square], [square, other]])
            }
        };
        let input = match kind {
            Dense => [1, 1, any(random, 2000)],
            _ => [1 + any(random, 48), 1 + any(random, 48), channels],
        };
        let mut case = case(kind, input, outputs, size).with(|c| {
            c.groups = groups;
            c.gain = random.below(8) as i32 - 5;
            c.bias = random.below(5) > 0;
            c.spread = random.pick(&[0, 4, 4, 10]);
            c.trained = random.below(3) > 0;
            c.activation = random.pick(&[Activation::None, Activation::Relu, Activation::Relu6]);
            c.zero_points = [random.below(256) as i32 - 128, random.pick(&[-128, -128, 0, 3])];
        });
        if kind != Dense {
            let (stride, dilation) = (random.pick(&[1, 1, 2, 3]), random.pick(&[1, 1, 1, 2, 3]));
            case = case.stride(stride, stride).dilation(dilation, dilation);
            if random.below(2) > 0 {
                case = case.same();
            }
        }
        let Some([height, width]) = case.window.output([input[0], input[1]]) else {
            continue;
        };
        let positions = if kind == Dense { 1 } else { height * width };
        let sum = match kind {
            Dense => input[2],
            Conv => size[0] * size[1] * channels / groups,
            Depthwise => size[0] * size[1],
        };
        if positions * case.channels() * sum <= 3_000_000 && case.channels() * sum <= 1 << 20 {
            return case;
        }
    }
}

/// `COREROPE_LAYERS` of them, whole and row by row.
#[test]
fn random_layers() {
    let targets = hosts_and_others();
    let mut random = Random(2026);
    let count = std::env::var("COREROPE_LAYERS").ok().and_then(|n| n.parse().ok());
    for _ in 0..count.unwrap_or(120) {
        let case = random_case(&mut random);
        for dtype in [DType::I8, DType::F32] {
            check(&case, dtype, &mut random, &targets);
        }
    }
}

/// The other architectures' code, in an emulator.
#[test]
fn other_architectures() {
    let targets = emulated();
    let mut random = Random(17);
    let mut cases = vec![
        case(Conv, [9, 10, 1], 20, [10, 4]).stride(2, 2).same().relu(),
        case(Depthwise, [6, 5, 40], 1, [3, 3]).same().relu(),
        case(Conv, [5, 5, 37], 30, [1, 1]).relu(),
        case(Conv, [6, 6, 8], 13, [3, 3]).same().with(|c| c.extreme = true),
        case(Depthwise, [6, 5, 21], 1, [3, 3]).same().with(|c| c.extreme = true),
        case(Dense, [1, 1, 300], 40, [1, 1]).with(|c| c.extreme = true),
        case(Dense, [1, 1, 33], 10, [1, 1]).with(|c| c.gain = 8),
        case(Depthwise, [9, 9, 3], 8, [3, 3]).same(),
    ];
    cases.extend((0..20).map(|_| random_case(&mut random)));
    for case in cases {
        for dtype in [DType::I8, DType::F32] {
            check(&case, dtype, &mut random, &targets);
        }
    }
}

/// Every CPU's code generator accepts the kernels; running them is for the emulators.
#[test]
fn all_targets_compile() {
    let targets = all_targets();
    let mut random = Random(3);
    for _ in 0..12 {
        let case = random_case(&mut random);
        for dtype in [DType::I8, DType::F32] {
            let Some((graph, _)) = case.graph(dtype, &mut random) else {
                continue;
            };
            for target in &targets {
                let (size, _) = assemble(&lower(&graph, target).built.function, target);
                assert!(size > 0);
            }
        }
    }
}

/// Weights that are an input of the model, with and without zero points.
#[test]
fn weights_at_run_time() {
    let mut random = Random(11);
    for (depth, channels, zero) in [(8, 3, 0), (8, 3, 5), (1, 1, -7), (19, 6, 9), (64, 10, 0)] {
        for dtype in [DType::I8, DType::F32] {
            for bias in [false, true] {
                let case = case(Dense, [1, 1, depth], channels, [1, 1]).with(|c| (c.batch, c.bias) = (2, bias));
                let (mut graph, input) = case.graph(dtype, &mut random).unwrap();
                let weights = graph.tensors[1].data.take().unwrap().as_slice().to_vec();
                if let Some(quantization) = &mut graph.tensors[1].quantization {
                    quantization.zero_point = vec![zero];
                }
                let values = BTreeMap::from([(TensorId(0), input.clone()), (TensorId(1), weights)]);
                for target in hosts_and_others() {
                    let lowered = lower(&graph, &target);
                    let found = run(&graph, OpId(0), &lowered, &target, &values);
                    let wanted = reference(&graph, &input, &values, target.machine().fused_multiply_add);
                    assert_eq!(
                        found, wanted,
                        "{target} {dtype:?} depth {depth} zero {zero} bias {bias}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_not_implemented_is_said() {
    let (mut graph, _) = case(Conv, [2, 2, 1], 1, [1, 1])
        .graph(DType::I8, &mut Random(1))
        .unwrap();
    graph.tensors[0].dtype = DType::I16;
    let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).unwrap();
    let error = conv2d(&graph, OpId(0), &target).err().unwrap();
    assert_eq!(error.code, crate::error::Code::Unsupported);
    graph.tensors[0].dtype = DType::I8;
    graph.tensors[1].data = None;
    let error = conv2d(&graph, OpId(0), &target).err().unwrap();
    assert!(error.message.contains("computed at run time"), "{error}");
}
