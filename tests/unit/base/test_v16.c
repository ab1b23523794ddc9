/* test_v16.c: the vocabulary of the kernels. Every operation gives the same bits on every
 * instruction set, over random bit patterns, edge cases and sums that cancel or underflow; plain C
 * is held against definitions, and the functions against long double, within the bounds that
 * base/v16.h states, over all exponents. */
#include "tests/unit/base/v16_probe.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static probe_fn *const probe[ISA_COUNT] = {v16_probe_plain, v16_probe_avx2, v16_probe_avx512,
                                           v16_probe_avx512bf16};
static const char *const probe_name[PROBE_COUNT] = {
#define X(name) #name,
    PROBE_LIST(X)
#undef X
};

static float f32_of(u32 u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static u32 bits_of(float f) {
    u32 u;
    memcpy(&u, &f, 4);
    return u;
}
static bool denormal(float f) { /* by its bits: comparisons would flush it */
    return !(bits_of(f) & 0x7f800000) && (bits_of(f) & 0x7fffff);
}
static u32 word(u64 i, u32 stream) {
    u32 out[4];
    const struct rng r = {5, RNG_TEST, 0, stream};
    rng_block(&r, i / 4, out);
    return out[i % 4];
}

static const u32 edges[] = {
    0x00000000, 0x00000001, 0x007fffff, 0x00800000, 0x00800001, 0x00ffffff, 0x01000000, 0x33800000,
    0x34000000, 0x3f000000, 0x3f7fffff, 0x3f800000, 0x3f800001, 0x3fc00000, 0x40200000, 0x4afffffd,
    0x4b000000, 0x4b000001, 0x4b800000, 0x4f000000, 0x5f000000, 0x7f000000, 0x7f7fffff, 0x7f800000,
    0x7fc00000, 0x7f800001, 0x3f008000, 0x3f018000, 0x3f007fff, 0x42b00000, 0x42ae0000, 0x7f7f8000};

/* Operand triples: which of the kinds `i` falls in decides how the three relate. */
enum { KINDS = 6, TRIALS = 1 << 20 };
static void triple(u64 i, float *a, float *b, float *c) {
    const u32 x = word(i, 1), y = word(i, 2), z = word(i, 3);
    *a = f32_of(x), *b = f32_of(y), *c = f32_of(z);
    switch (i / 64 % KINDS) {
    case 0: /* any bits */ break;
    case 1: /* edges */
        *a = f32_of(edges[x % COUNT(edges)] | (x & 0x80000000u));
        *b = f32_of(edges[y % COUNT(edges)] | (y & 0x80000000u));
        *c = f32_of(edges[z % COUNT(edges)] | (z & 0x80000000u));
        break;
    case 2: /* ordinary numbers, exponents within 2^-8 .. 2^8 */
        *a = f32_of((x & 0x807fffff) | (119 + (x >> 23) % 16) << 23);
        *b = f32_of((y & 0x807fffff) | (119 + (y >> 23) % 16) << 23);
        *c = f32_of((z & 0x807fffff) | (119 + (z >> 23) % 16) << 23);
        break;
    case 3: /* a*b + c cancels, but for a few bits */
        *a = f32_of((x & 0x807fffff) | 127u << 23), *b = f32_of((y & 0x807fffff) | 127u << 23);
        *c = f32_of(bits_of(-(*a * *b)) + z % 5 - 2);
        break;
    case 4: /* the product, or the sum, lies at the edge of the denormal range */
        *a = f32_of((x & 0x807fffff) | (60 + (x >> 23) % 8) << 23);
        *b = f32_of((y & 0x807fffff) | (62 + (y >> 23) % 8) << 23);
        *c = f32_of((z & 0x807fffff) | (z >> 23) % 4 << 23);
        break;
    default: /* halves and whole numbers */
        *a = (float)((i32)(x % 4001) - 2000) / 2, *b = (float)((i32)(y % 41) - 20) / 2,
        *c = (float)((i32)(z % 61) - 30);
    }
}

static struct { float a[TRIALS], b[TRIALS], c[TRIALS], out[ISA_COUNT][TRIALS]; } * t;

static bool same(float x, float y) { return bits_of(x) == bits_of(y) || (isnan(x) && isnan(y)); }

static int trials_open(void **state) {
    (void)state;
    isa_float_mode();
    if (!(t = malloc(sizeof *t))) return -1;
    for (i64 i = 0; i < TRIALS; i++) triple((u64)i, &t->a[i], &t->b[i], &t->c[i]);
    return 0;
}
static int trials_close(void **state) {
    (void)state;
    free(t);
    return 0;
}

/* SPLIT2, LOG and SCALE2 are defined for normal numbers. */
static void normal_operands(enum probe what) {
    for (i64 i = 0; i < TRIALS; i++) {
        triple((u64)i, &t->a[i], &t->b[i], &t->c[i]);
        if (what != PROBE_SPLIT2 && what != PROBE_LOG && what != PROBE_SCALE2) continue;
        t->a[i] = f32_of((bits_of(t->a[i]) & 0x7fffff) | (1 + bits_of(t->a[i]) % 253) << 23);
        if (what == PROBE_SCALE2) { /* the result is normal too */
            const i32 e = (i32)(bits_of(t->a[i]) >> 23);
            t->c[i] = (float)(1 + (i32)(word((u64)i, 4) % 253) - e);
        }
    }
}

static void test_same_bits(void **state) {
    (void)state;
    for (int p = 0; p < PROBE_COUNT; p++) {
        normal_operands((enum probe)p);
        for (int isa = 0; isa <= (int)isa_best(); isa++) {
            probe[isa]((enum probe)p, t->a, t->b, t->c, t->out[isa], TRIALS);
            for (i64 i = 0; i < TRIALS; i++)
                if (!same(t->out[0][i], t->out[isa][i]))
                    fail_msg("%s(%a, %a, %a) [%08x %08x %08x]: plain %a, %s %a", probe_name[p],
                             (double)t->a[i], (double)t->b[i], (double)t->c[i], bits_of(t->a[i]),
                             bits_of(t->b[i]), bits_of(t->c[i]), (double)t->out[0][i],
                             isa_name[isa], (double)t->out[isa][i]);
        }
    }
}

/* x*y + z with one rounding and flushing, by 80-bit arithmetic where that is exact enough: the sum
 * of a 48-bit product and a 24-bit number whose exponents are within 15 of each other. */
static void test_fma_is_exact(void **state) {
    (void)state;
    normal_operands(PROBE_FMA);
    probe[0](PROBE_FMA, t->a, t->b, t->c, t->out[0], TRIALS);
    i64 checked = 0;
    for (i64 i = 0; i < TRIALS; i++) {
        const long double p = (long double)t->a[i] * (long double)t->b[i], c = t->c[i];
        if (denormal(t->a[i]) || denormal(t->b[i]) || !isfinite((float)p) || !isfinite(t->c[i]) ||
            fabsl(p) < 0x1p-100L || fabsl(c) < 0x1p-100L || fabsl(p) > fabsl(c) * 0x1p15L ||
            fabsl(c) > fabsl(p) * 0x1p15L)
            continue;
        const float want = (float)(p + c);
        if (!same(want, t->out[0][i]) && !(want == 0 && t->out[0][i] == 0))
            fail_msg("fma(%a, %a, %a) is %a, exactly %a", (double)t->a[i], (double)t->b[i],
                     (double)t->c[i], (double)t->out[0][i], (double)want);
        checked++;
    }
    assert_true(checked > TRIALS / 4);
}

static void test_bf16(void **state) {
    (void)state;
    static const u32 low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    for (u32 k = 0; k < COUNT(low); k++) {
        for (u32 h = 0; h < 65536; h++) t->a[h] = f32_of(h << 16 | low[k]);
        probe[0](PROBE_NARROW, t->a, t->b, t->c, t->out[0], 65536);
        for (u32 h = 0; h < 65536; h++) {
            const u32 u = h << 16 | low[k], got = bits_of(t->out[0][h]);
            if ((u & 0x7fffffff) > 0x7f800000) {
                assert_true(isnan(f32_of(got)));
                continue;
            }
            /* the nearer of the two neighbours, the even one of equals; infinity follows the
             * largest */
            const u32 down = u & 0xffff0000u, rest = u - down;
            const bool up = rest > 0x8000 || (rest == 0x8000 && (down & 0x10000));
            if (got != down + (up ? 0x10000u : 0) || bits_of(t->out[0][h]) & 0xffff)
                fail_msg("bf16 of %08x is %08x", u, got);
            assert_int_equal(bf16_of_f32(f32_of(u)), got >> 16);
        }
    }
    for (u32 h = 0; h < 65536; h++) ((u16 *)t->a)[h] = (u16)h;
    probe[0](PROBE_WIDEN, t->a, t->b, t->c, t->out[0], 16); /* reads 16 halves */
    for (u32 h = 0; h < 16; h++) assert_int_equal(bits_of(t->out[0][h]), h << 16);
}

static float flushed(float x) { /* whatever the compiler makes of a comparison */
    return f32_of(bits_of(x) & 0x7f800000 ? bits_of(x) : bits_of(x) & 0x80000000);
}

static void test_reductions(void **state) {
    (void)state;
    normal_operands(PROBE_SUM);
    for (int k = 0; k < 2; k++) {
        probe[0](k ? PROBE_TOP : PROBE_SUM, t->a, t->b, t->c, t->out[0], TRIALS);
        for (i64 i = 0; i < TRIALS; i += 16) {
            float lane[16];
            memcpy(lane, t->a + i, sizeof lane);
            for (int half = 8; half; half /= 2)
                for (int l = 0; l < half; l++)
                    lane[l] = k ? flushed(lane[l] > lane[l + half] ? lane[l] : lane[l + half])
                                : lane[l] + lane[l + half];
            assert_true(same(lane[0], t->out[0][i]));
        }
    }
}

/* ---- functions */

static long double log_l(long double x) { return logl(x); }
static long double exp_l(long double x) { return expl(x); }
static long double tanh_l(long double x) { return tanhl(x); }
static long double expm1_l(long double x) { return expm1l(x); }
static long double erf_l(long double x) { return erfl(x); }
static long double sigmoid_l(long double x) { return 1 / (1 + expl(-x)); }
static long double rsqrt_l(long double x) { return 1 / sqrtl(x); }
static const struct function {
    enum probe what;
    long double (*exact)(long double);
    double low, high, ulp; /* as base/v16.h states */
} functions[] = {
    {PROBE_EXP, exp_l, -87, 88, 1.01},
    {PROBE_LOG, log_l, FLT_MIN, FLT_MAX, 1},
    {PROBE_SIGMOID, sigmoid_l, -FLT_MAX, FLT_MAX, 2.5},
    {PROBE_TANH, tanh_l, -FLT_MAX, FLT_MAX, 1.5},
    {PROBE_EXPM1, expm1_l, -FLT_MAX, 88, 1.5},
    {PROBE_ERF, erf_l, -FLT_MAX, FLT_MAX, 1.5},
    {PROBE_RSQRT, rsqrt_l, FLT_MIN, FLT_MAX, 1.5},
};

/* Distance in units of the last place of the exact result. */
static double ulps(float got, long double exact) {
    int e;
    if (fabsl(exact) < (long double)FLT_MIN) /* flushed */
        return fabsf(got) <= FLT_MIN ? 0 : HUGE_VAL;
    frexpl(exact, &e);
    return (double)fabsl(ldexpl((long double)got - exact, 24 - e));
}

static void function_check(const struct function *f) {
    enum { MANTISSAS = 2048 };
    double worst = 0;
    float at = 0;
    for (u32 e = 1; e < 255; e++)
        for (u32 sign = 0; sign < 2; sign++) {
            for (u32 i = 0; i < MANTISSAS; i++) {
                const u32 m = i < 8 ? i : i < 16 ? 0x7fffff - (i - 8) : word(e * MANTISSAS + i, 9);
                const float x = f32_of(sign << 31 | e << 23 | (m & 0x7fffff));
                t->a[i] = (double)x < f->low || (double)x > f->high ? 1 : x;
            }
            probe[0](f->what, t->a, t->b, t->c, t->out[0], MANTISSAS);
            for (u32 i = 0; i < MANTISSAS; i++) {
                const double off = ulps(t->out[0][i], f->exact((long double)t->a[i]));
                if (!(off <= worst)) worst = off, at = t->a[i];
            }
        }
    if (!(worst <= f->ulp))
        fail_msg("%s(%a) is off by %.3f ulp, more than %.3g", probe_name[f->what], (double)at,
                 worst, f->ulp);
    if (getenv("HONE_MEASURE")) print_message("%s: %.3f ulp\n", probe_name[f->what], worst);
}

static void test_functions(void **state) {
    (void)state;
    for (i64 i = 0; i < COUNT(functions); i++) function_check(&functions[i]);
}

/* Outside the ranges, and what has an exact answer. */
static void test_function_edges(void **state) {
    (void)state;
    static const struct {
        enum probe what;
        float x, y;
    } row[] = {{PROBE_EXP, 0.0f, 1},
               {PROBE_EXP, -87.5f, 0},
               {PROBE_EXP, -INFINITY, 0},
               {PROBE_EXP, NAN, NAN},
               {PROBE_EXP, -FLT_MAX, 0},
               {PROBE_LOG, 1, 0},
               {PROBE_SIGMOID, 0, 0.5f},
               {PROBE_SIGMOID, INFINITY, 1},
               {PROBE_SIGMOID, -INFINITY, 0},
               {PROBE_SIGMOID, NAN, NAN},
               {PROBE_TANH, 0, 0},
               {PROBE_TANH, INFINITY, 1},
               {PROBE_TANH, -INFINITY, -1},
               {PROBE_TANH, NAN, NAN},
               {PROBE_EXPM1, -INFINITY, -1},
               {PROBE_EXPM1, NAN, NAN},
               {PROBE_ERF, INFINITY, 1},
               {PROBE_ERF, -INFINITY, -1},
               {PROBE_ERF, NAN, NAN},
               {PROBE_ROUND, 0.5f, 0},
               {PROBE_ROUND, 1.5f, 2},
               {PROBE_ROUND, 2.5f, 2},
               {PROBE_ROUND, -0.5f, -0.0f},
               {PROBE_ROUND, 8388607.5f, 8388608},
               {PROBE_ROUND, -3e9f, -3e9f},
               {PROBE_ROUND, INFINITY, INFINITY},
               {PROBE_ADD, 0x1p-149f, 0},
               {PROBE_SQRT, 0x1p-140f, 0},
               {PROBE_ABS, -0x1p-149f, 0x1p-149f}};
    for (i64 i = 0; i < COUNT(row); i++)
        for (int isa = 0; isa <= (int)isa_best(); isa++) {
            for (int l = 0; l < 16; l++) t->a[l] = row[i].x, t->b[l] = t->c[l] = 0;
            probe[isa](row[i].what, t->a, t->b, t->c, t->out[0], 16);
            for (int l = 0; l < 16; l++)
                if (!same(t->out[0][l], row[i].y))
                    fail_msg("%s: %s(%a) is %a, not %a", isa_name[isa], probe_name[row[i].what],
                             (double)row[i].x, (double)t->out[0][l], (double)row[i].y);
        }
    for (int l = 0; l < 16; l++) t->a[l] = l % 2 ? 1000.0f : INFINITY; /* saturates: e^88 */
    probe[0](PROBE_EXP, t->a, t->b, t->c, t->out[0], 16);
    assert_true(ulps(t->out[0][0], expl(88)) <= 1 && ulps(t->out[0][1], expl(88)) <= 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_fma_is_exact),
        cmocka_unit_test(test_bf16),      cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_functions), cmocka_unit_test(test_function_edges)};
    return cmocka_run_group_tests(tests, trials_open, trials_close);
}
