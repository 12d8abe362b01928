//! What each object format and each linker takes as the name of a section.

use crate::object::SectionKind;
use crate::target::Format;

/// Longest name of a section: linkers' listings and their scripts stay readable, and no format has less room.
const LONGEST: usize = 200;
/// A section's name in a program of COFF's.
const COFF: usize = 8;

/// Why a rule cannot name a section `name`, in any format.
pub(super) fn word(name: &str) -> Result<(), &'static str> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$' | '-');
    if name.is_empty() || !name.chars().all(word) || name.starts_with('-') {
        return Err("the section's name is not one: letters, digits, `_`, `.`, `$` and `-` make a name");
    }
    if name.len() > LONGEST {
        return Err("the section's name is too long");
    }
    Ok(())
}

/// Why what has the kind `kind` cannot be in the section `name` of an object in `format`, and what to do about it.
pub(super) fn check(name: &str, kind: SectionKind, format: Format) -> Result<(), (String, &'static str)> {
    let of = |prefix: &str| {
        name == prefix
            || name
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(['.', '$']))
    };
    let zero = kind == SectionKind::Zero;
    if zero && [".text", ".rodata", ".rdata", ".data"].iter().any(|prefix| of(prefix)) {
        let why = format!("the arena cannot be in {name}: linkers would store its zeros in flash");
        return Err((
            why,
            "choose a name of your own, like .sdram, or one that starts with .bss",
        ));
    }
    if !zero
        && [".bss", ".sbss", ".noinit", ".tbss", ".tdata"]
            .iter()
            .any(|prefix| of(prefix))
    {
        let why = format!("what has contents cannot be in {name}, where nothing is loaded");
        return Err((
            why,
            "choose a name of your own, like .qspi, or one that starts with .rodata",
        ));
    }
    if format == Format::Coff {
        // `.rodata.x` becomes `.rdata$x`; behind `$` is an order, which the program does not keep.
        let kept = name.split('$').next().unwrap_or(name);
        let ours = [".text.", ".rodata.", ".bss."]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if !ours && kept.len() > COFF {
            let why = format!(
                "{kept} has {} bytes, and a section's name in a Windows program has {COFF}",
                kept.len()
            );
            return Err((why, "choose a shorter name: what follows a `$` does not count"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in [".qspi", "QSPI", ".rodata.kws.w", "a$b", "_x-y"] {
            assert!(word(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "-x",
            "a b",
            "a\"",
            "a;b",
            "a(b)",
            "é",
            "a,b",
            "a*",
            &"x".repeat(201),
        ] {
            assert!(word(name).is_err(), "{name}");
        }
    }

    #[test]
    fn kinds_and_formats() {
        use SectionKind::{ReadOnlyData, Text, Zero};
        for (name, kind, format, ok) in [
            (".qspi", ReadOnlyData, Format::Elf, true),
            (".external_flash", Text, Format::Elf, true),
            (".external_flash", Text, Format::Coff, false),
            (".weights", ReadOnlyData, Format::Coff, true),
            (".weight$kws_all_of_it", ReadOnlyData, Format::Coff, true),
            (".rodata.kws.weights", ReadOnlyData, Format::Coff, true),
            (".rodata.kws.arena", Zero, Format::Elf, false),
            (".rodatas", Zero, Format::Elf, true),
            (".bss.kws.w", ReadOnlyData, Format::Elf, false),
            (".bss", Zero, Format::Elf, true),
            (".noinit", Text, Format::Elf, false),
            (".data.kws", ReadOnlyData, Format::Elf, true),
        ] {
            assert_eq!(check(name, kind, format).is_ok(), ok, "{name} {kind:?} {format:?}");
        }
    }
}
