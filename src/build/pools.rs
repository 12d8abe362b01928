//! Several memories (`--memory`): the plan's buffers divided between them, and what to do where they do not fit.

use super::{Goal, Options, outside};
use crate::error::{Code, Error, Result};
use crate::graph::Graph;
use crate::image::{Access, Image};
use crate::kernels::{Lowering, ParameterId};
use crate::plan::{Accesses, Io, Memory, Plan, Staged};
use crate::target::Target;

/// A plan with its buffers in the memories of `options`, and with buffers for what is streamed of `image`.
///
/// # Errors
/// As [`Plan::divide`].
pub(super) fn divide(
    mut plan: Plan,
    graph: &Graph,
    lowering: &Lowering,
    options: &Options,
    image: Option<&Image>,
) -> Result<Plan> {
    let memories: Vec<Memory> = (options.pools.iter())
        .filter(|pool| pool.writable)
        .map(|pool| Memory {
            name: pool.name.clone(),
            bytes: pool.bytes,
        })
        .collect();
    let image = image.filter(|image| image.access == Access::Streamed);
    if memories.is_empty() && image.is_none() {
        return Ok(plan);
    }
    let accesses = Accesses::new(graph, lowering);
    // What is streamed is written once and read as often as it would be elsewhere.
    let staged = image.map(|image| Staged {
        size: image.staging,
        align: image.align,
        accesses: (0..lowering.parameters.len() as u32)
            .map(ParameterId)
            .filter(|id| image.holds(*id))
            .map(|id| {
                lowering
                    .parameter(id)
                    .contents
                    .len()
                    .saturating_add(accesses.parameter(id))
            })
            .fold(0, u64::saturating_add),
    });
    plan.divide(graph, &accesses, &memories, staged)?;
    Ok(plan)
}

/// Adds to the error of a plan that does not fit its memories which other options would make it fit.
pub(super) fn advise(error: Error, graph: &Graph, target: &Target, options: &Options) -> Error {
    if options.pools.is_empty() || error.code != Code::Usage {
        return error;
    }
    let fits = |other: &Options| {
        let target = Target {
            effort: other.goal.effort(),
            ..target.clone()
        };
        let lowered = outside::lower(graph, &target, other);
        lowered.is_ok_and(|mut lowered| outside::plan(graph, &mut lowered, &target, other).is_ok())
    };
    let ram = Options {
        goal: Goal::Ram,
        ..options.clone()
    };
    let pointers = Options {
        io: Io::Pointers,
        ..options.clone()
    };
    let both = Options {
        io: Io::Pointers,
        ..ram.clone()
    };
    let found = if options.goal != Goal::Ram && fits(&ram) {
        Some("--optimize ram")
    } else if options.io == Io::Arena && fits(&pointers) {
        Some("--io pointers, which leaves inputs and outputs to the application,")
    } else if options.goal != Goal::Ram && options.io == Io::Arena && fits(&both) {
        Some("--optimize ram with --io pointers")
    } else {
        None
    };
    let known = error.help.clone().unwrap_or_default();
    match found {
        Some(found) => error.help(format!("{found} makes it fit; or {known}")),
        None => error,
    }
}
