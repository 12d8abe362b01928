//! Mach-O relocatable objects for x86-64 and AArch64.
//!
//! A Mach-O object has few sections (a symbol names its section with one byte), so everything of a kind shares one, and
//! the header says that linkers may take it apart at symbols (`MH_SUBSECTIONS_VIA_SYMBOLS`): with `-dead_strip` they
//! drop what is not used as they drop sections elsewhere. C names have an underscore in front. (Layout: `loader.h`,
//! `nlist.h`, `reloc.h` and the `reloc.h` of the two machines in Apple's XNU and cctools.)

use super::stream::{Output, refused};
use super::unit::{Entry, Unit};
use super::{RELOCATED, Section, SectionKind, Visibility, missing};
use crate::codegen::Relocation;
use crate::data::{Bytes, Contents};
use crate::error::{Code, Error, Result};
use crate::target::{Arch, Target};
use ::object::write::StringId;
use ::object::write::StringTable;
use ::object::write::macho::{
    BuildVersionCommand, DysymtabCommand, Encoder, MachHeader, Nlist, SectionHeader, SegmentCommand, SymtabCommand,
};
use ::object::{LittleEndian, RelocationFlags, elf, macho};
use target_lexicon::OperatingSystem;

/// A symbol's section is a byte, from 1.
const MAX_SECTIONS: usize = 255;
/// A relocation's symbol has 24 bits.
const MAX_SYMBOLS: usize = 1 << 24;
/// Linkers refuse larger alignments than a page of arm64 Macs, and 2^15 is the largest that all of them take.
const MAX_ALIGN: u64 = 1 << 15;
/// Longest names of segments and sections.
const NAME: usize = 16;

/// A file to be laid out.
pub(super) struct Prepared<'a> {
    unit: Unit<'a>,
    target: &'a Target,
    sections: Vec<Joined>,
    /// Of each of the unit's sections: the joined one, and its offset there.
    places: Vec<Place>,
    /// In file order: index in the unit, and the name with its underscore.
    symbols: Vec<(usize, String)>,
    /// Local symbols, then defined ones, then undefined ones: how many.
    counts: [usize; 3],
    /// By joined section.
    relocations: Vec<Vec<macho::RelocationInfo>>,
}

/// A joined section, and an offset there.
type Place = (usize, u64);

/// Sections of a plan that are one section of the file.
struct Joined {
    segment: &'static str,
    name: String,
    kind: SectionKind,
    align: u64,
    size: u64,
    /// Indices in the unit, with their offsets.
    parts: Vec<(usize, u64)>,
}

impl<'a> Prepared<'a> {
    /// # Errors
    /// [`Code::Limit`] for what Mach-O cannot express: section names, alignment, 4 GiB, a code offset of 8 MiB in an
    /// instruction of AArch64.
    pub fn new(unit: Unit<'a>, target: &'a Target) -> Result<Self> {
        let (sections, places) = join(&unit)?;
        let total: u64 = sections
            .iter()
            .filter(|s| s.kind != SectionKind::Zero)
            .map(|s| s.size + s.align)
            .sum();
        if total + 64 * unit.symbols.len() as u64 > u64::from(u32::MAX) {
            return Err(limit(format!(
                "a Mach-O object is smaller than 4 GiB, this one needs {total} bytes"
            )));
        }
        if unit.symbols.len() >= MAX_SYMBOLS {
            return Err(limit(format!(
                "a Mach-O object holds at most {MAX_SYMBOLS} symbols, this one needs {}",
                unit.symbols.len()
            )));
        }
        let class = |entry: &Entry| match entry {
            Entry { section: None, .. } => 2,
            entry if entry.is_local() => 0,
            _ => 1,
        };
        let mut symbols = Vec::with_capacity(unit.symbols.len());
        let mut counts = [0; 3];
        for wanted in 0..3 {
            // Labels would split the functions that they are in, and nothing here refers to them.
            let entries = unit.symbols.iter().enumerate();
            let entries = entries.filter(|(_, entry)| class(entry) == wanted && !is_label(entry));
            symbols.extend(entries.map(|(i, entry)| (i, format!("_{}", entry.symbol.name))));
            counts[wanted] = symbols.len() - counts.iter().sum::<usize>();
        }
        let mut prepared = Prepared {
            unit,
            target,
            sections,
            places,
            symbols,
            counts,
            relocations: Vec::new(),
        };
        prepared.relocations = prepared.relocations()?;
        Ok(prepared)
    }

    fn relocations(&self) -> Result<Vec<Vec<macho::RelocationInfo>>> {
        let index = self.unit.index();
        let mut numbers = vec![None; self.unit.symbols.len()];
        for (number, (symbol, _)) in self.symbols.iter().enumerate() {
            numbers[*symbol] = Some(number as u32);
        }
        let mut all = Vec::with_capacity(self.sections.len());
        for joined in &self.sections {
            let mut list = Vec::new();
            // From the last to the first, as every other tool writes them.
            for (part, offset) in joined.parts.iter().rev() {
                let section = self.unit.sections[*part];
                for relocation in section.relocations.iter().rev() {
                    let symbol = index.get(relocation.symbol.as_str()).and_then(|i| numbers[*i]);
                    let symbol = symbol.ok_or_else(|| missing(&relocation.symbol))?;
                    let Kind {
                        r_type,
                        r_pcrel,
                        r_length,
                    } = kind(self.target, section, relocation)?;
                    // Like every offset in a file of less than 4 GiB.
                    let r_address = (offset + relocation.offset) as u32;
                    if self.target.arch() == Arch::Aarch64 && relocation.addend != 0 && r_length == 2 {
                        list.push(addend(section, relocation, r_address)?);
                    }
                    list.push(macho::RelocationInfo {
                        r_address,
                        r_symbolnum: symbol,
                        r_pcrel,
                        r_length,
                        r_extern: true,
                        r_type,
                    });
                }
            }
            all.push(list);
        }
        Ok(all)
    }

    pub fn layout(&'a self) -> Result<Layout<'a>> {
        Layout::new(self)
    }
}

fn limit(message: String) -> Error {
    Error::new(Code::Limit, message).help("build for an ELF target, or split the model")
}

/// A label within a function, or a mapping symbol.
fn is_label(entry: &Entry) -> bool {
    entry.is_local() && entry.symbol.size == 0
}

/// The sections of the file, those without bytes last.
fn join(unit: &Unit) -> Result<(Vec<Joined>, Vec<Place>)> {
    let mut joined: Vec<Joined> = Vec::new();
    let mut places = vec![(0, 0); unit.sections.len()];
    for zero in [false, true] {
        let sections = unit.sections.iter().enumerate();
        for (i, section) in sections.filter(|(_, section)| (section.kind == SectionKind::Zero) == zero) {
            if section.align > MAX_ALIGN {
                return Err(limit(format!(
                    "a Mach-O section is aligned to at most {MAX_ALIGN} bytes, {} needs {}",
                    section.name, section.align
                )));
            }
            let (segment, name) = name(section)?;
            let known = joined
                .iter()
                .position(|j| j.segment == segment && j.name == name && j.kind == section.kind);
            let at = known.unwrap_or_else(|| {
                joined.push(Joined {
                    segment,
                    name,
                    kind: section.kind,
                    align: 1,
                    size: 0,
                    parts: Vec::new(),
                });
                joined.len() - 1
            });
            let into = &mut joined[at];
            let offset = into.size.next_multiple_of(section.align.max(1));
            into.align = into.align.max(section.align);
            // What is empty still has an address of its own.
            into.size = offset + section.contents.len().max(1);
            into.parts.push((i, offset));
            places[i] = (at, offset);
        }
    }
    if joined.len() > MAX_SECTIONS {
        return Err(limit(format!(
            "a Mach-O object holds at most {MAX_SECTIONS} sections, this one needs {}",
            joined.len()
        )));
    }
    Ok((joined, places))
}

/// Segment and section: `.rodata.kws.w` is in `__TEXT,__const`; `.qspi` of `--place` in `__TEXT,__qspi`.
fn name(section: &Section) -> Result<(&'static str, String)> {
    let (segment, prefix, usual) = match section.kind {
        SectionKind::Text => ("__TEXT", ".text.", "__text"),
        SectionKind::ReadOnlyData => ("__TEXT", ".rodata.", "__const"),
        SectionKind::RelocatedData => ("__DATA", RELOCATED, "__const"),
        SectionKind::Zero => ("__DATA", ".bss.", "__bss"),
        SectionKind::Debug => {
            let message = format!("{} cannot be written to a Mach-O object", section.name);
            return Err(Error::unsupported(message).help("build without -g, or for an ELF or COFF target"));
        }
    };
    if section.name.starts_with(prefix) {
        return Ok((segment, usual.to_owned()));
    }
    let own = section.name.trim_start_matches(['.', '_']);
    let own = format!("__{own}");
    if own.len() > NAME {
        return Err(limit(format!(
            "a name of a Mach-O section has at most {NAME} bytes, {} becomes {own}",
            section.name
        ))
        .help("place into a section with a shorter name"));
    }
    Ok((segment, own))
}

/// What a relocation is in Mach-O.
struct Kind {
    r_type: macho::RelocationType,
    r_pcrel: bool,
    r_length: u8,
}

/// Code is compiled with ELF's relocations; these are the same in Mach-O's terms.
fn kind(target: &Target, section: &Section, relocation: &Relocation) -> Result<Kind> {
    let RelocationFlags::Elf { r_type } = relocation.flags else {
        return Err(Error::internal(format!(
            "{} has a relocation of another format",
            section.name
        )));
    };
    let kind = |r_type, r_pcrel, r_length| Kind {
        r_type,
        r_pcrel,
        r_length,
    };
    Ok(match (target.arch(), r_type) {
        (Arch::X86_64, elf::R_X86_64_PC32 | elf::R_X86_64_PLT32) => {
            // A displacement of `call` or `jmp`, or an address relative to the next instruction.
            let branch = opcode(section, relocation.offset).is_some_and(|byte| matches!(byte, 0xe8 | 0xe9));
            let r_type = if branch {
                macho::X86_64_RELOC_BRANCH
            } else {
                macho::X86_64_RELOC_SIGNED
            };
            kind(r_type, true, 2)
        }
        (Arch::X86_64, elf::R_X86_64_64) => kind(macho::X86_64_RELOC_UNSIGNED, false, 3),
        (Arch::Aarch64, elf::R_AARCH64_CALL26 | elf::R_AARCH64_JUMP26) => kind(macho::ARM64_RELOC_BRANCH26, true, 2),
        (Arch::Aarch64, elf::R_AARCH64_ADR_PREL_PG_HI21) => kind(macho::ARM64_RELOC_PAGE21, true, 2),
        (
            Arch::Aarch64,
            elf::R_AARCH64_ADD_ABS_LO12_NC
            | elf::R_AARCH64_LDST8_ABS_LO12_NC
            | elf::R_AARCH64_LDST16_ABS_LO12_NC
            | elf::R_AARCH64_LDST32_ABS_LO12_NC
            | elf::R_AARCH64_LDST64_ABS_LO12_NC
            | elf::R_AARCH64_LDST128_ABS_LO12_NC,
        ) => kind(macho::ARM64_RELOC_PAGEOFF12, false, 2),
        (Arch::Aarch64, elf::R_AARCH64_ABS64) => kind(macho::ARM64_RELOC_UNSIGNED, false, 3),
        _ => {
            return Err(Error::internal(format!(
                "{} has a relocation that Mach-O has no equal of: {r_type:?}",
                section.name
            )));
        }
    })
}

/// The byte before a relocated field.
fn opcode(section: &Section, offset: u64) -> Option<u8> {
    let Contents::Bytes(bytes) = &section.contents else {
        return None;
    };
    let at = usize::try_from(offset).ok()?.checked_sub(1)?;
    bytes.as_slice().get(at).copied()
}

/// AArch64's instructions have no room for an addend: it is a relocation of its own in front.
fn addend(section: &Section, relocation: &Relocation, r_address: u32) -> Result<macho::RelocationInfo> {
    if !(-(1 << 23)..1 << 23).contains(&relocation.addend) {
        return Err(limit(format!(
            "a Mach-O object reaches at most 8 MiB behind a symbol, {} needs {} at {}",
            section.name, relocation.addend, relocation.symbol
        )));
    }
    Ok(macho::RelocationInfo {
        r_address,
        r_symbolnum: relocation.addend as u32 & 0xff_ffff,
        r_pcrel: false,
        r_length: 2,
        r_extern: false,
        r_type: macho::ARM64_RELOC_ADDEND,
    })
}

/// Where everything goes in the file.
pub(super) struct Layout<'a> {
    prepared: &'a Prepared<'a>,
    head: Vec<u8>,
    /// Offset in the file of each joined section's bytes.
    offsets: Vec<u64>,
    /// Relocations, symbols and names.
    tail: Vec<u8>,
    tail_at: u64,
}

const ENDIAN: LittleEndian = LittleEndian;

impl<'a> Layout<'a> {
    fn new(prepared: &'a Prepared<'a>) -> Result<Self> {
        let encoder = Encoder::new(ENDIAN, true);
        let sections = &prepared.sections;
        let commands = encoder.segment_command_size(sections.len() as u32)
            + encoder.build_version_command_size(0)
            + encoder.symtab_command_size()
            + encoder.dysymtab_command_size();
        let head_size = encoder.mach_header_size() + commands;
        // Addresses as in a program of its own: linkers read the distances between symbols from them.
        let mut address = 0u64;
        let mut addresses = Vec::with_capacity(sections.len());
        for section in sections {
            address = address.next_multiple_of(section.align);
            addresses.push(address);
            address += section.size;
        }
        // File offsets follow the addresses, so that both have the same alignment.
        let align = sections.iter().map(|section| section.align).max().unwrap_or(1).max(8);
        let base = head_size.next_multiple_of(align.min(4096));
        let offsets: Vec<u64> = addresses.iter().map(|address| base + address).collect();
        let with_bytes = || {
            sections
                .iter()
                .zip(&offsets)
                .filter(|(section, _)| section.kind != SectionKind::Zero)
        };
        let end = with_bytes()
            .map(|(section, offset)| offset + section.size)
            .max()
            .unwrap_or(base);
        let tail_at = end.next_multiple_of(8);

        let mut strings = StringTable::default();
        let ids: Vec<StringId> = prepared
            .symbols
            .iter()
            .map(|(_, name)| strings.add(name.as_bytes()))
            .collect();
        let mut names = Vec::new();
        let names_size = encoder
            .strtab(&mut names, &mut strings)
            .map_err(|error| refused(&error))?;
        let mut tail = Vec::new();
        let relocations: Vec<u64> = (prepared.relocations.iter())
            .map(|list| {
                let at = tail_at + tail.len() as u64;
                list.iter()
                    .for_each(|relocation| encoder.relocation(&mut tail, relocation));
                at
            })
            .collect();
        let symbols_at = tail_at + tail.len() as u64;
        for ((index, _), id) in prepared.symbols.iter().zip(&ids) {
            encoder.nlist(&mut tail, &nlist(prepared, *index, strings.get_offset(*id), &addresses));
        }
        let names_at = tail_at + tail.len() as u64;
        tail.append(&mut names);
        if tail_at + tail.len() as u64 > u64::from(u32::MAX) {
            return Err(limit("a Mach-O object is smaller than 4 GiB".to_owned()));
        }

        let mut head = Vec::with_capacity(head_size as usize);
        let (cputype, cpusubtype) = match prepared.target.arch() {
            Arch::X86_64 => (macho::CPU_TYPE_X86_64, macho::CPU_SUBTYPE_X86_64_ALL),
            _ => (macho::CPU_TYPE_ARM64, macho::CPU_SUBTYPE_ARM64_ALL),
        };
        encoder.mach_header(
            &mut head,
            &MachHeader {
                cputype,
                cpusubtype: cpusubtype.into(),
                filetype: macho::MH_OBJECT,
                ncmds: 4,
                sizeofcmds: commands as u32,
                flags: macho::MH_SUBSECTIONS_VIA_SYMBOLS,
            },
        );
        let all = macho::VM_PROT_READ | macho::VM_PROT_WRITE | macho::VM_PROT_EXECUTE;
        encoder.segment_command(
            &mut head,
            &SegmentCommand {
                segname: [0; NAME],
                vmaddr: 0,
                vmsize: address,
                fileoff: base,
                filesize: end - base,
                maxprot: all,
                initprot: all,
                nsects: sections.len() as u32,
                flags: macho::SegmentFlags(0),
            },
        );
        for (i, section) in sections.iter().enumerate() {
            let zero = section.kind == SectionKind::Zero;
            let nreloc = prepared.relocations[i].len() as u32;
            encoder.section_header(
                &mut head,
                &SectionHeader {
                    sectname: fixed(&section.name),
                    segname: fixed(section.segment),
                    addr: addresses[i],
                    size: section.size,
                    offset: if zero { 0 } else { offsets[i] as u32 },
                    align: section.align.trailing_zeros(),
                    reloff: if nreloc == 0 { 0 } else { relocations[i] as u32 },
                    nreloc,
                    flags: match section.kind {
                        SectionKind::Text => macho::S_ATTR_PURE_INSTRUCTIONS | macho::S_ATTR_SOME_INSTRUCTIONS,
                        SectionKind::ReadOnlyData | SectionKind::RelocatedData | SectionKind::Debug => {
                            macho::SectionFlags(0)
                        }
                        SectionKind::Zero => macho::S_ZEROFILL.into(),
                    },
                    reserved1: 0,
                    reserved2: 0,
                    reserved3: 0,
                },
            );
        }
        let (platform, minos) = platform(prepared.target);
        encoder.build_version_command(
            &mut head,
            &BuildVersionCommand {
                platform,
                minos,
                sdk: macho::Version::default(),
                ntools: 0,
            },
        );
        encoder.symtab_command(
            &mut head,
            &SymtabCommand {
                symoff: symbols_at as u32,
                nsyms: prepared.symbols.len() as u32,
                stroff: names_at as u32,
                strsize: names_size,
            },
        );
        let [local, defined, undefined] = prepared.counts.map(|count| count as u32);
        encoder.dysymtab_command(
            &mut head,
            &DysymtabCommand {
                ilocalsym: 0,
                nlocalsym: local,
                iextdefsym: local,
                nextdefsym: defined,
                iundefsym: local + defined,
                nundefsym: undefined,
                tocoff: 0,
                ntoc: 0,
                modtaboff: 0,
                nmodtab: 0,
                extrefsymoff: 0,
                nextrefsyms: 0,
                indirectsymoff: 0,
                nindirectsyms: 0,
                extreloff: 0,
                nextrel: 0,
                locreloff: 0,
                nlocrel: 0,
            },
        );
        Ok(Layout {
            prepared,
            head,
            offsets,
            tail,
            tail_at,
        })
    }

    pub fn size(&self) -> u64 {
        self.tail_at + self.tail.len() as u64
    }

    pub fn write(self, output: &Output) -> Result<()> {
        let mut at = self.head.len() as u64;
        output.write(&self.head);
        let fill = |at: &mut u64, to: u64| {
            let zeros = [0; 4096];
            while *at < to {
                let n = (to - *at).min(4096);
                output.write(&zeros[..n as usize]);
                *at += n;
            }
        };
        for (joined, base) in self.prepared.sections.iter().zip(&self.offsets) {
            if joined.kind == SectionKind::Zero {
                continue;
            }
            for (part, offset) in &joined.parts {
                let section = self.prepared.unit.sections[*part];
                fill(&mut at, base + offset);
                let patched = patched(self.prepared.target, section);
                let contents = patched.as_ref().unwrap_or(&section.contents);
                output.copy(contents, &section.name, |bytes| {
                    output.write(bytes);
                })?;
                at += section.contents.len();
            }
            fill(&mut at, base + joined.size);
        }
        fill(&mut at, self.tail_at);
        output.write(&self.tail);
        Ok(())
    }
}

/// Addends stand in the bytes themselves where the machine has room for them: on x86-64, relative to the end of the
/// four bytes.
fn patched(target: &Target, section: &Section) -> Option<Contents> {
    let Contents::Bytes(bytes) = &section.contents else {
        return None;
    };
    if section.relocations.is_empty() {
        return None;
    }
    let mut bytes = bytes.as_slice().to_vec();
    for relocation in &section.relocations {
        let at = relocation.offset as usize;
        match relocation.flags {
            RelocationFlags::Elf {
                r_type: elf::R_X86_64_PC32 | elf::R_X86_64_PLT32,
            } if target.arch() == Arch::X86_64 => {
                let value = (relocation.addend + 4) as i32;
                bytes.get_mut(at..at + 4)?.copy_from_slice(&value.to_le_bytes());
            }
            RelocationFlags::Elf {
                r_type: elf::R_X86_64_64 | elf::R_AARCH64_ABS64,
            } => bytes
                .get_mut(at..at + 8)?
                .copy_from_slice(&relocation.addend.to_le_bytes()),
            _ => {}
        }
    }
    Some(Contents::Bytes(Bytes::from_vec(bytes)))
}

fn nlist(prepared: &Prepared, index: usize, n_strx: u32, addresses: &[u64]) -> Nlist {
    let Entry { symbol, section } = &prepared.unit.symbols[index];
    let Some(section) = *section else {
        return Nlist {
            n_strx,
            n_type: macho::N_UNDF | macho::N_EXT,
            n_sect: 0,
            n_desc: macho::SymbolDesc(0),
            n_value: 0,
        };
    };
    let (joined, offset) = prepared.places[section];
    let scope = match symbol.visibility {
        Visibility::Local | Visibility::Section => macho::SymbolFlags(0),
        Visibility::Hidden => macho::N_PEXT | macho::N_EXT,
        Visibility::Exported | Visibility::Weak => macho::N_EXT,
    };
    let mut n_desc = macho::SymbolDesc(0);
    if symbol.visibility == Visibility::Weak {
        n_desc |= macho::N_WEAK_DEF;
    }
    if prepared.unit.retained[section] {
        n_desc |= macho::N_NO_DEAD_STRIP;
    }
    // What lies inside a function or a constant does not end it.
    if symbol.offset != 0 {
        n_desc |= macho::N_ALT_ENTRY;
    }
    Nlist {
        n_strx,
        n_type: macho::N_SECT | scope,
        n_sect: joined as u8 + 1,
        n_desc,
        n_value: addresses[joined] + offset + symbol.offset,
    }
}

fn fixed(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

/// Platform and the first version of it that the code is for.
fn platform(target: &Target) -> (macho::Platform, macho::Version) {
    match target.triple.operating_system {
        OperatingSystem::IOS(_) => (macho::PLATFORM_IOS, macho::Version::new(12, 0, 0)),
        _ if target.arch() == Arch::X86_64 => (macho::PLATFORM_MACOS, macho::Version::new(10, 13, 0)),
        _ => (macho::PLATFORM_MACOS, macho::Version::new(11, 0, 0)),
    }
}
