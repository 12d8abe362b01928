//! What CLIF cannot say: the process's first instructions and the system call, by hand.

use super::{MAIN, START, SYSCALL};
use crate::codegen::{Code, Relocation};
use crate::error::Result;
use crate::target::{Arch, Target};
use ::object::{RelocationFlags, elf};

/// `_start` and `int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c)`.
///
/// # Errors
/// [`Code::Target`](crate::error::Code::Target) where programs for Linux cannot be written.
pub(super) fn codes(target: &Target) -> Result<[Code; 2]> {
    let (start, syscall) = match target.arch() {
        Arch::X86_64 => x86_64(),
        Arch::Aarch64 => aarch64(),
        Arch::Riscv64 => riscv64(),
        Arch::Thumb2 | Arch::Riscv32 => return Err(super::no_program(target)),
    };
    Ok([start, syscall])
}

fn code(name: &str, bytes: Vec<u8>, call: Option<(u64, i64, elf::RelocationType)>) -> Code {
    Code {
        name: name.to_owned(),
        exported: false,
        bytes,
        align: 16,
        relocations: (call.into_iter())
            .map(|(offset, addend, r_type)| Relocation {
                offset,
                symbol: MAIN.to_owned(),
                addend,
                flags: RelocationFlags::Elf { r_type },
            })
            .collect(),
        labels: Vec::new(),
        frame: 0,
        calls: call.map(|_| MAIN.to_owned()).into_iter().collect(),
        costs: Vec::new(),
        float: false,
        debug: Default::default(),
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn x86_64() -> (Code, Code) {
    #[rustfmt::skip]
    let start = vec![
        0x31, 0xed,                   // xor ebp, ebp
        0x48, 0x83, 0xe4, 0xf0,       // and rsp, -16
        0xe8, 0, 0, 0, 0,             // call main
        0x89, 0xc7,                   // mov edi, eax
        0xb8, 0xe7, 0, 0, 0,          // mov eax, 231 (exit_group)
        0x0f, 0x05,                   // syscall
        0x0f, 0x0b,                   // ud2
    ];
    #[rustfmt::skip]
    let syscall = vec![
        0x48, 0x89, 0xf8,             // mov rax, rdi
        0x48, 0x89, 0xf7,             // mov rdi, rsi
        0x48, 0x89, 0xd6,             // mov rsi, rdx
        0x48, 0x89, 0xca,             // mov rdx, rcx
        0x0f, 0x05,                   // syscall
        0xc3,                         // ret
    ];
    (
        code(START, start, Some((7, -4, elf::R_X86_64_PLT32))),
        code(SYSCALL, syscall, None),
    )
}

fn aarch64() -> (Code, Code) {
    let start = words(&[
        0xd280_001d, // mov x29, #0
        0xd280_001e, // mov x30, #0
        0x9400_0000, // bl main
        0xd280_0bc8, // mov x8, #94 (exit_group)
        0xd400_0001, // svc #0
        0x0000_0000, // udf #0
    ]);
    let syscall = words(&[
        0xaa00_03e8, // mov x8, x0
        0xaa01_03e0, // mov x0, x1
        0xaa02_03e1, // mov x1, x2
        0xaa03_03e2, // mov x2, x3
        0xd400_0001, // svc #0
        0xd65f_03c0, // ret
    ]);
    (
        code(START, start, Some((8, 0, elf::R_AARCH64_CALL26))),
        code(SYSCALL, syscall, None),
    )
}

fn riscv64() -> (Code, Code) {
    let start = words(&[
        0x0000_0413, // li s0, 0
        0x0000_0097, // auipc ra, %hi(main)
        0x0000_80e7, // jalr ra, %lo(main)(ra)
        0x05e0_0893, // li a7, 94 (exit_group)
        0x0000_0073, // ecall
        0x0000_0000, // unimp
    ]);
    let syscall = words(&[
        0x0005_0893, // mv a7, a0
        0x0005_8513, // mv a0, a1
        0x0006_0593, // mv a1, a2
        0x0006_8613, // mv a2, a3
        0x0000_0073, // ecall
        0x0000_8067, // ret
    ]);
    (
        code(START, start, Some((4, 0, elf::R_RISCV_CALL_PLT))),
        code(SYSCALL, syscall, None),
    )
}
