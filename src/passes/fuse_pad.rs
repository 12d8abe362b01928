//! Lets convolutions read the padding in front of them: PAD disappears into the window.
//!
//! A window's padding contributes nothing, PAD's elements contribute value × weight. That is the same
//! - for int8, where the value is the zero point and PAD keeps the quantization;
//! - for float32, where the value is zero, the weights are finite (0 × ∞ is a NaN), and zeros that are added cannot
//!   show: a sum starts from +0, so it stays as it is unless it is −0. It becomes −0 only by a fused multiply-add
//!   whose product underflows, and the bias that is added to it, or +0, hides that unless it is −0 itself.

use super::edit::{Uses, remove_ops};
use crate::data::{Bytes, CHUNK};
use crate::error::{Error, Result};
use crate::graph::evaluate::Arithmetic;
use crate::graph::{DType, Graph, Op, OpId, OpKind, Padding, Window};

pub(super) fn run(graph: &mut Graph, arithmetic: Arithmetic) -> Result<()> {
    let uses = Uses::new(graph);
    let mut absorbed = vec![false; graph.ops.len()];
    for id in graph.op_ids() {
        let pad = graph.op(id);
        let Some(amounts) = zero_padding(graph, pad) else {
            continue;
        };
        let (input, result) = (pad.inputs[0], pad.output());
        let readers = &uses.readers[result.index()];
        let mut all = !uses.outputs[result.index()] && !readers.is_empty();
        for reader in readers {
            all = all && takes(graph, graph.op(*reader), id, amounts, arithmetic)?;
        }
        if !all {
            continue;
        }
        for reader in readers {
            let op = &mut graph.ops[reader.index()];
            op.inputs[0] = input;
            if let OpKind::Conv2d { window, .. } | OpKind::DepthwiseConv2d { window, .. } = &mut op.kind {
                window.padding = sum(window, amounts);
            }
        }
        absorbed[id.index()] = true;
    }
    remove_ops(graph, &absorbed);
    Ok(())
}

/// The padding of rows and columns, if nothing else is padded and the value is zero.
fn zero_padding(graph: &Graph, op: &Op) -> Option<Padding> {
    let OpKind::Pad { amounts, value } = &op.kind else {
        return None;
    };
    let &[[0, 0], [top, bottom], [left, right], [0, 0]] = &amounts[..] else {
        return None;
    };
    let (input, output) = (graph.tensor(op.inputs[0]), graph.tensor(op.output()));
    let zero = match output.dtype {
        DType::I8 => i32::from(*value as i8) == input.affine().1 && input.quantization == output.quantization,
        DType::F32 => f32::from_bits(*value as u32) == 0.0,
        _ => false,
    };
    zero.then_some(Padding {
        top,
        bottom,
        left,
        right,
    })
}

/// Whether `op` can take over the padding of PAD `pad`.
fn takes(graph: &Graph, op: &Op, pad: OpId, amounts: Padding, arithmetic: Arithmetic) -> Result<bool> {
    let (OpKind::Conv2d { window, .. } | OpKind::DepthwiseConv2d { window, .. }) = &op.kind else {
        return Ok(false);
    };
    // Windows that lie wholly in the padding would be work for nothing: such models do not occur.
    let Padding {
        top,
        bottom,
        left,
        right,
    } = sum(window, amounts);
    let extent = [0, 1].map(|i| (window.size[i] - 1) * window.dilation[i] + 1);
    let as_data = op.inputs[0] == graph.op(pad).output() && !op.inputs[1..].contains(&op.inputs[0]);
    if !as_data || top.max(bottom) >= extent[0] || left.max(right) >= extent[1] {
        return Ok(false);
    }
    if graph.tensor(op.inputs[0]).dtype == DType::I8 {
        return Ok(true);
    }
    let constant = |i: usize| op.inputs.get(i).map(|id| graph.tensor(*id).data.as_ref());
    let finite = match constant(1) {
        Some(Some(weights)) => all(weights, f32::is_finite)?,
        _ => false,
    };
    let bias = match constant(2) {
        Some(Some(bias)) if arithmetic.fused_multiply_add => all(bias, |x| x.to_bits() != (-0f32).to_bits())?,
        Some(None) => false,
        _ => true,
    };
    Ok(finite && bias)
}

fn sum(window: &Window, more: Padding) -> Padding {
    let Padding {
        top,
        bottom,
        left,
        right,
    } = window.padding;
    Padding {
        top: top + more.top,
        bottom: bottom + more.bottom,
        left: left + more.left,
        right: right + more.right,
    }
}

/// Whether `holds` for every float of a constant, which is streamed.
fn all(data: &Bytes, holds: impl Fn(f32) -> bool) -> Result<bool> {
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < data.len() {
        let n = (data.len() - done).min(CHUNK as u64) as usize;
        let read = data.read_at(done, &mut buffer[..n]);
        read.map_err(|error| Error::io("read weights of", "the model".as_ref(), &error))?;
        let (floats, _) = buffer[..n].as_chunks();
        if !floats.iter().all(|bytes| holds(f32::from_le_bytes(*bytes))) {
            return Ok(false);
        }
        done += n as u64;
    }
    Ok(true)
}
