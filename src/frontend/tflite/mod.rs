//! TensorFlow Lite models.
//!
//! The file is a flatbuffer: it is verified once, with explicit limits, and then read in place. Parameters stay where
//! they are: a constant is a range of the file. Reading takes four steps, and each reports all that it finds at once:
//! the flatbuffer, the tensors, the structure (operands, order, aliasing), the operators.

mod build;
mod ops;
mod skeleton;
mod structure;
mod tensors;

#[cfg(test)]
mod tests;

/// Accessors of the format, generated from schema.fbs (which has the command).
#[rustfmt::skip]
#[allow(unsafe_code, missing_docs, unused, clippy::all, clippy::pedantic)]
mod generated {
    include!("schema.rs");
}
use generated::tflite as schema;

use super::ReadOptions;
use crate::data::Source;
use crate::error::{Code, Error, Result};
use crate::graph::{Graph, verify};
use crate::limits;
use flatbuffers::{ErrorTraceDetail, InvalidFlatbuffer, VerifierOptions};
use skeleton::Skeleton;
use std::sync::Arc;

/// Most findings that are reported at once.
const FINDINGS: usize = 256;

/// Reads a TensorFlow Lite model.
///
/// # Errors
/// See [`super::read`].
pub fn read(source: &Arc<Source>, options: &ReadOptions) -> Result<Graph> {
    let skeleton = Skeleton::read(source);
    let model = flatbuffer(skeleton.as_ref().map_or(source.bytes(), Skeleton::bytes))?;
    if model.version() != 3 {
        return Err(Error::unsupported(format!(
            "version {} of the TensorFlow Lite format is not supported",
            model.version()
        ))
        .help("convert the model again: current converters write version 3"));
    }
    let subgraphs = model.subgraphs().unwrap_or_default();
    let Some(subgraph) = subgraphs.iter().next() else {
        return Err(Error::model("the model has no subgraph"));
    };
    if subgraphs.len() > 1 {
        tracing::warn!("the model has {} subgraphs; the first is compiled", subgraphs.len());
    }
    let limited = |count: usize, most: usize, what: &str| {
        let message = || format!("the model has {count} {what}, more than {most}");
        if count > most {
            Err(Error::new(Code::Limit, message()))
        } else {
            Ok(())
        }
    };
    limited(
        subgraph.tensors().map_or(0, |list| list.len()),
        limits::TENSORS,
        "tensors",
    )?;
    limited(
        subgraph.operators().map_or(0, |list| list.len()),
        limits::OPERATORS,
        "operators",
    )?;
    limited(
        subgraph.inputs().map_or(0, |list| list.len()),
        limits::OPERANDS,
        "inputs",
    )?;
    limited(
        subgraph.outputs().map_or(0, |list| list.len()),
        limits::OPERANDS,
        "outputs",
    )?;

    let mut tensors = tensors::read(source, skeleton.as_ref(), model, subgraph)?;
    let structure = structure::read(model, subgraph, &mut tensors)?;
    let graph = build::Builder::new(&tensors, &structure, options)?.build(&structure)?;
    verify::verify(&graph)?;
    Ok(graph)
}

/// Verifies the flatbuffer within [`limits`].
fn flatbuffer(bytes: &[u8]) -> Result<schema::Model<'_>> {
    let options = VerifierOptions {
        max_depth: limits::NESTING,
        max_tables: limits::TABLES,
        max_apparent_size: bytes.len().saturating_mul(limits::SHARING).saturating_add(1 << 16),
        ignore_missing_null_terminator: true,
    };
    schema::root_as_model_with_opts(&options, bytes).map_err(|error| {
        let damaged = |what: String, trace: &[ErrorTraceDetail]| {
            let error = Error::model(format!("the model file is damaged: {what}"))
                .help("it may be cut short or changed on its way: fetch or convert it again");
            if trace.is_empty() { error } else { error.at(path(trace)) }
        };
        match &error {
            InvalidFlatbuffer::TooManyTables => Error::new(
                Code::Limit,
                format!("the model file has more than {} tables", limits::TABLES),
            ),
            InvalidFlatbuffer::DepthLimitReached => Error::new(
                Code::Limit,
                format!("the model file nests tables more than {} deep", limits::NESTING),
            ),
            InvalidFlatbuffer::ApparentSizeTooLarge => Error::new(
                Code::Limit,
                "the model file shares so much that it would be unreasonably large when expanded",
            ),
            InvalidFlatbuffer::Utf8Error { error_trace, .. } => {
                Error::model("a name in the model is not valid UTF-8").at(path(error_trace.as_ref()))
            }
            InvalidFlatbuffer::MissingRequiredField { required, error_trace } => {
                damaged(format!("{required} is missing"), error_trace.as_ref())
            }
            InvalidFlatbuffer::InconsistentUnion { field, error_trace, .. } => damaged(
                format!("{field} has a type without a value or a value without a type"),
                error_trace.as_ref(),
            ),
            InvalidFlatbuffer::MissingNullTerminator { error_trace, .. } => {
                damaged("a string does not end".to_owned(), error_trace.as_ref())
            }
            InvalidFlatbuffer::Unaligned {
                position, error_trace, ..
            } => damaged(format!("the value at {position} is not aligned"), error_trace.as_ref()),
            InvalidFlatbuffer::RangeOutOfBounds { range, error_trace } => damaged(
                format!(
                    "bytes {} to {} lie outside of its {}",
                    range.start,
                    range.end,
                    bytes.len()
                ),
                error_trace.as_ref(),
            ),
            InvalidFlatbuffer::SignedOffsetOutOfBounds {
                position, error_trace, ..
            } => damaged(format!("the offset at {position} points outside"), error_trace.as_ref()),
        }
    })
}

/// `subgraphs[0].tensors[3].name`.
fn path(trace: &[ErrorTraceDetail]) -> String {
    // The innermost comes first.
    let mut path = String::new();
    for detail in trace.iter().rev() {
        match detail {
            ErrorTraceDetail::VectorElement { index, .. } => path += &format!("[{index}]"),
            ErrorTraceDetail::TableField { field_name: name, .. } => {
                path += if path.is_empty() { "" } else { "." };
                path += name;
            }
            ErrorTraceDetail::UnionVariant { .. } => {}
        }
    }
    path
}

/// Findings of one step.
#[derive(Default)]
struct Findings {
    errors: Vec<Error>,
    more: usize,
}

impl Findings {
    fn push(&mut self, error: Error) {
        if self.errors.len() < FINDINGS {
            self.errors.push(error);
        } else {
            self.more += 1;
        }
    }

    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    fn check(&mut self) -> Result<()> {
        let mut errors = std::mem::take(&mut self.errors);
        let more = std::mem::take(&mut self.more);
        if let Some(first) = errors.first().filter(|_| more > 0) {
            errors.push(Error::new(first.code, format!("and {more} more findings")));
        }
        Error::collect(errors).map_or(Ok(()), Err)
    }
}
