/* trainer.c: what a recipe names, as one thing that makes steps (trainer_step.c), evaluates, and
 * knows what it will need. A step is a function of (recipe, step): nothing depends on wall time,
 * threads or how the step is cut into micro-batches. */
#include "train/loop/loop.h"

#include <string.h>

/* The files that checkpoints carry, as they are now. */
static int carried_begin(struct trainer *t, struct err *e) {
    return t->model_folder && !t->r->use_peft ? carried_list(t->model_folder, &t->carried, e) : 0;
}

int trainer_open(struct trainer *t, const struct recipe *r, const struct trainer_opening *how,
                 struct err *e) {
    *t = (struct trainer){.r = r,
                          .run_dir = how->run_dir,
                          .random = how->random,
                          .notes = how->notes,
                          .probe = how->probe,
                          .eval_probe = how->eval_probe};
    t->digest_version = how->digest_version ? how->digest_version : DIGEST_VERSION;
    if (!(t->objective = objective_find(r->task)))
        return err_failed(e, "there is no task '%s'", r->task);
    if (numerics_choose(r->numerics, e) || trainer_data(t, e) || trainer_model(t, e) ||
        trainer_models(t, e) || carried_begin(t, e) ||
        optimizer_new(&t->optimizer, &t->model, r, e))
        return -1;
    t->total_steps = r->max_steps;
    if (!t->total_steps) {
        const double steps = r->num_train_epochs * samples_epoch_steps(t);
        t->total_steps = i64_max(1, (i64)steps + (steps > (double)(i64)steps));
    }
    return schedule_of_recipe(&t->schedule, r, t->total_steps, e);
}

void trainer_close(struct trainer *t) {
    pass_cache_free(&t->passes);
    device_free(t->memory.data);
    optimizer_free(&t->optimizer), mem_free(t->balance.sum), mem_free(t->token_weight);
    for (int i = 0; i < COUNT(t->loss); i++) mem_free(t->loss[i]);
    loader_close(t->loader), loader_close(t->eval_loader);
    for (int i = 0; i < DATASETS; i++)
        dataset_close(t->dataset[i]), dataset_close(t->eval_dataset[i]);
    trainer_models_close(t), model_free(&t->model);
    lora_config_free(&t->lora);
    lock_files_free(&t->carried);
    tokenizer_free(t->tokenizer), chat_free(t->chat);
    arena_free(&t->arena);
    *t = (struct trainer){0};
}

int trainer_eval(struct trainer *t, double *loss, i64 *tokens, struct err *e) {
    const struct pass_plan plan = trainer_plan(t, 0, USE_EVAL, NULL);
    double sum;
    if (!evaluate_loss(&t->passes, &plan, t->eval_loader, t->r->eval_batches, &sum, tokens, e))
        return *loss = sum / (double)*tokens, 0;
    if (sum - sum != 0)
        err_hint(e, "a smaller learning_rate or a longer warmup; the last checkpoint is intact");
    return err_frame(e, "in the evaluation after step %lld", (long long)t->optimizer.step);
}

static i64 weights_bytes(const struct model *m) {
    i64 bytes = 0;
    for (i64 i = 0; i < m->weights.params; i++) bytes += param_bytes(m->weights.param[i]);
    return bytes;
}

/* What the largest of a step's passes takes, which use the same memory in turn. */
static i64 step_bytes(struct trainer *t, i64 tokens, struct err *e) {
    const struct pass *p = trainer_pass(t, tokens, USE_TRAIN, NULL, e);
    i64 most = p ? p->graph->peak : -1;
    const char *const *name = t->objective->passes;
    for (; most >= 0 && name && *name; name++) {
        p = trainer_pass(t, tokens, USE_EVAL, trainer_frozen(t, *name), e);
        most = p ? i64_max(most, p->graph->peak) : -1;
    }
    return most;
}

static i64 length_of(const struct trainer *t) { return round_up(t->r->max_seq_length, LOADER_PAD); }

static i64 eval_bytes(struct trainer *t, i64 micro, struct err *e) {
    if (!t->eval_loader) return 0;
    const i64 samples = i64_min(micro, loader_samples(t->eval_loader));
    const struct pass *p = trainer_pass(t, length_of(t) * samples, USE_EVAL, NULL, e);
    return p ? p->graph->peak : -1;
}

static i64 train_bytes(struct trainer *t, i64 micro, struct err *e) {
    return step_bytes(t, length_of(t) * t->rows * samples_at_once(t, micro), e);
}

/* Of a micro-batch twice as large, again and again; where the recipe's does not fit, half of it. */
static i64 largest(struct trainer *t, i64 left, bool fits) {
    const i64 group = t->r->global_batch_size / t->r->reduction_groups;
    const i64 micro = samples_at_once(t, trainer_micro_batch(t->r));
    struct err unused = {0};
    i64 best = fits ? micro : 0;
    for (i64 n = fits ? 2 * micro : micro / 2; n && n <= group; n = fits ? 2 * n : n / 2) {
        const i64 step = group % n && fits ? -1 : train_bytes(t, n, &unused);
        const i64 eval = step < 0 || step > left ? -1 : eval_bytes(t, n, &unused);
        const bool here = eval >= 0 && eval <= left;
        if (here) best = n;
        if (here != fits) break;
    }
    return best;
}

int trainer_bytes(struct trainer *t, bool most, struct trainer_bytes *b, struct err *e) {
    *b = (struct trainer_bytes){0};
    if ((b->step = train_bytes(t, trainer_micro_batch(t->r), e)) < 0 ||
        (b->eval = eval_bytes(t, t->r->micro_batch_size, e)) < 0)
        return -1;
    b->optimizer = optimizer_bytes(&t->optimizer);
    b->gradients = optimizer_gradient_bytes(&t->optimizer);
    b->weights = weights_bytes(&t->model), b->left = device_available();
    for (i64 i = 0; i < t->others; i++)
        if (t->other[i].own) b->weights += weights_bytes(t->other[i].own);
    if (most) b->fits = largest(t, b->left, i64_max(b->step, b->eval) <= b->left);
    return 0;
}

i64 trainer_plan_bytes(struct trainer *t, struct err *e) {
    struct trainer_bytes b;
    if (trainer_bytes(t, false, &b, e)) return -1;
    const i64 step = i64_max(b.step, b.eval), state = b.gradients + b.optimizer;
    if (step <= b.left) return b.weights + state + step;
    const double mib = 1 << 20;
    const i64 fits = largest(t, b.left, false);
    err_failed(e, "a step needs %.1f MiB for activations, but only %.1f MiB are left",
               (double)step / mib, (double)b.left / mib);
    err_detail(
        e,
        "plan: weights %.1f MiB, gradients and optimizer state %.1f MiB, activations of %lld "
        "x %lld tokens %.1f MiB",
        (double)b.weights / mib, (double)state / mib,
        (long long)samples_at_once(t, trainer_micro_batch(t->r)),
        (long long)(length_of(t) * t->rows), (double)step / mib);
    if (fits) return err_hint(e, "micro_batch_size: %lld fits (the same bits)", (long long)fits);
    return err_hint(e, "gradient_checkpointing: true, a smaller max_seq_length or precision: bf16 "
                       "need less");
}
