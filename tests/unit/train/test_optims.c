/* test_optims.c: what a recipe may say of its optimizer: names, arguments, and what is refused;
 * what the operation `update` refuses; the direction of Muon. */
#include "train/loop/loop.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char file[64];

static int load(struct recipe *r, const char *text, char *word, struct err *e) {
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fprintf(f, "model: m\ndataset: x\n%s\n", text);
    fclose(f);
    const int rc = recipe_load(r, file, &word, word ? 1 : 0, e);
    assert_int_equal(unlink(file), 0);
    return rc;
}
static struct recipe loaded(const char *text, char *word) {
    struct recipe r;
    struct err e = {0};
    if (load(&r, text, word, &e)) fail_msg("%s: %s", text, e.primary);
    return r;
}

static void every_choice_is_a_row(void **state) {
    (void)state;
    char word[32];
    for (const char *at = option_find(recipe_options, "optim")->choices; *at;
         at += strcspn(at, " "), at += *at == ' ') {
        snprintf(word, sizeof word, "%.*s", (int)strcspn(at, " "), at);
        assert_string_equal(optim_find(word)->name, word);
    }
    struct recipe r = loaded("optim: paged_adamw_8bit", NULL);
    assert_string_equal(r.optim, "adamw_8bit");
    recipe_free(&r);
}

static void arguments_arrive(void **state) {
    (void)state;
    struct recipe r = loaded("optim: sgd\noptim_args: {momentum: 0.5, nesterov: true}", NULL);
    assert_true(r.optim_with.momentum == 0.5 && r.optim_with.nesterov);
    recipe_free(&r);
    r = loaded("optim: rmsprop", "optim_args=centered=1, momentum=0.25");
    assert_true(r.optim_with.centered && r.optim_with.momentum == 0.25);
    assert_true(r.optim_with.alpha == 0.99 && r.optim_with.eps == 1e-8);
    recipe_free(&r);
    r = loaded("optim: adafactor\nlearning_rate: 1", "optim_args=relative_step=true");
    assert_non_null(strstr(r.notes.data, "'learning_rate' has no effect with relative_step=true"));
    recipe_free(&r);
}

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *message, *hint;
    } rows[] = {
        {"optim: adagrd", "3: optim = 'adagrd'; expected a known choice",
         "did you mean 'adagrad'?"},
        {"optim: sgd\noptim_args: momentm=1",
         "4: optim_args: 'momentm' is not an argument of optim: sgd",
         "its arguments: momentum, dampening, nesterov"},
        {"optim: lion\noptim_args: {momentum: 0.9}",
         "4: optim_args: 'momentum' is not an argument of optim: lion", "its arguments: none"},
        {"optim: sgd\noptim_args: {momentum: [1]}",
         "4: 'optim_args': found a list, expected a text", ""},
        {"optim: sgd\noptim_args: momentum",
         "4: optim_args: found 'momentum', expected ARGUMENT=VALUE", ""},
        {"optim: sgd\noptim_args: [momentum=1]",
         "4: momentum = 1 is out of range: 0 to 0.999999999", ""},
        {"optim: adafactor\noptim_args: warmup_init=true",
         "4: optim_args: warmup_init=true needs relative_step=true", ""},
        {"optim: muon\noptim_args: {ns_c: 0}", "4: optim_args: ns_c = 0 is out of range", ""},
        {"optim: muon\noptim_args: adjust_lr_fn=match_rms",
         "4: adjust_lr_fn = 'match_rms'; expected a known choice", ""},
        {"optim: sgd\noptim_args: nesterov=true",
         "4: optim_args: nesterov=true needs momentum and no dampening", ""},
    };
    for (int i = 0; i < COUNT(rows); i++) {
        struct err e = {0};
        struct recipe r;
        char full[200];
        snprintf(full, sizeof full, "%s:%s", file, rows[i].message);
        if (!load(&r, rows[i].text, NULL, &e)) fail_msg("taken: %s", rows[i].text);
        assert_string_equal(e.primary, full);
        assert_string_equal(e.hint, rows[i].hint);
    }
}

static void test_forms(void **state) { /* neither a master nor a step: said */
    (void)state;
    const struct view f = {.dtype = F32, .rank = 1, .dim = {HYPER}};
    const struct update_attr attr = {UPDATE_ADAMW, 0.9, 0.999, 1e-8, 0, 0, false};
    struct op_call c = {.op = &op_update, .attr = &attr, .in = {f, f}, .out = {{0}, f, f, f}};
    struct err e = {0};
    c.out[3].dtype = BF16;
    assert_int_equal(op_shape(&c, &e), -1);
    assert_string_equal(e.primary, "operation update: neither 'master' nor 'step'");
    e = (struct err){0}, c.out[3].dtype = F32;
    c.in[2] = (struct view){.dtype = I32, .rank = 1, .dim = {1}};
    assert_int_equal(op_shape(&c, &e), -1);
    assert_string_equal(e.primary, "operation update: 'param' is f32 [6]");
}

/* ---- Muon's direction */
enum { ROWS = 12, COLS = 40 };
static void direction(float *x, i64 rows, i64 cols) {
    struct err e = {0};
    struct recipe r = loaded("optim: muon", NULL);
    struct optimizer o = {.with = r.optim_with, .work = device_new(muon_work(rows, cols), &e)};
    double *sum = device_new(sizeof *sum, &e);
    assert_int_equal(muon_direction(&o, x, rows, cols, sum, &e), 0);
    device_free(o.work), device_free(o.scratch), device_free(sum), recipe_free(&r);
}
/* Against the iteration in f64, as far as bf16 goes (torch is 1 to 3 % off); the transpose gives
 * the transpose. */
static void test_direction(void **state) {
    (void)state;
    static float x[ROWS * COLS], turned[ROWS * COLS];
    static double want[ROWS * COLS], next[ROWS * COLS], a[ROWS * ROWS], b[ROWS * ROWS];
    double square = 0, top = 0;
    const struct rng rng = {5, RNG_TEST, 0, 0};
    for (int i = 0; i < ROWS * COLS; i++) {
        x[i] = turned[i % COLS * ROWS + i / COLS] = rng_normal(&rng, (u64)i);
        square += (double)x[i] * (double)x[i];
    }
    for (int i = 0; i < ROWS * COLS; i++) want[i] = (double)x[i] / sqrt(square);
    for (int k = 0; k < 5; k++) {
        for (int i = 0; i < ROWS * ROWS; i++) {
            a[i] = 0;
            for (int j = 0; j < COLS; j++)
                a[i] += want[i / ROWS * COLS + j] * want[i % ROWS * COLS + j];
        }
        for (int i = 0; i < ROWS * ROWS; i++) {
            b[i] = -4.7750 * a[i];
            for (int j = 0; j < ROWS; j++)
                b[i] += 2.0315 * a[i / ROWS * ROWS + j] * a[j * ROWS + i % ROWS];
        }
        for (int i = 0; i < ROWS * COLS; i++) {
            next[i] = 3.4445 * want[i];
            for (int j = 0; j < ROWS; j++)
                next[i] += b[i / COLS * ROWS + j] * want[j * COLS + i % COLS];
        }
        memcpy(want, next, sizeof want);
    }
    direction(x, ROWS, COLS), direction(turned, COLS, ROWS);
    for (int i = 0; i < ROWS * COLS; i++) top = fmax(top, fabs(want[i]));
    for (int i = 0; i < ROWS * COLS; i++) {
        const float other = turned[i % COLS * ROWS + i / COLS];
        if (!(fabs((double)x[i] - want[i]) <= 0.05 * top) || !(fabsf(x[i] - other) <= 0.01 * top))
            fail_msg("[%d]: %g, turned %g, expected %g", i, (double)x[i], (double)other, want[i]);
    }
}
/* torch.optim.Muon's _adjust_lr. */
static void test_rates(void **state) {
    (void)state;
    struct optim_args a = {.adjust_lr_fn = "original"};
    assert_true(muon_rate(&a, 64, 16) == 2 && muon_rate(&a, 16, 64) == 1);
    a.adjust_lr_fn = "spectral_unclamped";
    assert_true(muon_rate(&a, 64, 16) == 2 && muon_rate(&a, 16, 64) == 0.5);
    a.adjust_lr_fn = "match_rms_adamw";
    assert_true(muon_rate(&a, 64, 16) == 0.2 * 8 && muon_rate(&a, 16, 64) == 0.2 * 8);
}

static int begin(void **state) {
    (void)state;
    isa_float_mode();
    return pool_start(2, &(struct err){0});
}
static int end(void **state) {
    (void)state;
    pool_stop();
    return 0;
}

int main(void) {
    snprintf(file, sizeof file, "/tmp/hone-optims-%ld.yaml", (long)getpid());
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_choice_is_a_row),
                                       cmocka_unit_test(arguments_arrive),
                                       cmocka_unit_test(refused),
                                       cmocka_unit_test(test_forms),
                                       cmocka_unit_test(test_direction),
                                       cmocka_unit_test(test_rates)};
    return cmocka_run_group_tests_name("optims", tests, begin, end);
}
