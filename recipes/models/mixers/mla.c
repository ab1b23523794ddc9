/* mla.c: multi-head latent attention (DeepSeek-AI, 2024): keys and values of all heads come from
 * one latent per token, and one rotated part is every head's.
 *
 * The cache holds keys and values of all heads, as that of other families does. Rejected for now:
 * caching the latent and folding the up-projection into queries, which is another order of sums: a
 * cached step would no longer have the bits of the whole forward pass. */
#include "recipes/models/mixers/mixers.h"

#include <jansson.h>

static int read(struct config *c, const json_t *j, const char *where, struct err *e) {
    const i64 most = 1 << 20;
    struct mla_config *m = &c->mla;
    const json_t *latent = json_object_get(j, "q_lora_rank");
    if (latent && !json_is_null(latent))
        m->q_rank = config_size(j, "q_lora_rank", -1, most, where, e);
    m->kv_rank = config_size(j, "kv_lora_rank", -1, most, where, e);
    m->plain = config_size(j, "qk_nope_head_dim", -1, most, where, e);
    m->turned = config_size(j, "qk_rope_head_dim", -1, most, where, e);
    m->value = config_size(j, "v_head_dim", -1, most, where, e);
    if (!e->code && (m->turned % 2 || m->value > 256))
        return err_input(e,
                         "%s: 'qk_rope_head_dim' is %lld and 'v_head_dim' %lld; expected an even "
                         "number and at most 256",
                         where, (long long)m->turned, (long long)m->value);
    c->head_dim = m->plain + m->turned, c->kv_heads = c->heads;
    c->has |= m->q_rank ? HAS_Q_LATENT : HAS_Q_PLAIN;
    return e->code ? -1 : 0;
}

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

/* x [N, D] -> [N, D] */
static struct tensor *trace(struct build *b, struct tensor *x) {
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
                  *kv = build_linear(b, latent, ROLE_KV_B), *part = turned(b, out[1], m->turned);
    graph_call(b->g, &op_mla_keys, &heads, BIND({"kv", kv}, {"turned", part}), out);
    struct tensor *k = out[0], *v = out[1];
    if (b->cache)
        k = build_cached(b, k, &b->cache->k[b->layer]),
        v = build_cached(b, v, &b->cache->v[b->layer]);
    struct tensor *o =
        graph_op(b->g, &op_attention, &attr,
                 BIND({"q", q}, {"k", k}, {"v", v}, {"begin", b->begin}, {"last", b->last}));
    return build_linear(b, o, ROLE_O);
}

static int states(const struct config *c, i64 l, enum dtype d, struct mixer_state out[MAX_STATES]) {
    (void)l;
    out[0] = (struct mixer_state){"key", STATE_TOKEN, d, c->heads * c->head_dim};
    out[1] = (struct mixer_state){"value", STATE_TOKEN, d, c->heads * c->mla.value};
    return 2;
}

const struct mixer mixer_mla = {.name = "mla",
                                .types = attention_types,
                                .config = read,
                                .trace = trace,
                                .states = states,
                                .flops = attention_flops};
