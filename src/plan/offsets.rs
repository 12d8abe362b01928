//! Where each buffer lies: dynamic storage allocation with known lifetimes.
//!
//! Heuristics first (first fit in several orders), then hill climbing over orders, then branch and bound. Every
//! placement can be pushed down until each buffer lies at 0 or on one that it conflicts with; taken by rising offset,
//! first fit finds it again. So orders are all there is to search. Limits count steps, never time.

use super::{Buffer, Pair};
#[cfg(test)]
use std::cell::Cell;
use std::collections::BTreeMap;

/// Pairs of conflicting buffers for which orders are searched; beyond, one pass in order of birth.
const CONFLICTS: usize = 4 << 20;
/// Conflicts that hill climbing may look at; of more than [`MANY`] buffers, where rounds are long and gain little.
const CLIMB: u64 = 16 << 20;
const CLIMB_MANY: u64 = 1 << 20;
const MANY: usize = 512;
/// Rounds of hill climbing without gain before it stops.
const PATIENCE: usize = 20_000;
/// Nodes of the exact search.
const NODES: u64 = 1 << 18;
/// Most buffers for the exact search.
const EXACT: usize = 64;

/// Sets the offsets and returns the size of the arena.
pub(super) fn place(buffers: &mut [Buffer], pairs: &[Pair], lower_bound: u64) -> Placed {
    let Some(conflicts) = conflicts(buffers) else {
        return Placed {
            size: by_birth(buffers),
            proven: false,
            #[cfg(test)]
            work: buffers.len() as u64,
        };
    };
    let mut over = vec![Vec::new(); buffers.len()];
    for pair in pairs {
        over[pair.input].push(*pair);
        over[pair.output].push(*pair);
    }
    let mut search = Search {
        buffers,
        conflicts,
        over,
        lower_bound,
        best: u64::MAX,
        offsets: Vec::new(),
        #[cfg(test)]
        work: Cell::new(0),
    };
    search.heuristics();
    if search.best > lower_bound {
        search.climb();
    }
    let proven = search.best == lower_bound || search.exact();
    #[cfg(test)]
    let work = search.work.get();
    let Search { best, offsets, .. } = search;
    for (buffer, offset) in buffers.iter_mut().zip(offsets) {
        buffer.offset = offset;
    }
    Placed {
        size: best,
        proven,
        #[cfg(test)]
        work,
    }
}

/// The result of [`place`].
pub(super) struct Placed {
    /// Bytes of the arena.
    pub size: u64,
    /// Whether no placement of these buffers is smaller.
    pub proven: bool,
    /// Conflicts that were looked at.
    #[cfg(test)]
    pub work: u64,
}

/// Bytes that a buffer takes, with what aligns the next.
fn extent(buffer: &Buffer) -> u64 {
    buffer.size.next_multiple_of(super::ALIGN)
}

/// Bytes that the two of a pair can have in common.
fn saved(buffers: &[Buffer], pair: &Pair) -> u64 {
    let (input, output) = (extent(&buffers[pair.input]), extent(&buffers[pair.output]));
    input.min(output.saturating_sub(pair.gap))
}

/// For each output of pairs the step at which it is made, and bytes that it can have in common with its inputs.
fn savings(buffers: &[Buffer], pairs: &[Pair]) -> BTreeMap<usize, (usize, u64)> {
    let mut savings = BTreeMap::new();
    for pair in pairs {
        let output = &buffers[pair.output];
        let (_, sum) = savings.entry(pair.output).or_insert((output.first, 0));
        *sum = extent(output).min(*sum + saved(buffers, pair));
    }
    savings
}

/// Peak of live bytes: no placement is smaller.
pub(super) fn lower_bound(buffers: &[Buffer], pairs: &[Pair], steps: usize) -> u64 {
    live(buffers, pairs, steps).into_iter().max().unwrap_or(0)
}

/// Live bytes at each step; those that pairs can have in common once.
pub(super) fn live(buffers: &[Buffer], pairs: &[Pair], steps: usize) -> Vec<u64> {
    let mut change = vec![0i128; steps.max(1) + 1];
    for buffer in buffers {
        change[buffer.first] += i128::from(extent(buffer));
        change[buffer.last + 1] -= i128::from(extent(buffer));
    }
    let mut live = 0;
    for (step, saved) in savings(buffers, pairs).into_values() {
        change[step] -= i128::from(saved);
        change[step + 1] += i128::from(saved);
    }
    change.pop();
    change
        .into_iter()
        .map(|change| {
            live += change;
            live as u64
        })
        .collect()
}

/// For each buffer, those that are live with it; `None` if there are too many pairs.
fn conflicts(buffers: &[Buffer]) -> Option<Vec<Vec<u32>>> {
    let mut by_first: Vec<usize> = (0..buffers.len()).collect();
    by_first.sort_by_key(|i| buffers[*i].first);
    let mut conflicts = vec![Vec::new(); buffers.len()];
    let mut active: Vec<usize> = Vec::new();
    let mut pairs = 0;
    for i in by_first {
        active.retain(|j| buffers[*j].last >= buffers[i].first);
        pairs += active.len();
        if pairs > CONFLICTS {
            return None;
        }
        for j in &active {
            conflicts[i].push(*j as u32);
            conflicts[*j].push(i as u32);
        }
        active.push(i);
    }
    Some(conflicts)
}

/// First fit in order of birth, for more buffers than the search takes.
fn by_birth(buffers: &mut [Buffer]) -> u64 {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|i| buffers[*i].first);
    // Live buffers by offset: (offset, end, last step).
    let mut active: Vec<(u64, u64, usize)> = Vec::new();
    let mut size = 0;
    for i in order {
        let first = buffers[i].first;
        active.retain(|(_, _, last)| *last >= first);
        let (align, bytes) = (buffers[i].align, extent(&buffers[i]));
        let mut offset = 0;
        let mut at = 0;
        for (start, end, _) in &active {
            if offset + bytes <= *start {
                break;
            }
            offset = offset.max(end.next_multiple_of(align));
            at += 1;
        }
        active.insert(at, (offset, offset + bytes, buffers[i].last));
        buffers[i].offset = offset;
        size = size.max(offset + bytes);
    }
    size
}

struct Search<'a> {
    buffers: &'a [Buffer],
    conflicts: Vec<Vec<u32>>,
    /// For each buffer the pairs that it belongs to.
    over: Vec<Vec<Pair>>,
    lower_bound: u64,
    best: u64,
    offsets: Vec<u64>,
    #[cfg(test)]
    work: Cell<u64>,
}

/// Fixed sequence of numbers (Knuth's MMIX constants).
pub(super) struct Lcg(pub u64);

impl Lcg {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

const UNPLACED: u64 = u64::MAX;

impl Search<'_> {
    fn pair(&self, i: usize, j: usize) -> Option<&Pair> {
        let with = |pair: &&Pair| pair.input + pair.output == i + j && (pair.input == j || pair.output == j);
        self.over[i].iter().find(with)
    }

    /// Offsets of buffer `i`, between the two, that `j` at `at` leaves no room for.
    fn forbidden(&self, i: usize, j: usize, at: u64) -> (i128, i128) {
        let (below, above) = match self.pair(i, j) {
            Some(pair) if pair.output == i => (pair.gap, extent(&self.buffers[j])),
            Some(pair) => (extent(&self.buffers[i]), pair.gap),
            None => (extent(&self.buffers[i]), extent(&self.buffers[j])),
        };
        let at = i128::from(at);
        (at - i128::from(below), at + i128::from(above))
    }

    /// How much higher buffer `i` must lie than at `offset` for its pairs to be multiples apart.
    fn shift(&self, i: usize, offset: u64, offsets: &[u64]) -> u64 {
        let mut most = 0;
        for pair in &self.over[i] {
            let (input, output) = match pair.input == i {
                true => (offset, offsets[pair.output]),
                false => (offsets[pair.input], offset),
            };
            let apart = input == UNPLACED
                || output == UNPLACED
                || input >= output + extent(&self.buffers[pair.output])
                || input < output;
            if apart {
                continue;
            }
            let rest = (input - output) % pair.modulus;
            let shift = if pair.input == i && rest > 0 {
                pair.modulus - rest
            } else {
                rest
            };
            most = most.max(shift);
        }
        most
    }

    /// First fit in `order`: each buffer at the lowest offset that is free over its life.
    fn first_fit(&self, order: &[usize]) -> (u64, Vec<u64>) {
        let mut offsets = vec![UNPLACED; self.buffers.len()];
        let mut taken: Vec<(i128, i128)> = Vec::new();
        let mut size = 0;
        for i in order {
            #[cfg(test)]
            self.work.set(self.work.get() + 1 + self.conflicts[*i].len() as u64);
            taken.clear();
            taken.extend(self.conflicts[*i].iter().filter_map(|j| {
                let start = offsets[*j as usize];
                (start != UNPLACED).then(|| self.forbidden(*i, *j as usize, start))
            }));
            taken.sort_unstable();
            let align = self.buffers[*i].align;
            let mut offset: u64 = 0;
            loop {
                for (start, end) in &taken {
                    if i128::from(offset) <= *start {
                        break;
                    }
                    if i128::from(offset) < *end {
                        offset = (*end as u64).next_multiple_of(align);
                    }
                }
                match self.shift(*i, offset, &offsets) {
                    0 => break,
                    shift => offset += shift,
                }
            }
            offsets[*i] = offset;
            size = size.max(offset + extent(&self.buffers[*i]));
        }
        (size, offsets)
    }

    fn try_order(&mut self, order: &[usize]) -> u64 {
        let (size, offsets) = self.first_fit(order);
        if size < self.best {
            self.best = size;
            self.offsets = offsets;
        }
        size
    }

    /// The usual orders: by size, by lifetime, by area, by bytes of conflicts, by birth.
    fn orders(&self) -> Vec<Vec<usize>> {
        let life = |b: &Buffer| (b.last - b.first + 1) as u64;
        let conflict = |i: usize| -> u64 {
            let bytes = |j: &u32| extent(&self.buffers[*j as usize]);
            self.conflicts[i].iter().map(bytes).sum::<u64>() + extent(&self.buffers[i])
        };
        let conflict: Vec<u64> = (0..self.buffers.len()).map(conflict).collect();
        let key = |kind: usize, i: usize| -> (u128, u128) {
            let b = &self.buffers[i];
            let (size, life, conflict) = (u128::from(extent(b)), u128::from(life(b)), u128::from(conflict[i]));
            match kind {
                0 => (size, life),
                1 => (life, size),
                2 => (size * life, size),
                3 => (conflict, size),
                _ => (u128::MAX - b.first as u128, size),
            }
        };
        (0..5)
            .map(|kind| {
                let mut order: Vec<usize> = (0..self.buffers.len()).collect();
                order.sort_by_key(|i| std::cmp::Reverse(key(kind, *i)));
                order
            })
            .collect()
    }

    fn heuristics(&mut self) {
        for order in self.orders() {
            self.try_order(&order);
        }
    }

    /// Swaps two buffers of an order as long as that does not make it worse, from the best of the usual orders.
    fn climb(&mut self) {
        let n = self.buffers.len();
        if n < 2 {
            return;
        }
        let cost = 1 + self.conflicts.iter().map(|list| list.len() as u64 + 1).sum::<u64>();
        let most = if n > MANY { CLIMB_MANY } else { CLIMB };
        let rounds = usize::try_from(most / cost).unwrap_or(usize::MAX);
        let mut orders: Vec<(u64, Vec<usize>)> = self
            .orders()
            .into_iter()
            .map(|order| (self.first_fit(&order).0, order))
            .collect();
        orders.sort_by_key(|(size, _)| *size);
        let Some((mut current, mut order)) = orders.into_iter().next() else {
            return;
        };
        let mut random = Lcg(0x0c0f_fee0);
        let mut idle = 0;
        for _ in 0..rounds {
            let (i, j) = (random.below(n), random.below(n));
            if i == j {
                continue;
            }
            order.swap(i, j);
            let size = self.try_order(&order);
            idle = if size < current { 0 } else { idle + 1 };
            if size <= current {
                current = size;
            } else {
                order.swap(i, j);
            }
            if self.best == self.lower_bound || idle > PATIENCE {
                break;
            }
        }
    }

    /// Branch and bound over orders by rising offset. Whether the best is proven to be the least.
    fn exact(&mut self) -> bool {
        let n = self.buffers.len();
        if n > EXACT {
            return false;
        }
        let steps = self.buffers.iter().map(|b| b.last + 1).max().unwrap_or(0);
        // Depth-first over an explicit stack: the placed buffers, and for each depth the candidates still to try.
        let mut offsets = vec![UNPLACED; n];
        let mut placed: Vec<(usize, u64)> = Vec::with_capacity(n);
        let mut left: Vec<Vec<(u64, usize)>> = vec![self.candidates(&offsets, (0, 0), steps)];
        let mut nodes = 0;
        while let Some(choices) = left.last_mut() {
            let Some((offset, i)) = choices.pop() else {
                left.pop();
                if let Some((i, _)) = placed.pop() {
                    offsets[i] = u64::MAX;
                }
                continue;
            };
            nodes += 1;
            if nodes > NODES {
                return false;
            }
            let top = placed
                .last()
                .map_or(0, |(_, top)| *top)
                .max(offset + extent(&self.buffers[i]));
            if top >= self.best {
                continue;
            }
            offsets[i] = offset;
            placed.push((i, top));
            if placed.len() == n {
                self.best = top;
                self.offsets.clone_from(&offsets);
                if top == self.lower_bound {
                    return true;
                }
            }
            left.push(self.candidates(&offsets, (offset, i), steps));
        }
        true
    }

    /// Buffers that may come next after one at `(offset, index)`, worst first; none if what is left cannot fit below the best.
    fn candidates(&self, offsets: &[u64], after: (u64, usize), steps: usize) -> Vec<(u64, usize)> {
        // Bytes that each step still needs above its skyline. What is placed later lies at `after` or above.
        let mut need = vec![0u64; steps];
        for (i, buffer) in self.buffers.iter().enumerate() {
            let unplaced = offsets[i] == u64::MAX;
            for bytes in &mut need[buffer.first..=buffer.last] {
                if unplaced {
                    *bytes += extent(buffer);
                }
            }
        }
        for pair in self.over.iter().flatten() {
            if offsets[pair.input] == UNPLACED || offsets[pair.output] == UNPLACED {
                let bytes = &mut need[self.buffers[pair.output].first];
                *bytes = bytes.saturating_sub(saved(self.buffers, pair));
            }
        }
        let mut floor = vec![after.0; steps];
        for (i, buffer) in self.buffers.iter().enumerate().filter(|(i, _)| offsets[*i] != u64::MAX) {
            for top in &mut floor[buffer.first..=buffer.last] {
                *top = (*top).max(offsets[i] + extent(buffer));
            }
        }
        if need
            .iter()
            .zip(&floor)
            .any(|(need, floor)| *need > 0 && floor + need >= self.best)
        {
            return Vec::new();
        }
        let mut list: Vec<(u64, usize)> = (0..self.buffers.len())
            .filter(|i| offsets[*i] == u64::MAX)
            .filter_map(|i| {
                let under = self.conflicts[i].iter().filter(|j| offsets[**j as usize] != u64::MAX);
                let mut offset = 0;
                // Inputs that the output may begin with: it lies level with one or above it.
                let mut level: Vec<(u64, u64)> = Vec::new();
                for j in under {
                    let at = offsets[*j as usize];
                    let end = self.forbidden(i, *j as usize, at).1 as u64;
                    match self.pair(i, *j as usize) {
                        Some(pair) if pair.output == i && pair.gap == 0 => level.push((at, end)),
                        _ => offset = offset.max(end),
                    }
                }
                offset = level.iter().fold(offset, |offset, (at, _)| offset.max(*at));
                level.sort_unstable();
                loop {
                    let before = offset;
                    for (at, end) in &level {
                        if *at < offset && offset < *end {
                            offset = *end;
                        }
                    }
                    offset = offset.next_multiple_of(self.buffers[i].align);
                    offset += self.shift(i, offset, offsets);
                    if offset == before {
                        break;
                    }
                }
                // By rising offset, equal offsets by index: every placement is met once.
                ((offset, i) >= after).then_some((offset, i))
            })
            .collect();
        list.sort_by_key(|(offset, i)| (std::cmp::Reverse(*offset), extent(&self.buffers[*i])));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(size, first, last)` of each buffer.
    fn buffers(list: &[(u64, usize, usize)]) -> Vec<Buffer> {
        list.iter()
            .map(|(size, first, last)| Buffer {
                size: *size,
                align: 16,
                first: *first,
                last: *last,
                ..Buffer::default()
            })
            .collect()
    }

    fn assert_apart(buffers: &[Buffer], size: u64) {
        for (i, a) in buffers.iter().enumerate() {
            assert!(a.offset + a.size <= size && a.offset % a.align == 0, "{a:?}");
            for b in &buffers[..i] {
                let together = a.first <= b.last && b.first <= a.last;
                assert!(
                    !together || a.offset + a.size <= b.offset || b.offset + b.size <= a.offset,
                    "{a:?} {b:?}"
                );
            }
        }
    }

    fn solve(list: &[(u64, usize, usize)]) -> (u64, u64, bool) {
        let mut buffers = buffers(list);
        let steps = list.iter().map(|(_, _, last)| last + 1).max().unwrap_or(0);
        let bound = lower_bound(&buffers, &[], steps);
        let placed = place(&mut buffers, &[], bound);
        assert_apart(&buffers, placed.size);
        (placed.size, bound, placed.proven)
    }

    #[test]
    fn no_buffers_take_no_bytes() {
        assert_eq!(solve(&[]), (0, 0, true));
    }

    #[test]
    fn a_chain_reaches_its_bound() {
        assert_eq!(
            solve(&[(64, 0, 1), (256, 1, 2), (128, 2, 3), (16, 3, 3)]),
            (384, 384, true)
        );
    }

    #[test]
    fn sizes_are_rounded_to_the_alignment() {
        assert_eq!(solve(&[(1, 0, 1), (17, 1, 1)]), (48, 48, true));
    }

    /// The first layers of vww with input and output in the arena: greedy by size takes 64,512.
    #[test]
    fn visual_wake_words_reaches_the_peak() {
        let chain = [
            27648, 18432, 18432, 36864, 9216, 18432, 18432, 18432, 4608, 9216, 9216, 9216, 2304, 4608,
        ];
        let list: Vec<(u64, usize, usize)> = chain
            .iter()
            .enumerate()
            .map(|(i, size)| (*size, i.saturating_sub(1), i.min(chain.len() - 2)))
            .collect();
        assert_eq!(solve(&list), (55296, 55296, true));
    }

    /// Whether some placement takes less than `size`, by counting through all of them in units of 16.
    fn beaten(list: &[(u64, usize, usize)], size: u64) -> bool {
        let items = buffers(list);
        let mut choice = vec![0u64; items.len()];
        loop {
            let apart = items.iter().enumerate().all(|(i, a)| {
                items[..i].iter().enumerate().all(|(j, b)| {
                    let (x, y) = (choice[i] * 16, choice[j] * 16);
                    a.first > b.last || b.first > a.last || x + a.size <= y || y + b.size <= x
                })
            });
            if apart {
                return true;
            }
            let mut digits = choice.iter_mut().zip(&items);
            let next = digits.find_map(|(c, item)| {
                *c = if (*c + 1) * 16 + item.size < size { *c + 1 } else { 0 };
                (*c > 0).then_some(())
            });
            if next.is_none() {
                return false;
            }
        }
    }

    #[test]
    fn small_problems_are_solved_exactly() {
        let mut random = Lcg(7);
        for _ in 0..40 {
            let list: Vec<(u64, usize, usize)> = (0..5)
                .map(|_| {
                    let first = random.below(4);
                    (16 * (1 + random.below(3) as u64), first, first + random.below(3))
                })
                .collect();
            let (size, _, proven) = solve(&list);
            assert!(proven && !beaten(&list, size), "{list:?}");
        }
    }

    /// No placement reaches the peak of live bytes, and the search proves it.
    #[test]
    fn a_gap_that_cannot_be_closed_is_proven() {
        let list = [
            (16, 0, 3),
            (48, 5, 6),
            (32, 4, 4),
            (32, 0, 0),
            (48, 1, 2),
            (32, 0, 0),
            (32, 3, 6),
            (16, 1, 4),
        ];
        assert_eq!(solve(&list), (96, 80, true));
        assert!(!beaten(&list, 96) && beaten(&list, 112));
    }

    /// Results over one or two inputs that die: what is placed keeps the distances, however it was found.
    #[test]
    fn pairs_keep_their_distances() {
        let mut random = Lcg(11);
        for round in 0..300 {
            let steps = 4 + random.below(3);
            let mut list: Vec<(u64, usize, usize)> = Vec::new();
            for step in 0..steps {
                for _ in 0..1 + random.below(2) {
                    list.push((
                        16 * (1 + random.below(4) as u64),
                        step,
                        (step + 1 + random.below(2)).min(steps - 1),
                    ));
                }
            }
            let mut buffers = buffers(&list);
            let mut pairs = Vec::new();
            for (output, born) in list.iter().enumerate() {
                let dying = list
                    .iter()
                    .enumerate()
                    .filter(|(i, input)| *i != output && input.2 == born.1 && input.1 < born.1);
                for (input, _) in dying {
                    // Of several results of a step one has the inputs.
                    if pairs.iter().all(|pair: &Pair| pair.input != input) {
                        let gap = 16 * random.below(2) as u64;
                        let modulus = 16;
                        pairs.push(Pair {
                            input,
                            output,
                            gap,
                            modulus,
                        });
                    }
                }
            }
            pairs.retain(|pair| pair.gap < list[pair.output].0);
            let bound = lower_bound(&buffers, &pairs, steps);
            let placed = place(&mut buffers, &pairs, bound);
            assert!(placed.size >= bound);
            for (i, a) in buffers.iter().enumerate() {
                assert!(a.offset + a.size <= placed.size);
                for (j, b) in buffers[..i].iter().enumerate() {
                    let together = a.first <= b.last && b.first <= a.last;
                    let apart = a.offset + a.size <= b.offset || b.offset + b.size <= a.offset;
                    let over = |pair: &Pair| {
                        let (input, output) = (&buffers[pair.input], &buffers[pair.output]);
                        let these = [(i, j), (j, i)].contains(&(pair.input, pair.output));
                        these && input.offset >= output.offset + pair.gap
                    };
                    assert!(!together || apart || pairs.iter().any(over), "{round}: {a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn more_conflicts_than_are_searched_still_fit() {
        let list: Vec<(u64, usize, usize)> = (0..3000).map(|i| (16 + (i % 7) as u64 * 16, i / 2, 3000)).collect();
        let (size, bound, _) = solve(&list);
        assert_eq!(size, bound);
    }

    /// The buffers of 20,000 operators in seconds: steps are bounded, whatever the machine.
    #[test]
    fn many_buffers_take_bounded_steps() {
        let mut random = Lcg(5);
        let list: Vec<(u64, usize, usize)> = (0..20_000)
            .map(|i| {
                (
                    16 * (1 + random.below(64) as u64),
                    i,
                    (i + 1 + random.below(12)).min(19_999),
                )
            })
            .collect();
        let mut buffers = buffers(&list);
        let bound = lower_bound(&buffers, &[], 20_000);
        let placed = place(&mut buffers, &[], bound);
        assert!(placed.work <= 2 * CLIMB, "{}", placed.work);
        assert!(placed.size < bound * 5 / 4, "{} of {bound}", placed.size);
    }

    #[test]
    fn equal_problems_have_equal_offsets() {
        let mut random = Lcg(3);
        let list: Vec<(u64, usize, usize)> = (0..120)
            .map(|_| {
                let first = random.below(100);
                (16 * (1 + random.below(50) as u64), first, first + random.below(20))
            })
            .collect();
        let run = || {
            let mut buffers = buffers(&list);
            let bound = lower_bound(&buffers, &[], 120);
            place(&mut buffers, &[], bound);
            buffers
        };
        assert_eq!(run(), run());
    }
}
