/* foreign_shapes.c: what rows cannot say of other tools' recipes: lists written as texts, values
 * that refer to others, keys that together make one of ours, and defaults. */
#include "train/recipe/recipe_int.h"

#include <stdlib.h>
#include <string.h>

static const char *text_of(const struct node *map, const char *key) {
    const struct node *n = map ? node_find(map, key) : NULL;
    return n && n->kind == NODE_SCALAR && !node_is_null(n) ? n->text : NULL;
}

static int put_text(struct recipe *r, struct node *map, const char *key, const char *text,
                    const char *where, struct err *e) {
    struct node *n = text ? node_scalar(&r->arena, text, where, e) : NULL;
    if (!n) return -1;
    n->key = key;
    return node_put(&r->arena, map, n, e);
}

static void drop(struct node *map, const char *key) {
    struct node **at = &map->child;
    while (*at && strcmp((*at)->key, key)) at = &(*at)->next;
    if (*at) *at = (*at)->next;
}

/* Given, and neither false nor a zero. */
static bool is_true(const struct node *map, const char *key) {
    const char *text = text_of(map, key);
    char *end;
    if (!text || !strcasecmp(text, "false")) return false;
    const double x = strtod(text, &end);
    return end == text || *end || x != 0;
}

/* ---- torchtune ------------------------------------------------------------------------------- */
/* "${output_dir}/logs": the value of another key, once. */
static int interpolate(struct recipe *r, const struct node *root, struct node *n, struct err *e) {
    for (struct node *c = n->child; c; c = c->next)
        if (interpolate(r, root, c, e)) return -1;
    const char *begin = n->kind == NODE_SCALAR ? strstr(n->text, "${") : NULL;
    const char *end = begin ? strchr(begin, '}') : NULL;
    if (!end) return 0;
    char key[128];
    snprintf(key, sizeof key, "%.*s", (int)(end - begin - 2), begin + 2);
    const char *value = text_of(root, key);
    if (!value) return 0;
    n->text =
        arena_printf(&r->arena, e, "%.*s%s%s", (int)(begin - n->text), n->text, value, end + 1);
    return n->text ? 0 : -1;
}

/* Where adapters are: lora_attn_modules, apply_lora_to_mlp and apply_lora_to_output together. */
static int tune_targets(struct recipe *r, struct node *map, struct err *e) {
    struct node *model = node_find(map, "model");
    if (!model || model->kind != NODE_MAP) return 0;
    const struct node *attention = node_find(model, "lora_attn_modules");
    struct text list = {0};
    int rc = 0;
    for (const struct node *c = attention ? attention->child : NULL; !rc && c; c = c->next)
        if (c->kind == NODE_SCALAR)
            rc = text_printf(&list, e, "%s%s", list.size ? "," : "",
                             !strcmp(c->text, "output_proj") ? "o_proj" : c->text);
    if (!rc && is_true(model, "apply_lora_to_mlp"))
        rc = text_printf(&list, e, "%sgate_proj,up_proj,down_proj", list.size ? "," : "");
    if (!rc && is_true(model, "apply_lora_to_output"))
        rc = text_printf(&list, e, "%slm_head", list.size ? "," : "");
    const char *component = text_of(model, "_component_");
    if (!rc && list.size)
        rc = put_text(r, map, "lora_target_modules", arena_text(&r->arena, list.data, e),
                      model->where, e);
    if (!rc && component && strstr(component, ".qlora_"))
        rc = put_text(r, map, "load_in_4bit", "true", model->where, e) ||
             put_text(r, map, "bnb_4bit_use_double_quant", "true", model->where, e);
    text_free(&list);
    drop(model, "lora_attn_modules"), drop(model, "apply_lora_to_mlp");
    drop(model, "apply_lora_to_output");
    return rc ? -1 : 0;
}

/* Its Alpaca sets: the prompt is trained where that recipe is silent, and written as Alpaca's. */
static int tune_alpaca(struct recipe *r, struct node *map, const char *key, const struct node *from,
                       struct node *to, struct err *e) {
    if (!strcmp(key, "dataset") && !node_find(from, "train_on_input") &&
        put_text(r, map, "completion_only_loss", "false", to->where, e))
        return -1;
    return put_text(r, to, "prompt_style", "alpaca", to->where, e) ||
                   text_printf(&r->notes, e,
                               "%s: '%s': Alpaca's prompts as plain text; torchtune puts them into "
                               "messages of the model's tokenizer\n",
                               to->where, text_of(to, "_component_"))
               ? -1
               : 0;
}

/* What dataset and dataset_val say of where rows come from is an item of a list of data. */
static int tune_data(struct recipe *r, struct node *map, const char *key, const char *list,
                     struct err *e) {
    static const char *const moved[] = {"_component_", "source", "data_files", "split", "subset"};
    struct node *from = node_find(map, key);
    if (!from || from->kind != NODE_MAP) return 0;
    struct node *to = node_new(&r->arena, NODE_MAP, from->where, e);
    if (!to) return -1;
    for (int i = 0; i < COUNT(moved); i++) {
        struct node *n = node_find(from, moved[i]);
        if (!n) continue;
        drop(from, moved[i]), n->next = NULL;
        if (node_append(&r->arena, to, n, e)) return -1;
    }
    to->key = list;
    const char *component = text_of(to, "_component_");
    if (component && strstr(component, "alpaca") && tune_alpaca(r, map, key, from, to, e))
        return -1;
    return node_append(&r->arena, map, to, e);
}

/* Steps of an epoch times epochs. */
static int tune_steps(struct recipe *r, struct node *map, struct err *e) {
    const char *steps = text_of(map, "max_steps_per_epoch"), *epochs = text_of(map, "epochs");
    const struct node *n = node_find(map, "max_steps_per_epoch");
    if (n && !steps && recipe_tell(r, n, n->key, "empty", e)) return -1;
    drop(map, "max_steps_per_epoch");
    if (!steps) return 0;
    return put_text(
        r, map, "max_steps",
        arena_printf(&r->arena, e, "%lld", atoll(steps) * i64_max(1, epochs ? atoll(epochs) : 1)),
        n->where, e);
}

/* ---- lists of data as texts ------------------------------------------------------------------ */
/* "a,b#500" (LLaMA-Factory, ms-swift): a list of paths, each with the number of its rows. */
static int names_to_list(struct recipe *r, struct node *map, const char *key, struct err *e) {
    struct node *n = node_find(map, key);
    if (n && n->kind == NODE_LIST) { /* words of a script */
        struct text all = {0};
        int rc = 0;
        for (const struct node *c = n->child; !rc && c; c = c->next)
            if (c->kind == NODE_SCALAR)
                rc = text_printf(&all, e, "%s%s", all.size ? "," : "", c->text);
        if (!rc && all.size && !(n->text = arena_text(&r->arena, all.data, e))) rc = -1;
        if (!rc && all.size) n->kind = NODE_SCALAR, n->child = NULL;
        text_free(&all);
        if (rc || !n->text) return rc;
    }
    if (!n || n->kind != NODE_SCALAR || node_is_null(n)) return 0;
    const char *at = n->text, *separator = r->tools & TOOL_SWIFT ? ", " : ",";
    n->kind = NODE_LIST, n->text = NULL;
    struct node **last = &n->child;
    while (*at) {
        at += strspn(at, ", ");
        const int size = (int)strcspn(at, separator);
        if (!size) break;
        char *path = arena_printf(&r->arena, e, "%.*s", size, at);
        struct node *item = path ? node_new(&r->arena, NODE_MAP, n->where, e) : NULL;
        if (!item) return -1;
        char *rows = r->tools & TOOL_SWIFT ? strchr(path, '#') : NULL;
        if (rows) *rows++ = 0;
        if (put_text(r, item, "path", path, n->where, e) ||
            (rows &&
             put_text(r, item, "rows", arena_printf(&r->arena, e, "[:%s]", rows), n->where, e)))
            return -1;
        *last = item, last = &item->next;
        at += size;
    }
    return 0;
}

int foreign_word(struct recipe *r, struct node *n, struct err *e) {
    static const char *const keys[] = {"dataset", "eval_dataset", "val_dataset"};
    struct node map = {.kind = NODE_MAP, .where = n->where, .child = n};
    bool listed = false;
    for (int i = 0; i < COUNT(keys); i++) listed |= !strcmp(n->key, keys[i]);
    if (!listed || !(r->tools & (TOOL_FACTORY | TOOL_SWIFT))) return 0;
    return names_to_list(r, &map, n->key, e);
}

/* dataset_mixer: {NAME: share} of the alignment handbook, before there were mixtures. */
static int mixer(struct recipe *r, struct node *map, struct err *e) {
    struct node *mix = node_find(map, "dataset_mixer"), *item;
    if (!mix || mix->kind != NODE_MAP) return 0;
    for (item = mix->child; item; item = item->next) {
        const double share = item->kind == NODE_SCALAR ? strtod(item->text, NULL) : 1;
        const char *name = item->key, *where = item->where;
        item->kind = NODE_MAP, item->key = item->text = NULL;
        if (put_text(r, item, "path", name, where, e) ||
            (share > 0 && share < 1 &&
             put_text(r, item, "rows", arena_printf(&r->arena, e, "[:%.12g%%]", 100 * share), where,
                      e)))
            return -1;
    }
    mix->kind = NODE_LIST, mix->key = "dataset";
    return 0;
}

/* dataset_mixture: {datasets: [{id, split, weight}], test_split_size} of the alignment handbook.
 * Its weights are shares of each dataset's rows, from the front. */
static int mixture(struct recipe *r, struct node *map, struct err *e) {
    struct node *mix = node_find(map, "dataset_mixture"), *list;
    if (!mix || mix->kind != NODE_MAP || !(list = node_find(mix, "datasets"))) return 0;
    const char *size = text_of(mix, "test_split_size");
    if (size && put_text(r, map, "val_set_size", size, mix->where, e)) return -1;
    drop(mix, "datasets"), drop(mix, "test_split_size");
    list->key = "dataset";
    for (struct node *item = list->child; item; item = item->next) {
        if (item->kind != NODE_MAP) continue;
        const char *weight = text_of(item, "weight");
        const double share = weight ? strtod(weight, NULL) : 1;
        drop(item, "weight"), drop(item, "columns");
        if (share > 0 && share < 1 &&
            put_text(r, item, "rows", arena_printf(&r->arena, e, "[:%.12g%%]", 100 * share),
                     item->where, e))
            return -1;
    }
    return node_append(&r->arena, map, list, e);
}

/* min_lr is a rate (ms-swift's Megatron), and ours a share of the highest. */
static int least_rate(struct recipe *r, struct node *map, struct err *e) {
    const struct node *n = node_find(map, "min_lr");
    const char *least = text_of(map, "min_lr"), *most = text_of(map, "lr");
    if (!least || !most || strtod(most, NULL) <= 0) return 0;
    const double share = strtod(least, NULL) / strtod(most, NULL);
    drop(map, "min_lr");
    return put_text(r, map, "min_lr_ratio", arena_printf(&r->arena, e, "%.12g", share), n->where,
                    e);
}

/* data: FOLDER (mlx-lm): train.jsonl and valid.jsonl of it. */
static int mlx_data(struct recipe *r, struct node *map, struct err *e) {
    const struct node *data = node_find(map, "data"), *lora = node_find(map, "lora_parameters");
    if (data && data->kind == NODE_SCALAR && !node_is_null(data)) {
        const char *where = data->where, *text = data->text;
        drop(map, "data");
        if (put_text(r, map, "dataset", arena_printf(&r->arena, e, "%s/train.jsonl", text), where,
                     e) ||
            put_text(r, map, "eval_dataset", arena_printf(&r->arena, e, "%s/valid.jsonl", text),
                     where, e))
            return -1;
    }
    const char *scale = text_of(lora, "scale"), *rank = text_of(lora, "rank");
    if (!scale) return 0;
    drop(node_find(map, "lora_parameters"), "scale");
    return put_text(
        r, map, "lora_alpha",
        arena_printf(&r->arena, e, "%.12g", strtod(scale, NULL) * (rank ? strtod(rank, NULL) : 8)),
        lora->where, e);
}

/* system: FILE.txt (ms-swift) is what that file says. */
static int swift_system(struct recipe *r, struct node *map, struct err *e) {
    struct node *n = node_find(map, "system");
    struct text text = {0};
    if (!n || n->kind != NODE_SCALAR || node_is_null(n) || n->quoted || !ends_with(n->text, ".txt"))
        return 0;
    if (!path_exists(n->text)) {
        drop(map, n->key);
        err_input(e, "%s: system: %.200s is not here", n->where, n->text);
        return recipe_problem(r, "default_system", e);
    }
    const int rc = file_read(&text, n->text, e) || text_add(&text, "", 1, e) ||
                   !(n->text = arena_text(&r->arena, text.data, e));
    n->quoted = true;
    return text_free(&text), rc ? -1 : 0;
}

/* Axolotl cuts plain texts into samples, where it drops conversations that are too long. */
static int axolotl_texts(struct recipe *r, struct node *map, struct err *e) {
    static const char *const keys[] = {"datasets", "pretraining_dataset"};
    bool texts = false;
    for (int i = 0; i < COUNT(keys); i++) {
        const struct node *list = node_find(map, keys[i]);
        for (const struct node *n = list ? list->child : NULL; n; n = n->next) {
            const char *type = n->kind == NODE_MAP ? text_of(n, "type") : NULL;
            texts |= type && (!strcmp(type, "completion") || !strcmp(type, "pretrain"));
        }
    }
    if (!texts || node_find(map, "excess_length_strategy") || node_find(map, "truncation"))
        return 0;
    return put_text(r, map, "truncation", "split", map->where, e);
}

/* IEEE half precision has no place here; bf16 takes it where the recipe has nothing else. */
static int half_precision(struct recipe *r, struct node *map, struct err *e) {
    static const char *const keys[] = {"fp16", "float16"};
    for (int i = 0; i < COUNT(keys); i++) {
        const struct node *n = node_find(map, keys[i]);
        if (!is_true(map, keys[i]) || is_true(map, "bf16")) continue;
        if (text_printf(&r->notes, e, "%s: '%s: true' is computed in bf16: as many bits\n",
                        n->where, n->key) ||
            recipe_tell(r, n, n->key, "computed in bf16: as many bits", e))
            return -1;
        drop(map, keys[i]), drop(map, "bf16");
        if (put_text(r, map, "bf16", "true", n->where, e)) return -1;
    }
    return 0;
}

/* 500_000: as YAML 1.1 reads it. */
static int plain_numbers(struct recipe *r, struct node *map, struct err *e) {
    for (struct node *n = map->child; n; n = n->next) {
        if (n->kind != NODE_SCALAR || n->quoted || !strchr(n->text, '_') ||
            n->text[strspn(n->text, "0123456789_")] || *n->text == '_')
            continue;
        char *to = arena_text(&r->arena, n->text, e), *out = to;
        for (const char *c = n->text; out && *c; c++)
            if (*c != '_') *out++ = *c;
        if (!to) return -1;
        *out = 0, n->text = to;
    }
    return 0;
}

int foreign_before(struct recipe *r, struct node *map, struct err *e) {
    r->neat = is_true(map, "neat_packing");
    if (plain_numbers(r, map, e) || half_precision(r, map, e)) return -1;
    if (r->tools & TOOL_TORCHTUNE &&
        (interpolate(r, map, map, e) || tune_targets(r, map, e) || tune_steps(r, map, e) ||
         tune_data(r, map, "dataset", "datasets", e) ||
         tune_data(r, map, "dataset_val", "test_datasets", e)))
        return -1;
    if (r->tools & (TOOL_FACTORY | TOOL_SWIFT) &&
        (names_to_list(r, map, "dataset", e) || names_to_list(r, map, "eval_dataset", e) ||
         names_to_list(r, map, "val_dataset", e)))
        return -1;
    if (r->tools & TOOL_FACTORY && (foreign_dataset_info(r, map, "dataset", e) ||
                                    foreign_dataset_info(r, map, "eval_dataset", e)))
        return -1;
    if (r->tools & TOOL_TRL && (mixture(r, map, e) || mixer(r, map, e))) return -1;
    if (r->tools & TOOL_MLX && (mlx_data(r, map, e) || foreign_layers(r, map, e))) return -1;
    if (r->tools & TOOL_SWIFT && (least_rate(r, map, e) || swift_system(r, map, e))) return -1;
    if (r->tools & TOOL_AXOLOTL && axolotl_texts(r, map, e)) return -1;
    struct node *modules = node_find(map, "lora_target_modules");
    if (r->tools & TOOL_AXOLOTL && is_true(map, "lora_target_linear") && modules) {
        if (recipe_tell(r, modules, modules->key, "lora_target_linear has them all", e)) return -1;
        drop(map, "lora_target_modules");
    }
    return 0;
}

/* An adapter that is trained on has its own rank, alpha and places, whatever the recipe says. */
static bool of_adapter(const struct node *map, const char *key) {
    const bool its = !strncmp(key, "lora_", 5) || !strcmp(key, "use_dora") ||
                     !strcmp(key, "use_rslora") || !strcmp(key, "init_lora_weights");
    return its && strcmp(key, "lora_dropout") && node_find(map, "adapter_name_or_path");
}

/* ---- after the keys are ours ----------------------------------------------------------------- */
/* LLaMA-Factory packs where it pretrains, and lets packed samples see each other, but for
 * neat_packing. */
static int factory_packing(struct recipe *r, struct node *map, const char *where, struct err *e) {
    const char *task = text_of(map, "task");
    const bool pretrains = task && !strcmp(task, "pretrain");
    const struct node *packing = node_find(map, "packing");
    if (pretrains && !packing && put_text(r, map, "packing", "true", where, e)) return -1;
    if (pretrains && option_find(recipe_options, "packing_strategy") &&
        !node_find(map, "packing_strategy") &&
        put_text(r, map, "packing_strategy", "wrapped", where, e))
        return -1;
    if (!is_true(map, "packing") || r->neat || node_find(map, "document_mask")) return 0;
    return put_text(r, map, "document_mask", "false", where, e);
}

/* In LLaMA-Factory and ms-swift every row of an sft is a conversation, an instruction, too: so
 * there is a template, which is named. Of LLaMA-Factory's alpaca has a system message. */
static int factory_template(struct recipe *r, struct node *map, const char *where, struct err *e) {
    static const char alpaca[] = "Below is an instruction that describes a task. Write a response "
                                 "that appropriately completes the request.";
    const char *task = text_of(map, "task"), *template = text_of(map, "chat_template");
    if (task && strcmp(task, "sft")) return 0;
    if (!node_find(map, "chat_template"))
        return put_text(r, map, "chat_template", "default", where, e);
    if (r->tools & TOOL_FACTORY && template && !strcmp(template, "alpaca") &&
        !node_find(map, "default_system"))
        return put_text(r, map, "default_system", alpaca, where, e);
    return 0;
}

/* LLaMA-Factory's alpha is twice the rank. */
static int factory_alpha(struct recipe *r, struct node *map, const char *where, struct err *e) {
    const char *rank = text_of(map, "lora_r");
    if (node_find(map, "lora_alpha") || !is_true(map, "use_peft") || of_adapter(map, "lora_alpha"))
        return 0;
    return put_text(r, map, "lora_alpha",
                    arena_printf(&r->arena, e, "%lld", 2 * (rank ? atoll(rank) : 8)), where, e);
}

static bool said(const struct node *map, const char *key) {
    static const char *const also[][2] = {
        {"save_strategy", "save_steps"},          {"save_strategy", "saves_per_epoch"},
        {"eval_strategy", "eval_steps"},          {"eval_strategy", "evals_per_epoch"},
        {"num_train_epochs", "max_steps"},        {"warmup_ratio", "warmup_steps"},
        {"micro_batch_size", "global_batch_size"}};
    if (node_find(map, key)) return true;
    for (int i = 0; i < COUNT(also); i++) {
        const char *text = strcmp(key, also[i][0]) ? NULL : text_of(map, also[i][1]);
        if (text && (*key == 'w' || (strcmp(text, "-1") && strcmp(text, "0")))) return true;
    }
    return false;
}

static int adapter_keys(struct recipe *r, struct node *map, struct err *e) {
    for (struct node *n = map->child, *next; n; n = next) {
        next = n->next;
        if (!of_adapter(map, n->key)) continue;
        if (recipe_tell(r, n, n->key, "the adapter that is trained on has its own", e)) return -1;
        drop(map, n->key);
    }
    return 0;
}

int foreign_after(struct recipe *r, struct node *map, struct err *e) {
    struct text list = {0};
    if (adapter_keys(r, map, e)) return -1;
    const char *where = arena_printf(&r->arena, e, "%s (default of %s)", map->where, r->tool);
    int rc = where ? 0 : -1;
    if (!rc && r->tools & TOOL_FACTORY)
        rc = factory_alpha(r, map, where, e) || factory_packing(r, map, where, e);
    if (!rc && r->tools & (TOOL_FACTORY | TOOL_SWIFT)) rc = factory_template(r, map, where, e);
    for (const struct tool_default *d = foreign_defaults; !rc && d->key; d++) {
        if (!(d->tools & r->tools) || said(map, d->key) || !option_find(recipe_options, d->key))
            continue;
        if (of_adapter(map, d->key)) continue;
        const struct node *when = d->when ? node_find(map, d->when) : NULL;
        if (d->when && (!when || (when->kind == NODE_SCALAR && !is_true(map, d->when)))) continue;
        rc = put_text(r, map, d->key, d->value, where, e) ||
             text_printf(&list, e, "%s %s: %s", list.size ? "," : "", d->key, d->value);
    }
    if (!rc)
        rc = text_printf(&r->notes, e, "%s: read as a recipe of %s, with its defaults:%s\n",
                         map->where, r->tool, list.size ? list.data : " none");
    text_free(&list);
    if (!rc && r->tools & TOOL_MLX)
        rc =
            text_printf(&r->notes, e,
                        "%s: Adam corrects the bias of its moments here, which mlx-lm leaves out\n",
                        map->where);
    return rc ? -1 : 0;
}
