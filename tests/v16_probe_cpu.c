/* v16_probe_cpu.c: what tests/test_v16.c calls; compiled once per instruction set as kernels are.
 */
#include "tests/v16_probe.h"

#include "base/v16.h"

#define EACH(expression)                                                                           \
    for (i64 i = 0; i < n; i += 16) {                                                              \
        const v16 x = v16_load(a + i), y = v16_load(b + i), z = v16_load(c + i);                   \
        (void)x, (void)y, (void)z;                                                                 \
        v16_store(out + i, (expression));                                                          \
    }                                                                                              \
    break

static v16 split_n(v16 x) {
    v16 n;
    v16_split2(x, &n);
    return n;
}
static v16 split_m(v16 x) {
    v16 n;
    return v16_split2(x, &n);
}
static void bf16_n(const float *a, float *out, i64 n) {
    u16 t[16] = {0};
    v16_store_bf16_n(t, v16_load(a), n);
    v16_store_n(out, v16_load_bf16_n(t, n), n);
}

void CPU_NAME(v16_probe)(enum probe f, const float *a, const float *b, const float *c, float *out,
                         i64 n) {
    switch (f) {
    case PROBE_exp: EACH(v16_exp(x));
    case PROBE_log: EACH(v16_log(x));
    case PROBE_sigmoid: EACH(v16_sigmoid(x));
    case PROBE_tanh: EACH(v16_tanh(x));
    case PROBE_add: EACH(v16_add(x, y));
    case PROBE_sub: EACH(v16_sub(x, y));
    case PROBE_mul: EACH(v16_mul(x, y));
    case PROBE_div: EACH(v16_div(x, y));
    case PROBE_fma: EACH(v16_fma(x, y, z));
    case PROBE_min: EACH(v16_min(x, y));
    case PROBE_max: EACH(v16_max(x, y));
    case PROBE_sqrt: EACH(v16_sqrt(x));
    case PROBE_abs: EACH(v16_abs(x));
    case PROBE_copysign: EACH(v16_copysign(x, y));
    case PROBE_round: EACH(v16_round(x));
    case PROBE_scale2: EACH(v16_scale2(x, y));
    case PROBE_split2: EACH(split_m(x));
    case PROBE_split2_n: EACH(split_n(x));
    case PROBE_select: EACH(v16_select(v16_lt(x, y), z, x));
    case PROBE_dot: EACH(v16_dot(v16h_load(a + i), v16h_load(b + i), z));
    case PROBE_rounded: EACH(v16_rounded(x, true));
    case PROBE_bf16_n:
        for (i64 i = 0; i < n; i += 16) bf16_n(a + i, out + i, 1 + i / 16 % 16);
        break;
    case PROBE_load_n:
        for (i64 i = 0; i < n; i += 16) {
            const i64 some = 1 + i / 16 % 16;
            v16_store_n(out + i, v16_add(v16_load_n(a + i, some), v16_load_n(b + i, some)), some);
        }
        break;
    case PROBE_sum:
        for (i64 i = 0; i < n; i += 16) out[i] = v16_sum(v16_load(a + i));
        break;
    case PROBE_top:
        for (i64 i = 0; i < n; i += 16) out[i] = v16_top(v16_load(a + i));
        break;
    case PROBE_rsqrt:
        for (i64 i = 0; i < n; i++) out[i] = f32_rsqrt(a[i]);
        break;
    case PROBE_f32_fma:
        for (i64 i = 0; i < n; i++) out[i] = f32_fma(a[i], b[i], c[i]);
        break;
    case PROBE_COUNT: break;
    }
}
