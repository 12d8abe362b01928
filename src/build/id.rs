//! What tells one build from another, for header and object to agree on.

use super::Options;
use crate::data::Contents;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::kernels::Lowering;
use crate::object::{ObjectPlan, SectionKind};
use crate::plan::Plan;
use std::fmt::Write;

/// Parameters of which a sample is hashed: enough to tell trained networks apart, and little to read.
const SAMPLES: usize = 256;

/// Eight hexadecimal digits from everything that a header says and everything that was compiled: options, inputs and
/// outputs, the arena, code, names and sizes, all constants made at build time. Of the model's own constants, which may
/// be gigabytes, evenly chosen samples count.
pub(super) fn id(
    options: &Options,
    graph: &Graph,
    lowering: &Lowering,
    plan: &Plan,
    stack: u64,
    object: &ObjectPlan,
) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    // One buffer for all lines: a long model has ten thousand.
    let mut line = String::new();
    let mut text = |text: std::fmt::Arguments| {
        line.clear();
        // Strings take everything.
        let _ = line.write_fmt(text);
        hasher.update(&(line.len() as u64).to_le_bytes());
        hasher.update(line.as_bytes());
    };
    text(format_args!(env!("CARGO_PKG_VERSION")));
    text(format_args!(
        "{} {:?} {:?}",
        options.target, options.target.abi, options.arena
    ));
    for id in graph.inputs.iter().chain(&graph.outputs) {
        let tensor = graph.tensor(*id);
        let place = plan.places.get(id.index());
        text(format_args!(
            "{:?} {:?} {:?} {:?} {place:?}",
            tensor.name, tensor.dtype, tensor.shape, tensor.quantization
        ));
    }
    text(format_args!(
        "{:?} {} {} {stack}",
        plan.io, plan.arena_size, plan.arena_align
    ));
    for section in &object.sections {
        text(format_args!(
            "{} {:?} {} {}",
            section.name,
            section.kind,
            section.align,
            section.contents.len()
        ));
        for relocation in &section.relocations {
            text(format_args!(
                "{} {} {}",
                relocation.offset, relocation.symbol, relocation.addend
            ));
        }
    }
    for section in &object.sections {
        let Contents::Bytes(bytes) = &section.contents else {
            continue;
        };
        // Code, and tables with addresses.
        let made = section.kind == SectionKind::Text || !section.relocations.is_empty();
        if let Some(bytes) = bytes.in_memory().filter(|_| made) {
            hasher.update(bytes);
        }
    }
    let every = lowering.parameters.len().div_ceil(SAMPLES).max(1);
    for (i, parameter) in lowering.parameters.iter().enumerate() {
        match parameter.contents.in_memory() {
            Some(bytes) => drop(hasher.update(bytes)),
            None if i % every == 0 => {
                let failed = |error| Error::io("read", options.file.as_ref(), &error);
                hasher.update(&parameter.contents.sample().map_err(failed)?);
            }
            None => {}
        }
    }
    Ok(hasher.finalize().to_hex()[..8].to_owned())
}
