/* fuzz_source.c: libFuzzer target for sources: text, JSON lines, a JSON array, conversations, CSV,
 * UTF-16, plain or compressed, built with clang -fsanitize=fuzzer,address,undefined.
 *
 * The first byte picks the kind of file, the others are the file. A source that is read to its end
 * gives valid UTF-8, parts that add up, the same documents twice, and as many in its two splits as
 * in all. */
#include "data/datasets/datasets.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static const char *const kind[] = {"txt",     "jsonl",    "json", "txt.gz", "json.gz",
                                   "txt.zst", "json.zst", "csv",  "tsv",    "csv.gz"};
static char path[COUNT(kind)][64];
static struct chat *chat;

static void fuzz_files_remove(void) {
    for (int i = 0; i < COUNT(kind); i++) unlink(path[i]);
    chat_free(chat);
}

static void fuzz_begin(void) {
    struct err e = {0};
    for (int i = 0; i < COUNT(kind); i++)
        snprintf(path[i], sizeof path[i], "/dev/shm/hone-fuzz-source-%d.%s", getpid(), kind[i]);
    if (!(chat = chat_open("chatml", NULL, NULL, &e))) abort();
    atexit(fuzz_files_remove);
}

static void check(bool holds) {
    if (!holds) abort();
}

/* Documents, or -1; a digest of what they hold. */
static i64 read_all(const char *from, const struct source_options *how, char hex[65]) {
    struct err e = {0};
    struct document d;
    struct sha256 sum = {0};
    i64 count = 0;
    int r = sha256_begin(&sum, &e);
    struct source *s = r ? NULL : source_open(from, how, &e);
    while (s && (r = source_next(s, &d, &e)) > 0) {
        i64 sum_of_parts = 0, at = 0;
        check(utf8_bad(d.text, d.size) < 0);
        for (int i = 0; i < d.segments; i++) sum_of_parts += d.segment[i].size;
        check(!d.segments || sum_of_parts == d.size);
        for (i64 i = 0; i < d.spans; at = d.span[i++].end)
            check(d.span[i].begin >= at && d.span[i].end > d.span[i].begin &&
                  d.span[i].end <= d.size);
        sha256_add(&sum, d.text, d.size), sha256_add(&sum, &d.row, sizeof d.row);
        count++;
    }
    check(!(r < 0) == !e.code);
    if (sum.context) sha256_end(&sum, hex);
    source_close(s);
    return !s || r < 0 ? -1 : count;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    struct err e = {0};
    char first[65], again[65];
    if (!path[0][0]) fuzz_begin();
    if (!size) return 0;
    const char *file = path[data[0] % 32 % COUNT(kind)];
    struct source_options how = {.chat = chat,
                                 .chat_instructions = data[0] & 32,
                                 .completion_only_loss = data[0] & 64,
                                 .assistant_only_loss = data[0] & 128,
                                 .document_separator = data[0] & 64 ? "\n\n" : NULL};
    if (file_write(file, (const char *)data + 1, (i64)size - 1, &e)) abort();
    const i64 all = read_all(file, &how, first);
    check(read_all(file, &how, again) == all && (all < 0 || !strcmp(first, again)));
    if (all < 0 || (strstr(file, ".txt") && !how.document_separator)) return 0;
    how.validation_fraction = 0.5, how.seed = 7, how.split = SPLIT_TRAIN;
    const i64 train = read_all(file, &how, first);
    how.split = SPLIT_VALIDATION;
    check(train + read_all(file, &how, first) == all);
    return 0;
}
