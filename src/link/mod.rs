//! What a linker made of a build: `corerope check-link`.
//!
//! [`built`] reads what was built, from the report (`corerope build --report`) or from the library itself; [`elf`] and
//! [`map`] read what came out; [`check`] compares. All of it is input that nobody vouches for: lengths and counts are
//! bounded by [`limits`](crate::limits), and nothing is indexed unchecked.

pub mod built;
pub mod elf;
pub mod map;
mod text;

use crate::error::Result;
use crate::place::Region;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What something is to the linker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Machine code.
    Code,
    /// A constant.
    Constant,
    /// Zero-initialised memory: the arena.
    Zero,
}

/// Something that was built: a parameter, a kernel, the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its symbol.
    pub symbol: String,
    /// Its section in the object.
    pub section: String,
    /// What it is.
    pub kind: Kind,
    /// Size in bytes.
    pub bytes: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// The memory that it was meant for, if one was named.
    pub memory: Option<String>,
}

/// What was built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// Everything that has a section.
    pub items: Vec<Item>,
    /// The memories that were described.
    pub memory: Vec<Region>,
}

/// Where the linker put something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Address at run time.
    pub address: u64,
    /// Size in bytes, where it is known.
    pub bytes: Option<u64>,
    /// Address in the image, where that is known: what differs is copied at start-up.
    pub load: Option<u64>,
    /// Output section.
    pub section: String,
    /// Whether that section is writable, where it is known.
    pub writable: Option<bool>,
    /// Whether that section is executable, where it is known.
    pub executable: Option<bool>,
    /// Whether the image has bytes for it, where that is known.
    pub stored: Option<bool>,
}

/// What a linker made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    /// Where each symbol is; more than one place is one too many.
    pub symbols: BTreeMap<String, Vec<Spot>>,
    /// Memories that the file itself describes (GNU ld's map).
    pub memory: Vec<Region>,
}

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The symbol that it is about.
    pub symbol: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Symbol.
    pub symbol: String,
    /// What it is.
    pub kind: Kind,
    /// Size in bytes.
    pub bytes: u64,
    /// Address at run time; `None` if the linker dropped it.
    pub address: Option<u64>,
    /// Address in the image, if it is another.
    pub load: Option<u64>,
    /// Output section.
    pub section: Option<String>,
    /// The memory that holds it, if that is described.
    pub memory: Option<String>,
    /// Whether all is well with it.
    pub ok: bool,
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Version of the JSON schema.
    pub schema: u32,
    /// Everything that was built, in its order.
    pub items: Vec<Row>,
    /// Bytes in each memory that is described.
    pub memory: BTreeMap<String, u64>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Most places of one symbol that a message lists.
const SHOWN: usize = 4;

/// Reads a linked program or a map, whichever the bytes are, for what was built.
///
/// # Errors
/// As [`elf::read`] and [`map::read`].
pub fn read(bytes: &[u8], built: &[Built]) -> Result<Linked> {
    let items = built.iter().flat_map(|built| &built.items);
    let wanted: BTreeSet<&str> = items.map(|item| item.symbol.as_str()).collect();
    if bytes.starts_with(b"\x7fELF") {
        elf::read(bytes, &wanted)
    } else {
        map::read(bytes, &wanted)
    }
}

/// Compares what was built with what was linked. `regions` are described by the user and come before those of the
/// build's and of the linker's own.
pub fn check(built: &[Built], linked: &Linked, regions: &[Region]) -> Checked {
    let mut known: Vec<&Region> = regions.iter().collect();
    for region in built.iter().flat_map(|built| &built.memory).chain(&linked.memory) {
        if !known.iter().any(|other| other.name == region.name) {
            known.push(region);
        }
    }
    let mut checked = Checked {
        schema: 1,
        ..Checked::default()
    };
    for item in built.iter().flat_map(|built| &built.items) {
        let spots = linked.symbols.get(&item.symbol).map_or(&[][..], Vec::as_slice);
        let mut findings = Vec::new();
        let spot = spots.first();
        let holder = spot.and_then(|spot| known.iter().find(|region| region.contains(spot.address, item.bytes)));
        if let Some(spot) = spot {
            judge(item, spot, &known, holder.copied(), &mut |message, help| {
                findings.push(Finding {
                    symbol: item.symbol.clone(),
                    message,
                    help,
                });
            });
        }
        if spots.len() > 1 {
            let places: Vec<String> = spots
                .iter()
                .take(SHOWN)
                .map(|spot| format!("{:#x}", spot.address))
                .collect();
            findings.push(Finding {
                symbol: item.symbol.clone(),
                message: format!("is there {} times: at {}", spots.len(), places.join(", ")),
                help: "link one library of this model, once; give a second model another --name".into(),
            });
        }
        if let (Some(holder), Some(_)) = (holder, spot) {
            let bytes = checked.memory.entry(holder.name.clone()).or_default();
            *bytes = bytes.saturating_add(item.bytes);
        }
        checked.items.push(Row {
            symbol: item.symbol.clone(),
            kind: item.kind,
            bytes: item.bytes,
            address: spot.map(|spot| spot.address),
            load: spot.and_then(|spot| spot.load.filter(|load| *load != spot.address)),
            section: spot.map(|spot| spot.section.clone()),
            memory: holder.map(|region| region.name.clone()),
            ok: findings.is_empty(),
        });
        checked.findings.append(&mut findings);
    }
    if !checked.items.is_empty() && checked.items.iter().all(|row| row.address.is_none()) {
        checked.findings.push(Finding {
            symbol: checked.items[0].symbol.clone(),
            message: "nothing of what was built is in the program".into(),
            help: "call the model's function, link its library, and check the file with its symbols, before `strip`"
                .into(),
        });
    }
    checked
}

/// What is wrong with one thing in one place.
fn judge(item: &Item, spot: &Spot, known: &[&Region], holder: Option<&Region>, report: &mut dyn FnMut(String, String)) {
    let Item { section, align, .. } = item;
    let at = spot.address;
    if let Some(bytes) = spot.bytes.filter(|bytes| *bytes != item.bytes) {
        report(
            format!("has {bytes} bytes, {} were built", item.bytes),
            "the library of another build was linked: link this one, or check against that one's report".into(),
        );
        return;
    }
    if *align > 1 && !at.is_multiple_of(*align) {
        report(
            format!("is at {at:#x}, which is not aligned to {align} bytes"),
            format!(
                "the script overrides alignments (SUBALIGN, a packed output section): align {} to {align}",
                spot.section
            ),
        );
    }
    let wanted = item.memory.as_ref();
    if let Some(wanted) = wanted {
        match known.iter().find(|region| region.name == *wanted) {
            Some(region) if !region.contains(at, item.bytes) => report(
                format!("is at {at:#x} in {}, not in {region}", spot.section),
                format!(
                    "no rule of the script took {section} before another did: give the fragment first \
                     (-T fragment.ld -T board.ld), or send {section} to {wanted} in the script"
                ),
            ),
            _ => {}
        }
    }
    if item.kind == Kind::Zero {
        if spot.writable == Some(false) {
            report(
                format!("is in {}, which is read-only", spot.section),
                format!("send {section} to an output section in memory that is written, like .bss"),
            );
        }
        if spot.stored == Some(true) {
            report(
                format!("has its {} zeros stored in the image, in {}", item.bytes, spot.section),
                format!("give {section} an output section of its own, of the type (NOLOAD)"),
            );
        }
        return;
    }
    let data = spot.section == ".data" || spot.section.starts_with(".data.") || spot.section == ".sdata";
    if data || spot.writable == Some(true) {
        report(
            format!(
                "is in {}, which is writable: it takes RAM and is copied at start-up",
                spot.section
            ),
            format!("send {section} to .rodata or to an output section of its own in flash"),
        );
    } else if let Some(load) = spot.load.filter(|load| *load != at) {
        // Flash that is mapped elsewhere is read in place, and memory that is written was meant to be loaded.
        let meant = holder.is_some_and(|region| !region.writable || wanted == Some(&region.name));
        if !meant {
            report(
                format!("is stored at {load:#x} and runs at {at:#x}: the start-up code would have to copy it"),
                format!(
                    "let {} be loaded where it is (`> MEMORY AT> MEMORY`), or, if {load:#x} is flash that is mapped to \
                     {at:#x}, describe that memory as read-only: --region NAME=ORIGIN:LENGTH:rx",
                    spot.section
                ),
            );
        }
    }
    if item.kind == Kind::Code && spot.executable == Some(false) {
        report(
            format!("is in {}, which is not executable", spot.section),
            format!("send {section} to .text or to an output section of code"),
        );
    }
}

#[cfg(test)]
mod tests;
