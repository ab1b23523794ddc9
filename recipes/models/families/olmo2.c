/* olmo2.c: OLMo 2 (OLMo et al., 2024): norms on the branch outputs and none before them, RMSNorm
 * over the whole query and key projections, otherwise Llama. */
#include "recipes/models/models.h"

static const struct weight_rule weights[] = {
    {ROLE_EMBED, "model.embed_tokens.weight", DIM_V, DIM_D, ALWAYS},
    {ROLE_Q, "model.layers.%L.self_attn.q_proj.weight", DIM_HZ, DIM_D, ALWAYS},
    {ROLE_Q_BIAS, "model.layers.%L.self_attn.q_proj.bias", DIM_HZ, DIM_NONE, IF_ATTENTION_BIAS},
    {ROLE_K, "model.layers.%L.self_attn.k_proj.weight", DIM_KZ, DIM_D, ALWAYS},
    {ROLE_K_BIAS, "model.layers.%L.self_attn.k_proj.bias", DIM_KZ, DIM_NONE, IF_ATTENTION_BIAS},
    {ROLE_V, "model.layers.%L.self_attn.v_proj.weight", DIM_KZ, DIM_D, ALWAYS},
    {ROLE_V_BIAS, "model.layers.%L.self_attn.v_proj.bias", DIM_KZ, DIM_NONE, IF_ATTENTION_BIAS},
    {ROLE_O, "model.layers.%L.self_attn.o_proj.weight", DIM_D, DIM_HZ, ALWAYS},
    {ROLE_O_BIAS, "model.layers.%L.self_attn.o_proj.bias", DIM_D, DIM_NONE, IF_ATTENTION_BIAS},
    {ROLE_Q_NORM, "model.layers.%L.self_attn.q_norm.weight", DIM_HZ, DIM_NONE, ALWAYS},
    {ROLE_K_NORM, "model.layers.%L.self_attn.k_norm.weight", DIM_KZ, DIM_NONE, ALWAYS},
    {ROLE_POST_ATTENTION_NORM, "model.layers.%L.post_attention_layernorm.weight", DIM_D, DIM_NONE,
     ALWAYS},
    {ROLE_GATE, "model.layers.%L.mlp.gate_proj.weight", DIM_F, DIM_D, ALWAYS},
    {ROLE_UP, "model.layers.%L.mlp.up_proj.weight", DIM_F, DIM_D, ALWAYS},
    {ROLE_DOWN, "model.layers.%L.mlp.down_proj.weight", DIM_D, DIM_F, ALWAYS},
    {ROLE_POST_FFN_NORM, "model.layers.%L.post_feedforward_layernorm.weight", DIM_D, DIM_NONE,
     ALWAYS},
    {ROLE_FINAL_NORM, "model.norm.weight", DIM_D, DIM_NONE, ALWAYS},
    {ROLE_LM_HEAD, "lm_head.weight", DIM_V, DIM_D, IF_UNTIED},
    {0},
};

const struct family family_olmo2 = {
    .model_type = "olmo2",
    .architecture = "Olmo2ForCausalLM",
    .rms_norm_eps = 1e-5,
    .rope_theta = 10000,
    .qk_norm = QK_NORM_WHOLE,
    .block = {{"self_attn", mix_attention, ROLE_NONE, ROLE_POST_ATTENTION_NORM},
              {"mlp", mix_swiglu, ROLE_NONE, ROLE_POST_FFN_NORM}},
    .weights = weights,
};
