//! How often each edge of a function runs, from how often its blocks run.
//!
//! Kernels have constant trip counts, so the number of instructions that one call executes is a sum of products known
//! when it is compiled.

use super::native::layout::Cost;
use super::native::vcode::Origin;
use cranelift_codegen::ir::{Block, Function, InstructionData};
use std::collections::BTreeMap;

/// An edge: the block it leaves, and which of its successors it goes to.
pub type Edge = (Block, usize);

/// Runs of every edge in one call, given those of every block. Where blocks carry upper bounds (data-dependent paths),
/// edges do too. `None` if the flow leaves an edge undetermined.
pub fn edge_runs(func: &Function, executions: &[(Block, u64)]) -> Option<BTreeMap<Edge, u64>> {
    let blocks: BTreeMap<Block, u64> = executions.iter().copied().collect();
    let edges: Vec<(Edge, Block)> = func
        .layout
        .blocks()
        .flat_map(|block| {
            successors(func, block)
                .into_iter()
                .enumerate()
                .map(move |(i, to)| ((block, i), to))
        })
        .collect();
    let mut runs: BTreeMap<Edge, u64> = BTreeMap::new();
    loop {
        let before = runs.len();
        for (edge, to) in &edges {
            if runs.contains_key(edge) {
                continue;
            }
            let out: Vec<Edge> = edges.iter().filter(|(e, _)| e.0 == edge.0).map(|(e, _)| *e).collect();
            let into: Vec<Edge> = edges.iter().filter(|(_, t)| t == to).map(|(e, _)| *e).collect();
            // The edge is what its siblings leave over, if they are known; entering edges first, because they are exact
            // where leaving ones of a data-dependent branch are bounds.
            let rest = |siblings: &[Edge], total: Option<&u64>| -> Option<u64> {
                let known: Option<u64> = siblings
                    .iter()
                    .filter(|e| *e != edge)
                    .map(|e| runs.get(e).copied())
                    .sum();
                Some(total?.saturating_sub(known?))
            };
            let found = if out.len() == 1 {
                blocks.get(&edge.0).copied()
            } else {
                rest(&into, blocks.get(to))
            };
            if let Some(count) = found.or_else(|| rest(&out, blocks.get(&edge.0))) {
                runs.insert(*edge, count);
            }
        }
        if runs.len() == edges.len() {
            return Some(runs);
        }
        if runs.len() == before {
            return None;
        }
    }
}

/// Instructions that one call of a function executes, its callees not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instructions {
    /// At most.
    pub most: u64,
    /// How many of them depend on data.
    pub skippable: u64,
}

/// What one call of `func` executes, given the runs of its blocks and the machine code's costs. `None` if the runs of
/// an edge cannot be told.
pub fn instructions(func: &Function, executions: &[(Block, u64)], costs: &[Cost]) -> Option<Instructions> {
    let blocks: BTreeMap<Block, u64> = executions.iter().copied().collect();
    let edges = edge_runs(func, executions)?;
    let mut sum = Instructions::default();
    for cost in costs {
        let runs = match cost.origin {
            Origin::Block(block) => *blocks.get(&block)?,
            Origin::Edge { from, index } => *edges.get(&(from, index))?,
        };
        sum.most = sum.most.saturating_add(runs.saturating_mul(cost.instructions.into()));
        sum.skippable = sum.skippable.saturating_add(runs.saturating_mul(cost.skippable.into()));
    }
    Some(sum)
}

fn successors(func: &Function, block: Block) -> Vec<Block> {
    let pool = &func.dfg.value_lists;
    match func.layout.last_inst(block).map(|inst| &func.dfg.insts[inst]) {
        Some(InstructionData::Jump { destination, .. }) => vec![destination.block(pool)],
        Some(InstructionData::Brif { blocks, .. }) => blocks.iter().map(|call| call.block(pool)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::emit::build;
    use crate::target::Target;

    #[test]
    fn nested_loops_have_exact_edges() {
        let target = Target::new(Some("x86_64-unknown-linux-gnu"), None, None).expect("a known triple");
        let built = build(&target, 1, |e| {
            let base = e.args[0];
            e.counted(5, &[(base, 16)], &[], |e, rows, _| {
                e.counted(7, &[(rows[0], 1)], &[], |e, cells, _| {
                    let zero = e.i32(0);
                    e.store_i8(zero, cells[0], 0);
                    vec![]
                });
                vec![]
            });
        });
        let runs = edge_runs(&built.function, &built.executions).expect("loops determine their edges");
        let mut counts: Vec<u64> = runs.into_values().collect();
        counts.sort_unstable();
        // Into the outer loop, its back edge, into the inner loop, its exits, its back edge, and the last exit.
        assert_eq!(counts, [1, 1, 4, 5, 5, 30]);
    }
}
