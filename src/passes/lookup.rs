//! Turns elementwise int8 operators with one operand into tables: `out[i] = table[in[i] + 128]`.
//!
//! Taken are int8 activation functions, requantizations int8 → int8, and chains dequantize → float32 functions →
//! quantize. The table is what the evaluator makes of all 256 values. A table of a table is one table; a table that
//! changes nothing is a view.

use super::edit::{Rewriter, rewrite};
use crate::data::Bytes;
use crate::error::{Error, Result};
use crate::graph::evaluate::{Arithmetic, evaluate_op};
use crate::graph::{DType, Graph, Op, OpId, OpKind, Shape, Tensor, TensorId};

/// Longest chain of operators that is taken. Longer ones do not occur; every one of them could end in a table.
const LONGEST: usize = 64;

pub(super) fn run(graph: &mut Graph, arithmetic: Arithmetic) -> Result<()> {
    rewrite(graph, |rewriter, id| {
        let Some((chain, mut source)) = chain(rewriter, id) else {
            return Ok(());
        };
        let mut table = tabulate(rewriter.graph, &chain, arithmetic)?;
        if let Some((first, before)) = looked_up(rewriter, source) {
            table = first.iter().map(|q| table[usize::from(q ^ 0x80)]).collect();
            source = before;
        }
        let (from, to) = (
            rewriter.graph.tensor(source),
            rewriter.graph.tensor(rewriter.graph.op(id).output()),
        );
        if table.iter().enumerate().all(|(i, q)| usize::from(q ^ 0x80) == i) {
            if from.quantization == to.quantization {
                rewriter.forward(id, source);
            } else {
                rewriter.replace(id, OpKind::Reshape, vec![source]);
            }
            return Ok(());
        }
        let table = Tensor {
            name: format!("{}/table", to.name),
            dtype: DType::I8,
            shape: Shape(vec![256]),
            quantization: None,
            data: Some(Bytes::from_vec(table)),
        };
        let table = rewriter.add_constant(table);
        rewriter.replace(id, OpKind::Lookup, vec![source, table]);
        Ok(())
    })
}

/// The elementwise operators, in order, that lead from an int8 tensor to the int8 result of operator `id`, and that
/// tensor.
fn chain(rewriter: &Rewriter, id: OpId) -> Option<(Vec<OpId>, TensorId)> {
    let is = |id: TensorId, dtype| rewriter.graph.tensor(id).dtype == dtype;
    let op = rewriter.graph.op(id);
    let elementwise = matches!(op.kind, OpKind::Unary { .. } | OpKind::Quantize);
    if !elementwise || !is(op.output(), DType::I8) {
        return None;
    }
    let mut chain = vec![id];
    let mut input = op.inputs[0];
    while is(input, DType::F32) && chain.len() < LONGEST {
        let before = rewriter.producers[input.index()]?;
        let op = rewriter.graph.op(before);
        if !matches!(op.kind, OpKind::Unary { .. } | OpKind::Dequantize) {
            return None;
        }
        chain.push(before);
        input = op.inputs[0];
    }
    chain.reverse();
    is(input, DType::I8).then_some((chain, input))
}

/// The results of a chain for −128 to 127.
fn tabulate(graph: &Graph, chain: &[OpId], arithmetic: Arithmetic) -> Result<Vec<u8>> {
    let mut bytes: Vec<u8> = (i8::MIN..=i8::MAX).map(|q| q as u8).collect();
    for id in chain {
        let op = graph.op(*id);
        // The operator on 256 elements.
        let tensor = |id: TensorId| Tensor {
            shape: Shape(vec![256]),
            data: None,
            ..graph.tensor(id).clone()
        };
        let alone = Graph {
            tensors: vec![tensor(op.inputs[0]), tensor(op.output())],
            ..Graph::default()
        };
        let op = Op {
            inputs: vec![TensorId(0)],
            outputs: vec![TensorId(1)],
            ..op.clone()
        };
        let results = evaluate_op(&alone, &op, &[&bytes], arithmetic)?;
        bytes = results.into_iter().next().unwrap_or_default();
    }
    if bytes.len() != 256 {
        return Err(Error::internal(format!("a table of {} bytes", bytes.len())));
    }
    Ok(bytes)
}

/// The table and the operand behind `id`, if an operator looks it up.
fn looked_up(rewriter: &Rewriter, id: TensorId) -> Option<(Vec<u8>, TensorId)> {
    let op = rewriter.producer(id).filter(|op| op.kind == OpKind::Lookup)?;
    let table = rewriter.graph.tensor(op.inputs[1]).data.as_ref()?;
    Some((table.as_slice().to_vec(), op.inputs[0]))
}
