/* experts_cpu.c: rows to the experts and back; formulas in experts.c. */
#include "base/v16.h"
#include "ops/ops_int.h"

/* Row `to` of the result = sum over `count` rows of x, place[n] each (or n itself), by weight. One
 * row without weight is a copy. */
V16_FN void rows_sum(const struct op_call *c, i64 to, const i32 *rows, i64 count, const float *w,
                     bool is_bf16) {
    const i64 width = c->in[0].dim[1];
    for (i64 d = 0; d < width; d += 16) {
        v16 sum = v16_set(0);
        for (i64 s = 0; s < count; s++) {
            const v16 x = v16_get_n(c->in[0].data, rows[s] * width + d, width - d, is_bf16);
            sum = w ? v16_fma(v16_set(w[s]), x, sum) : v16_add(sum, x);
        }
        v16_put_n(c->out[0].data, to * width + d, sum, width - d, is_bf16);
    }
}
V16_FN void row_scale(const struct op_call *c, i64 to, i64 from, const float *w, bool is_bf16) {
    const i64 width = c->in[0].dim[1];
    for (i64 d = 0; d < width; d += 16) {
        v16 x = v16_get_n(c->in[0].data, from * width + d, width - d, is_bf16);
        if (w) x = v16_mul(v16_set(*w), x);
        v16_put_n(c->out[0].data, to * width + d, x, width - d, is_bf16);
    }
}

static void gather_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const i32 *order = c->in[1].data;
    const float *w = c->in[3].data;
    const i64 k = c->in[2].dim[1];
    for (i64 i = begin; i < end; i++) {
        const i64 t = order[i];
        if (view_is_bf16(&c->in[0]))
            row_scale(c, i, t / k, w ? w + t : NULL, true);
        else
            row_scale(c, i, t / k, w ? w + t : NULL, false);
    }
}
CPU_KERNEL(expert_gather) { return (void)e, pool_run(c->in[1].dim[0], gather_rows, (void *)c), 0; }

static void combine_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const float *w = c->in[3].data;
    const i64 k = c->in[2].dim[1];
    for (i64 n = begin; n < end; n++) {
        const i32 *place = (const i32 *)c->in[2].data + n * k;
        if (view_is_bf16(&c->in[0]))
            rows_sum(c, n, place, k, w ? w + n * k : NULL, true);
        else
            rows_sum(c, n, place, k, w ? w + n * k : NULL, false);
    }
}
CPU_KERNEL(expert_combine) {
    return (void)e, pool_run(c->in[2].dim[0], combine_rows, (void *)c), 0;
}

V16_FN float rows_dot(const struct op_call *c, i64 n, i64 row, bool is_bf16) {
    const i64 width = c->in[0].dim[1];
    v16 sum = v16_set(0);
    for (i64 d = 0; d < width; d += 16)
        sum = v16_fma(v16_get_n(c->in[0].data, n * width + d, width - d, is_bf16),
                      v16_get_n(c->in[1].data, row * width + d, width - d, is_bf16), sum);
    return v16_sum(sum);
}
static void weight_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const i32 *place = c->in[2].data;
    const i64 k = c->in[2].dim[1];
    for (i64 t = begin; t < end; t++)
        ((float *)c->out[0].data)[t] = view_is_bf16(&c->in[0])
                                           ? rows_dot(c, t / k, place[t], true)
                                           : rows_dot(c, t / k, place[t], false);
}
CPU_KERNEL(expert_weight_back) {
    return (void)e, pool_run(view_count(&c->in[2]), weight_rows, (void *)c), 0;
}
