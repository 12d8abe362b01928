//! Sections, symbols and relocations → files. One section plan, several writers.
//!
//! Nothing here knows what a graph is: bytes, symbols and relocations only.

pub mod archive;
mod attributes;
pub mod coff;
pub mod elf;
pub mod executable;
pub mod foreign;
pub mod macho;
mod stream;
#[cfg(test)]
mod tests;
mod unit;

use crate::codegen::{Code, Relocation};
use crate::data::{Bytes, Contents};
use crate::error::{Error, Result};
use crate::target::{Arch, Format, Target};
use ::object::write::WritableBuffer;
use ::object::{RelocationFlags, elf as elf_types};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use stream::{Output, Pipe};
use unit::Unit;

/// What a section holds; decides its flags in each format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectionKind {
    /// Machine code.
    Text,
    /// Constants.
    ReadOnlyData,
    /// Constants with addresses in them, where the loader of a hosted system fills those in and then protects them.
    RelocatedData,
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
    /// Everyone, unless another object defines it, too: equal definitions in several libraries are one.
    Weak,
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
    /// Sections, by index, that linkers keep even if nothing refers to them.
    pub retained: BTreeSet<usize>,
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

/// Sections of [`SectionKind::RelocatedData`] begin so: linkers know the name.
pub const RELOCATED: &str = ".data.rel.ro";

/// A pointer in data to `symbol + addend`; where the format keeps addends in place, it is written to `bytes`.
pub fn address(offset: u64, symbol: &str, addend: u64, target: &Target, bytes: &mut [u8]) -> Relocation {
    let (flags, in_place) = match (target.format(), target.arch()) {
        (Format::Coff, _) => {
            let typ = ::object::pe::IMAGE_REL_AMD64_ADDR64;
            (RelocationFlags::Coff { typ }, true)
        }
        (Format::Elf | Format::MachO, arch) => {
            let r_type = match arch {
                Arch::X86_64 => elf_types::R_X86_64_64,
                Arch::Aarch64 => elf_types::R_AARCH64_ABS64,
                Arch::Riscv64 => elf_types::R_RISCV_64,
                Arch::Riscv32 => elf_types::R_RISCV_32,
                Arch::Thumb2 => elf_types::R_ARM_ABS32,
            };
            (RelocationFlags::Elf { r_type }, !elf::has_addend(target))
        }
    };
    if in_place {
        let width = target.machine().pointer_bytes;
        let place = bytes.get_mut(offset as usize..offset as usize + width);
        if let Some(place) = place {
            place.copy_from_slice(&addend.to_le_bytes()[..width]);
        }
    }
    Relocation {
        offset,
        symbol: symbol.to_owned(),
        addend: if in_place { 0 } else { addend as i64 },
        flags,
    }
}

/// Lays out an object: every function and every datum in a section of its own, functions first. Symbols that are
/// referred to but not defined become undefined ones.
///
/// # Errors
/// [`Code::Internal`](crate::error::Code::Internal) if two definitions have the same symbol.
pub fn plan(codes: Vec<Placed>, data: Vec<Datum>) -> Result<ObjectPlan> {
    plan_linked(codes, data, &mut BTreeMap::new(), &[])
}

/// [`plan`] with addresses in data, by the symbol of the datum, and with symbols that are weak.
///
/// # Errors
/// As [`plan`].
pub fn plan_linked(
    codes: Vec<Placed>,
    data: Vec<Datum>,
    addresses: &mut BTreeMap<String, Vec<Relocation>>,
    weak: &[&str],
) -> Result<ObjectPlan> {
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
        let relocations = addresses.remove(&datum.symbol).unwrap_or_default();
        plan.symbols.push(Symbol {
            name: datum.symbol,
            section: Some(plan.sections.len()),
            offset: 0,
            size: datum.contents.len(),
            function: false,
            visibility: datum.visibility,
        });
        plan.sections.push(Section {
            kind: match datum.contents {
                Contents::Zero(_) => SectionKind::Zero,
                _ if datum.section.starts_with(RELOCATED) => SectionKind::RelocatedData,
                _ => SectionKind::ReadOnlyData,
            },
            name: datum.section,
            align: datum.align.max(1),
            contents: datum.contents,
            relocations,
        });
    }
    for symbol in &mut plan.symbols {
        if weak.contains(&symbol.name.as_str()) {
            symbol.visibility = Visibility::Weak;
        }
    }
    let mut defined = HashMap::with_capacity(plan.symbols.len());
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
    /// For each section, those that its relocations refer to, sorted.
    fn references(&self) -> Vec<Vec<usize>> {
        let defined = self
            .symbols
            .iter()
            .filter_map(|symbol| Some((symbol.name.as_str(), symbol.section?)));
        let defined: HashMap<&str, usize> = defined.collect();
        (self.sections.iter())
            .map(|section| {
                let symbols = section.relocations.iter().map(|relocation| relocation.symbol.as_str());
                let mut targets: Vec<usize> = symbols.filter_map(|name| defined.get(name).copied()).collect();
                targets.sort_unstable();
                targets.dedup();
                targets
            })
            .collect()
    }

    /// Gives every exported function a second name that ends with `tag`. A header that calls it by that name links with
    /// this object and no other; the plain name stays for callers without the header.
    pub fn tag(&mut self, tag: &str) {
        let exported = (self.symbols.iter())
            .filter(|symbol| symbol.function && symbol.visibility == Visibility::Exported && symbol.section.is_some());
        let second: Vec<Symbol> = exported
            .map(|symbol| Symbol {
                name: tagged(&symbol.name, tag),
                ..symbol.clone()
            })
            .collect();
        self.symbols.extend(second);
    }

    /// Keeps the section of each of these symbols, even if nothing refers to it. Symbols that are not defined here are
    /// passed over.
    pub fn retain<'a>(&mut self, symbols: impl IntoIterator<Item = &'a str>) {
        let wanted: HashMap<&str, ()> = symbols.into_iter().map(|name| (name, ())).collect();
        let kept = self
            .symbols
            .iter()
            .filter(|symbol| wanted.contains_key(symbol.name.as_str()));
        self.retained.extend(kept.filter_map(|symbol| symbol.section));
    }

    /// Symbols that are referred to but not defined, sorted.
    pub fn undefined(&self) -> impl Iterator<Item = &str> {
        (self.symbols.iter())
            .filter(|symbol| symbol.section.is_none())
            .map(|symbol| symbol.name.as_str())
    }

    /// Bytes of all sections in a file, which is somewhat larger.
    pub fn bytes(&self) -> u64 {
        let sections = self.sections.iter().filter(|section| section.kind != SectionKind::Zero);
        sections.map(|section| section.contents.len()).sum()
    }

    /// Bytes of all sections of a kind.
    pub fn size(&self, kind: SectionKind) -> u64 {
        let sections = self.sections.iter().filter(|section| section.kind == kind);
        sections.map(|section| section.contents.len()).sum()
    }
}

/// The name of a function in one build: `kws_run_build_1a2b3c4d`.
pub fn tagged(symbol: &str, tag: &str) -> String {
    format!("{symbol}_build_{tag}")
}

/// A symbol that a relocation needs and that the plan lacks: [`plan`] leaves none.
fn missing(name: &str) -> Error {
    Error::internal(format!(
        "a relocation refers to {name}, which is no symbol of the object"
    ))
}

/// One file, with the names that its format adds.
enum Prepared<'a> {
    Elf(elf::Prepared<'a>),
    Coff(coff::Prepared<'a>),
    MachO(macho::Prepared<'a>),
}

/// Where everything goes in one file.
enum Layout<'a> {
    Elf(Box<elf::Layout<'a>>),
    Coff(coff::Layout<'a>),
    MachO(macho::Layout<'a>),
}

impl<'a> Prepared<'a> {
    /// Checks the format's limits, before anything is written.
    fn new(unit: Unit<'a>, target: &'a Target) -> Result<Self> {
        Ok(match target.format() {
            Format::Elf => Prepared::Elf(elf::Prepared::new(unit, target)),
            Format::Coff => Prepared::Coff(coff::Prepared::new(unit, target)?),
            Format::MachO => Prepared::MachO(macho::Prepared::new(unit, target)?),
        })
    }

    fn layout(&'a self, pipe: &'a mut dyn WritableBuffer) -> Result<Layout<'a>> {
        Ok(match self {
            Prepared::Elf(prepared) => Layout::Elf(Box::new(prepared.layout(pipe)?)),
            Prepared::Coff(prepared) => Layout::Coff(prepared.layout(pipe)?),
            Prepared::MachO(prepared) => Layout::MachO(prepared.layout()?),
        })
    }
}

impl Layout<'_> {
    fn size(&self) -> u64 {
        match self {
            Layout::Elf(layout) => layout.size(),
            Layout::Coff(layout) => layout.size(),
            Layout::MachO(layout) => layout.size(),
        }
    }

    fn write(self, output: &Output) -> Result<()> {
        match self {
            Layout::Elf(layout) => layout.write(output),
            Layout::Coff(layout) => layout.write(output),
            Layout::MachO(layout) => layout.write(output),
        }
    }
}

/// Exact size of the object file in bytes.
///
/// # Errors
/// As [`write`].
pub fn size(plan: &ObjectPlan, target: &Target) -> Result<u64> {
    let prepared = Prepared::new(Unit::whole(plan), target)?;
    let mut pipe = Pipe(None);
    Ok(prepared.layout(&mut pipe)?.size())
}

/// Writes the object in the target's format, streaming: memory does not grow with the sections.
///
/// # Errors
/// [`Code::Io`](crate::error::Code::Io) for failed reads and writes, [`Code::Limit`](crate::error::Code::Limit) for
/// what the format cannot express, before anything is written.
pub fn write(plan: &ObjectPlan, target: &Target, out: &mut dyn Write) -> Result<()> {
    let output = Output::new(out);
    let written = {
        let prepared = Prepared::new(Unit::whole(plan), target)?;
        let mut pipe = Pipe(Some(&output));
        let layout = prepared.layout(&mut pipe)?;
        layout.write(&output)
    };
    output.cause(written)
}
