//! Errors as people and scripts read them.

use crate::error::{Code, Error};
use anstyle::{AnsiColor, Style};
use serde_json::json;
use std::ffi::OsString;
use std::io::Write;

/// How messages are written (`--message-format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum MessageFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

const ERROR: Style = AnsiColor::BrightRed.on_default().bold();
const PLACE: Style = AnsiColor::BrightBlue.on_default().bold();
const HELP: Style = AnsiColor::BrightCyan.on_default().bold();
const BOLD: Style = Style::new().bold();

/// Saves what a report of a bug needs, and says where.
pub(super) fn save(error: &mut Error) {
    let Some(attachment) = error.attachment.take() else {
        return;
    };
    let file = tempfile::Builder::new()
        .prefix("corerope-")
        .suffix(&format!("-{}", attachment.name))
        .tempfile()
        .and_then(|mut file| {
            file.write_all(attachment.text.as_bytes())?;
            Ok(file.keep()?.1)
        });
    // The error itself is more important than a full disk.
    if let Ok(path) = file {
        let help = error.help.take().unwrap_or_default();
        error.help = Some(format!("{help}; the function is saved in {}", path.display()));
    }
}

/// An error and all that came with it, with colours.
///
/// ```text
/// error[unsupported]: there is no kernel for LSTM
///   --> operator 3 LSTM "lstm"
///   help: …
/// ```
pub(super) fn human(error: &Error) -> String {
    let mut text = String::new();
    for error in all(error) {
        let (first, rest) = error.message.split_once('\n').unwrap_or((&error.message, ""));
        text += &format!("{ERROR}error[{}]{ERROR:#}{BOLD}: {first}{BOLD:#}\n", error.code.name());
        for line in rest.lines() {
            text += &format!("{line}\n");
        }
        if let Some(location) = &error.location {
            text += &format!("  {PLACE}-->{PLACE:#} {location}\n");
        }
        if let Some(help) = &error.help {
            text += &format!("  {HELP}help{HELP:#}: {help}\n");
        }
    }
    let more = error.more.len();
    if more > 0 {
        text += &format!("{ERROR}error{ERROR:#}: {} findings\n", more + 1);
    }
    text
}

/// An error and all that came with it, one JSON object per line.
pub(super) fn json(error: &Error) -> String {
    let line = |error: &Error| {
        let value = json!({
            "level": "error",
            "code": error.code.name(),
            "message": error.message,
            "location": error.location,
            "help": error.help,
        });
        format!("{value}\n")
    };
    all(error).map(line).collect()
}

/// The error and its companions; theirs are not followed, as there are none.
fn all(error: &Error) -> impl Iterator<Item = &Error> {
    std::iter::once(error).chain(&error.more)
}

/// Whether arguments that cannot be parsed ask for JSON all the same.
pub(super) fn is_json(arguments: &[OsString]) -> bool {
    let options = arguments.iter().take_while(|argument| *argument != "--");
    let options: Vec<&OsString> = options.collect();
    options.iter().any(|argument| *argument == "--message-format=json")
        || options
            .windows(2)
            .any(|pair| pair[0] == "--message-format" && pair[1] == "json")
}

/// Wrong usage as the parser of arguments describes it: a paragraph about what is wrong, others about what to do.
pub(super) fn usage(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let mut paragraphs = text
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    let message = paragraphs.next().unwrap_or_default();
    let help: Vec<String> = paragraphs.filter(|paragraph| !paragraph.is_empty()).collect();
    Error::new(Code::Usage, message.strip_prefix("error: ").unwrap_or(&message)).help(help.join("; "))
}

/// Writes to standard error. If that fails there is nowhere left to say so.
pub(super) fn show(error: &Error, format: MessageFormat) {
    let text = match format {
        MessageFormat::Human => human(error),
        MessageFormat::Json => json(error),
    };
    let _ = anstream::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors() -> Error {
        Error::collect(vec![
            Error::unsupported("there is no LSTM")
                .at("operator 3 LSTM \"lstm\"")
                .help("use a GRU"),
            Error::unsupported("there is no GRU"),
        ])
        .unwrap()
    }

    #[test]
    fn all_findings_are_shown() {
        let text = anstream::adapter::strip_str(&human(&errors())).to_string();
        assert_eq!(
            text,
            "error[unsupported]: there is no LSTM\n  --> operator 3 LSTM \"lstm\"\n  help: use a GRU\n\
             error[unsupported]: there is no GRU\nerror: 2 findings\n"
        );
    }

    #[test]
    fn a_message_of_several_lines_keeps_them() {
        let error = Error::new(Code::Model, "bad token\n 1 | graph\n   | ^^^");
        let text = anstream::adapter::strip_str(&human(&error)).to_string();
        assert_eq!(text, "error[model]: bad token\n 1 | graph\n   | ^^^\n");
    }

    #[test]
    fn json_is_asked_for() {
        let is_json = |arguments: &[&str]| is_json(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(is_json(&["corerope", "build", "--message-format", "json", "-x"]));
        assert!(is_json(&["corerope", "--message-format=json"]));
        assert!(!is_json(&["corerope", "--message-format", "human", "json"]));
        assert!(!is_json(&["corerope", "build", "--", "--message-format=json"]));
    }

    #[test]
    fn json_lines() {
        let text = json(&errors());
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["code"], "unsupported");
        assert_eq!(lines[1]["location"], serde_json::Value::Null);
    }
}
