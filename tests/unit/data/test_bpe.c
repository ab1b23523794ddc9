/* test_bpe.c: the trainer writes, byte for byte, what Hugging Face's BpeTrainer writes for the same
 * text; its errors. */
#include "tests/unit/data/tokenizer_files.h"

static const char *const special[] = {"<|endoftext|>"};
static const char *const corpus[] = {GOLDEN "corpus.txt"};

static struct bpe_training job_for(const char *pattern, i64 vocab_size) {
    return (struct bpe_training){pattern, vocab_size, special, 1, corpus, 1, source_texts};
}

static void assert_same_file(const char *a, const char *b) {
    struct err e = {0};
    struct text x, y;
    assert_int_equal(0, file_read(&x, a, &e) | file_read(&y, b, &e));
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, (size_t)x.size);
    text_free(&x);
    text_free(&y);
}

static void test_same_as_hugging_face(void **state) {
    (void)state;
    static const char *const patterns[] = {"gpt2", "llama3", "qwen2"};
    char *folder = temporary_folder(), path[200], golden[200];
    struct err e = {0};
    for (int i = 0; i < 3; i++) {
        struct bpe_training job = job_for(patterns[i], 600);
        snprintf(path, sizeof path, "%s/%s.json", folder, patterns[i]);
        snprintf(golden, sizeof golden, GOLDEN "%s.json", patterns[i]);
        assert_int_equal(0, bpe_train(&job, path, &e));
        assert_same_file(path, golden);
    }
    struct bpe_training olmo = job_for("olmo2", 600);
    assert_int_equal(0, bpe_train(&olmo, path, &e));
    assert_same_file(path, GOLDEN "llama3.json");
    assert_int_equal(0, dir_remove(folder, &e));
    free(folder);
}

/* The same text as JSON lines, in two files, trains the same tokenizer. Words that lines would cut
 * are avoided. */
static void test_jsonl(void **state) {
    (void)state;
    char *folder = temporary_folder(), path[4][200];
    struct err e = {0};
    const char *const data[] = {
        "low low lower lowest",
        "{\"text\": \"low low lower\"}\n\n{\"id\": 1, \"text\": \" lowest\"}"};
    const char *const name[] = {"a.txt", "b.jsonl", "a.json", "b.json"};
    for (int i = 0; i < 4; i++) snprintf(path[i], sizeof path[i], "%s/%s", folder, name[i]);
    for (int i = 0; i < 2; i++) {
        const char *file = path[i];
        struct bpe_training job = {"gpt2", 260, NULL, 0, &file, 1, source_texts};
        assert_int_equal(0, file_write(path[i], data[i], (i64)strlen(data[i]), &e));
        if (bpe_train(&job, path[i + 2], &e)) fail_msg("%s", e.primary);
    }
    assert_same_file(path[2], path[3]);
    struct tokenizer *t = tokenizer_open(path[2], &e);
    assert_int_equal(tokenizer_id(t, "low"), 257); /* l o, lo w, Ġ low, then low e (Ġlow e) */
    assert_int_equal(tokenizer_size(t), 260);
    tokenizer_free(t);
    assert_int_equal(0, dir_remove(folder, &e));
    free(folder);
}

static void expect_error(struct bpe_training job, const char *message) {
    struct err e = {0};
    assert_int_equal(-1, bpe_train(&job, "/tmp/hone-never-written.json", &e));
    assert_false(path_exists("/tmp/hone-never-written.json"));
    if (strcmp(e.primary, message)) fail_msg("\"%s\"", e.primary);
}

static void test_errors(void **state) {
    (void)state;
    static const char *const twice[] = {"<a>", "<a>"}, *const missing[] = {"/nonexistent/text.txt"};
    struct bpe_training job = job_for("gpt4", 600);
    expect_error(job, "pattern is \"gpt4\"; expected gpt2, llama3, olmo2 or qwen2");
    job = job_for("gpt2", 256);
    expect_error(job,
                 "vocab_size is 256; expected 257 (256 bytes and the special tokens) to 4194304");
    job = job_for("gpt2", 100000);
    expect_error(job, "the texts give only 5099 tokens, but vocab_size is 100000");
    job = job_for("gpt2", 600);
    job.special_tokens = twice;
    job.special_tokens_count = 2;
    expect_error(job, "special tokens: token \"<a>\" has two ids, 0 and 1");
    job = job_for("gpt2", 600);
    job.files = missing;
    expect_error(job, "cannot open /nonexistent/text.txt: No such file or directory");
}

static void test_no_memory(void **state) {
    (void)state;
    char *folder = temporary_folder(), path[200], spec[32];
    bool done = false;
    snprintf(path, sizeof path, "%s/t.json", folder);
    for (int n = 1; !done; n += 1 + n / 4) {
        struct err e = {0};
        struct bpe_training job = job_for("gpt2", 300);
        snprintf(spec, sizeof spec, "alloc:%d", n);
        assert_int_equal(0, fault_arm(spec));
        done = !bpe_train(&job, path, &e);
        fault_arm(NULL);
        assert_int_equal(path_exists(path), done);
        assert_int_equal(e.code, done ? 0 : ERR_FAILED);
    }
    assert_int_equal(0, dir_remove(folder, &(struct err){0}));
    free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_hugging_face),
        cmocka_unit_test(test_jsonl),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
