//! What the user prefers, as a lowering and a plan: which layers do without scratch or have longer code, which chains run
//! row by row.
//!
//! Where instructions are counted, a balanced build takes at most [`PERCENT`] more of them than one for speed: all forms
//! of all layers are compiled and counted, half of the allowance goes to shorter code, and what is left to rows.

use super::{Goal, Options, pools};
use crate::assemble;
use crate::codegen;
use crate::codegen::counts::{self, Runs};
use crate::error::Result;
use crate::graph::{Graph, OpId};
use crate::kernels::entry::stream::prepare;
use crate::kernels::entry::{self, ArenaKind};
use crate::kernels::lower::{self, Forms};
use crate::kernels::{Call, Form, KernelId, Lowering, mac};
use crate::names::Names;
use crate::plan::{self, Io, Plan, Streaming};
use crate::target::{Arch, Target};
use std::collections::{BTreeMap, BTreeSet};

/// Instructions for each hundred that a balanced build may take more than one for speed.
const PERCENT: u64 = 2;
/// The same for each thousand, for dense layers without scratch where inputs and outputs are not in the arena.
const LEAN: u64 = 5;
/// Most operators of a balanced build whose forms are compared: all kernels are compiled twice for it.
const OPERATORS: usize = 512;
/// Instructions of a step beside the kernel's, to begin with: reading the tape, making pointers.
const STEP: u64 = 60;
/// Plans that are tried until the instructions are within the limit.
const TRIES: usize = 4;

/// Instructions of all forms of all operators.
pub(super) struct Counts {
    /// Of operators as wholes.
    whole: BTreeMap<OpId, u64>,
    /// Of operators by rows: of all steps, and how many they are.
    rows: BTreeMap<OpId, (u64, u64)>,
    /// What the run may take; nothing if that does not matter.
    limit: Option<u64>,
}

/// Which forms of kernels are wanted: those by rows only if `by_rows` says that they can be used.
///
/// # Errors
/// Those of lowering, planning and compiling kernels.
pub(super) fn lower(
    graph: &Graph,
    target: &Target,
    options: &Options,
    by_rows: bool,
) -> Result<(Lowering, Forms, Option<Counts>)> {
    let counted = matches!(target.arch(), Arch::Thumb2 | Arch::Riscv32) && graph.ops.len() <= OPERATORS;
    let rows = |wanted: bool| Forms {
        rows: wanted && by_rows,
        feed: options.input_rows.then_some(super::feed::OP),
        ..Forms::default()
    };
    match options.goal {
        Goal::Balanced if counted => balanced(graph, target, options, rows(true)),
        goal => {
            let mut forms = rows(goal == Goal::Ram);
            let mut lowering = lower::lower_with(graph, target, &forms)?;
            if goal != Goal::Speed {
                forms.lean = lean(graph, target, options, &lowering, goal == Goal::Ram)?;
                if !forms.lean.is_empty() {
                    lowering = lower::lower_with(graph, target, &forms)?;
                }
            }
            Ok((lowering, forms, None))
        }
    }
}

/// Dense layers whose scratch alone makes the arena larger; `all` that have some, if a plan by rows may need still less.
fn lean(graph: &Graph, target: &Target, options: &Options, lowering: &Lowering, all: bool) -> Result<BTreeSet<OpId>> {
    let candidate = |op: OpId| mac::has_lean_form(graph, op, target);
    if !graph.op_ids().any(candidate) {
        return Ok(BTreeSet::new());
    }
    let with = plan::plan(graph, lowering, options.io, Streaming::Never)?;
    let least = without(graph, lowering, options, &candidate)?;
    if least >= with.arena_size {
        return Ok(BTreeSet::new());
    }
    let limit = if all { 0 } else { least };
    let steps = with.steps.iter().zip(&with.live);
    let lean = steps.filter(|(step, live)| candidate(step.op) && **live > limit);
    Ok(lean.map(|(step, _)| step.op).collect())
}

/// The arena where these operators have no scratch.
fn without(graph: &Graph, lowering: &Lowering, options: &Options, ops: &dyn Fn(OpId) -> bool) -> Result<u64> {
    let mut without = lowering.clone();
    for call in without.calls.iter_mut().filter(|call| ops(call.op)) {
        call.scratch = None;
    }
    Ok(plan::plan(graph, &without, options.io, Streaming::Never)?.arena_size)
}

/// Forms within the instructions that a balanced build may take.
fn balanced(
    graph: &Graph,
    target: &Target,
    options: &Options,
    mut forms: Forms,
) -> Result<(Lowering, Forms, Option<Counts>)> {
    forms.alternatives = true;
    let all = lower::lower_with(graph, target, &forms)?;
    forms.alternatives = false;
    let kernels = Kernels::new(graph, &all, target)?;
    let of = |call: &Call| kernels.count(call.kernel);
    let fastest = |call: &Call| of(all.alternative(call.op, Form::Speed).unwrap_or(call));
    let Some(speed) = all.calls.iter().map(fastest).sum::<Option<u64>>() else {
        return Ok((lower::lower_with(graph, target, &forms)?, forms, None));
    };
    let mut whole: BTreeMap<OpId, u64> = (all.calls.iter())
        .filter_map(|call| Some((call.op, of(call)?)))
        .collect();

    // Without scratch as many dense layers as the allowance is enough for, those first that need most.
    let lean = |op: OpId| all.alternative(op, Form::Lean);
    if graph.op_ids().any(|op| lean(op).is_some()) {
        let with = plan::plan(graph, &all, options.io, Streaming::Never)?;
        let least = without(graph, &all, options, &|op| lean(op).is_some())?;
        let steps = || (with.steps.iter().zip(&with.live)).filter(|(step, _)| lean(step.op).is_some());
        let more = |op: OpId| -> i64 {
            let count = lean(op).and_then(of).unwrap_or(u64::MAX >> 1);
            count as i64 - whole[&op] as i64
        };
        // A user who gives inputs and outputs a place in the arena wants them and the tensors to be all that is there.
        let allowance = if options.io == Io::Arena {
            i64::MAX
        } else {
            (speed * LEAN / 1000) as i64
        };
        let mut limits: Vec<u64> = steps().map(|(_, live)| *live).filter(|live| *live > least).collect();
        limits.push(least);
        limits.sort_unstable();
        let above = |limit: u64| steps().filter(move |(_, live)| **live > limit).map(|(step, _)| step.op);
        let cost = |limit: &u64| above(*limit).map(more).sum::<i64>() <= allowance;
        if let Some(limit) = limits.into_iter().find(cost).filter(|limit| *limit < with.arena_size) {
            forms.lean = above(limit).collect();
        }
        for op in &forms.lean {
            whole.insert(*op, lean(*op).and_then(of).unwrap_or(0));
        }
    }

    // Longer code where it saves most for its bytes.
    let mut longer: BTreeMap<Option<KernelId>, (u64, u64, Vec<OpId>)> = BTreeMap::new();
    for call in all.calls.iter().filter(|call| !forms.lean.contains(&call.op)) {
        let Some(long) = all.alternative(call.op, Form::Long) else {
            continue;
        };
        if let (Some(now), Some(then)) = (of(call), of(long))
            && then < now
        {
            let bytes = kernels.bytes(long.kernel).saturating_sub(kernels.bytes(call.kernel));
            let entry = longer.entry(call.kernel).or_insert((0, bytes.max(1), Vec::new()));
            entry.0 += now - then;
            entry.2.push(call.op);
        }
    }
    let mut longer: Vec<(u64, u64, Vec<OpId>)> = longer.into_values().collect();
    longer.sort_by_key(|(saved, bytes, _)| std::cmp::Reverse(u128::from(*saved) * (1 << 32) / u128::from(*bytes)));
    let mut total: u64 = whole.values().sum();
    for (saved, _, ops) in longer {
        if total <= speed + speed * PERCENT / 200 {
            break;
        }
        total -= saved;
        for op in ops {
            whole.insert(op, all.alternative(op, Form::Long).and_then(of).unwrap_or(0));
            forms.long.insert(op);
        }
    }
    let counts = Counts {
        whole,
        rows: kernels.rows(&all),
        limit: Some(speed + speed * PERCENT / 100),
    };
    Ok((lower::lower_with(graph, target, &forms)?, forms, Some(counts)))
}

/// The plan. Of the lowering what it does not use is dropped, and what rows need is added.
///
/// # Errors
/// Those of planning and of compiling kernels.
pub(super) fn plan(
    graph: &Graph,
    lowering: &mut Lowering,
    target: &Target,
    options: &Options,
    counts: Option<&Counts>,
) -> Result<Plan> {
    if lowering.row_calls.is_empty() {
        let plan = plan::plan(graph, lowering, options.io, Streaming::Never)?;
        return pools::divide(plan, graph, lowering, options, None);
    }
    let own;
    let counts = match counts {
        Some(counts) => Some(counts),
        None if matches!(target.arch(), Arch::Thumb2 | Arch::Riscv32) => {
            own = Counts::new(graph, lowering, target)?;
            Some(&own)
        }
        None => None,
    };
    let cost = |op: OpId| match counts {
        Some(counts) => {
            let ((rows, steps), whole) = (counts.rows.get(&op)?, counts.whole.get(&op)?);
            Some((rows + steps * STEP).saturating_sub(*whole))
        }
        None => Some(0),
    };
    let limit = counts.and_then(|counts| Some((counts, counts.limit?)));
    let Some((counts, limit)) = limit else {
        let streaming = match options.goal {
            Goal::Ram => Streaming::Least(&cost),
            _ => Streaming::Within(&cost, 0),
        };
        let plan = plan::plan(graph, lowering, options.io, streaming)?;
        let plan = pools::divide(plan, graph, lowering, options, None)?;
        lowering.choose(|op| plan.by_rows(op));
        prepare(&plan, lowering);
        return Ok(plan);
    };
    let mut budget = limit.saturating_sub(counts.whole.values().sum());
    for _ in 0..TRIES {
        let plan = plan::plan(graph, lowering, options.io, Streaming::Within(&cost, budget))?;
        let plan = pools::divide(plan, graph, lowering, options, None)?;
        let mut chosen = lowering.clone();
        chosen.choose(|op| plan.by_rows(op));
        prepare(&plan, &mut chosen);
        let total = counts.total(graph, &chosen, &plan, target, options.arena)?;
        if total <= limit || chosen.row_calls.is_empty() {
            *lowering = chosen;
            return Ok(plan);
        }
        let Some(less) = budget.checked_sub(total - limit).filter(|_| budget > 0) else {
            break;
        };
        budget = less;
    }
    lowering.choose(|_| false);
    let plan = plan::plan(graph, lowering, options.io, Streaming::Never)?;
    pools::divide(plan, graph, lowering, options, None)
}

impl Counts {
    /// Of the forms that a lowering has.
    fn new(graph: &Graph, lowering: &Lowering, target: &Target) -> Result<Self> {
        let kernels = Kernels::new(graph, lowering, target)?;
        Ok(Counts {
            whole: (lowering.calls.iter())
                .filter_map(|call| Some((call.op, kernels.count(call.kernel)?)))
                .collect(),
            rows: kernels.rows(lowering),
            limit: None,
        })
    }

    /// What a run takes, with the function that makes the calls.
    fn total(&self, graph: &Graph, chosen: &Lowering, plan: &Plan, target: &Target, arena: ArenaKind) -> Result<u64> {
        let mut names = Names::new(graph, chosen);
        names.divide_arena(plan.pools.iter().map(|pool| pool.name.as_str()));
        let model = entry::Model::new(graph, chosen, plan, target, &names, arena);
        let (input, executions) = entry::counted_entry(&model)?;
        let input = [input];
        let codes = codegen::compile_with(&*codegen::backend(target)?, &input)?;
        let own = codes
            .first()
            .and_then(|code| counts::instructions(&input[0].function, &executions, &code.costs));
        let rows: BTreeSet<OpId> = chosen.row_calls.iter().map(|call| call.op).collect();
        let kernels = (plan.order.iter()).map(|op| match rows.contains(op) {
            true => self.rows.get(op).map_or(0, |(rows, _)| *rows),
            false => self.whole.get(op).copied().unwrap_or(0),
        });
        Ok(own.map_or(0, |own| own.most) + kernels.sum::<u64>())
    }
}

/// The kernels of a lowering, compiled and counted.
struct Kernels {
    counts: Vec<Option<u64>>,
    bytes: Vec<u64>,
}

impl Kernels {
    fn new(graph: &Graph, lowering: &Lowering, target: &Target) -> Result<Self> {
        let names = Names::new(graph, lowering);
        let mut functions = assemble::kernels(lowering, &names);
        let routines = codegen::soften(&mut functions, target, |routine| names.routine(routine).symbol.clone())?;
        let runs: Vec<Runs> = (lowering.kernels.iter())
            .map(|kernel| Runs::Known(&kernel.executions))
            .chain(routines.iter().map(|(routine, _)| Runs::Paths {
                rounds: routine.rounds(),
            }))
            .collect();
        functions.extend(routines.into_iter().map(|(_, input)| input));
        let codes = codegen::compile_with(&*codegen::backend(target)?, &functions)?;
        let counts = counts::totals(&functions, &runs, &codes);
        Ok(Kernels {
            counts: counts.into_iter().map(|count| count.map(|count| count.most)).collect(),
            bytes: codes.iter().map(|code| code.bytes.len() as u64).collect(),
        })
    }

    /// Unknown for an external function, as `None` stands for.
    fn count(&self, kernel: Option<KernelId>) -> Option<u64> {
        self.counts.get(kernel?.0 as usize).copied().flatten()
    }

    fn bytes(&self, kernel: Option<KernelId>) -> u64 {
        let bytes = kernel.and_then(|kernel| self.bytes.get(kernel.0 as usize));
        bytes.copied().unwrap_or(0)
    }

    /// For each operator that has rows: instructions of all steps, and how many they are.
    fn rows(&self, lowering: &Lowering) -> BTreeMap<OpId, (u64, u64)> {
        let mut rows: BTreeMap<OpId, Option<(u64, u64)>> = BTreeMap::new();
        for call in &lowering.row_calls {
            let steps = call.rows.map_or(0, |rows| u64::from(rows.steps.len()));
            let sum = rows.entry(call.op).or_insert(Some((0, 0)));
            *sum = (sum.zip(self.count(call.kernel))).map(|((sum, before), each)| (sum + steps * each, before + steps));
        }
        rows.into_iter().filter_map(|(op, rows)| Some((op, rows?))).collect()
    }
}
