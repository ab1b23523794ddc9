/* gemm_rows_cuda.cu: products of up to 16 rows with weights stored along k: y = x·W^T when a model
 * generates. Memory bounds them, and the latency of a chain: 4 cycles per k, which no other thread
 * can take over.
 *
 * A block owns 32 columns. Of four warps a lane owns a column, a warp every fourth row: they do
 * nothing but multiply. Four more stream 256 bytes of each of the 32 rows of W (and of x) into
 * shared memory by asynchronous copies, several stages ahead: about 32 KiB under way per block,
 * what it takes to keep memory busy with one block on each multiprocessor. W is read once. Lines
 * are 272 bytes apart, so that 16-byte reads of 8 lanes meet all banks. */
#include "ops/device/cuda_vec.h"
#include "ops/gemm/gemm_cuda.h"

enum {
    OUTS = 32,
    WARPS = 4,
    THREADS = 2 * WARPS * 32,
    PIECES = 16,
    PITCH = 16 * PIECES + 16,
    STAGES = 5,
    ROWS_MOST = 16
};

/* `count` pieces of 16 bytes, from piece `first` on, of a line of W with lines of x: 4 or 8 steps
 * of the chain each. */
template <bool is_bf16, int EACH>
DEVICE void lines_multiply(float sum[EACH], const u8 *w, const u8 *const x[EACH], int first,
                           int count) {
    constexpr int V = is_bf16 ? 8 : 4;
#pragma unroll
    for (int p = first; p < first + count; p++) {
        float b[V];
        vec_load<is_bf16>(b, w + 16 * p, 0);
#pragma unroll
        for (int r = 0; r < EACH; r++) {
            float a[V];
            vec_load<is_bf16>(a, x[r] + 16 * p, 0);
#pragma unroll
            for (int v = 0; v < V; v++) sum[r] = v16_fma(a[v ^ is_bf16], b[v ^ is_bf16], sum[r]);
        }
    }
}

/* One stage, by the second half of the threads: the next `PIECES` of W's lines, then of x's. */
DEVICE void stage_fetch(u8 *to, const struct gemm &g, i64 col, i64 piece, i64 pieces, int size) {
    for (int n = (int)threadIdx.x - WARPS * 32; n < (OUTS + (int)g.m) * PIECES; n += WARPS * 32) {
        const int line = n / PIECES, part = n % PIECES;
        const bool valid = piece + part < pieces && (line >= OUTS || col + line < g.n);
        const u8 *from = line < OUTS ? (const u8 *)g.b + (col + line) * g.ldb * size
                                     : (const u8 *)g.a + (i64)(line - OUTS) * g.lda * size;
        copy_async16(to + line * PITCH + part * 16, from + (piece + part) * 16, valid);
    }
    copy_async_commit();
}

/* The low-rank sum of one result. */
template <bool is_bf16> DEVICE float low_rank(const struct gemm &g, i64 i, i64 j) {
    float sum = 0;
    for (i64 p = 0; p < (is_bf16 ? g.rank + g.rank % 2 : g.rank); p++) {
        const i64 k = is_bf16 ? p ^ 1 : p;
        const bool in = k < g.rank;
        sum = v16_fma(in ? get1(g.t, i * g.rank + k, is_bf16) : 0,
                      in ? get1(g.u, g.u_t ? k * g.n + j : j * g.rank + k, is_bf16) : 0, sum);
    }
    return sum;
}

template <bool is_bf16, int EACH>
__global__ void __launch_bounds__(THREADS, 2) rows_kernel(struct gemm g) {
    DYNAMIC_SHARED(u8, shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, size = is_bf16 ? 2 : 4,
              stage = (OUTS + (int)g.m) * PITCH;
    const i64 col = (i64)blockIdx.x * OUTS, j = col + lane, pieces = g.k * size / 16,
              steps = (pieces + PIECES - 1) / PIECES;
    const bool c_half = g.c_dtype == BF16, fetches = warp >= WARPS;
    float sum[EACH];
#pragma unroll
    for (int r = 0; r < EACH; r++) {
        const i64 i = warp + WARPS * r;
        sum[r] =
            g.accumulate && !fetches && i < g.m && j < g.n ? get1(g.c, i * g.ldc + j, c_half) : 0;
    }
    for (int s = 0; fetches && s < STAGES - 1; s++)
        stage_fetch(shared + s * stage, g, col, (i64)s * PIECES, pieces, size);
    for (i64 s = 0; s < steps; s++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        if (fetches) {
            stage_fetch(shared + (s + STAGES - 1) % STAGES * stage, g, col,
                        (s + STAGES - 1) * PIECES, pieces, size);
            continue;
        }
        if (warp >= g.m) continue;
        const u8 *now = shared + s % STAGES * stage, *w = now + lane * PITCH, *x[EACH];
#pragma unroll
        for (int r = 0; r < EACH; r++) { /* of a row too many, the last: its sums are not stored */
            const int i = warp + WARPS * r < g.m ? warp + WARPS * r : (int)g.m - 1;
            x[r] = now + (OUTS + i) * PITCH;
        }
        if ((s + 1) * PIECES <= pieces)
            lines_multiply<is_bf16, EACH>(sum, w, x, 0, PIECES);
        else
            for (int p = 0; s * PIECES + p < pieces; p++)
                lines_multiply<is_bf16, EACH>(sum, w, x, p, 1);
    }
    copy_async_wait<0>();
    if (fetches) return;
#pragma unroll
    for (int r = 0; r < EACH; r++) {
        const i64 i = warp + WARPS * r;
        if (i >= g.m || j >= g.n) continue;
        float y = sum[r];
        if (g.t) y = v16_fma(g.scale, low_rank<is_bf16>(g, i, j), y);
        if (g.bias) y = v16_add(y, get1(g.bias, j, is_bf16));
        put1(g.c, i * g.ldc + j, y, c_half);
    }
}

bool gemm_rows_fit(const struct gemm *g) {
    const i64 v = g->dtype == BF16 ? 8 : 4;
    return g->m <= ROWS_MOST && !g->a_t && g->b_t && g->k % v == 0 && g->lda % v == 0 &&
           g->ldb % v == 0 && (uintptr_t)g->a % 16 == 0 && (uintptr_t)g->b % 16 == 0;
}

template <bool is_bf16, int EACH> static int rows_run(const struct gemm *g, struct err *e) {
    return LAUNCH(e, (rows_kernel<is_bf16, EACH>), (unsigned)((g->n + OUTS - 1) / OUTS), THREADS,
                  STAGES * (OUTS + g->m) * PITCH, *g);
}
int gemm_rows(const struct gemm *g, struct err *e) {
    if (g->dtype == BF16) return g->m <= WARPS ? rows_run<true, 1>(g, e) : rows_run<true, 4>(g, e);
    return g->m <= WARPS ? rows_run<false, 1>(g, e) : rows_run<false, 4>(g, e);
}
