/* packing_q5_k.h: q5_k, as GGUF has it: 256 elements in 176 bytes: a scale d and a minimum m in
 * f16, 12 bytes of pairs (packing_pair), 32 bytes in which bit r of byte j is the fifth bit of
 * element j of run r, then the other bits as q4_k has them. An element is code * (d * s) - m * o.
 * */
#ifndef HONE_PACKING_Q5_K_H
#define HONE_PACKING_Q5_K_H

#include "ops/packing.h"

enum { q5_k_BLOCK = 256, q5_k_BYTES = 176, q5_k_ZERO = 0, q5_k_HIGH = 1 };

V16_FN struct packing_group q5_k_group(const u8 *block, int k) {
    const int run = k / 2;
    struct packing_group g =
        packing_pair(block, run, block + 48 + run / 2 * 32 + k % 2 * 16, run % 2 * 4);
    g.high = block + 16 + k % 2 * 16, g.high_shift = run;
    return g;
}

#define PACKING_q5_k                                                                               \
    .int8 = INT8_Q5_K, .block = {q5_k_BLOCK}, .bytes = blocks_bytes, .encode = blocks_pack,        \
    .blocks = {"Q5_K", q5_k_BYTES, {0, 2}, blocks_q5_k}

#endif
