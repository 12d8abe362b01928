//! The schedules that a layer could have had, each compiled and counted: what `inspect --schedules` prints.

use super::{Build, Goal};
use crate::codegen::counts::{self, Instructions, Runs};
use crate::codegen::timing::Timing;
use crate::codegen::{self, Input};
use crate::error::Result;
use crate::graph::OpId;
use crate::kernels::lower::lower_op;
use crate::kernels::lowered::Lowered;
use crate::kernels::rows::row_form;
use crate::kernels::{Call, Kernel, mac};
use crate::output::report::{self, Report};
use crate::target::{Arch, Effort, LoopForm, Target, Without};
use cranelift_codegen::ir::{Block, Function};
use std::collections::BTreeMap;

/// Most operators whose schedules are compared: for each, about ten kernels are compiled.
const OPERATORS: usize = 512;

/// A way to ask for another schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The build's own goal, before it looks at what the whole model may take.
    Same,
    /// Another `--optimize`.
    Goal(Goal),
    /// The form without scratch.
    Lean,
    /// Under a restriction.
    Without(Without),
    /// One row at a time.
    Rows,
}

impl Way {
    /// In words.
    fn describe(self) -> String {
        match self {
            Way::Same => String::new(),
            Way::Goal(goal) => format!("--optimize {}", goal.name()),
            Way::Lean => "without scratch".into(),
            Way::Without(Without::Nothing) => String::new(),
            Way::Without(Without::Form(form)) => format!("without {}", form.name()),
            Way::Without(Without::TilesAbove(channels)) => format!("tiles of at most {channels} channels"),
            Way::Rows => "row by row".into(),
        }
    }
}

/// The kernels of one way to compute an operator.
struct Candidate {
    op: OpId,
    way: Way,
    schedule: String,
    scratch: u64,
    /// Kernels by their numbers among all, and how often each is called.
    calls: Vec<(usize, u64)>,
}

/// All kernels that are compared.
#[derive(Default)]
struct Kernels {
    functions: Vec<Function>,
    executions: Vec<Vec<(Block, u64)>>,
}

impl Kernels {
    /// The number of a kernel, the same for equal ones.
    fn add(&mut self, lowered: Lowered) -> usize {
        let built = lowered.built;
        let known = (self.functions.iter()).position(|function| function.stencil == built.function.stencil);
        known.unwrap_or_else(|| {
            self.functions.push(built.function);
            self.executions.push(built.executions);
            self.functions.len() - 1
        })
    }
}

/// Machine code of kernels, and how often each is called.
type Calls<'a> = Vec<(&'a [u8], u64)>;

/// What a call of each kernel costs.
struct Costs {
    counts: Vec<Option<Instructions>>,
    code: Vec<u64>,
    bytes: Vec<Vec<u8>>,
    /// Runs of the intermediate code's instructions, where no others are counted.
    estimates: Vec<u64>,
}

impl Build {
    /// The report with, for each layer, what it could have been and what that costs.
    ///
    /// # Errors
    /// Those of lowering and compiling kernels.
    pub fn report_with_schedules(&self) -> Result<Report> {
        let mut report = self.report();
        if self.plan.order.len() > OPERATORS {
            return Ok(report);
        }
        let mut candidates = self.candidates()?;
        for layer in &mut report.layers {
            let op = self.plan.order[layer.index];
            layer.candidates = candidates.remove(&op).unwrap_or_default();
        }
        Ok(report)
    }

    /// The target that kernels were chosen for.
    fn chosen_for(&self) -> Target {
        Target {
            effort: self.options.goal.effort(),
            ..self.options.target.clone()
        }
    }

    fn candidates(&self) -> Result<BTreeMap<OpId, Vec<report::Candidate>>> {
        let target = self.chosen_for();
        let mut kernels = Kernels::default();
        let mut all = Vec::new();
        for call in self.lowering.all_calls() {
            let known = all.last().is_some_and(|last: &Candidate| last.op == call.op);
            if call.kernel.is_some() && Some(call.op) != self.lowering.feed && !known {
                self.ways(call, &target, &mut kernels, &mut all)?;
            }
        }
        let costs = self.costs(kernels, &target)?;
        let mut by_op: BTreeMap<OpId, Vec<report::Candidate>> = BTreeMap::new();
        // Of equal kernels the first stands for all.
        let mut seen: BTreeMap<OpId, Vec<Calls>> = BTreeMap::new();
        for candidate in &all {
            let code: Calls = (candidate.calls.iter())
                .map(|(kernel, runs)| (costs.bytes[*kernel].as_slice(), *runs))
                .collect();
            let known = seen.entry(candidate.op).or_default();
            let rows = by_op.entry(candidate.op).or_default();
            if let Some(first) = known.iter().position(|other| *other == code) {
                // A restriction that changes nothing says nothing.
                if !matches!(candidate.way, Way::Without(_)) {
                    rows[first].asked_by.push(candidate.way.describe());
                }
                continue;
            }
            rows.push(self.candidate(candidate, &costs));
            known.push(code);
        }
        for (op, rows) in &mut by_op {
            self.name_own(*op, rows);
            rows.sort_by_key(|row| (!row.chosen, row.instructions.map(|count| count.most).or(row.estimate)));
        }
        Ok(by_op)
    }

    /// Says which candidate the build has, and what the one is that it would have had for itself.
    fn name_own(&self, op: OpId, candidates: &mut [report::Candidate]) {
        let goal = format!("--optimize {}", self.options.goal.name());
        let other = match () {
            () if self.plan.by_rows(op) => "as a whole",
            () if candidates
                .iter()
                .any(|row| row.chosen && row.asked_by.iter().any(|way| *way == Way::Lean.describe())) =>
            {
                "with scratch"
            }
            () => "shorter code",
        };
        for candidate in candidates {
            let own = candidate.asked_by.iter().position(String::is_empty);
            if let Some(own) = own {
                candidate.asked_by.remove(own);
            }
            if candidate.chosen {
                candidate.asked_by.insert(0, goal.clone());
            } else if own.is_some() {
                candidate.asked_by.insert(0, other.into());
            }
        }
    }

    /// All ways to compute an operator, the build's own first.
    fn ways(&self, call: &Call, target: &Target, kernels: &mut Kernels, all: &mut Vec<Candidate>) -> Result<()> {
        let op = call.op;
        let goals = [Goal::Balanced, Goal::Speed, Goal::Ram, Goal::Size];
        let goals = goals.into_iter().filter(|goal| *goal != self.options.goal);
        let forms = LoopForm::ALL.map(|form| Way::Without(Without::Form(form)));
        let lean = mac::has_lean_form(&self.graph, op, target).then_some(Way::Lean);
        let tile = (self.lowering.kernels.iter().zip(0..))
            .find(|(_, id)| call.kernel.is_some_and(|kernel| kernel.0 == *id))
            .and_then(|(kernel, _)| kernel.layouts?.tile);
        let narrower = tile.filter(|tile| tile.channels > 2).map(|tile| {
            let half = tile.channels.div_ceil(2);
            Way::Without(Without::TilesAbove(if half > 4 { half / 4 * 4 } else { half }))
        });
        let ways = [Way::Same]
            .into_iter()
            .chain(goals.map(Way::Goal))
            .chain(lean)
            .chain(forms)
            .chain(narrower);
        for way in ways {
            let target = &match way {
                Way::Goal(goal) => Target {
                    effort: goal.effort(),
                    ..target.clone()
                },
                Way::Without(without) => Target {
                    without,
                    ..target.clone()
                },
                _ => target.clone(),
            };
            let lowered = match way {
                Way::Lean => Some(mac::fully_connected_lean(&self.graph, op, target)?),
                _ => lower_op(&self.graph, op, target)?,
            };
            let Some(lowered) = lowered else { continue };
            all.push(Candidate {
                op,
                way,
                schedule: lowered.schedule.clone(),
                scratch: lowered.scratch.map_or(0, |scratch| scratch.size),
                calls: vec![(kernels.add(lowered), 1)],
            });
        }
        let whole = self.options.steps || self.options.hooks;
        if let Some(form) = row_form(&self.graph, op, target)?.filter(|_| !whole) {
            let most = form.calls.iter().max_by_key(|(steps, _)| steps.len());
            let scratch = form.calls.iter().filter_map(|(_, lowered)| lowered.scratch);
            let state = form.state.map_or(0, |state| state.size);
            all.push(Candidate {
                op,
                way: Way::Rows,
                schedule: most.map_or_else(String::new, |(_, lowered)| lowered.schedule.clone()),
                scratch: scratch.map(|scratch| scratch.size).max().unwrap_or(0) + state,
                calls: (form.calls.into_iter())
                    .map(|(steps, lowered)| (kernels.add(lowered), u64::from(steps.len())))
                    .collect(),
            });
        }
        Ok(())
    }

    fn costs(&self, kernels: Kernels, target: &Target) -> Result<Costs> {
        let Kernels { functions, executions } = kernels;
        let estimates = functions
            .iter()
            .zip(&executions)
            .map(|(function, executions)| executed(function, executions));
        let estimates = estimates.collect();
        let own = functions.len();
        let mut inputs: Vec<Input> = (functions.into_iter().enumerate())
            .map(|(index, function)| Input {
                name: format!("candidate {index}"),
                exported: false,
                function,
                symbols: Vec::new(),
            })
            .collect();
        let symbol = |routine| self.names.routine(routine).symbol.clone();
        let routines = codegen::soften(&mut inputs, target, symbol)?;
        let runs: Vec<Runs> = (executions.iter().map(|executions| Runs::Known(executions)))
            .chain(routines.iter().map(|(routine, _)| Runs::Paths {
                rounds: routine.rounds(),
            }))
            .collect();
        inputs.extend(routines.into_iter().map(|(_, input)| input));
        let codes = codegen::compile_with(&*codegen::backend(target)?, &inputs)?;
        let mut counts = counts::totals(&inputs, &runs, &codes);
        counts.truncate(own);
        Ok(Costs {
            counts,
            code: codes.iter().map(|code| code.bytes.len() as u64).collect(),
            bytes: codes.into_iter().take(own).map(|code| code.bytes).collect(),
            estimates,
        })
    }

    fn candidate(&self, candidate: &Candidate, costs: &Costs) -> report::Candidate {
        let Candidate { op, way, calls, .. } = candidate;
        let count = calls.iter().try_fold(Instructions::default(), |sum, (kernel, runs)| {
            Some(sum.plus(costs.counts[*kernel]?, *runs))
        });
        let estimate = calls.iter().map(|(kernel, runs)| costs.estimates[*kernel] * runs).sum();
        let cycles = Timing::of(&self.options.target).and(count).map(|count| count.cycles);
        report::Candidate {
            chosen: self.is_chosen(*op, *way, calls, costs),
            schedule: candidate.schedule.clone(),
            asked_by: vec![way.describe()],
            instructions: count.map(super::describe::counted),
            cycles,
            estimate: count.is_none().then_some(estimate),
            code: calls.iter().map(|(kernel, _)| costs.code[*kernel]).sum(),
            scratch: candidate.scratch,
        }
    }

    /// Whether it is what the build has: the same code for the operator.
    fn is_chosen(&self, op: OpId, way: Way, calls: &[(usize, u64)], costs: &Costs) -> bool {
        if self.plan.by_rows(op) {
            return way == Way::Rows;
        }
        let whole = self.lowering.calls.iter().find(|call| call.op == op);
        let kernel = whole
            .filter(|call| call.launches.is_empty())
            .and_then(|call| call.kernel);
        let (Some(kernel), [(candidate, 1)]) = (kernel, calls) else {
            return false;
        };
        // Machine code refers to nothing but routines: equal kernels have equal bytes.
        way != Way::Rows && self.kernels[kernel.0 as usize].bytes == costs.bytes[*candidate]
    }
}

/// Executed instructions of a kernel's intermediate code.
pub fn estimate(kernel: &Kernel) -> u64 {
    executed(&kernel.function, &kernel.executions)
}

fn executed(function: &Function, executions: &[(Block, u64)]) -> u64 {
    let instructions = |block: Block| function.layout.block_insts(block).count() as u64;
    executions.iter().map(|(block, runs)| runs * instructions(*block)).sum()
}

/// Whether instructions are counted for a target; else they are estimated from intermediate code.
pub fn counts_instructions(target: &Target) -> bool {
    matches!(target.arch(), Arch::Thumb2 | Arch::Riscv32)
}

impl Goal {
    /// As `--optimize` takes it.
    pub fn name(self) -> &'static str {
        match self.effort() {
            Effort::Speed => "speed",
            Effort::Balanced => "balanced",
            Effort::Ram => "ram",
            Effort::Size => "size",
        }
    }
}
