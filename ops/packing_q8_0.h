/* packing_q8_0.h: q8_0, in the blocks that GGUF has: 32 elements, a scale d in f16, then 32 codes
 * in i8: 34 bytes, with no parts beside. An element is code * d. Blocks run over the elements as
 * memory has them; the last may be short. Encoding is ggml's: d = largest magnitude / 127 in f32,
 * the code is x * (1 / d) with halves away from zero, and d is rounded to f16 after that. Beyond
 * the largest f16 d stays there. What it encodes and decodes, in f32, encodes to the same bytes
 * again. */
#ifndef HONE_PACKING_Q8_0_H
#define HONE_PACKING_Q8_0_H

#include "ops/packing.h"

enum { Q8_0_BLOCK = 32, Q8_0_BYTES = 34 };

static inline i64 q8_0_blocks(const struct view *v) {
    return (view_count(v) + Q8_0_BLOCK - 1) / Q8_0_BLOCK;
}
static inline i64 q8_0_bytes(const struct view *v, int slot) {
    return slot ? 0 : q8_0_blocks(v) * Q8_0_BYTES;
}

V16_FN struct packing_run q8_0_run(const struct view *v, i64 i) {
    const u8 *block = (const u8 *)v->data + i / Q8_0_BLOCK * Q8_0_BYTES;
    const i64 at = i % Q8_0_BLOCK;
    struct packing_run r;
    r.scale = packing_f16((u32)(block[0] | block[1] << 8));
    r.count = Q8_0_BLOCK - at, r.code = block + 2 + at;
    return r;
}
V16_FN v16 q8_0_value(v16 code) { /* of a byte, the number with a sign */
    return v16_sub(code, v16_select(v16_lt(code, v16_set(128)), v16_set(0), v16_set(256)));
}

static inline void q8_0_block(const struct packing_job *j, i64 at, u8 *to) {
    const i64 count = i64_min(Q8_0_BLOCK, view_count(j->v) - at);
    float top = 0;
    for (i64 i = 0; i < count; i++) {
        const float x = packing_magnitude(packing_get(j, at + i));
        top = x > top ? x : top;
    }
    const float d = top / 127, inverse = d > 0 ? 1 / d : 0;
    const u16 half = f16_of_f32(d > 65504 ? 65504 : d);
    to[0] = (u8)half, to[1] = (u8)(half >> 8);
    for (i64 i = 0; i < Q8_0_BLOCK; i++) {
        const float x = i < count ? packing_get(j, at + i) * inverse : 0, whole = (float)(int)x,
                    rest = x - whole;
        to[2 + i] = (u8)((int)whole + (rest >= 0.5f) - (rest <= -0.5f));
    }
}
static inline void q8_0_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct packing_job *j = (const struct packing_job *)arg;
    const i64 last = i64_min(end * PACKING_TASK, q8_0_blocks(j->v));
    for (i64 b = begin * PACKING_TASK; b < last; b++)
        q8_0_block(j, b * Q8_0_BLOCK, (u8 *)j->v->data + b * Q8_0_BYTES);
}
static inline int q8_0_encode(const struct view *v, const void *from, bool is_bf16, struct err *e) {
    (void)e;
    struct packing_job job = {v, from, is_bf16};
    pool_run((q8_0_blocks(v) + PACKING_TASK - 1) / PACKING_TASK, q8_0_task, &job);
    return 0;
}

#define PACKING_q8_0                                                                               \
    .block = {Q8_0_BLOCK}, .int8 = INT8_Q8_0, .bytes = q8_0_bytes, .encode = q8_0_encode

#endif
