//! A linker's map: GNU ld's (`-Map`) or lld's.

use super::{Linked, Spot};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::place::Region;
use std::collections::BTreeSet;

/// Reads where the symbols `wanted` are.
///
/// # Errors
/// [`Code::Model`] for text that is neither map, [`Code::Limit`] for more than [`limits::MAP_BYTES`].
pub fn read(bytes: &[u8], wanted: &BTreeSet<&str>) -> Result<Linked> {
    if bytes.len() as u64 > limits::MAP_BYTES {
        let message = format!("the map is larger than {} bytes", limits::MAP_BYTES);
        return Err(Error::new(Code::Limit, message).help("check the linked program (ELF) instead"));
    }
    let text = String::from_utf8_lossy(bytes);
    if text
        .lines()
        .next()
        .is_some_and(|line| fields(line) == ["VMA", "LMA", "Size", "Align", "Out", "In", "Symbol"])
    {
        Ok(lld(&text, wanted))
    } else if text.contains(GNU) {
        Ok(gnu(&text, wanted))
    } else {
        Err(Error::model("neither a linked program nor a map of GNU ld or lld")
            .help("give the ELF file, or the file that the linker wrote with -Map"))
    }
}

const GNU: &str = "Linker script and memory map";

fn fields(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// An output section in a map.
#[derive(Clone, Default)]
struct Output {
    name: String,
    address: u64,
    load: u64,
}

impl Output {
    fn spot(&self, address: u64, bytes: Option<u64>) -> Spot {
        Spot {
            address,
            bytes,
            load: Some(self.load.wrapping_add(address.wrapping_sub(self.address))),
            section: self.name.clone(),
            writable: None,
            executable: None,
            stored: None,
        }
    }
}

/// GNU ld's: an output section begins in the first column, an input section in the second, a symbol where only spaces
/// are in front of its address. Long names have the rest of their line on the next.
fn gnu(text: &str, wanted: &BTreeSet<&str>) -> Linked {
    let mut linked = Linked::default();
    let (before, map) = text.split_once(GNU).unwrap_or(("", text));
    let memory = before
        .split_once("Memory Configuration")
        .map_or("", |(_, memory)| memory);
    for line in memory.lines() {
        if let [name, origin, length, ref rest @ ..] = fields(line)[..] {
            // What has no attributes may be written.
            let access = rest
                .first()
                .map_or("rwx", |attributes| attributes.split('!').next().unwrap_or(""));
            let access: String = access.chars().filter(|c| "rwx".contains(*c)).collect();
            if let (Some(origin), Some(length)) = (hex(origin), hex(length)) {
                linked.memory.extend(Region::new(name, origin, length, &access).ok());
            }
        }
    }

    let mut output = Output::default();
    let mut input = (0, 0);
    // The name on a line of its own, and whether it is an output section's.
    let mut waiting: Option<(&str, bool)> = None;
    for line in map.lines() {
        let words = fields(line);
        let whole = waiting.take();
        match words[..] {
            // Behind a long name, or a line of its own: an address and a size.
            [address, size, ..] if hex(address).is_some() && hex(size).is_some() => {
                if let Some((name, is_output)) = whole {
                    section(&mut output, &mut input, name, is_output, &words);
                }
            }
            [address, name] if hex(address).is_some() && wanted.contains(name) => {
                let address = hex(address).unwrap_or(0);
                // Everything of ours begins where its section does.
                let bytes = (input.0 == address).then_some(input.1);
                linked
                    .symbols
                    .entry(name.to_owned())
                    .or_default()
                    .push(output.spot(address, bytes));
            }
            [name] if !line.starts_with("  ") && !name.starts_with('*') => {
                waiting = Some((name, !line.starts_with(' ')));
            }
            [name, ref rest @ ..] if !line.starts_with("  ") && rest.len() >= 2 => {
                section(&mut output, &mut input, name, !line.starts_with(' '), rest);
            }
            _ => {}
        }
    }
    linked
}

/// Notes a section: `rest` is its address, its size, and where it is loaded or which file it comes from.
fn section(output: &mut Output, input: &mut (u64, u64), name: &str, is_output: bool, rest: &[&str]) {
    let (Some(address), Some(size)) = (hex(rest[0]), hex(rest[1])) else {
        return;
    };
    if !is_output {
        *input = (address, size);
        return;
    }
    let load = match rest.get(2..5) {
        Some(["load", "address", load]) => hex(load),
        _ => None,
    };
    *output = Output {
        name: name.to_owned(),
        address,
        load: load.unwrap_or(address),
    };
}

/// lld's: addresses, size and alignment, then the name, the deeper the smaller the thing.
fn lld(text: &str, wanted: &BTreeSet<&str>) -> Linked {
    let mut linked = Linked::default();
    let mut output = Output::default();
    let mut input = 0;
    for line in text.lines().skip(1) {
        let Some((numbers, name)) = columns(line) else { continue };
        let [address, load, size, _] = numbers;
        let depth = name.len() - name.trim_start().len();
        let name = name.trim();
        match depth {
            1 => {
                output = Output {
                    name: name.to_owned(),
                    address,
                    load,
                }
            }
            9 => input = address,
            _ if wanted.contains(name) => {
                // The lowest bit says Thumb.
                let address = if address == input | 1 { input } else { address };
                let bytes = Some(size).filter(|size| *size > 0);
                linked
                    .symbols
                    .entry(name.to_owned())
                    .or_default()
                    .push(output.spot(address, bytes));
            }
            _ => {}
        }
    }
    linked
}

/// Three numbers in hexadecimal, one in decimal, and the rest with its spaces.
fn columns(line: &str) -> Option<([u64; 4], &str)> {
    let mut rest = line;
    let mut numbers = [0; 4];
    for (i, number) in numbers.iter_mut().enumerate() {
        rest = rest.trim_start();
        let end = rest.find(' ')?;
        *number = u64::from_str_radix(&rest[..end], if i < 3 { 16 } else { 10 }).ok()?;
        rest = &rest[end..];
    }
    Some((numbers, rest))
}
