/* packing_q4_1.h: q4_1, as GGUF has it: 32 elements in 20 bytes: a scale d and a minimum m in f16,
 * then codes as q4_0 has them. An element is code * d + m. */
#ifndef HONE_PACKING_Q4_1_H
#define HONE_PACKING_Q4_1_H

#include "ops/packing.h"

enum { q4_1_BLOCK = 32, q4_1_BYTES = 20, q4_1_ZERO = 0, q4_1_HIGH = PACKING_NONE };

V16_FN struct packing_group q4_1_group(const u8 *block, int k) {
    return packing_group_of(packing_half(block), packing_half(block + 2), block + 4, 4 * k);
}

#define PACKING_q4_1                                                                               \
    .int8 = INT8_Q4_1, .block = {q4_1_BLOCK}, .bytes = blocks_bytes, .encode = blocks_pack,        \
    .blocks = {"Q4_1", q4_1_BYTES, {0, 2}, blocks_q4_1}

#endif
