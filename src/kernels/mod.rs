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
pub mod overlap;
pub mod pool;
mod pool_dsp;
pub mod pool_rows;
pub mod pool_runtime;
pub mod quantize;
pub mod reduce;
pub mod requantize;
pub mod rows;
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
    /// How its operands lie, for `inspect`, where it is a multiply-accumulate layer's.
    pub layouts: Option<schedule::Layouts>,
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
    /// The row of an activation that the step is about.
    Row(TensorId),
    /// A table of pointers to the rows of an activation that a window sees.
    Window(TensorId),
    /// What is kept from step to step.
    State,
}

/// Bytes that a call needs while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scratch {
    /// Size in bytes.
    pub size: u64,
    /// Alignment in bytes, a power of two.
    pub align: u64,
}

/// How far a call's output may reach into an input that nothing else needs: its kernel reads and writes in rising
/// order, and what it has read for the last time may be overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Overlap {
    /// The input.
    pub input: TensorId,
    /// The output may begin this many bytes below the input, or more.
    pub gap: u64,
    /// If they have bytes in common, the distance is a multiple of this.
    pub modulus: u64,
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
    /// The kernel; `None` for an external function, which the operator describes.
    pub kernel: Option<KernelId>,
    /// One for each pointer of the kernel; for an external function its operands, results and workspace.
    pub operands: Vec<Operand>,
    /// Scratch, if an operand asks for it.
    pub scratch: Option<Scratch>,
    /// Instead of one call of `kernel`, calls that each read a piece of the parameters; empty where there is one.
    pub launches: Vec<Launch>,
    /// Inputs that the output may overlap.
    pub overlaps: Vec<Overlap>,
    /// If it makes the result in several steps, which, and how.
    pub rows: Option<RowCall>,
}

/// A call that is made for many rows. An operator has one such call, or several for different steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowCall {
    /// The steps it makes.
    pub steps: rows::Steps,
    /// Steps of the operator in all.
    pub count: u32,
    /// The windows of the rows of the result.
    pub taps: Option<rows::Taps>,
    /// The row that stands for rows outside the input.
    pub outside: Option<ParameterId>,
    /// What is kept from step to step.
    pub state: Option<Scratch>,
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
    /// The only launch of a call that is not cut into pieces; `None` for an external function.
    pub fn whole(call: &Call) -> Option<Self> {
        Some(Launch {
            kernel: call.kernel?,
            count: 1,
            start: 0,
            piece: 0,
            bytes: 0,
            offsets: vec![(0, 0); call.operands.len()],
        })
    }
}

/// All kernels of a graph. Operators that are views have no call.
#[derive(Clone, Debug, Default)]
pub struct Lowering {
    /// Distinct kernels.
    pub kernels: Vec<Kernel>,
    /// Distinct parameters.
    pub parameters: Vec<Parameter>,
    /// One for each operator but views, in the graph's order; after planning, those of operators that run as a whole.
    pub calls: Vec<Call>,
    /// Calls that make results in several steps, in the graph's order; after planning, those of operators that do.
    pub row_calls: Vec<Call>,
    /// Other calls for operators that run as a whole, before planning.
    pub alternatives: Vec<(Form, Call)>,
    /// The operator that copies the model's input from where the application's callback has it.
    pub feed: Option<OpId>,
    /// Tapes and tables of a plan with rows.
    pub streams: entry::stream::Streams,
}

/// What an alternative is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// The fewest instructions, whatever else they take.
    Speed,
    /// Few instructions, whatever bytes of code they take.
    Long,
    /// No scratch.
    Lean,
}

impl Lowering {
    /// The call of an operator in a form, if that is another one.
    pub fn alternative(&self, op: OpId, form: Form) -> Option<&Call> {
        let mut all = self.alternatives.iter();
        all.find(|(of, call)| *of == form && call.op == op)
            .map(|(_, call)| call)
    }

    /// The kernel.
    pub fn kernel(&self, id: KernelId) -> &Kernel {
        &self.kernels[id.0 as usize]
    }

    /// The parameter.
    pub fn parameter(&self, id: ParameterId) -> &Parameter {
        &self.parameters[id.0 as usize]
    }

    /// All calls of both kinds.
    pub fn all_calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().chain(&self.row_calls)
    }

    /// Drops the calls of the other kind than `by_rows` says for each operator, and kernels and parameters that nothing
    /// uses then.
    pub fn choose(&mut self, by_rows: impl Fn(OpId) -> bool) {
        self.alternatives.clear();
        self.calls.retain(|call| !by_rows(call.op));
        self.row_calls.retain(|call| by_rows(call.op));
        let mut kernels = vec![None; self.kernels.len()];
        let mut parameters = vec![None; self.parameters.len()];
        for call in self.calls.iter().chain(&self.row_calls) {
            for kernel in call.launches.iter().map(|launch| launch.kernel).chain(call.kernel) {
                kernels[kernel.0 as usize] = Some(KernelId(0));
            }
            let outside = call.rows.and_then(|rows| rows.outside);
            let read = call.operands.iter().filter_map(|operand| match operand {
                Operand::Parameter(id) => Some(*id),
                _ => None,
            });
            read.chain(outside)
                .for_each(|id| parameters[id.0 as usize] = Some(ParameterId(0)));
        }
        for (kept, id) in (0..).zip(kernels.iter_mut().flatten()) {
            *id = KernelId(kept);
        }
        for (kept, id) in (0..).zip(parameters.iter_mut().flatten()) {
            *id = ParameterId(kept);
        }
        let mut at = 0;
        self.kernels.retain(|_| {
            at += 1;
            kernels[at - 1].is_some()
        });
        at = 0;
        self.parameters.retain(|_| {
            at += 1;
            parameters[at - 1].is_some()
        });
        let parameter = |id: ParameterId| parameters[id.0 as usize].unwrap_or(id);
        for call in self.calls.iter_mut().chain(&mut self.row_calls) {
            let kernel = |id: KernelId| kernels[id.0 as usize].unwrap_or(id);
            call.kernel = call.kernel.map(kernel);
            call.launches
                .iter_mut()
                .for_each(|launch| launch.kernel = kernel(launch.kernel));
            if let Some(rows) = &mut call.rows {
                rows.outside = rows.outside.map(parameter);
            }
            for operand in &mut call.operands {
                if let Operand::Parameter(id) = operand {
                    *id = parameter(*id);
                }
            }
        }
    }
}
