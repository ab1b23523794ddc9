/* dataset_fixture.h: what the tests of sources, datasets and the loader share: a folder that goes
 * away, files, an encoder that maps each byte to itself, and datasets made of text. */
#ifndef HONE_DATASET_FIXTURE_H
#define HONE_DATASET_FIXTURE_H

#include "data/datasets/datasets.h"
#include <setjmp.h>
#include <cmocka.h>
#include "tests/folder.h"

/* A path in the folder; the same name gives the same pointer. */
static inline const char *in_folder(const char *name) {
    static char path[64][256];
    char wanted[256];
    snprintf(wanted, sizeof wanted, "%s/%s", folder, name);
    i64 i = 0;
    while (path[i][0] && strcmp(path[i], wanted)) assert_true(++i < COUNT(path));
    return strcpy(path[i], wanted);
}

static inline const char *file_put(const char *name, const void *data, i64 size) {
    struct err e = {0};
    const char *path = in_folder(name);
    if (file_write(path, data, size, &e)) fail_msg("%s", e.primary);
    return path;
}

enum { BYTE_EOS = 256, BYTE_BOS = 257, BYTE_VOCAB = 258 };

static inline int byte_encode(const void *arg, const char *text, i64 size, struct ids *out,
                              struct err *e) {
    (void)arg;
    for (i64 i = 0; i < size; i++)
        if (ids_add(out, (u8)text[i], e)) return -1;
    return 0;
}

static inline struct encoder byte_encoder(void) {
    return (struct encoder){.encode = byte_encode,
                            .vocab_size = BYTE_VOCAB,
                            .bos = BYTE_BOS,
                            .eos = BYTE_EOS,
                            .sha256 =
                                "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"};
}

static inline struct dataset_job byte_job(const char *const *source, const char *path) {
    return (struct dataset_job){.sources = source,
                                .sources_count = 1,
                                .encoder = byte_encoder(),
                                .add_eos = true,
                                .path = path};
}

/* A dataset NAME.h5 of the content of a source file called NAME. */
static inline struct dataset *dataset_of(const char *name, const void *data, i64 size,
                                         const struct source_options *options) {
    struct err e = {0};
    char out[128];
    snprintf(out, sizeof out, "%s.h5", name);
    const char *source = file_put(name, data, size);
    struct dataset_job job = byte_job(&source, in_folder(out));
    job.options = *options;
    if (dataset_build(&job, &e)) fail_msg("%s %s", e.primary, e.detail);
    struct dataset *d = dataset_open(job.path, &e);
    if (!d) fail_msg("%s %s", e.primary, e.detail);
    return d;
}

/* The tokens of a dataset as text: ^ bos, $ eos, those that are trained in brackets. */
static inline char *dataset_shown(struct dataset *d) {
    static char out[4096];
    struct err e = {0};
    const i64 n = dataset_info(d)->tokens;
    u32 ids[2048];
    u8 trained[2048];
    i64 at = 0;
    assert_true(n < 2000);
    assert_int_equal(dataset_read(d, 0, n, ids, &e), 0);
    dataset_trained(d, 0, n, trained);
    for (i64 i = 0; i < n; i++) {
        if (trained[i] && (!i || !trained[i - 1])) out[at++] = '[';
        out[at++] = ids[i] == BYTE_EOS ? '$' : ids[i] == BYTE_BOS ? '^' : (char)ids[i];
        if (trained[i] && (i + 1 == n || !trained[i + 1])) out[at++] = ']';
    }
    return out[at] = 0, out;
}
static inline const char *dataset_marked(const char *path) {
    struct err e = {0};
    struct dataset *d = dataset_open(path, &e);
    if (!d) fail_msg("%s", e.primary);
    const char *shown = dataset_shown(d);
    dataset_close(d);
    return shown;
}

#endif
