/* packing_q4_0.h: q4_0, as GGUF has it: 32 elements in 18 bytes: a scale d in f16, then 16 bytes
 * whose low halves are the codes of elements 0 to 15, the high halves those of 16 to 31. An element
 * is (code - 8) * d. */
#ifndef HONE_PACKING_Q4_0_H
#define HONE_PACKING_Q4_0_H

#include "ops/packing.h"

enum { q4_0_BLOCK = 32, q4_0_BYTES = 18, q4_0_ZERO = 8, q4_0_HIGH = PACKING_NONE };

V16_FN struct packing_group q4_0_group(const u8 *block, int k) {
    return packing_group_of(packing_half(block), -0.0f, block + 2, 4 * k);
}

#define PACKING_q4_0                                                                               \
    .int8 = INT8_Q4_0, .block = {q4_0_BLOCK}, .bytes = blocks_bytes, .encode = blocks_pack,        \
    .blocks = {"Q4_0", q4_0_BYTES, {0, -1}, blocks_q4_0}

#endif
