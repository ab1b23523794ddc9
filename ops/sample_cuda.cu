/* sample_cuda.cu: the next token of each row, with the CPU's bits; definition in sample.c.
 *
 * A block of 1,024 threads takes a row. Greedy is one pass and a reduction. Otherwise candidates
 * are sorted by (logit descending, id ascending): the logit's bits are turned into a number that
 * grows as the logit falls, and sorted by four stable passes over 8 bits each, where a warp owns a
 * stretch of the list and counts its digits alone, so no atomics are needed; ids ascend because
 * they did at the start. With top_k, counting passes alone first find the k-th number, and the
 * first sorting pass leaves out what lies behind it. Then one thread adds the f64 probabilities in
 * that order, as the definition has it, while the other warps compute the next ones; every sum that
 * sample.c forms is a value of that one chain, so the rest is two searches. The whole vocabulary
 * sorted and added (no top_k) is bounded by this chain and by one SM's sorting: say top_k to avoid
 * both. */
#include "ops/device/cuda_math.h"

enum {
    BLOCK = 1024,
    WARPS = BLOCK / 32,
    DIGITS = 256,
    CELLS = WARPS * DIGITS,
    MAKERS = BLOCK - 32
};

struct job {
    const void *logits;
    bool is_bf16;
    const i32 *step; /* position and stream of each row */
    const struct sample_how *how;
    const u8 *seen; /* NULL: no penalty */
    i32 *id;
    i64 rows;
    int vocab;
    u64 *scratch; /* 3 * vocab for each block */
};

/* Larger logits have smaller keys; both zeros and all denormals are one, NaN is last. */
DEVICE u32 key_of(float logit) {
    const u32 u = bits_of(v16_add(logit, 0));
    if (logit != logit) return 0xffffffffu;
    return u >> 31 ? u : ~u & 0x7fffffffu;
}
DEVICE double logit_of(u64 e) { /* of an element, key << 32 | id */
    const u32 k = (u32)(e >> 32);
    return (double)of_bits(k >> 31 ? k : ~k & 0x7fffffffu);
}

/* Where a pass reads its elements: the logits (of those with key <= most, and whose upper bits are
 * `prefix`), or a list. */
struct from_logits {
    const void *row;
    bool is_bf16;
    u32 most, prefix;
    int above;
    const u8 *seen; /* of the row */
    float penalty;
    __device__ bool get(int i, u64 *e) const {
        float x = get1(row, i, is_bf16);
        if (seen && seen[i]) x = x < 0 ? v16_mul(x, penalty) : v16_div(x, penalty);
        const u32 key = key_of(x);
        *e = (u64)key << 32 | (u32)i;
        return key <= most && (u64)key >> above == prefix;
    }
};
struct from_list {
    const u64 *list;
    __device__ bool get(int i, u64 *e) const { return *e = list[i], true; }
};

struct shared {
    u32 *cell;  /* [warp][digit]: elements of that digit in the warps before */
    u32 *start; /* [digit]: elements of smaller digits; [DIGITS]: all */
};

/* The lanes whose element is valid and has the digit of mine; 0: mine is not. */
DEVICE u32 peers_of(int digit, bool valid) {
    u32 peers = __ballot_sync(0xffffffffu, valid);
#pragma unroll
    for (int b = 1; b < DIGITS; b <<= 1) {
        const u32 ones = __ballot_sync(0xffffffffu, digit & b);
        peers &= digit & b ? ones : ~ones;
    }
    return valid ? peers : 0;
}
DEVICE int lane_now() { return threadIdx.x % 32; }
DEVICE int warp_now() { return threadIdx.x / 32; }
DEVICE int stretch_of(int n) { return (n + BLOCK - 1) / BLOCK * 32; } /* a warp's */

template <class From>
DEVICE void count_digits(const From &from, int n, int shift, struct shared s) {
    const int lane = lane_now(), warp = warp_now(), stretch = stretch_of(n);
    for (int i = threadIdx.x; i < CELLS; i += BLOCK) s.cell[i] = 0;
    __syncthreads();
    for (int i = warp * stretch + lane, k = 0; k < stretch; k += 32) {
        u64 e = 0;
        const bool valid = i + k < n && from.get(i + k, &e);
        const int digit = (int)(e >> (32 + shift) & (DIGITS - 1));
        const u32 peers = peers_of(digit, valid);
        if (peers && lane == __ffs((int)peers) - 1) s.cell[warp * DIGITS + digit] += __popc(peers);
        __syncwarp();
    }
    __syncthreads();
    if (threadIdx.x < DIGITS) {
        u32 sum = 0;
        for (int i = threadIdx.x; i < CELLS; i += DIGITS) {
            const u32 here = s.cell[i];
            s.cell[i] = sum, sum += here;
        }
        s.start[threadIdx.x] = sum;
    }
    __syncthreads();
    if (warp == 0) { /* eight digits a lane */
        u32 *mine = s.start + 8 * lane, sum = 0;
        for (int k = 0; k < 8; k++) sum += mine[k];
        u32 before = sum;
        for (int by = 1; by < 32; by <<= 1) {
            const u32 left = __shfl_up_sync(0xffffffffu, before, by);
            if (lane >= by) before += left;
        }
        if (lane == 31) s.start[DIGITS] = before;
        before -= sum;
        for (int k = 0; k < 8; k++) {
            const u32 here = mine[k];
            mine[k] = before, before += here;
        }
    }
    __syncthreads();
}

/* One pass of the sort; how many elements there are. */
template <class From>
DEVICE int sort_pass(const From &from, int n, int shift, struct shared s, u64 *to) {
    const int lane = lane_now(), warp = warp_now(), stretch = stretch_of(n);
    count_digits(from, n, shift, s);
    for (int i = warp * stretch + lane, k = 0; k < stretch; k += 32) {
        u64 e = 0;
        const bool valid = i + k < n && from.get(i + k, &e);
        const int digit = (int)(e >> (32 + shift) & (DIGITS - 1));
        const u32 peers = peers_of(digit, valid), before = peers & ((1u << lane) - 1);
        u32 *cell = &s.cell[warp * DIGITS + digit];
        if (valid) to[s.start[digit] + *cell + __popc(before)] = e;
        __syncwarp();
        if (valid && !before) *cell += __popc(peers);
        __syncwarp();
    }
    const int all = (int)s.start[DIGITS];
    __syncthreads();
    return all;
}

/* The key of the k-th candidate. */
DEVICE u32 key_at(struct from_logits from, int n, i64 k, struct shared s, u32 *found) {
    for (int shift = 24; shift >= 0; shift -= 8) {
        from.above = shift + 8;
        count_digits(from, n, shift, s);
        const u32 *at = s.start + threadIdx.x;
        if (threadIdx.x < DIGITS && at[0] < k && k <= at[1])
            found[0] = from.prefix << 8 | threadIdx.x, found[1] = at[0];
        __syncthreads();
        from.prefix = found[0], k -= found[1];
    }
    return from.prefix;
}

DEVICE u64 block_least(u64 v, u64 *near) {
    for (int by = 16; by; by >>= 1) {
        const u64 other = __shfl_xor_sync(0xffffffffu, v, by);
        if (other < v) v = other;
    }
    __syncthreads(); /* whoever still reads what was here */
    if (!lane_now()) near[warp_now()] = v;
    __syncthreads();
    for (int w = 0; w < WARPS; w++)
        if (near[w] < v) v = near[w];
    return v;
}

/* value[i] = exp(z[i] - z[0]) and their sums sum[i] = sum[i - 1] + value[i]: the first warp adds
 * while the others make the next. */
DEVICE void sums_of(const u64 *list, int count, double temperature, double *value, double *sum,
                    double *near) {
    const int m = (int)threadIdx.x - 32;
    const double top = logit_of(list[0]) / temperature;
    double total = 0;
    for (int begin = -MAKERS; begin < count; begin += MAKERS) {
        const int next = begin + MAKERS, parity = next / MAKERS % 2;
        if (m >= 0 && next + m < count) {
            const double v = f64_exp(logit_of(list[next + m]) / temperature - top);
            near[parity * MAKERS + m] = value[next + m] = v;
        } else if (m == -32 && begin >= 0) {
            const double *part = near + (1 - parity) * MAKERS;
            const int n = min(MAKERS, count - begin);
#pragma unroll 8
            for (int i = 0; i < n; i++) sum[begin + i] = total += part[i];
        }
        __syncthreads();
    }
}

DEVICE int pick(const struct job &a, i64 row, struct from_logits from, struct shared s, u64 *near) {
    u64 *one = a.scratch + (i64)blockIdx.x * 3 * a.vocab, *two = one + a.vocab;
    const struct sample_how how = a.how[row];
    const i64 k = how.top_k > 0 && how.top_k < a.vocab ? how.top_k : a.vocab;
    if (k < a.vocab) from.most = key_at(from, a.vocab, k, s, (u32 *)near);
    from.above = 32;
    const int n = sort_pass(from, a.vocab, 0, s, one);
    sort_pass(from_list{one}, n, 8, s, two);
    sort_pass(from_list{two}, n, 16, s, one);
    sort_pass(from_list{one}, n, 24, s, two);
    double *value = (double *)one, *sum = (double *)(two + a.vocab);
    const int count = k < n ? (int)k : n;
    sums_of(two, count, how.temperature, value, sum, (double *)s.cell);
    const double all = how.top_p * sum[count - 1];
    int i = threadIdx.x;
    while (i < count && (i ? sum[i - 1] : 0) < all && value[i] >= how.min_p) i += BLOCK;
    const int first = (int)block_least((u64)min(i, count), near), kept = max(first, 1);
    const struct rng r = {how.seed, RNG_SAMPLE, 0, (u32)a.step[2 * row + 1]};
    const double reach = philox_f64(&r, (u64)a.step[2 * row]) * sum[kept - 1];
    for (i = threadIdx.x; i < kept && !(sum[i] > reach); i += BLOCK) {
    }
    return (int)(u32)two[block_least((u64)min(i, kept - 1), near)];
}

__global__ __launch_bounds__(BLOCK) void sample_kernel(struct job a) {
    SHARED(u32, cell, CELLS);
    SHARED(u32, start, DIGITS + 1);
    SHARED(u64, near, WARPS);
    for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
        const struct from_logits from = {(const u8 *)a.logits + row * a.vocab * (a.is_bf16 ? 2 : 4),
                                         a.is_bf16,
                                         0xffffffffu,
                                         0,
                                         32,
                                         a.seen ? a.seen + row * a.vocab : NULL,
                                         (float)a.how[row].repetition_penalty};
        int id;
        u64 worst = 2, e; /* 0: a NaN or +inf; 1: a number; 2: -inf */
        for (int i = threadIdx.x; i < a.vocab; i += BLOCK) {
            from.get(i, &e);
            const u32 key = (u32)(e >> 32);
            const bool bad = key == 0xffffffffu || key == 0x007fffffu;
            const u64 is = bad ? 0 : key == 0xff800000u ? 2 : 1;
            if (is < worst) worst = is;
        }
        if (block_least(worst, near) != 1)
            id = -1;
        else if (a.how[row].temperature > 0)
            id = pick(a, row, from, {cell, start}, near);
        else { /* the first that no other exceeds */
            u64 best = ~(u64)0;
            for (int i = threadIdx.x; i < a.vocab; i += BLOCK)
                if (from.get(i, &e), e < best) best = e;
            id = (int)(u32)block_least(best, near);
        }
        if (!threadIdx.x) a.id[row] = id;
        __syncthreads();
    }
}

CUDA_KERNEL(sample) {
    const struct view *logits = &c->in[0];
    const struct job a = {logits->data,
                          view_is_bf16(logits),
                          (const i32 *)c->in[1].data,
                          (const struct sample_how *)c->in[2].data,
                          is_present(&c->in[3]) ? (const u8 *)c->in[3].data : NULL,
                          (i32 *)c->out[0].data,
                          logits->dim[0],
                          (int)logits->dim[1],
                          (u64 *)c->scratch};
    const int blocks = (int)i64_max(1, i64_min(a.rows, SAMPLE_ROWS));
    return LAUNCH(e, sample_kernel, blocks, BLOCK, 0, a);
}
