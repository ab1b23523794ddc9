/* gguf_export.c: a model as a GGUF file's metadata and tensors: gguf_config.c's table the other
 * way, and what llama.cpp takes from nowhere else.
 *
 * llama.cpp derives some of a computation from the architecture's name (Gemma's scale of scores,
 * the layers with a window, SmolLM3's layers without positions). Where a model differs from what it
 * would derive, it is refused by name; a file that runs and says something else is worse than none.
 */
#include "recipes/models/mixers/mixers.h"

#include <jansson.h>
#include <string.h>

static const struct gguf_arch *arch_for(const struct config *c, struct err *e) {
    const struct gguf_arch *arch = gguf_arch_of(c->family->model_type);
    if (arch) return arch;
    err_input(e, "models of type %s are not written as GGUF", c->family->model_type);
    err_hint(e, "export a Hugging Face folder; llama.cpp's own converter may know the model");
    return NULL;
}

static i64 window_of(const struct config *c) { /* the largest; 0: none */
    i64 window = 0;
    for (i64 l = 0; l < c->layers; l++) window = i64_max(window, c->layer[l].window);
    return window;
}

i64 model_gguf_length(const struct model *m) {
    const struct gguf_arch *arch = gguf_arch_of(m->config.family->model_type);
    const i64 window = window_of(&m->config), length = m->config.max_position_embeddings;
    return window && !(arch && arch->window) ? i64_min(window, length) : length;
}

/* What llama.cpp would do otherwise, without saying so. */
static int derived_check(const struct config *c, const struct gguf_arch *arch, struct err *e) {
    const char *type = c->family->model_type;
    const bool oss = !strcmp(type, "gpt_oss"), latent = c->mla.kv_rank > 0;
    const bool renormed = !strcmp(type, "mixtral") || !strcmp(type, "qwen3_moe") || oss;
    const bool wide = is_wide_gemma(type, c->layers);
    const struct rope_config *r = &c->rope[0];
    const double mscale =
        latent && r->type == ROPE_YARN ? 1 + 0.1 * r->mscale_all_dim * m_log(r->factor) : 1;
    /* each architecture has one activation: that of the family's own files */
    if ((c->act != ACT_SILU) != (strstr(c->family->defaults, "gelu") != NULL) ||
        (c->alibi && strcmp(arch->name, "bloom")))
        return err_input(e,
                         "llama.cpp's %s has another activation, or no ALiBi: this model is not "
                         "written as GGUF",
                         arch->name);
    const double width = wide ? (double)c->hidden_size / (double)c->heads : (double)c->head_dim,
                 scale = mscale * mscale / __builtin_sqrt(width);
    for (i64 l = 0; l < c->layers; l++) {
        const struct layer_config *at = &c->layer[l];
        if (c->experts && !arch->deep &&
            (at->mixer[1] != &mixer_experts || c->route.renorm != renormed ||
             (oss && (c->glu_limit != 7 || c->glu_alpha != 1.702))))
            return err_input(e,
                             "llama.cpp's %s chooses experts otherwise, or has them in other "
                             "layers, than this model: not written as GGUF",
                             arch->name);
        const bool nope = !strcmp(type, "smollm3") && l % 4 == 3;
        if (!(at->scale > scale * 0.999 && at->scale < scale * 1.001))
            return err_input(e,
                             "llama.cpp's %s scales the scores of layer %lld by %g, this model "
                             "by %g: not written as GGUF",
                             arch->name, (long long)l, scale, at->scale);
        if (arch->window &&
            (at->window > 0) != (arch->window == 1 || (l + 1) % arch->window != 0) && window_of(c))
            return err_input(e,
                             "llama.cpp's %s has a window in other layers than this model: not "
                             "written as GGUF",
                             arch->name);
        if (c->rope[0].dims && (at->rope < 0) != nope)
            return err_input(e,
                             "llama.cpp's %s has positions in other layers than this model: not "
                             "written as GGUF",
                             arch->name);
    }
    /* it takes these from no file; GPT-OSS's are cut off too, here too little to matter */
    const bool yarn =
        r->type == ROPE_YARN && (r->beta_fast != 32 || r->beta_slow != 1 || r->truncate == oss);
    const bool third = !strcmp(arch->name, "mistral3"), fixed = third || latent;
    if (r->type == ROPE_DYNAMIC || yarn || (r->query_beta != 0 && !third) ||
        (r->type == ROPE_YARN && fixed && r->attention_factor != 1) ||
        (fixed && r->type == ROPE_YARN && !(r->mscale_all_dim > 0))) {
        err_input(e, "RoPE scaling '%s' as this model has it has no counterpart in llama.cpp's %s",
                  rope_text(r), arch->name);
        return yarn ? err_detail(e, "its yarn has beta_fast 32, beta_slow 1 and truncates") : -1;
    }
    const bool lite =
        c->layers == 26 || c->layers == 27 || (c->layers == 48 && c->vocab_size == 128256);
    if (latent && lite == (c->mla.q_rank > 0))
        return err_input(e,
                         "llama.cpp infers query latents of %s from the layer count and would "
                         "misread this model: it is not written as GGUF",
                         arch->name);
    if (latent && (c->norm_eps != 1e-6 || (c->route.groups > 1 && c->route.score != ROUTE_SIGMOID)))
        return err_input(e,
                         "llama.cpp's %s has another epsilon in the norms of latents, or chooses "
                         "groups of experts otherwise: this model is not written as GGUF",
                         arch->name);
    return 0;
}

/* The configuration with what only the model knows. A new reference. */
static json_t *values_of(const struct model *m, const struct gguf_arch *arch, const json_t *file,
                         struct err *e) {
    const struct config *c = &m->config;
    const i64 window = arch->window ? window_of(c) : 0;
    json_t *o = config_effective(file, "config.json", e);
    if (!o) return NULL;
    const struct {
        const char *key;
        i64 value;
    } whole[] = {{"max_position_embeddings", model_gguf_length(m)},
                 {"hidden_size", c->hidden_size},
                 {"num_hidden_layers", c->layers},
                 {"intermediate_size", c->intermediate_size},
                 {"num_attention_heads", c->heads},
                 {"num_key_value_heads", c->mla.kv_rank ? 1 : c->kv_heads},
                 {"head_dim", c->mla.kv_rank ? c->mla.kv_rank + c->mla.rope_dim : c->head_dim},
                 {"sliding_window", window},
                 {"n_group", c->route.groups},
                 {"topk_group", c->route.top_groups}};
    for (int i = 0; i < COUNT(whole); i++)
        json_object_set_new(o, whole[i].key, json_integer(whole[i].value));
    if (!window) json_object_del(o, "sliding_window");
    json_object_del(o, "rms_norm_eps"), json_object_del(o, "layer_norm_eps");
    json_object_set_new(o, c->family->norm == NORM_RMS ? "rms_norm_eps" : "layer_norm_eps",
                        json_real(c->norm_eps));
    if (c->rope[0].dims)
        json_object_set_new(o, "rope_theta", json_real(c->rope[0].theta));
    else
        json_object_del(o, "rope_theta");
    return o;
}

static int rope_put(struct gguf_writer *w, const struct config *c, const char *arch,
                    struct err *e) {
    static const char *const name[] = {[ROPE_LINEAR] = "linear", [ROPE_YARN] = "yarn"};
    const struct rope_config *r = &c->rope[0];
    char key[7][96];
    static const char *const keys[] = {"dimension_count",
                                       "scaling.type",
                                       "scaling.factor",
                                       "scaling.original_context_length",
                                       "scaling.attn_factor",
                                       "scaling.finetuned",
                                       "scaling.yarn_log_multiplier"};
    for (int i = 0; i < COUNT(keys); i++)
        snprintf(key[i], sizeof key[i], "%s.rope.%s", arch, keys[i]);
    if (!r->dims) return 0;
    if (gguf_put_u32(w, key[0], r->dims, e)) return -1;
    if (r->type != ROPE_LINEAR && r->type != ROPE_YARN && r->type != ROPE_LONGROPE) return 0;
    /* longrope is in its tensors of factors: with a type, llama.cpp would scale besides */
    if (r->type != ROPE_LONGROPE &&
        (gguf_put_text(w, key[1], name[r->type], e) || gguf_put_f32(w, key[2], r->factor, e) ||
         gguf_put_bool(w, key[5], true, e)))
        return -1;
    if (r->type == ROPE_LINEAR) return 0;
    if (c->mla.kv_rank) /* llama.cpp's converter has the tenth, too */
        return gguf_put_u32(w, key[3], (i64)r->original_length, e) ||
                       gguf_put_f32(w, key[6], 0.1 * r->mscale_all_dim, e)
                   ? -1
                   : 0;
    if (!strcmp(arch, "mistral3")) {
        snprintf(key[0], sizeof key[0], "%s.attention.temperature_scale", arch);
        snprintf(key[1], sizeof key[1], "%s.attention.temperature_length", arch);
        return gguf_put_u32(w, key[3], (i64)r->original_length, e) ||
                       gguf_put_f32(w, key[6], r->mscale_all_dim, e) ||
                       gguf_put_f32(w, key[0], r->query_beta, e) ||
                       gguf_put_u32(w, key[1], (i64)r->original_length, e)
                   ? -1
                   : 0;
    }
    const double usual =
        r->type == ROPE_YARN ? 1 + 0.1 * m_log(r->factor) : 1; /* llama.cpp's own */
    return gguf_put_u32(w, key[3], (i64)r->original_length, e) ||
                   gguf_put_f32(w, key[4], r->attention_factor / usual, e)
               ? -1
               : 0;
}

/* Keys that no configuration has: how experts are scored, and the sizes of a head of its own
 * (attention works on latents, which are one key and value for all heads). */
static int experts_put(struct gguf_writer *w, const struct config *c, const struct gguf_arch *arch,
                       struct err *e) {
    const struct {
        const char *key;
        i64 value;
        bool here;
    } all[] = {{"expert_gating_func", c->route.score == ROUTE_SIGMOID ? 2 : 1, arch->deep},
               {"expert_feed_forward_length", c->expert_size, !strcmp(arch->name, "gpt-oss")},
               {"attention.key_length_mla", c->head_dim, c->mla.kv_rank > 0}};
    for (int i = 0; i < COUNT(all); i++) {
        char key[96];
        snprintf(key, sizeof key, "%s.%s", arch->name, all[i].key);
        if (all[i].here && gguf_put_u32(w, key, all[i].value, e)) return -1;
    }
    return 0;
}

/* What llama.cpp has as one list, by layer, where files of ours have tensors. */
static int lists_put(struct gguf_writer *w, const struct model *m, struct err *e) {
    struct arena a = {0};
    const i64 layers = m->config.layers;
    int rc = 0;
    for (i64 i = 0; !rc && i < m->range[1].count; i++) {
        const struct module_type *type = m->weights.module[m->range[1].first + i].type;
        const char *key = type->gguf.list;
        float *x = key ? arena_new(&a, layers * (i64)sizeof *x, e) : NULL;
        for (i64 l = 0; x && l < layers; l++) x[l] = param_get(model_module(m, l, type)->weight, 0);
        if (key) rc = !x || gguf_put_f32s(w, key, x, layers, e);
    }
    arena_free(&a);
    return rc;
}

int model_gguf_metadata(struct gguf_writer *w, const struct model *m, const json_t *file,
                        const char *name, i64 file_type, struct err *e) {
    const struct config *c = &m->config;
    const struct gguf_arch *arch = arch_for(c, e);
    if (!arch || derived_check(c, arch, e)) return -1;
    json_t *o = values_of(m, arch, file, e);
    char key[96];
    int rc = !o || gguf_put_text(w, "general.architecture", arch->name, e) ||
             gguf_put_text(w, "general.type", "model", e) ||
             gguf_put_text(w, "general.name", name, e) ||
             gguf_put_u32(w, "general.file_type", file_type, e) ||
             gguf_put_u32(w, "general.quantization_version", 2, e) || gguf_put_keys(w, arch, o, e);
    snprintf(key, sizeof key, "%s.vocab_size", arch->name);
    rc = rc || gguf_put_u32(w, key, c->vocab_size, e);
    snprintf(key, sizeof key, "%s.attention.value_length", arch->name);
    rc = rc || gguf_put_u32(w, key, c->mla.kv_rank ? c->mla.kv_rank : c->head_dim, e) ||
         rope_put(w, c, arch->name, e) || experts_put(w, c, arch, e) || lists_put(w, m, e);
    json_decref(o);
    return rc ? -1 : 0;
}

/* ---- tensors */

static const struct gguf_type *type_for(const struct model *m, const struct param *p,
                                        const struct stored *s, const struct gguf_type *wanted) {
    const i64 row = s->rank ? s->dim[s->rank - 1] : 1;
    const bool few = wanted->elements > 1 && strcmp(wanted->name, "Q8_0");
    if (s->rank < 2 || !p->rule || p->rule->cols == DIM_NONE || p->rule->cols == DIM_BIAS ||
        p->type->gguf.precise)
        return gguf_type_of("F32");
    if (few && p == model_module(m, -1, &top_head)->weight) wanted = gguf_type_of("Q8_0");
    if (row % wanted->elements) wanted = gguf_type_of("Q8_0");
    return row % wanted->elements ? gguf_type_of("F16") : wanted;
}

static int tensor_add(struct gguf_tensors *t, const struct stored *s, const struct gguf_type *type,
                      struct err *e) {
    struct gguf_tensor *more =
        mem_grow(t->tensor, t->count * (i64)sizeof *more, (t->count + 1) * (i64)sizeof *more, e);
    if (!more) return -1;
    t->tensor = more;
    t->tensor[t->count++] = (struct gguf_tensor){*s, type};
    return 0;
}

/* RoPE's factors, where llama.cpp takes them from a tensor. */
static int factors_add(struct gguf_tensors *t, const struct config *c, struct err *e) {
    const struct rope_config *r = &c->rope[0];
    const bool two = r->type == ROPE_LONGROPE;
    if (r->type != ROPE_LLAMA3 && !two) return 0;
    for (int far = 0; far < 1 + two; far++) {
        float *x = arena_new(&t->stored.arena, r->dims * 2, e);
        if (!x) return -1;
        for (i64 i = 0; i < r->dims / 2; i++) x[i] = (float)rope_factor(r, i, far);
        const struct stored s = {.name = !two  ? "rope_freqs.weight"
                                         : far ? "rope_factors_long.weight"
                                               : "rope_factors_short.weight",
                                 .dtype = F32,
                                 .rank = 1,
                                 .dim = {r->dims / 2},
                                 .data = (u8 *)x,
                                 .bytes = r->dims * 2};
        if (tensor_add(t, &s, gguf_type_of("F32"), e)) return -1;
    }
    return 0;
}

int model_gguf_tensors(struct gguf_tensors *t, struct model *m, const struct gguf_type *type,
                       struct err *e) {
    const struct gguf_arch *arch = arch_for(&m->config, e);
    int rc = arch ? factors_add(t, &m->config, e) : -1;
    const struct naming names = {.gguf = arch};
    for (i64 i = 0; !rc && i < m->weights.params; i++) {
        const struct param *p = m->weights.param[i];
        const i64 before = t->stored.count;
        if (!p->type || p->type->gguf.list) continue;
        if (!p->type->gguf.stem) {
            rc = err_input(e, "tensor %s has no counterpart in llama.cpp's %s that hone knows",
                           p->name, arch->name);
            break;
        }
        rc = param_stored_as(&names, p, "", p->view.data, p->view.dtype, &t->stored, e);
        for (i64 k = before; !rc && k < t->stored.count; k++) {
            const struct stored *s = &t->stored.tensor[k];
            rc = tensor_add(t, s, type_for(m, p, s, type), e);
        }
    }
    return rc;
}

/* A and B of an adapter, named after the tensor they change; B's rows lie as that tensor's do. */
int lora_gguf_tensors(struct gguf_tensors *t, struct model *m, struct err *e) {
    const struct gguf_arch *arch = arch_for(&m->config, e);
    int rc = arch ? 0 : -1;
    const struct lora_config none = {0}, *c = m->lora ? m->lora : &none;
    const char *refused = c->target_parameters.count                   ? "experts"
                          : c->use_dora                                ? "DoRA"
                          : c->modules_to_save.count                   ? "modules_to_save"
                          : lora_is_pissa(c)                           ? "init_lora_weights pissa"
                          : model_module(m, -1, &top_embed)->adapter.a ? "the embedding"
                          : model_module(m, -1, &top_head)->adapter.a  ? "the LM head"
                                                                       : NULL;
    if (!rc && refused)
        rc =
            err_input(e, "an adapter with %s cannot be written as GGUF; merge it instead", refused);
    for (i64 n = 0; !rc && n < m->weights.modules; n++) {
        const struct module *at = &m->weights.module[n];
        const struct param *half[2] = {at->adapter.a, at->adapter.b}, *w = at->weight;
        if (!half[0] || at->type->kind != MODULE_LINEAR) continue;
        if (at->type->gguf.heads)
            return err_input(e,
                             "an adapter of %s cannot be written as GGUF, which has that weight in "
                             "two parts; merge it instead",
                             strrchr(at->path, '.') + 1);
        for (int i = 0; !rc && i < 2; i++) {
            char name[256];
            struct param p = *half[i];
            p.rule = i ? w->rule : NULL, p.type = i ? w->type : NULL;
            gguf_name(name, arch, w, 0);
            const struct naming names = {.gguf = i ? arch : NULL};
            const i64 k = t->stored.count;
            rc = param_stored_as(&names, &p, "", p.view.data, p.view.dtype, &t->stored, e);
            if (rc) break;
            struct stored *s = &t->stored.tensor[k];
            s->name = arena_printf(&t->stored.arena, e, "%s.lora_%c", name, i ? 'b' : 'a');
            rc = !s->name || tensor_add(t, s, gguf_type_of("F32"), e) ? -1 : 0;
        }
    }
    return rc;
}

int lora_gguf_metadata(struct gguf_writer *w, const struct model *m, struct err *e) {
    const struct gguf_arch *arch = arch_for(&m->config, e);
    double alpha = 0;
    /* llama.cpp multiplies by alpha / r: alpha is what gives our scale, rsLoRA's too */
    for (i64 i = 0; arch && i < m->weights.modules; i++) {
        const struct lora_pair *p = &m->weights.module[i].adapter;
        if (m->weights.module[i].type->kind != MODULE_LINEAR) continue;
        const double own = p->a ? p->scale * (double)p->a->view.dim[0] : alpha;
        if (alpha != 0 && !(__builtin_fabs(own - alpha) <= 1e-12 * __builtin_fabs(alpha))) {
            err_input(e,
                      "as GGUF an adapter has one alpha, and %s has another than those before it",
                      m->weights.module[i].weight->name);
            return err_hint(e, "merge it: leave --adapter-only out");
        }
        alpha = own;
    }
    return !arch || gguf_put_text(w, "general.architecture", arch->name, e) ||
                   gguf_put_text(w, "general.type", "adapter", e) ||
                   gguf_put_text(w, "adapter.type", "lora", e) ||
                   gguf_put_f32(w, "adapter.lora.alpha", alpha, e)
               ? -1
               : 0;
}

void gguf_tensors_free(struct gguf_tensors *t) {
    mem_free(t->tensor), stored_free(&t->stored);
    *t = (struct gguf_tensors){0};
}
