/* gemm.h: matrix products on the CPU, by the chains of NUMERICS.md 2, 3 and 13. Internal to ops.
 *
 *   C[m,n] = A[m,k] · B[k,n]  (+ C)  (+ scale * T[m,r] · U[n,r]^T)  (+ bias[n])
 *
 * f32: c = fma(a[k], b[k], c) for k ascending. bf16: pairs of k, the odd one first; odd k is padded
 * with a zero. The chain starts from 0, or from C if `accumulate`. Then the low-rank part: u =
 * T·U^T by the same chain from 0, c = fma(scale, u, c); then + bias; then one rounding to C's
 * dtype. Work is cut over m and n only. */
#ifndef HONE_GEMM_H
#define HONE_GEMM_H

#include <string.h>
#include "ops/ops_int.h"

struct gemm {
    i64 m, n, k;
    enum dtype dtype; /* of a, b, t, u and bias: F32 or BF16 */
    const void *a;
    i64 lda;
    bool a_t; /* A is stored [m][lda], or, a_t, as [k][lda] */
    const void *b;
    i64 ldb;
    bool b_t;                  /* B is stored [k][ldb], or, b_t, as [n][ldb] */
    const struct view *packed; /* B's elements are packed (b: their data), decoded to dtype on the
                                * way into the product; NULL: plain */
    void *c;
    i64 ldc;
    enum dtype c_dtype; /* F32 or BF16; accumulate needs F32 */
    bool accumulate;
    bool in_order; /* bf16: k ascending one by one, no pairs; A and B must both have k outside (a_t,
                      not b_t) */
    const void *t, *u; /* T [m, rank], U [n, rank] (u_t: [rank, n]); NULL: none */
    bool u_t;
    i64 rank;
    float scale;
    const void *bias; /* [n] or NULL */
};
/* C = A · B of plain matrices as views have them; b_t: B is [n, k]. */
static inline struct gemm gemm_views(const struct view *a, const struct view *b, bool b_t,
                                     const struct view *c) {
    struct gemm g;
    memset(&g, 0, sizeof g);
    g.m = c->dim[0], g.n = c->dim[1], g.k = a->dim[1], g.dtype = a->dtype, g.b_t = b_t;
    g.a = a->data, g.lda = a->dim[1], g.b = b->data, g.ldb = b->dim[1];
    g.c = c->data, g.ldc = c->dim[1], g.c_dtype = c->dtype;
    return g;
}
/* Bytes for packing, enough for all instruction sets and pool_threads(). rank 0: no low-rank part.
 */
i64 gemm_scratch(i64 m, i64 n, i64 k, i64 rank);
/* Called from *_cpu.c kernels as CPU_NAME(gemm)(&g, scratch). Takes the pool itself; inside a pool
 * task it runs alone. */
#define X(isa) void gemm_##isa(const struct gemm *g, void *scratch);
ISA_LIST(X)
#undef X

#endif
