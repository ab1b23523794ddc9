/* recipe_check.c: recipe keys that depend on each other, checked and resolved. */
#include "ops/ops.h"
#include "train/recipe/recipe_int.h"

#include <string.h>

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

/* A note about each key that is given and says nothing. */
static int no_effect(struct recipe *r, const char *name, const char *without, const char *keys,
                     struct err *e) {
    char key[WORD_SIZE];
    while (word_next(&keys, key))
        if (recipe_given(r, key) &&
            text_printf(&r->notes, e, "%s: '%s' has no effect without '%s'\n", place(r, key, name),
                        key, without))
            return -1;
    return 0;
}

/* What says how the base is held says one thing, and of a base that is frozen.
 * bnb_4bit_*: what the model is trained in cannot be told apart from what it is decoded to. */
static int check_quant(struct recipe *r, const char *name, struct err *e) {
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
    if (r->load_in_4bit) return 0;
    return no_effect(r, name, "load_in_4bit: true",
                     "bnb_4bit_quant_type bnb_4bit_use_double_quant bnb_4bit_compute_dtype", e);
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
    return 0;
}

static int check_peft(struct recipe *r, const char *name, struct err *e) {
    const bool plus = recipe_given(r, "loraplus_lr_ratio");
    if (plus && !recipe_given(r, "loraplus_lr_embedding")) r->loraplus_lr_embedding = 1e-6;
    if (r->use_peft && !plus && r->loraplus_lr_embedding > 0)
        return err_input(e, "%s: loraplus_lr_embedding without loraplus_lr_ratio",
                         place(r, "loraplus_lr_embedding", name)),
               err_hint(e, "loraplus_lr_ratio: 16 is PEFT's example; 1 leaves B's as it is");
    if (r->use_peft) return 0;
    return no_effect(r, name, "use_peft: true",
                     "lora_r lora_alpha lora_dropout lora_target_modules lora_target_parameters "
                     "lora_exclude_modules lora_layers_to_transform lora_rank_pattern "
                     "lora_alpha_pattern lora_modules_to_save loraplus_lr_ratio "
                     "loraplus_lr_embedding use_rslora use_dora init_lora_weights",
                     e);
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

static int check_optim(struct recipe *r, const char *name, struct err *e) {
    return recipe_optim(r, place(r, "optim_args", name), e);
}

static int check_masters(struct recipe *r, const char *name, struct err *e) {
    if (r->master_weights || !strcmp(r->precision, "bf16")) return 0;
    err_input(e, "%s: master_weights: false goes with precision: bf16 only",
              place(r, "master_weights", name));
    return err_hint(e, "the weights of an fp32 run are their own masters");
}

static int check_data(struct recipe *r, const char *name, struct err *e) {
    if (r->dataset.count) return 0;
    return err_input(e, "%s: no dataset", name), err_hint(e, "dataset: [{path: FILE}]");
}

static bool item_tokenised(const struct data_item *item) {
    return ends_with(item->path, ".h5") || !strcmp(item->type, "tokens");
}

/* val_set_size: the same items twice, each a part that the other is not. */
static int hold_out(struct recipe *r, const char *name, struct err *e) {
    if (r->val_set_size <= 0) return 0;
    if (r->eval_dataset.count) { /* a lock has both */
        bool same = r->eval_dataset.count == r->dataset.count;
        for (i64 i = 0; same && i < r->dataset.count; i++)
            same = !strcmp(r->dataset.item[i].path, r->eval_dataset.item[i].path) &&
                   r->eval_dataset.item[i].split &&
                   !strcmp(r->eval_dataset.item[i].split, "validation");
        if (same) return 0;
        err_input(e, "%s: both val_set_size and eval_dataset", place(r, "val_set_size", name));
        return err_hint(e, "val_set_size: 0 evaluates on eval_dataset");
    }
    r->eval_dataset.item =
        arena_new(&r->arena, r->dataset.count * (i64)sizeof *r->eval_dataset.item, e);
    if (!r->eval_dataset.item) return -1;
    for (i64 i = 0; i < r->dataset.count; i++, r->eval_dataset.count++) {
        struct data_item *item = &r->dataset.item[i];
        if (item->split || item_tokenised(item))
            return err_input(e, "%s: val_set_size splits rows of text, and %s is %s",
                             place(r, "val_set_size", name), item->path,
                             item->split ? "a part already" : "tokenised");
        r->eval_dataset.item[i] = *item;
        item->split = "train", r->eval_dataset.item[i].split = "validation";
    }
    return 0;
}

static double share_of(double per_epoch, double epochs) {
    const double share = 1 / (per_epoch * epochs);
    return share < 1 ? share : 1;
}

/* As those tools do: nothing to evaluate on. */
static int no_evaluation(struct recipe *r, const char *name, struct err *e) {
    static const char *const keys[] = {"eval_steps", "eval_ratio", "evals_per_epoch"};
    for (int i = 0; i < COUNT(keys); i++) {
        const struct node n = {.where = place(r, keys[i], name), .text = "", .kind = NODE_SCALAR};
        if (recipe_given(r, keys[i]) && recipe_tell(r, &n, keys[i], "there is no eval_dataset", e))
            return -1;
        r->where[option_find(recipe_options, keys[i]) - recipe_options] = NULL;
    }
    r->eval_steps = 0, r->eval_ratio = 0, r->evals_per_epoch = 0;
    return 0;
}

/* How often to evaluate and to save. */
static int check_steps(struct recipe *r, const char *name, struct err *e) {
    const char *when = r->eval_strategy, *saves = r->save_strategy;
    if (hold_out(r, name, e)) return -1;
    if (r->evals_per_epoch > 0 && r->eval_ratio <= 0)
        r->eval_ratio = share_of(r->evals_per_epoch, r->num_train_epochs);
    if (r->saves_per_epoch > 0 && r->save_ratio <= 0)
        r->save_ratio = share_of(r->saves_per_epoch, r->num_train_epochs);
    if (!r->eval_dataset.count && r->tool && no_evaluation(r, name, e)) return -1;
    if (r->eval_steps && !r->eval_dataset.count)
        return err_input(e, "%s: eval_steps needs an eval_dataset", place(r, "eval_steps", name));
    if (!strcmp(when, "no") || !strcmp(when, "epoch")) r->eval_steps = 0, r->eval_ratio = 0;
    if (!strcmp(when, "steps") && !r->eval_steps && r->eval_ratio <= 0)
        r->eval_steps = r->logging_steps, r->eval_ratio = r->logging_ratio;
    if (!strcmp(saves, "steps") && !r->save_steps && r->save_ratio <= 0) r->save_steps = 500;
    if (strcmp(saves, "steps") && strcmp(saves, "auto")) r->save_steps = 0, r->save_ratio = 0;
    const bool judges =
        r->load_best_model_at_end || r->early_stopping_patience || !strcmp(saves, "best");
    if (judges && (!r->eval_dataset.count || !strcmp(when, "no"))) {
        const char *key = r->load_best_model_at_end    ? "load_best_model_at_end"
                          : r->early_stopping_patience ? "early_stopping_patience"
                                                       : "save_strategy";
        err_input(e, "%s: %s needs evaluations", place(r, key, name), key);
        return err_hint(e, "eval_dataset or val_set_size, and eval_steps");
    }
    return 0;
}

/* What two keys of a kind say differently. */
static int check_pairs(struct recipe *r, const char *name, struct err *e) {
    if (r->warmup_steps && r->warmup_ratio > 0)
        return err_input(e, "%s: both warmup_steps and warmup_ratio",
                         place(r, "warmup_ratio", name));
    if (r->wsd_decay_steps && r->wsd_decay_ratio > 0)
        return err_input(e, "%s: both wsd_decay_steps and wsd_decay_ratio",
                         place(r, "wsd_decay_ratio", name));
    r->max_steps = i64_max(r->max_steps, 0);
    return 0;
}

/* What only rows that are tokenised here can be asked for. */
static int check_rows(struct recipe *r, const char *name, struct err *e) {
    const struct data_list *lists[] = {&r->dataset, &r->eval_dataset};
    const char *all = r->min_sample_len                ? "min_sample_len"
                      : r->dataset_exact_deduplication ? "dataset_exact_deduplication"
                                                       : NULL;
    const char *newer = all ? all : r->default_system ? "default_system" : NULL;
    for (int k = 0; k < COUNT(lists); k++)
        for (i64 i = 0; i < lists[k]->count; i++) {
            const struct data_item *item = &lists[k]->item[i];
            const char *own = item->prompt_style          ? "prompt_style"
                              : item->drop_system_message ? "drop_system_message"
                                                          : NULL;
            if (own) newer = own;
            if ((!own && !all) || !item_tokenised(item)) continue;
            err_input(e, "%s: %s is about rows, and %s is tokenised",
                      all ? place(r, all, name) : name, all ? all : own, item->path);
            return err_hint(e, "give the rows, or tokenise them so: hone help tokenize");
        }
    if (!newer || r->recipe_version >= 2) return 0;
    return err_input(e, "%s: '%s' has no meaning in recipe_version 1", name, newer),
           err_hint(e, "leave out one of the two keys");
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

/* Each once, whatever the others found; not those that miss what was refused above. */
int recipe_check(struct recipe *r, const char *name, struct err *e) {
    static const struct {
        int (*of)(struct recipe *r, const char *name, struct err *e);
        const char *keys;
    } checks[] = {
        {check_model, "model_name_or_path model"},
        {check_peft, "use_peft"},
        {check_quant, "use_peft quantize"},
        {resolve_batches, "micro_batch_size gradient_accumulation_steps"},
        {check_report_to, "report_to"},
        {check_optim, "optim optim_args"},
        {check_masters, "precision"},
        {check_data, "dataset do_predict tasks prompt"},
        {check_steps, "eval_dataset"},
        {check_pairs, ""},
        {check_samples, "packing_strategy truncation"},
        {check_rows, "dataset eval_dataset"},
    };
    for (int i = 0; i < COUNT(checks); i++)
        if (!recipe_is_problem(r, checks[i].keys) && checks[i].of(r, name, e) &&
            recipe_problem(r, NULL, e))
            return -1;
    return 0;
}

/* Of a recipe, not of a lock, which has every key: an adapter that is given says what it is. */
int recipe_adapter_keys(const struct recipe *r, struct err *e) {
    const char *keys = "lora_r lora_alpha lora_target_modules use_dora use_rslora "
                       "lora_target_parameters lora_rank_pattern lora_alpha_pattern "
                       "lora_exclude_modules init_lora_weights lora_modules_to_save "
                       "lora_layers_to_transform trainable_token_indices";
    char key[WORD_SIZE];
    while (r->adapter_name_or_path && word_next(&keys, key)) {
        if (!recipe_given(r, key)) continue;
        err_input(e, "%s: the adapter %s has its own", key, r->adapter_name_or_path);
        return err_hint(e, "leave it out; without adapter_name_or_path a new adapter is trained");
    }
    return 0;
}
