//! Which parameters are in the object at all: rules whose section is a word say so.

use super::{Rule, kind_of};
use crate::error::{Code, Error, Result};
use crate::graph::Graph;
use crate::image::Access;
use crate::kernels::Lowering;
use crate::names::Names;

/// Where a parameter is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Home {
    /// In the object.
    Embedded,
    /// In an image beside it.
    Outside(Access),
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
    /// What a word instead of a section says.
    pub(super) fn home(&self) -> Option<Home> {
        word(&self.section)
    }
}

/// The home that a rule's section stands for, if it is a word and not a section.
pub(super) fn word(section: &str) -> Option<Home> {
    match section {
        "embedded" => Some(Home::Embedded),
        "external" => Some(Home::Outside(Access::External)),
        "streamed" => Some(Home::Outside(Access::Streamed)),
        _ => None,
    }
}

/// Which parameters are outside the object, and how they are read, where there are any: those that the first matching
/// rule sends there, and if none matches, all if `default` is outside. A rule with a section of the object keeps them in.
///
/// # Errors
/// [`Code::Usage`] if some are to be read in place and others streamed.
pub fn homes(rules: &[Rule], default: Home, graph: &Graph, lowering: &Lowering, names: &Names) -> Result<Homes> {
    let mut accesses: Vec<Access> = Vec::new();
    let mut outside = Vec::with_capacity(lowering.parameters.len());
    for (parameter, named) in lowering.parameters.iter().zip(&names.parameters) {
        let all = super::parameter_names(graph, parameter, named, names);
        let kind = kind_of(parameter.kind);
        let rule = rules
            .iter()
            .find(|rule| rule.takes(&all, kind, parameter.contents.len()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_homes() {
        let home = |rule: &str| rule.parse::<Rule>().unwrap().home();
        assert_eq!(home("fc*=external"), Some(Home::Outside(Access::External)));
        assert_eq!(home("fc*=streamed"), Some(Home::Outside(Access::Streamed)));
        assert_eq!(home("size<1K=embedded"), Some(Home::Embedded));
        assert_eq!(home("fc*=.external"), None);
        assert!("fc*=external>QSPI".parse::<Rule>().is_err());
    }
}
