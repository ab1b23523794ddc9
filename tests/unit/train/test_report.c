/* test_report.c: the report of made-up runs: what is in it, what cannot break out of it, what it
 * says when it cannot. `HONE_REPORT_KEEP=DIR` keeps the run folders and pages there, to be looked
 * at in a browser. */
#include "train/log/log.h"
#include "train/loop/loop.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[512];

static void put(const char *run, const char *name, const char *text) {
    struct err e = {0};
    char path[700];
    snprintf(path, sizeof path, "%s/%s/%s", dir, run, name);
    if (file_write(path, text, (i64)strlen(text), &e)) fail_msg("%s", e.primary);
}

static void make_folder(const char *run, const char *name, char out[700]) {
    struct err e = {0};
    snprintf(out, 700, "%s/%s/%s", dir, run, name);
    if (dir_make(out, &e)) fail_msg("%s", e.primary);
}

static double noise(u32 stream, i64 i) {
    struct rng r = {.seed = 1, .purpose = RNG_TEST, .stream = stream};
    return (double)rng_normal(&r, (u64)i);
}

/* The log of a plausible training run. */
static void make_log(const char *run, const char *lock, i64 steps, double lr, double floor_loss) {
    struct err e = {0};
    char path[700];
    make_folder(run, "", path);
    struct log_start start = {
        .run_dir = path, .run_id = run, .lock_sha256 = lock, .resume_step = -1, .time = 1.7e9};
    struct log *log = log_open(&start, &e);
    if (!log) fail_msg("%s", e.primary);
    struct schedule s = {
        .kind = LR_COSINE, .lr = lr, .min_lr_ratio = 0.1, .warmup = steps / 20, .total = steps};
    for (i64 t = 0; t <= steps; t++) {
        double x = (double)t / (double)steps,
               curve = floor_loss + (8.35 - floor_loss) * m_exp(-9 * m_pow(x, 0.62));
        struct log_row row = {.step = t,
                              .tokens = t * 8192,
                              .trained = t > 0,
                              .evaluated = t % (steps / 20) == 0,
                              .balanced = t > 0 && !strcmp(run, "mixture"),
                              .aux_loss = 2 + 0.01 * noise(4, t),
                              .loss = curve * (1 + 0.012 * noise(1, t)),
                              .lr = schedule_lr(&s, t - 1),
                              .grad_norm = 0.35 + 2.2 * m_exp(-25 * x) +
                                           0.05 * __builtin_fabs(noise(2, t)) +
                                           (t % 173 == 90 ? 0.7 : 0),
                              .eval_loss = curve + 0.03 + 0.16 * x * x,
                              .seconds = 0.62 * (double)t,
                              .tokens_per_second = t % 97 == 3 ? 9800 : 13200 + 240 * noise(3, t),
                              .peak_bytes = (i64)((t < 3 ? 0.52 : 0.611) * 1073741824)};
        if (log_step(log, &row, &e)) fail_msg("%s", e.primary);
    }
    assert_int_equal(log_close(log, &e), 0);
}

static void make_run(const char *run, const char *recipe, i64 steps, double lr, double floor_loss) {
    struct err e = {0};
    struct recipe r;
    struct lock_files files = {0};
    char path[700], yaml[700], sha256[65];
    make_folder(run, "", path);
    put(run, "recipe.yaml", recipe);
    snprintf(yaml, sizeof yaml, "%s/%s/recipe.yaml", dir, run);
    if (recipe_load(&r, yaml, NULL, 0, &e)) fail_msg("%s", e.primary);
    assert_int_equal(lock_files_add(&files, "data", yaml, &e), 0);
    assert_int_equal(lock_write(path, &r, &files, sha256, &e), 0);
    recipe_free(&r), lock_files_free(&files);
    make_log(run, sha256, steps, lr, floor_loss);
    for (i64 step = 0; step <= steps; step = step ? step * 4 : 1) {
        char name[64];
        snprintf(name, sizeof name, "checkpoints/step-%06lld", (long long)step);
        make_folder(run, name, path);
        strcat(name, "/manifest.json");
        snprintf(path, sizeof path, "{\"step\":%lld}", (long long)step);
        put(run, name, path);
    }
}

static void make_small(const char *run) {
    make_run(run, "model: {model_type: olmo2}\ndataset: d\n", 20, 1e-3, 3);
}

static const char recipe[] = "task: pretrain\nmodel: {model_type: olmo2, hidden_size: 256, "
                             "num_hidden_layers: 6, num_attention_heads: 8}\n"
                             "dataset: [{path: data/shakespeare.h5, split: train}]\neval_dataset: "
                             "[{path: data/shakespeare.h5, split: held-out}]\n"
                             "precision: bf16\nmax_seq_length: 256\nmicro_batch_size: "
                             "8\ngradient_accumulation_steps: 4\nmax_steps: 600\n"
                             "learning_rate: 1.5e-3\nlr_scheduler_type: cosine\nwarmup_steps: "
                             "30\nmin_lr_ratio: 0.1\nweight_decay: 0.1\n";

static const char samples[] =
    "{\"step\":0,\"prompt\":\"ROMEO:\",\"text\":\" feather inus clock dis ofKing theirver un\"}\n"
    "{\"step\":0,\"prompt\":\"The king\",\"text\":\" </script><script>alert(1)</script> <b>&amp; "
    "bold\"}\n"
    "{\"step\":300,\"prompt\":\"ROMEO:\",\"text\":\"\\nI have the sun, and then the heart is "
    "gone,\\nAnd be the day.\"}\n"
    "{\"step\":300,\"prompt\":\"The king\",\"text\":\" is come to the court, and the duke shall "
    "be\"}\n"
    "{\"step\":600,\"prompt\":\"ROMEO:\",\"text\":\"\\nWhat light is this that makes the morning "
    "stay,\\nAnd will "
    "not let me from thy window part?\\n\\nJULIET:\\nIt is the lark, my lord, and not the day.\"}\n"
    "{\"step\":600,\"prompt\":\"The king\",\"text\":\" hath sent for you, my lord, and doth "
    "command\\nThat all his "
    "servants bring the crown to court.\"}\n"
    "{\"step\":600,\"prompt\":\"torn";

static void page(char *const *runs, i64 count, const char *name, struct text *t) {
    struct err e = {0};
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (report_write(runs, count, path, &e)) {
        err_print(&e, stderr);
        fail_msg("%s", e.primary);
    }
    if (file_read(t, path, &e)) fail_msg("%s", e.primary);
}

static i64 occurrences(const char *text, const char *what) {
    i64 n = 0;
    for (; (text = strstr(text, what)); text++) n++;
    return n;
}

static json_t *page_data(const struct text *t) {
    struct err e = {0};
    static const char mark[] = "id=\"data\">";
    char *from = strstr(t->data, mark) + sizeof mark - 1, *to = strstr(from, "</script>");
    json_t *j = json_parse(from, to - from, "page", &e);
    if (!j) fail_msg("%s", e.primary);
    return j;
}

static void test_one_run(void **state) {
    (void)state;
    struct text t = {0};
    char run[700];
    make_run("shakespeare", recipe, 600, 1.5e-3, 3.42);
    put("shakespeare", "run.json",
        "{\"parameters\":6824192,\"trainable_parameters\":6824192,\"planned_peak_bytes\":642777088,"
        "\"unigram_nats\":6.61,"
        "\"bigram_nats\":4.93,\"tokens_total\":327680,\"flops_per_token\":43200000,\"peak_gflops\":"
        "1056}");
    put("shakespeare", "samples.jsonl", samples);
    put("shakespeare", "verify.jsonl",
        "{\"check\":\"files and "
        "manifests\",\"ok\":true,\"seconds\":0.41}\n{\"check\":\"replay\",\"from\":256,\"to\":264,"
        "\"ok\":true,\"state\":"
        "\"6f1c1d39e0ad3e2eb8a7f1fb8c6ae4ba24c5a6e5bd4a5ba1f9e6a0a1d6d2b9f3\",\"isa\":\"avx2\","
        "\"seconds\":5.2}\n");
    snprintf(run, sizeof run, "%s/shakespeare/", dir);
    page((char *[]){run}, 1, "one.html", &t);
    assert_int_equal(occurrences(t.data, "</script>"),
                     3); /* data, library, page: nothing else ends one */
    assert_int_equal(occurrences(t.data, "<script"), 3);
    assert_null(strstr(t.data, "{{"));
    assert_null(strstr(t.data, "<script src"));
    assert_null(strstr(t.data, "url(http"));
    json_t *data = page_data(&t), *r = json_array_get(json_object_get(data, "runs"), 0),
           *log = json_object_get(r, "log");
    assert_int_equal(json_array_size(json_object_get(log, "step")), 600);
    assert_int_equal(json_array_size(json_object_get(log, "eval")), 21);
    assert_int_equal(json_array_size(json_object_get(r, "samples")), 6);
    assert_int_equal(json_array_size(json_object_get(r, "checkpoints")), 6);
    assert_true(json_is_null(json_object_get(log, "broken")));
    const char *text = json_string_value(
        json_object_get(json_array_get(json_object_get(r, "samples"), 1), "text"));
    assert_string_equal(text, " </script><script>alert(1)</script> <b>&amp; bold");
    json_decref(data), text_free(&t);
}

static void test_many_runs(void **state) {
    (void)state;
    struct text t = {0};
    char run[3][700], *runs[3];
    const char *const names[] = {"lr-1e-3", "lr-3e-3", "mixture"};
    for (int i = 0; i < 3; i++) {
        make_run(names[i], recipe, 400, 1e-3 * (1 + 2 * i), 3.6 - 0.1 * i);
        snprintf(run[i], sizeof run[i], "%s/%s", dir, names[i]), runs[i] = run[i];
    }
    page(runs, 3, "many.html", &t);
    json_t *data = page_data(&t);
    const json_t *list = json_object_get(data, "runs");
    assert_int_equal(json_array_size(list), 3);
    for (size_t i = 0; i < 3; i++) { /* a chart of the mixture's balancing loss */
        const json_t *more =
            json_object_get(json_object_get(json_array_get(list, i), "log"), "metrics");
        assert_int_equal(json_object_size(more), i == 2);
        assert_int_equal(json_array_size(json_object_get(more, "aux_loss")), i == 2 ? 400 : 0);
    }
    json_decref(data), text_free(&t);
}

static void test_long_run_is_thinned(void **state) {
    (void)state;
    struct text t = {0};
    char run[700];
    make_run("long", "model: {a: 1}\ndataset: d\n", 4100, 1e-3, 3);
    snprintf(run, sizeof run, "%s/long", dir);
    page((char *[]){run}, 1, "long.html", &t);
    json_t *data = page_data(&t),
           *log = json_object_get(json_array_get(json_object_get(data, "runs"), 0), "log");
    json_t *step = json_object_get(log, "step");
    assert_int_equal(json_integer_value(json_object_get(log, "stride")), 3);
    assert_int_equal(json_array_size(step), 1367); /* 4100 / 3, rounded up */
    assert_int_equal(json_integer_value(json_array_get(step, 0)), 3);
    assert_int_equal(json_integer_value(json_array_get(step, 1366)), 4100);
    assert_int_equal(json_array_size(json_object_get(log, "eval")), 21);
    json_decref(data), text_free(&t);
}

static void test_bare_and_broken(void **state) {
    (void)state;
    struct err e = {0};
    struct text t = {0};
    char run[700], out[700];
    make_small("small");
    snprintf(run, sizeof run, "%s/small", dir), snprintf(out, sizeof out, "%s/x.html", dir);
    static const char *const absent[] = {"recipe.lock", "recipe.yaml", "checkpoints"};
    for (i64 i = 0; i < COUNT(absent); i++) {
        char path[800];
        snprintf(path, sizeof path, "%s/%s", run, absent[i]);
        assert_int_equal(dir_remove(path, &e), 0);
    }
    page((char *[]){run}, 1, "bare.html", &t);
    text_free(&t);

    char log[800];
    snprintf(log, sizeof log, "%s/log.jsonl", run);
    assert_int_equal(file_read(&t, log, &e), 0);
    strstr(t.data, "\"tokens\":8192")[9] = '9';
    assert_int_equal(file_write(log, t.data, t.size, &e), 0);
    text_free(&t);
    page((char *[]){run}, 1, "tampered.html", &t);
    json_t *data = page_data(&t), *r = json_array_get(json_object_get(data, "runs"), 0);
    assert_non_null(strstr(json_string_value(json_object_get(json_object_get(r, "log"), "broken")),
                           "hash chain breaks"));
    json_decref(data), text_free(&t);

    put("small", "run.json", "{");
    assert_int_equal(report_write((char *[]){run}, 1, out, &e), -1);
    assert_non_null(strstr(e.primary, "run.json:1"));
    put("small", "run.json", "{}"), put("small", "samples.jsonl", "{}\nnot json\n");
    e = (struct err){0};
    assert_int_equal(report_write((char *[]){run}, 1, out, &e), -1);
    assert_non_null(strstr(e.primary, "samples.jsonl:2"));
    e = (struct err){0};
    assert_int_equal(report_write((char *[]){dir}, 1, out, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.primary, "log.jsonl"));
    e = (struct err){0};
    assert_int_equal(report_write(NULL, 0, out, &e), -1);
}

static void test_faults(void **state) {
    (void)state;
    static const char *const kinds[] = {"alloc", "open", "read", "write", "fsync", "rename"};
    char run[700], out[700];
    make_small("f");
    snprintf(run, sizeof run, "%s/f", dir), snprintf(out, sizeof out, "%s/f.html", dir);
    for (i64 k = 0; k < COUNT(kinds); k++)
        for (int n = 1, failed = 1; failed && n < 200; n++) {
            struct err e = {0};
            char spec[32];
            snprintf(spec, sizeof spec, "%s:%d", kinds[k], n);
            fault_arm(spec);
            failed = report_write((char *[]){run}, 1, out, &e) != 0;
            fault_arm(NULL);
            assert_int_equal(failed, e.code != 0);
        }
}

static int setup(void **state) {
    (void)state;
    struct err e = {0};
    const char *keep = getenv("HONE_REPORT_KEEP");
    if (keep)
        return snprintf(dir, sizeof dir, "%s", keep), dir_remove(dir, &e) || dir_make(dir, &e);
    strcpy(dir, "/tmp/hone-report-XXXXXX");
    return !mkdtemp(dir);
}

static int teardown(void **state) {
    (void)state;
    struct err e = {0};
    return getenv("HONE_REPORT_KEEP") ? 0 : dir_remove(dir, &e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_run), cmocka_unit_test(test_many_runs),
        cmocka_unit_test(test_long_run_is_thinned), cmocka_unit_test(test_bare_and_broken),
        cmocka_unit_test(test_faults)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
