/* cast_cuda.cu: formula in cast.c. A block has 32 by 32 values; turned, they go through shared
 * memory, so that both sides are read and written along rows. */
#include "ops/device/cuda_vec.h"

enum { SIDE = 32, LINES = 8, THREADS = SIDE * LINES };

__global__ void cast_kernel(const void *x, const double *sum, void *y, i64 rows, i64 cols,
                            struct cast_attr a, bool x_half) {
    SHARED(float, tile, SIDE *(SIDE + 1));
    const double root = sum ? sqrt(*sum) : 1;
    const float f = (float)(sum ? a.factor / (root > a.eps ? root : a.eps) : a.factor);
    const i64 row = (i64)blockIdx.x * SIDE, col = (i64)blockIdx.y * SIDE;
    const int lane = threadIdx.x % SIDE, line = threadIdx.x / SIDE;
    for (int k = line; k < SIDE; k += LINES)
        if (row + k < rows && col + lane < cols) {
            const i64 at = (row + k) * cols + col + lane;
            const float v = v16_mul(get1(x, at, x_half), f);
            if (a.transposed)
                tile[k * (SIDE + 1) + lane] = v;
            else
                put1(y, at, v, a.is_bf16);
        }
    if (!a.transposed) return;
    __syncthreads();
    for (int k = line; k < SIDE; k += LINES)
        if (row + lane < rows && col + k < cols)
            put1(y, (col + k) * rows + row + lane, tile[lane * (SIDE + 1) + k], a.is_bf16);
}
CUDA_KERNEL(cast) {
    const struct view *x = &c->in[0];
    const dim3 grid((unsigned)((x->dim[0] + SIDE - 1) / SIDE),
                    (unsigned)((x->dim[1] + SIDE - 1) / SIDE));
    return LAUNCH(e, cast_kernel, grid, SIDE * LINES, 0, x->data, (const double *)c->in[1].data,
                  c->out[0].data, x->dim[0], x->dim[1], *(const struct cast_attr *)c->attr,
                  view_is_bf16(x));
}
