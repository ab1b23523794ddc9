/* objective_text.c: the likelihood of texts: every trained token of a step counts the same.
 *
 *   loss = sum over trained tokens of -log p / their number in the step
 *
 * Pretraining and supervised fine-tuning differ in which tokens are trained, which the dataset says
 * (recipe keys completion_only_loss, assistant_only_loss), not here. */
#include "train/loop/loop.h"

static int weights(const struct objective_step *s, struct err *e) {
    (void)e;
    const float each = (float)(1.0 / (double)s->batches->trained);
    for (i64 i = 0; i < s->batches->tokens; i++) s->weight[i] = each;
    return 0;
}

static int measure(const struct objective_step *s, double *loss, double *metric, struct err *e) {
    (void)metric, (void)e;
    double sum = 0;
    for (i64 i = 0; i < s->batches->tokens; i++)
        if (s->batches->targets[i] >= 0) sum += (double)s->loss[0][i];
    *loss = sum / (double)s->batches->trained;
    return 0;
}

const struct objective objective_pretrain = {
    .task = {.name = "pretrain", .help = "train on every token"},
    .weights = weights,
    .measure = measure,
};
const struct objective objective_sft = {
    .task = {.name = "sft", .help = "train on completions of prompts"},
    .weights = weights,
    .measure = measure,
};
