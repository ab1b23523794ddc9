/* recipe_pairs.c: lists of NAME=VALUE, as recipes and flags give mappings, as JSON objects. */
#include "train/recipe/recipe.h"

#include <jansson.h>
#include <string.h>

/* What YAML and JSON call so, else the text itself. */
static json_t *value_of(const char *text) {
    if (!strcasecmp(text, "true")) return json_true();
    if (!strcasecmp(text, "false")) return json_false();
    json_t *j = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    return j ? j : json_string(text);
}

json_t *recipe_pairs(const struct text_list *list, bool values, const char *key, struct err *e) {
    json_t *j = json_object();
    for (i64 i = 0; i < list->count; i++) {
        const char *text = list->item[i], *equals = strchr(text, '=');
        if (!equals || equals == text || !equals[1]) {
            err_input(e, "%s: found '%.80s', expected NAME=VALUE", key, text);
            err_hint(e, "in a recipe: %s: {NAME: VALUE}", key);
            return json_decref(j), NULL;
        }
        char *name = strndup(text, (size_t)(equals - text));
        json_t *value = values ? value_of(equals + 1) : json_string(equals + 1);
        const bool twice = name && json_object_get(j, name);
        const int rc = name && value && !twice ? json_object_set_new(j, name, value) : -1;
        if (twice) json_decref(value), err_input(e, "%s: '%.80s' is there twice", key, name);
        free(name);
        if (rc) {
            if (!twice) err_input(e, "%s: '%.80s' is not UTF-8", key, text);
            return json_decref(j), NULL;
        }
    }
    return j;
}
