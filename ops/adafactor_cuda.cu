/* adafactor_cuda.cu: a gradient divided by the root of its factored mean of squares; formulas in
 * adafactor.c. The gradient is read three times: by rows, a warp each (whose halves do the same),
 * by columns, a thread for each block of rows, and for the product. */
#include "ops/device/cuda_vec.h"

struct adafactor {
    const float *h;
    float *grad, *row, *col, *v, *a, *b, *sums;
    struct adafactor_size s;
};
DEVICE float gradient(const struct adafactor &t, i64 i) {
    return v16_max(-t.h[1], v16_min(t.h[1], v16_mul(t.grad[i], t.h[0])));
}
DEVICE float mean(const float *h, float *to, float now) {
    return *to = v16_fma(h[2], *to, v16_mul(h[3], now));
}
DEVICE float over(const float *h, float sum, i64 count) {
    return v16_add(v16_div(sum, (float)count), h[4]);
}
DEVICE float inverse_root(float x) { return v16_div(1, v16_sqrt(x)); }

__global__ void rows_kernel(struct adafactor t) {
    const i64 warps = (i64)gridDim.x * blockDim.x / 32;
    const int lane = threadIdx.x % 32;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 32; i < t.s.batch * t.s.rows;
         i += warps) {
        float sum = 0;
#pragma unroll 8
        for (i64 j = lane % 16; j < t.s.cols; j += 16) {
            const float g = gradient(t, i * t.s.cols + j);
            sum = v16_fma(g, g, sum);
        }
        sum = lanes_sum(sum);
        if (!lane) mean(t.h, t.row + i, over(t.h, sum, t.s.cols));
    }
}
__global__ void sums_kernel(struct adafactor t) {
    const i64 j = (i64)blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x / t.s.blocks,
              first = blockIdx.x % t.s.blocks * ADAFACTOR_ROWS, left = t.s.rows - first,
              at = (batch * t.s.rows + first) * t.s.cols + j;
    if (j >= t.s.cols) return;
    float sum = 0;
#pragma unroll 8
    for (i64 i = 0; i < ADAFACTOR_ROWS && i < left; i++) {
        const float g = gradient(t, at + i * t.s.cols);
        sum = v16_fma(g, g, sum);
    }
    t.sums[blockIdx.x * t.s.cols + j] = sum;
}
__global__ void cols_kernel(struct adafactor t) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x, batch = i / t.s.cols;
    if (batch >= t.s.batch) return;
    float sum = 0;
    for (i64 k = 0; k < t.s.blocks; k++)
        sum = v16_add(sum, t.sums[(batch * t.s.blocks + k) * t.s.cols + i % t.s.cols]);
    t.b[i] = inverse_root(mean(t.h, t.col + i, over(t.h, sum, t.s.rows)));
}
__global__ void means_kernel(struct adafactor t) { /* a block for each matrix */
    SHARED(float, by, 1);
    const float *row = t.row + blockIdx.x * t.s.rows;
    if (threadIdx.x < 32) {
        float sum = 0;
#pragma unroll 8
        for (i64 i = threadIdx.x % 16; i < t.s.rows; i += 16) sum = v16_add(sum, row[i]);
        sum = v16_div(lanes_sum(sum), (float)t.s.rows);
        if (!threadIdx.x) by[0] = v16_max(sum, t.h[5]);
    }
    __syncthreads();
    for (i64 i = threadIdx.x; i < t.s.rows; i += blockDim.x)
        t.a[blockIdx.x * t.s.rows + i] = inverse_root(v16_div(row[i], by[0]));
}
__global__ void product_kernel(struct adafactor t) {
    const i64 count = t.s.batch * t.s.rows * t.s.cols, stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        const float g = gradient(t, i);
        float f;
        if (t.v)
            f = inverse_root(mean(t.h, t.v + i, v16_fma(g, g, t.h[4])));
        else
            f = v16_mul(t.a[i / t.s.cols],
                        t.b[i / (t.s.rows * t.s.cols) * t.s.cols + i % t.s.cols]);
        t.grad[i] = v16_mul(g, v16_min(f, t.h[6]));
    }
}

CUDA_KERNEL(adafactor) {
    struct adafactor t = {(const float *)c->in[0].data,
                          (float *)c->out[0].data,
                          (float *)c->out[1].data,
                          (float *)c->out[2].data,
                          (float *)c->out[3].data,
                          (float *)c->scratch,
                          NULL,
                          NULL,
                          adafactor_size(&c->out[0])};
    const struct adafactor_size s = t.s;
    const i64 rows = s.batch * s.rows, cols = s.batch * s.cols;
    t.b = t.a + rows, t.sums = t.b + cols;
    const dim3 grid((unsigned)(s.batch * s.blocks), (unsigned)((s.cols + 127) / 128));
    if (!t.v && (LAUNCH(e, rows_kernel, grid_for(rows * 32, 256), 256, 0, t) < 0 ||
                 LAUNCH(e, sums_kernel, grid, 128, 0, t) < 0 ||
                 LAUNCH(e, cols_kernel, (int)((cols + 127) / 128), 128, 0, t) < 0 ||
                 LAUNCH(e, means_kernel, (int)s.batch, 256, 0, t) < 0))
        return -1;
    return LAUNCH(e, product_kernel, grid_for(rows * s.cols, 256), 256, 0, t);
}
