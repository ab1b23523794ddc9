/* experts.c: families with mixtures of experts and ordinary attention: Mixtral, Qwen 2 and 3 MoE,
 * OLMoE, GPT-OSS, GLM 4.5 and 4.6. Aside from the experts each is its dense relative. Their files
 * hold a tensor for each expert, or, as transformers 5 saves them, one for all.
 *
 * A configuration that says `output_router_logits` asks for the balancing loss (balance.c), but for
 * GLM's, which has none in transformers. */
#include "recipes/models/mixers/mixers.h"

#define FIXED    "{\"hidden_act\": \"silu\""
#define BALANCED "{\"output_router_logits\": false, \"router_aux_loss_coef\": "

static const struct slot block_experts[2] = {
    {"self_attn", MIXERS(&mixer_attention), &norm_input, NULL},
    {"mlp", MIXERS(&mixer_glu, &mixer_experts), &norm_pre_ffn, NULL}};

/* ---- Mixtral: the softmax of the chosen weighs them */
static const struct weight_rule mixtral_experts[] = {
    {&experts_router, "model.layers.%L.block_sparse_moe.gate.weight", .rows = DIM_E, .cols = DIM_D,
     .stacked = "model.layers.%L.mlp.gate.weight"},
    {&experts_gate_up,
     "model.layers.%L.block_sparse_moe.experts.%E.w1.weight|"
     "model.layers.%L.block_sparse_moe.experts.%E.w3.weight",
     .rows = DIM_2EF, .cols = DIM_D, .stacked = "model.layers.%L.mlp.experts.gate_up_proj"},
    {&experts_down, "model.layers.%L.block_sparse_moe.experts.%E.w2.weight", .rows = DIM_D,
     .cols = DIM_EF, .stacked = "model.layers.%L.mlp.experts.down_proj"},
    {0},
};
static const struct weight_rule *const mixtral[] = {
    rules_embed, rules_input_norm, rules_attention, rules_ffn_norm, mixtral_experts, rules_top,
    NULL};
const struct family family_mixtral = {
    .model_type = "mixtral",
    .architecture = "MixtralForCausalLM",
    .defaults = BALANCED
    "0.001, \"num_experts\": 8, \"num_experts_per_tok\": 2, \"num_key_value_heads\": 8, "
    "\"sliding_window\": null, \"rope_theta\": 1e6, "
    "\"max_position_embeddings\": 131072}",
    .fixed = FIXED ", \"router_jitter_noise\": 0}",
    .window = WINDOW_ALL,
    .has = HAS_FFN_NORM | HAS_RENORM,
    .block = block_experts,
    .weights = mixtral,
};

/* ---- Qwen 2 MoE: a shared expert, weighed by a sigmoid of its own; Qwen 3 MoE: none */
static const struct weight_rule qwen2_shared[] = {
    {&experts_shared_gate, "model.layers.%L.mlp.shared_expert.gate_proj.weight", .rows = DIM_SF,
     .cols = DIM_D},
    {&experts_shared_up, "model.layers.%L.mlp.shared_expert.up_proj.weight", .rows = DIM_SF,
     .cols = DIM_D},
    {&experts_shared_down, "model.layers.%L.mlp.shared_expert.down_proj.weight", .rows = DIM_D,
     .cols = DIM_SF},
    {&experts_shared_score, "model.layers.%L.mlp.shared_expert_gate.weight", .rows = DIM_ONE,
     .cols = DIM_D},
    {0},
};
static const struct weight_rule *const qwen2_moe[] = {
    rules_embed,    rules_input_norm, rules_attention,
    rules_ffn_norm, rules_glu,        rules_experts,
    qwen2_shared,   rules_top,        NULL};
static const struct weight_rule *const qwen3_moe[] = {
    rules_embed, rules_input_norm, rules_attention, rules_qk_norm, rules_ffn_norm,
    rules_glu,   rules_experts,    rules_top,       NULL};
#define QWEN                                                                                       \
    "\"rms_norm_eps\": 1e-6, \"use_sliding_window\": false, \"sliding_window\": 4096, "            \
    "\"max_window_layers\": 28, \"max_position_embeddings\": 32768, \"norm_topk_prob\": false, "   \
    "\"decoder_sparse_step\": 1, \"mlp_only_layers\": []"

const struct family family_qwen2_moe = {
    .model_type = "qwen2_moe",
    .architecture = "Qwen2MoeForCausalLM",
    .defaults = BALANCED
    "0.001, " QWEN ", \"num_experts\": 60, \"num_experts_per_tok\": 4, \"qkv_bias\": true, "
    "\"moe_intermediate_size\": 1408, \"shared_expert_intermediate_size\": 5632}",
    .fixed = FIXED "}",
    .window = WINDOW_FROM,
    .has = HAS_FFN_NORM,
    .flag = {{"qkv_bias", HAS_QKV_BIAS, 0}},
    .block = block_experts,
    .weights = qwen2_moe,
};
const struct family family_qwen3_moe = {
    .model_type = "qwen3_moe",
    .architecture = "Qwen3MoeForCausalLM",
    .defaults = BALANCED "0.001, " QWEN ", \"num_experts\": 128, \"num_experts_per_tok\": 8, "
                         "\"moe_intermediate_size\": 768, \"attention_bias\": false}",
    .fixed = FIXED "}",
    .window = WINDOW_FROM,
    .qk_norm = QK_NORM_HEAD,
    .has = HAS_FFN_NORM | HAS_QK_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .block = block_experts,
    .weights = qwen3_moe,
};

/* ---- OLMoE: norms over whole queries and keys */
static const struct weight_rule *const olmoe[] = {
    rules_embed,    rules_input_norm, rules_attention, rules_qk_norm_whole,
    rules_ffn_norm, rules_experts,    rules_top,       NULL};
const struct family family_olmoe = {
    .model_type = "olmoe",
    .architecture = "OlmoeForCausalLM",
    .defaults = BALANCED
    "0.01, \"num_experts\": 64, \"num_experts_per_tok\": 8, \"norm_topk_prob\": false, "
    "\"max_position_embeddings\": 4096, \"attention_bias\": false, "
    "\"clip_qkv\": null}",
    .fixed = FIXED "}",
    .qk_norm = QK_NORM_WHOLE,
    .has = HAS_FFN_NORM | HAS_QK_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .block = block_experts,
    .weights = olmoe,
};

/* ---- GPT-OSS: sinks, biases everywhere, a window in every other layer, a clamped gate. The
 * experts are one transposed tensor with the columns of gate and up in turn, or MXFP4 blocks. */
static const struct weight_rule gpt_oss_experts[] = {
    {&attention_sink, "model.layers.%L.self_attn.sinks", .rows = DIM_H},
    {&experts_router, "model.layers.%L.mlp.router.weight", .rows = DIM_E, .cols = DIM_D},
    {&experts_router, "model.layers.%L.mlp.router.bias", .rows = DIM_E, .cols = DIM_BIAS},
    {&experts_gate_up, "model.layers.%L.mlp.experts.%E.gate_up_proj", .rows = DIM_2EF,
     .cols = DIM_D, .stacked = "model.layers.%L.mlp.experts.gate_up_proj",
     .stacked_layout = LAYOUT_STACKED | LAYOUT_T | LAYOUT_GU_ALT},
    {&experts_gate_up, "model.layers.%L.mlp.experts.%E.gate_up_proj_bias", .rows = DIM_2EF,
     .cols = DIM_BIAS, .stacked = "model.layers.%L.mlp.experts.gate_up_proj_bias",
     .stacked_layout = LAYOUT_STACKED | LAYOUT_GU_ALT},
    {&experts_down, "model.layers.%L.mlp.experts.%E.down_proj", .rows = DIM_D, .cols = DIM_EF,
     .stacked = "model.layers.%L.mlp.experts.down_proj",
     .stacked_layout = LAYOUT_STACKED | LAYOUT_T},
    {&experts_down, "model.layers.%L.mlp.experts.%E.down_proj_bias", .rows = DIM_D,
     .cols = DIM_BIAS, .stacked = "model.layers.%L.mlp.experts.down_proj_bias",
     .stacked_layout = LAYOUT_STACKED},
    {0},
};
static const struct weight_rule *const gpt_oss[] = {
    rules_embed, rules_input_norm, rules_attention, rules_ffn_norm, gpt_oss_experts, rules_top,
    NULL};
const struct family family_gpt_oss = {
    .model_type = "gpt_oss",
    .architecture = "GptOssForCausalLM",
    .defaults = BALANCED
    "0.001, \"num_experts\": 128, \"num_experts_per_tok\": 4, \"num_key_value_heads\": 8, "
    "\"head_dim\": 64, \"sliding_window\": 128, \"sliding_window_pattern\": 2, "
    "\"rope_theta\": 150000, \"attention_bias\": true, \"swiglu_limit\": 7, "
    "\"swiglu_alpha\": 1.702, \"max_position_embeddings\": 131072, "
    "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 32, \"beta_fast\": 32, "
    "\"beta_slow\": 1, \"truncate\": false, "
    "\"original_max_position_embeddings\": 4096}}",
    .fixed = FIXED "}",
    .window = WINDOW_PATTERN,
    .has = HAS_FFN_NORM | HAS_RENORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .block = block_experts,
    .weights = gpt_oss,
};

/* ---- GLM 4.5 and 4.6: DeepSeek V3's experts; half of a head turns */
static const struct weight_rule *const glm4_moe[] = {
    rules_embed, rules_input_norm, rules_attention,     rules_qk_norm, rules_ffn_norm,
    rules_glu,   rules_experts,    rules_shared_expert, rules_top,     NULL};
const struct family family_glm4_moe = {
    .model_type = "glm4_moe",
    .architecture = "Glm4MoeForCausalLM",
    .defaults = "{\"num_experts\": 128, \"num_experts_per_tok\": 8, \"n_shared_experts\": 1, "
                "\"moe_intermediate_size\": 1408, \"first_k_dense_replace\": 1, \"n_group\": 1, "
                "\"topk_group\": 1, \"norm_topk_prob\": true, \"routed_scaling_factor\": 1, "
                "\"head_dim\": 128, \"num_key_value_heads\": 8, \"attention_bias\": false, "
                "\"use_qk_norm\": false, \"partial_rotary_factor\": 0.5, "
                "\"max_position_embeddings\": 131072}",
    .fixed = FIXED ", \"output_router_logits\": false}",
    .qk_norm = QK_NORM_HEAD,
    .has = HAS_FFN_NORM | HAS_SIGMOID,
    .flag = {{"attention_bias", HAS_QKV_BIAS, 0}, {"use_qk_norm", HAS_QK_NORM, 0}},
    .block = block_experts,
    .weights = glm4_moe,
};
