//! Objects of others: what they define, what they need, and whether they fit the target. They are read, never changed.

use crate::data::Bytes;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::target::{Arch, Format, Target};
use ::object::read::archive::ArchiveFile;
use ::object::read::elf::FileHeader;
use ::object::{Architecture, Endianness, FileKind, Object as _, ObjectSymbol, elf};

/// In front of a symbol that Mach-O has without the underscore of C names.
pub(super) const VERBATIM: char = '\u{1}';

/// An object that is put into a library as it is. Its symbols are spelled as in C.
#[derive(Clone, Debug)]
pub struct Extra {
    /// File name of the member.
    pub name: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// Global symbols that it defines, weak ones included, in its order.
    pub defined: Vec<String>,
    /// Those of them that other definitions of the same name contradict.
    pub strong: Vec<String>,
    /// Symbols that it needs from others, sorted.
    pub undefined: Vec<String>,
    /// Who brought it, for messages.
    pub origin: String,
}

/// The objects of a file: itself, or the members of a static library.
///
/// # Errors
/// [`Code::Model`] for a file that is neither or is damaged, or that was compiled for another machine or ABI;
/// [`Code::Limit`] for a library with too many members.
pub fn read(name: &str, bytes: &Bytes, origin: &str, target: &Target) -> Result<Vec<Extra>> {
    let data = bytes.as_slice();
    let at = |error: Error| error.at(format!("{name} of {origin}"));
    if FileKind::parse(data).ok() != Some(FileKind::Archive) {
        return Ok(vec![object(name, bytes.clone(), origin, target).map_err(at)?]);
    }
    let damaged = |error: ::object::Error| Error::model(format!("the library is damaged: {error}"));
    let archive = ArchiveFile::parse(data).map_err(damaged).map_err(at)?;
    if archive.is_thin() {
        return Err(at(
            Error::unsupported("a thin archive only names its objects").help("make it without the T of ar")
        ));
    }
    let mut extras = Vec::new();
    for member in archive.members() {
        let member = member.map_err(damaged).map_err(at)?;
        let (start, size) = member.file_range();
        let member_name = String::from_utf8_lossy(member.name()).into_owned();
        let end = start.checked_add(size);
        let range = end.and_then(|end| bytes.slice(start..end));
        let range = range.ok_or_else(|| at(Error::model(format!("{member_name} is cut short"))))?;
        if extras.len() == limits::ARCHIVE_FILES {
            let message = format!("the library has more than {} members", limits::ARCHIVE_FILES);
            return Err(at(Error::new(Code::Limit, message)));
        }
        let inside = |error: Error| error.at(format!("{member_name} in {name} of {origin}"));
        extras.push(object(&member_name, range, origin, target).map_err(inside)?);
    }
    Ok(extras)
}

fn object(name: &str, bytes: Bytes, origin: &str, target: &Target) -> Result<Extra> {
    let data = bytes.as_slice();
    let kind = FileKind::parse(data).map_err(|_| {
        Error::model("this is neither an object file nor a static library")
            .help(format!("compile it for {}", target.name))
    })?;
    let damaged = |error: ::object::Error| Error::model(format!("the object is damaged: {error}"));
    let fits = match (kind, target.format()) {
        (FileKind::Elf32, Format::Elf) if target.machine().pointer_bytes == 4 => {
            fits(elf::FileHeader32::<Endianness>::parse(data).map_err(damaged)?, target)
        }
        (FileKind::Elf64, Format::Elf) if target.machine().pointer_bytes == 8 => {
            fits(elf::FileHeader64::<Endianness>::parse(data).map_err(damaged)?, target)
        }
        (FileKind::Coff | FileKind::CoffBig, Format::Coff) => Ok(()),
        (FileKind::MachO64, Format::MachO) => Ok(()),
        _ => Err("another format or width".to_owned()),
    };
    let fits = fits.and_then(|()| {
        let file = ::object::File::parse(data).map_err(|error| format!("damage: {error}"))?;
        let found = file.architecture();
        let same = found == architecture(target);
        if same { Ok(file) } else { Err(format!("{found:?}")) }
    });
    let file = fits.map_err(|found| {
        Error::model(format!("the object does not fit {}: it has {found}", target))
            .help(format!("compile it for {}", target.name))
    })?;
    let mut extra = Extra {
        name: name.to_owned(),
        bytes: bytes.clone(),
        defined: Vec::new(),
        strong: Vec::new(),
        undefined: Vec::new(),
        origin: origin.to_owned(),
    };
    for symbol in file.symbols() {
        let Ok(name) = symbol.name() else {
            return Err(Error::model("the object is damaged: a symbol has no legal name"));
        };
        if name.is_empty() || symbol.is_local() {
            continue;
        }
        let name = match (target.format(), name.strip_prefix('_')) {
            (Format::Elf | Format::Coff, _) => name.to_owned(),
            (Format::MachO, Some(name)) => name.to_owned(),
            (Format::MachO, None) => format!("{VERBATIM}{name}"),
        };
        if symbol.is_undefined() {
            extra.undefined.push(name);
        } else if symbol.is_global() {
            if !symbol.is_weak() && !symbol.is_common() {
                extra.strong.push(name.clone());
            }
            extra.defined.push(name);
        }
    }
    extra.undefined.sort_unstable();
    extra.undefined.dedup();
    Ok(extra)
}

fn architecture(target: &Target) -> Architecture {
    match target.arch() {
        Arch::X86_64 => Architecture::X86_64,
        Arch::Aarch64 => Architecture::Aarch64,
        Arch::Riscv64 => Architecture::Riscv64,
        Arch::Riscv32 => Architecture::Riscv32,
        Arch::Thumb2 => Architecture::Arm,
    }
}

/// What linkers refuse or should: the wrong kind of file, byte order or ABI. `Err` is what was found.
fn fits<H: FileHeader<Endian = Endianness>>(header: &H, target: &Target) -> std::result::Result<(), String> {
    let Ok(Endianness::Little) = header.endian() else {
        return Err("big-endian data".into());
    };
    let endian = Endianness::Little;
    if header.e_type(endian) != elf::ET_REL {
        return Err("the form of a linked program".into());
    }
    let (flags, ours) = (header.e_flags(endian), super::elf::flags(target));
    match target.arch() {
        Arch::Riscv64 | Arch::Riscv32 => {
            let abi = |flags: elf::FileFlags| flags.0 & (elf::EF_RISCV_FLOAT_ABI | elf::EF_RISCV_RVE.0);
            if abi(flags) != abi(ours) {
                return Err(format!("the ABI {}", riscv_abi(flags.0, target)));
            }
        }
        Arch::Thumb2 => {
            if flags.0 & elf::EF_ARM_EABIMASK != elf::EF_ARM_EABI_VER5.0 {
                return Err("an ABI other than EABI version 5".into());
            }
        }
        Arch::X86_64 | Arch::Aarch64 => {}
    }
    Ok(())
}

fn riscv_abi(flags: u32, target: &Target) -> String {
    let base = if target.machine().pointer_bytes == 8 {
        "lp64"
    } else {
        "ilp32"
    };
    let float = match flags & 6 {
        0 => "",
        2 => "f",
        4 => "d",
        _ => "q",
    };
    format!("{base}{}{float}", if flags & 8 != 0 { "e" } else { "" })
}
