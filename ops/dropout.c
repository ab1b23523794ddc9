/* dropout.c: y = x * (1 / (1 - p)) with probability 1 - p, else 0 (Srivastava et al., 2014).
 *
 * x [rows, cols] in f32 or bf16. place [2] i32: the number of optimizer steps before this one, mod
 * 2^26, and how many rows of the step came before the first of x: so that a row meets the same
 * numbers however a step is cut into micro-batches. Element (row, col) takes word col % 4 of block
 * (place[1] + row) * ceil(cols / 4) + col / 4 of Philox of {seed, RNG_DROPOUT, place[0], stream}
 * (NUMERICS.md 11), and stays if the word is at least p * 2^32. 1 / (1 - p) is rounded to f32, the
 * product to the dtype. The gradient is the same call of dy: nothing is stored. */
#include "ops/ops_int.h"

static int dropout_shape(struct op_call *c, struct err *e) {
    const double p = ((const struct dropout_attr *)c->attr)->p;
    if (need_float(c, 0, e) || need_rank(c, 0, 2, e) || need_dtype(c, 1, I32, e) ||
        need_rank(c, 1, 1, e) || need_dim(c, 1, 0, 2, e))
        return -1;
    if (!(p >= 0 && p < 1))
        return err_failed(e, "operation dropout: p is %g; expected 0 <= p < 1", p);
    set_out_like(c, 0, &c->in[0]);
    return 0;
}
static void dropout_ref(const struct op_call *c) {
    const struct dropout_attr *a = c->attr;
    const i32 *place = c->in[1].data;
    const i64 cols = c->in[0].dim[1], blocks = (cols + 3) / 4;
    const struct rng r = {a->seed, RNG_DROPOUT, (u32)place[0], a->stream};
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        u32 word[4];
        rng_block(&r, (u64)((place[1] + i / cols) * blocks + i % cols / 4), word);
        const bool stays = (double)word[i % cols % 4] >= a->p * 0x1p32;
        ((double *)c->out[0].data)[i] = stays ? ((double *)c->in[0].data)[i] / (1 - a->p) : 0;
    }
}
static bool dropout_sample(int index, struct sample *s) {
    static const i64 shape[][2] = {{1, 1}, {3, 5}, {7, 33}, {67, 104}, {2048, 768}, {16384, 4096}};
    if (index >= COUNT(shape)) return false;
    const i64 *d = shape[index];
    *(struct dropout_attr *)s->attr = (struct dropout_attr){index == 1 ? 0 : 0.3, 42, 9};
    sample_float(&s->in[0], -3, 3, DIMS(d[0], d[1]));
    sample_int(&s->in[1], 0, 1000, DIMS(2));
    s->bench = bench_of(d[0]);
    return true;
}
const struct op op_dropout = {
    .name = "dropout",
    .in = "x place",
    .out = "y",
    .attr_size = sizeof(struct dropout_attr),
    .shape = dropout_shape,
    .grad = {{"dropout", "dy place", "dx"}},
    .ref = dropout_ref,
    .cpu = CPU(dropout),
    .cuda = CUDA(dropout),
    .sample = dropout_sample,
    .bound = {2, 1},
};
