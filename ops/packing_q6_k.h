/* packing_q6_k.h: q6_k, as GGUF has it: 256 elements in 210 bytes: 128 bytes of low halves, 64 of
 * two high bits, 16 scales s in i8, a scale d in f16. In each half of 128 elements, number 32 r + j
 * has its low bits in byte 32 (r % 2) + j of 64, in the half r / 2 of it, its high bits in bits 2 r
 * of byte j of 32. An element is (code - 32) * (d * s), s that of its 16. */
#ifndef HONE_PACKING_Q6_K_H
#define HONE_PACKING_Q6_K_H

#include "ops/packing.h"

enum { q6_k_BLOCK = 256, q6_k_BYTES = 210, q6_k_ZERO = 32, q6_k_HIGH = 3 };

V16_FN struct packing_group q6_k_group(const u8 *block, int k) {
    const int half = k / 8, run = k / 2 % 4, first = k % 2 * 16;
    struct packing_group g =
        packing_group_of(packing_half(block + 208) * (float)(signed char)block[192 + k], -0.0f,
                         block + half * 64 + run % 2 * 32 + first, run / 2 * 4);
    g.high = block + 128 + half * 32 + first, g.high_shift = 2 * run;
    return g;
}

#define PACKING_q6_k                                                                               \
    .int8 = INT8_Q6_K, .block = {q6_k_BLOCK}, .bytes = blocks_bytes, .encode = blocks_pack,        \
    .blocks = {"Q6_K", q6_k_BYTES, {208, -1}, blocks_q6_k}

#endif
