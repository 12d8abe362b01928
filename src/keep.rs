//! `--keep PATTERN`: what a linker must not drop, even if nothing refers to it.
//!
//! Patterns are those of [`crate::place`], without a section.

use crate::error::{Error, Result};
use crate::names::{Named, Names};
use crate::place::{self, Built, Rule};

/// Where the rules put what they take, in names that nobody else sees.
const MARK: &str = ".corerope.keep";

/// The rules of patterns.
///
/// # Errors
/// [`Code::Usage`](crate::error::Code::Usage) for what is not a pattern.
pub fn rules(patterns: &[String]) -> Result<Vec<Rule>> {
    let parse = |pattern: &String| format!("{pattern}={MARK}").parse();
    patterns.iter().map(parse).collect()
}

/// The symbols that the patterns take.
///
/// # Errors
/// [`Code::Usage`](crate::error::Code::Usage) for a pattern that takes nothing.
pub fn symbols(patterns: &[String], built: &Built, names: &Names) -> Result<Vec<String>> {
    if patterns.is_empty() {
        return Ok(Vec::new());
    }
    let mut marked = names.clone();
    for (pattern, rule) in patterns.iter().zip(rules(patterns)?) {
        // One by one: patterns may take the same.
        place::apply(&[rule], built, &mut marked).map_err(|error| {
            let message = format!("--keep {pattern:?} matches nothing");
            let kept = Error::new(error.code, message);
            match error.help {
                Some(help) => kept.help(help),
                None => kept,
            }
        })?;
    }
    let all = (marked.parameters.iter())
        .chain(marked.constants.values())
        .chain(&marked.kernels)
        .chain([&marked.run, &marked.arena]);
    let kept = all.filter(|named: &&Named| named.section == MARK);
    Ok(kept.map(|named| named.symbol.clone()).collect())
}
