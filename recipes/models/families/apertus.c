/* apertus.c: Apertus (Swiss AI, 2025): pre-norm blocks with names of their own, a norm for each
 * head of queries and keys, and an MLP without gate whose activation, xIELU, has two trained
 * numbers. beta and eps are stored beside them, but every file has the same. */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule before[] = {
    {ROLE_INPUT_NORM, "model.layers.%L.attention_layernorm.weight", .rows = DIM_D},
    {0},
};
static const struct weight_rule mlp[] = {
    {ROLE_PRE_FFN_NORM, "model.layers.%L.feedforward_layernorm.weight", .rows = DIM_D},
    {ROLE_UP, "model.layers.%L.mlp.up_proj.weight", .rows = DIM_F, .cols = DIM_D},
    {ROLE_DOWN, "model.layers.%L.mlp.down_proj.weight", .rows = DIM_D, .cols = DIM_F},
    {ROLE_ALPHA_P, "model.layers.%L.mlp.act_fn.alpha_p", .rows = DIM_ONE},
    {ROLE_ALPHA_N, "model.layers.%L.mlp.act_fn.alpha_n", .rows = DIM_ONE},
    {ROLE_BETA, "model.layers.%L.mlp.act_fn.beta", .rows = DIM_SCALAR},
    {ROLE_EPS, "model.layers.%L.mlp.act_fn.eps", .rows = DIM_SCALAR},
    {0},
};
static const struct weight_rule *const weights[] = {
    rules_embed, before, rules_attention, rules_qk_norm, mlp, rules_top, NULL};
static const struct slot block[2] = {
    {"self_attn", MIXERS(&mixer_attention), ROLE_INPUT_NORM, ROLE_NONE},
    {"mlp", MIXERS(&mixer_mlp), ROLE_PRE_FFN_NORM, ROLE_NONE}};

const struct family family_apertus = {
    .model_type = "apertus",
    .architecture = "ApertusForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-5, \"rope_theta\": 1.2e7, "
                "\"attention_bias\": false, \"max_position_embeddings\": 65536}",
    .fixed = "{\"hidden_act\": \"xielu\", \"qk_norm\": true, \"post_norm\": false, "
             "\"mlp_bias\": false}",
    .qk_norm = QK_NORM_HEAD,
    .has = HAS_FFN_NORM | HAS_QK_NORM | HAS_XIELU,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .block = block,
    .weights = weights,
};
