/* objective_sft_mean.c: supervised fine-tuning in which every sample counts the same, however long
 * its answer is:
 *
 *   loss = mean over samples of (mean over the sample's trained tokens of -log p)
 *
 * A sample is one document; one without a trained token does not count. */
#include "train/loop/loop.h"

static int rows(struct loader_config *c, const struct recipe *r, struct err *e) {
    if (recipe_given(r, "packing") && r->packing)
        return err_input(e, "task: sft_mean is a mean over documents: packing must be false");
    c->packing = false;
    return 0;
}

static i64 samples_of(const struct step_batches *b) {
    i64 count = 0;
    for (i64 i = 0; i < b->rows; i++) count += b->row[i].trained > 0;
    return count;
}

static int weights(const struct objective_step *s, struct err *e) {
    (void)e;
    const i64 samples = samples_of(s->batches);
    for (i64 i = 0; i < s->batches->tokens; i++) s->weight[i] = 0;
    for (i64 i = 0; i < s->batches->rows; i++) {
        const struct sample_row *row = &s->batches->row[i];
        const float each = (float)(1.0 / ((double)i64_max(row->trained, 1) * (double)samples));
        for (i64 k = row->at; k < row->at + row->tokens; k++) s->weight[k] = each;
    }
    return 0;
}

static int measure(const struct objective_step *s, double *loss, double *metric, struct err *e) {
    (void)e;
    double all = 0, tokens = 0;
    for (i64 i = 0; i < s->batches->rows; i++) {
        const struct sample_row *row = &s->batches->row[i];
        double sum = 0;
        for (i64 k = row->at; k < row->at + row->tokens; k++)
            if (s->batches->targets[k] >= 0) sum += (double)s->loss[0][k];
        if (row->trained) all += sum / (double)row->trained, tokens += sum;
    }
    *loss = all / (double)samples_of(s->batches);
    metric[0] = tokens / (double)s->batches->trained;
    return 0;
}

static const char *const metrics[] = {"token_loss", NULL};
const struct objective objective_sft_mean = {
    .task = {.name = "sft_mean", .help = "train on completions; every sample counts the same"},
    .rows = rows,
    .weights = weights,
    .measure = measure,
    .metrics = metrics,
};
