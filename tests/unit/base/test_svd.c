/* test_svd.c: the largest singular values and their vectors: of matrices whose own are known, of
 * awkward ones (equal values, too few of them, none), and the same bits on any number of threads
 * and any instruction set. HONE_TABLE=1 prints how long large ones take. */
#include "base/base.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static float *matrix(i64 rows, i64 cols, u32 stream, int kind) {
    const struct rng r = {7, RNG_INIT, stream, 0};
    float *w = calloc((size_t)(rows * cols), sizeof *w);
    for (i64 i = 0; i < rows * cols; i++) w[i] = rng_normal(&r, (u64)i);
    if (kind == 1) /* falls off, as trained weights do */
        for (i64 i = 0; i < rows * cols; i++)
            w[i] = w[i] / (float)(1 + i % cols) + 3 * w[i / cols] * w[i % cols];
    return w;
}
struct found {
    double *s, *u, *v;
};
static struct found find(const float *w, i64 rows, i64 cols, i64 r) {
    struct err e = {0};
    struct found f = {calloc((size_t)r, 8), calloc((size_t)(r * rows), 8),
                      calloc((size_t)(r * cols), 8)};
    if (svd_top(w, rows, cols, r, f.s, f.u, f.v, &e)) fail_msg("%s", e.primary);
    return f;
}
static void done(struct found *f) { free(f->s), free(f->u), free(f->v); }

static double product(const double *a, const double *b, i64 n) {
    double sum = 0;
    for (i64 i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}
/* w v = s u, u w = s v, vectors orthonormal (u of a zero value is zero). */
static void check(const float *w, i64 rows, i64 cols, i64 r, const struct found *f) {
    for (i64 k = 0; k < r; k++) {
        const double *u = f->u + k * rows, *v = f->v + k * cols;
        const double bound = 2e-10 * f->s[0] * f->s[0] / f->s[k];
        if (!(f->s[k] > 1e-7 * f->s[0])) continue; /* noise in G */
        for (i64 i = 0; i < rows; i++) {
            double sum = 0;
            for (i64 j = 0; j < cols; j++) sum += (double)w[i * cols + j] * v[j];
            assert_true(fabs(sum - f->s[k] * u[i]) <= bound);
        }
        for (i64 j = 0; j < cols; j++) {
            double sum = 0;
            for (i64 i = 0; i < rows; i++) sum += (double)w[i * cols + j] * u[i];
            assert_true(fabs(sum - f->s[k] * v[j]) <= bound);
        }
        assert_true(!k || f->s[k] <= f->s[k - 1]);
        for (i64 l = 0; l <= k; l++) {
            const double near = 1e-9 * f->s[0] * f->s[0] / (f->s[k] * f->s[l]);
            assert_true(fabs(product(u, f->u + l * rows, rows) - (k == l)) <= near);
            assert_true(fabs(product(v, f->v + l * cols, cols) - (k == l)) <= near);
        }
    }
}

static void test_found(void **state) {
    (void)state;
    static const i64 size[][3] = {{1, 1, 1},    {5, 3, 3},     {3, 7, 2},     {36, 36, 4},
                                  {150, 40, 8}, {40, 150, 16}, {131, 257, 5}, {300, 200, 64}};
    for (int i = 0; i < COUNT(size); i++)
        for (int kind = 0; kind < 2; kind++) {
            const i64 rows = size[i][0], cols = size[i][1], r = size[i][2];
            float *w = matrix(rows, cols, (u32)i, kind);
            struct found f = find(w, rows, cols, r),
                         all = find(w, rows, cols, i64_min(rows, cols)); /* by one eigenproblem */
            check(w, rows, cols, r, &f);
            for (i64 k = 0; k < r; k++)
                assert_true(fabs(f.s[k] - all.s[k]) * all.s[k] <= 1e-11 * all.s[0] * all.s[0]);
            done(&f), done(&all), free(w);
        }
}

/* Zero; one value many times; rank 3; values from 1 to 1e-12, whose small ones are noise in G. */
static void test_awkward(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        const i64 n = 120, r = 20;
        float *w = calloc((size_t)(n * n), sizeof *w);
        for (i64 i = 0; i < n; i++)
            w[i * n + i] = kind == 1   ? 2.0f
                           : kind == 2 ? (i < 3 ? (float)(3 - i) : 0)
                           : kind == 3 ? (float)m_exp(-0.25 * (double)i)
                                       : 0;
        struct found f = find(w, n, n, r);
        for (i64 k = 0; k < r; k++) {
            const double want = kind == 3 ? (double)w[k * n + k] : kind == 1 ? 2 : w[k * n + k];
            assert_true(fabs(f.s[k] - want) <= 1e-7);
        }
        check(w, n, n, r, &f);
        done(&f), free(w);
    }
}

static void test_bits(void **state) {
    (void)state;
    const i64 rows = 203, cols = 117, r = 9;
    float *w = matrix(rows, cols, 3, 0);
    struct err e = {0};
    assert_int_equal(0, pool_start(1, &e));
    struct found first = find(w, rows, cols, r);
    for (int threads = 1; threads <= 3; threads++)
        for (int isa = 0; isa <= (int)isa_best(); isa++) {
            pool_stop();
            assert_int_equal(0, pool_start(threads, &e) || isa_force(isa_name[isa], &e));
            struct found f = find(w, rows, cols, r);
            assert_memory_equal(f.s, first.s, (size_t)r * 8);
            assert_memory_equal(f.u, first.u, (size_t)(r * rows) * 8);
            assert_memory_equal(f.v, first.v, (size_t)(r * cols) * 8);
            done(&f);
        }
    pool_stop(), done(&first), free(w);
}

static void time_of(i64 n, i64 r, int kind) {
    float *w = matrix(n, n, 5, kind);
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    struct found f = find(w, n, n, r);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("[%lld, %lld], r %lld, %s: %.1f s\n", (long long)n, (long long)n, (long long)r,
           kind ? "falling off" : "random",
           (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9);
    done(&f), free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_found), cmocka_unit_test(test_awkward),
                                       cmocka_unit_test(test_bits)};
    isa_float_mode();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    struct err e = {0};
    if (getenv("HONE_TABLE") && !pool_start(0, &e)) {
        for (int kind = 0; kind < 2; kind++)
            time_of(2048, 16, kind), time_of(4096, 16, kind), time_of(2048, 128, kind);
        pool_stop();
    }
    return failed;
}
