/* llama.c: Llama 1 to 3.3 and everything that says `"model_type": "llama"` (SmolLM2, Falcon 3,
 * TinyLlama, R1 distillates): pre-norm blocks, half-split RoPE over the whole head, grouped heads,
 * SwiGLU, optional biases and tied embeddings. */
#include "recipes/models/mixers/mixers.h"

const struct family family_llama = {
    .model_type = "llama",
    .architecture = "LlamaForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-6, \"attention_bias\": false, \"mlp_bias\": false}",
    .has = HAS_FFN_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}, {"mlp_bias", HAS_MLP_BIAS, 0}},
    .block = block_pre,
    .weights = weights_llama,
};
