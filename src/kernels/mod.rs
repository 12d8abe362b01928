//! Operators → kernels in CLIF, and the order of bytes in which each kernel reads its parameters.
//!
//! A kernel is a function of pointers only: its inputs, its output, its parameters, its scratch. Shapes, strides,
//! clamps and zero points are constants in its code; it refers to no symbol. So equal layers share one kernel, and
//! [`entry`](mod@entry) alone decides what the pointers are.

pub mod affine;
mod alike;
pub mod average;
pub mod binary;
pub mod binary_form;
pub mod binary_int8;
#[cfg(test)]
pub mod checks;
pub mod copy;
pub mod emit;
pub mod entry;
pub mod lanes;
pub mod lookup;
pub mod lower;
pub mod lowered;
pub mod mac;
pub mod math;
pub mod pool;
pub mod pool_runtime;
pub mod quantize;
pub mod reduce;
pub mod requantize;
pub mod schedule;
pub mod softmax;
mod span;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod threshold;
pub mod unary;
pub mod vector;

use crate::data::Contents;
use crate::graph::{OpId, TensorId};
use cranelift_codegen::ir::{Block, Function};

/// Index of a kernel in [`Lowering::kernels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelId(pub u32);

/// Index of a parameter in [`Lowering::parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParameterId(pub u32);

/// A kernel: `void kernel(void *argument...)`, one pointer for each [`Operand`] of the calls.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Unique identifier-like name, made of the kernel's shape and the first operator that uses it: `conv2d_3`.
    pub name: String,
    /// The body. Its signature has pointer parameters only, in the target's default calling convention.
    pub function: Function,
    /// Executions of each block in one call, for instruction counts.
    pub executions: Vec<(Block, u64)>,
    /// Which schedule was chosen, for `inspect`: `pairs16 4px x 8ch`.
    pub schedule: String,
}

/// What a kernel's pointer points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// An activation, or a constant of the graph that is read as it is.
    Tensor(TensorId),
    /// A parameter in a layout of the kernel's own.
    Parameter(ParameterId),
    /// The call's scratch.
    Scratch,
}

/// Bytes that a call needs while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scratch {
    /// Size in bytes.
    pub size: u64,
    /// Alignment in bytes, a power of two.
    pub align: u64,
}

/// What a parameter is, for placement and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// Filter or matrix.
    Weights,
    /// Biases with folded zero points and the requantization constants beside them.
    Bias,
    /// Lookup table.
    Table,
}

/// A constant in the layout in which a kernel reads it, or a constant of the graph as it is.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Name made from the model's tensor: unique, not yet an identifier.
    pub name: String,
    /// What it is.
    pub kind: ParameterKind,
    /// The constants of the graph it was made from.
    pub tensors: Vec<TensorId>,
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// The bytes, streamed.
    pub contents: Contents,
}

/// One call of a kernel, for one operator.
#[derive(Clone, Debug)]
pub struct Call {
    /// The operator.
    pub op: OpId,
    /// The kernel.
    pub kernel: KernelId,
    /// One for each pointer of the kernel.
    pub operands: Vec<Operand>,
    /// Scratch, if an operand asks for it.
    pub scratch: Option<Scratch>,
    /// Instead of one call of `kernel`, calls that each read a piece of the parameters; empty where there is one.
    pub launches: Vec<Launch>,
}

/// Calls of a kernel, one after the other, that read equal pieces of a layer's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel.
    pub kernel: KernelId,
    /// How many pieces.
    pub count: u64,
    /// Where the first piece begins in the parameter.
    pub start: u64,
    /// From one piece to the next.
    pub piece: u64,
    /// Bytes of a piece that the kernel reads.
    pub bytes: u64,
    /// For each operand, how far behind its beginning the first call's pointer is, and how far the pointer moves from
    /// one call to the next. For parameters, the first counts from the beginning of a piece.
    pub offsets: Vec<(u64, u64)>,
}

impl Launch {
    /// The only launch of a call that is not cut into pieces.
    pub fn whole(call: &Call) -> Self {
        Launch {
            kernel: call.kernel,
            count: 1,
            start: 0,
            piece: 0,
            bytes: 0,
            offsets: vec![(0, 0); call.operands.len()],
        }
    }
}

/// All kernels of a graph. Operators that are views have no call.
#[derive(Clone, Debug, Default)]
pub struct Lowering {
    /// Distinct kernels.
    pub kernels: Vec<Kernel>,
    /// Distinct parameters.
    pub parameters: Vec<Parameter>,
    /// One for each operator but views, in the graph's order.
    pub calls: Vec<Call>,
}

impl Lowering {
    /// The kernel.
    pub fn kernel(&self, id: KernelId) -> &Kernel {
        &self.kernels[id.0 as usize]
    }

    /// The parameter.
    pub fn parameter(&self, id: ParameterId) -> &Parameter {
        &self.parameters[id.0 as usize]
    }
}
