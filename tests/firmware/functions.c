/* Calls every function of a table on every input and writes what it left behind to standard output: for each call what
 * it spoiled of the registers that it must keep, the instructions or ticks it took beyond an empty function, and the buffer. */
#include <stdint.h>

enum { BUFFER = 512 };

extern void (*const functions[])(void *);
extern const uint32_t function_count, input_count;
extern const uint8_t inputs[][BUFFER];

extern int semihost(intptr_t operation, const void *block);
extern unsigned invoke(void (*function)(void *), void *buffer, unsigned ticks[2]);
extern void nothing(void *buffer);
extern void clock_start(void);

static struct {
    uint32_t spoiled, ticks, unused[2];
    uint8_t buffer[BUFFER];
} record __attribute__((aligned(16)));

static intptr_t output;

static void write_record(void) {
    const intptr_t block[3] = {output, (intptr_t)&record, sizeof record};
    semihost(0x05, block); /* SYS_WRITE */
}

int main(void) {
    const intptr_t terminal[3] = {(intptr_t) ":tt", 4, 3};
    output = semihost(0x01, terminal); /* SYS_OPEN for writing: standard output */
    clock_start();
    unsigned empty[2];
    invoke(nothing, record.buffer, empty);
    invoke(nothing, record.buffer, empty);
    for (uint32_t f = 0; f < function_count; f++)
        for (uint32_t i = 0; i < input_count; i++) {
            for (uint32_t b = 0; b < BUFFER; b++)
                record.buffer[b] = inputs[i][b];
            unsigned ticks[2];
            record.spoiled = invoke(functions[f], record.buffer, ticks);
            record.ticks = ticks[0] - empty[0];
            write_record();
        }
    return 0;
}
