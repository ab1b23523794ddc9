/* fuzz_tokenizer.c: libFuzzer target. The input is a whole tokenizer file (tokenizer.json,
 * SentencePiece model, ranks), the four bytes "\0~\0\0" and a text for it; or, without these, a
 * text for two goldens, which must give back what they were given, broken UTF-8 repaired.
 *
 *   clang -fsanitize=fuzzer,address,undefined ... tests/fuzz_tokenizer.c data and base; seeds:
 * tests/golden/tokenizers */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "data/data_int.h"

static void expect(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "fuzz_tokenizer: %s\n", what);
    abort();
}

static void round_trip(const struct tokenizer *t, const char *text, i64 size, bool exact) {
    struct err e = {0};
    struct ids ids = {0};
    struct text back = {0}, clean = {0};
    if (!tokenizer_encode(t, text, size, false, &ids, &e)) {
        for (i64 i = 0; i < ids.count; i++)
            expect(ids.item[i] < tokenizer_size(t), "an id out of range");
        expect(!tokenizer_decode(t, ids.item, ids.count, false, &back, &e) || !exact,
               "cannot decode");
        if (exact) {
            expect(!utf8_repair(&clean, (struct bytes){text, size}, &e), "cannot repair");
            expect(back.size == clean.size &&
                       (!clean.size || !memcmp(back.data, clean.data, (size_t)clean.size)),
                   "text changed");
        }
    } else
        expect(!exact, "cannot encode");
    ids_free(&ids);
    text_free(&back);
    text_free(&clean);
}

static void fuzz_file(const u8 *data, i64 json_size, const char *text, i64 size) {
    static char path[64];
    struct err e = {0};
    if (!*path) snprintf(path, sizeof path, "/dev/shm/hone-fuzz-%d", (int)getpid());
    FILE *f = fopen(path, "wb"); /* no fsync: speed */
    expect(f && fwrite(data, 1, (size_t)json_size, f) == (size_t)json_size && !fclose(f),
           "cannot write");
    struct tokenizer *t = tokenizer_open(path, &e);
    expect(!t == (e.code != 0), "an error without a message");
    if (t) round_trip(t, text, size, false);
    tokenizer_free(t);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    static struct tokenizer *golden[2];
    static const char *const path[] = {"tests/golden/tokenizers/gpt2.json",
                                       "tests/golden/tokenizers/llama3.json"};
    struct err e = {0};
    static const char cut[4] = {0, '~', 0, 0};
    const u8 *zero = memmem(data, size, cut, 4);
    for (int i = 0; i < 2; i++)
        if (!golden[i]) expect((golden[i] = tokenizer_open(path[i], &e)), "no golden");
    if (zero)
        fuzz_file(data, zero - data, (const char *)zero + 4, (i64)size - (zero - data) - 4);
    else
        for (int i = 0; i < 2; i++) round_trip(golden[i], (const char *)data, (i64)size, true);
    return 0;
}
