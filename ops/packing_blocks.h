/* packing_blocks.h: what the packed types share that GGUF has: blocks of block[0] elements and
 * blocks.bytes bytes, with no parts beside. Blocks run over the elements as memory has them; the
 * last may be short, and is encoded as if zeros followed. Encoders are base/blocks.c's; scales
 * beyond the largest f16 stay there, so that all elements are finite. */
#ifndef HONE_PACKING_BLOCKS_H
#define HONE_PACKING_BLOCKS_H

#include "ops/packing.h"

static inline i64 blocks_of(const struct view *v) {
    const i64 block = v->packing->block[0];
    return (view_count(v) + block - 1) / block;
}
static inline i64 blocks_bytes(const struct view *v, int slot) {
    return slot ? 0 : blocks_of(v) * v->packing->blocks.bytes;
}

V16_FN float packing_half(const u8 *p) { return packing_f16((u32)(p[0] | p[1] << 8)); }
V16_FN struct packing_group packing_group_of(float scale, float offset, const u8 *low, int shift) {
    struct packing_group g;
    g.scale = scale, g.offset = offset, g.low = g.high = low;
    g.shift = shift, g.bits = 0, g.high_shift = 0;
    return g;
}
/* The code of element l of a group; high: id_HIGH. */
V16_FN int packing_code(const struct packing_group *g, int l, int high) {
    const int low = g->low[l] >> g->shift & 15;
    return high == PACKING_NONE   ? low
           : high == PACKING_BITS ? low | (int)(g->bits >> l & 1) << 4
                                  : low | (g->high[l] >> g->high_shift & high) << 4;
}
/* Scale s of 8 runs of q4_k and q5_k, and offset o, 6 bits each, in 12 bytes: bytes 0 to 3 are
 * scales 0 to 3, 4 to 7 offsets 0 to 3, in their low 6 bits; bytes 8 to 11 hold the low 4 bits of
 * scales and offsets 4 to 7, whose high 2 bits are the top bits of bytes 0 to 3 and 4 to 7. The
 * group's are d * s and -(m * o), rounded. */
V16_FN struct packing_group packing_pair(const u8 *block, int run, const u8 *low, int shift) {
    const u8 *p = block + 4 + run % 4;
    const int s = run < 4 ? p[0] & 63 : (p[8] & 15) | p[0] >> 6 << 4,
              o = run < 4 ? p[4] & 63 : p[8] >> 4 | p[4] >> 6 << 4;
    return packing_group_of(packing_half(block) * (float)s, -(packing_half(block + 2) * (float)o),
                            low, shift);
}

enum { PACKING_LONGEST = 256 }; /* elements of a block */
static inline void blocks_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct packing_job *j = (const struct packing_job *)arg;
    const struct packing_blocks *how = &j->v->packing->blocks;
    const i64 block = j->v->packing->block[0], count = view_count(j->v),
              last = i64_min(end * PACKING_TASK, blocks_of(j->v));
    float x[PACKING_LONGEST];
    for (i64 b = begin * PACKING_TASK; b < last; b++) {
        u8 *to = (u8 *)j->v->data + b * how->bytes;
        for (i64 i = 0; i < block; i++)
            x[i] = b * block + i < count ? packing_get(j, b * block + i) : 0;
        how->encode(x, 1, to);
        for (int k = 0; k < 2; k++) {
            u8 *half = how->half[k] < 0 ? NULL : to + how->half[k];
            if (half && (half[1] & 0x7c) == 0x7c) half[0] = 0xff, half[1] = (half[1] & 0x80) | 0x7b;
        }
    }
}
static inline int blocks_pack(const struct view *v, const void *from, bool is_bf16, struct err *e) {
    (void)e;
    struct packing_job job = {v, from, is_bf16};
    pool_run((blocks_of(v) + PACKING_TASK - 1) / PACKING_TASK, blocks_task, &job);
    return 0;
}

#endif
