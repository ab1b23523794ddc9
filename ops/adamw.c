/* adamw.c: one step of AdamW (Loshchilov and Hutter, 2019), with f32 masters or without, and the
 * sum of squares for clipping.
 *
 * grad, master, m, v [n] f32; param [n] in the compute dtype (absent when the master is the
 * parameter). What changes with the step comes in `hyper` [5] f32, computed in f64 by the caller:
 *   hyper = { gradient scale (clipping), 1 - lr * weight_decay, lr / (1 - beta1^t), 1 / sqrt(1 -
 * beta2^t), unused 0 } g = grad * hyper[0];  m = fma(beta1, m, (1-beta1) * g);  v = fma(beta2, v,
 * ((1-beta2) * g) * g) master = fma(-hyper[2], m / fma(sqrt(v), hyper[3], eps), master * hyper[1]);
 * param = round(master) which is torch.optim.AdamW within rounding.
 *
 * Without `master` the parameter, which is then bf16, is all there is of the weight: the same
 * formulas take it as f32 for the old master, and the new one, w, is rounded at random to one of
 * its two neighbours in bf16, so that an update far below one ulp is made as often as it should be
 * and the mean is that of f32 (Gupta et al., "Deep learning with limited numerical precision",
 * 2015):
 *
 *   param = (bits(w) + (word >> 16)) >> 16; NaN and infinity as bf16_of_f32
 *
 * Element i takes word i % 4 of block i / 4 of Philox of {seed, RNG_ROUND, step, stream}; `step`
 * [1] i32 is the number of updates before this one, mod 2^26. Rejected: rounding to nearest, which
 * loses all updates below half an ulp, and that is most of them.
 *
 * square_sum: x [..] f32 -> sum [1] f64: sums of 4,096-element chunks by NUMERICS.md 7, added in
 * f64 in index order. */
#include "ops/ops_int.h"

#include <math.h>

static int adamw_shape(struct op_call *c, struct err *e) {
    const enum dtype d = c->in[0].dtype;
    if (d != F64 && need_dtype(c, 0, F32, e)) return -1;
    if (need_dim(c, 1, 0, 5, e)) return -1;
    const bool master = is_present(&c->out[0]);
    for (int i = !master; i < 3; i++)
        if (need_out(c, i, d, c->in[0].rank, c->in[0].dim, e)) return -1;
    if (!master && !is_present(&c->in[2]))
        return err_failed(e, "operation adamw: neither 'master' nor 'step'");
    if (is_present(&c->in[2]) && (need_dtype(c, 2, I32, e) || need_dim(c, 2, 0, 1, e))) return -1;
    if (master && !is_present(&c->out[3])) return 0;
    const enum dtype param = master ? c->out[3].dtype : d == F64 ? F64 : BF16;
    return need_out(c, 3, param, c->in[0].rank, c->in[0].dim, e);
}
static void adamw_ref(const struct op_call *c) {
    const struct adamw_attr *a = c->attr;
    const double *grad = c->in[0].data, *hyper = c->in[1].data;
    double *m = c->out[1].data, *v = c->out[2].data, *param = c->out[3].data;
    double *master = c->out[0].data ? c->out[0].data : param;
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        const double g = grad[i] * hyper[0];
        m[i] = a->beta1 * m[i] + (1 - a->beta1) * g;
        v[i] = a->beta2 * v[i] + (1 - a->beta2) * g * g;
        master[i] = master[i] * hyper[1] - hyper[2] * m[i] / (sqrt(v[i]) * hyper[3] + a->eps);
        if (param) param[i] = master[i];
    }
}
static void fill_hyper(void *data, const struct view *v) {
    (void)v;
    const double hyper[] = {0.5, 1 - 1e-3 * 0.1, 1e-3 / (1 - 0.9), 1 / sqrt(1 - 0.999), 0};
    for (int i = 0; i < 5; i++) ((double *)data)[i] = hyper[i];
}
static void fill_positive(void *data, const struct view *v) {
    for (i64 i = 0; i < view_count(v); i++) ((double *)data)[i] = 0.01 + (double)(i % 17) / 17;
}
static bool adamw_sample(int index, struct sample *s) {
    static const i64 size[] = {1, 5, 16, 1000, 4100, 1 << 24};
    if (index >= 3 * COUNT(size)) return false;
    const i64 n = size[index / 3];
    const bool stochastic = index % 3 == 2; /* else: the parameter is the master, or both */
    *(struct adamw_attr *)s->attr = (struct adamw_attr){0.9, 0.999, 1e-8, 42, 3};
    sample_f32(&s->in[0], -1, 1, DIMS(n));
    sample_f32(&s->in[1], 0, 1, DIMS(5));
    s->in[1].fill = FILL_CUSTOM, s->in[1].custom = fill_hyper;
    for (int i = stochastic; i < 3; i++) sample_out(&s->out[i], DIMS(n));
    s->out[2].fill = FILL_CUSTOM, s->out[2].custom = fill_positive;
    if (index % 3) sample_float(&s->out[3], -1, 1, DIMS(n));
    if (stochastic) s->out[3].dtype = BF16, sample_int(&s->in[2], 0, 1000, DIMS(1));
    s->bench = n > 1000000;
    s->no_gradient_check = true;
    return true;
}
const struct op op_adamw = {
    .name = "adamw",
    .in = "grad hyper step?",
    .out = "=master? =m =v =param?",
    .attr_size = sizeof(struct adamw_attr),
    .shape = adamw_shape,
    .ref = adamw_ref,
    .cpu = CPU(adamw),
    .cuda = CUDA(adamw),
    .sample = adamw_sample,
    .bound = {16, 2}, /* in bf16: an ulp of the largest */
};

static int square_sum_shape(struct op_call *c, struct err *e) {
    if (c->in[0].dtype != F64 && need_dtype(c, 0, F32, e)) return -1;
    set_out(c, 0, F64, 1, (i64[]){1});
    return 0;
}
static void square_sum_ref(const struct op_call *c) {
    double sum = 0;
    for (i64 i = 0; i < view_count(&c->in[0]); i++)
        sum += ((double *)c->in[0].data)[i] * ((double *)c->in[0].data)[i];
    *(double *)c->out[0].data = sum;
}
static i64 square_sum_scratch(const struct op_call *c) {
    return (view_count(&c->in[0]) + 4095) / 4096 * 4;
}
static bool square_sum_sample(int index, struct sample *s) {
    static const i64 size[] = {1, 17, 4096, 10000, 1 << 24};
    if (index >= COUNT(size)) return false;
    sample_f32(&s->in[0], -1, 1, DIMS(size[index]));
    s->bench = size[index] > 1000000;
    s->no_gradient_check = true;
    return true;
}
const struct op op_square_sum = {
    .name = "square_sum",
    .in = "x",
    .out = "sum",
    .shape = square_sum_shape,
    .ref = square_sum_ref,
    .scratch = square_sum_scratch,
    .scratch_cuda = square_sum_scratch,
    .cpu = CPU(square_sum),
    .cuda = CUDA(square_sum),
    .sample = square_sum_sample,
    .bound = {64, 64},
};
