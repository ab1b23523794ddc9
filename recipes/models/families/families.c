/* families.c: the list of families. */
#include "recipes/models/models.h"

extern const struct family family_llama, family_mistral, family_ministral, family_ministral3,
    family_qwen2, family_qwen3, family_gemma, family_gemma2, family_gemma3, family_phi, family_phi3,
    family_olmo, family_olmo2, family_olmo3, family_apertus, family_smollm3, family_stablelm,
    family_glm, family_glm4, family_chatglm, family_gpt2, family_gpt_neox, family_falcon,
    family_bloom, family_mixtral, family_qwen2_moe, family_qwen3_moe, family_olmoe, family_gpt_oss,
    family_glm4_moe, family_deepseek_v2, family_deepseek_v3, family_kimi_k2, family_ema_toy,
    family_seed_oss;
const struct family *const families[] = {
    &family_llama,    &family_mistral,   &family_ministral,   &family_ministral3,
    &family_qwen2,    &family_qwen3,     &family_gemma,       &family_gemma2,
    &family_gemma3,   &family_phi,       &family_phi3,        &family_olmo,
    &family_olmo2,    &family_olmo3,     &family_apertus,     &family_smollm3,
    &family_stablelm, &family_glm,       &family_glm4,        &family_chatglm,
    &family_gpt2,     &family_gpt_neox,  &family_falcon,      &family_bloom,
    &family_mixtral,  &family_qwen2_moe, &family_qwen3_moe,   &family_olmoe,
    &family_gpt_oss,  &family_glm4_moe,  &family_deepseek_v2, &family_deepseek_v3,
    &family_kimi_k2,  &family_ema_toy,  &family_seed_oss,
};
const int family_count = COUNT(families);
