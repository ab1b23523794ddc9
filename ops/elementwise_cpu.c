/* elementwise_cpu.c: one pass over memory; formulas in elementwise_int.h. Work is cut in blocks of
 * 1,024 elements of a row, where an input has one element for each row, or of the whole. */
#include "base/v16.h"
#include "ops/elementwise_int.h"

enum { BLOCK = 1024, INS = 3, OUTS = 2 };

struct task {
    const struct op_call *c;
    struct formula m;
};
typedef void map_fn(const struct formula *m, const v16 *x, v16 *y);

V16_FN void span_run(const struct task *t, map_fn *one, int ins, int outs, i64 begin, i64 end,
                     bool is_bf16) {
    const struct op_call *c = t->c;
    const struct formula *m = &t->m;
    v16 x[INS], y[OUTS], row = v16_set(1);
    if (m->row >= 0) {
        const void *p = c->in[m->row].data;
        const i64 n = begin / m->cols;
        row = v16_set(is_bf16 && !m->row_f32 ? bf16_to_f32(((const u16 *)p)[n])
                                             : ((const float *)p)[n]);
    }
    for (i64 i = begin; i < end; i += 16) {
        for (int k = 0; k < ins; k++)
            x[k] =
                k == m->row || !c->in[k].data ? row : v16_get_n(c->in[k].data, i, end - i, is_bf16);
        one(m, x, y);
        for (int k = 0; k < outs; k++)
            if (c->out[k].data) v16_put_n(c->out[k].data, i, y[k], end - i, is_bf16);
    }
}
static i64 blocks_of(const struct formula *m) { return (m->cols + BLOCK - 1) / BLOCK; }

#define MAP(name, ins, outs)                                                                       \
    static void name##_task(void *arg, i64 begin, i64 end, int worker) {                           \
        (void)worker;                                                                              \
        const struct task *t = arg;                                                                \
        for (i64 b = begin, blocks = blocks_of(&t->m); b < end; b++) {                             \
            const i64 row = b / blocks * t->m.cols, first = b % blocks * BLOCK;                    \
            const i64 last = row + i64_min(first + BLOCK, t->m.cols);                              \
            span_run(t, name##_one, ins, outs, row + first, last, t->m.is_bf16);                   \
        }                                                                                          \
    }                                                                                              \
    static int name##_map(const struct op_call *c) {                                               \
        struct task t = {c, map_of(c)};                                                            \
        map_begin(&t.m);                                                                           \
        const i64 rows = t.m.cols ? t.m.count / t.m.cols : 0;                                      \
        return pool_run(rows * blocks_of(&t.m), name##_task, &t), 0;                               \
    }
MAP_OPS(MAP)
MAP_PARTS(MAP)
#define KERNEL(name, ins, outs)                                                                    \
    CPU_KERNEL(name) { return (void)e, name##_map(c); }
MAP_OPS(KERNEL)

/* ---- what is also summed over rows ---- */
struct sums {
    const struct op_call *c;
    struct formula m;
    i64 cols;
    float sigma[2], *part; /* xielu: derivatives of the slopes; sums of rows, [2][rows] */
};

/* dx = dy * sigmoid(g), dg = sum(dy * x) * sigmoid'(g) of row n. */
V16_FN void gate_row(const struct sums *s, i64 n, bool is_bf16) {
    const struct op_call *c = s->c;
    const i64 cols = s->cols;
    const v16 g = v16_set(is_bf16 ? bf16_to_f32(((const u16 *)c->in[2].data)[n])
                                  : ((const float *)c->in[2].data)[n]);
    const v16 open = v16_sigmoid(g);
    v16 sum = v16_set(0);
    for (i64 i = 0; i < cols; i += 16) {
        const v16 dy = v16_get_n(c->in[0].data, n * cols + i, cols - i, is_bf16);
        sum = v16_fma(dy, v16_get_n(c->in[1].data, n * cols + i, cols - i, is_bf16), sum);
        if (c->out[0].data)
            v16_put_n(c->out[0].data, n * cols + i, v16_mul(dy, open), cols - i, is_bf16);
    }
    if (c->out[1].data)
        v16_put_n(c->out[1].data, n, v16_mul(v16_set(v16_sum(sum)), gate_slope(g)), 1, is_bf16);
}
static void gate_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct sums *s = arg;
    for (i64 n = begin; n < end; n++) gate_row(s, n, s->m.is_bf16);
}
CPU_KERNEL(gate_mul_back) {
    struct sums s = {.c = c, .m = map_of(c), .cols = c->in[0].dim[c->in[0].rank - 1]};
    (void)e;
    if (s.m.row < 0) return gate_back_map(c);
    return pool_run(view_rows(&c->in[0]), gate_rows, &s), 0;
}

V16_FN void xielu_row(const struct sums *s, i64 n, bool is_bf16) {
    const i64 cols = s->cols, rows = view_rows(&s->c->in[0]);
    const v16 zero = v16_set(0);
    v16 sum[2] = {zero, zero};
    for (i64 i = 0; i < cols; i += 16) {
        const v16 dy = v16_get_n(s->c->in[0].data, n * cols + i, cols - i, is_bf16);
        const v16 x = v16_get_n(s->c->in[1].data, n * cols + i, cols - i, is_bf16);
        const v16 term = v16_mul(dy, xielu_term(&s->m, x));
        const m16 right = v16_lt(zero, x);
        sum[0] = v16_add(sum[0], v16_select(right, term, zero));
        sum[1] = v16_add(sum[1], v16_select(right, zero, term));
    }
    for (int k = 0; k < 2; k++) s->part[k * rows + n] = v16_sum(sum[k]) * s->sigma[k];
}
static void xielu_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct sums *s = arg;
    for (i64 n = begin; n < end; n++) xielu_row(s, n, s->m.is_bf16);
}
CPU_KERNEL(xielu_back) {
    struct sums s = {
        .c = c, .m = map_of(c), .cols = c->in[0].dim[c->in[0].rank - 1], .part = c->scratch};
    const i64 rows = view_rows(&c->in[0]);
    (void)e;
    if (c->out[0].data) xielu_dx_map(c);
    if (!c->out[1].data && !c->out[2].data) return 0;
    for (int k = 0; k < 2; k++)
        s.sigma[k] = (float)logistic((double)alpha_at(&s.m, k, s.m.is_bf16));
    pool_run(rows, xielu_rows, &s);
    for (int k = 0; k < 2; k++) {
        float *sum = c->out[1 + k].data;
        for (i64 n = 0; sum && n < rows; n++) *sum += s.part[k * rows + n];
    }
    return 0;
}
