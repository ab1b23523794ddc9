/* seed_oss.c: Seed-OSS: Llama with biases on queries, keys and values, and one on the output
 * projection of its own key. */
#include "recipes/models/mixers/mixers.h"

const struct family family_seed_oss = {
    .model_type = "seed_oss",
    .architecture = "SeedOssForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-6, \"attention_bias\": true, \"attention_out_bias\": false, "
                "\"mlp_bias\": false}",
    .has = HAS_FFN_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS, 0},
             {"attention_out_bias", HAS_O_BIAS, 0},
             {"mlp_bias", HAS_MLP_BIAS, 0}},
    .block = block_pre,
    .weights = weights_llama,
};
