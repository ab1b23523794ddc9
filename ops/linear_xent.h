/* linear_xent.h: what linear_xent.c and linear_xent_cpu.c share. */
#ifndef HONE_LINEAR_XENT_H
#define HONE_LINEAR_XENT_H

#include "ops/ops_int.h"

i64 xent_rows(i64 rows, i64 vocab); /* rows whose logits exist at the same time */

#endif
