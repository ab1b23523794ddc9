/* packing_q5_1.h: q5_1, as GGUF has it: 32 elements in 24 bytes: a scale d and a minimum m in f16,
 * then codes as q5_0 has them. An element is code * d + m. */
#ifndef HONE_PACKING_Q5_1_H
#define HONE_PACKING_Q5_1_H

#include "ops/packing.h"

enum { q5_1_BLOCK = 32, q5_1_BYTES = 24, q5_1_ZERO = 0, q5_1_HIGH = PACKING_BITS };

V16_FN struct packing_group q5_1_group(const u8 *block, int k) {
    struct packing_group g =
        packing_group_of(packing_half(block), packing_half(block + 2), block + 8, 4 * k);
    g.bits = ((u32)(block[4 + 2 * k] | block[5 + 2 * k] << 8));
    return g;
}

#define PACKING_q5_1                                                                               \
    .int8 = INT8_Q5_1, .block = {q5_1_BLOCK}, .bytes = blocks_bytes, .encode = blocks_pack,        \
    .blocks = {"Q5_1", q5_1_BYTES, {0, 2}, blocks_q5_1}

#endif
