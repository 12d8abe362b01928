//! The pipeline: a model file → everything that a build writes. [`compile`] is the whole of it.

use crate::codegen::counts::{self, Instructions, Runs};
use crate::codegen::{self, Code};
use crate::data::Source;
use crate::error::{Error, Result};
use crate::frontend::{self, ReadOptions};
use crate::graph::evaluate::Arithmetic;
use crate::graph::{Graph, text};
use crate::kernels::entry::{ArenaKind, entry};
use crate::kernels::{Lowering, lower};
use crate::names::Names;
use crate::object::ObjectPlan;
use crate::output::report::Dropped;
use crate::place::{self, Rule};
use crate::plan::{Io, Plan, check, plan};
use crate::target::Target;
use crate::{assemble, debug, keep, passes};
use cranelift_codegen::ir::Function;
use std::sync::Arc;

mod describe;
mod id;

/// What the user chose.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to build for.
    pub target: Target,
    /// The model's name, the prefix of its symbols.
    pub name: String,
    /// The model's file name, for reports.
    pub file: String,
    /// Shapes of inputs that replace those of the model.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// How inputs and outputs are passed.
    pub io: Io,
    /// Who provides the arena.
    pub arena: ArenaKind,
    /// `--place`.
    pub place: Vec<Rule>,
    /// `--keep`: patterns of what linkers must not drop.
    pub keep: Vec<String>,
    /// `-g`.
    pub debug: Option<debug::Options>,
    /// The last stage to run, one of [`stages`].
    pub stop_after: Option<String>,
    /// For tests: changes a kernel by name before it is compiled, so that they can see `verify` find it.
    #[doc(hidden)]
    pub mutate: Option<fn(&str, &mut Function)>,
}

impl Options {
    /// The defaults for `target`.
    pub fn new(target: Target, name: impl Into<String>) -> Self {
        let name = name.into();
        Options {
            target,
            file: name.clone(),
            name,
            shapes: Vec::new(),
            io: Io::default(),
            arena: ArenaKind::default(),
            place: Vec::new(),
            keep: Vec::new(),
            debug: None,
            stop_after: None,
            mutate: None,
        }
    }

    /// The arithmetic that the target's kernels and the evaluator share.
    pub fn arithmetic(&self) -> Arithmetic {
        Arithmetic {
            fused_multiply_add: self.target.machine().fused_multiply_add,
        }
    }
}

/// A model, compiled.
#[derive(Clone, Debug)]
pub struct Build {
    /// What was asked for.
    pub options: Options,
    /// Size of the model file in bytes.
    pub model_bytes: u64,
    /// The graph as it was read.
    pub model: Graph,
    /// The graph after the passes.
    pub graph: Graph,
    /// Its kernels and parameters.
    pub lowering: Lowering,
    /// Its plan.
    pub plan: Plan,
    /// Its names.
    pub names: Names,
    /// Machine code of the kernels.
    pub kernels: Vec<Code>,
    /// Instructions of one call of each kernel, where they are counted.
    pub instructions: Vec<Option<Instructions>>,
    /// Instructions of one run of the model, where they are counted.
    pub run_instructions: Option<Instructions>,
    /// Machine code of the routines that the kernels call: arithmetic that the target has no instructions for.
    pub routines: Vec<Code>,
    /// Machine code of the entry point.
    pub entry: Code,
    /// Deepest stack of the entry point in bytes.
    pub stack: u64,
    /// The object.
    pub object: ObjectPlan,
    /// What tells this build from others: the header's functions and the object's share it.
    pub id: String,
    /// Sections that `--place` gave a memory of their own, with it.
    pub regions: Vec<(String, String)>,
    /// The source file of the debug information.
    pub listing: Option<String>,
    /// Parameters of the model that the object does not hold.
    pub dropped: Vec<Dropped>,
}

/// Names of all stages, in order. Passes are stages.
pub fn stages() -> Vec<&'static str> {
    let passes = passes::PASSES.iter().map(|pass| pass.name);
    ["read"]
        .into_iter()
        .chain(passes)
        .chain(["kernels", "plan", "code", "object"])
        .collect()
}

/// Sees the text form of every stage; the text is made when asked for.
pub type Watch<'a> = &'a mut dyn FnMut(&str, &dyn Fn() -> String);

/// Compiles a model. `None` if `stop_after` ended it early.
///
/// # Errors
/// Those of all stages: a broken or unsupported model, a bound exceeded, a rule of `--place` that takes nothing.
pub fn compile(source: Arc<Source>, options: &Options, watch: Watch) -> Result<Option<Build>> {
    let model_bytes = source.bytes().len() as u64;
    compile_graph(read(source, options)?, model_bytes, options, watch)
}

/// [`compile`] for a model that was read, from a file of `model_bytes`.
///
/// # Errors
/// As [`compile`].
pub fn compile_graph(model: Graph, model_bytes: u64, options: &Options, watch: Watch) -> Result<Option<Build>> {
    let target = &options.target;
    let stop = |stage: &str| options.stop_after.as_deref() == Some(stage);
    watch("read", &|| text::print(&model));
    if stop("read") {
        return Ok(None);
    }

    let mut graph = model.clone();
    let last = options.stop_after.as_deref();
    let last = last.filter(|last| passes::PASSES.iter().any(|pass| pass.name == *last));
    passes::run(&mut graph, options.arithmetic(), last, &mut |pass, graph| {
        watch(pass, &|| text::print(graph))
    })?;
    if last.is_some() {
        return Ok(None);
    }

    let mut lowering = lower::lower(&graph, target)?;
    if let Some(mutate) = options.mutate {
        lowering
            .kernels
            .iter_mut()
            .for_each(|kernel| mutate(&kernel.name, &mut kernel.function));
    }
    watch("kernels", &|| describe::kernels(&graph, &lowering));
    if stop("kernels") {
        return Ok(None);
    }

    let plan = plan(&graph, &lowering, options.io)?;
    check(&graph, &lowering, &plan)?;
    watch("plan", &|| describe::plan(&graph, &plan));
    if stop("plan") {
        return Ok(None);
    }

    let mut names = Names::new(&graph, &lowering);
    let far = assemble::part(&graph, &lowering, target, &mut names)?;
    let mut functions = assemble::kernels(&lowering, &names);
    functions.push(entry(&graph, &lowering, &plan, target, options.arena, &names)?);
    let routines = codegen::soften(&mut functions, target, |routine| names.routine(routine).symbol.clone())?;
    let own = functions.len();
    let runs: Vec<Runs> = (lowering.kernels.iter())
        .map(|kernel| Runs::Known(&kernel.executions))
        .chain([Runs::Straight])
        .chain(routines.iter().map(|(routine, _)| Runs::Paths {
            rounds: routine.rounds(),
        }))
        .collect();
    functions.extend(routines.into_iter().map(|(_, input)| input));
    let mut kernels = codegen::compile_with(&*codegen::backend_with(target, far)?, &functions)?;
    let mut instructions = counts::totals(&functions, &runs, &kernels);
    instructions.truncate(own);
    let run_instructions = instructions.pop().flatten();
    let stack = codegen::stack(&kernels, &names.run.symbol);
    let stack = stack.ok_or_else(|| Error::internal("the depth of the stack is not known"))?;
    watch("code", &|| describe::code(&kernels));
    let routines = kernels.split_off(own);
    let Some(entry) = kernels.pop().filter(|_| !stop("code")) else {
        return Ok(None);
    };

    let built = place::Built {
        graph: &graph,
        lowering: &lowering,
        plan: &plan,
        arena: options.arena,
        kernels: &kernels,
        entry: &entry,
    };
    let kept = keep::symbols(&options.keep, &built, &names)?;
    let regions = place::apply(&options.place, &built, &mut names)?;
    let data = assemble::data(&graph, &lowering, &plan, options.arena, &names);
    let mut object = assemble::object(kernels.clone(), routines.clone(), entry.clone(), data, &names)?;
    object.retain(kept.iter().map(String::as_str));
    let id = id::id(options, &graph, &lowering, &plan, stack, &object)?;
    object.tag(&id);
    let mut listing = None;
    if let Some(debug) = &options.debug {
        let model = debug::Model {
            graph: &graph,
            lowering: &lowering,
            plan: &plan,
            names: &names,
            target,
            arena: options.arena,
            kernels: &kernels,
            routines: &routines,
            entry: &entry,
        };
        listing = Some(debug::describe(&model, debug, &mut object)?.text);
    }
    watch("object", &|| describe::object(&object));
    if stop("object") {
        return Ok(None);
    }

    Ok(Some(Build {
        dropped: describe::dropped(&model, &graph, &lowering, &names),
        options: options.clone(),
        model_bytes,
        model,
        graph,
        lowering,
        plan,
        names,
        kernels,
        instructions,
        run_instructions,
        routines,
        entry,
        stack,
        object,
        id,
        regions,
        listing,
    }))
}

/// The model as a verified graph.
///
/// # Errors
/// A broken or unsupported model, a bound exceeded.
pub fn read(source: Arc<Source>, options: &Options) -> Result<Graph> {
    let read = ReadOptions {
        name: options.name.clone(),
        shapes: options.shapes.clone(),
    };
    frontend::read(source, &read)
}

#[cfg(test)]
mod tests;
