/* v16_probe_cpu.c: compiled once per instruction set, like a kernel. */
#include "tests/unit/base/v16_probe.h"

#include "base/v16.h"

static i64 lanes(const float *c) {
    u32 bits;
    __builtin_memcpy(&bits, c, 4);
    return (i64)(bits % 81) - 64; /* kernels also ask for fewer than none */
}

V16_FN v16 part(const float *a, const float *c) {
    const i64 n = lanes(c);
    float f[16] = {0};
    u16 h[16] = {0};
    v16_store_n(f, v16_load_n(a, n), n);
    v16_store_bf16_n(h, v16_load(a), n);
    return v16_add(v16_load(f), v16_load_bf16_n(h, n));
}

V16_FN v16 apply(enum probe what, const float *pa, const float *pb, const float *pc) {
    const v16 a = v16_load(pa), b = v16_load(pb), c = v16_load(pc);
    u16 h[16];
    float f[16];
    v16 n, m;
    switch (what) {
    case PROBE_ADD: return v16_add(a, b);
    case PROBE_SUB: return v16_sub(a, b);
    case PROBE_MUL: return v16_mul(a, b);
    case PROBE_DIV: return v16_div(a, b);
    case PROBE_FMA: return v16_fma(a, b, c);
    case PROBE_MIN: return v16_min(a, b);
    case PROBE_MAX: return v16_max(a, b);
    case PROBE_SQRT: return v16_sqrt(a);
    case PROBE_SELECT: return v16_select(v16_lt(a, b), b, c);
    case PROBE_ABS: return v16_abs(a);
    case PROBE_COPYSIGN: return v16_copysign(a, b);
    case PROBE_ROUND: return v16_round(a);
    case PROBE_SPLIT2: m = v16_split2(a, &n); return v16_fma(n, v16_set(8), m);
    case PROBE_SCALE2: return v16_scale2(a, v16_round(c));
    case PROBE_SUM: return v16_set(v16_sum(a));
    case PROBE_TOP: return v16_set(v16_top(a));
    case PROBE_NARROW: v16_store_bf16(h, a); return v16_load_bf16(h);
    case PROBE_WIDEN: return v16_load_bf16((const u16 *)pa);
    case PROBE_DOT: return v16_dot(v16h_load(pa), v16h_load(pb), c);
    case PROBE_EXP: return v16_exp(a);
    case PROBE_LOG: return v16_log(a);
    case PROBE_SIGMOID: return v16_sigmoid(a);
    case PROBE_TANH: return v16_tanh(a);
    case PROBE_EXPM1: return v16_expm1(a);
    case PROBE_ERF: return v16_erf(a);
    case PROBE_RSQRT:
        for (int l = 0; l < 16; l++) f[l] = f32_rsqrt(pa[l]);
        return v16_load(f);
    case PROBE_FMA1:
        for (int l = 0; l < 16; l++) f[l] = f32_fma(pa[l], pb[l], pc[l]);
        return v16_load(f);
    case PROBE_PART: return part(pa, pc);
    case PROBE_COUNT: break;
    }
    return a;
}

void CPU_NAME(v16_probe)(enum probe what, const float *a, const float *b, const float *c,
                         float *out, i64 n) {
    for (i64 i = 0; i < n; i += 16) v16_store(out + i, apply(what, a + i, b + i, c + i));
}
