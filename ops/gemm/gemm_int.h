/* gemm_int.h: what gemm.c, gemm_pack_cpu.c and gemm_cpu.c share: block sizes, packed panels.
 *
 * Packed operands are made of 32-bit lanes. A panel of width w holds lane row p of its w rows or
 * columns at [p * w]. What a lane is:
 *   PACK_F32   one float; lane row p is k = p
 *   PACK_PAIR  two bf16, k = 2p in the low half and 2p + 1 in the high half: what vdpbf16ps eats
 *   PACK_WIDE  one bf16 widened to f32; lane rows are k = 1, 0, 3, 2, ...: the f32 micro-kernel run
 *              over these rows is the bf16 chain of NUMERICS.md 3, so that machines without
 *              vdpbf16ps run bf16 at the speed of f32
 * A last odd k of bf16 gets a zero partner; rows or columns past the edge are zeros. */
#ifndef HONE_GEMM_INT_H
#define HONE_GEMM_INT_H

#include "ops/gemm/gemm.h"

/* A block of C is ROWS x NC sums (L3). Of A, MC rows by KC lane rows lie packed (L2); of B, panels
 * of KC lane rows (L2, then L3).
 * Interleaved runs of [2048,768]x[768,3072], [1024,4096]x[4096,4096] and the weight gradient on one
 * Zen 5 core of a busy machine: KC 256 to 512, MC 168 to 588, NC 512 to 3072 differ by up to 12 %,
 * little more than the noise; this choice was within 3 % of the best in each. To measure again on a
 * quiet machine: change, then `hone bench linear`. */
enum {
    GEMM_MC = 168, /* a multiple of every micro-kernel's rows: 14, 6, 4 */
    GEMM_ROWS = 8 * GEMM_MC,
    GEMM_KC = 512, /* even */
    GEMM_NC = 1024,
    GEMM_COLS = 32,         /* the widest micro-kernel */
    GEMM_GROUP = 8,         /* panels of B packed together where k is not contiguous */
    GEMM_DECODE = 16 << 10, /* bytes of B decoded at a time: half of L1 at most */
};

enum pack { PACK_F32, PACK_PAIR, PACK_WIDE };
static inline i64 pack_lanes(enum pack how, i64 k) {
    return how == PACK_F32 ? k : how == PACK_PAIR ? (k + 1) / 2 : round_up(k, 2);
}
static inline i64 pack_k(enum pack how, i64 lanes) { return how == PACK_PAIR ? 2 * lanes : lanes; }

/* gemm_few_cpu.c: products of at most GEMM_FEW rows with a B whose k is contiguous. */
enum { GEMM_FEW = 4 };
static inline bool gemm_is_few(const struct gemm *g) {
    return g->m <= GEMM_FEW && g->b_t && !g->a_t && !g->u_t && !g->accumulate;
}
#define X(isa) void gemm_few_##isa(const struct gemm *g);
ISA_LIST(X)
#undef X

/* Where a worker's packed A, packed B and sums begin in its part of the scratch, in floats. */
struct gemm_room {
    i64 a, b, tiles, size;
};
struct gemm_room gemm_room(i64 m, i64 n, i64 k, i64 rank);

/* One matrix operand as packing sees it: element (i, k) with i a row of A or a column of B. */
struct operand {
    const void *data;
    i64 ld, count, size;       /* count: how many i there are; size: bytes of an element */
    bool k_inner;              /* element (i, k) at [i * ld + k], else at [k * ld + i] */
    bool in_order;             /* bf16, k outside: the even k of a pair comes first */
    const struct view *packed; /* packed elements: see pack_panels */
};

/* Packs i in [first, first + width), k in [k, k + depth), in panels of `width`; `to` has room for
 * 16 lanes more. */
#define X(isa)                                                                                     \
    void gemm_pack_##isa(float *to, const struct operand *from, i64 first, int width, i64 k,       \
                         i64 depth, enum pack how);
ISA_LIST(X)
#undef X

#endif
