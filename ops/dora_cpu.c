/* dora_cpu.c: formulas and roundings: dora.c. Columns share m and norm, so the maps are cut over
 * columns, 64 at a time, and walk the rows: dm's chain comes with it. */
#include "base/v16.h"
#include "ops/gemm/gemm.h"

/* a·b^T, or with `columns` a^T·b. */
static struct gemm product(const struct view *a, const struct view *b, bool columns, float *c) {
    return (struct gemm){.m = a->dim[columns],
                         .n = b->dim[columns],
                         .k = a->dim[!columns],
                         .dtype = a->dtype,
                         .a = a->data,
                         .lda = a->dim[1],
                         .a_t = columns,
                         .b = b->data,
                         .ldb = b->dim[1],
                         .b_t = !columns,
                         .packed = b->packing ? b : NULL,
                         .c = c,
                         .ldc = b->dim[columns],
                         .c_dtype = F32};
}
static void square_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    enum { PART = 1024 };
    const struct op_call *c = arg;
    const struct view *w = &c->in[1];
    const i64 cols = w->dim[1];
    const bool is_bf16 = view_is_bf16(w);
    float part[PART];
    for (i64 o = begin; o < end; o++) {
        v16 sum = v16_set(0);
        for (i64 i = 0; i < cols; i += 16) {
            const i64 at = i % PART, row = o * cols;
            if (w->packing && !at)
                w->packing->decode[isa_now()](part, w, row + i, i64_min(PART, cols - i), 1, 0,
                                              is_bf16);
            const v16 x = w->packing ? v16_get_n(part, at, cols - i, is_bf16)
                                     : v16_get_n(w->data, row + i, cols - i, is_bf16);
            sum = v16_fma(x, x, sum);
        }
        ((float *)c->out[0].data)[o] = v16_sum(sum);
    }
}
static void square_columns(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const struct view *w = &c->in[1];
    const i64 cols = w->dim[1];
    for (i64 i = begin * 16; i < i64_min(end * 16, cols); i += 16) {
        v16 sum = v16_set(0);
        for (i64 n = 0; n < w->dim[0]; n++) {
            const v16 x = v16_get_n(w->data, n * cols + i, cols - i, view_is_bf16(w));
            sum = v16_fma(x, x, sum);
        }
        v16_store_n((float *)c->out[0].data + i, sum, cols - i);
    }
}
static void norms(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const i64 out = c->out[0].dim[0], r = c->in[2].dim[1];
    const bool is_bf16 = view_is_bf16(&c->in[2]);
    const void *b = c->in[2].data;
    const float *p = c->scratch, *gram = p + out * r;
    const float s = (float)((const struct dora_attr *)c->attr)->scale, twice = 2 * s;
    for (i64 o = begin; o < end; o++) {
        float cross = 0, square = 0, *norm = (float *)c->out[0].data + o;
        for (i64 j = 0; j < r; j++) {
            float g = 0;
            for (i64 k = 0; k < r; k++)
                g = f32_fma(gram[j * r + k],
                            is_bf16 ? bf16_to_f32(((const u16 *)b)[o * r + k])
                                    : ((const float *)b)[o * r + k],
                            g);
            const float at =
                is_bf16 ? bf16_to_f32(((const u16 *)b)[o * r + j]) : ((const float *)b)[o * r + j];
            cross = f32_fma(at, p[j * out + o], cross), square = f32_fma(at, g, square);
        }
        *norm = V16_SQRT(f32_fma(s * s, square, f32_fma(twice, cross, *norm)));
    }
}
CPU_KERNEL(dora_norm) {
    const struct view *a = &c->in[0], *w = &c->in[1];
    const bool columns = ((const struct dora_attr *)c->attr)->columns;
    const i64 out = c->out[0].dim[0], r = c->in[2].dim[1];
    float *p = c->scratch;
    u8 *packing = (u8 *)p + round_up((out * r + r * r) * (i64)sizeof *p, 64);
    const struct gemm cross = product(a, w, columns, p);
    const struct gemm gram = product(a, a, columns, p + out * r);
    (void)e;
    CPU_NAME(gemm)(&cross, packing);
    CPU_NAME(gemm)(&gram, packing);
    pool_run(columns ? (out + 15) / 16 : out, columns ? square_columns : square_rows, (void *)c);
    return pool_run(out, norms, (void *)c), 0;
}

static void columns(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const bool back = c->op == &op_dora_back, is_bf16 = view_is_bf16(&c->in[0]);
    const i64 cols = c->in[0].dim[1];
    const void *m = c->in[1 + back].data, *bias = back ? NULL : c->in[3].data;
    float *dm = back ? c->out[1].data : NULL;
    for (i64 i = begin * 16; i < i64_min(end * 16, cols); i += 16) {
        const i64 left = cols - i;
        const v16 norm = v16_load_n((const float *)c->in[2 + back].data + i, left);
        const v16 g = v16_div(v16_get_n(m, i, left, is_bf16), norm), one = v16_set(1);
        const v16 inverse = v16_div(one, v16_select(m16_first(left), norm, one));
        const v16 plus = bias ? v16_get_n(bias, i, left, is_bf16) : v16_set(0);
        v16 sum = dm ? v16_load_n(dm + i, left) : v16_set(0);
        for (i64 n = 0; n < c->in[0].dim[0]; n++) {
            const v16 x = v16_get_n(c->in[0].data, n * cols + i, left, is_bf16);
            if (c->out[0].data)
                v16_put_n(c->out[0].data, n * cols + i, bias ? v16_fma(x, g, plus) : v16_mul(x, g),
                          left, is_bf16);
            if (dm)
                sum = v16_fma(
                    x, v16_mul(v16_get_n(c->in[1].data, n * cols + i, left, is_bf16), inverse),
                    sum);
        }
        if (dm) v16_store_n(dm + i, sum, left);
    }
}
CPU_KERNEL(dora) { return (void)e, pool_run((c->in[0].dim[1] + 15) / 16, columns, (void *)c), 0; }
CPU_KERNEL(dora_back) {
    return (void)e, pool_run((c->in[0].dim[1] + 15) / 16, columns, (void *)c), 0;
}
