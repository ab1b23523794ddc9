/* test_v16.c: base/v16.h. The functions stay within their stated bounds of long double (over every
 * float, once: exp 1.008, log 0.827, sigmoid 2.481, tanh 1.332, rsqrt 1.491 ulp), and every
 * instruction set gives the same bits for every operation, on numbers of all exponents and on the
 * edges: zeros, denormals (flushed), infinities, NaN, halfway cases, cancelling products. */
#include "tests/v16_probe.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const char *const probe_name[PROBE_COUNT] = {
#define X(name) #name,
    PROBE_LIST(X)
#undef X
};
static probe_fn *const probe[ISA_COUNT] = {
#define X(isa) v16_probe_##isa,
    ISA_LIST(X)
#undef X
};

enum { N = 1 << 16, POINTS = 1 << 13 };
static float a[N], b[N], c[N], out[ISA_COUNT][N];

static float of_bits(u32 u) {
    float f;
    return memcpy(&f, &u, 4), f;
}
static u32 bits_of(float f) {
    u32 u;
    return memcpy(&u, &f, 4), u;
}
static u32 draw(u64 i, int stream) {
    const struct rng r = {5, RNG_TEST, 0, (u32)stream};
    u32 word[4];
    rng_block(&r, i / 4, word);
    return word[i % 4];
}

/* ---- bounds ---- */

static double ulps(float got, long double want) { /* in units of the last place of a normal want */
    const float low = (float)fabsl(want);
    const double unit = (double)of_bits(bits_of(low) + 1) - (double)low;
    return (double)(fabsl((long double)got - want) / (long double)unit);
}
static long double sigmoid(long double x) { return 1 / (1 + expl(-x)); }
static long double rsqrt(long double x) { return 1 / sqrtl(x); }

/* `f` on 2^13 numbers of each exponent of [low, high], of one sign. */
static void check_bound(enum probe f, long double (*want)(long double), float low, float high,
                        double bound) {
    double worst = 0;
    float at = 0;
    const u32 from = bits_of(fminf(fabsf(low), fabsf(high))) & 0x7fffffff,
              to = bits_of(fmaxf(fabsf(low), fabsf(high)));
    const u32 sign = low < 0 ? 0x80000000u : 0;
    for (u32 exponent = from >> 23; exponent <= to >> 23; exponent++) {
        for (i64 i = 0; i < POINTS; i++) {
            u32 u = exponent << 23 | (u32)i << 10 | (draw((u64)i, (int)exponent) & 1023);
            u = u < from ? from : u > to ? to : u;
            a[i] = of_bits(sign | u);
        }
        probe[ISA_plain](f, a, b, c, out[0], POINTS);
        for (i64 i = 0; i < POINTS; i++) {
            const double u = ulps(out[0][i], want((long double)a[i]));
            if (!(u <= worst)) worst = u, at = a[i];
        }
    }
    print_message("%-8s [%.8g, %.8g]: %.3f ulp at %a\n", probe_name[f], (double)low, (double)high,
                  worst, (double)at);
    if (!(worst <= bound)) fail_msg("%s: %g ulp; stated: %g", probe_name[f], worst, bound);
}

static void test_bounds(void **state) {
    (void)state;
    const float least = 0x1p-126f, most = 0x1.fffffep127f;
    check_bound(PROBE_exp, expl, least, 88, 1.01);
    check_bound(PROBE_exp, expl, -87, -least, 1.01);
    check_bound(PROBE_log, logl, least, 0x1.fffffep-1f, 1);
    check_bound(PROBE_log, logl, 0x1.000002p0f, most, 1);
    check_bound(PROBE_sigmoid, sigmoid, least, most, 2.5);
    check_bound(PROBE_sigmoid, sigmoid, -87, -least, 2.5);
    check_bound(PROBE_tanh, tanhl, least, most, 1.5);
    check_bound(PROBE_tanh, tanhl, -most, -least, 1.5);
    check_bound(PROBE_rsqrt, rsqrt, least, most, 1.5);
}

static void check_value(enum probe f, float x, float want) {
    for (i64 i = 0; i < 16; i++) a[i] = x;
    for (enum isa s = 0; s <= isa_best(); s++) {
        probe[s](f, a, b, c, out[s], 16);
        if (isnan(want) ? !isnan(out[s][0]) : bits_of(out[s][0]) != bits_of(want))
            fail_msg("%s(%a) of %s is %a; expected %a", probe_name[f], (double)x, isa_name[s],
                     (double)out[s][0], (double)want);
    }
}
static void test_ends(void **state) {
    (void)state;
    const float top = of_bits(bits_of((float)expl(88)));
    const float cases[][2] = {{0, 1},    {-0.0f, 1},     {INFINITY, top}, {1e30f, top},
                              {89, top}, {-INFINITY, 0}, {-87.01f, 0},    {NAN, NAN}};
    for (i64 i = 0; i < COUNT(cases); i++) check_value(PROBE_exp, cases[i][0], cases[i][1]);
    check_value(PROBE_log, 1, 0);
    check_value(PROBE_sigmoid, 0, 0.5f);
    check_value(PROBE_sigmoid, INFINITY, 1), check_value(PROBE_sigmoid, -INFINITY, 0);
    check_value(PROBE_sigmoid, NAN, NAN), check_value(PROBE_tanh, NAN, NAN);
    check_value(PROBE_tanh, 0, 0), check_value(PROBE_tanh, -0.0f, 0); /* the sign is lost */
    check_value(PROBE_tanh, INFINITY, 1), check_value(PROBE_tanh, -INFINITY, -1);
    const float whole[][2] = {
        {0.5f, 0},     {1.5f, 2},           {-0.5f, -0.0f},        {2.5f, 2},
        {-2.6f, -3},   {0x1.fffffep-2f, 0}, {8388607.5f, 8388608}, {1e30f, 1e30f},
        {-0.0f, -0.0f}};
    for (i64 i = 0; i < COUNT(whole); i++) check_value(PROBE_round, whole[i][0], whole[i][1]);
}

/* ---- the same bits ---- */

static const u32 edges[] = {
    0x00000000, 0x00000001, 0x00400000, 0x007fffff, 0x00800000, 0x00800001, 0x00ffffff, 0x01000000,
    0x33800000, 0x33800001, 0x34000000, 0x3effffff, 0x3f000000, 0x3f7f8000, 0x3f7fffff, 0x3f800000,
    0x3f800001, 0x3f808000, 0x3f818000, 0x3fc00000, 0x40200000, 0x4affffff, 0x4b000000, 0x4b000001,
    0x5f000000, 0x7e800000, 0x7f7f7fff, 0x7f7f8000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000};

/* Numbers that meet: random bits, edges, the neighbourhood of 1, and sums and products that end
 * near zero or at the smallest normal number. */
static void fill(int round) {
    for (i64 i = 0; i < N; i++) {
        const u64 at = (u64)i + (u64)round * N;
        u32 x = draw(at, 1), y = draw(at, 2), z = draw(at, 3);
        const int kind = (int)(at % 5);
        if (kind == 1) { /* edges */
            x = edges[x % COUNT(edges)] | (x & 0x80000000u);
            y = edges[y % COUNT(edges)] | (y & 0x80000000u);
            z = edges[z % COUNT(edges)] | (z & 0x80000000u);
        } else if (kind == 2) { /* near 1 */
            x = (x & 0x80ffffff) + 0x3f000000, y = (y & 0x80ffffff) + 0x3f000000;
            z = (z & 0x80ffffff) + 0x3f000000;
        } else if (kind == 3) { /* c nearly -a*b */
            x = (x & 0x80ffffff) + 0x3f000000, y = (y & 0x80ffffff) + 0x3f000000;
            z = bits_of(-(of_bits(x) * of_bits(y))) + z % 3 - 1;
        } else if (kind == 4) { /* results at the edge of the denormal range */
            x = (x & 0x80ffffff) + 0x20000000, y = (y & 0x80ffffff) + 0x1f000000;
            z = (z & 0x81ffffff);
        }
        a[i] = of_bits(x), b[i] = of_bits(y), c[i] = of_bits(z);
    }
}

/* What an operation is defined for: not NaN where lanes are compared and kept, positive normal
 * numbers for logarithms, small whole numbers as exponents. */
static void restrict_to(enum probe f) {
    for (i64 i = 0; i < N; i++) {
        const u32 u = bits_of(a[i]);
        if (f == PROBE_log || f == PROBE_split2 || f == PROBE_split2_n)
            a[i] = of_bits(0x00800000 + (u & 0x7fffffff) % 0x7f000000);
        if (f == PROBE_scale2)
            a[i] = of_bits((u & 0x807fffff) | 0x3f800000), b[i] = (float)(i % 250) - 125;
        if (f == PROBE_top && isnan(a[i])) a[i] = 0;
    }
}

static void check_same(enum probe f, enum isa s) {
    for (i64 i = 0; i < N; i++) {
        if (bits_of(out[s][i]) == bits_of(out[0][i])) continue;
        if (isnan(out[s][i]) && isnan(out[0][i])) continue; /* which NaN is not defined */
        fail_msg("%s(%a, %a, %a), element %lld: %s gives %a, plain %a", probe_name[f], (double)a[i],
                 (double)b[i], (double)c[i], (long long)i, isa_name[s], (double)out[s][i],
                 (double)out[0][i]);
    }
}

static void test_same_bits(void **state) {
    (void)state;
    for (int round = 0; round < 8; round++)
        for (enum probe f = 0; f < PROBE_COUNT; f++) {
            fill(round), restrict_to(f);
            for (enum isa s = 0; s <= isa_best(); s++) {
                for (i64 i = 0; i < N; i++) out[s][i] = -7;
                probe[s](f, a, b, c, out[s], N);
                check_same(f, s);
            }
        }
}

/* ---- definitions ---- */

static void test_fma_is_fused(void **state) {
    (void)state;
    static const float cases[][4] = {
        {0x1.000002p0f, 0x1.000002p0f, -0x1.000004p0f, 0x1p-46f},
        {0x1.fffffep0f, 0x1.fffffep0f, -0x1.fffffcp1f, 0x1p-46f},
        {0x1p-100f, 0x1p-50f, 0x1p-126f, 0x1p-126f}, /* a tie, to even */
        {0x1p-100f, 0x1p-40f, 0, 0},
        {0x1p-127f, 0x1p100f, 1, 1}, /* a denormal operand is zero */
        {0x1.800002p0f, 0x1.000002p0f, 0x1p-70f, 0x1.800006p0f}};
    for (i64 i = 0; i < COUNT(cases); i++) {
        for (int l = 0; l < 16; l++) b[l] = cases[i][1], c[l] = cases[i][2];
        check_value(PROBE_fma, cases[i][0], cases[i][3]);
        check_value(PROBE_f32_fma, cases[i][0], cases[i][3]);
    }
}

static void test_bf16_rounding(void **state) { /* against its definition in integers */
    (void)state;
    for (int round = 0; round < 4; round++) {
        fill(round);
        for (enum isa s = 0; s <= isa_best(); s++) {
            probe[s](PROBE_rounded, a, b, c, out[s], N);
            for (i64 i = 0; i < N; i++)
                assert_int_equal(bits_of(out[s][i]), (u32)bf16_of_f32(a[i]) << 16);
        }
    }
    static const u32 cases[][2] = {{0x3f808000, 0x3f80}, {0x3f808001, 0x3f81}, {0x3f818000, 0x3f82},
                                   {0x7f7fffff, 0x7f80}, {0x7f800001, 0x7fc0}, {0xff800000, 0xff80},
                                   {0x00008001, 0x0001}, {0x80000000, 0x8000}};
    for (i64 i = 0; i < COUNT(cases); i++)
        assert_int_equal(bf16_of_f32(of_bits(cases[i][0])), cases[i][1]);
}

static void test_order_of_sums(void **state) { /* NUMERICS.md 3 and 7 */
    (void)state;
    fill(0);
    for (i64 i = 0; i < N; i += 16) {
        for (int l = 0; l < 16; l++)
            a[i + l] = of_bits((draw((u64)(i + l), 9) & 0x80ffffff) + 0x3f000000);
        float t[16];
        memcpy(t, a + i, sizeof t);
        for (int half = 8; half; half /= 2)
            for (int l = 0; l < half; l++) t[l] = t[l] + t[l + half];
        b[i] = t[0];
    }
    for (enum isa s = 0; s <= isa_best(); s++) {
        probe[s](PROBE_sum, a, b, c, out[s], N);
        for (i64 i = 0; i < N; i += 16) assert_int_equal(bits_of(out[s][i]), bits_of(b[i]));
    }
    const u16 x[2] = {bf16_of_f32(1), bf16_of_f32(0x1p-20f)}, y[2] = {bf16_of_f32(1), x[1]};
    for (int l = 0; l < 16; l++) memcpy(a + l, x, 4), memcpy(b + l, y, 4), c[l] = 0x1p-24f;
    for (enum isa s = 0; s <= isa_best();
         s++) { /* the odd, small product first; then no bit is lost */
        probe[s](PROBE_dot, a, b, c, out[s], 16);
        assert_int_equal(bits_of(out[s][0]), bits_of(1.0f + (0x1p-24f + 0x1p-40f)));
    }
}

static int setup(void **state) {
    (void)state;
    isa_float_mode();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_same_bits),     cmocka_unit_test(test_fma_is_fused),
        cmocka_unit_test(test_bf16_rounding), cmocka_unit_test(test_order_of_sums)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
