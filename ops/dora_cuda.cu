/* dora_cuda.cu: formulas and roundings: dora.c. The products are gemm_cuda's; a thread has a column
 * and some rows, or, for dm's chain, all of them. */
#include "ops/cuda_vec.h"
#include "ops/gemm_cuda.h"

static int product(const struct view *a, const struct view *b, float *c, struct err *e) {
    struct gemm g = {};
    g.m = a->dim[0], g.n = b->dim[0], g.k = a->dim[1], g.dtype = a->dtype;
    g.a = a->data, g.lda = a->dim[1], g.b = b->data, g.ldb = b->dim[1], g.b_t = true;
    g.c = c, g.ldc = b->dim[0], g.c_dtype = F32;
    return gemm_cuda(&g, e);
}

/* Half a warp for each row (NUMERICS.md 7). */
__global__ void norm_kernel(const void *w, const void *b, const float *p, const float *gram,
                            float *norm, i64 rows, i64 cols, int r, float s, bool half) {
    i64 o = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 16;
    const bool real = o < rows;
    if (!real) o = rows - 1;
    float sum = 0, cross = 0, square = 0;
#pragma unroll 8
    for (i64 i = threadIdx.x % 16; i < cols; i += 16) {
        const float x = get1(w, o * cols + i, half);
        sum = v16_fma(x, x, sum);
    }
    sum = lanes_sum(sum);
    if (threadIdx.x % 16 || !real) return;
    for (int j = 0; j < r; j++) {
        float g = 0;
        for (int k = 0; k < r; k++) g = v16_fma(gram[j * r + k], get1(b, o * r + k, half), g);
        const float at = get1(b, o * r + j, half);
        cross = v16_fma(at, p[o * r + j], cross), square = v16_fma(at, g, square);
    }
    norm[o] = v16_sqrt(v16_fma(v16_mul(s, s), square, v16_fma(v16_mul(2, s), cross, sum)));
}
CUDA_KERNEL(dora_norm) {
    const struct view *w = &c->in[0], *a = &c->in[1];
    const i64 rows = w->dim[0], r = a->dim[0];
    float *p = (float *)c->scratch, *gram = p + rows * r;
    if (product(w, a, p, e) || product(a, a, gram, e)) return -1;
    return LAUNCH(e, norm_kernel, (unsigned)((rows + 7) / 8), 128, 0, w->data, c->in[2].data, p,
                  gram, (float *)c->out[0].data, rows, w->dim[1], (int)r,
                  (float)((const struct lora_attr *)c->attr)->scale, is_half(w));
}

struct dora {
    const void *x, *u, *m, *bias; /* x: what is multiplied by m / norm */
    const float *norm;
    void *y;
    float *dm;
    i64 rows, cols;
};
template <bool half> __global__ void dora_kernel(struct dora a) {
    const i64 col = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= a.cols) return;
    const float g = v16_div(get1(a.m, col, half), a.norm[col]);
    const float plus = a.bias ? get1(a.bias, col, half) : 0;
    for (i64 n = blockIdx.y; n < a.rows; n += gridDim.y) {
        const float x = get1(a.x, n * a.cols + col, half);
        put1(a.y, n * a.cols + col, a.bias ? v16_fma(x, g, plus) : v16_mul(x, g), half);
    }
}
template <bool half> __global__ void dm_kernel(struct dora a) {
    const i64 col = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= a.cols) return;
    const float inverse = v16_div(1, a.norm[col]);
    float sum = a.dm[col];
#pragma unroll 8
    for (i64 n = 0; n < a.rows; n++)
        sum = v16_fma(get1(a.x, n * a.cols + col, half),
                      v16_mul(get1(a.u, n * a.cols + col, half), inverse), sum);
    a.dm[col] = sum;
}
static int dora_run(const struct op_call *c, int back, struct err *e) {
    struct dora a = {};
    a.x = c->in[0].data, a.u = c->in[1].data, a.m = c->in[1 + back].data;
    a.norm = (const float *)c->in[2 + back].data, a.bias = back ? NULL : c->in[3].data;
    a.y = c->out[0].data, a.dm = back ? (float *)c->out[1].data : NULL;
    a.rows = c->in[0].dim[0], a.cols = c->in[0].dim[1];
    const bool half = is_half(&c->in[0]);
    const unsigned across = (unsigned)((a.cols + 127) / 128);
    const dim3 grid(across, (unsigned)i64_max(1, i64_min(a.rows, cuda_machine.sms * 16 / across)));
    if (a.y && (half ? LAUNCH(e, dora_kernel<true>, grid, 128, 0, a)
                     : LAUNCH(e, dora_kernel<false>, grid, 128, 0, a)))
        return -1;
    if (!a.dm) return 0;
    return half ? LAUNCH(e, dm_kernel<true>, across, 128, 0, a)
                : LAUNCH(e, dm_kernel<false>, across, 128, 0, a);
}
CUDA_KERNEL(dora) { return dora_run(c, 0, e); }
CUDA_KERNEL(dora_back) { return dora_run(c, 1, e); }
