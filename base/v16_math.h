/* v16_math.h: functions of sixteen lanes: exp, log, sigmoid, tanh, and what single floats need.
 * Included by v16.h, and by ops/cuda.h with one lane. Polynomials with written fused multiply-adds;
 * every instruction set gives the same bits. Bounds are measured by tests/test_v16.c over all of
 * them. */
#ifndef HONE_V16_MATH_H
#define HONE_V16_MATH_H

/* e^x within 1.01 ulp. Below -87: 0. Above 88: e^88 (so that 1/(1+e^x) never meets infinity). NaN
 * stays NaN. */
V16_FN v16 v16_exp(v16 x) {
    const m16 tiny = v16_lt(x, v16_set(-87.0f));
    const v16 y = v16_max(v16_set(-87.0f), v16_min(v16_set(88.0f), x));
    const v16 n = v16_round(v16_mul(y, v16_set(0x1.715476p+0f)));
    v16 r = v16_fma(n, v16_set(-0x1.62e400p-1f), y);
    r = v16_fma(n, v16_set(-0x1.7f7d1cp-20f), r);
    v16 p = v16_set(0x1.6850e4p-10f);
    p = v16_fma(p, r, v16_set(0x1.123bccp-7f));
    p = v16_fma(p, r, v16_set(0x1.555b98p-5f));
    p = v16_fma(p, r, v16_set(0x1.55548ep-3f));
    p = v16_fma(p, r, v16_set(0x1.fffff8p-2f));
    p = v16_fma(p, v16_mul(r, r), r);
    p = v16_add(p, v16_set(1.0f));
    return v16_select(tiny, v16_set(0.0f), v16_scale2(p, n));
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
#ifndef V16_SQRT /* CUDA has its own spelling (ops/cuda.h) */
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
