//! Kernels of other architectures under QEMU's user mode, where it and a cross compiler for `runner.c` are installed.

use super::{Edge, Target};
use crate::target::Arch;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a buffer of the emulated kernel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Read only.
    Constant,
    /// Written and read.
    Scratch,
    /// Written; its bytes are returned.
    Output,
}

fn tools(arch: Arch) -> Option<(&'static str, &'static str, &'static [&'static str])> {
    match arch {
        Arch::Aarch64 => Some(("aarch64-linux-gnu-gcc", "qemu-aarch64", &["-cpu", "max"])),
        Arch::Riscv64 => Some(("riscv64-linux-gnu-gcc", "qemu-riscv64", &[])),
        // Ours are tested on emulated boards (tests/it/firmware.rs).
        Arch::X86_64 | Arch::Thumb2 | Arch::Riscv32 => None,
    }
}

/// The runner for `arch`, built once in a process.
fn runner(arch: Arch) -> Option<&'static PathBuf> {
    static BUILT: [OnceLock<Option<(tempfile::TempDir, PathBuf)>>; 2] = [OnceLock::new(), OnceLock::new()];
    let (compiler, emulator, _) = tools(arch)?;
    let built = &BUILT[usize::from(arch == Arch::Riscv64)];
    let built = built.get_or_init(|| {
        let directory = tempfile::tempdir().ok()?;
        let path = directory.path().join("runner");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernels/testing/runner.c");
        let compiled = Command::new(compiler)
            .args(["-O1", "-static", "-o"])
            .arg(&path)
            .arg(source)
            .status();
        let emulated = Command::new(emulator).arg("--version").output();
        if !matches!(compiled, Ok(status) if status.success()) || emulated.is_err() {
            eprintln!("no {compiler} or {emulator}: {} not tested", arch.name());
            return None;
        }
        Some((directory, path))
    });
    built.as_ref().map(|(_, path)| path)
}

/// Whether kernels for `target` can be emulated here.
pub fn available(target: &Target) -> bool {
    runner(target.arch()).is_some()
}

/// Calls `code` with `buffers` (alignment, kind, bytes) and returns the output's bytes.
pub fn call(target: &Target, code: &[u8], buffers: &[(u64, Kind, Vec<u8>)], edge: Edge) -> Vec<u8> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let runner = runner(target.arch()).expect("checked by `available`");
    let (_, emulator, arguments) = tools(target.arch()).expect("checked by `available`");
    let mut file = Vec::new();
    let number = |file: &mut Vec<u8>, n: usize| file.extend((n as u32).to_le_bytes());
    number(&mut file, code.len());
    file.extend_from_slice(code);
    number(&mut file, buffers.len());
    for (align, kind, bytes) in buffers {
        number(&mut file, bytes.len());
        number(&mut file, *align as usize);
        number(&mut file, *kind as usize);
        file.extend_from_slice(bytes);
    }
    let path = runner.with_extension(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
    std::fs::write(&path, file).expect("a temporary file");
    let output = Command::new(emulator)
        .args(arguments)
        .arg(runner)
        .arg(&path)
        .arg(if edge == Edge::End { "end" } else { "start" })
        .output()
        .expect("the emulator ran before");
    std::fs::remove_file(&path).expect("just written");
    assert!(
        output.status.success(),
        "{target}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}
