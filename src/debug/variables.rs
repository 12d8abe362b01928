//! Variables: what the object holds, as it lies in memory, and the tensors of the model, as the model has them.

use super::listing::{Shown, bytes, model_order};
use super::sections::plus;
use super::unit::{Unit, starts, tensor_layout};
use crate::data::Layout;
use crate::error::{Code, Error, Result};
use crate::graph::{OpId, TensorId};
use crate::kernels::ParameterId;
use crate::kernels::entry::{ArenaKind, Location};
use crate::plan::Place;
use gimli::write::{Address, AttributeValue, Expression, UnitEntryId};
use std::collections::BTreeMap;
use std::ops::Range;

/// A variable for every parameter, for every constant that is read as it is, and for the arena, under their symbols.
pub(super) fn globals(unit: &mut Unit) -> Result<()> {
    let model = *unit.model;
    for (i, (parameter, named)) in model
        .code
        .lowering
        .parameters
        .iter()
        .zip(&model.code.names.parameters)
        .enumerate()
    {
        let layout = model_order(&model, parameter).or_else(|| parameter.contents.layout());
        let layout = layout.unwrap_or_else(|| bytes(parameter.contents.len()));
        let line = unit.listing.parameters.get(&ParameterId(i as u32)).copied();
        global(unit, &named.symbol, &layout, true, line.unwrap_or(0));
    }
    for (id, named) in &model.code.names.constants {
        let line = unit.listing.tensors.get(id).copied().unwrap_or(0);
        global(unit, &named.symbol, &tensor_layout(&model, *id), true, line);
    }
    for (pool, (_, size)) in model.code.plan.areas().into_iter().enumerate() {
        let symbol = &model.code.names.pool(pool).symbol;
        global(unit, symbol, &bytes(size), false, unit.listing.entry);
    }
    Ok(())
}

/// A variable under its symbol; nothing if the object does not have it.
fn global(unit: &mut Unit, symbol: &str, layout: &Layout, constant: bool, line: u32) {
    let Some(address) = unit.addresses.data(symbol) else {
        return;
    };
    let root = unit.dwarf.unit.root();
    let id = variable(unit, root, symbol, layout, constant, line);
    let entry = unit.dwarf.unit.get_mut(id);
    entry.set(gimli::DW_AT_external, AttributeValue::FlagPresent);
    entry.set(gimli::DW_AT_location, AttributeValue::Exprloc(at(address)));
}

fn variable(
    unit: &mut Unit,
    scope: UnitEntryId,
    name: &str,
    layout: &Layout,
    constant: bool,
    line: u32,
) -> UnitEntryId {
    let kind = unit.layout(layout, constant);
    let id = unit.named(scope, gimli::DW_TAG_variable, name, line);
    (unit.dwarf.unit.get_mut(id)).set(gimli::DW_AT_type, AttributeValue::UnitRef(kind));
    id
}

fn at(address: Address) -> Expression {
    let mut place = Expression::new();
    place.op_addr(address);
    place
}

/// In the entry point, a variable for every tensor of the model with the model's shape. Constants whose bytes have
/// another order in memory have the model's values, from the debug information; activations are in the arena, from the
/// end of the call that makes them to the start of the first that overwrites them. What has no place that a debugger
/// can find is there without one: debuggers then say that it was optimized out.
pub(super) fn tensors(unit: &mut Unit) -> Result<()> {
    let model = *unit.model;
    let lives = Lives::new(unit);
    for i in 0..model.code.graph.tensors.len() {
        let id = TensorId(i as u32);
        let tensor = model.code.graph.tensor(id);
        let line = unit.listing.tensors.get(&id).copied().unwrap_or(0);
        let name = unit.listing.names[i].clone();
        let layout = tensor_layout(&model, id);
        let constant = tensor.data.is_some();
        let variable = variable(unit, unit.run, &name, &layout, constant, line);
        let value = match &tensor.data {
            Some(data) => match unit.listing.constants.get(&id) {
                Some(Shown::Memory(symbol)) => (unit.addresses.data(symbol))
                    .map(|address| (gimli::DW_AT_location, AttributeValue::Exprloc(at(address)))),
                Some(Shown::Value) => {
                    // At most the limit, so within usize.
                    let mut value = vec![0; data.len() as usize];
                    (data.read_at(0, &mut value))
                        .map_err(|error| Error::new(Code::Io, format!("cannot read {}: {error}", tensor.describe())))?;
                    Some((gimli::DW_AT_const_value, AttributeValue::Block(value)))
                }
                None => None,
            },
            None => {
                (lives.of(id).and_then(|live| activation(unit, id, live))).map(|place| (gimli::DW_AT_location, place))
            }
        };
        if let Some((name, value)) = value {
            unit.dwarf.unit.get_mut(variable).set(name, value);
        }
    }
    Ok(())
}

/// Where an activation is while it has its value.
fn activation(unit: &mut Unit, id: TensorId, live: Range<u64>) -> Option<AttributeValue> {
    let model = *unit.model;
    let pointer = u64::from(unit.dwarf.unit.address_size());
    // The pointers are in a structure that the argument points at.
    let behind = |index: usize| {
        move |_, mut place: Expression| {
            place.op_plus_uconst(pointer * index as u64);
            place.op_deref();
            place
        }
    };
    match (*model.code.plan.places.get(id.index())?, model.code.arena) {
        (Place::Arena(offset), ArenaKind::Static) => {
            let (pool, offset) = model.code.plan.locate(offset);
            let arena = unit.addresses.data(&model.code.names.pool(pool).symbol)?;
            Some(unit.within_run([(live, at(plus(arena, offset)))]))
        }
        (Place::Arena(offset), ArenaKind::Caller) if model.code.plan.pools.is_empty() => {
            unit.by_argument("arena", live, |_, mut place| {
                place.op_plus_uconst(offset);
                place
            })
        }
        (Place::Arena(offset), ArenaKind::Caller) => {
            let (pool, offset) = model.code.plan.locate(offset);
            unit.by_argument("arenas", live, move |_, mut place| {
                place.op_plus_uconst(pointer * pool as u64);
                place.op_deref();
                place.op_plus_uconst(offset);
                place
            })
        }
        (Place::Input(index), _) => unit.by_argument("inputs", live, behind(index)),
        (Place::Output(index), _) => unit.by_argument("outputs", live, behind(index)),
        (Place::Rows(_) | Place::Constant | Place::None, _) => None,
    }
}

/// Bytes of an activation: the arena, an input or an output, and which of its bytes.
type Region = (Memory, Range<u64>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Arena,
    Input(usize),
    Output(usize),
}

/// When which bytes hold what, in offsets of the entry point.
struct Lives {
    /// For each step, where its code starts; then where the last one's ends.
    starts: Vec<u64>,
    /// For each step, what it writes.
    writes: Vec<Vec<Region>>,
    /// By tensor: the step behind which it has its value, 0 for what has it from the start, and its bytes.
    tensors: Vec<Option<(usize, Region)>>,
    /// Where the entry point has returned.
    end: u64,
}

impl Lives {
    fn new(unit: &Unit) -> Self {
        let model = *unit.model;
        let graph = model.code.graph;
        // What follows the return is for arguments that are refused.
        let locations = &model.entry.debug.locations;
        let returns = Location::Return.source().bits();
        let mut behind = locations.iter().skip_while(|(_, bits)| *bits != returns).skip(1);
        let end = behind.next().map_or(unit.run_bytes(), |(offset, _)| u64::from(*offset));
        let order = &model.code.plan.order;
        let known = starts(&model);
        let start = |location: Location| {
            known
                .get(&location.source().bits())
                .map_or(end, |start| (*start).into())
        };
        let mut starts: Vec<u64> = order.iter().map(|op| start(Location::Op(*op))).collect();
        starts.push(start(Location::Return));
        let region = |id: TensorId| {
            let bytes = graph.tensor(id).bytes() as u64;
            match *model.code.plan.places.get(id.index())? {
                Place::Arena(offset) => Some((Memory::Arena, offset..offset + bytes)),
                Place::Input(index) => Some((Memory::Input(index), 0..bytes)),
                Place::Output(index) => Some((Memory::Output(index), 0..bytes)),
                Place::Rows(_) | Place::Constant | Place::None => None,
            }
        };
        let mut scratch: BTreeMap<OpId, Vec<Region>> = BTreeMap::new();
        for buffer in &model.code.plan.buffers {
            if let Some(op) = buffer.scratch_of {
                let region = (Memory::Arena, buffer.offset..buffer.offset + buffer.size);
                scratch.entry(op).or_default().push(region);
            }
        }
        let writes = (order.iter())
            .map(|op| {
                let outputs = graph.op(*op).outputs.iter().filter_map(|id| region(*id));
                outputs.chain(scratch.remove(op).unwrap_or_default()).collect()
            })
            .collect();
        let mut made: Vec<Option<usize>> = vec![None; graph.tensors.len()];
        for id in &graph.inputs {
            made[id.index()] = Some(0);
        }
        let steps: BTreeMap<_, _> = order.iter().zip(1..).collect();
        for id in graph.op_ids() {
            let op = graph.op(id);
            // A view has its value when its source has.
            let step = match steps.get(&id) {
                Some(step) => Some(*step),
                None => op.inputs.first().and_then(|source| made[source.index()]),
            };
            for output in &op.outputs {
                made[output.index()] = step;
            }
        }
        // Where operators run row by row, code is in no order: known is only what is not written there.
        let rows = model.code.plan.steps.iter().rposition(|step| step.rows.is_some());
        let after = rows.map_or(order.len(), |last| model.code.plan.steps.len() - 1 - last);
        let settled = order.len() - after.min(order.len());
        let known = |made: usize, (memory, _): &Region| made >= settled || matches!(memory, Memory::Input(_));
        let tensors = (0..graph.tensors.len() as u32)
            .map(|i| Some((made[i as usize]?, region(TensorId(i))?)).filter(|(made, region)| known(*made, region)))
            .collect();
        Lives {
            starts,
            writes,
            tensors,
            end,
        }
    }

    /// From the end of the call that makes a tensor to the start of the first that writes into its bytes; the
    /// instruction at which a debugger stops in front of that call included.
    fn of(&self, id: TensorId) -> Option<Range<u64>> {
        let (made, (memory, bytes)) = self.tensors[id.index()].as_ref()?;
        let overlaps = |(other, range): &Region| other == memory && range.start < bytes.end && bytes.start < range.end;
        let later = (*made..self.writes.len()).find(|step| self.writes[*step].iter().any(overlaps));
        let start = if *made == 0 { 0 } else { *self.starts.get(*made)? };
        let end = later.map_or(self.end, |step| self.starts[step] + 1);
        (start < end).then_some(start..end)
    }
}
