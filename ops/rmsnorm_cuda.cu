/* rmsnorm_cuda.cu: norms and their gradients; formulas and roundings in rmsnorm.c.
 *
 * A row's sum has 16 chains (NUMERICS.md 7), too few threads to keep memory busy. So a warp copies
 * its rows, which lie side by side, to shared memory with 16-byte asynchronous copies: one long
 * row, or as many short ones as make 4 KiB, so that an SM has tens of KiB under way for 2048 x 4096
 * as for a million heads of 128. Half a warp then sums a row from there, lane l the elements l, l +
 * 16, ..., and all lanes write the result: every operand is read once, each access 16 bytes wide,
 * and a warp waits for no other. Rows that are not whole 16-byte vectors, or longer than shared
 * memory, are read in place, one element at a time. dw is a sum over rows: columns_cuda.cu. */
#include "ops/cuda_vec.h"

enum { WARPS = 4, GROUP = 32 }; /* per block; rows per warp at most */

struct span { /* rows of one launch, cut into groups for warps */
    i64 rows;
    int cols, group, bytes; /* bytes: of a group's copy of one operand */
    bool wide;
    int warps, blocks;
    i64 shared;
};

static struct span span_of(const struct view *x, int operands, bool aligned) {
    struct span s = {.rows = view_rows(x), .cols = (int)x->dim[x->rank - 1]};
    const i64 row = s.cols * dtype_size(x->dtype), most = cuda_machine.shared_per_block - 2048;
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
template <bool half, bool wide>
DEVICE const void *open_span(const struct span &s, const struct place &p, u8 *memory, int k,
                             const void *global) {
    const u8 *from = (const u8 *)global + p.at * (half ? 2 : 4);
    if (!wide) return from;
    stage(memory + (size_t)k * s.bytes, from, p.count * (half ? 2 : 4));
    return memory + (size_t)k * s.bytes;
}

enum form { ALONE, SUM_FIRST, SUM_AFTER };
struct norm {
    struct span span;
    const void *x, *r, *w;
    void *h, *y;
    float *rstd, eps;
};

/* h = x + r, rounded: to memory, and over the copy of x. */
template <bool half, bool wide>
DEVICE void add_span(void *h, const struct place &p, u8 *copy, const void *x, const void *r) {
    constexpr int width = span_width<half, wide>;
    for (int i = (int)threadIdx.x % 32 * width; i < p.count; i += 32 * width) {
        float a[width], b[width];
        span_load<half, wide>(a, x, i), span_load<half, wide>(b, r, i);
#pragma unroll
        for (int k = 0; k < width; k++) a[k] = v16_add(a[k], b[k]);
        span_store<half, wide>(h, p.at + i, a);
        if (wide) span_store<half, wide>(copy, i, a);
    }
}

template <enum form form, bool half, bool wide> __global__ void norm_kernel(struct norm a) {
    constexpr int width = span_width<half, wide>;
    DYNAMIC_SHARED(u8, memory);
    SHARED(float, scales, WARPS *GROUP);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, cols = a.span.cols;
    const struct place p = place_of(a.span);
    if (p.rows <= 0) return;
    u8 *copy = memory + (size_t)warp * a.span.bytes * (form == ALONE ? 1 : 2);
    float *scale = scales + warp * GROUP;
    const void *x = open_span<half, wide>(a.span, p, copy, 0, a.x), *r = NULL;
    if (form != ALONE) r = open_span<half, wide>(a.span, p, copy, 1, a.r);
    copy_async_commit(), copy_async_wait<0>();
    __syncwarp();
    if (form == SUM_FIRST) {
        add_span<half, wide>(a.h, p, copy, x, r);
        if (!wide) x = (const u8 *)a.h + p.at * (half ? 2 : 4);
        __syncwarp();
    }
    for (int pair = 0; pair < p.rows; pair += 2) { /* a row for each half of the warp */
        const int row = min(pair + lane / 16, p.rows - 1);
        float sum = 0;
#pragma unroll 16
        for (int i = lane % 16; i < cols; i += 16) {
            const float v = get1(x, (i64)row * cols + i, half);
            sum = v16_fma(v, v, sum);
        }
        const float s = f32_rsqrt(v16_add(v16_div(lanes_sum(sum), (float)cols), a.eps));
        if (lane % 16 == 0 && row == pair + lane / 16) scale[row] = a.rstd[p.first + row] = s;
    }
    __syncwarp();
#pragma unroll 4
    for (int i = lane * width; i < p.count; i += 32 * width) {
        const int row = a.span.group == 1 ? 0 : i / cols;
        float v[width], w[width], b[width];
        span_load<half, wide>(v, x, i), span_fetch<half, wide>(w, a.w, i - row * cols);
        if (form == SUM_AFTER) span_load<half, wide>(b, r, i);
        const float s = scale[row];
#pragma unroll
        for (int k = 0; k < width; k++) {
            const float n = v16_mul(v[k], s);
            v[k] = form == SUM_AFTER ? v16_fma(n, w[k], b[k]) : v16_mul(n, w[k]);
        }
        span_store<half, wide>(a.y, p.at + i, v);
    }
}

template <enum form form> static int norm_run(const struct op_call *c, struct err *e) {
    const struct view *in = c->in, *out = c->out;
    constexpr int sum = form != ALONE, first = form == SUM_FIRST;
    struct norm a = {.x = in[0].data,
                     .r = sum ? in[1].data : NULL,
                     .w = in[1 + sum].data,
                     .h = first ? out[0].data : NULL,
                     .y = out[first].data,
                     .rstd = (float *)out[first + 1].data,
                     .eps = (float)((const struct norm_attr *)c->attr)->eps};
    const void *all[] = {a.x, a.r, a.w, a.h, a.y};
    const bool half = is_half(&in[0]);
    a.span = span_of(&in[0], 1 + sum, aligned16(all, 5));
    const int blocks = a.span.blocks, threads = 32 * a.span.warps;
    const i64 shared = a.span.shared;
    if (a.span.wide)
        return half ? LAUNCH(e, (norm_kernel<form, true, true>), blocks, threads, shared, a)
                    : LAUNCH(e, (norm_kernel<form, false, true>), blocks, threads, shared, a);
    return half ? LAUNCH(e, (norm_kernel<form, true, false>), blocks, threads, shared, a)
                : LAUNCH(e, (norm_kernel<form, false, false>), blocks, threads, shared, a);
}
CUDA_KERNEL(rmsnorm) { return norm_run<ALONE>(c, e); }
CUDA_KERNEL(add_rmsnorm) { return norm_run<SUM_FIRST>(c, e); }
CUDA_KERNEL(rmsnorm_add) { return norm_run<SUM_AFTER>(c, e); }

/* ---- gradients ---- */
struct back {
    struct span span;
    const void *dh, *dy, *x, *w; /* dh: may be NULL */
    const float *rstd;
    void *dx;
};

template <bool half, bool wide> __global__ void dx_kernel(struct back a) {
    constexpr int width = span_width<half, wide>;
    DYNAMIC_SHARED(u8, memory);
    SHARED(float2, scales, WARPS * GROUP);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, cols = a.span.cols;
    const struct place p = place_of(a.span);
    if (p.rows <= 0) return;
    u8 *copy = memory + (size_t)warp * a.span.bytes * (a.dh ? 3 : 2);
    float2 *scale = scales + warp * GROUP; /* x: rstd, y: slope */
    const void *dy = open_span<half, wide>(a.span, p, copy, 0, a.dy), *dh = NULL;
    const void *x = open_span<half, wide>(a.span, p, copy, 1, a.x);
    if (a.dh) dh = open_span<half, wide>(a.span, p, copy, 2, a.dh);
    copy_async_commit(), copy_async_wait<0>();
    __syncwarp();
    for (int pair = 0; pair < p.rows; pair += 2) {
        const int row = min(pair + lane / 16, p.rows - 1);
        float dot = 0;
#pragma unroll 16
        for (int i = lane % 16; i < cols; i += 16) {
            const i64 at = (i64)row * cols + i;
            dot = v16_fma(v16_mul(get1(dy, at, half), get1(a.w, i, half)), get1(x, at, half), dot);
        }
        const float s = a.rstd[p.first + row];
        const float slope = -v16_div(v16_mul(lanes_sum(dot), v16_mul(s, s)), (float)cols);
        if (lane % 16 == 0 && row == pair + lane / 16) scale[row] = make_float2(s, slope);
    }
    __syncwarp();
#pragma unroll 4
    for (int i = lane * width; i < p.count; i += 32 * width) {
        const int row = a.span.group == 1 ? 0 : i / cols;
        float d[width], v[width], w[width], b[width];
        span_load<half, wide>(d, dy, i), span_load<half, wide>(v, x, i);
        span_fetch<half, wide>(w, a.w, i - row * cols);
        if (a.dh) span_load<half, wide>(b, dh, i);
        const float2 s = scale[row];
#pragma unroll
        for (int k = 0; k < width; k++) {
            v[k] = v16_mul(s.x, v16_fma(v[k], s.y, v16_mul(d[k], w[k])));
            if (a.dh) v[k] = v16_add(v[k], b[k]);
        }
        span_store<half, wide>(a.dx, p.at + i, v);
    }
}

static int dx_run(struct back a, const struct view *x, struct err *e) {
    const void *all[] = {a.dh, a.dy, a.x, a.w, a.dx};
    const bool half = is_half(x);
    a.span = span_of(x, a.dh ? 3 : 2, aligned16(all, 5));
    const int blocks = a.span.blocks, threads = 32 * a.span.warps;
    const i64 shared = a.span.shared;
    if (a.span.wide)
        return half ? LAUNCH(e, (dx_kernel<true, true>), blocks, threads, shared, a)
                    : LAUNCH(e, (dx_kernel<false, true>), blocks, threads, shared, a);
    return half ? LAUNCH(e, (dx_kernel<true, false>), blocks, threads, shared, a)
                : LAUNCH(e, (dx_kernel<false, false>), blocks, threads, shared, a);
}
static int back_run(const struct op_call *c, int first, struct err *e) {
    const struct view *in = c->in + first;
    const struct back a = {.dh = first ? c->in[0].data : NULL,
                           .dy = in[0].data,
                           .x = in[1].data,
                           .w = in[2].data,
                           .rstd = (const float *)in[3].data,
                           .dx = c->out[0].data};
    if (a.dx && dx_run(a, &in[1], e)) return -1;
    if (!c->out[1].data) return 0;
    return column_sums(a.dy, a.x, a.rstd, (float *)c->out[1].data, view_rows(&in[1]), in[2].dim[0],
                       is_half(&in[1]), e);
}
CUDA_KERNEL(rmsnorm_back) { return back_run(c, 0, e); }
CUDA_KERNEL(add_rmsnorm_back) { return back_run(c, 1, e); }
