/*
 * kws.h: the C interface of the network "kws". Made by corerope 0.1.0; do not edit.
 *
 * Model:  kws.tflite
 * Target: x86_64-unknown-linux-gnu (x86-64-v2)
 *
 *     static int8_t input_1[KWS_INPUT_1_SIZE];
 *     static float class_0[KWS_CLASS_0_SIZE];
 *     static int8_t identity[KWS_IDENTITY_SIZE];
 *     static float identity_2[KWS_IDENTITY_2_SIZE];
 *     static uint8_t dtcm[KWS_ARENA_DTCM_SIZE] __attribute__((aligned(KWS_ARENA_ALIGN), section("...")));
 *     static uint8_t register_[KWS_ARENA_REGISTER_SIZE] __attribute__((aligned(KWS_ARENA_ALIGN), section("...")));
 *     const struct kws_arenas arenas = { 0, dtcm, register_ };
 *     const struct kws_inputs inputs = { input_1, class_0 };
 *     const struct kws_outputs outputs = { identity, identity_2 };
 *
 *     if (kws_run(&inputs, &outputs, &arenas) != KWS_OK)
 *         ...
 *
 * The code behind it calls nothing, allocates nothing and uses at most KWS_STACK_SIZE bytes of stack.
 * Runs with different arenas may overlap in time.
 */
#ifndef KWS_H
#define KWS_H

#include <stdint.h>

#if !defined(__x86_64__) && !defined(_M_X64)
#error "kws.h: the code is for x86-64"
#endif

/*
 * This header and the library are of one build. With a library of another build, linking ends with
 * "undefined reference to kws_run_build_1a2b3c4d".
 */
#define kws_run kws_run_build_1a2b3c4d

#ifdef __cplusplus
extern "C" {
#endif

/* Results of kws_run. */
#define KWS_OK 0 /* The run succeeded. */
#define KWS_ERROR_NULL_POINTER (-1) /* A pointer is null; nothing was computed. */
#define KWS_ERROR_ARENA_ALIGNMENT (-2) /* The arena is not aligned; nothing was computed. */

/* The arena: all memory that a run uses beside the stack. */
#define KWS_ARENA_NONE_SIZE 0u /* in none */
#define KWS_ARENA_DTCM_SIZE 48u /* in DTCM */
#define KWS_ARENA_REGISTER_SIZE 96u /* in register */
#define KWS_ARENA_ALIGN 16u

/* The deepest stack of kws_run in bytes, its return address included. */
#define KWS_STACK_SIZE 208u

/* Input 0: "input_1", int8[1,49,10,1], real value = scale * (element - zero point). */
#define KWS_INPUT_1_SIZE 490u
#define KWS_INPUT_1_BYTES 490u
#define KWS_INPUT_1_RANK 4
#define KWS_INPUT_1_SHAPE { 1, 49, 10, 1 }
#define KWS_INPUT_1_SCALE 5.847075e-1f
#define KWS_INPUT_1_ZERO_POINT 83

/* Input 1: "* / class:0", float32[]. */
#define KWS_CLASS_0_SIZE 1u
#define KWS_CLASS_0_BYTES 4u
#define KWS_CLASS_0_RANK 0

/* Output 0: "Identity", int8[1,12], real value = scale * (element - zero point). */
#define KWS_IDENTITY_SIZE 12u
#define KWS_IDENTITY_BYTES 12u
#define KWS_IDENTITY_RANK 2
#define KWS_IDENTITY_SHAPE { 1, 12 }
#define KWS_IDENTITY_SCALE 3.90625e-3f
#define KWS_IDENTITY_ZERO_POINT (-128)

/* Output 1: "identity", float32[1,5]. */
#define KWS_IDENTITY_2_SIZE 5u
#define KWS_IDENTITY_2_BYTES 20u
#define KWS_IDENTITY_2_RANK 2
#define KWS_IDENTITY_2_SHAPE { 1, 5 }

/* Where the inputs are: one pointer each, in the model's order. They are read in place and never written. */
struct kws_inputs {
    const int8_t *input_1; /* KWS_INPUT_1_SIZE elements */
    const float *class_0; /* KWS_CLASS_0_SIZE elements */
};

/* Where the outputs go. They overlap neither the inputs nor one another. */
struct kws_outputs {
    int8_t *identity; /* KWS_IDENTITY_SIZE elements */
    float *identity_2; /* KWS_IDENTITY_2_SIZE elements */
};

/* The parts of the arena: one pointer for each memory. */
struct kws_arenas {
    void *none; /* KWS_ARENA_NONE_SIZE bytes: not used */
    void *dtcm; /* KWS_ARENA_DTCM_SIZE bytes */
    void *register_; /* KWS_ARENA_REGISTER_SIZE bytes */
};

/*
 * Runs the network once. KWS_OK, or one of the errors above.
 * Each of `arenas` is aligned to KWS_ARENA_ALIGN. Their contents need not survive between runs.
 */
int32_t kws_run(const struct kws_inputs *inputs, const struct kws_outputs *outputs, const struct kws_arenas *arenas);

#ifdef __cplusplus
}
#endif

#endif /* KWS_H */
