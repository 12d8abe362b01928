//! The graph executor's JSON → graph: every `tvm_op` is a call of a kernel that TVM compiled.
//!
//! Entries (tensors) are numbered by `node_row_ptr[node] + index`; the lists of `attrs` are indexed by them. Storage ids
//! are not used: memory is planned anew.

use super::metadata::Module;
use super::params::{self, Param};
use super::source::Sources;
use crate::error::{Code, Error, Result};
use crate::graph::external::{Argument, Convention, External, Peer, Port, Workspace};
use crate::graph::{DType, Graph, Op, OpKind, Shape, Tensor, TensorId};
use crate::limits;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Json {
    nodes: Vec<Node>,
    arg_nodes: Vec<usize>,
    heads: Vec<Vec<u64>>,
    attrs: Attributes,
    node_row_ptr: Vec<usize>,
}

#[derive(Deserialize)]
struct Node {
    op: String,
    name: String,
    #[serde(default)]
    inputs: Vec<Vec<u64>>,
    #[serde(default)]
    attrs: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Attributes {
    dltype: (String, Vec<String>),
    shape: (String, Vec<Vec<i64>>),
    #[serde(default)]
    storage_id: Option<(String, Vec<i64>)>,
    #[serde(default)]
    device_index: Option<(String, Vec<i64>)>,
}

/// What the executor's graph is read with.
pub(super) struct Parts<'a> {
    /// The text of `graph.json`.
    pub json: &'a str,
    /// Its parameters.
    pub params: Vec<Param>,
    /// What the library says about its functions.
    pub module: Option<&'a Module>,
    /// The kernels' C, where it is there.
    pub sources: &'a Sources,
    /// Workspace of every kernel that nothing else says anything about.
    pub workspace: Option<u64>,
}

/// Most findings that are reported at once.
const FINDINGS: usize = 64;

/// The graph, not yet verified.
pub(super) fn read(parts: Parts) -> Result<Graph> {
    let json: Json = serde_json::from_str(parts.json).map_err(|error| {
        Error::model(format!("the executor's graph is not as TVM writes it: {error}")).at("graph.json")
    })?;
    let reader = Reader::new(&json, &parts)?;
    let graph = reader.graph()?;
    Ok(graph)
}

struct Reader<'a> {
    json: &'a Json,
    parts: &'a Parts<'a>,
    types: Vec<DType>,
    shapes: Vec<Shape>,
}

fn bad(message: impl Into<String>) -> Error {
    Error::model(message).at("graph.json")
}

impl<'a> Reader<'a> {
    /// Checks the lists that the rest indexes.
    fn new(json: &'a Json, parts: &'a Parts<'a>) -> Result<Self> {
        for (count, most, what) in [
            (json.nodes.len(), limits::OPERATORS, "nodes"),
            (json.attrs.shape.1.len(), limits::TENSORS, "entries"),
            (json.heads.len(), limits::OPERANDS, "outputs"),
        ] {
            if count > most {
                let message = format!("{count} {what}, at most {most} are supported");
                return Err(Error::new(Code::Limit, message).at("graph.json"));
            }
        }
        let rows = &json.node_row_ptr;
        let entries = rows.last().copied().unwrap_or(0);
        let rising = rows.first() == Some(&0) && rows.is_sorted() && rows.len() == json.nodes.len() + 1;
        if !rising {
            return Err(bad(format!(
                "node_row_ptr does not number the entries of {} nodes",
                json.nodes.len()
            )));
        }
        let attrs = &json.attrs;
        for (name, count) in [
            ("dltype", attrs.dltype.1.len()),
            ("shape", attrs.shape.1.len()),
            (
                "storage_id",
                attrs.storage_id.as_ref().map_or(entries, |list| list.1.len()),
            ),
            (
                "device_index",
                attrs.device_index.as_ref().map_or(entries, |list| list.1.len()),
            ),
        ] {
            if count != entries {
                return Err(bad(format!(
                    "{name} describes {count} entries, the nodes have {entries}"
                )));
            }
        }
        if let Some((_, devices)) = &attrs.device_index
            && let Some(other) = devices.iter().find(|device| Some(*device) != devices.first())
        {
            let message = format!("the graph runs on several devices ({} and {other})", devices[0]);
            return Err(Error::unsupported(message).at("graph.json"));
        }
        let mut types = Vec::with_capacity(entries);
        let mut shapes = Vec::with_capacity(entries);
        for (name, dims) in attrs.dltype.1.iter().zip(&attrs.shape.1) {
            let at = |error: Error| error.at(format!("entry {} of graph.json", types.len()));
            types.push(params::type_of(name).map_err(at)?);
            let dims: Option<Vec<usize>> = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
            let dims = dims.ok_or_else(|| {
                bad(format!("entry {} has a dimension that is not a size", shapes.len()))
                    .help("shapes must be static: compile with fixed input shapes")
            })?;
            shapes.push(Shape(dims));
        }
        Ok(Reader {
            json,
            parts,
            types,
            shapes,
        })
    }

    /// The entry that `[node, index, version]` means, before `limit` nodes.
    fn entry(&self, reference: &[u64], limit: usize) -> Result<usize> {
        let (Some(node), Some(index)) = (reference.first(), reference.get(1)) else {
            return Err(bad("a reference to an entry has no node or no index"));
        };
        let node = usize::try_from(*node).ok().filter(|node| *node < limit);
        let node = node.ok_or_else(|| {
            bad(format!(
                "node {} is read before it has run, or does not exist",
                reference[0]
            ))
        })?;
        let (first, end) = (self.json.node_row_ptr[node], self.json.node_row_ptr[node + 1]);
        let entry = usize::try_from(*index).ok().and_then(|index| first.checked_add(index));
        let entry = entry.filter(|entry| *entry < end);
        entry.ok_or_else(|| {
            bad(format!(
                "node {node} {:?} has no result {index}",
                self.json.nodes[node].name
            ))
        })
    }

    fn tensor(&self, entry: usize, name: String) -> Tensor {
        Tensor {
            name,
            dtype: self.types[entry],
            shape: self.shapes[entry].clone(),
            quantization: None,
            data: None,
        }
    }

    fn graph(&self) -> Result<Graph> {
        let mut graph = Graph::default();
        let mut errors = Vec::new();
        let mut params: BTreeMap<&str, &Param> = (self.parts.params.iter())
            .map(|param| (param.name.as_str(), param))
            .collect();
        let mut arguments = vec![false; self.json.nodes.len()];
        for node in &self.json.arg_nodes {
            match arguments.get_mut(*node) {
                Some(argument) => *argument = true,
                None => return Err(bad(format!("argument node {node} does not exist"))),
            }
        }
        // Entries are tensors, in their order.
        for (i, node) in self.json.nodes.iter().enumerate() {
            let (first, end) = (self.json.node_row_ptr[i], self.json.node_row_ptr[i + 1]);
            for entry in first..end {
                let name = match end - first {
                    1 => node.name.clone(),
                    _ => format!("{}.{}", node.name, entry - first),
                };
                graph.add_tensor(self.tensor(entry, name));
            }
            let at = |error: Error| error.at(format!("node {i} {:?} of graph.json", node.name));
            let result = match node.op.as_str() {
                "null" => self.argument(node, first..end, arguments[i], &mut params, &mut graph),
                "tvm_op" => self.call(i, node, first..end, &mut graph),
                other => Err(Error::unsupported(format!(
                    "nodes of the kind {other:?} are not supported"
                ))),
            };
            if let Err(error) = result
                && errors.len() < FINDINGS
            {
                errors.push(at(error));
            }
        }
        for head in &self.json.heads {
            match self.entry(head, self.json.nodes.len()) {
                Ok(entry) => graph.outputs.push(TensorId(entry as u32)),
                Err(error) => errors.push(error),
            }
        }
        if let Some(error) = Error::collect(errors) {
            return Err(error);
        }
        // What no node reads is reported as left out.
        for param in params.into_values() {
            graph.add_tensor(Tensor {
                name: param.name.clone(),
                dtype: param.dtype,
                shape: param.shape.clone(),
                quantization: None,
                data: Some(param.data.clone()),
            });
        }
        self.name_outputs(&mut graph);
        graph.foreign.peer = self.peer(&graph);
        Ok(graph)
    }

    /// A parameter or a model input.
    fn argument(
        &self,
        node: &Node,
        entries: std::ops::Range<usize>,
        listed: bool,
        params: &mut BTreeMap<&str, &Param>,
        graph: &mut Graph,
    ) -> Result<()> {
        if !listed || entries.len() != 1 {
            return Err(Error::model(
                "an argument that arg_nodes does not list, or without a value",
            ));
        }
        let Some(param) = params.remove(node.name.as_str()) else {
            graph.inputs.push(TensorId(entries.start as u32));
            return Ok(());
        };
        let tensor = &mut graph.tensors[entries.start];
        if param.dtype != tensor.dtype || param.shape != tensor.shape {
            return Err(Error::model(format!(
                "the parameter is {}{}, the graph wants {}{}",
                param.dtype.name(),
                param.shape,
                tensor.dtype.name(),
                tensor.shape
            ))
            .help("graph and parameters must be of one build"));
        }
        tensor.data = Some(param.data.clone());
        Ok(())
    }

    /// A kernel's call, or a view.
    fn call(&self, i: usize, node: &Node, entries: std::ops::Range<usize>, graph: &mut Graph) -> Result<()> {
        let attribute = |key: &str| match node.attrs.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let function = attribute("func_name").ok_or_else(|| Error::model("the node names no function"))?;
        for (key, count) in [("num_inputs", node.inputs.len()), ("num_outputs", entries.len())] {
            if let Some(text) = attribute(key)
                && text.parse() != Ok(count)
            {
                return Err(Error::model(format!("{key} is {text}, but there are {count}")));
            }
        }
        if attribute("flatten_data").is_some_and(|flatten| flatten != "0") {
            return Err(Error::unsupported("flattened arguments are not supported"));
        }
        let inputs = node.inputs.iter().map(|input| self.entry(input, i));
        let inputs = inputs.collect::<Result<Vec<usize>>>()?;
        let inputs: Vec<TensorId> = inputs.into_iter().map(|entry| TensorId(entry as u32)).collect();
        let outputs: Vec<TensorId> = entries.map(|entry| TensorId(entry as u32)).collect();
        let kind = match function.as_str() {
            // Both only give a value another name: there is one device.
            "__nop" | "__copy" if inputs.len() == 1 && outputs.len() == 1 => OpKind::Reshape,
            "__nop" | "__copy" => return Err(Error::model(format!("{function} has one operand and one result"))),
            _ => {
                let count = inputs.len() + outputs.len();
                OpKind::External(Box::new(self.external(&function, inputs.len(), count)?))
            }
        };
        graph.ops.push(Op {
            name: node.name.clone(),
            source: i,
            kind,
            inputs,
            outputs,
        });
        Ok(())
    }

    fn external(&self, function: &str, inputs: usize, count: usize) -> Result<External> {
        super::check_symbol(function)?;
        let declared = self
            .parts
            .module
            .and_then(|module| module.workspaces.get(function).copied());
        let size = match self.parts.sources.function(function) {
            Some(source) => {
                source.check_packed(function, count)?;
                source.workspace
            }
            None => declared.or(self.parts.workspace).ok_or_else(|| {
                Error::model(format!("nothing says how much workspace {function} needs")).help(
                    "give the model library instead of its parts, or --tvm-workspace BYTES for every such kernel (0 if \
                     they ask for none)",
                )
            })?,
        };
        let port = |i: usize| match i.checked_sub(inputs) {
            None => Port::Input(i),
            Some(output) => Port::Output(output),
        };
        Ok(External {
            symbol: function.to_owned(),
            convention: Convention::Packed,
            arguments: (0..count).map(|i| Argument::Port(port(i))).collect(),
            workspace: Workspace {
                size,
                align: 0,
                allocated: true,
            },
            status: true,
            resident: Vec::new(),
            brief: self.parts.sources.function(function).is_some_and(|source| source.brief),
            module: None,
        })
    }

    /// Outputs have the names that the model had, where the library knows them.
    fn name_outputs(&self, graph: &mut Graph) {
        let names = self.parts.module.map_or(&[][..], |module| &module.outputs);
        for (i, output) in graph.outputs.clone().into_iter().enumerate() {
            let argument = graph.inputs.contains(&output) || graph.tensor(output).data.is_some();
            if argument {
                continue;
            }
            graph.tensors[output.index()].name = match (names, graph.outputs.len()) {
                ([name], 1) => name.clone(),
                (_, 1) => "output".into(),
                _ => format!("output{i}"),
            };
        }
    }

    /// What TVM's graph executor allocates: one buffer for each storage id, and the largest workspace.
    fn peer(&self, graph: &Graph) -> Option<Peer> {
        let (_, ids) = self.json.attrs.storage_id.as_ref()?;
        let mut sizes: BTreeMap<i64, (u64, bool)> = BTreeMap::new();
        for (entry, id) in ids.iter().enumerate() {
            let tensor = graph.tensors.get(entry)?;
            let elements = tensor
                .shape
                .0
                .iter()
                .try_fold(1u64, |n, dim| n.checked_mul(*dim as u64))?;
            let bytes = elements.checked_mul(tensor.dtype.bytes() as u64)?;
            let (size, constant) = sizes.entry(*id).or_insert((0, true));
            *size = (*size).max(bytes);
            *constant &= tensor.data.is_some();
        }
        let sum = |constant: bool| -> u64 {
            let of = sizes.values().filter(|(_, is)| *is == constant);
            of.map(|(size, _)| *size).fold(0, u64::saturating_add)
        };
        let workspace = graph.ops.iter().filter_map(|op| match &op.kind {
            OpKind::External(external) => {
                let declared = self
                    .parts
                    .module
                    .and_then(|module| module.workspaces.get(&external.symbol));
                Some(declared.copied().unwrap_or(external.workspace.size))
            }
            _ => None,
        });
        Some(Peer {
            name: "TVM's graph executor".into(),
            arena: sum(false).saturating_add(workspace.max().unwrap_or(0)),
            parameters: sum(true),
        })
    }
}
