/* recipe.c: from the tree of a recipe's values to a struct recipe in which nothing is left open.
 *
 * Each key is bound through its row in recipe_keys.c; then keys that depend on each other are
 * checked and resolved. recipe_source.c says where the values come from. */
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
            if (!o)
                return recipe_unknown_key(v->where, v->key,
                                          option_nearest(data_item_options, v->key), e);
            if (!node_is_null(v) && bind_option(r, data_item_options, item, o, v, e)) return -1;
        }
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

static int bind(struct recipe *r, const struct node *root, struct err *e) {
    i64 rows = 0;
    while (recipe_options[rows].key) rows++;
    if (!(r->where = arena_new(&r->arena, rows * (i64)sizeof *r->where, e))) return -1;
    if (option_defaults(recipe_options, r, &r->arena, e)) return -1;
    const struct task *task = bind_task(r, root, e);
    if (!task) return -1;
    for (const struct node *n = root->child; n; n = n->next) {
        const struct option *o = option_find(recipe_options, n->key);
        if (o) {
            if (bind_option(r, recipe_options, r, o, n, e)) return -1;
            r->where[o - recipe_options] = n->where;
        } else if (task_option(n->key, NULL)) {
            if (bind_task_key(r, task, n, e)) return -1;
        } else if (!strcmp(n->key, "model")) {
            if (n->kind != NODE_MAP)
                return err_input(e, "%s: 'model' is a mapping, as in config.json", n->where);
            if (!(r->model = node_json(n, e))) return -1;
        } else if (bind_data(r, !strcmp(n->key, "dataset") ? &r->dataset : &r->eval_dataset, n,
                             e)) {
            return -1;
        }
    }
    return 0;
}

/* ---- keys that depend on each other ---------------------------------------------------------- */
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
        return err_input(e, "%s: global_batch_size %lld is not a multiple of micro_batch_size %lld",
                         where, (long long)r->global_batch_size, (long long)micro);
    if (!steps_given) r->gradient_accumulation_steps = r->global_batch_size / micro;
    if (micro * r->gradient_accumulation_steps != r->global_batch_size)
        return err_input(e,
                         "%s: global_batch_size %lld is not micro_batch_size %lld x "
                         "gradient_accumulation_steps %lld",
                         where, (long long)r->global_batch_size, (long long)micro,
                         (long long)r->gradient_accumulation_steps),
               err_hint(e, "leave one of the three out");
    if (groups & (groups - 1))
        return err_input(e, "%s: reduction_groups %lld is not a power of two",
                         place(r, "reduction_groups", name), (long long)groups);
    if (r->global_batch_size % groups)
        return err_input(e, "%s: global_batch_size %lld does not divide into %lld reduction_groups",
                         place(r, "reduction_groups", name), (long long)r->global_batch_size,
                         (long long)groups);
    return 0;
}

/* What says how the base is held says one thing, and of a base that is frozen.
 * bnb_4bit_*: what the model is trained in cannot be told apart from what it is decoded to. */
static int check_quant(struct recipe *r, const char *name, struct err *e) {
    static const char *const keys[] = {"bnb_4bit_quant_type", "bnb_4bit_use_double_quant",
                                       "bnb_4bit_compute_dtype", NULL};
    const char *compute = r->bnb_4bit_compute_dtype;
    if (r->load_in_4bit && r->quantize && strcmp(r->quantize, "auto"))
        return err_input(e, "%s: both 'load_in_4bit' and 'quantize: %s'",
                         place(r, "quantize", name), r->quantize);
    if (r->quantize && packing_find(r->quantize) && !r->use_peft)
        return err_input(e, "%s: quantize: %s needs use_peft: true", place(r, "quantize", name),
                         r->quantize),
               err_hint(e, "packed weights are frozen; an adapter beside them is trained (QLoRA)");
    if (r->load_in_4bit && !r->use_peft)
        return err_input(e, "%s: load_in_4bit needs use_peft: true",
                         place(r, "load_in_4bit", name)),
               err_hint(e, "4-bit weights are frozen; an adapter beside them is trained (QLoRA)");
    if (r->load_in_4bit && strcmp(compute, "auto") &&
        strcmp(compute, strcmp(r->precision, "bf16") ? "float32" : "bfloat16"))
        return err_input(e, "%s: bnb_4bit_compute_dtype: %s with precision: %s",
                         place(r, "bnb_4bit_compute_dtype", name), compute, r->precision),
               err_hint(e, "weights are decoded to the compute type: precision says which");
    for (int i = 0; keys[i] && !r->load_in_4bit; i++)
        if (recipe_given(r, keys[i]) &&
            text_printf(&r->notes, e, "%s: '%s' has no effect without 'load_in_4bit: true'\n",
                        place(r, keys[i], name), keys[i]))
            return -1;
    return 0;
}

static int check_model(struct recipe *r, const char *name, struct err *e) {
    if (r->model && r->model_name_or_path)
        return err_input(e, "%s: both 'model' and 'model_name_or_path'",
                         place(r, "model_name_or_path", name)),
               err_hint(
                   e,
                   "'model' describes a new model, 'model_name_or_path' names one to start from");
    if (!r->model && !r->model_name_or_path)
        return err_input(e, "%s: no model", name),
               err_hint(
                   e, "give model_name_or_path (a folder), or model (a config) to start a new one");
    if (r->use_peft && !r->model_name_or_path)
        return err_input(e, "%s: use_peft adapts a trained model: give model_name_or_path",
                         place(r, "use_peft", name));
    const bool plus = recipe_given(r, "loraplus_lr_ratio");
    if (plus && !recipe_given(r, "loraplus_lr_embedding")) r->loraplus_lr_embedding = 1e-6;
    if (r->use_peft && !plus && r->loraplus_lr_embedding > 0)
        return err_input(e, "%s: loraplus_lr_embedding without loraplus_lr_ratio",
                         place(r, "loraplus_lr_embedding", name)),
               err_hint(e, "loraplus_lr_ratio: 16 is PEFT's example; 1 leaves B's as it is");
    if (r->use_peft) return 0;
    static const char *const peft[] = {"lora_r",
                                       "lora_alpha",
                                       "lora_dropout",
                                       "lora_target_modules",
                                       "lora_target_parameters",
                                       "lora_exclude_modules",
                                       "lora_layers_to_transform",
                                       "lora_rank_pattern",
                                       "lora_alpha_pattern",
                                       "lora_modules_to_save",
                                       "loraplus_lr_ratio",
                                       "loraplus_lr_embedding",
                                       "use_rslora",
                                       "use_dora",
                                       "init_lora_weights",
                                       NULL};
    for (int i = 0; peft[i]; i++)
        if (recipe_given(r, peft[i]) &&
            text_printf(&r->notes, e, "%s: '%s' has no effect without 'use_peft: true'\n",
                        place(r, peft[i], name), peft[i]))
            return -1;
    return 0;
}

static int check_report_to(struct recipe *r, const char *name, struct err *e) {
    for (i64 i = 0; i < r->report_to.count; i++) {
        const char *to = r->report_to.item[i];
        if (strcmp(to, "jsonl") && strcmp(to, "tensorboard") && strcmp(to, "csv") &&
            strcmp(to, "none"))
            return err_input(e, "%s: 'report_to': found '%s', expected jsonl, tensorboard or csv",
                             place(r, "report_to", name), to);
    }
    return 0;
}

/* How samples are made. */
static int check_samples(struct recipe *r, const char *name, struct err *e) {
    const bool split = !strcmp(r->packing_strategy, "bfd_split"),
               wrapped = !strcmp(r->packing_strategy, "wrapped"),
               cut = strcmp(r->truncation, "right"), other = strcmp(r->packing_strategy, "auto");
    if (r->recipe_version < 2 && (other || cut || r->drop_last))
        return err_input(e, "%s: '%s' has no meaning in recipe_version 1", name,
                         other ? "packing_strategy"
                         : cut ? "truncation"
                               : "drop_last"),
               err_hint(e, "leave out one of the two keys");
    if (cut && r->packing && wrapped)
        return err_input(e, "%s: packing_strategy: wrapped cuts no document by its length",
                         place(r, "truncation", name)),
               err_hint(e, "leave out truncation, or take packing_strategy: bfd");
    if (cut && r->packing && split && strcmp(r->truncation, "split"))
        return err_input(e, "%s: packing_strategy: bfd_split is truncation: split",
                         place(r, "truncation", name)),
               err_hint(e, "leave one of them out");
    return 0;
}

static int check(struct recipe *r, const char *name, struct err *e) {
    if (check_model(r, name, e) || check_quant(r, name, e) || resolve_batches(r, name, e) ||
        check_report_to(r, name, e) || recipe_optim(r, place(r, "optim_args", name), e))
        return -1;
    if (!r->master_weights && strcmp(r->precision, "bf16"))
        return err_input(e, "%s: master_weights: false goes with precision: bf16 only",
                         place(r, "master_weights", name)),
               err_hint(e, "the weights of an fp32 run are their own masters");
    if (!r->dataset.count)
        return err_input(e, "%s: no dataset", name), err_hint(e, "dataset: [{path: FILE}]");
    if (r->eval_steps && !r->eval_dataset.count)
        return err_input(e, "%s: eval_steps needs an eval_dataset", place(r, "eval_steps", name));
    if (r->warmup_steps && r->warmup_ratio > 0)
        return err_input(e, "%s: both warmup_steps and warmup_ratio",
                         place(r, "warmup_ratio", name));
    if (r->wsd_decay_steps && r->wsd_decay_ratio > 0)
        return err_input(e, "%s: both wsd_decay_steps and wsd_decay_ratio",
                         place(r, "wsd_decay_ratio", name));
    r->max_steps = i64_max(r->max_steps, 0);
    return check_samples(r, name, e);
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

int recipe_load(struct recipe *r, const char *path, char *const *overrides, i64 count,
                struct err *e) {
    *r = (struct recipe){0};
    return finish(r, recipe_source(r, path, overrides, count, e), path, e);
}

int recipe_of_json(struct recipe *r, const json_t *j, const char *name, struct err *e) {
    *r = (struct recipe){0};
    const char *kept = arena_text(&r->arena, name, e);
    struct node *root = kept ? node_of_json(&r->arena, j, kept, e) : NULL;
    return finish(r, root ? recipe_canonical(r, root, e) : NULL, name, e);
}

void recipe_free(struct recipe *r) {
    json_decref(r->model);
    text_free(&r->notes);
    arena_free(&r->arena);
    *r = (struct recipe){0};
}
