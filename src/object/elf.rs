//! ELF relocatable objects.

use super::attributes::{self, compressed};
use super::stream::{Nothing, copy, finish, refused, stream};
use super::{ObjectPlan, Section, SectionKind, Symbol, Visibility, missing};
use crate::error::{Code, Error, Result};
use crate::target::{Arch, Target};
use ::object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, Sym, SymbolIndex, Writer};
use ::object::write::{StringId, WritableBuffer};
use ::object::{Endianness, RelocationFlags, elf};
use std::io::Write;
use target_lexicon::OperatingSystem;

/// Exact size of the file in bytes.
///
/// # Errors
/// As [`write`].
pub fn size(plan: &ObjectPlan, target: &Target) -> Result<u64> {
    let extra = Extra::new(plan, target);
    let mut nothing = Nothing;
    Ok(Layout::new(plan, &extra, target, &mut nothing)?.writer.reserved_len())
}

/// Writes the object.
///
/// # Errors
/// [`Code::Io`](crate::error::Code::Io) for failed reads and writes.
pub fn write(plan: &ObjectPlan, target: &Target, out: &mut dyn Write) -> Result<()> {
    let extra = Extra::new(plan, target);
    let mut stream = stream(out);
    Layout::new(plan, &extra, target, &mut stream)?.write(plan, &extra, target)?;
    finish(stream)
}

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
fn has_addend(target: &Target) -> bool {
    target.arch() != Arch::Thumb2
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
    fn new(plan: &ObjectPlan, target: &Target) -> Self {
        let prefix = if has_addend(target) { ".rela" } else { ".rel" };
        let relocations = (plan.sections.iter())
            .map(|section| (!section.relocations.is_empty()).then(|| format!("{prefix}{}", section.name)))
            .collect();
        let mut notes = Vec::new();
        // Data alone fits every machine, and Arm's linkers would take what it says for a demand. RISC-V's compare the
        // flags in any case.
        let text = plan.sections.iter().any(|section| section.kind == SectionKind::Text);
        if text || target.arch() != Arch::Thumb2 {
            notes.extend(attributes::section(target, plan.float));
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
        let mapping = (plan.sections.iter().enumerate())
            .filter_map(|(i, section)| match section.kind {
                SectionKind::Text => Some((code?, i)),
                SectionKind::ReadOnlyData => code.map(|_| ("$d", i)),
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
struct Layout<'a> {
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

/// Alignment in the file: the linker needs none, readers that map the file like some.
fn file_align(section: &Section) -> u64 {
    section.align.min(4096)
}

fn is_local(symbol: &Symbol) -> bool {
    matches!(symbol.visibility, Visibility::Local | Visibility::Section)
}

impl<'a> Layout<'a> {
    fn new(
        plan: &'a ObjectPlan,
        extra: &'a Extra,
        target: &Target,
        buffer: &'a mut dyn WritableBuffer,
    ) -> Result<Self> {
        let refused = |error| refused(&error);
        let mut w = Writer::new(Endianness::Little, is_64(target), buffer);
        w.reserve_file_header();
        let mut sections = Vec::with_capacity(plan.sections.len());
        for (section, relocations) in plan.sections.iter().zip(&extra.relocations) {
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
        let mut symbols = vec![None; plan.symbols.len()];
        let mut locals = 0;
        for local in [true, false] {
            for (i, symbol) in plan.symbols.iter().enumerate().filter(|(_, s)| is_local(s) == local) {
                let section = symbol.section.map(|section| sections[section].index);
                let named = symbol.visibility != Visibility::Section;
                let name = named.then(|| w.add_string(symbol.name.as_bytes()));
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
        for (section, layout) in plan.sections.iter().zip(&mut sections) {
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
            writer: w,
            sections,
            notes,
            mapping,
            symbols: symbols.into_iter().flatten().collect(),
            locals,
        })
    }

    fn write(mut self, plan: &ObjectPlan, extra: &Extra, target: &Target) -> Result<()> {
        let w = &mut self.writer;
        w.write_file_header(&FileHeader {
            e_type: elf::ET_REL,
            e_machine: machine(target),
            e_flags: flags(target),
            ..FileHeader::default()
        })
        .map_err(|error| refused(&error))?;
        for section in &plan.sections {
            if section.kind != SectionKind::Zero {
                w.write_align(file_align(section));
                copy(&section.contents, &section.name, |bytes| w.write(bytes))?;
            }
        }
        for (_, _, bytes) in &extra.notes {
            w.write(bytes);
        }
        self.write_symbols(plan, target);
        self.write_relocations(plan, target)?;
        self.writer.write_shstrtab();
        self.write_headers(plan, extra, target);
        if self.writer.len() != self.writer.reserved_len() {
            return Err(Error::internal("the object is not as long as it was laid out"));
        }
        Ok(())
    }

    fn write_symbols(&mut self, plan: &ObjectPlan, target: &Target) {
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
            let symbols = plan.symbols.iter().zip(&self.symbols);
            for (symbol, (_, name)) in symbols.filter(|(symbol, _)| is_local(symbol) == local) {
                let bind = if local { elf::STB_LOCAL } else { elf::STB_GLOBAL };
                let kind = match symbol.section {
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
                    section: symbol.section.map(|section| self.sections[section].index.0),
                    st_name,
                    st_info: bind | kind,
                    st_other: visibility.into(),
                    st_shndx: elf::SHN_UNDEF,
                    // Bit 0 says that a function is Thumb code.
                    st_value: symbol.offset | u64::from(kind == elf::STT_FUNC && target.arch() == Arch::Thumb2),
                    st_size: symbol.size,
                });
            }
        }
        w.write_symtab_shndx();
        w.write_strtab();
    }

    fn write_relocations(&mut self, plan: &ObjectPlan, target: &Target) -> Result<()> {
        let index = plan.index();
        for section in plan.sections.iter().filter(|section| !section.relocations.is_empty()) {
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

    fn write_headers(&mut self, plan: &ObjectPlan, extra: &Extra, target: &Target) {
        let w = &mut self.writer;
        w.write_null_section_header();
        let symtab = w.symtab_index();
        for (section, layout) in plan.sections.iter().zip(&self.sections) {
            let (sh_type, sh_flags) = match section.kind {
                SectionKind::Text => (elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_EXECINSTR),
                SectionKind::ReadOnlyData => (elf::SHT_PROGBITS, elf::SHF_ALLOC),
                SectionKind::Zero => (elf::SHT_NOBITS, elf::SHF_ALLOC | elf::SHF_WRITE),
                SectionKind::Debug => (elf::SHT_PROGBITS, elf::SectionFlags(0)),
            };
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
                sh_entsize: 0,
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
