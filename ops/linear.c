/* linear.c: y = x·w^T (+ scale * (x·a^T)·b^T) (+ bias), with or without a low-rank adapter (LoRA,
 * Hu et al., 2021), and its gradients. One op, so that the adapter costs no pass over memory.
 *
 *   x [N, I], w [O, I], bias [O], a [r, I], b [O, r] -> y [N, O], t [N, r] (absent without adapter)
 *
 * w may be packed, of a frozen weight (packing.h). It is decoded to the dtype of x, with one
 * rounding, on the way into the product: the bits of y are those of the decoded w.
 *
 * All in the dtype of x, but sums in f32 by the chains of NUMERICS.md 2 and 3, from 0, and:
 *   linear     t = x·a^T, rounded; y = x·w^T; u = t·b^T; y = fma(scale, u, y); + bias; rounded
 *   lora_dt    dt = dy·b, times scale in f32, rounded
 *   linear_dx  dx = dy·w; u = dt·a; dx = fma(1, u, dx); rounded
 *   linear_dw  dw += dy^T·x: the chain runs over tokens and starts from dw, f32 (NUMERICS.md 5)
 *   lora_db    ts = scale * t, rounded; db += dy^T·ts, likewise
 *   bias_dw    dbias = dbias + dy, one f32 addition per token, ascending */
#include "ops/gemm/gemm.h"

static double scale_of(const struct op_call *c) {
    return ((const struct lora_attr *)c->attr)->scale;
}
static enum dtype sum_dtype(const struct view *v) { return v->dtype == F64 ? F64 : F32; }

/* c[i][j] += scale * sum over p of a(i, p) * b(p, j); strides of i or j, and of p. */
static void product_ref(double *c, i64 m, i64 n, i64 k, const double *a, i64 ai, i64 ap,
                        const double *b, i64 bj, i64 bp, double scale) {
    for (i64 i = 0; i < m; i++)
        for (i64 j = 0; j < n; j++) {
            double sum = 0;
            for (i64 p = 0; p < k; p++) sum += a[i * ai + p * ap] * b[j * bj + p * bp];
            c[i * n + j] += scale * sum;
        }
}
static void zero(const struct view *v) {
    for (i64 i = 0; i < view_count(v); i++) ((double *)v->data)[i] = 0;
}

/* ---- linear ---- */
static int linear_shape(struct op_call *c, struct err *e) {
    const struct view *x = &c->in[0], *w = &c->in[1], *bias = &c->in[2], *a = &c->in[3];
    if (need_float(c, 0, e) || need_matrix(c, 0, -1, -1, e) || need_matrix(c, 1, -1, x->dim[1], e))
        return -1;
    if (is_present(bias) &&
        (need_rank(c, 2, 1, e) || need_dtype(c, 2, x->dtype, e) || need_dim(c, 2, 0, w->dim[0], e)))
        return -1;
    set_out(c, 0, x->dtype, 2, (i64[]){x->dim[0], w->dim[0]});
    c->out[1] = (struct view){.data = c->out[1].data};
    if (!is_present(a) && !is_present(&c->in[4])) return 0;
    if (need_matrix(c, 3, -1, x->dim[1], e) || need_matrix(c, 4, w->dim[0], a->dim[0], e))
        return -1;
    set_out(c, 1, x->dtype, 2, (i64[]){x->dim[0], a->dim[0]});
    return 0;
}
static void linear_ref(const struct op_call *c) {
    const struct view *x = &c->in[0], *bias = &c->in[2], *a = &c->in[3];
    const i64 n = x->dim[0], in = x->dim[1], out = c->in[1].dim[0],
              rank = is_present(a) ? a->dim[0] : 0;
    double *y = c->out[0].data, *own;
    zero(&c->out[0]);
    product_ref(y, n, out, in, x->data, in, 1, weight_ref(&c->in[1], &own), in, 1, 1);
    mem_free(own);
    if (rank) {
        zero(&c->out[1]);
        product_ref(c->out[1].data, n, rank, in, x->data, in, 1, a->data, in, 1, 1);
        product_ref(y, n, out, rank, c->out[1].data, rank, 1, c->in[4].data, rank, 1, scale_of(c));
    }
    for (i64 i = 0; is_present(bias) && i < n * out; i++) y[i] += ((double *)bias->data)[i % out];
}
static i64 linear_scratch(const struct op_call *c) {
    const i64 n = c->in[0].dim[0], in = c->in[0].dim[1], out = c->in[1].dim[0],
              rank = is_present(&c->in[3]) ? c->in[3].dim[0] : 0;
    return i64_max(gemm_scratch(n, out, in, rank), rank ? gemm_scratch(n, rank, in, 0) : 0);
}
static double linear_flops(const struct op_call *c) {
    const double n = (double)c->in[0].dim[0], in = (double)c->in[0].dim[1],
                 out = (double)c->in[1].dim[0],
                 rank = is_present(&c->in[3]) ? (double)c->in[3].dim[0] : 0;
    return 2 * n * (in * out + rank * (in + out));
}

/* Sizes of the samples of the whole family: N, O, I, r, bias. */
static const i64 sizes[][5] = {
    {1, 1, 1, 0, 0},          {3, 5, 7, 0, 1},           {2, 17, 33, 4, 0},
    {7, 33, 16, 4, 1},        {19, 45, 40, 1, 1},        {33, 20, 1, 8, 0},
    {16, 1, 50, 2, 0},        {2048, 3072, 768, 0, 0},   {2048, 768, 3072, 0, 0},
    {1024, 4096, 4096, 0, 0}, {1024, 4096, 4096, 16, 0}, {2048, 768, 768, 8, 0},
    {1, 4096, 4096, 0, 0}};
/* Then, of linear and linear_dx, those with a packed weight, for each packing. */
static const i64 packed_sizes[][5] = {{3, 5, 7, 0, 1},           {5, 33, 64, 4, 0},
                                      {37, 45, 130, 3, 1},       {2, 97, 192, 0, 0},
                                      {1024, 4096, 4096, 16, 0}, {1, 4096, 4096, 0, 0}};
enum { PLAIN = COUNT(sizes) };

static const i64 *sizes_at(int index, struct sample *s) {
    const int packed = index - PLAIN;
    if (packed >= COUNT(packed_sizes) * packing_count) return NULL;
    const i64 *d = packed < 0 ? sizes[index] : packed_sizes[packed % COUNT(packed_sizes)];
    *(struct lora_attr *)s->attr = (struct lora_attr){1.75};
    s->bench = d[1] > 100;
    return d;
}
static void sample_weight(struct sample *s, int index, const i64 *d) {
    sample_float(&s->in[1], -1, 1, DIMS(d[1], d[2]));
    if (index >= PLAIN) s->in[1].packing = packing_table[(index - PLAIN) / COUNT(packed_sizes)];
}
static bool linear_sample(int index, struct sample *s) {
    const i64 *d = sizes_at(index, s);
    if (!d) return false;
    sample_float(&s->in[0], -1, 1, DIMS(d[0], d[2]));
    sample_weight(s, index, d);
    if (d[4]) sample_float(&s->in[2], -1, 1, DIMS(d[1]));
    if (d[3]) sample_float(&s->in[3], -1, 1, DIMS(d[3], d[2]));
    if (d[3]) sample_float(&s->in[4], -1, 1, DIMS(d[1], d[3]));
    return true;
}
const struct op op_linear = {
    .name = "linear",
    .in = "x #w bias? a? b?",
    .out = "y t",
    .attr_size = sizeof(struct lora_attr),
    .shape = linear_shape,
    .grad = {{"lora_dt", "dy b", "dt"},
             {"linear_dx", "dy w dt a", "dx"},
             {"linear_dw", "dy x", "+dw"},
             {"linear_dw", "dt x", "+da"},
             {"lora_db", "dy t", "+db"},
             {"bias_dw", "dy", "+dbias"}},
    .ref = linear_ref,
    .scratch = linear_scratch,
    .scratch_cuda = weight_scratch_cuda,
    .cpu = CPU(linear),
    .cuda = CUDA(linear),
    .sample = linear_sample,
    .bound = {8, 2},
    .flops = linear_flops,
};

/* ---- linear_dx: dy [N, O], w [O, I], dt [N, r], a [r, I] -> dx [N, I] ---- */
static int linear_dx_shape(struct op_call *c, struct err *e) {
    const struct view *dy = &c->in[0], *w = &c->in[1], *dt = &c->in[2];
    if (need_float(c, 0, e) || need_matrix(c, 0, -1, -1, e) || need_matrix(c, 1, dy->dim[1], -1, e))
        return -1;
    if ((is_present(dt) || is_present(&c->in[3])) &&
        (need_matrix(c, 2, dy->dim[0], -1, e) || need_matrix(c, 3, dt->dim[1], w->dim[1], e)))
        return -1;
    set_out(c, 0, dy->dtype, 2, (i64[]){dy->dim[0], w->dim[1]});
    return 0;
}
static void linear_dx_ref(const struct op_call *c) {
    const struct view *dy = &c->in[0], *w = &c->in[1], *dt = &c->in[2];
    const i64 n = dy->dim[0], out = dy->dim[1], in = w->dim[1];
    double *own;
    zero(&c->out[0]);
    product_ref(c->out[0].data, n, in, out, dy->data, out, 1, weight_ref(&c->in[1], &own), 1, in,
                1);
    mem_free(own);
    if (is_present(dt))
        product_ref(c->out[0].data, n, in, dt->dim[1], dt->data, dt->dim[1], 1, c->in[3].data, 1,
                    in, 1);
}
static i64 linear_dx_scratch(const struct op_call *c) {
    return gemm_scratch(c->in[0].dim[0], c->in[1].dim[1], c->in[0].dim[1],
                        is_present(&c->in[2]) ? c->in[2].dim[1] : 0);
}
static double linear_dx_flops(const struct op_call *c) {
    const double n = (double)c->in[0].dim[0], out = (double)c->in[0].dim[1],
                 in = (double)c->in[1].dim[1];
    return 2 * n * in * (out + (is_present(&c->in[2]) ? (double)c->in[2].dim[1] : 0));
}
static bool linear_dx_sample(int index, struct sample *s) {
    const i64 *d = sizes_at(index, s);
    if (!d) return false;
    sample_float(&s->in[0], -1, 1, DIMS(d[0], d[1]));
    sample_weight(s, index, d);
    if (d[3]) sample_float(&s->in[2], -1, 1, DIMS(d[0], d[3]));
    if (d[3]) sample_float(&s->in[3], -1, 1, DIMS(d[3], d[2]));
    return true;
}
const struct op op_linear_dx = {
    .name = "linear_dx",
    .in = "dy #w dt? a?",
    .out = "dx",
    .attr_size = sizeof(struct lora_attr),
    .shape = linear_dx_shape,
    .ref = linear_dx_ref,
    .scratch = linear_dx_scratch,
    .scratch_cuda = weight_scratch_cuda,
    .cpu = CPU(linear_dx),
    .cuda = CUDA(linear_dx),
    .sample = linear_dx_sample,
    .bound = {8, 2},
    .flops = linear_dx_flops,
};

/* ---- products of dy [N, O] with one matrix: lora_dt, linear_dw, lora_db ---- */
static double pair_flops(const struct op_call *c) {
    return 2 * (double)view_count(&c->in[0]) * (double)c->in[1].dim[1];
}

/* dy [N, O], b [O, r] -> dt [N, r] */
static int lora_dt_shape(struct op_call *c, struct err *e) {
    const struct view *dy = &c->in[0], *b = &c->in[1];
    if (need_float(c, 0, e) || need_matrix(c, 0, -1, -1, e) || need_matrix(c, 1, dy->dim[1], -1, e))
        return -1;
    set_out(c, 0, dy->dtype, 2, (i64[]){dy->dim[0], b->dim[1]});
    return 0;
}
static void lora_dt_ref(const struct op_call *c) {
    const i64 n = c->in[0].dim[0], out = c->in[0].dim[1], rank = c->in[1].dim[1];
    zero(&c->out[0]);
    product_ref(c->out[0].data, n, rank, out, c->in[0].data, out, 1, c->in[1].data, 1, rank,
                scale_of(c));
}
static i64 lora_dt_scratch(const struct op_call *c) { /* f32 sums, then packing */
    const i64 n = c->in[0].dim[0], out = c->in[0].dim[1], rank = c->in[1].dim[1];
    return round_up(n * rank * (i64)sizeof(float), 64) + gemm_scratch(n, rank, out, 0);
}
static i64 lora_dt_scratch_cuda(const struct op_call *c) { /* f32 sums */
    return view_count(&c->out[0]) * (i64)sizeof(float);
}
static bool lora_dt_sample(int index, struct sample *s) {
    const i64 *d = sizes_at(index, s);
    if (!d || index >= PLAIN) return false;
    sample_float(&s->in[0], -1, 1, DIMS(d[0], d[1]));
    sample_float(&s->in[1], -1, 1, DIMS(d[1], i64_max(d[3], 1)));
    return true;
}
const struct op op_lora_dt = {
    .name = "lora_dt",
    .in = "dy b",
    .out = "dt",
    .attr_size = sizeof(struct lora_attr),
    .shape = lora_dt_shape,
    .ref = lora_dt_ref,
    .scratch = lora_dt_scratch,
    .scratch_cuda = lora_dt_scratch_cuda,
    .cpu = CPU(lora_dt),
    .cuda = CUDA(lora_dt),
    .sample = lora_dt_sample,
    .bound = {8, 2},
    .flops = pair_flops,
};

/* dy [N, O], x [N, I] -> dw [O, I], added to. lora_db alike: t for x. */
static int linear_dw_shape(struct op_call *c, struct err *e) {
    const struct view *dy = &c->in[0], *x = &c->in[1];
    if (need_float(c, 0, e) || need_matrix(c, 0, -1, -1, e) || need_matrix(c, 1, dy->dim[0], -1, e))
        return -1;
    return need_out(c, 0, sum_dtype(dy), 2, (i64[]){dy->dim[1], x->dim[1]}, e);
}
static void dw_ref(const struct op_call *c, double scale) {
    const i64 n = c->in[0].dim[0], out = c->in[0].dim[1], in = c->in[1].dim[1];
    product_ref(c->out[0].data, out, in, n, c->in[0].data, 1, out, c->in[1].data, 1, in, scale);
}
static void linear_dw_ref(const struct op_call *c) { dw_ref(c, 1); }
static void lora_db_ref(const struct op_call *c) { dw_ref(c, scale_of(c)); }
static i64 linear_dw_scratch(const struct op_call *c) {
    return gemm_scratch(c->in[0].dim[1], c->in[1].dim[1], c->in[0].dim[0], 0);
}
static i64 lora_db_scratch(const struct op_call *c) { /* ts, then packing */
    return round_up(view_bytes(&c->in[1]), 64) + linear_dw_scratch(c);
}
static i64 lora_db_scratch_cuda(const struct op_call *c) { /* ts */
    return view_bytes(&c->in[1]);
}
static bool dw_sample(int index, struct sample *s, int cols) {
    const i64 *d = sizes_at(index, s);
    if (!d || index >= PLAIN) return false;
    sample_float(&s->in[0], -1, 1, DIMS(d[0], d[1]));
    sample_float(&s->in[1], -1, 1, DIMS(d[0], i64_max(d[cols], 1)));
    sample_out(&s->out[0], DIMS(d[1], i64_max(d[cols], 1)));
    return true;
}
static bool linear_dw_sample(int index, struct sample *s) { return dw_sample(index, s, 2); }
static bool lora_db_sample(int index, struct sample *s) { return dw_sample(index, s, 3); }
const struct op op_linear_dw = {
    .name = "linear_dw",
    .in = "dy x",
    .out = "+dw",
    .attr_size = sizeof(struct lora_attr),
    .shape = linear_dw_shape,
    .ref = linear_dw_ref,
    .scratch = linear_dw_scratch,
    .cpu = CPU(linear_dw),
    .cuda = CUDA(linear_dw),
    .sample = linear_dw_sample,
    .bound = {8, 1},
    .flops = pair_flops,
};
const struct op op_lora_db = {
    .name = "lora_db",
    .in = "dy t",
    .out = "+db",
    .attr_size = sizeof(struct lora_attr),
    .shape = linear_dw_shape,
    .ref = lora_db_ref,
    .scratch = lora_db_scratch,
    .scratch_cuda = lora_db_scratch_cuda,
    .cpu = CPU(lora_db),
    .cuda = CUDA(lora_db),
    .sample = lora_db_sample,
    .bound = {8, 2},
    .flops = pair_flops,
};

/* ---- bias_dw: dy [N, O] -> dbias [O], added to ---- */
static int bias_dw_shape(struct op_call *c, struct err *e) {
    if (need_float(c, 0, e) || need_matrix(c, 0, -1, -1, e)) return -1;
    return need_out(c, 0, sum_dtype(&c->in[0]), 1, (i64[]){c->in[0].dim[1]}, e);
}
static void bias_dw_ref(const struct op_call *c) {
    const i64 out = c->in[0].dim[1];
    for (i64 i = 0; i < view_count(&c->in[0]); i++)
        ((double *)c->out[0].data)[i % out] += ((double *)c->in[0].data)[i];
}
static bool bias_dw_sample(int index, struct sample *s) {
    const i64 *d = sizes_at(index, s);
    if (!d || index >= PLAIN) return false;
    sample_float(&s->in[0], -1, 1, DIMS(d[0], d[1]));
    sample_out(&s->out[0], DIMS(d[1]));
    return true;
}
const struct op op_bias_dw = {
    .name = "bias_dw",
    .in = "dy",
    .out = "+dbias",
    .attr_size = sizeof(struct lora_attr),
    .shape = bias_dw_shape,
    .ref = bias_dw_ref,
    .cpu = CPU(bias_dw),
    .cuda = CUDA(bias_dw),
    .sample = bias_dw_sample,
    .bound = {8, 1},
};
