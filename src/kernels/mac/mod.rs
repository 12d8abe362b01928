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

mod conv;
mod depthwise;
mod dynamic;
mod halves;
mod lanes;
mod lanes16;
mod layer;
#[cfg(test)]
mod measure;
mod pack;
mod stage;
mod strips;
#[cfg(test)]
mod tests;
mod transpose;

use super::lowered::Lowered;
use crate::error::Result;
use crate::graph::{Graph, OpId};
use crate::target::Target;
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

/// Lowers a [`FullyConnected`](crate::graph::OpKind::FullyConnected), its weights constant or not.
///
/// # Errors
/// [`Code::Unsupported`](crate::error::Code::Unsupported) for other types than int8 and float32.
pub fn fully_connected(graph: &Graph, op: OpId, target: &Target) -> Result<Lowered> {
    let weights = graph.tensor(graph.op(op).inputs[1]);
    let offset = weights
        .quantization
        .as_ref()
        .is_some_and(|q| q.zero_point.iter().any(|zero| *zero != 0));
    if weights.data.is_none() || offset {
        return dynamic::lower(graph, op, target);
    }
    conv::lower(&Layer::dense(graph, op)?, target, "dense")
}
