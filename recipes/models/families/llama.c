/* llama.c: Llama 1 to 3.3 and everything that says `"model_type": "llama"`: pre-norm blocks,
 * half-split RoPE over the whole head, grouped heads, SwiGLU, optional biases and tied embeddings.
 */
#include "recipes/models/models.h"

static const struct weight_rule weights[] = {
    {ROLE_EMBED, "model.embed_tokens.weight", DIM_V, DIM_D, ALWAYS},
    {ROLE_INPUT_NORM, "model.layers.%L.input_layernorm.weight", DIM_D, DIM_NONE, ALWAYS},
    {ROLE_Q, "model.layers.%L.self_attn.q_proj.weight", DIM_HZ, DIM_D, ALWAYS},
    {ROLE_Q_BIAS, "model.layers.%L.self_attn.q_proj.bias", DIM_HZ, DIM_NONE, IF_ATTENTION_BIAS},
    {ROLE_K, "model.layers.%L.self_attn.k_proj.weight", DIM_KZ, DIM_D, ALWAYS},
    {ROLE_K_BIAS, "model.layers.%L.self_attn.k_proj.bias", DIM_KZ, DIM_NONE, IF_ATTENTION_BIAS},
    {ROLE_V, "model.layers.%L.self_attn.v_proj.weight", DIM_KZ, DIM_D, ALWAYS},
    {ROLE_V_BIAS, "model.layers.%L.self_attn.v_proj.bias", DIM_KZ, DIM_NONE, IF_ATTENTION_BIAS},
    {ROLE_O, "model.layers.%L.self_attn.o_proj.weight", DIM_D, DIM_HZ, ALWAYS},
    {ROLE_O_BIAS, "model.layers.%L.self_attn.o_proj.bias", DIM_D, DIM_NONE, IF_ATTENTION_BIAS},
    {ROLE_PRE_FFN_NORM, "model.layers.%L.post_attention_layernorm.weight", DIM_D, DIM_NONE, ALWAYS},
    {ROLE_GATE, "model.layers.%L.mlp.gate_proj.weight", DIM_F, DIM_D, ALWAYS},
    {ROLE_GATE_BIAS, "model.layers.%L.mlp.gate_proj.bias", DIM_F, DIM_NONE, IF_MLP_BIAS},
    {ROLE_UP, "model.layers.%L.mlp.up_proj.weight", DIM_F, DIM_D, ALWAYS},
    {ROLE_UP_BIAS, "model.layers.%L.mlp.up_proj.bias", DIM_F, DIM_NONE, IF_MLP_BIAS},
    {ROLE_DOWN, "model.layers.%L.mlp.down_proj.weight", DIM_D, DIM_F, ALWAYS},
    {ROLE_DOWN_BIAS, "model.layers.%L.mlp.down_proj.bias", DIM_D, DIM_NONE, IF_MLP_BIAS},
    {ROLE_FINAL_NORM, "model.norm.weight", DIM_D, DIM_NONE, ALWAYS},
    {ROLE_LM_HEAD, "lm_head.weight", DIM_V, DIM_D, IF_UNTIED},
    {0},
};

const struct family family_llama = {
    .model_type = "llama",
    .architecture = "LlamaForCausalLM",
    .rms_norm_eps = 1e-6,
    .rope_theta = 10000,
    .qk_norm = QK_NORM_NONE,
    .block = {{"self_attn", mix_attention, ROLE_INPUT_NORM, ROLE_NONE},
              {"mlp", mix_swiglu, ROLE_PRE_FFN_NORM, ROLE_NONE}},
    .weights = weights,
};
