//! Variables: what the object holds, as it lies in memory, and the tensors of the model, as the model has them.

use super::listing::{bytes, model_order};
use super::sections::plus;
use super::unit::{Unit, start, tensor_layout};
use crate::data::{Contents, Layout};
use crate::error::{Code, Error, Result};
use crate::graph::TensorId;
use crate::kernels::ParameterId;
use crate::kernels::entry::{ArenaKind, Location};
use crate::limits;
use crate::plan::Place;
use gimli::write::{Address, AttributeValue, Expression, UnitEntryId};
use std::collections::BTreeMap;
use std::ops::Range;

/// A variable for every parameter, for every constant that is read as it is, and for the arena, under their symbols.
pub(super) fn globals(unit: &mut Unit) -> Result<()> {
    let model = *unit.model;
    for (i, (parameter, named)) in model
        .lowering
        .parameters
        .iter()
        .zip(&model.names.parameters)
        .enumerate()
    {
        let layout = model_order(&model, parameter).or_else(|| parameter.contents.layout());
        let layout = layout.unwrap_or_else(|| bytes(parameter.contents.len()));
        let line = unit.listing.parameters.get(&ParameterId(i as u32)).copied();
        global(unit, &named.symbol, &layout, true, line.unwrap_or(0));
    }
    for (id, named) in &model.names.constants {
        let line = unit.listing.tensors.get(id).copied().unwrap_or(0);
        global(unit, &named.symbol, &tensor_layout(&model, *id), true, line);
    }
    let layout = bytes(model.plan.arena_size);
    global(unit, &model.names.arena.symbol, &layout, false, unit.listing.entry);
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
    let arena = (unit.addresses.data(&model.names.arena.symbol)).filter(|_| model.arena == ArenaKind::Static);
    let lives = Lives::new(unit);
    let mut left = limits::DEBUG_VALUES;
    for i in 0..model.graph.tensors.len() {
        let id = TensorId(i as u32);
        let tensor = model.graph.tensor(id);
        let line = unit.listing.tensors.get(&id).copied().unwrap_or(0);
        let name = unit.listing.names[i].clone();
        let layout = tensor_layout(&model, id);
        let constant = tensor.data.is_some();
        let variable = variable(unit, unit.run, &name, &layout, constant, line);
        let value = match &tensor.data {
            Some(data) => match in_memory(unit, id) {
                Some(address) => Some((gimli::DW_AT_location, AttributeValue::Exprloc(at(address)))),
                None if data.len() <= left => {
                    left -= data.len();
                    // At most the limit, so within usize.
                    let mut value = vec![0; data.len() as usize];
                    (data.read_at(0, &mut value))
                        .map_err(|error| Error::new(Code::Io, format!("cannot read {}: {error}", tensor.describe())))?;
                    Some((gimli::DW_AT_const_value, AttributeValue::Block(value)))
                }
                None => None,
            },
            None => match (arena, model.plan.places.get(i), lives.of(id)) {
                (Some(arena), Some(Place::Arena(offset)), Some(live)) => {
                    let place = unit.within_run(live.start, live.end, at(plus(arena, *offset)));
                    Some((gimli::DW_AT_location, place))
                }
                _ => None,
            },
        };
        if let Some((name, value)) = value {
            unit.dwarf.unit.get_mut(variable).set(name, value);
        }
    }
    Ok(())
}

/// Where a constant lies in memory in the model's order.
fn in_memory(unit: &mut Unit, id: TensorId) -> Option<Address> {
    let model = *unit.model;
    if let Some(named) = model.names.constants.get(&id) {
        return unit.addresses.data(&named.symbol);
    }
    let data = model.graph.tensor(id).data.as_ref()?;
    let mut parameters = model.lowering.parameters.iter().zip(&model.names.parameters);
    let (_, named) = parameters.find(|(parameter, _)| match &parameter.contents {
        Contents::Bytes(bytes) => bytes.is_same(data),
        Contents::Transform(_) | Contents::Zero(_) => false,
    })?;
    unit.addresses.data(&named.symbol)
}

/// When which bytes of the arena hold what, in offsets of the entry point.
struct Lives {
    /// For each step, where its code starts; then where the last one's ends.
    starts: Vec<u64>,
    /// For each step, the bytes of the arena that it writes.
    writes: Vec<Vec<Range<u64>>>,
    /// By tensor: the step behind which it has its value, 0 for what has it from the start, and its bytes.
    tensors: Vec<Option<(usize, Range<u64>)>>,
}

impl Lives {
    fn new(unit: &Unit) -> Self {
        let model = *unit.model;
        let graph = model.graph;
        let end = model.entry.bytes.len() as u64;
        let order = &model.plan.order;
        let mut starts: Vec<u64> = (order.iter())
            .map(|op| start(&model, Location::Op(*op)).map_or(end, u64::from))
            .collect();
        starts.push(start(&model, Location::Return).map_or(end, u64::from));
        let bytes = |id: TensorId| match model.plan.places.get(id.index()) {
            Some(Place::Arena(offset)) => Some(*offset..offset + graph.tensor(id).bytes() as u64),
            _ => None,
        };
        let scratch = |op| {
            let buffers = model.plan.buffers.iter();
            let of = buffers.filter(move |buffer| buffer.scratch_of == Some(op));
            of.map(|buffer| buffer.offset..buffer.offset + buffer.size)
        };
        let writes = (order.iter())
            .map(|op| {
                let outputs = graph.op(*op).outputs.iter().filter_map(|id| bytes(*id));
                outputs.chain(scratch(*op)).collect()
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
        let tensors = (0..graph.tensors.len() as u32)
            .map(|i| Some((made[i as usize]?, bytes(TensorId(i))?)))
            .collect();
        Lives {
            starts,
            writes,
            tensors,
        }
    }

    /// From the end of the call that makes a tensor to the start of the first that writes into its bytes; the
    /// instruction at which a debugger stops in front of that call included.
    fn of(&self, id: TensorId) -> Option<Range<u64>> {
        let (made, bytes) = self.tensors[id.index()].as_ref()?;
        let overlaps = |range: &Range<u64>| range.start < bytes.end && bytes.start < range.end;
        let later = (*made..self.writes.len()).find(|step| self.writes[*step].iter().any(overlaps));
        let start = if *made == 0 { 0 } else { *self.starts.get(*made)? };
        let end = match later {
            Some(step) => self.starts[step] + 1,
            None => self.starts[self.writes.len()] + 1,
        };
        (start < end).then_some(start..end)
    }
}
