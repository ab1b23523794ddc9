/* smollm3.c: SmolLM3: Llama where each fourth layer has no positions (NoPE). In `no_rope_layers` 1
 * means that the layer has RoPE. */
#include "recipes/models/mixers/mixers.h"

const struct family family_smollm3 = {
    .model_type = "smollm3",
    .architecture = "SmolLM3ForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-6, \"rope_theta\": 2e6, \"num_key_value_heads\": 4, "
                "\"tie_word_embeddings\": true, \"max_position_embeddings\": 32768, "
                "\"no_rope_layers\": null, \"no_rope_layer_interval\": 4, "
                "\"use_sliding_window\": false, \"sliding_window\": null, "
                "\"attention_bias\": false, \"mlp_bias\": false}",
    .window = WINDOW_NOPE,
    .has = HAS_FFN_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}, {"mlp_bias", HAS_MLP_BIAS, 0}},
    .block = block_pre,
    .weights = weights_llama,
};
