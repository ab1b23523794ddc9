/* test_rows_run.c: what rows mean, from a recipe to tokens: columns of each data set, the day of a
 * chat template in the lock, bos, and recipes of version 1. */
#include "tests/e2e/tiny_run.h"

static const char dated[] =
    "{{ strftime_now('%Y-%m-%d %H:%M') }}{% for m in messages %}<{{ m.role }}>"
    "{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";
static const char rows[] =
    "{\"messages\": [{\"role\": \"Human\", \"content\": \"hi\"}, {\"role\": \"GPT\", \"content\": "
    "\"yo\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"and\"}, {\"role\": \"Zed\", \"content\": "
    "\"so\"}]}\n";

static void recipe_put(const char *name, const char *data) {
    struct text t = {0};
    struct err e = {0};
    assert_int_equal(
        text_printf(&t, &e,
                    "model_name_or_path: recipes/data/stories260K\n%s\npacking: false\n"
                    "max_seq_length: 96\nmicro_batch_size: 1\nmax_steps: 2\nsave_steps: "
                    "1\nlearning_rate: 1e-3\n",
                    data),
        0);
    put(at("%s", name), t.data, t.size);
    text_free(&t);
}

/* The day on which a run began is what it is made again with, whatever the clock says. */
static void test_day(void **state) {
    (void)state;
    char data[1024];
    put(at("day.jinja"), dated, sizeof dated - 1), put(at("r.jsonl"), rows, sizeof rows - 1);
    snprintf(data, sizeof data, "dataset: %s\nchat_template: %s\non_bad_row: skip", at("r.jsonl"),
             at("day.jinja"));
    recipe_put("day.yaml", data);
    assert_int_equal(shell("SOURCE_DATE_EPOCH=1700000000 ./hone train %s output_dir=%s",
                           at("day.yaml"), at("a")),
                     0);
    expect(complained(), "left out: a message has the unknown role 'Zed' (1 time, line 2)");
    expect(text_of(at("a/recipe.lock")), "\"template_date\": \"2023-11-1");
    /* another day, by the lock; and the same day by the key */
    assert_int_equal(shell("SOURCE_DATE_EPOCH=1760000000 ./hone train %s output_dir=%s",
                           at("a/recipe.lock"), at("b")),
                     0);
    logs_equal(at("a"), at("b"));
    assert_int_equal(shell("SOURCE_DATE_EPOCH=1760000000 ./hone train %s output_dir=%s",
                           at("day.yaml"), at("c")),
                     0);
    expect(text_of(at("c/recipe.lock")), "\"template_date\": \"2025-10-0");
    struct log_rows a = log_of(at("a")), c = log_of(at("c"));
    assert_string_not_equal(a.row[0].batch, c.row[0].batch);
    log_rows_free(&a), log_rows_free(&c);
    hone(0, "train %s output_dir=%s max_steps=3 resume_from_checkpoint=auto --quiet",
         at("day.yaml"), at("a"));
    hone(0, "verify %s --replay --threads 1", at("b"));
    hone(0, "train %s output_dir=%s template_date=2001-02-03 --quiet", at("day.yaml"), at("d"));
    hone(2, "train %s output_dir=%s template_date=2001-02-30 --quiet", at("day.yaml"), at("e"));
    expect(complained(), "template_date: there is no day '2001-02-30'");
    hone(2, "train %s output_dir=%s on_bad_row=error --quiet", at("day.yaml"), at("e"));
    expect(complained(), "r.jsonl:2: message 2 has the unknown role 'Zed'");
}

static void test_columns(void **state) {
    (void)state;
    static const char qa[] = "{\"question\": \"hi\", \"answer\": \"yo\", \"id\": 1}\n",
                      pr[] = "{\"ask\": \"hi\", \"say\": \"yo\"}\n";
    char data[2048];
    put(at("qa.jsonl"), qa, sizeof qa - 1), put(at("pr.jsonl"), pr, sizeof pr - 1);
    snprintf(data, sizeof data,
             "task: sft\nchat_template: alpaca\nenable_thinking: true\n"
             "columns: {prompt: ask, completion: say}\ndataset:\n"
             "  - {path: %s, columns: {instruction: question, output: answer}}\n  - path: %s",
             at("qa.jsonl"), at("pr.jsonl"));
    recipe_put("columns.yaml", data);
    hone(0, "train %s output_dir=%s", at("columns.yaml"), at("k"));
    expect(complained(), "note: column 'id' of ");
    expect(complained(),
           "'enable_thinking' of chat_template_kwargs is not used: the chat template");
    hone(0, "inspect %s --tokens 60 --tokenizer recipes/data/stories260K", at("k/data/train-1.h5"));
    expect(text_of(at("k/recipe.lock")), "\"prompt=ask\"");
    hone(0, "train %s output_dir=%s --quiet", at("k/recipe.lock"), at("l"));
    logs_equal(at("k"), at("l"));
    hone(0, "train %s output_dir=%s max_steps=3 resume_from_checkpoint=auto --quiet",
         at("columns.yaml"), at("k"));
    hone(2, "train %s output_dir=%s columns=promt=ask --quiet", at("columns.yaml"), at("m"));
    expect(complained(), "columns: 'promt' is not what a column can be for");
    hone(2, "tokenize %s --tokenizer recipes/data/stories260K --output %s", at("qa.jsonl"),
         at("q.h5"));
    expect(complained(), "columns: {instruction: question, output: answer}");
    hone(0,
         "tokenize %s --tokenizer recipes/data/stories260K --output %s --columns "
         "prompt=question,completion=answer",
         at("qa.jsonl"), at("q.h5"));
    expect(complained(), "note: column 'id' of ");
}

/* Text rows begin as `hone generate` begins; a recipe of version 1 has what it had. */
static void test_bos(void **state) {
    (void)state;
    static const char text[] = "{\"text\": \"Once upon a time\"}\n";
    char data[1024];
    put(at("t.jsonl"), text, sizeof text - 1);
    snprintf(data, sizeof data, "dataset: %s", at("t.jsonl"));
    recipe_put("bos.yaml", data);
    hone(0, "train %s output_dir=%s --quiet", at("bos.yaml"), at("n"));
    hone(0, "inspect %s", at("n/data/train-0.h5"));
    expect(said(), "tokens      6 ");
    hone(0, "train %s output_dir=%s recipe_version=1 --quiet", at("bos.yaml"), at("o"));
    hone(0, "inspect %s", at("o/data/train-0.h5"));
    expect(said(), "tokens      5 ");
    static const char *const flags[][2] = {{"", "6 tokens"},
                                           {"--add-bos=false", "5 tokens"},
                                           {"--add-bos --add-eos=false", "5 tokens"}};
    for (int i = 0; i < COUNT(flags); i++) {
        hone(0, "tokenize %s --tokenizer recipes/data/stories260K --output %s %s", at("t.jsonl"),
             at("t.h5"), flags[i][0]);
        expect(said(), flags[i][1]);
    }
}

static i64 documents_of(const char *path) {
    struct err e = {0};
    struct dataset *d = dataset_open(path, &e);
    if (!d) fail_msg("%s", e.primary);
    const i64 count = dataset_info(d)->documents;
    return dataset_close(d), count;
}

/* Rows that are too short or there already are in neither part; a run says so once, and its lock
 * gives the same run. */
static void test_left_out(void **state) {
    (void)state;
    enum { ROWS = 60, KINDS = 20 };
    struct text t = {0};
    struct err e = {0};
    char data[1024];
    for (int i = 0; i < ROWS; i++)
        if (text_printf(&t, &e, "{\"instruction\": \"say %d\", \"output\": \"it is %d\"}\n",
                        i % KINDS, i % KINDS))
            fail_msg("%s", e.primary);
    if (text_printf(&t, &e, "{\"instruction\": \"\", \"output\": \"x\", \"id\": 1}\n"))
        fail_msg("%s", e.primary);
    put(at("w.jsonl"), t.data, t.size);
    text_free(&t);
    snprintf(data, sizeof data,
             "task: sft\ndataset: [{path: %s, prompt_style: alpaca}]\nval_set_size: 0.3\n"
             "dataset_exact_deduplication: true\nmin_sample_len: 3",
             at("w.jsonl"));
    recipe_put("left.yaml", data);
    hone(0, "train %s output_dir=%s max_seq_length=300", at("left.yaml"), at("p"));
    expect(complained(), "that are there already");
    const i64 train = documents_of(at("p/data/train-0.h5")),
              eval = documents_of(at("p/data/eval-0.h5"));
    assert_int_equal(train + eval, KINDS + 1);
    assert_true(train > eval && eval > 0);
    hone(0, "train %s output_dir=%s --quiet", at("p/recipe.lock"), at("r"));
    logs_equal(at("p"), at("r"));
    hone(2,
         "train %s output_dir=%s max_seq_length=300 max_steps=3 min_sample_len=4 "
         "resume_from_checkpoint=auto --quiet",
         at("left.yaml"), at("p"));
    expect(complained(), "cannot resume: 'min_sample_len' was 3 when the run began and is 4 now");
    hone(0,
         "train %s output_dir=%s max_seq_length=300 max_steps=3 resume_from_checkpoint=auto "
         "--quiet",
         at("left.yaml"), at("p"));
    hone(0,
         "tokenize %s --tokenizer recipes/data/stories260K --prompt-style alpaca --output %s "
         "--dataset-exact-deduplication --min-sample-len 3 --completion-only-loss",
         at("w.jsonl"), at("w.h5"));
    expect(complained(), "left out: 40 documents that are there already");
    expect(said(), " tokens in 21 documents");
    hone(2, "tokenize %s --tokenizer recipes/data/stories260K --output %s --min-sample-len 900",
         at("w.jsonl"), at("w.h5"));
    expect(complained(), "left out: 61 documents of fewer than 900 tokens");
    expect(complained(), " gives none that is not empty or left out");
}

/* A built-in template needs its markers. */
static void test_markers(void **state) {
    (void)state;
    hone(2, "tokenize %s --tokenizer recipes/data/stories260K --chat-template llama3 --output %s",
         at("r.jsonl"), at("x.h5"));
    expect(complained(), "markers are no tokens of the tokenizer: <|start_header_id|>, "
                         "<|end_header_id|>, <|eot_id|>");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_day), cmocka_unit_test(test_columns),
                                       cmocka_unit_test(test_bos), cmocka_unit_test(test_left_out),
                                       cmocka_unit_test(test_markers)};
    return cmocka_run_group_tests_name("rows of a run", tests, tiny_folder, tiny_remove);
}
