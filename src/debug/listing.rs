//! The model as a source file.
//!
//! [`graph::text`](crate::graph::text), with comments below each operator: its kernel, the parameters that it is the
//! first to read with the order of their bytes, and where its result is.

use super::{Model, shape};
use crate::data::{Contents, Layout, Scalar};
use crate::graph::text::{self, Subject};
use crate::graph::{OpId, OpKind, TensorId};
use crate::kernels::{Call, KernelId, Operand, Parameter, ParameterId};
use crate::limits;
use crate::names::{self, Named};
use crate::plan::Place;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The text, and the numbers of lines, from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The file.
    pub text: String,
    /// The line of the entry point: the model's name.
    pub entry: u32,
    /// The line where the entry point reads its arguments: the first input.
    pub checks: u32,
    /// The line where it returns: the outputs.
    pub outputs: u32,
    /// By operator.
    pub ops: BTreeMap<OpId, u32>,
    /// By tensor: its own line, or that of the operator that makes it.
    pub tensors: BTreeMap<TensorId, u32>,
    /// By kernel: the comment below the first operator that it runs for. A line of its own, so that a breakpoint on an
    /// operator means this operator even where several share a kernel.
    pub kernels: BTreeMap<KernelId, u32>,
    /// By parameter: the comment below the first operator that reads it.
    pub parameters: BTreeMap<ParameterId, u32>,
    /// How a debugger shows the constants of the model; what is not here it cannot show.
    pub constants: BTreeMap<TensorId, Shown>,
    /// Names of the tensors as variables, by [`TensorId`].
    pub names: Vec<String>,
}

/// Where a debugger takes a constant of the model from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// From memory: the symbol's bytes are in the model's order.
    Memory(String),
    /// From the debug information.
    Value,
}

/// Constants whose bytes are in memory in the model's order, and the others as long as they are few.
fn constants(model: &Model) -> BTreeMap<TensorId, Shown> {
    let mut in_memory: BTreeMap<TensorId, &Named> = model
        .code
        .names
        .constants
        .iter()
        .map(|(id, named)| (*id, named))
        .collect();
    let parameters = model.code.lowering.parameters.iter().zip(&model.code.names.parameters);
    let embedded = (0..).map(ParameterId).zip(parameters);
    for (_, (parameter, named)) in embedded.filter(|(id, _)| !model.is_outside(*id)) {
        in_memory.extend(same(model, parameter).map(|id| (id, named)));
    }
    let mut left = limits::DEBUG_VALUES;
    let tensors = (0..).map(TensorId).zip(&model.code.graph.tensors);
    let shown = tensors.filter_map(|(id, tensor)| {
        let data = tensor.data.as_ref()?;
        let shown = match in_memory.get(&id) {
            Some(named) => Shown::Memory(named.symbol.clone()),
            None => {
                left = left.checked_sub(data.len())?;
                Shown::Value
            }
        };
        Some((id, shown))
    });
    shown.collect()
}

/// The constants of the graph whose bytes a parameter is, unchanged.
fn same<'a>(model: &Model<'a>, parameter: &'a Parameter) -> impl Iterator<Item = TensorId> + use<'a> {
    let graph = model.code.graph;
    let bytes = match &parameter.contents {
        Contents::Bytes(bytes) => Some(bytes),
        Contents::Transform(_) | Contents::Zero(_) => None,
    };
    parameter.tensors.iter().copied().filter(move |id| {
        let data = graph.tensor(*id).data.as_ref();
        data.zip(bytes).is_some_and(|(data, bytes)| data.is_same(bytes))
    })
}

/// Writes the listing of a compiled model.
pub fn listing(model: &Model) -> Listing {
    let mut listing = Listing {
        entry: 1,
        checks: 1,
        outputs: 1,
        names: names::tensors(model.code.graph),
        constants: constants(model),
        ..Listing::default()
    };
    let mut lines = Lines {
        listing,
        next: 1,
        calls: BTreeMap::new(),
        users: BTreeMap::new(),
    };
    for call in model.code.lowering.all_calls() {
        lines.calls.entry(call.op).or_default().push(call);
        for kernel in kernels(call) {
            let users = lines.users.entry(kernel).or_default();
            if !users.contains(&call.op) {
                users.push(call.op);
            }
        }
    }
    for (subject, line) in text::lines(model.code.graph) {
        let number = lines.push(&line);
        match subject {
            Subject::Graph => {
                (lines.listing.entry, lines.listing.checks, lines.listing.outputs) = (number, number, number);
                let run = &model.code.names.run.symbol;
                lines.note(&format!(
                    "{run}: an operator is a line of it, and below is what runs for it; made by corerope {}",
                    env!("CARGO_PKG_VERSION")
                ));
            }
            Subject::Tensor(id) => {
                lines.listing.tensors.insert(id, number);
                if model.code.graph.inputs.first() == Some(&id) {
                    lines.listing.checks = number;
                }
                lines.tensor(model, id);
            }
            Subject::Op(op) => {
                lines.listing.ops.insert(op, number);
                let outputs = model.code.graph.op(op).outputs.iter();
                lines.listing.tensors.extend(outputs.map(|id| (*id, number)));
                lines.operator(model, op);
            }
            Subject::Outputs => lines.listing.outputs = number,
        }
    }
    listing = lines.listing;
    listing
}

/// Most users of a kernel that are named.
const NAMED: usize = 16;

struct Lines<'a> {
    listing: Listing,
    next: u32,
    calls: BTreeMap<OpId, Vec<&'a Call>>,
    /// The operators that each kernel runs for.
    users: BTreeMap<KernelId, Vec<OpId>>,
}

/// The kernels of a call: one, or those of its pieces.
fn kernels(call: &Call) -> impl Iterator<Item = KernelId> {
    let pieces = call.launches.iter().map(|launch| launch.kernel);
    call.kernel.into_iter().chain(pieces)
}

impl Lines<'_> {
    fn push(&mut self, line: &str) -> u32 {
        self.listing.text += line;
        self.next += 1;
        self.next - 1
    }

    fn note(&mut self, note: &str) -> u32 {
        self.push(&format!("#   {note}\n"))
    }

    /// What became of an operator.
    fn operator(&mut self, model: &Model, op: OpId) {
        let Some(calls) = self.calls.get(&op).cloned() else {
            self.note("no code: the same bytes under another shape");
            for id in &model.code.graph.op(op).outputs {
                self.tensor(model, *id);
            }
            return;
        };
        if let OpKind::External(external) = &model.code.graph.op(op).kind {
            self.note(&format!("{}, external", external.symbol));
        }
        let mut known = BTreeSet::new();
        for kernel in calls.iter().flat_map(|call| kernels(call)) {
            if known.insert(kernel) {
                self.kernel(model, op, kernel);
            }
        }
        for operand in calls.iter().flat_map(|call| &call.operands) {
            if let Operand::Parameter(id) = operand {
                self.parameter(model, *id);
            }
        }
        for id in &model.code.graph.op(op).outputs {
            self.tensor(model, *id);
        }
    }

    /// A kernel of an operator, with what it is, the first time.
    fn kernel(&mut self, model: &Model, op: OpId, id: KernelId) {
        let symbol = &model.code.names.kernel(id).symbol;
        if let Some(line) = self.listing.kernels.get(&id) {
            self.note(&format!("{symbol}, line {line}"));
            return;
        }
        let kernel = model.code.lowering.kernel(id);
        let bytes = model.kernels[id.0 as usize].bytes.len();
        let users = self.users.get(&id).into_iter().flatten();
        let mut others: Vec<String> = (users.filter(|user| **user != op))
            .map(|user| format!("%{}", model.code.graph.op(*user).output().0))
            .collect();
        if others.len() > NAMED {
            let more = others.split_off(NAMED).len();
            others.push(format!("{more} more"));
        }
        let shared = if others.is_empty() {
            String::new()
        } else {
            format!(", also for {}", others.join(", "))
        };
        let line = self.note(&format!("{symbol}: {}, {bytes} bytes{shared}", kernel.schedule));
        self.listing.kernels.insert(id, line);
    }

    /// A parameter with the order of its bytes, the first time.
    fn parameter(&mut self, model: &Model, id: ParameterId) {
        if self.listing.parameters.contains_key(&id) {
            return;
        }
        let parameter = model.code.lowering.parameter(id);
        let symbol = &model.code.names.parameter(id).symbol;
        let outside = if model.is_outside(id) {
            ", outside the object"
        } else {
            ""
        };
        let (layout, note) = match (model_order(model, parameter), parameter.contents.layout()) {
            (Some(layout), _) => (layout, "as in the model"),
            (None, Some(layout)) => (layout, ""),
            (None, None) => (bytes(parameter.contents.len()), "in an order of the kernel's own"),
        };
        let mut text = format!("const {}", declaration(&layout, symbol));
        let order = axes(&layout);
        if !order.is_empty() {
            let _ = write!(text, " in the order {order}");
        }
        if !note.is_empty() {
            let _ = write!(text, ", {note}");
        }
        text += outside;
        let line = self.note(&text);
        self.listing.parameters.insert(id, line);
    }

    /// Where a tensor is and as which variable.
    fn tensor(&mut self, model: &Model, id: TensorId) {
        let name = &self.listing.names[id.index()];
        let tensor = model.code.graph.tensor(id);
        let constant = if tensor.data.is_some() { "const " } else { "" };
        let declaration = declaration(&shape(tensor), name);
        let place = match model.code.plan.places.get(id.index()).copied().unwrap_or(Place::None) {
            Place::Arena(offset) => {
                let (pool, offset) = model.code.plan.locate(offset);
                match model.code.plan.pools.get(pool) {
                    Some(pool) => format!(" at arena in {} + {offset}", pool.name),
                    None => format!(" at arena + {offset}"),
                }
            }
            Place::Input(_) => " behind the pointer of an input".into(),
            Place::Output(_) => " behind the pointer of an output".into(),
            Place::Constant | Place::None if tensor.data.is_some() => match self.listing.constants.get(&id) {
                Some(Shown::Memory(symbol)) => format!(" at {symbol}"),
                Some(Shown::Value) => String::new(),
                None => ", too large to be shown".into(),
            },
            Place::Rows(_) => " by rows, in the arena".into(),
            Place::Constant | Place::None => String::new(),
        };
        self.note(&format!("{constant}{declaration}{place}"));
    }
}

/// The shape of a parameter that is a constant of the graph, unchanged.
pub(super) fn model_order(model: &Model, parameter: &Parameter) -> Option<Layout> {
    same(model, parameter)
        .next()
        .map(|id| shape(model.code.graph.tensor(id)))
}

/// Bytes of which nothing is known.
pub(super) fn bytes(len: u64) -> Layout {
    Layout::array(&[("", len as usize)], Layout::Scalar(Scalar::U8))
}

/// The name of a scalar in C.
pub(super) fn scalar_name(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::I8 => "int8_t",
        Scalar::U8 => "uint8_t",
        Scalar::I16 => "int16_t",
        Scalar::I32 => "int32_t",
        Scalar::U32 => "uint32_t",
        Scalar::I64 => "int64_t",
        Scalar::U16 => "uint16_t",
        Scalar::U64 => "uint64_t",
        Scalar::F32 => "float",
        Scalar::F64 => "double",
        Scalar::Bool => "bool",
    }
}

/// `int8_t name[2][3]`, as in C.
fn declaration(layout: &Layout, name: &str) -> String {
    let mut dims = String::new();
    let mut inner = layout;
    while let Layout::Array { len, of, .. } = inner {
        let _ = write!(dims, "[{len}]");
        inner = of;
    }
    let element = match inner {
        Layout::Scalar(scalar) => scalar_name(*scalar).to_owned(),
        Layout::Struct(members) => {
            let members = members.iter().map(|(name, layout)| {
                let order = axes(layout);
                let order = if order.is_empty() {
                    order
                } else {
                    format!(" in the order {order}")
                };
                format!("{}{order};", declaration(layout, name))
            });
            format!("struct {{ {} }}", members.collect::<Vec<_>>().join(" "))
        }
        Layout::Array { .. } => String::new(),
    };
    format!("{element} {name}{dims}")
}

/// `[block][channel]`: what the dimensions count, where that is said.
fn axes(layout: &Layout) -> String {
    let mut text = String::new();
    let mut inner = layout;
    while let Layout::Array { axis, of, .. } = inner {
        if !axis.is_empty() {
            let _ = write!(text, "[{axis}]");
        }
        inner = of;
    }
    text
}
