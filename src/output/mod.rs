//! What a build leaves behind, and the only place that writes files.
//!
//! [`header`], [`linker`] and [`depfile`] make text from plain data; [`report`] describes a build to people and to
//! scripts; [`write_all`] puts all files of one build in place together or none of them.

pub mod depfile;
mod files;
pub mod header;
pub mod linker;
pub mod report;
pub(crate) mod table;
pub mod timeline;

pub use files::{OutFile, Written, abandon, write_all};

use crate::error::{Error, Result};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};

/// Fills a template. Templates are part of this crate: a failure is a bug in them.
fn render(template: &str, context: Value) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(true);
    environment
        .render_str(template, context)
        .map_err(|error| Error::internal(format!("a template is wrong: {error:#}")))
}

/// Text of the model's own as it may stand in a comment of C or of a linker script: printable ASCII that neither
/// opens nor closes a comment, nor is a trigraph, of bounded length.
fn comment(text: &str) -> String {
    const LENGTH: usize = 120;
    let mut out = String::new();
    for c in text.chars().take(LENGTH) {
        let c = if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
        let c = if c == '\\' { '/' } else { c };
        let splits = matches!(
            (out.chars().next_back(), c),
            (Some('*'), '/') | (Some('/'), '*') | (Some('?'), '?')
        );
        if splits {
            out.push(' ');
        }
        out.push(c);
    }
    if text.chars().nth(LENGTH).is_some() {
        out.push_str("...");
    }
    out
}

/// Compares `text` with `path` (relative to the crate), or rewrites that file if `COREROPE_BLESS` is set.
#[cfg(test)]
pub(crate) fn assert_golden(path: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("COREROPE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a golden file is in a folder")).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{} differs; COREROPE_BLESS=1 rewrites it. Now:\n{text}",
        path.display()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_cannot_be_left() {
        for (hostile, safe) in [
            ("conv1/Relu", "conv1/Relu"),
            ("a*/ int x; /*", "a* / int x; / *"),
            ("*/*/", "* / * /"),
            ("line\nbreak\r\t", "line?break? ?"),
            ("end\\", "end/"),
            ("??/??", "? ?/? ?"),
            ("\u{202e}bidi é", "?bidi ?"),
        ] {
            assert_eq!(comment(hostile), safe);
            assert_eq!(comment(safe), safe);
        }
        assert_eq!(comment(&"x".repeat(500)).len(), 123);
    }

    #[test]
    fn templates_refuse_what_they_do_not_know() {
        assert!(render("{{ missing }}", Value::from_serialize(())).is_err());
    }
}
