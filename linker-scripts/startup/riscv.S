# Reset of a RISC-V core of 32 or 64 bits in machine mode: floating point on, .data copied, .bss cleared, main called.
#
# Assemble for the core (gcc -march=rv32imc_zicsr -mabi=ilp32 -c riscv.S). The scripts in this folder give the addresses.
# Harts but the first sleep. An application defines `fault` and `leave` where it has something better to do than to stop.

    .option norelax                 # gp is not set yet, and lld 14 knows no relaxation

    .section .init, "ax"
    .global reset
    .type   reset, @function
reset:
    csrr    t0, mhartid
    bnez    t0, sleep
    la      gp, __global_pointer$
    la      sp, stack_top
    la      t0, fault
    csrw    mtvec, t0
    li      t0, 0x6000              # mstatus.FS: floats on; cores without them ignore this
    csrs    mstatus, t0
    la      t0, data_start
    la      t1, data_end
    la      t2, data_load
    beq     t0, t2, 2f              # loaded in place
1:  bgeu    t0, t1, 2f
    lw      t3, 0(t2)
    sw      t3, 0(t0)
    addi    t0, t0, 4
    addi    t2, t2, 4
    j       1b
2:  la      t0, bss_start
    la      t1, bss_end
3:  bgeu    t0, t1, 4f
    sw      zero, 0(t0)
    addi    t0, t0, 4
    j       3b
4:  call    main
    call    leave                   # with main's result in a0
sleep:
    wfi
    j       sleep

    .balign 4
    .weak   fault
    .type   fault, @function
fault:
    j       fault

    .weak   leave
    .type   leave, @function
leave:
    j       leave
