/* experts_cuda.cu: rows to the experts and back; formulas in experts.c. One pass over memory: a
 * thread takes 16 bytes of a row of the result (one element where pointers or rows are not aligned
 * to that), a warp 32 neighbours of it. */
#include "ops/device/cuda_vec.h"

enum { BLOCK = 256 };

struct trip {
    const void *x;
    const i32 *plan; /* gather: order [M]; combine: place [N, k] */
    const float *weight;
    void *y;
    i64 rows; /* of y */
    int width, k;
};

/* gather: y[i] = x[plan[i] / k] by its weight; combine: y[n] = sum of x[plan[n * k + slot]]. */
template <bool is_bf16, bool wide, bool gather> __global__ void trip_kernel(struct trip a) {
    constexpr int width = span_width<is_bf16, wide>;
    const i64 items = a.width / width, stride = (i64)gridDim.x * BLOCK;
    for (i64 at = (i64)blockIdx.x * BLOCK + threadIdx.x; at < a.rows * items; at += stride) {
        const i64 row = at / items, col = at % items * width;
        float sum[width], x[width];
        if (gather) {
            const i32 t = a.plan[row];
            span_fetch<is_bf16, wide>(sum, a.x, (i64)(t / a.k) * a.width + col);
            for (int i = 0; a.weight && i < width; i++) sum[i] = v16_mul(a.weight[t], sum[i]);
        } else {
            for (int i = 0; i < width; i++) sum[i] = 0;
#pragma unroll 4
            for (int s = 0; s < a.k; s++) {
                const i64 t = row * a.k + s;
                span_fetch<is_bf16, wide>(x, a.x, (i64)a.plan[t] * a.width + col);
                const float w = a.weight ? a.weight[t] : 1;
                for (int i = 0; i < width; i++)
                    sum[i] = a.weight ? v16_fma(w, x[i], sum[i]) : v16_add(sum[i], x[i]);
            }
        }
        span_store<is_bf16, wide>(a.y, row * a.width + col, sum);
    }
}
template <bool is_bf16, bool gather> static int trip_run(const struct trip &a, struct err *e) {
    const void *all[] = {a.x, a.y};
    constexpr int width = is_bf16 ? 8 : 4;
    if (aligned16(all, 2) && a.width % width == 0)
        return LAUNCH(e, (trip_kernel<is_bf16, true, gather>),
                      grid_for(a.rows * (a.width / width), BLOCK), BLOCK, 0, a);
    return LAUNCH(e, (trip_kernel<is_bf16, false, gather>), grid_for(a.rows * a.width, BLOCK),
                  BLOCK, 0, a);
}
CUDA_KERNEL(expert_gather) {
    const struct trip a = {
        c->in[0].data,   (const i32 *)c->in[1].data, (const float *)c->in[3].data, c->out[0].data,
        c->in[1].dim[0], (int)c->in[0].dim[1],       (int)c->in[2].dim[1]};
    return view_is_bf16(&c->in[0]) ? trip_run<true, true>(a, e) : trip_run<false, true>(a, e);
}
CUDA_KERNEL(expert_combine) {
    const struct trip a = {
        c->in[0].data,   (const i32 *)c->in[2].data, (const float *)c->in[3].data, c->out[0].data,
        c->in[2].dim[0], (int)c->in[0].dim[1],       (int)c->in[2].dim[1]};
    return view_is_bf16(&c->in[0]) ? trip_run<true, false>(a, e) : trip_run<false, false>(a, e);
}

/* Sixteen threads, the lanes of NUMERICS.md 7, take an assignment. */
__global__ void weight_kernel(const void *dy, const void *rows, const i32 *place, float *dweight,
                              i64 count, int width, int k, bool is_bf16) {
    const int lane = threadIdx.x % 16;
    const i64 at = (i64)blockIdx.x * (BLOCK / 16) + threadIdx.x / 16, t = at < count ? at : 0;
    const i64 from = t / k * width, to = (i64)place[t] * width;
    float sum = 0;
#pragma unroll 4
    for (int d = lane; d < (width + 15) / 16 * 16; d += 16)
        sum = v16_fma(d < width ? get1(dy, from + d, is_bf16) : 0,
                      d < width ? get1(rows, to + d, is_bf16) : 0, sum);
    sum = lanes_sum(sum);
    if (!lane && at < count) dweight[t] = sum;
}
CUDA_KERNEL(expert_weight_back) {
    const i64 count = view_count(&c->in[2]);
    return LAUNCH(e, weight_kernel, (unsigned)((count + BLOCK / 16 - 1) / (BLOCK / 16)), BLOCK, 0,
                  c->in[0].data, c->in[1].data, (const i32 *)c->in[2].data, (float *)c->out[0].data,
                  count, (int)c->in[0].dim[1], (int)c->in[2].dim[1], view_is_bf16(&c->in[0]));
}
