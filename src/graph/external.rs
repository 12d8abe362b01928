//! Functions of others that a model calls: kernels that TVM compiled, an accelerator's driver, the code of a custom
//! operator. What they compute is not known here; how they are called is.

use super::Graph;
use crate::data::Bytes;
use std::fmt;

/// Alignment of what TVM's kernels allocate: TVM counts their workspaces with it.
pub const WORKSPACE_ALIGN: u64 = 16;

/// Origin of objects that a model brings itself.
pub const LIBRARY: &str = "the model library";

/// A function of others, as an operator calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Its symbol.
    pub symbol: String,
    /// How it takes its arguments.
    pub convention: Convention,
    /// The arguments, in order.
    pub arguments: Vec<Argument>,
    /// Memory that it needs while it runs.
    pub workspace: Workspace,
    /// Whether it returns an `int32_t` that is 0 when it succeeded.
    pub status: bool,
    /// Operands and results that live at fixed offsets of the workspace: they are copied there before the call, or from
    /// there after it.
    pub resident: Vec<(Port, u64)>,
    /// Whether it is a packed function that is known to read its first two arguments only: the others are not passed.
    pub brief: bool,
    /// The external module that it belongs to; `None` for kernels that come with the model.
    pub module: Option<String>,
}

/// How a function takes its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// As C does: `f(const void *x, void *y, …)`.
    Plain,
    /// TVM's packed functions: `int32_t f(void *args, int32_t *type_codes, int32_t num_args, void *out_ret_value,
    /// int32_t *out_ret_tcode, void *resource_handle)`, each argument a `TVMValue` that points at a `DLTensor`.
    Packed,
}

/// An operand or a result of an operator, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// An operand.
    Input(usize),
    /// A result.
    Output(usize),
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// The address of an operand or a result.
    Port(Port),
    /// The address of the workspace plus this offset.
    Workspace(u64),
    /// The address of a symbol.
    Symbol(String),
    /// An `int32_t`.
    Integer(i32),
}

/// Memory that a call needs while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workspace {
    /// Size in bytes.
    pub size: u64,
    /// Alignment in bytes, a power of two; 0 is the plan's own.
    pub align: u64,
    /// Whether the function asks for it by `TVMBackendAllocWorkspace`, instead of taking it as an argument.
    pub allocated: bool,
}

/// What comes with a model beside its graph.
#[derive(Clone, Debug, Default)]
pub struct Foreign {
    /// Objects that go into the library.
    pub objects: Vec<Object>,
    /// Constants that external functions reach by symbol.
    pub blobs: Vec<Blob>,
    /// Parameters that external functions have in a form of their own, so that the model's are left out.
    pub owned: Vec<Owned>,
    /// What the framework that the model comes from planned for it.
    pub peer: Option<Peer>,
    /// Name of the model in that framework.
    pub module: Option<String>,
}

/// An object file or a library.
#[derive(Clone, Debug)]
pub struct Object {
    /// File name, without folders.
    pub name: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// Who brought it, for messages.
    pub origin: String,
}

/// A constant that is reached by its symbol.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Symbol.
    pub symbol: String,
    /// Section; `None` is the default for constants.
    pub section: Option<String>,
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A parameter of the model that is stored by somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The model's name for it.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Who stores it.
    pub owner: String,
}

/// Memory that another framework needs for the same model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `TVM's graph executor`.
    pub name: String,
    /// Bytes of activations, inputs and outputs included, and of the largest workspace.
    pub arena: u64,
    /// Bytes of parameters that it keeps in RAM.
    pub parameters: u64,
}

impl External {
    /// A custom operator of that name, until a module says what to call for it.
    pub fn unbound(name: &str) -> Self {
        External {
            symbol: name.to_owned(),
            convention: Convention::Plain,
            arguments: Vec::new(),
            workspace: Workspace::default(),
            status: true,
            resident: Vec::new(),
            brief: false,
            module: None,
        }
    }

    /// Whether the objects that come with the model, or those that the user gives, should define its symbol.
    pub fn is_provided(&self, graph: &Graph, given: &[Object]) -> bool {
        match &self.module {
            Some(module) => graph.foreign.objects.iter().any(|object| object.origin == *module),
            None => !given.is_empty() || graph.foreign.objects.iter().any(|object| object.origin == LIBRARY),
        }
    }

    /// Every symbol that a call refers to.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        let arguments = self.arguments.iter().filter_map(|argument| match argument {
            Argument::Symbol(symbol) => Some(symbol.as_str()),
            _ => None,
        });
        std::iter::once(self.symbol.as_str()).chain(arguments)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Input(i) => write!(f, "in{i}"),
            Port::Output(i) => write!(f, "out{i}"),
        }
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Argument::Port(port) => port.fmt(f),
            Argument::Workspace(0) => f.write_str("workspace"),
            Argument::Workspace(offset) => write!(f, "workspace+{offset}"),
            Argument::Symbol(symbol) => write!(f, "&{symbol}"),
            Argument::Integer(value) => value.fmt(f),
        }
    }
}
