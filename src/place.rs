//! `--place 'PATTERN=SECTION'`: which tensors, kernels or arenas go to sections of the user's choice.
//!
//! ```text
//! rule    = pattern "=" section [">" memory]
//! pattern = glob | "size" ("<" | "<=" | "=" | ">=" | ">") bytes
//! glob    = the name of a tensor in the model, its symbol, a kernel's name, or "arena"; with * ? [a-z] [!a-z]
//! bytes   = digits ["K" | "M" | "G"]                                 powers of 1024
//! ```
//! The sections `embedded`, `external` and `streamed` are words: they say whether parameters are in the object at all.
//! The first rule that matches wins; one that takes nothing is an error.

use crate::codegen;
use crate::error::{Code, Error, Result};
use crate::graph::Graph;
use crate::image::Access;
use crate::kernels::Lowering;
use crate::kernels::entry::ArenaKind;
use crate::names::{HELPERS, Named, Names};
use crate::plan::Plan;
use std::cmp::Ordering;
use std::str::FromStr;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As the user wrote it.
    text: String,
    pattern: Pattern,
    section: String,
    region: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Glob(Vec<Piece>),
    /// Sizes that compare to the number in one of these ways.
    Size(&'static [Ordering], u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Any,
    One,
    Char(char),
    Set { ranges: Vec<(char, char)>, negated: bool },
}

const COMPARISONS: [(&str, &[Ordering]); 5] = [
    (">=", &[Ordering::Greater, Ordering::Equal]),
    ("<=", &[Ordering::Less, Ordering::Equal]),
    (">", &[Ordering::Greater]),
    ("<", &[Ordering::Less]),
    ("=", &[Ordering::Equal]),
];

impl FromStr for Rule {
    type Err = Error;

    /// # Errors
    /// [`Code::Usage`] for a rule that does not follow the grammar.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: &str| {
            Error::new(Code::Usage, format!("{text:?} places nothing: {what}"))
                .help("a rule is 'PATTERN=SECTION' or 'PATTERN=SECTION>MEMORY', as in 'fc*=.qspi' or 'size>64K=.sdram'")
        };
        let (pattern, section) = text.rsplit_once('=').ok_or_else(|| bad("there is no `=`"))?;
        let (section, region) = match section.split_once('>') {
            Some((section, region)) => (section, Some(region)),
            None => (section, None),
        };
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$' | '-');
        if section.is_empty() || section.len() > 200 || !section.chars().all(word) || section.starts_with('-') {
            return Err(bad("the section's name is not one"));
        }
        if region.is_some_and(|region| region.is_empty() || !region.chars().all(word)) {
            return Err(bad("the memory's name is not one"));
        }
        if region.is_some() && ["embedded", "external", "streamed"].contains(&section) {
            return Err(bad("parameters outside the object are in no memory of the linker's"));
        }
        let compared = pattern.strip_prefix("size").and_then(|rest| {
            let split = |(sign, orderings): &(&str, &'static [Ordering])| {
                rest.strip_prefix(sign).map(|number| (*orderings, number))
            };
            COMPARISONS.iter().find_map(split)
        });
        let pattern = match compared {
            Some((orderings, number)) => {
                Pattern::Size(orderings, bytes(number).ok_or_else(|| bad("the size is not a number"))?)
            }
            None if pattern.is_empty() => return Err(bad("the pattern is empty")),
            None => Pattern::Glob(glob(pattern).ok_or_else(|| bad("a `[` has no `]`"))?),
        };
        Ok(Rule {
            text: text.to_owned(),
            pattern,
            section: section.to_owned(),
            region: region.map(str::to_owned),
        })
    }
}

/// A number of bytes: `65536`, `64K`, `1M`, `2G`.
pub fn bytes(text: &str) -> Option<u64> {
    let unit = match text.chars().last()?.to_ascii_uppercase() {
        'K' => 1 << 10,
        'M' => 1 << 20,
        'G' => 1 << 30,
        _ => 1,
    };
    let digits = if unit == 1 { text } else { &text[..text.len() - 1] };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn glob(text: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        pieces.push(match c {
            '*' => Piece::Any,
            '?' => Piece::One,
            '[' => {
                let negated = chars.next_if_eq(&'!').is_some();
                let mut ranges = Vec::new();
                loop {
                    let from = chars.next()?;
                    // A `]` in front is one of the characters.
                    if from == ']' && !ranges.is_empty() {
                        break;
                    }
                    let mut ahead = chars.clone();
                    ahead.next();
                    let to = if chars.peek() == Some(&'-') && ahead.peek().is_some_and(|c| *c != ']') {
                        chars.next();
                        chars.next()?
                    } else {
                        from
                    };
                    ranges.push((from, to));
                }
                Piece::Set { ranges, negated }
            }
            c => Piece::Char(c),
        });
    }
    Some(pieces)
}

/// Whether the whole of `name` matches; on a mismatch only the last `*` takes one more character.
fn matches(pieces: &[Piece], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let fits = match pieces.get(p) {
            Some(Piece::Any) => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(Piece::One) => true,
            Some(Piece::Char(c)) => *c == name[n],
            Some(Piece::Set { ranges, negated }) => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&name[n])) != *negated
            }
            None => false,
        };
        if fits {
            (p, n) = (p + 1, n + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, n) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pieces[p..].iter().all(|piece| *piece == Piece::Any)
}

/// Where a parameter is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Home {
    /// In the object.
    Embedded,
    /// In an image beside it.
    Outside(Access),
}

/// Which parameters are outside the object, and how they are read, where there are any: those that the first matching
/// rule sends there, and if none matches, all if `default` is outside. A rule with a section of the object keeps them in.
///
/// # Errors
/// [`Code::Usage`] if some are to be read in place and others streamed.
pub fn homes(rules: &[Rule], default: Home, graph: &Graph, lowering: &Lowering, names: &Names) -> Result<Homes> {
    let prefix = format!("{}_", names.model);
    let mut accesses: Vec<Access> = Vec::new();
    let mut outside = Vec::with_capacity(lowering.parameters.len());
    for (parameter, named) in lowering.parameters.iter().zip(&names.parameters) {
        let symbol = named.symbol.as_str();
        let mut all = vec![
            symbol,
            symbol.strip_prefix(&prefix).unwrap_or(symbol),
            parameter.name.as_str(),
        ];
        if let [id] = parameter.tensors.as_slice() {
            all.push(&graph.tensor(*id).name);
        }
        let rule = rules.iter().find(|rule| rule.takes(&all, parameter.contents.len()));
        let home = match rule {
            Some(rule) => rule.home().unwrap_or(Home::Embedded),
            None => default,
        };
        if let Home::Outside(access) = home
            && !accesses.contains(&access)
        {
            accesses.push(access);
        }
        outside.push(home != Home::Embedded);
    }
    match accesses.as_slice() {
        [_, _, ..] => Err(Error::new(
            Code::Usage,
            "some parameters are to be read in place and others streamed, and there is one image",
        )
        .help("choose one of `external` and `streamed`")),
        accesses => Ok(Homes {
            access: accesses.first().copied(),
            outside,
        }),
    }
}

/// Where parameters are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Homes {
    /// How those that are outside the object are read, if there are any.
    pub access: Option<Access>,
    /// By parameter, whether it is outside.
    pub outside: Vec<bool>,
}

impl Rule {
    /// As the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What a word instead of a section says.
    fn home(&self) -> Option<Home> {
        match self.section.as_str() {
            "embedded" => Some(Home::Embedded),
            "external" => Some(Home::Outside(Access::External)),
            "streamed" => Some(Home::Outside(Access::Streamed)),
            _ => None,
        }
    }

    fn takes(&self, names: &[&str], size: u64) -> bool {
        match &self.pattern {
            Pattern::Glob(pieces) => names.iter().any(|name| matches(pieces, name)),
            Pattern::Size(orderings, limit) => orderings.contains(&size.cmp(limit)),
        }
    }
}

/// What was built, as far as rules see it.
pub struct Built<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Its kernels and parameters.
    pub lowering: &'a Lowering,
    /// Its plan.
    pub plan: &'a Plan,
    /// Who provides the arena.
    pub arena: ArenaKind,
    /// Machine code of the kernels, in the lowering's order.
    pub kernels: &'a [codegen::Code],
    /// Machine code of the entry point.
    pub entry: &'a codegen::Code,
    /// Machine code of what is beside it.
    pub helpers: &'a [codegen::Code],
}

/// Moves what the rules take into their sections. Returns the sections that have a memory of their own, with it.
///
/// # Errors
/// [`Code::Usage`] for a rule that takes nothing and for a section with two memories.
pub fn apply(rules: &[Rule], built: &Built, names: &mut Names) -> Result<Vec<(String, String)>> {
    let prefix = format!("{}_", names.model);
    let mut used = vec![false; rules.len()];
    let mut known: Vec<String> = Vec::new();
    let mut visit = |named: &mut Named, model: &[&str], size: u64, parameter: bool| {
        let symbol = named.symbol.clone();
        let mut all: Vec<&str> = vec![&symbol, symbol.strip_prefix(&prefix).unwrap_or(&symbol)];
        all.extend(model);
        known.push(all[1].to_owned());
        let applies = |rule: &Rule| (parameter || rule.home().is_none()) && rule.takes(&all, size);
        if let Some(i) = rules.iter().position(applies) {
            used[i] = true;
            if rules[i].home().is_none() {
                named.section.clone_from(&rules[i].section);
            }
        }
    };
    let Built { graph, lowering, .. } = built;
    for (parameter, named) in lowering.parameters.iter().zip(&mut names.parameters) {
        // What is made from several tensors (a bias with the filter's sums folded in) has a name of its own alone.
        let mut all = vec![parameter.name.as_str()];
        if let [id] = parameter.tensors.as_slice() {
            all.push(&graph.tensor(*id).name);
        }
        visit(named, &all, parameter.contents.len(), true);
    }
    for (id, named) in &mut names.constants {
        let tensor = graph.tensor(*id);
        visit(named, &[&tensor.name], tensor.bytes() as u64, false);
    }
    for ((kernel, code), named) in lowering.kernels.iter().zip(built.kernels).zip(&mut names.kernels) {
        visit(named, &[&kernel.name], code.bytes.len() as u64, false);
    }
    visit(&mut names.run, &[], built.entry.bytes.len() as u64, false);
    for (named, (_, name, _)) in names.helpers.iter_mut().zip(HELPERS) {
        if let Some(code) = built.helpers.iter().find(|code| code.name == named.symbol) {
            visit(named, &[name], code.bytes.len() as u64, false);
        }
    }
    if built.arena == ArenaKind::Static && built.plan.arena_size > 0 {
        visit(&mut names.arena, &[], built.plan.arena_size, false);
    }
    let idle = rules.iter().zip(&used).enumerate().filter(|(_, (_, used))| !**used);
    let errors = idle.map(|(i, (rule, _))| {
        const SHOWN: usize = 8;
        let error = Error::new(Code::Usage, format!("--place {:?} matches nothing", rule.text));
        match (i, &rule.pattern) {
            (1.., _) if alone(rule, built, names) => error.help("an earlier rule takes all that it matches"),
            (_, Pattern::Size(..)) => error.help("`corerope inspect` lists the sizes"),
            _ => error.help(format!(
                "there are {}{}; `corerope inspect --json` lists all names",
                known
                    .iter()
                    .take(SHOWN)
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", "),
                if known.len() > SHOWN { ", …" } else { "" },
            )),
        }
    });
    match Error::collect(errors.collect()) {
        Some(error) => Err(error),
        None => regions(rules),
    }
}

/// Whether the rule would take something if it were the only one.
fn alone(rule: &Rule, built: &Built, names: &Names) -> bool {
    apply(std::slice::from_ref(rule), built, &mut names.clone()).is_ok()
}

fn regions(rules: &[Rule]) -> Result<Vec<(String, String)>> {
    let mut regions: Vec<(String, String)> = Vec::new();
    for rule in rules {
        let Some(region) = &rule.region else { continue };
        match regions.iter().find(|(section, _)| *section == rule.section) {
            Some((_, other)) if other != region => {
                let message = format!("--place puts {} into both {other} and {region}", rule.section);
                return Err(Error::new(Code::Usage, message).help("one section lies in one memory"));
            }
            Some(_) => {}
            None => regions.push((rule.section.clone(), region.clone())),
        }
    }
    Ok(regions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(rule: &str, name: &str, size: u64) -> bool {
        rule.parse::<Rule>().unwrap().takes(&[name], size)
    }

    #[test]
    fn globs() {
        for (pattern, name, expected) in [
            ("fc*", "fc1/weights", true),
            ("fc*", "conv/fc1", false),
            ("*fc*", "conv/fc1", true),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("conv[0-3]/w", "conv2/w", true),
            ("conv[0-3]/w", "conv4/w", false),
            ("conv[!0-3]", "conv4", true),
            ("x[]a]", "x]", true),
            ("x[a-]", "x-", true),
            ("size", "size", true),
            ("ab", "abc", false),
        ] {
            assert_eq!(takes(&format!("{pattern}=.q"), name, 0), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn stars_do_not_explode() {
        let pattern = format!("{}b=.q", "*a".repeat(40));
        assert!(!takes(&pattern, &"a".repeat(4000), 0));
    }

    #[test]
    fn sizes() {
        for (rule, size, expected) in [
            ("size>64K=.sdram", 65_536, false),
            ("size>64K=.sdram", 65_537, true),
            ("size>=64k=.sdram", 65_536, true),
            ("size<1M=.fast", 1_048_575, true),
            ("size<=7=.fast", 8, false),
            ("size=256=.tables", 256, true),
        ] {
            assert_eq!(takes(rule, "x", size), expected, "{rule} {size}");
        }
    }

    #[test]
    fn rules_that_are_none() {
        for (rule, expected) in [
            ("fc*", "there is no `=`"),
            ("=.qspi", "the pattern is empty"),
            ("fc*=", "the section's name"),
            ("fc*=.a b", "the section's name"),
            ("fc*=.a\"", "the section's name"),
            ("fc*=.qspi>", "the memory's name"),
            ("size>=.q", "the size is not a number"),
            ("size>64X=.q", "the size is not a number"),
            ("size>99999999999999999999=.q", "the size is not a number"),
            ("a[b=.q", "a `[` has no `]`"),
        ] {
            let error = rule.parse::<Rule>().unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert!(error.message.contains(expected), "{rule}: {error}");
        }
    }

    #[test]
    fn words_are_homes() {
        let home = |rule: &str| rule.parse::<Rule>().unwrap().home();
        assert_eq!(home("fc*=external"), Some(Home::Outside(Access::External)));
        assert_eq!(home("fc*=streamed"), Some(Home::Outside(Access::Streamed)));
        assert_eq!(home("size<1K=embedded"), Some(Home::Embedded));
        assert_eq!(home("fc*=.external"), None);
        assert!("fc*=external>QSPI".parse::<Rule>().is_err());
    }

    #[test]
    fn a_section_lies_in_one_memory() {
        let rules = |list: &[&str]| list.iter().map(|rule| rule.parse().unwrap()).collect::<Vec<Rule>>();
        let ok = regions(&rules(&["a=.q>QSPI", "b=.q", "c=.q>QSPI", "d=.r>RAM"])).unwrap();
        assert_eq!(ok, [(".q".into(), "QSPI".into()), (".r".into(), "RAM".into())]);
        assert!(regions(&rules(&["a=.q>QSPI", "b=.q>RAM"])).is_err());
    }
}
