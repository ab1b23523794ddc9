/* import.c: a recipe of another tool as one of ours: each key that the recipe gives or its tool has
 * by default, with where it stood; then, as comments, what has no effect here and why, and what
 * would change the result and could not be carried over. */
#include "train/recipe/recipe_int.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* A text that YAML reads back as that text. */
static int put_yaml_text(struct text *out, const char *text, struct err *e) {
    static const char *const words[] = {"true", "false", "null", "yes", "no", "on", "off", "~"};
    bool plain = *text && !strchr("-?:,[]{}#&*!|>'\"%@` 0123456789.+", *text) &&
                 !strpbrk(text, "\n\t\r\\\"#") && !strstr(text, ": ") &&
                 text[strlen(text) - 1] != ' ' && text[strlen(text) - 1] != ':';
    for (int i = 0; i < COUNT(words); i++) plain &= strcasecmp(text, words[i]) != 0;
    return plain ? text_printf(out, e, "%s", text) : json_text_add(out, text, (i64)strlen(text), e);
}

static int put_text_list(struct text *out, const struct text_list *list, struct err *e) {
    if (text_printf(out, e, "[")) return -1;
    for (i64 i = 0; i < list->count; i++)
        if (text_printf(out, e, "%s", i ? ", " : "") ||
            json_text_add(out, list->item[i], (i64)strlen(list->item[i]), e))
            return -1;
    return text_printf(out, e, "]");
}

static int put_value(struct text *out, const struct option *o, const void *from, struct err *e) {
    const void *member = (const u8 *)from + o->offset;
    if (o->type == OPT_TEXT_LIST || o->type == OPT_TEXT_EACH) return put_text_list(out, member, e);
    if (o->type == OPT_TEXT || o->type == OPT_CHOICE) {
        const char *text = *(const char *const *)member;
        return put_yaml_text(out, text ? text : "", e);
    }
    return text_printf(out, e, "%s", o->type == OPT_INT_LIST ? "[" : "") ||
                   option_print(o, from, out, e) ||
                   text_printf(out, e, "%s", o->type == OPT_INT_LIST ? "]" : "")
               ? -1
               : 0;
}

/* "recipe.yaml:12": its line, as a comment. */
static int put_where(struct text *out, const char *where, struct err *e) {
    const char *colon = strrchr(where, ':');
    const char *usual = strstr(where, "(default of ");
    if (usual) return text_printf(out, e, "  # %.*s", (int)strcspn(usual + 1, ")"), usual + 1);
    return colon ? text_printf(out, e, "  # line %s", colon + 1)
                 : text_printf(out, e, "  # %s", where);
}

static int put_item(struct text *out, const struct data_item *item, struct err *e) {
    for (const struct option *o = data_item_options; o->key; o++) {
        struct text now = {0}, usual = {0};
        struct data_item plain = {0};
        struct arena a = {0};
        int rc = option_defaults(data_item_options, &plain, &a, e) ||
                 option_print(o, item, &now, e) || option_print(o, &plain, &usual, e);
        const bool same = !rc && !strcmp(now.data ? now.data : "", usual.data ? usual.data : "");
        if (!rc && !same)
            rc = text_printf(out, e, "%s%s: ", o == data_item_options ? "  - {" : ", ", o->key) ||
                 put_value(out, o, item, e);
        text_free(&now), text_free(&usual), arena_free(&a);
        if (rc) return -1;
    }
    return text_printf(out, e, "}\n");
}

static int put_data(struct text *out, const char *key, const struct data_list *list,
                    struct err *e) {
    if (!list->count) return 0;
    if (text_printf(out, e, "%s:\n", key)) return -1;
    for (i64 i = 0; i < list->count; i++)
        if (put_item(out, &list->item[i], e)) return -1;
    return 0;
}

static int put_carried(const struct recipe *r, struct text *out, struct err *e) {
    for (const struct option *o = recipe_options; o->key; o++) {
        const char *where = r->where ? r->where[o - recipe_options] : NULL;
        if (!where) continue;
        if (text_printf(out, e, "%s: ", o->key) || put_value(out, o, r, e) ||
            put_where(out, where, e) || text_printf(out, e, "\n"))
            return -1;
    }
    if (r->model) {
        char *text = json_dumps(r->model, JSON_COMPACT | JSON_REAL_PRECISION(12));
        const int rc =
            text ? text_printf(out, e, "model: %s\n", text) : err_memory(e, "out of memory");
        free(text);
        if (rc) return -1;
    }
    return 0;
}

/* A comment line must stay one. */
static int put_comment(struct text *out, const char *head, const char *text, struct err *e) {
    if (text_printf(out, e, "#   %s", head)) return -1;
    for (; *text; text++)
        if (text_printf(out, e, "%c", (u8)*text < ' ' ? ' ' : *text)) return -1;
    return text_printf(out, e, "\n");
}

static int put_told(const struct recipe *r, struct text *out, struct err *e) {
    if (!r->told) return 0;
    if (text_printf(out, e, "\n# without effect here: %lld\n", (long long)r->told_count)) return -1;
    for (const struct told *t = r->told; t; t = t->next) {
        struct text line = {0};
        const int rc = text_printf(&line, e, "%s: %s (%s)", t->key, t->value, t->why) ||
                       put_comment(out, "", line.data, e);
        text_free(&line);
        if (rc) return -1;
    }
    return 0;
}

static int put_problems(const struct recipe *r, struct text *out, struct err *e) {
    if (!r->problem) return 0;
    if (text_printf(out, e, "\n# NOT CARRIED OVER, and it changes the result: %lld\n",
                    (long long)r->problems))
        return -1;
    for (const struct problem *p = r->problem; p; p = p->next)
        if (put_comment(out, "", p->err.primary, e) ||
            (*p->err.detail && put_comment(out, "  ", p->err.detail, e)) ||
            (*p->err.hint && put_comment(out, "  ", p->err.hint, e)))
            return -1;
    return 0;
}

int recipe_import(const struct recipe *r, const char *name, struct text *out, struct err *e) {
    struct data_list held = r->eval_dataset;
    if (r->val_set_size > 0) held.count = 0; /* made from dataset again */
    struct data_list whole = r->dataset;
    int rc = text_printf(out, e, "# %s%s%s, as a recipe of hone\n", name, r->tool ? ", of " : "",
                         r->tool ? r->tool : "") ||
             put_carried(r, out, e);
    if (!rc && r->val_set_size > 0) { /* nor is its split said twice */
        struct arena a = {0};
        struct data_item *items = arena_new(&a, (whole.count + 1) * (i64)sizeof *items, e);
        rc = items ? 0 : -1;
        for (i64 i = 0; !rc && i < whole.count; i++)
            items[i] = whole.item[i], items[i].split = NULL;
        whole.item = items;
        rc = rc || put_data(out, "dataset", &whole, e);
        arena_free(&a);
    } else if (!rc)
        rc = put_data(out, "dataset", &whole, e);
    return rc || put_data(out, "eval_dataset", &held, e) || put_told(r, out, e) ||
                   put_problems(r, out, e)
               ? -1
               : 0;
}
