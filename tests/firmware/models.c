/* Runs every model of a batch on every set of inputs, on bare metal: the inputs come from the file "in" of the emulator's
 * host, one after the other, and the outputs go to "out", by semihosting.
 *
 * Arena, inputs and outputs lie between patterns that must survive; inputs and outputs of single bytes begin at odd
 * addresses. The parts of an arena that is divided lie in the memories of the table, one after the other, in patterns
 * that fill GUARD bytes on both sides. What the arena and the outputs hold before a run is garbage, other garbage for
 * each set of inputs: a result that depends on it differs. Prints `RUN model ticks coarse rest stack` for each set, `coarse` being the ticks / 256, roughly, of a clock that does not
 * wrap, `rest` the instructions that the ticks leave out, and
 * `FAIL model: reason` for each failure. */
#include "../c/harness.h"

/* Memory for arenas, inputs and outputs: all that small boards have for it. */
#ifndef POOL_BYTES
#define POOL_BYTES (3 << 20)
#endif

enum { POOL = POOL_BYTES, BUFFERS = 16, GAP = 16, GUARD = 1024, PAINTED = 32 << 10 };

/* Memories for the parts of arenas; none where they lie with the rest. */
extern unsigned char *const memories[];
extern const unsigned memory_count;

/* Memory of nobody's beside static arenas. */
extern const struct guard guards[];
extern const unsigned guard_count;

extern intptr_t semihost(intptr_t operation, const void *block);
extern unsigned invoke(void (*function)(void *), void *buffer, unsigned ticks[2]);
extern void clock_start(void);
#ifdef __riscv
extern void misalign(void);
#endif

enum { OPEN = 0x01, WRITE0 = 0x04, WRITE = 0x05, READ = 0x06 };

static unsigned char pool[POOL] __attribute__((aligned(64)));
static size_t used;
static unsigned failures;

static void print(const char *text) {
    semihost(WRITE0, text);
}

static void print_number(size_t n) {
    char text[24];
    char *p = text + sizeof text;
    *--p = 0;
    do
        *--p = (char)('0' + n % 10);
    while (n /= 10);
    print(p);
}

static void fail(const struct model *m, const char *reason) {
    print("FAIL ");
    print(m->name);
    print(": ");
    print(reason);
    print("\n");
    failures++;
}

static intptr_t open_file(const char *name, size_t length, int mode) {
    const intptr_t block[3] = {(intptr_t)name, mode, (intptr_t)length};
    return semihost(OPEN, block);
}

/* 0 if all bytes were read or written. */
static intptr_t transfer(intptr_t operation, intptr_t file, void *data, size_t bytes) {
    const intptr_t block[3] = {file, (intptr_t)data, (intptr_t)bytes};
    return bytes ? semihost(operation, block) : 0;
}

static unsigned char *allocate(size_t bytes, size_t align) {
    size_t at = (used + GAP + align - 1) / align * align;
    /* Elements of a byte need no alignment, and most such buffers have an odd number of them. */
    if (align == 1 && bytes % 4 == 0)
        at = (at + 3) / 4 * 4;
    if (align == 1 && bytes % 4 != 0)
        at |= 1;
    used = at + bytes + GAP;
    return used <= POOL ? pool + at : 0;
}

static void fill(volatile unsigned char *at, size_t bytes, unsigned char with) {
    while (bytes--)
        *at++ = with;
}

/* Whether all bytes hold the pattern. */
static int untouched(const volatile unsigned char *at, size_t bytes) {
    while (bytes--)
        if (*at++ != 0x3c)
            return 0;
    return 1;
}

struct call {
    int32_t (*run)(const void *const *, void *const *, void *);
    const void *ins[BUFFERS];
    void *outs[BUFFERS];
    void *arena;
    int32_t status;
};

static struct call call;

static void run(void *p) {
    struct call *c = p;
    c->status = c->run(c->ins, c->outs, c->arena);
}

/* What the call of a model costs without the model: two instructions, called in the same way. */
enum { EMPTY = 2 };
int32_t empty_run(const void *ins, const void *outs, void *arena);
int32_t empty_run(const void *ins, const void *outs, void *arena) {
    (void)ins, (void)outs, (void)arena;
    return 0;
}
extern int32_t run_empty(const void *const *inputs, void *const *outputs, void *arena);

static inline __attribute__((always_inline)) volatile unsigned char *stack_pointer(void) {
    volatile unsigned char *sp;
#ifdef __riscv
    __asm__ volatile("mv %0, sp" : "=r"(sp));
#else
    __asm__ volatile("mov %0, sp" : "=r"(sp));
#endif
    return sp;
}

static volatile unsigned char *entered;

/* Notes where the stack of a model begins. */
static int32_t note(const void *const *ins, void *const *outs, void *arena) {
    (void)ins, (void)outs, (void)arena;
    entered = stack_pointer();
    return 0;
}

/* Calls a model; what it spoiled, the ticks and the bytes of stack that it took. */
static unsigned watch(int32_t (*model)(const void *const *, void *const *, void *), unsigned ticks[2], size_t *stack) {
    volatile unsigned char *top = stack_pointer(), *p;
    unsigned spoiled;
    call.run = note;
    invoke(run, &call, ticks);
    call.run = model;
    call.status = -99;
    for (p = top - PAINTED; p < top; p++)
        *p = 0xc7;
    spoiled = invoke(run, &call, ticks);
    for (p = top - PAINTED; p < top && *p == 0xc7; p++)
        ;
    *stack = p < entered ? (size_t)(entered - p) : 0;
    return spoiled;
}

static void run_model(const struct model *m, intptr_t in, intptr_t out) {
    unsigned char *arena, *i_data[BUFFERS], *o_data[BUFFERS], *parts[BUFFERS];
    void *table[BUFFERS];
    unsigned i, set, empty[2];
    size_t stack;
    for (set = 0; set < m->sets; set++) {
        unsigned ticks[2];
        used = 0;
        arena = allocate(m->arena_size, m->arena_align);
        for (i = 0; i < m->parts; i++) {
            parts[i] = memory_count ? memories[i % memory_count] + GUARD : allocate(m->part_sizes[i], m->arena_align);
            table[i] = m->part_sizes[i] ? parts[i] : 0;
        }
        for (i = 0; i < m->inputs; i++) {
            i_data[i] = allocate(m->sizes[i], 1);
            call.ins[i] = i_data[i];
        }
        for (i = 0; i < m->outputs; i++) {
            o_data[i] = allocate(m->sizes[m->inputs + i], 1);
            call.outs[i] = o_data[i];
        }
        if (used > POOL) {
            fail(m, "needs more memory than there is");
            return;
        }
        fill(pool, used, 0x3c);
        for (i = 0; memory_count && i < m->parts; i++)
            fill(parts[i] - GUARD, m->part_sizes[i] + 2 * GUARD, 0x3c);
        for (i = 0; i < guard_count; i++)
            fill(guards[i].at, guards[i].bytes, 0x3c);
        fill(arena, m->arena_size, set % 2 ? 0x7f : 0xa5);
        for (i = 0; i < m->parts; i++)
            fill(parts[i], m->part_sizes[i], set % 2 ? 0x7f : 0xa5);
        for (i = 0; i < m->outputs; i++)
            fill(o_data[i], m->sizes[m->inputs + i], set % 2 ? 0x7f : 0xa5);
        for (i = 0; i < m->inputs; i++)
            if (transfer(READ, in, i_data[i], m->sizes[i]))
                fail(m, "cannot read its input");
        call.arena = m->parts ? (void *)table : arena;
        watch(run_empty, empty, &stack);
        if (watch(m->run, ticks, &stack))
            fail(m, "spoils registers that it must keep");
        if (call.status != 0)
            fail(m, "does not return 0");
        print("RUN ");
        print(m->name);
        print(" ");
        print_number(ticks[0] - empty[0]);
        print(" ");
        print_number(ticks[1]);
        print(" ");
        print_number(EMPTY);
        print(" ");
        print_number(stack);
        print("\n");
        if (stack > m->stack_size)
            fail(m, "uses more stack than it declares");
        for (i = 0; i < m->outputs; i++)
            if (transfer(WRITE, out, o_data[i], m->sizes[m->inputs + i]))
                fail(m, "cannot write its output");
        /* What is neither arena nor input nor output. */
        for (i = 0; i < m->inputs; i++)
            fill(i_data[i], m->sizes[i], 0x3c);
        for (i = 0; i < m->outputs; i++)
            fill(o_data[i], m->sizes[m->inputs + i], 0x3c);
        fill(arena, m->arena_size, 0x3c);
        for (i = 0; i < m->parts; i++)
            fill(parts[i], m->part_sizes[i], 0x3c);
        if (!untouched(pool, used))
            fail(m, "writes outside its memory");
        for (i = 0; memory_count && i < m->parts; i++)
            if (!untouched(parts[i] - GUARD, m->part_sizes[i] + 2 * GUARD))
                fail(m, "writes outside a part of its arena");
        for (i = 0; i < guard_count; i++)
            if (!untouched(guards[i].at, guards[i].bytes))
                fail(m, "writes beside its arena");
    }
}

int main(void) {
    static const char in_name[] = "in", out_name[] = "out";
    intptr_t in = open_file(in_name, sizeof in_name - 1, 1);
    intptr_t out = open_file(out_name, sizeof out_name - 1, 5);
    unsigned k;
    if (in < 0 || out < 0)
        return 2;
    clock_start();
#ifdef __riscv
    misalign();
#endif
    for (k = 0; k < model_count; k++)
        run_model(&models[k], in, out);
    print_number(model_count);
    print(" models, ");
    print_number(failures);
    print(" failures\n");
    return failures != 0;
}
