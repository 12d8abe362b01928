//! Dependency files for Make and Ninja, as compilers write them with `-MD`.

use crate::error::{Code, Error, Result};

/// A rule: the targets depend on the prerequisites.
#[derive(Clone, Debug, Default)]
pub struct Depfile {
    /// Left of the colon: the outputs, as the makefile names them.
    pub targets: Vec<Target>,
    /// Right of it: the files that were read.
    pub prerequisites: Vec<String>,
    /// `-MP`: an empty rule for each prerequisite, so that its removal is not an error.
    pub phony: bool,
}

/// A target of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file name, which needs escaping.
    File(String),
    /// `-MT`: text that stands as it is given.
    Literal(String),
}

impl Depfile {
    /// The file's text.
    ///
    /// # Errors
    /// [`Code::Usage`] for a name that Make would read as more than a name, and for which it has no quotes.
    pub fn text(&self) -> Result<String> {
        let files = self.targets.iter().filter_map(|target| match target {
            Target::File(name) => Some(name),
            Target::Literal(_) => None,
        });
        for name in files.chain(&self.prerequisites) {
            if let Some(c) = name.chars().find(|c| matches!(c, '\n' | '\r' | ';')) {
                let message = format!("a dependency file cannot hold the name {name:?}: in Make {c:?} ends it");
                return Err(Error::new(Code::Usage, message).help("rename the file, or build without -MD and -MF"));
            }
        }
        let targets: Vec<String> = self
            .targets
            .iter()
            .map(|target| match target {
                Target::File(name) => escape(name),
                Target::Literal(text) => text.clone(),
            })
            .collect();
        let mut text = format!("{}:", targets.join(" "));
        for file in &self.prerequisites {
            text.push_str(" \\\n  ");
            text.push_str(&escape(file));
        }
        text.push('\n');
        if self.phony {
            for file in &self.prerequisites {
                text.push_str(&format!("\n{}:\n", escape(file)));
            }
        }
        Ok(text)
    }
}

/// A file name as Make reads it: `$` doubled; space, tab, `#` and `:` behind a backslash, and so every backslash in front
/// of one of them. The colon of a drive stays as it is. A name that would be a home folder or an assignment is given
/// its folder.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut backslashes = 0;
    let assigns = name.find('=').is_some_and(|at| !name[..at].contains('/'));
    if assigns || name.starts_with('~') {
        out.push_str("./");
    }
    let drive = |i: usize| i == 1 && name[i + 1..].starts_with(['/', '\\']);
    for (i, c) in name.char_indices() {
        match c {
            '$' => out.push('$'),
            ':' if drive(i) => {}
            ' ' | '\t' | '#' | ':' => out.extend(std::iter::repeat_n('\\', backslashes + 1)),
            _ => {}
        }
        out.push(c);
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(phony: bool) -> Depfile {
        Depfile {
            targets: vec![Target::File("out dir/kws.a".into()), Target::Literal("$(lib)".into())],
            prerequisites: vec!["models/kws.tflite".into(), "my $model#1.tflite".into()],
            phony,
        }
    }

    #[test]
    fn a_rule_as_make_reads_it() {
        assert_eq!(
            rule(false).text().unwrap(),
            "out\\ dir/kws.a $(lib): \\\n  models/kws.tflite \\\n  my\\ $$model\\#1.tflite\n"
        );
    }

    #[test]
    fn phony_rules_for_prerequisites() {
        let text = rule(true).text().unwrap();
        assert!(
            text.ends_with("\nmodels/kws.tflite:\n\nmy\\ $$model\\#1.tflite:\n"),
            "{text}"
        );
    }

    #[test]
    fn backslashes_count_only_before_what_is_escaped() {
        for (name, escaped) in [
            (r"C:\models\kws.tflite", r"C:\models\kws.tflite"),
            (r"a\ b", r"a\\\ b"),
            (r"a\\#", r"a\\\\\#"),
            ("a\tb", "a\\\tb"),
            ("a:b", r"a\:b"),
            ("~a", "./~a"),
            ("SHELL=a", "./SHELL=a"),
            ("/b=c/a", "/b=c/a"),
        ] {
            assert_eq!(escape(name), escaped);
        }
    }

    /// What would be a rule or a recipe of its own.
    #[test]
    fn names_that_make_cannot_hold_are_refused() {
        for name in ["a\nall:\n\ttouch x", "a\r", "a;touch x"] {
            let mut hostile = rule(false);
            hostile.prerequisites.push(name.into());
            assert_eq!(hostile.text().unwrap_err().code, Code::Usage);
            hostile = rule(false);
            hostile.targets.push(Target::File(name.into()));
            assert!(hostile.text().is_err());
        }
    }
}
