//! Sections, symbols and relocations → files. One section plan, several writers.
//!
//! Nothing here knows what a graph is: bytes, symbols and relocations only.

pub mod archive;
mod attributes;
pub mod coff;
pub mod elf;
pub mod executable;
mod stream;
#[cfg(test)]
mod tests;

use crate::codegen::{Code, Relocation};
use crate::data::{Bytes, Contents};
use crate::error::{Error, Result};
use crate::target::{Format, Target};
use std::collections::BTreeMap;
use std::io::Write;

/// What a section holds; decides its flags in each format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectionKind {
    /// Machine code.
    Text,
    /// Constants.
    ReadOnlyData,
    /// Zero-initialised memory, no bytes in the file.
    Zero,
    /// For debuggers: in the file, and in no memory of the program.
    Debug,
}

/// A section.
#[derive(Clone, Debug)]
pub struct Section {
    /// Full name: `.text.kws.conv2d_1`.
    pub name: String,
    /// What it holds.
    pub kind: SectionKind,
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// Its bytes, streamed.
    pub contents: Contents,
    /// Relocations, by offset.
    pub relocations: Vec<Relocation>,
}

/// Who sees a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Only this object.
    Local,
    /// Every object of the link, but not a shared library's users.
    Hidden,
    /// Everyone.
    Exported,
    /// Nobody by its name, which the file does not have: it stands for its section, in relocations of this object.
    /// Unlike a function's symbol it never says anything about the code (Thumb).
    Section,
}

/// A symbol: the whole of a section or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Name.
    pub name: String,
    /// Index into [`ObjectPlan::sections`]; `None` is undefined.
    pub section: Option<usize>,
    /// Offset in bytes in the section.
    pub offset: u64,
    /// Size in bytes (0 for labels).
    pub size: u64,
    /// Whether it is code.
    pub function: bool,
    /// Who sees it.
    pub visibility: Visibility,
}

/// An object file to be written.
#[derive(Clone, Debug, Default)]
pub struct ObjectPlan {
    /// Sections, in file order.
    pub sections: Vec<Section>,
    /// Symbols.
    pub symbols: Vec<Symbol>,
    /// Whether its code has instructions of an optional floating-point unit ([`Code::float`]).
    pub float: bool,
}

/// A function and the section that it gets.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The function.
    pub code: Code,
    /// Its section.
    pub section: String,
}

/// A constant or a zeroed buffer: a section of its own with one symbol.
#[derive(Clone, Debug)]
pub struct Datum {
    /// Symbol.
    pub symbol: String,
    /// Section.
    pub section: String,
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// The bytes, streamed; [`Contents::Zero`] becomes zero-initialised memory.
    pub contents: Contents,
    /// Who sees it.
    pub visibility: Visibility,
}

/// Lays out an object: every function and every datum in a section of its own, functions first. Symbols that are
/// referred to but not defined become undefined ones.
///
/// # Errors
/// [`Code::Internal`](crate::error::Code::Internal) if two definitions have the same symbol.
pub fn plan(codes: Vec<Placed>, data: Vec<Datum>) -> Result<ObjectPlan> {
    let mut plan = ObjectPlan::default();
    for Placed { code, section } in codes {
        let index = plan.sections.len();
        plan.float |= code.float;
        plan.symbols.push(Symbol {
            name: code.name,
            section: Some(index),
            offset: 0,
            size: code.bytes.len() as u64,
            function: true,
            visibility: if code.exported {
                Visibility::Exported
            } else {
                Visibility::Hidden
            },
        });
        plan.symbols.extend(code.labels.into_iter().map(|label| Symbol {
            name: label.name,
            section: Some(index),
            offset: label.offset,
            size: 0,
            function: false,
            visibility: Visibility::Local,
        }));
        plan.sections.push(Section {
            name: section,
            kind: SectionKind::Text,
            align: code.align.max(1),
            contents: Contents::Bytes(Bytes::from_vec(code.bytes)),
            relocations: code.relocations,
        });
    }
    for datum in data {
        plan.symbols.push(Symbol {
            name: datum.symbol,
            section: Some(plan.sections.len()),
            offset: 0,
            size: datum.contents.len(),
            function: false,
            visibility: datum.visibility,
        });
        plan.sections.push(Section {
            name: datum.section,
            kind: match datum.contents {
                Contents::Zero(_) => SectionKind::Zero,
                _ => SectionKind::ReadOnlyData,
            },
            align: datum.align.max(1),
            contents: datum.contents,
            relocations: Vec::new(),
        });
    }
    let mut defined = BTreeMap::new();
    // Mapping symbols are not referred to by name.
    for symbol in plan.symbols.iter().filter(|symbol| !symbol.name.starts_with('$')) {
        if defined.insert(symbol.name.as_str(), ()).is_some() {
            return Err(Error::internal(format!("symbol {} is defined twice", symbol.name)));
        }
    }
    let mut undefined: Vec<&str> = (plan.sections.iter())
        .flat_map(|section| &section.relocations)
        .map(|relocation| relocation.symbol.as_str())
        .filter(|name| !defined.contains_key(name))
        .collect();
    undefined.sort_unstable();
    undefined.dedup();
    let undefined: Vec<Symbol> = (undefined.into_iter())
        .map(|name| Symbol {
            name: name.to_owned(),
            section: None,
            offset: 0,
            size: 0,
            function: false,
            visibility: Visibility::Exported,
        })
        .collect();
    plan.symbols.extend(undefined);
    Ok(plan)
}

impl ObjectPlan {
    /// Index of each symbol by name.
    fn index(&self) -> BTreeMap<&str, usize> {
        (self.symbols.iter().enumerate())
            .map(|(i, symbol)| (symbol.name.as_str(), i))
            .collect()
    }

    /// Symbols that are referred to but not defined, sorted.
    pub fn undefined(&self) -> impl Iterator<Item = &str> {
        (self.symbols.iter())
            .filter(|symbol| symbol.section.is_none())
            .map(|symbol| symbol.name.as_str())
    }

    /// Bytes of all sections of a kind.
    pub fn size(&self, kind: SectionKind) -> u64 {
        let sections = self.sections.iter().filter(|section| section.kind == kind);
        sections.map(|section| section.contents.len()).sum()
    }
}

/// A symbol that a relocation needs and that the plan lacks: [`plan`] leaves none.
fn missing(name: &str) -> Error {
    Error::internal(format!(
        "a relocation refers to {name}, which is no symbol of the object"
    ))
}

/// Exact size of the object file in bytes.
///
/// # Errors
/// As [`write`].
pub fn size(plan: &ObjectPlan, target: &Target) -> Result<u64> {
    match target.format() {
        Format::Elf => elf::size(plan, target),
        Format::Coff => coff::size(plan),
    }
}

/// Writes the object in the target's format, streaming: memory does not grow with the sections.
///
/// # Errors
/// [`Code::Io`](crate::error::Code::Io) for failed reads and writes, [`Code::Limit`](crate::error::Code::Limit) for
/// what the format cannot express.
pub fn write(plan: &ObjectPlan, target: &Target, out: &mut dyn Write) -> Result<()> {
    match target.format() {
        Format::Elf => elf::write(plan, target, out),
        Format::Coff => coff::write(plan, out),
    }
}
