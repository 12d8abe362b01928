//! `metadata.json` of a model library: versions 5 (TVM 0.8), 6 and 7 (0.9 to 0.18).
//!
//! Only what holds in all of them is believed: storage ids, sizes of inputs and outputs of the ahead-of-time executor
//! and numbers of arguments are wrong in the files that TVM writes.

use crate::error::{Code, Error, Result};
use crate::limits;
use serde_json::Value;
use std::collections::BTreeMap;

/// Versions that are read.
const VERSIONS: std::ops::RangeInclusive<u64> = 5..=7;

/// A model library's description.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    pub version: u64,
    pub modules: Vec<Module>,
}

/// One of its modules.
#[derive(Clone, Debug, Default)]
pub(super) struct Module {
    pub name: String,
    /// `graph`, `aot`.
    pub executors: Vec<String>,
    /// Bytes of workspace by function.
    pub workspaces: BTreeMap<String, u64>,
    /// Bytes of workspace of the whole model as TVM planned it.
    pub main_workspace: Option<u64>,
    /// Name, type and bytes of the model's inputs.
    pub inputs: Vec<(String, String, u64)>,
    /// Names, types and bytes of its outputs.
    pub output_types: Vec<(String, String, u64)>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
}

fn bad(message: impl Into<String>) -> Error {
    Error::model(message).at("metadata.json")
}

pub(super) fn read(text: &str) -> Result<Metadata> {
    let json: Value =
        serde_json::from_str(text).map_err(|error| bad(format!("it is not JSON that TVM writes: {error}")))?;
    let version = json.get("version").and_then(Value::as_u64);
    let version = version.ok_or_else(|| bad("it has no version"))?;
    if !VERSIONS.contains(&version) {
        let message = format!("version {version} of the model library format is not supported");
        return Err(Error::unsupported(message)
            .at("metadata.json")
            .help("versions 5 (TVM 0.8) to 7 (TVM 0.9 to 0.18) are"));
    }
    let modules = if version >= 7 {
        let modules = json.get("modules").and_then(Value::as_object);
        let modules = modules.ok_or_else(|| bad("it lists no modules"))?;
        if modules.len() > limits::OPERANDS {
            return Err(Error::new(Code::Limit, format!("{} modules", modules.len())).at("metadata.json"));
        }
        modules.iter().map(|(name, module)| read_module(name, module)).collect()
    } else {
        let name = json.get("model_name").and_then(Value::as_str);
        vec![read_module(name.ok_or_else(|| bad("it has no model_name"))?, &json)]
    };
    if modules.is_empty() {
        return Err(bad("it lists no modules"));
    }
    Ok(Metadata { version, modules })
}

fn read_module(name: &str, json: &Value) -> Module {
    let mut module = Module {
        name: name.to_owned(),
        ..Module::default()
    };
    let strings = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(executors) = json.get("executors").and_then(Value::as_array) {
        module.executors = executors.iter().filter_map(strings).collect();
    }
    let functions = json.get("memory").and_then(|memory| memory.get("functions"));
    let list = |key: &str| functions.and_then(|f| f.get(key)).and_then(Value::as_array);
    let size = |value: &Value| value.get("workspace_size_bytes").and_then(Value::as_u64);
    for function in list("operator_functions").into_iter().flatten() {
        let Some(name) = function.get("function_name").and_then(Value::as_str) else {
            continue;
        };
        let sizes = function.get("workspace").and_then(Value::as_array);
        let bytes = sizes
            .into_iter()
            .flatten()
            .filter_map(size)
            .fold(0, u64::saturating_add);
        module.workspaces.insert(name.to_owned(), bytes);
    }
    let main = list("main").and_then(|main| main.first());
    if let Some(main) = main {
        module.main_workspace = size(main);
        let ports = |key: &str| -> Vec<(String, String, u64)> {
            let ports = main.get(key).and_then(Value::as_object);
            let port = |(name, port): (&String, &Value)| {
                let dtype = port.get("dtype").and_then(Value::as_str)?;
                let bytes = port.get("size").and_then(Value::as_u64)?;
                Some((name.clone(), dtype.to_owned(), bytes))
            };
            ports.into_iter().flatten().filter_map(port).collect()
        };
        module.inputs = ports("inputs");
        module.output_types = ports("outputs");
        module.outputs = module.output_types.iter().map(|(name, ..)| name.clone()).collect();
    }
    module
}
