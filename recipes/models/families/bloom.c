/* bloom.c: BLOOM and Falcon, whose names are alike. BLOOM: a norm after the embedding, ALiBi, GELU
 * (tanh). Falcon has three forms of attention: new_decoder_architecture (40B, 180B: rows go by
 * key-value head, attention and MLP on two norms of one stream), multi_query (7B: one key and one
 * value head after all query heads), and neither (RW: rows go by head, ALiBi in bf16, sequential).
 * In files of 40B multi_query is true and means nothing. */
#include "recipes/models/mixers/mixers.h"

static const struct weight_rule rules[] = {
    {&top_embed, "transformer.word_embeddings.weight", .rows = DIM_V, .cols = DIM_D},
    {&top_embed_norm, "transformer.word_embeddings_layernorm.weight", .rows = DIM_D,
     .when = HAS_EMBED_NORM},
    {&top_embed_norm, "transformer.word_embeddings_layernorm.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_EMBED_NORM},
    {&norm_input, "transformer.h.%L.input_layernorm.weight", .rows = DIM_D, .when = HAS_ONE_NORM},
    {&norm_input, "transformer.h.%L.input_layernorm.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_ONE_NORM},
    {&norm_input, "transformer.h.%L.ln_attn.weight", .rows = DIM_D, .when = HAS_TWO_NORMS},
    {&norm_input, "transformer.h.%L.ln_attn.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_TWO_NORMS},
    {&attention_qkv, "transformer.h.%L.self_attention.query_key_value.weight", .rows = DIM_QKV,
     .cols = DIM_D, .when = HAS_QKV_GROUPS, .layout = LAYOUT_QKV_GROUPS},
    {&attention_qkv, "transformer.h.%L.self_attention.query_key_value.bias", .rows = DIM_QKV,
     .cols = DIM_BIAS, .when = HAS_QKV_GROUPS | HAS_QKV_BIAS, .layout = LAYOUT_QKV_GROUPS},
    {&attention_qkv, "transformer.h.%L.self_attention.query_key_value.weight", .rows = DIM_QKV,
     .cols = DIM_D, .when = HAS_QKV_BLOCKS},
    {&attention_qkv, "transformer.h.%L.self_attention.query_key_value.bias", .rows = DIM_QKV,
     .cols = DIM_BIAS, .when = HAS_QKV_BLOCKS | HAS_QKV_BIAS},
    {&attention_o, "transformer.h.%L.self_attention.dense.weight", .rows = DIM_D, .cols = DIM_HZ},
    {&attention_o, "transformer.h.%L.self_attention.dense.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_O_BIAS},
    {&norm_pre_ffn, "transformer.h.%L.post_attention_layernorm.weight", .rows = DIM_D,
     .when = HAS_FFN_NORM | HAS_ONE_NORM},
    {&norm_pre_ffn, "transformer.h.%L.post_attention_layernorm.bias", .rows = DIM_D,
     .cols = DIM_BIAS, .when = HAS_FFN_NORM | HAS_ONE_NORM},
    {&norm_pre_ffn, "transformer.h.%L.ln_mlp.weight", .rows = DIM_D, .when = HAS_TWO_NORMS},
    {&norm_pre_ffn, "transformer.h.%L.ln_mlp.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_TWO_NORMS},
    {&mlp_up, "transformer.h.%L.mlp.dense_h_to_4h.weight", .rows = DIM_F, .cols = DIM_D},
    {&mlp_up, "transformer.h.%L.mlp.dense_h_to_4h.bias", .rows = DIM_F, .cols = DIM_BIAS,
     .when = HAS_MLP_BIAS},
    {&mlp_down, "transformer.h.%L.mlp.dense_4h_to_h.weight", .rows = DIM_D, .cols = DIM_F},
    {&mlp_down, "transformer.h.%L.mlp.dense_4h_to_h.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_MLP_BIAS},
    {&top_norm, "transformer.ln_f.weight", .rows = DIM_D},
    {&top_norm, "transformer.ln_f.bias", .rows = DIM_D, .cols = DIM_BIAS},
    {&top_head, "lm_head.weight", .rows = DIM_V, .cols = DIM_D, .when = HAS_UNTIED},
    {0},
};
static const struct weight_rule *const weights[] = {rules, NULL};
static const struct slot block[2] = {
    {"self_attention", MIXERS(&mixer_attention), &norm_input, NULL},
    {"mlp", MIXERS(&mixer_mlp), &norm_pre_ffn, NULL}};

const struct family family_bloom = {
    .model_type = "bloom",
    .architecture = "BloomForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-5, \"hidden_act\": \"gelu_pytorch_tanh\", "
                "\"tie_word_embeddings\": true, \"alibi\": true}",
    .fixed = "{\"apply_residual_connection_post_layernorm\": false, \"alibi\": true}",
    .norm = NORM_LAYER,
    .multi_head = true,
    .mlp_4x = true,
    .has = HAS_EMBED_NORM | HAS_ONE_NORM | HAS_FFN_NORM | HAS_QKV_GROUPS | HAS_QKV_BIAS |
           HAS_O_BIAS | HAS_MLP_BIAS,
    .block = block,
    .weights = weights,
};

static int falcon_finish(struct config *c, const json_t *j, const char *where, struct err *e) {
    const bool fresh = json_bool(j, "new_decoder_architecture", false, where, e),
               parallel = json_bool(j, "parallel_attn", true, where, e),
               one_key = !fresh && json_bool(j, "multi_query", true, where, e);
    const i64 norms = json_i64(j, "num_ln_in_parallel_attn", fresh ? 2 : 1, where, e);
    if (e->code) return -1;
    if (fresh && !parallel)
        return err_input(e, "%s: new_decoder_architecture without parallel_attn is not supported",
                         where);
    if (!fresh) c->kv_heads = one_key ? 1 : c->heads;
    c->has |= one_key ? HAS_QKV_BLOCKS : HAS_QKV_GROUPS;
    c->has |= parallel && norms == 2 ? HAS_TWO_NORMS | HAS_FFN_NORM : HAS_ONE_NORM;
    c->has |= parallel ? HAS_PARALLEL : HAS_FFN_NORM;
    return 0;
}

const struct family family_falcon = {
    .model_type = "falcon",
    .architecture = "FalconForCausalLM",
    .defaults = "{\"rms_norm_eps\": 1e-5, \"hidden_act\": \"gelu\", \"tie_word_embeddings\": true, "
                "\"alibi\": false, \"bias\": false, \"multi_query\": true, "
                "\"parallel_attn\": true, \"new_decoder_architecture\": false, "
                "\"num_ln_in_parallel_attn\": null}",
    .norm = NORM_LAYER,
    .mlp_4x = true,
    .alibi_bf16 = true,
    .flag = {{"bias", HAS_QKV_BIAS | HAS_O_BIAS | HAS_MLP_BIAS, 0}},
    .finish = falcon_finish,
    .block = block,
    .weights = weights,
};
