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

#define PACKING_q8_0                                                                               \
    .int8 = INT8_Q8_0, .block = {Q8_0_BLOCK}, .bytes = blocks_bytes, .encode = blocks_pack,        \
    .blocks = {"Q8_0", Q8_0_BYTES, {0, -1}, blocks_q8_0}

#endif
