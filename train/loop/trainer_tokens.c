/* trainer_tokens.c: more tokens than the model has: `special_tokens` and `add_tokens`.
 *
 * RUN/tokenizer is the tokenizer with them, made when the run begins and carried by its
 * checkpoints: tokenizer.json has the tokens, tokenizer_config.json the roles. Ids go on behind the
 * largest; a text that is a token already keeps its id. The model gets a row for
 * each id that it has none for (recipes/models/reshape.c). */
#include "train/loop/loop.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const roles[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};

/* ROLE=TOKEN: the role; *token: what follows. NULL: a token without one. */
static const char *role_of(const char *item, const char **token) {
    *token = item;
    for (int i = 0; i < COUNT(roles); i++) {
        const size_t n = strlen(roles[i]);
        if (strncmp(item, roles[i], n) || item[n] != '=') continue;
        return *token = item + n + 1, roles[i];
    }
    return NULL;
}

/* Appends a token that the list does not have. */
static int token_add(json_t *list, const struct tokenizer *t, const char *text, bool special,
                     i64 *next, struct err *e) {
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row) {
        const char *known = json_string_value(json_object_get(row, "content"));
        if (known && !strcmp(known, text))
            return special ? json_object_set_new(row, "special", json_true()) : 0;
    }
    const i64 known = tokenizer_id(t, text), id = known >= 0 ? known : (*next)++;
    row = json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)id, "content", text,
                    "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", !special, "special",
                    special);
    if (!row) return err_input(e, "add_tokens: '%.80s' is not UTF-8", text);
    return json_array_append_new(list, row) ? err_memory(e, "out of memory") : 0;
}

static int tokens_add(const struct trainer *t, json_t *file, struct err *e) {
    const struct recipe *r = t->r;
    json_t *list = json_object_get(file, "added_tokens");
    if (!json_is_array(list)) json_object_set_new(file, "added_tokens", list = json_array());
    i64 next = tokenizer_size(t->tokenizer);
    for (i64 i = 0; i < r->special_tokens.count; i++) {
        const char *token;
        role_of(r->special_tokens.item[i], &token);
        if (!*token)
            return err_input(e, "special_tokens: '%s' names no token", r->special_tokens.item[i]);
        if (token_add(list, t->tokenizer, token, true, &next, e)) return -1;
    }
    for (i64 i = 0; i < r->add_tokens.count; i++) {
        if (!*r->add_tokens.item[i]) return err_input(e, "add_tokens: an empty token");
        if (token_add(list, t->tokenizer, r->add_tokens.item[i], false, &next, e)) return -1;
    }
    return 0;
}

/* Roles of tokens: in tokenizer_config.json, and in special_tokens_map.json where there is one. */
static int roles_put(const struct trainer *t, const char *folder, const char *name, bool always,
                     struct err *e) {
    char *path = path_join(NULL, folder, name, e);
    json_t *j = !path               ? NULL
                : path_exists(path) ? json_open(path, e)
                : always            ? json_object()
                                    : NULL;
    int rc = e->code ? -1 : 0;
    for (i64 i = 0; j && !rc && i < t->r->special_tokens.count; i++) {
        const char *token, *role = role_of(t->r->special_tokens.item[i], &token);
        if (role)
            rc = json_object_set_new(j, role, json_string(token)) ? err_memory(e, "out of memory")
                                                                  : 0;
    }
    rc = rc || (j && json_save(j, path, 2, e));
    json_decref(j), mem_free(path);
    return rc ? -1 : 0;
}

static int tokenizer_grow(const struct trainer *t, const char *from, const char *folder,
                          struct err *e) {
    if (!ends_with(tokenizer_path(t->tokenizer), ".json")) {
        err_input(e, "special_tokens, add_tokens: %s is no tokenizer.json",
                  tokenizer_path(t->tokenizer));
        return err_hint(e, "save the tokenizer with transformers first, which writes one");
    }
    if (dir_remove(folder, e) || dir_make(folder, e) ||
        (path_is_dir(from) && folder_copy_tokenizer(from, folder, e)))
        return -1;
    char *path = path_join(NULL, folder, "tokenizer.json", e);
    json_t *file = path ? tokenizer_json(t->tokenizer, e) : NULL;
    const int rc = !file || tokens_add(t, file, e) || json_save(file, path, 2, e) ||
                   roles_put(t, folder, "tokenizer_config.json", true, e) ||
                   roles_put(t, folder, "special_tokens_map.json", false, e);
    json_decref(file), mem_free(path);
    return rc ? -1 : 0;
}

int trainer_tokens(struct trainer *t, struct err *e) {
    const struct recipe *r = t->r;
    const char *from = r->tokenizer ? r->tokenizer : r->model_name_or_path;
    if (!r->special_tokens.count && !r->add_tokens.count) return 0;
    if (!t->tokenizer) {
        err_input(e, "special_tokens, add_tokens: the recipe names no tokenizer");
        return err_hint(e, "set `tokenizer:` to a tokenizer.json or its folder");
    }
    const int begun = path_has(t->run_dir, "log.jsonl", e);
    if (begun < 0 || !(t->tokens_folder = path_join(&t->arena, t->run_dir, "tokenizer", e)))
        return -1;
    if (!(begun && path_is_dir(t->tokens_folder)) && tokenizer_grow(t, from, t->tokens_folder, e))
        return -1;
    const i64 before = tokenizer_size(t->tokenizer);
    tokenizer_free(t->tokenizer);
    if (!(t->tokenizer = tokenizer_open(t->tokens_folder, e))) return -1;
    trainer_note(t, "%lld tokens are new; the run's folder has the tokenizer with them",
                 (long long)(tokenizer_size(t->tokenizer) - before));
    return 0;
}

int trainer_tokens_fit(struct trainer *t, struct err *e) {
    const i64 tokens = t->tokens_folder ? tokenizer_size(t->tokenizer) : 0,
              rows = t->model.config.vocab_size;
    if (tokens <= rows) return 0;
    if (path_is_gguf(t->r->model_name_or_path))
        return err_input(e, "special_tokens, add_tokens: a GGUF file has no room for more tokens"),
               err_hint(e, "export it as a folder first: hone export");
    if (model_grow(&t->model, tokens, e) ||
        (!t->random && model_rows_start(&t->model, rows, (u64)t->r->seed, e)))
        return -1;
    trainer_note(t,
                 "the vocabulary grows from %lld to %lld rows, which start at the mean of the "
                 "others",
                 (long long)rows, (long long)tokens);
    if (t->r->use_peft && !t->r->lora_modules_to_save.count && !t->r->trainable_token_indices.count)
        trainer_note(t, "the new rows are not trained; lora_modules_to_save: [embed_tokens, "
                        "lm_head] trains them");
    return 0;
}

/* "eos_token_id" and the like, where the recipe gives a token the role. */
int trainer_roles_save(const struct trainer *t, const char *folder, struct err *e) {
    static const char *const file[] = {"config.json", "generation_config.json"};
    for (int f = 0; t->tokens_folder && f < COUNT(file); f++) {
        char *path = path_join(NULL, folder, file[f], e);
        json_t *j = path && path_exists(path) ? json_open(path, e) : NULL;
        int rc = e->code ? -1 : 0;
        for (i64 i = 0; j && !rc && i < t->r->special_tokens.count; i++) {
            const char *token, *role = role_of(t->r->special_tokens.item[i], &token);
            char key[32];
            if (!role || (role[0] != 'b' && role[0] != 'e' && role[0] != 'p')) continue;
            snprintf(key, sizeof key, "%s_id", role);
            rc = json_object_set_new(j, key, json_integer(tokenizer_id(t->tokenizer, token)))
                     ? err_memory(e, "out of memory")
                     : 0;
        }
        rc = rc || (j && json_save(j, path, 2, e));
        json_decref(j), mem_free(path);
        if (rc) return -1;
    }
    return 0;
}

/* The whole embedding is the parameter, and rows that are not trained have gradients of zero: right
 * with optimizers that leave such elements alone, element by element. */
int trainer_rows_may(const struct trainer *t, struct err *e) {
    static const char *const plain[] = {"adamw", "adam", "adamw_8bit", "sgd", "adagrad", "rmsprop"};
    const struct recipe *r = t->r;
    bool may = false;
    for (int i = 0; i < COUNT(plain); i++) may |= !strcmp(r->optim, plain[i]);
    if (!may) {
        err_input(e, "trainable_token_indices: optim %s would change the other rows too", r->optim);
        return err_detail(e, "expected adamw, adam, adamw_8bit, sgd, adagrad or rmsprop");
    }
    if (r->weight_decay > 0) {
        err_input(e, "trainable_token_indices: weight_decay would change the other rows too");
        return err_hint(e, "weight_decay: 0");
    }
    if (!(r->adam_epsilon > 0)) return err_input(e, "trainable_token_indices: adam_epsilon is 0");
    return 0;
}
