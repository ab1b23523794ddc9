/* recipe.c: from the tree of a recipe's values to a struct recipe in which nothing is left open.
 *
 * Each key is bound through its row in recipe_keys.c; then keys that depend on each other are
 * checked and resolved (recipe_check.c). recipe_source.c says where the values come from. What is
 * wrong is collected on the way: the report has all of it. */
#include "ops/ops.h"
#include "train/recipe/recipe_int.h"

#include <jansson.h>
#include <libgen.h>
#include <string.h>

/* ---- binding --------------------------------------------------------------------------------- */
static const char *kind_name[] = {"one value", "a list", "a mapping"};

static int bind_text_list(struct recipe *r, struct text_list *list, const struct node *n,
                          struct err *e) {
    i64 count = 0;
    for (const struct node *c = n->child; c; c = c->next, count++)
        if (c->kind != NODE_SCALAR)
            return err_input(e, "%s: '%s': found %s, expected a text", c->where, n->key,
                             kind_name[c->kind]);
    *list = (struct text_list){0};
    if (count && !(list->item = arena_new(&r->arena, count * (i64)sizeof *list->item, e)))
        return -1;
    for (const struct node *c = n->child; c; c = c->next)
        list->item[list->count++] = (char *)c->text;
    return 0;
}

/* Binds one node to a row of `table`. */
static int bind_option(struct recipe *r, const struct option *table, void *to,
                       const struct option *o, const struct node *n, struct err *e) {
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
    if (n->kind == NODE_SCALAR)
        return option_set(table, to, o->key, n->text, n->where, &r->arena, e);
    struct text joined = {0};
    for (const struct node *c = n->child; c; c = c->next) {
        if (c->kind != NODE_SCALAR) {
            text_free(&joined);
            return err_input(e, "%s: '%s': found %s, expected a number", c->where, o->key,
                             kind_name[c->kind]);
        }
        if (text_printf(&joined, e, "%s%s", joined.size ? "," : "", c->text))
            return text_free(&joined), -1;
    }
    int rc = option_set(table, to, o->key, joined.data ? joined.data : "", n->where, &r->arena, e);
    text_free(&joined);
    return rc;
}

static int bind_data(struct recipe *r, struct data_list *list, const struct node *n,
                     struct err *e) {
    i64 count = 0;
    for (const struct node *c = n->child; c; c = c->next) count++;
    if (count && !(list->item = arena_new(&r->arena, count * (i64)sizeof *list->item, e)))
        return -1;
    for (const struct node *c = n->child; c; c = c->next, list->count++) {
        struct data_item *item = &list->item[list->count];
        if (c->kind != NODE_MAP)
            return err_input(e, "%s: '%s.%lld': found %s, expected a path or a mapping", c->where,
                             n->key, (long long)list->count, kind_name[c->kind]);
        if (option_defaults(data_item_options, item, &r->arena, e)) return -1;
        for (const struct node *v = c->child; v; v = v->next) {
            const struct option *o = option_find(data_item_options, v->key);
            const char *near = o ? NULL : option_nearest(data_item_options, v->key);
            int rc = o ? 0 : recipe_unknown_key(v->where, v->key, near, e);
            if (o && !node_is_null(v)) rc = bind_option(r, data_item_options, item, o, v, e);
            if (rc && recipe_problem(r, n->key, e)) return -1;
        }
        if (!item->path && recipe_is_problem(r, "dataset._component_")) return 0;
        if (!item->path || !*item->path)
            return err_input(e, "%s: '%s.%lld' has no path", c->where, n->key,
                             (long long)list->count);
    }
    return 0;
}

/* A key of the recipe's task. */
static int bind_task_key(struct recipe *r, const struct task *task, const struct node *n,
                         struct err *e) {
    const struct option *o = task->options ? option_find(task->options, n->key) : NULL;
    const struct task *other = NULL;
    if (o) return bind_option(r, task->options, r->task_with, o, n, e);
    task_option(n->key, &other);
    err_input(e, "%s: '%s' is a key of task: %s, and the task is %s", n->where, n->key,
              other ? other->name : "another", task->name);
    return err_hint(e, "leave it out, or set task: %s", other ? other->name : "that one");
}

/* Which task it is says which keys there are. */
static const struct task *bind_task(struct recipe *r, const struct node *root, struct err *e) {
    char names[256];
    const struct option *o = option_find(recipe_options, "task");
    struct option row[] = {*o, {0}};
    const struct node *n = node_find(root, "task");
    task_names(names, sizeof names);
    row->type = OPT_CHOICE, row->choices = names;
    if (n && bind_option(r, row, r, row, n, e)) return NULL;
    const struct task *task = task_find(r->task);
    if (!task) return err_failed(e, "there is no task '%s'", r->task), NULL;
    if (!task->options) return task;
    r->task_with = arena_new(&r->arena, task->size, e);
    return r->task_with && !option_defaults(task->options, r->task_with, &r->arena, e) ? task
                                                                                       : NULL;
}

/* A number of steps below 1 is a share of all steps, as transformers 5 has it. */
static const struct option *step_option(const struct option *o, const struct node *n) {
    static const char *const share[][2] = {{"warmup_steps", "warmup_ratio"},
                                           {"logging_steps", "logging_ratio"},
                                           {"eval_steps", "eval_ratio"},
                                           {"save_steps", "save_ratio"}};
    for (int i = 0; i < COUNT(share) && n->kind == NODE_SCALAR; i++) {
        char *end;
        if (strcmp(o->key, share[i][0])) continue;
        const double x = strtod(n->text, &end);
        if (end != n->text && !*end && x > 0 && x < 1)
            return option_find(recipe_options, share[i][1]);
    }
    return o;
}

static int bind_key(struct recipe *r, const struct task *task, const struct node *n,
                    struct err *e) {
    const struct option *o = option_find(recipe_options, n->key);
    if (o) {
        o = step_option(o, n);
        if (bind_option(r, recipe_options, r, o, n, e)) return -1;
        r->where[o - recipe_options] = n->where;
        return 0;
    }
    if (task_option(n->key, NULL)) return bind_task_key(r, task, n, e);
    if (!strcmp(n->key, "model")) {
        if (n->kind != NODE_MAP)
            return err_input(e, "%s: 'model' is a mapping, as in config.json", n->where);
        return (r->model = node_json(n, e)) ? 0 : -1;
    }
    return bind_data(r, !strcmp(n->key, "dataset") ? &r->dataset : &r->eval_dataset, n, e);
}

static int bind(struct recipe *r, const struct node *root, struct err *e) {
    i64 rows = 0;
    while (recipe_options[rows].key) rows++;
    if (!(r->where = arena_new(&r->arena, rows * (i64)sizeof *r->where, e))) return -1;
    if (option_defaults(recipe_options, r, &r->arena, e)) return -1;
    const struct task *task = bind_task(r, root, e);
    if (!task && (recipe_problem(r, "task", e) || !(task = *recipe_tasks))) return -1;
    for (const struct node *n = root->child; n; n = n->next) {
        if (!strcmp(n->key, "task") && task != task_find(r->task)) continue;
        if (bind_key(r, task, n, e) && recipe_problem(r, n->key, e)) return -1;
    }
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

/* Keys without effect, in one line that counts them. */
static int told_note(struct recipe *r, const char *name, struct err *e) {
    if (!r->told_count) return 0;
    if (text_printf(&r->notes, e, "%s: %lld key%s no effect here:", name, (long long)r->told_count,
                    r->told_count == 1 ? " has" : "s have"))
        return -1;
    for (const struct told *t = r->told; t; t = t->next)
        if (text_printf(&r->notes, e, "%s %s", t == r->told ? "" : ",", t->key)) return -1;
    return text_printf(&r->notes, e, "\n");
}

static int finish(struct recipe *r, const struct node *root, const char *name, struct err *e) {
    if (root && !bind(r, root, e) && !recipe_check(r, name, e) && !told_note(r, name, e) &&
        (r->output_dir || (r->output_dir = default_output(&r->arena, name, e))))
        return 0;
    recipe_free(r);
    return -1;
}

int recipe_read(struct recipe *r, const char *path, char *const *overrides, i64 count,
                struct err *e) {
    *r = (struct recipe){0};
    return finish(r, recipe_source(r, path, overrides, count, e), path, e);
}

/* "tatsu-lab/alpaca": how hubs name things. */
static bool is_hub_name(const char *path) {
    const char *slash = strchr(path, '/');
    return slash && slash != path && slash[1] && !strchr(slash + 1, '/') && *path != '.' &&
           !strchr(path, ' ');
}

static int missing(struct recipe *r, const char *key, const char *path, const char *word,
                   struct err *e) {
    if (path_exists(path)) return 0;
    err_input(e, "%s: %s is not here", key, path);
    if (is_hub_name(path))
        err_hint(e, "nothing is downloaded: get it from the hub, then %s=PATH", word);
    else
        err_hint(e, "%s=PATH names another", word);
    return recipe_problem(r, key, e);
}

static int missing_data(struct recipe *r, const char *key, const struct data_list *list,
                        struct err *e) {
    for (i64 i = 0; i < list->count; i++) {
        const char *word = list->count == 1
                               ? arena_printf(&r->arena, e, "%s.path", key)
                               : arena_printf(&r->arena, e, "%s.%lld.path", key, (long long)i);
        if (!word ||
            (!strpbrk(list->item[i].path, "*?[") && missing(r, key, list->item[i].path, word, e)))
            return -1;
    }
    return 0;
}

int recipe_missing(struct recipe *r, struct err *e) {
    const char *model = r->model_name_or_path, *tokenizer = r->tokenizer;
    if (model && missing(r, "model_name_or_path", model, "model_name_or_path", e)) return -1;
    if (tokenizer && missing(r, "tokenizer", tokenizer, "tokenizer", e)) return -1;
    const char *adapter = r->adapter_name_or_path;
    if (adapter && missing(r, "adapter_name_or_path", adapter, "adapter_name_or_path", e))
        return -1;
    if (missing_data(r, "dataset", &r->dataset, e)) return -1;
    return r->val_set_size > 0 ? 0 : missing_data(r, "eval_dataset", &r->eval_dataset, e);
}

int recipe_judge(const struct recipe *r, const char *name, struct err *e) {
    if (!r->problem) return 0;
    if (!r->problem->next) return *e = r->problem->err, -1;
    const char *hint = "";
    for (const struct problem *p = r->problem; p; p = p->next) {
        struct err one = p->err;
        if (!strcmp(one.hint, hint)) *one.hint = 0;
        if (*one.hint) hint = p->err.hint;
        err_print(&one, stderr);
    }
    err_input(e, "%s: %lld problems, %s of them above", name, (long long)r->problems,
              r->problems > PROBLEMS_KEPT ? "the first" : "all");
    return err_hint(e, "hone import FILE prints what can be carried over");
}

static int judged(struct recipe *r, const char *name, int rc, struct err *e) {
    if (rc || !recipe_judge(r, name, e)) return rc;
    recipe_free(r);
    return -1;
}

int recipe_load(struct recipe *r, const char *path, char *const *overrides, i64 count,
                struct err *e) {
    return judged(r, path, recipe_read(r, path, overrides, count, e), e);
}

int recipe_of_json(struct recipe *r, const json_t *j, const char *name, struct err *e) {
    *r = (struct recipe){0};
    const char *kept = arena_text(&r->arena, name, e);
    struct node *root = kept ? node_of_json(&r->arena, j, kept, e) : NULL;
    return judged(r, name, finish(r, root ? recipe_canonical(r, root, e) : NULL, name, e), e);
}

void recipe_free(struct recipe *r) {
    json_decref(r->model);
    text_free(&r->notes);
    arena_free(&r->arena);
    *r = (struct recipe){0};
}
