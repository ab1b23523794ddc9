/* ema.c: an exponential moving average over the rows of a document, column by column.
 *
 * x [N, D], position [N] i32, decay a of the attribute:
 *   y_n = fma(a, y_(n-1), (1 - a) * x_n), without y_(n-1) where position_n is 0: the first row of a
 *   document sees no other document. The chain is f32, each y rounded once for the result.
 *   ema_back, g of the result: s_n = fma(a, s_(n+1), g_n), without s_(n+1) where position_(n+1)
 *   is 0 or n is the last; dx_n = (1 - a) * s_n, rounded once.
 *   ema_step: the y before the first of these rows of a sequence is row slot_n of state [S, D] f32,
 *   and the last one goes there: any cut of a document into calls gives the bits of one call. */
#include "ops/ops_int.h"

static double decay_of(const struct op_call *c) {
    return ((const struct ema_attr *)c->attr)->decay;
}

static int ema_shape(struct op_call *c, struct err *e) {
    if (need_rank(c, 0, 2, e) || need_float(c, 0, e) || need_rank(c, 1, 1, e) ||
        need_dtype(c, 1, I32, e) || need_dim(c, 1, 0, c->in[0].dim[0], e))
        return -1;
    set_out_like(c, 0, &c->in[0]);
    return 0;
}
static int ema_step_shape(struct op_call *c, struct err *e) {
    if (ema_shape(c, e) || need_rank(c, 2, 1, e) || need_dtype(c, 2, I32, e) ||
        need_dim(c, 2, 0, c->in[0].dim[0], e))
        return -1;
    return need_out(c, 1, c->in[0].dtype == F64 ? F64 : F32, 2,
                    (i64[]){c->out[1].dim[0], c->in[0].dim[1]}, e);
}

static void ema_ref(const struct op_call *c) {
    const double a = decay_of(c), *x = c->in[0].data;
    const i32 *position = c->in[1].data, *slot = c->op == &op_ema_step ? c->in[2].data : NULL;
    const i64 n = c->in[0].dim[0], d = c->in[0].dim[1];
    double *y = c->out[0].data, *state = slot ? c->out[1].data : NULL;
    for (i64 i = 0; i < n; i++)
        for (i64 k = 0; k < d; k++) {
            const double before = slot ? state[slot[i] * d + k] : i ? y[(i - 1) * d + k] : 0;
            y[i * d + k] = (position[i] ? a * before : 0) + (1 - a) * x[i * d + k];
            if (slot) state[slot[i] * d + k] = y[i * d + k];
        }
}
static void ema_back_ref(const struct op_call *c) {
    const double a = decay_of(c), *g = c->in[0].data;
    const i32 *position = c->in[1].data;
    const i64 n = c->in[0].dim[0], d = c->in[0].dim[1];
    double *dx = c->out[0].data;
    for (i64 k = 0; k < d; k++) {
        double s = 0;
        for (i64 i = n; i-- > 0;) {
            s = (i + 1 < n && position[i + 1] ? a * s : 0) + g[i * d + k];
            dx[i * d + k] = (1 - a) * s;
        }
    }
}

static void documents(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = (i32)(i * i % 11 ? i : 0);
}
static bool ema_sample(int index, struct sample *s) {
    static const i64 shape[][2] = {{1, 1}, {3, 5}, {11, 33}, {67, 104}, {2048, 768}, {16384, 4096}};
    if (index >= COUNT(shape)) return false;
    const i64 *d = shape[index];
    *(struct ema_attr *)s->attr = (struct ema_attr){0.9};
    sample_float(&s->in[0], -3, 3, DIMS(d[0], d[1]));
    sample_int(&s->in[1], 0, 1, DIMS(d[0]));
    s->in[1].fill = FILL_CUSTOM, s->in[1].custom = documents;
    s->bench = bench_of(d[0]);
    return true;
}
static bool ema_step_sample(int index, struct sample *s) {
    if (!ema_sample(index, s)) return false;
    sample_int(&s->in[2], 0, 3, DIMS(s->in[0].dim[0]));
    sample_f32(&s->out[1], -1, 1, DIMS(3, s->in[0].dim[1]));
    return true;
}

#define EMA(id, ins, outs, rule, plain, samples, gradient)                                         \
    const struct op op_##id = {.name = #id,                                                        \
                               .in = ins,                                                          \
                               .out = outs,                                                        \
                               .attr_size = sizeof(struct ema_attr),                               \
                               .shape = rule,                                                      \
                               .grad = {gradient},                                                 \
                               .ref = plain,                                                       \
                               .cpu = CPU(id),                                                     \
                               .cuda = CUDA(id),                                                   \
                               .sample = samples,                                                  \
                               .bound = {8, 1}};
#define BACK                                                                                       \
    { "ema_back", "dy position", "dx" }
EMA(ema, "x position", "y", ema_shape, ema_ref, ema_sample, BACK)
EMA(ema_back, "dy position", "dx", ema_shape, ema_back_ref, ema_sample, {0})
EMA(ema_step, "x position slot", "y =state", ema_step_shape, ema_ref, ema_step_sample, {0})
