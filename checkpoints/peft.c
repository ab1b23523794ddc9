/* peft.c: adapter_config.json of PEFT 0.21.
 *
 * PEFT warns about keys it does not know and goes on; an adapter then computes something else than
 * it was trained for. Here each key is one of three: honoured (struct lora_config), inert
 * (describes where a file came from), or required to have its neutral value, since hone does not
 * implement what another value would mean. Unknown keys count as the last. Writing gives the same
 * keys in the same order and layout as PEFT (json.dumps, indent 2, sorted). */
#include "checkpoints/checkpoints_int.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const honoured[] = {"r",
                                       "lora_alpha",
                                       "lora_dropout",
                                       "target_modules",
                                       "target_parameters",
                                       "modules_to_save",
                                       "use_rslora",
                                       "use_dora",
                                       "rank_pattern",
                                       "alpha_pattern",
                                       "exclude_modules",
                                       "layers_to_transform",
                                       "init_lora_weights",
                                       "layers_pattern",
                                       "trainable_token_indices",
                                       "ensure_weight_tying",
                                       "bias",
                                       "base_model_name_or_path"};
/* What a file came from, and how A and B began, which no longer matters. */
static const char *const inert[] = {
    "auto_mapping",      "inference_mode", "peft_version",   "revision",       "megatron_core",
    "qalora_group_size", "loftq_config",   "runtime_config", "fan_in_fan_out", "eva_config"};
/* Settings where one value is right; anything but null, false, {} and [] is otherwise refused. */
static const struct {
    const char *key, *value;
} fixed[] = {{"peft_type", "LORA"}, {"task_type", "CAUSAL_LM"}};

static bool in_list(const char *const *list, i64 count, const char *key) {
    for (i64 i = 0; i < count; i++)
        if (!strcmp(list[i], key)) return true;
    return false;
}

static bool is_neutral(const json_t *value) {
    return json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && !json_object_size(value)) ||
           (json_is_array(value) && !json_array_size(value));
}

static int keys_check(json_t *config, const char *path, struct err *e) {
    const char *key;
    json_t *value;
    for (i64 i = 0; i < COUNT(fixed); i++) {
        const char *text = json_string_value(json_object_get(config, fixed[i].key));
        if (text && !strcmp(text, fixed[i].value)) continue;
        if (!text && json_is_null(json_object_get(config, fixed[i].key)) && i) continue;
        if (!json_object_get(config, fixed[i].key) && i) continue;
        err_input(e, "%s: %s is %.100s", path, fixed[i].key, text ? text : "missing or not text");
        return err_detail(e, "hone reads adapters with %s \"%s\"", fixed[i].key, fixed[i].value);
    }
    json_object_foreach(config, key, value) {
        if (in_list(honoured, COUNT(honoured), key) || in_list(inert, COUNT(inert), key) ||
            is_neutral(value))
            continue;
        bool known = false;
        for (i64 i = 0; i < COUNT(fixed); i++) known |= !strcmp(key, fixed[i].key);
        if (known) continue;
        err_input(e, "%s: %.100s is set, which hone does not support", path, key);
        return err_hint(e, "merge the adapter with PEFT, or train it without this setting");
    }
    return 0;
}

static int list_read(struct text_list *list, const json_t *value, const char *key, const char *path,
                     struct arena *a, struct err *e) {
    if (!value || json_is_null(value)) return 0;
    if (!json_is_array(value)) return err_input(e, "%s: %s is not a list", path, key);
    list->item = arena_new(a, ((i64)json_array_size(value) + 1) * (i64)sizeof *list->item, e);
    if (!list->item) return -1;
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *text = json_string_value(json_array_get(value, i));
        if (!text || !*text) return err_input(e, "%s: item %zu of %s is not a name", path, i, key);
        if (!(list->item[list->count++] = arena_text(a, text, e))) return -1;
    }
    return 0;
}

/* A list of names, or a pattern for the whole path. */
static int modules_read(struct text_list *list, const char **regex, const json_t *j,
                        const char *key, const char *path, struct arena *a, struct err *e) {
    const json_t *value = json_object_get(j, key);
    if (!json_is_string(value)) return list_read(list, value, key, path, a, e);
    return (*regex = arena_text(a, json_string_value(value), e)) ? 0 : -1;
}

static int pattern_read(struct lora_pattern *p, const json_t *j, const char *key, const char *path,
                        struct arena *a, struct err *e) {
    json_t *map = json_object_get(j, key), *value;
    const char *name;
    if (!map || json_is_null(map)) return 0;
    if (!json_is_object(map)) return err_input(e, "%s: %s is not an object", path, key);
    const i64 count = (i64)json_object_size(map);
    p->key.item = arena_new(a, (count + 1) * (i64)sizeof *p->key.item, e);
    p->value = arena_new(a, (count + 1) * (i64)sizeof *p->value, e);
    if (!p->key.item || !p->value) return -1;
    json_object_foreach(map, name, value) {
        const double x = json_number_value(value);
        if (!(x > 0 && x <= 1 << 20))
            return err_input(e, "%s: %s of '%.100s' is not a number from 1 to %d", path, key, name,
                             1 << 20);
        if (!(p->key.item[p->key.count] = arena_text(a, name, e))) return -1;
        p->value[p->key.count++] = x;
    }
    return 0;
}

/* A number or a list of numbers. */
static int layers_read(struct text_list *list, const json_t *value, const char *path,
                       struct arena *a, struct err *e) {
    if (!value || json_is_null(value)) return 0;
    const i64 count = json_is_array(value) ? (i64)json_array_size(value) : 1;
    if (!(list->item = arena_new(a, (count + 1) * (i64)sizeof *list->item, e))) return -1;
    for (i64 i = 0; i < count; i++) {
        const json_t *n = json_is_array(value) ? json_array_get(value, (size_t)i) : value;
        if (!json_is_integer(n) || json_integer_value(n) < 0)
            return err_input(e, "%s: layers_to_transform is not a list of layer numbers", path);
        list->item[i] = arena_printf(a, e, "%lld", (long long)json_integer_value(n));
        if (!list->item[list->count++]) return -1;
    }
    return 0;
}

static int init_read(struct lora_config *c, const json_t *value, const char *path, struct err *e) {
    static const char *const word[] = {"gaussian", "pissa"};
    /* Began otherwise, with the base's weights as they are: olora, corda, loftq, lora_ga, which
     * change those, are not among them. */
    static const char *const forgotten[] = {"eva", "orthogonal"};
    const char *text = json_string_value(value);
    if (!value || json_is_true(value)) return c->init_lora_weights = "true", 0;
    if (json_is_false(value)) return c->init_lora_weights = "false", 0;
    for (i64 i = 0; i < COUNT(word); i++)
        if (text && !strcmp(text, word[i])) return c->init_lora_weights = word[i], 0;
    if (text && in_list(forgotten, COUNT(forgotten), text)) return c->init_lora_weights = "true", 0;
    return err_input(e,
                     "%s: init_lora_weights is %.100s; supported: true, false, gaussian, "
                     "orthogonal, eva, pissa",
                     path, text ? text : "not text");
}

static int bias_read(struct lora_config *c, const json_t *value, const char *path, struct err *e) {
    const char *text = json_string_value(value);
    if (!value || json_is_null(value) || (text && !strcmp(text, "none"))) return 0;
    c->biases = text && (!strcmp(text, "lora_only") || !strcmp(text, "all"));
    if (c->biases) return 0;
    return err_input(e, "%s: bias is %.100s; expected none, lora_only or all", path,
                     text ? text : "not text");
}

/* Rows of a module, in the order of the file's. */
static int token_ids(struct lora_tokens *to, const char *module, const json_t *list,
                     const char *path, struct arena *a, struct err *e) {
    const i64 n = (i64)json_array_size(list);
    to->module = module ? arena_text(a, module, e) : NULL;
    to->id = arena_new(a, (n + 1) * (i64)sizeof *to->id, e);
    if (!to->id || (module && !to->module)) return -1;
    for (i64 i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, (size_t)i);
        if (!json_is_integer(id) || json_integer_value(id) < 0)
            return err_input(e, "%s: trainable_token_indices: item %lld is no id", path,
                             (long long)i);
        to->id[to->count++] = json_integer_value(id);
    }
    return n ? 0 : err_input(e, "%s: trainable_token_indices names no tokens", path);
}

/* A list of ids, or {module: ids}. */
static int tokens_read(struct lora_config *c, json_t *value, const char *path, struct err *e) {
    const i64 n = json_is_object(value) ? (i64)json_object_size(value) : 1;
    const char *module;
    json_t *list;
    if (!value || json_is_null(value)) return 0;
    if (!(c->tokens = arena_new(&c->memory, (n + 1) * (i64)sizeof *c->tokens, e))) return -1;
    if (!json_is_object(value))
        return token_ids(&c->tokens[c->tokens_count++], NULL, value, path, &c->memory, e);
    json_object_foreach(value, module, list) {
        if (token_ids(&c->tokens[c->tokens_count++], module, list, path, &c->memory, e)) return -1;
    }
    return 0;
}

static int config_read(struct lora_config *c, json_t *j, const char *path, struct err *e) {
    if (!json_is_object(j)) return err_input(e, "%s is not a JSON object", path);
    if (keys_check(j, path, e)) return -1;
    struct arena *a = &c->memory;
    const char *base;
    c->r = json_i64(j, "r", 8, path, e);
    c->lora_alpha = json_f64(j, "lora_alpha", 8, path, e);
    c->lora_dropout = json_f64(j, "lora_dropout", 0, path, e);
    c->use_rslora = json_bool(j, "use_rslora", false, path, e);
    c->use_dora = json_bool(j, "use_dora", false, path, e);
    base = json_is_null(json_object_get(j, "base_model_name_or_path"))
               ? NULL
               : json_text(j, "base_model_name_or_path", NULL, path, e);
    if (base && !(c->base_model_name_or_path = arena_text(&c->memory, base, e))) return -1;
    c->ensure_weight_tying = json_bool(j, "ensure_weight_tying", false, path, e);
    json_t *pattern = json_object_get(j, "layers_pattern");
    json_t *one = json_is_string(pattern) ? json_pack("[O]", pattern) : json_incref(pattern);
    const int listed = list_read(&c->layers_pattern, one, "layers_pattern", path, a, e);
    json_decref(one);
    if (listed || bias_read(c, json_object_get(j, "bias"), path, e) ||
        tokens_read(c, json_object_get(j, "trainable_token_indices"), path, e))
        return -1;
    if (modules_read(&c->target_modules, &c->target_regex, j, "target_modules", path, a, e) ||
        modules_read(&c->exclude_modules, &c->exclude_regex, j, "exclude_modules", path, a, e) ||
        list_read(&c->target_parameters, json_object_get(j, "target_parameters"),
                  "target_parameters", path, a, e) ||
        pattern_read(&c->rank_pattern, j, "rank_pattern", path, a, e) ||
        pattern_read(&c->alpha_pattern, j, "alpha_pattern", path, a, e) ||
        layers_read(&c->layers_to_transform, json_object_get(j, "layers_to_transform"), path, a,
                    e) ||
        list_read(&c->modules_to_save, json_object_get(j, "modules_to_save"), "modules_to_save",
                  path, a, e) ||
        init_read(c, json_object_get(j, "init_lora_weights"), path, e) || e->code)
        return -1;
    if (!c->target_regex && !c->target_modules.count && !c->target_parameters.count)
        return err_input(e, "%s: target_modules is missing or empty", path);
    if (c->r < 1 || c->r > 1 << 20)
        return err_input(e, "%s: r is %lld; expected 1 to %d", path, (long long)c->r, 1 << 20);
    if (!(c->lora_dropout >= 0 && c->lora_dropout < 1))
        return err_input(e, "%s: lora_dropout is %g; expected 0 or more and less than 1", path,
                         c->lora_dropout);
    return 0;
}

int lora_config_read(struct lora_config *c, const char *path, struct err *e) {
    *c = (struct lora_config){0};
    json_t *j = json_open(path, e);
    int status = j ? config_read(c, j, path, e) : -1;
    json_decref(j);
    return status;
}

void lora_config_free(struct lora_config *c) {
    arena_free(&c->memory);
    *c = (struct lora_config){0};
}

static double scale_of(const struct lora_config *c, double alpha, i64 r) {
    return alpha / (c->use_rslora ? sqrt((double)r) : (double)r);
}
bool lora_is_pissa(const struct lora_config *c) {
    return c->init_lora_weights && !strcmp(c->init_lora_weights, "pissa");
}
double lora_scale(const struct lora_config *c) { return scale_of(c, c->lora_alpha, c->r); }

/* The value of the first key that matches the end of the path. */
static int pattern_get(const struct lora_pattern *p, const char *module, double *value,
                       struct err *e) {
    for (i64 i = 0; i < p->key.count; i++) {
        char pattern[512];
        snprintf(pattern, sizeof pattern, "(.*\\.)?(%.480s)", p->key.item[i]);
        const int found = lora_regex(pattern, module, e);
        if (found < 0) return -1;
        if (found) return *value = p->value[i], 0;
    }
    return 0;
}
int lora_of(const struct lora_config *c, const char *module, i64 *r, double *scale, struct err *e) {
    double rank = (double)c->r, alpha = c->lora_alpha;
    if (pattern_get(&c->rank_pattern, module, &rank, e) ||
        pattern_get(&c->alpha_pattern, module, &alpha, e))
        return -1;
    *r = i64_max(1, (i64)rank), *scale = scale_of(c, alpha, *r);
    return 0;
}

/* Python keeps an alpha given as 8 an integer. */
static int alpha_add(struct text *out, double alpha, struct err *e) {
    if (fabs(alpha) < 1e15 && alpha == (double)(i64)alpha)
        return text_printf(out, e, "%lld", (long long)alpha);
    return text_f64(out, alpha, e);
}

static int text_or_null(struct text *out, const char *text, struct err *e) {
    return text ? json_text_add(out, text, (i64)strlen(text), e) : text_add(out, "null", 4, e);
}

static int names_order(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_add(struct text *out, const struct text_list *list, struct err *e) {
    if (!list->count) return text_add(out, "null", 4, e);
    char **sorted = mem_new_array(list->count, sizeof *sorted, e);
    if (!sorted) return -1;
    memcpy(sorted, list->item, (size_t)list->count * sizeof *sorted);
    qsort(sorted, (size_t)list->count, sizeof *sorted, names_order);
    int status = 0;
    for (i64 i = 0; i < list->count && !status; i++)
        status = text_add(out, i ? ",\n    " : "[\n    ", 6, e) ||
                 json_text_add(out, sorted[i], (i64)strlen(sorted[i]), e);
    mem_free(sorted);
    return status || text_add(out, "\n  ]", 4, e);
}

static int regex_or_list(struct text *out, const char *regex, const struct text_list *list,
                         struct err *e) {
    return regex ? text_or_null(out, regex, e) : list_add(out, list, e);
}

static int pattern_add(struct text *out, const struct lora_pattern *p, double by, struct err *e) {
    int status = text_add(out, "{", 1, e);
    for (i64 i = 0; i < p->key.count && !status; i++)
        status = text_printf(out, e, i ? ",\n    " : "\n    ") ||
                 json_text_add(out, p->key.item[i], (i64)strlen(p->key.item[i]), e) ||
                 text_printf(out, e, ": ") || alpha_add(out, by * p->value[i], e);
    return status || text_printf(out, e, p->key.count ? "\n  }" : "}");
}

static int layers_add(struct text *out, const struct text_list *list, struct err *e) {
    if (!list->count) return text_add(out, "null", 4, e);
    int status = 0;
    for (i64 i = 0; i < list->count && !status; i++)
        status = text_printf(out, e, "%s%s", i ? ",\n    " : "[\n    ", list->item[i]);
    return status || text_printf(out, e, "\n  ]");
}

int lora_config_write(const struct lora_config *c, const char *path, struct err *e) {
    struct text out = {0}, *o = &out;
    const char *init = c->init_lora_weights && !lora_is_pissa(c) ? c->init_lora_weights : "true";
    const int more = lora_is_pissa(c) ? 2 : 1;
    const double alpha_more = c->use_rslora ? sqrt(more) : more;
    bool word = strcmp(init, "true") && strcmp(init, "false");
    int status =
        text_printf(o, e, "{\n  \"alora_invocation_tokens\": null,\n  \"alpha_pattern\": ") ||
        pattern_add(o, &c->alpha_pattern, alpha_more, e) ||
        text_printf(o, e,
                    ",\n  \"arrow_config\": null,\n  \"auto_mapping\": null,\n  "
                    "\"base_model_name_or_path\": ") ||
        text_or_null(o, c->base_model_name_or_path, e) ||
        text_printf(
            o, e,
            ",\n  \"bias\": \"none\",\n  \"corda_config\": null,\n  \"ensure_weight_tying\": "
            "false,\n"
            "  \"eva_config\": null,\n  \"exclude_modules\": ") ||
        regex_or_list(o, c->exclude_regex, &c->exclude_modules, e) ||
        text_printf(
            o, e,
            ",\n  \"fan_in_fan_out\": %s,\n"
            "  \"inference_mode\": true,\n  \"init_lora_weights\": %s%s%s,\n  \"kasa_config\": "
            "null,\n"
            "  \"layer_replication\": null,\n  \"layers_pattern\": null,\n"
            "  \"layers_to_transform\": ",
            c->fan_in_fan_out ? "true" : "false", word ? "\"" : "", init, word ? "\"" : "") ||
        layers_add(o, &c->layers_to_transform, e) ||
        text_printf(o, e, ",\n  \"loftq_config\": {},\n  \"lora_alpha\": ") ||
        alpha_add(o, alpha_more * c->lora_alpha, e) ||
        text_printf(o, e, ",\n  \"lora_bias\": false,\n  \"lora_dropout\": ") ||
        text_f64(o, c->lora_dropout, e) ||
        text_printf(o, e,
                    ",\n  \"lora_ga_config\": null,\n  \"megatron_config\": null,\n"
                    "  \"megatron_core\": \"megatron.core\",\n  \"modules_to_save\": ") ||
        list_add(o, &c->modules_to_save, e) ||
        text_printf(
            o, e,
            ",\n  \"monteclora_config\": null,\n  \"peft_type\": \"LORA\",\n"
            "  \"peft_version\": \"0.21.2\",\n  \"qalora_group_size\": 16,\n  \"r\": %lld,\n"
            "  \"rank_pattern\": ",
            (long long)c->r * more) ||
        pattern_add(o, &c->rank_pattern, more, e) ||
        text_printf(o, e, ",\n  \"revision\": null,\n  \"target_modules\": ") ||
        (c->target_regex || c->target_modules.count
             ? regex_or_list(o, c->target_regex, &c->target_modules, e)
             : text_add(o, "[]", 2, e)) || /* null would be PEFT's own choice for the family */
        text_printf(o, e, ",\n  \"target_parameters\": ") ||
        list_add(o, &c->target_parameters, e) ||
        text_printf(o, e,
                    ",\n  \"task_type\": \"CAUSAL_LM\",\n"
                    "  \"trainable_token_indices\": null,\n  \"use_bdlora\": null,\n  "
                    "\"use_dora\": %s,\n"
                    "  \"use_qalora\": false,\n  \"use_rslora\": %s,\n  \"velora_config\": null\n}",
                    c->use_dora ? "true" : "false", c->use_rslora ? "true" : "false") ||
        file_write(path, out.data, out.size, e);
    text_free(&out);
    return status ? -1 : 0;
}
