/* peak.h: what peak.c and peak_cpu.c share. */
#ifndef HONE_PEAK_H
#define HONE_PEAK_H

#include "ops/ops.h"

#define X(isa) double peak_spin_##isa(i64 rounds, bool pair);
ISA_LIST(X)
#undef X

#endif
