/*
 * What an accelerator's driver would do: a dense layer of int8 with a multiplier for each output, from a blob in the
 * accelerator's own layout. The arithmetic is that of TensorFlow Lite Micro.
 */
#include <stdint.h>

struct header {
    int16_t rows, columns, zero_in, zero_out;
};

/* Followed by a row of weights. */
struct row {
    int32_t bias, multiplier, shift;
};

static int32_t scaled(int32_t value, int32_t multiplier, int32_t shift) {
    int64_t product = (int64_t)value * (shift > 0 ? 1 << shift : 1) * multiplier;
    int32_t high = (int32_t)((product + (product >= 0 ? 1 << 30 : 1 - (1 << 30))) / (INT64_C(1) << 31));
    int32_t right = shift > 0 ? 0 : -shift, mask = (int32_t)((UINT32_C(1) << right) - 1);
    int32_t rest = high & mask, half = (mask >> 1) + (high < 0);
    return (high >> right) + (rest > half);
}

/* `sums` is a workspace of one int32_t for each output. */
int32_t accel_dense(const int8_t *x, int8_t *y, const struct header *layer, int32_t *sums) {
    const uint8_t *at = (const uint8_t *)(layer + 1);
    int32_t i, k;
    if (!x || !y || (uintptr_t)sums % 16 || (uintptr_t)layer % 16)
        return 1;
    for (i = 0; i < layer->rows; i++) {
        const struct row *row = (const struct row *)at;
        const int8_t *weights = (const int8_t *)(row + 1);
        sums[i] = row->bias;
        for (k = 0; k < layer->columns; k++)
            sums[i] += (x[k] - layer->zero_in) * weights[k];
        sums[i] = scaled(sums[i], row->multiplier, row->shift) + layer->zero_out;
        at = (const uint8_t *)(weights + layer->columns);
    }
    /* The operator has ReLU inside: its least result is the zero point. */
    for (i = 0; i < layer->rows; i++)
        y[i] = (int8_t)(sums[i] > 127 ? 127 : sums[i] < layer->zero_out ? layer->zero_out : sums[i]);
    return 0;
}
