/* linear_xent.h: what linear_xent.c and its kernels share. */
#ifndef HONE_LINEAR_XENT_H
#define HONE_LINEAR_XENT_H

#include "ops/ops_int.h"

#ifdef __cplusplus
extern "C" {
#endif
i64 xent_rows(i64 rows, i64 vocab); /* rows whose logits exist at the same time */
i64 xent_rows_cuda(i64 rows, i64 vocab);
extern i64 xent_logits_cuda; /* how many logits a chunk aims at; tests make it small */
#ifdef __cplusplus
}
#endif
static inline i64 xent_ld_cuda(i64 vocab) {
    return round_up(vocab, 8);
} /* floats from row to row */

#endif
