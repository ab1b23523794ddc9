/* v16_probe.h: the functions of base/v16.h over arrays, one copy per instruction set. */
#ifndef HONE_V16_PROBE_H
#define HONE_V16_PROBE_H

#include "base/base.h"

#define PROBE_LIST(X)                                                                              \
    X(exp)                                                                                         \
    X(log)                                                                                         \
    X(sigmoid)                                                                                     \
    X(tanh) X(rsqrt) X(add) X(sub) X(mul) X(div) X(fma) X(f32_fma) X(min) X(max) X(sqrt) X(abs)    \
        X(copysign) X(round) X(scale2) X(split2) X(split2_n) X(select) X(dot) X(rounded) X(bf16_n) \
            X(load_n) X(sum) X(top)
enum probe {
#define X(name) PROBE_##name,
    PROBE_LIST(X)
#undef X
        PROBE_COUNT
};
extern const char *const probe_name[PROBE_COUNT];

/* out[i] = f(a[i], b[i], c[i]) for n (a multiple of 16) elements. `scale2` takes n of a whole
 * number in b; `dot` takes a and b as pairs of bf16; `_n` forms do blocks of 1, 2, ..., 16, 1, ...
 * elements and leave the rest of out alone; sums and tops stand in the first lane of each sixteen.
 */
typedef void probe_fn(enum probe f, const float *a, const float *b, const float *c, float *out,
                      i64 n);
#define X(isa) probe_fn v16_probe_##isa;
ISA_LIST(X)
#undef X

#endif
