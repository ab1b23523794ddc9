/* The functions of math.c and philox.c against the platform's long double libm (64-bit mantissa),
 * which is loaded at run time: the program itself must not be linked with libm. */
#include "base/base.h"
#include <dlfcn.h>
#include <float.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

typedef long double reference(long double);
static void *libm;

static reference *find(const char *name) {
    reference *fn;
    *(void **)&fn = dlsym(libm, name);
    assert_non_null(fn);
    return fn;
}

static double uniform(u64 *state) { /* [0, 1): a plain generator, independent of what is tested */
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-53;
}

static double ulps(double got, long double want) { /* error in units of the last place of `want` */
    union {
        double d;
        u64 u;
    } v = {.d = (double)(want < 0 ? -want : want)}, next = v;
    next.u++;
    long double error = (long double)got - want;
    return (double)((error < 0 ? -error : error) / ((long double)next.d - v.d));
}

static void check(const char *name, double (*fn)(double), const char *reference_name, double low,
                  double high, double bound) {
    reference *want = find(reference_name);
    double worst = 0, at = 0;
    u64 state = 1;
    for (int i = 0; i < 200000; i++) {
        double x = low + (high - low) * uniform(&state), u = ulps(fn(x), want(x));
        if (!(u <= worst)) worst = u, at = x;
    }
    if (!(worst <= bound)) fail_msg("%s: %g ulp at %a (bound %g)", name, worst, at, bound);
    print_message("%-6s [%g, %g]: %.3f ulp\n", name, low, high, worst);
}

static void test_ulps(void **unused) {
    (void)unused;
    check("exp", m_exp, "expl", -1, 1, 1);
    check("exp", m_exp, "expl", -708.3, 709.7, 1);
    check("log", m_log, "logl", 0.5, 2, 1);
    check("log", m_log, "logl", 1e-300, 1e-290, 1);
    check("log", m_log, "logl", 1e-9, 1e9, 1);
    check("sin", m_sin, "sinl", -1.6, 1.6, 1);
    check("sin", m_sin, "sinl", -1e6, 1.6e6, 1);
    check("cos", m_cos, "cosl", -1.6, 1.6, 1);
    check("cos", m_cos, "cosl", -1e6, 1.6e6, 1);
    check("tanh", m_tanh, "tanhl", -1e-3, 1e-3, 1);
    check("tanh", m_tanh, "tanhl", -3, 3, 1);
    check("tanh", m_tanh, "tanhl", -25, 25, 1);
    check("erf", m_erf, "erfl", -0.5, 0.5, 1);
    check("erf", m_erf, "erfl", -2, 2, 2);
    check("erf", m_erf, "erfl", -7, 7, 2);
}

static void test_sin_at_integers(void **unused) { /* rope positions, and near multiples of pi/2 */
    (void)unused;
    reference *sine = find("sinl"), *cosine = find("cosl");
    for (int i = 0; i < 1000000; i += 7) {
        assert_true(ulps(m_sin(i), sine(i)) < 1 || i == 0);
        assert_true(ulps(m_cos(i), cosine(i)) < 1);
        double x = i * 0x1.921fb54442d18p+0;
        assert_true(ulps(m_sin(x), sine(x)) < 1 || i == 0);
        assert_true(ulps(m_cos(x), cosine(x)) < 1);
    }
}

static void test_pow(void **unused) {
    (void)unused;
    long double (*want)(long double, long double);
    *(void **)&want = dlsym(libm, "powl");
    double worst = 0;
    u64 state = 2;
    for (int i = 0; i < 300000; i++) {
        double x = i & 1 ? 10000 + 1e6 * uniform(&state) : m_exp(1400 * uniform(&state) - 700);
        double y = i & 1 ? -uniform(&state) : (1416 * uniform(&state) - 708) / m_log(x);
        double u = ulps(m_pow(x, y), want(x, y));
        if (want(x, y) < DBL_MIN || want(x, y) > DBL_MAX) continue;
        if (!(u <= worst)) worst = u;
    }
    print_message("pow: %.3f ulp\n", worst);
    assert_true(worst <= 2);
    for (int i = 0; i <= 64; i++) /* exact ones */
        assert_true(m_pow(2, i) == (double)(1ull << (i & 63)) || i == 64);
}

static void test_special(void **unused) {
    (void)unused;
    const double inf = (double)__builtin_inff(), nan = (double)__builtin_nanf("");
    assert_true(m_exp(0) == 1 && m_exp(710) == inf && m_exp(-inf) == 0 && m_exp(inf) == inf);
    assert_true(m_exp(-709) == 0 && m_exp(-740) == 0); /* below the normal range */
    assert_true(m_log(1) == 0 && m_log(0) == -inf && m_log(inf) == inf && m_log(-1) != m_log(-1));
    assert_true(m_pow(0, 0) == 1 && m_pow(0, 2) == 0 && m_pow(0, -1) == inf && m_pow(-2, 3) == -8);
    assert_true(m_pow(-2, 2) == 4 && m_pow(-2, 0.5) != m_pow(-2, 0.5) && m_pow(1, nan) == 1);
    assert_true(m_pow(2, inf) == inf && m_pow(0.5, inf) == 0 && m_pow(-1, inf) == 1);
    assert_true(m_pow(2, -1e300) == 0 && m_pow(0.5, 1e300) == 0 && m_pow(2, 1e300) == inf);
    assert_true(m_tanh(inf) == 1 && m_tanh(-50) == -1 && m_tanh(0) == 0 && m_erf(inf) == 1);
    assert_true(m_erf(-9) == -1 && m_erf(0) == 0 && m_sin(0) == 0 && m_cos(0) == 1);
    double (*const fn[])(double) = {m_exp, m_log, m_sin, m_cos, m_tanh, m_erf};
    for (i64 i = 0; i < COUNT(fn); i++) assert_true(fn[i](nan) != fn[i](nan));
    assert_true(m_sin(1e7) != m_sin(1e7)); /* refused, not wrong */
}

/* Known answers published with Random123. */
static void test_philox(void **unused) {
    (void)unused;
    static const u32 kat[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1}};
    for (int i = 0; i < 3; i++) {
        u32 out[4];
        philox(kat[i] + 4, kat[i], out);
        assert_memory_equal(out, kat[i] + 6, sizeof out);
    }
}

static void test_rng(void **unused) {
    (void)unused;
    struct rng a = {.seed = 7, .purpose = RNG_TEST, .step = 3, .stream = 5}, b = a;
    u32 x[4], y[4];
    rng_block(&a, 1, x);
    for (int i = 0; i < 5; i++, b = a) { /* every part of the position changes the numbers */
        if (i == 0) b.seed += 1ull << 32;
        if (i == 1) b.purpose--;
        if (i == 2) b.step++;
        if (i == 3) b.stream++;
        rng_block(&b, i == 4 ? 1ull << 32 | 1 : 1, y);
        assert_memory_not_equal(x, y, sizeof x);
    }
    double sum = 0, square = 0, low = 1, high = 0, mean = 0;
    enum { N = 100000 };
    for (u64 i = 0; i < N; i++) {
        double n = (double)rng_normal(&a, i), u = (double)rng_uniform(&a, i),
               v = rng_uniform_f64(&a, i);
        sum += n, square += n * n, mean += u + v;
        low = u < low ? u : low, high = u > high ? u : high;
        assert_true(u > 0 && u < 1 && v > 0 && v < 1);
    }
    assert_true(sum / N < 0.015 && sum / N > -0.015 && square / N > 0.98 && square / N < 1.02);
    assert_true(low < 1e-4 && high > 1 - 1e-4 && mean / N > 0.99 && mean / N < 1.01);
}

int main(void) {
    libm = dlopen("libm.so.6", RTLD_NOW);
    if (!libm) return 1;
    isa_float_mode(); /* as every thread of the program */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ulps),   cmocka_unit_test(test_sin_at_integers),
        cmocka_unit_test(test_pow),    cmocka_unit_test(test_special),
        cmocka_unit_test(test_philox), cmocka_unit_test(test_rng),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
