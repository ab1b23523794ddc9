/* test_tokenizer_files.c: tokenizers that are not a tokenizer.json: SentencePiece models and rank
 * files against what their libraries gave (files.jsonl), bare vocabularies against the same model's
 * tokenizer.json, and broken ones with their messages. */
#include "data/tokenizers/tokenizers_int.h"
#include "tests/unit/data/tokenizer_files.h"

static void test_files(void **state) {
    (void)state;
    struct golden g = {0};
    struct err e = {0};
    struct tokenizer *t = NULL;
    char path[200] = "";
    int cases = 0;
    assert_int_equal(0, file_read(&g.file, GOLDEN "files.jsonl", &e));
    for (json_t *j; (j = golden_next(&g)); json_decref(j)) {
        const char *file = json_string_value(json_object_get(j, "file"));
        if (file) {
            tokenizer_free(t);
            snprintf(path, sizeof path, GOLDEN "%s", file);
            t = tokenizer_open(path, &e);
            if (!t) fail_msg("%s: %s", path, e.primary);
            assert_int_equal(strlen(tokenizer_sha256(t)), 64);
        } else {
            check_case(t, j, false, path);
            cases++;
        }
    }
    tokenizer_free(t);
    text_free(&g.file);
    assert_in_range(cases, 300, 1000);
}

/* ---- bare vocabularies ----------------------------------------------------------------------- */
struct raw { /* a GPT-2 style tokenizer.json taken apart */
    json_t *json;
    struct bytes token[1000], merge[1000];
    char text[1000][100];
    struct tokenizer_parts parts;
};

static void take_apart(struct raw *r, const char *path) {
    struct err e = {0};
    json_t *model = json_object_get(r->json = json_open(path, &e), "model"), *id, *pair;
    const char *key;
    size_t i;
    json_object_foreach(json_object_get(model, "vocab"), key, id) {
        r->token[json_integer_value(id)] = (struct bytes){key, (i64)strlen(key)};
        r->parts.count++;
    }
    json_array_foreach(json_object_get(model, "merges"), i, pair) {
        int n = snprintf(r->text[i], sizeof r->text[i], "%s %s",
                         json_string_value(json_array_get(pair, 0)),
                         json_string_value(json_array_get(pair, 1)));
        r->merge[i] = (struct bytes){r->text[i], n};
        r->parts.merges_count++;
    }
    r->parts.name = "test.gguf", r->parts.model = "gpt2", r->parts.cut_added = true;
    r->parts.token = r->token, r->parts.merge = r->merge;
    r->parts.unk = r->parts.sep = r->parts.cls = -1;
}

static void test_parts_gpt2(void **state) {
    (void)state;
    static struct raw r;
    static i32 type[1000];
    struct err e = {0};
    struct text corpus;
    struct ids a = {0}, b = {0};
    take_apart(&r, GOLDEN "gpt2.json");
    for (i64 i = 0; i < r.parts.count; i++)
        type[i] = !strcmp(r.token[i].data, "<|endoftext|>") ? TOKEN_CONTROL : TOKEN_NORMAL;
    r.parts.type = type;
    struct tokenizer *t = tokenizer_from_parts(&r.parts, &e),
                     *whole = tokenizer_open(GOLDEN "gpt2.json", &e);
    if (!t) fail_msg("%s", e.primary);
    assert_int_equal(0, file_read(&corpus, GOLDEN "corpus.txt", &e));
    assert_int_equal(0, text_add(&corpus, "<|endoftext|>x", 14, &e));
    assert_int_equal(0, tokenizer_encode(t, corpus.data, corpus.size, false, &a, &e));
    assert_int_equal(0, tokenizer_encode(whole, corpus.data, corpus.size, false, &b, &e));
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.item, b.item, (size_t)a.count * 4);
    assert_int_equal(strlen(tokenizer_sha256(t)), 64);
    assert_int_equal(tokenizer_bos(t), 0);
    ids_free(&a), ids_free(&b), text_free(&corpus), json_decref(r.json);
    tokenizer_free(t), tokenizer_free(whole);
}

#define PART(s)                                                                                    \
    { s, sizeof s - 1 }
static const struct bytes bert_token[] = {PART("[UNK]"), PART("[CLS]"), PART("[SEP]"), PART("▁the"),
                                         PART("▁king"), PART("s"),     PART("▁,"),    PART("▁你")};

static void test_parts_bert(void **state) {
    (void)state;
    static const i32 type[] = {2, 3, 3, 1, 1, 1, 1, 1};
    static const u32 want[] = {1, 3, 4, 5, 6, 7, 0, 2};
    struct err e = {0};
    struct ids ids = {0};
    struct text text = {0};
    const struct tokenizer_parts p = {.name = "bert.gguf",
                                      .model = "bert",
                                      .count = COUNT(bert_token),
                                      .token = bert_token,
                                      .type = type,
                                      .cut_added = true,
                                      .bos = -1,
                                      .eos = -1,
                                      .cls = 1,
                                      .sep = 2};
    struct tokenizer *t = tokenizer_from_parts(&p, &e);
    if (!t) fail_msg("%s", e.primary);
    static const char in[] = "The Kings,你 queen";
    assert_int_equal(0, tokenizer_encode(t, in, sizeof in - 1, true, &ids, &e));
    assert_int_equal(ids.count, COUNT(want));
    assert_memory_equal(ids.item, want, sizeof want);
    assert_int_equal(0, tokenizer_decode(t, ids.item, ids.count, true, &text, &e));
    assert_string_equal(text.data, "the kings, 你");
    ids_free(&ids), text_free(&text), tokenizer_free(t);
}

static void test_bad_parts(void **state) {
    (void)state;
    static const float score[] = {0, 0};
    static const float nan_score[] = {0, __builtin_nanf("")};
    static const struct bytes ab[] = {PART("a"), PART("b")}, aa[] = {PART("a"), PART("a")},
                             wrong[] = {PART("ab")}, absent[] = {PART("a c")};
    static const i32 type[] = {1, 7};
    static const struct {
        struct tokenizer_parts p;
        const char *message;
    } bad[] = {
        {{.model = "rwkv", .token = ab, .count = 2}, "tokenizer model 'rwkv' is not supported"},
        {{.model = "gpt2", .token = aa, .count = 2}, "token \"a\" has two ids, 0 and 1"},
        {{.model = "gpt2", .token = ab, .count = 2, .pre = "chatty"},
         "pre-tokenizer 'chatty' is not supported"},
        {{.model = "gpt2", .token = ab, .count = 2, .type = type},
         "token 1 has type 7; expected 1 to 6"},
        {{.model = "gpt2", .token = ab, .count = 2, .merge = wrong, .merges_count = 1},
         "merge 0 is \"ab\"; expected two tokens"},
        {{.model = "gpt2", .token = ab, .count = 2, .merge = absent, .merges_count = 1},
         "merge 0 names \"c\", which is not in the vocabulary"},
        {{.model = "llama", .token = ab, .count = 2}, "there are no scores"},
        {{.model = "llama", .token = ab, .count = 2, .score = nan_score},
         "the score of token 1 is not a number"},
        {{.model = "tiktoken", .token = ab, .count = 2}, "not every byte has a rank"},
        {{.model = "llama", .count = 0, .score = score}, "the vocabulary is empty"},
        {{.model = "t5", .token = ab, .count = 2, .score = score, .charsmap = PART("xxxxyyyy")},
         "the character map of 8 bytes says that its trie has 2021161080"},
    };
    for (int i = 0; i < COUNT(bad); i++) {
        struct err e = {0};
        struct tokenizer_parts p = bad[i].p;
        p.name = "F";
        assert_null(tokenizer_from_parts(&p, &e));
        if (strncmp(e.primary, "F: ", 3) || strcmp(e.primary + 3, bad[i].message))
            fail_msg("%d: \"%s\"", i, e.primary);
        assert_int_equal(e.code, ERR_INPUT);
    }
}

/* ---- broken files ---------------------------------------------------------------------------- */
static struct tokenizer *open_bytes(const char *data, i64 size, struct err *e) {
    char *folder = temporary_folder(), path[100];
    snprintf(path, sizeof path, "%s/tokenizer.model", folder);
    assert_int_equal(0, file_write(path, data, size, &(struct err){0}));
    struct tokenizer *t = tokenizer_open(path, e);
    assert_int_equal(0, dir_remove(folder, &(struct err){0}));
    free(folder);
    return t;
}

static void test_bad_files(void **state) {
    (void)state;
    static const struct {
        const char *data;
        i64 size;
        const char *message;
    } bad[] = {
#define FILE_OF(s) s, sizeof s - 1
        {FILE_OF("\n\x05\n\x03"), "tokenizer.model: field 1 says 5 bytes, but 2 are left"},
        {FILE_OF("\n\x02\n\x03"), "tokenizer.model: field 1 says 3 bytes, but 0 are left"},
        {FILE_OF("\n\xff"), "tokenizer.model: a number is cut off"},
        {FILE_OF("\n\x02\n\x00"), "tokenizer.model: piece 0 is empty or no UTF-8"},
        {FILE_OF("\n\x03\n\x01\xff"), "tokenizer.model: piece 0 is empty or no UTF-8"},
        {FILE_OF("\n\x05\n\x01"
                 "a\x18\x09"),
         "tokenizer.model: piece 0 has type 9; expected 1 to 6"},
        {FILE_OF("\n\x03\n\x01"
                 "a"),
         "tokenizer.model: no piece is of the type UNKNOWN"},
        {FILE_OF("\n\x03\n\x01"
                 "a\x12\x02\x18\x04"),
         "tokenizer.model: SentencePiece model type 4 (char) is not supported"},
        {FILE_OF("\n\x03\n\x01"
                 "a\x0b"),
         "tokenizer.model: field 1 has wire type 3; this is no SentencePiece model"},
        {FILE_OF("YQ== 0\nYg=="),
         "tokenizer.model:2: \"Yg==\" is not a token in base64 and its rank"},
        {FILE_OF("YQ== 0\nYg== 0\n"), "tokenizer.model:2: rank 0 is used twice"},
        {FILE_OF("YQ== 0\nYg== 99999999999999999999\n"),
         "tokenizer.model:2: \"Yg== 99999999999999999999\" is not a token in base64 and its rank"},
        {FILE_OF("YQ== 0\nYg== 1\n"), "tokenizer.model: 2 ranks are of no tokenizer that is known"},
        {FILE_OF("\r\n\r\n"), "tokenizer.model: there are no ranks"},
    };
    for (int i = 0; i < COUNT(bad); i++) {
        struct err e = {0};
        assert_null(open_bytes(bad[i].data, bad[i].size, &e));
        if (!strstr(e.primary, bad[i].message)) fail_msg("%d: \"%s\"", i, e.primary);
        assert_int_equal(e.code, ERR_INPUT);
    }
}

/* A file with one byte changed opens or is refused with a message; what opens encodes. */
static void test_changed_bytes(void **state) {
    (void)state;
    static const char *const file[] = {"unigram.model", "bpe.model", "ranks/small.tiktoken"};
    static const char text[] = "the king <sep> \xff is  dead\n";
    struct rng rng = {.seed = 9, .purpose = RNG_TEST};
    struct err none = {0};
    for (int k = 0; k < COUNT(file); k++) {
        struct text whole;
        char path[200];
        snprintf(path, sizeof path, GOLDEN "%s", file[k]);
        assert_int_equal(0, file_read(&whole, path, &none));
        for (u64 i = 0; i < 120; i++) {
            struct err e = {0};
            struct ids ids = {0};
            u32 x[4];
            rng_block(&rng, i, x);
            char *at = &whole.data[x[0] % (i % 2 ? whole.size : 200)], was = *at;
            *at = (char)x[1];
            struct tokenizer *t = open_bytes(whole.data, whole.size, &e);
            assert_int_equal(!t, e.code != 0);
            if (t && tokenizer_encode(t, text, sizeof text - 1, false, &ids, &e))
                assert_int_not_equal(e.code, 0);
            *at = was;
            tokenizer_free(t), ids_free(&ids);
        }
        text_free(&whole);
    }
}

/* In a model folder control tokens and user-defined symbols are cut out first, and the folder says
 * what goes around the text. */
static void test_model_folder(void **state) {
    (void)state;
    struct err e = {0};
    struct text model;
    struct ids ids = {0};
    char *folder = temporary_folder(), path[100];
    static const char config[] = "{\"add_bos_token\": false, \"add_eos_token\": true,"
                                 "\"added_tokens_decoder\": {\"600\": {\"content\": \"<new>\"}}}";
    assert_int_equal(0, file_read(&model, GOLDEN "bpe.model", &e));
    snprintf(path, sizeof path, "%s/tokenizer.model", folder);
    assert_int_equal(0, file_write(path, model.data, model.size, &e));
    assert_true(tokenizer_exists(folder));
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    assert_int_equal(0, file_write(path, config, sizeof config - 1, &e));
    struct tokenizer *t = tokenizer_open(folder, &e);
    if (!t) fail_msg("%s", e.primary);
    assert_int_equal(0, tokenizer_encode(t, "<s>the<sep><new>", 16, true, &ids, &e));
    const u32 want[] = {1, (u32)tokenizer_id(t, "▁the"), (u32)tokenizer_id(t, "<sep>"), 600, 2};
    assert_int_equal(ids.count, COUNT(want));
    assert_memory_equal(ids.item, want, sizeof want);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_int_equal(0, dir_remove(folder, &(struct err){0}));
    ids_free(&ids), text_free(&model), tokenizer_free(t), free(folder);
}

static void test_no_memory(void **state) {
    (void)state;
    static const char *const file[] = {"unigram.model", "bpe.model", "ranks"};
    for (int k = 0; k < COUNT(file); k++) {
        bool done = false;
        char path[200], spec[32];
        snprintf(path, sizeof path, GOLDEN "%s", file[k]);
        for (int n = 1; !done; n += 1 + n / 8) {
            struct err e = {0};
            struct ids ids = {0};
            snprintf(spec, sizeof spec, "alloc:%d", n);
            assert_int_equal(0, fault_arm(spec));
            struct tokenizer *t = tokenizer_open(path, &e);
            done = t && !tokenizer_encode(t, "the king \xff", 10, true, &ids, &e);
            fault_arm(NULL);
            assert_int_equal(e.code, done ? 0 : ERR_FAILED);
            tokenizer_free(t), ids_free(&ids);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),        cmocka_unit_test(test_parts_gpt2),
        cmocka_unit_test(test_parts_bert),   cmocka_unit_test(test_bad_parts),
        cmocka_unit_test(test_bad_files),    cmocka_unit_test(test_changed_bytes),
        cmocka_unit_test(test_model_folder), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
