/* experts.c: a mixture of experts in the place of an MLP.
 *
 * Tokens are sorted by expert, so that each expert's weights are read once and the order of every
 * sum is fixed (ops/route.c, ops/expert_linear.c). What all tokens see besides, the shared expert,
 * is an MLP like any other. */
#include "recipes/models/mixers/mixers.h"

#include <jansson.h>
#include <string.h>

const struct module_type experts_router = {"router", MODULE_ROUTER, &mixer_experts,
                                           .gguf.stem = "ffn_gate_inp", .gguf.precise = true};
const struct module_type experts_correction = {"correction", MODULE_FIXED, &mixer_experts,
                                               .gguf.stem = "exp_probs_b", .gguf.is_bias = true};
const struct module_type experts_gate_up = {"gate_up", MODULE_EXPERTS, &mixer_experts,
                                            .gguf.stem = "ffn_gate_exps|ffn_up_exps",
                                            .gguf.cut = true};
const struct module_type experts_down = {"down", MODULE_EXPERTS, &mixer_experts,
                                         .gguf.stem = "ffn_down_exps"};
const struct module_type experts_shared_gate = {"shared_gate", MODULE_LINEAR, &mixer_experts, 23,
                                                .gguf.stem = "ffn_gate_shexp"};
const struct module_type experts_shared_up = {"shared_up", MODULE_LINEAR, &mixer_experts, 24,
                                              .gguf.stem = "ffn_up_shexp"};
const struct module_type experts_shared_down = {"shared_down", MODULE_LINEAR, &mixer_experts, 25,
                                                .gguf.stem = "ffn_down_shexp"};
const struct module_type experts_shared_score = {
    "shared_score",      MODULE_LINEAR, &mixer_experts, 26, .gguf.stem = "ffn_gate_inp_shexp",
    .gguf.precise = true};

const struct weight_rule rules_experts[] = {
    {&experts_router, "model.layers.%L.mlp.gate.weight", .rows = DIM_E, .cols = DIM_D},
    {&experts_correction, "model.layers.%L.mlp.gate.e_score_correction_bias", .rows = DIM_E,
     .when = HAS_SIGMOID},
    {&experts_gate_up,
     "model.layers.%L.mlp.experts.%E.gate_proj.weight|"
     "model.layers.%L.mlp.experts.%E.up_proj.weight",
     .rows = DIM_2EF, .cols = DIM_D, .stacked = "model.layers.%L.mlp.experts.gate_up_proj"},
    {&experts_down, "model.layers.%L.mlp.experts.%E.down_proj.weight", .rows = DIM_D,
     .cols = DIM_EF, .stacked = "model.layers.%L.mlp.experts.down_proj"},
    {0},
};
const struct weight_rule rules_shared_expert[] = {
    {&experts_shared_gate, "model.layers.%L.mlp.shared_experts.gate_proj.weight", .rows = DIM_SF,
     .cols = DIM_D, .when = HAS_SHARED},
    {&experts_shared_up, "model.layers.%L.mlp.shared_experts.up_proj.weight", .rows = DIM_SF,
     .cols = DIM_D, .when = HAS_SHARED},
    {&experts_shared_down, "model.layers.%L.mlp.shared_experts.down_proj.weight", .rows = DIM_D,
     .cols = DIM_SF, .when = HAS_SHARED},
    {0},
};

/* The limits of the operation `route`. */
enum { MOST_CHOSEN = 32, MOST_GROUPS = 64 };

static int groups_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    struct route_attr *r = &c->route;
    const char *method = json_text(j, "topk_method", "", where, e);
    r->groups = json_i64(j, "n_group", 1, where, e);
    r->top_groups = json_i64(j, "topk_group", 1, where, e);
    if (e->code) return -1;
    if (!strcmp(method, "greedy")) r->groups = r->top_groups = 1;
    if (r->groups < 1 || r->groups > MOST_GROUPS || c->experts % r->groups || r->top_groups < 1 ||
        r->top_groups > r->groups)
        return err_input(e, "%s: %lld of %lld groups of %lld experts cannot be chosen", where,
                         (long long)r->top_groups, (long long)r->groups, (long long)c->experts);
    if (r->top_k > c->experts / r->groups * r->top_groups)
        return err_input(e, "%s: 'topk_group' leaves %lld experts, of which %lld are to be chosen",
                         where, (long long)(c->experts / r->groups * r->top_groups),
                         (long long)r->top_k);
    return 0;
}

static int read(struct config *c, const json_t *j, const char *where, struct err *e) {
    const i64 most = 1 << 22, width = c->intermediate_size;
    c->experts = config_size(j, "num_experts", -1, MOST_EXPERTS, where, e);
    c->experts_per_token =
        config_size(j, "num_experts_per_tok", -1, i64_min(c->experts, MOST_CHOSEN), where, e);
    c->expert_size = config_size(j, "moe_intermediate_size", width, most, where, e);
    const i64 shared = json_i64(j, "n_shared_experts", 0, where, e);
    if (!e->code && (shared < 0 || shared > 1024))
        return err_input(e, "%s: 'n_shared_experts' is %lld; expected 0 to 1024", where,
                         (long long)shared);
    c->shared_size = shared * c->expert_size;
    if (json_object_get(j, "shared_expert_intermediate_size"))
        c->shared_size = config_size(j, "shared_expert_intermediate_size", -1, most, where, e);
    if (c->shared_size) c->has |= HAS_SHARED;
    c->route = (struct route_attr){
        .top_k = c->experts_per_token,
        .score = c->has & HAS_SIGMOID ? ROUTE_SIGMOID : ROUTE_SOFTMAX,
        .renorm = json_bool(j, "norm_topk_prob", c->has & HAS_RENORM, where, e),
        .scale = json_f64(j, "routed_scaling_factor", 1, where, e),
    };
    c->balanced = json_bool(j, "output_router_logits", false, where, e);
    c->aux_coef = json_f64(j, "router_aux_loss_coef", -1, where, e);
    if (!e->code && json_object_get(j, "router_aux_loss_coef") &&
        !(c->aux_coef >= 0 && c->aux_coef <= 1e6))
        return err_input(e, "%s: 'router_aux_loss_coef' is %g; expected 0 or more", where,
                         c->aux_coef);
    c->glu_limit = json_f64(j, "swiglu_limit", 0, where, e);
    c->glu_alpha = json_f64(j, "swiglu_alpha", 1.702, where, e);
    return e->code ? -1 : groups_read(c, j, where, e);
}

static bool at(const json_t *j, i64 l, const char *where, struct err *e) {
    const json_t *dense = json_object_get(j, "mlp_only_layers");
    const i64 step = json_i64(j, "decoder_sparse_step", 1, where, e),
              first = json_i64(j, "first_k_dense_replace", 0, where, e);
    if (!e->code && step < 1)
        return err_input(e, "%s: 'decoder_sparse_step' is %lld; expected 1 or more", where,
                         (long long)step);
    for (size_t i = 0; i < json_array_size(dense); i++)
        if (json_integer_value(json_array_get(dense, i)) == l) return false;
    return !e->code && l >= first && (l + 1) % step == 0;
}

/* ---- the trace */

/* The sorted rows, as the operations take them. */
struct sorted {
    struct tensor *weight, *offset, *order, *place;
};

static struct sorted routed(struct build *b, struct tensor *x) {
    const struct config *c = &b->m->config;
    const struct plan_attr plan = {c->experts};
    struct sorted s;
    struct tensor *out[OP_OUT] = {0};
    graph_call(b->g, &op_route, &c->route,
               BIND({"logits", build_linear(b, x, &experts_router)},
                    {"bias", build_weight(b, &experts_correction)}, {"balance", balance_input(b)}),
               out);
    balance_keep(b, out[1], out[2]);
    s.weight = out[0];
    graph_call(b->g, &op_expert_plan, &plan, BIND({"index", out[1]}), out);
    s.offset = out[0], s.order = out[1], s.place = out[2];
    return s;
}

/* rows [M, in] -> [M, out], each by its expert. */
static struct tensor *expert_linear(struct build *b, struct tensor *rows,
                                    const struct module_type *type, const struct sorted *s) {
    const struct module *m = build_module(b, type);
    const struct tracing t = build_tracing(b);
    const struct lora_pair *lora = module_adapter(&t, m);
    const struct lora_attr attr = {lora->scale};
    return graph_op(b->g, &op_expert_linear, &attr,
                    BIND({"x", rows}, {"w", param_tensor(b->g, m->weight)}, {"offset", s->offset},
                         {"bias", param_tensor(b->g, m->bias)}, {"a", param_tensor(b->g, lora->a)},
                         {"b", param_tensor(b->g, lora->b)}));
}

static struct tensor *glu(struct build *b, struct tensor *gate, struct tensor *up) {
    const struct config *c = &b->m->config;
    const struct act_attr attr = {c->glu_limit > 0 ? ACT_CLAMPED : ACT_SILU, c->glu_limit,
                                  c->glu_alpha};
    return graph_op(b->g, &op_glu, &attr, BIND({"gate", gate}, {"up", up}));
}

static struct tensor *shared(struct build *b, struct tensor *x) {
    struct tensor *gate = build_linear(b, x, &experts_shared_gate),
                  *up = build_linear(b, x, &experts_shared_up);
    struct tensor *y = build_linear(b, glu(b, gate, up), &experts_shared_down);
    if (!build_module(b, &experts_shared_score)) return y;
    return graph_op(b->g, &op_gate_mul, NULL,
                    BIND({"x", y}, {"g", build_linear(b, x, &experts_shared_score)}));
}

/* x [N, D] -> [N, D] */
static struct tensor *trace(struct build *b, struct tensor *x) {
    const struct config *c = &b->m->config;
    const struct split_attr halves = {{c->expert_size, c->expert_size, 0}};
    const struct sorted s = routed(b, x);
    struct tensor *out[OP_OUT] = {0};
    struct tensor *rows = graph_op(b->g, &op_expert_gather, NULL,
                                   BIND({"x", x}, {"order", s.order}, {"place", s.place}));
    rows = expert_linear(b, rows, &experts_gate_up, &s);
    graph_call(b->g, &op_split, &halves, BIND({"x", rows}), out);
    rows = expert_linear(b, glu(b, out[0], out[1]), &experts_down, &s);
    struct tensor *y = graph_op(
        b->g, &op_expert_combine, NULL,
        BIND({"rows", rows}, {"order", s.order}, {"place", s.place}, {"weight", s.weight}));
    if (!(c->has & HAS_SHARED)) return y;
    return graph_op(b->g, &op_add, NULL, BIND({"a", y}, {"b", shared(b, x)}));
}

const struct mixer mixer_experts = {.name = "experts", .config = read, .at = at, .trace = trace};
