/* v16_math.h: functions of sixteen lanes: exp, expm1, log, sigmoid, tanh, erf, and what single
 * floats need. Included by v16.h, and by ops/device/cuda.h with one lane. Polynomials with written
 * fused multiply-adds; every instruction set gives the same bits. Bounds are measured by
 * tests/unit/base/test_v16.c over all of them. */
#ifndef HONE_V16_MATH_H
#define HONE_V16_MATH_H

/* e^x = 2^n * (1 + the result); n is integral, |result| below 0.42. */
V16_FN v16 v16_exp_parts(v16 x, v16 *n) {
    *n = v16_round(v16_mul(x, v16_set(0x1.715476p+0f)));
    v16 r = v16_fma(*n, v16_set(-0x1.62e400p-1f), x);
    r = v16_fma(*n, v16_set(-0x1.7f7d1cp-20f), r);
    v16 p = v16_set(0x1.6850e4p-10f);
    p = v16_fma(p, r, v16_set(0x1.123bccp-7f));
    p = v16_fma(p, r, v16_set(0x1.555b98p-5f));
    p = v16_fma(p, r, v16_set(0x1.55548ep-3f));
    p = v16_fma(p, r, v16_set(0x1.fffff8p-2f));
    return v16_fma(p, v16_mul(r, r), r);
}
V16_FN v16 v16_exp_range(v16 x) { return v16_max(v16_set(-87.0f), v16_min(v16_set(88.0f), x)); }
/* e^x within 1.01 ulp. Below -87: 0. Above 88: e^88 (so that 1/(1+e^x) never meets infinity). NaN
 * stays NaN. */
V16_FN v16 v16_exp(v16 x) {
    const m16 tiny = v16_lt(x, v16_set(-87.0f));
    v16 n;
    const v16 p = v16_add(v16_exp_parts(v16_exp_range(x), &n), v16_set(1.0f));
    return v16_select(tiny, v16_set(0.0f), v16_scale2(p, n));
}
V16_FN v16 v16_expm1(v16 x) { /* e^x - 1 within 1.5 ulp; above 88 as v16_exp */
    v16 n;
    const v16 p = v16_exp_parts(v16_exp_range(x), &n), s = v16_scale2(v16_set(1.0f), n);
    return v16_fma(p, s, v16_sub(s, v16_set(1.0f)));
}

/* Natural logarithm within 1 ulp, for normal x > 0; garbage otherwise. */
V16_FN v16 v16_log(v16 x) {
    v16 n;
    const v16 m = v16_sub(v16_split2(x, &n), v16_set(1.0f)), z = v16_mul(m, m);
    v16 p = v16_set(7.0376836292e-2f);
    p = v16_fma(p, m, v16_set(-1.1514610310e-1f));
    p = v16_fma(p, m, v16_set(1.1676998740e-1f));
    p = v16_fma(p, m, v16_set(-1.2420140846e-1f));
    p = v16_fma(p, m, v16_set(1.4249322787e-1f));
    p = v16_fma(p, m, v16_set(-1.6668057665e-1f));
    p = v16_fma(p, m, v16_set(2.0000714765e-1f));
    p = v16_fma(p, m, v16_set(-2.4999993993e-1f));
    p = v16_fma(p, m, v16_set(3.3333331174e-1f));
    v16 y = v16_mul(v16_mul(p, m), z);
    y = v16_fma(n, v16_set(-2.12194440e-4f), y);
    y = v16_fma(z, v16_set(-0.5f), y);
    return v16_fma(n, v16_set(0.693359375f), v16_add(m, y));
}

V16_FN v16 v16_sigmoid(v16 x) { /* 1 / (1 + e^-x), within 2.5 ulp */
    return v16_div(v16_set(1.0f), v16_add(v16_set(1.0f), v16_exp(v16_sub(v16_set(0.0f), x))));
}
V16_FN v16 v16_tanh(v16 x) { /* within 1.5 ulp: a polynomial below 5/8, 1 - 2/(e^2|x| + 1) above */
    const v16 a = v16_abs(x), z = v16_mul(x, x);
    v16 p = v16_set(-5.70498872745e-3f);
    p = v16_fma(p, z, v16_set(2.06390887954e-2f));
    p = v16_fma(p, z, v16_set(-5.37397155531e-2f));
    p = v16_fma(p, z, v16_set(1.33314422036e-1f));
    p = v16_fma(p, z, v16_set(-3.33332819422e-1f));
    const v16 small = v16_fma(v16_mul(p, z), x, x);
    const v16 e = v16_exp(v16_add(a, a));
    const v16 big = v16_sub(v16_set(1.0f), v16_div(v16_set(2.0f), v16_add(e, v16_set(1.0f))));
    return v16_select(v16_lt(a, v16_set(0.625f)), small, v16_copysign(big, x));
}
/* erf(x) within 1.5 ulp: a polynomial below 7/8, 1 - e^-q(|x|) above. Both were fitted with equal
 * ripples to erf(x) / x - 1 and to -log(1 - erf(x)) weighted by 1 - erf(x). */
V16_FN v16 v16_erf(v16 x) {
    const v16 z = v16_mul(x, x), a = v16_min(v16_set(4.0f), v16_abs(x));
    v16 p = v16_set(0x1.6bdf38p-14f);
    p = v16_fma(p, z, v16_set(-0x1.ae7f8cp-11f));
    p = v16_fma(p, z, v16_set(0x1.553abap-8f));
    p = v16_fma(p, z, v16_set(-0x1.b819a6p-6f));
    p = v16_fma(p, z, v16_set(0x1.ce2e84p-4f));
    p = v16_fma(p, z, v16_set(-0x1.812744p-2f));
    p = v16_fma(p, z, v16_set(0x1.06eba8p-3f));
    v16 q = v16_set(0x1.a33b72p-13f);
    q = v16_fma(q, a, v16_set(-0x1.93f7dep-9f));
    q = v16_fma(q, a, v16_set(0x1.6eb16ap-6f));
    q = v16_fma(q, a, v16_set(-0x1.ab0288p-4f));
    q = v16_fma(q, a, v16_set(-0x1.460d52p-1f));
    q = v16_fma(q, a, v16_set(-0x1.20bd5ep+0f));
    q = v16_fma(q, a, v16_set(-0x1.2e5da0p-13f)); /* -q(|x|) */
    const v16 big = v16_sub(v16_set(1.0f), v16_exp(q));
    return v16_select(v16_lt(a, v16_set(0.875f)), v16_fma(p, x, x), v16_copysign(big, x));
}
#ifndef V16_SQRT /* CUDA has its own spelling (ops/device/cuda.h) */
#define V16_SQRT __builtin_sqrtf
#define V16_FMA  __builtin_fmaf
#endif
V16_FN float f32_rsqrt(float x) {
    return 1.0f / V16_SQRT(x);
} /* two IEEE operations: within 1.5 ulp */
V16_FN float f32_fma(float a, float b, float c) {
#ifdef ISA_IS_plain
    return v16_fma1(a, b, c);
#else
    return V16_FMA(a, b, c);
#endif
}

#endif
