/* Runs the network "net", built with --params streamed --step and named by -DINPUT_BYTES and -DOUTPUT_BYTES, on bare metal:
 * its parameters come from the file "net.params" of the emulator's host, by semihosting, its inputs from "in". Each input
 * is run as a whole and in steps; the outputs go to "out". Prints `FAIL reason` for each failure, and at the end how much
 * was read. */
#include "net.h"
#include <stddef.h>

extern intptr_t semihost(intptr_t operation, const void *block);

enum { OPEN = 0x01, WRITE0 = 0x04, WRITE = 0x05, READ = 0x06, SEEK = 0x0a };

static int failures;

static void print(const char *text) {
    semihost(WRITE0, text);
}

static void fail(const char *reason) {
    print("FAIL ");
    print(reason);
    print("\n");
    failures++;
}

static void print_number(uint32_t n) {
    char text[12];
    char *p = text + sizeof text;
    *--p = 0;
    do
        *--p = (char)('0' + n % 10);
    while (n /= 10);
    print(p);
}

static intptr_t open_file(const char *name, size_t length, int mode) {
    const intptr_t block[3] = {(intptr_t)name, mode, (intptr_t)length};
    return semihost(OPEN, block);
}

/* 0 if all bytes were read or written. */
static intptr_t transfer(intptr_t operation, intptr_t file, void *data, size_t bytes) {
    const intptr_t block[3] = {file, (intptr_t)data, (intptr_t)bytes};
    return semihost(operation, block);
}

struct source {
    intptr_t file;
    uint32_t reads, kilobytes, rest, largest, fail_at;
    const uint8_t *arena;
};

static int32_t read(void *context, uint64_t offset, void *destination, uint32_t length) {
    struct source *source = context;
    const intptr_t seek[2] = {source->file, (intptr_t)offset};
    if (++source->reads == source->fail_at)
        return (int32_t)length - 1;
    if (length > source->largest)
        source->largest = length;
    source->rest += length;
    source->kilobytes += source->rest / 1024;
    source->rest %= 1024;
    if (semihost(SEEK, seek) != 0 || transfer(READ, source->file, destination, length) != 0)
        return -1;
    return (int32_t)length;
}

static uint8_t input[INPUT_BYTES] __attribute__((aligned(4))), output[OUTPUT_BYTES] __attribute__((aligned(4))),
    other[OUTPUT_BYTES] __attribute__((aligned(4)));
static uint8_t buffer[NET_PARAMETERS_HEADER_SIZE];

static int same(const uint8_t *a, const uint8_t *b) {
    size_t i;
    for (i = 0; i < OUTPUT_BYTES; i++)
        if (a[i] != b[i])
            return 0;
    return 1;
}

int main(void) {
    static const char in_name[] = "in", out_name[] = "out", image_name[] = "net.params";
    const intptr_t in = open_file(in_name, sizeof in_name - 1, 1);
    const intptr_t out = open_file(out_name, sizeof out_name - 1, 5);
    struct source source = {0};
    struct net_parameters parameters = {read, 0, &source, 0};
    const struct net_inputs inputs = {(void *)input};
    const struct net_outputs outputs = {(void *)output}, others = {(void *)other};
    uint32_t step = 0, steps, whole, kilobytes;
    size_t i;
    int32_t status;

    source.file = open_file(image_name, sizeof image_name - 1, 1);
    if (in < 0 || out < 0 || source.file < 0)
        return 2;
    if (net_bind(&parameters, buffer) != NET_OK)
        fail("does not bind");
    while (transfer(READ, in, input, sizeof input) == 0) {
        source.reads = source.kilobytes = source.rest = 0;
        if (net_run(&inputs, &outputs, &parameters) != NET_OK)
            fail("does not run");
        if (transfer(WRITE, out, output, sizeof output) != 0)
            fail("cannot write");
        whole = source.reads;
        kilobytes = source.kilobytes;
        /* A read in the middle fails; the outputs are as they were, and steps begin anew. */
        for (i = 0; i < OUTPUT_BYTES; i++)
            other[i] = 0x55;
        source.reads = 0, source.fail_at = whole / 2 + 1;
        if (net_run(&inputs, &others, &parameters) != NET_ERROR_SHORT_READ)
            fail("does not see a short read");
        for (i = 0; i < OUTPUT_BYTES; i++)
            if (other[i] != 0x55)
                fail("writes an output of a run that fails");
        source.fail_at = 0;
        for (steps = 1; (status = net_step(&step, &inputs, &others, &parameters)) == NET_MORE; steps++)
            ;
        if (status != NET_OK || steps != NET_STEPS || !same(output, other))
            fail("differs in steps");
        print("READ ");
        print_number(whole);
        print(" ");
        print_number(kilobytes);
        print(" ");
        print_number(source.largest);
        print("\n");
    }
    return failures != 0;
}
