/* Runs the models of a batch when it is told to: told IN. Reads lines `INDEX RUNS`, prints the nanoseconds that each of
 * those runs took. IN has the first set of inputs of every model. */
#define _POSIX_C_SOURCE 199309L
#include "harness.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BUFFERS 16

struct ready {
    const void *inputs[BUFFERS];
    void *outputs[BUFFERS], *arena;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *room(size_t size, size_t align) {
    char *p = malloc(size + align);
    if (!p)
        exit(2);
    return p + (align - (uintptr_t)p % align) % align;
}

int main(int argc, char **argv) {
    FILE *in = argc == 2 ? fopen(argv[1], "rb") : NULL;
    struct ready *ready = calloc(model_count + 1, sizeof *ready);
    unsigned k, i, index;
    unsigned long runs, n;
    if (!in || !ready)
        return 2;
    for (k = 0; k < model_count; k++) {
        const struct model *m = &models[k];
        ready[k].arena = room(m->arena_size, m->arena_align);
        for (i = 0; i < m->inputs; i++) {
            void *p = room(m->sizes[i], 64);
            if (fread(p, 1, m->sizes[i], in) != m->sizes[i])
                return 2;
            ready[k].inputs[i] = p;
        }
        for (i = 0; i < m->outputs; i++)
            ready[k].outputs[i] = room(m->sizes[m->inputs + i], 64);
    }
    puts("ready");
    fflush(stdout);
    while (scanf("%u %lu", &index, &runs) == 2 && index < model_count && runs > 0) {
        const struct ready *r = &ready[index];
        double start = now();
        for (n = 0; n < runs; n++)
            if (models[index].run(r->inputs, r->outputs, r->arena))
                return 1;
        printf("%.1f\n", (now() - start) / (double)runs);
        fflush(stdout);
    }
    return 0;
}
