/* foreign.c: what another tool's key means here.
 *
 * A file is of the tool whose own keys it has most of (foreign_tools: at least two), unless it has
 * a key that only we have; then that tool's rows come before those of any tool, and what it does by
 * default, where we do otherwise, holds (foreign_defaults). A row says that keys are one of ours,
 * that they have no effect here, or what they would change: nothing of a recipe is ignored without
 * a word. Mappings are looked up by dotted keys, lists of data by the keys of their items. */
#include "data/templates/templates.h"
#include "train/recipe/recipe_int.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

const char *const foreign_kind_text[] = {"",     "",       "",          "objective", "vision",
                                         "GPUs", "plugin", "untrained", "other"};
enum { MARKS_LEAST = 2 };

bool word_next(const char **list, char word[WORD_SIZE]) {
    *list += strspn(*list, " ");
    const size_t size = strcspn(*list, " ");
    snprintf(word, WORD_SIZE, "%.*s", (int)size, *list);
    *list += size;
    return size > 0;
}

static bool has_component(const struct node *n) {
    for (const struct node *c = n->child; c; c = c->next)
        if (c->kind == NODE_MAP && node_find(c, "_component_")) return true;
    return false;
}

const struct tool *foreign_tool(const struct node *map) {
    static const char own[] = "recipe_version task numerics document_mask reduction_groups "
                              "min_lr_ratio master_weights sample_prompts eval_batches include";
    const struct tool *best = NULL;
    i64 most = MARKS_LEAST - 1;
    for (const struct tool *t = foreign_tools; t->name; t++) {
        const bool known = t->bit == TOOL_TORCHTUNE
                               ? has_component(map)
                               : t->bit == TOOL_SWIFT && node_find(map, "program");
        i64 count = known ? 100 : 0;
        for (const struct node *n = map->child; n; n = n->next) {
            if (word_listed(own, n->key)) return NULL;
            count += word_listed(t->marks, n->key);
        }
        if (count > most) most = count, best = t;
    }
    return best;
}

static const struct foreign *row_find(const struct foreign *rows, unsigned tools, const char *key) {
    const struct foreign *any = NULL;
    for (const struct foreign *f = rows; f->key; f++) {
        if (!word_listed(f->key, key)) continue;
        if (f->tools & tools) return f;
        if (!f->tools) any = f;
    }
    return any;
}

const struct foreign *foreign_find(const struct recipe *r, const char *key) {
    const struct foreign *f = row_find(foreign_tool_keys, r->tools, key);
    return f ? f : row_find(foreign_keys, r->tools, key);
}

const struct foreign *foreign_item(const struct recipe *r, const char *key) {
    return row_find(foreign_items, r->tools, key);
}

static bool rows_below(const struct foreign *rows, unsigned tools, const char *key) {
    const size_t size = strlen(key);
    char word[WORD_SIZE];
    for (const struct foreign *f = rows; f->key; f++)
        for (const char *p = f->key; (!f->tools || f->tools & tools) && word_next(&p, word);)
            if (!strncmp(word, key, size) && word[size] == '.') return true;
    return false;
}

bool foreign_nested(const struct recipe *r, const char *key) {
    return rows_below(foreign_tool_keys, r->tools, key) || rows_below(foreign_keys, r->tools, key);
}

int foreign_value(struct arena *a, const char *values, const char *text, const char **ours,
                  struct err *e) {
    char word[WORD_SIZE];
    for (const char *p = values; p && word_next(&p, word);) {
        char *equals = strchr(word, '=');
        if (!strcmp(word, "*=")) return 0;
        *equals = 0;
        if (fnmatch(word, text, FNM_CASEFOLD)) continue;
        return (*ours = arena_text(a, equals + 1, e)) ? 1 : -1;
    }
    return values ? -1 : 0;
}

/* ---- what has no effect, what is refused ----------------------------------------------------- */
static const char *value_text(struct recipe *r, const struct node *n, struct err *e) {
    if (n->kind == NODE_SCALAR) return arena_printf(&r->arena, e, "%.80s", n->text);
    return n->kind == NODE_LIST ? "[...]" : "{...}";
}

int recipe_tell(struct recipe *r, const struct node *n, const char *key, const char *why,
                struct err *e) {
    struct told *t = arena_new(&r->arena, sizeof *t, e);
    if (!t) return -1;
    *t = (struct told){.where = n->where, .key = key, .value = value_text(r, n, e), .why = why};
    if (!t->value) return -1;
    *(r->last_told ? &r->last_told->next : &r->told) = t;
    r->last_told = t, r->told_count++;
    return 0;
}

static bool is_off(const struct node *n, const char *values) {
    const char *off = "false none no off null 0 0.0", *also = values ? values : "";
    char word[WORD_SIZE];
    if (node_is_null(n)) return true;
    for (const struct node *c = n->child; c; c = c->next)
        if (!is_off(c, values)) return false;
    if (n->kind != NODE_SCALAR) return true;
    while (word_next(&off, word))
        if (!strcasecmp(word, n->text)) return true;
    while (word_next(&also, word))
        if (!fnmatch(word, n->text, FNM_CASEFOLD)) return true;
    return false;
}

enum foreign_kind foreign_kind_of(const char *name) {
    for (int i = FOREIGN_OBJECTIVE; i < FOREIGN_OTHER; i++)
        if (!strcasecmp(name, foreign_kind_text[i])) return (enum foreign_kind)i;
    return FOREIGN_OTHER;
}

int foreign_refuse(const struct recipe *r, const struct node *n, const char *key,
                   enum foreign_kind kind, const char *what, struct err *e) {
    static const char *const is[] = {
        "",
        "",
        "",
        "another objective or method of training",
        "a model that sees or hears",
        "several GPUs",
        "a plugin",
        "it trains nothing",
        "not supported",
    };
    char value[100] = "";
    if (n->kind == NODE_SCALAR) snprintf(value, sizeof value, ": %.90s", n->text);
    err_input(e, "%s: '%s%s'%s%s%s changes the result: %s", n->where, key, value,
              r->tool ? " (" : "", r->tool ? r->tool : "", r->tool ? ")" : "", is[kind]);
    return what && *what ? err_detail(e, "%s", what) : -1;
}

int foreign_apply(struct recipe *r, const struct node *n, const struct foreign *f, struct err *e) {
    if (f->kind == FOREIGN_NEAR && !is_off(n, NULL)) {
        if (text_printf(&r->notes, e, "%s: '%s': %s\n", n->where, n->key, f->to)) return -1;
        return recipe_tell(r, n, n->key, f->to, e);
    }
    if (f->kind == FOREIGN_NONE || f->kind == FOREIGN_NEAR)
        return recipe_tell(r, n, n->key, f->to, e);
    if (is_off(n, f->values)) return recipe_tell(r, n, n->key, "switched off, as here", e);
    struct node one = *n; /* of a list, the item that is meant */
    for (const struct node *c = n->kind == NODE_LIST ? n->child : NULL; c; c = c->next)
        if (c->kind == NODE_SCALAR && !is_off(c, f->values)) {
            one = *c, one.where = n->where;
            break;
        }
    return foreign_refuse(r, &one, n->key, f->kind, f->to, e);
}

int recipe_problem(struct recipe *r, const char *key, struct err *e) {
    if (e->code != ERR_INPUT) return -1;
    if (r->problems >= PROBLEMS_KEPT) return r->problems++, *e = (struct err){0}, 0;
    struct err failed = {0};
    struct problem *p = arena_new(&r->arena, sizeof *p, &failed);
    if (!p) return *e = failed, -1;
    p->err = *e, p->key = key;
    *e = (struct err){0};
    *(r->last_problem ? &r->last_problem->next : &r->problem) = p;
    r->last_problem = p, r->problems++;
    return 0;
}

bool recipe_is_problem(const struct recipe *r, const char *keys) {
    char key[WORD_SIZE];
    while (word_next(&keys, key))
        for (const struct problem *p = r->problem; p; p = p->next) {
            const size_t size = strlen(key);
            if (p->key && !strncmp(p->key, key, size) && (!p->key[size] || p->key[size] == '.'))
                return true;
        }
    return false;
}
