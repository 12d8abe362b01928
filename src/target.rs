//! What can be built for, and what each machine has: one table.

use crate::error::{Code, Error, Result};
use std::fmt;
use std::str::FromStr;
use target_lexicon::{Architecture, BinaryFormat, OperatingSystem, Triple};

/// Instruction set family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86-64.
    X86_64,
    /// AArch64, little-endian.
    Aarch64,
    /// RISC-V, 64 bits.
    Riscv64,
}

impl Arch {
    /// Name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86-64",
            Arch::Aarch64 => "AArch64",
            Arch::Riscv64 => "RISC-V 64",
        }
    }
}

/// Object file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// ELF.
    Elf,
    /// COFF (Windows).
    Coff,
}

/// How four 8-bit products are summed into 32 bits, if one instruction does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dot {
    /// Signed × signed (AArch64 `sdot`).
    Signed,
    /// Unsigned activation × signed weight (x86 `vpdpbusd`).
    Unsigned,
}

/// What kernels may count on: the data behind their schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    /// Size of a pointer in bytes.
    pub pointer_bytes: usize,
    /// Whether there are 128-bit integer and float vectors.
    pub simd128: bool,
    /// Vector registers that a tile may keep live.
    pub vector_registers: usize,
    /// Integer registers that a tile may keep live.
    pub integer_registers: usize,
    /// The dot-product instruction, if any.
    pub dot: Option<Dot>,
    /// Whether float multiply-add is one instruction with one rounding. Kernels and evaluator then both fuse.
    pub fused_multiply_add: bool,
}

/// A target: machine, ABI and object format.
#[derive(Clone, Debug)]
pub struct Target {
    /// The triple as the user wrote it.
    pub name: String,
    /// The parsed triple.
    pub triple: Triple,
    /// The CPU, as in [`CPUS`].
    pub cpu: &'static Cpu,
    /// The RISC-V float ABI (`lp64`, `lp64f`, `lp64d`), `None` elsewhere.
    pub abi: Option<&'static str>,
}

/// A CPU or feature level that can be named with `--cpu`.
#[derive(Debug)]
pub struct Cpu {
    /// Instruction set family.
    pub arch: Arch,
    /// Name.
    pub name: &'static str,
    /// One line for `corerope targets`.
    pub about: &'static str,
    /// Cranelift's names of the features that code may use.
    pub features: &'static [&'static str],
    /// What kernels may count on.
    pub machine: Machine,
}

const X86_V2: &[&str] = &[
    "has_sse3",
    "has_ssse3",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
    "has_cmpxchg16b",
];
const X86_V3: &[&str] = &[
    "has_sse3",
    "has_ssse3",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
    "has_cmpxchg16b",
    "has_avx",
    "has_avx2",
    "has_fma",
    "has_bmi1",
    "has_bmi2",
    "has_lzcnt",
];
const X86_VNNI: &[&str] = &[
    "has_sse3",
    "has_ssse3",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
    "has_cmpxchg16b",
    "has_avx",
    "has_avx2",
    "has_fma",
    "has_bmi1",
    "has_bmi2",
    "has_lzcnt",
    "has_avx_vnni",
];

const X86: Machine = Machine {
    pointer_bytes: 8,
    simd128: true,
    vector_registers: 16,
    integer_registers: 14,
    dot: None,
    fused_multiply_add: false,
};
const A64: Machine = Machine {
    pointer_bytes: 8,
    simd128: true,
    vector_registers: 32,
    integer_registers: 28,
    dot: None,
    fused_multiply_add: true,
};
const RV64: Machine = Machine {
    pointer_bytes: 8,
    simd128: false,
    vector_registers: 0,
    integer_registers: 28,
    dot: None,
    fused_multiply_add: true,
};

/// Every CPU, the default of each architecture first.
pub static CPUS: &[Cpu] = &[
    Cpu {
        arch: Arch::X86_64,
        name: "x86-64-v2",
        about: "SSE4.2 (default)",
        features: X86_V2,
        machine: X86,
    },
    Cpu {
        arch: Arch::X86_64,
        name: "x86-64-v3",
        about: "AVX2 encodings and fused multiply-add",
        features: X86_V3,
        machine: Machine {
            fused_multiply_add: true,
            ..X86
        },
    },
    Cpu {
        arch: Arch::X86_64,
        name: "x86-64-v3-vnni",
        about: "x86-64-v3 with AVX-VNNI dot products",
        features: X86_VNNI,
        machine: Machine {
            fused_multiply_add: true,
            dot: Some(Dot::Unsigned),
            ..X86
        },
    },
    Cpu {
        arch: Arch::Aarch64,
        name: "generic-a64",
        about: "ARMv8.0-A with NEON (default)",
        features: &[],
        machine: A64,
    },
    Cpu {
        arch: Arch::Aarch64,
        name: "a64-dotprod",
        about: "ARMv8.2-A with dot products (Cortex-A55, A76, Neoverse)",
        features: &["has_dotprod"],
        machine: Machine {
            dot: Some(Dot::Signed),
            ..A64
        },
    },
    Cpu {
        arch: Arch::Riscv64,
        name: "rv64gc",
        about: "I, M, A, F, D and compressed instructions (default)",
        features: &["has_c", "has_zca", "has_zcd"],
        machine: RV64,
    },
    Cpu {
        arch: Arch::Riscv64,
        name: "rv64g",
        about: "without compressed instructions",
        features: &[],
        machine: RV64,
    },
];

/// Triples that are known to work, for `corerope targets` and error messages.
pub const TRIPLES: &[(&str, &str)] = &[
    ("x86_64-unknown-linux-gnu", "ELF, Linux on PCs"),
    ("x86_64-unknown-none-elf", "ELF, bare metal"),
    ("x86_64-pc-windows-gnu", "COFF, MinGW"),
    ("x86_64-pc-windows-msvc", "COFF, MSVC and clang-cl"),
    ("aarch64-unknown-linux-gnu", "ELF, 64-bit Arm Linux"),
    ("aarch64-unknown-none", "ELF, bare metal"),
    ("riscv64gc-unknown-linux-gnu", "ELF, RISC-V Linux"),
    (
        "riscv64gc-unknown-none-elf",
        "ELF, bare metal (Kendryte K210 with --abi lp64f)",
    ),
];

impl Target {
    /// Parses `--target`, `--cpu` and `--abi`. No triple is the host; no CPU is the architecture's default.
    ///
    /// # Errors
    /// [`Code::Target`] with what is known, where one of them is not.
    pub fn new(triple: Option<&str>, cpu: Option<&str>, abi: Option<&str>) -> Result<Self> {
        let name = triple.map_or_else(|| Triple::host().to_string(), str::to_owned);
        let list = || TRIPLES.iter().map(|(triple, _)| *triple).collect::<Vec<_>>().join(", ");
        let parsed = Triple::from_str(&name).map_err(|_| {
            Error::new(Code::Target, format!("unknown target {name:?}"))
                .help(format!("`corerope targets` lists what can be built for: {}", list()))
        })?;
        let arch = match parsed.architecture {
            Architecture::X86_64 => Arch::X86_64,
            Architecture::Aarch64(target_lexicon::Aarch64Architecture::Aarch64) => Arch::Aarch64,
            Architecture::Riscv64(_) => Arch::Riscv64,
            other => {
                return Err(
                    Error::new(Code::Target, format!("no code generator for {other} (target {name:?})"))
                        .help(format!("`corerope targets` lists what can be built for: {}", list())),
                );
            }
        };
        let cpus = || CPUS.iter().filter(move |cpu| cpu.arch == arch);
        let cpu = match cpu {
            None => cpus().next(),
            Some(name) => cpus().find(|cpu| cpu.name == name),
        }
        .ok_or_else(|| {
            Error::new(
                Code::Target,
                format!("unknown CPU {:?} for {}", cpu.unwrap_or_default(), arch.name()),
            )
            .help(format!(
                "known: {}",
                cpus().map(|cpu| cpu.name).collect::<Vec<_>>().join(", ")
            ))
        })?;
        let abi = match (arch, abi) {
            (Arch::Riscv64, None) => Some("lp64d"),
            (_, None) => None,
            (Arch::Riscv64, Some(abi)) => {
                let known = ["lp64", "lp64f", "lp64d"].into_iter().find(|known| *known == abi);
                Some(known.ok_or_else(|| {
                    Error::new(Code::Target, format!("unknown ABI {abi:?}")).help("known: lp64, lp64f, lp64d")
                })?)
            }
            (_, Some(abi)) => {
                return Err(Error::new(
                    Code::Target,
                    format!("{} has one ABI, --abi {abi} does not apply", arch.name()),
                ));
            }
        };
        let target = Target {
            name,
            triple: parsed,
            cpu,
            abi,
        };
        if target.arch() != Arch::X86_64 && target.format() == Format::Coff {
            return Err(Error::new(
                Code::Target,
                format!("COFF is written for x86-64 only, not for {}", target.name),
            ));
        }
        if target.triple.binary_format == BinaryFormat::Macho {
            return Err(Error::new(Code::Target, "Mach-O objects cannot be written yet")
                .help(format!("known targets: {}", list())));
        }
        Ok(target)
    }

    /// Instruction set family.
    pub fn arch(&self) -> Arch {
        self.cpu.arch
    }

    /// What kernels may count on.
    pub fn machine(&self) -> &Machine {
        &self.cpu.machine
    }

    /// Object file format: COFF for Windows, ELF elsewhere, bare metal included.
    pub fn format(&self) -> Format {
        if self.triple.operating_system == OperatingSystem::Windows {
            Format::Coff
        } else {
            Format::Elf
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.cpu.name)
    }
}
