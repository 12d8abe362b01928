//! Dependency files for Make and Ninja, as compilers write them with `-MD`.

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
    pub fn text(&self) -> String {
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
        text
    }
}

/// A file name as Make reads it: `$` doubled; space, tab and `#` behind a backslash, and so every backslash in front
/// of one of them.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut backslashes = 0;
    for c in name.chars() {
        match c {
            '$' => out.push('$'),
            ' ' | '\t' | '#' => out.extend(std::iter::repeat_n('\\', backslashes + 1)),
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
            rule(false).text(),
            "out\\ dir/kws.a $(lib): \\\n  models/kws.tflite \\\n  my\\ $$model\\#1.tflite\n"
        );
    }

    #[test]
    fn phony_rules_for_prerequisites() {
        let text = rule(true).text();
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
        ] {
            assert_eq!(escape(name), escaped);
        }
    }
}
