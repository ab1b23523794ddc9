/* linear_cuda.cu: linear and its gradients as matrix products (gemm_cuda.cu); roundings in
 * linear.c. */
#include "ops/device/cuda_vec.h"
#include "ops/gemm/gemm_cuda.h"

static float scale_of(const struct op_call *c) {
    return (float)((const struct lora_attr *)c->attr)->scale;
}

/* B of a product with a packed weight: decoded to scratch first. */
static int weight_decode(const struct op_call *c, struct gemm *g, struct err *e) {
    const struct view *w = &c->in[1];
    if (!w->packing) return 0;
    g->b = c->scratch;
    return w->packing->cuda(c->scratch, w, view_is_bf16(w), e);
}

CUDA_KERNEL(linear) {
    struct gemm y = gemm_views(&c->in[0], &c->in[1], true, &c->out[0]);
    y.bias = c->in[2].data;
    if (weight_decode(c, &y, e)) return -1;
    if (!is_present(&c->in[3])) return gemm_cuda(&y, e);
    const struct gemm t = gemm_views(&c->in[0], &c->in[3], true, &c->out[1]);
    y.t = c->out[1].data, y.u = c->in[4].data, y.rank = c->in[3].dim[0], y.scale = scale_of(c);
    return gemm_cuda(&t, e) || gemm_cuda(&y, e) ? -1 : 0;
}

CUDA_KERNEL(linear_dx) {
    struct gemm dx = gemm_views(&c->in[0], &c->in[1], false, &c->out[0]);
    if (weight_decode(c, &dx, e)) return -1;
    if (is_present(&c->in[2])) {
        dx.t = c->in[2].data, dx.u = c->in[3].data, dx.u_t = true;
        dx.rank = c->in[2].dim[1], dx.scale = 1;
    }
    return gemm_cuda(&dx, e);
}

/* to = scale * from, rounded to the dtype of `to`: small next to the product beside it. */
__global__ void scale_kernel(const void *from, bool from_half, void *to, bool to_half, i64 count,
                             float scale) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride)
        put1(to, i, v16_mul(scale, get1(from, i, from_half)), to_half);
}
static int scale_run(const struct view *from, const struct view *to, float scale, struct err *e) {
    const i64 count = view_count(to);
    return LAUNCH(e, scale_kernel, grid_for(count, 256), 256, 0, from->data, view_is_bf16(from),
                  to->data, view_is_bf16(to), count, scale);
}

CUDA_KERNEL(lora_dt) {
    struct view sum = c->out[0];
    sum.data = c->scratch, sum.dtype = F32;
    const struct gemm g = gemm_views(&c->in[0], &c->in[1], false, &sum);
    return gemm_cuda(&g, e) || scale_run(&sum, &c->out[0], scale_of(c), e) ? -1 : 0;
}

static int dw_run(const struct view *dy, const struct view *x, const struct view *dw,
                  struct err *e) {
    struct gemm g = gemm_views(dy, x, false, dw);
    g.k = dy->dim[0], g.a_t = true, g.accumulate = true;
    return gemm_cuda(&g, e);
}
CUDA_KERNEL(linear_dw) { return dw_run(&c->in[0], &c->in[1], &c->out[0], e); }
CUDA_KERNEL(lora_db) {
    struct view ts = c->in[1];
    ts.data = c->scratch;
    return scale_run(&c->in[1], &ts, scale_of(c), e) || dw_run(&c->in[0], &ts, &c->out[0], e) ? -1
                                                                                              : 0;
}
