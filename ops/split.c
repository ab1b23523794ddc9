/* split.c: the parts of rows: fused projections (QKV, gate and up) taken apart, and put together.
 *
 *   split  x [..., cols] -> a, b, c: columns [0, w0), [w0, w0 + w1), ...; c only where w2 > 0
 *   join   a, b, c -> y, the reverse, and split's gradient; a part that is absent is zeros
 *
 * Numbers are copied. Parts that lie otherwise in a file (heads of q, k, v in turn) are put in
 * order when it is loaded. */
#include "ops/ops_int.h"

#include <string.h>

static int widths_check(const struct op_call *c, i64 *cols, struct err *e) {
    const i64 *w = ((const struct split_attr *)c->attr)->width;
    *cols = w[0] + w[1] + w[2];
    if (w[0] > 0 && w[1] > 0 && w[2] >= 0) return 0;
    return err_failed(e, "operation %s: parts of %lld, %lld and %lld columns", c->op->name,
                      (long long)w[0], (long long)w[1], (long long)w[2]);
}
/* v with `cols` columns. */
static struct view with_cols(struct view v, i64 cols) { return v.dim[v.rank - 1] = cols, v; }

static int split_shape(struct op_call *c, struct err *e) {
    const struct view *x = &c->in[0];
    const i64 *w = ((const struct split_attr *)c->attr)->width;
    i64 cols;
    if (need_float(c, 0, e) || widths_check(c, &cols, e) || need_dim(c, 0, x->rank - 1, cols, e))
        return -1;
    for (int k = 0; k < 3 && w[k]; k++) {
        const struct view part = with_cols(*x, w[k]);
        set_out_like(c, k, &part);
    }
    return 0;
}
static int join_shape(struct op_call *c, struct err *e) {
    const i64 *w = ((const struct split_attr *)c->attr)->width;
    i64 cols;
    int first = 0;
    while (first < 2 && !is_present(&c->in[first])) first++;
    if (need_float(c, first, e) || widths_check(c, &cols, e)) return -1;
    const struct view like = c->in[first], whole = with_cols(like, cols);
    for (int k = first; k < 3; k++) {
        const struct view *v = &c->in[k];
        if (!is_present(v)) continue;
        if (need_rank(c, k, like.rank, e) || need_dtype(c, k, like.dtype, e)) return -1;
        for (int d = 0; d < v->rank; d++)
            if (need_dim(c, k, d, d == v->rank - 1 ? w[k] : like.dim[d], e)) return -1;
    }
    set_out_like(c, 0, &whole);
    return 0;
}

/* `whole` to or from its parts. */
static void parts_ref(const struct op_call *c, struct view *part, struct view *whole, bool apart) {
    const i64 *w = ((const struct split_attr *)c->attr)->width, cols = w[0] + w[1] + w[2];
    double *row = whole->data;
    for (i64 n = 0; n < view_count(whole) / cols; n++)
        for (int k = 0; k < 3; row += w[k], k++) {
            double *p = part[k].data ? (double *)part[k].data + n * w[k] : NULL;
            if (apart && p) memcpy(p, row, sizeof *p * (size_t)w[k]);
            if (!apart && p) memcpy(row, p, sizeof *p * (size_t)w[k]);
            if (!apart && !p) memset(row, 0, sizeof *row * (size_t)w[k]);
        }
}
static void split_ref(const struct op_call *c) {
    struct op_call k = *c;
    parts_ref(c, k.out, k.in, true);
}
static void join_ref(const struct op_call *c) {
    struct op_call k = *c;
    parts_ref(c, k.in, k.out, false);
}

static const i64 shapes[][4] = {
    {1, 1, 1, 0},  {3, 5, 2, 4},           {7, 24, 8, 8},           {67, 128, 136, 0},
    {5, 7, 16, 3}, {2048, 2048, 512, 512}, {16384, 14336, 14336, 0}};
static const i64 *shape_at(int index, struct sample *s) {
    if (index >= COUNT(shapes)) return NULL;
    memcpy(s->attr, shapes[index] + 1, sizeof(struct split_attr));
    s->bench = bench_of(shapes[index][0]);
    return shapes[index];
}
static bool split_sample(int index, struct sample *s) {
    const i64 *d = shape_at(index, s);
    if (d) sample_float(&s->in[0], -1, 1, DIMS(d[0], d[1] + d[2] + d[3]));
    return d;
}
static bool join_sample(int index, struct sample *s) {
    const i64 *d = shape_at(index, s);
    for (int k = 0; d && k < 3; k++)
        if (d[1 + k] && !(index == 4 && k == 0))
            sample_float(&s->in[k], -1, 1, DIMS(d[0], d[1 + k]));
    return d;
}

const struct op op_split = {
    .name = "split",
    .in = "x",
    .out = "a b c?",
    .attr_size = sizeof(struct split_attr),
    .shape = split_shape,
    .grad = {{"join", "da db dc", "dx"}},
    .ref = split_ref,
    .cpu = CPU(split),
    .cuda = CUDA(split),
    .sample = split_sample,
};
const struct op op_join = {
    .name = "join",
    .in = "a? b? c?",
    .out = "y",
    .attr_size = sizeof(struct split_attr),
    .shape = join_shape,
    .grad = {{"split", "dy", "da db dc"}},
    .ref = join_ref,
    .cpu = CPU(join),
    .cuda = CUDA(join),
    .sample = join_sample,
};
