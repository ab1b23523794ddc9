/* dora.c: what DoRA (Liu et al., 2024) adds to a linear layer with an adapter: rows of the adapted
 * weight have a magnitude of their own.
 *
 *   y = m / |W + s B A| * (x (W + s B A)^T) + bias, the norm of each row, a constant in the
 * backward pass.
 *
 * dora_norm  a [r, I], w [O, I], b [O, r] -> norm [O] f32; w may be packed (linear.c). With
 *   `columns`, of an embedding: a [I, r], w [I, O]. The adapted weight is never made:
 *   |w + s b A|^2 = |w|^2 + 2 s b·p + s^2 b·(G b), p = A w, G = A A^T [r, r].
 *   Roundings: p and G by the chains of the dtype from 0, in f32; |w|^2 by NUMERICS.md 7 with fma,
 *   or of a column by a chain of fma, rows ascending; b·p, G b and b·(G b) by fma over r ascending;
 *   norm = sqrt(fma(s^2, b·(G b), fma(2s, b·p, |w|^2))), s^2 and 2s rounded to f32.
 *
 * dora       u [N, O], m [O], norm [O], bias [O] or absent -> y = u * (m / norm) + bias in f32 (fma
 *   where there is a bias), one rounding. du = dy * (m / norm); dm += dy * (u * (1 / norm)), a
 *   chain over rows ascending (NUMERICS.md 5). */
#include "ops/gemm/gemm.h"

#include <math.h>

static i64 norm_rank(const struct op_call *c) {
    return c->in[0].dim[((const struct dora_attr *)c->attr)->columns];
}
static int norm_shape(struct op_call *c, struct err *e) {
    const struct view *a = &c->in[0], *w = &c->in[1];
    const bool columns = ((const struct dora_attr *)c->attr)->columns;
    if (need_float(c, 0, e) || need_rank(c, 0, 2, e) ||
        need_matrix(c, 1, columns ? a->dim[0] : -1, columns ? -1 : a->dim[1], e) ||
        need_matrix(c, 2, w->dim[columns], norm_rank(c), e))
        return -1;
    if (columns && w->packing)
        return err_failed(e, "operation dora_norm: 'w' is packed as %s; of columns it is plain",
                          w->packing->name);
    set_out(c, 0, a->dtype == F64 ? F64 : F32, 1, w->dim + columns);
    return 0;
}
static void norm_ref(const struct op_call *c) {
    const struct dora_attr at = *(const struct dora_attr *)c->attr;
    const double *a = c->in[0].data, *b = c->in[2].data;
    const i64 r = norm_rank(c), in = c->in[1].dim[!at.columns], out = c->in[1].dim[at.columns];
    double *own;
    const double *w = weight_ref(&c->in[1], &own);
    for (i64 o = 0; o < out; o++) {
        double sum = 0;
        for (i64 i = 0; i < in; i++) {
            double x = w[at.columns ? i * out + o : o * in + i];
            for (i64 k = 0; k < r; k++)
                x += at.scale * b[o * r + k] * a[at.columns ? i * r + k : k * in + i];
            sum += x * x;
        }
        ((double *)c->out[0].data)[o] = sqrt(sum);
    }
    mem_free(own);
}
static i64 norm_scratch_cuda(const struct op_call *c) { /* p, G; the decoded weight */
    const i64 r = norm_rank(c);
    return round_up((view_count(&c->out[0]) * r + r * r) * (i64)sizeof(float), 64) +
           weight_scratch_cuda(c);
}
static i64 norm_scratch(const struct op_call *c) { /* p, G; packing */
    const i64 out = view_count(&c->out[0]), in = view_count(&c->in[1]) / i64_max(out, 1),
              r = norm_rank(c);
    return round_up((out * r + r * r) * (i64)sizeof(float), 64) +
           i64_max(gemm_scratch(r, out, in, 0), gemm_scratch(r, r, in, 0));
}
static bool norm_sample(int index, struct sample *s) { /* O, I, r, columns, packed */
    static const i64 size[][5] = {{1, 1, 1},           {5, 7, 2},         {33, 40, 4},
                                  {67, 96, 16},        {1, 3, 2, 1},      {37, 70, 6, 1},
                                  {4096, 4096, 16},    {14336, 4096, 16}, {4096, 50304, 16, 1},
                                  {19, 2100, 3, 0, 1}, {37, 48, 5, 0, 1}, {4096, 4096, 16, 0, 1}};
    enum { PLAIN = COUNT(size) - 3 };
    const int packed = index - PLAIN;
    if (packed >= 3 * packing_count) return false;
    const i64 *d = size[packed < 0 ? index : PLAIN + packed % 3], by = d[3];
    *(struct dora_attr *)s->attr = (struct dora_attr){2, by};
    sample_float(&s->in[0], -1, 1, DIMS(d[by ? 1 : 2], d[by ? 2 : 1]));
    sample_float(&s->in[1], -1, 1, DIMS(d[by], d[!by]));
    if (d[4]) s->in[1].packing = packing_table[packed / 3];
    sample_float(&s->in[2], -0.5, 0.5, DIMS(d[0], d[2]));
    s->bench = bench_of(d[0]);
    return true;
}
const struct op op_dora_norm = {
    .name = "dora_norm",
    .in = "a #w b",
    .out = "norm",
    .attr_size = sizeof(struct dora_attr),
    .shape = norm_shape,
    .ref = norm_ref,
    .scratch = norm_scratch,
    .scratch_cuda = norm_scratch_cuda,
    .cpu = CPU(dora_norm),
    .cuda = CUDA(dora_norm),
    .sample = norm_sample,
    .bound = {16, 1},
};

/* u, m, norm at `at`. */
static int dora_check(const struct op_call *c, int at, struct err *e) {
    const struct view *u = &c->in[at];
    if (need_float(c, at, e) || need_rank(c, at, 2, e) || need_rank(c, at + 1, 1, e) ||
        need_dtype(c, at + 1, u->dtype, e) || need_dim(c, at + 1, 0, u->dim[1], e) ||
        need_rank(c, at + 2, 1, e) || need_dtype(c, at + 2, u->dtype == F64 ? F64 : F32, e) ||
        need_dim(c, at + 2, 0, u->dim[1], e))
        return -1;
    return 0;
}
static int dora_shape(struct op_call *c, struct err *e) {
    const struct view *u = &c->in[0];
    if (dora_check(c, 0, e) ||
        (is_present(&c->in[3]) && (need_rank(c, 3, 1, e) || need_dtype(c, 3, u->dtype, e) ||
                                   need_dim(c, 3, 0, u->dim[1], e))))
        return -1;
    set_out_like(c, 0, u);
    return 0;
}
static void dora_ref(const struct op_call *c) {
    const double *u = c->in[0].data, *m = c->in[1].data, *norm = c->in[2].data;
    const double *bias = c->in[3].data;
    const i64 out = c->in[0].dim[1];
    for (i64 i = 0; i < view_count(&c->in[0]); i++)
        ((double *)c->out[0].data)[i] =
            u[i] * m[i % out] / norm[i % out] + (bias ? bias[i % out] : 0);
}
static const i64 sizes[][2] = {{1, 1}, {3, 5}, {7, 33}, {67, 96}, {2048, 4096}, {16384, 4096}};
static bool dora_samples(int index, struct sample *s, int u) {
    if (index >= COUNT(sizes)) return false;
    const i64 *d = sizes[index];
    for (int i = 0; i <= u; i++) sample_float(&s->in[i], -2, 2, DIMS(d[0], d[1]));
    sample_float(&s->in[u + 1], 0.5, 2, DIMS(d[1]));
    sample_f32(&s->in[u + 2], 0.5, 2, DIMS(d[1]));
    if (!u && index % 2) sample_float(&s->in[3], -1, 1, DIMS(d[1]));
    if (u) sample_out(&s->out[1], DIMS(d[1]));
    s->bench = bench_of(d[0]);
    s->no_gradient_check = !u; /* the norm is a constant; test_golden.c checks du and dm */
    return true;
}
static bool dora_sample(int index, struct sample *s) { return dora_samples(index, s, 0); }
static bool dora_back_sample(int index, struct sample *s) { return dora_samples(index, s, 1); }
const struct op op_dora = {
    .name = "dora",
    .in = "u m norm bias?",
    .out = "y",
    .attr_size = sizeof(struct lora_attr),
    .shape = dora_shape,
    .grad = {{"dora_back", "dy u m norm", "du +dm"}, {"bias_dw", "dy", "+dbias"}},
    .ref = dora_ref,
    .cpu = CPU(dora),
    .cuda = CUDA(dora),
    .sample = dora_sample,
    .bound = {4, 1},
};

static int dora_back_shape(struct op_call *c, struct err *e) {
    if (need_same(c, 0, 1, e) || dora_check(c, 1, e)) return -1;
    set_out_like(c, 0, &c->in[1]);
    const enum dtype sum = c->in[1].dtype == F64 ? F64 : F32;
    return is_present(&c->out[1]) ? need_out(c, 1, sum, 1, c->in[1].dim + 1, e) : 0;
}
static void dora_back_ref(const struct op_call *c) {
    const double *dy = c->in[0].data, *u = c->in[1].data, *m = c->in[2].data;
    const double *norm = c->in[3].data;
    double *du = c->out[0].data, *dm = c->out[1].data;
    const i64 out = c->in[0].dim[1];
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        if (du) du[i] = dy[i] * m[i % out] / norm[i % out];
        if (dm) dm[i % out] += dy[i] * u[i] / norm[i % out];
    }
}
const struct op op_dora_back = {
    .name = "dora_back",
    .in = "dy u m norm",
    .out = "du +dm?",
    .attr_size = sizeof(struct lora_attr),
    .shape = dora_back_shape,
    .ref = dora_back_ref,
    .cpu = CPU(dora_back),
    .cuda = CUDA(dora_back),
    .sample = dora_back_sample,
    .bound = {8, 1},
};
