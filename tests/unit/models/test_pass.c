/* test_pass.c: passes that are kept between runs: which are, and that it changes no bit. */
#include "recipes/models/pass.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 24, VOCAB = 40, ROUNDS = 3 };
static struct model model;
static i32 ids[MOST], position[MOST], begin[MOST], last[MOST], targets[MOST];

/* The sum of the losses of `tokens` tokens. */
static double loss_of(struct pass *p) {
    struct err e = {0};
    const struct pass_inputs in = {.places = {ids, position, begin, last}, .targets = targets};
    double sum = 0;
    if (pass_bind(p, &in, &e) || pass_run(p, &e) || pass_read_loss(p, targets, &sum, &e))
        fail_msg("%s", e.primary);
    return sum;
}
static struct pass_plan plan_of(i64 tokens) {
    return (struct pass_plan){.model = &model, .tokens = tokens, .gives = PASS_LOSS};
}
static struct pass *of(struct pass_cache *c, i64 tokens) {
    struct err e = {0};
    const struct pass_plan plan = plan_of(tokens);
    struct pass *p = pass_cached(c, &plan, NULL, &e);
    if (!p) fail_msg("%s", e.primary);
    return p;
}

/* More sizes than the old six, used in turn: each is planned once, unless there is no room. */
static void kept(void **state) {
    (void)state;
    double alone[MOST + 1];
    for (i64 n = 1; n <= MOST; n++) {
        struct pass_cache c = {0};
        alone[n] = loss_of(of(&c, n)), pass_cache_free(&c);
    }
    struct pass_cache all = {0}, few = {.most = 1};
    for (int round = 0; round < ROUNDS; round++)
        for (i64 n = 1; n <= MOST; n++) {
            const double a = loss_of(of(&all, n)), b = loss_of(of(&few, n));
            assert_memory_equal(&a, &alone[n], sizeof a);
            assert_memory_equal(&b, &alone[n], sizeof b);
            assert_int_equal(few.count, 1); /* the one in use stays, whatever it takes */
        }
    assert_int_equal(all.opened, MOST);
    assert_int_equal(few.opened, ROUNDS * MOST);
    pass_cache_free(&all), pass_cache_free(&few);
}

/* Of three with room for two, the one that was asked for longest ago goes. */
static void least_used_goes(void **state) {
    (void)state;
    struct pass_cache c = {0};
    loss_of(of(&c, 8)), loss_of(of(&c, 9));
    c.most = 2 * (graph_bytes(of(&c, 9)->graph) + 65536); /* a third takes as much again */
    const i64 each = graph_bytes(of(&c, 8)->graph);
    assert_true(each > 65536);
    loss_of(of(&c, 10));
    while (c.count == 3) c.most -= 16384, of(&c, 10);
    assert_int_equal(c.count, 2);
    const i64 opened = c.opened;
    of(&c, 8), of(&c, 10);
    assert_int_equal(c.opened, opened); /* 9 was asked for before 8 */
    pass_cache_free(&c);
}

/* A pass that training opened is not one that evaluates. */
static void kinds_apart(void **state) {
    (void)state;
    struct err e = {0};
    struct pass_cache c = {0};
    struct pass_plan plan = plan_of(8);
    struct pass *a = pass_cached(&c, &plan, NULL, &e);
    plan.train = true;
    struct pass *b = pass_cached(&c, &plan, NULL, &e);
    plan.train = false, plan.gives = PASS_LOGITS;
    struct pass *d = pass_cached(&c, &plan, NULL, &e);
    bool fresh = true;
    assert_true(a && b && d && a != b && a != d && b != d);
    assert_ptr_equal(d, pass_cached(&c, &plan, &fresh, &e));
    assert_false(fresh);
    pass_cache_drop(&c, d);
    assert_int_equal(c.count, 2);
    pass_cache_free(&c);
}

static int setup(void **state) {
    (void)state;
    static const char text[] =
        "{\"model_type\": \"llama\", \"vocab_size\": 40, \"hidden_size\": 16, "
        "\"intermediate_size\": 20, \"num_hidden_layers\": 2, \"num_attention_heads\": 2, "
        "\"max_position_embeddings\": 32}";
    static struct config config;
    struct err e = {0};
    isa_float_mode();
    for (i32 i = 0; i < MOST; i++)
        ids[i] = i * 7 % VOCAB, targets[i] = i * 11 % VOCAB, position[i] = last[i] = i;
    json_t *j = json_parse(text, sizeof text - 1, "test", &e);
    const int rc = pool_start(2, &e) || !j || config_read(&config, j, "test", &e) ||
                   model_new(&model, &config, F32, true, &e) || model_rope(&model, MOST, &e);
    json_decref(j);
    if (!rc) model_init(&model, 1);
    return rc;
}
static int teardown(void **state) {
    (void)state;
    model_free(&model);
    return pool_stop(), 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(kept), cmocka_unit_test(least_used_goes),
                                       cmocka_unit_test(kinds_apart)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
