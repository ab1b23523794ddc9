/* elementwise.c: add, scale, softcap, clamp, gate_mul: x [..., cols], elementwise in f32, one
 * rounding at the end of each result.
 *
 *   add       y = a + b. The graph uses it where a tensor feeds several operations
 *   scale     y = x * (factor * f), f [rows] f32 one for each row, 1 where it is absent: embedding
 *             multipliers, the scale of q by position (Llama 4, Ministral 3)
 *   softcap   y = c * tanh(x * (1/c)), 1/c rounded to f32; dx = dy * (1 - (y * (1/c))^2) (Gemma 2)
 *   clamp     y = x within +-limit; dx = dy there, 0 outside (OLMo's clip_qkv)
 *   gate_mul  y = x * s, s = sigmoid(g), g like x or one for each row ([rows] or [rows, 1]); dx =
 *             dy * s, dg = (dy * x) * (s * (1 - s)), of a row the sum of dy * x by NUMERICS.md 7
 *             with fma (attention's output gates, the gate of a shared expert) */
#include "ops/ops_int.h"

#include <math.h>

static const i64 shapes[][2] = {{1, 1},    {3, 5},       {7, 33},       {2, 1024},
                                {67, 104}, {2048, 3072}, {16384, 14336}};

static bool sample_like(int index, struct sample *s, int inputs) {
    if (index >= COUNT(shapes)) return false;
    for (int i = 0; i < inputs; i++)
        sample_float(&s->in[i], -3, 3, DIMS(shapes[index][0], shapes[index][1]));
    s->bench = bench_of(shapes[index][0]);
    return true;
}
static bool one_sample(int index, struct sample *s) {
    *(double *)s->attr = 1.7; /* scale_attr, limit_attr */
    return sample_like(index, s, 1);
}
static bool two_sample(int index, struct sample *s) {
    *(double *)s->attr = 1.7;
    return sample_like(index, s, 2);
}
static int one_shape(struct op_call *c, struct err *e) {
    if (need_float(c, 0, e) || (is_present(&c->in[1]) && need_same(c, 1, 0, e))) return -1;
    set_out_like(c, 0, &c->in[0]);
    return 0;
}
static int limit_shape(struct op_call *c, struct err *e) {
    const double limit = ((const struct limit_attr *)c->attr)->limit;
    if (limit > 0) return one_shape(c, e);
    return err_failed(e, "operation %s: limit %g; expected a number above 0", c->op->name, limit);
}
static double in_at(const struct op_call *c, int k, i64 i) {
    return ((const double *)c->in[k].data)[i];
}
static double limit_of(const struct op_call *c) {
    return ((const struct limit_attr *)c->attr)->limit;
}

#define EACH                                                                                       \
    for (i64 i = 0; i < view_count(&c->in[0]); i++) ((double *)c->out[0].data)[i]
static void add_ref(const struct op_call *c) { EACH = in_at(c, 0, i) + in_at(c, 1, i); }
static void softcap_ref(const struct op_call *c) {
    EACH = limit_of(c) * tanh(in_at(c, 0, i) / limit_of(c));
}
static void softcap_back_ref(const struct op_call *c) {
    EACH = in_at(c, 0, i) * (1 - pow(in_at(c, 1, i) / limit_of(c), 2));
}
static void clamp_ref(const struct op_call *c) {
    EACH = fmax(-limit_of(c), fmin(limit_of(c), in_at(c, 0, i)));
}
static void clamp_back_ref(const struct op_call *c) {
    EACH = fabs(in_at(c, 1, i)) <= limit_of(c) ? in_at(c, 0, i) : 0;
}

/* ---- scale ---- */
static int scale_shape(struct op_call *c, struct err *e) {
    const struct view *x = &c->in[0];
    if (need_float(c, 0, e)) return -1;
    if (is_present(&c->in[1]) &&
        (need_rank(c, 1, 1, e) || need_dtype(c, 1, x->dtype == F64 ? F64 : F32, e) ||
         need_dim(c, 1, 0, view_rows(x), e)))
        return -1;
    set_out_like(c, 0, x);
    return 0;
}
static void scale_ref(const struct op_call *c) {
    const i64 cols = c->in[0].dim[c->in[0].rank - 1];
    const double factor = ((const struct scale_attr *)c->attr)->factor;
    EACH = in_at(c, 0, i) * factor * (is_present(&c->in[1]) ? in_at(c, 1, i / cols) : 1);
}
static bool scale_sample(int index, struct sample *s) {
    if (!one_sample(index / 2, s)) return false;
    if (index % 2) sample_f32(&s->in[1], 0.5, 2, DIMS(s->in[0].dim[0]));
    return true;
}

/* ---- gate_mul: x g; backward: dy x g -> dx dg ---- */
static int gate_check(const struct op_call *c, int x, int g, struct err *e) {
    const struct view *gate = &c->in[g], *v = &c->in[x];
    if (need_float(c, x, e) || need_dtype(c, g, v->dtype, e)) return -1;
    if (gate->rank == 1 && gate->dim[0] == view_rows(v)) return 0;
    if (gate->rank == 2 && gate->dim[0] == view_rows(v) && gate->dim[1] == 1) return 0;
    return need_same(c, g, x, e);
}
static int gate_mul_shape(struct op_call *c, struct err *e) {
    if (gate_check(c, 0, 1, e)) return -1;
    set_out_like(c, 0, &c->in[0]);
    return 0;
}
static int gate_mul_back_shape(struct op_call *c, struct err *e) {
    if (need_same(c, 0, 1, e) || gate_check(c, 1, 2, e)) return -1;
    set_out_like(c, 0, &c->in[1]), set_out_like(c, 1, &c->in[2]);
    return 0;
}
static i64 gate_step(const struct op_call *c, int g) { /* elements of x for one of the gate */
    return view_count(&c->in[0]) / i64_max(1, view_count(&c->in[g]));
}
static void gate_mul_ref(const struct op_call *c) {
    EACH = in_at(c, 0, i) / (1 + exp(-in_at(c, 1, i / gate_step(c, 1))));
}
static void gate_mul_back_ref(const struct op_call *c) {
    double *dx = c->out[0].data, *dg = c->out[1].data;
    for (i64 i = 0; dg && i < view_count(&c->in[2]); i++) dg[i] = 0;
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        const i64 k = i / gate_step(c, 2);
        const double s = 1 / (1 + exp(-in_at(c, 2, k)));
        if (dx) dx[i] = in_at(c, 0, i) * s;
        if (dg) dg[k] += in_at(c, 0, i) * in_at(c, 1, i) * s * (1 - s);
    }
}
static bool gate_samples(int index, struct sample *s, int g) {
    if (!sample_like(index / 2, s, g + 1)) return false;
    if (index % 4 == 1) sample_float(&s->in[g], -3, 3, DIMS(s->in[0].dim[0]));
    if (index % 4 == 3) sample_float(&s->in[g], -3, 3, DIMS(s->in[0].dim[0], 1));
    return true;
}
static bool gate_mul_sample(int index, struct sample *s) { return gate_samples(index, s, 1); }
static bool gate_mul_back_sample(int index, struct sample *s) { return gate_samples(index, s, 2); }

#define OP(NAME, IN, OUT, ATTR, SHAPE, SAMPLE, BOUND, ...)                                         \
    const struct op op_##NAME = {.name = #NAME,                                                    \
                                 .in = IN,                                                         \
                                 .out = OUT,                                                       \
                                 .attr_size = ATTR,                                                \
                                 .shape = SHAPE##_shape,                                           \
                                 .grad = {__VA_ARGS__},                                            \
                                 .ref = NAME##_ref,                                                \
                                 .cpu = CPU(NAME),                                                 \
                                 .cuda = CUDA(NAME),                                               \
                                 .sample = SAMPLE##_sample,                                        \
                                 .bound = {BOUND, BOUND > 2 ? 2 : 1}};
enum { SCALE = sizeof(struct scale_attr), LIMIT = sizeof(struct limit_attr) };
OP(add, "a b", "y", 0, one, two, 1, {NULL, "dy", "da"}, {NULL, "dy", "db"})
OP(scale, "x factor?", "y", SCALE, scale, scale, 2, {"scale", "dy factor", "dx"})
OP(softcap, "x", "y", LIMIT, limit, one, 8, {"softcap_back", "dy y", "dx"})
OP(softcap_back, "dy y", "dx", LIMIT, limit, two, 8, {0})
OP(clamp, "x", "y", LIMIT, limit, one, 1, {"clamp_back", "dy x", "dx"})
OP(clamp_back, "dy x", "dx", LIMIT, limit, two, 1, {0})
OP(gate_mul, "x g", "y", 0, gate_mul, gate_mul, 8, {"gate_mul_back", "dy x g", "dx dg"})
OP(gate_mul_back, "dy x g", "dx dg", 0, gate_mul_back, gate_mul_back, 8, {0})
