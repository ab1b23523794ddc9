/* recipe.c: from a recipe file to a struct recipe in which nothing is left open.
 *
 * A recipe is one YAML mapping. In order: the file is read; what it includes is read and overlaid (this file's keys
 * win, mappings merge, lists are replaced); `key=value` words of the command line are overlaid; each key is bound
 * through its row in recipe_keys.c; keys that depend on each other are checked and resolved. Aliases and other tools'
 * values become ours as each source is read, so that a word of the command line replaces a key of the file
 * whichever spelling either uses. Paths are relative to the working directory, `include` to the file that says it.
 * A value that YAML calls null leaves the default. A recipe.lock is read as the recipe it holds: so is a run rebuilt. */
#include "train/recipe_int.h"

#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { INCLUDE_MAX = 8 };

/* ---- names ----------------------------------------------------------------------------------------------------- */
static bool is_structured(const char *key) {
    for (const struct key_help *k = recipe_structured; k->key; k++)
        if (!strcmp(k->key, key)) return true;
    return false;
}

static void nearer(const char *key, const char *candidate, const char **best, int *least) {
    int d = edit_distance(key, candidate);
    if (d < *least) *best = candidate, *least = d;
}

static const char *key_nearest(const char *key) {
    const char *best = NULL;
    int least = (int)i64_min(4, (i64)strlen(key) / 3 + 1) + 1;
    for (const struct option *o = recipe_options; o->key; o++) nearer(key, o->key, &best, &least);
    for (const struct key_help *k = recipe_structured; k->key; k++) nearer(key, k->key, &best, &least);
    for (const struct key_alias *k = recipe_aliases; k->alias; k++) nearer(key, k->alias, &best, &least);
    return best;
}

static int unknown_key(const char *where, const char *key, const char *nearest, struct err *e) {
    if (nearest) err_input(e, "%s: unknown key '%s'; did you mean '%s'?", where, key, nearest);
    else err_input(e, "%s: unknown key '%s'", where, key);
    return err_hint(e, "'hone help train' lists every key");
}

/* A key of the design that is not built: an error, unless it is switched off. */
static int refuse_absent(const struct node *n, const char *key, struct err *e) {
    for (const struct key_absent *k = recipe_absent; k->key; k++) {
        if (strcmp(k->key, key)) continue;
        const char *text = n->kind == NODE_SCALAR ? n->text : "";
        if (k->value) {
            bool same = !strcmp(text, k->value);
            for (const struct node *c = n->child; c; c = c->next)
                same |= c->kind == NODE_SCALAR && !strcmp(c->text, k->value);
            if (same) return err_input(e, "%s: '%s: %s' is not available in this version", n->where, key, k->value);
        } else if (!node_is_null(n) && strcasecmp(text, "false") && strcasecmp(text, "none") && strcmp(text, "0")) {
            return err_input(e, "%s: '%s' is not available in this version", n->where, key);
        }
    }
    return 0;
}

static bool key_is_absent(const char *key) {
    for (const struct key_absent *k = recipe_absent; k->key; k++)
        if (!k->value && !strcmp(k->key, key)) return true;
    return false;
}

/* ---- aliases --------------------------------------------------------------------------------------------------- */
/* Maps one value by a row's `values`: 1 mapped (to `ours`), 0 as it is, -1 not in the row. */
static int alias_value(struct arena *a, const char *values, const char *text, const char **ours, struct err *e) {
    for (const char *p = values; p && *p; p += strcspn(p, " "), p += *p == ' ') {
        i64 name = (i64)strcspn(p, "="), whole = (i64)strcspn(p, " ");
        if (name == 1 && *p == '*') return 0;
        if ((i64)strlen(text) != name || strncasecmp(p, text, (size_t)name)) continue;
        *ours = arena_printf(a, e, "%.*s", (int)(whole - name - 1), p + name + 1);
        return *ours ? 1 : -1;
    }
    return values ? -1 : 0;
}

static int apply_alias(struct recipe *r, struct node *n, const struct key_alias *k, struct err *e) {
    const char *ours = NULL;
    if (k->values && n->kind == NODE_SCALAR && !node_is_null(n)) {
        int mapped = alias_value(&r->arena, k->values, n->text, &ours, e);
        if (mapped < 0) {
            if (refuse_absent(n, n->key, e)) return -1;
            err_input(e, "%s: '%s: %s' has no counterpart", n->where, n->key, n->text);
            return err_hint(e, "write %s's '%s' as hone's '%s'", k->origin, n->key, k->key);
        }
        if (mapped) n->text = ours, n->quoted = false;
    }
    if ((strcmp(k->alias, k->key) || ours) &&
        text_printf(&r->notes, e, "%s: '%s' (%s) is read as '%s%s%s'\n", n->where, n->key, k->origin, k->key,
                    ours ? ": " : "", ours ? ours : ""))
        return -1;
    n->key = k->key;
    return 0;
}

/* dataset: PATH, or one mapping, or a list of either: always a list of mappings. */
static struct node *data_list_node(struct arena *a, struct node *n, struct err *e) {
    struct node *list = n, *item = n;
    if (n->kind != NODE_LIST) {
        if (!(list = node_new(a, NODE_LIST, n->where, e))) return NULL;
        list->key = n->key, list->child = n, item->key = NULL;
        n->next = NULL;
    }
    for (struct node **at = &list->child; (item = *at); at = &(*at)->next) {
        if (item->kind != NODE_SCALAR) continue;
        struct node *map = node_new(a, NODE_MAP, item->where, e);
        if (!map) return NULL;
        map->next = item->next, map->child = item;
        item->key = "path", item->next = NULL;
        *at = map;
    }
    return list;
}

/* One top-level entry with our name and our shape; NULL without an error: dropped. */
static struct node *canonical(struct recipe *r, struct node *n, struct err *e) {
    const struct key_alias *k = recipe_aliases;
    if (!strcmp(n->key, "model") && n->kind == NODE_SCALAR) n->key = "model_name_or_path";
    while (k->alias && strcmp(k->alias, n->key)) k++;
    if (k->alias && apply_alias(r, n, k, e)) return NULL;
    if (refuse_absent(n, n->key, e) || key_is_absent(n->key)) return NULL;
    bool known = option_find(recipe_options, n->key) || is_structured(n->key);
    if (!known) return unknown_key(n->where, n->key, key_nearest(n->key), e), NULL;
    if (node_is_null(n)) return NULL;
    if (!strcmp(n->key, "dataset") || !strcmp(n->key, "eval_dataset")) return data_list_node(&r->arena, n, e);
    return n;
}

static struct node *canonical_map(struct recipe *r, struct node *map, struct err *e) {
    struct node *out = node_new(&r->arena, NODE_MAP, map->where, e);
    if (!out) return NULL;
    if (map->kind != NODE_MAP)
        return err_input(e, "%s: a recipe is a mapping of keys to values", map->where), NULL;
    for (struct node *n = map->child, *next; n; n = next) {
        next = n->next;
        const char *spelled = n->key;
        struct node *c = canonical(r, n, e), *before = c ? node_find(out, c->key) : NULL;
        if (!c && e->code) return NULL;
        if (!c) continue;
        if (before && before->kind == c->kind && c->kind == NODE_SCALAR && !strcmp(before->text, c->text)) continue;
        if (before) {
            err_input(e, "%s: '%s' is another name of '%s', already given at %s", c->where, spelled, c->key,
                      before->where);
            return NULL;
        }
        node_append(out, c);
    }
    return out;
}

/* ---- include and overrides --------------------------------------------------------------------------------------- */
static void overlay(struct node *onto, struct node *from) {
    for (struct node *n = from->child, *next; n; n = next) {
        next = n->next;
        struct node *old = node_find(onto, n->key);
        if (old && old->kind == NODE_MAP && n->kind == NODE_MAP) overlay(old, n);
        else node_put(onto, n);
    }
}

struct include {
    const char *real;
    const struct include *by;
};

static struct node *load_file(struct recipe *r, const char *path, const struct include *by, struct err *e) {
    struct text text = {0};
    char real[PATH_MAX];
    int depth = 0;
    if (!realpath(path, real)) return err_input(e, "cannot open %s: %m", path), NULL;
    for (const struct include *i = by; i; i = i->by, depth++)
        if (!strcmp(i->real, real) || depth >= INCLUDE_MAX) {
            err_input(e, "%s: includes itself, or %d recipes in a row", path, INCLUDE_MAX);
            return err_detail(e, "included by %s", by->real), NULL;
        }
    if (path_is_dir(path)) return err_input(e, "%s is a folder, not a recipe", path), NULL;
    if (file_read(&text, path, e)) return NULL;
    const char *name = arena_text(&r->arena, path, e);
    struct node *map = name ? node_yaml(&r->arena, text.data, text.size, name, e) : NULL;
    text_free(&text);
    if (map && node_find(map, "format") && node_find(map, "recipe")) map = node_find(map, "recipe"); /* a lock */
    if (!map || !(map = canonical_map(r, map, e))) return NULL;
    struct node *include = node_find(map, "include"), **at = &map->child;
    if (!include) return map;
    if (include->kind != NODE_SCALAR) return err_input(e, "%s: 'include' names one file", include->where), NULL;
    while (*at != include) at = &(*at)->next;
    *at = include->next;
    char *copy = arena_text(&r->arena, path, e);
    const char *other = !copy                  ? NULL
                        : *include->text == '/' ? include->text
                                                : arena_printf(&r->arena, e, "%s/%s", dirname(copy), include->text);
    struct include chain = {real, by};
    struct node *base = other ? load_file(r, other, &chain, e) : NULL;
    if (!base) return err_frame(e, "included at %s", include->where), NULL;
    overlay(base, map);
    return base;
}

/* Follows the rest of a dotted key below `at`, making mappings on the way. */
static int put_below(struct recipe *r, struct node *at, char *rest, struct node *value, const char *word,
                     struct err *e) {
    for (char *dot; rest; rest = dot) {
        if ((dot = strchr(rest, '.'))) *dot++ = 0;
        struct node *next = NULL;
        if (at->kind == NODE_LIST) {
            char *end;
            long index = strtol(rest, &end, 10), i = 0;
            for (next = at->child; next && i < index; i++) next = next->next;
            if (end == rest || *end || index < 0 || (!next && index > i))
                return err_input(e, "command line: '%s': '%s' is no place in a list", word, rest);
        } else if (at->kind == NODE_MAP) {
            next = node_find(at, rest);
        } else {
            return err_input(e, "command line: '%s': there is nothing below '%s'", word, at->key ? at->key : "");
        }
        if (next && dot) {
            at = next;
            continue;
        }
        struct node *n = dot ? node_new(&r->arena, NODE_MAP, value->where, e) : value;
        if (!n) return -1;
        n->key = at->kind == NODE_MAP ? rest : NULL;
        if (at->kind == NODE_MAP) node_put(at, n);
        else if (!next) node_append(at, n);
        else return err_input(e, "command line: '%s': name a key of that item: %s.path=...", word, word);
        at = n;
    }
    return 0;
}

static int override(struct recipe *r, struct node *root, const char *word, struct err *e) {
    const char *equals = strchr(word, '=');
    if (!equals || equals == word) {
        err_input(e, "command line: '%s' is not key=value", word);
        return -1;
    }
    char *key = arena_printf(&r->arena, e, "%.*s", (int)(equals - word), word);
    const char *text = arena_text(&r->arena, equals + 1, e);
    if (!key || !text) return -1;
    if (utf8_bad(text, (i64)strlen(text)) >= 0) return err_input(e, "command line: '%s' is not UTF-8", key);
    struct node *value = *text && strchr("[{\"'", *text)
                             ? node_yaml(&r->arena, text, (i64)strlen(text), "command line", e)
                             : node_scalar(&r->arena, text, "command line", e);
    if (!value) return -1;
    value->where = "command line";
    char *rest = strchr(key, '.');
    if (rest) *rest++ = 0;
    struct node *top = value;
    if (rest) { /* the first part may be an alias, and must exist as a mapping or a list */
        if (!(top = node_new(&r->arena, NODE_MAP, value->where, e))) return -1;
    }
    top->key = key;
    if (!strcmp(key, "include")) return err_input(e, "command line: 'include' belongs into a recipe");
    const struct node *given = top;
    if (!(top = canonical(r, top, e))) { /* key= : back to the default */
        struct node **at = &root->child;
        while (*at && strcmp((*at)->key, given->key)) at = &(*at)->next;
        if (*at) *at = (*at)->next;
        return e->code ? -1 : 0;
    }
    struct node *old = node_find(root, top->key);
    if (!rest) return node_put(root, top), 0;
    if (top->kind == NODE_LIST) top->child = NULL;
    if (!old) node_append(root, old = top);
    char *word_key = arena_printf(&r->arena, e, "%.*s", (int)(equals - word), word);
    return word_key ? put_below(r, old, rest, value, word_key, e) : -1;
}

/* ---- binding ----------------------------------------------------------------------------------------------------- */
static const char *kind_name[] = {"one value", "a list", "a mapping"};

static int bind_text_list(struct recipe *r, struct text_list *list, const struct node *n, struct err *e) {
    i64 count = 0;
    for (const struct node *c = n->child; c; c = c->next, count++)
        if (c->kind != NODE_SCALAR)
            return err_input(e, "%s: '%s': found %s, expected a text", c->where, n->key, kind_name[c->kind]);
    *list = (struct text_list){0};
    if (count && !(list->item = arena_new(&r->arena, count * (i64)sizeof *list->item, e))) return -1;
    for (const struct node *c = n->child; c; c = c->next) list->item[list->count++] = (char *)c->text;
    return 0;
}

/* Binds one node to a row of `table`. */
static int bind_option(struct recipe *r, const struct option *table, void *to, const struct option *o,
                       const struct node *n, struct err *e) {
    bool list = o->type == OPT_INT_LIST || o->type == OPT_TEXT_LIST;
    if (n->kind == NODE_MAP || (n->kind == NODE_LIST && !list))
        return err_input(e, "%s: '%s': found %s, expected %s", n->where, o->key, kind_name[n->kind],
                         list ? "a list" : "one value");
    if (n->kind == NODE_LIST && o->type == OPT_TEXT_LIST)
        return bind_text_list(r, (struct text_list *)((char *)to + o->offset), n, e);
    if (n->kind == NODE_SCALAR && o->type == OPT_TEXT_LIST && n->quoted) {
        struct node *one = node_new(&r->arena, NODE_LIST, n->where, e), *copy = NULL;
        if (!one || !(copy = node_scalar(&r->arena, n->text, n->where, e))) return -1;
        one->key = n->key, one->child = copy;
        return bind_text_list(r, (struct text_list *)((char *)to + o->offset), one, e);
    }
    if (n->kind == NODE_SCALAR) return option_set(table, to, o->key, n->text, n->where, &r->arena, e);
    struct text joined = {0};
    for (const struct node *c = n->child; c; c = c->next) {
        if (c->kind != NODE_SCALAR) {
            text_free(&joined);
            return err_input(e, "%s: '%s': found %s, expected a number", c->where, o->key, kind_name[c->kind]);
        }
        if (text_printf(&joined, e, "%s%s", joined.size ? "," : "", c->text)) return text_free(&joined), -1;
    }
    int rc = option_set(table, to, o->key, joined.data ? joined.data : "", n->where, &r->arena, e);
    text_free(&joined);
    return rc;
}

static int bind_data(struct recipe *r, struct data_list *list, const struct node *n, struct err *e) {
    i64 count = 0;
    for (const struct node *c = n->child; c; c = c->next) count++;
    if (count && !(list->item = arena_new(&r->arena, count * (i64)sizeof *list->item, e))) return -1;
    for (const struct node *c = n->child; c; c = c->next, list->count++) {
        struct data_item *item = &list->item[list->count];
        if (c->kind != NODE_MAP)
            return err_input(e, "%s: '%s.%lld': found %s, expected a path or a mapping", c->where, n->key,
                             (long long)list->count, kind_name[c->kind]);
        if (option_defaults(data_item_options, item, &r->arena, e)) return -1;
        for (const struct node *v = c->child; v; v = v->next) {
            const struct option *o = option_find(data_item_options, v->key);
            if (!o) return unknown_key(v->where, v->key, option_nearest(data_item_options, v->key), e);
            if (!node_is_null(v) && bind_option(r, data_item_options, item, o, v, e)) return -1;
        }
        if (!item->path || !*item->path)
            return err_input(e, "%s: '%s.%lld' has no path", c->where, n->key, (long long)list->count);
    }
    return 0;
}

static int bind(struct recipe *r, const struct node *root, struct err *e) {
    i64 rows = 0;
    while (recipe_options[rows].key) rows++;
    if (!(r->where = arena_new(&r->arena, rows * (i64)sizeof *r->where, e))) return -1;
    if (option_defaults(recipe_options, r, &r->arena, e)) return -1;
    for (const struct node *n = root->child; n; n = n->next) {
        const struct option *o = option_find(recipe_options, n->key);
        if (o) {
            if (bind_option(r, recipe_options, r, o, n, e)) return -1;
            r->where[o - recipe_options] = n->where;
        } else if (!strcmp(n->key, "model")) {
            if (n->kind != NODE_MAP) return err_input(e, "%s: 'model' is a mapping, as in config.json", n->where);
            if (!(r->model = node_json(n, e))) return -1;
        } else if (bind_data(r, !strcmp(n->key, "dataset") ? &r->dataset : &r->eval_dataset, n, e)) {
            return -1;
        }
    }
    return 0;
}

/* ---- keys that depend on each other -------------------------------------------------------------------------------- */
static const char *place(const struct recipe *r, const char *key, const char *name) {
    const char *where = r->where[option_find(recipe_options, key) - recipe_options];
    return where ? where : name;
}

static int resolve_batches(struct recipe *r, const char *name, struct err *e) {
    i64 micro = r->micro_batch_size, groups = r->reduction_groups;
    bool steps_given = recipe_given(r, "gradient_accumulation_steps");
    if (!r->global_batch_size) r->global_batch_size = micro * r->gradient_accumulation_steps;
    const char *where = place(r, "global_batch_size", place(r, "micro_batch_size", name));
    if (r->global_batch_size % micro)
        return err_input(e, "%s: global_batch_size %lld is not a multiple of micro_batch_size %lld", where,
                         (long long)r->global_batch_size, (long long)micro);
    if (!steps_given) r->gradient_accumulation_steps = r->global_batch_size / micro;
    if (micro * r->gradient_accumulation_steps != r->global_batch_size)
        return err_input(e,
                         "%s: global_batch_size %lld is not micro_batch_size %lld x gradient_accumulation_steps %lld",
                         where, (long long)r->global_batch_size, (long long)micro,
                         (long long)r->gradient_accumulation_steps),
               err_hint(e, "leave one of the three out");
    if (groups & (groups - 1))
        return err_input(e, "%s: reduction_groups %lld is not a power of two", place(r, "reduction_groups", name),
                         (long long)groups);
    if (r->global_batch_size % groups)
        return err_input(e, "%s: global_batch_size %lld does not divide into %lld reduction_groups",
                         place(r, "reduction_groups", name), (long long)r->global_batch_size, (long long)groups);
    return 0;
}

static int check_model(struct recipe *r, const char *name, struct err *e) {
    if (r->model && r->model_name_or_path)
        return err_input(e, "%s: both 'model' and 'model_name_or_path'", place(r, "model_name_or_path", name)),
               err_hint(e, "'model' describes a new model, 'model_name_or_path' names one to start from");
    if (!r->model && !r->model_name_or_path)
        return err_input(e, "%s: no model", name),
               err_hint(e, "give model_name_or_path (a folder), or model (a config) to start a new one");
    if (r->use_peft && !r->model_name_or_path)
        return err_input(e, "%s: use_peft adapts a trained model: give model_name_or_path",
                         place(r, "use_peft", name));
    if (r->use_peft) return 0;
    static const char *const peft[] = {"lora_r",     "lora_alpha",        "lora_dropout", "lora_target_modules",
                                       "use_rslora", "init_lora_weights", NULL};
    for (int i = 0; peft[i]; i++)
        if (recipe_given(r, peft[i]) &&
            text_printf(&r->notes, e, "%s: '%s' has no effect without 'use_peft: true'\n", place(r, peft[i], name),
                        peft[i]))
            return -1;
    return 0;
}

static int check_report_to(struct recipe *r, const char *name, struct err *e) {
    for (i64 i = 0; i < r->report_to.count; i++) {
        const char *to = r->report_to.item[i];
        if (strcmp(to, "jsonl") && strcmp(to, "tensorboard") && strcmp(to, "csv") && strcmp(to, "none"))
            return err_input(e, "%s: 'report_to': found '%s', expected jsonl, tensorboard or csv",
                             place(r, "report_to", name), to);
    }
    return 0;
}

static int check(struct recipe *r, const char *name, struct err *e) {
    if (check_model(r, name, e) || resolve_batches(r, name, e) || check_report_to(r, name, e)) return -1;
    if (!r->dataset.count)
        return err_input(e, "%s: no dataset", name), err_hint(e, "dataset: [{path: FILE}]");
    if (r->eval_steps && !r->eval_dataset.count)
        return err_input(e, "%s: eval_steps needs an eval_dataset", place(r, "eval_steps", name));
    if (r->warmup_steps && r->warmup_ratio > 0)
        return err_input(e, "%s: both warmup_steps and warmup_ratio", place(r, "warmup_ratio", name));
    if (r->wsd_decay_steps && r->wsd_decay_ratio > 0)
        return err_input(e, "%s: both wsd_decay_steps and wsd_decay_ratio", place(r, "wsd_decay_ratio", name));
    r->max_steps = i64_max(r->max_steps, 0);
    return 0;
}

/* runs/NAME for recipes/NAME.yaml */
static const char *default_output(struct arena *a, const char *path, struct err *e) {
    char *copy = arena_text(a, path, e);
    if (!copy) return NULL;
    char *base = basename(copy), *dot = strrchr(base, '.');
    if (dot && dot != base) *dot = 0;
    return arena_printf(a, e, "runs/%s", base);
}

static int finish(struct recipe *r, const struct node *root, const char *name, struct err *e) {
    if (root && !bind(r, root, e) && !check(r, name, e) &&
        (r->output_dir || (r->output_dir = default_output(&r->arena, name, e))))
        return 0;
    recipe_free(r);
    return -1;
}

int recipe_load(struct recipe *r, const char *path, char *const *overrides, i64 count, struct err *e) {
    *r = (struct recipe){0};
    struct node *root = load_file(r, path, NULL, e);
    for (i64 i = 0; root && i < count; i++)
        if (override(r, root, overrides[i], e)) root = NULL;
    return finish(r, root, path, e);
}

int recipe_of_json(struct recipe *r, const json_t *j, const char *name, struct err *e) {
    *r = (struct recipe){0};
    const char *kept = arena_text(&r->arena, name, e);
    struct node *root = kept ? node_of_json(&r->arena, j, kept, e) : NULL;
    return finish(r, root ? canonical_map(r, root, e) : NULL, name, e);
}

void recipe_free(struct recipe *r) {
    json_decref(r->model);
    text_free(&r->notes);
    arena_free(&r->arena);
    *r = (struct recipe){0};
}

bool recipe_given(const struct recipe *r, const char *key) {
    const struct option *o = option_find(recipe_options, key);
    return o && r->where && r->where[o - recipe_options];
}
