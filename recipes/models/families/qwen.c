/* qwen.c: Qwen 2, 2.5 and R1's distillates of them: Llama with biases on queries, keys and values,
 * though no key says so, and a window in the layers from max_window_layers on if
 * `use_sliding_window`. Qwen 3 has no such biases but a norm for each head of queries and keys. */
#include "recipes/models/mixers/mixers.h"

const struct family family_qwen2 = {
    .model_type = "qwen2",
    .architecture = "Qwen2ForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-6, \"use_sliding_window\": false, \"sliding_window\": 4096, "
                "\"max_window_layers\": 28, \"max_position_embeddings\": 32768}",
    .window = WINDOW_FROM,
    .has = HAS_FFN_NORM | HAS_QKV_BIAS,
    .block = block_pre,
    .weights = weights_llama,
};

const struct family family_qwen3 = {
    .model_type = "qwen3",
    .architecture = "Qwen3ForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-6, \"head_dim\": 128, \"attention_bias\": false, "
                "\"use_sliding_window\": false, \"sliding_window\": 4096, "
                "\"max_window_layers\": 28, \"max_position_embeddings\": 32768}",
    .window = WINDOW_FROM,
    .qk_norm = QK_NORM_HEAD,
    .has = HAS_FFN_NORM | HAS_QK_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .block = block_pre,
    .weights = weights_qwen3,
};
