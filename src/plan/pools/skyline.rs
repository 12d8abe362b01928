//! How much of a memory is live when.

use super::super::rows::{Item, Meeting};
use super::{Group, Problem};
use std::collections::{BTreeMap, BTreeSet};

/// Live bytes of what is in a memory at each step, where what may lie over something does.
pub(super) struct Skyline {
    /// Bytes at each step.
    pub live: Vec<i64>,
    inside: Vec<bool>,
    /// Of an item that is born in a step, bytes that it has in common with others.
    saved: BTreeMap<(usize, usize), u64>,
    change: Vec<i64>,
}

/// What a group adds over the steps of its life; the bytes are in [`Skyline::change`].
struct Change {
    first: usize,
    last: usize,
    /// Bytes in common, as in [`Skyline::saved`].
    saved: BTreeMap<(usize, usize), u64>,
}

impl Skyline {
    /// Of a memory with nothing in it.
    pub fn new(problem: &Problem) -> Skyline {
        Skyline {
            live: vec![0; problem.steps],
            inside: vec![false; problem.items.len()],
            saved: BTreeMap::new(),
            change: vec![0; problem.steps],
        }
    }

    /// What a group would add.
    fn change(&mut self, problem: &Problem, group: usize) -> Change {
        let Group { items, .. } = &problem.groups[group];
        let (first, last) = problem.span(items);
        self.change[first..=last].fill(0);
        for item in items {
            let Item { pieces, align } = &problem.items[*item];
            let align = if pieces.len() == 1 { *align } else { 1 };
            for piece in pieces {
                let bytes = piece.size.next_multiple_of(align) as i64;
                self.change[piece.first..=piece.last]
                    .iter_mut()
                    .for_each(|live| *live += bytes);
            }
        }
        let mut saved: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for at in items
            .iter()
            .flat_map(|item| &problem.of[*item])
            .filter(|at| seen.insert(**at))
        {
            let Meeting {
                step,
                input,
                output,
                gap,
                ..
            } = problem.meetings[*at];
            let here = |item: usize| self.inside[item] || items.contains(&item);
            if !here(input.0) || !here(output.0) || !(first..=last).contains(&step) {
                continue;
            }
            let known = self.saved.get(&(output.0, step)).copied().unwrap_or(0);
            let more = saved.entry((output.0, step)).or_insert(0);
            let bytes = (input.2.min(output.2.saturating_sub(gap))).min(output.2.saturating_sub(known + *more));
            *more += bytes;
            self.change[step] -= bytes as i64;
        }
        Change { first, last, saved }
    }

    /// Whether a group fits beside what is there.
    pub fn fits(&mut self, problem: &Problem, group: usize, capacity: u64) -> bool {
        let Change { first, last, .. } = self.change(problem, group);
        let capacity = i64::try_from(capacity).unwrap_or(i64::MAX);
        (first..=last).all(|step| self.live[step] + self.change[step] <= capacity)
    }

    /// Puts a group there.
    pub fn add(&mut self, problem: &Problem, group: usize) {
        let Change { first, last, saved } = self.change(problem, group);
        for step in first..=last {
            self.live[step] += self.change[step];
        }
        for (at, bytes) in saved {
            *self.saved.entry(at).or_insert(0) += bytes;
        }
        for item in &problem.groups[group].items {
            self.inside[*item] = true;
        }
    }
}
