/* math.c: exp, log, sin, cos, pow, tanh, erf in f64 with the same bits on every machine, within 2
 * ulp (tested). exp and log, which the GPU needs too, are in math_f64.h, with how it is done. */
#include "base/base.h"
#include "base/math_f64.h"
#include <float.h>

double m_exp(double x) { return f64_exp(x); }
double m_log(double x) { return f64_log(x); }

static bool is_whole(double y) { return y >= 0x1p+52 || y <= -0x1p+52 || whole(y) == y; }

double m_pow(double x, double y) {
    const double infinity = (double)__builtin_inff();
    if (y == 0 || x == 1) return 1;
    if (x != x || y != y) return x + y;
    double size = x < 0 ? -x : x, sign = 1;
    if (x < 0 && is_whole(y) && !is_whole(y * 0.5)) sign = -1;
    if (x < 0 && x >= -DBL_MAX && !is_whole(y)) return (double)__builtin_nanf("");
    if (size == 1) return sign;
    if (size < DBL_MIN) return sign * (y < 0 ? infinity : 0);
    if (size > DBL_MAX) return sign * (y < 0 ? 0 : infinity);
    if (y > 0x1p+64 || y < -0x1p+64) return (y > 0) == (size > 1) ? infinity : 0;
    struct dd l = log_dd(size), p = dd_product(l.hi, y);
    return sign * scaled_exp(dd_quick(p.hi, p.lo + l.lo * y));
}

/* x - n pi/2 as two doubles, |result| <= pi/4; *quadrant = n mod 4. Cody and Waite with four parts
 * of pi/2, three of 33 bits, so that n times each is exact while n < 2^20. */
static struct dd reduce(double x, int *quadrant) {
    double n = whole(x * 0x1.45f306dc9c883p-1);
    struct dd a = dd_sum(x - n * 0x1.921fb544p+0, -n * 0x1.0b4611a6p-34);
    struct dd b = dd_sum(a.hi, -n * 0x1.3198a2ep-69);
    *quadrant = (int)((i64)n & 3);
    return dd_quick(b.hi, b.lo + (a.lo - n * 0x1.b839a252049c1p-104));
}

static double sin_part(struct dd r) { /* Taylor terms, |r| <= pi/4 */
    static const double c[] = {-0x1.5555555555555p-3,  0x1.1111111111111p-7,
                               -0x1.a01a01a01a01ap-13, 0x1.71de3a556c734p-19,
                               -0x1.ae64567f544e4p-26, 0x1.6124613a86d09p-33,
                               -0x1.ae7f3e733b81fp-41, 0x1.952c77030ad4ap-49};
    double z = r.hi * r.hi;
    return r.hi + (r.lo * (1 - 0.5 * z) + r.hi * z * polynomial(z, c, COUNT(c)));
}

static double cos_part(struct dd r) {
    static const double c[] = {0x1.5555555555555p-5,  -0x1.6c16c16c16c17p-10,
                               0x1.a01a01a01a01ap-16, -0x1.27e4fb7789f5cp-22,
                               0x1.1eed8eff8d898p-29, -0x1.93974a8c07c9dp-37,
                               0x1.ae7f3e733b81fp-45, -0x1.6827863b97d97p-53};
    double z = r.hi * r.hi;
    struct dd s = dd_quick(1, -0.5 * z);
    return s.hi + (s.lo + (z * z * polynomial(z, c, COUNT(c)) - r.hi * r.lo));
}

static const double REDUCE_MAX = 0x1.9p+20;

double m_sin(double x) {
    if (!(x <= REDUCE_MAX && x >= -REDUCE_MAX)) return (double)__builtin_nanf("");
    int quadrant;
    struct dd r = reduce(x, &quadrant);
    double y = quadrant & 1 ? cos_part(r) : sin_part(r);
    return quadrant & 2 ? -y : y;
}

double m_cos(double x) {
    if (!(x <= REDUCE_MAX && x >= -REDUCE_MAX)) return (double)__builtin_nanf("");
    int quadrant;
    struct dd r = reduce(x, &quadrant);
    double y = quadrant & 1 ? sin_part(r) : cos_part(r);
    return (quadrant + 1) & 2 ? -y : y;
}

double m_tanh(double x) { /* (e^2x - 1) / (e^2x + 1) */
    double size = x < 0 ? -x : x;
    if (x != x || size < 0x1p-30) return x;
    if (size > 20) return x < 0 ? -1 : 1;
    int k;
    struct dd e = exp_dd(dd_of(2 * size, 0), &k);
    e.hi *= power_of_two(k);
    e.lo *= power_of_two(k);
    struct dd r = dd_div(dd_add(e, dd_of(-1, 0)), dd_add(e, dd_of(1, 0)));
    return x < 0 ? -(r.hi + r.lo) : r.hi + r.lo;
}

/* erf: its Maclaurin series below 1/2, else the Taylor series about the nearest multiple of 1/8.
 * The derivative is g(x) = 2/sqrt(pi) e^-x^2, and g' = -2xg gives its coefficients: g[k+1] = -2 (c
 * g[k] + g[k-1]) / (k+1). */
static const double erf_eighths[] =
    {/* erf of j/8 for j = 4 to 47 */
     0x1.0a7ef5c18edd2p-1, 0x1.3f196dcd0f135p-1, 0x1.6c1c9759d0e5fp-1, 0x1.91724951b8fc6p-1,
     0x1.af767a741088bp-1, 0x1.c6dad2829ec62p-1, 0x1.d8865d98abe01p-1, 0x1.e5768c3b4a3fcp-1,
     0x1.eea5557137ae0p-1, 0x1.f4f693b67bd77p-1, 0x1.f92d077f8d56dp-1, 0x1.fbe61eef4cf6ap-1,
     0x1.fd9ae142795e3p-1, 0x1.fea4218d6594ap-1, 0x1.ff404760319b4p-1, 0x1.ff9960f3eb327p-1,
     0x1.ffcaa8f4c9beap-1, 0x1.ffe514bbdc197p-1, 0x1.fff2cfb0453d9p-1, 0x1.fff9ba420e834p-1,
     0x1.fffd1ac4135f9p-1, 0x1.fffeb3ebb267bp-1, 0x1.ffff6f9f67e55p-1, 0x1.ffffc316d9ed0p-1,
     0x1.ffffe710d565ep-1, 0x1.fffff618c3da6p-1, 0x1.fffffc2f171e3p-1, 0x1.fffffe92ced93p-1,
     0x1.ffffff7b91176p-1, 0x1.ffffffd169d0cp-1, 0x1.fffffff01a8b6p-1, 0x1.fffffffabd229p-1,
     0x1.fffffffe4fa30p-1, 0x1.ffffffff79626p-1, 0x1.ffffffffd759dp-1, 0x1.fffffffff4188p-1,
     0x1.fffffffffc9e8p-1, 0x1.ffffffffff11ap-1, 0x1.ffffffffffc05p-1, 0x1.ffffffffffef8p-1,
     0x1.fffffffffffbep-1, 0x1.ffffffffffff0p-1, 0x1.ffffffffffffcp-1, 0x1.fffffffffffffp-1};

double m_erf(double x) {
    static const double c[] = {
        0x1.06eba8214db69p-3,   -0x1.812746b0379e7p-2,  0x1.ce2f21a042be2p-4,
        -0x1.b82ce31288b51p-6,  0x1.565bcd0e6a53fp-8,   -0x1.c02db40040b86p-11,
        0x1.f9a326f9b89b7p-14,  -0x1.f4d25c3e0c2ebp-17, 0x1.b9e6c9dc651a3p-20,
        -0x1.5f742ec43e71ap-23, 0x1.fcc5720624c1cp-27,  -0x1.51d7181c5d36dp-30,
        0x1.9e6ad5e55a730p-34,  -0x1.d8453cb0c46eap-38};
    double size = x < 0 ? -x : x;
    if (x != x) return x;
    if (size < 0.5) return x + x * polynomial(x * x, c, COUNT(c));
    if (size >= 5.9375) return x < 0 ? -1 : 1;
    i64 j = (i64)(size * 8 + 0.5);
    double at = (double)j / 8, h = size - at, power = h, sum = 0;
    double before = 0, g = 0x1.20dd750429b6dp+0 * m_exp(-at * at);
    for (int k = 0; k < 16; k++) {
        sum += g * power / (k + 1);
        power *= h;
        double next = -2 * (at * g + before) / (k + 1);
        before = g;
        g = next;
    }
    double y = erf_eighths[j - 4] + sum;
    return x < 0 ? -y : y;
}
