@ Reset of a Cortex-M: vectors, floating point on, .data copied, .bss cleared, main called.
@
@ Assemble for the core (gcc -mcpu=cortex-m4 -c cortex-m.S). The scripts in this folder give the addresses. An application
@ with interrupts of its own defines `vectors` instead, and `fault` and `leave` where it has something better to do than
@ to stop.

    .syntax unified
    .thumb

    .section .vectors, "a"
    .weak   vectors
vectors:
    .word   stack_top
    .word   reset
    .rept   14                      @ NMI to SysTick
    .word   fault
    .endr

    .text
    .thumb_func
    .global reset
    .type   reset, %function
reset:
    ldr     r0, =0xe000ed08         @ VTOR: a boot loader may have left its own table
    ldr     r1, =vectors
    str     r1, [r0]
    ldr     r0, =0xe000ed88         @ CPACR: coprocessors 10 and 11 are the FPU; cores without one ignore this
    ldr     r1, [r0]
    orr     r1, r1, #0xf << 20
    str     r1, [r0]
    dsb
    isb
    ldr     r0, =data_start
    ldr     r1, =data_end
    ldr     r2, =data_load
1:  cmp     r0, r1
    bhs     2f
    ldr     r3, [r2], #4
    str     r3, [r0], #4
    b       1b
2:  ldr     r0, =bss_start
    ldr     r1, =bss_end
    movs    r2, #0
3:  cmp     r0, r1
    bhs     4f
    str     r2, [r0], #4
    b       3b
4:  bl      main
    bl      leave                   @ with main's result in r0
    b       .

    .thumb_func
    .weak   leave
    .type   leave, %function
leave:
    b       .

    .thumb_func
    .weak   fault
    .type   fault, %function
fault:
    b       .
