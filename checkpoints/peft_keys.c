/* peft_keys.c: which modules an adapter is for, and what its tensors are called on disk.
 *
 * Key = "base_model.model." + module path + ".lora_A.weight" [r, in] or ".lora_B.weight" [out, r];
 * a tensor of modules_to_save stands under its plain path. Other parts that PEFT can write (DoRA
 * magnitudes, embedding adapters, biases of B, wrapped base layers, trainable tokens) are refused
 * by name. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "checkpoints/checkpoints_int.h"
#include <pcre2.h>
#include <string.h>

static const char prefix[] = "base_model.model.", suffix_a[] = ".lora_A.weight",
                  suffix_b[] = ".lora_B.weight";

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n > m && !strcmp(text + n - m, end);
}

static int regex_match(const char *pattern, const char *module, struct err *e) {
    int code, status = 0;
    PCRE2_SIZE at;
    pcre2_code *regex =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &at, NULL);
    if (!regex) {
        char why[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return err_input(e, "target_modules \"%.150s\": at byte %zu: %s", pattern, (size_t)at, why);
    }
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(regex, NULL);
    int found = match ? pcre2_match(regex, (PCRE2_SPTR)module, strlen(module), 0, 0, match, NULL)
                      : PCRE2_ERROR_NOMEMORY;
    if (found < 0 && found != PCRE2_ERROR_NOMATCH)
        status = err_input(e, "target_modules \"%.150s\" is too costly to match with %.200s",
                           pattern, module);
    pcre2_match_data_free(match);
    pcre2_code_free(regex);
    return status ? status : found >= 0;
}

int lora_match(const struct lora_config *c, const char *module, struct err *e) {
    if (c->target_regex)
        return strcmp(c->target_regex, "all-linear") ? regex_match(c->target_regex, module, e) : 1;
    for (i64 i = 0; i < c->target_modules.count; i++) {
        const char *item = c->target_modules.item[i];
        size_t n = strlen(module), m = strlen(item);
        if (!strcmp(module, item) || (ends_with(module, item) && module[n - m - 1] == '.'))
            return 1;
    }
    return 0;
}

char *lora_key(struct arena *a, const char *name, enum lora_part part, struct err *e) {
    return arena_printf(a, e, "%s%s%s", prefix, name,
                        part == LORA_A   ? suffix_a
                        : part == LORA_B ? suffix_b
                                         : "");
}

int lora_key_parse(const char *key, enum lora_part *part, char **name, struct arena *a,
                   struct err *e) {
    static const char *const refused[] = {
        "lora_magnitude_vector", "lora_embedding_A", "lora_embedding_B", "lora_bias",
        ".lora_A.bias",          ".lora_B.bias",     ".base_layer.",     ".token_adapter."};
    size_t n = sizeof prefix - 1;
    if (strncmp(key, prefix, n))
        return err_input(e, "adapter tensor %.200s does not begin with %s", key, prefix);
    for (i64 i = 0; i < COUNT(refused); i++)
        if (strstr(key, refused[i]))
            return err_input(e, "adapter tensor %.200s: %s is not supported", key, refused[i]);
    *part = ends_with(key + n, suffix_a)   ? LORA_A
            : ends_with(key + n, suffix_b) ? LORA_B
                                           : LORA_SAVED;
    size_t cut = *part == LORA_SAVED ? 0 : sizeof suffix_a - 1;
    *name = arena_printf(a, e, "%.*s", (int)(strlen(key + n) - cut), key + n);
    return *name ? 0 : -1;
}

static int tensor_check(const struct stored *t, const struct lora_config *c,
                        const struct safetensors *s, struct arena *a, struct err *e) {
    enum lora_part part;
    char *name, text[192];
    if (lora_key_parse(t->name, &part, &name, a, e)) return -1;
    if (part == LORA_SAVED) {
        for (i64 i = 0; i < c->modules_to_save.count; i++) {
            const char *at = strstr(name, c->modules_to_save.item[i]);
            size_t n = strlen(c->modules_to_save.item[i]);
            if (at && (at == name || at[-1] == '.') && (at[n] == '.' || !at[n])) return 0;
        }
        return err_input(e, "adapter tensor %.200s is no part of LoRA and not in modules_to_save",
                         t->name);
    }
    if (t->rank != 2 || t->dim[part == LORA_A ? 0 : 1] != c->r)
        return err_input(e, "adapter tensor %.200s has shape %s; with r %lld expected %s", t->name,
                         shape_text(text, t->rank, t->dim), (long long)c->r,
                         part == LORA_A ? "[r, in]" : "[out, r]");
    char *other = lora_key(a, name, part == LORA_A ? LORA_B : LORA_A, e);
    if (!other) return -1;
    if (!safetensors_find(s, other))
        return err_input(e, "adapter tensor %.200s is there, but not %.200s", t->name, other);
    return 0;
}

int adapter_open(const char *folder, struct lora_config *c, struct safetensors *s, struct err *e) {
    *c = (struct lora_config){0};
    *s = (struct safetensors){0};
    struct arena a = {0};
    char *config = path_join(&a, folder, "adapter_config.json", e);
    char *weights = path_join(&a, folder, "adapter_model.safetensors", e);
    int status =
        !config || !weights || lora_config_read(c, config, e) || safetensors_open(s, weights, e);
    for (i64 i = 0; i < s->count && !status; i++) status = tensor_check(&s->tensor[i], c, s, &a, e);
    if (!status && !s->count) status = err_input(e, "%s holds no tensors", weights);
    arena_free(&a);
    return status ? err_frame(e, "opening adapter %s", folder) : 0;
}
