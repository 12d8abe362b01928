//! DWARF → sections of the object and their relocations.

use super::refused;
use crate::codegen::Relocation;
use crate::data::{Bytes, Contents};
use crate::error::{Error, Result};
use crate::object::{ObjectPlan, Section, SectionKind, Symbol, Visibility};
use crate::target::{Arch, Format, Target};
use ::object::{RelocationFlags, elf, pe};
use gimli::write::{Address, DebugFrame, DwarfUnit, EndianVec, FrameTable, RelocateWriter, RelocationTarget, Sections};
use gimli::{LittleEndian, SectionId};
use std::collections::{BTreeMap, BTreeSet};

/// Symbols that debug information refers to.
pub(super) struct Addresses {
    /// By name: its section, if it has one.
    sections: BTreeMap<String, usize>,
    /// Symbols that another object of the library defines.
    elsewhere: BTreeSet<String>,
    /// What a number in gimli's addresses means.
    symbols: Vec<Base>,
    index: BTreeMap<Base, usize>,
}

/// What an address is relative to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Base {
    /// The start of a section.
    Section(usize),
    /// A symbol.
    Symbol(String),
}

impl Addresses {
    pub fn new(object: &ObjectPlan) -> Self {
        let defined = object.symbols.iter().filter(|symbol| symbol.offset == 0);
        Addresses {
            sections: defined
                .filter_map(|symbol| Some((symbol.name.clone(), symbol.section?)))
                .collect(),
            elsewhere: object.undefined().map(str::to_owned).collect(),
            symbols: Vec::new(),
            index: BTreeMap::new(),
        }
    }

    fn add(&mut self, target: Base) -> Address {
        let next = self.symbols.len();
        let symbol = *self.index.entry(target.clone()).or_insert(next);
        if symbol == next {
            self.symbols.push(target);
        }
        Address::Symbol { symbol, addend: 0 }
    }

    /// The first instruction of a function: the start of its section, because a function's symbol says "Thumb" in its
    /// lowest bit.
    ///
    /// # Errors
    /// Where the object has no such function.
    pub fn code(&mut self, symbol: &str) -> Result<Address> {
        let section = self.sections.get(symbol).copied();
        let section = section.ok_or_else(|| Error::internal(format!("the object has no function {symbol}")))?;
        Ok(self.add(Base::Section(section)))
    }

    /// A constant or the arena; `None` if the object has no use for it.
    pub fn data(&mut self, symbol: &str) -> Option<Address> {
        let known = self.sections.contains_key(symbol) || self.elsewhere.contains(symbol);
        known.then(|| self.add(Base::Symbol(symbol.to_owned())))
    }
}

/// `address + addend`.
pub(super) fn plus(address: Address, bytes: u64) -> Address {
    match address {
        Address::Constant(constant) => Address::Constant(constant + bytes),
        Address::Symbol { symbol, addend } => Address::Symbol {
            symbol,
            addend: addend + bytes as i64,
        },
    }
}

/// A section under construction.
#[derive(Clone, Debug)]
struct Writer {
    bytes: EndianVec<LittleEndian>,
    relocations: Vec<gimli::write::Relocation>,
}

impl RelocateWriter for Writer {
    type Writer = EndianVec<LittleEndian>;

    fn writer(&self) -> &Self::Writer {
        &self.bytes
    }

    fn writer_mut(&mut self) -> &mut Self::Writer {
        &mut self.bytes
    }

    fn relocate(&mut self, relocation: gimli::write::Relocation) {
        self.relocations.push(relocation);
    }
}

/// Adds everything to the object.
pub(super) fn add(
    object: &mut ObjectPlan,
    addresses: &Addresses,
    mut dwarf: DwarfUnit,
    frames: &FrameTable,
    target: &Target,
) -> Result<()> {
    let empty = Writer {
        bytes: EndianVec::new(LittleEndian),
        relocations: Vec::new(),
    };
    let mut sections = Sections::new(empty.clone());
    dwarf.write(&mut sections).map_err(refused)?;
    let mut frame = DebugFrame(empty);
    frames.write_debug_frame(&mut frame).map_err(refused)?;
    let mut written: Vec<(SectionId, Writer)> = Vec::new();
    let mut keep = |id, writer: &Writer| -> std::result::Result<(), ()> {
        if !writer.bytes.slice().is_empty() {
            written.push((id, writer.clone()));
        }
        Ok(())
    };
    // Neither can fail: `keep` does not.
    let _ = sections.for_each(&mut keep);
    let _ = keep(SectionId::DebugFrame, &frame.0);
    drop(sections);

    let first = object.sections.len();
    let places: BTreeMap<_, _> = written.iter().zip(first..).map(|((id, _), i)| (id.name(), i)).collect();
    let mut referred: BTreeMap<usize, String> = BTreeMap::new();
    for (id, writer) in written {
        let mut bytes = writer.bytes.into_vec();
        let mut relocations = Vec::with_capacity(writer.relocations.len());
        for relocation in writer.relocations {
            let (base, is_offset) = match relocation.target {
                RelocationTarget::Symbol(symbol) => (addresses.symbols[symbol].clone(), false),
                RelocationTarget::Section(section) => {
                    let place = places.get(section.name()).copied();
                    let place = place.ok_or_else(|| Error::internal("debug information refers to what it lacks"))?;
                    (Base::Section(place), true)
                }
            };
            let symbol = match base {
                Base::Symbol(name) => name,
                // Brackets are in no other symbol's name.
                Base::Section(index) => referred.entry(index).or_insert_with(|| format!("[{index}]")).clone(),
            };
            let implicit = target.format() == Format::Coff || target.arch() == Arch::Thumb2;
            if implicit {
                let size = usize::from(relocation.size);
                let place = bytes.get_mut(relocation.offset..relocation.offset + size);
                let place = place.ok_or_else(|| Error::internal("debug information is shorter than it says"))?;
                place.copy_from_slice(&relocation.addend.to_le_bytes()[..size]);
            }
            relocations.push(Relocation {
                offset: relocation.offset as u64,
                symbol,
                addend: if implicit { 0 } else { relocation.addend },
                flags: flags(target, relocation.size, is_offset)?,
            });
        }
        relocations.sort_by_key(|relocation| relocation.offset);
        object.sections.push(Section {
            name: id.name().to_owned(),
            kind: SectionKind::Debug,
            align: 1,
            contents: Contents::Bytes(Bytes::from_vec(bytes)),
            relocations,
        });
    }
    object
        .symbols
        .extend(referred.into_iter().map(|(section, name)| Symbol {
            name,
            section: Some(section),
            offset: 0,
            size: 0,
            function: false,
            visibility: Visibility::Section,
        }));
    Ok(())
}

/// The relocation for an address of `size` bytes or for an offset in another debug section.
fn flags(target: &Target, size: u8, is_offset: bool) -> Result<RelocationFlags> {
    if target.format() == Format::Coff {
        let typ = match (is_offset, size) {
            (true, 4) => pe::IMAGE_REL_AMD64_SECREL,
            (false, 8) => pe::IMAGE_REL_AMD64_ADDR64,
            _ => return Err(unexpected(size)),
        };
        return Ok(RelocationFlags::Coff { typ });
    }
    let r_type = match (target.arch(), size) {
        (Arch::X86_64, 8) => elf::R_X86_64_64,
        (Arch::X86_64, 4) => elf::R_X86_64_32,
        (Arch::Aarch64, 8) => elf::R_AARCH64_ABS64,
        (Arch::Aarch64, 4) => elf::R_AARCH64_ABS32,
        (Arch::Riscv64, 8) => elf::R_RISCV_64,
        (Arch::Riscv64 | Arch::Riscv32, 4) => elf::R_RISCV_32,
        (Arch::Thumb2, 4) => elf::R_ARM_ABS32,
        _ => return Err(unexpected(size)),
    };
    Ok(RelocationFlags::Elf { r_type })
}

fn unexpected(size: u8) -> Error {
    Error::internal(format!("debug information has an address of {size} bytes"))
}
