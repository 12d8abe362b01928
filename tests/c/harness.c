/* Runs every model of a batch on every set of inputs: harness IN OUT.
 *
 * IN holds the inputs of all sets of all models, one after the other; their outputs are written to OUT in the same way.
 * Arena (each part of it, where it is divided between memories), inputs and outputs have exactly the size that the model asks for, with an unmapped page on either side: once
 * they begin at a page, once they end at one. Inputs are read-only while the model runs. What lies between a buffer and
 * the next page boundary holds a pattern that must survive. The arena and the outputs start with garbage, other garbage
 * in the second run, which must not change the result. Null pointers and a misaligned arena are refused. The stack that a model uses is measured by painting one.
 *
 * Prints `FAIL model: reason` for each failure; returns 1 if there was one.
 */
#define _GNU_SOURCE
#include "harness.h"
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFERS 16 /* inputs or outputs of one model */
#define SECOND_RUNS 2 /* sets that also run with buffers at the start of a page */

#ifdef _WIN32
#include <windows.h>
static size_t page_size(void) {
    return 4096;
}
static char *map_guarded(size_t pages) {
    DWORD old;
    char *p = VirtualAlloc(NULL, (pages + 2) * page_size(), MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (!p || !VirtualProtect(p, page_size(), PAGE_NOACCESS, &old) ||
        !VirtualProtect(p + (pages + 1) * page_size(), page_size(), PAGE_NOACCESS, &old))
        abort();
    return p + page_size();
}
static void unmap_guarded(char *p, size_t pages) {
    (void)pages;
    VirtualFree(p - page_size(), 0, MEM_RELEASE);
}
static void protect(char *p, size_t pages, int writable) {
    DWORD old;
    if (pages && !VirtualProtect(p, pages * page_size(), writable ? PAGE_READWRITE : PAGE_READONLY, &old))
        abort();
}
#else
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
static size_t page_size(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}
static char *map_guarded(size_t pages) {
    size_t n = page_size();
    char *p = mmap(NULL, (pages + 2) * n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || munmap(p, n) || munmap(p + (pages + 1) * n, n))
        abort();
    /* Nothing else may move in: the holes stay reserved, without access. */
    if (mmap(p, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != p ||
        mmap(p + (pages + 1) * n, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        abort();
    return p + n;
}
static void unmap_guarded(char *p, size_t pages) {
    munmap(p - page_size(), (pages + 2) * page_size());
}
static void protect(char *p, size_t pages, int writable) {
    if (pages && mprotect(p, pages * page_size(), writable ? PROT_READ | PROT_WRITE : PROT_READ))
        abort();
}
#endif

struct buffer {
    char *base; /* first accessible byte */
    size_t pages;
    char *data;
    size_t size;
};

static unsigned failures;

static void fail(const struct model *m, unsigned set, int at_end, const char *reason) {
    printf("FAIL %s: set %u, buffers at the %s of a page: %s\n", m->name, set, at_end ? "end" : "start", reason);
    fflush(stdout);
    failures++;
}

static struct buffer allocate(size_t size, size_t align, int at_end) {
    struct buffer b;
    b.pages = (size + page_size() - 1) / page_size();
    b.base = map_guarded(b.pages);
    b.size = size;
    b.data = b.base;
    if (at_end) {
        b.data = b.base + b.pages * page_size() - size;
        b.data -= (uintptr_t)b.data % align;
    }
    return b;
}

static void fill(struct buffer *b, int garbage) {
    memset(b->base, 0x3c, b->pages * page_size());
    memset(b->data, garbage, b->size);
}

/* Whether the pattern around the buffer is whole. */
static int intact(const struct buffer *b) {
    const char *end = b->base + b->pages * page_size();
    const char *p;
    for (p = b->base; p < b->data; p++)
        if (*p != 0x3c)
            return 0;
    for (p = b->data + b->size; p < end; p++)
        if (*p != 0x3c)
            return 0;
    return 1;
}

static const struct model *current;
static const void *ins[BUFFERS];
static void *outs[BUFFERS];
static void *arena_pointer;
static void *parts[BUFFERS];
static int32_t status;

#ifdef _WIN32
static int guarded_run(void) {
    status = current->run(ins, outs, arena_pointer);
    return 0;
}
#else
static sigjmp_buf escape;

static void on_signal(int signal) {
    siglongjmp(escape, signal);
}

/* 0, or the signal that the model died of. */
static int guarded_run(void) {
    int signal = sigsetjmp(escape, 1);
    if (signal == 0)
        status = current->run(ins, outs, arena_pointer);
    return signal;
}

#ifdef __x86_64__
#define RETURN_ADDRESS sizeof(void *)
#else
#define RETURN_ADDRESS 0
#endif

static ucontext_t here, there;

static int32_t nothing(const void *const *inputs, void *const *outputs, void *arena) {
    (void)inputs, (void)outputs, (void)arena;
    return 0;
}

static int32_t (*volatile painted)(const void *const *, void *const *, void *);

static void on_painted_stack(void) {
    status = painted(ins, outs, arena_pointer);
}

/* Bytes of stack below `on_painted_stack`. The table's functions end in jumps to the models, so have no frame. */
static size_t depth(int32_t (*run)(const void *const *, void *const *, void *)) {
    enum { SIZE = 1 << 20 };
    static unsigned char stack[SIZE] __attribute__((aligned(64)));
    size_t untouched = 0;
    memset(stack, 0xc7, SIZE);
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = SIZE;
    there.uc_link = &here;
    painted = run;
    makecontext(&there, on_painted_stack, 0);
    swapcontext(&here, &there);
    while (untouched < SIZE && stack[untouched] == 0xc7)
        untouched++;
    return SIZE - untouched;
}
#endif

/* Calls that must be refused, whatever the pointers that are not null point at. */
static void refusals(const struct model *m, unsigned set, int at_end) {
    unsigned i;
    char *arena = arena_pointer;
    for (i = 0; i < m->inputs; i++) {
        const void *kept = ins[i];
        ins[i] = NULL;
        if (guarded_run() || status == 0)
            fail(m, set, at_end, "a null input is not refused");
        ins[i] = kept;
    }
    for (i = 0; i < m->outputs; i++) {
        void *kept = outs[i];
        outs[i] = NULL;
        if (guarded_run() || status == 0)
            fail(m, set, at_end, "a null output is not refused");
        outs[i] = kept;
    }
    for (i = 0; i < m->parts; i++) {
        char *kept = parts[i];
        if (m->part_sizes[i] == 0)
            continue;
        parts[i] = NULL;
        if (guarded_run() || status == 0)
            fail(m, set, at_end, "a null part of the arena is not refused");
        parts[i] = kept + 1;
        if (m->arena_align > 1 && (guarded_run() || status == 0))
            fail(m, set, at_end, "a misaligned part of the arena is not refused");
        parts[i] = kept;
    }
    if (m->arena_size == 0)
        return;
    arena_pointer = NULL;
    if (guarded_run() || status == 0)
        fail(m, set, at_end, "a null arena is not refused");
    arena_pointer = arena + 1;
    if (m->arena_align > 1 && (guarded_run() || status == 0))
        fail(m, set, at_end, "a misaligned arena is not refused");
    arena_pointer = arena;
}

/* Runs one model; `results` has room for the outputs of all its sets. */
static void run_model(const struct model *m, const char *inputs, char *results, size_t in_bytes, size_t out_bytes) {
    int at_end;
    unsigned i, set;
    for (at_end = 1; at_end >= 0; at_end--) {
        struct buffer arena = allocate(m->arena_size, m->arena_align, at_end), in[BUFFERS], out[BUFFERS];
        struct buffer part[BUFFERS];
        for (i = 0; i < m->inputs; i++) {
            in[i] = allocate(m->sizes[i], 1, at_end);
            ins[i] = in[i].data;
        }
        for (i = 0; i < m->outputs; i++) {
            out[i] = allocate(m->sizes[m->inputs + i], 1, at_end);
            outs[i] = out[i].data;
        }
        arena_pointer = m->parts ? (void *)parts : arena.data;
        for (i = 0; i < m->parts; i++) {
            part[i] = allocate(m->part_sizes[i], m->arena_align, at_end);
            parts[i] = m->part_sizes[i] ? part[i].data : NULL;
        }
        current = m;
        for (set = 0; set < m->sets && (at_end || set < SECOND_RUNS); set++) {
            const char *from = inputs + set * in_bytes;
            char *to = results + set * out_bytes;
            int garbage = at_end ? 0xa5 : 0x7f, signal;
            char message[80];
            fill(&arena, garbage);
            for (i = 0; i < m->parts; i++)
                fill(&part[i], garbage);
            for (i = 0; i < m->inputs; from += m->sizes[i], i++) {
                protect(in[i].base, in[i].pages, 1);
                memcpy(in[i].data, from, m->sizes[i]);
                protect(in[i].base, in[i].pages, 0);
            }
            for (i = 0; i < m->outputs; i++)
                fill(&out[i], garbage);
            if (set == 0)
                refusals(m, set, at_end);
            status = -1;
            signal = guarded_run();
            if (signal) {
                snprintf(message, sizeof message, "signal %d: access outside its memory, or a write to an input", signal);
                fail(m, set, at_end, message);
                break;
            }
            if (status != 0) {
                snprintf(message, sizeof message, "returned %d", (int)status);
                fail(m, set, at_end, message);
                break;
            }
            if (!intact(&arena))
                fail(m, set, at_end, "wrote outside the arena");
            for (i = 0; i < m->parts; i++)
                if (!intact(&part[i]))
                    fail(m, set, at_end, "wrote outside a part of the arena");
            for (i = 0; i < m->outputs; to += m->sizes[m->inputs + i], i++) {
                if (!intact(&out[i]))
                    fail(m, set, at_end, "wrote outside an output");
                if (at_end)
                    memcpy(to, out[i].data, out[i].size);
                else if (memcmp(to, out[i].data, out[i].size))
                    fail(m, set, at_end, "the result depends on what was in the arena or on alignment");
            }
#ifndef _WIN32
            if (at_end && set == 0) {
                size_t used = depth(m->run), base = depth(nothing) - RETURN_ADDRESS;
                used -= used < base ? used : base;
                if (used > m->stack_size) {
                    snprintf(message, sizeof message, "uses %zu bytes of stack, declares %zu", used, m->stack_size);
                    fail(m, set, at_end, message);
                }
            }
#endif
        }
        unmap_guarded(arena.base, arena.pages);
        for (i = 0; i < m->parts; i++)
            unmap_guarded(part[i].base, part[i].pages);
        for (i = 0; i < m->inputs; i++)
            unmap_guarded(in[i].base, in[i].pages);
        for (i = 0; i < m->outputs; i++)
            unmap_guarded(out[i].base, out[i].pages);
    }
}

#ifdef __riscv
/* An access that is not aligned, for who looks for those. */
static __attribute__((noinline)) void misalign(void) {
    static const short pair[2];
    short got;
    __asm__ volatile("lh %0, 1(%1)" : "=r"(got) : "r"(pair));
}
#endif

int main(int argc, char **argv) {
    FILE *in, *out;
    unsigned k, i;
    if (argc != 3)
        return 2;
#ifdef __riscv
    misalign();
#endif
    in = fopen(argv[1], "rb");
    out = fopen(argv[2], "wb");
    if (!in || !out)
        return 2;
#ifndef _WIN32
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
    signal(SIGILL, on_signal);
    signal(SIGFPE, on_signal);
#endif
    for (k = 0; k < model_count; k++) {
        const struct model *m = &models[k];
        size_t in_bytes = 0, out_bytes = 0;
        char *inputs, *results;
        if (m->inputs > BUFFERS || m->outputs > BUFFERS || m->parts > BUFFERS)
            return 2;
        for (i = 0; i < m->inputs; i++)
            in_bytes += m->sizes[i];
        for (i = 0; i < m->outputs; i++)
            out_bytes += m->sizes[m->inputs + i];
        inputs = malloc(in_bytes * m->sets + 1);
        results = calloc(out_bytes * m->sets + 1, 1);
        if (!inputs || !results || fread(inputs, 1, in_bytes * m->sets, in) != in_bytes * m->sets)
            return 2;
        run_model(m, inputs, results, in_bytes, out_bytes);
        if (fwrite(results, 1, out_bytes * m->sets, out) != out_bytes * m->sets)
            return 2;
        free(inputs);
        free(results);
    }
    if (fclose(out))
        return 2;
    printf("%u models, %u failures\n", model_count, failures);
    return failures != 0;
}
