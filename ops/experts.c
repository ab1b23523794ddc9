/* experts.c: the way of rows to the experts and back.
 *
 * Rows are sorted by expert (expert_plan in route.c): M = N * k assignments t = n * k + slot;
 * order[i] = t, place[t] = i. Weights are f32:
 *   expert_gather   rows[i] = x[t / k], or x[t / k] * weight[t], rounded
 *   expert_combine  y[n] = sum over slots, ascending, from 0, in f32: y = fma(weight, rows[place],
 *                   y), or y + rows[place] without weights; rounded once
 *   expert_weight_back  dweight[t] = sum over columns of dy[n] * rows[place[t]] (NUMERICS.md 7)
 * Each is the gradient of the other, so that both take both directions of the plan. */
#include "ops/ops_int.h"

#include <string.h>

static enum dtype wide_of(const struct view *v) { return v->dtype == F64 ? F64 : F32; }
static void zero(const struct view *v) {
    memset(v->data, 0, sizeof(double) * (size_t)view_count(v));
}

/* order at `at` and place after it: of the same number of assignments, `rows` if not negative. */
static int need_plan(const struct op_call *c, int at, i64 tokens, i64 rows, struct err *e) {
    const struct view *place = &c->in[at + 1];
    if (need_rank(c, at + 1, 2, e) || need_dtype(c, at + 1, I32, e) || need_rank(c, at, 1, e) ||
        need_dtype(c, at, I32, e) || need_dim(c, at, 0, view_count(place), e))
        return -1;
    if (tokens >= 0 && need_dim(c, at + 1, 0, tokens, e)) return -1;
    return rows >= 0 ? need_dim(c, at, 0, rows, e) : 0;
}
static int need_weight(const struct op_call *c, int at, struct err *e) {
    const struct view *place = &c->in[at - 1];
    if (!is_present(&c->in[at])) return 0;
    return need_rank(c, at, 2, e) || need_dtype(c, at, wide_of(&c->in[0]), e) ||
                   need_dim(c, at, 0, place->dim[0], e) || need_dim(c, at, 1, place->dim[1], e)
               ? -1
               : 0;
}

static int expert_gather_shape(struct op_call *c, struct err *e) {
    const struct view *x = &c->in[0];
    if (need_rank(c, 0, 2, e) || need_float(c, 0, e) || need_plan(c, 1, x->dim[0], -1, e) ||
        need_weight(c, 3, e))
        return -1;
    set_out(c, 0, x->dtype, 2, (i64[]){c->in[1].dim[0], x->dim[1]});
    return 0;
}
static void expert_gather_ref(const struct op_call *c) {
    const double *x = c->in[0].data, *w = c->in[3].data;
    const i32 *order = c->in[1].data;
    const i64 width = c->in[0].dim[1], k = c->in[2].dim[1];
    for (i64 i = 0; i < view_count(&c->out[0]); i++) {
        const i64 t = order[i / width];
        ((double *)c->out[0].data)[i] = x[t / k * width + i % width] * (w ? w[t] : 1);
    }
}
/* A permutation, and its inverse, that depend on the count alone. */
static i64 shuffled(i64 i, i64 count) { return count % 7 ? i * 7 % count : i; }
static void fill_order(void *data, const struct view *v) {
    for (i64 i = 0; i < view_count(v); i++) ((i32 *)data)[i] = (i32)shuffled(i, view_count(v));
}
static void fill_place(void *data, const struct view *v) {
    for (i64 i = 0; i < view_count(v); i++) ((i32 *)data)[shuffled(i, view_count(v))] = (i32)i;
}
/* order, place and weights from argument `at` on: -1: absent. N, k, D, weights. */
static const i64 trips[][4] = {{1, 1, 1, 1},       {3, 2, 5, 0},       {5, 4, 33, 1},
                               {9, 3, 16, 1},      {11, 8, 72, 0},     {2048, 8, 2048, 0},
                               {2048, 8, 2048, 1}, {16384, 8, 4096, 1}};
static const i64 *trip_at(int index, struct sample *s, int order, int place, int weight) {
    if (index >= COUNT(trips)) return NULL;
    const i64 *d = trips[index];
    if (order >= 0) {
        sample_int(&s->in[order], 0, 1, DIMS(d[0] * d[1]));
        s->in[order].fill = FILL_CUSTOM, s->in[order].custom = fill_order;
    }
    sample_int(&s->in[place], 0, 1, DIMS(d[0], d[1]));
    s->in[place].fill = FILL_CUSTOM, s->in[place].custom = fill_place;
    if (weight >= 0 && d[3]) sample_f32(&s->in[weight], -1, 1, DIMS(d[0], d[1]));
    s->bench = bench_of(d[0]);
    return d;
}
static bool expert_gather_sample(int index, struct sample *s) {
    const i64 *d = trip_at(index, s, 1, 2, 3);
    if (d) sample_float(&s->in[0], -1, 1, DIMS(d[0], d[2]));
    s->no_gradient_check = d && d[3]; /* with weights it is itself a gradient */
    return d != NULL;
}
const struct op op_expert_gather = {
    .name = "expert_gather",
    .in = "x order place weight?",
    .out = "rows",
    .shape = expert_gather_shape,
    .grad = {{"expert_combine", "drows order place", "dx"}},
    .ref = expert_gather_ref,
    .cpu = CPU(expert_gather),
    .cuda = CUDA(expert_gather),
    .sample = expert_gather_sample,
    .bound = {1, 1},
};

static int expert_combine_shape(struct op_call *c, struct err *e) {
    const struct view *rows = &c->in[0];
    if (need_rank(c, 0, 2, e) || need_float(c, 0, e) || need_plan(c, 1, -1, rows->dim[0], e) ||
        need_weight(c, 3, e))
        return -1;
    set_out(c, 0, rows->dtype, 2, (i64[]){c->in[2].dim[0], rows->dim[1]});
    return 0;
}
static void expert_combine_ref(const struct op_call *c) {
    const double *rows = c->in[0].data, *w = c->in[3].data;
    const i32 *place = c->in[2].data;
    const i64 width = c->in[0].dim[1], k = c->in[2].dim[1];
    zero(&c->out[0]);
    for (i64 t = 0; t < view_count(&c->in[2]); t++)
        for (i64 d = 0; d < width; d++)
            ((double *)c->out[0].data)[t / k * width + d] +=
                rows[place[t] * width + d] * (w ? w[t] : 1);
}
static bool expert_combine_sample(int index, struct sample *s) {
    const i64 *d = trip_at(index, s, 1, 2, 3);
    if (d) sample_float(&s->in[0], -1, 1, DIMS(d[0] * d[1], d[2]));
    return d != NULL;
}
const struct op op_expert_combine = {
    .name = "expert_combine",
    .in = "rows order place weight?",
    .out = "y",
    .shape = expert_combine_shape,
    .grad = {{"expert_gather", "dy order place weight", "drows"},
             {"expert_weight_back", "dy rows place", "dweight"}},
    .ref = expert_combine_ref,
    .cpu = CPU(expert_combine),
    .cuda = CUDA(expert_combine),
    .sample = expert_combine_sample,
    .bound = {8, 1},
};

static int expert_weight_back_shape(struct op_call *c, struct err *e) {
    const struct view *dy = &c->in[0], *place = &c->in[2];
    if (need_rank(c, 0, 2, e) || need_float(c, 0, e) || need_rank(c, 1, 2, e) ||
        need_dtype(c, 1, dy->dtype, e) || need_dim(c, 1, 1, dy->dim[1], e) ||
        need_rank(c, 2, 2, e) || need_dtype(c, 2, I32, e) || need_dim(c, 2, 0, dy->dim[0], e) ||
        need_dim(c, 1, 0, view_count(place), e))
        return -1;
    set_out(c, 0, wide_of(dy), 2, place->dim);
    return 0;
}
static void expert_weight_back_ref(const struct op_call *c) {
    const double *dy = c->in[0].data, *rows = c->in[1].data;
    const i32 *place = c->in[2].data;
    const i64 width = c->in[0].dim[1], k = c->in[2].dim[1];
    for (i64 t = 0; t < view_count(&c->in[2]); t++) {
        double sum = 0;
        for (i64 d = 0; d < width; d++) sum += dy[t / k * width + d] * rows[place[t] * width + d];
        ((double *)c->out[0].data)[t] = sum;
    }
}
static bool expert_weight_back_sample(int index, struct sample *s) {
    const i64 *d = trip_at(index, s, -1, 2, -1);
    if (!d) return false;
    sample_float(&s->in[0], -1, 1, DIMS(d[0], d[2]));
    sample_float(&s->in[1], -1, 1, DIMS(d[0] * d[1], d[2]));
    return true;
}
const struct op op_expert_weight_back = {
    .name = "expert_weight_back",
    .in = "dy rows place",
    .out = "dweight",
    .shape = expert_weight_back_shape,
    .ref = expert_weight_back_ref,
    .cpu = CPU(expert_weight_back),
    .cuda = CUDA(expert_weight_back),
    .sample = expert_weight_back_sample,
    .bound = {8, 1},
};
