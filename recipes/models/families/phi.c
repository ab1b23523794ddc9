/* phi.c: Phi-1, 1.5 and 2 (LayerNorm, attention and MLP on one norm, biases everywhere, the LM head
 * too) and Phi-3, 3.5 and 4 (Llama with fused projections and longrope). */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule phi[] = {
    {&attention_q, "model.layers.%L.self_attn.q_proj.weight", .rows = DIM_HZ, .cols = DIM_D},
    {&attention_q, "model.layers.%L.self_attn.q_proj.bias", .rows = DIM_HZ, .cols = DIM_BIAS},
    {&attention_k, "model.layers.%L.self_attn.k_proj.weight", .rows = DIM_KZ, .cols = DIM_D},
    {&attention_k, "model.layers.%L.self_attn.k_proj.bias", .rows = DIM_KZ, .cols = DIM_BIAS},
    {&attention_v, "model.layers.%L.self_attn.v_proj.weight", .rows = DIM_KZ, .cols = DIM_D},
    {&attention_v, "model.layers.%L.self_attn.v_proj.bias", .rows = DIM_KZ, .cols = DIM_BIAS},
    {&attention_o, "model.layers.%L.self_attn.dense.weight", .rows = DIM_D, .cols = DIM_HZ},
    {&attention_o, "model.layers.%L.self_attn.dense.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&attention_q_norm, "model.layers.%L.self_attn.q_layernorm.weight", .rows = DIM_Z,
     .when = HAS_QK_NORM},
    {&attention_q_norm, "model.layers.%L.self_attn.q_layernorm.bias", .rows = DIM_Z,
     .cols = DIM_BIAS, .when = HAS_QK_NORM},
    {&attention_k_norm, "model.layers.%L.self_attn.k_layernorm.weight", .rows = DIM_Z,
     .when = HAS_QK_NORM},
    {&attention_k_norm, "model.layers.%L.self_attn.k_layernorm.bias", .rows = DIM_Z,
     .cols = DIM_BIAS, .when = HAS_QK_NORM},
    {&mlp_up, "model.layers.%L.mlp.fc1.weight", .rows = DIM_F, .cols = DIM_D},
    {&mlp_up, "model.layers.%L.mlp.fc1.bias", .rows = DIM_F, .cols = DIM_BIAS},
    {&mlp_down, "model.layers.%L.mlp.fc2.weight", .rows = DIM_D, .cols = DIM_F},
    {&mlp_down, "model.layers.%L.mlp.fc2.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&top_norm, "model.final_layernorm.weight", .rows = DIM_D},
    {&top_norm, "model.final_layernorm.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&top_head, "lm_head.weight", .rows = DIM_V, .cols = DIM_D, .when = HAS_UNTIED},
    {&top_head, "lm_head.bias", .rows = DIM_V, .cols = DIM_BIAS},
    {0},
};
static const struct weight_rule *const weights_phi[] = {rules_embed, rules_input_norm, phi, NULL};
static const struct slot block_phi[2] = {{"self_attn", MIXERS(&mixer_attention), &norm_input, NULL},
                                         {"mlp", MIXERS(&mixer_mlp), NULL, NULL}};

const struct family family_phi = {
    .model_type = "phi",
    .architecture = "PhiForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-5, \"hidden_act\": \"gelu_new\", "
                "\"partial_rotary_factor\": 0.5, \"qk_layernorm\": false}",
    .norm = NORM_LAYER,
    .qk_norm = QK_NORM_HEAD,
    .has = HAS_NORM_BIAS | HAS_PARALLEL,
    .flag = {{"qk_layernorm", HAS_QK_NORM, 0}},
    .block = block_phi,
    .weights = weights_phi,
};

static const struct weight_rule qkv[] = {
    {&attention_qkv, "model.layers.%L.self_attn.qkv_proj.weight", .rows = DIM_QKV, .cols = DIM_D},
    {&attention_o, "model.layers.%L.self_attn.o_proj.weight", .rows = DIM_D, .cols = DIM_HZ},
    {0},
};
static const struct weight_rule *const weights_phi3[] = {
    rules_embed, rules_input_norm, qkv, rules_ffn_norm, rules_gate_up, rules_top, NULL};

const struct family family_phi3 = {
    .model_type = "phi3",
    .architecture = "Phi3ForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-5, \"sliding_window\": null, "
                "\"max_position_embeddings\": 4096, \"original_max_position_embeddings\": 4096}",
    .window = WINDOW_ALL,
    .has = HAS_FFN_NORM,
    .block = block_pre,
    .weights = weights_phi3,
};
