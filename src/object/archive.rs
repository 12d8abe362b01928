//! Static libraries, each with the index that its linkers read: GNU `ar` for ELF, Microsoft's variant for COFF, BSD's
//! for Mach-O. Dates, owners and modes are constant.

use super::foreign::{Extra, VERBATIM};
use super::stream::{Output, Pipe};
use super::unit::{self, Unit};
use super::{Layout, ObjectPlan, Prepared};
use crate::data::Contents;
use crate::error::{Code, Error, Result};
use crate::target::{Format, Target};
use std::borrow::Cow;
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

/// Writes an archive of whole objects with an index of their symbols. Members are streamed: their sizes are computed
/// first.
///
/// # Errors
/// As [`super::write`]; [`Code::Limit`] for a member of 10 GB, for a COFF library of 4 GiB or 65,535 members, which the
/// format cannot express. Nothing is written then.
pub fn write(members: &[Member], target: &Target, out: &mut dyn io::Write) -> Result<()> {
    let units = members.iter().map(|member| Unit::whole(member.plan)).collect();
    let names = members.iter().map(|member| member.name.to_owned()).collect();
    write_units(names, units, &[], target, out)
}

/// Writes a library of objects, each split into members so that a linker takes what is referred to and nothing else. Of
/// each object, the first member has its name.
///
/// # Errors
/// As [`write`].
pub fn library(objects: &[Member], target: &Target, out: &mut dyn io::Write) -> Result<()> {
    library_with(objects, &[], target, out)
}

/// [`library`] with objects of others behind the members.
///
/// # Errors
/// As [`write`].
pub fn library_with(objects: &[Member], extras: &[Extra], target: &Target, out: &mut dyn io::Write) -> Result<()> {
    let (mut names, mut units) = (Vec::new(), Vec::new());
    for Member { name, plan } in objects {
        let shares = unit::shares(plan);
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, "o"));
        names.extend(shares.iter().map(|share| format!("{stem}{}.{extension}", share.suffix)));
        units.extend(unit::units(plan, &shares));
    }
    write_units(names, units, extras, target, out)
}

/// How an archive is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gnu,
    Coff,
    Bsd,
}

fn write_units(
    mut names: Vec<String>,
    units: Vec<Unit>,
    extras: &[Extra],
    target: &Target,
    out: &mut dyn io::Write,
) -> Result<()> {
    let kind = match target.format() {
        Format::Elf => Kind::Gnu,
        Format::Coff => Kind::Coff,
        Format::MachO => Kind::Bsd,
    };
    names.extend(extras.iter().map(|extra| extra.name.clone()));
    let own = (units.iter().enumerate()).flat_map(|(i, unit)| defined(unit).map(move |name| (name, i)));
    let others = (units.len()..).zip(extras).flat_map(|(i, extra)| {
        let defined = extra.defined.iter();
        defined.map(move |name| (name.as_str(), i))
    });
    let spelled: Vec<(Cow<str>, usize)> = own.chain(others).map(|(name, i)| (spelled(name, kind), i)).collect();
    let symbols: Vec<(&str, usize)> = spelled.iter().map(|(name, i)| (&**name, *i)).collect();
    let prepared: Vec<Prepared> = units
        .into_iter()
        .map(|unit| Prepared::new(unit, target))
        .collect::<Result<_>>()?;
    let output = Output::new(out);
    let written = {
        let mut pipes: Vec<Pipe> = prepared.iter().map(|_| Pipe(Some(&output))).collect();
        let layouts = prepared
            .iter()
            .zip(&mut pipes)
            .map(|(prepared, pipe)| prepared.layout(pipe));
        let layouts: Vec<Layout> = layouts.collect::<Result<_>>()?;
        let sizes = layouts.iter().map(Layout::size);
        let sizes: Vec<u64> = sizes.chain(extras.iter().map(|extra| extra.bytes.len())).collect();
        let index = Index::new(kind, &names, &symbols, &sizes)?;
        output.write(&index.head(&symbols));
        let (own, others) = index.members.split_at(layouts.len());
        let end = |member: &Frame| output.write(&b"\n\n\n\n\n\n\n\n"[..member.padding]);
        let written = (layouts.into_iter().zip(own)).try_for_each(|(layout, member)| {
            output.write(&member.header);
            layout.write(&output)?;
            end(member);
            Ok(())
        });
        written.and_then(|()| {
            (extras.iter().zip(others)).try_for_each(|(extra, member)| {
                output.write(&member.header);
                let contents = Contents::Bytes(extra.bytes.clone());
                output.copy(&contents, &extra.name, |bytes| output.write(bytes))?;
                end(member);
                Ok(())
            })
        })
    };
    output.cause(written)
}

/// A symbol as the objects have it.
fn spelled(name: &str, kind: Kind) -> Cow<'_, str> {
    match (kind, name.strip_prefix(VERBATIM)) {
        (Kind::Bsd, None) => Cow::Owned(format!("_{name}")),
        (_, Some(name)) => Cow::Borrowed(name),
        (_, None) => Cow::Borrowed(name),
    }
}

/// The symbols that a linker may look for in an object.
fn defined<'a>(unit: &Unit<'a>) -> impl Iterator<Item = &'a str> {
    (unit.symbols.iter())
        .filter(|entry| entry.section.is_some() && !entry.is_local())
        .map(|entry| entry.symbol.name.as_str())
}

fn too_large(message: String) -> Error {
    Error::new(Code::Limit, message)
}

/// What stands around a member.
struct Frame {
    header: Vec<u8>,
    /// Bytes behind the object, in its size or not.
    padding: usize,
}

/// Where everything is.
struct Index {
    kind: Kind,
    /// Bytes of an offset.
    width: u64,
    offsets: Vec<u64>,
    members: Vec<Frame>,
    long: Vec<u8>,
}

impl Index {
    fn new(kind: Kind, names: &[String], symbols: &[(&str, usize)], sizes: &[u64]) -> Result<Self> {
        for (size, name) in sizes.iter().zip(names) {
            if *size >= 10_000_000_000 {
                return Err(too_large(format!(
                    "an archive's member is smaller than 10 GB, {name} needs {size} bytes"
                ))
                .help("write an object (.o) instead of an archive"));
            }
        }
        if kind == Kind::Coff && sizes.len() > usize::from(u16::MAX) {
            return Err(too_large(format!(
                "a COFF library has at most 65535 members, this one needs {}",
                sizes.len()
            )));
        }
        let LongNames { names, table } = match kind {
            Kind::Bsd => LongNames {
                names: names.to_vec(),
                table: Vec::new(),
            },
            _ => LongNames::new(names, kind == Kind::Coff),
        };
        let mut index = Index {
            kind,
            width: 4,
            offsets: Vec::new(),
            members: Vec::new(),
            long: table,
        };
        // The index's size depends on its width, and the members' offsets on the index's size.
        index.place(&names, symbols, sizes);
        if index.offsets.last().is_some_and(|last| *last > u64::from(u32::MAX)) {
            if kind == Kind::Coff {
                return Err(too_large(
                    "the offsets of a COFF library are smaller than 4 GiB".to_owned(),
                ));
            }
            index.width = 8;
            index.place(&names, symbols, sizes);
        }
        Ok(index)
    }

    fn place(&mut self, names: &[String], symbols: &[(&str, usize)], sizes: &[u64]) {
        let mut at = MAGIC.len() as u64;
        at += match self.kind {
            Kind::Bsd => {
                let (_, name) = bsd_name(self.bsd_index_name(), at);
                HEADER + name + self.bsd_size(symbols)
            }
            _ => HEADER + even(first_size(symbols, self.width)),
        };
        if self.kind == Kind::Coff {
            at += HEADER + even(second_size(symbols, sizes.len()));
        }
        if !self.long.is_empty() {
            at += HEADER + even(self.long.len() as u64);
        }
        self.offsets.clear();
        self.members.clear();
        for (name, &size) in names.iter().zip(sizes) {
            self.offsets.push(at);
            let mut bytes = Vec::with_capacity(HEADER as usize);
            let padding = match self.kind {
                // Apple's linkers want objects at multiples of 8 bytes.
                Kind::Bsd => {
                    let padding = size.next_multiple_of(8) - size;
                    bsd_header(&mut bytes, name, at, "644", size + padding);
                    padding
                }
                _ => {
                    header(&mut bytes, name, Some("644"), size);
                    size % 2
                }
            };
            at += bytes.len() as u64 + size + padding;
            self.members.push(Frame {
                header: bytes,
                padding: padding as usize,
            });
        }
    }

    /// Everything before the first member.
    fn head(&self, symbols: &[(&str, usize)]) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        match self.kind {
            Kind::Bsd => self.bsd_index(&mut head, symbols),
            _ => first_index(&mut head, symbols, &self.offsets, self.width),
        }
        if self.kind == Kind::Coff {
            second_index(&mut head, symbols, &self.offsets);
        }
        if !self.long.is_empty() {
            header(&mut head, "//", None, self.long.len() as u64);
            head.extend_from_slice(&self.long);
            pad(&mut head, b'\n');
        }
        head
    }

    fn bsd_index_name(&self) -> &'static str {
        if self.width == 8 { "__.SYMDEF_64" } else { "__.SYMDEF" }
    }

    /// Two lists behind their sizes: of pairs (offset of the name, offset of the member), and of names.
    fn bsd_size(&self, symbols: &[(&str, usize)]) -> u64 {
        2 * self.width + 2 * self.width * symbols.len() as u64 + names_size(symbols).next_multiple_of(8)
    }

    fn bsd_index(&self, bytes: &mut Vec<u8>, symbols: &[(&str, usize)]) {
        let at = bytes.len() as u64;
        bsd_header(bytes, self.bsd_index_name(), at, "0", self.bsd_size(symbols));
        let width = self.width as usize;
        let number = |bytes: &mut Vec<u8>, value: u64| bytes.extend_from_slice(&value.to_le_bytes()[..width]);
        number(bytes, 2 * self.width * symbols.len() as u64);
        let mut name_at = 0;
        for (name, member) in symbols {
            number(bytes, name_at);
            number(bytes, self.offsets[*member]);
            name_at += name.len() as u64 + 1;
        }
        let padded = name_at.next_multiple_of(8);
        number(bytes, padded);
        names(bytes, symbols);
        bytes.resize(bytes.len() + (padded - name_at) as usize, 0);
    }
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

fn names(bytes: &mut Vec<u8>, symbols: &[(&str, usize)]) {
    for (name, _) in symbols {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
    }
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

/// A name behind the header of a member at `at`, and its length with zeros up to a multiple of 8 bytes in the file.
fn bsd_name(name: &str, at: u64) -> (&str, u64) {
    let start = at + HEADER;
    (name, (start + name.len() as u64).next_multiple_of(8) - start)
}

/// The size in the header counts the name.
fn bsd_header(bytes: &mut Vec<u8>, name: &str, at: u64, mode: &str, size: u64) {
    let (name, padded) = bsd_name(name, at);
    header(bytes, &format!("#1/{padded}"), Some(mode), padded + size);
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(bytes.len() + padded as usize - name.len(), 0);
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
    names(bytes, symbols);
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
    names(bytes, &sorted);
    pad(bytes, 0);
}

/// Member names as headers carry them; those of more than 15 bytes live in a table of their own.
struct LongNames {
    names: Vec<String>,
    table: Vec<u8>,
}

impl LongNames {
    fn new(members: &[String], coff: bool) -> Self {
        let mut table = Vec::new();
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        let names = (members.iter())
            .map(|name| {
                if name.len() <= 15 && !name.contains(['/', ' ']) {
                    return format!("{name}/");
                }
                let offset = *known.entry(name).or_insert_with(|| {
                    let offset = table.len();
                    table.extend_from_slice(name.as_bytes());
                    table.extend_from_slice(if coff { b"\0" } else { b"/\n" });
                    offset
                });
                format!("/{offset}")
            })
            .collect();
        // Counted in the table's size: readelf stumbles over padding behind it.
        pad(&mut table, if coff { 0 } else { b'\n' });
        LongNames { names, table }
    }
}
