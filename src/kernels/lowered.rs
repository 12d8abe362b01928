//! What lowering one operator gives, before the dispatcher merges equal kernels and equal parameters.

use super::emit::Built;
use super::{Operand, Overlap, Parameter, ParameterId, Scratch};
use crate::graph::TensorId;

/// One operator as a kernel and what its pointers point at.
pub struct Lowered {
    /// The kernel: pointers only, one for each of `operands`, in their order.
    pub built: Built,
    /// The kernel's shape, the first part of its name: `conv2d`, `depthwise`, `dense`.
    pub stem: &'static str,
    /// Which schedule was chosen, for `inspect`: `pairs16 2px x 16ch`.
    pub schedule: String,
    /// One for each pointer of the kernel.
    pub operands: Vec<LoweredOperand>,
    /// Scratch, if an operand asks for it.
    pub scratch: Option<Scratch>,
    /// Inputs that the output may overlap.
    pub overlaps: Vec<Overlap>,
}

impl Lowered {
    /// The output may overlap `input`.
    pub fn overlapping(mut self, input: TensorId, gap: u64, modulus: u64) -> Self {
        self.overlaps.push(Overlap { input, gap, modulus });
        self
    }
}

/// What lowering gives for an operator whose kernel is known.
pub struct Operands {
    /// As [`Lowered::operands`].
    pub operands: Vec<LoweredOperand>,
    /// As [`Lowered::scratch`].
    pub scratch: Option<Scratch>,
    /// As [`Lowered::overlaps`].
    pub overlaps: Vec<Overlap>,
}

/// What a kernel's pointer points at, parameters by value.
#[derive(Clone, Debug)]
pub enum LoweredOperand {
    /// An activation, or a constant of the graph that is read as it is.
    Tensor(TensorId),
    /// A constant in a layout of the kernel's own.
    Parameter(Parameter),
    /// The call's scratch.
    Scratch,
    /// The row of an activation that the step is about.
    Row(TensorId),
    /// A table of pointers to the rows of an activation that a window sees.
    Window(TensorId),
    /// What is kept from step to step.
    State,
}

impl LoweredOperand {
    /// The operand of a call, for which `parameter` gives a parameter its place among all.
    pub(super) fn placed(self, parameter: impl FnOnce(Parameter) -> ParameterId) -> Operand {
        match self {
            LoweredOperand::Tensor(id) => Operand::Tensor(id),
            LoweredOperand::Parameter(contents) => Operand::Parameter(parameter(contents)),
            LoweredOperand::Scratch => Operand::Scratch,
            LoweredOperand::Row(id) => Operand::Row(id),
            LoweredOperand::Window(id) => Operand::Window(id),
            LoweredOperand::State => Operand::State,
        }
    }
}
