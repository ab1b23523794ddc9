/* packing_q4_k.h: q4_k, as GGUF has it: 256 elements in 144 bytes: a scale d and a minimum m in
 * f16, 12 bytes of pairs (packing_pair), then 128 bytes: codes of runs 2 i and 2 i + 1, of 32
 * elements each, in the low and the high halves of bytes 32 i to 32 i + 31. An element is code * (d
 * * s) - m * o. */
#ifndef HONE_PACKING_Q4_K_H
#define HONE_PACKING_Q4_K_H

#include "ops/packing.h"

enum { q4_k_BLOCK = 256, q4_k_BYTES = 144, q4_k_ZERO = 0, q4_k_HIGH = PACKING_NONE };

V16_FN struct packing_group q4_k_group(const u8 *block, int k) {
    const int run = k / 2;
    return packing_pair(block, run, block + 16 + run / 2 * 32 + k % 2 * 16, run % 2 * 4);
}

#define PACKING_q4_k                                                                               \
    .int8 = INT8_Q4_K, .block = {q4_k_BLOCK}, .bytes = blocks_bytes, .encode = blocks_pack,        \
    .blocks = {"Q4_K", q4_k_BYTES, {0, 2}, blocks_q4_k}

#endif
