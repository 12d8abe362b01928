//! COFF relocatable objects for x86-64.
//!
//! Every section is a COMDAT of its own (no duplicates), because that is what lld-link and MSVC's linker can drop when
//! nothing refers to it. Grouped names (`.rdata$…`) end up in `.text`, `.rdata` and `.bss` of the program.

use super::stream::{Nothing, copy, finish, refused, stream};
use super::{ObjectPlan, Section, SectionKind, Symbol, Visibility, missing};
use crate::error::{Code, Error, Result};
use ::object::write::WritableBuffer;
use ::object::write::coff::{AuxSymbolSection, FileHeader, Name, Relocation, SectionHeader, Writer};
use ::object::{RelocationFlags, pe};
use std::io::Write;

/// Exact size of the file in bytes.
///
/// # Errors
/// As [`write`].
pub fn size(plan: &ObjectPlan) -> Result<u64> {
    check(plan)?;
    let names = section_names(plan);
    let mut nothing = Nothing;
    let layout = Layout::new(plan, &names, &mut nothing)?;
    Ok(layout.writer.reserved_len())
}

/// Writes the object.
///
/// # Errors
/// [`Code::Limit`] for what COFF cannot express (4 GiB, 65 279 sections, alignment beyond 8192), checked before
/// anything is written; [`Code::Io`] for failed reads and writes.
pub fn write(plan: &ObjectPlan, out: &mut dyn Write) -> Result<()> {
    check(plan)?;
    let names = section_names(plan);
    let mut stream = stream(out);
    Layout::new(plan, &names, &mut stream)?.write(plan)?;
    finish(stream)
}

/// Section numbers from 0xff00 on are reserved.
const MAX_SECTIONS: usize = 0xfeff;
const MAX_ALIGN: u64 = 8192;

/// The format's own limits: beyond them its fields wrap silently.
fn check(plan: &ObjectPlan) -> Result<()> {
    let limit =
        |message: String| Err(Error::new(Code::Limit, message).help("build for an ELF target, or split the model"));
    if plan.sections.len() > MAX_SECTIONS {
        return limit(format!(
            "a COFF object holds at most {MAX_SECTIONS} sections, this one needs {}",
            plan.sections.len()
        ));
    }
    for section in &plan.sections {
        if section.align > MAX_ALIGN {
            return limit(format!(
                "a COFF section is aligned to at most {MAX_ALIGN} bytes, {} needs {}",
                section.name, section.align
            ));
        }
        if section.contents.len() > u64::from(u32::MAX) {
            return limit(format!(
                "a COFF section is smaller than 4 GiB, {} has {} bytes",
                section.name,
                section.contents.len()
            ));
        }
    }
    // An upper bound of the file's size: bytes with padding, headers, relocations, symbols with their auxiliary
    // records, and names.
    let sections = (plan.sections.iter()).map(|section| {
        let bytes = if section.kind == SectionKind::Zero {
            0
        } else {
            section.contents.len()
        };
        bytes + 4 + 40 + 10 * (section.relocations.len() as u64 + 1) + 36 + section.name.len() as u64 + 1
    });
    let symbols = plan.symbols.iter().map(|symbol| 18 + symbol.name.len() as u64 + 1);
    let total: u64 = 24 + sections.sum::<u64>() + symbols.sum::<u64>();
    if total > u64::from(u32::MAX) {
        return limit(format!(
            "a COFF object is smaller than 4 GiB, this one needs {total} bytes"
        ));
    }
    Ok(())
}

/// `.rodata.kws.w` → `.rdata$kws.w`; names of other shapes stay.
fn section_names(plan: &ObjectPlan) -> Vec<String> {
    let group = |section: &Section| {
        for (prefix, group) in [(".text.", ".text$"), (".rodata.", ".rdata$"), (".bss.", ".bss$")] {
            if let Some(rest) = section.name.strip_prefix(prefix) {
                return format!("{group}{rest}");
            }
        }
        section.name.clone()
    };
    plan.sections.iter().map(group).collect()
}

struct Layout<'a> {
    writer: Writer<'a>,
    sections: Vec<SectionLayout>,
    /// Symbols in file order: index in the plan and name. Those of a section follow its section symbol.
    symbols: Vec<(usize, Name)>,
    /// Index in the file by index in the plan.
    indices: Vec<u32>,
}

struct SectionLayout {
    name: Name,
    data: u32,
    relocations: u32,
    /// Range in `symbols`.
    symbols: std::ops::Range<usize>,
}

impl<'a> Layout<'a> {
    fn new(plan: &'a ObjectPlan, names: &'a [String], buffer: &'a mut dyn WritableBuffer) -> Result<Self> {
        let mut w = Writer::new(buffer);
        w.reserve_file_header();
        w.reserve_section_headers(plan.sections.len() as u16);
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); plan.sections.len()];
        let mut undefined = Vec::new();
        for (i, symbol) in plan.symbols.iter().enumerate() {
            match symbol.section {
                Some(section) => members[section].push(i),
                None => undefined.push(i),
            }
        }
        let mut indices = vec![0; plan.symbols.len()];
        let mut symbols = Vec::with_capacity(plan.symbols.len());
        let mut sections = Vec::with_capacity(plan.sections.len());
        for ((section, name), members) in plan.sections.iter().zip(names).zip(members) {
            let data = match section.kind {
                SectionKind::Zero => 0,
                // Within 4 GiB, so within usize on every host that can build.
                _ => w.reserve_section(section.contents.len() as usize),
            };
            let relocations = w.reserve_relocations(section.relocations.len());
            let own = w.reserve_symbol_index();
            w.reserve_aux_section();
            let start = symbols.len();
            for i in members {
                if plan.symbols[i].visibility == Visibility::Section {
                    indices[i] = own;
                    continue;
                }
                indices[i] = w.reserve_symbol_index();
                symbols.push((i, w.add_name(plan.symbols[i].name.as_bytes())));
            }
            sections.push(SectionLayout {
                name: w.add_name(name.as_bytes()),
                data,
                relocations,
                symbols: start..symbols.len(),
            });
        }
        for i in undefined {
            indices[i] = w.reserve_symbol_index();
            symbols.push((i, w.add_name(plan.symbols[i].name.as_bytes())));
        }
        w.reserve_symtab_strtab().map_err(|error| refused(&error))?;
        Ok(Layout {
            writer: w,
            sections,
            symbols,
            indices,
        })
    }

    fn write(mut self, plan: &ObjectPlan) -> Result<()> {
        let w = &mut self.writer;
        w.write_file_header(FileHeader {
            machine: pe::IMAGE_FILE_MACHINE_AMD64,
            time_date_stamp: 0,
            ..FileHeader::default()
        })
        .map_err(|error| refused(&error))?;
        for (section, layout) in plan.sections.iter().zip(&self.sections) {
            w.write_section_header(SectionHeader {
                name: layout.name,
                size_of_raw_data: section.contents.len() as u32,
                pointer_to_raw_data: layout.data,
                pointer_to_relocations: layout.relocations,
                pointer_to_linenumbers: 0,
                number_of_relocations: section.relocations.len() as u32,
                number_of_linenumbers: 0,
                characteristics: characteristics(section),
            });
        }
        let index = plan.index();
        for section in &plan.sections {
            if section.kind != SectionKind::Zero && !section.contents.is_empty() {
                w.write_section_align();
                copy(&section.contents, &section.name, |bytes| w.write(bytes))?;
            }
            if section.relocations.is_empty() {
                continue;
            }
            w.write_relocations_count(section.relocations.len());
            for relocation in &section.relocations {
                let RelocationFlags::Coff { typ } = relocation.flags else {
                    return Err(Error::internal(format!(
                        "{} has a relocation of another format",
                        section.name
                    )));
                };
                let symbol = *index
                    .get(relocation.symbol.as_str())
                    .ok_or_else(|| missing(&relocation.symbol))?;
                w.write_relocation(Relocation {
                    virtual_address: relocation.offset as u32,
                    symbol: self.indices[symbol],
                    typ,
                });
            }
        }
        self.write_symbols(plan);
        self.writer.write_strtab();
        if self.writer.len() != self.writer.reserved_len() {
            return Err(Error::internal("the object is not as long as it was laid out"));
        }
        Ok(())
    }

    fn write_symbols(&mut self, plan: &ObjectPlan) {
        let w = &mut self.writer;
        let defined = self.sections.last().map_or(0, |last| last.symbols.end);
        for (i, (section, layout)) in plan.sections.iter().zip(&self.sections).enumerate() {
            // Numbers start at 1.
            let number = pe::SymbolSection(i as i32 + 1);
            w.write_symbol(::object::write::coff::Symbol {
                name: layout.name,
                value: 0,
                section_number: number,
                typ: pe::SymbolType(0),
                storage_class: pe::IMAGE_SYM_CLASS_STATIC,
                number_of_aux_symbols: 1,
            });
            w.write_aux_section(AuxSymbolSection {
                length: section.contents.len() as u32,
                number_of_relocations: section.relocations.len() as u32,
                number_of_linenumbers: 0,
                check_sum: 0,
                number: if is_comdat(section) { i as u32 + 1 } else { 0 },
                selection: if is_comdat(section) {
                    pe::IMAGE_COMDAT_SELECT_NODUPLICATES
                } else {
                    pe::ComdatSelection(0)
                },
            });
            for (symbol, name) in &self.symbols[layout.symbols.clone()] {
                write_symbol(w, &plan.symbols[*symbol], *name, number);
            }
        }
        for (symbol, name) in &self.symbols[defined..] {
            write_symbol(w, &plan.symbols[*symbol], *name, pe::SymbolSection(0));
        }
    }
}

fn write_symbol(w: &mut Writer, symbol: &Symbol, name: Name, section_number: pe::SymbolSection) {
    w.write_symbol(::object::write::coff::Symbol {
        name,
        value: symbol.offset as u32,
        section_number,
        // "Function" in the derived type; the base type is null.
        typ: pe::SymbolType(if symbol.function { 0x20 } else { 0 }),
        storage_class: match symbol.visibility {
            Visibility::Local => pe::IMAGE_SYM_CLASS_STATIC,
            _ => pe::IMAGE_SYM_CLASS_EXTERNAL,
        },
        number_of_aux_symbols: 0,
    });
}

/// Debug information is not dropped for itself.
fn is_comdat(section: &Section) -> bool {
    section.kind != SectionKind::Debug
}

fn characteristics(section: &Section) -> pe::SectionFlags {
    let kind = match section.kind {
        SectionKind::Text => pe::IMAGE_SCN_CNT_CODE | pe::IMAGE_SCN_MEM_EXECUTE | pe::IMAGE_SCN_MEM_READ,
        SectionKind::ReadOnlyData => pe::IMAGE_SCN_CNT_INITIALIZED_DATA | pe::IMAGE_SCN_MEM_READ,
        SectionKind::Zero => pe::IMAGE_SCN_CNT_UNINITIALIZED_DATA | pe::IMAGE_SCN_MEM_READ | pe::IMAGE_SCN_MEM_WRITE,
        SectionKind::Debug => {
            pe::IMAGE_SCN_CNT_INITIALIZED_DATA | pe::IMAGE_SCN_MEM_READ | pe::IMAGE_SCN_MEM_DISCARDABLE
        }
    };
    let comdat = if is_comdat(section) {
        pe::IMAGE_SCN_LNK_COMDAT
    } else {
        pe::SectionFlags(0)
    };
    let overflow = if section.relocations.len() > 0xffff {
        pe::IMAGE_SCN_LNK_NRELOC_OVFL
    } else {
        pe::SectionFlags(0)
    };
    // IMAGE_SCN_ALIGN_1BYTES is 1 << 20, every doubling adds as much.
    let align = pe::SectionFlags((section.align.max(1).trailing_zeros() + 1) << 20);
    kind | comdat | overflow | align
}
