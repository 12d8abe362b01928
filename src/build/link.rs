//! Objects of others that go into the library: that they define what the model calls, and nothing twice.

use super::Build;
use crate::assemble::external::externals;
use crate::error::{Code, Error, Result};
use crate::graph::Graph;
use crate::graph::external::{Argument, Convention, External, Object, Port};
use crate::graph::{Op, OpKind, TensorId};
use crate::object::foreign::{self, Extra};
use crate::object::{ObjectPlan, Visibility};
use crate::output::report;
use crate::plan::Io;
use crate::target::Target;
use std::collections::{BTreeMap, BTreeSet};

/// The objects that come with the model and those of `--kernels`, checked against the model's own object.
///
/// # Errors
/// Every symbol that the objects should define and do not; a symbol that two of them define; objects that do not fit
/// the target.
pub(super) fn extras(graph: &Graph, kernels: &[Object], object: &ObjectPlan, target: &Target) -> Result<Vec<Extra>> {
    let mut extras: Vec<Extra> = Vec::new();
    for Object { name, bytes, origin } in graph.foreign.objects.iter().chain(kernels) {
        extras.extend(foreign::read(name, bytes, origin, target)?);
    }
    if extras.is_empty() {
        return Ok(extras);
    }
    let mut owners: BTreeMap<&str, &str> = (object.symbols.iter())
        .filter(|symbol| {
            symbol.section.is_some() && matches!(symbol.visibility, Visibility::Hidden | Visibility::Exported)
        })
        .map(|symbol| (symbol.name.as_str(), "the model's own object"))
        .collect();
    for extra in &extras {
        for symbol in &extra.strong {
            if let Some(owner) = owners.insert(symbol, &extra.name) {
                let message = format!("both {owner} and {} define {symbol}", extra.name);
                return Err(Error::new(Code::Model, message).help("give one of them, or rename the symbol"));
            }
        }
    }
    let defined: BTreeSet<&str> = extras
        .iter()
        .flat_map(|extra| &extra.defined)
        .map(String::as_str)
        .collect();
    let own: BTreeSet<&str> = (object.symbols.iter())
        .filter(|symbol| symbol.section.is_some())
        .map(|symbol| symbol.name.as_str())
        .collect();
    // What a module brings no objects for is left to the application's link.
    let required = externals(graph).filter(|external| external.is_provided(graph, kernels));
    let missing: BTreeSet<&str> = required
        .flat_map(External::symbols)
        .filter(|symbol| !defined.contains(symbol) && !own.contains(symbol))
        .collect();
    let given: Vec<&str> = extras.iter().map(|extra| extra.name.as_str()).collect();
    let errors = missing.iter().map(|symbol| {
        let error = Error::new(
            Code::Model,
            format!("no object defines {symbol}, which the model calls"),
        );
        match closest(symbol, &defined) {
            Some(other) => error.help(format!("{} define {other}", given.join(", "))),
            None => error.help(format!("the objects are {}", given.join(", "))),
        }
    });
    Error::collect(errors.collect()).map_or(Ok(extras.clone()), Err)
}

/// A defined symbol that is the other's spelling with something in front (`_f`), or begins like it.
fn closest<'d>(symbol: &str, defined: &BTreeSet<&'d str>) -> Option<&'d str> {
    let alike =
        |other: &&str| other.trim_start_matches('_') == symbol.trim_start_matches('_') || other.starts_with(symbol);
    defined.iter().copied().find(alike)
}

/// Symbols that the library leaves to the application's link: calls of the model, and needs of the objects in it.
pub(super) fn needs(object: &ObjectPlan, extras: &[Extra]) -> Vec<String> {
    let defined: BTreeSet<&str> = (extras.iter().flat_map(|extra| &extra.defined).map(String::as_str))
        .chain(
            object
                .symbols
                .iter()
                .filter(|s| s.section.is_some())
                .map(|s| s.name.as_str()),
        )
        .collect();
    let needed = object
        .undefined()
        .chain(extras.iter().flat_map(|extra| &extra.undefined).map(String::as_str));
    let needed: BTreeSet<&str> = needed.filter(|symbol| !defined.contains(symbol)).collect();
    needed.into_iter().map(str::to_owned).collect()
}

impl Build {
    /// The report's part on external functions; `None` if there are none.
    pub(super) fn external(&self) -> Option<report::External> {
        let mut functions: Vec<report::ExternalFunction> = Vec::new();
        let mut index: BTreeMap<&str, usize> = BTreeMap::new();
        for op in &self.graph.ops {
            let OpKind::External(external) = &op.kind else {
                continue;
            };
            let known = *index.entry(&external.symbol).or_insert(functions.len());
            match functions.get_mut(known) {
                Some(function) => {
                    function.calls += 1;
                    function.workspace = function.workspace.max(external.workspace.size);
                }
                None => functions.push(report::ExternalFunction {
                    symbol: external.symbol.clone(),
                    prototype: prototype(&self.graph, op, external),
                    calls: 1,
                    workspace: external.workspace.size,
                    module: external.module.clone(),
                }),
            }
        }
        let objects = self.extras.iter().map(|extra| report::ExternalObject {
            name: extra.name.clone(),
            bytes: extra.bytes.len(),
            origin: extra.origin.clone(),
        });
        let ends = self.graph.inputs.iter().chain(&self.graph.outputs);
        let outside: u64 = match self.options.io {
            Io::Pointers => ends.map(|id| self.graph.tensor(*id).bytes() as u64).sum(),
            Io::Arena => 0,
        };
        let peer = self.graph.foreign.peer.as_ref().map(|peer| report::ExternalPeer {
            name: peer.name.clone(),
            arena: peer.arena,
            parameters: peer.parameters,
            ours: self.plan.arena_size + outside,
        });
        (!functions.is_empty()).then(|| report::External {
            functions,
            objects: objects.collect(),
            needs: self.needs.clone(),
            peer,
        })
    }
}

/// What the function's C looks like: `int32_t f(void *args, …) of (int8[1,490]) -> int8[1,12]`.
fn prototype(graph: &Graph, op: &Op, external: &External) -> String {
    let result = if external.status { "int32_t" } else { "void" };
    let port = |port: &Port| -> (TensorId, bool) {
        match port {
            Port::Input(i) => (op.inputs[*i], true),
            Port::Output(i) => (op.outputs[*i], false),
        }
    };
    let types = |ids: &[TensorId]| {
        let types = ids.iter().map(|id| {
            let tensor = graph.tensor(*id);
            format!("{}{}", tensor.dtype.name(), tensor.shape)
        });
        types.collect::<Vec<_>>().join(", ")
    };
    let arguments = match external.convention {
        Convention::Packed => "void *args, int32_t *, int32_t, void *, int32_t *, void *".to_owned(),
        Convention::Plain => {
            let argument = |argument: &Argument| match argument {
                Argument::Port(p) => {
                    let (id, read) = port(p);
                    let constant = if read { "const " } else { "" };
                    format!("{constant}{} *", graph.tensor(id).dtype.c_name())
                }
                Argument::Workspace(_) => "void *workspace".into(),
                Argument::Symbol(symbol) => format!("const void *{symbol}"),
                Argument::Integer(value) => format!("int32_t {value}"),
            };
            let arguments: Vec<String> = external.arguments.iter().map(argument).collect();
            if arguments.is_empty() {
                "void".into()
            } else {
                arguments.join(", ")
            }
        }
    };
    format!(
        "{result} {}({arguments}) of ({}) -> ({})",
        external.symbol,
        types(&op.inputs),
        types(&op.outputs)
    )
}
