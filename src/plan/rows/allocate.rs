//! Where rows lie: pieces of memory with a life each, some of which are at fixed distances from one another.
//!
//! First fit in several orders, from the bottom and from the top, then hill climbing over orders. Limits count steps.
//! The same is done where rows that follow one another in the same bytes are [chained](Chains) and placed together.

use super::super::offsets::Lcg;
use super::chains::Chains;
use std::collections::BTreeSet;

/// Comparisons of pieces that hill climbing may make.
const CLIMB: u64 = 400 << 20;
/// Rounds without gain before it stops.
const PATIENCE: usize = 2000;

/// Orders that are climbed from.
const CLIMBS: usize = 5;
/// Rows of a chain at most.
const LONGEST: usize = 2;

/// A piece of an item: bytes that are live from one step to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Piece {
    /// Offset in the item.
    pub at: u64,
    pub size: u64,
    /// First and last step.
    pub first: usize,
    pub last: usize,
}

/// Pieces that keep their distances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Item {
    pub pieces: Vec<Piece>,
    pub align: u64,
}

impl Item {
    fn bytes(&self) -> u64 {
        let end = self.pieces.iter().map(|piece| piece.at + piece.size).max().unwrap_or(0);
        end.next_multiple_of(self.align)
    }
}

/// Bytes of two items of which one dies and the other is born in a step; both may have them as far as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Meeting {
    pub step: usize,
    /// Item, offset in it, and bytes of what is read and of what is written.
    pub input: (usize, u64, u64),
    pub output: (usize, u64, u64),
    /// What is written begins this far below what is read, or further; the distance is a multiple of the other.
    pub gap: u64,
    pub modulus: u64,
}

/// The bytes that first fit takes in the best of the usual orders: [`allocate`] needs no more.
pub(in super::super) fn roughly(items: &[Item], meetings: &[Meeting]) -> u64 {
    let mut search = Search::new(items, meetings);
    for order in search.orders() {
        search.attempt(&order, false, u64::MAX);
    }
    search.best.0
}

/// Offsets of the items and the bytes they take.
pub(in super::super) fn allocate(items: &[Item], meetings: &[Meeting], least: u64) -> (u64, Vec<u64>) {
    let mut search = Search::new(items, meetings);
    let starts = search.starts(least);
    let first = search.best.0;
    search.climbs(starts, least);
    let best = search.best;
    if best.0 <= least {
        return best;
    }
    let chains = Chains::new(items, meetings, LONGEST);
    if chains.items.len() == items.len() {
        return best;
    }
    let mut search = Search::new(&chains.items, &chains.meetings);
    let starts = search.starts(least);
    // Climbing makes up for little of what is lost before it.
    if search.best.0 < first {
        search.climbs(starts, least);
    }
    if search.best.0 < best.0 {
        return (search.best.0, chains.offsets(&search.best.1));
    }
    best
}

/// An order to start from: the size it gives, and whether from the top.
type Start = (u64, Vec<u32>, bool);

struct Search<'a> {
    items: &'a [Item],
    meetings: &'a [Meeting],
    /// For each item the meetings that it takes part in.
    of: Vec<Vec<u32>>,
    /// What is read, what is written, and the step.
    met: BTreeSet<(u32, u32, usize)>,
    bytes: Vec<u64>,
    /// For each item those that are live with it at some time.
    neighbours: Vec<Vec<u32>>,
    work: u64,
    best: (u64, Vec<u64>),
    /// The item that reached furthest in the last attempt.
    furthest: u32,
}

const UNPLACED: u64 = u64::MAX;

impl<'a> Search<'a> {
    fn new(items: &'a [Item], meetings: &'a [Meeting]) -> Self {
        let mut of = vec![Vec::new(); items.len()];
        let mut met = BTreeSet::new();
        for (i, meeting) in meetings.iter().enumerate() {
            let (input, output) = (meeting.input.0, meeting.output.0);
            of[input].push(i as u32);
            of[output].push(i as u32);
            met.insert((input as u32, output as u32, meeting.step));
        }
        // Lives as wholes: a sweep in order of birth.
        let span = |item: &Item| {
            let first = item.pieces.iter().map(|piece| piece.first).min().unwrap_or(0);
            (first, item.pieces.iter().map(|piece| piece.last).max().unwrap_or(0))
        };
        let spans: Vec<(usize, usize)> = items.iter().map(span).collect();
        let mut order: Vec<u32> = (0..items.len() as u32).collect();
        order.sort_by_key(|i| spans[*i as usize]);
        let mut neighbours = vec![Vec::new(); items.len()];
        let mut active: Vec<u32> = Vec::new();
        for i in order {
            active.retain(|j| spans[*j as usize].1 >= spans[i as usize].0);
            for j in &active {
                neighbours[i as usize].push(*j);
                neighbours[*j as usize].push(i);
            }
            active.push(i);
        }
        Search {
            items,
            meetings,
            of,
            met,
            bytes: items.iter().map(Item::bytes).collect(),
            neighbours,
            work: 0,
            best: (u64::MAX, Vec::new()),
            furthest: 0,
        }
    }

    /// First fit in all orders.
    fn starts(&mut self, least: u64) -> Vec<Start> {
        let mut starts = Vec::new();
        for order in self.orders() {
            for top in [false, true] {
                if self.best.0 > least {
                    let size = self.attempt(&order, top, u64::MAX);
                    starts.push((size, order.clone(), top));
                }
            }
        }
        starts
    }

    /// Hill climbing from the best of them.
    fn climbs(&mut self, mut starts: Vec<Start>, least: u64) {
        starts.sort_by_key(|(size, _, _)| *size);
        for (_, order, top) in starts.into_iter().take(CLIMBS) {
            self.climb(order, top, least);
        }
    }

    fn orders(&self) -> Vec<Vec<u32>> {
        let key = |kind: usize, i: usize| -> (bool, i128, i128) {
            let item = &self.items[i];
            let first = item.pieces.iter().map(|piece| piece.first).min().unwrap_or(0) as i128;
            let last = item.pieces.iter().map(|piece| piece.last).max().unwrap_or(0) as i128;
            let bytes = i128::from(self.bytes[i]);
            let life = last - first + 1;
            let many = item.pieces.len() < 2;
            match kind {
                0 => (many, first, -bytes),
                1 => (many, -bytes, first),
                2 => (many, -life, -bytes),
                3 => (many, -bytes * life, first),
                4 => (false, first, -bytes),
                _ => (many, -last, -bytes),
            }
        };
        (0..6)
            .map(|kind| {
                let mut order: Vec<u32> = (0..self.items.len() as u32).collect();
                order.sort_by_key(|i| key(kind, *i as usize));
                order
            })
            .collect()
    }

    /// First fit in `order`; the size, or some size beyond `limit`. With `top`, offsets count from the end.
    fn attempt(&mut self, order: &[u32], top: bool, limit: u64) -> u64 {
        let mut offsets = vec![UNPLACED; self.items.len()];
        let mut taken: Vec<(i64, i64)> = Vec::new();
        let mut size = 0;
        for i in order.iter().map(|i| *i as usize) {
            taken.clear();
            for j in &self.neighbours[i] {
                let at = offsets[*j as usize];
                if at != UNPLACED {
                    self.work += self.conflicts(i, *j as usize, at, top, &mut taken);
                }
            }
            for meeting in &self.of[i] {
                taken.extend(self.meeting(i, *meeting as usize, &offsets, top));
            }
            taken.sort_unstable();
            let mut offset = 0u64;
            loop {
                for (start, end) in &taken {
                    if (offset as i64) <= *start {
                        break;
                    }
                    if (offset as i64) < *end {
                        offset = (*end as u64).next_multiple_of(self.items[i].align);
                    }
                }
                match self.shift(i, offset, &offsets, top) {
                    0 => break,
                    shift => offset += shift,
                }
            }
            offsets[i] = offset;
            if offset + self.bytes[i] > size {
                size = offset + self.bytes[i];
                self.furthest = i as u32;
            }
            if size > limit {
                return size;
            }
        }
        let size = size.next_multiple_of(super::super::ALIGN);
        if size < self.best.0 {
            if top {
                for (offset, bytes) in offsets.iter_mut().zip(&self.bytes) {
                    *offset = size - *offset - bytes;
                }
            }
            self.best = (size, offsets);
        }
        size
    }

    /// Offset of a piece in its item, from where offsets count.
    fn place(&self, item: usize, at: u64, size: u64, top: bool) -> i64 {
        let place = if top { self.bytes[item] - at - size } else { at };
        place as i64
    }

    /// Offsets of item `i`, between two, that leave no room beside item `j` at `at`.
    fn conflicts(&self, i: usize, j: usize, at: u64, top: bool, taken: &mut Vec<(i64, i64)>) -> u64 {
        for a in &self.items[i].pieces {
            let rel = self.place(i, a.at, a.size, top);
            for b in &self.items[j].pieces {
                let together = a.first.max(b.first) <= a.last.min(b.last);
                if !together || self.meet((i, a), (j, b)) || a.size == 0 || b.size == 0 {
                    continue;
                }
                let start = at as i64 + self.place(j, b.at, b.size, top);
                taken.push((start - rel - a.size as i64, start + b.size as i64 - rel));
            }
        }
        (self.items[i].pieces.len() * self.items[j].pieces.len()) as u64
    }

    /// Whether one dies and the other is born in a step in which their items meet.
    fn meet(&self, (i, a): (usize, &Piece), (j, b): (usize, &Piece)) -> bool {
        let over = |(i, dies): (usize, &Piece), (j, born): (usize, &Piece)| {
            dies.last == born.first && self.met.contains(&(i as u32, j as u32, born.first))
        };
        over((i, a), (j, b)) || over((j, b), (i, a))
    }

    /// The same for a meeting, if the other item is placed.
    fn meeting(&self, i: usize, meeting: usize, offsets: &[u64], top: bool) -> Option<(i64, i64)> {
        let Meeting { input, output, gap, .. } = self.meetings[meeting];
        let is_input = input.0 == i;
        let (own, other) = if is_input { (input, output) } else { (output, input) };
        let at = offsets[other.0];
        if at == UNPLACED {
            return None;
        }
        let at = at as i64 + self.place(other.0, other.1, other.2, top);
        let rel = self.place(i, own.1, own.2, top);
        let (read, written, gap) = (input.2 as i64, output.2 as i64, gap as i64);
        // The least distance in the direction in which offsets count.
        let (below, above) = match (top, is_input) {
            (false, false) => (gap, read),
            (false, true) => (read, gap),
            (true, false) => (written, gap + read - written),
            (true, true) => (gap + read - written, written),
        };
        let range = (at - below - rel, at + above - rel);
        (range.0 < range.1).then_some(range)
    }

    /// How much further item `i` must lie than at `offset` for its meetings to be multiples apart.
    fn shift(&self, i: usize, offset: u64, offsets: &[u64], top: bool) -> u64 {
        let mut most = 0;
        for meeting in &self.of[i] {
            let Meeting {
                input, output, modulus, ..
            } = self.meetings[*meeting as usize];
            let at = |(item, at, size): (usize, u64, u64)| {
                let base = if item == i { offset } else { offsets[item] };
                (base != UNPLACED).then(|| base as i64 + self.place(item, at, size, top))
            };
            let (Some(read), Some(written)) = (at(input), at(output)) else {
                continue;
            };
            let apart = read + input.2 as i64 <= written || written + output.2 as i64 <= read;
            if apart {
                continue;
            }
            let distance = if top {
                written - read + output.2 as i64 - input.2 as i64
            } else {
                read - written
            };
            let rest = distance.rem_euclid(modulus as i64) as u64;
            // Moving the item further changes the distance one way or the other.
            let grows = (input.0 == i) != top;
            let shift = if grows && rest > 0 { modulus - rest } else { rest };
            most = most.max(shift);
        }
        most
    }

    /// Moves items to other places in the order as long as that does not make it worse.
    fn climb(&mut self, mut order: Vec<u32>, top: bool, least: u64) {
        let n = order.len();
        if n < 3 {
            return;
        }
        let mut random = Lcg(0x5eed_0f70);
        let mut current = self.attempt(&order, top, u64::MAX);
        let mut furthest = self.furthest;
        let mut idle = 0;
        while self.best.0 > least && idle < PATIENCE && self.work < CLIMB {
            let (mut i, mut j) = (random.below(n), random.below(n));
            // What reaches furthest comes earlier, or anything goes anywhere.
            if random.below(4) > 0
                && let Some(at @ 1..) = order.iter().position(|item| *item == furthest)
            {
                (i, j) = (at, random.below(at));
            }
            let item = order.remove(i);
            order.insert(j, item);
            let size = self.attempt(&order, top, current);
            idle = if size < current { 0 } else { idle + 1 };
            if size <= current {
                current = size;
                furthest = self.furthest;
            } else {
                let item = order.remove(j);
                order.insert(i, item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row that nothing reads is dead in the step that makes it: it may lie over the row that dies there, but not over
    /// the next one.
    #[test]
    fn what_dies_at_birth_spares_what_lives_on() {
        let piece = |at, size, last| Piece {
            at,
            size,
            first: 0,
            last,
        };
        let item = |pieces| Item { pieces, align: 4 };
        let items = [item(vec![piece(0, 8, 0), piece(8, 8, 1)]), item(vec![piece(0, 16, 0)])];
        let meeting = Meeting {
            step: 0,
            input: (0, 0, 8),
            output: (1, 0, 16),
            gap: 0,
            modulus: 1,
        };
        let (size, offsets) = allocate(&items, &[meeting], 0);
        let (read, written) = (offsets[0], offsets[1]);
        assert!(written + 16 <= read + 8 || read + 16 <= written, "{offsets:?}");
        assert_eq!(size, 32, "{offsets:?}");
    }
}
