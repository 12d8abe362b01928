//! A linked program.

use super::{Linked, Spot};
use crate::error::{Code, Error, Result};
use crate::limits;
use object::elf::{EM_ARM, PF_X, PT_LOAD, SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS, STT_FUNC, STT_OBJECT};
use object::read::elf::{ElfFile, FileHeader, ProgramHeader, SectionHeader, Sym};
use std::collections::BTreeSet;

/// Reads where the symbols `wanted` are.
///
/// # Errors
/// [`Code::Model`] for bytes that are no linked program with symbols, [`Code::Limit`] for more of them than
/// [`limits::LINK_SYMBOLS`].
pub fn read(bytes: &[u8], wanted: &BTreeSet<&str>) -> Result<Linked> {
    match object::File::parse(bytes).map_err(broken)? {
        object::File::Elf32(file) => program(&file, wanted),
        object::File::Elf64(file) => program(&file, wanted),
        _ => Err(Error::model("not an ELF file").help(HELP)),
    }
}

const HELP: &str =
    "give the linked program (ELF) before it is stripped, or the map that GNU ld (-Map) or lld (-Map) wrote";

fn broken(error: object::Error) -> Error {
    Error::model(format!("a broken ELF file: {error}")).help(HELP)
}

/// A part of the image: addresses at run time, and where they are stored.
struct Segment {
    address: u64,
    bytes: u64,
    load: u64,
    executable: bool,
}

fn program<H: FileHeader<Endian = object::Endianness>>(file: &ElfFile<H>, wanted: &BTreeSet<&str>) -> Result<Linked> {
    let endian = file.endian();
    let header = file.elf_header();
    let mut segments = Vec::new();
    for segment in file.elf_program_headers() {
        if segment.p_type(endian) == PT_LOAD {
            segments.push(Segment {
                address: segment.p_vaddr(endian).into(),
                bytes: segment.p_memsz(endian).into(),
                load: segment.p_paddr(endian).into(),
                executable: segment.p_flags(endian).0 & PF_X.0 != 0,
            });
        }
    }
    if segments.is_empty() {
        let message = "the program has no loadable segments: it is not linked";
        return Err(Error::model(message).help(HELP));
    }
    let sections = file.elf_section_table();
    let symbols = file.elf_symbol_table();
    if symbols.is_empty() {
        return Err(Error::model("the program has no symbols").help(HELP));
    }
    if symbols.len() > limits::LINK_SYMBOLS {
        let message = format!("the program has more than {} symbols", limits::LINK_SYMBOLS);
        return Err(Error::new(Code::Limit, message).help(HELP));
    }
    // Code addresses of Arm's have a lowest bit that says Thumb.
    let thumb = header.e_machine(endian) == EM_ARM;
    let mut linked = Linked::default();
    for (index, symbol) in symbols.enumerate() {
        let Ok(name) = std::str::from_utf8(symbols.symbol_name(endian, symbol).map_err(broken)?) else {
            continue;
        };
        if !wanted.contains(name) || !matches!(symbol.st_type(), STT_FUNC | STT_OBJECT) {
            continue;
        }
        let Some(index) = symbols.symbol_section(endian, symbol, index).map_err(broken)? else {
            continue;
        };
        let section = sections.section(index).map_err(broken)?;
        let flags = section.sh_flags(endian).0;
        if flags & SHF_ALLOC.0 == 0 {
            continue;
        }
        let mut address: u64 = symbol.st_value(endian).into();
        if thumb && symbol.st_type() == STT_FUNC {
            address &= !1;
        }
        let segment = (segments.iter()).find(|s| address.checked_sub(s.address).is_some_and(|offset| offset < s.bytes));
        let section_name = sections.section_name(endian, section).map_err(broken)?;
        linked.symbols.entry(name.to_owned()).or_default().push(Spot {
            address,
            bytes: Some(symbol.st_size(endian).into()),
            load: segment.map(|segment| segment.load.wrapping_add(address - segment.address)),
            section: String::from_utf8_lossy(section_name).into_owned(),
            writable: Some(flags & SHF_WRITE.0 != 0),
            executable: Some(flags & SHF_EXECINSTR.0 != 0 || segment.is_some_and(|segment| segment.executable)),
            stored: Some(section.sh_type(endian) != SHT_NOBITS),
        });
    }
    Ok(linked)
}
