//! The functions of a model that an application calls: what runs the kernels, in plan order, and knows where everything
//! lives.
//!
//! ```c
//! int32_t kws_run(const struct kws_inputs *inputs, const struct kws_outputs *outputs);               // --io pointers
//! int32_t kws_run(const struct kws_inputs *inputs, const struct kws_outputs *outputs, void *arena);  // and --arena caller
//! int32_t kws_run(void);                                                                             // --io arena
//! int32_t kws_run(void *arena);                                                                      // and --arena caller
//! int32_t kws_run(const struct kws_rows *rows, const struct kws_outputs *outputs);                   // --input rows
//! ```
//! With `--memory`, `const struct kws_arenas *arenas` has a pointer for each memory instead of `void *arena`. What else is
//! asked for adds a parameter ([`Model::arguments`]) or a function: [`step`] runs one operator, and with
//! parameters outside the object there are [`parameters::bind`] and [`parameters::check`].

pub mod backend;
mod body;
mod external;
pub mod feed;
mod frame;
mod location;
pub mod parameters;
mod run;
mod status;
mod step;
pub mod stream;
mod symbols;
mod tables;

pub use location::Location;
pub use run::{counted_entry, entry, traced_entry};
pub use status::*;
use step::step;
pub use symbols::Symbols;
pub use tables::{Address, Tables};

use super::emit::pointer_type;
use super::{Lowering, Operand};
use crate::codegen::Input;
use crate::error::Result;
use crate::graph::Graph;
use crate::image::Image;
use crate::names::{Helper, Names};
use crate::plan::{Io, Plan};
use crate::target::{Arch, Target};
use cranelift_codegen::ir::{AbiParam, Signature, Type, types};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};

/// Who provides the arena (`--arena`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ArenaKind {
    /// A symbol in `.bss`.
    #[default]
    Static,
    /// The caller, by pointer.
    Caller,
}

/// What the functions of a model are made from.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Its kernels and parameters.
    pub lowering: &'a Lowering,
    /// Where its activations live.
    pub plan: &'a Plan,
    /// What the code is for.
    pub target: &'a Target,
    /// What everything is called.
    pub names: &'a Names,
    /// Who provides the arena.
    pub arena: ArenaKind,
    /// The parameters that are not in the object, if there are any.
    pub image: Option<&'a Image>,
    /// Whether the application sees every operator begin and end.
    pub hooks: bool,
    /// Whether the application runs one operator at a time.
    pub steps: bool,
}

/// An argument of `<model>_run`, a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// `const struct <model>_inputs *inputs`
    Inputs,
    /// `const struct <model>_rows *rows`
    Rows,
    /// `const struct <model>_outputs *outputs`
    Outputs,
    /// `const struct <model>_parameters *parameters`
    Parameters,
    /// `void *arena`
    Arena,
    /// `const struct <model>_arenas *arenas`
    Arenas,
    /// `const struct <model>_hooks *hooks`
    Hooks,
}

impl<'a> Model<'a> {
    /// A model with everything at its default.
    pub fn new(
        graph: &'a Graph,
        lowering: &'a Lowering,
        plan: &'a Plan,
        target: &'a Target,
        names: &'a Names,
        arena: ArenaKind,
    ) -> Self {
        Model {
            graph,
            lowering,
            plan,
            target,
            names,
            arena,
            image: None,
            hooks: false,
            steps: false,
        }
    }

    /// The arguments of `<model>_run`, in their order.
    pub fn arguments(&self) -> Vec<Argument> {
        let pointers = self.plan.io == Io::Pointers;
        let caller = self.arena == ArenaKind::Caller;
        [
            (Argument::Inputs, pointers && self.lowering.feed.is_none()),
            (Argument::Rows, self.lowering.feed.is_some()),
            (Argument::Outputs, pointers),
            (Argument::Parameters, self.image.is_some()),
            (Argument::Arena, caller && self.plan.pools.is_empty()),
            (Argument::Arenas, caller && !self.plan.pools.is_empty()),
            (Argument::Hooks, self.hooks),
        ]
        .into_iter()
        .filter_map(|(argument, wanted)| wanted.then_some(argument))
        .collect()
    }

    /// The other functions of the model: what runs single operators, what binds and checks an image, and what those and
    /// `<model>_run` call beside the kernels.
    ///
    /// # Errors
    /// [`Code::Internal`](crate::error::Code::Internal) if the parts do not fit one another.
    pub fn helpers(&self) -> Result<Vec<Input>> {
        let step = self.steps.then(|| step(self));
        let hook = self.hooks.then(|| body::hook(self));
        let image = self.image.map(|image| parameters::functions(self, image));
        step.into_iter()
            .chain(hook)
            .chain(image.into_iter().flatten())
            .collect()
    }

    fn pointer(&self) -> Type {
        pointer_type(self.target)
    }

    fn helper(&self, helper: Helper) -> &'a str {
        &self.names.helper(helper).symbol
    }

    /// Whether an operand is read from the image.
    fn is_outside(&self, operand: &Operand) -> bool {
        match (self.image, operand) {
            (Some(image), Operand::Parameter(id)) => image.holds(*id),
            _ => false,
        }
    }
}

/// Signature of a C function. Integers of 32 bits are signed where it matters.
pub fn c_signature(target: &Target, params: &[Type], result: Option<Type>) -> Signature {
    let param = |ty: &Type| {
        let param = AbiParam::new(*ty);
        // The calling convention of RISC-V keeps 32-bit integers, unsigned ones too, sign-extended in registers.
        if target.arch() == Arch::Riscv64 && *ty == types::I32 {
            param.sext()
        } else {
            param
        }
    };
    let mut signature = Signature::new(CallConv::triple_default(&target.triple));
    signature.params = params.iter().map(param).collect();
    signature.returns = result.iter().map(param).collect();
    signature
}

/// Signature of the trace function.
pub fn trace_signature(target: &Target) -> Signature {
    c_signature(target, &[types::I32, pointer_type(target), types::I64], None)
}

/// What Cranelift's builder wants to know about `target`.
pub fn frontend_config(target: &Target) -> TargetFrontendConfig {
    TargetFrontendConfig {
        default_call_conv: CallConv::triple_default(&target.triple),
        pointer_width: if target.machine().pointer_bytes == 8 {
            target_lexicon::PointerWidth::U64
        } else {
            target_lexicon::PointerWidth::U32
        },
        page_size_align_log2: 12,
    }
}
