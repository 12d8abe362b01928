//! ELF relocatable objects.

use super::stream::{Nothing, copy, finish, refused, stream};
use super::{ObjectPlan, Section, SectionKind, Symbol, Visibility, missing};
use crate::error::{Error, Result};
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
    Ok(Layout::new(plan, &extra, &mut nothing)?.writer.reserved_len())
}

/// Writes the object.
///
/// # Errors
/// [`Code::Io`](crate::error::Code::Io) for failed reads and writes.
pub fn write(plan: &ObjectPlan, target: &Target, out: &mut dyn Write) -> Result<()> {
    let extra = Extra::new(plan, target);
    let mut stream = stream(out);
    Layout::new(plan, &extra, &mut stream)?.write(plan, &extra, target)?;
    finish(stream)
}

/// `e_machine`.
pub(super) fn machine(target: &Target) -> elf::Machine {
    match target.arch() {
        Arch::X86_64 => elf::EM_X86_64,
        Arch::Aarch64 => elf::EM_AARCH64,
        Arch::Riscv64 => elf::EM_RISCV,
    }
}

/// `e_flags`. On RISC-V every linker refuses to mix float ABIs, so they follow `--abi` even though the interface passes
/// only pointers and integers.
pub(super) fn flags(target: &Target) -> elf::FileFlags {
    if target.arch() != Arch::Riscv64 {
        return elf::FileFlags(0);
    }
    let float = match target.abi {
        Some("lp64") => elf::EF_RISCV_FLOAT_ABI_SOFT,
        Some("lp64f") => elf::EF_RISCV_FLOAT_ABI_SINGLE,
        _ => elf::EF_RISCV_FLOAT_ABI_DOUBLE,
    };
    if compressed(target) {
        float | elf::EF_RISCV_RVC
    } else {
        float
    }
}

fn compressed(target: &Target) -> bool {
    target.cpu.features.contains(&"has_c")
}

/// `.riscv.attributes`: stack alignment and the extensions that the code uses, with the versions of the ratified
/// specification (20191213) that GCC and LLVM assume. Linkers merge them.
fn riscv_attributes(target: &Target) -> Vec<u8> {
    let c = if compressed(target) { "_c2p0" } else { "" };
    let arch = format!("rv64i2p1_m2p0_a2p1_f2p2_d2p2{c}_zicsr2p0_zifencei2p0");
    // Tag_RISCV_stack_align (4) = 16, Tag_RISCV_arch (5) = string.
    let mut attributes = vec![4, 16, 5];
    attributes.extend_from_slice(arch.as_bytes());
    attributes.push(0);
    // Tag_File (1) and its length, itself included; before that the vendor's name and length; before that the version.
    let file = 5 + attributes.len() as u32;
    let vendor = 4 + b"riscv\0".len() as u32 + file;
    let mut bytes = vec![b'A'];
    bytes.extend_from_slice(&vendor.to_le_bytes());
    bytes.extend_from_slice(b"riscv\0\x01");
    bytes.extend_from_slice(&file.to_le_bytes());
    bytes.append(&mut attributes);
    bytes
}

/// What is written beside the plan's sections and symbols.
struct Extra {
    /// Name of each section's relocations, if it has any.
    relocations: Vec<Option<String>>,
    /// `.riscv.attributes`, `.note.GNU-stack`.
    notes: Vec<(&'static str, elf::SectionType, Vec<u8>)>,
    /// `$x` and `$d` at the start of sections: what a disassembler must read as code and as data.
    mapping: Vec<(&'static str, usize)>,
}

impl Extra {
    fn new(plan: &ObjectPlan, target: &Target) -> Self {
        let relocations = (plan.sections.iter())
            .map(|section| (!section.relocations.is_empty()).then(|| format!(".rela{}", section.name)))
            .collect();
        let mut notes = Vec::new();
        if target.arch() == Arch::Riscv64 {
            notes.push((".riscv.attributes", elf::SHT_RISCV_ATTRIBUTES, riscv_attributes(target)));
        }
        // Without it GNU ld makes the stack of the whole program executable. On bare metal it would warn about every
        // other object instead.
        if target.triple.operating_system == OperatingSystem::Linux {
            notes.push((".note.GNU-stack", elf::SHT_PROGBITS, Vec::new()));
        }
        let mapping = (plan.sections.iter().enumerate())
            .filter_map(|(i, section)| match section.kind {
                SectionKind::Text => Some(("$x", i)),
                SectionKind::ReadOnlyData => Some(("$d", i)),
                SectionKind::Zero => None,
            })
            .filter(|_| target.arch() == Arch::Aarch64)
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
    symbols: Vec<(SymbolIndex, StringId)>,
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
    symbol.visibility == Visibility::Local
}

impl<'a> Layout<'a> {
    fn new(plan: &'a ObjectPlan, extra: &'a Extra, buffer: &'a mut dyn WritableBuffer) -> Result<Self> {
        let refused = |error| refused(&error);
        let mut w = Writer::new(Endianness::Little, true, buffer);
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
                symbols[i] = Some((w.reserve_symbol_index(section), w.add_string(symbol.name.as_bytes())));
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
                *offset = w.reserve_relocations(section.relocations.len(), true);
            }
        }
        w.reserve_shstrtab_section_index();
        w.reserve_shstrtab().map_err(refused)?;
        w.reserve_section_headers();
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
        self.write_symbols(plan);
        self.write_relocations(plan)?;
        self.writer.write_shstrtab();
        self.write_headers(plan, extra);
        if self.writer.len() != self.writer.reserved_len() {
            return Err(Error::internal("the object is not as long as it was laid out"));
        }
        Ok(())
    }

    fn write_symbols(&mut self, plan: &ObjectPlan) {
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
                    Some(_) if symbol.function => elf::STT_FUNC,
                    Some(_) if symbol.size != 0 => elf::STT_OBJECT,
                    _ => elf::STT_NOTYPE,
                };
                let visibility = match symbol.visibility {
                    Visibility::Hidden => elf::STV_HIDDEN,
                    _ => elf::STV_DEFAULT,
                };
                let st_name = w.string_offset(Some(*name));
                w.write_symbol(&Sym {
                    section: symbol.section.map(|section| self.sections[section].index.0),
                    st_name,
                    st_info: bind | kind,
                    st_other: visibility.into(),
                    st_shndx: elf::SHN_UNDEF,
                    st_value: symbol.offset,
                    st_size: symbol.size,
                });
            }
        }
        w.write_symtab_shndx();
        w.write_strtab();
    }

    fn write_relocations(&mut self, plan: &ObjectPlan) -> Result<()> {
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
                    true,
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

    fn write_headers(&mut self, plan: &ObjectPlan, extra: &Extra) {
        let w = &mut self.writer;
        w.write_null_section_header();
        let symtab = w.symtab_index();
        for (section, layout) in plan.sections.iter().zip(&self.sections) {
            let (sh_type, sh_flags) = match section.kind {
                SectionKind::Text => (elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_EXECINSTR),
                SectionKind::ReadOnlyData => (elf::SHT_PROGBITS, elf::SHF_ALLOC),
                SectionKind::Zero => (elf::SHT_NOBITS, elf::SHF_ALLOC | elf::SHF_WRITE),
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
                w.write_relocation_section_header(name, layout.index, symtab, offset, count, true);
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
