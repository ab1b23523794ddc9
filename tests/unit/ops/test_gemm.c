/* test_gemm.c: matrix products equal, bit for bit, the plainest loop over the chains of NUMERICS.md
 * 2, 3 and 13: every instruction set, orientation, odd size, number of threads. The whole buffer of
 * C is compared, so that a write between or past its rows shows too. */
#include "ops/gemm/gemm.h"
#include "base/v16.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef void gemm_fn(const struct gemm *g, void *scratch);
static gemm_fn *const gemm_of[] = {
#define X(isa) gemm_##isa,
    ISA_LIST(X)
#undef X
};
enum { PAD = 3, GUARD = 256 }; /* elements between rows; bytes past scratch and C */

struct data { /* one product with its own memory */
    struct gemm g;
    void *block[8];
    i64 c_bytes;
};

static u32 tag;
static void *random_matrix(struct data *d, int slot, i64 rows, i64 ld, enum dtype type) {
    const struct rng r = {5, RNG_TEST, tag, (u32)slot};
    u8 *p = d->block[slot] = calloc((size_t)(rows * ld + 1), 4);
    assert_non_null(p);
    p += type == BF16 ? 2 : 4; /* off the natural alignment */
    for (i64 i = 0; i < rows * ld; i++) {
        float x = 2 * rng_uniform(&r, (u64)i) - 1;
        if (i % 97 == 13) x = 0;
        if (i % 89 == 7) x *= 0x1p-100f; /* products of these underflow */
        if (type == BF16)
            ((u16 *)(void *)p)[i] = bf16_of_f32(x);
        else
            ((float *)(void *)p)[i] = x;
    }
    return p;
}

static void data_open(struct data *d, struct gemm g) {
    *d = (struct data){.g = g};
    struct gemm *q = &d->g;
    q->lda = (q->a_t ? q->m : q->k) + PAD, q->ldb = (q->b_t ? q->k : q->n) + PAD;
    q->ldc = q->n + PAD;
    q->a = random_matrix(d, 0, q->a_t ? q->k : q->m, q->lda, q->dtype);
    q->b = random_matrix(d, 1, q->b_t ? q->n : q->k, q->ldb, q->dtype);
    q->c = random_matrix(d, 2, q->m, q->ldc, q->c_dtype);
    d->c_bytes = q->m * q->ldc * dtype_size(q->c_dtype);
    if (q->rank) q->t = random_matrix(d, 3, q->m, q->rank, q->dtype);
    if (q->rank) q->u = random_matrix(d, 4, q->n, q->rank, q->dtype);
    if (q->bias) q->bias = random_matrix(d, 5, 1, q->n, q->dtype);
}
static void data_close(struct data *d) {
    for (int i = 0; i < COUNT(d->block); i++) free(d->block[i]);
}

static float at(const void *p, i64 i, enum dtype type) {
    return type == BF16 ? bf16_to_f32(((const u16 *)p)[i]) : ((const float *)p)[i];
}
/* One sum: x[k * dx] * y[k * dy], by the chain of the dtype, from `c`. */
static float chain(const void *x, i64 x_at, i64 dx, const void *y, i64 y_at, i64 dy, i64 k,
                   enum dtype type, float c) {
    if (type == F32) {
        for (i64 p = 0; p < k; p++)
            c = v16_fma1(at(x, x_at + p * dx, type), at(y, y_at + p * dy, type), c);
        return c;
    }
    for (i64 p = 0; p < k; p += 2) {
        const bool odd = p + 1 < k;
        c = v16_fma1(odd ? at(x, x_at + (p + 1) * dx, type) : 0,
                     odd ? at(y, y_at + (p + 1) * dy, type) : 0, c);
        c = v16_fma1(at(x, x_at + p * dx, type), at(y, y_at + p * dy, type), c);
    }
    return c;
}
static void naive(const struct gemm *g) {
    for (i64 i = 0; i < g->m; i++)
        for (i64 j = 0; j < g->n; j++) {
            float c = g->accumulate ? ((float *)g->c)[i * g->ldc + j] : 0;
            c = chain(g->a, g->a_t ? i : i * g->lda, g->a_t ? g->lda : 1, g->b,
                      g->b_t ? j * g->ldb : j, g->b_t ? 1 : g->ldb, g->k, g->dtype, c);
            if (g->t)
                c = v16_fma1(g->scale,
                             chain(g->t, i * g->rank, 1, g->u, g->u_t ? j : j * g->rank,
                                   g->u_t ? g->n : 1, g->rank, g->dtype, 0),
                             c);
            if (g->bias) c += at(g->bias, j, g->dtype);
            if (g->c_dtype == BF16)
                ((u16 *)g->c)[i * g->ldc + j] = bf16_of_f32(c);
            else
                ((float *)g->c)[i * g->ldc + j] = c;
        }
}

static void run(int isa, const struct gemm *g) {
    const i64 bytes = gemm_scratch(g->m, g->n, g->k, g->rank);
    u8 *scratch = malloc((size_t)bytes + GUARD);
    assert_non_null(scratch);
    memset(scratch, 0xff,
           (size_t)bytes + GUARD); /* NaN: nothing may be read before it is written */
    gemm_of[isa](g, scratch);
    for (int i = 0; i < GUARD; i++) assert_int_equal(scratch[bytes + i], 0xff);
    free(scratch);
}

/* The product on every instruction set equals the naive loop. */
static void check(struct gemm shape) {
    tag++;
    struct data d;
    data_open(&d, shape);
    u8 *before = malloc((size_t)d.c_bytes), *want = malloc((size_t)d.c_bytes);
    assert_true(before && want);
    memcpy(before, d.g.c, (size_t)d.c_bytes);
    naive(&d.g);
    memcpy(want, d.g.c, (size_t)d.c_bytes);
    for (int isa = 0; isa <= (int)isa_best(); isa++) {
        memcpy(d.g.c, before, (size_t)d.c_bytes);
        run(isa, &d.g);
        if (!memcmp(d.g.c, want, (size_t)d.c_bytes)) continue;
        i64 i = 0;
        const i64 size = dtype_size(d.g.c_dtype);
        while (!memcmp((u8 *)d.g.c + i * size, want + i * size, (size_t)size)) i++;
        fail_msg("%s %s m=%lld n=%lld k=%lld a_t=%d b_t=%d rank=%lld: c[%lld][%lld] is %.9g, the "
                 "loop says %.9g",
                 isa_name[isa], dtype_info[d.g.dtype].name, (long long)d.g.m, (long long)d.g.n,
                 (long long)d.g.k, d.g.a_t, d.g.b_t, (long long)d.g.rank, (long long)(i / d.g.ldc),
                 (long long)(i % d.g.ldc), (double)at(d.g.c, i, d.g.c_dtype),
                 (double)at(want, i, d.g.c_dtype));
    }
    free(before), free(want);
    data_close(&d);
}

static const i64 odd_sizes[][3] = {{1, 1, 1},    {1, 33, 7},   {2, 16, 2},   {3, 5, 64},
                                   {4, 32, 15},  {5, 31, 33},  {8, 48, 17},  {14, 32, 16},
                                   {15, 33, 1},  {13, 65, 31}, {29, 17, 40}, {43, 70, 19},
                                   {17, 1, 257}, {1, 50, 600}, {6, 34, 1031}};

static void test_orientations(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(odd_sizes); s++)
        for (int bits = 0; bits < 16; bits++) {
            struct gemm g = {.m = odd_sizes[s][0], .n = odd_sizes[s][1], .k = odd_sizes[s][2]};
            g.a_t = bits & 1, g.b_t = bits & 2, g.dtype = bits & 4 ? BF16 : F32;
            g.accumulate = bits & 8;
            g.c_dtype = g.accumulate ? F32 : g.dtype;
            check(g);
        }
}
static void test_blocks(void **state) { /* more rows, columns and k than a block holds */
    (void)state;
    static const i64 size[][3] = {{1350, 35, 9}, {9, 2100, 9}, {200, 40, 530}, {16, 1040, 1030}};
    for (int s = 0; s < COUNT(size); s++)
        for (int is_bf16 = 0; is_bf16 < 2; is_bf16++)
            check((struct gemm){.m = size[s][0],
                                .n = size[s][1],
                                .k = size[s][2],
                                .b_t = s % 2,
                                .dtype = is_bf16 ? BF16 : F32,
                                .c_dtype = is_bf16 ? BF16 : F32,
                                .rank = s == 2 ? 300 : 0,
                                .scale = 0.5f});
}
static void test_low_rank_and_bias(void **state) {
    (void)state;
    static const i64 rank[] = {1, 4, 7, 8, 16, 64};
    for (int r = 0; r < COUNT(rank); r++)
        for (int bits = 0; bits < 16; bits++)
            check((struct gemm){.m = 19,
                                .n = 45,
                                .k = 21,
                                .b_t = bits & 1,
                                .u_t = bits & 2,
                                .rank = rank[r],
                                .scale = 1.7f,
                                .bias = bits & 4 ? "" : NULL,
                                .dtype = bits & 8 ? BF16 : F32,
                                .c_dtype = bits & 8 ? BF16 : F32});
    for (int is_bf16 = 0; is_bf16 < 2; is_bf16++)
        check((struct gemm){.m = 5, .n = 40, .k = 9, .bias = "", .dtype = is_bf16 ? BF16 : F32});
    for (int n = 0; n < 24; n++) /* the few rows of a decoding step */
        check((struct gemm){.m = n % 4 + 1,
                            .n = 45,
                            .k = 37 + 8 * n,
                            .b_t = true,
                            .rank = rank[n / 4],
                            .scale = 1.7f,
                            .bias = n % 3 ? "" : NULL,
                            .dtype = (n + n / 4) % 2 ? BF16 : F32,
                            .c_dtype = (n + n / 4) % 2 ? BF16 : F32});
}

static void test_threads(void **state) {
    (void)state;
    static const int threads[] = {2, 3, 8, 1};
    struct err e = {0};
    for (int t = 0; t < COUNT(threads); t++) {
        pool_stop();
        assert_int_equal(pool_start(threads[t], &e), 0);
        for (int is_bf16 = 0; is_bf16 < 2; is_bf16++) {
            struct gemm g = {.m = 61, .n = 200, .k = 300, .b_t = true, .rank = 8, .scale = 0.5f};
            g.dtype = g.c_dtype = is_bf16 ? BF16 : F32;
            check(g);
            g.m = 1, check(g);
            g.m = 3, g.n = 5, check(g);
        }
    }
}

static void test_two_calls_are_one(void **state) { /* k cut at an even place, sums kept in f32 */
    (void)state;
    for (int is_bf16 = 0; is_bf16 < 2; is_bf16++)
        for (int isa = 0; isa <= (int)isa_best(); isa++) {
            struct data d;
            data_open(&d, (struct gemm){.m = 33,
                                        .n = 50,
                                        .k = 320,
                                        .a_t = true,
                                        .accumulate = true,
                                        .dtype = is_bf16 ? BF16 : F32});
            float *once = malloc((size_t)d.c_bytes);
            assert_non_null(once);
            struct gemm one = d.g, part = d.g;
            memcpy(once, d.g.c, (size_t)d.c_bytes);
            one.c = once;
            run(isa, &one);
            part.k = 118;
            run(isa, &part);
            part.k = d.g.k - 118;
            part.a = (const u8 *)d.g.a + 118 * d.g.lda * dtype_size(d.g.dtype);
            part.b = (const u8 *)d.g.b + 118 * d.g.ldb * dtype_size(d.g.dtype);
            run(isa, &part);
            assert_memory_equal(once, d.g.c, (size_t)d.c_bytes);
            free(once);
            data_close(&d);
        }
}

static void test_few_rows_equal_many(void **state) { /* a decoding step sees the bits of training */
    (void)state;
    for (int is_bf16 = 0; is_bf16 < 2; is_bf16++)
        for (int isa = 0; isa <= (int)isa_best(); isa++) {
            struct data d;
            data_open(&d,
                      (struct gemm){
                          .m = 40, .n = 77, .k = 290, .b_t = true, .dtype = is_bf16 ? BF16 : F32});
            run(isa, &d.g);
            float *few = calloc((size_t)(d.g.m * d.g.ldc), sizeof *few);
            assert_non_null(few);
            for (i64 m = 1; m <= 16; m++) {
                struct gemm g = d.g;
                g.m = m, g.c = few;
                g.a = (const u8 *)d.g.a + 3 * d.g.lda * dtype_size(d.g.dtype);
                run(isa, &g);
                for (i64 i = 0; i < m; i++)
                    assert_memory_equal(few + i * g.ldc, (float *)d.g.c + (i + 3) * g.ldc,
                                        (size_t)g.n * sizeof *few);
            }
            free(few);
            data_close(&d);
        }
}

int main(void) {
    isa_float_mode();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orientations),      cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_low_rank_and_bias), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_two_calls_are_one), cmocka_unit_test(test_few_rows_equal_many)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
