/* packing_q5_0.h: q5_0, as GGUF has it: 32 elements in 22 bytes: a scale d in f16, 32 bits that are
 * the fifth bits of the codes in their order, then the other bits as q4_0 has them. An element is
 * (code - 16) * d. */
#ifndef HONE_PACKING_Q5_0_H
#define HONE_PACKING_Q5_0_H

#include "ops/packing.h"

enum { q5_0_BLOCK = 32, q5_0_BYTES = 22, q5_0_ZERO = 16, q5_0_HIGH = PACKING_BITS };

V16_FN struct packing_group q5_0_group(const u8 *block, int k) {
    struct packing_group g = packing_group_of(packing_half(block), -0.0f, block + 6, 4 * k);
    g.bits = ((u32)(block[2 + 2 * k] | block[3 + 2 * k] << 8));
    return g;
}

#define PACKING_q5_0                                                                               \
    .int8 = INT8_Q5_0, .block = {q5_0_BLOCK}, .bytes = blocks_bytes, .encode = blocks_pack,        \
    .blocks = {"Q5_0", q5_0_BYTES, {0, -1}, blocks_q5_0}

#endif
