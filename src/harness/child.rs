//! Runs a program: feeds it, reads it, says what went wrong.

use super::{EXIT_READ, EXIT_STATUS, EXIT_WRITE, Program, Run};
use crate::error::{Code, Error, Result};
use crate::kernels::entry::STATUS;
use crate::target::{Arch, Target};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// What runs programs for `target` on this machine: nothing if it does so itself, QEMU's user mode otherwise.
pub fn default_runner(target: &Target) -> Option<Vec<String>> {
    let (host, qemu) = match target.arch() {
        Arch::X86_64 => (cfg!(target_arch = "x86_64"), "qemu-x86_64"),
        Arch::Aarch64 => (cfg!(target_arch = "aarch64"), "qemu-aarch64"),
        Arch::Riscv64 => (cfg!(target_arch = "riscv64"), "qemu-riscv64"),
        // No Linux runs on these: there is no program to be run.
        Arch::Thumb2 | Arch::Riscv32 => return None,
    };
    (!(host && cfg!(target_os = "linux"))).then(|| vec![qemu.to_owned()])
}

impl Program {
    /// Writes the program to a temporary file, runs the model once for each element of `runs` (one buffer for each
    /// input) and removes the file.
    ///
    /// # Errors
    /// Those of [`Program::write`] and [`Program::execute`].
    pub fn run(&self, runner: Option<&[String]>, runs: &[Vec<Vec<u8>>]) -> Result<Vec<Run>> {
        let io = |error: io::Error| Error::new(Code::Io, format!("cannot write a temporary program: {error}"));
        let mut builder = tempfile::Builder::new();
        builder.prefix("corerope-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let mut file = builder.tempfile().map_err(io)?;
        self.write(&mut file)?;
        // Closed before it is started: a file that is open for writing cannot be.
        let path = file.into_temp_path();
        let runs = self.execute(&path, runner, runs);
        path.close().map_err(io)?;
        runs
    }

    /// Runs a written program once for each element of `runs`. `runner` and its arguments come before the program.
    ///
    /// # Errors
    /// [`Code::Usage`] if an input's size is not the model's; [`Code::Io`] if the program cannot be started, crashes,
    /// or ends early.
    pub fn execute(&self, executable: &Path, runner: Option<&[String]>, runs: &[Vec<Vec<u8>>]) -> Result<Vec<Run>> {
        for run in runs {
            let sizes: Vec<usize> = run.iter().map(Vec::len).collect();
            if sizes != self.inputs {
                let what = format!("the inputs have {sizes:?} bytes, the model takes {:?}", self.inputs);
                return Err(Error::new(Code::Usage, what));
            }
        }
        // Without inputs, a program cannot see where they end: it runs once.
        let rounds = if self.inputs.iter().all(|len| *len == 0) {
            runs.len()
        } else {
            usize::from(!runs.is_empty())
        };
        let per_round = runs.len().checked_div(rounds).unwrap_or(0);
        let mut results = Vec::with_capacity(runs.len());
        for round in 0..rounds {
            let runs = &runs[round * per_round..(round + 1) * per_round];
            let output = execute(executable, runner, |stdin| {
                runs.iter().flatten().try_for_each(|input| stdin.write_all(input))
            })?;
            let mut rest = &output[..];
            for _ in runs {
                results.push(self.parse(&mut rest).ok_or_else(|| ended_early(output.len()))?);
            }
            if !rest.is_empty() {
                return Err(Error::internal(format!(
                    "the program wrote {} bytes too many",
                    rest.len()
                )));
            }
        }
        Ok(results)
    }

    /// Takes one run's results from the front of the output.
    fn parse(&self, rest: &mut &[u8]) -> Option<Run> {
        let mut take = |len: usize| {
            let (bytes, tail) = rest.split_at_checked(len)?;
            *rest = tail;
            Some(bytes)
        };
        let mut run = Run::default();
        for (step, len) in self.steps.iter().enumerate() {
            let header = take(16)?;
            let number = |at: usize| header[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            if number(0)? != step as u64 || number(8)? != *len as u64 {
                return None;
            }
            run.trace.push(take(*len)?.to_vec());
        }
        for len in &self.outputs {
            run.outputs.push(take(*len)?.to_vec());
        }
        Some(run)
    }
}

fn ended_early(len: usize) -> Error {
    Error::internal(format!(
        "the program's output of {len} bytes is not what its runs write"
    ))
}

/// Starts a program, lets `feed` write its standard input while its output is read, and returns the output.
fn execute(
    executable: &Path,
    runner: Option<&[String]>,
    feed: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
) -> Result<Vec<u8>> {
    let mut child = start(executable, runner)?;
    let failed = |error: io::Error| Error::new(Code::Io, format!("lost touch with the model's program: {error}"));
    let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Error::internal("the program was started without pipes"));
    };
    let (mut output, mut messages) = (Vec::new(), Vec::new());
    let (fed, read, noted) = std::thread::scope(|scope| {
        // All three pipes at once: whichever fills up, the others drain.
        let fed = scope.spawn(move || {
            let result = feed(&mut stdin);
            drop(stdin);
            result
        });
        let noted = scope.spawn(|| stderr.read_to_end(&mut messages));
        let read = stdout.read_to_end(&mut output);
        (fed.join(), read, noted.join())
    });
    let status = child.wait().map_err(failed)?;
    explain(status, &String::from_utf8_lossy(&messages))?;
    read.map_err(failed)?;
    for result in [fed.map(|fed| fed.map(|()| 0)), noted] {
        result
            .map_err(|_| Error::internal("a thread that serves the program panicked"))?
            .map_err(failed)?;
    }
    Ok(output)
}

fn start(executable: &Path, runner: Option<&[String]>) -> Result<Child> {
    let mut command = match runner {
        Some([program, args @ ..]) => {
            let mut command = Command::new(program);
            command.args(args).arg(executable);
            command
        }
        _ => Command::new(executable),
    };
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut tries = 0;
    loop {
        match command.spawn() {
            Ok(child) => return Ok(child),
            // Another thread that was starting a process held our file open for writing when it forked.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 100 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => {
                let name = command.get_program().to_string_lossy().into_owned();
                let error = Error::new(Code::Io, format!("cannot start {name}: {error}"));
                return Err(match runner {
                    Some(_) => error.help("install it, or name another with --runner"),
                    None => error.help("programs need Linux on the target's architecture, or a --runner such as QEMU"),
                });
            }
        }
    }
}

/// What an exit status means.
fn explain(status: ExitStatus, messages: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Err(crashed(signal));
    }
    let code = status.code().map_or(0, i64::from);
    let known = STATUS
        .iter()
        .find(|(_, status, ..)| EXIT_STATUS - i64::from(*status) == code);
    Err(match code {
        EXIT_READ => Error::internal("the model's program got too few bytes of input"),
        EXIT_WRITE => Error::new(Code::Io, "the model's program could not write its results"),
        _ => match known {
            Some((name, _, meaning, _)) => Error::internal(format!("the model returned {name}: {meaning}")),
            None => {
                let what = format!("the model's program failed ({status})");
                match messages.trim() {
                    "" => Error::new(Code::Io, what),
                    messages => Error::new(Code::Io, format!("{what}: {messages}")),
                }
            }
        },
    })
}

/// A signal, in words. Numbers are Linux's.
#[cfg(unix)]
fn crashed(signal: i32) -> Error {
    match signal {
        4 => Error::new(
            Code::Target,
            "this machine does not have an instruction that the model's code uses",
        )
        .help("choose a lesser --cpu, or a --runner that emulates the target"),
        7 | 11 => Error::internal("the model's code touched memory that is not its own"),
        9 => Error::new(Code::Io, "the model's program was killed").help("is there enough memory for its arena?"),
        _ => Error::new(Code::Io, format!("the model's program was ended by signal {signal}")),
    }
}
