//! In which order the calls run.
//!
//! The state after k calls is the set of calls done; the bytes live then depend on that set alone. So the least peak
//! is a bottleneck shortest path over these sets, level by level. Levels are cut to a fixed width, which makes this a
//! beam search on graphs with many branches and exact on all others.

use super::storage::Storages;
use std::collections::BTreeMap;

/// Most calls for which another order is looked for.
const CALLS: usize = 4096;
/// States kept in all levels together.
const STATES: usize = 1 << 16;
/// States expanded before the search gives up.
const STEPS: usize = 1 << 19;

/// A set of calls that are done, and the cheapest way found to it.
struct State {
    ready: Vec<u32>,
    live: u64,
    peak: u64,
    /// Pairs of calls that the graph has the other way round: ties fall to its order.
    inversions: u64,
    /// Index of the last call in the list of all ways.
    way: usize,
}

/// Calls in execution order: the graph's order unless another has a lower peak. `size` is what a storage takes in the
/// arena.
pub(super) fn order(storages: &Storages, size: &dyn Fn(usize) -> u64, scratch: &dyn Fn(usize) -> u64) -> Vec<usize> {
    let given: Vec<usize> = (0..storages.steps.len()).collect();
    let model = Model::new(storages, size, scratch);
    let peak = model.peak(&given);
    if given.len() > CALLS || peak == model.least() {
        return given;
    }
    match model.search() {
        Some((found, order)) if found < peak => order,
        _ => given,
    }
}

/// How many members of a set are smaller than `limit`.
fn below(set: &[u64], limit: u32) -> u32 {
    let (words, rest) = (limit as usize / 64, limit % 64);
    let whole: u32 = set[..words].iter().map(|word| word.count_ones()).sum();
    whole + (set[words] & ((1 << rest) - 1)).count_ones()
}

struct Model<'a> {
    storages: &'a Storages,
    size: Vec<u64>,
    scratch: Vec<u64>,
    users: Vec<Vec<u32>>,
    /// For each call, the calls whose results it reads.
    needs: Vec<Vec<u32>>,
    /// Bytes live before the first call.
    start: u64,
}

impl<'a> Model<'a> {
    fn new(storages: &'a Storages, size: &dyn Fn(usize) -> u64, scratch: &dyn Fn(usize) -> u64) -> Self {
        let mut users = vec![Vec::new(); storages.list.len()];
        let mut producer = vec![None; storages.list.len()];
        for (call, step) in storages.steps.iter().enumerate() {
            step.reads.iter().for_each(|s| users[*s].push(call as u32));
            step.writes.iter().for_each(|s| producer[*s] = Some(call as u32));
        }
        let needs = storages
            .steps
            .iter()
            .map(|step| {
                let mut needs: Vec<u32> = step.reads.iter().filter_map(|s| producer[*s]).collect();
                needs.sort_unstable();
                needs.dedup();
                needs
            })
            .collect();
        let size: Vec<u64> = (0..storages.list.len()).map(size).collect();
        let inputs = storages.list.iter().zip(&size).filter(|(s, _)| s.input.is_some());
        Model {
            storages,
            start: inputs.map(|(_, size)| size).sum(),
            size,
            scratch: (0..storages.steps.len()).map(scratch).collect(),
            users,
            needs,
        }
    }

    /// Bytes that any order needs: those of the largest call.
    fn least(&self) -> u64 {
        let call = |i: usize| {
            let step = &self.storages.steps[i];
            let bytes: u64 = step.reads.iter().chain(&step.writes).map(|s| self.size[*s]).sum();
            let write: u64 = step.writes.iter().map(|s| self.size[*s]).sum();
            let saved: u64 = (step.overlaps.iter())
                .map(|over| over.saved(self.size[over.storage], write))
                .sum();
            bytes + self.scratch[i] - saved.min(write)
        };
        (0..self.storages.steps.len()).map(call).max().unwrap_or(0)
    }

    /// Bytes live while and after `call` runs, `live` before it, given which calls are done before.
    fn run(&self, call: usize, live: u64, done: &dyn Fn(u32) -> bool) -> (u64, u64) {
        let step = &self.storages.steps[call];
        let with = live + step.writes.iter().map(|s| self.size[*s]).sum::<u64>();
        let over = |s: &&usize| {
            self.storages.list[**s].output.is_none() && self.users[**s].iter().all(|u| *u == call as u32 || done(*u))
        };
        let dead: u64 = step
            .reads
            .iter()
            .chain(&step.writes)
            .filter(over)
            .map(|s| self.size[*s])
            .sum();
        let write: u64 = step.writes.iter().map(|s| self.size[*s]).sum();
        let saved = step.overlaps.iter().filter(|o| over(&&o.storage));
        let saved: u64 = saved.map(|o| o.saved(self.size[o.storage], write)).sum();
        (with + self.scratch[call] - saved.min(write), with - dead)
    }

    /// Peak of live bytes of an order.
    fn peak(&self, order: &[usize]) -> u64 {
        let mut done = vec![false; order.len()];
        let (mut live, mut peak) = (self.start, 0);
        for call in order {
            let (during, after) = self.run(*call, live, &|u| done[u as usize]);
            done[*call] = true;
            live = after;
            peak = peak.max(during);
        }
        peak
    }

    /// The best order found and its peak; `None` if the search gave up.
    fn search(&self) -> Option<(u64, Vec<usize>)> {
        let calls = self.storages.steps.len();
        let width = (STATES / calls).max(4);
        let words = calls.div_ceil(64);
        let mut followers = vec![Vec::new(); calls];
        for (call, needs) in self.needs.iter().enumerate() {
            needs.iter().for_each(|n| followers[*n as usize].push(call as u32));
        }
        let first = State {
            ready: (0..calls as u32)
                .filter(|c| self.needs[*c as usize].is_empty())
                .collect(),
            live: self.start,
            peak: 0,
            inversions: 0,
            way: usize::MAX,
        };
        let mut ways: Vec<(usize, u32)> = Vec::new();
        let mut level = vec![(vec![0u64; words], first)];
        let mut steps = 0;
        for _ in 0..calls {
            let mut next: BTreeMap<Vec<u64>, State> = BTreeMap::new();
            for (set, state) in &level {
                let has = |call: u32| set[call as usize / 64] >> (call % 64) & 1 == 1;
                for call in &state.ready {
                    steps += 1;
                    if steps > STEPS {
                        return None;
                    }
                    let (during, live) = self.run(*call as usize, state.live, &has);
                    let peak = state.peak.max(during);
                    let mut after = set.clone();
                    after[*call as usize / 64] |= 1 << (call % 64);
                    let inversions = state.inversions + u64::from(call - below(set, *call));
                    let rank = (peak, inversions);
                    if next
                        .get(&after)
                        .is_some_and(|known| (known.peak, known.inversions) <= rank)
                    {
                        continue;
                    }
                    let mut ready: Vec<u32> = state.ready.iter().copied().filter(|c| c != call).collect();
                    ready.extend(followers[*call as usize].iter().filter(|f| {
                        let mut needs = self.needs[**f as usize].iter();
                        needs.all(|n| n == call || has(*n))
                    }));
                    let way = ways.len();
                    ways.push((state.way, *call));
                    let state = State {
                        ready,
                        live,
                        peak,
                        inversions,
                        way,
                    };
                    next.insert(after, state);
                }
            }
            level = next.into_iter().collect();
            level.sort_by_key(|(_, state)| (state.peak, state.live, state.inversions));
            level.truncate(width);
        }
        let (_, last) = level.first()?;
        let mut order = Vec::with_capacity(calls);
        let mut way = last.way;
        while let Some((before, call)) = ways.get(way) {
            order.push(*call as usize);
            way = *before;
        }
        order.reverse();
        Some((last.peak, order))
    }
}

#[cfg(test)]
mod tests {
    use super::super::storage::{Step, Storage};
    use super::*;

    /// `reads → writes` of each call; sizes by storage; `outputs` stay live.
    fn graph(sizes: &[u64], calls: &[(&[usize], usize)], outputs: &[usize]) -> Storages {
        Storages {
            of: (0..sizes.len()).collect(),
            list: (0..sizes.len())
                .map(|i| Storage {
                    bytes: sizes[i],
                    input: (i == 0).then_some(0),
                    output: outputs.iter().position(|o| *o == i),
                    ..Storage::default()
                })
                .collect(),
            steps: calls
                .iter()
                .map(|(reads, write)| Step {
                    reads: reads.to_vec(),
                    writes: vec![*write],
                    ..Step::default()
                })
                .collect(),
        }
    }

    fn best(storages: &Storages) -> (Vec<usize>, u64) {
        let size = |s: usize| storages.list[s].bytes;
        let order = order(storages, &size, &|_| 0);
        let peak = Model::new(storages, &size, &|_| 0).peak(&order);
        (order, peak)
    }

    #[test]
    fn a_chain_keeps_its_order() {
        let chain = graph(&[8, 64, 32, 8], &[(&[0], 1), (&[1], 2), (&[2], 3)], &[3]);
        assert_eq!(best(&chain), (vec![0, 1, 2], 96));
    }

    /// Two branches, each wide then narrow, interleaved: one after the other needs half.
    #[test]
    fn branches_run_one_after_the_other() {
        let branches = graph(
            &[1, 100, 100, 1, 1, 2],
            &[(&[0], 1), (&[0], 2), (&[1], 3), (&[2], 4), (&[3, 4], 5)],
            &[5],
        );
        assert_eq!(best(&branches), (vec![0, 2, 1, 3, 4], 102));
    }

    #[test]
    fn an_order_without_gain_is_the_given_one() {
        let even = graph(&[1, 5, 5, 2], &[(&[0], 1), (&[0], 2), (&[1, 2], 3)], &[3]);
        assert_eq!(best(&even).0, vec![0, 1, 2]);
    }

    /// A dead result counts while its call runs and not after.
    #[test]
    fn unused_results_die_at_once() {
        let dead = graph(&[4, 100, 100], &[(&[0], 1), (&[0], 2)], &[2]);
        assert_eq!(best(&dead).1, 104);
    }

    /// 12 independent branches have 3^12 sets: the beam holds the width and still finds the peak.
    #[test]
    fn many_branches_stay_within_the_width() {
        let n = 12;
        let sizes: Vec<u64> = std::iter::once(1)
            .chain((0..n).flat_map(|_| [100, 1]))
            .chain([4])
            .collect();
        let wide: Vec<Vec<usize>> = (0..n).map(|i| vec![2 * i + 1]).collect();
        let last: Vec<usize> = (0..n).map(|i| 2 * i + 2).collect();
        let mut calls: Vec<(&[usize], usize)> = (0..n).map(|i| (&[0usize][..], 2 * i + 1)).collect();
        calls.extend((0..n).map(|i| (wide[i].as_slice(), 2 * i + 2)));
        calls.push((&last, 2 * n + 1));
        assert_eq!(best(&graph(&sizes, &calls, &[2 * n + 1])).1, 100 + n as u64);
    }
}
