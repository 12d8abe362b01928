//! What convolution, depthwise convolution and dense layers have in common.

use super::super::emit::{Emitter, build};
use super::super::lowered::{Lowered, LoweredOperand, Operands};
use super::super::requantize::{self, Accumulator, Channel, Requantize};
use super::super::schedule::{Block, Inner};
use super::super::{Parameter, ParameterKind, Scratch};
use super::pack::{Order, Weights};
use super::words::{Scales, Words};
use crate::data::{Bytes, Contents, Layout, Scalar};
use crate::error::{Error, Result};
use crate::graph::quant::{activation_range, activation_range_f32};
use crate::graph::{Activation, DType, Graph, Op, OpId, OpKind, Padding, Tensor, TensorId, Window};
use crate::target::Target;

/// A layer in NHWC terms. Group g's filters see input channels `g·depth ..`, and give output channels `g·filters ..`.
pub(super) struct Layer<'g> {
    pub graph: &'g Graph,
    pub id: OpId,
    pub dtype: DType,
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub out_height: usize,
    pub out_width: usize,
    pub groups: usize,
    /// Input channels that one filter sees.
    pub depth: usize,
    /// Output channels of a group.
    pub filters: usize,
    pub window: Window,
    pub weights: Weights,
    /// The input's zero point: the value of positions outside it.
    pub zero_point: i32,
    /// Whether all positions were made one row.
    flat: bool,
    /// Whether the rows of the input are read through a table of pointers.
    pub table: bool,
    /// Whether scratch costs more than a few instructions.
    pub lean: bool,
    /// A row of positions outside the input, for kernels that read some from it.
    pub outside: Option<Parameter>,
}

impl<'g> Layer<'g> {
    pub fn convolution(graph: &'g Graph, id: OpId) -> Result<Self> {
        let op = graph.op(id);
        let OpKind::Conv2d { window, .. } = op.kind else {
            return Err(Error::internal("a convolution's kernel for another operator").at(op.describe()));
        };
        let [_, _, _, channels] = graph.tensor(op.inputs[0]).shape.nhwc();
        let [outputs, _, _, depth] = graph.tensor(op.inputs[1]).shape.nhwc();
        let groups = channels / depth.max(1);
        Self::windowed(graph, id, window, Order::ChannelFirst, groups, depth, outputs)
    }

    pub fn depthwise(graph: &'g Graph, id: OpId) -> Result<Self> {
        let op = graph.op(id);
        let OpKind::DepthwiseConv2d { window, .. } = op.kind else {
            return Err(Error::internal("a depthwise convolution's kernel for another operator").at(op.describe()));
        };
        let [_, _, _, channels] = graph.tensor(op.inputs[0]).shape.nhwc();
        let [_, _, _, outputs] = graph.tensor(op.inputs[1]).shape.nhwc();
        Self::windowed(graph, id, window, Order::ChannelLast, channels, 1, outputs)
    }

    fn windowed(
        graph: &'g Graph,
        id: OpId,
        window: Window,
        order: Order,
        groups: usize,
        depth: usize,
        outputs: usize,
    ) -> Result<Self> {
        let op = graph.op(id);
        let (dtype, data) = constants(graph, op)?;
        let [batch, height, width, channels] = graph.tensor(op.inputs[0]).shape.nhwc();
        let [_, out_height, out_width, _] = graph.tensor(op.output()).shape.nhwc();
        let taps = window.size[0] * window.size[1];
        let pointwise = taps == 1 && groups == 1 && window.stride == [1, 1] && window.padding == Padding::default();
        let mut layer = Layer {
            graph,
            id,
            dtype,
            batch,
            height,
            width,
            channels,
            out_height,
            out_width,
            groups,
            depth,
            filters: outputs / groups.max(1),
            window,
            weights: Weights::new(data, dtype.bytes(), outputs, taps * depth, order),
            zero_point: graph.tensor(op.inputs[0]).affine().1,
            flat: false,
            table: false,
            lean: false,
            outside: None,
        };
        if pointwise {
            layer.flatten(batch * height * width);
        }
        Ok(layer)
    }

    pub fn dense(graph: &'g Graph, id: OpId) -> Result<Self> {
        let op = graph.op(id);
        let (dtype, data) = constants(graph, op)?;
        let weights = &graph.tensor(op.inputs[1]).shape;
        let (outputs, depth) = (weights.last(1), weights.last(0));
        let mut layer = Layer {
            graph,
            id,
            dtype,
            batch: 1,
            height: 1,
            width: 1,
            channels: depth,
            out_height: 1,
            out_width: 1,
            groups: 1,
            depth,
            filters: outputs,
            window: Window {
                size: [1, 1],
                stride: [1, 1],
                dilation: [1, 1],
                padding: Padding::default(),
            },
            weights: Weights::new(data, dtype.bytes(), outputs, depth, Order::ChannelFirst),
            zero_point: graph.tensor(op.inputs[0]).affine().1,
            flat: false,
            table: false,
            lean: false,
            outside: None,
        };
        layer.flatten(graph.tensor(op.output()).shape.elements() / outputs.max(1));
        Ok(layer)
    }

    /// The same layer, of one row, reading its input through a table.
    pub fn through_table(self, outside: Option<&Parameter>, target: &Target) -> Self {
        let aside = self.window.padding.left + self.window.padding.right > 0;
        let direct = aside && self.groups == 1 && Inner::new(target, self.dtype) == Inner::Paired;
        Layer {
            table: true,
            outside: outside.filter(|_| direct).cloned(),
            ..self
        }
    }

    /// Pointwise: all positions are one row.
    fn flatten(&mut self, positions: usize) {
        self.flat = true;
        self.batch = 1;
        (self.height, self.width) = (1, positions);
        (self.out_height, self.out_width) = (1, positions);
    }

    /// Whether every output position sees one input position, in order.
    pub fn pointwise(&self) -> bool {
        self.flat
    }

    /// The same layer with all its output channels in one group, for parameters in the order of the output.
    pub fn flattened(&self) -> Layer<'g> {
        Layer {
            groups: 1,
            filters: self.out_channels(),
            weights: self.weights.clone(),
            outside: self.outside.clone(),
            ..*self
        }
    }

    pub fn out_channels(&self) -> usize {
        self.groups * self.filters
    }

    /// Columns that the windows of a row of the output take, from the first one's to the last one's.
    pub fn columns(&self) -> usize {
        let Window {
            size, stride, dilation, ..
        } = self.window;
        (self.out_width - 1) * stride[1] + (size[1] - 1) * dilation[1] + 1
    }

    /// Whether a window may reach outside the input.
    pub fn padded(&self) -> bool {
        self.window.padding != Padding::default()
    }

    pub fn op(&self) -> &'g Op {
        self.graph.op(self.id)
    }

    pub fn input(&self) -> TensorId {
        self.op().inputs[0]
    }

    fn activation(&self) -> Activation {
        activation(&self.op().kind)
    }

    /// The kernel that `emit` writes, called with the input, the two parameters, the output and `scratch` bytes (if any).
    pub fn lowered(
        &self,
        target: &Target,
        stem: &'static str,
        schedule: String,
        parameters: [Parameter; 2],
        scratch: usize,
        emit: impl FnOnce(&mut Emitter),
    ) -> Lowered {
        let Operands {
            operands,
            scratch,
            overlaps,
        } = self.operands(parameters, scratch);
        Lowered {
            built: build(target, operands.len(), emit),
            stem,
            schedule,
            operands,
            scratch,
            overlaps,
        }
    }

    /// What the pointers of such a kernel point at.
    pub fn operands(&self, [weights, bias]: [Parameter; 2], scratch: usize) -> Operands {
        let op = self.op();
        let mut operands = vec![
            LoweredOperand::Tensor(op.inputs[0]),
            LoweredOperand::Parameter(weights),
            LoweredOperand::Parameter(bias),
            LoweredOperand::Tensor(op.output()),
        ];
        let scratch = (scratch > 0).then_some(Scratch {
            size: scratch as u64,
            align: 16,
        });
        operands.extend(scratch.map(|_| LoweredOperand::Scratch));
        operands.extend(self.outside.clone().map(LoweredOperand::Parameter));
        Operands {
            operands,
            scratch,
            overlaps: vec![],
        }
    }

    /// Clamp of a float layer.
    pub fn float_range(&self) -> (f32, f32) {
        activation_range_f32(self.activation())
    }

    /// The output's zero point and clamp.
    fn int8_range(&self) -> Result<(i32, (i32, i32))> {
        let output = self.graph.tensor(self.op().output());
        let quantization = output
            .quantization
            .as_ref()
            .ok_or_else(|| Error::internal(format!("{} is not quantized", output.describe())))?;
        let range = activation_range(self.activation(), output.dtype, quantization);
        Ok((quantization.zero_point[0], range))
    }

    fn bias(&self) -> Option<TensorId> {
        self.op().inputs.get(2).copied()
    }

    /// The weights in the order in which `blocks` reads them: for each group and block, `segments` runs of the sum, in
    /// steps of `inner`.
    pub fn weights_parameter(&self, blocks: &[Block], inner: Inner, segments: usize) -> Parameter {
        self.filter_parameter(self.weights.packed(self.groups, blocks, inner, segments))
    }

    /// The filter in a layout of a kernel's own.
    pub fn filter_parameter(&self, contents: Contents) -> Parameter {
        let filter = self.op().inputs[1];
        Parameter {
            name: self.graph.tensor(filter).name.clone(),
            kind: ParameterKind::Weights,
            tensors: vec![filter],
            align: 16,
            contents,
        }
    }

    /// Whether the weights of every two neighbouring channels of a group fit one half-word as 256·a + b, and 256 times
    /// the first one's sum an accumulator.
    ///
    /// # Errors
    /// Those of reading the model.
    pub fn pairable(&self) -> Result<bool> {
        let bias = self.bias().map(|bias| words(self.graph.tensor(bias)));
        let channels = self.quantized_channels(bias.as_deref(), 0)?;
        let (zero_point, range) = self.int8_range()?;
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for group in channels.chunks(self.filters).enumerate() {
            for (index, channel) in group.1.iter().enumerate().step_by(2) {
                let reaches = channel.low < -(1 << 23) || channel.high >= 1 << 23;
                if reaches && channel.constant(zero_point, range).is_none() {
                    return Ok(false);
                }
                self.read(group.0 * self.filters + index, &mut first)?;
                if !first.contains(&0x80) {
                    continue;
                }
                if index + 1 < group.1.len() {
                    self.read(group.0 * self.filters + index + 1, &mut second)?;
                    if first.iter().zip(&second).any(|(a, b)| *a == 0x80 && (*b as i8) < 0) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Biases and what follows the sum, in the order in which `blocks` reads them. Also returns the requantization of
    /// an int8 layer. `offset` is what the kernel adds to raw inputs (128 for unsigned dot products).
    ///
    /// # Errors
    /// Those of reading the model.
    pub fn bias_parameter(
        &self,
        target: &Target,
        blocks: &[Block],
        inner: Inner,
        accumulator: Accumulator,
        offset: i32,
    ) -> Result<(Parameter, Option<Requantize>)> {
        let bias = self.bias();
        let values: Option<Vec<[u8; 4]>> = bias.map(|bias| words(self.graph.tensor(bias)));
        // Channels in the order of the blocks, rounded up to whole accumulators.
        let accumulators = (0..self.groups).flat_map(|group| {
            let mut channel = group * self.filters;
            let mut all = Vec::new();
            for block in blocks {
                for _ in 0..block.count {
                    for first in (0..block.tile.channels).step_by(inner.lanes()) {
                        let end = (first + inner.lanes()).min(block.filters);
                        all.push(channel + first.min(end)..channel + end);
                    }
                    channel += block.filters;
                }
            }
            all
        });
        let channels = self.groups * blocks.iter().map(|b| b.count * b.tile.channels).sum::<usize>();
        let count = channels.div_ceil(inner.lanes());
        let mut bytes = Vec::with_capacity(4 * count * inner.lanes());
        let layout;
        let requantize = if self.dtype == DType::F32 {
            let zero = 0f32.to_le_bytes();
            for channels in accumulators {
                let missing = inner.lanes() - channels.len();
                bytes.extend(channels.flat_map(|c| values.as_ref().map_or(zero, |values| values[c])));
                bytes.extend(std::iter::repeat_n(zero, missing).flatten());
            }
            layout = Layout::array(&[("channel", count * inner.lanes())], Layout::Scalar(Scalar::F32));
            None
        } else {
            let channels = self.quantized_channels(values.as_deref(), offset)?;
            let (zero_point, range) = self.int8_range()?;
            let requantize = Requantize::new(target, accumulator, &channels, zero_point, range);
            for range in accumulators {
                requantize.entry(&channels[range], inner.lanes(), &mut bytes);
            }
            layout = Layout::array(&[("accumulator", count)], requantize.layout(inner.lanes()));
            Some(requantize)
        };
        let parameter = self.constants_parameter(Contents::Bytes(Bytes::from_vec(bytes)).described(layout));
        Ok((parameter, requantize))
    }

    /// The same for kernels whose sums are scaled by `scales`: the layer's head, then block by block.
    ///
    /// # Errors
    /// Those of reading the model.
    pub fn words_parameter(&self, target: &Target, blocks: &[Block], scales: Scales) -> Result<(Parameter, Words)> {
        let values: Option<Vec<[u8; 4]>> = self.bias().map(|bias| words(self.graph.tensor(bias)));
        let channels = self.quantized_channels(values.as_deref(), 0)?;
        let (zero_point, range) = self.int8_range()?;
        let requantize = Words::new(target, &channels, self.filters, zero_point, range, scales);
        let mut bytes = Vec::new();
        requantize.head(&channels, &mut bytes);
        let mut left = &channels[..];
        for block in (0..self.groups).flat_map(|_| blocks) {
            for _ in 0..block.count {
                let (channels, behind) = left.split_at(block.filters);
                requantize.block(channels, block.tile.channels, zero_point, &mut bytes);
                left = behind;
            }
        }
        Ok((
            self.constants_parameter(Contents::Bytes(Bytes::from_vec(bytes))),
            requantize,
        ))
    }

    /// All channels, and the output's zero point and clamp.
    ///
    /// # Errors
    /// Those of reading the model.
    pub fn channels_and_range(&self) -> Result<(Vec<Channel>, i32, (i32, i32))> {
        let values: Option<Vec<[u8; 4]>> = self.bias().map(|bias| words(self.graph.tensor(bias)));
        let channels = self.quantized_channels(values.as_deref(), 0)?;
        let (zero_point, range) = self.int8_range()?;
        Ok((channels, zero_point, range))
    }

    /// What is beside the weights, named after the bias.
    pub fn constants_parameter(&self, contents: Contents) -> Parameter {
        let filter = self.op().inputs[1];
        let name = match self.bias() {
            Some(bias) => self.graph.tensor(bias).name.clone(),
            None => format!("{}_bias", self.graph.tensor(filter).name),
        };
        Parameter {
            name,
            kind: ParameterKind::Bias,
            tensors: self.bias().into_iter().chain([filter]).collect(),
            align: 16,
            contents,
        }
    }

    /// The least number of equal parts of the sum such that each part lies in −2^20 .. 2^20 for every channel and any
    /// input; `None` if a part would be shorter than 16 elements.
    ///
    /// # Errors
    /// Those of reading the model.
    pub fn lane_parts(&self) -> Result<Option<usize>> {
        let sum = self.weights.sum();
        let most = sum.div_ceil(16).min(256);
        // Every number of parts is judged in one pass over the weights.
        let mut candidates: Vec<usize> = (1..=most).filter(|parts| sum.is_multiple_of(*parts)).collect();
        let mut buffer = Vec::new();
        for channel in 0..self.out_channels() {
            self.read(channel, &mut buffer)?;
            candidates.retain(|parts| {
                buffer.chunks(sum / parts).all(|part| {
                    let magnitude: i64 = part.iter().map(|w| i64::from((*w as i8).unsigned_abs())).sum();
                    magnitude * 128 < 1 << 20
                })
            });
        }
        Ok(candidates.first().copied())
    }

    /// One channel's weights in the order of its sum.
    pub fn read(&self, channel: usize, buffer: &mut Vec<u8>) -> Result<()> {
        self.weights.channel(channel, buffer).map_err(|error| {
            Error::new(crate::error::Code::Io, format!("cannot read the model: {error}")).at(self.op().describe())
        })
    }

    fn quantized_channels(&self, bias: Option<&[[u8; 4]]>, offset: i32) -> Result<Vec<Channel>> {
        let multipliers = requantize::multipliers(self.graph, self.id);
        let mut channels = Vec::with_capacity(multipliers.len());
        let mut buffer = Vec::new();
        for (index, multiplier) in multipliers.into_iter().enumerate() {
            self.read(index, &mut buffer)?;
            let (positive, negative) = magnitudes(&buffer);
            let bias = bias.map_or(0, |bias| i32::from_le_bytes(bias[index]));
            let zero = i64::from(self.zero_point);
            let fold = (zero + i64::from(offset)) * (positive - negative);
            let (least, most) = (i64::from(i8::MIN) - zero, i64::from(i8::MAX) - zero);
            channels.push(Channel {
                // Modulo 2^32, as the accumulator itself.
                bias: (i64::from(bias) - fold) as i32,
                multiplier,
                low: i64::from(bias) + positive * least - negative * most,
                high: i64::from(bias) + positive * most - negative * least,
            });
        }
        Ok(channels)
    }
}

/// Sums of the positive int8 values and of the negative ones' magnitudes: eight bytes at a time in one word, since it goes
/// through all weights of a model and loops that are built for size have no vectors.
fn magnitudes(bytes: &[u8]) -> (i64, i64) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // Bytes next to each other, into lanes of 16 bits, which hold 128 such sums.
    let pairs = |word: u64| (word & 0x00ff_00ff_00ff_00ff) + (word >> 8 & 0x00ff_00ff_00ff_00ff);
    let lanes = |word: u64| (0..4).map(|lane| i64::from((word >> (16 * lane)) as u16)).sum::<i64>();
    let (mut sum, mut magnitude) = (0, 0);
    for block in bytes.chunks(8 * 128) {
        let (words, rest) = block.as_chunks::<8>();
        let (mut sums, mut magnitudes) = (0, 0);
        for word in words {
            let word = u64::from_le_bytes(*word);
            let negative = word >> 7 & EACH;
            sums += pairs(word ^ (EACH << 7));
            magnitudes += pairs((word ^ (negative * 255)) + negative);
        }
        let rest = || rest.iter().map(|byte| i64::from(*byte as i8));
        sum += lanes(sums) - 128 * 8 * words.len() as i64 + rest().sum::<i64>();
        magnitude += lanes(magnitudes) + rest().map(i64::abs).sum::<i64>();
    }
    ((magnitude + sum) / 2, (magnitude - sum) / 2)
}

fn activation(kind: &OpKind) -> Activation {
    match kind {
        OpKind::Conv2d { activation, .. }
        | OpKind::DepthwiseConv2d { activation, .. }
        | OpKind::FullyConnected { activation } => *activation,
        _ => Activation::None,
    }
}

fn words(tensor: &Tensor) -> Vec<[u8; 4]> {
    let bytes = tensor.data.as_ref().map_or(&[][..], Bytes::as_slice);
    bytes
        .chunks_exact(4)
        .map(|word| [word[0], word[1], word[2], word[3]])
        .collect()
}

/// The element type and the filter's bytes of a layer with constant parameters.
fn constants(graph: &Graph, op: &Op) -> Result<(DType, Bytes)> {
    let input = graph.tensor(op.inputs[0]);
    let filter = graph.tensor(op.inputs[1]);
    let output = graph.tensor(op.output());
    supported(graph, op)?;
    let missing = |what: &str, tensor: &Tensor| {
        Error::unsupported(format!(
            "{} with {what} {} that is computed at run time",
            op.kind.name(),
            tensor.describe()
        ))
        .at(op.describe())
        .help("make it a constant of the model")
    };
    if let Some(bias) = op.inputs.get(2).map(|bias| graph.tensor(*bias))
        && bias.data.is_none()
    {
        return Err(missing("a bias", bias));
    }
    debug_assert_eq!(input.dtype, output.dtype);
    let data = filter.data.clone().ok_or_else(|| missing("a filter", filter))?;
    Ok((input.dtype, data))
}

/// Refuses other types than int8 and float32 throughout (biases int32 and float32).
pub(super) fn supported(graph: &Graph, op: &Op) -> Result<()> {
    let dtype = graph.tensor(op.inputs[0]).dtype;
    let wanted = match dtype {
        DType::I8 => [DType::I8, DType::I8, DType::I32],
        _ => [DType::F32; 3],
    };
    let found = op.inputs.iter().map(|id| graph.tensor(*id));
    let output = graph.tensor(op.output());
    match found
        .zip(wanted)
        .chain([(output, wanted[0])])
        .find(|(tensor, wanted)| tensor.dtype != *wanted)
    {
        None => Ok(()),
        Some((tensor, _)) => Err(Error::unsupported(format!(
            "{} on {} (implemented: int8 with int32 bias, float32)",
            op.kind.name(),
            tensor.describe()
        ))
        .at(op.describe())),
    }
}

#[cfg(test)]
mod tests {
    use super::magnitudes;

    #[test]
    fn magnitudes_of_all_lengths() {
        let all: Vec<u8> = (0..3000u32).map(|i| (i * 167 / 4) as u8).collect();
        let worst = [vec![0x80; 2048], vec![0x7f; 2048]].concat();
        let cases = [0, 1, 7, 8, 1023, 1024, 1025, 3000].map(|len| &all[..len]);
        for bytes in cases.into_iter().chain([&worst[..]]) {
            let values = || bytes.iter().map(|byte| i64::from(*byte as i8));
            let positive: i64 = values().filter(|value| *value > 0).sum();
            let negative: i64 = values().filter(|value| *value < 0).sum();
            assert_eq!(magnitudes(bytes), (positive, -negative), "{} bytes", bytes.len());
        }
    }
}
