/* expert_linear_cpu.c: a matrix product per expert, each cut among all threads; roundings in
 * expert_linear.c. An expert without rows costs nothing, and its weights are not read: that is what
 * makes decoding with many experts cheap. */
#include "base/v16.h"
#include "ops/gemm/gemm.h"

/* The part of matrix or stack `v` that belongs to expert `e`: its rows, or its matrix. */
static const void *part(const struct view *v, i64 e, const i32 *offset) {
    const i64 size = dtype_size(v->dtype), last = v->dim[v->rank - 1];
    if (!is_present(v)) return NULL;
    return (const u8 *)v->data + size * last * (v->rank == 3 ? e * v->dim[1] : offset[e]);
}

/* One product for each expert that has rows: of in[a] (or none) with the stack in[b], and of t with
 * the stack in[u], into c. */
struct products {
    const struct view *a, *b, *t, *u, *bias, *c;
    const i32 *offset;
    bool b_t, u_t;
    float scale;
};
static void products_run(const struct products *p, void *scratch) {
    const struct view *stack = p->b ? p->b : p->u;
    for (i64 e = 0; e < stack->dim[0]; e++) {
        struct gemm g = {.m = p->offset[e + 1] - p->offset[e],
                         .n = p->c->dim[1],
                         .dtype = p->c->dtype,
                         .c = (void *)part(p->c, e, p->offset),
                         .ldc = p->c->dim[1],
                         .c_dtype = p->c->dtype,
                         .b_t = p->b_t,
                         .scale = p->scale};
        if (!g.m) continue;
        if (p->a) {
            g.a = part(p->a, e, p->offset), g.lda = g.k = p->a->dim[1];
            g.b = part(p->b, e, p->offset), g.ldb = p->b->dim[2];
        }
        if (p->t) {
            g.t = part(p->t, e, p->offset), g.rank = p->t->dim[1];
            g.u = part(p->u, e, p->offset), g.u_t = p->u_t;
        }
        if (p->bias) g.bias = (const u8 *)p->bias->data + e * p->bias->dim[1] * dtype_size(g.dtype);
        CPU_NAME(gemm)(&g, scratch);
    }
}
static const struct view *given(const struct view *v) { return is_present(v) ? v : NULL; }
static float scale_of(const struct op_call *c) {
    return (float)((const struct lora_attr *)c->attr)->scale;
}

CPU_KERNEL(expert_linear) {
    (void)e;
    struct products y = {.a = &c->in[0],
                         .b = &c->in[1],
                         .bias = given(&c->in[3]),
                         .c = &c->out[0],
                         .offset = c->in[2].data,
                         .b_t = true,
                         .scale = 1};
    if (is_present(&c->in[4])) { /* t: as a low-rank part alone, which has the scale */
        const struct products t = {.t = &c->in[0],
                                   .u = &c->in[4],
                                   .c = &c->out[1],
                                   .offset = c->in[2].data,
                                   .scale = scale_of(c)};
        products_run(&t, c->scratch);
        y.t = &c->out[1], y.u = &c->in[5];
    }
    products_run(&y, c->scratch);
    return 0;
}
CPU_KERNEL(expert_linear_dx) {
    (void)e;
    const struct products dx = {.a = &c->in[0],
                                .b = &c->in[1],
                                .t = given(&c->in[3]),
                                .u = given(&c->in[4]),
                                .c = &c->out[0],
                                .offset = c->in[2].data,
                                .u_t = true,
                                .scale = 1};
    products_run(&dx, c->scratch);
    return 0;
}
CPU_KERNEL(expert_lora_dt) {
    (void)e;
    const struct products dt = {.t = &c->in[0],
                                .u = &c->in[1],
                                .c = &c->out[0],
                                .offset = c->in[2].data,
                                .u_t = true,
                                .scale = scale_of(c)};
    products_run(&dt, c->scratch);
    return 0;
}

CPU_KERNEL(expert_linear_dw) {
    (void)e;
    const struct view *dy = &c->in[0], *x = &c->in[1], *dw = &c->out[0];
    const i32 *offset = c->in[2].data;
    for (i64 n = 0; n < dw->dim[0]; n++) {
        const struct gemm g = {.m = dw->dim[1],
                               .n = dw->dim[2],
                               .k = offset[n + 1] - offset[n],
                               .dtype = dy->dtype,
                               .a = part(dy, n, offset),
                               .lda = dy->dim[1],
                               .a_t = true,
                               .b = part(x, n, offset),
                               .ldb = x->dim[1],
                               .c = (void *)part(dw, n, offset),
                               .ldc = dw->dim[2],
                               .c_dtype = F32,
                               .accumulate = true,
                               .in_order = true};
        if (g.k) CPU_NAME(gemm)(&g, c->scratch);
    }
    return 0;
}

static void bias_columns(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const i64 cols = c->in[0].dim[1];
    const i32 *offset = c->in[1].data;
    for (i64 n = 0; n < c->out[0].dim[0]; n++)
        for (i64 d = begin * 16; d < i64_min(end * 16, cols); d += 16) {
            float *to = (float *)c->out[0].data + n * cols + d;
            v16 sum = v16_load_n(to, cols - d);
            for (i64 i = offset[n]; i < offset[n + 1]; i++)
                sum = v16_add(
                    sum, v16_get_n(c->in[0].data, i * cols + d, cols - d, view_is_bf16(&c->in[0])));
            v16_store_n(to, sum, cols - d);
        }
}
CPU_KERNEL(expert_bias_dw) {
    (void)e;
    pool_run((c->in[0].dim[1] + 15) / 16, bias_columns, (void *)c);
    return 0;
}
