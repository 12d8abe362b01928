//! ELF relocatable objects.

use super::attributes::{self, compressed};
use super::stream::{Output, refused};
use super::unit::{Entry, Unit};
use super::{Section, SectionKind, Visibility, missing};
use crate::error::{Code, Error, Result};
use crate::target::{Arch, FAR_CONSTANTS, Target};
use ::object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, Sym, SymbolIndex, Writer};
use ::object::write::{StringId, WritableBuffer};
use ::object::{Endianness, RelocationFlags, elf};
use target_lexicon::OperatingSystem;

/// `e_machine`.
pub(super) fn machine(target: &Target) -> elf::Machine {
    match target.arch() {
        Arch::X86_64 => elf::EM_X86_64,
        Arch::Aarch64 => elf::EM_AARCH64,
        Arch::Riscv64 | Arch::Riscv32 => elf::EM_RISCV,
        Arch::Thumb2 => elf::EM_ARM,
    }
}

/// `e_flags`. On RISC-V every linker refuses to mix float ABIs, so they follow `--abi` even though the interface passes
/// only pointers and integers.
pub(super) fn flags(target: &Target) -> elf::FileFlags {
    match target.arch() {
        Arch::X86_64 | Arch::Aarch64 => return elf::FileFlags(0),
        Arch::Thumb2 => return elf::EF_ARM_EABI_VER5,
        Arch::Riscv64 | Arch::Riscv32 => {}
    }
    let float = match target.abi {
        Some("lp64" | "ilp32") => elf::EF_RISCV_FLOAT_ABI_SOFT,
        Some("lp64f" | "ilp32f") => elf::EF_RISCV_FLOAT_ABI_SINGLE,
        _ => elf::EF_RISCV_FLOAT_ABI_DOUBLE,
    };
    if compressed(target) {
        float | elf::EF_RISCV_RVC
    } else {
        float
    }
}

/// Whether pointers have 64 bits.
fn is_64(target: &Target) -> bool {
    target.machine().pointer_bytes == 8
}

/// Whether relocations carry their addend. Arm's tools expect it in the instruction.
pub(super) fn has_addend(target: &Target) -> bool {
    target.arch() != Arch::Thumb2
}

/// A file to be laid out.
pub(super) struct Prepared<'a> {
    unit: Unit<'a>,
    target: &'a Target,
    extra: Extra,
}

impl<'a> Prepared<'a> {
    pub fn new(unit: Unit<'a>, target: &'a Target) -> Self {
        let extra = Extra::new(&unit, target);
        Prepared { unit, target, extra }
    }

    pub fn layout(&'a self, pipe: &'a mut dyn WritableBuffer) -> Result<Layout<'a>> {
        Layout::new(self, pipe)
    }
}

/// What is written beside the plan's sections and symbols.
struct Extra {
    /// Name of each section's relocations, if it has any.
    relocations: Vec<Option<String>>,
    /// Build attributes, `.note.GNU-stack`.
    notes: Vec<(&'static str, elf::SectionType, Vec<u8>)>,
    /// `$x` or `$t` and `$d` at the start of sections: what a disassembler must read as code and as data.
    mapping: Vec<(&'static str, usize)>,
}

impl Extra {
    fn new(unit: &Unit, target: &Target) -> Self {
        let prefix = if has_addend(target) { ".rela" } else { ".rel" };
        let relocations = (unit.sections.iter())
            .map(|section| (!section.relocations.is_empty()).then(|| format!("{prefix}{}", section.name)))
            .collect();
        let mut notes = Vec::new();
        // Data alone fits every machine, and Arm's linkers would take what it says for a demand. RISC-V's compare the
        // flags in any case.
        if unit.has_code() || target.arch() != Arch::Thumb2 {
            notes.extend(attributes::section(target, unit.float));
        }
        // Without it GNU ld makes the stack of the whole program executable. On bare metal it would warn about every
        // other object instead.
        if target.triple.operating_system == OperatingSystem::Linux {
            notes.push((".note.GNU-stack", elf::SHT_PROGBITS, Vec::new()));
        }
        let code = match target.arch() {
            Arch::Aarch64 => Some("$x"),
            Arch::Thumb2 => Some("$t"),
            Arch::X86_64 | Arch::Riscv64 | Arch::Riscv32 => None,
        };
        let mapping = (unit.sections.iter().enumerate())
            .filter_map(|(i, section)| match section.kind {
                SectionKind::Text => Some((code?, i)),
                SectionKind::ReadOnlyData | SectionKind::RelocatedData => code.map(|_| ("$d", i)),
                SectionKind::Zero | SectionKind::Debug => None,
            })
            .collect();
        Extra {
            relocations,
            notes,
            mapping,
        }
    }
}

/// Where everything goes in the file.
pub(super) struct Layout<'a> {
    prepared: &'a Prepared<'a>,
    writer: Writer<'a>,
    sections: Vec<SectionLayout>,
    notes: Vec<(StringId, u64)>,
    mapping: Vec<(StringId, SectionIndex)>,
    symbols: Vec<(SymbolIndex, Option<StringId>)>,
    locals: u32,
}

struct SectionLayout {
    index: SectionIndex,
    name: StringId,
    offset: u64,
    relocations: Option<(StringId, u64)>,
}

/// Whether a section is nothing but strings with a zero behind each, which linkers may merge.
fn holds_strings(section: &Section) -> bool {
    matches!(section.name.as_str(), ".debug_str" | ".debug_line_str")
}

/// Alignment in the file: the linker needs none, readers that map the file like some.
fn file_align(section: &Section) -> u64 {
    section.align.min(4096)
}

/// GNU's flag of sections that `--gc-sections` keeps; it has a meaning only if the header says that the file is GNU's.
const SHF_GNU_RETAIN: elf::SectionFlags = elf::SectionFlags(1 << 21);

/// x86-64: the section may be farther than 2 GiB from the code. Linkers place such sections last.
const SHF_X86_64_LARGE: elf::SectionFlags = elf::SectionFlags(1 << 28);

impl<'a> Layout<'a> {
    fn new(prepared: &'a Prepared<'a>, pipe: &'a mut dyn WritableBuffer) -> Result<Self> {
        let Prepared { unit, target, extra } = prepared;
        let refused = |error| refused(&error);
        let wide = (unit.sections.iter()).find(|section| !is_64(target) && section.align > u64::from(u32::MAX));
        if let Some(section) = wide {
            let message = format!(
                "an ELF32 section is aligned to less than 4 GiB, {} needs {}",
                section.name, section.align
            );
            return Err(Error::new(Code::Limit, message));
        }
        let mut w = Writer::new(Endianness::Little, is_64(target), pipe);
        w.reserve_file_header();
        let mut sections = Vec::with_capacity(unit.sections.len());
        for (section, relocations) in unit.sections.iter().zip(&extra.relocations) {
            let index = w.reserve_section_index();
            sections.push(SectionLayout {
                index,
                name: w.add_section_name(section.name.as_bytes()),
                offset: match section.kind {
                    SectionKind::Zero => w.reserved_len(),
                    _ => w.reserve(section.contents.len(), file_align(section)),
                },
                relocations: relocations.as_ref().map(|name| {
                    w.reserve_section_index();
                    (w.add_section_name(name.as_bytes()), 0)
                }),
            });
        }
        let notes = (extra.notes.iter())
            .map(|(name, _, bytes)| {
                w.reserve_section_index();
                (w.add_section_name(name.as_bytes()), w.reserve(bytes.len() as u64, 1))
            })
            .collect();

        w.reserve_null_symbol_index();
        let mapping = (extra.mapping.iter())
            .map(|(name, section)| {
                let index = sections[*section].index;
                w.reserve_symbol_index(Some(index));
                (w.add_string(name.as_bytes()), index)
            })
            .collect();
        let mut symbols = vec![None; unit.symbols.len()];
        let mut locals = 0;
        for local in [true, false] {
            for (i, entry) in unit.symbols.iter().enumerate().filter(|(_, e)| e.is_local() == local) {
                let section = entry.section.map(|section| sections[section].index);
                let named = entry.symbol.visibility != Visibility::Section;
                let name = named.then(|| w.add_string(entry.symbol.name.as_bytes()));
                symbols[i] = Some((w.reserve_symbol_index(section), name));
            }
            if local {
                locals = w.symbol_count();
            }
        }
        w.reserve_symtab_section_index();
        w.reserve_symtab();
        if w.symtab_shndx_needed() {
            w.reserve_symtab_shndx_section_index();
        }
        w.reserve_symtab_shndx();
        w.reserve_strtab_section_index();
        w.reserve_strtab().map_err(refused)?;
        for (section, layout) in unit.sections.iter().zip(&mut sections) {
            if let Some((_, offset)) = &mut layout.relocations {
                *offset = w.reserve_relocations(section.relocations.len(), has_addend(target));
            }
        }
        w.reserve_shstrtab_section_index();
        w.reserve_shstrtab().map_err(refused)?;
        w.reserve_section_headers();
        if !is_64(target) && w.reserved_len() > u64::from(u32::MAX) {
            return Err(Error::new(Code::Limit, "an ELF32 object is smaller than 4 GiB"));
        }
        Ok(Layout {
            prepared,
            writer: w,
            sections,
            notes,
            mapping,
            symbols: symbols.into_iter().flatten().collect(),
            locals,
        })
    }

    pub fn size(&self) -> u64 {
        self.writer.reserved_len()
    }

    pub fn write(mut self, output: &Output) -> Result<()> {
        let Prepared { unit, target, extra } = self.prepared;
        let w = &mut self.writer;
        w.write_file_header(&FileHeader {
            os_abi: match unit.retained.contains(&true) {
                true => elf::ELFOSABI_GNU,
                false => elf::ELFOSABI_NONE,
            },
            e_type: elf::ET_REL,
            e_machine: machine(target),
            e_flags: flags(target),
            ..FileHeader::default()
        })
        .map_err(|error| refused(&error))?;
        for section in &unit.sections {
            if section.kind != SectionKind::Zero {
                w.write_align(file_align(section));
                output.copy(&section.contents, &section.name, |bytes| w.write(bytes))?;
            }
        }
        for (_, _, bytes) in &extra.notes {
            w.write(bytes);
        }
        self.write_symbols();
        self.write_relocations()?;
        self.writer.write_shstrtab();
        self.write_headers();
        if self.writer.len() != self.writer.reserved_len() {
            return Err(Error::internal("the object is not as long as it was laid out"));
        }
        Ok(())
    }

    fn write_symbols(&mut self) {
        let Prepared { unit, target, .. } = self.prepared;
        let w = &mut self.writer;
        w.write_null_symbol();
        for (name, section) in &self.mapping {
            let st_name = w.string_offset(Some(*name));
            w.write_symbol(&Sym {
                section: Some(section.0),
                st_name,
                st_info: elf::STB_LOCAL | elf::STT_NOTYPE,
                st_other: elf::STV_DEFAULT.into(),
                st_shndx: elf::SHN_UNDEF,
                st_value: 0,
                st_size: 0,
            });
        }
        for local in [true, false] {
            let symbols = unit.symbols.iter().zip(&self.symbols);
            for (Entry { symbol, section }, (_, name)) in symbols.filter(|(entry, _)| entry.is_local() == local) {
                let bind = match (symbol.visibility, section) {
                    (Visibility::Local | Visibility::Section, _) => elf::STB_LOCAL,
                    // What is weak is so where it is defined: an undefined weak symbol loads no member.
                    (Visibility::Weak, Some(_)) => elf::STB_WEAK,
                    _ => elf::STB_GLOBAL,
                };
                let kind = match section {
                    Some(_) if symbol.visibility == Visibility::Section => elf::STT_SECTION,
                    Some(_) if symbol.function => elf::STT_FUNC,
                    Some(_) if symbol.size != 0 => elf::STT_OBJECT,
                    _ => elf::STT_NOTYPE,
                };
                let visibility = match symbol.visibility {
                    Visibility::Hidden => elf::STV_HIDDEN,
                    _ => elf::STV_DEFAULT,
                };
                let st_name = w.string_offset(*name);
                w.write_symbol(&Sym {
                    section: section.map(|section| self.sections[section].index.0),
                    st_name,
                    st_info: bind | kind,
                    st_other: visibility.into(),
                    st_shndx: elf::SHN_UNDEF,
                    // Bit 0 says that a function is Thumb code.
                    st_value: match section {
                        Some(_) => symbol.offset | u64::from(kind == elf::STT_FUNC && target.arch() == Arch::Thumb2),
                        None => 0,
                    },
                    st_size: section.map_or(0, |_| symbol.size),
                });
            }
        }
        w.write_symtab_shndx();
        w.write_strtab();
    }

    fn write_relocations(&mut self) -> Result<()> {
        let Prepared { unit, target, .. } = self.prepared;
        let index = unit.index();
        for section in unit.sections.iter().filter(|section| !section.relocations.is_empty()) {
            self.writer.write_align_relocation();
            for relocation in &section.relocations {
                let RelocationFlags::Elf { r_type } = relocation.flags else {
                    return Err(Error::internal(format!(
                        "{} has a relocation of another format",
                        section.name
                    )));
                };
                let symbol = *index
                    .get(relocation.symbol.as_str())
                    .ok_or_else(|| missing(&relocation.symbol))?;
                self.writer.write_relocation(
                    has_addend(target),
                    &Rel {
                        r_offset: relocation.offset,
                        r_sym: self.symbols[symbol].0.0,
                        r_type,
                        r_addend: relocation.addend,
                    },
                );
            }
        }
        Ok(())
    }

    fn write_headers(&mut self) {
        let Prepared { unit, target, extra } = self.prepared;
        let w = &mut self.writer;
        w.write_null_section_header();
        let symtab = w.symtab_index();
        for ((section, retained), layout) in unit.sections.iter().zip(&unit.retained).zip(&self.sections) {
            let (sh_type, mut sh_flags) = match section.kind {
                SectionKind::Text => (elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_EXECINSTR),
                SectionKind::ReadOnlyData => (elf::SHT_PROGBITS, elf::SHF_ALLOC),
                SectionKind::RelocatedData => (elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_WRITE),
                SectionKind::Zero => (elf::SHT_NOBITS, elf::SHF_ALLOC | elf::SHF_WRITE),
                // Linkers put what merges with what merges: a program has one section of each name.
                SectionKind::Debug if holds_strings(section) => (elf::SHT_PROGBITS, elf::SHF_MERGE | elf::SHF_STRINGS),
                SectionKind::Debug => (elf::SHT_PROGBITS, elf::SectionFlags(0)),
            };
            if *retained {
                sh_flags |= SHF_GNU_RETAIN;
            }
            if target.arch() == Arch::X86_64 && section.name.starts_with(FAR_CONSTANTS) {
                sh_flags |= SHF_X86_64_LARGE;
            }
            let sh_name = w.section_name_offset(Some(layout.name));
            w.write_section_header(&SectionHeader {
                sh_name,
                sh_type,
                sh_flags,
                sh_addr: 0,
                sh_offset: layout.offset,
                sh_size: section.contents.len(),
                sh_link: 0,
                sh_info: 0,
                sh_addralign: section.align,
                sh_entsize: u64::from(section.kind == SectionKind::Debug && holds_strings(section)),
            });
            if let Some((name, offset)) = layout.relocations {
                let count = section.relocations.len();
                w.write_relocation_section_header(name, layout.index, symtab, offset, count, has_addend(target));
            }
        }
        for ((_, sh_type, bytes), (name, offset)) in extra.notes.iter().zip(&self.notes) {
            let sh_name = w.section_name_offset(Some(*name));
            w.write_section_header(&SectionHeader {
                sh_name,
                sh_type: *sh_type,
                sh_flags: elf::SectionFlags(0),
                sh_addr: 0,
                sh_offset: *offset,
                sh_size: bytes.len() as u64,
                sh_link: 0,
                sh_info: 0,
                sh_addralign: 1,
                sh_entsize: 0,
            });
        }
        w.write_symtab_section_header(self.locals);
        w.write_symtab_shndx_section_header();
        w.write_strtab_section_header();
        w.write_shstrtab_section_header();
    }
}
