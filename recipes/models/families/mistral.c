/* mistral.c: Mistral 7B and Nemo, Ministral 8B, Ministral 3: Llama with a window. In Mistral it is
 * 4,096 where the key is missing and none where it is null; Ministral 8B has it in the layers that
 * `layer_types` names. Ministral 3 has yarn, and scales queries by position. */
#include "recipes/models/mixers/mixers.h"

const struct family family_mistral = {
    .model_type = "mistral",
    .architecture = "MistralForCausalLM",
    .wrapper = "mistral3", /* Mistral Small 3.1 */
    .defaults = "{\"rms_norm_eps\": 1e-6, \"sliding_window\": 4096, \"num_key_value_heads\": 8, "
                "\"max_position_embeddings\": 131072}",
    .window = WINDOW_ALL,
    .has = HAS_FFN_NORM,
    .block = block_pre,
    .weights = weights_llama,
};

const struct family family_ministral = {
    .model_type = "ministral",
    .architecture = "MinistralForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-6, \"sliding_window\": 4096, \"num_key_value_heads\": 8, "
                "\"max_position_embeddings\": 131072}",
    .window = WINDOW_ALL,
    .has = HAS_FFN_NORM,
    .block = block_pre,
    .weights = weights_llama,
};

const struct family family_ministral3 = {
    .model_type = "ministral3",
    .architecture = "Ministral3ForCausalLM",
    .wrapper = "mistral3",
    .defaults =
        "{\"rms_norm_eps\": 1e-5, \"sliding_window\": null, \"num_key_value_heads\": 8, "
        "\"head_dim\": 128, \"rope_theta\": 1e6, \"max_position_embeddings\": 262144, "
        "\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 16.0, "
        "\"original_max_position_embeddings\": 16384, \"mscale\": 1.0, \"mscale_all_dim\": 1.0, "
        "\"llama_4_scaling_beta\": 0.1}}",
    .window = WINDOW_ALL,
    .has = HAS_FFN_NORM,
    .block = block_pre,
    .weights = weights_llama,
};
