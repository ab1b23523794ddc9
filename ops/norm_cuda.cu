/* norm_cuda.cu: norms and their gradients; formulas and roundings in norm.c.
 *
 * A row's sum has 16 chains (NUMERICS.md 7), too few threads to keep memory busy. So a warp copies
 * its rows, which lie side by side, to shared memory with 16-byte asynchronous copies: one long
 * row, or as many short ones as make 4 KiB, so that an SM has tens of KiB under way for 2048 x 4096
 * as for a million heads of 128. Half a warp then sums a row from there, lane l the elements l, l +
 * 16, ..., and all lanes write the result: every operand is read once, each access 16 bytes wide,
 * and a warp waits for no other. Rows that are not whole 16-byte vectors, or longer than shared
 * memory, are read in place, one element at a time. dw is a sum over rows: columns_cuda.cu. */
#include "ops/device/cuda_vec.h"
#include "ops/norm_int.h"

enum { WARPS = 4, GROUP = 32 }; /* per block; rows per warp at most */

struct span { /* rows of one launch, cut into groups for warps */
    i64 rows;
    int cols, group, bytes; /* bytes: of a group's copy of one operand */
    bool wide;
    int warps, blocks;
    i64 shared;
};

static struct span span_of(const struct norm &a, int operands, bool aligned) {
    struct span s = {.rows = a.rows, .cols = (int)a.width};
    const i64 row = s.cols * (a.is_bf16 ? 2 : 4), most = cuda_machine.shared_per_block - 2048;
    s.wide = aligned && row % 16 == 0 && row * operands <= most;
    s.group = (int)i64_max(1, i64_min(GROUP, 4096 / row));
    s.bytes = s.wide ? (int)row * s.group : 0;
    s.warps = (int)i64_max(1, i64_min(WARPS, (64 << 10) / i64_max(1, (i64)s.bytes * operands)));
    s.shared = (i64)s.bytes * operands * s.warps;
    const i64 rows = (i64)s.group * s.warps;
    s.blocks = (int)i64_max(1, (s.rows + rows - 1) / rows);
    return s;
}

struct place {     /* of a warp in its span */
    i64 first, at; /* row, element */
    int rows, count;
};
DEVICE struct place place_of(const struct span &s) {
    struct place p;
    p.first = ((i64)blockIdx.x * s.warps + threadIdx.x / 32) * s.group;
    p.at = p.first * s.cols;
    p.rows = (int)(s.rows - p.first < s.group ? s.rows - p.first : s.group);
    p.count = p.rows * s.cols;
    return p;
}
/* Where the warp's rows of operand `k` are read: its copy, which is started here, or in place. */
template <bool is_bf16, bool wide>
DEVICE const void *open_span(const struct span &s, const struct place &p, u8 *memory, int k,
                             const void *global) {
    const u8 *from = (const u8 *)global + p.at * (is_bf16 ? 2 : 4);
    if (!wide) return from;
    stage(memory + (size_t)k * s.bytes, from, p.count * (is_bf16 ? 2 : 4));
    return memory + (size_t)k * s.bytes;
}

/* h = x + r, rounded: to memory, and over the copy of x. */
template <bool is_bf16, bool wide>
DEVICE void add_span(void *h, const struct place &p, u8 *copy, const void *x, const void *r) {
    constexpr int width = span_width<is_bf16, wide>;
    for (int i = (int)threadIdx.x % 32 * width; i < p.count; i += 32 * width) {
        float a[width], b[width];
        span_load<is_bf16, wide>(a, x, i), span_load<is_bf16, wide>(b, r, i);
#pragma unroll
        for (int k = 0; k < width; k++) a[k] = v16_add(a[k], b[k]);
        span_store<is_bf16, wide>(h, p.at + i, a);
        if (wide) span_store<is_bf16, wide>(copy, i, a);
    }
}

/* The factor of z = x * rstd at element i of the weights. */
template <bool is_bf16, bool wide> DEVICE void weight_fetch(float *w, const struct norm &a, i64 i) {
    constexpr int width = span_width<is_bf16, wide>;
    if (a.w) span_fetch<is_bf16, wide>(w, a.w, i);
#pragma unroll
    for (int k = 0; k < width; k++)
        w[k] = !a.w ? 1 : a.offset < 0 || a.offset > 0 ? v16_add(a.offset, w[k]) : w[k];
}
DEVICE float weight_at(const struct norm &a, i64 i, bool is_bf16) {
    if (!a.w) return 1;
    const float w = get1(a.w, i, is_bf16);
    return a.offset < 0 || a.offset > 0 ? v16_add(a.offset, w) : w;
}
/* Where the weights of a row of the warp begin. */
DEVICE i64 affine_of(const struct norm &a, const struct place &p, int row) {
    return a.weights == 1 ? 0 : (p.first + row) % a.weights * a.width;
}

template <enum norm_form form, bool centred, bool is_bf16, bool wide>
__global__ void norm_kernel(struct norm a, struct span span) {
    constexpr int width = span_width<is_bf16, wide>;
    DYNAMIC_SHARED(u8, memory);
    SHARED(float2, scales, WARPS * GROUP); /* x: rstd, y: mean */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, cols = span.cols;
    const struct place p = place_of(span);
    if (p.rows <= 0) return;
    u8 *copy = memory + (size_t)warp * span.bytes * (form == NORM_ALONE ? 1 : 2);
    float2 *scale = scales + warp * GROUP;
    const void *x = open_span<is_bf16, wide>(span, p, copy, 0, a.x), *r = NULL;
    if (form != NORM_ALONE) r = open_span<is_bf16, wide>(span, p, copy, 1, a.r);
    copy_async_commit(), copy_async_wait<0>();
    __syncwarp();
    if (form == NORM_SUM_FIRST) {
        add_span<is_bf16, wide>(a.h, p, copy, x, r);
        if (!wide) x = (const u8 *)a.h + p.at * (is_bf16 ? 2 : 4);
        __syncwarp();
    }
    for (int pair = 0; pair < p.rows; pair += 2) { /* a row for each half of the warp */
        const int row = min(pair + lane / 16, p.rows - 1);
        const i64 from = (i64)row * cols;
        float sum = 0, mean = 0;
        if (centred) {
#pragma unroll 16
            for (int i = lane % 16; i < cols; i += 16)
                sum = v16_add(sum, get1(x, from + i, is_bf16));
            mean = v16_div(lanes_sum(sum), (float)cols);
            sum = 0;
        }
#pragma unroll 16
        for (int i = lane % 16; i < cols; i += 16) {
            const float v = get1(x, from + i, is_bf16), d = centred ? v16_sub(v, mean) : v;
            sum = v16_fma(d, d, sum);
        }
        const float s = f32_rsqrt(v16_add(v16_div(lanes_sum(sum), (float)cols), a.eps));
        if (lane % 16 || row != pair + lane / 16) continue;
        scale[row] = make_float2(s, mean);
        a.rstd[p.first + row] = s;
        if (centred) a.mean[p.first + row] = mean;
    }
    __syncwarp();
#pragma unroll 4
    for (int i = lane * width; i < p.count; i += 32 * width) {
        const int row = span.group == 1 ? 0 : i / cols;
        const i64 affine = affine_of(a, p, row) + i - row * cols;
        float v[width], w[width], b[width];
        span_load<is_bf16, wide>(v, x, i), weight_fetch<is_bf16, wide>(w, a, affine);
        if (form == NORM_SUM_AFTER) span_load<is_bf16, wide>(b, r, i);
        if (centred && a.b) span_fetch<is_bf16, wide>(b, a.b, affine);
        const float2 s = scale[row];
#pragma unroll
        for (int k = 0; k < width; k++) {
            const float n = v16_mul(centred ? v16_sub(v[k], s.y) : v[k], s.x);
            const bool plus = form == NORM_SUM_AFTER || (centred && a.b);
            v[k] = plus ? v16_fma(n, w[k], b[k]) : v16_mul(n, w[k]);
        }
        span_store<is_bf16, wide>(a.y, p.at + i, v);
    }
}

template <enum norm_form form, bool centred>
static int norm_run(const struct op_call *c, struct err *e) {
    const struct norm a = norm_of(c, form, centred);
    const void *all[] = {a.x, a.r, a.w, a.b, a.h, a.y};
    const struct span s = span_of(a, form == NORM_ALONE ? 1 : 2, aligned16(all, 6));
    const int blocks = s.blocks, threads = 32 * s.warps;
    if (s.wide)
        return a.is_bf16 ? LAUNCH(e, (norm_kernel<form, centred, true, true>), blocks, threads,
                                  s.shared, a, s)
                         : LAUNCH(e, (norm_kernel<form, centred, false, true>), blocks, threads,
                                  s.shared, a, s);
    return a.is_bf16 ? LAUNCH(e, (norm_kernel<form, centred, true, false>), blocks, threads,
                              s.shared, a, s)
                     : LAUNCH(e, (norm_kernel<form, centred, false, false>), blocks, threads,
                              s.shared, a, s);
}
CUDA_KERNEL(rmsnorm) { return norm_run<NORM_ALONE, false>(c, e); }
CUDA_KERNEL(add_rmsnorm) { return norm_run<NORM_SUM_FIRST, false>(c, e); }
CUDA_KERNEL(rmsnorm_add) { return norm_run<NORM_SUM_AFTER, false>(c, e); }
CUDA_KERNEL(layernorm) { return norm_run<NORM_ALONE, true>(c, e); }
CUDA_KERNEL(add_layernorm) { return norm_run<NORM_SUM_FIRST, true>(c, e); }

/* ---- gradients ---- */
template <bool centred, bool is_bf16, bool wide>
__global__ void dx_kernel(struct norm a, struct span span) {
    constexpr int width = span_width<is_bf16, wide>;
    DYNAMIC_SHARED(u8, memory);
    SHARED(float4, scales, WARPS * GROUP); /* rstd, slope, mean of x, mean of g */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, cols = span.cols;
    const struct place p = place_of(span);
    if (p.rows <= 0) return;
    u8 *copy = memory + (size_t)warp * span.bytes * (a.r ? 3 : 2);
    float4 *scale = scales + warp * GROUP;
    const void *dy = open_span<is_bf16, wide>(span, p, copy, 0, a.dy), *dh = NULL;
    const void *x = open_span<is_bf16, wide>(span, p, copy, 1, a.x);
    if (a.r) dh = open_span<is_bf16, wide>(span, p, copy, 2, a.r);
    copy_async_commit(), copy_async_wait<0>();
    __syncwarp();
    for (int pair = 0; pair < p.rows; pair += 2) {
        const int row = min(pair + lane / 16, p.rows - 1);
        const i64 affine = affine_of(a, p, row);
        const float s = a.rstd[p.first + row], mean = centred ? a.mean[p.first + row] : 0;
        float sum = 0, dot = 0;
#pragma unroll 8
        for (int i = lane % 16; i < cols; i += 16) {
            const i64 at = (i64)row * cols + i;
            const float g = v16_mul(get1(dy, at, is_bf16), weight_at(a, affine + i, is_bf16));
            float v = get1(x, at, is_bf16);
            if (centred) v = v16_mul(v16_sub(v, mean), s), sum = v16_add(sum, g);
            dot = v16_fma(g, v, dot);
        }
        const float by = centred ? 1 : v16_mul(s, s);
        const float slope = -v16_div(v16_mul(lanes_sum(dot), by), (float)cols);
        const float each = centred ? v16_div(lanes_sum(sum), (float)cols) : 0;
        if (lane % 16 == 0 && row == pair + lane / 16)
            scale[row] = make_float4(s, slope, mean, each);
    }
    __syncwarp();
#pragma unroll 4
    for (int i = lane * width; i < p.count; i += 32 * width) {
        const int row = span.group == 1 ? 0 : i / cols;
        float d[width], v[width], w[width], b[width];
        span_load<is_bf16, wide>(d, dy, i), span_load<is_bf16, wide>(v, x, i);
        weight_fetch<is_bf16, wide>(w, a, affine_of(a, p, row) + i - row * cols);
        if (a.r) span_load<is_bf16, wide>(b, dh, i);
        const float4 s = scale[row];
#pragma unroll
        for (int k = 0; k < width; k++) {
            float g = v16_mul(d[k], w[k]), z = v[k];
            if (centred) g = v16_sub(g, s.w), z = v16_mul(v16_sub(z, s.z), s.x);
            v[k] = v16_mul(s.x, v16_fma(z, s.y, g));
            if (a.r) v[k] = v16_add(v[k], b[k]);
        }
        span_store<is_bf16, wide>(a.dx, p.at + i, v);
    }
}

template <bool centred> static int dx_run(const struct norm &a, struct err *e) {
    const void *all[] = {a.r, a.dy, a.x, a.w, a.dx};
    const struct span s = span_of(a, a.r ? 3 : 2, aligned16(all, 5));
    const int blocks = s.blocks, threads = 32 * s.warps;
    if (s.wide)
        return a.is_bf16
                   ? LAUNCH(e, (dx_kernel<centred, true, true>), blocks, threads, s.shared, a, s)
                   : LAUNCH(e, (dx_kernel<centred, false, true>), blocks, threads, s.shared, a, s);
    return a.is_bf16
               ? LAUNCH(e, (dx_kernel<centred, true, false>), blocks, threads, s.shared, a, s)
               : LAUNCH(e, (dx_kernel<centred, false, false>), blocks, threads, s.shared, a, s);
}
template <bool centred> static int back_run(const struct op_call *c, int first, struct err *e) {
    const struct norm a = norm_back_of(c, first, centred);
    struct columns k = {.dy = a.dy, .rows = a.rows / a.weights, .cols = a.width * a.weights};
    if (a.dx && dx_run<centred>(a, e)) return -1;
    k.sum = a.db;
    if (a.db && column_sums(k, a.is_bf16, e)) return -1;
    k.x = a.x, k.mean = a.mean, k.scale = a.rstd, k.heads = a.weights, k.sum = a.dw;
    return a.dw ? column_sums(k, a.is_bf16, e) : 0;
}
CUDA_KERNEL(rmsnorm_back) { return back_run<false>(c, 0, e); }
CUDA_KERNEL(add_rmsnorm_back) { return back_run<false>(c, 1, e); }
CUDA_KERNEL(layernorm_back) { return back_run<true>(c, 0, e); }
CUDA_KERNEL(add_layernorm_back) { return back_run<true>(c, 1, e); }
