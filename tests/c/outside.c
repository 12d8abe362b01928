/* Parameters outside the object: -DSTREAMED for --params streamed, else --params external; built with --step --hooks,
 * -DCALLER for --arena caller. `digits.params` is in the working directory. Every error is provoked, and the next run
 * succeeds. Prints what fails. */
#include "data.h"
#include "digits.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
#define ALIGNED(n) alignas(n)
#else
#define ALIGNED(n) __attribute__((aligned(n)))
#endif

#ifdef CALLER
ALIGNED(DIGITS_ARENA_ALIGN) static uint8_t arena[DIGITS_ARENA_SIZE];
#define ARENA arena,
#else
#define ARENA
#endif

ALIGNED(DIGITS_PARAMETERS_ALIGN) static uint8_t file[DIGITS_PARAMETERS_SIZE + DIGITS_PARAMETERS_ALIGN];
static int8_t result[DIGITS_IDENTITY_SIZE];
static const struct digits_inputs inputs = {image};
static const struct digits_outputs outputs = {result};
static int failures;

static void expect(int line, int32_t got, int32_t wanted) {
    if (got != wanted) {
        printf("line %d: %d instead of %d\n", line, (int)got, (int)wanted);
        failures++;
    }
}
#define EXPECT(got, wanted) expect(__LINE__, got, wanted)

/* What the hooks have seen: before and after alternate, in order. */
struct seen {
    uint32_t before, after, wrong;
};
static void before(void *context, uint32_t step) {
    struct seen *seen = (struct seen *)context;
    seen->wrong += step != seen->before++ || seen->after != step;
}
static void after(void *context, uint32_t step) {
    struct seen *seen = (struct seen *)context;
    seen->wrong += step != seen->after++;
}

static int untouched(void) {
    size_t i;
    for (i = 0; i < sizeof result; i++)
        if (result[i] != 0x55)
            return 0;
    return 1;
}

/* A run that must succeed. */
static void good(int line, const struct digits_parameters *parameters) {
    struct seen seen = {0, 0, 0};
    const struct digits_hooks hooks = {before, after, &seen}, none = {0, 0, 0};
    uint32_t step = 0, steps;
    int32_t status;
    memset(result, 0x55, sizeof result);
    expect(line, digits_run(&inputs, &outputs, parameters, ARENA &hooks), DIGITS_OK);
    expect(line, memcmp(result, expected, sizeof expected), 0);
    expect(line, (int32_t)seen.before, DIGITS_STEPS);
    expect(line, (int32_t)seen.after, DIGITS_STEPS);
    expect(line, (int32_t)seen.wrong, 0);
    memset(result, 0x55, sizeof result);
    for (steps = 1; (status = digits_step(&step, &inputs, &outputs, parameters, ARENA steps % 2 ? 0 : &none)) == DIGITS_MORE; steps++) {
        expect(line, (int32_t)step, (int32_t)steps);
        if (steps < DIGITS_STEPS)
            expect(line, untouched(), 1);
    }
    expect(line, status, DIGITS_OK);
    expect(line, (int32_t)steps, DIGITS_STEPS);
    expect(line, (int32_t)step, 0);
    expect(line, memcmp(result, expected, sizeof expected), 0);
}
#define GOOD(parameters) good(__LINE__, parameters)

/* A run that must fail before anything is written. */
static void bad(int line, const struct digits_parameters *parameters, int32_t wanted) {
    uint32_t step = 0;
    int32_t status;
    memset(result, 0x55, sizeof result);
    expect(line, digits_run(&inputs, &outputs, parameters, ARENA 0), wanted);
    do
        status = digits_step(&step, &inputs, &outputs, parameters, ARENA 0);
    while (status == DIGITS_MORE);
    expect(line, status, wanted);
    expect(line, (int32_t)step, 0);
    expect(line, untouched(), 1);
}
#define BAD(parameters, wanted) bad(__LINE__, parameters, wanted)

/* Images that are broken in one place, and what binding them says. */
static const struct {
    size_t at;
    int32_t status;
} broken[] = {
    {0, DIGITS_ERROR_PARAMETERS_MAGIC},        {7, DIGITS_ERROR_PARAMETERS_MAGIC},
    {8, DIGITS_ERROR_PARAMETERS_VERSION},      {12, DIGITS_ERROR_PARAMETERS_VERSION},
    {16, DIGITS_ERROR_PARAMETERS_FINGERPRINT}, {31, DIGITS_ERROR_PARAMETERS_FINGERPRINT},
    {32, DIGITS_ERROR_PARAMETERS_SIZE},        {39, DIGITS_ERROR_PARAMETERS_SIZE},
};

#ifdef STREAMED
static uint8_t buffer[512];

struct source {
    long calls, fail_at, waits;
    int32_t answer;
    int wrong, under_way, deferred;
    uint64_t offset;
    void *destination;
    uint32_t length;
};

static int32_t deliver(struct source *source) {
    if (++source->calls == source->fail_at)
        return source->answer;
    if (source->offset + source->length > DIGITS_PARAMETERS_SIZE)
        return -1;
    memcpy(source->destination, file + source->offset, source->length);
    return (int32_t)source->length;
}

static int32_t read(void *context, uint64_t offset, void *destination, uint32_t length) {
    struct source *source = (struct source *)context;
    source->wrong += source->under_way || length == 0;
    source->offset = offset, source->destination = destination, source->length = length;
    if (!source->deferred)
        return deliver(source);
    source->under_way = 1;
    memset(destination, 0xa5, length);
    return (int32_t)length;
}

static int32_t wait(void *context, void *destination, uint32_t length) {
    struct source *source = (struct source *)context;
    source->wrong += !source->under_way || destination != source->destination || length != source->length;
    source->under_way = 0;
    return deliver(source);
}

static void all(int deferred) {
    struct source source = {0, 0, 0, 0, 0, 0, deferred, 0, 0, 0};
    struct digits_parameters parameters = {read, deferred ? wait : 0, &source, 0};
    uint32_t step = DIGITS_STEPS;
    long reads, k;
    size_t i;
    BAD(0, DIGITS_ERROR_NULL_POINTER);
    BAD(&parameters, DIGITS_ERROR_PARAMETERS_UNBOUND);
    EXPECT(digits_bind(0, buffer), DIGITS_ERROR_NULL_POINTER);
    EXPECT(digits_bind(&parameters, 0), DIGITS_ERROR_NULL_POINTER);
    EXPECT(digits_bind(&parameters, buffer), DIGITS_OK);
    GOOD(&parameters);
    EXPECT(digits_step(&step, &inputs, &outputs, &parameters, ARENA 0), DIGITS_ERROR_STEP);
    for (i = 4; i <= sizeof buffer; i = i * 5 / 2)
        EXPECT(digits_check_parameters(&parameters, buffer, (uint32_t)i), DIGITS_OK);
    EXPECT(digits_check_parameters(&parameters, buffer, 0), DIGITS_ERROR_NULL_POINTER);
    EXPECT(digits_check_parameters(&parameters, 0, 4), DIGITS_ERROR_NULL_POINTER);
    for (i = 0; i < sizeof broken / sizeof *broken; i++) {
        file[broken[i].at] ^= 1;
        EXPECT(digits_bind(&parameters, buffer), broken[i].status);
        BAD(&parameters, DIGITS_ERROR_PARAMETERS_UNBOUND);
        file[broken[i].at] ^= 1;
    }
    EXPECT(digits_bind(&parameters, buffer), DIGITS_OK);
    for (i = DIGITS_PARAMETERS_HEADER_SIZE; i < DIGITS_PARAMETERS_SIZE; i += 997) {
        file[i] ^= 0x10;
        EXPECT(digits_check_parameters(&parameters, buffer, sizeof buffer), DIGITS_ERROR_PARAMETERS_CHECKSUM);
        file[i] ^= 0x10;
    }
    /* Every read of a run fails once, in each way. */
    source.calls = 0;
    EXPECT(digits_run(&inputs, &outputs, &parameters, ARENA 0), DIGITS_OK);
    reads = source.calls;
    EXPECT(reads > DIGITS_STEPS, 1);
    for (k = 1; k <= reads; k++) {
        const int32_t answers[] = {-7, 0, 1, INT32_MAX};
        for (i = 0; i < sizeof answers / sizeof *answers; i++) {
            memset(result, 0x55, sizeof result);
            source.calls = 0, source.fail_at = k, source.answer = answers[i];
            EXPECT(digits_run(&inputs, &outputs, &parameters, ARENA 0), i ? DIGITS_ERROR_SHORT_READ : DIGITS_ERROR_READ);
            EXPECT(untouched(), 1);
            EXPECT(source.under_way, 0);
            step = 0, source.calls = 0;
            while (digits_step(&step, &inputs, &outputs, &parameters, ARENA 0) == DIGITS_MORE)
                ;
            EXPECT((int32_t)step, 0);
            EXPECT(untouched(), 1);
            source.fail_at = 0;
            GOOD(&parameters);
        }
    }
    EXPECT(source.wrong, 0);
}
#else
static void all(void) {
    struct digits_parameters parameters = {0, 0}, other;
    uint32_t step = DIGITS_STEPS;
    size_t i;
    memset(&other, 0xee, sizeof other);
    BAD(0, DIGITS_ERROR_NULL_POINTER);
    BAD(&parameters, DIGITS_ERROR_PARAMETERS_UNBOUND);
    BAD(&other, DIGITS_ERROR_PARAMETERS_UNBOUND);
    EXPECT(digits_check_parameters(&other), DIGITS_ERROR_PARAMETERS_UNBOUND);
    EXPECT(digits_bind(0, file, DIGITS_PARAMETERS_SIZE), DIGITS_ERROR_NULL_POINTER);
    EXPECT(digits_bind(&parameters, 0, DIGITS_PARAMETERS_SIZE), DIGITS_ERROR_NULL_POINTER);
    EXPECT(digits_bind(&parameters, file, DIGITS_PARAMETERS_SIZE), DIGITS_OK);
    EXPECT(digits_check_parameters(&parameters), DIGITS_OK);
    GOOD(&parameters);
    EXPECT(digits_step(&step, &inputs, &outputs, &parameters, ARENA 0), DIGITS_ERROR_STEP);
    EXPECT((int32_t)step, DIGITS_STEPS);
    /* Two images at once; behind one there is more. */
    EXPECT(digits_bind(&other, file, sizeof file), DIGITS_OK);
    GOOD(&other);
    for (i = 0; i < DIGITS_PARAMETERS_SIZE; i = 2 * i + 1) {
        EXPECT(digits_bind(&parameters, file, i), DIGITS_ERROR_PARAMETERS_SIZE);
        BAD(&parameters, DIGITS_ERROR_PARAMETERS_UNBOUND);
    }
    EXPECT(digits_bind(&parameters, file, DIGITS_PARAMETERS_SIZE - 1), DIGITS_ERROR_PARAMETERS_SIZE);
    EXPECT(digits_bind(&parameters, file + 4, DIGITS_PARAMETERS_SIZE), DIGITS_ERROR_PARAMETERS_ALIGNMENT);
    for (i = 0; i < sizeof broken / sizeof *broken; i++) {
        file[broken[i].at] ^= 1;
        EXPECT(digits_bind(&parameters, file, DIGITS_PARAMETERS_SIZE), broken[i].status);
        BAD(&parameters, DIGITS_ERROR_PARAMETERS_UNBOUND);
        file[broken[i].at] ^= 1;
    }
    EXPECT(digits_bind(&parameters, file, DIGITS_PARAMETERS_SIZE), DIGITS_OK);
    for (i = DIGITS_PARAMETERS_HEADER_SIZE; i < DIGITS_PARAMETERS_SIZE; i += 997) {
        file[i] ^= 0x10;
        EXPECT(digits_check_parameters(&parameters), DIGITS_ERROR_PARAMETERS_CHECKSUM);
        file[i] ^= 0x10;
    }
    GOOD(&parameters);
    GOOD(&other);
}
#endif

int main(void) {
    FILE *in = fopen("digits.params", "rb");
    if (!in || fread(file, 1, sizeof file, in) != DIGITS_PARAMETERS_SIZE)
        return 2;
#ifdef STREAMED
    all(0);
    all(1);
#else
    all();
#endif
    return failures != 0;
}
