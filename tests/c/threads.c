/* Runs of one network that overlap in time, each with an arena of its own: -DDIVIDED where the arena is in two memories, A
 * and B. Every thread runs another image; returns 0 if every result is what the same image gave alone. */
#include "data.h"
#include "digits.h"
#include <pthread.h>
#include <string.h>

enum { THREADS = 4, RUNS = 300 };

struct work {
#ifdef DIVIDED
    uint8_t a[DIGITS_ARENA_A_SIZE] __attribute__((aligned(DIGITS_ARENA_ALIGN)));
    uint8_t b[DIGITS_ARENA_B_SIZE] __attribute__((aligned(DIGITS_ARENA_ALIGN)));
#else
    uint8_t arena[DIGITS_ARENA_SIZE] __attribute__((aligned(DIGITS_ARENA_ALIGN)));
#endif
    int8_t image[sizeof image], alone[sizeof expected], result[sizeof expected];
    int wrong;
};

static struct work all[THREADS];

static int run(struct work *work, int8_t *result) {
    const struct digits_inputs inputs = {work->image};
    const struct digits_outputs outputs = {result};
#ifdef DIVIDED
    const struct digits_arenas arenas = {work->a, work->b};
    return digits_run(&inputs, &outputs, &arenas) != DIGITS_OK;
#else
    return digits_run(&inputs, &outputs, work->arena) != DIGITS_OK;
#endif
}

static void *thread(void *p) {
    struct work *work = p;
    int i;
    for (i = 0; i < RUNS; i++)
        work->wrong += run(work, work->result) || memcmp(work->result, work->alone, sizeof expected) != 0;
    return 0;
}

int main(void) {
    pthread_t threads[THREADS];
    int i, wrong = 0;
    unsigned k;
    for (i = 0; i < THREADS; i++) {
        for (k = 0; k < sizeof image; k++)
            all[i].image[k] = (int8_t)(image[k] + 37 * i);
        wrong += run(&all[i], all[i].alone);
    }
    wrong += memcmp(all[0].alone, expected, sizeof expected) != 0;
    /* Images that differ in nothing would prove nothing. */
    wrong += memcmp(all[0].alone, all[1].alone, sizeof expected) == 0;
    for (i = 0; i < THREADS; i++)
        wrong += pthread_create(&threads[i], 0, thread, &all[i]);
    for (i = 0; i < THREADS; i++)
        wrong += pthread_join(threads[i], 0) + all[i].wrong;
    return wrong != 0;
}
