//! What a model with external functions needs beside kernels and parameters: constant argument tables, memory for
//! kernels that TVM compiled, constants that are reached by symbol.

use crate::codegen::{self, Code, Relocation};
use crate::data::{Bytes, Contents};
use crate::error::{Error, Result};
use crate::graph::external::{Convention, External};
use crate::graph::{Graph, OpKind, TensorId};
use crate::kernels::entry::backend::{self, FUNCTIONS, STATE};
use crate::kernels::entry::{Model, Tables};
use crate::names::Names;
use crate::object::{self, Datum, ObjectPlan, Placed, Visibility};
use crate::target::Target;
use std::collections::{BTreeMap, BTreeSet};
use target_lexicon::OperatingSystem;

/// Pointers in tables are aligned, and so are the 64-bit numbers beside them.
const TABLE_ALIGN: u64 = 8;

/// What external functions need in the object.
#[derive(Clone, Debug, Default)]
pub struct Externals {
    /// Functions that they call, and their sections.
    codes: Vec<Placed>,
    data: Vec<Datum>,
    addresses: BTreeMap<String, Vec<Relocation>>,
    /// Symbols that the object may leave to others.
    symbols: BTreeSet<String>,
}

/// All external functions of a graph, in the order of its operators.
pub fn externals(graph: &Graph) -> impl Iterator<Item = &External> {
    graph.ops.iter().filter_map(|op| match &op.kind {
        OpKind::External(external) => Some(&**external),
        _ => None,
    })
}

/// Refuses a model with external functions where corerope would have to run them itself.
///
/// # Errors
/// [`Code::Unsupported`](crate::error::Code::Unsupported), naming one of them.
pub fn refuse(graph: &Graph) -> Result<()> {
    match externals(graph).next() {
        None => Ok(()),
        Some(external) => Err(Error::unsupported(format!(
            "the model calls {}, which only your linker can put into a program",
            external.symbol
        ))
        .help("build the library and run it in a program of yours")),
    }
}

impl Externals {
    /// Everything that the model's external functions need beside `tables`, their constant arguments.
    ///
    /// # Errors
    /// [`Code::Internal`](crate::error::Code::Internal) if plan, lowering and graph do not fit one another.
    pub fn new(model: &Model, tables: Tables) -> Result<Self> {
        let Model {
            graph, names, target, ..
        } = *model;
        let mut this = Externals::default();
        let hidden = |symbol: &str, section: String, align, contents| Datum {
            symbol: symbol.to_owned(),
            section,
            align,
            contents,
            visibility: Visibility::Hidden,
        };
        let taken = |symbol: &str| {
            let own = names
                .kernels
                .iter()
                .chain(&names.parameters)
                .chain(names.constants.values());
            let all = own
                .chain(&names.routines)
                .chain(&names.helpers)
                .chain([&names.run, &names.arena, &names.tables]);
            all.map(|named| named.symbol.as_str())
                .chain(FUNCTIONS)
                .chain([STATE])
                .any(|own| own == symbol)
        };
        for (blob, named) in graph.foreign.blobs.iter().zip(&names.blobs) {
            if taken(&blob.symbol) {
                return Err(
                    Error::model(format!("the constant {} has the name of another symbol", blob.symbol))
                        .help("rename it, or give the model another name with --name"),
                );
            }
            this.data.push(Datum {
                visibility: Visibility::Exported,
                ..hidden(
                    &named.symbol,
                    named.section.clone(),
                    blob.align,
                    Contents::Bytes(blob.bytes.clone()),
                )
            });
        }
        let pointer = target.machine().pointer_bytes as u64;
        if !tables.bytes.is_empty() {
            let Tables {
                mut bytes, addresses, ..
            } = tables;
            let addresses = (addresses.iter())
                .map(|a| object::address(a.offset, &a.symbol, a.addend, target, &mut bytes))
                .collect();
            let symbol = &names.tables.symbol;
            this.addresses.insert(symbol.clone(), addresses);
            let contents = Contents::Bytes(Bytes::from_vec(bytes));
            let section = names.tables.section.clone();
            this.data.push(hidden(symbol, section, TABLE_ALIGN, contents));
        }
        // Kernels that TVM compiled refer to its allocator even where they ask for nothing.
        if externals(graph).any(|external| external.workspace.allocated || external.convention == Convention::Packed) {
            let codes = codegen::compile(backend::functions(target).to_vec(), target)?;
            this.codes = (codes.into_iter())
                .map(|code: Code| Placed {
                    section: format!(".text.{}.{}", names.model, code.name),
                    code,
                })
                .collect();
            let section = format!(".bss.{}.tvm_workspace", names.model);
            this.data
                .push(hidden(STATE, section, pointer, Contents::Zero(2 * pointer)));
        }
        this.symbols = externals(graph)
            .flat_map(External::symbols)
            .map(str::to_owned)
            .collect();
        Ok(this)
    }

    /// The object of a model: `codes` and `data` with what is here. Symbols that are `elsewhere` in the library may be
    /// undefined.
    ///
    /// # Errors
    /// [`Code::Internal`](crate::error::Code::Internal) if something is defined twice, or neither here nor by an
    /// external object.
    pub fn object(self, mut codes: Vec<Placed>, mut data: Vec<Datum>, elsewhere: &[&str]) -> Result<ObjectPlan> {
        codes.extend(self.codes);
        data.extend(self.data);
        let mut addresses = self.addresses;
        let weak: Vec<&str> = FUNCTIONS.into_iter().chain([STATE]).collect();
        let plan = object::plan_linked(codes, data, &mut addresses, &weak)?;
        let known = |symbol: &str| self.symbols.contains(symbol) || elsewhere.contains(&symbol);
        if let Some(symbol) = plan.undefined().find(|symbol| !known(symbol)) {
            return Err(Error::internal(format!(
                "the object refers to {symbol}, which nothing defines"
            )));
        }
        Ok(plan)
    }
}

/// Names as TVM gives them: the entry point `tvmgen_<module>_run`, constants in `.rodata.tvm` and the arena in
/// `.bss.noinit.tvm`. Neither section is writable for another's sake: they hold nothing else.
///
/// # Errors
/// [`Code::Usage`](crate::error::Code::Usage) for a model that is not TVM's.
pub fn adopt_names(graph: &Graph, names: &mut Names) -> Result<()> {
    let Some(module) = &graph.foreign.module else {
        let message = "--tvm-names is for models of TVM";
        return Err(Error::new(crate::error::Code::Usage, message).help("--name chooses the prefix of symbols"));
    };
    names.run.symbol = format!("tvmgen_{module}_run");
    let member = |id: &TensorId| -> String {
        let name = graph.tensor(*id).name.chars();
        name.map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
    };
    names.set_members(
        graph.inputs.iter().map(member).collect(),
        graph.outputs.iter().map(member).collect(),
    );
    names.arena.section = ".bss.noinit.tvm".into();
    let constants = names.parameters.iter_mut().chain(names.constants.values_mut());
    for named in constants.chain(Some(&mut names.tables).filter(|named| named.section.starts_with(".rodata"))) {
        named.section = ".rodata.tvm".into();
    }
    Ok(())
}

/// The section for constants that hold addresses. Loaders of hosted systems write those, so they cannot share a section
/// with other constants there.
pub fn tables_section(names: &Names, target: &Target) -> String {
    let kind = match target.triple.operating_system {
        OperatingSystem::None_ | OperatingSystem::Unknown => ".rodata",
        OperatingSystem::Windows => ".rodata",
        _ => object::RELOCATED,
    };
    format!("{kind}.{}.tables", names.model)
}
