/* attention_back_cuda.cu: the gradients of attention. What attention_cuda.cu says of `portable`
 * and `fast` holds here; this is `fast`. Definition: attention.c; P and dS are rounded to bf16, dS
 * before its scale.
 *
 * Two kernels, 7 products. keys_mma_kernel: a block has 64 keys and walks over the heads of the
 * group and their queries; it forms S^T and dP^T, whose accumulators are, in place, the left
 * operands of dV += P^T·dO and dK += dS^T·Q, so that P and dS never leave registers.
 * queries_mma_kernel: a block has 64 * M queries and walks over blocks of 32 keys for dQ += dS·K.
 * With one pass (5 products) dQ would be added to by all blocks of keys: by atomics in no fixed
 * order, or through one partial dQ for each block of keys in memory, whose traffic costs more than
 * two products. Heads wider than 128 are cut by blockIdx.z in keys_mma_kernel, for its accumulators
 * to fit. A first kernel leaves, for each query, what the others want by asynchronous copies: lse,
 * delta, and the first key it sees. Begin does not fall from query to query (training form), so the
 * first and last row of a tile say what all see. Layout and wgmma: attention_mma.h,
 * attention_cuda.cu. */
#include "ops/attention/attention_mma.h"

struct backward : device_attention {
    float scale2, z; /* of a score in the exponent of 2; of dS */
    i64 padded;      /* queries, in whole tiles of 64 */
    float2 *facts;   /* [heads][padded]: lse in powers of 2, delta */
    i32 *low;        /* [padded]: the first key seen; past all keys where there is no query */
};

__global__ void facts_kernel(const __grid_constant__ struct backward t) {
    const i64 i = (i64)blockIdx.x * 16 + threadIdx.x / 16, head = blockIdx.y;
    float sum = 0;
    for (int d = threadIdx.x % 16 * 8; d < t.value_dim && i < t.queries; d += 128) {
        float x[8], y[8];
        vec_load<true>(x, t.dout, i * t.o_row + head * t.value_dim + d);
        vec_load<true>(y, t.o, i * t.o_row + head * t.value_dim + d);
#pragma unroll
        for (int n = 0; n < 8; n++) sum = v16_fma(x[n], y[n], sum);
    }
    sum = lanes_sum(sum);
    if (threadIdx.x % 16) return;
    const float lse = i < t.queries ? v16_mul(t.lse[head * t.queries + i], LOG2_E) : 0;
    t.facts[head * t.padded + i] = make_float2(lse, sum);
    if (head) return;
    t.low[i] = 0x7fffffff;
    if (i >= t.queries) return;
    const key_range seen = keys_trained(t, i, true);
    if (seen.low < seen.high) t.low[i] = (i32)seen.begin + seen.low;
}

/* A score and dp become p and ds / scale. */
template <bool Capped>
DEVICE void gradient(float &s, float &d, float2 facts, const struct backward &t) {
    float slope = 1;
    if (Capped) {
        const float h = tanh_fast(v16_mul(s, v16_mul(t.raw_scale, t.cap_inverse)));
        s = v16_mul(h, t.cap), slope = v16_fma(-h, h, 1);
    }
    s = exp2f_approx(v16_fma(s, t.scale2, -facts.x));
    d = v16_mul(s, v16_sub(d, facts.y));
    if (Capped) d = v16_mul(d, slope);
}

/* ---- dk and dv ---- */

template <int D, int Queries> struct keys_tiles { /* in shared memory */
    u16 k[64 * D], v[64 * D];
    struct {
        u16 q[Queries * D], dout[Queries * D];
        float2 facts[Queries];
        i32 low[Queries];
        float slope[4]; /* of the head, / scale; the rest is room for the next stage's alignment */
    } stage[2];
};

template <int D, int Queries>
DEVICE void queries_load(struct keys_tiles<D, Queries> *x, int stage, const struct backward &t,
                         i64 query, i64 head) {
    auto &to = x->stage[stage];
    const int rows = t.queries - query < Queries ? (int)(t.queries - query) : Queries,
              piece = threadIdx.x;
    tile_load<D, Queries>(to.q, (const u16 *)t.q + query * t.q_row + head * t.head_dim, t.q_row, 1,
                          rows, t.head_dim);
    tile_load<D, Queries>(to.dout, (const u16 *)t.dout + query * t.o_row + head * t.value_dim,
                          t.o_row, 1, rows, t.value_dim);
    if (piece == 0 && t.slopes) to.slope[0] = v16_div(t.slopes[head], t.raw_scale);
    if (piece < Queries / 2)
        copy_async16(to.facts + 2 * piece, t.facts + head * t.padded + query + 2 * piece, true);
    else if (piece < Queries * 3 / 4)
        copy_async16(to.low + 4 * (piece - Queries / 2), t.low + query + 4 * (piece - Queries / 2),
                     true);
    copy_async_commit();
}

/* The first query after `query` that sees none of the keys up to `last`. */
DEVICE i64 queries_past(const struct backward &t, i64 query, i64 last) {
    i64 low = query, high = t.queries;
    if (t.window && last + t.window < high) high = last + t.window;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (t.begin[middle] > last)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The bias of ALiBi; rows are keys, columns queries. */
template <int Queries>
DEVICE void keys_bias(float s[Queries / 8][4], float slope, int key, int query) {
    /* A float, exact to 2^24: as an int it is one register too many. */
    const float ahead = (float)(key - query + lane_now() / 4 - lane_now() % 4 * 2);
#pragma unroll
    for (int n = 0; n < Queries / 2; n++)
        s[n / 4][n % 4] = v16_fma(slope, v16_add(ahead, (float)(n % 4 / 2 * 8 - n / 4 * 8 - n % 2)),
                                  s[n / 4][n % 4]);
}
/* S^T and dP^T of 16 keys from `key` on and the queries from `query` on become p and ds. */
template <int Queries, bool Capped>
DEVICE void keys_gradient(float s[Queries / 8][4], float d[Queries / 8][4], const float2 *facts,
                          const struct backward &t) {
#pragma unroll
    for (int n = 0; n < Queries / 8; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const float2 f = facts[n * 8 + lane_now() % 4 * 2 + e];
            gradient<Capped>(s[n][e], d[n][e], f, t);
            gradient<Capped>(s[n][2 + e], d[n][2 + e], f, t);
        }
}
template <int Queries>
DEVICE void keys_mask(float s[Queries / 8][4], float d[Queries / 8][4], const i32 *low, i64 key,
                      i64 query) {
    if (low[Queries - 1] <= key && query >= key + 15) return;
    const int own = (int)key + lane_now() / 4, ahead = (int)(key - query) + lane_now() / 4;
#pragma unroll
    for (int n = 0; n < Queries / 2; n++) {
        const int c = n / 4 * 8 + lane_now() % 4 * 2 + n % 2, h = n % 4 / 2;
        if ((ahead + 8 * h > c) | (own + 8 * h < low[c])) s[n / 4][n % 4] = d[n / 4][n % 4] = 0;
    }
}

/* What the key kernel counts queries and heads in: whichever leaves the compiler without spills. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
typedef int place;
#else
typedef i64 place;
#endif

/* Grid: key tiles, kv heads, columns of dk by Part. */
template <int D, int Queries, int Part>
__global__ void __launch_bounds__(MMA_THREADS)
    keys_mma_kernel(const __grid_constant__ struct backward t) {
    typedef struct keys_tiles<D, Queries> tiles;
    DYNAMIC_SHARED(tiles, x);
    const int warp = threadIdx.x / 32;
    const i64 first = (i64)blockIdx.x * 64, key = first + warp * 16; /* the warp's first */
    const int rows = t.keys - first < 64 ? (int)(t.keys - first) : 64;
    tile_load<D, 64>(x->k, (const u16 *)t.k + first * t.k_row + blockIdx.y * t.head_dim, t.k_row, 1,
                     rows, t.head_dim);
    tile_load<D, 64>(x->v, (const u16 *)t.v + first * t.v_row + blockIdx.y * t.value_dim, t.v_row,
                     1, rows, t.value_dim);
    const int past = (int)queries_past(t, first, first + rows - 1),
              head_past = (int)((blockIdx.y + 1) * t.group);
    float dk[1][Part / 8][4] = {}, dv[1][Part / 8][4] = {};
    place query = (place)first, head = (place)(blockIdx.y * t.group);
    queries_load<D, Queries>(x, 0, t, query, head);
    for (int stage = 0; head < head_past; stage ^= 1) {
        const place now = query;
        copy_async_wait<0>();
        __syncthreads();
        query += Queries;
        if (query >= past) query = (place)first, head++;
        if (head < head_past) queries_load<D, Queries>(x, stage ^ 1, t, query, head);
        auto &y = x->stage[stage];
        if (now + Queries <= key || y.low[0] > key + 15) continue;
        float s[1][Queries / 8][4] = {}, d[1][Queries / 8][4] = {};
        scores_mma<D, 1, Queries, 64, Queries>(s, x->k, warp * 16, y.q, 0);
        scores_mma<D, 1, Queries, 64, Queries>(d, x->v, warp * 16, y.dout, 0);
        if (t.slopes) keys_bias<Queries>(s[0], y.slope[0], (int)key, (int)now);
        if (t.cap > 0)
            keys_gradient<Queries, true>(s[0], d[0], y.facts, t);
        else
            keys_gradient<Queries, false>(s[0], d[0], y.facts, t);
        keys_mask<Queries>(s[0], d[0], y.low, key, now);
        u32 p[1][Queries / 16][4], ds[1][Queries / 16][4];
#pragma unroll
        for (int k = 0; k < Queries / 16; k++)
            operand_of(p[0][k], s[0][2 * k], s[0][2 * k + 1]),
                operand_of(ds[0][k], d[0][2 * k], d[0][2 * k + 1]);
        rows_mma<Part, 1, Queries, Queries>(dv, p, y.dout, 0, blockIdx.z * (Part / 16));
        rows_mma<Part, 1, Queries, Queries>(dk, ds, y.q, 0, blockIdx.z * (Part / 16));
    }
    const i64 column = blockIdx.z * Part;
    const float z[2] = {t.z, t.z}, one[2] = {1, 1};
    if (t.dk)
        tile_store<Part, 64>((u16 *)t.dk + first * t.k_row + blockIdx.y * t.head_dim + column,
                             t.k_row, 1, x->k, warp * 16, dk[0], z, rows,
                             (int)(t.head_dim - column));
    if (t.dv)
        tile_store<Part, 64>((u16 *)t.dv + first * t.v_row + blockIdx.y * t.value_dim + column,
                             t.v_row, 1, x->v, warp * 16, dv[0], one, rows,
                             (int)(t.value_dim - column));
}

/* ---- dq ---- */

template <int D, int M> struct queries_tiles {
    u16 q[64 * M * D], dout[64 * M * D];
    u16 k[2][32 * D], v[2][32 * D];
};

/* S and dP of the thread's rows and 32 keys become ds. */
template <int M, bool Capped>
DEVICE void queries_gradient(float s[M][4][4], float d[M][4][4], const float2 facts[M][2],
                             const struct backward &t) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < 16; n++)
            gradient<Capped>(s[m][n / 4][n % 4], d[m][n / 4][n % 4], facts[m][n % 4 / 2], t);
}
/* `query`: of the thread's first row */
template <int M> DEVICE void queries_bias(float s[M][4][4], float slope, int key, int query) {
    const int ahead = key - query + lane_now() % 4 * 2;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < 16; n++)
            s[m][n / 4][n % 4] =
                v16_fma(slope, (float)(ahead + n / 4 * 8 + n % 2 - 64 * m - n % 4 / 2 * 8),
                        s[m][n / 4][n % 4]);
}
template <int M>
DEVICE void queries_mask(float d[M][4][4], const int low[M][2], int key, int query) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < 16; n++) {
            const int h = n % 4 / 2, at = key + n / 4 * 8 + lane_now() % 4 * 2 + n % 2;
            if ((at < low[m][h]) | (at > query + 64 * m + 8 * h)) d[m][n / 4][n % 4] = 0;
        }
}

/* Grid: tiles of 64 * M queries, the last first; heads. */
template <int D, int M>
__global__ void __launch_bounds__(MMA_THREADS)
    queries_mma_kernel(const __grid_constant__ struct backward t) {
    typedef struct queries_tiles<D, M> tiles;
    DYNAMIC_SHARED(tiles, x);
    const int warp = threadIdx.x / 32;
    const i64 first = (i64)(gridDim.x - 1 - blockIdx.x) * (64 * M), head = blockIdx.y,
              at = first * t.q_row + head * t.head_dim, kv_head = head / t.group;
    const int rows = t.queries - first < 64 * M ? (int)(t.queries - first) : 64 * M;
    tile_load<D, 64 * M>(x->q, (const u16 *)t.q + at, t.q_row, 1, rows, t.head_dim);
    tile_load<D, 64 * M>(x->dout, (const u16 *)t.dout + first * t.o_row + head * t.value_dim,
                         t.o_row, 1, rows, t.value_dim);
    copy_async_commit();
    const auto load = [&](int key, int stage) {
        const int count = first + rows - key < 32 ? (int)(first + rows - key) : 32;
        tile_load<D, 32>(x->k[stage], (const u16 *)t.k + key * t.k_row + kv_head * t.head_dim,
                         t.k_row, 1, count, t.head_dim);
        tile_load<D, 32>(x->v[stage], (const u16 *)t.v + key * t.v_row + kv_head * t.value_dim,
                         t.v_row, 1, count, t.value_dim);
        copy_async_commit();
    };
    const i64 own = first + warp * 16 + lane_now() / 4; /* the thread's first row */
    float2 facts[M][2];
    int low[M][2];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const i64 i = own + 64 * m + 8 * h;
            facts[m][h] = make_float2(0, 0), low[m][h] = 0x7fffffff;
            if (i < t.queries) facts[m][h] = t.facts[head * t.padded + i], low[m][h] = t.low[i];
        }
    const i64 top = first + warp * 16, bottom = top + 64 * (M - 1) + 15;
    const int see_low = top < t.queries ? t.low[top] : 0x7fffffff,
              whole_low = bottom < t.queries ? t.low[bottom] : 0x7fffffff;
    float dq[M][D / 8][4] = {};
    int key = t.low[first];
    if (key < first + rows) load(key, 0);
    for (int stage = 0; key < first + rows; key += 32, stage ^= 1) {
        copy_async_wait<0>();
        __syncthreads();
        if (key + 32 < first + rows) load(key + 32, stage ^ 1);
        if (key + 32 <= see_low || key > bottom) continue;
        float s[M][4][4] = {}, d[M][4][4] = {};
        scores_mma<D, M, 32, 64 * M, 32>(s, x->q, warp * 16, x->k[stage], 0);
        scores_mma<D, M, 32, 64 * M, 32>(d, x->dout, warp * 16, x->v[stage], 0);
        if (t.slopes) queries_bias<M>(s, v16_div(t.slopes[head], t.raw_scale), key, (int)own);
        if (t.cap > 0)
            queries_gradient<M, true>(s, d, facts, t);
        else
            queries_gradient<M, false>(s, d, facts, t);
        if (key < whole_low || key + 31 > top) queries_mask<M>(d, low, key, (int)own);
        u32 ds[M][2][4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int k = 0; k < 2; k++) operand_of(ds[m][k], d[m][2 * k], d[m][2 * k + 1]);
        rows_mma<D, M, 32, 32>(dq, ds, x->k[stage], 0, 0);
    }
    copy_async_wait<0>();
    __syncthreads();
    const float z[2] = {t.z, t.z};
    if (!t.dq) return;
#pragma unroll
    for (int m = 0; m < M; m++)
        tile_store<D, 64 * M>((u16 *)t.dq + at, t.q_row, 1, x->q, 64 * m + warp * 16, dq[m], z,
                              rows, t.head_dim);
}

template <int D, int Queries, int Part, int M>
static int flash_back_run(const struct backward *t, struct err *e) {
    const dim3 facts((unsigned)(t->padded / 16), (unsigned)t->heads),
        keys((unsigned)(t->padded / 64), (unsigned)t->kv_heads, D / Part),
        queries((unsigned)((t->queries + 64 * M - 1) / (64 * M)), (unsigned)t->heads);
    const int keys_bytes = sizeof(struct keys_tiles<D, Queries>),
              queries_bytes = sizeof(struct queries_tiles<D, M>);
    if (LAUNCH(e, facts_kernel, facts, 256, 0, *t) != 0 ||
        LAUNCH(e, (keys_mma_kernel<D, Queries, Part>), keys, MMA_THREADS, keys_bytes, *t) != 0)
        return -1;
    return LAUNCH(e, (queries_mma_kernel<D, M>), queries, MMA_THREADS, queries_bytes, *t);
}

CUDA_KERNEL(attention_back) {
    struct backward t = {};
    (device_attention &)t = device_back_of(c);
    if (!attention_on_tensor_cores(&t) || !tensor_cores_fit(t))
        return attention_delta(&t, e) || attention_back_portable(&t, e) ? -1 : 0;
    t.scale2 = (float)((t.cap > 0 ? 1 : t.attr->scale) * 1.4426950408889634), t.z = t.raw_scale;
    t.padded = round_up(t.queries, 64);
    t.facts = (float2 *)c->scratch, t.low = (i32 *)(t.facts + t.heads * t.padded);
    return widest(t) <= 64    ? flash_back_run<64, 64, 64, 2>(&t, e)
           : widest(t) <= 128 ? flash_back_run<128, 64, 128, 2>(&t, e)
                              : flash_back_run<256, 32, 128, 1>(&t, e);
}
