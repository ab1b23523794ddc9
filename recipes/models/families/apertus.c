/* apertus.c: Apertus (Swiss AI, 2025): pre-norm blocks with names of their own, a norm for each
 * head of queries and keys, and an MLP without gate whose activation, xIELU, has two trained
 * numbers. beta and eps are stored beside them, but every file has the same. */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule before[] = {
    {&norm_input, "model.layers.%L.attention_layernorm.weight", .rows = DIM_D},
    {0},
};
static const struct weight_rule mlp[] = {
    {&norm_pre_ffn, "model.layers.%L.feedforward_layernorm.weight", .rows = DIM_D},
    {&mlp_up, "model.layers.%L.mlp.up_proj.weight", .rows = DIM_F, .cols = DIM_D},
    {&mlp_down, "model.layers.%L.mlp.down_proj.weight", .rows = DIM_D, .cols = DIM_F},
    {&mlp_alpha_p, "model.layers.%L.mlp.act_fn.alpha_p", .rows = DIM_ONE},
    {&mlp_alpha_n, "model.layers.%L.mlp.act_fn.alpha_n", .rows = DIM_ONE},
    {&mlp_beta, "model.layers.%L.mlp.act_fn.beta", .rows = DIM_SCALAR},
    {&mlp_eps, "model.layers.%L.mlp.act_fn.eps", .rows = DIM_SCALAR},
    {0},
};
static const struct weight_rule *const weights[] = {
    rules_embed, before, rules_attention, rules_qk_norm, mlp, rules_top, NULL};
static const struct slot block[2] = {{"self_attn", MIXERS(&mixer_attention), &norm_input, NULL},
                                     {"mlp", MIXERS(&mixer_mlp), &norm_pre_ffn, NULL}};

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
