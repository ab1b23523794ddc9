/* gemm_cuda.h: matrix products on the GPU, with the meaning of gemm.h. Internal to ops. */
#ifndef HONE_GEMM_CUDA_H
#define HONE_GEMM_CUDA_H

#include "ops/gemm/gemm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Queues g: on a GPU no scratch is needed, and `accumulate` may also be into bf16. Portable
 * numerics: the bits of gemm.h. Fast: cuBLASLt, f32 sums in an order of its own; with T and U two
 * products, rounded to C's dtype after each. Where ld is larger than the extent, what lies between
 * is zeros. */
int gemm_cuda(const struct gemm *g, struct err *e);

/* One product for each of `count` groups of rows, offset[i] <= row < offset[i + 1] (on the device).
 * g describes them all together: A, C and T hold the rows one group after another; B and U are
 * stacks of a matrix a group (of B b_step elements), bias of a row a group. With a_t the rows are
 * k, one by one also in bf16 (in_order), A and B hold them, and C is a stack of f32, added to. */
struct gemm_groups {
    const i32 *offset;
    i64 count, b_step;
};
int gemm_groups_cuda(const struct gemm *g, const struct gemm_groups *s, struct err *e);

/* ---- between the files of gemm_cuda ---- */
/* Few rows, W along k (gemm_rows_cuda.cu): whether g is such a product; queues it. */
bool gemm_rows_fit(const struct gemm *g);
int gemm_rows(const struct gemm *g, struct err *e);
/* cublaslt_cuda.cu. lt_ready: whether the library is there. lt_run: 0, -1, or 1 if the library has
 * no way to compute it; k is 0 or rank is 0. lt_close: before the device closes. */
bool lt_ready(void);
int lt_run(const struct gemm *g, struct err *e);
void lt_close(void);

#ifdef __cplusplus
}
#endif
#endif
