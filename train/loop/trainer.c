/* trainer.c: one optimizer step. Everything here is a function of (recipe, step): nothing depends
 * on wall time, threads or how the step is cut into micro-batches. */
#include "train/loop/loop.h"

#include <string.h>

/* The files that checkpoints carry, as they are now. */
static int carried_begin(struct trainer *t, struct err *e) {
    return t->model_folder && !t->r->use_peft ? carried_list(t->model_folder, &t->carried, e) : 0;
}

int trainer_open(struct trainer *t, const struct recipe *r, const char *run_dir, struct err *e) {
    *t = (struct trainer){.r = r, .run_dir = run_dir};
    if (numerics_choose(r->numerics, e) || trainer_data(t, e) || trainer_model(t, e) ||
        carried_begin(t, e) || optimizer_new(&t->optimizer, &t->model, r, e))
        return -1;
    t->total_steps = r->max_steps;
    if (!t->total_steps) {
        const double steps =
            r->num_train_epochs * (double)loader_samples(t->loader) / (double)r->global_batch_size;
        t->total_steps = i64_max(1, (i64)steps + (steps > (double)(i64)steps));
    }
    return schedule_of_recipe(&t->schedule, r, t->total_steps, e);
}

void trainer_close(struct trainer *t) {
    pass_cache_free(&t->passes);
    device_free(t->memory.data);
    optimizer_free(&t->optimizer), mem_free(t->balance.sum);
    loader_close(t->loader), loader_close(t->eval_loader);
    for (int i = 0; i < DATASETS; i++)
        dataset_close(t->dataset[i]), dataset_close(t->eval_dataset[i]);
    model_free(&t->model);
    lora_config_free(&t->lora);
    lock_files_free(&t->carried);
    tokenizer_free(t->tokenizer), chat_free(t->chat);
    arena_free(&t->arena);
    *t = (struct trainer){0};
}

static struct pass_plan plan_of(struct trainer *t, i64 tokens, enum use use) {
    const bool balanced = use != USE_EVAL && t->model.config.balanced;
    struct pass_plan p = {.model = &t->model, .tokens = tokens, .eager = globals.eager};
    p.gives = use == USE_COUNT ? PASS_NOTHING : PASS_LOSS;
    p.train = use == USE_TRAIN, p.recompute = t->r->gradient_checkpointing;
    p.balance = !balanced ? BALANCE_NONE : use == USE_TRAIN ? BALANCE_LOSS : BALANCE_COUNT;
    if (use != USE_EVAL && t->r->use_peft)
        p.dropout = t->lora.lora_dropout, p.dropout_seed = (u64)t->r->seed;
    p.memory = &t->memory;
    return p;
}

static struct pass *pass_for(struct trainer *t, i64 tokens, enum use use, struct err *e) {
    const struct pass_plan plan = plan_of(t, tokens, use);
    bool fresh;
    struct pass *p = pass_cached(&t->passes, &plan, &fresh, e);
    if (!p || !fresh || use != USE_TRAIN || !optimizer_bind(&t->optimizer, p->graph, e)) return p;
    return pass_cache_drop(&t->passes, p), NULL;
}

static int positions_check(const struct trainer *t, const struct batch *b, struct err *e) {
    for (i64 i = 0; i < b->tokens; i++)
        if (b->ids[i] >= t->model.config.vocab_size) {
            err_input(e, "token id %d is outside the model's vocabulary of %lld", b->ids[i],
                      (long long)t->model.config.vocab_size);
            return err_hint(e, "tokenise the data with the model's own tokenizer");
        }
    return 0;
}

/* Runs one micro-batch, before which the step had `first` tokens; adds its losses to *sum in token
 * order. */
static int batch_run(struct trainer *t, const struct batch *b, enum use use, i64 first,
                     float weight, double *sum, struct err *e) {
    struct pass *p = positions_check(t, b, e) ? NULL : pass_for(t, b->tokens, use, e);
    if (!p) return -1;
    struct pass_inputs in = {.places = {b->ids, b->position, b->begin, b->last},
                             .targets = b->targets,
                             .dropout_at = {(i32)(t->optimizer.step & 0x3ffffff), (i32)first},
                             .balance = &t->balance,
                             .real = b->real};
    if (use == USE_TRAIN && !(in.weight = pass_weights(p, weight, e))) return -1;
    if (pass_bind(p, &in, e) || pass_run(p, e) ||
        (p->plan.balance && balance_add(&p->build, &t->balance, b->real, e)))
        return -1;
    return use == USE_COUNT ? 0 : pass_read_loss(p, b->targets, sum, e);
}

/* Counts the choices of a step's tokens, for the balancing loss. */
static int step_count(struct trainer *t, const struct step_batches *s, struct err *e) {
    double *sum = t->balance.sum;
    i64 first = 0;
    if (sum) memset(sum, 0, sizeof *sum * (size_t)t->model.config.layers);
    t->balance = (struct balance){.sum = sum};
    for (i64 i = 0; i < s->count; first += s->batch[i++].tokens)
        if (batch_run(t, &s->batch[i], USE_COUNT, first, 0, NULL, e)) return -1;
    return 0;
}

int trainer_step(struct trainer *t, struct step_result *out, struct err *e) {
    struct optimizer *o = &t->optimizer;
    const struct step_batches *s;
    const i64 step = o->step, groups = t->r->reduction_groups;
    if (loader_step(t->loader, step, &s, e)) return -1;
    *out = (struct step_result){.lr = optimizer_rate(o, schedule_lr(&t->schedule, step)),
                                .tokens = s->trained};
    memcpy(out->batch, s->digest, sizeof out->batch);
    if (!s->trained) {
        err_input(e, "step %lld holds no token that is trained", (long long)step + 1);
        return err_hint(e,
                        "its samples of at most %lld tokens are all prompt: raise "
                        "max_seq_length, or set completion_only_loss: false",
                        (long long)t->r->max_seq_length);
    }
    const float weight = (float)(1.0 / (double)s->trained);
    double sum = 0;
    i64 group = 0, samples = 0, first = 0;
    if ((t->model.config.balanced && step_count(t, s, e)) || optimizer_zero(o, e)) return -1;
    for (i64 i = 0; i < s->count; i++) {
        if (batch_run(t, &s->batch[i], USE_TRAIN, first, weight, &sum, e))
            return err_frame(e, "in step %lld", (long long)step + 1);
        samples += s->batch[i].samples, first += s->batch[i].tokens;
        if (groups > 1 && samples == (group + 1) * (s->samples / groups)) {
            if (optimizer_group_done(o, group++, e)) return -1;
            if (group < groups && optimizer_zero(o, e)) return -1;
        }
    }
    out->loss = sum / (double)s->trained;
    if (t->model.config.balanced) {
        out->aux_loss = balance_loss(&t->balance, t->model.config.layers);
        out->loss += t->model.config.aux_coef * out->aux_loss;
    }
    t->tokens_seen += s->trained;
    return optimizer_update(o, groups, out->lr, &out->grad_norm, e);
}

int trainer_eval(struct trainer *t, double *loss, i64 *tokens, struct err *e) {
    const i64 steps = loader_steps(t->eval_loader);
    double sum = 0;
    *tokens = 0;
    for (i64 i = 0; i < (t->r->eval_batches ? i64_min(steps, t->r->eval_batches) : steps); i++) {
        const struct step_batches *s;
        if (loader_step(t->eval_loader, i, &s, e)) return -1;
        for (i64 k = 0; k < s->count; k++)
            if (batch_run(t, &s->batch[k], USE_EVAL, 0, 1, &sum, e))
                return err_frame(e, "in the evaluation");
        *tokens += s->trained;
    }
    if (!*tokens) return err_input(e, "the evaluation data holds no token that is trained");
    *loss = sum / (double)*tokens;
    if (*loss - *loss == 0) return 0;
    err_failed(e, "the validation loss is not finite after step %lld",
               (long long)t->optimizer.step);
    return err_hint(e, "a smaller learning_rate or a longer warmup; the last checkpoint is intact");
}

/* The largest micro-batch whose plan fits. */
static int memory_hint(struct trainer *t, i64 length, i64 left, struct err *e) {
    struct err unused = {0};
    for (i64 n = trainer_micro_batch(t->r) / 2; n; n /= 2) {
        const struct pass *p = pass_for(t, length * n, USE_TRAIN, &unused);
        if (p && p->graph->peak <= left)
            return err_hint(e, "micro_batch_size: %lld fits (the same bits)", (long long)n);
    }
    return err_hint(e, "gradient_checkpointing: true, a smaller max_seq_length or precision: bf16 "
                       "need less");
}

i64 trainer_plan_bytes(struct trainer *t, struct err *e) {
    const i64 length = round_up(t->r->max_seq_length, LOADER_PAD);
    const struct pass *p = pass_for(t, length * trainer_micro_batch(t->r), USE_TRAIN, e);
    if (!p) return -1;
    const i64 state = optimizer_bytes(&t->optimizer), step = p->graph->peak,
              left = device_available();
    i64 weights = 0;
    for (i64 i = 0; i < t->model.params; i++) weights += param_bytes(t->model.param[i]);
    if (step <= left) return weights + state + step;
    const double mib = 1 << 20;
    err_failed(e, "a step needs %.1f MiB for activations, but only %.1f MiB are left",
               (double)step / mib, (double)left / mib);
    err_detail(
        e,
        "plan: weights %.1f MiB, gradients and optimizer state %.1f MiB, activations of %lld "
        "x %lld tokens %.1f MiB",
        (double)weights / mib, (double)state / mib, (long long)trainer_micro_batch(t->r),
        (long long)length, (double)step / mib);
    return memory_hint(t, length, left, e);
}
