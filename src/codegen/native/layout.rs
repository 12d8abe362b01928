//! Encoded blocks → bytes: branch forms, displacements, and what each block costs.

use super::emit::{Exit, Fixup, Piece};
use super::vcode::Origin;
use super::{Form, Isa, Machine};
use crate::codegen::debug::{self, DebugMap};
use cranelift_codegen::ir::SourceLoc;

/// Instructions executed for each run of a block or an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The block or edge.
    pub origin: Origin,
    /// Instructions of one run, at most.
    pub instructions: u32,
    /// How many of them depend on data.
    pub skippable: u32,
    /// Modelled cycles of one run, at most; 0 where there is no model.
    pub cycles: u32,
}

/// A branch whose form is being chosen.
struct Open<C> {
    condition: Option<C>,
    target: usize,
    form: usize,
}

/// Chooses for every branch the shortest form that reaches, encodes, and counts.
pub fn lay_out<T: Isa>(isa: &T, pieces: Vec<Piece<T::Condition>>, frame: u32) -> Machine {
    // Branches at the end of each piece; a target that follows needs none.
    let mut open: Vec<Vec<Open<T::Condition>>> = Vec::with_capacity(pieces.len());
    let mut inverted = vec![false; pieces.len()];
    for (index, piece) in pieces.iter().enumerate() {
        let branch = |condition, target| Open {
            condition,
            target,
            form: 0,
        };
        open.push(match piece.exit {
            Exit::None => Vec::new(),
            Exit::Jump(target) if target == index + 1 => Vec::new(),
            Exit::Jump(target) => vec![branch(None, target)],
            Exit::Branch(condition, yes, no) if no == index + 1 => vec![branch(Some(condition), yes)],
            Exit::Branch(condition, yes, no) if yes == index + 1 => {
                inverted[index] = true;
                vec![branch(Some(isa.invert(condition)), no)]
            }
            Exit::Branch(condition, yes, no) => vec![branch(Some(condition), yes), branch(None, no)],
        });
    }

    // Forms only grow, so this ends.
    let forms = |branch: &Open<T::Condition>| -> &'static [Form] { isa.forms(branch.condition) };
    let starts = loop {
        let mut starts = Vec::with_capacity(pieces.len());
        let mut at = 0i64;
        for (piece, branches) in pieces.iter().zip(&open) {
            starts.push(at);
            at += piece.asm.bytes.len() as i64;
            at += branches
                .iter()
                .map(|branch| i64::from(forms(branch)[branch.form].bytes))
                .sum::<i64>();
        }
        let mut grown = false;
        for (index, branches) in open.iter_mut().enumerate() {
            let mut at = starts[index] + pieces[index].asm.bytes.len() as i64;
            for branch in branches {
                let forms = isa.forms(branch.condition);
                let displacement = starts[branch.target] - at;
                let form = &forms[branch.form];
                at += i64::from(form.bytes);
                if (displacement < form.min || displacement > form.max) && branch.form + 1 < forms.len() {
                    branch.form += 1;
                    grown = true;
                }
            }
        }
        if !grown {
            break starts;
        }
    };

    let mut machine = Machine {
        bytes: Vec::new(),
        relocations: Vec::new(),
        costs: Vec::new(),
        frame,
        debug: DebugMap {
            body: pieces.first().map_or(0, |piece| piece.asm.body),
            ..DebugMap::default()
        },
    };
    for (index, piece) in pieces.iter().enumerate() {
        let base = machine.bytes.len() as u32;
        machine.relocations.extend(piece.asm.fixups.iter().map(|fixup| Fixup {
            offset: base + fixup.offset,
            ..*fixup
        }));
        for (offset, location) in &piece.asm.locations {
            debug::locate(&mut machine.debug.locations, base + offset, SourceLoc::new(*location));
        }
        let rules = piece.asm.frame.iter().map(|(offset, rule)| (base + offset, *rule));
        machine.debug.frame.extend(rules);
        machine.bytes.extend(&piece.asm.bytes);
        for branch in &open[index] {
            let displacement = starts[branch.target] - machine.bytes.len() as i64;
            machine
                .bytes
                .extend(isa.encode_branch(branch.condition, branch.form, displacement));
        }
        let modelled = isa.cycles(&piece.asm.bytes);
        // Of a form that is taken: the last of its instructions refills the pipeline. Where one that is not taken jumps over
        // another, it does as well.
        let refill = modelled.map_or(0, |_| isa.refill());
        let one = u32::from(modelled.is_some());
        let taken = |form: &Form| form.taken * one + refill;
        let not_taken = |form: &Form| form.not_taken * one + if form.taken > form.not_taken { refill } else { 0 };
        let branches: Vec<&Form> = open[index].iter().map(|branch| &forms(branch)[branch.form]).collect();
        // What both ways have in common belongs to the block, the rest to the edge.
        let (base, yes, no) = match (&piece.exit, &branches[..]) {
            (Exit::Jump(_), [jump]) => ([jump.taken, taken(jump)], [0; 2], [0; 2]),
            (Exit::Branch(..), [only]) => {
                let ways = [[only.taken, taken(only)], [only.not_taken, not_taken(only)]];
                let [yes, no] = if inverted[index] { [ways[1], ways[0]] } else { ways };
                ([0; 2], yes, no)
            }
            (Exit::Branch(..), [first, jump]) => (
                [0; 2],
                [first.taken, taken(first)],
                [first.not_taken + jump.taken, not_taken(first) + taken(jump)],
            ),
            _ => ([0; 2], [0; 2], [0; 2]),
        };
        machine.costs.push(Cost {
            origin: piece.origin,
            instructions: piece.asm.executed + base[0],
            skippable: piece.asm.skippable,
            cycles: modelled.unwrap_or(0) + base[1],
        });
        if let (Exit::Branch(..), Origin::Block(from)) = (&piece.exit, piece.origin) {
            for (index, [instructions, cycles]) in [yes, no].into_iter().enumerate() {
                machine.costs.push(Cost {
                    origin: Origin::Edge { from, index },
                    instructions,
                    skippable: 0,
                    cycles,
                });
            }
        }
    }
    // Nothing follows the last epilogue.
    let end = machine.bytes.len() as u32;
    machine.debug.frame.retain(|(offset, _)| *offset < end);
    machine
}
