//! TVM's microcontroller output: model libraries (`.tar`, TVM 0.8 to 0.18), and the graph executor's `graph.json` with
//! its parameters.
//!
//! The kernels stay TVM's: the graph that comes out consists of calls of external functions. What TVM's runtime did
//! (parse JSON, allocate, copy parameters to RAM) is done when the library is built.

mod aot;
mod constants;
mod executor;
mod metadata;
mod params;
mod source;
mod tar;

use super::ReadOptions;
use crate::data::{Bytes, Source};
use crate::error::{Code, Error, Result};
use crate::graph::external::{LIBRARY, Object};
use crate::graph::{Graph, verify};
use crate::limits;
use executor::Parts;
use metadata::{Metadata, Module};
use params::Param;
use source::Sources;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the user says about a model of TVM beyond its bytes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--tvm-params`: the parameters that belong to a `graph.json`.
    pub params: Option<Arc<Source>>,
    /// `--tvm-module`: which module of a model library.
    pub module: Option<String>,
    /// `--tvm-workspace`: bytes of workspace of every kernel that nothing else says anything about.
    pub workspace: Option<u64>,
    /// `--tvm-names`: symbols and sections are called as TVM calls them.
    pub names: bool,
}

/// Reads a model library.
///
/// # Errors
/// See [`super::read`].
pub fn read(source: &Arc<Source>, options: &ReadOptions) -> Result<Graph> {
    let files = tar::read(source)?;
    let library = Library { files };
    let metadata = metadata::read(&library.text("metadata.json")?.ok_or_else(|| {
        Error::model("the archive holds no metadata.json: it is not a model library of TVM")
            .help("export it with tvm.micro.export_model_library_format")
    })?)?;
    let module = choose(&metadata, options.tvm.module.as_deref())?;
    let mut graph = library.graph(&metadata, module, options)?;
    name(&mut graph, &module.name, options);
    graph.foreign.objects = library.objects(module);
    verify::verify(&graph)?;
    Ok(graph)
}

/// Reads a graph executor's `graph.json`, with its parameters beside it.
///
/// # Errors
/// See [`super::read`].
pub fn read_graph(source: &Arc<Source>, options: &ReadOptions) -> Result<Graph> {
    let json = text(source.bytes(), "graph.json")?;
    let params = match &options.tvm.params {
        Some(source) => params::read(&Bytes::whole(source.clone()))?,
        None => Vec::new(),
    };
    let mut graph = executor::read(Parts {
        json: &json,
        params,
        module: None,
        sources: &Sources::default(),
        workspace: options.tvm.workspace,
    })?;
    name(&mut graph, "default", options);
    verify::verify(&graph)?;
    Ok(graph)
}

fn name(graph: &mut Graph, module: &str, options: &ReadOptions) {
    graph.name = if options.tvm.names {
        format!("tvmgen_{module}")
    } else {
        options.name.clone()
    };
    graph.foreign.module = Some(module.to_owned());
}

/// The only module, or the one that is asked for.
fn choose<'m>(metadata: &'m Metadata, name: Option<&str>) -> Result<&'m Module> {
    let names = || {
        let names = metadata.modules.iter().map(|module| module.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    match (name, metadata.modules.as_slice()) {
        (None, [module]) => Ok(module),
        (None, _) => {
            let message = format!("the library holds {} modules: {}", metadata.modules.len(), names());
            Err(Error::new(Code::Usage, message).help("choose one with --tvm-module, and build one library for each"))
        }
        (Some(name), modules) => modules.iter().find(|module| module.name == name).ok_or_else(|| {
            let message = format!("the library holds no module {name:?}");
            Error::new(Code::Usage, message).help(format!("it holds {}", names()))
        }),
    }
}

/// A symbol that may stand in C and in objects.
fn check_symbol(symbol: &str) -> Result<()> {
    let legal = !symbol.is_empty()
        && symbol.len() <= limits::NAME_BYTES
        && symbol.chars().all(source::is_word)
        && !symbol.starts_with(|c: char| c.is_ascii_digit());
    if legal {
        return Ok(());
    }
    Err(Error::model(format!("{symbol:?} cannot be the name of a function")))
}

fn text(bytes: &[u8], name: &str) -> Result<String> {
    if bytes.len() as u64 > limits::TEXT_BYTES {
        let message = format!("{name} has {} bytes, more than {}", bytes.len(), limits::TEXT_BYTES);
        return Err(Error::new(Code::Limit, message));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Error::model(format!("{name} is not UTF-8")))?;
    Ok(text.to_owned())
}

/// An opened archive.
struct Library {
    files: BTreeMap<String, Bytes>,
}

impl Library {
    fn text(&self, path: &str) -> Result<Option<String>> {
        self.files.get(path).map(|file| text(file.as_slice(), path)).transpose()
    }

    /// Files of the code generator for a module, by path.
    fn code<'s>(&'s self, module: &'s Module, extension: &'s str) -> impl Iterator<Item = (&'s str, &'s Bytes)> {
        let own = format!("{}_lib", module.name);
        self.files.iter().filter_map(move |(path, file)| {
            let name = path.strip_prefix("codegen/")?.rsplit('/').next()?;
            let rest = name.strip_suffix(extension)?;
            let number = rest.strip_prefix(&own).or_else(|| rest.strip_prefix("lib"))?;
            number
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then_some((path.as_str(), file))
        })
    }

    fn params(&self, module: &Module) -> Result<Vec<Param>> {
        let path = format!("parameters/{}.params", module.name);
        let Some(file) = self.files.get(&path) else {
            return Ok(Vec::new());
        };
        params::read(file).map_err(|error| match error.location {
            Some(location) => Error {
                location: Some(format!("{location} of {path}")),
                ..error
            },
            None => error.at(path),
        })
    }

    /// `tvmgen_<module>.h`, in whatever folder of the code.
    fn header(&self, module: &Module) -> Result<String> {
        let name = format!("/include/tvmgen_{}.h", module.name);
        let mut found = self.files.iter().filter(|(path, _)| path.ends_with(&name));
        Ok(match found.next() {
            Some((path, file)) => text(file.as_slice(), path)?,
            None => String::new(),
        })
    }

    fn sources(&self, module: &Module) -> Result<Sources> {
        let mut sources = Sources::default();
        for (path, file) in self.code(module, ".c") {
            // The one with the constants of a large model needs no scan: it defines no kernels.
            if file.len() <= limits::TEXT_BYTES {
                sources.add(&text(file.as_slice(), path)?);
            }
        }
        Ok(sources)
    }

    fn graph(&self, metadata: &Metadata, module: &Module, options: &ReadOptions) -> Result<Graph> {
        let path = match metadata.version {
            5 => "executor-config/graph/graph.json".to_owned(),
            _ => format!("executor-config/graph/{}.graph", module.name),
        };
        let Some(json) = self.text(&path)? else {
            let code = self.code(module, ".c").filter(|(path, _)| path.ends_with("lib0.c"));
            for (path, file) in code {
                // Constants of a large model are text here: it is read in place.
                let text = std::str::from_utf8(file.as_slice());
                let text = text.map_err(|_| Error::model(format!("{path} is not UTF-8")))?;
                if aot::is_aot(text, &module.name) {
                    return aot::read(&aot::Parts {
                        text,
                        header: &self.header(module)?,
                        relay: &self.text(&format!("src/{}.relay", module.name))?.unwrap_or_default(),
                        module,
                        sources: &self.sources(module)?,
                    });
                }
            }
            return Err(Error::model(format!(
                "the module {:?} has no {path}, and no code of the AOT executor",
                module.name
            ))
            .help(format!("its executors are: {}", module.executors.join(", "))));
        };
        executor::read(Parts {
            json: &json,
            params: self.params(module)?,
            module: Some(module),
            sources: &self.sources(module)?,
            workspace: options.tvm.workspace,
        })
    }

    /// Objects that TVM compiled itself.
    fn objects(&self, module: &Module) -> Vec<Object> {
        let objects = self.code(module, ".o").map(|(path, file)| Object {
            name: path.rsplit('/').next().unwrap_or(path).to_owned(),
            bytes: file.clone(),
            origin: LIBRARY.into(),
        });
        objects.collect()
    }
}
