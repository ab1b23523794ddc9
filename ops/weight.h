/* weight.h: the weight of a product, in[1], and what decodes it where it is 4-bit codes (u4,
 * base/quant.h), from in[at] on: absmax [blocks] and code [16]; or absmax u8, code [273] and
 * absmax2 [blocks / 256]. Internal to ops. */
#ifndef HONE_WEIGHT_H
#define HONE_WEIGHT_H

#include "base/quant.h"
#include "ops/ops_int.h"

/* in[at] is [rows, cols]; -1: any size. */
int need_sizes(const struct op_call *c, int at, i64 rows, i64 cols, struct err *e);
/* in[1] is [rows, cols], in the dtype of in[0] or codes with what decodes them. */
int need_weight(const struct op_call *c, i64 rows, i64 cols, int at, struct err *e);
struct quant weight_quant(const struct op_call *c, int at); /* of use if in[1] is U4 */
i64 weight_scratch_cuda(const struct op_call *c);           /* bytes of the decoded weight, or 0 */
/* in[1] in f64; *own: to be freed. */
const double *weight_ref(const struct op_call *c, int at, double **own);
/* Codes for in[1] of a sample, and what decodes them; twice: the scales are codes too. */
void sample_weight(struct sample *s, int at, i64 rows, i64 cols, bool twice);

#endif
