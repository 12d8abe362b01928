//! External modules: code and constants of others that stand for a part of a model (`--module manifest.toml`).
//!
//! An accelerator's compiler leaves an object with the driver's code and a blob with the weights in its own layout. A
//! manifest says which operators they stand for, how they are called, and which of the model's parameters they have
//! already: those are not stored again.

mod manifest;

use crate::data::Bytes;
use crate::error::{Error, Result};
use crate::graph::external::{Argument, Blob, Convention, External, Object, Owned, Port, Workspace};
use crate::graph::{Graph, Op, OpKind, TensorId, verify};
use crate::place::glob_matches;
use manifest::{Function, Manifest};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// A module: its manifest and the files that it names.
#[derive(Clone, Debug)]
pub struct Module {
    manifest: Manifest,
    objects: Vec<Object>,
    blobs: Vec<Blob>,
}

impl Module {
    /// Reads a manifest, `file` being its name for messages; `read` gives the bytes of the files that it names.
    ///
    /// # Errors
    /// [`Code::Model`](crate::error::Code::Model) for a manifest that is not one, a constant of another size than it announces; what `read`
    /// reports.
    pub fn load(text: &str, file: &str, read: &dyn Fn(&str) -> Result<Bytes>) -> Result<Self> {
        let at = |error: Error| match error.location {
            Some(location) => Error {
                location: Some(format!("{location} of {file}")),
                ..error
            },
            None => error.at(file),
        };
        let manifest = manifest::parse(text).map_err(at)?;
        let origin = origin(&manifest);
        let mut objects = Vec::new();
        for path in &manifest.objects {
            let name = path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned();
            objects.push(Object {
                name,
                bytes: read(path).map_err(at)?,
                origin: origin.clone(),
            });
        }
        let mut blobs: Vec<Blob> = Vec::new();
        for constant in &manifest.constants {
            let bytes = read(&constant.file).map_err(at)?;
            let located = |error: Error| at(error.at(format!("constant {:?}", constant.symbol)));
            if let Some(announced) = constant.bytes
                && announced != bytes.len()
            {
                let message = format!("{} has {} bytes, {announced} are announced", constant.file, bytes.len());
                return Err(located(
                    Error::model(message).help("was it made by another run of its compiler?"),
                ));
            }
            if bytes.is_empty() {
                return Err(located(Error::model(format!("{} is empty", constant.file))));
            }
            if blobs.iter().any(|blob| blob.symbol == constant.symbol) {
                return Err(located(Error::model("the constant is there twice")));
            }
            blobs.push(Blob {
                symbol: constant.symbol.clone(),
                section: constant.section.clone(),
                align: constant.align,
                bytes,
            });
        }
        Ok(Module {
            manifest,
            objects,
            blobs,
        })
    }

    /// The files that the manifest names.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let constants = self.manifest.constants.iter().map(|constant| constant.file.as_str());
        self.manifest.objects.iter().map(String::as_str).chain(constants)
    }

    /// Names of the operators that its functions are for.
    pub fn operators(&self) -> impl Iterator<Item = &str> {
        self.manifest
            .functions
            .iter()
            .filter_map(|function| function.operator.as_deref())
    }
}

fn origin(manifest: &Manifest) -> String {
    format!("module {}", manifest.module)
}

/// Puts the modules' functions in place of the operators that they stand for.
///
/// # Errors
/// [`Code::Model`](crate::error::Code::Model) for operators, nodes and parameters that the model does not have, for nodes that cannot be one call,
/// for arguments that do not exist, and for what two modules claim.
pub fn apply(graph: &mut Graph, modules: &[Module]) -> Result<()> {
    let mut owners: BTreeMap<TensorId, String> = BTreeMap::new();
    let mut left_out: Vec<(TensorId, String)> = Vec::new();
    for module in modules {
        let origin = origin(&module.manifest);
        for blob in &module.blobs {
            if graph.foreign.blobs.iter().any(|other| other.symbol == blob.symbol) {
                return Err(Error::model(format!("two modules have a constant {}", blob.symbol)).at(origin));
            }
            graph.foreign.blobs.push(blob.clone());
        }
        graph.foreign.objects.extend(module.objects.iter().cloned());
        for function in &module.manifest.functions {
            let at = |error: Error| error.at(format!("function {:?} of {origin}", function.symbol));
            let groups = groups(graph, function).map_err(at)?;
            let mut owned = vec![false; function.owns.len()];
            // Positions shift while groups are replaced: they are found again by their first result.
            let groups: Vec<Vec<TensorId>> = groups
                .into_iter()
                .map(|group| group.into_iter().map(|op| graph.ops[op].output()).collect())
                .collect();
            for group in groups {
                let mut replacement = Replacement {
                    graph,
                    function,
                    origin: &origin,
                    owned: &mut owned,
                };
                let gone = replacement.replace(&group).map_err(at)?;
                for (id, why) in gone {
                    let owner = format!("{} of {origin}", function.symbol);
                    if let Ownership::Module = why {
                        match owners.get(&id) {
                            Some(other) if *other != owner => {
                                let name = &graph.tensor(id).name;
                                return Err(Error::model(format!("both {other} and {owner} own {name:?}"))
                                    .help("one parameter is stored once: let one of them own it"));
                            }
                            _ => drop(owners.insert(id, owner)),
                        }
                        left_out.push((id, format!("stored by {origin}")));
                    } else {
                        left_out.push((id, format!("{} does not take it", function.symbol)));
                    }
                }
            }
            if let Some(i) = owned.iter().position(|owned| !owned) {
                let message = format!("owns {:?}, but the operators read no such parameter", function.owns[i]);
                return Err(at(
                    Error::model(message).help("`corerope inspect --print-after read` lists them")
                ));
            }
        }
    }
    let users = graph.users();
    for (id, owner) in left_out {
        let tensor = graph.tensor(id);
        let known = graph.foreign.owned.iter().any(|owned| owned.name == tensor.name);
        if tensor.data.is_none() {
            if !users[id.index()].is_empty() || graph.outputs.contains(&id) {
                let message = format!(
                    "{:?} is {owner}, but another operator reads it, and the model lacks it",
                    tensor.name
                );
                return Err(Error::model(message).help("let the module compute that operator, too"));
            }
            graph.inputs.retain(|input| *input != id);
        } else if users[id.index()].is_empty() && !known {
            let (name, bytes) = (tensor.name.clone(), tensor.bytes() as u64);
            graph.foreign.owned.push(Owned { name, bytes, owner });
        } else if !known {
            tracing::warn!(
                "{:?} is {owner}, but another operator reads it, too: it stays",
                tensor.name
            );
        }
    }
    verify::verify(graph)
}

/// The operators that each call of a function stands for, by index.
fn groups(graph: &Graph, function: &Function) -> Result<Vec<Vec<usize>>> {
    if let Some(operator) = &function.operator {
        let external = |op: &Op| match &op.kind {
            OpKind::External(external) => Some(external.symbol.clone()),
            _ => None,
        };
        let found = graph
            .ops
            .iter()
            .enumerate()
            .filter(|(_, op)| external(op).as_ref() == Some(operator));
        let found: Vec<Vec<usize>> = found.map(|(i, _)| vec![i]).collect();
        if found.is_empty() {
            let names: BTreeSet<String> = graph.ops.iter().filter_map(external).collect();
            let names: Vec<String> = names.into_iter().take(12).collect();
            let error = Error::model(format!("the model has no operator {operator:?}"));
            return Err(match names.as_slice() {
                [] => error.help("it has no custom operators: name the nodes"),
                names => error.help(format!("it has {}", names.join(", "))),
            });
        }
        return Ok(found);
    }
    let mut group = Vec::new();
    for pattern in &function.nodes {
        let found = graph
            .ops
            .iter()
            .enumerate()
            .filter(|(_, op)| glob_matches(pattern, &op.name));
        let before = group.len();
        group.extend(found.map(|(i, _)| i));
        if group.len() == before {
            let names: Vec<&str> = graph.ops.iter().take(8).map(|op| op.name.as_str()).collect();
            return Err(Error::model(format!("the model has no operator named {pattern:?}"))
                .help(format!("its operators are named {}, …", names.join(", "))));
        }
    }
    group.sort_unstable();
    group.dedup();
    Ok(vec![group])
}

/// Why a call does not get a parameter.
enum Ownership {
    /// The module has it.
    Module,
    /// No argument passes it.
    Nobody,
}

struct Replacement<'a> {
    graph: &'a mut Graph,
    function: &'a Function,
    origin: &'a str,
    /// For each pattern of `owns`, whether it took something.
    owned: &'a mut Vec<bool>,
}

impl Replacement<'_> {
    /// Replaces the operators with these first results by one call; the parameters that it does not get.
    fn replace(&mut self, results: &[TensorId]) -> Result<Vec<(TensorId, Ownership)>> {
        let graph = &*self.graph;
        let wanted: BTreeSet<TensorId> = results.iter().copied().collect();
        let members: Vec<usize> = (0..graph.ops.len())
            .filter(|i| wanted.contains(&graph.ops[*i].output()))
            .collect();
        let Some(&last) = members.last() else {
            return Err(Error::model("an operator is replaced twice").help("each belongs to one function"));
        };
        if members.len() != results.len() {
            return Err(Error::model("an operator is replaced twice").help("each belongs to one function"));
        }
        let (inputs, outputs) = self.borders(&members);
        let mut gone = Vec::new();
        let mut operands = Vec::new();
        for id in inputs {
            let tensor = graph.tensor(id);
            // What the module has may be missing from the model: TVM takes it for an input then.
            let open = tensor.data.is_none() && graph.inputs.contains(&id);
            let matching = |pattern: &&String| {
                let parameter = tensor.data.is_some() || open && *pattern != "*";
                parameter && glob_matches(pattern, &tensor.name)
            };
            match self.function.owns.iter().position(|pattern| matching(&pattern)) {
                Some(i) => {
                    self.owned[i] = true;
                    gone.push((id, Ownership::Module));
                }
                None => operands.push(id),
            }
        }
        let (external, operands, unused) = self.external(&members, operands, outputs.len())?;
        gone.extend(unused.into_iter().map(|id| (id, Ownership::Nobody)));

        let graph = &mut *self.graph;
        let op = Op {
            name: graph.ops[last].name.clone(),
            source: graph.ops[members[0]].source,
            kind: OpKind::External(Box::new(external)),
            inputs: operands,
            outputs,
        };
        graph.ops[last] = op;
        let mut drop = vec![false; graph.ops.len()];
        members.iter().for_each(|i| drop[*i] = *i != last);
        let mut drop = drop.into_iter();
        graph.ops.retain(|_| drop.next() == Some(false));
        sort(graph)?;
        Ok(gone)
    }

    /// What goes into a set of operators and what comes out of it.
    fn borders(&self, members: &[usize]) -> (Vec<TensorId>, Vec<TensorId>) {
        let graph = &*self.graph;
        let made: BTreeSet<TensorId> = members
            .iter()
            .flat_map(|i| graph.ops[*i].outputs.iter().copied())
            .collect();
        let mut inputs: Vec<TensorId> = Vec::new();
        let mut seen = BTreeSet::new();
        for id in members.iter().flat_map(|i| &graph.ops[*i].inputs) {
            // One operator keeps its operands as they are numbered.
            if !made.contains(id) && (members.len() == 1 || seen.insert(*id)) {
                inputs.push(*id);
            }
        }
        let mut read: BTreeSet<TensorId> = graph.outputs.iter().copied().collect();
        let mut inside = vec![false; graph.ops.len()];
        members.iter().for_each(|i| inside[*i] = true);
        for (op, _) in graph.ops.iter().zip(inside).filter(|(_, inside)| !inside) {
            read.extend(&op.inputs);
        }
        let all = members.iter().flat_map(|i| graph.ops[*i].outputs.iter().copied());
        let outputs = all.filter(|id| members.len() == 1 || read.contains(id)).collect();
        (inputs, outputs)
    }

    /// The call, its operands, and constants among them that no argument passes.
    fn external(
        &self,
        members: &[usize],
        operands: Vec<TensorId>,
        outputs: usize,
    ) -> Result<(External, Vec<TensorId>, Vec<TensorId>)> {
        let Replacement {
            graph,
            function,
            origin,
            ..
        } = self;
        let before = match (members, &graph.ops[members[0]].kind) {
            // A kernel of TVM's goes on taking packed arguments; custom operators have no convention yet.
            ([_], OpKind::External(external)) if graph.foreign.module.is_some() => Some(external),
            _ => None,
        };
        let convention = function.convention()?;
        let convention = convention
            .or(before.map(|external| external.convention))
            .unwrap_or(Convention::Plain);
        let given = function.arguments()?;
        let explicit = given.is_some();
        let packed = convention == Convention::Packed;
        let workspace = match function.workspace {
            Some(workspace) => Workspace {
                size: workspace.bytes,
                align: workspace.align,
                allocated: false,
            },
            None => before.map(|external| external.workspace).unwrap_or_default(),
        };
        let mut arguments = given.unwrap_or_else(|| {
            let inputs = (0..operands.len()).map(Port::Input);
            let ports = inputs.chain((0..outputs).map(Port::Output)).map(Argument::Port);
            let workspace = (workspace.size > 0 && !packed).then_some(Argument::Workspace(0));
            ports.chain(workspace).collect()
        });
        let has = |wanted: &Argument| arguments.iter().any(|argument| argument == wanted);
        for argument in &arguments {
            let exists = match argument {
                Argument::Port(Port::Input(i)) => *i < operands.len(),
                Argument::Port(Port::Output(i)) => *i < outputs,
                Argument::Workspace(offset) => *offset < workspace.size,
                Argument::Symbol(_) | Argument::Integer(_) => true,
            };
            if !exists {
                let message = format!(
                    "the argument {argument} does not exist: there are {} operands and {outputs} results, and {} bytes of \
                     workspace",
                    operands.len(),
                    workspace.size
                );
                return Err(Error::model(message));
            }
        }
        if let Some(i) = (0..outputs).find(|i| !has(&Argument::Port(Port::Output(*i)))) {
            return Err(Error::model(format!("no argument takes the result out{i}")));
        }
        let passes_workspace = arguments
            .iter()
            .any(|argument| matches!(argument, Argument::Workspace(_)));
        if workspace.size > 0 && !passes_workspace && !packed {
            return Err(Error::model("there is a workspace, but no argument passes it").help("add \"workspace\""));
        }
        // Constants that nobody passes are not stored; the other operands move up.
        let mut kept = Vec::new();
        let mut unused = Vec::new();
        let mut place = Vec::with_capacity(operands.len());
        for (i, id) in operands.into_iter().enumerate() {
            let constant = graph.tensor(id).data.is_some();
            place.push(kept.len());
            if explicit && constant && !has(&Argument::Port(Port::Input(i))) {
                unused.push(id);
            } else {
                kept.push(id);
            }
        }
        for argument in &mut arguments {
            if let Argument::Port(Port::Input(i)) = argument {
                *i = place[*i];
            }
        }
        let external = External {
            symbol: function.symbol.clone(),
            convention,
            arguments,
            workspace: Workspace {
                allocated: packed && !passes_workspace,
                ..workspace
            },
            status: packed || function.status()?,
            resident: Vec::new(),
            brief: false,
            module: Some((*origin).to_owned()),
        };
        Ok((external, kept, unused))
    }
}

/// Puts operators behind the producers of their operands, as near to their present order as that allows.
fn sort(graph: &mut Graph) -> Result<()> {
    let producers = graph.producers();
    let needs = |op: &Op| {
        let producers = op.inputs.iter().filter_map(|id| producers[id.index()]);
        producers.map(|id| id.index()).collect::<BTreeSet<usize>>()
    };
    let needs: Vec<BTreeSet<usize>> = graph.ops.iter().map(needs).collect();
    let mut waiting: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    let mut followers = vec![Vec::new(); graph.ops.len()];
    for (i, needs) in needs.iter().enumerate() {
        needs.iter().for_each(|need| followers[*need].push(i));
    }
    let ready = waiting.iter().enumerate().filter(|(_, count)| **count == 0);
    let mut ready: BinaryHeap<std::cmp::Reverse<usize>> = ready.map(|(i, _)| std::cmp::Reverse(i)).collect();
    let mut order = Vec::with_capacity(graph.ops.len());
    while let Some(std::cmp::Reverse(next)) = ready.pop() {
        order.push(next);
        for follower in &followers[next] {
            waiting[*follower] -= 1;
            if waiting[*follower] == 0 {
                ready.push(std::cmp::Reverse(*follower));
            }
        }
    }
    if order.len() != graph.ops.len() {
        let stuck = waiting.iter().position(|count| *count > 0).unwrap_or(0);
        return Err(Error::model(format!(
            "the nodes cannot be one call: {} needs a result of it and gives it an operand",
            graph.ops[stuck].describe()
        ))
        .help("add what lies between the nodes to them"));
    }
    let mut ops: Vec<Option<Op>> = std::mem::take(&mut graph.ops).into_iter().map(Some).collect();
    graph.ops = order.into_iter().filter_map(|i| ops[i].take()).collect();
    Ok(())
}

#[cfg(test)]
mod tests;
