//! `--region NAME=ORIGIN:LENGTH[:ACCESS]`: the memories of a machine that rules name.

use crate::error::{Code, Error, Result};
use std::fmt;
use std::str::FromStr;

/// A range of addresses with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name: an identifier in every linker's language.
    pub name: String,
    /// First address.
    pub origin: u64,
    /// Bytes.
    pub length: u64,
    /// Whether it is written at run time.
    pub writable: bool,
    /// Whether code may run from it.
    pub executable: bool,
    /// Whether the main linker script has it already: then it is checked against, and no fragment defines it.
    pub existing: bool,
}

/// Longest name of a memory.
const NAME: usize = 64;

impl Region {
    /// A region, checked.
    ///
    /// # Errors
    /// [`Code::Usage`] for a name that is none, an empty range, one past the end of the address space, and access
    /// other than some of `rwx`.
    pub fn new(name: &str, origin: u64, length: u64, access: &str) -> Result<Region> {
        let bad = |what: String| Err(Error::new(Code::Usage, format!("memory {name:?}: {what}")).help(HELP));
        if !is_name(name) {
            return bad("the name is not one that every linker takes".into());
        }
        if length == 0 || origin.checked_add(length - 1).is_none() {
            return bad(format!("{length} bytes at {origin:#x} are no range of addresses"));
        }
        if let Some(other) = access.chars().find(|c| !"rwx".contains(*c)) {
            return bad(format!("{other:?} is no access: r reads, w writes, x executes"));
        }
        Ok(Region {
            name: name.to_owned(),
            origin,
            length,
            writable: access.contains('w'),
            executable: access.contains('x'),
            existing: false,
        })
    }

    /// Whether `size` bytes at `address` are in it.
    pub fn contains(&self, address: u64, size: u64) -> bool {
        let Some(offset) = address.checked_sub(self.origin) else {
            return false;
        };
        offset <= self.length && size <= self.length - offset
    }

    /// Letters of what it allows: `rx`, `rw`, `rwx`, `r`.
    pub fn access(&self) -> String {
        let letters = [(true, 'r'), (self.writable, 'w'), (self.executable, 'x')];
        letters
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, letter)| letter)
            .collect()
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({:#x}..{:#x})",
            self.name,
            self.origin,
            u128::from(self.origin) + u128::from(self.length)
        )
    }
}

const HELP: &str = "a memory is NAME=ORIGIN:LENGTH or NAME=ORIGIN:LENGTH:ACCESS, as in QSPI=0x90000000:16M or \
                    SDRAM=0xc0000000:8M:rw; what is not given is rx";

impl FromStr for Region {
    type Err = Error;

    /// # Errors
    /// As [`Region::new`], and for text of another form.
    fn from_str(text: &str) -> Result<Region> {
        let bad = |what: &str| Error::new(Code::Usage, format!("{text:?} is no memory: {what}")).help(HELP);
        let (name, rest) = text.split_once('=').ok_or_else(|| bad("there is no `=`"))?;
        let mut parts = rest.splitn(3, ':');
        let mut number = |what: &str| {
            let part = parts.next().unwrap_or("");
            number(part).ok_or_else(|| bad(&format!("the {what} is not a number")))
        };
        let (origin, length) = (number("origin")?, number("length")?);
        Region::new(name, origin, length, parts.next().unwrap_or("rx"))
    }
}

/// Whether a memory can have this name: an identifier in every linker's language.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let digit = |c: char| c.is_ascii_digit();
    !name.is_empty() && name.len() <= NAME && name.chars().all(plain) && !name.starts_with(digit)
}

/// A number: decimal, or hexadecimal with `0x`; with `K`, `M` or `G` times powers of 1024.
pub fn number(text: &str) -> Option<u64> {
    let unit = match text.chars().last()?.to_ascii_uppercase() {
        'K' => 1 << 10,
        'M' => 1 << 20,
        'G' => 1 << 30,
        _ => 1,
    };
    let digits = if unit == 1 { text } else { &text[..text.len() - 1] };
    // Signs are not digits, though parsing takes a plus.
    if !digits.chars().all(|c| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    value.checked_mul(unit)
}

/// Memories that can be used together.
///
/// # Errors
/// [`Code::Usage`] for two of one name, two that overlap, and, where addresses have `bits` bits, one beyond them.
pub fn check(regions: &[Region], bits: u32) -> Result<()> {
    let fail = |message: String, help: &str| Err(Error::new(Code::Usage, message).help(help));
    for (i, region) in regions.iter().enumerate() {
        if bits < 64 && region.origin + (region.length - 1) >= 1 << bits {
            return fail(
                format!("the memory {region} ends beyond the {bits}-bit addresses of the target"),
                "give its origin and length as the machine's manual does",
            );
        }
        for other in &regions[..i] {
            if other.name == region.name {
                return fail(
                    format!("the memory {} is described twice", region.name),
                    "keep one description",
                );
            }
            if other.contains(region.origin, 1) || region.contains(other.origin, 1) {
                return fail(
                    format!("the memories {other} and {region} overlap"),
                    "give each its own addresses",
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(text: &str) -> Region {
        text.parse().unwrap()
    }

    #[test]
    fn descriptions() {
        let qspi = region("QSPI=0x90000000:16M");
        assert_eq!(
            (qspi.origin, qspi.length, qspi.access().as_str()),
            (0x9000_0000, 16 << 20, "rx")
        );
        let sdram = region("SDRAM=0xC0000000:0x800000:rw");
        assert_eq!((sdram.length, sdram.access().as_str()), (8 << 20, "rw"));
        assert!(qspi.contains(0x9000_0000, 16 << 20) && !qspi.contains(0x9000_0001, 16 << 20));
        assert!(!qspi.contains(0, 1) && !qspi.contains(u64::MAX, u64::MAX));
        assert_eq!(
            region("TOP=0xffffffffffffffff:1").to_string(),
            "TOP (0xffffffffffffffff..0x10000000000000000)"
        );
    }

    #[test]
    fn descriptions_that_are_none() {
        for (text, expected) in [
            ("QSPI", "there is no `=`"),
            ("=0:1", "the name"),
            ("q spi=0:1", "the name"),
            ("1q=0:1", "the name"),
            ("q=:1", "the origin"),
            ("q=0", "the length"),
            ("q=0x:1", "the origin"),
            ("q=-1:1", "the origin"),
            ("q=+1:1", "the origin"),
            ("q=0:0", "no range"),
            ("q=0xffffffffffffffff:2", "no range"),
            ("q=0:99999999999G", "the length"),
            ("q=0:1:rq", "no access"),
        ] {
            let error = text.parse::<Region>().unwrap_err();
            assert!(
                error.code == Code::Usage && error.message.contains(expected),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn memories_do_not_overlap() {
        let (a, b) = (region("A=0:64K"), region("B=0x10000:64K"));
        assert!(check(&[a.clone(), b.clone()], 32).is_ok());
        for (other, expected) in [
            ("A=0x80000:1", "twice"),
            ("C=0xffff:1", "overlap"),
            ("C=0:4G", "overlap"),
        ] {
            let error = check(&[a.clone(), b.clone(), region(other)], 64).unwrap_err();
            assert!(error.message.contains(expected), "{other}: {error}");
        }
        assert!(check(&[region("A=0:4G")], 32).is_ok());
        assert!(check(&[region("A=1:4G")], 32).unwrap_err().message.contains("32-bit"));
    }
}
