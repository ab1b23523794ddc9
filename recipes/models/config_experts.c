/* config_experts.c: what a configuration says of mixtures of experts and of latent attention. */
#include "recipes/models/models_int.h"

#include <jansson.h>
#include <string.h>

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

int experts_read(struct config *c, const json_t *j, const char *where, struct err *e) {
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

bool experts_at(const json_t *j, i64 l, const char *where, struct err *e) {
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

int mla_read(struct config *c, const json_t *j, const char *where, struct err *e) {
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
    return e->code ? -1 : experts_read(c, j, where, e);
}
