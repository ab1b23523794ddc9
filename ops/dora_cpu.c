/* dora_cpu.c: formulas and roundings: dora.c. Columns share m and norm, so the maps are cut over
 * columns, 64 at a time, and walk the rows: dm's chain comes with it. */
#include "base/v16.h"
#include "ops/gemm.h"

static struct gemm product(const struct view *a, const struct view *b, float *c) {
    return (struct gemm){.m = a->dim[0],
                         .n = b->dim[0],
                         .k = a->dim[1],
                         .dtype = a->dtype,
                         .a = a->data,
                         .lda = a->dim[1],
                         .b = b->data,
                         .ldb = b->dim[1],
                         .b_t = true,
                         .c = c,
                         .ldc = b->dim[0],
                         .c_dtype = F32};
}
static void norm_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const struct view *w = &c->in[0];
    const i64 cols = w->dim[1], r = c->in[1].dim[0];
    const bool half = is_half(w);
    const float *p = c->scratch, *gram = p + w->dim[0] * r;
    const float s = (float)((const struct lora_attr *)c->attr)->scale, twice = 2 * s;
    for (i64 o = begin; o < end; o++) {
        v16 sum = v16_set(0);
        for (i64 i = 0; i < cols; i += 16) {
            const v16 x = v16_get_n(w->data, o * cols + i, cols - i, half);
            sum = v16_fma(x, x, sum);
        }
        float cross = 0, square = 0;
        for (i64 j = 0; j < r; j++) {
            const void *b = c->in[2].data;
            float g = 0;
            for (i64 k = 0; k < r; k++)
                g = f32_fma(gram[j * r + k],
                            half ? bf16_to_f32(((const u16 *)b)[o * r + k])
                                 : ((const float *)b)[o * r + k],
                            g);
            const float at =
                half ? bf16_to_f32(((const u16 *)b)[o * r + j]) : ((const float *)b)[o * r + j];
            cross = f32_fma(at, p[o * r + j], cross), square = f32_fma(at, g, square);
        }
        const float all = f32_fma(s * s, square, f32_fma(twice, cross, v16_sum(sum)));
        ((float *)c->out[0].data)[o] = V16_SQRT(all);
    }
}
CPU_KERNEL(dora_norm) {
    const struct view *w = &c->in[0], *a = &c->in[1];
    const i64 r = a->dim[0];
    float *p = c->scratch;
    u8 *packing = (u8 *)p + round_up((w->dim[0] * r + r * r) * (i64)sizeof *p, 64);
    const struct gemm cross = product(w, a, p), gram = product(a, a, p + w->dim[0] * r);
    (void)e;
    CPU_NAME(gemm)(&cross, packing);
    CPU_NAME(gemm)(&gram, packing);
    return pool_run(w->dim[0], norm_rows, (void *)c), 0;
}

static void columns(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const bool back = c->op == &op_dora_back, half = is_half(&c->in[0]);
    const i64 cols = c->in[0].dim[1];
    const void *m = c->in[1 + back].data, *bias = back ? NULL : c->in[3].data;
    float *dm = back ? c->out[1].data : NULL;
    for (i64 i = begin * 16; i < i64_min(end * 16, cols); i += 16) {
        const i64 left = cols - i;
        const v16 norm = v16_load_n((const float *)c->in[2 + back].data + i, left);
        const v16 g = v16_div(v16_get_n(m, i, left, half), norm), one = v16_set(1);
        const v16 inverse = v16_div(one, v16_select(m16_first(left), norm, one));
        const v16 plus = bias ? v16_get_n(bias, i, left, half) : v16_set(0);
        v16 sum = dm ? v16_load_n(dm + i, left) : v16_set(0);
        for (i64 n = 0; n < c->in[0].dim[0]; n++) {
            const v16 x = v16_get_n(c->in[0].data, n * cols + i, left, half);
            if (c->out[0].data)
                v16_put_n(c->out[0].data, n * cols + i, bias ? v16_fma(x, g, plus) : v16_mul(x, g),
                          left, half);
            if (dm)
                sum = v16_fma(
                    x, v16_mul(v16_get_n(c->in[1].data, n * cols + i, left, half), inverse), sum);
        }
        if (dm) v16_store_n(dm + i, sum, left);
    }
}
CPU_KERNEL(dora) { return (void)e, pool_run((c->in[0].dim[1] + 15) / 16, columns, (void *)c), 0; }
CPU_KERNEL(dora_back) {
    return (void)e, pool_run((c->in[0].dim[1] + 15) / 16, columns, (void *)c), 0;
}
