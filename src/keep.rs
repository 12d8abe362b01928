//! `--keep PATTERN`: what a linker must not drop, even if nothing refers to it.
//!
//! Patterns are those of [`crate::place`], without a section.

use crate::error::{Code, Error, Result};
use crate::names::Names;
use crate::place::{self, Built, Rule};

/// A section for patterns to make rules with; nothing goes there.
const SECTION: &str = ".keep";

/// The rules of patterns.
///
/// # Errors
/// [`Code::Usage`] for what is not a pattern.
pub fn rules(patterns: &[String]) -> Result<Vec<Rule>> {
    let parse = |pattern: &String| {
        let rule: Result<Rule> = format!("{pattern}={SECTION}").parse();
        let mut rule = rule.map_err(|_| {
            Error::new(Code::Usage, format!("--keep {pattern:?} is no pattern"))
                .help("a pattern is a name with * and ?, a size or a kind, as in 'fc*', 'size>64K' or 'kind=table'")
        })?;
        rule.label = format!("--keep {pattern:?}");
        Ok(rule)
    };
    patterns.iter().map(parse).collect()
}

/// The symbols that the patterns take, and an error for each pattern that takes nothing. Patterns may take the same.
///
/// # Errors
/// As [`rules`].
pub fn symbols(patterns: &[String], built: &Built, names: &Names) -> Result<(Vec<String>, Vec<Error>)> {
    let (mut kept, mut idle) = (Vec::new(), Vec::new());
    for rule in rules(patterns)? {
        match place::symbols(&rule, built, names) {
            Ok(symbols) => kept.extend(symbols),
            Err(error) => idle.push(error),
        }
    }
    Ok((kept, idle))
}
