//! The command line: arguments → the library → files, text and an exit code. One file per subcommand.

mod build;
mod check_link;
mod diagnostics;
mod input;
mod inspect;
mod options;
mod outside;
mod params;
mod place;
mod progress;
mod run;
mod targets;
mod tensors;
mod verify;

use crate::error::{Code, Error, Result};
use clap::{Parser, Subcommand};
use diagnostics::MessageFormat;
use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

const ABOUT: &str = "Compiles a trained network into an object file or a static library.

corerope reads a model and writes what a linker wants: the network's kernels as machine code, its parameters as \
named constants, and a C header to call it by. No C source in between, no runtime and no heap on the device.";

const START: &str = "\
To start:
  corerope build model.tflite -o model.a     a static library for this machine, and its header
  corerope inspect model.tflite              what such a build would hold, without writing it
  corerope verify model.tflite               whether the compiled code computes what the model says
  corerope targets                           what --target and --cpu accept

`corerope COMMAND --help` says more. Exit codes: 0 done, 1 the model or the build failed, 2 wrong usage.";

/// The program's arguments.
#[derive(Parser)]
#[command(name = "corerope", version, about = ABOUT.split('\n').next(), long_about = ABOUT, after_help = START)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Whether to colour what is printed
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Messages"
    )]
    color: clap::ColorChoice,

    /// How errors are written: for people, or as one JSON object per line
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "human",
        help_heading = "Messages"
    )]
    message_format: MessageFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Compile a model into an object file or a static library
    Build(build::Arguments),
    /// Show what a build would hold, without writing it
    Inspect(inspect::Arguments),
    /// Compile a model for this machine and run it once
    Run(run::Arguments),
    /// Compare compiled code with the meaning of the model, layer by layer
    Verify(verify::Arguments),
    /// Check where a linker put what was built
    CheckLink(check_link::Arguments),
    /// Write an image of new parameters for code that is there, or say why it does not fit
    Params(params::Arguments),
    /// List what can be built for
    Targets(targets::Arguments),
}

/// Runs the program with its arguments.
pub fn main() -> ExitCode {
    let panics: &'static Mutex<Option<String>> = Box::leak(Box::default());
    // A panic is a bug. It is reported as one, after it has unwound; code generation catches its own.
    panic::set_hook(Box::new(|info| {
        *panics.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.to_string().replace('\n', " "));
    }));
    // Without a handler the program ends all the same, only with temporary files left.
    let _ = ctrlc::set_handler(|| {
        crate::output::abandon();
        // As shells count it: 128 and the number of the signal.
        std::process::exit(130);
    });
    let arguments = arguments(std::env::args_os());
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            match error.use_stderr() && diagnostics::is_json(&arguments) {
                true => diagnostics::show(&diagnostics::usage(&error), MessageFormat::Json),
                false => drop(error.print()),
            }
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match cli.color {
        clap::ColorChoice::Auto => {}
        clap::ColorChoice::Always => anstream::ColorChoice::Always.write_global(),
        clap::ColorChoice::Never => anstream::ColorChoice::Never.write_global(),
    }
    let format = cli.message_format;
    if let Err(error) = log() {
        diagnostics::show(&error, format);
        return ExitCode::from(error.code.exit_code());
    }
    let result = panic::catch_unwind(AssertUnwindSafe(|| match cli.command {
        Command::Build(arguments) => arguments.run(),
        Command::Inspect(arguments) => arguments.run(),
        Command::Run(arguments) => arguments.run(),
        Command::Verify(arguments) => arguments.run(),
        Command::CheckLink(arguments) => arguments.run(),
        Command::Params(arguments) => arguments.run(),
        Command::Targets(arguments) => arguments.run(),
    }));
    let result = result.unwrap_or_else(|_| {
        let panic = panics.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(Error::internal(panic.unwrap_or_else(|| "panicked".into())))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(mut error) => {
            diagnostics::save(&mut error);
            diagnostics::show(&error, format);
            ExitCode::from(error.code.exit_code())
        }
    }
}

/// Writes the log of the stages to standard error if `COREROPE_LOG` asks for it: `debug`, or levels by room, as in
/// `corerope::passes=debug`.
///
/// # Errors
/// [`Code::Usage`] if it cannot be understood.
fn log() -> Result<()> {
    let Some(wanted) = std::env::var_os("COREROPE_LOG") else {
        return Ok(());
    };
    let wanted = wanted.to_string_lossy();
    let targets: Targets = wanted.parse().map_err(|error| {
        Error::new(Code::Usage, format!("COREROPE_LOG={wanted}: {error}"))
            .help("say a level, such as COREROPE_LOG=debug, or one for a part: COREROPE_LOG=corerope::passes=debug")
    })?;
    let written = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    // Only a second call could fail.
    let _ = tracing_subscriber::registry()
        .with(written.with_filter(targets))
        .try_init();
    Ok(())
}

/// The arguments with compilers' long options of one dash in the form that the parser knows: `-MD`, `-MF FILE`,
/// `-MFFILE`, and so on. Nothing after `--` is touched.
fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut plain = true;
    let rewrite = |argument: OsString| {
        plain &= argument != "--";
        let text = argument.to_str().filter(|_| plain).unwrap_or("");
        match text {
            "-gdwarf-4" => "--debug=4".into(),
            "-gdwarf-5" => "--debug=5".into(),
            "-MD" | "-MF" | "-MT" | "-MQ" | "-MP" => format!("-{text}").into(),
            _ => match text.split_at_checked(3) {
                Some((option @ ("-MF" | "-MT" | "-MQ"), value)) => format!("-{option}={value}").into(),
                _ => argument,
            },
        }
    };
    given.map(rewrite).collect()
}

/// Prints to standard output, in colour where it is a terminal. A reader that went away is no failure.
fn print(text: &str) -> Result<()> {
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write", std::path::Path::new("to standard output"), &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_compilers() {
        let given = [
            "corerope", "-MD", "-MF", "x.d", "-MTkws.a", "-M", "-o", "-MP", "--", "-MD",
        ];
        let rewritten = arguments(given.iter().map(OsString::from));
        let expected = [
            "corerope",
            "--MD",
            "--MF",
            "x.d",
            "--MT=kws.a",
            "-M",
            "-o",
            "--MP",
            "--",
            "-MD",
        ];
        assert_eq!(rewritten, expected);
    }

    /// Every option says what it does, and every subcommand shows examples.
    #[test]
    fn everything_is_explained() {
        let cli = Cli::command();
        for command in cli.get_subcommands() {
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("corerope "), "{}", command.get_name());
        }
    }
}
