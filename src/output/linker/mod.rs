//! Fragments for a linker's script, from one description of the memories: GNU ld and lld, IAR, Keil and TI.
//!
//! The languages are those of the GNU ld manual ("Linker Scripts", `INSERT`), IAR's C/C++ Development Guide ("The linker
//! configuration file"), the armlink User Guide ("Scatter File Syntax") and TI's Arm Assembly Language Tools User's Guide
//! ("Linker Command Files").

use super::{comment, render};
use crate::error::{Code, Error, Result};
use crate::object::{ObjectPlan, SectionKind};
use crate::place::{Placement, Region};
use minijinja::{Value, context};
use std::collections::{BTreeMap, BTreeSet};

/// Whose linker reads the fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// GNU ld and lld.
    #[default]
    Gnu,
    /// IAR's ILINK.
    Iar,
    /// Arm's armlink, of Keil MDK.
    Keil,
    /// TI's linkers.
    Ti,
}

impl Dialect {
    /// The extension of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Dialect::Gnu => "ld",
            Dialect::Iar => "icf",
            Dialect::Keil => "sct",
            Dialect::Ti => "cmd",
        }
    }

    fn template(self) -> &'static str {
        match self {
            Dialect::Gnu => include_str!("../../../linker-scripts/fragment.ld"),
            Dialect::Iar => include_str!("../../../linker-scripts/fragment.icf"),
            Dialect::Keil => include_str!("../../../linker-scripts/fragment.sct"),
            Dialect::Ti => include_str!("../../../linker-scripts/fragment.cmd"),
        }
    }

    /// A section's name as it stands in a script.
    fn name(self, name: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        match self {
            // Names that are not identifiers stand between back quotes.
            Dialect::Iar if !name.chars().all(plain) => format!("`{name}`"),
            Dialect::Ti if !name.chars().all(plain) => format!("\"{name}\""),
            _ => name.to_owned(),
        }
    }

    /// Text that stands in a comment: scatter files go through a C preprocessor, which looks for the ends of quotes.
    fn comment(self, text: &str) -> String {
        match self {
            Dialect::Keil => comment(text).replace(['\'', '"'], "?"),
            _ => comment(text),
        }
    }
}

/// What a fragment is made from.
pub struct Fragment<'a> {
    /// The fragment's own file name.
    pub file: &'a str,
    /// The models' names.
    pub titles: &'a [&'a str],
    /// What the rules put where.
    pub placement: &'a Placement,
    /// The objects of the library.
    pub parts: &'a [Part<'a>],
}

/// An object.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The prefix of its symbols and sections.
    pub model: &'a str,
    /// The object.
    pub object: &'a ObjectPlan,
}

/// An output section.
struct Rule {
    output: String,
    patterns: Vec<String>,
    about: &'static str,
    after: &'static str,
    memory: Option<String>,
    kind: SectionKind,
    bytes: u64,
    align: u64,
}

impl Fragment<'_> {
    /// The fragment's text.
    ///
    /// # Errors
    /// [`Code::Usage`] if the dialect needs the address of a memory that is not described;
    /// [`Code::Internal`] if the template is wrong.
    pub fn text(&self, dialect: Dialect) -> Result<String> {
        let (placed, kinds) = self.rules();
        let ids = identifiers(placed.iter().map(|rule| rule.output.as_str()));
        let of = |rule: &Rule| {
            // A scatter file cannot say more about a memory of the main file's.
            let main = (self.placement.memory.iter())
                .any(|region| region.existing && Some(&region.name) == rule.memory.as_ref());
            context! {
                output => dialect.name(&rule.output),
                title => rule.output,
                id => ids.get(rule.output.as_str()),
                main => main || rule.memory.is_none(),
                patterns => rule.patterns.iter().map(|pattern| match pattern.strip_suffix('*') {
                    Some(_) => pattern.clone(),
                    None => dialect.name(pattern),
                }).collect::<Vec<_>>(),
                about => rule.about,
                after => rule.after,
                memory => rule.memory,
                zero => rule.kind == SectionKind::Zero,
                bytes => rule.bytes,
                align => rule.align,
            }
        };
        let mut regions = Vec::new();
        for region in &self.placement.memory {
            let here: Vec<Value> = (placed.iter())
                .filter(|rule| rule.memory.as_ref() == Some(&region.name))
                .map(of)
                .collect();
            regions.push(describe(region, here));
        }
        let unknown = placed.iter().find_map(|rule| {
            let memory = rule.memory.as_ref()?;
            let known = self.placement.memory.iter().any(|region| region.name == *memory);
            (!known).then_some((&rule.output, memory))
        });
        if let (Dialect::Keil, Some((section, memory))) = (dialect, unknown) {
            let message = format!("a scatter file needs the address of {memory}, where {section} goes");
            return Err(Error::new(Code::Usage, message).help(format!(
                "describe it, as in --region {memory}=0x90000000:16M, or in the table [memory] of the place file"
            )));
        }
        // Names that a template makes begin with the first model's.
        let model = self.parts.first().map_or("", |part| part.model);
        let quote = if dialect == Dialect::Keil { "" } else { "\"" };
        let titles = self
            .titles
            .iter()
            .map(|title| format!("{quote}{}{quote}", dialect.comment(title)));
        render(
            dialect.template(),
            context! {
                file => dialect.comment(self.file),
                networks => if self.titles.len() == 1 { "network" } else { "networks" },
                titles => titles.collect::<Vec<_>>().join(", "),
                version => env!("CARGO_PKG_VERSION"),
                model,
                any => if self.parts.len() == 1 { model } else { "MODEL" },
                upper => model.to_ascii_uppercase(),
                regions,
                placed => placed.iter().map(of).collect::<Vec<_>>(),
                kinds => kinds.iter().map(of).collect::<Vec<_>>(),
            },
        )
    }

    /// Sections that rules named, in the objects' order; and the kinds of the rest.
    fn rules(&self) -> (Vec<Rule>, Vec<Rule>) {
        let default = |kind| match kind {
            SectionKind::Text => (".text", "machine code", ".text"),
            // Many scripts hold constants in .text: every script has that one.
            SectionKind::ReadOnlyData | SectionKind::RelocatedData => (".rodata", "parameters", ".text"),
            SectionKind::Zero => (".bss", "the arena", ".bss"),
            SectionKind::Debug => (".debug", "debug information", ""),
        };
        let (mut placed, mut kinds): (Vec<Rule>, Vec<Rule>) = (Vec::new(), Vec::new());
        for Part { model, object } in self.parts {
            let here = kinds.len();
            for kind in [SectionKind::Text, SectionKind::ReadOnlyData, SectionKind::Zero] {
                let (prefix, about, after) = default(kind);
                kinds.push(Rule {
                    output: format!("{prefix}.{model}"),
                    patterns: vec![format!("{prefix}.{model}.*")],
                    about,
                    after,
                    memory: None,
                    kind,
                    bytes: 0,
                    align: 1,
                });
            }
            // Only hosted systems have relocated data, and their linkers place it.
            let loaded = |section: &&crate::object::Section| {
                !matches!(section.kind, SectionKind::Debug | SectionKind::RelocatedData)
            };
            for section in object.sections.iter().filter(loaded) {
                let (prefix, about, after) = default(section.kind);
                let memory = self.placement.memory_of(&section.name);
                let ours = section.name.starts_with(&format!("{prefix}.{model}."));
                let rule = if ours && memory.is_none() {
                    kinds[here..].iter_mut().find(|rule| rule.kind == section.kind)
                } else {
                    if !placed.iter().any(|rule| rule.output == section.name) {
                        placed.push(Rule {
                            output: section.name.clone(),
                            patterns: vec![section.name.clone()],
                            about,
                            after,
                            memory: memory.map(str::to_owned),
                            kind: section.kind,
                            bytes: 0,
                            align: 1,
                        });
                    }
                    placed.iter_mut().find(|rule| rule.output == section.name)
                };
                if let Some(rule) = rule {
                    rule.bytes = rule.bytes.next_multiple_of(section.align.max(1)) + section.contents.len();
                    rule.align = rule.align.max(section.align);
                    if rule.about != about {
                        rule.about = "of several kinds";
                    }
                }
            }
        }
        kinds.retain(|rule| rule.bytes > 0);
        (placed, kinds)
    }
}

/// Letters and digits of each name, in upper case and distinct: `.qspi` → `QSPI`.
fn identifiers<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, String> {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    let mut taken = BTreeSet::new();
    let mut ids = BTreeMap::new();
    for name in names {
        let base: String = name.trim_start_matches('.').chars().map(plain).collect();
        let mut id = base.clone();
        for number in 2.. {
            if taken.insert(id.clone()) {
                break;
            }
            id = format!("{base}_{number}");
        }
        ids.insert(name, id);
    }
    ids
}

fn describe(region: &Region, rules: Vec<Value>) -> Value {
    context! {
        name => region.name,
        origin => format!("{:#x}", region.origin),
        length => format!("{:#x}", region.length),
        access => region.access().to_ascii_uppercase(),
        defined => !region.existing,
        writable => region.writable,
        rules,
    }
}

#[cfg(test)]
mod tests;
