//! `--place-file FILE.toml`: memories and rules in a file.
//!
//! ```toml
//! [memory]
//! QSPI  = { origin = 0x9000_0000, length = "16M" }                   # access = "rx"
//! SDRAM = { origin = 0xc000_0000, length = "8M", access = "rw", speed = 2 }     # --memory: the lowest first
//! DTCM  = { origin = 0x2000_0000, length = "64K", access = "rw", speed = 1, use = "48K" }
//! FLASH = { origin = 0x0800_0000, length = "1M", existing = true }   # in the main linker script already
//!
//! [[place]]                                                          # the first that matches wins
//! name = ["fc*", "dense_?_weights"]
//! kind = "weights"                                                   # all that is given must hold
//! size = ">64K"
//! section = ".qspi"
//! memory = "QSPI"
//! align = 64
//! ```

use super::memory::{Region, number};
use super::pool::Given;
use super::rule::{Condition, Rule, alignment};
use super::section;
use crate::error::{Code, Error, Result};
use crate::limits;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceFile {
    /// Memories, by name.
    pub memory: Vec<Region>,
    /// Rules, in the file's order.
    pub rules: Vec<Rule>,
    /// Memories that the plan divides buffers and parameters between, by speed.
    pub pools: Vec<Given>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    memory: BTreeMap<String, Memory>,
    #[serde(default)]
    place: Vec<Place>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    origin: Number,
    length: Number,
    access: Option<String>,
    #[serde(default)]
    existing: bool,
    /// Its place among those that the plan uses.
    speed: Option<u32>,
    /// Bytes of it that the plan may use.
    #[serde(rename = "use")]
    bytes: Option<Number>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    name: Option<Words>,
    kind: Option<Words>,
    size: Option<String>,
    section: String,
    memory: Option<String>,
    align: Option<Number>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Integer(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

impl Number {
    fn value(&self) -> Option<u64> {
        match self {
            Number::Integer(value) => Some(*value),
            Number::Text(text) => number(text),
        }
    }
}

impl Words {
    fn list(&self) -> Vec<&str> {
        match self {
            Words::One(word) => vec![word],
            Words::Many(words) => words.iter().map(String::as_str).collect(),
        }
    }
}

impl PlaceFile {
    /// Reads the text of the file `name`.
    ///
    /// # Errors
    /// [`Code::Usage`] for text that is not TOML or says something else than memories and rules, [`Code::Limit`] for
    /// more than [`limits::PLACE_RULES`] rules.
    pub fn parse(name: &str, text: &str) -> Result<PlaceFile> {
        let parsed: Text = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let place = line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"));
            Error::new(Code::Usage, error.message().to_owned())
                .at(place)
                .help("the file has a table [memory] and rules [[place]], as `corerope build --help` shows")
        })?;
        if parsed.place.len() > limits::PLACE_RULES || parsed.memory.len() > limits::PLACE_RULES {
            let message = format!("{name} has more than {} rules or memories", limits::PLACE_RULES);
            return Err(Error::new(Code::Limit, message).help("use patterns instead of one rule for each name"));
        }
        let memory = parsed
            .memory
            .iter()
            .map(|(key, memory)| region(key, memory).map_err(|error| error.at(name)));
        let rules = parsed.place.iter().enumerate().map(|(i, place)| {
            let label = format!("{name}, rule {}", i + 1);
            rule(place, &label).map_err(|what| Error::new(Code::Usage, format!("{label}: {what}")))
        });
        let mut fast: Vec<(u32, &String, &Memory)> = (parsed.memory.iter())
            .filter_map(|(key, memory)| Some((memory.speed?, key, memory)))
            .collect();
        fast.sort_by_key(|(speed, key, _)| (*speed, *key));
        let pools = fast
            .into_iter()
            .map(|(_, key, memory)| pool(key, memory).map_err(|error| error.at(name)));
        let pools = pools.collect::<Result<_>>()?;
        if let Some((key, _)) =
            (parsed.memory.iter()).find(|(_, memory)| memory.speed.is_none() && memory.bytes.is_some())
        {
            let message = format!("memory {key:?}: use is for memories with a speed");
            return Err(Error::new(Code::Usage, message).at(name));
        }
        Ok(PlaceFile {
            pools,
            memory: memory.collect::<Result<_>>()?,
            rules: rules.collect::<Result<_>>()?,
        })
    }
}

fn region(name: &str, memory: &Memory) -> Result<Region> {
    let value = |what: &str, number: &Number| {
        number
            .value()
            .ok_or_else(|| Error::new(Code::Usage, format!("memory {name:?}: the {what} is not a number")))
    };
    let (origin, length) = (value("origin", &memory.origin)?, value("length", &memory.length)?);
    let mut region = Region::new(name, origin, length, memory.access.as_deref().unwrap_or("rx"))?;
    region.existing = memory.existing;
    Ok(region)
}

fn pool(name: &str, memory: &Memory) -> Result<Given> {
    let bytes = memory.bytes.as_ref().map(|bytes| {
        let bad = || Error::new(Code::Usage, format!("memory {name:?}: its use is not a number above 0"));
        bytes.value().filter(|bytes| *bytes > 0).ok_or_else(bad)
    });
    Ok(Given::new(name, bytes.transpose()?))
}

fn rule(place: &Place, label: &str) -> std::result::Result<Rule, String> {
    let mut conditions = Vec::new();
    if let Some(names) = &place.name {
        conditions.push(Condition::name(&names.list())?);
    }
    if let Some(kinds) = &place.kind {
        conditions.push(Condition::kind(kinds.list())?);
    }
    if let Some(size) = &place.size {
        let size = Condition::size(size.trim()).unwrap_or_else(|| Err("the size has no comparison, like >64K".into()));
        conditions.push(size?);
    }
    if conditions.is_empty() {
        return Err("it has neither name nor kind nor size".into());
    }
    section::word(&place.section)?;
    if place
        .memory
        .as_deref()
        .is_some_and(|memory| section::word(memory).is_err())
    {
        return Err("the memory's name is not one".into());
    }
    let align = match &place.align {
        None => None,
        Some(align) => Some(alignment(align.value().ok_or("the alignment is not a number")?)?),
    };
    Ok(Rule {
        label: label.to_owned(),
        text: label.to_owned(),
        conditions,
        section: place.section.clone(),
        memory: place.memory.clone(),
        align,
    })
}

#[cfg(test)]
mod tests {
    use super::super::rule::Kind;
    use super::*;

    const TEXT: &str = "\
[memory]
QSPI = { origin = 0x9000_0000, length = \"16M\" }
SDRAM = { origin = 0xc000_0000, length = 0x80_0000, access = \"rw\" }
FLASH = { origin = \"0x08000000\", length = \"1M\", existing = true }

[[place]]
name = [\"fc*\", \"dense*\"]
kind = [\"weights\", \"bias\"]
size = \"> 64K\"
section = \".qspi\"
memory = \"QSPI\"
align = 64

[[place]]
kind = \"arena\"
section = \".sdram\"
memory = \"SDRAM\"
";

    #[test]
    fn a_file() {
        let file = PlaceFile::parse("board.toml", TEXT).unwrap();
        let names: Vec<_> = file
            .memory
            .iter()
            .map(|region| (region.name.as_str(), region.existing))
            .collect();
        assert_eq!(names, [("FLASH", true), ("QSPI", false), ("SDRAM", false)]);
        let [weights, arena] = &file.rules[..] else {
            panic!("{:?}", file.rules)
        };
        assert!(weights.takes(&["dense_1"], Kind::Bias, 70_000));
        assert!(!weights.takes(&["dense_1"], Kind::Bias, 64));
        assert!(!weights.takes(&["conv"], Kind::Bias, 70_000));
        assert!(!weights.takes(&["fc"], Kind::Table, 70_000));
        assert_eq!((weights.section.as_str(), weights.align), (".qspi", Some(64)));
        assert!(arena.takes(&["arena"], Kind::Arena, 1));
        assert_eq!(arena.label, "board.toml, rule 2");
        assert_eq!(PlaceFile::parse("empty.toml", "").unwrap(), PlaceFile::default());
    }

    #[test]
    fn files_that_are_none() {
        for (text, expected) in [
            ("[memory", "b.toml:1"),
            ("x = 1", "unknown field"),
            ("\n[[place]]\nnam = \"x\"\nsection = \".q\"", "b.toml:3"),
            ("[[place]]\nname = \"x\"", "missing field `section`"),
            (
                "[[place]]\nsection = \".q\"",
                "rule 1: it has neither name nor kind nor size",
            ),
            (
                "[[place]]\nname = \"x\"\nsection = \".q\"\nalign = 3",
                "rule 1: 3 is no alignment",
            ),
            ("[[place]]\nsize = \"64K\"\nsection = \".q\"", "no comparison"),
            ("[[place]]\nkind = \"cod\"\nsection = \".q\"", "no kind"),
            (
                "[[place]]\nname = \"x\"\nsection = \".q\"\nmemory = \"a b\"",
                "the memory's name",
            ),
            (
                "[memory]\nq = { origin = 0, length = \"x\" }",
                "the length is not a number",
            ),
            ("[memory]\nq = { origin = -1, length = 1 }", "did not match"),
            ("[memory]\n\"a b\" = { origin = 0, length = 1 }", "the name"),
        ] {
            let error = PlaceFile::parse("b.toml", text).unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
        let many = "[[place]]\nname = \"x\"\nsection = \".q\"\n".repeat(limits::PLACE_RULES + 1);
        assert_eq!(PlaceFile::parse("b.toml", &many).unwrap_err().code, Code::Limit);
    }
}
