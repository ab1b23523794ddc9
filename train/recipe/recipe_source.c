/* recipe_source.c: where a recipe's keys come from: the file, what it includes, the command line;
 * and in whose words.
 *
 * The file is read; what it includes is read and overlaid (this file's keys win, mappings merge,
 * lists are replaced); `key=value` words of the command line are overlaid. Aliases and other tools'
 * values become ours as each source is read, so that a word of the command line replaces a key of
 * the file whichever spelling either uses. Paths are relative to the working directory, `include`
 * to the file that says it. A value that YAML calls null leaves the default. A recipe.lock is read
 * as the recipe it holds. Passing recipe.lock reproduces the run. */
#include "train/recipe/recipe_int.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>

enum { INCLUDE_MAX = 8 };

/* ---- names ----------------------------------------------------------------------------------- */
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
    for (const struct key_help *k = recipe_structured; k->key; k++)
        nearer(key, k->key, &best, &least);
    for (const struct task *const *t = recipe_tasks; *t; t++)
        for (const struct option *o = (*t)->options; o && o->key; o++)
            nearer(key, o->key, &best, &least);
    for (const struct key_alias *k = recipe_aliases; k->alias; k++)
        nearer(key, k->alias, &best, &least);
    return best;
}

int recipe_unknown_key(const char *where, const char *key, const char *nearest, struct err *e) {
    if (nearest)
        err_input(e, "%s: unknown key '%s'; did you mean '%s'?", where, key, nearest);
    else
        err_input(e, "%s: unknown key '%s'", where, key);
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
            if (same)
                return err_input(e, "%s: '%s: %s' is not available in this version", n->where, key,
                                 k->value);
        } else if (!node_is_null(n) && strcasecmp(text, "false") && strcasecmp(text, "none") &&
                   strcmp(text, "0")) {
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

/* ---- aliases --------------------------------------------------------------------------------- */
/* Maps one value by a row's `values`: 1 mapped (to `ours`), 0 as it is, -1 not in the row. */
static int alias_value(struct arena *a, const char *values, const char *text, const char **ours,
                       struct err *e) {
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
        text_printf(&r->notes, e, "%s: '%s' (%s) is read as '%s%s%s'\n", n->where, n->key,
                    k->origin, k->key, ours ? ": " : "", ours ? ours : ""))
        return -1;
    n->key = k->key;
    return 0;
}

/* optim_args: {momentum: 0.9} as the list of "momentum=0.9". */
static int map_to_list(struct arena *a, struct node *map, struct err *e) {
    for (struct node *n = map->child; n; n = n->next) {
        if (n->kind != NODE_SCALAR) continue; /* refused where it is bound */
        if (!(n->text = arena_printf(a, e, "%s=%s", n->key, n->text))) return -1;
        n->key = NULL;
    }
    map->kind = NODE_LIST;
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
        struct node *columns = item->kind == NODE_MAP ? node_find(item, "columns") : NULL;
        if (columns && columns->kind == NODE_MAP && map_to_list(a, columns, e)) return NULL;
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
    bool known =
        option_find(recipe_options, n->key) || is_structured(n->key) || task_option(n->key, NULL);
    if (!known) return recipe_unknown_key(n->where, n->key, key_nearest(n->key), e), NULL;
    if (node_is_null(n)) return NULL;
    if (!strcmp(n->key, "dataset") || !strcmp(n->key, "eval_dataset"))
        return data_list_node(&r->arena, n, e);
    const bool listed = !strcmp(n->key, "optim_args") || !strcmp(n->key, "columns") ||
                        !strcmp(n->key, "special_tokens") ||
                        !strcmp(n->key, "chat_template_kwargs");
    if (listed && n->kind == NODE_MAP && map_to_list(&r->arena, n, e)) return NULL;
    return n;
}

struct node *recipe_canonical(struct recipe *r, struct node *map, struct err *e) {
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
        if (before && before->kind == c->kind && c->kind == NODE_SCALAR &&
            !strcmp(before->text, c->text))
            continue;
        if (before) {
            err_input(e, "%s: '%s' is another name of '%s', already given at %s", c->where, spelled,
                      c->key, before->where);
            return NULL;
        }
        if (node_append(&r->arena, out, c, e)) return NULL;
    }
    return out;
}

/* ---- include and overrides ------------------------------------------------------------------- */
static int overlay(struct arena *a, struct node *onto, struct node *from, struct err *e) {
    for (struct node *n = from->child, *next; n; n = next) {
        next = n->next;
        struct node *old = node_find(onto, n->key);
        const bool both = old && old->kind == NODE_MAP && n->kind == NODE_MAP;
        if (both ? node_prepare(a, old, e) || overlay(a, old, n, e) : node_put(a, onto, n, e))
            return -1;
    }
    return 0;
}

struct include {
    const char *real;
    const struct include *by;
};

/* The path without links, in the recipe's memory. */
static const char *real_path(struct recipe *r, const char *path, struct err *e) {
    char *real = realpath(path, NULL);
    if (!real) return err_input(e, "cannot open %s: %m", path), NULL;
    const char *kept = arena_text(&r->arena, real, e);
    return free(real), kept;
}

/* A lock's recipe; one without a version was written before there were any. */
static struct node *lock_recipe(struct recipe *r, struct node *map, struct err *e) {
    if (map->kind != NODE_MAP || node_find(map, "recipe_version")) return map;
    struct node *version = node_scalar(&r->arena, "1", map->where, e);
    if (!version) return NULL;
    version->key = "recipe_version";
    return node_append(&r->arena, map, version, e) ? NULL : map;
}

static struct node *load_file(struct recipe *r, const char *path, const struct include *by,
                              struct err *e) {
    struct text text = {0};
    const char *real = real_path(r, path, e);
    int depth = 0;
    if (!real) return NULL;
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
    if (map && node_find(map, "format") && node_find(map, "recipe") &&
        !(map = lock_recipe(r, node_find(map, "recipe"), e)))
        return NULL;
    if (!map || !(map = recipe_canonical(r, map, e))) return NULL;
    struct node *include = node_find(map, "include"), **at = &map->child;
    if (!include) return map;
    if (include->kind != NODE_SCALAR)
        return err_input(e, "%s: 'include' names one file", include->where), NULL;
    while (*at != include) at = &(*at)->next;
    *at = include->next;
    char *copy = arena_text(&r->arena, path, e);
    const char *other = !copy ? NULL
                        : *include->text == '/'
                            ? include->text
                            : path_join(&r->arena, dirname(copy), include->text, e);
    struct include chain = {real, by};
    struct node *base = other ? load_file(r, other, &chain, e) : NULL;
    if (!base) return err_frame(e, "included at %s", include->where), NULL;
    return overlay(&r->arena, base, map, e) ? NULL : base;
}

/* Follows the rest of a dotted key below `at`, making mappings on the way. */
static int put_below(struct recipe *r, struct node *at, char *rest, struct node *value,
                     const char *word, struct err *e) {
    for (char *dot; rest; rest = dot) {
        if ((dot = strchr(rest, '.'))) *dot++ = 0;
        struct node *next = NULL;
        if (node_prepare(&r->arena, at, e)) return -1;
        if (at->kind == NODE_LIST) {
            char *end;
            const long index = strtol(rest, &end, 10);
            if (index >= 0 && index < at->index->count) next = at->index->item[index];
            if (end == rest || *end || index < 0 || index > at->index->count)
                return err_input(e, "command line: '%s': '%s' is no place in a list", word, rest);
        } else if (at->kind == NODE_MAP) {
            next = node_find(at, rest);
        } else {
            return err_input(e, "command line: '%s': there is nothing below '%s'", word,
                             at->key ? at->key : "");
        }
        if (next && dot) {
            at = next;
            continue;
        }
        struct node *n = dot ? node_new(&r->arena, NODE_MAP, value->where, e) : value;
        if (!n) return -1;
        n->key = at->kind == NODE_MAP ? rest : NULL;
        if (next && at->kind == NODE_LIST)
            return err_input(e, "command line: '%s': name a key of that item: %s.path=...", word,
                             word);
        if (at->kind == NODE_MAP ? node_put(&r->arena, at, n, e) : node_append(&r->arena, at, n, e))
            return -1;
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
    if (utf8_bad(text, (i64)strlen(text)) >= 0)
        return err_input(e, "command line: '%s' is not UTF-8", key);
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
    if (!strcmp(key, "include"))
        return err_input(e, "command line: 'include' belongs into a recipe");
    const struct node *given = top;
    if (!(top = canonical(r, top, e))) { /* key= : back to the default */
        struct node **at = &root->child;
        while (*at && strcmp((*at)->key, given->key)) at = &(*at)->next;
        if (*at) *at = (*at)->next;
        return e->code ? -1 : 0;
    }
    struct node *old = node_find(root, top->key);
    if (!rest) return node_put(&r->arena, root, top, e);
    if (top->kind == NODE_LIST) top->child = NULL;
    if (!old && node_append(&r->arena, root, old = top, e)) return -1;
    char *word_key = arena_printf(&r->arena, e, "%.*s", (int)(equals - word), word);
    return word_key ? put_below(r, old, rest, value, word_key, e) : -1;
}

struct node *recipe_source(struct recipe *r, const char *path, char *const *overrides, i64 count,
                           struct err *e) {
    struct node *root = load_file(r, path, NULL, e);
    for (i64 i = 0; root && i < count; i++)
        if (override(r, root, overrides[i], e)) root = NULL;
    return root;
}
