/* ftz.cu: a kernel that does one operation of v16 (ops/device/cuda.h) on each of many operands;
 * compiled by nvcc with the options of ops/, for a GPU, and by g++ for the shim. */
#include "ops/device/cuda.h"
#include "tests/gpu/ftz.h"

#ifdef HONE_SHIM
#include "tests/shim/shim_test.h"
static const bool known =
    (shim_kernel_add("tests/gpu/ftz.cu",
                     "ftz_kernel(int, float const*, float const*, float const*, float*, long)", 16,
                     0),
     true);
#endif

__global__ void ftz_kernel(int what, const float *a, const float *b, const float *c, float *out,
                           i64 n) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    switch (what) {
    case PROBE_ADD: out[i] = v16_add(a[i], b[i]); break;
    case PROBE_SUB: out[i] = v16_sub(a[i], b[i]); break;
    case PROBE_MUL: out[i] = v16_mul(a[i], b[i]); break;
    case PROBE_DIV: out[i] = v16_div(a[i], b[i]); break;
    default: out[i] = v16_fma(a[i], b[i], c[i]); break;
    }
}

int ftz_run(enum probe what, const float *a, const float *b, const float *c, float *out, i64 n,
            struct err *e) {
    return LAUNCH(e, ftz_kernel, (unsigned)((n + 255) / 256), 256, 0, (int)what, a, b, c, out, n);
}
