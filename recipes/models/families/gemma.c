/* gemma.c: Gemma 1, 2 and 3 (text): norms that add one to their weights, embeddings times sqrt(D),
 * GELU (tanh) gates, tied embeddings. Gemma 2 adds norms after the branches, a window in every
 * other layer, soft caps on scores and logits; Gemma 3 drops the caps, has a norm for each head of
 * queries and keys, and two RoPE tables: layers with a window keep theta 10,000 and are not
 * stretched. */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule norms[] = {
    {&norm_post_attention, "model.layers.%L.post_attention_layernorm.weight", .rows = DIM_D},
    {&norm_pre_ffn, "model.layers.%L.pre_feedforward_layernorm.weight", .rows = DIM_D},
    {0},
};
static const struct weight_rule *const weights_gemma2[] = {
    rules_embed, rules_input_norm,    rules_attention, norms,
    rules_glu,   rules_post_ffn_norm, rules_top,       NULL};
static const struct weight_rule *const weights_gemma3[] = {
    rules_embed, rules_input_norm,    rules_attention, rules_qk_norm, norms,
    rules_glu,   rules_post_ffn_norm, rules_top,       NULL};

/* Files of Gemma 1 say "gelu" where the tanh form is meant. */
static int tanh_meant(struct config *c, const json_t *j, const char *where, struct err *e) {
    (void)j, (void)where, (void)e;
    if (c->act == ACT_GELU) c->act = ACT_GELU_TANH;
    return 0;
}

const struct family family_gemma = {
    .model_type = "gemma",
    .architecture = "GemmaForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-6, \"head_dim\": 256, \"tie_word_embeddings\": true, "
                "\"hidden_act\": \"gelu_pytorch_tanh\", \"attention_bias\": false, "
                "\"max_position_embeddings\": 8192}",
    .norm_one_plus = true,
    .embedding_sqrt = true,
    .has = HAS_FFN_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .finish = tanh_meant,
    .block = block_pre,
    .weights = weights_llama,
};

const struct family family_gemma2 = {
    .model_type = "gemma2",
    .architecture = "Gemma2ForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-6, \"head_dim\": 256, \"num_attention_heads\": 8, "
                "\"num_key_value_heads\": 4, \"tie_word_embeddings\": true, "
                "\"hidden_act\": \"gelu_pytorch_tanh\", \"attention_bias\": false, "
                "\"max_position_embeddings\": 8192, \"query_pre_attn_scalar\": 256, "
                "\"sliding_window\": 4096, \"sliding_window_pattern\": 2, "
                "\"attn_logit_softcapping\": 50.0, \"final_logit_softcapping\": 30.0}",
    .fixed = "{\"use_bidirectional_attention\": false}",
    .norm_one_plus = true,
    .embedding_sqrt = true,
    .window = WINDOW_PATTERN,
    .has = HAS_FFN_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .block = block_sandwich,
    .weights = weights_gemma2,
};

const struct family family_gemma3 = {
    .model_type = "gemma3_text",
    .architecture = "Gemma3ForCausalLM",
    .wrapper = "gemma3",
    .defaults =
        "{\"rms_norm_eps\": 1e-6, \"head_dim\": 256, \"num_attention_heads\": 8, "
        "\"num_key_value_heads\": 4, \"vocab_size\": 262208, \"tie_word_embeddings\": true, "
        "\"hidden_act\": \"gelu_pytorch_tanh\", \"attention_bias\": false, "
        "\"max_position_embeddings\": 131072, \"query_pre_attn_scalar\": 256, "
        "\"rope_theta\": 1e6, \"rope_local_base_freq\": 1e4, "
        "\"sliding_window\": 4096, \"sliding_window_pattern\": 6, "
        "\"attn_logit_softcapping\": null, \"final_logit_softcapping\": null}",
    .fixed = "{\"use_bidirectional_attention\": false}",
    .norm_one_plus = true,
    .embedding_sqrt = true,
    .local_rope = true,
    .qk_norm = QK_NORM_HEAD,
    .window = WINDOW_PATTERN,
    .has = HAS_FFN_NORM | HAS_QK_NORM,
    .flag = {{"attention_bias", HAS_QKV_BIAS | HAS_O_BIAS, 0}},
    .block = block_sandwich,
    .weights = weights_gemma3,
};
