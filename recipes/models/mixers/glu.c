/* glu.c: the gated MLP. */
#include "recipes/models/mixers/mixers.h"

/* down(act(gate) * up), gate and up from one product or two */
static struct tensor *trace(struct build *b, struct tensor *x) {
    const struct config *c = &b->m->config;
    const struct act_attr attr = {.act = c->act};
    struct tensor *out[OP_OUT] = {0};
    if (b->m->layer[b->layer].weight[ROLE_GATE_UP]) {
        const struct split_attr cut = {{c->intermediate_size, c->intermediate_size, 0}};
        graph_call(b->g, &op_split, &cut, BIND({"x", build_linear(b, x, ROLE_GATE_UP)}), out);
    } else
        out[0] = build_linear(b, x, ROLE_GATE), out[1] = build_linear(b, x, ROLE_UP);
    struct tensor *y = graph_op(b->g, &op_glu, &attr, BIND({"gate", out[0]}, {"up", out[1]}));
    return build_linear(b, y, ROLE_DOWN);
}

const struct mixer mixer_glu = {.name = "glu", .has = HAS_DENSE, .trace = trace};
