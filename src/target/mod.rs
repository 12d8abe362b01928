//! What can be built for: `--target`, `--cpu` and `--abi`, looked up in one [table].

mod table;

pub use table::{Arch, CPUS, Cpu, Dot, Machine, TRIPLES};

use crate::error::{Code, Error, Result};
use std::fmt;
use std::str::FromStr;
use target_lexicon::{
    Aarch64Architecture, Architecture, ArmArchitecture, BinaryFormat, Environment, OperatingSystem,
    Riscv32Architecture, Triple,
};

/// Object file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// ELF.
    Elf,
    /// COFF (Windows).
    Coff,
    /// Mach-O (macOS, iOS).
    MachO,
}

/// Beginning of the names of sections of constants that code on x86-64 does not reach with 32-bit offsets, as with GCC's
/// `-mcmodel=medium`: linkers place them last, and code takes their addresses from a table.
pub const FAR_CONSTANTS: &str = ".lrodata";

/// A target: machine, ABI and object format.
#[derive(Clone, Debug)]
pub struct Target {
    /// The triple as the user wrote it.
    pub name: String,
    /// The parsed triple.
    pub triple: Triple,
    /// The CPU, as in [`CPUS`].
    pub cpu: &'static Cpu,
    /// The RISC-V float ABI (`lp64`, `ilp32f`, …), `None` elsewhere.
    pub abi: Option<&'static str>,
    /// What code is chosen for where instructions and bytes are at odds.
    pub effort: Effort,
    /// What schedules do without, to see what that costs; nothing where code is built.
    pub without: Without,
}

/// A restriction on schedules, for comparisons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Without {
    /// None.
    #[default]
    Nothing,
    /// A form of loop that some layers have is not there: those have the one that they would have had before it.
    Form(LoopForm),
    /// Tiles of more than so many channels are not there.
    TilesAbove(usize),
}

/// Forms of loops that compete with simpler ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoopForm {
    /// Two channels' weights in a half-word, for SMLAD.
    Paired,
    /// Depthwise windows over pairs of rows, for SMLAD.
    RowPairs,
    /// Depthwise windows over a plane of one channel.
    Planes,
    /// Two positions in a 32-bit word.
    Packed,
    /// Several channels' weights in a word.
    Lanes16,
    /// Three positions in a 64-bit word.
    Lanes21,
    /// Three rows of outputs in a 64-bit word.
    Rows21,
    /// Four channels' weights in a word.
    Quads,
    /// One row of a depthwise convolution, straight from three rows.
    Columns,
}

impl LoopForm {
    /// All of them.
    pub const ALL: [LoopForm; 9] = [
        LoopForm::Paired,
        LoopForm::RowPairs,
        LoopForm::Planes,
        LoopForm::Packed,
        LoopForm::Lanes16,
        LoopForm::Lanes21,
        LoopForm::Rows21,
        LoopForm::Quads,
        LoopForm::Columns,
    ];

    /// The name that schedules begin with.
    pub fn name(self) -> &'static str {
        match self {
            LoopForm::Paired => "paired",
            LoopForm::RowPairs => "row pairs",
            LoopForm::Planes => "planes",
            LoopForm::Packed => "packed",
            LoopForm::Lanes16 => "lanes16",
            LoopForm::Lanes21 => "lanes21",
            LoopForm::Rows21 => "rows21",
            LoopForm::Quads => "quads",
            LoopForm::Columns => "columns",
        }
    }
}

/// What code is chosen for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Effort {
    /// Few instructions.
    Speed,
    /// Few instructions in little scratch.
    Ram,
    /// Few instructions where they take few bytes.
    #[default]
    Balanced,
    /// Few bytes.
    Size,
}

impl Target {
    /// Parses `--target`, `--cpu` and `--abi`. No triple is the host; no CPU is the triple's default.
    ///
    /// # Errors
    /// [`Code::Target`] with what is known, where one of them is not.
    pub fn new(triple: Option<&str>, cpu: Option<&str>, abi: Option<&str>) -> Result<Self> {
        let name = triple.map_or_else(|| Triple::host().to_string(), str::to_owned);
        let parsed = Triple::from_str(&name).map_err(|_| {
            refuse(format!("unknown target {name:?}"))
                .help(format!("`corerope targets` lists what can be built for: {}", list()))
        })?;
        let arch = arch(&parsed)?;
        let cpu = self::cpu(&parsed, arch, cpu)?;
        let abi = self::abi(cpu, abi)?;
        let target = Target {
            name,
            triple: parsed,
            cpu,
            abi,
            effort: Effort::default(),
            without: Without::default(),
        };
        match target.format() {
            Format::Coff if target.arch() != Arch::X86_64 => Err(refuse(format!(
                "COFF is written for x86-64 only, not for {}",
                target.name
            )))?,
            Format::MachO if !matches!(target.arch(), Arch::X86_64 | Arch::Aarch64) => Err(refuse(format!(
                "Mach-O is written for x86-64 and AArch64 only, not for {}",
                target.name
            )))?,
            _ => {}
        }
        Ok(target)
    }

    /// Instruction set family.
    pub fn arch(&self) -> Arch {
        self.cpu.arch
    }

    /// Whether the CPU has a feature, by its name in the table.
    pub fn has(&self, feature: &str) -> bool {
        self.cpu.features.contains(&feature)
    }

    /// Whether schedules may have a form of loop.
    pub fn allows(&self, form: LoopForm) -> bool {
        self.without != Without::Form(form)
    }

    /// What kernels may count on.
    pub fn machine(&self) -> &Machine {
        &self.cpu.machine
    }

    /// Object file format: COFF for Windows, Mach-O for Apple's systems, ELF elsewhere, bare metal included.
    pub fn format(&self) -> Format {
        match self.triple.operating_system {
            OperatingSystem::Windows => Format::Coff,
            _ if self.triple.binary_format == BinaryFormat::Macho => Format::MachO,
            _ => Format::Elf,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.cpu.name)
    }
}

fn refuse(message: impl Into<String>) -> Error {
    Error::new(Code::Target, message)
}

/// The known triples, for messages.
fn list() -> String {
    TRIPLES.iter().map(|(triple, _)| *triple).collect::<Vec<_>>().join(", ")
}

/// Cores without Thumb-2, as users name them.
const THUMB1: &[&str] = &["cortex-m0", "cortex-m0+", "cortex-m0plus", "cortex-m1", "cortex-m23"];

fn thumb1(what: &str) -> Error {
    refuse(format!(
        "{what} has Thumb-1 only, and code is generated for Thumb-2 and RISC-V"
    ))
    .help(
        "Cortex-M3, M4, M7 and M33 are supported: thumbv7m-none-eabi, thumbv7em-none-eabi(hf), \
         thumbv8m.main-none-eabi(hf)",
    )
}

fn arch(triple: &Triple) -> Result<Arch> {
    use Riscv32Architecture as Rv32;
    Ok(match triple.architecture {
        Architecture::X86_64 => Arch::X86_64,
        Architecture::Aarch64(Aarch64Architecture::Aarch64) => Arch::Aarch64,
        Architecture::Riscv64(_) => Arch::Riscv64,
        Architecture::Arm(ArmArchitecture::Thumbv6m | ArmArchitecture::Thumbv8mBase) => {
            return Err(thumb1(&triple.architecture.to_string()));
        }
        Architecture::Arm(ArmArchitecture::Thumbv7m | ArmArchitecture::Thumbv7em | ArmArchitecture::Thumbv8mMain) => {
            Arch::Thumb2
        }
        Architecture::Riscv32(Rv32::Riscv32i) => {
            return Err(
                refuse("riscv32i has no multiplication, which every kernel needs").help("M is needed: riscv32im…")
            );
        }
        Architecture::Riscv32(_) => Arch::Riscv32,
        other => {
            return Err(refuse(format!("no code generator for {other} (target \"{triple}\")"))
                .help(format!("`corerope targets` lists what can be built for: {}", list())));
        }
    })
}

/// The CPU that a name means on a triple. A Cortex-M core without `+fp` or `+nofp` has an FPU if the triple ends in
/// `eabihf`.
fn cpu(triple: &Triple, arch: Arch, name: Option<&str>) -> Result<&'static Cpu> {
    if name.is_some_and(|name| THUMB1.contains(&name)) {
        return Err(thumb1(name.unwrap_or_default()));
    }
    let hard = triple.environment == Environment::Eabihf;
    let (family, default) = match triple.architecture {
        Architecture::Arm(ArmArchitecture::Thumbv7m) => (Some("v7m"), Some("cortex-m3")),
        Architecture::Arm(ArmArchitecture::Thumbv7em) => (Some("v7em"), Some("cortex-m4")),
        Architecture::Arm(ArmArchitecture::Thumbv8mMain) => (Some("v8m.main"), Some("cortex-m33")),
        Architecture::Riscv32(Riscv32Architecture::Riscv32) => (None, Some("rv32im")),
        Architecture::Riscv32(Riscv32Architecture::Riscv32ima) => (None, Some("rv32im")),
        Architecture::Riscv32(Riscv32Architecture::Riscv32im) => (None, Some("rv32im")),
        Architecture::Riscv32(Riscv32Architecture::Riscv32imc) => (None, Some("rv32imc")),
        Architecture::Riscv32(Riscv32Architecture::Riscv32imac) => (None, Some("rv32imac")),
        Architecture::Riscv32(Riscv32Architecture::Riscv32imafc) => (None, Some("rv32imafc")),
        Architecture::Riscv32(Riscv32Architecture::Riscv32gc) => (None, Some("rv32gc")),
        _ => (None, None),
    };
    let cpus = || CPUS.iter().filter(move |cpu| cpu.arch == arch);
    let Some(name) = name.or(default) else {
        return cpus()
            .next()
            .ok_or_else(|| Error::internal(format!("no CPU for {triple}")));
    };
    let suffix = if hard { "+fp" } else { "+nofp" };
    let found = cpus()
        .find(|cpu| cpu.name == name)
        .or_else(|| cpus().find(|cpu| cpu.name.strip_prefix(name) == Some(suffix)));
    let known = |family: Option<&str>| {
        let of = cpus().filter(|cpu| family.is_none_or(|family| cpu.features.first() == Some(&family)));
        format!("known: {}", of.map(|cpu| cpu.name).collect::<Vec<_>>().join(", "))
    };
    let cpu = found.ok_or_else(|| refuse(format!("unknown CPU {name:?} for {}", arch.name())).help(known(family)))?;
    if family.is_some_and(|family| cpu.features.first() != Some(&family)) {
        return Err(refuse(format!("{} is no {} core", cpu.name, triple.architecture)).help(known(family)));
    }
    if hard && name == "cortex-m3" {
        return Err(refuse("Cortex-M3 has no FPU").help("use thumbv7m-none-eabi"));
    }
    Ok(cpu)
}

/// The RISC-V float ABI: by default the best that the CPU has registers for.
fn abi(cpu: &Cpu, abi: Option<&str>) -> Result<Option<&'static str>> {
    let has = |extension| cpu.features.contains(&extension);
    let known: &[&'static str] = match cpu.arch {
        Arch::Riscv64 => &["lp64", "lp64f", "lp64d"],
        Arch::Riscv32 if has("d") => &["ilp32", "ilp32f", "ilp32d"],
        Arch::Riscv32 if has("f") => &["ilp32", "ilp32f"],
        Arch::Riscv32 => &["ilp32"],
        _ => &[],
    };
    match abi {
        None => Ok(known.last().copied()),
        Some(abi) if known.is_empty() => Err(refuse(format!(
            "{} has one ABI, --abi {abi} does not apply",
            cpu.arch.name()
        ))),
        Some(abi) => {
            match known.iter().find(|known| **known == abi) {
                Some(abi) => Ok(Some(abi)),
                None => Err(refuse(format!("unknown ABI {abi:?} for {}", cpu.name))
                    .help(format!("known: {}", known.join(", ")))),
            }
        }
    }
}

/// One target for each CPU of the table, on some triple.
#[cfg(test)]
pub(crate) fn every_cpu() -> Vec<Target> {
    CPUS.iter()
        .map(|cpu| {
            let triple = match cpu.arch {
                Arch::X86_64 => "x86_64-unknown-linux-gnu".to_owned(),
                Arch::Aarch64 => "aarch64-unknown-linux-gnu".to_owned(),
                Arch::Riscv64 => "riscv64gc-unknown-linux-gnu".to_owned(),
                Arch::Thumb2 => format!("thumb{}-none-eabi", cpu.features[0]),
                Arch::Riscv32 => "riscv32-unknown-none-elf".to_owned(),
            };
            Target::new(Some(&triple), Some(cpu.name), None).expect("the table's own names are valid")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu_of(triple: &str, cpu: Option<&str>) -> std::result::Result<&'static str, String> {
        Target::new(Some(triple), cpu, None)
            .map(|target| target.cpu.name)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_triple_decides_about_the_fpu() {
        for (triple, cpu, name) in [
            ("thumbv7m-none-eabi", None, "cortex-m3"),
            ("thumbv7em-none-eabi", None, "cortex-m4+nofp"),
            ("thumbv7em-none-eabihf", None, "cortex-m4+fp"),
            ("thumbv7em-none-eabihf", Some("cortex-m7"), "cortex-m7+fp"),
            ("thumbv7em-none-eabi", Some("cortex-m4+fp"), "cortex-m4+fp"),
            ("thumbv7em-none-eabihf", Some("cortex-m4+nofp"), "cortex-m4+nofp"),
            ("thumbv8m.main-none-eabihf", None, "cortex-m33+fp"),
            (
                "thumbv8m.main-none-eabi",
                Some("cortex-m33+nodsp"),
                "cortex-m33+nodsp+nofp",
            ),
            ("riscv32imc-unknown-none-elf", None, "rv32imc"),
            ("riscv32gc-unknown-none-elf", Some("rv32imc"), "rv32imc"),
        ] {
            let target = Target::new(Some(triple), cpu, None).unwrap();
            assert_eq!(target.cpu.name, name, "{triple} {cpu:?}");
            let fpu = target.has("vfpv4") || target.has("fpv5") || target.has("f");
            assert_eq!(target.machine().fused_multiply_add, fpu, "{target}");
        }
    }

    #[test]
    fn cores_without_thumb2_are_refused_by_name() {
        for (triple, cpu) in [
            ("thumbv6m-none-eabi", None),
            ("thumbv8m.base-none-eabi", None),
            ("thumbv7m-none-eabi", Some("cortex-m0")),
            ("thumbv7m-none-eabi", Some("cortex-m0plus")),
            ("thumbv8m.main-none-eabi", Some("cortex-m23")),
        ] {
            let error = cpu_of(triple, cpu).unwrap_err();
            assert!(
                error.contains("Thumb-1") && error.contains("Cortex-M3, M4, M7 and M33"),
                "{error}"
            );
        }
        let error = cpu_of("thumbv7m-none-eabi", Some("cortex-m7")).unwrap_err();
        assert!(
            error.contains("no thumbv7m core") && error.contains("known: cortex-m3"),
            "{error}"
        );
        assert!(
            cpu_of("riscv32i-unknown-none-elf", None)
                .unwrap_err()
                .contains("multiplication")
        );
    }

    #[test]
    fn abis_need_their_registers() {
        let abi = |triple, abi| Target::new(Some(triple), None, abi).map(|target| target.abi);
        for (triple, given, expected) in [
            ("riscv32imc-unknown-none-elf", None, "ilp32"),
            ("riscv32imafc-unknown-none-elf", None, "ilp32f"),
            ("riscv32gc-unknown-none-elf", None, "ilp32d"),
            ("riscv32gc-unknown-none-elf", Some("ilp32f"), "ilp32f"),
            ("riscv64gc-unknown-none-elf", Some("lp64f"), "lp64f"),
        ] {
            assert_eq!(abi(triple, given).unwrap(), Some(expected));
        }
        assert_eq!(abi("thumbv7em-none-eabihf", None).unwrap(), None);
        for (triple, given) in [
            ("riscv32imac-unknown-none-elf", "ilp32f"),
            ("riscv32imafc-unknown-none-elf", "ilp32d"),
            ("riscv32gc-unknown-none-elf", "lp64"),
            ("thumbv7em-none-eabi", "hard"),
        ] {
            assert!(abi(triple, Some(given)).is_err(), "{triple} {given}");
        }
    }
}
