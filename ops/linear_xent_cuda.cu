/* linear_xent_cuda.cu: logits of a chunk of rows, their softmax and loss, the two gradient
 * products. Roundings: linear_xent.c.
 *
 * The products are gemm_cuda's; between them one kernel turns a row of logits into its loss and d,
 * a block for each row. The chains of 16 lanes (NUMERICS.md 7) are sequential, so one warp of the
 * block does nothing but add, from shared memory, what the other 15 have made of the piece before:
 * e^(l - max), which is the work. Memory sees a row three times (maximum, sum, gradient; the later
 * two mostly in the L2 cache) and d once. e^(l - max) is computed twice, which is cheaper than to
 * write it. d takes the place of the logits, in bf16 the front half of each row: a piece is read by
 * all threads before any of them writes, and its d lies where earlier pieces were. Rows are padded
 * to 8 elements, zeros in d, so that products read them 16 bytes at a time whatever the vocabulary.
 * Rejected: the maximum along the way (online softmax: other bits); 16 threads for each row, many
 * rows in a block (half the threads, and too few bytes under way). */
#include "ops/device/cuda_math.h"
#include "ops/device/cuda_vec.h"
#include "ops/gemm/gemm_cuda.h"
#include "ops/linear_xent.h"

enum { THREADS = 512, ADDERS = 32, PIECE = 8 * (THREADS - ADDERS), STEP = 8 * THREADS };

struct rows { /* a chunk: the first of `logits` is row `first` of the call */
    float *logits;
    i64 first, ld, vocab;
    const i32 *target;
    const float *weight; /* [N] of the call; with `train` */
    const void *bias;    /* NULL: none */
    float *loss, cap;    /* softcap; 0: none */
    float *q;            /* DoRA: products before the magnitudes, laid out as logits; NULL: none */
    const void *m;
    const float *norm;
    bool rest, train, is_bf16;
};

/* Elements v to v + 7 of a row; past its end: -infinity, whose e^ is 0. */
DEVICE void eight(float x[8], const float *l, i64 v, i64 vocab) {
    if (v + 8 <= vocab) {
        vec_load<false>(x, l, v), vec_load<false>(x + 4, l, v + 4);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = v + i < vocab ? l[v + i] : of_bits(0xff800000u);
}
DEVICE void eight_put(float *l, i64 v, const float d[8], bool is_bf16) {
    if (is_bf16)
        vec_store<true>(l, v, d);
    else
        vec_store<false>(l, v, d), vec_store<false>(l, v + 4, d + 4);
}

/* What magnitudes, a bias and a softcap make of a row of products, in place: a thread for 8 of
 * them. A kernel of its own: inside row_kernel it takes that one from 46 to over 128 registers. */
enum { FINISHERS = 256 };
__global__ void finish_kernel(struct rows r) {
    const i64 v = ((i64)blockIdx.y * FINISHERS + threadIdx.x) * 8;
    const float inverse = r.cap > 0 ? (float)(1 / (double)r.cap) : 0;
    float *const l = r.logits + (i64)blockIdx.x * r.ld;
    const float *const q = r.q ? r.q + (i64)blockIdx.x * r.ld : NULL;
    float x[8], y[8];
    if (v >= r.vocab || r.target[r.first + blockIdx.x] < 0) return;
    eight(x, q && !r.rest ? q : l, v, r.vocab);
    if (q && r.rest) eight(y, q, v, r.vocab);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (q && v + i < r.vocab) {
            const float g = v16_div(get1(r.m, v + i, r.is_bf16), r.norm[v + i]);
            x[i] = r.rest ? v16_fma(y[i], g, x[i]) : v16_mul(x[i], g);
        }
        if (r.bias && v + i < r.vocab) x[i] = v16_add(x[i], get1(r.bias, v + i, r.is_bf16));
        if (r.cap > 0) x[i] = v16_mul(r.cap, v16_tanh(v16_mul(x[i], inverse)));
    }
    eight_put(l, v, x, false);
}
DEVICE float cap_slope(float cap, float l) { /* 1 - (l / cap)^2 */
    const float t = v16_mul(l, (float)(1 / (double)cap));
    return v16_fma(-t, t, 1);
}

/* The largest of a row, for every thread. */
DEVICE float row_top(const float *l, i64 vocab, float *shared) {
    float top = of_bits(0xff800000u);
    for (i64 v = threadIdx.x * 8; v < vocab; v += STEP) {
        float x[8];
        eight(x, l, v, vocab);
#pragma unroll
        for (int i = 0; i < 8; i++) top = v16_max(top, x[i]);
    }
    for (int step = 16; step; step >>= 1)
        top = v16_max(top, __shfl_xor_sync(0xffffffffu, top, step));
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = top;
    __syncthreads();
    for (int w = 0; w < THREADS / 32; w++) top = v16_max(top, shared[w]);
    return top;
}

/* The sum of e^(l[v] - top) by lanes, for every thread. `e`: two pieces. */
DEVICE float row_sum(const float *l, i64 vocab, float top, float *e, float *shared) {
    const i64 pieces = (vocab + PIECE - 1) / PIECE;
    const int lane = threadIdx.x % 16, at = ((int)threadIdx.x - ADDERS) * 8;
    float sum = 0;
    for (i64 p = 0; p <= pieces; p++) {
        if (threadIdx.x >= ADDERS && p < pieces) {
            float x[8];
            eight(x, l, p * PIECE + at, vocab);
#pragma unroll
            for (int i = 0; i < 8; i++) x[i] = v16_exp(v16_sub(x[i], top));
            vec_store<false>(e + p % 2 * PIECE, at, x);
            vec_store<false>(e + p % 2 * PIECE, at + 4, x + 4);
        } else if (threadIdx.x < ADDERS && p) { /* what lies past the row's end is 0 */
            const float *from = e + (p - 1) % 2 * PIECE + lane;
            const i64 left = vocab - (p - 1) * PIECE;
            const int count = left < PIECE ? (int)(left + 15) / 16 * 16 : PIECE;
#pragma unroll 8
            for (int v = 0; v < count; v += 16) sum = v16_add(sum, from[v]);
        }
        __syncthreads();
    }
    if (threadIdx.x < ADDERS) sum = lanes_sum(sum);
    if (threadIdx.x == 0) shared[0] = sum;
    __syncthreads();
    return shared[0];
}

/* d of a row, in place; sum 0: nothing is trained, d is 0. */
DEVICE void row_gradient(const struct rows &r, i64 row, float *l, float top, float sum,
                         i32 target) {
    const float weight = r.weight[row], each = v16_div(1, sum);
    for (i64 p = 0; p < r.ld; p += STEP) {
        const i64 v = p + threadIdx.x * 8;
        float d[8];
        if (v < r.ld && sum) eight(d, l, v, r.vocab);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float x = sum ? v16_mul(v16_exp(v16_sub(d[i], top)), each) : 0;
            if (v + i == target) x = v16_sub(x, 1);
            x = v16_mul(x, weight);
            if (r.cap > 0) x = v16_mul(x, cap_slope(r.cap, d[i]));
            d[i] = v + i < r.vocab && sum ? x : 0;
        }
        if (r.is_bf16) __syncthreads();
        if (v < r.ld) eight_put(l, v, d, r.is_bf16);
    }
}

__global__ void __launch_bounds__(THREADS) row_kernel(struct rows r, struct fault_word *fault) {
    SHARED(float, e, 2 * PIECE);
    SHARED(float, shared, THREADS / 32);
    const i64 row = r.first + blockIdx.x;
    const i32 target = r.target[row];
    float *const l = r.logits + (i64)blockIdx.x * r.ld;
    if (target < 0 || target >= r.vocab) {
        if (threadIdx.x == 0 && target >= 0) fault_set(fault, BAD_TARGET, target, row, r.vocab);
        if (threadIdx.x == 0) r.loss[row] = 0;
        if (r.train) row_gradient(r, row, l, 0, 0, -1);
        return;
    }
    const float at_target = l[target], top = row_top(l, r.vocab, shared),
                sum = row_sum(l, r.vocab, top, e, shared);
    if (threadIdx.x == 0)
        r.loss[row] = v16_sub(v16_add((float)f64_log((double)sum), top), at_target);
    if (r.train) row_gradient(r, row, l, top, sum, target);
}

/* dbias += d, tokens ascending: a thread for each column. */
__global__ void bias_kernel(const void *d, i64 ld, i64 rows, i64 vocab, bool is_bf16, float *sums) {
    const i64 v = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (v >= vocab) return;
    float sum = sums[v];
#pragma unroll 8
    for (i64 n = 0; n < rows; n++) sum = v16_add(sum, get1(d, n * ld + v, is_bf16));
    sums[v] = sum;
}

/* dm += d * (q / norm) likewise, and d times m / norm takes d's place. */
__global__ void magnitude_kernel(struct rows r, i64 rows, float *dm) {
    const i64 v = (i64)blockIdx.x * blockDim.x + threadIdx.x, ld = r.is_bf16 ? 2 * r.ld : r.ld;
    if (v >= r.vocab) return;
    const float g = v16_div(get1(r.m, v, r.is_bf16), r.norm[v]), by = v16_div(1, r.norm[v]);
    float sum = dm ? dm[v] : 0;
#pragma unroll 8
    for (i64 n = 0; n < rows; n++) {
        const float d = get1(r.logits, n * ld + v, r.is_bf16);
        sum = v16_fma(d, v16_mul(r.q[n * r.ld + v], by), sum);
        put1(r.logits, n * ld + v, v16_mul(d, g), r.is_bf16);
    }
    if (dm) dm[v] = sum;
}

static const void *rows_of(const struct view *v, i64 first) {
    const i64 at = first * v->dim[1] * dtype_size(v->dtype);
    return v->data ? (const u8 *)v->data + at : NULL;
}
/* to = d·w; to += d^T·x */
static int rows_back(const struct rows &r, i64 rows, const struct view *w, const struct view *to,
                     struct err *e) {
    struct gemm g = {};
    g.m = rows, g.n = w->dim[1], g.k = r.vocab, g.dtype = w->dtype;
    g.a = r.logits, g.lda = r.is_bf16 ? 2 * r.ld : r.ld;
    g.b = w->data, g.ldb = g.n;
    g.c = (void *)rows_of(to, r.first), g.ldc = g.n, g.c_dtype = g.dtype;
    return to->data ? gemm_cuda(&g, e) : 0;
}
static int weight_back(const struct rows &r, i64 rows, const struct view *x, const struct view *to,
                       struct err *e) {
    struct gemm g = {};
    g.m = r.vocab, g.n = x->dim[1], g.k = rows, g.dtype = x->dtype;
    g.a = r.logits, g.lda = r.is_bf16 ? 2 * r.ld : r.ld, g.a_t = true;
    g.b = rows_of(x, r.first), g.ldb = g.n;
    g.c = to->data, g.ldc = g.n, g.c_dtype = F32, g.accumulate = true;
    return to->data ? gemm_cuda(&g, e) : 0;
}

static int chunk_run(const struct op_call *c, struct rows r, i64 rows, struct err *e) {
    const struct view *x = &c->in[0], *w = &c->in[1], *t = &c->in[5], *u = &c->in[6];
    const bool lora = is_present(t);
    struct gemm logits = {};
    logits.m = rows, logits.n = r.vocab, logits.k = x->dim[1], logits.dtype = x->dtype;
    logits.a = rows_of(x, r.first), logits.lda = x->dim[1];
    logits.b = w->data, logits.ldb = x->dim[1], logits.b_t = true;
    logits.c = r.q ? r.q : r.logits, logits.ldc = r.ld, logits.c_dtype = F32;
    if (lora)
        logits.t = rows_of(t, r.first), logits.u = u->data, logits.rank = t->dim[1],
        logits.scale = 1;
    if (gemm_cuda(&logits, e)) return -1;
    if (r.rest) {
        logits.a = rows_of(&c->in[9], r.first), logits.c = r.logits;
        logits.t = NULL, logits.u = NULL, logits.rank = 0;
        if (gemm_cuda(&logits, e)) return -1;
    }
    if (r.bias || r.cap > 0 || r.q) {
        const i64 each = 8 * FINISHERS;
        const dim3 grid((unsigned)rows, (unsigned)((r.vocab + each - 1) / each));
        if (int rc = LAUNCH(e, finish_kernel, grid, FINISHERS, 0, r)) return rc;
    }
    if (int rc = LAUNCH(e, row_kernel, (unsigned)rows, THREADS, 0, r, cuda_fault_word)) return rc;
    if (!r.train) return 0;
    if (r.q) {
        if (rows_back(r, rows, w, &c->out[5], e)) return -1;
        if (int rc = LAUNCH(e, magnitude_kernel, (unsigned)((r.vocab + 127) / 128), 128, 0, r, rows,
                            (float *)c->out[4].data))
            return rc;
    }
    if (rows_back(r, rows, w, &c->out[1], e)) return -1;
    if (lora)
        return rows_back(r, rows, u, &c->out[2], e) || weight_back(r, rows, t, &c->out[3], e) ? -1
                                                                                              : 0;
    if (weight_back(r, rows, x, &c->out[2], e)) return -1;
    if (!c->out[3].data) return 0;
    return LAUNCH(e, bias_kernel, (unsigned)((r.vocab + 127) / 128), 128, 0, r.logits,
                  r.is_bf16 ? 2 * r.ld : r.ld, rows, r.vocab, r.is_bf16, (float *)c->out[3].data);
}

static int xent_run(const struct op_call *call, bool train, struct err *e) {
    struct op_call plain = *call; /* with the decoded w behind the logits */
    const struct op_call *c = &plain;
    const i64 rows = c->in[0].dim[0], vocab = c->in[1].dim[0], step = xent_rows_cuda(rows, vocab);
    struct rows r = {};
    r.logits = (float *)c->scratch, r.ld = xent_ld_cuda(vocab), r.vocab = vocab;
    r.target = (const i32 *)c->in[2].data, r.weight = (const float *)c->in[3].data;
    r.bias = c->in[4].data, r.cap = (float)((const struct xent_attr *)c->attr)->softcap;
    r.loss = (float *)c->out[0].data, r.train = train, r.is_bf16 = view_is_bf16(&c->in[0]);
    r.m = c->in[7].data, r.norm = (const float *)c->in[8].data, r.rest = is_present(&c->in[9]);
    r.q = r.m ? r.logits + step * r.ld : NULL;
    if (struct view *w = &plain.in[1]; w->packing) {
        w->data = (u8 *)c->scratch + round_up(step * r.ld * (i64)sizeof(float) * (r.m ? 2 : 1), 64);
        w->packing = NULL;
        if (call->in[1].packing->cuda(w->data, &call->in[1], r.is_bf16, e)) return -1;
    }
    for (r.first = 0; r.first < rows; r.first += step)
        if (chunk_run(c, r, i64_min(step, rows - r.first), e)) return -1;
    return 0;
}
CUDA_KERNEL(linear_xent) { return xent_run(c, false, e); }
CUDA_KERNEL(linear_xent_train) { return xent_run(c, true, e); }
CUDA_KERNEL(lora_xent) { return xent_run(c, false, e); }
CUDA_KERNEL(lora_xent_train) { return xent_run(c, true, e); }
