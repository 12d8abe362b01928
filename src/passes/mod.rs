//! Graph → graph: an ordered list of rewrites, each bit exact for integers and for floats.
//!
//! After the whole list
//! - no operator has only constant operands (but for those beyond [`limits::FOLD_WORK`](crate::limits::FOLD_WORK)),
//!   filters and biases are constants;
//! - elementwise int8 operators with one operand are [`Lookup`](crate::graph::OpKind::Lookup);
//! - every model output is produced, through views only, by an operator of its own
//!   ([`verify_outputs`]);
//! - every tensor is used or a model input, and indices have no gaps.
//!
//! A rewritten operator keeps the name and the source index of the one that does the work; a result keeps the name that
//! it has in the model wherever it is a model output.

mod dead;
mod dedupe;
mod edit;
mod fold;
mod fuse_activation;
mod fuse_pad;
mod fuse_quantize;
mod lookup;
mod transpose;
mod views;

use crate::error::{Code, Error, Result};
use crate::graph::Graph;
use crate::graph::evaluate::Arithmetic;
use crate::graph::verify::{verify, verify_outputs};

/// One rewrite of the list.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Name for `--print-after` and `--stop-after`.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// The rewrite. It takes a verified graph and leaves one. Constants are evaluated in the target's arithmetic.
    pub run: fn(&mut Graph, Arithmetic) -> Result<()>,
}

/// All passes, in order.
///
/// Operators are merged before they are fused: a result that two equal operators read has one reader then. What needs
/// to see whole operators comes before `lookup`, which makes tables of them.
pub static PASSES: &[Pass] = &[
    Pass {
        name: "fold",
        about: "compute operators whose operands are all constant",
        run: fold::run,
    },
    Pass {
        name: "transpose",
        about: "compose transposes; those that move no element become views",
        run: transpose::run,
    },
    Pass {
        name: "dead",
        about: "drop operators and tensors that no output depends on",
        run: dead::run,
    },
    Pass {
        name: "dedupe",
        about: "merge equal constants, and operators that compute the same",
        run: dedupe::run,
    },
    Pass {
        name: "fuse-quantize",
        about: "drop conversions to float32 and straight back",
        run: fuse_quantize::run,
    },
    Pass {
        name: "fuse-activation",
        about: "let operators apply the activation function that follows them",
        run: fuse_activation::run,
    },
    Pass {
        name: "fuse-pad",
        about: "let convolutions read the padding in front of them",
        run: fuse_pad::run,
    },
    Pass {
        name: "lookup",
        about: "turn elementwise int8 operators and chains of them into tables",
        run: lookup::run,
    },
    Pass {
        name: "share",
        about: "merge what the passes before made equal",
        run: dedupe::run,
    },
    Pass {
        name: "views",
        about: "collapse reshapes, and copy where an output cannot be a view",
        run: views::run,
    },
    Pass {
        name: "compact",
        about: "drop what the passes left over, and number tensors anew",
        run: dead::run,
    },
];

/// Runs all passes on a verified graph, or those up to `stop_after`; `observe` sees the graph after each.
///
/// `arithmetic` is the target's ([`Machine::fused_multiply_add`](crate::target::Machine::fused_multiply_add)).
///
/// # Errors
/// [`Code::Usage`] for an unknown pass; [`Code::Limit`] if weights would take too long to compute or the graph grows
/// beyond a limit; [`Code::Internal`]
/// if a pass leaves an illegal graph.
pub fn run(
    graph: &mut Graph,
    arithmetic: Arithmetic,
    stop_after: Option<&str>,
    observe: &mut dyn FnMut(&str, &Graph),
) -> Result<()> {
    if let Some(name) = stop_after
        && !PASSES.iter().any(|pass| pass.name == name)
    {
        let names: Vec<&str> = PASSES.iter().map(|pass| pass.name).collect();
        let error = Error::new(Code::Usage, format!("there is no pass {name:?}"));
        return Err(error.help(format!("the passes are: {}", names.join(", "))));
    }
    for pass in PASSES {
        let _span = tracing::debug_span!("pass", name = pass.name).entered();
        (pass.run)(graph, arithmetic)?;
        verify(graph).map_err(|error| broken(pass, error))?;
        observe(pass.name, graph);
        if stop_after == Some(pass.name) {
            return Ok(());
        }
    }
    verify_outputs(graph)
}

/// A pass may add constants and copies, so it can meet a limit; anything else is its own fault.
fn broken(pass: &Pass, error: Error) -> Error {
    match error.code {
        Code::Limit => error,
        _ => Error::internal(format!("the pass {} left an illegal graph: {error}", pass.name)),
    }
}

#[cfg(test)]
mod tests;
