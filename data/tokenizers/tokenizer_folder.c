/* tokenizer_folder.c: tokens that a folder's other files add to its tokenizer.
 *
 * As transformers 5 reads a folder (tokenization_utils_base.py, tokenization_utils_tokenizers.py):
 * the tokens of "added_tokens_decoder" in tokenizer_config.json; where there is none, those of
 * added_tokens.json, and special_tokens_map.json goes before tokenizer_config.json; then what is
 * named as bos_token and the like and by any other key that ends in _token; then
 * "extra_special_tokens", or "additional_special_tokens" where that is not given. A text that is a
 * token already has its id; the others get the next ones in this order, whatever id a file states.
 * Two differences. A pad, mask, cls, sep or unk token at the end that no vocabulary holds is left
 * out, and said: models have no row for it, and no text needs it. A bos or eos token that is only
 * named is an error (tokenizer.c): what it would stand for was never learnt. */
#include <stdlib.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

/* "added_tokens_decoder" of tokenizer_config.json ({"5": {"content", ...}}) and added_tokens.json
 * ({"content": 5}) as a tokenizer.json lists them; NULL without an error: neither is there. */
json_t *added_of_folder(const char *folder, const json_t *config, struct err *e) {
    json_t *decoder = json_object_get(config, "added_tokens_decoder"), *value, *more = NULL;
    const char *key;
    char *file = path_join(NULL, folder, "added_tokens.json", e);
    json_t *list = NULL;
    if (!file || (path_exists(file) && !(more = json_open(file, e))) ||
        (!json_object_size(decoder) && !json_object_size(more)) || !(list = json_array())) {
        mem_free(file), json_decref(more);
        return NULL;
    }
    int rc = 0;
    json_object_foreach(decoder, key, value) {
        json_t *row = json_copy(value);
        rc |= json_object_set_new(row, "id", json_integer(strtoll(key, NULL, 10))) ||
              json_array_append_new(list, row);
    }
    if (!json_object_size(decoder)) json_object_foreach(more, key, value) {
            rc |= json_array_append_new(list,
                                        json_pack("{s:O, s:s, s:b, s:b}", "id", value, "content",
                                                  key, "special", 0, "normalized", 0));
        }
    mem_free(file), json_decref(more);
    if (!rc) return list;
    json_decref(list);
    err_input(e, "%s: added_tokens_decoder or added_tokens.json is not an object of tokens",
              folder);
    return NULL;
}

/* ---- what a tokenizer.json lacks */

struct extras {
    struct tokenizer *t;
    const char *folder;
    const json_t *own; /* "added_tokens" of tokenizer.json */
    json_t *list;      /* what comes to them */
    i64 next;          /* the id of a text that is no token */
    bool naming;       /* only to know the names */
    i64 unneeded;      /* how many at the end are of roles that no text needs */
};

static bool listed(const json_t *list, const char *content) {
    size_t i;
    json_t *row;
    json_array_foreach((json_t *)(uintptr_t)list, i, row) {
        const char *text = json_string_value(json_object_get(row, "content"));
        if (text && !strcmp(text, content)) return true;
    }
    return false;
}

/* One token: text, or an object of an added token. `stated`: the id that a file gives it, or -1. */
static int extra_add(struct extras *x, const char *file, const char *key, const json_t *token,
                     bool special, bool unneeded, i64 stated, struct err *e) {
    static const char *const flag[] = {"single_word", "lstrip", "rstrip"};
    const json_t *text = json_is_object(token) ? json_object_get(token, "content") : token;
    if (!token || json_is_null(token)) return 0;
    if (!json_is_string(text)) {
        err_input(e, "%s/%s: %s is no token", x->folder, file, key);
        return err_detail(e, "expected a text, or {\"content\": \"...\"}");
    }
    const char *content = json_string_value(text);
    if (!*content || listed(x->own, content) || listed(x->list, content)) return 0;
    const i64 known = vocab_find(&x->t->vocab, content, (i64)json_string_length(text)),
              id = known >= 0 ? known : x->next;
    if (stated >= 0 && stated != id && !quiet)
        show(stderr,
             "note: %s/%s gives '%s' the id %lld, which tokenizer.json does not have; here "
             "as in transformers it is %lld\n",
             x->folder, file, content, (long long)stated, (long long)id);
    const bool is = special || json_is_true(json_object_get(token, "special"));
    const json_t *normalized = json_object_get(token, "normalized");
    json_t *row =
        json_pack("{s:I, s:O, s:b, s:b}", "id", (json_int_t)id, "content", text, "special", is,
                  "normalized", normalized ? json_is_true(normalized) : !is);
    for (int i = 0; i < COUNT(flag); i++)
        json_object_set_new(row, flag[i],
                            json_boolean(json_is_true(json_object_get(token, flag[i]))));
    if (!row || json_array_append_new(x->list, row)) return err_memory(e, "out of memory");
    if (known < 0) x->next++;
    x->unneeded = known < 0 && unneeded ? x->unneeded + 1 : 0;
    return 0;
}

static int id_order(const void *a, const void *b) {
    const i64 x = strtoll(*(const char *const *)a, NULL, 10),
              y = strtoll(*(const char *const *)b, NULL, 10);
    return x < y ? -1 : x > y;
}

/* {"512": {"content", ...}} in the order of ids. */
static int decoder_add(struct extras *x, const json_t *decoder, struct err *e) {
    const i64 n = (i64)json_object_size(decoder);
    const char **key = mem_new_array(n + 1, sizeof *key, e), *name;
    json_t *value;
    i64 count = 0;
    json_object_foreach((json_t *)(uintptr_t)decoder, name, value) if (key) key[count++] = name;
    int rc = key ? 0 : -1;
    if (n > 1 && key) qsort(key, (size_t)n, sizeof *key, id_order);
    for (i64 i = 0; !rc && i < n; i++)
        rc =
            extra_add(x, "tokenizer_config.json", "added_tokens_decoder",
                      json_object_get(decoder, key[i]), false, false, strtoll(key[i], NULL, 10), e);
    mem_free(key);
    return rc;
}

static const char additional[] = "additional_special_tokens";
static const char *const roles[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};

static bool token_known(const struct extras *x, const json_t *token) {
    const json_t *text = json_is_object(token) ? json_object_get(token, "content") : token;
    return json_is_string(text) &&
           vocab_find(&x->t->vocab, json_string_value(text), (i64)json_string_length(text)) >= 0;
}

static int names_add(struct extras *x, const json_t *config, const char *file, struct err *e) {
    const char *key;
    json_t *value;
    for (int i = 0; i < COUNT(roles); i++)
        if ((i > 1 || x->naming || token_known(x, json_object_get(config, roles[i]))) &&
            extra_add(x, file, roles[i], json_object_get(config, roles[i]), true, i > 1, -1, e))
            return -1;
    json_object_foreach((json_t *)(uintptr_t)config, key, value) {
        bool role = false;
        for (int i = 0; i < COUNT(roles); i++) role |= !strcmp(key, roles[i]);
        const bool token = json_is_string(value) || json_object_get(value, "content");
        if (!role && token && ends_with(key, "_token") &&
            extra_add(x, file, key, value, true, false, -1, e))
            return -1;
    }
    const json_t *more = json_object_get(config, "extra_special_tokens");
    const char *of = "extra_special_tokens";
    if (!json_array_size(more) && !json_object_size(more))
        more = json_object_get(config, of = additional);
    for (size_t i = 0; i < json_array_size(more); i++)
        if (extra_add(x, file, of, json_array_get(more, i), true, false, -1, e)) return -1;
    json_object_foreach((json_t *)(uintptr_t)more, key,
                        value) if (extra_add(x, file, of, value, true, false, -1, e)) return -1;
    return 0;
}

/* added_tokens.json: {"content": 512}, in the order of ids. */
static int legacy_add(struct extras *x, const json_t *map, const json_t *config, struct err *e) {
    json_t *decoder = json_object(), *id;
    const char *content;
    char number[32];
    struct extras named = {.t = x->t, .folder = x->folder, .list = json_array(), .naming = true};
    int rc = names_add(&named, config, "tokenizer_config.json", e);
    json_object_foreach((json_t *)(uintptr_t)map, content, id) {
        const bool special = listed(named.list, content);
        if (rc) break;
        if (!json_is_integer(id))
            rc = err_input(e, "%s/added_tokens.json: the id of '%s' is no integer", x->folder,
                           content);
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(id));
        json_object_set_new(decoder, number,
                            json_pack("{s:s, s:b, s:b}", "content", content, "special", special,
                                      "normalized", !special));
    }
    rc = rc || decoder_add(x, decoder, e);
    json_decref(decoder), json_decref(named.list);
    return rc ? -1 : 0;
}

static json_t *folder_json(const char *folder, const char *name, struct err *e) {
    char *path = path_join(NULL, folder, name, e);
    json_t *j = path && path_exists(path) ? json_open(path, e) : NULL;
    if (j && !json_is_object(j)) err_input(e, "%s must hold an object", path);
    return mem_free(path), j;
}

static int extras_collect(struct extras *x, struct err *e) {
    json_t *config = folder_json(x->folder, "tokenizer_config.json", e),
           *map = e->code ? NULL : folder_json(x->folder, "special_tokens_map.json", e),
           *added = e->code ? NULL : folder_json(x->folder, "added_tokens.json", e);
    const json_t *decoder = json_object_get(config, "added_tokens_decoder");
    if (!config && !(config = json_object())) err_memory(e, "out of memory");
    x->t->map_first = !decoder;
    json_t *named = json_copy(config); /* what makes a token of added_tokens.json special */
    if (!decoder && map) json_object_update(config, map), json_object_update(named, map);
    if (!decoder && map && json_object_get(map, additional)) json_object_del(named, additional);
    int rc = e->code ? -1 : decoder ? decoder_add(x, decoder, e) : legacy_add(x, added, named, e);
    json_decref(named);
    rc = rc || names_add(x, config, "tokenizer_config.json", e);
    json_decref(config), json_decref(map), json_decref(added);
    return rc ? -1 : 0;
}

json_t *extras_of_folder(struct tokenizer *t, const char *folder, const json_t *own,
                         struct err *e) {
    struct extras x = {
        .t = t, .folder = folder, .own = own, .list = json_array(), .next = t->vocab.used};
    size_t i;
    json_t *row;
    i64 most = -1;
    json_array_foreach((json_t *)(uintptr_t)own, i, row) most =
        i64_max(most, json_integer_value(json_object_get(row, "id")));
    if (most >= x.next) x.next = most + 1;
    if (!x.list || extras_collect(&x, e)) {
        json_decref(x.list);
        return e->code ? NULL : (err_memory(e, "out of memory"), NULL);
    }
    for (; x.unneeded; x.unneeded--) {
        const size_t last = json_array_size(x.list) - 1;
        if (!quiet)
            show(stderr, "note: %s names '%s', which tokenizer.json does not have: left out\n",
                 folder,
                 json_string_value(json_object_get(json_array_get(x.list, last), "content")));
        json_array_remove(x.list, last);
    }
    return x.list;
}
