/* test_modules.c: modules serve what is no language model: two linear layers made by hand, with an
 * adapter, in a graph of their own, merged. */
#include "recipes/models/modules.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 5, IN = 24, MIDDLE = 40, OUT = 16, RANK = 3 };

static void ok(int status, const struct err *e) {
    if (status || e->code) fail_msg("%s %s", e->primary, e->detail);
}

static struct param *matrix(struct weights *w, const char *name, i64 rows, i64 cols, u32 number) {
    struct err e = {0};
    struct param *p = param_add(w, name, 2, (i64[]){rows, cols}, F32, false, &e);
    const struct rng r = {1, RNG_INIT, 0, number};
    ok(!p, &e);
    for (i64 i = 0; i < rows * cols; i++) param_set(p, i, rng_normal(&r, (u64)i) / 5);
    return p;
}

/* The network of ones: second(first(x)). */
static void run(const struct weights *w, float *x, float *out) {
    struct err e = {0};
    struct graph *g = graph_new(&e);
    ok(!g, &e);
    const struct tracing t = {.g = g};
    struct tensor *in = graph_input(g, "x", F32, DIMS(ROWS, IN));
    struct tensor *y = module_linear(&t, &w->module[1], module_linear(&t, &w->module[0], in));
    graph_keep(y);
    ok(graph_plan(g, false, &e), &e);
    in->view.data = x;
    ok(graph_run(g, &e) || graph_read(g, y, out, &e), &e);
    graph_free(g);
}

static void test_network(void **state) {
    (void)state;
    static const struct module_type type = {"layer", MODULE_LINEAR, .stream = 1};
    struct err e = {0};
    struct weights w = {.dtype = F32, .modules = 2};
    float x[ROWS * IN], plain[ROWS * OUT], adapted[ROWS * OUT], merged[ROWS * OUT];
    ok(!(w.module = mem_new_array(2, sizeof *w.module, &e)), &e);
    w.module[0] = (struct module){&type, "net.first", -1,
                                  .weight = matrix(&w, "net.first.weight", MIDDLE, IN, 0)};
    w.module[1] = (struct module){&type, "net.second", -1,
                                  .weight = matrix(&w, "net.second.weight", OUT, MIDDLE, 1)};
    for (int i = 0; i < ROWS * IN; i++) x[i] = (float)(i % 7) - 3;
    run(&w, x, plain);

    i64 index = 0;
    struct lora_config c = {.r = RANK, .lora_alpha = 6};
    ok(module_adapt(&w, &w.module[1], &c, 7, &index, &e), &e);
    assert_int_equal(1, index);
    assert_int_equal(4, w.params);
    assert_int_equal(RANK * (OUT + MIDDLE), weights_count(&w, true));
    assert_string_equal("base_model.model.net.second.lora_A.weight", w.param[2]->name);
    run(&w, x, adapted); /* B is zero */
    assert_memory_equal(plain, adapted, sizeof plain);
    struct param *b = w.module[1].adapter.b;
    for (i64 i = 0; i < OUT * RANK; i++) param_set(b, i, (float)(i % 5) / 8);
    run(&w, x, adapted);
    assert_memory_not_equal(plain, adapted, sizeof plain);
    ok(module_merge(&w.module[1], &e), &e);
    assert_null(w.module[1].adapter.a);
    run(&w, x, merged);
    for (int i = 0; i < ROWS * OUT; i++) assert_true(fabsf(merged[i] - adapted[i]) < 1e-4f);
    weights_free(&w);
}

int main(void) {
    struct err e = {0};
    if (pool_start(2, &e)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_network)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
