/* v16_probe.h: each operation of v16 over arrays, for test_v16.c. */
#ifndef HONE_V16_PROBE_H
#define HONE_V16_PROBE_H

#include "base/base.h"

#define PROBE_LIST(X)                                                                              \
    X(ADD)                                                                                         \
    X(SUB)                                                                                         \
    X(MUL)                                                                                         \
    X(DIV) X(FMA) X(MIN) X(MAX) X(SQRT) X(SELECT) X(ABS) X(COPYSIGN) X(ROUND) X(SPLIT2) X(SCALE2)  \
        X(SUM) X(TOP) X(NARROW) X(WIDEN) X(DOT) X(EXP) X(LOG) X(SIGMOID) X(TANH) X(EXPM1) X(ERF)   \
            X(RSQRT) X(FMA1) X(PART)
enum probe {
#define X(name) PROBE_##name,
    PROBE_LIST(X)
#undef X
        PROBE_COUNT
};
/* out[n] = op(a[n], b[n], c[n]); n a multiple of 16. Where a row of 16 gives one number (SUM, TOP),
 * it stands 16 times. NARROW, WIDEN: through bf16 in memory. DOT: a and b hold pairs of bf16.
 * SCALE2: a * 2^round(c). SPLIT2: 8 n + m. PART: the first (bits of c) mod 81 - 64 lanes (none if
 * negative), loaded and stored as such. FMA1, RSQRT: the scalar functions. */
typedef void probe_fn(enum probe what, const float *a, const float *b, const float *c, float *out,
                      i64 n);
extern probe_fn v16_probe_plain, v16_probe_avx2, v16_probe_avx512, v16_probe_avx512bf16;

#endif
