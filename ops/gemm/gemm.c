/* gemm.c: how much scratch a matrix product needs. */
#include "ops/gemm/gemm_int.h"

/* Never less for more rows: experts share the room of all rows. */
struct gemm_room gemm_room(i64 m, i64 n, i64 k, i64 rank) {
    enum { UNIT = 84, SLACK = 16 }; /* a multiple of the rows of every micro-kernel; panel_size */
    const i64 rows = i64_min(round_up(m, UNIT), GEMM_ROWS), strip = i64_min(rows, GEMM_MC);
    const i64 cols = i64_min(round_up(n, GEMM_COLS), GEMM_NC),
              panels = i64_max(rows > strip ? cols / GEMM_COLS : 0, GEMM_GROUP);
    const i64 lanes = i64_max(i64_min(k + 1, GEMM_KC), rank + 1);
    struct gemm_room r;
    r.a = 0;
    r.b = r.a + round_up(strip * (lanes + SLACK / 4), 16);
    r.tiles = r.b + round_up(panels * (GEMM_COLS * lanes + 2 * SLACK), 16);
    r.size = r.tiles + rows * cols;
    return r;
}

i64 gemm_scratch(i64 m, i64 n, i64 k, i64 rank) {
    return pool_threads() * gemm_room(m, n, k, rank).size * (i64)sizeof(float);
}
