/* test_cuda_gemm.c: the GPU's matrix products, on the CPU (tests/shim), have the bits of the CPU's:
 * every orientation, dtype, tile, part (low rank, bias, accumulation), aligned and not; what lies
 * between the rows of C stays as it is, and nothing is read that nobody wrote. And the LM head says
 * which target is outside of the vocabulary. */
#include "ops/gemm/gemm_cuda.h"
#include "tests/shim/shim_test.h"

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

struct matrix {
    void *host, *device, *block;
    i64 bytes;
};

static u32 tag;
/* rows x cols, random, rows `ld` apart, zeros between; `off` bytes past an aligned address. */
static void matrix_open(struct matrix *m, i64 rows, i64 cols, i64 ld, enum dtype type, i64 off) {
    const struct rng r = {7, RNG_TEST, tag++, 0};
    struct err e = {0};
    m->bytes = rows * ld * dtype_size(type);
    m->host = calloc((size_t)(rows * ld + 1), 4);
    m->block = device_new(m->bytes + off, &e);
    assert_true(m->host && m->block);
    m->device = (u8 *)m->block + off;
    for (i64 i = 0; i < rows * ld; i++) {
        if (i % ld >= cols) continue;
        const float x = (2 * rng_uniform(&r, (u64)i) - 1) * (i % 89 == 7 ? 0x1p-100f : 1);
        if (type == BF16)
            ((u16 *)m->host)[i] = bf16_of_f32(x);
        else
            ((float *)m->host)[i] = x;
    }
    assert_int_equal(device_write(m->device, m->host, m->bytes, &e), 0);
}

struct shape {
    i64 m, n, k, rank, pad, off; /* pad: elements between rows; off: bytes off alignment */
};

static bool biased; /* also without a low-rank part */
static void check(struct gemm g, struct shape s) {
    static int turn;
    struct matrix a, b, c, t = {0}, u = {0}, bias = {0};
    struct err e = {0};
    g.m = s.m, g.n = s.n, g.k = s.k, g.rank = s.rank;
    const i64 a_cols = g.a_t ? g.m : g.k, b_cols = g.b_t ? g.k : g.n, u_cols = g.u_t ? g.n : g.rank;
    g.lda = a_cols + s.pad, g.ldb = b_cols + s.pad, g.ldc = g.n + s.pad;
    matrix_open(&a, g.a_t ? g.k : g.m, a_cols, g.lda, g.dtype, s.off);
    matrix_open(&b, g.b_t ? g.n : g.k, b_cols, g.ldb, g.dtype, s.off);
    matrix_open(&c, g.m, g.ldc, g.ldc, g.c_dtype, s.off);
    if (s.rank) {
        matrix_open(&t, g.m, g.rank, g.rank, g.dtype, s.off);
        matrix_open(&u, g.u_t ? g.rank : g.n, u_cols, u_cols, g.dtype, s.off);
        g.scale = 1.75f;
    }
    if (s.rank || biased) matrix_open(&bias, 1, g.n, g.n, g.dtype, s.off);
    struct gemm d = g;
    g.a = a.host, g.b = b.host, g.c = c.host, g.t = t.host, g.u = u.host, g.bias = bias.host;
    d.a = a.device, d.b = b.device, d.c = c.device;
    d.t = t.device, d.u = u.device, d.bias = bias.device;
    void *scratch = malloc((size_t)gemm_scratch(g.m, g.n, g.k, g.rank));
    assert_non_null(scratch);
    gemm_of[isa_now()](&g, scratch);
    shim_late = turn++ % 3 == 2; /* of every orientation and dtype */
    assert_int_equal(gemm_cuda(&d, &e) || device_sync(&e), 0);
    u8 *got = malloc((size_t)c.bytes + 1);
    assert_int_equal(device_read(got, c.device, c.bytes, &e), 0);
    if (memcmp(c.host, got, (size_t)c.bytes) || shim_findings()) {
        i64 i = 0;
        const i64 size = dtype_size(g.c_dtype);
        while (i < c.bytes / size && !memcmp((u8 *)c.host + i * size, got + i * size, (size_t)size))
            i++;
        fail_msg(
            "%s to %s, m=%lld n=%lld k=%lld rank=%lld, a_t=%d b_t=%d u_t=%d, pad %lld, off %lld: "
            "differs at [%lld][%lld] (or findings)",
            dtype_info[g.dtype].name, dtype_info[g.c_dtype].name, (long long)g.m, (long long)g.n,
            (long long)g.k, (long long)g.rank, g.a_t, g.b_t, g.u_t, (long long)s.pad,
            (long long)s.off, (long long)(i / g.ldc), (long long)(i % g.ldc));
    }
    free(got);
    struct matrix *all[] = {&a, &b, &c, &t, &u, &bias};
    for (int i = 0; i < COUNT(all); i++) free(all[i]->host), device_free(all[i]->block);
    free(scratch);
}

static void check_all(struct shape s) {
    for (int i = 0; i < 32; i++) {
        struct gemm g = {.dtype = i & 1 ? BF16 : F32, .a_t = i & 2, .b_t = i & 4, .u_t = i & 8};
        g.c_dtype = i & 16 ? g.dtype : F32, g.accumulate = g.c_dtype == F32;
        if (i & 8 && !s.rank) continue;
        check(g, s);
    }
}

/* The shim has two multiprocessors: 200 x 240 pays large tiles, what is narrow does not. */
static void test_large(void **state) {
    (void)state;
    check_all((struct shape){200, 240, 48, 0, 0, 0});
    check_all((struct shape){243, 235, 19, 0, 5, 0}); /* k that ends in a strip; rows padded */
    check_all((struct shape){248, 200, 16, 24, 0, 0});
}
static void test_small(void **state) {
    (void)state;
    check_all((struct shape){40, 72, 40, 8, 0, 0});
    check_all((struct shape){24, 33, 23, 3, 1, 0});
    check_all((struct shape){33, 20, 37, 5, 0, 4}); /* nothing is aligned to 16 bytes */
    check_all((struct shape){1, 1, 1, 0, 0, 0});
    check_all((struct shape){17, 3, 0, 2, 0, 0});
}
static void test_rows(void **state) {
    (void)state;
    check_all((struct shape){1, 70, 1096, 0, 0, 0}); /* more stages than are under way at a time */
    check_all((struct shape){3, 33, 64, 3, 8, 0});
    check_all((struct shape){16, 65, 136, 8, 0, 0});
}

/* A library that has no way to add a bf16 bias to f32 results multiplies; a kernel of ours adds it,
 * with the same bits. */
static void test_library_without_bias(void **state) {
    (void)state;
    const struct shape s = {40, 72, 40, 0, 3, 0};
    numerics_now = NUMERICS_FAST, biased = true, lt_fake = 1;
    check((struct gemm){.dtype = BF16, .c_dtype = F32, .b_t = true}, s);
    check((struct gemm){.dtype = BF16, .c_dtype = F32, .b_t = true, .accumulate = true}, s);
    check((struct gemm){.dtype = F32, .c_dtype = F32, .b_t = true}, s);
    check((struct gemm){.dtype = BF16, .c_dtype = BF16, .b_t = true}, s); /* all is ours */
    numerics_now = NUMERICS_PORTABLE, biased = false, lt_fake = 0;
}

static void test_bad_target(void **state) {
    (void)state;
    const struct op *op = op_find("linear_xent");
    struct matrix x, w;
    struct err e = {0};
    const i32 target[3] = {1, 5, -1};
    matrix_open(&x, 3, 8, 8, F32, 0), matrix_open(&w, 5, 8, 8, F32, 0);
    void *targets = device_new(sizeof target, &e), *loss = device_new(3 * sizeof(float), &e);
    assert_int_equal(device_write(targets, target, sizeof target, &e), 0);
    const struct xent_attr attr = {0};
    struct op_call c = {.op = op,
                        .attr = &attr,
                        .in = {{.data = x.device, .dtype = F32, .rank = 2, .dim = {3, 8}},
                               {.data = w.device, .dtype = F32, .rank = 2, .dim = {5, 8}},
                               {.data = targets, .dtype = I32, .rank = 1, .dim = {3}}}};
    assert_int_equal(op_shape(&c, &e), 0);
    c.out[0].data = loss, c.scratch = device_new(op_scratch(&c), &e);
    assert_int_equal(op_run(&c, &e), 0);
    assert_int_equal(device_sync(&e), -1);
    assert_non_null(strstr(e.primary, "target id 5 at position 1 is outside the vocabulary of 5"));
    assert_int_equal(shim_findings(), 0);
    float got[3];
    assert_int_equal(device_read(got, loss, sizeof got, &e), 0);
    assert_true(got[0] > 0 && got[1] == 0 && got[2] == 0);
    struct matrix *all[] = {&x, &w};
    for (int i = 0; i < COUNT(all); i++) free(all[i]->host), device_free(all[i]->block);
    device_free(targets), device_free(loss), device_free(c.scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows), cmocka_unit_test(test_small), cmocka_unit_test(test_large),
        cmocka_unit_test(test_library_without_bias), cmocka_unit_test(test_bad_target)};
    struct err e = {0};
    isa_float_mode();
    shim_check = 1;
    numerics_now = NUMERICS_PORTABLE;
    if (pool_start(2, &e) || device_open("cuda", &e)) return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(), pool_stop();
    return failed;
}
