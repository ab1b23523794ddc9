/* pass.c: a model's run over a number of tokens, the one way in which the trainer, evaluation,
 * generation, the benchmark, export and `hone forward` run models: open (trace and plan), bind,
 * run, read. What differs between them is data: struct pass_plan. */
#include "recipes/models/models_int.h"
#include "recipes/models/pass.h"

#include <string.h>

/* Losses of rows, and where the backward pass starts: their weights, and those of balancing. */
static void loss_trace(struct pass *p, struct tensor *hidden) {
    struct graph *g = p->graph;
    const i64 tokens = p->plan.tokens;
    p->targets = graph_input(g, "labels", I32, DIMS(tokens));
    p->out = model_loss(&p->build, hidden, p->targets);
    graph_keep(p->out);
    if (!p->plan.train) return;
    const i64 layers = p->plan.model->config.layers;
    struct seed *seed = arena_new(&g->arena, (layers + 1) * (i64)sizeof *seed, &g->err);
    p->weight = graph_input(g, "weight", F32, DIMS(tokens));
    if (!seed || !p->weight) return;
    seed[0] = (struct seed){p->out, p->weight};
    graph_backward(g, seed, 1 + balance_seeds(&p->build, seed + 1));
}

/* The tokens that logits are wanted of. */
static struct tensor *rows_trace(struct pass *p, struct tensor *hidden) {
    if (!p->plan.rows) return hidden;
    p->row = graph_input(p->graph, "row", I32, DIMS(p->plan.rows));
    return graph_op(p->graph, &op_embedding, NULL, BIND({"ids", p->row}, {"w", hidden}));
}

static void sample_trace(struct pass *p, struct tensor *logits) {
    struct graph *g = p->graph;
    const i64 rows = logits ? logits->view.dim[0] : 0, vocab = p->plan.model->config.vocab_size;
    p->step = graph_input(g, "step", I32, DIMS(rows, 2));
    p->how = graph_input(g, "how", U8, DIMS(rows, (i64)sizeof(struct sample_how)));
    if (p->plan.penalty) p->seen = graph_input(g, "seen", U8, DIMS(rows, vocab));
    p->out =
        graph_op(g, &op_sample, NULL,
                 BIND({"logits", logits}, {"step", p->step}, {"how", p->how}, {"seen", p->seen}));
    graph_keep(p->out);
}

static int trace(struct pass *p, struct err *e) {
    const struct pass_plan *plan = &p->plan;
    struct graph *g = p->graph;
    g->shared = plan->memory, g->recompute = plan->train && plan->recompute;
    p->build = (struct build){.g = g,
                              .m = plan->model,
                              .states = plan->states,
                              .sequences = plan->sequences,
                              .page_count = plan->page_count,
                              .gathered = plan->gathered,
                              .bare = plan->bare,
                              .int8 = plan->model->int8 && plan->gives == PASS_IDS,
                              .dropout = plan->dropout,
                              .dropout_seed = plan->dropout_seed};
    if (plan->balance) balance_trace(&p->build, plan->tokens, plan->balance == BALANCE_LOSS);
    struct tensor *hidden = model_hidden(&p->build, plan->tokens);
    if (plan->gives == PASS_LOSS) loss_trace(p, hidden);
    if (plan->gives == PASS_LOGITS)
        graph_keep(p->out = model_logits(&p->build, rows_trace(p, hidden)));
    if (plan->gives == PASS_IDS) {
        struct tensor *logits = model_logits(&p->build, rows_trace(p, hidden));
        if (plan->logits) graph_keep(p->logits = logits);
        sample_trace(p, logits);
    }
    return graph_plan(g, plan->eager, e);
}

int pass_open(struct pass *p, const struct pass_plan *plan, struct err *e) {
    *p = (struct pass){.plan = *plan, .graph = graph_new(e)};
    if (p->graph && !trace(p, e)) return 0;
    pass_close(p);
    return -1;
}

void pass_close(struct pass *p) {
    graph_free(p->graph), mem_free(p->weights), mem_free(p->losses);
    *p = (struct pass){0};
}

int pass_bind(struct pass *p, const struct pass_inputs *in, struct err *e) {
    p->build.dropout_at[0] = in->dropout_at[0], p->build.dropout_at[1] = in->dropout_at[1];
    if (p->targets) p->targets->view.data = (void *)in->targets;
    if (p->weight) p->weight->view.data = (void *)in->weight;
    if (p->row) p->row->view.data = (void *)in->row;
    if (p->step) p->step->view.data = (void *)in->step;
    if (p->how) p->how->view.data = (void *)in->how;
    if (p->seen) p->seen->view.data = (void *)in->seen;
    if (p->plan.balance == BALANCE_LOSS) balance_bind(&p->build, in->balance, in->real);
    if (p->plan.states) states_bind(&p->build, &in->states);
    return model_bind(&p->build, &in->places, e);
}

const float *pass_weights(struct pass *p, float each, struct err *e) {
    if (!p->weights && !(p->weights = mem_new_array(p->plan.tokens, sizeof *p->weights, e)))
        return NULL;
    for (i64 i = 0; i < p->plan.tokens; i++) p->weights[i] = each;
    return p->weights;
}

int pass_run(struct pass *p, struct err *e) { return graph_run(p->graph, e); }

int pass_read(const struct pass *p, void *host, struct err *e) {
    return graph_read(p->graph, p->out, host, e);
}

int pass_read_logits(const struct pass *p, float *to, struct err *e) {
    const struct tensor *logits = p->logits ? p->logits : p->out;
    const struct view *v = &logits->view;
    const i64 count = view_count(v);
    if (v->dtype == F32) return graph_read(p->graph, logits, to, e);
    u16 *half = mem_new(view_bytes(v), e);
    const int rc = !half || graph_read(p->graph, logits, half, e) ? -1 : 0;
    for (i64 i = 0; !rc && i < count; i++) to[i] = bf16_to_f32(half[i]);
    mem_free(half);
    return rc;
}

int pass_read_loss(struct pass *p, const i32 *targets, double *sum, struct err *e) {
    if (!p->losses && !(p->losses = mem_new_array(p->plan.tokens, sizeof *p->losses, e))) return -1;
    if (pass_read(p, p->losses, e)) return -1;
    for (i64 i = 0; i < p->plan.tokens; i++)
        if (targets[i] >= 0) *sum += (double)p->losses[i];
    return 0;
}

/* ---- the cache ------------------------------------------------------------------------------- */

/* What two runs must have in common to share a pass. */
static bool plan_same(const struct pass_plan *a, const struct pass_plan *b) {
    return a->model == b->model && a->tokens == b->tokens && a->gives == b->gives &&
           a->train == b->train && a->recompute == b->recompute && a->eager == b->eager &&
           a->bare == b->bare && !memcmp(&a->dropout, &b->dropout, sizeof a->dropout) &&
           a->dropout_seed == b->dropout_seed && a->balance == b->balance && a->rows == b->rows &&
           a->penalty == b->penalty && a->logits == b->logits && a->states == b->states &&
           a->sequences == b->sequences && a->page_count == b->page_count &&
           a->gathered == b->gathered && a->memory == b->memory;
}

static i64 pass_bytes(const struct pass *p) {
    const i64 host = ((p->weights != NULL) + (p->losses != NULL)) * 4 * p->plan.tokens;
    return (i64)sizeof *p + host + (p->graph ? graph_bytes(p->graph) : 0);
}

void pass_cache_drop(struct pass_cache *c, struct pass *p) {
    for (i64 i = 0; i < c->count; i++)
        if (c->pass[i] == p) {
            c->pass[i] = c->pass[--c->count];
            pass_close(p), mem_free(p);
            return;
        }
}

/* Closes what was asked for longest ago, until the rest and `p` fit. */
static void cache_shrink(struct pass_cache *c, const struct pass *p) {
    for (;;) {
        i64 bytes = 0;
        struct pass *oldest = NULL;
        for (i64 i = 0; i < c->count; i++) {
            bytes += pass_bytes(c->pass[i]);
            if (c->pass[i] != p && (!oldest || c->pass[i]->used < oldest->used))
                oldest = c->pass[i];
        }
        if (!oldest || bytes <= (c->most ? c->most : PASS_CACHE_BYTES)) return;
        pass_cache_drop(c, oldest);
    }
}

struct pass *pass_cached(struct pass_cache *c, const struct pass_plan *plan, bool *fresh,
                         struct err *e) {
    struct pass *p = NULL;
    for (i64 i = 0; i < c->count && !p; i++)
        if (plan_same(&c->pass[i]->plan, plan)) p = c->pass[i];
    if (fresh) *fresh = !p;
    if (!p) {
        if (c->count == c->room) {
            const i64 size = (i64)sizeof *c->pass, room = 2 * c->room + 8;
            void *more = mem_grow(c->pass, c->count * size, room * size, e);
            if (!more) return NULL;
            c->pass = more, c->room = room;
        }
        if (!(p = mem_new(sizeof *p, e))) return NULL;
        if (pass_open(p, plan, e)) return mem_free(p), NULL;
        c->pass[c->count++] = p, c->opened++;
    }
    p->used = ++c->clock;
    cache_shrink(c, p);
    return p;
}

void pass_cache_free(struct pass_cache *c) {
    for (i64 i = 0; i < c->count; i++) pass_close(c->pass[i]), mem_free(c->pass[i]);
    mem_free(c->pass);
    *c = (struct pass_cache){0};
}
