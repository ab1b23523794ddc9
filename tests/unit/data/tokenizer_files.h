/* tokenizer_files.h: what the tokenizer tests share: goldens and their cases, patched
 * tokenizer.json files, temporary folders. */
#ifndef HONE_TESTS_TOKENIZER_FILES_H
#define HONE_TESTS_TOKENIZER_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "data/datasets/datasets.h"

#define GOLDEN "tests/golden/tokenizers/"

static inline char *temporary_folder(void) { /* free() it */
    char *folder = strdup("/tmp/hone-tokenizer-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

/* golden BASE.json with members replaced: {"normalizer": ..., "model.unk_token": ...} */
static inline struct text patched_tokenizer(const char *base, json_t *patch) {
    struct err e = {0};
    char path[200];
    snprintf(path, sizeof path, GOLDEN "%s.json", base);
    json_t *j = json_open(path, &e), *value;
    const char *key;
    assert_non_null(j);
    json_object_foreach(patch, key, value) {
        bool model = !strncmp(key, "model.", 6);
        json_t *at = model ? json_object_get(j, "model") : j;
        assert_int_equal(0, json_object_set(at, key + (model ? 6 : 0), value));
    }
    char *dump = json_dumps(j, JSON_COMPACT);
    struct text out = {0};
    assert_int_equal(0, text_add(&out, dump, (i64)strlen(dump), &e));
    free(dump);
    json_decref(j);
    return out;
}

static inline struct tokenizer *open_text(struct text *json,
                                          struct err *e) { /* and free the text */
    char *folder = temporary_folder(), path[100];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    assert_int_equal(0, file_write(path, json->data, json->size, e));
    struct tokenizer *t = tokenizer_open(path, e);
    assert_int_equal(0, dir_remove(folder, &(struct err){0}));
    free(folder);
    text_free(json);
    return t;
}

struct golden { /* the lines of a .jsonl file */
    struct text file;
    i64 at;
};

static inline json_t *golden_next(struct golden *g) {
    struct err e = {0};
    if (g->at >= g->file.size) return NULL;
    const char *line = g->file.data + g->at, *end = strchr(line, '\n');
    g->at += end - line + 1;
    json_t *j = json_parse(line, end - line, "golden", &e);
    if (!j) fail_msg("%s", e.primary);
    return j;
}

static inline struct text case_text(const json_t *j) {
    struct text t = {0};
    struct err e = {0};
    const json_t *hex = json_object_get(j, "hex"), *text = json_object_get(j, "text");
    if (text)
        assert_int_equal(0,
                         text_add(&t, json_string_value(text), (i64)json_string_length(text), &e));
    for (const char *h = hex ? json_string_value(hex) : ""; *h; h += 2) {
        char byte = (char)strtol((char[]){h[0], h[1], 0}, NULL, 16);
        assert_int_equal(0, text_add(&t, &byte, 1, &e));
    }
    return t;
}

static inline void check_decoded(const struct tokenizer *t, const struct ids *ids, bool skip,
                                 const json_t *want, const char *what) {
    struct text out = {0};
    struct err e = {0};
    assert_int_equal(0, tokenizer_decode(t, ids->item, ids->count, skip, &out, &e));
    if (want && (out.size != (i64)json_string_length(want) ||
                 memcmp(out.data, json_string_value(want), (size_t)out.size)))
        fail_msg("%s: decoded (skip %d) \"%s\", expected \"%s\"", what, skip, out.data,
                 json_string_value(want));
    text_free(&out);
}

/* The recorded ones, or any within the text. */
static inline void check_offsets(const struct spans *got, i64 count, i64 size, const json_t *want,
                                 const char *text) {
    assert_int_equal(got->count, count);
    for (i64 i = 0; i < count; i++) {
        const struct span s = got->item[i];
        const json_t *w = json_array_get(want, (size_t)i);
        assert_true(s.begin >= 0 && s.begin <= s.end && s.end <= size);
        if (w && (s.begin != json_integer_value(json_array_get(w, 0)) ||
                  s.end != json_integer_value(json_array_get(w, 1))))
            fail_msg("\"%s\": token %d comes from [%d, %d)", text, (int)i, (int)s.begin,
                     (int)s.end);
    }
}

static inline void check_case(const struct tokenizer *t, const json_t *j, bool add,
                              const char *what) {
    struct text text = case_text(j);
    struct ids ids = {0};
    struct err e = {0};
    const json_t *want = json_object_get(j, "ids"), *plain = json_object_get(j, "plain");
    struct spans offsets = {0};
    if (tokenizer_encode_offsets(t, text.data, text.size, add, &ids, &offsets, &e))
        fail_msg("%s: %s", what, e.primary);
    check_offsets(&offsets, ids.count, text.size, json_object_get(j, "offsets"), text.data);
    ids.count = 0;
    if (tokenizer_encode(t, text.data, text.size, add, &ids, &e))
        fail_msg("%s: %s", what, e.primary);
    for (i64 i = 0; i < i64_max(ids.count, (i64)json_array_size(want)); i++) {
        i64 id = i < ids.count ? (i64)ids.item[i] : -1, expected = -1;
        if (i < (i64)json_array_size(want))
            expected = json_integer_value(json_array_get(want, (size_t)i));
        if (id != expected)
            fail_msg("%s: \"%s\": id %d is %d, expected %d", what, text.data, (int)i, (int)id,
                     (int)expected);
    }
    check_decoded(t, &ids, true, json_object_get(j, "skip"), what);
    check_decoded(t, &ids, false, plain ? plain : json_object_get(j, "skip"), what);
    text_free(&text);
    ids_free(&ids), spans_free(&offsets);
}

#endif
