/* layers.c: the mixers that a family's slots name. A new kind of mixer is a new function here (or a
 * new file), never another `if` in the decoder. */
#include "recipes/models/models_int.h"

static struct tensor *qk_norm(struct build *b, struct tensor *x, enum role role) {
    const struct config *c = &b->m->config;
    if (!(c->has & HAS_QK_NORM)) return x;
    return build_norm(b, x, role, c->family->qk_norm == QK_NORM_WHOLE ? 0 : c->head_dim);
}

static struct tensor *turned(struct build *b, struct tensor *x, struct tensor *const *tables) {
    const struct config *c = &b->m->config;
    const int rope = c->layer[b->layer].rope;
    if (rope < 0) return x;
    const struct rope_attr turn = {c->head_dim, c->rope[rope].dims, c->family->interleaved};
    return graph_op(b->g, &op_rope, &turn,
                    BIND({"x", x}, {"position", b->position}, {"table", tables[rope]}));
}

/* Query, key and value columns: one product that is taken apart, or three. */
static void projected(struct build *b, struct tensor *x, struct tensor **q, struct tensor **k,
                      struct tensor **v) {
    const struct config *c = &b->m->config;
    if (!b->m->layer[b->layer].weight[ROLE_QKV]) {
        *q = build_linear(b, x, ROLE_Q), *k = build_linear(b, x, ROLE_K);
        *v = build_linear(b, x, ROLE_V);
        return;
    }
    const struct split_attr cut = {
        {c->heads * c->head_dim, c->kv_heads * c->head_dim, c->kv_heads * c->head_dim}};
    struct tensor *out[OP_OUT] = {0};
    graph_call(b->g, &op_split, &cut, BIND({"x", build_linear(b, x, ROLE_QKV)}), out);
    *q = out[0], *k = out[1], *v = out[2];
}

static struct tensor *clipped(struct build *b, struct tensor *x) {
    const struct limit_attr attr = {b->m->config.clip_qkv};
    return attr.limit > 0 ? graph_op(b->g, &op_clamp, &attr, BIND({"x", x})) : x;
}

/* x [N, D] -> [N, D] */
struct tensor *mix_attention(struct build *b, struct tensor *x) {
    const struct config *c = &b->m->config;
    const struct layer_config *at = &c->layer[b->layer];
    const struct attention_attr attr = {.heads = c->heads,
                                        .kv_heads = c->kv_heads,
                                        .head_dim = c->head_dim,
                                        .scale = at->scale,
                                        .window = at->window,
                                        .softcap = c->attention_softcap,
                                        .alibi_bf16 = c->family->alibi_bf16};
    struct tensor *q, *k, *v;
    projected(b, x, &q, &k, &v);
    q = turned(b, clipped(b, qk_norm(b, q, ROLE_Q_NORM)), b->query_rope);
    k = turned(b, clipped(b, qk_norm(b, k, ROLE_K_NORM)), b->rope);
    v = clipped(b, v);
    k = build_cached(b, 0, k), v = build_cached(b, 1, v);
    struct param *sink = b->m->layer[b->layer].weight[ROLE_SINK];
    struct tensor *o =
        graph_op(b->g, &op_attention, &attr,
                 BIND({"q", q}, {"k", k}, {"v", v}, {"begin", b->begin}, {"last", b->last},
                      {"sink", build_param(b, sink)}, {"slopes", b->slopes}, {"pages", b->pages},
                      {"sequence", b->sequence}));
    return build_linear(b, o, ROLE_O);
}

/* down(act(gate) * up), gate and up from one product or two */
struct tensor *mix_glu(struct build *b, struct tensor *x) {
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

/* down(act(up)) */
struct tensor *mix_mlp(struct build *b, struct tensor *x) {
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
