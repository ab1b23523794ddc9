/* expert_linear_cuda.cu: products for all experts in one launch (gemm_cuda.h, gemm_groups);
 * roundings in expert_linear.c. */
#include "ops/device/cuda_vec.h"
#include "ops/gemm/gemm_cuda.h"

static struct gemm into(const struct view *c) {
    struct gemm g = {};
    g.m = c->dim[0], g.n = c->dim[1], g.dtype = c->dtype, g.scale = 1;
    g.c = c->data, g.ldc = c->dim[1], g.c_dtype = c->dtype;
    return g;
}
static void base(struct gemm *g, const struct view *a, const struct view *b) {
    g->a = a->data, g->lda = g->k = a->dim[1], g->b = b->data, g->ldb = b->dim[2];
}
static void low_rank(struct gemm *g, const struct view *t, const struct view *u) {
    if (!is_present(t)) return;
    g->t = t->data, g->rank = t->dim[1], g->u = u->data;
}
static float scale_of(const struct op_call *c) {
    return (float)((const struct lora_attr *)c->attr)->scale;
}
static struct gemm_groups groups_of(const struct view *offset, const struct view *stack) {
    const struct gemm_groups s = {(const i32 *)offset->data, offset->dim[0] - 1,
                                  stack->dim[1] * stack->dim[2]};
    return s;
}

CUDA_KERNEL(expert_linear) {
    const struct gemm_groups s = groups_of(&c->in[2], &c->in[1]);
    struct gemm y = into(&c->out[0]);
    if (is_present(&c->in[4])) { /* t: a low-rank part alone, which has the scale */
        struct gemm t = into(&c->out[1]);
        low_rank(&t, &c->in[0], &c->in[4]);
        t.scale = scale_of(c);
        if (gemm_groups_cuda(&t, &s, e)) return -1;
        low_rank(&y, &c->out[1], &c->in[5]);
    }
    base(&y, &c->in[0], &c->in[1]);
    y.b_t = true, y.bias = c->in[3].data;
    return gemm_groups_cuda(&y, &s, e);
}
CUDA_KERNEL(expert_linear_dx) {
    const struct gemm_groups s = groups_of(&c->in[2], &c->in[1]);
    struct gemm dx = into(&c->out[0]);
    base(&dx, &c->in[0], &c->in[1]);
    low_rank(&dx, &c->in[3], &c->in[4]);
    dx.u_t = true;
    return gemm_groups_cuda(&dx, &s, e);
}
CUDA_KERNEL(expert_lora_dt) {
    const struct gemm_groups s = groups_of(&c->in[2], &c->in[1]);
    struct gemm dt = into(&c->out[0]);
    low_rank(&dt, &c->in[0], &c->in[1]);
    dt.u_t = true, dt.scale = scale_of(c);
    return gemm_groups_cuda(&dt, &s, e);
}
CUDA_KERNEL(expert_linear_dw) {
    const struct view *dy = &c->in[0], *x = &c->in[1], *dw = &c->out[0];
    const struct gemm_groups s = groups_of(&c->in[2], dw);
    struct gemm g = {};
    g.m = dw->dim[1], g.n = g.ldc = dw->dim[2], g.k = dy->dim[0], g.dtype = dy->dtype;
    g.a = dy->data, g.lda = dy->dim[1], g.a_t = true, g.b = x->data, g.ldb = x->dim[1];
    g.c = dw->data, g.c_dtype = F32, g.accumulate = true, g.in_order = true;
    return gemm_groups_cuda(&g, &s, e);
}

__global__ void bias_kernel(const void *dy, const i32 *offset, float *dbias, i64 cols,
                            bool is_bf16) {
    const i64 col = (i64)blockIdx.x * blockDim.x + threadIdx.x, group = blockIdx.y;
    if (col >= cols) return;
    float sum = dbias[group * cols + col];
#pragma unroll 4
    for (i64 i = offset[group]; i < offset[group + 1]; i++)
        sum = v16_add(sum, get1(dy, i * cols + col, is_bf16));
    dbias[group * cols + col] = sum;
}
CUDA_KERNEL(expert_bias_dw) {
    const i64 cols = c->in[0].dim[1];
    return LAUNCH(e, bias_kernel,
                  dim3((unsigned)((cols + 63) / 64), (unsigned)(c->in[1].dim[0] - 1)), 64, 0,
                  c->in[0].data, (const i32 *)c->in[1].data, (float *)c->out[0].data, cols,
                  view_is_bf16(&c->in[0]));
}
