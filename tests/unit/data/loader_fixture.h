/* loader_fixture.h: datasets of letters, and loaders that must work. */
#ifndef HONE_TESTS_LOADER_FIXTURE_H
#define HONE_TESTS_LOADER_FIXTURE_H

#include "tests/unit/data/dataset_fixture.h"

static const struct source_options lines = {.document_separator = "\n"};

static struct dataset *alphabet(const char *name, i64 documents, char first) {
    struct text t = {0};
    struct err e = {0};
    for (i64 i = 0; i < documents; i++) /* 1 to 40 letters a document */
        for (i64 k = i * 7 % 40 + 1; k >= 0; k--)
            assert_int_equal(text_add(&t, k ? (char[]){(char)(first + k % 26)} : "\n", 1, &e), 0);
    struct dataset *d = dataset_of(name, t.data, t.size, &lines);
    text_free(&t);
    return d;
}

static struct loader *loader_must(const struct loader_config *c) {
    struct err e = {0};
    struct loader *l = loader_open(c, &e);
    if (!l) fail_msg("%s %s", e.primary, e.detail);
    return l;
}

static const struct step_batches *step_must(struct loader *l, i64 step) {
    struct err e = {0};
    const struct step_batches *s = NULL;
    if (loader_step(l, step, &s, &e)) fail_msg("%s %s", e.primary, e.detail);
    assert_int_equal(s->step, step);
    return s;
}

#endif
