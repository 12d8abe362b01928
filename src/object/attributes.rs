//! Build attributes: what the code needs of the machine, for linkers to compare and merge, and for disassemblers.

use crate::target::{Arch, Target};
use ::object::elf;

/// The section of build attributes of code for `target`, if its architecture has one. `float` says whether there are
/// instructions of an optional floating-point unit.
pub(super) fn section(target: &Target, float: bool) -> Option<(&'static str, elf::SectionType, Vec<u8>)> {
    match target.arch() {
        Arch::Thumb2 => Some((
            ".ARM.attributes",
            elf::SHT_ARM_ATTRIBUTES,
            file_attributes("aeabi", arm(target, float)),
        )),
        Arch::Riscv32 | Arch::Riscv64 => Some((
            ".riscv.attributes",
            elf::SHT_RISCV_ATTRIBUTES,
            file_attributes("riscv", riscv(target)),
        )),
        Arch::X86_64 | Arch::Aarch64 => None,
    }
}

/// Format version `A`, then one vendor's subsection with attributes of the whole file (`Tag_File`, 1). Lengths include
/// themselves.
fn file_attributes(vendor: &str, mut attributes: Vec<u8>) -> Vec<u8> {
    let file = 5 + attributes.len() as u32;
    let subsection = 4 + vendor.len() as u32 + 1 + file;
    let mut bytes = vec![b'A'];
    bytes.extend_from_slice(&subsection.to_le_bytes());
    bytes.extend_from_slice(vendor.as_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes.extend_from_slice(&file.to_le_bytes());
    bytes.append(&mut attributes);
    bytes
}

/// Tags and values of the Arm ABI's addenda, "Build attributes". All are below 128: one byte each in ULEB128. Nothing is
/// said about `wchar_t` and enumerations, which the interface does not have.
fn arm(target: &Target, float: bool) -> Vec<u8> {
    const CPU_ARCH: u8 = 6;
    const CPU_ARCH_PROFILE: u8 = 7;
    const THUMB_ISA_USE: u8 = 9;
    const FP_ARCH: u8 = 10;
    const ABI_FP_DENORMAL: u8 = 20;
    const ABI_FP_EXCEPTIONS: u8 = 21;
    const ABI_FP_NUMBER_MODEL: u8 = 23;
    const ABI_ALIGN_NEEDED: u8 = 24;
    const ABI_ALIGN_PRESERVED: u8 = 25;
    const ABI_HARD_FP_USE: u8 = 27;
    const ABI_VFP_ARGS: u8 = 28;
    const CPU_UNALIGNED_ACCESS: u8 = 34;
    const DSP_EXTENSION: u8 = 46;

    let v8m = target.has("v8m.main");
    let arch = match () {
        () if v8m => 17,
        () if target.has("v7em") => 13,
        () => 10,
    };
    let mut attributes = vec![CPU_ARCH, arch, CPU_ARCH_PROFILE, b'M'];
    // In Armv8-M, what Thumb is follows from the architecture.
    attributes.extend([THUMB_ISA_USE, if v8m { 3 } else { 2 }]);
    if float {
        // VFPv4 or FPv5 with 16 double registers, of which single precision is used.
        attributes.extend([FP_ARCH, if target.has("fpv5") { 8 } else { 6 }]);
    }
    attributes.extend([ABI_FP_DENORMAL, 1, ABI_FP_EXCEPTIONS, 1, ABI_FP_NUMBER_MODEL, 3]);
    attributes.extend([ABI_ALIGN_NEEDED, 1, ABI_ALIGN_PRESERVED, 1]);
    if float {
        attributes.extend([ABI_HARD_FP_USE, 1]);
    }
    // The interface passes pointers and integers: right for applications of every float ABI.
    attributes.extend([ABI_VFP_ARGS, 3, CPU_UNALIGNED_ACCESS, 1]);
    // Part of Armv7E-M, optional in Armv8-M.
    if v8m && target.has("dsp") {
        attributes.extend([DSP_EXTENSION, 1]);
    }
    attributes
}

/// Stack alignment and the extensions, with the versions of the ratified specification (20191213) that GCC and LLVM
/// assume.
fn riscv(target: &Target) -> Vec<u8> {
    const STACK_ALIGN: u8 = 4;
    const ARCH: u8 = 5;

    let arch = if target.arch() == Arch::Riscv64 {
        let c = if compressed(target) { "_c2p0" } else { "" };
        format!("rv64i2p1_m2p0_a2p1_f2p2_d2p2{c}_zicsr2p0_zifencei2p0")
    } else {
        let mut arch = "rv32i2p1_m2p0".to_owned();
        for (extension, version) in [("a", "_a2p1"), ("f", "_f2p2"), ("d", "_d2p2"), ("c", "_c2p0")] {
            if target.has(extension) {
                arch += version;
            }
        }
        // Control registers of the floating-point unit.
        if target.has("f") {
            arch += "_zicsr2p0";
        }
        arch
    };
    let mut attributes = vec![STACK_ALIGN, 16, ARCH];
    attributes.extend_from_slice(arch.as_bytes());
    attributes.push(0);
    attributes
}

/// Whether a RISC-V target has 16-bit instructions.
pub(super) fn compressed(target: &Target) -> bool {
    target.has("has_c") || target.has("c")
}
