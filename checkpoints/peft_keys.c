/* peft_keys.c: which modules an adapter is for, and what its tensors are called on disk.
 *
 * Key = "base_model.model." + module path + a suffix, such as ".lora_A.weight" [r, in]; a tensor of
 * modules_to_save stands under its plain path. Other parts that PEFT can write (biases of A and B)
 * are refused by name. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "checkpoints/checkpoints_int.h"
#include <pcre2.h>
#include <string.h>

static const char prefix[] = "base_model.model.";
static const char *const suffix[] = {".lora_A.weight",
                                     ".lora_B.weight",
                                     ".lora_embedding_A",
                                     ".lora_embedding_B",
                                     ".lora_magnitude_vector",
                                     ".base_layer.weight",
                                     ".token_adapter.trainable_tokens_delta",
                                     ""};

int lora_regex(const char *pattern, const char *text, struct err *e) {
    int code, status = 0;
    PCRE2_SIZE at;
    pcre2_code *regex =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &at, NULL);
    if (!regex) {
        char why[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return err_input(e, "pattern \"%.150s\": at byte %zu: %s", pattern, (size_t)at, why);
    }
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(regex, NULL);
    int found = match ? pcre2_match(regex, (PCRE2_SPTR)text, strlen(text), 0, 0, match, NULL)
                      : PCRE2_ERROR_NOMEMORY;
    if (found < 0 && found != PCRE2_ERROR_NOMATCH)
        status =
            err_input(e, "pattern \"%.150s\" is too costly to match with %.200s", pattern, text);
    pcre2_match_data_free(match);
    pcre2_code_free(regex);
    return status ? status : found >= 0;
}

static bool in_list(const struct text_list *list, const char *module) {
    for (i64 i = 0; i < list->count; i++) {
        const size_t n = strlen(module), m = strlen(list->item[i]);
        if (!strcmp(module, list->item[i]) ||
            (ends_with(module, list->item[i]) && module[n - m - 1] == '.'))
            return true;
    }
    return false;
}
static bool is_item(const struct text_list *list, const char *text) {
    for (i64 i = 0; i < list->count; i++)
        if (!strcmp(list->item[i], text)) return true;
    return false;
}

/* As PEFT finds the layer of a module: its path's last part that is a number, with two or more
 * parts before it and one or more after it. */
static bool layer_wanted(const struct lora_config *c, const char *module) {
    char last[32] = "";
    for (i64 i = 0; i < c->layers_pattern.count; i++) { /* ".PATTERN.N.", the last one of it */
        char mark[160];
        const int size = snprintf(mark, sizeof mark, ".%.150s.", c->layers_pattern.item[i]);
        for (const char *at = module, *hit; (hit = strstr(at, mark)); at = hit + 1) {
            const char *number = hit + size;
            const size_t n = strspn(number, "0123456789");
            if (n && n < sizeof last && number[n] == '.') memcpy(last, number, n), last[n] = 0;
        }
        if (*last) break;
    }
    if (c->layers_pattern.count) return is_item(&c->layers_to_transform, last);
    int part = 0;
    for (const char *p = module, *dot; (dot = strchr(p, '.')); p = dot + 1, part++) {
        const size_t n = (size_t)(dot - p);
        if (part > 1 && n && n == strspn(p, "0123456789") && n < sizeof last)
            memcpy(last, p, n), last[n] = 0;
    }
    return is_item(&c->layers_to_transform, last);
}

int lora_match(const struct lora_config *c, const char *module, struct err *e) {
    const int out = c->exclude_regex ? lora_regex(c->exclude_regex, module, e)
                                     : in_list(&c->exclude_modules, module);
    if (out) return out < 0 ? -1 : 0;
    const bool all = c->target_regex && !strcmp(c->target_regex, "all-linear");
    if (c->target_regex && !all) return lora_regex(c->target_regex, module, e);
    if (!all && is_item(&c->target_modules, module)) return 1; /* named whole: whatever its layer */
    if (!all && !in_list(&c->target_modules, module)) return 0;
    return !c->layers_to_transform.count || layer_wanted(c, module);
}

bool lora_targets(const struct lora_config *c, const char *tensor) {
    return in_list(&c->target_parameters, tensor);
}

/* As PEFT: a module whose path ends in an item, with or without a dot before it, and what is in it.
 */
bool lora_saves(const struct lora_config *c, const char *tensor) {
    for (const char *dot = strchr(tensor, '.'); dot; dot = strchr(dot + 1, '.'))
        for (i64 i = 0; i < c->modules_to_save.count; i++) {
            const char *item = c->modules_to_save.item[i];
            const size_t n = strlen(item), m = (size_t)(dot - tensor);
            if (m >= n && !memcmp(dot - n, item, n)) return true;
        }
    return false;
}

bool lora_replaces(const struct lora_config *c, const char *tensor) {
    static const char *const table[] = {"embed_tokens.weight", "lm_head.weight",
                                        "wte.weight",          "embed_in.weight",
                                        "embed_out.weight",    "word_embeddings.weight"};
    for (int i = 0; i < COUNT(table); i++)
        if (ends_with(tensor, table[i])) return true;
    return c->biases && ends_with(tensor, ".bias");
}

char *lora_key(struct arena *a, const char *name, enum lora_part part, struct err *e) {
    return arena_printf(a, e, "%s%s%s", prefix, name, suffix[part]);
}

int lora_key_parse(const char *key, enum lora_part *part, char **name, struct arena *a,
                   struct err *e) {
    static const char *const refused[] = {"lora_bias", ".lora_A.bias", ".lora_B.bias"};
    size_t n = sizeof prefix - 1;
    if (strncmp(key, prefix, n))
        return err_input(e, "adapter tensor %.200s does not begin with %s", key, prefix);
    for (i64 i = 0; i < COUNT(refused); i++)
        if (strstr(key, refused[i]) && !strstr(key, ".experts.base_layer.lora_"))
            return err_input(e, "adapter tensor %.200s: %s is not supported", key, refused[i]);
    *part = LORA_A;
    while (*part < LORA_SAVED && !(key[n] && ends_with(key + n + 1, suffix[*part]))) ++*part;
    const size_t cut = strlen(suffix[*part]);
    *name = arena_printf(a, e, "%.*s", (int)(strlen(key + n) - cut), key + n);
    return *name ? 0 : -1;
}
