//! The multiply-accumulate layers: convolution, depthwise convolution, dense; int8 and float32.
//!
//! A [`Layer`](layer::Layer) is what the three have in common. Dense layers and 1x1 convolutions are convolutions over
//! one row of positions; a depthwise convolution of one input channel is a convolution with that channel's window as
//! its sum. [`conv`] and [`depthwise`] turn a layer and a schedule into a kernel, [`pack`] orders the weights as the
//! kernel reads them, [`stage`] copies input rows with their borders to scratch where the kernel cannot read them in
//! place.
//!
//! The sum of an int8 layer runs over raw inputs: Σ w (x − zp) = Σ w x − zp Σ w, and the last term is in the bias.
//! Positions outside the input hold the zero point.

mod columns;
mod conv;
mod cut;
mod depthwise;
mod dynamic;
mod groups;
mod halves;
mod lanes;
mod lanes16;
mod layer;
#[cfg(test)]
mod many;
#[cfg(test)]
mod measure;
mod pack;
mod packed;
mod planes;
mod quads;
mod rows21;
mod smlad;
mod stage;
mod strips;
mod table;
#[cfg(test)]
mod tests;
mod tiles;
mod transpose;
mod words;

pub use cut::Cut;

use super::Parameter;
use super::lowered::{Lowered, Operands};
use crate::error::Result;
use crate::graph::{DType, Graph, OpId, OpKind};
use crate::target::Target;
use lanes16::Lanes16;
use layer::Layer;

/// Lowers a [`Conv2d`](crate::graph::OpKind::Conv2d).
///
/// # Errors
/// [`Code::Unsupported`](crate::error::Code::Unsupported) for other types than int8 and float32 and for a filter that
/// is not a constant.
pub fn conv2d(graph: &Graph, op: OpId, target: &Target) -> Result<Lowered> {
    let layer = Layer::convolution(graph, op)?;
    if layer.depth == 1 && layer.groups > 1 {
        return depthwise::lower(&layer, target, "depthwise");
    }
    conv::lower(&layer, target, "conv2d")
}

/// Cuts a layer into pieces of at most `most` bytes of parameters. `None` if it is none that can be cut.
///
/// # Errors
/// As those that lower whole layers, and [`Code::Limit`](crate::error::Code::Limit) if there are no pieces so small.
pub fn cut(graph: &Graph, op: OpId, target: &Target, most: u64) -> Result<Option<Cut>> {
    match graph.op(op).kind {
        OpKind::Conv2d { .. } => {
            let layer = Layer::convolution(graph, op)?;
            match layer.depth == 1 && layer.groups > 1 {
                true => cut::depthwise(&layer, target, most),
                false => cut::dense(&layer, target, "conv2d", most),
            }
        }
        OpKind::DepthwiseConv2d { .. } => {
            let layer = Layer::depthwise(graph, op)?;
            match layer.groups == 1 {
                true => cut::dense(&layer, target, "depthwise", most),
                false => cut::depthwise(&layer, target, most),
            }
        }
        OpKind::FullyConnected { .. } if !is_dynamic(graph, op) => {
            cut::dense(&Layer::dense(graph, op)?, target, "dense", most)
        }
        _ => Ok(None),
    }
}

/// Lowers a [`DepthwiseConv2d`](crate::graph::OpKind::DepthwiseConv2d).
///
/// # Errors
/// [`Code::Unsupported`](crate::error::Code::Unsupported) for other types than int8 and float32 and for a filter that
/// is not a constant.
pub fn depthwise_conv2d(graph: &Graph, op: OpId, target: &Target) -> Result<Lowered> {
    let layer = Layer::depthwise(graph, op)?;
    if layer.groups == 1 {
        return conv::lower(&layer, target, "depthwise");
    }
    depthwise::lower(&layer, target, "depthwise")
}

/// One row of a convolution from the rows of a window, which the first operand is a table of pointers to. Padding is to
/// the sides only; `outside` is a row of what lies there.
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_rows(graph: &Graph, op: OpId, target: &Target, outside: Option<&Parameter>) -> Result<Lowered> {
    let layer = Layer::convolution(graph, op)?.through_table(outside, target);
    if layer.depth == 1 && layer.groups > 1 {
        return depthwise::lower(&layer, target, "depthwise_row");
    }
    conv::lower(&layer, target, "conv2d_row")
}

/// The same for a depthwise convolution.
///
/// # Errors
/// As [`depthwise_conv2d`].
pub fn depthwise_rows(graph: &Graph, op: OpId, target: &Target, outside: Option<&Parameter>) -> Result<Lowered> {
    let layer = Layer::depthwise(graph, op)?.through_table(outside, target);
    if layer.groups == 1 {
        return conv::lower(&layer, target, "depthwise_row");
    }
    depthwise::lower(&layer, target, "depthwise_row")
}

/// Whether [`fully_connected_lean`] needs no scratch where [`fully_connected`] does.
pub fn has_lean_form(graph: &Graph, op: OpId, target: &Target) -> bool {
    let [input, weights, ..] = graph.op(op).inputs[..] else {
        return false;
    };
    let dense = matches!(graph.op(op).kind, OpKind::FullyConnected { .. });
    let (input, weights) = (graph.tensor(input), graph.tensor(weights));
    // 64-bit machines have room for scratch.
    let machine = target.machine();
    let lean = machine.dsp || machine.integer_bytes == 4 && Lanes16::possible(target);
    dense && lean && input.dtype == DType::I8 && weights.data.is_some()
}

/// Lowers a [`FullyConnected`](crate::graph::OpKind::FullyConnected) to a kernel that takes a few instructions more and
/// no scratch, where there is one.
///
/// # Errors
/// As [`fully_connected`].
pub fn fully_connected_lean(graph: &Graph, op: OpId, target: &Target) -> Result<Lowered> {
    if is_dynamic(graph, op) {
        return dynamic::lower(graph, op, target);
    }
    let mut layer = Layer::dense(graph, op)?;
    layer.lean = true;
    conv::lower(&layer, target, "dense_lean")
}

/// Lowers a [`FullyConnected`](crate::graph::OpKind::FullyConnected), its weights constant or not.
///
/// # Errors
/// [`Code::Unsupported`](crate::error::Code::Unsupported) for other types than int8 and float32.
pub fn fully_connected(graph: &Graph, op: OpId, target: &Target) -> Result<Lowered> {
    if is_dynamic(graph, op) {
        return dynamic::lower(graph, op, target);
    }
    conv::lower(&Layer::dense(graph, op)?, target, "dense")
}

/// Whether a layer's kernel is the same whatever its constants hold, and [`operands`] gives what its pointers point at:
/// float layers but depthwise ones.
pub fn by_shape(graph: &Graph, op: OpId) -> bool {
    let (kind, inputs) = (&graph.op(op).kind, &graph.op(op).inputs);
    let whole = match kind {
        OpKind::Conv2d { .. } => graph.tensor(inputs[1]).shape.last(0) > 1,
        OpKind::FullyConnected { .. } => !is_dynamic(graph, op),
        _ => false,
    };
    whole && inputs.iter().all(|id| graph.tensor(*id).dtype == DType::F32)
}

/// What lowering a layer [by shape](by_shape) gives beside its kernel.
///
/// # Errors
/// As those that lower whole layers.
pub fn operands(graph: &Graph, op: OpId, target: &Target) -> Result<Operands> {
    let layer = match graph.op(op).kind {
        OpKind::Conv2d { .. } => Layer::convolution(graph, op)?,
        _ => Layer::dense(graph, op)?,
    };
    conv::operands(&layer, target)
}

/// Whether the weights are not constant, or have zero points.
fn is_dynamic(graph: &Graph, op: OpId) -> bool {
    let weights = graph.tensor(graph.op(op).inputs[1]);
    let zeros = weights.quantization.as_ref().map(|q| q.zero_point.as_slice());
    weights.data.is_none() || zeros.is_some_and(|zeros| zeros.iter().any(|zero| *zero != 0))
}
