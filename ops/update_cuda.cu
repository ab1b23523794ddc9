/* update_cuda.cu: a step of an optimizer, and the sum of squares; formulas in update.c.
 *
 * AdamW, say, is one pass over 28 to 30 bytes an element, 24 without masters, 16 bytes a thread.
 * `hyper` and `step` are read from device memory, so that a recorded step sees the numbers of the
 * day. A thread's four elements take the four words of one block of Philox: some 60 integer
 * instructions, which hide behind memory.
 *
 * A chunk of 4,096 squares has 16 chains: a warp copies its 16 KiB to shared memory asynchronously
 * (12 chunks of an SM are under way at once) and sums from there. The chunks' sums are added in
 * f64, in order: that is one thread's work by definition, so the block only brings them near. */
#include "ops/device/cuda_math.h"
#include "ops/device/cuda_vec.h"

enum form { MASTER, MASTER_HALF, STOCHASTIC }; /* param: f32 or absent, bf16, bf16 alone */

struct update {
    enum update_rule rule;
    const float *grad, *hyper;
    float *master, *m, *v, *extra;
    void *param;
    const i32 *step;
    struct rng rng; /* but for the step */
    i64 count;
    float b1, c1, b2, c2, eps;
    bool nesterov, wide;
};

struct rates { /* hyper, the third negative */
    float scale, decay, rate, own, l2, most;
};
/* One element: x = {grad, master, m, v, extra} -> all but the first, new. */
DEVICE void update_one(const struct update &a, const struct rates &h, float x[5]) {
    float g = v16_max(-h.most, v16_min(h.most, v16_mul(x[0], h.scale))), step;
    if (a.rule != UPDATE_ADAMW && a.rule != UPDATE_LION) g = v16_fma(h.l2, x[1], g);
    if (a.rule == UPDATE_ADAGRAD) {
        x[3] = v16_fma(g, g, x[3]);
        step = v16_div(g, v16_add(v16_sqrt(x[3]), a.eps));
    } else if (a.rule == UPDATE_RMSPROP) {
        float v = x[3] = v16_fma(a.b2, x[3], v16_mul(v16_mul(a.c2, g), g));
        if (a.extra) {
            x[4] = v16_fma(a.b2, x[4], v16_mul(a.c2, g));
            v = v16_max(v16_fma(-x[4], x[4], v), 0);
        }
        step = v16_div(g, v16_add(v16_sqrt(v), a.eps));
        if (a.m) step = x[2] = v16_fma(a.b1, x[2], step);
    } else if (a.rule == UPDATE_ADAMW || a.rule == UPDATE_ADAM) {
        x[2] = v16_fma(a.b1, x[2], v16_mul(a.c1, g));
        x[3] = v16_fma(a.b2, x[3], v16_mul(v16_mul(a.c2, g), g));
        x[4] = v16_max(x[4], x[3]);
        step = v16_div(x[2], v16_fma(v16_sqrt(a.extra ? x[4] : x[3]), h.own, a.eps));
    } else if (a.rule == UPDATE_LION) {
        const float s = v16_fma(a.b1, x[2], v16_mul(a.c1, g));
        step = v16_lt(0, s) ? 1.0f : v16_lt(s, 0) ? -1.0f : 0.0f;
        x[2] = v16_fma(a.b2, x[2], v16_mul(a.c2, g));
    } else {
        step = g;
        if (a.m) {
            step = x[2] = v16_fma(a.b1, x[2], v16_mul(h.own, g));
            if (a.nesterov) step = v16_fma(a.b1, step, g);
        }
    }
    x[1] = v16_fma(h.rate, step, v16_mul(x[1], h.decay));
}

DEVICE u16 bf16_at_random(float x, u32 word) {
    const u32 u = bits_of(x);
    return (u & 0x7f800000u) == 0x7f800000u ? put_bf16(x) : (u16)((u + (word >> 16)) >> 16);
}

template <enum form form> __global__ void update_kernel(struct update a) {
    const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x,
              stride = (i64)gridDim.x * blockDim.x, vectors = a.wide ? a.count / 4 : 0;
    const struct rates h = {a.hyper[0], a.hyper[1], -a.hyper[2],
                            a.hyper[3], a.hyper[4], a.hyper[5]};
    u32 word[4];
    if (form == STOCHASTIC) a.rng.step = (u32)*a.step;
    for (i64 i = thread; i < vectors; i += stride) {
        float x[5][4] = {};
        vec_load<false>(x[0], a.grad, 4 * i);
        if (form == STOCHASTIC) {
            const uint2 w = *((const uint2 *)a.param + i);
            x[1][0] = of_bits(w.x << 16), x[1][1] = of_bits(w.x & 0xffff0000u);
            x[1][2] = of_bits(w.y << 16), x[1][3] = of_bits(w.y & 0xffff0000u);
        } else
            vec_load<false>(x[1], a.master, 4 * i);
        if (a.m) vec_load<false>(x[2], a.m, 4 * i);
        if (a.v) vec_load<false>(x[3], a.v, 4 * i);
        if (a.extra) vec_load<false>(x[4], a.extra, 4 * i);
        if (form == STOCHASTIC) philox_block(&a.rng, (u64)i, word);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float one[5] = {x[0][k], x[1][k], x[2][k], x[3][k], x[4][k]};
            update_one(a, h, one);
            x[1][k] = one[1], x[2][k] = one[2], x[3][k] = one[3], x[4][k] = one[4];
        }
        if (a.m) vec_store<false>(a.m, 4 * i, x[2]);
        if (a.v) vec_store<false>(a.v, 4 * i, x[3]);
        if (a.extra) vec_store<false>(a.extra, 4 * i, x[4]);
        if (form != STOCHASTIC) vec_store<false>(a.master, 4 * i, x[1]);
        if (form == MASTER) {
            if (a.param) vec_store<false>(a.param, 4 * i, x[1]);
        } else {
            u16 w[4];
#pragma unroll
            for (int k = 0; k < 4; k++)
                w[k] = form == STOCHASTIC ? bf16_at_random(x[1][k], word[k]) : put_bf16(x[1][k]);
            *((uint2 *)a.param + i) = make_uint2(w[0] | (u32)w[1] << 16, w[2] | (u32)w[3] << 16);
        }
    }
    for (i64 i = 4 * vectors + thread; i < a.count; i += stride) {
        float x[5] = {a.grad[i], form == STOCHASTIC ? get1(a.param, i, true) : a.master[i],
                      a.m ? a.m[i] : 0, a.v ? a.v[i] : 0, a.extra ? a.extra[i] : 0};
        update_one(a, h, x);
        if (a.m) a.m[i] = x[2];
        if (a.v) a.v[i] = x[3];
        if (a.extra) a.extra[i] = x[4];
        if (form == STOCHASTIC) {
            philox_block(&a.rng, (u64)i / 4, word);
            const u32 mine = i % 4 < 2 ? i % 4 ? word[1] : word[0] : i % 4 == 2 ? word[2] : word[3];
            ((u16 *)a.param)[i] = bf16_at_random(x[1], mine);
        } else {
            a.master[i] = x[1];
            if (a.param) put1(a.param, i, x[1], form == MASTER_HALF);
        }
    }
}

CUDA_KERNEL(update) {
    const struct update_attr *at = (const struct update_attr *)c->attr;
    struct update a = {at->rule,
                       (const float *)c->in[0].data,
                       (const float *)c->in[1].data,
                       (float *)c->out[0].data,
                       (float *)c->out[1].data,
                       (float *)c->out[2].data,
                       (float *)c->out[4].data,
                       c->out[3].data,
                       (const i32 *)c->in[2].data,
                       {at->seed, RNG_ROUND, 0, at->stream},
                       view_count(&c->in[0]),
                       (float)at->beta1,
                       (float)(1 - at->beta1),
                       (float)at->beta2,
                       (float)(1 - at->beta2),
                       (float)at->eps,
                       at->nesterov,
                       false};
    const void *all[] = {a.grad, a.master, a.m, a.v, a.extra, a.param};
    a.wide = aligned16(all, 6);
    const int blocks = grid_for(a.count / (a.wide ? 4 : 1) + 1, 256);
    return !a.master                  ? LAUNCH(e, update_kernel<STOCHASTIC>, blocks, 256, 0, a)
           : view_is_bf16(&c->out[3]) ? LAUNCH(e, update_kernel<MASTER_HALF>, blocks, 256, 0, a)
                                      : LAUNCH(e, update_kernel<MASTER>, blocks, 256, 0, a);
}

/* ---- square_sum ---- */
enum { CHUNK = 4096, WARPS = 4, ADDS = 1024 };

__global__ void square_kernel(const void *x, i64 count, bool is_bf16, bool wide, float *sums) {
    DYNAMIC_SHARED(float, memory);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const i64 chunk = (i64)blockIdx.x * WARPS + warp, first = chunk * CHUNK;
    if (first >= count) return;
    const int n = count - first < CHUNK ? (int)(count - first) : (int)CHUNK;
    float *copy = memory + warp * CHUNK, sum = 0;
    if (wide && n == CHUNK) {
        stage((u8 *)copy, (const float *)x + first, CHUNK * 4);
        copy_async_commit(), copy_async_wait<0>();
        __syncwarp();
#pragma unroll 16
        for (int i = lane % 16; i < CHUNK; i += 16) sum = v16_fma(copy[i], copy[i], sum);
    } else
        for (int i = lane % 16; i < n; i += 16) {
            const float v = get1(x, first + i, is_bf16);
            sum = v16_fma(v, v, sum);
        }
    sum = lanes_sum(sum);
    if (!lane) sums[chunk] = sum;
}

__global__ void add_kernel(const float *sums, i64 chunks, double *to) {
    SHARED(float, near, 2 * ADDS);
    double sum = 0;
    for (i64 begin = 0; begin < chunks; begin += ADDS) { /* two buffers: one barrier a step */
        float *part = near + begin / ADDS % 2 * ADDS;
        const int n = chunks - begin < ADDS ? (int)(chunks - begin) : (int)ADDS;
        if ((int)threadIdx.x < n) part[threadIdx.x] = sums[begin + threadIdx.x];
        __syncthreads();
        if (threadIdx.x) continue;
#pragma unroll 8
        for (int i = 0; i < n; i++) sum += (double)part[i];
    }
    if (!threadIdx.x) *to = sum;
}

CUDA_KERNEL(square_sum) {
    const void *x = c->in[0].data;
    const bool is_bf16 = view_is_bf16(&c->in[0]);
    float *sums = (float *)c->scratch;
    const i64 count = view_count(&c->in[0]), chunks = (count + CHUNK - 1) / CHUNK;
    const bool wide = !is_bf16 && (uintptr_t)x % 16 == 0;
    const int blocks = (int)i64_max(1, (chunks + WARPS - 1) / WARPS);
    const i64 shared = WARPS * CHUNK * 4;
    if (LAUNCH(e, square_kernel, blocks, 32 * WARPS, shared, x, count, is_bf16, wide, sums) < 0)
        return -1;
    return LAUNCH(e, add_kernel, 1, ADDS, 0, sums, chunks, (double *)c->out[0].data);
}
