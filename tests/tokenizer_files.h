/* tokenizer_files.h: what the tokenizer tests share: goldens, patched tokenizer.json files,
 * temporary folders. */
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
#include "data/data.h"

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

#endif
