//! The ahead-of-time executor: `<module>_lib0.c` holds constants and workspace and calls `<module>___tvm_main__` of the
//! kernels' C with them. What is read here is what an object needs to take lib0.c's place.
//!
//! Four forms, by the options of TVM's build: plain pointers with pools inside lib0.c (`-interface-api=c` with unified
//! memory planning), with pools that the application provides, without pools, and packed arguments.

use super::constants;
use super::metadata::Module;
use super::params::type_of;
use super::source::{Function, Sources, is_word};
use crate::data::Bytes;
use crate::error::{Code, Error, Result};
use crate::graph::external::{Argument, Convention, External, Peer, Port, WORKSPACE_ALIGN, Workspace};
use crate::graph::{DType, Graph, Op, OpKind, Shape, Tensor, TensorId};
use crate::limits;

/// What the executor's code is read with.
pub(super) struct Parts<'a> {
    /// lib0.c.
    pub text: &'a str,
    /// `tvmgen_<module>.h`, where there is one.
    pub header: &'a str,
    /// The Relay program, for the shapes of inputs.
    pub relay: &'a str,
    pub module: &'a Module,
    pub sources: &'a Sources,
}

/// Whether `text` is the lib0.c of an ahead-of-time executor: TVM 0.8 called the main function `run_model`.
pub(super) fn is_aot(text: &str, module: &str) -> bool {
    let calls = |main: &str| text.contains(&format!("tvmgen_{module}_{main}("));
    calls("__tvm_main__") || calls("run_model")
}

fn bad(message: impl Into<String>) -> Error {
    Error::model(message)
        .at("lib0.c")
        .help("the C must be as TVM 0.8 to 0.18 wrote it")
}

/// Where an argument of the main function comes from.
enum Source<'a> {
    Input(&'a str),
    Output(&'a str),
    /// A pool in lib0.c.
    Own(&'a str),
    /// A pool of the application.
    Pool(&'a str),
}

/// The graph: one call of the main function. Not yet verified.
pub(super) fn read(parts: &Parts) -> Result<Graph> {
    let Parts { text, module, .. } = parts;
    if module.inputs.is_empty() || module.output_types.is_empty() {
        let message = "the types of inputs and outputs are not known: the C of the ahead-of-time executor has only \
                       pointers, and metadata.json does not list them";
        return Err(Error::unsupported(message).at("metadata.json").help(
            "TVM lists them from 0.9 on (format 7): export the model with it, or with the graph executor, whose \
             graph.json says them in every version",
        ));
    }
    let main = format!("tvmgen_{}___tvm_main__", module.name);
    super::check_symbol(&main)?;
    let body = run_body(text, &module.name)?;
    let packed = body.contains("TVMValue");
    let sources = if packed {
        packed_sources(body, parts)?
    } else {
        plain_sources(body, &main)?
    };
    if sources.len() > limits::OPERANDS {
        return Err(Error::new(Code::Limit, format!("{} arguments", sources.len())).at("lib0.c"));
    }
    check_main(parts.sources.function(&main), &main, sources.len(), packed)?;
    let mut reader = Reader {
        parts,
        graph: Graph::default(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        workspace: 0,
        pools: Vec::new(),
        resident: Vec::new(),
    };
    reader.residents()?;
    let mut arguments = Vec::with_capacity(sources.len());
    for source in &sources {
        arguments.push(reader.argument(source)?);
    }
    reader.finish(main, arguments, packed)
}

/// The body of `tvmgen_<module>_run`.
fn run_body<'t>(text: &'t str, module: &str) -> Result<&'t str> {
    let name = format!("tvmgen_{module}_run(");
    let missing = || bad(format!("there is no function {name})"));
    let at = text.rfind(&name).ok_or_else(missing)?;
    let rest = &text[at..];
    let open = rest.find('{').ok_or_else(missing)?;
    let rest = &rest[open + 1..];
    let close = matching(rest, '{', '}').ok_or_else(missing)?;
    Ok(&rest[..close])
}

/// Offset of the bracket that closes one opened before `text`.
fn matching(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 1usize;
    for (i, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(i);
            }
        }
    }
    None
}

/// The word at the start of `text`.
fn word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// `return main(inputs->x, outputs->y, ((uint8_t*)&pool), …);`
fn plain_sources<'t>(body: &'t str, main: &str) -> Result<Vec<Source<'t>>> {
    let call = format!("{main}(");
    let at = body
        .find(&call)
        .ok_or_else(|| bad(format!("the run does not call {main}")))?;
    let rest = &body[at + call.len()..];
    let end = matching(rest, '(', ')').ok_or_else(|| bad(format!("the call of {main} does not end")))?;
    let list = rest[..end].trim();
    if list.is_empty() {
        return Ok(Vec::new());
    }
    list.split(',')
        .map(|argument| {
            let after = |marker: &str| argument.split_once(marker).map(|(_, rest)| word(rest));
            if let Some(name) = after("inputs->") {
                Ok(Source::Input(name))
            } else if let Some(name) = after("outputs->") {
                Ok(Source::Output(name))
            } else if let Some(name) = after("workspace_pools->") {
                Ok(Source::Pool(name))
            } else if let Some(name) = after("&") {
                Ok(Source::Own(name))
            } else if !argument.trim().is_empty() && word(argument.trim()) == argument.trim() {
                Ok(Source::Own(argument.trim()))
            } else if let Some(device) = after("devices->") {
                let message =
                    format!("code for the device {device} is not supported: {main} takes a handle of its driver");
                Err(Error::unsupported(message).at("lib0.c").help(
                    "build the model without the device's code generator; what the device is to compute can be an \
                     external module (--module)",
                ))
            } else {
                let message = format!("the argument {:?} of {main} is not supported", argument.trim());
                Err(Error::unsupported(message).at("lib0.c"))
            }
        })
        .collect()
}

/// `tensors[0] = ((TVMValue*)args)[0]; … DLTensor p_dltensor = { .data = &p }; … tensors[2] = p_tvm_value;`
fn packed_sources<'t>(body: &'t str, parts: &Parts<'t>) -> Result<Vec<Source<'t>>> {
    let mut sources: Vec<Source> = Vec::new();
    let (mut inputs, mut outputs) = (parts.module.inputs.iter(), parts.module.output_types.iter());
    for (at, _) in body.match_indices("tensors[") {
        let rest = &body[at + "tensors[".len()..];
        let Some((index, rest)) = rest.split_once(']') else {
            continue;
        };
        let Some(value) = rest.trim_start().strip_prefix('=') else {
            // The declaration of the array.
            continue;
        };
        if index.trim().parse() != Ok(sources.len()) {
            return Err(bad(format!("argument {index} does not follow the one before it")));
        }
        let value = value.trim_start();
        if value.starts_with("((TVMValue*)args)") {
            sources.push(match (inputs.next(), &mut outputs) {
                (Some((name, ..)), _) => Source::Input(name),
                (None, outputs) => match outputs.next() {
                    Some((name, ..)) => Source::Output(name),
                    None => {
                        return Err(bad(
                            "there are more arguments than metadata.json has inputs and outputs",
                        ));
                    }
                },
            });
        } else {
            let pool = word(value).strip_suffix("_tvm_value");
            sources.push(Source::Own(
                pool.ok_or_else(|| bad(format!("argument {index} is no pool")))?,
            ));
        }
    }
    Ok(sources)
}

/// The kernels' C takes what lib0.c passes.
fn check_main(function: Option<&Function>, main: &str, count: usize, packed: bool) -> Result<()> {
    let Some(function) = function else {
        return Ok(());
    };
    if packed {
        if !function.is_packed() || function.packed > count {
            return Err(Error::model(format!(
                "{main} does not take the {count} packed arguments that lib0.c passes"
            ))
            .help("all files must be of one build"));
        }
    } else if function.parameters.len() != count {
        return Err(Error::model(format!(
            "{main} has {} parameters ({}), but lib0.c passes {count}",
            function.parameters.len(),
            function.parameters.join(", ")
        ))
        .help("all files must be of one build"));
    }
    Ok(())
}

/// A name of the model as TVM makes it a member of a struct.
fn member(name: &str) -> String {
    name.chars().map(|c| if is_word(c) { c } else { '_' }).collect()
}

struct Reader<'a, 'p> {
    parts: &'a Parts<'p>,
    graph: Graph,
    inputs: Vec<TensorId>,
    outputs: Vec<TensorId>,
    /// Bytes of workspace so far.
    workspace: u64,
    /// Pools that have a place in the workspace.
    pools: Vec<(String, u64)>,
    /// Inputs and outputs at offsets of pools.
    resident: Vec<(Port, String, u64)>,
}

impl Reader<'_, '_> {
    /// `.input_1 = &((uint8_t*)workspace_pools->dtcm)[992],` of the functions that map inputs and outputs.
    fn residents(&mut self) -> Result<()> {
        let text = self.parts.text;
        for (function, is_input) in [("_map_inputs(", true), ("_map_outputs(", false)] {
            let Some(at) = text.find(function) else { continue };
            let rest = &text[at..];
            let body = rest.find('{').map(|open| &rest[open + 1..]).unwrap_or("");
            let body = &body[..body.find("return").unwrap_or(body.len())];
            for line in body.split(['\n', ',']) {
                let Some((name, place)) = line.trim().strip_prefix('.').and_then(|line| line.split_once('=')) else {
                    continue;
                };
                let place = place.split_once("workspace_pools->").map(|(_, rest)| rest);
                let pool = place.map(word).unwrap_or("");
                let offset = place
                    .and_then(|rest| rest.split_once('['))
                    .and_then(|(_, rest)| rest.split_once(']'));
                let offset = offset.and_then(|(number, _)| number.trim().parse::<u64>().ok());
                let offset = offset.ok_or_else(|| bad(format!("it is not clear where {:?} lies", name.trim())))?;
                let port = if is_input {
                    self.input(name.trim())?;
                    Port::Input(self.inputs.len() - 1)
                } else {
                    self.output(name.trim())?;
                    Port::Output(self.outputs.len() - 1)
                };
                self.resident.push((port, pool.to_owned(), offset));
            }
        }
        Ok(())
    }

    /// The argument that a source gives; inputs and outputs become tensors of the graph.
    fn argument(&mut self, source: &Source) -> Result<Argument> {
        match source {
            Source::Input(name) => {
                self.input(name)?;
                Ok(Argument::Port(Port::Input(self.inputs.len() - 1)))
            }
            Source::Output(name) => {
                self.output(name)?;
                Ok(Argument::Port(Port::Output(self.outputs.len() - 1)))
            }
            Source::Own(name) => {
                if let Some(bytes) = constants::pool(self.parts.text, name)? {
                    return Ok(self.constant(name, bytes));
                }
                let size = constants::workspace(self.parts.text, name);
                let size = size.ok_or_else(|| bad(format!("the pool {name} is not defined")))?;
                self.pool(name, size)
            }
            Source::Pool(name) => {
                let prefix = format!("TVMGEN_{}_{}", self.parts.module.name, name).to_ascii_uppercase();
                if let Some(bytes) = constants::macro_data(self.parts.header, &prefix)? {
                    return Ok(self.constant(name, bytes));
                }
                let size = constants::macro_size(self.parts.header, &format!("{prefix}_WORKSPACE_POOL_SIZE"));
                let size = size.ok_or_else(|| bad(format!("the header does not say how large the pool {name} is")))?;
                self.pool(name, size)
            }
        }
    }

    fn constant(&mut self, name: &str, bytes: Vec<u8>) -> Argument {
        let id = self.graph.add_tensor(Tensor {
            name: name.to_owned(),
            dtype: DType::U8,
            shape: Shape(vec![bytes.len()]),
            quantization: None,
            data: Some(Bytes::from_vec(bytes)),
        });
        self.inputs.push(id);
        Argument::Port(Port::Input(self.inputs.len() - 1))
    }

    fn pool(&mut self, name: &str, size: u64) -> Result<Argument> {
        let offset = self.workspace;
        let end = offset
            .checked_add(size)
            .and_then(|end| end.checked_next_multiple_of(WORKSPACE_ALIGN));
        self.workspace = end.ok_or_else(|| Error::new(Code::Limit, "the pools are too large"))?;
        self.pools.push((name.to_owned(), offset));
        Ok(Argument::Workspace(offset))
    }

    fn input(&mut self, name: &str) -> Result<()> {
        let tensor = self.port(name, &self.parts.module.inputs, "input")?;
        let id = self.graph.add_tensor(tensor);
        self.graph.inputs.push(id);
        self.inputs.push(id);
        Ok(())
    }

    fn output(&mut self, name: &str) -> Result<()> {
        let tensor = self.port(name, &self.parts.module.output_types, "output")?;
        let id = self.graph.add_tensor(tensor);
        self.graph.outputs.push(id);
        self.outputs.push(id);
        Ok(())
    }

    /// The tensor that a member of the interface means.
    fn port(&self, name: &str, known: &[(String, String, u64)], what: &str) -> Result<Tensor> {
        let found = known.iter().find(|(known, ..)| known == name || member(known) == name);
        let found = match (found, known) {
            (None, [only]) => Some(only),
            (found, _) => found,
        };
        let (name, dtype, bytes) =
            found.ok_or_else(|| Error::model(format!("metadata.json knows no {what} {name:?}")).at("lib0.c"))?;
        let dtype = type_of(dtype)?;
        let elements = bytes / dtype.bytes() as u64;
        let flat = Shape(vec![usize::try_from(elements).unwrap_or(usize::MAX)]);
        // What Relay says counts only if it fits.
        let shape = relay_shape(self.parts.relay, name, dtype).filter(|shape| {
            let product = shape.0.iter().try_fold(1u64, |n, dim| n.checked_mul(*dim as u64));
            product == Some(elements)
        });
        Ok(Tensor {
            name: name.clone(),
            dtype,
            shape: shape.unwrap_or(flat),
            quantization: None,
            data: None,
        })
    }

    fn finish(self, main: String, arguments: Vec<Argument>, packed: bool) -> Result<Graph> {
        let Reader {
            mut graph,
            inputs,
            outputs,
            workspace,
            pools,
            resident,
            parts,
        } = self;
        let resident = resident.into_iter().map(|(port, pool, offset)| {
            let start = pools.iter().find(|(name, _)| *name == pool).map(|(_, start)| *start);
            let start = start.ok_or_else(|| bad(format!("the pool {pool} is not passed to {main}")))?;
            Ok((port, start.saturating_add(offset)))
        });
        let resident = resident.collect::<Result<Vec<_>>>()?;
        // Without pools the main function allocates what lies between the kernels, and they allocate their own.
        let allocated = pools.is_empty();
        let size = if allocated {
            parts.sources.nested_workspace(&main)
        } else {
            workspace
        };
        let ports = graph
            .inputs
            .iter()
            .chain(&graph.outputs)
            .map(|id| graph.tensor(*id).bytes() as u64);
        let outside = if resident.is_empty() { ports.sum() } else { 0 };
        graph.foreign.peer = Some(Peer {
            name: "TVM's ahead-of-time executor".into(),
            arena: size.saturating_add(outside),
            parameters: 0,
        });
        graph.ops.push(Op {
            name: main.clone(),
            source: 0,
            kind: OpKind::External(Box::new(External {
                symbol: main,
                convention: if packed { Convention::Packed } else { Convention::Plain },
                arguments,
                workspace: Workspace {
                    size,
                    align: 0,
                    allocated,
                },
                status: true,
                resident,
                brief: false,
                module: None,
            })),
            inputs,
            outputs,
        });
        Ok(graph)
    }
}

/// `%name: Tensor[(1, 49, 10, 1), int8]` among the parameters of `@main`.
fn relay_shape(relay: &str, name: &str, dtype: DType) -> Option<Shape> {
    let main = &relay[relay.find("def @main(")?..];
    let main = &main[..main.find('{')?];
    let marker = format!("%{name}");
    let rest = main.match_indices(&marker).find_map(|(at, _)| {
        let rest = &main[at + marker.len()..];
        rest.starts_with(|c: char| c == ':' || c.is_whitespace())
            .then_some(rest)
    })?;
    let rest = &rest[rest.find("Tensor[(")? + "Tensor[(".len()..];
    let (dims, rest) = rest.split_once(')')?;
    let of = rest.trim_start_matches([',', ' ']);
    if type_of(word(of)).ok()? != dtype {
        return None;
    }
    let dims = dims.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    dims.map(|dim| dim.parse().ok())
        .collect::<Option<Vec<usize>>>()
        .map(Shape)
}
