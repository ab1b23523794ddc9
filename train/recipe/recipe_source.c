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

static bool key_is_absent(const char *key) {
    for (const struct key_absent *k = recipe_absent; k->key; k++)
        if (!k->value && !strcmp(k->key, key)) return true;
    return false;
}

static bool is_known(const char *key) {
    return option_find(recipe_options, key) || is_structured(key) || task_option(key, NULL);
}

/* An entry that has a row of foreign_keys.c: 1 if it is one of ours now, 0 if it has no effect. */
static int of_foreign(struct recipe *r, struct node *n, const struct foreign *f, struct err *e) {
    if (node_is_null(n)) return recipe_tell(r, n, n->key, "empty", e);
    if (f->kind != FOREIGN_SAME) return foreign_apply(r, n, f, e);
    const struct key_alias k = {n->key, f->to, f->values, r->tool ? r->tool : "other tools"};
    const int rc = recipe_alias(r, n, &k, e);
    if (rc < 0) n->key = f->to; /* what misses it is no problem of its own */
    return rc < 0 ? -1 : !rc;
}

/* One top-level entry with our name and our shape; NULL without an error: dropped. */
static struct node *canonical(struct recipe *r, struct node *n, struct err *e) {
    const struct key_alias *k = recipe_aliases;
    if (!strcmp(n->key, "model") && n->kind == NODE_SCALAR) n->key = "model_name_or_path";
    const struct foreign *f = foreign_find(r, n->key);
    if (f) {
        const int rc = of_foreign(r, n, f, e);
        if (rc <= 0) return NULL;
        if (strchr(n->key, '.')) return recipe_gather(r, n, e), NULL;
    } else {
        while (k->alias && strcmp(k->alias, n->key)) k++;
        if (k->alias && recipe_alias(r, n, k, e)) return NULL; /* or told */
    }
    if (recipe_refuse_absent(n, n->key, e)) return NULL;
    if (key_is_absent(n->key)) return recipe_tell(r, n, n->key, "switched off, as here", e), NULL;
    if (!is_known(n->key)) {
        if (node_is_null(n)) return recipe_tell(r, n, n->key, "empty", e), NULL;
        const char *near = r->problems < PROBLEMS_KEPT ? key_nearest(n->key) : NULL;
        return recipe_unknown_key(n->where, n->key, near, e), NULL;
    }
    if (node_is_null(n)) return NULL;
    if (!strcmp(n->key, "dataset") || !strcmp(n->key, "eval_dataset"))
        return recipe_data_list(r, n, e);
    const bool listed = !strcmp(n->key, "optim_args") || !strcmp(n->key, "columns") ||
                        !strcmp(n->key, "special_tokens") ||
                        !strcmp(n->key, "chat_template_kwargs");
    if (listed && n->kind == NODE_MAP && recipe_map_to_list(&r->arena, n, e)) return NULL;
    return n;
}

static int put_entry(struct recipe *r, struct node *out, struct node *n, struct err *e);

/* A mapping of another tool: its entries by dotted keys. */
static int put_nested(struct recipe *r, struct node *out, struct node *map, struct err *e) {
    for (struct node *n = map->child, *next; n; n = next) {
        next = n->next;
        if (!(n->key = arena_printf(&r->arena, e, "%s.%s", map->key, n->key)) ||
            put_entry(r, out, n, e))
            return -1;
    }
    return 0;
}

static int put_entry(struct recipe *r, struct node *out, struct node *n, struct err *e) {
    const char *spelled = n->key;
    const struct foreign *f = foreign_find(r, n->key); /* Axolotl's tokens: a list, or names */
    if (n->kind == NODE_MAP && (!f || f->kind == FOREIGN_SAME) && foreign_nested(r, n->key))
        return put_nested(r, out, n, e);
    struct node *c = canonical(r, n, e), *before = c ? node_find(out, c->key) : NULL;
    if (!c) return e->code ? recipe_problem(r, n->key, e) : 0;
    if (before && before->kind == c->kind && c->kind == NODE_SCALAR &&
        !strcmp(before->text, c->text))
        return 0;
    if (before) {
        err_input(e, "%s: '%s' is another name of '%s', already given at %s", c->where, spelled,
                  c->key, before->where);
        return recipe_problem(r, c->key, e);
    }
    return node_append(&r->arena, out, c, e);
}

struct node *recipe_canonical(struct recipe *r, struct node *map, struct err *e) {
    struct node *out = node_new(&r->arena, NODE_MAP, map->where, e);
    if (!out) return NULL;
    if (map->kind != NODE_MAP)
        return err_input(e, "%s: a recipe is a mapping of keys to values", map->where), NULL;
    for (struct node *n = map->child, *next; n; n = next) {
        next = n->next;
        if (put_entry(r, out, n, e)) return NULL;
    }
    return out;
}

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

/* What was gathered by dotted keys, as the mapping that it is, or the list of NAME=VALUE. */
static int put_gathered(struct recipe *r, struct node *out, struct err *e) {
    for (struct node *n = r->gathered->child, *next; n; n = next) {
        next = n->next, n->next = NULL;
        struct node *before = node_find(out, n->key);
        const struct option *o = option_find(recipe_options, n->key);
        if (!o && !is_structured(n->key)) {
            err_input(e, "%s: what would be '%s.%s' here is not available in this version",
                      n->where, n->key, n->child->key);
            if (recipe_problem(r, n->key, e)) return -1;
            continue;
        }
        if (before && before->kind == NODE_MAP ? overlay(&r->arena, before, n, e)
                                               : node_put(&r->arena, out, n, e))
            return -1;
        if (o && recipe_map_to_list(&r->arena, before ? before : n, e)) return -1;
    }
    return 0;
}

/* The entries of a file in our words: after they are, what its tool does by default. */
static struct node *file_canonical(struct recipe *r, struct node *map, struct err *e) {
    const struct tool *tool = map->kind == NODE_MAP ? foreign_tool(map) : NULL;
    r->tools = tool ? tool->bit : 0, r->tool = tool ? tool->name : NULL;
    if (tool && foreign_before(r, map, e)) return NULL;
    r->gathered = NULL;
    struct node *out = recipe_canonical(r, map, e);
    return !out || (r->gathered && put_gathered(r, out, e)) || (tool && foreign_after(r, out, e))
               ? NULL
               : out;
}

/* ---- include and overrides ------------------------------------------------------------------- */

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
    struct node *map = !name ? NULL
                       : ends_with(path, ".sh")
                           ? node_script(&r->arena, text.data ? text.data : "", text.size, name, e)
                           : node_yaml(&r->arena, text.data, text.size, name, e);
    text_free(&text);
    const bool locked = map && node_find(map, "format") && node_find(map, "recipe");
    if (locked && !(map = lock_recipe(r, node_find(map, "recipe"), e))) return NULL;
    if (!map || !(map = locked ? recipe_canonical(r, map, e) : file_canonical(r, map, e)))
        return NULL;
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
    const struct problem *last = r->last_problem;
    const unsigned tools = r->tools;
    const char *tool = r->tool;
    struct node *base = other ? load_file(r, other, &chain, e) : NULL;
    r->tools = tools, r->tool = tool;
    for (struct problem *p = last ? last->next : r->problem; p; p = p->next)
        err_frame(&p->err, "included at %s", include->where);
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

/* What stands behind `key=`. */
static struct node *word_value(struct recipe *r, const char *key, const char *value,
                               struct err *e) {
    const char *text = arena_text(&r->arena, value, e);
    if (!text) return NULL;
    if (utf8_bad(text, (i64)strlen(text)) >= 0)
        return err_input(e, "command line: '%s' is not UTF-8", key), NULL;
    const bool slice = ends_with(key, ".rows") && *text == '['; /* no list */
    struct node *n = *text && !slice && strchr("[{\"'", *text)
                         ? node_yaml(&r->arena, text, (i64)strlen(text), "command line", e)
                         : node_scalar(&r->arena, text, "command line", e);
    if (n) n->where = "command line";
    return n;
}

static void entry_remove(struct node *root, const char *key) {
    struct node **at = &root->child;
    while (*at && strcmp((*at)->key, key)) at = &(*at)->next;
    if (*at) *at = (*at)->next;
}

/* A mapping of another tool's: each of its entries replaces what there is. */
static int override_nested(struct recipe *r, struct node *root, struct node *map, struct err *e) {
    struct node *out = node_new(&r->arena, NODE_MAP, map->where, e);
    return !out || put_nested(r, out, map, e) || overlay(&r->arena, root, out, e) ? -1 : 0;
}

/* dataset.path: of the only item. */
static bool one_item(const struct node *list, const char *rest) {
    return list && list->kind == NODE_LIST && list->child && !list->child->next &&
           list->child->kind == NODE_MAP && !(*rest >= '0' && *rest <= '9') &&
           option_find(data_item_options, rest);
}

static int override(struct recipe *r, struct node *root, const char *word, const char *equals,
                    const char *text, struct err *e) {
    char *key = arena_printf(&r->arena, e, "%.*s", (int)(equals - word), word);
    struct node *value = key ? word_value(r, key, text, e) : NULL, *top = value;
    if (!value) return -1;
    char *rest = foreign_find(r, key) ? NULL : strchr(key, '.');
    if (rest) *rest++ = 0;
    if (rest) { /* the first part may be an alias, and must exist as a mapping or a list */
        if (!(top = node_new(&r->arena, NODE_MAP, value->where, e))) return -1;
    }
    top->key = key;
    if (!strcmp(key, "include"))
        return err_input(e, "command line: 'include' belongs into a recipe");
    if (!rest && top->kind == NODE_MAP && !foreign_find(r, key) && foreign_nested(r, key))
        return override_nested(r, root, top, e);
    const struct node *given = top;
    if (!rest && foreign_word(r, top, e)) return -1;
    if (!(top = canonical(r, top, e))) { /* key= : back to the default */
        entry_remove(root, given->key);
        return e->code ? -1 : 0;
    }
    struct node *old = node_find(root, top->key);
    if (!rest) return node_put(&r->arena, root, top, e);
    if (top->kind == NODE_LIST) top->child = NULL;
    if (one_item(old, rest)) old = old->child;
    if (!old && node_append(&r->arena, root, old = top, e)) return -1;
    char *word_key = arena_printf(&r->arena, e, "%.*s", (int)(equals - word), word);
    return word_key ? put_below(r, old, rest, value, word_key, e) : -1;
}

/* The command line's words: KEY=VALUE, or as other tools have them: --KEY=VALUE, --KEY VALUE ...,
 * --KEY (true). A word with '=' after the first value is the next KEY=VALUE. */
static int overrides_take(struct recipe *r, struct node *root, char *const *word, i64 count,
                          struct err *e) {
    for (i64 i = 0; i < count; i++) {
        const bool dashed = !strncmp(word[i], "--", 2);
        const char *name = word[i] + 2 * dashed, *equals = strchr(name, '=');
        if (!dashed && (!equals || equals == name)) {
            err_input(e, "command line: '%s' is not key=value", word[i]);
            if (recipe_problem(r, name, e)) return -1;
            continue;
        }
        char *key = arena_text(&r->arena, name, e);
        struct text value = {0};
        int rc = key ? 0 : -1;
        for (char *c = key; dashed && c && *c && *c != '='; c++)
            if (*c == '-') *c = '_';
        i64 values = 0;
        for (; !rc && !equals && i + 1 < count && strncmp(word[i + 1], "--", 2) &&
               (!values || !strchr(word[i + 1], '='));
             values++)
            rc = text_printf(&value, e, "%s%s", values ? "," : "", word[++i]);
        if (!rc && !equals && !values) rc = text_printf(&value, e, "true");
        const char *text = equals ? equals + 1 : value.data ? value.data : "";
        if (!rc)
            rc =
                override(r, root, key, equals ? key + (equals - name) : key + strlen(key), text, e);
        text_free(&value);
        if (rc && recipe_problem(r, key ? key : name, e)) return -1;
    }
    return 0;
}

struct node *recipe_source(struct recipe *r, const char *path, char *const *overrides, i64 count,
                           struct err *e) {
    struct node *root = load_file(r, path, NULL, e);
    return root && !overrides_take(r, root, overrides, count, e) ? root : NULL;
}
