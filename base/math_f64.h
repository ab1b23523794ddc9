/* math_f64.h: exp and log in f64 with the same bits on every machine, within 2 ulp: math.c for the
 * CPU, and the GPU's kernels (ops/device/cuda_math.h), which define M_FN.
 *
 * For tables, initialisation, schedules, references, and the few places where a kernel needs more
 * than f32. Only IEEE add, subtract, multiply and divide are used, so no instruction set and no
 * libm can change a bit. Where one double is not enough, values are unevaluated sums of two (Dekker
 * 1971, "A floating-point technique for extending the available precision"). Results and arguments
 * below 2^-1022 count as zero, so the thread's denormal mode does not matter either. Rejected:
 * fma(), which without the instruction is a slow library call; libm, whose bits change between
 * versions. */
#ifndef HONE_MATH_F64_H
#define HONE_MATH_F64_H

#include <float.h>

#ifndef M_FN
#define M_FN static inline
#endif

struct dd { /* hi + lo, |lo| <= ulp(hi)/2 */
    double hi, lo;
};
M_FN struct dd dd_of(double hi, double lo) {
    const struct dd r = {hi, lo};
    return r;
}

M_FN struct dd dd_quick(double a, double b) { /* a + b exactly, |a| >= |b| or a = 0 */
    double sum = a + b;
    return dd_of(sum, b - (sum - a));
}

M_FN struct dd dd_sum(double a, double b) { /* a + b exactly (Knuth) */
    double sum = a + b, part = sum - a;
    return dd_of(sum, (a - (sum - part)) + (b - part));
}

M_FN struct dd dd_product(double a, double b) { /* a * b exactly (Veltkamp's split, Dekker) */
    double ca = 134217729.0 * a, cb = 134217729.0 * b;
    double a1 = ca - (ca - a), b1 = cb - (cb - b), a2 = a - a1, b2 = b - b1;
    double p = a * b;
    return dd_of(p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2);
}

M_FN struct dd dd_add(struct dd a, struct dd b) {
    struct dd s = dd_sum(a.hi, b.hi);
    return dd_quick(s.hi, s.lo + (a.lo + b.lo));
}

M_FN struct dd dd_mul(struct dd a, struct dd b) {
    struct dd p = dd_product(a.hi, b.hi);
    return dd_quick(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

M_FN struct dd dd_div(struct dd a, struct dd b) {
    double q = a.hi / b.hi;
    struct dd p = dd_product(q, b.hi);
    return dd_quick(q, ((a.hi - p.hi) - p.lo + a.lo - q * b.lo) / b.hi);
}

M_FN double power_of_two(int k) { /* -1022 <= k <= 1023 */
    union {
        u64 u;
        double d;
    } v = {.u = (u64)(k + 1023) << 52};
    return v.d;
}

M_FN double whole(double x) { /* nearest integer, |x| < 2^51 */
    return (x + 0x1.8p+52) - 0x1.8p+52;
}

M_FN double polynomial(double x, const double *c, i64 count) { /* c[0] + c[1] x + ... */
    double sum = c[count - 1];
    for (i64 i = count - 2; i >= 0; i--) sum = sum * x + c[i];
    return sum;
}

static const double LN2_HI = 0x1.62e42fefa2p-1, LN2_LO = 0x1.9ef35793c7673p-41; /* HI: 40 bits */

/* e^x = 2^k * result, relative error below 2^-56; |x| < 1100. Taylor terms, |r| <= ln(2)/2. */
M_FN struct dd exp_dd(struct dd x, int *k) {
    static const double c[] = {0x1p-1,
                               0x1.5555555555555p-3,
                               0x1.5555555555555p-5,
                               0x1.1111111111111p-7,
                               0x1.6c16c16c16c17p-10,
                               0x1.a01a01a01a01ap-13,
                               0x1.a01a01a01a01ap-16,
                               0x1.71de3a556c734p-19,
                               0x1.27e4fb7789f5cp-22,
                               0x1.ae64567f544e4p-26,
                               0x1.1eed8eff8d898p-29,
                               0x1.6124613a86d09p-33,
                               0x1.93974a8c07c9dp-37};
    double n = whole(x.hi * 0x1.71547652b82fep+0);
    struct dd r = dd_sum(x.hi - n * LN2_HI, x.lo - n * LN2_LO);
    struct dd s = dd_quick(1, r.hi);
    *k = (int)n;
    return dd_quick(s.hi, s.lo + (r.lo + r.hi * r.hi * polynomial(r.hi, c, COUNT(c))));
}

M_FN double scaled_exp(struct dd x) {
    if (!(x.hi < 709.79)) return x.hi != x.hi ? x.hi : (double)__builtin_inff();
    if (x.hi < -708.4) return 0;
    int k;
    struct dd r = exp_dd(x, &k);
    double half = r.hi + r.lo;
    if (k > 1023) return half * 0x1p+1023 * power_of_two(k - 1023);
    if (k > -1022) return half * power_of_two(k);
    half *= power_of_two(k + 64); /* near the smallest normal: what falls below it is zero */
    return half < 0x1p-958 ? 0 : half * 0x1p-64;
}

M_FN double f64_exp(double x) { return scaled_exp(dd_of(x, 0)); }

/* ln x = e ln2 + 2 atanh(s), s = (m-1)/(m+1), m in [sqrt(1/2), sqrt(2)); relative error below
 * 2^-63; x normal. */
M_FN struct dd log_dd(double x) {
    static const double c[] = {2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                               2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23};
    union {
        double d;
        u64 u;
    } v = {.d = x};
    i64 e = (i64)(v.u >> 52) - 1023;
    v.u = (v.u & 0xfffffffffffff) | 0x3ff0000000000000;
    if (v.d > 0x1.6a09e667f3bcdp+0) v.d *= 0.5, e++;
    struct dd s = dd_div(dd_of(v.d - 1, 0), dd_sum(v.d, 1));
    struct dd s2 = dd_mul(s, s);
    struct dd cubic = dd_mul(dd_mul(s, s2), dd_of(0x1.5555555555555p-1, 0x1.5555555555555p-55));
    cubic.lo += s2.hi * s2.hi * s.hi * polynomial(s2.hi, c, COUNT(c));
    struct dd m = dd_add(dd_of(2 * s.hi, 2 * s.lo), dd_sum(cubic.hi, cubic.lo));
    return dd_add(dd_sum((double)e * LN2_HI, (double)e * LN2_LO), m);
}

M_FN double f64_log(double x) {
    if (x != x || x > DBL_MAX) return x;
    if (x < DBL_MIN) return x > -DBL_MIN ? -(double)__builtin_inff() : (double)__builtin_nanf("");
    struct dd r = log_dd(x);
    return r.hi + r.lo;
}

#endif
