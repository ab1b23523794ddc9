/* test_log.c: the hash chain, resuming, and what crashes, faults and hands can do to a log. */
#include "train/log/log.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define LOCK  "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define LOCK2 "11112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static char dir[64], path[128];

static i64 digests; /* the version that open_at asks for */
static const char *const *metrics;

static struct log *open_at(i64 step, const char *lock, struct err *e) {
    struct log_start s = {.run_dir = dir,
                          .digest_version = digests,
                          .metrics = metrics,
                          .run_id = "te\"st",
                          .lock_sha256 = lock,
                          .resume_step = step,
                          .csv = true,
                          .tensorboard = true,
                          .time = 1700000000};
    return log_open(&s, e);
}

static struct log_row row_at(i64 step) {
    double x = (double)step;
    return (struct log_row){.step = step,
                            .tokens = 64 * step,
                            .trained = step > 0,
                            .evaluated = step % 4 == 0,
                            .balanced = step % 3 == 0,
                            .loss = 8 / sqrt(x + 1),
                            .lr = 3e-4 / 7,
                            .grad_norm = 1 / 3.0,
                            .eval_loss = 8.5 / sqrt(x + 1),
                            .aux_loss = 2 + 1 / (x + 3),
                            .metric = {x / 3, 1 / (x - 5)},
                            .batch = step % 2 ? LOCK : NULL,
                            .state = step % 4 ? NULL : LOCK2,
                            .seconds = x / 8,
                            .tokens_per_second = 512,
                            .peak_bytes = 1 << 20};
}

static void write_steps(i64 resume, i64 from, i64 to, const char *lock) {
    struct err e = {0};
    struct log *log = open_at(resume, lock, &e);
    if (!log) fail_msg("%s", e.primary);
    for (i64 s = from; s <= to; s++) {
        struct log_row row = row_at(s);
        assert_int_equal(log_step(log, &row, &e), 0);
    }
    assert_int_equal(log_sync(log, &e), 0);
    assert_int_equal(log_close(log, &e), 0);
}

static void read_file(const char *name, struct text *t) {
    struct err e = {0};
    char full[160];
    snprintf(full, sizeof full, "%s/%s", dir, name);
    if (file_read(t, full, &e)) fail_msg("%s", e.primary);
}

static void refuse(const char *expected) {
    struct err e = {0};
    assert_int_equal(log_verify(path, &e), -1);
    if (!strstr(e.primary, expected)) fail_msg("found '%s', expected '%s'", e.primary, expected);
}

static void test_write_and_read(void **state) {
    (void)state;
    struct err e = {0};
    struct log_rows rows;
    write_steps(-1, 0, 9, LOCK);
    assert_int_equal(log_verify(path, &e), 0);
    assert_int_equal(log_read(&rows, path, &e), 0);
    assert_string_equal(rows.run_id, "te\"st");
    assert_string_equal(rows.lock_sha256, LOCK);
    assert_int_equal(rows.count, 10);
    for (i64 s = 0; s < 10; s++) {
        struct log_row r = rows.row[s], w = row_at(s);
        assert_int_equal(r.step, w.step);
        assert_int_equal(r.trained, w.trained);
        assert_int_equal(r.evaluated, w.evaluated);
        if (w.trained) assert_true(r.loss == w.loss && r.lr == w.lr && r.grad_norm == w.grad_norm);
        assert_int_equal(r.balanced, w.balanced);
        if (w.balanced) assert_true(r.aux_loss == w.aux_loss);
        if (w.evaluated) assert_true(r.eval_loss == w.eval_loss);
        assert_int_equal(!r.batch, !w.batch);
        if (w.state) assert_string_equal(r.state, w.state);
    }
    log_rows_free(&rows);
    struct log *log = open_at(-1, LOCK, &e); /* a new run does not overwrite an old one */
    assert_null(log);
    assert_non_null(strstr(e.primary, "already exists"));
}

static void test_not_finite(void **state) {
    (void)state;
    struct err e = {0};
    struct log *log = open_at(-1, LOCK, &e);
    struct log_row row = row_at(1);
    row.loss = 0.0 / 0.0, row.grad_norm = 1 / 0.0;
    assert_int_equal(log_step(log, &row, &e), 0);
    assert_int_equal(log_close(log, &e), 0);
    struct log_rows rows;
    assert_int_equal(log_read(&rows, path, &e), 0);
    assert_true(isnan(rows.row[0].loss) && isinf(rows.row[0].grad_norm));
    log_rows_free(&rows);
}

static void test_resume_equals_uninterrupted(void **state) {
    (void)state;
    struct text whole = {0}, csv = {0}, again = {0}, csv2 = {0};
    write_steps(-1, 0, 12, LOCK);
    read_file("log.jsonl", &whole), read_file("log.csv", &csv);
    write_steps(8, 9, 12, LOCK);
    read_file("log.jsonl", &again), read_file("log.csv", &csv2);
    assert_string_equal(whole.data, again.data);
    assert_string_equal(csv.data, csv2.data);
    text_free(&again);
    write_steps(0, 0, 12, LOCK); /* from the start */
    read_file("log.jsonl", &again);
    assert_string_equal(whole.data, again.data);
    text_free(&whole), text_free(&again), text_free(&csv), text_free(&csv2);
}

static void test_killed_at_any_byte(void **state) {
    (void)state;
    struct err e = {0};
    struct text whole = {0};
    write_steps(-1, 0, 6, LOCK);
    read_file("log.jsonl", &whole);
    i64 at4 = strstr(whole.data, "{\"step\":5") - whole.data;
    for (i64 size = at4; size <= whole.size; size += 37) {
        assert_int_equal(file_write(path, whole.data, size, &e), 0);
        write_steps(4, 5, 6, LOCK);
        assert_int_equal(log_verify(path, &e), 0);
        struct text now = {0};
        read_file("log.jsonl", &now);
        assert_string_equal(now.data, whole.data);
        text_free(&now);
    }
    static const char zeros[100];
    struct text torn = {0};
    text_add(&torn, whole.data, at4, &e), text_add(&torn, zeros, 100, &e),
        text_add(&torn, "\n", 1, &e);
    assert_int_equal(file_write(path, torn.data, torn.size, &e),
                     0); /* what a file system may leave */
    write_steps(4, 5, 6, LOCK);
    assert_int_equal(log_verify(path, &e), 0);
    assert_int_equal(file_write(path, whole.data, at4 - 10, &e), 0); /* step 4 itself is torn */
    refuse("the last line is not whole");
    assert_null(open_at(4, LOCK, &e));
    assert_non_null(strstr(e.primary, "ends at step 3, the checkpoint is of step 4"));
    text_free(&whole), text_free(&torn);
}

/* A log keeps the version of digests that it began with, and no other goes on with it. */
static void test_digest_versions(void **state) {
    (void)state;
    static const char *const head[] = {"{\"hone_log\":1,\"run\":\"te\\\"st\",\"lock\":",
                                       "{\"hone_log\":2,\"digests\":2,\"run\":"};
    for (i64 version = 1; version <= 2; version++) {
        struct err e = {0};
        struct log_rows rows;
        struct text t = {0};
        digests = version;
        write_steps(version == 1 ? -1 : 0, 0, 6, LOCK);
        write_steps(4, 5, 6, LOCK);
        read_file("log.jsonl", &t);
        assert_int_equal(strncmp(t.data, head[version - 1], strlen(head[version - 1])), 0);
        assert_int_equal(log_read(&rows, path, &e), 0);
        assert_int_equal(rows.digest_version, version);
        log_rows_free(&rows), text_free(&t);
        digests = 3 - version;
        assert_null(open_at(4, LOCK, &e));
        assert_non_null(strstr(e.primary, "log.jsonl has digests of version "));
    }
    digests = 0;
}

/* What an objective reports besides: columns named in the header, which a resume keeps. */
static void test_metrics(void **state) {
    (void)state;
    static const char *const two[] = {"margin", "spread", NULL};
    struct err e = {0};
    struct log_rows rows;
    struct text t = {0}, csv = {0};
    metrics = two;
    write_steps(-1, 0, 8, LOCK);
    write_steps(4, 5, 8, LOCK);
    assert_int_equal(log_read(&rows, path, &e), 0);
    assert_int_equal(rows.metrics, 2);
    assert_string_equal(rows.metric[0], "margin");
    for (i64 s = 1; s <= 8; s++) {
        const struct log_row want = row_at(s), *row = &rows.row[s];
        assert_memory_equal(row->metric, want.metric, 2 * sizeof *want.metric);
    }
    log_rows_free(&rows);
    read_file("log.jsonl", &t), read_file("log.csv", &csv);
    assert_non_null(
        strstr(t.data, "{\"hone_log\":2,\"digests\":2,\"metrics\":[\"margin\",\"spread\"],"));
    assert_non_null(strstr(t.data, "\"spread\":null,\"spread_hex\":\"inf\""));
    assert_non_null(strstr(csv.data, ",eval_loss,aux_loss,margin,spread,seconds,"));
    assert_non_null(
        strstr(csv.data,
               "\n4,256,3.57770876,4.28571429e-05,0.333333333,3.80131556,,1.33333333,-1,0.500,"));
    metrics = two + 1;
    assert_null(open_at(4, LOCK, &e));
    assert_non_null(strstr(e.primary, "has other metrics than the task reports"));
    static const char *const wrong[][3] = {{"loss"}, {"prev"}, {"lock"},     {""},
                                           {"A"},    {"a b"},  {"loss_hex"}, {"twice", "twice"}};
    for (int i = 0; i < COUNT(wrong); i++) {
        e = (struct err){0}, metrics = wrong[i];
        assert_null(open_at(0, LOCK, &e));
        assert_non_null(strstr(e.primary, "' cannot be the name of a metric"));
    }
    metrics = NULL;
    text_free(&t), text_free(&csv);
}

static void test_new_lock_is_recorded(void **state) {
    (void)state;
    struct err e = {0};
    struct log_rows rows;
    write_steps(-1, 0, 8, LOCK);
    write_steps(4, 5, 6, LOCK2);
    write_steps(6, 7, 8, LOCK2);
    write_steps(8, 9, 9, LOCK2);
    assert_int_equal(log_verify(path, &e), 0);
    assert_int_equal(log_read(&rows, path, &e), 0);
    assert_string_equal(rows.lock_sha256, LOCK2);
    assert_int_equal(rows.count, 10);
    log_rows_free(&rows);
    struct text t = {0};
    read_file("log.jsonl", &t);
    char *first = strstr(t.data, "{\"resume\":4,");
    assert_non_null(first);
    assert_null(strstr(first + 1, "{\"resume\""));
    text_free(&t);
}

static void test_tampering(void **state) {
    (void)state;
    struct err e = {0};
    struct text t = {0};
    write_steps(-1, 0, 6, LOCK);
    read_file("log.jsonl", &t);
    char *line3 = strstr(t.data, "{\"step\":3"), *line4 = strstr(t.data, "{\"step\":4"),
         *digit = strstr(line3, "\"lr\":4");
    digit[5] = '5';
    file_write(path, t.data, t.size, &e);
    refuse(":6: the hash chain breaks: line 5 was changed, removed or inserted");
    digit[5] = '4';
    struct text cut = {0};
    text_add(&cut, t.data, line3 - t.data, &e), text_printf(&cut, &e, "%s", line4);
    file_write(path, cut.data, cut.size, &e);
    refuse(":5: the hash chain breaks");
    static const char *const bad[] = {
        "",
        "\n",
        "{}\n",
        "{\"hone_log\":2}\n",
        "[1]\n",
        "{\"hone_log\":1,\"run\":7}\n",
        "{\"hone_log\":1,\"run\":\"a\",\"lock\":\"xyz\"}\n",
        "{\"hone_log\":1",
        "{\"hone_log\":2,\"digests\":3,\"run\":\"a\"}\n",
        "{\"hone_log\":2,\"digests\":2,\"metrics\":[1],\"run\":\"a\"}\n",
        "{\"hone_log\":3,\"digests\":2,\"run\":\"a\"}\n",
        "\xff\n"};
    for (i64 i = 0; i < COUNT(bad); i++) {
        struct err why = {0};
        struct log_rows rows;
        file_write(path, bad[i], (i64)strlen(bad[i]), &why);
        if (!log_verify(path, &why) || why.code != ERR_INPUT) fail_msg("'%s' was taken", bad[i]);
        why = (struct err){0};
        assert_int_equal(log_read(&rows, path, &why), -1);
    }
    text_free(&t), text_free(&cut);
}

static void test_faults(void **state) {
    (void)state;
    static const char *const kinds[] = {"alloc", "open", "read", "write", "fsync", "rename"};
    struct err e = {0};
    write_steps(-1, 0, 6, LOCK);
    struct text whole = {0};
    read_file("log.jsonl", &whole);
    for (i64 k = 0; k < COUNT(kinds); k++)
        for (int n = 1; n <= 60; n++) {
            char spec[32];
            struct err why = {0};
            struct log_row row = row_at(5), next = row_at(6);
            snprintf(spec, sizeof spec, "%s:%d", kinds[k], n);
            assert_int_equal(file_write(path, whole.data, whole.size, &e), 0);
            fault_arm(spec);
            struct log *log = open_at(4, LOCK, &why);
            int rc = !log || log_step(log, &row, &why) || log_step(log, &next, &why) ||
                     log_sync(log, &why);
            if (log && log_close(log, &why)) rc = -1;
            fault_arm(NULL);
            assert_int_equal(rc != 0, why.code != 0);
            write_steps(4, 5, 6, LOCK); /* whatever failed, the log goes on from the checkpoint */
            struct text now = {0};
            read_file("log.jsonl", &now);
            assert_string_equal(now.data, whole.data);
            text_free(&now);
        }
    text_free(&whole);
}

static int setup(void **state) {
    (void)state;
    strcpy(dir, "/tmp/hone-log-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/log.jsonl", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    struct err e = {0};
    return dir_remove(dir, &e);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_write_and_read),
        TEST(test_not_finite),
        TEST(test_resume_equals_uninterrupted),
        TEST(test_killed_at_any_byte),
        TEST(test_digest_versions),
        TEST(test_metrics),
        TEST(test_new_lock_is_recorded),
        TEST(test_tampering),
        TEST(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
