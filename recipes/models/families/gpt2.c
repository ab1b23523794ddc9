/* gpt2.c: GPT-2: learned positions, LayerNorm, fused query, key and value, biases everywhere, tied
 * embeddings. Its layers are transformers' Conv1D: weights are [in, out] on disk. */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule rules[] = {
    {&top_embed, "transformer.wte.weight", .rows = DIM_V, .cols = DIM_D},
    {&top_positions, "transformer.wpe.weight", .rows = DIM_P, .cols = DIM_D},
    {&norm_input, "transformer.h.%L.ln_1.weight", .rows = DIM_D},
    {&norm_input, "transformer.h.%L.ln_1.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&attention_qkv, "transformer.h.%L.attn.c_attn.weight", .rows = DIM_QKV, .cols = DIM_D,
     .layout = LAYOUT_T},
    {&attention_qkv, "transformer.h.%L.attn.c_attn.bias", .rows = DIM_QKV, .cols = DIM_BIAS},
    {&attention_o, "transformer.h.%L.attn.c_proj.weight", .rows = DIM_D, .cols = DIM_HZ,
     .layout = LAYOUT_T},
    {&attention_o, "transformer.h.%L.attn.c_proj.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&norm_pre_ffn, "transformer.h.%L.ln_2.weight", .rows = DIM_D},
    {&norm_pre_ffn, "transformer.h.%L.ln_2.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&mlp_up, "transformer.h.%L.mlp.c_fc.weight", .rows = DIM_F, .cols = DIM_D, .layout = LAYOUT_T},
    {&mlp_up, "transformer.h.%L.mlp.c_fc.bias", .rows = DIM_F, .cols = DIM_BIAS},
    {&mlp_down, "transformer.h.%L.mlp.c_proj.weight", .rows = DIM_D, .cols = DIM_F,
     .layout = LAYOUT_T},
    {&mlp_down, "transformer.h.%L.mlp.c_proj.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&top_norm, "transformer.ln_f.weight", .rows = DIM_D},
    {&top_norm, "transformer.ln_f.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&top_head, "lm_head.weight", .rows = DIM_V, .cols = DIM_D, .when = HAS_UNTIED},
    {0},
};
static const struct weight_rule *const weights[] = {rules, NULL};
static const struct slot block[2] = {{"attn", MIXERS(&mixer_attention), &norm_input, NULL},
                                     {"mlp", MIXERS(&mixer_mlp), &norm_pre_ffn, NULL}};

const struct family family_gpt2 = {
    .model_type = "gpt2",
    .architecture = "GPT2LMHeadModel",
    .defaults = "{\"rms_norm_eps\": 1e-5, \"hidden_act\": \"gelu_new\", "
                "\"tie_word_embeddings\": true, \"max_position_embeddings\": 1024, "
                "\"scale_attn_by_inverse_layer_idx\": false}",
    .fixed = "{\"scale_attn_weights\": true, \"add_cross_attention\": false}",
    .norm = NORM_LAYER,
    .multi_head = true,
    .mlp_4x = true,
    .learned_positions = true,
    .conv1d = true,
    .has = HAS_FFN_NORM,
    .block = block,
    .weights = weights,
};
