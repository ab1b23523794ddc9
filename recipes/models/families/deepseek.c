/* deepseek.c: DeepSeek V2 (also Lite), V3 and R1, and Kimi K2, which is V3's computation with
 * numbers of its own: latent attention and mixtures of experts, dense MLPs in the first layers.
 *
 * V2 weighs the chosen by the softmax over all experts and never renormalises, whatever
 * `norm_topk_prob` says, as in transformers. The layer after the last, for multi-token prediction,
 * is left out. */
#include "recipes/models/mixers/mixers.h"

static const struct slot block[2] = {
    {"self_attn", MIXERS(&mixer_mla), &norm_input, NULL},
    {"mlp", MIXERS(&mixer_glu, &mixer_experts), &norm_pre_ffn, NULL}};

static const struct weight_rule *const weights[] = {
    rules_embed,         rules_input_norm, rules_mla, rules_ffn_norm, rules_glu, rules_experts,
    rules_shared_expert, rules_top,        NULL};

#define FIXED                                                                                      \
    "{\"hidden_act\": \"silu\", \"attention_bias\": false, \"mlp_bias\": false, "                  \
    "\"moe_layer_freq\": 1, \"output_router_logits\": false, \"rope_interleave\": true"
#define COMMON                                                                                     \
    "\"rms_norm_eps\": 1e-6, \"kv_lora_rank\": 512, \"q_lora_rank\": 1536, "                       \
    "\"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, \"v_head_dim\": 128, "                   \
    "\"num_experts\": 256, \"num_experts_per_tok\": 8, \"n_shared_experts\": 1, "                  \
    "\"moe_intermediate_size\": 2048, \"first_k_dense_replace\": 3, \"n_group\": 8, "              \
    "\"topk_group\": 4, \"routed_scaling_factor\": 2.5, \"norm_topk_prob\": true, "                \
    "\"max_position_embeddings\": 4096"
#define V3(type)                                                                                   \
    {                                                                                              \
        .model_type = type, .architecture = "DeepseekV3ForCausalLM", .defaults = "{" COMMON "}",   \
        .fixed = FIXED ", \"scoring_func\": \"sigmoid\", \"topk_method\": \"noaux_tc\"}",          \
        .interleaved = true, .has = HAS_FFN_NORM | HAS_SIGMOID, .block = block,                    \
        .weights = weights,                                                                        \
    }
const struct family family_deepseek_v3 = V3("deepseek_v3");
const struct family family_kimi_k2 = V3("kimi_k2");

const struct family family_deepseek_v2 = {
    .model_type = "deepseek_v2",
    .architecture = "DeepseekV2ForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-6, \"kv_lora_rank\": 512, \"q_lora_rank\": 1536, "
                "\"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, \"v_head_dim\": 128, "
                "\"num_experts\": 64, \"num_experts_per_tok\": null, \"n_shared_experts\": 2, "
                "\"moe_intermediate_size\": 1407, \"first_k_dense_replace\": 0, \"n_group\": 1, "
                "\"topk_group\": 1, \"topk_method\": \"greedy\", \"routed_scaling_factor\": 1, "
                "\"max_position_embeddings\": 2048}",
    .fixed = FIXED ", \"scoring_func\": \"softmax\"}",
    .interleaved = true,
    .has = HAS_FFN_NORM,
    .block = block,
    .weights = weights,
};
