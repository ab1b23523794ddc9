/* schedule.c: the learning rate as a function of the step alone.
 *
 * The formulas are those of transformers (optimization.py: get_constant_schedule_with_warmup,
 * get_linear_schedule_with_warmup, get_cosine_with_min_lr_schedule_with_warmup, get_wsd_schedule),
 * with one difference: past the last step the rate stays where it ended, where transformers' cosine
 * would rise again. Warm-up rises from 0, except in wsd from min_lr_ratio. Only base's own math and
 * IEEE operations are used, because the rate reaches the bits of the weights (NUMERICS.md 10). A
 * pure function needs no state in a checkpoint. */
#include "train/loop/loop.h"

#include <math.h> /* sqrt: exact by IEEE */
#include <string.h>

static double decay_factor(const struct schedule *s, double progress) {
    static const double pi = 3.14159265358979323846;
    if (progress >= 1) return 0;
    if (s->kind == LR_COSINE || (s->kind == LR_WSD && s->decay_type == DECAY_COSINE))
        return 0.5 * (1 + m_cos(pi * progress));
    if (s->kind == LR_WSD && s->decay_type == DECAY_1_SQRT) return 1 - sqrt(progress);
    return 1 - progress;
}

double schedule_lr(const struct schedule *s, i64 step) {
    double low = s->min_lr_ratio, span = 1 - low;
    if (step < s->warmup) {
        double rise = (double)step / (double)s->warmup;
        if (s->quadratic) rise *= rise;
        return s->lr * (s->kind == LR_WSD ? rise * span + low : rise);
    }
    i64 decay = s->kind == LR_WSD ? s->decay : s->total - s->warmup;
    i64 into = step - (s->total - decay);
    if (s->kind == LR_CONSTANT || into < 0) return s->lr;
    return s->lr * (decay_factor(s, (double)into / (double)i64_max(decay, 1)) * span + low);
}

static i64 share_of(double share, i64 total) { /* rounded up, as transformers does */
    double exact = share * (double)total;
    return (i64)exact + ((double)(i64)exact < exact);
}

int schedule_of_recipe(struct schedule *s, const struct recipe *r, i64 total_steps, struct err *e) {
    static const char *const kind[] = {"constant", "linear", "cosine", "wsd"};
    static const char *const decay[] = {"linear", "cosine", "1-sqrt"};
    *s = (struct schedule){.lr = r->learning_rate,
                           .min_lr_ratio = r->min_lr_ratio,
                           .total = total_steps,
                           .quadratic = r->lr_quadratic_warmup};
    for (int i = 0; i < COUNT(kind); i++)
        if (!strcmp(r->lr_scheduler_type, kind[i])) s->kind = i;
    for (int i = 0; i < COUNT(decay); i++)
        if (!strcmp(r->wsd_decay_type, decay[i])) s->decay_type = i;
    double decay_ratio = r->wsd_decay_ratio > 0 ? r->wsd_decay_ratio : 0.1;
    s->warmup = r->warmup_steps ? r->warmup_steps : share_of(r->warmup_ratio, total_steps);
    s->decay = r->wsd_decay_steps ? r->wsd_decay_steps : share_of(decay_ratio, total_steps);
    if (s->kind == LR_WSD && s->warmup + s->decay > total_steps)
        return err_input(e,
                         "wsd: %lld steps of warm-up and %lld of decay do not fit into %lld steps",
                         (long long)s->warmup, (long long)s->decay, (long long)total_steps);
    return 0;
}
