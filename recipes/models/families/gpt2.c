/* gpt2.c: GPT-2: learned positions, LayerNorm, fused query, key and value, biases everywhere, tied
 * embeddings. Its layers are transformers' Conv1D: weights are [in, out] on disk. */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule rules[] = {
    {ROLE_EMBED, "transformer.wte.weight", .rows = DIM_V, .cols = DIM_D},
    {ROLE_POSITIONS, "transformer.wpe.weight", .rows = DIM_P, .cols = DIM_D},
    {ROLE_INPUT_NORM, "transformer.h.%L.ln_1.weight", .rows = DIM_D},
    {ROLE_INPUT_NORM, "transformer.h.%L.ln_1.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {ROLE_QKV, "transformer.h.%L.attn.c_attn.weight", .rows = DIM_QKV, .cols = DIM_D,
     .layout = LAYOUT_T},
    {ROLE_QKV, "transformer.h.%L.attn.c_attn.bias", .rows = DIM_QKV, .cols = DIM_BIAS},
    {ROLE_O, "transformer.h.%L.attn.c_proj.weight", .rows = DIM_D, .cols = DIM_HZ,
     .layout = LAYOUT_T},
    {ROLE_O, "transformer.h.%L.attn.c_proj.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {ROLE_PRE_FFN_NORM, "transformer.h.%L.ln_2.weight", .rows = DIM_D},
    {ROLE_PRE_FFN_NORM, "transformer.h.%L.ln_2.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {ROLE_UP, "transformer.h.%L.mlp.c_fc.weight", .rows = DIM_F, .cols = DIM_D, .layout = LAYOUT_T},
    {ROLE_UP, "transformer.h.%L.mlp.c_fc.bias", .rows = DIM_F, .cols = DIM_BIAS},
    {ROLE_DOWN, "transformer.h.%L.mlp.c_proj.weight", .rows = DIM_D, .cols = DIM_F,
     .layout = LAYOUT_T},
    {ROLE_DOWN, "transformer.h.%L.mlp.c_proj.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {ROLE_FINAL_NORM, "transformer.ln_f.weight", .rows = DIM_D},
    {ROLE_FINAL_NORM, "transformer.ln_f.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {ROLE_LM_HEAD, "lm_head.weight", .rows = DIM_V, .cols = DIM_D, .when = HAS_UNTIED},
    {0},
};
static const struct weight_rule *const weights[] = {rules, NULL};
static const struct slot block[2] = {{"attn", MIXERS(&mixer_attention), ROLE_INPUT_NORM, ROLE_NONE},
                                     {"mlp", MIXERS(&mixer_mlp), ROLE_PRE_FFN_NORM, ROLE_NONE}};

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
