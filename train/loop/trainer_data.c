/* trainer_data.c: what a recipe names, opened: tokenizer, datasets (raw text is tokenised into the
 * run folder), loaders, model. */
#include "train/loop/loop.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* What lies in the folder of a run that has no log yet is of an attempt that failed: made again. */
static int run_begun(const char *run_dir, struct err *e) {
    return path_has(run_dir, "log.jsonl", e);
}

/* A dataset item that is not tokenised yet becomes RUN/data/NAME.h5, once. */
static char *tokenised(struct trainer *t, const struct data_item *item, const char *role, i64 index,
                       struct seen *seen, struct dataset_probe *probe, struct err *e) {
    char *folder = path_join(&t->arena, t->run_dir, "data", e);
    char *path =
        folder ? arena_printf(&t->arena, e, "%s/%s-%lld.h5", folder, role, (long long)index) : NULL;
    const int begun = path ? run_begun(t->run_dir, e) : -1;
    if (begun < 0) return NULL;
    if (begun && path_exists(path)) return tokenised_check(path, item, role, e) ? NULL : path;
    if (!t->tokenizer) {
        err_input(e, "%s is text, and the recipe names no tokenizer", item->path);
        return err_hint(e, "set `tokenizer:` to a tokenizer.json or its folder"), NULL;
    }
    struct row_settings rows;
    struct text notes = {0};
    const struct text_list *columns = item->columns.count ? &item->columns : &t->r->columns;
    if (row_settings_open(&rows, columns, &t->r->chat_template_kwargs, e)) return NULL;
    struct dataset_job job = {.sources = &item->path,
                              .sources_count = 1,
                              .config = item->name,
                              .file_split = item->split,
                              .encoder = encoder_of(t->tokenizer),
                              .add_around = t->r->recipe_version >= 2,
                              .add_eos = true,
                              .min_tokens = t->r->min_sample_len,
                              .seen = t->r->dataset_exact_deduplication ? seen : NULL,
                              .notes = &notes,
                              .probe = probe,
                              .path = path};
    job.options = (struct source_options){.type = !strcmp(item->type, "auto") ? NULL : item->type,
                                          .completion_only_loss = t->r->completion_only_loss,
                                          .assistant_only_loss = t->r->assistant_only_loss,
                                          .chat = t->chat,
                                          .chat_instructions = t->r->chat_template != NULL,
                                          .rules = {.version = t->r->recipe_version,
                                                    .columns = rows.columns,
                                                    .kwargs = rows.kwargs,
                                                    .drop_system = item->drop_system_message,
                                                    .system = t->r->default_system,
                                                    .style = prompt_style_find(item->prompt_style),
                                                    .skip = !strcmp(t->r->on_bad_row, "skip")},
                                          .seed = (u64)t->r->seed};
    const int rc =
        trainer_slices(t, item, &job.options, e) || dir_make(folder, e) || dataset_build(&job, e);
    if (notes.size && t->notes)
        text_add(t->notes, notes.data, notes.size, &(struct err){0});
    else if (notes.size && !quiet)
        show(stderr, "%s", notes.data);
    text_free(&notes), row_settings_close(&rows);
    return rc ? NULL : path;
}

static int items_open(struct trainer *t, const struct data_list *list, const char *role,
                      struct dataset **to, struct seen *seen, struct dataset_probe *probe,
                      struct err *e) {
    if (list->count > DATASETS)
        return err_input(e, "the recipe names more than %d datasets", DATASETS);
    for (i64 i = 0; i < list->count; i++) {
        const struct data_item *item = &list->item[i];
        const bool ready = !strcmp(item->type, "tokens") || ends_with(item->path, ".h5");
        const char *path =
            ready ? item->path : tokenised(t, item, role, i, seen, probe ? &probe[i] : NULL, e);
        if (!path || !(to[i] = dataset_open(path, e))) return -1;
        if (t->tokenizer && dataset_check_tokenizer(to[i], tokenizer_sha256(t->tokenizer),
                                                    tokenizer_size(t->tokenizer), e))
            return -1;
    }
    return 0;
}

/* A micro-batch must not reach over the end of a reduction group. */
i64 trainer_micro_batch(const struct recipe *r) {
    i64 micro = r->micro_batch_size, group = r->global_batch_size / r->reduction_groups;
    while (group) {
        const i64 rest = micro % group;
        micro = group, group = rest;
    }
    return micro;
}

static struct loader *loader_for(struct trainer *t, struct dataset **of, i64 count, bool eval,
                                 struct err *e) {
    const struct recipe *r = t->r;
    struct loader_config c = {
        .datasets = of,
        .weights = !eval && samples_weighted(r) ? t->weight : NULL,
        .datasets_count = count,
        .packing = r->packing,
        .document_mask = r->document_mask,
        .shuffle = !eval && r->shuffle,
        .one_pass = eval,
        .max_seq_length = r->max_seq_length,
        .global_batch_size = eval ? r->micro_batch_size : r->global_batch_size,
        .micro_batch_size = eval ? r->micro_batch_size : trainer_micro_batch(r),
        .seed = (u64)r->seed,
        .digest_version = (int)t->digest_version};
    samples_of_recipe(r, &c);
    if (t->objective->rows && !eval && t->objective->rows(&c, r, e)) return NULL;
    if (!eval) t->rows = i64_max(c.rows, 1);
    return loader_open(&c, e);
}

int trainer_data(struct trainer *t, struct err *e) {
    const struct recipe *r = t->r;
    const char *from = r->tokenizer ? r->tokenizer : r->model_name_or_path;
    if (r->model_name_or_path && !path_is_dir(r->model_name_or_path) &&
        !(path_exists(r->model_name_or_path) && path_is_gguf(r->model_name_or_path)))
        return err_input(e, "model_name_or_path: %s is not a folder", r->model_name_or_path);
    if (from && (r->tokenizer || tokenizer_is_at(from)) &&
        !(t->tokenizer = tokenizer_of_file(from, e)))
        return -1;
    if (trainer_tokens(t, e) || trainer_tokens_named(t, e) ||
        chat_find(&t->chat, r->chat_template, t->tokenizer, e))
        return -1;
    const bool dated = r->template_date || (t->chat && r->recipe_version >= 2);
    if (dated && chat_day(t->chat, r->template_date, e)) return -1;
    if (r->template_date && !(t->chat && chat_dated(t->chat)))
        trainer_note(t, "template_date has no effect: no chat template asks for the day");
    if (r->sample_prompts.count && !t->tokenizer) {
        err_input(e, "sample_prompts needs a tokenizer, and the recipe names none");
        return err_hint(e, "set `tokenizer:` to a tokenizer.json or its folder");
    }
    if (!r->dataset.count) return err_input(e, "the recipe names no dataset");
    struct seen seen = {0}; /* what is held out of the same rows is not in both parts */
    int rc = items_open(t, &r->dataset, "train", t->dataset, &seen, t->probe, e);
    if (!(r->val_set_size > 0)) seen_free(&seen);
    rc = rc || items_open(t, &r->eval_dataset, "eval", t->eval_dataset, &seen, t->eval_probe, e);
    seen_free(&seen);
    if (rc) return -1;
    for (i64 i = 0; i < r->dataset.count; i++) t->weight[i] = r->dataset.item[i].weight;
    if (!(t->loader = loader_for(t, t->dataset, r->dataset.count, false, e))) return -1;
    return r->eval_dataset.count && !(t->eval_loader = loader_for(t, t->eval_dataset,
                                                                  r->eval_dataset.count, true, e))
               ? -1
               : 0;
}

static const char *const special_ids[] = {"bos_token_id", "eos_token_id", "pad_token_id"};

/* RUN/model: config.json and the tokenizer of a model that the recipe describes inline. A run that
 * has begun has them. */
static int config_write(struct trainer *t, json_t *config, struct err *e) {
    const struct family *f = t->model.config.family;
    const int begun = run_begun(t->run_dir, e);
    if (begun) return begun < 0 ? -1 : 0;
    char *path = path_join(&t->arena, t->model_folder, "config.json", e);
    if (!path || dir_make(t->model_folder, e)) return -1;
    json_object_set_new(config, "architectures", json_pack("[s]", f->architecture));
    json_object_set_new(config, "torch_dtype",
                        json_string(t->model.weights.dtype == BF16 ? "bfloat16" : "float32"));
    if (json_save(config, path, 2, e)) return -1;
    json_t *generation = json_pack("{s:b}", "_from_model_config", 1);
    for (int i = 0; i < COUNT(special_ids); i++) {
        json_t *id = json_object_get(config, special_ids[i]);
        if (!json_is_null(id)) json_object_set(generation, special_ids[i], id);
    }
    path = path_join(&t->arena, t->model_folder, "generation_config.json", e);
    const int rc = path ? json_save(generation, path, 2, e) : -1;
    json_decref(generation);
    if (rc || !t->tokenizer || path_is_gguf(tokenizer_path(t->tokenizer))) return rc;
    if (t->tokens_folder || (t->r->recipe_version >= 2 && t->r->tokenizer))
        return folder_copy_tokenizer(t->tokens_folder ? t->tokens_folder : t->r->tokenizer,
                                     t->model_folder, e);
    struct text bytes = {0};
    path = path_join(&t->arena, t->model_folder, "tokenizer.json", e);
    const int copied = path && !file_read(&bytes, tokenizer_path(t->tokenizer), e)
                           ? file_replace(path, bytes.data, bytes.size, e)
                           : -1;
    text_free(&bytes);
    return copied;
}

/* What the recipe leaves open comes from the tokenizer. An id that there is not is null, not left
 * out: transformers would put the family's own in its place (OLMo 2: pad 1, whose row of the
 * embedding then gets no gradient; Llama: bos 1, eos 2), which here are tokens like any other. */
static void config_complete(const struct trainer *t, json_t *config) {
    if (t->tokenizer && !json_object_get(config, "vocab_size"))
        json_object_set_new(config, "vocab_size", json_integer(tokenizer_size(t->tokenizer)));
    const i64 id[] = {t->tokenizer ? tokenizer_bos(t->tokenizer) : -1,
                      t->tokenizer ? tokenizer_eos(t->tokenizer) : -1, -1};
    for (int i = 0; i < COUNT(special_ids); i++)
        if (!json_object_get(config, special_ids[i]))
            json_object_set_new(config, special_ids[i],
                                id[i] >= 0 ? json_integer(id[i]) : json_null());
}

static int model_create(struct trainer *t, enum dtype d, struct err *e) {
    struct config c;
    json_t *config = json_deep_copy(t->r->model);
    if (!config) return err_memory(e, "out of memory");
    config_complete(t, config);
    int rc = config_read(&c, config, "model", e);
    if (!rc && t->tokenizer && c.vocab_size < tokenizer_size(t->tokenizer))
        rc = err_input(e, "model.vocab_size is %lld, but %s has %lld entries",
                       (long long)c.vocab_size, tokenizer_path(t->tokenizer),
                       (long long)tokenizer_size(t->tokenizer)),
        err_hint(e, "leave model.vocab_size out: the tokenizer's is taken");
    if (!rc && !(rc = model_new(&t->model, &c, d, true, e))) {
        model_init(&t->model, (u64)t->r->seed);
        t->model_folder = path_join(&t->arena, t->run_dir, "model", e);
        rc = t->model_folder ? config_write(t, config, e) : -1;
    }
    json_decref(config);
    return rc;
}

/* Checkpoints of a model that came from a GGUF file are folders with its metadata as config.json.
 */
static int gguf_base(struct trainer *t, struct err *e) {
    struct model_folder f = {0};
    struct config c;
    const struct gguf_arch *arch;
    int rc = folder_open(&f, t->model_folder, e) || folder_config(&f, &c, &arch, e);
    t->model_folder = rc ? NULL : path_join(&t->arena, t->run_dir, "model", e);
    rc = t->model_folder ? config_write(t, f.config, e) : -1;
    folder_close(&f);
    return rc;
}

/* One item that is no plain name is a pattern for the whole path. */
static void modules_of(const struct text_list *from, struct text_list *list, const char **regex) {
    const char *one = from->count == 1 ? from->item[0] : "";
    if (!strcmp(one, "all-linear") || strpbrk(one, "*+?()[]{}|\\^$"))
        *regex = one;
    else
        *list = *from;
}

/* Items NAME=VALUE. */
static int pattern_of(struct trainer *t, const char *key, const struct text_list *from,
                      struct lora_pattern *to, struct err *e) {
    to->key.item = arena_new(&t->arena, (from->count + 1) * (i64)sizeof *to->key.item, e);
    to->value = arena_new(&t->arena, (from->count + 1) * (i64)sizeof *to->value, e);
    if (!to->key.item || !to->value) return -1;
    for (i64 i = 0; i < from->count; i++) {
        const char *equals = strrchr(from->item[i], '=');
        char *end = NULL;
        const double value = equals ? strtod(equals + 1, &end) : 0;
        if (!equals || equals == from->item[i] || *end || !(value >= 1 && value <= 65536))
            return err_input(e, "%s: '%s' is not NAME=NUMBER, a number from 1 to 65536", key,
                             from->item[i]);
        to->key.item[i] =
            arena_printf(&t->arena, e, "%.*s", (int)(equals - from->item[i]), from->item[i]);
        if (!to->key.item[i]) return -1;
        to->value[to->key.count++] = value;
    }
    return 0;
}

/* What training could not go on with: it is in the file, and would not be in the next one. */
static int adapter_may_go_on(const struct lora_config *c, const struct safetensors *s,
                             const char *folder, struct err *e) {
    struct arena a = {0};
    const char *what = c->biases          ? "trained biases"
                       : lora_is_pissa(c) ? "init_lora_weights pissa"
                                          : NULL;
    for (i64 i = 0; !what && i < s->count; i++) {
        enum lora_part part;
        char *name;
        if (lora_key_parse(s->tensor[i].name, &part, &name, &a, e)) return arena_free(&a), -1;
        if (part == LORA_SAVED && !lora_saves(c, name)) what = "weights of the base beside it";
    }
    arena_free(&a);
    if (!what) return 0;
    err_input(e, "adapter_name_or_path: %s has %s, which training does not go on with", folder,
              what);
    return err_hint(
        e, "merge it and train on from that: hone export BASE --adapter %s --output DIR", folder);
}

static int lora_of_given(struct trainer *t, struct safetensors *s, struct err *e) {
    const struct recipe *r = t->r;
    struct lora_config *c = &t->lora;
    if (adapter_open(r->adapter_name_or_path, c, s, e) ||
        adapter_may_go_on(c, s, r->adapter_name_or_path, e))
        return -1;
    c->lora_dropout = r->lora_dropout;
    c->base_model_name_or_path = t->model_folder;
    return 0;
}

static int lora_of_recipe(struct trainer *t, struct err *e) {
    const struct recipe *r = t->r;
    struct lora_config *c = &t->lora;
    *c = (struct lora_config){.r = r->lora_r,
                              .lora_alpha = r->lora_alpha,
                              .lora_dropout = r->lora_dropout,
                              .layers_to_transform = r->lora_layers_to_transform,
                              .target_parameters = r->lora_target_parameters,
                              .modules_to_save = r->lora_modules_to_save,
                              .use_rslora = r->use_rslora,
                              .use_dora = r->use_dora,
                              .init_lora_weights = r->init_lora_weights,
                              .base_model_name_or_path = t->model_folder};
    const struct int_list *ids = &r->trainable_token_indices;
    if (ids->count && !(c->tokens = arena_new(&t->arena, (i64)sizeof *c->tokens, e))) return -1;
    if (ids->count)
        *c->tokens = (struct lora_tokens){NULL, ids->item, ids->count}, c->tokens_count = 1;
    modules_of(&r->lora_target_modules, &c->target_modules, &c->target_regex);
    modules_of(&r->lora_exclude_modules, &c->exclude_modules, &c->exclude_regex);
    if (c->layers_to_transform.count && c->target_regex)
        return err_input(e,
                         "lora_layers_to_transform goes with a list of lora_target_modules, not "
                         "with %s (PEFT would refuse the adapter)",
                         c->target_regex),
               err_hint(e, "name the modules: lora_target_modules: [q_proj, v_proj]");
    for (i64 i = 0; i < c->layers_to_transform.count; i++) {
        const char *number = c->layers_to_transform.item[i];
        if (!*number || number[strspn(number, "0123456789")])
            return err_input(e, "lora_layers_to_transform: '%s' is no layer number", number);
    }
    return pattern_of(t, "lora_rank_pattern", &r->lora_rank_pattern, &c->rank_pattern, e) ||
                   pattern_of(t, "lora_alpha_pattern", &r->lora_alpha_pattern, &c->alpha_pattern, e)
               ? -1
               : 0;
}

/* A model that asks for dropout would be trained as another one. */
static int dropouts_check(struct trainer *t, struct err *e) {
    const struct recipe *r = t->r;
    struct text names = {0};
    char *path = r->model ? NULL : path_join(NULL, r->model_name_or_path, "config.json", e);
    json_t *file = path && path_exists(path) ? json_open(path, e) : NULL;
    int rc = e->code || config_dropouts(r->model ? r->model : file, t->model.config.family,
                                        file != NULL, &names, e);
    const bool ignore = !strcmp(r->model_dropout, "ignore");
    if (!rc && names.size && ignore)
        trainer_note(t, "the model is trained without its dropouts: %s", names.data);
    if (!rc && names.size && !ignore) {
        rc = err_input(e, "%s: %s", r->model ? "model" : path, names.data);
        err_detail(e, "hone trains without a model's own dropout; transformers would apply it");
        err_hint(e, "model_dropout: ignore trains without%s",
                 r->use_peft ? "; lora_dropout is the adapter's, and is applied"
                 : r->model  ? "; or set it to 0"
                             : "; or set it to 0 in config.json");
    }
    json_decref(file), mem_free(path), text_free(&names);
    return rc ? -1 : 0;
}

/* As in PEFT a tied embedding or LM head that is trained whole is one of its own. */
static int adapter_make(struct trainer *t, struct err *e) {
    const struct recipe *r = t->r;
    struct safetensors s = {0};
    struct lora_config *c = &t->lora;
    struct model *m = &t->model;
    const char *const given = r->adapter_name_or_path;
    int rc = given ? lora_of_given(t, &s, e) : lora_of_recipe(t, e);
    rc = rc || (c->tokens_count && trainer_rows_may(t, e)) ||
         lora_fit(m, c, &s, given ? given : "lora_modules_to_save", e) ||
         lora_add(m, c, (u64)r->seed, e) || (given && lora_load(m, &s, given, e));
    safetensors_close(&s);
    return rc ? -1 : 0;
}

int trainer_model(struct trainer *t, struct err *e) {
    const struct recipe *r = t->r;
    const enum dtype d = !strcmp(r->precision, "bf16") ? BF16 : F32;
    struct holding as = holding_of_recipe(r);
    as.random = t->random;
    if (r->adapter_name_or_path && !r->use_peft)
        return err_input(e, "adapter_name_or_path: without use_peft: true no adapter is trained");
    if (r->model_name_or_path) {
        t->model_folder = arena_text(&t->arena, r->model_name_or_path, e);
        if (!t->model_folder ||
            model_open_as(&t->model, r->model_name_or_path, d, !r->use_peft, &as, e))
            return -1;
        if (t->model.config.wrapped && !r->use_peft) t->model.prefix = NULL; /* trainer_save.c */
        if (trainer_tokens_fit(t, e)) return -1;
        if (t->tokenizer && tokenizer_fits(t->tokenizer, &t->model, r->model_name_or_path, e))
            return -1;
        if (path_is_gguf(r->model_name_or_path) && !r->use_peft && gguf_base(t, e)) return -1;
    } else if (model_create(t, d, e))
        return -1;
    if (r->recipe_version >= 2 && dropouts_check(t, e)) return -1;
    if (r->router_aux_loss_coef >= 0 || r->output_router_logits) {
        struct config *c = &t->model.config;
        if (!c->experts || c->aux_coef < 0)
            return err_input(e, "%s: a %s model has no balancing loss",
                             r->output_router_logits ? "output_router_logits"
                                                     : "router_aux_loss_coef",
                             c->family->model_type),
                   err_hint(e, "leave it out; it is for mixtures of experts");
        c->balanced = true;
        if (r->router_aux_loss_coef >= 0) c->aux_coef = r->router_aux_loss_coef;
    }
    for (i64 i = 0; i < r->dataset.count; i++)
        if (dataset_fits(t->dataset[i], &t->model, e)) return -1;
    for (i64 i = 0; i < r->eval_dataset.count; i++)
        if (dataset_fits(t->eval_dataset[i], &t->model, e)) return -1;
    if (r->use_peft && adapter_make(t, e)) return -1;
    return model_place(&t->model, e) || model_rope(&t->model, r->max_seq_length, e) ? -1 : 0;
}

int lock_files_of(const struct trainer *t, struct lock_files *files, struct err *e) {
    const struct recipe *r = t->r;
    if (r->model_name_or_path && lock_files_add(files, "model", r->model_name_or_path, e))
        return -1;
    if (r->adapter_name_or_path && lock_files_add(files, "adapter", r->adapter_name_or_path, e))
        return -1;
    for (i64 i = 0; i < t->others; i++)
        if (t->other[i].path && lock_files_add(files, "model", t->other[i].path, e)) return -1;
    if (t->tokenizer && lock_files_add(files, "tokenizer", tokenizer_path(t->tokenizer), e))
        return -1;
    if (r->chat_template && path_exists(r->chat_template)) {
        struct err unread = {0}; /* a pipe: what it gave was read once and is gone */
        i64 size;
        chat_source(t->chat, &size);
        if (file_regular(r->chat_template, &unread)
                ? lock_files_add_hash(files, "chat_template", r->chat_template, size,
                                      chat_sha256(t->chat), e)
                : lock_files_add(files, "chat_template", r->chat_template, e))
            return -1;
    }
    char *own = path_join(NULL, t->run_dir, "model", e);
    const bool kept = own && t->model_folder && !strcmp(t->model_folder, own);
    const int rc = !own || (kept && carried_list(own, files, e));
    mem_free(own);
    if (rc) return -1;
    for (i64 i = 0; i < r->dataset.count; i++)
        if (lock_files_add(files, "data", dataset_info(t->dataset[i])->path, e)) return -1;
    for (i64 i = 0; i < r->eval_dataset.count; i++)
        if (lock_files_add(files, "data", dataset_info(t->eval_dataset[i])->path, e)) return -1;
    return 0;
}
