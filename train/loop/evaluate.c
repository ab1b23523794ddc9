/* evaluate.c: losses of a dataset: `hone eval`, and evaluations of a run. */
#include "train/loop/loop.h"

/* One batch: its losses are in *used. */
static int batch_evaluate(struct pass_cache *c, struct pass_plan plan, const struct batch *b,
                          struct pass **used, double *sum, struct err *e) {
    const struct pass_inputs in = {.places = {b->ids, b->position, b->begin, b->last},
                                   .targets = b->targets};
    plan.tokens = b->tokens;
    struct pass *p = *used = pass_cached(c, &plan, NULL, e);
    if (!p || pass_bind(p, &in, e) || pass_run(p, e)) return -1;
    return pass_read_loss(p, b->targets, sum, e);
}

static int loss_check(float loss, const struct batch *b, i64 token, i64 step, struct err *e) {
    if (loss - loss == 0) return 0;
    err_failed(e, "evaluation: the loss is not finite at position %d of a sequence in batch %lld",
               b->position[token], (long long)step + 1);
    return err_detail(e, "the target is id %d; its loss is %s", b->targets[token],
                      loss != loss ? "NaN" : "infinite");
}

int evaluate_loss(struct pass_cache *c, const struct pass_plan *plan, struct loader *l,
                  i64 max_steps, double *sum, i64 *tokens, struct err *e) {
    struct pass *p;
    int rc = 0;
    *sum = 0, *tokens = 0;
    const i64 steps = max_steps ? i64_min(max_steps, loader_steps(l)) : loader_steps(l);
    for (i64 i = 0; !rc && i < steps; i++) {
        const struct step_batches *s;
        rc = loader_step(l, i, &s, e);
        for (i64 k = 0; !rc && k < s->count; k++) {
            const struct batch *b = &s->batch[k];
            rc = batch_evaluate(c, *plan, b, &p, sum, e);
            for (i64 n = 0; !rc && n < b->tokens; n++)
                if (b->targets[n] >= 0) rc = loss_check(p->losses[n], b, n, i, e);
            *tokens += b->trained;
        }
        progress_line("evaluated %lld of %lld", (long long)i + 1, (long long)steps);
    }
    progress_end();
    if (!rc && !*tokens) rc = err_input(e, "the data holds no token to evaluate");
    return rc ? -1 : 0;
}
