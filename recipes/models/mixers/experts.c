/* experts.c: a mixture of experts in the place of an MLP.
 *
 * Tokens are sorted by expert, so that each expert's weights are read once and the order of every
 * sum is fixed (ops/route.c, ops/expert_linear.c). What all tokens see besides, the shared expert,
 * is an MLP like any other. */
#include "recipes/models/models_int.h"

/* The sorted rows, as the operations take them. */
struct sorted {
    struct tensor *weight, *offset, *order, *place;
};

static struct sorted routed(struct build *b, struct tensor *x) {
    const struct config *c = &b->m->config;
    const struct layer *at = &b->m->layer[b->layer];
    const struct plan_attr plan = {c->experts};
    struct sorted s;
    struct tensor *out[OP_OUT] = {0};
    graph_call(b->g, &op_route, &c->route,
               BIND({"logits", build_linear(b, x, ROLE_ROUTER)},
                    {"bias", build_param(b, at->weight[ROLE_CORRECTION])},
                    {"balance", balance_input(b)}),
               out);
    balance_keep(b, out[1], out[2]);
    s.weight = out[0];
    graph_call(b->g, &op_expert_plan, &plan, BIND({"index", out[1]}), out);
    s.offset = out[0], s.order = out[1], s.place = out[2];
    return s;
}

/* rows [M, in] -> [M, out], each by its expert. */
static struct tensor *expert_linear(struct build *b, struct tensor *rows, enum role role,
                                    const struct sorted *s) {
    const struct layer *at = &b->m->layer[b->layer];
    const struct lora_pair *lora = build_lora(b, at, role);
    const struct lora_attr attr = {lora->scale};
    return graph_op(b->g, &op_expert_linear, &attr,
                    BIND({"x", rows}, {"w", build_param(b, at->weight[role])},
                         {"offset", s->offset}, {"bias", build_param(b, at->bias[role])},
                         {"a", build_param(b, lora->a)}, {"b", build_param(b, lora->b)}));
}

static struct tensor *glu(struct build *b, struct tensor *gate, struct tensor *up) {
    const struct config *c = &b->m->config;
    const struct act_attr attr = {c->glu_limit > 0 ? ACT_CLAMPED : ACT_SILU, c->glu_limit,
                                  c->glu_alpha};
    return graph_op(b->g, &op_glu, &attr, BIND({"gate", gate}, {"up", up}));
}

static struct tensor *shared(struct build *b, struct tensor *x) {
    struct tensor *gate = build_linear(b, x, ROLE_SHARED_GATE),
                  *up = build_linear(b, x, ROLE_SHARED_UP);
    struct tensor *y = build_linear(b, glu(b, gate, up), ROLE_SHARED_DOWN);
    if (!b->m->layer[b->layer].weight[ROLE_SHARED_SCORE]) return y;
    return graph_op(b->g, &op_gate_mul, NULL,
                    BIND({"x", y}, {"g", build_linear(b, x, ROLE_SHARED_SCORE)}));
}

/* x [N, D] -> [N, D] */
struct tensor *mix_experts(struct build *b, struct tensor *x) {
    const struct config *c = &b->m->config;
    const struct split_attr halves = {{c->expert_size, c->expert_size, 0}};
    const struct sorted s = routed(b, x);
    struct tensor *out[OP_OUT] = {0};
    struct tensor *rows = graph_op(b->g, &op_expert_gather, NULL,
                                   BIND({"x", x}, {"order", s.order}, {"place", s.place}));
    rows = expert_linear(b, rows, ROLE_EXPERTS_GATE_UP, &s);
    graph_call(b->g, &op_split, &halves, BIND({"x", rows}), out);
    rows = expert_linear(b, glu(b, out[0], out[1]), ROLE_EXPERTS_DOWN, &s);
    struct tensor *y = graph_op(
        b->g, &op_expert_combine, NULL,
        BIND({"rows", rows}, {"order", s.order}, {"place", s.place}, {"weight", s.weight}));
    if (!(c->has & HAS_SHARED)) return y;
    return graph_op(b->g, &op_add, NULL, BIND({"a", y}, {"b", shared(b, x)}));
}
