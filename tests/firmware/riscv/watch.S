# RISC-V, 32 or 64 bits, on QEMU's virt machine: leaving, semihosting, and calls that are watched. linker-scripts/startup
# has the rest.

#if __riscv_xlen == 64
#define SX sd
#define LX ld
#define WORD 8
#else
#define SX sw
#define LX lw
#define WORD 4
#endif

    .text
    .global leave
leave:
    addi    sp, sp, -16
    li      t0, 0x20026             # application exit
    SX      t0, 0(sp)
    SX      a0, WORD(sp)
    mv      a1, sp
    li      a0, 0x20                # SYS_EXIT_EXTENDED
    call    semihost
    j       .
    .balign 4
    .global fault
fault:
    li      a0, 99
    j       leave

    # int semihost(int operation, const void *block): these three instructions, uncompressed, on one page.
    .balign 16
    .global semihost
    .option push
    .option norvc
semihost:
    slli    zero, zero, 0x1f
    ebreak
    srai    zero, zero, 7
    ret
    .option pop

    .global clock_start
clock_start:
    ret

    # An access that is not aligned, for who looks for those.
    .global misalign
    .type   misalign, @function
misalign:
    lh      a0, -7(sp)
    ret
    .size   misalign, . - misalign

    # unsigned invoke(void (*function)(void *), void *buffer, unsigned ticks[2]): what the function spoiled of the
    # registers that it must keep, 0 if nothing.
    .global invoke
    .global nothing
invoke:
    addi    sp, sp, -256
    SX      ra, 0(sp)
    SX      a2, WORD(sp)
    .set    slot, 2
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    SX      s\n, (slot * WORD)(sp)
    .set    slot, slot + 1
    .endr
    mv      t0, a0
    mv      a0, a1
    li      t1, 0x5a5a0000
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    addi    s\n, t1, \n
#ifdef __riscv_flen
    fmv.w.x fs\n, s\n
#endif
    .endr
    la      t1, kept
    SX      sp, 0(t1)
    SX      gp, (2 * WORD)(t1)
    csrr    t2, minstret
    SX      t2, WORD(t1)
    jalr    t0
    csrr    t2, minstret
    .option push
    .option norelax
    la      t1, kept
    .option pop
    LX      t0, WORD(t1)
    sub     t2, t2, t0
    LX      t0, 0(t1)
    xor     a0, sp, t0
    mv      sp, t0
    LX      t0, (2 * WORD)(t1)
    xor     t3, gp, t0
    mv      gp, t0
    or      a0, a0, t3
    li      t1, 0x5a5a0000
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    addi    t0, t1, \n
    xor     t3, t0, s\n
    or      a0, a0, t3
#ifdef __riscv_flen
    fmv.x.w t3, fs\n
    xor     t3, t3, t0
    or      a0, a0, t3
#endif
    .endr
    .set    slot, 2
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    LX      s\n, (slot * WORD)(sp)
    .set    slot, slot + 1
    .endr
    LX      ra, 0(sp)
    LX      a2, WORD(sp)
    sw      t2, 0(a2)
    srli    t2, t2, 8
    sw      t2, 4(a2)
    addi    sp, sp, 256
    ret
nothing:
    ret

    .bss
    .balign 8
kept:
    .space  32
