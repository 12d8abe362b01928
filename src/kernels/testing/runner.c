/* Runs one kernel of another architecture under QEMU's user mode: maps its code and its buffers between unmapped
 * pages, calls it, and writes the output buffer to standard output. Exit code 3: something around a buffer was written.
 *
 * The file: code size, code, number of buffers; for each its size, alignment, kind (0 constant, 1 scratch, 2 output)
 * and bytes. All numbers are uint32_t. */
#if __STDC_HOSTED__
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#define synchronize(from, to) __builtin___clear_cache((char *)(from), (char *)(to))
#else
#include "bare.h"
#endif

/* Code is where those who count its instructions look for it. */
#define CODE ((void *)0x50000000)
enum { PAGE = 4096, CANARY = 0xa5 };

static uint32_t number(FILE *f) {
    uint32_t n;
    if (fread(&n, 4, 1, f) != 1) exit(2);
    return n;
}

static unsigned char *pages(void *at, size_t n) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0);
    void *p = mmap(at, n, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (p == MAP_FAILED) exit(2);
    return p;
}

int main(int argc, char **argv) {
    FILE *f = argc > 2 ? fopen(argv[1], "rb") : 0;
    int at_end = argc > 2 && argv[2][0] == 'e';
    if (!f) return 2;
    uint32_t size = number(f);
    unsigned char *code = pages(CODE, size);
    if (fread(code, 1, size, f) != size) return 2;
    mprotect(code, size, PROT_READ | PROT_EXEC);
    synchronize(code, code + size);
    uint32_t n = number(f);
    unsigned char *base[8], *at[8];
    size_t inner[8];
    uint32_t sizes[8], kinds[8];
    if (n > 8) return 2;
    for (uint32_t i = 0; i < n; i++) {
        sizes[i] = number(f);
        uint32_t align = number(f);
        kinds[i] = number(f);
        inner[i] = (sizes[i] + PAGE) / PAGE * PAGE;
        base[i] = pages(0, inner[i] + 2 * PAGE) + PAGE;
        memset(base[i], CANARY, inner[i]);
        at[i] = base[i] + (at_end ? (inner[i] - sizes[i]) / align * align : 0);
        if (fread(at[i], 1, sizes[i], f) != sizes[i]) return 2;
        mprotect(base[i] - PAGE, PAGE, PROT_NONE);
        mprotect(base[i] + inner[i], PAGE, PROT_NONE);
        if (kinds[i] == 0) mprotect(base[i], inner[i], PROT_READ);
    }
#ifdef __thumb__
    void *k = code + 1;
#else
    void *k = code;
#endif
    switch (n) {
    case 3: ((void (*)(void *, void *, void *))k)(at[0], at[1], at[2]); break;
    case 4: ((void (*)(void *, void *, void *, void *))k)(at[0], at[1], at[2], at[3]); break;
    case 5: ((void (*)(void *, void *, void *, void *, void *))k)(at[0], at[1], at[2], at[3], at[4]); break;
    case 1: ((void (*)(void *))k)(at[0]); break;
    case 2: ((void (*)(void *, void *))k)(at[0], at[1]); break;
    default: return 2;
    }
    for (uint32_t i = 0; i < n; i++) {
        for (unsigned char *p = base[i]; p < at[i]; p++) if (*p != CANARY) return 3;
        for (unsigned char *p = at[i] + sizes[i]; p < base[i] + inner[i]; p++) if (*p != CANARY) return 3;
        if (kinds[i] == 2) fwrite(at[i], 1, sizes[i], stdout);
    }
    return 0;
}
