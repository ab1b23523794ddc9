/* olmo.c: OLMo 1 (2024): Llama whose norms have neither weights nor biases, and optionally a clamp
 * of queries, keys and values. OLMo 2 (2024) and 3 (2025): norms on the branch outputs and none
 * before them, RMSNorm over the whole query and key projections. OLMo 3 has a window in three
 * layers of four, and yarn in the fourth alone, as its paper says (transformers before 5.23
 * stretched all). */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule *const weights[] = {
    rules_embed, rules_attention,     rules_qk_norm_whole, rules_post_attention_norm,
    rules_glu,   rules_post_ffn_norm, rules_top,           NULL};

static const struct weight_rule head[] = {
    {&top_head, "lm_head.weight", .rows = DIM_V, .cols = DIM_D, .when = HAS_UNTIED},
    {0},
};
static const struct weight_rule *const weights_olmo[] = {rules_embed, rules_attention, rules_glu,
                                                         head, NULL};

const struct family family_olmo = {
    .model_type = "olmo",
    .architecture = "OlmoForCausalLM",
    .defaults = "{\"clip_qkv\": null, \"attention_bias\": false}",
    .norm = NORM_LAYER,
    .has = HAS_FFN_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .block = block_pre,
    .weights = weights_olmo,
};

const struct family family_olmo2 = {
    .model_type = "olmo2",
    .architecture = "Olmo2ForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-5, \"attention_bias\": false}",
    .qk_norm = QK_NORM_WHOLE,
    .has = HAS_QK_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .block = block_post,
    .weights = weights,
};

const struct family family_olmo3 = {
    .model_type = "olmo3",
    .architecture = "Olmo3ForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-5, \"attention_bias\": false, \"rope_theta\": 5e5, "
                "\"sliding_window\": 4096, \"sliding_window_pattern\": 4}",
    .local_rope = true,
    .qk_norm = QK_NORM_WHOLE,
    .window = WINDOW_PATTERN,
    .has = HAS_QK_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .block = block_post,
    .weights = weights,
};
