/* Reads one handwritten digit and prints which it is, by semihosting. */
#include "digits.h"

static const unsigned char seven[DIGITS_INPUT_SIZE] = { /* 0 is paper, 16 is ink */
    0, 0,  3, 13, 16, 16,  5, 0,
    0, 4, 15, 13, 10, 16,  6, 0,
    0, 1,  8,  1,  4, 16,  4, 0,
    0, 0,  1,  6, 11, 16, 10, 0,
    0, 0, 13, 16, 16, 13,  3, 0,
    0, 0, 10,  7, 16,  4,  0, 0,
    0, 0,  0, 11, 13,  0,  0, 0,
    0, 0,  4, 16,  8,  0,  0, 0,
};

static int semihost(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

enum { SYS_WRITE0 = 0x04, SYS_EXIT = 0x18, APPLICATION_EXIT = 0x20026, RUN_TIME_ERROR = 0x20023 };

int main(void) {
    static int8_t image[DIGITS_INPUT_SIZE], score[DIGITS_IDENTITY_SIZE];
    const struct digits_inputs inputs = { image };
    const struct digits_outputs outputs = { score };
    static char line[] = "it is a ?\n";
    unsigned i, best = 0;

    for (i = 0; i < DIGITS_INPUT_SIZE; i++)
        image[i] = (int8_t)(seven[i] * 255 / 16 + DIGITS_INPUT_ZERO_POINT);
    if (digits_run(&inputs, &outputs) != DIGITS_OK)
        semihost(SYS_EXIT, (const void *)RUN_TIME_ERROR);
    for (i = 1; i < DIGITS_IDENTITY_SIZE; i++)
        if (score[i] > score[best])
            best = i;
    line[8] = (char)('0' + best);
    semihost(SYS_WRITE0, line);
    semihost(SYS_EXIT, (const void *)APPLICATION_EXIT);
    return 0;
}
