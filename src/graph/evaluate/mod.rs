//! The meaning of every operator.

pub mod math;
