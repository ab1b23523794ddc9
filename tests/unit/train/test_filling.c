/* test_filling.c: why micro-batches are not filled up to a few common lengths
 * (train/loop/README.md, "Not done: buckets of lengths"). Rows of a filling document have no
 * gradient, but what they add to the chains of weight gradients shows in the state's digest.
 *
 * Three steps of AdamW on one matrix. A step has two micro-batches: a row whose product, negative
 * and below the smallest normal number, is flushed to -0, and a row that is not trained. */
#include "train/loop/loop.h"
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

enum { FILL = 32, STEPS = 3, MICRO = 2, MOST = 2 * FILL + 1 };
struct bed {
    float w;
    struct param p;
    struct param *list[1];
    struct model model;
    struct optimizer o;
};

/* Adds to the accumulators what a micro-batch of so many rows gives. */
static void backward(struct bed *b, float *x, float *dy, i64 rows) {
    struct err e = {0};
    struct graph *g = graph_new(&e);
    struct tensor *in = graph_input(g, "x", F32, 2, (const i64[]){rows, 1}),
                  *grad = graph_input(g, "dy", F32, 2, (const i64[]){rows, 1}),
                  *w = graph_param(g, &b->p, b->p.name, &b->p.view, true),
                  *y = graph_op(g, &op_linear, NULL, BIND({"x", in}, {"w", w}));
    in->view.data = x, grad->view.data = dy;
    if (graph_backward(g, &(struct seed){y, grad}, 1) || graph_plan(g, false, &e) ||
        optimizer_bind(&b->o, g, &e) || graph_run(g, &e))
        fail_msg("%s", e.primary);
    graph_free(g);
}

/* The digest after all steps; filling rows before and behind those of each micro-batch. */
static void state_of(const i64 before[MICRO], const i64 behind[MICRO], char hex[65]) {
    static const struct recipe r = {.adam_beta1 = 0.9,
                                    .adam_beta2 = 0.95,
                                    .adam_epsilon = 1e-8,
                                    .max_grad_norm = 1,
                                    .master_weights = true};
    static const float row[STEPS][MICRO][2] = {/* x, dy */
                                               {{1, -1.3e-37f}, {-1, 0}},
                                               {{0.5f, -2e-38f}, {-1, 0}},
                                               {{0.5f, -2e-38f}, {-1, 0}}};
    struct bed b = {.w = 1};
    struct err e = {0};
    double norm;
    b.p = (struct param){.name = "w", .trainable = true};
    b.p.view = (struct view){.data = &b.w, .dtype = F32, .rank = 2, .dim = {1, 1}};
    b.list[0] = &b.p, b.model.weights.param = b.list, b.model.weights.params = 1;
    assert_int_equal(optimizer_new(&b.o, &b.model, &r, &e), 0);
    for (int s = 0; s < STEPS; s++) {
        assert_int_equal(optimizer_zero(&b.o, &e), 0);
        for (int m = 0; m < MICRO; m++) {
            float x[MOST], dy[MOST] = {0};
            for (i64 i = 0; i < MOST; i++) x[i] = 1;
            x[before[m]] = row[s][m][0], dy[before[m]] = row[s][m][1];
            backward(&b, x, dy, before[m] + 1 + behind[m]);
        }
        assert_int_equal(optimizer_update(&b.o, 1, 1e-3, &norm, &e), 0);
    }
    assert_int_equal(optimizer_digest(&b.o, DIGEST_VERSION, hex, &e), 0);
    optimizer_free(&b.o);
}

static void filling_shows(void **state) {
    (void)state;
    static const struct {
        i64 before[MICRO], behind[MICRO];
        bool same;
    } way[] = {
        {{0, 0}, {FILL, 0}, false}, /* -0 + 1 * 0 is +0 */
        {{0, 0}, {0, FILL}, false},
        {{0, FILL}, {0, 0}, false}, /* rows that come first find what the last micro-batch left */
        {{FILL, 0}, {0, 0}, true},  /* but a chain that begins with them is as it was */
    };
    char want[65], is[65];
    state_of((const i64[MICRO]){0, 0}, (const i64[MICRO]){0, 0}, want);
    for (int i = 0; i < COUNT(way); i++) {
        state_of(way[i].before, way[i].behind, is);
        assert_int_equal(!strcmp(is, want), way[i].same);
    }
}

static int setup(void **state) {
    (void)state;
    isa_float_mode();
    return pool_start(1, &(struct err){0});
}
static int teardown(void **state) { return (void)state, pool_stop(), 0; }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(filling_shows)};
    return cmocka_run_group_tests_name("filling", tests, setup, teardown);
}
