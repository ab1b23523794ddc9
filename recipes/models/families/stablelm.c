/* stablelm.c: StableLM: LayerNorm with biases, a quarter of each head turns; optional biases of
 * queries, keys and values, a norm for each head with weights of its own, attention and MLP on one
 * norm. */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule head_norms[] = {
    {&attention_q_norm, "model.layers.%L.self_attn.q_layernorm.norms.%H.weight", .rows = DIM_HZ,
     .when = HAS_QK_NORM},
    {&attention_k_norm, "model.layers.%L.self_attn.k_layernorm.norms.%H.weight", .rows = DIM_KZ,
     .when = HAS_QK_NORM},
    {0},
};
static const struct weight_rule *const weights[] = {
    rules_embed,    rules_input_norm, rules_attention, head_norms,
    rules_ffn_norm, rules_glu,        rules_top,       NULL};

const struct family family_stablelm = {
    .model_type = "stablelm",
    .architecture = "StableLmForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-5, \"partial_rotary_factor\": 0.25, "
                "\"use_qkv_bias\": false, \"qk_layernorm\": false, "
                "\"use_parallel_residual\": false, \"max_position_embeddings\": 4096}",
    .norm = NORM_LAYER,
    .qk_norm = QK_NORM_HEAD,
    .has = HAS_NORM_BIAS,
    .flag = {{"use_qkv_bias", HAS_QKV_BIAS, 0},
             {"qk_layernorm", HAS_QK_NORM, 0},
             {"use_parallel_residual", HAS_PARALLEL, HAS_FFN_NORM}},
    .block = block_pre,
    .weights = weights,
};
