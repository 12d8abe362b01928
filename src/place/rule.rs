//! One rule: its conditions and the section that it gives.

use super::glob::Glob;
use super::home;
use super::memory::number;
use super::section;
use crate::error::{Code, Error, Result};
use std::cmp::Ordering;
use std::str::FromStr;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it comes from and what it says, for messages: `--place "fc*=.qspi"`.
    pub label: String,
    /// What it says, for reports: `fc*=.qspi`.
    pub text: String,
    /// All of them must hold.
    pub(super) conditions: Vec<Condition>,
    /// Where it puts what it takes.
    pub section: String,
    /// The memory that the section lies in, if it is named.
    pub memory: Option<String>,
    /// The least alignment of what it takes.
    pub align: Option<u64>,
}

/// What a rule asks of a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// One of these matches one of its names.
    Name(Vec<Glob>),
    /// Its size compares to the number in one of these ways.
    Size(&'static [Ordering], u64),
    /// It is of one of these kinds.
    Kind(Vec<Kind>),
}

/// What a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A filter or a matrix.
    Weights,
    /// Biases, with the requantization constants beside them.
    Bias,
    /// A lookup table.
    Table,
    /// A constant of the model that is read as it is.
    Constant,
    /// Machine code.
    Code,
    /// The arena.
    Arena,
}

impl Kind {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Kind); 6] = [
        ("weights", Kind::Weights),
        ("bias", Kind::Bias),
        ("table", Kind::Table),
        ("constant", Kind::Constant),
        ("code", Kind::Code),
        ("arena", Kind::Arena),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        let named = Kind::ALL.iter().find(|(_, kind)| *kind == self);
        named.map_or("", |(name, _)| name)
    }
}

const COMPARISONS: [(&str, &[Ordering]); 5] = [
    (">=", &[Ordering::Greater, Ordering::Equal]),
    ("<=", &[Ordering::Less, Ordering::Equal]),
    (">", &[Ordering::Greater]),
    ("<", &[Ordering::Less]),
    ("=", &[Ordering::Equal]),
];

/// Largest alignment that a rule may ask for: a page of the largest kind that linkers place by.
const ALIGN: u64 = 64 << 10;

impl Condition {
    pub fn name(patterns: &[&str]) -> std::result::Result<Self, String> {
        let globs = patterns.iter().map(|pattern| match Glob::new(pattern) {
            _ if pattern.is_empty() => Err("the pattern is empty".to_owned()),
            Some(glob) => Ok(glob),
            None => Err("a `[` has no `]`".to_owned()),
        });
        globs.collect::<std::result::Result<_, _>>().map(Condition::Name)
    }

    /// `>64K`: a comparison and a number. `None` if there is no comparison.
    pub fn size(text: &str) -> Option<std::result::Result<Self, String>> {
        let split = |(sign, orderings): &(&str, &'static [Ordering])| Some((*orderings, text.strip_prefix(sign)?));
        let (orderings, digits) = COMPARISONS.iter().find_map(split)?;
        Some(match number(digits.trim()) {
            Some(number) => Ok(Condition::Size(orderings, number)),
            None => Err("the size is not a number".into()),
        })
    }

    pub fn kind<'a>(names: impl IntoIterator<Item = &'a str>) -> std::result::Result<Self, String> {
        let kinds = names.into_iter().map(|name| {
            let known = Kind::ALL.iter().find(|(known, _)| *known == name);
            known.map(|(_, kind)| *kind).ok_or_else(|| {
                let all: Vec<&str> = Kind::ALL.iter().map(|(name, _)| *name).collect();
                format!("{name:?} is no kind: there are {}", all.join(", "))
            })
        });
        kinds.collect::<std::result::Result<_, _>>().map(Condition::Kind)
    }

    fn holds(&self, names: &[&str], kind: Kind, size: u64) -> bool {
        match self {
            Condition::Name(globs) => names.iter().any(|name| globs.iter().any(|glob| glob.matches(name))),
            Condition::Size(orderings, limit) => orderings.contains(&size.cmp(limit)),
            Condition::Kind(kinds) => kinds.contains(&kind),
        }
    }
}

/// A power of two within bounds.
pub(super) fn alignment(align: u64) -> std::result::Result<u64, String> {
    if align.is_power_of_two() && align <= ALIGN {
        return Ok(align);
    }
    Err(format!("{align} is no alignment: a power of two up to {ALIGN} is"))
}

impl Rule {
    /// Whether it takes what has these names, this kind and this size.
    pub fn takes(&self, names: &[&str], kind: Kind, size: u64) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.holds(names, kind, size))
    }

    /// What its patterns of names say literally.
    pub(super) fn literal(&self) -> Option<String> {
        self.conditions.iter().find_map(|condition| match condition {
            Condition::Name(globs) => globs.first().map(Glob::literal),
            _ => None,
        })
    }
}

/// Splits at every `&` outside of brackets.
fn conditions(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            '&' if !inside => {
                parts.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    // Without an `&` the spaces belong to the name.
    parts.push(if start == 0 { text } else { text[start..].trim() });
    parts
}

fn condition(text: &str) -> std::result::Result<Condition, String> {
    if let Some(size) = text.strip_prefix("size").and_then(Condition::size) {
        return size;
    }
    match text.strip_prefix("kind=") {
        Some(kinds) => Condition::kind(kinds.split('|')),
        None => Condition::name(&[text.strip_prefix("name=").unwrap_or(text)]),
    }
}

impl FromStr for Rule {
    type Err = Error;

    /// # Errors
    /// [`Code::Usage`] for a rule that does not follow the grammar.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: String| {
            Error::new(Code::Usage, format!("{text:?} places nothing: {what}")).help(
                "a rule is 'PATTERN=SECTION', 'PATTERN=SECTION>MEMORY' or either with ',align=N' behind it, as in \
                 'fc*=.qspi' or 'kind=weights&size>64K=.sdram'",
            )
        };
        let (rule, align) = match text.rsplit_once(",align=") {
            // A comma in front of the section is the pattern's.
            Some((rule, align)) if rule.contains('=') && !align.contains('=') => {
                let align = number(align).ok_or_else(|| "the alignment is not a number".to_owned());
                (rule, Some(align.and_then(alignment).map_err(bad)?))
            }
            _ => (text, None),
        };
        let (pattern, section) = rule.rsplit_once('=').ok_or_else(|| bad("there is no `=`".into()))?;
        let (section, memory) = match section.split_once('>') {
            Some((section, memory)) => (section, Some(memory)),
            None => (section, None),
        };
        section::word(section).map_err(|what| bad(what.into()))?;
        if memory.is_some_and(|memory| section::word(memory).is_err()) {
            return Err(bad("the memory's name is not one".into()));
        }
        if home::word(section).is_some() && (memory.is_some() || align.is_some()) {
            return Err(bad(
                "parameters outside the object are in no memory of the linker's".into()
            ));
        }
        let conditions = conditions(pattern).into_iter().map(condition);
        Ok(Rule {
            label: format!("--place {text:?}"),
            text: text.to_owned(),
            conditions: conditions.collect::<std::result::Result<_, _>>().map_err(bad)?,
            section: section.to_owned(),
            memory: memory.map(str::to_owned),
            align,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(rule: &str, name: &str, kind: Kind, size: u64) -> bool {
        rule.parse::<Rule>().unwrap().takes(&[name], kind, size)
    }

    #[test]
    fn sizes() {
        for (rule, size, expected) in [
            ("size>64K=.sdram", 65_536, false),
            ("size>64K=.sdram", 65_537, true),
            ("size>=64k=.sdram", 65_536, true),
            ("size>=0x10000=.sdram", 65_536, true),
            ("size<1M=.fast", 1_048_575, true),
            ("size<=7=.fast", 8, false),
            ("size=256=.tables", 256, true),
        ] {
            assert_eq!(takes(rule, "x", Kind::Table, size), expected, "{rule} {size}");
        }
    }

    #[test]
    fn conditions_together() {
        for (rule, name, kind, size, expected) in [
            ("size=.q", "size", Kind::Code, 0, true),
            ("kind=weights=.q", "x", Kind::Weights, 0, true),
            ("kind=weights=.q", "weights", Kind::Bias, 0, false),
            ("kind=bias|table=.q", "x", Kind::Table, 0, true),
            ("kind=weights&size>64K=.q", "x", Kind::Weights, 65_536, false),
            ("kind=weights & size>64K & fc*=.q", "fc1", Kind::Weights, 65_537, true),
            ("kind=weights & size>64K & fc*=.q", "conv", Kind::Weights, 65_537, false),
            ("a[&]b=.q", "a&b", Kind::Weights, 0, true),
            ("a[&]b=.q", "a", Kind::Weights, 0, false),
            ("name=kind=code=.q", "kind=code", Kind::Weights, 0, true),
            ("a b=.q", "a b", Kind::Weights, 0, true),
            ("a,align=3*=.q", "a,align=3x", Kind::Weights, 0, true),
        ] {
            assert_eq!(takes(rule, name, kind, size), expected, "{rule} {name} {kind:?} {size}");
        }
    }

    #[test]
    fn sections_memories_and_alignments() {
        for (rule, section, memory, align) in [
            ("fc*=.q", ".q", None, None),
            ("fc*=.q>QSPI", ".q", Some("QSPI"), None),
            ("fc*=.q>QSPI,align=64", ".q", Some("QSPI"), Some(64)),
            ("size>64K=.q,align=4K", ".q", None, Some(4096)),
        ] {
            let rule: Rule = rule.parse().unwrap();
            assert_eq!(
                (rule.section.as_str(), rule.memory.as_deref(), rule.align),
                (section, memory, align)
            );
        }
    }

    #[test]
    fn rules_that_are_none() {
        for (rule, expected) in [
            ("fc*", "there is no `=`"),
            ("=.qspi", "the pattern is empty"),
            ("a&=.qspi", "the pattern is empty"),
            ("fc*=", "the section's name"),
            ("fc*=.a b", "the section's name"),
            ("fc*=.a\"", "the section's name"),
            ("fc*=.a,x", "the section's name"),
            ("fc*=.qspi>", "the memory's name"),
            ("size>=.q", "the size is not a number"),
            ("size>64X=.q", "the size is not a number"),
            ("size>99999999999999999999=.q", "the size is not a number"),
            ("a[b=.q", "a `[` has no `]`"),
            (
                "kind=weight=.q",
                "there are weights, bias, table, constant, code, arena",
            ),
            ("a=.q,align=", "the alignment is not a number"),
            ("a=.q,align=3", "3 is no alignment"),
            ("a=.q,align=0", "0 is no alignment"),
            ("a=.q,align=1M", "is no alignment"),
        ] {
            let error = rule.parse::<Rule>().unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert!(error.message.contains(expected), "{rule}: {error}");
        }
    }
}
