/* attention_portable_cuda.cu: attention with the bits of the CPU, any head size. Definition:
 * attention.c.
 *
 * Plain fused multiply-adds in registers, no tensor cores (their order of sums is not written
 * down). A block of 16 x 16 threads has 64 rows x 64 columns of scores, 4 x 4 a thread; the column
 * of lane l is l, l + 16, l + 32, l + 48, so that the row sum's 16 lanes are 16 neighbouring
 * threads. Operands come to shared memory as f32, 32 of the head's elements at a time, transposed
 * and with the pairs of bf16 swapped, so that the chain of both dtypes is one ascending loop; per
 * step a thread reads 2 x 16 bytes for 16 fused multiply-adds, without bank conflicts. The second
 * product (P·V and the like) has 64 rows x 128 columns, 4 x 8 a thread; wider heads go by
 * blockIdx.z, which repeats the scores: registers and shared memory do not grow with the head.
 *
 * Keys (backward: queries) are counted from begin, so rows of different documents have different
 * blocks: a block walks over the runs of equal begin among its rows, the others idle (warps
 * of them skip). Decoding takes one query a block: as many blocks as there are sequences.
 *
 * Backward is two kernels, keys outer for dK and dV, queries outer for dQ (7 products): with 5, dQ
 * would be added to by many blocks, in an order that only a chain of waiting blocks could fix.
 * Rejected: the score matrix in memory; a thread per row (too little reuse). */
#include "ops/attention/attention_cuda.h"

#include <float.h>
#include <math.h>

enum {
    TILE = 64,  /* rows and columns of scores; KEY_BLOCK */
    DEPTH = 32, /* elements of the head in shared memory at a time */
    WIDE = 128, /* columns of the second product */
    PAD = 68,   /* floats from one column of probabilities to the next */
    THREADS = 256
};
static_assert((int)TILE == (int)KEY_BLOCK, "the row sum of a key block is one step");

/* Eight elements from i on, of which `left` are there, zeros elsewhere; wide: in whole vectors. */
template <bool is_bf16>
DEVICE void eight_load(float x[8], const void *from, i64 i, i64 left, bool wide) {
#pragma unroll
    for (int k = 0; k < 8; k++) x[k] = 0;
    if (wide && left > 0) {
        vec_load<is_bf16>(x, from, i);
        if (!is_bf16) vec_load<is_bf16>(x + 4, from, i + 4);
    } else {
        for (int k = 0; k < 8; k++)
            if (k < left) x[k] = get1(from, i + k, is_bf16);
    }
}

/* to[32][64]: elements d0.. of `rows` rows of 64, zeros elsewhere, in the order of the chain.
 * `spread`: row n stands at n % 16 * 4 + n / 16, so that a thread's four are neighbours. */
template <bool is_bf16>
DEVICE void columns_load(float *to, const void *from, i64 row, i64 at, int rows, int d0, i64 dim,
                         bool wide, bool spread) {
    const int place = threadIdx.x % TILE, d = d0 + threadIdx.x / TILE * 8,
              n = spread ? place / 4 + place % 4 * 16 : place;
    float x[8];
    eight_load<is_bf16>(x, from, at + n * row + d, n < rows ? dim - d : 0, wide);
    to += (d - d0) * TILE + place;
#pragma unroll
    for (int k = 0; k < 8; k++) to[(is_bf16 ? k ^ 1 : k) * TILE] = x[k];
}

/* to[64][128]: `rows` rows from element `column` on, zeros elsewhere. */
template <bool is_bf16>
DEVICE void rows_load(float *to, const void *from, i64 row, i64 at, int rows, int column, i64 dim,
                      bool wide) {
    const int d = column + threadIdx.x % 16 * 8;
    for (int n = threadIdx.x / 16; n < TILE; n += 16) {
        float x[8];
        eight_load<is_bf16>(x, from, at + n * row + d, n < rows ? dim - d : 0, wide);
        float *out = to + n * WIDE + threadIdx.x % 16 * 8;
        vec_store<false>(out, 0, x), vec_store<false>(out, 4, x + 4);
    }
}

DEVICE int column_of(int j) { return threadIdx.x % 16 + 16 * j; } /* of the scores */
DEVICE int row_of(int i) { return threadIdx.x / 16 * 4 + i; }

/* s += A^T·B over `depth` elements */
DEVICE void scores_add(float s[4][4], const float *a, const float *b, int depth) {
    a += row_of(0), b += threadIdx.x % 16 * 4;
#pragma unroll 8
    for (int k = 0; k < depth; k++) {
        float x[4], y[4];
        vec_load<false>(x, a, k * TILE), vec_load<false>(y, b, k * TILE);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) s[i][j] = v16_fma(x[i], y[j], s[i][j]);
    }
}

/* o += P·R over n columns of P: p[n][PAD], r[n][WIDE]; pairs of bf16 odd first */
template <bool is_bf16> DEVICE void rows_add(float o[4][8], const float *p, const float *r, int n) {
    p += row_of(0), r += threadIdx.x % 16 * 4;
#pragma unroll 4
    for (int k = 0; k < (is_bf16 ? n + n % 2 : n); k++) {
        const int at = is_bf16 ? k ^ 1 : k;
        float x[4], y[8];
        vec_load<false>(x, p, at * PAD);
        vec_load<false>(y, r, at * WIDE), vec_load<false>(y + 4, r, at * WIDE + TILE);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 8; j++) o[i][j] = v16_fma(x[i], y[j], o[i][j]);
    }
}

/* Column `column` of P or dS, the thread's four rows; rounded in bf16. */
template <bool is_bf16> DEVICE void probability_put(float *p, int column, const float x[4]) {
    float y[4];
#pragma unroll
    for (int i = 0; i < 4; i++) y[i] = is_bf16 ? get_bf16(put_bf16(x[i])) : x[i];
    vec_store<false>(p, column * PAD + row_of(0), y);
}

/* The thread's part of a result of 64 x 128; z: what divides each row, or NULL */
template <bool is_bf16>
DEVICE void result_put(void *to, i64 row, i64 at, int rows, i64 dim, const float o[4][8],
                       const float z[4]) {
    if (!to) return; /* a gradient that is not wanted */
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const i64 d = (i64)blockIdx.z * WIDE + j / 4 * TILE + threadIdx.x % 16 * 4 + j % 4;
            if (row_of(i) < rows && d < dim)
                put1(to, at + row_of(i) * row + d,
                     z ? v16_div(v16_add(o[i][j], 0), z[i]) : v16_add(o[i][j], 0), is_bf16);
        }
}

DEVICE float softcap(float s, const device_attention &t, float *slope) {
    const float h = v16_tanh(v16_mul(v16_mul(s, t.raw_scale), t.cap_inverse));
    *slope = v16_fma(v16_sub(0, h), h, 1);
    return v16_mul(h, t.cap);
}

/* ALiBi: `place` of the key from begin, `last` that of the query. */
DEVICE float slope_now(const device_attention &t, i64 head) {
    return t.alibi_bf16 ? get_bf16(put_bf16(t.slopes[head])) : v16_div(t.slopes[head], t.scale);
}
DEVICE float biased(float s, float slope, int place, int last, const device_attention &t) {
    if (!t.alibi_bf16) return v16_fma(slope, (float)(place - last), s);
    return v16_add(s, get_bf16(put_bf16(v16_mul(slope, get_bf16(put_bf16((float)place))))));
}

/* ---- the rows of a block: what they see, and their runs of equal begin ---- */

struct tile_rows {
    i64 *begin;
    int *low, *high; /* counted from begin */
    int count;
};
DEVICE void tile_rows_load(const struct tile_rows &r, const device_attention &t, i64 first,
                           bool training, bool report) {
    if ((int)threadIdx.x < r.count) {
        const i64 i = first + threadIdx.x;
        const key_range seen =
            training ? keys_trained(t, i, report) : keys_seen(t, i, t.pages != NULL, report);
        r.begin[threadIdx.x] = seen.begin, r.low[threadIdx.x] = seen.low,
        r.high[threadIdx.x] = seen.high;
    }
    __syncthreads();
}
struct run {
    int first, end, low, high; /* rows; the keys that any of them sees */
    bool busy;                 /* does this warp have rows of it? */
};
DEVICE struct run run_at(const struct tile_rows &r, int first) {
    struct run x = {first, first, r.low[first], r.high[first], false};
    for (; x.end < r.count && r.begin[x.end] == r.begin[first]; x.end++) {
        if (r.low[x.end] < x.low) x.low = r.low[x.end];
        if (r.high[x.end] > x.high) x.high = r.high[x.end];
    }
    const int warp = threadIdx.x / 32 * 8;
    x.busy = warp < x.end && warp + 8 > first;
    return x;
}
DEVICE void own_rows(const struct tile_rows &r, const struct run &x, int low[4], int high[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const bool own = row_of(i) >= x.first && row_of(i) < x.end;
        low[i] = own ? r.low[row_of(i)] : 0, high[i] = own ? r.high[row_of(i)] : 0;
    }
}

/* ---- forward ---- */

struct softmax_rows { /* the thread's four rows, the same in 16 neighbours */
    float o[4][8], top[4], sum[4];
};

/* Scores of the keys `at`.. of the run become probabilities in p. */
template <bool is_bf16>
DEVICE void online_softmax(struct softmax_rows *x, float s[4][4], float *p, const int low[4],
                           const int high[4], int at, float slope, const device_attention &t) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float top = -INFINITY, unused;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int key = at + column_of(j);
            if (t.slopes && t.alibi_bf16) s[i][j] = biased(s[i][j], slope, key, 0, t);
            if (t.cap > 0) s[i][j] = softcap(s[i][j], t, &unused);
            if (t.slopes && !t.alibi_bf16) s[i][j] = biased(s[i][j], slope, key, high[i] - 1, t);
            s[i][j] = v16_select(key >= low[i] && key < high[i], s[i][j], -INFINITY);
            top = v16_max(top, s[i][j]);
        }
#pragma unroll
        for (int step = 8; step; step /= 2)
            top = v16_max(top, __shfl_xor_sync(0xffffffffu, top, step, 16));
        top = v16_max(x->top[i], v16_mul(top, t.scale));
        const float alpha = v16_exp(v16_sub(x->top[i], top));
        float sum = 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            s[i][j] = v16_exp(v16_fma(s[i][j], t.scale, -top));
            sum = v16_add(sum, s[i][j]);
        }
        x->sum[i] = v16_fma(x->sum[i], alpha, lanes_sum(sum)), x->top[i] = top;
#pragma unroll
        for (int j = 0; j < 8; j++) x->o[i][j] = v16_mul(x->o[i][j], alpha);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float column[4] = {s[0][j], s[1][j], s[2][j], s[3][j]};
        probability_put<is_bf16>(p, column_of(j), column);
    }
}

enum { FORWARD_SHARED = (TILE * PAD + TILE * WIDE) * 4 };

/* Grid: tiles of `step` queries, heads, columns of o. Shared memory: Q and K, later P in their
 * place; then V. */
template <bool is_bf16>
__global__ void __launch_bounds__(THREADS, 2)
    forward_kernel(const __grid_constant__ device_attention t, int step) {
    DYNAMIC_SHARED(float, memory);
    SHARED(i64, begin, TILE);
    SHARED(int, limits, 2 * TILE);
    float *const columns = memory + DEPTH * TILE, *const v = memory + TILE * PAD;
    const i64 first = (i64)blockIdx.x * step, head = blockIdx.y, kv_head = head / t.group;
    const int depth = is_bf16 ? (t.head_dim + 1) / 2 * 2 : t.head_dim;
    const struct tile_rows rows = {begin, limits, limits + TILE,
                                   t.queries - first < step ? (int)(t.queries - first) : step};
    tile_rows_load(rows, t, first, false, !head && !blockIdx.z);
    const float start = t.sink ? sink_start(t, head) : -FLT_MAX, one = t.sink ? 1 : 0,
                slope = t.slopes ? slope_now(t, head) : 0;
    struct softmax_rows x = {{}, {start, start, start, start}, {one, one, one, one}};
    for (int a = 0, end; a < rows.count; a = end) {
        const struct run run = run_at(rows, a);
        end = run.end;
        int low[4], high[4];
        own_rows(rows, run, low, high);
        for (int at = run.low / TILE * TILE; at < run.high; at += TILE) {
            const int keys = run.high - at < TILE ? run.high - at : TILE;
            const i64 row = key_row_at(t, begin[a], at, first + a),
                      key = row * t.k_row + kv_head * t.head_dim,
                      value = row * t.v_row + kv_head * t.value_dim;
            float s[4][4] = {};
            for (int d = 0; d < depth; d += DEPTH) {
                __syncthreads();
                columns_load<is_bf16>(memory, t.q, t.q_row, first * t.q_row + head * t.head_dim,
                                      rows.count, d, t.head_dim, t.wide, false);
                columns_load<is_bf16>(columns, t.k, t.k_row, key, keys, d, t.head_dim, t.wide,
                                      true);
                __syncthreads();
                if (run.busy) scores_add(s, memory, columns, depth - d < DEPTH ? depth - d : DEPTH);
            }
            __syncthreads();
            rows_load<is_bf16>(v, t.v, t.v_row, value, keys, blockIdx.z * WIDE, t.value_dim,
                               t.wide);
            if (run.busy) online_softmax<is_bf16>(&x, s, memory, low, high, at, slope, t);
            __syncthreads();
            if (run.busy) rows_add<is_bf16>(x.o, memory, v, keys);
        }
    }
    float z[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        z[i] = x.sum[i] == 0 ? 1 : x.sum[i];
        if (row_of(i) < rows.count && threadIdx.x % 16 == 0 && blockIdx.z == 0)
            t.lse[head * t.queries + first + row_of(i)] =
                x.sum[i] > 0 ? v16_add(x.top[i], v16_log(x.sum[i])) : -FLT_MAX;
    }
    result_put<is_bf16>(t.o, t.o_row, first * t.o_row + head * t.value_dim, rows.count, t.value_dim,
                        x.o, z);
}

static dim3 grid_of(i64 tiles, i64 heads, i64 dim) {
    return dim3((unsigned)tiles, (unsigned)heads, (unsigned)((dim + WIDE - 1) / WIDE));
}

int attention_portable(const device_attention *t, struct err *e) {
    const int step = attention_by_query(t) ? 1 : TILE;
    const dim3 grid = grid_of((t->queries + step - 1) / step, t->heads, t->value_dim);
    return view_is_bf16(&t->call->in[0])
               ? LAUNCH(e, (forward_kernel<true>), grid, THREADS, FORWARD_SHARED, *t, step)
               : LAUNCH(e, (forward_kernel<false>), grid, THREADS, FORWARD_SHARED, *t, step);
}

/* ---- backward ---- */

/* A score and dp become p and ds. */
DEVICE void gradient(float s, float d, float lse, float delta, bool visible, float *p, float *ds,
                     float bias, int place, int last, const device_attention &t) {
    float slope = 1;
    if (t.slopes && t.alibi_bf16) s = biased(s, bias, place, last, t);
    if (t.cap > 0) s = softcap(s, t, &slope);
    if (t.slopes && !t.alibi_bf16) s = biased(s, bias, place, last, t);
    const float x = v16_exp(v16_fma(s, t.scale, -lse));
    float y = v16_mul(x, v16_sub(d, delta));
    if (t.cap > 0) y = v16_mul(y, slope);
    *p = visible ? x : 0, *ds = visible ? v16_mul(y, t.raw_scale) : 0;
}

/* Scores and dp of 64 rows and 64 columns: s += A^T·B, d += C^T·D, over the whole head. */
struct operand {
    const void *data;
    i64 row, at; /* elements */
    const void *second;
    i64 second_row, second_at;
    int rows;
};
template <bool is_bf16>
DEVICE void back_scores(float s[4][4], float d[4][4], float *memory, const struct operand &a,
                        const struct operand &b, bool busy, const device_attention &t) {
    const int part = DEPTH * TILE, depth = is_bf16 ? (t.head_dim + 1) / 2 * 2 : t.head_dim,
              values = is_bf16 ? (t.value_dim + 1) / 2 * 2 : t.value_dim;
    for (int at = 0; at < depth || at < values; at += DEPTH) {
        const int n = depth - at < DEPTH ? depth - at : DEPTH,
                  m = values - at < DEPTH ? values - at : DEPTH;
        __syncthreads();
        columns_load<is_bf16>(memory, a.data, a.row, a.at, a.rows, at, t.head_dim, t.wide, false);
        columns_load<is_bf16>(memory + part, b.data, b.row, b.at, b.rows, at, t.head_dim, t.wide,
                              true);
        columns_load<is_bf16>(memory + 2 * part, a.second, a.second_row, a.second_at, a.rows, at,
                              t.value_dim, t.wide, false);
        columns_load<is_bf16>(memory + 3 * part, b.second, b.second_row, b.second_at, b.rows, at,
                              t.value_dim, t.wide, true);
        __syncthreads();
        if (!busy) continue;
        scores_add(s, memory, memory + part, n);
        scores_add(d, memory + 2 * part, memory + 3 * part, m);
    }
    __syncthreads();
}

enum { BACK_SHARED = (2 * TILE * PAD + TILE * WIDE) * 4 };

struct query_facts { /* of the 64 queries at hand */
    float *lse, *delta;
    int *low; /* the first key, counted from begin */
};
/* Queries from `query` on that belong to the document `begin`; how many. */
DEVICE int queries_load(const struct query_facts &f, const device_attention &t, i64 query,
                        i64 begin, i64 head) {
    const i64 i = query + threadIdx.x;
    const bool own = threadIdx.x < TILE && i < t.queries && t.begin[i] == begin;
    if (threadIdx.x < TILE) { /* a query whose begin is wrong may stand among them */
        f.low[threadIdx.x] = own ? keys_trained(t, i, false).low : 0x7fffffff;
        f.lse[threadIdx.x] = own ? t.lse[head * t.queries + i] : 0;
        f.delta[threadIdx.x] = own ? t.delta[head * t.queries + i] : 0;
    }
    return __syncthreads_count(own);
}

/* dk and dv of one tile of keys and one kv head: rows are keys, columns queries. Grid: key tiles,
 * kv heads, columns of dk. Pairs of queries are counted from begin. */
template <bool is_bf16>
__global__ void __launch_bounds__(THREADS) keys_kernel(const __grid_constant__ device_attention t) {
    DYNAMIC_SHARED(float, memory);
    SHARED(i64, begin, TILE);
    SHARED(int, limits, 3 * TILE);
    SHARED(float, facts, 2 * TILE);
    float *const p = memory, *const ds = p + TILE * PAD, *const wide = ds + TILE * PAD;
    const i64 first = (i64)blockIdx.x * TILE, kv = first * t.k_row + blockIdx.y * t.head_dim,
              values = first * t.v_row + blockIdx.y * t.value_dim;
    const int left = t.keys - first < TILE ? (int)(t.keys - first) : TILE;
    const struct tile_rows rows = {begin, limits, limits + TILE, left};
    const struct query_facts facts_now = {facts, facts + TILE, limits + 2 * TILE};
    tile_rows_load(rows, t, first, true, false);
    float dk[4][8] = {}, dv[4][8] = {};
    for (int a = 0, end; a < left; a = end) {
        const struct run run = run_at(rows, a);
        end = run.end;
        const i64 start = begin[a], key = first + a,
                  reach = first + end - 1 + t.window, /* of the window of the last key */
            past = t.window && reach < t.queries ? reach : t.queries;
        if (start < 0) continue;
        for (int g = 0; g < t.group; g++)
            for (i64 q = key - (key - start) % 2; q < past && t.begin[q] == start; q += TILE) {
                const i64 head = blockIdx.y * t.group + g, query = q * t.q_row + head * t.head_dim,
                          dout = q * t.o_row + head * t.value_dim;
                __syncthreads();
                const int count = queries_load(facts_now, t, q, start, head);
                const struct operand k = {t.k, t.k_row, kv, t.v, t.v_row, values, left},
                                     x = {t.q, t.q_row, query, t.dout, t.o_row, dout, count};
                const float slope = t.slopes ? slope_now(t, head) : 0;
                float s[4][4] = {}, d[4][4] = {};
                back_scores<is_bf16>(s, d, memory, k, x, run.busy, t);
                rows_load<is_bf16>(wide, t.dout, t.o_row, dout, count, blockIdx.z * WIDE,
                                   t.value_dim, t.wide);
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    float px[4], dx[4];
                    const int c = column_of(j);
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const i64 at = first + row_of(i);
                        const bool seen = c < count && row_of(i) >= a && row_of(i) < end &&
                                          at <= q + c && at - start >= facts_now.low[c];
                        gradient(s[i][j], d[i][j], c < count ? facts_now.lse[c] : 0,
                                 c < count ? facts_now.delta[c] : 0, seen, &px[i], &dx[i], slope,
                                 (int)(at - start), (int)(q - start) + c, t);
                    }
                    probability_put<is_bf16>(p, c, px), probability_put<is_bf16>(ds, c, dx);
                }
                __syncthreads();
                if (run.busy) rows_add<is_bf16>(dv, p, wide, count);
                __syncthreads();
                rows_load<is_bf16>(wide, t.q, t.q_row, query, count, blockIdx.z * WIDE, t.head_dim,
                                   t.wide);
                __syncthreads();
                if (run.busy) rows_add<is_bf16>(dk, ds, wide, count);
            }
    }
    if (t.dk) result_put<is_bf16>(t.dk, t.k_row, kv, left, t.head_dim, dk, NULL);
    if (t.dv) result_put<is_bf16>(t.dv, t.v_row, values, left, t.value_dim, dv, NULL);
}

/* dq of one tile of queries and one head: rows are queries, columns keys. */
template <bool is_bf16>
__global__ void __launch_bounds__(THREADS, 1)
    queries_kernel(const __grid_constant__ device_attention t) {
    DYNAMIC_SHARED(float, memory);
    SHARED(i64, begin, TILE);
    SHARED(int, limits, 2 * TILE);
    float *const ds = memory, *const wide = memory + 2 * TILE * PAD;
    const i64 first = (i64)blockIdx.x * TILE, head = blockIdx.y, kv_head = head / t.group;
    const int left = t.queries - first < TILE ? (int)(t.queries - first) : TILE;
    const struct tile_rows rows = {begin, limits, limits + TILE, left};
    tile_rows_load(rows, t, first, true, false);
    const float slope = t.slopes ? slope_now(t, head) : 0;
    float dq[4][8] = {}, lse[4], delta[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const i64 at = head * t.queries + first + row_of(i);
        lse[i] = row_of(i) < left ? t.lse[at] : 0, delta[i] = row_of(i) < left ? t.delta[at] : 0;
    }
    for (int a = 0, end; a < left; a = end) {
        const struct run run = run_at(rows, a);
        end = run.end;
        int low[4], high[4];
        own_rows(rows, run, low, high);
        for (int at = run.low / TILE * TILE; at < run.high; at += TILE) {
            const int keys = run.high - at < TILE ? run.high - at : TILE;
            const i64 key = begin[a] + at;
            const struct operand x = {t.q,    t.q_row, first * t.q_row + head * t.head_dim,
                                      t.dout, t.o_row, first * t.o_row + head * t.value_dim,
                                      left},
                                 k = {t.k, t.k_row, key * t.k_row + kv_head * t.head_dim,
                                      t.v, t.v_row, key * t.v_row + kv_head * t.value_dim,
                                      keys};
            float s[4][4] = {}, d[4][4] = {};
            back_scores<is_bf16>(s, d, memory, x, k, run.busy, t);
            rows_load<is_bf16>(wide, t.k, t.k_row, k.at, keys, blockIdx.z * WIDE, t.head_dim,
                               t.wide);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float unused, dx[4];
                const int key = at + column_of(j);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    gradient(s[i][j], d[i][j], lse[i], delta[i], key >= low[i] && key < high[i],
                             &unused, &dx[i], slope, key, high[i] - 1, t);
                probability_put<is_bf16>(ds, column_of(j), dx);
            }
            __syncthreads();
            if (run.busy) rows_add<is_bf16>(dq, ds, wide, keys);
        }
    }
    if (t.dq)
        result_put<is_bf16>(t.dq, t.q_row, first * t.q_row + head * t.head_dim, left, t.head_dim,
                            dq, NULL);
}

template <bool is_bf16> static int back_run(const device_attention *t, struct err *e) {
    const i64 tiles = (t->queries + TILE - 1) / TILE;
    const dim3 keys = grid_of(tiles, t->kv_heads, i64_max(t->head_dim, t->value_dim)),
               queries = grid_of(tiles, t->heads, t->head_dim);
    if (LAUNCH(e, keys_kernel<is_bf16>, keys, THREADS, BACK_SHARED, *t) != 0) return -1;
    return LAUNCH(e, queries_kernel<is_bf16>, queries, THREADS, BACK_SHARED, *t);
}
int attention_back_portable(const device_attention *t, struct err *e) {
    return view_is_bf16(&t->call->in[0]) ? back_run<true>(t, e) : back_run<false>(t, e);
}
