/* adafactor.c: what Adafactor (Shazeer and Stern, 2018) makes of a gradient: it is divided by the
 * root of a mean of its squares of which only row and column sums are kept. `update` (rule SGD)
 * then takes it to the weights, at a rate that needs the root mean square of both.
 *
 *   hyper [7], grad [.., R, C], row [.., R], col [.., C], all f32; or grad, v [n]
 *   hyper { gradient scale, the most of an element, beta2, 1 - beta2, epsilon of squares, least
 *           mean of the rows, largest factor }
 *
 *   g = max(-hyper[1], min(hyper[1], grad * hyper[0]))
 *   row = fma(beta2, row, (1-beta2) * (sum of g * g over its columns / C + hyper[4]))
 *   col = the same over rows, / R
 *   a = 1 / sqrt(row / max(mean of row, hyper[5]));  b = 1 / sqrt(col)
 *   grad = g * min(a * b, hyper[6])
 * or
 *   v = fma(beta2, v, (1-beta2) * fma(g, g, hyper[4]));  grad = g * min(1 / sqrt(v), hyper[6])
 *
 * Sums over columns, and of row for its mean, by NUMERICS.md 7 with s = fma(g, g, s) and s + row;
 * over rows a chain of fma(g, g, s) from 0 for each ADAFACTOR_ROWS rows, those added in order.
 * transformers' Adafactor has an epsilon of squares and no bounds, torch.optim's the bounds alone:
 * it clamps the estimate row * col / mean from below by a square, which is the factor from above.
 * Rejected: one factor 1 / sqrt(row * col / mean), whose product of two tiny means is 0. */
#include "ops/ops_int.h"

#include <math.h>

static bool factored(const struct view *grad) { return grad->rank > 1; }

static int adafactor_shape(struct op_call *c, struct err *e) {
    const struct view *g = &c->out[0];
    const enum dtype d = c->in[0].dtype;
    if ((d != F64 && need_dtype(c, 0, F32, e)) || need_dim(c, 0, 0, 7, e) ||
        need_out(c, 0, d, g->rank, g->dim, e))
        return -1;
    if (!factored(g)) return need_out(c, 3, d, g->rank, g->dim, e);
    i64 dim[OP_RANK] = {g->dim[0], g->dim[1], 0};
    if (need_out(c, 1, d, g->rank - 1, dim, e)) return -1;
    dim[g->rank - 2] = g->dim[g->rank - 1];
    return need_out(c, 2, d, g->rank - 1, dim, e);
}

/* One mean of squares, and what it divides by. */
static double mean_ref(const double *h, double *to, double sum, double count) {
    return *to = h[2] * *to + h[3] * (sum / count + h[4]);
}
static void adafactor_ref(const struct op_call *c) {
    const struct adafactor_size s = adafactor_size(&c->out[0]);
    const double *h = c->in[0].data;
    double *grad = c->out[0].data, *row = c->out[1].data, *col = c->out[2].data,
           *v = c->out[3].data;
    for (i64 i = 0; i < view_count(&c->out[0]); i++) {
        grad[i] = fmax(-h[1], fmin(h[1], grad[i] * h[0]));
        if (v) grad[i] *= fmin(1 / sqrt(mean_ref(h, v + i, grad[i] * grad[i], 1)), h[6]);
    }
    for (i64 b = 0; !v && b < s.batch; b++, grad += s.rows * s.cols, row += s.rows, col += s.cols) {
        double mean = 0;
        for (i64 i = 0; i < s.rows; i++) {
            double sum = 0;
            for (i64 j = 0; j < s.cols; j++) sum += grad[i * s.cols + j] * grad[i * s.cols + j];
            mean += mean_ref(h, row + i, sum, (double)s.cols) / (double)s.rows;
        }
        for (i64 j = 0; j < s.cols; j++) {
            double sum = 0;
            for (i64 i = 0; i < s.rows; i++) sum += grad[i * s.cols + j] * grad[i * s.cols + j];
            mean_ref(h, col + j, sum, (double)s.rows);
        }
        for (i64 i = 0; i < s.rows * s.cols; i++)
            grad[i] *=
                fmin(1 / sqrt(row[i / s.cols] / fmax(mean, h[5])) / sqrt(col[i % s.cols]), h[6]);
    }
}
/* a [.., R], b [.., C], and the columns' sums of each block of rows. */
static i64 adafactor_scratch(const struct op_call *c) {
    const struct adafactor_size s = adafactor_size(&c->out[0]);
    return factored(&c->out[0]) ? s.batch * (s.rows + s.cols + s.blocks * s.cols) * 4 : 0;
}

static void fill_transformers(void *data, const struct view *v) {
    (void)v;
    const double h[7] = {0.5, 0.375, 0.75, 0.25, 1e-30, 0, 1e30};
    for (int i = 0; i < 7; i++) ((double *)data)[i] = h[i];
}
static void fill_torch(void *data, const struct view *v) {
    (void)v;
    const double h[7] = {0.5, 1e30, 0.75, 0.25, 0, 0.25, 2};
    for (int i = 0; i < 7; i++) ((double *)data)[i] = h[i];
}
static void fill_squares(void *data, const struct view *v) {
    for (i64 i = 0; i < view_count(v); i++) ((double *)data)[i] = 0.01 + (double)(i % 17) / 17;
}
static bool adafactor_sample(int index, struct sample *s) {
    static const i64 size[][4] = {/* rank, and sizes */
                                  {1, 1},          {1, 37},      {1, 4100},      {2, 1, 1},
                                  {2, 13, 7},      {2, 5, 130},  {2, 517, 33},   {3, 3, 5, 4},
                                  {3, 2, 300, 19}, {2, 257, 16}, {2, 4096, 4096}};
    if (index >= 2 * COUNT(size)) return false;
    const i64 *n = size[index / 2], rank = n[0];
    const i64 col[2] = {rank == 2 ? n[2] : n[1], n[rank]};
    sample_f32(&s->in[0], 0, 1, DIMS(7));
    s->in[0].fill = FILL_CUSTOM, s->in[0].custom = index % 2 ? fill_torch : fill_transformers;
    sample_out(&s->out[0], (int)rank, n + 1);
    if (rank == 1) sample_out(&s->out[3], 1, n + 1);
    if (rank > 1) sample_out(&s->out[1], (int)rank - 1, n + 1);
    if (rank > 1) sample_out(&s->out[2], (int)rank - 1, col);
    for (int k = 1; k < 4; k++)
        if (s->out[k].present) s->out[k].fill = FILL_CUSTOM, s->out[k].custom = fill_squares;
    s->bench = n[1] > 4000 && rank == 2;
    s->no_gradient_check = true;
    return true;
}
const struct op op_adafactor = {
    .name = "adafactor",
    .in = "hyper",
    .out = "=grad =row? =col? =v?",
    .shape = adafactor_shape,
    .ref = adafactor_ref,
    .scratch = adafactor_scratch,
    .scratch_cuda = adafactor_scratch,
    .cpu = CPU(adafactor),
    .cuda = CUDA(adafactor),
    .sample = adafactor_sample,
    .bound = {16, 16},
};
