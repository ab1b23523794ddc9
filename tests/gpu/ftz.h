/* ftz.h: operations of v16 on a GPU, element by element, for test_cuda_ftz.c. */
#ifndef HONE_GPU_FTZ_H
#define HONE_GPU_FTZ_H

#include "ops/ops.h"
#include "tests/unit/base/v16_probe.h"

#ifdef __cplusplus
extern "C" {
#endif
/* out[i] = what(a[i], b[i], c[i]) of PROBE_ADD, _SUB, _MUL, _DIV or _FMA; all on the device */
int ftz_run(enum probe what, const float *a, const float *b, const float *c, float *out, i64 n,
            struct err *e);
#ifdef __cplusplus
}
#endif
#endif
