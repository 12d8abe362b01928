//! Programs that run a model on Linux without a compiler or a linker, for `corerope run` and `corerope verify`.

#[cfg(test)]
pub(crate) mod fixture;
