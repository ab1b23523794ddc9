/* gemm_cuda.cu: matrix products on the GPU's f32 units, with the chains of gemm.h: one thread owns
 * a sum from its first k to its last, so that blocking changes no bit.
 *
 * A block of threads owns a tile of C. Strips of A and B, 16 deep, go from memory to registers to
 * shared memory as f32, k-major: [k][row] and [k][column]. bf16 is widened on the way, and k ^ 1
 * takes the place of k, after which the chain of NUMERICS.md 3 is that of f32. While the first half
 * of a strip is multiplied the next strip of B is on its way, during the second half that of A: so
 * they share registers. Two buffers of shared memory need one barrier per strip.
 *
 *   large  128x128, 256 threads of 8x8 sums: per k 4 reads of 16 bytes for 64 multiply-adds. Two
 *          blocks on a multiprocessor leave 128 registers; the main loop is 87 to 90 % FFMA (SASS).
 *   small  32x32, 128 threads of 4x2: for products with too few large tiles to fill the machine.
 *
 * An operand that arrives along k has its columns permuted, i ^ 8 * (k / 4 % 4), so that it too is
 * written to shared memory without bank conflicts. Blocks go through C in bands of 8 tiles, so that
 * those that run at the same time share A and B in the L2 cache. The last strip ends exactly at k:
 * one more zero could turn -0 into 0. The low-rank part goes first, by the same code; its sums wait
 * in shared memory. Operands that are not aligned to 16 bytes, and A and B both transposed (which
 * no operation asks for), take the small tile, element by element.
 * Rejected: cp.async (it can neither transpose nor widen), splitting k (it would change bits). */
#include "ops/device/cuda_vec.h"
#include "ops/gemm/gemm_cuda.h"

/* What a thread holds of a tile: sum [r][c] is at row(thread, r), col(thread, c). */
struct large {
    static constexpr int TILE = 128, THREADS = 256, BLOCKS = 2, ROWS = 8, COLS = 8, WIDTH = 4;
    DEVICE int row(int t, int r) { return r / 4 * 64 + t / 64 * 16 + t % 32 / 8 * 4 + r % 4; }
    DEVICE int col(int t, int c) { return t / 32 % 2 * 64 + c / 4 * 32 + t % 8 * 4 + c % 4; }
};
struct small {
    static constexpr int TILE = 32, THREADS = 128, BLOCKS = 5, ROWS = 4, COLS = 2, WIDTH = 2;
    DEVICE int row(int t, int r) { return t / 16 * 4 + r; }
    DEVICE int col(int t, int c) { return t % 16 * 2 + c; }
};
static constexpr int DEPTH = 16, BAND = 8;

/* One operand from the tile's first row or column on: element (i, k), i a row of A or a column of
 * B, at [i * ld + k] (inner) or [k * ld + i]; `count` of them are left. */
struct side {
    const u8 *data;
    i64 ld, count;
    int k;
    bool inner;
};
template <bool is_bf16>
DEVICE side side_at(const void *data, i64 ld, i64 count, i64 k, bool inner, i64 first) {
    const side s = {(const u8 *)data + (inner ? first * ld : first) * (is_bf16 ? 2 : 4), ld,
                    count - first, (int)k, inner};
    return s;
}

/* Where (k, i) lies in shared memory. */
template <class S> DEVICE int place(int k, int i, bool inner) {
    return k * S::TILE + (inner ? i ^ (k / 4 % 4 * 8) : i);
}

/* A thread's part of a strip on its way from memory to shared memory, 16 bytes a piece. */
template <class S, bool is_bf16> struct strip {
    static constexpr int V = is_bf16 ? 8 : 4, SIZE = is_bf16 ? 2 : 4, PIECES = S::TILE * DEPTH / V,
                         EACH = (PIECES + S::THREADS - 1) / S::THREADS;
    uint4 hold[EACH];
    u32 offset[EACH]; /* in bytes; of a row past the edge, that of the first: its sums are not
                         stored */

    DEVICE bool mine(int n) {
        return PIECES % S::THREADS == 0 || (int)threadIdx.x + n * S::THREADS < PIECES;
    }
    DEVICE int piece_i(int n, bool inner) {
        const int v = (int)threadIdx.x + n * S::THREADS;
        return inner ? v / (DEPTH / V) : v % (S::TILE / V) * V;
    }
    DEVICE int piece_k(int n, bool inner) {
        const int v = (int)threadIdx.x + n * S::THREADS;
        return inner ? v % (DEPTH / V) * V : v / (S::TILE / V);
    }
    __device__ __forceinline__ void aim(const side &s) {
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            const u32 i = piece_i(n, s.inner) < s.count ? piece_i(n, s.inner) : 0,
                      k = piece_k(n, s.inner), ld = (u32)s.ld;
            offset[n] = (s.inner ? i * ld + k : k * ld + i) * SIZE;
        }
    }
    /* The strip that begins at k0. */
    __device__ __forceinline__ void fetch(const side &s, int k0) {
        const u8 *from = s.data + (s.inner ? (i64)k0 : k0 * s.ld) * SIZE;
        const int left = s.k - k0;
#pragma unroll
        for (int n = 0; n < EACH; n++)
            hold[n] = mine(n) && piece_k(n, s.inner) < left ? *(const uint4 *)(from + offset[n])
                                                            : make_uint4(0, 0, 0, 0);
    }
    /* The same for an operand that is not aligned. */
    __device__ __forceinline__ void gather(const side &s, int k0) {
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            const int i = piece_i(n, s.inner), k = k0 + piece_k(n, s.inner);
            const i64 at = s.inner ? i * s.ld + k : k * s.ld + i;
            u32 w[4] = {0, 0, 0, 0};
#pragma unroll
            for (int x = 0; x < V; x++)
                if (mine(n) && i + (s.inner ? 0 : x) < s.count && k + (s.inner ? x : 0) < s.k)
                    w[is_bf16 ? x / 2 : x] |= is_bf16
                                                  ? (u32)((const u16 *)s.data)[at + x] << x % 2 * 16
                                                  : ((const u32 *)s.data)[at + x];
            hold[n] = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
    template <bool wide> __device__ __forceinline__ void take(const side &s, int k0) {
        if (wide)
            fetch(s, k0);
        else
            gather(s, k0);
    }
    template <bool pairs> __device__ __forceinline__ void put(float *to, bool inner) const {
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            if (!mine(n)) continue;
            const int i = piece_i(n, inner), k = piece_k(n, inner), swap = pairs ? 1 : 0;
            const u32 w[4] = {hold[n].x, hold[n].y, hold[n].z, hold[n].w};
            float x[V];
#pragma unroll
            for (int v = 0; v < V; v++)
                x[v] = !is_bf16 ? of_bits(w[v])
                                : of_bits(v % 2 ? w[v / 2] & 0xffff0000u : w[v / 2] << 16);
            if (inner) {
#pragma unroll
                for (int v = 0; v < V; v++) to[place<S>((k + v) ^ swap, i, true)] = x[v];
            } else {
#pragma unroll
                for (int v = 0; v < V; v += 4)
                    *(float4 *)&to[place<S>(k ^ swap, i + v, false)] =
                        make_float4(x[v], x[v + 1], x[v + 2], x[v + 3]);
            }
        }
    }
};

template <class S>
DEVICE void multiply(float (&sum)[S::ROWS][S::COLS], const float *a, const float *b, int k,
                     bool a_inner, bool b_inner) {
    float x[S::ROWS], y[S::COLS];
#pragma unroll
    for (int r = 0; r < S::ROWS; r += 4) {
        const float4 v =
            *(const float4 *)&a[place<S>(k, S::row((int)threadIdx.x, 0), a_inner) + S::row(0, r)];
        x[r] = v.x, x[r + 1] = v.y, x[r + 2] = v.z, x[r + 3] = v.w;
    }
#pragma unroll
    for (int c = 0; c < S::COLS; c += S::WIDTH) {
        const float *from = &b[place<S>(k, S::col((int)threadIdx.x, 0), b_inner) + S::col(0, c)];
        if constexpr (S::WIDTH == 4) {
            const float4 v = *(const float4 *)from;
            y[c] = v.x, y[c + 1] = v.y, y[c + 2] = v.z, y[c + 3] = v.w;
        } else {
            const float2 v = *(const float2 *)from;
            y[c] = v.x, y[c + 1] = v.y;
        }
    }
#pragma unroll
    for (int r = 0; r < S::ROWS; r++)
#pragma unroll
        for (int c = 0; c < S::COLS; c++) sum[r][c] = v16_fma(x[r], y[c], sum[r][c]);
}

/* Continues the chains of a tile over all of k. `pairs`: k ^ 1 takes the place of k. */
template <class S, bool is_bf16, bool wide, bool pairs = is_bf16>
DEVICE void chain(float (&sum)[S::ROWS][S::COLS], float *shared, const side &a, const side &b) {
    constexpr int SIZE = S::TILE * DEPTH;
    strip<S, is_bf16> x, y;
    float *now = shared, *next = shared + 2 * SIZE;
    int at = 0;
    if (a.k <= 0) return;
    x.aim(a), y.aim(b);
    x.template take<wide>(a, 0), y.template take<wide>(b, 0);
    x.template put<pairs>(now, a.inner), y.template put<pairs>(now + SIZE, b.inner);
    __syncthreads();
    for (; at + DEPTH < a.k; at += DEPTH) {
        y.template take<wide>(b, at + DEPTH);
#pragma unroll(wide ? DEPTH / 2 : 1)
        for (int k = 0; k < DEPTH / 2; k++) multiply<S>(sum, now, now + SIZE, k, a.inner, b.inner);
        y.template put<pairs>(next + SIZE, b.inner);
        x.template take<wide>(a, at + DEPTH);
#pragma unroll(wide ? DEPTH / 2 : 1)
        for (int k = DEPTH / 2; k < DEPTH; k++)
            multiply<S>(sum, now, now + SIZE, k, a.inner, b.inner);
        x.template put<pairs>(next, a.inner);
        __syncthreads();
        float *const other = now;
        now = next, next = other;
    }
    const int left = is_bf16 ? (a.k - at + 1) / 2 * 2 : a.k - at;
#pragma unroll 1
    for (int k = 0; k < left; k++) multiply<S>(sum, now, now + SIZE, k, a.inner, b.inner);
    __syncthreads();
}

template <class S>
DEVICE void tile_begin(float (&sum)[S::ROWS][S::COLS], const struct gemm &g, i64 row, i64 col) {
#pragma unroll
    for (int r = 0; r < S::ROWS; r++)
#pragma unroll
        for (int c = 0; c < S::COLS; c++) {
            const i64 i = row + S::row((int)threadIdx.x, r), j = col + S::col((int)threadIdx.x, c);
            sum[r][c] = g.accumulate && i < g.m && j < g.n
                            ? get1(g.c, i * g.ldc + j, g.c_dtype == BF16)
                            : 0;
        }
}

/* WIDTH results in a row. */
template <class S> DEVICE void store(const struct gemm &g, i64 i, i64 j, const float *x) {
    const i64 at = i * g.ldc + j;
    const bool is_bf16 = g.c_dtype == BF16;
    if ((uintptr_t)g.c % 16 || g.ldc % 4 || j + S::WIDTH > g.n) {
#pragma unroll
        for (int c = 0; c < S::WIDTH; c++)
            if (j + c < g.n) put1(g.c, at + c, x[c], is_bf16);
    } else if (is_bf16) {
        u32 w[S::WIDTH / 2];
#pragma unroll
        for (int c = 0; c < S::WIDTH; c += 2)
            w[c / 2] = put_bf16(x[c]) | (u32)put_bf16(x[c + 1]) << 16;
        if constexpr (S::WIDTH == 4)
            *(uint2 *)((u16 *)g.c + at) = make_uint2(w[0], w[1]);
        else
            *(u32 *)((u16 *)g.c + at) = w[0];
    } else if constexpr (S::WIDTH == 4)
        *(float4 *)((float *)g.c + at) = make_float4(x[0], x[1], x[2], x[3]);
    else
        *(float2 *)((float *)g.c + at) = make_float2(x[0], x[1]);
}

/* Low-rank part, bias, rounding. */
template <class S>
DEVICE void tile_end(const float (&sum)[S::ROWS][S::COLS], const float *low, const struct gemm &g,
                     i64 row, i64 col) {
    int t = (int)threadIdx.x;
    asm volatile(
        ""
        : "+r"(t)); /* so that tile_begin's addresses are not kept in registers till here */
#pragma unroll
    for (int c = 0; c < S::COLS; c += S::WIDTH) {
        const i64 j = col + S::col(t, c);
        float bias[S::WIDTH];
#pragma unroll
        for (int n = 0; n < S::WIDTH; n++)
            bias[n] = g.bias && j + n < g.n ? get1(g.bias, j + n, g.dtype == BF16) : 0;
#pragma unroll
        for (int r = 0; r < S::ROWS; r++) {
            const i64 i = row + S::row(t, r);
            if (i >= g.m) continue;
            float x[S::WIDTH];
#pragma unroll
            for (int n = 0; n < S::WIDTH; n++) {
                x[n] = sum[r][c + n];
                if (g.t) x[n] = v16_fma(g.scale, low[(r * S::COLS + c + n) * S::THREADS], x[n]);
                if (g.bias) x[n] = v16_add(x[n], bias[n]);
            }
            store<S>(g, i, j, x);
        }
    }
}

/* Blocks at a time on a multiprocessor. Before sm_90 the compiler needs a few registers more for
 * one order of f32, and would spill. */
template <class S, bool is_bf16, bool a_inner, bool b_inner> constexpr int blocks_of() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
    if (S::TILE == 128 && !is_bf16 && a_inner && !b_inner) return 1;
#endif
    return S::BLOCKS;
}

/* a_inner, b_inner: how A and B are stored, if `wide`; else the product says so when it runs. */
template <class S, bool is_bf16, bool wide, bool a_inner, bool b_inner, bool pairs = is_bf16>
DEVICE void tile_whole(const struct gemm &g, float *shared, i64 row, i64 col) {
    float sum[S::ROWS][S::COLS] = {};
    float *const low = shared + 4 * S::TILE * DEPTH + threadIdx.x;
    if (g.t) {
        const i64 u_ld = g.u_t ? g.n : g.rank;
        chain<S, is_bf16, false>(sum, shared, side_at<is_bf16>(g.t, g.rank, g.m, g.rank, true, row),
                                 side_at<is_bf16>(g.u, u_ld, g.n, g.rank, !g.u_t, col));
#pragma unroll
        for (int n = 0; n < S::ROWS * S::COLS; n++)
            low[n * S::THREADS] = sum[n / S::COLS][n % S::COLS];
    }
    tile_begin<S>(sum, g, row, col);
    const bool a_in = wide ? a_inner : !g.a_t, b_in = wide ? b_inner : (bool)g.b_t;
    chain<S, is_bf16, wide, pairs>(sum, shared, side_at<is_bf16>(g.a, g.lda, g.m, g.k, a_in, row),
                                   side_at<is_bf16>(g.b, g.ldb, g.n, g.k, b_in, col));
    tile_end<S>(sum, low, g, row, col);
}
template <class S, bool is_bf16, bool wide, bool a_inner, bool b_inner>
__global__ void __launch_bounds__(S::THREADS, (blocks_of<S, is_bf16, a_inner, b_inner>()))
    tile_kernel(const __grid_constant__ struct gemm g) {
    DYNAMIC_SHARED(float, shared);
    const i64 row = (i64)(blockIdx.z * gridDim.x + blockIdx.x) * S::TILE,
              col = (i64)blockIdx.y * S::TILE;
    if (row < g.m) tile_whole<S, is_bf16, wide, a_inner, b_inner>(g, shared, row, col);
}

template <class S> static i64 shared_bytes(const struct gemm *g) {
    return (i64)sizeof(float) * (4 * S::TILE * DEPTH + (g->t ? S::ROWS * S::COLS * S::THREADS : 0));
}
template <class S, bool is_bf16, bool wide, bool a_inner, bool b_inner>
static int tile_run(const struct gemm *g, struct err *e) {
    const i64 tall = (g->m + S::TILE - 1) / S::TILE, across = (g->n + S::TILE - 1) / S::TILE;
    const i64 band = i64_min(BAND, tall);
    const dim3 grid((unsigned)band, (unsigned)across, (unsigned)((tall + band - 1) / band));
    return LAUNCH(e, (tile_kernel<S, is_bf16, wide, a_inner, b_inner>), grid, S::THREADS,
                  shared_bytes<S>(g), *g);
}

template <class S, bool is_bf16> static int orders_run(const struct gemm *g, struct err *e) {
    if (g->a_t) return tile_run<S, is_bf16, true, false, false>(g, e);
    if (g->b_t) return tile_run<S, is_bf16, true, true, true>(g, e);
    return tile_run<S, is_bf16, true, true, false>(g, e);
}

/* Cycles per k of the busiest multiprocessor, counted, not measured: a large tile is bound by its
 * multiply-adds, a small one by shared memory. */
static bool large_pays(i64 m, i64 n, i64 count) {
    const i64 sms = cuda_machine.sms, large_tiles = ((m + 127) / 128) * ((n + 127) / 128) * count,
              small_tiles = ((m + 31) / 32) * ((n + 31) / 32) * count;
    return (large_tiles + sms - 1) / sms * 128 <= i64_max(16, (small_tiles + sms - 1) / sms * 12);
}
static bool aligned(const void *p, i64 ld, bool is_bf16) {
    return (uintptr_t)p % 16 == 0 && ld % (is_bf16 ? 8 : 4) == 0 && ld < 1 << 23; /* strip.offset */
}

static int gemm_own(const struct gemm *g, struct err *e) {
    const bool is_bf16 = g->dtype == BF16;
    if (gemm_rows_fit(g)) return gemm_rows(g, e);
    if (!aligned(g->a, g->lda, is_bf16) || !aligned(g->b, g->ldb, is_bf16) || (g->a_t && g->b_t))
        return is_bf16 ? tile_run<small, true, false, false, false>(g, e)
                       : tile_run<small, false, false, false, false>(g, e);
    if (large_pays(g->m, g->n, 1))
        return is_bf16 ? orders_run<large, true>(g, e) : orders_run<large, false>(g, e);
    return is_bf16 ? orders_run<small, true>(g, e) : orders_run<small, false>(g, e);
}

/* C, f32, plus a bias, which the library does not have for every pair of types. Its sum is whole in
 * C and is rounded again with the bias, as tile_end does. */
__global__ void bias_kernel(const __grid_constant__ struct gemm g) {
    const i64 step = (i64)gridDim.x * blockDim.x, count = g.m * g.n;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        float *c = (float *)g.c + i / g.n * g.ldc + i % g.n;
        *c = v16_add(*c, get1(g.bias, i % g.n, g.dtype == BF16));
    }
}
static int lt_biased(const struct gemm *g, struct err *e) {
    struct gemm plain = *g;
    const int rc = lt_run(g, e);
    plain.bias = NULL;
    if (rc <= 0 || !g->bias || g->c_dtype != F32) return rc;
    const int again = lt_run(&plain, e);
    return again ? again : LAUNCH(e, bias_kernel, grid_for(g->m * g->n, 256), 256, 0, *g);
}

int gemm_cuda(const struct gemm *g, struct err *e) {
    if (g->m <= 0 || g->n <= 0) return 0;
    if (numerics_now == NUMERICS_PORTABLE || !lt_ready()) return gemm_own(g, e);
    struct gemm low = *g, base = *g; /* the smaller terms first: their rounding weighs less */
    low.k = 0, low.bias = NULL;
    base.t = base.u = NULL, base.rank = 0, base.accumulate = g->accumulate || g->t;
    int rc = g->t ? lt_run(&low, e) : 0;
    if (rc > 0) rc = gemm_own(&low, e);
    if (!rc) rc = lt_biased(&base, e);
    return rc > 0 ? gemm_own(&base, e) : rc;
}

/* ---- many products at once (gemm_cuda.h, struct gemm_groups) ----
 * Only the device knows how many rows a group has, so the grid has room for the worst case and
 * blocks find their group, or that there is nothing to do: walking the offsets costs a few
 * microseconds at 384 groups, from cache. */
template <class S, bool is_bf16, bool wide, bool a_inner, bool b_inner, bool deep>
__global__ void __launch_bounds__(S::THREADS, S::TILE == 128 ? 1 : 4)
    group_kernel(const __grid_constant__ struct gemm all,
                 const __grid_constant__ struct gemm_groups s) {
    DYNAMIC_SHARED(float, shared);
    constexpr int size = is_bf16 ? 2 : 4;
    struct gemm g = all;
    i64 tile = blockIdx.x, group = deep ? blockIdx.z : 0;
    for (; !deep && group < s.count; group++) {
        const i64 tiles = (s.offset[group + 1] - s.offset[group] + S::TILE - 1) / S::TILE;
        if (tile < tiles) break;
        tile -= tiles;
    }
    if (group == s.count) return;
    const i64 first = s.offset[group], rows = s.offset[group + 1] - first;
    g.a = (const u8 *)all.a + first * all.lda * size;
    g.b = (const u8 *)all.b + (deep ? first * all.ldb : group * s.b_step) * size;
    g.c = (u8 *)all.c + (deep ? group * all.m * all.n * 4 : first * all.ldc * size);
    if (all.t) {
        g.t = (const u8 *)all.t + first * all.rank * size;
        g.u = (const u8 *)all.u + group * all.rank * all.n * size;
    }
    if (all.bias) g.bias = (const u8 *)all.bias + group * all.n * size;
    if (deep)
        g.k = rows;
    else
        g.m = rows;
    if (rows)
        tile_whole<S, is_bf16, wide, a_inner, b_inner, is_bf16 && !deep>(g, shared, tile * S::TILE,
                                                                         (i64)blockIdx.y * S::TILE);
}
template <class S, bool is_bf16, bool wide, bool a_inner, bool b_inner, bool deep>
static int group_run(const struct gemm *g, const struct gemm_groups *s, struct err *e) {
    const i64 tall = (g->m + S::TILE - 1) / S::TILE + (deep ? 0 : s->count);
    const dim3 grid((unsigned)tall, (unsigned)((g->n + S::TILE - 1) / S::TILE),
                    (unsigned)(deep ? s->count : 1));
    return LAUNCH(e, (group_kernel<S, is_bf16, wide, a_inner, b_inner, deep>), grid, S::THREADS,
                  shared_bytes<S>(g), *g, *s);
}
template <class S, bool is_bf16, bool wide>
static int group_orders(const struct gemm *g, const struct gemm_groups *s, struct err *e) {
    if (g->a_t) return group_run<S, is_bf16, wide, false, false, true>(g, s, e);
    if (g->b_t) return group_run<S, is_bf16, wide, true, true, false>(g, s, e);
    return group_run<S, is_bf16, wide, true, false, false>(g, s, e);
}
template <bool is_bf16>
static int group_sizes(const struct gemm *g, const struct gemm_groups *s, struct err *e) {
    const i64 rows = g->a_t ? g->m : (g->m + s->count - 1) / s->count;
    if (!aligned(g->a, g->lda, is_bf16) || !aligned(g->b, g->ldb, is_bf16))
        return group_orders<small, is_bf16, false>(g, s, e);
    return large_pays(rows, g->n, s->count) ? group_orders<large, is_bf16, true>(g, s, e)
                                            : group_orders<small, is_bf16, true>(g, s, e);
}
int gemm_groups_cuda(const struct gemm *g, const struct gemm_groups *s, struct err *e) {
    if (g->m <= 0 || g->n <= 0 || s->count <= 0) return 0;
    return g->dtype == BF16 ? group_sizes<true>(g, s, e) : group_sizes<false>(g, s, e);
}
