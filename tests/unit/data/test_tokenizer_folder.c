/* test_tokenizer_folder.c: folders whose tokens are spread over several files, and vocab.json with
 * merges.txt, have the ids of transformers (golden/tokenizers/folders.json, which
 * interop/record_tokenizer_folders.py recorded); what is not understood is said. */
#include "data/tokenizers/tokenizers_int.h"
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define STORIES "recipes/data/stories260K/tokenizer.json"
#define GPT2    "tests/golden/tokenizers/gpt2.json"
static char folder[64];

static void put(const char *name, const char *text, i64 size) {
    struct err e = {0};
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (file_replace(path, text, size, &e)) fail_msg("%s", e.primary);
}
static void put_json(const char *name, const json_t *j) {
    char *text = json_dumps(j, 0);
    put(name, text, (i64)strlen(text)), free(text);
}
static json_t *open_json(const char *path) {
    struct err e = {0};
    json_t *j = json_open(path, &e);
    if (!j) fail_msg("%s", e.primary);
    return j;
}

/* The file or files that all folders of a kind have. */
static void put_base(const char *kind) {
    json_t *file = open_json(*kind == 'p' ? GPT2 : STORIES), *pair;
    size_t i;
    if (*kind != 'p') {
        put_json("tokenizer.json", file), json_decref(file);
        return;
    }
    const json_t *model = json_object_get(file, "model");
    struct text merges = {0};
    struct err e = {0};
    put_json("vocab.json", json_object_get(model, "vocab"));
    text_printf(&merges, &e, "#version: 0.2\n");
    json_array_foreach(json_object_get(model, "merges"), i, pair)
        text_printf(&merges, &e, "%s %s\n", json_string_value(json_array_get(pair, 0)),
                    json_string_value(json_array_get(pair, 1)));
    put("merges.txt", merges.data, merges.size);
    text_free(&merges), json_decref(file);
}

static void fresh(const char *kind) {
    struct err e = {0};
    if (dir_remove(folder, &e) || dir_make(folder, &e)) fail_msg("%s", e.primary);
    put_base(kind);
}

static void ids_are(const struct tokenizer *t, const json_t *want, const json_t *texts,
                    const char *name) {
    struct err e = {0};
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const json_t *text = json_array_get(texts, i), *ids = json_array_get(want, i);
        struct ids got = {0};
        assert_int_equal(0, tokenizer_encode(t, json_string_value(text),
                                             (i64)json_string_length(text), false, &got, &e));
        bool same = got.count == (i64)json_array_size(ids);
        for (i64 k = 0; same && k < got.count; k++)
            same = got.item[k] == (u32)json_integer_value(json_array_get(ids, (size_t)k));
        if (!same) fail_msg("%s: text %zu has other ids", name, i);
        ids_free(&got);
    }
}

static void test_recorded(void **state) {
    (void)state;
    json_t *all = open_json("tests/golden/tokenizers/folders.json"), *row, *file;
    size_t i;
    const char *name;
    json_array_foreach(json_object_get(all, "folders"), i, row) {
        struct err e = {0};
        const char *called = json_string_value(json_object_get(row, "name"));
        fresh(json_string_value(json_object_get(row, "of")));
        json_object_foreach(json_object_get(row, "files"), name, file) put_json(name, file);
        struct tokenizer *t = tokenizer_open(folder, &e);
        if (!t) fail_msg("%s: %s", called, e.primary);
        ids_are(t, json_object_get(row, "ids"), json_object_get(all, "texts"), called);
        assert_int_equal(json_integer_value(json_object_get(row, "eos")), tokenizer_eos(t));
        /* as one file it is the same */
        json_t *whole = tokenizer_json(t, &e);
        fresh("t"), put_json("tokenizer.json", whole), json_decref(whole);
        struct tokenizer *one = tokenizer_open(folder, &e);
        if (!one) fail_msg("%s: %s", called, e.primary);
        ids_are(one, json_object_get(row, "ids"), json_object_get(all, "texts"), called);
        tokenizer_free(t), tokenizer_free(one);
    }
    assert_in_range(i, 16, 100);
    json_decref(all);
}

/* A pad token that no file has is left out; the hash tells a tokenizer with more tokens apart. */
static void test_left_out(void **state) {
    (void)state;
    struct err e = {0};
    char plain[65];
    fresh("t");
    struct tokenizer *t = tokenizer_open(folder, &e);
    strcpy(plain, tokenizer_sha256(t)), tokenizer_free(t);
    json_t *config = json_pack("{s:s}", "pad_token", "[PAD]");
    put_json("tokenizer_config.json", config);
    t = tokenizer_open(folder, &e);
    assert_int_equal(512, tokenizer_size(t));
    assert_string_equal(plain, tokenizer_sha256(t)), tokenizer_free(t);
    json_object_set_new(config, "extra_special_tokens", json_pack("[s]", "<|x|>"));
    put_json("tokenizer_config.json", config);
    t = tokenizer_open(folder, &e);
    assert_int_equal(514,
                     tokenizer_size(t)); /* and its id, as in transformers, is before the other */
    assert_int_equal(513, tokenizer_id(t, "<|x|>"));
    assert_string_not_equal(plain, tokenizer_sha256(t)), tokenizer_free(t);
    json_decref(config);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *kind, *file, *text, *want;
    } rows[] = {
        {"t", "tokenizer_config.json", "{\"extra_special_tokens\": [3]}",
         "extra_special_tokens is no token"},
        {"t", "tokenizer_config.json", "{\"added_tokens_decoder\": {\"512\": {\"special\": true}}}",
         "added_tokens_decoder is no token"},
        {"t", "added_tokens.json", "{\"<x>\": \"a\"}", "the id of '<x>' is no integer"},
        {"t", "tokenizer_config.json", "[]", "must hold an object"},
        {"pair", "tokenizer_config.json", "{\"tokenizer_class\": \"CLIPTokenizer\"}",
         "'CLIPTokenizer', which hone does not know"},
        {"pair", "merges.txt", "#version: 0.2\na bb cc\n", "merge 0 is \"a bb cc\""},
    };
    for (int i = 0; i < COUNT(rows); i++) {
        struct err e = {0};
        fresh(rows[i].kind), put(rows[i].file, rows[i].text, (i64)strlen(rows[i].text));
        struct tokenizer *t = tokenizer_open(folder, &e);
        if (t || !strstr(e.primary, rows[i].want)) fail_msg("row %d: %s", i, e.primary);
    }
}

static int set_up(void **state) {
    (void)state;
    strcpy(folder, "/tmp/hone-folder-XXXXXX");
    quiet = true;
    return mkdtemp(folder) ? 0 : -1;
}
static int tear_down(void **state) {
    (void)state;
    return dir_remove(folder, &(struct err){0});
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_recorded),
                                       cmocka_unit_test(test_left_out),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
