/* common.c: groups of weight rules that families share besides those of mixers, and blocks. A
 * family's table names the groups in the order of its parameters; what is not common stands in its
 * own file. */
#include "recipes/models/mixers/mixers.h"

const struct weight_rule rules_embed[] = {
    {&top_embed, "model.embed_tokens.weight", .rows = DIM_V, .cols = DIM_D},
    {0},
};
const struct weight_rule rules_input_norm[] = {
    {&norm_input, "model.layers.%L.input_layernorm.weight", .rows = DIM_D},
    {&norm_input, "model.layers.%L.input_layernorm.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_NORM_BIAS},
    {0},
};
const struct weight_rule rules_ffn_norm[] = {
    {&norm_pre_ffn, "model.layers.%L.post_attention_layernorm.weight", .rows = DIM_D,
     .when = HAS_FFN_NORM},
    {&norm_pre_ffn, "model.layers.%L.post_attention_layernorm.bias", .rows = DIM_D,
     .cols = DIM_BIAS, .when = HAS_FFN_NORM | HAS_NORM_BIAS},
    {0},
};
const struct weight_rule rules_post_attention_norm[] = {
    {&norm_post_attention, "model.layers.%L.post_attention_layernorm.weight", .rows = DIM_D},
    {0},
};
const struct weight_rule rules_post_ffn_norm[] = {
    {&norm_post_ffn, "model.layers.%L.post_feedforward_layernorm.weight", .rows = DIM_D},
    {0},
};
const struct weight_rule rules_top[] = {
    {&top_norm, "model.norm.weight", .rows = DIM_D},
    {&top_norm, "model.norm.bias", .rows = DIM_D, .cols = DIM_BIAS, .when = HAS_NORM_BIAS},
    {&top_head, "lm_head.weight", .rows = DIM_V, .cols = DIM_D, .when = HAS_UNTIED},
    {0},
};

const struct weight_rule *const weights_llama[] = {
    rules_embed, rules_input_norm, rules_attention, rules_ffn_norm, rules_glu, rules_top, NULL};
const struct weight_rule *const weights_qwen3[] = {
    rules_embed,    rules_input_norm, rules_attention, rules_qk_norm,
    rules_ffn_norm, rules_glu,        rules_top,       NULL};

const struct slot block_pre[2] = {{"self_attn", MIXERS(&mixer_attention), &norm_input, NULL},
                                  {"mlp", MIXERS(&mixer_glu), &norm_pre_ffn, NULL}};
const struct slot block_post[2] = {
    {"self_attn", MIXERS(&mixer_attention), NULL, &norm_post_attention},
    {"mlp", MIXERS(&mixer_glu), NULL, &norm_post_ffn}};
const struct slot block_sandwich[2] = {
    {"self_attn", MIXERS(&mixer_attention), &norm_input, &norm_post_attention},
    {"mlp", MIXERS(&mixer_glu), &norm_pre_ffn, &norm_post_ffn}};
