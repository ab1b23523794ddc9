/* probes.h: small kernels for test_cuda_shim.c, each with a mistake, or right (probes.cu). */
#ifndef HONE_SHIM_PROBES_H
#define HONE_SHIM_PROBES_H

#include "ops/device/device_int.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PROBE_BLOCKS = 2, PROBE_THREADS = 64, PROBE_FLOATS = PROBE_BLOCKS * PROBE_THREADS };

struct probe_memory {
    float *out;       /* device memory, PROBE_FLOATS */
    const float *in;  /* the same, in[i] = i */
    const float *raw; /* the same, nobody wrote it */
    const float *odd; /* 500 bytes, written */
    float *host;      /* host memory */
};
struct probe {
    const char *name;
    /* What the shim says of the wrong one; NULL: there is none, the right one writes 1 to all of
     * `out` where all is as it should be. */
    const char *finding;
    /* The wrong one also gives other bits than the right one, in one of the orders at least. */
    bool bits;
    void (*body)(bool right, const struct probe_memory *m);
};
extern const struct probe probe_table[];
extern const int probe_count;
int probe_launch(const struct probe *p, bool right, const struct probe_memory *m, struct err *e);
/* Kernels that do nothing of interest: with few registers; with 2,000 bytes of static shared memory
 * (and 32 registers, and it writes its dynamic); with 100 registers; one that kernels.tsv has not.
 * opt_in: by LAUNCH, as ops/ does it; otherwise a bare launch. */
enum probe_shape { PROBE_IDLE, PROBE_FIXED, PROBE_GREEDY, PROBE_STRANGER };
int probe_launch_shape(enum probe_shape kernel, bool opt_in, const int grid[3], const int block[3],
                       int shared, struct err *e);
int probe_fault(int kind, i64 value, i64 at, i64 limit, struct err *e);

#ifdef __cplusplus
}
#endif
#endif
