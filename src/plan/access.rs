//! How often what lies in memory is read and written in a run, exact from the shapes of the layers: each
//! multiply-accumulate reads an element of the input and one of the weights, each position of a window that lies inside
//! reads its element, everything else reads and writes each element once. What a kernel keeps in registers between two
//! of these is not known here: tiles lower all counts of a layer by much the same factor.

use crate::graph::{Graph, Op, OpId, OpKind, TensorId, Window};
use crate::kernels::{Lowering, Operand, ParameterId, ParameterKind};

/// Bytes that a run reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accesses {
    /// Of each tensor of the graph, under that name: a view's are not its source's.
    tensors: Vec<u64>,
    /// What each operator reads of its first input.
    first: Vec<u64>,
    /// Of each parameter.
    parameters: Vec<u64>,
}

impl Accesses {
    /// Counts all layers of a graph. Inputs are written once by the application, outputs read once.
    pub fn new(graph: &Graph, lowering: &Lowering) -> Accesses {
        let mut accesses = Accesses {
            tensors: vec![0; graph.tensors.len()],
            first: vec![0; graph.ops.len()],
            parameters: vec![0; lowering.parameters.len()],
        };
        let size = |id: TensorId| graph.tensor(id).dtype.bytes() as u64;
        let mut add = |id: TensorId, elements: u64| {
            let sum = &mut accesses.tensors[id.index()];
            *sum = sum.saturating_add(elements.saturating_mul(size(id)));
        };
        for id in graph.inputs.iter().chain(&graph.outputs) {
            add(*id, graph.tensor(*id).shape.elements() as u64);
        }
        for (i, op) in graph
            .ops
            .iter()
            .enumerate()
            .filter(|(_, op)| op.kind != OpKind::Reshape)
        {
            for (at, id) in op.inputs.iter().enumerate() {
                add(*id, reads(graph, OpId(i as u32), op, at));
            }
            for id in &op.outputs {
                add(*id, graph.tensor(*id).shape.elements() as u64);
            }
        }
        for (i, op) in graph.ops.iter().enumerate() {
            if let Some(id) = op.inputs.first() {
                accesses.first[i] = reads(graph, OpId(i as u32), op, 0).saturating_mul(size(*id));
            }
        }
        // An operator has its calls whole or by rows: a parameter of both is counted once for each operator.
        let mut seen = std::collections::BTreeSet::new();
        for call in lowering.all_calls() {
            for operand in &call.operands {
                if let Operand::Parameter(id) = operand
                    && seen.insert((call.op, *id))
                {
                    let sum = &mut accesses.parameters[id.0 as usize];
                    *sum = sum.saturating_add(of_parameter(graph, lowering, call.op, *id));
                }
            }
        }
        accesses
    }

    /// Bytes read and written of a tensor with its views.
    pub fn tensors(&self, views: &[TensorId]) -> u64 {
        let all = views.iter().filter_map(|id| self.tensors.get(id.index()));
        all.fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Bytes read of a kernel's scratch: it holds what the kernel reads instead of its input.
    pub fn scratch(&self, op: OpId) -> u64 {
        self.first.get(op.index()).copied().unwrap_or(0)
    }

    /// Bytes read of a parameter.
    pub fn parameter(&self, id: ParameterId) -> u64 {
        self.parameters.get(id.0 as usize).copied().unwrap_or(0)
    }
}

/// Elements that an operator reads of its input `at`.
fn reads(graph: &Graph, id: OpId, op: &Op, at: usize) -> u64 {
    let elements = |id: TensorId| graph.tensor(id).shape.elements() as u64;
    let own = elements(op.inputs[at]);
    let result = op.outputs.first().map_or(0, |id| elements(*id));
    match &op.kind {
        OpKind::Conv2d { window, .. } if at == 0 => {
            let outputs = graph.tensor(op.output()).shape.nhwc();
            // Channels of the result, times those of a group.
            let filter = &graph.tensor(op.inputs[1]).shape;
            inside(graph, op, window) * (outputs[3] * filter.last(0)) as u64
        }
        OpKind::DepthwiseConv2d { window, .. } | OpKind::Pool2d { window, .. } if at == 0 => {
            inside(graph, op, window) * graph.tensor(op.output()).shape.nhwc()[3] as u64
        }
        OpKind::Conv2d { .. } | OpKind::DepthwiseConv2d { .. } | OpKind::FullyConnected { .. } => match at {
            0 | 1 => graph.macs(id),
            _ => result,
        },
        // Broadcast elements are read again; a table is read for every element.
        OpKind::Binary { .. } | OpKind::Lookup => result,
        _ => own,
    }
}

/// Positions of a window that lie inside the input, over all batches, rows and columns of the result.
fn inside(graph: &Graph, op: &Op, window: &Window) -> u64 {
    let (input, output) = (
        graph.tensor(op.inputs[0]).shape.nhwc(),
        graph.tensor(op.output()).shape.nhwc(),
    );
    let before = [window.padding.top, window.padding.left];
    // For each tap the results at which it lies inside: from the first to the last.
    let along = |axis: usize| -> u64 {
        let stride = window.stride[axis].max(1);
        let taps = (0..window.size[axis]).map(|tap| {
            let reach = tap * window.dilation[axis];
            let first = before[axis].saturating_sub(reach).div_ceil(stride);
            let end = (before[axis] + input[1 + axis]).saturating_sub(reach).div_ceil(stride);
            end.min(output[1 + axis]).saturating_sub(first) as u64
        });
        taps.sum()
    };
    output[0] as u64 * along(0) * along(1)
}

/// Bytes that an operator reads of a parameter: what it reads of the tensors that the parameter was made from, an element
/// of the parameter for each of theirs; of what is made from none, all of it once.
fn of_parameter(graph: &Graph, lowering: &Lowering, op: OpId, id: ParameterId) -> u64 {
    let parameter = lowering.parameter(id);
    let bytes = parameter.contents.len();
    let of = graph.op(op);
    let result = of
        .outputs
        .first()
        .map_or(0, |id| graph.tensor(*id).shape.elements() as u64);
    let result = result.saturating_mul(
        of.outputs
            .first()
            .map_or(1, |id| graph.tensor(*id).dtype.bytes() as u64),
    );
    match parameter.kind {
        ParameterKind::Weights => {
            let elements = parameter
                .tensors
                .iter()
                .map(|id| graph.tensor(*id).shape.elements() as u64);
            let elements: u64 = elements.sum();
            let all = u128::from(graph.macs(op)) * u128::from(bytes) / u128::from(elements.max(1));
            u64::try_from(all).unwrap_or(u64::MAX).max(bytes)
        }
        // An entry of some bytes for each channel, read for every element of that channel.
        ParameterKind::Bias => {
            let channels = of
                .outputs
                .first()
                .map_or(1, |id| graph.tensor(*id).shape.last(0) as u64);
            result / channels.max(1) * bytes
        }
        ParameterKind::Table => result.max(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::text;

    fn counted(graph: &str) -> Vec<u64> {
        let graph = text::parse(graph).unwrap();
        Accesses::new(&graph, &Lowering::default()).tensors
    }

    /// A window of 3 over 4 with padding of 1: 2 + 3 + 3 + 2 positions lie inside, along both axes.
    #[test]
    fn windows_read_what_lies_inside() {
        let tensors = counted(
            "input %0 : float32[1,4,4,2]\n%1 : float32[1,4,4,2] = max_pool2d(%0) window=3x3 pad=1,1,1,1\noutput %1",
        );
        assert_eq!(tensors, [4 * (32 + 10 * 10 * 2), 4 * (32 + 32)]);
    }

    #[test]
    fn each_product_reads_an_element_of_both() {
        let tensors = counted(
            "input %0 : int8[1,3]\nconst %1 : int8[2,3] = [1, 2, 3, 4, 5, 6]\n\
             %2 : int8[1,2] = fully_connected(%0, %1)\n%3 : int8[2,1] = reshape(%2)\n%4 : int8[2,1] = copy(%3)\noutput %4",
        );
        // A view is read under its own name.
        assert_eq!(tensors, [3 + 6, 6, 2, 2, 2 + 2]);
    }
}
