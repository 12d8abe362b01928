/*
 * An input that comes row by row: every row may fail, and a run after a failed one is as good as the first. Rows come in rising order, none
 * twice; null pointers are refused before the first.
 */
#include "digits.h"
#include <stdio.h>
#include <string.h>

static int8_t image[DIGITS_INPUT_SIZE];
static uint32_t failing, next, calls;

static int32_t give(void *context, uint32_t row, void *destination) {
    calls++;
    if (context != image || row < next || row >= DIGITS_INPUT_ROWS)
        return 99;
    next = row + 1;
    if (row == failing)
        return row % 2 ? 1 : -1;
    memcpy(destination, image + row * DIGITS_INPUT_ROW_SIZE, DIGITS_INPUT_ROW_BYTES);
    return 0;
}

static int32_t start(const struct digits_rows *rows, const struct digits_outputs *outputs) {
    next = 0;
    calls = 0;
    return digits_run(rows, outputs);
}

int main(void) {
    static int8_t first[DIGITS_IDENTITY_SIZE], again[DIGITS_IDENTITY_SIZE];
    struct digits_rows rows, none;
    struct digits_outputs outputs, nowhere;
    uint32_t k;

    for (k = 0; k < DIGITS_INPUT_SIZE; k++)
        image[k] = (int8_t)(k * 37 % 256 - 128);
    rows.read = give;
    rows.context = image;
    outputs.identity = first;
    failing = DIGITS_INPUT_ROWS;
    if (start(&rows, &outputs) != DIGITS_OK || calls != DIGITS_INPUT_ROWS)
        return 1;
    for (failing = 0; failing < DIGITS_INPUT_ROWS; failing++) {
        outputs.identity = again;
        if (start(&rows, &outputs) != DIGITS_ERROR_INPUT || calls != failing + 1)
            return 2;
        k = failing;
        failing = DIGITS_INPUT_ROWS;
        memset(again, 0, sizeof again);
        if (start(&rows, &outputs) != DIGITS_OK || memcmp(first, again, sizeof again) != 0)
            return 3;
        failing = k;
    }
    none = rows;
    none.read = 0;
    nowhere.identity = 0;
    if (start(0, &outputs) != DIGITS_ERROR_NULL_POINTER || start(&none, &outputs) != DIGITS_ERROR_NULL_POINTER ||
        start(&rows, &nowhere) != DIGITS_ERROR_NULL_POINTER || start(&rows, 0) != DIGITS_ERROR_NULL_POINTER || calls != 0)
        return 4;
    return 0;
}
