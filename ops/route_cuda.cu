/* route_cuda.cu: routing, with the CPU's bits; formulas in route.c.
 *
 * Sixteen threads take a token: lane l holds experts l, l + 16, ..., so that sums over experts are
 * those of NUMERICS.md 7. The chosen (at most 32) are then weighed by one thread. Memory is a few
 * hundred bytes a token: nothing here is worth more.
 * expert_plan: a block per expert counts its assignments, then a second kernel, a block per expert
 * again, walks them in order and writes each at its rank: every index is read once per expert, from
 * cache. Rejected: atomics (the order within an expert would be that of arrival), a radix sort
 * (more passes than there are experts worth). */
#include "ops/device/cuda.h"

enum { LANES = 16, TOKENS = 8, BLOCK = LANES * TOKENS, PLAN = 256, PLAN_WARPS = PLAN / 32 };

struct routing {
    const void *logits;
    const float *bias, *dweight, *balance, *dterm;
    float *weight, *term;
    i32 *index;
    void *dlogits;
    i64 tokens;
    int experts, k, groups, top_groups;
    float scale;
    bool is_bf16, sigmoids, renorm;
};
#define MINUS_INF of_bits(0xff800000u)

/* The better of two candidates: the larger key, or the lower place. -1: none. */
DEVICE void better(float *key, int *at, float other, int other_at) {
    const bool wins =
        other_at >= 0 && (*at < 0 || other > *key || (other == *key && other_at < *at));
    *key = wins ? other : *key, *at = wins ? other_at : *at;
}
DEVICE void best16(float *key, int *at) {
#pragma unroll
    for (int step = 8; step; step >>= 1)
        better(key, at, __shfl_xor_sync(0xffffffffu, *key, step, 16),
               __shfl_xor_sync(0xffffffffu, *at, step, 16));
}

/* Which groups stay, as bits. key: all of the token's, in shared memory; score: room for groups. */
DEVICE u64 groups_kept(const struct routing &r, const float *key, float *score, int lane) {
    const int size = r.experts / r.groups;
    for (int g = lane; g < r.groups; g += LANES) {
        float first = MINUS_INF, second = MINUS_INF;
        for (int i = g * size; i < (g + 1) * size; i++) {
            const float x = key[i], low = x > first ? first : x;
            first = x > first ? x : first, second = low > second ? low : second;
        }
        score[g] = r.sigmoids && size > 1 ? v16_add(first, second) : first;
    }
    __syncwarp();
    u64 kept = 0;
    for (int n = 0; n < r.top_groups; n++) {
        float best = 0;
        int at = -1;
        for (int g = 0; g < r.groups; g++)
            if (!(kept >> g & 1)) better(&best, &at, score[g], g);
        kept |= (u64)1 << at;
    }
    return kept;
}

/* Largest logit and sum of exp(l - max) over all experts, for all lanes. */
DEVICE void softmax_terms(const struct routing &r, i64 n, int lane, float *top, float *sum) {
    float max = MINUS_INF, all = 0;
    for (int i = lane; i < r.experts; i += LANES)
        max = v16_max(max, get1(r.logits, n * r.experts + i, r.is_bf16));
#pragma unroll
    for (int step = 8; step; step >>= 1)
        max = v16_max(max, __shfl_xor_sync(0xffffffffu, max, step, 16));
    for (int i = lane; i < r.experts; i += LANES)
        all = v16_add(all, v16_exp(v16_sub(get1(r.logits, n * r.experts + i, r.is_bf16), max)));
    *top = max, *sum = lanes_sum(all);
}

/* The token's term of the balancing loss, for all lanes, which come together. */
DEVICE float balance_term(const struct routing &r, i64 n, int lane, float top, float all) {
    float sum = 0;
    for (int i = lane; i < r.experts; i += LANES) {
        const float e = v16_exp(v16_sub(get1(r.logits, n * r.experts + i, r.is_bf16), top));
        sum = v16_fma(v16_div(e, all), r.balance[i], sum);
    }
    return lanes_sum(sum);
}

/* What the weight of expert i is before it is divided. `top`: what is subtracted under softmax. */
DEVICE float score_of(const struct routing &r, i64 n, int i, float top) {
    const float l = get1(r.logits, n * r.experts + i, r.is_bf16);
    return r.sigmoids ? v16_sigmoid(l) : v16_exp(v16_sub(l, top));
}
/* What the weights of the chosen are divided by. */
DEVICE float divisor(const struct routing &r, i64 n, const i32 *index, float top, float all) {
    if (!r.renorm) return all;
    float sum = 0;
    for (int s = 0; s < r.k; s++) sum = v16_add(sum, score_of(r, n, index[s], top));
    return r.sigmoids ? v16_add(sum, 1e-20f) : sum;
}

__global__ void route_kernel(struct routing r) {
    DYNAMIC_SHARED(float, shared);
    const int lane = threadIdx.x % LANES, own = threadIdx.x / LANES;
    const i64 at = (i64)blockIdx.x * TOKENS + own, n = at < r.tokens ? at : r.tokens - 1;
    const bool mine = at < r.tokens;
    float *key = shared + own * (r.experts + r.groups), top = 0, all = 1;
    for (int i = lane; i < r.experts; i += LANES) {
        float x = get1(r.logits, n * r.experts + i, r.is_bf16);
        if (r.sigmoids) x = v16_sigmoid(x);
        if (r.bias) x = v16_add(x, r.bias[i]);
        key[i] = x == x ? x : MINUS_INF;
    }
    u64 kept = ~(u64)0, taken = 0;
    __syncwarp();
    if (r.groups > 1) kept = groups_kept(r, key, key + r.experts, lane);
    if ((!r.sigmoids && !r.renorm) || r.balance) softmax_terms(r, n, lane, &top, &all);
    if (r.balance) {
        const float term = balance_term(r, n, lane, top, all);
        if (!lane && mine) r.term[n] = term;
    }
    i32 *index = r.index + n * r.k;
    for (int s = 0; s < r.k; s++) {
        float best = 0;
        int expert = -1;
        for (int i = lane; i < r.experts; i += LANES)
            if (!(taken >> i / LANES & 1))
                better(&best, &expert,
                       r.groups > 1 && !(kept >> i / (r.experts / r.groups) & 1) ? MINUS_INF
                                                                                 : key[i],
                       i);
        best16(&best, &expert);
        if (expert % LANES == lane) taken |= (u64)1 << expert / LANES;
        if (!lane && mine) index[s] = expert;
    }
    if (lane || !mine) return;
    if (!r.sigmoids && r.renorm) top = get1(r.logits, n * r.experts + index[0], r.is_bf16);
    const float by = divisor(r, n, index, top, all);
    const bool divided = !r.sigmoids || r.renorm;
    for (int s = 0; s < r.k; s++) {
        const float w = score_of(r, n, index[s], top);
        r.weight[n * r.k + s] = v16_mul(divided ? v16_div(w, by) : w, r.scale);
    }
}

__global__ void route_back_kernel(struct routing r) {
    const int lane = threadIdx.x % LANES;
    const i64 at = (i64)blockIdx.x * TOKENS + threadIdx.x / LANES,
              n = at < r.tokens ? at : r.tokens - 1;
    const bool mine = at < r.tokens, whole = !r.sigmoids && !r.renorm;
    const i32 *index = r.index + n * r.k;
    const float *given = r.dweight + n * r.k;
    float top = 0, all = 1, dot = 0, max = 0, sum = 1, term = 0;
    if (whole || r.balance) softmax_terms(r, n, lane, &max, &sum);
    if (r.balance) term = balance_term(r, n, lane, max, sum);
    if (whole) top = max, all = sum;
    if (!r.sigmoids && r.renorm) top = get1(r.logits, n * r.experts + index[0], r.is_bf16);
    const float by = divisor(r, n, index, top, all);
    for (int s = 0; s < r.k && (!r.sigmoids || r.renorm); s++)
        dot = v16_fma(v16_div(score_of(r, n, index[s], top), by), v16_mul(r.scale, given[s]), dot);
    for (int i = lane; i < r.experts && mine; i += LANES) {
        float dl = whole ? v16_mul(v16_div(score_of(r, n, i, top), all), v16_sub(0, dot)) : 0;
        for (int s = 0; s < r.k; s++) {
            if (index[s] != i) continue;
            const float y = score_of(r, n, i, top), h = v16_sub(v16_mul(r.scale, given[s]), dot);
            dl = r.sigmoids ? v16_mul(r.renorm ? v16_div(h, by) : h, v16_mul(y, v16_sub(1, y)))
                            : v16_mul(v16_div(y, by), h);
        }
        if (r.balance) {
            const float p =
                v16_div(v16_exp(v16_sub(get1(r.logits, n * r.experts + i, r.is_bf16), max)), sum);
            dl = v16_fma(r.dterm[n], v16_mul(p, v16_sub(r.balance[i], term)), dl);
        }
        put1(r.dlogits, n * r.experts + i, dl, r.is_bf16);
    }
}

static struct routing routing_of(const struct op_call *c, const struct view *logits) {
    const struct route_attr *a = (const struct route_attr *)c->attr;
    struct routing r = {};
    r.logits = logits->data, r.is_bf16 = view_is_bf16(logits);
    r.tokens = logits->dim[0], r.experts = (int)logits->dim[1], r.k = (int)a->top_k;
    r.groups = a->groups > 1 ? (int)a->groups : 1, r.top_groups = (int)a->top_groups;
    r.scale = (float)a->scale, r.sigmoids = a->score == ROUTE_SIGMOID, r.renorm = a->renorm;
    return r;
}
CUDA_KERNEL(route) {
    struct routing r = routing_of(c, &c->in[0]);
    r.bias = (const float *)c->in[1].data, r.balance = (const float *)c->in[2].data;
    r.term = (float *)c->out[2].data;
    r.weight = (float *)c->out[0].data, r.index = (i32 *)c->out[1].data;
    if (!r.tokens) return 0;
    return LAUNCH(e, route_kernel, (unsigned)((r.tokens + TOKENS - 1) / TOKENS), BLOCK,
                  (i64)sizeof(float) * TOKENS * (r.experts + r.groups), r);
}
CUDA_KERNEL(route_back) {
    struct routing r = routing_of(c, &c->in[1]);
    r.dweight = (const float *)c->in[0].data, r.index = (i32 *)c->in[2].data;
    r.dterm = (const float *)c->in[3].data, r.balance = (const float *)c->in[4].data;
    r.dlogits = c->out[0].data;
    if (!r.tokens) return 0;
    return LAUNCH(e, route_back_kernel, (unsigned)((r.tokens + TOKENS - 1) / TOKENS), BLOCK, 0, r);
}

/* ---- expert_plan ---- */
struct plan {
    const i32 *index;
    i32 *counts, *offset, *order, *place;
    i64 count;
    int experts;
};
__global__ void plan_count(struct plan p) {
    SHARED(int, part, PLAN_WARPS);
    const int expert = blockIdx.x;
    int found = 0;
    for (i64 t = threadIdx.x; t < p.count; t += PLAN) found += p.index[t] == expert;
    for (int step = 16; step; step >>= 1) found += __shfl_xor_sync(0xffffffffu, found, step);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = found;
    __syncthreads();
    if (threadIdx.x) return;
    int sum = 0;
    for (int w = 0; w < PLAN_WARPS; w++) sum += part[w];
    p.counts[expert] = sum;
}
__global__ void plan_write(struct plan p) {
    SHARED(int, found, PLAN_WARPS);
    const int expert = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int base = 0;
    for (int i = 0; i < expert; i++) base += p.counts[i];
    if (!threadIdx.x) {
        p.offset[expert] = base;
        if (expert == p.experts - 1) p.offset[p.experts] = base + p.counts[expert];
    }
    for (i64 first = 0; first < p.count; first += PLAN) {
        const i64 t = first + threadIdx.x;
        const bool mine = t < p.count && p.index[t] == expert;
        const u32 mask = __ballot_sync(0xffffffffu, mine);
        if (!lane) found[warp] = __popc(mask);
        __syncthreads();
        int rank = base + __popc(mask & ((1u << lane) - 1));
        for (int w = 0; w < PLAN_WARPS; w++) {
            if (w < warp) rank += found[w];
            base += found[w];
        }
        if (mine) p.order[rank] = (i32)t, p.place[t] = rank;
        __syncthreads();
    }
}
CUDA_KERNEL(expert_plan) {
    struct plan p = {};
    p.index = (const i32 *)c->in[0].data, p.counts = (i32 *)c->scratch;
    p.offset = (i32 *)c->out[0].data, p.order = (i32 *)c->out[1].data;
    p.place = (i32 *)c->out[2].data, p.count = view_count(&c->in[0]);
    p.experts = (int)c->out[0].dim[0] - 1;
    const int rc = LAUNCH(e, plan_count, (unsigned)p.experts, PLAN, 0, p);
    return rc ? rc : LAUNCH(e, plan_write, (unsigned)p.experts, PLAN, 0, p);
}
