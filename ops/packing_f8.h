/* packing_f8.h: f8, matrices as FP8 files have them (DeepSeek V3): e4m3fn codes (base/quant.h), and
 * in part 0 an f32 scale for each tile of block[0] rows and block[1] columns, [ceil(rows /
 * block[0]), ceil(columns / block[1])]; one for a whole tensor is a tile of its size. An element is
 * code * scale. Encoding: scale = largest magnitude / 448, the code is the one nearest to x /
 * scale, of two the even one. The code of NaN, 0x7f, is never there: who brings codes of a file
 * checks that. */
#ifndef HONE_PACKING_F8_H
#define HONE_PACKING_F8_H

#include "ops/packing.h"

static inline i64 f8_tiles(i64 count, i64 block) { return (count + block - 1) / block; }
static inline i64 f8_bytes(const struct view *v, int slot) {
    if (slot > 1) return 0;
    return slot ? f8_tiles(v->dim[0], v->block[0]) * f8_tiles(v->dim[1], v->block[1]) * 4
                : view_count(v);
}

V16_FN struct packing_run f8_run(const struct view *v, i64 i) {
    const i64 cols = v->dim[1], row = i / cols, col = i - row * cols, tile = col / v->block[1],
              across = (cols + v->block[1] - 1) / v->block[1], end = (tile + 1) * v->block[1];
    struct packing_run r;
    r.scale = ((const float *)v->part[0])[row / v->block[0] * across + tile];
    r.count = (end < cols ? end : cols) - col, r.code = (const u8 *)v->data + i;
    return r;
}
/* A sign, four bits of exponent e and three of mantissa m: (8 + m) * 2^(e - 10), or, where e is 0,
 * m * 2^-9. */
V16_FN v16 f8_value(v16 code) {
    const m16 plus = v16_lt(code, v16_set(128));
    const v16 rest = v16_sub(code, v16_select(plus, v16_set(0), v16_set(128))),
              e = v16_round(v16_sub(v16_mul(rest, v16_set(0.125f)), v16_set(0.4375f))),
              whole = v16_add(v16_sub(rest, v16_mul(e, v16_set(8))), v16_set(8)),
              large = v16_scale2(whole, v16_sub(e, v16_set(10))),
              small = v16_mul(rest, v16_set(0x1p-9f)),
              size = v16_select(v16_lt(rest, v16_set(8)), small, large);
    return v16_mul(size, v16_select(plus, v16_set(1), v16_set(-1)));
}

static inline void f8_tile(const struct packing_job *j, i64 row, i64 col, float *scale) {
    const i64 cols = j->v->dim[1], right = i64_min(col + j->v->block[1], cols),
              below = i64_min(row + j->v->block[0], j->v->dim[0]);
    float top = 0;
    for (i64 r = row; r < below; r++)
        for (i64 i = r * cols + col; i < r * cols + right; i++) {
            const float x = packing_magnitude(packing_get(j, i));
            top = x > top ? x : top;
        }
    *scale = top / 448;
    for (i64 r = row; r < below; r++)
        for (i64 i = r * cols + col; i < r * cols + right; i++)
            ((u8 *)j->v->data)[i] =
                *scale > 0 ? fp8_of_f32(packing_get(j, i) / *scale, FP8_E4M3) : 0;
}
static inline void f8_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct packing_job *j = (const struct packing_job *)arg;
    const i64 across = f8_tiles(j->v->dim[1], j->v->block[1]);
    for (i64 t = begin; t < end; t++)
        f8_tile(j, t / across * j->v->block[0], t % across * j->v->block[1],
                (float *)j->v->part[0] + t);
}
static inline int f8_encode(const struct view *v, const void *from, bool is_bf16, struct err *e) {
    (void)e;
    struct packing_job job = {v, from, is_bf16};
    pool_run(f8_bytes(v, 1) / 4, f8_task, &job);
    return 0;
}

#define PACKING_f8 .block = {128, 128}, .bytes = f8_bytes, .encode = f8_encode

#endif
