//! What the user prefers, as a lowering and a plan: which dense layers do without scratch, which chains run row by row.

use super::{Goal, Options};
use crate::assemble;
use crate::codegen;
use crate::codegen::counts::{self, Runs};
use crate::error::Result;
use crate::graph::{Graph, OpId};
use crate::kernels::entry::stream::prepare;
use crate::kernels::lower::{self, Forms};
use crate::kernels::{Lowering, mac};
use crate::names::Names;
use crate::plan::{self, Plan, Streaming};
use crate::target::{Arch, Target};
use std::collections::BTreeMap;

/// Instructions for each hundred that streaming may cost a balanced build.
const PERCENT: u64 = 2;
/// Most operators of a balanced build for which streaming is tried: all kernels are compiled twice for it.
const OPERATORS: usize = 512;
/// Instructions of a step beside the kernel's: reading the tape, making pointers.
const STEP: u64 = 60;

/// Which forms of kernels are wanted: those by rows only if `by_rows` says that they can be used. Dense layers whose
/// scratch alone makes the arena larger do without, unless speed is preferred.
///
/// # Errors
/// Those of lowering and planning.
pub(super) fn lower(graph: &Graph, target: &Target, options: &Options, by_rows: bool) -> Result<(Lowering, Forms)> {
    let counted = matches!(target.arch(), Arch::Thumb2 | Arch::Riscv32) && graph.ops.len() <= OPERATORS;
    let rows = match options.goal {
        Goal::Ram => true,
        Goal::Balanced => counted,
        Goal::Speed | Goal::Size => false,
    };
    let mut forms = Forms {
        rows: rows && by_rows,
        ..Forms::default()
    };
    let lowering = lower::lower_with(graph, target, &forms)?;
    let candidate = |op: OpId| mac::has_lean_form(graph, op, target);
    if options.goal == Goal::Speed || !graph.op_ids().any(candidate) {
        return Ok((lowering, forms));
    }
    let with = plan::plan(graph, &lowering, options.io, Streaming::Never)?;
    let mut without = lowering.clone();
    for call in without.calls.iter_mut().filter(|call| candidate(call.op)) {
        call.scratch = None;
    }
    let least = plan::plan(graph, &without, options.io, Streaming::Never)?.arena_size;
    if least >= with.arena_size {
        return Ok((lowering, forms));
    }
    // A smaller arena by rows needs less, but that is known only afterwards.
    let limit = if options.goal == Goal::Ram { 0 } else { least };
    let steps = with.steps.iter().zip(&with.live);
    let lean = steps.filter(|(step, live)| candidate(step.op) && **live > limit);
    forms.lean = lean.map(|(step, _)| step.op).collect();
    Ok((lower::lower_with(graph, target, &forms)?, forms))
}

/// The plan. Of the lowering what it does not use is dropped, and what rows need is added.
///
/// # Errors
/// Those of planning and of compiling kernels.
pub(super) fn plan(graph: &Graph, lowering: &mut Lowering, target: &Target, options: &Options) -> Result<Plan> {
    if lowering.row_calls.is_empty() {
        return plan::plan(graph, lowering, options.io, Streaming::Never);
    }
    let (costs, total) = costs(graph, lowering, target)?;
    let cost = |op: OpId| match &costs {
        Some(costs) => costs.get(&op).copied(),
        None => Some(0),
    };
    let streaming = match options.goal {
        Goal::Ram => Streaming::Least(&cost),
        _ => Streaming::Within(&cost, total * PERCENT / 100),
    };
    let plan = plan::plan(graph, lowering, options.io, streaming)?;
    lowering.choose(|op| plan.by_rows(op));
    prepare(&plan, lowering);
    Ok(plan)
}

/// What running by rows costs each operator that can, and what all of them take as wholes; no costs where instructions
/// are not counted.
type Costs = (Option<BTreeMap<OpId, u64>>, u64);

fn costs(graph: &Graph, lowering: &Lowering, target: &Target) -> Result<Costs> {
    if !matches!(target.arch(), Arch::Thumb2 | Arch::Riscv32) {
        return Ok((None, 0));
    }
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
    let count = |kernel: crate::kernels::KernelId| counts[kernel.0 as usize].map(|count| count.most);
    let whole: BTreeMap<OpId, u64> = (lowering.calls.iter())
        .filter_map(|call| Some((call.op, count(call.kernel)?)))
        .collect();
    let mut rows: BTreeMap<OpId, Option<u64>> = BTreeMap::new();
    for call in &lowering.row_calls {
        let steps = call.rows.map_or(0, |rows| u64::from(rows.steps.len()));
        let sum = rows.entry(call.op).or_insert(Some(0));
        *sum = sum
            .zip(count(call.kernel))
            .map(|(sum, each)| sum + steps * (each + STEP));
    }
    let costs = rows
        .into_iter()
        .filter_map(|(op, rows)| Some((op, rows?.saturating_sub(*whole.get(&op)?))));
    Ok((Some(costs.collect()), whole.values().sum()))
}
