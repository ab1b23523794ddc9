/* attention_cuda.cu: the forward pass of attention. `portable`, f32, heads that are no multiple of
 * 16 up to 256, slopes in bf16 or beside a softcap go to attention_portable_cuda.cu; here is
 * `fast`, in bf16 on tensor cores. Definition: attention.c; P is rounded to bf16 against the
 * running maximum, as there.
 *
 * FlashAttention-2 (Dao, 2023): a block of 4 warps has 64 * M rows and walks over blocks of 64
 * keys. Warp w has the rows 16w.. of each 64, so that the M products of 64 x N are shaped like the
 * wgmma of a warpgroup. Q, K and V lie in a swizzle like wgmma's, but counted from the tile's own
 * first byte: ldmatrix asks for no more than rows of 16 aligned bytes. The hardware's swizzle
 * counts address bits: for wgmma on sm_90a each tile would have to begin at a multiple of 1,024
 * bytes, and dynamic shared memory, which lies behind the static, begins at a multiple of 128.
 *
 * M = 2 halves what is read from shared memory for a product, which is what bounds mma.sync; N is
 * 32 where heads of 128 would leave no register for the scores of 64 keys. The next keys come by
 * asynchronous copies meanwhile, with one barrier a block of keys. Scores go through exp2 with the
 * scale folded in. A mask is applied only in blocks that a row of the warp does not see whole;
 * blocks none of its rows sees are skipped, and so is the rescaling of o where no maximum grew.
 *
 * With pages a tile walks over the runs of queries of one sequence among its rows; its other rows
 * are masked meanwhile. Blocks of keys then begin at multiples of 64, so that each lies in a page.
 *
 * Queries beside a longer cache (decoding) are a tile each, with the heads of a group as rows; when
 * they are few, their keys are cut in equal parts for more blocks, and a second kernel adds the
 * parts in order. The number of parts follows from shapes only. */
#include "ops/attention/attention_mma.h"

struct forward : device_attention {
    int pack, step; /* heads and queries that are rows of a tile */
    int splits;
    float scale2; /* of a score in the exponent of 2 */
    float *part;  /* [query][head][split][value_dim + 2]: o, m, l; if splits > 1 */
};

template <int M> struct softmax_state { /* [m][h]: row 64m + 16 * warp + 8h + lane / 4 */
    float top[M][2], sum[M][2];
    int *limits;            /* shared: [2][64 * M], the keys low <= j < high of each row */
    int *last;              /* shared: [64 * M], with slopes: the key where the bias is 0; and */
    float *slope;           /* slope / scale */
    struct warp_keys *warp; /* shared too: registers are dear */
};
struct warp_keys {
    int see_low, see_high;     /* keys that any row of the warp sees */
    int whole_low, whole_high; /* that all do */
};

DEVICE int warp_min(int x) {
#pragma unroll
    for (int step = 16; step; step /= 2) {
        const int y = __shfl_xor_sync(0xffffffffu, x, step);
        x = x < y ? x : y;
    }
    return x;
}

/* The end of the rows from `begin` on whose queries are of one sequence. */
DEVICE int sequence_end(const struct forward &t, i64 first, int begin, int rows) {
    int end = begin + t.pack;
    while (end < rows && t.sequence[first + end / t.pack] == t.sequence[first + begin / t.pack])
        end += t.pack;
    return end;
}

/* What the thread's rows see, cut to the block's part of the keys. Rows outside of
 * begin.. < end see nothing. */
template <int M, bool paged>
DEVICE void ranges_load(struct softmax_state<M> *x, const struct forward &t, i64 first, i64 head,
                        int rows, int split, int begin, int end) {
    int low = 0x7fffffff, high = 0, whole_low = 0, whole_high = 0x7fffffff;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = 64 * m + threadIdx.x / 32 * 16 + 8 * h + lane_now() / 4;
            int from = 0, past = 0;
            if (begin == 0) x->top[m][h] = -FLT_MAX, x->sum[m][h] = 0;
            if (row < rows) {
                if (begin == 0 && t.sink &&
                    split == 0) { /* one of the row's four threads holds its 1 */
                    x->top[m][h] = v16_mul(sink_start(t, head + row % t.pack), LOG2_E);
                    x->sum[m][h] = lane_now() % 4 ? 0 : 1;
                }
                key_range seen = keys_seen(t, first + row / t.pack, paged, blockIdx.y == 0);
                if (paged && (row < begin || row >= end)) seen.high = seen.low = 0;
                const int part = ((seen.high - seen.low + t.splits - 1) / t.splits + 63) / 64 * 64;
                from = (int)seen.begin + seen.low + split * part;
                past = (int)seen.begin + seen.high;
                if (t.splits > 1 && from + part < past) past = from + part;
                if (from < past) {
                    low = from < low ? from : low, high = past > high ? past : high;
                } else {
                    past = 0;
                }
                whole_low = from > whole_low ? from : whole_low;
                whole_high = past < whole_high ? past : whole_high;
            }
            if (t.slopes && lane_now() % 4 == 0) {
                const int own = row < rows ? row : 0;
                x->last[row] = t.last[first + own / t.pack];
                x->slope[row] = v16_div(t.slopes[head + own % t.pack], t.raw_scale);
            }
            if (lane_now() % 4 == 0) x->limits[row] = from, x->limits[64 * M + row] = past;
        }
    const struct warp_keys w = {warp_min(low), -warp_min(-high), -warp_min(-whole_low),
                                warp_min(whole_high)};
    if (lane_now() == 0) *x->warp = w;
}

template <int M, int N> DEVICE void scores_cap(float s[M][N / 8][4], const struct forward &t) {
    const float scale = v16_mul(t.raw_scale, t.cap_inverse);
#pragma unroll
    for (int n = 0; n < N / 2 * M; n++) {
        float &y = s[n / (N / 2)][n / 4 % (N / 8)][n % 4];
        y = v16_mul(tanh_fast(v16_mul(y, scale)), t.cap);
    }
}

/* The bias of ALiBi. */
template <int M, int N>
DEVICE void scores_bias(float s[M][N / 8][4], const struct softmax_state<M> &x, int key) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = 64 * m + threadIdx.x / 32 * 16 + 8 * h + lane_now() / 4;
            const int from = key + lane_now() % 4 * 2 - x.last[row];
            const float slope = x.slope[row];
#pragma unroll
            for (int n = 0; n < N / 4; n++) {
                float &y = s[m][n / 2][2 * h + n % 2];
                y = v16_fma(slope, (float)(from + n / 2 * 8 + n % 2), y);
            }
        }
}

/* Scores of keys that a row does not see become -inf. */
template <int M, int N>
DEVICE void scores_mask(float s[M][N / 8][4], const struct softmax_state<M> &x, int key) {
    if (key >= x.warp->whole_low && key + N <= x.warp->whole_high) return;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = 64 * m + threadIdx.x / 32 * 16 + 8 * h + lane_now() / 4;
            const int low = x.limits[row], high = x.limits[64 * M + row];
#pragma unroll
            for (int n = 0; n < N / 4; n++) {
                const int at = key + n / 2 * 8 + lane_now() % 4 * 2 + n % 2;
                if ((at < low) | (at >= high)) s[m][n / 2][2 * h + n % 2] = -INFINITY;
            }
        }
}

/* Scores become probabilities, as operands; o shrinks where a maximum grew. */
template <int D, int M, int N>
DEVICE void softmax_step(u32 p[M][N / 16][4], float s[M][N / 8][4], float o[M][D / 8][4],
                         struct softmax_state<M> *x, float scale) {
#pragma unroll
    for (int m = 0; m < M; m++) {
        float alpha[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float top = -INFINITY, sum = 0;
#pragma unroll
            for (int n = 0; n < N / 4; n++) top = v16_max(top, s[m][n / 2][2 * h + n % 2]);
            top = v16_max(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = v16_max(top, __shfl_xor_sync(0xffffffffu, top, 2));
            top = v16_max(x->top[m][h], v16_mul(top, scale));
            alpha[h] = exp2f_approx(v16_sub(x->top[m][h], top));
            x->top[m][h] = top;
#pragma unroll
            for (int n = 0; n < N / 4; n++) {
                float &y = s[m][n / 2][2 * h + n % 2];
                y = exp2f_approx(v16_fma(y, scale, -top));
                sum = v16_add(sum, y);
            }
            x->sum[m][h] = v16_fma(x->sum[m][h], alpha[h], sum);
        }
#pragma unroll
        for (int k = 0; k < N / 16; k++) operand_of(p[m][k], s[m][2 * k], s[m][2 * k + 1]);
        if (!__any_sync(0xffffffffu, alpha[0] < 1 || alpha[1] < 1)) continue;
#pragma unroll
        for (int n = 0; n < D / 2; n++)
            o[m][n / 4][n % 4] = v16_mul(o[m][n / 4][n % 4], alpha[n % 4 / 2]);
    }
}

/* Rows of the tile as results, or as one part of them. */
template <int D, int M>
DEVICE void forward_put(const struct forward &t, u16 *tile, float o[M][D / 8][4],
                        struct softmax_state<M> &x, i64 first, i64 head, int rows, int split) {
#pragma unroll
    for (int m = 0; m < M; m++) {
        const int row = 64 * m + threadIdx.x / 32 * 16;
        float z[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float sum = x.sum[m][h];
            sum = v16_add(sum, __shfl_xor_sync(0xffffffffu, sum, 1));
            sum = v16_add(sum, __shfl_xor_sync(0xffffffffu, sum, 2));
            z[h] = sum > 0 ? v16_div(1, sum) : 0;
            const int r = row + 8 * h + lane_now() / 4;
            if (r >= rows) continue;
            const i64 query = first + r / t.pack, own = head + r % t.pack;
            if (t.splits == 1) {
                if (lane_now() % 4 == 0)
                    t.lse[own * t.queries + query] =
                        sum > 0 ? v16_fma(x.top[m][h], LN_2, v16_log(sum)) : -FLT_MAX;
                continue;
            }
            float *to = t.part + ((query * t.heads + own) * t.splits + split) * (t.value_dim + 2);
            if (lane_now() % 4 == 0) *(float2 *)(to + t.value_dim) = make_float2(x.top[m][h], sum);
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                if (n * 8 < t.value_dim)
                    *(float2 *)(to + n * 8 + lane_now() % 4 * 2) =
                        make_float2(o[m][n][2 * h], o[m][n][2 * h + 1]);
        }
        if (t.splits == 1)
            tile_store<D, 64 * M>((u16 *)t.o + first * t.o_row + head * t.value_dim, t.o_row,
                                  t.pack, tile, row, o[m], z, rows, t.value_dim);
    }
}

struct flash_block {       /* what a block works on; in shared memory: registers are dear */
    i64 first, head, k, v; /* the first query and head; the elements where it is in K and V */
    int rows, split;
};

template <int D, int M> constexpr int forward_bytes() { return (64 * M + 4 * 64) * D * 2; }

/* K and V of up to 64 keys from `at` on, which `query` sees in its own sequence; neither waits. */
template <int D, bool paged>
DEVICE void keys_load(u16 *to, const struct forward &t, const struct flash_block &own, int at,
                      int past, i64 query) {
    const int count = past - at < 64 ? past - at : 64;
    const i64 row = paged ? key_row_at(t, (i64)t.sequence[query] << 32, at, query) : at;
    tile_load<D, 64>(to, (const u16 *)t.k + row * t.k_row + own.k, t.k_row, 1, count, t.head_dim);
    tile_load<D, 64>(to + 64 * D, (const u16 *)t.v + row * t.v_row + own.v, t.v_row, 1, count,
                     t.value_dim);
    copy_async_commit();
}

/* Grid: tiles of queries x splits, the last queries first (they see the most); heads / pack. */
template <int D, int M, int N, bool paged>
__global__ void __launch_bounds__(MMA_THREADS)
    flash_mma_kernel(const __grid_constant__ struct forward t) {
    DYNAMIC_SHARED(u16, q);
    SHARED(struct warp_keys, limits, WARPS);
    SHARED(int, row_limits, 3 * 64 * M);
    SHARED(float, row_slope, 64 * M);
    SHARED(struct flash_block, own, 1);
    u16 *const kv = q + 64 * M * D;
    if (threadIdx.x == 0) {
        const int split = blockIdx.x % t.splits;
        const i64 first = (i64)((gridDim.x - 1 - blockIdx.x) / t.splits) * t.step,
                  head = (i64)blockIdx.y * t.pack, left = t.queries - first;
        *own = {first,
                head,
                head / t.group * t.head_dim,
                head / t.group * t.value_dim,
                (int)(left < t.step ? left : t.step) * t.pack,
                split};
    }
    __syncthreads();
    tile_load<D, 64 * M>(q, (const u16 *)t.q + own->first * t.q_row + own->head * t.head_dim,
                         t.q_row, t.pack, own->rows, t.head_dim);
    copy_async_commit();
    struct softmax_state<M> x;
    x.limits = row_limits, x.warp = limits + threadIdx.x / 32;
    x.last = row_limits + 2 * 64 * M, x.slope = row_slope;
    float o[M][D / 8][4] = {};
    int begin = 0, end;
    do { /* once without pages, which the compiler must see: else this takes 42 registers more */
        end = paged ? sequence_end(t, own->first, begin, own->rows) : own->rows;
        ranges_load<M, paged>(&x, t, own->first, own->head, own->rows, own->split, begin, end);
        __syncthreads();
        int key = limits[0].see_low, past = limits[0].see_high;
        for (int i = 1; i < WARPS; i++) {
            key = limits[i].see_low < key ? limits[i].see_low : key;
            past = limits[i].see_high > past ? limits[i].see_high : past;
        }
        if (paged && key < past) key = key / 64 * 64;
        const i64 query = own->first + begin / t.pack;
        if (key < past) keys_load<D, paged>(kv, t, *own, key, past, query);
        for (int stage = 0; key < past; key += 64, stage ^= 1) {
            copy_async_wait<0>();
            __syncthreads();
            if (key + 64 < past)
                keys_load<D, paged>(kv + (stage ^ 1) * (128 * D), t, *own, key + 64, past, query);
            u16 *const k = kv + stage * (128 * D);
#pragma unroll 1
            for (int part = 0; part < 64; part += N) {
                const int at = key + part;
                if (at + N <= x.warp->see_low || at >= x.warp->see_high) continue;
                float s[M][N / 8][4] = {};
                scores_mma<D, M, N, 64 * M, 64>(s, q, threadIdx.x / 32 * 16, k, part);
                if (t.cap > 0) scores_cap<M, N>(s, t);
                if (t.slopes) scores_bias<M, N>(s, x, at);
                scores_mask<M, N>(s, x, at);
                u32 p[M][N / 16][4];
                softmax_step<D, M, N>(p, s, o, &x, t.scale2);
                rows_mma<D, M, N, 64>(o, p, k + 64 * D, part, 0);
            }
        }
        if (paged) __syncthreads(); /* before the limits and the first buffer are another's */
    } while (paged && (begin = end) < own->rows);
    copy_async_wait<0>(); /* Q, if there were no keys */
    __syncthreads();
    forward_put<D, M>(t, q, o, x, own->first, own->head, own->rows, own->split);
}

/* A warp for each query and head: the parts, in order. */
__global__ void merge_kernel(const __grid_constant__ struct forward t) {
    const i64 n = (i64)blockIdx.x * WARPS + threadIdx.x / 32;
    if (n >= t.queries * t.heads) return;
    const i64 size = t.value_dim + 2, query = n / t.heads, head = n % t.heads;
    const float *part = t.part + n * t.splits * size;
    float top = -FLT_MAX, sum = 0;
    for (int i = 0; i < t.splits; i++) top = v16_max(top, part[i * size + t.value_dim]);
    for (int i = 0; i < t.splits; i++)
        sum = v16_fma(exp2f_approx(v16_sub(part[i * size + t.value_dim], top)),
                      part[i * size + t.value_dim + 1], sum);
    const float z = sum > 0 ? v16_div(1, sum) : 0;
    for (int d = lane_now(); d < t.value_dim; d += 32) {
        float o = 0;
        for (int i = 0; i < t.splits; i++)
            o = v16_fma(exp2f_approx(v16_sub(part[i * size + t.value_dim], top)),
                        part[i * size + d], o);
        ((u16 *)t.o)[query * t.o_row + head * t.value_dim + d] = put_bf16(v16_mul(o, z));
    }
    if (lane_now() == 0)
        t.lse[head * t.queries + query] = sum > 0 ? v16_fma(top, LN_2, v16_log(sum)) : -FLT_MAX;
}

template <int D, int M, int N> static int flash_run(struct forward *t, struct err *e) {
    if (t->step != 1) t->step = 64 * M;
    const dim3 grid((unsigned)((t->queries + t->step - 1) / t->step * t->splits),
                    (unsigned)(t->heads / t->pack));
    constexpr int bytes = forward_bytes<D, M>();
    const int rc =
        t->pages ? LAUNCH(e, (flash_mma_kernel<D, M, N, true>), grid, MMA_THREADS, bytes, *t)
                 : LAUNCH(e, (flash_mma_kernel<D, M, N, false>), grid, MMA_THREADS, bytes, *t);
    if (rc != 0) return -1;
    const unsigned merges = (unsigned)((t->queries * t->heads + WARPS - 1) / WARPS);
    return t->splits == 1 ? 0 : LAUNCH(e, merge_kernel, merges, MMA_THREADS, 0, *t);
}

CUDA_KERNEL(attention) {
    struct forward t = {};
    (device_attention &)t = device_attention_of(c, 0, 3);
    t.o = c->out[0].data, t.lse = (float *)c->out[1].data;
    if (!attention_on_tensor_cores(&t) || !tensor_cores_fit(t)) return attention_portable(&t, e);
    t.scale2 = (float)((t.cap > 0 ? 1 : t.attr->scale) * 1.4426950408889634);
    t.splits = (int)attention_splits(&t), t.part = (float *)c->scratch;
    t.pack = 1;
    const i64 dim = widest(t);
    if (attention_by_query(&t)) {
        t.step = 1, t.pack = t.group <= 64 ? (int)t.group : 1;
        return dim <= 64    ? flash_run<64, 1, 64>(&t, e)
               : dim <= 128 ? flash_run<128, 1, 64>(&t, e)
                            : flash_run<256, 1, 64>(&t, e);
    }
    return dim <= 64    ? flash_run<64, 2, 64>(&t, e)
           : dim <= 128 ? flash_run<128, 2, 32>(&t, e)
                        : flash_run<256, 1, 64>(&t, e);
}
