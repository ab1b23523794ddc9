/* when.c: after which steps a run saves, evaluates and prints: README.md of train/recipe, "When to
 * evaluate, save and stop". */
#include "train/loop/loop.h"

#include <string.h>

/* Steps, or a share of all steps, as transformers rounds it; 0: never. */
static i64 every(i64 steps, double share, i64 total) {
    if (share <= 0) return steps;
    const double n = share * (double)total;
    return i64_max(1, (i64)n + (n > (double)(i64)n));
}

static bool at_multiple(i64 steps, double share, i64 total, i64 step) {
    const i64 n = every(steps, share, total);
    return n > 0 && step > 0 && step % n == 0;
}

/* Does an epoch end with this step? */
static bool epoch_ends(const struct trainer *t, i64 step) {
    const double epoch = samples_epoch_steps(t);
    const double now = (double)step / epoch, before = (double)(step - 1) / epoch;
    return step > 0 && (i64)(now + 1e-9) > (i64)(before + 1e-9);
}

bool save_at(const struct trainer *t, i64 step) {
    const struct recipe *r = t->r;
    for (i64 i = 0; i < r->save_at.count; i++)
        if (r->save_at.item[i] == step) return true;
    return step == t->total_steps ||
           at_multiple(r->save_steps, r->save_ratio, t->total_steps, step) ||
           (!strcmp(r->save_strategy, "epoch") && epoch_ends(t, step));
}

bool eval_at(const struct trainer *t, i64 step) {
    const struct recipe *r = t->r;
    if (!t->eval_loader || !strcmp(r->eval_strategy, "no")) return false;
    return step == 0 || step == t->total_steps ||
           at_multiple(r->eval_steps, r->eval_ratio, t->total_steps, step) ||
           (!strcmp(r->eval_strategy, "epoch") && epoch_ends(t, step));
}

bool log_at(const struct trainer *t, i64 step) {
    return at_multiple(t->r->logging_steps, t->r->logging_ratio, t->total_steps, step);
}
