/* decoder.c: the one decoder. A family's table says what its blocks are made of; this file walks
 * the table.
 *
 * The residual stream is a pair: a tensor and what still has to be added to it. So a pre-norm block
 * gets its sum and its norm from one operation (add_rmsnorm), and a post-norm block its norm and
 * sum (rmsnorm_add), whichever the family has. */
#include "recipes/models/mixers/mixers.h"

struct stream {
    struct tensor *x, *pending;
};

/* The stream's sum, and its norm as result. */
static struct tensor *norm_before(struct build *b, struct stream *s,
                                  const struct module_type *type) {
    if (!s->pending) return build_norm(b, s->x, type, 0);
    const struct norm_attr attr = build_norm_attr(b, 0);
    const bool rms = b->m->config.family->norm == NORM_RMS;
    struct tensor *w = build_weight(b, type), *out[OP_OUT] = {0};
    if (rms)
        graph_call(b->g, &op_add_rmsnorm, &attr, BIND({"x", s->pending}, {"r", s->x}, {"w", w}),
                   out);
    else
        graph_call(b->g, &op_add_layernorm, &attr,
                   BIND({"x", s->pending}, {"r", s->x}, {"w", w}, {"b", build_bias(b, type)}), out);
    s->x = out[0], s->pending = NULL;
    return out[1];
}

static struct tensor *settled(struct build *b, struct stream *s) {
    if (s->pending) s->x = graph_op(b->g, &op_add, NULL, BIND({"a", s->pending}, {"b", s->x}));
    s->pending = NULL;
    return s->x;
}

static struct tensor *mix(struct build *b, struct tensor *x, int slot) {
    const struct slot *s = &b->m->config.family->block[slot];
    graph_at(b->g, "layers.%lld.%s", (long long)b->layer, s->name);
    return b->m->config.layer[b->layer].mixer[slot]->trace(b, x);
}

static void slot_run(struct build *b, struct stream *s, int index) {
    const struct slot *slot = &b->m->config.family->block[index];
    const struct norm_attr attr = build_norm_attr(b, 0);
    graph_at(b->g, "layers.%lld.%s", (long long)b->layer, slot->name);
    struct tensor *x = slot->before ? norm_before(b, s, slot->before) : settled(b, s);
    struct tensor *y = mix(b, x, index);
    if (!slot->after)
        s->pending = y;
    else
        s->x = graph_op(b->g, &op_rmsnorm_add, &attr,
                        BIND({"x", y}, {"r", settled(b, s)}, {"w", build_weight(b, slot->after)}));
}

/* Both mixers read the stream; the second through the norm of the first if it has none itself. */
static void parallel_run(struct build *b, struct stream *s) {
    const struct slot *slot = b->m->config.family->block;
    graph_at(b->g, "layers.%lld.%s", (long long)b->layer, slot[0].name);
    struct tensor *x = norm_before(b, s, slot[0].before);
    struct tensor *first = mix(b, x, 0);
    if (b->m->config.has & HAS_FFN_NORM) x = build_norm(b, s->x, slot[1].before, 0);
    struct tensor *second = mix(b, x, 1);
    s->pending = graph_op(b->g, &op_add, NULL, BIND({"a", first}, {"b", second}));
}

static struct tensor *embedded(struct build *b) {
    struct graph *g = b->g;
    const struct config *c = &b->m->config;
    graph_at(g, "embed_tokens");
    const struct tracing t = build_tracing(b);
    struct tensor *x = module_embedding(&t, build_module(b, &top_embed), b->ids);
    if (c->embedding_scale > 0) {
        const double exact = c->embedding_scale;
        const struct scale_attr attr = {
            b->m->weights.dtype == BF16 ? (double)bf16_to_f32(bf16_of_f32((float)exact)) : exact};
        x = graph_op(g, &op_scale, &attr, BIND({"x", x}));
    }
    if (build_module(b, &top_positions)) {
        struct tensor *p = module_embedding(&t, build_module(b, &top_positions), b->position);
        x = graph_op(g, &op_add, NULL, BIND({"a", x}, {"b", p}));
    }
    return build_module(b, &top_embed_norm) ? build_norm(b, x, &top_embed_norm, 0) : x;
}

struct tensor *model_hidden(struct build *b, i64 tokens) {
    struct graph *g = b->g;
    const struct config *c = &b->m->config;
    b->layer = -1; /* what follows belongs to no layer, after an error too */
    b->ids = graph_input(g, "input_ids", I32, DIMS(tokens));
    b->position = graph_input(g, "position_ids", I32, DIMS(tokens));
    b->begin = graph_input(g, "begin", I32, DIMS(tokens));
    b->last = graph_input(g, "last", I32, DIMS(tokens));
    if (b->states) states_inputs(b, tokens);
    if (b->dropout > 0) b->dropout_place = graph_input(g, "dropout_place", I32, DIMS(2));
    b->positions = b->m->rope_positions;
    for (int i = 0; i < MAX_ROPES; i++) {
        struct constant *k = b->m->rope[i], *q = b->m->query_rope[i];
        b->rope[i] = k ? graph_const(g, "rope", k) : NULL;
        b->query_rope[i] = q ? graph_const(g, "query_rope", q) : b->rope[i];
    }
    b->slopes = b->m->slopes ? graph_const(g, "slopes", b->m->slopes) : NULL;
    if (g->err.code) return NULL;
    struct stream s = {.x = embedded(b)};
    for (b->layer = 0; b->layer < c->layers; b->layer++) {
        graph_block_begin(g);
        if (c->has & HAS_PARALLEL)
            parallel_run(b, &s);
        else
            slot_run(b, &s, 0), slot_run(b, &s, 1);
        graph_block_end(g);
    }
    b->layer = -1;
    graph_at(g, "norm");
    return norm_before(b, &s, &top_norm);
}

struct tensor *model_logits(struct build *b, struct tensor *hidden) {
    const struct limit_attr cap = {b->m->config.logit_softcap};
    graph_at(b->g, "lm_head");
    struct tensor *logits = build_linear(b, hidden, &top_head);
    return cap.limit > 0 ? graph_op(b->g, &op_softcap, &cap, BIND({"x", logits})) : logits;
}

struct tensor *model_loss(struct build *b, struct tensor *hidden, struct tensor *targets) {
    const struct module *head = build_module(b, &top_head);
    const struct tracing t = build_tracing(b);
    const struct xent_attr attr = {b->m->config.logit_softcap};
    graph_at(b->g, "lm_head");
    struct tensor *w = build_weight(b, &top_head), *bias = build_bias(b, &top_head);
    if (!module_adapter(&t, head)->a)
        return graph_op(b->g, &op_linear_xent, &attr,
                        BIND({"x", hidden}, {"w", w}, {"targets", targets}, {"bias", bias}));
    const struct head_in l = lora_head(&t, head, hidden, w);
    return graph_op(b->g, &op_lora_xent, &attr,
                    BIND({"x", l.x}, {"w", w}, {"targets", targets}, {"bias", bias}, {"t", l.t},
                         {"u", l.u}, {"m", l.m}, {"norm", l.norm}, {"rest", l.rest}));
}
