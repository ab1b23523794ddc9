/* common.c: groups of weight rules that families share, and the list of families. A family's table
 * names the groups in the order of its parameters; what is not common stands in its own file. */
#include "recipes/models/mixers/mixers.h"

const struct weight_rule rules_embed[] = {
    {ROLE_EMBED, "model.embed_tokens.weight", .rows = DIM_V, .cols = DIM_D},
    {0},
};
const struct weight_rule rules_input_norm[] = {
    {ROLE_INPUT_NORM, "model.layers.%L.input_layernorm.weight", .rows = DIM_D},
    {ROLE_INPUT_NORM, "model.layers.%L.input_layernorm.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_NORM_BIAS},
    {0},
};
const struct weight_rule rules_attention[] = {
    {ROLE_Q, "model.layers.%L.self_attn.q_proj.weight", .rows = DIM_HZ, .cols = DIM_D},
    {ROLE_Q, "model.layers.%L.self_attn.q_proj.bias", .rows = DIM_HZ, .cols = DIM_BIAS,
     .when = HAS_QKV_BIAS},
    {ROLE_K, "model.layers.%L.self_attn.k_proj.weight", .rows = DIM_KZ, .cols = DIM_D},
    {ROLE_K, "model.layers.%L.self_attn.k_proj.bias", .rows = DIM_KZ, .cols = DIM_BIAS,
     .when = HAS_QKV_BIAS},
    {ROLE_V, "model.layers.%L.self_attn.v_proj.weight", .rows = DIM_KZ, .cols = DIM_D},
    {ROLE_V, "model.layers.%L.self_attn.v_proj.bias", .rows = DIM_KZ, .cols = DIM_BIAS,
     .when = HAS_QKV_BIAS},
    {ROLE_O, "model.layers.%L.self_attn.o_proj.weight", .rows = DIM_D, .cols = DIM_HZ},
    {ROLE_O, "model.layers.%L.self_attn.o_proj.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_O_BIAS},
    {0},
};
const struct weight_rule rules_qk_norm_whole[] = {
    {ROLE_Q_NORM, "model.layers.%L.self_attn.q_norm.weight", .rows = DIM_HZ},
    {ROLE_K_NORM, "model.layers.%L.self_attn.k_norm.weight", .rows = DIM_KZ},
    {0},
};
const struct weight_rule rules_qk_norm[] = {
    {ROLE_Q_NORM, "model.layers.%L.self_attn.q_norm.weight", .rows = DIM_Z, .when = HAS_QK_NORM},
    {ROLE_K_NORM, "model.layers.%L.self_attn.k_norm.weight", .rows = DIM_Z, .when = HAS_QK_NORM},
    {0},
};
const struct weight_rule rules_ffn_norm[] = {
    {ROLE_PRE_FFN_NORM, "model.layers.%L.post_attention_layernorm.weight", .rows = DIM_D,
     .when = HAS_FFN_NORM},
    {ROLE_PRE_FFN_NORM, "model.layers.%L.post_attention_layernorm.bias", .rows = DIM_D,
     .cols = DIM_BIAS, .when = HAS_FFN_NORM | HAS_NORM_BIAS},
    {0},
};
const struct weight_rule rules_post_attention_norm[] = {
    {ROLE_POST_ATTENTION_NORM, "model.layers.%L.post_attention_layernorm.weight", .rows = DIM_D},
    {0},
};
const struct weight_rule rules_post_ffn_norm[] = {
    {ROLE_POST_FFN_NORM, "model.layers.%L.post_feedforward_layernorm.weight", .rows = DIM_D},
    {0},
};
const struct weight_rule rules_glu[] = {
    {ROLE_GATE, "model.layers.%L.mlp.gate_proj.weight", .rows = DIM_F, .cols = DIM_D,
     .when = HAS_DENSE},
    {ROLE_GATE, "model.layers.%L.mlp.gate_proj.bias", .rows = DIM_F, .cols = DIM_BIAS,
     .when = HAS_DENSE | HAS_MLP_BIAS},
    {ROLE_UP, "model.layers.%L.mlp.up_proj.weight", .rows = DIM_F, .cols = DIM_D,
     .when = HAS_DENSE},
    {ROLE_UP, "model.layers.%L.mlp.up_proj.bias", .rows = DIM_F, .cols = DIM_BIAS,
     .when = HAS_DENSE | HAS_MLP_BIAS},
    {ROLE_DOWN, "model.layers.%L.mlp.down_proj.weight", .rows = DIM_D, .cols = DIM_F,
     .when = HAS_DENSE},
    {ROLE_DOWN, "model.layers.%L.mlp.down_proj.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_DENSE | HAS_MLP_BIAS},
    {0},
};
const struct weight_rule rules_gate_up[] = {
    {ROLE_GATE_UP, "model.layers.%L.mlp.gate_up_proj.weight", .rows = DIM_2F, .cols = DIM_D,
     .when = HAS_DENSE},
    {ROLE_DOWN, "model.layers.%L.mlp.down_proj.weight", .rows = DIM_D, .cols = DIM_F,
     .when = HAS_DENSE},
    {0},
};
const struct weight_rule rules_experts[] = {
    {ROLE_ROUTER, "model.layers.%L.mlp.gate.weight", .rows = DIM_E, .cols = DIM_D,
     .when = HAS_EXPERTS},
    {ROLE_CORRECTION, "model.layers.%L.mlp.gate.e_score_correction_bias", .rows = DIM_E,
     .when = HAS_EXPERTS | HAS_SIGMOID},
    {ROLE_EXPERTS_GATE_UP,
     "model.layers.%L.mlp.experts.%E.gate_proj.weight|"
     "model.layers.%L.mlp.experts.%E.up_proj.weight",
     .rows = DIM_2EF, .cols = DIM_D, .when = HAS_EXPERTS,
     .stacked = "model.layers.%L.mlp.experts.gate_up_proj"},
    {ROLE_EXPERTS_DOWN, "model.layers.%L.mlp.experts.%E.down_proj.weight", .rows = DIM_D,
     .cols = DIM_EF, .when = HAS_EXPERTS, .stacked = "model.layers.%L.mlp.experts.down_proj"},
    {ROLE_SHARED_GATE, "model.layers.%L.mlp.shared_experts.gate_proj.weight", .rows = DIM_SF,
     .cols = DIM_D, .when = HAS_EXPERTS | HAS_SHARED},
    {ROLE_SHARED_UP, "model.layers.%L.mlp.shared_experts.up_proj.weight", .rows = DIM_SF,
     .cols = DIM_D, .when = HAS_EXPERTS | HAS_SHARED},
    {ROLE_SHARED_DOWN, "model.layers.%L.mlp.shared_experts.down_proj.weight", .rows = DIM_D,
     .cols = DIM_SF, .when = HAS_EXPERTS | HAS_SHARED},
    {0},
};
const struct weight_rule rules_top[] = {
    {ROLE_FINAL_NORM, "model.norm.weight", .rows = DIM_D},
    {ROLE_FINAL_NORM, "model.norm.bias", .rows = DIM_D, .cols = DIM_BIAS, .when = HAS_NORM_BIAS},
    {ROLE_LM_HEAD, "lm_head.weight", .rows = DIM_V, .cols = DIM_D, .when = HAS_UNTIED},
    {0},
};

const struct weight_rule *const weights_llama[] = {
    rules_embed, rules_input_norm, rules_attention, rules_ffn_norm, rules_glu, rules_top, NULL};
const struct weight_rule *const weights_qwen3[] = {
    rules_embed,    rules_input_norm, rules_attention, rules_qk_norm,
    rules_ffn_norm, rules_glu,        rules_top,       NULL};

const struct slot block_pre[2] = {
    {"self_attn", MIXERS(&mixer_attention), ROLE_INPUT_NORM, ROLE_NONE},
    {"mlp", MIXERS(&mixer_glu), ROLE_PRE_FFN_NORM, ROLE_NONE}};
const struct slot block_post[2] = {
    {"self_attn", MIXERS(&mixer_attention), ROLE_NONE, ROLE_POST_ATTENTION_NORM},
    {"mlp", MIXERS(&mixer_glu), ROLE_NONE, ROLE_POST_FFN_NORM}};
const struct slot block_sandwich[2] = {
    {"self_attn", MIXERS(&mixer_attention), ROLE_INPUT_NORM, ROLE_POST_ATTENTION_NORM},
    {"mlp", MIXERS(&mixer_glu), ROLE_PRE_FFN_NORM, ROLE_POST_FFN_NORM}};

extern const struct family family_llama, family_mistral, family_ministral, family_ministral3,
    family_qwen2, family_qwen3, family_gemma, family_gemma2, family_gemma3, family_phi, family_phi3,
    family_olmo, family_olmo2, family_olmo3, family_apertus, family_smollm3, family_stablelm,
    family_glm, family_glm4, family_chatglm, family_gpt2, family_gpt_neox, family_falcon,
    family_bloom, family_mixtral, family_qwen2_moe, family_qwen3_moe, family_olmoe, family_gpt_oss,
    family_glm4_moe, family_deepseek_v2, family_deepseek_v3, family_kimi_k2;
const struct family *const families[] = {
    &family_llama,    &family_mistral,   &family_ministral,   &family_ministral3,
    &family_qwen2,    &family_qwen3,     &family_gemma,       &family_gemma2,
    &family_gemma3,   &family_phi,       &family_phi3,        &family_olmo,
    &family_olmo2,    &family_olmo3,     &family_apertus,     &family_smollm3,
    &family_stablelm, &family_glm,       &family_glm4,        &family_chatglm,
    &family_gpt2,     &family_gpt_neox,  &family_falcon,      &family_bloom,
    &family_mixtral,  &family_qwen2_moe, &family_qwen3_moe,   &family_olmoe,
    &family_gpt_oss,  &family_glm4_moe,  &family_deepseek_v2, &family_deepseek_v3,
    &family_kimi_k2,
};
const int family_count = COUNT(families);
