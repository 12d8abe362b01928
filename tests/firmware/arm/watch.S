@ Cortex-M under QEMU: leaving, semihosting, and calls that are watched. linker-scripts/startup has the rest.

    .syntax unified
    .thumb
    .text

    @ The exit code in r0.
    .thumb_func
    .global leave
leave:
    ldr     r1, =0x20026            @ application exit
    push    {r0, r1}                @ {reason, code} on the stack
    mov     r2, r0
    str     r1, [sp]
    str     r2, [sp, #4]
    mov     r1, sp
    movs    r0, #0x20               @ SYS_EXIT_EXTENDED
    bkpt    0xab
    b       .

    .thumb_func
    .global fault
fault:
    movs    r0, #99
    b       leave

    @ int semihost(int operation, const void *block)
    .thumb_func
    .global semihost
semihost:
    bkpt    0xab
    bx      lr

    @ Instructions so far, as a count of timer ticks: see QEMU's -icount. 25 MHz, counting down. Another timer counts 256
    @ of its ticks at once, and wraps that much later.
    .thumb_func
    .global clock_start
clock_start:
    ldr     r0, =0x40000000
    mvn     r1, #0
    str     r1, [r0, #8]
    str     r1, [r0, #4]
    movs    r1, #1
    str     r1, [r0]
    ldr     r0, =0x40002000
    mvn     r1, #0
    str     r1, [r0]
    movs    r1, #0x8a               @ on, 32 bits, clock divided by 256
    str     r1, [r0, #8]
    bx      lr

    @ unsigned invoke(void (*function)(void *), void *buffer, unsigned ticks[2]): what the function spoiled of the
    @ registers that it must keep, 0 if nothing.
    .thumb_func
    .global invoke
    .global nothing
invoke:
    push    {r2, r4-r11, lr}
#ifdef __ARM_FP
    vpush   {s16-s31}
#endif
    mov     r2, r0
    mov     r0, r1
    ldr     r3, =0xa5a50000
    .irp    n, 4, 5, 6, 7, 8, 9, 10, 11
    add     r\n, r3, #\n
    .endr
#ifdef __ARM_FP
    .irp    n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    add     r1, r3, #\n
    vmov    s\n, r1
    .endr
#endif
    ldr     r1, =kept
    str     sp, [r1]
    ldr     r3, =0x40002000
    ldr     r3, [r3, #4]
    str     r3, [r1, #8]
    ldr     r3, =0x40000000
    ldr     r3, [r3, #4]
    str     r3, [r1, #4]
    blx     r2
    ldr     r3, =0x40000000
    ldr     r3, [r3, #4]
    ldr     r1, =kept
    ldr     r2, [r1, #4]
    subs    r2, r2, r3
    ldr     r3, =0x40002000
    ldr     r3, [r3, #4]
    ldr     r12, [r1, #8]
    sub     r12, r12, r3
    ldr     r1, [r1]
    mov     r3, sp
    eor     r0, r1, r3
    mov     sp, r1
    ldr     r3, =0xa5a50000
    .irp    n, 4, 5, 6, 7, 8, 9, 10, 11
    add     r1, r3, #\n
    eor     r1, r1, r\n
    orr     r0, r0, r1
    .endr
#ifdef __ARM_FP
    mov     r5, r3
    .irp    n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    add     r1, r5, #\n
    vmov    r4, s\n
    eor     r1, r1, r4
    orr     r0, r0, r1
    .endr
    vpop    {s16-s31}
#endif
    pop     {r1, r4-r11, lr}
    str     r2, [r1]
    str     r12, [r1, #4]
    bx      lr
    .thumb_func
nothing:
    bx      lr

    .bss
    .align  2
kept:
    .space  12
