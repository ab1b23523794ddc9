/* kv_store.c: rows into a key or value cache, in place: cache[at[i]] = x[i], bytes unchanged; with
 * at[i] = -1 row i goes nowhere (rows that only fill up a planned pass).
 *
 * x [N, C], at [N] i32, cache [M, C] of the same dtype. Rows of `at` must differ, but for -1: the
 * result would depend on the order otherwise. Decoding only, so there is no gradient. */
#include "ops/ops_int.h"

#include <string.h>

static int kv_store_shape(struct op_call *c, struct err *e) {
    if (need_rank(c, 0, 2, e) || need_float(c, 0, e) || need_rank(c, 1, 1, e) ||
        need_dtype(c, 1, I32, e) || need_dim(c, 1, 0, c->in[0].dim[0], e))
        return -1;
    return need_out(c, 0, c->in[0].dtype, 2, (i64[]){c->out[0].dim[0], c->in[0].dim[1]}, e);
}

static void kv_store_ref(const struct op_call *c) {
    const i64 width = c->in[0].dim[1];
    const i32 *at = c->in[1].data;
    for (i64 i = 0; i < c->in[0].dim[0]; i++)
        if (at[i] >= 0)
            memcpy((double *)c->out[0].data + at[i] * width,
                   (const double *)c->in[0].data + i * width, (size_t)width * sizeof(double));
}

static void scattered(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = (i32)(i * 7 % 12) - 1;
}

static bool kv_store_sample(int index, struct sample *s) {
    static const i64 size[][2] = {{1, 1}, {3, 5}, {12, 48}, {0, 4}};
    if (index >= COUNT(size)) return false;
    sample_float(&s->in[0], -1, 1, DIMS(size[index][0], size[index][1]));
    sample_int(&s->in[1], 0, 1, DIMS(size[index][0]));
    s->in[1].fill = FILL_CUSTOM, s->in[1].custom = scattered;
    sample_float(&s->out[0], -1, 1, DIMS(11, size[index][1]));
    return true;
}

const struct op op_kv_store = {
    .name = "kv_store",
    .in = "x at",
    .out = "=cache",
    .shape = kv_store_shape,
    .ref = kv_store_ref,
    .cpu = CPU(kv_store),
    .cuda = CUDA(kv_store),
    .sample = kv_store_sample,
    .bound = {0, 0},
};
