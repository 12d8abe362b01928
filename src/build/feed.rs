//! An operator in front of a model that copies its input, for inputs that the application gives row by row.

use crate::error::{Code, Error, Result};
use crate::graph::{Graph, Op, OpId, OpKind};

/// The operator that [`insert`] puts first.
pub(super) const OP: OpId = OpId(0);

/// Lets all operators read a copy of the input, which the first operator makes.
///
/// # Errors
/// [`Code::Usage`] if there are several inputs, or one without rows.
pub(super) fn insert(graph: &mut Graph) -> Result<()> {
    let refuse = |message: String| Err(Error::new(Code::Usage, message).help("leave --input rows out"));
    let [input] = graph.inputs[..] else {
        return refuse(format!(
            "--input rows is about one input, and the model has {}",
            graph.inputs.len()
        ));
    };
    let tensor = graph.tensor(input).clone();
    if !matches!(tensor.shape.0[..], [1, rows, _, _] if rows > 1) {
        return refuse(format!(
            "the input {} has no rows: a batch of one, rows, columns and channels",
            tensor.describe()
        ));
    }
    let name = tensor.name.clone();
    let copy = graph.add_tensor(tensor);
    let readers = graph.ops.iter_mut().flat_map(|op| &mut op.inputs);
    readers.filter(|id| **id == input).for_each(|id| *id = copy);
    graph.ops.insert(
        OP.index(),
        Op {
            name,
            source: 0,
            kind: OpKind::Copy,
            inputs: vec![input],
            outputs: vec![copy],
        },
    );
    Ok(())
}
