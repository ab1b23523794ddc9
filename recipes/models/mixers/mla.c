/* mla.c: multi-head latent attention (DeepSeek-AI, 2024): keys and values of all heads come from
 * one latent per token, and one rotated part is every head's.
 *
 * States (states.h) are keys and values of all heads, as those of other families, or the latent
 * with the rotated part, from which each pass makes the keys and values of all positions that it
 * may ask for, by the same operations and so with the same bits: less memory for more work.
 * Rejected: folding the up-projection into queries, which is another order of sums: a cached step
 * would no longer have the bits of the whole forward pass. */
#include "recipes/models/models_int.h"
#include "recipes/models/states.h"

/* The norms of latents keep the epsilon of their class whatever `rms_norm_eps` says. */
static struct tensor *latent_norm(struct build *b, struct tensor *x, enum role role) {
    const struct norm_attr attr = {.eps = 1e-6};
    struct tensor *w = build_param(b, b->m->layer[b->layer].weight[role]);
    return graph_op(b->g, &op_rmsnorm, &attr, BIND({"x", x}, {"w", w}));
}
static struct tensor *turned(struct build *b, struct tensor *x, i64 head) {
    const struct config *c = &b->m->config;
    const struct rope_attr attr = {head, c->mla.turned, c->family->interleaved};
    return graph_op(b->g, &op_rope, &attr,
                    BIND({"x", x}, {"position", b->position}, {"table", b->rope[0]}));
}

/* This pass's rows go into a state; the result is those that the pass may ask for. */
static struct tensor *gathered(struct build *b, int index, struct tensor *rows) {
    return graph_op(b->g, &op_embedding, NULL,
                    BIND({"ids", b->gather}, {"w", build_cached(b, index, rows)}));
}

/* x [N, D] -> [N, D] */
struct tensor *mix_mla(struct build *b, struct tensor *x) {
    const struct config *c = &b->m->config;
    const struct mla_config *m = &c->mla;
    const struct split_attr parts = {{m->kv_rank, m->turned, 0}};
    const struct mla_attr heads = {c->heads, m->turned, m->plain, m->value};
    const struct attention_attr attr = {.heads = c->heads,
                                        .kv_heads = c->heads,
                                        .head_dim = c->head_dim,
                                        .value_dim = m->value,
                                        .scale = c->layer[b->layer].scale};
    struct tensor *q = x, *out[OP_OUT] = {0};
    if (m->q_rank) q = latent_norm(b, build_linear(b, x, ROLE_Q_A), ROLE_Q_LATENT_NORM);
    q = turned(b, build_linear(b, q, m->q_rank ? ROLE_Q_B : ROLE_Q), c->head_dim);
    graph_call(b->g, &op_split, &parts, BIND({"x", build_linear(b, x, ROLE_KV_A)}), out);
    struct tensor *latent = latent_norm(b, out[0], ROLE_KV_LATENT_NORM),
                  *part = turned(b, out[1], m->turned);
    if (b->gather) latent = gathered(b, 0, latent), part = gathered(b, 1, part);
    struct tensor *kv = build_linear(b, latent, ROLE_KV_B);
    graph_call(b->g, &op_mla_keys, &heads, BIND({"kv", kv}, {"turned", part}), out);
    struct tensor *k = out[0], *v = out[1];
    if (!b->gather) k = build_cached(b, 0, k), v = build_cached(b, 1, v);
    struct tensor *o =
        graph_op(b->g, &op_attention, &attr,
                 BIND({"q", q}, {"k", k}, {"v", v}, {"begin", b->begin}, {"last", b->last},
                      {"pages", b->pages}, {"sequence", b->sequence}));
    return build_linear(b, o, ROLE_O);
}
