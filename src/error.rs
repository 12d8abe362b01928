//! The one error type: what went wrong, where in the model, and what to do about it.

use std::fmt;

/// What kind of failure it is. Decides the exit code and the stable code that scripts can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The command line cannot be carried out as given (exit code 2).
    Usage,
    /// The target is unknown or cannot be built for (exit code 2).
    Target,
    /// The input is not a valid model.
    Model,
    /// The model is valid, but uses something corerope does not implement.
    Unsupported,
    /// A bound of [`crate::limits`] is exceeded.
    Limit,
    /// A file cannot be read or written.
    Io,
    /// Compiled code and evaluator differ (`corerope verify`).
    Mismatch,
    /// A linker put something where it should not be (`corerope check-link`).
    Link,
    /// corerope broke one of its own invariants: a bug to report.
    Internal,
}

impl Code {
    /// The stable name that `--json` and the rendered message carry.
    pub fn name(self) -> &'static str {
        match self {
            Code::Usage => "usage",
            Code::Target => "target",
            Code::Model => "model",
            Code::Unsupported => "unsupported",
            Code::Limit => "limit",
            Code::Io => "io",
            Code::Mismatch => "mismatch",
            Code::Link => "link",
            Code::Internal => "internal",
        }
    }

    /// Process exit code: 1 the model or the build failed, 2 usage.
    pub fn exit_code(self) -> u8 {
        match self {
            Code::Usage | Code::Target => 2,
            _ => 1,
        }
    }
}

/// An error for the person who reads it.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Error {
    /// Kind of failure.
    pub code: Code,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where in the model: `operator 3 CONV_2D "conv1"`, `tensor 7 "w" int8[8,3,3,3]`, a line of a listing.
    pub location: Option<String>,
    /// What the reader can do about it.
    pub help: Option<String>,
    /// What a report of a bug needs, if it is one: the command line saves it.
    pub attachment: Option<Box<Attachment>>,
    /// Further findings of the same kind (all unsupported operators are listed at once).
    pub more: Vec<Error>,
}

/// A text that belongs to a report of a bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// File name.
    pub name: String,
    /// Contents.
    pub text: String,
}

/// Result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of kind `code` that says `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error {
            code,
            message: message.into(),
            location: None,
            help: None,
            attachment: None,
            more: Vec::new(),
        }
    }

    /// The input is not a valid model.
    pub fn model(message: impl Into<String>) -> Self {
        Error::new(Code::Model, message)
    }

    /// Valid, but not implemented.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Error::new(Code::Unsupported, message)
    }

    /// A broken invariant of corerope itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(Code::Internal, message)
            .help("this is a bug in corerope: please report it with the model, or with `corerope inspect` of it")
    }

    /// A failed file operation on `path`.
    pub fn io(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Error::new(Code::Io, format!("cannot {action} {}: {error}", path.display()))
    }

    /// Adds where in the model it happened, if nothing closer said so already.
    pub fn at(mut self, location: impl Into<String>) -> Self {
        self.location.get_or_insert_with(|| location.into());
        self
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a text that a report of the bug needs.
    pub fn attach(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.attachment = Some(Box::new(Attachment {
            name: name.into(),
            text: text.into(),
        }));
        self
    }

    /// One error out of several of the same stage: the first carries the others. `None` if there are none.
    pub fn collect(errors: Vec<Error>) -> Option<Error> {
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        first.more.extend(errors);
        Some(first)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(location) = &self.location {
            write!(f, " (at {location})")?;
        }
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        for error in &self.more {
            write!(f, "\n{error}")?;
        }
        Ok(())
    }
}
