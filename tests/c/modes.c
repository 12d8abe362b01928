/* One inference in each way in which a model can be built: -DCALLER for --arena caller, -DIO_ARENA for --io arena.
 * C99 and C++17. Returns 0 if the result is `expected` (data.h). */
#include "data.h"
#include "digits.h"
#include <string.h>

#ifdef __cplusplus
#define ALIGNED(n) alignas(n)
#else
#define ALIGNED(n) __attribute__((aligned(n)))
#endif

#ifdef CALLER
ALIGNED(DIGITS_ARENA_ALIGN) static uint8_t arena[DIGITS_ARENA_SIZE];
#elif defined IO_ARENA
#define arena digits_arena
#endif

int main(void) {
    int32_t status;
#ifdef IO_ARENA
    memcpy(arena + DIGITS_INPUT_OFFSET, image, sizeof image);
#ifdef CALLER
    status = digits_run(arena);
#else
    status = digits_run();
#endif
    return status != DIGITS_OK || memcmp(arena + DIGITS_IDENTITY_OFFSET, expected, sizeof expected) != 0;
#else
    static int8_t result[DIGITS_IDENTITY_SIZE];
    const struct digits_inputs inputs = {image};
    const struct digits_outputs outputs = {result};
#ifdef CALLER
    status = digits_run(&inputs, &outputs, arena);
#else
    status = digits_run(&inputs, &outputs);
#endif
    return status != DIGITS_OK || memcmp(result, expected, sizeof expected) != 0;
#endif
}
