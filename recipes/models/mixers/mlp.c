/* mlp.c: the MLP without a gate. */
#include "recipes/models/mixers/mixers.h"

/* down(act(up)) */
static struct tensor *trace(struct build *b, struct tensor *x) {
    const struct act_attr attr = {.act = b->m->config.act};
    const struct layer *at = &b->m->layer[b->layer];
    x = build_linear(b, x, ROLE_UP);
    const struct xielu_attr bend = {at->beta, at->eps};
    x = at->weight[ROLE_ALPHA_P]
            ? graph_op(b->g, &op_xielu, &bend,
                       BIND({"x", x}, {"alpha_p", build_param(b, at->weight[ROLE_ALPHA_P])},
                            {"alpha_n", build_param(b, at->weight[ROLE_ALPHA_N])}))
            : graph_op(b->g, &op_act, &attr, BIND({"x", x}));
    return build_linear(b, x, ROLE_DOWN);
}

const struct mixer mixer_mlp = {.name = "mlp", .has = HAS_DENSE, .trace = trace};
