/* neox.c: GPT-NeoX, Pythia, RedPajama-INCITE: LayerNorm, attention and MLP on norms of their own,
 * of the same stream or one after the other; fused query, key and value go by head. */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule rules[] = {
    {&top_embed, "gpt_neox.embed_in.weight", .rows = DIM_V, .cols = DIM_D},
    {&norm_input, "gpt_neox.layers.%L.input_layernorm.weight", .rows = DIM_D},
    {&norm_input, "gpt_neox.layers.%L.input_layernorm.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&attention_qkv, "gpt_neox.layers.%L.attention.query_key_value.weight", .rows = DIM_QKV,
     .cols = DIM_D, .layout = LAYOUT_QKV_GROUPS},
    {&attention_qkv, "gpt_neox.layers.%L.attention.query_key_value.bias", .rows = DIM_QKV,
     .cols = DIM_BIAS, .when = HAS_QKV_BIAS, .layout = LAYOUT_QKV_GROUPS},
    {&attention_o, "gpt_neox.layers.%L.attention.dense.weight", .rows = DIM_D, .cols = DIM_HZ},
    {&attention_o, "gpt_neox.layers.%L.attention.dense.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_O_BIAS},
    {&norm_pre_ffn, "gpt_neox.layers.%L.post_attention_layernorm.weight", .rows = DIM_D},
    {&norm_pre_ffn, "gpt_neox.layers.%L.post_attention_layernorm.bias", .rows = DIM_D,
     .cols = DIM_BIAS},
    {&mlp_up, "gpt_neox.layers.%L.mlp.dense_h_to_4h.weight", .rows = DIM_F, .cols = DIM_D},
    {&mlp_up, "gpt_neox.layers.%L.mlp.dense_h_to_4h.bias", .rows = DIM_F, .cols = DIM_BIAS},
    {&mlp_down, "gpt_neox.layers.%L.mlp.dense_4h_to_h.weight", .rows = DIM_D, .cols = DIM_F},
    {&mlp_down, "gpt_neox.layers.%L.mlp.dense_4h_to_h.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&top_norm, "gpt_neox.final_layer_norm.weight", .rows = DIM_D},
    {&top_norm, "gpt_neox.final_layer_norm.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&top_head, "embed_out.weight", .rows = DIM_V, .cols = DIM_D, .when = HAS_UNTIED},
    {0},
};
static const struct weight_rule *const weights[] = {rules, NULL};
static const struct slot block[2] = {{"attention", MIXERS(&mixer_attention), &norm_input, NULL},
                                     {"mlp", MIXERS(&mixer_mlp), &norm_pre_ffn, NULL}};

const struct family family_gpt_neox = {
    .model_type = "gpt_neox",
    .architecture = "GPTNeoXForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-5, \"hidden_act\": \"gelu\", "
                "\"partial_rotary_factor\": 0.25, \"use_parallel_residual\": true, "
                "\"attention_bias\": true}",
    .norm = NORM_LAYER,
    .multi_head = true,
    .mlp_4x = true,
    .has = HAS_FFN_NORM,
    .flag = {{"use_parallel_residual", HAS_PARALLEL, 0},
             {"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .block = block,
    .weights = weights,
};
