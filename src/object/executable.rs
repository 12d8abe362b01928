//! Static ELF executables for Linux, linked here: `corerope run` and `verify` need no compiler and no linker.
//!
//! Text is readable and executable, constants are read-only, and every zeroed buffer has a segment of its own with
//! unmapped pages on both sides. A buffer ends where its last page ends (up to its alignment), so that one byte too far
//! faults at once.

use super::stream::{Output, Pipe, failed, refused};
use super::{ObjectPlan, Section, SectionKind, elf as object_elf, missing};
use crate::codegen::Relocation;
use crate::error::{Code, Error, Result};
use crate::target::{Arch, Format, Target};
use ::object::write::elf::{FileHeader, ProgramHeader, Writer};
use ::object::{Endianness, RelocationFlags, elf};
use std::collections::BTreeMap;
use std::io::Write;

/// Where the image starts, unless a section asks for a larger alignment.
const BASE: u64 = 0x40_0000;

/// The largest page of any Linux kernel for the architecture.
pub fn page(target: &Target) -> u64 {
    match target.arch() {
        Arch::X86_64 | Arch::Riscv64 | Arch::Thumb2 | Arch::Riscv32 => 4096,
        Arch::Aarch64 => 65536,
    }
}

/// Writes an executable that starts at the symbol `start`. Parameters are streamed.
///
/// # Errors
/// [`Code::Target`] for targets whose code Linux cannot run, [`Code::Limit`] if something is out of reach of its
/// relocation, [`Code::Internal`] for undefined symbols and unknown relocations, [`Code::Io`].
pub fn write(plan: &ObjectPlan, target: &Target, start: &str, out: &mut dyn Write) -> Result<()> {
    if target.format() != Format::Elf {
        return Err(
            Error::new(Code::Target, format!("programs for {} cannot be run here", target.name))
                .help("choose a Linux or bare-metal target"),
        );
    }
    let image = Image::new(plan, page(target));
    let text = image.text(plan, target.arch())?;
    let entry = image.address(plan, start).ok_or_else(|| missing(start))?;

    let output = Output::new(out);
    let mut pipe = Pipe(Some(&output));
    let written = program(
        plan,
        target,
        &image,
        &text,
        entry,
        &output,
        Writer::new(Endianness::Little, true, &mut pipe),
    );
    output.cause(written)
}

fn program(
    plan: &ObjectPlan,
    target: &Target,
    image: &Image,
    text: &[u8],
    entry: u64,
    output: &Output,
    mut w: Writer,
) -> Result<()> {
    w.reserve_file_header();
    w.reserve_program_headers(image.segments.len() as u32 + 1);
    for segment in image.segments.iter().filter(|segment| segment.in_file) {
        w.reserve_until(segment.start - image.base);
        w.reserve(segment.size, 1);
    }
    w.write_file_header(&FileHeader {
        e_type: elf::ET_EXEC,
        e_machine: object_elf::machine(target),
        e_entry: entry,
        e_flags: object_elf::flags(target),
        ..FileHeader::default()
    })
    .map_err(|error| refused(&error))?;
    w.write_align_program_headers();
    for segment in &image.segments {
        let in_file = if segment.in_file { segment.size } else { 0 };
        w.write_program_header(&ProgramHeader {
            p_type: elf::PT_LOAD,
            p_flags: segment.flags,
            p_offset: if segment.in_file { segment.start - image.base } else { 0 },
            p_vaddr: segment.start,
            p_paddr: segment.start,
            p_filesz: in_file,
            p_memsz: segment.size,
            p_align: page(target),
        });
    }
    w.write_program_header(&ProgramHeader {
        p_type: elf::PT_GNU_STACK,
        p_flags: elf::PF_R | elf::PF_W,
        p_offset: 0,
        p_vaddr: 0,
        p_paddr: 0,
        p_filesz: 0,
        p_memsz: 0,
        p_align: 16,
    });
    if let Some(first) = image.segments.first() {
        w.pad_until(first.start - image.base);
    }
    w.write(text);
    for (section, address) in plan.sections.iter().zip(&image.addresses) {
        if section.kind == SectionKind::ReadOnlyData {
            w.pad_until(address - image.base);
            output.copy(&section.contents, &section.name, |bytes| w.write(bytes))?;
        }
    }
    Ok(())
}

/// A range of the address space.
struct Segment {
    flags: elf::ProgramFlags,
    start: u64,
    size: u64,
    in_file: bool,
}

/// Addresses of everything. What is in the file lies at `address − base` there.
struct Image {
    base: u64,
    segments: Vec<Segment>,
    /// By section.
    addresses: Vec<u64>,
}

impl Image {
    fn new(plan: &ObjectPlan, page: u64) -> Self {
        let base = plan.sections.iter().map(|section| section.align).fold(BASE, u64::max);
        let mut image = Image {
            base,
            segments: Vec::new(),
            addresses: vec![0; plan.sections.len()],
        };
        // The headers come first and are not mapped: a program header for each zeroed section and three more at most.
        let headers = 64 + 56 * (3 + plan.sections.len() as u64);
        let mut at = base + headers;
        for (kind, flags) in [
            (SectionKind::Text, elf::PF_R | elf::PF_X),
            (SectionKind::ReadOnlyData, elf::PF_R),
        ] {
            let start = at.next_multiple_of(page);
            at = start;
            for (section, address) in image.sections(plan, kind) {
                at = at.next_multiple_of(section.align);
                *address = at;
                at += section.contents.len();
            }
            if at != start {
                image.segments.push(Segment {
                    flags,
                    start,
                    size: at - start,
                    in_file: true,
                });
            }
        }
        let mut segments = Vec::new();
        for (section, address) in image.sections(plan, SectionKind::Zero) {
            let start = at.next_multiple_of(page.max(section.align)) + page;
            let start = start.next_multiple_of(section.align);
            let size = section.contents.len();
            let end = start + size.next_multiple_of(page.max(section.align));
            *address = (end - size) / section.align * section.align;
            at = end;
            if size != 0 {
                segments.push(Segment {
                    flags: elf::PF_R | elf::PF_W,
                    start,
                    size: end - start,
                    in_file: false,
                });
            }
        }
        image.segments.append(&mut segments);
        image
    }

    fn sections<'a>(
        &'a mut self,
        plan: &'a ObjectPlan,
        kind: SectionKind,
    ) -> impl Iterator<Item = (&'a Section, &'a mut u64)> {
        let all = plan.sections.iter().zip(&mut self.addresses);
        all.filter(move |(section, _)| section.kind == kind)
    }

    fn address(&self, plan: &ObjectPlan, symbol: &str) -> Option<u64> {
        let symbol = plan.symbols.iter().find(|known| known.name == symbol)?;
        Some(self.addresses[symbol.section?] + symbol.offset)
    }

    /// The text segment, relocated.
    fn text(&self, plan: &ObjectPlan, arch: Arch) -> Result<Vec<u8>> {
        let symbols: BTreeMap<&str, u64> = (plan.symbols.iter())
            .filter_map(|symbol| {
                let section = symbol.section?;
                Some((symbol.name.as_str(), self.addresses[section] + symbol.offset))
            })
            .collect();
        let resolve = |relocation: &Relocation| {
            let symbol = symbols.get(relocation.symbol.as_str()).copied();
            symbol.ok_or_else(|| missing(&relocation.symbol))
        };
        let mut text: Vec<u8> = Vec::new();
        let mut start = None;
        for (section, address) in plan.sections.iter().zip(&self.addresses) {
            if section.kind == SectionKind::Debug {
                continue;
            }
            if section.kind != SectionKind::Text {
                if !section.relocations.is_empty() {
                    return Err(Error::internal(format!("the data of {} has relocations", section.name)));
                }
                continue;
            }
            let start = *start.get_or_insert(*address);
            let offset = (address - start) as usize;
            text.resize(offset, 0);
            (section.contents.write_to(&mut text)).map_err(|error| failed("read the code for", &error))?;
            // RISC-V: the low parts refer to the instructions that have the high parts.
            let mut high = BTreeMap::new();
            for relocation in &section.relocations {
                let r_type = elf::R_RISCV_PCREL_HI20;
                if arch == Arch::Riscv64 && relocation.flags == (RelocationFlags::Elf { r_type }) {
                    let place = address + relocation.offset;
                    high.insert(place, distance(resolve(relocation)?, relocation.addend, place));
                }
            }
            for relocation in &section.relocations {
                let symbol = resolve(relocation)?;
                let place = Place {
                    arch,
                    address: address + relocation.offset,
                    symbol,
                    low: high.get(&symbol).copied(),
                };
                let bytes = text.get_mut(offset + relocation.offset as usize..).unwrap_or_default();
                relocate(bytes, relocation, &place).map_err(|error| error.at(format!("section {}", section.name)))?;
            }
        }
        Ok(text)
    }
}

/// S + A − P.
fn distance(symbol: u64, addend: i64, place: u64) -> i64 {
    symbol.wrapping_add_signed(addend).wrapping_sub(place) as i64
}

/// Replaces the bits of `mask` in the 32-bit word at the start of `bytes`.
fn patch(bytes: &mut [u8], mask: u32, bits: u32) -> Option<()> {
    let word = bytes.first_chunk_mut::<4>()?;
    *word = (u32::from_le_bytes(*word) & !mask | bits & mask).to_le_bytes();
    Some(())
}

/// Where a relocation is applied.
struct Place {
    arch: Arch,
    /// Address of the instruction.
    address: u64,
    /// Address of the symbol.
    symbol: u64,
    /// RISC-V: the distance that the instruction at the label `symbol` has the high part of.
    low: Option<i64>,
}

/// Applies one relocation at the start of `bytes`. The formulas are those of the processor supplements of the System V
/// ABI; the types are those that Cranelift's code needs when symbols are near.
fn relocate(bytes: &mut [u8], relocation: &Relocation, place: &Place) -> Result<()> {
    let RelocationFlags::Elf { r_type } = relocation.flags else {
        return Err(Error::internal("a relocation of another format"));
    };
    let target = place.symbol.wrapping_add_signed(relocation.addend);
    let relative = distance(place.symbol, relocation.addend, place.address);
    let signed = |bits: u32, value: i64| {
        let limit = 1i64 << (bits - 1);
        if (-limit..limit).contains(&value) {
            return Ok(value as u32);
        }
        let what = format!(
            "{} is {relative} bytes away, too far for its instruction",
            relocation.symbol
        );
        Err(Error::new(Code::Limit, what))
    };
    // The upper 20 bits of a distance whose lower 12 are added with their sign.
    let upper = |value: i64| signed(32, value + 0x800).map(|value| value & 0xffff_f000);
    let done = match (place.arch, r_type) {
        (Arch::X86_64, elf::R_X86_64_PC32 | elf::R_X86_64_PLT32) => patch(bytes, !0, signed(32, relative)?),
        (Arch::Aarch64, elf::R_AARCH64_CALL26 | elf::R_AARCH64_JUMP26) => {
            patch(bytes, 0x03ff_ffff, signed(28, relative)? >> 2)
        }
        (Arch::Aarch64, elf::R_AARCH64_ADR_PREL_PG_HI21) => {
            let pages = signed(
                21,
                ((target & !0xfff).wrapping_sub(place.address & !0xfff) as i64) >> 12,
            )?;
            patch(bytes, 0x60ff_ffe0, (pages & 3) << 29 | (pages & 0x1f_fffc) << 3)
        }
        (Arch::Aarch64, elf::R_AARCH64_ADD_ABS_LO12_NC) => patch(bytes, 0xfff << 10, (target as u32) << 10),
        (Arch::Riscv64, elf::R_RISCV_CALL | elf::R_RISCV_CALL_PLT) => {
            let upper = upper(relative)?;
            patch(bytes, 0xffff_f000, upper)
                .and_then(|()| patch(bytes.get_mut(4..)?, 0xfff0_0000, (relative as u32) << 20))
        }
        (Arch::Riscv64, elf::R_RISCV_PCREL_HI20) => patch(bytes, 0xffff_f000, upper(relative)?),
        (Arch::Riscv64, elf::R_RISCV_PCREL_LO12_I) => {
            place.low.and_then(|low| patch(bytes, 0xfff0_0000, (low as u32) << 20))
        }
        _ => None,
    };
    done.ok_or_else(|| {
        let what = format!(
            "relocation type {} against {} cannot be applied",
            r_type.0, relocation.symbol
        );
        Error::internal(what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(arch: Arch, r_type: elf::RelocationType, word: u32, address: u64, symbol: u64, addend: i64) -> u32 {
        let relocation = Relocation {
            offset: 0,
            symbol: "s".into(),
            addend,
            flags: RelocationFlags::Elf { r_type },
        };
        let mut bytes = word.to_le_bytes();
        let place = Place {
            arch,
            address,
            symbol,
            low: Some(addend),
        };
        relocate(&mut bytes, &relocation, &place).unwrap();
        u32::from_le_bytes(bytes)
    }

    /// Expected words are what GNU as and ld make of the same instructions.
    #[test]
    fn words() {
        // adrp x1, page(0x12345678) at 0x400010: 0x11f45 pages ahead.
        let adrp = applied(
            Arch::Aarch64,
            elf::R_AARCH64_ADR_PREL_PG_HI21,
            0x9000_0001,
            0x40_0010,
            0x1234_5678,
            0,
        );
        assert_eq!(adrp, 0xb008_fa21);
        // add x1, x1, #0x678
        let add = applied(
            Arch::Aarch64,
            elf::R_AARCH64_ADD_ABS_LO12_NC,
            0x9100_0021,
            0,
            0x1234_5670,
            8,
        );
        assert_eq!(add, 0x9119_e021);
        // bl to 8 bytes before
        let bl = applied(Arch::Aarch64, elf::R_AARCH64_CALL26, 0x9400_0000, 0x1000, 0xff8, 0);
        assert_eq!(bl, 0x97ff_fffe);
        // auipc a1, 0x1 for a distance of 0x800, whose low part is −0x800
        let auipc = applied(Arch::Riscv64, elf::R_RISCV_PCREL_HI20, 0x0000_0597, 0x1000, 0x1800, 0);
        assert_eq!(auipc, 0x0000_1597);
        // addi a1, a1, −0x800
        let addi = applied(
            Arch::Riscv64,
            elf::R_RISCV_PCREL_LO12_I,
            0x0005_8593,
            0x1004,
            0x1000,
            0x800,
        );
        assert_eq!(addi, 0x8005_8593);
        // rel32 with the usual addend
        let rel32 = applied(Arch::X86_64, elf::R_X86_64_PLT32, 0, 0x1001, 0x1100, -4);
        assert_eq!(rel32, 0xfb);
    }
}
