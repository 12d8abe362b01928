//! What everything is called: symbols, sections and C identifiers, made from the names in the model.
//!
//! Names in models are hostile (`model/conv/Relu;model/conv/BiasAdd:0`, empty, equal, kilobytes long, C keywords).
//! Symbols become distinct lower-case C identifiers, the same for equal inputs.

use crate::codegen::soft_float::{ROUTINES, Routine};
use crate::graph::{Graph, TensorId};
use crate::kernels::{KernelId, Lowering, Operand, ParameterId};
use std::collections::{BTreeMap, BTreeSet};

/// A symbol and the section that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Symbol: a C identifier.
    pub symbol: String,
    /// Section.
    pub section: String,
}

/// Functions and constants of a model beside its kernels, parameters and entry point; each is made where it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Helper {
    /// `<model>_step`: runs one operator.
    Step,
    /// Calls a hook.
    Hook,
    /// `<model>_bind`: takes an image of parameters.
    Bind,
    /// `<model>_check_parameters`: reads the whole image.
    Check,
    /// Reads a piece of the image.
    Fetch,
    /// Sums up bytes of the image.
    Checksum,
    /// The header that the image must have.
    Header,
    /// What the checksum is computed with.
    Table,
}

/// All of them, with their names and the kinds of their sections.
pub const HELPERS: [(Helper, &str, &str); 8] = [
    (Helper::Step, "step", ".text"),
    (Helper::Hook, "hook", ".text"),
    (Helper::Bind, "bind", ".text"),
    (Helper::Check, "check_parameters", ".text"),
    (Helper::Fetch, "fetch", ".text"),
    (Helper::Checksum, "checksum", ".text"),
    (Helper::Header, "parameters_header", ".rodata"),
    (Helper::Table, "checksum_table", ".rodata"),
];

/// The names of one model's symbols, sections and C identifiers. `--place` changes sections here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The model's name as a C identifier: the prefix of every symbol, type and (in upper case) macro.
    pub model: String,
    /// The entry point `<model>_run`.
    pub run: Named,
    /// The static arena `<model>_arena`.
    pub arena: Named,
    /// The parts of a static arena that is divided between memories, `<model>_arena_<memory>`.
    pub pools: Vec<Named>,
    /// Members of `struct <model>_arenas`.
    pub pool_members: Vec<String>,
    /// Constant arguments of external functions, `<model>_tables`.
    pub tables: Named,
    /// Constants of external functions, in the order of [`Foreign::blobs`](crate::graph::external::Foreign::blobs).
    /// Their symbols are given.
    pub blobs: Vec<Named>,
    /// By [`Routine`]: `<model>_soft_add` and so on, where the target computes floats with them.
    pub routines: Vec<Named>,
    /// In the order of [`HELPERS`].
    pub helpers: Vec<Named>,
    /// By [`KernelId`]: `<model>_kernel_<kernel>`.
    pub kernels: Vec<Named>,
    /// By [`ParameterId`]: `<model>_<parameter>`.
    pub parameters: Vec<Named>,
    /// Constants of the graph that kernels read as they are ([`Operand::Tensor`]).
    pub constants: BTreeMap<TensorId, Named>,
    /// Members of `struct <model>_inputs`, in the model's order; in upper case, the middle of their macros. Distinct
    /// from those of the outputs.
    pub inputs: Vec<String>,
    /// Members of `struct <model>_outputs`.
    pub outputs: Vec<String>,
}

/// Longest identifier made from a name of the model, in bytes; longer ones are cut and carry a hash.
pub const LONGEST: usize = 64;

/// Words of C99, C++20 and common C compilers that cannot be the name of a member, and macros of standard headers.
const KEYWORDS: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "and_eq",
    "asm",
    "assert",
    "atomic_cancel",
    "atomic_commit",
    "atomic_noexcept",
    "auto",
    "bitand",
    "bitor",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "char16_t",
    "char32_t",
    "char8_t",
    "class",
    "co_await",
    "co_return",
    "co_yield",
    "compl",
    "complex",
    "concept",
    "const",
    "const_cast",
    "consteval",
    "constexpr",
    "constinit",
    "continue",
    "decltype",
    "default",
    "delete",
    "do",
    "double",
    "dynamic_cast",
    "else",
    "enum",
    "errno",
    "explicit",
    "export",
    "extern",
    "false",
    "far",
    "float",
    "for",
    "friend",
    "goto",
    "i386",
    "if",
    "imaginary",
    "inline",
    "int",
    "interface",
    "linux",
    "long",
    "math_errhandling",
    "mutable",
    "namespace",
    "near",
    "new",
    "noexcept",
    "noreturn",
    "not",
    "not_eq",
    "nullptr",
    "offsetof",
    "operator",
    "or",
    "or_eq",
    "private",
    "protected",
    "public",
    "reflexpr",
    "register",
    "reinterpret_cast",
    "requires",
    "restrict",
    "return",
    "setjmp",
    "short",
    "signed",
    "sizeof",
    "small",
    "static",
    "static_assert",
    "static_cast",
    "stderr",
    "stdin",
    "stdout",
    "struct",
    "switch",
    "synchronized",
    "template",
    "this",
    "thread_local",
    "throw",
    "true",
    "try",
    "typedef",
    "typeid",
    "typename",
    "typeof",
    "union",
    "unix",
    "unsigned",
    "using",
    "va_arg",
    "virtual",
    "void",
    "volatile",
    "wchar_t",
    "while",
    "xor",
    "xor_eq",
];

/// Middles of macros that the header makes itself: `KWS_ARENA_SIZE` is not a tensor's.
const MACROS: &[&str] = &[
    "abi",
    "arena",
    "code",
    "error",
    "h",
    "hooks",
    "inputs",
    "io",
    "model",
    "more",
    "ok",
    "outputs",
    "parameters",
    "run",
    "stack",
    "step",
    "steps",
    "target",
    "version",
];

/// A name as an identifier in lower case: runs of other characters become one `_`, what follows a `;` (names of fused
/// operators) is dropped, `fallback` stands for nothing, long names are cut with a hash of the whole.
pub fn identifier(name: &str, fallback: &str) -> String {
    let first = name.split(';').find(|part| !part.is_empty()).unwrap_or("");
    let mut id = String::new();
    for c in first.chars() {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => id.push(c),
            _ if id.is_empty() || id.ends_with('_') => {}
            _ => id.push('_'),
        }
        if id.len() > LONGEST {
            break;
        }
    }
    while id.ends_with('_') {
        id.pop();
    }
    if id.is_empty() {
        id.push_str(fallback);
    }
    if id.len() > LONGEST {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        id.truncate(LONGEST - 9);
        id.push('_');
        id.push_str(&hash[..8]);
    }
    id
}

/// An identifier that may stand alone: it starts with a letter and is no keyword.
fn standalone(name: &str, fallback: &str) -> String {
    let mut id = identifier(name, fallback);
    if id.starts_with(|c: char| c.is_ascii_digit()) {
        id = format!("{fallback}_{id}");
    }
    // Types of the standard headers (`int8_t`) end like that.
    if KEYWORDS.binary_search(&id.as_str()).is_ok() || id.ends_with("_t") {
        id.push('_');
    }
    id
}

/// Names that are taken, and for each the number that a further claim gets. Each number is tried once, so a model whose
/// tensors all have one name costs no more than another.
#[derive(Default)]
struct Taken(BTreeMap<String, u64>);

impl Taken {
    fn claim(&mut self, name: String) -> String {
        let Some(mut number) = self.0.get(&name).copied() else {
            self.0.insert(name.clone(), 2);
            return name;
        };
        let free = loop {
            let candidate = format!("{name}_{number}");
            number += 1;
            if !self.0.contains_key(&candidate) {
                break candidate;
            }
        };
        self.0.insert(name, number);
        self.0.insert(free.clone(), 2);
        free
    }
}

/// A name of its own for every tensor, by [`TensorId`]: C identifiers without the model's prefix. Results of operators
/// choose first, constants last.
pub fn tensors(graph: &Graph) -> Vec<String> {
    let mut taken = Taken::default();
    let mut names = vec![String::new(); graph.tensors.len()];
    let results = graph.ops.iter().flat_map(|op| &op.outputs);
    let all = (0..graph.tensors.len() as u32).map(TensorId);
    for id in results.chain(&graph.inputs).copied().chain(all) {
        if names[id.index()].is_empty() {
            names[id.index()] = taken.claim(standalone(&graph.tensor(id).name, "tensor"));
        }
    }
    names
}

/// The prefix of a model's symbols that its name gives.
pub fn prefix(name: &str) -> String {
    standalone(name, "model")
}

impl Names {
    /// The default names of `graph`'s symbols, with the prefix that its name gives.
    pub fn new(graph: &Graph, lowering: &Lowering) -> Self {
        let model = prefix(&graph.name);
        let mut symbols = Taken::default();
        let run = symbols.claim(format!("{model}_run"));
        let arena = symbols.claim(format!("{model}_arena"));
        let tables = symbols.claim(format!("{model}_tables"));
        // Struct tags share no name space with symbols in C, but they do in C++.
        for reserved in ["inputs", "outputs", "parameters", "hooks"] {
            symbols.claim(format!("{model}_{reserved}"));
        }
        let helpers = (HELPERS.iter())
            .map(|(_, name, kind)| Named {
                symbol: symbols.claim(format!("{model}_{name}")),
                section: format!("{kind}.{model}.{name}"),
            })
            .collect();
        let routines = (ROUTINES.iter())
            .map(|routine| Named {
                symbol: symbols.claim(format!("{model}_{}", routine.name())),
                section: format!(".text.{model}.{}", routine.name()),
            })
            .collect();
        let mut named = |kind: &str, part: String, infix: &str| {
            let symbol = symbols.claim(format!("{model}_{infix}{part}"));
            // The section follows the symbol, so both are found by the same number.
            let tail = symbol[model.len() + 1 + infix.len()..].to_owned();
            Named {
                section: format!("{kind}.{model}.{tail}"),
                symbol,
            }
        };
        let kernels = (lowering.kernels.iter())
            .map(|kernel| named(".text", identifier(&kernel.name, "kernel"), "kernel_"))
            .collect();
        let parameters = (lowering.parameters.iter())
            .map(|parameter| named(".rodata", identifier(&parameter.name, "parameter"), ""))
            .collect();
        let read = (lowering.all_calls())
            .flat_map(|call| &call.operands)
            .filter_map(|operand| match operand {
                Operand::Tensor(id) if graph.tensor(*id).data.is_some() => Some(*id),
                _ => None,
            })
            .collect::<BTreeSet<_>>();
        let constants = (read.into_iter())
            .map(|id| (id, named(".rodata", identifier(&graph.tensor(id).name, "constant"), "")))
            .collect();

        let mut members = Taken(MACROS.iter().map(|name| ((*name).to_owned(), 2)).collect());
        let mut member = |id: &TensorId, fallback: &str| members.claim(standalone(&graph.tensor(*id).name, fallback));
        let inputs = graph.inputs.iter().map(|id| member(id, "input_1")).collect();
        let outputs = graph.outputs.iter().map(|id| member(id, "output_1")).collect();
        Names {
            run: Named {
                symbol: run,
                section: format!(".text.{model}.run"),
            },
            arena: Named {
                symbol: arena,
                section: format!(".bss.{model}.arena"),
            },
            pools: Vec::new(),
            pool_members: Vec::new(),
            tables: Named {
                symbol: tables,
                section: format!(".rodata.{model}.tables"),
            },
            blobs: (graph.foreign.blobs.iter())
                .map(|blob| Named {
                    symbol: blob.symbol.clone(),
                    section: (blob.section.clone()).unwrap_or_else(|| format!(".rodata.{model}.{}", blob.symbol)),
                })
                .collect(),
            model,
            routines,
            helpers,
            kernels,
            parameters,
            constants,
            inputs,
            outputs,
        }
    }

    /// Gives inputs and outputs other members, if those are distinct identifiers that may stand in C.
    pub fn set_members(&mut self, inputs: Vec<String>, outputs: Vec<String>) {
        let all: Vec<&String> = inputs.iter().chain(&outputs).collect();
        let legal = |name: &String| {
            let start = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            let word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            start && word && name.len() <= LONGEST && KEYWORDS.binary_search(&name.as_str()).is_err()
        };
        // Their macros are in upper case: those must differ, too.
        let upper: BTreeSet<String> = all.iter().map(|name| name.to_ascii_uppercase()).collect();
        let own = |name: &String| MACROS.contains(&name.to_ascii_lowercase().as_str());
        if upper.len() == all.len() && all.into_iter().all(|name| legal(name) && !own(name)) {
            (self.inputs, self.outputs) = (inputs, outputs);
        }
    }

    /// Gives each part of an arena that is divided between `memories` a name, after the arena's own.
    pub fn divide_arena<'a>(&mut self, memories: impl IntoIterator<Item = &'a str>) {
        let mut symbols = Taken::default();
        let others = [&self.run, &self.arena, &self.tables].into_iter().chain(&self.blobs);
        let others = others.chain(&self.routines).chain(&self.helpers).chain(&self.kernels);
        for named in others.chain(&self.parameters).chain(self.constants.values()) {
            symbols.claim(named.symbol.clone());
        }
        (self.pools, self.pool_members) = (Vec::new(), Vec::new());
        let mut members = Taken::default();
        for memory in memories {
            let word = identifier(memory, "memory");
            let symbol = symbols.claim(format!("{}_{word}", self.arena.symbol));
            self.pools.push(Named {
                section: format!("{}.{word}", self.arena.section),
                symbol,
            });
            self.pool_members.push(members.claim(standalone(memory, "memory")));
        }
    }

    /// The part of the arena in the memory of this number; all of it where it is not divided.
    pub fn pool(&self, number: usize) -> &Named {
        self.pools.get(number).unwrap_or(&self.arena)
    }

    /// What tells the symbol of a part of the arena from those of others: in upper case, the middle of its macros.
    pub fn pool_word(&self, number: usize) -> &str {
        let symbol = &self.pool(number).symbol;
        let rest = symbol.strip_prefix(&self.arena.symbol);
        rest.and_then(|rest| rest.strip_prefix('_')).unwrap_or(symbol)
    }

    /// Gives the arena the name of one that other models use as well.
    pub fn share_arena(&mut self, prefix: &str) {
        self.arena = Named {
            symbol: format!("{prefix}_arena"),
            section: format!(".bss.{prefix}.arena"),
        };
    }

    /// The routine's names.
    pub fn routine(&self, routine: Routine) -> &Named {
        &self.routines[routine as usize]
    }

    /// The helper's names.
    pub fn helper(&self, helper: Helper) -> &Named {
        &self.helpers[helper as usize]
    }

    /// The kernel's names.
    pub fn kernel(&self, id: KernelId) -> &Named {
        &self.kernels[id.0 as usize]
    }

    /// The parameter's names.
    pub fn parameter(&self, id: ParameterId) -> &Named {
        &self.parameters[id.0 as usize]
    }

    /// The prefix of macros: the model's name in upper case.
    pub fn macros(&self) -> String {
        self.model.to_ascii_uppercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{DType, Shape, Tensor};
    use crate::kernels::{Parameter, ParameterKind};

    #[test]
    fn identifiers() {
        for (name, id) in [
            ("serving_default_input_1:0", "serving_default_input_1_0"),
            ("model/conv2d/Relu;model/conv2d/BiasAdd", "model_conv2d_relu"),
            ("Identity", "identity"),
            ("__x--y__", "x_y"),
            ("", "tensor"),
            (";;", "tensor"),
            ("ü/ü", "tensor"),
            ("7up", "7up"),
        ] {
            assert_eq!(identifier(name, "tensor"), id, "{name:?}");
        }
    }

    #[test]
    fn long_names_stay_distinct() {
        let (a, b) = ("a".repeat(5000), "a".repeat(5001));
        assert_eq!(identifier(&a, "t").len(), LONGEST);
        assert_ne!(identifier(&a, "t"), identifier(&b, "t"));
        assert_eq!(identifier(&"b".repeat(LONGEST), "t"), "b".repeat(LONGEST));
    }

    #[test]
    fn helpers_are_found() {
        for (i, (helper, ..)) in HELPERS.iter().enumerate() {
            assert_eq!(*helper as usize, i);
        }
    }

    #[test]
    fn keywords_are_sorted_and_avoided() {
        assert!(KEYWORDS.is_sorted());
        assert_eq!(standalone("Int", "t"), "int_");
        assert_eq!(standalone("uint8_t", "t"), "uint8_t_");
        assert_eq!(standalone("1x", "input"), "input_1x");
    }

    #[test]
    fn a_hundred_thousand_equal_names() {
        let mut taken = Taken::default();
        taken.claim("x_3".into());
        let names: Vec<String> = (0..100_000).map(|_| taken.claim("x".into())).collect();
        assert_eq!(names[..4], ["x", "x_2", "x_4", "x_5"]);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn clashes_are_numbered() {
        let tensor = |name: &str| Tensor {
            name: name.into(),
            dtype: DType::I8,
            shape: Shape(vec![1]),
            quantization: None,
            data: None,
        };
        let mut graph = Graph {
            name: "2 Kws".into(),
            ..Graph::default()
        };
        graph.inputs = vec![graph.add_tensor(tensor("x")), graph.add_tensor(tensor("arena"))];
        graph.outputs = vec![graph.add_tensor(tensor("X"))];
        let parameter = |name: &str| Parameter {
            name: name.into(),
            kind: ParameterKind::Weights,
            tensors: Vec::new(),
            align: 16,
            contents: crate::data::Contents::Zero(0),
        };
        let lowering = Lowering {
            parameters: vec![parameter("run"), parameter("w"), parameter("W")],
            ..Lowering::default()
        };
        let names = Names::new(&graph, &lowering);
        assert_eq!(names.run.symbol, "model_2_kws_run");
        assert_eq!(names.inputs, ["x", "arena_2"]);
        assert_eq!(names.outputs, ["x_2"]);
        let symbols: Vec<_> = names.parameters.iter().map(|named| named.symbol.as_str()).collect();
        assert_eq!(symbols, ["model_2_kws_run_2", "model_2_kws_w", "model_2_kws_w_2"]);
        assert_eq!(names.parameters[2].section, ".rodata.model_2_kws.w_2");
    }
}
