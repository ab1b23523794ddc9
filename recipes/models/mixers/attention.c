/* attention.c: softmax attention over the tokens of a document, with or without a cache: grouped
 * heads, windows, RoPE, norms of queries and keys, sinks, ALiBi, as the configuration has them. */
#include "recipes/models/mixers/mixers.h"

const struct module_type attention_q = {"q", MODULE_LINEAR,         &mixer_attention,
                                        14,  .gguf.stem = "attn_q", .gguf.rope_pairs = true};
const struct module_type attention_k = {"k",
                                        MODULE_LINEAR,
                                        &mixer_attention,
                                        15,
                                        .of_keys = true,
                                        .gguf.stem = "attn_k",
                                        .gguf.rope_pairs = true};
const struct module_type attention_v = {"v", MODULE_LINEAR, &mixer_attention, 16,
                                        .gguf.stem = "attn_v"};
const struct module_type attention_qkv = {"qkv", MODULE_LINEAR, &mixer_attention, 17,
                                          .gguf.stem = "attn_qkv"};
const struct module_type attention_o = {"o", MODULE_LINEAR, &mixer_attention, 22,
                                        .gguf.stem = "attn_output"};
const struct module_type attention_q_norm = {"q_norm", MODULE_NORM, &mixer_attention,
                                             .gguf.stem = "attn_q_norm"};
const struct module_type attention_k_norm = {"k_norm", MODULE_NORM, &mixer_attention,
                                             .of_keys = true, .gguf.stem = "attn_k_norm"};
const struct module_type attention_sink = {"sink", MODULE_NUMBERS, &mixer_attention,
                                           .gguf.stem = "attn_sinks"};

const struct weight_rule rules_attention[] = {
    {&attention_q, "model.layers.%L.self_attn.q_proj.weight", .rows = DIM_HZ, .cols = DIM_D},
    {&attention_q, "model.layers.%L.self_attn.q_proj.bias", .rows = DIM_HZ, .cols = DIM_BIAS,
     .when = HAS_QKV_BIAS},
    {&attention_k, "model.layers.%L.self_attn.k_proj.weight", .rows = DIM_KZ, .cols = DIM_D},
    {&attention_k, "model.layers.%L.self_attn.k_proj.bias", .rows = DIM_KZ, .cols = DIM_BIAS,
     .when = HAS_QKV_BIAS},
    {&attention_v, "model.layers.%L.self_attn.v_proj.weight", .rows = DIM_KZ, .cols = DIM_D},
    {&attention_v, "model.layers.%L.self_attn.v_proj.bias", .rows = DIM_KZ, .cols = DIM_BIAS,
     .when = HAS_QKV_BIAS},
    {&attention_o, "model.layers.%L.self_attn.o_proj.weight", .rows = DIM_D, .cols = DIM_HZ},
    {&attention_o, "model.layers.%L.self_attn.o_proj.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_O_BIAS},
    {0},
};
const struct weight_rule rules_qk_norm[] = {
    {&attention_q_norm, "model.layers.%L.self_attn.q_norm.weight", .rows = DIM_Z,
     .when = HAS_QK_NORM},
    {&attention_k_norm, "model.layers.%L.self_attn.k_norm.weight", .rows = DIM_Z,
     .when = HAS_QK_NORM},
    {0},
};
const struct weight_rule rules_qk_norm_whole[] = {
    {&attention_q_norm, "model.layers.%L.self_attn.q_norm.weight", .rows = DIM_HZ},
    {&attention_k_norm, "model.layers.%L.self_attn.k_norm.weight", .rows = DIM_KZ},
    {0},
};

const char *const attention_types[] = {"full_attention", "sliding_attention", NULL};

static int read(struct config *c, const json_t *j, const char *where, struct err *e) {
    c->attention_softcap = json_f64(j, "attn_logit_softcapping", 0, where, e);
    c->clip_qkv = json_f64(j, "clip_qkv", 0, where, e);
    c->alibi = json_bool(j, "alibi", false, where, e);
    if (!e->code && !(c->attention_softcap >= 0 && c->clip_qkv >= 0))
        err_input(e, "%s: soft caps and clip_qkv must be 0 or more", where);
    return e->code ? -1 : 0;
}

static struct tensor *qk_norm(struct build *b, struct tensor *x, const struct module_type *type) {
    const struct config *c = &b->m->config;
    if (!(c->has & HAS_QK_NORM)) return x;
    return build_norm(b, x, type, c->family->qk_norm == QK_NORM_WHOLE ? 0 : c->head_dim);
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
    if (!build_module(b, &attention_qkv)) {
        *q = build_linear(b, x, &attention_q), *k = build_linear(b, x, &attention_k);
        *v = build_linear(b, x, &attention_v);
        return;
    }
    const struct split_attr cut = {
        {c->heads * c->head_dim, c->kv_heads * c->head_dim, c->kv_heads * c->head_dim}};
    struct tensor *out[OP_OUT] = {0};
    graph_call(b->g, &op_split, &cut, BIND({"x", build_linear(b, x, &attention_qkv)}), out);
    *q = out[0], *k = out[1], *v = out[2];
}

static struct tensor *clipped(struct build *b, struct tensor *x) {
    const struct limit_attr attr = {b->m->config.clip_qkv};
    return attr.limit > 0 ? graph_op(b->g, &op_clamp, &attr, BIND({"x", x})) : x;
}

/* x [N, D] -> [N, D] */
static struct tensor *trace(struct build *b, struct tensor *x) {
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
    q = turned(b, clipped(b, qk_norm(b, q, &attention_q_norm)), b->query_rope);
    k = turned(b, clipped(b, qk_norm(b, k, &attention_k_norm)), b->rope);
    v = clipped(b, v);
    k = build_cached(b, 0, k), v = build_cached(b, 1, v);
    struct tensor *o =
        graph_op(b->g, &op_attention, &attr,
                 BIND({"q", q}, {"k", k}, {"v", v}, {"begin", b->begin}, {"last", b->last},
                      {"sink", build_weight(b, &attention_sink)}, {"slopes", b->slopes},
                      {"pages", b->pages}, {"sequence", b->sequence}));
    return build_linear(b, o, &attention_o);
}

static int states(const struct config *c, i64 l, enum dtype d, bool latent,
                  struct state_spec out[LAYER_STATES]) {
    (void)l, (void)latent;
    out[0] = (struct state_spec){"keys", STATE_TOKEN, d, 1, c->kv_heads * c->head_dim};
    out[1] = (struct state_spec){"values", STATE_TOKEN, d, 1, c->kv_heads * c->head_dim};
    return 2;
}

/* Causal, the masked half left out: 6 * heads * head_dim * length, where a window bounds the
 * length. */
double attention_flops(const struct config *c, i64 l, i64 length) {
    const i64 window = c->layer[l].window;
    /* twice what a query sees of the keys: length without a window */
    const i64 span = window && window < length ? 2 * window : length;
    return 6.0 * (double)(c->heads * c->head_dim) * (double)i64_min(span, length);
}

const struct mixer mixer_attention = {.name = "attention",
                                      .types = attention_types,
                                      .config = read,
                                      .trace = trace,
                                      .states = states,
                                      .flops = attention_flops};
