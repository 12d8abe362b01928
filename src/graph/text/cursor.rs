//! A position in a line of text, and what can be wrong there.

use crate::error::{Code, Error};
use crate::graph::TensorId;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::ops::Range;
use std::str::FromStr;

/// What is wrong with a line, and which part of it.
pub(super) struct Fault {
    pub span: Range<usize>,
    pub message: String,
}

pub(super) type Parsed<T> = std::result::Result<T, Fault>;

impl Fault {
    pub fn render(&self, number: usize, line: &str) -> Error {
        let snippet = Snippet::source(line)
            .path("listing")
            .line_start(number + 1)
            .annotation(AnnotationKind::Primary.span(self.span.clone()));
        let rendered = Renderer::plain().render(&[Group::with_level(Level::ERROR).element(snippet)]);
        Error::new(Code::Model, format!("{}\n{rendered}", self.message))
    }
}

/// A position in a line.
pub(super) struct Cursor<'t> {
    pub line: &'t str,
    pub at: usize,
}

impl<'t> Cursor<'t> {
    pub fn rest(&self) -> &'t str {
        &self.line[self.at..]
    }

    pub fn space(&mut self) {
        self.at = self.line.len() - self.rest().trim_start().len();
    }

    pub fn done(&mut self) -> bool {
        self.space();
        self.rest().is_empty() || self.rest().starts_with('#')
    }

    /// A fault at the word that starts here.
    pub fn fault<T>(&mut self, message: impl Into<String>) -> Parsed<T> {
        self.space();
        let word = self.rest().find(|c: char| !is_word(c)).unwrap_or(self.rest().len());
        let first = self.rest().chars().next().map_or(0, char::len_utf8);
        Fault::at(self.at..self.at + word.max(first), message)
    }

    pub fn eat(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    pub fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.eat(token) {
            return Ok(());
        }
        self.fault(format!("expected `{token}`"))
    }

    /// Letters, digits and underscores; may be empty.
    pub fn word(&mut self) -> &'t str {
        self.take(is_word)
    }

    pub fn take(&mut self, mut of: impl FnMut(char) -> bool) -> &'t str {
        self.space();
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !of(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// A number that is read by its type's own `FromStr`.
    pub fn number<T: FromStr>(&mut self, what: &str) -> Parsed<T> {
        self.space();
        let start = self.at;
        let word = self.take(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let parsed = word.parse();
        parsed.or_else(|_| {
            self.at = start;
            match word {
                "" => self.fault(format!("expected {what}")),
                _ => Fault::at(start..start + word.len(), format!("expected {what}, found `{word}`")),
            }
        })
    }

    pub fn integer(&mut self) -> Parsed<usize> {
        self.number("an integer")
    }

    pub fn id(&mut self) -> Parsed<(TensorId, Range<usize>)> {
        self.space();
        let start = self.at;
        self.expect("%")?;
        let id: u32 = self.number("a tensor's index")?;
        Ok((TensorId(id), start..self.at))
    }

    /// `"…"` with Rust's escapes.
    pub fn string(&mut self) -> Parsed<String> {
        self.expect("\"")?;
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + i + 1;
                    return Ok(text);
                }
                '\\' => match unescape(&mut chars) {
                    Some(c) => text.push(c),
                    None => {
                        let end = chars.offset();
                        return Fault::at(start + i..start + end, "unknown escape");
                    }
                },
                c => text.push(c),
            }
        }
        Fault::at(start - 1..self.line.len(), "the string does not end on this line")
    }

    /// `item {"," item}`
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.eat(",") {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// `4x2`
    pub fn by(&mut self) -> Parsed<[usize; 2]> {
        self.space();
        let start = self.at;
        let word = self.word();
        let parsed = word
            .split_once('x')
            .and_then(|(h, w)| Some([h.parse().ok()?, w.parse().ok()?]));
        parsed.map_or_else(|| Fault::at(start..self.at, "expected height x width, as in 3x3"), Ok)
    }
}

impl Fault {
    pub fn at<T>(span: Range<usize>, message: impl Into<String>) -> Parsed<T> {
        Err(Fault {
            span,
            message: message.into(),
        })
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The character that an escape stands for; its backslash is read already.
fn unescape(chars: &mut std::str::CharIndices) -> Option<char> {
    Some(match chars.next()?.1 {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        c @ ('"' | '\\' | '\'') => c,
        'u' => {
            let hex = chars.as_str().strip_prefix('{')?;
            let hex = &hex[..hex.find('}')?];
            let c = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
            for _ in 0..hex.len() + 2 {
                chars.next();
            }
            c
        }
        _ => return None,
    })
}
