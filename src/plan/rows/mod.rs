//! Plans in which chains of operators run row by row, so that no whole tensor exists between them.

mod allocate;
mod chains;
mod model;
mod schedule;

use super::storage::Storages;
use super::{ALIGN, Buffer, Place, Plan, RowStep, Step, Streaming, pools};
use crate::graph::{Graph, OpId};
use crate::kernels::Lowering;
pub(super) use allocate::{Item, Meeting, Piece, allocate, roughly};
use model::{Model, ROW_ALIGN};
use schedule::{Lives, Segment, Segments};

/// Most operators for which streaming is tried.
const OPERATORS: usize = 1024;
/// Most rows of all storages.
const ROWS: u64 = 1 << 15;
/// Schedules whose memory is laid out.
const LAYOUTS: usize = 4;

/// The best plan with operators that run row by row, if it is smaller than `whole`.
pub(super) fn plan(
    graph: &Graph,
    lowering: &Lowering,
    storages: &Storages,
    order: &[usize],
    places: &[Option<Place>],
    streaming: &Streaming,
    whole: &Plan,
) -> Option<Plan> {
    let (cost, budget) = match streaming {
        Streaming::Never => return None,
        Streaming::Least(cost) => (*cost, None),
        Streaming::Within(cost, budget) => (*cost, Some(*budget)),
    };
    if lowering.row_calls.is_empty() || order.len() > OPERATORS {
        return None;
    }
    let by_index = |op: usize| cost(OpId(op as u32));
    let model = Model::new(graph, lowering, storages, order, places, &by_index);
    if model.stores.iter().map(|store| u64::from(store.rows)).sum::<u64>() > ROWS {
        return None;
    }
    let segments = Segments::new(&model);
    let layout = |cuts: &[Segment]| Layout::new(&model, cuts);
    let mut best: Option<(Layout, u64)> = None;
    let mut limit = match budget {
        None => segments.least_peak(),
        Some(budget) => {
            // Costs fall as the limit rises.
            let peaks = segments.peaks(whole.arena_size);
            let fits = |peak: &u64| segments.cheapest(*peak).is_some_and(|(cost, _)| cost <= budget);
            let at = peaks.partition_point(|peak| !fits(peak));
            *peaks.get(at)?
        }
    };
    // What is laid out may take more than is live: then cheaper cuts may do within it.
    for _ in 0..LAYOUTS {
        let (cost, cuts) = segments.cheapest(limit)?;
        let found = layout(&cuts);
        let size = found.size;
        let better = best
            .as_ref()
            .is_none_or(|(known, known_cost)| (size, cost) < (known.size, *known_cost));
        if better {
            best = Some((found, cost));
        }
        if size <= limit {
            break;
        }
        limit = size;
    }
    let (layout, _) = best.filter(|(layout, _)| layout.size < whole.arena_size)?;
    Some(layout.plan(graph, lowering, storages, order, places, &model, whole))
}

/// What an item is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// A storage, all of it.
    Whole(usize),
    /// A row of a storage.
    Row(usize, u32),
    /// Scratch of the operator at a position.
    Scratch(usize),
    /// What the operator at a position keeps from row to row.
    State(usize),
}

/// An item, an offset in it, and bytes.
type Stretch = (usize, u64, u64);

/// A schedule with places for everything.
struct Layout {
    steps: Vec<schedule::Step>,
    live: Vec<u64>,
    items: Vec<(Use, Item)>,
    meetings: Vec<Meeting>,
    offsets: Vec<u64>,
    size: u64,
}

impl Layout {
    fn new(model: &Model, cuts: &[Segment]) -> Self {
        let steps = model.steps(cuts);
        let mut lives = Lives::new(model, &steps, 0, model.ops.len());
        for (s, store) in model.stores.iter().enumerate().filter(|(_, store)| store.input) {
            // The application writes all inputs before the run, also what no operator reads.
            let rows = lives.rows[s].get_or_insert_with(|| vec![None; store.rows as usize]);
            rows.iter_mut().for_each(|life| {
                life.get_or_insert((0, if store.output { steps.len() - 1 } else { 0 }));
            });
        }
        let live = lives.live(model, &steps);
        let mut by_rows = vec![false; model.ops.len()];
        steps.iter().for_each(|step| by_rows[step.op] |= step.row.is_some());

        let mut items: Vec<(Use, Item)> = Vec::new();
        // Of each storage: its item, or the first of its rows' items.
        let mut of: Vec<Vec<Option<usize>>> = vec![Vec::new(); model.stores.len()];
        for (s, store) in model.stores.iter().enumerate().filter(|(_, store)| store.bytes > 0) {
            let Some(rows) = &lives.rows[s] else { continue };
            let touching = store.users.iter().chain(&store.producer);
            let whole = store.rows == 1 || store.input || store.output || touching.into_iter().any(|op| !by_rows[*op]);
            let summed = store
                .producer
                .and_then(|op| model.ops[op].rows.as_ref())
                .is_some_and(|rows| rows.accumulates);
            let pieces = rows.iter().enumerate().filter_map(|(row, life)| {
                let (first, last) = (*life)?;
                Some((
                    row,
                    Piece {
                        at: row as u64 * store.unit,
                        size: store.unit,
                        first,
                        last,
                    },
                ))
            });
            if whole || summed {
                let mut item = Item {
                    pieces: Vec::new(),
                    align: ALIGN,
                };
                for (_, piece) in pieces {
                    match item.pieces.last_mut() {
                        Some(last) if (last.first, last.last) == (piece.first, piece.last) => last.size += piece.size,
                        _ => item.pieces.push(piece),
                    }
                }
                of[s] = vec![Some(items.len()); 1];
                items.push((Use::Whole(s), item));
            } else {
                of[s] = vec![None; store.rows as usize];
                for (row, piece) in pieces {
                    of[s][row] = Some(items.len());
                    items.push((
                        Use::Row(s, row as u32),
                        Item {
                            pieces: vec![Piece { at: 0, ..piece }],
                            align: ROW_ALIGN,
                        },
                    ));
                }
            }
        }
        let item = |s: usize, row: u32| -> Option<Stretch> {
            let store = &model.stores[s];
            match of[s].as_slice() {
                [] => None,
                [whole] if store.rows == 1 => Some(((*whole)?, 0, store.unit)),
                [whole] => Some(((*whole)?, u64::from(row) * store.unit, store.unit)),
                rows => Some((rows[row as usize]?, 0, store.unit)),
            }
        };
        let mut meetings = Vec::new();
        let mut scratch: Vec<Vec<Piece>> = vec![Vec::new(); model.ops.len()];
        for (at, step) in steps.iter().enumerate() {
            let op = &model.ops[step.op];
            let (bytes, overlaps) = match (step.row, &op.rows) {
                (Some(_), Some(rows)) => (rows.scratch, &rows.overlaps),
                _ => (op.scratch, &op.overlaps),
            };
            if bytes > 0 {
                scratch[step.op].push(Piece {
                    at: 0,
                    size: bytes,
                    first: at,
                    last: at,
                });
            }
            for over in overlaps {
                let Some(rows) = &lives.rows[over.storage] else {
                    continue;
                };
                let store = &model.stores[over.storage];
                let dies = |life: &Option<(usize, usize)>| life.is_some_and(|(_, last)| last == at);
                let [made] = op.writes[..] else { continue };
                let mut met: Vec<(Option<Stretch>, Option<Stretch>)> = Vec::new();
                match step.row {
                    None if rows.iter().all(dies) && !store.output => {
                        let all = |s: usize| item(s, 0).map(|(item, _, _)| (item, 0, model.stores[s].bytes));
                        met.push((all(over.storage), all(made)));
                    }
                    Some((row, _)) if !store.output => {
                        // Every row that is read for the last time.
                        let (low, high) = op.reads_of(over.storage, row);
                        let dying = (low..=high).filter(|read| dies(&rows[*read as usize]));
                        met.extend(dying.map(|read| (item(over.storage, read), item(made, row))));
                    }
                    _ => {}
                }
                for (input, output) in met {
                    if let (Some(input), Some(output)) = (input, output)
                        && over.gap < output.2
                    {
                        meetings.push(Meeting {
                            step: at,
                            input,
                            output,
                            gap: over.gap,
                            modulus: over.modulus,
                        });
                    }
                }
            }
        }
        for (op, pieces) in scratch.into_iter().enumerate().filter(|(_, pieces)| !pieces.is_empty()) {
            items.push((Use::Scratch(op), Item { pieces, align: ALIGN }));
        }
        for (op, life) in lives.ops.iter().enumerate() {
            if let (Some((first, last)), Some(rows)) = (life, &model.ops[op].rows)
                && rows.state > 0
            {
                let piece = Piece {
                    at: 0,
                    size: rows.state,
                    first: *first,
                    last: *last,
                };
                items.push((
                    Use::State(op),
                    Item {
                        pieces: vec![piece],
                        align: ALIGN,
                    },
                ));
            }
        }
        let least = live.iter().copied().max().unwrap_or(0).next_multiple_of(ALIGN);
        let list: Vec<Item> = items.iter().map(|(_, item)| item.clone()).collect();
        let (size, offsets) = allocate(&list, &meetings, least);
        Layout {
            steps,
            live,
            items,
            meetings,
            offsets,
            size,
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn plan(
        self,
        graph: &Graph,
        lowering: &Lowering,
        storages: &Storages,
        order: &[usize],
        places: &[Option<Place>],
        model: &Model,
        whole: &Plan,
    ) -> Plan {
        let op_of = |at: usize| lowering.calls[order[at]].op;
        let mut by_rows = vec![false; graph.ops.len()];
        for step in self.steps.iter().filter(|step| step.row.is_some()) {
            by_rows[op_of(step.op).index()] = true;
        }
        // Indices of the row calls when only those that are made are left.
        let mut kept = Vec::with_capacity(lowering.row_calls.len());
        let mut next = 0;
        for call in &lowering.row_calls {
            kept.push(next);
            next += usize::from(by_rows[call.op.index()]);
        }
        let steps = self.steps.iter().map(|step| Step {
            op: op_of(step.op),
            rows: step.row.and_then(|(row, turn)| {
                let calls = &model.ops[step.op].rows.as_ref()?.calls;
                let makes = |i: &&usize| {
                    let rows = lowering.row_calls[**i].rows;
                    rows.is_some_and(|rows| rows.steps.contains(row, turn))
                };
                Some(RowStep {
                    call: kept[*calls.iter().find(makes)?],
                    row,
                })
            }),
        });
        let steps: Vec<Step> = steps.collect();
        let mut runs = Vec::new();
        let mut seen = vec![false; graph.ops.len()];
        for step in &steps {
            if !std::mem::replace(&mut seen[step.op.index()], true) {
                runs.push(step.op);
            }
        }
        let mut of: Vec<Option<Place>> = vec![None; model.stores.len()];
        let mut rows: Vec<Vec<Option<u64>>> = Vec::new();
        let mut buffers = Vec::new();
        for (number, ((what, item), offset)) in self.items.iter().zip(&self.offsets).enumerate() {
            let mut buffer = Buffer {
                align: item.align,
                ..Buffer::default()
            };
            let mut row = None;
            match *what {
                Use::Whole(s) => {
                    of[s] = Some(Place::Arena(*offset));
                    buffer.tensors.clone_from(&storages.list[s].tensors);
                }
                Use::Row(s, number) => {
                    let place = *of[s].get_or_insert_with(|| {
                        rows.push(vec![None; model.stores[s].rows as usize]);
                        Place::Rows(rows.len() as u32 - 1)
                    });
                    if let Place::Rows(index) = place {
                        rows[index as usize][number as usize] = Some(*offset);
                    }
                    buffer.tensors.clone_from(&storages.list[s].tensors);
                    row = Some(number);
                }
                Use::Scratch(at) => buffer.scratch_of = Some(op_of(at)),
                Use::State(at) => buffer.state_of = Some(op_of(at)),
            }
            buffers.extend(item.pieces.iter().map(|piece| {
                let buffer = Buffer {
                    size: piece.size,
                    first: piece.first,
                    last: piece.last,
                    offset: offset + piece.at,
                    row,
                    part: item.pieces.len() > 1,
                    ..buffer.clone()
                };
                (buffer, (number, piece.at))
            }));
        }
        let place = |i: usize| match (places[storages.of[i]], of[storages.of[i]]) {
            (Some(place), _) => place,
            (None, Some(place)) => place,
            (None, None) => Place::None,
        };
        buffers.sort_by_key(|(buffer, _): &(Buffer, _)| (buffer.first, buffer.last, buffer.offset));
        let (buffers, parts) = buffers.into_iter().unzip();
        let lower_bound = self.live.iter().copied().max().unwrap_or(0).next_multiple_of(ALIGN);
        Plan {
            io: whole.io,
            order: runs,
            steps,
            places: (0..graph.tensors.len()).map(place).collect(),
            rows,
            buffers,
            pools: Vec::new(),
            layout: pools::Layout {
                items: self.items.into_iter().map(|(_, item)| item).collect(),
                meetings: self.meetings,
                of: parts,
            },
            live: self.live,
            kept: whole.kept.clone(),
            staging: None,
            arena_size: self.size,
            arena_align: whole.arena_align,
            lower_bound,
            optimal: self.size == lower_bound,
        }
    }
}

#[cfg(test)]
mod tests;
