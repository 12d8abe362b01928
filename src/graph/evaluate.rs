//! The meaning of every operator.
