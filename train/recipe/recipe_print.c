/* recipe_print.c: a resolved recipe as JSON (the lock, the report, comparison on resume) and the
 * table of keys for people. */
#include "train/recipe/recipe_int.h"

#include <jansson.h>
#include <string.h>

static json_t *list_json(const struct text_list *texts, const struct int_list *ints) {
    json_t *list = json_array();
    for (i64 i = 0; list && i < (texts ? texts->count : ints->count); i++)
        if (json_array_append_new(list, texts ? json_string(texts->item[i])
                                              : json_integer(ints->item[i])))
            return json_decref(list), NULL;
    return list;
}

/* NULL where the member is unset and on failure; *unset tells which. */
static json_t *member_json(const struct option *o, const void *from, bool *unset) {
    const void *m = (const char *)from + o->offset;
    *unset = false;
    switch (o->type) {
    case OPT_BOOL: return json_boolean(*(const bool *)m);
    case OPT_INT: return json_integer(*(const i64 *)m);
    case OPT_FLOAT: return json_real(*(const double *)m);
    case OPT_INT_LIST: return list_json(NULL, m);
    case OPT_TEXT_EACH:
    case OPT_TEXT_LIST: return list_json(m, NULL);
    case OPT_TEXT:
    case OPT_CHOICE: break;
    }
    const char *text = *(const char *const *)m;
    *unset = !text;
    return text ? json_string(text) : NULL;
}

static int table_json(json_t *object, const struct option *table, const void *from) {
    for (const struct option *o = table; o->key; o++) {
        bool unset;
        json_t *value = member_json(o, from, &unset);
        if (!unset && json_object_set_new(object, o->key, value)) return -1;
    }
    return 0;
}

static int data_json(json_t *object, const char *key, const struct data_list *data) {
    json_t *list = json_array();
    if (json_object_set_new(object, key, list)) return -1;
    for (i64 i = 0; i < data->count; i++) {
        json_t *item = json_object();
        if (json_array_append_new(list, item) ||
            table_json(item, data_item_options, &data->item[i]))
            return -1;
        if (!data->item[i].columns.count) json_object_del(item, "columns");
        if (!data->item[i].drop_system_message) json_object_del(item, "drop_system_message");
    }
    return 0;
}

json_t *recipe_json(const struct recipe *r, struct err *e) {
    json_t *j = json_object();
    const struct task *task = task_find(r->task);
    if (j && !table_json(j, recipe_options, r) &&
        (!task || !task->options || !table_json(j, task->options, r->task_with)) &&
        !data_json(j, "dataset", &r->dataset) && !data_json(j, "eval_dataset", &r->eval_dataset) &&
        (!r->model || !json_object_set_new(j, "model", json_deep_copy(r->model))))
        return j;
    json_decref(j);
    return err_failed(e, "out of memory, or a recipe value that is not UTF-8"), NULL;
}

enum { HELP_RANGE = 120 };
static void help_range(const struct option *o, char out[HELP_RANGE]) {
    static const char *const type[] = {"true|false", "integer",  "number", "text",
                                       "",           "integers", "texts"};
    if (o->type == OPT_CHOICE && strlen(o->choices) >= HELP_RANGE) {
        snprintf(out, HELP_RANGE, "a name, below");
    } else if (o->type == OPT_CHOICE) {
        snprintf(out, HELP_RANGE, "%s", o->choices);
        for (char *p = out; *p; p++)
            if (*p == ' ') *p = '|';
    } else if ((o->min != 0 || o->max != 0) && o->max < 1e7) {
        snprintf(out, HELP_RANGE, "%s %g..%g", type[o->type], o->min, o->max);
    } else if (o->min > 0) {
        snprintf(out, HELP_RANGE, "%s >= %g", type[o->type], o->min);
    } else {
        snprintf(out, HELP_RANGE, "%s", type[o->type]);
    }
}

static void help_row(const struct option *o, const char *range, FILE *to) {
    fprintf(to, "  %-28s %-32s %s%s%s%s\n", o->key, range, o->help, o->otherwise ? " [" : "",
            o->otherwise ? o->otherwise : "", o->otherwise ? "]" : "");
}

static void items_help(FILE *to) {
    fprintf(to, "\nItems of dataset and eval_dataset\n");
    for (const struct option *o = data_item_options; o->key; o++) {
        char range[HELP_RANGE];
        help_range(o, range);
        help_row(o, range, to);
        const char *names = ends_with(range, "below") ? o->choices : "";
        for (char name[WORD_SIZE]; word_next(&names, name);) fprintf(to, "  %-28s %s\n", "", name);
    }
}

static void tasks_range(char *out, size_t size) {
    task_names(out, size);
    for (char *p = out; *p; p++)
        if (*p == ' ') *p = '|';
}

int recipe_help(FILE *to) {
    fprintf(to, "Recipe keys (YAML; on the command line: key=value, with dots to reach inside)\n");
    const struct key_section *s = recipe_sections;
    for (const struct option *o = recipe_options; o->key; o++) {
        char range[HELP_RANGE];
        if (s->first_key && !strcmp(s->first_key, o->key)) fprintf(to, "\n%s\n", s++->title);
        help_range(o, range);
        if (!strcmp(o->key, "task")) tasks_range(range, sizeof range);
        help_row(o, range, to);
        if (!strcmp(o->key, "seed"))
            for (const struct key_help *k = recipe_structured; k->key; k++)
                fprintf(to, "  %-28s %-32s %s\n", k->key, k->type, k->help);
    }
    items_help(to);
    tasks_help(to);
    optims_help(to);
    fprintf(to,
            "\nRecipes of Axolotl, LLaMA-Factory, TRL, ms-swift, torchtune and mlx-lm are taken as "
            "they are;\n`hone import FILE` prints one as ours.\n"
            "\nSpellings of other tools that are taken too\n");
    for (const struct key_alias *k = recipe_aliases; k->alias; k++)
        if (strcmp(k->alias, k->key))
            fprintf(to, "  %-32s %-14s %s\n", k->alias, k->origin, k->key);
    return ferror(to) ? -1 : 0;
}
