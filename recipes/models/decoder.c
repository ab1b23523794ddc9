/* decoder.c: the one decoder. A family's table says what its blocks are made of; this file walks
 * the table.
 *
 * The residual stream is a pair: a tensor and what still has to be added to it. So a pre-norm block
 * gets its sum and its norm from one operation (add_rmsnorm), and a post-norm block its norm and
 * sum (rmsnorm_add), whichever the family has. */
#include "recipes/models/models_int.h"

struct stream {
    struct tensor *x, *pending;
};

static struct layer *layer_of(const struct build *b) {
    return b->layer < 0 ? &b->m->top : &b->m->layer[b->layer];
}

struct tensor *build_param(struct build *b, struct param *p) {
    return p ? graph_param(b->g, p, p->name, &p->view, p->trainable) : NULL;
}

const struct lora_pair *build_lora(const struct build *b, const struct layer *at, enum role role) {
    static const struct lora_pair none;
    return b->bare ? &none : &at->lora[role];
}

struct tensor *build_linear(struct build *b, struct tensor *x, enum role role) {
    struct layer *at = layer_of(b);
    const struct lora_pair *lora = build_lora(b, at, role);
    struct param *w = at->weight[role];
    struct linear_in in = {.x = x, .w = build_param(b, w), .bias = build_param(b, at->bias[role])};
    for (int i = 0; i < SCALES; i++)
        if (w->scale[i].data)
            in.scale[i] = graph_param(b->g, &w->scale[i], w->name, &w->scale[i], false);
    if (!lora->a) return linear_call(b, &in, lora->scale);
    in.a = build_param(b, lora->a), in.b = build_param(b, lora->b);
    return lora_linear(b, &in, lora, (u32)((b->layer + 1) * ROLE_COUNT + role));
}

static struct norm_attr norm_of(const struct build *b, i64 width) {
    const struct config *c = &b->m->config;
    return (struct norm_attr){c->norm_eps, c->family->norm_one_plus ? 1 : 0, width};
}

struct tensor *build_norm(struct build *b, struct tensor *x, enum role role, i64 width) {
    const struct layer *at = layer_of(b);
    const struct norm_attr attr = norm_of(b, width);
    const bool rms = b->m->config.family->norm == NORM_RMS;
    struct tensor *w = build_param(b, at->weight[role]);
    if (rms) return graph_op(b->g, &op_rmsnorm, &attr, BIND({"x", x}, {"w", w}));
    return graph_op(b->g, &op_layernorm, &attr,
                    BIND({"x", x}, {"w", w}, {"b", build_param(b, at->bias[role])}));
}

/* The stream's sum, and its norm as result. */
static struct tensor *norm_before(struct build *b, struct stream *s, enum role role) {
    if (!s->pending) return build_norm(b, s->x, role, 0);
    const struct layer *at = layer_of(b);
    const struct norm_attr attr = norm_of(b, 0);
    const bool rms = b->m->config.family->norm == NORM_RMS;
    struct tensor *w = build_param(b, at->weight[role]), *out[OP_OUT] = {0};
    if (rms)
        graph_call(b->g, &op_add_rmsnorm, &attr, BIND({"x", s->pending}, {"r", s->x}, {"w", w}),
                   out);
    else
        graph_call(
            b->g, &op_add_layernorm, &attr,
            BIND({"x", s->pending}, {"r", s->x}, {"w", w}, {"b", build_param(b, at->bias[role])}),
            out);
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
    return s->mixer[b->m->config.layer[b->layer].kind[slot]](b, x);
}

static void slot_run(struct build *b, struct stream *s, int index) {
    const struct slot *slot = &b->m->config.family->block[index];
    const struct norm_attr attr = norm_of(b, 0);
    graph_at(b->g, "layers.%lld.%s", (long long)b->layer, slot->name);
    struct tensor *x = slot->norm_before ? norm_before(b, s, slot->norm_before) : settled(b, s);
    struct tensor *y = mix(b, x, index);
    if (!slot->norm_after)
        s->pending = y;
    else
        s->x = graph_op(b->g, &op_rmsnorm_add, &attr,
                        BIND({"x", y}, {"r", settled(b, s)},
                             {"w", build_param(b, layer_of(b)->weight[slot->norm_after])}));
}

/* Both mixers read the stream; the second through the norm of the first if it has none itself. */
static void parallel_run(struct build *b, struct stream *s) {
    const struct slot *slot = b->m->config.family->block;
    graph_at(b->g, "layers.%lld.%s", (long long)b->layer, slot[0].name);
    struct tensor *x = norm_before(b, s, slot[0].norm_before);
    struct tensor *first = mix(b, x, 0);
    if (b->m->config.has & HAS_FFN_NORM) x = build_norm(b, s->x, slot[1].norm_before, 0);
    struct tensor *second = mix(b, x, 1);
    s->pending = graph_op(b->g, &op_add, NULL, BIND({"a", first}, {"b", second}));
}

static struct tensor *embedded(struct build *b) {
    struct graph *g = b->g;
    const struct layer *top = &b->m->top;
    const struct config *c = &b->m->config;
    graph_at(g, "embed_tokens");
    struct tensor *x =
        graph_op(g, &op_embedding, NULL,
                 BIND({"ids", b->ids}, {"w", build_param(b, top->weight[ROLE_EMBED])}));
    const struct lora_pair *lora = build_lora(b, top, ROLE_EMBED);
    if (lora->a) x = lora_embedding(b, x, lora);
    if (c->embedding_scale > 0) {
        const double exact = c->embedding_scale;
        const struct scale_attr attr = {
            b->m->dtype == BF16 ? (double)bf16_to_f32(bf16_of_f32((float)exact)) : exact};
        x = graph_op(g, &op_scale, &attr, BIND({"x", x}));
    }
    if (top->weight[ROLE_POSITIONS]) {
        struct tensor *p = graph_op(
            g, &op_embedding, NULL,
            BIND({"ids", b->position}, {"w", build_param(b, top->weight[ROLE_POSITIONS])}));
        x = graph_op(g, &op_add, NULL, BIND({"a", x}, {"b", p}));
    }
    return top->weight[ROLE_EMBED_NORM] ? build_norm(b, x, ROLE_EMBED_NORM, 0) : x;
}

struct tensor *model_hidden(struct build *b, i64 tokens) {
    struct graph *g = b->g;
    const struct config *c = &b->m->config;
    b->layer = -1; /* what follows belongs to no layer, after an error too */
    b->ids = graph_input(g, "input_ids", I32, DIMS(tokens));
    b->position = graph_input(g, "position_ids", I32, DIMS(tokens));
    b->begin = graph_input(g, "begin", I32, DIMS(tokens));
    b->last = graph_input(g, "last", I32, DIMS(tokens));
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
    return norm_before(b, &s, ROLE_FINAL_NORM);
}

struct tensor *model_logits(struct build *b, struct tensor *hidden) {
    const struct limit_attr cap = {b->m->config.logit_softcap};
    graph_at(b->g, "lm_head");
    struct tensor *logits = build_linear(b, hidden, ROLE_LM_HEAD);
    return cap.limit > 0 ? graph_op(b->g, &op_softcap, &cap, BIND({"x", logits})) : logits;
}

struct tensor *model_loss(struct build *b, struct tensor *hidden, struct tensor *targets) {
    struct layer *top = &b->m->top;
    const struct xent_attr attr = {b->m->config.logit_softcap};
    graph_at(b->g, "lm_head");
    struct tensor *w = build_param(b, top->weight[ROLE_LM_HEAD]),
                  *bias = build_param(b, top->bias[ROLE_LM_HEAD]);
    const struct lora_pair *lora = build_lora(b, top, ROLE_LM_HEAD);
    if (!lora->a)
        return graph_op(b->g, &op_linear_xent, &attr,
                        BIND({"x", hidden}, {"w", w}, {"targets", targets}, {"bias", bias}));
    const struct head_in l = lora_head(b, hidden, w, lora, ROLE_LM_HEAD);
    return graph_op(b->g, &op_lora_xent, &attr,
                    BIND({"x", l.x}, {"w", w}, {"targets", targets}, {"bias", bias}, {"t", l.t},
                         {"u", l.u}, {"m", l.m}, {"norm", l.norm}, {"rest", l.rest}));
}
