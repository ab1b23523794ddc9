/* gemm.c: how much scratch a matrix product needs. */
#include "ops/gemm_int.h"

struct gemm_room gemm_room(i64 m, i64 n, i64 k, i64 rank) {
    enum { UNIT = 84 }; /* a multiple of the rows of every micro-kernel */
    const i64 rows = i64_min(round_up(m, UNIT), GEMM_MC),
              lanes = i64_max(i64_min(k + 1, GEMM_KC), rank + 1);
    struct gemm_room r;
    r.a = 0;
    r.b = r.a + round_up(rows * (lanes + 4), 16);
    r.tiles = r.b + round_up(GEMM_COLS * lanes + 16, 16);
    r.size = r.tiles + rows * i64_min(round_up(n, GEMM_COLS), GEMM_NC);
    return r;
}

i64 gemm_scratch(i64 m, i64 n, i64 k, i64 rank) {
    return pool_threads() * gemm_room(m, n, k, rank).size * (i64)sizeof(float);
}
