/* linear_cpu.c: linear and its gradients as matrix products; roundings in linear.c. */
#include "base/v16.h"
#include "ops/gemm/gemm.h"

static struct gemm product(const struct view *a, const struct view *b, bool b_t,
                           const struct view *c) {
    struct gemm g = gemm_views(a, b, b_t, c);
    g.packed = b->packing ? b : NULL;
    return g;
}
static float scale_of(const struct op_call *c) {
    return (float)((const struct lora_attr *)c->attr)->scale;
}

CPU_KERNEL(linear) {
    (void)e;
    struct gemm y = product(&c->in[0], &c->in[1], true, &c->out[0]);
    y.bias = c->in[2].data;
    if (is_present(&c->in[3])) {
        const struct gemm t = gemm_views(&c->in[0], &c->in[3], true, &c->out[1]);
        CPU_NAME(gemm)(&t, c->scratch);
        y.t = c->out[1].data, y.u = c->in[4].data;
        y.rank = c->in[3].dim[0], y.scale = scale_of(c);
    }
    CPU_NAME(gemm)(&y, c->scratch);
    return 0;
}

CPU_KERNEL(linear_dx) {
    (void)e;
    struct gemm dx = product(&c->in[0], &c->in[1], false, &c->out[0]);
    if (is_present(&c->in[2])) {
        dx.t = c->in[2].data, dx.u = c->in[3].data, dx.u_t = true;
        dx.rank = c->in[2].dim[1], dx.scale = 1;
    }
    CPU_NAME(gemm)(&dx, c->scratch);
    return 0;
}

/* to = scale * from, elementwise, rounded to the dtype of `to` */
struct scaling {
    const void *from;
    void *to;
    i64 count;
    bool from_half, to_half;
    float scale;
};
enum { BLOCK = 1024 };
static void scale_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct scaling *s = arg;
    const i64 last = i64_min(end * BLOCK, s->count);
    for (i64 i = begin * BLOCK; i < last; i += 16)
        v16_put_n(s->to, i,
                  v16_mul(v16_set(s->scale), v16_get_n(s->from, i, last - i, s->from_half)),
                  last - i, s->to_half);
}
static void scale_run(struct scaling s) { pool_run((s.count + BLOCK - 1) / BLOCK, scale_task, &s); }

CPU_KERNEL(lora_dt) {
    (void)e;
    struct view sum = c->out[0];
    const i64 count = view_count(&sum);
    sum.data = c->scratch, sum.dtype = F32;
    const struct gemm g = gemm_views(&c->in[0], &c->in[1], false, &sum);
    CPU_NAME(gemm)(&g, (u8 *)c->scratch + round_up(view_bytes(&sum), 64));
    scale_run((struct scaling){sum.data, c->out[0].data, count, false, view_is_bf16(&c->out[0]),
                               scale_of(c)});
    return 0;
}

static void dw_run(const struct view *dy, const struct view *x, const struct view *dw,
                   void *scratch) {
    struct gemm g = gemm_views(dy, x, false, dw);
    g.k = dy->dim[0], g.a_t = true, g.accumulate = true;
    CPU_NAME(gemm)(&g, scratch);
}
CPU_KERNEL(linear_dw) {
    (void)e;
    dw_run(&c->in[0], &c->in[1], &c->out[0], c->scratch);
    return 0;
}
CPU_KERNEL(lora_db) {
    (void)e;
    struct view ts = c->in[1];
    ts.data = c->scratch;
    scale_run((struct scaling){c->in[1].data, ts.data, view_count(&ts), view_is_bf16(&ts),
                               view_is_bf16(&ts), scale_of(c)});
    dw_run(&c->in[0], &ts, &c->out[0], (u8 *)c->scratch + round_up(view_bytes(&ts), 64));
    return 0;
}

static void bias_columns(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const i64 cols = c->in[0].dim[1];
    for (i64 d = begin * 16; d < i64_min(end * 16, cols); d += 16) {
        float *to = (float *)c->out[0].data + d;
        v16 sum = v16_load_n(to, cols - d);
        for (i64 n = 0; n < c->in[0].dim[0]; n++)
            sum = v16_add(
                sum, v16_get_n(c->in[0].data, n * cols + d, cols - d, view_is_bf16(&c->in[0])));
        v16_store_n(to, sum, cols - d);
    }
}
CPU_KERNEL(bias_dw) {
    (void)e;
    pool_run((c->in[0].dim[1] + 15) / 16, bias_columns, (void *)c);
    return 0;
}
