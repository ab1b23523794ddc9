/* ema_toy.c: Llama with a moving average in the place of attention in the layers whose type is
 * moving_average. */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule *const weights[] = {
    rules_embed,    rules_input_norm, rules_attention, rules_ema,
    rules_ffn_norm, rules_glu,        rules_top,       NULL};
static const struct slot block[2] = {
    {"mixer", MIXERS(&mixer_attention, &mixer_ema), &norm_input, NULL},
    {"mlp", MIXERS(&mixer_glu), &norm_pre_ffn, NULL}};

const struct family family_ema_toy = {
    .model_type = "ema_toy",
    .architecture = "EmaToyForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-6, \"ema_decay\": 0.9}",
    .has = HAS_FFN_NORM,
    .block = block,
    .weights = weights,
};
