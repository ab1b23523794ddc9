/* test_schedule.c: learning rates against transformers' (golden/optim/schedules.json), edges, and
 * recipes. */
#include "train/loop/loop.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static const struct {
    const char *name;
    i64 from; /* steps before differ by intent */
    struct schedule schedule;
} rows[] = {
    {"constant_with_warmup", 0, {.kind = LR_CONSTANT, .warmup = 7, .total = 60}},
    {"linear", 0, {.kind = LR_LINEAR, .warmup = 7, .total = 60}},
    {"linear_no_warmup", 0, {.kind = LR_LINEAR, .total = 60}},
    {"cosine", 0, {.kind = LR_COSINE, .warmup = 7, .total = 60}},
    {"cosine_with_min_lr", 0, {.kind = LR_COSINE, .warmup = 7, .total = 60, .min_lr_ratio = 0.1}},
    {"warmup_stable_decay",
     0,
     {.kind = LR_WSD, .decay_type = DECAY_COSINE, .warmup = 7, .decay = 15, .total = 60}},
    {"wsd_linear_min",
     0,
     {.kind = LR_WSD, .warmup = 7, .decay = 15, .total = 42, .min_lr_ratio = 0.1}},
    {"wsd_1_sqrt",
     7,
     {.kind = LR_WSD,
      .decay_type = DECAY_1_SQRT,
      .warmup = 7,
      .decay = 15,
      .total = 60,
      .min_lr_ratio = 0.05}},
};

static void test_goldens(void **state) {
    (void)state;
    struct err e = {0};
    json_t *j = json_open("tests/golden/optim/schedules.json", &e);
    assert_non_null(j);
    for (i64 i = 0; i < COUNT(rows); i++) {
        struct schedule s = rows[i].schedule;
        s.lr = 3e-4;
        const json_t *lr =
            json_object_get(json_object_get(json_object_get(j, "schedules"), rows[i].name), "lr");
        assert_int_equal(json_array_size(lr), 66);
        for (i64 t = rows[i].from; t <= s.total; t++) {
            double expected = json_number_value(json_array_get(lr, (size_t)t)),
                   found = schedule_lr(&s, t);
            if (fabs(found - expected) > 1e-12 * 3e-4 + 1e-9 * expected)
                fail_msg("%s, step %lld: %.17g, expected %.17g", rows[i].name, (long long)t, found,
                         expected);
        }
    }
    json_decref(j);
}

/* Axolotl's get_cosine_schedule_with_quadratic_warmup: (step / warmup)^2, then the cosine. */
static void test_quadratic(void **state) {
    (void)state;
    struct schedule s = {.kind = LR_COSINE, .lr = 2, .warmup = 4, .total = 20}, q = s;
    q.quadratic = true;
    static const double rise[] = {0, 0.125, 0.5, 1.125, 2};
    for (i64 t = 0; t < COUNT(rise); t++) assert_true(schedule_lr(&q, t) == rise[t]);
    for (i64 t = 4; t < 20; t++) assert_true(schedule_lr(&q, t) == schedule_lr(&s, t));
}

static void test_past_the_end(void **state) {
    (void)state;
    for (i64 i = 1; i < COUNT(rows); i++) {
        struct schedule s = rows[i].schedule;
        s.lr = 2;
        assert_true(schedule_lr(&s, s.total) == schedule_lr(&s, s.total + 1000));
        assert_true(schedule_lr(&s, s.total) == 2 * s.min_lr_ratio);
    }
    struct schedule s = {
        .kind = LR_COSINE, .lr = 1, .warmup = 10, .total = 10}; /* nothing but warm-up */
    assert_true(schedule_lr(&s, 9) == 0.9);
}

static void test_of_recipe(void **state) {
    (void)state;
    struct err e = {0};
    struct schedule s;
    struct recipe r = {.learning_rate = 1,
                       .lr_scheduler_type = "wsd",
                       .wsd_decay_type = "1-sqrt",
                       .warmup_ratio = 0.03};
    assert_int_equal(schedule_of_recipe(&s, &r, 101, &e), 0);
    assert_int_equal(s.kind, LR_WSD);
    assert_int_equal(s.decay_type, DECAY_1_SQRT);
    assert_int_equal(s.warmup, 4); /* rounded up, as transformers does */
    assert_int_equal(s.decay, 11); /* a tenth */
    r.warmup_steps = 95;
    assert_int_equal(schedule_of_recipe(&s, &r, 101, &e), -1);
    assert_string_equal(e.primary,
                        "wsd: 95 steps of warm-up and 11 of decay do not fit into 101 steps");
    assert_int_equal(e.code, ERR_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens), cmocka_unit_test(test_past_the_end),
        cmocka_unit_test(test_quadratic), cmocka_unit_test(test_of_recipe)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
