/* gguf_map.c: what GGUF calls the tensors that hold a parameter: as its module's type says, so that
 * all families have the same; some architectures have a name of their own. */
#include "recipes/models/mixers/mixers.h"

#include <string.h>

i64 gguf_parts(const struct param *p) { return p->type->gguf.cut || strchr(p->name, '|') ? 2 : 1; }

/* Names that differ by architecture. */
static const struct {
    const char *arch;
    const struct module_type *type;
    u32 when; /* HAS_ bits of the rule */
    const char *stem;
} others[] = {{"gpt-oss", &norm_pre_ffn, 0, "post_attention_norm"},
              {"glm4moe", &norm_pre_ffn, 0, "post_attention_norm"},
              {"falcon", &norm_input, HAS_TWO_NORMS, "attn_norm_2"},
              {"falcon", &norm_pre_ffn, HAS_TWO_NORMS, "attn_norm"}};

void gguf_name(char out[256], const struct gguf_arch *arch, const struct param *p, i64 part) {
    const char *stem = p->type->gguf.stem ? p->type->gguf.stem : "", *bar = strchr(stem, '|');
    const bool bias = p->rule->cols == DIM_BIAS || p->type->gguf.is_bias;
    const char *kind = bias ? "bias" : "weight";
    for (int i = 0; i < COUNT(others); i++)
        if (!strcmp(others[i].arch, arch->name) && others[i].type == p->type &&
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
