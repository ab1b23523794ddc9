/* test_verify.c: which steps `hone verify --replay` computes again: what a budget of seconds
 * allows by the times in the log, or what is named. The log is written anew with times that are
 * known, so that no clock decides. */
#include "tests/e2e/tiny_run.h"

enum { STEPS = 8, EVERY = 2 };
#define RUN at("run")

/* The run's log with other step times: `seconds` each, but `quick` from step 3 to step 4. */
static void timed(double seconds, double quick) {
    struct err e = {0};
    struct log_rows rows = log_of(RUN);
    const struct log_start start = {
        .run_dir = RUN, .run_id = rows.run_id, .lock_sha256 = rows.lock_sha256, .resume_step = -1};
    assert_int_equal(unlink(at("run/log.jsonl")), 0);
    struct log *log = log_open(&start, &e);
    assert_non_null(log);
    for (i64 i = 0; i < rows.count; i++) {
        struct log_row row = rows.row[i];
        const double tokens = (double)(row.tokens - (i ? rows.row[i - 1].tokens : 0));
        const bool is_quick = row.step == 3 || row.step == 4;
        if (row.trained) row.tokens_per_second = tokens / (is_quick ? quick : seconds);
        assert_int_equal(log_step(log, &row, &e), 0);
    }
    assert_int_equal(log_close(log, &e), 0);
    log_rows_free(&rows);
}

static void one_that_fits(void **state) {
    (void)state;
    timed(50, 0.5);
    hone(0, "verify %s --replay --count 3 --seconds 4", RUN); /* whatever chance says */
    const char *at_first = strstr(said(), "segment  ");
    assert_non_null(at_first);
    for (const char *p = at_first; p; p = strstr(p + 1, "segment  "))
        expect(p, "steps 3 to 4: 2 of 8 steps, 25 % of the run; estimated 1.0 s\n"
                  "replay   steps 3 to 4 computed again: state ");
    assert_null(strstr(said(), "not compared"));
    hone(0, "verify %s --replay --seconds 1000 --quiet", RUN);
    assert_string_equal(said(), "");
}

static void a_part_of_one(void **state) {
    (void)state;
    timed(50, 40);
    hone(0, "verify %s --replay", RUN);
    expect(said(), "1 of 8 steps, 12 % of the run; estimated ");
    expect(said(), "losses and gradient norms bit for bit; no state was published for step ");
    expect(text_of(at("run/verify.jsonl")), "so it was not compared\", \"isa\"");
    hone(0, "verify %s --replay --seconds 0", RUN);
    expect(said(), "1 of 8 steps");
}

static void named_ones(void **state) {
    (void)state;
    timed(1000, 1000);
    hone(0, "verify %s --replay --from 4", RUN); /* what is named has no budget */
    expect(said(), "steps 5 to 6: 2 of 8 steps, 25 % of the run; estimated 20");
    expect(said(), "steps 5 to 6 computed again: state ");
    hone(0, "verify %s --replay --from 4 --to 5", RUN);
    expect(said(), "steps 5 to 5 computed again: losses and gradient norms bit for bit");
    hone(0, "verify %s --replay --from 2 --to 6", RUN);
    expect(said(), "steps 3 to 6 computed again: state ");
    hone(2, "verify %s --replay --from 4 --to 99", RUN);
    expect(complained(), "expected a step from 5 to 8");
    hone(2, "verify %s --replay --from 4 --to 4", RUN);
    hone(2, "verify %s --replay --to 4", RUN);
    expect(complained(), "--to belongs to one segment that starts at --from");
    hone(2, "verify %s --replay --from 8", RUN);
    expect(complained(), "has no checkpoint of step 8 with one after it");
}

/* A part is checked as a whole is: a loss of the log that is another is found. */
static void a_part_that_lies(void **state) {
    (void)state;
    struct err e = {0};
    timed(50, 50);
    struct log_rows rows = log_of(RUN);
    const struct log_start start = {
        .run_dir = RUN, .run_id = rows.run_id, .lock_sha256 = rows.lock_sha256, .resume_step = -1};
    assert_int_equal(unlink(at("run/log.jsonl")), 0);
    struct log *log = log_open(&start, &e);
    for (i64 i = 0; i < rows.count; i++) {
        struct log_row row = rows.row[i];
        if (row.step % EVERY == 1) row.loss *= 1 + 0x1p-52;
        assert_int_equal(log_step(log, &row, &e), 0);
    }
    assert_int_equal(log_close(log, &e), 0);
    log_rows_free(&rows);
    hone(1, "verify %s --replay", RUN);
    expect(complained(), " gives loss ");
}

static int set_up(void **state) {
    if (tiny_folder(state)) return -1;
    tiny_data();
    tiny_recipe(at("full.yaml"));
    hone(0,
         "train %s dataset.0.path=%s max_steps=%d save_steps=%d output_dir=%s "
         "tokenizer=" TINY_TOKENIZER " --quiet",
         at("full.yaml"), at("packed.h5"), STEPS, EVERY, RUN);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_fits), cmocka_unit_test(a_part_of_one),
        cmocka_unit_test(named_ones), cmocka_unit_test(a_part_that_lies)};
    return cmocka_run_group_tests_name("verify", tests, set_up, tiny_remove);
}
