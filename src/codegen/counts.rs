//! How many instructions a call executes: known when it is compiled, as kernels have constant trip counts. A sum of
//! products of what a run of each block and edge costs and of how often it runs.

use super::native::layout::Cost;
use super::native::vcode::Origin;
use super::{Code, Input};
use cranelift_codegen::ir::{Block, Function, InstructionData};
use std::collections::BTreeMap;

/// An edge: the block it leaves, and which of its successors it goes to.
pub type Edge = (Block, usize);

/// Runs of every edge in one call, given those of every block. Where blocks carry upper bounds (data-dependent paths),
/// edges do too. Edges that the flow leaves undetermined are missing.
pub fn edge_runs(func: &Function, executions: &[(Block, u64)]) -> BTreeMap<Edge, u64> {
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
        if runs.len() == before {
            return runs;
        }
    }
}

/// Instructions that one call executes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instructions {
    /// At most.
    pub most: u64,
    /// How many of them depend on data.
    pub skippable: u64,
    /// Modelled cycles, at most: as [`Timing`](super::timing::Timing) has it; 0 where it has nothing.
    pub cycles: u64,
}

impl Instructions {
    /// At least.
    pub fn least(self) -> u64 {
        self.most - self.skippable
    }

    /// `self + times × other`.
    pub fn plus(self, other: Instructions, times: u64) -> Self {
        let sum = |a: u64, b: u64| a.saturating_add(b.saturating_mul(times));
        Instructions {
            most: sum(self.most, other.most),
            skippable: sum(self.skippable, other.skippable),
            cycles: sum(self.cycles, other.cycles),
        }
    }

    /// Of ways of which data decide.
    fn either(ways: &[Instructions]) -> Self {
        let most = ways.iter().map(|way| way.most).max().unwrap_or(0);
        let least = ways.iter().map(|way| way.least()).min().unwrap_or(0);
        Instructions {
            most,
            skippable: most - least,
            cycles: ways.iter().map(|way| way.cycles).max().unwrap_or(0),
        }
    }
}

/// What one run of each block and each edge executes.
#[derive(Default)]
struct Weights {
    blocks: BTreeMap<Block, Instructions>,
    edges: BTreeMap<Edge, Instructions>,
}

impl Weights {
    fn new(costs: &[Cost]) -> Self {
        let mut weights = Weights::default();
        for cost in costs {
            let entry = match cost.origin {
                Origin::Block(block) => weights.blocks.entry(block).or_default(),
                Origin::Edge { from, index } => weights.edges.entry((from, index)).or_default(),
            };
            let cost = Instructions {
                most: cost.instructions.into(),
                skippable: cost.skippable.into(),
                cycles: cost.cycles.into(),
            };
            *entry = entry.plus(cost, 1);
        }
        weights
    }

    fn block(&self, block: Block) -> Instructions {
        self.blocks.get(&block).copied().unwrap_or_default()
    }

    fn edge(&self, edge: Edge) -> Instructions {
        self.edges.get(&edge).copied().unwrap_or_default()
    }

    /// The sum over known runs of the blocks. `None` if a block with a cost has none.
    fn sum(&self, func: &Function, executions: &[(Block, u64)]) -> Option<Instructions> {
        let runs: BTreeMap<Block, u64> = executions.iter().copied().collect();
        let known = edge_runs(func, executions);
        let mut sum = Instructions::default();
        for (block, weight) in &self.blocks {
            sum = sum.plus(*weight, *runs.get(block)?);
        }
        // Of the edges of a block whose runs data decide, each run takes one.
        let mut open: BTreeMap<Block, Vec<Instructions>> = BTreeMap::new();
        for (edge, weight) in &self.edges {
            match known.get(edge) {
                Some(runs) => sum = sum.plus(*weight, *runs),
                None => open.entry(edge.0).or_default().push(*weight),
            }
        }
        for (block, weights) in open {
            sum = sum.plus(Instructions::either(&weights), *runs.get(&block)?);
        }
        Some(sum)
    }

    /// The longest and the shortest path through a function whose only loops are of one block, run `rounds` times; `None`
    /// if it has others. `succeeds` says that shorter paths are not complete runs: then only what the longest one may
    /// skip is skippable.
    fn paths(&self, func: &Function, rounds: u64, succeeds: bool) -> Option<Instructions> {
        let mut entering: BTreeMap<Block, usize> = BTreeMap::new();
        for block in func.layout.blocks() {
            entering.entry(block).or_default();
            for to in successors(func, block).into_iter().filter(|to| *to != block) {
                *entering.entry(to).or_default() += 1;
            }
        }
        let longer = |old: Option<Instructions>, new: Instructions| match old {
            None => new,
            Some(old) if succeeds => {
                if new.most > old.most {
                    new
                } else {
                    old
                }
            }
            Some(old) => Instructions::either(&[old, new]),
        };
        let mut ready: Vec<Block> = func.layout.entry_block().into_iter().collect();
        let mut before: BTreeMap<Block, Instructions> = BTreeMap::new();
        let (mut done, mut result) = (0, None);
        while let Some(block) = ready.pop() {
            done += 1;
            let next = successors(func, block);
            let mut here = before.get(&block).copied().unwrap_or_default();
            match next.iter().position(|to| *to == block) {
                Some(back) => {
                    here = here.plus(self.block(block), rounds);
                    here = here.plus(self.edge((block, back)), rounds.saturating_sub(1));
                }
                None => here = here.plus(self.block(block), 1),
            }
            if next.is_empty() {
                result = Some(longer(result, here));
            }
            for (index, to) in next.into_iter().enumerate().filter(|(_, to)| *to != block) {
                let there = here.plus(self.edge((block, index)), 1);
                let there = longer(before.get(&to).copied(), there);
                before.insert(to, there);
                let left = entering.get_mut(&to)?;
                *left -= 1;
                if *left == 0 {
                    ready.push(to);
                }
            }
        }
        result.filter(|_| done == entering.len())
    }
}

/// What one call of `func` executes, its callees not included, given the runs of its blocks and the machine code's
/// costs. `None` if the runs of a block are not there.
pub fn instructions(func: &Function, executions: &[(Block, u64)], costs: &[Cost]) -> Option<Instructions> {
    Weights::new(costs).sum(func, executions)
}

/// How often the blocks of a function run.
#[derive(Clone, Copy, Debug)]
pub enum Runs<'a> {
    /// As a kernel's generator recorded it.
    Known(&'a [(Block, u64)]),
    /// Once, or not at all, as data decide; loops of a single block this often.
    Paths {
        /// Rounds of each loop.
        rounds: u64,
    },
    /// Once, or not at all where an error ends the run.
    Straight,
}

/// What one call of each function executes, its callees among `inputs` included. `None` where the back end does not
/// count, or runs are not known.
pub fn totals(inputs: &[Input], runs: &[Runs], codes: &[Code]) -> Vec<Option<Instructions>> {
    let index: BTreeMap<&str, usize> = codes
        .iter()
        .enumerate()
        .map(|(i, code)| (code.name.as_str(), i))
        .collect();
    let mut totals: Vec<Option<Instructions>> = vec![None; inputs.len()];
    // Callees first: each round counts what calls only what is counted.
    loop {
        let mut more = false;
        for (i, ((input, code), runs)) in inputs.iter().zip(codes).zip(runs).enumerate() {
            if totals[i].is_some() || code.costs.is_empty() {
                continue;
            }
            let callee = |name: &str| totals[*index.get(name)?];
            let mut weights = Weights::new(&code.costs);
            let called = super::call_sites(input).try_for_each(|(block, name)| {
                let entry = weights.blocks.entry(block).or_default();
                *entry = entry.plus(callee(name)?, 1);
                Some(())
            });
            if called.is_none() {
                continue;
            }
            totals[i] = match *runs {
                Runs::Known(executions) => weights.sum(&input.function, executions),
                Runs::Paths { rounds } => weights.paths(&input.function, rounds, false),
                Runs::Straight => weights.paths(&input.function, 0, true),
            };
            more |= totals[i].is_some();
        }
        if !more {
            return totals;
        }
    }
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
        let runs = edge_runs(&built.function, &built.executions);
        let mut counts: Vec<u64> = runs.into_values().collect();
        counts.sort_unstable();
        // Into the outer loop, its back edge, into the inner loop, its exits, its back edge, and the last exit.
        assert_eq!(counts, [1, 1, 4, 5, 5, 30]);
    }

    /// Functions of 10 instructions a block and 1 an edge but back edges, which take 2.
    fn costs(func: &Function) -> Vec<Cost> {
        let mut costs = Vec::new();
        for block in func.layout.blocks() {
            costs.push(Cost {
                origin: Origin::Block(block),
                instructions: 10,
                skippable: 0,
                cycles: 0,
            });
            for (index, to) in successors(func, block).into_iter().enumerate() {
                costs.push(Cost {
                    origin: Origin::Edge { from: block, index },
                    instructions: 1 + u32::from(to == block),
                    skippable: 0,
                    cycles: 0,
                });
            }
        }
        costs
    }

    fn parsed(text: &str) -> Function {
        cranelift_reader::parse_functions(text).expect("valid text").remove(0)
    }

    fn total(func: Function, runs: Runs) -> Option<Instructions> {
        let code = Code {
            name: "f".into(),
            exported: false,
            bytes: Vec::new(),
            align: 4,
            relocations: Vec::new(),
            labels: Vec::new(),
            frame: 0,
            calls: Vec::new(),
            costs: costs(&func),
            float: false,
            debug: Default::default(),
        };
        let input = Input {
            name: "f".into(),
            exported: false,
            function: func,
            symbols: Vec::new(),
        };
        totals(&[input], &[runs], &[code])[0]
    }

    const DIAMOND: &str = "function %f(i32) {
        block0(v0: i32): brif v0, block1, block3
        block1: jump block2
        block2: jump block3
        block3: return
    }";

    #[test]
    fn paths_through_a_diamond() {
        let through = Instructions {
            most: 43,
            skippable: 22,
            cycles: 0,
        };
        assert_eq!(total(parsed(DIAMOND), Runs::Paths { rounds: 1 }), Some(through));
        let longest = Instructions {
            most: 43,
            ..Instructions::default()
        };
        assert_eq!(total(parsed(DIAMOND), Runs::Straight), Some(longest));
    }

    #[test]
    fn loops_of_one_block_have_rounds_and_others_none() {
        let func = parsed(
            "function %f(i32) {
            block0(v0: i32): jump block1
            block1: brif v0, block1, block2
            block2: return
        }",
        );
        let seven = Instructions {
            most: 10 + 1 + 7 * 10 + 6 * 2 + 1 + 10,
            ..Instructions::default()
        };
        assert_eq!(total(func, Runs::Paths { rounds: 7 }), Some(seven));
        let func = parsed(
            "function %f(i32) {
            block0(v0: i32): jump block1
            block1: jump block2
            block2: brif v0, block1, block3
            block3: return
        }",
        );
        assert_eq!(total(func, Runs::Paths { rounds: 7 }), None);
    }

    #[test]
    fn either_edge_to_the_same_block() {
        let func = parsed(
            "function %f(i32) {
            block0(v0: i32): brif v0, block1, block1
            block1: return
        }",
        );
        let blocks: Vec<(Block, u64)> = func.layout.blocks().map(|block| (block, 5)).collect();
        let exact = Instructions {
            most: 5 * 21,
            ..Instructions::default()
        };
        assert_eq!(total(func.clone(), Runs::Known(&blocks)), Some(exact));
        assert_eq!(total(func, Runs::Known(&blocks[..1])), None);
    }
}
