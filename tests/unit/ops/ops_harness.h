/* ops_harness.h: builds calls from an operation's samples, with guarded buffers; shared by
 * test_ops.c. */
#ifndef HONE_OPS_HARNESS_H
#define HONE_OPS_HARNESS_H

#include "ops/ops.h"

/* A call whose views own guarded memory: canaries on both sides, data off its natural 64-byte
 * alignment. */
struct trial {
    struct op_call call;
    void *block[OP_IN + OP_OUT + 1 + VIEW_PARTS]; /* scratch, then the parts of a packed argument */
    i64 bytes[OP_IN + OP_OUT + 1 + VIEW_PARTS];
};

/* precision: F64 for the reference, F32 or BF16 for kernels. Floats are drawn from Philox by
 * position, rounded to `rounding` first, so that reference and kernel see the same numbers. */
void trial_open(struct trial *t, const struct op *op, const struct sample *s, enum dtype precision,
                enum dtype rounding);
bool trial_intact(const struct trial *t); /* canaries */
void trial_close(struct trial *t);
double view_at(const struct view *v, i64 i); /* as f64 */
void view_put(struct view *v, i64 i, double x);

#endif
