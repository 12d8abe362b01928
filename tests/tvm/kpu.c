/* The driver of an accelerator, played by the processor: a dense layer of 8 x 4 whose blob holds the weights column by
 * column as int16_t, then the bias as int32_t. */
#include <stdint.h>

extern const unsigned char kpu_layers[];

int32_t kpu_run(const void *layers, const int16_t *in, int32_t *out, void *workspace);

int32_t kpu_run(const void *layers, const int16_t *in, int32_t *out, void *workspace) {
    const int16_t *weights = layers;
    const int32_t *bias = (const int32_t *)((const char *)layers + 64);
    int32_t *sums = workspace;
    int i, k;
    if (layers != (const void *)kpu_layers || (uintptr_t)layers % 64 || (uintptr_t)workspace % 32)
        return -1;
    for (i = 0; i < 4; i++)
        sums[i] = bias[i];
    for (k = 0; k < 8; k++)
        for (i = 0; i < 4; i++)
            sums[i] += weights[4 * k + i] * in[k];
    for (i = 0; i < 4; i++)
        out[i] = sums[i];
    return 0;
}
