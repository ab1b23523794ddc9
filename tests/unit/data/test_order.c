/* test_order.c: the order is a permutation of every size, fixed for ever, and looks random. */
#include "tests/unit/data/dataset_fixture.h"

static void test_bijection(void **state) {
    (void)state;
    static u8 seen[2000];
    for (u64 n = 1; n <= 2000; n++) {
        struct order o = order_new(n, 7 * n, (u32)(n % 5), (u32)(n % 3));
        memset(seen, 0, sizeof seen);
        for (u64 i = 0; i < n; i++) {
            u64 at = order_at(&o, i);
            assert_true(at < n);
            assert_false(seen[at]++);
        }
    }
}

static void test_large(void **state) {
    (void)state;
    const u64 sizes[] = {(u64)1 << 32, ((u64)1 << 40) + 12345, (u64)INT64_MAX, UINT64_MAX};
    for (i64 i = 0; i < COUNT(sizes); i++) {
        struct order o = order_new(sizes[i], 1, 0, 0);
        for (u64 k = 0; k < 100; k++) assert_true(order_at(&o, sizes[i] - 1 - k) < sizes[i]);
    }
}

/* The order is part of what makes a run reproducible: these numbers must not change. */
static void test_known(void **state) {
    (void)state;
    const u64 want[] = {802, 702, 911, 745, 557, 32, 327, 660};
    struct order o = order_new(1000, 42, 3, 1);
    for (i64 i = 0; i < COUNT(want); i++) assert_int_equal(order_at(&o, (u64)i), want[i]);
}

/* Chi-square of where sample 0 goes, and of how far from it sample 1 goes, over seeds and over
 * epochs. */
static void test_uniform(void **state) {
    (void)state;
    enum { N = 64, TRIALS = 64 * 400 };
    for (int by_epoch = 0; by_epoch < 2; by_epoch++) {
        i64 place[N] = {0}, step[N] = {0};
        for (u32 t = 0; t < TRIALS; t++) {
            struct order o = order_new(N, by_epoch ? 9 : t, by_epoch ? t : 0, 0);
            u64 a = order_at(&o, 0), b = order_at(&o, 1);
            place[a]++, step[(b - a) % N]++;
        }
        double x = 0, y = 0, expect = (double)TRIALS / N, expect_step = (double)TRIALS / (N - 1);
        assert_int_equal(step[0], 0);
        for (int i = 0; i < N; i++)
            x += ((double)place[i] - expect) * ((double)place[i] - expect) / expect;
        for (int i = 1; i < N; i++)
            y += ((double)step[i] - expect_step) * ((double)step[i] - expect_step) / expect_step;
        assert_true(x <
                    121); /* 63 and 62 degrees of freedom: above with a chance of 1 in 100,000 */
        assert_true(y < 120);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bijection),
                                       cmocka_unit_test(test_large), cmocka_unit_test(test_known),
                                       cmocka_unit_test(test_uniform)};
    return cmocka_run_group_tests_name("order", tests, NULL, NULL);
}
