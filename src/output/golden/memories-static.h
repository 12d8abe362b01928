/*
 * kws.h: the C interface of the network "kws". Made by corerope 0.1.0; do not edit.
 *
 * Model:  kws.tflite
 * Target: x86_64-unknown-linux-gnu (x86-64-v2)
 *
 *     if (kws_run() != KWS_OK)
 *         ...
 *
 * The code behind it calls nothing, allocates nothing and uses at most KWS_STACK_SIZE bytes of stack.
 * One run at a time: the arena of 16000u bytes is static.
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
#define KWS_INPUT_1_OFFSET 0u /* in the arena in DTCM */

/* Input 1: "* / class:0", float32[]. */
#define KWS_CLASS_0_SIZE 1u
#define KWS_CLASS_0_BYTES 4u
#define KWS_CLASS_0_RANK 0
#define KWS_CLASS_0_OFFSET 448u /* in the arena in register */

/* Output 0: "Identity", int8[1,12], real value = scale * (element - zero point). */
#define KWS_IDENTITY_SIZE 12u
#define KWS_IDENTITY_BYTES 12u
#define KWS_IDENTITY_RANK 2
#define KWS_IDENTITY_SHAPE { 1, 12 }
#define KWS_IDENTITY_SCALE 3.90625e-3f
#define KWS_IDENTITY_ZERO_POINT (-128)
#define KWS_IDENTITY_OFFSET 0u /* in the arena in DTCM */

/* Output 1: "identity", float32[1,5]. */
#define KWS_IDENTITY_2_SIZE 5u
#define KWS_IDENTITY_2_BYTES 20u
#define KWS_IDENTITY_2_RANK 2
#define KWS_IDENTITY_2_SHAPE { 1, 5 }
#define KWS_IDENTITY_2_OFFSET 16u /* in the arena in DTCM */

/* The arena, a part in each memory. Inputs and outputs lie in it at the offsets above. */
extern uint8_t kws_arena_dtcm[KWS_ARENA_DTCM_SIZE];
extern uint8_t kws_arena_register[KWS_ARENA_REGISTER_SIZE];

/*
 * Runs the network once on the inputs in the arena. KWS_OK, or one of the errors above. The inputs are consumed:
 * write them again before the next run.
 */
int32_t kws_run(void);

#ifdef __cplusplus
}
#endif

#endif /* KWS_H */
