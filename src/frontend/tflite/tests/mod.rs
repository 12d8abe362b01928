//! Models of a few lines each, made with the flatbuffers builder, and what becomes of them.

mod build;
mod corpus;
mod mutants;
mod operators;
mod refused;
mod refused_operators;

use super::schema;
use crate::data::Source;
use crate::frontend::{ReadOptions, read};
use crate::graph::{Graph, text};
use build::Model;
use std::sync::Arc;

/// Reads a model, with `--shape` arguments.
fn read_with(model: &Model, shapes: &[(&str, &[usize])]) -> crate::error::Result<Graph> {
    read_bytes(model.bytes(), shapes)
}

fn read_bytes(bytes: Vec<u8>, shapes: &[(&str, &[usize])]) -> crate::error::Result<Graph> {
    let options = ReadOptions {
        name: "m".to_owned(),
        shapes: shapes
            .iter()
            .map(|(name, dims)| ((*name).to_owned(), dims.to_vec()))
            .collect(),
        ..ReadOptions::default()
    };
    read(Arc::new(Source::Memory(bytes)), &options)
}

/// The operators of a model that is accepted, in the graph's text form.
fn accepted(model: &Model) -> String {
    listing(&read_with(model, &[]).unwrap_or_else(|error| panic!("{error}")))
}

fn listing(graph: &Graph) -> String {
    let text = text::print(graph);
    let lines = text.lines().filter(|line| line.starts_with('%'));
    lines.collect::<Vec<_>>().join("\n")
}

/// The message for a model that is refused.
fn refused(model: &Model) -> String {
    read_with(model, &[])
        .expect_err("the model should be refused")
        .to_string()
}
