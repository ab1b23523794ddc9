/* attention_tile.h: the one product attention is made of, and the packing that feeds it. Included
 * by *_cpu.c files.
 *
 *   C[r][n] = chain over k ascending of A(r,k) * B[k][n], from 0, from C, or from C * scale[r]
 *
 * A unit is 4 bytes: a float, or a pair of bf16 of neighbouring k (even in the low half). So one
 * loop serves both: v16_fma of a broadcast float, or v16_dot of a broadcast pair (NUMERICS.md 2,
 * 3). A is read by broadcasting, with any strides, so A and its transpose cost the same; B must be
 * packed, n in whole vectors, zeros past the end. 6 x 4 vectors of accumulators fill the 32
 * registers of AVX-512; AVX2 has room for 6 x 1; plain C
 * gains nothing from more than one. */
#ifndef HONE_ATTENTION_TILE_H
#define HONE_ATTENTION_TILE_H

#include "base/v16.h"
#include "ops/attention/attention_int.h"

#if defined(ISA_IS_avx512) || defined(ISA_IS_avx512bf16)
enum { TILE_ROWS = 6, TILE_VECTORS = 4 };
#elif defined(ISA_IS_avx2)
enum { TILE_ROWS = 6, TILE_VECTORS = 1 };
#else
enum { TILE_ROWS = 1, TILE_VECTORS = 1 };
#endif

struct product {
    const u32 *a; /* unit (r, k) at a[r * a_row + k * a_step] */
    i64 a_row, a_step;
    const u32 *b; /* unit (k, n) at b[k * b_step + n] */
    i64 b_step;
    float *c;
    i64 c_row;
    bool fresh;         /* from 0 */
    const float *scale; /* [rows], or NULL */
    i64 rows, vectors, depth;
};

V16_FN u32 unit_load(const u32 *p) { /* may have been stored as two bf16 */
    u32 x;
    __builtin_memcpy(&x, p, 4);
    return x;
}

V16_FN void tile_run(const struct product *p, i64 row, i64 vector, int rows, int vectors,
                     bool is_bf16) {
    v16 sum[TILE_ROWS][TILE_VECTORS];
    float *c = p->c + row * p->c_row + vector * 16;
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) {
            sum[r][n] = p->fresh ? v16_set(0) : v16_load(c + r * p->c_row + 16 * n);
            if (p->scale) sum[r][n] = v16_mul(sum[r][n], v16_set(p->scale[row + r]));
        }
    const u32 *a = p->a + row * p->a_row, *b = p->b + vector * 16;
    const i64 a_row = p->a_row, a_step = p->a_step, b_step = p->b_step;
    for (i64 k = p->depth; k > 0; k--, a += a_step, b += b_step) {
        v16 x[TILE_VECTORS];
        v16h y[TILE_VECTORS];
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++)
            if (is_bf16)
                y[n] = v16h_load(b + 16 * n);
            else
                x[n] = v16_load((const float *)b + 16 * n);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int n = 0; n < vectors; n++)
                sum[r][n] = is_bf16
                                ? v16_dot(v16h_set(unit_load(a + r * a_row)), y[n], sum[r][n])
                                : v16_fma(v16_set(((const float *)a)[r * a_row]), x[n], sum[r][n]);
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int n = 0; n < vectors; n++) v16_store(c + r * p->c_row + 16 * n, sum[r][n]);
}

/* All rows under `vectors` vectors of columns, so that this part of B stays in the nearest cache.
 */
V16_FN void tile_column(const struct product *p, i64 vector, int vectors, bool is_bf16) {
    i64 r = 0;
    for (; r + TILE_ROWS <= p->rows; r += TILE_ROWS)
        tile_run(p, r, vector, TILE_ROWS, vectors, is_bf16);
    if (TILE_ROWS == 1) return;
    if (r + 4 <= p->rows) tile_run(p, r, vector, 4, vectors, is_bf16), r += 4;
    if (r + 2 <= p->rows) tile_run(p, r, vector, 2, vectors, is_bf16), r += 2;
    if (r < p->rows) tile_run(p, r, vector, 1, vectors, is_bf16);
}
V16_FN void product_columns(const struct product *p, bool is_bf16) {
    i64 n = 0;
    for (; n + TILE_VECTORS <= p->vectors; n += TILE_VECTORS)
        tile_column(p, n, TILE_VECTORS, is_bf16);
#if defined(ISA_IS_avx512) || defined(ISA_IS_avx512bf16)
    if (p->vectors - n == 3) tile_column(p, n, 3, is_bf16);
    if (p->vectors - n == 2) tile_column(p, n, 2, is_bf16);
    if (p->vectors - n == 1) tile_column(p, n, 1, is_bf16);
#endif
}
static __attribute__((noinline)) void product_f32(const struct product *p) {
    product_columns(p, false);
}
static __attribute__((noinline)) void product_half(const struct product *p) {
    product_columns(p, true);
}
V16_FN void product_run(const struct product *p, bool is_bf16) {
    if (is_bf16)
        product_half(p);
    else
        product_f32(p);
}

/* ---- packing. A row of head_dim elements is padded with zeros to row_units units, a multiple of
 * 16 ---- */

V16_FN i64 row_units(i64 head_dim, bool is_bf16) {
    return round_up(is_bf16 ? (head_dim + 1) / 2 : head_dim, 16);
}

V16_FN const void *element(const void *p, i64 i, bool is_bf16) {
    return is_bf16 ? (const void *)((const u16 *)p + i) : (const void *)((const float *)p + i);
}

V16_FN void row_copy(u32 *to, const void *from, i64 head_dim, bool is_bf16) {
    i64 d = 0;
    if (!is_bf16) {
        for (; d < head_dim; d += 16)
            v16_store((float *)to + d, v16_load_n((const float *)from + d, head_dim - d));
        return;
    }
    for (; d + 32 <= head_dim; d += 32) v16h_store(to + d / 2, v16h_load((const u16 *)from + d));
    if (d == head_dim) return;
    u32 tail[16] = {0};
    __builtin_memcpy(tail, (const u16 *)from + d, (size_t)(head_dim - d) * 2);
    v16h_store(to + d / 2, v16h_load(tail));
}

/* Asks for rows ahead of their use: their stride defeats the hardware's guess. */
V16_FN void rows_fetch(const void *from, i64 row, i64 rows, i64 head_dim, bool is_bf16) {
    const i64 size = is_bf16 ? 2 : 4;
    for (i64 r = 0; r < rows; r++)
        for (i64 byte = 0; byte < head_dim * size; byte += 64)
            __builtin_prefetch((const u8 *)from + r * row * size + byte);
}

/* `rows` rows, then zeros up to `padded` */
V16_FN void rows_copy(u32 *to, const void *from, i64 row, i64 rows, i64 padded, i64 head_dim,
                      bool is_bf16) {
    const i64 units = row_units(head_dim, is_bf16);
    for (i64 r = 0; r < rows; r++)
        row_copy(to + r * units, element(from, r * row, is_bf16), head_dim, is_bf16);
    if (padded > rows)
        __builtin_memset(to + rows * units, 0, (size_t)((padded - rows) * units) * 4);
}

/* to[c][r] = from[r][c], 16 x 16 units */
V16_FN void transpose16(u32 *to, i64 to_row, const void *from, i64 from_bytes) {
#if defined(ISA_IS_avx512) || defined(ISA_IS_avx512bf16)
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512((const u8 *)from + i * from_bytes);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int h = 0; h < 2; h++) { /* r[i + c], lane L: column 4L + c of rows i..i+3 */
            r[i + 2 * h] = _mm512_unpacklo_epi64(t[i + h], t[i + 2 + h]);
            r[i + 2 * h + 1] = _mm512_unpackhi_epi64(t[i + h], t[i + 2 + h]);
        }
    for (int c = 0; c < 4; c++) {
        const __m512i even0 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88),
                      even8 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88),
                      odd0 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd),
                      odd8 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        _mm512_storeu_si512(to + c * to_row, _mm512_shuffle_i32x4(even0, even8, 0x88));
        _mm512_storeu_si512(to + (4 + c) * to_row, _mm512_shuffle_i32x4(odd0, odd8, 0x88));
        _mm512_storeu_si512(to + (8 + c) * to_row, _mm512_shuffle_i32x4(even0, even8, 0xdd));
        _mm512_storeu_si512(to + (12 + c) * to_row, _mm512_shuffle_i32x4(odd0, odd8, 0xdd));
    }
#else
    for (int i = 0; i < 16; i++)
        for (int c = 0; c < 16; c++)
            __builtin_memcpy(to + c * to_row + i, (const u8 *)from + i * from_bytes + 4 * c, 4);
#endif
}

/* Rows of k or v as columns: to[unit][row], `width` of them (a multiple of 16), zeros past
 * `rows`. `spare`: 16 padded rows. */
V16_FN void columns_pack(u32 *to, i64 to_row, i64 width, const void *from, i64 row, i64 rows,
                         i64 head_dim, u32 *spare, bool is_bf16) {
    const i64 units = row_units(head_dim, is_bf16), size = is_bf16 ? 2 : 4;
    for (i64 r = 0; r < width; r += 16) {
        const void *source = element(from, r * row, is_bf16);
        i64 bytes = row * size;
        if (rows - r < 16 || head_dim * size != units * 4) {
            rows_copy(spare, source, row, i64_max(0, i64_min(16, rows - r)), 16, head_dim, is_bf16);
            source = spare, bytes = units * 4;
        }
        for (i64 u = 0; u < units; u += 16)
            transpose16(to + u * to_row + r, to_row, (const u8 *)source + 4 * u, bytes);
    }
}

/* Rows as the B of a product over rows: [row][lanes] floats, or [row / 2][lanes] pairs of rows.
 * Zeros past `rows`, up to `padded` (even). */
V16_FN void rows_pack(u32 *to, const void *from, i64 row, i64 rows, i64 padded, i64 head_dim,
                      bool is_bf16) {
    if (!is_bf16) {
        rows_copy(to, from, row, rows, padded, head_dim, false);
        return;
    }
    const i64 lanes = round_up(head_dim, 16);
    for (i64 r = 0; r < padded; r += 2, to += lanes) {
        const u16 *x = (const u16 *)from + r * row, *y = x + row;
        i64 d = 0;
        if (r + 1 < rows)
            for (; d < head_dim; d++) to[d] = x[d] | (u32)y[d] << 16;
        else if (r < rows)
            for (; d < head_dim; d++) to[d] = x[d];
        for (; d < lanes; d++) to[d] = 0;
    }
}

/* Stores p or ds in place of scores; as the first half of the row in bf16. They are results, so
 * never denormal, and the instruction rounds them as v16_store_bf16 does. */
V16_FN void probability_put(float *s, i64 at, v16 x, bool is_bf16) {
#ifdef ISA_IS_avx512bf16
    if (is_bf16) {
        _mm256_storeu_si256((__m256i *)((u16 *)s + at), (__m256i)_mm512_cvtneps_pbh(x));
        return;
    }
#endif
    v16_put(s, at, x, is_bf16);
}

/* ---- bias and masks ---- */

/* s + the bias of ALiBi at places `at`.. of neighbouring keys */
V16_FN v16 v16_bias(v16 s, float slope, i64 at, bool bf16) {
    static const float lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const v16 place = v16_add(v16_set((float)at), v16_load(lane));
    if (!bf16) return v16_fma(v16_set(slope), place, s);
    return v16_add(s, v16_rounded(v16_mul(v16_set(slope), v16_rounded(place, true)), true));
}

/* x where low <= lane + at < high, else `other` */
V16_FN v16 v16_within(v16 x, i64 at, i64 low, i64 high, v16 other) {
    x = v16_select(m16_first(i64_max(0, high - at)), x, other);
    return low <= at ? x : v16_select(m16_first(low - at), other, x);
}

#endif
