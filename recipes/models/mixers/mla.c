/* mla.c: multi-head latent attention (DeepSeek-AI, 2024): keys and values of all heads come from
 * one latent per token, and one rotated part is every head's.
 *
 * States (states.h) are keys and values of all heads, as those of other families, or the latent
 * with the rotated part, from which each pass makes the keys and values of all positions that it
 * may ask for, by the same operations and so with the same bits: less memory for more work.
 * Rejected: folding the up-projection into queries, which is another order of sums: a cached step
 * would no longer have the bits of the whole forward pass. */
#include "recipes/models/mixers/mixers.h"

#include <jansson.h>

const struct module_type mla_q = {"q", MODULE_LINEAR, &mixer_mla, 14, .gguf.stem = "attn_q"};
const struct module_type mla_q_a = {"q_a", MODULE_LINEAR, &mixer_mla, 18, .gguf.stem = "attn_q_a"};
const struct module_type mla_q_b = {"q_b", MODULE_LINEAR, &mixer_mla, 19, .gguf.stem = "attn_q_b"};
const struct module_type mla_q_norm = {"q_norm", MODULE_NORM, &mixer_mla,
                                       .gguf.stem = "attn_q_a_norm"};
const struct module_type mla_kv_a = {"kv_a", MODULE_LINEAR, &mixer_mla, 20,
                                     .gguf.stem = "attn_kv_a_mqa"};
const struct module_type mla_kv_b = {
    "kv_b",           MODULE_LINEAR,     &mixer_mla, 21, .gguf.stem = "attn_k_b|attn_v_b",
    .gguf.cut = true, .gguf.heads = true};
const struct module_type mla_kv_norm = {"kv_norm", MODULE_NORM, &mixer_mla,
                                        .gguf.stem = "attn_kv_a_norm"};
const struct module_type mla_o = {"o", MODULE_LINEAR, &mixer_mla, 22, .gguf.stem = "attn_output"};

const struct weight_rule rules_mla[] = {
    {&mla_q, "model.layers.%L.self_attn.q_proj.weight", .rows = DIM_HZ, .cols = DIM_D,
     .when = HAS_Q_PLAIN, .layout = LAYOUT_ROPE_LAST},
    {&mla_q_a, "model.layers.%L.self_attn.q_a_proj.weight", .rows = DIM_QR, .cols = DIM_D,
     .when = HAS_Q_LATENT},
    {&mla_q_norm, "model.layers.%L.self_attn.q_a_layernorm.weight", .rows = DIM_QR,
     .when = HAS_Q_LATENT},
    {&mla_q_b, "model.layers.%L.self_attn.q_b_proj.weight", .rows = DIM_HZ, .cols = DIM_QR,
     .when = HAS_Q_LATENT, .layout = LAYOUT_ROPE_LAST},
    {&mla_kv_a, "model.layers.%L.self_attn.kv_a_proj_with_mqa.weight", .rows = DIM_KVRT,
     .cols = DIM_D},
    {&mla_kv_norm, "model.layers.%L.self_attn.kv_a_layernorm.weight", .rows = DIM_KVR},
    {&mla_kv_b, "model.layers.%L.self_attn.kv_b_proj.weight", .rows = DIM_KVB, .cols = DIM_KVR},
    {&mla_o, "model.layers.%L.self_attn.o_proj.weight", .rows = DIM_D, .cols = DIM_HV},
    {0},
};

static int read(struct config *c, const json_t *j, const char *where, struct err *e) {
    const i64 most = 1 << 20;
    struct mla_config *m = &c->mla;
    const json_t *latent = json_object_get(j, "q_lora_rank");
    if (latent && !json_is_null(latent))
        m->q_rank = config_size(j, "q_lora_rank", -1, most, where, e);
    m->kv_rank = config_size(j, "kv_lora_rank", -1, most, where, e);
    m->plain = config_size(j, "qk_nope_head_dim", -1, most, where, e);
    m->rope_dim = config_size(j, "qk_rope_head_dim", -1, most, where, e);
    m->value = config_size(j, "v_head_dim", -1, most, where, e);
    if (!e->code && (m->rope_dim % 2 || m->value > 256))
        return err_input(e,
                         "%s: 'qk_rope_head_dim' is %lld and 'v_head_dim' %lld; expected an even "
                         "number and at most 256",
                         where, (long long)m->rope_dim, (long long)m->value);
    c->head_dim = m->plain + m->rope_dim, c->kv_heads = c->heads;
    c->has |= m->q_rank ? HAS_Q_LATENT : HAS_Q_PLAIN;
    return e->code ? -1 : 0;
}

/* The norms of latents keep the epsilon of their class whatever `rms_norm_eps` says. */
static struct tensor *latent_norm(struct build *b, struct tensor *x,
                                  const struct module_type *type) {
    const struct norm_attr attr = {.eps = 1e-6};
    struct tensor *w = build_weight(b, type);
    return graph_op(b->g, &op_rmsnorm, &attr, BIND({"x", x}, {"w", w}));
}
static struct tensor *turned(struct build *b, struct tensor *x, i64 head) {
    const struct config *c = &b->m->config;
    const struct rope_attr attr = {head, c->mla.rope_dim, c->family->interleaved};
    return graph_op(b->g, &op_rope, &attr,
                    BIND({"x", x}, {"position", b->position}, {"table", b->rope[0]}));
}

/* This pass's rows go into a state; the result is those that the pass may ask for. */
static struct tensor *gathered(struct build *b, int index, struct tensor *rows) {
    return graph_op(b->g, &op_embedding, NULL,
                    BIND({"ids", b->gather}, {"w", build_cached(b, index, rows)}));
}

/* x [N, D] -> [N, D] */
static struct tensor *trace(struct build *b, struct tensor *x) {
    const struct config *c = &b->m->config;
    const struct mla_config *m = &c->mla;
    const struct split_attr parts = {{m->kv_rank, m->rope_dim, 0}};
    const struct mla_attr heads = {c->heads, m->rope_dim, m->plain, m->value};
    const struct attention_attr attr = {.heads = c->heads,
                                        .kv_heads = c->heads,
                                        .head_dim = c->head_dim,
                                        .value_dim = m->value,
                                        .scale = c->layer[b->layer].scale};
    struct tensor *q = x, *out[OP_OUT] = {0};
    if (m->q_rank) q = latent_norm(b, build_linear(b, x, &mla_q_a), &mla_q_norm);
    q = turned(b, build_linear(b, q, m->q_rank ? &mla_q_b : &mla_q), c->head_dim);
    graph_call(b->g, &op_split, &parts, BIND({"x", build_linear(b, x, &mla_kv_a)}), out);
    struct tensor *latent = latent_norm(b, out[0], &mla_kv_norm),
                  *part = turned(b, out[1], m->rope_dim);
    if (b->gather) latent = gathered(b, 0, latent), part = gathered(b, 1, part);
    struct tensor *kv = build_linear(b, latent, &mla_kv_b);
    graph_call(b->g, &op_mla_keys, &heads, BIND({"kv", kv}, {"turned", part}), out);
    struct tensor *k = out[0], *v = out[1];
    if (!b->gather) k = build_cached(b, 0, k), v = build_cached(b, 1, v);
    struct tensor *o =
        graph_op(b->g, &op_attention, &attr,
                 BIND({"q", q}, {"k", k}, {"v", v}, {"begin", b->begin}, {"last", b->last},
                      {"pages", b->pages}, {"sequence", b->sequence}));
    return build_linear(b, o, &mla_o);
}

static int states(const struct config *c, i64 l, enum dtype d, bool latent,
                  struct state_spec out[LAYER_STATES]) {
    (void)l;
    const struct mla_config *m = &c->mla;
    if (latent) {
        out[0] = (struct state_spec){"latent", STATE_TOKEN, d, 1, m->kv_rank};
        out[1] = (struct state_spec){"turned", STATE_TOKEN, d, 1, m->rope_dim};
    } else {
        out[0] = (struct state_spec){"keys", STATE_TOKEN, d, 1, c->heads * c->head_dim};
        out[1] = (struct state_spec){"values", STATE_TOKEN, d, 1, c->heads * m->value};
    }
    return 2;
}

const struct mixer mixer_mla = {.name = "mla",
                                .types = attention_types,
                                .config = read,
                                .trace = trace,
                                .states = states,
                                .flops = attention_flops};
