//! Moves that register allocation puts in and nobody needs: spills of what the slot holds already (regalloc2 stores
//! unchanged values again on every round of a loop), loads of what the register holds, and moves nobody reads.
//!
//! The allocator's checker runs on what is left.

use super::vcode::{MachineInst, VCode};
use regalloc2::{Allocation, Block, Edit, Function as _, Inst, InstOrEdit, OperandKind, Output, PReg, ProgPoint};

/// Removes them.
pub fn clean<I: MachineInst>(code: &VCode<I>, output: &mut Output) {
    redundant(code, output);
    dead(code, output);
}

/// A place for a value: registers by their index, slots behind them.
fn place(allocation: Allocation) -> Option<usize> {
    match (allocation.as_reg(), allocation.as_stack()) {
        (Some(register), _) => Some(register.index()),
        (_, Some(slot)) => Some(PReg::NUM_INDEX + slot.index()),
        _ => None,
    }
}

/// A block's instructions, and moves with their position among all moves.
enum Item {
    Inst(Inst),
    Move { at: usize, from: usize, to: usize },
}

fn items<I: MachineInst>(code: &VCode<I>, output: &Output) -> Vec<Vec<Item>> {
    let mut at = 0;
    (0..code.blocks.len())
        .map(|block| {
            output
                .block_insts_and_edits(code, Block::new(block))
                .filter_map(|item| match item {
                    InstOrEdit::Inst(inst) => Some(Item::Inst(inst)),
                    InstOrEdit::Edit(Edit::Move { from, to }) => {
                        at += 1;
                        let (from, to) = (place(*from)?, place(*to)?);
                        Some(Item::Move { at: at - 1, from, to })
                    }
                })
                .collect()
        })
        .collect()
}

fn retain(output: &mut Output, keep: &[bool]) {
    let mut keep = keep.iter();
    output
        .edits
        .retain(|_: &(ProgPoint, Edit)| *keep.next().unwrap_or(&true));
}

/// What a place holds: which instruction put it there, or that it depends on where control came from. Equal numbers are
/// equal values.
type Number = u64;

/// Removes moves to a place of what it holds.
fn redundant<I: MachineInst>(code: &VCode<I>, output: &mut Output) {
    let places = PReg::NUM_INDEX + output.num_spillslots;
    let blocks = items(code, output);
    let apply = |block: usize, state: &mut [Number], mut found: Option<&mut Vec<bool>>| {
        for item in &blocks[block] {
            match *item {
                Item::Inst(inst) => {
                    for register in code.inst_clobbers(inst) {
                        state[register.index()] = 1 << 60 | (inst.index() as u64) << 16 | register.index() as u64;
                    }
                    let operands = code
                        .inst_operands(inst)
                        .iter()
                        .zip(output.inst_allocs(inst))
                        .enumerate();
                    for (at, (operand, allocation)) in operands {
                        if let (OperandKind::Def, Some(place)) = (operand.kind(), place(*allocation)) {
                            state[place] = 2 << 60 | (inst.index() as u64) << 16 | at as u64;
                        }
                    }
                }
                Item::Move { at, from, to } => {
                    if let Some(keep) = &mut found {
                        keep[at] = state[from] != state[to];
                    }
                    state[to] = state[from];
                }
            }
        }
    };

    // Values at the start of each block: those that all predecessors agree on so far. Where they once disagree, the
    // block has a value of its own, so this ends.
    let own = |block: usize, place: usize| 3 << 60 | (block as u64) << 32 | place as u64;
    let mut starts: Vec<Option<Vec<Number>>> = vec![None; blocks.len()];
    let mut ends: Vec<Option<Vec<Number>>> = vec![None; blocks.len()];
    starts[0] = Some((0..places).map(|place| own(0, place)).collect());
    let mut changed = true;
    while changed {
        changed = false;
        for block in 0..blocks.len() {
            for pred in code.block_preds(Block::new(block)) {
                let Some(end) = &ends[pred.index()] else { continue };
                match &mut starts[block] {
                    None => {
                        starts[block] = Some(end.clone());
                        changed = true;
                    }
                    Some(start) => {
                        for (place, (start, end)) in start.iter_mut().zip(end).enumerate() {
                            let own = own(block, place);
                            if *start != *end && *start != own {
                                *start = own;
                                changed = true;
                            }
                        }
                    }
                }
            }
            if let Some(start) = &starts[block] {
                let mut state = start.clone();
                apply(block, &mut state, None);
                if ends[block].as_ref() != Some(&state) {
                    ends[block] = Some(state);
                    changed = true;
                }
            }
        }
    }
    let mut keep = vec![true; output.edits.len()];
    for (block, start) in starts.into_iter().enumerate() {
        if let Some(mut state) = start {
            apply(block, &mut state, Some(&mut keep));
        }
    }
    retain(output, &keep);
}

/// Removes moves to places that nothing reads before they are written again.
fn dead<I: MachineInst>(code: &VCode<I>, output: &mut Output) {
    let places = PReg::NUM_INDEX + output.num_spillslots;
    let blocks = items(code, output);
    let apply = |block: usize, live: &mut [bool], mut found: Option<&mut Vec<bool>>| {
        for item in blocks[block].iter().rev() {
            match *item {
                Item::Inst(inst) => {
                    for register in code.inst_clobbers(inst) {
                        live[register.index()] = false;
                    }
                    for kind in [OperandKind::Def, OperandKind::Use] {
                        for (operand, allocation) in code.inst_operands(inst).iter().zip(output.inst_allocs(inst)) {
                            if let (true, Some(place)) = (operand.kind() == kind, place(*allocation)) {
                                live[place] = kind == OperandKind::Use;
                            }
                        }
                    }
                }
                Item::Move { at, from, to } => {
                    let needed = live[to];
                    if let Some(keep) = &mut found {
                        keep[at] = needed;
                    }
                    if needed {
                        live[to] = false;
                        live[from] = true;
                    }
                }
            }
        }
    };
    let mut starts = vec![vec![false; places]; blocks.len()];
    let end = |block: usize, starts: &[Vec<bool>]| {
        let mut live = vec![false; places];
        for succ in code.block_succs(Block::new(block)) {
            for (live, start) in live.iter_mut().zip(&starts[succ.index()]) {
                *live |= start;
            }
        }
        live
    };
    let mut changed = true;
    while changed {
        changed = false;
        for block in (0..blocks.len()).rev() {
            let mut live = end(block, &starts);
            apply(block, &mut live, None);
            if live != starts[block] {
                starts[block] = live;
                changed = true;
            }
        }
    }
    let mut keep = vec![true; output.edits.len()];
    for block in 0..blocks.len() {
        apply(block, &mut end(block, &starts), Some(&mut keep));
    }
    retain(output, &keep);
}
