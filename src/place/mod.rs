//! `--place 'PATTERN=SECTION'`: which tensors, kernels or arenas go to sections of the user's choice.
//!
//! ```text
//! rule      = pattern "=" section [">" memory] [",align=" bytes]
//! pattern   = condition { "&" condition }                              all of them hold
//! condition = ["name="] glob
//!           | "size" ("<" | "<=" | "=" | ">=" | ">") bytes
//!           | "kind=" kind { "|" kind }
//! kind      = "weights" | "bias" | "table" | "constant" | "code" | "arena"
//! glob      = the name of a tensor in the model, its symbol, a kernel's name, or "arena"; with * ? [a-z] [!a-z]
//! bytes     = (digits | "0x" digits) ["K" | "M" | "G"]                 powers of 1024
//! ```
//! The sections `embedded`, `external` and `streamed` are words: they say whether parameters are in the object at all.
//! The first rule that matches wins; one that takes nothing is an error. Memories are described by [`Region`]s; rules
//! and regions also come from a file ([`PlaceFile`]).

mod divide;
mod file;
mod glob;
mod home;
mod memory;
mod nearest;
mod pool;
mod rule;
mod section;

pub use file::PlaceFile;
pub use home::{Home, Homes, homes};
pub use memory::{Region, number as bytes};
pub use pool::{Given, Pool, pools};
pub use rule::{Kind, Rule};

use crate::codegen;
use crate::error::{Code, Error, Result};
use crate::graph::Graph;
use crate::image::Image;
use crate::kernels::entry::ArenaKind;
use crate::kernels::{Lowering, Parameter, ParameterKind};
use crate::names::{HELPERS, Named, Names};
use crate::object::{ObjectPlan, RELOCATED, SectionKind};
use crate::plan::Plan;
use crate::target::Target;
use std::collections::{BTreeMap, BTreeSet};

/// What was built, as far as rules see it.
pub struct Built<'a> {
    /// The target.
    pub target: &'a Target,
    /// The graph.
    pub graph: &'a Graph,
    /// Its kernels and parameters.
    pub lowering: &'a Lowering,
    /// Its plan.
    pub plan: &'a Plan,
    /// Who provides the arena.
    pub arena: ArenaKind,
    /// Machine code of the kernels, in the lowering's order.
    pub kernels: &'a [codegen::Code],
    /// Machine code of the routines.
    pub routines: &'a [codegen::Code],
    /// Machine code of the entry point.
    pub entry: &'a codegen::Code,
    /// Machine code of what is beside it.
    pub helpers: &'a [codegen::Code],
    /// Bytes of the constant arguments of external functions.
    pub tables: u64,
    /// The memories of `--memory`.
    pub pools: &'a [Pool],
    /// The parameters that are not in the object, if there are any.
    pub image: Option<&'a Image>,
}

/// What became of the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The memories that are described.
    pub memory: Vec<Region>,
    /// Sections that have a memory of their own, with its name.
    pub sections: Vec<(String, String)>,
    /// What each rule took that took anything, in the rules' order.
    pub taken: Vec<Taken>,
    /// Least alignments, by symbol.
    aligns: BTreeMap<String, u64>,
}

/// What a rule took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What the rule says.
    pub rule: String,
    /// Where it puts what it takes.
    pub section: String,
    /// The memory of that section.
    pub memory: Option<String>,
    /// Symbol, kind and size in bytes.
    pub items: Vec<(String, Kind, u64)>,
}

/// Something that has a section.
struct Thing<'a> {
    symbol: &'a str,
    /// Other names: without the prefix, and the model's own.
    names: Vec<&'a str>,
    kind: Kind,
    size: u64,
    /// Whether it may be outside the object.
    parameter: bool,
}

impl Thing<'_> {
    fn section_kind(&self) -> SectionKind {
        match self.kind {
            Kind::Code => SectionKind::Text,
            Kind::Arena => SectionKind::Zero,
            _ => SectionKind::ReadOnlyData,
        }
    }

    /// Words say where parameters are kept, and take nothing else.
    fn taken_by(&self, rule: &Rule) -> bool {
        (self.parameter || rule.home().is_none()) && rule.takes(&self.names, self.kind, self.size)
    }
}

fn kind_of(kind: ParameterKind) -> Kind {
    match kind {
        ParameterKind::Weights => Kind::Weights,
        ParameterKind::Bias => Kind::Bias,
        ParameterKind::Table => Kind::Table,
    }
}

/// Whether the pattern on names takes the whole of `name`; a `[` without its `]` takes nothing.
pub fn glob_matches(pattern: &str, name: &str) -> bool {
    glob::Glob::new(pattern).is_some_and(|glob| glob.matches(name))
}

/// The symbol without the model's prefix.
fn short<'a>(symbol: &'a str, names: &Names) -> &'a str {
    let short = symbol.strip_prefix(names.model.as_str());
    short.and_then(|rest| rest.strip_prefix('_')).unwrap_or(symbol)
}

/// All names of a parameter.
fn parameter_names<'a>(graph: &'a Graph, parameter: &'a Parameter, named: &'a Named, names: &Names) -> Vec<&'a str> {
    let mut all = vec![short(&named.symbol, names), &named.symbol, parameter.name.as_str()];
    // What is made from several tensors (a bias with the filter's sums folded in) has a name of its own alone.
    if let [id] = parameter.tensors.as_slice() {
        all.push(&graph.tensor(*id).name);
    }
    all
}

/// Everything that a rule can take.
fn things<'a>(built: &Built<'a>, names: &'a Names) -> Vec<Thing<'a>> {
    let Built { graph, lowering, .. } = built;
    let mut things = Vec::new();
    for (parameter, named) in lowering.parameters.iter().zip(&names.parameters) {
        things.push(Thing {
            symbol: &named.symbol,
            names: parameter_names(graph, parameter, named, names),
            kind: kind_of(parameter.kind),
            size: parameter.contents.len(),
            parameter: true,
        });
    }
    let mut add = |named: &'a Named, own: &[&'a str], kind, size| {
        things.push(Thing {
            symbol: &named.symbol,
            names: [&[short(&named.symbol, names), &named.symbol], own].concat(),
            kind,
            size,
            parameter: false,
        });
    };
    for (id, named) in &names.constants {
        let tensor = graph.tensor(*id);
        add(named, &[&tensor.name], Kind::Constant, tensor.bytes() as u64);
    }
    for (blob, named) in graph.foreign.blobs.iter().zip(&names.blobs) {
        add(named, &[], Kind::Constant, blob.bytes.len());
    }
    // Where a loader writes the addresses in them, they have no choice.
    if built.tables > 0 && !names.tables.section.starts_with(RELOCATED) {
        add(&names.tables, &[], Kind::Table, built.tables);
    }
    for ((kernel, code), named) in lowering.kernels.iter().zip(built.kernels).zip(&names.kernels) {
        add(named, &[&kernel.name], Kind::Code, code.bytes.len() as u64);
    }
    for code in built.routines {
        if let Some(named) = names.routines.iter().find(|named| named.symbol == code.name) {
            add(named, &[], Kind::Code, code.bytes.len() as u64);
        }
    }
    add(&names.run, &[], Kind::Code, built.entry.bytes.len() as u64);
    for (named, (_, name, _)) in names.helpers.iter().zip(HELPERS) {
        if let Some(code) = built.helpers.iter().find(|code| code.name == named.symbol) {
            add(named, &[name], Kind::Code, code.bytes.len() as u64);
        }
    }
    if built.arena == ArenaKind::Static {
        for (pool, (_, bytes)) in built
            .plan
            .areas()
            .into_iter()
            .enumerate()
            .filter(|(_, (_, bytes))| *bytes > 0)
        {
            add(names.pool(pool), &["arena"], Kind::Arena, bytes);
        }
    }
    things
}

/// What each rule takes: by symbol, at most one rule each.
fn taken<'a, 'b>(rules: &[Rule], things: &'a [Thing<'b>]) -> Vec<Vec<&'a Thing<'b>>> {
    let mut taken: Vec<Vec<&Thing>> = vec![Vec::new(); rules.len()];
    for thing in things {
        if let Some(i) = rules.iter().position(|rule| thing.taken_by(rule)) {
            taken[i].push(thing);
        }
    }
    taken
}

/// The symbols of what a rule takes when it is alone.
///
/// # Errors
/// [`Code::Usage`] if it takes nothing.
pub fn symbols(rule: &Rule, built: &Built, names: &Names) -> Result<Vec<String>> {
    let things = things(built, names);
    let taken = things.iter().filter(|thing| thing.taken_by(rule));
    let symbols: Vec<String> = taken.map(|thing| thing.symbol.to_owned()).collect();
    if symbols.is_empty() {
        return Err(nothing(rule, &things));
    }
    Ok(symbols)
}

/// Moves what the rules take into their sections. Beside the placement, an error for each rule that takes nothing: one
/// of several models may have what it means.
///
/// # Errors
/// [`Code::Usage`] for a section with two memories or with the arena beside what has contents, a name that the target's
/// format has no room for, an arena in memory that is not written, and memories that overlap.
pub fn apply(rules: &[Rule], memory: &[Region], built: &Built, names: &mut Names) -> Result<(Placement, Vec<Error>)> {
    memory::check(memory, 8 * built.target.machine().pointer_bytes as u32)?;
    let things = things(built, names);
    let taken = taken(rules, &things);
    let idle = rules.iter().zip(&taken).filter(|(_, taken)| taken.is_empty());
    let idle: Vec<Error> = idle.map(|(rule, _)| nothing(rule, &things)).collect();
    let sections = sections(rules)?;
    check(rules, &taken, &sections, memory, built)?;

    let mut moved = BTreeMap::new();
    let mut aligns = BTreeMap::new();
    for (rule, taken) in rules.iter().zip(&taken).filter(|(rule, _)| rule.home().is_none()) {
        for thing in taken {
            moved.insert(thing.symbol.to_owned(), rule.section.clone());
            if let Some(align) = rule.align {
                aligns.insert(thing.symbol.to_owned(), align);
            }
        }
    }
    let placed: BTreeSet<String> = moved.keys().cloned().collect();
    let taken = rules.iter().zip(taken).filter(|(_, taken)| !taken.is_empty());
    let taken = taken.map(|(rule, taken)| Taken {
        rule: rule.text.clone(),
        section: rule.section.clone(),
        memory: (sections.iter())
            .find(|(section, _)| *section == rule.section)
            .map(|(_, memory)| memory.clone()),
        items: taken
            .iter()
            .map(|thing| (thing.symbol.to_owned(), thing.kind, thing.size))
            .collect(),
    });
    let mut taken: Vec<Taken> = taken.collect();
    for named in all(names) {
        if let Some(section) = moved.remove(&named.symbol) {
            named.section = section;
        }
    }
    let mut sections = sections;
    for divided in divide::divide(built, names, &placed)? {
        if let Some(memory) = &divided.memory {
            sections.push((divided.section.clone(), memory.clone()));
        }
        taken.push(divided);
    }
    let placement = Placement {
        memory: memory.to_vec(),
        sections,
        taken,
        aligns,
    };
    Ok((placement, idle))
}

/// Everything that has a section.
fn all(names: &mut Names) -> impl Iterator<Item = &mut Named> {
    (names.parameters.iter_mut())
        .chain(names.constants.values_mut())
        .chain(&mut names.kernels)
        .chain(&mut names.routines)
        .chain(&mut names.helpers)
        .chain([&mut names.run, &mut names.arena])
        .chain(&mut names.pools)
}

/// The error for a rule that takes nothing.
fn nothing(rule: &Rule, things: &[Thing]) -> Error {
    const SHOWN: usize = 3;
    let error = Error::new(Code::Usage, format!("{} matches nothing", rule.label));
    if things.iter().any(|thing| thing.taken_by(rule)) {
        return error.help("an earlier rule takes all that it matches");
    }
    let Some(literal) = rule.literal() else {
        return error.help("`corerope inspect --json` lists kinds and sizes");
    };
    let names = things.iter().flat_map(|thing| thing.names.iter().copied());
    let near = nearest::nearest(&literal, names, SHOWN);
    let near: Vec<String> = near.iter().map(|name| format!("{name:?}")).collect();
    error.help(format!(
        "the nearest names are {}; `corerope inspect --json` lists all",
        near.join(", ")
    ))
}

/// The memory of each section that has one.
fn sections(rules: &[Rule]) -> Result<Vec<(String, String)>> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for rule in rules {
        let Some(memory) = &rule.memory else { continue };
        match sections.iter().find(|(section, _)| *section == rule.section) {
            Some((_, other)) if other != memory => {
                let message = format!(
                    "{} puts {} into {memory}, and another rule into {other}",
                    rule.label, rule.section
                );
                return Err(Error::new(Code::Usage, message).help("one section lies in one memory"));
            }
            Some(_) => {}
            None => sections.push((rule.section.clone(), memory.clone())),
        }
    }
    Ok(sections)
}

/// Whether every section can hold what the rules put there.
fn check(
    rules: &[Rule],
    taken: &[Vec<&Thing>],
    sections: &[(String, String)],
    memory: &[Region],
    built: &Built,
) -> Result<()> {
    let fail = |rule: &Rule, why: String, help: &str| {
        Err(Error::new(Code::Usage, format!("{}: {why}", rule.label)).help(help.to_owned()))
    };
    let mut holds: BTreeMap<&str, &Thing> = BTreeMap::new();
    for (rule, taken) in rules.iter().zip(taken).filter(|(rule, _)| rule.home().is_none()) {
        let region = sections.iter().find(|(section, _)| *section == rule.section);
        let region = region.and_then(|(_, name)| memory.iter().find(|region| region.name == *name));
        for thing in taken {
            if let Err((why, help)) = section::check(&rule.section, thing.section_kind(), built.target.format()) {
                return fail(rule, why, help);
            }
            let first = holds.entry(&rule.section).or_insert(thing);
            if (first.kind == Kind::Arena) != (thing.kind == Kind::Arena) {
                let other = if thing.kind == Kind::Arena { first } else { thing };
                let why = format!("{} would hold both the arena and {}", rule.section, other.symbol);
                let help = "linkers would store the arena's zeros in flash: put a rule in front that gives it another \
                            section, like 'arena=.dtcm'";
                return fail(rule, why, help);
            }
            match region {
                Some(region) if thing.kind == Kind::Arena && !region.writable => {
                    let why = format!("the arena cannot lie in {}, which is not written", region.name);
                    return fail(rule, why, "describe the memory with its access: NAME=ORIGIN:LENGTH:rw");
                }
                Some(region) if thing.kind == Kind::Code && !region.executable => {
                    let why = format!(
                        "{} cannot run from {}, which is not executed",
                        thing.symbol, region.name
                    );
                    return fail(rule, why, "describe the memory with its access: NAME=ORIGIN:LENGTH:rwx");
                }
                _ => {}
            }
        }
    }
    Ok(())
}

impl Placement {
    /// Aligns the object's sections as the rules ask, and checks that each memory has room for what goes there.
    ///
    /// # Errors
    /// [`Code::Usage`] for a memory that is too small.
    pub fn finish(&self, object: &mut ObjectPlan) -> Result<()> {
        for symbol in object.symbols.iter().filter(|symbol| symbol.offset == 0) {
            if let (Some(align), Some(section)) = (self.aligns.get(&symbol.name), symbol.section) {
                let section = &mut object.sections[section];
                section.align = section.align.max(*align);
            }
        }
        self.check(&[object])
    }

    /// Checks that each memory has room for what goes there of several objects.
    ///
    /// # Errors
    /// [`Code::Usage`] for a memory that is too small.
    pub fn check(&self, objects: &[&ObjectPlan]) -> Result<()> {
        for region in &self.memory {
            let sections = objects.iter().flat_map(|object| &object.sections);
            let here = sections.filter(|section| self.region(&section.name) == Some(region));
            let end = here.fold(region.origin.into(), |at: u128, section| {
                at.next_multiple_of(section.align.into()) + u128::from(section.contents.len())
            });
            let bytes = end - u128::from(region.origin);
            if bytes > region.length.into() {
                let message = format!("the rules put {bytes} bytes into {region}, which has {}", region.length);
                return Err(Error::new(Code::Usage, message).help("place less there, or divide it between memories"));
            }
        }
        Ok(())
    }

    /// The name of the memory of a section, if a rule names one.
    pub fn memory_of(&self, section: &str) -> Option<&str> {
        let named = self.sections.iter().find(|(name, _)| name == section);
        named.map(|(_, memory)| memory.as_str())
    }

    /// The memory of a section, if it is described.
    pub fn region(&self, section: &str) -> Option<&Region> {
        let name = self.memory_of(section)?;
        self.memory.iter().find(|region| region.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_lies_in_one_memory() {
        let rules = |list: &[&str]| list.iter().map(|rule| rule.parse().unwrap()).collect::<Vec<Rule>>();
        let ok = sections(&rules(&["a=.q>QSPI", "b=.q", "c=.q>QSPI", "d=.r>RAM"])).unwrap();
        assert_eq!(ok, [(".q".into(), "QSPI".into()), (".r".into(), "RAM".into())]);
        assert!(sections(&rules(&["a=.q>QSPI", "b=.q>RAM"])).is_err());
    }
}
