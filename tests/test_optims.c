/* test_optims.c: what a recipe may say of its optimizer: names, arguments, and what is refused. */
#include "train/train.h"

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

int main(void) {
    snprintf(file, sizeof file, "/tmp/hone-optims-%ld.yaml", (long)getpid());
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_choice_is_a_row),
                                       cmocka_unit_test(arguments_arrive),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests_name("optims", tests, NULL, NULL);
}
