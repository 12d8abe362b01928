//! Static libraries: GNU `ar` for ELF, Microsoft's variant for COFF. Dates, owners and modes are constant.

use super::{ObjectPlan, Visibility, size, stream, write as write_object};
use crate::error::{Error, Result};
use crate::target::{Format, Target};
use std::collections::BTreeMap;
use std::io;

/// An object in an archive.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// File name: `kws.o`.
    pub name: &'a str,
    /// The object.
    pub plan: &'a ObjectPlan,
}

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: u64 = 60;

/// Writes an archive with a symbol index (`/`, or `/SYM64/` where an offset exceeds 32 bits; for COFF also the second,
/// sorted linker member). Members are streamed: their sizes are computed first.
///
/// # Errors
/// As [`super::write`]; [`Code::Limit`](crate::error::Code::Limit) for a member of 10 GB or a COFF library of 4 GiB,
/// which the format cannot express.
pub fn write(members: &[Member], target: &Target, out: &mut dyn io::Write) -> Result<()> {
    let sizes: Vec<u64> = members
        .iter()
        .map(|member| size(member.plan, target))
        .collect::<Result<_>>()?;
    let coff = target.format() == Format::Coff;
    for (member, size) in members.iter().zip(&sizes) {
        if *size >= 10_000_000_000 {
            return Err(too_large(format!(
                "an archive's member is smaller than 10 GB, {} needs {size} bytes",
                member.name
            ))
            .help("write an object (.o) instead of an archive"));
        }
    }
    let long = LongNames::new(members, coff);
    let symbols: Vec<(&str, usize)> = (members.iter().enumerate())
        .flat_map(|(i, member)| defined(member.plan).map(move |name| (name, i)))
        .collect();

    // The index's size depends on its width, and the members' offsets on the index's size.
    let offsets_for = |width: u64| {
        let mut at = MAGIC.len() as u64 + HEADER + even(first_size(&symbols, width));
        if coff {
            at += HEADER + even(second_size(&symbols, members.len()));
        }
        if !long.table.is_empty() {
            at += HEADER + even(long.table.len() as u64);
        }
        let mut offsets = Vec::with_capacity(members.len());
        for size in &sizes {
            offsets.push(at);
            at += HEADER + even(*size);
        }
        offsets
    };
    let mut width = 4;
    let mut offsets = offsets_for(width);
    if offsets.last().is_some_and(|last| *last > u64::from(u32::MAX)) {
        if coff {
            return Err(too_large(
                "the offsets of a COFF library are smaller than 4 GiB".to_owned(),
            ));
        }
        width = 8;
        offsets = offsets_for(width);
    }

    let mut head = MAGIC.to_vec();
    first_index(&mut head, &symbols, &offsets, width);
    if coff {
        second_index(&mut head, &symbols, &offsets);
    }
    if !long.table.is_empty() {
        header(&mut head, "//", None, long.table.len() as u64);
        head.extend_from_slice(&long.table);
        pad(&mut head, b'\n');
    }
    let io_failed = |error: io::Error| stream::failed("write", &error);
    out.write_all(&head).map_err(io_failed)?;
    for ((member, name), size) in members.iter().zip(&long.names).zip(&sizes) {
        let mut head = Vec::with_capacity(HEADER as usize);
        header(&mut head, name, Some("644"), *size);
        out.write_all(&head).map_err(io_failed)?;
        write_object(member.plan, target, out)?;
        if size % 2 == 1 {
            out.write_all(b"\n").map_err(io_failed)?;
        }
    }
    out.flush().map_err(io_failed)
}

fn too_large(message: String) -> Error {
    Error::new(crate::error::Code::Limit, message)
}

/// The symbols that a linker may look for in an object.
fn defined(plan: &ObjectPlan) -> impl Iterator<Item = &str> {
    (plan.symbols.iter())
        .filter(|symbol| {
            symbol.section.is_some() && !matches!(symbol.visibility, Visibility::Local | Visibility::Section)
        })
        .map(|symbol| symbol.name.as_str())
}

fn even(size: u64) -> u64 {
    size + size % 2
}

fn pad(bytes: &mut Vec<u8>, with: u8) {
    if bytes.len() % 2 == 1 {
        bytes.push(with);
    }
}

fn names_size(symbols: &[(&str, usize)]) -> u64 {
    symbols.iter().map(|(name, _)| name.len() as u64 + 1).sum()
}

/// Sixty bytes. Without a mode, owner and date are those that `ar` gives its own members.
fn header(bytes: &mut Vec<u8>, name: &str, mode: Option<&str>, size: u64) {
    let fields = if name == "//" {
        ["", "", "", ""]
    } else {
        ["0", "0", "0", mode.unwrap_or("0")]
    };
    let [date, uid, gid, mode] = fields;
    bytes.extend_from_slice(format!("{name:<16}{date:<12}{uid:<6}{gid:<6}{mode:<8}{size:<10}`\n").as_bytes());
}

/// Size of the index that every linker reads, without padding.
fn first_size(symbols: &[(&str, usize)], width: u64) -> u64 {
    width * (1 + symbols.len() as u64) + names_size(symbols)
}

/// Offsets are big-endian, in the order of the members.
fn first_index(bytes: &mut Vec<u8>, symbols: &[(&str, usize)], offsets: &[u64], width: u64) {
    let name = if width == 8 { "/SYM64/" } else { "/" };
    header(bytes, name, None, even(first_size(symbols, width)));
    let number = |bytes: &mut Vec<u8>, value: u64| bytes.extend_from_slice(&value.to_be_bytes()[8 - width as usize..]);
    number(bytes, symbols.len() as u64);
    for (_, member) in symbols {
        number(bytes, offsets[*member]);
    }
    for (name, _) in symbols {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
    }
    pad(bytes, 0);
}

/// Size of Microsoft's second index, without padding.
fn second_size(symbols: &[(&str, usize)], members: usize) -> u64 {
    4 + 4 * members as u64 + 4 + 2 * symbols.len() as u64 + names_size(symbols)
}

/// Little-endian, names sorted, members by number from 1.
fn second_index(bytes: &mut Vec<u8>, symbols: &[(&str, usize)], offsets: &[u64]) {
    header(bytes, "/", None, even(second_size(symbols, offsets.len())));
    // Sorted by bytes; of equal names the first member's counts.
    let mut sorted: Vec<(&str, usize)> = symbols.to_vec();
    sorted.sort();
    bytes.extend_from_slice(&(offsets.len() as u32).to_le_bytes());
    for offset in offsets {
        bytes.extend_from_slice(&(*offset as u32).to_le_bytes());
    }
    bytes.extend_from_slice(&(sorted.len() as u32).to_le_bytes());
    for (_, member) in &sorted {
        bytes.extend_from_slice(&(*member as u16 + 1).to_le_bytes());
    }
    for (name, _) in &sorted {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
    }
    pad(bytes, 0);
}

/// Member names as headers carry them; those of more than 15 bytes live in a table of their own.
struct LongNames {
    names: Vec<String>,
    table: Vec<u8>,
}

impl LongNames {
    fn new(members: &[Member], coff: bool) -> Self {
        let mut table = Vec::new();
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        let names = (members.iter())
            .map(|member| {
                if member.name.len() <= 15 && !member.name.contains(['/', ' ']) {
                    return format!("{}/", member.name);
                }
                let offset = *known.entry(member.name).or_insert_with(|| {
                    let offset = table.len();
                    table.extend_from_slice(member.name.as_bytes());
                    table.extend_from_slice(if coff { b"\0" } else { b"/\n" });
                    offset
                });
                format!("/{offset}")
            })
            .collect();
        LongNames { names, table }
    }
}
