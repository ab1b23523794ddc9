/* expert_linear.c: products with the weights of many experts at once, and their gradients.
 *
 * Rows are sorted by expert (expert_plan in route.c): those of expert e are offset[e] <= i <
 * offset[e + 1]. The weights of all experts lie in one tensor w [E, O, I], biases in [E, O],
 * adapters in a [E, r, I] and b [E, O, r]. All in the dtype of x, sums in f32 by the chains of
 * NUMERICS.md 2 and 3, from 0, and: expert_linear     t = scale * (x·a_e^T), rounded; y = x·w_e^T;
 * u = t·b_e^T; y = fma(1, u, y); + bias_e; rounded expert_lora_dt    dt = scale * (dy·b_e),
 * rounded: the gradient of x·a^T. t holds the scale already, so that db needs no factor
 *   expert_linear_dx  dx = dy·w_e; u = dt·a_e; dx = fma(1, u, dx); rounded
 *   expert_linear_dw  dw_e += dy^T·x over the rows of e: one fused multiply-add a row, rows
 * ascending, in bf16 too (no pairs: how many rows of a micro-batch an expert gets is nobody's
 *                     choice, and the chain of a step must not depend on it)
 *   expert_bias_dw    dbias_e = dbias_e + dy, one f32 addition a row, ascending */
#include "ops/gemm/gemm.h"

#include <string.h>

static enum dtype wide_of(const struct view *v) { return v->dtype == F64 ? F64 : F32; }
static double scale_of(const struct op_call *c) {
    return ((const struct lora_attr *)c->attr)->scale;
}
static void zero(const struct view *v) {
    memset(v->data, 0, sizeof(double) * (size_t)view_count(v));
}

static int need_rows(const struct op_call *c, int at, i64 rows, i64 cols, struct err *e) {
    return need_rank(c, at, 2, e) || need_float(c, at, e) || need_dtype(c, at, c->in[0].dtype, e) ||
                   (rows >= 0 && need_dim(c, at, 0, rows, e)) ||
                   (cols >= 0 && need_dim(c, at, 1, cols, e))
               ? -1
               : 0;
}
/* in[at] is [experts, rows, cols] in the dtype of in[0]; -1: any size. */
static int need_stack(const struct op_call *c, int at, i64 experts, i64 rows, i64 cols,
                      struct err *e) {
    return need_rank(c, at, 3, e) || need_dtype(c, at, c->in[0].dtype, e) ||
                   (experts >= 0 && need_dim(c, at, 0, experts, e)) ||
                   (rows >= 0 && need_dim(c, at, 1, rows, e)) ||
                   (cols >= 0 && need_dim(c, at, 2, cols, e))
               ? -1
               : 0;
}
static int need_offset(const struct op_call *c, int at, i64 experts, struct err *e) {
    return need_rank(c, at, 1, e) || need_dtype(c, at, I32, e) || need_dim(c, at, 0, experts + 1, e)
               ? -1
               : 0;
}
/* c[i][j] += scale * sum over p of a(i, p) * b(p, j), for the rows i (or p, `deep`) of each expert.
 */
struct product {
    double *c;
    const double *a, *b;
    i64 n, k, bj, bp, b_size; /* b of an expert: (p, j) at [j * bj + p * bp] */
    double scale;
};
static void rows_ref(const struct op_call *c, int offset_at, struct product p) {
    const i32 *offset = c->in[offset_at].data;
    for (i64 e = 0; e + 1 < c->in[offset_at].dim[0]; e++)
        for (i64 i = offset[e]; i < offset[e + 1]; i++)
            for (i64 j = 0; j < p.n; j++) {
                double sum = 0;
                for (i64 k = 0; k < p.k; k++)
                    sum += p.a[i * p.k + k] * p.b[e * p.b_size + j * p.bj + k * p.bp];
                p.c[i * p.n + j] += p.scale * sum;
            }
}

static int expert_linear_shape(struct op_call *c, struct err *e) {
    const struct view *x = &c->in[0], *w = &c->in[1], *a = &c->in[4];
    if (need_rows(c, 0, -1, -1, e) || need_stack(c, 1, -1, -1, x->dim[1], e) ||
        need_offset(c, 2, w->dim[0], e))
        return -1;
    if (is_present(&c->in[3]) &&
        (need_rank(c, 3, 2, e) || need_dtype(c, 3, x->dtype, e) ||
         need_dim(c, 3, 0, w->dim[0], e) || need_dim(c, 3, 1, w->dim[1], e)))
        return -1;
    set_out(c, 0, x->dtype, 2, (i64[]){x->dim[0], w->dim[1]});
    c->out[1] = (struct view){.data = c->out[1].data};
    if (!is_present(a) && !is_present(&c->in[5])) return 0;
    if (need_stack(c, 4, w->dim[0], -1, x->dim[1], e) ||
        need_stack(c, 5, w->dim[0], w->dim[1], a->dim[1], e))
        return -1;
    set_out(c, 1, x->dtype, 2, (i64[]){x->dim[0], a->dim[1]});
    return 0;
}
static void expert_linear_ref(const struct op_call *c) {
    const struct view *w = &c->in[1], *bias = &c->in[3], *a = &c->in[4];
    const i64 out = w->dim[1], in = w->dim[2];
    const i32 *offset = c->in[2].data;
    double *y = c->out[0].data;
    zero(&c->out[0]);
    rows_ref(c, 2, (struct product){y, c->in[0].data, w->data, out, in, in, 1, out * in, 1});
    if (is_present(a)) {
        const i64 r = a->dim[1];
        double *t = c->out[1].data;
        zero(&c->out[1]);
        rows_ref(c, 2,
                 (struct product){t, c->in[0].data, a->data, r, in, in, 1, r * in, scale_of(c)});
        rows_ref(c, 2, (struct product){y, t, c->in[5].data, out, r, r, 1, out * r, 1});
    }
    for (i64 e = 0; is_present(bias) && e < w->dim[0]; e++)
        for (i64 i = offset[e] * out; i < offset[e + 1] * out; i++)
            y[i] += ((double *)bias->data)[e * out + i % out];
}
static i64 expert_linear_scratch(const struct op_call *c) {
    const i64 n = c->in[0].dim[0], in = c->in[0].dim[1], out = c->in[1].dim[1],
              rank = is_present(&c->in[4]) ? c->in[4].dim[1] : 0;
    return i64_max(gemm_scratch(n, out, in, rank), rank ? gemm_scratch(n, rank, 0, in) : 0);
}
static double expert_linear_flops(const struct op_call *c) {
    const double n = (double)c->in[0].dim[0], in = (double)c->in[0].dim[1],
                 out = (double)c->in[1].dim[1],
                 rank = is_present(&c->in[4]) ? (double)c->in[4].dim[1] : 0;
    return 2 * n * (in * out + rank * (in + out));
}

/* Sizes of the samples: E, O, I, r, bias; how many rows an expert has follows from E alone. */
static const i64 sizes[][5] = {
    {1, 1, 1, 0, 0},       {4, 5, 7, 0, 1},       {5, 33, 16, 4, 1},
    {3, 8, 40, 1, 0},      {7, 24, 8, 2, 1},      {6, 20, 24, 3, 1},
    {64, 768, 2048, 0, 0}, {64, 2048, 768, 0, 0}, {64, 768, 2048, 16, 1}};
static i64 rows_of(i64 expert, i64 experts) {
    if (experts == 6) return expert == 3 ? 150 : 7; /* one has nearly all */
    return experts >= 64 ? 128 : expert * 2 % experts ? expert * 5 % 11 + 1 : experts == 1;
}
static i64 rows_all(i64 experts) {
    i64 n = 0;
    for (i64 e = 0; e < experts; e++) n += rows_of(e, experts);
    return n;
}
static void fill_offset(void *data, const struct view *v) {
    const i64 experts = v->dim[0] - 1;
    i32 *offset = data;
    offset[0] = 0;
    for (i64 e = 0; e < experts; e++) offset[e + 1] = offset[e] + (i32)rows_of(e, experts);
}
static const i64 *sizes_at(int index, struct sample *s, int offset_at) {
    if (index >= COUNT(sizes)) return NULL;
    *(struct lora_attr *)s->attr = (struct lora_attr){1.75};
    sample_int(&s->in[offset_at], 0, 1, DIMS(sizes[index][0] + 1));
    s->in[offset_at].fill = FILL_CUSTOM, s->in[offset_at].custom = fill_offset;
    s->bench = sizes[index][0] >= 64;
    return sizes[index];
}
static bool expert_linear_sample(int index, struct sample *s) {
    const i64 *d = sizes_at(index, s, 2);
    if (!d) return false;
    sample_float(&s->in[0], -1, 1, DIMS(rows_all(d[0]), d[2]));
    sample_float(&s->in[1], -1, 1, DIMS(d[0], d[1], d[2]));
    if (d[4]) sample_float(&s->in[3], -1, 1, DIMS(d[0], d[1]));
    if (d[3]) sample_float(&s->in[4], -1, 1, DIMS(d[0], d[3], d[2]));
    if (d[3]) sample_float(&s->in[5], -1, 1, DIMS(d[0], d[1], d[3]));
    return true;
}
const struct op op_expert_linear = {
    .name = "expert_linear",
    .in = "x w offset bias? a? b?",
    .out = "y t",
    .attr_size = sizeof(struct lora_attr),
    .shape = expert_linear_shape,
    .grad = {{"expert_lora_dt", "dy b offset", "dt"},
             {"expert_linear_dx", "dy w offset dt a", "dx"},
             {"expert_linear_dw", "dy x offset", "+dw"},
             {"expert_linear_dw", "dt x offset", "+da"},
             {"expert_linear_dw", "dy t offset", "+db"},
             {"expert_bias_dw", "dy offset", "+dbias"}},
    .ref = expert_linear_ref,
    .scratch = expert_linear_scratch,
    .cpu = CPU(expert_linear),
    .cuda = CUDA(expert_linear),
    .sample = expert_linear_sample,
    .bound = {8, 2},
    .flops = expert_linear_flops,
};

/* dy [M, O], w [E, O, I], offset, dt [M, r], a [E, r, I] -> dx [M, I] */
static int expert_linear_dx_shape(struct op_call *c, struct err *e) {
    const struct view *dy = &c->in[0], *w = &c->in[1], *dt = &c->in[3];
    if (need_rows(c, 0, -1, -1, e) || need_stack(c, 1, -1, dy->dim[1], -1, e) ||
        need_offset(c, 2, w->dim[0], e))
        return -1;
    if ((is_present(dt) || is_present(&c->in[4])) &&
        (need_rows(c, 3, dy->dim[0], -1, e) ||
         need_stack(c, 4, w->dim[0], dt->dim[1], w->dim[2], e)))
        return -1;
    set_out(c, 0, dy->dtype, 2, (i64[]){dy->dim[0], w->dim[2]});
    return 0;
}
static void expert_linear_dx_ref(const struct op_call *c) {
    const i64 out = c->in[1].dim[1], in = c->in[1].dim[2];
    double *dx = c->out[0].data;
    zero(&c->out[0]);
    rows_ref(c, 2, (struct product){dx, c->in[0].data, c->in[1].data, in, out, 1, in, out * in, 1});
    if (!is_present(&c->in[3])) return;
    const i64 r = c->in[3].dim[1];
    rows_ref(c, 2, (struct product){dx, c->in[3].data, c->in[4].data, in, r, 1, in, r * in, 1});
}
static i64 expert_linear_dx_scratch(const struct op_call *c) {
    return gemm_scratch(c->in[0].dim[0], c->in[1].dim[2], c->in[0].dim[1],
                        is_present(&c->in[3]) ? c->in[3].dim[1] : 0);
}
static double rows_flops(const struct op_call *c) {
    return 2 * (double)view_count(&c->in[0]) * (double)c->out[0].dim[c->out[0].rank - 1];
}
static bool expert_linear_dx_sample(int index, struct sample *s) {
    const i64 *d = sizes_at(index, s, 2);
    if (!d) return false;
    sample_float(&s->in[0], -1, 1, DIMS(rows_all(d[0]), d[1]));
    sample_float(&s->in[1], -1, 1, DIMS(d[0], d[1], d[2]));
    if (d[3]) sample_float(&s->in[3], -1, 1, DIMS(rows_all(d[0]), d[3]));
    if (d[3]) sample_float(&s->in[4], -1, 1, DIMS(d[0], d[3], d[2]));
    return true;
}
const struct op op_expert_linear_dx = {
    .name = "expert_linear_dx",
    .in = "dy w offset dt? a?",
    .out = "dx",
    .attr_size = sizeof(struct lora_attr),
    .shape = expert_linear_dx_shape,
    .ref = expert_linear_dx_ref,
    .scratch = expert_linear_dx_scratch,
    .cpu = CPU(expert_linear_dx),
    .cuda = CUDA(expert_linear_dx),
    .sample = expert_linear_dx_sample,
    .bound = {8, 2},
    .flops = rows_flops,
};

/* dy [M, O], b [E, O, r], offset -> dt [M, r] */
static int expert_lora_dt_shape(struct op_call *c, struct err *e) {
    if (need_rows(c, 0, -1, -1, e) || need_stack(c, 1, -1, c->in[0].dim[1], -1, e) ||
        need_offset(c, 2, c->in[1].dim[0], e))
        return -1;
    set_out(c, 0, c->in[0].dtype, 2, (i64[]){c->in[0].dim[0], c->in[1].dim[2]});
    return 0;
}
static void expert_lora_dt_ref(const struct op_call *c) {
    const i64 out = c->in[1].dim[1], r = c->in[1].dim[2];
    zero(&c->out[0]);
    rows_ref(c, 2,
             (struct product){c->out[0].data, c->in[0].data, c->in[1].data, r, out, 1, r, out * r,
                              scale_of(c)});
}
static i64 expert_lora_dt_scratch(const struct op_call *c) {
    return gemm_scratch(c->in[0].dim[0], c->in[1].dim[2], 0, c->in[1].dim[1]);
}
static bool expert_lora_dt_sample(int index, struct sample *s) {
    const i64 *d = sizes_at(index, s, 2);
    if (!d) return false;
    sample_float(&s->in[0], -1, 1, DIMS(rows_all(d[0]), d[1]));
    sample_float(&s->in[1], -1, 1, DIMS(d[0], d[1], i64_max(d[3], 1)));
    return true;
}
const struct op op_expert_lora_dt = {
    .name = "expert_lora_dt",
    .in = "dy b offset",
    .out = "dt",
    .attr_size = sizeof(struct lora_attr),
    .shape = expert_lora_dt_shape,
    .ref = expert_lora_dt_ref,
    .scratch = expert_lora_dt_scratch,
    .cpu = CPU(expert_lora_dt),
    .cuda = CUDA(expert_lora_dt),
    .sample = expert_lora_dt_sample,
    .bound = {8, 2},
    .flops = rows_flops,
};

/* dy [M, O], x [M, I], offset -> dw [E, O, I], added to */
static int expert_linear_dw_shape(struct op_call *c, struct err *e) {
    const struct view *dy = &c->in[0], *x = &c->in[1];
    if (need_rows(c, 0, -1, -1, e) || need_rows(c, 1, dy->dim[0], -1, e) || need_rank(c, 2, 1, e) ||
        need_dtype(c, 2, I32, e))
        return -1;
    return need_out(c, 0, wide_of(dy), 3, (i64[]){c->in[2].dim[0] - 1, dy->dim[1], x->dim[1]}, e);
}
static void expert_linear_dw_ref(const struct op_call *c) {
    const i64 out = c->in[0].dim[1], in = c->in[1].dim[1];
    const i32 *offset = c->in[2].data;
    const double *dy = c->in[0].data, *x = c->in[1].data;
    for (i64 e = 0; e < c->out[0].dim[0]; e++)
        for (i64 i = offset[e]; i < offset[e + 1]; i++)
            for (i64 j = 0; j < out * in; j++)
                ((double *)c->out[0].data)[e * out * in + j] +=
                    dy[i * out + j / in] * x[i * in + j % in];
}
static i64 expert_linear_dw_scratch(const struct op_call *c) {
    return gemm_scratch(c->in[0].dim[1], c->in[1].dim[1], c->in[0].dim[0], 0);
}
static bool expert_linear_dw_sample(int index, struct sample *s) {
    const i64 *d = sizes_at(index, s, 2);
    if (!d) return false;
    sample_float(&s->in[0], -1, 1, DIMS(rows_all(d[0]), d[1]));
    sample_float(&s->in[1], -1, 1, DIMS(rows_all(d[0]), d[2]));
    sample_out(&s->out[0], DIMS(d[0], d[1], d[2]));
    return true;
}
const struct op op_expert_linear_dw = {
    .name = "expert_linear_dw",
    .in = "dy x offset",
    .out = "+dw",
    .attr_size = sizeof(struct lora_attr),
    .shape = expert_linear_dw_shape,
    .ref = expert_linear_dw_ref,
    .scratch = expert_linear_dw_scratch,
    .cpu = CPU(expert_linear_dw),
    .cuda = CUDA(expert_linear_dw),
    .sample = expert_linear_dw_sample,
    .bound = {8, 1},
    .flops = rows_flops,
};

/* dy [M, O], offset -> dbias [E, O], added to */
static int expert_bias_dw_shape(struct op_call *c, struct err *e) {
    const struct view *dy = &c->in[0];
    if (need_rows(c, 0, -1, -1, e) || need_rank(c, 1, 1, e) || need_dtype(c, 1, I32, e)) return -1;
    return need_out(c, 0, wide_of(dy), 2, (i64[]){c->in[1].dim[0] - 1, dy->dim[1]}, e);
}
static void expert_bias_dw_ref(const struct op_call *c) {
    const i64 out = c->in[0].dim[1];
    const i32 *offset = c->in[1].data;
    for (i64 e = 0; e < c->out[0].dim[0]; e++)
        for (i64 i = offset[e] * out; i < offset[e + 1] * out; i++)
            ((double *)c->out[0].data)[e * out + i % out] += ((double *)c->in[0].data)[i];
}
static bool expert_bias_dw_sample(int index, struct sample *s) {
    const i64 *d = sizes_at(index, s, 1);
    if (!d) return false;
    sample_float(&s->in[0], -1, 1, DIMS(rows_all(d[0]), d[1]));
    sample_out(&s->out[0], DIMS(d[0], d[1]));
    return true;
}
const struct op op_expert_bias_dw = {
    .name = "expert_bias_dw",
    .in = "dy offset",
    .out = "+dbias",
    .attr_size = sizeof(struct lora_attr),
    .shape = expert_bias_dw_shape,
    .ref = expert_bias_dw_ref,
    .cpu = CPU(expert_bias_dw),
    .cuda = CUDA(expert_bias_dw),
    .sample = expert_bias_dw_sample,
    .bound = {8, 1},
};
