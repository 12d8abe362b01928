/* Times every model of a batch on its first set of inputs: bench IN. Prints `NAME NANOSECONDS`, the best of several
 * rounds, for each. */
#define _POSIX_C_SOURCE 199309L
#include "harness.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BUFFERS 16
#define ROUNDS 7
#define ROUND_NS 60e6

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
    unsigned k, i, round;
    if (!in)
        return 2;
    for (k = 0; k < model_count; k++) {
        const struct model *m = &models[k];
        const void *inputs[BUFFERS];
        void *outputs[BUFFERS], *arena = room(m->arena_size, m->arena_align);
        size_t bytes = 0, n, count = 1;
        double best = 1e300;
        for (i = 0; i < m->inputs; i++) {
            void *p = room(m->sizes[i], 64);
            bytes += m->sizes[i];
            if (fread(p, 1, m->sizes[i], in) != m->sizes[i])
                return 2;
            inputs[i] = p;
        }
        if (fseek(in, (long)(bytes * (m->sets - 1)), SEEK_CUR))
            return 2;
        for (i = 0; i < m->outputs; i++)
            outputs[i] = room(m->sizes[m->inputs + i], 64);
        for (round = 0; round < ROUNDS; round++) {
            double start = now(), time;
            for (n = 0; n < count; n++)
                if (m->run(inputs, outputs, arena))
                    return 1;
            time = (now() - start) / (double)count;
            best = time < best ? time : best;
            count = (size_t)(ROUND_NS / time) + 1;
        }
        printf("%s %.0f\n", m->name, best);
        fflush(stdout);
    }
    return 0;
}
