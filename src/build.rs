//! The pipeline: a model file → everything that a build writes. [`compile`] is the whole of it.

use crate::codegen::counts::{self, Instructions, Runs};
use crate::codegen::{self, Code};
use crate::data::Source;
use crate::error::{Error, Result};
use crate::frontend::{self, ReadOptions};
use crate::graph::evaluate::Arithmetic;
use crate::graph::external::Object;
use crate::graph::{Graph, text};
use crate::image::Image;
use crate::kernels::Lowering;
use crate::kernels::entry::{self, ArenaKind};
use crate::modules::{self, Module};
use crate::names::{Helper, Names};
use crate::object::ObjectPlan;
use crate::object::foreign::Extra;
use crate::output::report::Dropped;
use crate::place::{self, Home, Placement, Pool, Region, Rule};
use crate::plan::{Io, Plan};
use crate::target::{Effort, Target};
use crate::{assemble, debug, keep, passes};
use assemble::external::{Externals, adopt_names, externals, tables_section};
use cranelift_codegen::ir::Function;
use std::sync::Arc;

mod describe;
mod feed;
mod id;
mod link;
mod memory;
mod outside;
mod pools;
pub mod schedules;
pub mod several;
pub mod shapes;

/// What to prefer where there is a choice (`--optimize`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Goal {
    /// Few instructions.
    Speed,
    /// A small arena where it costs few instructions.
    #[default]
    Balanced,
    /// The smallest arena.
    Ram,
    /// Little code.
    Size,
}

impl Goal {
    /// What kernels are chosen for.
    pub fn effort(self) -> Effort {
        match self {
            Goal::Speed => Effort::Speed,
            Goal::Balanced => Effort::Balanced,
            Goal::Ram => Effort::Ram,
            Goal::Size => Effort::Size,
        }
    }
}

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
    /// Whether the input comes row by row from a callback.
    pub input_rows: bool,
    /// Who provides the arena.
    pub arena: ArenaKind,
    /// What to prefer where there is a choice.
    pub goal: Goal,
    /// Where parameters are kept that no rule is about.
    pub params: Home,
    /// Most bytes of parameters that are read at once.
    pub stream_buffer: u64,
    /// Whether there is a function that runs one operator.
    pub steps: bool,
    /// Whether the application sees every operator begin and end.
    pub hooks: bool,
    /// `--place`, and the rules of `--place-file`.
    pub place: Vec<Rule>,
    /// `-g`.
    pub debug: Option<debug::Options>,
    /// `--region`, and the memories of `--place-file`.
    pub memory: Vec<Region>,
    /// `--memory`, and the memories of `--place-file` with a speed: where buffers and parameters may be, the fastest first.
    pub pools: Vec<Pool>,
    /// `--keep`: patterns of what linkers must not drop.
    pub keep: Vec<String>,
    /// What only models of TVM need.
    pub tvm: frontend::tvm::Options,
    /// `--kernels`: objects and libraries that go into the library.
    pub kernels: Vec<Object>,
    /// `--module`: external modules.
    pub modules: Vec<Module>,
    /// The prefix of a static arena that is not the model's own: another object of the library has it.
    pub shared_arena: Option<String>,
    /// Whether rules of placement and patterns of `--keep` may match nothing: another model of the library may have what
    /// they mean.
    pub some_rules: bool,
    /// The last stage to run, one of [`stages`].
    pub stop_after: Option<String>,
    /// For tests: changes a kernel by name before it is compiled, so that they can see `verify` find it.
    #[doc(hidden)]
    pub mutate: Option<fn(&str, &mut Function)>,
}

/// Default of [`Options::stream_buffer`].
pub const STREAM_BUFFER: u64 = 16 << 10;

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
            input_rows: false,
            arena: ArenaKind::default(),
            goal: Goal::default(),
            params: Home::Embedded,
            stream_buffer: STREAM_BUFFER,
            steps: false,
            hooks: false,
            place: Vec::new(),
            debug: None,
            memory: Vec::new(),
            pools: Vec::new(),
            keep: Vec::new(),
            tvm: frontend::tvm::Options::default(),
            kernels: Vec::new(),
            modules: Vec::new(),
            shared_arena: None,
            some_rules: false,
            stop_after: None,
            mutate: None,
        }
    }

    /// What the functions of a model are made from under these options.
    fn model_code<'a>(
        &'a self,
        graph: &'a Graph,
        lowering: &'a Lowering,
        plan: &'a Plan,
        names: &'a Names,
        image: Option<&'a Image>,
    ) -> entry::Model<'a> {
        entry::Model {
            image,
            hooks: self.hooks,
            steps: self.steps,
            ..entry::Model::new(graph, lowering, plan, &self.target, names, self.arena)
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
    /// Machine code of the functions beside it.
    pub helpers: Vec<Code>,
    /// The parameters that are not in the object, if there are any.
    pub image: Option<Image>,
    /// Deepest stack of the functions that the application calls, in bytes; its callbacks are not counted.
    pub stack: u64,
    /// The object.
    pub object: ObjectPlan,
    /// The source file of the debug information.
    pub listing: Option<String>,
    /// What the rules put where.
    pub placement: Placement,
    /// What tells this build from others: the header's functions and the object's share it.
    pub id: String,
    /// Objects of others that go into the library.
    pub extras: Vec<Extra>,
    /// Symbols that the library leaves to the application's link, sorted.
    pub needs: Vec<String>,
    /// Symbols that linkers must not drop.
    pub kept: Vec<String>,
    /// What rules and patterns match nothing of this model, where that is allowed.
    pub idle: Vec<Error>,
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
    let target = &Target {
        effort: options.goal.effort(),
        ..options.target.clone()
    };
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
    if options.input_rows {
        feed::insert(&mut graph)?;
    }

    let mut lowered = outside::lower(&graph, target, options)?;
    if let Some(mutate) = options.mutate {
        (lowered.lowering.kernels)
            .iter_mut()
            .for_each(|kernel| mutate(&kernel.name, &mut kernel.function));
    }
    watch("kernels", &|| describe::kernels(&graph, &lowered.lowering));
    if stop("kernels") {
        return Ok(None);
    }

    let plan = outside::plan(&graph, &mut lowered, target, options)
        .map_err(|error| pools::advise(error, &graph, target, options))?;
    let outside::Lowered {
        lowering,
        mut names,
        mut image,
        ..
    } = lowered;
    if let Some(prefix) = &options.shared_arena {
        names.share_arena(prefix);
    }
    names.divide_arena(plan.pools.iter().map(|pool| pool.name.as_str()));
    watch("plan", &|| describe::plan(&graph, &plan));
    if stop("plan") {
        return Ok(None);
    }

    names.tables.section = tables_section(&names, target);
    if options.tvm.names {
        adopt_names(&graph, &mut names)?;
    }
    let far = assemble::part(&graph, &lowering, target, &mut names)?;
    let mut functions = assemble::kernels(&lowering, &names);
    let model_code = options.model_code(&graph, &lowering, &plan, &names, image.as_ref());
    let (entry, executions) = entry::counted_entry(&model_code)?;
    functions.push(entry);
    functions.extend(model_code.helpers()?);
    let tables = entry::Tables::new(&model_code)?;
    let routines = codegen::soften(&mut functions, target, |routine| names.routine(routine).symbol.clone())?;
    let own = functions.len();
    let runs: Vec<Runs> = (lowering.kernels.iter())
        .map(|kernel| Runs::Known(&kernel.executions))
        .chain([match lowering.streams.runs.is_empty() && lowering.feed.is_none() {
            true => Runs::Straight,
            false => Runs::Known(&executions),
        }])
        .chain(functions[lowering.kernels.len() + 1..].iter().map(|_| Runs::Straight))
        .chain(routines.iter().map(|(routine, _)| Runs::Paths {
            rounds: routine.rounds(),
        }))
        .collect();
    functions.extend(routines.into_iter().map(|(_, input)| input));
    let mut kernels = codegen::compile_with(&*codegen::backend_with(target, far)?, &functions)?;
    let mut instructions = counts::totals(&functions, &runs, &kernels);
    instructions.truncate(lowering.kernels.len() + 1);
    // Functions of others are not counted.
    let counted = externals(&graph).next().is_none();
    let run_instructions = instructions.pop().flatten().filter(|_| counted);
    let entries = [Helper::Step, Helper::Bind, Helper::Check].map(|helper| names.helper(helper).symbol.as_str());
    let others = entries.iter().filter_map(|symbol| codegen::stack(&kernels, symbol));
    let stack = codegen::stack(&kernels, &names.run.symbol).map(|run| others.fold(run, u64::max));
    let stack = stack.ok_or_else(|| Error::internal("the depth of the stack is not known"))?;
    watch("code", &|| describe::code(&kernels));
    let routines = kernels.split_off(own);
    let helpers = kernels.split_off(lowering.kernels.len() + 1);
    let Some(entry) = kernels.pop().filter(|_| !stop("code")) else {
        return Ok(None);
    };
    if let Some(image) = &mut image {
        image.identify(&graph, &lowering, kernels.iter().map(|code| code.bytes.as_slice()));
    }

    let built = place::Built {
        target,
        graph: &graph,
        lowering: &lowering,
        plan: &plan,
        arena: options.arena,
        kernels: &kernels,
        routines: &routines,
        entry: &entry,
        helpers: &helpers,
        tables: tables.bytes.len() as u64,
        pools: &options.pools,
        image: image.as_ref(),
    };
    let (kept, mut idle) = keep::symbols(&options.keep, &built, &names)?;
    let (placement, unused) = place::apply(&options.place, &options.memory, &built, &mut names)?;
    idle.extend(unused);
    if let (false, Some(error)) = (options.some_rules, Error::collect(idle.clone())) {
        return Err(error);
    }
    let mut data = assemble::data(&graph, &lowering, &plan, options.arena, image.as_ref(), &names);
    let mut elsewhere = Vec::new();
    if options.shared_arena.is_some() {
        let arenas = (0..plan.areas().len()).map(|pool| names.pool(pool).symbol.as_str());
        let arenas: Vec<&str> = arenas.collect();
        data.retain(|datum| !arenas.contains(&datum.symbol.as_str()));
        elsewhere.extend(arenas);
    }
    let others = helpers.iter().chain(&routines).cloned().collect();
    let placed = assemble::place(kernels.clone(), others, entry.clone(), &names);
    let model_code = options.model_code(&graph, &lowering, &plan, &names, image.as_ref());
    let mut object = Externals::new(&model_code, tables)?.object(placed, data, &elsewhere)?;
    placement.finish(&mut object)?;
    object.retain(kept.iter().map(String::as_str));
    let id = id::id(options, &graph, &lowering, &plan, stack, &object)?;
    object.tag(&id);
    let extras = link::extras(&graph, &options.kernels, &object, target)?;
    let mut listing = None;
    if let Some(debug) = &options.debug {
        let model = debug::Model {
            code: model_code,
            kernels: &kernels,
            helpers: &helpers,
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
        helpers,
        image,
        stack,
        needs: link::needs(&object, &extras),
        extras,
        object,
        listing,
        placement,
        id,
        kept,
        idle,
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
        tvm: options.tvm.clone(),
        custom: options
            .modules
            .iter()
            .flat_map(Module::operators)
            .map(str::to_owned)
            .collect(),
    };
    let mut graph = frontend::read(source, &read)?;
    modules::apply(&mut graph, &options.modules)?;
    Ok(graph)
}

#[cfg(test)]
mod tests;
