/* A batch of models for harness.c; the test generates the table. */
#ifndef HARNESS_H
#define HARNESS_H
#include <stddef.h>
#include <stdint.h>

struct model {
    const char *name;
    size_t arena_size, arena_align, stack_size;
    unsigned inputs, outputs, sets;
    const size_t *sizes; /* bytes of each input, then of each output */
    int32_t (*run)(const void *const *inputs, void *const *outputs, void *arena);
    /* Where the arena is divided between memories: bytes of each part; `run` takes a table of pointers to them. */
    unsigned parts;
    const size_t *part_sizes;
};

/* Memory that must keep what is in it while a model runs: firmware's. */
struct guard {
    unsigned char *at;
    size_t bytes;
};

extern const struct model models[];
extern const unsigned model_count;
#endif
