/* rmsnorm.c: root mean square norms (Zhang and Sennrich, 2019) in the three forms that decoders
 * use.
 *
 *   rmsnorm      y = x * rstd * w                  rstd = 1 / sqrt(mean(x^2) + eps), per row
 *   add_rmsnorm  h = x + r, y = norm(h)            pre-norm blocks (Llama): the residual sum and
 * the next norm rmsnorm_add  y = r + norm(x)                   post-norm blocks (OLMo 2)
 *
 * x, r, y, h [..., cols] in f32 or bf16, w [cols] alike, rstd [rows] f32. Roundings: the sum of
 * squares by NUMERICS.md 7 with fma; rstd by IEEE division and square root; (x * rstd) * w in f32,
 * then one rounding; rmsnorm_add is one fma(x * rstd, w, r) and one rounding; h is rounded to its
 * dtype before it is used. Gradients, with g = dy * w: dx = rstd * (g - x * rstd^2 * mean(g * x))
 * (+ dh, before the one rounding) dw += dy * (x * rstd), a chain over rows ascending in f32 (the
 * row is the token: NUMERICS.md 5). */
#include "ops/ops_int.h"

#include <math.h>

/* Arguments x, [r,] w at `w`: all x-like but w [cols]. Sets rstd as output `rstd`. */
static int norm_shape(struct op_call *c, int w, int rstd, struct err *e) {
    if (need_float(c, 0, e) || need_rank(c, w, 1, e) || need_dtype(c, w, c->in[0].dtype, e) ||
        need_dim(c, w, 0, c->in[0].dim[c->in[0].rank - 1], e) || (w == 2 && need_same(c, 1, 0, e)))
        return -1;
    for (int i = 0; i < rstd; i++) set_out_like(c, i, &c->in[0]);
    set_out(c, rstd, c->in[0].dtype == F64 ? F64 : F32, 1, (i64[]){view_rows(&c->in[0])});
    return 0;
}
static int rmsnorm_shape(struct op_call *c, struct err *e) { return norm_shape(c, 1, 1, e); }
static int add_rmsnorm_shape(struct op_call *c, struct err *e) { return norm_shape(c, 2, 2, e); }
static int rmsnorm_add_shape(struct op_call *c, struct err *e) { return norm_shape(c, 2, 1, e); }

static double row_rstd(const double *x, i64 cols, const struct op_call *c) {
    double sum = 0;
    for (i64 i = 0; i < cols; i++) sum += x[i] * x[i];
    return 1 / sqrt(sum / (double)cols + ((const struct norm_attr *)c->attr)->eps);
}

static void norm_ref(const double *x, const double *r, const double *w, double *y, double *rstd,
                     const struct op_call *c) {
    const i64 cols = c->in[0].dim[c->in[0].rank - 1];
    for (i64 n = 0; n < view_rows(&c->in[0]); n++) {
        rstd[n] = row_rstd(x + n * cols, cols, c);
        for (i64 i = n * cols; i < (n + 1) * cols; i++)
            y[i] = x[i] * rstd[n] * w[i % cols] + (r ? r[i] : 0);
    }
}
static void rmsnorm_ref(const struct op_call *c) {
    norm_ref(c->in[0].data, NULL, c->in[1].data, c->out[0].data, c->out[1].data, c);
}
static void rmsnorm_add_ref(const struct op_call *c) {
    norm_ref(c->in[0].data, c->in[1].data, c->in[2].data, c->out[0].data, c->out[1].data, c);
}
static void add_rmsnorm_ref(const struct op_call *c) {
    double *h = c->out[0].data;
    for (i64 i = 0; i < view_count(&c->in[0]); i++)
        h[i] = ((double *)c->in[0].data)[i] + ((double *)c->in[1].data)[i];
    norm_ref(h, NULL, c->in[2].data, c->out[1].data, c->out[2].data, c);
}

static const i64 norm_sizes[][2] = {{1, 1},      {3, 5},       {2, 16},      {7, 33},
                                    {5, 100},    {67, 128},    {600, 24},    {3, 1040},
                                    {2048, 768}, {2048, 4096}, {32768, 4096}};

static bool norm_sample(int index, struct sample *s, int inputs) {
    if (index >= COUNT(norm_sizes)) return false;
    const i64 *d = norm_sizes[index];
    *(struct norm_attr *)s->attr = (struct norm_attr){1e-5};
    for (int i = 0; i < inputs; i++) sample_float(&s->in[i], -2, 2, DIMS(d[0], d[1]));
    sample_float(&s->in[inputs], 0.5, 1.5, DIMS(d[1]));
    s->bench = bench_of(d[0]);
    return true;
}
static bool rmsnorm_sample(int index, struct sample *s) { return norm_sample(index, s, 1); }
static bool residual_sample(int index, struct sample *s) { return norm_sample(index, s, 2); }

const struct op op_rmsnorm = {
    .name = "rmsnorm",
    .in = "x w",
    .out = "y rstd",
    .attr_size = sizeof(struct norm_attr),
    .shape = rmsnorm_shape,
    .grad = {{"rmsnorm_back", "dy x w rstd", "dx +dw"}},
    .ref = rmsnorm_ref,
    .cpu = CPU(rmsnorm),
    .cuda = CUDA(rmsnorm),
    .sample = rmsnorm_sample,
    .bound = {8, 2},
};
const struct op op_add_rmsnorm = {
    .name = "add_rmsnorm",
    .in = "x r w",
    .out = "h y rstd",
    .attr_size = sizeof(struct norm_attr),
    .shape = add_rmsnorm_shape,
    .grad = {{"add_rmsnorm_back", "dh dy h w rstd", "dx=dr +dw"}},
    .ref = add_rmsnorm_ref,
    .cpu = CPU(add_rmsnorm),
    .cuda = CUDA(add_rmsnorm),
    .sample = residual_sample,
    .bound = {8, 4},
};
const struct op op_rmsnorm_add = {
    .name = "rmsnorm_add",
    .in = "x r w",
    .out = "y rstd",
    .attr_size = sizeof(struct norm_attr),
    .shape = rmsnorm_add_shape,
    .grad = {{"rmsnorm_back", "dy x w rstd", "dx +dw"}, {NULL, "dy", "dr"}},
    .ref = rmsnorm_add_ref,
    .cpu = CPU(rmsnorm_add),
    .cuda = CUDA(rmsnorm_add),
    .sample = residual_sample,
    .bound = {8, 2},
};

/* [dh,] dy, x, w, rstd -> dx, dw (f32, added to). `first`: index of dy. */
static int back_shape(struct op_call *c, int first, struct err *e) {
    const struct view *x = &c->in[first + 1];
    if (need_float(c, first + 1, e) || need_same(c, first, first + 1, e) ||
        need_dim(c, first + 2, 0, x->dim[x->rank - 1], e) ||
        need_dim(c, first + 3, 0, view_rows(x), e) ||
        (first && is_present(&c->in[0]) && need_same(c, 0, first + 1, e)))
        return -1;
    set_out_like(c, 0, x);
    const enum dtype sum = x->dtype == F64 ? F64 : F32;
    return is_present(&c->out[1]) ? need_out(c, 1, sum, 1, (i64[]){x->dim[x->rank - 1]}, e) : 0;
}
static int rmsnorm_back_shape(struct op_call *c, struct err *e) { return back_shape(c, 0, e); }
static int add_rmsnorm_back_shape(struct op_call *c, struct err *e) { return back_shape(c, 1, e); }

static void back_ref(const struct op_call *c, int first) {
    const double *dh = first ? c->in[0].data : NULL;
    const double *dy = c->in[first].data, *x = c->in[first + 1].data, *w = c->in[first + 2].data;
    const double *rstd = c->in[first + 3].data;
    double *dx = c->out[0].data, *dw = c->out[1].data;
    const i64 cols = c->in[first + 2].dim[0];
    for (i64 n = 0; n < view_rows(&c->in[first]); n++) {
        double dot = 0;
        for (i64 i = 0; i < cols; i++) dot += dy[n * cols + i] * w[i] * x[n * cols + i];
        for (i64 i = 0; i < cols; i++) {
            const i64 at = n * cols + i;
            dx[at] = rstd[n] * (dy[at] * w[i] - x[at] * rstd[n] * rstd[n] * dot / (double)cols) +
                     (dh ? dh[at] : 0);
            if (dw) dw[i] += dy[at] * x[at] * rstd[n];
        }
    }
}
static void rmsnorm_back_ref(const struct op_call *c) { back_ref(c, 0); }
static void add_rmsnorm_back_ref(const struct op_call *c) { back_ref(c, 1); }

static bool back_sample(int index, struct sample *s, int first) {
    if (index >= COUNT(norm_sizes)) return false;
    const i64 *d = norm_sizes[index];
    *(struct norm_attr *)s->attr = (struct norm_attr){1e-5};
    for (int i = 0; i < first + 2; i++) sample_float(&s->in[i], -2, 2, DIMS(d[0], d[1]));
    sample_float(&s->in[first + 2], 0.5, 1.5, DIMS(d[1]));
    sample_f32(&s->in[first + 3], 0.5, 1, DIMS(d[0]));
    sample_out(&s->out[1], DIMS(d[1]));
    s->bench = bench_of(d[0]);
    return true;
}
static bool rmsnorm_back_sample(int index, struct sample *s) { return back_sample(index, s, 0); }
static bool add_rmsnorm_back_sample(int index, struct sample *s) {
    return back_sample(index, s, 1);
}

const struct op op_rmsnorm_back = {
    .name = "rmsnorm_back",
    .in = "dy x w rstd",
    .out = "dx +dw?",
    .attr_size = sizeof(struct norm_attr),
    .shape = rmsnorm_back_shape,
    .ref = rmsnorm_back_ref,
    .cpu = CPU(rmsnorm_back),
    .cuda = CUDA(rmsnorm_back),
    .sample = rmsnorm_back_sample,
    .bound = {8, 2},
};
const struct op op_add_rmsnorm_back = {
    .name = "add_rmsnorm_back",
    .in = "dh? dy h w rstd",
    .out = "dx +dw?",
    .attr_size = sizeof(struct norm_attr),
    .shape = add_rmsnorm_back_shape,
    .ref = add_rmsnorm_back_ref,
    .cpu = CPU(add_rmsnorm_back),
    .cuda = CUDA(add_rmsnorm_back),
    .sample = add_rmsnorm_back_sample,
    .bound = {8, 2},
};
