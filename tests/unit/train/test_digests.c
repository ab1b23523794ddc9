/* test_digests.c: a state's digest, made by ranks of the tensors that each holds. */
#include "train/loop/loop.h"
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

enum { TENSORS = 5, SIZE = 7 };
struct bed {
    struct optimizer o;
    struct moments of[TENSORS];
    struct param p[TENSORS];
    float value[TENSORS * 3 * SIZE]; /* of each: weight, m, v */
};

/* Every second parameter has a master; the order of names is not that of parameters. */
static void bed_make(struct bed *b) {
    static const char *const name[TENSORS] = {"norm", "layers.10.q", "layers.2.q", "b", "a.lora_A"};
    *b = (struct bed){.o = {.of = b->of, .count = TENSORS, .step = 12}};
    for (int i = 0; i < TENSORS; i++) {
        struct moments *s = &b->of[i];
        const struct view v = {.dtype = F32, .rank = 1, .dim = {SIZE}};
        float *value = b->value + i * 3 * SIZE;
        for (int n = 0; n < 3 * SIZE; n++) value[n] = (float)(100 * i + n);
        b->p[i] = (struct param){.name = name[i], .view = v}, s->p = &b->p[i];
        b->p[i].view.data = value;
        s->state[STATE_M] = s->state[STATE_V] = v;
        s->state[STATE_M].data = value + SIZE, s->state[STATE_V].data = value + 2 * SIZE;
        if (i % 2) s->state[STATE_MASTER] = b->p[i].view;
    }
}

static void of_pieces(void **state) {
    (void)state;
    struct bed b;
    struct err e = {0};
    char whole[65], stream[65], all[65];
    bed_make(&b);
    assert_int_equal(optimizer_digest(&b.o, 2, whole, &e), 0);
    assert_int_equal(optimizer_digest(&b.o, 1, stream, &e), 0);
    assert_string_not_equal(whole, stream);
    for (i64 cut = 0; cut <= TENSORS; cut++) {
        struct state_rows first = {0}, second = {0};
        assert_int_equal(optimizer_rows(&b.o, 0, cut, &first, &e), 0);
        assert_int_equal(optimizer_rows(&b.o, cut, TENSORS - cut, &second, &e), 0);
        assert_int_equal(state_rows_join(&second, &first, &e), 0);
        assert_int_equal(state_rows_digest(&second, b.o.step, all, &e), 0);
        assert_string_equal(all, whole);
        assert_int_equal(state_rows_digest(&second, b.o.step + 1, all, &e), 0);
        assert_string_not_equal(all, whole);
        if (cut) { /* a tensor that two hold */
            assert_int_equal(state_rows_join(&second, &first, &e), 0);
            assert_int_equal(state_rows_digest(&second, b.o.step, all, &e), -1);
            assert_non_null(strstr(e.primary, "two tensors of the state are called "));
            e = (struct err){0};
        }
        state_rows_free(&first), state_rows_free(&second);
    }
}

/* Any element of any tensor, and which tensor is which, show in both versions. */
static void of_every_element(void **state) {
    (void)state;
    struct bed b;
    struct err e = {0};
    char was[65], is[65];
    bed_make(&b);
    for (i64 version = 1; version <= 2; version++) {
        assert_int_equal(optimizer_digest(&b.o, version, was, &e), 0);
        for (int n = 0; n < TENSORS * 3 * SIZE; n++) {
            float *x = &b.value[n];
            *x += 0.5f;
            assert_int_equal(optimizer_digest(&b.o, version, is, &e), 0);
            assert_string_not_equal(is, was);
            *x -= 0.5f;
        }
        b.p[0].name = "other";
        assert_int_equal(optimizer_digest(&b.o, version, is, &e), 0);
        assert_string_not_equal(is, was);
        b.p[0].name = "norm";
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_pieces),
                                       cmocka_unit_test(of_every_element)};
    return cmocka_run_group_tests_name("digests", tests, NULL, NULL);
}
