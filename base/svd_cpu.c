/* svd_cpu.c: y [rows, b] = w [rows, cols] f32 · x [cols, b] in f64, for svd.c. Each sum is a
 * multiplication and an addition per term, ascending, so that instruction sets and blocking change
 * no bit. b is a multiple of 8; x and y lie on 64 bytes. */
#include "base/v16.h"

typedef double d8 __attribute__((vector_size(64), may_alias));

#define BLOCK(R)                                                                                   \
    do {                                                                                           \
        d8 sum[R] = {0};                                                                           \
        for (i64 k = 0; k < cols; k++) {                                                           \
            const d8 at = *(const d8 *)(x + k * b + g);                                            \
            for (int t = 0; t < R; t++) sum[t] = sum[t] + at * (double)w[(i + t) * cols + k];      \
        }                                                                                          \
        for (int t = 0; t < R; t++) *(d8 *)(y + (i + t) * b + g) = sum[t];                         \
    } while (0)

void CPU_NAME(svd_product)(double *y, const float *w, const double *x, i64 cols, i64 b, i64 begin,
                           i64 end);
void CPU_NAME(svd_product)(double *y, const float *w, const double *x, i64 cols, i64 b, i64 begin,
                           i64 end) {
    i64 i = begin;
    for (; i + 8 <= end; i += 8)
        for (i64 g = 0; g < b; g += 8) BLOCK(8);
    for (; i < end; i++)
        for (i64 g = 0; g < b; g += 8) BLOCK(1);
}
