/* peft_open.c: an adapter's folder: its configuration, and whether its tensors are what that says.
 */
#include "checkpoints/checkpoints_int.h"
#include <string.h>

static int tensor_check(const struct stored *t, const struct lora_config *c,
                        const struct safetensors *s, struct arena *a, struct err *e) {
    static const enum lora_part partner[] = {LORA_B, LORA_A, LORA_EMBED_B, LORA_EMBED_A, LORA_A};
    enum lora_part part;
    char *name, text[192];
    i64 r;
    double scale;
    if (lora_key_parse(t->name, &part, &name, a, e)) return -1;
    if (part == LORA_SAVED) {
        if (lora_saves(c, name) || lora_replaces(c, name)) return 0;
        return err_input(e, "adapter tensor %.200s is no part of LoRA and not in modules_to_save",
                         t->name);
    }
    if (part == LORA_BASE) return 0;
    if (part == LORA_TOKENS) {
        for (i64 i = 0; i < c->tokens_count; i++) {
            const struct lora_tokens *of = &c->tokens[i];
            if (of->module && !ends_with(name, of->module)) continue;
            if (t->rank == 2 && t->dim[0] == of->count) return 0;
            return err_input(
                e, "adapter tensor %.200s has shape %s; trainable_token_indices names %lld tokens",
                t->name, shape_text(text, t->rank, t->dim), (long long)of->count);
        }
        return err_input(e, "adapter tensor %.200s is of no module in trainable_token_indices",
                         t->name);
    }
    if (lora_of(c, name, &r, &scale, e)) return -1;
    const bool first = part == LORA_A || part == LORA_EMBED_A, /* of experts the model knows */
        experts = c->target_parameters.count &&
                  (ends_with(name, ".experts") || ends_with(name, ".experts.base_layer"));
    const i64 found = t->rank == 2 ? t->dim[first ? 0 : 1] : 0;
    if (part != LORA_MAGNITUDE && (experts ? found < 1 : found != r))
        return err_input(e, "adapter tensor %.200s has shape %s; with r %lld expected %s", t->name,
                         shape_text(text, t->rank, t->dim), (long long)r,
                         first ? "[r, in]" : "[out, r]");
    if ((part == LORA_MAGNITUDE) && !c->use_dora)
        return err_input(e, "adapter tensor %.200s is DoRA's, but use_dora is false", t->name);
    char *other = lora_key(a, name, partner[part], e);
    if (!other) return -1;
    if (part == LORA_MAGNITUDE && !safetensors_find(s, other))
        other = lora_key(a, name, LORA_EMBED_A, e);
    if (!other) return -1;
    if (!safetensors_find(s, other))
        return err_input(e, "adapter tensor %.200s is there, but not %.200s", t->name, other);
    return 0;
}

/* Names as PEFT writes them, where a training script dumped them as they are in memory: without the
 * adapter's name, and without the wrapper of what is saved whole. */
static int names_clean(struct safetensors *s, struct err *e) {
    static const char *const part[] = {".modules_to_save.default", ".default"};
    bool changed = false;
    for (i64 i = 0; i < s->count; i++)
        for (int k = 0; k < COUNT(part); k++) {
            const char *name = s->tensor[i].name, *at = strstr(name, part[k]);
            const size_t n = strlen(part[k]);
            if (!at || (at[n] && at[n] != '.')) continue;
            s->tensor[i].name =
                arena_printf(&s->memory, e, "%.*s%s", (int)(at - name), name, at + n);
            if (!s->tensor[i].name) return -1;
            changed = true;
        }
    return changed ? safetensors_index(s, "the adapter", e) : 0;
}

/* Where there is no safetensors file: what there is instead. */
static int weights_missing(const char *folder, const char *weights, struct err *e) {
    if (path_exists(weights)) return 0;
    const int pickle = path_has(folder, "adapter_model.bin", e);
    if (pickle < 0) return -1;
    err_input(e, "%s holds no adapter_model.safetensors", folder);
    if (pickle)
        err_hint(e,
                 "adapter_model.bin is a Python pickle, which hone does not run: save the adapter "
                 "again with PEFT (safe_serialization=True)");
    return -1;
}

int adapter_open(const char *folder, struct lora_config *c, struct safetensors *s, struct err *e) {
    *c = (struct lora_config){0};
    *s = (struct safetensors){0};
    struct arena a = {0};
    char *config = path_join(&a, folder, "adapter_config.json", e);
    char *weights = path_join(&a, folder, "adapter_model.safetensors", e);
    int status = !config || !weights || lora_config_read(c, config, e) ||
                 weights_missing(folder, weights, e) || safetensors_open(s, weights, e) ||
                 names_clean(s, e);
    for (i64 i = 0; i < s->count && !status; i++) status = tensor_check(&s->tensor[i], c, s, &a, e);
    if (!status && !s->count) status = err_input(e, "%s holds no tensors", weights);
    arena_free(&a);
    if (status) hub_hint(folder, e);
    return status ? err_frame(e, "opening adapter %s", folder) : 0;
}
