/* rope.c: rotary position embedding (Su et al., 2021), y = R(position) x per head, and its gradient
 * R(-position) dy.
 *
 * x [N, heads * head_dim]; position [N] i32; table [P, rotary_dim] f32 holds, per position,
 * rotary_dim/2 cosines and then as many sines (built in f64 by recipes/models, any attention factor
 * included). Half-split pairs are (i, i + rotary_dim/2), interleaved ones (2i, 2i+1); what lies
 * past rotary_dim passes unchanged. With t = b * sin: a' = fma(a, cos, -t); with t = a * sin: b' =
 * fma(b, cos, t); one rounding each. */
#include "ops/ops_int.h"

static int rope_shape(struct op_call *c, struct err *e) {
    const struct rope_attr *a = c->attr;
    if (need_rank(c, 0, 2, e) || need_float(c, 0, e) || need_dtype(c, 1, I32, e) ||
        need_dim(c, 1, 0, c->in[0].dim[0], e) || need_rank(c, 2, 2, e) ||
        need_dim(c, 2, 1, a->rotary_dim, e))
        return -1;
    if (a->head_dim < 1 || c->in[0].dim[1] % a->head_dim || a->rotary_dim > a->head_dim ||
        a->rotary_dim % 2)
        return err_failed(
            e, "operation rope: head size %lld and rotary size %lld do not fit %lld columns",
            (long long)a->head_dim, (long long)a->rotary_dim, (long long)c->in[0].dim[1]);
    set_out_like(c, 0, &c->in[0]);
    return 0;
}

static void rope_turn(const struct op_call *c, double sign) {
    const struct rope_attr *a = c->attr;
    const double *x = c->in[0].data, *table = c->in[2].data;
    double *y = c->out[0].data;
    const i64 width = c->in[0].dim[1], half = a->rotary_dim / 2;
    for (i64 i = 0; i < view_count(&c->in[0]); i++) y[i] = x[i];
    for (i64 n = 0; n < c->in[0].dim[0]; n++)
        for (i64 h = 0; h < width; h += a->head_dim)
            for (i64 i = 0; i < half; i++) {
                const double *row = table + ((i32 *)c->in[1].data)[n] * a->rotary_dim;
                const i64 p = n * width + h + (a->interleaved ? 2 * i : i),
                          q = a->interleaved ? p + 1 : p + half;
                y[p] = x[p] * row[i] - sign * x[q] * row[half + i];
                y[q] = x[q] * row[i] + sign * x[p] * row[half + i];
            }
}
static void rope_ref(const struct op_call *c) { rope_turn(c, 1); }
static void rope_back_ref(const struct op_call *c) { rope_turn(c, -1); }

static bool rope_sample(int index, struct sample *s) {
    static const struct {
        i64 n, heads, head_dim, rotary, interleaved;
    } shape[] = {{3, 2, 8, 8, 0},   {5, 1, 20, 10, 0},     {4, 3, 64, 64, 0},       {3, 2, 8, 4, 1},
                 {6, 2, 64, 64, 1}, {2048, 12, 64, 64, 0}, {32768, 32, 128, 128, 0}};
    if (index >= COUNT(shape)) return false;
    *(struct rope_attr *)s->attr =
        (struct rope_attr){shape[index].head_dim, shape[index].rotary, shape[index].interleaved};
    sample_float(&s->in[0], -1, 1,
                 DIMS(shape[index].n, shape[index].heads * shape[index].head_dim));
    sample_int(&s->in[1], 0, 9, DIMS(shape[index].n));
    sample_f32(&s->in[2], -1, 1, DIMS(9, shape[index].rotary));
    s->bench = bench_of(shape[index].n);
    return true;
}

const struct op op_rope = {
    .name = "rope",
    .in = "x position table",
    .out = "y",
    .attr_size = sizeof(struct rope_attr),
    .shape = rope_shape,
    .grad = {{"rope_back", "dy position table", "dx"}},
    .ref = rope_ref,
    .cpu = CPU(rope),
    .cuda = CUDA(rope),
    .sample = rope_sample,
    .bound = {4, 2},
};
const struct op op_rope_back = {
    .name = "rope_back",
    .in = "dy position table",
    .out = "dx",
    .attr_size = sizeof(struct rope_attr),
    .shape = rope_shape,
    .ref = rope_back_ref,
    .cpu = CPU(rope_back),
    .cuda = CUDA(rope_back),
    .sample = rope_sample,
    .bound = {4, 2},
};
