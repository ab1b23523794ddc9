/* elementwise.c: swiglu and add.
 *
 * swiglu: y = silu(gate) * up (Shazeer, 2020), silu(g) = g * s with s = sigmoid(g); and its
 * gradient dup = dy * (g * s), dgate = (dy * up) * (s * (1 + g * (1 - s))). All [.., cols],
 * elementwise in f32, one rounding at the end of each. */
#include "ops/ops_int.h"

#include <math.h>

static int swiglu_shape(struct op_call *c, struct err *e) {
    if (need_float(c, 0, e) || need_same(c, 1, 0, e)) return -1;
    set_out_like(c, 0, &c->in[0]);
    return 0;
}
static void swiglu_ref(const struct op_call *c) {
    const double *gate = c->in[0].data, *up = c->in[1].data;
    for (i64 i = 0; i < view_count(&c->in[0]); i++)
        ((double *)c->out[0].data)[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
}
static bool elementwise_sample(int index, struct sample *s, int inputs) {
    static const i64 shape[][2] = {{1, 1},    {3, 5},       {7, 33},
                                   {2, 1024}, {2048, 3072}, {16384, 14336}};
    if (index >= COUNT(shape)) return false;
    for (int i = 0; i < inputs; i++)
        sample_float(&s->in[i], -3, 3, DIMS(shape[index][0], shape[index][1]));
    s->bench = bench_of(shape[index][0]);
    return true;
}
static bool swiglu_sample(int index, struct sample *s) { return elementwise_sample(index, s, 2); }
const struct op op_swiglu = {
    .name = "swiglu",
    .in = "gate up",
    .out = "y",
    .shape = swiglu_shape,
    .grad = {{"swiglu_back", "dy gate up", "dgate dup"}},
    .ref = swiglu_ref,
    .cpu = CPU(swiglu),
    .cuda = CUDA(swiglu),
    .sample = swiglu_sample,
    .bound = {8, 2},
};

static int swiglu_back_shape(struct op_call *c, struct err *e) {
    if (need_float(c, 0, e) || need_same(c, 1, 0, e) || need_same(c, 2, 0, e)) return -1;
    set_out_like(c, 0, &c->in[0]), set_out_like(c, 1, &c->in[0]);
    return 0;
}
static void swiglu_back_ref(const struct op_call *c) {
    const double *dy = c->in[0].data, *gate = c->in[1].data, *up = c->in[2].data;
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        const double s = 1 / (1 + exp(-gate[i]));
        ((double *)c->out[0].data)[i] = dy[i] * up[i] * s * (1 + gate[i] * (1 - s));
        ((double *)c->out[1].data)[i] = dy[i] * gate[i] * s;
    }
}
static bool swiglu_back_sample(int index, struct sample *s) {
    return elementwise_sample(index, s, 3);
}
const struct op op_swiglu_back = {
    .name = "swiglu_back",
    .in = "dy gate up",
    .out = "dgate dup",
    .shape = swiglu_back_shape,
    .ref = swiglu_back_ref,
    .cpu = CPU(swiglu_back),
    .cuda = CUDA(swiglu_back),
    .sample = swiglu_back_sample,
    .bound = {8, 2},
};

/* add: y = a + b. The graph uses it where a tensor feeds several operations. */
static void add_ref(const struct op_call *c) {
    for (i64 i = 0; i < view_count(&c->in[0]); i++)
        ((double *)c->out[0].data)[i] = ((double *)c->in[0].data)[i] + ((double *)c->in[1].data)[i];
}
const struct op op_add = {
    .name = "add",
    .in = "a b",
    .out = "y",
    .shape = swiglu_shape,
    .grad = {{NULL, "dy", "da"}, {NULL, "dy", "db"}},
    .ref = add_ref,
    .cpu = CPU(add),
    .cuda = CUDA(add),
    .sample = swiglu_sample,
    .bound = {1, 1},
};
