/* mla.c: keys and values of multi-head latent attention (DeepSeek-AI, 2024), from what their
 * up-projection gives for each head and the one rotated part that all heads share.
 *
 * mla_keys: kv [N, H * (P + V)] (of each head its part without position, then its value), turned
 * [N, R] -> k [N, H * (R + P)], of each head [turned | kv's P], v [N, H * V]. Numbers are copied.
 * The rotated part comes first, so that queries, whose rows are put in the same order when a file
 * is loaded, are turned by `rope` as those of other families are. mla_keys_back: dk, dv -> dkv,
 * copied; dturned = sum over heads, ascending, from 0, in f32, rounded once. */
#include "ops/ops_int.h"

static const struct mla_attr *attr_of(const struct op_call *c) { return c->attr; }

static int need_width(const struct op_call *c, int at, i64 rows, i64 cols, struct err *e) {
    return need_rank(c, at, 2, e) || need_float(c, at, e) || need_dtype(c, at, c->in[0].dtype, e) ||
                   (rows >= 0 && need_dim(c, at, 0, rows, e)) || need_dim(c, at, 1, cols, e)
               ? -1
               : 0;
}
static int mla_keys_shape(struct op_call *c, struct err *e) {
    const struct mla_attr *a = attr_of(c);
    const i64 rows = c->in[0].dim[0];
    if (need_width(c, 0, -1, a->heads * (a->plain + a->value), e) ||
        need_width(c, 1, rows, a->rope_dim, e))
        return -1;
    set_out(c, 0, c->in[0].dtype, 2, (i64[]){rows, a->heads * (a->rope_dim + a->plain)});
    set_out(c, 1, c->in[0].dtype, 2, (i64[]){rows, a->heads * a->value});
    return 0;
}
/* Where element d of head h lies in a row of kv; d < P: of the key, else of the value. */
static i64 kv_at(const struct mla_attr *a, i64 h, i64 d) { return h * (a->plain + a->value) + d; }
static void mla_keys_ref(const struct op_call *c) {
    const struct mla_attr *a = attr_of(c);
    const i64 kv = a->heads * (a->plain + a->value), key = a->rope_dim + a->plain;
    for (i64 n = 0; n < c->in[0].dim[0]; n++)
        for (i64 h = 0; h < a->heads; h++) {
            const double *from = (double *)c->in[0].data + n * kv,
                         *turned = (double *)c->in[1].data + n * a->rope_dim;
            double *k = (double *)c->out[0].data + (n * a->heads + h) * key,
                   *v = (double *)c->out[1].data + (n * a->heads + h) * a->value;
            for (i64 d = 0; d < key; d++)
                k[d] = d < a->rope_dim ? turned[d] : from[kv_at(a, h, d - a->rope_dim)];
            for (i64 d = 0; d < a->value; d++) v[d] = from[kv_at(a, h, a->plain + d)];
        }
}

/* N, H, turned, plain, value */
static const i64 sizes[][5] = {{1, 1, 2, 1, 1},          {5, 4, 8, 6, 7},
                               {3, 2, 16, 32, 16},       {7, 3, 64, 8, 24},
                               {4096, 16, 64, 128, 128}, {16384, 128, 64, 128, 128}};
static const i64 *sizes_at(int index, struct sample *s) {
    if (index >= COUNT(sizes)) return NULL;
    const i64 *d = sizes[index];
    *(struct mla_attr *)s->attr = (struct mla_attr){d[1], d[2], d[3], d[4]};
    s->bench = bench_of(d[0]);
    return d;
}
static bool mla_keys_sample(int index, struct sample *s) {
    const i64 *d = sizes_at(index, s);
    if (!d) return false;
    sample_float(&s->in[0], -1, 1, DIMS(d[0], d[1] * (d[3] + d[4])));
    sample_float(&s->in[1], -1, 1, DIMS(d[0], d[2]));
    return true;
}
const struct op op_mla_keys = {
    .name = "mla_keys",
    .in = "kv turned",
    .out = "k v",
    .attr_size = sizeof(struct mla_attr),
    .shape = mla_keys_shape,
    .grad = {{"mla_keys_back", "dk dv", "dkv dturned"}},
    .ref = mla_keys_ref,
    .cpu = CPU(mla_keys),
    .cuda = CUDA(mla_keys),
    .sample = mla_keys_sample,
    .bound = {0, 0},
};

static int mla_keys_back_shape(struct op_call *c, struct err *e) {
    const struct mla_attr *a = attr_of(c);
    const i64 rows = c->in[0].dim[0];
    if (need_width(c, 0, -1, a->heads * (a->rope_dim + a->plain), e) ||
        need_width(c, 1, rows, a->heads * a->value, e))
        return -1;
    set_out(c, 0, c->in[0].dtype, 2, (i64[]){rows, a->heads * (a->plain + a->value)});
    set_out(c, 1, c->in[0].dtype, 2, (i64[]){rows, a->rope_dim});
    return 0;
}
static void mla_keys_back_ref(const struct op_call *c) {
    const struct mla_attr *a = attr_of(c);
    const i64 kv = a->heads * (a->plain + a->value), key = a->rope_dim + a->plain;
    for (i64 n = 0; n < c->in[0].dim[0]; n++) {
        double *to = (double *)c->out[0].data + n * kv,
               *turned = (double *)c->out[1].data + n * a->rope_dim;
        for (i64 d = 0; d < a->rope_dim; d++) turned[d] = 0;
        for (i64 h = 0; h < a->heads; h++) {
            const double *k = (double *)c->in[0].data + (n * a->heads + h) * key,
                         *v = (double *)c->in[1].data + (n * a->heads + h) * a->value;
            for (i64 d = 0; d < a->rope_dim; d++) turned[d] += k[d];
            for (i64 d = 0; d < a->plain; d++) to[kv_at(a, h, d)] = k[a->rope_dim + d];
            for (i64 d = 0; d < a->value; d++) to[kv_at(a, h, a->plain + d)] = v[d];
        }
    }
}
static bool mla_keys_back_sample(int index, struct sample *s) {
    const i64 *d = sizes_at(index, s);
    if (!d) return false;
    sample_float(&s->in[0], -1, 1, DIMS(d[0], d[1] * (d[2] + d[3])));
    sample_float(&s->in[1], -1, 1, DIMS(d[0], d[1] * d[4]));
    return true;
}
const struct op op_mla_keys_back = {
    .name = "mla_keys_back",
    .in = "dk dv",
    .out = "dkv dturned",
    .attr_size = sizeof(struct mla_attr),
    .shape = mla_keys_back_shape,
    .ref = mla_keys_back_ref,
    .cpu = CPU(mla_keys_back),
    .cuda = CUDA(mla_keys_back),
    .sample = mla_keys_back_sample,
    .bound = {8, 1},
};
