//! Which operators run row by row, and in which order their steps come.
//!
//! A segment is a run of operators whose rows are pulled: the last operator's next row asks its sources for the rows that
//! it needs, and these theirs. Rows die when they are read for the last time, so no whole tensor exists inside a segment.
//! Between segments tensors are whole. Which cuts give the least peak is a shortest path over positions; among those
//! with the same peak the cheapest in instructions is taken.

use super::model::{Model, Rows};

/// Most operators of a segment.
const LONGEST: usize = 64;
/// Steps that are simulated in all.
const WORK: u64 = 24 << 20;

/// How the rows of a segment follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Way {
    /// From the last row to the first.
    pub up: bool,
    /// Sources are asked from the last to the first.
    pub reversed: bool,
}

/// One step: the operator's position, and the row, if it makes one, with its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Step {
    pub op: usize,
    pub row: Option<(u32, u32)>,
}

/// A run of operators that is scheduled together: one as a whole if there is no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Segment {
    pub first: usize,
    pub end: usize,
    pub way: Option<Way>,
    pub peak: u64,
    pub cost: u64,
}

/// All segments worth considering, by first position.
pub(in super::super) struct Segments(Vec<Vec<Segment>>);

impl Segments {
    pub fn new(model: &Model) -> Self {
        let mut work = 0;
        let all = (0..model.ops.len()).map(|first| {
            let mut list = vec![model.whole(first)];
            for end in first + 1..=(first + LONGEST).min(model.ops.len()) {
                let Some(rows) = model.ops[first..end]
                    .iter()
                    .map(|op| op.rows.as_ref())
                    .collect::<Option<Vec<_>>>()
                else {
                    break;
                };
                if work > WORK {
                    break;
                }
                let cost = rows.iter().map(|rows| rows.cost).sum();
                let mut best: Option<Segment> = None;
                for way in [(false, false), (true, false), (false, true), (true, true)] {
                    let way = Way {
                        up: way.0,
                        reversed: way.1,
                    };
                    let fed = model.feed.is_some_and(|feed| (first..end).contains(&feed));
                    if way.up && fed || way.reversed && rows.iter().all(|rows| rows.sources.len() < 2) {
                        continue;
                    }
                    let pulled = Pulled::new(model, first, end, way);
                    work += pulled.steps.len() as u64;
                    let peak = pulled.peak(model);
                    if best.is_none_or(|best| peak < best.peak) {
                        best = Some(Segment {
                            first,
                            end,
                            way: Some(way),
                            peak,
                            cost,
                        });
                    }
                }
                list.extend(best);
            }
            list
        });
        Segments(all.collect())
    }

    /// The cuts with the least peak.
    pub fn least_peak(&self) -> u64 {
        let mut best = vec![u64::MAX; self.0.len() + 1];
        best[0] = 0;
        for (first, list) in self.0.iter().enumerate() {
            for segment in list {
                best[segment.end] = best[segment.end].min(best[first].max(segment.peak));
            }
        }
        best.last().copied().unwrap_or(0)
    }

    /// All peaks up to `most`, in rising order.
    pub fn peaks(&self, most: u64) -> Vec<u64> {
        let mut peaks: Vec<u64> = self
            .0
            .iter()
            .flatten()
            .map(|s| s.peak)
            .filter(|peak| *peak <= most)
            .collect();
        peaks.sort_unstable();
        peaks.dedup();
        peaks
    }

    /// The cheapest cuts whose peaks are at most `limit`, with their cost; of equal ones those with the fewest rows.
    pub fn cheapest(&self, limit: u64) -> Option<(u64, Vec<Segment>)> {
        const NONE: (u64, usize, u64) = (u64::MAX, usize::MAX, u64::MAX);
        let mut best = vec![NONE; self.0.len() + 1];
        let mut from: Vec<Option<Segment>> = vec![None; self.0.len() + 1];
        best[0] = (0, 0, 0);
        for (first, list) in self.0.iter().enumerate() {
            if best[first] == NONE {
                continue;
            }
            for segment in list.iter().filter(|segment| segment.peak <= limit) {
                let streamed = if segment.way.is_some() { segment.end - first } else { 0 };
                let (cost, rows, peaks) = best[first];
                let rank = (cost + segment.cost, rows + streamed, peaks.max(segment.peak));
                if rank < best[segment.end] {
                    best[segment.end] = rank;
                    from[segment.end] = Some(*segment);
                }
            }
        }
        let mut cuts = Vec::new();
        let mut end = self.0.len();
        while end > 0 {
            let segment = from[end]?;
            end = segment.first;
            cuts.push(segment);
        }
        cuts.reverse();
        Some((best.last()?.0, cuts))
    }
}

impl Model {
    /// An operator that runs as a whole.
    fn whole(&self, at: usize) -> Segment {
        let op = &self.ops[at];
        let write: u64 = op.writes.iter().map(|s| self.stores[*s].bytes).sum();
        let touched = |s: &usize| op.reads.contains(s) || op.writes.contains(s);
        let mut live = self.passing(at, at + 1, &touched);
        live += write + op.scratch;
        live += op
            .reads
            .iter()
            .filter(|s| !op.writes.contains(s))
            .map(|s| self.stores[*s].bytes)
            .sum::<u64>();
        let over = op
            .overlaps
            .iter()
            .filter(|over| !self.stores[over.storage].leaves(at + 1));
        let saved: u64 = over
            .map(|over| over.saved(self.stores[over.storage].bytes, write))
            .sum();
        Segment {
            first: at,
            end: at + 1,
            way: None,
            peak: live - saved.min(write),
            cost: 0,
        }
    }

    /// Bytes of what is there before `first` and needed from `end` on, without what is `touched` between.
    fn passing(&self, first: usize, end: usize, touched: &dyn Fn(&usize) -> bool) -> u64 {
        let passes = |s: &usize| self.stores[*s].enters(first) && self.stores[*s].leaves(end) && !touched(s);
        (0..self.stores.len())
            .filter(passes)
            .map(|s| self.stores[s].bytes)
            .sum()
    }

    /// All steps of `segments`.
    pub fn steps(&self, segments: &[Segment]) -> Vec<Step> {
        let mut steps = Vec::new();
        for segment in segments {
            match segment.way {
                None => steps.push(Step {
                    op: segment.first,
                    row: None,
                }),
                Some(way) => steps.extend(Pulled::new(self, segment.first, segment.end, way).steps),
            }
        }
        steps
    }
}

/// The steps of a segment.
struct Pulled {
    first: usize,
    end: usize,
    steps: Vec<Step>,
}

impl Pulled {
    fn new(model: &Model, first: usize, end: usize, way: Way) -> Self {
        let rows: Vec<&Rows> = model.ops[first..end].iter().filter_map(|op| op.rows.as_ref()).collect();
        // Rows that are needed of what each makes: those that only windows would skip are not made.
        let mut counts: Vec<u32> = rows.iter().map(|rows| rows.steps).collect();
        for at in (first..end).rev() {
            let made = model.ops[at].writes[0];
            let store = &model.stores[made];
            if store.leaves(end) || rows[at - first].accumulates {
                continue;
            }
            let needed = store.users.iter().flat_map(|user| {
                let (rows, count) = (rows[*user - first], counts[*user - first]);
                let of = rows.sources.iter().filter(|source| source.storage == made);
                of.map(move |source| source.interval(count.saturating_sub(1)).1 + 1)
            });
            counts[at - first] = needed.max().unwrap_or(1).min(counts[at - first]);
        }
        let mut pulled = Pulled {
            first,
            end,
            steps: Vec::with_capacity(counts.iter().map(|count| *count as usize).sum()),
        };
        let mut done = vec![0u32; end - first];
        // Rows of a storage in the order in which they come: those made here may be fewer than it has.
        let made = |storage: usize| match model.stores[storage].producer {
            Some(at) if at >= first && !rows[at - first].accumulates => counts[at - first],
            _ => model.stores[storage].rows,
        };
        let mut stack: Vec<(usize, u32)> = Vec::new();
        for last in (0..end - first).rev() {
            stack.push((last, counts[last]));
            while let Some((op, count)) = stack.last().copied() {
                if done[op] >= count {
                    stack.pop();
                    continue;
                }
                let turn = done[op];
                let row = if way.up { counts[op] - 1 - turn } else { turn };
                let missing = |i: usize| {
                    let source = &rows[op].sources[i];
                    let at = model.stores[source.storage].producer.filter(|at| *at >= first)? - first;
                    let (low, high) = source.interval(row);
                    let need = match (rows[at].accumulates, way.up) {
                        (true, _) => counts[at],
                        (_, false) => (high + 1).min(counts[at]),
                        (_, true) => made(source.storage).saturating_sub(low),
                    };
                    (done[at] < need).then_some((at, need))
                };
                let sources = rows[op].sources.len();
                let next = if way.reversed {
                    (0..sources).rev().find_map(missing)
                } else {
                    (0..sources).find_map(missing)
                };
                match next {
                    Some(before) => stack.push(before),
                    None => {
                        pulled.steps.push(Step {
                            op: first + op,
                            row: Some((row, turn)),
                        });
                        done[op] += 1;
                    }
                }
            }
        }
        pulled
    }

    /// The most bytes that are live.
    fn peak(&self, model: &Model) -> u64 {
        let lives = Lives::new(model, &self.steps, self.first, self.end);
        let touched = |s: &usize| lives.rows[*s].is_some();
        lives.peak(model, &self.steps) + model.passing(self.first, self.end, &touched)
    }
}

/// First and last step of a row, if it is ever live.
type Life = Option<(usize, usize)>;

/// When each row of what the steps touch is live, in steps.
pub(in super::super) struct Lives {
    /// By storage, for each row its first and last step; `None` for a row that is never live. What enters is live from
    /// step 0 on, what leaves until the last.
    pub rows: Vec<Option<Vec<Life>>>,
    /// By position, from the first operator's on: first and last step of those that run by rows.
    pub ops: Vec<Option<(usize, usize)>>,
    first: usize,
    end: usize,
}

impl Lives {
    /// Of the steps of the operators at `first .. end`.
    pub fn new(model: &Model, steps: &[Step], first: usize, end: usize) -> Self {
        let mut rows: Vec<Option<Vec<Life>>> = vec![None; model.stores.len()];
        let mut ops = vec![None; end - first];
        let last = steps.len().saturating_sub(1);
        for op in &model.ops[first..end] {
            for s in op.reads.iter().chain(&op.writes) {
                let store = &model.stores[*s];
                // What is read again later stays; what is not is live until its last read.
                let born = store.enters(first);
                rows[*s].get_or_insert_with(|| {
                    let life = match (born, store.leaves(end)) {
                        (true, true) => Some((0, last)),
                        _ => None,
                    };
                    vec![life; store.rows as usize]
                });
            }
        }
        let extend = |life: &mut Option<(usize, usize)>, at: usize, born: usize| match life {
            Some(life) => life.1 = life.1.max(at),
            None => *life = Some((born, at)),
        };
        for (at, step) in steps.iter().enumerate() {
            let op = &model.ops[step.op];
            if step.row.is_some() {
                extend(&mut ops[step.op - first], at, at);
            }
            let by_rows = step.row.and_then(|row| Some((row, op.rows.as_ref()?)));
            let Some(((row, turn), by_rows)) = by_rows else {
                for s in op.reads.iter().chain(&op.writes) {
                    let born = if model.stores[*s].enters(first) { 0 } else { at };
                    rows[*s].iter_mut().flatten().for_each(|life| extend(life, at, born));
                }
                continue;
            };
            for source in &by_rows.sources {
                let born = if model.stores[source.storage].enters(first) {
                    0
                } else {
                    at
                };
                let (low, high) = source.interval(row);
                if let Some(rows) = &mut rows[source.storage] {
                    for life in &mut rows[low as usize..=high as usize] {
                        extend(life, at, born);
                    }
                }
            }
            for s in &op.writes {
                let made = match by_rows.accumulates {
                    true => (turn + 1 == by_rows.steps).then_some(0),
                    false => Some(row as usize),
                };
                if let (Some(rows), Some(made)) = (&mut rows[*s], made) {
                    let until = if model.stores[*s].leaves(end) { last } else { at };
                    extend(&mut rows[made], until, at);
                }
            }
        }
        // What leaves lives to the end, also where a row was read before it.
        for (s, rows) in rows.iter_mut().enumerate() {
            if model.stores[s].leaves(end) {
                rows.iter_mut().flatten().flatten().for_each(|life| life.1 = last);
            }
        }
        Lives { rows, ops, first, end }
    }

    /// Live bytes at each step.
    pub fn live(&self, model: &Model, steps: &[Step]) -> Vec<u64> {
        let mut change = vec![0i128; steps.len() + 1];
        let mut add = |(first, last): (usize, usize), bytes: u64| {
            change[first] += i128::from(bytes);
            change[last + 1] -= i128::from(bytes);
        };
        for (s, rows) in self.rows.iter().enumerate() {
            let unit = model.stores[s].arena_unit();
            for life in rows.iter().flatten().flatten() {
                add(*life, unit);
            }
        }
        for (op, life) in self.ops.iter().enumerate() {
            if let (Some(life), Some(rows)) = (life, &model.ops[self.first + op].rows) {
                add(*life, rows.state);
            }
        }
        let mut saved = vec![0u64; steps.len()];
        for (at, step) in steps.iter().enumerate() {
            let op = &model.ops[step.op];
            let (scratch, overlaps, unit) = match (step.row, &op.rows) {
                (Some(_), Some(rows)) => (
                    rows.scratch,
                    &rows.overlaps,
                    op.writes.first().map_or(0, |s| model.stores[*s].arena_unit()),
                ),
                _ => (
                    op.scratch,
                    &op.overlaps,
                    op.writes.iter().map(|s| model.stores[*s].bytes).sum(),
                ),
            };
            add((at, at), scratch);
            let sum: u64 = overlaps
                .iter()
                .map(|over| self.saved(model, step, at, over, unit))
                .sum();
            saved[at] = sum.min(unit);
        }
        let mut live = 0;
        (change.iter().zip(&saved))
            .map(|(change, saved)| {
                live += change;
                (live - i128::from(*saved)) as u64
            })
            .collect()
    }

    /// Bytes that the result of a step, of `unit` bytes, has in common with what dies in it.
    fn saved(&self, model: &Model, step: &Step, at: usize, over: &super::super::storage::Over, unit: u64) -> u64 {
        let store = &model.stores[over.storage];
        let Some(rows) = &self.rows[over.storage] else {
            return 0;
        };
        let dies = |life: &Option<(usize, usize)>| life.is_some_and(|(_, last)| last == at);
        match step.row {
            None if rows.iter().all(dies) && !store.leaves(step.op + 1) => over.saved(store.bytes, unit),
            Some((row, _)) => {
                if store.leaves(self.end) {
                    return 0;
                }
                let (low, high) = model.ops[step.op].reads_of(over.storage, row);
                let read = rows[low as usize..=high as usize]
                    .iter()
                    .filter(|life| dies(life))
                    .count() as u64;
                // Rows that die without being read, as those of an input that no window takes, are free for the result.
                let unread = rows.iter().filter(|life| dies(life)).count() as u64 - read;
                over.saved(read * store.arena_unit(), unit) + unread * store.arena_unit()
            }
            None => 0,
        }
    }

    fn peak(&self, model: &Model, steps: &[Step]) -> u64 {
        self.live(model, steps).into_iter().max().unwrap_or(0)
    }
}
