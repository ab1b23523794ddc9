/* dora_cuda.cu: formulas and roundings: dora.c. The products are gemm_cuda's; a thread has a column
 * and some rows, or, for dm's chain, all of them. */
#include "ops/device/cuda_vec.h"
#include "ops/gemm/gemm_cuda.h"

static int product(const struct view *a, const struct view *b, bool columns, float *c,
                   struct err *e) {
    struct gemm g = {};
    g.m = a->dim[columns], g.n = b->dim[columns], g.k = a->dim[!columns], g.dtype = a->dtype;
    g.a = a->data, g.lda = a->dim[1], g.a_t = columns;
    g.b = b->data, g.ldb = b->dim[1], g.b_t = !columns;
    g.c = c, g.ldc = b->dim[columns], g.c_dtype = F32;
    return gemm_cuda(&g, e);
}

struct norms { /* p [r, out], gram [r, r] */
    const void *w, *b;
    const float *p, *gram;
    float *norm, s;
    i64 out, in;
    int r;
    bool is_bf16;
};
DEVICE void norm_put(const struct norms &n, i64 o, float sum) {
    float cross = 0, square = 0;
    for (int j = 0; j < n.r; j++) {
        float g = 0;
        for (int k = 0; k < n.r; k++)
            g = v16_fma(n.gram[j * n.r + k], get1(n.b, o * n.r + k, n.is_bf16), g);
        const float at = get1(n.b, o * n.r + j, n.is_bf16);
        cross = v16_fma(at, n.p[j * n.out + o], cross), square = v16_fma(at, g, square);
    }
    n.norm[o] = v16_sqrt(v16_fma(v16_mul(n.s, n.s), square, v16_fma(v16_mul(2, n.s), cross, sum)));
}
/* Half a warp for each row (NUMERICS.md 7). */
__global__ void norm_kernel(struct norms n) {
    i64 o = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 16;
    const bool real = o < n.out;
    if (!real) o = n.out - 1;
    float sum = 0;
#pragma unroll 8
    for (i64 i = threadIdx.x % 16; i < n.in; i += 16) {
        const float x = get1(n.w, o * n.in + i, n.is_bf16);
        sum = v16_fma(x, x, sum);
    }
    sum = lanes_sum(sum);
    if (threadIdx.x % 16 == 0 && real) norm_put(n, o, sum);
}
__global__ void column_norm_kernel(struct norms n) {
    const i64 o = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (o >= n.out) return;
    float sum = 0;
#pragma unroll 16
    for (i64 i = 0; i < n.in; i++) {
        const float x = get1(n.w, i * n.out + o, n.is_bf16);
        sum = v16_fma(x, x, sum);
    }
    norm_put(n, o, sum);
}
CUDA_KERNEL(dora_norm) {
    const struct dora_attr at = *(const struct dora_attr *)c->attr;
    const struct view *a = &c->in[0];
    struct view w = c->in[1];
    struct norms n = {};
    n.out = c->out[0].dim[0], n.in = w.dim[!at.columns], n.r = (int)c->in[2].dim[1];
    n.b = c->in[2].data, n.norm = (float *)c->out[0].data, n.s = (float)at.scale;
    n.is_bf16 = view_is_bf16(a);
    float *p = (float *)c->scratch, *gram = p + n.out * n.r;
    if (w.packing) {
        const i64 used = (n.out * n.r + n.r * n.r) * (i64)sizeof *p;
        w.data = (u8 *)c->scratch + round_up(used, 64), w.packing = NULL;
        if (c->in[1].packing->cuda(w.data, &c->in[1], n.is_bf16, e)) return -1;
    }
    n.w = w.data, n.p = p, n.gram = gram;
    if (product(a, &w, at.columns, p, e) || product(a, a, at.columns, gram, e)) return -1;
    return at.columns ? LAUNCH(e, column_norm_kernel, (unsigned)((n.out + 31) / 32), 32, 0, n)
                      : LAUNCH(e, norm_kernel, (unsigned)((n.out + 7) / 8), 128, 0, n);
}

struct dora {
    const void *x, *u, *m, *bias; /* x: what is multiplied by m / norm */
    const float *norm;
    void *y;
    float *dm;
    i64 rows, cols;
};
template <bool is_bf16> __global__ void dora_kernel(struct dora a) {
    const i64 col = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= a.cols) return;
    const float g = v16_div(get1(a.m, col, is_bf16), a.norm[col]);
    const float plus = a.bias ? get1(a.bias, col, is_bf16) : 0;
    for (i64 n = blockIdx.y; n < a.rows; n += gridDim.y) {
        const float x = get1(a.x, n * a.cols + col, is_bf16);
        put1(a.y, n * a.cols + col, a.bias ? v16_fma(x, g, plus) : v16_mul(x, g), is_bf16);
    }
}
template <bool is_bf16> __global__ void dm_kernel(struct dora a) {
    const i64 col = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= a.cols) return;
    const float inverse = v16_div(1, a.norm[col]);
    float sum = a.dm[col];
#pragma unroll 8
    for (i64 n = 0; n < a.rows; n++)
        sum = v16_fma(get1(a.x, n * a.cols + col, is_bf16),
                      v16_mul(get1(a.u, n * a.cols + col, is_bf16), inverse), sum);
    a.dm[col] = sum;
}
static int dora_run(const struct op_call *c, int back, struct err *e) {
    struct dora a = {};
    a.x = c->in[0].data, a.u = c->in[1].data, a.m = c->in[1 + back].data;
    a.norm = (const float *)c->in[2 + back].data, a.bias = back ? NULL : c->in[3].data;
    a.y = c->out[0].data, a.dm = back ? (float *)c->out[1].data : NULL;
    a.rows = c->in[0].dim[0], a.cols = c->in[0].dim[1];
    const bool is_bf16 = view_is_bf16(&c->in[0]);
    const unsigned across = (unsigned)((a.cols + 127) / 128);
    const dim3 grid(across, (unsigned)i64_max(1, i64_min(a.rows, cuda_machine.sms * 16 / across)));
    if (a.y && (is_bf16 ? LAUNCH(e, dora_kernel<true>, grid, 128, 0, a)
                        : LAUNCH(e, dora_kernel<false>, grid, 128, 0, a)))
        return -1;
    if (!a.dm) return 0;
    return is_bf16 ? LAUNCH(e, dm_kernel<true>, across, 128, 0, a)
                   : LAUNCH(e, dm_kernel<false>, across, 128, 0, a);
}
CUDA_KERNEL(dora) { return dora_run(c, 0, e); }
CUDA_KERNEL(dora_back) { return dora_run(c, 1, e); }
