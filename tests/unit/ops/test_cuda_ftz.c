/* test_cuda_ftz.c: where numbers become too small. Results below 2^-126 are flushed to zero
 * (NUMERICS.md 1), and a processor may ask whether they are before or after it rounds: a product a
 * little below 2^-126 that rounds to 2^-126 is zero on the one and 2^-126 on the other. x86 asks
 * after; what a GPU does, NVIDIA does not say. So this sweeps operands around that edge and
 * compares bits with the CPU. In the shim it shows that the sweep reaches the edge and the kernel
 * runs; it answers on a GPU (tests/gpu/test.sh). */
#include "tests/gpu/ftz.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 1 << 13 };
static float a[N], b[N], c[N], want[N], got[N];
static probe_fn *const cpu[ISA_COUNT] = {v16_probe_plain, v16_probe_avx2, v16_probe_avx512,
                                         v16_probe_avx512bf16};

static float f32_of(u32 u) {
    float f;
    return memcpy(&f, &u, 4), f;
}
static u32 bits_of(float f) {
    u32 u;
    return memcpy(&u, &f, 4), u;
}
static u32 word(i64 i, u32 stream) {
    u32 out[4];
    const struct rng r = {11, RNG_TEST, 0, stream};
    return rng_block(&r, (u64)i / 4, out), out[i % 4];
}
/* 1.m * 2^power */
static float number(u32 mantissa, int power, u32 sign) {
    return f32_of((sign & 1) << 31 | (u32)(power + 127) << 23 | (mantissa & 0x7fffff));
}

/* Pairs whose product is within a few units of 2^-126, on both sides. */
static void edge(i64 i) {
    const u32 x = word(i, 1), y = word(i, 2);
    const int power = -20 - (int)(x >> 24) % 80;
    const float m = number(x, 0, 0);
    const u32 near = bits_of((float)(2.0 / (double)m)) + y % 5 - 2; /* m * near is about 2 */
    a[i] = number(x, power, y >> 8), b[i] = f32_of(near + (u32)(-127 - power) * 0x800000u);
    /* + 0, what is flushed before it is added, and what leaves 2^-126 or nearly so */
    const float more[4] = {0, f32_of(y >> 10), number(0, -125, 0), number(y >> 12, -126, y >> 9)};
    c[i] = more[i / 4 % 4] * (i / 16 % 2 ? 1 : -1);
}
/* Operands whose sum, product or quotient is anywhere between 2^-130 and 2^-122. */
static void around(i64 i, enum probe what) {
    const u32 x = word(i, 3), y = word(i, 4), z = word(i, 5);
    const int power = (int)(z % 60) - 90, result = (int)(z >> 8) % 9 - 130;
    a[i] = number(x, power, z >> 16);
    b[i] = number(y, what == PROBE_DIV ? power - result : result - power, z >> 17);
    c[i] = number(z, (int)(z >> 20) % 5 - 126, z >> 18);
    if (what == PROBE_ADD || what == PROBE_SUB)
        a[i] = number(x, (int)(z >> 8) % 4 - 126, z >> 16),
        b[i] = number(x + y % 64, (int)(z >> 8) % 4 - 126, z >> 17);
}

static void *there(const float *from) {
    struct err e = {0};
    void *p = device_new(sizeof a, &e);
    assert_non_null(p);
    if (from) assert_int_equal(device_write(p, from, sizeof a, &e), 0);
    return p;
}

/* How many of N products are below 2^-126 and round to it. */
static int at_the_edge(void) {
    int n = 0;
    for (i64 i = 0; i < N; i++) {
        const long double exact = fabsl((long double)a[i] * (long double)b[i]);
        n += exact < 0x1p-126L && exact >= 0x1p-126L * (1 - 0x1p-25L);
    }
    return n;
}

static void test_flush(void **state) {
    static const enum probe all[] = {PROBE_MUL, PROBE_FMA, PROBE_ADD, PROBE_SUB, PROBE_DIV};
    struct err e = {0};
    (void)state;
    assert_int_equal(device_open("cuda", &e), 0);
    for (int k = 0; k < 2 * COUNT(all); k++) {
        const enum probe what = all[k / 2];
        if (k % 2 == 0 && what != PROBE_MUL && what != PROBE_FMA) continue;
        for (i64 i = 0; i < N; i++)
            if (k % 2)
                around(i, what);
            else
                edge(i);
        if (k % 2 == 0) assert_true(at_the_edge() > N / 50);
        cpu[isa_now()](what, a, b, c, want, N);
        float *x = there(a), *y = there(b), *z = there(c), *out = there(NULL);
        assert_int_equal(ftz_run(what, x, y, z, out, N, &e), 0);
        assert_int_equal(device_read(got, out, sizeof got, &e), 0);
        int differ = 0;
        i64 first = 0;
        for (i64 i = N - 1; i >= 0; i--)
            if (memcmp(&want[i], &got[i], 4)) differ++, first = i;
        if (differ)
            fail_msg("operation %d: %d of %d differ; the first: a %a, b %a, c %a: CPU %a, GPU %a: "
                     "the GPU flushes at another moment than NUMERICS.md 1 says",
                     (int)what, differ, (int)N, (double)a[first], (double)b[first],
                     (double)c[first], (double)want[first], (double)got[first]);
        device_free(x), device_free(y), device_free(z), device_free(out);
    }
    device_close();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_flush)};
    struct err e = {0};
    isa_float_mode();
    if (pool_start(1, &e)) return 1;
    const int failed = cmocka_run_group_tests_name("flush to zero", tests, NULL, NULL);
    pool_stop();
    return failed;
}
