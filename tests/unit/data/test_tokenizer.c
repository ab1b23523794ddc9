/* test_tokenizer.c: ids and decoded texts against Hugging Face's library, for whole tokenizers and
 * for each component. */
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"
#include "tests/unit/data/tokenizer_files.h"

/* Each line either patches a tokenizer or is a case for it. */
static int check_goldens(const char *path) {
    struct golden g = {0};
    struct err e = {0};
    struct tokenizer *t = NULL;
    bool add = false;
    int cases = 0;
    char what[200] = "";
    assert_int_equal(0, file_read(&g.file, path, &e));
    for (json_t *j; (j = golden_next(&g)); json_decref(j)) {
        json_t *base = json_object_get(j, "base"), *patch = json_object_get(j, "patch");
        if (base) {
            tokenizer_free(t);
            struct text file = patched_tokenizer(json_string_value(base), patch);
            json_object_del(patch, "model"); /* long */
            char *shown = json_dumps(patch, JSON_COMPACT);
            snprintf(what, sizeof what, "%s %s", json_string_value(base), shown);
            free(shown);
            t = open_text(&file, &e);
            if (!t) fail_msg("%s: %s", what, e.primary);
            add = json_is_true(json_object_get(j, "add"));
        } else {
            check_case(t, j, add, what);
            cases++;
        }
    }
    tokenizer_free(t);
    text_free(&g.file);
    return cases;
}

static void test_goldens(void **state) {
    (void)state;
    assert_in_range(check_goldens(GOLDEN "cases.jsonl"), 1500, 4000);
    assert_in_range(check_goldens(GOLDEN "random.jsonl"), 800, 4000);
    assert_in_range(check_goldens(GOLDEN "offsets.jsonl"), 100, 200);
}

/* Where the library's offsets are not ours, or it has none. */
static void test_offsets(void **state) {
    (void)state;
    static const struct {
        const char *base, *patch, *text;
        struct span want[8]; /* of the first tokens */
    } rows[] = {
        {"gpt2", "{}", "a\xff\xe4\xbd!", {{0, 1}, {1, 2}, {1, 2}, {1, 2}, {2, 4}}},
        {"qwen2", "{'normalizer': {'type': 'NFC'}}", "e\u0301a", {{0, 3}, {0, 3}, {3, 4}}},
        {"qwen2",
         "{'normalizer': {'type': 'Replace', 'pattern': {'Regex': 'ee'}, 'content': 'z'}}",
         "seek",
         {{0, 1}, {1, 3}, {3, 4}}},
        {"qwen2", "{'normalizer': {'type': 'NFD'}}", "\u00e9a", {{0, 2}, {0, 2}, {0, 2}, {2, 3}}},
        {"qwen2",
         "{'normalizer': {'type': 'Sequence', 'normalizers': [{'type': 'Strip', 'strip_left': true,"
         " 'strip_right': true}, {'type': 'Lowercase'}]}}",
         "  A\u00c9 ",
         {{2, 3}, {3, 5}, {3, 5}}},
    };
    struct err e = {0};
    for (int k = 0; k < COUNT(rows); k++) {
        char patch[300];
        snprintf(patch, sizeof patch, "%s", rows[k].patch);
        for (char *c = patch; (c = strchr(c, '\'')); c++) *c = '"';
        json_t *j = json_loads(patch, 0, NULL);
        struct text file = patched_tokenizer(rows[k].base, j);
        struct tokenizer *t = open_text(&file, &e);
        struct ids ids = {0};
        struct spans got = {0};
        assert_non_null(t);
        assert_int_equal(0, tokenizer_encode_offsets(t, rows[k].text, (i64)strlen(rows[k].text),
                                                     true, &ids, &got, &e));
        for (i64 i = 0; i < got.count && rows[k].want[i].end; i++)
            if (memcmp(&got.item[i], &rows[k].want[i], sizeof *got.item))
                fail_msg("row %d: token %d comes from [%d, %d)", k, (int)i, (int)got.item[i].begin,
                         (int)got.item[i].end);
        ids_free(&ids), spans_free(&got), tokenizer_free(t), json_decref(j);
    }
}

/* The recorded words, by the scanner where there is one and by PCRE2. */
static void test_words(void **state) {
    (void)state;
    struct golden g = {0};
    struct err e = {0};
    struct pattern p[2] = {0};
    void *scratch = NULL;
    assert_int_equal(0, file_read(&g.file, GOLDEN "words.jsonl", &e));
    for (json_t *j; (j = golden_next(&g)); json_decref(j)) {
        const char *pattern = json_string_value(json_object_get(j, "pattern"));
        const json_t *text = json_object_get(j, "text"), *words = json_object_get(j, "words");
        for (int k = 0; k < 2; k++) {
            if (pattern) {
                pattern_free(&p[k]);
                assert_int_equal(0, pattern_compile(&p[k], pattern, "test",
                                                    k ? PATTERN_COVER : PATTERN_REGEX, &e));
                continue;
            }
            struct search s = {.text = json_string_value(text),
                               .size = (i64)json_string_length(text),
                               .scratch = &scratch};
            i64 begin, end;
            for (size_t i = 0; i < json_array_size(words); i++) {
                assert_int_equal(1, pattern_next(&p[k], &s, &begin, &end, &e));
                assert_int_equal(end - begin, json_integer_value(json_array_get(words, i)));
            }
            assert_int_equal(0, pattern_next(&p[k], &s, &begin, &end, &e));
        }
    }
    for (int k = 0; k < 2; k++) pattern_free(&p[k]);
    scratch_free(scratch);
    text_free(&g.file);
}

/* The next word: a match, or with gaps what lies before it. */
static i64 word_end(const struct pattern *p, struct search *s, i64 from, i64 waiting[2]) {
    struct err e = {0};
    if (waiting[1] <= from) {
        int found = pattern_next(p, s, &waiting[0], &waiting[1], &e);
        if (found <= 0) return s->size;
    }
    return waiting[0] > from ? waiting[0] : waiting[1];
}

static i64 random_text(const struct rng *rng, u64 *draw, char *text) {
    static const char *const common = " \n\r\t'sStTdDmMrReEvVlL19a.,  /A$";
    i64 size = 0;
    u32 x[4];
    for (int n = 0; n < 24; n++) {
        rng_block(rng, (*draw)++, x);
        u32 code = x[0] % 4   ? (u8)common[x[1] % 31]
                   : x[2] % 3 ? x[1] % 0x3100
                   : x[1] % 2 ? x[1] % 0x10000
                              : 0x20000 + x[1] % 0xa000;
        if (code == 0xcf3 || code == 0xece)
            code = 0x17f; /* of Unicode 15, which PCRE2 10.42 has not */
        if (code >= 0xd800 && code < 0xe000) code = 0x17f;
        size += utf8_put(code, text + size);
    }
    return size;
}

/* Random text: each scanner cuts as PCRE2 does. */
static void test_scanners_equal_pcre2(void **state) {
    (void)state;
    static const char *const patterns[] = {
        pattern_gpt2,      pattern_llama3,           pattern_qwen2,
        pattern_o200k,     pattern_tekken,           pattern_kimi,
        pattern_deepseek3, pattern_deepseek3_digits, pattern_deepseek3_cjk};
    struct rng rng = {.seed = 3, .purpose = RNG_TEST};
    struct err e = {0};
    void *scratch = NULL;
    u64 draw = 0;
    for (int k = 0; k < COUNT(patterns); k++) {
        struct pattern fast = {0}, slow = {0};
        assert_int_equal(0, pattern_compile(&fast, patterns[k], "test", PATTERN_GAPS, &e));
        assert_int_equal(0, pattern_compile(&slow, patterns[k], "test", PATTERN_REGEX, &e));
        assert_non_null(fast.scan);
        assert_non_null(slow.regex);
        for (int round = 0; round < 12000; round++) {
            char text[200];
            i64 size = random_text(&rng, &draw, text), waiting[2] = {0};
            struct search s = {.text = text, .size = size, .scratch = &scratch};
            for (i64 at = 0, end; at < size; at = end) {
                end = fast.scan(text, size, at);
                i64 want = word_end(&slow, &s, at, waiting);
                if (end != want)
                    fail_msg("pattern %d, \"%.*s\": a word from %d ends at %d, not %d", k,
                             (int)size, text, (int)at, (int)end, (int)want);
            }
        }
        pattern_free(&fast);
        pattern_free(&slow);
    }
    scratch_free(scratch);
}

/* A word of a megabyte goes through the heap in near-linear time and gives what short pieces give.
 */
static void test_long_words(void **state) {
    (void)state;
    struct err e = {0};
    struct tokenizer *t = tokenizer_open(GOLDEN "llama3.json", &e);
    assert_non_null(t);
    i64 size = 1 << 20;
    char *text = mem_new(size, &e);
    for (i64 i = 0; i < size; i++) text[i] = "thekingand"[i % 10];
    struct ids ids = {0}, part = {0};
    double start = clock_seconds();
    assert_int_equal(0, tokenizer_encode(t, text, size, false, &ids, &e));
    assert_true(clock_seconds() - start < 20);
    struct text back = {0};
    assert_int_equal(0, tokenizer_decode(t, ids.item, ids.count, false, &back, &e));
    assert_int_equal(back.size, size);
    assert_memory_equal(back.data, text, (size_t)size);
    assert_int_equal(
        0, tokenizer_encode(t, text, 90, false, &part, &e)); /* short: the other algorithm */
    assert_memory_equal(part.item, ids.item, (size_t)(part.count - 5) * 4);
    ids_free(&ids);
    ids_free(&part);
    text_free(&back);
    mem_free(text);
    tokenizer_free(t);
}

struct job {
    const struct tokenizer *t;
    const struct text *corpus;
    struct ids ids;
};

static void *encode_thread(void *arg) {
    struct job *j = arg;
    struct err e = {0};
    for (int i = 0; i < 3; i++) {
        j->ids.count = 0;
        if (tokenizer_encode(j->t, j->corpus->data, j->corpus->size, true, &j->ids, &e)) return arg;
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    struct err e = {0};
    struct text corpus;
    assert_int_equal(0, file_read(&corpus, GOLDEN "corpus.txt", &e));
    struct tokenizer *t = tokenizer_open(GOLDEN "gpt2.json", &e);
    struct job job[4];
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) {
        job[i] = (struct job){t, &corpus, {0}};
        assert_int_equal(0, pthread_create(&thread[i], NULL, encode_thread, &job[i]));
    }
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(thread[i], &failed);
        assert_null(failed);
        assert_int_equal(job[i].ids.count, job[0].ids.count);
        assert_memory_equal(job[i].ids.item, job[0].ids.item, (size_t)job[0].ids.count * 4);
    }
    for (int i = 0; i < 4; i++) ids_free(&job[i].ids);
    tokenizer_free(t);
    text_free(&corpus);
}

/* Begin and end of text: by the companion files, else by well-known names among the special tokens.
 */
static void test_special_names(void **state) {
    (void)state;
    struct err e = {0};
    struct tokenizer *t = tokenizer_open(GOLDEN "stories260K.json", &e);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_int_equal(tokenizer_size(t), 512);
    assert_int_equal(tokenizer_id(t, "▁the"), 265);
    assert_int_equal(tokenizer_id(t, "nonsense"), -1);
    assert_string_equal(tokenizer_path(t), GOLDEN "stories260K.json");
    assert_int_equal(strlen(tokenizer_sha256(t)), 64);
    tokenizer_free(t);

    char *folder = temporary_folder(), file[256];
    struct text json;
    assert_int_equal(0, file_read(&json, GOLDEN "stories260K.json", &e));
    snprintf(file, sizeof file, "%s/tokenizer.json", folder);
    assert_int_equal(0, file_write(file, json.data, json.size, &e));
    snprintf(file, sizeof file, "%s/tokenizer_config.json", folder);
    static const char config[] = "{\"bos_token\": null, \"eos_token\": {\"content\": \"<unk>\"}}";
    assert_int_equal(0, file_write(file, config, sizeof config - 1, &e));
    snprintf(file, sizeof file, "%s/config.json", folder);
    static const char model[] = "{\"bos_token_id\": 7, \"eos_token_id\": [2, 3]}";
    assert_int_equal(0, file_write(file, model, sizeof model - 1, &e));
    assert_non_null(t = tokenizer_open(folder, &e));
    assert_int_equal(tokenizer_bos(t), 7);
    assert_int_equal(tokenizer_eos(t), 0);
    tokenizer_free(t);

    static const char wrong[] = "{\"eos_token\": \"<stop>\"}";
    snprintf(file, sizeof file, "%s/tokenizer_config.json", folder);
    assert_int_equal(0, file_write(file, wrong, sizeof wrong - 1, &e));
    assert_null(tokenizer_open(folder, &e));
    assert_non_null(strstr(e.primary, "eos_token \"<stop>\" is not in "));
    assert_int_equal(0, dir_remove(folder, &(struct err){0}));
    free(folder);
    text_free(&json);
}

static void test_decode_unknown_id(void **state) {
    (void)state;
    struct err e = {0};
    struct tokenizer *t = tokenizer_open(GOLDEN "stories260K.json", &e);
    struct text out = {0};
    assert_int_equal(-1, tokenizer_decode(t, (u32[]){5, 512}, 2, false, &out, &e));
    assert_string_equal(e.primary,
                        GOLDEN "stories260K.json: no token has id 512 (number 1 of the sequence)");
    text_free(&out);
    tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),       cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_words),         cmocka_unit_test(test_scanners_equal_pcre2),
        cmocka_unit_test(test_long_words),    cmocka_unit_test(test_threads),
        cmocka_unit_test(test_special_names), cmocka_unit_test(test_decode_unknown_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
