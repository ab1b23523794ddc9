/* test_seeds.c: a backward pass begins at any number of tensors, losses or not, each with its own
 * gradient. */
#include "autograd/autograd.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* Seeds that no backward pass can begin with. */
static void test_bad_seeds(void **state) {
    (void)state;
    static const char *const said[] = {
        "seed 0 of the backward pass is missing",
        "the seed of 'y' has 5 elements, not its 4",
        "'y' has two seeds",
        "operation linear_xent: the gradient of its loss must be an input",
    };
    for (int kind = 0; kind < 4; kind++) {
        struct err e = {0};
        struct graph *g = graph_new(&e);
        struct tensor *a = graph_input(g, "a", F32, DIMS(4)),
                      *d = graph_input(g, "d", F32, DIMS(kind == 1 ? 5 : 4)),
                      *y = graph_op(g, &op_add, NULL, BIND({"a", a}, {"b", a}));
        if (kind == 3) {
            static float memory[8 * 4];
            const struct view v = {.data = memory, .dtype = F32, .rank = 2, .dim = {8, 4}};
            struct tensor *w = graph_param(g, &v, "w", &v, true),
                          *x = graph_input(g, "x", F32, DIMS(4, 4)),
                          *labels = graph_input(g, "labels", I32, DIMS(4)),
                          *loss = graph_op(g, &op_linear_xent, &(struct xent_attr){0},
                                           BIND({"x", x}, {"w", w}, {"targets", labels}));
            y = graph_op(g, &op_add, NULL, BIND({"a", loss}, {"b", loss}));
            d = graph_op(g, &op_add, NULL, BIND({"a", d}, {"b", d}));
        }
        const struct seed seed[] = {{kind ? y : NULL, d}, {y, d}};
        assert_int_equal(graph_backward(g, seed, kind == 2 ? 2 : 1), -1);
        assert_int_equal(graph_plan(g, false, &e), -1);
        assert_string_equal(e.primary, said[kind]);
        graph_free(g);
    }
}

/* Two losses of one weight in one graph, and a seed that is no loss: the gradient is the sum of
 * what each gives alone, a use of the parameter each. */
static void test_many_seeds(void **state) {
    (void)state;
    enum { N = 4, D = 4, V = 8 };
    static float w_data[V * D], x_data[2][N * D], weight_data[2][N], seed_data[N * D];
    static const i32 labels[2][N] = {{1, -1, 3, 7}, {0, 2, 2, -100}};
    const struct rng r = {5, RNG_TEST, 0, 0};
    for (i64 i = 0; i < V * D; i++) w_data[i] = rng_uniform(&r, (u64)i) - 0.5f;
    for (i64 i = 0; i < 2 * N * D; i++)
        x_data[i / (N * D)][i % (N * D)] = rng_uniform(&r, (u64)(i + 100)) - 0.5f;
    for (i64 i = 0; i < 2 * N; i++)
        weight_data[i / N][i % N] = rng_uniform(&r, (u64)(i + 200)) - 0.5f;
    for (i64 i = 0; i < N * D; i++) seed_data[i] = rng_uniform(&r, (u64)(i + 300)) - 0.5f;
    float slots[3][3][V * D] = {{{0}}}; /* of a run with one of the seeds; last: of all */
    float together[3][V * D] = {{0}};
    int uses[4] = {0};
    for (int run = 0; run < 4; run++) {
        struct err e = {0};
        struct graph *g = graph_new(&e);
        const struct view v = {.data = w_data, .dtype = F32, .rank = 2, .dim = {V, D}};
        struct tensor *w = graph_param(g, w_data, "w", &v, true);
        struct seed seed[3];
        int count = 0;
        for (int k = 0; k < 2; k++) {
            if (run != 3 && run != k) continue;
            struct tensor *x = graph_input(g, "x", F32, DIMS(N, D)),
                          *target = graph_input(g, "labels", I32, DIMS(N)),
                          *weight = graph_input(g, "weight", F32, DIMS(N)),
                          *loss = graph_op(g, &op_linear_xent, &(struct xent_attr){0},
                                           BIND({"x", x}, {"w", w}, {"targets", target}));
            x->view.data = x_data[k], target->view.data = (void *)labels[k];
            weight->view.data = weight_data[k];
            seed[count++] = (struct seed){loss, weight};
        }
        if (run >= 2) {
            static const i32 chosen[N] = {0, 2, 2, 5};
            struct tensor *some = graph_input(g, "ids", I32, DIMS(N)),
                          *d = graph_input(g, "d", F32, DIMS(N, D)),
                          *rows = graph_op(g, &op_embedding, NULL, BIND({"ids", some}, {"w", w}));
            some->view.data = (void *)chosen, d->view.data = seed_data;
            seed[count++] = (struct seed){rows, d};
        }
        assert_int_equal(0, graph_backward(g, seed, count));
        if (graph_plan(g, false, &e)) fail_msg("%s", e.primary);
        for (int i = 0; i < g->tensors; i++)
            if (g->tensor[i]->kind == TENSOR_SLOT)
                g->tensor[i]->view.data =
                    run == 3 ? together[uses[run]++] : slots[run][uses[run]++];
        if (graph_run(g, &e)) fail_msg("%s", e.primary);
        graph_free(g);
    }
    assert_int_equal(uses[0] + uses[1] + uses[2], 3);
    assert_int_equal(uses[3], 3);
    for (int use = 0; use < 3; use++) { /* backwards: the last seed's node comes first */
        int same = 0;
        for (int k = 0; k < 3; k++) same += !memcmp(together[use], slots[k][0], sizeof slots[k][0]);
        assert_int_equal(same, 1);
    }
}

static int setup(void **state) {
    (void)state;
    struct err e = {0};
    isa_float_mode();
    return pool_start(2, &e);
}
static int teardown(void **state) {
    (void)state;
    return pool_stop(), 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bad_seeds),
                                       cmocka_unit_test(test_many_seeds)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
