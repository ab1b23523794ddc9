/* glm.c: GLM-4 (`glm`, and `chatglm` as its authors' own code names keys and tensors) and
 * GLM-4-0414 (`glm4`): half of each head turns, in interleaved pairs; biases on queries, keys and
 * values; gate and up fused. 0414 has norms after the branches; there `post_attention_layernorm` is
 * the norm before the MLP. */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule after_attention[] = {
    {&norm_post_attention, "model.layers.%L.post_self_attn_layernorm.weight", .rows = DIM_D},
    {0},
};
static const struct weight_rule after_mlp[] = {
    {&norm_post_ffn, "model.layers.%L.post_mlp_layernorm.weight", .rows = DIM_D},
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

static const struct weight_rule chat[] = {
    {&top_embed, "transformer.embedding.word_embeddings.weight", .rows = DIM_V, .cols = DIM_D},
    {&norm_input, "transformer.encoder.layers.%L.input_layernorm.weight", .rows = DIM_D},
    {&attention_qkv, "transformer.encoder.layers.%L.self_attention.query_key_value.weight",
     .rows = DIM_QKV, .cols = DIM_D},
    {&attention_qkv, "transformer.encoder.layers.%L.self_attention.query_key_value.bias",
     .rows = DIM_QKV, .cols = DIM_BIAS, .when = HAS_QKV_BIAS},
    {&attention_o, "transformer.encoder.layers.%L.self_attention.dense.weight", .rows = DIM_D,
     .cols = DIM_HZ},
    {&norm_pre_ffn, "transformer.encoder.layers.%L.post_attention_layernorm.weight", .rows = DIM_D},
    {&glu_gate_up, "transformer.encoder.layers.%L.mlp.dense_h_to_4h.weight", .rows = DIM_2F,
     .cols = DIM_D},
    {&glu_down, "transformer.encoder.layers.%L.mlp.dense_4h_to_h.weight", .rows = DIM_D,
     .cols = DIM_F},
    {&top_norm, "transformer.encoder.final_layernorm.weight", .rows = DIM_D},
    {&top_head, "transformer.output_layer.weight", .rows = DIM_V, .cols = DIM_D,
     .when = HAS_UNTIED},
    {0},
};
static const struct weight_rule *const weights_chat[] = {chat, NULL};
static const struct slot block_chat[2] = {
    {"self_attention", MIXERS(&mixer_attention), &norm_input, NULL},
    {"mlp", MIXERS(&mixer_glu), &norm_pre_ffn, NULL}};

const struct family family_chatglm = {
    .model_type = "chatglm",
    .architecture = "ChatGLMForConditionalGeneration",
    .defaults = "{\"rms_norm_eps\": 1e-5, \"head_dim\": 128, \"partial_rotary_factor\": 0.5, "
                "\"add_qkv_bias\": false, \"rope_ratio\": 1.0}",
    .fixed = "{\"add_bias_linear\": false, \"rmsnorm\": true, \"post_layer_norm\": true, "
             "\"apply_residual_connection_post_layernorm\": false, "
             "\"multi_query_attention\": true, \"original_rope\": true}",
    .interleaved = true,
    .has = HAS_FFN_NORM,
    .flag = {{"add_qkv_bias", HAS_QKV_BIAS, 0}},
    .block = block_chat,
    .weights = weights_chat,
};
