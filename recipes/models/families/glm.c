/* glm.c: GLM-4 (`glm`) and GLM-4-0414 (`glm4`): half of each head turns, in interleaved pairs;
 * biases on queries, keys and values; gate and up fused. 0414 has norms after the branches; there
 * `post_attention_layernorm` is the norm before the MLP. */
#include "recipes/models/models.h"

static const struct weight_rule after_attention[] = {
    {ROLE_POST_ATTENTION_NORM, "model.layers.%L.post_self_attn_layernorm.weight", .rows = DIM_D},
    {0},
};
static const struct weight_rule after_mlp[] = {
    {ROLE_POST_FFN_NORM, "model.layers.%L.post_mlp_layernorm.weight", .rows = DIM_D},
    {0},
};
static const struct weight_rule *const weights_glm[] = {
    rules_embed, rules_input_norm, rules_attention, rules_ffn_norm, rules_gate_up, rules_top, NULL};
static const struct weight_rule *const weights_glm4[] = {
    rules_embed,     rules_input_norm, rules_attention,
    after_attention, rules_ffn_norm,   rules_gate_up,
    after_mlp,       rules_top,        NULL};

static const char defaults[] =
    "{\"rms_norm_eps\": 1.5625e-07, \"head_dim\": 128, \"num_key_value_heads\": 2, "
    "\"partial_rotary_factor\": 0.5, \"attention_bias\": true, "
    "\"max_position_embeddings\": 131072}";

const struct family family_glm = {
    .model_type = "glm",
    .architecture = "GlmForCausalLM",
    .defaults = defaults,
    .interleaved = true,
    .has = HAS_FFN_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS, 0}},
    .block = block_pre,
    .weights = weights_glm,
};

const struct family family_glm4 = {
    .model_type = "glm4",
    .architecture = "Glm4ForCausalLM",
    .defaults = defaults,
    .interleaved = true,
    .has = HAS_FFN_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS, 0}},
    .block = block_sandwich,
    .weights = weights_glm4,
};
