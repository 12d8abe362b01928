//! COFF relocatable objects for x86-64.
//!
//! Every section is a COMDAT of its own (no duplicates), because that is what lld-link and MSVC's linker can drop when
//! nothing refers to it. Grouped names (`.rdata$…`) end up in `.text`, `.rdata` and `.bss` of the program.

use super::stream::{Output, refused};
use super::unit::{Entry, Unit};
use super::{Section, SectionKind, Symbol, Visibility, missing};
use crate::error::{Code, Error, Result};
use crate::target::Target;
use ::object::write::WritableBuffer;
use ::object::write::coff::{AuxSymbolSection, FileHeader, Name, Relocation, SectionHeader, Writer};
use ::object::{RelocationFlags, pe};
use target_lexicon::Environment;

/// A file to be laid out.
pub(super) struct Prepared<'a> {
    unit: Unit<'a>,
    names: Vec<String>,
    /// `.drectve`: what the linker is asked to keep.
    directives: Vec<u8>,
    /// Symbols that the first exported function refers to behind its code, so that they stay with it: four bytes each.
    kept: Vec<&'a str>,
    /// The section of that function.
    holder: Option<usize>,
}

impl<'a> Prepared<'a> {
    /// # Errors
    /// [`Code::Limit`] for what COFF cannot express: 4 GiB, 65,279 sections, alignment beyond 8192.
    pub fn new(unit: Unit<'a>, target: &Target) -> Result<Self> {
        let (mut directives, mut kept) = (Vec::new(), Vec::new());
        let retained = unit.symbols.iter().filter(|entry| {
            !entry.is_local() && entry.section.is_some_and(|section| unit.retained[section]) && entry.symbol.offset == 0
        });
        for entry in retained {
            // GNU ld warns about directives of Microsoft's linker, and has none of its own.
            if target.triple.environment == Environment::Gnu {
                kept.push(entry.symbol.name.as_str());
            } else {
                directives.extend_from_slice(format!(" /INCLUDE:{}", entry.symbol.name).as_bytes());
            }
        }
        check(&unit, usize::from(!directives.is_empty()))?;
        let exported = |entry: &&Entry| entry.symbol.function && entry.symbol.visibility == Visibility::Exported;
        let holder = unit.symbols.iter().filter(exported).find_map(|entry| entry.section);
        Ok(Prepared {
            names: section_names(&unit),
            unit,
            directives,
            kept,
            holder,
        })
    }

    pub fn layout(&'a self, pipe: &'a mut dyn WritableBuffer) -> Result<Layout<'a>> {
        Layout::new(self, pipe)
    }

    /// What a section refers to behind its contents.
    fn kept(&self, section: usize) -> &[&'a str] {
        if self.holder == Some(section) { &self.kept } else { &[] }
    }

    /// Relocations of a section, those of [`Prepared::kept`] included.
    fn relocations(&self, section: usize) -> usize {
        self.unit.sections[section].relocations.len() + self.kept(section).len()
    }

    /// Bytes of a section, with those of [`Prepared::kept`], which are aligned.
    fn size(&self, section: usize) -> u64 {
        let size = self.unit.sections[section].contents.len();
        match self.kept(section).len() as u64 {
            0 => size,
            kept => size.next_multiple_of(4) + 4 * kept,
        }
    }
}

/// Section numbers from 0xff00 on are reserved.
const MAX_SECTIONS: usize = 0xfeff;
const MAX_ALIGN: u64 = 8192;

/// The format's own limits: beyond them its fields wrap silently.
fn check(plan: &Unit, more: usize) -> Result<()> {
    let limit =
        |message: String| Err(Error::new(Code::Limit, message).help("build for an ELF target, or split the model"));
    let sections = plan.sections.len() + more;
    if sections > MAX_SECTIONS {
        return limit(format!(
            "a COFF object holds at most {MAX_SECTIONS} sections, this one needs {sections}"
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
    let symbols = plan
        .symbols
        .iter()
        .map(|entry| 18 + 2 * (entry.symbol.name.len() as u64 + 12));
    let total: u64 = 200 + sections.sum::<u64>() + symbols.sum::<u64>();
    if total > u64::from(u32::MAX) {
        return limit(format!(
            "a COFF object is smaller than 4 GiB, this one needs {total} bytes"
        ));
    }
    Ok(())
}

/// `.rodata.kws.w` → `.rdata$kws.w`; names of other shapes stay.
fn section_names(plan: &Unit) -> Vec<String> {
    let group = |section: &&Section| {
        for (prefix, group) in [(".text.", ".text$"), (".rodata.", ".rdata$"), (".bss.", ".bss$")] {
            if let Some(rest) = section.name.strip_prefix(prefix) {
                return format!("{group}{rest}");
            }
        }
        section.name.clone()
    };
    plan.sections.iter().map(group).collect()
}

pub(super) struct Layout<'a> {
    prepared: &'a Prepared<'a>,
    writer: Writer<'a>,
    sections: Vec<SectionLayout>,
    directives: Option<(Name, u32)>,
    /// Symbols in file order: index in the unit and name. Those of a section follow its section symbol.
    symbols: Vec<(usize, Name)>,
    /// Index in the file by index in the unit.
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
    fn new(prepared: &'a Prepared<'a>, pipe: &'a mut dyn WritableBuffer) -> Result<Self> {
        let Prepared { unit, names, .. } = prepared;
        let mut w = Writer::new(pipe);
        w.reserve_file_header();
        let directives = !prepared.directives.is_empty();
        w.reserve_section_headers((unit.sections.len() + usize::from(directives)) as u16);
        let mut indices = vec![0; unit.symbols.len()];
        let mut symbols = Vec::with_capacity(unit.symbols.len());
        let mut sections = Vec::with_capacity(unit.sections.len());
        for (i, ((section, name), members)) in unit.sections.iter().zip(names).zip(unit.members()).enumerate() {
            let data = match section.kind {
                SectionKind::Zero => 0,
                // Within 4 GiB, so within usize on every host that can build.
                _ => w.reserve_section(prepared.size(i) as usize),
            };
            let relocations = w.reserve_relocations(prepared.relocations(i));
            let own = w.reserve_symbol_index();
            w.reserve_aux_section();
            let start = symbols.len();
            for i in members {
                if unit.symbols[i].symbol.visibility == Visibility::Section {
                    indices[i] = own;
                    continue;
                }
                indices[i] = w.reserve_symbol_index();
                symbols.push((i, w.add_name(unit.symbols[i].symbol.name.as_bytes())));
            }
            sections.push(SectionLayout {
                name: w.add_name(name.as_bytes()),
                data,
                relocations,
                symbols: start..symbols.len(),
            });
        }
        let directives = directives.then(|| (w.add_name(b".drectve"), w.reserve_section(prepared.directives.len())));
        for (i, entry) in unit
            .symbols
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.section.is_none())
        {
            indices[i] = w.reserve_symbol_index();
            symbols.push((i, w.add_name(entry.symbol.name.as_bytes())));
        }
        w.reserve_symtab_strtab().map_err(|error| refused(&error))?;
        Ok(Layout {
            prepared,
            writer: w,
            sections,
            directives,
            symbols,
            indices,
        })
    }

    pub fn size(&self) -> u64 {
        self.writer.reserved_len()
    }

    pub fn write(mut self, output: &Output) -> Result<()> {
        let prepared = self.prepared;
        let unit = &prepared.unit;
        let w = &mut self.writer;
        w.write_file_header(FileHeader {
            machine: pe::IMAGE_FILE_MACHINE_AMD64,
            time_date_stamp: 0,
            ..FileHeader::default()
        })
        .map_err(|error| refused(&error))?;
        for (i, (section, layout)) in unit.sections.iter().zip(&self.sections).enumerate() {
            let relocations = prepared.relocations(i);
            w.write_section_header(SectionHeader {
                name: layout.name,
                size_of_raw_data: prepared.size(i) as u32,
                pointer_to_raw_data: layout.data,
                pointer_to_relocations: layout.relocations,
                pointer_to_linenumbers: 0,
                number_of_relocations: relocations as u32,
                number_of_linenumbers: 0,
                characteristics: characteristics(section, relocations),
            });
        }
        if let Some((name, data)) = self.directives {
            w.write_section_header(SectionHeader {
                name,
                size_of_raw_data: prepared.directives.len() as u32,
                pointer_to_raw_data: data,
                pointer_to_relocations: 0,
                pointer_to_linenumbers: 0,
                number_of_relocations: 0,
                number_of_linenumbers: 0,
                characteristics: pe::IMAGE_SCN_LNK_INFO | pe::IMAGE_SCN_LNK_REMOVE | pe::IMAGE_SCN_ALIGN_1BYTES,
            });
        }
        let index = unit.index();
        let symbol = |name: &str| index.get(name).map(|i| self.indices[*i]).ok_or_else(|| missing(name));
        for (i, section) in unit.sections.iter().enumerate() {
            if section.kind != SectionKind::Zero && !section.contents.is_empty() {
                w.write_section_align();
                output.copy(&section.contents, &section.name, |bytes| w.write(bytes))?;
                let more = prepared.size(i) - section.contents.len();
                w.write(&vec![0; more as usize]);
            }
            if prepared.relocations(i) == 0 {
                continue;
            }
            w.write_relocations_count(prepared.relocations(i));
            for relocation in &section.relocations {
                let RelocationFlags::Coff { typ } = relocation.flags else {
                    return Err(Error::internal(format!(
                        "{} has a relocation of another format",
                        section.name
                    )));
                };
                w.write_relocation(Relocation {
                    virtual_address: relocation.offset as u32,
                    symbol: symbol(&relocation.symbol)?,
                    typ,
                });
            }
            let first = prepared.size(i) - 4 * prepared.kept(i).len() as u64;
            for (k, name) in prepared.kept(i).iter().enumerate() {
                w.write_relocation(Relocation {
                    virtual_address: first as u32 + 4 * k as u32,
                    symbol: symbol(name)?,
                    typ: pe::IMAGE_REL_AMD64_ADDR32NB,
                });
            }
        }
        if !prepared.directives.is_empty() {
            w.write_section_align();
            w.write(&prepared.directives);
        }
        self.write_symbols();
        self.writer.write_strtab();
        if self.writer.len() != self.writer.reserved_len() {
            return Err(Error::internal("the object is not as long as it was laid out"));
        }
        Ok(())
    }

    fn write_symbols(&mut self) {
        let prepared = self.prepared;
        let unit = &prepared.unit;
        let w = &mut self.writer;
        let defined = self.sections.last().map_or(0, |last| last.symbols.end);
        for (i, (section, layout)) in unit.sections.iter().zip(&self.sections).enumerate() {
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
            // Of equal definitions in several libraries the linker keeps one.
            let held = &self.symbols[layout.symbols.clone()];
            let weak = held
                .iter()
                .any(|(symbol, _)| unit.symbols[*symbol].symbol.visibility == Visibility::Weak);
            w.write_aux_section(AuxSymbolSection {
                length: prepared.size(i) as u32,
                number_of_relocations: prepared.relocations(i) as u32,
                number_of_linenumbers: 0,
                check_sum: 0,
                number: if is_comdat(section) { i as u32 + 1 } else { 0 },
                selection: match (is_comdat(section), weak) {
                    (false, _) => pe::ComdatSelection(0),
                    (true, false) => pe::IMAGE_COMDAT_SELECT_NODUPLICATES,
                    (true, true) => pe::IMAGE_COMDAT_SELECT_ANY,
                },
            });
            for (symbol, name) in &self.symbols[layout.symbols.clone()] {
                write_symbol(w, unit.symbols[*symbol].symbol, *name, number);
            }
        }
        for (symbol, name) in &self.symbols[defined..] {
            write_symbol(w, unit.symbols[*symbol].symbol, *name, pe::SymbolSection(0));
        }
    }
}

fn write_symbol(w: &mut Writer, symbol: &Symbol, name: Name, section_number: pe::SymbolSection) {
    w.write_symbol(::object::write::coff::Symbol {
        name,
        value: if section_number.0 == 0 { 0 } else { symbol.offset as u32 },
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

fn characteristics(section: &Section, relocations: usize) -> pe::SectionFlags {
    let kind = match section.kind {
        SectionKind::Text => pe::IMAGE_SCN_CNT_CODE | pe::IMAGE_SCN_MEM_EXECUTE | pe::IMAGE_SCN_MEM_READ,
        SectionKind::ReadOnlyData | SectionKind::RelocatedData => {
            pe::IMAGE_SCN_CNT_INITIALIZED_DATA | pe::IMAGE_SCN_MEM_READ
        }
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
    let overflow = if relocations > 0xffff {
        pe::IMAGE_SCN_LNK_NRELOC_OVFL
    } else {
        pe::SectionFlags(0)
    };
    // IMAGE_SCN_ALIGN_1BYTES is 1 << 20, every doubling adds as much.
    let align = pe::SectionFlags((section.align.max(1).trailing_zeros() + 1) << 20);
    kind | comdat | overflow | align
}
