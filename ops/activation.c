/* activation.c: activations of MLPs, alone (act), multiplied by a second branch (glu), and xIELU.
 *
 *   act  y = f(x);  glu  y = f(gate) * up (Shazeer, 2020); all [..., cols], elementwise in f32, one
 * rounding at the end of each result:
 *   ACT_SILU       f = x * s, s = sigmoid(x);           f' = s * fma(x, 1 - s, 1)
 *   ACT_GELU       f = x * p, p = (1 + erf(x / sqrt 2)) / 2;  f' = p + x * e^(-x^2/2) / sqrt(2 pi)
 *   ACT_GELU_TANH  p = (1 + tanh u) / 2, u = x * sqrt(2/pi) * (1 + 0.044715 x^2);
 *                  f' = p + x / 2 * (1 - tanh^2 u) * du/dx
 *   ACT_RELU       f = max(x, 0), f' = 1 where x > 0
 *   ACT_CLAMPED    of GPT-OSS, glu only: g = min(gate, limit), u = up within +-limit,
 *                  y = (g * sigmoid(alpha * g)) * (u + 1); no gradient where a limit was met
 * Gradients: dx = dy * f'; dup = dy * f, dgate = (dy * up) * f'.
 *
 *   xielu (Huang and Schlag, 2024; Apertus): with a = softplus(alpha_p), b = beta +
 * softplus(alpha_n), each [1] in the dtype of x, made in f64 and rounded to f32:
 *   x > 0   y = fma(a, x^2, beta * x)                       dx = dy * fma(a, 2x, beta)
 *   else    y = fma(b, expm1(min(x, eps)) - x, beta * x)    dx = dy * fma(b, [x <= eps] e^x - 1,
 *                                                                        beta)
 * dalpha += sigmoid(alpha) * the sum over a row (NUMERICS.md 7) of dy * (what a or b multiplies), a
 * chain in f32 over rows ascending (NUMERICS.md 5). */
#include "ops/ops_int.h"

#include <math.h>

static double act_ref1(const struct act_attr *a, double x, double *slope) {
    const double s = 1 / (1 + exp(-x)), c = sqrt(2 / M_PI),
                 t = tanh(c * (x + 0.044715 * x * x * x));
    const double p = (1 + erf(x / sqrt(2))) / 2;
    switch (a->act) {
    case ACT_SILU: return *slope = s * (1 + x * (1 - s)), x * s;
    case ACT_GELU: return *slope = p + x * exp(-x * x / 2) / sqrt(2 * M_PI), x * p;
    case ACT_GELU_TANH:
        *slope = (1 + t) / 2 + x / 2 * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
        return x * (1 + t) / 2;
    case ACT_RELU: return *slope = x > 0, x > 0 ? x : 0;
    case ACT_CLAMPED: break;
    }
    const double g = fmin(x, a->limit), z = 1 / (1 + exp(-a->alpha * g));
    return *slope = x > a->limit ? 0 : z * (1 + a->alpha * g * (1 - z)), g * z;
}
static double up_ref(const struct act_attr *a, double up) {
    return a->act == ACT_CLAMPED ? fmax(-a->limit, fmin(a->limit, up)) + 1 : up;
}

/* All inputs from the first on alike; one result for each of the last `outs` of them. */
static int act_check(struct op_call *c, int ins, int outs, struct err *e) {
    const struct act_attr *a = c->attr;
    if (need_float(c, 0, e)) return -1;
    for (int i = 1; i < ins; i++)
        if (need_same(c, i, 0, e)) return -1;
    for (int i = 0; i < outs; i++) set_out_like(c, i, &c->in[0]);
    const bool gated = c->op == &op_glu || c->op == &op_glu_back;
    if (a->act < ACT_CLAMPED || (gated && a->act == ACT_CLAMPED && a->limit > 0)) return 0;
    return err_failed(e, "operation %s: activation %d, limit %g", c->op->name, (int)a->act,
                      a->limit);
}
static int glu_shape(struct op_call *c, struct err *e) { return act_check(c, 2, 1, e); }
static int glu_back_shape(struct op_call *c, struct err *e) { return act_check(c, 3, 2, e); }
static int act_shape(struct op_call *c, struct err *e) { return act_check(c, 1, 1, e); }
static int act_back_shape(struct op_call *c, struct err *e) { return act_check(c, 2, 1, e); }

static void glu_ref(const struct op_call *c) {
    const double *gate = c->in[0].data, *up = c->in[1].data;
    double slope;
    for (i64 i = 0; i < view_count(&c->in[0]); i++)
        ((double *)c->out[0].data)[i] = act_ref1(c->attr, gate[i], &slope) * up_ref(c->attr, up[i]);
}
static void glu_back_ref(const struct op_call *c) {
    const double *dy = c->in[0].data, *gate = c->in[1].data, *up = c->in[2].data;
    const struct act_attr *a = c->attr;
    double slope;
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        const double f = act_ref1(a, gate[i], &slope);
        const bool met = a->act == ACT_CLAMPED && fabs(up[i]) > a->limit;
        if (c->out[0].data) ((double *)c->out[0].data)[i] = dy[i] * up_ref(a, up[i]) * slope;
        if (c->out[1].data) ((double *)c->out[1].data)[i] = met ? 0 : dy[i] * f;
    }
}
static void act_ref(const struct op_call *c) {
    double slope;
    for (i64 i = 0; i < view_count(&c->in[0]); i++)
        ((double *)c->out[0].data)[i] = act_ref1(c->attr, ((double *)c->in[0].data)[i], &slope);
}
static void act_back_ref(const struct op_call *c) {
    double slope;
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        act_ref1(c->attr, ((double *)c->in[1].data)[i], &slope);
        ((double *)c->out[0].data)[i] = ((double *)c->in[0].data)[i] * slope;
    }
}

static bool act_samples(int index, struct sample *s, int inputs, int acts) {
    static const i64 shape[][2] = {{1, 1}, {3, 5}, {7, 33}, {2, 1024}};
    static const i64 large[][2] = {{2048, 3072}, {16384, 14336}};
    const int small = COUNT(shape) * acts;
    if (index >= small + COUNT(large)) return false;
    const i64 *d = index < small ? shape[index / acts] : large[index - small];
    *(struct act_attr *)s->attr =
        (struct act_attr){index < small ? (enum act)(index % acts) : ACT_SILU, 1.5, 1.702};
    for (int i = 0; i < inputs; i++) sample_float(&s->in[i], -3, 3, DIMS(d[0], d[1]));
    s->bench = bench_of(d[0]);
    return true;
}
static bool glu_sample(int index, struct sample *s) { return act_samples(index, s, 2, 5); }
static bool glu_back_sample(int index, struct sample *s) { return act_samples(index, s, 3, 5); }
static bool act_sample(int index, struct sample *s) { return act_samples(index, s, 1, 4); }
static bool act_back_sample(int index, struct sample *s) { return act_samples(index, s, 2, 4); }

#define ACT(NAME, IN, OUT, ...)                                                                    \
    const struct op op_##NAME = {.name = #NAME,                                                    \
                                 .in = IN,                                                         \
                                 .out = OUT,                                                       \
                                 .attr_size = sizeof(struct act_attr),                             \
                                 .shape = NAME##_shape,                                            \
                                 .grad = {__VA_ARGS__},                                            \
                                 .ref = NAME##_ref,                                                \
                                 .cpu = CPU(NAME),                                                 \
                                 .cuda = CUDA(NAME),                                               \
                                 .sample = NAME##_sample,                                          \
                                 .bound = {8, 2}};
ACT(glu, "gate up", "y", {"glu_back", "dy gate up", "dgate dup"})
ACT(glu_back, "dy gate up", "dgate dup", {0})
ACT(act, "x", "y", {"act_back", "dy x", "dx"})
ACT(act_back, "dy x", "dx", {0})

/* ---- xielu: x, alpha_p, alpha_n; backward: dy before them ---- */
static int xielu_check(const struct op_call *c, int x, struct err *e) {
    const struct xielu_attr *a = c->attr;
    if (need_float(c, x, e) || (x && need_same(c, 0, x, e))) return -1;
    for (int i = x + 1; i < x + 3; i++)
        if (need_rank(c, i, 1, e) || need_dtype(c, i, c->in[x].dtype, e) || need_dim(c, i, 0, 1, e))
            return -1;
    if (a->eps <= 0) return 0;
    return err_failed(e, "operation %s: eps %g is above 0", c->op->name, a->eps);
}
static int xielu_shape(struct op_call *c, struct err *e) {
    if (xielu_check(c, 0, e)) return -1;
    set_out_like(c, 0, &c->in[0]);
    return 0;
}
static int xielu_back_shape(struct op_call *c, struct err *e) {
    if (xielu_check(c, 1, e)) return -1;
    set_out_like(c, 0, &c->in[1]);
    for (int i = 1; i < 3; i++)
        if (is_present(&c->out[i]) &&
            need_out(c, i, c->in[1].dtype == F64 ? F64 : F32, 1, (i64[]){1}, e))
            return -1;
    return 0;
}
static double softplus_ref(const struct view *v) { return log1p(exp(*(double *)v->data)); }
static void xielu_ref(const struct op_call *c) {
    const struct xielu_attr *t = c->attr;
    const double a = softplus_ref(&c->in[1]), b = t->beta + softplus_ref(&c->in[2]);
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        const double x = ((double *)c->in[0].data)[i];
        ((double *)c->out[0].data)[i] =
            (x > 0 ? a * x * x : b * (expm1(fmin(x, t->eps)) - x)) + t->beta * x;
    }
}
static void xielu_back_ref(const struct op_call *c) {
    const struct xielu_attr *t = c->attr;
    const double a = softplus_ref(&c->in[2]), b = t->beta + softplus_ref(&c->in[3]);
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        const double dy = ((double *)c->in[0].data)[i], x = ((double *)c->in[1].data)[i];
        const int side = x > 0 ? 0 : 1;
        const double term = side ? expm1(fmin(x, t->eps)) - x : x * x;
        double *dalpha = c->out[1 + side].data;
        if (c->out[0].data)
            ((double *)c->out[0].data)[i] =
                dy * ((side ? b * ((x <= t->eps ? exp(x) : 0) - 1) : 2 * a * x) + t->beta);
        if (dalpha) *dalpha += dy * term / (1 + exp(-*(double *)c->in[2 + side].data));
    }
}
static i64 xielu_back_scratch(const struct op_call *c) { /* sums of rows, for each scalar */
    return 2 * view_rows(&c->in[0]) * (i64)sizeof(float);
}
static bool xielu_samples(int index, struct sample *s, int x) {
    static const i64 shape[][2] = {{1, 1},    {3, 5},       {7, 33},
                                   {2, 1024}, {2048, 3072}, {16384, 14336}};
    if (index >= COUNT(shape)) return false;
    const i64 *d = shape[index];
    *(struct xielu_attr *)s->attr = (struct xielu_attr){0.5, -1e-6};
    for (int i = 0; i <= x; i++) sample_float(&s->in[i], -3, 3, DIMS(d[0], d[1]));
    for (int i = x + 1; i < x + 3; i++) sample_float(&s->in[i], -1, 1, DIMS(1));
    for (int i = 1; x && i < 3; i++) sample_out(&s->out[i], DIMS(1));
    s->bench = bench_of(d[0]);
    return true;
}
static bool xielu_sample(int index, struct sample *s) { return xielu_samples(index, s, 0); }
static bool xielu_back_sample(int index, struct sample *s) { return xielu_samples(index, s, 1); }

const struct op op_xielu = {
    .name = "xielu",
    .in = "x alpha_p alpha_n",
    .out = "y",
    .attr_size = sizeof(struct xielu_attr),
    .shape = xielu_shape,
    .grad = {{"xielu_back", "dy x alpha_p alpha_n", "dx +dalpha_p +dalpha_n"}},
    .ref = xielu_ref,
    .cpu = CPU(xielu),
    .cuda = CUDA(xielu),
    .sample = xielu_sample,
    .bound = {8, 2},
};
const struct op op_xielu_back = {
    .name = "xielu_back",
    .in = "dy x alpha_p alpha_n",
    .out = "dx +dalpha_p? +dalpha_n?",
    .attr_size = sizeof(struct xielu_attr),
    .shape = xielu_back_shape,
    .ref = xielu_back_ref,
    .scratch = xielu_back_scratch,
    .scratch_cuda = xielu_back_scratch,
    .cpu = CPU(xielu_back),
    .cuda = CUDA(xielu_back),
    .sample = xielu_back_sample,
    .bound = {64, 2}, /* dalpha: a sum of terms of both signs */
};
