/* test_prefixes.c: what the beginnings of a text encode to, found in linear time, is what encoding
 * each of them from its start gives: for whole tokenizers, all the random ones of the goldens, and
 * texts that are cut everywhere. */
#include "data/tokenizers/tokenizers_int.h"
#include "tests/unit/data/tokenizer_files.h"

enum { BYTES = 2500, CUTS = 60 };

/* What scanners, added tokens and normalizers look at, and much that reads like a conversation. */
static const char *const parts[] = {" the",
                                    " and",
                                    "\n",
                                    ">\n<b>user",
                                    ">\n/x",
                                    ">\n\n<",
                                    "A \nB",
                                    "1\n2",
                                    ".\n\u0301",
                                    "\nuser",
                                    "assistant\n",
                                    " ",
                                    "  ",
                                    "\t",
                                    "\r\n",
                                    "'re",
                                    "'s",
                                    "'",
                                    "I'LL",
                                    "x1",
                                    "123",
                                    "4",
                                    "<s>",
                                    "</s>",
                                    "<unk>",
                                    "<mask>",
                                    "<|endoftext|>",
                                    "<|im_end|>",
                                    "<|",
                                    "|>",
                                    "/\n/",
                                    "...",
                                    ". ",
                                    "\u00e9",
                                    "e\u0301",
                                    "\u0301",
                                    "\u4e2d\u6587",
                                    " \u4e2d",
                                    "\u3042A",
                                    "XaX",
                                    "K\u00e4se",
                                    "\u2581",
                                    "\u2581a",
                                    "\u00a0",
                                    "\u3000",
                                    "\U0001f600",
                                    "king",
                                    "##ing",
                                    "[MASK]",
                                    "a \u0301b",
                                    "\u0130 ",
                                    "z\u00ad "};

static u32 draw(u32 below) {
    static const struct rng r = {7, RNG_TEST, 0, 0};
    static u64 at;
    return (u32)(rng_uniform(&r, at++) * (float)below);
}

static void compare(const struct tokenizer *t, const char *text, i64 size, const char *what,
                    int *fast) {
    const struct encoder c = encoder_of(t);
    struct err e = {0};
    struct ids all = {0}, part = {0};
    struct beginning list[CUTS];
    assert_int_equal(c.encode(c.arg, text, size, &all, &e), 0);
    for (int i = 0; i < CUTS; i++) {
        i64 at = i ? draw((u32)size + 1) : size;
        while (at < size && (text[at] & 0xc0) == 0x80) at--;
        list[i] = (struct beginning){.at = at};
    }
    const bool good = c.prefixes(c.arg, text, size, &all, list, CUTS, &e);
    assert_int_equal(e.code, 0);
    *fast += good;
    for (int i = 0; good && i < CUTS; i++) {
        i64 n = 0;
        part.count = 0;
        assert_int_equal(c.encode(c.arg, text, list[i].at, &part, &e), 0);
        while (n < part.count && n < all.count && part.item[n] == all.item[n]) n++;
        if (n != list[i].same || (n < part.count) != list[i].more)
            fail_msg("%s: %d ids of the first %d bytes, more %d; expected %d and %d", what,
                     (int)list[i].same, (int)list[i].at, list[i].more, (int)n, n < part.count);
    }
    ids_free(&all), ids_free(&part);
}

static void try_tokenizer(const struct tokenizer *t, const char *what, int texts) {
    struct err e = {0};
    int fast = 0;
    for (int k = 0; k < texts; k++) {
        struct text text = {0};
        while (text.size < BYTES) {
            const char *p = parts[draw((u32)(k % 2 ? COUNT(parts) : 5))];
            if (k % 2 == 0 && !draw(6)) p = parts[draw((u32)COUNT(parts))];
            assert_int_equal(text_add(&text, p, (i64)strlen(p), &e), 0);
        }
        compare(t, text.data, text.size, what, &fast);
        text_free(&text);
    }
    if (fast < texts) fail_msg("%s: gives up on %d of %d texts", what, texts - fast, texts);
}

static void test_files(void **state) {
    (void)state;
    static const char *const name[] = {"gpt2.json", "llama3.json",      "qwen2.json",
                                       "bpe.model", "unigram.model",    "stories260K.json",
                                       "ranks",     "unigram-map.model"};
    for (int i = 0; i < COUNT(name); i++) {
        struct err e = {0};
        char path[100];
        snprintf(path, sizeof path, GOLDEN "%s", name[i]);
        struct tokenizer *t = tokenizer_open(path, &e);
        if (!t) fail_msg("%s", e.primary);
        try_tokenizer(t, path, 12);
        tokenizer_free(t);
    }
}

static void test_random(void **state) {
    (void)state;
    static const char *const file[] = {GOLDEN "cases.jsonl", GOLDEN "random.jsonl"};
    for (int i = 0; i < COUNT(file); i++) {
        struct golden g = {0};
        struct err e = {0};
        assert_int_equal(0, file_read(&g.file, file[i], &e));
        for (json_t *j; (j = golden_next(&g)); json_decref(j)) {
            const char *base = json_string_value(json_object_get(j, "base"));
            if (!base) continue;
            struct text json = patched_tokenizer(base, json_object_get(j, "patch"));
            struct tokenizer *t = open_text(&json, &e);
            assert_non_null(t);
            try_tokenizer(t, base, 2);
            tokenizer_free(t);
        }
        text_free(&g.file);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_files), cmocka_unit_test(test_random)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
