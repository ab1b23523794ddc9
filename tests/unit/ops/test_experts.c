/* test_experts.c: what the samples of the operations cannot show: choices among equals, scores that
 * are no numbers, the plan's order, and that the gradient of expert weights has the same bits
 * however a step is cut into micro-batches, in bf16 too. */
#include "ops/ops_int.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct view made(void *data, enum dtype d, int rank, const i64 *dim) {
    struct view v = {.data = data, .dtype = d, .rank = rank};
    memcpy(v.dim, dim, sizeof *dim * (size_t)rank);
    return v;
}
/* Outputs that are not given are taken from `room`. */
static void call(struct op_call *c, void *const *room) {
    struct err e = {0};
    assert_int_equal(op_shape(c, &e), 0);
    for (int i = 0; i < OP_OUT; i++)
        if (!c->out[i].data && c->out[i].rank) c->out[i].data = room[i];
    void *scratch = calloc(1, (size_t)op_scratch(c) + 64);
    c->scratch = (u8 *)scratch + (64 - (uintptr_t)scratch % 64) % 64;
    assert_int_equal(op_run(c, &e), 0);
    free(scratch);
}

static void choose(const float *logits, i64 experts, struct route_attr a, i32 *index) {
    float weight[8];
    struct op_call c = {.op = &op_route, .attr = &a};
    c.in[0] = made((void *)logits, F32, DIMS(1, experts));
    call(&c, (void *[]){weight, index});
}

static void test_choice(void **state) {
    (void)state;
    i32 index[8];
    const struct route_attr top3 = {3, ROUTE_SOFTMAX, true, 1, 1, 1},
                            groups = {2, ROUTE_SIGMOID, true, 1, 3, 1},
                            by_max = {2, ROUTE_SOFTMAX, false, 1, 3, 1};
    choose((float[]){1, 2, 2, 1, 2}, 5, top3, index);
    assert_memory_equal(index, ((i32[]){1, 2, 4}), 12);
    choose((float[]){0, 0, 0, 0, 0}, 5, top3, index);
    assert_memory_equal(index, ((i32[]){0, 1, 2}), 12);
    choose((float[]){NAN, 1, NAN, -INFINITY, NAN}, 5, top3, index);
    assert_memory_equal(index, ((i32[]){1, 0, 2}), 12);
    /* the best pair, not the best single one; by the largest it is the other way round */
    choose((float[]){1, 1, 3, -4, 0, 0}, 6, groups, index);
    assert_memory_equal(index, ((i32[]){0, 1}), 8);
    choose((float[]){1, 1, 3, -4, 0, 0}, 6, by_max, index);
    assert_memory_equal(index, ((i32[]){2, 3}), 8);
}

static void test_plan(void **state) {
    (void)state;
    i32 offset[5], order[6], place[6];
    struct op_call c = {.op = &op_expert_plan, .attr = &(struct plan_attr){4}};
    c.in[0] = made((i32[]){3, 0, 0, 1, 3, 1}, I32, DIMS(3, 2));
    call(&c, (void *[]){offset, order, place});
    assert_memory_equal(offset, ((i32[]){0, 2, 4, 4, 6}), sizeof offset);
    assert_memory_equal(order, ((i32[]){1, 2, 3, 5, 0, 4}), sizeof order);
    assert_memory_equal(place, ((i32[]){4, 0, 1, 2, 5, 3}), sizeof place);
}

/* 23 rows of 3 experts at once, and as two micro-batches that cut each expert's rows at an odd one.
 */
static void test_micro_batches(void **state) {
    (void)state;
    enum { OUT = 19, IN = 21, EXPERTS = 3, ROWS = 23 };
    static const i32 whole[] = {0, 9, 16, ROWS}, first[] = {0, 3, 8, 9};
    for (int isa = 0; isa <= (int)isa_best(); isa++) {
        u16 dy[ROWS * OUT], x[ROWS * IN], part[ROWS * (OUT + IN)];
        float at_once[EXPERTS * OUT * IN] = {0}, in_two[EXPERTS * OUT * IN] = {0};
        const struct rng r = {3, RNG_TEST, 0, 0};
        struct err e = {0};
        struct op_call c = {.op = &op_expert_linear_dw, .attr = &(struct lora_attr){1}};
        assert_int_equal(isa_force(isa_name[isa], &e), 0);
        for (i64 i = 0; i < COUNT(dy); i++) dy[i] = bf16_of_f32(rng_uniform(&r, (u64)i) - 0.5f);
        for (i64 i = 0; i < COUNT(x); i++) x[i] = bf16_of_f32(rng_uniform(&r, 999 + (u64)i));
        c.in[0] = made(dy, BF16, DIMS(ROWS, OUT)), c.in[1] = made(x, BF16, DIMS(ROWS, IN));
        c.in[2] = made((void *)whole, I32, DIMS(EXPERTS + 1));
        c.out[0] = made(at_once, F32, DIMS(EXPERTS, OUT, IN));
        call(&c, NULL);
        for (int is_bf16 = 0; is_bf16 < 2; is_bf16++) {
            i32 offset[EXPERTS + 1] = {0};
            u16 *dy2 = part, *x2 = part + ROWS * OUT;
            for (int n = 0; n < EXPERTS; n++) {
                const i32 mine = first[n + 1] - first[n], all = whole[n + 1] - whole[n],
                          from = whole[n] + (is_bf16 ? mine : 0),
                          rows = is_bf16 ? all - mine : mine;
                memcpy(dy2 + offset[n] * OUT, dy + from * OUT, (size_t)(2 * rows * OUT));
                memcpy(x2 + offset[n] * IN, x + from * IN, (size_t)(2 * rows * IN));
                offset[n + 1] = offset[n] + rows;
            }
            c.in[0] = made(dy2, BF16, DIMS(offset[EXPERTS], OUT));
            c.in[1] = made(x2, BF16, DIMS(offset[EXPERTS], IN));
            c.in[2] = made(offset, I32, DIMS(EXPERTS + 1));
            c.out[0].data = in_two;
            call(&c, NULL);
        }
        assert_memory_equal(at_once, in_two, sizeof at_once);
    }
}

static void test_refused(void **state) {
    (void)state;
    struct err e = {0};
    struct op_call c = {.op = &op_route,
                        .attr = &(struct route_attr){9, ROUTE_SOFTMAX, true, 1, 1, 1}};
    c.in[0] = made(NULL, F32, DIMS(1, 8));
    assert_int_equal(op_shape(&c, &e), -1);
    assert_string_equal(e.primary,
                        "operation route: 9 of 8 experts; expected 1 to 32 of at most 1024");
    e = (struct err){0};
    c.attr = &(struct route_attr){2, ROUTE_SIGMOID, true, 1, 3, 1};
    assert_int_equal(op_shape(&c, &e), -1);
    assert_string_equal(e.primary, "operation route: 1 of 3 groups of 8 experts");
}

int main(void) {
    isa_float_mode();
    struct err e = {0};
    if (pool_start(2, &e)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_choice), cmocka_unit_test(test_plan),
                                       cmocka_unit_test(test_micro_batches),
                                       cmocka_unit_test(test_refused)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
