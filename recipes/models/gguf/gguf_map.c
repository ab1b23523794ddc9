/* gguf_map.c: what GGUF calls the tensors that hold a parameter: by role, so that one table serves
 * all families; some architectures have a name of their own for a role. */
#include "recipes/models/models_int.h"

#include <string.h>

/* "a|b": the names of the two parts of a parameter that files may cut. */
static const char *const stems[ROLE_COUNT] = {
    [ROLE_EMBED] = "token_embd",
    [ROLE_POSITIONS] = "position_embd",
    [ROLE_LM_HEAD] = "output",
    [ROLE_EMBED_NORM] = "token_embd_norm",
    [ROLE_FINAL_NORM] = "output_norm",
    [ROLE_INPUT_NORM] = "attn_norm",
    [ROLE_POST_ATTENTION_NORM] = "post_attention_norm",
    [ROLE_PRE_FFN_NORM] = "ffn_norm",
    [ROLE_POST_FFN_NORM] = "post_ffw_norm",
    [ROLE_Q_NORM] = "attn_q_norm",
    [ROLE_K_NORM] = "attn_k_norm",
    [ROLE_Q] = "attn_q",
    [ROLE_K] = "attn_k",
    [ROLE_V] = "attn_v",
    [ROLE_QKV] = "attn_qkv",
    [ROLE_O] = "attn_output",
    [ROLE_GATE] = "ffn_gate",
    [ROLE_UP] = "ffn_up",
    [ROLE_GATE_UP] = "ffn_gate|ffn_up",
    [ROLE_DOWN] = "ffn_down",
    [ROLE_SINK] = "attn_sinks",
    [ROLE_Q_A] = "attn_q_a",
    [ROLE_Q_B] = "attn_q_b",
    [ROLE_Q_LATENT_NORM] = "attn_q_a_norm",
    [ROLE_KV_A] = "attn_kv_a_mqa",
    [ROLE_KV_B] = "attn_k_b|attn_v_b",
    [ROLE_KV_LATENT_NORM] = "attn_kv_a_norm",
    [ROLE_ROUTER] = "ffn_gate_inp",
    [ROLE_CORRECTION] = "exp_probs_b",
    [ROLE_EXPERTS_GATE_UP] = "ffn_gate_exps|ffn_up_exps",
    [ROLE_EXPERTS_DOWN] = "ffn_down_exps",
    [ROLE_SHARED_GATE] = "ffn_gate_shexp",
    [ROLE_SHARED_UP] = "ffn_up_shexp",
    [ROLE_SHARED_DOWN] = "ffn_down_shexp",
    [ROLE_SHARED_SCORE] = "ffn_gate_inp_shexp",
};

bool gguf_names(enum role r) { return stems[r] != NULL; }

const char *gguf_list(enum role r) {
    return r == ROLE_ALPHA_P   ? "xielu.alpha_p"
           : r == ROLE_ALPHA_N ? "xielu.alpha_n"
           : r == ROLE_BETA    ? "xielu.beta"
           : r == ROLE_EPS     ? "xielu.eps"
                               : NULL;
}

i64 gguf_parts(const struct param *p) {
    const bool cut = p->role == ROLE_EXPERTS_GATE_UP || p->role == ROLE_KV_B;
    return cut || strchr(p->name, '|') ? 2 : 1;
}

/* Names that differ by architecture. */
static const struct {
    const char *arch;
    enum role role;
    u32 when; /* HAS_ bits of the rule */
    const char *stem;
} others[] = {{"gpt-oss", ROLE_PRE_FFN_NORM, 0, "post_attention_norm"},
              {"glm4moe", ROLE_PRE_FFN_NORM, 0, "post_attention_norm"},
              {"falcon", ROLE_INPUT_NORM, HAS_TWO_NORMS, "attn_norm_2"},
              {"falcon", ROLE_PRE_FFN_NORM, HAS_TWO_NORMS, "attn_norm"}};

void gguf_name(char out[256], const struct gguf_arch *arch, const struct param *p, i64 part) {
    const char *stem = stems[p->role] ? stems[p->role] : "", *bar = strchr(stem, '|');
    const bool bias = p->rule->cols == DIM_BIAS || p->role == ROLE_CORRECTION;
    const char *kind = bias ? "bias" : "weight";
    for (int i = 0; i < COUNT(others); i++)
        if (!strcmp(others[i].arch, arch->name) && others[i].role == p->role &&
            (others[i].when & ~p->rule->when) == 0)
            stem = others[i].stem, bar = NULL;
    /* a fused tensor of one name goes under the second: Phi-3's gate_up is its ffn_up */
    if (bar && (part || gguf_parts(p) == 1)) stem = bar + 1, bar = NULL;
    const int size = bar ? (int)(bar - stem) : (int)strlen(stem);
    if (p->layer < 0)
        snprintf(out, 256, "%.*s.%s", size, stem, kind);
    else
        snprintf(out, 256, "blk.%lld.%.*s.%s", (long long)p->layer, size, stem, kind);
}
