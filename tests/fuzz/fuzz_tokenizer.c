/* fuzz_tokenizer.c: libFuzzer target. The input is a whole tokenizer file (tokenizer.json,
 * SentencePiece model, ranks), the four bytes "\0~\0\0" and a text for it; with a third part, that
 * comes first and is the tokenizer_config.json beside the file; or, with one part, a text for two
 * goldens, which must give back what they were given, broken UTF-8 repaired.
 *
 *   clang -fsanitize=fuzzer,address,undefined ... tests/fuzz/fuzz_tokenizer.c data and base; seeds:
 * tests/golden/tokenizers */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "data/tokenizers/tokenizers_int.h"

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

static void put(const char *path, const u8 *data, i64 size) { /* no fsync: speed */
    FILE *f = fopen(path, "wb");
    expect(f && fwrite(data, 1, (size_t)size, f) == (size_t)size && !fclose(f), "cannot write");
}

/* `config`: tokenizer_config.json beside the file, which is then opened by its folder. */
static void fuzz_file(const u8 *config, i64 config_size, const u8 *data, i64 file_size,
                      const char *text, i64 size) {
    static char folder[64], path[96], beside[96];
    struct err e = {0};
    if (!*folder) {
        snprintf(folder, sizeof folder, "/dev/shm/hone-fuzz-%d", (int)getpid());
        snprintf(path, sizeof path, "%s/tokenizer.model", folder);
        snprintf(beside, sizeof beside, "%s/tokenizer_config.json", folder);
        expect(!dir_make(folder, &e), "no folder");
    }
    put(path, data, file_size);
    if (config) put(beside, config, config_size);
    struct tokenizer *t = tokenizer_open(config ? folder : path, &e);
    expect(!t == (e.code != 0), "an error without a message");
    if (t) round_trip(t, text, size, false);
    tokenizer_free(t);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    static struct tokenizer *golden[2];
    static const char *const path[] = {"tests/golden/tokenizers/gpt2.json",
                                       "tests/golden/tokenizers/llama3.json"};
    struct err e = {0};
    quiet = true; /* notes about tokens */
    static const char cut[4] = {0, '~', 0, 0};
    const u8 *zero = memmem(data, size, cut, 4);
    for (int i = 0; i < 2; i++)
        if (!golden[i]) expect((golden[i] = tokenizer_open(path[i], &e)), "no golden");
    const u8 *end = data + size,
             *next = zero ? memmem(zero + 4, (size_t)(end - zero) - 4, cut, 4) : NULL;
    if (next)
        fuzz_file(data, zero - data, zero + 4, next - zero - 4, (const char *)next + 4,
                  end - next - 4);
    else if (zero)
        fuzz_file(NULL, 0, data, zero - data, (const char *)zero + 4, end - zero - 4);
    else
        for (int i = 0; i < 2; i++) round_trip(golden[i], (const char *)data, (i64)size, true);
    return 0;
}
