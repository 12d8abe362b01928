/* Counts the instructions of one run of a model whose inputs and outputs are in its static arena: what a run costs
 * without what puts them there. The test generates takeover.h. */
#include <stdint.h>
#include <string.h>
#include "takeover.h"

extern intptr_t semihost(intptr_t operation, const void *block);
extern unsigned invoke(void (*function)(void *), void *buffer, unsigned *ticks);
extern void clock_start(void);

enum { OPEN = 0x01, WRITE0 = 0x04, WRITE = 0x05, READ = 0x06 };

static int32_t status;

/* Two instructions, called as a model is. */
static __attribute__((noinline)) void nothing_runs(void *unused) {
    (void)unused;
    __asm__ volatile("mov r0, #0" ::: "r0");
}

static intptr_t open_file(const char *name, size_t length, int mode) {
    const intptr_t block[3] = {(intptr_t)name, mode, (intptr_t)length};
    return semihost(OPEN, block);
}

int main(void) {
    static char text[32];
    char *p = text + sizeof text - 2;
    unsigned ticks, empty, set;
    intptr_t in = open_file("in", 2, 1), out = open_file("out", 3, 5);
    clock_start();
    invoke(nothing_runs, 0, &empty);
    for (set = 0; set < SETS; set++) {
        const intptr_t read[3] = {in, (intptr_t)INPUT, INPUT_BYTES}, write[3] = {out, (intptr_t)OUTPUT, OUTPUT_BYTES};
        semihost(READ, read);
        invoke((void (*)(void *))(uintptr_t)RUN, &status, &ticks);
        semihost(WRITE, write);
    }
    *p = '\n';
    for (ticks -= empty; ticks; ticks /= 10)
        *--p = (char)('0' + ticks % 10);
    semihost(WRITE0, "TICKS ");
    semihost(WRITE0, p);
    return 0;
}
