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

/// How kernels of an architecture are run.
struct Tools {
    compiler: &'static str,
    /// Beside those for every runner.
    flags: &'static [&'static str],
    emulator: &'static str,
    arguments: &'static [&'static str],
}

/// Bare-metal compilers have no library: the runner brings what it needs of one.
fn tools(arch: Arch) -> Option<Tools> {
    let tools = |compiler, flags, emulator, arguments| Tools {
        compiler,
        flags,
        emulator,
        arguments,
    };
    match arch {
        Arch::Aarch64 => Some(tools("aarch64-linux-gnu-gcc", &[], "qemu-aarch64", &["-cpu", "max"])),
        Arch::Riscv64 => Some(tools("riscv64-linux-gnu-gcc", &[], "qemu-riscv64", &[])),
        Arch::Riscv32 => Some(tools(
            "riscv64-unknown-elf-gcc",
            &["-march=rv32imafdc", "-mabi=ilp32d", "-ffreestanding", "-nostdlib"],
            "qemu-riscv32",
            &[],
        )),
        // Cores of the M profile exist only as whole machines; others have all of their instructions.
        Arch::Thumb2 => Some(tools(
            "arm-none-eabi-gcc",
            &[
                "-mcpu=cortex-a7",
                "-mthumb",
                "-mfloat-abi=softfp",
                "-mfpu=vfpv4",
                "-ffreestanding",
                "-nostdlib",
            ],
            "qemu-arm",
            &["-cpu", "max"],
        )),
        Arch::X86_64 => None,
    }
}

/// The runner for `arch`, built once in a process.
fn runner(arch: Arch) -> Option<&'static PathBuf> {
    static BUILT: [OnceLock<Option<(tempfile::TempDir, PathBuf)>>; 4] = [const { OnceLock::new() }; 4];
    let tools = tools(arch)?;
    let index = [Arch::Aarch64, Arch::Riscv64, Arch::Riscv32, Arch::Thumb2]
        .iter()
        .position(|known| *known == arch)?;
    let built = BUILT[index].get_or_init(|| {
        let directory = tempfile::tempdir().ok()?;
        let path = directory.path().join("runner");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernels/testing/runner.c");
        let compiled = Command::new(tools.compiler)
            .args(["-O1", "-static"])
            .args(tools.flags)
            .arg("-o")
            .arg(&path)
            .arg(source)
            .status();
        let emulated = Command::new(tools.emulator).arg("--version").output();
        if !matches!(compiled, Ok(status) if status.success()) || emulated.is_err() {
            eprintln!(
                "no {} or {}: {} not tested",
                tools.compiler,
                tools.emulator,
                arch.name()
            );
            return None;
        }
        Some((directory, path))
    });
    built.as_ref().map(|(_, path)| path)
}

/// What counts instructions in the emulator, built once in a process.
fn counter() -> Option<&'static PathBuf> {
    static BUILT: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let directory = tempfile::tempdir().ok()?;
        let path = directory.path().join("counter.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernels/testing/counter.c");
        let compiled = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(&path)
            .arg(source)
            .status();
        matches!(compiled, Ok(status) if status.success()).then_some((directory, path))
    });
    built.as_ref().map(|(_, path)| path)
}

/// Whether kernels for `target` can be emulated here.
pub fn available(target: &Target) -> bool {
    runner(target.arch()).is_some()
}

/// Calls `code` with `buffers` (alignment, kind, bytes) and returns the output's bytes.
pub fn call(target: &Target, code: &[u8], buffers: &[(u64, Kind, Vec<u8>)], edge: Edge) -> Vec<u8> {
    call_with(target, code, buffers, edge, &[]).0
}

/// The same, and how many instructions of `code` ran, where the emulator takes plug-ins.
pub fn call_counted(
    target: &Target,
    code: &[u8],
    buffers: &[(u64, Kind, Vec<u8>)],
    edge: Edge,
) -> (Vec<u8>, Option<u64>) {
    let Some(counter) = counter() else {
        return (call(target, code, buffers, edge), None);
    };
    // The runner maps the code there.
    let (from, to) = (0x5000_0000u64, 0x5000_0000 + code.len() as u64);
    let plugin = format!("{},from={from},to={to}", counter.display());
    let (output, messages) = call_with(target, code, buffers, edge, &["-plugin", &plugin]);
    let count = messages.lines().find_map(|line| line.strip_prefix("instructions "));
    (output, count.and_then(|count| count.parse().ok()))
}

fn call_with(
    target: &Target,
    code: &[u8],
    buffers: &[(u64, Kind, Vec<u8>)],
    edge: Edge,
    options: &[&str],
) -> (Vec<u8>, String) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let runner = runner(target.arch()).expect("checked by `available`");
    let tools = tools(target.arch()).expect("checked by `available`");
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
    let output = Command::new(tools.emulator)
        .args(tools.arguments)
        .args(options)
        .arg(runner)
        .arg(&path)
        .arg(if edge == Edge::End { "end" } else { "start" })
        .output()
        .expect("the emulator ran before");
    std::fs::remove_file(&path).expect("just written");
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{target}: {} {messages}", output.status);
    (output.stdout, messages)
}
