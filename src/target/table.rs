//! What each CPU has: the table.

/// Instruction set family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86-64.
    X86_64,
    /// AArch64, little-endian.
    Aarch64,
    /// RISC-V, 64 bits.
    Riscv64,
    /// Arm's M profile with Thumb-2: Cortex-M3 and up.
    Thumb2,
    /// RISC-V, 32 bits.
    Riscv32,
}

impl Arch {
    /// Name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86-64",
            Arch::Aarch64 => "AArch64",
            Arch::Riscv64 => "RISC-V 64",
            Arch::Thumb2 => "Cortex-M",
            Arch::Riscv32 => "RISC-V 32",
        }
    }
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
    /// Size of an integer register in bytes: what scalar integer code computes in.
    pub integer_bytes: usize,
    /// Whether there are Arm's DSP instructions: two 16-bit products summed at once.
    pub dsp: bool,
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
    /// Features that code may use: Cranelift's names on 64-bit machines. On Cortex-M the architecture (`v7m`, `v7em`,
    /// `v8m.main`), `dsp`, and the FPU (`vfpv4`, `fpv5`); on RISC-V 32 the letters of extensions beside I and M.
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
    integer_bytes: 8,
    dsp: false,
};
const A64: Machine = Machine {
    pointer_bytes: 8,
    simd128: true,
    vector_registers: 32,
    integer_registers: 28,
    dot: None,
    fused_multiply_add: true,
    integer_bytes: 8,
    dsp: false,
};
const RV64: Machine = Machine {
    pointer_bytes: 8,
    simd128: false,
    vector_registers: 0,
    integer_registers: 28,
    dot: None,
    fused_multiply_add: true,
    integer_bytes: 8,
    dsp: false,
};

const RV32: Machine = Machine {
    pointer_bytes: 4,
    simd128: false,
    vector_registers: 0,
    integer_registers: 26,
    dot: None,
    fused_multiply_add: false,
    integer_bytes: 4,
    dsp: false,
};
const CORTEX_M: Machine = Machine {
    integer_registers: 13,
    ..RV32
};
/// With single-precision floating point.
const fn with_fpu(machine: Machine) -> Machine {
    Machine {
        fused_multiply_add: true,
        ..machine
    }
}

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
    cortex_m("cortex-m3", "Armv7-M (default of thumbv7m)", &["v7m"]),
    cortex_m(
        "cortex-m4+fp",
        "Armv7E-M, DSP, FPU (default of thumbv7em, eabihf)",
        &["v7em", "dsp", "vfpv4"],
    ),
    cortex_m(
        "cortex-m4+nofp",
        "Armv7E-M, DSP (default of thumbv7em, eabi)",
        &["v7em", "dsp"],
    ),
    cortex_m(
        "cortex-m7+fp",
        "Armv7E-M, DSP, FPU of single or double precision",
        &["v7em", "dsp", "fpv5"],
    ),
    cortex_m("cortex-m7+nofp", "Armv7E-M, DSP", &["v7em", "dsp"]),
    cortex_m(
        "cortex-m33+fp",
        "Armv8-M, DSP, FPU (default of thumbv8m.main, eabihf)",
        &["v8m.main", "dsp", "fpv5"],
    ),
    cortex_m(
        "cortex-m33+nofp",
        "Armv8-M, DSP (default of thumbv8m.main, eabi)",
        &["v8m.main", "dsp"],
    ),
    cortex_m("cortex-m33+nodsp+fp", "Armv8-M, FPU", &["v8m.main", "fpv5"]),
    cortex_m("cortex-m33+nodsp+nofp", "Armv8-M", &["v8m.main"]),
    riscv32("rv32im", "I, M", &[]),
    riscv32("rv32imc", "I, M and compressed instructions (ESP32-C3)", &["c"]),
    riscv32(
        "rv32imac",
        "I, M, A and compressed instructions (Hazard3, GD32VF103)",
        &["a", "c"],
    ),
    riscv32("rv32imafc", "I, M, A, F and compressed instructions", &["a", "f", "c"]),
    riscv32(
        "rv32gc",
        "I, M, A, F, D and compressed instructions",
        &["a", "f", "d", "c"],
    ),
];

const fn cortex_m(name: &'static str, about: &'static str, features: &'static [&'static str]) -> Cpu {
    let fpu = match features {
        [.., last] => matches!(last.as_bytes(), b"vfpv4" | b"fpv5"),
        [] => false,
    };
    let dsp = matches!(features, [_, second, ..] if matches!(second.as_bytes(), b"dsp"));
    Cpu {
        arch: Arch::Thumb2,
        name,
        about,
        features,
        machine: Machine {
            fused_multiply_add: fpu,
            dsp,
            ..CORTEX_M
        },
    }
}

const fn riscv32(name: &'static str, about: &'static str, features: &'static [&'static str]) -> Cpu {
    let fpu = matches!(features, [_, second, ..] if matches!(second.as_bytes(), b"f"));
    Cpu {
        arch: Arch::Riscv32,
        name,
        about,
        features,
        machine: if fpu { with_fpu(RV32) } else { RV32 },
    }
}

/// Triples that are known to work, for `corerope targets` and error messages.
pub const TRIPLES: &[(&str, &str)] = &[
    ("x86_64-unknown-linux-gnu", "ELF, Linux on PCs"),
    ("x86_64-unknown-none-elf", "ELF, bare metal"),
    ("x86_64-pc-windows-gnu", "COFF, MinGW"),
    ("x86_64-pc-windows-msvc", "COFF, MSVC and clang-cl"),
    ("x86_64-apple-darwin", "Mach-O, macOS on Intel processors"),
    ("aarch64-apple-darwin", "Mach-O, macOS on Apple's processors"),
    ("aarch64-unknown-linux-gnu", "ELF, 64-bit Arm Linux"),
    ("aarch64-unknown-none", "ELF, bare metal"),
    ("riscv64gc-unknown-linux-gnu", "ELF, RISC-V Linux"),
    (
        "riscv64gc-unknown-none-elf",
        "ELF, bare metal (Kendryte K210 with --abi lp64f)",
    ),
    ("thumbv7m-none-eabi", "ELF, Cortex-M3"),
    ("thumbv7em-none-eabi", "ELF, Cortex-M4 and M7 without FPU"),
    ("thumbv7em-none-eabihf", "ELF, Cortex-M4 and M7 with FPU"),
    ("thumbv8m.main-none-eabi", "ELF, Cortex-M33 without FPU"),
    ("thumbv8m.main-none-eabihf", "ELF, Cortex-M33 with FPU"),
    ("riscv32im-unknown-none-elf", "ELF, bare metal"),
    ("riscv32imc-unknown-none-elf", "ELF, bare metal (ESP32-C3)"),
    ("riscv32imac-unknown-none-elf", "ELF, bare metal (RP2350's Hazard3)"),
    ("riscv32imafc-unknown-none-elf", "ELF, bare metal, ilp32f"),
    ("riscv32gc-unknown-none-elf", "ELF, bare metal, ilp32d"),
];
