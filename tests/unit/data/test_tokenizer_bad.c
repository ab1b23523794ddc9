/* test_tokenizer_bad.c: tokenizer.json files that must be refused, each with its exact message; and
 * failing allocations. */
#include "tests/unit/data/tokenizer_files.h"

struct bad {
    const char *patch, *message; /* members to replace in gpt2.json; what is said after "FILE: " */
};

#define SPLIT(rest) "{\"pre_tokenizer\":{\"type\":\"Split\"," rest "}}"
#define ADDED(rest) "{\"added_tokens\":[{" rest "}]}"
#define POST(rest)  "{\"post_processor\":{\"type\":\"TemplateProcessing\"," rest "}}"

static const struct bad bad[] = {
    {"{\"normalizer\":{\"type\":\"Precompiled\"}}",
     "normalizer 'Precompiled': \"precompiled_charsmap\" must be text, but is nothing"},
    {"{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"A?==\"}}",
     "normalizer 'Precompiled': \"precompiled_charsmap\" is not base64"},
    {"{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"CAAAAAAA\"}}",
     "normalizer 'Precompiled': the character map of 6 bytes says that its trie has 8"},
    {"{\"normalizer\":{\"type\":\"Nmt\"}}", "normalizer 'Nmt' is not supported"},
    {"{\"normalizer\":7}", "normalizer must be an object, but is an integer"},
    {"{\"normalizer\":{\"type\":7}}", "normalizer: \"type\" must be text, but is an integer"},
    {"{\"normalizer\":{\"type\":\"Sequence\"}}", "normalizer: a Sequence without \"normalizers\""},
    {"{\"normalizer\":{\"type\":\"Prepend\"}}",
     "normalizer 'Prepend': \"prepend\" must be text, but is nothing"},
    {"{\"normalizer\":{\"type\":\"Replace\",\"content\":\"\"}}",
     "normalizer 'Replace': \"pattern\" must be {\"String\": ...} or {\"Regex\": ...}"},
    {"{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}",
     "pre_tokenizer 'UnicodeScripts' is not supported"},
    {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":\"yes\"}}",
     "pre_tokenizer 'ByteLevel': \"use_regex\" is \"yes\"; expected true or false"},
    {SPLIT("\"pattern\":{\"Regex\":\"a(b\"},\"behavior\":\"Isolated\""),
     "pre_tokenizer 'Split': the pattern \"a(b\" is not supported: missing closing parenthesis (at "
     "byte 3)"},
    {SPLIT("\"pattern\":{\"Regex\":\"[a\"},\"behavior\":\"Isolated\""),
     "pre_tokenizer 'Split': the pattern \"[a\" is not supported: a [ is not closed"},
    {SPLIT("\"pattern\":{\"Regex\":\"[\\\\W]{2}+\"},\"behavior\":\"Isolated\""),
     "pre_tokenizer 'Split': the pattern \"[\\W]{2}+\" is not supported: \\H or \\W in a class"},
    {SPLIT("\"pattern\":{\"String\":\"\"},\"behavior\":\"Isolated\""),
     "pre_tokenizer 'Split': the pattern is empty"},
    {SPLIT("\"pattern\":{\"String\":\"a\"},\"behavior\":\"Cut\""),
     "pre_tokenizer 'Split': unknown behavior \"Cut\""},
    {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}}",
     "pre_tokenizer 'Metaspace': \"replacement\" is \"ab\"; expected one character"},
    {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}"
     "}",
     "pre_tokenizer 'Metaspace': prepend_scheme is \"last\"; expected always, first or never"},
    {"{\"decoder\":{\"type\":\"CTC\"}}", "decoder 'CTC' is not supported"},
    {"{\"decoder\":{\"type\":\"Strip\",\"content\":\"_\",\"start\":-1}}",
     "decoder 'Strip': start and stop must not be negative"},
    {"{\"post_processor\":{\"type\":\"BertProcessing\"}}",
     "post_processor: \"cls\" is not [\"token\", id] with the id of a token"},
    {"{\"post_processor\":{\"type\":\"Magic\"}}", "post_processor 'Magic' is not supported"},
    {POST("\"single\":[]"), "post_processor: \"single\" does not hold the text A"},
    {POST("\"single\":[{\"Sequence\":{\"id\":\"B\"}}]"),
     "post_processor: piece 0 of \"single\" is neither a special token nor the text A"},
    {POST("\"single\":[{\"SpecialToken\":{\"id\":\"B\"}}]"),
     "post_processor: no ids for special token \"B\""},
    {POST("\"single\":[{\"SpecialToken\":{\"id\":\"B\"}}],\"special_tokens\":{\"B\":{\"ids\":[600]}"
          "}"),
     "post_processor: special token \"B\" has an id that no token has"},
    {ADDED("\"content\":\"x\""), "token \"x\" has id -1 in added_tokens, but 88 elsewhere"},
    {ADDED("\"content\":\"\",\"id\":600"), "added token 600 is empty"},
    {ADDED("\"content\":\"<new>\",\"id\":5"), "id 5 is used twice: by \"%\" and by \"<new>\""},
    {ADDED("\"content\":\"<new>\",\"id\":4194304"), "token \"<new>\" has id 4194304"},
    {ADDED("\"content\":\"<new>\",\"id\":\"5\""), "\"id\" is \"5\"; expected an integer"},
    {ADDED("\"content\":\"<new>\",\"id\":99999999999999999999"),
     "\"id\" is 1e+20; expected an integer"},
    {"{\"added_tokens\":{}}", "\"added_tokens\" must be an array, but is an object"},
    {"{\"added_tokens\":[3]}", "an added token must be an object, but is an integer"},
    {"{\"model.type\":\"Markov\"}", "model 'Markov' is not supported"},
    {"{\"model.type\":\"Unigram\"}", "model: \"vocab\" must be an array, but is an object"},
    {"{\"model.type\":\"Unigram\",\"model.vocab\":[[\"a\",0],[\"b\"]]}",
     "piece 1 is not [\"text\", score]"},
    {"{\"model.type\":\"Unigram\",\"model.vocab\":[[\"a\",0]],\"model.unk_id\":1}",
     "unk_id 1 is not in the vocabulary"},
    {"{\"model.type\":\"WordPiece\",\"model.max_input_chars_per_word\":\"x\"}",
     "\"max_input_chars_per_word\" is \"x\"; expected an integer"},
    {"{\"model.unk_token\":\"<unk>\"}", "unk_token \"<unk>\" is not in the vocabulary"},
    {"{\"model.fuse_unk\":3}", "\"fuse_unk\" is 3; expected true or false"},
    {"{\"model.vocab\":[]}", "model: \"vocab\" must be an object, but is an array"},
    {"{\"model.vocab\":{}}", "the vocabulary is empty"},
    {"{\"model.vocab\":{\"a\":1.5}}", "the id of token \"a\" must be an integer, but is a number"},
    {"{\"model.vocab\":{\"a\":-1}}", "token \"a\" has id -1"},
    {"{\"model.vocab\":{\"a\":1,\"b\":1}}", "id 1 is used twice: by \"a\" and by \"b\""},
    {"{\"model.merges\":null}", "model: \"merges\" must be an array, but is null"},
    {"{\"model.merges\":[[\"a\",\"b\"],[\"a\",\"nope\"]]}",
     "merge 0 names \"ab\", which is not in the vocabulary"},
    {"{\"model.merges\":[[\"h\",\"e\"],[\"t\",\"nope\"]]}",
     "merge 1 names \"nope\", which is not in the vocabulary"},
    {"{\"model.merges\":[\"h e\",\"a b c\"]}", "merge 1 is \"a b c\""},
    {"{\"model.merges\":[\"#version: 0.2\",\"h e\",[\"a\"]]}", "merge 1 is an array"},
    {"{\"model\":null}", "\"model\" must be an object, but is null"},
};

static void test_bad_members(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        json_t *patch = json_parse(bad[i].patch, (i64)strlen(bad[i].patch), "patch", &e);
        if (!patch) fail_msg("%s: %s", bad[i].patch, e.primary);
        struct text json = patched_tokenizer("gpt2", patch);
        json_decref(patch);
        assert_null(open_text(&json, &e));
        const char *said = strstr(e.primary, "tokenizer.json: ");
        if (!said || strcmp(said + 16, bad[i].message))
            fail_msg("%s: \"%s\"", bad[i].patch, e.primary);
        assert_int_equal(e.code, ERR_INPUT);
    }
}

static void test_bad_files(void **state) {
    (void)state;
    static const struct bad files[] = {
        {"", "tokenizer.json:1:0: "},
        {"[1]", "tokenizer.json: must hold an object, but holds an array"},
        {"{\"model\": {\"vocab\": {\"a\": 1,\n\"a\": 2}}}",
         "tokenizer.json:2:3: duplicate object key"},
        {"{\"model\": {\"vocab\": {\"a\": 1", "tokenizer.json:1:"},
        {"{\"model\": {\"vocab\": {\"\\ud800\": 1}}}", "tokenizer.json:1:"},
        {"{\"model\": {\"vocab\": {\"\xff\": 1}}}", "tokenizer.json:1:"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct err e = {0};
        struct text json = {0};
        assert_int_equal(0, text_add(&json, files[i].patch, (i64)strlen(files[i].patch), &e));
        assert_null(open_text(&json, &e));
        if (!strstr(e.primary, files[i].message)) fail_msg("\"%s\"", e.primary);
    }
    struct err e = {0};
    assert_null(tokenizer_open("/nonexistent/tokenizer.json", &e));
    assert_string_equal(e.primary,
                        "cannot open /nonexistent/tokenizer.json: No such file or directory");
}

/* Every prefix of a good file is refused, and nothing leaks or crashes. */
static void test_truncated(void **state) {
    (void)state;
    struct err e = {0};
    struct text whole;
    assert_int_equal(0, file_read(&whole, GOLDEN "stories260K.json", &e));
    for (i64 size = 0; size < whole.size - 2; size += 1 + whole.size / 97) {
        struct err error = {0};
        struct text part = {0};
        assert_int_equal(0, text_add(&part, whole.data, size, &e));
        assert_null(open_text(&part, &error));
        assert_int_equal(error.code, ERR_INPUT);
    }
    text_free(&whole);
}

/* Whichever allocation fails, the call says so and leaves the output as it was. */
static void test_no_memory(void **state) {
    (void)state;
    static const char text[] = "Once upon a time \xff there was <s> a \xe4\xbd\xa0 king.";
    bool done = false;
    char spec[32];
    int n;
    for (n = 1; !done; n += 1 + n / 8) {
        struct err e = {0};
        struct ids ids = {0};
        struct text out = {0};
        snprintf(spec, sizeof spec, "alloc:%d", n);
        assert_int_equal(0, fault_arm(spec));
        struct tokenizer *t = tokenizer_open(GOLDEN "stories260K.json", &e);
        done = t && !tokenizer_encode(t, text, sizeof text - 1, true, &ids, &e) &&
               !tokenizer_decode(t, ids.item, ids.count, true, &out, &e);
        fault_arm(NULL);
        assert_int_equal(e.code, done ? 0 : ERR_FAILED);
        if (!done) assert_non_null(strstr(e.primary, "out of memory"));
        if (t && !done && !out.data) assert_true(ids.count == 0 || ids.count > 10);
        ids_free(&ids);
        text_free(&out);
        tokenizer_free(t);
    }
    assert_in_range(n, 30, 5000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_members),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
