/* embedding.c: y[n] = w[ids[n]], and its gradient. It also picks rows, e.g. the last positions
 * before the LM head. Of a packed w, which is frozen, the rows are decoded to its dtype.
 *
 * embedding_back: dw[ids[n]] += dy[n] for n ascending, in f32: one thread owns a range of columns
 * and walks all tokens, so the order is the tokens' order whatever the number of threads, and no
 * atomics are needed (NUMERICS.md 9). */
#include "ops/ops_int.h"

#include <string.h>

/* ids [N] i32, w [V, D] -> y [N, D] */
static int embedding_shape(struct op_call *c, struct err *e) {
    if (need_rank(c, 0, 1, e) || need_dtype(c, 0, I32, e) || need_rank(c, 1, 2, e) ||
        need_float(c, 1, e))
        return -1;
    set_out(c, 0, c->in[1].dtype, 2, (i64[]){c->in[0].dim[0], c->in[1].dim[1]});
    return 0;
}

static void embedding_ref(const struct op_call *c) {
    const i32 *ids = c->in[0].data;
    double *own;
    const double *w = weight_ref(&c->in[1], &own);
    const i64 width = c->in[1].dim[1];
    for (i64 n = 0; n < c->in[0].dim[0]; n++)
        for (i64 d = 0; d < width; d++)
            ((double *)c->out[0].data)[n * width + d] = w[ids[n] * width + d];
    mem_free(own);
}

static bool embedding_sample(int index, struct sample *s) { /* the last: for each packing */
    static const i64 shape[][3] = {{5, 7, 3},          {1, 1, 16},           {40, 11, 33},
                                   {2048, 50304, 768}, {32768, 50304, 4096}, {23, 11, 97}};
    enum { PLAIN = COUNT(shape) - 1 };
    const int packed = index - PLAIN;
    if (packed >= packing_count) return false;
    const i64 *d = shape[packed < 0 ? index : PLAIN];
    sample_int(&s->in[0], 0, d[1], DIMS(d[0]));
    sample_float(&s->in[1], -1, 1, DIMS(d[1], d[2]));
    if (packed >= 0) s->in[1].packing = packing_table[packed];
    s->bench = bench_of(d[0]);
    return true;
}

/* Rows read and rows written, not the table. */
static double embedding_bytes(const struct op_call *c) {
    return 2 * (double)view_bytes(&c->out[0]);
}

const struct op op_embedding = {
    .name = "embedding",
    .in = "ids #w",
    .out = "y",
    .shape = embedding_shape,
    .grad = {{"embedding_back", "dy ids", "+dw"}},
    .ref = embedding_ref,
    .cpu = CPU(embedding),
    .cuda = CUDA(embedding),
    .sample = embedding_sample,
    .bound = {1, 1}, /* packed: of decoding */
    .bytes = embedding_bytes,
};

/* dy [N, D], ids [N] -> dw [V, D] f32, added to */
static int embedding_back_shape(struct op_call *c, struct err *e) {
    if (need_rank(c, 0, 2, e) || need_float(c, 0, e) || need_dtype(c, 1, I32, e)) return -1;
    return need_dim(c, 1, 0, c->in[0].dim[0], e) ||
                   need_out(c, 0, c->in[0].dtype == F64 ? F64 : F32, 2,
                            (i64[]){c->out[0].dim[0], c->in[0].dim[1]}, e)
               ? -1
               : 0;
}

static void embedding_back_ref(const struct op_call *c) {
    const double *dy = c->in[0].data;
    const i32 *ids = c->in[1].data;
    const i64 width = c->in[0].dim[1];
    for (i64 n = 0; n < c->in[0].dim[0]; n++)
        for (i64 d = 0; d < width; d++)
            ((double *)c->out[0].data)[ids[n] * width + d] += dy[n * width + d];
}

static bool embedding_back_sample(int index, struct sample *s) {
    static const i64 shape[][3] = {
        {5, 7, 3}, {40, 11, 33}, {1100, 3, 8}, {2048, 50304, 768}, {32768, 50304, 4096}};
    if (index >= COUNT(shape)) return false;
    const i64 *d = shape[index];
    sample_float(&s->in[0], -1, 1, DIMS(d[0], d[2]));
    sample_int(&s->in[1], 0, d[1], DIMS(d[0]));
    sample_out(&s->out[0], DIMS(d[1], d[2]));
    s->bench = bench_of(d[0]);
    return true;
}

static double embedding_back_bytes(const struct op_call *c) { /* rows of dw: read and written */
    return (double)view_bytes(&c->in[0]) + 8 * (double)view_count(&c->in[0]);
}

const struct op op_embedding_back = {
    .name = "embedding_back",
    .in = "dy ids",
    .out = "+dw",
    .shape = embedding_back_shape,
    .ref = embedding_back_ref,
    .cpu = CPU(embedding_back),
    .cuda = CUDA(embedding_back),
    .sample = embedding_back_sample,
    .bound = {8, 4}, /* a chain of as many terms as a token is met */
    .bytes = embedding_back_bytes,
};
