/* trainer_step.c: one optimizer step: the passes that its objective asks for, weights of tokens by
 * what they gave, the training pass, the update. */
#include "train/loop/loop.h"

#include <string.h>

struct pass_plan trainer_plan(struct trainer *t, i64 tokens, enum use use,
                              const struct frozen *of) {
    const bool balanced = use != USE_EVAL && t->model.config.balanced;
    struct pass_plan p = {.model = of ? of->model : &t->model,
                          .tokens = tokens,
                          .eager = globals.eager,
                          .bare = of && of->bare};
    p.gives = use == USE_COUNT ? PASS_NOTHING : PASS_LOSS;
    p.train = use == USE_TRAIN, p.recompute = t->r->gradient_checkpointing;
    p.balance = !balanced ? BALANCE_NONE : use == USE_TRAIN ? BALANCE_LOSS : BALANCE_COUNT;
    if (use != USE_EVAL && t->r->use_peft)
        p.dropout = t->lora.lora_dropout, p.dropout_seed = (u64)t->r->seed;
    p.memory = &t->memory;
    return p;
}

struct pass *trainer_pass(struct trainer *t, i64 tokens, enum use use, const struct frozen *of,
                          struct err *e) {
    const struct pass_plan plan = trainer_plan(t, tokens, use, of);
    bool fresh;
    struct pass *p = pass_cached(&t->passes, &plan, &fresh, e);
    if (!p || !fresh || use != USE_TRAIN || !optimizer_bind(&t->optimizer, p->graph, e)) return p;
    return pass_cache_drop(&t->passes, p), NULL;
}

struct pass *trainer_run(struct trainer *t, const struct batch *b, enum use use,
                         const struct frozen *of, i64 first, const float *weight, struct err *e) {
    struct pass *p = trainer_pass(t, b->tokens, use, of, e);
    if (!p) return NULL;
    const struct pass_inputs in = {.places = {b->ids, b->position, b->begin, b->last},
                                   .targets = b->targets,
                                   .weight = weight,
                                   .dropout_at = {(i32)(t->optimizer.step & 0x3ffffff), (i32)first},
                                   .balance = &t->balance,
                                   .real = b->real};
    if (pass_bind(p, &in, e) || pass_run(p, e) ||
        (p->plan.balance && balance_add(&p->build, &t->balance, b->real, e)))
        return NULL;
    return p;
}

/* Counts the choices of a step's tokens, for the balancing loss. */
static int step_count(struct trainer *t, const struct step_batches *s, struct err *e) {
    double *sum = t->balance.sum;
    i64 first = 0;
    if (sum) memset(sum, 0, sizeof *sum * (size_t)t->model.config.layers);
    t->balance = (struct balance){.sum = sum};
    for (i64 i = 0; i < s->count; first += s->batch[i++].tokens)
        if (!trainer_run(t, &s->batch[i], USE_COUNT, NULL, first, NULL, e)) return -1;
    return 0;
}

static int room_for(struct trainer *t, i64 tokens, struct err *e) {
    if (tokens <= t->room) return 0;
    t->room = 0;
    for (int i = 0; i < COUNT(t->loss); i++) mem_free(t->loss[i]), t->loss[i] = NULL;
    mem_free(t->token_weight);
    if (!(t->token_weight = mem_new_array(tokens, sizeof *t->token_weight, e))) return -1;
    t->room = tokens;
    return 0;
}

/* Where the losses of a pass go. */
static float *loss_of(struct trainer *t, int pass, struct err *e) {
    return t->loss[pass] ? t->loss[pass]
                         : (t->loss[pass] = mem_new_array(t->room, sizeof **t->loss, e));
}

/* The passes before the training one, and the weights of tokens. How many passes: *count. */
static int step_weigh(struct trainer *t, struct objective_step *s, int *count, struct err *e) {
    const char *const *name = t->objective->passes;
    for (*count = 0; name && name[*count]; ++*count) {
        const struct frozen *of = trainer_frozen(t, name[*count]);
        float *loss = loss_of(t, *count, e);
        if (!loss) return -1;
        s->loss[*count] = loss;
        for (i64 i = 0; i < s->batches->count; loss += s->batches->batch[i++].tokens) {
            const struct pass *p = trainer_run(t, &s->batches->batch[i], USE_EVAL, of, 0, NULL, e);
            if (!p || pass_read(p, loss, e)) return -1;
        }
    }
    return t->objective->weights(s, e);
}

/* Gradients of all micro-batches, into the accumulators. */
static int step_train(struct trainer *t, const struct step_batches *s, float *loss, struct err *e) {
    const i64 groups = t->r->reduction_groups, size = t->r->global_batch_size / groups;
    i64 group = 0, samples = 0, first = 0;
    if (optimizer_zero(&t->optimizer, e)) return -1;
    for (i64 i = 0; i < s->count; i++) {
        const struct batch *b = &s->batch[i];
        const float *weight = t->token_weight + first;
        const struct pass *p = trainer_run(t, b, USE_TRAIN, NULL, first, weight, e);
        if (!p || pass_read(p, loss + first, e)) return -1;
        samples += b->samples, first += b->tokens;
        if (groups > 1 && (samples == (group + 1) * size || i + 1 == s->count)) {
            if (optimizer_group_done(&t->optimizer, group++, e)) return -1;
            if (group < groups && optimizer_zero(&t->optimizer, e)) return -1;
        }
    }
    for (; groups > 1 && group < groups; group++) /* a batch that is not full: zeros */
        if (optimizer_zero(&t->optimizer, e) || optimizer_group_done(&t->optimizer, group, e))
            return -1;
    return 0;
}

static int step_compute(struct trainer *t, const struct step_batches *batches,
                        struct step_result *out, struct err *e) {
    struct objective_step s = {.with = t->r->task_with, .batches = batches};
    int earlier;
    if (room_for(t, batches->tokens, e)) return -1;
    s.weight = t->token_weight;
    if (step_weigh(t, &s, &earlier, e)) return -1;
    float *loss = loss_of(t, earlier, e);
    s.loss[earlier] = loss;
    if (!loss || (t->model.config.balanced && step_count(t, batches, e)) ||
        step_train(t, batches, loss, e))
        return -1;
    return t->objective->measure(&s, &out->loss, out->metric, e);
}

int trainer_try(struct trainer *t, i64 *tokens, struct err *e) {
    const struct step_batches *s;
    struct step_result out;
    *tokens = 0;
    if (loader_step(t->loader, 0, &s, e)) return -1;
    struct step_batches one = *s;
    one.count = 1, one.samples = s->batch->samples, one.trained = s->batch->trained;
    one.tokens = s->batch->tokens, one.rows = 0;
    while (one.rows < s->rows && s->row[one.rows].at < one.tokens)
        *tokens += s->row[one.rows++].tokens;
    return step_compute(t, &one, &out, e);
}

int trainer_step(struct trainer *t, struct step_result *out, struct err *e) {
    struct optimizer *o = &t->optimizer;
    const struct step_batches *s;
    const i64 step = o->step;
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
    if (step_compute(t, s, out, e)) return err_frame(e, "in step %lld", (long long)step + 1);
    if (t->model.config.balanced) {
        out->aux_loss = balance_loss(&t->balance, t->model.config.layers);
        out->loss += t->model.config.aux_coef * out->aux_loss;
    }
    t->tokens_seen += s->trained;
    return optimizer_update(o, t->r->reduction_groups, out->lr, &out->grad_norm, e);
}
