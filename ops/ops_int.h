/* ops_int.h: what the files of ops/ share among themselves. */
#ifndef HONE_OPS_INT_H
#define HONE_OPS_INT_H

#include "ops/ops.h"

#define X(name) op_kernel name##_plain, name##_avx2, name##_avx512, name##_avx512bf16;
OP_LIST(X)
#undef X
/* Weak: NULL in a program that is linked without the CUDA kernels. */
#define X(name) extern op_kernel name##_cuda __attribute__((weak));
OP_LIST(X)
#undef X

/* A kernel's definition in a *_cpu.c file: CPU_KERNEL(rmsnorm) { ... c ... e ... return 0; } */
#define CPU_KERNEL(name) int CPU_NAME(name)(const struct op_call *c, struct err *e)

/* Which benchmark a sample of so many rows belongs to: those beyond 10,000 are for GPUs, where less
 * would measure launches and the cache. */
static inline enum bench bench_of(i64 rows) {
    return rows > 10000 ? BENCH_GPU : rows > 1500 ? BENCH : BENCH_NO;
}

/* Shape rules in a line each. `at` is an index into in[] (or out[] for the _out forms). */
int need_rank(const struct op_call *c, int at, int rank, struct err *e);
int need_dtype(const struct op_call *c, int at, enum dtype d, struct err *e);
int need_float(const struct op_call *c, int at, struct err *e); /* F32 or BF16 */
int need_dim(const struct op_call *c, int at, int axis, i64 size, struct err *e);
/* in[at] is [rows, cols]; -1: any size. The second: in the dtype of in[0], which is also how a
 * weight is checked that may be packed. */
int need_sizes(const struct op_call *c, int at, i64 rows, i64 cols, struct err *e);
int need_matrix(const struct op_call *c, int at, i64 rows, i64 cols, struct err *e);
int need_same(const struct op_call *c, int at, int like,
              struct err *e); /* dtype and shape of in[like] */
int need_out(const struct op_call *c, int at, enum dtype d, int rank, const i64 *dim,
             struct err *e); /* given outputs */
void set_out(struct op_call *c, int at, enum dtype d, int rank, const i64 *dim);
void set_out_like(struct op_call *c, int at, const struct view *v);

/* sample on a GPU: rows at a time; bytes of scratch for each of their candidates. */
enum { SAMPLE_ROWS = 128, SAMPLE_BYTES = 24 };

/* route: the most experts, of them chosen, and groups (route.c). */
enum { ROUTE_EXPERTS = 1024, ROUTE_SLOTS = 32, ROUTE_GROUPS = 64 };
void expert_plan_run(const struct op_call *c);

/* adafactor: its matrices, and the rows whose squares a chain adds (adafactor.c). */
enum { ADAFACTOR_ROWS = 256 };
struct adafactor_size {
    i64 batch, rows, cols, blocks;
};
static inline struct adafactor_size adafactor_size(const struct view *grad) {
    struct adafactor_size s = {1, 1, grad->dim[grad->rank - 1], 1};
    if (grad->rank > 1) s.rows = grad->dim[grad->rank - 2];
    if (grad->rank > 2) s.batch = grad->dim[0];
    s.blocks = (s.rows + ADAFACTOR_ROWS - 1) / ADAFACTOR_ROWS;
    return s;
}

/* in[1] of a call, a weight that may be packed: bytes of what it decodes to, or 0; its values in
 * f64 (*own: to be freed). packing.c. */
i64 weight_scratch_cuda(const struct op_call *c);
const double *weight_ref(const struct view *w, double **own);

static inline bool view_is_bf16(const struct view *v) { return v->dtype == BF16; }
static inline bool is_present(const struct view *v) { return v->rank > 0; }

#endif
