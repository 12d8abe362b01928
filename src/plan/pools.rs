//! Several memories instead of one: each buffer goes to a memory, then to an offset there.
//!
//! Memories come with the fastest first. What is accessed most for each byte that it takes ([`Accesses`]) goes to the
//! first that has room over its life; each memory is then laid out as an arena of its own, with results over what they
//! are made of as far as both are in one memory. What does not fit after all goes on to the next memory, that with the
//! fewest accesses first. The rows of a tensor stay together, as code reaches them from one base.
//!
//! Where some buffer then has no place in any memory, the largest buffers choose first: that finds places for more, and
//! says nothing about speed.

mod skyline;

use super::access::Accesses;
use super::offsets;
use super::rows::{Item, Meeting, Piece, allocate, roughly};
use super::{ALIGN, Buffer, Pair, Place, Plan, Staging};
use crate::error::{Code, Error, Result};
use crate::graph::{Graph, OpId, TensorId};
use skyline::Skyline;
use std::collections::BTreeMap;

/// A memory that buffers may be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
}

/// The part of the arena that is in one memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// The memory's name.
    pub name: String,
    /// Where it begins among the offsets of the arena.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes of the memory.
    pub capacity: u64,
    /// The least that what is in it can take in this order.
    pub lower_bound: u64,
    /// Bytes that a run reads and writes there.
    pub accesses: u64,
}

impl Pool {
    /// Where it ends among the offsets of the arena.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }
}

/// Buffers for streamed parameters, which are in one memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Bytes of each of the two.
    pub size: u64,
    /// Their alignment.
    pub align: u64,
    /// Bytes that a run writes and reads there.
    pub accesses: u64,
}

/// What may be moved of a plan, and what may lie over what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// What has a place.
    pub(super) items: Vec<Item>,
    /// What may lie over what.
    pub(super) meetings: Vec<Meeting>,
    /// Of each buffer of the plan: the item, and the offset in it.
    pub(super) of: Vec<(usize, u64)>,
}

impl Layout {
    /// That of whole buffers.
    pub(super) fn whole(buffers: &[Buffer], pairs: &[Pair]) -> Layout {
        let item = |buffer: &Buffer| Item {
            pieces: vec![Piece {
                at: 0,
                size: buffer.size,
                first: buffer.first,
                last: buffer.last,
            }],
            align: buffer.align,
        };
        let end = |i: usize| (i, 0, buffers[i].size);
        Layout {
            items: buffers.iter().map(item).collect(),
            meetings: (pairs.iter())
                .map(|pair| Meeting {
                    step: buffers[pair.output].first,
                    input: end(pair.input),
                    output: end(pair.output),
                    gap: pair.gap,
                    modulus: pair.modulus,
                })
                .collect(),
            of: (0..buffers.len()).map(|i| (i, 0)).collect(),
        }
    }
}

/// Layouts of one memory that are tried with one group less each time, and most groups for which that is done.
const TRIES: usize = 24;
const FEW: usize = 512;

/// A better layout of rows is looked for, at first, where first fit takes this part of a memory more than that has.
const ROUGH: u64 = 16;

/// What is in one memory as a whole: a buffer, or all rows of a tensor.
#[derive(Clone, Debug, Default)]
struct Group {
    items: Vec<usize>,
    /// Most bytes that are live at once.
    bytes: u64,
    accesses: u64,
}

impl Group {
    /// Accesses for each byte, for comparisons.
    fn density(&self) -> u128 {
        (u128::from(self.accesses) << 32) / u128::from(self.bytes.max(1))
    }
}

/// What is in a memory, and where.
#[derive(Clone, Debug, Default)]
struct Laid {
    groups: Vec<usize>,
    size: u64,
    /// By item.
    offsets: Vec<(usize, u64)>,
    lower_bound: u64,
    proven: bool,
}

/// What a group is of: a tensor, an operator's scratch, or what an operator keeps from row to row.
type Key = (Option<TensorId>, Option<OpId>, Option<OpId>);

struct Problem {
    items: Vec<Item>,
    meetings: Vec<Meeting>,
    /// For each item its meetings.
    of: Vec<Vec<usize>>,
    groups: Vec<Group>,
    steps: usize,
    by_rows: bool,
}

impl Plan {
    /// Puts the buffers into `memories`, the fastest first, and two more for streamed parameters if there are any.
    /// Without memories there is one arena, as it is, with those behind the others.
    ///
    /// # Errors
    /// [`Code::Usage`] where no way is found to put all of them: how much is missing, in which layer.
    pub fn divide(
        &mut self,
        graph: &Graph,
        accesses: &Accesses,
        memories: &[Memory],
        staged: Option<Staged>,
    ) -> Result<()> {
        if memories.is_empty() {
            if let Some(staged) = staged {
                self.stage(staged.size, staged.align);
            }
            return Ok(());
        }
        let staged = staged.map(|staged| Staged {
            size: staged.size.next_multiple_of(staged.align),
            ..staged
        });
        if let Some(staged) = staged {
            self.arena_align = self.arena_align.max(staged.align);
        }
        let problem = Problem::new(self, accesses, staged);
        // As one arena it is as small as it can be.
        let whole = staged.is_none() && self.arena_size <= memories[0].bytes;
        let laid = match whole {
            true => vec![problem.unchanged(self)],
            false => problem
                .solve(memories)
                .map_err(|short| short.error(self, graph, memories))?,
        };
        self.move_to(&problem, memories, &laid, staged);
        Ok(())
    }

    /// Which pool an offset of the arena is in; 0 where there is one arena.
    pub fn pool_of(&self, offset: u64) -> usize {
        let within = |pool: &Pool| pool.size > 0 && pool.start <= offset;
        self.pools.iter().rposition(within).unwrap_or(0)
    }

    /// The pool and the offset in it that an offset of the arena means; the pool is 0 where there is one arena.
    pub fn locate(&self, offset: u64) -> (usize, u64) {
        let pool = self.pool_of(offset);
        let start = self.pools.get(pool).map_or(0, |pool| pool.start);
        (pool, offset - start)
    }

    /// First byte and bytes of each part of the arena: one for each pool, or one for all.
    pub fn areas(&self) -> Vec<(u64, u64)> {
        match self.pools.as_slice() {
            [] => vec![(0, self.arena_size)],
            pools => pools.iter().map(|pool| (pool.start, pool.size)).collect(),
        }
    }

    /// The pool of a tensor whose rows have places of their own, by its index in [`Plan::rows`].
    pub fn pool_of_rows(&self, index: usize) -> usize {
        let offset = self.rows.get(index).and_then(|rows| rows.iter().flatten().next());
        offset.map_or(0, |offset| self.pool_of(*offset))
    }

    fn move_to(&mut self, problem: &Problem, memories: &[Memory], laid: &[Laid], staged: Option<Staged>) {
        let mut offsets = vec![0; problem.items.len()];
        let mut start: u64 = 0;
        self.pools.clear();
        self.optimal = true;
        for (i, memory) in memories.iter().enumerate() {
            let none = Laid {
                proven: true,
                ..Laid::default()
            };
            let laid = laid.get(i).unwrap_or(&none);
            start = start.next_multiple_of(self.arena_align);
            for (item, offset) in &laid.offsets {
                offsets[*item] = start + offset;
            }
            self.pools.push(Pool {
                name: memory.name.clone(),
                start,
                size: laid.size,
                capacity: memory.bytes,
                lower_bound: laid.lower_bound,
                accesses: laid.groups.iter().map(|group| problem.groups[*group].accesses).sum(),
            });
            start += laid.size;
            self.optimal &= laid.proven;
        }
        self.arena_size = start;
        self.lower_bound = self.pools.iter().map(|pool| pool.lower_bound).sum();
        for place in &mut self.places {
            if let Place::Arena(_) = place {
                *place = Place::None;
            }
        }
        for (buffer, (item, at)) in self.buffers.iter_mut().zip(&self.layout.of) {
            buffer.offset = offsets[*item] + at;
            let row = buffer.row;
            for id in &buffer.tensors {
                match (&mut self.places[id.index()], row) {
                    (Place::Rows(index), Some(row)) => {
                        self.rows[*index as usize][row as usize] = Some(buffer.offset);
                    }
                    (place, _) => *place = Place::Arena(offsets[*item]),
                }
            }
        }
        self.live = live(&self.buffers, self.live.len());
        if let (Some(staged), Some(offset)) = (staged, offsets.last()) {
            self.staging = Some(Staging {
                offset: *offset,
                size: staged.size,
            });
        }
    }
}

/// Live bytes at each step; what results have in common with what they are made of counts once.
fn live(buffers: &[Buffer], steps: usize) -> Vec<u64> {
    let mut change = vec![0i128; steps + 1];
    let mut born: Vec<Vec<usize>> = vec![Vec::new(); steps];
    let mut dead: Vec<Vec<usize>> = vec![Vec::new(); steps];
    for (i, buffer) in buffers.iter().enumerate().filter(|(_, buffer)| buffer.last < steps) {
        change[buffer.first] += i128::from(buffer.size);
        change[buffer.last + 1] -= i128::from(buffer.size);
        born[buffer.first].push(i);
        dead[buffer.last].push(i);
    }
    let mut sum = 0;
    let mut live = Vec::with_capacity(steps);
    for (step, change) in change.iter().take(steps).enumerate() {
        sum += change;
        let common = |a: &Buffer, b: &Buffer| {
            let end = (a.offset + a.size).min(b.offset + b.size);
            i128::from(end.saturating_sub(a.offset.max(b.offset)))
        };
        let pairs = born[step].iter().flat_map(|b| dead[step].iter().map(move |d| (b, d)));
        let shared: i128 = (pairs.filter(|(b, d)| b != d))
            .map(|(b, d)| common(&buffers[*b], &buffers[*d]))
            .sum();
        live.push(u64::try_from((sum - shared).max(0)).unwrap_or(u64::MAX));
    }
    live
}

/// The buffers that found no place.
struct Short {
    /// The memory with the most room.
    memory: usize,
    /// Bytes that it would need.
    needs: u64,
    /// The step in which most of them are live.
    step: usize,
}

impl Short {
    fn error(&self, plan: &Plan, graph: &Graph, memories: &[Memory]) -> Error {
        let all: Vec<String> = (memories.iter())
            .map(|memory| format!("{} has {}", memory.name, memory.bytes))
            .collect();
        let Memory { name, bytes } = &memories[self.memory];
        let missing = self.needs.saturating_sub(*bytes);
        let message = format!(
            "the buffers do not fit the memories by {missing} bytes: {}; one arena would take {}",
            all.join(", "),
            plan.arena_size
        );
        let error = Error::new(Code::Usage, message);
        let error = match plan.steps.get(self.step) {
            Some(step) => error.at(graph.op(step.op).describe()),
            None => error,
        };
        error.help(format!("{name} of {} bytes would do", self.needs))
    }
}

impl Problem {
    /// The staging buffers, if there are any, are the last item.
    fn new(plan: &Plan, accesses: &Accesses, staged: Option<Staged>) -> Problem {
        let Layout { items, meetings, of } = plan.layout.clone();
        let mut items = items;
        let steps = plan.steps.len().max(1);
        let mut groups: Vec<Group> = Vec::new();
        let mut known: BTreeMap<Key, usize> = BTreeMap::new();
        let mut grouped = vec![false; items.len()];
        for (buffer, (item, _)) in plan.buffers.iter().zip(&of) {
            let key = (buffer.tensors.first().copied(), buffer.scratch_of, buffer.state_of);
            let group = *known.entry(key).or_insert_with(|| {
                let accesses = match (buffer.scratch_of, buffer.state_of) {
                    (Some(op), _) => accesses.scratch(op),
                    // Read and written for each element that is added.
                    (_, Some(op)) => accesses.scratch(op).saturating_mul(2),
                    _ => accesses.tensors(&buffer.tensors),
                };
                groups.push(Group {
                    accesses,
                    ..Group::default()
                });
                groups.len() - 1
            });
            if !std::mem::replace(&mut grouped[*item], true) {
                groups[group].items.push(*item);
            }
        }
        if let Some(staged) = staged {
            groups.push(Group {
                items: vec![items.len()],
                bytes: 0,
                accesses: staged.accesses,
            });
            items.push(Item {
                pieces: vec![Piece {
                    at: 0,
                    size: 2 * staged.size,
                    first: 0,
                    last: steps - 1,
                }],
                align: staged.align.max(ALIGN),
            });
        }
        let mut by_item = vec![Vec::new(); items.len()];
        for (i, meeting) in meetings.iter().enumerate() {
            by_item[meeting.input.0].push(i);
            by_item[meeting.output.0].push(i);
        }
        let mut problem = Problem {
            by_rows: plan.steps.iter().any(|step| step.rows.is_some()),
            items,
            meetings,
            of: by_item,
            groups,
            steps,
        };
        for group in 0..problem.groups.len() {
            problem.groups[group].bytes = problem.most(group);
        }
        problem
    }

    /// All groups where they are.
    fn unchanged(&self, plan: &Plan) -> Laid {
        let mut offsets: BTreeMap<usize, u64> = BTreeMap::new();
        for (buffer, (item, at)) in plan.buffers.iter().zip(&plan.layout.of) {
            offsets.insert(*item, buffer.offset - at);
        }
        Laid {
            groups: (0..self.groups.len()).collect(),
            size: plan.arena_size,
            offsets: offsets.into_iter().collect(),
            lower_bound: plan.lower_bound,
            proven: plan.optimal,
        }
    }

    /// What is in each memory.
    fn solve(&self, memories: &[Memory]) -> std::result::Result<Vec<Laid>, Short> {
        let mut hot: Vec<usize> = (0..self.groups.len()).collect();
        hot.sort_by_key(|i| std::cmp::Reverse((self.groups[*i].density(), self.groups[*i].accesses)));
        let mut large = hot.clone();
        large.sort_by_key(|i| std::cmp::Reverse(self.groups[*i].bytes));
        let mut short: Option<Short> = None;
        for order in [hot, large] {
            let mut left = order;
            let mut all = Vec::new();
            for memory in memories {
                let laid = self.settle(&left, memory.bytes);
                let mut here = vec![false; self.groups.len()];
                laid.groups.iter().for_each(|group| here[*group] = true);
                left.retain(|group| !here[*group]);
                all.push(laid);
            }
            if left.is_empty() {
                return Ok(all);
            }
            let found = self.short(memories, &all, &left);
            if short.as_ref().is_none_or(|known| found.needs < known.needs) {
                short = Some(found);
            }
        }
        Err(short.unwrap_or(Short {
            memory: 0,
            needs: 0,
            step: 0,
        }))
    }

    /// What the memory with the most room would need for what is `left`.
    fn short(&self, memories: &[Memory], all: &[Laid], left: &[usize]) -> Short {
        let most = memories.iter().map(|memory| memory.bytes).max().unwrap_or(0);
        let memory = memories.iter().position(|memory| memory.bytes == most).unwrap_or(0);
        let mut groups = all.get(memory).map_or(Vec::new(), |laid| laid.groups.clone());
        groups.extend(left);
        let mut line = Skyline::new(self);
        groups.iter().for_each(|group| line.add(self, *group));
        let peak = line.live.iter().copied().max().unwrap_or(0);
        Short {
            memory,
            needs: self.lay(groups, u64::MAX).size,
            step: line.live.iter().position(|live| *live == peak).unwrap_or(0),
        }
    }

    /// Of the groups in their order those whose live bytes fit.
    fn fill(&self, order: &[usize], capacity: u64) -> Vec<usize> {
        let mut line = Skyline::new(self);
        let mut chosen = Vec::new();
        for group in order {
            if line.fits(self, *group, capacity) {
                line.add(self, *group);
                chosen.push(*group);
            }
        }
        chosen
    }

    /// What of the groups in their order is in a memory, laid out: those whose live bytes fit, less those with the fewest
    /// accesses until the layout fits as well. Of many groups, or if that does not help, fewer are taken at once.
    fn settle(&self, order: &[usize], capacity: u64) -> Laid {
        let mut limit = capacity;
        loop {
            let mut groups = self.fill(order, limit);
            let tries = if groups.len() <= FEW { TRIES } else { 1 };
            let mut excess = 0;
            for round in 0..tries {
                let slack = if round < TRIES / 8 { capacity / ROUGH } else { 0 };
                let laid = self.lay(groups.clone(), capacity.saturating_add(slack));
                if laid.size <= capacity {
                    return laid;
                }
                excess = laid.size - capacity;
                // Of what is live with what reaches furthest.
                let top = laid
                    .offsets
                    .iter()
                    .max_by_key(|(item, offset)| offset + self.bytes(*item));
                let span = top.map_or((0, usize::MAX), |(item, _)| self.span(&[*item]));
                let live = |group: &&usize| {
                    let (first, last) = self.span(&self.groups[**group].items);
                    first <= span.1 && span.0 <= last
                };
                let coldest = groups
                    .iter()
                    .filter(live)
                    .min_by_key(|group| (self.groups[**group].density(), **group));
                if let Some(coldest) = coldest.copied() {
                    groups.retain(|group| *group != coldest);
                }
            }
            limit = limit.saturating_sub(excess.max(capacity / 64).max(1));
        }
    }

    /// Most bytes of a group that are live at once.
    fn most(&self, group: usize) -> u64 {
        let mut change: BTreeMap<usize, i128> = BTreeMap::new();
        for piece in self.groups[group]
            .items
            .iter()
            .flat_map(|item| &self.items[*item].pieces)
        {
            *change.entry(piece.first).or_default() += i128::from(piece.size);
            *change.entry(piece.last + 1).or_default() -= i128::from(piece.size);
        }
        let sums = change.into_values().scan(0, |live, change| {
            *live += change;
            Some(*live)
        });
        sums.max().and_then(|most| u64::try_from(most).ok()).unwrap_or(0)
    }

    fn bytes(&self, item: usize) -> u64 {
        let pieces = self.items[item].pieces.iter();
        pieces.map(|piece| piece.at + piece.size).max().unwrap_or(0)
    }

    /// First and last step of items.
    fn span(&self, items: &[usize]) -> (usize, usize) {
        let pieces = || items.iter().flat_map(|item| &self.items[*item].pieces);
        (
            pieces().map(|piece| piece.first).min().unwrap_or(0),
            pieces().map(|piece| piece.last).max().unwrap_or(0),
        )
    }

    /// Groups as an arena; rows that first fit puts beyond `limit` are not laid out well.
    fn lay(&self, groups: Vec<usize>, limit: u64) -> Laid {
        let items: Vec<usize> = {
            let mut items: Vec<usize> = groups
                .iter()
                .flat_map(|group| &self.groups[*group].items)
                .copied()
                .collect();
            items.sort_unstable();
            items
        };
        let number: BTreeMap<usize, usize> = items.iter().enumerate().map(|(i, item)| (*item, i)).collect();
        let meetings = self.meetings.iter().filter_map(|meeting| {
            let input = *number.get(&meeting.input.0)?;
            let output = *number.get(&meeting.output.0)?;
            Some(Meeting {
                input: (input, meeting.input.1, meeting.input.2),
                output: (output, meeting.output.1, meeting.output.2),
                ..*meeting
            })
        });
        let meetings: Vec<Meeting> = meetings.collect();
        let (size, offsets, lower_bound, proven) = if self.by_rows {
            let mut line = Skyline::new(self);
            groups.iter().for_each(|group| line.add(self, *group));
            let bound = line.live.iter().copied().max().unwrap_or(0).max(0) as u64;
            let bound = bound.next_multiple_of(ALIGN);
            let list: Vec<Item> = items.iter().map(|item| self.items[*item].clone()).collect();
            let (size, offsets) = match list.is_empty() {
                true => (0, Vec::new()),
                false if roughly(&list, &meetings) > limit => allocate(&list, &meetings, u64::MAX),
                false => allocate(&list, &meetings, bound),
            };
            (size, offsets, bound.min(size), size == bound)
        } else {
            let buffer = |item: &usize| {
                let Item { pieces, align } = &self.items[*item];
                let piece = pieces[0];
                Buffer {
                    size: piece.size,
                    align: *align,
                    first: piece.first,
                    last: piece.last,
                    ..Buffer::default()
                }
            };
            let mut buffers: Vec<Buffer> = items.iter().map(buffer).collect();
            let pairs: Vec<Pair> = (meetings.iter())
                .map(|meeting| Pair {
                    input: meeting.input.0,
                    output: meeting.output.0,
                    gap: meeting.gap,
                    modulus: meeting.modulus,
                })
                .collect();
            let bound = offsets::lower_bound(&buffers, &pairs, self.steps);
            let placed = offsets::place(&mut buffers, &pairs, bound);
            let offsets = buffers.iter().map(|buffer| buffer.offset).collect();
            (placed.size, offsets, bound, placed.proven)
        };
        Laid {
            groups,
            size,
            offsets: items.into_iter().zip(offsets).collect(),
            lower_bound,
            proven,
        }
    }
}

#[cfg(test)]
mod tests;
