/* update.c: one step of an optimizer, with f32 masters or without, and the sum of squares for
 * clipping: Adam (Kingma and Ba, 2015), AdamW (Loshchilov and Hutter, 2019), Lion (Chen et al.,
 * 2023), SGD with momentum, Adagrad (Duchi et al., 2011), RMSprop (Hinton).
 *
 * grad, master, m, v, extra [n] f32; param [n] in the compute dtype (absent when the master is the
 * parameter); m, v and extra where the rule has them. What changes with the step comes in `hyper`
 * [HYPER] f32, computed in f64 by the caller: { gradient scale (clipping by norm), weight decay,
 * rate, the rule's own, L2 penalty, the most of an element (clipping by value) }. With w the master
 * and g = max(-hyper[5], min(hyper[5], grad * hyper[0])), to which all but AdamW and Lion add the
 * penalty, g = fma(hyper[4], w, g), a rule makes a step s; w = fma(-hyper[2], s, w * hyper[1]):
 *
 *   AdamW    hyper { .., 1 - lr * weight_decay, lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t) }
 *   Adam     the same, { .., 1, .. }
 *            m = fma(beta1, m, (1-beta1) * g);  v = fma(beta2, v, ((1-beta2) * g) * g)
 *            s = m / fma(sqrt(v), hyper[3], eps); AMSGrad: extra = max(extra, v) in place of v
 *   Lion     hyper { .., 1 - lr * weight_decay, lr }
 *            s = sign(fma(beta1, m, (1-beta1) * g));  m = fma(beta2, m, (1-beta2) * g)
 *   SGD      hyper { .., 1, lr, 1 - dampening (at the first step 1) }
 *            m = fma(beta1, m, hyper[3] * g), if there is one
 *            s = m, or fma(beta1, m, g) if nesterov, or g
 *   Adagrad  hyper { .., 1, lr / (1 + (t - 1) * lr_decay) }
 *            v = fma(g, g, v);  s = g / (sqrt(v) + eps)
 *   RMSprop  hyper { .., 1, lr }
 *            v as Adam; d = sqrt(v) + eps; centered: extra = fma(beta2, extra, (1-beta2) * g),
 *            d = sqrt(max(fma(-extra, extra, v), 0)) + eps
 *            s = g / d; with momentum: s = m = fma(beta1, m, g / d)
 *   param = round(w)
 *
 * which are those of torch.optim, and the authors' Lion, within rounding.
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
 * square_sum: x [..] -> sum [1] f64: sums of 4,096-element chunks by NUMERICS.md 7, added in
 * f64 in index order. */
#include "ops/ops_int.h"

#include <math.h>

static int update_shape(struct op_call *c, struct err *e) {
    const enum dtype d = c->in[0].dtype;
    const enum update_rule rule = ((const struct update_attr *)c->attr)->rule;
    if (d != F64 && need_dtype(c, 0, F32, e)) return -1;
    if (need_dim(c, 1, 0, HYPER, e)) return -1;
    const bool master = is_present(&c->out[0]), adam = rule == UPDATE_ADAMW || rule == UPDATE_ADAM,
               needed[] = {true, adam || rule == UPDATE_LION,
                           adam || rule == UPDATE_ADAGRAD || rule == UPDATE_RMSPROP, false, false};
    for (int i = !master; i < 5; i++)
        if (i != 3 && (needed[i] || is_present(&c->out[i])) &&
            need_out(c, i, d, c->in[0].rank, c->in[0].dim, e))
            return -1;
    if (!master && !is_present(&c->in[2]))
        return err_failed(e, "operation update: neither 'master' nor 'step'");
    if (is_present(&c->in[2]) && (need_dtype(c, 2, I32, e) || need_dim(c, 2, 0, 1, e))) return -1;
    if (master && !is_present(&c->out[3])) return 0;
    const enum dtype param = master ? c->out[3].dtype : d == F64 ? F64 : BF16;
    return need_out(c, 3, param, c->in[0].rank, c->in[0].dim, e);
}
static void update_ref(const struct op_call *c) {
    const struct update_attr *a = c->attr;
    const double *grad = c->in[0].data, *h = c->in[1].data;
    double *m = c->out[1].data, *v = c->out[2].data, *param = c->out[3].data, *x = c->out[4].data;
    double *w = c->out[0].data ? c->out[0].data : param;
    for (i64 i = 0; i < view_count(&c->in[0]); i++) {
        double g = fmax(-h[5], fmin(h[5], grad[i] * h[0])), step;
        if (a->rule != UPDATE_ADAMW && a->rule != UPDATE_LION) g += h[4] * w[i];
        if (a->rule == UPDATE_ADAGRAD) {
            v[i] += g * g;
            step = g / (sqrt(v[i]) + a->eps);
        } else if (a->rule == UPDATE_RMSPROP) {
            v[i] = a->beta2 * v[i] + (1 - a->beta2) * g * g;
            if (x) x[i] = a->beta2 * x[i] + (1 - a->beta2) * g;
            step = g / (sqrt(x ? fmax(v[i] - x[i] * x[i], 0) : v[i]) + a->eps);
            if (m) step = m[i] = a->beta1 * m[i] + step;
        } else if (a->rule == UPDATE_ADAMW || a->rule == UPDATE_ADAM) {
            m[i] = a->beta1 * m[i] + (1 - a->beta1) * g;
            v[i] = a->beta2 * v[i] + (1 - a->beta2) * g * g;
            if (x) x[i] = fmax(x[i], v[i]);
            step = m[i] / (sqrt(x ? x[i] : v[i]) * h[3] + a->eps);
        } else if (a->rule == UPDATE_LION) {
            const double s = a->beta1 * m[i] + (1 - a->beta1) * g;
            step = s > 0 ? 1 : s < 0 ? -1 : 0;
            m[i] = a->beta2 * m[i] + (1 - a->beta2) * g;
        } else {
            if (m) m[i] = a->beta1 * m[i] + h[3] * g;
            step = !m ? g : a->nesterov ? a->beta1 * m[i] + g : m[i];
        }
        w[i] = w[i] * h[1] - h[2] * step;
        if (param) param[i] = w[i];
    }
}
static void fill_hyper(void *data, const struct view *v) {
    (void)v;
    const double hyper[HYPER] = {0.5,  1 - 1e-3 * 0.1, 1e-3 / (1 - 0.9), 1 / sqrt(1 - 0.999),
                                 0.05, 0.375};
    for (int i = 0; i < HYPER; i++) ((double *)data)[i] = hyper[i];
}
static void fill_positive(void *data, const struct view *v) {
    for (i64 i = 0; i < view_count(v); i++) ((double *)data)[i] = 0.01 + (double)(i % 17) / 17;
}
static void fill_small(void *data, const struct view *v) { /* squares below most of `positive` */
    for (i64 i = 0; i < view_count(v); i++) ((double *)data)[i] = 0.1 + (double)(i % 13) / 40;
}
static bool update_sample(int index, struct sample *s) {
    enum { M = 1, V = 2, EXTRA = 4, NESTEROV = 8 };
    static const struct {
        i64 n;
        enum update_rule rule;
        int has;
    } rows[] = {{1, UPDATE_ADAMW, M | V},
                {5, UPDATE_ADAMW, M | V},
                {16, UPDATE_ADAMW, M | V},
                {1000, UPDATE_ADAMW, M | V},
                {4100, UPDATE_ADAMW, M | V},
                {1 << 24, UPDATE_ADAMW, M | V},
                {517, UPDATE_ADAMW, M | V | EXTRA},
                {4099, UPDATE_ADAM, M | V},
                {4103, UPDATE_LION, M},
                {37, UPDATE_SGD, 0},
                {4100, UPDATE_SGD, M},
                {1001, UPDATE_SGD, M | NESTEROV},
                {4098, UPDATE_ADAGRAD, V},
                {4101, UPDATE_RMSPROP, V},
                {519, UPDATE_RMSPROP, M | V | EXTRA}};
    if (index >= 3 * COUNT(rows)) return false;
    const i64 n = rows[index / 3].n;
    const int has = rows[index / 3].has;
    const bool stochastic = index % 3 == 2; /* else: the parameter is the master, or both */
    *(struct update_attr *)s->attr =
        (struct update_attr){rows[index / 3].rule, 0.9, 0.999, 1e-8, 42, 3, (has & NESTEROV) != 0};
    sample_f32(&s->in[0], -1, 1, DIMS(n));
    sample_f32(&s->in[1], 0, 1, DIMS(HYPER));
    s->in[1].fill = FILL_CUSTOM, s->in[1].custom = fill_hyper;
    if (!stochastic) sample_out(&s->out[0], DIMS(n));
    if (has & M) sample_out(&s->out[1], DIMS(n));
    for (int k = 2; k < 5; k += 2)
        if (has & (k == 2 ? V : EXTRA)) {
            sample_out(&s->out[k], DIMS(n));
            s->out[k].fill = FILL_CUSTOM, s->out[k].custom = k == 2 ? fill_positive : fill_small;
        }
    if (index % 3) sample_float(&s->out[3], -1, 1, DIMS(n));
    if (stochastic) s->out[3].dtype = BF16, sample_int(&s->in[2], 0, 1000, DIMS(1));
    s->bench = n > 1000000;
    s->no_gradient_check = true;
    return true;
}
const struct op op_update = {
    .name = "update",
    .in = "grad hyper step?",
    .out = "=master? =m? =v? =param? =extra?",
    .attr_size = sizeof(struct update_attr),
    .shape = update_shape,
    .ref = update_ref,
    .cpu = CPU(update),
    .cuda = CUDA(update),
    .sample = update_sample,
    .bound = {16, 2}, /* in bf16: an ulp of the largest */
};

static int square_sum_shape(struct op_call *c, struct err *e) {
    if (need_float(c, 0, e)) return -1;
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
    sample_float(&s->in[0], -1, 1, DIMS(size[index]));
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
