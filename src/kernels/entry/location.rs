//! What the code of the functions is for, for debug information.

use crate::graph::OpId;
use cranelift_codegen::ir::SourceLoc;

/// What a piece of the entry point is for: the source locations of its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Reading and checking the arguments.
    Checks,
    /// Returning success.
    Return,
    /// The call for an operator.
    Op(OpId),
}

impl Location {
    /// As the CLIF carries it.
    pub fn source(self) -> SourceLoc {
        SourceLoc::new(match self {
            Location::Checks => 0,
            Location::Return => 1,
            Location::Op(op) => op.0 + 2,
        })
    }

    /// From the bits of [`Location::source`].
    pub fn of(bits: u32) -> Self {
        match bits {
            0 => Location::Checks,
            1 => Location::Return,
            op => Location::Op(OpId(op - 2)),
        }
    }
}
