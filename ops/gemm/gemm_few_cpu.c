/* gemm_few_cpu.c: products of one to four rows, as in decoding, where reading B is all that counts.
 *
 * 16 columns at a time: 16 lanes of each (floats, or pairs of bf16) are loaded, transposed in
 * registers, and continue the chains of the 16 columns, k ascending (NUMERICS.md 2, 3). The 16
 * streams lie a row of B apart, often a power of two, where the hardware foresees nothing: each
 * line is asked for AHEAD bytes early, across the end of a row in the row that takes its place.
 * Packed elements of B are decoded to L1 first, PIECE of each column, and the chains go on.
 * Rejected: the packed path (a panel is stored and read again for one use; a third to a half of
 * the speed); columns' chains cut over lanes (another sum). */
#include "base/v16.h"
#include "ops/gemm/gemm_int.h"
#include "ops/gemm/transpose16.h"

#include <string.h>

enum { AHEAD = 1024 };
#ifdef ISA_IS_plain
enum { UNROLL = 1 };
#else
enum { UNROLL = 16 };
#endif

enum { PIECE = 256 }; /* whole blocks of every packed type; 16 KiB in f32 */

struct matrices { /* sum[r][16 columns] = A[r] * B[column], k ascending */
    const u8 *a, *b;
    i64 lda, ldb, k; /* bytes; elements */
};

/* The last k, fewer than 16 lanes: beside zeros. */
struct tail {
    u8 a[GEMM_FEW][64], b[16][64];
};
static void tail_copy(struct tail *t, const struct matrices *m, const i64 column[16], i64 at,
                      i64 bytes, int rows) {
    memset(t, 0, sizeof *t);
    for (int r = 0; r < rows; r++) memcpy(t->a[r], m->a + r * m->lda + at, (size_t)bytes);
    for (int i = 0; i < 16; i++) memcpy(t->b[i], m->b + column[i] + at, (size_t)bytes);
}

/* go_on: from the sums that are in `to`. */
V16_FN void chains_of(v16 *to, const struct matrices *m, const i64 column[16], const int rows,
                      const bool is_bf16, bool go_on) {
    static const i64 tail_column[16] = {0,   64,  128, 192, 256, 320, 384, 448,
                                        512, 576, 640, 704, 768, 832, 896, 960};
    const i64 end = m->k * (is_bf16 ? 2 : 4);
    struct tail tail;
    v16 sum[GEMM_FEW], x[16];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) sum[r] = go_on ? to[r] : v16_set(0);
    for (i64 at = 0; at < end; at += 64) {
        const u8 *a = m->a + at, *b = m->b + at;
        const i64 soon = AHEAD < end - at ? AHEAD : AHEAD - end + 16 * m->ldb;
        i64 lda = m->lda;
        const i64 *from = column;
        if (at + 64 > end) {
            tail_copy(&tail, m, column, at, end - at, rows);
            a = tail.a[0], b = tail.b[0], lda = 64, from = tail_column;
        }
#pragma GCC unroll UNROLL
        for (int i = 0; i < 16; i++) {
            __builtin_prefetch(b + from[i] + soon);
            const v16h bits = v16h_load(b + from[i]); /* floats too */
            __builtin_memcpy(&x[i], &bits, sizeof bits);
        }
        transpose16(x);
#pragma GCC unroll UNROLL
        for (int i = 0; i < 16; i++)
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                u32 lane;
                __builtin_memcpy(&lane, a + r * lda + 4 * i, 4);
                if (is_bf16) {
                    v16h pairs;
                    __builtin_memcpy(&pairs, &x[i], sizeof pairs);
                    sum[r] = v16_dot(v16h_set(lane), pairs, sum[r]);
                } else {
                    float f;
                    __builtin_memcpy(&f, &lane, 4);
                    sum[r] = v16_fma(v16_set(f), x[i], sum[r]);
                }
            }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) to[r] = sum[r];
}
static __attribute__((noinline)) void chains(v16 *to, const struct matrices *m, i64 first,
                                             i64 count, i64 rows, bool is_bf16, bool go_on) {
    i64 column[16];
    for (int i = 0; i < 16; i++) column[i] = (first + i64_min(i, count - 1)) * m->ldb;
#define ROWS(n)                                                                                    \
    if (rows == n && is_bf16) chains_of(to, m, column, n, true, go_on);                            \
    if (rows == n && !is_bf16) chains_of(to, m, column, n, false, go_on);
    ROWS(1)
    ROWS(2)
    ROWS(3)
    ROWS(4)
#undef ROWS
}

static void packed_chains(v16 *to, const struct gemm *g, i64 first, i64 count, bool is_bf16) {
    _Alignas(64) u8 room[16 * PIECE * 4];
    const i64 size = is_bf16 ? 2 : 4;
    for (i64 k = 0; k < g->k || !k; k += PIECE) {
        const i64 n = i64_min(PIECE, g->k - k);
        const struct matrices m = {(const u8 *)g->a + k * size, room, g->lda * size, n * size, n};
        g->packed->packing->decode[isa_now()](room, g->packed, first * g->ldb + k, n, count, g->ldb,
                                              is_bf16);
        chains(to, &m, 0, count, g->m, is_bf16, k > 0);
    }
}

static void columns_work(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct gemm *g = arg;
    const bool is_bf16 = g->dtype == BF16;
    const i64 size = is_bf16 ? 2 : 4;
    const struct matrices all = {g->a, g->b, g->lda * size, g->ldb * size, g->k},
                          rank = {g->t, g->u, g->rank * size, g->rank * size, g->rank};
    for (i64 first = begin * 16; first < i64_min(end * 16, g->n); first += 16) {
        const i64 left = i64_min(16, g->n - first);
        v16 sum[GEMM_FEW], low[GEMM_FEW];
        if (g->packed)
            packed_chains(sum, g, first, left, is_bf16);
        else
            chains(sum, &all, first, left, g->m, is_bf16, false);
        if (g->t) chains(low, &rank, first, left, g->m, is_bf16, false);
        for (i64 r = 0; r < g->m; r++) {
            v16 x = sum[r];
            if (g->t) x = v16_fma(v16_set(g->scale), low[r], x);
            if (g->bias) x = v16_add(x, v16_get_n(g->bias, first, left, is_bf16));
            v16_put_n(g->c, r * g->ldc + first, x, left, g->c_dtype == BF16);
        }
    }
}

void CPU_NAME(gemm_few)(const struct gemm *g) {
    pool_run((g->n + 15) / 16, columns_work, (void *)(uintptr_t)g);
}
