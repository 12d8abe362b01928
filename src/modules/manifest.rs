//! The text of an external module.
//!
//! ```toml
//! module = "kpu"                            # its name, for messages and reports
//! objects = ["kpu.o"]                       # objects and static libraries that go into the library
//!
//! [[constant]]                              # a const symbol
//! symbol = "kpu_layers"
//! file = "kpu_layers.bin"
//! bytes = 4096                              # its size, to be checked [default: the file's]
//! align = 64                                # [default: 16]
//! section = ".kpu"                          # [default: .rodata.<model>.<symbol>]
//!
//! [[function]]                              # a function of the module, called for some operators of the model
//! operator = "KPU_CONV"                     # every custom operator of this name, or TVM's kernel of this name; or
//! nodes = ["conv1/*", "pool1"]              # one call for all of these operators, named as `inspect` names them
//! symbol = "kpu_conv"                       # what is called
//! arguments = ["in0", "out0", "workspace", "&kpu_layers", 3]   # [default: operands, results, workspace if there is one]
//! convention = "plain"                      # or "packed": TVM's six arguments [default: plain; TVM's kernels: packed]
//! returns = "status"                        # int32_t, 0 is success; or "nothing" [default: status]
//! workspace = { bytes = 1024, align = 64 }
//! owns = ["conv1/weights"]                  # parameters that the module has itself: not stored again. Of a model that
//!                                           # lacks them, inputs by this name.
//! ```

use crate::error::{Code, Error, Result};
use crate::graph::external::Argument;
use crate::graph::external::{Convention, Port};
use crate::limits;
use serde::Deserialize;

/// A manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub module: String,
    #[serde(default)]
    pub objects: Vec<String>,
    #[serde(default, rename = "constant")]
    pub constants: Vec<Constant>,
    #[serde(default, rename = "function")]
    pub functions: Vec<Function>,
}

/// A constant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Constant {
    pub symbol: String,
    pub file: String,
    pub bytes: Option<u64>,
    #[serde(default = "align")]
    pub align: u64,
    pub section: Option<String>,
}

fn align() -> u64 {
    16
}

/// A function.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Function {
    pub operator: Option<String>,
    #[serde(default)]
    pub nodes: Vec<String>,
    pub symbol: String,
    pub arguments: Option<Vec<RawArgument>>,
    pub convention: Option<String>,
    pub returns: Option<String>,
    pub workspace: Option<Workspace>,
    #[serde(default)]
    pub owns: Vec<String>,
}

/// `"in0"`, or an integer.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawArgument {
    Integer(i32),
    Text(String),
}

/// `{ bytes = 1024, align = 64 }`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workspace {
    pub bytes: u64,
    #[serde(default)]
    pub align: u64,
}

/// Whether `name` is an identifier of C.
pub(super) fn is_symbol(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty()
        && name.len() <= limits::NAME_BYTES
        && name.chars().all(word)
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn check_symbol(name: &str) -> Result<()> {
    if is_symbol(name) {
        return Ok(());
    }
    Err(Error::model(format!("{name:?} cannot be a symbol")).help("symbols are identifiers of C"))
}

fn check_align(align: u64) -> Result<()> {
    if align <= limits::ALIGNMENT && (align == 0 || align.is_power_of_two()) {
        return Ok(());
    }
    Err(Error::model(format!("{align} is not an alignment"))
        .help(format!("alignments are powers of two up to {}", limits::ALIGNMENT)))
}

/// Reads and checks what can be checked without files and without a model.
pub(super) fn parse(text: &str) -> Result<Manifest> {
    let manifest: Manifest = toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        let message = Error::model(error.message().replace('\n', " "));
        match line {
            Some(line) => message.at(format!("line {line}")),
            None => message,
        }
    })?;
    let named = !manifest.module.is_empty() && manifest.module.len() <= limits::NAME_BYTES;
    if !named {
        return Err(Error::model("the module has no name").help("begin with module = \"name\""));
    }
    for (count, what) in [
        (manifest.constants.len(), "constants"),
        (manifest.functions.len(), "functions"),
    ] {
        if count > limits::OPERANDS {
            let message = format!("{count} {what}, at most {} are supported", limits::OPERANDS);
            return Err(Error::new(Code::Limit, message));
        }
    }
    for constant in &manifest.constants {
        let at = |error: Error| error.at(format!("constant {:?}", constant.symbol));
        check_symbol(&constant.symbol)
            .and_then(|()| check_align(constant.align.max(1)))
            .map_err(at)?;
        if constant.align == 0 {
            return Err(at(Error::model("an alignment of 0 is none")));
        }
        if let Some(section) = &constant.section {
            let word = |c: char| c.is_ascii_alphanumeric() || "_.$-".contains(c);
            if section.is_empty() || section.len() > 200 || !section.chars().all(word) {
                return Err(at(Error::model(format!("{section:?} cannot be the name of a section"))));
            }
        }
    }
    for function in &manifest.functions {
        let at = |error: Error| error.at(format!("function {:?}", function.symbol));
        check_symbol(&function.symbol).map_err(at)?;
        check_align(function.workspace.unwrap_or_default().align).map_err(at)?;
        if function.operator.is_some() != function.nodes.is_empty() {
            return Err(at(Error::model("a function is for one operator, or for nodes"))
                .help("give either operator = \"NAME\" or nodes = [\"NAME\", …]"));
        }
        function
            .convention()
            .and_then(|_| function.status())
            .and_then(|_| function.arguments())
            .map_err(at)?;
    }
    Ok(manifest)
}

impl Function {
    /// The convention, if one is given.
    pub fn convention(&self) -> Result<Option<Convention>> {
        match self.convention.as_deref() {
            None => Ok(None),
            Some("plain") => Ok(Some(Convention::Plain)),
            Some("packed") => Ok(Some(Convention::Packed)),
            Some(other) => {
                Err(Error::model(format!("there is no convention {other:?}")).help("there are plain and packed"))
            }
        }
    }

    /// Whether it returns a status.
    pub fn status(&self) -> Result<bool> {
        match self.returns.as_deref() {
            None | Some("status") => Ok(true),
            Some("nothing") => Ok(false),
            Some(other) => {
                Err(Error::model(format!("a function cannot return {other:?}")).help("it returns status or nothing"))
            }
        }
    }

    /// The arguments, if they are given.
    pub fn arguments(&self) -> Result<Option<Vec<Argument>>> {
        let Some(arguments) = &self.arguments else {
            return Ok(None);
        };
        arguments.iter().map(argument).collect::<Result<Vec<_>>>().map(Some)
    }
}

fn argument(raw: &RawArgument) -> Result<Argument> {
    let text = match raw {
        RawArgument::Integer(value) => return Ok(Argument::Integer(*value)),
        RawArgument::Text(text) => text.as_str(),
    };
    let index = |prefix: &str| text.strip_prefix(prefix).and_then(|rest| rest.parse::<usize>().ok());
    if let Some(i) = index("in") {
        return Ok(Argument::Port(Port::Input(i)));
    }
    if let Some(i) = index("out") {
        return Ok(Argument::Port(Port::Output(i)));
    }
    if let Some(offset) = text.strip_prefix("workspace+").and_then(|rest| rest.parse().ok()) {
        return Ok(Argument::Workspace(offset));
    }
    match text.strip_prefix('&') {
        _ if text == "workspace" => Ok(Argument::Workspace(0)),
        Some(symbol) if is_symbol(symbol) => Ok(Argument::Symbol(symbol.to_owned())),
        _ => Err(Error::model(format!("{text:?} is not an argument"))
            .help("arguments are \"in0\", \"out0\", \"workspace\", \"workspace+64\", \"&symbol\" and integers")),
    }
}
