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

struct tensor *build_param(struct build *b, struct param *p) {
    return graph_param(b->g, p, p->name, &p->view, p->trainable);
}

struct tensor *build_linear(struct build *b, struct tensor *x, enum role role) {
    struct layer *at = b->layer < 0 ? &b->m->top : &b->m->layer[b->layer];
    const struct lora_pair *lora = &at->lora[role];
    const enum role bias = role >= ROLE_Q && role <= ROLE_O ? ROLE_Q_BIAS + (role - ROLE_Q)
                           : role >= ROLE_GATE && role <= ROLE_DOWN
                               ? ROLE_GATE_BIAS + (role - ROLE_GATE)
                               : ROLE_NONE;
    const struct lora_attr attr = {lora->scale};
    struct tensor *in[OP_IN] = {x, build_param(b, at->weight[role])}, *out[OP_OUT] = {0};
    if (bias && at->weight[bias]) in[2] = build_param(b, at->weight[bias]);
    if (lora->a) in[3] = build_param(b, lora->a), in[4] = build_param(b, lora->b);
    graph_call(b->g, &op_linear, &attr, in, out);
    return out[0];
}

static struct tensor *norm(struct build *b, struct tensor *x, struct param *w) {
    const struct norm_attr attr = {.eps = b->m->config.rms_norm_eps};
    return graph_op(b->g, &op_rmsnorm, &attr, x, build_param(b, w), NULL, NULL);
}

/* The stream's sum, and its norm as result. */
static struct tensor *norm_before(struct build *b, struct stream *s, struct param *w) {
    if (!s->pending) return norm(b, s->x, w);
    const struct norm_attr attr = {.eps = b->m->config.rms_norm_eps};
    struct tensor *in[OP_IN] = {s->pending, s->x, build_param(b, w)}, *out[OP_OUT] = {0};
    graph_call(b->g, &op_add_rmsnorm, &attr, in, out);
    s->x = out[0], s->pending = NULL;
    return out[1];
}

static struct tensor *settled(struct build *b, struct stream *s) {
    if (s->pending) s->x = graph_op(b->g, &op_add, NULL, s->pending, s->x, NULL, NULL);
    s->pending = NULL;
    return s->x;
}

static void slot_run(struct build *b, struct stream *s, const struct slot *slot) {
    struct layer *at = &b->m->layer[b->layer];
    const struct norm_attr attr = {.eps = b->m->config.rms_norm_eps};
    graph_at(b->g, "layers.%lld.%s", (long long)b->layer, slot->name);
    struct tensor *x =
        slot->norm_before ? norm_before(b, s, at->weight[slot->norm_before]) : settled(b, s);
    struct tensor *y = slot->mixer(b, x);
    if (!slot->norm_after)
        s->pending = y;
    else
        s->x = graph_op(b->g, &op_rmsnorm_add, &attr, y, settled(b, s),
                        build_param(b, at->weight[slot->norm_after]), NULL);
}

struct tensor *model_hidden(struct build *b, i64 tokens) {
    struct graph *g = b->g;
    const struct config *c = &b->m->config;
    b->layer = -1; /* what follows belongs to no layer, after an error too */
    b->ids = graph_input(g, "input_ids", I32, DIMS(tokens));
    b->position = graph_input(g, "position_ids", I32, DIMS(tokens));
    b->begin = graph_input(g, "begin", I32, DIMS(tokens));
    b->last = graph_input(g, "last", I32, DIMS(tokens));
    const struct view rope = {b->m->rope_table, F32, 2, {b->m->rope_positions, c->head_dim}};
    b->rope = graph_param(g, b->m->rope_table, "rope", &rope, false);
    if (!b->rope) return NULL;
    graph_at(g, "embed_tokens");
    struct stream s = {.x = graph_op(g, &op_embedding, NULL, b->ids,
                                     build_param(b, b->m->top.weight[ROLE_EMBED]), NULL, NULL)};
    for (b->layer = 0; b->layer < c->layers; b->layer++) {
        graph_block_begin(g);
        for (int i = 0; i < COUNT(c->family->block); i++) slot_run(b, &s, &c->family->block[i]);
        graph_block_end(g);
    }
    b->layer = -1;
    graph_at(g, "norm");
    return norm_before(b, &s, b->m->top.weight[ROLE_FINAL_NORM]);
}

struct tensor *model_logits(struct build *b, struct tensor *hidden) {
    graph_at(b->g, "lm_head");
    return build_linear(b, hidden, ROLE_LM_HEAD);
}

struct tensor *model_loss(struct build *b, struct tensor *hidden, struct tensor *targets,
                          struct tensor *scale) {
    graph_at(b->g, "lm_head");
    return graph_op(b->g, &op_linear_xent, NULL, hidden,
                    build_param(b, b->m->top.weight[ROLE_LM_HEAD]), targets, scale);
}
